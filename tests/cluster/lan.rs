//! Members on a network of their own, which is cut in different ways while clients write.
//!
//! Owns: who is kept from hearing whom. Must never: touch an interface, or a rule, of the machine's own. The namespaces and their wires are made by the stage `lan` of the gate, as root;
//! the tests run in the one that the clients are in, for bad links in that of another network: `.ci/run lan`.

use std::process::Command;
use std::time::Duration;

use covey::prng::Prng;

use crate::histories::{goes_on, judge};
use crate::load::Load;
use crate::members::{id_of, update};
use crate::process::{Cluster, Host, IP, until, wait};

/// Names what the stage has made: the namespaces are this with a number.
const LAN: &str = "COVEY_LAN";
/// Where the hosts of it are, up to the last number.
const RANGE: &str = "COVEY_LAN_RANGE";
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;

/// A cut that lasts: a leader that hears no majority has stepped down by then.
const LONG: Duration = Duration::from_secs(5);

/// How long bad links are borne.
const BAD: Duration = Duration::from_secs(25);

fn ip(arguments: &[&str]) {
    let done = Command::new(IP).args(arguments).output().unwrap();
    assert!(done.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

fn address(host: usize) -> String {
    let range = std::env::var(RANGE).expect("the stage has made a network");
    format!("{range}{}", host + 1)
}

/// Members that do not run, each on a host of its own.
fn on_lan(members: usize) -> Cluster {
    let lan = std::env::var(LAN).expect("the stage has made a network");
    let mut cluster = Cluster::prepare(members);
    for (n, host) in cluster.hosts.iter_mut().enumerate() {
        host.netns = Some(format!("{lan}{n}"));
        host.endpoint = format!("{}:{CLIENT_PORT}", address(n));
        host.peer_port = PEER_PORT;
    }
    cluster
}

fn start(members: usize) -> Cluster {
    let mut cluster = on_lan(members);
    let (initial, secret) = (cluster.initial(), cluster.path("secret"));
    std::fs::write(&secret, "VGhlIHNlY3JldCBvZiBhIHRlc3QgbmV0d29yay4=\n").unwrap();
    let secret = secret.to_str().unwrap().to_owned();
    for host in &mut cluster.hosts {
        host.start(&["--initial-cluster", &initial, "--cluster-secret-file", &secret]);
    }
    cluster.wait_ready();
    cluster
}

/// While it lives, one host does not hear another: what comes from there finds no way.
struct Deaf<'a> {
    netns: &'a str,
    from: String,
}

impl<'a> Deaf<'a> {
    fn new(hosts: &'a [Host], host: usize, from: usize) -> Self {
        let deaf = Self { netns: hosts[host].netns.as_deref().unwrap(), from: address(from) };
        deaf.rule("add");
        deaf
    }

    /// One hears nobody.
    fn to_all(hosts: &'a [Host], host: usize) -> Vec<Self> {
        others(hosts, host).into_iter().map(|other| Self::new(hosts, host, other)).collect()
    }

    /// Neither hears the other.
    fn both(hosts: &'a [Host], left: &[usize], right: &[usize]) -> Vec<Self> {
        let pairs = left.iter().flat_map(|left| right.iter().map(move |right| (*left, *right)));
        pairs
            .flat_map(|(left, right)| [Self::new(hosts, left, right), Self::new(hosts, right, left)])
            .collect()
    }

    fn rule(&self, what: &str) {
        ip(&["-n", self.netns, "rule", what, "pref", "10", "from", &self.from, "blackhole"]);
    }
}

impl Drop for Deaf<'_> {
    fn drop(&mut self) {
        self.rule("del");
    }
}

fn others(hosts: &[Host], host: usize) -> Vec<usize> {
    (0..hosts.len()).filter(|other| *other != host).collect()
}

fn healed(cluster: &mut Cluster, load: &Load) {
    cluster.wait_ready();
    goes_on(load);
}

#[test]
#[ignore = "needs root and namespaces: .ci/run lan"]
fn a_leader_that_is_cut_off_with_its_clients_answers_nothing_that_is_stale() {
    let mut cluster = start(3);
    judge(&mut cluster, |cluster, load| {
        for _ in 0..3 {
            let leader = cluster.leader();
            let cut = Deaf::both(&cluster.hosts, &[leader], &others(&cluster.hosts, leader));
            wait(LONG);
            goes_on(load);
            let refused = cluster.hosts[leader].run(&["put", "alone", "x"]);
            assert!(refused.is_err(), "a member that is alone has written");
            drop(cut);
            healed(cluster, load);
        }
    });
}

#[test]
#[ignore = "needs root and namespaces: .ci/run lan"]
fn a_leader_that_hears_nobody_is_replaced() {
    let mut cluster = start(3);
    judge(&mut cluster, |cluster, load| {
        for _ in 0..2 {
            let leader = cluster.leader();
            let cut = Deaf::to_all(&cluster.hosts, leader);
            until("another leader", || {
                let others = others(&cluster.hosts, leader);
                others.into_iter().find(|other| cluster.hosts[*other].leads())
            });
            goes_on(load);
            drop(cut);
            healed(cluster, load);
        }
    });
}

/// It hears no leader, but whoever leads hears it: it must not depose anybody, over and over.
#[test]
#[ignore = "needs root and namespaces: .ci/run lan"]
fn a_follower_that_hears_nobody_disturbs_nobody() {
    let mut cluster = start(3);
    judge(&mut cluster, |cluster, load| {
        let leader = cluster.leader();
        let follower = (leader + 1) % 3;
        let term = cluster.hosts[leader].term();
        let cut = Deaf::to_all(&cluster.hosts, follower);
        wait(LONG);
        goes_on(load);
        drop(cut);
        healed(cluster, load);
        assert_eq!(cluster.hosts[leader].term(), term, "somebody was elected");
    });
}

/// Every frame is late, and some are lost, between members as well as to clients (`tests/harness/links.py`).
#[test]
#[ignore = "needs root and namespaces: .ci/run lan"]
fn bad_links_elect_nobody() {
    let mut cluster = start(3);
    judge(&mut cluster, |cluster, load| {
        let leader = cluster.leader();
        let term = cluster.hosts[leader].term();
        wait(BAD);
        goes_on(load);
        for host in &cluster.hosts {
            assert_eq!(host.term(), term, "somebody was elected: {}", host.log());
        }
        assert_eq!(cluster.leader(), leader);
    });
}

#[test]
#[ignore = "needs root and namespaces: .ci/run lan"]
fn three_of_five_go_on_without_the_leader_and_one_more() {
    let mut cluster = start(5);
    judge(&mut cluster, |cluster, load| {
        for round in 0..2 {
            let leader = cluster.leader();
            let minority = [leader, (leader + 1 + round) % 5];
            let majority: Vec<usize> = (0..5).filter(|host| !minority.contains(host)).collect();
            let cut = Deaf::both(&cluster.hosts, &minority, &majority);
            until("another leader", || majority.iter().find(|host| cluster.hosts[**host].leads()));
            goes_on(load);
            drop(cut);
            healed(cluster, load);
        }
    });
}

/// The two that do not hear each other both hear the third.
#[test]
#[ignore = "needs root and namespaces: .ci/run lan"]
fn a_leader_and_a_follower_that_do_not_hear_each_other_do_not_stop_the_cluster() {
    let mut cluster = start(3);
    judge(&mut cluster, |cluster, load| {
        let leader = cluster.leader();
        let cut = Deaf::both(&cluster.hosts, &[leader], &[(leader + 1) % 3]);
        wait(LONG);
        goes_on(load);
        drop(cut);
        healed(cluster, load);
    });
}

/// Nobody has a majority; then everybody has.
#[test]
#[ignore = "needs root and namespaces: .ci/run lan"]
fn a_cluster_of_which_nobody_hears_anybody_comes_back() {
    let mut cluster = start(3);
    judge(&mut cluster, |cluster, load| {
        for _ in 0..2 {
            let cut: Vec<_> = (0..3).flat_map(|host| Deaf::to_all(&cluster.hosts, host)).collect();
            wait(LONG);
            drop(cut);
            healed(cluster, load);
        }
    });
}

/// Links that come and go faster than anybody is elected, and slower: each one in one direction at a time.
#[test]
#[ignore = "needs root and namespaces: .ci/run lan"]
fn links_that_come_and_go_spoil_nothing() {
    let mut cluster = start(5);
    judge(&mut cluster, |cluster, load| {
        let mut prng = Prng::new(1);
        for turn in 0..40 {
            let host = prng.range(0, 5);
            let from = (host + prng.range(1, 5)) % 5;
            let cut = Deaf::new(&cluster.hosts, host.try_into().unwrap(), from.try_into().unwrap());
            let longest = if turn % 4 == 0 { 1500 } else { 300 };
            wait(Duration::from_millis(prng.range(20, longest)));
            drop(cut);
        }
        healed(cluster, load);
    });
}

/// The cluster is told where a member will be found, which nobody's configuration names.
#[test]
#[ignore = "needs root and namespaces: .ci/run lan"]
fn a_member_moves_to_another_address() {
    let mut cluster = start(3);
    judge(&mut cluster, |cluster, load| {
        let leader = cluster.leader();
        let (moved, third) = ((leader + 1) % 3, (leader + 2) % 3);
        let (id, before) = (id_of(cluster, moved), cluster.hosts[moved].peer_url());
        cluster.hosts[moved].kill();
        cluster.hosts[moved].peer_port += 1;
        let after = cluster.hosts[moved].peer_url();
        assert_ne!(before, after);
        update(&cluster.hosts[third], id, &after);
        let secret = cluster.path("secret").to_str().unwrap().to_owned();
        cluster.hosts[moved].start(&["--cluster-secret-file", &secret]);
        healed(cluster, load);
        // It is heard: without a third member nothing could be written otherwise.
        cluster.hosts[third].kill();
        goes_on(load);
        cluster.hosts[third].start(&["--cluster-secret-file", &secret]);
        cluster.wait_ready();
    });
}
