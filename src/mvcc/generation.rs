//! One generation of the overlay: the changes of a span of revisions, by key and in order.
//!
//! Owns: the lock, and what may be done under it. Must never: forget or alter a change once it is in, for views are
//! open on it. Grown by [`Writer`](super::Writer) alone; read by any number of views meanwhile.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use bytes::{Bytes, BytesMut};

use crate::command::KeyRange;
use crate::ids::{LeaseId, Revision, VersionId};
use crate::limits::OVERLAY_READ_CHUNK;
use crate::store::{Change, ChangeKind, ChangeLog, ChangeRef};

/// Keys of deletions are copied together into pieces of so many bytes: one by one, each would be two allocations.
const GRAVEYARD_BYTES: usize = 16 * 1024;

/// The changes of a span of revisions.
///
/// Readers name the revision up to which they want to see; what is above it does not exist for them. No lock is held for more than
/// [`OVERLAY_READ_CHUNK`] keys, so that a long read does not hold up the writer.
#[derive(Debug, Default)]
pub struct Generation {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    keys: BTreeMap<Bytes, History>,
    log: ChangeLog,
    /// Where the next deleted key goes.
    graveyard: BytesMut,
    /// Each lease and key that a change in the log has tied. Later changes may have untied them.
    attached: BTreeSet<(LeaseId, Bytes)>,
    bytes: u64,
}

/// The versions of one key, as positions in the log.
#[derive(Debug)]
struct History {
    newest: u32,
    /// `None` for a key that changed once, which is the common case: then it is but a pointer's room.
    older: Option<Box<Older>>,
    /// Whether the key was live just before its first change in this generation. Counting needs no look below because of it.
    existed: bool,
}

/// Ascending positions.
#[derive(Debug, Default)]
struct Older(Vec<u32>);

impl History {
    /// The newest position below `visible`.
    fn at(&self, visible: u32) -> Option<u32> {
        if self.newest < visible {
            return Some(self.newest);
        }
        let older = &self.older.as_ref()?.0;
        let seen = older.partition_point(|slot| *slot < visible);
        seen.checked_sub(1).map(|last| older[last])
    }
}

/// A position as it is stored. A generation is folded at a few megabytes and one command adds at most as many changes as there
/// are keys, so this bound is out of reach of memory.
fn position(slot: usize) -> u32 {
    u32::try_from(slot).expect("a generation holds fewer than 2^32 changes")
}

/// A key that a generation has a visible change of, with the newest such change.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) key: Bytes,
    pub(super) id: VersionId,
    pub(super) kind: ChangeKind,
}

impl Generation {
    /// What it counts against the overlay's bound: [`Change::stored_bytes`] of each change, which is close to the memory it takes.
    pub fn bytes(&self) -> u64 {
        self.read().bytes
    }

    /// Adds the next change. `existed` says whether the key was live just before.
    pub(super) fn push(&self, id: VersionId, mut change: Change, existed: bool) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let slot = position(inner.log.len());
        if change.kind == ChangeKind::Delete {
            change.key = inner.bury(&change.key);
        }
        inner.bytes += change.stored_bytes();
        if let ChangeKind::Put { lease, .. } = change.kind
            && lease != LeaseId::NONE
        {
            inner.attached.insert((lease, change.key.clone()));
        }
        match inner.keys.entry(change.key.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(History { newest: slot, older: None, existed });
            }
            Entry::Occupied(mut entry) => {
                let history = entry.get_mut();
                history.older.get_or_insert_default().0.push(history.newest);
                history.newest = slot;
            }
        }
        inner.log.push(id, change);
    }

    /// The newest change of `key` that is visible at `at`.
    pub(super) fn find(&self, key: &[u8], at: Revision) -> Option<(VersionId, ChangeKind)> {
        let inner = self.read();
        let history = inner.keys.get(key)?;
        let change = inner.change(history.at(inner.visible(at))?);
        Some((change.id, change.kind.clone()))
    }

    /// The keys that some change in this span has attached to `lease`, visible or not, in key order.
    pub(super) fn attached(&self, lease: LeaseId) -> Vec<Bytes> {
        let inner = self.read();
        let of_lease = inner.attached.range((lease, Bytes::new())..).take_while(|(of, _)| *of == lease);
        of_lease.map(|(_, key)| key.clone()).collect()
    }

    /// The first of those keys at or after `from`.
    pub(super) fn attached_from(&self, lease: LeaseId, from: Bytes) -> Option<Bytes> {
        let inner = self.read();
        let (of, key) = inner.attached.range((lease, from)..).next()?;
        (*of == lease).then(|| key.clone())
    }

    /// The keys of an interval that have a change visible at `at`, in key order. The first lock takes at most `expected` keys.
    pub(super) fn hits<'g>(&'g self, range: &'g KeyRange, at: Revision, expected: usize) -> Hits<'g> {
        let chunk = expected.clamp(1, OVERLAY_READ_CHUNK);
        Hits { generation: self, range, at, chunk, last: None, ended: false, buffer: Vec::new().into_iter() }
    }

    /// How many keys of an interval came to life in this span as seen at `at`, less those that died.
    pub(super) fn live_delta(&self, range: &KeyRange, at: Revision) -> i64 {
        let mut delta = 0;
        let mut after: Option<Bytes> = None;
        loop {
            let inner = self.read();
            let visible = inner.visible(at);
            let mut walked = 0;
            let mut last = None;
            for (key, history) in inner.walk(range, after.as_ref()).take(OVERLAY_READ_CHUNK) {
                walked += 1;
                last = Some(key);
                if let Some(slot) = history.at(visible) {
                    let lives = *inner.change(slot).kind != ChangeKind::Delete;
                    delta += i64::from(lives) - i64::from(history.existed);
                }
            }
            if walked < OVERLAY_READ_CHUNK {
                return delta;
            }
            after = last.cloned();
        }
    }

    /// The changes from `from` on that are visible at `at`, in order.
    pub(super) fn changes(&self, from: VersionId, at: Revision) -> Changes<'_> {
        let next = position(self.read().log.partition(|id| id < from));
        Changes { generation: self, next, at, buffer: Vec::new().into_iter() }
    }

    /// All changes, in order. For a generation that no longer grows.
    pub(super) fn all(&self) -> ChangeLog {
        self.read().log.clone()
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // A panic elsewhere cannot leave a half-made change behind that matters: readers see whole log entries or none.
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn change(&self, slot: u32) -> ChangeRef<'_> {
        self.log.get(slot as usize)
    }

    /// How many changes a reader at `at` sees; mostly all.
    fn visible(&self, at: Revision) -> u32 {
        match self.log.last() {
            Some(last) if last.id.main > at => position(self.log.partition(|id| id.main <= at)),
            _ => position(self.log.len()),
        }
    }

    /// A copy of a deleted key beside others.
    fn bury(&mut self, key: &[u8]) -> Bytes {
        if self.graveyard.capacity() < key.len() {
            self.graveyard = BytesMut::with_capacity(GRAVEYARD_BYTES.max(key.len()));
        }
        self.graveyard.extend_from_slice(key);
        self.graveyard.split().freeze()
    }

    /// The keys of an interval, those up to `after` left out.
    fn walk<'i>(
        &'i self,
        range: &'i KeyRange,
        after: Option<&'i Bytes>,
    ) -> impl Iterator<Item = (&'i Bytes, &'i History)> {
        let bounds = range
            .bounds()
            .map(|(start, end)| (after.map_or(start, |key| Bound::Excluded(key.as_ref())), end));
        bounds.map(|bounds| self.keys.range::<[u8], _>(bounds)).into_iter().flatten()
    }
}

/// See [`Generation::hits`].
pub(super) struct Hits<'g> {
    generation: &'g Generation,
    range: &'g KeyRange,
    at: Revision,
    chunk: usize,
    last: Option<Bytes>,
    ended: bool,
    buffer: std::vec::IntoIter<Hit>,
}

impl Hits<'_> {
    fn refill(&mut self) {
        let inner = self.generation.read();
        let visible = inner.visible(self.at);
        let mut hits = Vec::new();
        let mut walked = 0;
        let mut last = None;
        for (key, history) in inner.walk(self.range, self.last.as_ref()).take(self.chunk) {
            walked += 1;
            last = Some(key);
            if let Some(slot) = history.at(visible) {
                let (id, change) = inner.change(slot).to_owned();
                hits.push(Hit { key: change.key, id, kind: change.kind });
            }
        }
        self.ended = walked < self.chunk;
        self.last = last.cloned();
        self.chunk = OVERLAY_READ_CHUNK;
        self.buffer = hits.into_iter();
    }
}

impl Iterator for Hits<'_> {
    type Item = Hit;

    fn next(&mut self) -> Option<Hit> {
        loop {
            if let Some(hit) = self.buffer.next() {
                return Some(hit);
            }
            if self.ended {
                return None;
            }
            self.refill();
        }
    }
}

/// See [`Generation::changes`].
pub(super) struct Changes<'g> {
    generation: &'g Generation,
    next: u32,
    at: Revision,
    buffer: std::vec::IntoIter<(VersionId, Change)>,
}

impl Iterator for Changes<'_> {
    type Item = (VersionId, Change);

    fn next(&mut self) -> Option<(VersionId, Change)> {
        if let Some(change) = self.buffer.next() {
            return Some(change);
        }
        let inner = self.generation.read();
        let chunk_end = position(self.next as usize + OVERLAY_READ_CHUNK);
        let end = inner.visible(self.at).min(chunk_end);
        let taken: Vec<_> = (self.next..end).map(|slot| inner.change(slot).to_owned()).collect();
        self.next = self.next.max(end);
        self.buffer = taken.into_iter();
        self.buffer.next()
    }
}
