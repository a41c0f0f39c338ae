//! How much a client may send that nobody has read.
//!
//! Owns: the flow-control windows of HTTP/2 connections (RFC 9113, section 5.2), and what they come to together. Must never: leave a connection without
//! one: HTTP/2 has a smallest. Driven by `server`.
//!
//! ```text
//! a connection gets   WINDOW_BYTES_MIN + a share of what is left of the budget
//! one for probes      WINDOW_BYTES_MIN, and nothing of the budget: what a probe sends is a head
//! all together        at most connections · WINDOW_BYTES_MIN + the budget
//! ```
//!
//! What comes is held in memory until a call reads it, and some calls wait for other things first. The first few dozen connections, which are all that
//! most boxes have, so send large values at full speed; in a crowd each has what HTTP/2 gives to everybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::{STREAM_WINDOW_BYTES_MAX, WINDOW_BYTES_MAX, WINDOW_BYTES_MIN};

/// A connection gets one part in so many of what is left.
const SHARE: usize = 16;

/// The budget that is left.
#[derive(Clone, Debug)]
pub struct Windows(Arc<AtomicUsize>);

/// The window of a connection, for as long as that lives.
#[derive(Debug)]
pub struct Window {
    /// Bytes beyond the smallest one.
    extra: usize,
    left: Windows,
}

impl Windows {
    /// So many bytes beyond what every connection has.
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// One more connection.
    pub(super) fn open(&self) -> Window {
        let share = |left: usize| (left / SHARE).min((WINDOW_BYTES_MAX - WINDOW_BYTES_MIN) as usize);
        let before =
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left - share(left)));
        Window { extra: before.map_or(0, share), left: self.clone() }
    }

    /// One more connection that gets the smallest window, however much is left for others.
    pub(super) fn open_smallest(&self) -> Window {
        Window { extra: 0, left: self.clone() }
    }
}

impl Window {
    /// Unread bytes that the whole connection may have in flight towards us.
    pub(super) fn of_connection(&self) -> u32 {
        u32::try_from(self.extra).map_or(WINDOW_BYTES_MAX, |extra| WINDOW_BYTES_MIN + extra)
    }

    /// The same for one of its streams. Three that are not read leave room for the others.
    pub(super) fn of_stream(&self) -> u32 {
        (self.of_connection() / 4).min(STREAM_WINDOW_BYTES_MAX)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.left.0.fetch_add(self.extra, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_come_to_no_more_than_the_budget_however_many_there_are() {
        const BUDGET: usize = 64 << 20;
        const CONNECTIONS: usize = 2048;
        let windows = Windows::new(BUDGET);
        let open: Vec<Window> = (0..CONNECTIONS).map(|_| windows.open()).collect();
        let (first, last) = (&open[0], &open[CONNECTIONS - 1]);
        assert_eq!((first.of_connection(), first.of_stream()), (WINDOW_BYTES_MAX, STREAM_WINDOW_BYTES_MAX));
        assert_eq!((last.of_connection(), last.of_stream()), (WINDOW_BYTES_MIN, WINDOW_BYTES_MIN / 4));
        let all: usize = open.iter().map(|window| window.of_connection() as usize).sum();
        assert!(all <= CONNECTIONS * WINDOW_BYTES_MIN as usize + BUDGET, "{all}");
        assert!(open[20].of_connection() > 1 << 20, "a few dozen have large ones");
        drop(open);
        assert_eq!(windows.0.load(Ordering::Relaxed), BUDGET, "all of it comes back");
    }

    #[test]
    fn the_smallest_takes_nothing_from_others() {
        let windows = Windows::new(SHARE * 1000);
        let smallest: Vec<Window> = (0..9).map(|_| windows.open_smallest()).collect();
        assert_eq!(
            (smallest[0].of_connection(), smallest[0].of_stream()),
            (WINDOW_BYTES_MIN, WINDOW_BYTES_MIN / 4)
        );
        assert_eq!(windows.open().of_connection(), WINDOW_BYTES_MIN + 1000);
        drop(smallest);
        assert_eq!(windows.0.load(Ordering::Relaxed), SHARE * 1000);
    }

    #[test]
    fn without_a_budget_everybody_has_the_smallest() {
        let windows = Windows::new(SHARE - 1);
        assert_eq!(windows.open().of_connection(), WINDOW_BYTES_MIN);
    }
}
