//! Halves of a network that form clusters apart, and meet.

use std::time::Duration;

use crate::forming::{are_one, wrote_everywhere};
use crate::lan::{Lan, Side, until, wait};

const APART: Duration = Duration::from_secs(30);
const TOGETHER: Duration = Duration::from_secs(90);

/// Two boxes on each of two switches, a cluster on each.
fn apart() -> Lan {
    let mut lan = Lan::with(&[Side::Left, Side::Left, Side::Right, Side::Right]);
    lan.start(&[]);
    until("the left half", APART, || are_one(&lan.boxes[..2], 2, 1));
    until("the right half", APART, || are_one(&lan.boxes[2..], 2, 1));
    assert_ne!(lan.boxes[0].members(), lan.boxes[2].members());
    lan
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn two_empty_halves_become_one_cluster() {
    let mut lan = apart();
    lan.join();
    until("one cluster of all", TOGETHER, || are_one(&lan.boxes, 4, 3));
    wrote_everywhere(&lan.boxes);
    assert!(lan.boxes.iter_mut().all(|one| one.is_running()), "nobody had to be started again");
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn the_empty_half_joins_the_one_that_was_written_to() {
    for written in [0, 2] {
        let lan = apart();
        lan.boxes[written].must(&["put", "first", "write"]);
        lan.join();
        until("one cluster of all", TOGETHER, || are_one(&lan.boxes, 4, 3));
        for one in &lan.boxes {
            assert_eq!(one.must(&["get", "first"]), "first\nwrite\n");
        }
    }
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn two_halves_that_were_written_to_go_on_as_they_are_and_say_so() {
    let lan = apart();
    lan.boxes[0].must(&["put", "left", "1"]);
    lan.boxes[2].must(&["put", "right", "2"]);
    lan.join();
    for one in &lan.boxes {
        until("the conflict in a log", APART, || one.log().contains("CONFLICT").then_some(()));
    }
    wait(Duration::from_secs(5));
    for (half, key) in [(0..2, "left"), (2..4, "right")] {
        are_one(&lan.boxes[half.clone()], 2, 1).expect("two members, as before");
        for one in &lan.boxes[half] {
            assert!(one.must(&["get", key]).starts_with(key));
            one.must(&["put", key, "again"]);
        }
    }
}
