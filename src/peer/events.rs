//! What the transport tells the node, and the bound on what the node has not taken yet.
//!
//! Owns: the events. Must never: wait for the node inside a callback. Made by `manager` and `lane`.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::Bytes;

use super::hello::Refusal;
use crate::consensus::Message;
use crate::ids::{MemberId, Run};
use crate::limits::PEER_UNHANDLED_BYTES_MAX;

/// Where events go. It is called on the transport's thread and must hand them on without waiting.
pub type Events = Arc<dyn Fn(Event) + Send + Sync>;

/// Something that the node should know.
#[derive(Debug)]
pub enum Event {
    /// Messages have come.
    Messages(Received),
    /// What was sent to this member lately may be lost: it is not connected, or its queue was full.
    Unreachable(MemberId),
    /// A connection with this member is in use. One that replaces another comes as another event of this kind.
    Connected {
        /// With whom.
        member: MemberId,
        /// Where it is.
        address: SocketAddr,
        /// Which run of it.
        run: Run,
    },
    /// One end has refused the other. Of many alike, one a minute.
    Refused {
        /// The member, where one was meant or its key was known.
        member: Option<MemberId>,
        /// Where it is.
        address: SocketAddr,
        /// Who refused.
        by: RefusedBy,
        /// Why.
        why: Refusal,
    },
    /// A large thing has come ([`Transport::send_parcel`](super::Transport::send_parcel)).
    Parcel {
        /// Who sent it.
        from: MemberId,
        /// What it is.
        body: Bytes,
        /// While it is kept, the parcel counts against what may come from there.
        hold: Hold,
    },
    /// A member asks something; see [`Transport::answer`](super::Transport::answer).
    Question {
        /// Who asks.
        from: MemberId,
        /// The question's number.
        number: u64,
        /// What is asked.
        body: Bytes,
    },
    /// The answer to [`Transport::ask`](super::Transport::ask).
    Answer {
        /// Who answers.
        from: MemberId,
        /// The question's number.
        number: u64,
        /// What is answered.
        body: Bytes,
    },
}

/// Which end refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusedBy {
    /// This node.
    Us,
    /// The other end.
    Them,
}

/// Messages of one member. While they are held, they count against what may come from it.
#[derive(Debug)]
pub struct Received {
    /// Who sent them: its key was checked, and each of them says so, too.
    pub from: MemberId,
    messages: Vec<Message>,
    hold: Hold,
}

impl Received {
    pub(super) fn new(from: MemberId, messages: Vec<Message>, hold: Hold) -> Self {
        Self { from, messages, hold }
    }

    /// The messages, in the order of their stream.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The messages, and what keeps them counted until it is dropped.
    pub fn into_parts(self) -> (Vec<Message>, Hold) {
        (self.messages, self.hold)
    }
}

/// The bytes of one stream that the node has not handled.
#[derive(Debug, Default)]
pub(super) struct Budget(Mutex<Unhandled>);

#[derive(Debug, Default)]
struct Unhandled {
    bytes: usize,
    /// Several streams may share a budget, as many as QUIC lets the other end open.
    readers: Vec<Waker>,
}

/// Some of what may come before anything is handled. Dropped, it gives that back.
pub struct Hold {
    budget: Arc<Budget>,
    bytes: usize,
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hold({} bytes)", self.bytes)
    }
}

impl Budget {
    fn lock(&self) -> MutexGuard<'_, Unhandled> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until less than the bound is unhandled. One frame may then exceed it.
    pub(super) async fn room(&self) {
        poll_fn(|context| {
            let mut unhandled = self.lock();
            if unhandled.bytes < PEER_UNHANDLED_BYTES_MAX {
                return Poll::Ready(());
            }
            if !unhandled.readers.iter().any(|reader| reader.will_wake(context.waker())) {
                unhandled.readers.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    pub(super) fn hold(self: &Arc<Self>, bytes: usize) -> Hold {
        self.lock().bytes += bytes;
        Hold { budget: Arc::clone(self), bytes }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut unhandled = self.budget.lock();
        unhandled.bytes -= self.bytes;
        let readers = std::mem::take(&mut unhandled.readers);
        drop(unhandled);
        readers.into_iter().for_each(Waker::wake);
    }
}

#[test]
fn a_reader_waits_while_too_much_is_unhandled() {
    let budget = Arc::new(Budget::default());
    let has_room = || smol::block_on(smol::future::poll_once(budget.room())).is_some();
    let small = budget.hold(1);
    assert!(has_room());
    let large = budget.hold(PEER_UNHANDLED_BYTES_MAX);
    assert!(!has_room());
    drop(small);
    assert!(!has_room());
    drop(large);
    assert!(has_room());
    assert_eq!(budget.lock().bytes, 0);
}

/// Each would wait for ever that is not woken.
#[test]
fn all_readers_that_wait_go_on() {
    let budget = Arc::new(Budget::default());
    let large = budget.hold(PEER_UNHANDLED_BYTES_MAX);
    let executor = smol::LocalExecutor::new();
    let reader = || {
        let budget = Arc::clone(&budget);
        executor.spawn(async move { budget.room().await })
    };
    let readers = [reader(), reader(), reader()];
    while executor.try_tick() {}
    assert!(readers.iter().all(|reader| !reader.is_finished()));
    drop(large);
    while executor.try_tick() {}
    assert!(readers.iter().all(smol::Task::is_finished));
}
