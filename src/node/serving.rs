//! The core's part in exchanging states: which followers are sent one, and when this member takes one.
//!
//! Owns: the order between raft, the store and the log around a snapshot. Must never: let raft wait for a snapshot for ever, or
//! let go of a staged state that raft may still restore. Driven by [`Core`]'s driver.

use std::collections::{BTreeMap, BTreeSet};

use super::checkpointer::CheckpointJob;
use super::core::{Core, CoreOutput};
use super::source::TransferOutcome;
use crate::consensus::{Persist, Role, SnapshotMark};
use crate::ids::{LogIndex, MemberId};
use crate::limits::ELECTION_TIMEOUT;
use crate::planted::{self, Bug};
use crate::time::Instant;
use crate::wal::Position;

/// What is offered and not taken is offered again after this.
const OFFER_PATIENCE: std::time::Duration = ELECTION_TIMEOUT;

/// A follower that is sent the state.
#[derive(Debug)]
struct Service {
    /// From which position on a state is of use to it; none where the log does not reach it, and any state is.
    wanted: Option<LogIndex>,
    /// When to offer again; `None` while the state is on its way.
    offered: Option<Instant>,
}

/// The followers that are sent the state.
#[derive(Debug, Default)]
pub(super) struct Serving {
    followers: BTreeMap<MemberId, Service>,
    /// These have another state than this member, and nobody knows who is right.
    contradicted_by: BTreeSet<MemberId>,
}

impl Serving {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.followers.values().filter_map(|service| service.offered).min()
    }
}

/// The leader's side.
impl Core {
    /// Who has another state than this member, where nobody knows who is right: meanwhile nobody's takes the place of another's for the asking.
    pub fn set_contradicted_by(&mut self, others: BTreeSet<MemberId>) {
        self.serving.contradicted_by = others;
    }

    /// Whether somebody else's state may be the right one. Who asks for another one has given up its own; if it were waited for, the last two voters would stand
    /// still for ever.
    fn is_in_doubt(&self) -> bool {
        let Serving { followers, contradicted_by } = &self.serving;
        let asks = |id: &MemberId| {
            self.consensus.wanted_state(*id).is_some()
                || followers.get(id).is_some_and(|service| service.wanted.is_some())
        };
        contradicted_by.iter().any(|id| !asks(id))
    }

    /// What became of a transfer to this follower.
    pub fn handle_transfer(&mut self, now: Instant, to: MemberId, outcome: TransferOutcome) {
        self.now = now;
        let Some(service) = self.serving.followers.get_mut(&to) else { return };
        match outcome {
            TransferOutcome::Whole(mark) if self.consensus.offer_snapshot(to, &mark) => {
                // A follower that lets go of the state is sent it again; its time for this offer is not longer for that.
                service.offered.get_or_insert(now + OFFER_PATIENCE);
            }
            // The log has moved on too far meanwhile, or the follower does not answer: raft asks again when it hears from it.
            TransferOutcome::Whole(_) | TransferOutcome::Failed => self.settle(to),
        }
    }

    /// Offers again what was not taken in time: the offer, or the answer, may be lost.
    pub(super) fn repeat_offers(&mut self) {
        let now = self.now;
        for (to, service) in &mut self.serving.followers {
            if service.offered.is_some_and(|at| at <= now) {
                self.consensus.report_snapshot_lost(now, *to);
                service.offered = Some(now + OFFER_PATIENCE);
            }
        }
    }

    /// Has the state sent to whom raft names, and ends what has come to its end.
    pub(super) fn look_after_snapshots(&mut self) {
        self.let_go_of_the_obsolete();
        if self.consensus.status().role != Role::Leader {
            if !self.serving.followers.is_empty() {
                for to in std::mem::take(&mut self.serving.followers).into_keys() {
                    self.consensus.withdraw_snapshot(to);
                }
                self.outputs.push_back(CoreOutput::Store(CheckpointJob::SettleAll));
            }
            return;
        }
        let mut requests = self.consensus.take_snapshot_requests();
        // A state that this member does not trust is not sent to anybody; nor is one that half of the others contradict, in the place of
        // what might be the right one.
        let in_doubt = self.is_in_doubt();
        requests.retain(|to| {
            let asked_for = self.consensus.wanted_state(*to).is_some();
            !(self.consensus.is_suspect() || asked_for && in_doubt)
        });
        for to in self.serving.followers.keys().chain(&requests) {
            self.consensus.learn_from_commit(*to);
        }
        let taken = self.consensus.take_snapshots_taken();
        let over = |(to, service): (&MemberId, &Service)| {
            let leads_nowhere = service.offered.is_some() && !self.consensus.offer_holds(*to);
            let reached = match service.wanted {
                None => self.consensus.reaches(*to),
                // It had the log all the time. Who is silent before anything is offered has begun a new run, or its answer was overtaken: it asks
                // again soon, and goes on where it was, unless what it has is of no use any more.
                Some(from) => {
                    let stopped = service.offered.is_some() && self.consensus.has_stopped_asking(*to);
                    stopped || self.consensus.wanted_state(*to).is_some_and(|wanted| wanted > from)
                }
            };
            (leads_nowhere || reached || taken.contains(to)).then_some(*to)
        };
        let over: Vec<MemberId> = self.serving.followers.iter().filter_map(over).collect();
        for to in over {
            self.settle(to);
        }
        for to in requests {
            if let Some(service) = self.serving.followers.get(&to) {
                if service.offered.is_none()
                    && service.wanted.is_some_and(|from| from > self.consensus.stored())
                {
                    self.outputs.push_back(CoreOutput::FoldSoon);
                }
            } else if !self.consensus.reaches(to) {
                let wanted = self.consensus.wanted_state(to);
                self.serving.followers.insert(to, Service { wanted, offered: None });
                let from = wanted.unwrap_or_default();
                self.outputs.push_back(CoreOutput::Store(CheckpointJob::Serve { to, from }));
                // The state has to name whom it is sent to, and on a quiet cluster the next fold may be minutes away.
                self.outputs.push_back(CoreOutput::FoldSoon);
            }
        }
    }

    /// Whatever raft still waits for, it does not get: it finds out where the follower stands, and asks anew where it has to.
    fn settle(&mut self, to: MemberId) {
        self.serving.followers.remove(&to);
        self.consensus.withdraw_snapshot(to);
        self.consensus.report_snapshot_lost(self.now, to);
        self.outputs.push_back(CoreOutput::Store(CheckpointJob::Settle(to)));
    }
}

/// The follower's side.
impl Core {
    /// Asks for another state where the one at hand is not to be trusted, and lets another one lead where it was this one that had to. Where that is
    /// not possible now, the next call tries again.
    pub(super) fn ask_for_state(&mut self) {
        if !self.consensus.is_suspect() {
            return;
        }
        if self.consensus.status().role == Role::Leader {
            self.hand_on();
        } else {
            self.consensus.request_state(self.now);
        }
    }

    /// Lets another voter lead, where this member does and one has caught up.
    pub fn let_another_lead(&mut self, now: Instant) {
        self.now = now;
        if self.consensus.status().role == Role::Leader {
            self.hand_on();
        }
    }

    fn hand_on(&mut self) {
        let (consensus, me) = (&self.consensus, self.consensus.member());
        let mut heirs = consensus.conf_state().voters;
        heirs.retain(|voter| *voter != me && consensus.has_caught_up(*voter));
        self.hand_on_to(heirs);
    }

    /// Lets the next of these try to lead, where it is time for that; answers which.
    pub(super) fn hand_on_to(&mut self, heirs: Vec<MemberId>) -> Option<MemberId> {
        if self.consensus.is_handing_over() {
            return None;
        }
        let attempt_max = self.consensus.hand_over_max();
        let heir = self.hand_over.next(heirs.into_iter());
        let heir = heir.filter(|heir| self.hand_over.may_try(self.now, *heir, attempt_max))?;
        self.consensus.transfer_leader(self.now, heir);
        Some(heir)
    }

    /// A whole state is staged, and stays until it is installed or let go of by [`CheckpointJob::Release`].
    pub fn handle_staged(&mut self, now: Instant, mark: SnapshotMark) {
        self.now = now;
        if !self.consensus.is_installing() {
            self.consensus.expect_snapshot(Some(mark));
        }
    }

    /// Another transfer wants the place of what is staged. Where that is being installed already there is nothing left to let go of.
    pub fn handle_contest(&mut self, now: Instant) {
        self.now = now;
        if self.consensus.may_let_go() {
            self.release();
        }
    }

    /// The store is the installed one.
    pub fn handle_installed(&mut self, now: Instant, position: Position) {
        self.now = now;
        self.settled = false;
        self.consensus.handle_installed(now, position);
        self.outputs.push_back(CoreOutput::ResetLog { to: position });
        self.outputs.extend(self.after_install.take().map(CoreOutput::Persist));
    }

    /// Raft has begun its log anew. Nothing that came with it goes to the disk before the state is there: a log without its state would be
    /// refused at the next start.
    pub(super) fn install(&mut self, mark: SnapshotMark, persist: Option<Persist>) {
        if planted::has(Bug::LogBeforeState) {
            self.outputs.extend(persist.map(CoreOutput::Persist));
        } else {
            self.after_install = persist;
        }
        self.outputs.push_back(CoreOutput::Store(CheckpointJob::Install(mark)));
    }

    /// The log has got to where the staged state is, by itself.
    fn let_go_of_the_obsolete(&mut self) {
        if self.consensus.expects_in_vain() {
            self.release();
        }
    }

    fn release(&mut self) {
        self.consensus.expect_snapshot(None);
        self.outputs.push_back(CoreOutput::Store(CheckpointJob::Release));
    }
}
