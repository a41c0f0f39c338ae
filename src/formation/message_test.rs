//! What is said comes back; whatever else comes is refused.

use super::*;
use crate::formation::identity::test_key;
use crate::formation::{found_solo, test_founding};
use crate::store::test_charter;

fn view(seeds: std::ops::Range<u8>) -> View {
    View::of(seeds.map(|seed| test_key(seed).fingerprint()))
}

fn questions() -> Vec<Question> {
    let (name, peer_urls) =
        (String::from("a"), vec!["https://a:2380".to_owned(), "https://b:2380".to_owned()]);
    vec![
        Question::Meets(Introduction { name: name.clone(), peer_urls: peer_urls.clone(), named: [7; 32] }),
        Question::Probe { name: name.clone(), over: None, view: view(1..4) },
        Question::Probe { name: name.clone(), over: Some(u64::MAX), view: view(1..4) },
        Question::Promise { round: u64::MAX - 1, patient: true, view: view(1..2) },
        Question::Promise { round: 5, patient: false, view: view(0..0) },
        Question::Join {
            name: name.clone(),
            peer_urls: peer_urls.clone(),
            claim: vec![1, 2, 3],
            run: Incarnation(7),
            understands: CommandVersion(3),
        },
        Question::Absorb {
            cluster: ClusterId(9),
            winner: ClusterId(8),
            nodes: vec![Candidate { key: PublicKey([4; 32]), name, peer_urls }],
            understands: CommandVersion(2),
        },
        Question::Fate { cluster: ClusterId(u64::MAX) },
    ]
}

fn answers() -> Vec<Answer> {
    let standing = Standing {
        name: "m".into(),
        cluster: ClusterId(7),
        generation: Generation(3),
        committed: true,
        open: false,
        uses: CommandVersion(2),
        understands: CommandVersion(3),
    };
    let founding = found_solo(test_key(1), ClusterRoot([9; 32]), 7);
    let welcome = Welcome {
        root: founding.identity.root,
        generation: founding.identity.generation,
        member: founding.identity.member,
        members: founding.meta.members,
        commands: CommandVersion(2),
    };
    vec![
        Answer::Fresh { name: "a".into() },
        Answer::Welcome(Box::new(welcome)),
        Answer::Wait("later".into()),
        Answer::Refused("no".into()),
        Answer::Gathers {
            name: "a".into(),
            round: None,
            promised: Some(test_key(1).fingerprint()),
            waits: false,
            view: view(1..3),
        },
        Answer::Gathers { name: "a".into(), round: Some(8), promised: None, waits: true, view: view(1..3) },
        Answer::Promised { round: 9 },
        Answer::NotPromised("promised to another".into()),
        Answer::Member(Standing { committed: false, open: true, ..standing.clone() }),
        Answer::Member(standing),
        Answer::Pending("approve it".into()),
        Answer::Absorbed,
        Answer::Buried(Vec::new()),
        Answer::Buried(test_charter().buried),
    ]
}

#[test]
fn what_is_said_comes_back_and_other_bytes_are_refused() {
    for question in questions() {
        let (bytes, plain) = (question.encode(), question.encode_in(Dialect::Plain));
        assert_eq!(Question::decode(&bytes), Ok(question));
        check_refusals(&bytes, plain.len(), |bytes| Question::decode(bytes).is_err());
    }
    for answer in answers() {
        let (bytes, plain) = (answer.encode(), answer.encode_in(Dialect::Plain));
        assert_eq!(Answer::decode(&bytes), Ok(answer));
        check_refusals(&bytes, plain.len(), |bytes| Answer::decode(bytes).is_err());
    }
}

/// Builds that know of no versions of commands say none, and are told none: for them what has one is no message.
#[test]
fn versions_are_said_only_to_who_knows_of_them_and_are_the_first_where_none_is_said() {
    let mut said = 0;
    for question in questions() {
        let plain = question.encode_in(Dialect::Plain);
        let mut heard = question.clone();
        if let Question::Join { understands, .. } | Question::Absorb { understands, .. } = &mut heard {
            *understands = CommandVersion::FIRST;
            said += 1;
            assert_eq!(question.encode(), [&plain[..], &[if said == 1 { 3 } else { 2 }]].concat());
            assert!(Question::decode(&[&plain[..], &[0]].concat()).is_err(), "there is no such version");
        } else {
            assert_eq!(question.encode(), plain);
        }
        assert_eq!(Question::decode(&plain), Ok(heard));
    }
    assert_eq!(said, 2);
    for answer in answers() {
        let plain = answer.encode_in(Dialect::Plain);
        let mut heard = answer.clone();
        if let Answer::Member(standing) = &mut heard {
            (standing.uses, standing.understands) = (CommandVersion::FIRST, CommandVersion::FIRST);
            assert_eq!(answer.encode(), [&plain[..], &[2, 3]].concat());
            assert!(Answer::decode(&[&plain[..], &[2]].concat()).is_err(), "one of two");
        } else {
            assert_eq!(answer.encode(), plain);
        }
        assert_eq!(Answer::decode(&plain), Ok(heard));
    }
}

/// Cut anywhere but before the versions, continued, of another version or of no kind.
fn check_refusals(bytes: &[u8], plain: usize, refused: impl Fn(&[u8]) -> bool) {
    assert!((0..bytes.len()).all(|cut| cut == plain || refused(&bytes[..cut])));
    assert!(refused(&[bytes, &[0]].concat()));
    for (at, wrong) in [(0, 1), (0, 3), (1, 0), (1, 12)] {
        let mut other = bytes.to_vec();
        other[at] = wrong;
        assert!(refused(&other), "{wrong} at {at}");
    }
}

#[test]
fn what_is_too_long_is_cut_and_what_claims_to_be_is_refused() {
    let long = Answer::Refused("x".repeat(2 * TEXT_BYTES_MAX));
    let Ok(Answer::Refused(text)) = Answer::decode(&long.encode()) else { panic!("it is cut") };
    assert_eq!(text.len(), TEXT_BYTES_MAX);
    let many = Question::Join {
        name: String::new(),
        peer_urls: vec![],
        claim: vec![1; 2 * CLAIM_BYTES_MAX],
        run: Incarnation(1),
        understands: CommandVersion::FIRST,
    };
    let Ok(Question::Join { claim, .. }) = Question::decode(&many.encode()) else { panic!("it is cut") };
    assert_eq!(claim.len(), CLAIM_BYTES_MAX);
    // A box may have any number of addresses: those that come first are what it says.
    let at = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
    let join = |count| Question::Join {
        name: String::new(),
        peer_urls: at(count),
        claim: vec![],
        run: Incarnation(1),
        understands: CommandVersion::FIRST,
    };
    assert_eq!(Question::decode(&join(3 * URLS_MAX).encode()), Ok(join(URLS_MAX)));
    let absorb = |count| {
        let node = Candidate { key: PublicKey([1; 32]), name: String::new(), peer_urls: at(count) };
        Question::Absorb {
            cluster: ClusterId(1),
            winner: ClusterId(8),
            nodes: vec![node.clone(), node],
            understands: CommandVersion::FIRST,
        }
    };
    assert_eq!(Question::decode(&absorb(3 * URLS_MAX).encode()), Ok(absorb(URLS_MAX)));
    let mut more = join(URLS_MAX).encode();
    // Behind version, kind and the empty name there is their number.
    more[4] += 1;
    more.splice(6..6, [0, 0]);
    assert_eq!(Question::decode(&more), Err(MessageError));
    let crowd = |count: usize| {
        let node = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
            Fingerprint::from_bytes(bytes)
        };
        View((0..count).map(node).collect())
    };
    let view = View::of(crowd(2 * VIEW_NODES_MAX).0);
    assert_eq!(view, crowd(VIEW_NODES_MAX), "the lowest are those that count");
    let probe = |view| Question::Probe { name: String::new(), over: None, view };
    assert_eq!(Question::decode(&probe(view.clone()).encode()), Ok(probe(view)));
    assert_eq!(Question::decode(&probe(crowd(VIEW_NODES_MAX + 1)).encode()), Err(MessageError));
}

#[test]
fn a_view_is_ascending_and_says_who_is_lowest() {
    let all: Vec<Fingerprint> = (1..6).map(|seed| test_key(seed).fingerprint()).collect();
    let view = View::of(all.iter().rev().chain(&all).copied());
    assert_eq!(view.nodes().len(), 5, "each node once");
    assert_eq!(view.lowest(), all.iter().min().copied());
    assert!(all.iter().all(|node| view.has(node)) && !view.has(&test_key(9).fingerprint()));
    let mut swapped = view.clone();
    swapped.0.swap(0, 1);
    let mut twice = view.clone();
    twice.0[1] = twice.0[0];
    for bad in [swapped, twice] {
        let bytes = Question::Probe { name: String::new(), over: None, view: bad }.encode();
        assert_eq!(Question::decode(&bytes), Err(MessageError), "two views of the same nodes are equal");
    }
}

#[test]
fn who_is_welcome_is_among_the_members() {
    let (meta, _) = joining_state(vec![]);
    let nobody = [&[VERSION, answer::WELCOME][..], &[0; 48], &encode_facts(&meta)].concat();
    assert!(Answer::decode(&nobody).is_err());
    let founding = test_founding(1);
    let (root, generation) = (founding.identity.root, founding.identity.generation);
    let welcome = Welcome {
        root,
        generation,
        member: MemberId(1),
        members: founding.meta.members,
        commands: CommandVersion::FIRST,
    };
    assert!(Answer::decode(&Answer::Welcome(Box::new(welcome)).encode()).is_err(), "another member");
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_decoders_panic(kind in 0..12_u8, bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let _ = Question::decode(&bytes);
        let _ = Answer::decode(&bytes);
        let _ = Question::decode(&[&[VERSION, kind], &bytes[..]].concat());
        let _ = Answer::decode(&[&[VERSION, kind], &bytes[..]].concat());
    }
}
