//! The live keys of an interval at a revision, merged from the layers, values not yet fetched.
//!
//! Owns: the merge and its precedence. Must never: fetch what may not be needed. Driven by ranges, deletes and compares.

use std::iter::Peekable;

use bytes::Bytes;

use super::generation::{Hit, Hits};
use super::view::View;
use crate::command::{Intervals, KeyRange, KeyValue};
use crate::ids::{Revision, VersionId};
use crate::store::{Base, ChangeKind, Head, StoreError, Visit, WHOLE_FILE};

/// A live key, with as much of it as its layer gave for free.
#[derive(Debug)]
pub(super) enum Row {
    /// From the overlay: everything is there.
    Memory { id: VersionId, kv: KeyValue },
    /// The base's current version: everything but the value.
    Stored { key: Bytes, head: Head },
    /// An old version in the base: only where it is.
    Historic { key: Bytes, id: VersionId },
}

impl Row {
    /// The row of an overlay's change; `None` for a tombstone.
    pub(super) fn in_memory(key: Bytes, id: VersionId, kind: ChangeKind) -> Option<Self> {
        match kind {
            ChangeKind::Put { value, create_revision, version, lease } => {
                let kv = KeyValue { key, value, create_revision, mod_revision: id.main, version, lease };
                Some(Self::Memory { id, kv })
            }
            ChangeKind::Delete => None,
        }
    }

    /// Which change made this version.
    pub(super) fn id(&self) -> VersionId {
        match self {
            Self::Memory { id, .. } | Self::Historic { id, .. } => *id,
            Self::Stored { head, .. } => head.id,
        }
    }

    /// The key.
    pub(super) fn key(&self) -> &Bytes {
        match self {
            Self::Memory { kv, .. } => &kv.key,
            Self::Stored { key, .. } | Self::Historic { key, .. } => key,
        }
    }

    /// The key, by itself.
    pub(super) fn into_key(self) -> Bytes {
        match self {
            Self::Memory { kv, .. } => kv.key,
            Self::Stored { key, .. } | Self::Historic { key, .. } => key,
        }
    }

    /// Everything but, perhaps, the value.
    pub(super) fn draft(self, base: &Base) -> Result<Draft, StoreError> {
        match self {
            Self::Memory { kv, .. } => Ok(Draft { kv, missing: None }),
            Self::Stored { key, head } => {
                let kv = KeyValue {
                    key,
                    value: Bytes::new(),
                    create_revision: head.create_revision,
                    mod_revision: head.id.main,
                    version: head.version,
                    lease: head.lease,
                };
                Ok(Draft { kv, missing: Some(head) })
            }
            Self::Historic { key, id } => {
                let kv = base.change(id)?.key_value(id).filter(|kv| kv.key == key);
                let kv = kv.ok_or_else(|| damaged(&key, "is not the version that the history names"))?;
                Ok(Draft { kv, missing: None })
            }
        }
    }
}

/// A key-value pair whose value may still be in the base.
#[derive(Debug)]
pub(super) struct Draft {
    /// Complete but for the value, which is empty while missing.
    pub(super) kv: KeyValue,
    missing: Option<Head>,
}

impl Draft {
    /// Fetches the value where it is missing.
    pub(super) fn fetch(&mut self, base: &Base) -> Result<(), StoreError> {
        if let Some(head) = self.missing.take() {
            self.kv = base.value(&self.kv.key, &head)?;
        }
        Ok(())
    }

    /// The complete pair.
    pub(super) fn load(mut self, base: &Base) -> Result<KeyValue, StoreError> {
        self.fetch(base)?;
        Ok(self.kv)
    }

    /// The pair with an empty value.
    pub(super) fn strip(mut self) -> KeyValue {
        self.kv.value = Bytes::new();
        self.kv
    }
}

/// What the store says of `key` contradicts what it said before.
pub(super) fn damaged(key: &Bytes, what: &'static str) -> StoreError {
    StoreError::Damaged { table: WHOLE_FILE, key: key.clone(), what: what.into() }
}

/// Live keys in key order.
pub(super) type Rows<'v> = Box<dyn Iterator<Item = Result<Row, StoreError>> + 'v>;

/// Live keys in key order, and where a search for the next one takes long.
pub(super) type Steps<'v> = Box<dyn Iterator<Item = Result<Step, StoreError>> + 'v>;

/// What comes next in an interval.
pub(super) enum Step {
    /// The next live key.
    Row(Row),
    /// None for many keys up to this one: a reader that shares a thread may let others have a turn and go on from here.
    Pause(Bytes),
}

/// Keys that a count passes between pauses. Few in tests, so that small states have some.
const KEYS_PER_COUNT: usize = if cfg!(test) { 2 } else { 4096 };

/// A count of live keys under way.
#[derive(Debug)]
pub(super) struct Count {
    at: Revision,
    /// What is left to count in the base; `None` behind the end.
    rest: Option<KeyRange>,
    sum: i64,
}

/// A count as the API has it.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).expect("a store holds fewer than 2^63 keys")
}

impl View {
    /// The live keys of `range` at a retained revision, in key order. `expected` is how many the caller thinks to take.
    pub(super) fn rows<'v>(
        &'v self,
        range: &'v KeyRange,
        at: Revision,
        expected: usize,
    ) -> Result<Rows<'v>, StoreError> {
        let steps = self.steps(range, at, expected)?;
        Ok(Box::new(steps.filter_map(|step| match step {
            Ok(Step::Row(row)) => Some(Ok(row)),
            Ok(Step::Pause(_)) => None,
            Err(error) => Some(Err(error)),
        })))
    }

    /// The same, with pauses.
    pub(super) fn steps<'v>(
        &'v self,
        range: &'v KeyRange,
        at: Revision,
        expected: usize,
    ) -> Result<Steps<'v>, StoreError> {
        if range.is_single() {
            let row = self.find(&range.start, at)?;
            return Ok(Box::new(row.map(Step::Row).map(Ok).into_iter()));
        }
        if range.is_empty() {
            return Ok(Box::new(std::iter::empty()));
        }
        if self.is_historic(at) {
            let visits = self.base.versions_at(range, at)?;
            let step = |visit| match visit {
                Visit::Version(key, id) => Step::Row(Row::Historic { key, id }),
                Visit::Pause(key) => Step::Pause(key),
            };
            return Ok(Box::new(visits.map(move |visit| visit.map(step))));
        }
        let merge = Merge {
            active: self.active.hits(range, at, expected).peekable(),
            frozen: self.frozen.as_ref().map(|frozen| frozen.hits(range, at, expected).peekable()),
            base: self.base.heads(range)?.peekable(),
            swept: self.swept_at(at),
        };
        Ok(Box::new(merge.map(|row| row.map(Step::Row))))
    }

    /// Begins to count the live keys of `range` at a retained revision.
    pub(super) fn begin_count(&self, range: KeyRange, at: Revision) -> Count {
        // Each layer knows what it changed about the number of live keys, so the sum needs no merge.
        let merged =
            range.is_single() || range.is_empty() || self.is_historic(at) || self.swept_at(at).is_some();
        let sum = if merged {
            0
        } else {
            let frozen = self.frozen.as_ref().map_or(0, |frozen| frozen.live_delta(&range, at));
            frozen + self.active.live_delta(&range, at)
        };
        Count { at, rest: Some(range), sum }
    }

    /// Counts on, copying nothing; the number once there are no more. To be called with the view that it was begun with.
    pub(super) fn continue_count(&self, count: &mut Count) -> Result<Option<i64>, StoreError> {
        let Some(mut range) = count.rest.take() else { return Ok(Some(count.sum)) };
        if range.is_single() {
            return Ok(Some(i64::from(self.find(&range.start, count.at)?.is_some())));
        }
        let (counted, next) = if range.is_empty() {
            (0, None)
        } else if self.swept_at(count.at).is_some() {
            let mut rows = self.rows(&range, count.at, usize::MAX)?;
            (rows.try_fold(0, |sum, row| row.map(|_| sum + 1))?, None)
        } else if self.is_historic(count.at) {
            self.base.count_at(&range, count.at, KEYS_PER_COUNT)?
        } else {
            self.base.count_live(&range, KEYS_PER_COUNT)?
        };
        count.sum += signed(counted);
        if let Some(next) = next {
            range.start = next;
            count.rest = Some(range);
            return Ok(None);
        }
        if count.sum < 0 {
            return Err(damaged(&range.start, "fewer keys than were deleted"));
        }
        Ok(Some(count.sum))
    }
}

/// The live keys of three layers: on equal keys the higher layer wins.
struct Merge<'v, B: Iterator<Item = Result<(Bytes, Head), StoreError>>> {
    active: Peekable<Hits<'v>>,
    frozen: Option<Peekable<Hits<'v>>>,
    base: Peekable<B>,
    /// What is gone below the active generation.
    swept: Option<&'v Intervals>,
}

impl<B: Iterator<Item = Result<(Bytes, Head), StoreError>>> Merge<'_, B> {
    /// The lowest key that any layer has next, as that layer has it; the others skip it.
    fn merge(&mut self) -> Option<Result<Option<Row>, StoreError>> {
        let active = self.active.peek().map(|hit| &hit.key);
        let frozen = self.frozen.as_mut().and_then(Peekable::peek).map(|hit| &hit.key);
        let base = match self.base.peek() {
            Some(Err(_)) => return self.base.next().map(|failed| failed.map(|_| None)),
            Some(Ok((key, _))) => Some(key),
            None => None,
        };
        let lowest = [active, frozen, base].into_iter().flatten().min()?;
        let (in_active, in_frozen, in_base) =
            (active == Some(lowest), frozen == Some(lowest), base == Some(lowest));
        let swept = !in_active && self.swept.is_some_and(|swept| swept.contain(lowest));
        let stored = if in_base { self.base.next() } else { None };
        let frozen = if in_frozen { self.frozen.as_mut().and_then(Iterator::next) } else { None };
        let active = if in_active { self.active.next() } else { None };
        if swept {
            return Some(Ok(None));
        }
        if let Some(Hit { key, id, kind }) = active.or(frozen) {
            return Some(Ok(Row::in_memory(key, id, kind)));
        }
        stored.map(|head| head.map(|(key, head)| Some(Row::Stored { key, head })))
    }
}

impl<B: Iterator<Item = Result<(Bytes, Head), StoreError>>> Iterator for Merge<'_, B> {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.merge()? {
                Ok(Some(row)) => return Some(Ok(row)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
