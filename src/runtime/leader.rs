//! Streams that need a leader, and the loss of one.
//!
//! Owns: how long a leader may be missing before such streams are cut (API reference, section 2.8). Must never: cut one for an election
//! that goes well. Noted by the core thread, awaited by `api`.

use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use super::Milestone;
use super::handle::Handle;
use crate::limits::ELECTION_TIMEOUT;
use crate::time::Instant;

/// How long there may be no leader (etcd's three election timeouts).
const PATIENCE: Duration = ELECTION_TIMEOUT.saturating_mul(3);

/// Since when no leader is known.
#[derive(Debug, Default)]
pub(super) struct LeaderGap {
    since: Option<Instant>,
}

impl LeaderGap {
    /// Looks again; a gap that is too long counts as one loss, and as another when it has lasted as long once more.
    pub(super) fn note(&mut self, now: Instant, known: bool, losses: &Milestone) {
        if known {
            self.since = None;
            return;
        }
        let since = *self.since.get_or_insert(now);
        if now.since(since) >= PATIENCE {
            self.since = Some(now);
            losses.reach(losses.value() + 1);
        }
    }
}

impl Handle {
    /// Resolves when this member has known no leader for three election timeouts; counted from this call on.
    pub fn leader_lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let shared = Arc::clone(&self.0);
        let next = shared.leader_losses.value() + 1;
        async move {
            if !shared.leader_losses.wait(next).await {
                // The node stops, and says so in its own way.
                pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_long_gap_is_a_loss() {
        let (losses, mut gap) = (Milestone::default(), LeaderGap::default());
        let at = |millis| Instant(0) + Duration::from_millis(millis);
        gap.note(at(0), true, &losses);
        gap.note(at(1000), false, &losses);
        gap.note(at(3900), false, &losses);
        gap.note(at(3950), true, &losses);
        gap.note(at(4000), false, &losses);
        gap.note(at(6999), false, &losses);
        assert_eq!(losses.value(), 0);
        gap.note(at(7000), false, &losses);
        assert_eq!(losses.value(), 1);
        gap.note(at(9999), false, &losses);
        assert_eq!(losses.value(), 1);
        gap.note(at(10_000), false, &losses);
        assert_eq!(losses.value(), 2);
    }
}
