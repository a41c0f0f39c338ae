//! The state machine as its contract reads, without regard to cost: every change ever made in one list, every read a walk over all of it.
//!
//! Owns: the oracle of the model tests. Must never: share code with what it judges. Driven by `model_test`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::command::{
    Alarm, AlarmAction, AlarmKind, Applied, Command, Compare, CompareResult, CompareTarget, DeleteRange,
    DeleteResult, KeyValue, LeaseChange, LeaseCommand, LeaseInstance, Op, OpResult, Outcome, Put, PutResult,
    Range, RangeResult, Rejection, SortOrder, SortTarget, Txn, TxnResult,
};
use crate::ids::{LeaseId, LogIndex, Revision, Term};

/// The live keys at a revision.
pub(super) type State = BTreeMap<Bytes, KeyValue>;

/// One change: revision, position, key, and the new version unless it is a tombstone.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) main: i64,
    pub(super) sub: u32,
    pub(super) key: Bytes,
    pub(super) kv: Option<KeyValue>,
}

/// A lease: its time to live, what the last checkpoint left of it, the entry that granted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leased {
    pub(super) ttl: i64,
    pub(super) remaining: i64,
    pub(super) granted_at: LogIndex,
}

#[derive(Clone)]
pub(super) struct Model {
    pub(super) rev: i64,
    /// -1 when never compacted.
    pub(super) compacted: i64,
    pub(super) events: Vec<Event>,
    pub(super) alarms: BTreeSet<Alarm>,
    /// Those that go by themselves.
    pub(super) by_quota: BTreeSet<Alarm>,
    pub(super) leases: BTreeMap<LeaseId, Leased>,
}

impl Model {
    pub(super) fn new() -> Self {
        Self {
            rev: 1,
            compacted: -1,
            events: Vec::new(),
            alarms: BTreeSet::new(),
            by_quota: BTreeSet::new(),
            leases: BTreeMap::new(),
        }
    }

    pub(super) fn state_at(&self, revision: i64) -> State {
        let mut state = State::new();
        for event in self.events.iter().filter(|event| event.main <= revision) {
            match &event.kv {
                Some(kv) => state.insert(event.key.clone(), kv.clone()),
                None => state.remove(&event.key),
            };
        }
        state
    }

    pub(super) fn apply(&mut self, index: LogIndex, term: Term, command: &Command) -> Applied {
        let outcome = self.outcome(index, term, command);
        Applied { revision: Revision(self.rev), outcome }
    }

    fn alarm(&mut self, action: AlarmAction, alarm: Alarm) -> Vec<Alarm> {
        let changed = match action {
            AlarmAction::Activate => {
                self.by_quota.remove(&alarm);
                self.alarms.insert(alarm);
                true
            }
            AlarmAction::QuotaReached => {
                if self.alarms.insert(alarm) && alarm.kind == AlarmKind::NoSpace {
                    self.by_quota.insert(alarm);
                }
                true
            }
            AlarmAction::QuotaRelieved => self.by_quota.remove(&alarm) && self.alarms.remove(&alarm),
            AlarmAction::Deactivate => {
                self.by_quota.remove(&alarm);
                self.alarms.remove(&alarm)
            }
        };
        if changed { vec![alarm] } else { vec![] }
    }

    fn outcome(&mut self, index: LogIndex, term: Term, command: &Command) -> Result<Outcome, Rejection> {
        let alarmed = |kind| self.alarms.iter().any(|alarm| alarm.kind == kind);
        let (corrupt, full) = (alarmed(AlarmKind::Corrupt), alarmed(AlarmKind::NoSpace));
        match command {
            Command::Alarm { action, alarm } => Ok(Outcome::Alarm(self.alarm(*action, *alarm))),
            Command::Publish(_) => Ok(Outcome::Publish),
            Command::Member(_) | Command::Charter(_) | Command::Auth(_) | Command::Raise(_) => {
                unreachable!("who takes part, and who asks, is not part of the model")
            }
            Command::Lease(LeaseCommand::Checkpoint { term: of, leases, .. }) => {
                Ok(Outcome::LeaseCheckpoint(self.checkpoint(*of == term, leases)))
            }
            _ if corrupt => Err(Rejection::Corrupt),
            Command::Compact { revision } if *revision <= self.compacted => Err(Rejection::Compacted),
            Command::Compact { revision } if *revision > self.rev => Err(Rejection::FutureRevision),
            Command::Compact { revision } => {
                self.compacted = *revision;
                Ok(Outcome::Compact)
            }
            Command::Put(_) | Command::Lease(LeaseCommand::Grant { .. }) if full => Err(Rejection::NoSpace),
            Command::Txn(txn) if full && puts_anything(txn) => Err(Rejection::NoSpace),
            Command::Put(put) => {
                if let LeaseChange::Set(lease) = put.lease
                    && lease != LeaseId::NONE
                    && !self.leases.contains_key(&lease)
                {
                    return Err(Rejection::LeaseNotFound);
                }
                self.run_alone(Op::Put(put.clone())).map(|result| match result {
                    OpResult::Put(put) => Outcome::Put(put),
                    other => panic!("{other:?}"),
                })
            }
            Command::DeleteRange(delete) => {
                self.run_alone(Op::DeleteRange(delete.clone())).map(|result| match result {
                    OpResult::DeleteRange(delete) => Outcome::DeleteRange(delete),
                    other => panic!("{other:?}"),
                })
            }
            Command::Txn(txn) => self.txn(txn).map(Outcome::Txn),
            Command::Lease(LeaseCommand::Grant { id, ttl }) => {
                if self.leases.contains_key(id) {
                    return Err(Rejection::LeaseExists);
                }
                self.leases.insert(*id, Leased { ttl: *ttl, remaining: 0, granted_at: index });
                Ok(Outcome::LeaseGrant { ttl: *ttl })
            }
            Command::Lease(LeaseCommand::Revoke { id }) => {
                self.leases.remove(id).ok_or(Rejection::LeaseNotFound)?;
                self.delete_keys_of(*id);
                Ok(Outcome::LeaseRevoke)
            }
            Command::Lease(LeaseCommand::Expire { term: of, leases }) => {
                let mut ended = Vec::new();
                for lease in leases {
                    if *of == term && self.is(*lease) {
                        self.leases.remove(&lease.id);
                        self.delete_keys_of(lease.id);
                        ended.push(lease.id);
                    }
                }
                Ok(Outcome::LeaseExpire(ended))
            }
        }
    }

    fn is(&self, lease: LeaseInstance) -> bool {
        self.leases.get(&lease.id).is_some_and(|found| found.granted_at == lease.granted_at)
    }

    fn checkpoint(&mut self, in_term: bool, leases: &[(LeaseInstance, i64)]) -> Vec<LeaseId> {
        let mut changed = Vec::new();
        for (lease, remaining) in leases {
            if in_term && self.is(*lease) {
                self.leases.get_mut(&lease.id).expect("it is there").remaining = *remaining;
                changed.push(lease.id);
            }
        }
        changed
    }

    /// The keys that name a lease now.
    pub(super) fn keys_of(&self, lease: LeaseId) -> Vec<Bytes> {
        self.state_at(self.rev).into_values().filter(|kv| kv.lease == lease).map(|kv| kv.key).collect()
    }

    fn delete_keys_of(&mut self, lease: LeaseId) {
        let keys = self.keys_of(lease);
        if keys.is_empty() {
            return;
        }
        self.rev += 1;
        for (sub, key) in (0..).zip(keys) {
            self.events.push(Event { main: self.rev, sub, key, kv: None });
        }
    }

    fn run_alone(&mut self, op: Op) -> Result<OpResult, Rejection> {
        let txn = Txn { success: vec![op], ..Txn::default() };
        Ok(self.txn(&txn)?.responses.remove(0).1)
    }

    pub(super) fn txn(&mut self, txn: &Txn) -> Result<TxnResult, Rejection> {
        let before = self.state_at(self.rev);
        let plan = plan(txn, &before);
        self.check(&plan, &before)?;
        let mut run = Run { start: self.rev, state: before, events: Vec::new() };
        let result = run.txn(self, &plan);
        if !run.events.is_empty() {
            self.rev += 1;
            self.events.append(&mut run.events);
        }
        Ok(result)
    }

    fn check(&self, plan: &Plan<'_>, before: &State) -> Result<(), Rejection> {
        let mut ops = Vec::new();
        plan.flatten(&mut ops);
        for op in &ops {
            if let Op::Put(put) = op {
                let keeps = put.value.is_none() || put.lease == LeaseChange::Keep;
                if keeps && !before.contains_key(&put.key) {
                    return Err(Rejection::KeyNotFound);
                }
                if let LeaseChange::Set(lease) = put.lease
                    && lease != LeaseId::NONE
                    && !self.leases.contains_key(&lease)
                {
                    return Err(Rejection::LeaseNotFound);
                }
            }
        }
        for op in ops {
            if let Op::Range(range) = op {
                if range.revision > self.rev {
                    return Err(Rejection::FutureRevision);
                }
                if range.revision != 0 && range.revision < self.compacted {
                    return Err(Rejection::Compacted);
                }
            }
        }
        Ok(())
    }

    /// A range outside of a transaction.
    pub(super) fn range(&self, range: &Range) -> Result<RangeResult, Rejection> {
        if range.revision > self.rev {
            return Err(Rejection::FutureRevision);
        }
        if range.revision > 0 && range.revision < self.compacted {
            return Err(Rejection::Compacted);
        }
        let at = if range.revision <= 0 { self.rev } else { range.revision };
        Ok(range_over(&self.state_at(at), range))
    }

    /// HashKV, from the text of the reference, section 5.4; the exception for "no key visible" over what a finished removal leaves.
    pub(super) fn hash_kv(&self, revision: i64) -> u32 {
        let at = if revision == 0 { self.rev } else { revision };
        let visible = self.state_at(at);
        let at_compaction = self.state_at(self.compacted);
        let mut fed = b"key".to_vec();
        for (position, event) in self.events.iter().enumerate() {
            let tombstone = event.kv.is_none();
            if event.main > at || (tombstone && event.main == self.compacted) {
                continue;
            }
            if event.main <= self.compacted {
                let reference = if visible.is_empty() { &at_compaction } else { &visible };
                let latest = |other: &&Event| other.key == event.key && other.main == event.main;
                let newest_of_revision = !self.events[position + 1..].iter().any(|other| latest(&other));
                let seen = reference.get(&event.key).is_some_and(|kv| kv.mod_revision.0 == event.main);
                if tombstone || !seen || !newest_of_revision {
                    continue;
                }
            }
            fed.extend_from_slice(&event.main.to_be_bytes());
            fed.push(b'_');
            fed.extend_from_slice(&u64::from(event.sub).to_be_bytes());
            if tombstone {
                fed.push(b't');
            }
            field(&mut fed, 0x0a, &event.key);
            if let Some(kv) = &event.kv {
                number(&mut fed, 0x10, kv.create_revision.0);
                number(&mut fed, 0x18, kv.mod_revision.0);
                number(&mut fed, 0x20, kv.version);
                field(&mut fed, 0x2a, &kv.value);
                number(&mut fed, 0x30, kv.lease.0);
            }
        }
        crc32c_bitwise(&fed)
    }
}

/// CRC-32C, bit by bit.
pub(super) fn crc32c_bitwise(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

fn number(out: &mut Vec<u8>, tag: u8, number: i64) {
    if number == 0 {
        return;
    }
    out.push(tag);
    prost::encoding::encode_varint(number.cast_unsigned(), out);
}

fn field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    out.push(tag);
    prost::encoding::encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn puts_anything(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Put(_) => true,
        Op::Txn(nested) => puts_anything(nested),
        _ => false,
    })
}

/// A transaction with its branches chosen.
struct Plan<'t> {
    succeeded: bool,
    steps: Vec<(&'t Op, Option<Plan<'t>>)>,
}

impl<'t> Plan<'t> {
    /// All operations that are to run, those of nested transactions in their place.
    fn flatten(&self, into: &mut Vec<&'t Op>) {
        for (op, nested) in &self.steps {
            match nested {
                Some(nested) => nested.flatten(into),
                None => into.push(op),
            }
        }
    }
}

fn plan<'t>(txn: &'t Txn, before: &State) -> Plan<'t> {
    let succeeded = txn.compare.iter().all(|compare| holds(compare, before));
    let ops = if succeeded { &txn.success } else { &txn.failure };
    let step = |op: &'t Op| match op {
        Op::Txn(nested) => (op, Some(plan(nested, before))),
        _ => (op, None),
    };
    Plan { succeeded, steps: ops.iter().map(step).collect() }
}

fn holds(compare: &Compare, state: &State) -> bool {
    let mut subjects: Vec<Option<&KeyValue>> =
        state.values().filter(|kv| compare.range.contains(&kv.key)).map(Some).collect();
    if subjects.is_empty() {
        subjects.push(None);
    }
    subjects.into_iter().all(|kv| {
        let numbers = |stored: Option<i64>, operand: i64| stored.unwrap_or(0).cmp(&operand);
        let ordering = match &compare.target {
            CompareTarget::Version(operand) => numbers(kv.map(|kv| kv.version), *operand),
            CompareTarget::Create(operand) => numbers(kv.map(|kv| kv.create_revision.0), *operand),
            CompareTarget::Mod(operand) => numbers(kv.map(|kv| kv.mod_revision.0), *operand),
            CompareTarget::Lease(operand) => numbers(kv.map(|kv| kv.lease.0), *operand),
            CompareTarget::Unknown => std::cmp::Ordering::Equal,
            CompareTarget::Value(operand) => match kv {
                None => return false,
                Some(kv) => kv.value.cmp(operand),
            },
        };
        match compare.result {
            CompareResult::Equal => ordering.is_eq(),
            CompareResult::NotEqual => ordering.is_ne(),
            CompareResult::Less => ordering.is_lt(),
            CompareResult::Greater => ordering.is_gt(),
            CompareResult::Unknown => true,
        }
    })
}

/// A transaction that is running: its own state, and the changes so far.
struct Run {
    start: i64,
    state: State,
    events: Vec<Event>,
}

impl Run {
    fn txn(&mut self, model: &Model, plan: &Plan<'_>) -> TxnResult {
        let mut responses = Vec::new();
        for (op, nested) in &plan.steps {
            let result = match op {
                Op::Range(range) if range.revision <= 0 => OpResult::Range(range_over(&self.state, range)),
                Op::Range(range) => OpResult::Range(range_over(&model.state_at(range.revision), range)),
                Op::Put(put) => OpResult::Put(self.put(put)),
                Op::DeleteRange(delete) => OpResult::DeleteRange(self.delete(delete)),
                Op::Txn(_) => OpResult::Txn(self.txn(model, nested.as_ref().expect("planned"))),
            };
            let header = match result {
                OpResult::Txn(_) => 0,
                _ if self.events.is_empty() => self.start,
                _ => self.start + 1,
            };
            responses.push((Revision(header), result));
        }
        TxnResult { succeeded: plan.succeeded, responses }
    }

    fn record(&mut self, key: &Bytes, kv: Option<KeyValue>) {
        match &kv {
            Some(kv) => self.state.insert(key.clone(), kv.clone()),
            None => self.state.remove(key),
        };
        let sub = u32::try_from(self.events.len()).expect("small");
        self.events.push(Event { main: self.start + 1, sub, key: key.clone(), kv });
    }

    fn put(&mut self, put: &Put) -> PutResult {
        let prior = self.state.get(&put.key).cloned();
        let now = Revision(self.start + 1);
        let kv = KeyValue {
            key: put.key.clone(),
            value: match (&put.value, &prior) {
                (Some(value), _) => value.clone(),
                (None, Some(prior)) => prior.value.clone(),
                (None, None) => Bytes::new(),
            },
            create_revision: prior.as_ref().map_or(now, |prior| prior.create_revision),
            mod_revision: now,
            version: prior.as_ref().map_or(0, |prior| prior.version) + 1,
            lease: match put.lease {
                LeaseChange::Set(lease) => lease,
                LeaseChange::Keep => prior.as_ref().map_or(LeaseId::NONE, |prior| prior.lease),
            },
        };
        self.record(&put.key, Some(kv));
        PutResult { previous: if put.prev_kv { prior } else { None } }
    }

    fn delete(&mut self, delete: &DeleteRange) -> DeleteResult {
        let gone: Vec<KeyValue> =
            self.state.values().filter(|kv| delete.range.contains(&kv.key)).cloned().collect();
        for kv in &gone {
            self.record(&kv.key, None);
        }
        let deleted = i64::try_from(gone.len()).expect("small");
        DeleteResult { deleted, previous: if delete.prev_kv { gone } else { Vec::new() } }
    }
}

fn range_over(state: &State, range: &Range) -> RangeResult {
    let mut kvs: Vec<KeyValue> = state.values().filter(|kv| range.range.contains(&kv.key)).cloned().collect();
    let count = i64::try_from(kvs.len()).expect("small");
    if range.count_only {
        return RangeResult { kvs: Vec::new(), more: false, count };
    }
    kvs.retain(|kv| {
        (range.min_mod_revision == 0 || kv.mod_revision.0 >= range.min_mod_revision)
            && (range.max_mod_revision == 0 || kv.mod_revision.0 <= range.max_mod_revision)
            && (range.min_create_revision == 0 || kv.create_revision.0 >= range.min_create_revision)
            && (range.max_create_revision == 0 || kv.create_revision.0 <= range.max_create_revision)
    });
    let number = |kv: &KeyValue| match range.sort.target {
        SortTarget::Version => kv.version,
        SortTarget::Create => kv.create_revision.0,
        SortTarget::Mod => kv.mod_revision.0,
        SortTarget::Key | SortTarget::Value => 0,
    };
    let bytes = |kv: &KeyValue| match range.sort.target {
        SortTarget::Key => kv.key.clone(),
        SortTarget::Value => kv.value.clone(),
        _ => Bytes::new(),
    };
    kvs.sort_by(|a, b| {
        let ascending = (number(a), bytes(a)).cmp(&(number(b), bytes(b)));
        if range.sort.order == SortOrder::Descend { ascending.reverse() } else { ascending }
    });
    let limit = if range.limit > 0 { usize::try_from(range.limit).expect("fits") } else { usize::MAX };
    let more = kvs.len() > limit;
    kvs.truncate(limit);
    if range.keys_only {
        for kv in &mut kvs {
            kv.value = Bytes::new();
        }
    }
    RangeResult { kvs, more, count }
}
