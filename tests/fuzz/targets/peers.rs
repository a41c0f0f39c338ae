//! What members send each other.
//!
//! Owns: that a peer's bytes are read the same however they come, and written again as they were.

use bytes::Bytes;
use covey::command::varint::put_varint;
use covey::consensus::ConfChange;
use covey::formation::{ClusterRoot, Identity, found_solo};
use covey::ids::{Digest, Incarnation, LeaseId, LogIndex, MemberId, Revision, Run, VersionId};
use covey::mvcc::Facts;
use covey::node::{
    Applicants, DigestAt, LeaseAnswer, LeaseRequest, Progress, Roster, TransferContent, TransferMessage,
};
use covey::peer::heard::{FrameReader, Hello, Item, Known, StreamKind, decode, encode, frame, judge};
use covey::peer::{Refusal, RefusalKind};
use covey::store::{
    Change, ChangeKind, Lease, Meta, StageProgress, TransferId, decode_facts, pack, pack_leases, unpack,
    unpack_leases,
};

use super::forming::{key, whole_meta};
use crate::input::{Input, piece, sealed};
use crate::memory::bounded;

/// An entry of three bytes is some ninety in memory, in a list that doubles as it grows; of facts, a byte may be a string.
const BYTES_FOR_EACH: usize = 128;
/// What a frame may have, here.
const FRAME_MAX: usize = 64 * 1024;

fn own() -> Identity {
    found_solo(key(1), ClusterRoot([7; 32]), 5).identity
}

fn known() -> Known {
    Known { member: MemberId(2), seen: Some(Run { incarnation: Incarnation(4), boot_nonce: 40 }) }
}

pub fn hello(bytes: &[u8]) {
    let (own, known) = (own(), known());
    let to_them = Hello::to(&own, &known);
    match (Hello::decode(bytes), judge(&own, &to_them, &known, bytes)) {
        (Ok(hello), judged) => {
            assert_eq!(hello.encode(), bytes);
            if let Ok(judged) = judged {
                assert_eq!((judged, judged.from, judged.to), (hello, known.member, own.member));
                assert_eq!(judged.cluster, own.cluster());
            }
        }
        (Err(_), judged) => assert!(judged.is_err(), "what cannot be read is refused"),
    }
    let Refusal { sentence, .. } = Refusal::received(RefusalKind::Key, bytes);
    assert!(!sentence.contains(char::is_control) && sentence.len() <= 3 * bytes.len());
    if let Some(code) = bytes.first_chunk() {
        let _ = RefusalKind::from_code(u64::from_le_bytes(*code));
    }
}

/// All frames that a stream is cut into, when it comes in pieces of this size.
fn frames_of(bytes: &[u8], piece: usize) -> (Vec<Bytes>, Option<String>, bool) {
    let (mut reader, mut frames) = (FrameReader::new(FRAME_MAX), Vec::new());
    for mut piece in bytes.chunks(piece) {
        loop {
            match reader.next(&mut piece) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error.to_string()), false),
            }
        }
    }
    (frames, None, reader.is_between_frames())
}

pub fn frames(bytes: &[u8]) {
    if let Some(preamble) = bytes.first_chunk() {
        drop(StreamKind::parse(*preamble));
    }
    let read = bounded(bytes, BYTES_FOR_EACH, || frames_of(bytes, bytes.len().max(1)));
    assert_eq!(frames_of(bytes, 1), read);
    let bodies = read.0.into_iter().chain([Bytes::copy_from_slice(bytes)]);
    for body in bodies {
        let Ok(items) = bounded(&body, BYTES_FOR_EACH, || decode(body.clone())) else { continue };
        let (mut rest, mut again) = (&items[..], Vec::new());
        while !rest.is_empty() {
            let (frame, count) = encode(rest);
            let (bodies, ..) = frames_of(&frame, frame.len());
            // An entry that says nothing, at length, is written shorter than any that is taken.
            let Ok(some) = decode(bodies[0].clone()) else { break };
            again.extend(some);
            rest = &rest[count..];
        }
        assert_eq!(again[..], items[..items.len() - rest.len()]);
    }
    if let Ok(change) = ConfChange::decode(Bytes::copy_from_slice(bytes)) {
        assert!(change.changes.len() <= bytes.len());
    }
}

pub fn questions(bytes: &[u8]) {
    let shared = Bytes::copy_from_slice(bytes);
    if let Ok(request) = LeaseRequest::decode(shared.clone()) {
        assert_eq!(request.encode(), Some(shared.clone()));
    }
    if let Ok(answer) = LeaseAnswer::decode(shared.clone()) {
        assert_eq!(answer.encode(), Some(shared.clone()));
    }
    if let Ok(answer) = Progress::decode(shared.clone()) {
        assert_eq!(answer.encode(), shared);
    }
    if let Ok(answer) = DigestAt::decode(shared.clone()) {
        assert_eq!(answer.encode(), shared);
    }
    if let Ok(answer) = bounded(bytes, BYTES_FOR_EACH, || Applicants::decode(shared.clone())) {
        assert_eq!(answer.encode(), shared);
    }
    if let Some(member) = Progress::asked_by(bytes) {
        assert_eq!(Progress::question(member), shared);
    }
    if let Some(index) = DigestAt::asked_by(bytes) {
        assert_eq!(DigestAt::question(index), shared);
    }
    let mut input = Input(bytes);
    let roster = [input.bytes(2), &sealed(b"facts", input.0)].concat();
    if let Ok(roster) = bounded(bytes, BYTES_FOR_EACH, || Roster::decode(roster.into())) {
        assert_eq!(Roster::decode(roster.encode()), Ok(roster));
    }
}

/// A row with its seal, as a piece has it.
fn row(out: &mut Vec<u8>, id: &[u8], body: &[u8]) {
    let row = sealed(id, body);
    out.extend_from_slice(id);
    put_varint(out, row.len() as u64);
    out.extend(row);
}

/// The messages of a transfer, and the rows in them, which have checksums.
pub fn transfer(bytes: &[u8]) {
    let shared = Bytes::copy_from_slice(bytes);
    if let Ok(message) = TransferMessage::decode(shared.clone()) {
        assert_eq!(message.encode(), shared);
        match message.content {
            TransferContent::Piece { changes, .. } => changes_of(&changes),
            TransferContent::Leases { leases, .. } => leases_of(&leases),
            TransferContent::Last { facts, .. } => drop(decode_facts(&facts)),
            TransferContent::Status { .. } => {}
        }
    }
    let mut input = Input(bytes);
    let (mut changes, mut leases) = (Vec::new(), Vec::new());
    while !input.is_empty() {
        let (id, body) = (input.array::<12>(), input.piece());
        row(&mut changes, &id, body);
        row(&mut leases, &id[..8], body);
    }
    changes_of(&changes.into());
    leases_of(&leases.into());
}

/// A member counts its own progress only: a piece for any other is not looked into.
fn changes_of(piece: &Bytes) {
    let Ok(changes) = bounded(piece, BYTES_FOR_EACH, || unpack(piece)) else { return };
    assert_eq!(unpack(&pack(&changes)).as_ref(), Ok(&changes));
    let before = StageProgress::default();
    if let Some(after) = before.after(piece, &changes) {
        assert!(after.next > before.next, "a piece is taken once");
        assert_eq!(after.after(piece, &changes), None);
    }
}

fn leases_of(piece: &Bytes) {
    let Ok(leases) = bounded(piece, BYTES_FOR_EACH, || unpack_leases(piece)) else { return };
    assert_eq!(unpack_leases(&pack_leases(&leases)).as_ref(), Ok(&leases));
    let _ = StageProgress::default().after_leases(piece, &leases);
}

pub mod seeds {
    use ::raft::eraftpb;
    use covey::consensus::{self, Allowance};
    use covey::formation::Fingerprint;
    use covey::node::PendingNode;
    use prost::Message as _;

    use super::*;

    pub fn hello() -> Vec<Vec<u8>> {
        let (own, known) = (own(), known());
        let to_them = Hello::to(&own, &known);
        let theirs = Hello { from: known.member, to: own.member, seen: Some(own.run()), ..to_them };
        let fresh = Hello { seen: None, run: Run { incarnation: Incarnation(5), boot_nonce: 9 }, ..theirs };
        vec![to_them.encode(), theirs.encode(), fresh.encode()]
    }

    /// Messages of raft, as they are on the wire.
    pub fn messages() -> Vec<consensus::Message> {
        let entry = |index, data: &'static [u8]| eraftpb::Entry {
            term: 3,
            index,
            data: Bytes::from_static(data),
            ..Default::default()
        };
        let conf_state =
            Some(eraftpb::ConfState { voters: vec![1, 2], learners: vec![3], ..Default::default() });
        let metadata = Some(eraftpb::SnapshotMetadata { conf_state, index: 7, term: 3 });
        let snapshot = Some(eraftpb::Snapshot { metadata, ..Default::default() });
        let from = eraftpb::Message { from: 2, to: 1, term: 3, ..Default::default() };
        let append = eraftpb::Message {
            msg_type: eraftpb::MessageType::MsgAppend,
            log_term: 3,
            index: 6,
            commit: 5,
            entries: vec![entry(7, b"x"), entry(8, b"")],
            ..from.clone()
        };
        let heartbeat = eraftpb::Message {
            msg_type: eraftpb::MessageType::MsgHeartbeat,
            context: Bytes::from_static(b"12345678"),
            ..from.clone()
        };
        let state =
            eraftpb::Message { msg_type: eraftpb::MessageType::MsgSnapshot, snapshot, ..from.clone() };
        let rejected = eraftpb::Message {
            msg_type: eraftpb::MessageType::MsgAppendResponse,
            reject: true,
            reject_hint: 5,
            request_snapshot: 6,
            ..from
        };
        let decode = |message: eraftpb::Message| {
            consensus::Message::decode(message.encode_to_vec().into(), &mut Allowance::default()).unwrap()
        };
        [append, heartbeat, state, rejected].map(decode).into()
    }

    pub fn frames() -> Vec<Vec<u8>> {
        let mut items: Vec<Item> = messages().into_iter().map(Item::Raft).collect();
        items.push(Item::Question { number: 9, body: Roster::question() });
        items.push(Item::Answer { number: 9, body: Bytes::from_static(b"answer") });
        let one_by_one = items.iter().map(|item| encode(std::slice::from_ref(item)).0);
        let frames: Vec<Bytes> = one_by_one.chain([encode(&items).0, frame(b"")]).collect();
        let mut seeds: Vec<Vec<u8>> = frames.iter().map(|frame| frame.to_vec()).collect();
        seeds.extend(frames.iter().map(|frame| frame[4..].to_vec()));
        seeds.push(frames.concat());
        seeds.push(vec![1, 1]);
        seeds
    }

    fn waiting(n: u8) -> PendingNode {
        PendingNode {
            fingerprint: Fingerprint::from_bytes([n; 32]),
            name: format!("box{n}"),
            peer_urls: vec!["https://10.0.0.9:2380".into(); n.into()],
            asked: std::time::Duration::from_secs(300),
        }
    }

    pub fn questions() -> Vec<Vec<u8>> {
        let meta = whole_meta();
        let facts = Facts {
            members: meta.members,
            removed: meta.removed,
            conf_state: meta.conf_state,
            ..Facts::default()
        };
        let roster = Roster { applied: LogIndex(9), facts }.encode();
        let id = LeaseId(-7);
        let mut seeds = vec![
            roster[..roster.len() - 4].to_vec(),
            Roster::question().into(),
            Progress::question(MemberId(3)).into(),
            Progress::InSync.encode().into(),
            DigestAt::question(LogIndex(300)).into(),
            DigestAt(Some(Digest(77))).encode().into(),
            DigestAt(None).encode().into(),
            Applicants::question().into(),
            Applicants(vec![waiting(1), waiting(2)]).encode().into(),
        ];
        seeds.extend(
            [LeaseRequest::Renew(id), LeaseRequest::TimeToLive(id)]
                .map(|asked| asked.encode().unwrap().into()),
        );
        let answers =
            [LeaseAnswer::Renewed { ttl: 60 }, LeaseAnswer::TimeToLive { granted: 60, remaining: 3 }];
        seeds.extend(answers.map(|answer| answer.encode().unwrap().into()));
        seeds
    }

    pub fn transfer() -> Vec<Vec<u8>> {
        let id = VersionId { main: Revision(300), sub: 2 };
        let kind = ChangeKind::Put {
            value: Bytes::from_static(b"value"),
            create_revision: Revision(200),
            version: 5,
            lease: LeaseId(7),
        };
        let change = Change { key: Bytes::from_static(b"key"), kind };
        let gone = Change { key: Bytes::from_static(b"gone"), kind: ChangeKind::Delete };
        let changes = pack(&[(id, change), (VersionId { sub: 3, ..id }, gone)]);
        let lease = Lease { ttl: 60, remaining: 30, granted_at: LogIndex(1) };
        let leases = pack_leases(&[(LeaseId(7), Some(lease)), (LeaseId(8), None)]);
        let transfer = TransferId { source: MemberId(1), boot: 2, number: 3 };
        let before = StageProgress::default();
        let facts = covey::store::encode_facts(&Meta::default()).into();
        let message = |content| TransferMessage { transfer, content }.encode().to_vec();
        // The bodies of the rows: behind the id and a length of one byte, before the seal.
        let rows = |packed: &Bytes, id: usize, first: usize| {
            let body = packed[id + 1..id + 1 + first - 4].to_vec();
            [&packed[..id], &[0; 4][..12 - id], &piece(&body)].concat()
        };
        let (change_row, lease_row) = (usize::from(changes[12]), usize::from(leases[8]));
        vec![
            rows(&changes, 12, change_row),
            rows(&leases, 8, lease_row),
            message(TransferContent::Piece { before, changes }),
            message(TransferContent::Leases { before, leases }),
            message(TransferContent::Last { at: before, facts }),
            message(TransferContent::Status { progress: before, whole: true }),
        ]
    }
}
