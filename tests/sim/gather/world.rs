//! Boxes without a cluster in a network that comes and goes, until all of them are in one.
//!
//! Owns: the order of events, what each box's disk holds, what becomes of messages, and the clusters that are founded, which are no more here than a
//! number that lets others in. Must never: decide for a node. Driven by `gather`.

use std::collections::BTreeMap;
use std::time::Duration;

use covey::command::{CommandVersion, MemberAttributes};
use covey::formation::gathering::{AskId, End, Gathering, Options, Output, Whom};
use covey::formation::{Answer, ClusterRoot, Fingerprint, Generation, Promise, Question, Standing, Welcome};
use covey::ids::{Incarnation, MemberId, PublicKey};
use covey::prng::Prng;
use covey::store::Member;
use covey::time::Instant;

use super::cluster::Cluster;
use super::host::{Disk, Host, Node, Write};
use super::judge::Judge;
use super::members::Doing;
use super::plan::{Enters, Kind, Plan};
use crate::queue::{Queue, Trace};

/// Announcements are repeated so often.
const ANNOUNCED_EVERY: Duration = Duration::from_millis(1000);
/// How long the driver waits for an answer before it says that there is none.
const DRIVER_PATIENCE: Duration = Duration::from_secs(5);
/// A message that takes longer is a connection that is not good.
const GOOD: Duration = Duration::from_millis(500);
/// Once nothing goes wrong any more, everybody is in a cluster after so long: promises are held for 30 s from a restart, and a lone cluster that is not heard of any more is
/// waited for as long.
pub(crate) const LIVELY: Duration = Duration::from_secs(60);
/// Where some will never see each other, that has to be waited for, too.
pub(crate) const LIVELY_APART: Duration = Duration::from_secs(120);

pub(super) enum Event {
    Power(usize),
    Carrier(usize, bool),
    Wake(usize, u64, Instant),
    Announced(usize, u64),
    Asked { to: usize, from: usize, boot: u64, ask: AskId, question: Vec<u8> },
    Answered { to: usize, from: usize, boot: u64, ask: AskId, answer: Vec<u8> },
    Lost { to: usize, boot: u64, ask: AskId },
    Persisted(usize, u64),
    Begun(usize, u64, ClusterRoot, Vec<Member>),
    Doing(Doing),
    Fault,
    Heal,
}

/// What came of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Report {
    pub(crate) clusters: usize,
    pub(crate) alone: bool,
    /// From the last switch to the last node with a cluster; or from when all was well.
    pub(crate) took: Duration,
    pub(crate) crashes: u64,
    pub(crate) trace: u64,
    pub(crate) events: u64,
    /// How many clusters have given themselves up, and what was in the way of one cluster in the end.
    pub(crate) dissolved: u64,
    /// How many of them had something that users had written.
    pub(crate) given_up: u64,
    /// How many members have left a cluster because others had word of its end.
    pub(crate) told: u64,
    /// How many have done so although theirs had not ended.
    pub(crate) deceived: u64,
    /// How many have gone by what somebody has told them who has another one's key, true or not: no other cluster has that word.
    pub(crate) lured: u64,
    /// How often a member was told of an end that had a user's write behind a change of those who vote.
    pub(crate) torn: u64,
    /// How often somebody has made up words.
    pub(crate) floods: u64,
    pub(crate) obstacle: Option<Obstacle>,
    /// Members of a living cluster whose nodes never came.
    pub(crate) ghosts: usize,
    pub(crate) simulated: Duration,
}

/// Why a whole network does not become one cluster by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Obstacle {
    /// Users have written to several.
    Conflict,
    /// One of them lets nobody in any more.
    Sealed,
    /// One of them uses what others do not understand.
    Outdated,
    /// A member has left one that had not ended, on the word of whoever has another member's key.
    Deceived,
    /// An operator has to decide for a member that was away, and cannot know who votes.
    Torn,
    /// The cluster of one that was away has ended, and those who have left it went by the word of whoever has its key, so that they have left none.
    Lured,
}

pub(crate) struct World {
    pub(super) plan: Plan,
    pub(super) prng: Prng,
    pub(super) queue: Queue<Event>,
    pub(super) trace: Trace,
    pub(super) hosts: Vec<Host>,
    /// By the number in their roots.
    pub(super) clusters: Vec<Cluster>,
    /// The part of the network that each host is in.
    pub(super) parts: Vec<u64>,
    /// Whether a host can open connections to another one, and hears its announcements.
    pub(super) dials: Vec<Vec<bool>>,
    pub(super) sees: Vec<Vec<bool>>,
    pub(super) judge: Judge,
    pub(super) healed: bool,
    pub(super) report: Report,
    roots: u64,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut prng = Prng::new(plan.seed);
        let hosts = (0..plan.hosts).map(|_| Host::new(&mut prng)).collect();
        let all = vec![vec![true; plan.hosts]; plan.hosts];
        let (judge, trace) = (Judge::new(plan.hosts), Trace::new(plan.verbose));
        let (dials, sees) = (all.clone(), all);
        let report = Report::default();
        let mut world = Self {
            plan,
            prng,
            queue: Queue::new(),
            trace,
            hosts,
            clusters: Vec::new(),
            parts: Vec::new(),
            dials,
            sees,
            judge,
            healed: false,
            report,
            roots: 0,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for (host, (power, up)) in self.plan.power.clone().into_iter().enumerate() {
            self.queue.after(power, Event::Power(host));
            self.queue.after(power + up, Event::Carrier(host, true));
        }
        match self.plan.kind {
            Kind::Together | Kind::Chaos => {}
            Kind::Halves if self.plan.meets.is_some() => self.begin_apart(),
            Kind::Halves => self.split(),
            Kind::Apart => self.part(),
            Kind::Rivals => self.rival(),
        }
        if let Some(gap) = self.plan.fault_gap {
            self.queue.after(gap, Event::Fault);
        }
        self.queue.after(self.plan.heal, Event::Heal);
    }

    /// Two halves.
    fn split(&mut self) {
        let side: Vec<bool> = self.hosts.iter().map(|_| self.prng.one_in(2)).collect();
        for one in 0..self.hosts.len() {
            for other in 0..self.hosts.len() {
                let together = side[one] == side[other];
                (self.dials[one][other], self.sees[one][other]) = (together, together);
            }
        }
    }

    /// Some do not see each other, but all are connected by way of others that do: each but the first has somebody before it.
    fn part(&mut self) {
        for one in 1..self.hosts.len() {
            let kept = usize::try_from(self.prng.range(0, one as u64)).expect("small");
            for other in (0..one).filter(|other| *other != kept) {
                match self.prng.range(0, 5) {
                    0 => self.dials[one][other] = false,
                    1 => self.dials[other][one] = false,
                    2 => (self.dials[one][other], self.dials[other][one]) = (false, false),
                    _ => {}
                }
            }
        }
    }

    /// The two that are to found never reach each other, and the one that comes first of all is not reached by most: who does not see it leaves the founding to the other one.
    fn rival(&mut self) {
        let mut order: Vec<usize> = (0..self.hosts.len()).collect();
        order.sort_unstable_by_key(|host| Fingerprint::of(&self.hosts[*host].key));
        let (first, second) = (order[0], order[1]);
        (self.dials[first][second], self.dials[second][first]) = (false, false);
        for other in order.into_iter().skip(2) {
            self.dials[other][first] = self.prng.one_in(8);
        }
    }

    /// Whether some never reach each other.
    fn is_apart(&self) -> bool {
        matches!(self.plan.kind, Kind::Apart | Kind::Rivals)
    }

    pub(crate) fn run(mut self) -> Report {
        let limit = if self.is_apart() { LIVELY_APART } else { LIVELY };
        let limit = Instant(0) + self.plan.heal + limit + self.last_switch();
        if self.plan.meets.is_some() {
            return self.run_meeting();
        }
        while !(self.healed && self.all_joined()) {
            let event = self.queue.pop().expect("time goes on");
            assert!(self.queue.now() <= limit, "no cluster for all in {limit:?}: {}", self.standing());
            self.happens(event);
        }
        let began = if self.plan.kind == Kind::Together { self.last_switch() } else { self.plan.heal };
        let took = self.judge.last_joined().since(Instant(0) + began);
        let mut roots: Vec<[u8; 32]> =
            self.hosts.iter().filter_map(|host| Some(host.disk.cluster?.0)).collect();
        roots.sort_unstable();
        roots.dedup();
        if self.plan.kind == Kind::Together {
            assert_eq!((roots.len(), self.report.alone), (1, false), "nothing went wrong");
        }
        Report {
            clusters: roots.len(),
            took,
            trace: self.trace.hash(),
            events: self.trace.events(),
            ..self.report
        }
    }

    /// When the last box that is switched on has a network.
    pub(super) fn last_switch(&self) -> Duration {
        self.plan.power.iter().map(|(power, up)| *power + *up).max().unwrap_or_default()
    }

    pub(super) fn all_joined(&self) -> bool {
        let guarded = |host: usize| self.plan.enters[host] == Enters::Guarded;
        let joined = |(number, host): (usize, &Host)| match host.node {
            Node::Member(_) => true,
            Node::Fresh { .. } => guarded(number),
            Node::Off => false,
        };
        self.hosts.iter().enumerate().all(joined)
    }

    pub(super) fn standing(&self) -> String {
        let now = self.queue.now();
        let state = |host: &Host| match &host.node {
            Node::Off => "off".to_owned(),
            Node::Member(_) => "member".to_owned(),
            Node::Fresh { gathering, .. } => {
                format!("{:?} next {:?}", gathering.status(now).state, gathering.poll_timeout(now))
            }
        };
        self.hosts.iter().map(state).collect::<Vec<_>>().join("; ")
    }

    pub(super) fn happens(&mut self, event: Event) {
        let now = self.queue.now();
        match event {
            Event::Power(host) => self.start(host),
            Event::Carrier(host, up) => self.carrier(host, up),
            Event::Wake(host, boot, at) => {
                if self.hosts[host].boot == boot && self.hosts[host].wake == Some(at) {
                    self.hosts[host].wake = None;
                    self.drain(host);
                }
            }
            Event::Announced(host, boot) => self.announced(host, boot),
            Event::Asked { to, from, boot, ask, question } => self.asked(to, from, boot, ask, &question),
            Event::Answered { to, from, boot, ask, answer } => self.answered(to, from, boot, ask, &answer),
            Event::Lost { to, boot, ask } => {
                if let Some(gathering) = self.hosts[to].fresh(boot) {
                    gathering.handle_lost(now, ask, "it was lost");
                    self.drain(to);
                }
            }
            Event::Persisted(host, boot) => self.persisted(host, boot),
            Event::Begun(host, boot, root, members) => self.begun(host, boot, root, members),
            Event::Doing(doing) => self.does(doing),
            Event::Fault => self.fault(),
            Event::Heal => self.heal(),
        }
    }

    // Boxes.

    pub(super) fn start(&mut self, at: usize) {
        let now = self.queue.now();
        self.note(&[1, at as u64], || format!("node {at} starts"));
        let prng = self.prng.fork();
        let host = &mut self.hosts[at];
        if !matches!(host.node, Node::Off) {
            return;
        }
        host.boot += 1;
        let boot = host.boot;
        if host.disk.leaving {
            return self.archives(at);
        }
        let host = &mut self.hosts[at];
        if let Some(root) = host.disk.cluster {
            host.node = Node::Member(root);
            self.takes_part(at);
        } else {
            let options = Options {
                key: host.key,
                name: format!("n{at}"),
                peer_urls: vec![format!("https://n{at}:2380")],
                claim: if self.plan.enters[at] == Enters::Invited { vec![7; 8] } else { Vec::new() },
                run: Incarnation(boot),
                understands: self.plan.understands[at],
                guarded: self.plan.enters[at] == Enters::Guarded,
                promise: host.disk.promise,
                prefers: host.disk.winner,
                timers: self.plan.timers,
                prng,
            };
            let mut gathering = Box::new(Gathering::new(now, options));
            gathering.handle_network(now, host.network());
            host.node = Node::Fresh { gathering, tickets: BTreeMap::new() };
            if self.plan.hints {
                self.hint(at);
            }
            if self.plan.phantoms {
                let phantom = Fingerprint::of(&PublicKey([0xff; 32]));
                self.sight(at, Whom::Node(phantom), true);
            }
            self.queue.after(ANNOUNCED_EVERY / 10, Event::Announced(at, boot));
        }
        self.changed(at);
        self.drain(at);
    }

    fn hint(&mut self, at: usize) {
        for other in 0..self.hosts.len() {
            self.sight(at, Whom::Address(format!("{other}")), true);
        }
        self.sight(at, Whom::Address("nobody".into()), true);
    }

    pub(super) fn crash(&mut self, at: usize) {
        self.note(&[2, at as u64], || format!("node {at} crashes"));
        let survives = self.prng.one_in(2);
        let host = &mut self.hosts[at];
        if matches!(host.node, Node::Off) {
            return;
        }
        if let Some(Write(writes)) = host.disk.writes.take()
            && survives
        {
            host.disk.promise = writes;
        }
        (host.node, host.wake) = (Node::Off, None);
        host.boot += 1;
        host.asked.clear();
        self.judge.died(at);
        self.report.crashes += 1;
        self.changed(at);
        let longest = u64::try_from(self.plan.rest.as_millis()).expect("short");
        let rest = Duration::from_millis(self.prng.range(100, longest));
        self.queue.after(rest, Event::Power(at));
    }

    fn carrier(&mut self, at: usize, up: bool) {
        let now = self.queue.now();
        self.note(&[3, at as u64, up.into()], || format!("node {at}: carrier {up}"));
        let host = &mut self.hosts[at];
        host.carrier_since = up.then(|| host.carrier_since.unwrap_or(now));
        host.last_up = if up && !matches!(host.node, Node::Off) { Some(now) } else { host.last_up };
        let network = host.network();
        if let Node::Fresh { gathering, .. } = &mut host.node {
            gathering.handle_network(now, network);
        }
        self.changed(at);
        self.drain(at);
    }

    /// Something has changed that all of this host's connections depend on.
    pub(super) fn changed(&mut self, at: usize) {
        let now = self.queue.now();
        for other in (0..self.hosts.len()).filter(|other| *other != at) {
            self.judge.troubled(now, at, other);
        }
    }

    pub(super) fn is_up(&self, host: usize) -> bool {
        self.hosts[host].carrier_since.is_some() && !matches!(self.hosts[host].node, Node::Off)
    }

    /// Whether a node that has no cluster and another one can find each other and talk. Members look for nobody: they have to be seen.
    fn is_good(&self, one: usize, other: usize) -> bool {
        let dials = self.dials[one][other] && self.dials[other][one];
        let looks = matches!(self.hosts[other].node, Node::Fresh { .. });
        let sees = self.sees[one][other] || (looks && self.sees[other][one]);
        self.is_up(one) && self.is_up(other) && dials && sees
    }

    // Faults.

    pub(super) fn pick(&mut self) -> usize {
        usize::try_from(self.prng.range(0, self.hosts.len() as u64)).expect("small")
    }

    fn fault(&mut self) {
        let Some(gap) = self.plan.fault_gap.filter(|_| !self.healed) else { return };
        let (one, other) = (self.pick(), self.pick());
        let rivals = self.plan.kind == Kind::Rivals;
        match self.prng.range(0, 9) {
            _ if rivals => self.crash(one),
            0 | 1 => self.crash(one),
            2 => {
                let up = self.hosts[one].carrier_since.is_none();
                self.carrier(one, up);
            }
            3 if !self.is_apart() => self.split(),
            4 if !self.is_apart() => self.mend(),
            5 => self.dials[one][other] = !self.dials[one][other],
            6 => self.sees[one][other] = !self.sees[one][other],
            7 => {
                let key = self.hosts[other].key;
                self.sight(one, Whom::Node(Fingerprint::of(&key)), false);
                self.drain(one);
            }
            _ => (self.sees[one][other], self.sees[other][one]) = (true, true),
        }
        for host in 0..self.hosts.len() {
            // It may be any pair's.
            self.changed(host);
        }
        let gap = crate::plan::draw(&mut self.prng, gap);
        self.queue.after(gap, Event::Fault);
    }

    fn mend(&mut self) {
        for row in self.dials.iter_mut().chain(&mut self.sees) {
            row.fill(true);
        }
    }

    fn heal(&mut self) {
        self.note(&[4], || "all is well".into());
        self.healed = true;
        if !self.is_apart() {
            self.mend();
        }
        let now = self.queue.now();
        for (host, (power, up)) in self.plan.power.clone().into_iter().enumerate() {
            self.sees[host].fill(true);
            self.changed(host);
            if Instant(0) + power <= now {
                self.start(host);
            }
            if Instant(0) + power + up <= now && self.hosts[host].carrier_since.is_none() {
                self.carrier(host, true);
            }
        }
    }

    // Messages.

    /// When a message arrives; `None`: never.
    fn way(&mut self, one: usize, other: usize) -> Option<Duration> {
        let now = self.queue.now();
        let hop = Duration::from_micros(self.prng.range(300, 20_000));
        let goes_wrong = |prng: &mut Prng, one_in| one_in > 0 && prng.one_in(one_in);
        if self.healed {
            return Some(hop);
        }
        if goes_wrong(&mut self.prng, self.plan.lost_one_in) {
            self.judge.troubled(now, one, other);
            return None;
        }
        if goes_wrong(&mut self.prng, self.plan.slow_one_in) {
            let longest = u64::try_from(self.plan.slow.as_millis()).expect("short").max(1);
            let slow = Duration::from_millis(self.prng.range(0, longest));
            if slow > GOOD {
                self.judge.troubled(now + slow, one, other);
            }
            return Some(hop + slow);
        }
        Some(hop)
    }

    fn times(&mut self) -> usize {
        let twice = !self.healed && self.plan.twice_one_in > 0 && self.prng.one_in(self.plan.twice_one_in);
        if twice { 2 } else { 1 }
    }

    pub(super) fn ask(&mut self, from: usize, ask: AskId, whom: &Whom, question: &Question) {
        let now = self.queue.now();
        let boot = self.hosts[from].boot;
        self.note(&[5, from as u64, ask.0], || format!("node {from} asks {whom} {question:?}"));
        self.hosts[from].asked.insert(ask, now);
        match question {
            Question::Promise { round, .. } => self.judge.asks_for_promise(now, from, *round),
            Question::Probe { over: Some(round), .. } => self.judge.over(*round),
            _ => {}
        }
        let bytes = question.encode();
        assert_eq!(Question::decode(&bytes).as_ref(), Ok(question));
        let to = match whom {
            Whom::Node(node) => self.hosts.iter().position(|host| Fingerprint::of(&host.key) == *node),
            Whom::Address(address) => address.parse().ok(),
        };
        let mut goes = false;
        if let Some(to) = to.filter(|to| self.dials[from][*to] && self.is_up(from)) {
            for _ in 0..self.times() {
                if let Some(way) = self.way(from, to) {
                    goes = true;
                    let question = bytes.clone();
                    self.queue.after(way, Event::Asked { to, from, boot, ask, question });
                }
            }
        }
        if !goes {
            let patience = self.prng.range(1, 5000);
            self.queue.after(Duration::from_millis(patience), Event::Lost { to: from, boot, ask });
        } else if !self.prng.one_in(4) {
            self.queue.after(DRIVER_PATIENCE, Event::Lost { to: from, boot, ask });
        }
    }

    fn asked(&mut self, to: usize, from: usize, boot: u64, ask: AskId, question: &[u8]) {
        let now = self.queue.now();
        let question = Question::decode(question).expect("it was encoded");
        if !self.is_up(to) || !self.is_up(from) || !self.dials[from][to] {
            return;
        }
        let key = self.hosts[from].key;
        match &mut self.hosts[to].node {
            Node::Off => {}
            Node::Fresh { gathering, tickets } => {
                let ticket = gathering.handle_question(now, key, question);
                tickets.insert(ticket, (from, boot, ask));
                self.drain(to);
            }
            Node::Member(root) => {
                let root = *root;
                if self.plan.meets.is_some() {
                    return self.member_asked(to, (from, boot, ask), question);
                }
                let answer = self.member_answers(root, to, from, &question);
                self.answer(to, from, boot, ask, &answer);
            }
        }
    }

    fn member_answers(&mut self, root: ClusterRoot, to: usize, from: usize, question: &Question) -> Answer {
        let reluctant = self.plan.reluctant_one_in;
        if !matches!(question, Question::Join { .. }) {
            let (cluster, generation) = (root.id(), Generation(1));
            let name = format!("n{to}");
            let (uses, understands) = (CommandVersion::FIRST, CommandVersion::FIRST);
            return Answer::Member(Standing {
                name,
                cluster,
                generation,
                committed: false,
                open: true,
                uses,
                understands,
            });
        }
        if !self.healed && reluctant > 0 && self.prng.one_in(reluctant) {
            return match self.prng.range(0, 3) {
                0 => Answer::Wait("no leader".into()),
                1 => Answer::Refused("not yet".into()),
                _ => Answer::Pending("approve it".into()),
            };
        }
        let member = MemberId(from as u64 + 1);
        let attributes = MemberAttributes { member, ..MemberAttributes::default() };
        let members = vec![Member { key: Some(self.hosts[from].key), votes: false, attributes }];
        Answer::Welcome(Box::new(Welcome {
            root,
            generation: Generation(1),
            member,
            members,
            commands: CommandVersion::FIRST,
        }))
    }

    /// Sends an answer of `from` to whoever has asked.
    pub(super) fn answer(&mut self, from: usize, to: usize, boot: u64, ask: AskId, answer: &Answer) {
        let now = self.queue.now();
        self.note(&[6, from as u64, to as u64, ask.0], || {
            format!("node {from} answers node {to} {answer:?}")
        });
        match answer {
            Answer::Gathers { round, .. } => self.judge.makes(from, *round),
            Answer::Promised { round } => {
                assert_eq!(self.plan.enters[from], Enters::Plain, "node {from} promises");
                let promise = Promise { candidate: self.hosts[to].key, round: *round };
                let disk = self.hosts[from].disk.promise;
                self.judge.promises(now, from, to, promise, disk);
            }
            _ => {}
        }
        let bytes = answer.encode();
        assert_eq!(Answer::decode(&bytes).as_ref(), Ok(answer));
        for _ in 0..self.times() {
            if let Some(way) = self.way(from, to) {
                let answer = bytes.clone();
                self.queue.after(way, Event::Answered { to, from, boot, ask, answer });
            }
        }
    }

    fn answered(&mut self, to: usize, from: usize, boot: u64, ask: AskId, answer: &[u8]) {
        let now = self.queue.now();
        if !self.is_up(to) || !self.dials[to][from] {
            return;
        }
        let answer = Answer::decode(answer).expect("it was encoded");
        let key = self.hosts[from].key;
        let asked_at = self.hosts[to].asked.get(&ask).copied();
        if self.plan.meets.is_some() && matches!(self.hosts[to].node, Node::Member(_)) {
            return self.member_answered(to, from, boot, ask, answer);
        }
        let Some(gathering) = self.hosts[to].fresh(boot) else { return };
        let fresh = match &answer {
            Answer::Gathers { waits, .. } => Some(!waits),
            Answer::Promised { .. } => Some(true),
            Answer::NotPromised(_) => None,
            _ => Some(false),
        };
        gathering.handle_answer(now, ask, key, answer);
        if let (Some(asked_at), Some(fresh)) = (asked_at, fresh)
            && now.since(asked_at) < self.plan.timers.probe_timeout
        {
            self.judge.told(to, from, asked_at, fresh);
        }
        self.drain(to);
    }

    fn announced(&mut self, at: usize, boot: u64) {
        let up = self.hosts[at].carrier_since.is_some();
        if self.hosts[at].fresh(boot).is_none() {
            return;
        }
        for other in 0..self.hosts.len() {
            if up && self.is_up(other) && self.sees[at][other] && !self.plan.hints {
                let key = self.hosts[other].key;
                self.sight(at, Whom::Node(Fingerprint::of(&key)), true);
            }
        }
        self.drain(at);
        self.queue.after(ANNOUNCED_EVERY, Event::Announced(at, boot));
    }

    fn sight(&mut self, at: usize, whom: Whom, seen: bool) {
        let now = self.queue.now();
        if let Node::Fresh { gathering, .. } = &mut self.hosts[at].node {
            gathering.handle_sighting(now, whom, seen);
        }
    }

    // What nodes do.

    fn drain(&mut self, at: usize) {
        let now = self.queue.now();
        loop {
            let host = &mut self.hosts[at];
            let Node::Fresh { gathering, tickets } = &mut host.node else { return };
            let Some(output) = gathering.poll(now) else { break };
            match output {
                Output::Ask { ask, whom, question } => self.ask(at, ask, &whom, &question),
                Output::Answer { ticket, answer } => {
                    let (to, boot, ask) =
                        tickets.remove(&ticket).expect("it was asked, and not answered yet");
                    self.answer(at, to, boot, ask, &answer);
                }
                Output::Persist(promise) => {
                    assert!(host.disk.writes.is_none(), "one is on its way at a time");
                    host.disk.writes = Some(Write(promise));
                    let (boot, write) = (host.boot, self.write());
                    self.queue.after(write, Event::Persisted(at, boot));
                }
                Output::End(end) => self.ends(at, end),
            }
        }
        let host = &mut self.hosts[at];
        let Node::Fresh { gathering, .. } = &host.node else { return };
        let next = gathering.poll_timeout(now);
        if next == host.wake {
            return;
        }
        host.wake = next;
        if let Some(next) = next {
            assert!(next > now, "node {at} has something to do now: {:?}", gathering.status(now));
            let boot = host.boot;
            self.queue.after(next.since(now), Event::Wake(at, boot, next));
        }
    }

    pub(super) fn write(&mut self) -> Duration {
        let is_slow = self.prng.one_in(self.plan.slow_write_one_in) && !self.healed;
        let longest = if is_slow { self.plan.slow_write } else { self.plan.write };
        Duration::from_micros(
            self.prng.range(500, u64::try_from(longest.as_micros()).expect("short").max(501)),
        )
    }

    pub(super) fn crashes_here(&mut self) -> bool {
        !self.healed && self.plan.crash_one_in > 0 && self.prng.one_in(self.plan.crash_one_in)
    }

    fn persisted(&mut self, at: usize, boot: u64) {
        let now = self.queue.now();
        if self.hosts[at].boot != boot {
            return;
        }
        // The record of a cluster has taken its place meanwhile.
        let Some(Write(written)) = self.hosts[at].disk.writes.take() else { return };
        self.hosts[at].disk.promise = written;
        self.note(&[7, at as u64], || format!("node {at} holds {written:?}"));
        if self.crashes_here() {
            return self.crash(at);
        }
        if let Some(gathering) = self.hosts[at].fresh(boot) {
            gathering.handle_persisted(now);
            self.drain(at);
        }
    }

    fn ends(&mut self, at: usize, end: End) {
        let now = self.queue.now();
        self.note(&[8, at as u64], || format!("node {at} ends: {end:?}"));
        let enters = self.plan.enters[at];
        let (root, members) = match end {
            End::Join(welcome) => {
                assert_ne!(enters, Enters::Guarded, "node {at} joins somebody whom it cannot know");
                (welcome.root, welcome.members)
            }
            End::Found { alone, with } => {
                assert_ne!(
                    enters,
                    Enters::Invited,
                    "node {at} founds a cluster and was invited to another one"
                );
                assert!(enters == Enters::Plain || alone, "node {at} trusts nobody and counts on {with:?}");
                let place = |node: &Fingerprint| {
                    self.hosts.iter().position(|host| Fingerprint::of(&host.key) == *node).expect("a host")
                };
                let with: Vec<usize> = with.iter().map(place).collect();
                for other in (0..self.hosts.len()).filter(|other| *other != at) {
                    if !self.is_good(at, other) {
                        self.judge.troubled(now, at, other);
                    }
                }
                self.judge.founds(now, at, &with);
                self.report.alone |= alone;
                self.roots += 1;
                let mut root = [7; 32];
                root[..8].copy_from_slice(&self.roots.to_le_bytes());
                (ClusterRoot(root), Vec::new())
            }
        };
        let write = self.write() * 3;
        let boot = self.hosts[at].boot;
        self.queue.after(write, Event::Begun(at, boot, root, members));
    }

    /// Store, log and record are there.
    fn begun(&mut self, at: usize, boot: u64, root: ClusterRoot, members: Vec<Member>) {
        let now = self.queue.now();
        if self.hosts[at].boot != boot {
            return;
        }
        if self.crashes_here() {
            return self.crash(at);
        }
        self.note(&[9, at as u64], || format!("node {at} is a member"));
        self.judge.joined(now, at);
        let host = &mut self.hosts[at];
        assert!(host.disk.cluster.is_none(), "a node has one cluster");
        let tombstones = std::mem::take(&mut host.disk.tombstones);
        host.disk = Disk { cluster: Some(root), tombstones, ..Disk::default() };
        (host.node, host.wake) = (Node::Member(root), None);
        self.begins(at, root, members);
        // Nobody was told yet.
        if self.crashes_here() {
            self.crash(at);
        }
    }

    pub(super) fn note(&mut self, numbers: &[u64], text: impl FnOnce() -> String) {
        self.trace.note(self.queue.now(), numbers, text);
    }
}
