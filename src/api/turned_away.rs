//! What the log says of clients that are turned away.
//!
//! Owns: the reasons, and that each is told once a minute, whoever it is that comes. Must never: say anything of clients that have just gone, as probes
//! and restarted programs do. Driven by `server` and `dispatch`.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use crate::runtime::clock::Clock;
use crate::telemetry::Muffle;

/// Why a client is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// As many connections are open as may be.
    Crowd,
    /// No handshake and no request came of its first bytes, or none in time.
    NoRequest,
    /// It does not keep to HTTP, or to the bounds on heads, streams and resets.
    BadHttp,
    /// It takes nothing of what it was answered.
    Stalled,
    /// As many calls are under way as may be, or answers wait that nobody takes.
    Calls,
    /// Unfinished requests of all clients take as much memory as they may.
    Unfinished,
    /// A message is larger than any may be.
    TooLarge,
}

impl Reason {
    fn text(self) -> &'static str {
        match self {
            Self::Crowd => "too many connections are open",
            Self::NoRequest => "its first bytes are no request",
            Self::BadHttp => "it does not keep to HTTP or its bounds",
            Self::Stalled => "it does not take what it was answered",
            Self::Calls => "too many calls are under way",
            Self::Unfinished => "too much memory is in requests that are not complete",
            Self::TooLarge => "its message is too large",
        }
    }
}

/// What was told, and when.
#[derive(Debug)]
pub struct TurnedAway {
    clock: Clock,
    told: Mutex<Muffle<Reason>>,
}

impl Default for TurnedAway {
    fn default() -> Self {
        Self { clock: Clock::start(), told: Mutex::default() }
    }
}

impl TurnedAway {
    /// Tells of this client, unless the same was told of another one within the minute. Those are counted with the next that is told of.
    pub(super) fn tell(&self, reason: Reason, client: SocketAddr, detail: &dyn Display) {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).tell(self.clock.now(), reason);
        if let Some(others) = told {
            tracing::warn!(
                client = %client,
                reason = reason.text(),
                %detail,
                others,
                "a client was turned away; what is alike is told once a minute"
            );
        }
    }
}

/// Whether a connection has ended because its client has gone, or the way to it, and nothing else is wrong.
pub fn is_departure(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, UnexpectedEof, WriteZero};
    // The system's own errors are all of that kind. What speaks TLS or HTTP has none of them.
    error.raw_os_error().is_some() || matches!(error.kind(), ConnectionAborted | UnexpectedEof | WriteZero)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_gone_was_not_turned_away() {
        for gone in [
            io::Error::from_raw_os_error(rustix::io::Errno::CONNRESET.raw_os_error()),
            io::Error::from_raw_os_error(rustix::io::Errno::TIMEDOUT.raw_os_error()),
            io::ErrorKind::UnexpectedEof.into(),
            io::ErrorKind::ConnectionAborted.into(),
        ] {
            assert!(is_departure(&gone), "{gone}");
        }
        for turned_away in [
            io::ErrorKind::TimedOut.into(),
            io::Error::other("no request"),
            io::ErrorKind::InvalidData.into(),
        ] {
            assert!(!is_departure(&turned_away), "{turned_away}");
        }
    }
}
