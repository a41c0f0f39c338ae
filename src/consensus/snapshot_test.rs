//! A follower that the log cannot reach: what raft is told, and that it always gets on.

use raft::eraftpb;

use super::super::Role;
use super::super::testing::{Cluster, conf};
use std::time::Duration;

use super::*;
use crate::limits::{ELECTION_TIMEOUT, HEARTBEAT};

/// Three members, one of them cut off while the others' logs moved on without it. Answers the cluster, the leader and the straggler.
fn left_behind() -> (Cluster, u64, u64) {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    let leader = cluster.elect();
    let behind = (1..=3).find(|id| *id != leader).unwrap();
    cluster.cut_off = vec![behind];
    for _ in 0..4 {
        cluster.propose(leader, "x");
        cluster.pass(HEARTBEAT);
    }
    for id in (1..=3).filter(|id| *id != behind) {
        let commit = cluster.raft(id).status().commit;
        cluster.raft(id).set_log_tail_bytes(0);
        cluster.raft(id).cut(commit);
    }
    cluster.cut_off.clear();
    cluster.pass(ELECTION_TIMEOUT * 3);
    (cluster, leader, behind)
}

fn mark(cluster: &mut Cluster, leader: u64) -> SnapshotMark {
    let status = cluster.raft(leader).status();
    SnapshotMark {
        position: Position { index: status.commit, term: status.term },
        conf_state: conf(&[1, 2, 3], &[]),
    }
}

#[test]
fn raft_asks_until_the_state_is_staged_and_then_goes_on_from_there() {
    let (mut cluster, leader, behind) = left_behind();
    assert_eq!(cluster.raft(leader).take_snapshot_requests(), [MemberId(behind)]);
    assert!(!cluster.raft(leader).reaches(MemberId(behind)));
    cluster.pass(HEARTBEAT);
    assert_eq!(cluster.raft(leader).take_snapshot_requests(), [MemberId(behind)], "it asks again");

    let mark = mark(&mut cluster, leader);
    cluster.raft(behind).expect_snapshot(Some(mark.clone()));
    assert!(cluster.raft(leader).offer_snapshot(MemberId(behind), &mark));
    cluster.pass(HEARTBEAT * 2);
    assert_eq!(cluster.node(behind).installed, Some(mark));
    assert!(cluster.raft(leader).reaches(MemberId(behind)));
    cluster.propose(leader, "y");
    cluster.pass(HEARTBEAT);
    assert_eq!(cluster.commands(behind), ["y"], "what came before is in the state");
    assert_eq!(cluster.raft(leader).take_snapshot_requests(), []);
}

/// Raft steps back too far when it looks for what a follower has in common with it. The state would not help: the follower is ahead of it.
#[test]
fn a_follower_that_is_ahead_of_the_state_is_found_by_its_commit_position() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    let leader = cluster.elect();
    cluster.propose(leader, "x");
    cluster.pass(HEARTBEAT);
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let commit = cluster.raft(follower).status().commit;
    let raft = cluster.raft(leader);
    raft.set_log_tail_bytes(0);
    raft.cut(LogIndex(commit.0 - 1));
    let progress = raft.node.raft.mut_prs().get_mut(follower).unwrap();
    progress.become_probe();
    (progress.matched, progress.next_idx) = (0, 2);
    cluster.propose(leader, "y");
    cluster.pass(HEARTBEAT * 2);
    assert_eq!(cluster.raft(leader).take_snapshot_requests(), [MemberId(follower)]);
    assert!(!cluster.raft(leader).reaches(MemberId(follower)));
    cluster.raft(leader).learn_from_commit(MemberId(follower));
    assert!(cluster.raft(leader).reaches(MemberId(follower)));
    cluster.pass(HEARTBEAT * 2);
    assert_eq!(cluster.commands(follower), ["x", "y"]);
    assert_eq!(cluster.raft(leader).take_snapshot_requests(), []);
}

#[test]
fn nothing_leaves_between_the_restore_and_the_reset_of_the_log() {
    let (mut cluster, leader, behind) = left_behind();
    let mark = mark(&mut cluster, leader);
    let now = cluster.now;
    cluster.raft(leader).offer_snapshot(MemberId(behind), &mark);
    let raft = cluster.raft(behind);
    let applied = raft.node.raft.raft_log.applied;
    let applied_before = LogIndex(applied);
    raft.expect_snapshot(Some(mark.clone()));
    raft.step(now, snapshot_message(&mark, leader, behind)).unwrap();
    let ready = raft.poll_ready().unwrap();
    assert_eq!(ready.install.as_ref(), Some(&mark));
    assert!(ready.messages.is_empty() && ready.committed.is_empty());
    let persist = ready.persist.unwrap();
    assert_eq!(persist.hard_state.unwrap().commit, mark.position.index);
    assert!(raft.is_installing() && !raft.may_let_go());
    raft.handle_timeout(now + ELECTION_TIMEOUT * 4);
    assert!(raft.poll_ready().is_none(), "not even a candidacy");
    // A fold of the old store is reported only now: the log on disk still has to reach back to it.
    assert!(raft.cut(applied_before) <= applied_before.next());
    let again = raft.step(now, snapshot_message(&mark, leader, behind));
    assert_eq!(again, Err(super::super::Refusal::Snapshot));

    raft.handle_installed(now, mark.position);
    raft.handle_applied(now, mark.position.index);
    assert_eq!(raft.node.raft.raft_log.applied, applied, "the disk has no log that reaches so far");
    let answers = raft.handle_persisted(now, persist.id);
    assert!(answers.iter().any(|message| message.0.index == mark.position.index.0), "{answers:?}");
    assert_eq!(raft.node.raft.raft_log.applied, mark.position.index.0);
}

fn snapshot_message(mark: &SnapshotMark, from: u64, to: u64) -> super::super::Message {
    let conf_state = Some(conf_state_to_raft(&mark.conf_state));
    let Position { index, term } = mark.position;
    let metadata = Some(SnapshotMetadata { conf_state, index: index.0, term: term.0 });
    super::super::Message(raft::eraftpb::Message {
        msg_type: raft::eraftpb::MessageType::MsgSnapshot,
        from,
        to,
        term: term.0,
        snapshot: Some(Snapshot { metadata, ..Snapshot::default() }),
        ..Default::default()
    })
}

#[test]
fn a_lost_snapshot_is_sent_again_once_it_is_reported() {
    let (mut cluster, leader, behind) = left_behind();
    let mark = mark(&mut cluster, leader);
    assert!(cluster.raft(leader).offer_snapshot(MemberId(behind), &mark));
    // The follower refuses it: nothing is staged there.
    cluster.pass(ELECTION_TIMEOUT * 3);
    cluster.raft(behind).expect_snapshot(Some(mark.clone()));
    cluster.pass(ELECTION_TIMEOUT * 3);
    assert_eq!(cluster.node(behind).installed, None, "raft waits for an answer to the first one");
    let now = cluster.now;
    cluster.raft(leader).report_snapshot_lost(now, MemberId(behind));
    cluster.pass(HEARTBEAT * 3);
    assert_eq!(cluster.node(behind).installed, Some(mark));
}

#[test]
fn an_offer_keeps_the_entries_after_it_and_leads_nowhere_once_they_are_gone() {
    let (mut cluster, leader, behind) = left_behind();
    let mark = mark(&mut cluster, leader);
    cluster.cut_off = vec![behind];
    assert!(cluster.raft(leader).offer_snapshot(MemberId(behind), &mark));
    cluster.propose(leader, "y");
    let commit = cluster.raft(leader).status().commit;
    cluster.raft(leader).cut(commit);
    assert!(cluster.raft(leader).offer_holds(MemberId(behind)));
    cluster.raft(leader).withdraw_snapshot(MemberId(behind));
    cluster.raft(leader).cut(commit);
    assert!(!cluster.raft(leader).offer_snapshot(MemberId(behind), &mark));
}

#[test]
fn a_change_from_before_a_snapshot_leaves_its_configuration_alone_and_has_no_answer() {
    for ready_first in [true, false] {
        late_change(ready_first);
    }
}

/// The change is applied before or after what the restore led to was asked for.
fn late_change(ready_first: bool) {
    let (mut cluster, leader, behind) = left_behind();
    let mark = SnapshotMark { conf_state: conf(&[1, 2, 3], &[4]), ..mark(&mut cluster, leader) };
    let now = cluster.now;
    let raft = cluster.raft(behind);
    raft.expect_snapshot(Some(mark.clone()));
    raft.step(now, snapshot_message(&mark, leader, behind)).unwrap();
    if ready_first {
        raft.poll_ready().unwrap();
    }
    let change = super::super::ConfChange {
        changes: vec![(MemberId(leader), super::super::MemberChange::Remove)],
        context: bytes::Bytes::new(),
    };
    let data = prost::Message::encode_to_vec(&change.to_raft()).into();
    let kind = crate::wal::EntryKind::ConfChangeV2;
    let entry = crate::wal::LogEntry { index: LogIndex(2), term: Term(1), kind, data };
    assert_eq!(raft.apply_conf_change(now, &entry).unwrap(), None, "the configuration of a later entry");
    assert_eq!(raft.conf_state(), mark.conf_state);
}

/// Three members, one of which does not trust its own state.
fn one_is_suspect() -> (Cluster, u64, u64) {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    let leader = cluster.elect();
    cluster.propose(leader, "x");
    cluster.pass(HEARTBEAT);
    let suspect = (1..=3).find(|id| *id != leader).unwrap();
    cluster.suspect = vec![suspect];
    cluster.restart(suspect);
    cluster.pass(HEARTBEAT * 2);
    (cluster, leader, suspect)
}

#[test]
fn who_does_not_trust_its_state_is_given_another_one_at_the_end_of_its_log() {
    let (mut cluster, leader, suspect) = one_is_suspect();
    let last = cluster.raft(suspect).status().last;
    assert_eq!(cluster.raft(leader).take_snapshot_requests(), [MemberId(suspect)]);
    assert_eq!(cluster.raft(leader).wanted_state(MemberId(suspect)), Some(last));
    assert!(!cluster.raft(leader).reaches(MemberId(suspect)), "the log is not what it lacks");
    assert!(!cluster.raft(leader).has_caught_up(MemberId(suspect)), "nobody makes it the leader");
    cluster.propose(leader, "y");
    cluster.pass(HEARTBEAT * 2);
    assert_eq!(cluster.raft(suspect).status().last, last, "it takes no entries meanwhile");

    let early = SnapshotMark {
        position: Position { index: LogIndex(last.0 - 1), term: Term(1) },
        ..mark(&mut cluster, leader)
    };
    cluster.raft(leader).offer_snapshot(MemberId(suspect), &early);
    cluster.pass(HEARTBEAT * 2);
    assert_eq!(cluster.raft(leader).take_snapshot_requests(), [MemberId(suspect)], "it has confirmed more");
    let mark = mark(&mut cluster, leader);
    cluster.raft(suspect).expect_snapshot(Some(mark.clone()));
    assert!(!cluster.raft(suspect).expects_in_vain());
    assert!(cluster.raft(leader).offer_snapshot(MemberId(suspect), &mark));
    cluster.pass(HEARTBEAT * 2);
    assert_eq!(cluster.node(suspect).installed, Some(mark));
    assert_eq!(cluster.raft(leader).take_snapshots_taken(), [MemberId(suspect)]);
    assert!(!cluster.raft(suspect).is_suspect());
    let now = cluster.now;
    cluster.raft(leader).report_snapshot_lost(now, MemberId(suspect));
    cluster.propose(leader, "z");
    cluster.pass(HEARTBEAT * 2);
    assert_eq!(cluster.commands(suspect), ["z"]);
    assert!(
        cluster.raft(leader).reaches(MemberId(suspect))
            && cluster.raft(leader).has_caught_up(MemberId(suspect))
    );
}

/// On a quiet cluster the state that comes is at the very entry that the log ends with.
#[test]
fn a_state_at_the_commit_position_is_not_let_go_of_where_it_was_asked_for() {
    let (mut cluster, leader, suspect) = one_is_suspect();
    let mark = mark(&mut cluster, leader);
    assert_eq!(mark.position.index, cluster.raft(suspect).status().commit);
    cluster.raft(suspect).expect_snapshot(Some(mark.clone()));
    assert!(!cluster.raft(suspect).expects_in_vain());
    cluster.raft(leader).offer_snapshot(MemberId(suspect), &mark);
    cluster.pass(HEARTBEAT * 2);
    assert_eq!(cluster.node(suspect).installed, Some(mark));
    assert_eq!(cluster.raft(leader).take_snapshots_taken(), [MemberId(suspect)]);
}

/// Its log and its promises are sound: the others may need its vote, and never its lead.
#[test]
fn who_does_not_trust_its_state_votes_and_does_not_lead() {
    let (mut cluster, leader, suspect) = one_is_suspect();
    let other = (1..=3).find(|id| *id != leader && *id != suspect).unwrap();
    cluster.cut_off = vec![leader, other];
    cluster.pass(ELECTION_TIMEOUT * 9);
    assert_ne!(cluster.raft(suspect).status().role, Role::Leader);
    assert_ne!(cluster.raft(suspect).status().role, Role::Candidate);
    cluster.cut_off = vec![leader];
    cluster.pass(ELECTION_TIMEOUT * 9);
    assert_eq!(
        cluster.raft(other).status().role,
        Role::Leader,
        "by the vote of the one that waits for a state"
    );
    let now = cluster.now;
    cluster.raft(other).transfer_leader(now, MemberId(suspect));
    cluster.pass(ELECTION_TIMEOUT * 2);
    assert_eq!(cluster.raft(other).status().role, Role::Leader);
}

/// Where writes never cease there would never be a moment to ask, and a log without end.
#[test]
fn who_waits_for_a_state_takes_no_entries_but_those_that_it_has() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    let leader = cluster.elect();
    cluster.propose(leader, "x");
    cluster.pass(HEARTBEAT);
    let suspect = (1..=3).find(|id| *id != leader).unwrap();
    for is_suspect in [true, false] {
        cluster.suspect = if is_suspect { vec![suspect] } else { Vec::new() };
        cluster.restart(suspect);
        let now = cluster.now;
        let raft = cluster.raft(suspect);
        let (last, term) = (raft.status().last, raft.status().term);
        let entry = |index| eraftpb::Entry { index, term: term.0, data: "y".into(), ..Default::default() };
        let append = eraftpb::Message {
            msg_type: MessageType::MsgAppend,
            from: leader,
            to: suspect,
            term: term.0,
            log_term: term.0,
            index: last.0 - 1,
            entries: vec![entry(last.0), entry(last.0 + 1)],
            ..Default::default()
        };
        raft.step(now, super::super::Message(append)).unwrap();
        assert_eq!(raft.status().last.0, if is_suspect { last.0 } else { last.0 + 1 });
    }
}

/// Nobody else could ever be elected: a majority needs its vote, and it has what they lack.
#[test]
fn the_only_one_with_the_whole_log_leads_until_another_one_has_it() {
    let mut cluster = Cluster::new(&[1, 2], &[]);
    let leader = cluster.elect();
    let other = 3 - leader;
    cluster.cut_off = vec![other];
    cluster.propose(leader, "x");
    cluster.suspect = vec![leader];
    cluster.restart(leader);
    cluster.cut_off.clear();
    cluster.pass(Duration::from_secs(15));
    assert_eq!(cluster.leader(), None);
    cluster.pass(Duration::from_secs(15));
    assert_eq!(cluster.leader(), Some(other), "it was handed over to");
    assert_eq!(cluster.commands(other), ["x"]);
    assert!(cluster.raft(leader).is_suspect());
    assert!(cluster.raft(other).wanted_state(MemberId(leader)).is_some());
}

/// What it has confirmed may be all that tells a new leader what is committed.
#[test]
fn another_leader_is_confirmed_its_entries_before_it_is_asked_for_a_state() {
    let (mut cluster, leader, suspect) = one_is_suspect();
    let other = (1..=3).find(|id| *id != leader && *id != suspect).unwrap();
    assert!(cluster.raft(leader).wanted_state(MemberId(suspect)).is_some());
    // The other one has an entry that it does not know to be committed.
    cluster.cut_off = vec![suspect];
    cluster.propose(leader, "y");
    cluster.cut_off = vec![leader];
    for _ in 0..200 {
        cluster.pass(HEARTBEAT);
        if cluster.leader() == Some(other) && cluster.raft(other).serves_reads() {
            break;
        }
    }
    assert_eq!(cluster.commands(other), ["x", "y"]);
    cluster.pass(HEARTBEAT * 3);
    let wanted = cluster.raft(other).wanted_state(MemberId(suspect)).unwrap();
    assert_eq!(wanted, cluster.raft(suspect).status().last);
    assert_eq!(wanted, cluster.raft(other).status().last, "it took what it lacked, and then asked again");
}

/// The leader may never commit what it does not have: a state would never get there.
#[test]
fn a_state_is_asked_for_once_all_of_the_log_is_committed() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    let leader = cluster.elect();
    let followers: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    cluster.cut_off = vec![followers[1]];
    cluster.pass(HEARTBEAT);
    // What the leader hears of it is lost, so that it stays uncommitted.
    cluster.node(followers[0]).slow_disk = true;
    cluster.propose(leader, "x");
    cluster.cut_off = vec![leader, followers[1]];
    cluster.node(followers[0]).slow_disk = false;
    cluster.settle();
    let status = cluster.raft(followers[0]).status();
    assert!(status.last > status.commit);
    cluster.suspect = vec![followers[0]];
    cluster.restart(followers[0]);
    cluster.cut_off = vec![followers[0]];
    cluster.elect();
    cluster.cut_off.clear();
    for _ in 0..20 {
        cluster.pass(HEARTBEAT);
        let leader = cluster.leader().unwrap();
        let status = cluster.raft(followers[0]).status();
        if let Some(wanted) = cluster.raft(leader).wanted_state(MemberId(followers[0])) {
            assert_eq!((wanted, status.last), (status.commit, status.commit));
            assert!(cluster.raft(leader).status().commit >= wanted);
            return;
        }
    }
    panic!("it does not ask");
}

#[test]
fn only_a_configuration_that_changes_could_have_led_to_is_sound() {
    assert!(is_sound(&conf(&[1, 2, 3], &[4])));
    assert!(!is_sound(&conf(&[], &[4])));
    assert!(!is_sound(&conf(&[1, 2], &[2])));
    assert!(
        !is_sound(&conf(&[2, 1], &[])) && !is_sound(&conf(&[1, 1], &[])) && !is_sound(&conf(&[0, 1], &[]))
    );
    assert!(!is_sound(&ConfState { auto_leave: true, ..conf(&[1], &[]) }));
    let joint = ConfState {
        voters_outgoing: vec![MemberId(1), MemberId(2)],
        learners_next: vec![MemberId(2)],
        auto_leave: true,
        ..conf(&[1, 3], &[4])
    };
    assert!(is_sound(&joint));
    assert!(!is_sound(&ConfState { learners_next: vec![MemberId(3)], ..joint.clone() }));
    assert!(!is_sound(&ConfState { learners: vec![MemberId(2)], ..joint }));
}
