//! Callers that wait for the core: for the answer to a request, or for a counter to get somewhere; and what is done about an answer that nobody waits for.
//!
//! Owns: who waits for what and since when. Must never: keep an entry whose caller has gone, or let anything wait for ever (the core
//! thread sweeps). Driven by `Handle`, answered by the threads of `runtime`.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_channel::oneshot;

use crate::time::Instant;

/// Callers that wait for one answer each, by a key that is never used twice.
pub struct Waiters<T> {
    inner: Mutex<BTreeMap<u64, Entry<T>>>,
}

struct Entry<T> {
    answer: Answer<T>,
    since: Instant,
}

/// Where an answer goes.
enum Answer<T> {
    /// To a caller that waits.
    Waiting(oneshot::Sender<T>),
    /// To what is done about it by whoever brings it.
    Heed(Box<dyn FnOnce(T) + Send>),
}

impl<T> Answer<T> {
    fn give(self, value: T) {
        match self {
            Self::Waiting(caller) => drop(caller.send(value)),
            Self::Heed(heed) => heed(value),
        }
    }
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Self { inner: Mutex::new(BTreeMap::new()) }
    }
}

impl<T> Waiters<T> {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Entry<T>>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a caller; `None` when `max` wait already.
    pub fn register(self: &Arc<Self>, key: u64, now: Instant, max: usize) -> Option<Waiting<T>> {
        let (answer, receiver) = oneshot::channel();
        self.insert(key, Entry { answer: Answer::Waiting(answer), since: now }, max).then(|| Waiting {
            receiver,
            key,
            waiters: Arc::clone(self),
        })
    }

    /// Has `heed` called with the answer, where nobody waits for it: by the thread that brings it, which has other things to do. Not at all when `max` wait already.
    pub fn heed(&self, key: u64, now: Instant, max: usize, heed: impl FnOnce(T) + Send + 'static) {
        self.insert(key, Entry { answer: Answer::Heed(Box::new(heed)), since: now }, max);
    }

    /// Whether there was room.
    fn insert(&self, key: u64, entry: Entry<T>, max: usize) -> bool {
        let mut inner = self.lock();
        if inner.len() >= max {
            return false;
        }
        let before = inner.insert(key, entry);
        assert!(before.is_none(), "a key is used once");
        true
    }

    /// Answers a caller; one that has gone is not missed.
    pub fn answer(&self, key: u64, value: T) {
        self.answer_batch(std::iter::once((key, value)));
    }

    /// Answers many under one lock; they are woken after it is released.
    pub fn answer_batch(&self, answers: impl IntoIterator<Item = (u64, T)>) {
        let mut ready = Vec::new();
        let mut inner = self.lock();
        for (key, value) in answers {
            if let Some(entry) = inner.remove(&key) {
                ready.push((entry.answer, value));
            }
        }
        drop(inner);
        for (answer, value) in ready {
            answer.give(value);
        }
    }

    /// Gives `value` to everybody who has waited since `limit` or longer, and says how many those were.
    pub fn expire(&self, limit: Instant, value: impl Fn() -> T) -> usize {
        let old: Vec<u64> =
            self.lock().iter().filter(|(_, entry)| entry.since <= limit).map(|(key, _)| *key).collect();
        let count = old.len();
        self.answer_batch(old.into_iter().map(|key| (key, value())));
        count
    }

    /// Whether the caller with this key still waits.
    pub fn contains(&self, key: u64) -> bool {
        self.lock().contains_key(&key)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A caller's place among the waiters; dropping it gives the place up.
pub struct Waiting<T> {
    receiver: oneshot::Receiver<T>,
    key: u64,
    waiters: Arc<Waiters<T>>,
}

impl<T> Future for Waiting<T> {
    /// `None` when the answering side has gone.
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.receiver).poll(context).map(Result::ok)
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        self.waiters.lock().remove(&self.key);
    }
}

/// A counter that only rises, and callers that wait for it to reach some value.
#[derive(Default)]
pub struct Milestone {
    inner: Mutex<Reached>,
}

#[derive(Default)]
struct Reached {
    value: u64,
    closed: bool,
    waiting: Vec<(u64, oneshot::Sender<()>)>,
}

impl Milestone {
    fn lock(&self) -> MutexGuard<'_, Reached> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Raises the counter to `value` and wakes who waited for it; a lower value changes nothing.
    pub fn reach(&self, value: u64) {
        let mut inner = self.lock();
        if value <= inner.value {
            return;
        }
        inner.value = value;
        if inner.waiting.is_empty() {
            return;
        }
        let (ready, waiting) =
            std::mem::take(&mut inner.waiting).into_iter().partition(|(target, _)| *target <= value);
        inner.waiting = waiting;
        drop(inner);
        let ready: Vec<(u64, oneshot::Sender<()>)> = ready;
        for (_, wake) in ready {
            wake.send(()).ok();
        }
    }

    /// Where the counter is.
    pub fn value(&self) -> u64 {
        self.lock().value
    }

    /// Lets everybody go; nothing will be reached any more.
    pub fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.waiting.clear();
    }

    /// Waits until the counter is at `target` or above; false when it never will be.
    pub async fn wait(&self, target: u64) -> bool {
        let receiver = {
            let mut inner = self.lock();
            if inner.value >= target {
                return true;
            }
            if inner.closed {
                return false;
            }
            inner.waiting.retain(|(_, wake)| !wake.is_canceled());
            let (wake, receiver) = oneshot::channel();
            inner.waiting.push((target, wake));
            receiver
        };
        receiver.await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_reach_their_callers_and_leavers_leave_nothing() {
        let waiters = Arc::new(Waiters::<&str>::default());
        let one = waiters.register(1, Instant(5), 2).unwrap();
        let two = waiters.register(2, Instant(6), 2).unwrap();
        assert!(waiters.register(3, Instant(7), 2).is_none(), "the bound holds");
        drop(two);
        assert_eq!(waiters.len(), 1);
        waiters.answer_batch([(1, "one"), (2, "nobody")]);
        assert_eq!(smol::block_on(one), Some("one"));
        assert!(waiters.is_empty());
    }

    #[test]
    fn an_answer_that_nobody_waits_for_is_heeded_once() {
        let waiters = Arc::new(Waiters::<&str>::default());
        let (told, heard) = std::sync::mpsc::channel();
        for key in 1..=3 {
            let told = told.clone();
            waiters.heed(key, Instant(key), 2, move |answer| told.send((key, answer)).unwrap());
        }
        assert_eq!(waiters.len(), 2, "the bound holds");
        waiters.answer_batch([(1, "one"), (3, "there was no room")]);
        waiters.answer(1, "again");
        assert_eq!(waiters.expire(Instant(2), || "late"), 1);
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [(1, "one"), (2, "late")]);
        assert!(waiters.is_empty());
    }

    #[test]
    fn only_the_old_expire() {
        let waiters = Arc::new(Waiters::<&str>::default());
        let old = waiters.register(1, Instant(5), 9).unwrap();
        let young = waiters.register(2, Instant(6), 9).unwrap();
        assert_eq!(waiters.expire(Instant(5), || "late"), 1);
        assert_eq!(smol::block_on(old), Some("late"));
        waiters.answer(2, "in time");
        assert_eq!(smol::block_on(young), Some("in time"));
    }

    #[test]
    fn a_milestone_wakes_whom_it_has_reached() {
        let milestone = Milestone::default();
        milestone.reach(3);
        smol::block_on(async {
            assert!(milestone.wait(3).await);
            let later = milestone.wait(5);
            smol::pin!(later);
            assert!(smol::future::poll_once(&mut later).await.is_none());
            milestone.reach(4);
            assert!(smol::future::poll_once(&mut later).await.is_none());
            milestone.reach(9);
            assert!(later.await);
            let never = milestone.wait(10);
            smol::pin!(never);
            assert!(smol::future::poll_once(&mut never).await.is_none());
            milestone.close();
            assert!(!never.await);
            assert!(!milestone.wait(11).await && milestone.wait(9).await);
        });
    }
}
