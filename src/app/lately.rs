//! Who waits at the other members, as of the last few seconds.
//!
//! Owns: what they have said, and when. Must never: have two rounds under way, however many look, or keep anybody waiting for one that another has begun. Kept by `operator`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::api::PendingNode;
use crate::time::Instant;

/// For how long what they have said is good enough. Whoever looks every two seconds has them asked as often as this.
const LATELY: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lately(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    said: Vec<PendingNode>,
    /// When that was.
    at: Option<Instant>,
    is_asking: bool,
}

/// A round that is under way. Dropped before it is over it leaves what was said before.
#[derive(Debug)]
pub(super) struct Round(Arc<Lately>);

impl Lately {
    /// Begins a round, if one is due and nobody else has begun it.
    pub(super) fn begin(self: &Arc<Self>, now: Instant) -> Option<Round> {
        let mut inner = self.lock();
        let is_recent = inner.at.is_some_and(|at| now.since(at) < LATELY);
        if is_recent || inner.is_asking {
            return None;
        }
        inner.is_asking = true;
        Some(Round(Arc::clone(self)))
    }

    /// What they have said last, aged to now.
    pub(super) fn said(&self, now: Instant) -> Vec<PendingNode> {
        let inner = self.lock();
        let mut said = inner.said.clone();
        let age = inner.at.map_or(Duration::ZERO, |at| now.since(at));
        for node in &mut said {
            node.asked = node.asked.saturating_add(age);
        }
        said
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Round {
    /// This is what they have said.
    pub(super) fn end(self, said: Vec<PendingNode>, now: Instant) {
        let mut inner = self.0.lock();
        inner.said = said;
        inner.at = Some(now);
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        self.0.lock().is_asking = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formation::Fingerprint;

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    fn one(asked: u64) -> Vec<PendingNode> {
        let node = PendingNode {
            fingerprint: Fingerprint::from_bytes([1; 32]),
            name: "box1".into(),
            peer_urls: Vec::new(),
            asked: Duration::from_secs(asked),
        };
        vec![node]
    }

    #[test]
    fn one_asks_for_all_who_look_and_the_others_are_told_what_was_said_before() {
        let lately = Arc::new(Lately::default());
        let round = lately.begin(at(1)).unwrap();
        assert!(lately.begin(at(1)).is_none(), "the second does not");
        assert_eq!(lately.said(at(1)), [], "nor does it wait");
        round.end(one(7), at(2));
        assert!(lately.begin(at(6)).is_none(), "four seconds later it is good enough");
        assert_eq!(lately.said(at(6)), one(11), "and as old as it is");
        assert!(lately.begin(at(7)).is_some(), "five are too long");
    }

    #[test]
    fn a_round_that_nobody_waits_for_any_more_leaves_the_next_one_to_others() {
        let lately = Arc::new(Lately::default());
        lately.begin(at(1)).unwrap().end(one(0), at(1));
        drop(lately.begin(at(9)).unwrap());
        assert_eq!(lately.said(at(9)), one(8));
        assert!(lately.begin(at(9)).is_some());
    }
}
