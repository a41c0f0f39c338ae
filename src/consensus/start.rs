//! What a member starts from, and whether it can be true.
//!
//! Owns: the checks between the durable state and the durable log. Must never: repair: what contradicts itself was lost or mixed up, and
//! only an operator knows how. Driven by `Consensus::start`.

use super::ticks::Pace;
use crate::ids::{LogIndex, MemberId, Term};
use crate::store::ConfState;
use crate::wal::{HardState, LogEntry, Position};

/// What a member's raft starts from: the state's position and what the log on disk holds after it.
#[derive(Clone, Debug)]
pub struct Start {
    /// This member.
    pub member: MemberId,
    /// The random number of this run; makes the contexts of read rounds unique.
    pub boot_nonce: u64,
    /// The last entry whose effect is in the durable state.
    pub applied: Position,
    /// The configuration as of `applied`.
    pub conf_state: ConfState,
    /// What the log says was promised to others.
    pub hard_state: HardState,
    /// The position before the first of `entries`.
    pub log_start: Position,
    /// Everything in the log, also what is at or before `applied`.
    pub entries: Vec<LogEntry>,
    /// How soon leaders are missed.
    pub pace: Pace,
    /// The state is not to be trusted: the member leaves it to others to lead until it has another one.
    pub suspect: bool,
    /// The state says that the member was removed.
    pub removed: bool,
}

/// The durable state and the durable log contradict each other: something was lost or mixed up. Fatal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// Entries between the state and the log are missing.
    #[error(
        "the log begins after entry {log_start}, but the state ends at {applied}: entries between are lost"
    )]
    Gap {
        /// The state's last entry.
        applied: LogIndex,
        /// The position before the log's first entry.
        log_start: LogIndex,
    },
    /// The log ends before something that was on disk once.
    #[error("the log ends at entry {last}, but entry {known} was on disk: the log has lost its end")]
    Lost {
        /// The log's last entry.
        last: LogIndex,
        /// An entry that is known to have existed.
        known: LogIndex,
    },
    /// Log and state name different terms for the same entry: they are not from the same history.
    #[error("entry {index} has term {log} in the log and {state} in the state: they do not belong together")]
    TermMismatch {
        /// The entry.
        index: LogIndex,
        /// Its term in the log.
        log: Term,
        /// Its term in the state.
        state: Term,
    },
    /// The member's term is behind that of its own log.
    #[error("the log has entries of term {last}, but the member never got beyond term {term}")]
    TermBehind {
        /// The term in the hard state.
        term: Term,
        /// The term of the last entry.
        last: Term,
    },
    /// The configuration is none that raft accepts.
    #[error("the configuration in the state is not valid")]
    ConfState,
}

/// Raft stops the process on any of these; here they become errors that say what to do.
///
/// The configuration need not name the member. The state may be from before it was added: it catches up from there, and neither votes for itself nor
/// counts before it has come to that. Or from after it was removed, see [`Start::takes_part`].
pub(super) fn check(start: &Start) -> Result<(), StartError> {
    let (applied, log_start) = (start.applied.index, start.log_start.index);
    if log_start > applied {
        return Err(StartError::Gap { applied, log_start });
    }
    let last = LogIndex(log_start.0 + start.entries.len() as u64);
    let known = applied.max(start.hard_state.commit);
    if last < known {
        return Err(StartError::Lost { last, known });
    }
    let behind = usize::try_from(applied.0 - log_start.0).unwrap_or(usize::MAX);
    let log = if behind == 0 { start.log_start.term } else { start.entries[behind - 1].term };
    if log != start.applied.term {
        return Err(StartError::TermMismatch { index: applied, log, state: start.applied.term });
    }
    let (term, last_term) = (start.hard_state.term, start.entries.last().map(|entry| entry.term));
    if let Some(last) = last_term.filter(|&last| last > term) {
        return Err(StartError::TermBehind { term, last });
    }
    Ok(())
}

impl Start {
    /// Whether the member has not yet applied that it goes. As long as the configuration names it, its vote may be what lets it go.
    pub(super) fn takes_part(&self) -> bool {
        !self.removed || self.conf_state.names(self.member)
    }
}
