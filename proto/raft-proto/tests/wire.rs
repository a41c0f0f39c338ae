//! The bytes of every message, against bytes computed by hand from `eraftpb.proto`, and what
//! decoding does with bytes that no encoder wrote.

use std::fmt::Debug;

use prost::bytes::Bytes;
use raft_proto::eraftpb::{
    ConfChange, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType, HardState,
    Message, MessageType, Snapshot, SnapshotMetadata,
};
use raft_proto::new_conf_change_single;

trait Codec: prost::Message + protobuf::Message + Clone + Default + PartialEq + Debug {}
impl<M: prost::Message + protobuf::Message + Clone + Default + PartialEq + Debug> Codec for M {}

/// Takes each message with each field set, and its bytes.
trait Visitor {
    fn visit<M: Codec>(&mut self, message: M, bytes: &[u8]);
}

fn conf_state() -> ConfState {
    ConfState {
        voters: vec![1, 300],
        learners: vec![4],
        voters_outgoing: vec![1],
        learners_next: vec![5],
        auto_leave: true,
    }
}

fn snapshot() -> Snapshot {
    Snapshot {
        data: Bytes::from_static(b"s"),
        metadata: Some(SnapshotMetadata {
            conf_state: Some(ConfState { voters: vec![1], ..ConfState::default() }),
            index: 9,
            term: 4,
        }),
    }
}

fn message() -> Message {
    Message {
        msg_type: MessageType::MsgSnapshot,
        to: 2,
        from: 3,
        term: 4,
        log_term: 5,
        index: 6,
        entries: vec![Entry { term: 1, index: 7, ..Entry::default() }],
        commit: 8,
        snapshot: Some(snapshot()),
        reject: true,
        reject_hint: 11,
        context: Bytes::from_static(b"x"),
        request_snapshot: 13,
        deprecated_priority: 14,
        commit_term: 15,
        priority: -1,
    }
}

#[rustfmt::skip]
const SNAPSHOT_BYTES: &[u8] = &[
    0x0a, 1, b's',
    0x12, 9, /* metadata */ 0x0a, 3, /* conf state */ 0x0a, 1, 1, 0x10, 9, 0x18, 4,
];

#[rustfmt::skip]
const MESSAGE_BYTES: &[u8] = &[
    0x08, 7, 0x10, 2, 0x18, 3, 0x20, 4, 0x28, 5, 0x30, 6,
    0x3a, 4, /* entry */ 0x10, 1, 0x18, 7,
    0x40, 8,
    0x4a, 14, /* snapshot */ 0x0a, 1, b's', 0x12, 9, 0x0a, 3, 0x0a, 1, 1, 0x10, 9, 0x18, 4,
    0x50, 1, 0x58, 11, 0x62, 1, b'x', 0x68, 13, 0x70, 14, 0x78, 15,
    // Number 16 is the first whose key takes two bytes; a negative number always takes ten.
    0x80, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
];

fn visit_all(visitor: &mut impl Visitor) {
    let entry = Entry {
        entry_type: EntryType::EntryConfChangeV2,
        term: 5,
        index: 300,
        data: Bytes::from_static(b"ab"),
        context: Bytes::from_static(b"c"),
    };
    #[rustfmt::skip]
    visitor.visit(entry, &[
        0x08, 2, 0x10, 5, 0x18, 0xac, 0x02, 0x22, 2, b'a', b'b', 0x32, 1, b'c',
    ]);

    #[rustfmt::skip]
    visitor.visit(conf_state(), &[
        0x0a, 3, 1, 0xac, 0x02, 0x12, 1, 4, 0x1a, 1, 1, 0x22, 1, 5, 0x28, 1,
    ]);

    let metadata = snapshot().metadata.expect("set above");
    visitor.visit(metadata, &SNAPSHOT_BYTES[5..]);
    visitor.visit(snapshot(), SNAPSHOT_BYTES);
    visitor.visit(message(), MESSAGE_BYTES);

    let hard_state = HardState { term: 6, vote: 1, commit: 300 };
    visitor.visit(hard_state, &[0x08, 6, 0x10, 1, 0x18, 0xac, 0x02]);

    let v1 = ConfChange {
        id: 1,
        change_type: ConfChangeType::RemoveNode,
        node_id: 3,
        context: Bytes::from_static(b"x"),
    };
    visitor.visit(v1, &[0x08, 1, 0x10, 1, 0x18, 3, 0x22, 1, b'x']);

    let step = new_conf_change_single(4, ConfChangeType::AddLearnerNode);
    visitor.visit(step.clone(), &[0x08, 2, 0x10, 4]);

    let v2 = ConfChangeV2 {
        transition: ConfChangeTransition::Explicit,
        changes: vec![step, new_conf_change_single(5, ConfChangeType::AddNode)],
        context: Bytes::from_static(b"x"),
    };
    #[rustfmt::skip]
    visitor.visit(v2, &[
        0x08, 2, 0x12, 4, 0x08, 2, 0x10, 4, 0x12, 2, 0x10, 5, 0x1a, 1, b'x',
    ]);
}

#[test]
fn every_message_has_the_bytes_of_the_proto_file_in_both_codecs() {
    struct Check;
    impl Visitor for Check {
        fn visit<M: Codec>(&mut self, message: M, bytes: &[u8]) {
            assert_eq!(message.encode_to_vec(), bytes, "{message:?}");
            assert_eq!(message.encoded_len(), bytes.len(), "{message:?}");
            assert_eq!(M::decode(bytes).as_ref(), Ok(&message));

            assert_eq!(message.write_to_bytes().expect("written"), bytes);
            assert_eq!(message.compute_size() as usize, bytes.len());
            let mut merged = M::default();
            merged.merge_from_bytes(bytes).expect("merged");
            assert_eq!(merged, message);

            let mut cleared = message;
            prost::Message::clear(&mut cleared);
            assert_eq!(&cleared, M::default_instance());
            assert_eq!(cleared.encode_to_vec(), b"");
        }
    }
    visit_all(&mut Check);
}

#[test]
fn enum_values_are_those_of_the_proto_file() {
    use MessageType::{
        MsgAppend, MsgAppendResponse, MsgBeat, MsgCheckQuorum, MsgHeartbeat, MsgHeartbeatResponse, MsgHup,
        MsgPropose, MsgReadIndex, MsgReadIndexResp, MsgRequestPreVote, MsgRequestPreVoteResponse,
        MsgRequestVote, MsgRequestVoteResponse, MsgSnapStatus, MsgSnapshot, MsgTimeoutNow, MsgTransferLeader,
        MsgUnreachable,
    };

    fn check<E: Copy + Debug + PartialEq + TryFrom<i32>>(variants: &[E])
    where
        i32: From<E>,
        E::Error: Debug,
    {
        for (value, variant) in (0..).zip(variants) {
            assert_eq!(i32::from(*variant), value);
            assert_eq!(E::try_from(value).expect("known"), *variant);
        }
        let end = i32::try_from(variants.len()).expect("few");
        assert!(E::try_from(end).is_err());
        assert!(E::try_from(-1).is_err());
    }

    #[rustfmt::skip]
    check(&[
        MsgHup, MsgBeat, MsgPropose, MsgAppend, MsgAppendResponse, MsgRequestVote,
        MsgRequestVoteResponse, MsgSnapshot, MsgHeartbeat, MsgHeartbeatResponse, MsgUnreachable,
        MsgSnapStatus, MsgCheckQuorum, MsgTransferLeader, MsgTimeoutNow, MsgReadIndex,
        MsgReadIndexResp, MsgRequestPreVote, MsgRequestPreVoteResponse,
    ]);
    check(&[EntryType::EntryNormal, EntryType::EntryConfChange, EntryType::EntryConfChangeV2]);
    check(&[ConfChangeType::AddNode, ConfChangeType::RemoveNode, ConfChangeType::AddLearnerNode]);
    check(&[ConfChangeTransition::Auto, ConfChangeTransition::Implicit, ConfChangeTransition::Explicit]);
}

fn decode<M: Codec>(bytes: &[u8]) -> Result<M, String> {
    M::decode(bytes).map_err(|error| error.to_string())
}

#[test]
fn unknown_enum_value_is_an_error_that_says_where() {
    let error = decode::<Message>(&[0x3a, 2, 0x08, 3]).expect_err("unknown entry type");
    for part in ["Message.entries", "Entry.entry_type", "enumeration value 3"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(decode::<Message>(&[0x08, 19]).is_err());
    assert!(decode::<ConfChange>(&[0x10, 3]).is_err());
    assert!(decode::<ConfChangeV2>(&[0x08, 3]).is_err());
    assert!(decode::<ConfChangeV2>(&[0x12, 2, 0x08, 3]).is_err());

    // By this raft reads the configuration changes that followers forward.
    let mut cc = ConfChangeV2::default();
    let result = protobuf::Message::merge_from_bytes(&mut cc, &[0x12, 2, 0x08, 3]);
    assert!(result.is_err());
}

#[test]
fn unknown_fields_are_skipped() {
    // sync_log (5), then number 100 in each wire type, then the index.
    #[rustfmt::skip]
    let bytes = [
        0x28, 1,
        0xa0, 0x06, 7,
        0xa1, 0x06, 0, 0, 0, 0, 0, 0, 0, 0,
        0xa2, 0x06, 2, 0, 0,
        0xa3, 0x06, 0x08, 1, 0xa4, 0x06,
        0xa5, 0x06, 0, 0, 0, 0,
        0x18, 9,
    ];
    let expected = Entry { index: 9, ..Entry::default() };
    assert_eq!(decode::<Entry>(&bytes), Ok(expected));
}

#[test]
fn repeated_numbers_are_read_packed_and_unpacked() {
    let expected = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    assert_eq!(decode(&[0x08, 1, 0x0a, 2, 2, 3]), Ok(expected));
}

#[test]
fn entries_share_the_buffer_they_are_decoded_from() {
    let data = Bytes::from_static(b"command");
    let sent = Message { entries: vec![Entry { data, ..Entry::default() }], ..Message::default() };
    let frame = Bytes::from(prost::Message::encode_to_vec(&sent));
    let received: Message = prost::Message::decode(frame.clone()).expect("decoded");
    assert_eq!(received, sent);
    assert!(frame.as_ptr_range().contains(&received.entries[0].data.as_ptr()));
}

#[test]
fn an_absent_message_reads_as_an_empty_one() {
    let mut message = Message::default();
    assert!(message.get_snapshot().is_empty());
    assert_eq!(message.get_snapshot().get_metadata().get_conf_state(), &ConfState::default());
    assert_eq!(message.take_snapshot(), Snapshot::default());

    let mut snapshot = Snapshot::default();
    snapshot.mut_metadata().index = 1;
    assert!(!snapshot.is_empty());
}

/// Decoding must not panic, both codecs must agree, and what decodes must survive a round trip.
fn survives<M: Codec>(bytes: &[u8]) {
    let decoded = M::decode(bytes);
    let merged = M::default().merge_from_bytes(bytes);
    assert_eq!(decoded.is_ok(), merged.is_ok(), "{bytes:x?}");
    if let Ok(message) = decoded {
        assert_eq!(M::decode(message.encode_to_vec().as_slice()), Ok(message), "{bytes:x?}");
    }
}

/// splitmix64, so that a failure is the same one every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below end")
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}

#[test]
fn garbage_does_not_panic() {
    struct Fuzz(Random);
    impl Visitor for Fuzz {
        fn visit<M: Codec>(&mut self, _: M, bytes: &[u8]) {
            for end in 0..bytes.len() {
                survives::<M>(&bytes[..end]);
            }
            for _ in 0..2_000 {
                let mut damaged = bytes.to_vec();
                for _ in 0..=self.0.below(3) {
                    let at = self.0.below(damaged.len());
                    damaged[at] = self.0.byte();
                }
                survives::<M>(&damaged);

                let len = self.0.below(40);
                let noise: Vec<u8> = (0..len).map(|_| self.0.byte()).collect();
                survives::<M>(&noise);
            }
        }
    }
    visit_all(&mut Fuzz(Random(1)));
}

#[test]
fn hostile_lengths_and_nesting_are_errors() {
    // A length of 2^64 - 1 must be refused before anything is allocated for it.
    let mut long = vec![0x22];
    long.extend([0xff; 9]);
    long.push(0x01);
    assert!(decode::<Entry>(&long).is_err());

    // Groups opened without end would recurse until the stack is gone.
    assert!(decode::<Entry>(&vec![0x0b; 100_000]).is_err());
}
