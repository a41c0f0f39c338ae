//! Formation: boxes that find each other, in virtual time, with everything that may go wrong, until all are in a cluster.
//!
//! Owns: which seeds run. Must never: stop at a failure without the command that repeats it.

mod cluster;
mod clusters;
mod host;
mod judge;
mod members;
pub(crate) mod plan;
mod words;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

#[cfg(feature = "planted")]
use covey::planted::{Bug, plant};

use crate::seeds::outcome;
use plan::{Kind, Plan};
use world::{Obstacle, Report, World};

/// Seeds of each test run.
const SEEDS: u64 = 2000;
const TOGETHER_SEEDS: u64 = 400;
const MEETING_SEEDS: u64 = 1200;

/// What many seeds did.
#[derive(Default)]
struct Totals {
    seeds: u64,
    events: u64,
    crashes: u64,
    /// How many ended as more than one cluster, by what they were.
    split: Vec<(Kind, u64, u64)>,
    longest: Duration,
}

fn run(plan: Plan) -> Result<Report, String> {
    outcome(move || World::new(plan).run())
}

impl Totals {
    fn run(&mut self, seed: u64) {
        let plan = Plan::draw(seed);
        let kind = plan.kind;
        let report = run(plan).unwrap_or_else(|why| {
            panic!("gather seed {seed}: {why}\nrepeat it with: cargo sim gather seed={seed}")
        });
        self.seeds += 1;
        self.events += report.events;
        self.crashes += report.crashes;
        self.longest = self.longest.max(report.took);
        let split = u64::from(report.clusters > 1);
        match self.split.iter_mut().find(|(known, ..)| *known == kind) {
            Some((_, seeds, of_them)) => (*seeds, *of_them) = (*seeds + 1, *of_them + split),
            None => self.split.push((kind, 1, split)),
        }
    }

    fn show(&self) {
        let Self { seeds, events, crashes, split, longest } = self;
        println!("{seeds} gather seeds: {events} events, {crashes} crashes, all joined within {longest:?}");
        for (kind, seeds, split) in split {
            println!("  {kind:?}: {split} of {seeds} came to more than one cluster at first");
        }
    }
}

#[test]
fn nodes_that_find_each_other_end_in_clusters_and_keep_their_promises() {
    let mut totals = Totals::default();
    for seed in 0..SEEDS {
        totals.run(seed);
    }
    totals.show();
    assert!(totals.crashes > SEEDS, "things went wrong");
    let halves = totals.split.iter().find(|(kind, ..)| *kind == Kind::Halves);
    assert!(halves.is_some_and(|(_, _, split)| *split > 0), "halves that meet late are two clusters");
}

/// The target of the design: three boxes that are switched on together are one cluster after at most 15 s, half of them after 8 s.
#[test]
fn three_boxes_switched_on_together_are_one_cluster_soon() {
    let mut took: Vec<Duration> = (0..TOGETHER_SEEDS)
        .map(|seed| run(Plan::together(seed, 3)).unwrap_or_else(|why| panic!("seed {seed}: {why}")).took)
        .collect();
    took.sort_unstable();
    let (half, all) = (took[took.len() / 2], took[took.len() - 1]);
    println!("three boxes: p50 {half:?}, max {all:?}");
    assert!(half <= Duration::from_secs(8) && all <= Duration::from_secs(15), "{half:?}, {all:?}");
}

#[test]
fn a_seed_of_nodes_that_gather_gives_the_same_run_again() {
    for seed in 5000..5020 {
        let trace = || run(Plan::draw(seed)).map(|report| report.trace);
        assert_eq!(trace(), trace(), "seed {seed}");
    }
}

/// What became of many networks whose clusters have met.
#[derive(Default)]
struct Meetings {
    seeds: u64,
    events: u64,
    crashes: u64,
    dissolved: u64,
    /// Of those, the ones that an operator gave up with what users had written.
    given_up: u64,
    /// Members that have left one that had ended while they were away.
    told: u64,
    /// Of those, the ones whose cluster had not ended.
    deceived: u64,
    /// How often somebody has made up words, and how often a member was asked to leave that had a user's write behind a change of those who vote.
    floods: u64,
    torn: u64,
    /// Networks in which a cluster has members whose nodes never came.
    haunted: u64,
    simulated: Duration,
    /// The longest that a network took that became one cluster.
    longest: Duration,
    obstacles: BTreeMap<Option<Obstacle>, u64>,
}

impl Meetings {
    fn run(&mut self, seed: u64) {
        let report = run(Plan::meeting(seed)).unwrap_or_else(|why| {
            panic!("meeting seed {seed}: {why}\nrepeat it with: cargo sim gather meeting seed={seed}")
        });
        self.seeds += 1;
        self.events += report.events;
        self.crashes += report.crashes;
        self.dissolved += report.dissolved;
        self.given_up += report.given_up;
        self.told += report.told;
        self.deceived += report.deceived;
        self.floods += report.floods;
        self.torn += report.torn;
        self.haunted += u64::from(report.ghosts > 0);
        self.simulated += report.simulated;
        if report.obstacle.is_none() {
            self.longest = self.longest.max(report.took);
        }
        *self.obstacles.entry(report.obstacle).or_default() += 1;
    }

    fn show(&self) {
        let Self {
            seeds,
            events,
            crashes,
            dissolved,
            given_up,
            told,
            deceived,
            floods,
            torn,
            haunted,
            simulated,
            longest,
            obstacles,
        } = self;
        let hours = simulated.as_secs_f64() / Duration::from_hours(1).as_secs_f64();
        println!(
            "{seeds} meeting seeds, {hours:.1} simulated hours: {events} events, {crashes} crashes, {dissolved} clusters dissolved ({given_up} on an order), {told} members were told of an end ({deceived} of one that was none; {torn} times where a write stood behind a change of the voters), {floods} floods of words, \
             {haunted} networks with ghosts, one cluster within {longest:?}; in the way of that: {obstacles:?}"
        );
    }
}

#[test]
fn clusters_that_meet_become_one_and_lose_nothing() {
    let mut totals = Meetings::default();
    for seed in 0..MEETING_SEEDS {
        totals.run(seed);
    }
    totals.show();
    let one = totals.obstacles.get(&None).copied().unwrap_or_default();
    assert!(2 * one > totals.seeds && totals.dissolved > totals.seeds / 4, "clusters met");
    assert!(totals.given_up > totals.seeds / 100, "operators gave clusters up");
    assert!(totals.told > totals.seeds / 100, "members were away when their clusters ended");
    assert!(totals.deceived > totals.seeds / 200, "somebody lied");
    assert!(totals.floods > totals.seeds / 20, "somebody made up words");
    assert!(totals.torn > totals.seeds / 200, "members could not know who votes");
    let outdated = totals.obstacles.get(&Some(Obstacle::Outdated)).copied().unwrap_or_default();
    assert!(outdated > totals.seeds / 50, "some were of too old a build");
}

/// As in `planted`.
#[cfg(feature = "planted")]
fn find(bug: Bug, draw: fn(u64) -> Plan, seeds_max: u64, said: &str) {
    plant(bug);
    let found = (0..seeds_max)
        .find_map(|seed| run(draw(seed)).err().filter(|why| why.contains(said)).map(|why| (seed, why)));
    let (seed, why) = found.expect("the simulator finds the bug");
    println!("found with seed {seed}: {why}");
}

#[cfg(feature = "planted")]
#[test]
fn forget_promise_is_found() {
    find(Bug::ForgetPromise, Plan::draw, 2000, "");
}

#[cfg(feature = "planted")]
#[test]
fn promise_twice_is_found() {
    find(Bug::PromiseTwice, Plan::draw, 2000, "");
}

/// Not only that a network does not become one cluster: what was in both is gone.
#[cfg(feature = "planted")]
#[test]
fn compare_names_is_found() {
    find(Bug::CompareNames, Plan::meeting, 1000, "dissolve into each other");
}

/// Whoever has one member's key takes another one out of a cluster that was written to.
#[cfg(feature = "planted")]
#[test]
fn follow_one_word_is_found() {
    find(Bug::FollowOneWord, Plan::taken, 1000, "on the word of one that lies");
}

/// Whoever has the key of a cluster's first voter takes one of the others out of it, which does not know yet that it votes.
#[cfg(feature = "planted")]
#[test]
fn trust_old_voters_is_found() {
    find(Bug::TrustOldVoters, Plan::taken, 1000, "on the word of one that lies");
}

/// Whoever has one member's key pushes out what others have said.
#[cfg(feature = "planted")]
#[test]
fn bury_by_age_is_found() {
    find(Bug::BuryByAge, Plan::taken, 1000, "has forgotten what a member has said last");
}

/// What `cargo sim gather` runs.
pub(crate) fn long(meeting: bool, seed: Option<u64>, seeds: std::ops::Range<u64>) {
    let draw = if meeting { Plan::meeting } else { Plan::draw };
    if let Some(seed) = seed {
        let plan = Plan { verbose: true, ..draw(seed) };
        println!("{plan:?}");
        println!("{:?}", World::new(plan).run());
        return;
    }
    if meeting {
        let mut totals = Meetings::default();
        for seed in seeds {
            totals.run(seed);
            if totals.seeds.is_multiple_of(1000) {
                totals.show();
            }
        }
        return totals.show();
    }
    let mut totals = Totals::default();
    for seed in seeds {
        totals.run(seed);
        if totals.seeds.is_multiple_of(10_000) {
            totals.show();
        }
    }
    totals.show();
}
