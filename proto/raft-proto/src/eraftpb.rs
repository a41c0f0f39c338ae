//! The messages and enums, with the names and field numbers of raft-rs' `eraftpb.proto`.
//!
//! Numbers are never given a new meaning: they are on disks and on the wire between members of
//! different versions.

use prost::bytes::Bytes;

use crate::codec::{enumeration, message};

enumeration! {
    /// What the data of an [`Entry`] is.
    EntryType {
        /// A command for the state machine; empty data is what a new leader commits first.
        #[default]
        EntryNormal = 0,
        /// An encoded [`ConfChange`].
        EntryConfChange = 1,
        /// An encoded [`ConfChangeV2`]; empty data leaves a joint configuration.
        EntryConfChangeV2 = 2,
    }
}

message! {
    /// An entry of the log. Number 5 was `sync_log`, which raft 0.7 no longer reads.
    Entry {
        /// What `data` is.
        entry_type: EntryType = 1,
        /// The term of the leader that appended the entry.
        term: u64 = 2,
        /// The position in the log, from 1.
        index: u64 = 3,
        /// The command or the configuration change.
        data: Bytes = 4,
        /// Whatever the proposer gave raft to carry along.
        context: Bytes = 6,
    }
}

message! {
    /// Where in the log a snapshot was taken.
    SnapshotMetadata {
        /// The configuration at `index`.
        conf_state: Option<ConfState> = 1,
        /// The last entry that the snapshot covers.
        index: u64 = 2,
        /// The term of that entry.
        term: u64 = 3,
    }
}

message! {
    /// A state machine that replaces the log up to and including an index.
    Snapshot {
        /// Opaque to raft.
        data: Bytes = 1,
        /// Where it was taken.
        metadata: Option<SnapshotMetadata> = 2,
    }
}

enumeration! {
    /// What a [`Message`] asks for or answers. `MsgHup`, `MsgBeat`, `MsgUnreachable`,
    /// `MsgSnapStatus` and `MsgCheckQuorum` are only for a node to itself.
    #[allow(missing_docs, reason = "the names are raft's, and explained there")]
    MessageType {
        #[default]
        MsgHup = 0,
        MsgBeat = 1,
        MsgPropose = 2,
        MsgAppend = 3,
        MsgAppendResponse = 4,
        MsgRequestVote = 5,
        MsgRequestVoteResponse = 6,
        MsgSnapshot = 7,
        MsgHeartbeat = 8,
        MsgHeartbeatResponse = 9,
        MsgUnreachable = 10,
        MsgSnapStatus = 11,
        MsgCheckQuorum = 12,
        MsgTransferLeader = 13,
        MsgTimeoutNow = 14,
        MsgReadIndex = 15,
        MsgReadIndexResp = 16,
        MsgRequestPreVote = 17,
        MsgRequestPreVoteResponse = 18,
    }
}

message! {
    /// A message between members. Which fields mean something depends on `msg_type`.
    Message {
        /// What the message asks for or answers.
        msg_type: MessageType = 1,
        /// The id of the receiving node.
        to: u64 = 2,
        /// The id of the sending node; 0 in a message of a node to itself.
        from: u64 = 3,
        /// The sender's term; 0 in a forwarded proposal or read index request.
        term: u64 = 4,
        /// The term of the entry at `index`.
        log_term: u64 = 5,
        /// `MsgAppend`: the entry before `entries`. Responses: the last matching or the refused one.
        index: u64 = 6,
        /// The entries to append or propose; the context of a read index request in the first.
        entries: Vec<Entry> = 7,
        /// The sender's commit index.
        commit: u64 = 8,
        /// The state to install, in `MsgSnapshot`.
        snapshot: Option<Snapshot> = 9,
        /// Whether a response refuses.
        reject: bool = 10,
        /// Where a refusing follower thinks the logs may still match.
        reject_hint: u64 = 11,
        /// Ties a heartbeat to a read index request; marks the vote of a leader transfer.
        context: Bytes = 12,
        /// The index from which a follower asks for a snapshot; 0 for none.
        request_snapshot: u64 = 13,
        /// `priority` before it had a sign; still read from senders that set only this.
        deprecated_priority: u64 = 14,
        /// The term of the entry at `commit`.
        commit_term: u64 = 15,
        /// The candidate's priority in an election.
        priority: i64 = 16,
    }
}

message! {
    /// What a node must have on disk before it answers.
    HardState {
        /// The latest term seen.
        term: u64 = 1,
        /// Whom this node voted for in `term`; 0 for nobody.
        vote: u64 = 2,
        /// The highest entry known to be committed.
        commit: u64 = 3,
    }
}

enumeration! {
    /// How a [`ConfChangeV2`] passes through a joint configuration.
    ConfChangeTransition {
        /// Only if there is more than one change; raft leaves it by itself.
        #[default]
        Auto = 0,
        /// Always; raft leaves it by itself.
        Implicit = 1,
        /// Always; the application leaves it, by proposing an empty change.
        Explicit = 2,
    }
}

message! {
    /// A configuration of the cluster, as node ids. The order of ids carries no meaning; see
    /// [`conf_state_eq`](crate::conf_state_eq).
    ConfState {
        /// The voters; in a joint configuration those of the incoming half.
        voters: Vec<u64> = 1,
        /// The members without a vote.
        learners: Vec<u64> = 2,
        /// The voters of the outgoing half; empty unless the configuration is joint.
        voters_outgoing: Vec<u64> = 3,
        /// The outgoing voters that become learners once the joint configuration is left.
        learners_next: Vec<u64> = 4,
        /// Whether raft leaves the joint configuration by itself.
        auto_leave: bool = 5,
    }
}

enumeration! {
    /// What happens to a node in a configuration change.
    ConfChangeType {
        /// It becomes a voter.
        #[default]
        AddNode = 0,
        /// It leaves the configuration.
        RemoveNode = 1,
        /// It becomes a learner.
        AddLearnerNode = 2,
    }
}

message! {
    /// The older form of a configuration change, of one node.
    ConfChange {
        /// The proposer's; raft does not look at it.
        id: u64 = 1,
        /// What happens to the node.
        change_type: ConfChangeType = 2,
        /// The id of the node.
        node_id: u64 = 3,
        /// Opaque to raft.
        context: Bytes = 4,
    }
}

message! {
    /// One step of a [`ConfChangeV2`].
    ConfChangeSingle {
        /// What happens to the node.
        change_type: ConfChangeType = 1,
        /// The id of the node.
        node_id: u64 = 2,
    }
}

message! {
    /// A configuration change of any number of nodes. It takes effect when it is applied, not when
    /// it is appended.
    ConfChangeV2 {
        /// Whether and how it passes through a joint configuration.
        transition: ConfChangeTransition = 1,
        /// The steps; none leaves a joint configuration.
        changes: Vec<ConfChangeSingle> = 2,
        /// Opaque to raft.
        context: Bytes = 3,
    }
}
