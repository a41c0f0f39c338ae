//! The log under every crash and every failing operation of many histories.
//!
//! The story: a member appends, votes, truncates, cuts its log and installs snapshots. The power goes in the middle of some write, sync
//! or rename; each unsynced sector and name is there afterwards or is not. Then it starts again, perhaps to lose power once more
//! while it cleans up. What had been acknowledged must be there, what had not been must be there whole or not at all,
//! and the log must be fit for use: what is appended next must survive too.

use std::collections::BTreeMap;

use super::testing::{GROWING, IDENTITY, Outcome, SMALL, Step, at, copy, entries, history, open, run};
use super::{Batch, Options, Position, Wal, WalError};
use crate::disk::Directory;
use crate::disk::sim::{Fault, FaultPlan, SimDir, Survival};
use crate::ids::LogIndex;
use crate::prng::Prng;

const SURVIVALS: [Survival; 5] =
    [Survival::Nothing, Survival::Everything, Survival::Random, Survival::Random, Survival::Random];

/// How often each thing was seen, so that a test can say that it tested something.
#[derive(Debug, Default)]
struct Seen {
    tears: u64,
    kept: u64,
    dropped: u64,
    absent: u64,
}

fn crash_at(at: u64) -> FaultPlan {
    FaultPlan { crash_at: Some(at), ..FaultPlan::default() }
}

/// Opens what a crash left, and checks that the log is what it may be and that it can be used.
fn check(outcome: &Outcome, image: &SimDir, options: Options, seen: &mut Seen) -> Result<(), String> {
    let opened = open(image, options);
    let (wal, recovered) = match opened {
        Ok((wal, recovered)) => (Some(wal), Ok(recovered)),
        Err(error) => (None, Err(error)),
    };
    seen.tears += u64::from(recovered.as_ref().is_ok_and(|recovered| recovered.tear.is_some()));
    let Some(mut model) = outcome.allows(&recovered)? else {
        seen.absent += 1;
        let again = run(image, options, at(0, 0), &[]);
        return again.error.map_or(Ok(()), |error| Err(format!("cannot be made again: {error}")));
    };
    let kept = outcome.attempted.as_ref() == Some(&model);
    seen.kept += u64::from(kept);
    seen.dropped += u64::from(!kept && outcome.attempted.is_some());
    let Some(mut wal) = wal else { return Err("opened and not opened".to_owned()) };
    for length in [100, 3000] {
        let Position { index, term } = model.last();
        let step = Step::Append(None, entries(index.0 + 1, 1, term.0, length));
        model.apply(&step);
        if let Step::Append(hard_state, entries) = &step {
            wal.append(Batch { hard_state: *hard_state, entries }).map_err(|error| error.to_string())?;
            wal.sync().map_err(|error| error.to_string())?;
        }
    }
    let (_, again) = open(&image.crash(Survival::Nothing), options).map_err(|error| error.to_string())?;
    if again.tear.is_some() {
        return Err("the tear was not wiped".to_owned());
    }
    model.agrees(&again)
}

fn every_crash(options: Options, seed: u64, length: usize, seen: &mut Seen) {
    let (start, steps) = history(seed, length);
    let whole = SimDir::new(seed);
    run(&whole, options, start, &steps);
    let mut prng = Prng::new(seed);
    for crash in 1..=whole.operations() {
        let dir = SimDir::new(seed ^ crash);
        dir.plan(crash_at(crash));
        let outcome = run(&dir, options, start, &steps);
        for survival in SURVIVALS {
            let image = dir.crash(survival);
            let fresh = copy(&image);
            let story = || format!("seed {seed}, crash in operation {crash}, {survival:?}");
            check(&outcome, &image, options, seen).unwrap_or_else(|reason| panic!("{}: {reason}", story()));

            // Once more, with the power going while it recovers.
            let measured = copy(&fresh);
            let _ = open(&measured, options);
            if measured.operations() == 0 {
                continue;
            }
            fresh.plan(crash_at(prng.range(1, measured.operations() + 1)));
            assert!(open(&fresh, options).is_err(), "{}", story());
            let image = fresh.crash(Survival::Random);
            check(&outcome, &image, options, seen)
                .unwrap_or_else(|reason| panic!("{}, then in recovery: {reason}", story()));
        }
    }
}

#[test]
fn every_crash_point_of_prefilled_logs() {
    let mut seen = Seen::default();
    for seed in 0..6 {
        every_crash(SMALL, seed, 40, &mut seen);
    }
    assert!(seen.tears > 50 && seen.kept > 50 && seen.dropped > 50 && seen.absent > 10, "{seen:?}");
}

#[test]
fn every_crash_point_of_growing_logs() {
    let mut seen = Seen::default();
    for seed in 100..106 {
        every_crash(GROWING, seed, 40, &mut seen);
    }
    assert!(seen.tears > 50 && seen.kept > 50 && seen.dropped > 50 && seen.absent > 10, "{seen:?}");
}

/// A process that dies alone leaves everything in the page cache, also what was never synced. Its next run reads that, and raft counts on it:
/// it must be durable by then.
#[test]
fn what_is_recovered_is_durable() {
    let dir = SimDir::new(1);
    let mut wal = Wal::create(dir.clone(), IDENTITY, at(0, 0), SMALL).unwrap();
    let log = entries(1, 3, 1, 300);
    wal.append(Batch { hard_state: None, entries: &log }).unwrap();
    drop(wal);
    assert_eq!(open(&dir, SMALL).unwrap().1.entries, log);
    assert_eq!(open(&dir.crash(Survival::Nothing), SMALL).unwrap().1.entries, log);
}

/// The same for names: a segment whose rename the dead process had not synced gets batches from the next one.
#[test]
fn names_of_a_dead_process_are_durable_after_an_open() {
    let dir = SimDir::new(1);
    run(&dir, SMALL, at(0, 0), &[Step::Append(None, entries(1, 1, 1, 2000))]);
    // The process had made the second segment and died between the rename and the sync of the directory.
    dir.rename("0000000000000002.wal", "0000000000000002.tmp").unwrap();
    dir.sync().unwrap();
    dir.rename("0000000000000002.tmp", "0000000000000002.wal").unwrap();
    let (mut wal, _) = open(&dir, SMALL).unwrap();
    // Enough to get into the second segment, but not to make a third, which would sync the directory too.
    for index in 2..=4 {
        wal.append(Batch { hard_state: None, entries: &entries(index, 1, 1, 2000) }).unwrap();
        wal.sync().unwrap();
    }
    assert_eq!(open(&dir.crash(Survival::Nothing), SMALL).unwrap().1.last(), at(4, 1));
}

/// Every operation fails once, with a full disk or a broken one. The log says so and stops, or, where it was about to make a segment that the disk
/// has no room for, goes on; whatever the process was told before still holds after it, and after a crash.
#[test]
fn every_failing_operation_stops_the_log() {
    for (seed, options, fault) in
        [(1, SMALL, Fault::Eio), (2, SMALL, Fault::Enospc), (3, GROWING, Fault::Eio)]
    {
        let (start, steps) = history(seed, 60);
        let whole = SimDir::new(seed);
        run(&whole, options, start, &steps);
        let mut survived = 0;
        for failing in 1..=whole.operations() {
            let dir = SimDir::new(seed ^ failing);
            dir.plan(FaultPlan { fail_at: BTreeMap::from([(failing, fault)]), ..FaultPlan::default() });
            let mut outcome = run(&dir, options, start, &steps);
            let story = || format!("seed {seed}, {fault:?} in operation {failing}");
            survived += u64::from(outcome.error.is_none());
            let failed = match outcome.error {
                Some(WalError::Io { .. }) => true,
                None => fault != Fault::Enospc,
                _ => false,
            };
            assert!(failed || outcome.error.is_none(), "{}: {:?}", story(), outcome.error);
            // A failing open gives no log to go on with.
            if let (Some(wal), false, true) = (&mut outcome.wal, outcome.reopening, failed) {
                assert!(matches!(wal.append(Batch::default()), Err(WalError::Poisoned)), "{}", story());
                assert!(matches!(wal.sync(), Err(WalError::Poisoned)));
                assert!(matches!(wal.cut(LogIndex(1)), Err(WalError::Poisoned)));
                assert!(matches!(wal.reset(at(1, 1)), Err(WalError::Poisoned)));
                assert!(matches!(wal.prepare(), Err(WalError::Poisoned)));
            }
            let mut seen = Seen::default();
            for image in [dir.crash(Survival::Nothing), dir.crash(Survival::Random), copy(&dir)] {
                check(&outcome, &image, options, &mut seen)
                    .unwrap_or_else(|reason| panic!("{}: {reason}", story()));
            }
        }
        assert_eq!(survived > 0, fault == Fault::Enospc, "{survived} of {}", whole.operations());
    }
}

#[test]
fn every_failing_read_is_an_error() {
    let (start, steps) = history(4, 60);
    let dir = SimDir::new(4);
    run(&dir, SMALL, start, &steps);
    // What is given up goes with the first one.
    open(&dir, SMALL).unwrap();
    let before = dir.reads();
    open(&dir, SMALL).unwrap();
    let reads = dir.reads() - before;
    assert!(reads > 3);
    for failing in 1..=reads {
        dir.plan(FaultPlan { fail_read_at: Some(dir.reads() + failing), ..FaultPlan::default() });
        let error = open(&dir, SMALL).unwrap_err();
        assert!(
            matches!(&error, WalError::Io { file, operation: "read", .. } if !file.is_empty()),
            "{error}"
        );
    }
}
