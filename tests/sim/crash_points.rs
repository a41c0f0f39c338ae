//! A crash at every write, sync and change of a name of a short history: founding, writes, folds, compaction, more writes; and of another
//! one, in which a member gets the state of another.
//!
//! Owns: the enumeration. Must never: leave a point out. The history is the same each time up to the crash, so the points are its own.

use covey::disk::sim::Survival;

use crate::plan::Plan;
use crate::seeds::{Draw, outcome};
use crate::world::{CrashPoint, Report, World};

const SEED: u64 = 3;
const SURVIVALS: [Survival; 3] = [Survival::Nothing, Survival::Everything, Survival::Random];

fn run(draw: Draw, point: Option<CrashPoint>) -> Report {
    let mut world = World::new(draw(SEED));
    if let Some(point) = point {
        world.crash_at(point);
    }
    outcome(|| world.run()).unwrap_or_else(|why| panic!("{point:?}: {why}"))
}

fn points(draw: Draw) -> impl Iterator<Item = u64> {
    1..=run(draw, None).disk_operations[0]
}

#[test]
fn the_history_founds_folds_and_compacts() {
    let report = run(Plan::script, None);
    assert!(report.stored >= 4 && report.disk_operations[0] > 140, "{report:?}");
}

#[test]
fn a_crash_at_any_operation_loses_nothing_that_was_acknowledged() {
    for at in points(Plan::script) {
        for survival in SURVIVALS {
            let report = run(Plan::script, Some(CrashPoint { host: 0, at, survival, again: None }));
            assert_eq!(report.power_cuts, 2, "{at} was reached, and the end");
        }
    }
}

/// An entry that the store carries out is there as a whole or not at all, and then it is done again.
#[test]
fn a_crash_at_any_operation_around_deletions_by_the_store_loses_nothing() {
    let whole = run(Plan::script_sweeps, None);
    assert!(whole.swept >= 3, "{whole:?}");
    for at in points(Plan::script_sweeps) {
        let survival = SURVIVALS[usize::try_from(at % 3).expect("small")];
        run(Plan::script_sweeps, Some(CrashPoint { host: 0, at, survival, again: None }));
    }
}

/// The start after each of those crashes crashes as well, a little later each time.
#[test]
fn a_crash_while_starting_after_a_crash_loses_nothing_either() {
    let mut reached = 0;
    for at in points(Plan::script) {
        let again = Some(1 + at % 26);
        let survival = Survival::Random;
        let report = run(Plan::script, Some(CrashPoint { host: 0, at, survival, again }));
        reached += u64::from(report.power_cuts == 3);
    }
    assert!(reached > 50, "{reached} second crashes");
}

/// The member that gets the state, and those that send it: pieces, folds between them, the last one, the install, the log's new begin.
#[test]
fn a_crash_at_any_operation_of_an_exchange_loses_nothing() {
    let whole = run(Plan::script_exchange, None);
    assert!(whole.installed > 0, "{whole:?}");
    let follower = whole.disk_operations.len() - 1;
    let mut crashes = 0;
    for host in 0..=follower {
        let survivals = if host == follower { &SURVIVALS[..] } else { &SURVIVALS[2..] };
        for at in whole.disk_operations_before[host] + 1..=whole.disk_operations[host] {
            for &survival in survivals {
                // The start after it crashes as well, where it gets so far.
                let again = (at % 3 == 0).then_some(1 + at % 17);
                run(Plan::script_exchange, Some(CrashPoint { host, at, survival, again }));
                crashes += 1;
            }
        }
    }
    println!("{crashes} crashes around an exchange");
    assert!(crashes > 200, "{crashes}");
}
