//! The operations that a client can ask for: range, put, delete, compare, transaction.
//!
//! Owns: their shape after parsing. Must never: hold what a request did not say (defaults are resolved at the edge).
//! Built by `api`, encoded by `codec`, executed by `mvcc`.

use bytes::Bytes;

use super::KeyRange;
use crate::ids::LeaseId;

/// A read of an interval (API reference, section 1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Which keys.
    pub range: KeyRange,
    /// At most this many keys; 0 or below is no limit.
    pub limit: i64,
    /// The revision to read at. Outside of a transaction 0 and below is the current one; inside only 0 is.
    pub revision: i64,
    /// The order of the answer.
    pub sort: Sort,
    /// Leave the values out.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
    /// Bounds on the revision of the last put, inclusive; 0 is no bound.
    pub min_mod_revision: i64,
    /// See `min_mod_revision`.
    pub max_mod_revision: i64,
    /// Bounds on the revision of the creating put, inclusive; 0 is no bound.
    pub min_create_revision: i64,
    /// See `min_create_revision`.
    pub max_create_revision: i64,
}

impl Range {
    /// A read of everything in `range` now, in key order.
    pub const fn all(range: KeyRange) -> Self {
        Self {
            range,
            limit: 0,
            revision: 0,
            sort: Sort { target: SortTarget::Key, order: SortOrder::None },
            keys_only: false,
            count_only: false,
            min_mod_revision: 0,
            max_mod_revision: 0,
            min_create_revision: 0,
            max_create_revision: 0,
        }
    }

    /// Whether any of the four revision bounds is set.
    pub const fn has_revision_filter(&self) -> bool {
        self.min_mod_revision != 0
            || self.max_mod_revision != 0
            || self.min_create_revision != 0
            || self.max_create_revision != 0
    }
}

/// The order of a range's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    /// What to sort by.
    pub target: SortTarget,
    /// Which way.
    pub order: SortOrder,
}

/// What a range is sorted by. Discriminants are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key = 0,
    /// The version counter.
    Version = 1,
    /// The create revision.
    Create = 2,
    /// The mod revision.
    Mod = 3,
    /// The value's bytes.
    Value = 4,
}

/// The direction of a sort. Discriminants are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum SortOrder {
    /// Key order for the key, ascending for every other target.
    #[default]
    None = 0,
    /// Ascending.
    Ascend = 1,
    /// Descending.
    Descend = 2,
}

/// A write of one key (API reference, section 1.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The key; never empty.
    pub key: Bytes,
    /// The new value; `None` keeps the current one (`ignore_value`).
    pub value: Option<Bytes>,
    /// What becomes of the key's lease.
    pub lease: LeaseChange,
    /// Answer with the version before.
    pub prev_kv: bool,
}

/// What a put does to the key's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    /// Attach to this lease; [`LeaseId::NONE`] detaches.
    Set(LeaseId),
    /// Keep the current attachment (`ignore_lease`).
    Keep,
}

/// A deletion of an interval (API reference, section 1.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRange {
    /// Which keys.
    pub range: KeyRange,
    /// Answer with the versions before.
    pub prev_kv: bool,
}

/// One condition of a transaction (API reference, section 1.6): every key of the interval must satisfy it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// Which keys.
    pub range: KeyRange,
    /// The relation that must hold between the stored field and `target`.
    pub result: CompareResult,
    /// The field and what it is compared with.
    pub target: CompareTarget,
}

/// The relation of a compare: stored field `result` given operand. Discriminants are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CompareResult {
    /// Equal.
    Equal = 0,
    /// The stored field is greater.
    Greater = 1,
    /// The stored field is less.
    Less = 2,
    /// Different.
    NotEqual = 3,
    /// A number that the API does not define: always holds, as in etcd.
    Unknown = 255,
}

/// The field of a compare and its operand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// The version counter.
    Version(i64),
    /// The create revision.
    Create(i64),
    /// The mod revision.
    Mod(i64),
    /// The value's bytes; never holds for a missing key.
    Value(Bytes),
    /// The lease.
    Lease(i64),
    /// A number that the API does not define: compares 0 with 0, as in etcd.
    Unknown,
}

/// Compares, then one of two branches (API reference, section 1.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold for `success` to run.
    pub compare: Vec<Compare>,
    /// Runs when all compares hold.
    pub success: Vec<Op>,
    /// Runs otherwise.
    pub failure: Vec<Op>,
}

impl Txn {
    /// Whether neither branch can write: all operations are ranges, none is a nested transaction.
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| matches!(op, Op::Range(_)))
    }

    /// Whether it names no key at all, nor does anything nested in it.
    pub fn touches_nothing(&self) -> bool {
        let mut ops = self.success.iter().chain(&self.failure);
        self.compare.is_empty() && ops.all(|op| matches!(op, Op::Txn(nested) if nested.touches_nothing()))
    }
}

/// One operation of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A read; sees the effects of the operations before it.
    Range(Range),
    /// A write.
    Put(Put),
    /// A deletion.
    DeleteRange(DeleteRange),
    /// A nested transaction; its compares were evaluated before the outermost one's first write.
    Txn(Txn),
}
