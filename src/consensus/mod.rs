//! Raft as a sans-io machine: one member's part in agreeing on the log.
//!
//! Owns: the raft crate, and what has to be true around it: randomness and time come from outside, a peer cannot make it
//! panic, nothing of its state leaves before it is on disk. Must never: touch disk, socket or clock, or let a raft
//! type out of this room. Driven by `node::Core`.
//!
//! # Contract
//!
//! Every call that takes `now` first counts the ticks that have passed since the last one. After each call,
//! [`Consensus::poll_ready`] until it returns `None`. A [`Persist`] goes to the disk, in order, and its id comes back through
//! [`Consensus::handle_persisted`] once it is synced: ids are cumulative, one answer stands for all before it. Committed
//! entries go to the state machine, whose progress comes back through [`Consensus::handle_applied`]; a configuration
//! change among them through [`Consensus::apply_conf_change`] *before* the progress that includes it.

mod allowance;
mod candidacy;
mod convert;
mod guard;
mod log_store;
mod read_index;
mod ready;
mod snapshot;
mod start;
mod ticks;
mod types;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::{self, Entry, MessageType};
use raft::{Config, GetEntriesContext, RawNode, StateRole};

pub use allowance::Allowance;
pub use convert::{ConfChange, MemberChange, Message, MessageClass, MessageError};
pub use guard::{Refusal, is_reachable};
pub use read_index::ReadRequest;
pub use snapshot::is_sound;
pub use start::{Start, StartError};
pub use ticks::Pace;
pub use types::{
    ConfChangeRefusal, ConfChangeUnreadable, CoreStatus, Dropped, Persist, PersistId, ReadRound, Ready, Role,
    SnapshotMark,
};

use crate::ids::{LogIndex, MemberId, Term};
use crate::limits::{LOG_CACHE_BYTES, PROPOSALS_PENDING_BYTES_MAX, WAL_BATCH_BYTES};
use crate::planted::{self, Bug};
use crate::prng::Prng;
use crate::store::ConfState;
use crate::time::Instant;
use crate::wal::{EntryKind, HardState, LogEntry, Position};
use candidacy::Candidacy;
use convert::{conf_state_from_raft, conf_state_to_raft, entry_from_raft, entry_to_raft};
use log_store::LogStore;
use ready::Outstanding;

/// Bytes of entries in one append message.
const APPEND_BYTES_MAX: usize = WAL_BATCH_BYTES;
/// Append messages on their way to one follower.
const APPENDS_INFLIGHT_MAX: usize = 256;
/// Bytes of entries in one [`Ready::committed`]; one larger entry goes alone.
const COMMITTED_BYTES_MAX: u64 = WAL_BATCH_BYTES as u64;
/// A follower that lacks fewer entries than this has caught up: they are on their way.
const CAUGHT_UP_ENTRIES: u64 = 1000;
/// Bytes that a leader appends beyond what is committed before it drops proposals. Only forwarded ones get near it: the
/// node's own are bounded before they come here.
const UNCOMMITTED_BYTES_MAX: u64 = 2 * PROPOSALS_PENDING_BYTES_MAX as u64;

const _: () = assert!(UNCOMMITTED_BYTES_MAX > APPEND_BYTES_MAX as u64);

/// One member's raft. See the module's contract.
pub struct Consensus {
    node: RawNode<LogStore>,
    boot_nonce: u64,
    prng: Prng,
    pace: Pace,
    /// The election timeout in ticks that our generator drew for the current `(term, role)`.
    election_ticks: usize,
    drawn_for: (u64, StateRole),
    /// The part of the election timeout that is left to chance, for the same.
    chance: u64,
    /// Ticks of this member as a leader.
    leader_ticks: u64,
    /// When this member began to look for a leader, where none was heard since.
    began: Instant,
    /// When which leader of which term was last heard.
    heard: Option<((u64, u64), Instant)>,
    /// When each other member was last heard.
    heard_from: BTreeMap<u64, Instant>,
    /// The longest time between two words of a leader that was seen lately.
    longest_gap: Duration,
    last_tick: Instant,
    /// Of the last call that brought it along.
    now: Instant,
    /// Before this no further sign of life leaves ahead of what the disk has to do.
    next_sign: Instant,
    outstanding: VecDeque<Outstanding>,
    candidacy: Candidacy,
    /// When the disk answered last, or was given something after it had nothing to do.
    disk_heard: Instant,
    /// The longest time lately that the disk took for a batch.
    longest_sync: Duration,
    /// What the entries of those take in memory.
    unsynced_bytes: usize,
    /// The last batch with a new term or vote; 0 before the first.
    last_election: u64,
    /// The number of the last `Ready` taken from raft.
    last_number: u64,
    /// The hard state that was handed out last.
    handed_out: HardState,
    rounds: u64,
    removed: bool,
    /// Bytes of applied entries that stay in memory for followers.
    log_tail_bytes: usize,
    /// The state that is staged on this member's disk: the only one that a leader's snapshot may name.
    expected: Option<SnapshotMark>,
    /// An install that was handed out and is not done.
    installing: Option<LogIndex>,
    /// The position of the last snapshot that raft restored.
    restored: LogIndex,
    /// The state is further than what raft knows to be on the disk: so after an install, until the log is reset.
    late_applied: Option<LogIndex>,
    /// This member's state is not to be trusted, and its log is.
    suspect: bool,
    /// Whom it asked for another one, and in which term.
    asked: Option<(u64, u64)>,
    /// Followers that have said since they were last asked for that they have what they were sent instead of the log.
    took_snapshot: BTreeSet<u64>,
}

impl Consensus {
    /// Starts from what is on disk. A member that votes alone leads at once: there is nobody to wait for.
    pub fn start(now: Instant, start: Start, prng: Prng, logger: &slog::Logger) -> Result<Self, StartError> {
        start::check(&start)?;
        let (applied, takes_part) = (start.applied.index, start.takes_part());
        let mut hard_state = start.hard_state;
        // The commit position is written without hurry, so that the state may be ahead of it.
        hard_state.commit = hard_state.commit.max(applied);
        // A log that was only just made has no hard state yet; its term is that of the position that it continues.
        if hard_state.term < start.log_start.term {
            hard_state = HardState { term: start.log_start.term, vote: None, ..hard_state };
        }
        let entries = start.entries.into_iter().map(entry_to_raft).collect();
        let mut log = LogStore::new(
            (start.log_start.index.0, start.log_start.term.0),
            entries,
            eraftpb::HardState {
                term: hard_state.term.0,
                vote: hard_state.vote.map_or(raft::INVALID_ID, |vote| vote.0),
                commit: hard_state.commit.0,
            },
            conf_state_to_raft(&start.conf_state),
        );
        log.cut(applied.0, LOG_CACHE_BYTES);
        let node = RawNode::new(&raft_config(start.member, applied, &start.pace), log, logger)
            .map_err(|_| StartError::ConfState)?;
        let mut consensus = Self {
            drawn_for: (node.raft.term, node.raft.state),
            node,
            boot_nonce: start.boot_nonce,
            prng,
            pace: start.pace,
            election_ticks: 0,
            chance: 0,
            leader_ticks: 0,
            began: now,
            heard: None,
            heard_from: BTreeMap::new(),
            longest_gap: Duration::ZERO,
            last_tick: now,
            now,
            next_sign: now,
            outstanding: VecDeque::new(),
            candidacy: Candidacy::default(),
            disk_heard: now,
            longest_sync: Duration::ZERO,
            unsynced_bytes: 0,
            last_election: 0,
            last_number: 0,
            handed_out: hard_state,
            rounds: 0,
            removed: !takes_part,
            log_tail_bytes: LOG_CACHE_BYTES,
            expected: None,
            installing: None,
            restored: LogIndex(0),
            late_applied: None,
            suspect: start.suspect,
            asked: None,
            took_snapshot: BTreeSet::new(),
        };
        consensus.draw_election_timeout();
        consensus.campaign_if_alone();
        Ok(consensus)
    }

    /// A message from a peer, whose authenticated identity the caller has compared with [`Message::from`].
    pub fn step(&mut self, now: Instant, mut message: Message) -> Result<(), Refusal> {
        self.count_ticks(now);
        if self.removed {
            return Err(Refusal::Removed);
        }
        self.check(&message.0)?;
        self.note_snapshot_taken(&message.0);
        self.leave_out_what_is_new(&mut message.0);
        self.believe_planted(&mut message.0);
        let (from, term) = (message.0.from, message.0.term);
        self.heard_from.insert(from, now);
        if self.note_candidacies(&message.0) {
            return Ok(());
        }
        // What raft itself declines (a proposal without a leader, say) is as if the message was lost.
        let asks_for_support = message.0.msg_type == MessageType::MsgRequestPreVote;
        let _ = self.node.step(message.0);
        self.after_call();
        if asks_for_support {
            self.give_way(from);
        }
        if from == self.node.raft.leader_id && term == self.node.raft.term {
            self.hear(now);
        }
        Ok(())
    }

    /// The proposals that another member passes on to this leader, to be proposed at a moment of the caller's.
    pub fn take_proposals(&mut self, now: Instant, message: Message) -> Result<Vec<Bytes>, Refusal> {
        self.count_ticks(now);
        if self.removed {
            return Err(Refusal::Removed);
        }
        self.check(&message.0)?;
        self.heard_from.insert(message.0.from, now);
        Ok(message.0.entries.into_iter().map(|entry| entry.data).collect())
    }

    /// The bugs that the features plant: the sender's log is taken for one that fits to this member's, or is no shorter.
    fn believe_planted(&self, message: &mut eraftpb::Message) {
        let log = &self.node.raft.raft_log;
        let votes = matches!(message.msg_type, MessageType::MsgRequestVote | MessageType::MsgRequestPreVote);
        if planted::has(Bug::VoteForAnyLog) && votes {
            message.log_term = message.term;
        }
        let appends = message.msg_type == MessageType::MsgAppend && message.index <= log.last_index();
        if planted::has(Bug::AppendAnywhere) && appends {
            message.log_term = log.term(message.index).unwrap_or(message.log_term);
        }
    }

    /// Whether raft can be shown a message.
    fn check(&self, message: &eraftpb::Message) -> Result<(), Refusal> {
        let receiver = guard::Receiver {
            raft: &self.node.raft,
            expected: self.expected.as_ref(),
            suspect: self.suspect,
            all_persisted: self.all_persisted(),
        };
        guard::check(&receiver, message)
    }

    /// Appends commands to the log, or forwards them to the leader, all in one go. None is empty.
    pub fn propose(&mut self, now: Instant, commands: Vec<Bytes>) -> Result<(), Dropped> {
        self.count_ticks(now);
        assert!(commands.iter().all(|command| !command.is_empty()), "an empty entry is a leader's first");
        let entries = commands.into_iter().map(|data| Entry { data, ..Entry::default() }).collect();
        self.propose_entries(entries)
    }

    /// Proposes a change of the configuration; at the leader only, one at a time.
    pub fn propose_conf_change(
        &mut self,
        now: Instant,
        change: &ConfChange,
    ) -> Result<(), ConfChangeRefusal> {
        self.count_ticks(now);
        let raft = &self.node.raft;
        if self.removed || raft.state != StateRole::Leader {
            return Err(ConfChangeRefusal::NotLeader);
        }
        if change.changes.is_empty() {
            return Err(ConfChangeRefusal::Empty);
        }
        // Raft would turn the proposal into an empty entry without a word.
        let joint = !raft.prs().conf().to_conf_state().voters_outgoing.is_empty();
        if raft.has_pending_conf() || joint {
            return Err(ConfChangeRefusal::Pending);
        }
        let data = prost::Message::encode_to_vec(&change.to_raft()).into();
        let entry_type = eraftpb::EntryType::EntryConfChangeV2;
        Ok(self.propose_entries(vec![Entry { entry_type, data, ..Entry::default() }])?)
    }

    /// Whether a change of the configuration can be proposed now: this member leads, has applied an entry of its own term, and no other change is
    /// under way.
    pub fn takes_conf_change(&self) -> bool {
        let raft = &self.node.raft;
        !self.removed
            && raft.state == StateRole::Leader
            && raft.apply_to_current_term()
            && !raft.has_pending_conf()
            && raft.lead_transferee.is_none()
            && raft.prs().conf().to_conf_state().voters_outgoing.is_empty()
    }

    /// The configuration that is in effect.
    pub fn conf_state(&self) -> ConfState {
        conf_state_from_raft(&self.node.raft.prs().conf().to_conf_state())
    }

    /// Whether a follower of this leader has nearly all of the log, was heard of lately, and has a state that it trusts.
    pub fn has_caught_up(&self, member: MemberId) -> bool {
        self.is_active(member) && self.is_near(member)
    }

    fn is_near(&self, member: MemberId) -> bool {
        let raft = &self.node.raft;
        let near = |progress: &raft::Progress| {
            progress.matched + CAUGHT_UP_ENTRIES >= raft.raft_log.last_index()
                && progress.matched > 0
                && progress.pending_request_snapshot == raft::INVALID_INDEX
        };
        raft.state == StateRole::Leader && raft.prs().get(member.0).is_some_and(near)
    }

    /// Whether this leader has heard a member since it last looked whether a majority answers.
    pub fn is_active(&self, member: MemberId) -> bool {
        let raft = &self.node.raft;
        raft.state == StateRole::Leader
            && raft.prs().get(member.0).is_some_and(|progress| progress.recent_active)
    }

    /// The last entry that raft knows to be applied.
    pub fn applied(&self) -> LogIndex {
        LogIndex(self.node.raft.raft_log.applied)
    }

    /// Hands leadership to a voter, which takes over as soon as it has the whole log; without effect elsewhere than at the leader.
    pub fn transfer_leader(&mut self, now: Instant, to: MemberId) {
        self.count_ticks(now);
        if !self.removed && self.node.raft.state == StateRole::Leader {
            self.node.transfer_leader(to.0);
            self.after_call();
        }
    }

    /// Whether another member is taking over.
    pub fn is_handing_over(&self) -> bool {
        self.node.raft.lead_transferee.is_some()
    }

    /// What was sent to this follower lately may be lost: the leader finds out what it has before it sends more.
    pub fn report_unreachable(&mut self, now: Instant, member: MemberId) {
        self.count_ticks(now);
        if !self.removed && self.node.raft.state == StateRole::Leader {
            self.node.report_unreachable(member.0);
            self.after_call();
        }
    }

    /// The state machine has applied everything up to `applied`.
    pub fn handle_applied(&mut self, now: Instant, applied: LogIndex) {
        self.count_ticks(now);
        if applied.0 > self.node.raft.raft_log.persisted {
            // The state was installed, and the log is not reset yet: raft hears of it once it is.
            self.late_applied = self.late_applied.max(Some(applied));
        } else if !self.removed && applied.0 > self.node.raft.raft_log.applied {
            self.node.advance_apply_to(applied.0);
            self.after_call();
            // A campaign waits until every committed change of the configuration is applied.
            self.campaign_if_alone();
        }
    }

    /// Makes a committed change of the configuration effective and answers the configuration as of that entry. A change that raft
    /// turns down (it would leave no voter, say) changes nothing, on every member alike.
    ///
    /// `None` where raft has gone on to a state that has the entry: the configuration is that of a later one, and the install follows.
    pub fn apply_conf_change(
        &mut self,
        now: Instant,
        entry: &LogEntry,
    ) -> Result<Option<ConfState>, ConfChangeUnreadable> {
        self.count_ticks(now);
        let index = entry.index;
        if entry.kind != EntryKind::ConfChangeV2 {
            return Err(ConfChangeUnreadable { index, cause: None });
        }
        let change: eraftpb::ConfChangeV2 = prost::Message::decode(entry.data.clone())
            .map_err(|cause| ConfChangeUnreadable { index, cause: Some(cause) })?;
        // A snapshot that raft has restored since brought the configuration of a later entry. It did so when the message came, however late the
        // ready with the install is asked for.
        let restored = self.node.raft.raft_log.unstable_snapshot().as_ref();
        let restored = restored.map_or(0, |snapshot| snapshot.get_metadata().index).max(self.restored.0);
        if index.0 <= restored {
            return Ok(None);
        }
        if !self.removed {
            let took_part = self.node.raft.prs().get(self.node.raft.id).is_some();
            // Refused: the configuration stays.
            let _ = self.node.apply_conf_change(&change);
            let raft = &mut self.node.raft;
            self.heard_from.retain(|member, _| raft.prs().get(*member).is_some());
            if took_part && raft.prs().get(raft.id).is_none() {
                // Raft would go on leading, and panic when it next looks for its own progress.
                self.removed = !planted::has(Bug::LeadWhenRemoved);
            } else if raft.state == StateRole::Leader && !raft.promotable() {
                let term = raft.term;
                raft.become_follower(term, raft::INVALID_ID);
            }
            self.after_call();
            self.campaign_if_alone();
        }
        Ok(Some(self.conf_state()))
    }

    /// The durable state holds everything up to `checkpoint`: older entries go, but for a tail for followers. Answers
    /// the first index that is still needed; the log on disk may be cut before it.
    pub fn cut(&mut self, checkpoint: LogIndex) -> LogIndex {
        let tail = if self.is_alone() { 0 } else { self.log_tail_bytes };
        let store = self.node.mut_store();
        store.cut(checkpoint.0, tail);
        // After a snapshot was restored the log in memory is ahead of a store that is about to be replaced; the one on disk must not be.
        LogIndex(store.first().min(checkpoint.0 + 1))
    }

    /// This member.
    pub fn member(&self) -> MemberId {
        MemberId(self.node.raft.id)
    }

    /// Where this member stands.
    pub fn status(&self) -> CoreStatus {
        let raft = &self.node.raft;
        let role = match raft.state {
            _ if self.removed => Role::Removed,
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        };
        let leader = raft.leader_id;
        CoreStatus {
            leader: (leader != raft::INVALID_ID && !self.removed).then_some(MemberId(leader)),
            term: Term(raft.term),
            role,
            commit: LogIndex(raft.raft_log.committed),
            last: LogIndex(raft.raft_log.last_index()),
            last_term: Term(raft.raft_log.last_term()),
            sole_voter: role == Role::Leader
                && self.is_alone()
                && raft.apply_to_current_term()
                && !raft.has_pending_conf(),
        }
    }

    /// The entries after `after`, committed or not, and where the log ends; of a log that begins later, or ends before, none.
    pub fn log_after(&self, after: LogIndex) -> (Vec<LogEntry>, Position) {
        let log = &self.node.raft.raft_log;
        let last = Position { index: LogIndex(log.last_index()), term: Term(log.last_term()) };
        if after >= last.index {
            return (Vec::new(), last);
        }
        let context = GetEntriesContext::empty(false);
        let entries = log.slice(after.0 + 1, last.index.0 + 1, None, context).unwrap_or_default();
        (entries.into_iter().map(entry_from_raft).collect(), last)
    }

    /// Whether a proposal made now is appended or forwarded: a leader is known, and it is not handing over.
    pub fn takes_proposals(&self) -> bool {
        let raft = &self.node.raft;
        !self.removed && raft.leader_id != raft::INVALID_ID && raft.lead_transferee.is_none()
    }

    fn propose_entries(&mut self, entries: Vec<Entry>) -> Result<(), Dropped> {
        let raft = &mut self.node.raft;
        if self.removed || raft.leader_id == raft::INVALID_ID {
            return Err(Dropped::NoLeader);
        }
        let msg_type = MessageType::MsgPropose;
        let message = eraftpb::Message { msg_type, from: raft.id, entries, ..Default::default() };
        let outcome = raft.step(message).map_err(|_| Dropped::Busy);
        self.after_call();
        outcome
    }

    /// No other member, not even a learner.
    fn is_alone(&self) -> bool {
        let prs = self.node.raft.prs();
        prs.iter().len() == 1 && prs.get(self.node.raft.id).is_some()
    }
}

fn raft_config(member: MemberId, applied: LogIndex, pace: &Pace) -> Config {
    Config {
        id: member.0,
        election_tick: pace.election_ticks(),
        max_election_tick: pace.election_ticks_end(),
        heartbeat_tick: pace.heartbeat_ticks(),
        applied: applied.0,
        max_size_per_msg: APPEND_BYTES_MAX as u64,
        max_inflight_msgs: APPENDS_INFLIGHT_MAX,
        check_quorum: true,
        pre_vote: true,
        max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
        max_committed_size_per_ready: COMMITTED_BYTES_MAX,
        ..Config::default()
    }
}

#[cfg(test)]
mod cluster_test;
#[cfg(test)]
mod election_test;
#[cfg(test)]
mod guard_test;
#[cfg(test)]
mod testing;
