//! Calls of one connection: slots, wakes, drops and deadlines.

use std::future::{pending, poll_fn};
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use hyper::rt::Executor as _;
use smol::channel;

use super::*;

/// Polls the set as a connection's task would until `until` resolves.
fn drive<T>(calls: &mut Calls, until: impl Future<Output = T>) -> T {
    let mut until = Box::pin(until);
    smol::block_on(poll_fn(|cx| {
        calls.poll(cx);
        until.as_mut().poll(cx)
    }))
}

/// Fails a wait that should have been over long ago.
async fn late<T>() -> T {
    Timer::after(Duration::from_secs(10)).await;
    panic!("nothing came");
}

/// Counts what is alive.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn calls_run_and_free_their_slots() {
    let mut calls = Calls::default();
    let spawner = calls.spawner();
    let (sender, receiver) = channel::unbounded();
    for round in 0..3 {
        for n in 0..500 {
            let sender = sender.clone();
            spawner.execute(async move {
                smol::future::yield_now().await;
                sender.send(n).await.unwrap();
            });
        }
        let sum = drive(&mut calls, async {
            let mut sum = 0;
            for _ in 0..500 {
                sum += receiver.recv().await.unwrap();
            }
            sum
        });
        assert_eq!(sum, 499 * 500 / 2, "round {round}");
    }
    assert_eq!(calls.live(), 0);
    assert_eq!(calls.slots.len(), 500, "slots are used again");
}

#[test]
fn a_wake_from_another_thread_reaches_the_call() {
    let mut calls = Calls::default();
    let (ask, asked) = channel::bounded::<()>(1);
    let (answer, answered) = channel::bounded(1);
    calls.spawner().execute(async move {
        asked.recv().await.unwrap();
        answer.send(7).await.unwrap();
    });
    let other = std::thread::spawn(move || {
        std::thread::park_timeout(Duration::from_millis(20));
        ask.send_blocking(()).unwrap();
    });
    assert_eq!(drive(&mut calls, answered.recv()), Ok(7));
    other.join().unwrap();
}

#[test]
fn dropping_the_connection_drops_started_and_unstarted_calls() {
    let count = Arc::new(AtomicUsize::new(0));
    let mut calls = Calls::default();
    let spawner = calls.spawner();
    for _ in 0..2 {
        let (alive, inside) = (Alive::new(&count), spawner.clone());
        spawner.execute(async move {
            // As hyper's streams do, each call holds the executor that it runs on.
            let _held = (alive, inside);
            pending::<()>().await;
        });
        drive(&mut calls, smol::future::yield_now());
    }
    let (alive, inside) = (Alive::new(&count), spawner.clone());
    spawner.execute(async move {
        let _held = (alive, inside);
        pending::<()>().await;
    });
    assert_eq!(count.load(Ordering::SeqCst), 3);
    drop(calls);
    assert_eq!(count.load(Ordering::SeqCst), 0);
    let alive = Alive::new(&count);
    spawner.execute(async move {
        let _held = alive;
        pending::<()>().await;
    });
    assert_eq!(count.load(Ordering::SeqCst), 0, "nothing starts on a connection that is gone");
}

#[test]
fn deadlines_fire_in_order_and_withdrawn_ones_do_not() {
    let mut calls = Calls::default();
    let spawner = calls.spawner();
    let (sender, receiver) = channel::unbounded();
    let start = now();
    // The timer is set for this one first, an hour from now.
    let withdrawn = spawner.deadline(start + Duration::from_secs(3600));
    spawner.execute(smol::future::or(withdrawn, smol::future::yield_now()));
    drive(&mut calls, smol::future::yield_now());
    for millis in [60, 20, 40] {
        let deadline = spawner.deadline(start + Duration::from_millis(millis));
        let sender = sender.clone();
        spawner.execute(async move {
            deadline.await;
            sender.send(millis).await.unwrap();
        });
    }
    let next = async || smol::future::or(receiver.recv(), late()).await.unwrap();
    let order = drive(&mut calls, async { [next().await, next().await, next().await] });
    assert_eq!(order, [20, 40, 60]);
    assert!(start.elapsed() >= Duration::from_millis(60));
    assert!(calls.shared.lock().deadlines.is_empty());
}
