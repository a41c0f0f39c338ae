//! How threads hand work to each other: a queue that is drained whole.
//!
//! Owns: the queue and the waking of its one reader. Must never: drop a message. Bounds are kept where work enters
//! (`Handle`), so that no thread inside ever blocks on another's queue. Driven by every thread of `runtime`.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A queue with many senders and one reader, which takes everything at once: the longer it was busy, the larger its next
/// batch.
pub struct Mailbox<T> {
    inner: Mutex<Inner<T>>,
    arrived: Condvar,
}

struct Inner<T> {
    queue: Vec<T>,
    closed: bool,
    /// Whether the reader waits; without it every send would cost a system call.
    reader_waits: bool,
}

/// Why [`Mailbox::drain`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// There are messages.
    Messages,
    /// There were none for the given time.
    TimedOut,
    /// There are none, and none will come.
    Closed,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        let inner = Inner { queue: Vec::new(), closed: false, reader_waits: false };
        Self { inner: Mutex::new(inner), arrived: Condvar::new() }
    }
}

impl<T> Mailbox<T> {
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message at the end. A closed mailbox hands it back.
    pub fn send(&self, message: T) -> Result<(), T> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(message);
        }
        inner.queue.push(message);
        let wake = std::mem::take(&mut inner.reader_waits);
        drop(inner);
        if wake {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Whether nothing waits to be read right now.
    pub fn is_empty(&self) -> bool {
        self.lock().queue.is_empty()
    }

    /// Lets nothing more in; what is queued is still read.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.reader_waits = false;
        drop(inner);
        self.arrived.notify_one();
    }

    /// Moves all messages to the end of `into`, waiting for the first one at most `patience` (`None`: for ever).
    pub fn drain(&self, into: &mut Vec<T>, patience: Option<Duration>) -> Drained {
        let mut inner = self.lock();
        let mut waited = false;
        while inner.queue.is_empty() {
            if inner.closed {
                return Drained::Closed;
            }
            inner.reader_waits = true;
            inner = match patience {
                None => self.arrived.wait(inner).unwrap_or_else(PoisonError::into_inner),
                // A spurious wake ends the wait early; the reader computes its time anew anyway.
                Some(_) if waited => {
                    inner.reader_waits = false;
                    return Drained::TimedOut;
                }
                Some(patience) => {
                    waited = true;
                    let (inner, _) =
                        self.arrived.wait_timeout(inner, patience).unwrap_or_else(PoisonError::into_inner);
                    inner
                }
            };
        }
        inner.reader_waits = false;
        into.append(&mut inner.queue);
        Drained::Messages
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn everything_sent_arrives_in_order_across_threads() {
        let mailbox = Arc::new(Mailbox::default());
        let sender = Arc::clone(&mailbox);
        let writer = thread::spawn(move || {
            for n in 0..10_000_u32 {
                sender.send(n).unwrap();
            }
            sender.close();
        });
        let mut all = Vec::new();
        while mailbox.drain(&mut all, None) != Drained::Closed {}
        writer.join().unwrap();
        assert_eq!(all, (0..10_000).collect::<Vec<_>>());
        assert_eq!(mailbox.send(1), Err(1));
    }

    #[test]
    fn an_empty_mailbox_times_out() {
        let mailbox = Mailbox::<u8>::default();
        let mut none = Vec::new();
        assert_eq!(mailbox.drain(&mut none, Some(Duration::from_millis(1))), Drained::TimedOut);
        assert!(none.is_empty());
    }
}
