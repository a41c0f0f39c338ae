//! A set of keys made of single keys and of intervals.
//!
//! Owns: how intervals join. Must never: grow with the keys that there are. Used for what a transaction deletes, and for what a role may read or write.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;

use super::{KeyRange, RangeEnd};

/// The set; intervals that touch are one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Intervals {
    points: BTreeSet<Bytes>,
    /// From a start to its end; `None` is no end.
    spans: BTreeMap<Bytes, Option<Bytes>>,
}

/// Where an interval ends; the later end is the greater one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpanEnd<'a> {
    /// Right before this key.
    Before(&'a Bytes),
    /// Nowhere.
    Unbounded,
}

impl Intervals {
    /// Adds an interval.
    pub fn add(&mut self, range: &KeyRange) {
        let start = range.start.clone();
        match &range.end {
            RangeEnd::Single => {
                self.points.insert(start);
            }
            RangeEnd::Before(_) if range.is_empty() => {}
            RangeEnd::Before(end) => self.add_span(start, Some(end.clone())),
            RangeEnd::Unbounded => self.add_span(start, None),
        }
    }

    fn add_span(&mut self, mut start: Bytes, mut end: Option<Bytes>) {
        let reaches = |end: &Option<Bytes>, key: &Bytes| end.as_ref().is_none_or(|end| end >= key);
        if let Some((before, before_end)) = self.at_or_before(&start)
            && reaches(before_end, &start)
        {
            start = before.clone();
        }
        let above = (Bound::Included(start.clone()), Bound::Unbounded);
        while let Some((next, next_end)) = self.spans.range(above.clone()).next()
            && reaches(&end, next)
        {
            end = later(end, next_end.clone());
            let next = next.clone();
            self.spans.remove(&next);
        }
        self.spans.insert(start, end);
    }

    /// Adds all of another set.
    pub fn absorb(&mut self, other: Self) {
        self.points.extend(other.points);
        for (start, end) in other.spans {
            self.add_span(start, end);
        }
    }

    /// Whether a key is in it.
    pub fn contain(&self, key: &[u8]) -> bool {
        let span = self.at_or_before(key);
        self.points.contains(key)
            || span.is_some_and(|(_, end)| end.as_ref().is_none_or(|end| key < end.as_ref()))
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty() && self.spans.is_empty()
    }

    /// Where the interval ends that a key is in. Single keys are not looked at.
    pub fn end_of_span(&self, key: &[u8]) -> Option<SpanEnd<'_>> {
        match self.at_or_before(key)? {
            (_, None) => Some(SpanEnd::Unbounded),
            (_, Some(end)) => (key < end.as_ref()).then_some(SpanEnd::Before(end)),
        }
    }

    /// The last span that starts at or before `key`.
    fn at_or_before(&self, key: &[u8]) -> Option<(&Bytes, &Option<Bytes>)> {
        self.spans.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()
    }
}

/// The later of two ends; `None` is no end.
fn later(a: Option<Bytes>, b: Option<Bytes>) -> Option<Bytes> {
    a.and_then(|a| b.map(|b| a.max(b)))
}
