//! A box that leaves with the key of the authority for clients, seen by a client on another box.

use std::path::Path;
use std::time::Duration;

use covey::command::CharterCommand;

use crate::boxes::{FORMS, grown};
use crate::disk::copy;
use crate::lan::{Lan, until};
use crate::operator;

/// What is left of the time, in seconds, when it is looked again.
const LEFT: u64 = 30;

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn what_a_removed_box_knows_makes_no_server_for_those_who_were_renewed_and_ends_for_the_others() {
    let mut lan = Lan::new(3);
    lan.boxes[0].start(&[]);
    lan.boxes[1].start(&[]);
    grown(&lan, 0, 2);
    let (old, new) = (lan.path("old"), lan.path("new"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (old_dir, new_dir) = (text(&old), text(&new));
    until("a client", FORMS, || lan.boxes[0].run(&["client", "issue", "ci", "--out", &old_dir]).ok());
    let stolen = std::fs::read_to_string(old.join("ca.crt")).unwrap();
    let get = |lan: &Lan, bundle: &str| lan.boxes[2].run(&["--bundle", bundle, "get", "there"]);
    lan.boxes[0].must(&["put", "there", "1"]);
    until("an answer by TLS", FORMS, || get(&lan, &old_dir).ok());

    let (stays, goes) = if votes(&lan, "box0") { (0, 1) } else { (1, 0) };
    let name = format!(", box{goes}, ");
    let listed = lan.boxes[stays].must(&["member", "list"]);
    let id = listed.lines().find(|line| line.contains(&name)).unwrap().split(',').next().unwrap().to_owned();
    until("a removal", FORMS, || lan.boxes[stays].run(&["member", "remove", &id]).ok());
    let listed = until("another authority", FORMS, || {
        let listed = lan.boxes[stays].must(&["client", "list"]);
        listed.contains("covey client renew").then_some(listed)
    });
    assert!(listed.contains(", knows the servers for 30 d: "), "{listed}");
    let status = lan.boxes[stays].must(&["status"]);
    assert!(status.contains("clients to be renewed within 30 d, since a member was removed: 1"), "{status}");

    copy(&old, &new);
    lan.boxes[stays].must(&["client", "renew", "ci", "--out", &new_dir]);
    assert!(!lan.boxes[stays].must(&["client", "list"]).contains("renew"));
    assert_ne!(std::fs::read_to_string(new.join("ca.crt")).unwrap(), stolen);
    for bundle in [&old_dir, &new_dir] {
        assert_eq!(get(&lan, bundle).as_deref(), Ok("there\n1\n"), "{bundle}");
    }

    // A month later, as the leader counts it.
    lan.boxes[goes].kill();
    lan.boxes[stays].signal("-TERM");
    lan.boxes[stays].ended(FORMS);
    let dir = lan.boxes[stays].data_dir.clone();
    let ends = operator::decide(&dir, &[]).facts.charter.bridges[0].ends;
    operator::decide(&dir, &[CharterCommand::Elapsed { to: ends - LEFT }]);
    lan.boxes[stays].start(&[]);
    until("an answer after a restart", FORMS, || get(&lan, &old_dir).ok());
    until("the end of what the removed box knows", Duration::from_secs(3 * LEFT), || {
        get(&lan, &old_dir).err()
    });
    let refused = get(&lan, &old_dir).unwrap_err();
    assert!(refused.contains("invalid peer certificate"), "{refused}");
    assert_eq!(get(&lan, &new_dir).as_deref(), Ok("there\n1\n"));
}

fn votes(lan: &Lan, name: &str) -> bool {
    lan.boxes[0].members().into_iter().any(|(member, learns)| member == name && !learns)
}
