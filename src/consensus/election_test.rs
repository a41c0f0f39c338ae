//! Elections among members whose disks are slow.

use std::time::Duration;

use super::testing::{Cluster, Node};
use super::*;
use crate::limits::{DISK_STUCK, ELECTION_TIMEOUT_MAX, ELECTION_TIMEOUT_MIN, HEARTBEAT};

const SLOW: Duration = Duration::from_secs(2);

/// How long a sync of a member takes.
type DrawSync = fn(&mut Prng, u64) -> Duration;

/// A cluster whose leader's disk is stuck from now on, and which nobody hears any more. Each sync of the others takes what `sync` says, by what seed and member it is.
fn bereft(voters: u64, seed: u64, sync: impl Fn(u64) -> Duration) -> (Cluster, u64) {
    let ids: Vec<u64> = (1..=voters).collect();
    let mut cluster = Cluster::seeded(seed, &ids, &[]);
    let leader = cluster.elect();
    cluster.pass(HEARTBEAT * 3);
    cluster.node(leader).slow_disk = true;
    for id in ids.into_iter().filter(|id| *id != leader) {
        cluster.node(id).sync = sync(id);
    }
    cluster.propose(leader, "a");
    cluster.pass(HEARTBEAT / 2);
    cluster.cut_off = vec![leader];
    (cluster, leader)
}

/// How long it takes until another member leads, and has committed something in its term; `most` where none does.
fn time_to_lead(cluster: &mut Cluster, most: Duration) -> Duration {
    let begin = cluster.now;
    while cluster.now.since(begin) < most {
        cluster.pass(HEARTBEAT);
        let leader = cluster.leader().filter(|id| !cluster.cut_off.contains(id));
        if leader.is_some_and(|id| cluster.raft(id).serves_reads()) {
            break;
        }
    }
    cluster.now.since(begin)
}

/// Five syncs, one after the other: what was on its way, the candidate's, the voters' and those of the first entry. And some that a vote waits for by chance.
#[test]
fn members_with_slow_disks_find_a_leader() {
    let fixed = |_: &mut Prng, _| SLOW;
    let mixed = |_: &mut Prng, id: u64| if id.is_multiple_of(2) { SLOW } else { Duration::ZERO };
    let drawn = |prng: &mut Prng, _| Duration::from_millis(prng.range(0, 4000));
    let cases: [(&[u64], u64, DrawSync); 3] =
        [(&[3, 5, 7], 15, fixed), (&[3, 5], 15, mixed), (&[3], 30, drawn)];
    for (sizes, seconds, sync) in cases {
        for voters in sizes {
            for seed in 0..20 {
                let mut prng = Prng::new(seed);
                let syncs: Vec<Duration> = (0..=*voters).map(|id| sync(&mut prng, id)).collect();
                let sync = |id: u64| syncs[usize::try_from(id).unwrap()];
                let (mut cluster, _) = bereft(*voters, seed, sync);
                let most = Duration::from_secs(seconds);
                let time = time_to_lead(&mut cluster, most);
                assert!(time < most, "{voters} voters, {syncs:?}, seed {seed}");
            }
        }
    }
}

/// All that are left are needed, so that each candidacy waits for the slowest, also after a vote that was split, and one that waited in vain.
#[test]
fn where_all_votes_are_needed_none_of_an_earlier_term_makes_one_forget_those_of_the_next() {
    for (voters, lost) in [(4, 1), (5, 2), (7, 3)] {
        for seed in 0..20 {
            let mut prng = Prng::new(seed);
            let syncs: Vec<u64> = (0..=voters).map(|_| prng.range(1000, 3000)).collect();
            let sync = |id: u64| Duration::from_millis(syncs[usize::try_from(id).unwrap()]);
            let (mut cluster, leader) = bereft(voters, seed, sync);
            let more = (1..=voters).filter(|id| *id != leader).take(lost - 1);
            cluster.cut_off.extend(more);
            let most = Duration::from_secs(25);
            let time = time_to_lead(&mut cluster, most);
            assert!(time < most, "{voters} voters, {syncs:?}, seed {seed}");
        }
    }
}

/// A leader that lets another member lead has it stand without a question ahead.
#[test]
fn who_is_to_lead_on_slow_disks_stands_once() {
    for voters in [3, 4, 5] {
        let ids: Vec<u64> = (1..=voters).collect();
        let mut cluster = Cluster::new(&ids, &[]);
        let leader = cluster.elect();
        cluster.pass(HEARTBEAT * 3);
        for id in ids {
            cluster.node(id).sync = SLOW;
        }
        let heir = leader % voters + 1;
        let term = cluster.raft(leader).status().term.0;
        let now = cluster.now;
        cluster.raft(leader).transfer_leader(now, MemberId(heir));
        cluster.settle();
        cluster.cut_off = vec![leader];
        let most = Duration::from_secs(15);
        assert!(time_to_lead(&mut cluster, most) < most, "{voters} voters");
        assert_eq!((cluster.leader(), cluster.raft(heir).status().term.0), (Some(heir), term + 1));
    }
}

/// The member that stands in an election, which its disk may keep from saying so.
fn candidate(cluster: &mut Cluster) -> u64 {
    for _ in 0..1000 {
        cluster.pass(Duration::from_millis(10));
        let stands = |(_, node): &(&u64, &Node)| node.raft.node.raft.state == StateRole::Candidate;
        if let Some((id, _)) = cluster.nodes.iter().find(stands) {
            return *id;
        }
    }
    panic!("nobody stands in ten seconds");
}

#[test]
fn a_candidate_whose_disk_is_stuck_is_in_nobodys_way() {
    for seed in 0..10 {
        let (mut cluster, _) = bereft(5, seed, |_| SLOW);
        let first = candidate(&mut cluster);
        cluster.node(first).slow_disk = true;
        let most = Duration::from_secs(20);
        assert!(time_to_lead(&mut cluster, most) < most, "seed {seed}");
        assert_ne!(cluster.leader(), Some(first));
        cluster.pass(HEARTBEAT * 5);
        assert_eq!(cluster.raft(first).status().leader.map(|id| id.0), cluster.leader());
    }
}

/// A candidate waits for a vote that it was promised, and not for ever.
#[test]
fn a_candidate_waits_for_a_slow_vote_and_not_for_a_stuck_one() {
    let (mut cluster, leader) = bereft(3, 1, |_| HEARTBEAT);
    let first = candidate(&mut cluster);
    let voter = 6 - leader - first;
    cluster.node(voter).slow_disk = true;
    let state = |cluster: &mut Cluster| cluster.raft(first).node.raft.state;
    cluster.pass(DISK_STUCK.saturating_sub(HEARTBEAT * 2));
    assert_eq!(state(&mut cluster), StateRole::Candidate);
    cluster.pass(ELECTION_TIMEOUT_MIN * 3);
    assert_eq!(state(&mut cluster), StateRole::PreCandidate);
    cluster.node(voter).slow_disk = false;
    let most = Duration::from_secs(3);
    assert!(time_to_lead(&mut cluster, most) < most);
}

/// The question may be lost.
#[test]
fn a_candidate_asks_again_for_a_vote_that_it_waits_for() {
    let (mut cluster, leader) = bereft(3, 1, |_| HEARTBEAT);
    let first = candidate(&mut cluster);
    let term = cluster.raft(first).status().term;
    cluster.cut_off = vec![leader, first];
    cluster.raft(6 - leader - first).election_ticks = 500;
    cluster.pass(HEARTBEAT * 2);
    cluster.cut_off = vec![leader];
    let most = Duration::from_secs(3);
    assert!(time_to_lead(&mut cluster, most) < most);
    assert_eq!((cluster.leader(), cluster.raft(first).status().term), (Some(first), term));
}

/// A follower that has become patient is woken by nothing but its own time, and loses none of it.
#[test]
fn a_patient_follower_misses_its_leader_in_time() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    let leader = cluster.elect();
    let follower = leader % 3 + 1;
    cluster.pass(HEARTBEAT * 3);
    cluster.cut_off = vec![follower];
    cluster.pass(Duration::from_secs(600));
    cluster.cut_off.clear();
    cluster.pass(HEARTBEAT * 3);
    let begin = cluster.now;
    let mut now = begin;
    let raft = cluster.raft(follower);
    while raft.status().role == Role::Follower && now.since(begin) < ELECTION_TIMEOUT_MAX * 10 {
        now = raft.poll_timeout().unwrap();
        raft.handle_timeout(now);
    }
    let silence = now.since(begin);
    assert!((ELECTION_TIMEOUT_MAX..ELECTION_TIMEOUT_MAX * 2).contains(&(silence + HEARTBEAT)), "{silence:?}");
}

/// Its own time may be almost over when it says that it would vote for another one.
#[test]
fn who_gives_way_waits_no_longer_than_anybody_may() {
    let mut cluster = Cluster::new(&[1, 2, 3], &[]);
    let leader = cluster.elect();
    cluster.cut_off = vec![leader];
    let [first, other] = [leader % 3 + 1, (leader + 1) % 3 + 1];
    let end = cluster.raft(other).pace.election_ticks_end();
    let (now, status) = (cluster.now, cluster.raft(first).status());
    let question = eraftpb::Message {
        msg_type: MessageType::MsgRequestPreVote,
        from: first,
        to: other,
        term: status.term.0 + 1,
        index: status.last.0,
        log_term: status.term.0,
        ..eraftpb::Message::default()
    };
    let voter = cluster.raft(other);
    voter.longest_sync = ELECTION_TIMEOUT_MAX;
    voter.node.raft.election_elapsed = end - 2;
    voter.step(now, Message(question)).unwrap();
    assert_eq!(voter.election_ticks, end - 1);
}
