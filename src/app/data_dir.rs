//! The data directory: made when a cluster is founded, opened again at every later start.
//!
//! Owns: what lies where, and the order in which it comes into being. Must never: take a damaged or half lost directory for a fresh
//! one. Driven by `app` before anything serves.
//!
//! ```text
//! DIR/identity.0 identity.1   who this node is, twice
//! DIR/store.redb              the state
//! DIR/wal/*                   the raft log
//! ```

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::disk::Directory;
use crate::formation::{
    ClusterRoot, Identity, KeyError, NodeKey, RecordError, Stage, create, first_state, found_solo, load,
    mark_established, start,
};
use crate::runtime::clock::random_u64;
use crate::runtime::files::{DirectoryError, DirectoryLock, RealDirectory};
use crate::store::{Store, StoreError, StoreOptions};
use crate::wal::{self, Recovered, Wal, WalError};

const STORE_FILE: &str = "store.redb";
const WAL_DIR: &str = "wal";
/// Readable by its owner only: it holds the node's key.
const DIR_MODE: u32 = 0o700;

/// Why a data directory cannot be used. Nothing in it was changed by the refusal.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system said no.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The directory cannot be opened, or another process has it.
    #[error("the data directory cannot be used")]
    Directory(#[from] DirectoryError),
    /// The identity record is damaged or of another version.
    #[error("the identity record cannot be used")]
    Record(#[from] RecordError),
    /// There is data without a record of whose it is.
    #[error(
        "{path} is there but the identity record is not: the directory is incomplete, and starting afresh would lose its data"
    )]
    IdentityLost {
        /// What was found.
        path: PathBuf,
    },
    /// The record is older than the data.
    #[error(
        "the identity record says that founding was never finished, but the log in {path} is in use: the newer copy of the record is damaged"
    )]
    RecordOutdated {
        /// The log.
        path: PathBuf,
    },
    /// The state that the record promises is not there.
    #[error("{path} is missing: the directory is incomplete, restore it whole")]
    StateLost {
        /// What was not found.
        path: PathBuf,
    },
    /// A fresh directory, and nobody said what to make of it.
    #[error(
        "the data directory {path} is empty, and this version forms clusters of one node only: start it with --solo"
    )]
    NothingToJoin {
        /// The directory.
        path: PathBuf,
    },
    /// The generated key was no key.
    #[error("cannot make the node's key")]
    Key(#[from] KeyError),
    /// The log is damaged, of another version or another member's.
    #[error("the log cannot be used")]
    Wal(#[from] WalError),
    /// The store is damaged or of another version.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
}

/// An open data directory of a founded node.
pub struct DataDir {
    /// Who the node is in this run; its incarnation is on disk.
    pub identity: Identity,
    /// The state.
    pub store: Store,
    /// The log, ready for the next batch.
    pub wal: Wal<RealDirectory>,
    /// What the log holds.
    pub recovered: Recovered,
    /// Keeps other processes out.
    pub lock: DirectoryLock,
}

/// How a data directory is opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Found a cluster of one in a fresh directory.
    pub solo: bool,
    /// The store's page cache in bytes.
    pub cache_bytes: usize,
}

impl DataDir {
    /// Opens `path`, making it first where it is missing. Founds a cluster where there is none and the options say so.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self, OpenError> {
        make_dir(path)?;
        let directory = RealDirectory::open(path)?;
        let lock = directory.lock()?;
        if load(&directory)?.is_none() {
            refuse_leftovers(path)?;
            if !options.solo {
                return Err(OpenError::NothingToJoin { path: path.to_owned() });
            }
            found(path, &directory)?;
        }
        let nonce = random_u64().map_err(failed("draw randomness for", path))?;
        // On disk before anything else happens in this run: a copy of this directory that starts too can be told apart.
        let Some(identity) = start(&directory, nonce)? else {
            return Err(OpenError::IdentityLost { path: path.to_owned() });
        };
        let (store, wal, recovered) = match identity.stage {
            Stage::Founding => establish(path, &directory, &identity, options)?,
            Stage::Established => reopen(path, &identity, options)?,
        };
        Ok(Self { identity, store, wal, recovered, lock })
    }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> OpenError + use<'a> {
    move |source| OpenError::Io { action, path: path.to_owned(), source }
}

fn make_dir(path: &Path) -> Result<(), OpenError> {
    DirBuilder::new().recursive(true).mode(DIR_MODE).create(path).map_err(failed("create", path))?;
    let mode = std::fs::metadata(path).map_err(failed("examine", path))?.permissions().mode();
    if mode & 0o077 != 0 {
        let mode = format!("{:o}", mode & 0o777);
        tracing::warn!(path = %path.display(), mode, "others may look into the data directory; 700 keeps them out");
    }
    // Without this a power cut could take the directory's name, or that of one above it, and everything that was acknowledged
    // with it. Also where they existed: whoever made them may not have got as far.
    for parent in path.ancestors().skip(1) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        match File::open(parent) {
            Ok(parent) => parent.sync_all().map_err(failed("sync", path))?,
            // A directory that we may not read is not one that we have made.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            Err(error) => return Err(failed("open", parent)(error)),
        }
    }
    Ok(())
}

/// A state without an identity is somebody's data, never a fresh start.
fn refuse_leftovers(path: &Path) -> Result<(), OpenError> {
    for name in [STORE_FILE, WAL_DIR] {
        let leftover = path.join(name);
        if leftover.try_exists().map_err(failed("look for", &leftover))? {
            return Err(OpenError::IdentityLost { path: leftover });
        }
    }
    Ok(())
}

fn found(path: &Path, directory: &RealDirectory) -> Result<(), OpenError> {
    let randomness = |_| failed("draw randomness for", path)(io::Error::other("no randomness"));
    let system = SystemRandom::new();
    let key = Ed25519KeyPair::generate_pkcs8(&system).map_err(randomness)?;
    let root = Ed25519KeyPair::generate_pkcs8(&system).map_err(randomness)?;
    let root = Ed25519KeyPair::from_pkcs8(root.as_ref()).map_err(|_| KeyError)?;
    let root = ClusterRoot(root.public_key().as_ref().try_into().map_err(|_| KeyError)?);
    let nonce = random_u64().map_err(failed("draw randomness for", path))?;
    let founding = found_solo(NodeKey::from_pkcs8(key.as_ref().to_vec())?, root, nonce);
    create(directory, &founding.identity)?;
    tracing::info!(
        cluster = %founding.identity.cluster(),
        member = %founding.identity.member,
        key = %founding.identity.key.fingerprint(),
        "founded a cluster of one"
    );
    Ok(())
}

/// The record says that founding was not finished, yet the log holds entries: it is not the newest copy of the record that was read.
fn refuse_used(wal_path: &Path, identity: &Identity) -> Result<(), OpenError> {
    if !wal_path.try_exists().map_err(failed("look for", wal_path))? {
        return Ok(());
    }
    let directory = RealDirectory::open(wal_path)?;
    let options = wal_options(&directory, wal_path)?;
    // A log that does not open is half made, as it may be.
    match Wal::open(directory, wal_identity(identity), options) {
        Ok((_, recovered)) if !recovered.entries.is_empty() => {
            Err(OpenError::RecordOutdated { path: wal_path.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Makes store and log anew: the record says that nothing was ever acknowledged from what may lie there.
fn establish(
    path: &Path,
    directory: &RealDirectory,
    identity: &Identity,
    options: OpenOptions,
) -> Result<(Store, Wal<RealDirectory>, Recovered), OpenError> {
    let (store_path, wal_path) = (path.join(STORE_FILE), path.join(WAL_DIR));
    refuse_used(&wal_path, identity)?;
    match std::fs::remove_file(&store_path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &store_path)(error));
        }
        _ => {}
    }
    match std::fs::remove_dir_all(&wal_path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &wal_path)(error));
        }
        _ => {}
    }
    make_dir(&wal_path)?;
    let (meta, log_start) = first_state(identity.member);
    let mut store = Store::open_file(&store_path, StoreOptions { cache_bytes: options.cache_bytes })?;
    store.initialise(&meta)?;
    let wal_dir = RealDirectory::open(&wal_path)?;
    let wal_options = wal_options(&wal_dir, &wal_path)?;
    let wal = Wal::create(wal_dir, wal_identity(identity), log_start, wal_options)?;
    // The names of store and log must be durable before the record promises that they are there.
    directory.sync().map_err(failed("sync", path))?;
    mark_established(directory)?;
    let recovered =
        Recovered { hard_state: wal.hard_state(), start: wal.start(), entries: Vec::new(), tear: None };
    Ok((store, wal, recovered))
}

fn reopen(
    path: &Path,
    identity: &Identity,
    options: OpenOptions,
) -> Result<(Store, Wal<RealDirectory>, Recovered), OpenError> {
    let (store_path, wal_path) = (path.join(STORE_FILE), path.join(WAL_DIR));
    for needed in [&store_path, &wal_path] {
        if !needed.try_exists().map_err(failed("look for", needed))? {
            return Err(OpenError::StateLost { path: needed.clone() });
        }
    }
    let store = Store::open_file(&store_path, StoreOptions { cache_bytes: options.cache_bytes })?;
    if !store.is_initialised() {
        return Err(OpenError::StateLost { path: store_path });
    }
    let wal_dir = RealDirectory::open(&wal_path)?;
    let wal_options = wal_options(&wal_dir, &wal_path)?;
    let (wal, recovered) = Wal::open(wal_dir, wal_identity(identity), wal_options)?;
    if let Some(tear) = &recovered.tear {
        tracing::warn!(
            ?tear,
            "the last batch of the log was not finished when the machine stopped; it was never acknowledged"
        );
    }
    Ok((store, wal, recovered))
}

fn wal_identity(identity: &Identity) -> wal::Identity {
    wal::Identity { cluster: identity.cluster(), member: identity.member }
}

fn wal_options(directory: &RealDirectory, path: &Path) -> Result<wal::Options, OpenError> {
    let prefill = directory.overwrites_in_place().map_err(failed("examine the filesystem of", path))?;
    Ok(wal::Options { prefill, ..wal::Options::default() })
}
