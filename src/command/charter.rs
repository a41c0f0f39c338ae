//! What the log says about the cluster itself: who may come in, which clients it knows, and whether it still may dissolve into another one.
//!
//! Owns: the shape of the commands. Must never: show a secret, or hold a point in time other than the cluster's own running time. Built by
//! `runtime` and `app`, executed by `machine`.

use std::fmt;

use bytes::Bytes;

use super::tombstone::Tombstone;
use crate::ids::{ClusterId, Incarnation, LogIndex, MemberId, PublicKey, Term};

/// What a token is known by; no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenId(pub [u8; 8]);

/// What proofs with a token are made with: it follows from the token's secret, and the secret does not follow from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenKey(pub [u8; 32]);

impl fmt::Debug for TokenKey {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(..)")
    }
}

/// The SHA-256 of a client certificate's `SubjectPublicKeyInfo`: what a client is known by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientKey(pub [u8; 32]);

impl fmt::Display for ClientKey {
    /// 64 lowercase hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientKey({self})")
    }
}

/// Who signs the certificates that clients see, and those that they show.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    /// Its certificate in DER.
    pub certificate: Bytes,
    /// Its key in PKCS #8.
    pub key: Bytes,
}

impl fmt::Debug for Authority {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({} bytes of certificate, ..)", self.certificate.len())
    }
}

/// What lets a node in. That the node has proven it is for the proposer to know, where the state cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is on the LAN, and the window is open.
    Window,
    /// It has proven to hold the token.
    Token(TokenId),
    /// An operator has approved its fingerprint.
    Approval,
    /// It has proven to hold the fleet's key.
    FleetKey,
}

/// A change of the charter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CharterCommand {
    /// Makes a node a member that does not vote yet. The same key again changes nothing and is told the same id, unless the node has been that member
    /// and has begun anew since: what it had as that is not there any more, its vote included, so it is another member now.
    Admit {
        /// The key that the node has proven to hold.
        key: PublicKey,
        /// What it is called.
        name: String,
        /// Where it is.
        peer_urls: Vec<String>,
        /// Why it may come in.
        by: Admission,
        /// The run in which it asks; 0 where others ask for it.
        run: Incarnation,
        /// The cluster that it is to leave for this one, where a member of that has asked for all of them.
        of: Option<ClusterId>,
    },
    /// Lets a member go that was let in by nobody's word and never came, once its time is over: nothing is held against it, and it may be let in anew.
    Forget {
        /// Which.
        member: MemberId,
    },
    /// The cluster has run for so long, in seconds; less than is known already changes nothing.
    Elapsed {
        /// Seconds of running time since the cluster was founded, as far as they were counted.
        to: u64,
    },
    /// Lets in whoever is on the LAN, from now on and for so long.
    OpenWindow {
        /// Seconds of running time.
        seconds: u64,
    },
    /// Closes the window at once.
    Seal,
    /// Lets the node with this fingerprint in, once.
    Approve {
        /// The SHA-256 of its public key.
        fingerprint: [u8; 32],
    },
    /// Makes a token that lets one node in, once. The same again changes nothing.
    CreateToken {
        /// What it is known by.
        id: TokenId,
        /// What proofs with it are made with.
        key: TokenKey,
        /// For how long it is good: seconds of running time.
        seconds: u64,
    },
    /// Forgets a token.
    RevokeToken {
        /// Which.
        id: TokenId,
    },
    /// Gives the cluster an authority, where it has none.
    Establish(Authority),
    /// Puts another authority in the place of the one that a removed member may know.
    ///
    /// Whoever is removed is sent the log until raft's configuration has let it go. So a leader proposes this only then, says of which removal it knew, and in which
    /// term it led: after another one, or from another leader, it does nothing, since somebody who was removed may have read it.
    ReplaceAuthority {
        /// The term of the leader that has made it.
        term: Term,
        /// The entry that has removed a member last.
        exposed: LogIndex,
        /// The new one.
        authority: Authority,
        /// Its certificate, signed by the one before.
        bridge: Bytes,
    },
    /// Accepts the client that holds a key. The same again changes nothing.
    IssueClient {
        /// The key.
        key: ClientKey,
        /// What the client is called.
        name: String,
    },
    /// Accepts that client no longer.
    RevokeClient {
        /// Which.
        key: ClientKey,
    },
    /// The client is given the present authority's certificate.
    RenewClient {
        /// Which.
        key: ClientKey,
    },
    /// Gives the cluster up in favour of another one, where no user has written to it yet. Nothing takes effect after that.
    Dissolve {
        /// The other one.
        winner: ClusterId,
    },
    /// Gives the cluster up in favour of another one because an operator orders it, whatever users have written to it. Nothing takes effect after that.
    Yield {
        /// The other one.
        winner: ClusterId,
        /// The key of its member that has taken the members of this cluster in. One that is a member here, too, may be of a cluster that is about to give
        /// itself up for this one: of two clusters that would end for each other neither does.
        witness: PublicKey,
        /// What the proposer knew of this cluster's log before it asked for that: whoever was forgotten since may have been of the other one.
        asked: LogIndex,
    },
    /// Remembers what became of another cluster, for its members that were away. The same again changes nothing. Refused where the cluster uses commands that have
    /// [`CharterCommand::BurySigned`].
    Bury(Tombstone),
    /// The same, where the signature is right: a word counts as that of who has signed it.
    BurySigned {
        /// What was said.
        tombstone: Tombstone,
        /// See [`Tombstone::is_signed`].
        ordered: Option<u64>,
    },
}
