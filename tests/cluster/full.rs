//! Disks that fill up, by the data and by somebody else, under a member that is alone and under one of three. Root, by `.ci/run crash`.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tonic::{Code, Status};

use crate::client;
use crate::histories::{goes_on, judge};
use crate::process::{Cluster, Host, until, wait};
use crate::small_disk::{self, SmallDisk};

const MEGABYTES: u32 = 96;
const VALUE_BYTES: usize = 100 * 1024;
/// More than a log takes that may not be cut.
const PUTS: usize = 200;
/// For a member that has room again to catch up.
const REST: Duration = Duration::from_secs(3);

/// The revision, or the refusal.
fn put(host: &Host, key: &str) -> Result<i64, (Code, String)> {
    let value = key.repeat(VALUE_BYTES / key.len());
    let said = |refusal: Status| (refusal.code(), refusal.message().to_owned());
    smol::block_on(client::put(host, key, &value)).map_err(said)
}

/// Puts one key after the other until one is refused, as by etcd without room; how many there are, and the last one's revision.
fn put_until_refused(host: &Host, prefix: &str) -> (usize, i64) {
    let (mut puts, mut last) = (0, 0);
    loop {
        match put(host, &format!("{prefix}{puts:04}")) {
            Ok(revision) => (puts, last) = (puts + 1, revision),
            Err(refusal) => {
                let full = "etcdserver: mvcc: database space exceeded";
                assert_eq!(refusal, (Code::ResourceExhausted, full.to_owned()));
                return (puts, last);
            }
        }
    }
}

fn count(host: &Host, prefix: &str) -> usize {
    host.must(&["get", "--prefix", "--keys-only", prefix]).split_whitespace().count()
}

#[test]
#[ignore = "needs root"]
fn data_that_fill_the_disk_can_be_deleted_and_make_room() {
    let mut cluster = small_disk::start(1, MEGABYTES);
    let host = &cluster.hosts[0];
    let (puts, last) = put_until_refused(host, "a");
    assert!((100..900).contains(&puts), "{puts}");
    assert_eq!(count(host, "a"), puts);
    assert_eq!(host.must(&["del", "--prefix", "a"]).trim(), puts.to_string());
    host.must(&["compact", &(last + 1).to_string()]);
    until("room for puts", || put(host, "b").ok());
    for n in 0..puts / 2 {
        until("a put in the place of what was deleted", || put(host, &format!("c{n:04}")).ok());
    }
    assert!(cluster.hosts[0].is_running());
}

#[test]
#[ignore = "needs root"]
fn a_disk_that_somebody_else_fills_stops_nobody_and_loses_nothing() {
    let mut cluster = small_disk::start(1, MEGABYTES);
    let host = &mut cluster.hosts[0];
    for n in 0..20 {
        put(host, &format!("a{n:04}")).unwrap();
    }
    host.disk.as_ref().unwrap().fill_up();
    let (mut puts, _) = put_until_refused(host, "b");
    host.kill();
    host.start(&[]);
    until("it starts on a full disk", || host.run(&["get", "a0000"]).ok());
    assert_eq!((count(host, "a"), count(host, "b")), (20, puts));
    // What it had in reserve goes the same way.
    host.disk.as_ref().unwrap().fill_up();
    until("puts are refused", || put(host, "refused").is_err().then_some(()));
    assert_eq!(host.must(&["del", "--prefix", "a"]).trim(), "20");
    assert!(host.is_running());
    host.disk.as_ref().unwrap().clear();
    until("puts go on", || put(host, &format!("b{puts:04}")).ok());
    puts += 1;
    host.kill();
    host.start(&[]);
    until("it starts", || host.run(&["get", "b0000"]).ok());
    assert_eq!((count(host, "a"), count(host, "b")), (0, puts));
}

/// What was acknowledged is at the two that have room, whoever leads.
#[test]
#[ignore = "needs root"]
fn a_leader_whose_disk_is_full_takes_no_write_with_it() {
    let mut cluster = small_disk::start(3, MEGABYTES);
    judge(&mut cluster, |cluster, load| {
        for _ in 0..2 {
            let full = cluster.leader();
            let disk = cluster.hosts[full].disk.as_ref().unwrap();
            disk.fill_up();
            until("another leader", || (!cluster.hosts[full].leads()).then_some(()));
            goes_on(load);
            disk.clear();
            wait(REST);
        }
    });
    assert!(cluster.hosts.iter_mut().all(Host::is_running));
}

#[test]
#[ignore = "needs root"]
fn members_whose_disks_are_all_full_answer_reads_and_take_deletes_and_go_on_with_room() {
    let mut cluster = small_disk::start(3, MEGABYTES);
    judge(&mut cluster, |cluster, load| {
        put(&cluster.hosts[0], "kept").unwrap();
        let all = |act: fn(&SmallDisk)| {
            cluster.hosts.iter().for_each(|host| act(host.disk.as_ref().unwrap()));
        };
        all(SmallDisk::fill_up);
        let mut puts = 0;
        until("a put that is refused for want of room", || {
            puts += 1;
            let refusal = put(&cluster.hosts[0], &format!("more{puts:04}")).err()?;
            refusal.1.contains("database space exceeded").then_some(())
        });
        for host in &cluster.hosts {
            assert_eq!(count(host, "kept"), 1, "{}", host.name);
        }
        let gone = until("a delete", || cluster.hosts[1].run(&["del", "kept"]).ok());
        assert_eq!(gone.trim(), "1");
        all(SmallDisk::clear);
        until("room for puts", || put(&cluster.hosts[2], "after").ok());
        goes_on(load);
    });
    assert!(cluster.hosts.iter_mut().all(Host::is_running));
}

#[test]
#[ignore = "needs root"]
fn a_leader_whose_disk_is_full_lets_another_lead_and_comes_back() {
    let mut cluster = small_disk::start(3, MEGABYTES);
    let full = cluster.leader();
    let other = (full + 1) % 3;
    put(&cluster.hosts[other], "first").unwrap();
    let disk = |cluster: &Cluster, act: fn(&SmallDisk)| act(cluster.hosts[full].disk.as_ref().unwrap());
    disk(&cluster, SmallDisk::fill_up);
    until("another leader", || {
        // Somebody has to want something before anybody looks.
        drop(put(&cluster.hosts[full], "second"));
        (!cluster.hosts[full].leads()).then_some(())
    });
    disk(&cluster, SmallDisk::fill_up);
    for n in 0..PUTS {
        until("a put by the others", || put(&cluster.hosts[other], &format!("c{n:04}")).ok());
    }
    assert_eq!(count(&cluster.hosts[other], "c"), PUTS);
    assert!(cluster.hosts[full].is_running());
    assert!(cluster.hosts[full].log().contains("the disk is full: the log waits for room"));
    disk(&cluster, SmallDisk::clear);
    let list = ["get", "--prefix", "--keys-only", "c"];
    let all = || cluster.hosts[full].run(&list).ok().map(|keys| keys.split_whitespace().count());
    until("it has all that it missed", || (all() == Some(PUTS)).then_some(()));
    assert!(cluster.hosts[full].is_running());
}

#[test]
#[ignore = "needs root"]
fn a_backup_leaves_the_node_its_room() {
    let mut cluster = Cluster::prepare(1);
    let host = &mut cluster.hosts[0];
    let disk = SmallDisk::at(&host.data_dir, MEGABYTES);
    let backups = disk.path().join("backups");
    fs::create_dir(&backups).unwrap();
    host.disk = Some(disk);
    let (initial, directory) = (host.named(), host.data_dir.join("backups"));
    let schedule =
        ["--backup-dir", directory.to_str().unwrap(), "--backup-interval", "1s", "--backup-keep", "9"];
    host.start(&[&["--initial-cluster", &initial][..], &schedule[..]].concat());
    cluster.wait_ready();
    let host = &cluster.hosts[0];
    let names =
        || fs::read_dir(&backups).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    let told = || {
        let status: Value = serde_json::from_str(&host.must(&["status", "-w", "json"])).unwrap();
        status["backups"].clone()
    };
    for n in 0..20 {
        put(host, &format!("a{n:04}")).unwrap();
    }
    let whole = |revision: i64| {
        let end = format!("-r{revision}.snapshot");
        names().iter().any(|name| name.to_str().unwrap().ends_with(&end)).then_some(())
    };
    until("a backup", || whole(21));
    until("it is said", || (told()["revision"] == 21 && told()["trouble"] == "").then_some(()));

    // Puts still have room, and nothing that can wait.
    host.disk.as_ref().unwrap().leave(24);
    let before = names();
    let last = put(host, "b").unwrap();
    until("it is said", || told()["trouble"].as_str()?.contains("has no room for it").then_some(()));
    assert!(told()["failed"].as_u64() > Some(0), "{}", told());
    assert_eq!(names(), before, "no part is left, and none of the others goes");
    put(host, "c").unwrap();
    host.disk.as_ref().unwrap().clear();
    until("the next one", || whole(last + 1));
    until("all is well again", || (told()["trouble"] == "").then_some(()));
}
