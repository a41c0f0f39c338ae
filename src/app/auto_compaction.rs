//! When to compact without being asked (API reference, section 14, "Auto-compaction").
//!
//! Owns: the two schedules. Must never: read a clock or compact by itself; it is told the time and the revision and answers
//! what to compact to. Driven by `app`, on the leader only.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::AutoCompaction;
use crate::ids::Revision;
use crate::time::Instant;

/// How often revision mode looks (etcd's interval).
const REVISION_INTERVAL: Duration = Duration::from_mins(5);
/// Periodic mode compacts at least this often, however long its period (etcd's bound).
const PERIODIC_INTERVAL_MAX: Duration = Duration::from_hours(1);
/// Periodic mode takes this many samples in each interval.
const SAMPLES_PER_INTERVAL: u32 = 10;

/// Samples are no closer than this, however short the period.
const SAMPLE_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The running schedule of an [`AutoCompaction`].
///
/// Periodic, period 10 min: a sample of the revision each minute; every 10 minutes the newest sample that is at least 10 minutes old is
/// compacted to. After a restart the first compaction comes a whole period later: samples are not kept on disk.
#[derive(Debug)]
pub struct AutoCompactor {
    mode: AutoCompaction,
    samples: VecDeque<(Instant, Revision)>,
    next_look: Instant,
    next_compaction: Instant,
    compacted: Revision,
}

impl AutoCompactor {
    /// A schedule that begins at `now`.
    pub fn new(mode: AutoCompaction, now: Instant) -> Self {
        let first = match mode {
            AutoCompaction::Periodic(period) => now + period,
            AutoCompaction::Off | AutoCompaction::Revisions(_) => now,
        };
        Self {
            mode,
            samples: VecDeque::new(),
            next_look: now,
            next_compaction: first,
            compacted: Revision::default(),
        }
    }

    /// When [`AutoCompactor::handle_timeout`] wants to be called; `None` when never.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (self.mode != AutoCompaction::Off).then_some(self.next_look)
    }

    /// Looks at the clock and the current revision, and says what to compact to.
    pub fn handle_timeout(&mut self, now: Instant, current: Revision) -> Option<Revision> {
        if now < self.next_look {
            return None;
        }
        let target = match self.mode {
            AutoCompaction::Off => return None,
            AutoCompaction::Revisions(keep) => {
                self.next_look = now + REVISION_INTERVAL;
                Revision(current.0.saturating_sub(keep))
            }
            AutoCompaction::Periodic(period) => self.sample(now, current, period)?,
        };
        if target <= self.compacted || target.0 <= 0 {
            return None;
        }
        Some(target)
    }

    /// The store is compacted to `revision`, by this schedule or by a client: nothing at or below it is asked for again.
    pub fn handle_compacted(&mut self, revision: Revision) {
        self.compacted = self.compacted.max(revision);
    }

    fn sample(&mut self, now: Instant, current: Revision, period: Duration) -> Option<Revision> {
        let interval = period.min(PERIODIC_INTERVAL_MAX);
        self.next_look = now + (interval / SAMPLES_PER_INTERVAL).max(SAMPLE_INTERVAL_MIN);
        self.samples.push_back((now, current));
        if now < self.next_compaction {
            return None;
        }
        let mut old_enough = None;
        while let Some(&(taken, revision)) = self.samples.front() {
            if now.since(taken) < period {
                break;
            }
            old_enough = Some(revision);
            self.samples.pop_front();
        }
        if old_enough.is_some() {
            self.next_compaction = now + interval;
        }
        old_enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays `minutes` of a store that writes `per_minute` revisions, and lists (minute, compacted to).
    fn play(mode: AutoCompaction, minutes: u64, per_minute: i64) -> Vec<(u64, i64)> {
        let start = Instant(7_000_000_000);
        let mut compactor = AutoCompactor::new(mode, start);
        let mut compactions = Vec::new();
        for minute in 0..=minutes {
            let now = start + Duration::from_mins(minute);
            let current = Revision(1 + i64::try_from(minute).unwrap() * per_minute);
            if let Some(target) = compactor.handle_timeout(now, current) {
                compactor.handle_compacted(target);
                compactions.push((minute, target.0));
            }
        }
        compactions
    }

    #[test]
    fn periodic_keeps_the_period() {
        let ten = AutoCompaction::Periodic(Duration::from_mins(10));
        assert_eq!(play(ten, 35, 100), [(10, 1), (20, 1001), (30, 2001)]);
    }

    #[test]
    fn a_long_period_compacts_hourly_to_what_was_then() {
        let day = AutoCompaction::Periodic(Duration::from_hours(5));
        assert_eq!(play(day, 8 * 60, 1), [(300, 1), (360, 61), (420, 121), (480, 181)]);
    }

    #[test]
    fn revision_mode_keeps_a_number() {
        let thousand = AutoCompaction::Revisions(1000);
        assert_eq!(play(thousand, 20, 100), [(10, 1), (15, 501), (20, 1001)]);
    }

    #[test]
    fn a_target_that_was_not_reached_is_asked_for_again() {
        let mut compactor = AutoCompactor::new(AutoCompaction::Revisions(10), Instant(0));
        assert_eq!(compactor.handle_timeout(Instant(0), Revision(50)), Some(Revision(40)));
        let later = Instant(0) + REVISION_INTERVAL;
        assert_eq!(compactor.handle_timeout(later, Revision(50)), Some(Revision(40)));
        compactor.handle_compacted(Revision(40));
        assert_eq!(compactor.handle_timeout(later + REVISION_INTERVAL, Revision(50)), None);
    }

    #[test]
    fn the_shortest_period_does_not_spin() {
        let mut compactor = AutoCompactor::new(AutoCompaction::Periodic(Duration::from_nanos(5)), Instant(0));
        compactor.handle_timeout(Instant(0), Revision(5));
        assert_eq!(compactor.poll_timeout(), Some(Instant(0) + SAMPLE_INTERVAL_MIN));
    }

    #[test]
    fn an_idle_store_and_an_off_switch_compact_nothing() {
        assert_eq!(play(AutoCompaction::Periodic(Duration::from_mins(10)), 60, 0), [(10, 1)]);
        assert_eq!(play(AutoCompaction::Off, 60, 100), []);
        assert_eq!(AutoCompactor::new(AutoCompaction::Off, Instant(0)).poll_timeout(), None);
    }
}
