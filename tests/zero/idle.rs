//! What boxes cost while nobody asks anything of them: how often they wake up, which is what a battery and a small processor feel.

use std::fs;
use std::time::Duration;

use crate::forming::are_one;
use crate::lan::{Box, Lan, until, wait};

/// A box that looks for a while, and founds.
const FORMS: Duration = Duration::from_secs(40);
/// For a minute after an interface came up everybody is asked more often.
const SETTLES: Duration = Duration::from_secs(70);
const MEASURED: Duration = Duration::from_secs(40);
/// Times a second that some thread of the process goes on after it has waited.
const ALONE_MAX: u64 = 5;
const FOLLOWER_MAX: u64 = 60;
const LEADER_MAX: u64 = 120;

/// How often all threads of a box's process have waited so far.
fn waits(one: &Box) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", one.pid())).unwrap();
    let of = |task: fs::DirEntry| -> Option<u64> {
        // A thread may have ended meanwhile.
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        count.trim().parse().ok()
    };
    tasks.filter_map(Result::ok).filter_map(of).sum()
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn boxes_that_have_nothing_to_do_seldom_wake_up() {
    let (mut alone, mut three) = (Lan::new(1), Lan::new(3));
    alone.start(&[]);
    three.start(&[]);
    until("a cluster of one", FORMS, || are_one(&alone.boxes, 1, 1));
    until("three voters", FORMS, || are_one(&three.boxes, 3, 3));
    wait(SETTLES);
    let boxes: Vec<&Box> = alone.boxes.iter().chain(&three.boxes).collect();
    let before: Vec<u64> = boxes.iter().map(|one| waits(one)).collect();
    wait(MEASURED);
    let rate = |(one, before): (&&Box, &u64)| waits(one).saturating_sub(*before) / MEASURED.as_secs();
    let mut rates: Vec<u64> = boxes.iter().zip(&before).map(rate).collect();
    report(&format!("wakeups a second: {rates:?}"));
    assert!(rates[0] <= ALONE_MAX, "{rates:?}");
    rates[1..].sort_unstable();
    assert!(rates[2] <= FOLLOWER_MAX && rates[3] <= LEADER_MAX, "{rates:?}");
}

#[expect(clippy::print_stderr, reason = "a measurement")]
fn report(text: &str) {
    eprintln!("{text}");
}
