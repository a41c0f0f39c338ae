//! What clients saw while members were lost, paused and replaced can have happened on one machine.
//!
//! Owns: the troubles. Must never: judge by anything else than what clients saw, which `linear` does.

use std::time::Duration;

use crate::linear::objection;
use crate::load::Load;
use crate::members::{add, id_of, promote, remove};
use crate::process::{Cluster, Host, until, wait};

/// What a cluster needs to get over what was done to it; longer than an election.
const SETTLE: Duration = Duration::from_millis(1500);

/// Requests that must have been answered, or the history says nothing.
const ENOUGH: u64 = 200;

/// So many answers show that it goes on.
const GOES_ON: u64 = 100;

/// Runs clients of all members during a trouble, and looks at what they saw.
pub fn judge(cluster: &mut Cluster, trouble: impl FnOnce(&mut Cluster, &Load)) {
    let all: Vec<usize> = (0..cluster.hosts.len()).collect();
    judge_at(cluster, &all, trouble);
}

/// The same with clients of some, which must serve in the end.
pub fn judge_at(cluster: &mut Cluster, hosts: &[usize], trouble: impl FnOnce(&mut Cluster, &Load)) {
    let load = Load::new(hosts.iter().map(|host| cluster.hosts[*host].endpoint.clone()));
    let history = load.during(|| {
        wait(SETTLE / 3);
        trouble(cluster, &load);
        wait(SETTLE / 3);
    });
    assert!(load.answered() >= ENOUGH, "only {} answers", load.answered());
    if let Some(objection) = objection(&history) {
        panic!("{objection}");
    }
}

/// Waits until the clients get answers again.
pub fn goes_on(load: &Load) {
    let before = load.answered();
    until("answers", || (load.answered() >= before + GOES_ON).then_some(()));
}

#[test]
fn leaders_that_are_killed_under_load_take_no_write_with_them() {
    let mut cluster = Cluster::start(3);
    judge(&mut cluster, |cluster, load| {
        for _ in 0..3 {
            let leader = cluster.leader();
            cluster.hosts[leader].kill();
            goes_on(load);
            cluster.hosts[leader].start(&[]);
            cluster.wait_ready();
        }
    });
}

#[test]
fn all_members_killed_at_once_under_load_have_lost_nothing() {
    let mut cluster = Cluster::start(3);
    judge(&mut cluster, |cluster, load| {
        for _ in 0..2 {
            cluster.hosts.iter_mut().for_each(Host::kill);
            cluster.hosts.iter_mut().for_each(|host| host.start(&[]));
            cluster.wait_ready();
            goes_on(load);
        }
    });
}

#[test]
fn a_leader_that_is_paused_under_load_gives_no_stale_answer() {
    let mut cluster = Cluster::start(3);
    judge(&mut cluster, |cluster, load| {
        for _ in 0..3 {
            let leader = cluster.leader();
            cluster.hosts[leader].signal("-STOP");
            wait(SETTLE);
            goes_on(load);
            cluster.hosts[leader].signal("-CONT");
            wait(SETTLE / 3);
        }
    });
}

#[test]
fn a_rolling_restart_under_load_is_not_noticed_in_the_data() {
    let mut cluster = Cluster::start(3);
    judge(&mut cluster, |cluster, load| {
        for host in [0, 1, 2, 0] {
            cluster.hosts[host].signal("-TERM");
            assert_eq!(cluster.hosts[host].ended(), 0);
            goes_on(load);
            cluster.hosts[host].start(&[]);
            cluster.wait_ready();
        }
    });
}

#[test]
fn two_of_five_members_may_be_lost_at_once() {
    let mut cluster = Cluster::start(5);
    judge(&mut cluster, |cluster, load| {
        for round in 0..2 {
            let leader = cluster.leader();
            let other = (leader + 1 + round) % 5;
            for lost in [leader, other] {
                cluster.hosts[lost].kill();
            }
            goes_on(load);
            for lost in [leader, other] {
                cluster.hosts[lost].start(&[]);
            }
            cluster.wait_ready();
        }
    });
}

/// Two of three are replaced one after the other, and then the leader is lost.
#[test]
fn members_are_replaced_under_load() {
    let mut cluster = Cluster::start(3);
    let replaced = [(1, cluster.add_host()), (2, cluster.add_host())];
    judge_at(&mut cluster, &[0, 3, 4], |cluster, load| {
        for (old, new) in replaced {
            let named: Vec<String> = cluster.hosts[..=new].iter().map(Host::named).collect();
            let id = until("it is added", || add(cluster, new, true).ok());
            let initial = named.join(",");
            cluster.hosts[new].start(&["--initial-cluster", &initial, "--initial-cluster-state", "existing"]);
            until("it is promoted", || promote(&cluster.hosts[0], id).ok());
            let gone = id_of(cluster, old);
            until("it is removed", || remove(&cluster.hosts[0], gone).ok());
            assert_eq!(cluster.hosts[old].ended(), 0);
            goes_on(load);
        }
        let leader = cluster.leader();
        cluster.hosts[leader].kill();
        goes_on(load);
        cluster.hosts[leader].start(&[]);
        until("the lost one is back", || cluster.hosts[leader].run(&["get", "ready"]).ok());
    });
}
