//! Random histories: many seeds, one of them again, as many as one likes.
//!
//! Owns: the loop over seeds, what is said of a failure, the totals. Must never: stop at a failure without the command that repeats it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::gather;
use crate::plan::Plan;
use crate::world::{Report, World};

/// Seeds of each test run of lone nodes, of clusters, and of clusters that are busy with leases.
const LONE_SEEDS: u64 = 200;
const CLUSTER_SEEDS: u64 = 100;
const LEASE_SEEDS: u64 = 24;
const MEMBER_SEEDS: u64 = 36;
const SPOILED_SEEDS: u64 = 32;
const GROWING_SEEDS: u64 = 20;

/// A kind of world.
pub(crate) type Draw = fn(u64) -> Plan;

/// Runs one seed; what does not hold comes back as text.
pub(crate) fn run(plan: Plan) -> Result<Report, String> {
    outcome(move || World::new(plan).run())
}

/// The result of some work, or what its panic said.
pub(crate) fn outcome<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("something without words").to_owned()
    })
}

/// What many seeds did.
#[derive(Default)]
struct Totals {
    seeds: u64,
    sum: Report,
}

impl Totals {
    fn run(&mut self, kind: &str, draw: Draw, seed: u64) {
        let report = run(draw(seed)).unwrap_or_else(|why| {
            panic!("{kind} seed {seed}: {why}\nrepeat it with: cargo sim {kind} seed={seed}")
        });
        self.seeds += 1;
        let sum = &mut self.sum;
        sum.simulated += report.simulated;
        sum.events += report.events;
        sum.acknowledged += report.acknowledged;
        sum.unknown += report.unknown;
        sum.reads += report.reads;
        sum.starts += report.starts;
        sum.power_cuts += report.power_cuts;
        sum.kills += report.kills;
        sum.faults += report.faults;
        sum.late += report.late;
        sum.slept += report.slept;
        sum.stopped += report.stopped;
        sum.cuts.iter_mut().zip(report.cuts).for_each(|(sum, cuts)| *sum += cuts);
        sum.stuck += report.stuck;
        sum.handed_over += report.handed_over;
        sum.stored += report.stored;
        sum.swept += report.swept;
        sum.swept_leases += report.swept_leases;
        sum.installed += report.installed;
        sum.spoiled += report.spoiled;
        sum.renewed_states += report.renewed_states;
        sum.served_suspects += report.served_suspects;
        sum.told += report.told;
        sum.progress += report.progress;
        sum.overtaken += report.overtaken;
        sum.renewed += report.renewed;
        sum.expired += report.expired;
        sum.checkpoints += report.checkpoints;
        sum.added += report.added;
        sum.promoted += report.promoted;
        sum.removed += report.removed;
        sum.demoted += report.demoted;
        sum.frozen += report.frozen;
        sum.lost += report.lost;
        sum.fenced += report.fenced;
    }

    fn show(&self, kind: &str) {
        let Totals { seeds, sum } = self;
        let hours = sum.simulated.as_secs_f64() / Duration::from_hours(1).as_secs_f64();
        println!(
            "{seeds} {kind} seeds, {hours:.1} simulated hours: {} events, {} writes acknowledged, {} requests of unknown outcome, {} reads, \
             {} starts, {} power cuts, {} kills, {} troubles, {:?} cuts, {} messages from earlier terms, {} sleeps and {} stops, {} disks stuck, {} leads given up for that, {} commits of the store, {} deletions by it, {} ends of leases by it, {} states installed, {} spoiled, {} of them replaced, {} renewals, {} leases expired, {} checkpointed, \
             {} events told, {} times progress, {} watchers overtaken, {} members added, {} promoted, {} removed, {} demoted, {} times none, {} disks lost, {} copies found out",
            sum.events,
            sum.acknowledged,
            sum.unknown,
            sum.reads,
            sum.starts,
            sum.power_cuts,
            sum.kills,
            sum.faults,
            sum.cuts,
            sum.late,
            sum.slept,
            sum.stopped,
            sum.stuck,
            sum.handed_over,
            sum.stored,
            sum.swept,
            sum.swept_leases,
            sum.installed,
            sum.spoiled,
            sum.renewed_states,
            sum.renewed,
            sum.expired,
            sum.checkpoints,
            sum.told,
            sum.progress,
            sum.overtaken,
            sum.added,
            sum.promoted,
            sum.removed,
            sum.demoted,
            sum.frozen,
            sum.lost,
            sum.fenced
        );
    }
}

fn run_seeds(kind: &str, draw: Draw, seeds: std::ops::Range<u64>) -> Report {
    let mut totals = Totals::default();
    for seed in seeds {
        totals.run(kind, draw, seed);
    }
    totals.show(kind);
    let Report { acknowledged, power_cuts, kills, stored, .. } = totals.sum;
    assert!(acknowledged > 20 * totals.seeds, "the clients got somewhere");
    assert!(power_cuts > totals.seeds && kills > 0 && stored > 0, "things went wrong");
    let Report { renewed, expired, .. } = totals.sum;
    assert!(renewed > 0 && expired > 0, "leases lived and died");
    let Report { told, progress, overtaken, .. } = totals.sum;
    assert!(
        told > 10 * totals.seeds && progress > 0 && overtaken > 0,
        "watchers were told, and some too late"
    );
    totals.sum
}

#[test]
fn a_lone_node_keeps_its_word() {
    let report = run_seeds("lone", Plan::draw, 0..LONE_SEEDS);
    assert!(report.checkpoints > 0, "{report:?}");
}

#[test]
fn clusters_keep_their_word() {
    let report = run_seeds("cluster", Plan::draw_cluster, 0..CLUSTER_SEEDS);
    let Report { cuts, late, slept, stopped, .. } = report;
    assert!(cuts.iter().all(|cuts| *cuts > 0) && late > CLUSTER_SEEDS, "{report:?}");
    assert!(slept > CLUSTER_SEEDS / 10 && stopped > CLUSTER_SEEDS / 10, "{report:?}");
}

#[test]
fn no_lease_ends_early_whoever_leads() {
    let report = run_seeds("leases", Plan::draw_leases, 0..LEASE_SEEDS);
    let Report { renewed, expired, checkpoints, stuck, handed_over, .. } = report;
    assert!(renewed > 4 * LEASE_SEEDS && expired > 3 * LEASE_SEEDS && checkpoints > 0, "{report:?}");
    assert!(stuck > 0 && handed_over > 0, "{report:?}");
}

#[test]
fn clusters_whose_members_change_keep_their_word() {
    let report = run_seeds("members", Plan::draw_members, 0..MEMBER_SEEDS);
    let Report { added, promoted, removed, lost, fenced, .. } = report;
    assert!(added > MEMBER_SEEDS / 2 && promoted > 0 && removed > MEMBER_SEEDS / 2, "{report:?}");
    assert!(lost > MEMBER_SEEDS / 4 && fenced > MEMBER_SEEDS / 12, "{report:?}");
}

#[test]
fn a_member_whose_state_is_spoiled_takes_another_one() {
    let report = run_seeds("spoiled", Plan::draw_spoiled, 0..SPOILED_SEEDS);
    let Report { spoiled, renewed_states, served_suspects, .. } = report;
    assert!(spoiled > SPOILED_SEEDS && renewed_states == spoiled, "{report:?}");
    // Another leader begins anew, and there are many elections; a restart of the member, or a late answer, is no reason to.
    assert!(4 * served_suspects < 9 * spoiled, "{served_suspects} transfers for {spoiled} states");
}

#[test]
fn clusters_that_grow_by_themselves_keep_their_word() {
    let report = run_seeds("growing", Plan::draw_growing, 0..GROWING_SEEDS);
    let Report { added, promoted, demoted, frozen, .. } = report;
    assert!(added > 2 * GROWING_SEEDS && promoted > 2 * GROWING_SEEDS, "{report:?}");
    assert!(demoted > 0 && frozen > 0, "{report:?}");
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let kinds =
        [(Plan::draw as Draw, 1000..1012), (Plan::draw_cluster, 1000..1002), (Plan::draw_leases, 1000..1001)];
    for (draw, seeds) in kinds {
        for seed in seeds {
            let (one, two) = (run(draw(seed)), run(draw(seed)));
            assert_eq!(one.map(|report| report.trace), two.map(|report| report.trace), "seed {seed}");
        }
    }
}

/// Addresses, hash seeds and the time of day are different ones in another process.
#[test]
fn a_seed_gives_the_same_run_in_another_process() {
    let itself = std::env::current_exe().expect("this program");
    let arguments = ["--ignored", "--exact", "seeds::long", "--nocapture", "lone", "seed=2001"];
    let output = std::process::Command::new(itself).args(arguments).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let here = run(Plan::draw(2001)).expect("a good seed").trace;
    assert!(text.contains(&format!("trace {here:016x}")), "{here:016x}: {text}");
}

/// What `cargo sim` runs: `cargo sim [lone|cluster|leases|members|spoiled|growing|gather [meeting]] [COUNT] [from=SEED] [seed=SEED]`.
#[test]
#[ignore = "as long as one likes: cargo sim"]
fn long() {
    let arguments: Vec<String> =
        std::env::args().skip_while(|argument| argument != "--nocapture").skip(1).collect();
    let number = |name: &str| {
        let value = arguments.iter().find_map(|argument| argument.strip_prefix(name));
        value.map(|value| value.parse::<u64>().expect("a number"))
    };
    let kinds: [(&str, Draw); 6] = [
        ("cluster", Plan::draw_cluster),
        ("leases", Plan::draw_leases),
        ("members", Plan::draw_members),
        ("spoiled", Plan::draw_spoiled),
        ("growing", Plan::draw_growing),
        ("lone", Plan::draw),
    ];
    let count = arguments.iter().find_map(|argument| argument.parse::<u64>().ok()).unwrap_or(1000);
    let from = number("from=").unwrap_or(1_000_000);
    if arguments.iter().any(|argument| argument == "gather") {
        let meeting = arguments.iter().any(|argument| argument == "meeting");
        return gather::long(meeting, number("seed="), from..from + count);
    }
    let asked = |kind: &&(&str, Draw)| arguments.iter().any(|argument| argument == kind.0);
    let (kind, draw) = kinds.iter().find(asked).copied().unwrap_or(kinds[5]);
    if let Some(seed) = number("seed=") {
        let plan = Plan { verbose: true, ..draw(seed) };
        println!("{plan:?}");
        let report = World::new(plan).run();
        println!("{report:?}\ntrace {:016x}", report.trace);
        return;
    }
    let mut totals = Totals::default();
    for seed in from..from + count {
        totals.run(kind, draw, seed);
        if totals.seeds.is_multiple_of(100) {
            totals.show(kind);
        }
    }
    totals.show(kind);
}
