//! A whole member as sans-io machines joined by messages.
//!
//! Owns: [`Core`] (consensus), [`Applier`] (state), [`LogWriter`] and [`Checkpointer`] (the turns on the two disks), and how they begin
//! from what is on disk. Must never: know threads, clocks or sockets, or reach a disk but through the seams of `wal` and `store`. Driven
//! by `runtime`, which gives each its thread, and by the simulator, which runs all on one.
//!
//! ```text
//!            proposals, reads, messages                         entries
//! callers ───────────────────────────► Core ──────── Apply ─────────────► Applier ── Publish, Replies ──► callers
//!                                     │  ▲  ▲ ◄───── handle_applied ────────┘ │  ▲
//!                             Persist │  │  └─────── handle_checkpointed ──┐  │  │ handle_folded,
//!                                     ▼  │ handle_persisted               │  ▼  │ handle_compacted
//!                                    LogWriter                         Checkpointer  (Fold, CompactStart)
//! ```

mod alone;
mod applicants;
mod applier;
mod checkpointer;
mod core;
mod gathering;
mod growth;
mod lease_walk;
mod leases;
mod log_writer;
mod notices;
mod question;
mod reach;
mod reads;
mod reconcile;
mod serving;
mod source;
mod staging;
mod stall;
mod standing;
mod sweep;
mod trail;
mod transfer;
mod verdict;

use std::sync::Arc;

pub use self::core::{Core, CoreOutput, ReadId, RefusedWhy, Request};
pub use alone::{Alone, AloneError, go_on_alone};
pub use applicants::{Applicants, PendingNode};
pub use applier::{Applier, ApplierError, ApplierOutput, UNFOLDED_LOG_BYTES_MAX};
pub use checkpointer::{CheckpointJob, CheckpointOutput, CheckpointWork, Checkpointer};
pub use growth::VotePolicy;
pub use leases::{LeaseAnswer, LeaseRequest};
pub use log_writer::{LogJob, LogWriter};
pub use question::{DigestAt, Progress, QuestionError, Roster};
pub use reach::Reach;
pub use reads::ConfirmedReads;
pub use reconcile::{Membership, Target};
pub use source::TransferOutcome;
pub use transfer::{TransferContent, TransferMessage, TransferMessageError};
pub use verdict::{Verdict, judge};

use crate::consensus::{Consensus, Pace, Start, StartError};
use crate::formation::{LOG_NAME, STORE_NAME};
use crate::ids::MemberId;
use crate::prng::Prng;
use crate::store::{Base, StoreError};
use crate::time::Instant;
use crate::wal::{HardState, LogEntry, Position};

/// What a member begins with; all of it comes from disk or from above the determinism line.
pub struct Recovery {
    /// This member.
    pub member: MemberId,
    /// The random number of this run.
    pub boot_nonce: u64,
    /// The store's content. Where it is suspect, nothing is made of it before another member's has taken its place.
    pub base: Arc<Base>,
    /// The log's hard state.
    pub hard_state: HardState,
    /// The position that the log's first entry follows.
    pub log_start: Position,
    /// All entries of the log, the ones that the store has already included.
    pub entries: Vec<LogEntry>,
    /// The setting that the NOSPACE alarm is judged by, if there is a limit.
    pub quota_bytes: Option<u64>,
    /// How soon leaders are missed.
    pub pace: Pace,
    /// Randomness for election timeouts.
    pub prng: Prng,
}

/// Why a member cannot begin with what is on its disk.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// Log and store contradict each other.
    #[error("the log ({LOG_NAME}) and the store ({STORE_NAME}) contradict each other")]
    Start(#[from] StartError),
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
}

/// A member as it is after a start: the state is the store's, the entries after it are applied as raft finds them committed.
///
/// The state begins at the store's position and never at the hard state's commit: what was only applied in memory is gone.
pub fn recover(
    now: Instant,
    recovery: Recovery,
    logger: &slog::Logger,
) -> Result<(Core, Applier), RecoverError> {
    let meta = recovery.base.meta();
    let start = Start {
        member: recovery.member,
        boot_nonce: recovery.boot_nonce,
        applied: Position { index: meta.applied, term: meta.applied_term },
        conf_state: meta.conf_state.clone(),
        hard_state: recovery.hard_state,
        log_start: recovery.log_start,
        entries: recovery.entries,
        pace: recovery.pace,
        suspect: recovery.base.is_suspect(),
        removed: meta.removed.iter().any(|(gone, _)| *gone == recovery.member),
    };
    let consensus = Consensus::start(now, start, recovery.prng, logger)?;
    let applier = Applier::new(now, recovery.base, recovery.boot_nonce, recovery.quota_bytes)?;
    Ok((Core::new(now, consensus), applier))
}

#[cfg(test)]
mod driver_test;
#[cfg(test)]
mod exchange_test;
#[cfg(test)]
mod lease_test;
#[cfg(test)]
mod sweep_test;
