//! A box's disk that is copied, and started twice.

use crate::boxes::{FORMS, LONG_ENOUGH, grown};
use crate::disk::copy;
use crate::lan::{Box, Lan, until, wait};

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn of_two_copies_of_a_box_the_first_goes_on_and_the_second_is_stopped() {
    for original_first in [true, false] {
        let mut lan = Lan::new(4);
        for one in &mut lan.boxes[..3] {
            one.start(&[]);
        }
        grown(&lan, 2, 3);
        lan.boxes[0].must(&["put", "before", "1"]);
        until("three voters", FORMS, || {
            lan.boxes[0].members().iter().all(|(_, learns)| !learns).then_some(())
        });
        lan.boxes[2].signal("-TERM");
        lan.boxes[2].ended(FORMS);
        copy(&lan.boxes[2].data_dir, &lan.boxes[3].data_dir);
        let (first, second) = if original_first { (2, 3) } else { (3, 2) };
        lan.boxes[first].start(&[]);
        until("the first one again", FORMS, || lan.boxes[first].run(&["put", "again", "1"]).ok());
        lan.boxes[second].start(&[]);
        until("the end of the second one", FORMS, || (!lan.boxes[second].is_running()).then_some(()));
        let log = lan.boxes[second].log();
        assert!(log.contains("an old copy of this member, or one of two"), "{log}");
        // It does not come back by being started again, either.
        lan.boxes[second].kill();
        lan.boxes[second].start(&[]);
        until("its end", FORMS, || (!lan.boxes[second].is_running()).then_some(()));
        // The first one votes: without it there is no majority now.
        lan.boxes[0].kill();
        until("a write with its vote", FORMS, || lan.boxes[1].run(&["put", "after", "1"]).ok());
        assert!(lan.boxes[first].is_running());
        assert_eq!(lan.boxes[first].must(&["get", "after"]), "after\n1\n");
    }
}

/// What a box says of its hardware, once it has a leader.
fn other_hardware(one: &Box) -> String {
    until("a status", FORMS, || {
        let (_, printed) = one.exit(&["status", "-w", "json"]);
        let says: serde_json::Value = serde_json::from_str(&printed).ok()?;
        says["cluster"]["leader"].as_str()?;
        says["other_hardware"].as_str().map(ToOwned::to_owned)
    })
}

/// The copy runs alone, so that nothing contradicts it: it may be the same disk in a box that was repaired.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_disk_that_is_copied_into_other_hardware_is_an_alarm_and_nothing_more() {
    let mut lan = Lan::new(3);
    for (n, board) in [(1, "S4X-1187-B"), (2, "S4X-2290-C")] {
        lan.boxes[n].board = Some(board.to_owned());
    }
    lan.boxes[0].start(&[]);
    grown(&lan, 0, 1);
    for _ in 0..2 {
        lan.boxes[1].start(&[]);
        grown(&lan, 1, 2);
        assert_eq!(other_hardware(&lan.boxes[1]), "", "it is the same as ever");
        lan.boxes[1].signal("-TERM");
        lan.boxes[1].ended(FORMS);
    }
    copy(&lan.boxes[1].data_dir, &lan.boxes[2].data_dir);
    lan.boxes[2].start(&[]);
    grown(&lan, 2, 2);
    assert_eq!(other_hardware(&lan.boxes[2]), "board serial");
    assert!(lan.boxes[2].log().contains("this is other hardware than at the last start (board serial)"));
    let (_, said) = lan.boxes[2].exit(&["status"]);
    assert!(said.contains("covey prepare-image"), "{said}");
    lan.boxes[2].must(&["put", "it", "serves"]);
    wait(LONG_ENOUGH);
    assert!(lan.boxes[2].is_running());
    // It was said.
    lan.boxes[2].signal("-TERM");
    lan.boxes[2].ended(FORMS);
    lan.boxes[2].start(&[]);
    assert_eq!(other_hardware(&lan.boxes[2]), "");
}
