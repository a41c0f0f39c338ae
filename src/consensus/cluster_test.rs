//! What the members of a cluster see of each other.

use std::time::Duration;

use super::testing::{Cluster, conf, logger, start_of};
use super::*;
use crate::limits::{ELECTION_TIMEOUT, ELECTION_TIMEOUT_MAX, ELECTION_TIMEOUT_MIN, HEARTBEAT};
use crate::wal::Position;

fn entry(index: u64, term: u64) -> LogEntry {
    let (index, term) = (LogIndex(index), Term(term));
    LogEntry { index, term, kind: EntryKind::Normal, data: Bytes::from_static(b"x") }
}

fn change(changes: &[(u64, MemberChange)]) -> ConfChange {
    let changes = changes.iter().map(|&(id, change)| (MemberId(id), change)).collect();
    ConfChange { changes, context: Bytes::new() }
}

#[test]
fn a_lone_voter_leads_without_waiting_and_never_wakes_up() {
    let mut cluster = Cluster::new(&[1], &[]);
    assert_eq!(cluster.leader(), Some(1));
    assert_eq!(cluster.raft(1).poll_timeout(), None);
    cluster.propose(1, "a");
    assert_eq!(cluster.commands(1), ["a"]);
    cluster.restart(1);
    cluster.settle();
    assert_eq!(cluster.commands(1), ["a"], "also what the hard state did not know to be committed");
    assert_eq!(cluster.raft(1).status().term, Term(3));
}

#[test]
fn three_members_agree_and_survive_the_loss_of_the_leader() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    assert_eq!(cluster.leader(), None);
    let first = cluster.elect();
    cluster.propose(first, "a");
    let other = (1..=3).find(|id| *id != first).unwrap();
    cluster.propose(other, "b");
    cluster.pass(HEARTBEAT);
    for id in 1..=3 {
        assert_eq!(cluster.commands(id), ["a", "b"], "member {id}; a follower's proposal is forwarded");
    }

    cluster.cut_off = vec![first];
    let now = cluster.now;
    cluster.raft(first).propose(now, vec!["lost".into()]).unwrap();
    let second = cluster.elect();
    assert_ne!(second, first);
    cluster.propose(second, "c");
    cluster.pass(ELECTION_TIMEOUT * 2);
    assert_ne!(cluster.raft(first).status().role, Role::Leader, "it noticed that nobody answers");

    cluster.cut_off.clear();
    cluster.pass(ELECTION_TIMEOUT * 3);
    for id in 1..=3 {
        assert_eq!(cluster.commands(id), ["a", "b", "c"], "member {id}; its own entry was replaced");
    }
    assert_eq!(cluster.leader(), Some(second), "who comes back disturbs nobody (pre-vote)");
}

/// A leader that is slow now and then is not given up for that, and one that is gone is, soon enough.
#[test]
fn a_leader_is_missed_by_the_gaps_between_its_words() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    let leader = cluster.elect();
    cluster.pass(Duration::from_secs(5));
    let term = cluster.raft(leader).status().term;
    // Too short for the first to be missed, and each prepares for the next.
    for millis in [350, 600] {
        cluster.cut_off = vec![leader];
        cluster.pass(Duration::from_millis(millis));
        cluster.cut_off.clear();
        cluster.pass(HEARTBEAT * 3);
        assert_eq!(
            (cluster.leader(), cluster.raft(leader).status().term),
            (Some(leader), term),
            "{millis} ms"
        );
    }
    // After a while without gaps it would be missed as soon as at first.
    cluster.pass(Duration::from_secs(600));
    cluster.cut_off = vec![leader];
    cluster.pass(ELECTION_TIMEOUT_MIN * 3);
    assert_ne!(cluster.leader(), Some(leader));
}

/// A member that heard nothing for an hour, of a leader that led all the time, is patient for a few minutes and not for as long as an hour takes to
/// be forgotten.
#[test]
fn an_hour_without_a_word_is_forgotten_as_soon_as_a_short_gap() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    let leader = cluster.elect();
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let term = cluster.raft(leader).status().term;
    cluster.cut_off = vec![follower];
    cluster.pass(Duration::from_secs(3600));
    cluster.cut_off.clear();
    let mut patience = |after: Duration| {
        cluster.pass(after);
        let now = cluster.now;
        cluster.raft(follower).poll_timeout().unwrap().since(now)
    };
    let at_first = patience(HEARTBEAT * 3);
    let later = patience(Duration::from_secs(180));
    assert!(at_first + HEARTBEAT > ELECTION_TIMEOUT_MAX, "{at_first:?}");
    assert!(later <= ELECTION_TIMEOUT_MIN * 2, "{later:?}");
    assert_eq!((cluster.leader(), cluster.raft(leader).status().term), (Some(leader), term));
}

/// Whatever is set: raft insists on more than a heartbeat.
#[test]
fn any_pace_is_one_that_raft_takes() {
    for (heartbeat, election) in [(90, 450), (10, 50), (0, 0), (500, 10), (10_000, 50_000)] {
        let (heartbeat, election_min) = (Duration::from_millis(heartbeat), Duration::from_millis(election));
        let pace = Pace { heartbeat, election_min, election_max: Duration::from_secs(1) };
        assert!(raft_config(MemberId(1), LogIndex(0), &pace).validate().is_ok(), "{pace:?}");
    }
}

#[test]
fn a_run_is_a_function_of_its_seeds() {
    let history = || {
        let mut cluster = Cluster::new(&[1, 2, 3], &[4]);
        let mut history = Vec::new();
        for round in 0..20 {
            let leader = cluster.elect();
            cluster.propose(leader, "x");
            if round % 4 == 3 {
                cluster.cut_off = vec![leader];
            } else {
                cluster.cut_off.clear();
            }
            let all: Vec<CoreStatus> = cluster.nodes.values().map(|node| node.raft.status()).collect();
            history.push((cluster.now, leader, all));
        }
        history
    };
    let first = history();
    for _ in 0..3 {
        assert_eq!(history(), first);
    }
}

/// Raft itself would take longer to notice, and as long as a majority answers it need not.
#[test]
fn a_leader_knows_who_answers() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[4]);
    let leader = cluster.elect();
    let answering = |cluster: &mut Cluster, id: u64| {
        let now = cluster.now;
        let answering = cluster.raft(id).answering(now);
        answering.map(|members| members.into_iter().map(|member| member.0).collect::<Vec<_>>())
    };
    let but = |gone: u64| (1..=4).filter(|id| ![leader, gone].contains(id)).collect::<Vec<_>>();
    let (silent, other) = (but(0)[0], but(0)[1]);
    assert_eq!(answering(&mut cluster, leader), Some(but(0)));
    assert_eq!(answering(&mut cluster, other), None, "it does not lead");

    cluster.cut_off = vec![silent];
    cluster.pass(ELECTION_TIMEOUT_MIN);
    assert_eq!(answering(&mut cluster, leader), Some(but(0)), "a loss is no silence");
    cluster.pass(ELECTION_TIMEOUT * 2);
    assert_eq!(answering(&mut cluster, leader), Some(but(silent)));
    cluster.cut_off.clear();
    cluster.pass(HEARTBEAT * 3);
    let leader = cluster.leader().unwrap();
    assert!(answering(&mut cluster, leader).unwrap().contains(&silent));
}

#[test]
fn a_minority_serves_no_reads_and_a_follower_reads_what_was_acknowledged() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    let leader = cluster.elect();
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    cluster.propose(leader, "a");
    let commit = cluster.raft(leader).status().commit;
    let now = cluster.now;
    let round = cluster.raft(follower).start_read_round(now);
    cluster.settle();
    assert_eq!(cluster.node(follower).reads, [(round, commit)]);

    cluster.cut_off = vec![leader];
    let now = cluster.now;
    cluster.raft(leader).start_read_round(now);
    cluster.settle();
    assert!(cluster.node(leader).reads.is_empty(), "a leader alone cannot know that it still leads");
}

#[test]
fn an_answer_to_an_earlier_run_confirms_nothing() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    let leader = cluster.elect();
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let now = cluster.now;
    let before = cluster.raft(follower).start_read_round(now);
    let context = {
        // The round leaves for the leader, and its answer is kept for later.
        let ready = cluster.raft(follower).poll_ready().unwrap();
        ready.messages[0].0.entries[0].data.clone()
    };
    let term = cluster.raft(follower).status().term;
    cluster.restart(follower);
    cluster.pass(HEARTBEAT);
    let now = cluster.now;
    assert_eq!(cluster.raft(follower).start_read_round(now), before, "numbers begin anew in each run");
    cluster.cut_off = vec![leader];
    let late = eraftpb::Message {
        msg_type: MessageType::MsgReadIndexResp,
        from: leader,
        to: follower,
        term: term.0,
        index: 1,
        entries: vec![Entry { data: context, ..Entry::default() }],
        ..Default::default()
    };
    cluster.raft(follower).step(now, Message(late)).unwrap();
    cluster.settle();
    assert!(cluster.node(follower).reads.is_empty());
}

#[test]
fn a_vote_leaves_only_after_it_is_on_disk() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    for id in 1..=3 {
        cluster.node(id).slow_disk = true;
    }
    cluster.pass(ELECTION_TIMEOUT * 5);
    assert_eq!(cluster.leader(), None, "no candidate's own vote is on disk, so none is asked for");
    for id in 1..=3 {
        cluster.node(id).slow_disk = false;
    }
    cluster.elect();
}

/// Disks that take seconds for a sync cost no leader, and what comes to such a member is passed on all the same.
#[test]
fn a_follower_shows_that_it_lives_while_its_disk_is_busy() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    let leader = cluster.elect();
    let followers: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    let term = cluster.raft(leader).status().term;
    for id in &followers {
        cluster.node(*id).slow_disk = true;
    }
    cluster.propose(leader, "a");
    cluster.pass(ELECTION_TIMEOUT * 5);
    assert_eq!((cluster.leader(), cluster.raft(leader).status().term), (Some(leader), term));
    assert!(cluster.commands(leader).is_empty(), "nobody else has it on disk");

    cluster.node(followers[0]).slow_disk = false;
    cluster.propose(followers[1], "b");
    cluster.pass(HEARTBEAT);
    assert_eq!(cluster.commands(leader), ["a", "b"]);
    assert!(cluster.commands(followers[1]).is_empty());

    // It knows that they are committed, and says of itself no more than what it has.
    cluster.pass(HEARTBEAT * 5);
    let log = &cluster.raft(followers[1]).node.raft.raft_log;
    let (committed, persisted) = (log.committed, log.persisted);
    assert!(committed > persisted);
    let claimed = |progress: &raft::Progress| progress.committed_index.max(progress.matched);
    let claimed = cluster.raft(leader).node.raft.prs().get(followers[1]).map(claimed).unwrap();
    assert!(claimed <= persisted, "{claimed} of {persisted}");
}

/// Each answer to a heartbeat has raft send a follower more: one whose disk is busy gives no more of them than it has to.
#[test]
fn a_follower_whose_disk_is_busy_gives_few_signs_of_life() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    let leader = cluster.elect();
    let followers: Vec<u64> = (1..=3).filter(|id| *id != leader).collect();
    for id in &followers {
        cluster.node(*id).slow_disk = true;
    }
    cluster.propose(leader, "a");
    let begin = cluster.now;
    let mut rounds = 0;
    while cluster.now < begin + HEARTBEAT * 10 {
        rounds += 1;
        let now = cluster.now;
        cluster.raft(leader).start_read_round(now);
        cluster.settle();
        cluster.pass(Duration::from_millis(1));
    }
    let confirmed = cluster.node(leader).reads.len();
    // Of the rounds before the last that is confirmed raft says so, too.
    assert!(rounds > 800 && confirmed > 0, "{confirmed} of {rounds}");
    // What is left waits for the disk: the last of them, and the acknowledgement of the entry, which each sign of life has brought again.
    for id in &followers {
        assert_eq!(cluster.raft(*id).held_back(), 2);
    }
    for id in &followers {
        cluster.node(*id).slow_disk = false;
    }
    cluster.settle();
    assert_eq!(cluster.node(leader).reads.len(), rounds);
}

/// A voter alone leads at once, before its new term is on disk. Had its appends left then, a crash would let it lead the same term
/// again, with other entries at positions that the learner already has in that term: two logs that differ and look the same.
#[test]
fn a_lone_voter_tells_its_learner_nothing_before_its_term_is_on_disk() {
    let mut cluster = Cluster::new(&[1], &[2]);
    cluster.pass(HEARTBEAT);
    cluster.restart(1);
    cluster.node(1).slow_disk = true;
    let now = cluster.now;
    let last = cluster.raft(2).status().last;
    cluster.raft(1).propose(now, vec!["gone".into()]).unwrap();
    cluster.pass(HEARTBEAT * 2);
    assert_eq!(cluster.raft(2).status().last, last);
    cluster.restart(1);
    cluster.propose(1, "kept");
    cluster.pass(HEARTBEAT * 2);
    assert_eq!(cluster.commands(2), ["kept"]);
}

#[test]
fn growing_from_one_to_three_and_handing_over() {
    let mut cluster = Cluster::new(&[1], &[2, 3]);
    cluster.propose(1, "a");
    let now = cluster.now;
    let both = change(&[(2, MemberChange::Voter), (3, MemberChange::Voter)]);
    cluster.raft(1).propose_conf_change(now, &both).unwrap();
    assert_eq!(cluster.raft(1).propose_conf_change(now, &both), Err(ConfChangeRefusal::Pending));
    assert!(!cluster.raft(1).status().sole_voter);
    cluster.pass(ELECTION_TIMEOUT);
    for id in 1..=3 {
        assert_eq!(cluster.nodes[&id].conf_state, conf(&[1, 2, 3], &[]), "joint and left again");
        assert_eq!(cluster.commands(id), ["a"]);
    }
    assert!(!cluster.raft(1).status().sole_voter);

    let now = cluster.now;
    cluster.raft(1).transfer_leader(now, MemberId(3));
    cluster.settle();
    assert_eq!(cluster.leader(), Some(3), "at once, without an election timeout");
    cluster.propose(3, "b");
    cluster.pass(HEARTBEAT);
    assert_eq!(cluster.commands(1), ["a", "b"]);
}

/// Raft goes on leading after it applied its own removal, and panics at its next commit.
#[test]
fn a_leader_that_is_removed_stops() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    let leader = cluster.elect();
    let now = cluster.now;
    cluster.raft(leader).propose_conf_change(now, &change(&[(leader, MemberChange::Remove)])).unwrap();
    let raft = cluster.raft(leader);
    assert!(raft.propose(now, vec!["after".into()]).is_ok(), "it leads until the change is committed");
    cluster.settle();
    assert_eq!(cluster.raft(leader).status().role, Role::Removed);
    assert_eq!(cluster.raft(leader).status().leader, None);
    assert_eq!(cluster.raft(leader).poll_timeout(), None);
    let now = cluster.now;
    assert_eq!(cluster.raft(leader).propose(now, vec!["no".into()]), Err(Dropped::NoLeader));
    let next = cluster.elect();
    assert_ne!(next, leader);
    cluster.propose(next, "b");
    assert!(cluster.commands(next).ends_with(&["b".to_owned()]));
}

#[test]
fn a_leader_that_is_demoted_follows() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    let leader = cluster.elect();
    let now = cluster.now;
    cluster.raft(leader).propose_conf_change(now, &change(&[(leader, MemberChange::Learner)])).unwrap();
    cluster.settle();
    assert_eq!(cluster.raft(leader).status().role, Role::Follower);
    let next = cluster.elect();
    cluster.propose(next, "b");
    cluster.pass(HEARTBEAT);
    assert_eq!(cluster.commands(leader), ["b"], "it still receives the log");
}

#[test]
fn a_change_that_leaves_no_voter_changes_nothing() {
    let mut cluster = Cluster::new(&[1], &[2]);
    cluster.pass(HEARTBEAT);
    let now = cluster.now;
    cluster.raft(1).propose_conf_change(now, &change(&[(1, MemberChange::Learner)])).unwrap();
    cluster.pass(HEARTBEAT);
    for id in 1..=2 {
        assert_eq!(cluster.nodes[&id].conf_state, conf(&[1], &[2]));
    }
    cluster.propose(1, "a");
    assert_eq!(cluster.commands(1), ["a"]);
    assert_eq!(cluster.raft(1).propose_conf_change(now, &change(&[])), Err(ConfChangeRefusal::Empty));
    assert_eq!(
        cluster.raft(2).propose_conf_change(now, &change(&[(2, MemberChange::Voter)])),
        Err(ConfChangeRefusal::NotLeader)
    );
}

#[test]
fn a_long_pause_is_one_election_and_no_storm() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    let leader = cluster.elect();
    let term = cluster.raft(leader).status().term;
    cluster.now = cluster.now + Duration::from_secs(3600);
    for id in 1..=3 {
        let now = cluster.now;
        cluster.raft(id).handle_timeout(now);
        let mut messages = 0;
        while let Some(ready) = cluster.raft(id).poll_ready() {
            messages += ready.messages.len();
        }
        assert!(messages < 50, "an hour of heartbeats at once: {messages}");
    }
    cluster.settle();
    let next = cluster.elect();
    assert!(cluster.raft(next).status().term <= Term(term.0 + 2));
    let due = cluster.raft(next).poll_timeout().unwrap();
    assert!(due > cluster.now && due <= cluster.now + HEARTBEAT, "time is caught up");
}

#[test]
fn a_leader_knows_when_its_heartbeat_is_late() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    let leader = cluster.elect();
    let is_late = |cluster: &mut Cluster, id, after| {
        let due = cluster.raft(id).poll_timeout().unwrap();
        cluster.raft(id).is_heartbeat_late(due + after)
    };
    assert!(!is_late(&mut cluster, leader, HEARTBEAT), "one may be missed");
    assert!(is_late(&mut cluster, leader, HEARTBEAT + Duration::from_millis(1)));
    assert!(!is_late(&mut cluster, leader % 3 + 1, ELECTION_TIMEOUT_MAX), "it has none to send");
}

#[test]
fn a_start_from_contradicting_disks_is_refused() {
    let start = |edit: fn(&mut Start)| {
        let mut start = start_of(1, conf(&[1], &[]));
        start.entries = vec![entry(2, 2), entry(3, 2), entry(4, 3)];
        start.hard_state = HardState { term: Term(3), vote: None, commit: LogIndex(3) };
        edit(&mut start);
        Consensus::start(Instant(0), start, Prng::new(1), &logger()).map(|raft| raft.status()).err()
    };
    assert_eq!(start(|_| {}), None);
    assert_eq!(start(|start| start.applied = Position { index: LogIndex(4), term: Term(3) }), None);
    let gap = StartError::Gap { applied: LogIndex(1), log_start: LogIndex(2) };
    assert_eq!(
        start(|start| {
            start.log_start = Position { index: LogIndex(2), term: Term(2) };
            start.entries.remove(0);
        }),
        Some(gap)
    );
    let lost = |known| Some(StartError::Lost { last: LogIndex(4), known: LogIndex(known) });
    assert_eq!(start(|start| start.hard_state.commit = LogIndex(5)), lost(5));
    assert_eq!(start(|start| start.applied = Position { index: LogIndex(6), term: Term(3) }), lost(6));
    let mismatch = |index, log, state| {
        Some(StartError::TermMismatch { index: LogIndex(index), log: Term(log), state: Term(state) })
    };
    assert_eq!(
        start(|start| start.applied = Position { index: LogIndex(3), term: Term(3) }),
        mismatch(3, 2, 3)
    );
    assert_eq!(start(|start| start.applied.term = Term(2)), mismatch(1, 1, 2));
    assert_eq!(
        start(|start| start.hard_state.term = Term(2)),
        Some(StartError::TermBehind { term: Term(2), last: Term(3) })
    );
}

/// The state at a start may be from any time: from before the member was added, as it came from others or as it was folded while the member caught up, ...
#[test]
fn a_state_from_before_the_members_own_addition_is_caught_up_from() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    let leader = cluster.elect();
    cluster.join(start_of(4, conf(&[1, 2, 3], &[])));
    let other = (1..=3).find(|id| *id != leader).unwrap();
    // That somebody else goes first says nothing of the one that is not there yet.
    for step in [(other, MemberChange::Learner), (other, MemberChange::Remove), (4, MemberChange::Voter)] {
        let now = cluster.now;
        cluster.raft(leader).propose_conf_change(now, &change(&[step])).unwrap();
        cluster.pass(HEARTBEAT);
    }
    cluster.propose(leader, "a");
    cluster.pass(HEARTBEAT);
    assert_eq!(cluster.commands(4), ["a"]);
    assert!(cluster.node(4).conf_state.voters.contains(&MemberId(4)));
    cluster.restart(4);
    assert_eq!(cluster.raft(4).status().role, Role::Follower, "again from before it was added");
    cluster.pass(HEARTBEAT);
    cluster.cut_off = vec![leader];
    let next = cluster.elect();
    cluster.propose(next, "b");
    cluster.pass(HEARTBEAT);
    assert_eq!(cluster.commands(4), ["a", "b"]);
}

/// ... or from after it was removed, which a crash must not make it forget.
#[test]
fn a_member_that_has_applied_its_removal_takes_no_part_in_later_runs_either() {
    let role = |conf_state, removed| {
        let start = Start { removed, ..start_of(1, conf_state) };
        let raft = Consensus::start(Instant(0), start, Prng::new(1), &logger()).unwrap();
        (raft.status().role, raft.poll_timeout().is_some())
    };
    assert_eq!(role(conf(&[2, 3], &[]), true), (Role::Removed, false));
    assert_eq!(
        role(conf(&[1, 2, 3], &[]), true),
        (Role::Follower, true),
        "the others may need its vote to let it go"
    );
    assert_eq!(
        role(conf(&[2, 3], &[]), false),
        (Role::Follower, false),
        "it is not there yet, and asks for no votes"
    );
    assert_eq!(role(ConfState::default(), false), (Role::Follower, false));
}

/// The commit position is written lazily, the store's position is not: after a fold it may be far ahead.
#[test]
fn the_state_may_be_ahead_of_the_hard_state_and_starts_there() {
    let mut start = start_of(1, conf(&[1], &[]));
    start.entries = (2..=9).map(|index| entry(index, 2)).collect();
    start.hard_state = HardState { term: Term(2), vote: None, commit: LogIndex(2) };
    start.applied = Position { index: LogIndex(6), term: Term(2) };
    let mut raft = Consensus::start(Instant(0), start, Prng::new(1), &logger()).unwrap();
    let ready = raft.poll_ready().unwrap();
    assert!(ready.committed.is_empty(), "nothing is known to be committed beyond the state");
    let persist = ready.persist.unwrap();
    assert_eq!(persist.entries.len(), 1, "only the new leader's own entry is new");
    raft.handle_persisted(Instant(0), persist.id);
    let ready = raft.poll_ready().unwrap();
    let applied: Vec<u64> = ready.committed.iter().map(|entry| entry.index.0).collect();
    assert_eq!(applied, [7, 8, 9, 10], "what the state has is not applied again");
}

/// A log that was just made, or just reset to a snapshot, has no hard state of that position's term yet.
#[test]
fn a_new_log_has_the_term_of_the_position_that_it_continues() {
    let mut start = start_of(1, conf(&[1], &[]));
    start.hard_state = HardState::default();
    let raft = Consensus::start(Instant(0), start, Prng::new(1), &logger()).unwrap();
    assert_eq!(raft.status().term, Term(2));
}

/// A log may have been cut after the question was asked, or begin anew where the state is already.
#[test]
fn a_log_is_told_from_any_place_and_has_nothing_where_it_is_not() {
    let after = |raft: &Consensus, index| {
        let (entries, last) = raft.log_after(LogIndex(index));
        assert_eq!(last, Position { index: LogIndex(4), term: Term(3) });
        entries.iter().map(|entry| entry.index.0).collect::<Vec<_>>()
    };
    let mut start = start_of(1, conf(&[1, 2, 3], &[]));
    start.entries = vec![entry(2, 2), entry(3, 2), entry(4, 3)];
    start.hard_state = HardState { term: Term(3), vote: None, commit: LogIndex(3) };
    start.applied = Position { index: LogIndex(3), term: Term(2) };
    let raft = Consensus::start(Instant(0), start.clone(), Prng::new(1), &logger()).unwrap();
    assert_eq!((after(&raft, 1), after(&raft, 3)), (vec![2, 3, 4], vec![4]));
    for beyond in [4, 5, u64::MAX] {
        assert!(after(&raft, beyond).is_empty());
    }
    start.log_start = Position { index: LogIndex(2), term: Term(2) };
    start.entries.remove(0);
    let raft = Consensus::start(Instant(0), start, Prng::new(1), &logger()).unwrap();
    assert_eq!((after(&raft, 1), after(&raft, 2)), (vec![], vec![3, 4]));
}
