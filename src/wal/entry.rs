//! What the log holds, as values.
//!
//! Owns: the types that cross the log's border. Must never: know bytes on disk. Built by `consensus`.

use std::fmt;

use bytes::Bytes;

use crate::ids::{ClusterId, LogIndex, MemberId, Term};

/// Whose log it is; in the header of each segment and in each checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The member of it.
    pub member: MemberId,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {} of cluster {}", self.member, self.cluster)
    }
}

/// A place in the log: an index and the term of the entry there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The index; 0 is before the first entry.
    pub index: LogIndex,
    /// The term of its entry; 0 at index 0.
    pub term: Term,
}

/// What kind of content an entry has; raft's own kinds and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A command, or nothing (a leader's first entry).
    Normal = 0,
    /// A change of the configuration by one member.
    ConfChange = 1,
    /// A change of the configuration.
    ConfChangeV2 = 2,
}

/// One entry of the raft log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its position.
    pub index: LogIndex,
    /// The term of the leader that made it.
    pub term: Term,
    /// How to understand `data`.
    pub kind: EntryKind,
    /// Its content.
    pub data: Bytes,
}

impl LogEntry {
    /// What the entry takes in memory, in bytes; what bounds on queues of entries are measured in.
    pub fn memory_bytes(&self) -> usize {
        self.data.len() + size_of::<Self>()
    }
}

/// What a member must not forget (raft dissertation, figure 3.1), and the commit index as far as it was known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term it has seen.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<MemberId>,
    /// The commit index; a hint for a restart, which may lag.
    pub commit: LogIndex,
}

/// What one write makes durable: all of it, or after a crash nothing of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batch<'a> {
    /// The hard state, where it changed. A commit index that moved alone can wait for the next batch: raft needs it durable at no time.
    pub hard_state: Option<HardState>,
    /// Entries with consecutive indexes, terms never falling. Those at or below the log's last index replace it from there on.
    pub entries: &'a [LogEntry],
}
