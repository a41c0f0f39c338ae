//! What the clients were told, and whether the members keep to it.
//!
//! Owns: the history of requests and answers, the log as it was first seen committed, and the state that follows from it by the naive model.
//! Must never: believe a member. Driven by `world`.
//!
//! # What is judged
//!
//! - An entry that any member handed to its state stays what it is, on all members and after every restart: a write that is
//!   acknowledged is never lost, and nothing takes its place.
//! - An answer is the one that the model gives at the entry's place in the log: revisions, versions, previous values.
//! - A request that was refused is not in the log; none is there twice; none is there that nobody made.
//! - Real time (linearizability): what is asked after an answer was received is placed after it. A read sees everything that any
//!   earlier answer showed, writes and reads alike; so the revision never goes back.
//! - No lease ends by itself before the last answer about it allows that (`leases`).
//! - A view answers every question as the model does at the view's position, for as long as it is held.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use covey::command::codec::decode;
use covey::command::{
    Alarm, AlarmKind, Applied, Command, KeyRange, KeyValue, LeaseCommand, MemberCommand, Range, RangeEnd,
    Rejection,
};
use covey::ids::{Digest, LeaseId, LogIndex, ProposalId, Revision, Term, VersionId};
use covey::mvcc::{ReadError, View};
use covey::store::{Member, StoreError};
use covey::time::Instant;
use covey::wal::{EntryKind, LogEntry};

use crate::leases::{Leases, Told};
use crate::model::{Event, Leased, Model};
use crate::places::{Expected, Places};

/// One place of the log, and the state after it.
struct Place {
    entry: LogEntry,
    applied: Option<Applied>,
    /// Where the entry is about members.
    members: Option<Expected>,
    revision: i64,
    compacted: i64,
    alarms: BTreeSet<Alarm>,
    leases: BTreeMap<LeaseId, Leased>,
}

pub(crate) struct Oracle {
    model: Model,
    /// From `FIRST` on.
    log: Vec<Place>,
    proposed: BTreeMap<ProposalId, Command>,
    placed: BTreeMap<ProposalId, LogIndex>,
    refused: BTreeSet<ProposalId>,
    /// The highest position that an answer has shown to anybody.
    shown: LogIndex,
    /// HashKV by (revision, compacted revision), as first answered.
    hashes: BTreeMap<(i64, i64), u32>,
    /// The digest after an entry, as the first that got there had it.
    digests: BTreeMap<LogIndex, Digest>,
    leases: Leases,
    pub(crate) places: Places,
}

/// The log begins after position 1.
const FIRST: u64 = 2;

impl Oracle {
    /// No member's clock is faster than `fastest`, in thousandths of a good one.
    pub(crate) fn new(first: Vec<Member>, fastest: u64) -> Self {
        let mut places = Places::default();
        for member in first {
            let key = member.key.expect("the first members have keys");
            if let [url] = &member.attributes.peer_urls[..] {
                places.found(member.id(), url, key);
            }
        }
        Self {
            places,
            model: Model::new(),
            log: Vec::new(),
            proposed: BTreeMap::new(),
            placed: BTreeMap::new(),
            refused: BTreeSet::new(),
            shown: LogIndex(FIRST - 1),
            hashes: BTreeMap::new(),
            digests: BTreeMap::new(),
            leases: Leases::new(fastest),
        }
    }

    /// The highest position that an answer has shown; what is asked now must come after it.
    pub(crate) fn shown(&self) -> LogIndex {
        self.shown
    }

    /// The last position that any member has seen committed.
    pub(crate) fn last(&self) -> LogIndex {
        LogIndex(FIRST - 1 + self.log.len() as u64)
    }

    /// The current revision, and the one that is compacted to (-1: none yet).
    pub(crate) fn revisions(&self) -> (i64, i64) {
        (self.model.rev, self.model.compacted)
    }

    /// The changes that a watcher may be told of.
    pub(crate) fn events(&self) -> &[Event] {
        &self.model.events
    }

    /// What a key was at a revision.
    pub(crate) fn value_at(&self, key: &[u8], revision: i64) -> Option<&KeyValue> {
        let mut before = self.model.events.iter().rev().filter(|event| event.main <= revision);
        before.find(|event| event.key == key)?.kv.as_ref()
    }

    /// A client proposed something.
    pub(crate) fn propose(&mut self, id: ProposalId, command: Command) {
        assert!(self.proposed.insert(id, command).is_none(), "proposal {id:?} is used twice");
    }

    /// A member says that a proposal had no effect and will have none.
    pub(crate) fn refuse(&mut self, id: ProposalId) {
        assert!(!self.placed.contains_key(&id), "proposal {id:?} was refused but is in the log");
        self.refused.insert(id);
    }

    /// A member hands these entries to its state.
    pub(crate) fn commit(&mut self, now: Instant, entries: &[LogEntry]) {
        for entry in entries {
            if let Some(place) = self.place(entry.index) {
                assert_eq!(place.entry, *entry, "an entry that was committed has changed: a write is lost");
            } else {
                assert_eq!(entry.index, self.last().next(), "committed entries have a gap");
                self.append(now, entry);
            }
        }
    }

    fn append(&mut self, now: Instant, entry: &LogEntry) {
        let (mut applied, mut members) = (None, None);
        if entry.kind == EntryKind::Normal && !entry.data.is_empty() {
            let envelope = decode(entry.data.clone()).expect("an entry that was written can be read");
            if let Some(command) = self.proposed.get(&envelope.id) {
                assert_eq!(*command, envelope.command, "a command has changed on its way");
            } else {
                // What the members propose by themselves.
                let own = matches!(
                    envelope.command,
                    Command::Alarm { .. }
                        | Command::Member(MemberCommand::Revote { .. })
                        | Command::Lease(LeaseCommand::Expire { .. } | LeaseCommand::Checkpoint { .. })
                );
                assert!(own, "nobody proposed {envelope:?}");
            }
            assert!(!self.refused.contains(&envelope.id), "a refused proposal took effect");
            let twice = self.placed.insert(envelope.id, entry.index);
            assert_eq!(twice, None, "a proposal took effect twice");
            if let Command::Member(command) = &envelope.command {
                let expected = self.places.apply(command);
                if let (MemberCommand::Remove { id, .. }, Expected::Changed(_)) = (command, &expected) {
                    self.model.alarms.retain(|alarm| alarm.member != *id);
                    self.model.by_quota.retain(|alarm| alarm.member != *id);
                }
                members = Some(expected);
            } else {
                let result = self.model.apply(entry.index, entry.term, &envelope.command);
                if let Command::Lease(command) = &envelope.command {
                    self.leases.committed(now, entry.index, command, &result);
                }
                applied = Some(result);
            }
        }
        self.log.push(Place {
            entry: entry.clone(),
            applied,
            members,
            revision: self.model.rev,
            compacted: self.model.compacted,
            alarms: self.model.alarms.clone(),
            leases: self.model.leases.clone(),
        });
    }

    fn place(&self, index: LogIndex) -> Option<&Place> {
        self.log.get(usize::try_from(index.0.checked_sub(FIRST)?).expect("small"))
    }

    /// A write was answered; `asked_after` is what had been shown when it was asked.
    pub(crate) fn reply(&mut self, id: ProposalId, applied: &Applied, asked_after: LogIndex) {
        let index = *self.placed.get(&id).expect("an answer to something that is in the log");
        assert!(index > asked_after, "a write took effect before it was asked for");
        let place = self.place(index).expect("it is there");
        match &place.members {
            Some(expected) => Places::check(expected, &applied.outcome),
            None => assert_eq!(Some(applied), place.applied.as_ref(), "the answer to entry {index}"),
        }
        self.shown = self.shown.max(index);
    }

    /// A member is at this view. Whoever gets there, by whichever restarts and folds, must have come to the same.
    pub(crate) fn see_digest(&mut self, view: &View) {
        let first = *self.digests.entry(view.applied()).or_insert(view.digest());
        assert_eq!(view.digest(), first, "two members differ after entry {}", view.applied());
    }

    /// Whoever leads in this term shows a state that has the term's first entry.
    pub(crate) fn led(&mut self, now: Instant, term: Term, view: &View) {
        self.leases.led(now, term, view.leases().iter());
    }

    /// A client was told something of leases.
    pub(crate) fn leased(&mut self, told: &Told) {
        self.leases.told(told, &self.model);
    }

    /// Leases that ended because their time was over, and checkpoints.
    pub(crate) fn lease_counts(&self) -> (u64, u64) {
        (self.leases.expired, self.leases.checkpoints)
    }

    /// Whether there is a lease with a time to live of less than so many seconds.
    pub(crate) fn has_lease_below(&self, ttl: i64) -> bool {
        self.model.leases.values().any(|lease| lease.ttl < ttl)
    }

    /// Whether CORRUPT, which keeps leases from ending, was raised at some time after this position.
    pub(crate) fn was_corrupt_after(&self, index: LogIndex) -> bool {
        let corrupt = |place: &Place| place.alarms.iter().any(|alarm| alarm.kind == AlarmKind::Corrupt);
        let before = usize::try_from(index.0.saturating_sub(FIRST)).expect("small");
        self.log.iter().skip(before).any(corrupt)
    }

    /// An answer from this view was received.
    pub(crate) fn show(&mut self, view: &View) {
        self.shown = self.shown.max(view.applied());
    }

    /// Compares an answer to a range with the model's at the view's position.
    pub(crate) fn check_range(&mut self, view: &View, range: &Range) -> Result<(), StoreError> {
        let got = accept(view.range(range))?;
        let expected = self.as_of(view, |model| model.range(range));
        assert_eq!(got, expected, "{range:?} at {}", view.applied());
        Ok(())
    }

    /// Compares the hash with the model's, and with what was answered before for the same revisions.
    pub(crate) fn check_hash(&mut self, view: &View, revision: i64) -> Result<(), StoreError> {
        let got = accept(view.hash_kv(revision))?;
        let expected = self.as_of(view, |model| {
            let readable = model.range(&Range { revision, limit: 1, ..Range::all(everything()) });
            readable.map(|_| model.hash_kv(revision))
        });
        assert_eq!(got.map(|hash| hash.hash), expected, "the hash at {revision}");
        if let Ok(hash) = got {
            let key = (hash.hash_revision.0, hash.compact_revision);
            let first = *self.hashes.entry(key).or_insert(hash.hash);
            assert_eq!(hash.hash, first, "the hash of {key:?} has changed");
        }
        Ok(())
    }

    /// Compares everything that a view can be asked: its position, all keys at the retained revisions (no more than `depth` of them), the
    /// changes since the last compaction, the hash, the alarms, the leases and their keys.
    pub(crate) fn check_all(&mut self, view: &View, depth: i64) -> Result<(), StoreError> {
        let Some(place) = self.place(view.applied()) else {
            assert_eq!(view.applied().0, FIRST - 1, "a view of what nobody committed");
            return Ok(());
        };
        let (revision, compacted, alarms) = (place.revision, place.compacted, place.alarms.clone());
        assert_eq!(view.revision().0, revision, "the revision at {}", view.applied());
        assert_eq!(view.compacted().0, compacted.max(0), "the compacted revision at {}", view.applied());
        assert!(view.facts().alarms.iter().eq(&alarms), "the alarms at {}", view.applied());
        let oldest = (revision - depth).max(compacted - 1);
        for revision in oldest..=revision + 1 {
            self.check_range(view, &Range { revision, ..Range::all(everything()) })?;
        }
        self.check_leases(view)?;
        self.check_hash(view, 0)?;
        self.check_hash(view, compacted.max(1))?;
        self.check_changes(view, compacted.max(0) + 1, revision)
    }

    fn check_leases(&mut self, view: &View) -> Result<(), StoreError> {
        let leases = self.place(view.applied()).map_or_else(BTreeMap::new, |place| place.leases.clone());
        let got = view.leases().iter().map(|(id, lease)| {
            let (ttl, remaining, granted_at) = (lease.ttl, lease.remaining, lease.granted_at);
            (id, Leased { ttl, remaining, granted_at })
        });
        assert_eq!(got.collect::<BTreeMap<_, _>>(), leases, "the leases at {}", view.applied());
        for id in leases.keys() {
            let keys = self.as_of(view, |model| model.keys_of(*id));
            assert_eq!(view.lease_keys(*id)?, keys, "the keys of lease {id} at {}", view.applied());
        }
        Ok(())
    }

    fn check_changes(&self, view: &View, from: i64, to: i64) -> Result<(), StoreError> {
        let mut got = Vec::new();
        for change in view.changes(VersionId::first_of(Revision(from)))? {
            let (id, change) = change?;
            got.push((id.main.0, id.sub, change.key.clone(), change.key_value(id)));
        }
        let events = self.model.events.iter();
        let expected = events
            .filter(|event| event.main >= from && event.main <= to)
            .map(|event| (event.main, event.sub, event.key.clone(), event.kv.clone()));
        assert_eq!(got, expected.collect::<Vec<_>>(), "the changes from {from} to {to}");
        Ok(())
    }

    /// Asks the model as it was at the view's position.
    fn as_of<T>(&mut self, view: &View, ask: impl FnOnce(&Model) -> T) -> T {
        let (revision, compacted) = match self.place(view.applied()) {
            Some(place) => (place.revision, place.compacted),
            None => (1, -1),
        };
        let now = (self.model.rev, self.model.compacted);
        (self.model.rev, self.model.compacted) = (revision, compacted);
        let answer = ask(&self.model);
        (self.model.rev, self.model.compacted) = now;
        answer
    }
}

/// A linearizable read is about to be answered from this view.
pub(crate) fn check_fresh(view: &View, asked_after: LogIndex) {
    let applied = view.applied();
    assert!(applied >= asked_after, "a stale read: at {applied}, after {asked_after} was shown");
}

/// All keys.
pub(crate) fn everything() -> KeyRange {
    KeyRange { start: Bytes::from_static(&[0]), end: RangeEnd::Unbounded }
}

/// A rejection is an answer. An error of the store is the end of the process in production.
fn accept<T>(result: Result<T, ReadError>) -> Result<Result<T, Rejection>, StoreError> {
    match result {
        Ok(answer) => Ok(Ok(answer)),
        Err(ReadError::Rejected(rejection)) => Ok(Err(rejection)),
        Err(ReadError::Store(error)) => Err(error),
    }
}
