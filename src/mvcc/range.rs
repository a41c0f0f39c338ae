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

impl View {
    /// Answers a range outside of a transaction.
    pub fn range(&self, request: &Range) -> Result<RangeResult, ReadError> {
        let at = self.plain_revision(request.revision)?;
        Ok(self.range_at(request, at)?)
    }

    /// Answers a range at a retained revision; the request's own is not looked at.
    pub(super) fn range_at(&self, request: &Range, at: Revision) -> Result<RangeResult, StoreError> {
        if request.count_only {
            let count = self.count(&request.range, at)?;
            return Ok(RangeResult { count, ..RangeResult::default() });
        }
        if request.is_in_key_order() && !request.has_revision_filter() {
            self.range_in_key_order(request, at)
        } else {
            self.range_arranged(request, at)
        }
    }

    /// Walks as far as the limit, and counts the rest without looking at it.
    fn range_in_key_order(&self, request: &Range, at: Revision) -> Result<RangeResult, StoreError> {
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
            result.kvs.push(if request.keys_only { draft.strip() } else { draft.load(&self.base)? });
        }
        result.count += signed(result.kvs.len() as u64);
        Ok(result)
    }

    /// Walks the whole interval, filters, sorts, cuts, and only then fetches values.
    ///
    /// An order of "none" with another target than the key sorts the whole interval too, where etcd would sort what the limit
    /// left of it.
    fn range_arranged(&self, request: &Range, at: Revision) -> Result<RangeResult, StoreError> {
        let mut drafts = Vec::new();
        let mut count = 0;
        for row in self.rows(&request.range, at, EXPECTED_UNLIMITED)? {
            let mut draft = row?.draft(&self.base)?;
            count += 1;
            if request.keeps(&draft.kv) {
                if request.sort.target == SortTarget::Value {
                    draft.fetch(&self.base)?;
                }
                drafts.push(draft);
            }
        }
        sort(&mut drafts, request);
        let limit = request.limit().unwrap_or(usize::MAX);
        let more = drafts.len() > limit;
        drafts.truncate(limit);
        let finish =
            |draft: Draft| if request.keys_only { Ok(draft.strip()) } else { draft.load(&self.base) };
        let kvs = drafts.into_iter().map(finish).collect::<Result<_, _>>()?;
        Ok(RangeResult { kvs, more, count })
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
