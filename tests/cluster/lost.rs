//! Data directories that are gone under a member that runs: it stops, and says why, instead of going on where no later start finds anything.

use std::fs;

use crate::histories::{goes_on, judge_at};
use crate::members::id_of;
use crate::process::{Cluster, Host, until};
use crate::small_disk;

/// As after any fault: with what the others have a start helps.
const FAILURE: i32 = 1;
/// No start helps, and the service manager tries none.
const FOR_EVER: i32 = 78;
const MEGABYTES: u32 = 96;

/// Waits until a member, which nobody asks anything meanwhile, has stopped because its directory is lost.
fn stops_and_says(cluster: &mut Cluster, n: usize, why: &str, exit_code: i32) {
    let host = &mut cluster.hosts[n];
    assert_eq!(host.ended(), exit_code, "{}", host.log());
    let (log, path) = (host.log(), host.data_dir.display().to_string());
    let said = log
        .lines()
        .find(|line| line.contains("the data directory is lost"))
        .unwrap_or_else(|| panic!("{log}"));
    assert!(said.contains(&path) && said.contains(why), "{said}");
}

#[test]
fn a_member_whose_data_directory_is_removed_stops_and_the_others_go_on() {
    let mut cluster = Cluster::start(3);
    goes_on_without(&mut cluster, 0, "is not there any more", FAILURE, |host| {
        // The member may make a file in it meanwhile.
        until("nothing is left", || fs::remove_dir_all(&host.data_dir).ok());
    });
}

/// What clients of the others see while the leader loses its disk is one history.
fn goes_on_without(
    cluster: &mut Cluster,
    spared: usize,
    why: &str,
    exit_code: i32,
    lose: impl FnOnce(&Host),
) {
    // Who leads is to be one whom no client depends on.
    let gone = (spared + 1) % 3;
    until("that one leads", || {
        let leader = cluster.leader();
        if leader != gone {
            drop(cluster.hosts[leader].run(&["move-leader", &format!("{:x}", id_of(cluster, gone))]));
        }
        (cluster.leader() == gone).then_some(())
    });
    let others = [spared, (spared + 2) % 3];
    judge_at(cluster, &others, |cluster, load| {
        lose(&cluster.hosts[gone]);
        stops_and_says(cluster, gone, why, exit_code);
        goes_on(load);
    });
    assert!(others.iter().all(|other| cluster.hosts[*other].is_running()));
}

#[test]
#[ignore = "needs root"]
fn a_leader_whose_filesystem_is_unmounted_stops_and_the_others_go_on() {
    let mut cluster = small_disk::start(3, MEGABYTES);
    goes_on_without(&mut cluster, 0, "its filesystem was unmounted", FAILURE, |host| {
        host.disk.as_ref().unwrap().detach(&host.data_dir);
    });
}

#[test]
#[ignore = "needs root"]
fn a_leader_whose_filesystem_has_become_read_only_stops_and_the_others_go_on() {
    let mut cluster = small_disk::start(3, MEGABYTES);
    goes_on_without(&mut cluster, 1, "has become read-only", FAILURE, |host| {
        host.disk.as_ref().unwrap().make_read_only(&host.data_dir);
    });
}

#[test]
fn a_directory_in_the_place_of_the_one_that_was_opened_is_not_taken_for_it() {
    let mut cluster = Cluster::start(1);
    let (path, away) = (cluster.hosts[0].data_dir.clone(), cluster.path("away"));
    fs::rename(&path, &away).unwrap();
    fs::create_dir(&path).unwrap();
    stops_and_says(&mut cluster, 0, "is another directory", FOR_EVER);
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "nothing was written there");
    // What was acknowledged is in the one that was moved away.
    fs::remove_dir(&path).unwrap();
    fs::rename(&away, &path).unwrap();
    cluster.hosts[0].start(&[]);
    cluster.wait_ready();
}

#[test]
fn a_log_that_is_removed_is_missed_before_it_needs_a_new_file() {
    let mut cluster = Cluster::start(1);
    fs::remove_dir_all(cluster.hosts[0].data_dir.join("wal")).unwrap();
    stops_and_says(&mut cluster, 0, "is not there any more", FOR_EVER);
}

#[test]
#[ignore = "needs root"]
fn a_member_whose_filesystem_is_unmounted_stops() {
    let mut cluster = small_disk::start(1, MEGABYTES);
    let host = &cluster.hosts[0];
    host.disk.as_ref().unwrap().detach(&host.data_dir);
    stops_and_says(&mut cluster, 0, "its filesystem was unmounted", FOR_EVER);
}

#[test]
#[ignore = "needs root"]
fn a_member_whose_filesystem_has_become_read_only_stops() {
    let mut cluster = small_disk::start(1, MEGABYTES);
    let host = &cluster.hosts[0];
    host.disk.as_ref().unwrap().make_read_only(&host.data_dir);
    stops_and_says(&mut cluster, 0, "has become read-only", FAILURE);
}
