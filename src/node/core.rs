//! Consensus of a whole member: proposals and reads in, batches for the disk and for the applier out.
//!
//! Owns: what waits for consensus and its bounds, read-index rounds, the order between log, disk and state. Must never: decide
//! by what a proposal says (that it can be read is all), touch a disk or a socket. Driven by the core thread of `runtime` and by the simulator.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::checkpointer::CheckpointJob;
use super::gathering::{Company, Gathering, Sight};
use super::growth::Growth;
use super::notices::Notices;
use super::reconcile::{HandOver, Membership, Step, next_step};
use super::serving::Serving;
use super::stall::Stall;
use crate::command::codec;
use crate::consensus::{
    ConfChange, ConfChangeRefusal, ConfChangeUnreadable, Consensus, CoreStatus, Message, Persist, PersistId,
    ReadRequest, ReadRound, Ready, Refusal, Role,
};
use crate::ids::{LogIndex, MemberId, ProposalId, Term};
use crate::limits::{
    ELECTION_TIMEOUT, PROPOSALS_PENDING_BYTES_MAX, PROPOSALS_PENDING_MAX, READS_PENDING_MAX, REQUEST_TIMEOUT,
    UNAPPLIED_BYTES_MAX, UNSYNCED_BYTES_MAX, WAL_BATCH_BYTES,
};
use crate::store::ConfState;
use crate::time::Instant;
use crate::wal::{LogEntry, Position};

/// A round without an answer is asked again after this: requests and answers may get lost.
const READ_RETRY: Duration = Duration::from_millis(500);
/// Requests of other members for a read index that wait for the next round; each member has one at a time.
const READ_REQUESTS_MAX: usize = 64;
/// Proposals wait this long for a leader before they are refused; an election takes at most two timeouts as a rule.
const LEADER_PATIENCE: Duration = ELECTION_TIMEOUT.saturating_mul(2);

/// One linearizable read that waits for a read index. The caller makes the ids; within one run none is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// What a [`CoreOutput::Refused`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// A proposal: it is not in the log and never will be.
    Proposal(ProposalId),
    /// A read.
    Read(ReadId),
}

/// Why a request was refused. It had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedWhy {
    /// Too much waits already.
    #[error("too many requests")]
    TooManyRequests,
    /// No leader was found in time.
    #[error("no leader")]
    NoLeader,
    /// This member was removed from the cluster.
    #[error("this member was removed from the cluster")]
    Removed,
    /// No read index was confirmed within [`REQUEST_TIMEOUT`].
    #[error("request timed out")]
    TimedOut,
    /// As [`RefusedWhy::TimedOut`], and meanwhile another leader was found.
    #[error("leader changed")]
    LeaderChanged,
}

/// What the core wants done.
#[derive(Debug)]
pub enum CoreOutput {
    /// Append to the log on disk and sync; then [`Core::handle_persisted`] with the id. In order. Several may be on their way: whoever
    /// writes takes all that wait, syncs once and answers the last id.
    Persist(Persist),
    /// Committed, and on this member's disk: hand to the applier, in order.
    Apply(Vec<LogEntry>),
    /// These reads may be served from the state at or after this position.
    ReadReady(Vec<ReadId>, LogIndex),
    /// A request had no effect.
    Refused {
        /// Which.
        request: Request,
        /// Why.
        why: RefusedWhy,
    },
    /// Nothing before this entry is needed any more; the log on disk may be cut there.
    CutLog {
        /// The first entry that is still needed.
        before: LogIndex,
    },
    /// Send each to its addressee; loss is harmless.
    Send(Vec<Message>),
    /// Where this member stands, when that has changed.
    Status(CoreStatus),
    /// To the checkpointer. In order.
    Store(CheckpointJob),
    /// To [`Applier::handle_fold_wish`](super::Applier::handle_fold_wish).
    FoldSoon,
    /// The disk has answered nothing for long.
    DiskStuck {
        /// For how long.
        waited: Duration,
        /// Who was asked to lead instead: this member leads, and others can do without it.
        heir: Option<MemberId>,
    },
    /// Begin the log on disk anew; in order with the persists.
    ResetLog {
        /// The position of the state that has taken the place of the one before.
        to: Position,
    },
}

/// A batch of own proposals in the log that is not committed yet.
#[derive(Debug)]
struct Appended {
    last: LogIndex,
    count: usize,
    bytes: usize,
}

/// Who leads, as far as this member knows.
type Leadership = (Option<MemberId>, Term);

/// A read without an index.
#[derive(Clone, Copy, Debug)]
struct WaitingRead {
    id: ReadId,
    deadline: Instant,
    /// Who led when it came.
    leadership: Leadership,
}

/// A read-index round on its way.
#[derive(Debug)]
struct Round {
    id: ReadRound,
    /// In the order in which they came, all before those that will join the next round.
    reads: Vec<WaitingRead>,
    /// Of other members.
    requests: Vec<ReadRequest>,
    began: Instant,
    retry_at: Instant,
    /// Who led when it started: another leader knows nothing of it.
    asked: Leadership,
}

/// A round that is over.
#[derive(Clone, Copy, Debug)]
struct Served {
    took: Duration,
    reads: usize,
}

/// Consensus as one machine.
///
/// # Contract
///
/// - `now` never goes backwards. After any number of `handle_*` calls (the more at once, the larger the batches),
///   [`Core::poll_output`] until `None`, then sleep until [`Core::poll_timeout`] and call [`Core::handle_timeout`].
/// - Outputs are carried out in order of their kind: persists among persists, applies among applies.
/// - The applier reports with [`Core::handle_applied`]; when it meets a change of the configuration it stops, asks with
///   [`Core::apply_conf_change`], and goes on with the answer.
/// - A durable fold up to C is reported with [`Core::handle_checkpointed`].
///
/// ```text
/// proposal ─ queue ─► raft log ─ Persist ─► disk ─ handle_persisted ─► committed ─ Apply ─► handle_applied
///           bounded: PROPOSALS_PENDING_*                                bounded: UNAPPLIED_BYTES_MAX
/// ```
///
/// While the leader's disk syncs, proposals gather: each that left by itself would begin a sync of its own at every follower, and the next ones would wait
/// for that. See `gathering`.
pub struct Core {
    pub(super) consensus: Consensus,
    pub(super) now: Instant,
    queue: VecDeque<(ProposalId, Bytes)>,
    queue_bytes: usize,
    /// Proposals that followers have passed on to this leader, in the order in which they came.
    passed_on: VecDeque<Bytes>,
    passed_on_bytes: usize,
    gathering: Gathering,
    /// Since when the queue's head waits for a leader.
    leaderless_since: Option<Instant>,
    appended: VecDeque<Appended>,
    appended_count: usize,
    appended_bytes: usize,
    unapplied_bytes: usize,
    joining: Vec<WaitingRead>,
    /// What other members ask this leader for; joins the next round too.
    requested: VecDeque<ReadRequest>,
    round: Option<Round>,
    /// Whether reads wait for those that the last round has served, and what that round was, until it is known how many came meanwhile.
    readers: Company,
    served: Option<Served>,
    pub(super) outputs: VecDeque<CoreOutput>,
    /// Where this member stood when that was last told.
    pub(super) reported: CoreStatus,
    notices: Notices,
    /// Followers that are sent the state.
    pub(super) serving: Serving,
    /// What is written once the install that is under way is done.
    pub(super) after_install: Option<Persist>,
    /// What the configuration is to be, as soon as the state has said it.
    pub(super) membership: Option<Membership>,
    /// Who is to vote, where this leader decides that.
    pub(super) growth: Growth,
    /// The configuration is that.
    pub(super) settled: bool,
    /// Where this leader is to go.
    pub(super) hand_over: HandOver,
    pub(super) stall: Stall,
}

impl Core {
    /// A core around a consensus that was just started.
    pub fn new(now: Instant, consensus: Consensus) -> Self {
        Self {
            consensus,
            now,
            queue: VecDeque::new(),
            queue_bytes: 0,
            passed_on: VecDeque::new(),
            passed_on_bytes: 0,
            gathering: Gathering::default(),
            leaderless_since: None,
            appended: VecDeque::new(),
            appended_count: 0,
            appended_bytes: 0,
            unapplied_bytes: 0,
            joining: Vec::new(),
            requested: VecDeque::new(),
            round: None,
            readers: Company::default(),
            served: None,
            outputs: VecDeque::new(),
            reported: CoreStatus::default(),
            notices: Notices::default(),
            serving: Serving::default(),
            after_install: None,
            membership: None,
            growth: Growth::default(),
            settled: false,
            hand_over: HandOver::default(),
            stall: Stall::default(),
        }
    }

    /// Keeps about so many bytes of applied entries for followers instead of [`LOG_CACHE_BYTES`](crate::limits::LOG_CACHE_BYTES).
    pub fn set_log_tail_bytes(&mut self, bytes: usize) {
        self.consensus.set_log_tail_bytes(bytes);
    }

    /// A command for the log, as its encoded envelope. The answer comes from the applier of the member that proposed, or as
    /// [`CoreOutput::Refused`]; it may never come when leadership changes, and then the outcome is unknown.
    pub fn handle_proposal(&mut self, now: Instant, id: ProposalId, envelope: Bytes) {
        self.now = now;
        let count = self.queue.len() + self.appended_count;
        let bytes = self.queue_bytes + self.appended_bytes + envelope.len();
        if count >= PROPOSALS_PENDING_MAX || bytes > PROPOSALS_PENDING_BYTES_MAX {
            self.refuse(Request::Proposal(id), RefusedWhy::TooManyRequests);
            return;
        }
        self.queue_bytes += envelope.len();
        self.queue.push_back((id, envelope));
    }

    /// A linearizable read asks from which position on the state is new enough. Answered by [`CoreOutput::ReadReady`], or within
    /// [`REQUEST_TIMEOUT`] by [`CoreOutput::Refused`].
    ///
    /// It joins the next round, never one on its way: that one may have been confirmed before the read came.
    pub fn handle_read(&mut self, now: Instant, id: ReadId) {
        self.now = now;
        let waiting = self.joining.len() + self.round.as_ref().map_or(0, |round| round.reads.len());
        if waiting >= READS_PENDING_MAX {
            self.refuse(Request::Read(id), RefusedWhy::TooManyRequests);
            return;
        }
        let leadership = self.leadership();
        self.joining.push(WaitingRead { id, deadline: now + REQUEST_TIMEOUT, leadership });
    }

    /// Whether reads, of which so many have not been handed in, are to be handed in now: they need not wait for a round on its way, nor for others that would
    /// share theirs.
    pub fn wants_reads(&mut self, now: Instant, waiting: usize) -> bool {
        if self.awaits_round() {
            return false;
        }
        if let Some(served) = self.served.take() {
            self.readers.note_served(now, served.took, served.reads, waiting);
        }
        waiting > 0 && !(self.requested.is_empty() && self.readers.holds(now, waiting, true))
    }

    /// How many reads have to wait before [`Core::wants_reads`] may answer something else, where so many do now.
    pub fn reads_wanted(&self, waiting: usize) -> usize {
        if self.awaits_round() {
            return usize::MAX;
        }
        let held = self.readers.poll_timeout(self.now).and_then(|_| self.readers.wanted(waiting));
        held.map_or(1, |more| waiting + more)
    }

    fn awaits_round(&self) -> bool {
        self.round.as_ref().is_some_and(|round| !self.is_overdue(round))
    }

    /// A message from a peer; see [`Consensus::step`].
    pub fn handle_message(&mut self, now: Instant, message: Message) -> Result<(), Refusal> {
        self.now = now;
        // What waits is bounded also where others fill it: a leader keeps only so many proposals, and a follower that is behind takes no more entries,
        // which is a loss that raft makes up for once there is room.
        let leads = self.consensus.status().role == Role::Leader;
        let passes_on = leads && message.is_proposal();
        let is_full = if passes_on {
            let bytes: usize = message.proposals().map(cost_of).sum();
            self.passed_on_bytes + bytes > PROPOSALS_PENDING_BYTES_MAX
        } else {
            message.brings_entries() && self.is_behind()
        };
        if is_full {
            return Err(Refusal::Full);
        }
        if !message.proposals().all(|envelope| codec::decode(envelope.clone()).is_ok()) {
            return Err(Refusal::Unreadable);
        }
        if message.is_passed_on() {
            let notice = self.notices.note_asked(now, message.from());
            self.outputs.extend(notice.map(|notice| CoreOutput::Send(vec![notice])));
        }
        if let Some(request) = self.consensus.read_request(&message)? {
            if self.requested.len() >= READ_REQUESTS_MAX {
                // As good as lost on the way: who asked asks again.
                self.requested.pop_front();
            }
            self.requested.push_back(request);
            return Ok(());
        }
        if passes_on {
            let proposals = self.consensus.take_proposals(now, message)?;
            self.passed_on_bytes += proposals.iter().map(cost_of).sum::<usize>();
            self.passed_on.extend(proposals);
            return Ok(());
        }
        self.consensus.step(now, message)
    }

    /// What was sent to this member lately may be lost.
    pub fn handle_unreachable(&mut self, now: Instant, member: MemberId) {
        self.now = now;
        self.consensus.report_unreachable(now, member);
    }

    /// The disk holds this batch and all before it.
    pub fn handle_persisted(&mut self, now: Instant, id: PersistId) {
        self.now = now;
        let messages = self.consensus.handle_persisted(now, id);
        self.gathering.note_synced(now, self.waiting(), self.consensus.last_unsynced().is_none());
        if !messages.is_empty() {
            self.outputs.push_back(CoreOutput::Send(messages));
        }
    }

    /// The applier has got to `index`; `bytes` of entries were applied since its last report.
    pub fn handle_applied(&mut self, now: Instant, index: LogIndex, bytes: usize) {
        self.now = now;
        assert!(bytes <= self.unapplied_bytes, "more was applied than was handed out");
        self.unapplied_bytes -= bytes;
        self.consensus.handle_applied(now, index);
    }

    /// The store durably holds everything up to `checkpoint`.
    pub fn handle_checkpointed(&mut self, now: Instant, checkpoint: LogIndex) {
        self.now = now;
        // The two reports come from different threads; a fold holds entries that are applied, or by which a deletion is.
        self.consensus.handle_applied(now, checkpoint);
        let before = self.consensus.cut(checkpoint);
        self.outputs.push_back(CoreOutput::CutLog { before });
    }

    /// Proposes a change of the configuration; at the leader only, one at a time.
    pub fn propose_conf_change(
        &mut self,
        now: Instant,
        change: &ConfChange,
    ) -> Result<(), ConfChangeRefusal> {
        self.now = now;
        self.consensus.propose_conf_change(now, change)
    }

    /// Makes a committed change of the configuration effective: the answer to
    /// [`ApplierOutput::ConfChange`](super::ApplierOutput::ConfChange), to be handed back to the applier. `None` where the applier waits for the state
    /// that is about to be installed.
    pub fn apply_conf_change(
        &mut self,
        now: Instant,
        entry: &LogEntry,
    ) -> Result<Option<ConfState>, ConfChangeUnreadable> {
        self.now = now;
        self.settled = false;
        self.consensus.apply_conf_change(now, entry)
    }

    /// What the configuration is to be: while this member leads, it proposes changes until it is so.
    pub fn handle_membership(&mut self, now: Instant, membership: Membership) {
        self.now = now;
        self.membership = Some(membership);
        self.settled = false;
    }

    /// Whether a follower of this leader has caught up with it. `None` where this member does not lead.
    pub fn is_in_sync(&self, member: MemberId) -> Option<bool> {
        (self.consensus.status().role == Role::Leader).then(|| self.consensus.has_caught_up(member))
    }

    /// The members that answer this leader. `None` where this member does not lead.
    pub fn answering(&self, now: Instant) -> Option<BTreeSet<MemberId>> {
        self.consensus.answering(now)
    }

    /// Hands leadership to another voter.
    pub fn transfer_leader(&mut self, now: Instant, to: MemberId) {
        self.now = now;
        self.consensus.transfer_leader(now, to);
    }

    /// The time of [`Core::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.consensus.handle_timeout(now);
        let notices = self.notices.take_due(now);
        if !notices.is_empty() {
            self.outputs.push_back(CoreOutput::Send(notices));
        }
        self.repeat_offers();
    }

    /// When to call [`Core::handle_timeout`]. `None` for an idle member without peers.
    pub fn poll_timeout(&self) -> Option<Instant> {
        // Without a leader there is nobody to ask again; finding one is an event of its own.
        let asks = self.consensus.serves_reads();
        let round = self.round.as_ref().filter(|_| asks).map(|round| round.retry_at);
        let leader = self.leaderless_since.map(|since| since + LEADER_PATIENCE);
        let read = self.oldest_read().map(|read| read.deadline);
        let notices = self.notices.poll_timeout();
        let gathered = self.gathering.poll_timeout(self.now);
        let readers = self.readers.poll_timeout(self.now);
        [
            self.consensus.poll_timeout(),
            round,
            leader,
            read,
            notices,
            gathered,
            readers,
            self.serving.poll_timeout(),
            self.disk_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether this member leads and is late with a heartbeat.
    pub fn is_heartbeat_late(&self, now: Instant) -> bool {
        self.consensus.is_heartbeat_late(now)
    }

    /// The next thing to do, until `None`.
    pub fn poll_output(&mut self) -> Option<CoreOutput> {
        while self.outputs.is_empty() && self.advance() {}
        self.outputs.pop_front()
    }

    /// Where this member stands.
    pub fn status(&self) -> CoreStatus {
        self.consensus.status()
    }

    /// One step of work that is waiting; false when there is none.
    fn advance(&mut self) -> bool {
        let proposed = self.propose_waiting();
        let expired = self.expire_reads();
        let asked = self.ask_read_index();
        // Before the batch that it belongs to: `sole_voter` must fall before a second member can come to be.
        self.report_standing();
        self.look_after_snapshots();
        self.ask_for_state();
        self.look_after_disk();
        self.grow();
        self.reconcile();
        let Some(ready) = self.consensus.poll_ready() else {
            let reported = self.report_status();
            return proposed || expired || asked || reported;
        };
        self.take(ready);
        true
    }

    fn take(&mut self, mut ready: Ready) {
        self.notices.hold_back(self.now, &mut ready.messages);
        match (ready.install, ready.persist) {
            (Some(mark), persist) => self.install(mark, persist),
            (None, Some(persist)) => self.outputs.push_back(CoreOutput::Persist(persist)),
            (None, None) => {}
        }
        if !ready.messages.is_empty() {
            self.outputs.push_back(CoreOutput::Send(ready.messages));
        }
        // The state that is waited for has it all.
        if !ready.committed.is_empty() && !self.consensus.is_suspect() {
            self.unapplied_bytes += bytes_of(&ready.committed);
            self.outputs.push_back(CoreOutput::Apply(ready.committed));
        }
        for (round, index) in ready.reads {
            if let Some(confirmed) = self.round.take_if(|current| current.id == round) {
                self.confirm(confirmed, index);
            }
        }
        self.forget_settled();
    }

    fn confirm(&mut self, round: Round, index: LogIndex) {
        self.served = Some(Served { took: self.now.since(round.began), reads: round.reads.len() });
        let consensus = &self.consensus;
        let answer = |request| consensus.answer_read(request, index);
        let answers: Vec<Message> = round.requests.into_iter().filter_map(answer).collect();
        if !answers.is_empty() {
            self.outputs.push_back(CoreOutput::Send(answers));
        }
        if !round.reads.is_empty() {
            let reads = round.reads.iter().map(|read| read.id).collect();
            self.outputs.push_back(CoreOutput::ReadReady(reads, index));
        }
    }

    /// Whether so much waits for the disk or the applier that nothing more goes into the log.
    fn is_behind(&self) -> bool {
        self.unapplied_bytes > UNAPPLIED_BYTES_MAX || self.consensus.unsynced_bytes() > UNSYNCED_BYTES_MAX
    }

    /// Moves one batch of the proposals that wait to the log, where that is possible.
    fn propose_waiting(&mut self) -> bool {
        let status = self.consensus.status();
        let role = status.role;
        if role != Role::Leader {
            // Lost, as on any way: those that wait for it have another leader now, or none.
            self.passed_on.clear();
            self.passed_on_bytes = 0;
            self.gathering = Gathering::default();
        }
        if self.queue.is_empty() {
            self.leaderless_since = None;
        }
        if self.queue.is_empty() && self.passed_on.is_empty() {
            self.gathering.note_none();
            return false;
        }
        if role == Role::Removed {
            return self.refuse_queue(RefusedWhy::Removed);
        }
        if !self.consensus.takes_proposals() {
            if self.queue.is_empty() {
                return false;
            }
            let since = *self.leaderless_since.get_or_insert(self.now);
            return self.now >= since + LEADER_PATIENCE && self.refuse_queue(RefusedWhy::NoLeader);
        }
        self.leaderless_since = None;
        // What is passed on is the leader's to write.
        let is_behind =
            if role == Role::Leader { self.is_behind() } else { self.unapplied_bytes > UNAPPLIED_BYTES_MAX };
        if is_behind || self.gathers(&status) {
            return false;
        }
        if self.passed_on.is_empty() {
            self.propose_batch();
        } else {
            self.propose_passed_on();
        }
        true
    }

    /// Whether proposals that are there wait for more.
    fn gathers(&mut self, status: &CoreStatus) -> bool {
        let batch = self.gathering.batch();
        self.gathering.holds(Sight {
            now: self.now,
            waiting: self.waiting(),
            unsynced: self.consensus.last_unsynced().filter(|_| status.role == Role::Leader),
            is_synced: batch.is_some_and(|batch| self.consensus.is_synced(batch)),
            is_settled: status.commit == status.last,
        })
    }

    /// Proposals that are not in the log.
    fn waiting(&self) -> usize {
        self.queue.len() + self.passed_on.len()
    }

    /// How many more proposals have to come before it is worth a turn of this machine's; `None` where each is.
    pub fn proposals_wanted(&self) -> Option<usize> {
        // Who is not asked again in time is woken for each.
        self.gathering.poll_timeout(self.now)?;
        self.gathering.wanted(self.waiting())
    }

    fn propose_passed_on(&mut self) {
        let (mut commands, mut bytes) = (Vec::new(), 0);
        while let Some(command) = self.passed_on.pop_front() {
            if bytes > 0 && bytes + command.len() > WAL_BATCH_BYTES {
                self.passed_on.push_front(command);
                break;
            }
            bytes += command.len();
            self.passed_on_bytes -= cost_of(&command);
            commands.push(command);
        }
        let count = commands.len();
        // What is dropped is as good as lost.
        if self.consensus.propose(self.now, commands).is_ok() {
            self.gathering.note_gone(self.now, count);
        }
    }

    fn propose_batch(&mut self) {
        let (mut ids, mut commands, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some((id, envelope)) = self.queue.pop_front() {
            if bytes > 0 && bytes + envelope.len() > WAL_BATCH_BYTES {
                self.queue.push_front((id, envelope));
                break;
            }
            bytes += envelope.len();
            ids.push(id);
            commands.push(envelope);
        }
        self.queue_bytes -= bytes;
        match self.consensus.propose(self.now, commands) {
            Ok(()) => self.note_appended(ids.len(), bytes),
            Err(_) => {
                for id in ids {
                    self.refuse(Request::Proposal(id), RefusedWhy::TooManyRequests);
                }
            }
        }
    }

    fn refuse_queue(&mut self, why: RefusedWhy) -> bool {
        self.leaderless_since = None;
        self.queue_bytes = 0;
        for (id, _) in std::mem::take(&mut self.queue) {
            self.refuse(Request::Proposal(id), why);
        }
        true
    }

    /// Only a leader knows where in the log its proposals are; forwarded ones count against the leader's bounds.
    fn note_appended(&mut self, count: usize, bytes: usize) {
        let status = self.consensus.status();
        if status.role == Role::Leader {
            self.gathering.note_gone(self.now, count);
            self.appended.push_back(Appended { last: status.last, count, bytes });
            self.appended_count += count;
            self.appended_bytes += bytes;
        }
    }

    /// What is committed no longer waits for consensus; what another leader may have overwritten neither.
    fn forget_settled(&mut self) {
        let status = self.consensus.status();
        let leads = status.role == Role::Leader;
        while self.appended.front().is_some_and(|front| !leads || front.last <= status.commit) {
            if let Some(settled) = self.appended.pop_front() {
                self.appended_count -= settled.count;
                self.appended_bytes -= settled.bytes;
            }
        }
    }

    /// Takes the next step towards the configuration that the state wants.
    fn reconcile(&mut self) {
        let Some(wanted) = self.membership.as_ref().filter(|_| !self.settled) else { return };
        if !self.consensus.takes_conf_change() {
            return;
        }
        let (consensus, me) = (&self.consensus, self.consensus.member());
        let conf = consensus.conf_state();
        self.settled = wanted.is_met_by(&conf);
        match next_step(&conf, wanted, me, &self.hand_over, |member| consensus.has_caught_up(member)) {
            // What is refused now is wanted again at the next turn.
            Some(Step::Change(change)) => drop(self.consensus.propose_conf_change(self.now, &change)),
            // There is a next turn even where nothing happens: a leader has its heartbeats.
            Some(Step::HandOver(to))
                if self.hand_over.may_try(self.now, to, self.consensus.hand_over_max()) =>
            {
                self.consensus.transfer_leader(self.now, to);
            }
            Some(Step::HandOver(_)) | None => {}
        }
    }

    /// Starts a round when reads wait and none is on its way, or when the one on its way got lost.
    fn ask_read_index(&mut self) -> bool {
        let status = self.consensus.status();
        if status.role == Role::Removed {
            return self.refuse_reads();
        }
        if !self.consensus.serves_reads() {
            return false;
        }
        let asked = self.leadership();
        let overdue = self.round.as_ref().is_some_and(|round| self.is_overdue(round));
        // A later round serves earlier reads as well.
        let (mut reads, mut requests) = match &mut self.round {
            None if self.joining.is_empty() && self.requested.is_empty() => return false,
            None => (Vec::new(), Vec::new()),
            Some(_) if !overdue => return false,
            Some(round) => (std::mem::take(&mut round.reads), std::mem::take(&mut round.requests)),
        };
        reads.append(&mut self.joining);
        requests.extend(self.requested.drain(..));
        requests.drain(..requests.len().saturating_sub(READ_REQUESTS_MAX));
        let id = self.consensus.start_read_round(self.now);
        self.round =
            Some(Round { id, reads, requests, began: self.now, retry_at: self.now + READ_RETRY, asked });
        true
    }

    /// Whether its request or its answer has got lost, as far as one can tell.
    fn is_overdue(&self, round: &Round) -> bool {
        round.asked != self.leadership() || self.now >= round.retry_at
    }

    /// Nobody waits for ever, whatever became of the leader or of the messages.
    fn expire_reads(&mut self) -> bool {
        let now = self.now;
        if self.oldest_read().is_none_or(|read| read.deadline > now) {
            return false;
        }
        let is_late = |read: &mut WaitingRead| read.deadline <= now;
        let mut late: Vec<WaitingRead> = Vec::new();
        if let Some(round) = &mut self.round {
            late.extend(round.reads.extract_if(.., is_late));
        }
        // Nobody is left who would care for its answer.
        self.round.take_if(|round| round.reads.is_empty() && round.requests.is_empty());
        late.extend(self.joining.extract_if(.., is_late));
        let leadership = self.leadership();
        for read in late {
            let found = leadership.0.is_some() && leadership != read.leadership;
            let why = if found { RefusedWhy::LeaderChanged } else { RefusedWhy::TimedOut };
            self.refuse(Request::Read(read.id), why);
        }
        true
    }

    fn oldest_read(&self) -> Option<&WaitingRead> {
        self.round.as_ref().and_then(|round| round.reads.first()).or(self.joining.first())
    }

    fn leadership(&self) -> Leadership {
        let status = self.consensus.status();
        (status.leader, status.term)
    }

    fn refuse_reads(&mut self) -> bool {
        let round = self.round.take().map(|round| round.reads).unwrap_or_default();
        let reads = [round, std::mem::take(&mut self.joining)].concat();
        let any = !reads.is_empty();
        for read in reads {
            self.refuse(Request::Read(read.id), RefusedWhy::Removed);
        }
        any
    }

    fn refuse(&mut self, request: Request, why: RefusedWhy) {
        self.outputs.push_back(CoreOutput::Refused { request, why });
    }
}

/// What a proposal that was passed on takes while it waits.
fn cost_of(command: &Bytes) -> usize {
    size_of::<Bytes>() + command.len()
}

/// What entries count against [`UNAPPLIED_BYTES_MAX`].
pub(super) fn bytes_of(entries: &[LogEntry]) -> usize {
    entries.iter().map(LogEntry::memory_bytes).sum()
}

#[cfg(test)]
#[path = "core_test.rs"]
mod tests;
