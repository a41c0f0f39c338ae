//! Data directories that earlier builds have left behind: this build goes on with each.
//!
//! Owns: what has to hold for every directory that is kept, and what becomes of one that is for another build. Must never: start a node in a kept directory
//! itself, or reach anything but the loopback interface.
//!
//! ```text
//! tests/upgrade/VERSION/one.tar.gz       a node that formed a cluster by itself, with users, stopped in order
//!                       stopped.tar.gz   a member of three, stopped in order
//!                       killed.tar.gz    a member of three after `kill -9`
//!                       NAME.txt         what is in it
//! ```
//!
//! Whoever changes a format keeps those that are there, gives the package another version, and makes directories of that before the change is merged:
//!
//! ```sh
//! COVEY_MAKES=1 unshare -n cargo test --test upgrade -- --ignored --exact make::make      # as root
//! ```

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod content;
mod kept;
mod make;
#[path = "../cluster/memory_group.rs"]
#[expect(dead_code, reason = "some of it is for other tests")]
mod memory_group;
mod newer;
#[path = "../cluster/port.rs"]
mod port;
#[path = "../cluster/process.rs"]
#[expect(dead_code, reason = "some of it is for other tests")]
mod process;
#[path = "../cluster/small_disk.rs"]
#[expect(dead_code, reason = "some of it is for other tests")]
mod small_disk;

use std::process::{Command, Stdio};

use crate::content::{describe, hash_at};
use crate::kept::{Kept, kept};
use crate::process::{Cluster, Host, until};

/// Who may read everything in a directory with users.
const ROOT: [&str; 2] = ["--user", "root:root"];
/// Nobody has to say who it is.
const ANYBODY: [&str; 0] = [];

/// Waits until a node that votes alone serves.
fn wait_ready(host: &mut Host, who: &[&str]) {
    until(&format!("{} serves", host.name), || {
        assert!(host.is_running(), "it has ended: {}", host.log());
        host.run(&[who, &["get", "ready"]].concat()).ok()
    });
}

/// What was kept is there, and the node goes on from it, over a `kill -9`.
fn goes_on(host: &mut Host, kept: &Kept, who: &[&str]) {
    host.start(&["--solo"]);
    wait_ready(host, who);
    assert_eq!(describe(host, who), kept.content, "{kept:?}");
    let (revision, hash) = kept.hash();
    host.must(&[who, &["put", "key/0", "by this build"]].concat());
    host.must(&[who, &["del", "key/2"]].concat());
    host.kill();
    host.start(&["--solo"]);
    wait_ready(host, who);
    assert_eq!(host.must(&[who, &["get", "key/0"]].concat()), "key/0\nby this build\n");
    assert_eq!(host.must(&[who, &["get", "key/2"]].concat()), "");
    assert_eq!(hash_at(host, who, revision), hash, "{kept:?}");
    host.signal("-TERM");
    assert_eq!(host.ended(), 0, "{}", host.log());
}

#[test]
fn a_node_goes_on_with_its_keys_leases_users_and_charter() {
    for kept in kept("one") {
        let mut cluster = Cluster::prepare(1);
        let host = &mut cluster.hosts[0];
        kept.unpack(&host.data_dir);
        goes_on(host, &kept, &ROOT);
    }
}

#[test]
fn a_member_that_was_stopped_or_killed_has_what_it_knew_and_goes_on_alone() {
    for kept in ["stopped", "killed"].into_iter().flat_map(kept) {
        let mut cluster = Cluster::prepare(1);
        let host = &mut cluster.hosts[0];
        kept.unpack(&host.data_dir);
        // Without the others it shows what it knows to be committed, and takes no part in anything else.
        host.start(&[]);
        until("its own copy", || {
            assert!(host.is_running(), "it has ended: {}", host.log());
            let early = host.run(&["get", "key/4", "--consistency", "s"]).ok()?;
            (early == "key/4\nvalue 4 of 2\n").then_some(())
        });
        assert!(host.run(&["--command-timeout", "1s", "put", "key/0", "alone"]).is_err());
        host.kill();
        let mut recover = Command::new(env!("CARGO_BIN_EXE_covey"));
        recover.args(["recover", "--yes", "--data-dir"]).arg(&host.data_dir).env_clear().stdin(Stdio::null());
        let recovered = recover.output().unwrap();
        let said = String::from_utf8(recovered.stdout).unwrap();
        assert!(recovered.status.success() && said.contains("is the only one of generation 2"), "{said}");
        assert_eq!(kept.others().len(), 2, "{kept:?}");
        for other in kept.others() {
            assert!(said.contains(&format!("{other} (")), "{other}: {said}");
        }
        goes_on(host, &kept, &ANYBODY);
    }
}
