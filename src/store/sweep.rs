//! Sweeping: very many keys become tombstones where they are.
//!
//! Owns: the order of a sweep's changes, and how many keys are in memory for it. Must never: commit, or leave out a key that is live. Driven by
//! a fold, behind the changes that come before.
//!
//! A sweep is part of its fold's commit: what a crash leaves has none of it, or all.

use bytes::Bytes;
use redb::{ReadableTable, WriteTransaction};

use super::base::MALFORMED;
use super::change_log::{ChangeLog, ChangeRef};
use super::error::StoreError;
use super::fold::{
    INDEX_KEY_COST, Index, PAGE_BYTES, ROW_OVERHEAD_BYTES, Stages, append_revisions, write_changes,
};
use super::leases::attached_in;
use super::schema::{ATTACHED, LIVE, LIVE_NAME, parse_live};
use super::types::{Change, ChangeKind, Doomed, Head, Meta, Sweep, SweepStep};
use crate::command::KeyRange;
use crate::ids::{LeaseId, VersionId};

/// Rows that a swept key is in, before or after: one of `live` and one of `rev`, two of `hist`.
const ROWS_PER_KEY: usize = 4;

/// Carries out a sweep, counts what it adds in `meta`, and answers the transaction that `meta` belongs into.
pub fn write_sweep(
    mut stages: Stages<'_>,
    sweep: &Sweep,
    meta: &mut Meta,
) -> Result<WriteTransaction, StoreError> {
    for step in &sweep.steps {
        match step {
            SweepStep::Changes(changes) => {
                meta.bytes_in_use += bytes_of(changes);
                stages = write_changes(stages, changes)?;
            }
            SweepStep::Delete { first, keys, count } => {
                stages = delete(stages, *first, keys, *count, meta)?;
            }
        }
    }
    Ok(stages.txn)
}

/// Deletes those keys that are live, from this id on.
fn delete<'db>(
    mut stages: Stages<'db>,
    first: VersionId,
    keys: &Doomed,
    count: u64,
    meta: &mut Meta,
) -> Result<Stages<'db>, StoreError> {
    let mut next = first;
    let mut left = count;
    let cost_max = stages.piece_cost_max();
    loop {
        stages = stages.with_room(cost_max)?;
        let doomed = match keys {
            Doomed::Interval(range) => next_of_interval(&stages.txn, range, cost_max)?,
            Doomed::Attached(lease) => next_attached(&stages.txn, *lease, cost_max)?,
        };
        if doomed.is_empty() && left == 0 {
            return Ok(stages);
        }
        let others = || StoreError::damaged_file("a deletion has found other keys than a reader before it");
        left = left.checked_sub(doomed.len() as u64).filter(|_| !doomed.is_empty()).ok_or_else(others)?;
        let deletion = |key| Change { key, kind: ChangeKind::Delete };
        let ids = (next.sub..).map(|sub| VersionId { sub, ..next });
        let piece: ChangeLog = ids.zip(doomed.into_iter().map(deletion)).collect();
        append_revisions(&stages.txn, piece.iter())?;
        let places = u32::try_from(piece.len()).expect("a piece is small");
        let mut index = Index::open(&stages.txn)?;
        for place in 0..places {
            index.write_key(&piece, &[place])?;
        }
        index.close(&stages.txn)?;
        meta.bytes_in_use += bytes_of(&piece);
        next.sub += places;
    }
}

fn bytes_of(changes: &ChangeLog) -> u64 {
    changes.iter().map(ChangeRef::stored_bytes).sum()
}

/// The first keys of the interval that are left: some, up to a cost.
fn next_of_interval(
    txn: &WriteTransaction,
    range: &KeyRange,
    cost_max: usize,
) -> Result<Vec<Bytes>, StoreError> {
    let mut piece = Vec::new();
    let Some(bounds) = range.bounds() else { return Ok(piece) };
    let live = txn.open_table(LIVE)?;
    let mut cost = 0;
    for row in live.range::<&[u8]>(bounds)? {
        let (key, row) = row?;
        let key = key.value();
        let head = parse_live(key, row.value());
        let head = head.ok_or_else(|| StoreError::damaged(LIVE_NAME, key, MALFORMED))?;
        cost += key_cost(key, &head);
        if cost > cost_max && !piece.is_empty() {
            break;
        }
        piece.push(Bytes::copy_from_slice(key));
    }
    Ok(piece)
}

/// The first keys of the lease that are left: some, up to a cost.
fn next_attached(txn: &WriteTransaction, lease: LeaseId, cost_max: usize) -> Result<Vec<Bytes>, StoreError> {
    let mut piece = Vec::new();
    let attached = txn.open_table(ATTACHED)?;
    let mut cost = 0;
    for key in attached_in(&attached, lease, &[])? {
        let key = key?;
        cost += rows_cost(&key) + INDEX_KEY_COST;
        if cost > cost_max && !piece.is_empty() {
            break;
        }
        piece.push(key);
    }
    Ok(piece)
}

/// What a key of an interval costs in bytes of changed pages. Its neighbours go too, so it shares all pages with them but the one where a lease
/// has it; of the keys of a lease it is the other way round.
fn key_cost(key: &[u8], head: &Head) -> usize {
    let attachment = if head.lease == LeaseId::NONE { 0 } else { PAGE_BYTES };
    rows_cost(key) + attachment
}

fn rows_cost(key: &[u8]) -> usize {
    ROWS_PER_KEY * (key.len() * 3 / 2 + ROW_OVERHEAD_BYTES)
}
