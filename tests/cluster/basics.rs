//! Three members: any of them serves, and any may be lost.

use crate::process::{Cluster, until};

#[test]
fn every_member_serves_reads_and_writes_and_a_lost_one_is_not_missed() {
    let mut cluster = Cluster::start(3);
    for n in 0..3 {
        let (key, value) = (format!("key{n}"), format!("value{n}"));
        cluster.hosts[n].must(&["put", &key, &value]);
        for host in &cluster.hosts {
            assert_eq!(
                host.must(&["get", &key]),
                format!("{key}\n{value}\n"),
                "{} reads what {n} wrote",
                host.name
            );
        }
    }
    for n in 0..3 {
        cluster.hosts[n].kill();
        let others: Vec<usize> = (0..3).filter(|other| *other != n).collect();
        for other in &others {
            until("a write without one member", || {
                cluster.hosts[*other].run(&["put", &format!("without{n}"), &other.to_string()]).ok()
            });
        }
        cluster.hosts[n].start(&[]);
        let back =
            until("the lost one is back", || cluster.hosts[n].run(&["get", &format!("without{n}")]).ok());
        assert_eq!(back, format!("without{n}\n{}\n", others[1]));
    }
}

/// A stopped process is deposed without knowing it. What it says once it goes on is not older than what others have said.
#[test]
fn a_leader_that_was_paused_gives_no_stale_answer() {
    let mut cluster = Cluster::start(3);
    for round in 0..3 {
        cluster.hosts[0].must(&["put", "key", &format!("old{round}")]);
        let leader = cluster.leader();
        cluster.hosts[leader].signal("-STOP");
        let value = format!("new{round}");
        let other = (leader + 1) % 3;
        until("a write without the leader", || cluster.hosts[other].run(&["put", "key", &value]).ok());
        cluster.hosts[leader].signal("-CONT");
        assert_eq!(cluster.hosts[leader].must(&["get", "key"]), format!("key\n{value}\n"));
        cluster.wait_ready();
    }
}

/// SIGTERM is an order: nobody waits for an election, and nothing that was acknowledged is missed.
#[test]
fn members_that_are_stopped_one_after_the_other_end_well() {
    let mut cluster = Cluster::start(3);
    for n in 0..3 {
        cluster.hosts[n].must(&["put", "key", &n.to_string()]);
        cluster.hosts[n].signal("-TERM");
        assert_eq!(cluster.hosts[n].ended(), 0, "{}", cluster.hosts[n].log());
        let other = (n + 1) % 3;
        let read = until("a read without it", || cluster.hosts[other].run(&["get", "key"]).ok());
        assert_eq!(read, format!("key\n{n}\n"));
        cluster.hosts[n].start(&[]);
        cluster.wait_ready();
    }
}

#[test]
fn leases_are_kept_through_members_that_do_not_lead() {
    let cluster = Cluster::start(3);
    let granted = cluster.hosts[0].must(&["lease", "grant", "60"]);
    let id = granted.split_whitespace().nth(1).unwrap().to_owned();
    for host in &cluster.hosts {
        let kept = host.must(&["lease", "keep-alive", "--once", &id]);
        assert!(kept.contains(&format!("lease {id} keepalived with TTL(60)")), "{}: {kept}", host.name);
        let left = host.must(&["lease", "timetolive", &id]);
        assert!(left.contains("granted with TTL(60s), remaining("), "{}: {left}", host.name);
        assert!(host.must(&["lease", "list"]).contains(&id));
    }
    cluster.hosts[1].must(&["lease", "revoke", &id]);
    for host in &cluster.hosts {
        assert!(host.must(&["lease", "timetolive", &id]).contains("already expired"), "{}", host.name);
    }
}
