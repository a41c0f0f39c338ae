//! Halves of a network that form clusters apart, and meet.

use std::time::Duration;

use crate::forming::{are_one, wrote_everywhere};
use crate::lan::{Box, Lan, Side, until, wait};

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
    assert!(lan.boxes.iter_mut().all(Box::is_running), "nobody had to be started again");
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
        until("the conflict in a status", APART, || conflict(one).map(drop));
        until("the conflict in the metrics", APART, || {
            one.metrics().contains("\ncovey_cluster_conflicts 1\n").then_some(())
        });
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

/// Two boxes on each side, both sides written to, and in conflict.
fn in_conflict() -> Lan {
    let lan = apart();
    lan.boxes[0].must(&["put", "left", "1"]);
    lan.boxes[2].must(&["put", "right", "2"]);
    lan.join();
    for one in &lan.boxes {
        until("the conflict in a status", APART, || conflict(one).map(drop));
    }
    lan
}

/// What a box says of a conflict, if its cluster is in one.
fn conflict(one: &Box) -> Option<String> {
    let (_, status) = one.exit(&["status"]);
    status.starts_with("CONFLICT").then_some(status)
}

/// All boxes are one cluster, which has what was written on the left alone.
fn are_the_left_ones(boxes: &[Box]) {
    until("one cluster of all", TOGETHER, || are_one(boxes, boxes.len(), 3));
    for one in boxes {
        assert_eq!((&one.must(&["get", "left"])[..], &one.must(&["get", "right"])[..]), ("left\n1\n", ""));
    }
}

/// The order is given on a box that does not lead, and after a no.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn an_operator_gives_up_one_of_two_clusters_that_were_written_to() {
    let lan = in_conflict();
    let learner = learner_of(&lan.boxes[2..]) + 2;
    let status = conflict(&lan.boxes[learner]).unwrap();
    assert!(status.contains("covey yield ") && status.contains("covey doctor"), "{status}");
    let refused = lan.boxes[learner].run(&["yield"]).unwrap_err();
    assert!(refused.contains("nothing was given up"), "{refused}");
    assert_eq!(lan.boxes[2].must(&["get", "right"]), "right\n2\n");
    let said = lan.boxes[learner].must(&["yield", "--yes"]);
    assert!(said.contains("is given up") && said.contains("archive"), "{said}");
    are_the_left_ones(&lan.boxes);
    assert_eq!((archives(&lan.boxes[2]), archives(&lan.boxes[3])), (1, 1));
    wrote_everywhere(&lan.boxes);
}

/// The box that was away has what users have written, and goes by the others' word that an operator gave it up.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_box_that_was_away_when_an_operator_gave_its_cluster_up_follows_the_others() {
    let mut lan = in_conflict();
    let learner = learner_of(&lan.boxes[2..]) + 2;
    let stays = 5 - learner;
    lan.boxes[learner].kill();
    lan.boxes[stays].must(&["yield", "--yes"]);
    let tombstones = lan.boxes[stays].data_dir.join("tombstones");
    until("the rest is one cluster", TOGETHER, || {
        let members = lan.boxes[stays].members();
        (members.len() == 4 && members == lan.boxes[0].members()).then_some(())
    });
    until("the tombstone is buried", APART, || (!tombstones.exists()).then_some(()));
    lan.boxes[learner].start(&[]);
    are_the_left_ones(&lan.boxes);
    assert!(lan.boxes[learner].log().contains("while this member was away"), "it was told");
    assert_eq!(archives(&lan.boxes[learner]), 1);
}

/// It has what users have written, and its word counts for a third of them: one other word would not be enough for it.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn of_three_voters_the_one_that_was_away_goes_by_the_word_of_both_others() {
    let mut lan = Lan::with(&[Side::Left, Side::Right, Side::Right, Side::Right]);
    lan.start(&[]);
    until("the left half", APART, || are_one(&lan.boxes[..1], 1, 1));
    until("the right half", APART, || are_one(&lan.boxes[1..], 3, 3));
    until("the first write", TOGETHER, || lan.boxes[0].run(&["put", "left", "1"]).ok());
    lan.boxes[1].must(&["put", "right", "2"]);
    lan.boxes[3].kill();
    lan.join();
    until("the conflict in a status", APART, || conflict(&lan.boxes[1]).map(drop));
    until("the order", APART, || lan.boxes[1].run(&["yield", "--yes"]).ok());
    until("the rest is one cluster", TOGETHER, || {
        let members = lan.boxes[0].members();
        (members.len() == 4 && lan.boxes[1..3].iter().all(|one| one.members() == members)).then_some(())
    });
    for one in &lan.boxes[1..3] {
        let tombstones = one.data_dir.join("tombstones");
        until("both words are buried", APART, || (!tombstones.exists()).then_some(()));
    }
    lan.boxes[3].start(&[]);
    are_the_left_ones(&lan.boxes);
    assert!(lan.boxes[3].log().contains("while this member was away"), "it was told");
    assert_eq!(archives(&lan.boxes[3]), 1);
}

/// The other cluster's operator approves each box, and the order is given once more.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_sealed_cluster_lets_in_those_that_yield_to_it_once_they_are_approved() {
    let lan = in_conflict();
    lan.boxes[0].must(&["window", "close"]);
    let refused = lan.boxes[2].run(&["yield", "--yes"]).unwrap_err();
    assert!(refused.contains("covey node approve") && refused.contains("the same here again"), "{refused}");
    are_one(&lan.boxes[2..], 2, 1).expect("they go on");
    assert_eq!(lan.boxes[3].must(&["get", "right"]), "right\n2\n");
    // Whichever member they have asked, each shows both.
    let [waiting, also] = [0, 1].map(|one: usize| lan.boxes[one].must(&["node", "pending"]));
    assert_eq!((waiting.lines().count(), also.lines().count()), (2, 2), "{waiting}{also}");
    for line in waiting.lines() {
        lan.boxes[1].must(&["node", "approve", line.split(", ").next().unwrap()]);
    }
    until("the order", APART, || lan.boxes[2].run(&["yield", "--yes"]).ok());
    are_the_left_ones(&lan.boxes);
}

/// The box that founded a cluster alone meets another one, and is as good as new there.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_founder_that_is_alone_gives_its_cluster_up_and_keeps_the_archive() {
    let mut lan = Lan::with(&[Side::Left, Side::Left, Side::Right]);
    lan.start(&[]);
    until("the left half", APART, || are_one(&lan.boxes[..2], 2, 1));
    until("a cluster of one", APART, || are_one(&lan.boxes[2..], 1, 1));
    lan.boxes[0].must(&["put", "first", "write"]);
    lan.join();
    until("one cluster of all", TOGETHER, || are_one(&lan.boxes, 3, 3));
    assert_eq!(lan.boxes[2].must(&["get", "first"]), "first\nwrite\n");
    assert_eq!(archives(&lan.boxes[2]), 1);
    // What the founder has said of its cluster is known to the others by now, and it keeps it no longer.
    let tombstones = lan.boxes[2].data_dir.join("tombstones");
    until("the tombstone is buried", APART, || (!tombstones.exists()).then_some(()));
    wrote_everywhere(&lan.boxes);
}

/// One that did not run when its cluster gave itself up hears what became of it, and follows.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_box_that_was_away_when_its_cluster_ended_follows_the_others() {
    let mut lan = Lan::with(&[Side::Left, Side::Left, Side::Right, Side::Right]);
    lan.start(&[]);
    until("the left half", APART, || are_one(&lan.boxes[..2], 2, 1));
    until("the right half", APART, || are_one(&lan.boxes[2..], 2, 1));
    lan.boxes[0].must(&["put", "first", "write"]);
    let learner = learner_of(&lan.boxes[2..]) + 2;
    lan.boxes[learner].kill();
    lan.join();
    let stays = 5 - learner;
    until("the rest is one cluster", TOGETHER, || {
        let members = lan.boxes[stays].members();
        (members.len() == 4 && members == lan.boxes[0].members()).then_some(())
    });
    let tombstones = lan.boxes[stays].data_dir.join("tombstones");
    until("the tombstone is buried", APART, || (!tombstones.exists()).then_some(()));
    lan.boxes[learner].start(&[]);
    until("the box that was away", TOGETHER, || are_one(&lan.boxes, 4, 3));
    assert_eq!(lan.boxes[learner].must(&["get", "first"]), "first\nwrite\n");
    assert!(lan.boxes[learner].log().contains("while this member was away"), "it was told");
    assert_eq!(archives(&lan.boxes[learner]), 1);
}

/// Which of these boxes does not vote.
fn learner_of(boxes: &[Box]) -> usize {
    let members = boxes[0].members();
    let (name, _) = members.iter().find(|(_, learns)| *learns).expect("one of two learns");
    boxes.iter().position(|one| one.data_dir.ends_with(name)).expect("it is one of these")
}

fn archives(of: &Box) -> usize {
    std::fs::read_dir(of.data_dir.join("archive")).map_or(0, Iterator::count)
}
