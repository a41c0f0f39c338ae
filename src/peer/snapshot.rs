//! A snapshot on its way from one member to another: a header, chunks, an end.
//!
//! Owns: the framing and the back pressure; both ends go at the pace of the slower one. Must never: take a stream that broke off for one that
//! has ended, or know what is inside. Driven by whoever sends or takes a snapshot, on any thread.
//!
//! ```text
//! preamble, frame with the header, a frame for each chunk, an empty frame
//! ```

use std::fmt;

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream, VarInt};

use super::frame::{FrameError, FrameReader, StreamKind, frame};
use crate::ids::MemberId;
use crate::limits::PEER_SNAPSHOT_CHUNK_MAX;

/// Behind everything else.
const PRIORITY: i32 = 0;
const ABANDONED: VarInt = VarInt::from_u32(1);
/// What is read from the stream at once.
const READ_BYTES: usize = 64 * 1024;

/// Why a snapshot did not get through.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The member is not connected.
    #[error("member {0} is not connected")]
    NotConnected(MemberId),
    /// A header or chunk that is empty or larger than [`PEER_SNAPSHOT_CHUNK_MAX`].
    #[error("a piece of {0} bytes, where 1 to {PEER_SNAPSHOT_CHUNK_MAX} are allowed")]
    Size(usize),
    /// The other end has given up, or the connection has ended.
    #[error("the snapshot broke off: {0}")]
    BrokenOff(String),
    /// The other end sent what is no snapshot.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

fn broken_off(error: impl ToString) -> SnapshotError {
    SnapshotError::BrokenOff(error.to_string())
}

/// The sending end. Dropped before [`SnapshotSender::finish`], it tells the receiver that there is no more to come.
#[derive(Debug)]
pub struct SnapshotSender {
    stream: SendStream,
    finished: bool,
}

impl SnapshotSender {
    /// Waits for one of the connection's places for snapshots.
    pub(super) async fn open(connection: &Connection, header: &[u8]) -> Result<Self, SnapshotError> {
        check(header)?;
        let mut stream = connection.open_uni().await.map_err(broken_off)?;
        stream.set_priority(PRIORITY).map_err(broken_off)?;
        stream.write_all(&StreamKind::Snapshot.preamble()).await.map_err(broken_off)?;
        let mut sender = Self { stream, finished: false };
        sender.write(header).await?;
        Ok(sender)
    }

    /// Sends a chunk, waiting for as long as the receiver is behind.
    pub async fn send(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        check(chunk)?;
        self.write(chunk).await
    }

    /// Ends the snapshot and waits until the other end has all of it.
    pub async fn finish(mut self) -> Result<(), SnapshotError> {
        self.write(&[]).await?;
        self.finished = true;
        self.stream.finish().map_err(broken_off)?;
        match self.stream.stopped().await.map_err(broken_off)? {
            None => Ok(()),
            Some(_) => Err(broken_off("the receiver has given up")),
        }
    }

    async fn write(&mut self, body: &[u8]) -> Result<(), SnapshotError> {
        self.stream.write_chunk(frame(body)).await.map_err(broken_off)
    }
}

fn check(piece: &[u8]) -> Result<(), SnapshotError> {
    match piece.len() {
        1..=PEER_SNAPSHOT_CHUNK_MAX => Ok(()),
        length => Err(SnapshotError::Size(length)),
    }
}

impl Drop for SnapshotSender {
    fn drop(&mut self) {
        if !self.finished {
            // Without this, the stream would end as if all had been said.
            let _ = self.stream.reset(ABANDONED);
        }
    }
}

/// The receiving end. Dropped early, it tells the sender to stop.
pub struct IncomingSnapshot {
    /// Who sends it.
    pub from: MemberId,
    /// What it begins with.
    pub header: Bytes,
    pieces: Pieces,
}

impl fmt::Debug for IncomingSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IncomingSnapshot(from {}, header of {} bytes)", self.from, self.header.len())
    }
}

impl IncomingSnapshot {
    /// Reads the header of a stream whose preamble was read.
    pub(super) async fn begin(from: MemberId, stream: RecvStream) -> Result<Self, SnapshotError> {
        let reader = FrameReader::new(PEER_SNAPSHOT_CHUNK_MAX);
        let mut pieces = Pieces { stream, reader, unread: Bytes::new(), ended: false };
        let header = pieces.next().await?.ok_or(FrameError::Truncated)?;
        Ok(Self { from, header, pieces })
    }

    /// The next chunk; `None` after the last one, and only then.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        self.pieces.next().await
    }
}

struct Pieces {
    stream: RecvStream,
    reader: FrameReader,
    unread: Bytes,
    ended: bool,
}

impl Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        while !self.ended {
            let mut input = &self.unread[..];
            let before = input.len();
            let frame = self.reader.next(&mut input)?;
            let used = before - input.len();
            self.unread = self.unread.slice(used..);
            match frame {
                Some(end) if end.is_empty() => self.ended = true,
                Some(piece) => return Ok(Some(piece)),
                None => match self.stream.read_chunk(READ_BYTES, true).await.map_err(broken_off)? {
                    Some(chunk) => self.unread = chunk.bytes,
                    None => return Err(FrameError::Truncated.into()),
                },
            }
        }
        Ok(None)
    }
}
