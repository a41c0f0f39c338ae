//! The way into a running node for everything that serves clients.
//!
//! Owns: admission (size, quota, how much may wait), the numbering of proposals and reads, and the promise that an answer comes
//! after the state it speaks of can be read. Must never: block a thread. Driven by `api` and `app`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_channel::oneshot;

use super::arrivals::Arrivals;
use super::checkpoint::CheckpointInput;
use super::clock::Clock;
use super::peers::Peers;
use super::space::Space;
use super::threads::{ApplierInput, CoreInput, Queues};
use super::watch::Watches;
use super::{Mailbox, Milestone, Pool, Urgency, Waiters};
use crate::command::{
    Alarm, AlarmAction, AlarmKind, Applied, Caller, CharterCommand, Command, Envelope, MemberAttributes,
    MemberCommand, Rejection, codec,
};
use crate::consensus::{CoreStatus, Role};
use crate::ids::{ClusterId, Digest, LogIndex, MemberId, ProposalId, Revision, Run, Term};
use crate::limits::{
    PROPOSALS_HEEDED_MAX, PROPOSALS_PENDING_BYTES_MAX, PROPOSALS_PENDING_MAX, READS_PENDING_MAX,
    REQUEST_TIMEOUT,
};
use crate::mvcc::{Facts, View, ViewCell, cost_of};
use crate::node::{ConfirmedReads, LeaseAnswer, ReadId};
use crate::prng::Prng;
use crate::store::{Base, StoreError};
use crate::time::Instant;
use crate::wal::{LogEntry, Position};

/// How often is looked whether facts have become what somebody waits for: changes of members, which are rare.
const FACTS_LOOK: Duration = Duration::from_millis(5);
/// How often is looked whether a start has replayed its log.
const REPLAY_LOOK: Duration = Duration::from_millis(5);
/// How often is proposed what nobody waits for, while users or roles change each time before it is applied.
pub(super) const UNHEARD_TRIES_MAX: u32 = 8;
/// Threads that read for clients where the disk may be waited for.
const POOL_THREADS: usize = 2;

/// Why a request was not served. Nothing is known of the effect of a write after `LeaderChanged`, `TimedOut` and `Stopped`; the
/// others have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// Too much waits already.
    #[error("too many requests")]
    TooManyRequests,
    /// The encoded request is larger than the setting allows.
    #[error("request is too large")]
    RequestTooLarge,
    /// The quota, or this leader's disk, has no room for the request.
    #[error("database space exceeded")]
    NoSpace,
    /// This member knows no leader.
    #[error("no leader")]
    NoLeader,
    /// Leadership moved while the request waited.
    #[error("leader changed")]
    LeaderChanged,
    /// No answer within the time that a request may take.
    #[error("request timed out")]
    TimedOut,
    /// The node is stopping.
    #[error("server stopped")]
    Stopped,
}

/// What a node says of itself right now.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// The cluster.
    pub cluster: ClusterId,
    /// This member.
    pub member: MemberId,
    /// The leader, where one is known.
    pub leader: Option<MemberId>,
    /// The current term.
    pub term: Term,
    /// The last index known to be committed.
    pub commit: LogIndex,
    /// The last entry in the log.
    pub last: Position,
    /// The last index whose effect can be read.
    pub applied: LogIndex,
    /// Size of the store's file in bytes.
    pub file_bytes: u64,
    /// Bytes that retained changes take, as the quota counts them.
    pub bytes_in_use: u64,
    /// The quota in bytes; `None` when there is no limit.
    pub quota: Option<u64>,
    /// The digest of what was applied, and up to which entry: two members that name the same entry must have the same.
    pub digest: (LogIndex, Digest),
    /// Whether this member does not vote.
    pub is_learner: bool,
}

impl NodeStatus {
    /// Whether this member leads, as far as it knows.
    pub fn leads(&self) -> bool {
        self.leader == Some(self.member)
    }

    /// The size of the data in bytes: of the file, and at least what is in use, of which a part is not folded into it yet.
    pub fn size_bytes(&self) -> u64 {
        self.file_bytes.max(self.bytes_in_use)
    }
}

/// A quota that nothing reaches.
const NO_QUOTA: u64 = u64::MAX;

/// What admission goes by.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionOptions {
    /// The largest encoded request in bytes.
    pub request_bytes: usize,
    /// The quota in bytes at first; `None` when there is no limit.
    pub quota: Option<u64>,
    /// Until when a cluster that formed by itself, and consists of this member alone, holds what users ask for first.
    pub hold_until: Option<Instant>,
}

/// Who this node is, for as long as it runs.
#[derive(Clone, Copy, Debug)]
pub struct NodeIds {
    /// The cluster.
    pub cluster: ClusterId,
    /// This member.
    pub member: MemberId,
    /// The random number of this start.
    pub boot_nonce: u64,
}

/// A cheap, cloneable reference to a running node.
#[derive(Clone)]
pub struct Handle(pub(super) Arc<Shared>);

/// What the handle shares with the node's threads.
pub(super) struct Shared {
    pub(super) ids: NodeIds,
    pub(super) admission: AdmissionOptions,
    /// That of now, in bytes; as many as there can be where there is no limit.
    quota: AtomicU64,
    pub(super) clock: Clock,
    pub(super) core: Mailbox<CoreInput>,
    pub(super) queues: Arc<Queues>,
    pub(super) views: Arc<ViewCell>,
    pub(super) proposals: Arc<Waiters<Result<Applied, ServeError>>>,
    pub(super) reads: Arc<Waiters<Result<(), ServeError>>>,
    /// Those of them that the core has not been told of.
    pub(super) arrivals: Arrivals,
    /// Those of them that know their index.
    pub(super) confirmed: Mutex<ConfirmedReads>,
    pub(super) leases: Arc<Waiters<Result<LeaseAnswer, ServeError>>>,
    /// Where ids come from that clients leave to us. Nobody needs to be kept from guessing them.
    pub(super) lease_ids: Mutex<Prng>,
    pub(super) compacted: Milestone,
    /// Is 1 once this member was removed.
    pub(super) removal: Milestone,
    /// Is 1 once another member has shown that this one's data directory is an old copy.
    pub(super) fencing: Milestone,
    /// Is 1 once this member's state is not to be trusted any more.
    pub(super) suspicion: Milestone,
    /// Whether others vote; see [`Handle::others_vote`].
    pub(super) others_vote: AtomicBool,
    /// Counts the changes of the members that can be read.
    pub(super) membership: Milestone,
    /// Counts the changes of the charter that can be read.
    pub(super) charter: Milestone,
    /// Counts the changes of the leader that this member knows.
    pub(super) leaders: Milestone,
    /// Counts the times that there was no leader for too long.
    pub(super) leader_losses: Milestone,
    pub(super) file_bytes: AtomicU64,
    pub(super) space: Arc<Space>,
    pub(super) status: Mutex<CoreStatus>,
    /// See [`CoreStatus::sole_voter`]; apart, since every read looks at it.
    pub(super) sole_voter: AtomicBool,
    /// See [`Handle::published_at`]; 0 before that.
    pub(super) published_at: AtomicU64,
    pub(super) pool: Pool,
    pub(super) watches: Watches,
    pub(super) peers: Peers,
    pub(super) sequence: AtomicU64,
    pub(super) pending_bytes: AtomicUsize,
    /// How many are held until another member has joined.
    pub(super) held: AtomicUsize,
}

/// Tells the core that reads wait, also where the first of them is given up.
struct WakeForReads<'a>(&'a Mailbox<CoreInput>);

impl Drop for WakeForReads<'_> {
    fn drop(&mut self) {
        drop(self.0.send(CoreInput::ReadsWait));
    }
}

/// What a proposal takes, counted against the bound until its caller has the answer or has gone.
struct Reserved<'a> {
    total: &'a AtomicUsize,
    amount: usize,
}

impl<'a> Reserved<'a> {
    fn of(total: &'a AtomicUsize, amount: usize, max: usize) -> Result<Self, ServeError> {
        let before = total.fetch_add(amount, Ordering::Relaxed);
        let reserved = Self { total, amount };
        if before + amount > max { Err(ServeError::TooManyRequests) } else { Ok(reserved) }
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.total.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

impl Handle {
    /// Replicates and applies a command; the answer comes once it is durable, committed, applied and readable here.
    ///
    /// A caller that goes away does not take the proposal back.
    pub async fn propose(&self, command: Command) -> Result<Applied, ServeError> {
        self.propose_for(None, command).await
    }

    /// As [`Handle::propose`], on behalf of somebody: the state refuses what they may not do, and says so where it has changed since it was found out who they are. Nothing has happened
    /// then, so that it can be found out and proposed once more.
    pub async fn propose_for(&self, caller: Option<Caller>, command: Command) -> Result<Applied, ServeError> {
        self.formed().await?;
        let cost = cost_of(&command);
        if cost > 0 {
            self.check_disk()?;
            if !self.has_room_for(cost) {
                self.raise_no_space().await;
                return Err(ServeError::NoSpace);
            }
        }
        self.submit(caller, command, self.0.admission.request_bytes).await
    }

    /// As [`Handle::propose`] on behalf of a user, for somebody who does not wait for an answer and would not mind if it never happened. Where users or roles have
    /// changed by the time it is applied, nothing has happened, and it is proposed again as of what they are then, `UNHEARD_TRIES_MAX` times in all; once where
    /// `PROPOSALS_HEEDED_MAX` proposals wait already.
    pub fn propose_unheard(&self, user: String, command: Command) {
        self.0.propose_unheard(user, command, 1);
    }

    /// Tells the cluster what this member is called and where it is found.
    pub async fn publish(&self, attributes: MemberAttributes) -> Result<Applied, ServeError> {
        let applied = self.submit(None, Command::Publish(attributes), usize::MAX).await?;
        // The answer comes from this member's own state, so that it has all that came before.
        if self.published_at().is_none() {
            self.0.published_at.store(self.view().applied().0, Ordering::Release);
        }
        Ok(applied)
    }

    /// The entry by which this member knew that the cluster knows of its run; `None` before that. Whatever any member has done at an earlier one may have been before this run began, and what is
    /// begun anywhere after it was not.
    pub fn published_at(&self) -> Option<LogIndex> {
        Some(LogIndex(self.0.published_at.load(Ordering::Acquire))).filter(|at| *at > LogIndex(0))
    }

    /// Waits until [`Handle::published_at`] says where, for as long as a request may take.
    pub async fn until_published(&self) -> Result<(), ServeError> {
        self.until_facts(|_| self.published_at().is_some()).await
    }

    /// Whether there is a state that may be shown. A node that joins has none before its cluster has sent it one, and one that is not to be trusted does not count.
    pub fn has_state(&self) -> bool {
        self.published_at().is_some() || {
            let view = self.view();
            !view.is_suspect() && view.facts().conf_state.names(self.0.ids.member)
        }
    }

    /// Whether the threads that everything waits for take their turns: the core is asked, and has the wal thread say so once all that came before is on
    /// disk. There is no answer while one of them hangs; `false` when the node stops.
    pub async fn pulse(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        self.0.core.send(CoreInput::Pulse(answer)).is_ok() && answered.await.is_ok()
    }

    /// The entries after `after`, committed or not, and where the log ends; of a log that begins later, or ends before, none.
    pub async fn log_after(&self, after: LogIndex) -> Result<(Vec<LogEntry>, Position), ServeError> {
        let (answer, answered) = oneshot::channel();
        self.0.core.send(CoreInput::LogAfter(after, answer)).map_err(|_| ServeError::Stopped)?;
        answered.await.map_err(|oneshot::Canceled| ServeError::Stopped)
    }

    /// Waits until the state has all of the log that this member knows to count. What it shows before that may be older than what it has shown in an earlier run.
    pub async fn replayed(&self) {
        let known = self.status().commit;
        // Of one that is suspect nothing is applied.
        while !self.view().is_suspect() && self.status().applied < known {
            smol::Timer::after(REPLAY_LOOK).await;
        }
    }

    /// The run of this member that the state knows of.
    fn noted_run(&self, facts: &Facts) -> Option<Run> {
        facts.members.iter().find(|member| member.id() == self.0.ids.member)?.run()
    }

    /// Resolves once the state says what this member has published, maybe in an earlier run. A leader is not needed for that.
    pub async fn introduced(&self) {
        loop {
            let changed = self.members_changed();
            if self.has_state() && self.noted_run(self.view().facts()).is_some() {
                return;
            }
            changed.await;
        }
    }

    /// Whether this member only listens, and has not had all of the state yet.
    pub fn is_catching_up(&self) -> bool {
        if self.published_at().is_some() {
            return false;
        }
        let (view, NodeIds { member, boot_nonce, .. }) = (self.view(), self.0.ids);
        // What it has said of itself in this run may have come with a state, before the answer.
        let said = self.noted_run(view.facts()).is_some_and(|run| run.boot_nonce == boot_nonce);
        !said && !view.facts().conf_state.voters.contains(&member)
    }

    /// Waits until the state that can be read says so, for as long as a request may take.
    pub async fn until_facts(&self, says: impl Fn(&Facts) -> bool) -> Result<(), ServeError> {
        let until = self.0.clock.now() + REQUEST_TIMEOUT;
        while !says(self.view().facts()) {
            if self.0.clock.now() >= until {
                return Err(ServeError::TimedOut);
            }
            smol::Timer::after(FACTS_LOOK).await;
        }
        Ok(())
    }

    /// Changes the members; nothing but the log stands in its way.
    pub async fn change_members(&self, command: MemberCommand) -> Result<Applied, ServeError> {
        self.change_members_for(None, command).await
    }

    /// As [`Handle::change_members`], on behalf of somebody.
    pub async fn change_members_for(
        &self,
        caller: Option<Caller>,
        command: MemberCommand,
    ) -> Result<Applied, ServeError> {
        self.submit(caller, Command::Member(command), usize::MAX).await
    }

    /// Changes the charter; nothing but the log stands in its way, and what users have to wait for.
    pub async fn change_charter(&self, command: CharterCommand) -> Result<Applied, ServeError> {
        self.submit(None, Command::Charter(command), usize::MAX).await
    }

    /// Waits until it is settled that the cluster stays. One that this node has founded alone, since it found nobody, may give itself up for one of those who
    /// were late, and what was written to it would be lost.
    async fn joined_by_another(&self) -> Result<(), ServeError> {
        let shared = &self.0;
        let Some(until) = shared.admission.hold_until.filter(|_| self.may_yield()) else { return Ok(()) };
        let _held = Reserved::of(&shared.held, 1, PROPOSALS_PENDING_MAX)?;
        loop {
            let (members, charter) = (shared.membership.value() + 1, shared.charter.value() + 1);
            if !self.may_yield() || shared.clock.now() >= until {
                return Ok(());
            }
            let changed = smol::future::or(shared.membership.wait(members), shared.charter.wait(charter));
            let late = async {
                smol::Timer::after(shared.clock.until(until)).await;
                true
            };
            if !smol::future::or(changed, late).await {
                return Err(ServeError::Stopped);
            }
        }
    }

    /// Whether this member is alone in a cluster that formed by itself and that no user has written to.
    fn may_yield(&self) -> bool {
        let view = self.0.views.load();
        let facts = view.facts();
        facts.charter.automatic && !facts.charter.committed && facts.members.len() <= 1
    }

    /// Waits until the cluster consists of those that it was founded for. Before that a write would have one copy.
    async fn formed(&self) -> Result<(), ServeError> {
        let until = self.0.clock.now() + REQUEST_TIMEOUT;
        loop {
            let changed = self.members_changed();
            if !self.0.views.load().facts().forming {
                return Ok(());
            }
            let late = async {
                smol::Timer::after(self.0.clock.until(until)).await;
                Err(ServeError::NoLeader)
            };
            let changed = async {
                changed.await;
                Ok(())
            };
            smol::future::or(changed, late).await?;
        }
    }

    /// Refuses what needs room on a disk that is nearly full, where this member leads: it could not let another one lead. No alarm is raised: the disk is this
    /// member's business, the others may have room, and nobody has to lift anything once there is some.
    fn check_disk(&self) -> Result<(), ServeError> {
        let shared = &self.0;
        if shared.space.wants_look(shared.clock.now()) {
            drop(shared.queues.checkpoint.send(CheckpointInput::Look));
        }
        if shared.space.is_short() && shared.leads() { Err(ServeError::NoSpace) } else { Ok(()) }
    }

    /// Whether there is too little room on the disk for puts, as of the last look.
    pub fn is_disk_short(&self) -> bool {
        self.0.space.is_short()
    }

    /// Bytes that something which can wait may write into this directory and leave the node what it needs of its disk; `None` where it needs nothing of that one. Waits for the disk.
    pub fn to_spare(&self, directory: &Path) -> Option<u64> {
        self.0.space.to_spare(directory)
    }

    /// Judges writes by this quota from now on.
    pub fn set_quota(&self, quota: Option<u64>) {
        self.0.quota.store(quota.unwrap_or(NO_QUOTA), Ordering::Relaxed);
        drop(self.0.queues.applier.send(ApplierInput::Quota(quota)));
    }

    /// From now on so many members are to vote, where this one leads and the cluster decides that.
    pub fn set_voters(&self, voters: usize) {
        drop(self.0.core.send(CoreInput::Voters(voters)));
    }

    fn has_room_for(&self, cost: u64) -> bool {
        let quota = self.0.quota.load(Ordering::Relaxed);
        let under_way = self.0.pending_bytes.load(Ordering::Relaxed) as u64;
        self.0.views.load().bytes_in_use() + under_way + cost < quota
    }

    async fn raise_no_space(&self) {
        let alarm = Alarm { member: self.0.ids.member, kind: AlarmKind::NoSpace };
        if !self.0.views.load().facts().alarms.contains(&alarm) {
            let raise = Command::Alarm { action: AlarmAction::QuotaReached, alarm };
            let raised = self.submit(None, raise, usize::MAX).await;
            if let Err(error) = raised {
                tracing::warn!(%error, "could not raise the NOSPACE alarm; the next refused write tries again");
            }
        }
    }

    async fn submit(
        &self,
        caller: Option<Caller>,
        command: Command,
        bytes_max: usize,
    ) -> Result<Applied, ServeError> {
        let shared = &self.0;
        let is_users = command.is_users();
        let Some((id, bytes)) = shared.encode(caller, command) else { return Ok(self.not_capable()) };
        if bytes.len() > bytes_max {
            return Err(ServeError::RequestTooLarge);
        }
        let _reserved = Reserved::of(&shared.pending_bytes, bytes.len(), PROPOSALS_PENDING_BYTES_MAX)?;
        if is_users {
            self.joined_by_another().await?;
        }
        let waiting = shared
            .proposals
            .register(id.seq, shared.clock.now(), PROPOSALS_PENDING_MAX)
            .ok_or(ServeError::TooManyRequests)?;
        let proposal = CoreInput::Propose { id, bytes };
        shared.core.send_with(Urgency::Joins(1), proposal).map_err(|_| ServeError::Stopped)?;
        waiting.await.unwrap_or(Err(ServeError::Stopped))
    }

    /// What the log would come to for a command that not all members understand: one of them would stop at its entry. The state may be old, but what it allows stays allowed.
    fn not_capable(&self) -> Applied {
        Applied { revision: self.view().revision(), outcome: Err(Rejection::NotCapable) }
    }

    /// Waits for a point at which [`Handle::view`] shows everything that was acknowledged anywhere before this call.
    pub async fn read_barrier(&self) -> Result<(), ServeError> {
        let shared = &self.0;
        // The only member acknowledges every write itself, and only after publishing it: any view taken from here on has it.
        if shared.sole_voter.load(Ordering::Acquire) {
            return Ok(());
        }
        let key = shared.sequence.fetch_add(1, Ordering::Relaxed);
        let waiting = shared
            .reads
            .register(key, shared.clock.now(), READS_PENDING_MAX)
            .ok_or(ServeError::TooManyRequests)?;
        let is_last = shared.arrivals.push(key).map_err(|_| ServeError::Stopped)?;
        if is_last {
            let wake = WakeForReads(&shared.core);
            // Whoever else has something to read right now comes first, and is in the same round.
            smol::future::yield_now().await;
            drop(wake);
        }
        waiting.await.unwrap_or(Err(ServeError::Stopped))
    }

    /// The newest published state.
    pub fn view(&self) -> Arc<View> {
        self.0.views.load()
    }

    /// Runs work that may wait for the disk or burn CPU on the node's pool of threads.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.0.pool.run(work).await
    }

    /// As [`Handle::blocking`] for work that is long: others have their turns between its slices, until one answers.
    pub async fn in_slices<T: Send + 'static>(&self, slice: impl FnMut() -> Option<T> + Send + 'static) -> T {
        self.0.pool.run_in_slices(slice).await
    }

    /// Waits until everything that the compaction to `revision` made superfluous has been removed from the store.
    pub async fn compaction_finished(&self, revision: Revision) -> Result<(), ServeError> {
        let target = u64::try_from(revision.0).unwrap_or(0);
        if self.0.compacted.wait(target).await { Ok(()) } else { Err(ServeError::Stopped) }
    }

    /// Resolves when the members that [`Handle::view`] names have changed since this call.
    pub fn members_changed(&self) -> impl Future<Output = ()> + Send + 'static {
        self.next_of(|shared| &shared.membership)
    }

    /// Resolves when the charter that [`Handle::view`] shows has changed since this call.
    pub fn charter_changed(&self) -> impl Future<Output = ()> + Send + 'static {
        self.next_of(|shared| &shared.charter)
    }

    /// Resolves when the leader that [`Handle::status`] names, or that there is none, has changed since this call.
    pub fn leader_changed(&self) -> impl Future<Output = ()> + Send + 'static {
        self.next_of(|shared| &shared.leaders)
    }

    fn next_of(&self, counts: fn(&Shared) -> &Milestone) -> impl Future<Output = ()> + Send + 'static {
        let shared = Arc::clone(&self.0);
        let next = counts(&shared).value() + 1;
        async move {
            if !counts(&shared).wait(next).await {
                // The node stops.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether there is a voter beside this member, as of the newest state; without a lock.
    pub fn others_vote(&self) -> bool {
        self.0.others_vote.load(Ordering::Relaxed)
    }

    /// Who this node is.
    pub fn ids(&self) -> NodeIds {
        self.0.ids
    }

    /// The current term: what every answer says, without the rest of [`Handle::status`].
    pub fn term(&self) -> Term {
        self.0.status.lock().unwrap_or_else(PoisonError::into_inner).term
    }

    /// What the node says of itself.
    pub fn status(&self) -> NodeStatus {
        let shared = &self.0;
        let core = *shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        let view = shared.views.load();
        NodeStatus {
            cluster: shared.ids.cluster,
            member: shared.ids.member,
            leader: core.leader,
            term: core.term,
            commit: core.commit,
            last: Position { index: core.last, term: core.last_term },
            applied: shared.lock_confirmed().applied(),
            file_bytes: shared.file_bytes.load(Ordering::Relaxed),
            bytes_in_use: view.bytes_in_use(),
            quota: Some(shared.quota.load(Ordering::Relaxed)).filter(|quota| *quota != NO_QUOTA),
            digest: (view.applied(), view.digest()),
            is_learner: view.facts().conf_state.learners.contains(&shared.ids.member),
        }
    }

    /// How many proposals wait for their answer.
    pub fn proposals_pending(&self) -> usize {
        self.0.proposals.len()
    }
}

impl Shared {
    /// What a node begins with: the state is that of its store, and nobody waits.
    pub(super) fn new(
        ids: NodeIds,
        admission: AdmissionOptions,
        clock: Clock,
        base: Arc<Base>,
        file_bytes: u64,
        space: Arc<Space>,
    ) -> Result<Self, StoreError> {
        let others_vote = base.meta().conf_state.others_vote(ids.member);
        let compacted = Milestone::default();
        compacted.reach(u64::try_from(base.meta().compaction_finished.0).unwrap_or(0));
        Ok(Self {
            ids,
            admission,
            quota: AtomicU64::new(admission.quota.unwrap_or(NO_QUOTA)),
            clock,
            core: Mailbox::default(),
            queues: Arc::default(),
            proposals: Arc::default(),
            reads: Arc::default(),
            arrivals: Arrivals::default(),
            confirmed: Mutex::new(ConfirmedReads::new(base.meta().applied)),
            leases: Arc::default(),
            lease_ids: Mutex::new(Prng::new(ids.boot_nonce)),
            views: Arc::new(ViewCell::new(View::of_base(base)?)),
            compacted,
            removal: Milestone::default(),
            fencing: Milestone::default(),
            suspicion: Milestone::default(),
            others_vote: AtomicBool::new(others_vote),
            membership: Milestone::default(),
            charter: Milestone::default(),
            leaders: Milestone::default(),
            leader_losses: Milestone::default(),
            file_bytes: AtomicU64::new(file_bytes),
            space,
            status: Mutex::new(CoreStatus::default()),
            sole_voter: AtomicBool::new(false),
            published_at: AtomicU64::new(0),
            pool: Pool::new(POOL_THREADS),
            watches: Watches::default(),
            peers: Peers::default(),
            sequence: AtomicU64::new(1),
            pending_bytes: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
        })
    }

    /// Keeps what the core says of itself for whoever asks.
    pub(super) fn set_core_status(&self, status: CoreStatus) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// Whether this member leads.
    pub(super) fn leads(&self) -> bool {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).role == Role::Leader
    }

    fn lock_confirmed(&self) -> MutexGuard<'_, ConfirmedReads> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These reads may look once the state has got to `index`.
    pub(super) fn confirm_reads(&self, reads: Vec<ReadId>, index: LogIndex) {
        let ready = self.lock_confirmed().confirm(reads, index);
        self.release(ready);
    }

    /// The state that can be read has got to `applied`.
    pub(super) fn reach_applied(&self, applied: LogIndex) {
        let ready = self.lock_confirmed().reach(applied);
        self.release(ready);
    }

    fn release(&self, reads: Vec<ReadId>) {
        self.reads.answer_batch(reads.into_iter().map(|read| (read.0, Ok(()))));
    }

    /// Shows this state to readers from now on.
    pub(super) fn publish(&self, view: View) {
        let before = self.views.load();
        let (old, new) = (before.facts(), view.facts());
        let others_vote = new.conf_state.others_vote(self.ids.member);
        let same = std::ptr::eq(old, new)
            || (old.forming, &old.members, &old.removed, &old.conf_state)
                == (new.forming, &new.members, &new.removed, &new.conf_state);
        let same_charter = Arc::ptr_eq(&old.charter, &new.charter);
        drop(before);
        self.views.publish(view);
        self.watches.poke();
        if !same {
            self.others_vote.store(others_vote, Ordering::Relaxed);
            self.membership.reach(self.membership.value() + 1);
        }
        if !same_charter {
            self.charter.reach(self.charter.value() + 1);
        }
    }

    /// Forgets reads whose callers were told otherwise or have gone.
    pub(super) fn forget_reads(&self) {
        self.lock_confirmed().retain(|read| self.reads.contains(read.0));
    }

    /// See [`Handle::propose_unheard`].
    fn propose_unheard(self: &Arc<Self>, user: String, command: Command, tries: u32) {
        let view = self.views.load();
        let auth = &view.facts().auth;
        let caller = auth.enabled.then(|| Caller { user: user.clone(), revision: auth.revision });
        let as_nobody = caller.is_none();
        let Some((id, bytes)) = self.encode(caller, command.clone()) else { return };
        if tries < UNHEARD_TRIES_MAX {
            // It may be kept for as long as what keeps it.
            let shared = Arc::downgrade(self);
            let heed = move |answer: Result<Applied, ServeError>| {
                let is_old = match answer.map(|applied| applied.outcome) {
                    Ok(Err(Rejection::AuthRevisionOld)) => true,
                    // Authentication is on since.
                    Ok(Err(Rejection::UserNameEmpty)) => as_nobody,
                    _ => false,
                };
                if is_old && let Some(shared) = shared.upgrade() {
                    shared.propose_unheard(user, command, tries + 1);
                }
            };
            self.proposals.heed(id.seq, self.clock.now(), PROPOSALS_HEEDED_MAX, heed);
        }
        if self.core.send_with(Urgency::Joins(1), CoreInput::Propose { id, bytes }).is_err() {
            self.proposals.answer(id.seq, Err(ServeError::Stopped));
        }
    }

    /// Numbers and encodes a command, and on whose behalf it is; nothing where not all members understand it.
    pub(super) fn encode(
        &self,
        caller: Option<Caller>,
        command: Command,
    ) -> Option<(ProposalId, bytes::Bytes)> {
        let seq = self.sequence.fetch_add(1, Ordering::Relaxed);
        let id = ProposalId { boot: self.ids.boot_nonce, seq };
        let bytes =
            codec::encode_for(&Envelope { id, caller, command }, || self.views.load().facts().commands)?;
        Some((id, bytes))
    }
}
