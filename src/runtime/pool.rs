//! A few threads for work that may wait for the disk or burn CPU, so that the threads of clients do neither.
//!
//! Owns: the threads and their queue. Must never: run work that waits for other work of the pool (it could wait for ever).
//! Driven by `Handle::blocking`.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use futures_channel::oneshot;

type Job = Box<dyn FnOnce() + Send>;

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
        let (sender, receiver) = oneshot::channel::<Outcome<T>>();
        self.submit(Box::new(move || {
            if !sender.is_canceled() {
                let outcome = catch_unwind(AssertUnwindSafe(work));
                drop(sender.send(outcome));
            }
        }));
        match receiver.await {
            Ok(Ok(value)) => value,
            Ok(Err(payload)) => resume_unwind(payload),
            // The queue drops no job and a job drops its sender only after sending.
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
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            job();
            state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        } else {
            state.idle += 1;
            state = shared.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
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
}
