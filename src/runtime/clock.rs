//! The monotonic clock and the operating system's randomness, for everything but the time in log lines (`telemetry`).
//!
//! Owns: the monotonic origin of this process. Must never: read the wall clock, by which nothing is decided.
//! Driven by every thread that calls into the core.

use std::io;
use std::time::Duration;

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
