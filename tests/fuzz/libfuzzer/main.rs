//! The targets of `tests/fuzz`, driven by libFuzzer.
//!
//! Owns: which one is driven, and that its seeds are in the corpus to begin with. Driven by `tests/fuzz/long`.

#![no_main]

#[path = "../../api/around.rs"]
mod around;
#[path = "../../api/channel.rs"]
#[allow(dead_code, reason = "another binary uses the rest")]
mod channel;
#[path = "../../api/harness.rs"]
#[allow(dead_code, reason = "another binary uses the rest")]
mod harness;
#[path = "../input.rs"]
mod input;
#[path = "../memory.rs"]
mod memory;
#[path = "../targets/mod.rs"]
mod targets;

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use targets::{TARGETS, Target};

/// The name of the target.
const NAME: &str = "COVEY_FUZZ_TARGET";
/// Where its corpus is.
const CORPUS: &str = "COVEY_FUZZ_CORPUS";

static CHOSEN: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var(NAME).unwrap_or_default();
    let names = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(" ");
    TARGETS
        .iter()
        .find(|target| target.name == name)
        .unwrap_or_else(|| panic!("{NAME} is one of: {}", names()))
});

fn put_seeds() {
    let Ok(corpus) = std::env::var(CORPUS) else { return };
    for (number, seed) in (CHOSEN.seeds)().iter().enumerate() {
        std::fs::write(Path::new(&corpus).join(format!("seed-{number}")), seed)
            .expect("a corpus to write to");
    }
}

fuzz_target!(init: put_seeds(), |bytes: &[u8]| {
    (CHOSEN.run)(bytes);
});
