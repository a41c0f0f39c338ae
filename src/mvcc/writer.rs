//! Writes: puts, deletes and transactions (API reference, sections 1.4 to 1.6).
//!
//! Owns: how one command becomes the changes of one revision. Must never: leave part of a rejected command behind, or decide by anything
//! but the state and the command. Driven by `machine`, one writer for one command.

use std::collections::VecDeque;
use std::slice::Iter;

use bytes::Bytes;

use super::ReadError;
use super::footprint::wants_copies;
use super::range::Allowance;
use super::rows::{Draft, Row, damaged};
use super::tip::Tip;
use super::view::View;
use crate::command::{
    DeleteRange, DeleteResult, KeyValue, LeaseChange, Op, OpResult, Put, PutResult, Range, RangeResult,
    Rejection, Txn, TxnResult,
};
use crate::ids::{LeaseId, Revision, VersionId};
use crate::store::{Change, ChangeKind, StoreError, Sweep};

/// Keys of a deletion that are let go of together.
const DELETE_PORTION: usize = 1024;

/// Turns one command into changes.
///
/// The changes go into the view's active generation at the revision after the view's, where no published view looks. The first one moves
/// the writer's own view there, and so what a transaction reads is what any reader would read at that revision: own writes
/// need no code of their own.
///
/// A [`ReadError::Rejected`] leaves no trace. After a [`ReadError::Store`] the overlay may hold part of the command: fatal.
pub struct Writer<'m> {
    pub(super) view: &'m mut View,
    start: Revision,
    pub(super) changes: u32,
    /// Whether keys and values are copied out of the command's own bytes.
    copies: bool,
    /// What may be read for the answer. No change depends on it: members differ in it.
    answer: Allowance,
    /// There was more to answer than that.
    too_large: bool,
    /// What the store is to do, where deletions are left to it.
    pub(super) sweep: Option<&'m mut Sweep>,
}

impl<'m> Writer<'m> {
    /// A writer of the revision after the tip's, which reads so much for the answer and no more.
    pub fn new(tip: &'m mut Tip, answer: Allowance) -> Self {
        let Tip { view, sweep } = tip;
        let start = view.rev;
        Self { view, start, changes: 0, copies: false, answer, too_large: false, sweep: sweep.as_mut() }
    }

    /// Whether the results lack something, because there was more to read than is allowed.
    pub fn is_answer_too_large(&self) -> bool {
        self.too_large
    }

    /// A put that is a command of its own.
    pub fn put(&mut self, put: &Put) -> Result<PutResult, ReadError> {
        self.view.check_lease(put)?;
        let prior = self.view.find(&put.key, self.view.rev)?;
        if needs_prior(put) && prior.is_none() {
            return Err(Rejection::KeyNotFound.into());
        }
        Ok(self.write(put, prior)?)
    }

    /// Deletes the live keys of an interval.
    pub fn delete_range(&mut self, delete: &DeleteRange) -> Result<DeleteResult, ReadError> {
        Ok(self.delete(delete)?)
    }

    /// All compares of all levels first, then the checks along the chosen path, then the operations.
    pub fn txn(&mut self, txn: &Txn) -> Result<TxnResult, ReadError> {
        let mut path = Vec::new();
        self.view.choose(txn, &mut path)?;
        self.view.check(txn, &path)?;
        self.copies = wants_copies(txn, &path);
        Ok(self.run(txn, &mut path.iter())?)
    }

    fn run(&mut self, txn: &Txn, path: &mut Iter<'_, bool>) -> Result<TxnResult, StoreError> {
        let succeeded = next_choice(path);
        let ops = branch(txn, succeeded);
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            let result = match op {
                Op::Range(range) => {
                    let now = self.view.txn_reads_now(range.revision);
                    let at = if now { self.view.rev } else { Revision(range.revision) };
                    OpResult::Range(self.read(range, at)?)
                }
                Op::Put(put) => {
                    let prior = self.view.find(&put.key, self.view.rev)?;
                    OpResult::Put(self.write(put, prior)?)
                }
                Op::DeleteRange(delete) => OpResult::DeleteRange(self.delete(delete)?),
                Op::Txn(nested) => OpResult::Txn(self.run(nested, path)?),
            };
            responses.push((header_revision(&result, self.view.rev), result));
        }
        Ok(TxnResult { succeeded, responses })
    }

    /// What a range of a transaction answers, as far as that is wanted.
    fn read(&mut self, range: &Range, at: Revision) -> Result<RangeResult, StoreError> {
        if !self.answer.is_wanted() || self.too_large {
            return Ok(RangeResult::default());
        }
        let result = self.view.range_at_within(range, at, &mut self.answer)?;
        self.too_large = result.is_none();
        Ok(result.unwrap_or_default())
    }

    /// Counts a previous version for the answer; whether it goes in.
    fn tell(&mut self, previous: &KeyValue) -> bool {
        let wanted = self.answer.is_wanted() && !self.too_large;
        self.too_large |=
            wanted && !self.answer.take(size_of::<KeyValue>() + previous.key.len() + previous.value.len());
        wanted && !self.too_large
    }

    /// Writes one key over its prior version. Where `ignore_value` or `ignore_lease` finds no prior one after all (deleted earlier in the same
    /// transaction, which [`check::txn`](super::check::txn) keeps out), the field is empty.
    fn write(&mut self, put: &Put, prior: Option<Row>) -> Result<PutResult, StoreError> {
        let mut prior = prior.map(|row| row.draft(&self.view.base)).transpose()?;
        let tells = put.prev_kv && self.answer.is_wanted();
        if tells || put.value.is_none() {
            prior.as_mut().map(|prior| prior.fetch(&self.view.base)).transpose()?;
        }
        let next = self.next_id();
        let prior = prior.map(|draft| draft.kv);
        let kept = prior.as_ref();
        let value = match &put.value {
            Some(value) => self.keep(value),
            None => kept.map(|kv| kv.value.clone()).unwrap_or_default(),
        };
        let lease = match put.lease {
            LeaseChange::Set(lease) => lease,
            LeaseChange::Keep => kept.map_or(LeaseId::NONE, |kv| kv.lease),
        };
        let kind = ChangeKind::Put {
            value,
            create_revision: kept.map_or(next.main, |kv| kv.create_revision),
            version: kept.map_or(1, |kv| kv.version + 1),
            lease,
        };
        self.push(next, Change { key: self.keep(&put.key), kind }, prior.is_some())?;
        Ok(PutResult { previous: prior.filter(|prior| tells && self.tell(prior)) })
    }

    fn delete(&mut self, delete: &DeleteRange) -> Result<DeleteResult, StoreError> {
        if self.sweep.is_some() {
            return self.sweep_interval(delete);
        }
        // In portions that are let go of one by one: there is no bound on how many keys it may be.
        let mut portions: VecDeque<Vec<Bytes>> = VecDeque::new();
        let result = self.find_doomed(delete, |key, _| match portions.back_mut() {
            Some(portion) if portion.len() < DELETE_PORTION => portion.push(key),
            _ => portions.push_back(vec![key]),
        })?;
        while let Some(portion) = portions.pop_front() {
            for key in portion {
                self.bury(key)?;
            }
        }
        Ok(result)
    }

    /// Goes through the live keys of an interval, in order. The result is that of their deletion, with as much of what they were as the answer
    /// wants and may have.
    pub(super) fn find_doomed(
        &mut self,
        delete: &DeleteRange,
        mut found: impl FnMut(Bytes, VersionId),
    ) -> Result<DeleteResult, StoreError> {
        let base = &self.view.base;
        let rows = self.view.rows(&delete.range, self.view.rev, usize::MAX)?;
        let mut deleted = 0;
        let mut previous = Vec::new();
        let (mut room, mut too_large) = (self.answer, self.too_large);
        for row in rows {
            let row = row?;
            let version = row.id();
            let key = if delete.prev_kv && room.is_wanted() && !too_large {
                let kv = row.draft(base).and_then(|draft: Draft| draft.load(base))?;
                let key = kv.key.clone();
                too_large = !room.take(size_of::<KeyValue>() + kv.key.len() + kv.value.len());
                previous.push(kv);
                key
            } else {
                row.into_key()
            };
            found(key, version);
            deleted += 1;
        }
        (self.answer, self.too_large) = (room, too_large);
        if too_large {
            previous = Vec::new();
        }
        Ok(DeleteResult { deleted, previous })
    }

    fn push(&mut self, id: VersionId, change: Change, existed: bool) -> Result<(), StoreError> {
        let keys = match change.kind {
            ChangeKind::Put { .. } => self.view.keys.checked_add(u64::from(!existed)),
            ChangeKind::Delete => self.view.keys.checked_sub(1),
        };
        // The store counts its keys apart from its rows, and one of the two may be damaged.
        self.view.keys =
            keys.ok_or_else(|| damaged(&change.key, "is not among the keys that were counted"))?;
        self.view.digest.change(id, &change);
        if let Some(sweep) = &mut self.sweep {
            sweep.push(id, change.clone());
        }
        self.view.active.push(id, change, existed);
        Ok(())
    }

    /// Deletes the keys that are attached to a lease.
    pub fn delete_of_lease(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        if self.sweep.is_some() {
            return self.sweep_attached(lease);
        }
        for key in self.view.lease_keys(lease)? {
            self.bury(key)?;
        }
        Ok(())
    }

    /// Deletes one live key.
    fn bury(&mut self, key: Bytes) -> Result<(), StoreError> {
        let id = self.next_id();
        self.push(id, Change { key, kind: ChangeKind::Delete }, true)
    }

    /// Part of the command, as the overlay is to hold it.
    fn keep(&self, bytes: &Bytes) -> Bytes {
        if self.copies { Bytes::copy_from_slice(bytes) } else { bytes.clone() }
    }

    /// The id of the next change; from the first on the writer sees its own revision.
    fn next_id(&mut self) -> VersionId {
        let id = self.peek_id();
        self.changes += 1;
        self.view.rev = id.main;
        id
    }

    /// The id that the next change will have.
    pub(super) fn peek_id(&self) -> VersionId {
        VersionId { main: self.start.next(), sub: self.changes }
    }
}

impl View {
    /// Answers a transaction that cannot write ([`Txn::is_read_only`]); `None` when the answer is larger than allowed.
    pub fn txn_read_only(
        &self,
        txn: &Txn,
        allowance: &mut Allowance,
    ) -> Result<Option<TxnResult>, ReadError> {
        let mut path = Vec::new();
        self.choose(txn, &mut path)?;
        let succeeded = next_choice(&mut path.iter());
        let mut responses = Vec::new();
        for op in branch(txn, succeeded) {
            let Op::Range(range) = op else {
                unreachable!("only read-only transactions are answered from a view")
            };
            let at = self.txn_revision(range.revision)?.unwrap_or(self.rev);
            let Some(result) = self.range_at_within(range, at, allowance)? else { return Ok(None) };
            responses.push((self.rev, OpResult::Range(result)));
        }
        Ok(Some(TxnResult { succeeded, responses }))
    }

    /// Evaluates the compares of a transaction and of those nested in the branch it takes, parents before children, in order.
    pub(super) fn choose(&self, txn: &Txn, path: &mut Vec<bool>) -> Result<(), StoreError> {
        let mut succeeded = true;
        for compare in &txn.compare {
            if !self.holds(compare)? {
                succeeded = false;
                break;
            }
        }
        path.push(succeeded);
        for op in branch(txn, succeeded) {
            if let Op::Txn(nested) = op {
                self.choose(nested, path)?;
            }
        }
        Ok(())
    }

    /// Finds what would make an operation along the path fail, against the state before the transaction. All puts come
    /// before the first range, as in etcd: it shows in which error is reported.
    fn check(&self, txn: &Txn, path: &[bool]) -> Result<(), ReadError> {
        let mut ops = Vec::new();
        chosen_ops(txn, &mut path.iter(), &mut ops);
        for op in &ops {
            if let Op::Put(put) = op {
                if needs_prior(put) && self.find(&put.key, self.rev)?.is_none() {
                    return Err(Rejection::KeyNotFound.into());
                }
                self.check_lease(put)?;
            }
        }
        for op in &ops {
            if let Op::Range(range) = op {
                self.txn_revision(range.revision)?;
            }
        }
        Ok(())
    }

    fn check_lease(&self, put: &Put) -> Result<(), Rejection> {
        match put.lease {
            LeaseChange::Set(lease) if lease != LeaseId::NONE && !self.leases.contains(lease) => {
                Err(Rejection::LeaseNotFound)
            }
            LeaseChange::Set(_) | LeaseChange::Keep => Ok(()),
        }
    }
}

/// The operations along the path, in order, nested transactions opened up.
fn chosen_ops<'t>(txn: &'t Txn, path: &mut Iter<'_, bool>, into: &mut Vec<&'t Op>) {
    for op in branch(txn, next_choice(path)) {
        match op {
            Op::Txn(nested) => chosen_ops(nested, path, into),
            Op::Range(_) | Op::Put(_) | Op::DeleteRange(_) => into.push(op),
        }
    }
}

/// The revision in an inner header: a nested transaction's is 0, as in etcd.
fn header_revision(result: &OpResult, now: Revision) -> Revision {
    if matches!(result, OpResult::Txn(_)) { Revision(0) } else { now }
}

fn needs_prior(put: &Put) -> bool {
    put.value.is_none() || put.lease == LeaseChange::Keep
}

pub(super) fn branch(txn: &Txn, succeeded: bool) -> &[Op] {
    if succeeded { &txn.success } else { &txn.failure }
}

pub(super) fn next_choice(path: &mut Iter<'_, bool>) -> bool {
    *path.next().expect("the path has a choice for each transaction on it")
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::command::KeyRange;
    use crate::store::{Meta, Store, StoreOptions};

    /// The store's count came from a damaged page: nothing was left of it, and yet there was a key to delete.
    #[test]
    fn a_key_that_was_not_counted_is_damage_and_makes_no_count_of_very_many() {
        let mut store = Store::open(InMemoryBackend::new(), StoreOptions { cache_bytes: 1 << 20 }).unwrap();
        store.initialise(&Meta { revision: Revision(1), ..Meta::default() }).unwrap();
        let mut tip = Tip::of_base(store.base().unwrap().into()).unwrap();
        let key = Bytes::from_static(b"uncounted");
        let lease = LeaseChange::Set(LeaseId::NONE);
        let put = Put { key: key.clone(), value: Some(Bytes::new()), lease, prev_kv: false };
        Writer::new(&mut tip, Allowance::UNLIMITED).put(&put).unwrap();
        tip.view.keys = 0;
        let delete = DeleteRange { range: KeyRange::from_wire(key.clone(), Bytes::new()), prev_kv: false };
        let deleted = Writer::new(&mut tip, Allowance::UNLIMITED).delete_range(&delete);
        let Err(ReadError::Store(StoreError::Damaged { key: of, .. })) = deleted else {
            panic!("{deleted:?}")
        };
        assert_eq!((of, tip.view.keys), (key, 0));
    }
}
