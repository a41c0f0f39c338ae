//! What the log is told of a disk that takes long to sync.
//!
//! Owns: which sync is worth a line. Must never: hold a sync up, or count one as failed because it was slow: nobody is elected, and nothing refused,
//! because of it. Driven by `runtime::files`, on the threads that sync.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::clock::Clock;
use crate::limits::SLOW_SYNC;
use crate::telemetry::Muffle;
use crate::time::Instant;

/// The syncs of one data directory.
#[derive(Debug)]
pub(super) struct SlowSyncs {
    clock: Clock,
    told: Mutex<Muffle<()>>,
}

impl Default for SlowSyncs {
    fn default() -> Self {
        Self { clock: Clock::start(), told: Mutex::default() }
    }
}

impl SlowSyncs {
    /// Carries out a sync of what has this name, and tells of it if it was slow.
    pub(super) fn watch<T>(&self, sync: impl FnOnce() -> T, name: impl FnOnce() -> Option<Box<Path>>) -> T {
        let began = self.clock.now();
        let outcome = sync();
        let now = self.clock.now();
        let took = now.since(began);
        if let Some(others) = self.others(now, took) {
            let file = name().unwrap_or_else(|| Path::new("").into());
            tracing::warn!(
                file = %file.display(),
                took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                others,
                "the disk is slow: a sync has taken long, and what is written waits for it; this is told once a minute"
            );
        }
        outcome
    }

    /// How many slow ones nobody was told of, if this one is slow and to be told of.
    fn others(&self, now: Instant, took: Duration) -> Option<u64> {
        if took < SLOW_SYNC {
            return None;
        }
        self.told.lock().unwrap_or_else(PoisonError::into_inner).tell(now, ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_disk_is_told_of_once_a_minute() {
        let syncs = SlowSyncs::default();
        let at = |seconds| Instant(0) + Duration::from_secs(seconds);
        assert_eq!(syncs.others(at(0), SLOW_SYNC / 2), None, "it is quick enough");
        assert_eq!(syncs.others(at(1), SLOW_SYNC), Some(0));
        for seconds in 2..9 {
            assert_eq!(syncs.others(at(seconds), 2 * SLOW_SYNC), None);
        }
        assert_eq!(syncs.others(at(61), SLOW_SYNC), Some(7));
    }
}
