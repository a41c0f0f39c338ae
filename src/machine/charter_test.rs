//! The rules of the charter, one by one, and any order of commands against a model of who may come in.
//!
//! Owns: the cases. Must never: share code with what it judges. Driven by the test runner.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use super::super::rig::{FOUNDER, Rig, TERM, interval, put};
use super::*;
use crate::command::{Alarm, AlarmAction, AlarmKind, Command, DeleteRange, LeaseCommand, MemberCommand, Txn};
use crate::ids::{Incarnation, LeaseId, LogIndex};

#[path = "awaited_test.rs"]
mod awaited;
#[path = "charter_end_test.rs"]
mod ends;
#[path = "words_test.rs"]
mod words;

const MINUTE: u64 = 60;
const WINNER: ClusterId = ClusterId(4);

fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

fn url(n: u8) -> String {
    format!("https://10.0.0.{n}:2380")
}

fn admit_in(n: u8, by: Admission, run: u64) -> CharterCommand {
    let (name, peer_urls) = (format!("box {n}"), vec![url(n)]);
    CharterCommand::Admit { key: key(n), name, peer_urls, by, run: Incarnation(run), of: None }
}

fn admit(n: u8, by: Admission) -> CharterCommand {
    admit_in(n, by, 1)
}

fn token(n: u8) -> TokenId {
    TokenId([n; 8])
}

fn create(n: u8, seconds: u64) -> CharterCommand {
    CharterCommand::CreateToken { id: token(n), key: TokenKey([n; 32]), seconds }
}

fn approve(n: u8) -> CharterCommand {
    CharterCommand::Approve { fingerprint: key(n).fingerprint() }
}

pub(super) fn issue(n: u8) -> CharterCommand {
    CharterCommand::IssueClient { key: ClientKey([n; 32]), name: format!("client {n}") }
}

pub(super) fn elapsed(to: u64) -> CharterCommand {
    CharterCommand::Elapsed { to }
}

pub(super) fn remove(id: MemberId) -> Command {
    Command::Member(MemberCommand::Remove { id, strict: false })
}

pub(super) fn authority(key: &'static [u8]) -> Authority {
    Authority { certificate: Bytes::from_static(b"certificate"), key: Bytes::from_static(key) }
}

impl Rig {
    pub(super) fn automatic() -> Self {
        Self::of(Charter::automatic())
    }

    pub(super) fn charter(&self) -> Arc<Charter> {
        Arc::clone(&self.view().facts().charter)
    }

    pub(super) fn change(&mut self, command: CharterCommand) -> Result<Outcome, Rejection> {
        self.apply(Command::Charter(command)).outcome
    }

    pub(super) fn admit(&mut self, n: u8, by: Admission) -> Result<MemberId, Rejection> {
        self.change(admit(n, by)).map(|outcome| match outcome {
            Outcome::Member(id) => id,
            other => panic!("{other:?}"),
        })
    }

    fn keys(&self) -> BTreeSet<PublicKey> {
        self.view().facts().members.iter().filter_map(|member| member.key).collect()
    }
}

#[test]
fn who_comes_in_by_the_window_listens_under_its_key_and_is_told_the_same_again() {
    let mut rig = Rig::automatic();
    let id = rig.admit(1, Admission::Window).unwrap();
    let member = rig.view().facts().members.iter().find(|member| member.id() == id).cloned().unwrap();
    let attributes = MemberAttributes {
        member: id,
        name: "box 1".into(),
        peer_urls: vec![url(1)],
        ..MemberAttributes::default()
    };
    assert_eq!(member, Member { key: Some(key(1)), votes: false, attributes });
    assert!(id != FOUNDER && member.run().is_none());
    rig.change(CharterCommand::Seal).unwrap();
    for by in [Admission::Window, Admission::Approval, Admission::Token(token(1)), Admission::FleetKey] {
        assert_eq!(rig.admit(1, by), Ok(id), "it is in, whatever it comes with");
    }
    assert_eq!(rig.admit(2, Admission::Window), Err(Rejection::Sealed));
    let elsewhere = CharterCommand::Admit {
        key: key(3),
        name: String::new(),
        peer_urls: vec![url(1)],
        by: Admission::FleetKey,
        run: Incarnation(1),
        of: None,
    };
    assert!(rig.change(elsewhere).is_ok(), "an address that was another's is no reason");
    rig.check_digest();
}

#[test]
fn who_begins_anew_after_it_was_a_member_is_another_member() {
    let mut rig = Rig::automatic();
    let Ok(id) = rig.admit(1, Admission::Window) else { panic!("it is let in") };
    rig.change(CharterCommand::Seal).unwrap();
    let again = |rig: &mut Rig, run| match rig.change(admit_in(1, Admission::Window, run)) {
        Ok(Outcome::Member(id)) => id,
        other => panic!("{other:?}"),
    };
    assert_eq!(again(&mut rig, 9), id, "the answer was lost: it has been nobody yet");
    let attributes = MemberAttributes { member: id, incarnation: 5, boot_nonce: 1, ..Default::default() };
    rig.apply(Command::Publish(attributes)).outcome.unwrap();
    let vote = MemberCommand::Revote { promote: vec![id], demote: Vec::new() };
    rig.apply(Command::Member(vote)).outcome.unwrap();
    for run in [0, 4, 5] {
        assert_eq!(again(&mut rig, run), id, "it asked before, or others asked");
    }
    let other = again(&mut rig, 6);
    assert_ne!(other, id);
    let facts = rig.view().facts().clone();
    let member = facts.members.iter().find(|member| member.id() == other).unwrap();
    assert_eq!((member.key, member.votes, member.run()), (Some(key(1)), false, None));
    assert!(facts.members.iter().all(|member| member.id() != id));
    assert_eq!(facts.removed, [(id, None)], "the id is gone for good, and the key is not barred");
    assert_eq!(again(&mut rig, 6), other);
    assert!(!rig.charter().is_open(), "nobody else comes in for it");
    rig.check_digest();
}

#[test]
fn a_place_that_is_kept_for_its_urls_is_what_a_node_gets() {
    let mut rig = Rig::automatic();
    let add =
        MemberCommand::Add { peer_urls: vec![url(1), url(2)], votes: true, strict: false, learners_max: 1 };
    let Ok(Outcome::Member(place)) = rig.apply(Command::Member(add)).outcome else { panic!("it is added") };
    let at = |urls: &[u8], n| CharterCommand::Admit {
        key: key(n),
        name: String::new(),
        peer_urls: urls.iter().copied().map(url).collect(),
        by: Admission::Window,
        run: Incarnation(1),
        of: None,
    };
    assert_ne!(rig.change(at(&[1], 3)).unwrap(), Outcome::Member(place), "somewhere else");
    assert_eq!(rig.change(at(&[2, 1], 4)).unwrap(), Outcome::Member(place));
    assert_ne!(rig.change(at(&[2, 1], 5)).unwrap(), Outcome::Member(place), "it is taken");
    let bound = rig.view().facts().members.iter().find(|member| member.id() == place).cloned().unwrap();
    assert_eq!((bound.key, bound.votes), (Some(key(4)), true));
}

#[test]
fn the_founding_window_grows_with_who_comes_in_and_closes_for_good() {
    let mut rig = Rig::automatic();
    let closes = |rig: &Rig| rig.charter().window.closes / MINUTE;
    for (minute, n, expected) in [(0, 1, 30), (10, 2, 40), (39, 3, 60), (59, 4, 60)] {
        rig.change(elapsed(minute * MINUTE)).unwrap();
        rig.admit(n, Admission::Window).unwrap();
        assert_eq!(closes(&rig), expected, "minute {minute}");
    }
    rig.change(elapsed(60 * MINUTE - 1)).unwrap();
    assert!(rig.charter().is_open());
    rig.change(elapsed(60 * MINUTE)).unwrap();
    assert!(!rig.charter().is_open());
    assert_eq!(rig.admit(5, Admission::Window), Err(Rejection::Sealed));
    rig.change(elapsed(MINUTE)).unwrap();
    assert_eq!(rig.charter().elapsed, 60 * MINUTE, "time does not go back");
    assert_eq!(rig.admit(5, Admission::Window), Err(Rejection::Sealed));
    let mut quiet = Rig::automatic();
    quiet.change(elapsed(30 * MINUTE)).unwrap();
    assert_eq!(quiet.admit(1, Admission::Window), Err(Rejection::Sealed));
}

#[test]
fn other_ways_in_do_not_keep_the_window_open() {
    let mut rig = Rig::automatic();
    rig.change(approve(1)).unwrap();
    rig.change(create(2, 60 * MINUTE)).unwrap();
    rig.change(elapsed(20 * MINUTE)).unwrap();
    for (n, by) in [(1, Admission::Approval), (2, Admission::Token(token(2))), (3, Admission::FleetKey)] {
        rig.admit(n, by).unwrap();
    }
    assert_eq!(rig.charter().window.closes, 30 * MINUTE);
}

#[test]
fn a_window_of_an_operator_has_its_own_length() {
    let mut rig = Rig::automatic();
    let open = |seconds| CharterCommand::OpenWindow { seconds };
    rig.change(elapsed(100 * MINUTE)).unwrap();
    rig.change(open(10 * MINUTE)).unwrap();
    rig.change(elapsed(109 * MINUTE)).unwrap();
    rig.admit(1, Admission::Window).unwrap();
    rig.change(elapsed(110 * MINUTE)).unwrap();
    assert_eq!(rig.admit(2, Admission::Window), Err(Rejection::Sealed));
    rig.change(open(WINDOW_SECONDS_MAX)).unwrap();
    rig.change(open(10 * MINUTE)).unwrap();
    assert_eq!(rig.charter().window.closes, 120 * MINUTE, "the last word counts");
    rig.change(CharterCommand::Seal).unwrap();
    assert_eq!(rig.admit(2, Admission::Window), Err(Rejection::Sealed));
    for seconds in [0, ADMISSION_SECONDS_MIN - 1, WINDOW_SECONDS_MAX + 1, u64::MAX] {
        assert_eq!(rig.change(open(seconds)), Err(Rejection::TimeOutOfRange));
    }
    assert!(!rig.charter().is_open());
}

#[test]
fn a_token_lets_one_node_in_within_its_time() {
    let mut rig = Rig::automatic();
    let by = |n| Admission::Token(token(n));
    rig.change(CharterCommand::Seal).unwrap();
    rig.change(elapsed(500)).unwrap();
    rig.change(create(1, 100)).unwrap();
    assert_eq!(rig.change(create(1, 100)), Ok(Outcome::Charter), "the same again");
    let other = CharterCommand::CreateToken { id: token(1), key: TokenKey([9; 32]), seconds: 100 };
    assert_eq!(rig.change(other), Err(Rejection::TokenExists));
    assert_eq!(rig.admit(1, by(2)), Err(Rejection::TokenNotFound));
    rig.change(elapsed(599)).unwrap();
    let id = rig.admit(1, by(1)).unwrap();
    assert_eq!(rig.admit(1, by(1)), Ok(id), "its answer was lost");
    assert_eq!(rig.admit(2, by(1)), Err(Rejection::TokenUsed));
    assert_eq!(rig.charter().tokens[0].used_by, Some(key(1)));
    rig.apply(remove(id)).outcome.unwrap();
    assert_eq!(rig.admit(1, by(1)), Err(Rejection::TokenUsed), "it stays used");
    rig.change(create(2, 100)).unwrap();
    rig.change(elapsed(699)).unwrap();
    assert_eq!(rig.admit(2, by(2)), Err(Rejection::TokenNotFound), "its time is over");
    assert!(rig.charter().tokens.is_empty(), "what is over is forgotten");
    rig.change(create(3, 100)).unwrap();
    rig.change(CharterCommand::RevokeToken { id: token(3) }).unwrap();
    assert_eq!(rig.admit(2, by(3)), Err(Rejection::TokenNotFound));
    assert_eq!(rig.change(CharterCommand::RevokeToken { id: token(3) }), Err(Rejection::TokenNotFound));
    for seconds in [0, ADMISSION_SECONDS_MIN - 1, TOKEN_SECONDS_MAX + 1, u64::MAX] {
        assert_eq!(rig.change(create(4, seconds)), Err(Rejection::TimeOutOfRange));
    }
    rig.check_digest();
}

/// A node that lost its power before it had the answer on its disk has nothing but the token, and knows the cluster by that alone.
#[test]
fn a_token_that_was_used_is_there_until_its_node_has_come() {
    let mut rig = Rig::automatic();
    let by = |n| Admission::Token(token(n));
    for n in 1..=4 {
        rig.change(create(n, 600)).unwrap();
    }
    let ids = [1, 2, 3].map(|n| rig.admit(n, by(n)).unwrap());
    let attributes = MemberAttributes { member: ids[1], incarnation: 1, boot_nonce: 1, ..Default::default() };
    rig.apply(Command::Publish(attributes)).outcome.unwrap();
    rig.apply(remove(ids[2])).outcome.unwrap();
    rig.change(elapsed(600)).unwrap();
    let kept = |rig: &Rig| rig.charter().tokens.iter().map(|token| token.id).collect::<Vec<_>>();
    assert_eq!(kept(&rig), [token(1)], "one node came, one was removed, one token was never used");
    assert_eq!(rig.admit(1, by(1)), Ok(ids[0]));
    assert_eq!(rig.admit(5, by(1)), Err(Rejection::TokenUsed), "it lets nobody else in");
    rig.change(elapsed(600 + TOKEN_KEPT_SECONDS - 1)).unwrap();
    assert_eq!(kept(&rig), [token(1)]);
    rig.change(elapsed(600 + TOKEN_KEPT_SECONDS)).unwrap();
    assert!(kept(&rig).is_empty());
    rig.check_digest();
}

#[test]
fn an_approval_lets_one_node_in_once() {
    let mut rig = Rig::automatic();
    rig.change(CharterCommand::Seal).unwrap();
    assert_eq!(rig.admit(1, Admission::Approval), Err(Rejection::NotApproved));
    for _ in 0..2 {
        rig.change(approve(1)).unwrap();
    }
    assert_eq!(rig.charter().approved.len(), 1);
    assert_eq!(rig.admit(2, Admission::Approval), Err(Rejection::NotApproved));
    let id = rig.admit(1, Admission::Approval).unwrap();
    assert!(rig.charter().approved.is_empty());
    rig.change(approve(1)).unwrap();
    assert!(rig.charter().approved.is_empty(), "it is a member already");
    rig.apply(remove(id)).outcome.unwrap();
    assert_eq!(rig.admit(1, Admission::Approval), Err(Rejection::NotApproved));
}

#[test]
fn an_approval_is_void_however_its_node_came_in_and_went() {
    let mut rig = Rig::automatic();
    rig.change(approve(1)).unwrap();
    let id = rig.admit(1, Admission::FleetKey).unwrap();
    rig.apply(remove(id)).outcome.unwrap();
    assert_eq!(rig.admit(1, Admission::Approval), Err(Rejection::NotApproved));
    let add = MemberCommand::Add { peer_urls: vec![url(2)], votes: false, strict: false, learners_max: 1 };
    let Ok(Outcome::Member(id)) = rig.apply(Command::Member(add)).outcome else { panic!("it is added") };
    rig.change(approve(2)).unwrap();
    rig.apply(Command::Member(MemberCommand::Bind { id, key: key(2) })).outcome.unwrap();
    rig.apply(remove(id)).outcome.unwrap();
    assert_eq!(rig.admit(2, Admission::Approval), Err(Rejection::NotApproved));
    rig.check_digest();
}

#[test]
fn who_was_removed_takes_an_operator_to_come_in_again() {
    let mut rig = Rig::automatic();
    let first = rig.admit(1, Admission::Window).unwrap();
    rig.apply(remove(first)).outcome.unwrap();
    for by in [Admission::Window, Admission::FleetKey] {
        assert_eq!(rig.admit(1, by), Err(Rejection::NodeRemoved));
        assert!(rig.admit(2, by).is_ok(), "others may");
    }
    rig.change(approve(1)).unwrap();
    assert_ne!(rig.admit(1, Admission::Approval).unwrap(), first, "as somebody new");
}

#[test]
fn a_cluster_that_was_founded_by_somebody_lets_in_by_token_and_approval_alone() {
    let mut rig = Rig::new();
    assert!(rig.charter().committed && !rig.charter().is_open());
    for by in [Admission::Window, Admission::FleetKey] {
        assert_eq!(rig.admit(1, by), Err(Rejection::NotAutomatic));
    }
    let open = CharterCommand::OpenWindow { seconds: 10 * MINUTE };
    assert_eq!(rig.change(open), Err(Rejection::NotAutomatic));
    rig.change(create(1, 10 * MINUTE)).unwrap();
    rig.change(approve(2)).unwrap();
    assert!(rig.admit(1, Admission::Token(token(1))).is_ok());
    assert!(rig.admit(2, Admission::Approval).is_ok());
    let dissolve = CharterCommand::Dissolve { winner: WINNER };
    assert_eq!(rig.change(dissolve), Err(Rejection::Committed));
}

fn give_up(witness: u8) -> CharterCommand {
    CharterCommand::Yield { winner: WINNER, witness: key(witness), asked: LogIndex(9) }
}

type Make<'a> = &'a dyn Fn(usize) -> CharterCommand;

#[test]
fn everything_is_bounded() {
    let mut rig = Rig::automatic();
    let number = |n: usize| u64::try_from(n).unwrap().to_le_bytes();
    let hash = |n: usize| {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number(n));
        hash
    };
    let create = |n| {
        let (id, key) = (TokenId(number(n)), TokenKey(hash(n)));
        CharterCommand::CreateToken { id, key, seconds: 10 * MINUTE }
    };
    let approve = |n| CharterCommand::Approve { fingerprint: hash(n) };
    let issue = |n| CharterCommand::IssueClient { key: ClientKey(hash(n)), name: String::new() };
    let admit = |n| CharterCommand::Admit {
        key: PublicKey(hash(n)),
        name: String::new(),
        peer_urls: Vec::new(),
        by: Admission::Window,
        run: Incarnation(1),
        of: None,
    };
    let cases: [(Make<'_>, usize, Rejection); 4] = [
        (&create, TOKENS_MAX, Rejection::TooManyTokens),
        (&approve, APPROVALS_MAX, Rejection::TooManyApprovals),
        (&issue, CLIENTS_MAX, Rejection::TooManyClients),
        (&admit, ADMITTED_MEMBERS_MAX - 1, Rejection::TooManyMembers),
    ];
    for (make, max, rejection) in cases {
        for n in 0..max {
            assert!(rig.change(make(n)).is_ok(), "{n} of {max}");
        }
        assert_eq!(rig.change(make(max)), Err(rejection));
        assert!(rig.change(make(0)).is_ok(), "what is there is there");
    }
    let last = rig.view().facts().members.iter().map(Member::id).find(|id| *id != FOUNDER).unwrap();
    rig.apply(remove(last)).outcome.unwrap();
    let used = CharterCommand::Admit {
        key: key(200),
        name: String::new(),
        peer_urls: Vec::new(),
        by: Admission::Token(TokenId(number(5))),
        run: Incarnation(1),
        of: None,
    };
    rig.change(used).unwrap();
    rig.change(create(TOKENS_MAX)).expect("a used token makes room");
    assert!(rig.charter().token(TokenId(number(5))).is_none());
    assert_eq!(rig.change(create(5)), Err(Rejection::TooManyTokens));
}

#[test]
fn what_is_too_long_is_refused() {
    let mut rig = Rig::automatic();
    let admit = |name: usize, urls: usize, url: usize| CharterCommand::Admit {
        key: key(1),
        name: "n".repeat(name),
        peer_urls: vec!["u".repeat(url); urls],
        by: Admission::Window,
        run: Incarnation(1),
        of: None,
    };
    let client =
        |name: usize| CharterCommand::IssueClient { key: ClientKey([1; 32]), name: "n".repeat(name) };
    let establish = |certificate: usize, key: usize| {
        let (certificate, key) = (vec![1; certificate].into(), vec![2; key].into());
        CharterCommand::Establish(Authority { certificate, key })
    };
    for (too_long, longest) in [
        (admit(NODE_NAME_BYTES_MAX + 1, 1, 1), None),
        (admit(1, NODE_URLS_MAX + 1, 1), None),
        (
            admit(1, 1, PEER_URL_BYTES_MAX + 1),
            Some(admit(NODE_NAME_BYTES_MAX, NODE_URLS_MAX, PEER_URL_BYTES_MAX)),
        ),
        (client(CLIENT_NAME_BYTES_MAX + 1), Some(client(CLIENT_NAME_BYTES_MAX))),
        (establish(AUTHORITY_BYTES_MAX + 1, 1), None),
        (establish(1, AUTHORITY_BYTES_MAX + 1), Some(establish(AUTHORITY_BYTES_MAX, AUTHORITY_BYTES_MAX))),
    ] {
        assert_eq!(rig.change(too_long), Err(Rejection::TooLong));
        assert!(longest.is_none_or(|longest| rig.change(longest).is_ok()));
    }
}

#[test]
fn there_is_one_authority_and_clients_come_and_go() {
    let mut rig = Rig::automatic();
    for _ in 0..2 {
        assert_eq!(rig.change(CharterCommand::Establish(authority(b"one"))), Ok(Outcome::Charter));
    }
    let other = CharterCommand::Establish(authority(b"two"));
    assert_eq!(rig.change(other), Err(Rejection::AuthorityExists));
    assert_eq!(rig.charter().authority, Some(authority(b"one")));
    rig.change(elapsed(77)).unwrap();
    for n in [3, 1, 2, 1] {
        rig.change(issue(n)).unwrap();
    }
    let names: Vec<_> = rig.charter().clients.iter().map(|client| client.name.clone()).collect();
    assert_eq!(names, ["client 1", "client 2", "client 3"]);
    let other = CharterCommand::IssueClient { key: ClientKey([1; 32]), name: "another".into() };
    assert_eq!(rig.change(other), Err(Rejection::ClientExists));
    let revoke = |n| CharterCommand::RevokeClient { key: ClientKey([n; 32]) };
    rig.change(revoke(2)).unwrap();
    assert_eq!(rig.change(revoke(2)), Err(Rejection::ClientNotFound));
    let charter = rig.charter();
    assert!(charter.client(ClientKey([2; 32])).is_none());
    assert_eq!(charter.client(ClientKey([3; 32])).unwrap().issued, 77);
}

fn tombstone(cluster: u64, signer: u8) -> Tombstone {
    Tombstone {
        cluster: ClusterId(cluster),
        winner: WINNER,
        at: LogIndex(cluster),
        signer: key(signer),
        signature: [signer; 64],
    }
}

#[test]
fn every_change_of_the_charter_is_in_the_digest() {
    let commands = [
        CharterCommand::Seal,
        CharterCommand::OpenWindow { seconds: 600 },
        CharterCommand::OpenWindow { seconds: 601 },
        elapsed(60),
        elapsed(61),
        approve(1),
        approve(2),
        create(1, 600),
        create(1, 601),
        create(2, 600),
        CharterCommand::CreateToken { id: token(1), key: TokenKey([9; 32]), seconds: 600 },
        issue(1),
        issue(2),
        CharterCommand::Establish(authority(b"one")),
        CharterCommand::Establish(authority(b"two")),
        CharterCommand::Dissolve { winner: WINNER },
        CharterCommand::Dissolve { winner: ClusterId(5) },
        give_up(1),
        CharterCommand::Bury(tombstone(1, 1)),
        CharterCommand::Bury(tombstone(1, 2)),
        CharterCommand::Bury(tombstone(2, 1)),
        admit(1, Admission::Window),
        admit(1, Admission::FleetKey),
        admit(2, Admission::Window),
    ];
    let digests: BTreeSet<_> = commands
        .iter()
        .map(|command| {
            let mut rig = Rig::automatic();
            rig.change(elapsed(10)).unwrap();
            rig.change(command.clone()).unwrap();
            rig.view().digest()
        })
        .collect();
    assert_eq!(digests.len(), commands.len());
}

/// Who may come in, as the design reads.
#[derive(Default)]
struct Model {
    automatic: bool,
    committed: bool,
    dissolved: bool,
    now: u64,
    opened: u64,
    closes: u64,
    founding: bool,
    /// When each ends, and who came in by it.
    tokens: BTreeMap<u8, (u64, Option<u8>)>,
    approved: BTreeSet<u8>,
    inside: BTreeSet<u8>,
    removed: BTreeSet<u8>,
}

#[derive(Clone, Debug)]
enum Move {
    Admit(u8, Admission),
    Pass(u64),
    Back,
    Open(u64),
    Seal,
    Approve(u8),
    Create(u8, u64),
    Revoke(u8),
    Remove(u8),
    Put,
    Dissolve,
    Yield(u8),
    Restart,
}

fn moves() -> impl Strategy<Value = Move> {
    let node = || 1..6_u8;
    let by = prop_oneof![
        4 => Just(Admission::Window),
        4 => (1..4_u8).prop_map(|n| Admission::Token(token(n))),
        2 => Just(Admission::Approval),
        1 => Just(Admission::FleetKey),
    ];
    prop_oneof![
        12 => (node(), by).prop_map(|(n, by)| Move::Admit(n, by)),
        6 => prop_oneof![Just(1), Just(599), Just(600), Just(1800), 0..2000_u64].prop_map(Move::Pass),
        1 => Just(Move::Back),
        1 => prop_oneof![Just(60), Just(600), Just(0)].prop_map(Move::Open),
        1 => Just(Move::Seal),
        3 => node().prop_map(Move::Approve),
        3 => ((1..4_u8), prop_oneof![Just(60), Just(600)]).prop_map(|(n, seconds)| Move::Create(n, seconds)),
        1 => (1..4_u8).prop_map(Move::Revoke),
        3 => node().prop_map(Move::Remove),
        1 => Just(Move::Put),
        1 => Just(Move::Dissolve),
        1 => node().prop_map(Move::Yield),
        1 => Just(Move::Restart),
    ]
}

impl Model {
    fn may_enter(&self, n: u8, by: Admission) -> bool {
        let by_itself = self.automatic && !self.removed.contains(&n);
        match by {
            Admission::Window => by_itself && self.now < self.closes,
            Admission::FleetKey => by_itself,
            Admission::Approval => self.approved.contains(&n),
            Admission::Token(id) => {
                self.tokens.get(&id.0[0]).is_some_and(|(expires, by)| self.now < *expires && by.is_none())
            }
        }
    }

    /// Who was let in by a token keeps it: nobody ever comes here.
    fn expire(&mut self) {
        let waits = |by: &Option<u8>| by.is_some_and(|n| self.inside.contains(&n));
        let kept = |by: &Option<u8>| if waits(by) { 30 * 24 * 60 * MINUTE } else { 0 };
        self.tokens.retain(|_, (expires, by)| self.now < *expires + kept(by));
    }

    /// Whether the move succeeds.
    fn play(&mut self, step: &Move) -> bool {
        if self.dissolved {
            return match step {
                Move::Dissolve | Move::Restart => true,
                Move::Yield(n) => !self.inside.contains(n),
                _ => false,
            };
        }
        let ok = match *step {
            Move::Admit(n, by) => {
                let (inside, may) = (self.inside.contains(&n), self.may_enter(n, by));
                if !inside && may {
                    self.inside.insert(n);
                    self.approved.remove(&n);
                    match by {
                        Admission::Token(id) => self.tokens.get_mut(&id.0[0]).unwrap().1 = Some(n),
                        Admission::Window if self.founding => {
                            self.closes = self.closes.max((self.now + 1800).min(self.opened + 3600));
                        }
                        _ => {}
                    }
                }
                return inside || may;
            }
            Move::Pass(seconds) => {
                self.now += seconds;
                self.expire();
                return true;
            }
            Move::Back | Move::Restart => return true,
            Move::Open(seconds) => {
                let ok = self.automatic && seconds > 0;
                if ok {
                    (self.opened, self.closes, self.founding) = (self.now, self.now + seconds, false);
                }
                ok
            }
            Move::Seal => {
                self.closes = self.closes.min(self.now);
                true
            }
            Move::Approve(n) => {
                if !self.inside.contains(&n) {
                    self.approved.insert(n);
                }
                true
            }
            Move::Create(n, seconds) => {
                self.tokens.entry(n).or_insert((self.now + seconds, None));
                true
            }
            Move::Revoke(n) => self.tokens.remove(&n).is_some(),
            Move::Remove(n) => {
                let was = self.inside.remove(&n);
                if was {
                    self.removed.insert(n);
                }
                was
            }
            Move::Put => true,
            Move::Dissolve => {
                self.dissolved = !self.committed;
                return self.dissolved;
            }
            Move::Yield(n) => {
                self.dissolved = !self.inside.contains(&n);
                return self.dissolved;
            }
        };
        self.committed |= ok;
        ok
    }
}

fn play(automatic: bool, steps: Vec<Move>) {
    let (mut rig, mut model) = if automatic {
        let model = Model { automatic, founding: true, closes: 1800, ..Model::default() };
        (Rig::automatic(), model)
    } else {
        (Rig::new(), Model { committed: true, ..Model::default() })
    };
    for step in steps {
        let (before, keys) = (rig.charter(), rig.keys());
        let id_of = |rig: &Rig, n| {
            let facts = rig.view().facts().clone();
            facts.members.iter().find(|member| member.key == Some(key(n))).map_or(MemberId(99), Member::id)
        };
        let command = match step {
            Move::Restart => {
                rig.rotate();
                rig.fold();
                rig.reopen();
                assert_eq!(rig.charter(), before);
                continue;
            }
            Move::Admit(n, by) => Command::Charter(admit(n, by)),
            Move::Pass(seconds) => Command::Charter(elapsed(model.now + seconds)),
            Move::Back => Command::Charter(elapsed(model.now / 2)),
            Move::Open(seconds) => Command::Charter(CharterCommand::OpenWindow { seconds }),
            Move::Seal => Command::Charter(CharterCommand::Seal),
            Move::Approve(n) => Command::Charter(approve(n)),
            Move::Create(n, seconds) => Command::Charter(create(n, seconds)),
            Move::Revoke(n) => Command::Charter(CharterCommand::RevokeToken { id: token(n) }),
            Move::Remove(n) => remove(id_of(&rig, n)),
            Move::Put => Command::Put(put("k", "v")),
            Move::Dissolve => Command::Charter(CharterCommand::Dissolve { winner: WINNER }),
            Move::Yield(n) => Command::Charter(give_up(n)),
        };
        let expected = model.play(&step);
        let outcome = rig.apply(command).outcome;
        assert_eq!(outcome.is_ok(), expected, "{step:?}: {outcome:?}");
        let after = rig.charter();
        assert!(after.elapsed >= before.elapsed, "time does not go back");
        assert!(after.committed || !before.committed, "what is committed stays so");
        let may_end = !before.committed || matches!(step, Move::Yield(_));
        assert!(after.dissolved == before.dissolved || may_end);
        assert_eq!((after.elapsed, after.committed), (model.now, model.committed));
        let inside: BTreeSet<_> = model.inside.iter().map(|n| key(*n)).collect();
        assert_eq!(rig.keys(), inside, "{step:?}");
        let came = rig.keys().difference(&keys).count();
        assert!(came == 0 || matches!(step, Move::Admit(..)), "nobody comes in by {step:?}");
    }
    rig.check_digest();
}

proptest! {
    #[test]
    fn nobody_comes_in_without_a_reason(automatic in any::<bool>(), steps in vec(moves(), 1..60)) {
        play(automatic, steps);
    }
}
