//! Boxes of an older build beside those of a newer one, which uses what the older one does not understand.
//!
//! Owns: who stays outside, and what is said of it. Must never: be run with a release, which plays no other build.

#![cfg(debug_assertions)]

use std::time::Duration;

use crate::forming::are_one;
use crate::lan::{Box, Lan, Side, until, wait};

const SOON: Duration = Duration::from_secs(40);
const TOGETHER: Duration = Duration::from_secs(90);
/// The build that boxes are of which know of no version but the first.
const OLDER: Option<&str> = Some("1");

fn conflict(one: &Box, says: &str) -> Option<()> {
    let (_, status) = one.exit(&["status"]);
    (status.starts_with("CONFLICT") && status.contains(says)).then_some(())
}

fn upgrade(one: &mut Box) {
    one.signal("-TERM");
    assert_eq!(one.ended(SOON), 0);
    one.plays = None;
    one.start(&[]);
}

/// Its boxes could go on in neither.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn an_empty_cluster_of_an_older_build_goes_on_beside_a_newer_one_until_it_is_upgraded() {
    let mut lan = Lan::with(&[Side::Left, Side::Left, Side::Right, Side::Right]);
    for older in &mut lan.boxes[..2] {
        older.plays = OLDER;
    }
    lan.start(&[]);
    until("the older half", SOON, || are_one(&lan.boxes[..2], 2, 1));
    until("the newer half", SOON, || are_one(&lan.boxes[2..], 2, 1));
    lan.boxes[2].must(&["put", "first", "write"]);
    lan.join();
    for (n, one) in lan.boxes.iter().enumerate() {
        let whose = if n < 2 { "the boxes of this cluster" } else { "the boxes of the other cluster" };
        until("the conflict in a status", SOON, || conflict(one, whose));
        let (_, found) = one.exit(&["doctor"]);
        assert!(found.contains("covey is to be upgraded on"), "{found}");
        until("the conflict in a log", SOON, || {
            one.log().contains("covey is to be upgraded on").then_some(())
        });
    }
    // Longer than it takes to become one.
    wait(Duration::from_secs(10));
    for half in [0..2, 2..4] {
        are_one(&lan.boxes[half], 2, 1).expect("two members, as before");
    }
    assert!(lan.boxes.iter_mut().all(Box::is_running), "nobody is left down");
    lan.boxes[..2].iter_mut().for_each(upgrade);
    until("one cluster of all", TOGETHER, || are_one(&lan.boxes, 4, 3));
    assert_eq!(lan.boxes[0].must(&["get", "first"]), "first\nwrite\n");
}

/// It would have to stop before it has begun, and its place would keep the cluster from what is newer still.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_box_of_an_older_build_waits_outside_of_a_newer_cluster_and_says_why() {
    let mut lan = Lan::new(2);
    lan.boxes[0].start(&[]);
    until("the newer box", SOON, || are_one(&lan.boxes[..1], 1, 1));
    lan.boxes[1].plays = OLDER;
    lan.boxes[1].start(&[]);
    let says = "covey is to be upgraded on this node: it understands commands up to version 1, and the cluster uses version 2";
    until("why it waits", SOON, || lan.boxes[1].exit(&["status"]).1.contains(says).then_some(()));
    let told = "a node of an older build asks to join and is not let in";
    until("who waits", SOON, || lan.boxes[0].log().contains(told).then_some(()));
    wait(Duration::from_secs(5));
    are_one(&lan.boxes[..1], 1, 1).expect("it has no place there");
    assert!(lan.boxes[1].is_running(), "it waits");
    upgrade(&mut lan.boxes[1]);
    until("both", TOGETHER, || are_one(&lan.boxes, 2, 1));
}
