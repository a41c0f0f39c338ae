//! A box's disk that is copied, and started twice.

use crate::boxes::{FORMS, grown};
use crate::disk::copy;
use crate::lan::{Lan, until};

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
