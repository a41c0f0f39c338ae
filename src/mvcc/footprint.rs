//! Whether what a transaction writes is worth keeping its log entry in memory for.
//!
//! Owns: that estimate. Must never: influence a result. Driven by the writer.
//!
//! The keys and values of a decoded command are slices of its log entry, so a change in the overlay keeps the whole entry alive, while it
//! counts its own bytes only. For a put the two are nearly equal. A transaction may carry large compares or a large branch that does not
//! run: then what is written is copied out, so that the overlay's bound is a bound.

use std::slice::Iter;

use bytes::Bytes;

use super::writer::{branch, next_choice};
use crate::command::{Compare, CompareTarget, KeyRange, Op, Put, RangeEnd, Txn};

/// A change may keep this many times its own bytes.
const EXCESS_MAX: usize = 2;

/// Whether the puts along `path` are too small a part of the transaction to share its bytes.
pub(super) fn wants_copies(txn: &Txn, path: &[bool]) -> bool {
    written(txn, &mut path.iter()) * EXCESS_MAX < carried(txn)
}

fn written(txn: &Txn, path: &mut Iter<'_, bool>) -> usize {
    let ops = branch(txn, next_choice(path)).iter();
    let sizes = ops.map(|op| match op {
        Op::Put(put) => size_of_put(put),
        Op::Txn(nested) => written(nested, path),
        Op::Range(_) | Op::DeleteRange(_) => 0,
    });
    sizes.sum()
}

fn carried(txn: &Txn) -> usize {
    let ops = txn.success.iter().chain(&txn.failure).map(|op| match op {
        Op::Put(put) => size_of_put(put),
        Op::Txn(nested) => carried(nested),
        Op::Range(range) => size_of_range(&range.range),
        Op::DeleteRange(delete) => size_of_range(&delete.range),
    });
    ops.sum::<usize>() + txn.compare.iter().map(size_of_compare).sum::<usize>()
}

fn size_of_put(put: &Put) -> usize {
    put.key.len() + put.value.as_ref().map_or(0, Bytes::len)
}

fn size_of_compare(compare: &Compare) -> usize {
    let operand = if let CompareTarget::Value(value) = &compare.target { value.len() } else { 0 };
    size_of_range(&compare.range) + operand
}

fn size_of_range(range: &KeyRange) -> usize {
    let end = if let RangeEnd::Before(end) = &range.end { end.len() } else { 0 };
    range.start.len() + end
}
