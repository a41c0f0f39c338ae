//! Who a node is in a cluster.
//!
//! Owns: the facts and how ids follow from keys. Must never: be derived from anything that a copy of the disk shares with
//! another box (host name, address, machine id). Made by `found`, kept on disk by `record`.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::ids::{ClusterId, Incarnation, MemberId, PublicKey, Run};

/// Bytes of an Ed25519 public key.
pub const PUBLIC_KEY_BYTES: usize = 32;

/// How often the cluster was made anew by an operator from what was left of it; messages never cross generations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// How far the founding of the cluster on this node's disk has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// There is a key and nothing else: the node is in no cluster.
    Fresh,
    /// A cluster was found or founded with others, and store and log may be half made. Nothing was acknowledged and nobody was answered: the
    /// node may still begin as if it were fresh.
    Forming,
    /// Store and log may be missing or half made. Nothing was ever acknowledged: make them anew.
    Founding,
    /// As [`Stage::Founding`], but the store begins with content that only whoever founds has: nobody else may finish it.
    Restoring,
    /// Store and log are there. If one is not, it was lost.
    Established,
    /// The node is to be the only member of a new generation, and its state may not say so yet. It must not serve before that is done.
    Recovering,
    /// The node's cluster has ended for it. What it has of that goes into the archive, and then the node is in no cluster.
    Leaving,
    /// The directory is an old copy, or one of two: another run of the same member was seen that it knows nothing of. It must never vote again.
    Fenced,
}

/// The public key that stands for a cluster. Its private half is not kept: nothing is ever signed with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterRoot(pub [u8; PUBLIC_KEY_BYTES]);

impl ClusterRoot {
    /// The cluster's id: never 0, and as unlikely to repeat as the key.
    pub fn id(&self) -> ClusterId {
        ClusterId(hash_to_id(b"covey cluster id 1", &[&self.0]))
    }
}

/// A node's own key pair: what it is known by for as long as its disk lasts.
#[derive(Clone)]
pub struct NodeKey {
    pkcs8: Vec<u8>,
    public: [u8; PUBLIC_KEY_BYTES],
}

/// Bytes are not an Ed25519 key pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 key pair in PKCS #8")]
pub struct KeyError;

impl NodeKey {
    /// A generated key pair: PKCS #8 (version 2, with the public key), as `ring` makes it.
    pub fn from_pkcs8(pkcs8: Vec<u8>) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| KeyError)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| KeyError)?;
        Ok(Self { pkcs8, public })
    }

    /// The private half, for the one who signs with it.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public half.
    pub fn public(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        &self.public
    }

    /// What people compare.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&PublicKey(self.public))
    }
}

impl fmt::Debug for NodeKey {
    /// Without the private half.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", self.fingerprint())
    }
}

/// The SHA-256 of a node's public key, shown in groups of four hex digits. Of nodes that gather, the lowest one founds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; FINGERPRINT_BYTES]);

/// The bytes of a fingerprint.
pub const FINGERPRINT_BYTES: usize = 32;

impl Fingerprint {
    /// The fingerprint of a key.
    pub fn of(key: &PublicKey) -> Self {
        Self(key.fingerprint())
    }

    /// A fingerprint that somebody else has made.
    pub const fn from_bytes(bytes: [u8; FINGERPRINT_BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &[u8; FINGERPRINT_BYTES] {
        &self.0
    }

    /// Its first digits, enough for people to tell the nodes of a network apart.
    pub fn short(&self) -> String {
        let [a, b, c, d, ..] = self.0;
        format!("{a:02x}{b:02x} {c:02x}{d:02x}")
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, pair) in self.0.chunks(2).enumerate() {
            let gap = if n == 0 { "" } else { " " };
            write!(f, "{gap}{:02x}{:02x}", pair[0], pair[1])?;
        }
        Ok(())
    }
}

/// A text is no fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint has 64 hexadecimal digits")]
pub struct FingerprintError;

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Takes what is shown, also without the gaps and in capitals.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let mut hash = [0; 32];
        let mut digits = text.chars().filter(|c| *c != ' ').map(|c| c.to_digit(16));
        let mut digit = || digits.next().flatten().and_then(|digit| u8::try_from(digit).ok());
        for byte in &mut hash {
            let (high, low) = digit().zip(digit()).ok_or(FingerprintError)?;
            *byte = high << 4 | low;
        }
        match digits.next() {
            None => Ok(Self(hash)),
            Some(_) => Err(FingerprintError),
        }
    }
}

/// Who this node is, in this run.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The node's key pair.
    pub key: NodeKey,
    /// Which member of the cluster it is.
    pub member: MemberId,
    /// The cluster's root; its id follows.
    pub root: ClusterRoot,
    /// The cluster's generation.
    pub generation: Generation,
    /// How far founding has got.
    pub stage: Stage,
    /// How often the node has started.
    pub incarnation: Incarnation,
    /// The random number of this run.
    pub boot_nonce: u64,
    /// Whether this run has got so far that it may have been shown to somebody.
    pub shown: bool,
    /// The runs before that may have been, oldest first; of very many some in the middle are forgotten.
    pub earlier: Vec<Run>,
    /// Whom it leaves the founding to, while it is in no cluster.
    pub promise: Option<Promise>,
    /// The cluster for which its last one has given itself up, until it is in one again.
    pub winner: Option<ClusterId>,
}

/// The promise of a node that is in no cluster: for a while it neither founds one itself nor promises anybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Who may found.
    pub candidate: PublicKey,
    /// The candidate's attempt: random, so that no two are the same.
    pub round: u64,
}

impl Identity {
    /// The run that it is in.
    pub fn run(&self) -> Run {
        Run { incarnation: self.incarnation, boot_nonce: self.boot_nonce }
    }

    /// Whether that was, or is, a run of this directory. If not, this is a copy of another one, or an older state of itself.
    pub fn knows(&self, run: Run) -> bool {
        self.run() == run || self.earlier.contains(&run)
    }

    /// Whether that was before all runs that the record still lists. The cluster has noted a later one, and this directory knows it: who goes by an
    /// earlier one has only been away for long.
    pub fn is_forgotten(&self, run: Run) -> bool {
        self.earlier.first().is_some_and(|first| run.incarnation < first.incarnation)
    }

    /// The cluster that the node is a member of.
    pub fn cluster(&self) -> ClusterId {
        self.root.id()
    }
}

/// The id of a cluster's founder: nobody is there yet to allocate one.
pub(super) fn founder_id(key: &NodeKey, boot_nonce: u64) -> MemberId {
    MemberId(hash_to_id(b"covey founder id 1", &[&key.public, &boot_nonce.to_be_bytes()]))
}

/// The first eight bytes of a hash, where 0 stands for "none" and is stepped over.
pub(super) fn hash_to_id(label: &[u8], parts: &[&[u8]]) -> u64 {
    let mut counter = 0_u8;
    loop {
        let counter_bytes = [counter];
        let all: Vec<&[u8]> = [label, &counter_bytes].into_iter().chain(parts.iter().copied()).collect();
        let hash = sha256(&all);
        let id = hash.first_chunk::<8>().map_or(0, |first| u64::from_be_bytes(*first));
        if id != 0 {
            return id;
        }
        counter = counter.wrapping_add(1);
    }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, &parts.concat()).as_ref());
    hash
}

#[cfg(test)]
pub(super) fn test_key(seed: u8) -> NodeKey {
    // The smallest legal PKCS #8 for Ed25519 (RFC 8410, section 7, version 1) would lack the public key; version 2 carries it.
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let mut der = vec![0x30, 0x51, 0x02, 0x01, 0x01, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
    der.extend([0x04, 0x22, 0x04, 0x20]);
    der.extend([seed; 32]);
    der.extend([0x81, 0x21, 0x00]);
    der.extend(pair.public_key().as_ref());
    NodeKey::from_pkcs8(der).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_from_keys_and_are_never_zero() {
        let (one, two) = (test_key(1), test_key(2));
        assert_eq!(founder_id(&one, 5), founder_id(&one, 5));
        assert_ne!(founder_id(&one, 5), founder_id(&one, 6), "a node that founds again is another member");
        assert_ne!(founder_id(&one, 5), founder_id(&two, 5));
        assert_ne!(founder_id(&one, 5).0, 0);
        assert_ne!(ClusterRoot([1; 32]).id(), ClusterRoot([2; 32]).id());
        assert_ne!(ClusterRoot([1; 32]).id().0, 0);
    }

    #[test]
    fn a_key_shows_only_its_public_half() {
        let key = test_key(9);
        let shown = format!("{key:?}");
        let text = key.fingerprint().to_string();
        assert!(shown.contains(&text));
        assert_eq!(text.len(), 16 * 4 + 15);
        assert!(!shown.contains("0909"), "the seed is not shown");
        assert!(NodeKey::from_pkcs8(vec![1, 2, 3]).is_err());
    }

    #[test]
    fn a_fingerprint_is_read_as_it_is_shown_or_typed() {
        let print = test_key(9).fingerprint();
        let shown = print.to_string();
        let bare = shown.replace(' ', "");
        for text in [&shown, &bare, &bare.to_uppercase(), &format!(" {shown} ")] {
            assert_eq!(text.parse(), Ok(print), "{text}");
        }
        assert_ne!(test_key(8).fingerprint().to_string().parse(), Ok(print));
        let other = |text: &str| text.parse::<Fingerprint>();
        for bad in
            ["", &bare[1..], &format!("{bare}0"), &bare.replace(&bare[..1], "g"), &shown.replace(' ', ":")]
        {
            assert_eq!(other(bad), Err(FingerprintError), "{bad}");
        }
    }
}
