//! Leases in the applier: requests about them in, answers and proposals out.
//!
//! Owns: what the lessor is told of what was applied. Must never: end a lease other than by an entry of the log. Part of [`Applier`].

use std::collections::BTreeSet;

use super::applier::{Applier, ApplierOutput};
use crate::command::{Command, LeaseCommand, Outcome};
use crate::ids::{LeaseId, Term};
use crate::lease::Renewal;
use crate::planted::{self, Bug};
use crate::time::Instant;

/// What a client wants to know of leases, or to be done: things that only the leader can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseRequest {
    /// Start the time to live of this one anew.
    Renew(LeaseId),
    /// How much time this one has left.
    TimeToLive(LeaseId),
    /// All of them.
    List,
}

/// The answer to a [`LeaseRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseAnswer {
    /// The lease has its whole time to live again, in seconds.
    Renewed {
        /// The time to live.
        ttl: i64,
    },
    /// There is no such lease (any more).
    Gone,
    /// The time that a lease has left, in whole seconds begun and over.
    TimeToLive {
        /// As granted.
        granted: i64,
        /// What is left; 0 when the end is due.
        remaining: i64,
    },
    /// All leases, soonest end first.
    List(Vec<LeaseId>),
    /// Only the leader knows, and this member is not.
    NotLeading,
    /// Too many wait already.
    TooMany,
}

/// Something about leases that was applied. Applying may take long, and a deadline counts from its end: the lessor hears of it at the next
/// call, which brings the time.
#[derive(Clone, Copy, Debug)]
pub(super) enum LeaseNews {
    Granted(LeaseId),
    Ended(LeaseId),
    Checkpointed { id: LeaseId, remaining: i64, sequence: u64 },
}

impl Applier {
    /// A request about leases; the answer has the same number. Ask only after a read-index round that began after the client did, and only once
    /// the state is at its index: what an older leader believes is worth nothing.
    pub fn handle_lease_request(&mut self, now: Instant, number: u64, request: LeaseRequest) {
        self.now = now;
        self.settle_leases();
        let answer = match request {
            LeaseRequest::Renew(id) => return self.lessor.renew(now, id, number),
            LeaseRequest::TimeToLive(_) | LeaseRequest::List if self.lessor.term().is_none() => {
                LeaseAnswer::NotLeading
            }
            LeaseRequest::TimeToLive(id) => self.time_to_live(id),
            LeaseRequest::List => LeaseAnswer::List(self.lessor.by_expiry().into_iter().flatten().collect()),
        };
        self.lease_answers.push((number, answer));
    }

    fn time_to_live(&self, id: LeaseId) -> LeaseAnswer {
        let found = self.lessor.remaining(self.now, id).zip(self.machine.lease(id));
        found.map_or(LeaseAnswer::Gone, |(left, lease)| LeaseAnswer::TimeToLive {
            granted: lease.ttl,
            remaining: i64::try_from(left.as_secs()).unwrap_or(lease.ttl),
        })
    }

    /// Brings the lessor up to what is applied.
    ///
    /// It leads from when the leader's own first entry is applied, not from the election: before that the state is an older one. With much
    /// of the log left to apply, which clients have to wait for, leases would end before anybody could renew them.
    pub(super) fn settle_leases(&mut self) {
        let ready = |term: &Term| planted::has(Bug::EarlyDeadlines) || self.machine.applied_term() == *term;
        let leads_in = self.leads_in.filter(ready);
        if leads_in.is_none() || self.lessor.term() != leads_in {
            self.lease_news.clear();
            self.lessor.demote();
            if let Some(term) = leads_in {
                self.lessor.promote(self.now, term, self.machine.view().leases().iter());
            }
            return;
        }
        for news in std::mem::take(&mut self.lease_news) {
            match news {
                LeaseNews::Granted(id) => {
                    // One that is gone again has its end among the news.
                    if let Some(lease) = self.machine.lease(id) {
                        self.lessor.granted(self.now, id, &lease);
                    }
                }
                LeaseNews::Ended(id) => self.lessor.ended(id),
                LeaseNews::Checkpointed { id, remaining, sequence } => {
                    self.lessor.checkpointed(self.now, id, remaining, sequence);
                }
            }
        }
    }

    /// An entry about leases was applied.
    pub(super) fn note_lease(&mut self, command: &LeaseCommand, outcome: &Outcome) {
        let news = &mut self.lease_news;
        match (command, outcome) {
            (LeaseCommand::Grant { id, .. }, _) => news.push(LeaseNews::Granted(*id)),
            (LeaseCommand::Revoke { id }, _) => {
                news.push(LeaseNews::Ended(*id));
                self.leases_ended = true;
            }
            (LeaseCommand::Expire { .. }, Outcome::LeaseExpire(ended)) => {
                news.extend(ended.iter().copied().map(LeaseNews::Ended));
                self.leases_ended |= !ended.is_empty();
            }
            (LeaseCommand::Checkpoint { sequence, leases, .. }, Outcome::LeaseCheckpoint(changed)) => {
                let changed: BTreeSet<_> = changed.iter().collect();
                let applied = leases.iter().filter(|(lease, _)| changed.contains(&lease.id));
                news.extend(applied.map(|(lease, remaining)| LeaseNews::Checkpointed {
                    id: lease.id,
                    remaining: *remaining,
                    sequence: *sequence,
                }));
            }
            (LeaseCommand::Expire { .. } | LeaseCommand::Checkpoint { .. }, _) => {
                unreachable!("a command is answered in kind, not with {outcome:?}")
            }
        }
    }

    /// Puts out what the lessor wants proposed and has answered; whether there was anything.
    pub(super) fn advance_leases(&mut self) -> bool {
        self.settle_leases();
        for (number, renewal) in self.lessor.take_answers() {
            let answer = match renewal {
                Renewal::Renewed { ttl } => LeaseAnswer::Renewed { ttl },
                Renewal::Gone => LeaseAnswer::Gone,
                Renewal::NotLeading => LeaseAnswer::NotLeading,
                Renewal::TooMany => LeaseAnswer::TooMany,
            };
            self.lease_answers.push((number, answer));
        }
        let before = self.outputs.len();
        if std::mem::take(&mut self.leases_ended) {
            self.clear_nospace();
        }
        if !self.lease_answers.is_empty() {
            self.outputs.push_back(ApplierOutput::LeaseAnswers(std::mem::take(&mut self.lease_answers)));
        }
        // While entries wait for a deletion, nobody can renew: nothing is due then.
        while self.sweep.is_none()
            && let Some(command) = self.lessor.poll_command(self.now)
        {
            self.outputs.push_back(ApplierOutput::Propose(Command::Lease(command)));
        }
        self.outputs.len() > before
    }
}
