//! What clients ask: seeded requests over a few keys, with values that are never used twice.
//!
//! Owns: the draws. Must never: look at a member's state other than through answers. Driven by `world`.

use bytes::Bytes;
use covey::command::{
    Alarm, AlarmAction, AlarmKind, Command, Compare, CompareResult, CompareTarget, DeleteRange, KeyRange,
    LeaseChange, LeaseCommand, Op, Put, Range, Sort, SortOrder, SortTarget, Txn,
};
use covey::ids::{LeaseId, MemberId};
use covey::node::LeaseRequest;
use covey::prng::Prng;

use crate::plan::Load;

/// What a client asks for.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Write(Command),
    /// A read, and whether it may skip the read-index round where the member votes alone.
    Read {
        range: Range,
        shortcut: bool,
    },
    /// A read of whatever the member shows.
    ReadStale(Range),
    /// All questions at once.
    ReadAll,
    Hash {
        revision: i64,
    },
    /// What only the leader can do or say.
    Lease(LeaseRequest),
}

pub(crate) struct Workload {
    prng: Prng,
    load: Load,
    values: u64,
    /// An alarm was raised by a client; it is cleared soon, or nothing else would happen any more.
    raised: Vec<Alarm>,
}

impl Workload {
    pub(crate) fn new(prng: Prng, load: Load) -> Self {
        Self { prng, load, values: 0, raised: Vec::new() }
    }

    /// The next request, near the current revision and the compacted one.
    pub(crate) fn ask(&mut self, revision: i64, compacted: i64) -> Ask {
        if let Some(alarm) = self.raised.last().copied()
            && self.prng.one_in(2)
        {
            // More than once, since a request may be lost.
            if self.prng.one_in(3) {
                self.raised.pop();
            }
            return Ask::Write(Command::Alarm { action: AlarmAction::Deactivate, alarm });
        }
        if self.prng.range(0, 100) < self.load.leases {
            return if self.prng.one_in(3) {
                Ask::Write(Command::Lease(self.lease_command()))
            } else {
                Ask::Lease(self.lease_request())
            };
        }
        match self.prng.range(0, 100) {
            0..42 => Ask::Write(Command::Put(self.put())),
            42..52 => Ask::Write(Command::DeleteRange(self.delete())),
            52..66 => Ask::Write(Command::Txn(self.txn(revision))),
            66..71 => Ask::Write(Command::Compact { revision: self.near(revision, compacted) }),
            71..73 => Ask::Write(self.alarm()),
            73..85 => Ask::Read { range: self.range(revision, compacted), shortcut: self.prng.one_in(2) },
            85..92 => Ask::ReadStale(self.range(revision, compacted)),
            92..96 => Ask::ReadAll,
            _ => Ask::Hash { revision: self.near(revision, compacted) },
        }
    }

    /// Few ids, so that they are granted again soon after they are free.
    fn lease(&mut self) -> LeaseId {
        LeaseId(i64::try_from(self.prng.range(1, 4)).expect("small"))
    }

    /// Most leases end within the run; some live long enough to be checkpointed while the clients rest.
    fn lease_command(&mut self) -> LeaseCommand {
        let id = self.lease();
        let (low, high) = if self.prng.one_in(3) { (301, 1200) } else { (2, 6) };
        let ttl = i64::try_from(self.prng.range(low, high)).expect("small");
        if self.prng.one_in(5) { LeaseCommand::Revoke { id } } else { LeaseCommand::Grant { id, ttl } }
    }

    fn lease_request(&mut self) -> LeaseRequest {
        let id = self.lease();
        match self.prng.range(0, 8) {
            0 => LeaseRequest::List,
            1..3 => LeaseRequest::TimeToLive(id),
            _ => LeaseRequest::Renew(id),
        }
    }

    fn alarm(&mut self) -> Command {
        let kind = if self.prng.one_in(3) { AlarmKind::Corrupt } else { AlarmKind::NoSpace };
        let alarm = Alarm { member: MemberId(self.prng.range(1, 3)), kind };
        self.raised.push(alarm);
        Command::Alarm { action: AlarmAction::Activate, alarm }
    }

    fn key(&mut self) -> Bytes {
        let number = self.prng.range(0, self.load.keys);
        // Prefixes of one another, for the order of keys.
        Bytes::from(
            ["k", "k\0", "ka"][usize::try_from(number % 3).expect("small")]
                .repeat(1 + usize::try_from(number / 3).expect("small")),
        )
    }

    fn value(&mut self) -> Bytes {
        self.values += 1;
        let mut value = format!("v{}.", self.values).into_bytes();
        let large = self.prng.one_in(3);
        let length = self.prng.range(0, if large { self.load.value_bytes } else { 16 });
        value.resize(value.len() + usize::try_from(length).expect("small"), b'.');
        Bytes::from(value)
    }

    fn put(&mut self) -> Put {
        let key = self.key();
        self.put_of(key)
    }

    fn put_of(&mut self, key: Bytes) -> Put {
        let value = (!self.prng.one_in(25)).then(|| self.value());
        let lease = match self.prng.range(0, 30) {
            0 => LeaseChange::Keep,
            1..6 => LeaseChange::Set(self.lease()),
            _ => LeaseChange::Set(LeaseId::NONE),
        };
        Put { key, value, lease, prev_kv: self.prng.one_in(2) }
    }

    fn interval(&mut self) -> KeyRange {
        let (start, end) = (self.key(), self.key());
        match self.prng.range(0, 6) {
            0..3 => KeyRange::single(start),
            3..5 => KeyRange::from_wire(start, end),
            _ => KeyRange::from_wire(start, Bytes::from_static(&[0])),
        }
    }

    fn delete(&mut self) -> DeleteRange {
        DeleteRange { range: self.interval(), prev_kv: self.prng.one_in(2) }
    }

    fn near(&mut self, revision: i64, compacted: i64) -> i64 {
        let low = (compacted - 1).clamp(0, revision);
        let span = u64::try_from(revision + 2 - low).expect("not negative");
        low + i64::try_from(self.prng.range(0, span)).expect("small")
    }

    fn range(&mut self, revision: i64, compacted: i64) -> Range {
        let mut range = Range::all(self.interval());
        if self.prng.one_in(2) {
            range.revision = self.near(revision, compacted);
        }
        if self.prng.one_in(3) {
            range.limit = i64::try_from(self.prng.range(1, 5)).expect("small");
        }
        if self.prng.one_in(4) {
            let target = [SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value];
            let target = target[usize::try_from(self.prng.range(0, 4)).expect("small")];
            range.sort = Sort { target, order: SortOrder::Descend };
        }
        range.keys_only = self.prng.one_in(8);
        range.count_only = self.prng.one_in(12);
        range
    }

    /// Puts and deletes of different keys, so that no key changes twice.
    fn txn(&mut self, revision: i64) -> Txn {
        let compares = self.prng.range(0, 3);
        let compare = (0..compares).map(|_| self.compare(revision)).collect();
        Txn { compare, success: self.branch(), failure: self.branch() }
    }

    fn branch(&mut self) -> Vec<Op> {
        let (mut keys, mut ops) = (Vec::new(), Vec::new());
        for _ in 0..self.prng.range(0, 4) {
            let key = self.key();
            if self.prng.one_in(3) {
                ops.push(Op::Range(Range::all(self.interval())));
            } else if !keys.contains(&key) {
                keys.push(key.clone());
                let delete = self.prng.one_in(4);
                ops.push(if delete {
                    Op::DeleteRange(DeleteRange { range: KeyRange::single(key), prev_kv: true })
                } else {
                    Op::Put(self.put_of(key))
                });
            }
        }
        ops
    }

    fn compare(&mut self, revision: i64) -> Compare {
        let number = i64::try_from(self.prng.range(0, 4)).expect("small");
        let target = match self.prng.range(0, 3) {
            0 => CompareTarget::Version(number),
            1 => CompareTarget::Mod(revision - number),
            _ => CompareTarget::Create(revision - 2 * number),
        };
        let result = if self.prng.one_in(2) { CompareResult::Greater } else { CompareResult::NotEqual };
        Compare { range: KeyRange::single(self.key()), result, target }
    }
}
