//! How long to wait before the next attempt to reach a member.
//!
//! Owns: the growth of the pause, and the jitter. Must never: read a clock. Driven by `manager`.

use std::time::Duration;

use crate::prng::Prng;

/// The pause after a first failure.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause: what a member that comes back at its old address may wait for us. It dials, too.
const MAX: Duration = Duration::from_secs(5);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause before the next attempt: twice as long as the one before, and between half of that and all of it, so that members that
    /// lost each other at the same time do not meet in step.
    pub(super) fn next(&mut self, prng: &mut Prng) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(16)).min(MAX);
        self.failures += 1;
        let half = u64::try_from(whole.as_micros()).unwrap_or(u64::MAX) / 2;
        Duration::from_micros(half + prng.range(0, half + 1))
    }

    /// It was reached, or there is news of where it is.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[test]
fn the_pause_grows_to_its_bound_and_is_never_in_step() {
    let mut prng = Prng::new(3);
    let (mut one, mut two) = (Backoff::default(), Backoff::default());
    let mut expected = FIRST;
    let mut in_step = 0;
    for _ in 0..100 {
        let (a, b) = (one.next(&mut prng), two.next(&mut prng));
        for pause in [a, b] {
            assert!(pause >= expected / 2 && pause <= expected, "{pause:?} {expected:?}");
        }
        in_step += usize::from(a == b);
        expected = (expected * 2).min(MAX);
    }
    assert!(in_step < 3);
    one.reset();
    assert!(one.next(&mut prng) <= FIRST);
}
