//! What goes in and out of consensus, as values.
//!
//! Owns: shapes only. Must never: hold a type of the raft crate. Built and read by `node`.

use super::convert::Message;
use crate::ids::{LogIndex, MemberId, Term};
use crate::store::ConfState;
use crate::wal::{HardState, LogEntry, Position};

/// A batch for the disk; see [`Consensus::handle_persisted`]. Ids ascend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistId(pub u64);

/// What must be on disk, in one synced write, before raft goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Persist {
    /// To be given back.
    pub id: PersistId,
    /// The hard state, where it differs from what was handed out last.
    pub hard_state: Option<HardState>,
    /// Entries to append; the first one may replace an earlier entry of its index and everything after it.
    pub entries: Vec<LogEntry>,
}

/// What raft knows of a snapshot: the position whose state it is, and the configuration there. The state itself travels and is kept beside raft.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMark {
    /// The last entry whose effect is in it.
    pub position: Position,
    /// The configuration as of that entry.
    pub conf_state: ConfState,
}

/// One read-index round; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadRound(pub(super) u64);

/// What raft wants done.
#[derive(Debug, Default)]
pub struct Ready {
    /// The log begins anew here: the state that was expected at this position ([`Consensus::expect_snapshot`](super::Consensus::expect_snapshot))
    /// is to be installed, then the log reset to the position, then the persist written, which is there too. There is no other ready before
    /// [`Consensus::handle_installed`](super::Consensus::handle_installed).
    pub install: Option<SnapshotMark>,
    /// To be written and synced.
    pub persist: Option<Persist>,
    /// Committed and on this member's disk: to be applied, in order.
    pub committed: Vec<LogEntry>,
    /// Rounds that are confirmed: reads that joined them may be served from the state at or after the index.
    pub reads: Vec<(ReadRound, LogIndex)>,
    /// To be sent, each to its [`Message::to`]. Loss and delay are harmless, and for [`Message::may_repeat`] duplicates too.
    pub messages: Vec<Message>,
}

/// A member's part at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader, or waits for one.
    #[default]
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
    /// Has applied its own removal and takes no part any more.
    Removed,
}

/// Where a member stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreStatus {
    /// Who leads, as far as this member knows.
    pub leader: Option<MemberId>,
    /// The current term.
    pub term: Term,
    /// This member's part.
    pub role: Role,
    /// The last entry known to be committed.
    pub commit: LogIndex,
    /// The last entry in the log, on disk or on its way there.
    pub last: LogIndex,
    /// Its term.
    pub last_term: Term,
    /// This member leads, votes alone, has applied an entry of its own term, and no change of the configuration is in its log. There is no learner
    /// either: one acknowledges what it has passed on, and may have applied that before its leader has. Then nobody else
    /// can acknowledge a write, and every one acknowledged before, in earlier runs too, is in the published state: a linearizable read
    /// may skip the read-index round. Turns false before a change of the configuration leaves for the disk.
    pub sole_voter: bool,
}

/// Why raft did not take a proposal. Nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    /// There is no leader to propose to.
    #[error("no leader")]
    NoLeader,
    /// The leader hands over, or has too much uncommitted.
    #[error("the leader takes no proposals now")]
    Busy,
}

/// Why a change of the configuration was not proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfChangeRefusal {
    /// Only the leader proposes changes.
    #[error("not the leader")]
    NotLeader,
    /// One is under way, or a new leader has not applied all of its log yet.
    #[error("another change of the configuration is under way")]
    Pending,
    /// The change is empty.
    #[error("the change is empty")]
    Empty,
    /// See [`Dropped`].
    #[error(transparent)]
    Dropped(#[from] Dropped),
}

/// An entry that should change the configuration cannot be read: written by another version, or damaged. Fatal.
#[derive(Debug, thiserror::Error)]
#[error("log entry {index} is no change of the configuration that this version reads")]
pub struct ConfChangeUnreadable {
    /// The entry.
    pub index: LogIndex,
    /// What is wrong with its bytes; none when already its kind is unknown here.
    #[source]
    pub cause: Option<prost::DecodeError>,
}
