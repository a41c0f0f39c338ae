//! How a cluster ends, or is kept from it: what users write, what operators order, and what is kept of others that have ended.
//!
//! Owns: the cases. Must never: share code with what it judges. Driven by the test runner.

use super::*;

#[test]
fn an_operator_may_give_up_what_users_have_written_but_not_for_a_cluster_that_was_taken_in() {
    let mut rig = Rig::automatic();
    rig.apply(Command::Put(put("k", "v"))).outcome.unwrap();
    rig.admit(1, Admission::Window).unwrap();
    assert_eq!(rig.change(give_up(1)), Err(Rejection::Entangled));
    assert_eq!(rig.charter().dissolved, None);
    let at = LogIndex(rig.machine.applied().0 + 1);
    assert_eq!(rig.change(give_up(2)), Ok(Outcome::Charter));
    assert_eq!(rig.charter().dissolved, Some(Dissolution { winner: WINNER, at, ordered: true }));
    assert_eq!(rig.apply(Command::Put(put("k", "w"))).outcome, Err(Rejection::Dissolved));
    assert_eq!(rig.admit(2, Admission::Window), Err(Rejection::Dissolved), "nor is the winner taken in now");
    for again in [give_up(3), CharterCommand::Dissolve { winner: WINNER }] {
        assert_eq!(rig.change(again), Ok(Outcome::Charter), "it may be said again");
    }
    let other = CharterCommand::Yield { winner: ClusterId(5), witness: key(3), asked: LogIndex(9) };
    assert_eq!(rig.change(other), Err(Rejection::Dissolved));
    assert_eq!(rig.charter().dissolved, Some(Dissolution { winner: WINNER, at, ordered: true }));
    rig.check_digest();
}

/// Both operators order it at the same time, and entries are committed in any order: each cluster ends only after the other one has taken its members in.
#[test]
fn two_clusters_never_end_for_each_other() {
    const STEPS: u32 = 4;
    let mut endings = 0;
    for order in 0..4_usize.pow(STEPS) {
        let mut rigs = [Rig::automatic(), Rig::automatic()];
        let (mut took_in, mut ended) = ([false; 2], [false; 2]);
        for step in (0..STEPS).map(|n| order / 4_usize.pow(n) % 4) {
            let (side, other, node) = (step % 2, 1 - step % 2, if step % 2 == 0 { 1 } else { 2 });
            if step < 2 {
                took_in[side] |= rigs[side].admit(node, Admission::Window).is_ok();
            } else if took_in[other] {
                ended[side] |= rigs[side].change(give_up(node)).is_ok();
            }
        }
        assert_ne!(ended, [true, true], "{order}");
        endings += u32::from(ended != [false, false]);
    }
    assert!(endings > 0);
}

/// Each with whether it ends the time in which the cluster may dissolve.
fn first_commands() -> Vec<(Command, bool)> {
    let alarm = Alarm { member: FOUNDER, kind: AlarmKind::NoSpace };
    let lease = |command| Command::Lease(command);
    let member = |command| Command::Member(command);
    let charter = |command| Command::Charter(command);
    vec![
        (Command::Put(put("k", "v")), true),
        (Command::DeleteRange(DeleteRange { range: interval("k", ""), prev_kv: false }), true),
        (Command::Txn(Txn::default()), true),
        (Command::Compact { revision: 1 }, true),
        (lease(LeaseCommand::Grant { id: LeaseId(1), ttl: 60 }), true),
        (
            member(MemberCommand::Add {
                peer_urls: vec![url(1)],
                votes: true,
                strict: false,
                learners_max: 1,
            }),
            true,
        ),
        (member(MemberCommand::Update { id: FOUNDER, peer_urls: vec![url(1)] }), true),
        (remove(FOUNDER), true),
        (charter(CharterCommand::OpenWindow { seconds: 600 }), true),
        (charter(CharterCommand::Seal), true),
        (charter(approve(1)), true),
        (charter(create(1, 600)), true),
        (charter(issue(1)), true),
        // Turned down.
        (Command::Compact { revision: 99 }, false),
        (lease(LeaseCommand::Revoke { id: LeaseId(1) }), false),
        (remove(MemberId(99)), false),
        (member(MemberCommand::Promote { id: FOUNDER, strict: false }), false),
        (charter(CharterCommand::RevokeToken { id: token(1) }), false),
        (charter(CharterCommand::RevokeClient { key: ClientKey([1; 32]) }), false),
        (charter(CharterCommand::RenewClient { key: ClientKey([1; 32]) }), false),
        // Nobody's wish.
        (Command::Publish(MemberAttributes { member: FOUNDER, ..MemberAttributes::default() }), false),
        (Command::Alarm { action: AlarmAction::QuotaReached, alarm }, false),
        (lease(LeaseCommand::Expire { term: TERM, leases: Vec::new() }), false),
        (lease(LeaseCommand::Checkpoint { term: TERM, sequence: 1, leases: Vec::new() }), false),
        (member(MemberCommand::Bind { id: FOUNDER, key: key(9) }), false),
        (charter(admit(1, Admission::Window)), false),
        (charter(elapsed(60)), false),
        (charter(CharterCommand::Establish(authority(b"one"))), false),
        (charter(CharterCommand::Bury(tombstone(1, 1))), false),
    ]
}

#[test]
fn the_first_wish_of_a_user_that_comes_true_commits_the_cluster() {
    for (command, commits) in first_commands() {
        let mut rig = Rig::automatic();
        rig.apply(command.clone()).outcome.ok();
        assert_eq!(rig.charter().committed, commits, "{command:?}");
        let dissolved = rig.change(CharterCommand::Dissolve { winner: WINNER });
        let expected = if commits { Err(Rejection::Committed) } else { Ok(Outcome::Charter) };
        assert_eq!(dissolved, expected, "{command:?}");
        assert_eq!(rig.charter().dissolved.is_some(), !commits);
        rig.check_digest();
    }
}

#[test]
fn what_became_of_other_clusters_is_kept_once_and_the_latest_of_it() {
    let mut rig = Rig::automatic();
    let bury = |rig: &mut Rig, tombstone| rig.change(CharterCommand::Bury(tombstone)).unwrap();
    for signer in [1, 2, 1] {
        bury(&mut rig, tombstone(1, signer));
    }
    let other = Tombstone { at: LogIndex(9), ..tombstone(1, 2) };
    bury(&mut rig, other);
    assert_eq!(rig.charter().buried, [tombstone(1, 1), tombstone(1, 2)], "the first word of each counts");
    for cluster in 2..=64 {
        bury(&mut rig, tombstone(cluster, 1));
    }
    let buried = rig.charter().buried.clone();
    assert_eq!((buried.len(), buried[0], buried[63]), (64, tombstone(1, 2), tombstone(64, 1)));
    assert!(!rig.charter().committed);
    rig.rotate();
    rig.fold();
    rig.reopen();
    assert_eq!(rig.charter().buried, buried);
}

#[test]
fn nothing_takes_effect_in_a_cluster_that_has_dissolved() {
    let mut rig = Rig::automatic();
    let dissolve = |winner| CharterCommand::Dissolve { winner };
    rig.change(dissolve(WINNER)).unwrap();
    let at = rig.machine.applied();
    let (view, keys) = (rig.view(), rig.keys());
    for (command, _) in first_commands() {
        assert_eq!(rig.apply(command.clone()).outcome, Err(Rejection::Dissolved), "{command:?}");
    }
    assert_eq!(rig.change(dissolve(WINNER)), Ok(Outcome::Charter), "it may be said again");
    assert_eq!(rig.change(dissolve(ClusterId(5))), Err(Rejection::Dissolved));
    assert_eq!(rig.charter().dissolved, Some(Dissolution { winner: WINNER, at, ordered: false }));
    assert_eq!((rig.view().facts(), rig.view().revision()), (view.facts(), view.revision()));
    assert_eq!(rig.keys(), keys);
    rig.rotate();
    rig.fold();
    rig.reopen();
    assert_eq!(rig.apply(Command::Put(put("k", "v"))).outcome, Err(Rejection::Dissolved), "after a restart");
}
