//! The key of a node, before it serves and while it does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::TempDir;

use crate::process::{Outcome, Server, covey, must, run};

fn fingerprint(data_dir: &Path) -> Outcome {
    run(&["node", "fingerprint", "--data-dir", data_dir.to_str().unwrap()])
}

#[test]
fn a_key_is_made_once_and_stays() {
    let dir = TempDir::new().unwrap();
    let data_dir = dir.path().join("a.covey");
    let made = fingerprint(&data_dir);
    assert_eq!(
        (made.code, made.stderr),
        (0, format!("made the key of a new node in {}\n", data_dir.display()))
    );
    let groups: Vec<&str> = made.stdout.trim_end().split(' ').collect();
    let is_hex = |group: &&str| group.len() == 4 && group.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    assert!(groups.len() == 16 && groups.iter().all(is_hex), "{}", made.stdout);
    assert_eq!(fs::metadata(&data_dir).unwrap().permissions().mode() & 0o777, 0o700, "it holds the key");

    // By the name, too, and from another start.
    let named = covey(&["node", "fingerprint", "--name", "a"]).current_dir(dir.path()).output().unwrap();
    assert_eq!((String::from_utf8(named.stdout).unwrap(), named.stderr), (made.stdout.clone(), vec![]));
    assert_ne!(fingerprint(&dir.path().join("b.covey")).stdout, made.stdout);

    // The node that starts there has that key, and can be asked for it.
    let server = Server::start(&data_dir);
    server.must(&["put", "key", "value"]);
    for _ in 0..3 {
        let known = fingerprint(&data_dir);
        assert_eq!((known.code, &known.stdout, known.stderr.as_str()), (0, &made.stdout, ""));
    }
    assert_eq!(server.must(&["get", "key"]), "key\nvalue\n");
    drop(server);
    let server = Server::start(&data_dir);
    assert_eq!(server.must(&["get", "key"]), "key\nvalue\n", "it is still what it was");
}

#[test]
fn a_disk_is_scrubbed_before_it_is_copied_and_only_when_somebody_agrees() {
    let dir = TempDir::new().unwrap();
    let data_dir = dir.path().join("a.covey");
    let server = Server::start(&data_dir);
    server.must(&["put", "key", "value"]);
    let before = fingerprint(&data_dir).stdout;
    let scrub =
        |more: &[&str]| run(&[&["prepare-image", "--data-dir", data_dir.to_str().unwrap()], more].concat());
    let refused = scrub(&["--yes"]);
    assert!(refused.code == 1 && refused.stderr.contains("in use by another process"), "{refused:?}");
    assert_eq!(server.must(&["get", "key"]), "key\nvalue\n");
    drop(server);

    fs::write(data_dir.join("notes"), "mine").unwrap();
    // Not there where tests run in a container.
    fs::write(data_dir.join("hardware"), "covey hardware 1\n").unwrap();
    let refused = scrub(&[]);
    assert!(refused.code == 1 && refused.stderr.starts_with("Error: nothing was removed: "), "{refused:?}");
    assert_eq!(fingerprint(&data_dir).stdout, before);

    let done = scrub(&["--yes"]);
    assert!(done.code == 0 && done.stdout.contains("identity.0") && done.stdout.contains("wal"), "{done:?}");
    let left: Vec<_> = fs::read_dir(&data_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["notes"]);
    assert!(scrub(&[]).stdout.contains("it can be copied as it is"));
    assert_ne!(fingerprint(&data_dir).stdout, before);
    let server = Server::start(&data_dir);
    assert_eq!(server.must(&["get", "key"]), "", "nothing is left");
}

#[test]
fn what_cannot_be_read_is_no_new_node() {
    let dir = TempDir::new().unwrap();
    let data_dir = dir.path().join("data");
    must(&["node", "fingerprint", "--data-dir", data_dir.to_str().unwrap()]);
    for copy in ["identity.0", "identity.1"] {
        fs::write(data_dir.join(copy), "nothing").unwrap();
    }
    let refused = fingerprint(&data_dir);
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{refused:?}");
    assert!(refused.stderr.contains(data_dir.to_str().unwrap()), "{refused:?}");
    let lost = dir.path().join("lost");
    fs::create_dir_all(lost.join("wal")).unwrap();
    assert!(fingerprint(&lost).stderr.contains("the identity record is not"), "somebody's data");
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(fingerprint(&file).code, 1);
    for (wrong, code) in [(&["node", "fingerprint", "x"][..], 128), (&["node", "fingers"], 1)] {
        assert_eq!(run(wrong).code, code, "{wrong:?}");
    }
    let help = must(&["node"]);
    assert!(help.contains("covey node <command>") && help.contains("node fingerprint"), "{help}");
}
