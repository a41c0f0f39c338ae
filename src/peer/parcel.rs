//! A large thing on its way to a member, on a stream of its own: pieces of a state.
//!
//! Owns: the framing, and how many are on their way. Must never: take a stream that broke off for one that has ended, or know what is inside.
//! Driven by `Transport::send_parcel` and `link`.
//!
//! ```text
//! preamble, one frame, the end of the stream
//! ```

use bytes::Bytes;
use quinn::{Connection, RecvStream, VarInt};

use super::frame::{FrameError, FrameReader, StreamKind, frame};
use super::lane::LaneError;
use crate::limits::PEER_FRAME_BYTES_MAX;

/// Behind everything else.
const PRIORITY: i32 = 0;
const ABANDONED: VarInt = VarInt::from_u32(1);
/// What is read from the stream at once.
const READ_BYTES: usize = 64 * 1024;

/// Brings it to the other end, and waits until it is there.
pub(super) async fn send(connection: &Connection, body: &[u8]) -> Result<(), LaneError> {
    // An error here is that of the connection, whose end is watched.
    let Ok(mut stream) = connection.open_uni().await else { return Ok(()) };
    let _ = stream.set_priority(PRIORITY);
    stream.write_all(&StreamKind::Parcel.preamble()).await?;
    stream.write_chunk(frame(body)).await?;
    // Fails for a stream that is closed already: then there is nothing to wait for either.
    if stream.finish().is_ok() {
        let _ = stream.stopped().await;
    }
    Ok(())
}

/// Reads it to its end, from a stream whose preamble was read.
pub(super) async fn receive(stream: &mut RecvStream) -> Result<Bytes, LaneError> {
    let mut reader = FrameReader::new(PEER_FRAME_BYTES_MAX);
    let mut parcel = None;
    while let Some(chunk) = stream.read_chunk(READ_BYTES, true).await? {
        let mut input = &chunk.bytes[..];
        while let Some(body) = reader.next(&mut input)? {
            if parcel.replace(body).is_some() {
                let _ = stream.stop(ABANDONED);
                return Err(FrameError::Ragged.into());
            }
        }
    }
    parcel.filter(|_| reader.is_between_frames()).ok_or_else(|| FrameError::Truncated.into())
}
