//! What the messages of one frame from a peer may come to in memory.
//!
//! Owns: the bounds on what repeats in a message, and the look at its bytes before they are decoded. Must never: refuse what our own members
//! send, or allocate. Used by `Message::decode`.
//!
//! An entry without content is two bytes on the wire and [`Entry`](raft::eraftpb::Entry), some ninety bytes, in memory: a frame full of them would
//! be hundreds of megabytes.

use super::APPEND_BYTES_MAX;
use super::convert::MessageError;
use crate::command::varint::take_varint;
use crate::limits::{PEER_WRITE_BYTES, PROPOSALS_PENDING_MAX};

/// The least that an entry of a log has: its term and its index, each a tag and a byte.
const LOG_ENTRY_BYTES_MIN: usize = 4;
/// The least that any entry has which members send each other: one that is proposed has no term and no index yet, and never empty data; nor has
/// the one that carries the context of a read.
const ENTRY_BYTES_MIN: usize = 3;

/// Entries in one frame.
///
/// A frame has either a single message or at most [`PEER_WRITE_BYTES`] altogether. Raft puts entries of [`APPEND_BYTES_MAX`] into an append, or a
/// single one; a proposal on its way to the leader has no more than may wait. So many small ones fit into none of those.
pub(super) const ENTRIES_MAX: usize = APPEND_BYTES_MAX / LOG_ENTRY_BYTES_MIN;

/// Bytes of snapshots in one frame. What raft calls one is a position and a configuration here: ids of at most ten bytes each, most of them
/// twice while a joint change is under way. No cluster has 13 000 members.
pub(super) const SNAPSHOT_BYTES_MAX: usize = PEER_WRITE_BYTES;

const _: () = {
    assert!(PROPOSALS_PENDING_MAX <= ENTRIES_MAX);
    assert!(PEER_WRITE_BYTES / ENTRY_BYTES_MIN <= ENTRIES_MAX);
};

/// Fields of raft's message, by their numbers in its protobuf definition.
const ENTRIES: u64 = 7;
const SNAPSHOT: u64 = 9;
/// Protobuf's wire types. Groups are not used by anybody.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

/// What the messages of a frame may still have.
#[derive(Debug)]
pub struct Allowance {
    entries: usize,
    snapshot_bytes: usize,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { entries: ENTRIES_MAX, snapshot_bytes: SNAPSHOT_BYTES_MAX }
    }
}

impl Allowance {
    /// Takes off what the message with these bytes has. A field that is there several times counts each time: decoding puts them together.
    pub(super) fn take(&mut self, mut message: &[u8]) -> Result<(), MessageError> {
        while !message.is_empty() {
            let (field, length) = take_field(&mut message).ok_or(MessageError::Ragged)?;
            match field {
                ENTRIES if length < ENTRY_BYTES_MIN => return Err(MessageError::Entry),
                ENTRIES => self.entries = self.entries.checked_sub(1).ok_or(MessageError::Entries)?,
                SNAPSHOT => {
                    let rest = self.snapshot_bytes.checked_sub(length);
                    self.snapshot_bytes = rest.ok_or(MessageError::Snapshot)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Passes one field; its number, and how many bytes it has.
fn take_field(message: &mut &[u8]) -> Option<(u64, usize)> {
    let key = take_number(message)?;
    let length = match key & 7 {
        VARINT => {
            let before = message.len();
            take_number(message)?;
            return Some((key >> 3, before - message.len()));
        }
        FIXED_64 => size_of::<u64>(),
        BYTES => usize::try_from(take_number(message)?).ok()?,
        FIXED_32 => size_of::<u32>(),
        _ => return None,
    };
    *message = message.get(length..)?;
    Some((key >> 3, length))
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    take_varint(|| bytes.split_off_first().copied()).ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::{ProptestConfig, prop_assert, proptest};
    use prost::Message as _;
    use raft::eraftpb::{self, Entry, MessageType, Snapshot, SnapshotMetadata};
    use raft::util::limit_size;

    use super::super::convert::Message;
    use super::*;

    fn bytes_of(entries: Vec<Entry>) -> Bytes {
        let message = eraftpb::Message {
            msg_type: MessageType::MsgAppend,
            from: 1,
            to: 2,
            entries,
            ..Default::default()
        };
        message.encode_to_vec().into()
    }

    fn decode(bytes: impl Into<Bytes>) -> Result<Message, MessageError> {
        Message::decode(bytes.into(), &mut Allowance::default())
    }

    #[test]
    fn the_smallest_entries_that_fill_an_append_are_read() {
        let least = Entry { term: 1, index: 1, ..Entry::default() };
        assert_eq!(least.encoded_len(), LOG_ENTRY_BYTES_MIN);
        let mut entries = vec![least; ENTRIES_MAX + 1];
        let refused = decode(bytes_of(entries.clone()));
        assert!(matches!(refused, Err(MessageError::Entries)));
        limit_size(&mut entries, Some(APPEND_BYTES_MAX as u64));
        assert_eq!(entries.len(), ENTRIES_MAX, "as many as raft sends");
        decode(bytes_of(entries)).unwrap();
    }

    #[test]
    fn the_smallest_proposals_and_reads_are_read() {
        let least = Entry { data: Bytes::from_static(b"x"), ..Entry::default() };
        assert_eq!(least.encoded_len(), ENTRY_BYTES_MIN);
        decode(bytes_of(vec![least; PROPOSALS_PENDING_MAX])).unwrap();
    }

    #[test]
    fn a_configuration_of_very_many_members_is_read() {
        let ids: Vec<u64> = (0..10_000).map(|n| u64::MAX - n).collect();
        let conf_state =
            eraftpb::ConfState { voters: ids.clone(), voters_outgoing: ids, ..Default::default() };
        let metadata =
            Some(SnapshotMetadata { conf_state: Some(conf_state), index: u64::MAX, term: u64::MAX });
        let snapshot = Some(Snapshot { metadata, ..Snapshot::default() });
        let message = eraftpb::Message { msg_type: MessageType::MsgSnapshot, snapshot, ..Default::default() };
        decode(message.encode_to_vec()).unwrap();
    }

    #[test]
    fn what_would_grow_in_memory_is_refused_before_it_is_decoded() {
        let nothing = [0x3a, 0].repeat(100);
        assert!(matches!(decode(nothing), Err(MessageError::Entry)), "entries without content");
        let small = [0x3a, 4, 0x10, 1, 0x18, 1].repeat(ENTRIES_MAX);
        decode(small.clone()).unwrap();
        let more = [&small[..], &[0x3a, 4, 0x10, 1, 0x18, 1]].concat();
        assert!(matches!(decode(more), Err(MessageError::Entries)));
        // A snapshot with metadata with a configuration with a voter, again and again: they are put together.
        let snapshot = [0x4a, 6, 0x12, 4, 0x0a, 2, 0x08, 1];
        let often = SNAPSHOT_BYTES_MAX / 6;
        decode(snapshot.repeat(often)).unwrap();
        assert!(matches!(decode(snapshot.repeat(often + 1)), Err(MessageError::Snapshot)));
    }

    #[test]
    fn the_messages_of_a_frame_have_one_allowance_together() {
        let half = bytes_of(vec![Entry { term: 1, index: 1, ..Entry::default() }; ENTRIES_MAX / 2]);
        let mut allowance = Allowance::default();
        for _ in 0..2 {
            Message::decode(half.clone(), &mut allowance).unwrap();
        }
        assert!(matches!(Message::decode(half, &mut allowance), Err(MessageError::Entries)));
    }

    #[test]
    fn fields_that_do_not_add_up_are_refused() {
        // Cut off in a key, a number, a length, the content; a group; a number of more than 64 bits.
        for bytes in [
            &[0xba][..],
            &[0x08],
            &[0x3a],
            &[0x3a, 5, 1],
            &[0x3b],
            &[0x3c],
            &[0x09, 1],
            &[0x0d, 1],
            &[0xff; 11],
        ] {
            assert!(matches!(decode(bytes.to_vec()), Err(MessageError::Ragged)), "{bytes:?}");
        }
        // Fields that nobody knows are passed: a later version may have them.
        decode(vec![
            0xf8, 0x7f, 1, 0xf9, 0x7f, 1, 2, 3, 4, 5, 6, 7, 8, 0xfa, 0x7f, 1, 9, 0xfd, 0x7f, 1, 2, 3, 4,
        ])
        .unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// Bytes of which messages are made, in any order: whatever can be decoded was counted right.
        #[test]
        fn what_is_decoded_was_counted(
            bytes in proptest::collection::vec(proptest::sample::select(&PARTS[..]), 0..24),
        ) {
            let mut allowance = Allowance::default();
            let taken = allowance.take(&bytes);
            if let Ok(message) = eraftpb::Message::decode(&bytes[..]) {
                let small = message.entries.iter().any(|entry| entry.encoded_len() < ENTRY_BYTES_MIN);
                prop_assert!(taken.is_ok() || small, "{taken:?}");
                prop_assert!(taken.is_err() || ENTRIES_MAX - allowance.entries == message.entries.len());
            }
        }
    }

    const PARTS: [u8; 14] = [0x3a, 0x3a, 0x4a, 0x12, 0x0a, 0x08, 0x10, 0x18, 0x80, 1, 2, 3, 4, 6];
}
