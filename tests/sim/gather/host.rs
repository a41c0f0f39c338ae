//! A box: what it is in, and what it keeps when its power fails.
//!
//! Owns: its disk and its key. Must never: decide anything. Driven by `world` and `members`.

use std::collections::BTreeMap;

use covey::command::Tombstone;
use covey::formation::gathering::{AskId, Gathering, Network, Ticket};
use covey::formation::{ClusterRoot, NodeKey, Promise};
use covey::ids::{ClusterId, PublicKey};
use covey::prng::Prng;
use covey::time::Instant;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::members::Membership;

/// What a box keeps when its power fails.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) promise: Option<Promise>,
    pub(super) writes: Option<Write>,
    pub(super) cluster: Option<ClusterRoot>,
    /// How much of the cluster's log has certainly been applied, and that the cluster has ended for the node.
    pub(super) applied: usize,
    /// How much of the log is there, applied or not.
    pub(super) holds: usize,
    pub(super) leaving: bool,
    /// It had not.
    pub(super) deceived: bool,
    /// For which cluster the node has left another one.
    pub(super) winner: Option<ClusterId>,
    /// What became of the clusters that it was in, until its present one remembers that.
    pub(super) tombstones: Vec<Tombstone>,
}

/// What it will hold.
pub(super) struct Write(pub(super) Option<Promise>);

pub(super) enum Node {
    Off,
    Fresh { gathering: Box<Gathering>, tickets: BTreeMap<Ticket, (usize, u64, AskId)> },
    Member(ClusterRoot),
}

pub(super) struct Host {
    pub(super) node_key: NodeKey,
    pub(super) key: PublicKey,
    pub(super) disk: Disk,
    pub(super) node: Node,
    pub(super) boot: u64,
    pub(super) membership: Membership,
    pub(super) carrier_since: Option<Instant>,
    pub(super) last_up: Option<Instant>,
    pub(super) wake: Option<Instant>,
    pub(super) asked: BTreeMap<AskId, Instant>,
}

/// The key pair that follows from a seed, as a record has it (RFC 5958: version 2, with the public key).
fn node_key(seed: &[u8; 32]) -> NodeKey {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed");
    let head =
        [0x30, 0x51, 0x02, 0x01, 0x01, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    let der = [&head[..], seed, &[0x81, 0x21, 0x00], pair.public_key().as_ref()].concat();
    NodeKey::from_pkcs8(der).expect("a key")
}

impl Host {
    pub(super) fn new(prng: &mut Prng) -> Self {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&prng.next_u64().to_le_bytes());
        let node_key = node_key(&seed);
        Self {
            key: PublicKey(*node_key.public()),
            node_key,
            disk: Disk::default(),
            node: Node::Off,
            boot: 0,
            membership: Membership::default(),
            carrier_since: None,
            last_up: None,
            wake: None,
            asked: BTreeMap::new(),
        }
    }

    pub(super) fn network(&self) -> Network {
        Network { carrier_since: self.carrier_since, last_up: self.last_up }
    }

    pub(super) fn fresh(&mut self, boot: u64) -> Option<&mut Gathering> {
        match &mut self.node {
            Node::Fresh { gathering, .. } if self.boot == boot => Some(gathering),
            _ => None,
        }
    }
}
