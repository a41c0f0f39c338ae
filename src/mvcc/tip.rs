//! The one end of the state that grows.
//!
//! Owns: the right to write. A [`View`] is handed to anyone and shares its layers, so it cannot be written through; a tip is never cloned.
//! Must never: decide what is written (`machine` and the [`Writer`](super::Writer) do). Held by `machine`.

use std::sync::Arc;

use super::view::{Facts, View};
use crate::ids::{Digest, LeaseId, LogIndex, Term};
use crate::store::{Base, ChangeLog, Lease, StoreError, Sweep};

/// The newest state, and the layers' moves.
pub struct Tip {
    pub(super) view: View,
    /// What the store has to do for an entry that is swept; `None` for any other.
    pub(super) sweep: Option<Sweep>,
}

impl Tip {
    /// The state that a store holds, to be written on.
    pub fn of_base(base: Arc<Base>) -> Result<Self, StoreError> {
        Ok(Self { view: View::of_base(base)?, sweep: None })
    }

    /// The state now. Clones of it are what readers get.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Notes the log entry that the state is about to include.
    pub fn advance(&mut self, applied: LogIndex, term: Term) {
        assert_eq!(applied, self.view.applied.next(), "log entries are applied in order, without gaps");
        assert!(term >= self.view.applied_term, "terms do not fall along the log");
        self.view.applied = applied;
        self.view.applied_term = term;
        self.view.digest.entry(applied, term);
    }

    /// The digest, for what an entry does beside its changes.
    pub fn digest_mut(&mut self) -> &mut Digest {
        &mut self.view.digest
    }

    /// The facts, to be changed; views that share them keep the old ones.
    pub fn facts_mut(&mut self) -> &mut Facts {
        Arc::make_mut(&mut self.view.facts)
    }

    /// Sets what there is under a lease's id; the keys of one that ends must be gone.
    pub fn set_lease(&mut self, id: LeaseId, lease: Option<Lease>) {
        self.view.digest.lease(id, lease.as_ref());
        self.view.leases.set(id, lease);
    }

    /// Bytes in the generation that takes writes.
    pub fn active_bytes(&self) -> u64 {
        self.view.active.bytes()
    }

    /// Freezes the active generation, starts another, and gives the frozen one's changes in order. There must be no frozen one.
    pub fn freeze(&mut self) -> ChangeLog {
        assert!(self.view.frozen.is_none(), "at most two generations");
        self.view.frozen.insert(std::mem::take(&mut self.view.active)).all()
    }

    /// Puts `base`, which includes the frozen generation's changes, in the place of both.
    pub fn thaw(&mut self, base: Arc<Base>) {
        assert!(self.view.frozen.take().is_some(), "only a frozen generation is folded");
        self.view.base = base;
    }

    /// Puts an equal base in the place of the current one.
    pub fn rebase(&mut self, base: Arc<Base>) {
        assert_eq!(
            base.meta().applied,
            self.view.base.meta().applied,
            "the same state, less what is compacted"
        );
        self.view.base = base;
    }
}
