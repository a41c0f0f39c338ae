//! Members that were let in and do not come: who is waited for, for how long, and what being forgotten changes.
//!
//! Owns: the cases. Must never: share code with what it judges. Driven by the test runner.

use super::*;

/// Asked for by a member of another cluster.
fn absorb(n: u8, of: u64) -> CharterCommand {
    let CharterCommand::Admit { key, name, peer_urls, by, .. } = admit(n, Admission::Window) else {
        panic!()
    };
    CharterCommand::Admit { key, name, peer_urls, by, run: Incarnation(0), of: Some(ClusterId(of)) }
}

fn come(rig: &mut Rig, id: MemberId) {
    let attributes = MemberAttributes { member: id, incarnation: 1, boot_nonce: 1, ..Default::default() };
    rig.apply(Command::Publish(attributes)).outcome.unwrap();
}

fn forget(member: MemberId) -> CharterCommand {
    CharterCommand::Forget { member }
}

fn is_member(rig: &Rig, id: MemberId) -> bool {
    rig.view().facts().members.iter().any(|member| member.id() == id)
}

const TOO_EARLY: Result<Outcome, Rejection> = Err(Rejection::MemberNotFound);

#[test]
fn who_is_let_in_and_never_comes_is_forgotten_after_its_time_and_may_come_anew() {
    let mut rig = Rig::automatic();
    for (n, by) in [(1, Admission::Window), (2, Admission::FleetKey)] {
        let begins = rig.charter().elapsed;
        let id = rig.admit(n, by).unwrap();
        rig.change(elapsed(begins + AWAITED_SECONDS - 1)).unwrap();
        assert_eq!(rig.change(forget(id)), TOO_EARLY);
        rig.change(elapsed(begins + AWAITED_SECONDS)).unwrap();
        assert_eq!(rig.change(forget(id)), Ok(Outcome::Charter));
        assert!(!is_member(&rig, id) && rig.charter().awaited.iter().all(|awaited| awaited.member != id));
        assert_eq!(rig.charter().forgot, rig.machine.applied());
        assert_eq!(rig.change(forget(id)), TOO_EARLY, "once");
        let facts = rig.view().facts().clone();
        assert_eq!(
            facts.removed.last(),
            Some(&(id, None)),
            "the id is gone for good, and the key is not barred"
        );
        assert_eq!(facts.charter.exposed, None, "who never came has learned nothing");
        rig.change(CharterCommand::OpenWindow { seconds: 600 }).unwrap();
        assert_ne!(rig.admit(n, by).unwrap(), id, "as somebody new");
    }
    rig.check_digest();
    let before = rig.charter();
    rig.rotate();
    rig.fold();
    rig.reopen();
    assert_eq!(rig.charter(), before);
}

#[test]
fn who_came_has_a_vote_or_was_asked_for_by_an_operator_is_never_forgotten() {
    let mut rig = Rig::automatic();
    rig.change(create(3, 600)).unwrap();
    rig.change(approve(4)).unwrap();
    let add = MemberCommand::Add { peer_urls: vec![url(5)], votes: false, strict: false, learners_max: 9 };
    rig.apply(Command::Member(add)).outcome.unwrap();
    let by = [
        Admission::Window,
        Admission::FleetKey,
        Admission::Token(token(3)),
        Admission::Approval,
        Admission::Window,
    ];
    let ids: Vec<MemberId> = (1..).zip(by).map(|(n, by)| rig.admit(n, by).unwrap()).collect();
    let vote = |promote: &[MemberId]| {
        Command::Member(MemberCommand::Revote { promote: promote.to_vec(), demote: Vec::new() })
    };
    come(&mut rig, ids[0]);
    rig.apply(vote(&ids[1..2])).outcome.unwrap();
    rig.change(elapsed(2 * AWAITED_SECONDS)).unwrap();
    for id in &ids {
        assert_eq!(rig.change(forget(*id)), TOO_EARLY);
    }
    assert_eq!(rig.change(forget(FOUNDER)), TOO_EARLY);
    let waited: Vec<MemberId> = rig.charter().awaited.iter().map(|awaited| awaited.member).collect();
    assert_eq!(waited, [ids[1]], "one by a vote alone");
    rig.apply(remove(ids[1])).outcome.unwrap();
    assert!(rig.charter().awaited.is_empty());
    // It was a member, and comes back as another one.
    let again = rig.change(admit_in(1, Admission::Window, 9)).unwrap();
    let Outcome::Member(again) = again else { panic!("{again:?}") };
    assert_ne!(again, ids[0]);
    rig.change(elapsed(4 * AWAITED_SECONDS)).unwrap();
    assert_eq!(rig.change(forget(again)), TOO_EARLY);
    rig.check_digest();
}

/// It is just coming: it was switched off while it was set up, say, and has asked again.
#[test]
fn who_asks_again_has_all_its_time_again() {
    let mut rig = Rig::automatic();
    let id = rig.admit(1, Admission::Window).unwrap();
    rig.change(elapsed(AWAITED_SECONDS - 1)).unwrap();
    assert_eq!(rig.admit(1, Admission::Window), Ok(id));
    rig.change(elapsed(2 * AWAITED_SECONDS - 2)).unwrap();
    assert_eq!(rig.change(forget(id)), TOO_EARLY);
    rig.change(elapsed(2 * AWAITED_SECONDS - 1)).unwrap();
    assert_eq!(rig.admit(1, Admission::Window), Ok(id), "even then");
    assert_eq!(rig.change(forget(id)), TOO_EARLY);
    rig.check_digest();
}

/// A member of a cluster that has ended may be away for months, and comes by the word that its cluster has left of that.
#[test]
fn the_members_of_a_cluster_that_has_ended_for_this_one_are_waited_for_and_those_of_others_are_not() {
    let mut rig = Rig::automatic();
    let mut ids = Vec::new();
    for (n, of) in [(1, 1), (2, 1), (3, 2)] {
        let Ok(Outcome::Member(id)) = rig.change(absorb(n, of)) else { panic!("it is let in") };
        ids.push(id);
    }
    rig.change(CharterCommand::Bury(tombstone(1, 1))).unwrap();
    rig.change(elapsed(AWAITED_SECONDS)).unwrap();
    let outcomes: Vec<bool> = ids.iter().map(|id| rig.change(forget(*id)).is_ok()).collect();
    assert_eq!(outcomes, [false, false, true]);
    rig.check_digest();
}

#[test]
fn who_was_forgotten_keeps_no_cluster_from_yielding_but_to_what_was_asked_before() {
    let mut rig = Rig::automatic();
    let Ok(Outcome::Member(id)) = rig.change(absorb(1, 4)) else { panic!("it is let in") };
    let yields = |asked| CharterCommand::Yield { winner: WINNER, witness: key(1), asked };
    let asked = rig.machine.applied();
    assert_eq!(rig.change(yields(asked)), Err(Rejection::Entangled));
    rig.change(elapsed(AWAITED_SECONDS)).unwrap();
    rig.change(forget(id)).unwrap();
    assert_eq!(rig.change(yields(asked)), Err(Rejection::Entangled), "its cluster may have ended since");
    assert_eq!(rig.change(yields(rig.charter().forgot)), Ok(Outcome::Charter));
}

/// What one of two clusters does: it
#[derive(Clone, Copy)]
enum Deed {
    /// has the other one take its members in, on an order to give itself up for it,
    Ask,
    /// carries the order out, however much later,
    End,
    /// forgets whom it has taken in.
    Forget,
}

proptest! {
    /// As without forgetting: however late an order comes to its log, two clusters never end for each other.
    #[test]
    fn two_clusters_that_forget_never_end_for_each_other(
        deeds in vec((0..3_usize, 0..2_usize), 1..24)
    ) {
        let (mut rigs, mut asked, mut ended) = ([Rig::automatic(), Rig::automatic()], [None; 2], [false; 2]);
        let node = |side: usize| if side == 0 { 1 } else { 2 };
        for (kind, side) in deeds {
            let other = 1 - side;
            match [Deed::Ask, Deed::End, Deed::Forget][kind] {
                Deed::Ask => {
                    let at = rigs[side].machine.applied();
                    rigs[other].change(CharterCommand::OpenWindow { seconds: 600 }).ok();
                    if rigs[other].change(absorb(node(side), side as u64)).is_ok() {
                        asked[side] = Some(at);
                    }
                }
                Deed::End => {
                    if let Some(asked) = asked[side] {
                        let witness = key(node(other));
                        let order = CharterCommand::Yield { winner: WINNER, witness, asked };
                        ended[side] |= rigs[side].change(order).is_ok();
                    }
                }
                Deed::Forget => {
                    let to = rigs[side].charter().elapsed + AWAITED_SECONDS;
                    rigs[side].change(elapsed(to)).ok();
                    for awaited in rigs[side].charter().awaited.clone() {
                        rigs[side].change(forget(awaited.member)).ok();
                    }
                }
            }
            assert_ne!(ended, [true, true]);
        }
    }
}
