//! The state of a whole member: committed entries in, views and answers out.
//!
//! Owns: the replicated state machine, when the overlay is folded into the store and when entries have to wait for that. Must
//! never: skip an entry that it cannot read, or answer before the view that shows the effect is published. Driven
//! by the applier thread of `runtime` and by the simulator.

use std::collections::VecDeque;
use std::sync::Arc;

use super::leases::{LeaseAnswer, LeaseNews};
use super::reconcile::Membership;
use super::sweep::Sweep;
use super::trail::Trail;
use crate::command::codec::{self, CodecError};
use crate::command::{Alarm, AlarmAction, AlarmKind, Applied, Command, NotUnderstood, Outcome};
use crate::ids::{Digest, LogIndex, MemberId, ProposalId, Term};
use crate::lease::Lessor;
use crate::limits::{
    ANSWER_WRITE_SHARE, ANSWERS_BYTES_MAX, OVERLAY_BYTES, OVERLAY_IDLE, QUOTA_CLEAR_PERCENT, WAL_BATCH_BYTES,
};
use crate::machine::Machine;
use crate::mvcc::{Allowance, View};
use crate::store::{Base, ConfState, FoldBatch, StoreError};
use crate::time::Instant;
use crate::wal::{EntryKind, LogEntry};

/// Bytes of entries that are applied before their effects are published and answered.
const APPLY_BATCH_BYTES: usize = WAL_BATCH_BYTES;
/// Bytes of log since the last fold after which there is another: entries that change no key (a transaction that only
/// fails, say) never fill the overlay, but the log must be cut all the same.
pub const UNFOLDED_LOG_BYTES_MAX: usize = 2 * OVERLAY_BYTES;

/// What the applier wants done, in this order for each batch of entries: publish, replies, applied, fold.
pub enum ApplierOutput {
    /// Show this state to readers from now on.
    Publish(View),
    /// Answer the proposals of this run.
    Replies(Vec<(ProposalId, Applied)>),
    /// Tell the core, with [`Core::handle_applied`](super::Core::handle_applied).
    Applied {
        /// The last entry whose effect is published.
        index: LogIndex,
        /// Bytes of entries since the last such report.
        bytes: usize,
        /// The core may decide something by it that it could not before; otherwise it need not be told before something else happens, or much was applied.
        awaited: bool,
    },
    /// Ask the core for this entry's configuration ([`Core::apply_conf_change`](super::Core::apply_conf_change)) and hand it to
    /// [`Applier::apply_conf_state`]. Nothing is applied meanwhile. Where there is none, [`Applier::handle_installed`] comes instead.
    ConfChange(LogEntry),
    /// Commit this to the store, durably, then [`Applier::handle_folded`] and
    /// [`Core::handle_checkpointed`](super::Core::handle_checkpointed). One at a time.
    Fold(FoldBatch),
    /// Let the store remove what compaction left over, slice by slice between folds, until its `compaction_finished` reaches
    /// its `compacted`; each slice's new content comes to [`Applier::handle_compacted`].
    CompactStart,
    /// Propose this on behalf of the cluster; that it gets lost does no harm.
    Propose(Command),
    /// Tell the core, with [`Core::handle_membership`](super::Core::handle_membership).
    Membership(Membership),
    /// Answer these requests about leases.
    LeaseAnswers(Vec<(u64, LeaseAnswer)>),
}

/// The state cannot be carried on. Fatal: the process stops.
#[derive(Debug, thiserror::Error)]
pub enum ApplierError {
    /// An entry of another version, or damaged. Skipping it would make this member's state differ from the others'.
    #[error("log entry {index} cannot be read: {cause}")]
    EntryUnreadable {
        /// The entry.
        index: LogIndex,
        /// What is wrong with it.
        #[source]
        cause: CodecError,
    },
    /// The store failed while an entry was applied.
    #[error("the store failed while log entry {index} was applied: {cause}")]
    Store {
        /// The entry.
        index: LogIndex,
        /// The store's error.
        #[source]
        cause: StoreError,
    },
    /// An entry has raised what may come to what this build does not understand. The state of before is on the disk.
    #[error("log entry {index}: {cause}")]
    NotUnderstood {
        /// The entry.
        index: LogIndex,
        /// What may come.
        #[source]
        cause: NotUnderstood,
    },
}

/// The state as one machine.
///
/// # Contract
///
/// - After each `handle_*` call, [`Applier::poll_output`] until `None`; outputs are carried out in order.
/// - Entries come from [`CoreOutput::Apply`](super::CoreOutput::Apply), in order, none twice.
/// - One checkpoint thread carries out folds and compaction slices and reports each in the order in which it committed
///   them: the store's content only moves forward.
/// - An error is final.
///
/// When the active generation is full while the frozen one is not folded yet, entries wait in the queue, which the core
/// bounds by holding proposals back. So they do while the store carries out a deletion of very many keys.
pub struct Applier {
    pub(super) machine: Machine,
    /// The nonce of this run: replies to another run's proposals concern nobody here.
    boot_nonce: u64,
    quota_bytes: Option<u64>,
    /// Bytes that are read for the answer to one command.
    answer_bytes: usize,
    /// The term in which this member leads, if it does.
    pub(super) leads_in: Option<Term>,
    pub(super) lessor: Lessor,
    pub(super) lease_answers: Vec<(u64, LeaseAnswer)>,
    /// What was applied about leases and the lessor does not know yet.
    pub(super) lease_news: Vec<LeaseNews>,
    /// Leases have ended since that was last looked at.
    pub(super) leases_ended: bool,
    queue: VecDeque<LogEntry>,
    /// The change of the configuration that waits for the core.
    asked: Option<LogEntry>,
    /// Bytes applied since the last report to the core.
    unreported_bytes: usize,
    /// Among them is the first entry of a leader's term, a change of the configuration, or a whole state.
    awaited: bool,
    /// Bytes of log applied since the last rotation, and where they are too many.
    pub(super) unfolded_bytes: usize,
    unfolded_bytes_max: usize,
    /// A fold was handed out and has not come back.
    pub(super) folding: bool,
    /// The entry that others wait for.
    pub(super) sweep: Option<Sweep>,
    /// What was told to the core last.
    membership: Membership,
    /// What other members may want to compare.
    trail: Trail,
    /// Somebody waits for a store that has all that is applied.
    fold_wanted: bool,
    compacting: bool,
    /// The state is not to be trusted: nothing is applied before another one has taken its place.
    suspect: bool,
    /// When the last entry was applied; the driver's clock.
    last_applied: Instant,
    pub(super) now: Instant,
    pub(super) outputs: VecDeque<ApplierOutput>,
}

impl Applier {
    /// The state of a store. `quota_bytes` is the setting that NOSPACE is judged by, if there is a limit.
    pub fn new(
        now: Instant,
        base: Arc<Base>,
        boot_nonce: u64,
        quota_bytes: Option<u64>,
    ) -> Result<Self, StoreError> {
        let machine = Machine::new(Arc::clone(&base))?;
        let mut applier = Self {
            boot_nonce,
            quota_bytes,
            answer_bytes: ANSWERS_BYTES_MAX / ANSWER_WRITE_SHARE,
            leads_in: None,
            lessor: Lessor::default(),
            lease_answers: Vec::new(),
            lease_news: Vec::new(),
            leases_ended: false,
            queue: VecDeque::new(),
            asked: None,
            unreported_bytes: 0,
            awaited: false,
            unfolded_bytes: 0,
            unfolded_bytes_max: UNFOLDED_LOG_BYTES_MAX,
            folding: false,
            sweep: None,
            membership: Membership::default(),
            trail: Trail::default(),
            fold_wanted: false,
            compacting: false,
            suspect: base.is_suspect(),
            last_applied: now,
            now,
            outputs: VecDeque::from([ApplierOutput::Publish(machine.view())]),
            machine,
        };
        applier.tell_membership();
        if !applier.suspect {
            applier.start_compaction(&base);
            applier.note_digest();
        }
        Ok(applier)
    }

    /// Folds in portions of about so many bytes instead of [`OVERLAY_BYTES`]. No answer depends on it.
    pub fn set_overlay_bytes(&mut self, bytes: usize) {
        self.machine.set_overlay_bytes(bytes);
        self.unfolded_bytes_max = UNFOLDED_LOG_BYTES_MAX / OVERLAY_BYTES * bytes;
    }

    /// Reads about so many bytes for the answer to one command, and no more.
    pub fn set_answer_bytes(&mut self, bytes: usize) {
        self.answer_bytes = bytes;
    }

    /// Committed entries, following those handed in before.
    pub fn handle_entries(&mut self, now: Instant, entries: Vec<LogEntry>) {
        self.now = now;
        self.queue.extend(entries);
    }

    /// The configuration as of the entry of the last [`ApplierOutput::ConfChange`].
    pub fn apply_conf_state(&mut self, now: Instant, index: LogIndex, conf_state: ConfState) {
        self.now = now;
        let entry = self.asked.take();
        let entry = entry.filter(|entry| entry.index == index);
        assert!(entry.is_some(), "the answer is for the entry that was asked about");
        if let Some(entry) = entry {
            self.machine.apply_conf_state(entry.index, entry.term, conf_state);
            self.raise_commands();
            self.note_digest();
            self.note_applied(&entry);
            self.publish(Vec::new());
        }
    }

    /// The fold handed out last is in the store, whose content is now `base`.
    pub fn handle_folded(&mut self, now: Instant, base: Arc<Base>) {
        self.now = now;
        assert!(self.folding, "a fold comes back once");
        self.folding = false;
        self.machine.folded(Arc::clone(&base));
        self.end_sweep();
        self.show_base(&base);
    }

    /// The store is another member's now: the state begins anew from `base`, which is ahead of everything that was handed in.
    pub fn handle_installed(&mut self, now: Instant, base: Arc<Base>) -> Result<(), StoreError> {
        self.now = now;
        let (new, old) = (base.meta().applied, self.machine.applied());
        assert!(new > old || self.suspect && new == old, "the state does not go back");
        let sweep = self.sweep.take().map(Sweep::into_entry);
        let dropped = std::mem::take(&mut self.queue).into_iter().chain(self.asked.take()).chain(sweep);
        self.unreported_bytes += dropped.map(|entry| entry.memory_bytes()).sum::<usize>();
        self.awaited = true;
        self.unfolded_bytes = 0;
        (self.folding, self.compacting, self.suspect) = (false, false, false);
        self.machine.restart(Arc::clone(&base))?;
        self.trail.clear();
        self.note_digest();
        self.lessor.demote();
        self.lease_news.clear();
        self.publish(Vec::new());
        self.start_compaction(&base);
        Ok(())
    }

    /// A slice of compaction is done; the store's content is now `base`.
    pub fn handle_compacted(&mut self, now: Instant, base: Arc<Base>) {
        self.now = now;
        assert!(self.compacting, "the store compacts when it was told to");
        self.compacting = base.meta().compaction_finished < base.meta().compacted;
        self.machine.rebased(Arc::clone(&base));
        self.show_base(&base);
    }

    /// Whether this member leads, and in which term: the leader clears the NOSPACE alarm and ends leases.
    pub fn handle_leadership(&mut self, now: Instant, leads_in: Option<Term>) {
        self.now = now;
        let newly = leads_in.is_some() && self.leads_in.is_none();
        self.leads_in = leads_in;
        self.settle_leases();
        if newly {
            self.clear_nospace();
            self.raise_commands();
        }
    }

    /// Somebody waits for a store that has what is applied now: a fold follows as soon as there can be one.
    pub fn handle_fold_wish(&mut self, now: Instant) {
        self.now = now;
        self.fold_wanted = true;
    }

    /// The time of [`Applier::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
    }

    /// When to call [`Applier::handle_timeout`]: a fold or a lease is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let lessor = self.lessor.poll_timeout().filter(|_| self.sweep.is_none());
        self.quiet_fold_at().into_iter().chain(lessor).min()
    }

    /// When a quiet, dirty overlay is folded, so that a restart has little to replay. `None` when clean.
    fn quiet_fold_at(&self) -> Option<Instant> {
        (!self.folding && self.machine.is_dirty()).then(|| self.last_applied + OVERLAY_IDLE)
    }

    /// The next thing to do, until `None`. It may have taken long to come to it, so that each call is told the time anew.
    pub fn poll_output(&mut self, now: Instant) -> Result<Option<ApplierOutput>, ApplierError> {
        self.now = now;
        while self.outputs.is_empty() && self.advance()? {}
        Ok(self.outputs.pop_front())
    }

    /// The last entry applied; its effect is published by the outputs that wait, if not before.
    pub fn applied(&self) -> LogIndex {
        self.machine.applied()
    }

    /// The digest after this entry, as far as it is known: not for one that was applied long ago, or was in the store at the start.
    pub fn digest_at(&self, index: LogIndex) -> Option<Digest> {
        self.trail.at(index)
    }

    /// An entry after `compared` at which to compare with others, and the digest; a milestone, or else the last entry.
    pub fn comparison_point(&self, compared: LogIndex, milestone: bool) -> Option<(LogIndex, Digest)> {
        self.trail.point(self.machine.applied(), compared, milestone)
    }

    /// Whether entries wait: the store has not taken over the last generation, deletes very many keys, or another one is to take its place.
    pub fn is_stalled(&self) -> bool {
        let log_full = self.folding && self.unfolded_bytes >= self.unfolded_bytes_max;
        self.suspect || log_full || self.sweep.is_some() || self.machine.must_stall()
    }

    /// One batch of entries, a fold that is due, what leases want; false when there is nothing to do now.
    fn advance(&mut self) -> Result<bool, ApplierError> {
        // First of all, for entries may take long, and the time of an answer counts from when it was made.
        if self.advance_leases() {
            return Ok(true);
        }
        let applied = self.apply_batch()?;
        let sweeps = self.begin_sweep()?;
        let quiet = self.quiet_fold_at().is_some_and(|due| self.now >= due);
        let full = self.machine.should_rotate() || self.unfolded_bytes >= self.unfolded_bytes_max;
        let wanted = !self.folding && std::mem::take(&mut self.fold_wanted);
        let folds = !self.folding && (full || quiet || wanted) && self.fold();
        Ok(folds || sweeps || applied)
    }

    fn apply_batch(&mut self) -> Result<bool, ApplierError> {
        let (mut replies, mut bytes, before) = (Vec::new(), 0, self.machine.applied());
        let asked_before = self.asked.is_some();
        while bytes < APPLY_BATCH_BYTES && self.asked.is_none() && !self.is_stalled() {
            let Some(entry) = self.queue.pop_front() else { break };
            if entry.kind != EntryKind::Normal {
                self.asked = Some(entry);
                break;
            }
            bytes += entry.memory_bytes();
            if !self.apply(&entry, &mut replies)? {
                break;
            }
            self.note_applied(&entry);
            self.note_digest();
            // A full generation is folded at once, and the batch goes on in the next one.
            if !self.folding && self.machine.should_rotate() {
                break;
            }
        }
        if self.machine.applied() > before {
            self.publish(replies);
        }
        if let Some(entry) = self.asked.as_ref().filter(|_| !asked_before) {
            self.outputs.push_back(ApplierOutput::ConfChange(entry.clone()));
        }
        Ok(!self.outputs.is_empty())
    }

    /// Whether the entry is applied; one that deletes too much is set aside.
    fn apply(
        &mut self,
        entry: &LogEntry,
        replies: &mut Vec<(ProposalId, Applied)>,
    ) -> Result<bool, ApplierError> {
        let (index, term) = (entry.index, entry.term);
        if entry.data.is_empty() {
            self.machine.apply_empty(index, term);
            return Ok(true);
        }
        let envelope = codec::decode(entry.data.clone())
            .map_err(|cause| ApplierError::EntryUnreadable { index, cause })?;
        let store = |cause| ApplierError::Store { index, cause };
        if self.machine.has_to_sweep(term, &envelope).map_err(store)? {
            self.plan_sweep(entry.clone(), envelope);
            return Ok(false);
        }
        let answer = self.answer_for(envelope.id);
        let applied = self.machine.apply(index, term, &envelope, answer).map_err(store)?;
        if let Ok(Outcome::Raise(to)) = applied.outcome {
            to.check().map_err(|cause| ApplierError::NotUnderstood { index, cause })?;
        }
        self.note_outcome(&envelope.command, &applied);
        if self.is_ours(envelope.id) {
            replies.push((envelope.id, applied));
        }
        Ok(true)
    }

    /// An entry with this command was applied.
    pub(super) fn note_outcome(&mut self, command: &Command, applied: &Applied) {
        match (command, &applied.outcome) {
            (Command::Lease(command), Ok(outcome)) => self.note_lease(command, outcome),
            (Command::Publish(_) | Command::Member(_) | Command::Charter(_), Ok(_)) => self.raise_commands(),
            _ => {}
        }
    }

    /// Once everybody understands newer commands than the cluster uses, the leader has these used. Asked again at each change of the store, since it may get lost.
    fn raise_commands(&mut self) {
        let facts = self.machine.facts();
        let newer = facts.understood_by_all().filter(|understood| *understood > facts.commands);
        if let (Some(to), Some(_)) = (newer, self.leads_in) {
            self.outputs.push_back(ApplierOutput::Propose(Command::Raise(to)));
        }
    }

    /// Whether this run has proposed it.
    pub(super) fn is_ours(&self, id: ProposalId) -> bool {
        id.boot == self.boot_nonce
    }

    /// What may be read for an answer. Whoever proposed it in another run, or elsewhere, has its answer from there: reading it here could take more memory than
    /// there is, and at each replay again.
    pub(super) fn answer_for(&self, id: ProposalId) -> Allowance {
        if self.is_ours(id) { Allowance::of(self.answer_bytes) } else { Allowance::NOTHING }
    }

    pub(super) fn note_applied(&mut self, entry: &LogEntry) {
        self.last_applied = self.now;
        self.awaited |= entry.kind != EntryKind::Normal || entry.data.is_empty();
        self.unreported_bytes += entry.memory_bytes();
        self.unfolded_bytes += entry.memory_bytes();
    }

    pub(super) fn note_digest(&mut self) {
        self.trail.note(self.machine.applied(), self.machine.digest());
    }

    pub(super) fn publish(&mut self, replies: Vec<(ProposalId, Applied)>) {
        self.outputs.push_back(ApplierOutput::Publish(self.machine.view()));
        if !replies.is_empty() {
            self.outputs.push_back(ApplierOutput::Replies(replies));
        }
        self.tell_membership();
        let (bytes, awaited) =
            (std::mem::take(&mut self.unreported_bytes), std::mem::take(&mut self.awaited));
        self.outputs.push_back(ApplierOutput::Applied { index: self.machine.applied(), bytes, awaited });
    }

    /// Once the members have changed.
    fn tell_membership(&mut self) {
        let membership = Membership::of(self.machine.facts());
        if membership != self.membership {
            self.membership = membership.clone();
            self.awaited = true;
            self.outputs.push_back(ApplierOutput::Membership(membership));
        }
    }

    fn fold(&mut self) -> bool {
        let Some(batch) = self.machine.rotate() else { return false };
        self.folding = true;
        self.unfolded_bytes = 0;
        self.outputs.push_back(ApplierOutput::Fold(batch));
        true
    }

    /// The store's content moved: readers let go of the old one, and of the generation that is now in it.
    fn show_base(&mut self, base: &Base) {
        self.outputs.push_back(ApplierOutput::Publish(self.machine.view()));
        self.start_compaction(base);
        self.clear_nospace();
        self.raise_commands();
    }

    fn start_compaction(&mut self, base: &Base) {
        if !self.compacting && base.meta().compaction_finished < base.meta().compacted {
            self.compacting = true;
            self.outputs.push_back(ApplierOutput::CompactStart);
        }
    }

    /// Judges NOSPACE by another quota, if by any.
    pub fn set_quota(&mut self, quota_bytes: Option<u64>) {
        self.quota_bytes = quota_bytes;
        self.clear_nospace();
    }

    /// Removal made room: the leader has the alarm cleared, unless an operator raised it. Asked again at each change of the store,
    /// and when leases end, while it stays raised.
    pub(super) fn clear_nospace(&mut self) {
        let view = self.machine.view();
        let clear_below = self.quota_bytes.map(|quota| quota / 100 * QUOTA_CLEAR_PERCENT);
        if self.leads_in.is_none() || clear_below.is_some_and(|below| view.bytes_in_use() >= below) {
            return;
        }
        let clear = |member: &MemberId| Command::Alarm {
            action: AlarmAction::QuotaRelieved,
            alarm: Alarm { member: *member, kind: AlarmKind::NoSpace },
        };
        self.outputs.extend(view.facts().over_quota.iter().map(clear).map(ApplierOutput::Propose));
    }
}
