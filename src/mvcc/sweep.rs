//! Entries that delete very many keys.
//!
//! Owns: which those are, what they see of their own deletions, and what the store is told to do. Must never: hold anything for each key that
//! is deleted. Driven by `machine`, through the [`Writer`].
//!
//! An entry that is swept is applied to a tip of its own:
//!
//! ```text
//! what readers see     [ base ] [ frozen ] [ active: empty ]
//! the entry's own      [ base ] [ frozen ] [ swept: intervals ] [ active: its puts ]     and the steps for the store
//! ```
//!
//! Of what it deletes it keeps the intervals: nothing is left of them in the layers below. Its own puts are in the active generation, and those
//! that a later operation of the same entry deletes get their tombstones there.

use std::slice::Iter;
use std::sync::Arc;

use bytes::Bytes;

use super::generation::Generation;
use super::range::{Allowance, Portion, Progress};
use super::tip::Tip;
use super::view::View;
use super::writer::{Writer, branch, next_choice};
use crate::command::{
    Command, DeleteRange, DeleteResult, Intervals, KeyRange, LeaseCommand, Op, RangeEnd, Txn,
};
use crate::ids::{LeaseId, Revision, Term, VersionId};
use crate::limits::{OVERLAY_READ_CHUNK, PUT_OVERHEAD_BYTES};
use crate::store::{Base, Change, ChangeKind, ChangeLog, Doomed, StoreError, Sweep, SweepStep};

/// Keys of a lease that are read in one go.
const LEASE_PORTION: Portion = Portion { keys: OVERLAY_READ_CHUNK, bytes: usize::MAX };

/// The intervals in which an entry has deleted everything.
#[derive(Clone, Debug, Default)]
pub(super) struct Swept {
    /// At this revision.
    revision: Revision,
    keys: Intervals,
}

/// What the tombstones of keys may count until there are too many.
struct Scale {
    left: u64,
}

impl Scale {
    /// Adds a key; whether it is too many.
    fn add(&mut self, key: &Bytes) -> bool {
        self.left = self.left.saturating_sub(key.len() as u64 + PUT_OVERHEAD_BYTES);
        self.left == 0
    }
}

impl Tip {
    /// Freezes the active generation, as [`Tip::freeze`] does, and makes a tip for an entry that is swept.
    pub fn begin_sweep(&mut self) -> (Self, ChangeLog) {
        let changes = self.freeze();
        let mut view = self.view.clone();
        view.active = Arc::<Generation>::default();
        (Self { view, sweep: Some(Sweep::default()) }, changes)
    }

    /// Takes what the store has to do out of a tip that [`Tip::begin_sweep`] made.
    pub fn take_sweep(&mut self) -> Option<Sweep> {
        self.sweep.take().filter(|sweep| !sweep.steps.is_empty())
    }

    /// Goes on from `ahead`, a tip that [`Tip::begin_sweep`] made, now that all of it is in `base`.
    pub fn follow(&mut self, ahead: Self, base: Arc<Base>) {
        assert_eq!(self.view.active.bytes(), 0, "nothing was written since");
        let meta = base.meta();
        assert_eq!((meta.applied, meta.digest), (ahead.view.applied, ahead.view.digest), "it is that state");
        // Keys that the store has deleted were not counted on the way.
        let keys = base.keys();
        self.view =
            View { base, keys, active: Arc::default(), frozen: None, swept: Swept::default(), ..ahead.view };
    }
}

impl View {
    /// The intervals that a reader at this revision finds empty but for the active generation.
    pub(super) fn swept_at(&self, at: Revision) -> Option<&Intervals> {
        let Swept { revision, keys } = &self.swept;
        (at >= *revision && !keys.is_empty()).then_some(keys)
    }

    /// Whether what `command` would delete in an entry of this term counts at least so many bytes as tombstones.
    pub fn outweighs(&self, term: Term, command: &Command, bytes: u64) -> Result<bool, StoreError> {
        let mut scale = Scale { left: bytes };
        match command {
            Command::DeleteRange(delete) => self.weigh(&delete.range, &mut scale),
            Command::Txn(txn) if deletes_intervals(txn) => {
                let mut path = Vec::new();
                self.choose(txn, &mut path)?;
                self.weigh_txn(txn, &mut path.iter(), &mut scale)
            }
            Command::Lease(LeaseCommand::Revoke { id }) => self.weigh_lease(*id, &mut scale),
            Command::Lease(LeaseCommand::Expire { term: of, leases }) if *of == term => {
                for lease in leases.iter().filter(|lease| self.leases.has(**lease)) {
                    if self.weigh_lease(lease.id, &mut scale)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    fn weigh(&self, range: &KeyRange, scale: &mut Scale) -> Result<bool, StoreError> {
        if range.is_single() {
            return Ok(false);
        }
        for row in self.rows(range, self.rev, usize::MAX)? {
            if scale.add(row?.key()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn weigh_txn(&self, txn: &Txn, path: &mut Iter<'_, bool>, scale: &mut Scale) -> Result<bool, StoreError> {
        for op in branch(txn, next_choice(path)) {
            let full = match op {
                Op::DeleteRange(delete) => self.weigh(&delete.range, scale)?,
                Op::Txn(nested) => self.weigh_txn(nested, path, scale)?,
                Op::Put(_) | Op::Range(_) => false,
            };
            if full {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn weigh_lease(&self, lease: LeaseId, scale: &mut Scale) -> Result<bool, StoreError> {
        let mut full = false;
        self.each_lease_key(lease, |key| {
            full = scale.add(&key);
            !full
        })?;
        Ok(full)
    }

    /// Goes through the keys that are attached to `lease`, in key order, for as long as `found` wants more.
    pub(super) fn each_lease_key(
        &self,
        lease: LeaseId,
        mut found: impl FnMut(Bytes) -> bool,
    ) -> Result<(), StoreError> {
        let mut reading = self.begin_lease_keys(lease);
        loop {
            let allowance = &mut { Allowance::UNLIMITED };
            let (keys, ends) = match self.continue_lease_keys(&mut reading, LEASE_PORTION, allowance)? {
                Progress::More => (reading.take_keys(), false),
                Progress::Done(keys) => (keys, true),
                Progress::TooLarge => unreachable!("it has all there is"),
            };
            if !keys.into_iter().all(&mut found) || ends {
                return Ok(());
            }
        }
    }
}

/// Whether a command may delete more than a key for each of its operations. For all others nothing has to be looked up.
pub fn may_delete_many(command: &Command) -> bool {
    match command {
        Command::DeleteRange(delete) => !delete.range.is_single(),
        Command::Txn(txn) => deletes_intervals(txn),
        Command::Lease(command) => {
            matches!(command, LeaseCommand::Revoke { .. } | LeaseCommand::Expire { .. })
        }
        _ => false,
    }
}

/// Whether any operation deletes more than a single key.
fn deletes_intervals(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::DeleteRange(delete) => delete.range.end != RangeEnd::Single,
        Op::Txn(nested) => deletes_intervals(nested),
        Op::Put(_) | Op::Range(_) => false,
    })
}

impl Writer<'_> {
    /// Leaves the deletion of an interval to the store.
    pub(super) fn sweep_interval(&mut self, delete: &DeleteRange) -> Result<DeleteResult, StoreError> {
        let first = self.peek_id();
        let (mut digest, mut id) = (self.view.digest, first);
        let mut own = Vec::new();
        let result = self.find_doomed(delete, |key, version| {
            let change = Change { key, kind: ChangeKind::Delete };
            digest.change(id, &change);
            if version.main == first.main {
                own.push((id, change));
            }
            id.sub += 1;
        })?;
        self.view.digest = digest;
        if self.leave(first, id, Doomed::Interval(delete.range.clone())) {
            for (id, change) in own {
                self.view.active.push(id, change, true);
            }
            self.view.swept.revision = first.main;
            self.view.swept.keys.add(&delete.range);
        }
        Ok(result)
    }

    /// Leaves the deletion of a lease's keys to the store. Nothing in the entry reads them after that.
    pub(super) fn sweep_attached(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        let first = self.peek_id();
        let (mut digest, mut id) = (self.view.digest, first);
        self.view.each_lease_key(lease, |key| {
            digest.change(id, &Change { key, kind: ChangeKind::Delete });
            id.sub += 1;
            true
        })?;
        self.view.digest = digest;
        self.leave(first, id, Doomed::Attached(lease));
        Ok(())
    }

    /// Tells the store to delete keys, as the changes from `first` up to before `end`; whether there are any.
    fn leave(&mut self, first: VersionId, end: VersionId, keys: Doomed) -> bool {
        let count = u64::from(end.sub - first.sub);
        if count == 0 {
            return false;
        }
        self.changes = end.sub;
        self.view.rev = first.main;
        if let Some(sweep) = &mut self.sweep {
            sweep.steps.push(SweepStep::Delete { first, keys, count });
        }
        true
    }
}
