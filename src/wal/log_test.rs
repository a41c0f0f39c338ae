//! The log without faults: what goes in comes out, segments come and go, and how many bytes that takes.

use super::segment::generation_of;
use super::testing::{GROWING, IDENTITY, SMALL, at, entries, entry, history, open, run};
use super::{Batch, EntryKind, HardState, Identity, LogEntry, Options, Wal, WalError};
use crate::disk::sim::{FaultPlan, SimDir, Survival};
use crate::disk::{Directory, File};
use crate::ids::{LogIndex, MemberId, Term};

fn put<D: Directory>(wal: &mut Wal<D>, entries: &[LogEntry]) {
    wal.append(Batch { hard_state: None, entries }).unwrap();
    wal.sync().unwrap();
}

fn rest<D: Directory>(wal: &mut Wal<D>) {
    while wal.prepare().unwrap() {}
}

fn segments(dir: &SimDir) -> Vec<u64> {
    let mut generations: Vec<_> = dir.list().unwrap().iter().filter_map(|name| generation_of(name)).collect();
    generations.sort_unstable();
    generations
}

#[test]
fn what_goes_in_comes_out() {
    let dir = SimDir::new(1);
    let mut wal = Wal::create(dir.clone(), IDENTITY, at(0, 0), SMALL).unwrap();
    let hard_state = HardState { term: Term(3), vote: Some(MemberId(9)), commit: LogIndex(2) };
    let mut log = vec![entry(1, 1, 0), entry(2, 1, 499), entry(3, 3, 9000)];
    log[1].kind = EntryKind::ConfChangeV2;
    log[2].kind = EntryKind::ConfChange;
    wal.append(Batch { hard_state: Some(hard_state), entries: &log }).unwrap();
    wal.sync().unwrap();
    let (wal, recovered) = open(&dir, SMALL).unwrap();
    assert_eq!((recovered.hard_state, recovered.start, recovered.tear.clone()), (hard_state, at(0, 0), None));
    assert_eq!(recovered.entries, log);
    assert_eq!((wal.start(), wal.last(), wal.hard_state()), (at(0, 0), at(3, 3), hard_state));
}

#[test]
fn a_new_log_knows_where_it_starts() {
    let dir = SimDir::new(1);
    Wal::create(dir.clone(), IDENTITY, at(7, 3), SMALL).unwrap();
    let (mut wal, recovered) = open(&dir, SMALL).unwrap();
    assert_eq!((recovered.start, recovered.last()), (at(7, 3), at(7, 3)));
    assert_eq!(recovered.hard_state, HardState { term: Term(3), vote: None, commit: LogIndex(7) });
    put(&mut wal, &entries(8, 1, 3, 10));
    assert_eq!(open(&dir, SMALL).unwrap().1.entries, entries(8, 1, 3, 10));
}

#[test]
fn random_histories_agree_with_the_model() {
    for seed in 0..60 {
        let (start, steps) = history(seed, 120);
        for options in [SMALL, GROWING] {
            let dir = SimDir::new(seed);
            let outcome = run(&dir, options, start, &steps);
            assert!(outcome.error.is_none(), "seed {seed}: {:?}", outcome.error);
            let recovered = open(&dir, options).map(|(_, recovered)| recovered);
            outcome.allows(&recovered).unwrap_or_else(|reason| panic!("seed {seed}: {reason}"));
        }
    }
}

#[test]
fn replaced_entries_stay_replaced_over_segments_and_cuts() {
    let dir = SimDir::new(1);
    let mut wal = Wal::create(dir.clone(), IDENTITY, at(0, 0), SMALL).unwrap();
    for index in 1..=20 {
        put(&mut wal, &entries(index, 1, 1, 3000));
    }
    assert!(segments(&dir).len() > 4);
    put(&mut wal, &entries(8, 2, 2, 3000));
    assert_eq!(wal.last(), at(9, 2));
    put(&mut wal, &entries(10, 1, 2, 3000));
    // Everything above 7 is in the last segment now, whatever the others hold of it.
    wal.cut(LogIndex(8)).unwrap();
    rest(&mut wal);
    assert_eq!(wal.start(), at(7, 1));
    let (wal, recovered) = open(&dir, SMALL).unwrap();
    assert_eq!((recovered.start, wal.start()), (at(7, 1), at(7, 1)));
    assert_eq!(recovered.entries, entries(8, 3, 2, 3000));
}

#[test]
fn a_cut_recycles_segments_and_keeps_the_hard_state() {
    let dir = SimDir::new(1);
    let mut wal = Wal::create(dir.clone(), IDENTITY, at(0, 0), SMALL).unwrap();
    assert_eq!(segments(&dir), [1, 2], "two at the start");
    let hard_state = HardState { term: Term(1), vote: Some(MemberId(5)), commit: LogIndex(0) };
    wal.append(Batch { hard_state: Some(hard_state), entries: &[] }).unwrap();
    wal.sync().unwrap();
    let mut disk_bytes = Vec::new();
    for index in 1..=200 {
        put(&mut wal, &entries(index, 1, 1, 3000));
        wal.cut(LogIndex(index)).unwrap();
        assert!(wal.start().index < LogIndex(index), "what is not below stays");
        disk_bytes.push(wal.usage().disk_bytes);
    }
    assert!(*segments(&dir).last().unwrap() > 50);
    assert_eq!(disk_bytes.iter().max(), disk_bytes.last(), "bounded: {disk_bytes:?}");
    assert!(*disk_bytes.last().unwrap() <= 4 * SMALL.segment_bytes);
    let (_, recovered) = open(&dir, SMALL).unwrap();
    assert_eq!(recovered.hard_state, hard_state);
    assert_eq!(recovered.last(), at(200, 1));
}

/// A disk fills up under a log that nobody cuts: what fits into its segments goes on, what does not waits, and a floor that was to move is not
/// forgotten meanwhile.
#[test]
fn a_full_disk_stops_what_needs_a_segment_and_nothing_else() {
    let dir = SimDir::new(1);
    let mut wal = Wal::create(dir.clone(), IDENTITY, at(0, 0), SMALL).unwrap();
    for index in 1..=4 {
        put(&mut wal, &entries(index, 1, 1, 3000));
    }
    dir.plan(FaultPlan { full: true, ..FaultPlan::default() });
    let names = dir.list().unwrap();
    assert!(!wal.prepare().unwrap(), "a spare can wait");
    let operations = dir.operations();
    assert!(!wal.prepare().unwrap());
    assert_eq!(dir.operations(), operations, "it is not tried again for the same segment");
    put(&mut wal, &entries(5, 1, 1, 3000));
    put(&mut wal, &entries(6, 1, 1, 3000));
    for _ in 0..3 {
        let error = wal.append(Batch { hard_state: None, entries: &entries(7, 1, 1, 3000) }).unwrap_err();
        assert_eq!(error.to_string(), "there is no room on the disk for log file 0000000000000003.wal");
        assert_eq!(dir.list().unwrap(), names, "nothing of it is left");
        assert_eq!(open(&dir.crash(Survival::Random), SMALL).unwrap().1.last(), at(6, 1));
    }
    // A vote still finds room beside it.
    let vote = HardState { term: Term(2), vote: Some(MemberId(9)), commit: LogIndex(6) };
    wal.append(Batch { hard_state: Some(vote), entries: &[] }).unwrap();
    wal.sync().unwrap();

    // What the store has is cut, but the batch that would say so needs a segment.
    wal.cut(LogIndex(6)).unwrap();
    assert!(wal.append(Batch { hard_state: None, entries: &entries(7, 1, 2, 3000) }).unwrap_err().is_full());
    assert!(!wal.prepare().unwrap());
    dir.plan(FaultPlan::default());
    put(&mut wal, &entries(7, 1, 2, 3000));
    rest(&mut wal);
    assert_eq!((segments(&dir), wal.last()), (vec![2, 3, 4], at(7, 2)), "the first segment was used again");
    assert_eq!(open(&dir, SMALL).unwrap().1.last(), at(7, 2));
}

#[test]
fn a_recycled_segment_is_written_in_place() {
    let dir = SimDir::new(1);
    let mut wal = Wal::create(dir.clone(), IDENTITY, at(0, 0), SMALL).unwrap();
    for index in 1..=50 {
        put(&mut wal, &entries(index, 1, 1, 3000));
        wal.cut(LogIndex(index)).unwrap();
    }
    rest(&mut wal);
    let before = dir.operations();
    for index in 51..=53 {
        put(&mut wal, &entries(index, 1, 1, 3000));
    }
    let appends = 3 * 2;
    assert!(dir.operations() - before <= appends, "no file was made: a spare was waiting");
}

#[test]
fn without_prefilling_files_grow_and_go() {
    let dir = SimDir::new(1);
    let mut wal = Wal::create(dir.clone(), IDENTITY, at(0, 0), GROWING).unwrap();
    assert!(wal.usage().disk_bytes < 3 * 4096);
    for index in 1..=40 {
        put(&mut wal, &entries(index, 1, 1, 3000));
    }
    wal.cut(LogIndex(40)).unwrap();
    rest(&mut wal);
    assert!(segments(&dir).len() <= 3, "the last one, the one before, a spare");
    for index in 41..=80 {
        put(&mut wal, &entries(index, 1, 1, 3000));
        wal.cut(LogIndex(index)).unwrap();
        assert!(segments(&dir).len() <= 4, "nor while it never rests");
    }
    assert_eq!(open(&dir, GROWING).unwrap().1.last(), at(80, 1));
}

#[test]
fn an_oversize_batch_gets_a_segment_of_its_own() {
    let dir = SimDir::new(1);
    let mut wal = Wal::create(dir.clone(), IDENTITY, at(0, 0), SMALL).unwrap();
    put(&mut wal, &entries(1, 1, 1, 100));
    put(&mut wal, &entries(2, 3, 1, 40_000));
    put(&mut wal, &entries(5, 1, 1, 100));
    assert_eq!(segments(&dir), [1, 2, 3], "the spare was too small");
    put(&mut wal, &entries(6, 1, 1, 100));
    let (mut wal, recovered) = open(&dir, SMALL).unwrap();
    let expected =
        [entries(1, 1, 1, 100), entries(2, 3, 1, 40_000), entries(5, 1, 1, 100), entries(6, 1, 1, 100)];
    assert_eq!(recovered.entries, expected.concat());
    for index in 7..20 {
        put(&mut wal, &entries(index, 1, 1, 3000));
    }
    wal.cut(LogIndex(19)).unwrap();
    rest(&mut wal);
    assert!(wal.usage().disk_bytes <= 4 * SMALL.segment_bytes, "an oversize file is not kept");
}

#[test]
fn a_reset_forgets_the_log_and_keeps_the_vote() {
    let dir = SimDir::new(1);
    let mut wal = Wal::create(dir.clone(), IDENTITY, at(0, 0), SMALL).unwrap();
    let hard_state = HardState { term: Term(4), vote: Some(MemberId(5)), commit: LogIndex(2) };
    wal.append(Batch { hard_state: Some(hard_state), entries: &entries(1, 10, 2, 4000) }).unwrap();
    wal.sync().unwrap();
    wal.reset(at(100, 4)).unwrap();
    let expected = HardState { commit: LogIndex(100), ..hard_state };
    let (mut wal, recovered) = open(&dir, SMALL).unwrap();
    assert_eq!((recovered.hard_state, recovered.start), (expected, at(100, 4)));
    assert!(recovered.entries.is_empty());
    put(&mut wal, &entries(101, 1, 4, 10));
    // A higher term in the snapshot ends the vote.
    wal.reset(at(200, 6)).unwrap();
    let (_, recovered) = open(&dir, SMALL).unwrap();
    assert_eq!(recovered.hard_state, HardState { term: Term(6), vote: None, commit: LogIndex(200) });
}

#[test]
fn each_batch_is_one_write_and_one_sync() {
    let dir = SimDir::new(1);
    let mut wal = Wal::create(dir.clone(), IDENTITY, at(0, 0), Options::default()).unwrap();
    let (operations, usage) = (dir.operations(), wal.usage());
    for index in 1..=100 {
        put(&mut wal, &entries(index, 1, 1, 256));
    }
    assert_eq!(dir.operations() - operations, 200);
    assert_eq!(wal.usage().syncs - usage.syncs, 100);
    assert_eq!(wal.usage().appended_bytes - usage.appended_bytes, 100 * 512, "a small put is one sector");
    wal.sync().unwrap();
    wal.append(Batch::default()).unwrap();
    wal.sync().unwrap();
    assert_eq!(dir.operations() - operations, 200, "nothing to write, nothing to sync");
}

#[test]
fn a_log_is_made_once_and_opened_by_its_owner() {
    let dir = SimDir::new(1);
    assert!(matches!(open(&dir, SMALL), Err(WalError::Absent)));
    Wal::create(dir.clone(), IDENTITY, at(0, 0), SMALL).unwrap();
    assert!(matches!(Wal::create(dir.clone(), IDENTITY, at(0, 0), SMALL), Err(WalError::Exists { .. })));
    let other = Identity { member: MemberId(0xb2), ..IDENTITY };
    let error = Wal::open(dir.clone(), other, SMALL).unwrap_err();
    assert_eq!(
        error.to_string(),
        "log file 0000000000000001.wal belongs to member a1 of cluster c0, this is member b2 of cluster c0"
    );
    dir.create("identity").unwrap().write_at(0, b"not ours").unwrap();
    assert!(open(&dir, SMALL).is_ok(), "other files are left alone");
    assert!(dir.list().unwrap().contains(&"identity".to_owned()));
}

#[test]
#[should_panic(expected = "one batch is synced before the next")]
fn two_appends_without_a_sync_are_a_bug() {
    let mut wal = Wal::create(SimDir::new(1), IDENTITY, at(0, 0), SMALL).unwrap();
    for index in 1..=2 {
        wal.append(Batch { hard_state: None, entries: &entries(index, 1, 1, 1) }).unwrap();
    }
}
