//! One generation of the overlay: the changes of a span of revisions, by key and in order.
//!
//! Owns: the lock, and what may be done under it. Must never: forget or alter a change once it is in, for views are
//! open on it. Grown by [`Writer`](super::Writer) alone; read by any number of views meanwhile.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;

use crate::command::KeyRange;
use crate::ids::{LeaseId, Revision, VersionId};
use crate::limits::OVERLAY_READ_CHUNK;
use crate::store::{Change, ChangeKind};

/// Changes per allocation of the log: growing it never copies what is in.
const LOG_CHUNK: usize = 256;

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
    log: Log,
    /// Each lease and key that a change in the log has tied. Later changes may have untied them.
    attached: BTreeSet<(LeaseId, Bytes)>,
    bytes: u64,
}

/// The versions of one key, as positions in the log.
#[derive(Debug)]
struct History {
    newest: u32,
    /// Ascending; empty for a key that changed once, which is the common case and then costs no allocation.
    older: Vec<u32>,
    /// Whether the key was live just before its first change in this generation. Counting needs no look below because of it.
    existed: bool,
}

impl History {
    /// The newest position below `visible`.
    fn at(&self, visible: u32) -> Option<u32> {
        if self.newest < visible {
            return Some(self.newest);
        }
        let seen = self.older.partition_point(|slot| *slot < visible);
        seen.checked_sub(1).map(|last| self.older[last])
    }
}

/// The changes in order of their ids, addressed by position.
#[derive(Debug, Default)]
struct Log {
    /// All full but the last.
    chunks: Vec<Vec<(VersionId, Change)>>,
}

impl Log {
    fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * LOG_CHUNK + last.len())
    }

    fn entry(&self, slot: u32) -> &(VersionId, Change) {
        let slot = slot as usize;
        &self.chunks[slot / LOG_CHUNK][slot % LOG_CHUNK]
    }

    fn push(&mut self, id: VersionId, change: Change) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < LOG_CHUNK => last.push((id, change)),
            _ => {
                let mut chunk = Vec::with_capacity(LOG_CHUNK);
                chunk.push((id, change));
                self.chunks.push(chunk);
            }
        }
    }

    /// The first position that does not satisfy `before`, which holds for a prefix of the log (mostly for all of it).
    fn partition(&self, before: impl Fn(VersionId) -> bool) -> u32 {
        let newest = self.chunks.last().and_then(|chunk| chunk.last());
        if newest.is_none_or(|(id, _)| before(*id)) {
            return position(self.len());
        }
        let full = self.chunks.partition_point(|chunk| chunk.last().is_some_and(|(id, _)| before(*id)));
        position(full * LOG_CHUNK + self.chunks[full].partition_point(|(id, _)| before(*id)))
    }

    /// How many changes a reader at `at` sees.
    fn visible(&self, at: Revision) -> u32 {
        self.partition(|id| id.main <= at)
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
    pub(super) fn push(&self, id: VersionId, change: Change, existed: bool) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let slot = position(inner.log.len());
        if let Some(last) = slot.checked_sub(1) {
            assert!(inner.log.entry(last).0 < id, "changes arrive in the order of their ids");
        }
        inner.bytes += change.stored_bytes();
        if let ChangeKind::Put { lease, .. } = change.kind
            && lease != LeaseId::NONE
        {
            inner.attached.insert((lease, change.key.clone()));
        }
        match inner.keys.entry(change.key.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(History { newest: slot, older: Vec::new(), existed });
            }
            Entry::Occupied(mut entry) => {
                let history = entry.get_mut();
                history.older.push(history.newest);
                history.newest = slot;
            }
        }
        inner.log.push(id, change);
    }

    /// The newest change of `key` that is visible at `at`.
    pub(super) fn find(&self, key: &[u8], at: Revision) -> Option<(VersionId, ChangeKind)> {
        let inner = self.read();
        let history = inner.keys.get(key)?;
        let slot = history.at(inner.log.visible(at))?;
        let (id, change) = inner.log.entry(slot);
        Some((*id, change.kind.clone()))
    }

    /// The keys that some change in this span has attached to `lease`, visible or not, in key order.
    pub(super) fn attached(&self, lease: LeaseId) -> Vec<Bytes> {
        let inner = self.read();
        let of_lease = inner.attached.range((lease, Bytes::new())..).take_while(|(of, _)| *of == lease);
        of_lease.map(|(_, key)| key.clone()).collect()
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
            let visible = inner.log.visible(at);
            let mut walked = 0;
            let mut last = None;
            for (key, history) in inner.walk(range, after.as_ref()).take(OVERLAY_READ_CHUNK) {
                walked += 1;
                last = Some(key);
                if let Some(slot) = history.at(visible) {
                    let lives = inner.log.entry(slot).1.kind != ChangeKind::Delete;
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
        let next = self.read().log.partition(|id| id < from);
        Changes { generation: self, next, at, buffer: Vec::new().into_iter() }
    }

    /// All changes, in order. For a generation that no longer grows.
    pub(super) fn all(&self) -> Vec<(VersionId, Change)> {
        self.read().log.chunks.iter().flatten().cloned().collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // A panic elsewhere cannot leave a half-made change behind that matters: readers see whole log entries or none.
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
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
        let visible = inner.log.visible(self.at);
        let mut hits = Vec::new();
        let mut walked = 0;
        let mut last = None;
        for (key, history) in inner.walk(self.range, self.last.as_ref()).take(self.chunk) {
            walked += 1;
            last = Some(key);
            if let Some(slot) = history.at(visible) {
                let (id, change) = inner.log.entry(slot);
                hits.push(Hit { key: change.key.clone(), id: *id, kind: change.kind.clone() });
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
        let end = inner.log.visible(self.at).min(chunk_end);
        let taken: Vec<_> = (self.next..end).map(|slot| inner.log.entry(slot).clone()).collect();
        self.next = self.next.max(end);
        self.buffer = taken.into_iter();
        self.buffer.next()
    }
}
