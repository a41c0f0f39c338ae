//! Folding: the changes of a frozen generation become rows.
//!
//! Owns: which rows a change adds, replaces and removes. Must never: commit, or drop a version (compaction does).
//! Driven by [`super::Store::fold`].
//!
//! The index tables are written in key order, one descent per key: at random they would cost eight times the bytes.
//!
//! ```text
//! before: live k -> 5         changes: (8,0) put k   (9,0) delete k   (9,1) put k
//! after:  live k -> (9,1)     hist: (k,5,0)  (k,8,0)  (k,9,0 tombstone)
//! ```

use std::ops::Bound;

use redb::{Database, Durability, Table, WriteTransaction};

use super::base::MALFORMED;
use super::change_log::{ChangeLog, ChangeRef};
use super::error::StoreError;
use super::leases::{Attachments, write_leases};
use super::schema::{
    HIST, HIST_ROW_BYTES, HistKey, ID_BYTES, LIVE, LIVE_NAME, REV, hist_key, id_key, parse_live, write_hist,
    write_live, write_rev,
};
use super::types::{ChangeKind, FoldBatch, Head, Lease, Meta, SweepStep};
use crate::ids::{LeaseId, Revision, VersionId};

/// redb's page size.
pub const PAGE_BYTES: usize = 4096;

/// What a row adds to its key and value in its page, rounded up.
pub const ROW_OVERHEAD_BYTES: usize = 64;

/// How finely a transaction's room is handed out.
const PIECES_PER_STAGE: usize = 8;

/// The facts after `batch`, having checked that it continues `before`, at `first` or above.
pub fn facts_after(before: &Meta, batch: &FoldBatch, first: Revision) -> Meta {
    let after = &batch.meta;
    assert!(after.applied >= before.applied, "the applied index does not go back");
    assert!(after.revision >= before.revision, "the revision does not go back");
    assert!(after.compacted >= before.compacted, "the compacted revision does not go back");
    assert!(after.ever_compacted || !before.ever_compacted, "a compaction is not forgotten");
    assert!(after.compacted <= after.revision, "nothing is compacted before it happened");
    let mut last = before.revision;
    if let (Some(change), Some(end)) = (batch.changes.iter().next(), batch.changes.last()) {
        assert!(change.id.main >= first, "a change is folded once");
        last = end.id.main;
    }
    if let Some(sweep) = &batch.sweep {
        let mut mains = sweep.steps.iter().filter_map(SweepStep::first).map(|id| id.main).peekable();
        assert!(mains.peek().is_some_and(|main| *main > last), "a sweep has revisions of its own");
        last = mains.last().unwrap_or(last);
    }
    assert!(last <= after.revision, "the revision is that of the last change, or above");
    let added: u64 = batch.changes.iter().map(ChangeRef::stored_bytes).sum();
    Meta {
        bytes_in_use: before.bytes_in_use + added,
        compaction_finished: before.compaction_finished,
        ..after.clone()
    }
}

/// Writes the rows of the changes in `log` and of `leases`, and answers the transaction that the facts belong into, not committed yet.
///
/// A transaction is closed early, not durably, when the pages that it may have changed reach `dirty_bytes_max`. On
/// disk nothing of it counts before the last one. But redb visits every changed page once more when it commits, and by
/// then it has written out those that its write buffer had no room for: a fold in one piece that outgrows the buffer
/// writes every page twice.
pub fn write_rows<'db>(
    database: &'db Database,
    log: &ChangeLog,
    leases: &[(LeaseId, Option<Lease>)],
    dirty_bytes_max: usize,
) -> Result<Stages<'db>, StoreError> {
    let stages = Stages { database, txn: database.begin_write()?, dirty_bytes: 0, dirty_bytes_max };
    let mut stages = write_changes(stages, log)?;
    let mut rest = leases;
    while !rest.is_empty() {
        let (piece, cost) = take_piece(rest.iter().map(|_| (1, PAGE_BYTES)), dirty_bytes_max);
        stages = stages.with_room(cost)?;
        write_leases(&stages.txn, &rest[..piece])?;
        rest = &rest[piece..];
    }
    Ok(stages)
}

/// Writes the rows of changes, which come after all that there are.
pub fn write_changes<'db>(mut stages: Stages<'db>, log: &ChangeLog) -> Result<Stages<'db>, StoreError> {
    let dirty_bytes_max = stages.dirty_bytes_max;
    let mut next = 0;
    while next < log.len() {
        let costs = (next..log.len()).map(|place| (1, revision_cost(log.get(place))));
        let (piece, cost) = take_piece(costs, dirty_bytes_max);
        stages = stages.with_room(cost)?;
        append_revisions(&stages.txn, (next..next + piece).map(|place| log.get(place)))?;
        next += piece;
    }
    let by_key = places_by_key(log);
    let same_key = |a: &u32, b: &u32| at(log, *a).key == at(log, *b).key;
    let mut rest = by_key.as_slice();
    while !rest.is_empty() {
        let costs = rest.chunk_by(same_key).map(|of_key| (of_key.len(), key_cost(log, of_key)));
        let (piece, cost) = take_piece(costs, dirty_bytes_max);
        stages = stages.with_room(cost)?;
        let mut index = Index::open(&stages.txn)?;
        for of_key in rest[..piece].chunk_by(same_key) {
            index.write_key(log, of_key)?;
        }
        index.close(&stages.txn)?;
        rest = &rest[piece..];
    }
    Ok(stages)
}

/// The places of a log in order of their keys, those of one key in order.
fn places_by_key(log: &ChangeLog) -> Vec<u32> {
    let end = u32::try_from(log.len()).expect("a generation holds fewer than 2^32 changes");
    let mut places: Vec<u32> = (0..end).collect();
    places.sort_unstable_by(|a, b| at(log, *a).key.cmp(at(log, *b).key).then(a.cmp(b)));
    places
}

fn at(log: &ChangeLog, place: u32) -> ChangeRef<'_> {
    log.get(place as usize)
}

/// What a key costs at worst, in bytes of changed pages: a page of `live` and one of `hist` that no other key of the batch is in.
pub const INDEX_KEY_COST: usize = 2 * PAGE_BYTES;

/// What the changes of one key cost in the index tables. In `attached` it is a page at worst, where the key has to do with leases at
/// all; one that is only detached is not known beforehand, and goes into what a stage's estimate is too high by.
fn key_cost(log: &ChangeLog, of_key: &[u32]) -> usize {
    let names = |kind: &ChangeKind| matches!(kind, ChangeKind::Put { lease, .. } if *lease != LeaseId::NONE);
    let attachment = if of_key.iter().any(|place| names(at(log, *place).kind)) { PAGE_BYTES } else { 0 };
    let row = at(log, of_key[0]).key.len() * 3 / 2 + ROW_OVERHEAD_BYTES;
    of_key.len() * row + INDEX_KEY_COST + attachment
}

/// What a row of `rev` costs: itself, and what its page leaves empty.
fn revision_cost(change: ChangeRef<'_>) -> usize {
    let value = match change.kind {
        ChangeKind::Put { value, .. } => value.len(),
        ChangeKind::Delete => 0,
    };
    (change.key.len() + value) * 3 / 2 + ROW_OVERHEAD_BYTES
}

/// How much from the front to write in one go, and what it costs: some, up to a share of `dirty_bytes_max`. Items are how many rows they
/// stand for and what they cost.
fn take_piece(items: impl Iterator<Item = (usize, usize)>, dirty_bytes_max: usize) -> (usize, usize) {
    let (mut taken, mut sum) = (0, 0);
    for (count, cost) in items {
        if taken > 0 && sum + cost > dirty_bytes_max / PIECES_PER_STAGE {
            break;
        }
        taken += count;
        sum += cost;
    }
    (taken, sum)
}

/// The transactions of one fold, one after the other.
pub struct Stages<'db> {
    database: &'db Database,
    /// The last one, which is open.
    pub txn: WriteTransaction,
    dirty_bytes: usize,
    dirty_bytes_max: usize,
}

impl Stages<'_> {
    /// What is written in one go costs about so much at most.
    pub fn piece_cost_max(&self) -> usize {
        self.dirty_bytes_max / PIECES_PER_STAGE
    }

    /// Goes on to the next transaction where the present one has no room for `cost` bytes.
    pub fn with_room(mut self, cost: usize) -> Result<Self, StoreError> {
        if self.dirty_bytes > 0 && self.dirty_bytes + cost > self.dirty_bytes_max {
            self.txn.set_durability(Durability::None)?;
            self.txn.commit()?;
            self.txn = self.database.begin_write()?;
            self.dirty_bytes = 0;
        }
        self.dirty_bytes += cost;
        Ok(self)
    }
}

/// `rev` grows at its end only, so a cursor there fills page after page without searching.
pub fn append_revisions<'l>(
    txn: &WriteTransaction,
    changes: impl Iterator<Item = ChangeRef<'l>>,
) -> Result<(), StoreError> {
    let mut rev = txn.open_table(REV)?;
    let mut end = rev.upper_bound_mut(Bound::<&[u8; ID_BYTES]>::Unbounded)?;
    let mut row = Vec::new();
    for change in changes {
        let (id, change) = change.to_owned();
        write_rev(&mut row, id, &change);
        end.insert_before(&id_key(id), row.as_slice())?;
    }
    end.close()?;
    Ok(())
}

/// The two index tables, open for writing, and buffers that the rows are built in.
pub struct Index<'txn> {
    live: Table<'txn, &'static [u8], &'static [u8]>,
    hist: Table<'txn, HistKey, &'static [u8; HIST_ROW_BYTES]>,
    row: Vec<u8>,
    hist_key: Vec<u8>,
    attachments: Attachments,
}

impl<'txn> Index<'txn> {
    pub fn open(txn: &'txn WriteTransaction) -> Result<Self, StoreError> {
        let (live, hist) = (txn.open_table(LIVE)?, txn.open_table(HIST)?);
        let (row, hist_key, attachments) = (Vec::new(), Vec::new(), Attachments::default());
        Ok(Self { live, hist, row, hist_key, attachments })
    }

    /// The changes of one key, ascending: the last one is what `live` says of it, what was before goes to `hist`.
    pub fn write_key(&mut self, log: &ChangeLog, of_key: &[u32]) -> Result<(), StoreError> {
        let Some(change) = of_key.last().map(|place| at(log, *place)) else {
            return Ok(());
        };
        let (last, key) = (change.id, change.key.as_ref());
        let mut lease_after = LeaseId::NONE;
        let previous = match change.kind {
            ChangeKind::Put { create_revision, version, lease, .. } => {
                let (create_revision, version, lease) = (*create_revision, *version, *lease);
                write_live(&mut self.row, key, &Head { id: last, create_revision, version, lease });
                lease_after = lease;
                self.live.insert(key, self.row.as_slice())?
            }
            ChangeKind::Delete => self.live.remove(key)?,
        };
        let damaged = |what| StoreError::damaged(LIVE_NAME, key, what);
        let replaced = previous.map(|row| parse_live(key, row.value()).ok_or_else(|| damaged(MALFORMED)));
        let replaced = replaced.transpose()?;
        self.attachments.note(key, replaced.map_or(LeaseId::NONE, |head| head.lease), lease_after);
        if let Some(head) = replaced {
            if head.id >= last {
                return Err(damaged("is above the revision of the store"));
            }
            self.retain(key, head.id, false)?;
        }
        for change in of_key.iter().map(|place| at(log, *place)) {
            let tombstone = *change.kind == ChangeKind::Delete;
            if tombstone || change.id != last {
                self.retain(key, change.id, tombstone)?;
            }
        }
        Ok(())
    }

    /// Closes the tables, and writes what their keys have to do with leases.
    pub fn close(self, txn: &WriteTransaction) -> Result<(), StoreError> {
        self.attachments.write(txn)
    }

    fn retain(&mut self, key: &[u8], id: VersionId, tombstone: bool) -> Result<(), StoreError> {
        hist_key(&mut self.hist_key, key, id);
        let row = write_hist(&self.hist_key, tombstone);
        self.hist.insert(self.hist_key.as_slice(), &row)?;
        Ok(())
    }
}
