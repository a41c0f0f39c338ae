//! What the log says about the members of the cluster (API reference, section 4).
//!
//! Owns: the shape of the commands. Must never: depend on a setting of whoever executes it: what a setting decides comes with the command. Built by
//! `runtime`, executed by `machine`.

use crate::ids::{MemberId, PublicKey};

/// A change of the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberCommand {
    /// Keeps a place for a node; the state gives it its id.
    Add {
        /// Where the node will be. Not empty, no URL twice.
        peer_urls: Vec<String>,
        /// Whether it is to vote.
        votes: bool,
        /// Refuse it where it could leave the cluster without a majority that has started.
        strict: bool,
        /// Members that do not vote there may be, this one among them.
        learners_max: u64,
    },
    /// Gives a place to the node that holds a key, once and for all; the same key again changes nothing.
    Bind {
        /// The place.
        id: MemberId,
        /// The key.
        key: PublicKey,
    },
    /// Lets a member vote that only listened.
    Promote {
        /// Which.
        id: MemberId,
        /// As for [`MemberCommand::Add`].
        strict: bool,
    },
    /// Lets a member go.
    Remove {
        /// Which.
        id: MemberId,
        /// As for [`MemberCommand::Add`].
        strict: bool,
    },
    /// Says where a member is from now on.
    Update {
        /// Which.
        id: MemberId,
        /// Where; not empty, no URL twice.
        peer_urls: Vec<String>,
    },
    /// Lets other members vote than before, all at once. As a whole or not at all: who is demoted may go only because the others come.
    Revote {
        /// Who votes from now on; one that does already changes nothing.
        promote: Vec<MemberId>,
        /// Voters that only listen from now on.
        demote: Vec<MemberId>,
    },
}
