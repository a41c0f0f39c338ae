//! Clients: what they ask, what they are told, when they hang up.
//!
//! Owns: requests from the question to the answer. Must never: ask a member for more than an answer.

use std::time::Duration;

use covey::command::Applied;
use covey::ids::ProposalId;
use covey::limits::REQUEST_TIMEOUT;
use covey::node::{LeaseAnswer, Request};
use covey::time::Instant;

use super::{Asked, Event, Host, Kind, Op, World};
use crate::disk::chain;
use crate::leases::Told;
use crate::member::Effects;
use crate::oracle::check_fresh;
use crate::plan::draw;
use crate::workload::Ask;

/// Revisions that a check of everything looks at.
const DEPTH: i64 = 5;
/// A member that is sent the state has more of it after so long, whatever its disk.
const STAGES_AT_LEAST: Duration = Duration::from_secs(1);
/// And it has all of it after so long, or what it is sent begins anew for ever.
const STAGED_WITHIN: Duration = Duration::from_secs(60);

/// Whether a member is being sent a state that comes to an end: since when it is sent any, and when it last had more of one.
fn gets_on(since: Option<Instant>, got_on: Instant, now: Instant) -> bool {
    now.since(got_on) < STAGES_AT_LEAST && since.is_some_and(|since| now.since(since) < STAGED_WITHIN)
}

/// Clients.
impl World {
    pub(super) fn client(&mut self, client: u64) {
        let rest = self.resting_until.since(self.queue.now());
        let think = draw(&mut self.prng, self.plan.load.think);
        if rest.is_zero() && self.asked < self.plan.load.operations {
            for _ in 0..self.prng.range(1, 4) {
                let (revision, compacted) = self.oracle.revisions();
                let ask = self.workload.ask(revision, compacted);
                let host = usize::try_from(self.prng.range(0, self.hosts.len() as u64)).expect("few");
                if !matches!(self.ask(host, ask), Asked::Down) {
                    self.asked += 1;
                }
            }
        }
        if self.asked < self.plan.load.operations {
            self.queue.after(rest + think, Event::Client(client));
        }
    }

    /// How long a read keeps the view that it took.
    pub(super) fn hold(&mut self) -> Duration {
        let mean = if self.calm { Duration::ZERO } else { self.plan.load.hold };
        draw(&mut self.prng, mean)
    }

    /// Sends a request to a host. One that is down refuses the connection.
    pub(super) fn ask(&mut self, number: usize, ask: Ask) -> Asked {
        let hold = self.hold();
        let host = &mut self.hosts[number];
        let Some(member) = host.member.as_mut().filter(|member| member.serves()) else {
            return Asked::Down;
        };
        let mut effects = Effects::new();
        self.next_op += 1;
        let number_of_op = self.next_op;
        let mut looks_now = false;
        let kind = match ask {
            Ask::Write(command) => {
                let Some(id) = member.propose(&command, &mut effects) else {
                    self.carry_out(number, effects);
                    return Asked::NoRoom;
                };
                self.oracle.propose(id, command);
                self.proposals.insert(id, number_of_op);
                Kind::Write
            }
            Ask::ReadStale(range) => {
                looks_now = true;
                Kind::Read { range: Some(range), view: Some(member.view()), linearizable: false }
            }
            Ask::Read { range, shortcut } => {
                let key = member.read(shortcut, &mut effects);
                self.reads.insert((number, host.run, key), number_of_op);
                Kind::Read { range: Some(range), view: None, linearizable: true }
            }
            Ask::ReadAll => {
                let key = member.read(false, &mut effects);
                self.reads.insert((number, host.run, key), number_of_op);
                Kind::Read { range: None, view: None, linearizable: true }
            }
            Ask::Hash { revision } => {
                let key = member.read(true, &mut effects);
                self.reads.insert((number, host.run, key), number_of_op);
                Kind::Hash { revision, view: None }
            }
            Ask::Lease(request) => {
                let key = member.read(true, &mut effects);
                self.reads.insert((number, host.run, key), number_of_op);
                Kind::Lease(request)
            }
        };
        let asked_after = self.oracle.shown();
        let (run, troubles) = (host.run, host.troubles);
        let op = Op { host: number, run, asked: self.queue.now(), asked_after, troubles, kind };
        self.ops.insert(number_of_op, op);
        self.queue.after(REQUEST_TIMEOUT, Event::GiveUp(number_of_op));
        if looks_now {
            self.queue.after(hold, Event::Look(number_of_op));
        }
        self.note("ask", &[number as u64, number_of_op, asked_after.0]);
        self.carry_out(number, effects);
        Asked::Sent(number_of_op)
    }

    pub(super) fn replied(&mut self, id: ProposalId, applied: &Applied) {
        let Some(number) = self.proposals.remove(&id) else { return };
        self.changes.retain(|(change, _)| *change != number);
        let Some(op) = self.ops.remove(&number) else { return };
        self.report.acknowledged += 1;
        self.note_answered(number);
        self.note("reply", &[number, applied.revision.0.cast_unsigned()]);
        self.oracle.reply(id, applied, op.asked_after);
    }

    fn note_answered(&mut self, number: u64) {
        if self.calm {
            self.answered.insert(number);
        }
    }

    pub(super) fn refused(&mut self, host: usize, request: Request) {
        self.report.refused += 1;
        let number = match request {
            Request::Proposal(id) => {
                self.oracle.refuse(id);
                self.proposals.remove(&id)
            }
            Request::Read(read) => self.reads.remove(&(host, self.hosts[host].run, read.0)),
        };
        if let Some(number) = number {
            self.changes.retain(|(change, _)| *change != number);
            self.ops.remove(&number);
        }
    }

    /// A read may take its view now; it looks at it a while later.
    pub(super) fn readable(&mut self, host: usize, key: u64) {
        let Some(number) = self.reads.remove(&(host, self.hosts[host].run, key)) else { return };
        let hold = self.hold();
        let view = self.hosts[host].member.as_ref().expect("it has just spoken").view();
        let Some(op) = self.ops.get_mut(&number) else { return };
        check_fresh(&view, op.asked_after);
        match &mut op.kind {
            Kind::Read { view: taken, .. } | Kind::Hash { view: taken, .. } => *taken = Some(view),
            Kind::Lease(request) => {
                let request = *request;
                self.reads.insert((host, op.run, key), number);
                let mut effects = Effects::new();
                let member = self.hosts[host].member.as_mut().expect("it has just spoken");
                member.ask_lease(key, request, &mut effects);
                return self.carry_out(host, effects);
            }
            Kind::Write => unreachable!("a write waits for no barrier"),
        }
        self.queue.after(hold, Event::Look(number));
    }

    pub(super) fn look(&mut self, number: u64) {
        let Some(op) = self.ops.remove(&number) else { return };
        self.report.reads += 1;
        self.note_answered(number);
        let (view, linearizable, seen) = match op.kind {
            Kind::Read { range, view, linearizable } => {
                let view = view.expect("taken before");
                let seen = match range {
                    Some(range) => self.oracle.check_range(&view, &range),
                    None => self.oracle.check_all(&view, DEPTH),
                };
                (view, linearizable, seen)
            }
            Kind::Hash { revision, view } => {
                let view = view.expect("taken before");
                let seen = self.oracle.check_hash(&view, revision);
                (view, true, seen)
            }
            Kind::Write | Kind::Lease(_) => unreachable!("it looks at nothing"),
        };
        if let Err(error) = seen {
            return self.thread_failed(op.host, op.run, &chain(&error));
        }
        self.note("look", &[number, view.applied().0, view.revision().0.cast_unsigned()]);
        if linearizable {
            self.oracle.show(&view);
        }
    }

    /// Answers about leases.
    pub(super) fn leased(&mut self, host: usize, answers: Vec<(u64, LeaseAnswer)>) {
        let now = self.queue.now();
        for (key, answer) in answers {
            let Some(number) = self.reads.remove(&(host, self.hosts[host].run, key)) else { continue };
            let Some(Op { asked, asked_after, kind: Kind::Lease(request), .. }) = self.ops.remove(&number)
            else {
                continue;
            };
            self.report.renewed += u64::from(matches!(answer, LeaseAnswer::Renewed { .. }));
            self.note("leased", &[number, u64::from(answer == LeaseAnswer::NotLeading)]);
            let told = Told { request, answer, asked, asked_after, now };
            self.oracle.leased(&told);
        }
    }

    /// The client hangs up. A host that had no trouble in the meantime should have answered.
    pub(super) fn give_up(&mut self, number: u64) {
        let Some(op) = self.ops.remove(&number) else { return };
        let holds_view =
            matches!(op.kind, Kind::Read { view: Some(_), .. } | Kind::Hash { view: Some(_), .. });
        if holds_view {
            self.ops.insert(number, op);
            return;
        }
        let unsettled = self.hosts.len() > 1 && !self.calm || op.asked < self.settled_at;
        // Who waits for a state cannot lead, and whoever else could may be the most patient one.
        let unsettled = unsettled || self.hosts.iter().any(|host| host.spoiled);
        let troubled = self.hosts[op.host].troubles > op.troubles || unsettled;
        let held_up = matches!(op.kind, Kind::Lease(_)) && self.oracle.was_corrupt_after(op.asked_after);
        let stood_still = self.hosts[op.host].applies_until > op.asked;
        // In small pieces on a slow disk that takes as long as it takes. Whether it comes to an end is looked at in the end.
        let Host { staged: (_, got_on), staging_since, .. } = self.hosts[op.host];
        let is_sent_a_state = got_on > op.asked && gets_on(staging_since, got_on, self.queue.now());
        assert!(
            troubled || held_up || stood_still || is_sent_a_state,
            "a request of {:?} was never answered:\n{}",
            op.asked,
            self.described()
        );
        self.report.unknown += 1;
    }
}

#[test]
fn a_transfer_that_begins_anew_for_ever_is_no_excuse() {
    let at = |seconds| Instant(0) + Duration::from_secs(seconds);
    let lately = |seconds| at(seconds) + Duration::from_millis(900);
    assert!(gets_on(Some(at(5)), at(20), lately(20)));
    assert!(!gets_on(Some(at(5)), at(20), at(21)), "it has stopped");
    assert!(!gets_on(Some(at(5)), at(65), lately(65)), "it gets on, and nowhere");
    assert!(!gets_on(None, at(20), lately(20)));
}
