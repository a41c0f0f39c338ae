//! Physical compaction: removing what no reader may ask for any more, in slices.
//!
//! Owns: which rows go, and in which order. Must never: decide up to where (the facts that were folded say so), or
//! remove a version that a revision at or above that can see. Driven by the checkpoint thread between folds.
//!
//! Compacting to C keeps, of each key, the newest change at or below C and all above C; of those kept ones a tombstone
//! below C goes too (API reference, section 1.7). Only changes that `hist` names can go: each row of it is judged by
//! the one after it.
//!
//! ```text
//! C = 7      hist of k: 2  4  7† 9        live k -> 12      gone: 2 (4 is newer), 4 (7 is newer); kept: 7† (exactly at C), 9
//!            hist of m: 3  5              live m -> 6       gone: 3, and 5, because the head at 6 is at or below C
//!            hist of n: 3  5†             (no head)         gone: 3, 5†
//! ```
//!
//! # The order of work
//!
//! `hist` is ordered by key and `rev` by revision, and a row removed at random costs a whole page written. So the work
//! goes in rounds:
//!
//! ```text
//! gather   walk hist, note the ids of what goes, until there are many (or hist ends)        reads only
//! changes  remove the noted ids from rev, ascending: neighbours share pages                  rev, byte count
//! index    walk the same stretch of hist again, remove the rows whose ids were noted         hist
//! ```
//!
//! # What a crash leaves
//!
//! The walk is in memory only, so a restart begins it again. Changes go before the index rows that name them: what a
//! crash leaves is rows of `hist` without a change, which the next walk notes again. The other order would leave
//! changes that nothing ever finds. Byte count and changes are in one commit, and a judgement stands: no change that a
//! later fold adds is at or below C.

use std::ops::Bound;

use redb::WriteTransaction;

use super::base::{Base, MALFORMED, MISSING, parse_hist_row};
use super::error::StoreError;
use super::schema::{HIST, HIST_NAME, ID_BYTES, REV, REV_NAME, RevRow, id_key, parse_id};
use super::types::Meta;
use super::writer::{Store, Sureness};
use crate::ids::{Revision, VersionId};

/// Ids that a round notes; they are 12 bytes each. More means fewer pages written, because a page of `rev` loses more
/// rows at once. Few in tests, so that small compactions have several rounds.
const ROUND_IDS_MAX: usize = if cfg!(test) { 10 } else { 128 * 1024 };

/// Rows that a slice may look at for each one that it may remove; bounds a slice where little is to be removed.
const LOOKS_PER_REMOVAL: usize = 16;

/// Removals after which a slice is made durable: until then the pages that it and the slices before it freed are not
/// reused, and pages that several slices change are written once. Few in tests, so that crashes meet compactions that
/// are half durable.
const REMOVALS_PER_SYNC: usize = if cfg!(test) { 6 } else { 16 * 1024 };

/// What a slice did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionProgress {
    /// Changes removed by this slice; none in a slice that only looked or cleared the index.
    pub removed: usize,
    /// Whether nothing at or below [`Meta::compacted`] is left to remove.
    pub finished: bool,
}

/// A compaction under way.
#[derive(Debug)]
pub(super) struct Walk {
    /// The revision that it compacts to.
    target: Revision,
    phase: Phase,
    /// What this round removes, as keys of `rev`; ascending once gathered.
    ids: Vec<[u8; ID_BYTES]>,
    /// The row of `hist` behind which the round's stretch begins.
    start: Option<Vec<u8>>,
    /// The last row of the stretch that was looked at in this phase.
    position: Option<Vec<u8>>,
    /// The last row of the stretch; none where that is the table's last.
    end: Option<Vec<u8>>,
    /// Removals that are not durable yet.
    unsynced: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Gather,
    Changes { removed: usize },
    Index,
}

impl Store {
    /// Does a slice of the compaction that the facts ask for: at most `limit` rows are removed. Call until finished,
    /// at any pace, with folds in between.
    ///
    /// A compaction that has begun is completed before a later one begins, so that frequent ones cannot starve it.
    pub fn compact_slice(&mut self, limit: usize) -> Result<CompactionProgress, StoreError> {
        assert!(limit > 0, "a slice that may remove nothing does not end");
        self.check_usable()?;
        let compacted = self.meta().compacted;
        if self.meta().compaction_finished == compacted {
            return Ok(CompactionProgress { removed: 0, finished: true });
        }
        let mut walk = self.walk.take().unwrap_or_else(|| Walk::to(compacted));
        let mut removed = 0;
        let ended = match walk.phase {
            Phase::Gather => {
                walk.gather(&self.base()?, limit)?;
                let nothing_left = walk.phase == Phase::Index && walk.ids.is_empty();
                if nothing_left {
                    self.commit_slice(&mut walk, 0, true, |_, _| Ok(()))?;
                }
                nothing_left
            }
            Phase::Changes { removed: before } => {
                removed = limit.min(walk.ids.len() - before);
                let ids = std::mem::take(&mut walk.ids);
                let slice = &ids[before..before + removed];
                self.commit_slice(&mut walk, removed, false, |txn, meta| remove_changes(txn, slice, meta))?;
                walk.ids = ids;
                walk.changes_removed(before + removed);
                false
            }
            Phase::Index => {
                let (rows, passed) = walk.find_index_rows(&self.base()?, limit)?;
                let ended = passed && walk.end.is_none();
                if !rows.is_empty() || ended {
                    self.commit_slice(&mut walk, rows.len(), ended, |txn, _| remove_index_rows(txn, &rows))?;
                }
                if passed {
                    walk.next_round();
                }
                ended
            }
        };
        self.walk = (!ended).then_some(walk);
        Ok(CompactionProgress { removed, finished: self.meta().compaction_finished == compacted })
    }

    /// Commits a slice: durably at the end and when much has gathered, otherwise along with the next durable commit.
    fn commit_slice(
        &mut self,
        walk: &mut Walk,
        removals: usize,
        ended: bool,
        write: impl FnOnce(&WriteTransaction, &mut Meta) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut meta = self.meta().clone();
        if ended {
            meta.compaction_finished = walk.target;
        }
        self.complete_from = self.complete_from.max(walk.target);
        walk.unsynced += removals;
        let sureness = if ended || walk.unsynced >= REMOVALS_PER_SYNC {
            walk.unsynced = 0;
            Sureness::Durable
        } else {
            Sureness::Deferred
        };
        self.commit(meta, sureness, write)
    }
}

impl Walk {
    fn to(target: Revision) -> Self {
        let (phase, ids) = (Phase::Gather, Vec::new());
        Self { target, phase, ids, start: None, position: None, end: None, unsynced: 0 }
    }

    /// Looks on from `position` and notes what goes; ends the phase when the round is full or the table ends.
    fn gather(&mut self, base: &Base, limit: usize) -> Result<(), StoreError> {
        let start = self.position.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut rows = base.hist.range::<&[u8]>((start, Bound::Unbounded))?;
        let mut next = rows.next().transpose()?;
        let mut looks = 0;
        while let Some((raw_key, row)) = next {
            let (key, id, tombstone) = parse_hist_row(raw_key.value(), *row.value())?;
            next = rows.next().transpose()?;
            if id.main <= self.target {
                let newer = match &next {
                    Some((raw_key, row)) => Some(parse_hist_row(raw_key.value(), *row.value())?),
                    None => None,
                };
                let newer = newer.and_then(|(next_key, next_id, _)| (next_key == key).then_some(next_id));
                if is_doomed(base, self.target, key, (id, tombstone), newer)? {
                    self.ids.push(id_key(id));
                }
            }
            looks += 1;
            let full = self.ids.len() == ROUND_IDS_MAX;
            if next.is_some() && (full || looks == limit.saturating_mul(LOOKS_PER_REMOVAL)) {
                self.position = Some(raw_key.value().to_vec());
                if full {
                    self.end.clone_from(&self.position);
                    self.gathered();
                }
                return Ok(());
            }
        }
        self.end = None;
        self.gathered();
        Ok(())
    }

    fn gathered(&mut self) {
        self.ids.sort_unstable();
        self.changes_removed(0);
    }

    fn changes_removed(&mut self, removed: usize) {
        self.phase = Phase::Changes { removed };
        if removed == self.ids.len() {
            self.phase = Phase::Index;
            self.position.clone_from(&self.start);
        }
    }

    /// Finds rows of `hist` whose changes this round removed; the flag says whether the stretch has been passed.
    fn find_index_rows(&mut self, base: &Base, limit: usize) -> Result<(Vec<Vec<u8>>, bool), StoreError> {
        let start = self.position.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let end = self.end.as_deref().map_or(Bound::Unbounded, Bound::Included);
        let mut found = Vec::new();
        if self.position.is_some() && self.position == self.end {
            return Ok((found, true));
        }
        let mut looks = limit.saturating_mul(LOOKS_PER_REMOVAL);
        for row in base.hist.range::<&[u8]>((start, end))? {
            let (raw_key, row) = row?;
            let (_, id, _) = parse_hist_row(raw_key.value(), *row.value())?;
            if self.ids.binary_search(&id_key(id)).is_ok() {
                found.push(raw_key.value().to_vec());
            }
            looks -= 1;
            if looks == 0 || found.len() == limit {
                self.position = Some(raw_key.value().to_vec());
                return Ok((found, false));
            }
        }
        Ok((found, true))
    }

    fn next_round(&mut self) {
        self.phase = Phase::Gather;
        self.ids.clear();
        self.start = self.end.take();
        self.position.clone_from(&self.start);
    }
}

/// Judges a row at or below `target` by `newer`, the next row of the same key.
fn is_doomed(
    base: &Base,
    target: Revision,
    key: &[u8],
    (id, tombstone): (VersionId, bool),
    newer: Option<VersionId>,
) -> Result<bool, StoreError> {
    if newer.is_some_and(|newer| newer.main <= target) || (tombstone && id.main < target) {
        return Ok(true);
    }
    if newer.is_some() {
        return Ok(false);
    }
    Ok(base.head(key)?.is_some_and(|head| head.id.main <= target))
}

/// Removes changes and takes them off the byte count. One that is not there was removed before a crash.
fn remove_changes(txn: &WriteTransaction, ids: &[[u8; ID_BYTES]], meta: &mut Meta) -> Result<(), StoreError> {
    let mut rev = txn.open_table(REV)?;
    for key in ids {
        let Some(row) = rev.remove(key)? else {
            continue;
        };
        let damaged = || StoreError::damaged(REV_NAME, key, MALFORMED);
        let id = parse_id(key).ok_or_else(damaged)?;
        let stored = RevRow::parse(id, row.value()).ok_or_else(damaged)?.stored_bytes();
        let rest = meta.bytes_in_use.checked_sub(stored);
        meta.bytes_in_use = rest.ok_or_else(|| StoreError::damaged_file("bytes in use are miscounted"))?;
    }
    Ok(())
}

fn remove_index_rows(txn: &WriteTransaction, rows: &[Vec<u8>]) -> Result<(), StoreError> {
    let mut hist = txn.open_table(HIST)?;
    for raw_key in rows {
        if hist.remove(raw_key.as_slice())?.is_none() {
            return Err(StoreError::damaged(HIST_NAME, raw_key, MISSING));
        }
    }
    Ok(())
}
