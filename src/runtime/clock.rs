//! The monotonic clock and the operating system's randomness, for everything but the time in log lines (`telemetry`).
//!
//! Owns: the monotonic origin of this process, and how long the machine has slept since. Must never: let the wall clock decide anything but whether a JSON Web Token has ended.
//! Driven by every thread that calls into the core.

use std::io;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::time::Instant;

/// The process's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// A clock that starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the runtime's clock")]
    pub fn start() -> Self {
        Self { origin: std::time::Instant::now() }
    }

    /// The clock once `by` more has passed.
    #[cfg(test)]
    pub(super) fn ahead(self, by: std::time::Duration) -> Self {
        Self { origin: self.origin.checked_sub(by).expect("the machine has run for longer") }
    }

    /// The time since the origin, as the core takes it.
    pub fn now(&self) -> Instant {
        Instant::default() + self.origin.elapsed()
    }

    /// How long from now to `deadline`; zero when it has passed.
    pub fn until(&self, deadline: Instant) -> Duration {
        deadline.since(self.now())
    }
}

/// The same clock, but one that goes on while the machine is suspended: what another machine counts on meanwhile is counted by it. Leases and elections are not: a
/// member that has slept must not find that all of its leases have ended.
#[derive(Clone, Copy, Debug)]
pub struct BootClock {
    clock: Clock,
    /// What the machine's clock showed at the origin of the other one.
    origin: Duration,
}

impl BootClock {
    /// Agrees with `clock` until the machine is suspended.
    pub fn start(clock: Clock) -> Self {
        Self { clock, origin: uptime().saturating_sub(clock.now().since(Instant::default())) }
    }

    /// The time since the origin, with all sleep.
    pub fn now(&self) -> Instant {
        Instant::default() + uptime().saturating_sub(self.origin)
    }

    /// How long from now to `deadline`; zero when it has passed.
    pub fn until(&self, deadline: Instant) -> Duration {
        deadline.since(self.now())
    }

    /// How long the machine has been suspended since the start.
    pub fn slept(&self) -> Duration {
        self.now().since(self.clock.now())
    }

    /// The clock after so much sleep.
    #[cfg(test)]
    pub(crate) fn after_sleep(self, slept: Duration) -> Self {
        Self { origin: self.origin.checked_sub(slept).expect("the machine has been up for longer"), ..self }
    }
}

fn uptime() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// Seconds since 1970 by the machine's clock, which may be wrong. Nothing but a JSON Web Token goes by it.
#[expect(clippy::disallowed_methods, reason = "the wall clock is read here")]
pub fn unix_seconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Fills `buffer` with bytes that nobody can guess.
#[expect(clippy::disallowed_methods, reason = "the operating system's randomness is read here")]
pub fn entropy(buffer: &mut [u8]) -> io::Result<()> {
    getrandom::fill(buffer).map_err(io::Error::other)
}

/// A random number that nobody can guess.
pub fn random_u64() -> io::Result<u64> {
    let mut bytes = [0; 8];
    entropy(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_that_counts_sleep_agrees_with_the_other_one_but_for_that() {
        let clock = Clock::start();
        let boot = BootClock::start(clock);
        let apart = |boot: BootClock| boot.slept().max(clock.now().since(boot.now()));
        assert!(apart(boot) < Duration::from_secs(1));
        let slept = Duration::from_secs(5);
        let after = boot.after_sleep(slept);
        assert!(after.slept() >= slept && after.now() >= Instant::default() + slept);
        assert_eq!(after.until(Instant::default() + slept), Duration::ZERO);
    }
}
