//! What a node writes in hours in which nobody asks it to.
//!
//! Owns: the count of the last such hour. Must never: wake the node up more often than it says. Driven by `serve`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use smol::Timer;

use crate::runtime::Handle;
use crate::runtime::written::Written;

/// What is measured at once.
const HOUR: Duration = Duration::from_hours(1);

/// Nothing is known yet.
const UNKNOWN: u64 = u64::MAX;

/// Bytes written in the last whole hour of this run in which no key was written.
#[derive(Debug)]
pub(super) struct IdleHour(AtomicU64);

impl Default for IdleHour {
    fn default() -> Self {
        Self(AtomicU64::new(UNKNOWN))
    }
}

impl IdleHour {
    /// The bytes, once there has been such an hour.
    pub(super) fn bytes(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|bytes| *bytes != UNKNOWN)
    }

    /// Notes what an hour has come to: the revisions and the bytes written, at its beginning and its end.
    fn note<R: PartialEq>(&self, before: (R, u64), after: (R, u64)) {
        if before.0 == after.0 {
            self.0.store(after.1 - before.1, Ordering::Relaxed);
        }
    }

    /// Measures one hour after the other.
    pub(super) async fn measure(&self, handle: &Handle, written: &Written) {
        let now = || {
            let view = handle.view();
            ((view.revision(), view.compacted()), written.total())
        };
        let mut before = now();
        loop {
            Timer::after(HOUR).await;
            let after = now();
            self.note(before, after);
            before = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hours_without_writes_count() {
        let hour = IdleHour::default();
        assert_eq!(hour.bytes(), None);
        hour.note((7, 100), (8, 900));
        assert_eq!(hour.bytes(), None);
        hour.note((8, 900), (8, 1000));
        assert_eq!(hour.bytes(), Some(100));
        hour.note((8, 1000), (9, 9000));
        assert_eq!(hour.bytes(), Some(100), "the last one counts on");
    }
}
