//! Items on a connection's streams: one task for each direction of each lane.
//!
//! Owns: the loops between outbox, stream and node. Must never: let one lane wait for another, or hand on a message that names other members
//! than the ends of the connection. Driven by the executor, for as long as `link` keeps them.

use std::sync::Arc;

use quinn::{ReadError, RecvStream, SendStream, WriteError};

use super::events::{Budget, Event, Events, Hold, Received};
use super::frame::{self, FrameError, FrameReader};
use super::item::Item;
use super::outbox::{Lane, LinkId, Outbox};
use crate::consensus::Message;
use crate::ids::MemberId;
use crate::limits::{PEER_FRAME_BYTES_MAX, PEER_WRITE_BYTES};

/// What is taken from a stream at once.
const READ_BYTES: usize = 128 * 1024;

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) us: MemberId,
    pub(super) them: MemberId,
}

/// Why a lane cannot go on. An end of the connection itself is not told here.
#[derive(Debug, thiserror::Error)]
pub(super) enum LaneError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Writes what waits until another connection takes over, and then until the other end has all of it.
pub(super) async fn write(
    outbox: &Outbox,
    lane: Lane,
    link: LinkId,
    stream: &mut SendStream,
) -> Result<(), LaneError> {
    while let Some(items) = outbox.next(lane, link).await {
        let mut rest = &items[..];
        while !rest.is_empty() {
            let (bytes, count) = frame::encode(rest);
            stream.write_chunk(bytes).await?;
            rest = &rest[count..];
        }
    }
    // Fails for a stream that is closed already: then there is nothing to wait for either.
    if stream.finish().is_ok() {
        let _ = stream.stopped().await;
    }
    Ok(())
}

/// Hands on what comes until the stream ends.
pub(super) async fn read(
    lane: Lane,
    ends: Ends,
    events: &Events,
    stream: &mut RecvStream,
) -> Result<(), LaneError> {
    let mut reader = FrameReader::new(match lane {
        Lane::Control => PEER_WRITE_BYTES,
        Lane::Append => PEER_FRAME_BYTES_MAX,
    });
    let budget = Arc::new(Budget::default());
    loop {
        budget.room().await;
        let Some(chunk) = stream.read_chunk(READ_BYTES, true).await? else {
            return if reader.is_between_frames() { Ok(()) } else { Err(FrameError::Truncated.into()) };
        };
        let mut input = &chunk.bytes[..];
        while let Some(body) = reader.next(&mut input)? {
            let hold = budget.hold(body.len());
            hand_on(frame::decode(body)?, hold, ends, events);
        }
    }
}

fn hand_on(items: Vec<Item>, hold: Hold, ends: Ends, events: &Events) {
    let from = ends.them;
    let mut messages = Vec::new();
    for item in items {
        match item {
            Item::Raft(message) if is_between(ends, &message) => messages.push(message),
            Item::Raft(_) => {}
            Item::Question { number, body } => events(Event::Question { from, number, body }),
            Item::Answer { number, body } => events(Event::Answer { from, number, body }),
        }
    }
    if !messages.is_empty() {
        events(Event::Messages(Received::new(from, messages, hold)));
    }
}

/// A forwarded proposal may name the member that made it first. It is dropped, like a message that got lost: its maker asks again.
fn is_between(ends: Ends, message: &Message) -> bool {
    let fits = message.from() == ends.them && message.to() == ends.us;
    if !fits {
        let (from, to) = (message.from(), message.to());
        tracing::debug!(peer = %ends.them, %from, %to, "dropped a message that is between others");
    }
    fits
}
