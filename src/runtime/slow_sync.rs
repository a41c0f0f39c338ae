//! What the log is told of a disk that takes long to sync.
//!
//! Owns: which sync is worth a line. Must never: hold a sync up, or count one as failed because it was slow: nobody is elected, and nothing refused,
//! because of it. Driven by `runtime::files`, on the threads that sync.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::clock::Clock;
use crate::limits::SLOW_SYNC;
use crate::telemetry::Muffle;
use crate::time::Instant;

/// The syncs of one data directory.
#[derive(Debug)]
pub(super) struct SlowSyncs {
    clock: Clock,
    /// By the directory of what was synced: that of the log is not kept back for one of the store.
    told: Mutex<Muffle<PathBuf>>,
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
        if took >= SLOW_SYNC {
            let file = name().unwrap_or_else(|| Path::new("").into());
            if let Some(others) = self.others(now, &file) {
                tracing::warn!(
                    file = %file.display(),
                    took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                    others,
                    "the disk is slow: a sync has taken long, and what is written waits for it; this is told once a minute"
                );
            }
        }
        outcome
    }

    /// How many slow ones beside this file nobody was told of, if this one is to be told of.
    fn others(&self, now: Instant, file: &Path) -> Option<u64> {
        let directory = file.parent().map(Path::to_path_buf).unwrap_or_default();
        self.told.lock().unwrap_or_else(PoisonError::into_inner).tell(now, directory)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_slow_disk_is_told_of_once_a_minute() {
        let syncs = SlowSyncs::default();
        let others = |seconds, file| syncs.others(Instant(0) + Duration::from_secs(seconds), Path::new(file));
        assert_eq!(others(1, "data/wal/1.wal"), Some(0));
        for seconds in 2..9 {
            assert_eq!(others(seconds, "data/wal/2.wal"), None);
        }
        assert_eq!(others(9, "data/store.redb"), Some(0), "that is something else");
        assert_eq!(others(61, "data/wal/3.wal"), Some(7));
    }
}
