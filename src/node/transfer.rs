//! What two members say to each other while one sends the other its state.
//!
//! Owns: the messages and their bytes. Must never: decide what follows from one. Made and read by the two ends (`source`, `staging`); carried by
//! whoever drives [`super::Checkpointer`], on a way of its own beside raft's messages: pieces are large.
//!
//! ```text
//! source ── Piece{before, changes} ──► ◄── Status{progress} ── ... ── Leases{before, leases} ──► ◄── Status{progress} ── ...
//!        ── Last{at, facts} ──► ◄── Status{whole} ── staging
//! ```
//!
//! One piece is on its way at a time, and each end judges by what the other says of its progress: loss, delay, duplicates and reordering are
//! harmless.
//!
//! ```text
//! message  = version:u8 (2)  kind:u8 (1 piece, 2 leases, 3 last, 4 status)  source  boot  number:u64 LE each
//!            progress: main:i64 LE  sub:u32 LE  changes:u64 LE  leases:u64 LE  digest:u32 LE
//!            1: changes, as `store::pack` writes them     2: leases, as `store::pack_leases` does
//!            3: facts, as in the store's `meta`           4: whole:u8
//! ```

use bytes::{Buf, Bytes};

use crate::ids::{MemberId, Revision, VersionId};
use crate::store::{StageProgress, TransferId};

/// The version of the bytes.
const VERSION: u8 = 2;
const PIECE: u8 = 1;
const LEASES: u8 = 2;
const LAST: u8 = 3;
const STATUS: u8 = 4;
/// Bytes before the body.
const HEAD_BYTES: usize = 2 + 3 * 8 + 8 + 4 + 8 + 8 + 4;

/// A message of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferMessage {
    /// Which transfer.
    pub transfer: TransferId,
    /// What it says.
    pub content: TransferContent,
}

/// What a [`TransferMessage`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferContent {
    /// The source: the changes after `before`.
    Piece {
        /// Where the follower must stand for them.
        before: StageProgress,
        /// See [`crate::store::pack`].
        changes: Bytes,
    },
    /// The source: leases, and which have ended of those that came before.
    Leases {
        /// Where the follower must stand for them.
        before: StageProgress,
        /// See [`crate::store::pack_leases`].
        leases: Bytes,
    },
    /// The source: that was all.
    Last {
        /// Where the follower must stand.
        at: StageProgress,
        /// See [`crate::store::encode_facts`].
        facts: Bytes,
    },
    /// The follower: where it stands, durably. A beginning where it has nothing of this transfer.
    Status {
        /// How far it has come.
        progress: StageProgress,
        /// The last message has arrived, and all is well.
        whole: bool,
    },
}

/// Bytes from a peer are not a message of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a message of a transfer of this version")]
pub struct TransferMessageError;

impl TransferMessage {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let (kind, progress, body) = match &self.content {
            TransferContent::Piece { before, changes } => (PIECE, before, changes.as_ref()),
            TransferContent::Leases { before, leases } => (LEASES, before, leases.as_ref()),
            TransferContent::Last { at, facts } => (LAST, at, facts.as_ref()),
            TransferContent::Status { progress, whole: true } => (STATUS, progress, &[1][..]),
            TransferContent::Status { progress, whole: false } => (STATUS, progress, &[0][..]),
        };
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.extend_from_slice(&[VERSION, kind]);
        for number in [self.transfer.source.0, self.transfer.boot, self.transfer.number] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&progress.next.main.0.to_le_bytes());
        bytes.extend_from_slice(&progress.next.sub.to_le_bytes());
        bytes.extend_from_slice(&progress.changes.to_le_bytes());
        bytes.extend_from_slice(&progress.leases.to_le_bytes());
        bytes.extend_from_slice(&progress.digest.to_le_bytes());
        bytes.extend_from_slice(body);
        bytes.into()
    }

    /// Reads back what [`TransferMessage::encode`] wrote; a body shares the buffer.
    pub fn decode(mut bytes: Bytes) -> Result<Self, TransferMessageError> {
        if bytes.len() < HEAD_BYTES || bytes.get_u8() != VERSION {
            return Err(TransferMessageError);
        }
        let kind = bytes.get_u8();
        let transfer = TransferId {
            source: MemberId(bytes.get_u64_le()),
            boot: bytes.get_u64_le(),
            number: bytes.get_u64_le(),
        };
        let next = VersionId { main: Revision(bytes.get_i64_le()), sub: bytes.get_u32_le() };
        let (changes, leases) = (bytes.get_u64_le(), bytes.get_u64_le());
        let progress = StageProgress { next, changes, leases, digest: bytes.get_u32_le() };
        let content = match (kind, bytes.as_ref()) {
            (PIECE, _) => TransferContent::Piece { before: progress, changes: bytes },
            (LEASES, _) => TransferContent::Leases { before: progress, leases: bytes },
            (LAST, _) => TransferContent::Last { at: progress, facts: bytes },
            (STATUS, [whole @ (0 | 1)]) => TransferContent::Status { progress, whole: *whole == 1 },
            _ => return Err(TransferMessageError),
        };
        Ok(Self { transfer, content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_and_others_are_refused() {
        let transfer = TransferId { source: MemberId(u64::MAX), boot: 2, number: 3 };
        let next = VersionId { main: Revision(4), sub: 5 };
        let progress = StageProgress { next, changes: 6, leases: 8, digest: 7 };
        let body = Bytes::from_static(b"body");
        for content in [
            TransferContent::Piece { before: progress, changes: body.clone() },
            TransferContent::Leases { before: progress, leases: body.clone() },
            TransferContent::Last { at: progress, facts: body },
            TransferContent::Status { progress, whole: true },
            TransferContent::Status { progress: StageProgress::default(), whole: false },
        ] {
            let message = TransferMessage { transfer, content };
            let bytes = message.encode();
            assert_eq!(TransferMessage::decode(bytes.clone()), Ok(message));
            assert_eq!(TransferMessage::decode(bytes.slice(..HEAD_BYTES - 1)), Err(TransferMessageError));
            for (at, wrong) in [(0, 1), (0, 3), (1, 0), (1, 5)] {
                let mut other = bytes.to_vec();
                other[at] = wrong;
                assert_eq!(TransferMessage::decode(other.into()), Err(TransferMessageError));
            }
        }
        let status = TransferContent::Status { progress, whole: true };
        let mut odd = TransferMessage { transfer, content: status }.encode().to_vec();
        odd[HEAD_BYTES] = 2;
        assert_eq!(TransferMessage::decode(odd.into()), Err(TransferMessageError));
    }
}
