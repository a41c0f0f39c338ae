//! What other nodes ask and answer while they gather.
//!
//! Owns: when a promise is given and when it ends, and what each answer comes to. Must never: replace a promise that is held. Driven by `gathering`.

use super::neighbours::{Asked, Matter, Says};
use super::{AskId, End, Gathering, Held, Output, Ticket, UNANSWERED_MAX, Whom};
use crate::formation::identity::{Fingerprint, Promise};
use crate::formation::message::{Answer, Question, View, Welcome};
use crate::ids::PublicKey;
use crate::planted::{self, Bug};
use crate::time::Instant;

/// What others ask.
impl Gathering {
    /// `None`: the answer has to wait for the disk.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        ticket: Ticket,
        from: PublicKey,
        question: Question,
    ) -> Option<Answer> {
        let name = &self.name;
        if from == self.own {
            return Some(Answer::Refused(format!("{name} has this key, too: one of the two is a copy")));
        }
        if matches!(self.end, Some(End::Join(_))) {
            return Some(Answer::Wait(format!("{name} is about to join a cluster")));
        }
        match question {
            Question::Meets(_) => Some(Answer::Refused(format!(
                "{name} was not told of an initial cluster: it looks for others"
            ))),
            Question::Join { .. } | Question::Absorb { .. } | Question::Fate { .. } => {
                Some(Answer::Wait(format!("{name} is in no cluster itself")))
            }
            Question::Probe { .. } => {
                let round = self.attempt.as_ref().map(|attempt| attempt.round);
                let promised = self.held.map(|held| Fingerprint::of(&held.promise.candidate));
                let (name, waits, view) = (name.clone(), self.waits(now), self.view.clone());
                Some(Answer::Gathers { name, round, promised, waits, view })
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
        if let Some(held) = self.held.filter(|_| !planted::has(Bug::PromiseTwice)) {
            let to = self.called(&Fingerprint::of(&held.promise.candidate));
            return Err(format!("the founding is left to {to} already"));
        }
        if self.begun().is_none() {
            return Err("its interfaces are down".into());
        }
        if !self.claim.is_empty() {
            return Err("it waits for the cluster of its join token".into());
        }
        if self.guarded {
            return Err("it is to trust nobody here".into());
        }
        if self.neighbours.member_until(now).is_some() {
            return Err("it has found a cluster".into());
        }
        if !patient && *view != self.view {
            return Err(self.difference(&candidate, view));
        }
        if now < self.view_since + self.timers.stable {
            return Err("nodes have appeared or vanished a moment ago".into());
        }
        let is_soon = |gave| now.since(gave) < self.timers.promise_every;
        if self.gave.is_some_and(is_soon) && !planted::has(Bug::PromiseTwice) {
            return Err("it has left the founding to somebody a moment ago".into());
        }
        // Whoever asks patiently may be out of reach from here.
        if let Some(lower) = self.view.lowest().filter(|lowest| *lowest < candidate) {
            return Err(format!("{} is to found", self.called(&lower)));
        }
        self.held = Some(Held { promise, since: now, until: now + self.timers.promise_held });
        self.gave = Some(now);
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
    pub(super) fn heard(&mut self, now: Instant, asked: &Asked, from: PublicKey, answer: Answer) {
        let node = Fingerprint::of(&from);
        let watched = self.held.is_some_and(|held| held.promise.candidate == from);
        let next = match (asked.matter, &answer) {
            (Matter::Enter, Answer::Pending(_) | Answer::Refused(_)) => {
                self.neighbours.turned_down(&asked.whom)
            }
            (Matter::Enter, _) => {
                self.neighbours.not_turned_down(&asked.whom);
                self.timers.pending_every
            }
            _ if watched => self.timers.watch_every,
            _ => self.neighbours.pause(&mut self.prng),
        };
        let known = match self.neighbours.answered(now, asked, from, next) {
            Ok(Some(known)) => known,
            Ok(None) => return,
            Err(why) => return self.lost(now, asked, why),
        };
        if asked.matter == Matter::Join {
            self.joining.not_before = now + self.timers.join_every;
        }
        // What an earlier question has brought later says nothing of now.
        let stale = known.line.answered > Some(asked.at);
        let cluster = match &known.says {
            Says::Member(standing) => Some(standing.cluster),
            _ => None,
        };
        match (asked.matter, answer) {
            (_, Answer::Member(_) | Answer::Gathers { .. }) if stale => {}
            (_, Answer::Member(standing)) => {
                standing.name.clone_into(&mut known.name);
                known.says = Says::Member(standing);
            }
            (Matter::Probe, Answer::Gathers { name, round, promised, waits, view }) => {
                known.name = name;
                known.says = Says::Gathers { promised, waits, view };
                self.release(asked.at, from, round);
            }
            (Matter::Probe, Answer::Wait(sentence) | Answer::Refused(sentence))
            | (
                Matter::Enter,
                Answer::Wait(sentence) | Answer::Refused(sentence) | Answer::Pending(sentence),
            ) => {
                known.says = Says::Other(sentence);
            }
            (Matter::Join | Matter::Enter, Answer::Welcome(welcome)) => self.welcomed(welcome),
            (Matter::Probe | Matter::Enter, _) => {
                known.says = Says::Other("it gives no sensible answer".into());
            }
            (Matter::Promise(round), answer) => self.promised(now, node, round, answer),
            (Matter::Join, Answer::Pending(sentence) | Answer::Refused(sentence)) => {
                self.joining.said = cluster.map(|cluster| (cluster, sentence));
                self.joining.not_before = now + self.timers.pending_every;
            }
            (Matter::Join, Answer::Wait(sentence)) => {
                self.joining.said = cluster.map(|cluster| (cluster, sentence));
            }
            // It is in no cluster any more.
            (Matter::Join, _) => self.neighbours.hurry(now, &node),
        }
    }

    fn welcomed(&mut self, welcome: Box<Welcome>) {
        if self.end.is_none() {
            // Whoever counts on a promise of this node finds a member here.
            (self.held, self.attempt) = (None, None);
            self.outputs.push_back(Output::End(End::Join(welcome.clone())));
            self.end = Some(End::Join(welcome));
        }
    }

    /// Whom the founding was left to says that the attempt is over. That is true for good, however late it comes.
    pub(super) fn release_over(&mut self, from: PublicKey, over: Option<u64>) {
        self.held.take_if(|held| held.promise.candidate == from && over == Some(held.promise.round));
    }

    /// Whom the founding was left to says that it makes another attempt, or none: in answer to a question from after the promise.
    fn release(&mut self, asked_at: Instant, from: PublicKey, round: Option<u64>) {
        self.held.take_if(|held| {
            held.promise.candidate == from && held.since < asked_at && round != Some(held.promise.round)
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

    pub(super) fn give_up(&mut self, now: Instant, ask: AskId, why: &str) {
        let Some(asked) = self.neighbours.take(ask) else { return };
        self.joining.ask.take_if(|joining| *joining == ask);
        self.lost(now, &asked, why.to_owned());
    }

    /// The claim was turned down, by somebody who has not shown to know it: it is shown again soon enough, and for ever. A node that was asked something else may not know the claim at all.
    pub(super) fn turn_down(&mut self, now: Instant, ask: AskId, why: &str) {
        let Some(asked) = self.neighbours.take(ask) else { return };
        if asked.matter != Matter::Enter {
            self.joining.ask.take_if(|joining| *joining == ask);
            return self.lost(now, &asked, why.to_owned());
        }
        let next = self.neighbours.doubted(&asked.whom);
        self.neighbours.lost(now, &asked, next, why.to_owned());
    }

    pub(super) fn lost(&mut self, now: Instant, asked: &Asked, why: String) {
        match (asked.matter, &asked.whom) {
            (Matter::Promise(round), Whom::Node(node)) => {
                if self.attempt.as_ref().is_some_and(|attempt| attempt.round == round) {
                    let why = format!("{} was asked and does not answer: {why}", self.called(node));
                    self.abandon(now, why);
                }
            }
            (Matter::Join, _) => self.joining.not_before = now + self.timers.join_every,
            (Matter::Probe | Matter::Promise(_) | Matter::Enter, _) => {}
        }
        let enters = asked.matter == Matter::Enter;
        let next = if enters { self.timers.pending_every } else { self.timers.probe_every };
        self.neighbours.lost(now, asked, next, why);
    }
}
