//! What travels on the lanes between two members: raft's messages, and questions with their answers.
//!
//! Owns: the bytes of an item and which way it takes. Must never: know what is asked. Used by `frame`, `outbox` and `lane`.
//!
//! ```text
//! item  = kind:u8 (1 raft, 2 question, 3 answer)
//!         1: the message as raft encodes it     2, 3: number:u64 LE  body
//! ```

use bytes::{Buf as _, Bytes};

use super::frame::FrameError;
use crate::consensus::{Allowance, Message, MessageClass};

const RAFT: u8 = 1;
const QUESTION: u8 = 2;
const ANSWER: u8 = 3;
const KIND_BYTES: usize = 1;
const NUMBER_BYTES: usize = 8;

/// One thing that is sent to a member.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A message of raft.
    Raft(Message),
    /// Something that the other member is asked. It may get lost, as may its answer.
    Question {
        /// Counted by who asks.
        number: u64,
        /// What is asked.
        body: Bytes,
    },
    /// The answer to the question with this number.
    Answer {
        /// The question's.
        number: u64,
        /// What is answered.
        body: Bytes,
    },
}

impl Item {
    /// What kind of way it needs.
    pub(super) fn class(&self) -> MessageClass {
        match self {
            Self::Raft(message) => message.class(),
            Self::Question { .. } | Self::Answer { .. } => MessageClass::Control,
        }
    }

    /// How many bytes [`Item::encode_into`] makes of it.
    pub(super) fn encoded_len(&self) -> usize {
        KIND_BYTES
            + match self {
                Self::Raft(message) => message.encoded_len(),
                Self::Question { body, .. } | Self::Answer { body, .. } => NUMBER_BYTES + body.len(),
            }
    }

    /// Its bytes at the end of `into`.
    pub(super) fn encode_into(&self, into: &mut Vec<u8>) {
        match self {
            Self::Raft(message) => {
                into.push(RAFT);
                message.encode_into(into);
            }
            Self::Question { number, body } => encode_numbered(into, QUESTION, *number, body),
            Self::Answer { number, body } => encode_numbered(into, ANSWER, *number, body),
        }
    }

    /// Reads back what [`Item::encode_into`] wrote; `allowance` is that of the frame. Payloads share the buffer.
    pub(super) fn decode(mut bytes: Bytes, allowance: &mut Allowance) -> Result<Self, FrameError> {
        let kind = bytes.try_get_u8().map_err(|_| FrameError::Ragged)?;
        if kind == RAFT {
            return Ok(Self::Raft(Message::decode(bytes, allowance)?));
        }
        let number = bytes.try_get_u64_le().map_err(|_| FrameError::Ragged)?;
        match kind {
            QUESTION => Ok(Self::Question { number, body: bytes }),
            ANSWER => Ok(Self::Answer { number, body: bytes }),
            kind => Err(FrameError::Item { kind }),
        }
    }
}

fn encode_numbered(into: &mut Vec<u8>, kind: u8, number: u64, body: &[u8]) {
    into.push(kind);
    into.extend_from_slice(&number.to_le_bytes());
    into.extend_from_slice(body);
}
