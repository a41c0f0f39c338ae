//! A range in pages, all at one revision of one view (API reference, section 1.3).
//!
//! Owns: where a page ends and the next begins. Must never: hold more than a page. Driven by streamed ranges; between pages nothing
//! is kept open but the view, so writers and compactions go on.

use std::sync::Arc;

use bytes::Bytes;

use super::ReadError;
use super::range::from_key;
use super::rows::{Count, Step, signed};
use super::view::View;
use crate::command::{KeyRange, KeyValue, Range};
use crate::ids::Revision;

/// A range that is read page by page. The pages together are what [`View::range`] would have answered.
pub struct RangePages {
    view: Arc<View>,
    request: Range,
    at: Revision,
    /// What is left of the interval; `None` after the last page.
    rest: Option<KeyRange>,
    /// What is left of the limit.
    limit: usize,
    returned: i64,
    /// The keys behind the limit, or all of them where only their number is asked for.
    count: Option<Count>,
}

/// One page of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The next keys, in key order.
    pub kvs: Vec<KeyValue>,
    /// On the last page, and only there: what concerns all of them.
    pub end: Option<PagesEnd>,
}

/// What the last page adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagesEnd {
    /// Whether the limit cut something off.
    pub more: bool,
    /// Keys in the interval, whatever the limit.
    pub count: i64,
}

impl RangePages {
    /// Starts to read. The request must have passed [`check::range_stream`](super::check::range_stream): key order, no revision bounds.
    pub fn new(view: Arc<View>, request: Range) -> Result<Self, ReadError> {
        assert!(
            request.is_in_key_order() && !request.has_revision_filter(),
            "only ranges in key order have pages"
        );
        let at = view.plain_revision(request.revision)?;
        let rest = Some(request.range.clone());
        let limit = request.limit().unwrap_or(usize::MAX);
        Ok(Self { view, request, at, rest, limit, returned: 0, count: None })
    }

    /// The view that all pages are read from.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Whether all pairs were returned, and what is left is to count the keys behind the limit.
    pub fn is_counting(&self) -> bool {
        self.count.is_some()
    }

    /// The next page: at most `keys` keys (at least one is taken), and keys and values of at most `bytes` bytes unless a
    /// single pair is larger. One that is not the last may be empty, where the search for the next key takes long. `None` after the last one.
    pub fn next_page(&mut self, keys: usize, bytes: usize) -> Result<Option<Page>, ReadError> {
        if let Some(mut count) = self.count.take() {
            let Some(behind) = self.view.continue_count(&mut count)? else {
                self.count = Some(count);
                return Ok(Some(Page { kvs: Vec::new(), end: None }));
            };
            let end =
                PagesEnd { more: !self.request.count_only && behind > 0, count: self.returned + behind };
            return Ok(Some(Page { kvs: Vec::new(), end: Some(end) }));
        }
        let Some(rest) = self.rest.take() else { return Ok(None) };
        if self.request.count_only {
            self.count = Some(self.view.begin_count(rest, self.at));
            return Ok(Some(Page { kvs: Vec::new(), end: None }));
        }
        let keys = keys.clamp(1, self.limit);
        let mut kvs: Vec<KeyValue> = Vec::new();
        let mut size = 0;
        let mut cut: Option<Bytes> = None;
        for step in self.view.steps(&rest, self.at, keys.saturating_add(1))? {
            let row = match step? {
                Step::Row(row) => row,
                Step::Pause(key) => {
                    cut = Some(key);
                    break;
                }
            };
            if kvs.len() == keys {
                cut = Some(row.key().clone());
                break;
            }
            let draft = row.draft(&self.view.base)?;
            let kv = if self.request.keys_only { draft.strip() } else { draft.load(&self.view.base)? };
            size += kv.key.len() + kv.value.len();
            if size > bytes && !kvs.is_empty() {
                cut = Some(kv.key);
                break;
            }
            kvs.push(kv);
        }
        self.limit -= kvs.len();
        self.returned += signed(kvs.len() as u64);
        let end = match cut.map(|key| from_key(key, &rest)) {
            None => Some(PagesEnd { more: false, count: self.returned }),
            Some(rest) => {
                if self.limit == 0 {
                    self.count = Some(self.view.begin_count(rest, self.at));
                } else {
                    self.rest = Some(rest);
                }
                None
            }
        };
        Ok(Some(Page { kvs, end }))
    }
}
