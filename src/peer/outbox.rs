//! What waits to be sent to one member.
//!
//! Owns: two bounded queues, and what gives way when they are full. Must never: block its caller, or keep anything for a member that is not
//! connected: raft sends anew. Filled by the core's thread, emptied by the writers of the current connection.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::frame;
use super::item::Item;
use crate::consensus::MessageClass;
use crate::limits::{
    PEER_APPEND_QUEUE_BYTES_MAX, PEER_CONTROL_MESSAGE_BYTES_MAX, PEER_CONTROL_QUEUE_MAX,
    PEER_FRAME_BYTES_MAX, PEER_PARCELS_MAX, PEER_WRITE_BYTES,
};
use crate::telemetry::metrics::PeerMetrics;

/// One of the two ways to a member that items take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Small and urgent.
    Control,
    /// Everything else.
    Append,
}

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits. Something older may have given way to it.
    Waits,
    /// It is gone, and this is nothing to report, or was reported already.
    Dropped,
    /// It is gone, and raft should know: it counts on what it has sent.
    Lost,
}

/// Numbers a node's connections.
pub(super) type LinkId = u64;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    inner: Mutex<Inner>,
    parcels: AtomicU32,
    pub(super) metrics: Arc<PeerMetrics>,
}

/// One of the places for parcels on their way to a member.
#[derive(Debug)]
pub(super) struct ParcelPlace(Arc<Outbox>);

impl Drop for ParcelPlace {
    fn drop(&mut self) {
        self.0.parcels.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Inner {
    /// The connection whose writers empty the queues; none: nothing is queued.
    link: Option<LinkId>,
    control: Queue,
    append: Queue,
    /// A loss of appends is reported once, until one is queued again.
    loss_reported: bool,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    writer: Option<Waker>,
}

impl Queue {
    fn push(&mut self, item: Item, cost: usize) {
        self.bytes += cost;
        self.items.push_back(item);
    }

    fn clear(&mut self) {
        self.items.clear();
        self.bytes = 0;
    }

    /// Drops the oldest heartbeat, or the oldest of all.
    fn give_way(&mut self) {
        let oldest = self.items.iter().position(|item| item.class() == MessageClass::Heartbeat);
        if let Some(gone) = self.items.remove(oldest.unwrap_or(0)) {
            self.bytes -= frame::cost(&gone);
        }
    }

    /// What one write should take.
    fn take(&mut self) -> Vec<Item> {
        let (mut count, mut bytes) = (0, 0);
        for item in &self.items {
            let cost = frame::cost(item);
            if count > 0 && bytes + cost > PEER_WRITE_BYTES {
                break;
            }
            count += 1;
            bytes += cost;
        }
        self.bytes -= bytes;
        self.items.drain(..count).collect()
    }
}

impl Inner {
    fn queue(&mut self, lane: Lane) -> &mut Queue {
        match lane {
            Lane::Control => &mut self.control,
            Lane::Append => &mut self.append,
        }
    }

    fn wakers(&mut self) -> [Option<Waker>; 2] {
        [self.control.writer.take(), self.append.writer.take()]
    }

    fn lost(&mut self) -> Pushed {
        if std::mem::replace(&mut self.loss_reported, true) { Pushed::Dropped } else { Pushed::Lost }
    }

    fn push_append(&mut self, item: Item, cost: usize) -> Pushed {
        let is_full = !self.append.items.is_empty() && self.append.bytes + cost > PEER_APPEND_QUEUE_BYTES_MAX;
        if cost > PEER_FRAME_BYTES_MAX || is_full {
            return self.lost();
        }
        self.loss_reported = false;
        self.append.push(item, cost);
        Pushed::Waits
    }
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an item into its queue.
    pub(super) fn push(&self, item: Item) -> Pushed {
        let pushed = self.queue(item);
        if pushed != Pushed::Waits {
            self.metrics.sent_failures.add(1);
        }
        pushed
    }

    fn queue(&self, item: Item) -> Pushed {
        let (class, cost) = (item.class(), frame::cost(&item));
        let is_small = cost <= PEER_CONTROL_MESSAGE_BYTES_MAX;
        let mut inner = self.lock();
        let (lane, pushed) = match class {
            MessageClass::Heartbeat | MessageClass::Control if inner.link.is_none() => {
                return Pushed::Dropped;
            }
            MessageClass::Append if inner.link.is_none() => return inner.lost(),
            MessageClass::Heartbeat | MessageClass::Control if is_small => {
                if inner.control.items.len() >= PEER_CONTROL_QUEUE_MAX {
                    inner.control.give_way();
                }
                inner.control.push(item, cost);
                (Lane::Control, Pushed::Waits)
            }
            _ => (Lane::Append, inner.push_append(item, cost)),
        };
        let writer = inner.queue(lane).writer.take();
        drop(inner);
        if let Some(writer) = writer {
            writer.wake();
        }
        pushed
    }

    /// A place for one more parcel; `None` when as many as there may be are on their way.
    pub(super) fn parcel_place(self: &Arc<Self>) -> Option<ParcelPlace> {
        let taken = self.parcels.fetch_add(1, Ordering::Relaxed);
        let place = ParcelPlace(Arc::clone(self));
        (taken < PEER_PARCELS_MAX).then_some(place)
    }

    /// From now on the writers of this connection empty the queues; those of another one end.
    pub(super) fn attach(&self, link: LinkId) {
        self.change(|inner| {
            inner.link = Some(link);
            inner.loss_reported = false;
        });
    }

    /// Nobody empties the queues any more: what waits is dropped. The caller reports the loss.
    pub(super) fn detach(&self) {
        self.change(|inner| {
            inner.link = None;
            inner.control.clear();
            inner.append.clear();
            inner.loss_reported = true;
        });
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock();
        change(&mut inner);
        let writers = inner.wakers();
        drop(inner);
        writers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Waits for something to send by this connection; `None` once another connection has taken over.
    pub(super) async fn next(&self, lane: Lane, link: LinkId) -> Option<Vec<Item>> {
        poll_fn(|context| {
            let mut inner = self.lock();
            if inner.link != Some(link) {
                return Poll::Ready(None);
            }
            let queue = inner.queue(lane);
            if queue.items.is_empty() {
                queue.writer = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Some(queue.take()))
        })
        .await
    }
}

#[cfg(test)]
#[path = "outbox_test.rs"]
mod tests;
