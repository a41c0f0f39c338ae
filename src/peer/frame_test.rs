//! Frames survive every way a stream can be cut, and no bytes at all make the decoder panic.

use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};
use prost::Message as _;
use raft::eraftpb::{self, Entry, MessageType};

use super::*;
use crate::consensus::{Allowance, Message};

fn message(index: u64, payload: usize) -> Item {
    let entry = Entry { index, term: 3, data: vec![7; payload].into(), ..Entry::default() };
    let raft = eraftpb::Message {
        msg_type: MessageType::MsgAppend,
        from: 1,
        to: 2,
        term: 3,
        index,
        entries: vec![entry],
        ..eraftpb::Message::default()
    };
    Item::Raft(Message::decode(raft.encode_to_vec().into(), &mut Allowance::default()).unwrap())
}

fn frames(reader: &mut FrameReader, mut input: &[u8]) -> Result<Vec<Bytes>, FrameError> {
    let mut found = Vec::new();
    while let Some(frame) = reader.next(&mut input)? {
        found.push(frame);
    }
    Ok(found)
}

#[test]
fn messages_come_back_and_a_frame_takes_what_fits_one_write() {
    let messages: Vec<Item> = (0..100).map(|n| message(n, 10_000)).collect();
    let mut rest = &messages[..];
    let mut back = Vec::new();
    let mut writes = 0;
    while !rest.is_empty() {
        let (bytes, count) = encode(rest);
        assert!(bytes.len() <= PEER_WRITE_BYTES + LENGTH_BYTES);
        let mut reader = FrameReader::new(PEER_FRAME_BYTES_MAX);
        for body in frames(&mut reader, &bytes).unwrap() {
            back.extend(decode(body).unwrap());
        }
        assert!(reader.is_between_frames());
        rest = &rest[count..];
        writes += 1;
    }
    assert_eq!(back, messages);
    assert_eq!(writes, 4, "a hundred messages of 10 kB in writes of 256 KiB");
    let large = [message(1, 2 * PEER_WRITE_BYTES), message(2, 1)];
    assert_eq!(encode(&large).1, 1, "one that is larger goes alone");
}

#[test]
fn questions_and_answers_come_back_and_unknown_items_are_refused() {
    let body = Bytes::from_static(b"what");
    let items = [
        Item::Question { number: u64::MAX, body: body.clone() },
        Item::Answer { number: 3, body: Bytes::new() },
        message(1, 5),
    ];
    let (bytes, count) = encode(&items);
    assert_eq!((count, decode(bytes.slice(LENGTH_BYTES..)).unwrap()), (3, items.to_vec()));
    let item = |bytes: &[u8]| decode(frame(bytes));
    assert!(matches!(item(&[4, 0, 0, 0, 0, 0, 0, 0, 0]), Err(FrameError::Item { kind: 4 })));
    assert!(matches!(item(&[2, 0, 0]), Err(FrameError::Ragged)));
    assert!(matches!(item(&[]), Err(FrameError::Ragged)));
}

#[test]
fn a_claimed_length_costs_no_memory_and_one_too_large_is_refused() {
    let mut reader = FrameReader::new(PEER_FRAME_BYTES_MAX);
    let claim = u32::try_from(PEER_FRAME_BYTES_MAX).unwrap().to_le_bytes();
    assert!(frames(&mut reader, &claim).unwrap().is_empty());
    assert!(frames(&mut reader, &[0; 100]).unwrap().is_empty());
    assert!(reader.body.capacity() <= TRUST_BYTES);
    assert!(!reader.is_between_frames());
    let more = u32::try_from(PEER_FRAME_BYTES_MAX + 1).unwrap().to_le_bytes();
    let refused = FrameReader::new(PEER_FRAME_BYTES_MAX).next(&mut &more[..]);
    assert!(matches!(refused, Err(FrameError::TooLarge { .. })));
}

#[test]
fn bodies_whose_lengths_do_not_add_up_are_refused() {
    let (bytes, _) = encode(&[message(1, 5), message(2, 5)]);
    let body = bytes.slice(LENGTH_BYTES..);
    let half = body.len() / 2;
    for cut in 1..body.len() {
        let decoded = decode(body.slice(..cut));
        assert_eq!(decoded.is_ok(), cut == half, "cut at {cut}");
    }
    assert!(decode(Bytes::from_static(&[0xff; 8])).is_err());
    assert!(decode(Bytes::from_static(&[2, 0, 0, 0, 0xff, 0xff])).is_err());
}

#[test]
fn a_frame_has_a_bounded_number_of_messages() {
    let many = vec![message(1, 0); PEER_FRAME_MESSAGES_MAX + 1];
    let (bytes, count) = encode(&many);
    assert_eq!(count, PEER_FRAME_MESSAGES_MAX);
    assert_eq!(decode(bytes.slice(LENGTH_BYTES..)).unwrap().len(), count);
    let empty = Bytes::from([1, 0, 0, 0, 1].repeat(PEER_FRAME_MESSAGES_MAX + 1));
    assert!(matches!(decode(empty), Err(FrameError::TooMany)));
}

#[test]
fn entries_are_counted_over_all_messages_of_a_frame() {
    let entry = [0x3a, 4, 0x10, 1, 0x18, 1];
    let item = |entries: usize| {
        let message = [&[1][..], &entry.repeat(entries)].concat();
        [&u32::try_from(message.len()).unwrap().to_le_bytes()[..], &message].concat()
    };
    // Each of them may stand alone.
    decode(item(200_000).into()).unwrap();
    let both = [item(200_000), item(200_000)].concat();
    assert!(matches!(decode(both.into()), Err(FrameError::Message(MessageError::Entries))));
}

#[test]
fn streams_of_other_kinds_and_versions_are_refused() {
    for kind in [StreamKind::Append, StreamKind::Parcel] {
        assert_eq!(StreamKind::parse(kind.preamble()).unwrap(), kind);
    }
    assert!(matches!(StreamKind::parse([1, 2]), Err(FrameError::Version { version: 2 })));
    assert!(matches!(StreamKind::parse([9, 1]), Err(FrameError::Kind { kind: 9 })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_cut_of_a_stream_gives_the_same_frames(
        bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..6),
        pieces in proptest::collection::vec(1_usize..90, 1..200),
    ) {
        let stream: Vec<u8> = bodies.iter().flat_map(|body| frame(body).to_vec()).collect();
        let mut reader = FrameReader::new(300);
        let mut found: Vec<Vec<u8>> = Vec::new();
        let mut rest = &stream[..];
        for piece in pieces.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((*piece).min(rest.len()));
            found.extend(frames(&mut reader, now).unwrap().into_iter().map(|body| body.to_vec()));
            rest = later;
        }
        prop_assert!(reader.is_between_frames());
        prop_assert_eq!(found, bodies);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode(bytes.clone().into());
        let mut reader = FrameReader::new(200);
        if let Ok(found) = frames(&mut reader, &bytes) {
            for body in found {
                prop_assert!(body.len() <= 200);
                let _ = decode(body);
            }
        }
    }

    /// Closer to the truth than random bytes: a whole frame with one byte changed.
    #[test]
    fn a_changed_byte_never_panics(at in 0_usize..1000, to in any::<u8>()) {
        let (bytes, _) = encode(&[message(1, 30), message(2, 40)]);
        let mut bytes = bytes.to_vec();
        let at = at % bytes.len();
        bytes[at] = to;
        let mut reader = FrameReader::new(PEER_FRAME_BYTES_MAX);
        for body in frames(&mut reader, &bytes).unwrap_or_default() {
            let _ = decode(body);
        }
    }
}
