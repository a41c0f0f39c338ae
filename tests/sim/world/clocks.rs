//! The members' clocks: each begins anywhere, runs at a rate of its own, and stands still while its machine sleeps. And times at which several members
//! stand still together.
//!
//! Owns: what each member's clock shows, and who stands still when. Must never: let a clock go back. Clocks that jump are those on the
//! wall, and below the line nobody is told what they show.

use std::time::Duration;

use covey::prng::Prng;
use covey::time::Instant;

use super::{Event, World};
use crate::plan::{Clocks, draw};

/// What a good clock shows, in thousandths, and how far others are from it at most: ten times what the worst crystals are.
pub(crate) const GOOD: u64 = 1000;
const DEVIATION_MAX: u64 = 100;
/// Members stand still for about so long: some before anybody misses them, most beyond an election.
const STANDSTILL: Duration = Duration::from_secs(3);

/// A member's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// What it showed at that time of the world's, or will show then.
    shown: Instant,
    at: Instant,
    rate: u64,
}

impl Clock {
    pub(super) fn new(rate: u64) -> Self {
        Self { shown: Instant(0), at: Instant(0), rate }
    }

    /// One of a world in which clocks differ: good, fast or slow, as far as they may be or less.
    pub(super) fn draw(prng: &mut Prng) -> Self {
        let (slowest, fastest) = (GOOD - DEVIATION_MAX, GOOD + DEVIATION_MAX);
        let between = prng.range(slowest, fastest + 1);
        let rates = [slowest, fastest, between, GOOD];
        Self::new(rates[usize::try_from(prng.range(0, 4)).expect("small")])
    }

    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    /// It begins anew with a machine or a process.
    pub(super) fn begin(&mut self, now: Instant, shown: Duration) {
        (self.shown, self.at) = (Instant(0) + shown, now);
    }

    /// What it shows at a time of the world's.
    pub(super) fn at(&self, now: Instant) -> Instant {
        self.shown + Duration::from_nanos(nanos(now.since(self.at)) * self.rate / GOOD)
    }

    /// How long the world waits until it shows this, or more.
    pub(super) fn until(&self, now: Instant, shown: Instant) -> Duration {
        let left = nanos(shown.since(self.at(now))) * GOOD;
        self.at.since(now) + Duration::from_nanos(left.div_ceil(self.rate))
    }

    fn sleep(&mut self, now: Instant, until: Instant) {
        (self.shown, self.at) = (self.at(now), self.at.max(until));
    }

    fn wake(&mut self, now: Instant) {
        self.at = self.at.min(now);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("a run is short")
}

/// The least that some time takes by a clock which is no faster than that one.
pub(crate) fn shortest(time: Duration, rate: u64) -> Duration {
    // A clock shows whole nanoseconds.
    Duration::from_micros(u64::try_from(time.as_micros()).expect("short") * GOOD / rate)
}

impl World {
    /// The least that some time takes by any of the clocks.
    pub(super) fn shortest(&self, time: Duration) -> Duration {
        self.hosts.iter().map(|host| shortest(time, host.clock.rate())).min().unwrap_or(time)
    }

    pub(super) fn schedule_standstill(&mut self) {
        if let Some(Clocks { gap }) = self.plan.clocks
            && !self.calm
        {
            let mean = self.mean(gap);
            let delay = draw(&mut self.clock_prng, mean);
            self.queue.after(delay, Event::Standstill);
        }
    }

    /// Some members, or all, stand still for a while, as processes that are stopped do, or machines that sleep.
    pub(super) fn stand_still(&mut self) {
        if self.calm {
            return;
        }
        let now = self.queue.now();
        let prng = &mut self.clock_prng;
        let (share, sleeps) = (prng.range(1, 4), prng.one_in(2));
        let until = now + draw(prng, STANDSTILL);
        self.note("stand still", &[share, u64::from(sleeps), until.0]);
        for host in &mut self.hosts {
            if self.clock_prng.range(0, 3) < share {
                host.troubles += 1;
                host.paused_until = host.paused_until.max(until);
                if sleeps {
                    host.clock.sleep(now, until);
                }
            }
        }
        if sleeps {
            self.report.slept += 1;
        } else {
            self.report.stopped += 1;
        }
        self.schedule_standstill();
    }

    /// Nobody stands still any more.
    pub(super) fn wake_up(&mut self, number: usize) {
        let now = self.queue.now();
        let host = &mut self.hosts[number];
        host.paused_until = now;
        host.clock.wake(now);
    }
}

#[test]
fn a_clock_shows_no_more_than_its_rate_allows_and_wakes_nobody_early() {
    let mut prng = Prng::new(1);
    for _ in 0..1000 {
        let mut clock = Clock::draw(&mut prng);
        let mut now = Instant(prng.range(0, 1 << 40));
        clock.begin(now, Duration::from_nanos(prng.range(0, 1 << 40)));
        let deadline = clock.at(now) + Duration::from_nanos(prng.range(0, 1 << 40));
        let wait = clock.until(now, deadline);
        assert!(clock.at(now + wait) >= deadline, "{clock:?}");
        let earlier = wait.saturating_sub(Duration::from_nanos(2));
        assert!(wait.is_zero() || clock.at(now + earlier) < deadline, "{clock:?}");
        assert!(wait >= shortest(deadline - clock.at(now), GOOD + DEVIATION_MAX), "{clock:?}");
        now = now + wait;
        let (shown, night) = (clock.at(now), Duration::from_secs(prng.range(1, 1000)));
        clock.sleep(now, now + night);
        let morning = clock.until(now, shown + Duration::from_secs(1));
        assert!(clock.at(now + night) == shown && morning > night, "{clock:?}");
        clock.wake(now + night / 2);
        assert!(clock.at(now + night / 2) == shown && clock.at(now + night) > shown, "{clock:?}");
    }
}
