//! Leases in the applier: requests about them in, answers and proposals out.
//!
//! Owns: what the lessor is told of what was applied. Must never: end a lease other than by an entry of the log. Part of [`Applier`].

use std::collections::BTreeSet;

use super::applier::{Applier, ApplierOutput};
use crate::command::{Command, LeaseCommand, Outcome};
use crate::ids::{LeaseId, Term};
use crate::lease::Renewal;
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

impl Applier {
    /// A request about leases; the answer has the same number. Ask only after a read-index round that began after the client did, and only once
    /// the state is at its index: what an older leader believes is worth nothing.
    pub fn handle_lease_request(&mut self, now: Instant, number: u64, request: LeaseRequest) {
        self.now = now;
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

    pub(super) fn lead_leases(&mut self, leads_in: Option<Term>) {
        match leads_in {
            None => self.lessor.demote(),
            Some(term) if self.lessor.term() == Some(term) => {}
            Some(term) => self.lessor.promote(self.now, term, self.machine.view().leases().iter()),
        }
    }

    /// An entry about leases was applied.
    pub(super) fn note_lease(&mut self, command: &LeaseCommand, outcome: &Outcome) {
        match (command, outcome) {
            (LeaseCommand::Grant { id, .. }, _) => {
                if let Some(lease) = self.machine.lease(*id) {
                    self.lessor.granted(self.now, *id, &lease);
                }
            }
            (LeaseCommand::Revoke { id }, _) => {
                self.lessor.ended(*id);
                self.leases_ended = true;
            }
            (LeaseCommand::Expire { .. }, Outcome::LeaseExpire(ended)) => {
                for id in ended {
                    self.lessor.ended(*id);
                }
                self.leases_ended |= !ended.is_empty();
            }
            (LeaseCommand::Checkpoint { term, sequence, leases }, Outcome::LeaseCheckpoint(changed)) => {
                let changed: BTreeSet<_> = changed.iter().collect();
                for (lease, remaining) in leases.iter().filter(|(lease, _)| changed.contains(&lease.id)) {
                    self.lessor.checkpointed(self.now, lease.id, *remaining, (*term, *sequence));
                }
            }
            (LeaseCommand::Expire { .. } | LeaseCommand::Checkpoint { .. }, _) => {
                unreachable!("a command is answered in kind, not with {outcome:?}")
            }
        }
    }

    /// Puts out what the lessor wants proposed and has answered; whether there was anything.
    pub(super) fn advance_leases(&mut self) -> bool {
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
        while let Some(command) = self.lessor.poll_command(self.now) {
            self.outputs.push_back(ApplierOutput::Propose(Command::Lease(command)));
        }
        self.outputs.len() > before
    }
}
