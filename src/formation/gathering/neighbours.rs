//! The nodes around one that is in no cluster: who is there, who can be reached, and what they have said last.
//!
//! Owns: when each of them is asked again, which question an answer belongs to, and who counts as visible. Must never: take an announcement for more than
//! a reason to ask, or decide anything. Driven by `gathering`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{AskId, Timers, Whom};
use crate::formation::identity::Fingerprint;
use crate::formation::message::{Standing, View};
use crate::ids::PublicKey;
use crate::prng::Prng;
use crate::time::Instant;

/// Nodes and addresses beyond these are ignored: whoever announces so many is not a network of boxes.
const NEIGHBOURS_MAX: usize = 1024;
/// More refusals make a pause no longer.
const TURNED_DOWN_COUNTED: u32 = 10;

/// What a node has said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// Nothing yet.
    Nothing,
    /// It is in no cluster and looks for one.
    Gathers { promised: Option<Fingerprint>, waits: bool, view: View },
    /// It is in a cluster.
    Member(Standing),
    /// Something that is of no use here.
    Other(String),
}

/// How the asking of a node, or at an address, goes.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Since when somebody is believed to be there.
    pub(super) since: Instant,
    /// The probe that is on its way.
    probe: Option<AskId>,
    /// When the next one may go.
    due: Instant,
    /// When the last one went.
    probed: Option<Instant>,
    /// When the question was asked that was answered last. Not when the answer came: what it says may be as old as that.
    pub(super) answered: Option<Instant>,
    /// Since when questions are lost, and why the last one was.
    pub(super) failing: Option<(Instant, String)>,
    /// How often the claim was turned down there, one time after the other, by somebody who has shown to know it, ...
    turned_down: u32,
    /// ... and by somebody who has not.
    doubted: u32,
}

/// A node that is believed to be there.
#[derive(Clone, Debug)]
pub(super) struct Neighbour {
    /// Known once it has said anything.
    pub(super) key: Option<PublicKey>,
    /// What it calls itself.
    pub(super) name: String,
    /// Whether it is announced.
    announced: bool,
    /// When it has last asked something itself.
    heard: Option<Instant>,
    pub(super) line: Line,
    pub(super) says: Says,
}

/// An address at which a node may be.
#[derive(Clone, Debug)]
pub(super) struct Hint {
    pub(super) line: Line,
    /// Who answered there.
    pub(super) node: Option<Fingerprint>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Matter {
    Probe,
    Promise(u64),
    /// A member, known as such.
    Join,
    /// Whoever is there, with a claim.
    Enter,
}

/// A question that is on its way.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) whom: Whom,
    pub(super) matter: Matter,
    pub(super) at: Instant,
}

#[derive(Debug)]
pub(super) struct Neighbours {
    own: Fingerprint,
    timers: Timers,
    pub(super) nodes: BTreeMap<Fingerprint, Neighbour>,
    pub(super) hints: BTreeMap<String, Hint>,
    asked: BTreeMap<AskId, Asked>,
    last_ask: u64,
}

impl Line {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            probe: None,
            due: now,
            probed: None,
            answered: None,
            failing: None,
            turned_down: 0,
            doubted: 0,
        }
    }

    /// Whether the claim was turned down there last, by whomever.
    pub(super) fn lets_nobody_in(&self) -> bool {
        self.turned_down > 0 || self.doubted > 0
    }

    /// Whether a question was answered lately.
    fn in_session(&self, now: Instant, timers: &Timers) -> bool {
        self.answered.is_some_and(|at| now.since(at) < timers.session)
    }

    /// Until when it is waited for somebody who is believed to be there and does not answer. Who never has is not waited for for ever, however often
    /// somebody else is announced.
    fn held_until(&self, begun: Instant, timers: &Timers) -> Instant {
        match self.answered {
            Some(at) => at + timers.unreachable,
            None => (self.since.max(begun) + timers.unreachable).min(begun + timers.sightings),
        }
    }

    /// However much there is to say, everybody is left some time between two questions.
    fn hurry(&mut self, now: Instant, timers: &Timers) {
        let earliest = self.probed.map_or(now, |at| now.max(at + timers.watch_every));
        self.due = self.due.min(earliest);
    }

    fn was_answered(&mut self, asked_at: Instant, next: Duration) {
        self.answered = self.answered.max(Some(asked_at));
        self.due = asked_at + next;
        self.failing = None;
    }

    fn was_lost(&mut self, now: Instant, next: Duration, why: String) {
        self.due = now + next;
        let since = self.failing.take().map_or(now, |(since, _)| since);
        self.failing = Some((since, why));
    }
}

impl Neighbour {
    fn new(now: Instant) -> Self {
        let line = Line::new(now);
        Self { key: None, name: String::new(), announced: false, heard: None, line, says: Says::Nothing }
    }

    /// Whether there is any reason to believe that it is there.
    fn is_there(&self, now: Instant, timers: &Timers) -> bool {
        let lately = |at: Option<Instant>, limit| at.is_some_and(|at| now.since(at) < limit);
        // Who turns this node down is asked seldom: it is there until it does not answer.
        let turns_down = self.line.turned_down > 0 && self.line.failing.is_none();
        let answers = turns_down || lately(self.line.answered, timers.member_gone);
        self.announced || lately(self.heard, timers.session) || answers
    }
}

impl Neighbours {
    pub(super) fn new(own: Fingerprint, timers: &Timers) -> Self {
        let (nodes, hints, asked) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { own, timers: *timers, nodes, hints, asked, last_ask: 0 }
    }

    /// Somebody is announced, or is not any more.
    pub(super) fn sighted(&mut self, now: Instant, whom: Whom, seen: bool) {
        match whom {
            Whom::Node(node) if seen => {
                if let Some(known) = self.meet(now, node) {
                    known.announced = true;
                }
            }
            Whom::Node(node) => {
                if let Some(known) = self.nodes.get_mut(&node) {
                    known.announced = false;
                }
            }
            Whom::Address(address) if seen => {
                if self.hints.len() < NEIGHBOURS_MAX {
                    self.hints.entry(address).or_insert_with(|| Hint { line: Line::new(now), node: None });
                }
            }
            Whom::Address(address) => drop(self.hints.remove(&address)),
        }
    }

    /// A node has asked something.
    pub(super) fn heard(&mut self, now: Instant, key: PublicKey, name: Option<&str>, seen: Option<&View>) {
        let timers = self.timers;
        let Some(known) = self.meet(now, Fingerprint::of(&key)) else { return };
        known.key = Some(key);
        known.heard = Some(now);
        if let Some(name) = name {
            name.clone_into(&mut known.name);
        }
        match (&mut known.says, seen) {
            (Says::Gathers { view, .. }, Some(seen)) => seen.clone_into(view),
            // It was in a cluster, and is not any more, or has not been asked yet.
            (_, Some(_)) => known.line.hurry(now, &timers),
            (_, None) => {}
        }
    }

    fn meet(&mut self, now: Instant, node: Fingerprint) -> Option<&mut Neighbour> {
        if node == self.own || (!self.nodes.contains_key(&node) && self.nodes.len() >= NEIGHBOURS_MAX) {
            return None;
        }
        let known = self.nodes.entry(node).or_insert_with(|| Neighbour::new(now));
        Some(known)
    }

    /// Notes a question; the answer comes with the number.
    pub(super) fn ask(&mut self, now: Instant, whom: Whom, matter: Matter) -> AskId {
        self.last_ask += 1;
        let ask = AskId(self.last_ask);
        if matches!(matter, Matter::Probe | Matter::Enter)
            && let Some(line) = self.line(&whom)
        {
            (line.probe, line.probed) = (Some(ask), Some(now));
        }
        self.asked.insert(ask, Asked { whom, matter, at: now });
        ask
    }

    /// Whom to probe now.
    pub(super) fn due(&self, now: Instant) -> Option<Whom> {
        let is_due = |line: &Line| line.probe.is_none() && line.due <= now;
        let node = self.nodes.iter().find(|(_, known)| is_due(&known.line));
        let hint = || self.hints.iter().find(|(_, hint)| is_due(&hint.line));
        node.map(|(node, _)| Whom::Node(*node))
            .or_else(|| hint().map(|(address, _)| Whom::Address(address.clone())))
    }

    /// Somebody is to be probed soon: there is news.
    pub(super) fn hurry(&mut self, now: Instant, node: &Fingerprint) {
        if let Some(known) = self.nodes.get_mut(node) {
            known.line.hurry(now, &self.timers);
        }
    }

    /// The question that an answer, or the loss of one, belongs to; none, where it is none of ours or too late.
    pub(super) fn take(&mut self, ask: AskId) -> Option<Asked> {
        let asked = self.asked.remove(&ask)?;
        if let Some(line) = self.line(&asked.whom)
            && line.probe == Some(ask)
        {
            line.probe = None;
        }
        Some(asked)
    }

    /// Somebody has answered a question. What it has said is for the caller to note.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        asked: &Asked,
        key: PublicKey,
        next: Duration,
    ) -> Result<Option<&mut Neighbour>, String> {
        let node = Fingerprint::of(&key);
        let patience = self.timers.unreachable;
        match &asked.whom {
            Whom::Node(expected) if *expected != node => {
                return Err(format!("a node with another key answers there: {}", node.short()));
            }
            Whom::Node(_) => {}
            Whom::Address(address) => {
                if let Some(hint) = self.hints.get_mut(address) {
                    // The node is asked for itself from now on; now and then it is looked whether another one is there.
                    hint.line.was_answered(asked.at, patience.max(next));
                    hint.node = Some(node);
                }
            }
        }
        // Who was forgotten meanwhile is there after all.
        let Some(known) = self.meet(now, node) else { return Ok(None) };
        known.key = Some(key);
        known.line.was_answered(asked.at, next);
        Ok(Some(known))
    }

    /// This node itself is where it has asked: all may be told of the same addresses. It is nobody to wait for, and may move away from there.
    pub(super) fn is_itself(&mut self, asked: &Asked) {
        let (own, patience) = (self.own, self.timers.unreachable);
        if let Whom::Address(address) = &asked.whom
            && let Some(hint) = self.hints.get_mut(address)
        {
            hint.line.was_answered(asked.at, patience);
            hint.node = Some(own);
        }
    }

    /// A question had no answer; the next one goes after `next`.
    pub(super) fn lost(&mut self, now: Instant, asked: &Asked, next: Duration, why: String) {
        let own = self.own;
        if let Whom::Address(address) = &asked.whom
            && let Some(hint) = self.hints.get_mut(address)
        {
            hint.node.take_if(|node| *node == own);
        }
        if let Some(line) = self.line(&asked.whom) {
            line.was_lost(now, next, why);
        }
    }

    /// The claim was turned down by somebody who knows it. Nothing changes that but an operator, who may never come: until when it is not shown there again.
    pub(super) fn turned_down(&mut self, whom: &Whom) -> Duration {
        let most = self.timers.claim_every_max;
        self.longer_each_time(whom, most, |line| &mut line.turned_down)
    }

    /// The same by somebody who may be anybody. That makes no pause longer which one who knows the claim has asked for.
    pub(super) fn doubted(&mut self, whom: &Whom) -> Duration {
        let most = self.timers.claim_doubted_max;
        self.longer_each_time(whom, most, |line| &mut line.doubted)
    }

    fn longer_each_time(
        &mut self,
        whom: &Whom,
        most: Duration,
        times: impl FnOnce(&mut Line) -> &mut u32,
    ) -> Duration {
        let first = self.timers.pending_every;
        let Some(line) = self.line(whom) else { return first };
        let times = times(line);
        let pause = first.saturating_mul(1 << (*times).min(TURNED_DOWN_COUNTED));
        *times = times.saturating_add(1);
        pause.min(most)
    }

    /// It was heard there, or may be soon.
    pub(super) fn not_turned_down(&mut self, whom: &Whom) {
        if let Some(line) = self.line(whom) {
            (line.turned_down, line.doubted) = (0, 0);
        }
    }

    fn line(&mut self, whom: &Whom) -> Option<&mut Line> {
        match whom {
            Whom::Node(node) => self.nodes.get_mut(node).map(|known| &mut known.line),
            Whom::Address(address) => self.hints.get_mut(address).map(|hint| &mut hint.line),
        }
    }

    /// Questions that have taken too long.
    pub(super) fn overdue(&self, now: Instant) -> Vec<AskId> {
        let is_overdue = |asked: &Asked| now >= asked.at + self.limit(asked.matter);
        self.asked.iter().filter(|(_, asked)| is_overdue(asked)).map(|(ask, _)| *ask).collect()
    }

    fn limit(&self, matter: Matter) -> Duration {
        match matter {
            Matter::Probe => self.timers.probe_timeout,
            Matter::Promise(_) | Matter::Join | Matter::Enter => self.timers.ask_timeout,
        }
    }

    /// Forgets whom nothing speaks for any more.
    pub(super) fn forget(&mut self, now: Instant) {
        let Self { nodes, timers, .. } = self;
        nodes.retain(|_, known| known.is_there(now, timers));
    }

    /// The nodes that are visible and take part in the founding, and this one.
    pub(super) fn view(&self, now: Instant) -> View {
        let takes_part = |says: &Says| matches!(says, Says::Gathers { waits: false, .. });
        let fresh = self.visible(now).filter(|(_, known)| takes_part(&known.says));
        View::of(fresh.map(|(node, _)| *node).chain([self.own]))
    }

    /// All that have answered lately.
    pub(super) fn visible(&self, now: Instant) -> impl Iterator<Item = (&Fingerprint, &Neighbour)> {
        self.nodes.iter().filter(move |(_, known)| known.line.in_session(now, &self.timers))
    }

    /// Somebody who may be there, and is waited for until then; of many, the last.
    pub(super) fn held(&self, now: Instant, begun: Instant) -> Option<(Whom, Instant)> {
        let waits = |line: &Line| {
            let until = line.held_until(begun, &self.timers);
            (!line.in_session(now, &self.timers) && now < until).then_some(until)
        };
        let nodes =
            self.nodes.iter().filter_map(|(node, known)| Some((Whom::Node(*node), waits(&known.line)?)));
        // Where a node has answered, it is waited for as such.
        let silent = self.hints.iter().filter(|(_, hint)| hint.node.is_none());
        let hints =
            silent.filter_map(|(address, hint)| Some((Whom::Address(address.clone()), waits(&hint.line)?)));
        nodes.chain(hints).max_by_key(|(_, until)| *until)
    }

    /// Until when a member counts that is not heard of any more.
    pub(super) fn member_until(&self, now: Instant) -> Option<Instant> {
        let members = self.nodes.values().filter(|known| matches!(known.says, Says::Member(_)));
        let last = members.filter_map(|known| known.line.answered).max()? + self.timers.member_gone;
        (now < last).then_some(last)
    }

    /// When something here changes by itself.
    pub(super) fn timeout(&self, now: Instant) -> Option<Instant> {
        let overdue = self.asked.values().map(|asked| asked.at + self.limit(asked.matter));
        let lines = self.nodes.values().map(|known| &known.line);
        let probes = lines.clone().chain(self.hints.values().map(|hint| &hint.line));
        let probes = probes.filter(|line| line.probe.is_none()).map(|line| line.due);
        let sessions = lines.filter_map(|line| Some(line.answered? + self.timers.session));
        overdue.chain(probes).chain(sessions.filter(|end| *end > now)).min()
    }

    /// So that nodes that were switched on together do not ask each other at the same moments.
    pub(super) fn pause(&self, prng: &mut Prng) -> Duration {
        let (most, spread) = (self.timers.probe_every, self.timers.probe_every / 10);
        let nanos = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX).max(1);
        most.saturating_sub(Duration::from_nanos(prng.range(0, nanos)))
    }
}
