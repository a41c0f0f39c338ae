//! From a key to the scopes that contain it.
//!
//! Owns: the map of single keys and the tree of intervals, and the keys' bytes, which are copies: what a client sent would keep the whole
//! buffer that it came in. Must never: know a watcher. Driven by the hub.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::intervals::{Intervals, Limit};
use crate::command::{KeyRange, RangeEnd};
use crate::prng::Prng;

/// An interval, with bytes that are shared between index and scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// One key.
    Single(Arc<[u8]>),
    /// `[start, end)`.
    Interval(Arc<[u8]>, Limit),
}

impl Span {
    /// A copy of an interval of the wire; it must have keys.
    pub fn of(range: &KeyRange) -> Self {
        let start = Arc::from(range.start.as_ref());
        match &range.end {
            RangeEnd::Single => Span::Single(start),
            RangeEnd::Before(end) => Span::Interval(start, Limit::Before(Arc::from(end.as_ref()))),
            RangeEnd::Unbounded => Span::Interval(start, Limit::Unbounded),
        }
    }

    /// Bytes of its keys.
    pub fn bytes(&self) -> usize {
        match self {
            Span::Single(key) => key.len(),
            Span::Interval(start, Limit::Before(end)) => start.len() + end.len(),
            Span::Interval(start, Limit::Unbounded) => start.len(),
        }
    }
}

/// Which scopes lie at which spans. A span has one number, that of the first of its scopes.
#[derive(Debug)]
pub struct Index {
    keys: BTreeMap<Arc<[u8]>, u32>,
    intervals: Intervals,
}

impl Index {
    /// Nothing.
    pub fn new(random: Prng) -> Self {
        Self { keys: BTreeMap::new(), intervals: Intervals::new(random) }
    }

    /// The number of a span.
    pub fn find(&mut self, span: &Span) -> Option<&mut u32> {
        match span {
            Span::Single(key) => self.keys.get_mut(key),
            Span::Interval(start, end) => self.intervals.find(start, end),
        }
    }

    /// Adds a span that is not in yet.
    pub fn insert(&mut self, span: &Span, first: u32) {
        match span {
            Span::Single(key) => drop(self.keys.insert(Arc::clone(key), first)),
            Span::Interval(start, end) => self.intervals.insert(Arc::clone(start), end.clone(), first),
        }
    }

    /// Takes out a span that is in.
    pub fn remove(&mut self, span: &Span) {
        match span {
            Span::Single(key) => drop(self.keys.remove(key)),
            Span::Interval(start, end) => self.intervals.remove(start, end),
        }
    }

    /// Calls `found` with the number of every span that contains `key`.
    pub fn stab(&self, key: &[u8], mut found: impl FnMut(u32)) {
        if let Some(first) = self.keys.get(key) {
            found(*first);
        }
        self.intervals.stab(key, &mut found);
    }
}
