//! Frames: how a stream between members is cut into pieces, and items into frames.
//!
//! Owns: the bytes of a frame, of a stream's first bytes, and of the items in a frame. Must never: panic on what a peer sent, or take
//! its word for a length: memory follows the bytes that have come. Driven by `lane` and `parcel`.
//!
//! ```text
//! stream that one side opens alone:  kind (1 byte), version (1 byte), frames
//! frame:                             length of the body (u32, little endian), body
//! body of items:                     for each: length (u32, little endian), the item (`item`)
//! ```

use bytes::{Buf as _, Bytes};

use super::item::Item;
use crate::consensus::{Allowance, MessageError};
use crate::limits::{PEER_FRAME_BYTES_MAX, PEER_FRAME_MESSAGES_MAX, PEER_WRITE_BYTES};

/// The version of everything here; the hello's protocol version covers the control stream.
const VERSION: u8 = 1;
/// The bytes of a length.
pub(super) const LENGTH_BYTES: usize = 4;
/// What is allocated for a body before its bytes have come.
const TRUST_BYTES: usize = 64 * 1024;

/// What a stream that one side opened alone carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Appends and their answers, and whatever is too large for the control stream.
    Append,
    /// One large thing.
    Parcel,
}

impl StreamKind {
    /// The stream's first bytes.
    pub(super) fn preamble(self) -> [u8; 2] {
        let kind = match self {
            Self::Append => 1,
            Self::Parcel => 2,
        };
        [kind, VERSION]
    }

    /// Reads back [`StreamKind::preamble`].
    pub fn parse(preamble: [u8; 2]) -> Result<Self, FrameError> {
        match preamble {
            [_, version] if version != VERSION => Err(FrameError::Version { version }),
            [1, _] => Ok(Self::Append),
            [2, _] => Ok(Self::Parcel),
            [kind, _] => Err(FrameError::Kind { kind }),
        }
    }
}

/// Why bytes from a peer are no frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// A stream of a version that is not spoken here.
    #[error("a stream of version {version}, where {VERSION} is known")]
    Version {
        /// The stream's.
        version: u8,
    },
    /// A stream of an unknown kind.
    #[error("a stream of unknown kind {kind}")]
    Kind {
        /// The stream's.
        kind: u8,
    },
    /// A frame that is larger than its stream allows.
    #[error("a frame of {length} bytes, where {max} are allowed")]
    TooLarge {
        /// What the frame says.
        length: usize,
        /// The bound.
        max: usize,
    },
    /// Appends have one stream: their order is the log's.
    #[error("a second append stream")]
    SecondAppend,
    /// The stream has ended in the middle of something.
    #[error("a stream that ends in the middle of a frame")]
    Truncated,
    /// A body whose lengths do not add up.
    #[error("a frame whose items do not fill it")]
    Ragged,
    /// More items than a frame may have: decoded, small ones take far more memory than on the wire.
    #[error("a frame of more than {PEER_FRAME_MESSAGES_MAX} items")]
    TooMany,
    /// An item of an unknown kind.
    #[error("an item of unknown kind {kind}")]
    Item {
        /// The item's.
        kind: u8,
    },
    /// A message that raft cannot read, or that is larger in memory than any that a member sends.
    #[error(transparent)]
    Message(#[from] MessageError),
}

/// Puts frames together from whatever pieces a stream comes in.
#[derive(Debug)]
pub struct FrameReader {
    max: usize,
    head: [u8; LENGTH_BYTES],
    head_filled: usize,
    body: Vec<u8>,
    /// The length of the body; `None` while the head is not complete.
    length: Option<usize>,
}

impl FrameReader {
    /// A reader of frames of at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { max, head: [0; LENGTH_BYTES], head_filled: 0, body: Vec::new(), length: None }
    }

    /// Takes from the front of `input`; a frame's body when one is complete, `None` when all of `input` is used up.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Bytes>, FrameError> {
        let length = match self.length {
            Some(length) => length,
            None => match self.read_head(input)? {
                Some(length) => length,
                None => return Ok(None),
            },
        };
        let take = input.len().min(length - self.body.len());
        // Doubling from a small start: a length that was only claimed costs nothing.
        if self.body.capacity() - self.body.len() < take {
            let more = self.body.len().max(TRUST_BYTES).max(take).min(length - self.body.len());
            self.body.reserve_exact(more);
        }
        self.body.extend_from_slice(&input[..take]);
        input.advance(take);
        if self.body.len() < length {
            return Ok(None);
        }
        self.length = None;
        Ok(Some(std::mem::take(&mut self.body).into()))
    }

    fn read_head(&mut self, input: &mut &[u8]) -> Result<Option<usize>, FrameError> {
        let take = input.len().min(LENGTH_BYTES - self.head_filled);
        self.head[self.head_filled..self.head_filled + take].copy_from_slice(&input[..take]);
        self.head_filled += take;
        input.advance(take);
        if self.head_filled < LENGTH_BYTES {
            return Ok(None);
        }
        let length = usize::try_from(u32::from_le_bytes(self.head)).unwrap_or(usize::MAX);
        if length > self.max {
            return Err(FrameError::TooLarge { length, max: self.max });
        }
        self.head_filled = 0;
        self.length = Some(length);
        self.body = Vec::with_capacity(length.min(TRUST_BYTES));
        Ok(Some(length))
    }

    /// Whether the stream may end here.
    pub fn is_between_frames(&self) -> bool {
        self.head_filled == 0 && self.length.is_none()
    }
}

/// A frame with this body.
pub fn frame(body: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(LENGTH_BYTES + body.len());
    put_length(&mut bytes, body.len());
    bytes.extend_from_slice(body);
    bytes.into()
}

fn put_length(bytes: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_le_bytes());
}

/// What an item takes in a frame, head included.
pub(super) fn cost(item: &Item) -> usize {
    item.encoded_len() + LENGTH_BYTES
}

/// One frame of the first of `items`, and how many those are: as many as one write should take, and one at least.
///
/// The caller makes sure that none is larger than a frame may be.
pub fn encode(items: &[Item]) -> (Bytes, usize) {
    let (mut count, mut length) = (0, 0);
    for item in items.iter().take(PEER_FRAME_MESSAGES_MAX) {
        let cost = cost(item);
        if count > 0 && length + cost > PEER_WRITE_BYTES {
            break;
        }
        count += 1;
        length += cost;
    }
    debug_assert!(length <= PEER_FRAME_BYTES_MAX, "{length} bytes");
    let mut bytes = Vec::with_capacity(LENGTH_BYTES + length);
    put_length(&mut bytes, length);
    for item in &items[..count] {
        put_length(&mut bytes, item.encoded_len());
        item.encode_into(&mut bytes);
    }
    (bytes.into(), count)
}

/// The items of a frame's body. Their payloads share its memory.
pub fn decode(mut body: Bytes) -> Result<Vec<Item>, FrameError> {
    let (mut items, mut allowance) = (Vec::new(), Allowance::default());
    while !body.is_empty() {
        let length = body.try_get_u32_le().map_err(|_| FrameError::Ragged)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > body.len() {
            return Err(FrameError::Ragged);
        }
        if items.len() == PEER_FRAME_MESSAGES_MAX {
            return Err(FrameError::TooMany);
        }
        items.push(Item::decode(body.split_to(length), &mut allowance)?);
    }
    Ok(items)
}

#[cfg(test)]
#[path = "frame_test.rs"]
mod tests;
