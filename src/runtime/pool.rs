//! A few threads for work that may wait for the disk or burn CPU, so that the threads of clients do neither.
//!
//! Owns: the threads, and whose turn it is on them: work that comes in slices goes to the end of the queue after each, so that nothing
//! waits for more than a slice of each work before it. Must never: run work that waits for other work of the pool (it could wait for
//! ever), or go on with work that nobody waits for. Driven by `Handle::blocking` and `Handle::in_slices`.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use futures_channel::oneshot;

/// Work in slices; each says whether there are more.
type Job = Box<dyn FnMut() -> Turn + Send>;

/// What a slice says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Again,
    Done,
}

/// A fixed number of worker threads.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    arrived: Condvar,
}

struct State {
    jobs: std::collections::VecDeque<Job>,
    idle: usize,
    spawned: usize,
    threads_max: usize,
}

/// The pool's thread died under the work.
type Outcome<T> = Result<T, Box<dyn Any + Send>>;

impl Pool {
    /// A pool of at most `threads` threads, started as they are first needed.
    pub fn new(threads: usize) -> Self {
        assert!(threads > 0, "a pool without threads runs nothing");
        let state =
            State { jobs: std::collections::VecDeque::new(), idle: 0, spawned: 0, threads_max: threads };
        Self(Arc::new(Shared { state: Mutex::new(state), arrived: Condvar::new() }))
    }

    /// Runs `work` on a thread of the pool. A panic of the work continues in the caller.
    ///
    /// A caller that goes away does not stop work that has begun.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let mut work = Some(work);
        self.run_in_slices(move || work.take().map(|work| work())).await
    }

    /// Runs `slice` on threads of the pool, one after the other, until it answers. In between others have their turns, and a caller that
    /// has gone away ends it. A panic of the work continues in the caller.
    pub async fn run_in_slices<T: Send + 'static>(
        &self,
        mut slice: impl FnMut() -> Option<T> + Send + 'static,
    ) -> T {
        let (sender, receiver) = oneshot::channel::<Outcome<T>>();
        let mut sender = Some(sender);
        self.submit(Box::new(move || {
            if sender.as_ref().is_none_or(oneshot::Sender::is_canceled) {
                return Turn::Done;
            }
            let Some(outcome) = catch_unwind(AssertUnwindSafe(&mut slice)).transpose() else {
                return Turn::Again;
            };
            drop(sender.take().map(|sender| sender.send(outcome)));
            Turn::Done
        }));
        match receiver.await {
            Ok(Ok(value)) => value,
            Ok(Err(payload)) => resume_unwind(payload),
            // The queue drops no job, and a job that is done has sent.
            Err(oneshot::Canceled) => unreachable!("a submitted job is run"),
        }
    }

    fn submit(&self, job: Job) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.jobs.push_back(job);
        if state.jobs.len() > state.idle && state.spawned < state.threads_max {
            let shared = Arc::clone(&self.0);
            let started = thread::Builder::new().name("pool".into()).spawn(move || work(&shared));
            match started {
                Ok(_) => state.spawned += 1,
                // Another thread will come to the job; with none at all nothing ever would.
                Err(error) => assert!(state.spawned > 0, "cannot start a thread: {error}"),
            }
        }
        drop(state);
        self.0.arrived.notify_one();
    }
}

fn work(shared: &Shared) {
    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(mut job) = state.jobs.pop_front() {
            drop(state);
            let turn = job();
            let again = (turn == Turn::Again).then_some(job);
            state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.jobs.extend(again);
        } else {
            state.idle += 1;
            state = shared.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};

    use super::Pool;

    #[test]
    fn work_runs_and_answers() {
        let pool = Pool::new(2);
        let sum = smol::block_on(async {
            let mut sum = 0;
            for n in 0..100_u64 {
                sum += pool.run(move || n * 2).await;
            }
            sum
        });
        assert_eq!(sum, 9900);
    }

    #[test]
    #[should_panic(expected = "from the work")]
    fn a_panic_reaches_the_caller() {
        let pool = Pool::new(1);
        smol::block_on(pool.run(|| panic!("from the work")));
    }

    /// One thread, a read without end before the others in the queue: each of them comes to its turn all the same.
    #[test]
    fn long_work_does_not_keep_others_waiting_and_ends_with_its_caller() {
        let pool = Pool::new(1);
        let slices = Arc::new(AtomicUsize::new(0));
        let (dropped, drops) = mpsc::channel::<()>();
        let counted = Arc::clone(&slices);
        let mut endless = Box::pin(pool.run_in_slices(move || {
            // Lives as long as the work does.
            let _ = &dropped;
            counted.fetch_add(1, Ordering::Relaxed);
            None::<()>
        }));
        smol::block_on(async {
            assert!(smol::future::poll_once(&mut endless).await.is_none());
            for n in 0..100 {
                assert_eq!(pool.run(move || n).await, n);
            }
        });
        assert!(slices.load(Ordering::Relaxed) >= 99, "a slice at least between any two others");
        drop(endless);
        assert!(drops.recv().is_err(), "the work is dropped, and with it all that it holds");
    }

    #[test]
    fn slices_end_with_an_answer_or_a_panic() {
        let pool = Pool::new(2);
        smol::block_on(async {
            let mut left = 5;
            let answer = pool.run_in_slices(move || {
                left -= 1;
                (left == 0).then_some("done")
            });
            assert_eq!(answer.await, "done");
        });
    }
}
