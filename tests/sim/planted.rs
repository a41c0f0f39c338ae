//! Bugs that are put in on purpose: the simulator finds each of them within a few seeds, by what clients are shown, or by what is in the logs and in
//! the messages.
//!
//! Owns: how many seeds that may take. Each test plants its bug for its own thread, in which all of its members run:
//!
//! ```text
//! cargo test --test sim --features planted is_found
//! ```

#![allow(clippy::print_stdout, reason = "a test says with which seed it found its bug")]

use std::time::Duration;

use covey::planted::{Bug, plant};

use crate::plan::{Cuts, Net, Plan, Trouble};
use crate::seeds::{Draw, run};

/// Looks for a violation without looking inside the members.
fn find(draw: Draw, seeds_max: u64) {
    find_said(draw, seeds_max, "");
}

/// The same for a violation that is described so.
fn find_said(draw: Draw, seeds_max: u64, said: &str) {
    find_inside(|seed| Plan { look_inside: false, ..draw(seed) }, seeds_max, said);
}

/// The same inside the members, too: what clients are shown may be right for long.
fn find_inside(plan: impl Fn(u64) -> Plan, seeds_max: u64, said: &str) {
    let found = (0..seeds_max)
        .find_map(|seed| run(plan(seed)).err().filter(|why| why.contains(said)).map(|why| (seed, why)));
    let (seed, why) = found.expect("the simulator finds the bug");
    println!("found with seed {seed}: {why}");
}

/// Members come and go all the time, as they do not around a disk that is lost.
fn no_disk_lost(seed: u64) -> Plan {
    Plan { loss: None, ..Plan::draw_members(seed) }
}

/// Three members, of which one or another is always starting, so that there are many elections.
fn restless(seed: u64) -> Plan {
    let plan = Plan::draw_cluster(seed);
    let trouble = Trouble { gap: Some(Duration::from_millis(400)), ..plan.trouble };
    Plan { hosts: 3, trouble, ..plan }
}

/// Three members between which many messages come seconds late, also across elections.
fn slow_to_hear(seed: u64) -> Plan {
    let plan = Plan::draw_cluster(seed);
    let cuts = Cuts { gap: Duration::from_millis(1500), length: Duration::from_secs(3) };
    let trouble = Trouble { gap: Some(Duration::from_millis(1500)), ..plan.trouble };
    Plan { hosts: 3, net: Net { cuts: Some(cuts), late_one_in: 6 }, trouble, ..plan }
}

#[test]
fn ack_before_sync_is_found() {
    plant(Bug::AckBeforeSync);
    find(Plan::draw, 20);
}

#[test]
fn forget_applied_is_found() {
    plant(Bug::ForgetApplied);
    find(Plan::draw, 20);
}

#[test]
fn skip_dir_sync_is_found() {
    plant(Bug::SkipDirSync);
    find(Plan::draw, 20);
}

#[test]
fn ack_before_quorum_is_found() {
    plant(Bug::AckBeforeQuorum);
    find(Plan::draw_cluster, 20);
}

#[test]
fn forget_vote_is_found() {
    plant(Bug::ForgetVote);
    find_inside(Plan::draw_cluster, 20, "leaves before it is on the disk");
    find(restless, 150);
}

#[test]
fn send_before_sync_is_found() {
    plant(Bug::SendBeforeSync);
    find_inside(Plan::draw_cluster, 20, "leaves member");
}

#[test]
fn append_anywhere_is_found() {
    plant(Bug::AppendAnywhere);
    find_inside(Plan::draw_members, 600, "not the same up to it");
}

#[test]
fn vote_for_any_log_is_found() {
    plant(Bug::VoteForAnyLog);
    find_inside(Plan::draw_cluster, 60, "which was committed before");
}

#[test]
fn reuse_read_context_is_found() {
    plant(Bug::ReuseReadContext);
    find_said(slow_to_hear, 60, "a stale read");
}

#[test]
fn early_deadlines_is_found() {
    plant(Bug::EarlyDeadlines);
    find(Plan::draw, 20);
}

#[test]
fn cut_off_leaving_is_found() {
    plant(Bug::CutOffLeaving);
    find(no_disk_lost, 1000);
}

#[test]
fn lead_when_removed_is_found() {
    plant(Bug::LeadWhenRemoved);
    find(no_disk_lost, 1000);
}

#[test]
fn log_before_state_is_found() {
    plant(Bug::LogBeforeState);
    find(Plan::draw_members, 1000);
}

#[test]
fn believe_copies_is_found() {
    plant(Bug::BelieveCopies);
    // That a copy is not found out would be seen as such. Here it counts what becomes of that.
    find_inside(Plan::draw_members, 60, "votes a second time");
    find_said(Plan::draw_members, 100, "a write is lost");
}
