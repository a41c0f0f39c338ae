//! Where a member stands, and what of it must hold.
//!
//! Owns: the checks between any two events that one member can be judged by alone. Must never: know another member (`oracle` does). Driven by `world`.

use covey::ids::Term;
use covey::wal::HardState;

use super::Member;

/// What must hold between any two events.
impl Member {
    pub(crate) fn term(&self) -> Term {
        self.core.status().term
    }

    pub(crate) fn check_invariants(&self, before: Option<&Standing>) -> Standing {
        let status = self.core.status();
        let standing = Standing {
            term: status.term.0,
            commit: status.commit.0,
            applied: self.confirmed.applied().0,
            stored: self.checkpointer.store().meta().applied.0,
            last: status.last.0,
            promised: self.log.hard_state(),
            durable: self.durable,
        };
        let Standing { commit, applied, stored, last, .. } = standing;
        assert!(applied <= commit && commit <= last, "applied {applied} <= commit {commit} <= last {last}");
        let reached = self.applier.applied();
        let sweeps = self.applier.is_stalled() && stored == reached.next().0;
        let ahead = stored <= reached.0 || self.installing || sweeps;
        assert!(ahead, "the store is ahead of the state by a deletion, or while one is being installed");
        assert!(self.confirmed.applied() <= self.applier.applied(), "a report is not ahead of the state");
        assert!(self.log.start().index.0 <= stored, "the log reaches back to the store");
        assert!(self.log.hard_state().term.0 <= standing.term, "no term on disk that raft does not know");
        if let Some(before) = before {
            assert!(standing.term >= before.term, "the term does not fall");
            assert!(standing.promised.term >= before.promised.term, "the term on disk does not fall");
            assert!(standing.commit >= before.commit, "the commit position does not fall");
            assert!(standing.applied >= before.applied, "the applied position does not fall");
            assert!(standing.stored >= before.stored, "the store does not go back");
        }
        standing
    }

    /// Only entries on this member's disk are applied (the member votes for nothing less).
    pub(crate) fn check_durability(&self) {
        // An installed state is durable before its log begins.
        let applied = self.applier.applied();
        assert!(
            applied <= self.synced.max(self.checkpointer.store().meta().applied),
            "entry {applied} is applied, but the disk has them up to {}",
            self.synced
        );
    }
}

/// Positions of a run at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    term: u64,
    commit: u64,
    applied: u64,
    stored: u64,
    last: u64,
    /// What is on disk, or on its way there.
    promised: HardState,
    /// What is on disk for certain.
    durable: HardState,
}

impl Standing {
    /// What of this the next run has to begin with, after a crash too.
    pub(crate) fn remembered(self) -> Self {
        let Self { stored, durable, .. } = self;
        let commit = stored.max(durable.commit.0);
        Self { term: durable.term.0, commit, applied: stored, last: commit, promised: durable, ..self }
    }

    pub(crate) fn numbers(&self) -> [u64; 5] {
        [self.term, self.commit, self.applied, self.stored, self.last]
    }
}
