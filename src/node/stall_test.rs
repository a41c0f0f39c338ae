//! A disk that answers late, or never.

use super::*;

fn told_of_disk(trio: &Trio, at: usize) -> Vec<(Duration, Option<MemberId>)> {
    let told = trio.others[at].iter().filter_map(|output| match output {
        CoreOutput::DiskStuck { waited, heir } => Some((*waited, *heir)),
        _ => None,
    });
    told.collect()
}

/// A pause of this member's process: it hears nothing, and then what came meanwhile.
fn pause(trio: &mut Trio, at: usize, time: Duration) {
    trio.now = trio.now + time;
    trio.cores[at].handle_timeout(trio.now);
}

/// A leader whose disk answers nothing has the others go on without it, once, and stays out of their way until it has an answer.
#[test]
fn a_leader_hands_over_when_its_disk_is_stuck() {
    let (mut trio, old) = Trio::led();
    let term = trio.cores[old].status().term;
    trio.stuck = Some(old);
    trio.propose(old, 1, "a");
    trio.pass(DISK_STUCK.saturating_sub(HEARTBEAT));
    assert_eq!((trio.cores[old].status().role, trio.cores[old].status().term), (Role::Leader, term));
    assert!(told_of_disk(&trio, old).is_empty());
    trio.pass(HEARTBEAT * 3);
    let new = (0..3).find(|at| trio.cores[*at].status().role == Role::Leader).unwrap();
    let other = 3 - old - new;
    assert_ne!(new, old);
    let [(waited, Some(heir))] = told_of_disk(&trio, old)[..] else {
        panic!("{:?}", told_of_disk(&trio, old))
    };
    assert!(waited >= DISK_STUCK && usize::try_from(heir.0).unwrap() == new + 1, "{waited:?} {heir}");
    let term = trio.cores[new].status().term;
    for seq in 2..60 {
        trio.propose(new, seq, "b");
        trio.pass(ELECTION_TIMEOUT);
        assert_eq!((trio.cores[new].status().role, trio.cores[new].status().term), (Role::Leader, term));
    }
    assert_eq!((trio.applied[other].len(), trio.applied[old].len()), (59, 0));
    assert_eq!(told_of_disk(&trio, old).len(), 1);

    // Where there is no other leader either, it does not come forward before its disk has answered.
    trio.cut_off = Some(new);
    for _ in 0..20 {
        trio.pass(ELECTION_TIMEOUT);
        let status = trio.cores[old].status();
        assert!(status.role != Role::Leader && status.term <= trio.cores[other].status().term, "{status:?}");
    }
    while let Some(last) = trio.unsynced.pop() {
        trio.unsynced.clear();
        trio.sync(last);
    }
    trio.stuck = None;
    let next = trio.elect();
    trio.propose(next, 60, "c");
    trio.pass(ELECTION_TIMEOUT);
    assert_eq!((trio.applied[old].len(), trio.applied[other].len()), (60, 60));
}

/// A disk may be as slow as it likes, as long as it gets on.
#[test]
fn a_slow_disk_costs_no_leader() {
    let (mut trio, leader) = Trio::led();
    let term = trio.cores[leader].status().term;
    trio.stuck = Some(leader);
    trio.propose(leader, 0, "a");
    for seq in 1..20 {
        trio.propose(leader, seq, "b");
        trio.pass(DISK_STUCK.saturating_sub(HEARTBEAT));
        let oldest = trio.unsynced.remove(0);
        trio.sync(oldest);
        assert!(!trio.unsynced.is_empty(), "there is always more to write");
        assert_eq!(
            (trio.cores[leader].status().role, trio.cores[leader].status().term),
            (Role::Leader, term)
        );
    }
    assert!(told_of_disk(&trio, leader).is_empty());
}

/// Nobody is asked to lead who could not without this leader, and then one is.
#[test]
fn a_leader_with_a_stuck_disk_leads_on_where_the_others_cannot() {
    let (mut trio, leader) = Trio::led();
    let term = trio.cores[leader].status().term;
    let silent = (leader + 1) % 3;
    trio.cut_off = Some(silent);
    trio.stuck = Some(leader);
    trio.propose(leader, 1, "a");
    trio.pass(DISK_STUCK * 2);
    assert_eq!((trio.cores[leader].status().role, trio.cores[leader].status().term), (Role::Leader, term));
    let told = told_of_disk(&trio, leader);
    assert!(matches!(told[..], [(waited, None)] if waited < DISK_STUCK + HEARTBEAT), "{told:?}");
    trio.cut_off = None;
    trio.pass(ELECTION_TIMEOUT * 3);
    assert_ne!(trio.cores[leader].status().role, Role::Leader);
    assert!(matches!(told_of_disk(&trio, leader)[..], [_, (_, Some(_))]));
}

/// After a pause of the whole process the disk's answer is there, and only not heard yet.
#[test]
fn a_pause_makes_no_disk_stuck() {
    let (mut trio, leader) = Trio::led();
    trio.stuck = Some(leader);
    trio.propose(leader, 1, "a");
    pause(&mut trio, leader, DISK_STUCK * 2);
    trio.settle();
    assert!(told_of_disk(&trio, leader).is_empty() && !trio.unsynced.is_empty());
}

/// However often the process pauses, what its disk has not answered between the pauses adds up, and is told of once.
#[test]
fn pauses_do_not_let_a_stuck_disk_off() {
    let (mut trio, leader) = Trio::led();
    trio.cut_off = Some((leader + 1) % 3);
    trio.stuck = Some(leader);
    trio.propose(leader, 1, "a");
    let gap = Pace::default().election_min * 3;
    for _ in 0..4 {
        trio.pass((DISK_STUCK / 4).saturating_sub(HEARTBEAT * 3));
        assert!(told_of_disk(&trio, leader).is_empty());
        pause(&mut trio, leader, gap);
        trio.settle();
    }
    trio.pass(HEARTBEAT * 16);
    let told = told_of_disk(&trio, leader);
    assert!(matches!(told[..], [(waited, None)] if waited < DISK_STUCK + HEARTBEAT), "{told:?}");
    pause(&mut trio, leader, gap);
    trio.pass(HEARTBEAT);
    assert_eq!(told_of_disk(&trio, leader).len(), 1);
}

/// Who votes alone has nobody to hand on to, and its operator is told all the same.
#[test]
fn a_lone_voter_tells_of_a_stuck_disk() {
    let begin = Position { index: LogIndex(1), term: Term(1) };
    let start = Start {
        member: MemberId(1),
        boot_nonce: 1,
        applied: begin,
        conf_state: ConfState { voters: vec![MemberId(1)], ..ConfState::default() },
        hard_state: HardState::default(),
        log_start: begin,
        entries: Vec::new(),
        pace: Pace::default(),
        suspect: false,
        removed: false,
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let mut core = Core::new(Instant(0), Consensus::start(Instant(0), start, Prng::new(1), &logger).unwrap());
    while core.poll_output().is_some() {}
    let at = core.poll_timeout().unwrap();
    assert_eq!(at, Instant(0) + DISK_STUCK);
    core.handle_timeout(at);
    let outputs: Vec<CoreOutput> = std::iter::from_fn(|| core.poll_output()).collect();
    assert!(matches!(outputs[..], [CoreOutput::DiskStuck { waited: DISK_STUCK, heir: None }]), "{outputs:?}");
    assert_eq!(core.poll_timeout(), None);
}
