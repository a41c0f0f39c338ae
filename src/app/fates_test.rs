//! Who leaves a cluster and who may not, what operators are told, and how words of ended clusters come into the next one.

use std::cell::Cell;

use redb::backends::InMemoryBackend;

use super::*;
use crate::command::{Admission, Command, MemberAttributes};
use crate::formation::{Generation, sign, test_founding};
use crate::ids::{Incarnation, PublicKey, Revision, Term};
use crate::machine::Machine;
use crate::mvcc::Allowance;
use crate::store::{Charter, ConfState, Dissolution, Member, Meta, Store, StoreOptions};
use crate::wal::Position;

const ME: MemberId = MemberId(2);

/// A log that ends with the state.
fn nothing() -> Tail {
    Tail::of(LogIndex(5), &[], Position { index: LogIndex(5), term: Term(1) }, false)
}

fn facts(voters: &[u64], committed: bool) -> Facts {
    let conf_state =
        ConfState { voters: voters.iter().copied().map(MemberId).collect(), ..ConfState::default() };
    let charter = Arc::new(Charter { committed, ..Charter::automatic() });
    let attributes = MemberAttributes { member: MemberId(1), ..MemberAttributes::default() };
    let members = vec![Member { key: Some(PublicKey([1; 32])), votes: true, attributes }];
    Facts { members, charter, conf_state, ..Facts::default() }
}

#[test]
fn only_who_has_nothing_and_does_not_vote_may_begin_anew() {
    assert!(is_dispensable(&facts(&[1], false), ME, nothing()));
    assert!(!is_dispensable(&facts(&[1], true), ME, nothing()), "a user has written");
    assert!(!is_dispensable(&facts(&[1, 2], false), ME, nothing()), "it votes");
    let mut leaving = facts(&[1], false);
    leaving.conf_state.voters_outgoing = vec![MemberId(1), ME];
    assert!(!is_dispensable(&leaving, ME, nothing()), "its vote is still needed");
    assert!(!is_dispensable(&facts(&[1], false), ME, Tail::UNKNOWN), "its log may say more");
}

/// What comes of a reason to leave for a member that knows this.
fn comes_of(why: Option<&Parting>, facts: &Facts, may_weigh: bool) -> Departure {
    let (cluster, generation, applied) = (ClusterId(1), Generation(1), LogIndex(5));
    let tail = if may_weigh { Tail::UNKNOWN } else { nothing() };
    departure(why, &Known { cluster, generation, applied, facts, tail, suspect: false }, ME)
}

#[test]
fn a_cluster_that_comes_back_at_the_last_moment_is_not_left() {
    let may_leave =
        |why: Option<&Parting>, facts: &Facts, may_weigh| comes_of(why, facts, may_weigh) != Departure::Stays;
    let unneeded = Some(&Parting::Unneeded(nothing()));
    assert!(may_leave(unneeded, &facts(&[1], false), false));
    assert!(!may_leave(unneeded, &facts(&[1, 2], false), false), "it votes by now");
    assert!(!may_leave(unneeded, &facts(&[1], true), false), "a user has written");
    assert!(!may_leave(unneeded, &facts(&[1], false), true), "a user may have");

    let key = test_founding(1).identity.key;
    let end = Dissolution { winner: ClusterId(9), at: LogIndex(6), ordered: false };
    let told = Parting::Told(vec![sign(&key, ClusterId(1), Generation(1), end)], nothing());
    let mut known = facts(&[1], false);
    known.members[0].key = Some(PublicKey(*key.public()));
    assert!(may_leave(Some(&told), &known, false));
    known.charter = Arc::new(Charter { committed: true, ..Charter::automatic() });
    assert!(!may_leave(Some(&told), &known, false), "a user has written");
    assert!(!may_leave(None, &facts(&[1], false), false));
    let gone = |key| Facts { removed: vec![(ME, key)], ..facts(&[1], true) };
    assert!(may_leave(None, &gone(None), true), "it was forgotten");
    assert!(!may_leave(None, &gone(Some(PublicKey([2; 32]))), false), "it was removed");
    known.charter = Arc::new(Charter { dissolved: Some(end), ..Charter::automatic() });
    assert!(may_leave(None, &known, true));
}

/// The voters may have become more while clients were still served.
#[test]
fn an_operators_order_is_followed_while_those_who_have_said_so_are_a_majority() {
    let key = |seed| test_founding(seed).identity.key;
    let end = Dissolution { winner: ClusterId(9), at: LogIndex(6), ordered: true };
    let word = |seed| sign(&key(seed), ClusterId(1), Generation(1), end);
    let mut known = facts(&[1], true);
    let first = known.members[0].clone();
    known.members[0].key = Some(PublicKey(*key(1).public()));
    let one = Parting::Told(vec![word(1)], nothing());
    assert_eq!(comes_of(Some(&one), &known, false), Departure::Leaves(Some(ClusterId(9))));
    for seed in [3, 4] {
        let (key, member) = (Some(PublicKey(*key(seed).public())), MemberId(seed.into()));
        let attributes = MemberAttributes { member, ..first.attributes.clone() };
        known.members.push(Member { key, attributes, ..first.clone() });
        known.conf_state.voters.push(member);
    }
    assert_eq!(comes_of(Some(&one), &known, false), Departure::Stays);
    let two = Parting::Told(vec![word(1), word(4)], nothing());
    assert_eq!(comes_of(Some(&two), &known, false), Departure::Leaves(Some(ClusterId(9))));
    assert_eq!(comes_of(Some(&two), &known, true), Departure::Stays, "others may vote by now");
}

#[test]
fn a_leader_that_comes_back_ends_the_silence() {
    let mut silence = Silence::default();
    let at = |seconds: u64| Instant(0) + Duration::from_secs(seconds);
    assert_eq!(silence.look(at(5), false), Duration::ZERO);
    assert_eq!(silence.look(at(14), false), Duration::from_secs(9));
    assert_eq!(silence.look(at(20), true), Duration::ZERO);
    assert_eq!(silence.look(at(30), false), Duration::ZERO);
    assert_eq!(silence.look(at(630), false), GIVE_UP_AFTER);
}

#[test]
fn an_operator_is_told_who_is_missed_and_how_far_this_copy_goes() {
    let text = sentence(&facts(&[1], true), ME, LogIndex(41), Duration::from_secs(700));
    let voter = Fingerprint::of(&PublicKey([1; 32]));
    assert!(text.starts_with(&format!("the only voter {voter} is unreachable since 700 s")), "{text}");
    assert!(text.contains("up to index 41") && text.contains("covey recover"), "{text}");
    let text = sentence(&facts(&[1, 2, 3], true), ME, LogIndex(41), Duration::from_secs(700));
    assert!(text.starts_with(&format!("of the voters {voter}, ")), "{text}");
}

/// A cluster whose log is here, with its one member, and what it has been asked.
struct Buried {
    machine: RefCell<Machine>,
    asked: RefCell<Vec<CharterCommand>>,
    /// What is known of the version that it uses, which may be late.
    known: Cell<CommandVersion>,
}

impl Buried {
    fn of(member: PublicKey) -> Self {
        let options = StoreOptions { cache_bytes: 1024 * 1024 };
        let mut store = Store::open(InMemoryBackend::new(), options).unwrap();
        let meta = Meta { charter: Arc::new(Charter::automatic()), revision: Revision(1), ..Meta::default() };
        store.initialise(&meta).unwrap();
        let machine = RefCell::new(Machine::new(Arc::new(store.base().unwrap())).unwrap());
        let (asked, known) = (RefCell::default(), Cell::new(CommandVersion::FIRST));
        let cluster = Self { machine, asked, known };
        let (name, peer_urls, by) = (String::new(), Vec::new(), Admission::Window);
        let admit = CharterCommand::Admit { key: member, name, peer_urls, by, run: Incarnation(1), of: None };
        cluster.apply(&Command::Charter(admit)).unwrap();
        cluster
    }

    fn apply(&self, command: &Command) -> Result<(), Rejection> {
        let mut machine = self.machine.borrow_mut();
        let index = LogIndex(machine.applied().0 + 1);
        machine.apply(index, Term(1), command, Allowance::UNLIMITED).unwrap().outcome.map(drop)
    }

    /// Its member is of a build that looks at signatures from now on, and it does.
    fn raise(&self) {
        let attributes = self.machine.borrow().facts().members[0].attributes.clone();
        let understands = CommandVersion::SIGNED_WORDS;
        self.apply(&Command::Publish(MemberAttributes { understands, ..attributes })).unwrap();
        self.apply(&Command::Raise(understands)).unwrap();
    }

    fn buried(&self) -> Vec<Tombstone> {
        self.machine.borrow().facts().charter.buried.clone()
    }

    /// What comes of burying these. `meanwhile` happens in the first pause.
    fn bury(
        &self,
        words: Vec<(Tombstone, Option<u64>)>,
        meanwhile: impl Fn(&Self),
    ) -> Option<Vec<Tombstone>> {
        let change = async |command: CharterCommand| {
            self.asked.borrow_mut().push(command.clone());
            Ok(self.apply(&Command::Charter(command)))
        };
        let pause = async || {
            assert!(self.asked.borrow().len() < 10, "it never ends");
            meanwhile(self);
        };
        smol::block_on(bury_all(words, || self.known.get(), change, pause))
    }
}

fn word(seed: u8, of: Generation) -> (Tombstone, Option<u64>) {
    let end = Dissolution { winner: ClusterId(9), at: LogIndex(6), ordered: of.0 > 0 };
    let word = sign(&test_founding(seed).identity.key, ClusterId(u64::from(seed)), of, end);
    (word, ordered_of(&word))
}

/// The cluster comes to use newer commands while its newest member has it remember what it brings along, and that member hears of it late.
#[test]
fn words_go_on_in_the_new_command_when_the_cluster_begins_to_use_it() {
    let cluster = Buried::of(PublicKey(*test_founding(1).identity.key.public()));
    let (before, first, second) = (word(1, Generation(0)), word(2, Generation(0)), word(3, Generation(7)));
    assert_eq!(cluster.bury(vec![before], |_| {}), Some(vec![]));
    assert_eq!(*cluster.asked.borrow(), [CharterCommand::Bury(before.0)]);

    cluster.raise();
    cluster.asked.borrow_mut().clear();
    let hears = |cluster: &Buried| cluster.known.set(CommandVersion::SIGNED_WORDS);
    assert_eq!(cluster.bury(vec![first, second], hears), Some(vec![]));
    let signed = |(tombstone, ordered)| CharterCommand::BurySigned { tombstone, ordered };
    assert_eq!(*cluster.asked.borrow(), [CharterCommand::Bury(first.0), signed(first), signed(second)]);
    assert_eq!(second.1, Some(7), "it shows of which generation it is");
    assert_eq!(cluster.buried(), [before.0, first.0, second.0], "each is kept once");
}

#[test]
fn of_a_cluster_that_has_ended_too_everything_is_taken_along() {
    let cluster = Buried::of(PublicKey([1; 32]));
    cluster.apply(&Command::Charter(CharterCommand::Dissolve { winner: ClusterId(8) })).unwrap();
    assert_eq!(cluster.bury(vec![word(2, Generation(0))], |_| {}), None);
    assert_eq!(cluster.buried(), []);
}

/// The log would take it and keep nothing, so that nobody would know.
#[test]
fn words_that_no_cluster_keeps_are_told_of() {
    let cluster = Buried::of(PublicKey([1; 32]));
    cluster.raise();
    cluster.known.set(CommandVersion::SIGNED_WORDS);
    let of = |generation| word(2, Generation(generation));
    let (last, later, true_one) = (of(GENERATIONS_MAX), of(GENERATIONS_MAX + 1), word(3, Generation(0)));
    let dropped = cluster.bury(vec![last, later, true_one], |_| {}).unwrap();
    assert_eq!((dropped.as_slice(), later.1), (&[later.0][..], None));
    assert_eq!(cluster.buried(), [last.0, true_one.0]);
    let told = told_of(&dropped).unwrap();
    assert!(told.contains("are dropped (2)") && told.contains("after the 64th"), "{told}");
    assert_eq!(told_of(&[]), None, "there is nothing to tell");
}
