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
//! from then on, through any restart, and asks X meanwhile: it finds a member there, and joins. A promise ends early in one way alone: X itself says, in
//! answer to a question that was asked after the promise, that its attempt is over; attempts have random numbers, so that none comes back. A promise that is
//! held is never replaced, not even by a later one to the same node: the later question may be the one that comes first.
//!
//! Equal views are for those who cannot talk directly: with A–B–C in a row, A and C do not both found while B sees both. Where nodes will never see the
//! same (one radio cell keeps its clients apart), waiting for it would be for ever, so after a while the lowest among all that it sees asks patiently: who sees nobody
//! lower leaves it the founding. Some node can always be that one, and two of them have no neighbour in common.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use super::identity::{Fingerprint, Promise};
use super::message::{Answer, Question, Standing, View, Welcome};
use super::neighbours::{Asked, Matter, Neighbours, Says};
use crate::ids::{ClusterId, PublicKey};
use crate::prng::Prng;
use crate::time::Instant;

/// Promises whose answers wait for the disk; the candidate asks once.
const UNANSWERED_MAX: usize = 8;

/// How long everything takes.
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    /// Nobody founds before it has looked around for so long.
    pub probe_min: Duration,
    /// What a node sees has to stay the same for so long.
    pub stable: Duration,
    /// Who has not answered for so long is not visible any more.
    pub session: Duration,
    /// Who is announced and does not answer is left out after so long.
    pub unreachable: Duration,
    /// However many are announced that never answer: they are waited for no longer than this in all.
    pub sightings: Duration,
    /// A promise is held for so long, ...
    pub promise_held: Duration,
    /// ... and counted on for so long. The difference is for the founder to be there before anybody else tries.
    pub promise_counted: Duration,
    /// Founded alone, where nobody else has been there for so long, ...
    pub solo_after: Duration,
    /// ... and no interface has come up in so long: a switch may let nothing through for half a minute.
    pub solo_after_up: Duration,
    /// How long it is waited for nodes that do not see the same ones.
    pub patience: Duration,
    /// A cluster that was there is waited for as long as its only member may take to start again.
    pub member_gone: Duration,
    /// Between two probes of a node, ...
    pub probe_every: Duration,
    /// ... and of one that may found at any moment.
    pub watch_every: Duration,
    /// A probe without an answer is lost after so long, ...
    pub probe_timeout: Duration,
    /// ... and another question: the answer may have to wait for a disk, or for a cluster's log.
    pub ask_timeout: Duration,
    /// After an attempt that came to nothing: at least this, at most twice as long.
    pub back_off: Duration,
    /// Between two requests to join that only time can change, ...
    pub join_every: Duration,
    /// ... and that somebody has to grant.
    pub pending_every: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        let (millis, seconds) = (Duration::from_millis, Duration::from_secs);
        Self {
            probe_min: seconds(3),
            stable: seconds(2),
            session: seconds(5),
            unreachable: seconds(10),
            sightings: seconds(20),
            promise_held: seconds(30),
            promise_counted: seconds(20),
            solo_after: seconds(8),
            solo_after_up: seconds(35),
            patience: seconds(20),
            member_gone: seconds(30),
            probe_every: seconds(1),
            watch_every: millis(250),
            probe_timeout: seconds(3),
            ask_timeout: seconds(6),
            back_off: millis(500),
            join_every: seconds(1),
            pending_every: seconds(5),
        }
    }
}

/// Who gathers.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its key.
    pub key: PublicKey,
    /// What it is called.
    pub name: String,
    /// Where it is reached.
    pub peer_urls: Vec<String>,
    /// What it shows for being let into a cluster; empty: nothing.
    pub claim: Vec<u8>,
    /// The promise that its record holds.
    pub promise: Option<Promise>,
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
    /// Ask this; [`Gathering::handle_answer`] or [`Gathering::handle_lost`] takes what becomes of it.
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
    held: Option<Held>,
    disk: Disk,
    /// Promises that are answered once they are on disk.
    unanswered: Vec<(Ticket, Promise)>,
    attempt: Option<Attempt>,
    /// Why the last attempt came to nothing, and until when no other one is made.
    failed: Option<(String, Instant)>,
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
    /// What is being written.
    writes: Option<Option<Promise>>,
}

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
    /// What a member has answered.
    said: Option<String>,
}

/// What this node is doing, and what it waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// No interface has carrier and an address.
    NoNetwork,
    /// It looks around until then.
    Probing(Instant),
    /// It has left the founding to this node, until then.
    Promised(Fingerprint, Instant),
    /// It asks all for their promise.
    Candidate,
    /// A cluster is there, and the node asks to be let in.
    Joining(ClusterId),
    /// A cluster is there, and has said why the node is not in it yet.
    Pending(ClusterId, String),
    /// Clusters are there that cannot become one, so that an operator has to say which one is the right one.
    Conflict(Vec<ClusterId>),
    /// A cluster was there a moment ago, and is waited for until then.
    MemberGone(Instant),
    /// Somebody may be there and does not answer; it is waited for until then.
    Unreached(Whom, Instant),
    /// The view has changed; it has to stay what it is until then.
    Unstable(Instant),
    /// This node is the lowest, and founds.
    NotLowest(Fingerprint),
    /// Nobody else is there; it founds alone then.
    Alone(Instant),
    /// A node has left the founding to another one.
    Bound(Fingerprint, Fingerprint),
    /// A node does not see the same nodes; after that this node goes on without that.
    ViewsDiffer(Fingerprint, Instant),
    /// The last attempt came to nothing, for this reason; the next one is made then.
    BackedOff(String, Instant),
    /// There is a cluster.
    Ended,
}

/// How another node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stands {
    /// It has not answered yet.
    Unknown,
    /// It is in no cluster.
    Fresh,
    /// It is in one.
    Member(ClusterId),
    /// It is of no use here, and says why.
    Other(String),
}

/// Another node, or an address at which one may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Who.
    pub whom: Whom,
    /// What it calls itself, where that is known.
    pub name: String,
    /// What it is.
    pub stands: Stands,
    /// Since when it does not answer, and why.
    pub unreachable: Option<(Instant, String)>,
}

/// What an operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What this node is doing; as text it says why there is no cluster yet.
    pub state: State,
    /// Who is, or may be, around.
    pub around: Vec<Sighting>,
}

impl Gathering {
    /// A node that is in no cluster. It does nothing before it is told of a network.
    pub fn new(now: Instant, options: Options) -> Self {
        let Options { key: own, name, peer_urls, claim, promise, timers, prng } = options;
        let node = Fingerprint::of(&own);
        // How long it was held before is not known. What it has promised itself was for an attempt that died with the run.
        let held = promise.filter(|promise| promise.candidate != own);
        let held = held.map(|promise| Held { promise, since: now, until: now + timers.promise_held });
        Self {
            own,
            node,
            name,
            peer_urls,
            claim,
            timers,
            prng,
            started: now,
            network: Network::default(),
            neighbours: Neighbours::new(node, timers),
            view: View::of([node]),
            view_since: now,
            alone_since: now,
            held,
            disk: Disk { holds: promise, writes: None },
            unanswered: Vec::new(),
            attempt: None,
            failed: None,
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
            Question::Probe { name, view } => self.neighbours.heard(now, from, Some(name), Some(view)),
            Question::Promise { view, .. } => self.neighbours.heard(now, from, None, Some(view)),
            Question::Join { name, .. } => self.neighbours.heard(now, from, Some(name), None),
            Question::Meets(_) => {}
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

    /// What was to be noted is on disk.
    pub fn handle_persisted(&mut self, now: Instant) {
        if let Some(written) = self.disk.writes.take() {
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
            | State::Joining(_)
            | State::Pending(..)
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
        let neighbours = self.begun().and_then(|_| self.neighbours.timeout(now));
        [until, promise, attempt, join, neighbours].into_iter().flatten().min()
    }

    /// What to tell an operator.
    pub fn status(&self, now: Instant) -> Status {
        let nodes = self.neighbours.nodes.iter().map(|(node, known)| Sighting {
            whom: Whom::Node(*node),
            name: known.name.clone(),
            stands: match &known.says {
                Says::Nothing => Stands::Unknown,
                Says::Gathers { .. } => Stands::Fresh,
                Says::Member(standing) => Stands::Member(standing.cluster),
                Says::Other(sentence) => Stands::Other(sentence.clone()),
            },
            unreachable: known.line.failing.clone(),
        });
        let silent = self.neighbours.hints.iter().filter(|(_, hint)| hint.node.is_none());
        let hints = silent.map(|(address, hint)| Sighting {
            whom: Whom::Address(address.clone()),
            name: String::new(),
            stands: Stands::Unknown,
            unreachable: hint.line.failing.clone(),
        });
        Status { state: self.state(now), around: nodes.chain(hints).collect() }
    }
}

/// What others ask.
impl Gathering {
    /// `None`: the answer has to wait for the disk.
    fn answer(
        &mut self,
        now: Instant,
        ticket: Ticket,
        from: PublicKey,
        question: Question,
    ) -> Option<Answer> {
        let name = &self.name;
        if matches!(self.end, Some(End::Join(_))) {
            return Some(Answer::Wait(format!("{name} is about to join a cluster")));
        }
        match question {
            Question::Meets(_) => Some(Answer::Refused(format!(
                "{name} was not told of an initial cluster: it looks for others"
            ))),
            Question::Join { .. } => Some(Answer::Wait(format!("{name} is in no cluster itself"))),
            Question::Probe { .. } => {
                let round = self.attempt.as_ref().map(|attempt| attempt.round);
                let promised = self.held.map(|held| Fingerprint::of(&held.promise.candidate));
                Some(Answer::Gathers { name: name.clone(), round, promised, view: self.view.clone() })
            }
            Question::Promise { round, patient, view } => {
                let promise = Promise { candidate: from, round };
                if let Err(why) = self.promise(now, promise, patient, &view) {
                    return Some(Answer::NotPromised(format!("{}: {why}", self.name)));
                }
                if self.unanswered.len() >= UNANSWERED_MAX {
                    return Some(Answer::NotPromised(format!("{}: asked too often", self.name)));
                }
                self.unanswered.push((ticket, promise));
                None
            }
        }
    }

    /// Leaves the founding to another node, or says why not.
    fn promise(&mut self, now: Instant, promise: Promise, patient: bool, view: &View) -> Result<(), String> {
        if self.held.is_some_and(|held| held.promise == promise) {
            return Ok(());
        }
        let candidate = Fingerprint::of(&promise.candidate);
        if let Some(held) = self.held {
            let to = self.called(&Fingerprint::of(&held.promise.candidate));
            return Err(format!("the founding is left to {to} already"));
        }
        if self.end.is_some() || self.begun().is_none() || self.neighbours.member_until(now).is_some() {
            return Err("there is a cluster, or no network".into());
        }
        if patient {
            if !self.view.has(&candidate) || now < self.view_since + self.timers.stable {
                return Err("it has not been in view for long enough".into());
            }
        } else if *view != self.view {
            return Err(self.difference(&candidate, view));
        }
        if self.view.lowest() != Some(candidate) {
            let lowest = self.view.lowest().map(|node| self.called(&node)).unwrap_or_default();
            return Err(format!("{lowest} is to found"));
        }
        self.held = Some(Held { promise, since: now, until: now + self.timers.promise_held });
        // It may found at any moment.
        self.neighbours.hurry(now, &candidate);
        Ok(())
    }

    fn difference(&self, other: &Fingerprint, seen: &View) -> String {
        let missing = self.view.nodes().iter().find(|node| !seen.has(node));
        let more = seen.nodes().iter().find(|node| !self.view.has(node));
        let other = self.called(other);
        match (missing, more) {
            (Some(node), _) => format!("{other} does not see {}, which is there", self.called(node)),
            (None, Some(node)) => format!("{other} sees {}, which is not visible here", self.called(node)),
            (None, None) => format!("{other} sees the same"),
        }
    }

    fn called(&self, node: &Fingerprint) -> String {
        let known =
            self.neighbours.nodes.get(node).map(|known| known.name.as_str()).filter(|name| !name.is_empty());
        let name = if *node == self.node { Some(self.name.as_str()) } else { known };
        name.map_or_else(|| node.short(), |name| format!("{name} ({})", node.short()))
    }
}

/// What others answer.
impl Gathering {
    fn heard(&mut self, now: Instant, asked: &Asked, from: PublicKey, answer: Answer) {
        let node = Fingerprint::of(&from);
        let watched = self.held.is_some_and(|held| held.promise.candidate == from);
        let next = if watched { self.timers.watch_every } else { self.neighbours.pause(&mut self.prng) };
        let known = match self.neighbours.answered(now, asked, from, next) {
            Ok(Some(known)) => known,
            Ok(None) => return,
            Err(why) => return self.lost(now, asked, why),
        };
        match (asked.matter, answer) {
            (_, Answer::Member(standing)) => {
                standing.name.clone_into(&mut known.name);
                known.says = Says::Member(standing);
            }
            (Matter::Probe, Answer::Gathers { name, round, promised, view }) => {
                known.name = name;
                known.says = Says::Gathers { promised, view };
                self.release(asked.at, from, round);
            }
            (Matter::Probe, Answer::Wait(sentence) | Answer::Refused(sentence)) => {
                known.says = Says::Other(sentence);
            }
            (Matter::Probe, _) => known.says = Says::Other("it gives no sensible answer".into()),
            (Matter::Promise(round), answer) => self.promised(now, node, round, answer),
            (Matter::Join, Answer::Welcome(welcome)) => {
                self.end = self.end.take().or(Some(End::Join(welcome)))
            }
            (Matter::Join, Answer::Pending(sentence) | Answer::Refused(sentence)) => {
                self.joining.said = Some(sentence);
                self.joining.not_before = now + self.timers.pending_every;
            }
            (Matter::Join, Answer::Wait(sentence)) => {
                self.joining.said = Some(sentence);
                self.joining.not_before = now + self.timers.join_every;
            }
            (Matter::Join, _) => {
                // It is in no cluster any more.
                self.joining.not_before = now + self.timers.join_every;
                self.neighbours.hurry(now, &node);
            }
        }
        if let Some(End::Join(welcome)) = &self.end
            && asked.matter == Matter::Join
        {
            self.outputs.push_back(Output::End(End::Join(welcome.clone())));
        }
    }

    /// Whom the founding was left to says that it makes another attempt, or none: in answer to a question from after the promise.
    fn release(&mut self, asked_at: Instant, from: PublicKey, round: Option<u64>) {
        self.held.take_if(|held| {
            held.promise.candidate == from && held.since <= asked_at && round != Some(held.promise.round)
        });
    }

    fn promised(&mut self, now: Instant, node: Fingerprint, round: u64, answer: Answer) {
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.round == round) else { return };
        match answer {
            Answer::Promised { round: same } if same == round => {
                attempt.promised.insert(node, true);
            }
            Answer::NotPromised(why) => self.abandon(now, why),
            _ => {
                let why = format!("{} gives no sensible answer", self.called(&node));
                self.abandon(now, why);
            }
        }
    }

    fn give_up(&mut self, now: Instant, ask: AskId, why: &str) {
        let Some(asked) = self.neighbours.take(ask) else { return };
        self.joining.ask.take_if(|joining| *joining == ask);
        self.lost(now, &asked, why.to_owned());
    }

    fn lost(&mut self, now: Instant, asked: &Asked, why: String) {
        match (asked.matter, &asked.whom) {
            (Matter::Promise(round), Whom::Node(node)) => {
                if self.attempt.as_ref().is_some_and(|attempt| attempt.round == round) {
                    let why = format!("{} was asked and does not answer: {why}", self.called(node));
                    self.abandon(now, why);
                }
            }
            (Matter::Join, _) => self.joining.not_before = now + self.timers.join_every,
            (Matter::Probe | Matter::Promise(_), _) => {}
        }
        self.neighbours.lost(now, asked, why);
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

    fn look(&mut self, now: Instant) {
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
        (self.view, self.view_since) = (view, now);
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
        self.attempt = None;
        self.held.take_if(|held| held.promise.candidate == self.own);
        let least = u64::try_from(self.timers.back_off.as_nanos()).unwrap_or(u64::MAX / 2).max(1);
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
            let question = Question::Probe { name: self.name.clone(), view: self.view.clone() };
            self.ask(now, whom, Matter::Probe, question);
        }
    }

    fn join(&mut self, now: Instant) {
        if self.joining.ask.is_some() || now < self.joining.not_before || self.begun().is_none() {
            return;
        }
        let Ok(Some(cluster)) = self.cluster(now) else { return };
        let mut members: Vec<Fingerprint> =
            self.members(now).filter(|(_, of)| of.cluster == cluster).map(|(node, _)| node).collect();
        // Each in turn: the one that was asked may be the one that cannot answer.
        let after = members.partition_point(|node| Some(*node) <= self.joining.last);
        members.rotate_left(after);
        let Some(node) = members.first().copied() else { return };
        let (name, peer_urls, claim) = (self.name.clone(), self.peer_urls.clone(), self.claim.clone());
        let question = Question::Join { name, peer_urls, claim };
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
            self.disk.writes = Some(wanted);
            self.outputs.push_back(Output::Persist(wanted));
        }
    }
}

/// What this node waits for.
impl Gathering {
    fn members(&self, now: Instant) -> impl Iterator<Item = (Fingerprint, &Standing)> {
        self.neighbours.visible(now).filter_map(|(node, known)| match &known.says {
            Says::Member(standing) => Some((*node, standing)),
            _ => None,
        })
    }

    /// The cluster to join: what users have written counts more than what is new, and of equals the lower number, as between clusters that meet. Two that users have
    /// written to are an operator's to choose from.
    fn cluster(&self, now: Instant) -> Result<Option<ClusterId>, Vec<ClusterId>> {
        let (mut committed, mut all): (Vec<ClusterId>, Vec<ClusterId>) = (Vec::new(), Vec::new());
        for (_, standing) in self.members(now) {
            all.push(standing.cluster);
            if standing.committed {
                committed.push(standing.cluster);
            }
        }
        committed.sort_unstable();
        committed.dedup();
        match &committed[..] {
            [] => Ok(all.into_iter().min()),
            [one] => Ok(Some(*one)),
            _ => Err(committed),
        }
    }

    /// A visible node that does not see the same nodes.
    fn other_view(&self, now: Instant) -> Option<Fingerprint> {
        let differs = |says: &Says| matches!(says, Says::Gathers { view, .. } if *view != self.view);
        self.neighbours.visible(now).find(|(_, known)| differs(&known.says)).map(|(node, _)| *node)
    }

    fn state(&self, now: Instant) -> State {
        if self.end.is_some() {
            return State::Ended;
        }
        match self.hindrance(now) {
            Some(state) => state,
            None => State::Candidate,
        }
    }

    /// Why this node does not begin to ask for promises.
    fn hindrance(&self, now: Instant) -> Option<State> {
        let Some(begun) = self.begun() else { return Some(State::NoNetwork) };
        match self.cluster(now) {
            Err(clusters) => return Some(State::Conflict(clusters)),
            Ok(Some(cluster)) => {
                return Some(match &self.joining.said {
                    Some(sentence) => State::Pending(cluster, sentence.clone()),
                    None => State::Joining(cluster),
                });
            }
            Ok(None) => {}
        }
        if let Some(until) = self.neighbours.member_until(now) {
            return Some(State::MemberGone(until));
        }
        if let Some(held) = self.held {
            if held.promise.candidate == self.own {
                return Some(State::Candidate);
            }
            return Some(State::Promised(Fingerprint::of(&held.promise.candidate), held.until));
        }
        let probed = begun + self.timers.probe_min;
        if now < probed {
            return Some(State::Probing(probed));
        }
        if let Some((whom, until)) = self.neighbours.held(now, begun) {
            return Some(State::Unreached(whom, until));
        }
        let stable = self.view_since.max(begun) + self.timers.stable;
        if now < stable {
            return Some(State::Unstable(stable));
        }
        let lowest = self.view.lowest().filter(|lowest| *lowest != self.node);
        if let Some(lowest) = lowest {
            return Some(State::NotLowest(lowest));
        }
        if self.view.nodes().len() == 1 {
            let alone = self.alone_since.max(begun) + self.timers.solo_after;
            let up = self.network.last_up.map(|up| up + self.timers.solo_after_up);
            let until = up.map_or(alone, |up| up.max(alone));
            if now < until {
                return Some(State::Alone(until));
            }
        }
        if let Some((node, to)) = self.bound(now) {
            return Some(State::Bound(node, to));
        }
        if let Some(node) = self.other_view(now) {
            let until = self.view_since.max(begun) + self.timers.patience;
            if now < until {
                return Some(State::ViewsDiffer(node, until));
            }
        }
        let failed = self.failed.as_ref().filter(|(_, until)| now < *until);
        failed.map(|(why, until)| State::BackedOff(why.clone(), *until))
    }

    /// A visible node that has left the founding to somebody, and to whom.
    fn bound(&self, now: Instant) -> Option<(Fingerprint, Fingerprint)> {
        self.neighbours.visible(now).find_map(|(node, known)| match &known.says {
            Says::Gathers { promised: Some(to), .. } => Some((*node, *to)),
            _ => None,
        })
    }
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => f.write_str(&node.short()),
            Self::Address(address) => f.write_str(address),
        }
    }
}

impl fmt::Display for State {
    /// What is waited for, in one clause.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNetwork => write!(f, "no interface has carrier and an address"),
            Self::Probing(_) => write!(f, "looking for other nodes"),
            Self::Promised(node, _) => write!(f, "the founding is left to {}", node.short()),
            Self::Candidate => write!(f, "asking the others whether this node may found"),
            Self::Joining(cluster) => write!(f, "joining cluster {cluster}"),
            Self::Pending(cluster, why) => {
                write!(f, "cluster {cluster} does not let this node in yet: {why}")
            }
            Self::Conflict(clusters) => {
                write!(f, "there are several clusters that cannot become one:")?;
                clusters.iter().try_for_each(|cluster| write!(f, " {cluster}"))
            }
            Self::MemberGone(_) => write!(f, "a cluster was there and does not answer any more"),
            Self::Unreached(whom, _) => write!(f, "{whom} is announced and does not answer"),
            Self::Unstable(_) => write!(f, "nodes have appeared or vanished a moment ago"),
            Self::NotLowest(node) => write!(f, "waiting for {} to found", node.short()),
            Self::Alone(_) => write!(f, "nobody else is there yet"),
            Self::Bound(node, to) => write!(f, "{} has left the founding to {}", node.short(), to.short()),
            Self::ViewsDiffer(node, _) => write!(f, "{} does not see the same nodes", node.short()),
            Self::BackedOff(why, _) => write!(f, "{why}"),
            Self::Ended => write!(f, "there is a cluster"),
        }
    }
}
