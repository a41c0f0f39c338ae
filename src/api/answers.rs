//! The memory of answers: from when they are read until their clients have taken them.
//!
//! Owns: the budget that all answers share, who waits for room in it, and what each connection has not taken yet. Must never: refuse
//! an answer that is made already (it is counted beyond the budget, and what comes next waits). Asked by the services before they read much;
//! told by `body` of every byte; looked at by `server` for clients that take nothing.
//!
//! ```text
//! reserve ── read ── answer made ── encoded ── pieces handed to hyper ── written to the socket
//!    └── Room: what it may become ──┘   └── Held: what it is, until the last piece is gone ──┘
//! ```
//!
//! Small answers never wait. Once they alone have doubled the budget every call is refused, so memory is bounded whatever clients do.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_channel::oneshot;
use smol::Timer;
use tonic::Status;

use crate::limits::{
    ANSWER_FIRST_BYTES, ANSWER_GROWTH, ANSWER_OVERHEAD_BYTES, ANSWER_SHARE, ANSWER_WRITE_SHARE,
    REQUEST_TIMEOUT,
};
use crate::mvcc::Allowance;
use crate::runtime::ServeError;

/// The budget of one server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Answers(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    bytes_max: usize,
    /// Whether somebody goes without memory that counts elsewhere, and that clients of these answers hold.
    short_elsewhere: Arc<AtomicBool>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: usize,
    /// The most that was ever counted at once.
    peak: usize,
    queue: VecDeque<Waiter>,
}

/// A read that waits for room.
#[derive(Debug)]
struct Waiter {
    bytes: usize,
    grant: oneshot::Sender<Room>,
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub struct Room {
    answers: Answers,
    bytes: usize,
}

impl Answers {
    /// A budget of `bytes_max` bytes. `short_elsewhere` says whether somebody goes without what clients hold of another.
    pub fn new(bytes_max: usize, short_elsewhere: Arc<AtomicBool>) -> Self {
        Self(Arc::new(Budget { bytes_max, short_elsewhere, state: Mutex::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that count right now, and the most that ever did.
    pub fn bytes(&self) -> (usize, usize) {
        let state = self.lock();
        (state.used, state.peak)
    }

    /// Whether nothing more may be asked for: small answers, which never wait, have used the budget twice.
    pub fn is_exhausted(&self) -> bool {
        self.lock().used >= self.0.bytes_max.saturating_mul(2)
    }

    /// Whether somebody goes without because of what others hold.
    pub fn is_short(&self) -> bool {
        let state = self.lock();
        state.used >= self.0.bytes_max
            || state.queue.iter().any(|waiter| !waiter.grant.is_canceled())
            || self.0.short_elsewhere.load(Ordering::Relaxed)
    }

    /// The most that is reserved for one answer. One that turns out larger is made all the same, since the API knows no largest answer.
    pub fn share(&self) -> usize {
        self.0.bytes_max / ANSWER_SHARE
    }

    /// What to reserve for a read that needed more than `bytes`.
    pub fn more_than(&self, bytes: usize) -> usize {
        bytes.saturating_mul(ANSWER_GROWTH).min(self.share())
    }

    /// What a read with room for `bytes` may collect.
    pub fn allowance(&self, bytes: usize) -> Allowance {
        if bytes >= self.share() { Allowance::UNLIMITED } else { Allowance::of(bytes) }
    }

    /// Room for `bytes`, or for the largest share, if it is there now and nobody waits for it.
    pub fn try_reserve(&self, bytes: usize) -> Option<Room> {
        let bytes = bytes.min(self.share());
        let mut state = self.lock();
        let first = state.queue.is_empty() || bytes <= ANSWER_FIRST_BYTES;
        (first && state.used + bytes <= self.0.bytes_max).then(|| {
            state.count(bytes);
            Room { answers: self.clone(), bytes }
        })
    }

    /// Room for `bytes`, or for the largest share, once it is there.
    pub async fn reserve(&self, bytes: usize) -> Result<Room, Status> {
        if let Some(room) = self.try_reserve(bytes) {
            return Ok(room);
        }
        let (grant, granted) = oneshot::channel();
        self.lock().queue.push_back(Waiter { bytes: bytes.min(self.share()), grant });
        // Something may have been given back in between. And a waiter that leaves may have stood in somebody's way.
        self.grant();
        let _leaving = GrantOnDrop(self);
        let late = async {
            Timer::after(REQUEST_TIMEOUT).await;
            Err(oneshot::Canceled)
        };
        smol::future::or(granted, late).await.map_err(|oneshot::Canceled| ServeError::TooManyRequests.into())
    }

    /// Room for the answer of a write that may return much.
    pub async fn reserve_for_write(&self) -> Result<Room, Status> {
        self.reserve(self.0.bytes_max / ANSWER_WRITE_SHARE).await
    }

    /// Counts `bytes` that are there already.
    fn force(&self, bytes: usize) -> Room {
        self.lock().count(bytes);
        Room { answers: self.clone(), bytes }
    }

    /// Lets in who fits: those that need much in order, those that need little past them.
    fn grant(&self) {
        let mut granted = Vec::new();
        let mut state = self.lock();
        let mut blocked = false;
        for waiter in std::mem::take(&mut state.queue) {
            if waiter.grant.is_canceled() {
                continue;
            }
            let fits = state.used + waiter.bytes <= self.0.bytes_max;
            if fits && (!blocked || waiter.bytes <= ANSWER_FIRST_BYTES) {
                state.count(waiter.bytes);
                granted.push(waiter);
            } else {
                blocked = true;
                state.queue.push_back(waiter);
            }
        }
        drop(state);
        for Waiter { bytes, grant } in granted {
            // Not to be dropped under the lock: one that nobody waits for any more gives its room back.
            drop(grant.send(Room { answers: self.clone(), bytes }));
        }
    }
}

impl State {
    fn count(&mut self, bytes: usize) {
        self.used += bytes;
        self.peak = self.peak.max(self.used);
    }
}

impl Room {
    /// Makes it as large as the answer became.
    pub fn resize(&mut self, bytes: usize) {
        let mut state = self.answers.lock();
        state.used -= self.bytes;
        state.count(bytes);
        drop(state);
        let shrunk = bytes < self.bytes;
        self.bytes = bytes;
        if shrunk {
            self.answers.grant();
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.answers.lock().used -= self.bytes;
        self.answers.grant();
    }
}

/// Looks who fits when a waiter leaves.
struct GrantOnDrop<'a>(&'a Answers);

impl Drop for GrantOnDrop<'_> {
    fn drop(&mut self) {
        self.0.grant();
    }
}

/// What one connection was given and has not taken yet.
#[derive(Debug)]
pub struct Outbox {
    answers: Answers,
    state: Mutex<Given>,
    /// Pieces taken since the connection began.
    taken: AtomicUsize,
}

#[derive(Debug, Default)]
struct Given {
    /// How often was looked whether the client takes anything.
    round: usize,
    /// The answers that are not taken, by the round in which they were given.
    by_round: BTreeMap<usize, usize>,
}

/// The bytes of one answer, counted until the last piece of it is gone.
#[derive(Debug)]
pub struct Held {
    outbox: Arc<Outbox>,
    round: usize,
    _room: Room,
}

/// A part of an answer on its way to the socket.
struct Piece {
    bytes: Bytes,
    held: Arc<Held>,
}

impl Outbox {
    /// Of a connection that was given nothing yet.
    pub fn new(answers: Answers) -> Self {
        Self { answers, state: Mutex::default(), taken: AtomicUsize::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Given> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an answer of so many bytes.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Arc<Held> {
        let mut given = self.lock();
        let round = given.round;
        *given.by_round.entry(round).or_default() += 1;
        drop(given);
        let room = self.answers.force(bytes + ANSWER_OVERHEAD_BYTES);
        Arc::new(Held { outbox: Arc::clone(self), round, _room: room })
    }

    fn is_empty(&self) -> bool {
        self.lock().by_round.is_empty()
    }
}

impl Held {
    /// A piece of this answer; it keeps the answer counted.
    pub fn piece(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Piece { bytes, held: Arc::clone(self) })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut given = self.outbox.lock();
        if let Some(count) = given.by_round.get_mut(&self.round) {
            *count -= 1;
            if *count == 0 {
                given.by_round.remove(&self.round);
            }
        }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.held.outbox.taken.fetch_add(1, Ordering::Relaxed);
    }
}

/// How long one connection may leave its answers lying. Costs no wake-up while none lie there.
#[derive(Debug)]
pub struct Patience {
    outbox: Arc<Outbox>,
    limit: Duration,
    timer: Timer,
    armed: bool,
    /// What was taken when the timer was set.
    taken: usize,
}

impl Patience {
    /// Looks every `limit`, while there is something to take.
    pub fn new(outbox: Arc<Outbox>, limit: Duration) -> Self {
        Self { outbox, limit, timer: Timer::never(), armed: false, taken: 0 }
    }

    /// Ready once the client has to go: it has taken nothing between two looks, or others wait for what it takes too slowly.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.armed {
                ready!(Pin::new(&mut self.timer).poll(cx));
                self.armed = false;
                if self.is_over() {
                    return Poll::Ready(());
                }
            }
            if self.outbox.is_empty() {
                return Poll::Pending;
            }
            self.timer.set_after(self.limit);
            self.armed = true;
            self.taken = self.outbox.taken.load(Ordering::Relaxed);
            self.outbox.lock().round += 1;
        }
    }

    fn is_over(&self) -> bool {
        let given = self.outbox.lock();
        let nothing_taken = self.outbox.taken.load(Ordering::Relaxed) == self.taken;
        // Given before the timer was set, so it has lain there for the whole time.
        let old = given.by_round.range(..given.round).next().is_some();
        drop(given);
        old && (nothing_taken || self.outbox.answers.is_short())
    }
}

#[cfg(test)]
#[path = "answers_test.rs"]
mod tests;
