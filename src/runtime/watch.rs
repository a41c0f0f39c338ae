//! The watch thread, and the way to it for the streams of clients.
//!
//! Owns: the hub while the node runs, and when it looks at a new view. Must never: hold a view while it waits, for that keeps the
//! store's pages. Driven by its mailbox.
//!
//! A poke says that there is a newer view. It is sent only while there are watchers, and not again before the thread has seen the last:
//! both are settled by the order of flag and view on either side.
//!
//! ```text
//! applier: publish the view, then look at the flags       thread: set the flags, then load the view
//! ```
//!
//! Either the thread loads the new view, or the applier sees the flags.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use super::handle::{Handle, Shared};
use super::threads::{Context, Fault};
use super::{Drained, Mailbox, ServeError};
use crate::ids::Revision;
use crate::limits::WATCH_REQUESTS_WAITING_ALL_BYTES_MAX;
use crate::watch::{End, Hub, Input, Outlet, Refusal, Request, Response, StreamId, Taken};

/// What the watch thread shares with everybody else.
#[derive(Default)]
pub(super) struct Watches {
    pub(super) mailbox: Mailbox<Input>,
    /// Whether anybody wants to hear of new views.
    watched: AtomicBool,
    /// Whether a poke is in the mailbox.
    poked: AtomicBool,
    /// The revision up to which watchers that keep up have been told.
    told: AtomicI64,
    /// Whether streams wait for memory that others hold.
    short: Arc<AtomicBool>,
    /// Bytes of all requests in the mailbox.
    waiting: AtomicUsize,
    streams: AtomicU64,
}

impl Watches {
    /// Whether watchers that keep up have still to be told of something at or below `revision`: what they were kept from only because the thread
    /// has not had its turn yet must not be removed meanwhile.
    pub(super) fn needs(&self, revision: Revision) -> bool {
        self.watched.load(Ordering::SeqCst) && self.told.load(Ordering::SeqCst) < revision.0
    }

    /// A request that may wait, from now until [`Watches::note_turn`]: this one, or its refusal.
    fn admit(&self, request: Request) -> Request {
        let bytes = request.bytes();
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        if bytes == 0 || before + bytes <= WATCH_REQUESTS_WAITING_ALL_BYTES_MAX {
            return request;
        }
        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
        Request::Refused(Refusal::TooManyRequests)
    }

    /// It is the turn of what was in the mailbox.
    fn note_turn(&self, input: &Input) {
        if let Input::Request(_, request) = input {
            self.waiting.fetch_sub(request.bytes(), Ordering::Relaxed);
        }
    }

    /// There is a newer view. After it was published.
    pub(super) fn poke(&self) {
        if self.watched.load(Ordering::SeqCst) && !self.poked.swap(true, Ordering::SeqCst) {
            drop(self.mailbox.send(Input::NewView));
        }
    }
}

/// The thread's work.
pub(super) fn run(mut hub: Hub, context: &Context) -> Result<(), Fault> {
    let shared = &context.shared;
    let mut inputs = Vec::new();
    let mut busy = false;
    loop {
        let timeout = || hub.poll_timeout().map(|at| shared.clock.until(at));
        let patience = if busy { Some(Duration::ZERO) } else { timeout() };
        if shared.watches.mailbox.drain(&mut inputs, patience) == Drained::Closed {
            hub.end(End::Stopped);
            return Ok(());
        }
        busy = turn(&mut hub, &mut inputs, context)?;
    }
}

/// Everything that has come in, with the newest view, and one slice for watchers that are behind. Whether there are more slices.
fn turn(hub: &mut Hub, inputs: &mut Vec<Input>, context: &Context) -> Result<bool, Fault> {
    let Context { shared, metrics, .. } = context;
    let watches = &shared.watches;
    watches.poked.store(false, Ordering::SeqCst);
    watches.watched.store(true, Ordering::SeqCst);
    let view = shared.views.load();
    let inputs = inputs.drain(..).inspect(|input| watches.note_turn(input));
    let busy = hub.turn(shared.clock.now(), &view, inputs, |outlet| outlet.wake())?;
    let counts = hub.counts();
    watches.told.store(view.revision().0, Ordering::SeqCst);
    watches.watched.store(counts.watchers > 0, Ordering::SeqCst);
    watches.short.store(counts.starved > 0, Ordering::Relaxed);
    metrics.watch_streams.set(counts.streams as u64);
    metrics.watchers.set(counts.watchers as u64);
    metrics.slow_watchers.set(counts.behind as u64);
    // Counted here alone.
    metrics.events_told.add(counts.told - metrics.events_told.value());
    Ok(busy)
}

/// One client's stream of watchers. Dropping it ends them all.
pub struct Watching {
    shared: Arc<Shared>,
    id: StreamId,
    outlet: Arc<Outlet>,
}

impl Handle {
    /// Whether streams of watchers wait for memory that others hold.
    pub fn watch_shortage(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0.watches.short)
    }

    /// A stream without watchers.
    pub fn watch(&self) -> Watching {
        let shared = Arc::clone(&self.0);
        let id = StreamId(shared.watches.streams.fetch_add(1, Ordering::Relaxed));
        let outlet = Arc::new(Outlet::default());
        let watching = Watching { shared, id, outlet };
        watching.send(Input::Open(id, Arc::clone(&watching.outlet)));
        watching
    }
}

impl Watching {
    fn send(&self, input: Input) {
        // Closed: the node stops.
        if self.shared.watches.mailbox.send(input).is_err() {
            self.outlet.end(End::Stopped);
        }
    }

    /// Whether the client may make another request now. When not, the task that polls [`Watching::poll_next`] is woken in time to ask
    /// again.
    pub fn takes_requests(&self) -> bool {
        self.outlet.takes_requests()
    }

    /// Makes a request. The answer comes among the responses.
    pub fn request(&self, request: Request) {
        let request = self.shared.watches.admit(request);
        self.outlet.note_request(request.bytes());
        self.send(Input::Request(self.id, request));
    }

    /// The next response; an error is the end.
    pub fn poll_next(&self, cx: &mut TaskContext<'_>) -> Poll<Result<Response, ServeError>> {
        match self.outlet.take(cx.waker()) {
            Taken::Nothing => Poll::Pending,
            Taken::End(End::Stopped) => Poll::Ready(Err(ServeError::Stopped)),
            Taken::Response { response, report } => {
                if report {
                    self.send(Input::Room(self.id));
                }
                Poll::Ready(Ok(response))
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.send(Input::Close(self.id));
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::command::KeyRange;
    use crate::watch::{CreateRequest, Filters};

    fn create(key_bytes: usize) -> Request {
        Request::Create(CreateRequest {
            range: KeyRange::single(Bytes::from(vec![b'k'; key_bytes])),
            start: 0,
            watch_id: 0,
            filters: Filters::default(),
            prev_kv: false,
            fragment: false,
            progress_notify: false,
        })
    }

    #[test]
    fn requests_wait_as_long_as_there_is_room_for_their_keys() {
        const HALF: usize = WATCH_REQUESTS_WAITING_ALL_BYTES_MAX / 2;
        let watches = Watches::default();
        let refused = Request::Refused(Refusal::TooManyRequests);
        let waiting: Vec<Request> = (0..3).map(|_| watches.admit(create(HALF))).collect();
        assert_eq!(waiting, [create(HALF), create(HALF), refused.clone()]);
        assert_eq!(watches.admit(create(1)), refused);
        assert_eq!(watches.admit(Request::Progress), Request::Progress, "it has no keys");
        for request in waiting {
            watches.note_turn(&Input::Request(StreamId(1), request));
        }
        assert_eq!(watches.waiting.load(Ordering::Relaxed), 0);
        assert_eq!(watches.admit(create(2 * HALF)), create(2 * HALF));
    }

    #[test]
    fn only_what_somebody_has_still_to_be_told_is_needed() {
        let watches = Watches::default();
        assert!(!watches.needs(Revision(7)), "nobody watches");
        watches.watched.store(true, Ordering::SeqCst);
        assert!(watches.needs(Revision(7)), "somebody may, from a view that is older");
        watches.told.store(7, Ordering::SeqCst);
        assert!(!watches.needs(Revision(7)) && watches.needs(Revision(8)));
    }
}
