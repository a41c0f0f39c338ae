//! What is read from the disk: the log, rows of the store, facts, identity record and tombstones, images.
//!
//! Owns: that no bytes are believed for more than they are. Checksums are made to fit, here: damage is found by them, and what is behind them has to be looked
//! at, too.

use std::io;

use covey::disk::sim::SimDir;
use covey::disk::{Directory as _, File as _};
use covey::formation::{fence, founded, keep_facts, keep_tombstones, kept_tombstones};
use covey::ids::{ClusterId, LogIndex, MemberId, Term};
use covey::snapshot::{ImageReader, Record};
use covey::store::rows::{
    HIST_ROW_BYTES, attached_key, parse_attached, parse_hist, parse_hist_key, parse_live, write_attached,
    write_hist, write_live,
};
use covey::store::{Meta, StoreError, decode_facts, encode_facts};
use covey::wal::{Batch, EntryKind, HardState, Identity, LogEntry, Options, Position, Wal, WalError};
use ring::digest::{Context, SHA256};

use crate::input::{Input, sealed};
use crate::memory::bounded;

const WRITER: Identity = Identity { cluster: ClusterId(0xc0), member: MemberId(0xa1) };
const SECTOR: usize = 512;
/// Of a file of the log here.
const SEGMENT: usize = 16 * 1024;
const SMALL: Options = Options { segment_bytes: SEGMENT as u64, prefill: false };
/// An entry of 13 bytes is some sixty in memory, and the log is read through a window of 64 KiB.
const BYTES_FOR_EACH: usize = 32;
/// A text of one byte is a string of 24 in a list that doubles as it grows.
const FACTS_BYTES_FOR_EACH: usize = 128;

fn put(dir: &SimDir, name: &str, bytes: &[u8]) {
    let file = dir.create(name).unwrap();
    file.write_at(0, bytes).unwrap();
    file.sync_data().unwrap();
}

fn get(dir: &SimDir, name: &str) -> Vec<u8> {
    let file = dir.open(name).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Makes the checksum of every sector that was written fit to what is in it.
fn seal_sectors(bytes: &mut [u8]) {
    let seed = crc32c::crc32c_append(
        crc32c::crc32c(&WRITER.cluster.0.to_le_bytes()),
        &WRITER.member.0.to_le_bytes(),
    );
    for (number, sector) in bytes.chunks_exact_mut(SECTOR).enumerate() {
        if sector.iter().any(|byte| *byte != 0) {
            let (content, checksum) = sector.split_at_mut(SECTOR - 4);
            let seed = if number == 0 { 0 } else { seed };
            let seed = crc32c::crc32c_append(seed, &(number as u64).to_le_bytes());
            checksum.copy_from_slice(&crc32c::crc32c_append(seed, content).to_le_bytes());
        }
    }
}

fn entry(index: LogIndex, term: Term, length: usize) -> LogEntry {
    LogEntry { index, term, kind: EntryKind::Normal, data: vec![index.0.to_le_bytes()[0]; length].into() }
}

/// Files of the log. What is read of them is read once more after a restart, and the log goes on from there.
pub fn log(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (seals, first) = (input.u8() & 1 == 0, input.u8());
    let dir = SimDir::new(1);
    for (generation, content) in (u64::from(first)..).zip(input.0.chunks(SEGMENT)) {
        let mut content = content.to_vec();
        if seals {
            seal_sectors(&mut content);
        }
        put(&dir, &format!("{generation:016x}.wal"), &content);
    }
    let opened = bounded(bytes, BYTES_FOR_EACH, || Wal::open(dir.clone(), WRITER, SMALL));
    let (mut wal, recovered) = match opened {
        Ok(opened) => opened,
        Err(WalError::Io { source, .. }) => panic!("the disk is sound: {source}"),
        Err(_) => return,
    };
    let last = wal.last();
    assert_eq!(recovered.last(), last);
    let next = entry(last.index.next(), last.term.max(Term(1)), 700);
    wal.append(Batch { hard_state: None, entries: std::slice::from_ref(&next) }).unwrap();
    wal.sync().unwrap();
    drop(wal);
    let (_, again) = Wal::open(dir, WRITER, SMALL).expect("what was read once is read again");
    let entries = [recovered.entries, vec![next]].concat();
    assert_eq!((again.hard_state, again.entries), (recovered.hard_state, entries));
}

/// Rows that only the store itself reads; those that travel are in `peers`.
pub fn rows(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (kind, key) = (input.u8(), input.piece());
    match kind & 3 {
        0 => {
            let Some(head) = parse_live(key, &sealed(key, input.0)) else { return };
            let mut row = Vec::new();
            write_live(&mut row, key, &head);
            assert_eq!(parse_live(key, &row), Some(head));
        }
        1 => {
            let row: [u8; HIST_ROW_BYTES] = sealed(key, &input.array::<1>()).try_into().unwrap();
            if let Some(tombstone) = parse_hist(key, row) {
                assert_eq!(write_hist(key, tombstone), row);
            }
            let _ = parse_hist_key(key);
        }
        2 => {
            let Some((lease, attached)) = parse_attached(key, write_attached(key)) else { return };
            assert_eq!(attached_key(lease, attached), key);
        }
        _ => drop(parse_live(key, input.0)),
    }
}

pub fn facts(bytes: &[u8]) {
    let mut row = bytes.to_vec();
    covey::store::rows::seal(b"facts", &mut row);
    let read = bounded(bytes, FACTS_BYTES_FOR_EACH, || decode_facts(&row));
    drop(decode_facts(bytes));
    let meta = match read {
        Ok(meta) => meta,
        Err(error) => {
            assert!(error.is_damage() || matches!(error, StoreError::UnsupportedVersion { .. }), "{error}");
            return;
        }
    };
    assert_eq!(decode_facts(&encode_facts(&meta)).unwrap(), meta);
}

/// The record's two copies, the tombstones, and what is kept of the facts.
pub fn identity(bytes: &[u8]) {
    let mut input = Input(bytes);
    let shape = input.u8();
    let contents = [input.piece(), input.piece(), input.piece(), input.0];
    let dir = SimDir::new(1);
    for (at, name) in ["identity.0", "identity.1", "tombstones", "facts.0"].into_iter().enumerate() {
        let content = contents[at];
        match shape >> (2 * at) & 3 {
            0 => {}
            1 => put(&dir, name, content),
            _ if at < 2 => {
                let length = u32::try_from(content.len()).unwrap().to_le_bytes();
                put(&dir, name, &sealed(b"", &[&b"covey-id\x03\0"[..], &length, content].concat()));
            }
            _ if at == 2 => put(&dir, name, &sealed(b"", content)),
            _ => {
                let row = sealed(b"facts", content);
                let length = u32::try_from(row.len()).unwrap().to_le_bytes();
                put(&dir, name, &[&[1][..], &length, &row].concat());
            }
        }
    }
    match bounded(bytes, BYTES_FOR_EACH, || kept_tombstones(&dir)) {
        Ok(kept) => {
            keep_tombstones(&dir, &kept).unwrap();
            assert_eq!(kept_tombstones(&dir).unwrap(), kept);
        }
        // Of a later version.
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}"),
    }
    bounded(bytes, FACTS_BYTES_FOR_EACH, || keep_facts(&dir, MemberId(1), &Meta::default()).unwrap());
    let Ok(Some(before)) = bounded(bytes, BYTES_FOR_EACH, || founded(&dir)) else { return };
    fence(&dir).unwrap();
    let after = founded(&dir).unwrap().unwrap();
    assert_eq!((after.member, after.root, after.run()), (before.member, before.root, before.run()));
    assert_eq!((after.earlier, after.promise), (before.earlier, before.promise));
}

const HEADER: &[u8; 16] = b"\x01covey image\0\0\0\0";

/// An image as it came, or one of frames with these kinds and bodies, whose end fits.
fn image_of(bytes: &[u8]) -> Vec<u8> {
    let mut input = Input(bytes);
    if input.u8() & 1 == 0 {
        return input.0.to_vec();
    }
    let mut image = HEADER.to_vec();
    let mut seal = crc32c::crc32c(HEADER);
    let (mut leases, mut changes) = (0_u64, 0_u64);
    while !input.is_empty() {
        let (kind, body) = (input.u8() % 5, input.piece());
        leases += u64::from(kind == 2);
        changes += u64::from(kind == 3);
        let body = match kind {
            1 => sealed(b"facts", body),
            4 => {
                let mut hash = Context::new(&SHA256);
                hash.update(&image);
                [&leases.to_le_bytes(), &changes.to_le_bytes(), hash.finish().as_ref()].concat()
            }
            _ => body.to_vec(),
        };
        let length = u32::try_from(body.len()).unwrap().to_le_bytes();
        let frame = [&[kind], &length[..], &body].concat();
        seal = crc32c::crc32c_append(seal, &frame);
        image.extend(frame);
        image.extend(seal.to_le_bytes());
    }
    image.resize(image.len().next_multiple_of(SECTOR), 0);
    image
}

fn records_of(image: &[u8], piece: usize) -> (Vec<Record>, bool) {
    let (mut reader, mut records) = (ImageReader::default(), Vec::new());
    for piece in image.chunks(piece) {
        reader.push(piece);
        loop {
            match reader.next_record() {
                Ok(Some(record)) => records.push(record),
                Ok(None) => break,
                Err(_) => return (records, false),
            }
        }
    }
    let whole = reader.finish().is_ok_and(|bytes| bytes == image.len() as u64);
    (records, whole)
}

/// An image is the same however its bytes come, and begins and ends where it should.
pub fn image(bytes: &[u8]) {
    let image = image_of(bytes);
    let (records, whole) = bounded(&image, FACTS_BYTES_FOR_EACH, || records_of(&image, image.len().max(1)));
    assert_eq!(records_of(&image, 7), (records.iter().map(copy).collect(), whole));
    if whole {
        assert!(matches!(records.first(), Some(Record::Facts(_))));
        let changes = records.iter().filter(|record| matches!(record, Record::Change(..))).count();
        assert!(
            matches!(records.last(), Some(Record::End { changes: counted, .. }) if *counted == changes as u64)
        );
    }
}

fn copy(record: &Record) -> Record {
    match record {
        Record::Facts(meta) => Record::Facts(meta.clone()),
        Record::Lease(id, lease) => Record::Lease(*id, *lease),
        Record::Change(id, change) => Record::Change(*id, change.clone()),
        Record::End { changes, checksum } => Record::End { changes: *changes, checksum: *checksum },
    }
}

pub mod seeds {
    use super::*;
    use crate::input::piece;
    use crate::targets::forming::{key, whole_meta};
    use covey::formation::{Generation, Promise, found, found_solo, note_promise, sign, take_up};
    use covey::ids::{LeaseId, PublicKey, Revision, VersionId};
    use covey::store::{Dissolution, Head};

    /// Logs in one file and in several, with what was cut off, reset and torn.
    pub fn log() -> Vec<Vec<u8>> {
        let start = Position { index: LogIndex(4), term: Term(1) };
        let mut seeds = Vec::new();
        for (batches, length) in [(1_u64, 10), (5, 40), (12, 3000)] {
            let dir = SimDir::new(1);
            let mut wal = Wal::create(dir.clone(), WRITER, start, SMALL).unwrap();
            for n in 0..batches {
                let last = wal.last();
                let entries: Vec<LogEntry> = (1..3)
                    .map(|more| entry(LogIndex(last.index.0 + more), Term(1 + n / 3), length))
                    .collect();
                let (term, vote) = (Term(1 + n / 3), Some(MemberId(2)));
                let hard_state = Some(HardState { term, vote, commit: last.index });
                wal.append(Batch { hard_state, entries: &entries }).unwrap();
                wal.sync().unwrap();
                if n == 4 {
                    wal.reset(Position { index: LogIndex(100), term: Term(2) }).unwrap();
                }
                if n == 9 {
                    wal.cut(LogIndex(108)).unwrap();
                }
            }
            let mut names: Vec<String> = dir.list().unwrap();
            names.sort();
            let first = u8::from_str_radix(&names[0][..16], 16).unwrap();
            let mut seed = vec![0, first];
            for name in &names {
                let mut content = get(&dir, name);
                if name != &names[names.len() - 1] {
                    content.resize(SEGMENT, 0);
                }
                seed.extend(content);
            }
            seeds.push(seed);
        }
        seeds
    }

    pub fn rows() -> Vec<Vec<u8>> {
        let id = VersionId { main: Revision(300), sub: 2 };
        let head = Head { id, create_revision: Revision(200), version: 5, lease: LeaseId(7) };
        let mut live = Vec::new();
        write_live(&mut live, b"key", &head);
        live.truncate(live.len() - 4);
        let hist = [&b"key"[..], &300_u64.to_be_bytes(), &2_u32.to_be_bytes()].concat();
        let attached = attached_key(LeaseId(7), b"key");
        let row = |kind: u8, key: &[u8], body: &[u8]| [&[kind], &piece(key)[..], body].concat();
        vec![row(0, b"key", &live), row(1, &hist, &[2]), row(2, &attached, b""), row(3, b"key", &live)]
    }

    pub fn facts() -> Vec<Vec<u8>> {
        let without_seal = |meta: &Meta| {
            let row = encode_facts(meta);
            row[..row.len() - 4].to_vec()
        };
        vec![without_seal(&Meta::default()), without_seal(&whole_meta())]
    }

    pub fn identity() -> Vec<Vec<u8>> {
        let payload_of = |dir: &SimDir| {
            let file = get(dir, "identity.0");
            file[14..file.len() - 4].to_vec()
        };
        let fresh = SimDir::new(1);
        let founding = found_solo(key(1), covey::formation::ClusterRoot([7; 32]), 5);
        let identity =
            covey::formation::Identity { stage: covey::formation::Stage::Fresh, ..founding.identity.clone() };
        found(&fresh, &identity).unwrap();
        note_promise(&fresh, Some(Promise { candidate: PublicKey([3; 32]), round: 9 })).unwrap();
        let promised = payload_of(&fresh);
        take_up(&fresh, &founding.identity).unwrap();
        let taken = payload_of(&fresh);
        let end = Dissolution { winner: ClusterId(3), at: LogIndex(40), ordered: false };
        keep_tombstones(&fresh, &[sign(&key(1), ClusterId(7), Generation(1), end)]).unwrap();
        let tombstones = get(&fresh, "tombstones");
        let facts = super::seeds::facts().remove(1);
        let body = &tombstones[..tombstones.len() - 4];
        let seed = |shape: u8, one: &[u8], two: &[u8]| {
            [&[shape], &piece(one)[..], &piece(two), &piece(body), &facts].concat()
        };
        vec![seed(0b1010_1010, &promised, &taken), seed(0b1010_0010, &taken, b"")]
    }

    pub fn image() -> Vec<Vec<u8>> {
        let lease = [7_i64, 60, 30, 1].map(i64::to_le_bytes).concat();
        let change = |main: i64, tombstone: u8, numbers: [i64; 3], rest: &[u8]| {
            let numbers = numbers.map(i64::to_le_bytes).concat();
            [&main.to_le_bytes()[..], &[0; 4], &[tombstone], &numbers, &[1, 0, 0, 0], rest].concat()
        };
        let meta = Meta { revision: Revision(4), ..Meta::default() };
        let facts = encode_facts(&meta);
        let frame = |kind: u8, body: &[u8]| [&[kind], &piece(body)[..]].concat();
        let framed = [
            vec![1],
            frame(1, &facts[..facts.len() - 4]),
            frame(2, &lease),
            frame(3, &change(2, 0, [2, 1, 7], b"kvalue")),
            frame(3, &change(3, 1, [0; 3], b"k")),
            frame(4, b""),
        ]
        .concat();
        let whole = [&[0], &image_of(&framed)[..]].concat();
        assert!(records_of(&whole[1..], 100).1, "a sound image");
        vec![framed, whole]
    }
}
