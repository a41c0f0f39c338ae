//! The log on a disk that lies: flipped bits, lost sectors, lost files, and bytes that were never a log.

use proptest::prelude::{any, proptest};
use proptest::{collection, sample};

use super::sector::{PAYLOAD, SECTOR, seal, seal_first};
use super::segment::{FIRST_SECTOR, name_of, seed_of};
use super::testing::{GROWING, IDENTITY, SMALL, at, copy, entries, history, open, run};
use super::{Batch, Damage, HardState, Options, Recovered, Wal, WalError};
use crate::disk::sim::SimDir;
use crate::disk::{Directory, File};
use crate::ids::{LogIndex, Term};

/// One page for batches in a segment.
const TINY: Options = Options { segment_bytes: 2 * 4096, prefill: true };

fn append(wal: &mut Wal<SimDir>, first: u64, count: u64, length: usize) {
    let hard_state = HardState { term: Term(1), vote: None, commit: LogIndex(first - 1) };
    let entries = entries(first, count, 1, length);
    wal.append(Batch { hard_state: Some(hard_state), entries: &entries }).unwrap();
    wal.sync().unwrap();
}

/// Three batches in one segment, the last of three sectors, and an empty segment.
fn small_log() -> SimDir {
    let dir = SimDir::new(1);
    let mut wal = Wal::create(dir.clone(), IDENTITY, at(0, 0), TINY).unwrap();
    append(&mut wal, 1, 1, 100);
    append(&mut wal, 2, 2, 100);
    append(&mut wal, 4, 3, 400);
    dir
}

/// Segments that were used before, and batches over several of them.
fn recycled_log() -> SimDir {
    let dir = SimDir::new(1);
    let mut wal = Wal::create(dir.clone(), IDENTITY, at(0, 0), TINY).unwrap();
    for index in 1..30 {
        append(&mut wal, index, 1, 900);
        wal.cut(LogIndex(index.saturating_sub(2).max(1))).unwrap();
    }
    dir
}

fn read(dir: &SimDir, name: &str) -> Vec<u8> {
    let file = dir.open(name).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

fn write(dir: &SimDir, name: &str, offset: u64, bytes: &[u8]) {
    let file = dir.open(name).or_else(|_| dir.create(name)).unwrap();
    file.write_at(offset, bytes).unwrap();
    file.sync_data().unwrap();
    dir.sync().unwrap();
}

fn recover(dir: &SimDir, options: Options) -> Result<Recovered, WalError> {
    open(dir, options).map(|(_, recovered)| recovered)
}

#[test]
fn every_flipped_byte_is_named_or_harmless() {
    for (dir, fewest) in [(small_log(), 2 * (4096 + 512)), (recycled_log(), 8000)] {
        let sound = recover(&dir, TINY).unwrap();
        let (mut named, mut harmless) = (0, 0);
        for name in dir.list().unwrap() {
            for offset in 0..TINY.segment_bytes {
                let damaged = copy(&dir);
                damaged.flip_bit(&name, offset, u8::try_from(offset % 8).unwrap());
                match recover(&damaged, TINY) {
                    Ok(recovered) => {
                        assert_eq!(recovered, sound, "{name} at {offset}");
                        harmless += 1;
                        // The header's page has seven unused sectors; a full segment has a gap at its end.
                        assert!(offset >= SECTOR as u64, "the header of {name}");
                    }
                    Err(WalError::Corrupt { file, offset: at, what: Damage::Checksum | Damage::Magic }) => {
                        assert_eq!((&file, at), (&name, offset / SECTOR as u64 * SECTOR as u64));
                        named += 1;
                    }
                    Err(other) => panic!("{name} at {offset}: {other}"),
                }
            }
        }
        assert!(named >= fewest && harmless > 0, "{named} {harmless}");
    }
}

#[test]
fn a_lost_sector_is_damage_unless_it_is_of_the_last_batch() {
    let dir = small_log();
    let sound = recover(&dir, TINY).unwrap();
    let name = name_of(1);
    // Sector 8 is the log's start, 9 and 10 are the first two batches, 11 to 13 the third.
    for sector in 0..16 {
        let damaged = copy(&dir);
        write(&damaged, &name, sector * 512, &[0; SECTOR]);
        match (sector, recover(&damaged, TINY)) {
            (1..=7 | 14.., Ok(recovered)) => assert_eq!(recovered, sound),
            (11..=13, Ok(recovered)) => {
                assert_eq!(recovered.entries, sound.entries[..3]);
                assert_eq!(recovered.hard_state.commit, LogIndex(1));
                let remains = if sector == 11 { 12 } else { 11 };
                assert_eq!(recovered.tear.unwrap().offset, remains * 512);
            }
            (0, Err(WalError::Corrupt { file, offset: 0, what: Damage::Magic }))
            | (8, Err(WalError::Corrupt { file, what: Damage::Empty, .. })) => assert_eq!(file, name),
            (9 | 10, Err(WalError::Corrupt { file, offset, what: Damage::LaterBatch })) => {
                assert_eq!((file, offset), (name.clone(), sector * 512));
            }
            (_, other) => panic!("sector {sector}: {other:?}"),
        }
    }
}

#[test]
fn a_sector_of_an_earlier_use_counts_like_a_lost_one() {
    let dir = recycled_log();
    let sound = recover(&dir, TINY).unwrap();
    let before = copy(&dir);
    let last = sound.last().index.0;
    let mut wal = open(&dir, TINY).unwrap().0;
    append(&mut wal, last + 1, 2, 700);
    let changed: Vec<(String, u64)> = dir
        .list()
        .unwrap()
        .into_iter()
        .flat_map(|name| (FIRST_SECTOR..16).map(move |sector| (name.clone(), sector)))
        .filter(|(name, sector)| {
            let at = usize::try_from(sector * 512).unwrap();
            read(&dir, name)[at..at + SECTOR] != read(&before, name)[at..at + SECTOR]
        })
        .collect();
    assert_eq!(changed.len(), 3, "{changed:?}");
    let mut stale = 0;
    for (name, sector) in changed {
        let at = usize::try_from(sector * 512).unwrap();
        let old = &read(&before, &name)[at..at + SECTOR];
        stale += usize::from(old.iter().any(|byte| *byte != 0));
        let torn = copy(&dir);
        write(&torn, &name, sector * 512, old);
        let recovered = recover(&torn, TINY).unwrap();
        assert_eq!(recovered.entries, sound.entries);
        assert!(recovered.tear.is_some());
    }
    assert!(stale > 0, "the segment had been used before");
}

#[test]
fn a_lost_segment_is_missed() {
    let dir = SimDir::new(1);
    let mut wal = Wal::create(dir.clone(), IDENTITY, at(0, 0), TINY).unwrap();
    for index in 1..=8 {
        append(&mut wal, index, 1, 2000);
    }
    let names = dir.list().unwrap();
    assert!(names.len() > 3);
    for name in &names[..names.len() - 1] {
        let damaged = copy(&dir);
        damaged.remove(name).unwrap();
        let error = recover(&damaged, TINY).unwrap_err();
        assert_eq!(error.to_string(), format!("log file {name} is damaged at byte 0: it is missing"));
    }
    let damaged = copy(&dir);
    damaged.open(&names[1]).unwrap().set_len(5000).unwrap();
    let error = recover(&damaged, TINY).unwrap_err();
    assert!(matches!(error, WalError::Corrupt { what: Damage::Truncated, .. }), "{error}");
}

#[test]
fn another_format_version_is_refused_with_its_file() {
    let dir = small_log();
    let name = name_of(1);
    let mut header: [u8; SECTOR] = read(&dir, &name)[..SECTOR].try_into().unwrap();
    header[8] = 2;
    seal_first(&mut header, 0, 0, 1);
    write(&dir, &name, 0, &header);
    let error = recover(&dir, TINY).unwrap_err();
    assert_eq!(error.to_string(), "log file 0000000000000001.wal has format version 2; this release knows 1");
}

/// A whole batch of another place in the log, with every checksum right, is no continuation.
#[test]
fn a_batch_that_does_not_follow_is_refused() {
    let dir = small_log();
    let other = SimDir::new(1);
    let mut wal = Wal::create(other.clone(), IDENTITY, at(0, 0), TINY).unwrap();
    append(&mut wal, 1, 1, 101);
    append(&mut wal, 2, 2, 101);
    append(&mut wal, 4, 3, 401);
    let name = name_of(1);
    write(&dir, &name, 11 * 512, &read(&other, &name)[11 * 512..14 * 512]);
    let error = recover(&dir, TINY).unwrap_err();
    assert!(
        matches!(error, WalError::Corrupt { offset: 5632, what: Damage::Chain, .. }),
        "batch 4 of another history: {error}"
    );
}

#[test]
fn a_batch_that_claims_more_than_its_segment_is_refused() {
    let dir = small_log();
    let mut sector = [0; SECTOR];
    sector[..4].copy_from_slice(&(3 * 500u32).to_le_bytes());
    // Two sectors are left, and the fifth batch is due.
    seal_first(&mut sector, seed_of(IDENTITY), 14, 5);
    write(&dir, &name_of(1), 14 * 512, &sector);
    let error = recover(&dir, TINY).unwrap_err();
    assert!(matches!(error, WalError::Corrupt { offset: 7168, what: Damage::Layout, .. }), "{error}");
}

proptest! {
    #[test]
    fn files_of_random_bytes_are_refused(bytes in collection::vec(any::<u8>(), 0..5000), magic in any::<bool>()) {
        let dir = SimDir::new(1);
        let mut bytes = bytes;
        if magic && bytes.len() > 9 {
            bytes[..9].copy_from_slice(b"coveywal\x01");
        }
        write(&dir, &name_of(1), 0, &bytes);
        assert!(matches!(recover(&dir, SMALL), Err(WalError::Corrupt { offset: 0, .. })));
    }

    /// Sectors whose checksums hold and whose content is anything: what a hostile or a very unlucky disk could hold.
    #[test]
    fn sealed_nonsense_never_panics(
        seed in 0..20u64,
        sectors in collection::vec((FIRST_SECTOR..32, 0..60u64, sample::select(vec![21u32, 45, 60, 69, 500, 900, 1 << 30]), collection::vec(any::<u8>(), 0..80), any::<bool>()), 1..6),
        file in 0..4usize,
        growing in any::<bool>(),
    ) {
        let options = if growing { GROWING } else { SMALL };
        let (start, steps) = history(seed, 30);
        let dir = SimDir::new(seed);
        run(&dir, options, start, &steps);
        let names = dir.list().unwrap();
        let name = &names[file % names.len()];
        for (number, sequence, length, payload, leads) in sectors {
            let mut sector = [0; SECTOR];
            sector[..4].copy_from_slice(&length.to_le_bytes());
            // Keep flags and counts small, so that decoding gets somewhere.
            let mut payload = payload;
            payload.truncate(PAYLOAD - 4);
            for small in [5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16] {
                if let Some(byte) = payload.get_mut(small) {
                    *byte &= if small == 8 { 7 } else { 0 };
                }
            }
            sector[4..4 + payload.len()].copy_from_slice(&payload);
            let seal = if leads { seal_first } else { seal };
            seal(&mut sector, seed_of(IDENTITY), number, sequence);
            write(&dir, name, number * 512, &sector);
        }
        if let Ok(recovered) = recover(&dir, options) {
            let contiguous = recovered.entries.windows(2).all(|pair| pair[1].index == pair[0].index.next());
            assert!(contiguous);
        }
    }
}
