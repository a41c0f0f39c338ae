//! Gathering: how nodes without a cluster that find each other agree on the one that founds it.
//!
//! Owns: whom this node leaves the founding to, its own attempt to found, and when it joins. Must never: found while it is under a promise to another,
//! answer a promise that is not on disk, or believe anything but authenticated answers. Driven by `app` while the node has no cluster, and by the
//! simulator: everything that happens comes in by `handle_*`, with the time; after each, `poll` until it has nothing more, and again at `poll_timeout`.
//!
//! ```text
//! probes whomever is sighted ─► a member answers ──────────────────────────────► asks to join ─► welcome: the end
//!        │                                                                         │ pending, wait: asks again
//!        ├► another node is the lowest ─► asked for a promise ─► on disk ─► answered: neither founds nor promises
//!        │                                                                 until it joins, the attempt has ended, or 30 s
//!        └► it is the lowest itself, and all see the same ─► promises itself, on disk ─► asks all for a promise
//!                                                             all have promised, and nothing has changed: founds, the end
//!                                                             anything else: the attempt has ended; pauses, begins again
//! ```
//!
//! # Why two nodes that can talk do not both found
//!
//! X founds within 20 s of having begun to ask, with the promises of all that it has talked with in the last 5 s. Y, one of those, holds its promise for 30 s
//! from then on, through any restart, and asks X meanwhile: it finds a member there, and joins. A promise ends early only by the word of X: that this
//! attempt is over, whenever that was said; or, in answer to a question that was asked after the promise, that it makes no attempt or another one, as after a
//! restart. Attempts have random numbers, so that none comes back. A promise that is held is never replaced, not even by one for a later attempt of the same node: the
//! later question may be the one that comes first.
//!
//! Equal views are for those who cannot talk directly: with A–B–C in a row, A and C do not both found while B sees both. Where nodes will never see the
//! same (one radio cell keeps its clients apart), waiting for it would be for ever, so after a while the lowest among all that it sees asks patiently: who sees nobody
//! lower leaves it the founding. Some node can always be that one, and two of them have no neighbour in common.
//!
//! # With a claim
//!
//! A node that was given a claim, a join token, is to be in the cluster that gave it out, wherever that is. It asks whoever it can reach to let it in, and nothing else: the
//! claim itself proves the two to each other, where a probe would not be heard. It never founds, and nobody counts it in. Where the claim is turned down it is shown
//! ever more seldom: a token that has expired stays in its file, and the box may be out of anybody's sight. Who does not know the claim cannot prove anything about it, and
//! so may be anybody that answers there: on such a word it is shown twice a minute at least, for ever.
//!
//! # Guarded
//!
//! A node that is to trust nobody, and was given nothing by which to know others, believes none of them: it joins nobody, leaves the founding to nobody, and founds only where
//! it is alone, so that an operator who forgot to give it something does not find a second cluster. What others say is a reason to wait, and nothing else.
//!
//! # Beside a cluster
//!
//! Who has long waited for a cluster that does not let it in takes no part, says so, and is in nobody's view: the others may never see that cluster.
//! When it takes part again it does not found before what it has said is forgotten; of two that have said so, the later one is in the other's view by then.

mod neighbours;
mod state;
mod talk;
mod timers;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::identity::{Fingerprint, Promise};
use super::message::{Answer, Question, View, Welcome};
use crate::command::CommandVersion;
use crate::ids::{ClusterId, Incarnation, PublicKey};
use crate::planted::{self, Bug};
use crate::prng::Prng;
use crate::time::Instant;
use neighbours::{Matter, Neighbours};
pub use state::{Sighting, Stands, State, Status};
pub use timers::Timers;

/// Promises whose answers wait for the disk; the candidate asks once, at every address that this node may have.
const UNANSWERED_MAX: usize = 64;
/// More of them make a pause no longer.
const FAILURES_COUNTED: u32 = 10;

/// Who gathers.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its key.
    pub key: PublicKey,
    /// What it is called.
    pub name: String,
    /// Where it is reached.
    pub peer_urls: Vec<String>,
    /// What it shows for being let into a cluster; empty: nothing. With it the node is to be in that cluster, and never founds one.
    pub claim: Vec<u8>,
    /// The run that it is in.
    pub run: Incarnation,
    /// The newest commands that it understands.
    pub understands: CommandVersion,
    /// Whether it is to trust nobody, and was given nothing by which to know others.
    pub guarded: bool,
    /// The promise that its record holds.
    pub promise: Option<Promise>,
    /// The cluster that it joins if that is there, whatever others are: its last one has given itself up for that.
    pub prefers: Option<ClusterId>,
    /// How long everything takes.
    pub timers: Timers,
    /// Seeded anew in every run: attempts must not repeat those of an earlier one.
    pub prng: Prng,
}

/// The state of this node's interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Since when some interface has carrier and an address; `None`: none has.
    pub carrier_since: Option<Instant>,
    /// When an interface has last come up. `None`: all have been up for long.
    pub last_up: Option<Instant>,
}

/// Somebody to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The node of this key, wherever the driver knows it to be: as announced, or where it has asked or answered from.
    Node(Fingerprint),
    /// Whoever is at this address, which somebody has configured.
    Address(String),
}

/// A question on its way to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskId(pub u64);

/// A question of another node that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Ask this; [`Gathering::handle_answer`], [`Gathering::handle_lost`], [`Gathering::handle_turned_down`] or [`Gathering::handle_itself`] takes what becomes of it.
    Ask {
        /// To be told with the answer.
        ask: AskId,
        /// Who is asked.
        whom: Whom,
        /// What.
        question: Question,
    },
    /// Answer the question that came with this ticket.
    Answer {
        /// Which.
        ticket: Ticket,
        /// What is answered.
        answer: Answer,
    },
    /// Note this in the identity record ([`super::note_promise`]), then say [`Gathering::handle_persisted`]. One is on its way at a time.
    Persist(Option<Promise>),
    /// There is a cluster. Nothing is asked any more; questions are still answered, until the node answers as a member.
    End(End),
}

/// What gathering has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Found a cluster of this node alone, at once; the others will join. They keep their promises for some seconds only.
    Found {
        /// Whether nobody else was there.
        alone: bool,
        /// Who has left the founding to this node.
        with: Vec<Fingerprint>,
    },
    /// Join.
    Join(Box<Welcome>),
}

/// The founding of a cluster, as one node that has none takes part in it.
#[derive(Debug)]
pub struct Gathering {
    own: PublicKey,
    node: Fingerprint,
    name: String,
    peer_urls: Vec<String>,
    claim: Vec<u8>,
    run: Incarnation,
    understands: CommandVersion,
    guarded: bool,
    prefers: Option<ClusterId>,
    timers: Timers,
    prng: Prng,
    started: Instant,
    network: Network,
    neighbours: Neighbours,
    view: View,
    /// Since when the view is what it is.
    view_since: Instant,
    /// When somebody else was there last.
    alone_since: Instant,
    /// Since when there is a cluster, which this node is not in.
    beside_since: Option<Instant>,
    /// When it was last waiting for that.
    waited: Option<Instant>,
    held: Option<Held>,
    disk: Disk,
    /// When the last promise was given to another node.
    gave: Option<Instant>,
    /// Promises that are answered once they are on disk.
    unanswered: Vec<(Ticket, Promise)>,
    attempt: Option<Attempt>,
    /// The last attempt that is over.
    over: Option<u64>,
    /// Why the last attempt came to nothing, and until when no other one is made.
    failed: Option<(String, Instant)>,
    /// Attempts that came to nothing since the view has changed.
    failures: u32,
    joining: Joining,
    end: Option<End>,
    outputs: VecDeque<Output>,
    last_ticket: u64,
}

/// A promise that binds this node.
#[derive(Clone, Copy, Debug)]
struct Held {
    promise: Promise,
    since: Instant,
    until: Instant,
}

/// What the record holds.
#[derive(Debug)]
struct Disk {
    holds: Option<Promise>,
    /// What it will hold, while that is being written.
    writes: Option<Write>,
}

/// What is being written.
#[derive(Clone, Copy, Debug)]
struct Write(Option<Promise>);

/// This node's attempt to found.
#[derive(Debug)]
struct Attempt {
    round: u64,
    view: View,
    patient: bool,
    /// The promises count until then.
    until: Instant,
    /// Who was asked, and whether it has promised; empty until this node's own promise is on disk.
    promised: BTreeMap<Fingerprint, bool>,
    asked: bool,
}

#[derive(Debug, Default)]
struct Joining {
    ask: Option<AskId>,
    last: Option<Fingerprint>,
    not_before: Instant,
    /// What a member has answered, and of which cluster.
    said: Option<(ClusterId, String)>,
}

impl Gathering {
    /// A node that is in no cluster. It does nothing before it is told of a network.
    pub fn new(now: Instant, options: Options) -> Self {
        let Options { key: own, name, peer_urls, claim, run, understands, .. } = options;
        let Options { guarded, promise, prefers, timers, prng, .. } = options;
        let node = Fingerprint::of(&own);
        // How long it was held before is not known. What it has promised itself was for an attempt that died with the run.
        let held = promise.filter(|promise| promise.candidate != own);
        let held = held.filter(|_| !planted::has(Bug::ForgetPromise));
        let held = held.map(|promise| Held { promise, since: now, until: now + timers.promise_held });
        Self {
            own,
            node,
            name,
            peer_urls,
            claim,
            run,
            understands,
            guarded,
            prefers,
            timers,
            prng,
            started: now,
            network: Network::default(),
            neighbours: Neighbours::new(node, &timers),
            view: View::of([node]),
            view_since: now,
            alone_since: now,
            beside_since: None,
            waited: None,
            held,
            disk: Disk { holds: promise, writes: None },
            gave: None,
            unanswered: Vec::new(),
            attempt: None,
            over: None,
            failed: None,
            failures: 0,
            joining: Joining::default(),
            end: None,
            outputs: VecDeque::new(),
            last_ticket: 0,
        }
    }

    /// The interfaces have changed.
    pub fn handle_network(&mut self, now: Instant, network: Network) {
        self.network = network;
        self.step(now);
    }

    /// Somebody may be there, or is not announced any more. That is a reason to ask, and nothing else.
    pub fn handle_sighting(&mut self, now: Instant, whom: Whom, seen: bool) {
        self.neighbours.sighted(now, whom, seen);
        self.step(now);
    }

    /// A node that has shown this key asks something. The answer comes out of [`Gathering::poll`], with the ticket.
    pub fn handle_question(&mut self, now: Instant, from: PublicKey, question: Question) -> Ticket {
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        match &question {
            Question::Probe { name, over, view } => {
                // To news of what others see the answer is a probe, which one that has a claim has no use for.
                let seen = self.claim.is_empty().then_some(view);
                self.neighbours.heard(now, from, Some(name), seen);
                self.release_over(from, *over);
            }
            Question::Promise { view, .. } => {
                let seen = self.claim.is_empty().then_some(view);
                self.neighbours.heard(now, from, None, seen);
            }
            Question::Join { name, .. } => self.neighbours.heard(now, from, Some(name), None),
            Question::Meets(_) | Question::Absorb { .. } | Question::Fate { .. } => {}
        }
        self.step(now);
        if let Some(answer) = self.answer(now, ticket, from, question) {
            self.outputs.push_back(Output::Answer { ticket, answer });
        }
        self.step(now);
        ticket
    }

    /// A node that has shown this key has answered. What is late, or was answered before, changes nothing.
    pub fn handle_answer(&mut self, now: Instant, ask: AskId, from: PublicKey, answer: Answer) {
        self.step(now);
        let Some(asked) = self.neighbours.take(ask) else { return };
        self.joining.ask.take_if(|joining| *joining == ask);
        if from == self.own {
            self.lost(now, &asked, "this node itself answers there".into());
        } else {
            self.heard(now, &asked, from, answer);
        }
        self.step(now);
    }

    /// There will be no answer.
    pub fn handle_lost(&mut self, now: Instant, ask: AskId, why: &str) {
        self.give_up(now, ask, why);
        self.step(now);
    }

    /// The claim of this node lets nobody in there, as whoever was asked has said, without having shown to know it.
    pub fn handle_turned_down(&mut self, now: Instant, ask: AskId, why: &str) {
        self.turn_down(now, ask, why);
        self.step(now);
    }

    /// This node itself is at the address that was to be asked.
    pub fn handle_itself(&mut self, now: Instant, ask: AskId) {
        if let Some(asked) = self.neighbours.take(ask) {
            self.neighbours.is_itself(&asked);
        }
        self.step(now);
    }

    /// What was to be noted is on disk.
    pub fn handle_persisted(&mut self, now: Instant) {
        if let Some(Write(written)) = self.disk.writes.take() {
            self.disk.holds = written;
        }
        self.step(now);
    }

    /// What is to be done next.
    pub fn poll(&mut self, now: Instant) -> Option<Output> {
        self.step(now);
        self.outputs.pop_front()
    }

    /// When [`Gathering::poll`] has to be called at the latest, if nothing happens before.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if self.end.is_some() {
            return None;
        }
        let until = match self.state(now) {
            State::NoNetwork
            | State::Candidate
            | State::Invited(_)
            | State::Joining(_)
            | State::Pending(..)
            | State::Guarded(_)
            | State::Conflict(_)
            | State::NotLowest(_)
            | State::Bound(..)
            | State::Ended => None,
            State::Probing(until)
            | State::Promised(_, until)
            | State::MemberGone(until)
            | State::Unreached(_, until)
            | State::Unstable(until)
            | State::Alone(until)
            | State::ViewsDiffer(_, until)
            | State::BackedOff(_, until) => Some(until),
        };
        let promise = self.held.map(|held| held.until);
        let attempt = self.attempt.as_ref().map(|attempt| attempt.until);
        let join = Some(self.joining.not_before).filter(|at| *at > now);
        let winner = self.winner_awaited().filter(|until| *until > now);
        let neighbours = self.begun().and_then(|_| self.neighbours.timeout(now));
        [until, promise, attempt, join, winner, neighbours].into_iter().flatten().min()
    }
}

/// What this node does by itself.
impl Gathering {
    /// Since when there is a network, and this node looks around in it.
    fn begun(&self) -> Option<Instant> {
        self.network.carrier_since.map(|since| since.max(self.started))
    }

    fn step(&mut self, now: Instant) {
        self.expire(now);
        self.look(now);
        if self.end.is_none() {
            self.check(now);
            self.join(now);
            self.attempt(now);
            self.probe(now);
        }
        self.write();
    }

    /// What has taken too long.
    fn expire(&mut self, now: Instant) {
        for ask in self.neighbours.overdue(now) {
            self.give_up(now, ask, "no answer in time");
        }
        // What this node has promised itself lasts as long as the attempt.
        self.held.take_if(|held| held.promise.candidate != self.own && now >= held.until);
        self.neighbours.forget(now);
    }

    /// Whether this node is to be in a certain cluster, or in none with those who are here, or one was long there that does not let it in and that the others may know nothing of.
    fn waits(&self, now: Instant) -> bool {
        if self.guarded || !self.claim.is_empty() {
            return true;
        }
        let counts = self.neighbours.member_until(now).zip(self.beside_since);
        let long = self.timers.patience + self.timers.member_gone;
        counts.is_some_and(|(until, since)| until.since(since) >= long)
    }

    fn look(&mut self, now: Instant) {
        self.beside_since = self.neighbours.member_until(now).map(|_| self.beside_since.unwrap_or(now));
        // One that is guarded has never said anything else, and nobody counts on it.
        if self.waits(now) && !self.guarded {
            self.waited = Some(now);
        }
        let view = if self.begun().is_some() { self.neighbours.view(now) } else { View::of([self.node]) };
        if view.nodes().len() > 1 {
            self.alone_since = now;
        }
        if view == self.view {
            return;
        }
        // Nodes that see somebody new say so to each other at once.
        for node in view.nodes() {
            self.neighbours.hurry(now, node);
        }
        (self.view, self.view_since, self.failures) = (view, now, 0);
    }

    /// An attempt goes on only while nothing has changed.
    fn check(&mut self, now: Instant) {
        let Some(attempt) = &self.attempt else { return };
        let why = if attempt.view != self.view {
            Some("other nodes are visible than at its beginning")
        } else if now >= attempt.until {
            Some("it has taken too long")
        } else if self.begun().is_none() {
            Some("there is no network any more")
        } else if self.neighbours.member_until(now).is_some() {
            Some("there is a cluster")
        } else if !attempt.patient && self.other_view(now).is_some() {
            Some("not all see the same nodes any more")
        } else {
            None
        };
        if let Some(why) = why {
            self.abandon(now, why.into());
        }
    }

    fn abandon(&mut self, now: Instant, why: String) {
        let Some(attempt) = self.attempt.take() else { return };
        self.over = Some(attempt.round);
        // They are free again.
        for node in attempt.promised.keys() {
            self.neighbours.hurry(now, node);
        }
        self.held.take_if(|held| held.promise.candidate == self.own);
        // Longer each time: others that cannot see this node may need the same promises.
        let least = (self.timers.back_off * 2_u32.pow(self.failures)).min(self.timers.back_off_max);
        let least = u64::try_from(least.as_nanos()).unwrap_or(u64::MAX / 2).max(1);
        self.failures = (self.failures + 1).min(FAILURES_COUNTED);
        let pause = Duration::from_nanos(self.prng.range(least, 2 * least));
        self.failed = Some((why, now + pause));
    }

    fn attempt(&mut self, now: Instant) {
        if self.attempt.is_none() && self.hindrance(now).is_none() {
            let (round, view) = (self.prng.next_u64(), self.view.clone());
            let promise = Promise { candidate: self.own, round };
            let until = now + self.timers.promise_counted;
            self.held = Some(Held { promise, since: now, until });
            let patient = self.other_view(now).is_some();
            let promised = BTreeMap::new();
            self.attempt = Some(Attempt { round, view, patient, until, promised, asked: false });
        }
        let Some(attempt) = &mut self.attempt else { return };
        let own = Promise { candidate: self.own, round: attempt.round };
        if self.disk.holds != Some(own) {
            return;
        }
        if !attempt.asked {
            attempt.asked = true;
            let others = attempt.view.nodes().iter().filter(|node| **node != self.node);
            attempt.promised = others.map(|node| (*node, false)).collect();
            let Attempt { round, patient, .. } = *attempt;
            let (view, others) = (attempt.view.clone(), attempt.promised.keys().copied().collect::<Vec<_>>());
            for node in others {
                let question = Question::Promise { round, patient, view: view.clone() };
                self.ask(now, Whom::Node(node), Matter::Promise(round), question);
            }
        }
        if let Some(attempt) = &self.attempt
            && attempt.promised.values().all(|promised| *promised)
        {
            let with: Vec<Fingerprint> = attempt.promised.keys().copied().collect();
            let end = End::Found { alone: with.is_empty(), with };
            self.end = Some(end.clone());
            self.outputs.push_back(Output::End(end));
        }
    }

    fn ask(&mut self, now: Instant, whom: Whom, matter: Matter, question: Question) -> AskId {
        let ask = self.neighbours.ask(now, whom.clone(), matter);
        self.outputs.push_back(Output::Ask { ask, whom, question });
        ask
    }

    fn probe(&mut self, now: Instant) {
        if self.begun().is_none() {
            return;
        }
        while let Some(whom) = self.neighbours.due(now) {
            let (matter, question) = if self.claim.is_empty() {
                let (name, view) = (self.name.clone(), self.view.clone());
                (Matter::Probe, Question::Probe { name, over: self.over, view })
            } else {
                (Matter::Enter, self.asks_to_join())
            };
            self.ask(now, whom, matter, question);
        }
    }

    fn asks_to_join(&self) -> Question {
        let (name, peer_urls, claim) = (self.name.clone(), self.peer_urls.clone(), self.claim.clone());
        Question::Join { name, peer_urls, claim, run: self.run, understands: self.understands }
    }

    fn join(&mut self, now: Instant) {
        let is_late = now >= self.joining.not_before && self.begun().is_some();
        if self.guarded && self.prefers.is_none() || self.joining.ask.is_some() || !is_late {
            return;
        }
        let clusters = self.clusters_to_ask(now);
        let asked = self.members(now).filter(|(_, of)| clusters.contains(&of.cluster));
        let mut members: Vec<Fingerprint> = asked.map(|(node, _)| node).collect();
        // Each in turn: the one that was asked may be the one that cannot answer.
        let after = members.partition_point(|node| Some(*node) <= self.joining.last);
        members.rotate_left(after);
        let Some(node) = members.first().copied() else { return };
        let question = self.asks_to_join();
        self.joining.last = Some(node);
        self.joining.ask = Some(self.ask(now, Whom::Node(node), Matter::Join, question));
    }

    /// Notes what has changed, and gives the answers that have waited for it.
    fn write(&mut self) {
        let wanted = self.held.map(|held| held.promise);
        let holds = self.disk.holds;
        let mut answers = Vec::new();
        self.unanswered.retain(|(ticket, promise)| {
            if Some(*promise) != wanted {
                answers.push((*ticket, Answer::NotPromised("the promise was released".into())));
            } else if Some(*promise) == holds {
                answers.push((*ticket, Answer::Promised { round: promise.round }));
            } else {
                return true;
            }
            false
        });
        self.outputs.extend(answers.into_iter().map(|(ticket, answer)| Output::Answer { ticket, answer }));
        // What belongs to a cluster's founding or joining is noted by that.
        if self.disk.writes.is_none() && holds != wanted && self.end.is_none() {
            self.disk.writes = Some(Write(wanted));
            self.outputs.push_back(Output::Persist(wanted));
        }
    }
}

#[cfg(test)]
mod gathering_test;
