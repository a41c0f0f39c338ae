//! Ranges: every option of a read (API reference, section 1.2).
//!
//! Owns: limit, count, order, filters and what they mean together. Must never: fetch a value that is not returned or sorted
//! by. Driven by clients' reads through [`View::range`], and by transactions.

use bytes::Bytes;

use super::ReadError;
use super::rows::{Draft, signed};
use super::view::View;
use crate::command::{KeyRange, KeyValue, Range, RangeEnd, RangeResult, SortOrder, SortTarget};
use crate::ids::Revision;
use crate::store::StoreError;

/// What a range without a limit expects to find, to size its first copy out of the overlay.
const EXPECTED_UNLIMITED: usize = usize::MAX;

impl Range {
    /// The limit, where there is one.
    pub(super) fn limit(&self) -> Option<usize> {
        (self.limit > 0).then(|| usize::try_from(self.limit).unwrap_or(usize::MAX))
    }

    /// Whether the answer is in key order, ascending.
    pub(super) fn is_in_key_order(&self) -> bool {
        self.sort.target == SortTarget::Key && self.sort.order != SortOrder::Descend
    }

    /// Whether a version passes the four revision bounds.
    fn keeps(&self, kv: &KeyValue) -> bool {
        let within = |revision: Revision, min: i64, max: i64| {
            (min == 0 || revision.0 >= min) && (max == 0 || revision.0 <= max)
        };
        within(kv.mod_revision, self.min_mod_revision, self.max_mod_revision)
            && within(kv.create_revision, self.min_create_revision, self.max_create_revision)
    }
}

/// How many bytes of keys and values a read may still collect.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    max: usize,
    used: usize,
}

impl Allowance {
    /// As many as there are.
    pub const UNLIMITED: Self = Self::of(usize::MAX);

    /// So many bytes.
    pub const fn of(max: usize) -> Self {
        Self { max, used: 0 }
    }

    /// Bytes that were collected so far.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Counts bytes; false when they are too many.
    fn take(&mut self, bytes: usize) -> bool {
        self.used = self.used.saturating_add(bytes);
        self.used <= self.max
    }
}

/// What a pair without its value takes in an answer.
fn key_bytes(kv: &KeyValue) -> usize {
    size_of::<KeyValue>() + kv.key.len()
}

impl View {
    /// Answers a range outside of a transaction.
    pub fn range(&self, request: &Range) -> Result<RangeResult, ReadError> {
        let at = self.plain_revision(request.revision)?;
        Ok(self.range_at(request, at)?)
    }

    /// Answers a range outside of a transaction; `None` when the answer is larger than allowed.
    pub fn range_within(
        &self,
        request: &Range,
        allowance: &mut Allowance,
    ) -> Result<Option<RangeResult>, ReadError> {
        let at = self.plain_revision(request.revision)?;
        Ok(self.range_at_within(request, at, allowance)?)
    }

    /// Answers a range at a retained revision; the request's own is not looked at.
    pub(super) fn range_at(&self, request: &Range, at: Revision) -> Result<RangeResult, StoreError> {
        let result = self.range_at_within(request, at, &mut { Allowance::UNLIMITED })?;
        Ok(result.expect("there is no answer larger than that"))
    }

    /// The same; `None` when the answer is larger than allowed.
    pub(super) fn range_at_within(
        &self,
        request: &Range,
        at: Revision,
        allowance: &mut Allowance,
    ) -> Result<Option<RangeResult>, StoreError> {
        if request.count_only {
            let count = self.count(&request.range, at)?;
            return Ok(Some(RangeResult { count, ..RangeResult::default() }));
        }
        if request.is_in_key_order() && !request.has_revision_filter() {
            self.range_in_key_order(request, at, allowance)
        } else {
            self.range_arranged(request, at, allowance)
        }
    }

    /// Walks as far as the limit, and counts the rest without looking at it.
    fn range_in_key_order(
        &self,
        request: &Range,
        at: Revision,
        allowance: &mut Allowance,
    ) -> Result<Option<RangeResult>, StoreError> {
        let limit = request.limit().unwrap_or(usize::MAX);
        let expected = request.limit().map_or(EXPECTED_UNLIMITED, |limit| limit.saturating_add(1));
        let mut result = RangeResult::default();
        for row in self.rows(&request.range, at, expected)? {
            let row = row?;
            if result.kvs.len() == limit {
                result.more = true;
                result.count = self.count(&from_key(row.key().clone(), &request.range), at)?;
                break;
            }
            let draft = row.draft(&self.base)?;
            let kv = if request.keys_only { draft.strip() } else { draft.load(&self.base)? };
            if !allowance.take(key_bytes(&kv) + kv.value.len()) {
                return Ok(None);
            }
            result.kvs.push(kv);
        }
        result.count += signed(result.kvs.len() as u64);
        Ok(Some(result))
    }

    /// Walks the whole interval, filters, sorts, cuts, and only then fetches values.
    ///
    /// An order of "none" with another target than the key sorts the whole interval too, where etcd would sort what the limit
    /// left of it.
    fn range_arranged(
        &self,
        request: &Range,
        at: Revision,
        allowance: &mut Allowance,
    ) -> Result<Option<RangeResult>, StoreError> {
        let mut drafts = Vec::new();
        let mut count = 0;
        for row in self.rows(&request.range, at, EXPECTED_UNLIMITED)? {
            let mut draft = row?.draft(&self.base)?;
            count += 1;
            if request.keeps(&draft.kv) {
                if request.sort.target == SortTarget::Value {
                    draft.fetch(&self.base)?;
                }
                if !allowance.take(key_bytes(&draft.kv) + draft.kv.value.len()) {
                    return Ok(None);
                }
                drafts.push(draft);
            }
        }
        sort(&mut drafts, request);
        let limit = request.limit().unwrap_or(usize::MAX);
        let more = drafts.len() > limit;
        drafts.truncate(limit);
        let mut kvs = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let counted = draft.kv.value.len();
            let kv = if request.keys_only { draft.strip() } else { draft.load(&self.base)? };
            if !allowance.take(kv.value.len().saturating_sub(counted)) {
                return Ok(None);
            }
            kvs.push(kv);
        }
        Ok(Some(RangeResult { kvs, more, count }))
    }
}

/// Orders drafts, which come in key order; equal ones stay in it, in both directions.
fn sort(drafts: &mut [Draft], request: &Range) {
    if request.is_in_key_order() {
        return;
    }
    let compare = |a: &KeyValue, b: &KeyValue| match request.sort.target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    };
    if request.sort.order == SortOrder::Descend {
        drafts.sort_by(|a, b| compare(&b.kv, &a.kv));
    } else {
        drafts.sort_by(|a, b| compare(&a.kv, &b.kv));
    }
}

/// The part of an interval of more than one key that starts at `key`.
pub(super) fn from_key(key: Bytes, range: &KeyRange) -> KeyRange {
    assert!(range.end != RangeEnd::Single, "a single key has no rest");
    KeyRange { start: key, end: range.end.clone() }
}
