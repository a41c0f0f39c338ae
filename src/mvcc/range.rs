//! Ranges: every option of a read (API reference, section 1.2).
//!
//! Owns: limit, count, order, filters and what they mean together. Must never: fetch a value that is not returned or sorted
//! by. Driven by clients' reads through [`View::range`] or, in portions, [`View::continue_range`], and by transactions.

use std::collections::VecDeque;

use bytes::Bytes;

use super::ReadError;
use super::rows::{Count, Draft, Step, signed};
use super::view::View;
use crate::command::{KeyRange, KeyValue, Range, RangeEnd, RangeResult, SortOrder, SortTarget};
use crate::ids::Revision;
use crate::store::StoreError;

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

    /// None: nobody waits for what would be read.
    pub const NOTHING: Self = Self::of(0);

    /// Whether anything is to be collected.
    pub(super) fn is_wanted(&self) -> bool {
        self.max > 0
    }

    /// Bytes that were collected so far.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Counts bytes; false when they are too many.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
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
        let mut reading = RangeReading::new(request.clone(), at);
        loop {
            match reading.step(self, Portion::ALL, allowance)? {
                Progress::More => {}
                Progress::Done(()) => return Ok(Some(reading.result)),
                Progress::TooLarge => return Ok(None),
            }
        }
    }

    /// Begins a range that is read in portions by [`View::continue_range`], all from this view.
    pub fn begin_range(&self, request: Range) -> Result<RangeReading, ReadError> {
        let at = self.plain_revision(request.revision)?;
        Ok(RangeReading::new(request, at))
    }

    /// Reads the next portion; the whole answer once that was the last. All portions together answer as [`View::range`] does.
    pub fn continue_range(
        &self,
        reading: &mut RangeReading,
        portion: Portion,
        allowance: &mut Allowance,
    ) -> Result<Progress<RangeResult>, ReadError> {
        let progress = reading.step(self, portion, allowance)?;
        Ok(progress.map(|()| std::mem::take(&mut reading.result)))
    }
}

/// How far a read in portions has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<T> {
    /// There is more to read.
    More,
    /// This is all.
    Done(T),
    /// The answer is larger than allowed.
    TooLarge,
}

impl<T> Progress<T> {
    /// The same of what is made of the answer.
    pub fn map<U>(self, make: impl FnOnce(T) -> U) -> Progress<U> {
        match self {
            Self::More => Progress::More,
            Self::Done(answer) => Progress::Done(make(answer)),
            Self::TooLarge => Progress::TooLarge,
        }
    }
}

/// How much of a range is read in one go; at least one key is.
#[derive(Clone, Copy, Debug)]
pub struct Portion {
    /// Keys that are looked at.
    pub keys: usize,
    /// Bytes of keys and values that are fetched, beyond which no further key is.
    pub bytes: usize,
}

impl Portion {
    /// Everything.
    pub const ALL: Self = Self { keys: usize::MAX, bytes: usize::MAX };

    pub(super) fn is_used_up(self, keys: usize, bytes: usize) -> bool {
        keys > 0 && (keys >= self.keys || bytes >= self.bytes)
    }
}

/// A range that is being read.
///
/// ```text
/// in key order    walk, fetching values, as far as the limit; then count the rest without looking at its values
/// else            walk the whole interval and filter; then sort and cut; then fetch values
/// ```
///
/// An order of "none" with another target than the key sorts the whole interval too, where etcd would sort what the limit left of it.
pub struct RangeReading {
    request: Range,
    at: Revision,
    /// What is left to walk; `None` behind the end.
    rest: Option<KeyRange>,
    /// What was kept of a range that is not in key order: all of it until it is walked, then what has no value yet.
    drafts: VecDeque<Draft>,
    /// The keys behind the limit, or all of them where only their number is asked for.
    count: Option<Count>,
    result: RangeResult,
}

impl RangeReading {
    fn new(request: Range, at: Revision) -> Self {
        let rest = Some(request.range.clone());
        Self { request, at, rest, drafts: VecDeque::new(), count: None, result: RangeResult::default() }
    }

    fn limit(&self) -> usize {
        self.request.limit().unwrap_or(usize::MAX)
    }

    /// One portion into the result.
    fn step(
        &mut self,
        view: &View,
        portion: Portion,
        allowance: &mut Allowance,
    ) -> Result<Progress<()>, StoreError> {
        let in_order = self.request.is_in_key_order() && !self.request.has_revision_filter();
        if let Some(count) = &mut self.count {
            let Some(behind) = view.continue_count(count)? else { return Ok(Progress::More) };
            self.result.count = signed(self.result.kvs.len() as u64) + behind;
            return Ok(Progress::Done(()));
        }
        match self.rest.take() {
            Some(rest) if self.request.count_only => {
                self.count = Some(view.begin_count(rest, self.at));
                Ok(Progress::More)
            }
            Some(rest) if in_order => self.walk_in_order(view, &rest, portion, allowance),
            Some(rest) => self.walk_all(view, &rest, portion, allowance),
            None => self.fetch(view, portion, allowance),
        }
    }

    fn walk_in_order(
        &mut self,
        view: &View,
        rest: &KeyRange,
        portion: Portion,
        allowance: &mut Allowance,
    ) -> Result<Progress<()>, StoreError> {
        let limit = self.limit();
        let expected = portion.keys.min(limit - self.result.kvs.len()).saturating_add(1);
        let (mut keys, mut bytes) = (0, 0);
        for step in view.steps(rest, self.at, expected)? {
            let row = match step? {
                Step::Row(row) => row,
                Step::Pause(key) => {
                    self.rest = Some(from_key(key, rest));
                    return Ok(Progress::More);
                }
            };
            if self.result.kvs.len() == limit {
                self.result.more = true;
                self.count = Some(view.begin_count(from_key(row.key().clone(), rest), self.at));
                return Ok(Progress::More);
            }
            if portion.is_used_up(keys, bytes) {
                self.rest = Some(from_key(row.key().clone(), rest));
                return Ok(Progress::More);
            }
            let kv = finish(row.draft(&view.base)?, &self.request, view)?;
            let taken = key_bytes(&kv) + kv.value.len();
            if !allowance.take(taken) {
                return Ok(Progress::TooLarge);
            }
            keys += 1;
            bytes += taken;
            self.result.kvs.push(kv);
        }
        self.result.count = signed(self.result.kvs.len() as u64);
        Ok(Progress::Done(()))
    }

    fn walk_all(
        &mut self,
        view: &View,
        rest: &KeyRange,
        portion: Portion,
        allowance: &mut Allowance,
    ) -> Result<Progress<()>, StoreError> {
        let (mut keys, mut bytes) = (0, 0);
        for step in view.steps(rest, self.at, portion.keys.saturating_add(1))? {
            let row = match step? {
                Step::Row(row) => row,
                Step::Pause(key) => {
                    self.rest = Some(from_key(key, rest));
                    return Ok(Progress::More);
                }
            };
            if portion.is_used_up(keys, bytes) {
                self.rest = Some(from_key(row.key().clone(), rest));
                return Ok(Progress::More);
            }
            let mut draft = row.draft(&view.base)?;
            keys += 1;
            self.result.count += 1;
            if self.request.keeps(&draft.kv) {
                if self.request.sort.target == SortTarget::Value {
                    draft.fetch(&view.base)?;
                }
                let taken = key_bytes(&draft.kv) + draft.kv.value.len();
                if !allowance.take(taken) {
                    return Ok(Progress::TooLarge);
                }
                bytes += taken;
                self.drafts.push_back(draft);
            }
        }
        sort(self.drafts.make_contiguous(), &self.request);
        self.result.more = self.drafts.len() > self.limit();
        self.drafts.truncate(self.limit());
        Ok(Progress::More)
    }

    fn fetch(
        &mut self,
        view: &View,
        portion: Portion,
        allowance: &mut Allowance,
    ) -> Result<Progress<()>, StoreError> {
        let (mut keys, mut bytes) = (0, 0);
        while !portion.is_used_up(keys, bytes) {
            let Some(draft) = self.drafts.pop_front() else { return Ok(Progress::Done(())) };
            let counted = draft.kv.value.len();
            let kv = finish(draft, &self.request, view)?;
            if !allowance.take(kv.value.len().saturating_sub(counted)) {
                return Ok(Progress::TooLarge);
            }
            keys += 1;
            bytes += key_bytes(&kv) + kv.value.len();
            self.result.kvs.push(kv);
        }
        Ok(Progress::More)
    }
}

/// What is returned of a row.
fn finish(draft: Draft, request: &Range, view: &View) -> Result<KeyValue, StoreError> {
    if request.keys_only { Ok(draft.strip()) } else { draft.load(&view.base) }
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
