//! Snapshots as raft sees them: a position and a configuration, without the state.
//!
//! Owns: which follower is offered which position, which position this member would take, and the time in which raft stands still
//! because the state below it is being exchanged. Must never: offer a position whose following entries are gone, or let raft restore one whose
//! state is not on this member's disk. Driven by `node::Core`; the state travels beside raft.
//!
//! ```text
//! leader     raft asks ── take_snapshot_requests ── (the state is sent) ── offer_snapshot ── MsgSnapshot ──► follower
//! follower   (the state is staged) ── expect_snapshot ── MsgSnapshot ── Ready::install ── (installed) ── handle_installed
//! ```

use raft::eraftpb::{Message, MessageType, Snapshot, SnapshotMetadata};
use raft::{ProgressState, SnapshotStatus, StateRole};

use super::Consensus;
use super::convert::{conf_state_from_raft, conf_state_to_raft};
use super::types::SnapshotMark;
use crate::ids::{LogIndex, MemberId, Term};
use crate::store::ConfState;
use crate::time::Instant;
use crate::wal::Position;

/// The leader's side.
impl Consensus {
    /// The followers that raft wants a snapshot for and that none is offered to, ascending. Asked again and again, raft names them again
    /// and again.
    pub fn take_snapshot_requests(&mut self) -> Vec<MemberId> {
        let wanted = self.node.mut_store().take_wanted();
        let leads = !self.removed && self.node.raft.state == StateRole::Leader;
        wanted.into_iter().filter(|_| leads).map(MemberId).collect()
    }

    /// The state at `mark` is on the follower's disk: raft sends it the position when it next hears from it, and again after
    /// each [`Consensus::report_snapshot_lost`]. False when the entries after it are gone, so that it would lead nowhere.
    pub fn offer_snapshot(&mut self, to: MemberId, mark: &SnapshotMark) -> bool {
        let Position { index, term } = mark.position;
        let conf_state = Some(conf_state_to_raft(&mark.conf_state));
        let metadata = Some(SnapshotMetadata { conf_state, index: index.0, term: term.0 });
        self.node.mut_store().offer(to.0, Snapshot { metadata, ..Snapshot::default() })
    }

    /// Offers nothing to this follower any more.
    pub fn withdraw_snapshot(&mut self, to: MemberId) {
        self.node.mut_store().withdraw(to.0);
    }

    /// Whether the entries after the offered position are still there.
    pub fn offer_holds(&self, to: MemberId) -> bool {
        self.node.store().offer_holds(to.0)
    }

    /// Whether the log in memory reaches back far enough for this follower, as far as it has answered; always where this member does not
    /// lead or the follower is none.
    pub fn reaches(&self, to: MemberId) -> bool {
        let raft = &self.node.raft;
        self.follower(to).is_none_or(|progress| {
            progress.matched + 1 >= raft.raft_log.first_index()
                && progress.pending_request_snapshot == raft::INVALID_INDEX
        })
    }

    /// From which position on a state is of use to a follower that does not trust its own; none for one whom only the log fails.
    pub fn wanted_state(&self, to: MemberId) -> Option<LogIndex> {
        let wanted = self.follower(to)?.pending_request_snapshot;
        (wanted != raft::INVALID_INDEX).then_some(LogIndex(wanted))
    }

    /// Whether a follower that has asked for a state does so no more, and has the log up to what it was offered, if anything.
    pub fn has_stopped_asking(&self, to: MemberId) -> bool {
        let offered = self.node.store().offered(to.0).unwrap_or(0);
        self.follower(to).is_some_and(|progress| {
            progress.matched >= offered && progress.pending_request_snapshot == raft::INVALID_INDEX
        })
    }

    /// The position up to which this member's store holds the state.
    pub fn stored(&self) -> LogIndex {
        LogIndex(self.node.store().checkpoint())
    }

    /// Followers that have taken the position that they were sent, since the last call; ascending.
    pub fn take_snapshots_taken(&mut self) -> Vec<MemberId> {
        std::mem::take(&mut self.took_snapshot).into_iter().map(MemberId).collect()
    }

    /// Who asked for a state had the end of the log before, so that raft does not see it get on; nor does raft see that it asks no more: while it
    /// does, it says nothing else, not even to a heartbeat.
    pub(super) fn note_snapshot_taken(&mut self, message: &Message) {
        let leads = !self.removed && self.node.raft.state == StateRole::Leader;
        if !leads || message.term != self.node.raft.term {
            return;
        }
        let Some(progress) = self.node.raft.mut_prs().get_mut(message.from) else { return };
        let waits = progress.state == ProgressState::Snapshot;
        match message.msg_type {
            MessageType::MsgAppendResponse
                if !message.reject && waits && message.index >= progress.pending_snapshot =>
            {
                self.took_snapshot.insert(message.from);
            }
            MessageType::MsgHeartbeatResponse if !waits => {
                progress.pending_request_snapshot = raft::INVALID_INDEX;
            }
            _ => {}
        }
    }

    /// What this leader knows of a follower; nothing where it does not lead.
    fn follower(&self, member: MemberId) -> Option<&raft::Progress> {
        let raft = &self.node.raft;
        raft.prs().get(member.0).filter(|_| !self.removed && raft.state == StateRole::Leader)
    }

    /// Counts what a follower says to be committed as what it has in common with this leader's log, where raft does not know better and the log
    /// reaches back that far.
    ///
    /// Raft looks for that place by steps back, and can overshoot: it then wants a snapshot for a follower whose commit position is ahead of
    /// the state that it would be sent, and which has no use for it. That what is committed anywhere is in every later leader's log is
    /// raft's leader completeness.
    pub fn learn_from_commit(&mut self, to: MemberId) {
        let raft = &mut self.node.raft;
        let (first, last) = (raft.raft_log.first_index(), raft.raft_log.last_index());
        if self.removed || raft.state != StateRole::Leader {
            return;
        }
        if let Some(progress) = raft.mut_prs().get_mut(to.0)
            && progress.committed_index <= last
            && progress.committed_index + 1 >= first
        {
            progress.maybe_update(progress.committed_index);
        }
    }

    /// The follower has not come up to the snapshot in time. Raft waits for it for ever otherwise: the message, or the answer, may be lost. A
    /// follower that has asked for a state asks again.
    pub fn report_snapshot_lost(&mut self, now: Instant, to: MemberId) {
        self.count_ticks(now);
        let waits = |progress: &raft::Progress| progress.state == ProgressState::Snapshot;
        if !self.removed && self.node.raft.prs().get(to.0).is_some_and(waits) {
            self.node.report_snapshot(to.0, SnapshotStatus::Failure);
            self.after_call();
        }
        if let Some(progress) = self.node.raft.mut_prs().get_mut(to.0) {
            progress.pending_request_snapshot = raft::INVALID_INDEX;
        }
    }

    /// Keeps so many bytes of applied entries in memory for followers.
    pub fn set_log_tail_bytes(&mut self, bytes: usize) {
        self.log_tail_bytes = bytes;
    }
}

/// The follower's side.
impl Consensus {
    /// The state that is staged on the disk, and that must stay there until it is installed or something else is expected.
    pub fn expect_snapshot(&mut self, expected: Option<SnapshotMark>) {
        assert!(self.installing.is_none(), "what is being installed is taken already");
        self.expected = expected;
    }

    /// Whether a state is expected that raft has not taken yet.
    pub fn may_let_go(&self) -> bool {
        self.expected.is_some() && self.node.raft.raft_log.unstable_snapshot().is_none()
    }

    /// Whether the log has got by itself to where the staged state is, so that no leader will name it any more. Not while raft has
    /// taken it and the ready with the install is still to come; nor where it was asked for, and the log had got there before.
    pub fn expects_in_vain(&self) -> bool {
        let raft = &self.node.raft;
        let reached = |mark: &SnapshotMark| mark.position.index.0 <= raft.raft_log.committed;
        raft.pending_request_snapshot == raft::INVALID_INDEX
            && self.may_let_go()
            && self.expected.as_ref().is_some_and(reached)
    }

    /// Whether this member's state is not to be trusted.
    pub fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Who waits for a state takes no entries beyond those that it has, once one of this term is among them: under steady writes there would never
    /// be a moment at which all of its log is committed, and its log would grow for as long. What is left out is as good as lost.
    pub(super) fn leave_out_what_is_new(&self, message: &mut Message) {
        let log = &self.node.raft.raft_log;
        if self.suspect && message.term == self.node.raft.term && log.last_term() == message.term {
            let last = log.last_index();
            message.entries.retain(|entry| entry.index <= last);
        }
    }

    /// Asks the leader for its state, where this member does not trust its own and there is a leader to ask.
    ///
    /// From then on this member takes no entries, so that the state which comes is not behind the end of its log: what it has confirmed
    /// it would forget otherwise. Only committed entries may be there at that moment. A leader may never commit the others, and a state never get
    /// beyond them.
    ///
    /// Another leader is asked anew. Raft would go on with the question for the one before, and confirm nothing to the new one, which may need
    /// just that to find out what is committed.
    pub fn request_state(&mut self, now: Instant) {
        self.count_ticks(now);
        let leadership = (self.node.raft.term, self.node.raft.leader_id);
        if self.suspect && self.asked.take_if(|asked| *asked != leadership).is_some() {
            self.node.raft.pending_request_snapshot = raft::INVALID_INDEX;
        }
        let raft = &self.node.raft;
        let (log, leader) = (&raft.raft_log, raft.leader_id);
        let last_is_of_this_term = log.last_term() == raft.term;
        if self.suspect
            && !self.removed
            && self.installing.is_none()
            && leader != raft::INVALID_ID
            && raft.pending_request_snapshot == raft::INVALID_INDEX
            && log.unstable_snapshot().is_none()
            && log.committed == log.last_index()
            && last_is_of_this_term
        {
            // All that could make raft decline was looked at.
            let _ = self.node.request_snapshot();
            self.asked = Some(leadership);
            self.after_call();
        }
    }

    /// Whether a [`Ready::install`](super::Ready::install) is not done yet.
    pub fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// The state at this position is in place and durable. Its persist may go to the disk now, behind the reset of the log.
    pub fn handle_installed(&mut self, now: Instant, position: Position) {
        self.count_ticks(now);
        assert_eq!(self.installing.take(), Some(position.index), "an install is done once");
        self.disk_heard = now;
    }

    /// Raft has begun its log anew; nothing of what it had before is asked for any more.
    pub(super) fn begin_install(&mut self, mark: &SnapshotMark) {
        let Position { index, term } = mark.position;
        self.node.mut_store().restore((index.0, term.0));
        self.installing = Some(index);
        self.restored = index;
        self.expected = None;
        self.suspect = false;
    }

    /// Tells raft of applied entries that it did not know to be on the disk when the state reported them.
    pub(super) fn report_late_applied(&mut self) {
        if let Some(applied) = self.late_applied.take_if(|late| late.0 <= self.node.raft.raft_log.persisted)
            && applied.0 > self.node.raft.raft_log.applied
        {
            self.node.advance_apply_to(applied.0);
            self.after_call();
        }
    }
}

/// The mark of a snapshot; `None` for the empty one.
pub(super) fn mark_of(snapshot: &Snapshot) -> Option<SnapshotMark> {
    let metadata = snapshot.metadata.as_ref().filter(|metadata| metadata.index > 0)?;
    let position = Position { index: LogIndex(metadata.index), term: Term(metadata.term) };
    let conf_state = metadata.conf_state.as_ref().map(conf_state_from_raft).unwrap_or_default();
    Some(SnapshotMark { position, conf_state })
}

/// Whether raft can begin from this configuration: it stops the process on one that no change could have led to.
pub fn is_sound(conf: &ConfState) -> bool {
    let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = conf;
    let ascends = |list: &[MemberId]| list.is_sorted_by(|a, b| a < b) && list.first() != Some(&MemberId(0));
    let apart = |list: &[MemberId], other: &[MemberId]| !list.iter().any(|id| other.contains(id));
    let joint = !voters_outgoing.is_empty();
    [voters, learners, voters_outgoing, learners_next].into_iter().all(|list| ascends(list))
        && !voters.is_empty()
        && apart(learners, voters)
        && apart(learners, voters_outgoing)
        && apart(learners_next, voters)
        && learners_next.iter().all(|id| voters_outgoing.contains(id))
        && (joint || !auto_leave)
}

#[cfg(test)]
#[path = "snapshot_test.rs"]
mod tests;
