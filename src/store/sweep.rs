//! Sweeping: the keys of an interval become tombstones where they are.
//!
//! Owns: the order of a sweep's changes, and how many keys are in memory for it. Must never: commit, or leave out a key that is live. Driven by
//! a fold, behind the changes that come before.
//!
//! A sweep is part of its fold's commit: what a crash leaves has none of it, or all.

use redb::{ReadableTable, WriteTransaction};

use super::base::MALFORMED;
use super::change_log::{ChangeLog, ChangeRef};
use super::error::StoreError;
use super::fold::{Index, PAGE_BYTES, ROW_OVERHEAD_BYTES, Stages, append_revisions};
use super::schema::{LIVE, LIVE_NAME, parse_live};
use super::types::{Change, ChangeKind, Head, Meta, Sweep};
use crate::command::KeyRange;
use crate::ids::{LeaseId, VersionId};

/// Rows that a swept key is in, before or after: one of `live` and one of `rev`, two of `hist`.
const ROWS_PER_KEY: usize = 4;

/// Deletes the live keys of the interval at the revision of `meta`, counts that there, and answers the transaction that it belongs into.
pub fn write_sweep(
    mut stages: Stages<'_>,
    sweep: &Sweep,
    meta: &mut Meta,
) -> Result<WriteTransaction, StoreError> {
    let mut next = VersionId::first_of(meta.revision);
    let cost_max = stages.piece_cost_max();
    loop {
        stages = stages.with_room(cost_max)?;
        let piece = next_piece(&stages.txn, &sweep.range, next, cost_max)?;
        if piece.is_empty() {
            break;
        }
        append_revisions(&stages.txn, piece.iter())?;
        let places = u32::try_from(piece.len()).expect("a piece is small");
        let mut index = Index::open(&stages.txn)?;
        for place in 0..places {
            index.write_key(&piece, &[place])?;
        }
        index.close(&stages.txn)?;
        meta.bytes_in_use += piece.iter().map(ChangeRef::stored_bytes).sum::<u64>();
        next.sub += places;
    }
    if u64::from(next.sub) != sweep.keys {
        return Err(StoreError::damaged_file("a deletion has found other keys than a reader before it"));
    }
    Ok(stages.txn)
}

/// The first keys of the interval that are left, as deletions from `first` on: some, up to a cost.
fn next_piece(
    txn: &WriteTransaction,
    range: &KeyRange,
    first: VersionId,
    cost_max: usize,
) -> Result<ChangeLog, StoreError> {
    let mut piece = ChangeLog::default();
    let Some(bounds) = range.bounds() else { return Ok(piece) };
    let live = txn.open_table(LIVE)?;
    let mut cost = 0;
    for (sub, row) in (first.sub..).zip(live.range::<&[u8]>(bounds)?) {
        let (key, row) = row?;
        let key = key.value();
        let head = parse_live(key, row.value());
        let head = head.ok_or_else(|| StoreError::damaged(LIVE_NAME, key, MALFORMED))?;
        cost += key_cost(key, &head);
        if cost > cost_max && !piece.is_empty() {
            break;
        }
        let key = bytes::Bytes::copy_from_slice(key);
        piece.push(VersionId { sub, ..first }, Change { key, kind: ChangeKind::Delete });
    }
    Ok(piece)
}

/// What a key costs in bytes of changed pages. Its neighbours go too, so it shares all pages with them but the one where a lease has it.
fn key_cost(key: &[u8], head: &Head) -> usize {
    let attachment = if head.lease == LeaseId::NONE { 0 } else { PAGE_BYTES };
    ROWS_PER_KEY * (key.len() * 3 / 2 + ROW_OVERHEAD_BYTES) + attachment
}
