//! A crash at every write, sync and change of a name of a short history: founding, writes, folds, compaction, more writes.
//!
//! Owns: the enumeration. Must never: leave a point out. The history is the same each time up to the crash, so the points are its own.

use covey::disk::sim::Survival;

use crate::plan::Plan;
use crate::seeds::outcome;
use crate::world::{CrashPoint, Report, World};

const SEED: u64 = 3;

fn run(point: Option<CrashPoint>) -> Report {
    let mut world = World::new(Plan::script(SEED));
    if let Some(point) = point {
        world.crash_at(point);
    }
    outcome(|| world.run()).unwrap_or_else(|why| panic!("{point:?}: {why}"))
}

fn points() -> impl Iterator<Item = u64> {
    1..=run(None).disk_operations
}

#[test]
fn the_history_founds_folds_and_compacts() {
    let report = run(None);
    assert!(report.stored >= 4 && report.disk_operations > 140, "{report:?}");
}

#[test]
fn a_crash_at_any_operation_loses_nothing_that_was_acknowledged() {
    for at in points() {
        for survival in [Survival::Nothing, Survival::Everything, Survival::Random] {
            let report = run(Some(CrashPoint { at, survival, again: None }));
            assert_eq!(report.power_cuts, 2, "{at} was reached, and the end");
        }
    }
}

/// The start after each of those crashes crashes as well, a little later each time.
#[test]
fn a_crash_while_starting_after_a_crash_loses_nothing_either() {
    let mut reached = 0;
    for at in points() {
        let again = Some(1 + at % 26);
        let report = run(Some(CrashPoint { at, survival: Survival::Random, again }));
        reached += u64::from(report.power_cuts == 3);
    }
    assert!(reached > 50, "{reached} second crashes");
}
