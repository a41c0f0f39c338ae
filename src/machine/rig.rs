//! A machine with its store and its log, for tests: what `node`'s applier is to it in production.
//!
//! Owns: the log of what was applied, so that a reopened machine can be given it again. Must never: judge results.

use std::sync::Arc;

use bytes::Bytes;
use redb::backends::InMemoryBackend;

use super::Machine;
use crate::command::{
    Applied, Caller, Command, DeleteRange, KeyRange, LeaseChange, MemberAttributes, Outcome, Put, Range,
    Rejection, Request, Txn,
};
use crate::ids::{LeaseId, LogIndex, MemberId, Revision, Term};
use crate::limits::OVERLAY_BYTES;
use crate::mvcc::{Allowance, Tip, View};
use crate::store::{Base, Charter, ConfState, FoldBatch, Member, Meta, Store, StoreOptions};

/// A log entry.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    Command(Command),
    /// A command on somebody's behalf.
    Asked(Caller, Command),
    Empty,
    Conf(ConfState),
}

pub(crate) struct Rig {
    charter: Charter,
    store: Store,
    pub(crate) machine: Machine,
    log: Vec<(Entry, Option<Applied>)>,
    batch: Option<FoldBatch>,
    /// The size of a generation, where it is not the usual one.
    overlay_bytes: Option<usize>,
    /// How many deletions the store has carried out.
    pub(super) sweeps: usize,
}

pub(super) const TERM: Term = Term(3);
pub(super) const FOUNDER: MemberId = MemberId(9);

/// A founded store in memory.
pub(crate) fn new_store() -> Store {
    new_store_of(Charter::default())
}

fn new_store_of(charter: Charter) -> Store {
    let options = StoreOptions { cache_bytes: 1024 * 1024 };
    let mut store = Store::open(InMemoryBackend::new(), options).expect("a sound store");
    let attributes = MemberAttributes { member: FOUNDER, ..MemberAttributes::default() };
    let members = vec![Member { key: None, votes: true, attributes }];
    let charter = Arc::new(charter);
    let meta = Meta { revision: Revision(1), members, charter, ..Meta::default() };
    store.initialise(&meta).expect("a sound store");
    store
}

/// What a store holds now.
pub(crate) fn base(store: &Store) -> Arc<Base> {
    Arc::new(store.base().expect("a sound store"))
}

/// Runs a test with everything in the overlay, with everything in the store, with both and a frozen generation, and with a store that was
/// opened again.
pub(super) fn in_all_layers(test: impl Fn(&mut Rig, &dyn Fn(&mut Rig))) {
    in_layers_of(OVERLAY_BYTES, test);
}

/// The same with generations of this size.
pub(super) fn in_layers_of(bytes: usize, test: impl Fn(&mut Rig, &dyn Fn(&mut Rig))) {
    test(&mut Rig::with_overlay(bytes), &|_| {});
    test(&mut Rig::with_overlay(bytes), &|rig| {
        rig.rotate();
        rig.fold();
    });
    test(&mut Rig::with_overlay(bytes), &|rig| {
        rig.fold();
        rig.rotate();
    });
    test(&mut Rig::with_overlay(bytes), &|rig| {
        rig.rotate();
        rig.fold();
        rig.reopen();
    });
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::of(Charter::default())
    }

    /// The cluster was founded with this charter.
    pub(crate) fn of(charter: Charter) -> Self {
        let store = new_store_of(charter.clone());
        Self {
            charter,
            machine: Machine::new(base(&store)).expect("a sound store"),
            store,
            log: Vec::new(),
            batch: None,
            overlay_bytes: None,
            sweeps: 0,
        }
    }

    /// One in which a deletion is swept that would fill so small a generation.
    pub(super) fn with_overlay(bytes: usize) -> Self {
        let mut rig = Self::new();
        rig.overlay_bytes = Some(bytes);
        rig.machine.set_overlay_bytes(bytes);
        rig
    }

    pub(crate) fn view(&self) -> View {
        self.machine.view()
    }

    /// A tip of its own over the store, for writes that no command makes.
    pub(crate) fn tip(&self) -> Tip {
        Tip::of_base(base(&self.store)).expect("a sound store")
    }

    pub(crate) fn apply(&mut self, command: Command) -> Applied {
        let applied = self.play(&Entry::Command(command.clone())).expect("a command has a result");
        self.log.push((Entry::Command(command), Some(applied.clone())));
        applied
    }

    /// The same on behalf of a user.
    pub(crate) fn apply_for(&mut self, caller: Caller, command: Command) -> Applied {
        let entry = Entry::Asked(caller, command);
        let applied = self.play(&entry).expect("a command has a result");
        self.log.push((entry, Some(applied.clone())));
        applied
    }

    pub(crate) fn enter(&mut self, entry: Entry) {
        let result = self.play(&entry);
        self.log.push((entry, result));
    }

    fn play(&mut self, entry: &Entry) -> Option<Applied> {
        let index = self.machine.applied().next();
        match entry {
            Entry::Command(command) => Some(self.run(index, command.into())),
            Entry::Asked(caller, command) => Some(self.run(index, Request { caller: Some(caller), command })),
            Entry::Empty => {
                self.machine.apply_empty(index, TERM);
                None
            }
            Entry::Conf(conf_state) => {
                self.machine.apply_conf_state(index, TERM, conf_state.clone());
                None
            }
        }
    }

    fn run(&mut self, index: LogIndex, request: Request<'_>) -> Applied {
        if self.machine.has_to_sweep(TERM, request).expect("a sound store") {
            return self.sweep(index, request);
        }
        self.machine.apply(index, TERM, request, Allowance::UNLIMITED).expect("a sound store")
    }

    /// What is frozen is folded first, and nothing shows before the store has it all.
    fn sweep(&mut self, index: LogIndex, request: Request<'_>) -> Applied {
        self.fold();
        let before = self.view();
        let swept = self.machine.begin_sweep(index, TERM, request, Allowance::UNLIMITED);
        let (batch, applied) = swept.expect("a sound store");
        let now = self.view();
        assert!(self.machine.must_stall() && self.machine.rotate().is_none());
        assert_eq!((now.revision(), now.applied()), (before.revision(), before.applied()));
        assert_eq!((now.digest(), now.bytes_in_use()), (before.digest(), before.bytes_in_use()));
        self.store.fold(&batch).expect("a sound store");
        self.machine.folded(base(&self.store));
        assert_eq!(self.machine.applied(), index);
        self.sweeps += 1;
        applied
    }

    /// Freezes the active generation, if none is frozen.
    pub(crate) fn rotate(&mut self) {
        if let Some(batch) = self.machine.rotate() {
            assert!(self.batch.replace(batch).is_none(), "one at a time");
        }
    }

    /// Folds what is frozen.
    pub(crate) fn fold(&mut self) {
        if let Some(batch) = self.batch.take() {
            self.store.fold(&batch).expect("a sound store");
            self.machine.folded(base(&self.store));
        }
    }

    /// A slice of physical compaction, of up to `limit` rows. Answers whether that was all there is to remove.
    pub(crate) fn compact_slice(&mut self, limit: usize) -> bool {
        let progress = self.store.compact_slice(limit).expect("a sound store");
        self.machine.rebased(base(&self.store));
        progress.finished
    }

    /// Loses the overlay and applies the log after the store's position once more; every result must come again, also of deletions that are
    /// not swept this time.
    pub(crate) fn reopen(&mut self) {
        let before = self.view();
        self.batch = None;
        self.machine = Machine::new(base(&self.store)).expect("a sound store");
        let LogIndex(applied) = self.machine.applied();
        let log = self.log.clone();
        for (entry, result) in &log[usize::try_from(applied).expect("small")..] {
            assert_eq!(&self.play(entry), result, "a replayed entry gives what it gave");
        }
        if let Some(bytes) = self.overlay_bytes {
            self.machine.set_overlay_bytes(bytes);
        }
        assert_eq!(self.view().bytes_in_use(), before.bytes_in_use());
        assert_eq!(self.view().facts(), before.facts());
        assert_eq!(self.view().leases(), before.leases());
        assert_eq!(self.view().digest(), before.digest(), "a restart makes no difference");
    }

    /// The digest is what the log alone gives, applied without folds, compaction or restarts.
    pub(super) fn check_digest(&self) {
        let mut plain = Self::of(self.charter.clone());
        for (entry, _) in &self.log {
            plain.play(entry);
        }
        assert_eq!(plain.view().digest(), self.view().digest());
    }
}

/// Short forms for tests that state one rule each.
impl Rig {
    pub(crate) fn put(&mut self, key: &str, value: &str) -> i64 {
        let applied = self.apply(Command::Put(put(key, value)));
        assert!(matches!(applied.outcome, Ok(Outcome::Put(_))), "{applied:?}");
        applied.revision.0
    }

    pub(crate) fn delete(&mut self, key: &str, end: &str) -> i64 {
        let range = interval(key, end);
        match self.apply(Command::DeleteRange(DeleteRange { range, prev_kv: false })).outcome {
            Ok(Outcome::DeleteRange(result)) => result.deleted,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn txn(&mut self, txn: Txn) -> Result<crate::command::TxnResult, Rejection> {
        self.apply(Command::Txn(txn)).outcome.map(|outcome| match outcome {
            Outcome::Txn(result) => result,
            other => panic!("{other:?}"),
        })
    }

    pub(crate) fn compact(&mut self, revision: i64) -> Result<(), Rejection> {
        self.apply(Command::Compact { revision }).outcome.map(|outcome| assert_eq!(outcome, Outcome::Compact))
    }
}

pub(crate) fn interval(key: &str, end: &str) -> KeyRange {
    KeyRange::from_wire(Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(end.as_bytes()))
}

pub(crate) fn range(key: &str, end: &str) -> Range {
    Range::all(interval(key, end))
}

pub(crate) fn put(key: &str, value: &str) -> Put {
    Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        lease: LeaseChange::Set(LeaseId::NONE),
        prev_kv: false,
    }
}
