//! The replicated state machine: log entries in, results out.
//!
//! Owns: the order in which entries take effect, the alarms' gates, and the life of the overlay's generations. Must never: read a clock, draw a
//! random number or look at a setting: every member must come to the same result. Driven by `node`'s applier, which alone writes here.
//!
//! # The life of a change
//!
//! ```text
//! apply ──> active ──rotate──> frozen ──(the driver folds the batch into the store)──folded──> base
//! ```
//!
//! At most one generation is frozen at a time; until it is folded, the active one has to take what comes. The driver asks
//! [`Machine::must_stall`] and holds entries back.

mod alarms;
mod auth;
mod charter;
mod leases;
mod members;
mod sweep;

use std::collections::BTreeSet;
use std::sync::Arc;

pub use charter::check_admission;
pub use members::check_started;

use crate::command::AlarmKind;
use crate::command::{Applied, Command, LeaseCommand, Outcome, Rejection, Request};
use crate::ids::{Digest, LeaseId, LogIndex, Revision, Term};
use crate::limits::OVERLAY_BYTES;
use crate::mvcc::{Allowance, Facts, ReadError, Tip, View, Writer, cost_of};
use crate::store::{Base, ConfState, FoldBatch, Lease, StoreError};

/// The state of one member, as of the last log entry it was given.
///
/// After a [`StoreError`] the state may hold part of an entry: the member stops.
pub struct Machine {
    /// The state; what is published are clones of its view.
    tip: Tip,
    /// The log entry up to which everything is frozen or folded.
    rotated: LogIndex,
    /// The log entry that the frozen generation ends with.
    freezing: Option<LogIndex>,
    /// The state after an entry that the store carries out, where the frozen generation ends before it.
    ahead: Option<Tip>,
    /// The compacted revision as of the last rotation: removal in the store follows what a fold has told it.
    rotated_compacted: Revision,
    /// The size at which a generation is full.
    overlay_bytes: u64,
    /// Leases that changed since the last rotation.
    changed_leases: BTreeSet<LeaseId>,
}

impl Machine {
    /// The state that a store holds. Entries after `base.meta().applied` come next.
    pub fn new(base: Arc<Base>) -> Result<Self, StoreError> {
        let meta = base.meta();
        let (rotated, rotated_compacted) = (meta.applied, meta.compacted);
        let overlay_bytes = OVERLAY_BYTES as u64;
        Ok(Self {
            tip: Tip::of_base(base)?,
            rotated,
            freezing: None,
            ahead: None,
            rotated_compacted,
            overlay_bytes,
            changed_leases: BTreeSet::new(),
        })
    }

    /// Begins anew from a store that has taken the place of the one before. Views taken before keep what they hold.
    pub fn restart(&mut self, base: Arc<Base>) -> Result<(), StoreError> {
        let overlay_bytes = self.overlay_bytes;
        *self = Self { overlay_bytes, ..Self::new(base)? };
        Ok(())
    }

    /// Lets a generation be full at another size than [`OVERLAY_BYTES`]. No result of any entry depends on it.
    pub fn set_overlay_bytes(&mut self, bytes: usize) {
        self.overlay_bytes = bytes as u64;
    }

    /// The state, to be published after a batch of entries.
    pub fn view(&self) -> View {
        self.tip.view().clone()
    }

    /// The facts as of now.
    pub fn facts(&self) -> &Facts {
        self.tip.view().facts()
    }

    /// A lease as of now.
    pub fn lease(&self, id: LeaseId) -> Option<Lease> {
        self.tip.view().leases().find(id).copied()
    }

    /// The last log entry applied.
    pub fn applied(&self) -> LogIndex {
        self.tip.view().applied()
    }

    /// The digest after it.
    pub fn digest(&self) -> Digest {
        self.tip.view().digest()
    }

    /// The term of the last log entry applied.
    pub fn applied_term(&self) -> Term {
        self.tip.view().applied_term()
    }

    /// Applies the entry at `index`, which must follow the last one. What is read for the answer alone is read as far as `answer` allows;
    /// beyond it the answer is [`Outcome::AnswerTooLarge`], and the effect is the same. A rejection is a result like any other: equal on all members, without
    /// effect on the state.
    pub fn apply<'e>(
        &mut self,
        index: LogIndex,
        term: Term,
        request: impl Into<Request<'e>>,
        answer: Allowance,
    ) -> Result<Applied, StoreError> {
        let request = request.into();
        let command = request.command;
        self.apply_empty(index, term);
        let gate = self.gate(command).map_err(ReadError::from);
        let permitted = gate.and_then(|()| self.tip.view().authorize(request));
        let executed = permitted.and_then(|()| self.execute(command, answer));
        let (outcome, too_large) = match executed {
            Ok((outcome, too_large)) => (Ok(outcome), too_large),
            Err(ReadError::Rejected(rejection)) => (Err(rejection), false),
            Err(ReadError::Store(error)) => return Err(error),
        };
        if outcome.is_ok() && command.is_users() {
            self.commit_charter();
        }
        let (revision, compacted) = (self.tip.view().revision(), self.tip.view().compacted());
        // Of the whole outcome: how much may be answered is each member's own business.
        self.tip.digest_mut().result(revision, compacted, &outcome);
        let outcome = if too_large { Ok(Outcome::AnswerTooLarge) } else { outcome };
        Ok(Applied { revision, outcome })
    }

    /// Applies an entry that changes nothing but the position in the log.
    pub fn apply_empty(&mut self, index: LogIndex, term: Term) {
        assert!(self.ahead.is_none(), "the store is ahead of the state");
        self.tip.advance(index, term);
    }

    /// Applies an entry that changed the cluster's configuration.
    pub fn apply_conf_state(&mut self, index: LogIndex, term: Term, conf_state: ConfState) {
        self.apply_empty(index, term);
        self.tip.digest_mut().conf_state(&conf_state);
        self.follow_configuration(conf_state);
    }

    /// What the version that the cluster uses, its end and the alarms forbid. CORRUPT is the graver one of those.
    fn gate(&self, command: &Command) -> Result<(), Rejection> {
        if command.version() > self.facts().commands {
            return Err(Rejection::NotCapable);
        }
        self.check_dissolved(match command {
            Command::Charter(command) => Some(command),
            _ => None,
        })?;
        let raised = |kind| self.tip.view().facts().alarms.iter().any(|alarm| alarm.kind == kind);
        let writes_keys = matches!(
            command,
            Command::Put(_)
                | Command::DeleteRange(_)
                | Command::Txn(_)
                | Command::Compact { .. }
                | Command::Lease(
                    LeaseCommand::Grant { .. } | LeaseCommand::Revoke { .. } | LeaseCommand::Expire { .. }
                )
        );
        if writes_keys && raised(AlarmKind::Corrupt) {
            return Err(Rejection::Corrupt);
        }
        if cost_of(command) > 0 && raised(AlarmKind::NoSpace) {
            return Err(Rejection::NoSpace);
        }
        Ok(())
    }

    /// The outcome, and whether it lacks something that is too much to answer.
    fn execute(&mut self, command: &Command, answer: Allowance) -> Result<(Outcome, bool), ReadError> {
        let mut writer = Writer::new(&mut self.tip, answer);
        let outcome = match command {
            Command::Put(put) => Outcome::Put(writer.put(put)?),
            Command::DeleteRange(delete) => Outcome::DeleteRange(writer.delete_range(delete)?),
            Command::Txn(txn) => Outcome::Txn(writer.txn(txn)?),
            Command::Compact { revision } => return Ok((self.compact(*revision)?, false)),
            Command::Alarm { action, alarm } => {
                let changed = alarms::set(self.tip.facts_mut(), *action, *alarm)?;
                return Ok((Outcome::Alarm(changed), false));
            }
            Command::Publish(attributes) => {
                self.publish(attributes);
                return Ok((Outcome::Publish, false));
            }
            Command::Raise(to) => {
                self.raise(*to)?;
                return Ok((Outcome::Raise(*to), false));
            }
            Command::Lease(command) => return Ok((self.execute_lease(command)?, false)),
            Command::Member(command) => return Ok((self.execute_member(command)?, false)),
            Command::Charter(command) => return Ok((self.execute_charter(command)?, false)),
            Command::Auth(command) => return Ok((self.execute_auth(command)?, false)),
        };
        Ok((outcome, writer.is_answer_too_large()))
    }

    /// Compacts for all reads from now on (API reference, section 1.7). The store removes what that leaves over later, in slices.
    ///
    /// A store that was never compacted counts as compacted to -1, so 0 is accepted once and -1 never.
    fn compact(&mut self, revision: i64) -> Result<Outcome, Rejection> {
        let facts = self.tip.view().facts();
        let last = if facts.ever_compacted { facts.compacted.0 } else { -1 };
        if revision <= last {
            return Err(Rejection::Compacted);
        }
        if revision > self.tip.view().revision().0 {
            return Err(Rejection::FutureRevision);
        }
        let facts = self.tip.facts_mut();
        facts.compacted = Revision(revision);
        facts.ever_compacted = true;
        Ok(Outcome::Compact)
    }
}

/// The life of the generations.
impl Machine {
    /// Whether there is reason to fold now: the active generation is full, or a compaction was accepted that the store cannot
    /// begin with before a fold has told it. Never while something is being folded.
    pub fn should_rotate(&self) -> bool {
        self.freezing.is_none()
            && (self.active_is_full() || self.tip.view().compacted() > self.rotated_compacted)
    }

    /// Whether entries must wait: the active generation is full, and so is the one before it; or the store carries an entry out.
    pub fn must_stall(&self) -> bool {
        self.ahead.is_some() || self.freezing.is_some() && self.active_is_full()
    }

    /// Whether entries were applied since the last rotation.
    pub fn is_dirty(&self) -> bool {
        self.applied() > self.rotated
    }

    /// Freezes the active generation and gives what the store has to take over. `None` while another is being folded, or when
    /// nothing was applied since.
    pub fn rotate(&mut self) -> Option<FoldBatch> {
        if self.freezing.is_some() || !self.is_dirty() {
            return None;
        }
        self.rotated = self.applied();
        self.rotated_compacted = self.tip.view().compacted();
        self.freezing = Some(self.rotated);
        let meta = self.tip.view().meta();
        let leases = self.take_changed_leases();
        Some(FoldBatch { changes: self.tip.freeze(), leases, sweep: None, meta })
    }

    /// The frozen generation is in the store, whose new content is `base`. Views taken before keep what they hold.
    pub fn folded(&mut self, base: Arc<Base>) {
        assert_eq!(
            self.freezing.take(),
            Some(base.meta().applied),
            "the base ends where the generation ended"
        );
        match self.ahead.take() {
            Some(ahead) => self.tip.follow(ahead, base),
            None => self.tip.thaw(base),
        }
    }

    /// The store has removed compacted versions; `base` is its new content.
    pub fn rebased(&mut self, base: Arc<Base>) {
        self.tip.rebase(base);
    }

    fn active_is_full(&self) -> bool {
        self.tip.active_bytes() >= self.overlay_bytes
    }
}

#[cfg(test)]
mod auth_test;
#[cfg(test)]
mod hash_test;
#[cfg(test)]
mod layers_test;
#[cfg(test)]
mod lease_test;
#[cfg(test)]
mod model;
#[cfg(test)]
mod model_test;
#[cfg(test)]
pub(crate) mod rig;
#[cfg(test)]
mod rules_test;
#[cfg(test)]
mod stress_test;
#[cfg(test)]
mod sweep_test;
