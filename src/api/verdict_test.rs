//! Verdicts, over what nodes say.

use super::*;

fn member(id: u64, votes: bool, reached: bool) -> pb::Member {
    pb::Member {
        id,
        name: format!("box{id}"),
        fingerprint: format!("{id:02x}").repeat(32),
        votes,
        reached,
        peer_urls: vec![format!("https://10.0.0.{id}:2380")],
        client_urls: Vec::new(),
        understands: 1,
    }
}

/// What makes something else of it.
type Change = Box<dyn FnOnce(&mut pb::Cluster)>;

/// Three voters of which box 2 leads, seen from box 1.
pub fn three() -> pb::Cluster {
    pb::Cluster {
        id: 0xc1,
        member: 1,
        leader: 2,
        automatic: true,
        committed: true,
        open_seconds: 27 * 60,
        members: (1..=3).map(|id| member(id, true, true)).collect(),
        commands: 1,
        ..pb::Cluster::default()
    }
}

/// A box that waits to be let in.
pub fn pending() -> pb::PendingNode {
    pb::PendingNode { fingerprint: "ab".repeat(32), name: "box9".into(), ..pb::PendingNode::default() }
}

/// What a node in such a cluster says of itself.
pub fn of(cluster: pb::Cluster) -> pb::StatusResponse {
    pb::StatusResponse { cluster: Some(cluster), ..pb::StatusResponse::default() }
}

fn verdict(change: impl FnOnce(&mut pb::Cluster)) -> Verdict {
    let mut cluster = three();
    change(&mut cluster);
    judge(&of(cluster))
}

fn line(change: impl FnOnce(&mut pb::Cluster)) -> (bool, String) {
    let verdict = verdict(change);
    (verdict.healthy, verdict.line)
}

#[test]
fn who_keeps_the_cluster_from_what_is_new_is_named() {
    let verdict = verdict(|cluster| {
        cluster.members[0].understands = 2;
        cluster.members.push(pb::Member { fingerprint: String::new(), ..member(4, true, false) });
    });
    assert!(verdict.healthy, "{verdict:?}");
    let [next] = &verdict.next[..] else { panic!("{verdict:?}") };
    assert!(next.contains("(box2, box3 not): upgrade covey on them"), "{next}");
    let next = |change: fn(&mut pb::Cluster)| {
        let mut cluster = three();
        change(&mut cluster);
        judge(&of(cluster)).next
    };
    assert!(next(|_| {}).is_empty());
    let all = |cluster: &mut pb::Cluster| {
        cluster.members.iter_mut().for_each(|member| member.understands = 2);
        cluster.commands = 2;
    };
    assert!(next(all).is_empty());
}

#[test]
fn a_cluster_is_healthy_when_everybody_is_there() {
    let healthy = |text: &str| (true, text.to_owned());
    assert_eq!(line(|_| {}), healthy("healthy: 3 voters, leader box2; committed; open for 27 min"));
    assert_eq!(
        line(|cluster| (cluster.open_seconds, cluster.committed) = (0, false)),
        healthy("healthy: 3 voters, leader box2; provisional; sealed")
    );
    assert_eq!(
        line(|cluster| (cluster.open_seconds, cluster.by_secret) = (0, true)),
        healthy("healthy: 3 voters, leader box2; committed; open to whoever has the cluster's secret")
    );
    assert_eq!(
        line(|cluster| {
            cluster.members.truncate(2);
            cluster.members[0].votes = false;
        }),
        healthy("healthy: 1 voter, 1 learner, leader box2; committed; open for 27 min")
    );
    // A place that waits for its node is no node that is missing.
    let place = pb::Member { id: 9, votes: true, ..pb::Member::default() };
    assert!(line(|cluster| cluster.members.push(place)).0);
}

#[test]
fn who_waits_is_no_illness_and_is_told_how_to_come_in() {
    let verdict = verdict(|cluster| cluster.pending.push(pending()));
    assert!(verdict.healthy);
    assert_eq!(verdict.next, [format!("to let box9 in: \"covey node approve {}\"", "ab".repeat(32))]);
}

#[test]
fn clients_that_are_to_be_renewed_are_no_illness_and_are_counted() {
    let soon =
        |c: &mut pb::Cluster| (c.outdated_clients, c.outdated_seconds, c.lost_clients) = (2, 86_400, 1);
    let verdict = verdict(soon);
    assert!(verdict.healthy);
    let next: Vec<&str> = verdict.next.iter().map(|step| step.split(": \"").next().unwrap()).collect();
    let expected = [
        "clients to be renewed within 1 d, since a member was removed: 2",
        "clients that know no server any more, since they were not renewed: 1",
    ];
    assert_eq!(next, expected);
    assert!(verdict.next[0].contains("covey client renew NAME"));
}

#[test]
fn a_full_disk_is_an_illness_of_its_box() {
    let verdict = judge(&pb::StatusResponse { disk_short: true, ..of(three()) });
    assert!(!verdict.healthy && verdict.next.len() == 1);
    assert_eq!(verdict.line, "DISK FULL: this box takes no puts while it leads; leader box2");
}

#[test]
fn other_hardware_is_an_alarm_and_no_illness() {
    let verdict = judge(&pb::StatusResponse { other_hardware: "disk, network card".into(), ..of(three()) });
    assert!(verdict.healthy);
    let expected = "this box is other hardware than at its last start (disk, network card): ";
    assert!(verdict.next.len() == 1 && verdict.next[0].starts_with(expected), "{verdict:?}");
}

#[test]
fn a_backup_that_fails_is_said_and_is_no_illness() {
    let status = |trouble: &str| {
        let backups = pb::Backups { written: 3, failed: 1, trouble: trouble.into(), ..Default::default() };
        pb::StatusResponse { backups: Some(backups), ..of(three()) }
    };
    let verdict = judge(&status("no room"));
    assert!(
        verdict.healthy && verdict.next[0].starts_with("there is no new backup (no room): "),
        "{verdict:?}"
    );
    assert_eq!(judge(&status("")).next, judge(&of(three())).next);
}

#[test]
fn what_is_wrong_is_named_with_what_to_do() {
    let cases: [(&str, Change); 10] = [
        ("degraded: box3 not reached; leader box2", Box::new(|c| c.members[2].reached = false)),
        (
            "degraded: box1, box3 not reached",
            Box::new(|c| {
                c.member = 2;
                (c.members[0].reached, c.members[2].reached) = (false, false);
            }),
        ),
        ("degraded: box4 not reached", Box::new(|c| c.members.push(member(4, false, false)))),
        (
            "no leader: 1 of 3 voters are reached, 2 are needed; not reached: box2, box3",
            Box::new(|c| {
                c.leader = 0;
                (c.members[1].reached, c.members[2].reached) = (false, false);
            }),
        ),
        ("no leader: 3 of 3 voters are reached", Box::new(|c| c.leader = 0)),
        ("joining: ", Box::new(|c| c.catching_up = true)),
        (
            "joining: this box has not heard",
            Box::new(|c| {
                c.leader = 0;
                c.members.clear();
            }),
        ),
        ("dissolved: this cluster has given itself up for ab", Box::new(|c| c.dissolved_for = 0xab)),
        ("ALARM NOSPACE: ", Box::new(|c| c.alarms.push("NOSPACE".into()))),
        (
            "CONFLICT: there is another cluster on this network (dd): both",
            Box::new(|c| {
                c.conflicts.push(pb::Conflict {
                    cluster: 0xdd,
                    why: "both".into(),
                    ..pb::Conflict::default()
                });
            }),
        ),
    ];
    for (begins, change) in cases {
        let verdict = verdict(change);
        assert!(!verdict.healthy && verdict.line.starts_with(begins), "{begins}: {}", verdict.line);
        assert!(!verdict.next.is_empty(), "{begins}");
        assert_eq!(verdict.word(), begins.split(':').next().unwrap(), "who it is about is not in it");
    }
}

#[test]
fn in_a_conflict_either_operator_is_told_what_to_type() {
    let conflict = pb::Conflict { cluster: 0xdd, ..pb::Conflict::default() };
    let steps = verdict(|cluster| cluster.conflicts.push(conflict)).next.join("\n");
    for typed in
        ["\"covey yield dd\" on this box", "\"covey yield c1\" on a box of the other", "\"covey doctor\""]
    {
        assert!(steps.contains(typed), "{typed}: {steps}");
    }
}

/// To yield would leave boxes behind, and does not happen; what helps is a newer build, where the older one is.
#[test]
fn in_a_conflict_of_builds_an_operator_is_told_which_boxes_are_to_be_upgraded() {
    let steps = |least, upgrade_here, upgrade_there| {
        let addresses = vec!["10.0.0.7:2380".into()];
        let conflict = pb::Conflict { upgrade_here, upgrade_there, addresses, ..pb::Conflict::default() };
        let change = |cluster: &mut pb::Cluster| {
            cluster.members[0].understands = 2;
            cluster.members.iter_mut().for_each(|member| member.understands = member.understands.max(least));
            cluster.conflicts.push(conflict);
        };
        verdict(change).next.join("\n")
    };
    let (here, there) = (steps(1, 2, 0), steps(1, 0, 2));
    assert!(here.contains("older, or remove those that are gone for good: box2, box3"), "{here}");
    assert!(steps(2, 2, 0).contains("all boxes of this cluster are upgraded"), "{}", steps(2, 2, 0));
    assert!(there.contains("on the boxes of the other cluster, which is at 10.0.0.7:2380"), "{there}");
    assert!(!here.contains("covey yield") && !there.contains("covey yield"));
}

/// A sealed cluster that nobody has written to: the other one waits for it to give itself up, knows of no conflict, and would refuse to yield.
#[test]
fn in_a_conflict_that_the_other_side_does_not_see_an_operator_is_told_how_it_does() {
    let steps = |committed| {
        let conflict = pb::Conflict { cluster: 0xdd, ..pb::Conflict::default() };
        let change = |cluster: &mut pb::Cluster| {
            cluster.committed = committed;
            cluster.conflicts.push(conflict);
        };
        verdict(change).next.join("\n")
    };
    assert!(steps(false).contains("if it is this one: \"covey put\" something here"), "{}", steps(false));
    assert!(steps(true).contains("if it is this one: \"covey yield c1\""), "{}", steps(true));
}

#[test]
fn a_node_without_a_cluster_says_what_it_waits_for() {
    let status =
        pb::StatusResponse { waits_for: "nobody else is there".into(), ..pb::StatusResponse::default() };
    let verdict = judge(&status);
    assert!(!verdict.healthy);
    assert_eq!(verdict.line, "gathering: nobody else is there");
}

#[test]
fn times_are_for_people() {
    for (seconds, text) in [
        (0, "0 s"),
        (59, "59 s"),
        (61, "1 min 1 s"),
        (120, "2 min"),
        (1620, "27 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86_400 * 3 + 3600, "3 d 1 h"),
    ] {
        assert_eq!(span(seconds), text);
    }
}
