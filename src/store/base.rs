//! Reading the state on disk at one point in time.
//!
//! Owns: lookups by key and by id, and the counts. Must never: write, or answer with a row whose checksum does not
//! fit. Driven by `mvcc` through a view, on any thread.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTableMetadata};

use super::encoding::SEAL_BYTES;
use super::error::StoreError;
use super::scan::{Changes, Heads, VersionsAt};
use super::schema::{
    ATTACHED, HIST, HIST_NAME, HIST_ROW_BYTES, HistKey, ID_BYTES, ID_FIRST, LEASE, LEASE_ID_BYTES, LIVE,
    LIVE_NAME, REV, REV_NAME, RevRow, hist_key, id_key, last_of, parse_change, parse_hist, parse_hist_key,
    parse_live,
};
use super::types::{Change, Head, Meta};
use crate::command::{KeyRange, KeyValue, RangeEnd};
use crate::ids::{Revision, VersionId};
use crate::limits::PUT_OVERHEAD_BYTES;

pub(super) const MALFORMED: &str = "checksum or form does not fit";
pub(super) const MISSING: &str = "row is missing";

/// The state as of one commit. Later commits do not show through it.
///
/// Reads at a revision are meant for revisions at or above [`Meta::compacted`]; below that the answer depends on how
/// far removal has come. Keys are compared as bytes. Every method fails with [`StoreError::Damaged`] on a row that
/// cannot be what was written, and with [`StoreError::Io`] where the disk does not answer.
pub struct Base {
    pub(super) meta: Meta,
    pub(super) rev: ReadOnlyTable<&'static [u8; ID_BYTES], &'static [u8]>,
    pub(super) live: ReadOnlyTable<&'static [u8], &'static [u8]>,
    pub(super) hist: ReadOnlyTable<HistKey, &'static [u8; HIST_ROW_BYTES]>,
    pub(super) lease: ReadOnlyTable<&'static [u8; LEASE_ID_BYTES], &'static [u8]>,
    pub(super) attached: ReadOnlyTable<&'static [u8], &'static [u8; SEAL_BYTES]>,
    keys: u64,
    complete_from: Revision,
    /// See [`Store::distrust`](super::Store::distrust).
    pub(super) suspect: bool,
    /// Tells the store that somebody reads.
    _reader: Arc<()>,
}

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Base").field("meta", &self.meta).finish_non_exhaustive()
    }
}

impl Base {
    /// The tables keep the transaction alive.
    pub(super) fn open(
        txn: &ReadTransaction,
        meta: Meta,
        complete_from: Revision,
        suspect: bool,
        reader: Arc<()>,
    ) -> Result<Self, StoreError> {
        let live = txn.open_table(LIVE)?;
        Ok(Self {
            meta,
            complete_from,
            keys: live.len()?,
            rev: txn.open_table(REV)?,
            live,
            hist: txn.open_table(HIST)?,
            lease: txn.open_table(LEASE)?,
            attached: txn.open_table(ATTACHED)?,
            suspect,
            _reader: reader,
        })
    }

    /// Whether the rows are not to be trusted, and wait to be replaced.
    pub fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// The facts as of this commit.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// How many keys exist.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// All changes from this revision on are there. Of earlier ones some may have been removed: at most [`Meta::compacted`], and below it
    /// as long as removal up to there has not begun.
    pub fn complete_from(&self) -> Revision {
        self.complete_from
    }

    /// The current version of `key`; `None` where it does not exist.
    pub fn head(&self, key: &[u8]) -> Result<Option<Head>, StoreError> {
        let Some(row) = self.live.get(key)? else {
            return Ok(None);
        };
        let head = parse_live(key, row.value());
        head.map(Some).ok_or_else(|| StoreError::damaged(LIVE_NAME, key, MALFORMED))
    }

    /// The newest change of `key` at or below `at`, and whether it is a tombstone.
    pub fn version_at(&self, key: &[u8], at: Revision) -> Result<Option<(VersionId, bool)>, StoreError> {
        match self.head(key)? {
            Some(head) if head.id.main <= at => Ok(Some((head.id, false))),
            _ => self.superseded_at(key, at),
        }
    }

    /// The newest row of `hist` for `key` at or below `at`.
    pub(super) fn superseded_at(
        &self,
        key: &[u8],
        at: Revision,
    ) -> Result<Option<(VersionId, bool)>, StoreError> {
        let (mut low, mut high) = (Vec::new(), Vec::new());
        hist_key(&mut low, key, ID_FIRST);
        hist_key(&mut high, key, last_of(at));
        let newest = self.hist.range::<&[u8]>(low.as_slice()..=high.as_slice())?.next_back();
        let Some(row) = newest else {
            return Ok(None);
        };
        let (raw_key, row) = row?;
        let (_, id, tombstone) = parse_hist_row(raw_key.value(), *row.value())?;
        Ok(Some((id, tombstone)))
    }

    /// The change at `id`, which must be one that another table named: a missing row is damage.
    pub fn change(&self, id: VersionId) -> Result<Change, StoreError> {
        let key = id_key(id);
        let row = self.rev.get(&key)?.ok_or_else(|| StoreError::damaged(REV_NAME, &key, MISSING))?;
        parse_change(id, row.value()).ok_or_else(|| StoreError::damaged(REV_NAME, &key, MALFORMED))
    }

    /// The key-value pair of a head of `key`.
    pub fn value(&self, key: &Bytes, head: &Head) -> Result<KeyValue, StoreError> {
        let raw = id_key(head.id);
        let damaged = |what| StoreError::damaged(REV_NAME, &raw, what);
        let row = self.rev.get(&raw)?.ok_or_else(|| damaged(MISSING))?;
        let parsed = RevRow::parse(head.id, row.value()).ok_or_else(|| damaged(MALFORMED))?;
        let put = parsed.put.filter(|put| parsed.key == key && put.head == *head);
        let put = put.ok_or_else(|| damaged("is not the version that the live table names"))?;
        Ok(KeyValue {
            key: key.clone(),
            value: Bytes::copy_from_slice(put.value),
            create_revision: head.create_revision,
            mod_revision: head.id.main,
            version: head.version,
            lease: head.lease,
        })
    }

    /// How many changes are stored, and how many bytes their keys and values have; at once.
    pub fn count_changes(&self) -> Result<(u64, u64), StoreError> {
        let count = self.rev.len()?;
        let content = count
            .checked_mul(PUT_OVERHEAD_BYTES)
            .and_then(|overhead| self.meta.bytes_in_use.checked_sub(overhead));
        let content = content.ok_or_else(|| StoreError::damaged_file("bytes in use are miscounted"))?;
        Ok((count, content))
    }

    /// The keys in `range` that exist, ascending.
    pub fn heads(&self, range: &KeyRange) -> Result<Heads<'_>, StoreError> {
        Heads::new(self, range)
    }

    /// How many keys in `range` exist, without copying them: of the first `keys` of them, with the key behind those if there is one. At
    /// once for the whole key space.
    pub fn count_live(&self, range: &KeyRange, keys: usize) -> Result<(u64, Option<Bytes>), StoreError> {
        // No key is empty, so the lowest possible one is a single zero byte.
        if range.end == RangeEnd::Unbounded && matches!(range.start.as_ref(), [] | [0]) {
            return Ok((self.keys, None));
        }
        let Some(bounds) = range.bounds() else {
            return Ok((0, None));
        };
        let mut rows = self.live.range::<&[u8]>(bounds)?;
        let mut count = 0;
        for row in rows.by_ref().take(keys) {
            row?;
            count += 1;
        }
        let next = rows.next().transpose()?;
        Ok((count, next.map(|(key, _)| Bytes::copy_from_slice(key.value()))))
    }

    /// The keys in `range` that existed at `at`, ascending, each with its version there. Pauses where for long there is none.
    pub fn versions_at(&self, range: &KeyRange, at: Revision) -> Result<VersionsAt<'_>, StoreError> {
        VersionsAt::new(self, range, at)
    }

    /// How many keys in `range` existed at `at`, without copying them: of the first `keys` that have been there at any time, with the key
    /// behind those if there is one.
    pub fn count_at(
        &self,
        range: &KeyRange,
        at: Revision,
        keys: usize,
    ) -> Result<(u64, Option<Bytes>), StoreError> {
        self.versions_at(range, at)?.count(keys)
    }

    /// The retained changes from `from` through the last of `to`, in the order they were made.
    pub fn changes(&self, from: VersionId, to: Revision) -> Result<Changes<'_>, StoreError> {
        Changes::new(self, from, to)
    }
}

/// The parts of a row of `hist`.
pub(super) fn parse_hist_row(
    raw_key: &[u8],
    row: [u8; HIST_ROW_BYTES],
) -> Result<(&[u8], VersionId, bool), StoreError> {
    let parsed = parse_hist(raw_key, row).zip(parse_hist_key(raw_key));
    let (tombstone, (key, id)) = parsed.ok_or_else(|| StoreError::damaged(HIST_NAME, raw_key, MALFORMED))?;
    Ok((key, id, tombstone))
}
