//! The calls in flight on one connection, polled as part of it.
//!
//! Owns: the futures that hyper spawns for the streams of a connection, and their deadlines. Must never: let one of them outlive the
//! connection, or take part in another thread's work. Driven by `server`, which polls [`Calls`] next to hyper's connection.
//!
//! hyper wants an executor for the streams of an HTTP/2 connection. Giving it the thread's own would make each call a task of its
//! own, which lives on for a while after its connection died. Here connection and calls are one task:
//!
//! ```text
//! executor ── task per connection ──┬── hyper's connection: frames in, frames out
//!                                   └── Calls ──┬── slot 0: call ── waker 0 ─┐
//!                                               ├── slot 1: call ── waker 1 ─┼→ ready list, then the task's waker
//!                                               └── one timer for the earliest deadline
//! ```
//!
//! Dropping the task drops everything. A slot keeps its waker for the next call, so a call costs one allocation.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use smol::Timer;

use super::timer::now;

/// Calls polled in one go before the thread's other connections get their turn.
const POLLS_PER_TURN_MAX: usize = 64;

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The calls of one connection. Poll it for ever; it has no result.
pub struct Calls {
    shared: Arc<Shared>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// The ready list, taken out of the lock; kept for its allocation.
    turn: Vec<usize>,
    timer: Timer,
    armed: Option<Instant>,
}

struct Slot {
    /// `None` while the slot is free.
    call: Option<Call>,
    waker: Waker,
    signal: Arc<Signal>,
}

/// Where calls and deadlines enter: hyper's executor for one connection.
#[derive(Clone)]
pub struct Spawner(Arc<Shared>);

#[derive(Default)]
struct Shared(Mutex<State>);

#[derive(Default)]
struct State {
    /// Wakes the connection's task.
    task: Option<Waker>,
    arrived: Vec<Call>,
    ready: Vec<usize>,
    deadlines: BTreeMap<DeadlineKey, Waker>,
    deadlines_made: u64,
    /// The connection is gone: what still arrives is dropped.
    closed: bool,
}

type DeadlineKey = (Instant, u64);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The waker of one slot.
struct Signal {
    slot: usize,
    /// Whether the slot is in the ready list already.
    raised: AtomicBool,
    shared: Arc<Shared>,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.raised.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut state = self.shared.lock();
        state.ready.push(self.slot);
        let task = state.task.clone();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            shared: Arc::default(),
            slots: Vec::new(),
            free: Vec::new(),
            turn: Vec::new(),
            timer: Timer::never(),
            armed: None,
        }
    }
}

impl Calls {
    /// The way in.
    pub fn spawner(&self) -> Spawner {
        Spawner(Arc::clone(&self.shared))
    }

    /// Polls the calls that have something to do, then the timer. Wakes `cx` when there is more.
    ///
    /// To be called after hyper's connection in each turn of their common task: what that has spawned starts here.
    pub fn poll(&mut self, cx: &mut Context<'_>) {
        let arrived = {
            let mut state = self.shared.lock();
            if !state.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                state.task = Some(cx.waker().clone());
            }
            std::mem::swap(&mut state.ready, &mut self.turn);
            std::mem::take(&mut state.arrived)
        };
        for call in arrived {
            let slot = self.place(call);
            self.turn.push(slot);
        }
        let mut turn = std::mem::take(&mut self.turn);
        let now = turn.len().min(POLLS_PER_TURN_MAX);
        for slot in turn.drain(..now) {
            self.poll_slot(slot);
        }
        if !turn.is_empty() {
            self.shared.lock().ready.append(&mut turn);
            cx.waker().wake_by_ref();
        }
        self.turn = turn;
        self.expire(cx);
    }

    fn place(&mut self, call: Call) -> usize {
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = self.slots.len();
            let raised = AtomicBool::new(false);
            let signal = Arc::new(Signal { slot, raised, shared: Arc::clone(&self.shared) });
            self.slots.push(Slot { call: None, waker: Waker::from(Arc::clone(&signal)), signal });
            slot
        });
        assert!(self.slots[slot].call.replace(call).is_none(), "a free slot holds no call");
        slot
    }

    fn poll_slot(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        // Before the poll: what wakes the call during it must be seen.
        slot.signal.raised.store(false, Ordering::Release);
        // A waker may outlive its call and raise a slot that is free, or taken anew; one idle poll is all that comes of it.
        let Some(call) = &mut slot.call else { return };
        if call.as_mut().poll(&mut Context::from_waker(&slot.waker)).is_ready() {
            slot.call = None;
            self.free.push(index);
        }
    }

    /// Wakes what is past its deadline. The timer is set for the earliest one and left alone when that is withdrawn: calls
    /// mostly end in time, so a busy connection touches the reactor once per time limit instead of once per call.
    fn expire(&mut self, cx: &mut Context<'_>) {
        loop {
            let first = self.shared.lock().deadlines.first_key_value().map(|(key, _)| key.0);
            if let Some(first) = first
                && self.armed.is_none_or(|armed| first < armed)
            {
                self.timer.set_at(first);
                self.armed = Some(first);
            }
            if self.armed.is_none() || Pin::new(&mut self.timer).poll(cx).is_pending() {
                return;
            }
            self.armed = None;
            let now = now();
            let mut due = Vec::new();
            {
                let mut state = self.shared.lock();
                while let Some(entry) = state.deadlines.first_entry()
                    && entry.key().0 <= now
                {
                    due.push(entry.remove());
                }
            }
            due.into_iter().for_each(Waker::wake);
        }
    }

    /// Calls that have not ended.
    #[cfg(test)]
    fn live(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        // Calls hold spawners: left inside, they would keep themselves alive.
        let arrived = std::mem::take(&mut state.arrived);
        let task = state.task.take();
        drop(state);
        drop((arrived, task));
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, call: F) {
        let call: Call = Box::pin(call);
        let mut state = self.0.lock();
        if state.closed {
            drop(state);
            drop(call);
            return;
        }
        // hyper spawns while its connection is polled, and `Calls::poll` follows: nothing has to be woken.
        state.arrived.push(call);
    }
}

impl Spawner {
    /// Resolves at `at`; to be polled by calls of this connection alone.
    pub fn deadline(&self, at: Instant) -> Deadline {
        Deadline { shared: Arc::clone(&self.0), at, registered: None }
    }
}

/// The end of a call's time.
pub struct Deadline {
    shared: Arc<Shared>,
    at: Instant,
    registered: Option<DeadlineKey>,
}

impl Deadline {
    /// Whether its time has come.
    pub fn is_over(&self) -> bool {
        now() >= self.at
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let mut state = this.shared.lock();
        if let Some(key) = this.registered {
            return match state.deadlines.get_mut(&key) {
                // `expire` took it out.
                None => Poll::Ready(()),
                Some(waker) => {
                    waker.clone_from(cx.waker());
                    Poll::Pending
                }
            };
        }
        let key = (this.at, state.deadlines_made);
        state.deadlines_made += 1;
        state.deadlines.insert(key, cx.waker().clone());
        this.registered = Some(key);
        // `Calls::poll` polls calls, then looks at deadlines: nothing has to be woken.
        Poll::Pending
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        if let Some(key) = self.registered {
            self.shared.lock().deadlines.remove(&key);
        }
    }
}

#[cfg(test)]
#[path = "calls_test.rs"]
mod tests;
