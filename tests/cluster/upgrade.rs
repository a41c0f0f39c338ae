//! Members of two builds in one cluster, as while it is upgraded.
//!
//! Owns: what the later build may do, and when. Must never: be run with a release, which plays no other build.

#![cfg(debug_assertions)]

use covey::config::EXIT_CONFIG;
use serde_json::Value;

use crate::histories::{goes_on, judge};
use crate::load::Load;
use crate::members::add;
use crate::process::{Cluster, Host, until};

/// To put it is a command of its own for the later build. For the earlier one it is a key like any other.
const LATER: &str = "played/key";

const OUTDATED: &str =
    "the cluster uses commands of version 3, of which this build of covey understands those up to version 2";

/// What the cluster uses, and what its members understand, as one of them knows it.
fn versions(host: &Host) -> (u64, Vec<u64>) {
    // It fails while a member that was replaced is not reached yet, and says the same.
    let status = host.client(&["status", "-w", "json"]).stdout;
    let status: Value = serde_json::from_slice(&status).unwrap();
    let cluster = &status["cluster"];
    let members = cluster["members"].as_array().unwrap();
    let understood = members.iter().map(|member| member["understands"].as_u64().unwrap());
    let mut understood: Vec<u64> = understood.collect();
    understood.sort_unstable();
    (cluster["commands"].as_u64().unwrap(), understood)
}

fn stop(host: &mut Host) {
    host.signal("-TERM");
    assert_eq!(host.ended(), 0, "{}", host.log());
}

#[test]
fn what_is_new_is_used_once_the_last_member_has_it_while_clients_write() {
    let mut cluster = Cluster::start(3);
    judge(&mut cluster, |cluster, load| {
        for n in 0..3 {
            stop(&mut cluster.hosts[n]);
            goes_on(load);
            cluster.hosts[n].is_later = true;
            cluster.hosts[n].start(&[]);
            cluster.wait_ready();
            goes_on(load);
            if n < 2 {
                let refused = cluster.hosts[n].run(&["put", LATER, "early"]).unwrap_err();
                assert!(refused.contains("etcdserver: not capable"), "{refused}");
                until("it is published", || {
                    (versions(&cluster.hosts[2]) == (2, if n == 0 { vec![2, 2, 3] } else { vec![2, 3, 3] }))
                        .then_some(())
                });
            }
        }
        for host in &cluster.hosts {
            until("the new command", || host.run(&["put", LATER, &host.name]).ok());
            assert_eq!(versions(host), (3, vec![3, 3, 3]));
        }
        goes_on(load);
    });
    for host in &cluster.hosts {
        assert_eq!(host.must(&["get", LATER]), format!("{LATER}\nm2\n"), "{}", host.name);
    }

    // Back to the build of before, which makes nothing of what it does not understand; the later one goes on from that.
    stop(&mut cluster.hosts[0]);
    cluster.hosts[0].is_later = false;
    cluster.hosts[0].start(&[]);
    assert_eq!(cluster.hosts[0].ended(), i32::from(EXIT_CONFIG));
    assert!(cluster.hosts[0].log().contains(OUTDATED), "{}", cluster.hosts[0].log());
    cluster.hosts[1].must(&["put", LATER, "meanwhile"]);
    cluster.hosts[0].is_later = true;
    cluster.hosts[0].start(&[]);
    cluster.wait_ready();
    assert_eq!(cluster.hosts[0].must(&["get", LATER]), format!("{LATER}\nmeanwhile\n"));
    assert_eq!(versions(&cluster.hosts[0]), (3, vec![3, 3, 3]));
}

/// It would have to stop at the first entry that it does not understand.
#[test]
fn an_earlier_build_does_not_join_what_uses_later_commands() {
    let mut cluster = Cluster::prepare(1);
    cluster.hosts[0].is_later = true;
    let initial = cluster.initial();
    cluster.hosts[0].start(&["--initial-cluster", &initial]);
    cluster.wait_ready();
    until("all members understand it", || (versions(&cluster.hosts[0]).0 == 3).then_some(()));
    let new = cluster.add_host();
    add(&cluster, new, false).unwrap();
    let initial = cluster.initial();
    let joins = ["--initial-cluster", &initial, "--initial-cluster-state", "existing"];
    cluster.hosts[new].start(&joins);
    assert_eq!(cluster.hosts[new].ended(), i32::from(EXIT_CONFIG));
    let log = cluster.hosts[new].log();
    assert!(log.contains("the node does not join") && log.contains(OUTDATED), "{log}");
    cluster.hosts[new].is_later = true;
    cluster.hosts[new].start(&joins);
    cluster.wait_ready();
    cluster.hosts[new].must(&["put", LATER, "joined"]);
    assert_eq!(cluster.hosts[0].must(&["get", LATER]), format!("{LATER}\njoined\n"));
}

/// Another build takes over one member's directory, while the clients of all go on.
fn change(cluster: &mut Cluster, load: &Load, n: usize, program: Option<&str>) {
    stop(&mut cluster.hosts[n]);
    goes_on(load);
    cluster.hosts[n].program = program.map(str::to_owned);
    cluster.hosts[n].is_later = program.is_none();
    cluster.hosts[n].start(&[]);
    cluster.wait_ready();
    goes_on(load);
}

/// What that build has left on disks is read, and what it says to others is understood, until its last member is gone; before that there is a way back.
#[test]
#[ignore = "needs an earlier build: .ci/run upgrade"]
fn members_of_an_earlier_build_are_replaced_while_clients_write() {
    let earlier = std::env::var("COVEY_EARLIER").unwrap();
    let mut cluster = Cluster::prepare(3);
    let initial = cluster.initial();
    for host in &mut cluster.hosts {
        host.program = Some(earlier.clone());
        host.start(&["--initial-cluster", &initial]);
    }
    cluster.wait_ready();
    cluster.hosts[0].must(&["put", "before", "of the earlier build"]);
    judge(&mut cluster, |cluster, load| {
        // Forth and back, and then all of them.
        for (n, program) in [(0, None), (0, Some(earlier.as_str())), (0, None), (1, None)] {
            change(cluster, load, n, program);
            let understood = cluster.hosts.iter().map(|host| if host.is_later { 3 } else { 1 });
            let mut understood: Vec<u64> = understood.collect();
            understood.sort_unstable();
            // As a member of the earlier build sees it.
            until("it is published", || {
                (versions(&cluster.hosts[2]) == (1, understood.clone())).then_some(())
            });
        }
        change(cluster, load, 2, None);
        until("the new command", || cluster.hosts[2].run(&["put", LATER, "all of them"]).ok());
        goes_on(load);
    });
    for host in &cluster.hosts {
        assert_eq!(versions(host), (3, vec![3, 3, 3]), "{}", host.name);
        assert_eq!(host.must(&["get", "before"]), "before\nof the earlier build\n");
        assert_eq!(host.must(&["get", LATER]), format!("{LATER}\nall of them\n"));
    }
}
