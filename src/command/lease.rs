//! What the log says about leases (API reference, section 3).
//!
//! Owns: the shape of the commands. Must never: hold a point in time: when a lease ends is the leader's business and no entry's. Built by
//! `runtime` for clients and by the lessor, executed by `machine`.

use crate::ids::{LeaseId, LogIndex, Term};

/// A change of the leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseCommand {
    /// Makes a lease.
    Grant {
        /// Its id; not [`LeaseId::NONE`].
        id: LeaseId,
        /// Its time to live in seconds, as it is to be: what a client may ask for was decided before.
        ttl: i64,
    },
    /// Ends a lease and deletes its keys, in one revision.
    Revoke {
        /// Which.
        id: LeaseId,
    },
    /// Ends leases whose time is over and deletes the keys of each in a revision of its own. Does nothing in an entry of another term:
    /// the proposer may have been deposed before the entry came into the log, and a later leader may have renewed them.
    Expire {
        /// The term in which the proposer led.
        term: Term,
        /// Which, in the order in which they end.
        leases: Vec<LeaseInstance>,
    },
    /// Notes how much time leases have left, for the next leader. Does nothing in an entry of another term.
    Checkpoint {
        /// The term in which the proposer led.
        term: Term,
        /// Counts the proposer's checkpoints in that term. Means nothing to the state; it tells the proposer which of them was applied.
        sequence: u64,
        /// Each with the seconds that it has left, rounded up; 0 stands for its whole time to live.
        leases: Vec<(LeaseInstance, i64)>,
    },
}

/// A lease as it was granted once. A command that was proposed for it does not hit one that was granted under the same id later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseInstance {
    /// Its id.
    pub id: LeaseId,
    /// The entry that granted it.
    pub granted_at: LogIndex,
}
