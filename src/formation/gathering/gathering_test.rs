//! The rules of founding one by one, with other nodes that say what the test wants. Whole networks are `tests/sim`'s.

use std::collections::BTreeSet;

use super::*;
use crate::formation::identity::{ClusterRoot, Generation};
use crate::formation::message::Standing;
use crate::ids::{ClusterId, Incarnation, MemberId};

/// Keys by the order of their fingerprints, so that 0 founds.
fn keys() -> Vec<PublicKey> {
    let mut keys: Vec<PublicKey> = (1..=4).map(|seed| PublicKey([seed; 32])).collect();
    keys.sort_by_key(Fingerprint::of);
    keys
}

fn node(n: usize) -> Fingerprint {
    Fingerprint::of(&keys()[n])
}

fn at(seconds: f64) -> Instant {
    Instant(0) + Duration::from_secs_f64(seconds)
}

fn all(nodes: &[usize]) -> View {
    View::of(nodes.iter().map(|n| node(*n)))
}

/// One node, and what it has to do.
struct Fixture {
    gathering: Gathering,
    now: Instant,
    /// What others answer to probes: their view.
    views: BTreeMap<Fingerprint, (PublicKey, View)>,
    /// Who of them waits for a cluster.
    waits: BTreeSet<Fingerprint>,
    persists: Vec<Option<Promise>>,
    asked: Vec<(AskId, Fingerprint, Question)>,
    answers: Vec<Answer>,
    end: Option<End>,
}

impl Fixture {
    fn new(own: usize, promise: Option<Promise>) -> Self {
        Self::with_claim(own, promise, &[])
    }

    fn with_claim(own: usize, promise: Option<Promise>, claim: &[u8]) -> Self {
        Self::of(own, promise, claim, false)
    }

    fn of(own: usize, promise: Option<Promise>, claim: &[u8], guarded: bool) -> Self {
        let options = Options {
            key: keys()[own],
            name: format!("n{own}"),
            peer_urls: Vec::new(),
            claim: claim.to_vec(),
            run: Incarnation(1),
            understands: CommandVersion(7),
            guarded,
            promise,
            prefers: None,
            timers: Timers::default(),
            prng: Prng::new(7),
        };
        let mut gathering = Gathering::new(at(0.0), options);
        gathering.handle_network(at(0.0), Network { carrier_since: Some(at(0.0)), last_up: None });
        Self {
            gathering,
            now: at(0.0),
            views: BTreeMap::new(),
            waits: BTreeSet::new(),
            persists: Vec::new(),
            asked: Vec::new(),
            answers: Vec::new(),
            end: None,
        }
    }

    /// Another node that answers probes, and sees these.
    fn with(mut self, other: usize, view: &[usize]) -> Self {
        self.views.insert(node(other), (keys()[other], all(view)));
        self.gathering.handle_sighting(self.now, Whom::Node(node(other)), true);
        self
    }

    /// Lets time pass; probes are answered at once, and what is to be noted is noted.
    fn until(&mut self, seconds: f64) -> &mut Self {
        loop {
            self.drain();
            match self.gathering.poll_timeout(self.now) {
                Some(next) if next <= at(seconds) => {
                    assert!(next > self.now, "{:?}", self.gathering.status(self.now));
                    self.now = next;
                }
                _ => break,
            }
        }
        self.now = at(seconds);
        self.drain();
        self
    }

    fn drain(&mut self) {
        while let Some(output) = self.gathering.poll(self.now) {
            match output {
                Output::Ask { ask, whom: Whom::Node(whom), question } => {
                    match (&question, self.views.get(&whom)) {
                        (Question::Probe { .. }, Some((key, view))) => {
                            let (name, view) = ("other".to_owned(), view.clone());
                            let waits = self.waits.contains(&whom);
                            let answer = Answer::Gathers { name, round: None, promised: None, waits, view };
                            self.gathering.handle_answer(self.now, ask, *key, answer);
                        }
                        (Question::Probe { .. }, None) => {
                            self.gathering.handle_lost(self.now, ask, "nobody answers");
                        }
                        _ => self.asked.push((ask, whom, question)),
                    }
                }
                Output::Ask { ask, .. } => self.gathering.handle_lost(self.now, ask, "nobody answers"),
                Output::Answer { answer, .. } => self.answers.push(answer),
                Output::Persist(promise) => self.persists.push(promise),
                Output::End(end) => self.end = Some(end),
            }
        }
    }

    fn persisted(&mut self) -> &mut Self {
        self.gathering.handle_persisted(self.now);
        self.drain();
        self
    }

    /// What another node is answered; `None`: nothing yet.
    fn asks(&mut self, other: usize, question: Question) -> Option<Answer> {
        self.gathering.handle_question(self.now, keys()[other], question);
        self.drain();
        self.answers.pop()
    }

    fn answered(&mut self, other: usize, answer: Answer) {
        let place = self.asked.iter().position(|(_, whom, _)| *whom == node(other)).unwrap();
        let (ask, ..) = self.asked.remove(place);
        self.gathering.handle_answer(self.now, ask, keys()[other], answer);
        self.drain();
    }

    fn state(&self) -> State {
        self.gathering.status(self.now).state
    }
}

fn asks_for_promise(round: u64, view: &[usize]) -> Question {
    Question::Promise { round, patient: false, view: all(view) }
}

fn member(cluster: u64, committed: bool) -> Answer {
    let (cluster, generation) = (ClusterId(cluster), Generation(1));
    let (uses, understands) = (CommandVersion(1), CommandVersion(1));
    let name = "m".into();
    Answer::Member(Standing { name, cluster, generation, committed, open: true, uses, understands })
}

fn welcome() -> Welcome {
    let (root, generation, member) = (ClusterRoot([5; 32]), Generation(1), MemberId(5));
    Welcome { root, generation, member, members: Vec::new(), commands: CommandVersion::FIRST }
}

#[test]
fn the_lowest_founds_with_the_promises_of_all_that_it_sees() {
    let mut lowest = Fixture::new(0, None).with(1, &[0, 1, 2]).with(2, &[0, 1, 2]);
    assert_eq!(lowest.until(2.9).state(), State::Probing(at(3.0)));
    lowest.until(3.0);
    let [Some(own)] = lowest.persists[..] else { panic!("{:?}", lowest.persists) };
    assert_eq!(own.candidate, keys()[0]);
    assert!(lowest.asked.is_empty(), "its own promise comes first");
    lowest.persisted();
    let whom: Vec<Fingerprint> = lowest.asked.iter().map(|(_, whom, _)| *whom).collect();
    assert_eq!(whom, [node(1), node(2)]);
    let question = asks_for_promise(own.round, &[0, 1, 2]);
    assert!(lowest.asked.iter().all(|(_, _, asked)| *asked == question), "{:?}", lowest.asked);
    lowest.answered(1, Answer::Promised { round: own.round });
    assert_eq!(lowest.end, None);
    let refused = lowest.asks(1, asks_for_promise(9, &[0, 1, 2]));
    assert!(matches!(refused, Some(Answer::NotPromised(_))), "it has promised itself");
    lowest.answered(2, Answer::Promised { round: own.round });
    assert_eq!(lowest.end, Some(End::Found { alone: false, with: vec![node(1), node(2)] }));
    let Some(Answer::Gathers { round, .. }) =
        lowest.asks(1, Question::Probe { name: "n1".into(), over: None, view: all(&[0, 1, 2]) })
    else {
        panic!("it answers until it is a member")
    };
    assert_eq!(round, Some(own.round), "whoever has promised is bound still");
}

#[test]
fn a_refusal_ends_the_attempt_and_the_next_one_is_another() {
    let mut lowest = Fixture::new(0, None).with(1, &[0, 1]);
    lowest.until(3.0).persisted().answered(1, Answer::NotPromised("no".into()));
    let first = lowest.persists[0].unwrap();
    assert!(matches!(lowest.state(), State::BackedOff(why, _) if why == "no"));
    assert_eq!(lowest.persists.last(), Some(&None), "it is free itself");
    let Some(Answer::Gathers { round: None, promised: None, waits: false, .. }) =
        lowest.asks(1, Question::Probe { name: "n1".into(), over: None, view: all(&[0, 1]) })
    else {
        panic!("and says so")
    };
    lowest.persisted().until(5.0);
    let second = lowest.persists.last().unwrap().unwrap();
    assert_ne!(first.round, second.round);
    lowest.persisted().answered(1, Answer::Promised { round: first.round });
    assert_eq!(lowest.end, None, "a promise for another attempt counts nothing");
}

#[test]
fn a_promise_is_answered_from_the_disk_and_given_once() {
    let mut giver = Fixture::new(1, None).with(0, &[0, 1, 2]).with(2, &[0, 1, 2]);
    let early = giver.asks(0, asks_for_promise(5, &[0, 1]));
    assert!(matches!(early, Some(Answer::NotPromised(_))), "it does not see the same");
    giver.until(2.5);
    assert!(matches!(giver.asks(2, asks_for_promise(5, &[0, 1, 2])), Some(Answer::NotPromised(_))));
    assert_eq!(giver.asks(0, asks_for_promise(5, &[0, 1, 2])), None, "not yet");
    assert_eq!(giver.persists, [Some(Promise { candidate: keys()[0], round: 5 })]);
    giver.persisted();
    assert_eq!(giver.answers.pop(), Some(Answer::Promised { round: 5 }));
    assert_eq!(giver.asks(0, asks_for_promise(5, &[0, 1, 2])), Some(Answer::Promised { round: 5 }), "again");
    for (other, round) in [(0, 6), (2, 7)] {
        let answer = giver.asks(other, asks_for_promise(round, &[0, 1, 2]));
        assert!(matches!(answer, Some(Answer::NotPromised(_))), "{answer:?}");
    }
    // The others vanish: it is the lowest now, and alone, but bound.
    giver.views.clear();
    giver.until(32.0);
    assert!(matches!(giver.state(), State::Promised(to, _) if to == node(0)), "{:?}", giver.state());
    assert_eq!((giver.end.clone(), giver.persists.len()), (None, 1));
    giver.until(33.0);
    assert_eq!(giver.persists.pop(), Some(Some(giver.gathering.held.unwrap().promise)), "its own attempt");
    assert_eq!(giver.gathering.held.unwrap().promise.candidate, keys()[1]);
}

#[test]
fn a_promise_is_held_whole_again_after_a_restart() {
    let promise = Promise { candidate: keys()[3], round: 5 };
    let mut giver = Fixture::new(1, Some(promise)).with(0, &[0, 1]);
    giver.until(29.9);
    assert_eq!(giver.state(), State::Promised(node(3), at(30.0)));
    assert!(matches!(giver.asks(0, asks_for_promise(6, &[0, 1])), Some(Answer::NotPromised(_))));
    giver.until(30.0);
    assert_eq!(giver.asks(0, asks_for_promise(7, &[0, 1])), None, "it is about to promise");
    // What it has promised itself died with the attempt.
    let own = Promise { candidate: keys()[1], round: 5 };
    let mut free = Fixture::new(1, Some(own)).with(2, &[1, 2]);
    free.until(2.5);
    assert_eq!(free.persists, [None]);
}

/// Each is written to the disk, and so is its end: a node that is nobody's friend could wear a flash chip out with them.
#[test]
fn promises_that_are_taken_back_at_once_are_not_given_at_any_rate() {
    let mut giver = Fixture::new(1, None).with(0, &[0, 1]);
    giver.until(2.5);
    for turn in 0..40_u32 {
        giver.until(2.5 + f64::from(turn) / 20.0);
        giver.asks(0, asks_for_promise(turn.into(), &[0, 1]));
        giver.persisted();
        giver.asks(0, Question::Probe { name: "n0".into(), over: Some(turn.into()), view: all(&[0, 1]) });
        giver.persisted();
    }
    let given = giver.persists.iter().filter(|promise| promise.is_some()).count();
    assert_eq!(given, 2, "one in each of two seconds");
}

/// What an answer says that was asked for before the promise may be from before the attempt.
#[test]
fn only_the_word_of_the_candidate_ends_a_promise_early() {
    let mut giver = Fixture::new(1, None).with(0, &[0, 1]);
    giver.until(2.5).asks(0, asks_for_promise(5, &[0, 1]));
    giver.persisted();
    let probe = |over| Question::Probe { name: "n0".into(), over, view: all(&[0, 1]) };
    giver.views.clear();
    for over in [None, Some(4)] {
        giver.asks(0, probe(over));
        assert!(giver.gathering.held.is_some());
    }
    giver.asks(0, probe(Some(5)));
    assert!(giver.gathering.held.is_none());
    assert_eq!(giver.persists.last(), Some(&None));
    let mut giver = Fixture::new(1, None).with(0, &[0, 1]);
    giver.until(2.5).asks(0, asks_for_promise(5, &[0, 1]));
    assert!(giver.gathering.held.is_some(), "a probe of the same moment proves nothing");
    giver.until(3.1);
    assert!(giver.gathering.held.is_none(), "it has said that it makes no attempt");
}

#[test]
fn nobody_founds_beside_a_member() {
    let mut lowest = Fixture::new(0, None).with(1, &[0, 1]);
    lowest.until(3.0).persisted();
    // From now on it answers what the test wants, and nothing else.
    lowest.views.clear();
    lowest.answered(1, member(7, false));
    assert!(lowest.end.is_none() && matches!(lowest.state(), State::Joining(ClusterId(7))));
    assert!(matches!(lowest.asked[..], [(_, whom, Question::Join { .. })] if whom == node(1)));
    lowest.answered(1, Answer::Pending("approve it".into()));
    assert!(matches!(lowest.state(), State::Pending(ClusterId(7), why) if why == "approve it"));
    // Another cluster has said nothing of the kind.
    let now = lowest.now;
    let probe = lowest.gathering.neighbours.ask(now, Whom::Node(node(1)), Matter::Probe);
    lowest.gathering.handle_answer(now, probe, keys()[1], member(8, false));
    assert_eq!(lowest.state(), State::Joining(ClusterId(8)));
    lowest.persisted().until(32.9);
    assert!(matches!(lowest.state(), State::MemberGone(_)), "{:?}", lowest.state());
    lowest.until(34.0).persisted();
    assert_eq!(lowest.end, Some(End::Found { alone: true, with: vec![] }), "it never came back");
}

/// A node under a promise joins as soon as it hears that there is a cluster.
#[test]
fn who_has_promised_joins_the_founder_at_once() {
    let mut giver = Fixture::new(1, None).with(0, &[0, 1]);
    giver.until(2.5).asks(0, asks_for_promise(5, &[0, 1]));
    giver.persisted();
    let now = giver.now;
    giver.views.clear();
    let probe = giver.gathering.neighbours.ask(now, Whom::Node(node(0)), Matter::Probe);
    giver.gathering.handle_answer(now, probe, keys()[0], member(7, false));
    giver.drain();
    giver.answered(0, Answer::Welcome(Box::new(welcome())));
    assert_eq!(giver.end, Some(End::Join(Box::new(welcome()))));
    let late = giver.asks(2, asks_for_promise(8, &[0, 1, 2]));
    assert!(matches!(late, Some(Answer::Wait(_))), "{late:?}");
}

/// What a node waits for that sees members of these clusters, when it has looked around for so long.
fn beside_after(seconds: f64, prefers: Option<u64>, standings: &[(usize, u64, bool)]) -> State {
    let mut fresh = Fixture::new(0, None);
    fresh.gathering.prefers = prefers.map(ClusterId);
    fresh.now = at(seconds);
    for (other, cluster, committed) in standings {
        fresh.gathering.handle_sighting(fresh.now, Whom::Node(node(*other)), true);
        let ask = fresh.gathering.neighbours.ask(fresh.now, Whom::Node(node(*other)), Matter::Probe);
        fresh.gathering.handle_answer(fresh.now, ask, keys()[*other], member(*cluster, *committed));
    }
    fresh.state()
}

fn beside(prefers: Option<u64>, standings: &[(usize, u64, bool)]) -> State {
    beside_after(1.0, prefers, standings)
}

/// A third cluster that is sealed would keep it waiting for an operator.
#[test]
fn who_has_left_a_cluster_joins_the_one_that_it_was_given_up_for() {
    for committed in [false, true] {
        let both = [(1, 4, true), (2, 7, committed)];
        for seconds in [1.0, 29.9, 30.0] {
            assert_eq!(beside_after(seconds, Some(7), &both), State::Joining(ClusterId(7)));
        }
        assert_eq!(beside(Some(9), &both), State::Joining(ClusterId(9)), "it may only not be heard yet");
        assert_eq!(beside_after(30.0, Some(9), &both), beside(None, &both), "it is not there any more");
    }
    assert_eq!(beside_after(30.0, Some(7), &[(1, 4, false)]), State::Joining(ClusterId(4)));
}

/// The other cluster has its key. A third one that it hears first would have it as well, and one of the two would have a member that never comes.
#[test]
fn who_has_left_a_cluster_asks_nobody_before_the_other_one_has_had_time_to_be_heard() {
    let mut left = Fixture::new(0, None);
    left.gathering.prefers = Some(ClusterId(7));
    let hears = |left: &mut Fixture, n: usize, cluster: u64| {
        left.gathering.handle_sighting(left.now, Whom::Node(node(n)), true);
        let ask = left.gathering.neighbours.ask(left.now, Whom::Node(node(n)), Matter::Probe);
        left.gathering.handle_answer(left.now, ask, keys()[n], member(cluster, true));
        left.drain();
    };
    for tick in 1..30 {
        left.until(f64::from(tick));
        hears(&mut left, 1, 4);
        assert_eq!((left.state(), left.asked.len()), (State::Joining(ClusterId(7)), 0));
    }
    let mut other = left;
    assert!(
        other.gathering.poll_timeout(other.now).is_some_and(|next| next <= at(30.0)),
        "it goes on by itself"
    );
    other.until(30.0);
    assert!(
        matches!(other.asked[..], [(_, whom, Question::Join { .. })] if whom == node(1)),
        "{:?}",
        other.asked
    );
    // Alone it founds nothing meanwhile either, and does then.
    let mut alone = Fixture::new(0, None);
    alone.gathering.prefers = Some(ClusterId(7));
    assert_eq!(alone.until(29.9).state(), State::Joining(ClusterId(7)));
    assert_eq!(alone.gathering.poll_timeout(alone.now), Some(at(30.0)), "by itself, too");
    alone.until(40.0).persisted();
    assert_eq!(alone.end, Some(End::Found { alone: true, with: Vec::new() }));
}

#[test]
fn of_clusters_the_one_that_was_written_to_is_joined_and_of_two_none() {
    let says = |standings: &[(usize, u64, bool)]| beside(None, standings);
    assert_eq!(says(&[(1, 7, false), (2, 4, false)]), State::Joining(ClusterId(4)));
    assert_eq!(says(&[(1, 7, true), (2, 4, false)]), State::Joining(ClusterId(7)));
    assert_eq!(says(&[(1, 7, true), (2, 4, true)]), State::Conflict(vec![ClusterId(4), ClusterId(7)]));
    assert_eq!(says(&[(1, 7, true), (2, 7, true)]), State::Joining(ClusterId(7)));
}

/// Which of two clusters is the right one an operator says, and has to be able to. One that lets in whoever asks would decide it by itself.
#[test]
fn of_two_clusters_that_were_written_to_those_are_asked_that_an_operator_decides_for() {
    let hears = |fresh: &mut Fixture, open: [bool; 2]| {
        for (n, open) in (1..).zip(open) {
            let Answer::Member(standing) = member(n as u64, true) else { unreachable!("it is one") };
            fresh.gathering.handle_sighting(fresh.now, Whom::Node(node(n)), true);
            let ask = fresh.gathering.neighbours.ask(fresh.now, Whom::Node(node(n)), Matter::Probe);
            let answer = Answer::Member(Standing { open, ..standing });
            fresh.gathering.handle_answer(fresh.now, ask, keys()[n], answer);
        }
        fresh.drain();
    };
    // The first one that it hears of it takes for the only one.
    let both = |open| {
        let mut fresh = Fixture::new(0, None);
        hears(&mut fresh, open);
        fresh.answered(1, Answer::Wait("not now".into()));
        fresh.now = fresh.now + Timers::default().join_every;
        hears(&mut fresh, open);
        fresh
    };
    let whom = |fresh: &Fixture| fresh.asked.iter().map(|(_, whom, _)| *whom).collect::<Vec<_>>();
    assert_eq!(whom(&both([true, true])), []);
    assert_eq!(whom(&both([true, false])), [node(2)]);
    assert_eq!(whom(&both([false, true])), [node(1)]);
    let mut fresh = both([false, false]);
    assert_eq!(whom(&fresh), [node(2)], "each in its turn");
    fresh.answered(2, Answer::Pending("approve it".into()));
    assert_eq!(fresh.state(), State::Conflict(vec![ClusterId(1), ClusterId(2)]));
    fresh.now = fresh.now + Timers::default().pending_every;
    hears(&mut fresh, [false, false]);
    fresh.answered(1, Answer::Welcome(Box::new(welcome())));
    assert_eq!(fresh.end, Some(End::Join(Box::new(welcome()))));
}

#[test]
fn a_lone_node_founds_after_the_time_that_a_switch_may_take() {
    let founds_at = |last_up: Option<Instant>| {
        let mut lone = Fixture::new(0, None);
        lone.gathering.handle_network(at(0.0), Network { carrier_since: Some(at(0.0)), last_up });
        let early = if last_up.is_some() { 34.9 } else { 7.9 };
        assert!(lone.until(early).persists.is_empty());
        lone.until(early + 0.1).persisted();
        lone.end
    };
    assert_eq!(founds_at(None), Some(End::Found { alone: true, with: vec![] }));
    assert_eq!(founds_at(Some(at(0.0))), Some(End::Found { alone: true, with: vec![] }));
    let mut dark = Fixture::new(0, None);
    dark.gathering.handle_network(at(0.0), Network::default());
    dark.until(100.0);
    assert_eq!((dark.state(), dark.end), (State::NoNetwork, None));
}

/// One that is announced and cannot be reached delays the others, and does not stop them; nor do any number of them.
#[test]
fn who_does_not_answer_is_left_out_and_named() {
    let mut lowest = Fixture::new(0, None).with(1, &[0, 1]);
    lowest.gathering.handle_sighting(at(0.0), Whom::Node(node(2)), true);
    lowest.gathering.handle_sighting(at(0.0), Whom::Address("box:2380".into()), true);
    lowest.until(9.9);
    assert!(matches!(lowest.state(), State::Unreached(..)));
    let around = lowest.gathering.status(lowest.now).around;
    let silent = around.iter().filter(|sighting| sighting.unreachable.is_some());
    assert_eq!(silent.count(), 2, "{around:?}");
    lowest.until(10.0);
    assert_eq!(lowest.state(), State::Candidate);
    let mut flooded = Fixture::new(0, None).with(1, &[0, 1]);
    for n in 1..40_u8 {
        flooded.gathering.handle_sighting(
            flooded.now,
            Whom::Node(Fingerprint::of(&PublicKey([100 + n; 32]))),
            true,
        );
        flooded.until(f64::from(n) / 2.0);
    }
    assert!(matches!(flooded.state(), State::Unreached(..)));
    assert_eq!(flooded.until(20.0).state(), State::Candidate);
}

/// The lowest sees, alone, a cluster that does not let it in. The others would wait for it to found, and it for an operator.
#[test]
fn who_waits_for_a_cluster_stops_nobody() {
    let mut lowest = Fixture::new(0, None).with(1, &[0, 1]);
    lowest.gathering.handle_sighting(lowest.now, Whom::Node(node(2)), true);
    let probe = || Question::Probe { name: "n1".into(), over: None, view: all(&[0, 1]) };
    let mut says = Vec::new();
    for second in 1..60_u32 {
        lowest.until(f64::from(second));
        if second < 50 {
            let ask = lowest.gathering.neighbours.ask(lowest.now, Whom::Node(node(2)), Matter::Probe);
            lowest.gathering.handle_answer(lowest.now, ask, keys()[2], member(7, true));
        }
        let Some(Answer::Gathers { waits, .. }) = lowest.asks(1, probe()) else { panic!("it is in none") };
        says.push(waits);
    }
    assert_eq!(says.iter().position(|waits| *waits), Some(20), "first it is thought to get in soon");
    assert!(says[20..].iter().all(|waits| *waits), "{says:?}");
    // The cluster is gone for good: it takes part again, and founds when nobody counts on the opposite any more.
    lowest.until(79.9);
    assert!(lowest.gathering.waited > Some(at(77.9)));
    let last = lowest.gathering.waited.unwrap();
    lowest.until(82.5);
    let began = lowest.persists.iter().flatten().count();
    assert_eq!((began, lowest.state()), (0, State::Unstable(last + Duration::from_secs(5))));
    lowest.until(84.0);
    assert_eq!(lowest.state(), State::Candidate);

    let mut second = Fixture::new(1, None).with(0, &[0, 1]).with(2, &[1, 2]);
    second.waits.insert(node(0));
    assert_eq!(second.until(3.0).state(), State::Candidate);
    second.persisted();
    assert!(matches!(second.asked[..], [(_, whom, _)] if whom == node(2)), "{:?}", second.asked);
}

/// Whoever has given the claim is mostly not here, and does not hear a probe.
#[test]
fn with_a_claim_it_is_shown_everywhere_and_nothing_is_founded() {
    let mut guest = Fixture::with_claim(0, None, b"token").with(1, &[0, 1]);
    guest.gathering.handle_sighting(guest.now, Whom::Address("far:2380".into()), true);
    let mut asked = Vec::new();
    for tick in 0..600_u32 {
        guest.now = at(f64::from(tick) / 10.0);
        while let Some(output) = guest.gathering.poll(guest.now) {
            let Output::Ask { ask, whom, question } = output else { panic!("{output:?}") };
            let understands = CommandVersion(7);
            let is_right = |question: &Question| matches!(question, Question::Join { claim, understands: said, .. } if claim == b"token" && *said == understands);
            assert!(is_right(&question), "{question:?}");
            asked.push(whom.clone());
            guest.gathering.handle_lost(guest.now, ask, "no such token");
        }
        let probe = Question::Probe { name: "n1".into(), over: None, view: all(&[0, 1]) };
        let Some(Answer::Gathers { waits: true, .. }) = guest.asks(1, probe) else { panic!("it says so") };
    }
    let count = |whom: &Whom| asked.iter().filter(|asked| *asked == whom).count();
    assert_eq!((count(&Whom::Address("far:2380".into())), count(&Whom::Node(node(1)))), (12, 12));
    assert_eq!(guest.state(), State::Invited(Some("far:2380: no such token".into())));
    assert!(matches!(guest.asks(1, asks_for_promise(5, &[0, 1])), Some(Answer::NotPromised(_))));
    assert!(guest.persists.is_empty());
    // Whoever is there lets it in.
    let ask = guest.gathering.neighbours.ask(guest.now, Whom::Address("far:2380".into()), Matter::Enter);
    guest.gathering.handle_answer(guest.now, ask, keys()[3], Answer::Welcome(Box::new(welcome())));
    guest.drain();
    assert_eq!(guest.end, Some(End::Join(Box::new(welcome()))));
}

/// In which seconds a claim is shown at one place, which does with it what is said here.
fn shown_in(seconds: u32, whom: &Whom, mut heard: impl FnMut(&mut Gathering, Instant, AskId)) -> Vec<u32> {
    let mut guest = Fixture::with_claim(0, None, b"token");
    guest.gathering.handle_sighting(guest.now, whom.clone(), true);
    let mut shown = Vec::new();
    for second in 0..seconds {
        guest.now = at(f64::from(second));
        while let Some(output) = guest.gathering.poll(guest.now) {
            let Output::Ask { ask, whom: asked, .. } = output else { panic!("{output:?}") };
            if asked == *whom {
                shown.push(second);
                heard(&mut guest.gathering, guest.now, ask);
            }
        }
    }
    shown
}

/// A token that has expired lies in its file for years, and nobody wants to be asked about it as long, every few seconds.
#[test]
fn a_claim_that_is_turned_down_is_shown_ever_more_seldom() {
    let (far, near) = (Whom::Address("far:2380".into()), Whom::Node(node(1)));
    let expected = [0, 5, 15, 35, 75, 155, 275, 395];
    for whom in [&far, &near] {
        for answer in [Answer::Pending("used".into()), Answer::Refused("no".into())] {
            let told = |gathering: &mut Gathering, now, ask| {
                gathering.handle_answer(now, ask, keys()[1], answer.clone());
            };
            let shown = shown_in(400, whom, told);
            // Where one has answered it is looked less often whether another one is there.
            let expected = if *whom == near { &expected[..] } else { &[0, 10, 20, 40, 80, 160, 280][..] };
            assert_eq!(shown, expected, "{whom:?}");
        }
    }
    // Who is busy, or does not answer, may let it in any moment.
    let mut times = 0;
    let lost_and_found = |gathering: &mut Gathering, now, ask| {
        times += 1;
        match times {
            4 => gathering.handle_lost(now, ask, "nobody answers"),
            5 => gathering.handle_answer(now, ask, keys()[1], Answer::Wait("no leader".into())),
            _ => gathering.handle_turned_down(now, ask, "no such token"),
        }
    };
    assert_eq!(shown_in(80, &near, lost_and_found), [0, 5, 15, 35, 40, 45, 50, 60]);
}

/// Somebody on the LAN answered where a box was told to ask, said that its token was no good, and the box asked there ever more seldom, also when the cluster had the
/// address again.
#[test]
fn the_word_of_somebody_who_does_not_know_the_claim_delays_it_by_half_a_minute_at_most_and_ends_nothing() {
    for whom in [Whom::Address("far:2380".into()), Whom::Node(node(1))] {
        let turned_down = |gathering: &mut Gathering, now, ask| {
            gathering.handle_turned_down(now, ask, "no such token");
        };
        let shown = shown_in(24 * 60 * 60, &whom, turned_down);
        assert_eq!(shown[..6], [0, 5, 15, 35, 65, 95], "{whom:?}");
        let latest = shown.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(latest == Some(30) && shown.last() > Some(&(24 * 60 * 60 - 31)), "{whom:?}: {latest:?}");
    }
    // Nor does it make those wait longer who do know it.
    let mut times = 0;
    let both = |gathering: &mut Gathering, now, ask| {
        times += 1;
        match times {
            ..6 => gathering.handle_turned_down(now, ask, "no such token"),
            _ => gathering.handle_answer(now, ask, keys()[1], Answer::Pending("used".into())),
        }
    };
    assert_eq!(shown_in(120, &Whom::Node(node(1)), both), [0, 5, 15, 35, 65, 95, 100, 110]);
}

#[test]
fn what_is_said_of_a_claim_that_is_turned_down_comes_before_all_else() {
    let mut guest = Fixture::with_claim(0, None, b"token").with(1, &[1]).with(2, &[2]);
    guest.gathering.handle_sighting(guest.now, Whom::Address("far:2380".into()), true);
    while let Some(Output::Ask { ask, whom, .. }) = guest.gathering.poll(guest.now) {
        let gathering = &mut guest.gathering;
        match whom {
            Whom::Address(_) => gathering.handle_lost(guest.now, ask, "nobody answers"),
            Whom::Node(other) if other == node(1) => {
                gathering.handle_answer(guest.now, ask, keys()[1], Answer::Wait("in no cluster".into()));
            }
            Whom::Node(_) => gathering.handle_turned_down(guest.now, ask, "no such token"),
        }
    }
    let said = format!("{}: no such token", node(2).short());
    assert_eq!(guest.state(), State::Invited(Some(said)));
}

/// All boxes may have the same list of where they are.
#[test]
fn a_node_that_is_told_of_itself_waits_for_nobody() {
    let mut own = Fixture::new(0, None);
    own.gathering.handle_sighting(own.now, Whom::Address("me:2380".into()), true);
    let ask = |own: &mut Fixture| match own.gathering.poll(own.now) {
        Some(Output::Ask { ask, .. }) => ask,
        other => panic!("{other:?}"),
    };
    let first = ask(&mut own);
    own.gathering.handle_itself(own.now, first);
    own.now = at(7.0);
    assert_eq!(own.gathering.poll(own.now), None, "now and then is enough");
    assert!(matches!(own.state(), State::Alone(_)), "{:?}", own.state());
    assert!(own.gathering.status(own.now).around.is_empty());
    // Somebody else may have the address by then.
    own.now = at(10.0);
    let second = ask(&mut own);
    own.gathering.handle_lost(own.now, second, "nobody answers");
    assert_eq!(own.gathering.status(own.now).around.len(), 1);
}

/// Whoever is there may be anybody: a fresh node, or a member that would let it in.
#[test]
fn a_guarded_node_joins_nobody_and_founds_only_where_it_is_alone() {
    let mut guarded = Fixture::of(0, None, &[], true).with(1, &[0, 1]);
    assert_eq!(guarded.until(600.0).state(), State::Guarded(node(1)));
    let probe = Question::Probe { name: "n1".into(), over: None, view: all(&[0, 1]) };
    let Some(Answer::Gathers { waits: true, .. }) = guarded.asks(1, probe) else {
        panic!("it takes no part")
    };
    assert!(matches!(guarded.asks(1, asks_for_promise(5, &[0, 1])), Some(Answer::NotPromised(_))));
    let ask = guarded.gathering.neighbours.ask(guarded.now, Whom::Node(node(1)), Matter::Probe);
    guarded.gathering.handle_answer(guarded.now, ask, keys()[1], member(7, true));
    assert_eq!(guarded.until(602.0).state(), State::Guarded(node(1)));
    assert!(guarded.asked.is_empty() && guarded.persists.is_empty(), "it asks nobody to let it in");
    // Nobody is there any more.
    guarded.views.clear();
    guarded.gathering.handle_sighting(guarded.now, Whom::Node(node(1)), false);
    for tick in 602..700 {
        guarded.until(f64::from(tick)).persisted();
    }
    assert_eq!(guarded.end, Some(End::Found { alone: true, with: Vec::new() }));
}

/// It was told whom to trust: the cluster that its last one was given up for has its key.
#[test]
fn a_guarded_node_that_has_left_a_cluster_joins_the_other_one_and_nothing_else() {
    let left = || {
        let mut guarded = Fixture::of(0, None, &[], true);
        guarded.gathering.prefers = Some(ClusterId(7));
        guarded
    };
    let hears = |guarded: &mut Fixture, n: usize, cluster: u64| {
        guarded.gathering.handle_sighting(guarded.now, Whom::Node(node(n)), true);
        let ask = guarded.gathering.neighbours.ask(guarded.now, Whom::Node(node(n)), Matter::Probe);
        guarded.gathering.handle_answer(guarded.now, ask, keys()[n], member(cluster, true));
        guarded.drain();
    };
    let mut alone = left();
    assert_eq!(alone.until(600.0).state(), State::Joining(ClusterId(7)), "it founds nothing");
    assert_eq!(alone.end, None);
    hears(&mut alone, 1, 4);
    assert_eq!((alone.state(), alone.asked.len()), (State::Joining(ClusterId(7)), 0));
    hears(&mut alone, 2, 7);
    assert!(
        matches!(alone.asked[..], [(_, whom, Question::Join { .. })] if whom == node(2)),
        "{:?}",
        alone.asked
    );
}

#[test]
fn where_nodes_never_see_the_same_the_lowest_goes_on_in_the_end() {
    let mut lowest = Fixture::new(0, None).with(1, &[0, 1, 2]);
    assert!(matches!(lowest.until(19.9).state(), State::ViewsDiffer(other, _) if other == node(1)));
    lowest.until(21.0).persisted();
    assert!(matches!(lowest.asked[..], [(_, _, Question::Promise { patient: true, .. })]));
    let mut giver = Fixture::new(1, None).with(0, &[0, 1]).with(2, &[1, 2]);
    giver.until(2.5);
    let patient = |view: &[usize]| Question::Promise { round: 5, patient: true, view: all(view) };
    assert!(matches!(giver.asks(2, patient(&[1, 2])), Some(Answer::NotPromised(_))), "it sees a lower one");
    assert_eq!(giver.asks(0, patient(&[0, 1])), None, "it is about to promise");
}

#[test]
fn a_node_with_the_same_key_is_told_so_and_a_changed_key_is_not_believed() {
    let mut own = Fixture::new(0, None);
    assert!(matches!(own.asks(0, asks_for_promise(5, &[0])), Some(Answer::Refused(_))));
    let ask = own.gathering.neighbours.ask(own.now, Whom::Node(node(1)), Matter::Probe);
    let answer =
        Answer::Gathers { name: "x".into(), round: None, promised: None, waits: false, view: all(&[2]) };
    own.gathering.handle_sighting(own.now, Whom::Node(node(1)), true);
    own.gathering.handle_answer(own.now, ask, keys()[2], answer);
    let around = own.gathering.status(own.now).around;
    assert!(around.iter().all(|sighting| sighting.stands == Stands::Unknown), "{around:?}");
}
