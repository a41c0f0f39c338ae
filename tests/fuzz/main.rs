//! Every reader of bytes from the wire, the disk or the user, given bytes that nothing of ours has written.
//!
//! Owns: the short run of each target in `targets`: its seeds, and what a fixed generator makes of them. Must never: take longer than a minute in all. The long run
//! is libFuzzer's, which sees what code an input reaches, and keeps what is new:
//!
//! ```text
//! cargo test --test fuzz                             all, short
//! cargo test --test fuzz -- --exact targets::NAME    one
//! tests/fuzz/long SECONDS [NAME...]                  each for so long, with what earlier runs have found
//! ```
//!
//! A target fails by a panic, by taking more memory than its bytes warrant, or when what was read is written otherwise than it was. The long run needs no nightly
//! compiler: libFuzzer comes as source with `libfuzzer-sys`, and rustc's own flags mark what is reached.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../api/around.rs"]
mod around;
#[path = "../api/channel.rs"]
#[allow(dead_code, reason = "another binary uses the rest")]
mod channel;
#[path = "../api/harness.rs"]
#[allow(dead_code, reason = "another binary uses the rest")]
mod harness;

mod driver;
mod input;
mod memory;
mod targets;
