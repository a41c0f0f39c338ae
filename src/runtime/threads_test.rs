//! A node of which a test plays the threads.

use redb::backends::InMemoryBackend;

use super::super::clock::Clock;
use super::super::handle::{AdmissionOptions, Handle, NodeIds};
use super::*;
use crate::formation::first_state_of;
use crate::ids::{ClusterId, MemberId, PublicKey};
use crate::store::{Store, StoreOptions};

/// A node of which a test plays the threads.
fn context() -> Context {
    let member = MemberId(1);
    let mut store = Store::open(InMemoryBackend::new(), StoreOptions::default()).unwrap();
    store.initialise(&first_state_of(member, PublicKey([1; 32])).0).unwrap();
    let ids = NodeIds { cluster: ClusterId(1), member, boot_nonce: 1 };
    let admission = AdmissionOptions { request_bytes: 1024, quota: None };
    let base = Arc::new(store.base().unwrap());
    let shared = Arc::new(Shared::new(ids, admission, Clock::start(), base, 0).unwrap());
    let metrics = Arc::new(Metrics::new([]));
    Context { queues: Arc::clone(&shared.queues), shared, metrics }
}

fn asked(context: &Context) -> Vec<ReadId> {
    context.shared.arrivals.take().into_iter().map(ReadId).collect()
}

fn wakes(context: &Context) -> usize {
    let mut inputs = Vec::new();
    context.shared.core.drain(&mut inputs, Some(Duration::ZERO));
    inputs.iter().filter(|input| matches!(input, CoreInput::ReadsWait)).count()
}

/// Answers what the read came to, once it has.
async fn now(read: impl Future<Output = Result<(), ServeError>> + Unpin) -> Option<Result<(), ServeError>> {
    smol::future::poll_once(read).await
}

#[test]
fn a_read_waits_for_the_state_but_not_for_ever() {
    let context = context();
    let handle = Handle(Arc::clone(&context.shared));
    let mut standing = Standing::default();
    let ready = |reads, index| CoreOutput::ReadReady(reads, LogIndex(index));
    let applied = |index| ApplierOutput::Applied { index: LogIndex(index), bytes: 0 };
    smol::block_on(async {
        let mut reads = [Box::pin(handle.read_barrier()), Box::pin(handle.read_barrier())];
        for read in &mut reads {
            assert_eq!(now(read).await, None);
        }
        let [early, late] = asked(&context)[..] else { panic!("two reads ask") };
        carry_out_core(ready(vec![early], 5), &context, &mut standing);
        carry_out_core(ready(vec![late], 9), &context, &mut standing);
        assert_eq!(now(&mut reads[0]).await, None, "its index is not applied yet");
        carry_out_applier(applied(5), &context);
        assert_eq!(now(&mut reads[0]).await, Some(Ok(())));

        let began = context.shared.clock.now();
        sweep(&context, began + REQUEST_TIMEOUT);
        assert_eq!(now(&mut reads[1]).await, None);
        sweep(&context, began + REQUEST_TIMEOUT + SWEEP_INTERVAL);
        assert_eq!(now(&mut reads[1]).await, Some(Err(ServeError::TimedOut)));
        let mut confirmed = context.shared.confirmed.lock().unwrap();
        assert!(confirmed.reach(LogIndex(9)).is_empty(), "nothing is kept for who has gone");
    });
}

#[test]
fn a_read_that_the_core_gives_up_is_told_why() {
    let context = context();
    let handle = Handle(Arc::clone(&context.shared));
    let mut standing = Standing::default();
    smol::block_on(async {
        for (why, error) in [
            (RefusedWhy::TimedOut, ServeError::TimedOut),
            (RefusedWhy::LeaderChanged, ServeError::LeaderChanged),
        ] {
            let mut read = Box::pin(handle.read_barrier());
            assert_eq!(now(&mut read).await, None);
            let request = Request::Read(asked(&context)[0]);
            carry_out_core(CoreOutput::Refused { request, why }, &context, &mut standing);
            assert_eq!(now(&mut read).await, Some(Err(error)));
        }
    });
}

/// Reads that come together cost the core one turn; and the first of them is not waited for.
#[test]
fn reads_that_come_together_wake_the_core_once() {
    let context = context();
    let handle = Handle(Arc::clone(&context.shared));
    smol::block_on(async {
        let mut first = Box::pin(handle.read_barrier());
        assert_eq!(now(&mut first).await, None);
        let mut second = Box::pin(handle.read_barrier());
        assert_eq!(now(&mut second).await, None);
        assert_eq!(wakes(&context), 0, "others that are ready to ask come first");
        assert_eq!(now(&mut first).await, None);
        assert_eq!((wakes(&context), asked(&context).len()), (1, 2));

        let mut given_up = Box::pin(handle.read_barrier());
        assert_eq!(now(&mut given_up).await, None);
        drop(given_up);
        assert_eq!(wakes(&context), 1, "the second of a group relies on it");

        stop(&context);
        assert_eq!(now(Box::pin(handle.read_barrier())).await, Some(Err(ServeError::Stopped)));
    });
}
