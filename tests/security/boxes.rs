//! Boxes that must not get in, and the ones that must: by fleet key, approval and token.

use std::time::Duration;

use covey::command::CharterCommand;
use covey::formation::{Fingerprint, JoinToken};

use crate::lan::{Lan, until, wait};
use crate::nodes::SECRET;
use crate::operator;

/// Until a cluster is there, or a box is in.
pub const FORMS: Duration = Duration::from_secs(40);
/// For what must not happen.
pub const LONG_ENOUGH: Duration = Duration::from_secs(12);
pub const OTHER_SECRET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Waits until this box knows so many members.
pub fn grown(lan: &Lan, n: usize, members: usize) {
    until("members", FORMS, || (lan.boxes[n].members().len() == members).then_some(()));
}

/// A file for a setting.
pub fn file(lan: &Lan, name: &str, text: &str) -> String {
    let path = lan.path(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Its key's fingerprint, as it is typed.
pub fn typed_fingerprint(lan: &Lan, n: usize) -> String {
    let dir = lan.boxes[n].data_dir.to_str().unwrap().to_owned();
    lan.boxes[n].must(&["node", "fingerprint", "--data-dir", &dir]).trim().to_owned()
}

/// The same as it is.
pub fn fingerprint(lan: &Lan, n: usize) -> [u8; 32] {
    let printed = typed_fingerprint(lan, n);
    *printed.parse::<Fingerprint>().unwrap_or_else(|_| panic!("{printed}")).bytes()
}

/// Which of these boxes are in a cluster with the first one, by name.
fn together(lan: &Lan) -> Vec<String> {
    lan.boxes[0].members().into_iter().map(|(name, _)| name).collect()
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_fleet_key_lets_in_its_own_boxes_alone() {
    let mut lan = Lan::new(4);
    let (key, other) = (file(&lan, "key", SECRET), file(&lan, "other", OTHER_SECRET));
    for (n, more) in [(0, &key), (1, &key), (3, &other)] {
        lan.boxes[n].start(&["--cluster-secret-file", more]);
    }
    lan.boxes[2].start(&[]);
    grown(&lan, 0, 2);
    wait(LONG_ENOUGH);
    assert_eq!(together(&lan), ["box0", "box1"]);
    for n in [2, 3] {
        let members = lan.boxes[n].members();
        assert!(members.len() <= 1, "box {n} is with {members:?}");
    }
    lan.boxes[0].must(&["put", "among", "us"]);
    // The key alone is enough, also for a box that was on its own.
    lan.boxes[2].kill();
    std::fs::remove_dir_all(&lan.boxes[2].data_dir).unwrap();
    lan.boxes[2].start(&["--cluster-secret-file", &key]);
    grown(&lan, 2, 3);
    assert_eq!(together(&lan), ["box0", "box1", "box2"]);
    assert_eq!(lan.boxes[2].must(&["get", "among"]), "among\nus\n");
}

/// A cluster of one box that lets nobody in by itself, and was told these things while it was stopped.
fn locked(lan: &mut Lan, commands: &[CharterCommand]) {
    lan.boxes[0].signal("-TERM");
    lan.boxes[0].ended(FORMS);
    operator::decide(&lan.boxes[0].data_dir, commands);
    lan.boxes[0].start(&["--trust", "locked"]);
    grown(lan, 0, 1);
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_sealed_cluster_lets_in_who_was_approved_or_has_a_token_and_nobody_else() {
    let mut lan = Lan::new(5);
    let (token, wrong) = (JoinToken::new([0x5a; 16]), JoinToken::new([0xa5; 16]));
    let (right, wrong) = (file(&lan, "token", &token.to_string()), file(&lan, "wrong", &wrong.to_string()));
    lan.boxes[0].start(&["--trust", "locked"]);
    grown(&lan, 0, 1);
    let first = typed_fingerprint(&lan, 0);
    lan.boxes[1].start(&["--trust", "locked", "--peer-fingerprints", &first]);
    lan.boxes[2].start(&["--trust", "locked", "--join-token-file", &wrong]);
    for n in [1, 2] {
        until("a box that waits", FORMS, || lan.boxes[n].data_dir.join("identity.0").exists().then_some(()));
    }
    wait(LONG_ENOUGH);
    assert_eq!(together(&lan), ["box0"], "nothing has let them in");
    assert!(lan.boxes[1].members().is_empty() && lan.boxes[2].members().is_empty());

    let approve = CharterCommand::Approve { fingerprint: fingerprint(&lan, 1) };
    locked(&mut lan, &[approve, operator::create(&token)]);
    grown(&lan, 1, 2);
    lan.boxes[3].start(&["--trust", "locked", "--join-token-file", &right]);
    grown(&lan, 3, 3);
    // It is used up.
    lan.boxes[4].start(&["--trust", "locked", "--join-token-file", &right]);
    wait(LONG_ENOUGH);
    assert_eq!(together(&lan), ["box0", "box1", "box3"]);
    assert!(lan.boxes[2].members().is_empty() && lan.boxes[4].members().is_empty());
}

/// It would be let in, and then be that cluster's. What it was given says which one it is to be in.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_locked_box_joins_nobody_whom_it_cannot_know() {
    let mut lan = Lan::new(3);
    lan.boxes[0].start(&[]);
    grown(&lan, 0, 1);
    for n in [1, 2] {
        lan.boxes[n].start(&["--trust", "locked"]);
    }
    let says = until("it says why", FORMS, || {
        let dir = lan.boxes[1].data_dir.to_str().unwrap().to_owned();
        let (_, said) = lan.boxes[1].exit(&["doctor", "--data-dir", &dir]);
        said.contains("joins nobody whom it cannot know").then_some(said)
    });
    assert!(says.contains("--join-token-file") && says.contains("--peer-fingerprints"), "{says}");
    wait(LONG_ENOUGH);
    assert_eq!(together(&lan), ["box0"], "its window is open, and nobody has asked");
    assert!(lan.boxes[1].members().is_empty() && lan.boxes[2].members().is_empty(), "nor founded beside it");
    lan.boxes[1].kill();
    let first = typed_fingerprint(&lan, 0);
    lan.boxes[1].start(&["--trust", "locked", "--peer-fingerprints", &first]);
    grown(&lan, 1, 2);
}

/// Nor does a cluster that a locked box has founded, whatever its later members are told.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_cluster_that_was_founded_locked_has_no_window() {
    let mut lan = Lan::new(2);
    lan.boxes[0].start(&["--trust", "locked"]);
    grown(&lan, 0, 1);
    assert!(lan.boxes[0].must(&["status"]).lines().next().unwrap().ends_with("sealed"));
    lan.boxes[0].kill();
    lan.boxes[0].start(&[]);
    lan.boxes[1].start(&[]);
    wait(LONG_ENOUGH);
    assert_eq!(together(&lan), ["box0"]);
}

/// What is on the network gets in for a while. Once that is over it does not, nor by the certificate of a cluster of its own.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_closed_window_is_closed_for_boxes_and_their_clients() {
    let mut lan = Lan::new(2);
    lan.boxes[0].start(&[]);
    grown(&lan, 0, 1);
    lan.boxes[0].signal("-TERM");
    lan.boxes[0].ended(FORMS);
    operator::decide(&lan.boxes[0].data_dir, &[CharterCommand::Seal]);
    lan.boxes[0].start(&[]);
    grown(&lan, 0, 1);
    lan.boxes[0].must(&["put", "mine", "1"]);
    lan.boxes[1].start(&[]);
    wait(LONG_ENOUGH);
    assert_eq!(together(&lan), ["box0"]);
    let endpoint = "10.88.0.1:2379";
    for url in [format!("http://{endpoint}"), format!("https://{endpoint}")] {
        let read = lan.boxes[1].run(&["--endpoints", &url, "get", "mine"]);
        assert!(read.is_err(), "{url}: {read:?}");
    }
    // Its own box sees it in plain text.
    assert_eq!(lan.boxes[0].must(&["get", "mine"]), "mine\n1\n");
}
