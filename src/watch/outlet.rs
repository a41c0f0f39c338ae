//! The queue of responses between the hub and one stream.
//!
//! Owns: the bounds on what waits for one client, and who has to be woken. Must never: drop a response, or let a client that does not read
//! collect more than the bounds. Filled by the hub, emptied by the stream's task.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use super::{Message, Response};
use crate::limits::{
    WATCH_REQUESTS_WAITING_BYTES_MAX, WATCH_REQUESTS_WAITING_MAX, WATCH_STREAM_RESPONSES_MAX,
};

/// What a response costs beside its batch, in bytes, about.
const RESPONSE_BYTES: usize = 64;

/// Why a stream has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The node stops.
    Stopped,
}

/// The queue of one stream.
#[derive(Debug, Default)]
pub struct Outlet {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Response>,
    bytes: usize,
    /// Requests that the hub has not handled yet, and their bytes.
    requests: usize,
    request_bytes: usize,
    /// The client was kept from making a request, and nobody has asked again since.
    held_up: bool,
    /// The hub has something for this stream and waits until no more than this is queued.
    wanted: Option<Room>,
    end: Option<End>,
    /// Whether the hub has noted that the reader has to be woken.
    touched: bool,
    reader: Option<Waker>,
}

/// What may be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Responses.
    pub(super) responses: usize,
    /// Bytes; the last response may exceed it.
    pub(super) bytes: usize,
}

impl Room {
    /// For one response at a time: other streams hold what may be held altogether.
    pub(super) const ONE: Room = Room { responses: 1, bytes: 1 };

    /// How empty a full queue must be before more is put in: refilling it for each response that is taken would cost more.
    fn half(self) -> Room {
        Room { responses: self.responses / 2, bytes: self.bytes / 2 }
    }
}

/// What the reader finds.
#[derive(Debug)]
pub enum Taken {
    /// The next response; with `report` the hub must be told that there is room.
    Response {
        /// It.
        response: Response,
        /// Whether to tell.
        report: bool,
    },
    /// Nothing yet: the waker will be woken.
    Nothing,
    /// Nothing more.
    End(End),
}

impl Inner {
    /// Whether there is room; if not, the reader will report it.
    fn claim(&mut self, room: Room) -> bool {
        let has_room = self.queue.len() < room.responses && self.bytes < room.bytes;
        if !has_room {
            self.wanted = Some(room.half());
        }
        has_room
    }

    fn takes_requests(&self) -> bool {
        self.requests < WATCH_REQUESTS_WAITING_MAX
            && self.request_bytes < WATCH_REQUESTS_WAITING_BYTES_MAX
            && self.queue.len() < WATCH_STREAM_RESPONSES_MAX + WATCH_REQUESTS_WAITING_MAX
    }

    fn is_drained(&self, wanted: Room) -> bool {
        self.queue.len() <= wanted.responses && self.bytes <= wanted.bytes
    }

    fn push(&mut self, response: Response) {
        self.bytes += cost(&response);
        self.queue.push_back(response);
    }
}

fn cost(response: &Response) -> usize {
    match &response.message {
        Message::Events { batch, .. } => RESPONSE_BYTES + batch.bytes(),
        _ => RESPONSE_BYTES,
    }
}

impl Outlet {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a response where there is room. Where there is none, the reader will report when there is again.
    pub(super) fn offer(&self, response: Response, room: Room) -> Offered {
        let mut inner = self.lock();
        if !inner.claim(room) {
            return Offered::NoRoom;
        }
        inner.push(response);
        Offered::Queued { first: !std::mem::replace(&mut inner.touched, true) }
    }

    /// Queues an answer to a request; how many requests may wait is bounded, so no room is asked for. [`Outlet::request_handled`]
    /// follows.
    pub(super) fn answer(&self, response: Response) {
        self.lock().push(response);
    }

    /// A request of so many bytes has been handled; the result as `first` of [`Offered::Queued`].
    pub(super) fn request_handled(&self, bytes: usize) -> bool {
        let mut inner = self.lock();
        inner.request_bytes = inner.request_bytes.saturating_sub(bytes);
        inner.requests = inner.requests.saturating_sub(1);
        !std::mem::replace(&mut inner.touched, true)
    }

    /// Whether there is room; if not, the reader will report it.
    pub(super) fn claim(&self, room: Room) -> bool {
        self.lock().claim(room)
    }

    /// Ends the stream.
    pub fn end(&self, end: End) {
        self.lock().end = Some(end);
    }

    /// Wakes the reader, if it waits.
    pub fn wake(&self) {
        let mut inner = self.lock();
        inner.touched = false;
        let reader = inner.reader.take();
        drop(inner);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Whether the client may make another request now. When not, the waker of the next [`Outlet::take`] is woken in time to ask again.
    pub fn takes_requests(&self) -> bool {
        let mut inner = self.lock();
        inner.held_up = !inner.takes_requests();
        !inner.held_up
    }

    /// The client makes a request of so many bytes: it counts until the hub has handled it.
    pub fn note_request(&self, bytes: usize) {
        let mut inner = self.lock();
        inner.requests += 1;
        inner.request_bytes += bytes;
    }

    /// The next response for the client.
    pub fn take(&self, reader: &Waker) -> Taken {
        let mut inner = self.lock();
        if let Some(end) = inner.end {
            return Taken::End(end);
        }
        let Some(response) = inner.queue.pop_front() else {
            match &mut inner.reader {
                Some(waiting) => waiting.clone_from(reader),
                none => *none = Some(reader.clone()),
            }
            // The hub may have handled requests since the reader was told to wait, and have found nobody to wake.
            let ask_again = inner.held_up && inner.takes_requests();
            drop(inner);
            if ask_again {
                reader.wake_by_ref();
            }
            return Taken::Nothing;
        };
        inner.bytes -= cost(&response);
        let report = inner.wanted.is_some_and(|wanted| inner.is_drained(wanted));
        if report {
            inner.wanted = None;
        }
        Taken::Response { response, report }
    }

    /// Whether the reader will tell the hub when there is room.
    #[cfg(test)]
    pub(super) fn will_report(&self) -> bool {
        self.lock().wanted.is_some()
    }

    /// Responses that wait.
    pub fn len(&self) -> usize {
        self.lock().queue.len()
    }

    /// Whether none wait.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// It is in the queue.
    Queued {
        /// Whether nobody has noted yet that the reader must be woken.
        first: bool,
    },
    /// It is not.
    NoRoom,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::ids::Revision;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A reader that looks into the outlet as soon as it is woken.
    struct Looks(Arc<Outlet>, AtomicUsize);

    impl Wake for Looks {
        fn wake(self: Arc<Self>) {
            assert!(self.0.inner.try_lock().is_ok(), "nobody holds it while a reader is woken");
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn progress() -> Response {
        Response { watch_id: 0, revision: Revision(1), message: Message::Progress }
    }

    /// The responses that are taken from a full queue until the hub is told.
    fn taken_until_report(room: Room) -> usize {
        let outlet = Outlet::default();
        while outlet.offer(progress(), room) != Offered::NoRoom {}
        let reported = |_: &usize| matches!(outlet.take(Waker::noop()), Taken::Response { report: true, .. });
        (1..=outlet.len()).find(reported).expect("a full queue is reported")
    }

    #[test]
    fn a_full_queue_is_filled_again_when_it_is_half_empty() {
        assert_eq!(taken_until_report(Room { responses: 8, bytes: usize::MAX }), 4);
        assert_eq!(taken_until_report(Room { responses: usize::MAX, bytes: 8 * RESPONSE_BYTES }), 4);
    }

    #[test]
    fn the_end_comes_before_what_waits_and_wakes_who_waits() {
        let outlet = Arc::new(Outlet::default());
        let looks = Arc::new(Looks(Arc::clone(&outlet), AtomicUsize::new(0)));
        let reader = Waker::from(Arc::clone(&looks));
        assert!(matches!(outlet.take(&reader), Taken::Nothing));
        outlet.answer(progress());
        outlet.end(End::Stopped);
        outlet.wake();
        assert_eq!(looks.1.load(Ordering::Relaxed), 1);
        assert!(matches!(outlet.take(&reader), Taken::End(End::Stopped)));
    }

    /// Large requests wait in small numbers.
    #[test]
    fn waiting_requests_are_bounded_in_bytes_too() {
        let outlet = Outlet::default();
        outlet.note_request(WATCH_REQUESTS_WAITING_BYTES_MAX);
        assert!(!outlet.takes_requests());
        outlet.request_handled(WATCH_REQUESTS_WAITING_BYTES_MAX);
        assert!(outlet.takes_requests());
    }

    /// Requests that have no answer (to cancel what is not there) leave nothing in the queue that would bring the reader back.
    #[test]
    fn a_reader_that_was_told_to_wait_just_before_the_hub_was_done_asks_again() {
        let (outlet, wakes) = (Outlet::default(), Arc::new(Wakes::default()));
        let reader = Waker::from(Arc::clone(&wakes));
        for _ in 0..WATCH_REQUESTS_WAITING_MAX {
            assert!(outlet.takes_requests());
            outlet.note_request(1);
        }
        assert!(!outlet.takes_requests());
        for _ in 0..WATCH_REQUESTS_WAITING_MAX {
            outlet.request_handled(1);
        }
        outlet.wake();
        assert!(matches!(outlet.take(&reader), Taken::Nothing));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        assert!(outlet.takes_requests());
        assert!(matches!(outlet.take(&reader), Taken::Nothing));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1, "nobody is held up any more");
    }
}
