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
    /// How much in it joins, and whether something else is there.
    joined: usize,
    others: bool,
    closed: bool,
    /// Whether the reader waits, and for how many that join; without it every send would cost a system call.
    reader_waits: Option<usize>,
}

/// Whether a message is worth a wakeup of a reader that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// By itself.
    Now,
    /// As so many, together with as many others as the reader waits for.
    Joins(usize),
    /// Never: it is read with the next one that is.
    Whenever,
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
        let inner = Inner { queue: Vec::new(), joined: 0, others: false, closed: false, reader_waits: None };
        Self { inner: Mutex::new(inner), arrived: Condvar::new() }
    }
}

impl<T> Mailbox<T> {
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message at the end and wakes the reader. A closed mailbox hands it back.
    pub fn send(&self, message: T) -> Result<(), T> {
        self.send_with(Urgency::Now, message)
    }

    /// As [`Mailbox::send`], but the reader is only woken if that is worth it.
    pub fn send_with(&self, urgency: Urgency, message: T) -> Result<(), T> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(message);
        }
        inner.queue.push(message);
        match urgency {
            Urgency::Joins(count) => inner.joined = inner.joined.saturating_add(count),
            Urgency::Now | Urgency::Whenever => inner.others = true,
        }
        let joined = inner.joined;
        let wake = inner.reader_waits.take_if(|wanted| match urgency {
            Urgency::Now => true,
            Urgency::Joins(_) => joined >= *wanted,
            Urgency::Whenever => false,
        });
        drop(inner);
        if wake.is_some() {
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
        inner.reader_waits = None;
        drop(inner);
        self.arrived.notify_one();
    }

    /// Moves all messages to the end of `into`, waiting for the first one at most `patience` (`None`: for ever).
    pub fn drain(&self, into: &mut Vec<T>, patience: Option<Duration>) -> Drained {
        self.drain_when(1, into, patience)
    }

    /// As [`Mailbox::drain`], but as long as no other messages come it waits for `wanted` of what only joins. When the time is over all are there
    /// that have come.
    pub fn drain_when(&self, wanted: usize, into: &mut Vec<T>, patience: Option<Duration>) -> Drained {
        let mut inner = self.lock();
        let mut waited = false;
        while !inner.others && (inner.queue.is_empty() || inner.joined < wanted) {
            if inner.closed {
                break;
            }
            inner.reader_waits = Some(wanted);
            inner = match patience {
                None => self.arrived.wait(inner).unwrap_or_else(PoisonError::into_inner),
                // A spurious wake ends the wait early; the reader computes its time anew anyway.
                Some(_) if waited => break,
                Some(patience) => {
                    waited = true;
                    let (inner, _) =
                        self.arrived.wait_timeout(inner, patience).unwrap_or_else(PoisonError::into_inner);
                    inner
                }
            };
        }
        inner.reader_waits = None;
        (inner.joined, inner.others) = (0, false);
        let drained = match (inner.queue.is_empty(), inner.closed) {
            (false, _) => Drained::Messages,
            (true, true) => Drained::Closed,
            (true, false) => Drained::TimedOut,
        };
        into.append(&mut inner.queue);
        drained
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

    /// Sends while the reader waits for three that join, and says how many had come when it woke.
    fn woken_by(sent: &[Urgency]) -> usize {
        const LONG: Duration = Duration::from_secs(60);
        let mailbox = Arc::new(Mailbox::default());
        let reader = Arc::clone(&mailbox);
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            assert_eq!(reader.drain_when(3, &mut all, Some(LONG)), Drained::Messages);
            all.len()
        });
        while mailbox.lock().reader_waits.is_none() {
            thread::yield_now();
        }
        for (n, urgency) in sent.iter().enumerate() {
            assert!(mailbox.lock().reader_waits.is_some(), "woken before message {n}");
            mailbox.send_with(*urgency, n).unwrap();
        }
        assert!(mailbox.lock().reader_waits.is_none(), "it sleeps on");
        reader.join().unwrap()
    }

    #[test]
    fn the_reader_is_woken_once_for_those_that_join_and_at_once_for_others() {
        use Urgency::{Joins, Now, Whenever};
        assert_eq!(woken_by(&[Joins(1), Joins(1), Joins(1)]), 3);
        assert_eq!(woken_by(&[Joins(2), Joins(1)]), 2);
        assert_eq!(woken_by(&[Joins(1), Now]), 2);
        assert_eq!(woken_by(&[Whenever, Joins(1), Whenever, Joins(1), Joins(1)]), 5);
        assert_eq!(woken_by(&[Now]), 1);
    }

    #[test]
    fn what_does_not_wake_the_reader_is_there_when_its_time_is_over_or_it_reads_anyway() {
        let mailbox = Mailbox::default();
        let mut all = Vec::new();
        mailbox.send_with(Urgency::Joins(1), 1).unwrap();
        assert_eq!(mailbox.drain_when(2, &mut all, Some(Duration::from_millis(1))), Drained::Messages);
        mailbox.send_with(Urgency::Joins(1), 2).unwrap();
        assert_eq!(mailbox.drain_when(2, &mut all, Some(Duration::from_millis(1))), Drained::Messages);
        mailbox.send_with(Urgency::Whenever, 3).unwrap();
        assert_eq!(mailbox.drain_when(2, &mut all, None), Drained::Messages);
        assert_eq!(all, [1, 2, 3]);
        mailbox.send_with(Urgency::Joins(1), 4).unwrap();
        mailbox.close();
        assert_eq!(mailbox.drain_when(2, &mut all, None), Drained::Messages);
        assert_eq!(mailbox.drain_when(2, &mut all, None), Drained::Closed);
    }

    #[test]
    fn an_empty_mailbox_times_out() {
        let mailbox = Mailbox::<u8>::default();
        let mut none = Vec::new();
        assert_eq!(mailbox.drain(&mut none, Some(Duration::from_millis(1))), Drained::TimedOut);
        assert!(none.is_empty());
    }
}
