//! Newtypes for every identifier and counter that crosses a room's border.
//!
//! Owns: the types and their textual forms. Must never: allocate or generate an id
//! (formation and the cluster's log do). Driven by every other room.

use std::fmt;

use ring::digest::{SHA256, digest};

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            /// The value that follows this one.
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            /// Lowercase hex without padding, as etcd's tools print ids.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:x}", self.0)
            }
        }
    };
}

counter! {
    /// A raft term (raft dissertation, section 3.3).
    Term(u64)
}
counter! {
    /// A position in the raft log; 0 is before the first entry.
    LogIndex(u64)
}
counter! {
    /// A store revision: one counter for the whole key space, 1 when nothing was written yet.
    Revision(i64)
}
counter! {
    /// How often users, roles and permissions have changed; 1 when they never have.
    AuthRevision(u64)
}
counter! {
    /// How often this node has started; fsynced before its first packet.
    Incarnation(u64)
}
hex_id! {
    /// What the results of all applied entries have come to (`mvcc::digest`): equal on members that have applied the same.
    Digest(u64)
}
hex_id! {
    /// A member of the cluster: raft's node id and etcd's member ID. Never 0, never reused.
    MemberId(u64)
}
hex_id! {
    /// A cluster: the hash of its root public key. Never 0.
    ClusterId(u64)
}
hex_id! {
    /// A lease. 0 means "no lease"; negative ids are legal.
    LeaseId(i64)
}

/// One run of a node, from its start to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// How often the node has started.
    pub incarnation: Incarnation,
    /// The run's random number.
    pub boot_nonce: u64,
}

/// The public half of a node's Ed25519 key: what a node is known by on the network.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, ")")
    }
}

impl PublicKey {
    /// Its SHA-256: what people compare, and approve.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &self.0).as_ref());
        hash
    }
}

impl LeaseId {
    /// The value that stands for "no lease".
    pub const NONE: LeaseId = LeaseId(0);
}

/// One change inside the store: the revision, and the position of the change in that revision's transaction.
///
/// Ordered as etcd orders changes: by revision, then by position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId {
    /// The revision that the transaction made.
    pub main: Revision,
    /// The position in the transaction, from 0.
    pub sub: u32,
}

impl VersionId {
    /// The first change that a revision can hold.
    pub const fn first_of(main: Revision) -> Self {
        Self { main, sub: 0 }
    }
}

/// One proposal of one run of one node: `boot` is the run's nonce, `seq` counts within it.
///
/// Never used twice: the reply to an old run's proposal must not reach a new run's caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposalId {
    /// The boot nonce of the proposing node.
    pub boot: u64,
    /// Counts the proposals of that run, from 1.
    pub seq: u64,
}
