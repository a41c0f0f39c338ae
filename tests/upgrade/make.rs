//! The directories of this build, to be kept.
//!
//! Owns: what is in them, and a network for the node that forms a cluster by itself. Must never: replace one that is kept, or run where anybody else could be found.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::content::{ask, describe};
use crate::kept::{Kept, of_this_build};
use crate::process::{Cluster, Host, IP, until, wait};
use crate::{ANYBODY, ROOT};

/// By which somebody says that it is meant.
const MAKES: &str = "COVEY_MAKES";
/// How long a node that is alone looks for others, and then keeps its first write for them.
const ALONE_FOR: Duration = Duration::from_secs(60);
/// A wire that leads nowhere: without a network no cluster is founded.
const NETWORK: [&str; 5] = [
    "link set lo up",
    "link add eth0 type veth peer name eth1",
    "addr add 10.0.0.1/24 dev eth0",
    "link set eth0 up",
    "link set eth1 up",
];
/// No lease of these ends while anybody looks, in seconds.
const LEASE_TTL: &str = "8000000000";
/// What passwords are hashed with: as little as may be.
const CHEAP: [&str; 2] = ["--bcrypt-cost", "4"];

#[test]
#[ignore = "makes what is kept of a build: see main.rs"]
fn make() {
    assert_eq!(std::env::var(MAKES).as_deref(), Ok("1"), "{MAKES}=1 says that it is meant");
    let interfaces = fs::read_to_string("/proc/self/net/dev").unwrap();
    let mut names = interfaces.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    assert!(names.all(|name| name == "lo"), "others could be found: {interfaces}");
    for command in NETWORK {
        assert!(Command::new(IP).args(command.split(' ')).status().unwrap().success(), "{command}");
    }
    assert!(!of_this_build().exists(), "what is kept stays as it is: {}", of_this_build().display());
    make_one();
    make_members();
}

/// What a node of any kind may have: keys of several revisions, before and after a compaction and a fold, leases, users.
fn fill(host: &Host) {
    for round in 0..3 {
        for n in 0..6 {
            host.must(&["put", &format!("key/{n}"), &format!("value {n} of {round}")]);
        }
    }
    host.must(&["put", "empty", ""]);
    host.must(&["put", "größe\t", "ä\n"]);
    for n in 0..3 {
        host.must(&["put", &format!("several/{n}"), "at once"]);
    }
    let lease = ask(host, &ANYBODY, &["lease", "grant", LEASE_TTL])["ID"].as_i64().unwrap();
    for key in ["leased/a", "leased/b"] {
        host.must(&["put", key, "x", "--lease", &format!("{lease:x}")]);
    }
    let revision = ask(host, &ANYBODY, &["get", "none"])["header"]["revision"].as_i64().unwrap();
    // What comes after is in the log alone: a compaction has the state before it folded.
    host.must(&["compact", &(revision - 4).to_string()]);
    host.must(&["del", "several/", "--prefix"]);
    host.must(&["del", "key/1"]);
    host.must(&["put", "key/1", "made anew"]);
    host.must(&["put", "key/5", "after the compaction"]);
    for command in [
        &["role", "add", "reads"][..],
        &["role", "grant-permission", "reads", "read", "key/", "key0"],
        &["role", "grant-permission", "reads", "readwrite", "empty"],
        &["user", "add", "root:root"],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "reader:reader"],
        &["user", "grant-role", "reader", "reads"],
        &["user", "add", "nobody", "--no-password"],
    ] {
        host.must(command);
    }
}

fn make_one() {
    let mut cluster = Cluster::prepare(1);
    let bundle = cluster.path("laptop");
    let host = &mut cluster.hosts[0];
    host.start(&CHEAP);
    wait(ALONE_FOR);
    until("it serves", || host.run(&["put", "key/0", "first"]).ok());
    fill(host);
    host.must(&["client", "issue", "laptop", "--out", bundle.to_str().unwrap()]);
    host.must(&["token", "create", "--ttl", "24h"]);
    host.must(&["window", "close"]);
    host.must(&["auth", "enable"]);
    host.must(&[&ROOT[..], &["put", "key/3", "by root"]].concat());
    let content = describe(host, &ROOT);
    stop(host);
    let remark = "A node that formed a cluster by itself, with authentication on, stopped in order.";
    Kept::make("one", &host.data_dir, remark, &[], &content);
}

fn make_members() {
    let mut cluster = Cluster::prepare(3);
    let initial = cluster.initial();
    for host in &mut cluster.hosts {
        host.start(&[&["--initial-cluster", initial.as_str()], &CHEAP[..]].concat());
    }
    cluster.wait_ready();
    fill(&cluster.hosts[1]);
    let content = describe(&cluster.hosts[1], &ANYBODY);
    stop(&mut cluster.hosts[1]);
    let remark = "A member of three, stopped in order.";
    Kept::make("stopped", &cluster.hosts[1].data_dir, remark, &["m0", "m2"], &content);

    let host = &mut cluster.hosts[2];
    for n in 0..6 {
        until("a write without the third", || {
            host.run(&["put", "last", &format!("before the end, {n}")]).ok()
        });
    }
    let content = describe(host, &ANYBODY);
    host.kill();
    let remark = "A member of three after kill -9.";
    Kept::make("killed", &host.data_dir, remark, &["m0", "m1"], &content);
}

fn stop(host: &mut Host) {
    host.signal("-TERM");
    assert_eq!(host.ended(), 0, "{}", host.log());
}
