//! How one authority takes the place of another, when, and for how long those are led to it who trust the one before.
//!
//! Owns: the cases. Must never: look at a certificate. Driven by the test runner.

use super::super::rig::{Rig, TERM};
use super::tests::{authority, elapsed, issue, remove};
use super::*;
use crate::command::{Command, MemberCommand};
use crate::limits::AUTHORITY_BRIDGES_MAX;

const OVERLAP: u64 = AUTHORITY_OVERLAP_SECONDS;

/// A cluster with an authority, and a client of it.
fn rig() -> Rig {
    let mut rig = Rig::automatic();
    rig.change(CharterCommand::Establish(authority(b"0"))).unwrap();
    rig.change(issue(1)).unwrap();
    rig
}

/// A node comes in and is removed: which entry that was.
fn expose(rig: &mut Rig, n: u8) -> LogIndex {
    let id = rig.admit(n, Admission::FleetKey).unwrap();
    rig.apply(remove(id)).outcome.unwrap();
    rig.machine.applied()
}

fn replace(exposed: LogIndex, key: &'static [u8]) -> CharterCommand {
    CharterCommand::ReplaceAuthority { term: TERM, exposed, authority: authority(key), bridge: key.into() }
}

fn trust_left(rig: &Rig, n: u8) -> Option<u64> {
    let charter = rig.charter();
    charter.trust_left(charter.client(ClientKey([n; 32])).unwrap())
}

#[test]
fn a_removed_member_leaves_an_authority_that_is_due() {
    let mut rig = rig();
    let place = MemberCommand::Add {
        peer_urls: vec!["https://10.0.0.9:2380".into()],
        votes: false,
        strict: false,
        learners_max: 9,
    };
    let Ok(Outcome::Member(place)) = rig.apply(Command::Member(place)).outcome else { panic!() };
    rig.apply(remove(place)).outcome.unwrap();
    assert_eq!(rig.charter().authority_is_due(), None, "a place that nobody took knows nothing");
    let exposed = expose(&mut rig, 1);
    assert_eq!(rig.charter().authority_is_due(), Some(exposed));
    rig.rotate();
    rig.fold();
    rig.reopen();
    assert_eq!(rig.charter().exposed, Some(exposed));
}

/// A leader that knows of less than the log may have had the new key sent to somebody who was removed.
#[test]
fn an_authority_is_taken_only_from_the_leader_of_the_term_that_knows_of_the_last_removal() {
    let mut rig = rig();
    let early = replace(LogIndex(1), b"1");
    assert_eq!(rig.change(early), Err(Rejection::AuthorityExists), "nobody was removed");
    let (first, second) = (expose(&mut rig, 1), expose(&mut rig, 2));
    assert_eq!(
        rig.change(replace(first, b"1")),
        Err(Rejection::AuthorityExists),
        "another one was removed since"
    );
    for term in [Term(TERM.0 - 1), Term(TERM.0 + 1)] {
        let deposed = CharterCommand::ReplaceAuthority {
            term,
            exposed: second,
            authority: authority(b"1"),
            bridge: Bytes::new(),
        };
        assert_eq!(rig.change(deposed), Err(Rejection::AuthorityExists));
    }
    assert_eq!((rig.charter().authority.clone(), rig.charter().edition), (Some(authority(b"0")), 0));
    rig.change(replace(second, b"1")).unwrap();
    let charter = rig.charter();
    assert_eq!((charter.authority.clone(), charter.edition), (Some(authority(b"1")), 1));
    assert_eq!((charter.exposed, charter.authority_is_due()), (None, None));
    assert_eq!(rig.change(replace(second, b"2")), Err(Rejection::AuthorityExists), "once for each removal");
    rig.check_digest();
}

#[test]
fn each_authority_has_its_time_to_end_and_a_second_removal_changes_nothing_about_the_first() {
    let mut rig = rig();
    let exposed = expose(&mut rig, 1);
    rig.change(replace(exposed, b"1")).unwrap();
    rig.change(issue(2)).unwrap();
    assert_eq!((trust_left(&rig, 1), trust_left(&rig, 2)), (Some(OVERLAP), None));
    rig.change(elapsed(1000)).unwrap();
    let exposed = expose(&mut rig, 2);
    rig.change(replace(exposed, b"2")).unwrap();
    rig.change(issue(3)).unwrap();
    let shown = |rig: &Rig| -> Vec<_> {
        rig.charter().bridges.iter().map(|bridge| (bridge.certificate.clone(), bridge.ends)).collect()
    };
    let [first, second] = [(Bytes::from("1"), OVERLAP), (Bytes::from("2"), 1000 + OVERLAP)];
    assert_eq!(shown(&rig), [first.clone(), second.clone()]);
    let left = |rig: &Rig| [1, 2, 3].map(|n| trust_left(rig, n));
    assert_eq!(left(&rig), [Some(OVERLAP - 1000), Some(OVERLAP), None]);
    assert_eq!(rig.charter().next_deadline(), Some(FOUNDING_WINDOW_SECONDS), "the window closes first");
    rig.change(elapsed(OVERLAP - 1)).unwrap();
    assert_eq!(shown(&rig), [first, second.clone()]);
    assert_eq!(rig.charter().next_deadline(), Some(OVERLAP));
    rig.rotate();
    rig.fold();
    rig.change(elapsed(OVERLAP)).unwrap();
    rig.reopen();
    assert_eq!(shown(&rig), [second]);
    assert_eq!(left(&rig), [Some(0), Some(1000), None]);
    rig.change(elapsed(OVERLAP + 1000)).unwrap();
    assert_eq!((shown(&rig), rig.charter().next_deadline()), (Vec::new(), None));
    assert_eq!(left(&rig), [Some(0), Some(0), None]);
    rig.check_digest();
}

#[test]
fn a_client_that_is_renewed_is_up_to_date_and_keeps_its_place() {
    let mut rig = rig();
    let renew = |n| CharterCommand::RenewClient { key: ClientKey([n; 32]) };
    let digest = rig.view().digest();
    let exposed = expose(&mut rig, 1);
    rig.change(replace(exposed, b"1")).unwrap();
    rig.change(renew(1)).unwrap();
    assert_ne!(rig.view().digest(), digest);
    assert_eq!(trust_left(&rig, 1), None);
    assert_eq!(rig.charter().bridges.len(), 1, "what it was given may not have come to it yet");
    assert_eq!(rig.change(renew(1)), Ok(Outcome::Charter), "again changes nothing");
    assert_eq!(rig.change(renew(2)), Err(Rejection::ClientNotFound));
    rig.rotate();
    rig.fold();
    rig.reopen();
    assert_eq!(trust_left(&rig, 1), None);
    rig.check_digest();
}

#[test]
fn where_there_are_no_clients_nobody_is_led_anywhere_and_no_time_is_counted() {
    let mut rig = rig();
    let exposed = expose(&mut rig, 1);
    rig.change(replace(exposed, b"1")).unwrap();
    rig.change(CharterCommand::Seal).unwrap();
    assert_eq!(rig.charter().next_deadline(), Some(OVERLAP));
    rig.change(CharterCommand::RevokeClient { key: ClientKey([1; 32]) }).unwrap();
    let exposed = expose(&mut rig, 2);
    rig.change(replace(exposed, b"2")).unwrap();
    assert_eq!((rig.charter().bridges.len(), rig.charter().next_deadline()), (0, None));
    assert_eq!(rig.charter().edition, 2);
}

#[test]
fn with_too_many_on_their_way_out_the_next_one_waits_until_the_first_has_ended() {
    let mut rig = rig();
    for n in 1..=u8::try_from(AUTHORITY_BRIDGES_MAX).unwrap() {
        rig.change(elapsed(100 * u64::from(n))).unwrap();
        let exposed = expose(&mut rig, n);
        rig.change(replace(exposed, b"n")).unwrap();
    }
    let exposed = expose(&mut rig, 100);
    assert_eq!((rig.charter().authority_is_due(), rig.charter().exposed), (None, Some(exposed)));
    assert_eq!(rig.change(replace(exposed, b"n")), Err(Rejection::AuthorityExists));
    rig.change(elapsed(100 + OVERLAP)).unwrap();
    assert_eq!(rig.charter().authority_is_due(), Some(exposed));
    rig.change(replace(exposed, b"n")).unwrap();
    assert_eq!((rig.charter().edition, rig.charter().bridges.len()), (5, AUTHORITY_BRIDGES_MAX));
}

#[test]
fn what_is_too_long_for_an_authority_is_refused_and_only_an_operators_part_commits_the_cluster() {
    let mut rig = Rig::automatic();
    rig.change(CharterCommand::Establish(authority(b"0"))).unwrap();
    let exposed = expose(&mut rig, 1);
    let long = Bytes::from(vec![1; AUTHORITY_BYTES_MAX + 1]);
    let sized = |certificate: &Bytes, key: &Bytes, bridge: &Bytes| {
        let (certificate, key, bridge) = (certificate.clone(), key.clone(), bridge.clone());
        let authority = Authority { certificate, key };
        CharterCommand::ReplaceAuthority { term: TERM, exposed, authority, bridge }
    };
    let short = long.slice(1..);
    for too_long in [sized(&long, &short, &short), sized(&short, &long, &short), sized(&short, &short, &long)]
    {
        assert_eq!(rig.change(too_long), Err(Rejection::TooLong));
    }
    assert_eq!(rig.change(sized(&short, &short, &short)), Ok(Outcome::Charter));

    let replace = Command::Charter(replace(exposed, b"1"));
    assert!(!replace.is_users(), "it is the leader's own");
    assert!(Command::Charter(CharterCommand::RenewClient { key: ClientKey([1; 32]) }).is_users());
}
