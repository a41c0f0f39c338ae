//! The threads of a node, each around one part of the core, and their start and end.
//!
//! Owns: which thread calls what, and the queues between them. Must never: decide; a thread carries out what its machine puts out. Driven
//! by `app`, which starts the threads and hears of their end.
//!
//! ```text
//! Handle ──► core ──Persist──► wal ──persisted──► core ──Apply──► applier ──► views, answers
//!              ▲                                                    │ ▲
//!              └───────────── applied, checkpointed ────────────────┤ └── new base
//!                                                                   └─► checkpoint
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_channel::oneshot;
use smol::channel::Sender;

use super::checkpoint::CheckpointInput;
use super::handle::Shared;
use super::hold::Grant;
use super::leader::{LeaderGap, Succession};
use super::wal_writer::WalInput;
use super::whereabouts::Lost;
use super::{Drained, Mailbox, ServeError, Urgency};
use crate::command::{Applied, Outcome};
use crate::consensus::{CoreStatus, Message, PersistId, Role, SnapshotMark};
use crate::ids::{Digest, LogIndex, MemberId, ProposalId, Term};
use crate::limits::{REQUEST_TIMEOUT, UNAPPLIED_BYTES_MAX};
use crate::node::{
    Applier, ApplierError, ApplierOutput, CheckpointJob, Core, CoreOutput, LeaseAnswer, LeaseRequest, LogJob,
    Membership, ReadId, RefusedWhy, Request, TransferOutcome,
};
use crate::store::{Base, ConfState, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::time::Instant;
use crate::wal::{LogEntry, Position, WalError};

/// What takes longer to apply is counted as slow; etcd's `--warning-apply-duration`.
const SLOW_APPLY: Duration = Duration::from_millis(100);

/// How often callers that have waited too long are looked for, while anybody waits.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Times to live above this are counted as this.
const LEASE_TTL_COUNTED_MAX: Duration = Duration::from_secs(1 << 25);

/// So many bytes may be applied without waking the core for that alone: less than what would make it wait for the applier.
const UNTOLD_BYTES_MAX: usize = 64 << 10;
const _: () = assert!(UNTOLD_BYTES_MAX < UNAPPLIED_BYTES_MAX);

/// Why a node cannot go on. The process ends without another acknowledgement.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The log could not be written or synced.
    #[error("the log on disk failed")]
    Wal(#[from] WalError),
    /// The store could not be written or read.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// What is written now no start would find.
    #[error("the data directory is lost")]
    Lost(#[from] Lost),
    /// A committed entry could not be applied.
    #[error("a committed entry could not be applied")]
    Applier(#[from] ApplierError),
    /// A committed change of the configuration could not be read.
    #[error("a committed change of the configuration could not be applied")]
    ConfChange(#[from] crate::consensus::ConfChangeUnreadable),
    /// The operating system gave no thread.
    #[error("cannot start a thread")]
    Threads(#[source] std::io::Error),
    /// A thread panicked; the panic was logged when it happened.
    #[error("the {0} thread panicked")]
    Panicked(&'static str),
}

/// What the core thread is told.
pub(super) enum CoreInput {
    Propose {
        id: ProposalId,
        bytes: Bytes,
    },
    /// `Arrivals` has reads.
    ReadsWait,
    Messages {
        messages: Vec<Message>,
        /// Dropped once they are handled.
        hold: Box<dyn Send>,
    },
    Unreachable(MemberId),
    /// Whether this follower has caught up; nothing where this member does not lead.
    InSync(MemberId, oneshot::Sender<Option<bool>>),
    /// Which members answer; nothing where this member does not lead.
    Answering(oneshot::Sender<Option<BTreeSet<MemberId>>>),
    /// The entries after this one, and where the log ends.
    LogAfter(LogIndex, oneshot::Sender<(Vec<LogEntry>, Position)>),
    /// Who has another state, where nobody knows who is right.
    ContradictedBy(BTreeSet<MemberId>),
    /// So many members are to vote, where the cluster decides that.
    Voters(usize),
    /// Hand leadership to this member.
    HandOver(MemberId),
    /// Hand leadership to whoever can take it, if this member has it.
    LetAnotherLead,
    Persisted(PersistId),
    Applied {
        index: LogIndex,
        bytes: usize,
    },
    ConfChange(LogEntry),
    Membership(Membership),
    Checkpointed(LogIndex),
    Transferred(MemberId, Box<TransferOutcome>),
    Staged(SnapshotMark),
    Contested,
    Installed(Position),
    /// For the checkpoint thread.
    Hold(Grant),
    /// For the wal thread, by way of this one: see [`super::Handle::pulse`].
    Pulse(oneshot::Sender<()>),
}

/// What the applier thread is told.
pub(super) enum ApplierInput {
    Entries(Vec<LogEntry>),
    ConfState {
        index: LogIndex,
        conf_state: ConfState,
    },
    Folded(Arc<Base>),
    Compacted(Arc<Base>),
    Installed(Arc<Base>),
    FoldWish,
    /// The term in which this member leads now, if it does.
    Leads(Option<Term>),
    /// The quota in bytes, if there is one.
    Quota(Option<u64>),
    Lease {
        number: u64,
        request: LeaseRequest,
    },
    /// What the digest was after this entry.
    DigestAt(LogIndex, oneshot::Sender<Option<Digest>>),
    /// An entry at which to compare, and its digest.
    ComparisonPoint {
        compared: LogIndex,
        milestone: bool,
        answer: oneshot::Sender<Option<(LogIndex, Digest)>>,
    },
    /// Call this once the views show all that was told before.
    Fence(Box<dyn FnOnce() + Send>),
}

/// The queues of the threads behind the core's.
#[derive(Default)]
pub(super) struct Queues {
    pub(super) wal: Mailbox<WalInput>,
    pub(super) applier: Mailbox<ApplierInput>,
    pub(super) checkpoint: Mailbox<CheckpointInput>,
}

/// What every thread has.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) shared: Arc<Shared>,
    pub(super) queues: Arc<Queues>,
    pub(super) metrics: Arc<Metrics>,
}

/// Tells who waits for the node that a thread has ended, even when it panics.
struct EndNotice {
    name: &'static str,
    ends: Sender<Result<(), Fault>>,
    reported: bool,
}

impl EndNotice {
    fn report(&mut self, end: Result<(), Fault>) {
        self.reported = true;
        // A closed channel has nobody left to tell; an unbounded one is never full.
        drop(self.ends.try_send(end));
    }
}

impl Drop for EndNotice {
    fn drop(&mut self) {
        if !self.reported {
            self.report(Err(Fault::Panicked(self.name)));
        }
    }
}

/// Starts a thread of the node whose end is put into `ends`.
pub(super) fn spawn(
    name: &'static str,
    ends: &Sender<Result<(), Fault>>,
    work: impl FnOnce() -> Result<(), Fault> + Send + 'static,
) -> std::io::Result<thread::JoinHandle<()>> {
    let mut notice = EndNotice { name, ends: ends.clone(), reported: false };
    thread::Builder::new().name(name.into()).spawn(move || {
        let end = work();
        notice.report(end);
    })
}

/// What the core thread has told of itself last.
#[derive(Default)]
struct Standing {
    status: CoreStatus,
    succession: Succession,
    /// What it has to say to the other members, who are told in one go.
    outbox: Vec<Message>,
}

/// The core thread: consensus and nothing else, so that no disk delays it.
pub(super) fn run_core(mut core: Core, context: &Context) -> Result<(), Fault> {
    let Context { shared, metrics, .. } = context;
    let mut inputs = Vec::new();
    let mut standing = Standing::default();
    let mut last_sweep = shared.clock.now();
    let mut leader_gap = LeaderGap::default();
    loop {
        loop {
            if core.wants_reads(shared.clock.now(), shared.arrivals.len()) {
                for key in shared.arrivals.take() {
                    core.handle_read(shared.clock.now(), ReadId(key));
                }
            }
            let Some(output) = core.poll_output() else { break };
            carry_out_core(output, context, &mut standing);
        }
        let messages = std::mem::take(&mut standing.outbox);
        if !messages.is_empty() {
            shared.peers.send(messages);
        }
        if shared.arrivals.wait_for(core.reads_wanted(shared.arrivals.len())) {
            continue;
        }
        if sleep(&core, shared, &mut inputs) == Drained::Closed {
            stop(context);
            return Ok(());
        }
        let now = shared.clock.now();
        for input in inputs.drain(..) {
            match input {
                CoreInput::Propose { id, bytes } => core.handle_proposal(now, id, bytes),
                // Taken below, as soon as a round can start.
                CoreInput::ReadsWait => {}
                CoreInput::Messages { messages, hold } => {
                    step(&mut core, now, messages);
                    drop(hold);
                }
                CoreInput::InSync(member, answer) => drop(answer.send(core.is_in_sync(member))),
                CoreInput::Answering(answer) => drop(answer.send(core.answering(now))),
                CoreInput::LogAfter(after, answer) => drop(answer.send(core.log_after(after))),
                CoreInput::ContradictedBy(others) => core.set_contradicted_by(others),
                CoreInput::Voters(voters) => core.set_voters(voters),
                CoreInput::HandOver(member) => core.transfer_leader(now, member),
                CoreInput::LetAnotherLead => core.let_another_lead(now),
                CoreInput::Unreachable(member) => core.handle_unreachable(now, member),
                CoreInput::Persisted(id) => core.handle_persisted(now, id),
                CoreInput::Applied { index, bytes } => core.handle_applied(now, index, bytes),
                CoreInput::Membership(membership) => core.handle_membership(now, membership),
                CoreInput::Checkpointed(index) => core.handle_checkpointed(now, index),
                CoreInput::Transferred(to, outcome) => core.handle_transfer(now, to, *outcome),
                CoreInput::Staged(mark) => core.handle_staged(now, mark),
                CoreInput::Contested => core.handle_contest(now),
                CoreInput::Installed(position) => core.handle_installed(now, position),
                CoreInput::Hold(grant) => drop(context.queues.checkpoint.send(CheckpointInput::Hold(grant))),
                CoreInput::Pulse(answer) => drop(context.queues.wal.send(WalInput::Pulse(answer))),
                CoreInput::ConfChange(entry) => {
                    if let Some(conf_state) = core.apply_conf_change(now, &entry)? {
                        let answer = ApplierInput::ConfState { index: entry.index, conf_state };
                        drop(context.queues.applier.send(answer));
                    }
                }
            }
        }
        pass_time(&mut core, now, metrics);
        if now.since(last_sweep) >= SWEEP_INTERVAL {
            last_sweep = now;
            sweep(context, now);
            leader_gap.note(now, standing.status.leader.is_some(), &shared.leader_losses);
        }
    }
}

/// Until there is something for the core to do.
fn sleep(core: &Core, shared: &Shared, inputs: &mut Vec<CoreInput>) -> Drained {
    let waiting = !shared.proposals.is_empty()
        || !shared.reads.is_empty()
        || !shared.leases.is_empty()
        || shared.peers.awaits_answers();
    let deadline = core.poll_timeout().map(|at| shared.clock.until(at));
    let patience = deadline.into_iter().chain(waiting.then_some(SWEEP_INTERVAL)).min();
    shared.core.drain_when(core.proposals_wanted().unwrap_or(1), inputs, patience)
}

fn pass_time(core: &mut Core, now: Instant, metrics: &Metrics) {
    if core.poll_timeout().is_some_and(|at| at <= now) {
        metrics.late_heartbeats.add(u64::from(core.is_heartbeat_late(now)));
        core.handle_timeout(now);
    }
}

/// What raft is not shown is as good as lost, which it is built for.
fn step(core: &mut Core, now: Instant, messages: Vec<Message>) {
    for message in messages {
        let from = message.from();
        if let Err(refusal) = core.handle_message(now, message) {
            tracing::debug!(%from, %refusal, "refused a message of a member");
        }
    }
}

fn carry_out_core(output: CoreOutput, context: &Context, standing: &mut Standing) {
    let Context { shared, queues, metrics } = context;
    // A closed queue means that its thread has failed and the process is about to end.
    let log = |job| drop(queues.wal.send(WalInput::Job(job)));
    match output {
        CoreOutput::Persist(persist) => log(LogJob::Persist(persist)),
        CoreOutput::ResetLog { to } => log(LogJob::Reset { to }),
        CoreOutput::Store(job) => drop(queues.checkpoint.send(CheckpointInput::Job(job))),
        CoreOutput::FoldSoon => drop(queues.applier.send(ApplierInput::FoldWish)),
        CoreOutput::CutLog { before } => log(LogJob::Cut { before }),
        CoreOutput::DiskStuck { waited, heir } => tell_of_stuck_disk(waited, heir),
        CoreOutput::Apply(entries) => drop(queues.applier.send(ApplierInput::Entries(entries))),
        CoreOutput::ReadReady(reads, index) => {
            shared.confirm_reads(reads, index);
        }
        CoreOutput::Refused { request, why } => {
            let error = match why {
                RefusedWhy::TooManyRequests => ServeError::TooManyRequests,
                RefusedWhy::NoLeader => ServeError::NoLeader,
                RefusedWhy::Removed => ServeError::Stopped,
                RefusedWhy::TimedOut => ServeError::TimedOut,
                RefusedWhy::LeaderChanged => ServeError::LeaderChanged,
            };
            // Who was not let in has failed at nothing.
            let failed = u64::from(error != ServeError::TooManyRequests);
            match request {
                Request::Proposal(id) => {
                    metrics.proposals_failed.add(failed);
                    shared.proposals.answer(id.seq, Err(error));
                }
                Request::Read(read) => {
                    let is_slow = error == ServeError::TimedOut;
                    let counter =
                        if is_slow { &metrics.slow_read_indexes } else { &metrics.read_indexes_failed };
                    counter.add(failed);
                    shared.reads.answer(read.0, Err(error));
                }
            }
        }
        CoreOutput::Send(mut messages) => standing.outbox.append(&mut messages),
        CoreOutput::Status(new) => {
            publish_status(context, standing, new);
        }
    }
}

fn tell_of_stuck_disk(waited: Duration, heir: Option<MemberId>) {
    tracing::error!(
        waited_s = waited.as_secs(),
        heir = heir.map(tracing::field::display),
        "the disk is stuck: what is to be written waits for it, and an heir, if one is named, is asked to lead"
    );
}

fn publish_status(context: &Context, standing: &mut Standing, new: CoreStatus) {
    let Context { shared, queues, metrics } = context;
    if let Some(lost_at) = standing.succession.note(shared.clock.now(), &new) {
        // What waits since then has not left this member yet, and goes to the new leader.
        let failed = shared.proposals.expire(lost_at, || Err(ServeError::LeaderChanged));
        metrics.proposals_failed.add(failed as u64);
    }
    let old = &mut standing.status;
    // Before anything that the core puts out after it: a read that still skips its round must not outlive the right to.
    shared.sole_voter.store(new.sole_voter, Ordering::Release);
    shared.set_core_status(new);
    if new.role == Role::Removed {
        shared.removal.reach(1);
    }
    if old.leader != new.leader {
        if let Some(lost) = old.leader {
            // What only a leader answers, another one does now; what any member answers is asked again.
            shared.peers.give_up(lost);
        }
        // As etcd counts them, whose alerts go by it: that there is none is no change, and that there is one again is.
        metrics.leader_changes.add(u64::from(new.leader.is_some()));
        shared.leaders.reach(shared.leaders.value() + 1);
        tracing::info!(
            leader = new.leader.map(tracing::field::display),
            term = new.term.0,
            "raft: leader changed"
        );
    }
    let leads_in = |status: &CoreStatus| (status.role == Role::Leader).then_some(status.term);
    if leads_in(old) != leads_in(&new) {
        drop(queues.applier.send(ApplierInput::Leads(leads_in(&new))));
    }
    *old = new;
}

/// Ends the waiting of callers whom nobody will answer.
fn sweep(context: &Context, now: Instant) {
    let before =
        |age: Duration| Instant(now.0.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)));
    let shared = &context.shared;
    let writes = shared.proposals.expire(before(REQUEST_TIMEOUT), || Err(ServeError::TimedOut));
    let leases = shared.leases.expire(before(REQUEST_TIMEOUT), || Err(ServeError::TimedOut));
    // Those without an index are the core's, which knows better what to tell them; what is left here waits for the state.
    let reads = shared.reads.expire(before(REQUEST_TIMEOUT + SWEEP_INTERVAL), || Err(ServeError::TimedOut));
    context.metrics.proposals_failed.add(writes as u64);
    context.metrics.slow_read_indexes.add(reads as u64);
    if writes + reads + leases > 0 {
        tracing::warn!(writes, reads, leases, "requests timed out");
    }
    shared.peers.expire(before(REQUEST_TIMEOUT));
    shared.forget_reads();
}

/// Lets the other threads finish what they have and end, and everybody who waits go.
fn stop(context: &Context) {
    let Context { shared, queues, .. } = context;
    queues.wal.close();
    queues.applier.close();
    queues.checkpoint.close();
    shared.watches.mailbox.close();
    let never = Instant(u64::MAX);
    shared.proposals.expire(never, || Err(ServeError::Stopped));
    shared.arrivals.close();
    shared.reads.expire(never, || Err(ServeError::Stopped));
    shared.leases.expire(never, || Err(ServeError::Stopped));
    shared.compacted.close();
    shared.leaders.close();
    shared.leader_losses.close();
    shared.membership.close();
    shared.charter.close();
    shared.removal.close();
    shared.fencing.close();
    shared.suspicion.close();
}

/// The applier thread: the state machine and its views.
pub(super) fn run_applier(mut applier: Applier, context: &Context) -> Result<(), Fault> {
    let Context { shared, queues, metrics } = context;
    let mut inputs = Vec::new();
    // When the entries came that are being applied.
    let mut applying: Option<Instant> = None;
    let mut untold = 0;
    let mut fences: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    loop {
        while let Some(output) = applier.poll_output(shared.clock.now())? {
            carry_out_applier(output, context, &mut untold);
        }
        fences.drain(..).for_each(|pass| pass());
        if let Some(began) = applying.take()
            && shared.clock.now().since(began) > SLOW_APPLY
        {
            metrics.slow_applies.add(1);
        }
        let patience = applier.poll_timeout().map(|at| shared.clock.until(at));
        if queues.applier.drain(&mut inputs, patience) == Drained::Closed {
            return Ok(());
        }
        let now = shared.clock.now();
        for input in inputs.drain(..) {
            match input {
                ApplierInput::Entries(entries) => {
                    applying = Some(now);
                    applier.handle_entries(now, entries);
                }
                ApplierInput::ConfState { index, conf_state } => {
                    applier.apply_conf_state(now, index, conf_state);
                }
                ApplierInput::Folded(base) => applier.handle_folded(now, base),
                ApplierInput::Compacted(base) => applier.handle_compacted(now, base),
                ApplierInput::Installed(base) => {
                    applier.handle_installed(now, base)?;
                    // What was on its way through the leader may be in the state that came, where no answer is.
                    let failed = shared.proposals.expire(now, || Err(ServeError::LeaderChanged));
                    metrics.proposals_failed.add(failed as u64);
                }
                ApplierInput::FoldWish => applier.handle_fold_wish(now),
                ApplierInput::Leads(leads_in) => applier.handle_leadership(now, leads_in),
                ApplierInput::Quota(quota) => applier.set_quota(quota),
                ApplierInput::Lease { number, request } => {
                    applier.handle_lease_request(now, number, request);
                }
                ApplierInput::DigestAt(index, answer) => drop(answer.send(applier.digest_at(index))),
                ApplierInput::ComparisonPoint { compared, milestone, answer } => {
                    // Whoever asked may have gone.
                    let _ = answer.send(applier.comparison_point(compared, milestone));
                }
                ApplierInput::Fence(pass) => fences.push(pass),
            }
        }
        if applier.poll_timeout().is_some_and(|at| at <= now) {
            applier.handle_timeout(now);
        }
    }
}

/// How urgent it is to tell the core that so many more bytes are applied; `untold` are those that it has not been woken for.
fn urgency(untold: &mut usize, bytes: usize, awaited: bool) -> Urgency {
    *untold += bytes;
    if !awaited && *untold <= UNTOLD_BYTES_MAX {
        return Urgency::Whenever;
    }
    *untold = 0;
    Urgency::Now
}

fn carry_out_applier(output: ApplierOutput, context: &Context, untold: &mut usize) {
    let Context { shared, queues, metrics } = context;
    match output {
        ApplierOutput::Publish(view) => {
            shared.publish(view);
        }
        ApplierOutput::Replies(replies) => {
            count(&replies, metrics);
            shared.proposals.answer_batch(replies.into_iter().map(|(id, applied)| (id.seq, Ok(applied))));
        }
        ApplierOutput::Applied { index, bytes, awaited } => {
            shared.reach_applied(index);
            let urgency = urgency(untold, bytes, awaited);
            drop(shared.core.send_with(urgency, CoreInput::Applied { index, bytes }));
        }
        ApplierOutput::ConfChange(entry) => drop(shared.core.send(CoreInput::ConfChange(entry))),
        ApplierOutput::Membership(membership) => drop(shared.core.send(CoreInput::Membership(membership))),
        ApplierOutput::Fold(batch) => {
            drop(queues.checkpoint.send(CheckpointInput::Job(CheckpointJob::Fold(batch))));
        }
        ApplierOutput::CompactStart => {
            drop(queues.checkpoint.send(CheckpointInput::Job(CheckpointJob::Compact)));
        }
        ApplierOutput::Propose(command) => {
            if let Some((id, bytes)) = shared.encode(None, command) {
                drop(shared.core.send(CoreInput::Propose { id, bytes }));
            }
        }
        ApplierOutput::LeaseAnswers(answers) => {
            let renewed = answers.iter().filter(|(_, answer)| matches!(answer, LeaseAnswer::Renewed { .. }));
            metrics.leases_renewed.add(renewed.count() as u64);
            shared.leases.answer_batch(answers.into_iter().map(|(number, answer)| (number, Ok(answer))));
        }
    }
}

fn count(replies: &[(ProposalId, Applied)], metrics: &Metrics) {
    for (_, applied) in replies {
        match &applied.outcome {
            Ok(Outcome::Put(_)) => metrics.puts.add(1),
            Ok(Outcome::DeleteRange(_)) => metrics.deletes.add(1),
            Ok(Outcome::Txn(_)) => metrics.txns.add(1),
            Ok(Outcome::LeaseGrant { ttl }) => {
                metrics.leases_granted.add(1);
                // Longer ones are all in the last bucket, and would make the sum wrap around.
                metrics.lease_ttl.observe(LEASE_TTL_COUNTED_MAX.min(Duration::from_secs(ttl.unsigned_abs())));
            }
            Ok(Outcome::LeaseRevoke) => metrics.leases_revoked.add(1),
            Ok(Outcome::LeaseExpire(leases)) => {
                metrics.leases_revoked.add(leases.len() as u64);
                metrics.leases_expired.add(leases.len() as u64);
            }
            Ok(
                Outcome::AnswerTooLarge
                | Outcome::Compact
                | Outcome::Alarm(_)
                | Outcome::Publish
                | Outcome::Member(_)
                | Outcome::Charter
                | Outcome::Auth
                | Outcome::Raise(_)
                | Outcome::LeaseCheckpoint(_),
            )
            // It was applied all the same: that there is no such lease, say, is its result.
            | Err(_) => {}
        }
    }
}

#[cfg(test)]
#[path = "threads_test.rs"]
mod tests;
