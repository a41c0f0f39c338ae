//! Boxes whose network changes under them, and boxes that cannot be reached, or must not be any more.

use std::time::Duration;

use crate::forming::{are_one, wrote_everywhere};
use crate::lan::{Lan, address, until, wait};
use crate::operator::doctor;

/// For a cluster that was there, and has to find its members again.
const AGAIN: Duration = Duration::from_secs(40);

fn moved(n: usize) -> String {
    format!("10.99.7.{}/24", n + 1)
}

fn renumber(lan: &Lan) {
    for (n, one) in lan.boxes.iter().enumerate() {
        one.address("del", "eth0", &address(n));
        one.address("add", "eth0", &moved(n));
    }
}

fn formed(boxes: usize) -> Lan {
    let mut lan = Lan::new(boxes);
    lan.start(&[]);
    until("a cluster", AGAIN, || are_one(&lan.boxes, boxes, boxes.min(3)));
    lan.boxes[0].must(&["put", "before", "the change"]);
    lan
}

/// Whether the cluster writes, and tells clients of the new addresses alone.
fn goes_on(lan: &Lan) {
    until("a write after the change", AGAIN, || lan.boxes[1].run(&["put", "after", "it"]).ok());
    // A client gives up before the last member has found its way back.
    let read = until("a read after the change", AGAIN, || lan.boxes[2].run(&["get", "before"]).ok());
    assert_eq!(read, "before\nthe change\n");
    until("the new addresses", AGAIN, || {
        let listed = lan.boxes[0].run(&["member", "list"]).ok()?;
        (listed.matches("10.99.7.").count() >= 6 && !listed.contains("10.88.0.")).then_some(())
    });
    wrote_everywhere(&lan.boxes);
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn all_addresses_change_while_the_boxes_run() {
    let lan = formed(3);
    renumber(&lan);
    goes_on(&lan);
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn all_addresses_change_while_the_boxes_are_off() {
    let mut lan = formed(3);
    for one in &mut lan.boxes {
        one.kill();
    }
    renumber(&lan);
    lan.start(&[]);
    goes_on(&lan);
}

/// It is seen by mDNS, and no packet of the members' port comes through.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_box_that_is_seen_and_cannot_be_reached_stops_nobody() {
    let mut lan = Lan::new(4);
    lan.boxes[3].block_udp(2380);
    lan.start(&[]);
    until("three voters", AGAIN, || are_one(&lan.boxes[..3], 3, 3));
    wrote_everywhere(&lan.boxes[..3]);
    // Whether it has founded a cluster of its own meanwhile or not.
    until("it is seen", AGAIN, || {
        let (_, levels) = doctor(&lan.boxes[0]);
        let of_it = ["box3 at 10.88.0.4:2380 ", " is seen, and no member here: "];
        of_it.iter().all(|text| levels(text) == ["WARN"]).then_some(())
    });
    assert!(lan.boxes[3].is_running());
    assert_eq!(lan.boxes[0].members().len(), 3);
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_network_that_appears_late_is_enough() {
    let mut lan = Lan::new(3);
    for one in &lan.boxes {
        one.ip(&["link", "set", "eth0", "down"]);
    }
    lan.start(&[]);
    wait(Duration::from_secs(12));
    assert!(lan.boxes.iter().all(|one| one.members().is_empty()), "founded without a network");
    for one in &lan.boxes {
        one.ip(&["link", "set", "eth0", "up"]);
    }
    until("three voters", AGAIN, || are_one(&lan.boxes, 3, 3));
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_removed_box_stays_out() {
    let mut lan = formed(3);
    let listed = lan.boxes[0].must(&["member", "list"]);
    let gone = listed.lines().find(|line| line.contains(", box2, ")).unwrap().split(',').next().unwrap();
    // Connections have to hold for a while before members are changed by them.
    until("a removal", AGAIN, || lan.boxes[0].run(&["member", "remove", gone]).ok());
    until("two members", AGAIN, || (lan.boxes[0].members().len() == 2).then_some(()));
    // Whether it ended or looks for a way back: it gets none.
    wait(Duration::from_secs(10));
    lan.boxes[2].kill();
    lan.boxes[2].start(&[]);
    wait(Duration::from_secs(10));
    assert_eq!(lan.boxes[0].members().len(), 2);
    assert!(lan.boxes[2].run(&["put", "from", "outside"]).is_err());
    lan.boxes[1].must(&["put", "from", "inside"]);
}

/// A battery that died, or was never there: nothing but the time in the logs may be wrong.
#[test]
#[ignore = "needs root, namespaces and libfaketime: .ci/run zero"]
fn clocks_that_are_wrong_by_decades_change_nothing() {
    let mut lan = Lan::new(3);
    for (one, clock) in lan.boxes.iter_mut().zip(["1970-01-02 00:00:00", "2100-01-01 00:00:00", ""]) {
        one.clock = Some(clock.to_owned()).filter(|clock| !clock.is_empty());
    }
    lan.start(&[]);
    until("three voters", AGAIN, || are_one(&lan.boxes, 3, 3));
    wrote_everywhere(&lan.boxes);
    let log = lan.boxes[0].log();
    assert!(log.starts_with("1970-"), "the clock was not set: {}", log.lines().next().unwrap_or_default());
}

/// It is off while others write, and its vote is needed as soon as it is back. What it issues is good for whoever has another time, and what others issue is good for it.
#[test]
#[ignore = "needs root, namespaces and libfaketime: .ci/run zero"]
fn a_box_that_comes_back_with_a_wrong_clock_is_a_member_as_before() {
    let mut lan = formed(3);
    for (year, clock) in [("2100", "2100-01-01 00:00:00"), ("1970", "1970-01-02 00:00:00")] {
        lan.boxes[2].kill();
        until("a write without it", AGAIN, || lan.boxes[0].run(&["put", year, "missed"]).ok());
        lan.boxes[2].clock = Some(clock.to_owned());
        let before = lan.boxes[2].log().len();
        lan.boxes[2].start(&[]);
        until("it is back", AGAIN, || lan.boxes[2].run(&["put", year, "written by itself"]).ok());
        let log = lan.boxes[2].log().split_off(before);
        assert!(log.starts_with(year), "the clock was not set: {}", log.lines().next().unwrap_or_default());
        lan.boxes[0].kill();
        until("a write with its vote", AGAIN, || lan.boxes[1].run(&["put", year, "with its vote"]).ok());
        for (issues, uses) in [(2, 1), (1, 2)] {
            let bundle = lan.path(&format!("of-{issues}-in-{year}"));
            let (dir, name) = (bundle.to_str().unwrap(), format!("{year}-{issues}"));
            let issue = ["client", "issue", &name, "--out", dir];
            until("a certificate", AGAIN, || lan.boxes[issues].run(&issue).ok());
            // To the server beside it, and to the one that has the other time.
            for server in [1, 2] {
                let endpoint = format!("https://10.88.0.{}:2379", server + 1);
                let get = ["--bundle", dir, "--endpoints", &endpoint, "get", year];
                let read = until("an answer by TLS", AGAIN, || lan.boxes[uses].run(&get).ok());
                assert_eq!(read, format!("{year}\nwith its vote\n"), "by {issues} for {uses} at {server}");
            }
        }
        lan.boxes[0].start(&[]);
        until("three voters", AGAIN, || are_one(&lan.boxes, 3, 3));
        until("all are reached", AGAIN, || lan.boxes[0].run(&["put", "all", "again"]).ok());
    }
}
