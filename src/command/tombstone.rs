//! A member's word that its cluster has given itself up.
//!
//! Owns: its shape, its bytes and what is signed. Must never: judge whether a word is true, or whose it may be: `formation` does that. Kept in the charter, executed by `machine`.
//!
//! ```text
//! signed      "covey tombstone 1"  cluster:u64  winner:u64  at:u64                    with the member's key (Ed25519), little endian
//!             "covey yield 2"  cluster:u64  winner:u64  at:u64  generation:u64        where an operator has ordered it
//! ```

use std::fmt;

use ring::signature::{ED25519, UnparsedPublicKey};

use crate::ids::{ClusterId, LogIndex, PublicKey};
use crate::limits::TOMBSTONES_MAX;
use crate::planted::{self, Bug};

/// Nothing else that is signed with a node's key begins like this: TLS has 64 blanks there.
const BY_ITSELF: &[u8] = b"covey tombstone 1";
/// The same where an operator has ordered the end: only of the generation that is signed with it.
const ORDERED: &[u8] = b"covey yield 2";

/// The bytes of a signature by a node's key (Ed25519).
pub const SIGNATURE_BYTES: usize = 64;

/// A member's word that its cluster has given itself up. Whether the signature is right, and whose key it is, only somebody can judge who knows the
/// members of that cluster (`formation` does).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tombstone {
    /// The cluster that has ended.
    pub cluster: ClusterId,
    /// The one that its members join.
    pub winner: ClusterId,
    /// The entry of its log that says so.
    pub at: LogIndex,
    /// The key of the member.
    pub signer: PublicKey,
    /// What it has signed all of this with.
    pub signature: [u8; SIGNATURE_BYTES],
}

/// The bytes of a tombstone: cluster, winner and position (u64 LE each), key, signature.
pub const TOMBSTONE_BYTES: usize = 3 * 8 + 32 + SIGNATURE_BYTES;

impl Tombstone {
    /// Its bytes.
    pub fn to_bytes(&self) -> [u8; TOMBSTONE_BYTES] {
        let mut bytes = [0; TOMBSTONE_BYTES];
        let numbers = [self.cluster.0, self.winner.0, self.at.0].map(u64::to_le_bytes);
        let parts = [numbers.as_flattened(), &self.signer.0, &self.signature].concat();
        bytes.copy_from_slice(&parts);
        bytes
    }

    /// Reads them back.
    pub fn from_bytes(bytes: &[u8; TOMBSTONE_BYTES]) -> Self {
        let number = |at: usize| u64::from_le_bytes(part(bytes, at));
        Self {
            cluster: ClusterId(number(0)),
            winner: ClusterId(number(8)),
            at: LogIndex(number(16)),
            signer: PublicKey(part(bytes, 24)),
            signature: part(bytes, 56),
        }
    }

    /// What its signature is over. `ordered`: by an operator, and of which generation of the cluster.
    pub fn signed(&self, ordered: Option<u64>) -> Vec<u8> {
        let numbers = [self.cluster.0, self.winner.0, self.at.0].map(u64::to_le_bytes);
        match ordered {
            Some(generation) => [ORDERED, numbers.as_flattened(), &generation.to_le_bytes()].concat(),
            None => [BY_ITSELF, numbers.as_flattened()].concat(),
        }
    }

    /// Whether the holder of the key has signed this, by itself or on an operator's order to this generation of the cluster. Members have to find the same: what is a
    /// right signature changes with a version of commands only.
    pub fn is_signed(&self, ordered: Option<u64>) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, self.signer.0);
        key.verify(&self.signed(ordered), &self.signature).is_ok()
    }

    /// Takes out of too many words, the latest at the end, those that may be missed first: of signers who are no members here the oldest, then the oldest of whoever has most.
    /// So nobody's words are pushed out by those that somebody else signs, as long as each has no more than its share.
    pub fn keep_some(words: &mut Vec<Self>, is_member: impl Fn(PublicKey) -> bool) {
        while words.len() > TOMBSTONES_MAX {
            let count = |signer| words.iter().filter(|word| word.signer == signer).count();
            let most = words.iter().map(|word| count(word.signer)).max();
            let stranger = words.iter().position(|word| !is_member(word.signer));
            let oldest = || words.iter().position(|word| Some(count(word.signer)) == most);
            let Some(place) = stranger.or_else(oldest) else { return };
            words.remove(if planted::has(Bug::BuryByAge) { 0 } else { place });
        }
    }
}

fn part<const N: usize>(bytes: &[u8; TOMBSTONE_BYTES], from: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[from..from + N]);
    part
}

impl fmt::Debug for Tombstone {
    /// Without the signature, which nobody reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, winner, at, signer, .. } = self;
        write!(f, "Tombstone({cluster} for {winner} at {at}, by {signer:?})")
    }
}
