//! A disk in memory for this room's tests: shared between openings, recording every call, refusing calls on demand.
//!
//! Owns: the bytes and the record. Must never: be part of the program. Driven by the tests beside it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use redb::StorageBackend;

use super::auth::test_auth;
use super::base::Base;
use super::error::StoreError;
use super::scan::Visit;
use super::types::{Change, ChangeKind, FoldBatch, Head, Lease, Meta};
use super::writer::{Store, StoreOptions};
use crate::auth::Auth;
use crate::command::KeyRange;
use crate::ids::{AuthRevision, LeaseId, Revision, VersionId};

/// What redb asked of the disk.
#[derive(Clone, Debug)]
pub enum Call {
    Write { offset: u64, data: Vec<u8> },
    SetLen(u64),
    Sync,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    calls: Vec<Call>,
    /// Calls that still succeed; all do where there is none.
    healthy: Option<usize>,
}

/// A disk; clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub fn holding(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State { bytes, ..State::default() })))
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    pub fn fail_after(&self, calls: usize) {
        self.state().healthy = Some(calls);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn change(&self, call: Call) -> io::Result<()> {
        let mut state = self.state();
        if let Some(healthy) = &mut state.healthy {
            *healthy = healthy.checked_sub(1).ok_or_else(|| io::Error::other("planned failure"))?;
        }
        apply(&mut state.bytes, &call);
        state.calls.push(call);
        Ok(())
    }
}

/// Does to `bytes` what `call` does to a disk.
pub fn apply(bytes: &mut Vec<u8>, call: &Call) {
    match call {
        Call::Write { offset, data } => {
            let start = usize::try_from(*offset).unwrap();
            let end = start + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[start..end].copy_from_slice(data);
        }
        Call::SetLen(length) => bytes.resize(usize::try_from(*length).unwrap(), 0),
        Call::Sync => {}
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let start = usize::try_from(offset).unwrap();
        let from = state.bytes.get(start..start + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Call::SetLen(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(Call::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Call::Write { offset, data: data.to_vec() })
    }
}

/// Everything that a reader can see of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    pub meta: Option<Meta>,
    pub changes: Vec<(VersionId, Change)>,
    pub heads: Vec<(Bytes, Head)>,
    pub alive: Vec<Vec<Visit>>,
    pub leases: Vec<(LeaseId, Lease, Vec<Bytes>)>,
}

pub const SMALL: StoreOptions = StoreOptions { cache_bytes: 1 << 20 };

pub fn open(disk: &Disk) -> Store {
    Store::open(disk.clone(), SMALL).unwrap()
}

pub fn everything() -> KeyRange {
    KeyRange::everything()
}

pub fn dump(store: &Store) -> Dump {
    let base = store.base().unwrap();
    let meta = store.meta();
    Dump {
        meta: store.is_initialised().then(|| meta.clone()),
        changes: base.changes(VersionId::default(), meta.revision).unwrap().map(Result::unwrap).collect(),
        leases: base
            .leases()
            .unwrap()
            .into_iter()
            .map(|(id, lease)| (id, lease, attached_to(&base, id).unwrap()))
            .collect(),
        heads: base.heads(&everything()).unwrap().map(Result::unwrap).collect(),
        alive: [meta.compacted.0, i64::midpoint(meta.compacted.0, meta.revision.0), meta.revision.0]
            .into_iter()
            .map(|at| base.versions_at(&everything(), Revision(at)).unwrap().map(Result::unwrap).collect())
            .collect(),
    }
}

pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>, create: i64, version: i64) -> Change {
    let (create_revision, lease) = (Revision(create), LeaseId::NONE);
    Change { key: key.into(), kind: ChangeKind::Put { value: value.into(), create_revision, version, lease } }
}

pub fn delete(key: impl Into<Bytes>) -> Change {
    Change { key: key.into(), kind: ChangeKind::Delete }
}

pub fn at(main: i64, sub: u32) -> VersionId {
    VersionId { main: Revision(main), sub }
}

/// A batch on top of what `store` holds; `revision` is the last change's, or stays.
/// A batch that changes users as well, as none does in practice.
pub fn batch(store: &Store, changes: Vec<(VersionId, Change)>) -> FoldBatch {
    let mut meta = store.meta().clone();
    meta.applied = meta.applied.next();
    meta.auth = Arc::new(Auth { revision: AuthRevision(meta.applied.0 + 1), ..test_auth() });
    meta.revision = changes.last().map_or(meta.revision, |(id, _)| id.main);
    FoldBatch { changes: changes.into_iter().collect(), leases: Vec::new(), sweep: None, meta }
}

pub fn founded(disk: &Disk) -> Store {
    let mut store = open(disk);
    store.initialise(&Meta { revision: Revision(1), ..Meta::default() }).unwrap();
    store
}

/// The keys of a lease.
pub fn attached_to(base: &Base, lease: LeaseId) -> Result<Vec<Bytes>, StoreError> {
    base.attached(lease, &[])?.collect()
}
