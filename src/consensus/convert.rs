//! Between raft's types and ours.
//!
//! Owns: every conversion, and the two values that cross a border as opaque bytes: a message between members and a change
//! of the configuration. Must never: decide anything. Used inside `consensus` only.

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::{self, ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, EntryType, MessageType};

use super::allowance::{Allowance, ENTRIES_MAX, SNAPSHOT_BYTES_MAX};
use crate::ids::{LogIndex, MemberId, Term};
use crate::store::ConfState;
use crate::wal::{EntryKind, HardState, LogEntry};

/// A message from one member's raft to another's: opaque, except for who it is between.
#[derive(Clone, Debug, PartialEq)]
pub struct Message(pub(super) eraftpb::Message);

/// What kind of way a message needs, and what it costs when it gets lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageClass {
    /// A sign of life: the next one makes up for it.
    Heartbeat,
    /// Small, and somebody waits for it: votes, read rounds, a transfer of leadership.
    Control,
    /// Entries on their way and the answers to them. The sender has to hear of a loss (raft takes the follower's log for longer than it is).
    Append,
}

/// Why bytes from a peer are not a message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Its fields do not fill the bytes.
    #[error("not a raft message: its fields do not add up")]
    Ragged,
    /// An entry that says nothing.
    #[error("a raft message with an entry without content")]
    Entry,
    /// More entries than a frame may have.
    #[error("raft messages of more than {ENTRIES_MAX} entries")]
    Entries,
    /// More than a position and a configuration.
    #[error("raft messages with more than {SNAPSHOT_BYTES_MAX} bytes of snapshots")]
    Snapshot,
    /// A field that cannot be read.
    #[error("not a raft message: {0}")]
    Malformed(#[from] prost::DecodeError),
}

impl Message {
    /// Whom it is for.
    pub fn to(&self) -> MemberId {
        MemberId(self.0.to)
    }

    /// Who it says it is from; whoever receives it compares that with the key of the connection.
    pub fn from(&self) -> MemberId {
        MemberId(self.0.from)
    }

    /// What kind of way it needs.
    pub fn class(&self) -> MessageClass {
        match self.0.msg_type {
            MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse => MessageClass::Heartbeat,
            MessageType::MsgAppend
            | MessageType::MsgAppendResponse
            | MessageType::MsgSnapshot
            | MessageType::MsgPropose => MessageClass::Append,
            _ => MessageClass::Control,
        }
    }

    /// Whether it tells a follower how far entries are committed.
    pub fn says_commit(&self) -> bool {
        self.0.msg_type == MessageType::MsgAppend
    }

    /// Whether it tells a follower nothing else.
    pub fn is_commit_notice(&self) -> bool {
        self.says_commit() && self.0.entries.is_empty()
    }

    /// Whether its sender waits for what becomes of it: something that was passed on to the leader.
    pub fn is_passed_on(&self) -> bool {
        matches!(self.0.msg_type, MessageType::MsgPropose | MessageType::MsgReadIndex)
    }

    /// Whether it answers a leader's heartbeat.
    pub(super) fn is_sign_of_life(&self) -> bool {
        self.0.msg_type == MessageType::MsgHeartbeatResponse
    }

    /// Whether the two say the same kind of thing to the same member, so that one of them is enough: an answer to a leader, a question for a vote or
    /// a vote. What is passed on is not of that kind, nor an answer to somebody's read. Of the answers to heartbeats the last has the
    /// context of the last round of reads, which stands for those before it.
    pub(super) fn is_of_kind(&self, other: &Self) -> bool {
        let repeats = matches!(
            self.0.msg_type,
            MessageType::MsgAppendResponse
                | MessageType::MsgHeartbeatResponse
                | MessageType::MsgRequestVote
                | MessageType::MsgRequestVoteResponse
                | MessageType::MsgRequestPreVote
                | MessageType::MsgRequestPreVoteResponse
        );
        let of = |message: &eraftpb::Message| {
            (message.msg_type, message.to, message.reject, message.request_snapshot != raft::INVALID_INDEX)
        };
        repeats && of(&self.0) == of(&other.0)
    }

    /// Whether a later one of that kind leaves the earlier one nothing to say: a leader that has heard of more of a log is not told of less.
    pub(super) fn says_no_less_than(&self, earlier: &Self) -> bool {
        let (new, old) = (&self.0, &earlier.0);
        new.term > old.term || new.reject || new.index >= old.index
    }

    /// Takes back what it says of a log beyond this position: raft believes an answer to a heartbeat that its sender has on disk what it knows to be
    /// committed, and never forgets.
    pub(super) fn claim_no_more_than(&mut self, index: LogIndex) {
        self.0.commit = self.0.commit.min(index.0);
    }

    /// Whether a follower passes on proposals with it.
    pub fn is_proposal(&self) -> bool {
        self.0.msg_type == MessageType::MsgPropose
    }

    /// Whether it brings entries for the log.
    pub fn brings_entries(&self) -> bool {
        matches!(self.0.msg_type, MessageType::MsgAppend | MessageType::MsgPropose)
            && !self.0.entries.is_empty()
    }

    /// The proposals that a follower forwards to this leader; none in any other message.
    pub fn proposals(&self) -> impl Iterator<Item = &Bytes> {
        let forwards = self.0.msg_type == MessageType::MsgPropose;
        self.0.entries.iter().filter(move |_| forwards).map(|entry| &entry.data)
    }

    /// How many bytes [`Message::encode`] makes of it.
    pub fn encoded_len(&self) -> usize {
        self.0.encoded_len()
    }

    /// Its bytes at the end of `into`, as [`Message::encode`] makes them.
    pub fn encode_into(&self, into: &mut Vec<u8>) {
        into.reserve(self.0.encoded_len());
        self.0.encode_raw(into);
    }

    /// Whether it may arrive more than once. A proposal on its way to the leader may not: each copy of it would take effect.
    pub fn may_repeat(&self) -> bool {
        self.0.msg_type != MessageType::MsgPropose
    }

    /// Its bytes (protobuf, raft's own field numbers).
    pub fn encode(&self) -> Bytes {
        self.0.encode_to_vec().into()
    }

    /// Reads back what [`Message::encode`] wrote, of all messages of a frame as much as the allowance has. Payloads share the buffer.
    pub fn decode(bytes: Bytes, allowance: &mut Allowance) -> Result<Self, MessageError> {
        allowance.take(&bytes)?;
        Ok(Self(eraftpb::Message::decode(bytes)?))
    }
}

/// What happens to a member in a change of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// It votes from now on; a learner is promoted.
    Voter,
    /// It receives the log without a vote; a voter is demoted.
    Learner,
    /// It leaves. Its id is never used again.
    Remove,
}

/// A change of the configuration. More than one member at once passes through a joint configuration, which raft leaves
/// by itself (raft dissertation, section 4.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfChange {
    /// What happens to whom.
    pub changes: Vec<(MemberId, MemberChange)>,
    /// Carried along for whoever applies the entry.
    pub context: Bytes,
}

impl ConfChange {
    /// Reads the data of a [`EntryKind::ConfChangeV2`] entry. No changes at all ends a joint configuration.
    pub fn decode(data: Bytes) -> Result<Self, prost::DecodeError> {
        let change = ConfChangeV2::decode(data)?;
        let ours = |single: &ConfChangeSingle| {
            let kind = match single.change_type {
                ConfChangeType::AddNode => MemberChange::Voter,
                ConfChangeType::AddLearnerNode => MemberChange::Learner,
                ConfChangeType::RemoveNode => MemberChange::Remove,
            };
            (MemberId(single.node_id), kind)
        };
        Ok(Self { changes: change.changes.iter().map(ours).collect(), context: change.context })
    }

    pub(super) fn to_raft(&self) -> ConfChangeV2 {
        let theirs = |&(member, change): &(MemberId, MemberChange)| ConfChangeSingle {
            change_type: match change {
                MemberChange::Voter => ConfChangeType::AddNode,
                MemberChange::Learner => ConfChangeType::AddLearnerNode,
                MemberChange::Remove => ConfChangeType::RemoveNode,
            },
            node_id: member.0,
        };
        ConfChangeV2 {
            changes: self.changes.iter().map(theirs).collect(),
            context: self.context.clone(),
            ..ConfChangeV2::default()
        }
    }
}

pub(super) fn entry_from_raft(entry: Entry) -> LogEntry {
    let kind = match entry.entry_type {
        EntryType::EntryNormal => EntryKind::Normal,
        EntryType::EntryConfChange => EntryKind::ConfChange,
        EntryType::EntryConfChangeV2 => EntryKind::ConfChangeV2,
    };
    LogEntry { index: LogIndex(entry.index), term: Term(entry.term), kind, data: entry.data }
}

pub(super) fn entry_to_raft(entry: LogEntry) -> Entry {
    let entry_type = match entry.kind {
        EntryKind::Normal => EntryType::EntryNormal,
        EntryKind::ConfChange => EntryType::EntryConfChange,
        EntryKind::ConfChangeV2 => EntryType::EntryConfChangeV2,
    };
    Entry { entry_type, term: entry.term.0, index: entry.index.0, data: entry.data, context: Bytes::new() }
}

pub(super) fn hard_state_from_raft(state: &eraftpb::HardState) -> HardState {
    HardState {
        term: Term(state.term),
        vote: (state.vote != raft::INVALID_ID).then_some(MemberId(state.vote)),
        commit: LogIndex(state.commit),
    }
}

/// Sorted: raft's order is that of a hash map, and what is stored and compared must not depend on one.
pub(super) fn conf_state_from_raft(state: &eraftpb::ConfState) -> ConfState {
    let sorted = |ids: &[u64]| {
        let mut members: Vec<MemberId> = ids.iter().copied().map(MemberId).collect();
        members.sort_unstable();
        members
    };
    ConfState {
        voters: sorted(&state.voters),
        learners: sorted(&state.learners),
        voters_outgoing: sorted(&state.voters_outgoing),
        learners_next: sorted(&state.learners_next),
        auto_leave: state.auto_leave,
    }
}

pub(super) fn conf_state_to_raft(state: &ConfState) -> eraftpb::ConfState {
    let ids = |members: &[MemberId]| members.iter().map(|member| member.0).collect();
    eraftpb::ConfState {
        voters: ids(&state.voters),
        learners: ids(&state.learners),
        voters_outgoing: ids(&state.voters_outgoing),
        learners_next: ids(&state.learners_next),
        auto_leave: state.auto_leave,
    }
}
