//! What raft wants done, and what may leave once the disk has it.
//!
//! Owns: batches for the disk, their order, and the messages that wait for them. Must never: let a message go whose promise is not on disk.
//! Driven by `node::Core` through [`Consensus::poll_ready`] and [`Consensus::handle_persisted`].

use raft::StateRole;

use super::Consensus;
use super::candidacy::SYNCS;
use super::convert::{Message, entry_from_raft, hard_state_from_raft};
use super::log_store::entry_bytes;
use super::snapshot;
use super::ticks::faded;
use super::types::{Persist, PersistId, Ready};
use crate::ids::{LogIndex, MemberId};
use crate::planted::{self, Bug};
use crate::time::Instant;

/// A persist that the disk has not confirmed, and the messages that may leave once it has.
#[derive(Debug)]
pub(super) struct Outstanding {
    number: u64,
    /// It carries entries, or follows a snapshot.
    has_entries: bool,
    /// What its entries take in memory.
    bytes: usize,
    /// When it was handed out.
    at: Instant,
    messages: Vec<Message>,
}

impl Outstanding {
    /// Has a message wait. What keeps coming while a disk is stuck takes the place of what it makes pointless.
    fn hold(&mut self, message: Message) {
        let earlier = self.messages.iter().rposition(|earlier| earlier.is_of_kind(&message));
        if let Some(earlier) = earlier {
            if !message.says_no_less_than(&self.messages[earlier]) {
                return;
            }
            // What was said in between stays in front of it.
            self.messages.remove(earlier);
        }
        self.messages.push(message);
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.messages.len()
    }
}

impl Consensus {
    /// The disk holds everything up to this batch.
    pub fn handle_persisted(&mut self, now: Instant, id: PersistId) -> Vec<Message> {
        self.count_ticks(now);
        let mut released = Vec::new();
        if let Some(front) = self.outstanding.front() {
            // A pause of the process may be in it. Who gives way waits no longer than anybody for a leader.
            let sync = now.since(front.at).min(self.pace.longest_timeout() / SYNCS);
            self.longest_sync = sync.max(faded(self.longest_sync, now.since(self.disk_heard)));
        }
        self.disk_heard = now;
        while self.outstanding.front().is_some_and(|front| front.number <= id.0) {
            let Some(front) = self.outstanding.pop_front() else { break };
            self.unsynced_bytes -= front.bytes;
            released.extend(front.messages);
        }
        if self.outstanding.is_empty() {
            self.candidacy.asked = now;
        }
        if !self.removed {
            self.report_persisted();
            self.report_late_applied();
            self.campaign_if_alone();
        }
        released
    }

    /// The last batch that the disk does not have yet.
    pub fn last_unsynced(&self) -> Option<PersistId> {
        self.outstanding.back().map(|outstanding| PersistId(outstanding.number))
    }

    /// The first batch that the disk does not have yet.
    pub fn first_unsynced(&self) -> Option<PersistId> {
        self.outstanding.front().map(|outstanding| PersistId(outstanding.number))
    }

    /// Whether the disk has a batch that was handed out, and all before it.
    pub fn is_synced(&self, id: PersistId) -> bool {
        self.outstanding.front().is_none_or(|front| front.number > id.0)
    }

    /// Since when the disk owes an answer. A state that is being installed comes first, and may take its time.
    pub fn awaits_disk_since(&self) -> Option<Instant> {
        let waits = !self.outstanding.is_empty() && self.installing.is_none();
        waits.then_some(self.disk_heard)
    }

    /// The other voters that answer, and have on their disks what this leader's has not, where they decide without it; none otherwise.
    pub fn ahead_of_disk(&self) -> Vec<MemberId> {
        let raft = &self.node.raft;
        let persisted = raft.raft_log.persisted;
        let is_ahead = |member: &MemberId| {
            let matched = raft.prs().get(member.0).map_or(0, |progress| progress.matched);
            *member != self.member() && matched > persisted && self.is_near(*member)
        };
        let mut ahead = self.answering(self.now).unwrap_or_default();
        ahead.retain(is_ahead);
        if raft.prs().has_quorum(&ahead.iter().map(|member| member.0).collect()) {
            ahead.retain(|member| raft.prs().conf().voters().contains(member.0));
            ahead.into_iter().collect()
        } else {
            Vec::new()
        }
    }

    /// What the entries that the disk does not have yet take in memory, in bytes.
    pub fn unsynced_bytes(&self) -> usize {
        self.unsynced_bytes
    }

    /// What raft wants done next, until there is nothing more.
    pub fn poll_ready(&mut self) -> Option<Ready> {
        if self.removed || self.installing.is_some() || !self.node.has_ready() {
            return None;
        }
        let mut ready = self.node.ready();
        let number = ready.number();
        self.last_number = number;
        let install = snapshot::mark_of(ready.snapshot());
        let entries = ready.take_entries();
        let mut hard_state = hard_state_from_raft(&self.node.raft.hard_state());
        if planted::has(Bug::ForgetVote) {
            hard_state.vote = None;
        }
        let leads = self.node.raft.state == StateRole::Leader;
        let messages = if leads { ready.take_messages() } else { ready.take_persisted_messages() };
        let committed = ready.take_committed_entries();
        let read_states = ready.take_read_states();

        let election = (hard_state.term, hard_state.vote) != (self.handed_out.term, self.handed_out.vote);
        // A commit position alone is worth no write: it rides along with the next batch, and a restart finds it again.
        let persist = (election || !entries.is_empty() || install.is_some()).then(|| {
            let changed = hard_state != self.handed_out;
            self.handed_out = hard_state;
            let has_entries = !entries.is_empty() || install.is_some();
            let bytes = entries.iter().map(entry_bytes).sum();
            self.unsynced_bytes += bytes;
            if election {
                self.last_election = number;
            }
            if self.outstanding.is_empty() {
                self.disk_heard = self.now;
            }
            let (at, messages) = (self.now, Vec::new());
            self.outstanding.push_back(Outstanding { number, has_entries, bytes, at, messages });
            Persist {
                id: PersistId(number),
                hard_state: changed.then_some(hard_state),
                entries: entries.iter().cloned().map(entry_from_raft).collect(),
            }
        });
        if let Some(mark) = &install {
            self.begin_install(mark);
        }
        // Raft reads its log from here even before the disk has it.
        self.node.mut_store().append(entries);
        self.node.advance_append_async(ready);
        if persist.is_none() || planted::has(Bug::AckBeforeSync) {
            self.report_persisted();
        }
        Some(Ready {
            install,
            persist,
            committed: committed.into_iter().map(entry_from_raft).collect(),
            reads: read_states.iter().filter_map(|state| self.round_of(state)).collect(),
            messages: self.hold_back(messages.into_iter().map(Message).collect(), leads),
        })
    }

    /// Keeps messages until what they stand for is on disk. A follower's promise (a vote, an acknowledgement) waits for everything
    /// before it. What promises nothing, and a leader's appends (dissertation, section 10.2.1), wait for no more than term and vote:
    /// who votes alone leads before any sync, and after a crash would lead the same term again with other entries at positions that
    /// a learner already has. What is passed on to a leader, which has neither term nor vote in it, waits for nothing: it is the leader's to write.
    fn hold_back(&mut self, messages: Vec<Message>, leads: bool) -> Vec<Message> {
        let election =
            self.outstanding.partition_point(|outstanding| outstanding.number < self.last_election);
        let election =
            self.outstanding.get(election).filter(|at| at.number == self.last_election).map(|_| election);
        let last = self.outstanding.len().checked_sub(1).filter(|_| !leads);
        if election.max(last).is_none() || planted::has(Bug::SendBeforeSync) {
            return messages;
        }
        let mut free = Vec::new();
        for mut message in messages {
            let waits_for = if message.is_passed_on() {
                None
            } else if leads || self.is_mere_sign(&mut message) {
                election
            } else {
                last
            };
            match waits_for {
                Some(at) => self.outstanding[at].hold(message),
                None => free.push(message),
            }
        }
        free
    }

    /// Whether it is a sign of life, which is made to say no more than that a follower follows, and is true whatever becomes of its disk. Only as
    /// many of those as keep the leader from taking it for lost: by each of them raft sends a follower more than it has room for, and
    /// one that is late for its disk needs none of that.
    fn is_mere_sign(&mut self, message: &mut Message) -> bool {
        if message.is_sign_of_life() && self.now >= self.next_sign {
            self.next_sign = self.now + self.pace.heartbeat / 2;
            message.claim_no_more_than(LogIndex(self.node.raft.raft_log.persisted));
            return true;
        }
        false
    }

    /// Whether every log entry that raft holds is on disk, and none that was to be is on its way there: raft asserts both at the moment it takes the
    /// lead.
    pub(super) fn all_persisted(&self) -> bool {
        let log = &self.node.raft.raft_log;
        log.persisted == log.last_index()
            && !self.outstanding.iter().any(|outstanding| outstanding.has_entries)
    }

    /// Tells raft up to which of its batches the disk has everything: up to the first one that is still on its way.
    fn report_persisted(&mut self) {
        let number = match self.outstanding.front() {
            // The bug that the feature plants: what is on its way to the disk counts as if it had arrived.
            Some(front) if !planted::has(Bug::AckBeforeSync) => front.number - 1,
            _ => self.last_number,
        };
        self.node.on_persist_ready(number);
        if planted::has(Bug::AckBeforeQuorum) && self.node.raft.state == StateRole::Leader {
            let log = &mut self.node.raft.raft_log;
            log.commit_to(log.persisted);
        }
        self.after_call();
    }
}
