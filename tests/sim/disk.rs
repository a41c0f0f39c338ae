//! One machine's disk, and a node's start from it.
//!
//! Owns: what becomes of a disk between two runs of a node. Must never: know what lies where on it, or decide what a start makes of that
//! (`formation` does). Driven by `world`.

use std::error::Error;

use covey::disk::sim::{FaultPlan, SimDir, Survival};
use covey::disk::{Directory, File};
use covey::formation::{
    ClusterRoot, Content, DataDir, DiskOptions, Founding, Identity, NodeKey, STORE_NAME, Stage, distrust,
    found, found_solo, founded, joining_state, open as open_data_dir,
};
use covey::ids::{Digest, LeaseId, MemberId, PublicKey, VersionId};
use covey::prng::Prng;
use covey::store::{Change, ChangeKind, FoldBatch, Member};
use ring::signature::{Ed25519KeyPair, KeyPair};

/// A disk with a node's data directory as its root.
#[derive(Clone, Debug)]
pub(crate) struct Disk(SimDir);

impl Disk {
    pub(crate) fn new(prng: &mut Prng) -> Self {
        Self(SimDir::new(prng.next_u64()))
    }

    pub(crate) fn root(&self) -> &SimDir {
        &self.0
    }

    pub(crate) fn has_power(&self) -> bool {
        self.0.list().is_ok()
    }

    /// What the next start finds after the power was cut just now.
    pub(crate) fn cut_power(&self, survival: Survival) -> Disk {
        self.0.halt();
        Disk(self.0.crash(survival))
    }

    /// What the next process finds after this one died: the page cache, of which nothing is any more durable than before.
    pub(crate) fn kill_process(&self) -> Disk {
        Disk(self.0.detach())
    }

    /// A copy of what is on it at this moment.
    pub(crate) fn copy(&self) -> Disk {
        Disk(self.0.crash(Survival::Everything))
    }

    /// No faults from now on.
    pub(crate) fn heal(&self) {
        self.0.plan(FaultPlan::default());
    }

    pub(crate) fn operations(&self) -> u64 {
        self.0.operations()
    }
}

/// The nodes of a cluster, by host, and how their disks are used.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    /// Nodes that there have been.
    made: u8,
    options: DiskOptions,
}

/// A node as long as its disk lasts.
#[derive(Clone, Debug)]
struct Node {
    /// Which one, of all that there have been.
    number: u8,
    /// Where it is.
    place: u8,
    begins: Begins,
}

/// What a node begins with.
#[derive(Clone, Debug)]
enum Begins {
    /// It is in no cluster.
    Nowhere,
    /// As one of the first members.
    Founding(Box<Founding>),
    /// As a member that was added, told of the others.
    Joining { member: MemberId, members: Vec<Member> },
}

const ROOT: ClusterRoot = ClusterRoot([7; 32]);

impl Cluster {
    /// A cluster whose first members all vote from the start, and hosts for others.
    pub(crate) fn new(members: usize, spare: usize, options: DiskOptions) -> Self {
        let mut foundings: Vec<_> = (1..=members)
            .map(|n| {
                let n = u8::try_from(n).expect("few members");
                let mut founding = found_solo(node_key(n), ROOT, u64::from(n));
                founding.meta.members[0].attributes.peer_urls = vec![url_of(n)];
                founding
            })
            .collect();
        let voters: Vec<MemberId> = foundings.iter().map(|founding| founding.identity.member).collect();
        let members: Vec<Member> =
            foundings.iter().flat_map(|founding| founding.meta.members.clone()).collect();
        for founding in &mut foundings {
            founding.meta.members.clone_from(&members);
            founding.meta.members.sort_by_key(Member::id);
            founding.meta.conf_state.voters.clone_from(&voters);
            founding.meta.conf_state.voters.sort_unstable();
        }
        let founders = foundings.into_iter().map(|founding| Begins::Founding(Box::new(founding)));
        let begins = founders.chain((0..spare).map(|_| Begins::Nowhere));
        let nodes: Vec<Node> =
            (1..).zip(begins).map(|(number, begins)| Node { number, place: number, begins }).collect();
        Self { made: u8::try_from(nodes.len()).expect("few hosts"), nodes, options }
    }

    /// The members of the beginning, each with its place.
    pub(crate) fn first_members(&self) -> Vec<Member> {
        let first = self.nodes.iter().find_map(|node| match &node.begins {
            Begins::Founding(founding) => Some(founding.meta.members.clone()),
            Begins::Nowhere | Begins::Joining { .. } => None,
        });
        first.unwrap_or_default()
    }

    /// The member that a host's node is.
    pub(crate) fn member(&self, host: usize) -> Option<MemberId> {
        match &self.nodes[host].begins {
            Begins::Nowhere => None,
            Begins::Founding(founding) => Some(founding.identity.member),
            Begins::Joining { member, .. } => Some(*member),
        }
    }

    /// Where a host's node is found by others. A node that is there instead of one that was lost has the same place, other ones have not.
    pub(crate) fn url(&self, host: usize) -> String {
        url_of(self.nodes[host].place)
    }

    pub(crate) fn key(&self, host: usize) -> PublicKey {
        PublicKey(*node_key(self.nodes[host].number).public())
    }

    /// A host's node was told who it is, and who the others are.
    pub(crate) fn join(&mut self, host: usize, member: MemberId, members: Vec<Member>) {
        self.nodes[host].begins = Begins::Joining { member, members };
    }

    /// A host gets another node.
    pub(crate) fn replace(&mut self, host: usize) {
        self.made += 1;
        self.nodes[host] = Node { number: self.made, place: self.made, begins: Begins::Nowhere };
    }

    /// A host has lost its node, and has one with nothing but a new key in the same place.
    pub(crate) fn lose(&mut self, host: usize) {
        self.made += 1;
        self.nodes[host] = Node { number: self.made, begins: Begins::Nowhere, ..self.nodes[host].clone() };
    }

    /// What a host's node begins with: who it is, and its store's and its log's content.
    fn begins(&self, host: usize) -> Founding {
        let node = &self.nodes[host];
        match &node.begins {
            Begins::Nowhere => panic!("a node that is in no cluster does not start"),
            Begins::Founding(founding) => (**founding).clone(),
            Begins::Joining { member, members } => {
                let identity = found_solo(node_key(node.number), ROOT, u64::from(node.number)).identity;
                let (meta, log_start) = joining_state(members.clone());
                Founding { identity: Identity { member: *member, ..identity }, meta, log_start }
            }
        }
    }
}

fn url_of(node: u8) -> String {
    format!("http://node{node}:2380")
}

/// The key of a member, from a seed of one byte. PKCS #8 version 2 for Ed25519 (RFC 8410, section 7).
fn node_key(seed: u8) -> NodeKey {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("any seed makes a key");
    let mut der = vec![0x30, 0x51, 2, 1, 1, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend([seed; 32]);
    der.extend([0x81, 0x21, 0]);
    der.extend(pair.public_key().as_ref());
    NodeKey::from_pkcs8(der).expect("a key pair")
}

/// Why a start failed, with all causes in one line.
pub(crate) type Refused = String;

/// An error and its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Starts from a disk as `app` does; founds where there is nothing yet.
///
/// A lone node begins with nothing. The members of a cluster begin with each other as voters, which is content that the first start alone
/// could not know.
pub(crate) fn open(
    disk: &Disk,
    cluster: &Cluster,
    host: usize,
    nonce: u64,
) -> Result<DataDir<SimDir>, Refused> {
    let founding = cluster.begins(host);
    let first = if cluster.nodes.len() > 1 { Stage::Restoring } else { Stage::Founding };
    let stage = if let Some(identity) = founded(&disk.0).map_err(|error| chain(&error))? {
        identity.stage
    } else {
        let identity = Identity { stage: first, ..founding.identity.clone() };
        found(&disk.0, &identity).map_err(|error| chain(&error))?;
        first
    };
    let mut batches = std::iter::empty();
    let content = (stage == Stage::Restoring).then(|| Content {
        meta: founding.meta.clone(),
        batches: &mut batches,
        log_start: founding.log_start,
    });
    open_data_dir(&disk.0, nonce, content, cluster.options).map_err(|error| chain(&error))
}

/// Takes the first page of a store, without which it cannot be opened. No process runs.
pub(crate) fn ruin(disk: &Disk) {
    const PAGE: usize = 4096;
    let file = disk.root().open(STORE_NAME).expect("a disk without faults");
    file.write_at(0, &[0xee; PAGE]).and_then(|()| file.sync_data()).expect("a disk without faults");
}

/// Puts into a state what no entry of the log has put there, and notes that it is not to be trusted. No process runs.
pub(crate) fn spoil(disk: &Disk, cluster: &Cluster, number: usize, nonce: u64) {
    let mut data = open(disk, cluster, number, nonce).expect("a disk without faults");
    let mut meta = data.store.meta().clone();
    meta.revision = meta.revision.next();
    meta.digest = Digest(!meta.digest.0);
    let kind = ChangeKind::Put {
        value: "from nowhere".into(),
        create_revision: meta.revision,
        version: 1,
        lease: LeaseId::NONE,
    };
    let change = (VersionId { main: meta.revision, sub: 0 }, Change { key: "spoiled".into(), kind });
    let batch = FoldBatch { changes: [change].into_iter().collect(), leases: Vec::new(), sweep: None, meta };
    data.store.fold(&batch).expect("a disk without faults");
    distrust(disk.root()).expect("a disk without faults");
}
