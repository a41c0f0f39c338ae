//! One connection in use: its tasks and its end.
//!
//! Owns: the streams after the hellos. Must never: outlive the trust in its key. Made and dropped by `manager`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quinn::{Connection, RecvStream, VarInt};
use smol::Task;

use super::endpoint::canonical;
use super::events::{Budget, Event};
use super::frame::{FrameError, StreamKind};
use super::greet::{CLOSED_PROTOCOL, CLOSED_REPLACED, Greeted};
use super::hello::Refusal;
use super::lane::{self, Ends, LaneError};
use super::manager::Input;
use super::outbox::{Lane, LinkId, Outbox};
use super::parcel;
use super::shared::Shared;
use crate::ids::Run;
use crate::time::Instant;

/// How long a connection that was replaced may take to bring what it has.
const LINGER: Duration = Duration::from_millis(500);
const APPEND_PRIORITY: i32 = 1;
/// After so many looks in a row that found packets sent and none received, the other end is silent. A process that was stopped for long has one such look, whatever waits for it.
const UNANSWERED_LOOKS: u32 = 2;

/// Whether the other end of a connection is still heard, by how many packets have come and gone.
#[derive(Debug, Default)]
struct Ear {
    received: u64,
    sent: u64,
    unanswered: u32,
}

impl Ear {
    fn is_silent(&self) -> bool {
        self.unanswered >= UNANSWERED_LOOKS
    }

    /// So many have come and gone until now. Where nothing was sent, there was nothing to answer; who is silent stays so until something comes.
    fn look(&mut self, received: u64, sent: u64) {
        if received != self.received || (sent == self.sent && !self.is_silent()) {
            self.unanswered = 0;
        } else {
            self.unanswered = self.unanswered.saturating_add(1);
        }
        (self.received, self.sent) = (received, sent);
    }
}

/// A connection in use. Dropped, its tasks end; the connection itself has to be closed before.
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) connection: Connection,
    /// This node dialled.
    pub(super) dialled: bool,
    pub(super) run: Run,
    pub(super) since: Instant,
    ear: Ear,
    /// Writers that have not brought everything to the other end.
    writing: Arc<AtomicUsize>,
    tasks: Vec<Task<()>>,
}

impl Link {
    /// Sets the streams going. The outbox has to be attached to `id` before.
    pub(super) fn start(
        shared: &Arc<Shared>,
        outbox: &Arc<Outbox>,
        id: LinkId,
        (connection, greeted, dialled): (Connection, Greeted, bool),
    ) -> Self {
        let ends = Ends { us: shared.own.member, them: greeted.hello.from };
        let run = greeted.hello.run;
        let writing = Arc::new(AtomicUsize::new(2));
        let (since, ear) = (shared.clock.now(), Ear::default());
        let mut link = Self { id, connection, dialled, run, since, ear, writing, tasks: Vec::new() };
        link.write_control(shared, outbox, greeted.send);
        link.read_control(shared, ends, greeted.recv);
        link.write_append(shared, outbox);
        link.accept_streams(shared, ends);
        link.watch(shared, ends);
        link
    }

    pub(super) fn address(&self) -> SocketAddr {
        canonical(self.connection.remote_address())
    }

    /// Whether nothing comes any more, though there would be something to answer.
    pub(super) fn is_silent(&self) -> bool {
        self.ear.is_silent()
    }

    /// A look from time to time: whether it has become silent, or is no longer, by this one.
    pub(super) fn look(&mut self) -> bool {
        let before = self.is_silent();
        let stats = self.connection.stats();
        self.ear.look(stats.udp_rx.datagrams, stats.udp_tx.datagrams);
        self.is_silent() != before
    }

    fn write_control(&mut self, shared: &Arc<Shared>, outbox: &Arc<Outbox>, mut stream: quinn::SendStream) {
        let (connection, outbox) = (self.connection.clone(), Arc::clone(outbox));
        let (id, writing) = (self.id, Arc::clone(&self.writing));
        self.tasks.extend(shared.host.spawn(async move {
            let written = lane::write(&outbox, Lane::Control, id, &mut stream).await;
            end_of_writer(&connection, written, &writing);
        }));
    }

    fn write_append(&mut self, shared: &Arc<Shared>, outbox: &Arc<Outbox>) {
        let (connection, outbox) = (self.connection.clone(), Arc::clone(outbox));
        let (id, writing) = (self.id, Arc::clone(&self.writing));
        self.tasks.extend(shared.host.spawn(async move {
            // An error here is that of the connection, whose end is watched.
            let Ok(mut stream) = connection.open_uni().await else { return };
            let _ = stream.set_priority(APPEND_PRIORITY);
            let written = match stream.write_all(&StreamKind::Append.preamble()).await {
                Ok(()) => lane::write(&outbox, Lane::Append, id, &mut stream).await,
                Err(error) => Err(error.into()),
            };
            end_of_writer(&connection, written, &writing);
        }));
    }

    fn read_control(&mut self, shared: &Arc<Shared>, ends: Ends, mut stream: RecvStream) {
        let (connection, events) = (self.connection.clone(), Arc::clone(&shared.events));
        self.tasks.extend(shared.host.spawn(async move {
            let read = lane::read(Lane::Control, ends, &events, &mut stream).await;
            end_of_lane(&connection, read);
        }));
    }

    fn accept_streams(&mut self, shared: &Arc<Shared>, ends: Ends) {
        let (connection, shared_here) = (self.connection.clone(), Arc::clone(shared));
        let appends = Arc::new(AtomicUsize::new(0));
        let parcels = Arc::new(Budget::default());
        self.tasks.extend(shared.host.spawn(async move {
            // QUIC bounds how many there are at a time; those that have ended are swept with the next one.
            let mut streams: Vec<Task<()>> = Vec::new();
            while let Ok(stream) = connection.accept_uni().await {
                streams.retain(|task| !task.is_finished());
                let (connection, shared) = (connection.clone(), Arc::clone(&shared_here));
                let (appends, parcels) = (Arc::clone(&appends), Arc::clone(&parcels));
                let host = shared_here.host.clone();
                streams.extend(host.spawn(async move {
                    let read = read_stream(&shared, ends, stream, (&appends, &parcels)).await;
                    end_of_lane(&connection, read);
                }));
            }
        }));
    }

    fn watch(&mut self, shared: &Arc<Shared>, ends: Ends) {
        let (connection, inputs, link) = (self.connection.clone(), shared.inputs.clone(), self.id);
        self.tasks.extend(shared.host.spawn(async move {
            let error = connection.closed().await;
            let _ = inputs.try_send(Input::LinkDown { member: ends.them, link, error });
        }));
    }

    /// Another connection has taken over: what was written here still gets its time to arrive.
    pub(super) fn retire(&mut self, shared: &Arc<Shared>) {
        let (connection, inputs) = (self.connection.clone(), shared.inputs.clone());
        let (link, writing, host) = (self.id, Arc::clone(&self.writing), shared.host.clone());
        self.tasks.extend(shared.host.spawn(async move {
            host.sleep(LINGER).await;
            connection.close(VarInt::from_u32(CLOSED_REPLACED), b"replaced by another connection");
            if writing.load(Ordering::Relaxed) > 0 {
                let _ = inputs.try_send(Input::RetiredWithLoss { link });
            }
        }));
    }

    /// The key is not trusted any more.
    pub(super) fn refuse(&self, refusal: &Refusal) {
        self.connection.close(VarInt::from_u32(refusal.kind.code()), refusal.sentence.as_bytes());
    }
}

fn end_of_writer(connection: &Connection, written: Result<(), LaneError>, writing: &AtomicUsize) {
    if written.is_ok() {
        writing.fetch_sub(1, Ordering::Relaxed);
    }
    end_of_lane(connection, written);
}

/// A lane that cannot go on takes the connection with it: the watcher sees it end, and a new one begins with clean streams.
pub(super) fn end_of_lane(connection: &Connection, result: Result<(), LaneError>) {
    if let Err(error) = result
        && connection.close_reason().is_none()
    {
        let text = error.to_string();
        tracing::warn!(address = %connection.remote_address(), %error, "closed a connection with a member");
        connection.close(VarInt::from_u32(CLOSED_PROTOCOL), text.as_bytes());
    }
}

async fn read_stream(
    shared: &Shared,
    ends: Ends,
    mut stream: RecvStream,
    (appends, parcels): (&AtomicUsize, &Arc<Budget>),
) -> Result<(), LaneError> {
    let mut preamble = [0; 2];
    if let Err(error) = stream.read_exact(&mut preamble).await {
        return match error {
            quinn::ReadExactError::FinishedEarly(_) => Err(FrameError::Truncated.into()),
            quinn::ReadExactError::ReadError(error) => Err(error.into()),
        };
    }
    match StreamKind::parse(preamble)? {
        StreamKind::Append => {
            if appends.fetch_add(1, Ordering::Relaxed) > 0 {
                return Err(FrameError::SecondAppend.into());
            }
            lane::read(Lane::Append, ends, &shared.events, &mut stream).await
        }
        StreamKind::Parcel => {
            parcels.room().await;
            match parcel::receive(&mut stream).await {
                Ok(body) => {
                    let hold = parcels.hold(body.len());
                    (shared.events)(Event::Parcel { from: ends.them, body, hold });
                }
                // Its sender has given it up; nothing else on the connection suffers from that.
                Err(LaneError::Read(quinn::ReadError::Reset(_))) => {}
                Err(error) => return Err(error),
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_nothing_is_silent_and_who_is_asked_nothing_is_not() {
        let mut ear = Ear::default();
        let mut look = |received, sent| {
            ear.look(received, sent);
            ear.is_silent()
        };
        assert!(!look(5, 5));
        assert!((0..10).all(|_| !look(5, 5)), "nothing to answer");
        assert!(!look(5, 6), "the answer may be on its way");
        assert!(!look(6, 7));
        assert!(!look(6, 8));
        assert!(!look(6, 8));
        assert!(!look(6, 9), "in a row");
        assert!(look(6, 10));
        assert!(look(6, 10), "still");
        assert!(!look(7, 10), "heard again");
    }
}
