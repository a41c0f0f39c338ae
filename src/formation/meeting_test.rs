//! Nodes that were told of each other, and what they make of it.

use super::*;
use crate::formation::identity::test_key;

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
    let Reception::Answer(answer) = receive(identity, &meta.members, key(2), &question) else {
        panic!("it is known")
    };
    let Answer::Welcome(welcome) = &answer else { panic!("{answer:?}") };
    assert_ne!(welcome.member, identity.member);
    assert_eq!(Answer::decode(&answer.encode()).as_ref(), Ok(&answer));
    let verdict = meeting("b", &["a", "b"]).heard("a", key(1), answer.clone());
    assert_eq!(verdict, Ok(Some(Verdict::Join(welcome.clone()))));
    let Reception::Answer(Answer::Refused(why)) = receive(identity, &meta.members, key(3), &question) else {
        panic!("the place has another key")
    };
    assert!(why.contains("has another key"), "{why}");
    let stranger = Question { peer_urls: vec!["http://d:2380".into()], ..question };
    assert!(matches!(
        receive(identity, &meta.members, key(3), &stranger),
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
    let question = Question {
        name: "b".into(),
        peer_urls: vec!["http://b:1".into(), "http://b:2".into()],
        named: [0; 32],
    };
    assert_eq!(receive(&founding.identity, &members, key(2), &question), Reception::Bind(MemberId(u64::MAX)));
    members[1].key = Some(key(2));
    assert!(matches!(
        receive(&founding.identity, &members, key(2), &question),
        Reception::Answer(Answer::Welcome(_))
    ));
}

#[test]
fn what_is_said_comes_back_and_other_bytes_are_refused() {
    let question = meeting("a", &["a", "b"]).question();
    let bytes = question.encode();
    assert_eq!(Question::decode(&bytes), Ok(question));
    let answers = [fresh("a"), Answer::Wait("later".into()), Answer::Refused("x".repeat(2 * TEXT_BYTES_MAX))];
    for cut in 0..bytes.len() {
        assert!(Question::decode(&bytes[..cut]).is_err());
    }
    assert!(Question::decode(&[&bytes[..], &[0]].concat()).is_err());
    for answer in answers {
        let bytes = answer.encode();
        let back = Answer::decode(&bytes).unwrap();
        assert!(back == answer || matches!(&back, Answer::Refused(text) if text.len() == TEXT_BYTES_MAX));
        for cut in 0..bytes.len() {
            assert!(Answer::decode(&bytes[..cut]).is_err());
        }
        for (at, wrong) in [(0, 2), (1, 0), (1, 5)] {
            let mut other = bytes.clone();
            other[at] = wrong;
            assert!(Answer::decode(&other).is_err());
        }
    }
    let (meta, _) = joining_state(vec![]);
    let nobody = [&[VERSION, WELCOME][..], &[0; 48], &encode_facts(&meta)].concat();
    assert!(Answer::decode(&nobody).is_err(), "who is welcome has to be among the members");
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_decoders_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let _ = Question::decode(&bytes);
        let _ = Answer::decode(&bytes);
        let _ = Answer::decode(&[&[VERSION, WELCOME], &bytes[..]].concat());
    }
}
