//! One machine's disk, and a node's start from it.
//!
//! Owns: the two directories of a node, how they fail together, the order of founding and of opening. Must never: differ from
//! `app::data_dir` in that order. Driven by `world`.
//!
//! ```text
//! root   identity.0 identity.1 store.redb        wal   the log's segments
//! ```

use std::error::Error;
use std::io;

use covey::disk::sim::{FaultPlan, SimBackend, SimDir, Survival};
use covey::disk::{Directory, File};
use covey::formation::{
    ClusterRoot, Founding, Identity, NodeKey, Stage, create, found_solo, load, mark_established, start,
};
use covey::ids::MemberId;
use covey::prng::Prng;
use covey::store::{Store, StoreOptions};
use covey::wal::{self, Recovered, Wal};
use ring::signature::{Ed25519KeyPair, KeyPair};

const STORE: &str = "store.redb";
const STORE_UNFINISHED: &str = "store.redb.new";

/// A disk with a node's two directories. They fail and come back together.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) root: SimDir,
    pub(crate) wal: SimDir,
}

/// One of the two directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Root,
    Wal,
}

impl Disk {
    pub(crate) fn new(prng: &mut Prng) -> Self {
        Self { root: SimDir::new(prng.next_u64()), wal: SimDir::new(prng.next_u64()) }
    }

    pub(crate) fn part(&self, part: Part) -> &SimDir {
        match part {
            Part::Root => &self.root,
            Part::Wal => &self.wal,
        }
    }

    /// Whether the machine has power: a crash in one directory is a crash of both.
    pub(crate) fn has_power(&self) -> bool {
        self.root.list().is_ok() && self.wal.list().is_ok()
    }

    /// What the next start finds after the power was cut just now.
    pub(crate) fn cut_power(&self, survival: Survival) -> Disk {
        self.root.halt();
        self.wal.halt();
        Disk { root: self.root.crash(survival), wal: self.wal.crash(survival) }
    }

    /// What the next process finds after this one died: the page cache, of which nothing is any more durable than before.
    pub(crate) fn kill_process(&self) -> Disk {
        Disk { root: self.root.detach(), wal: self.wal.detach() }
    }

    /// No faults from now on.
    pub(crate) fn heal(&self) {
        self.root.plan(FaultPlan::default());
        self.wal.plan(FaultPlan::default());
    }

    pub(crate) fn operations(&self) -> u64 {
        self.root.operations() + self.wal.operations()
    }
}

/// What every member of a cluster knows of it, and how its disks are used.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    pub(crate) foundings: Vec<Founding>,
    pub(crate) wal: wal::Options,
    pub(crate) store: StoreOptions,
}

impl Cluster {
    /// A cluster whose members all vote from the start.
    pub(crate) fn new(members: usize, wal: wal::Options, store: StoreOptions) -> Self {
        let mut foundings: Vec<_> = (1..=members)
            .map(|n| {
                let n = u8::try_from(n).expect("few members");
                found_solo(node_key(n), ClusterRoot([7; 32]), u64::from(n))
            })
            .collect();
        let voters: Vec<MemberId> = foundings.iter().map(|founding| founding.identity.member).collect();
        for founding in &mut foundings {
            founding.meta.conf_state.voters.clone_from(&voters);
            founding.meta.conf_state.voters.sort_unstable();
        }
        Self { foundings, wal, store }
    }

    pub(crate) fn member(&self, host: usize) -> MemberId {
        self.foundings[host].identity.member
    }
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

/// What a start found on the disk.
pub(crate) struct Opened {
    pub(crate) identity: Identity,
    pub(crate) store: Store,
    pub(crate) wal: Wal<SimDir>,
    pub(crate) recovered: Recovered,
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
pub(crate) fn open(disk: &Disk, cluster: &Cluster, host: usize, nonce: u64) -> Result<Opened, Refused> {
    let founding = &cluster.foundings[host];
    if load(&disk.root).map_err(|error| chain(&error))?.is_none() {
        let names = disk.root.list().map_err(|error| chain(&error))?;
        assert!(!names.iter().any(|name| name == STORE), "a store without an identity");
        create(&disk.root, &founding.identity).map_err(|error| chain(&error))?;
    }
    let started = start(&disk.root, nonce).map_err(|error| chain(&error))?;
    let identity = started.expect("the record that was just there");
    match identity.stage {
        Stage::Founding => establish(disk, cluster, founding, identity),
        Stage::Established => reopen(disk, cluster, identity),
    }
}

fn establish(
    disk: &Disk,
    cluster: &Cluster,
    founding: &Founding,
    identity: Identity,
) -> Result<Opened, Refused> {
    clear(disk).map_err(|error| chain(&error))?;
    let file = unfinished_store(&disk.root).map_err(|error| chain(&error))?;
    let mut store = Store::open(SimBackend::new(file), cluster.store).map_err(|error| chain(&error))?;
    disk.root.rename(STORE_UNFINISHED, STORE).map_err(|error| chain(&error))?;
    disk.root.sync().map_err(|error| chain(&error))?;
    store.initialise(&founding.meta).map_err(|error| chain(&error))?;
    let wal = Wal::create(disk.wal.clone(), log_of(&identity), founding.log_start, cluster.wal)
        .map_err(|error| chain(&error))?;
    disk.root.sync().map_err(|error| chain(&error))?;
    mark_established(&disk.root).map_err(|error| chain(&error))?;
    let recovered =
        Recovered { hard_state: wal.hard_state(), start: wal.start(), entries: Vec::new(), tear: None };
    Ok(Opened { identity, store, wal, recovered })
}

fn clear(disk: &Disk) -> io::Result<()> {
    if disk.root.list()?.iter().any(|name| name == STORE) {
        disk.root.remove(STORE)?;
    }
    for name in disk.wal.list()? {
        disk.wal.remove(&name)?;
    }
    Ok(())
}

fn unfinished_store(root: &SimDir) -> io::Result<<SimDir as Directory>::File> {
    if root.list()?.iter().any(|name| name == STORE_UNFINISHED) {
        let mut file = root.open(STORE_UNFINISHED)?;
        file.set_len(0)?;
        return Ok(file);
    }
    root.create(STORE_UNFINISHED)
}

fn reopen(disk: &Disk, cluster: &Cluster, identity: Identity) -> Result<Opened, Refused> {
    let file = disk.root.open(STORE).map_err(|error| format!("{STORE} is missing: {error}"))?;
    let store = Store::open(SimBackend::new(file), cluster.store).map_err(|error| chain(&error))?;
    if !store.is_initialised() {
        return Err(format!("{STORE} has lost its content"));
    }
    let (wal, recovered) =
        Wal::open(disk.wal.clone(), log_of(&identity), cluster.wal).map_err(|error| chain(&error))?;
    Ok(Opened { identity, store, wal, recovered })
}

fn log_of(identity: &Identity) -> wal::Identity {
    wal::Identity { cluster: identity.cluster(), member: identity.member }
}
