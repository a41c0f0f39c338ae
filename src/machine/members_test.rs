//! The rules for members, one by one (API reference, section 4).

use super::super::rig::{Entry, FOUNDER, Rig};
use super::*;
use crate::command::Command;
use crate::ids::PublicKey;

fn urls(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("http://{name}:2380")).collect()
}

fn add(name: &str, votes: bool) -> MemberCommand {
    MemberCommand::Add { peer_urls: urls(&[name]), votes, strict: true, learners_max: 1 }
}

impl Rig {
    fn member(&mut self, command: MemberCommand) -> Result<MemberId, Rejection> {
        self.apply(Command::Member(command)).outcome.map(|outcome| match outcome {
            Outcome::Member(id) => id,
            other => panic!("{other:?}"),
        })
    }

    /// The member says that it is there.
    fn starts(&mut self, member: MemberId) {
        let name = format!("{member}");
        let attributes = MemberAttributes { member, name, ..MemberAttributes::default() };
        self.apply(Command::Publish(attributes));
    }

    fn found(&self, id: MemberId) -> Member {
        self.view().facts().members.iter().find(|member| member.id() == id).cloned().expect("a member")
    }
}

/// What a cluster may be given up for: a place whose node has never come has no state that could be of no use.
#[test]
fn who_has_never_come_does_not_say_what_a_cluster_understands() {
    let mut rig = Rig::new();
    let publish = |rig: &mut Rig, member, newest| {
        let (understands, incarnation) = (CommandVersion(newest), 1);
        let attributes = MemberAttributes { member, incarnation, understands, ..MemberAttributes::default() };
        assert_eq!(rig.apply(Command::Publish(attributes)).outcome, Ok(Outcome::Publish));
    };
    rig.member(MemberCommand::Bind { id: FOUNDER, key: PublicKey([1; 32]) }).unwrap();
    let understood = |rig: &Rig| rig.view().facts().understood().0;
    assert_eq!(understood(&rig), 1, "it has not said so yet");
    publish(&mut rig, FOUNDER, 9);
    let id = rig.member(add("b", false)).unwrap();
    rig.member(MemberCommand::Bind { id, key: PublicKey([2; 32]) }).unwrap();
    assert_eq!(understood(&rig), 9);
    publish(&mut rig, id, 5);
    assert_eq!(understood(&rig), 5);
}

/// Whoever could not read an entry would have to stop.
#[test]
fn commands_are_raised_to_what_everybody_with_a_key_understands_and_never_lowered() {
    let mut rig = Rig::new();
    let publish = |rig: &mut Rig, member, newest| {
        let understands = CommandVersion(newest);
        let attributes = MemberAttributes { member, understands, ..MemberAttributes::default() };
        assert_eq!(rig.apply(Command::Publish(attributes)).outcome, Ok(Outcome::Publish));
    };
    let raise = |rig: &mut Rig, to| rig.apply(Command::Raise(CommandVersion(to))).outcome;
    let (raised, refused) = (|to| Ok(Outcome::Raise(CommandVersion(to))), Err(Rejection::NotCapable));
    publish(&mut rig, FOUNDER, 9);
    assert_eq!(raise(&mut rig, 2), refused, "nobody has come by a key");
    rig.member(MemberCommand::Bind { id: FOUNDER, key: PublicKey([1; 32]) }).unwrap();
    assert_eq!(raise(&mut rig, 1), refused, "it is in use");
    assert_eq!(raise(&mut rig, 3), raised(3));
    assert_eq!((raise(&mut rig, 3), raise(&mut rig, 2)), (refused.clone(), refused.clone()));
    // A place keeps nobody waiting before a node has it, and then until that says what it is.
    let id = rig.member(add("b", false)).unwrap();
    assert_eq!(raise(&mut rig, 4), raised(4));
    rig.member(MemberCommand::Bind { id, key: PublicKey([2; 32]) }).unwrap();
    assert_eq!(raise(&mut rig, 5), refused);
    publish(&mut rig, id, 5);
    assert_eq!((raise(&mut rig, 6), raise(&mut rig, 5)), (refused.clone(), raised(5)));
    // Back to an older build: what is in use stays so.
    publish(&mut rig, id, 4);
    assert_eq!((raise(&mut rig, 6), rig.view().facts().commands), (refused.clone(), CommandVersion(5)));
    // Who was removed still has a part as long as raft's configuration names it.
    let both = ConfState { voters: vec![FOUNDER], learners: vec![id], ..ConfState::default() };
    rig.enter(Entry::Conf(both.clone()));
    rig.member(MemberCommand::Remove { id, strict: false }).unwrap();
    assert_eq!(raise(&mut rig, 6), refused);
    rig.enter(Entry::Conf(ConfState { learners: Vec::new(), ..both }));
    assert_eq!(raise(&mut rig, 6), raised(6));
    rig.rotate();
    rig.fold();
    rig.reopen();
    assert_eq!(rig.view().facts().commands, CommandVersion(6));
}

#[test]
fn a_place_is_kept_bound_once_and_filled() {
    let mut rig = Rig::new();
    rig.starts(FOUNDER);
    let id = rig.member(add("b", true)).unwrap();
    assert!(id != FOUNDER && id != MemberId(0));
    assert_eq!((rig.found(id).key, rig.found(id).votes), (None, true));
    let (key, other) = (PublicKey([7; 32]), PublicKey([8; 32]));
    let bind = |key| MemberCommand::Bind { id, key };
    assert_eq!(rig.member(bind(key)), Ok(id));
    assert_eq!(rig.member(bind(key)), Ok(id), "again");
    assert_eq!(rig.member(bind(other)), Err(Rejection::PlaceTaken));
    rig.starts(id);
    let there = rig.found(id);
    assert_eq!(
        (there.key, &there.attributes.peer_urls),
        (Some(key), &urls(&["b"])),
        "it said nothing of where it is"
    );
    let second = rig.member(add("c", true)).unwrap();
    assert_eq!(
        rig.member(MemberCommand::Bind { id: second, key }),
        Err(Rejection::PlaceTaken),
        "it is somebody"
    );
    rig.rotate();
    rig.fold();
    rig.reopen();
    assert_eq!(rig.found(id), there);
}

#[test]
fn urls_belong_to_one_member() {
    let mut rig = Rig::new();
    rig.starts(FOUNDER);
    let id = rig.member(add("b", false)).unwrap();
    assert_eq!(rig.member(add("b", true)), Err(Rejection::PeerUrlExists));
    let update = |id, name| MemberCommand::Update { id, peer_urls: urls(&[name]) };
    assert_eq!(rig.member(update(FOUNDER, "b")), Err(Rejection::PeerUrlExists));
    assert_eq!(rig.member(update(id, "b")), Ok(id), "its own");
    assert_eq!(rig.member(update(id, "d")), Ok(id));
    assert_eq!(rig.found(id).attributes.peer_urls, urls(&["d"]));
    rig.starts(id);
    assert_eq!(rig.found(id).attributes.peer_urls, urls(&["d"]), "what an operator said stays");
    assert_eq!(rig.member(update(MemberId(5), "x")), Err(Rejection::MemberNotFound));
}

#[test]
fn learners_are_few_and_are_promoted_once() {
    let mut rig = Rig::new();
    rig.starts(FOUNDER);
    let id = rig.member(add("b", false)).unwrap();
    assert_eq!(rig.member(add("c", false)), Err(Rejection::TooManyLearners));
    assert_eq!(rig.member(MemberCommand::Promote { id: FOUNDER, strict: true }), Err(Rejection::NotLearner));
    assert_eq!(rig.member(MemberCommand::Promote { id, strict: true }), Ok(id));
    assert_eq!(rig.member(MemberCommand::Promote { id, strict: true }), Err(Rejection::NotLearner));
    assert_eq!(
        rig.member(MemberCommand::Promote { id: MemberId(5), strict: true }),
        Err(Rejection::MemberNotFound)
    );
    assert!(rig.found(id).votes);
}

/// etcd made voters of learners whose URLs were changed.
#[test]
fn new_urls_make_no_voter_of_a_learner_and_take_no_vote() {
    let mut rig = Rig::new();
    rig.starts(FOUNDER);
    let learner = rig.member(add("b", false)).unwrap();
    for (id, votes) in [(learner, false), (FOUNDER, true)] {
        let name = format!("of {id}");
        assert_eq!(rig.member(MemberCommand::Update { id, peer_urls: urls(&[&name]) }), Ok(id));
        assert_eq!(rig.found(id).votes, votes);
        assert_eq!(rig.found(id).attributes.peer_urls, urls(&[&name]));
    }
}

/// What etcd's strict reconfiguration check allows and refuses.
#[test]
fn a_majority_must_have_started() {
    let mut rig = Rig::new();
    rig.starts(FOUNDER);
    let second = rig.member(add("b", true)).expect("from one to two");
    assert_eq!(rig.member(add("c", true)), Err(Rejection::NotEnoughStarted), "one of three would have");
    let lax = MemberCommand::Add { peer_urls: urls(&["c"]), votes: true, strict: false, learners_max: 1 };
    rig.starts(second);
    let third = rig.member(lax).unwrap();
    assert_eq!(
        rig.member(MemberCommand::Remove { id: second, strict: true }),
        Err(Rejection::NotEnoughStarted)
    );
    assert_eq!(rig.member(MemberCommand::Remove { id: third, strict: true }), Ok(third), "it never started");
    assert_eq!(rig.member(MemberCommand::Remove { id: third, strict: true }), Err(Rejection::MemberNotFound));
    assert_eq!(rig.member(MemberCommand::Remove { id: second, strict: true }), Ok(second));
}

#[test]
fn votes_move_as_a_whole_or_not_at_all() {
    let mut rig = Rig::new();
    rig.starts(FOUNDER);
    let mut learner = |name| {
        let (peer_urls, learners_max) = (urls(&[name]), 5);
        rig.member(MemberCommand::Add { peer_urls, votes: false, strict: false, learners_max }).unwrap()
    };
    let (b, c, d) = (learner("b"), learner("c"), learner("d"));
    let revote = |promote: &[MemberId], demote: &[MemberId]| MemberCommand::Revote {
        promote: promote.to_vec(),
        demote: demote.to_vec(),
    };
    let gone = MemberId(5);
    for (command, why) in [
        (revote(&[b, gone], &[]), Rejection::MemberNotFound),
        (revote(&[b], &[gone]), Rejection::MemberNotFound),
        (revote(&[b], &[c]), Rejection::MemberNotFound),
        (revote(&[], &[FOUNDER]), Rejection::NotEnoughStarted),
        (revote(&[b], &[FOUNDER, b]), Rejection::MemberNotFound),
        (revote(&[], &[]), Rejection::MemberNotFound),
    ] {
        let before = rig.view().facts().members.clone();
        assert_eq!(rig.member(command.clone()), Err(why), "{command:?}");
        assert_eq!(rig.view().facts().members, before, "{command:?}");
    }
    let mut votes_after = |command, expected: Result<MemberId, Rejection>, voters: &[MemberId]| {
        let digest = rig.view().digest();
        assert_eq!(rig.member(command), expected);
        assert_ne!(rig.view().digest(), digest);
        let mut sorted = voters.to_vec();
        sorted.sort_unstable();
        let facts = rig.view().facts().clone();
        assert_eq!(super::voters(&facts).map(Member::id).collect::<Vec<_>>(), sorted);
    };
    votes_after(revote(&[b, c], &[]), Ok(b), &[FOUNDER, b, c]);
    votes_after(revote(&[b, c], &[]), Ok(b), &[FOUNDER, b, c]);
    votes_after(revote(&[d], &[c]), Ok(d), &[FOUNDER, b, d]);
    votes_after(revote(&[c], &[c]), Err(Rejection::MemberNotFound), &[FOUNDER, b, d]);
    votes_after(revote(&[d], &[c]), Err(Rejection::MemberNotFound), &[FOUNDER, b, d]);
}

#[test]
fn the_removed_are_remembered_in_bounded_number_and_ids_do_not_come_back() {
    let mut rig = Rig::new();
    rig.starts(FOUNDER);
    let mut seen = std::collections::BTreeSet::from([FOUNDER]);
    for n in 0..REMOVED_MEMBERS_MAX + 3 {
        let id = rig.member(add("b", false)).unwrap();
        assert!(seen.insert(id), "{id} came twice");
        if n % 2 == 0 {
            rig.member(MemberCommand::Bind { id, key: PublicKey([u8::try_from(n).unwrap(); 32]) }).unwrap();
        }
        rig.member(MemberCommand::Remove { id, strict: true }).unwrap();
    }
    let removed = rig.view().facts().removed.clone();
    assert_eq!(removed.len(), REMOVED_MEMBERS_MAX);
    let keys = removed.iter().filter_map(|(_, key)| *key).map(|key| usize::from(key.0[0]));
    assert!(keys.eq((0..REMOVED_MEMBERS_MAX + 3).step_by(2)), "who is barred stays so: {removed:?}");
    assert_eq!(removed[2].1, Some(PublicKey([4; 32])));
    assert!(removed.iter().any(|(_, key)| key.is_none()), "of the others the oldest are gone");
}

#[test]
fn a_cluster_has_formed_once_all_for_whom_it_was_founded_vote() {
    let mut rig = Rig::new();
    rig.starts(FOUNDER);
    let id = rig.member(add("b", true)).unwrap();
    rig.machine.tip.facts_mut().forming = true;
    let conf = |voters: &[MemberId], outgoing: &[MemberId]| ConfState {
        voters: voters.to_vec(),
        voters_outgoing: outgoing.to_vec(),
        ..ConfState::default()
    };
    for (conf, forming) in [
        (conf(&[FOUNDER], &[]), true),
        (conf(&[FOUNDER, id], &[FOUNDER]), true),
        (conf(&[FOUNDER, id], &[]), false),
        (conf(&[FOUNDER], &[]), false),
    ] {
        rig.machine.follow_configuration(conf);
        assert_eq!(rig.view().facts().forming, forming);
    }
}
