//! One run of a member: the real core, applier, log and store, with the threads of `runtime` played by turns.
//!
//! Owns: the mailboxes between the threads, and which machine of `node` gets what is in them. Must never: decide anything that production code decides. Driven by `world`, one
//! thread's turn per event; dropped when the process or the machine dies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use covey::command::codec::encode;
use covey::command::{Alarm, AlarmAction, AlarmKind, Applied, Command, Envelope};
use covey::consensus::{CoreStatus, Message, Pace, PersistId, Role, SnapshotMark};
use covey::disk::sim::SimDir;
use covey::formation::{DataDir, Identity};
use covey::ids::{LogIndex, MemberId, ProposalId, Revision, Run, Term};
use covey::mvcc::{View, cost_of};
use covey::node::{
    Applier, ApplierOutput, CheckpointJob, CheckpointOutput, CheckpointWork, Checkpointer, ConfirmedReads,
    Core, CoreOutput, LeaseAnswer, LeaseRequest, LogJob, LogWriter, Membership, ReadId, Recovery, RefusedWhy,
    Request, TransferMessage, TransferOutcome, recover,
};
use covey::prng::Prng;
use covey::store::{self, Base, ConfState, Doomed, ScrubCursor, StoreError, SweepStep};
use covey::time::Instant;
use covey::wal::{HardState, LogEntry, Position};
use covey::watch::{Hub, Input, Limits, Options};

use crate::disk::{Refused, chain};
use crate::logs::LogEvent;
use crate::plan::{Growing, Timing};

mod standing;

pub(crate) use standing::Standing;

/// Small enough for short histories to meet every bound.
const HUB: Options = Options {
    progress_interval: Duration::from_secs(2),
    limits: Limits {
        stream_responses: 4,
        stream_bytes: 4000,
        queued_bytes: 10_000,
        slice_revisions: 6,
        slice_rows: 10,
        slice_watchers: 4,
        slice_bytes: 3000,
        scarce_slice_bytes: 300,
        small_bytes: 900,
    },
};

/// The threads of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Thread {
    Core,
    Applier,
    /// The second half of the applier thread's turn: the end of a batch.
    Applied,
    Wal,
    /// The second half of the wal thread's turn: the sync after the write.
    WalSync,
    Checkpoint,
    Watch,
}

/// What a turn asks of the world.
pub(crate) enum Effect {
    /// Give this thread a turn after this long.
    Turn(Thread, Duration),
    /// Give this thread a turn at this time of the member's clock, if nothing else has until then.
    Timer(Thread, Instant),
    /// In this term, entries are handed to the state.
    Committed(Term, Vec<LogEntry>),
    Log(LogEvent),
    /// It begins to send this member its state.
    Serves(MemberId),
    Replied(ProposalId, Applied),
    Refused(Request, RefusedWhy),
    /// The barrier of this read has passed: the view taken now may be answered from.
    Readable(u64),
    Send(Vec<Message>),
    /// Of a transfer.
    Transfer(MemberId, TransferMessage),
    /// Another member's state has taken the place of this one's.
    Installed,
    /// Its part in the cluster, or what it knows of it, has changed.
    Standing,
    /// Its disk answers nothing any more; whether it has asked another member to lead.
    DiskStuck(bool),
    /// A fold or a slice of compaction is in the store.
    Stored,
    /// An entry that deletes much is left to the store; whether leases end by it.
    Swept {
        leases: bool,
    },
    /// Answers to requests about leases.
    Leased(Vec<(u64, LeaseAnswer)>),
    /// It leads in this term, whose first entry is in its state.
    Led(Term, Arc<View>),
    /// The applier thread does nothing else for this long.
    Applying(Duration),
}

pub(crate) type Effects = Vec<Effect>;

enum CoreInput {
    Propose(ProposalId, Bytes),
    Read(u64),
    Message(Message),
    Persisted(PersistId),
    Applied(LogIndex, usize),
    ConfChange(LogEntry),
    Membership(Membership),
    Checkpointed(LogIndex),
    Transferred(MemberId, TransferOutcome),
    Staged(SnapshotMark),
    Contested,
    Installed(Position),
}

enum ApplierInput {
    Entries(Vec<LogEntry>),
    ConfState(LogIndex, ConfState),
    Folded(Arc<Base>),
    Compacted(Arc<Base>),
    Installed(Arc<Base>),
    FoldWish,
    Leads(Option<Term>),
    Lease(u64, LeaseRequest),
}

/// Which turns are on their way, so that none is asked for twice.
#[derive(Default)]
struct Turns {
    due: BTreeSet<Thread>,
    timers: BTreeMap<Thread, Instant>,
}

/// A member that runs.
pub(crate) struct Member {
    core: Core,
    applier: Applier,
    log: LogWriter<SimDir>,
    checkpointer: Checkpointer<SimDir>,
    /// From when raft took a snapshot until the state has begun anew from it.
    installing: bool,
    identity: Identity,
    quota: u64,
    timing: Timing,
    grows: Option<Growing>,
    prng: Prng,
    hub: Hub,
    /// The hub has not seen yet that the state has begun anew.
    installed_unseen: bool,
    /// Its state is not to be trusted, so that it serves nobody.
    suspect: bool,
    for_hub: Vec<Input>,
    /// Apart, so that watchers do not change what happens beside them.
    hub_prng: Prng,
    sequence: u64,
    for_core: Vec<CoreInput>,
    for_applier: Vec<ApplierInput>,
    for_wal: Vec<LogJob>,
    for_checkpoint: Vec<CheckpointJob>,
    /// The wal thread waits for a sync.
    syncing: bool,
    /// What the applier thread shows once it is done with its batch.
    applying: Option<View>,
    /// The last entry that the log had at the start, and how long entries up to it may still take.
    replay: (LogIndex, Duration),
    turns: Turns,
    view: Arc<View>,
    sole_voter: bool,
    status: CoreStatus,
    confirmed: ConfirmedReads,
    /// The last index that a successful sync covered.
    synced: LogIndex,
    /// What a successful sync covered of the hard state.
    durable: HardState,
    /// The thread that has failed, and why.
    pub(crate) failed: Option<(Thread, String)>,
}

impl Member {
    pub(crate) fn start(
        now: Instant,
        opened: DataDir<SimDir>,
        quota: u64,
        timing: Timing,
        (pace, grows): (Pace, Option<Growing>),
        mut prng: Prng,
        effects: &mut Effects,
    ) -> Result<Self, Refused> {
        let DataDir { identity, root, store, wal, recovered, .. } = opened;
        let base = Arc::new(store.base().map_err(|error| chain(&error))?);
        let synced = recovered.last().index;
        effects.push(Effect::Log(LogEvent::Opened {
            promised: recovered.hard_state,
            start: recovered.start,
            entries: recovered.entries.clone(),
        }));
        let replay = (synced, timing.replay(&mut prng));
        let recovery = Recovery {
            member: identity.member,
            boot_nonce: identity.boot_nonce,
            base: Arc::clone(&base),
            hard_state: recovered.hard_state,
            log_start: recovered.start,
            entries: recovered.entries,
            quota_bytes: Some(quota),
            pace,
            prng: prng.fork(),
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let (mut core, mut applier) = recover(now, recovery, &logger).map_err(|error| chain(&error))?;
        applier.set_overlay_bytes(timing.overlay_bytes);
        let applied = store.meta().applied;
        core.set_log_tail_bytes(timing.log_tail_bytes);
        if let Some(Growing { policy, .. }) = grows {
            core.set_vote_policy(policy);
        }
        let mut checkpointer = Checkpointer::new(now, store, root, identity.member, identity.boot_nonce);
        checkpointer.set_slice(timing.slice);
        checkpointer.set_piece_bytes(timing.piece_bytes);
        let mut member = Self {
            core,
            applier,
            log: LogWriter::new(wal),
            checkpointer,
            installing: false,
            quota,
            timing,
            grows,
            prng,
            hub: Hub::new(HUB, Prng::new(identity.boot_nonce)),
            installed_unseen: false,
            suspect: base.is_suspect(),
            for_hub: Vec::new(),
            hub_prng: Prng::new(identity.boot_nonce),
            identity,
            sequence: 0,
            for_core: Vec::new(),
            for_applier: Vec::new(),
            for_wal: Vec::new(),
            for_checkpoint: Vec::new(),
            syncing: false,
            applying: None,
            replay,
            turns: Turns::default(),
            view: Arc::new(View::of_base(base).map_err(|error| chain(&error))?),
            sole_voter: false,
            status: CoreStatus::default(),
            confirmed: ConfirmedReads::new(applied),
            synced,
            durable: recovered.hard_state,
            failed: None,
        };
        member.wake(Thread::Core, effects);
        member.wake(Thread::Applier, effects);
        member.set_timer(Thread::Checkpoint, Some(member.checkpointer.poll_timeout()), effects);
        Ok(member)
    }

    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view)
    }

    /// Checks all rows of the store against their checksums and against each other.
    pub(crate) fn scrub(&self) -> Result<(), StoreError> {
        let base = self.checkpointer.store().base()?;
        let mut cursor = Some(ScrubCursor::default());
        while let Some(from) = cursor {
            cursor = base.scrub_slice(from, 100)?.next;
        }
        Ok(())
    }

    /// Nothing takes long any more.
    pub(crate) fn calm_down(&mut self, effects: &mut Effects) {
        self.timing.calm_down();
        self.replay.1 = Duration::ZERO;
        if self.applying.is_some() {
            effects.push(Effect::Turn(Thread::Applied, Duration::ZERO));
        }
    }

    /// Where it stands, for whoever looks into a failure.
    pub(crate) fn described(&self) -> String {
        let CoreStatus { role, leader, term, .. } = self.status;
        let (applied, conf) = (self.view.applied(), &self.view.facts().conf_state);
        format!("{role:?} in {term}, led by {leader:?}, at {applied}, {conf:?}")
    }

    pub(crate) fn id(&self) -> MemberId {
        self.identity.member
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The run of a member that the store names.
    pub(crate) fn stored_run(&self, of: MemberId) -> Option<Run> {
        let members = &self.checkpointer.store().meta().members;
        members.iter().find(|member| member.id() == of).and_then(store::Member::run)
    }

    /// Whether clients are let in.
    pub(crate) fn serves(&self) -> bool {
        self.failed.is_none() && !self.suspect
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect
    }

    pub(crate) fn has_leader(&self) -> bool {
        self.status.leader.is_some()
    }

    /// The term in which it leads.
    pub(crate) fn leads_in(&self) -> Option<Term> {
        let status = self.core.status();
        (status.role == Role::Leader).then_some(status.term)
    }

    pub(crate) fn leads(&self) -> bool {
        self.status.role == Role::Leader
    }

    /// As `Handle::propose`: admission, then a number and the way to the core. `None` when there is no room.
    pub(crate) fn propose(&mut self, command: &Command, effects: &mut Effects) -> Option<ProposalId> {
        let cost = cost_of(command);
        if cost > 0 && self.view.bytes_in_use() + cost >= self.quota {
            let alarm = Alarm { member: self.identity.member, kind: AlarmKind::NoSpace };
            if !self.view.facts().alarms.contains(&alarm) {
                self.submit(&Command::Alarm { action: AlarmAction::QuotaReached, alarm }, effects);
            }
            return None;
        }
        Some(self.submit(command, effects))
    }

    fn submit(&mut self, command: &Command, effects: &mut Effects) -> ProposalId {
        self.sequence += 1;
        let id = ProposalId { boot: self.identity.boot_nonce, seq: self.sequence };
        let bytes = encode(&Envelope { id, caller: None, command: command.clone() });
        self.tell_core(CoreInput::Propose(id, bytes), effects);
        id
    }

    /// The second half of `Handle::ask_leader`: what comes after the barrier.
    pub(crate) fn ask_lease(&mut self, number: u64, request: LeaseRequest, effects: &mut Effects) {
        self.tell_applier(ApplierInput::Lease(number, request), effects);
    }

    /// As `Handle::read_barrier`, whose shortcut for a lone voter is only taken where asked for.
    pub(crate) fn read(&mut self, shortcut: bool, effects: &mut Effects) -> u64 {
        self.sequence += 1;
        let key = self.sequence;
        if shortcut && self.sole_voter {
            effects.push(Effect::Readable(key));
        } else {
            self.tell_core(CoreInput::Read(key), effects);
        }
        key
    }

    pub(crate) fn deliver_transfer(
        &mut self,
        from: MemberId,
        message: TransferMessage,
        effects: &mut Effects,
    ) {
        self.tell_checkpoint(CheckpointJob::Receive(from, message), effects);
    }

    pub(crate) fn deliver(&mut self, message: Message, effects: &mut Effects) {
        self.tell_core(CoreInput::Message(message), effects);
    }

    /// A thread's turn. An error ends the thread for good; nothing of it is acknowledged afterwards.
    pub(crate) fn turn(
        &mut self,
        now: Instant,
        thread: Thread,
        timer: bool,
        effects: &mut Effects,
    ) -> Result<(), String> {
        if timer {
            if self.turns.timers.remove(&thread).is_none() {
                return Ok(());
            }
        } else {
            self.turns.due.remove(&thread);
        }
        let whole = match thread {
            Thread::WalSync => Thread::Wal,
            Thread::Applied => Thread::Applier,
            _ => thread,
        };
        if self.failed.as_ref().is_some_and(|(failed, _)| *failed == whole) {
            return Ok(());
        }
        let done = match thread {
            Thread::Core => self.core_turn(now, effects),
            Thread::Applier => self.applier_turn(now, effects),
            Thread::Applied => self.applied(now, effects),
            Thread::Wal => self.wal_turn(effects),
            Thread::WalSync => self.wal_sync(effects),
            Thread::Checkpoint => self.checkpoint_turn(now, effects),
            Thread::Watch => self.watch_turn(now, effects),
        };
        done.inspect_err(|why| self.failed = Some((whole, why.clone())))
    }

    fn wake(&mut self, thread: Thread, effects: &mut Effects) {
        let delay = self.timing.hop(&mut self.prng);
        self.wake_after(thread, delay, effects);
    }

    fn wake_after(&mut self, thread: Thread, delay: Duration, effects: &mut Effects) {
        if self.turns.due.insert(thread) {
            effects.push(Effect::Turn(thread, delay));
        }
    }

    /// Asks for a turn at a deadline. An earlier timer that is on its way looks at the deadline again when it comes.
    fn set_timer(&mut self, thread: Thread, deadline: Option<Instant>, effects: &mut Effects) {
        let Some(deadline) = deadline else { return };
        if self.turns.timers.get(&thread).is_none_or(|earlier| *earlier > deadline) {
            self.turns.timers.insert(thread, deadline);
            effects.push(Effect::Timer(thread, deadline));
        }
    }

    fn tell_core(&mut self, input: CoreInput, effects: &mut Effects) {
        self.for_core.push(input);
        self.wake(Thread::Core, effects);
    }

    fn tell_applier(&mut self, input: ApplierInput, effects: &mut Effects) {
        self.for_applier.push(input);
        self.wake(Thread::Applier, effects);
    }

    fn tell_wal(&mut self, job: LogJob, effects: &mut Effects) {
        self.for_wal.push(job);
        self.wake(Thread::Wal, effects);
    }
}

/// The watch thread.
impl Member {
    pub(crate) fn tell_hub(&mut self, input: Input, effects: &mut Effects) {
        self.for_hub.push(input);
        self.wake_hub(effects);
    }

    /// Now and then its thread is kept from running while all that comes with a compaction is done.
    fn wake_hub(&mut self, effects: &mut Effects) {
        let prng = &mut self.hub_prng;
        let delay = if prng.one_in(10) { self.timing.fold(prng) * 5 } else { self.timing.hop(prng) };
        self.wake_after(Thread::Watch, delay, effects);
    }

    fn watch_turn(&mut self, now: Instant, effects: &mut Effects) -> Result<(), String> {
        let inputs = std::mem::take(&mut self.for_hub);
        let lacking = self.view.complete_from();
        let complete = self.installed_unseen || !self.hub.needs(Revision(lacking.0 - 1));
        assert!(complete, "up to {lacking} was removed before watchers were told");
        self.installed_unseen = false;
        // Clients look by themselves, early or late.
        let busy = self.hub.turn(now, &self.view, inputs, drop).map_err(|error| chain(&error))?;
        if busy {
            self.wake_hub(effects);
        }
        if self.checkpointer.wants_to_remove() {
            let delay = self.timing.hop(&mut self.hub_prng);
            self.wake_after(Thread::Checkpoint, delay, effects);
        }
        self.set_timer(Thread::Watch, self.hub.poll_timeout(), effects);
        Ok(())
    }
}

/// The core thread.
impl Member {
    fn core_turn(&mut self, now: Instant, effects: &mut Effects) -> Result<(), String> {
        for input in std::mem::take(&mut self.for_core) {
            match input {
                CoreInput::Propose(id, bytes) => self.core.handle_proposal(now, id, bytes),
                CoreInput::Read(key) => self.core.handle_read(now, ReadId(key)),
                // A message that is refused is as good as lost.
                CoreInput::Message(message) => drop(self.core.handle_message(now, message)),
                CoreInput::Persisted(id) => self.core.handle_persisted(now, id),
                CoreInput::Applied(index, bytes) => self.core.handle_applied(now, index, bytes),
                CoreInput::Membership(membership) => self.core.handle_membership(now, membership),
                CoreInput::Checkpointed(index) => self.core.handle_checkpointed(now, index),
                CoreInput::Transferred(to, outcome) => self.core.handle_transfer(now, to, outcome),
                CoreInput::Staged(mark) => self.core.handle_staged(now, mark),
                CoreInput::Contested => self.core.handle_contest(now),
                CoreInput::Installed(position) => self.core.handle_installed(now, position),
                CoreInput::ConfChange(entry) => {
                    let conf_state =
                        self.core.apply_conf_change(now, &entry).map_err(|error| chain(&error))?;
                    if let Some(conf_state) = conf_state {
                        self.tell_applier(ApplierInput::ConfState(entry.index, conf_state), effects);
                    }
                }
            }
        }
        if self.core.poll_timeout().is_some_and(|at| at <= now) {
            self.core.handle_timeout(now);
        }
        while let Some(output) = self.core.poll_output() {
            self.carry_out_core(output, effects);
        }
        effects.push(Effect::Log(LogEvent::Ends(self.core.status().last)));
        self.set_timer(Thread::Core, self.core.poll_timeout(), effects);
        Ok(())
    }

    fn carry_out_core(&mut self, output: CoreOutput, effects: &mut Effects) {
        match output {
            CoreOutput::Persist(persist) => {
                effects.push(Effect::Log(LogEvent::Appended(persist.entries.clone())));
                self.tell_wal(LogJob::Persist(persist), effects);
            }
            CoreOutput::ResetLog { to } => {
                effects.push(Effect::Log(LogEvent::Reset(to)));
                self.tell_wal(LogJob::Reset { to }, effects);
            }
            CoreOutput::Store(job) => {
                if let CheckpointJob::Serve { to, .. } = &job {
                    effects.push(Effect::Serves(*to));
                }
                if matches!(job, CheckpointJob::Install(_)) {
                    self.installing = true;
                    effects.push(Effect::Log(LogEvent::Installing));
                }
                self.tell_checkpoint(job, effects);
            }
            CoreOutput::CutLog { before } => self.tell_wal(LogJob::Cut { before }, effects),
            CoreOutput::FoldSoon => self.tell_applier(ApplierInput::FoldWish, effects),
            CoreOutput::Apply(entries) => {
                effects.push(Effect::Committed(self.core.status().term, entries.clone()));
                self.tell_applier(ApplierInput::Entries(entries), effects);
            }
            CoreOutput::ReadReady(reads, index) => release(self.confirmed.confirm(reads, index), effects),
            CoreOutput::Refused { request, why } => effects.push(Effect::Refused(request, why)),
            CoreOutput::Send(messages) => effects.push(Effect::Send(messages)),
            CoreOutput::DiskStuck { heir, .. } => effects.push(Effect::DiskStuck(heir.is_some())),
            CoreOutput::Status(status) => {
                let leads = status.role == Role::Leader;
                let leads_in = |status: &CoreStatus| (status.role == Role::Leader).then_some(status.term);
                if leads_in(&status) != leads_in(&self.status) {
                    self.tell_applier(ApplierInput::Leads(leads_in(&status)), effects);
                }
                if (leads, status.sole_voter) != (self.leads(), self.sole_voter) {
                    effects.push(Effect::Standing);
                }
                self.sole_voter = status.sole_voter;
                self.status = status;
            }
        }
    }
}

fn release(reads: Vec<ReadId>, effects: &mut Effects) {
    effects.extend(reads.into_iter().map(|read| Effect::Readable(read.0)));
}

/// The applier thread.
impl Member {
    fn applier_turn(&mut self, now: Instant, effects: &mut Effects) -> Result<(), String> {
        if self.applying.is_some() {
            return Ok(());
        }
        for input in std::mem::take(&mut self.for_applier) {
            match input {
                ApplierInput::Entries(entries) => self.applier.handle_entries(now, entries),
                ApplierInput::ConfState(index, conf_state) => {
                    self.applier.apply_conf_state(now, index, conf_state);
                }
                ApplierInput::Folded(base) => self.applier.handle_folded(now, base),
                ApplierInput::Compacted(base) => self.applier.handle_compacted(now, base),
                ApplierInput::Installed(base) => {
                    self.applier.handle_installed(now, base).map_err(|error| chain(&error))?;
                    self.installing = false;
                    self.installed_unseen = true;
                    effects.push(Effect::Installed);
                }
                ApplierInput::FoldWish => self.applier.handle_fold_wish(now),
                ApplierInput::Leads(leads_in) => self.applier.handle_leadership(now, leads_in),
                ApplierInput::Lease(number, request) => {
                    self.applier.handle_lease_request(now, number, request);
                }
            }
        }
        if self.applier.poll_timeout().is_some_and(|at| at <= now) {
            self.applier.handle_timeout(now);
        }
        self.go_on_applying(now, effects)
    }

    /// Until a batch takes some time; what it comes to is shown at the end of that.
    fn go_on_applying(&mut self, now: Instant, effects: &mut Effects) -> Result<(), String> {
        while let Some(output) = self.applier.poll_output(now).map_err(|error| chain(&error))? {
            match output {
                // A state that came whole is shown at once.
                ApplierOutput::Publish(view)
                    if view.applied() > self.view.applied() && !self.installed_unseen =>
                {
                    let time = self.time_to_apply(&view);
                    self.applying = Some(view);
                    effects.push(Effect::Applying(time));
                    self.wake_after(Thread::Applied, time, effects);
                    return Ok(());
                }
                output => self.carry_out_applier(output, effects),
            }
        }
        self.set_timer(Thread::Applier, self.applier.poll_timeout(), effects);
        if !self.for_applier.is_empty() {
            self.wake(Thread::Applier, effects);
        }
        Ok(())
    }

    fn applied(&mut self, now: Instant, effects: &mut Effects) -> Result<(), String> {
        if let Some(view) = self.applying.take() {
            self.carry_out_applier(ApplierOutput::Publish(view), effects);
        }
        self.go_on_applying(now, effects)
    }

    fn time_to_apply(&mut self, view: &View) -> Duration {
        let (last, left) = &mut self.replay;
        if left.is_zero() {
            return self.timing.apply(&mut self.prng);
        }
        // A log that is applied in one go takes all of the time, whatever comes behind it in the same batch; of several batches each takes a part.
        let time = if view.applied() >= *last { *left } else { *left / 2 };
        *left -= time;
        time
    }

    fn carry_out_applier(&mut self, output: ApplierOutput, effects: &mut Effects) {
        match output {
            ApplierOutput::Publish(view) => {
                let renewed = self.suspect && self.installed_unseen;
                assert!(view.applied() >= self.view.applied(), "views move forward");
                assert!(renewed || view.revision() >= self.view.revision(), "revisions move forward");
                self.view = Arc::new(view);
                self.suspect &= !renewed;
                if self.leads() && self.view.applied_term() == self.status.term {
                    effects.push(Effect::Led(self.status.term, self.view()));
                }
                // Nobody watches there.
                if !self.suspect {
                    self.tell_hub(Input::NewView, effects);
                }
            }
            ApplierOutput::Replies(replies) => {
                effects.extend(replies.into_iter().map(|(id, applied)| Effect::Replied(id, applied)));
            }
            ApplierOutput::Applied { index, bytes, awaited } => {
                release(self.confirmed.reach(index), effects);
                self.for_core.push(CoreInput::Applied(index, bytes));
                if awaited {
                    self.wake(Thread::Core, effects);
                }
            }
            ApplierOutput::ConfChange(entry) => self.tell_core(CoreInput::ConfChange(entry), effects),
            ApplierOutput::Membership(mut membership) => {
                if let Some(Growing { committed, .. }) = self.grows {
                    (membership.automatic, membership.committed) = (true, committed);
                }
                self.tell_core(CoreInput::Membership(membership), effects);
            }
            ApplierOutput::Fold(batch) => {
                if let Some(sweep) = &batch.sweep {
                    let attached = |step: &SweepStep| {
                        matches!(step, SweepStep::Delete { keys: Doomed::Attached(_), .. })
                    };
                    effects.push(Effect::Swept { leases: sweep.steps.iter().any(attached) });
                }
                self.tell_checkpoint(CheckpointJob::Fold(batch), effects);
            }
            ApplierOutput::CompactStart => self.tell_checkpoint(CheckpointJob::Compact, effects),
            ApplierOutput::Propose(command) => drop(self.submit(&command, effects)),
            ApplierOutput::LeaseAnswers(answers) => effects.push(Effect::Leased(answers)),
        }
    }

    fn tell_checkpoint(&mut self, job: CheckpointJob, effects: &mut Effects) {
        let folds = matches!(job, CheckpointJob::Fold(_) | CheckpointJob::Install(_));
        self.for_checkpoint.push(job);
        let delay = if folds { self.timing.fold(&mut self.prng) } else { self.timing.sync(&mut self.prng) };
        self.wake_after(Thread::Checkpoint, delay, effects);
    }
}

/// The wal thread.
impl Member {
    fn wal_turn(&mut self, effects: &mut Effects) -> Result<(), String> {
        if self.syncing {
            return Ok(());
        }
        for job in std::mem::take(&mut self.for_wal) {
            self.log.handle(job);
        }
        self.write_next(effects)
    }

    fn write_next(&mut self, effects: &mut Effects) -> Result<(), String> {
        let written = match self.log.write() {
            // As the thread does: what the log need not keep is used, and then what waits goes on waiting.
            Err(error) if error.is_full() => {
                self.log.make_room().map_err(|error| chain(&error))?;
                let delay = self.timing.sync(&mut self.prng);
                self.wake_after(Thread::Wal, delay, effects);
                return Ok(());
            }
            written => written.map_err(|error| chain(&error))?,
        };
        if written {
            self.syncing = true;
            let delay = self.timing.sync(&mut self.prng);
            self.wake_after(Thread::WalSync, delay, effects);
        } else if !self.for_wal.is_empty() || self.log.rest().map_err(|error| chain(&error))? {
            self.wake(Thread::Wal, effects);
        }
        Ok(())
    }

    fn wal_sync(&mut self, effects: &mut Effects) -> Result<(), String> {
        let durable = self.log.sync().map_err(|error| chain(&error))?;
        self.syncing = false;
        self.synced = self.log.last().index;
        let (start, last) = (self.log.start(), self.log.last());
        self.durable = self.log.hard_state();
        effects.push(Effect::Log(LogEvent::Synced { promised: self.durable, start, last }));
        if let Some(id) = durable {
            self.tell_core(CoreInput::Persisted(id), effects);
        }
        self.write_next(effects)
    }
}

/// The checkpoint thread.
impl Member {
    fn checkpoint_turn(&mut self, now: Instant, effects: &mut Effects) -> Result<(), String> {
        for job in std::mem::take(&mut self.for_checkpoint) {
            self.checkpointer.handle(now, job).map_err(|error| chain(&error))?;
        }
        while let Some(work) = self.work_on_store(now)? {
            if !matches!(work, CheckpointWork::Scrub { .. }) {
                effects.push(Effect::Stored);
            }
            while let Some(output) = self.checkpointer.poll_output() {
                self.carry_out_checkpoint(output, effects);
            }
        }
        self.set_timer(Thread::Checkpoint, Some(self.checkpointer.poll_timeout()), effects);
        Ok(())
    }

    fn work_on_store(&mut self, now: Instant) -> Result<Option<CheckpointWork>, String> {
        let compacted = self.checkpointer.store().meta().compacted;
        self.checkpointer.hold_removal(self.hub.needs(compacted));
        self.checkpointer.work(now).map_err(|error| chain(&error))
    }

    fn carry_out_checkpoint(&mut self, output: CheckpointOutput, effects: &mut Effects) {
        match output {
            CheckpointOutput::Folded(base) => self.tell_applier(ApplierInput::Folded(base), effects),
            CheckpointOutput::Checkpointed(applied) => {
                self.tell_core(CoreInput::Checkpointed(applied), effects);
            }
            CheckpointOutput::Compacted(base) => self.tell_applier(ApplierInput::Compacted(base), effects),
            CheckpointOutput::Send(to, message) => effects.push(Effect::Transfer(to, message)),
            CheckpointOutput::Transferred(to, outcome) => {
                self.tell_core(CoreInput::Transferred(to, outcome), effects);
            }
            CheckpointOutput::Staged(mark) => self.tell_core(CoreInput::Staged(mark), effects),
            CheckpointOutput::Contested => self.tell_core(CoreInput::Contested, effects),
            CheckpointOutput::Installed(base) => {
                let meta = base.meta();
                let position = Position { index: meta.applied, term: meta.applied_term };
                self.tell_applier(ApplierInput::Installed(base), effects);
                self.tell_core(CoreInput::Installed(position), effects);
            }
            // Nobody waits for it here.
            CheckpointOutput::Removed(_) => {}
        }
    }
}
