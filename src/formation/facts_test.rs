//! Which facts are kept, and which of them a log can be gone on from.

use super::{NAMES, drop_facts, encode, facts_for, keep_facts, others_voted};
use crate::disk::sim::{FaultPlan, SimDir, Survival};
use crate::disk::{Directory, File};
use crate::ids::{LogIndex, MemberId, Term};
use crate::store::{ConfState, Meta};
use crate::wal::{EntryKind, HardState, LogEntry, Position, Recovered};

const ME: MemberId = MemberId(1);
const OTHER: MemberId = MemberId(2);

/// As of an entry of term 2.
fn facts(applied: u64, voters: &[MemberId]) -> Meta {
    let conf_state = ConfState { voters: voters.to_vec(), ..ConfState::default() };
    Meta { applied: LogIndex(applied), applied_term: Term(2), conf_state, ..Meta::default() }
}

/// The entries after `start` up to `last`, all of this term.
fn log(start: u64, last: u64, term: u64) -> Recovered {
    let term = Term(term);
    let entry = |index| LogEntry { index: LogIndex(index), term, kind: EntryKind::Normal, data: "e".into() };
    Recovered {
        hard_state: HardState::default(),
        start: Position { index: LogIndex(start), term },
        entries: (start + 1..=last).map(entry).collect(),
        tear: None,
    }
}

fn kept(root: &SimDir, log: &Recovered) -> Option<u64> {
    facts_for(root, ME, log).unwrap().map(|meta| meta.applied.0)
}

fn spoil(root: &SimDir, name: &str) {
    let file = root.open(name).unwrap();
    file.write_at(20, &[0xee; 4]).unwrap();
    file.sync_data().unwrap();
}

#[test]
fn the_newest_facts_count_that_the_log_goes_on_from() {
    let root = SimDir::new(1);
    assert_eq!(kept(&root, &log(0, 9, 2)), None);
    for applied in 3..=6 {
        keep_facts(&root, ME, &facts(applied, &[ME, OTHER])).unwrap();
    }
    assert_eq!(kept(&root, &log(0, 9, 2)), Some(6));
    assert_eq!(kept(&root, &log(6, 9, 2)), Some(6), "with nothing before");
    assert_eq!(kept(&root, &log(0, 6, 2)), Some(6), "with nothing after");
    assert_eq!(kept(&root, &log(0, 5, 2)), Some(5), "the ones before are there as well");
    assert_eq!(kept(&root, &log(7, 9, 2)), None, "entries between are lost");
    assert_eq!(kept(&root, &log(0, 9, 3)), None, "of another history");
    spoil(&root, NAMES[1]);
    assert_eq!(kept(&root, &log(0, 9, 2)), Some(5));
    // What is damaged is what is overwritten.
    keep_facts(&root, ME, &facts(7, &[ME, OTHER])).unwrap();
    spoil(&root, NAMES[0]);
    assert_eq!(kept(&root, &log(0, 9, 2)), Some(7));
    spoil(&root, NAMES[1]);
    assert_eq!(kept(&root, &log(0, 9, 2)), None);
}

#[test]
fn who_votes_alone_has_nobody_to_take_a_state_from() {
    let root = SimDir::new(1);
    keep_facts(&root, ME, &facts(2, &[ME])).unwrap();
    assert!(root.list().unwrap().is_empty());
    keep_facts(&root, ME, &facts(3, &[ME, OTHER])).unwrap();
    assert!(others_voted(&root, ME).unwrap());
    assert!(!others_voted(&root, MemberId(3)).unwrap(), "of whose cluster they are not");
    assert!(facts_for(&root, MemberId(3), &log(0, 9, 2)).unwrap().is_none());
    // The older ones, by which the other one still votes, count no more.
    keep_facts(&root, ME, &facts(4, &[ME])).unwrap();
    assert_eq!(kept(&root, &log(0, 9, 2)), None);
    assert!(!others_voted(&root, ME).unwrap());
    keep_facts(&root, ME, &facts(5, &[ME, OTHER])).unwrap();
    drop_facts(&root).unwrap();
    assert_eq!(kept(&root.crash(Survival::Nothing), &log(0, 9, 2)), None);
}

#[test]
fn the_same_facts_are_written_once() {
    let root = SimDir::new(1);
    keep_facts(&root, ME, &facts(3, &[ME, OTHER])).unwrap();
    let operations = root.operations();
    keep_facts(&root, ME, &facts(3, &[ME, OTHER])).unwrap();
    assert_eq!(root.operations(), operations + 2, "synced, in case that their writer was not able to");
    assert_eq!(root.list().unwrap().len(), 1);
}

/// With the power cut in each operation: what was kept before is there, or what was being kept.
#[test]
fn a_crash_leaves_the_facts_before_or_after() {
    let keep =
        |root: &SimDir| (3..=6).all(|applied| keep_facts(root, ME, &facts(applied, &[ME, OTHER])).is_ok());
    let whole = SimDir::new(1);
    assert!(keep(&whole));
    let mut seen = Vec::new();
    for crash_at in 1..=whole.operations() {
        let root = SimDir::new(crash_at);
        root.plan(FaultPlan { crash_at: Some(crash_at), ..FaultPlan::default() });
        let mut done = 2;
        while done < 6 && keep_facts(&root, ME, &facts(done + 1, &[ME, OTHER])).is_ok() {
            done += 1;
        }
        for survival in [Survival::Nothing, Survival::Everything, Survival::Random] {
            let left = root.crash(survival);
            let found = kept(&left, &log(0, 9, 2)).unwrap_or(2);
            assert!(found == done || found == done + 1, "cut in {crash_at}: {found} after {done}");
            seen.push(found);
            keep_facts(&left, ME, &facts(7, &[ME, OTHER])).unwrap();
            assert_eq!(kept(&left.crash(Survival::Nothing), &log(0, 9, 2)), Some(7));
        }
    }
    seen.dedup();
    assert!(seen.len() > 4, "{seen:?}");
}

/// The next start finds what a killed process has written, and may let the log lose the position of those that are durable.
#[test]
fn facts_whose_writer_was_killed_are_durable_once_they_are_kept() {
    let root = SimDir::new(1);
    for applied in 3..=4 {
        keep_facts(&root, ME, &facts(applied, &[ME, OTHER])).unwrap();
    }
    let next = facts(5, &[ME, OTHER]);
    root.open(NAMES[0]).unwrap().write_at(0, &encode(&next)).unwrap();
    assert_eq!(kept(&root.crash(Survival::Nothing), &log(0, 9, 2)), Some(4));
    keep_facts(&root, ME, &next).unwrap();
    assert_eq!(kept(&root.crash(Survival::Nothing), &log(0, 9, 2)), Some(5));
}

#[test]
fn the_name_of_a_file_whose_maker_was_killed_is_durable_once_facts_are_in_it() {
    let root = SimDir::new(1);
    root.create(NAMES[0]).unwrap();
    keep_facts(&root, ME, &facts(3, &[ME, OTHER])).unwrap();
    assert_eq!(kept(&root.crash(Survival::Nothing), &log(0, 9, 2)), Some(3));
}
