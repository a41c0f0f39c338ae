//! Data directories that are put back, copied or lost.

use std::fs;
use std::path::Path;

use covey::config::EXIT_CONFIG;

use crate::disk::copy;
use crate::members::{add, id_of, remove};
use crate::process::{Cluster, until};

fn put_back(saved: &Path, data_dir: &Path) {
    fs::remove_dir_all(data_dir).unwrap();
    copy(saved, data_dir);
}

/// What the member has acknowledged since the copy was made is not in it. It would help to elect a leader that lacks it.
#[test]
fn an_older_copy_of_a_data_directory_does_not_take_part() {
    let mut cluster = Cluster::start(3);
    let (saved, victim) = (cluster.path("saved"), 1);
    cluster.hosts[victim].signal("-TERM");
    cluster.hosts[victim].ended();
    copy(&cluster.hosts[victim].data_dir, &saved);
    cluster.hosts[victim].start(&[]);
    cluster.wait_ready();
    cluster.hosts[victim].must(&["put", "key", "value"]);
    cluster.hosts[victim].kill();

    put_back(&saved, &cluster.hosts[victim].data_dir);
    // However often it is started: the count of starts passes that of the directory which it replaces.
    for _ in 0..4 {
        cluster.hosts[victim].start(&[]);
        assert_eq!(cluster.hosts[victim].ended(), i32::from(EXIT_CONFIG), "{}", cluster.hosts[victim].log());
    }
    let log = cluster.hosts[victim].log();
    assert!(log.contains("the data directory is an old copy of this member"), "{log}");
    assert!(log.contains("it must not vote again; remove the member from the cluster"), "{log}");
    assert_eq!(cluster.hosts[0].must(&["get", "key"]), "key\nvalue\n");
}

/// The same directory, started on another box while the first one runs: one of them has to go.
#[test]
fn of_two_copies_of_a_data_directory_one_stays() {
    let mut cluster = Cluster::start(3);
    let twin = cluster.add_host();
    cluster.hosts[2].signal("-TERM");
    cluster.hosts[2].ended();
    copy(&cluster.hosts[2].data_dir, &cluster.hosts[twin].data_dir);
    cluster.hosts[2].start(&[]);
    until("the first one is back", || cluster.hosts[2].run(&["get", "key"]).ok());
    cluster.hosts[twin].start(&[]);
    assert_eq!(cluster.hosts[twin].ended(), i32::from(EXIT_CONFIG), "{}", cluster.hosts[twin].log());
    assert!(cluster.hosts[twin].log().contains("the data directory is an old copy of this member"));
    cluster.hosts.truncate(3);
    cluster.wait_ready();
    cluster.hosts[2].must(&["put", "key", "value"]);
}

/// An empty disk in the place of a member's: a new node, which nobody has asked for.
#[test]
fn a_member_that_lost_its_disk_comes_back_as_another_one() {
    let mut cluster = Cluster::start(3);
    let initial = cluster.initial();
    cluster.hosts[0].must(&["put", "key", "value"]);
    let id = id_of(&cluster, 2);
    cluster.hosts[2].kill();
    fs::remove_dir_all(&cluster.hosts[2].data_dir).unwrap();
    cluster.hosts[2].start(&["--initial-cluster", &initial, "--initial-cluster-state", "existing"]);
    let said = "has another key: remove it and add it anew, if its disk was lost";
    until("it is told why it waits", || cluster.hosts[2].log().contains(said).then_some(()));
    remove(&cluster.hosts[0], id).unwrap();
    add(&cluster, 2, false).unwrap();
    cluster.wait_ready();
    assert_eq!(cluster.hosts[2].must(&["get", "key"]), "key\nvalue\n");
}
