//! How long nothing was acknowledged.
//!
//! Owns: which time without writes is because of a trouble. Must never: know who wrote: the bench counts by it, too.

use std::time::{Duration, Instant};

/// Writing goes on for so long after the trouble.
pub const AFTERMATH: Duration = Duration::from_secs(4);

/// A time without writes that begins within this after the trouble is because of it.
const CONCERNED: Duration = Duration::from_millis(250);

/// The longest time without a write that has to do with what happened at `from`: later ones have other reasons.
pub fn longest(mut acknowledged: Vec<Instant>, from: Instant) -> Duration {
    acknowledged.sort_unstable();
    let before = acknowledged.iter().rfind(|at| **at <= from).copied().unwrap_or(from);
    let (mut longest, mut last) = (Duration::ZERO, before);
    for at in acknowledged.into_iter().filter(|at| *at > from).chain([from + AFTERMATH]) {
        if last > from + CONCERNED {
            break;
        }
        longest = longest.max(at - last);
        last = at;
    }
    longest
}
