//! Nodes that were told of each other, and what they make of it.

use super::*;
use crate::formation::identity::test_key;
use crate::formation::message::View;
use crate::ids::Incarnation;

const FIRST: CommandVersion = CommandVersion::FIRST;

fn named(name: &str) -> Named {
    Named { name: name.into(), peer_urls: vec![format!("http://{name}:2380")] }
}

fn meeting(own: &str, names: &[&str]) -> Meeting {
    Meeting::new(own, "token", names.iter().map(|name| named(name)).collect(), false).unwrap()
}

fn key(seed: u8) -> PublicKey {
    PublicKey(*test_key(seed).public())
}

fn fresh(name: &str) -> Answer {
    Answer::Fresh { name: name.into() }
}

#[test]
fn the_lowest_name_founds_once_all_are_fresh_and_nobody_else_does() {
    let names = ["b", "a", "c"];
    let mut lowest = meeting("a", &names);
    assert_eq!(lowest.heard("b", key(2), fresh("b")), Ok(None));
    let verdict = lowest.heard("c", key(3), fresh("c")).unwrap();
    assert_eq!(verdict, Some(Verdict::Found(vec![(named("b"), key(2)), (named("c"), key(3))])));
    lowest.begin_round();
    assert_eq!(lowest.verdict(), None, "what was said before counts no more");
    let mut other = meeting("b", &names);
    assert_eq!(other.heard("a", key(1), fresh("a")), Ok(None));
    assert_eq!(other.heard("c", key(3), fresh("c")), Ok(None), "its name is not the lowest");
    assert_eq!(meeting("a", &["a"]).verdict(), Some(Verdict::Found(vec![])));
    assert!(Meeting::new("d", "token", vec![named("a")], false).is_none(), "it is not among them");
}

#[test]
fn who_was_told_something_else_is_refused() {
    let a = meeting("a", &["a", "b"]);
    assert_eq!(a.answer(&meeting("b", &["b", "a"]).question()), fresh("a"), "the order does not matter");
    for other in [
        meeting("b", &["a", "b", "c"]),
        Meeting::new("b", "other", vec![named("a"), named("b")], false).unwrap(),
    ] {
        assert!(matches!(a.answer(&other.question()), Answer::Refused(_)));
    }
    let joins = Meeting::new("b", "token", vec![named("a"), named("b")], true).unwrap();
    assert!(
        matches!(joins.answer(&a.question()), Answer::Wait(_)),
        "nobody counts on one that does not found"
    );
}

#[test]
fn nodes_in_each_others_place_are_named() {
    let mut a = meeting("a", &["a", "b", "c"]);
    assert!(a.heard("b", key(3), fresh("c")).unwrap_err().contains("where b should be"));
    assert_eq!(a.heard("b", key(2), fresh("b")), Ok(None));
    assert!(a.heard("c", key(2), fresh("c")).unwrap_err().contains("copy"));
    assert_eq!(a.verdict(), None);
    assert_eq!(a.heard("c", key(3), Answer::Wait("no".into())), Err("c: no".into()));
}

/// The founder's state names all; each of the others finds itself there by its key, and anybody else does not.
#[test]
fn a_founder_welcomes_those_that_it_founded_for() {
    let mut a = meeting("a", &["a", "b"]);
    let Some(Verdict::Found(others)) = a.heard("b", key(2), fresh("b")).unwrap() else { panic!("it founds") };
    let founding = a.found(test_key(1), ClusterRoot([9; 32]), 7, &others);
    let Founding { identity, meta, .. } = &founding;
    assert!(meta.forming && meta.members.iter().all(|member| member.votes && member.key.is_some()));
    assert_eq!(meta.conf_state.voters, [identity.member]);
    let question = meeting("b", &["a", "b"]).question();
    let Reception::Answer(answer) = receive(identity, (&meta.members, FIRST), key(2), &question) else {
        panic!("it is known")
    };
    let Answer::Welcome(welcome) = &answer else { panic!("{answer:?}") };
    assert_ne!(welcome.member, identity.member);
    assert_eq!(Answer::decode(&answer.encode()).as_ref(), Ok(&answer));
    let verdict = meeting("b", &["a", "b"]).heard("a", key(1), answer.clone());
    assert_eq!(verdict, Ok(Some(Verdict::Join(welcome.clone()))));
    let Reception::Answer(Answer::Refused(why)) =
        receive(identity, (&meta.members, FIRST), key(3), &question)
    else {
        panic!("the place has another key")
    };
    assert!(why.contains("has another key"), "{why}");
    let Question::Meets(introduction) = question else { panic!("{question:?}") };
    let stranger = Question::Meets(Introduction { peer_urls: vec!["http://d:2380".into()], ..introduction });
    assert!(matches!(
        receive(identity, (&meta.members, FIRST), key(3), &stranger),
        Reception::Answer(Answer::Refused(_))
    ));
}

#[test]
fn a_place_that_is_kept_is_bound_to_whoever_comes_from_it() {
    let founding = meeting("a", &["a"]).found(test_key(1), ClusterRoot([9; 32]), 7, &[]);
    assert!(!founding.meta.forming);
    let mut members = founding.meta.members.clone();
    let attributes = MemberAttributes {
        member: MemberId(u64::MAX),
        peer_urls: vec!["http://b:2".into(), "http://b:1".into()],
        ..MemberAttributes::default()
    };
    members.push(Member { key: None, votes: true, attributes });
    let question = Question::Meets(Introduction {
        name: "b".into(),
        peer_urls: vec!["http://b:1".into(), "http://b:2".into()],
        named: [0; 32],
    });
    assert_eq!(
        receive(&founding.identity, (&members, FIRST), key(2), &question),
        Reception::Bind(MemberId(u64::MAX))
    );
    members[1].key = Some(key(2));
    assert!(matches!(
        receive(&founding.identity, (&members, FIRST), key(2), &question),
        Reception::Answer(Answer::Welcome(_))
    ));
}

/// A node that looks for others by itself gets no place in a cluster whose members were named, and must not found beside it.
#[test]
fn nodes_that_were_named_leave_others_alone() {
    let a = meeting("a", &["a", "b"]);
    let probe = Question::Probe { name: "x".into(), over: None, view: View::of([]) };
    assert!(matches!(a.answer(&probe), Answer::Wait(_)));
    let founding = a.found(test_key(1), ClusterRoot([9; 32]), 7, &[(named("b"), key(2))]);
    let ask = |seed, question: &Question| match receive(
        &founding.identity,
        (&founding.meta.members, FIRST),
        key(seed),
        question,
    ) {
        Reception::Answer(answer) => answer,
        other @ Reception::Bind(_) => panic!("{other:?}"),
    };
    let Answer::Member(standing) = ask(3, &probe) else { panic!("a member says so") };
    assert_eq!((standing.name.as_str(), standing.committed, standing.open), ("a", true, false));
    assert_eq!(standing.cluster, founding.identity.cluster());
    let join = Question::Join {
        name: "x".into(),
        peer_urls: vec!["http://b:2380".into()],
        claim: vec![],
        run: Incarnation(1),
        understands: CommandVersion::FIRST,
    };
    assert!(matches!(ask(3, &join), Answer::Pending(_)), "a place is not given to whoever names its URL");
    assert!(matches!(ask(2, &join), Answer::Welcome(_)), "a member is welcome however it asks");
}

/// Another cluster gives itself up for one to which a user has written.
#[test]
fn who_joins_does_not_say_more_than_it_knows() {
    let (meta, _) = joining_state(Vec::new());
    assert!(!meta.charter.committed && !meta.charter.is_open() && !meta.charter.automatic);
}
