//! Boxes that are powered on and become one cluster.

use std::time::Duration;

use crate::lan::{Box, Lan, now, until};

/// The design's bound for boxes that are powered on together.
const TOGETHER: Duration = Duration::from_secs(15);
/// Whoever founds alone waits that long with the first write, and a little for clients that ask again.
const FIRST_WRITE: Duration = Duration::from_secs(60);
const MDNS: u16 = 5353;
/// A box that looks for a while, finds nobody, founds, and is found later.
const ALONE: Duration = Duration::from_secs(30);

/// Whether every box knows these as the members, and so many of them vote.
pub fn are_one(boxes: &[Box], members: usize, voters: usize) -> Option<()> {
    let first = boxes[0].members();
    let votes = first.iter().filter(|(_, learns)| !learns).count();
    (first.len() == members && votes == voters && boxes.iter().all(|one| one.members() == first))
        .then_some(())
}

pub fn wrote_everywhere(boxes: &[Box]) {
    for (n, one) in boxes.iter().enumerate() {
        let (key, value) = (format!("written-on-{n}"), n.to_string());
        one.must(&["put", &key, &value]);
        for other in boxes {
            assert_eq!(other.must(&["get", &key]), format!("{key}\n{value}\n"));
        }
    }
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn three_boxes_powered_together_are_three_voters() {
    let trials: u32 = std::env::var("COVEY_TRIALS").map_or(3, |text| text.parse().unwrap());
    let mut times = Vec::new();
    for _ in 0..trials {
        let mut lan = Lan::new(3);
        let began = now();
        lan.start(&[]);
        until("three voters", TOGETHER, || are_one(&lan.boxes, 3, 3));
        times.push(began.elapsed());
        wrote_everywhere(&lan.boxes);
    }
    times.sort();
    let (half, last) = (times[times.len() / 2], times[times.len() - 1]);
    report(&format!("three voters: p50 {half:?}, max {last:?} over {trials} trials"));
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn one_box_grows_to_two_and_three() {
    let mut lan = Lan::new(3);
    lan.boxes[0].start(&[]);
    until("a cluster of one", ALONE, || are_one(&lan.boxes[..1], 1, 1));
    // Held until it is known for longer that nobody else is there.
    until("the first write", FIRST_WRITE, || lan.boxes[0].run(&["put", "early", "bird"]).ok());
    lan.boxes[1].start(&[]);
    until("a second member", ALONE, || are_one(&lan.boxes[..2], 2, 1));
    lan.boxes[2].start(&[]);
    until("three voters", ALONE, || are_one(&lan.boxes, 3, 3));
    assert_eq!(lan.boxes[2].must(&["get", "early"]), "early\nbird\n");
    wrote_everywhere(&lan.boxes);
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn five_at_once_are_one_cluster_of_three_voters() {
    let mut lan = Lan::new(5);
    lan.start(&[]);
    until("five members", ALONE, || are_one(&lan.boxes, 5, 3));
    wrote_everywhere(&lan.boxes);
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn five_boxes_are_five_voters_where_that_is_asked_for() {
    let mut lan = Lan::new(5);
    lan.start(&["--voters", "5"]);
    until("five voters", ALONE, || are_one(&lan.boxes, 5, 5));
    wrote_everywhere(&lan.boxes);
    // All of the votes count: three of five are a majority, and two are none.
    lan.boxes[3].kill();
    lan.boxes[4].kill();
    until("a write of three", ALONE, || lan.boxes[0].run(&["put", "of", "three"]).ok());
    lan.boxes[2].kill();
    let refused = lan.boxes[0].run(&["put", "of", "two"]);
    assert!(refused.is_err(), "{refused:?}");
}

/// They share the box's addresses, and the port of mDNS.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn two_processes_on_one_box_are_members_like_others() {
    let mut lan = Lan::new(2);
    lan.lodge(0);
    lan.start(&[]);
    until("three voters", ALONE, || are_one(&lan.boxes, 3, 3));
    wrote_everywhere(&lan.boxes);
    // Each has its own place among the others, which they find again.
    for n in [2, 0] {
        lan.boxes[n].kill();
        lan.boxes[n].start(&[]);
        until("the one that was away", ALONE, || lan.boxes[n].run(&["put", "back", "again"]).ok());
    }
    // Both votes count: without the third box there is still a majority.
    lan.boxes[1].kill();
    until("a write of the two", ALONE, || lan.boxes[2].run(&["put", "of", "two"]).ok());
    assert_eq!(lan.boxes[0].must(&["get", "of"]), "of\ntwo\n");
}

/// Where no multicast comes through, all boxes are told the same addresses, each its own among them.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn boxes_that_are_told_of_each_other_and_of_themselves_need_no_multicast() {
    let mut lan = Lan::new(3);
    lan.boxes.iter().for_each(|one| one.block_udp(MDNS));
    lan.start(&["--peers", "10.88.0.1,10.88.0.2,10.88.0.3:2380", "--log-level", "debug"]);
    until("three voters", TOGETHER, || are_one(&lan.boxes, 3, 3));
    wrote_everywhere(&lan.boxes);
    for one in &lan.boxes {
        assert_eq!(one.log().matches("this node itself is there").count(), 1, "said once");
    }
}

/// An address of the link means something only on an interface, which is told with it.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_hint_may_be_an_address_of_the_link_with_its_interface() {
    let mut lan = Lan::new(2);
    let of_the_link: Vec<String> = lan.boxes.iter().map(Box::address_of_the_link).collect();
    lan.boxes.iter().for_each(|one| one.block_udp(MDNS));
    lan.boxes[0].start(&["--peers", &format!("{}%eth0", of_the_link[1])]);
    lan.boxes[1].start(&["--peers", &format!("[{}%eth0]:2380", of_the_link[0])]);
    until("two members", ALONE, || are_one(&lan.boxes, 2, 1));
    wrote_everywhere(&lan.boxes);
}

#[expect(clippy::print_stderr, reason = "a measurement")]
fn report(text: &str) {
    eprintln!("{text}");
}
