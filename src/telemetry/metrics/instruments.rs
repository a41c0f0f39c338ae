//! The three things that can be counted into, each a few atomics.
//!
//! Owns: the arithmetic of histogram buckets. Must never: block. All orderings are relaxed: a scrape is a sample, and no
//! memory is published through a metric.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds to it.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// What it is.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down, but never below zero.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// One more.
    pub fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub fn decrement(&self) {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "something was counted out that was never counted in");
    }

    /// It is this from now on.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// What it is.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations, counted by size.
#[derive(Debug)]
pub struct Histogram {
    /// Ascending.
    bounds: Box<[Duration]>,
    /// Bucket `i` holds what is at most bound `i` and above the one before. The last is for what is beyond all bounds.
    buckets: Box<[AtomicU64]>,
    sum_nanos: AtomicU64,
}

impl Histogram {
    /// An empty one with so many bounds, each twice the one before.
    pub fn new(first: Duration, bounds: usize) -> Self {
        assert!(!first.is_zero() && bounds > 0 && bounds < 32, "bounds must be distinct and representable");
        Self::with_bounds(std::iter::successors(Some(first), |bound| Some(*bound * 2)).take(bounds))
    }

    /// An empty one with these bounds, which ascend.
    pub fn with_bounds(bounds: impl IntoIterator<Item = Duration>) -> Self {
        let bounds: Box<[Duration]> = bounds.into_iter().collect();
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum_nanos: AtomicU64::new(0) }
    }

    /// Counts one.
    pub fn observe(&self, duration: Duration) {
        let bucket = self.bounds.iter().position(|bound| duration <= *bound).unwrap_or(self.bounds.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The bounds with how many were counted up to each, ascending. `None` is no bound: its count is of all.
    pub(super) fn cumulative(&self) -> Vec<(Option<Duration>, u64)> {
        let mut total = 0;
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        let up_to = |(bound, bucket): (Option<Duration>, &AtomicU64)| {
            total += bucket.load(Ordering::Relaxed);
            (bound, total)
        };
        bounds.zip(&self.buckets).map(up_to).collect()
    }

    /// All that was counted, added up.
    pub(super) fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_nanos.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Gauge, Histogram};

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::new(Duration::from_millis(1), 3);
        for micros in [0, 1000, 1001, 2000, 4000, 4001, 9_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let bound = |millis| Some(Duration::from_millis(millis));
        assert_eq!(histogram.cumulative(), [(bound(1), 2), (bound(2), 4), (bound(4), 5), (None, 7)]);
        assert_eq!(histogram.sum(), Duration::from_micros(9_012_002));
    }

    #[test]
    #[should_panic(expected = "never counted in")]
    fn a_gauge_never_wraps() {
        let gauge = Gauge::default();
        gauge.increment();
        gauge.decrement();
        gauge.decrement();
    }
}
