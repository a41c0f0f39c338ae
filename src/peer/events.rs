//! What the transport tells the node, and the bound on what the node has not taken yet.
//!
//! Owns: the events. Must never: wait for the node inside a callback. Made by `manager` and `lane`.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::hello::{Refusal, Run};
use super::snapshot::IncomingSnapshot;
use crate::consensus::Message;
use crate::ids::MemberId;
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
    /// A member begins to send a snapshot.
    Snapshot(IncomingSnapshot),
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
    #[expect(dead_code, reason = "gives its bytes back when it is dropped")]
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

    /// The messages; from here on they do not count any more.
    pub fn into_messages(self) -> Vec<Message> {
        self.messages
    }
}

/// The bytes of one stream that the node has not handled.
#[derive(Debug, Default)]
pub(super) struct Budget(Mutex<Unhandled>);

#[derive(Debug, Default)]
struct Unhandled {
    bytes: usize,
    reader: Option<Waker>,
}

/// Some of a budget's bytes.
pub(super) struct Hold {
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
            unhandled.reader = Some(context.waker().clone());
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
        let reader = unhandled.reader.take();
        drop(unhandled);
        if let Some(reader) = reader {
            reader.wake();
        }
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
