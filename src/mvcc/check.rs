//! What is decided about a request before it is proposed: its own shape, and its price.
//!
//! Owns: the rules of transactions that need no state (API reference, section 1.6), and the cost against the quota. Must never: be asked
//! again at apply, for its bounds are settings of one member. Driven by `api` and by the proposing side of `node`.

use std::collections::BTreeSet;

use crate::command::{Command, Intervals, LeaseCommand, Op, Put, Range, Txn};
use crate::limits::{LEASE_BYTES, PUT_OVERHEAD_BYTES, TXN_DEPTH_MAX};

/// What is wrong with a request whatever the state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// More operations than allowed, or nested too deep.
    #[error("too many operations in txn request")]
    TooManyOperations,
    /// A key is put twice, or put and deleted, where both may run.
    #[error("duplicate key given in txn request")]
    DuplicateKey,
    /// A streamed range in another order than the key's.
    #[error("RangeStream does not support custom sort orders")]
    StreamOrder,
    /// A streamed range with bounds on revisions.
    #[error("RangeStream does not support revision filters")]
    StreamFilter,
}

/// Checks the number of operations at all levels, then that no key is changed twice.
///
/// A level may have `operations_max` compares and as many operations in each branch. A nested transaction may have what the largest of its
/// parent's three lists leaves of that.
pub fn txn(txn: &Txn, operations_max: usize) -> Result<(), InvalidRequest> {
    operations(txn, operations_max, 1)?;
    changed_keys(&txn.success)?;
    changed_keys(&txn.failure)?;
    Ok(())
}

/// Checks that a range can be answered in pages.
pub fn range_stream(range: &Range) -> Result<(), InvalidRequest> {
    if !range.is_in_key_order() {
        return Err(InvalidRequest::StreamOrder);
    }
    if range.has_revision_filter() {
        return Err(InvalidRequest::StreamFilter);
    }
    Ok(())
}

/// What a command may add to the store at most, in bytes; 0 for commands that the NOSPACE alarm lets pass.
pub fn cost_of(command: &Command) -> u64 {
    match command {
        Command::Put(put) => cost_of_put(put),
        Command::Txn(txn) => cost_of_txn(txn),
        Command::Lease(LeaseCommand::Grant { .. }) => LEASE_BYTES,
        Command::DeleteRange(_)
        | Command::Compact { .. }
        | Command::Alarm { .. }
        | Command::Publish(_)
        | Command::Member(_)
        | Command::Charter(_)
        | Command::Auth(_)
        | Command::Raise(_)
        | Command::Lease(_) => 0,
    }
}

fn cost_of_put(put: &Put) -> u64 {
    let value = put.value.as_ref().map_or(0, bytes::Bytes::len);
    (put.key.len() + value) as u64 + PUT_OVERHEAD_BYTES
}

fn cost_of_txn(txn: &Txn) -> u64 {
    let branch = |ops: &[Op]| -> u64 {
        let costs = ops.iter().map(|op| match op {
            Op::Put(put) => cost_of_put(put),
            Op::Txn(nested) => cost_of_txn(nested),
            Op::Range(_) | Op::DeleteRange(_) => 0,
        });
        costs.sum()
    };
    branch(&txn.success).max(branch(&txn.failure))
}

fn operations(txn: &Txn, budget: usize, depth: usize) -> Result<(), InvalidRequest> {
    let largest = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    let left = budget.checked_sub(largest).ok_or(InvalidRequest::TooManyOperations)?;
    if depth > TXN_DEPTH_MAX {
        return Err(InvalidRequest::TooManyOperations);
    }
    for op in txn.success.iter().chain(&txn.failure) {
        if let Op::Txn(nested) = op {
            operations(nested, left, depth + 1)?;
        }
    }
    Ok(())
}

/// The keys that a branch puts, and the intervals that it deletes, nested transactions included.
#[derive(Default)]
struct Changed<'t> {
    puts: BTreeSet<&'t [u8]>,
    deletes: Intervals,
}

/// Collects what a branch changes, unless two of its operations that may both run change one key.
///
/// The rule is etcd's, and so is its order: deletes of this level, then nested transactions one after the other, then puts of this
/// level; each put is compared with what was collected before it. Hence a put in one nested transaction and a delete in a
/// later one pass. Deletes overlap freely. An interval without an end counts here; etcd overlooks it.
fn changed_keys(ops: &[Op]) -> Result<Changed<'_>, InvalidRequest> {
    let mut changed = Changed::default();
    for op in ops {
        if let Op::DeleteRange(delete) = op {
            changed.deletes.add(&delete.range);
        }
    }
    for op in ops {
        if let Op::Txn(nested) = op {
            changed.nest(changed_keys(&nested.success)?, changed_keys(&nested.failure)?)?;
        }
    }
    for op in ops {
        if let Op::Put(put) = op {
            changed.put(&put.key)?;
        }
    }
    Ok(changed)
}

impl<'t> Changed<'t> {
    fn put(&mut self, key: &'t [u8]) -> Result<(), InvalidRequest> {
        if self.deletes.contain(key) || !self.puts.insert(key) {
            return Err(InvalidRequest::DuplicateKey);
        }
        Ok(())
    }

    /// Adds a nested transaction. Only one of its branches runs, so they may change the same keys.
    fn nest(&mut self, success: Self, failure: Self) -> Result<(), InvalidRequest> {
        let only_in_failure = failure.puts.difference(&success.puts);
        for key in success.puts.iter().chain(only_in_failure) {
            self.put(key)?;
        }
        self.deletes.absorb(success.deletes);
        self.deletes.absorb(failure.deletes);
        Ok(())
    }
}

#[cfg(test)]
#[path = "check_test.rs"]
mod tests;
