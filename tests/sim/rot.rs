//! A bit flips on the disk while the power is off: the node says where and stops, or everything it serves is right.
//!
//! Owns: what counts as a clear refusal. Must never: take a wrong answer for one.

use std::cell::Cell;
use std::panic;
use std::sync::Once;

use covey::store::is_engine_source;

use crate::plan::Plan;
use crate::seeds::outcome;
use crate::world::World;

const SEEDS: u64 = 120;

/// What a node made of a damaged disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    /// Everything that was asked for.
    Served,
    /// A clear word, at the start or when it met the damage.
    Stopped,
    /// redb has met a page that it cannot have written; in production the panic hook says so and ends the process.
    EnginePanicked,
}

thread_local! {
    static IN_ENGINE: Cell<bool> = const { Cell::new(false) };
}

/// Notes whether a panic of this thread comes from redb.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            IN_ENGINE.set(info.location().is_some_and(|place| is_engine_source(place.file())));
            before(info);
        }));
    });
}

fn rot(seed: u64) -> Made {
    let mut world = World::new(Plan { quota: u64::MAX, ..Plan::script(seed) });
    world.rot();
    match outcome(|| world.run()) {
        Ok(_) => Made::Served,
        Err(_) if IN_ENGINE.get() => Made::EnginePanicked,
        Err(why) => {
            let said = ["a start was refused: ", "a thread has failed: "]
                .iter()
                .find_map(|said| why.strip_prefix(said));
            let place = [
                ("log file ", "at byte "),
                ("table ", "key "),
                ("identity", "damaged"),
                ("log file ", "version"),
            ];
            let named =
                said.is_some_and(|why| place.iter().any(|(one, two)| why.contains(one) && why.contains(two)));
            assert!(named, "seed {seed}: {why}");
            Made::Stopped
        }
    }
}

#[test]
fn a_flipped_bit_is_named_or_does_no_harm() {
    watch_panics();
    let made: Vec<_> = (0..SEEDS).map(rot).collect();
    let count = |one| made.iter().filter(|made| **made == one).count();
    let (served, stopped) = (count(Made::Served), count(Made::Stopped));
    println!("served {served}, stopped {stopped}, engine panicked {}", count(Made::EnginePanicked));
    assert!(served > 0 && stopped > 0);
}
