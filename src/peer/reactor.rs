//! How the transport's thread waits: one `poll(2)` for its socket, its timers, and whoever rings from another thread.
//!
//! Owns: timers and wakers. Must never: be used by another thread for more than ringing. Driven by the thread itself.
//!
//! smol's reactor is one for the whole process. With two threads that wait on it, each event wakes the one that holds it, then
//! a helper thread, then the one that is meant: some 20 wakeups for a heartbeat, where this needs four.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use quinn::AsyncTimer;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// When a timer is due, and a number, for two may be due at the same time.
type TimerKey = (Instant, u64);

/// The thread's waiting.
pub(super) struct Reactor {
    socket: Arc<UdpSocket>,
    bell: OwnedFd,
    /// Somebody has something for the thread.
    rung: AtomicBool,
    /// The thread waits, or is about to: it has to be rung for.
    asleep: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    timers: BTreeMap<TimerKey, Waker>,
    last_timer: u64,
    reader: Option<Waker>,
    writers: Vec<Waker>,
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reactor")
    }
}

/// The time that timers are measured in.
#[expect(clippy::disallowed_methods, reason = "deadlines of sockets end here and never enter the core")]
fn now() -> Instant {
    Instant::now()
}

impl Wake for Reactor {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

impl Reactor {
    pub(super) fn new(socket: Arc<UdpSocket>) -> io::Result<Arc<Self>> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (rung, asleep) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Arc::new(Self { socket, bell, rung, asleep, waiting: Mutex::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the thread look again. A system call only when it sleeps: it declares that before it looks at `rung` for the last time.
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) && self.asleep.load(Ordering::SeqCst) {
            // It can only fail when the count is full, and then it rings anyway.
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    /// Runs this to its end on the calling thread.
    pub(super) fn run<T>(self: &Arc<Self>, work: impl Future<Output = T>) -> T {
        let waker = Waker::from(Arc::clone(self));
        let mut context = Context::from_waker(&waker);
        let mut work = pin!(work);
        loop {
            self.rung.store(false, Ordering::SeqCst);
            if let Poll::Ready(value) = work.as_mut().poll(&mut context) {
                return value;
            }
            self.wait();
        }
    }

    /// Waits until something happens, or only looks whether it has when the thread was rung for meanwhile.
    fn wait(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        let (mut interest, deadline) = {
            let waiting = self.lock();
            let mut interest = PollFlags::empty();
            interest.set(PollFlags::IN, waiting.reader.is_some());
            interest.set(PollFlags::OUT, !waiting.writers.is_empty());
            (interest, waiting.timers.keys().next().map(|(at, _)| *at))
        };
        let patience = if self.rung.load(Ordering::SeqCst) {
            Some(Duration::ZERO)
        } else {
            deadline.map(|at| at.saturating_duration_since(now()))
        };
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut descriptors = [PollFd::new(&*self.socket, interest), PollFd::new(&self.bell, PollFlags::IN)];
        // Interrupted, it looks at everything once more.
        let happened = poll(&mut descriptors, patience.as_ref()).unwrap_or(0);
        self.asleep.store(false, Ordering::SeqCst);
        interest = PollFlags::empty();
        if happened > 0 {
            interest = descriptors[0].revents();
            if !descriptors[1].revents().is_empty() {
                let _ = rustix::io::read(&self.bell, &mut [0_u8; 8]);
            }
        }
        self.wake_due(interest);
    }

    fn wake_due(&self, ready: PollFlags) {
        let failed = PollFlags::ERR | PollFlags::HUP;
        let mut due = Vec::new();
        let mut waiting = self.lock();
        if ready.intersects(PollFlags::IN | failed) {
            due.extend(waiting.reader.take());
        }
        if ready.intersects(PollFlags::OUT | failed) {
            due.append(&mut waiting.writers);
        }
        if !waiting.timers.is_empty() {
            let now = now();
            while let Some(first) = waiting.timers.first_entry().filter(|first| first.key().0 <= now) {
                due.push(first.remove());
            }
        }
        drop(waiting);
        due.into_iter().for_each(Waker::wake);
    }

    /// The socket has nothing to read now: wake this one when it has.
    pub(super) fn set_reader(&self, waker: &Waker) {
        self.lock().reader = Some(waker.clone());
    }

    /// The socket takes nothing now: wake this one when it does.
    pub(super) fn add_writer(&self, waker: &Waker) {
        self.lock().writers.push(waker.clone());
    }

    pub(super) fn timer(self: &Arc<Self>, at: Instant) -> ReactorTimer {
        ReactorTimer { reactor: Arc::clone(self), at, key: None }
    }

    /// Waits this long.
    pub(super) async fn sleep(self: &Arc<Self>, time: Duration) {
        let mut timer = self.timer(now() + time);
        poll_fn(|context| Pin::new(&mut timer).poll(context)).await;
    }
}

/// One timer.
#[derive(Debug)]
pub(super) struct ReactorTimer {
    reactor: Arc<Reactor>,
    at: Instant,
    /// Where it waits; none before it is polled and after it was due.
    key: Option<TimerKey>,
}

impl ReactorTimer {
    fn cancel(&mut self) {
        if let Some(key) = self.key.take() {
            self.reactor.lock().timers.remove(&key);
        }
    }
}

impl AsyncTimer for ReactorTimer {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        if self.at != at {
            self.cancel();
            self.at = at;
        }
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.at <= now() {
            self.cancel();
            return Poll::Ready(());
        }
        let (at, key) = (self.at, self.key);
        let mut waiting = self.reactor.lock();
        let key = key.unwrap_or_else(|| {
            waiting.last_timer += 1;
            (at, waiting.last_timer)
        });
        waiting.timers.insert(key, context.waker().clone());
        drop(waiting);
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for ReactorTimer {
    fn drop(&mut self) {
        self.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use smol::channel::unbounded;
    use smol::future::{or, zip};

    use super::*;

    fn reactor() -> (Arc<Reactor>, Arc<UdpSocket>) {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        socket.set_nonblocking(true).unwrap();
        (Reactor::new(Arc::clone(&socket)).unwrap(), socket)
    }

    #[test]
    fn timers_end_in_their_order_and_not_too_early() {
        let (reactor, _) = reactor();
        let began = now();
        let order = Mutex::new(Vec::new());
        let sleep = |time: u64| {
            let (reactor, order) = (&reactor, &order);
            async move {
                reactor.sleep(Duration::from_millis(time)).await;
                order.lock().unwrap().push((time, began.elapsed()));
            }
        };
        reactor.run(zip(zip(sleep(30), sleep(10)), zip(sleep(20), sleep(0))));
        let order = order.into_inner().unwrap();
        assert_eq!(order.iter().map(|(time, _)| *time).collect::<Vec<_>>(), [0, 10, 20, 30]);
        assert!(order.iter().all(|(time, took)| *took >= Duration::from_millis(*time)), "{order:?}");
        assert!(reactor.lock().timers.is_empty());
    }

    #[test]
    fn a_timer_that_is_dropped_or_moved_leaves_nothing() {
        let (reactor, _) = reactor();
        let hour = Duration::from_secs(3600);
        reactor.run(or(reactor.sleep(hour), reactor.sleep(Duration::from_millis(1))));
        assert!(reactor.lock().timers.is_empty());
        let mut timer = reactor.timer(now() + hour);
        reactor.run(async {
            let pending = poll_fn(|context| Poll::Ready(Pin::new(&mut timer).poll(context))).await;
            assert!(pending.is_pending());
            Pin::new(&mut timer).reset(now() + Duration::from_millis(1));
            poll_fn(|context| Pin::new(&mut timer).poll(context)).await;
        });
        assert!(reactor.lock().timers.is_empty());
    }

    /// Whatever the moment at which the other thread rings, it is heard.
    #[test]
    fn a_ring_from_another_thread_is_never_missed() {
        let (reactor, _) = reactor();
        let (there, from_here) = unbounded::<u32>();
        let (back, answers) = unbounded::<u32>();
        let echo = thread::spawn(move || {
            while let Ok(n) = from_here.recv_blocking() {
                back.send_blocking(n).unwrap();
            }
        });
        let began = now();
        reactor.run(async {
            for n in 0..20_000 {
                there.send(n).await.unwrap();
                assert_eq!(answers.recv().await, Ok(n));
            }
        });
        assert!(began.elapsed() < Duration::from_secs(60), "a missed ring waits for ever");
        drop(there);
        echo.join().unwrap();
    }

    #[test]
    fn a_reader_wakes_when_something_comes_and_a_writer_at_once() {
        let (reactor, socket) = reactor();
        let to = socket.local_addr().unwrap();
        let sender =
            thread::spawn(move || UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", to).unwrap());
        let length = reactor.run(poll_fn(|context| {
            if let Ok(length) = socket.recv(&mut [0; 9]) {
                return Poll::Ready(length);
            }
            reactor.set_reader(context.waker());
            Poll::Pending
        }));
        assert_eq!(length, sender.join().unwrap());
        let mut polls = 0;
        reactor.run(poll_fn(|context| {
            polls += 1;
            if polls == 2 {
                return Poll::Ready(());
            }
            reactor.add_writer(context.waker());
            Poll::Pending
        }));
    }
}
