//! Looking for damage before a reader finds it: every row's checksum, and that the tables name each other's rows.
//!
//! Owns: the order of the walk and the checks. Must never: repair, or hold a view for the whole walk (the caller takes
//! a new [`Base`] for each slice). Driven at low priority, on any thread.

use std::ops::Bound;

use super::base::{Base, MALFORMED, MISSING, parse_hist_row};
use super::error::StoreError;
use super::schema::{
    ATTACHED_NAME, HIST_NAME, ID_BYTES, LEASE_ID_BYTES, LEASE_NAME, LIVE_NAME, REV_NAME, RevRow,
    attached_key, id_key, parse_attached, parse_id, parse_lease, parse_live,
};
use super::writer::Store;
use crate::ids::{LeaseId, VersionId};

const FOREIGN: &str = "names a change of something else";

/// Where a scrub goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScrubCursor {
    /// In `rev`, behind this row; at the start of everything where there is none.
    Rev(Option<[u8; ID_BYTES]>),
    /// In `live`, behind this row.
    Live(Option<Vec<u8>>),
    /// In `hist`, behind this row.
    Hist(Option<Vec<u8>>),
    /// In `lease`, behind this row.
    Lease(Option<[u8; LEASE_ID_BYTES]>),
    /// In `attached`, behind this row.
    Attached(Option<Vec<u8>>),
}

impl Default for ScrubCursor {
    fn default() -> Self {
        Self::Rev(None)
    }
}

/// What a slice of a scrub found in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubProgress {
    /// Rows that this slice checked.
    pub rows: usize,
    /// Where the next slice goes on; `None` when all tables were walked.
    pub next: Option<ScrubCursor>,
}

impl Base {
    /// Checks at most `limit` rows behind `from`.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] with the table and key of the first row that is not what was written, or that another table's row
    /// names in vain.
    pub fn scrub_slice(&self, from: ScrubCursor, limit: usize) -> Result<ScrubProgress, StoreError> {
        assert!(limit > 0, "a slice that may check nothing does not end");
        let (rows, next) = match from {
            ScrubCursor::Rev(after) => {
                let (rows, last) = self.scrub_rev(after, limit)?;
                (rows, if rows == limit { ScrubCursor::Rev(last) } else { ScrubCursor::Live(None) })
            }
            ScrubCursor::Live(after) => {
                let (rows, last) = self.scrub_live(after.as_deref(), limit)?;
                (rows, if rows == limit { ScrubCursor::Live(last) } else { ScrubCursor::Hist(None) })
            }
            ScrubCursor::Hist(after) => {
                let (rows, last) = self.scrub_hist(after.as_deref(), limit)?;
                (rows, if rows == limit { ScrubCursor::Hist(last) } else { ScrubCursor::Lease(None) })
            }
            ScrubCursor::Lease(after) => {
                let (rows, last) = self.scrub_lease(after, limit)?;
                (rows, if rows == limit { ScrubCursor::Lease(last) } else { ScrubCursor::Attached(None) })
            }
            ScrubCursor::Attached(after) => {
                let (rows, last) = self.scrub_attached(after.as_deref(), limit)?;
                let next = (rows == limit).then_some(ScrubCursor::Attached(last));
                return Ok(ScrubProgress { rows, next });
            }
        };
        Ok(ScrubProgress { rows, next: Some(next) })
    }

    fn scrub_rev(
        &self,
        after: Option<[u8; ID_BYTES]>,
        limit: usize,
    ) -> Result<(usize, Option<[u8; ID_BYTES]>), StoreError> {
        let start = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let (mut rows, mut last) = (0, after);
        for row in self.rev.range::<&[u8; ID_BYTES]>((start, Bound::Unbounded))?.take(limit) {
            let (key, row) = row?;
            let id = parse_id(key.value());
            let parsed = id.and_then(|id| RevRow::parse(id, row.value()));
            parsed.ok_or_else(|| StoreError::damaged(REV_NAME, key.value(), MALFORMED))?;
            last = Some(*key.value());
            rows += 1;
        }
        Ok((rows, last))
    }

    fn scrub_live(&self, after: Option<&[u8]>, limit: usize) -> Result<(usize, Option<Vec<u8>>), StoreError> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut rows, mut last) = (0, None);
        for row in self.live.range::<&[u8]>((start, Bound::Unbounded))?.take(limit) {
            let (key, row) = row?;
            let damaged = |what| StoreError::damaged(LIVE_NAME, key.value(), what);
            let head = parse_live(key.value(), row.value()).ok_or_else(|| damaged(MALFORMED))?;
            let named = self.with_rev(head.id, |row| {
                row.key == key.value() && row.put.as_ref().is_some_and(|put| put.head == head)
            })?;
            if !named {
                return Err(damaged(FOREIGN));
            }
            if head.lease != LeaseId::NONE {
                let raw_key = attached_key(head.lease, key.value());
                let attached = self.attached.get(raw_key.as_slice())?;
                attached.ok_or_else(|| StoreError::damaged(ATTACHED_NAME, &raw_key, MISSING))?;
            }
            last = Some(key.value().to_vec());
            rows += 1;
        }
        Ok((rows, last))
    }

    fn scrub_hist(&self, after: Option<&[u8]>, limit: usize) -> Result<(usize, Option<Vec<u8>>), StoreError> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut rows, mut last) = (0, None);
        let compacting = self.meta.compaction_finished < self.meta.compacted;
        for row in self.hist.range::<&[u8]>((start, Bound::Unbounded))?.take(limit) {
            let (raw_key, row) = row?;
            let (key, id, tombstone) = parse_hist_row(raw_key.value(), *row.value())?;
            match self.with_rev(id, |row| row.key == key && row.put.is_none() == tombstone) {
                Ok(true) => {}
                Ok(false) => return Err(StoreError::damaged(HIST_NAME, raw_key.value(), FOREIGN)),
                // A compaction under way removes the change before the row that names it.
                Err(_) if compacting && id.main <= self.meta.compacted && !self.has_rev(id)? => {}
                Err(error) => return Err(error),
            }
            last = Some(raw_key.value().to_vec());
            rows += 1;
        }
        Ok((rows, last))
    }

    fn scrub_lease(
        &self,
        after: Option<[u8; LEASE_ID_BYTES]>,
        limit: usize,
    ) -> Result<(usize, Option<[u8; LEASE_ID_BYTES]>), StoreError> {
        let start = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let (mut rows, mut last) = (0, after);
        for row in self.lease.range::<&[u8; LEASE_ID_BYTES]>((start, Bound::Unbounded))?.take(limit) {
            let (id, row) = row?;
            let parsed = parse_lease(*id.value(), row.value());
            parsed.ok_or_else(|| StoreError::damaged(LEASE_NAME, id.value(), MALFORMED))?;
            last = Some(*id.value());
            rows += 1;
        }
        Ok((rows, last))
    }

    /// Each row must be what the key's head says, and its lease must exist.
    fn scrub_attached(
        &self,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<(usize, Option<Vec<u8>>), StoreError> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut rows, mut last) = (0, None);
        for row in self.attached.range::<&[u8]>((start, Bound::Unbounded))?.take(limit) {
            let (raw_key, row) = row?;
            let damaged = |what| StoreError::damaged(ATTACHED_NAME, raw_key.value(), what);
            let parsed = parse_attached(raw_key.value(), *row.value());
            let (lease, key) = parsed.ok_or_else(|| damaged(MALFORMED))?;
            if self.head(key)?.is_none_or(|head| head.lease != lease) {
                return Err(damaged(FOREIGN));
            }
            if self.lease.get(&lease.0.to_le_bytes())?.is_none() {
                return Err(StoreError::damaged(LEASE_NAME, &lease.0.to_le_bytes(), MISSING));
            }
            last = Some(raw_key.value().to_vec());
            rows += 1;
        }
        Ok((rows, last))
    }

    fn has_rev(&self, id: VersionId) -> Result<bool, StoreError> {
        Ok(self.rev.get(&id_key(id))?.is_some())
    }

    fn with_rev(&self, id: VersionId, check: impl FnOnce(&RevRow<'_>) -> bool) -> Result<bool, StoreError> {
        let key = id_key(id);
        let damaged = |what| StoreError::damaged(REV_NAME, &key, what);
        let row = self.rev.get(&key)?.ok_or_else(|| damaged(MISSING))?;
        Ok(check(&RevRow::parse(id, row.value()).ok_or_else(|| damaged(MALFORMED))?))
    }
}

impl Store {
    /// [`Base::scrub_slice`] on the state as of the last commit.
    pub fn scrub_slice(&self, from: ScrubCursor, limit: usize) -> Result<ScrubProgress, StoreError> {
        self.base()?.scrub_slice(from, limit)
    }
}
