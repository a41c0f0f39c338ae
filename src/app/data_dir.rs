//! The data directory as the operating system has it: its path, its permissions, its lock.
//!
//! Owns: the making of the directory and the drawing of keys. Must never: decide what a directory's content means (`formation` does). Driven
//! by `app` before anything serves.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt as _};
use std::path::{Path, PathBuf};

use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::command::{NotUnderstood, Tombstone};
use crate::formation::{
    self, ClusterRoot, Content, DiskOptions, IDENTITY_DRAFT, Identity, KeyError, NodeKey, Promise, Stage,
    Welcome, drop_tombstones, found_solo, joining_state, keep_tombstones, kept_tombstones,
};
use crate::ids::{ClusterId, Incarnation, Revision};
use crate::mvcc::Facts;
use crate::runtime::clock::random_u64;
use crate::runtime::files::{DirectoryError, DirectoryLock, OWNER_ONLY, RealDirectory};
use crate::runtime::space;
use crate::store::Meta;
use crate::wal::Position;

/// Where the states of former clusters are.
pub(super) const ARCHIVE_NAME: &str = "archive";
/// So many are kept.
const ARCHIVES_MAX: usize = 2;
/// Behind the name of what a restore has not made to its end.
const RESTORING: &str = ".restoring";

const READ_TOMBSTONES: &str = "read what became of former clusters in";

/// Why a data directory cannot be used.
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
    /// What is in it is of no use.
    #[error("the data directory {path} cannot be used")]
    Content {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: formation::OpenError,
    },
    /// The cluster that it would join is ahead of this build.
    #[error("the node does not join")]
    NotUnderstood(#[from] NotUnderstood),
    /// The generated key was no key.
    #[error("cannot make the node's key")]
    Key(#[from] KeyError),
}

impl OpenError {
    /// Whether no further start helps, as long as nobody puts another program or another directory in place.
    pub(super) fn is_for_ever(&self) -> bool {
        match self {
            Self::Content { source, .. } => source.is_for_ever(),
            Self::NotUnderstood(_) => true,
            Self::Io { .. } | Self::Directory(_) | Self::Key(_) => false,
        }
    }
}

/// An open data directory of a founded node.
pub struct DataDir {
    /// What is in it.
    pub content: formation::DataDir<RealDirectory>,
    /// Keeps other processes out.
    pub lock: DirectoryLock,
}

/// What a data directory is opened for where nothing is in it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFresh {
    /// Found a cluster of one.
    Solo,
    /// Look for others.
    Meet,
}

/// How a data directory is opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// What to do in a fresh directory.
    pub when_fresh: WhenFresh,
    /// How its files are kept.
    pub disk: DiskOptions,
}

/// What a data directory was found to be.
pub enum Opened {
    /// Of a node in a cluster.
    Node(DataDir),
    /// Of a node that is in none yet.
    Fresh(FreshDir),
}

/// The data directory of a node that is in no cluster yet.
pub struct FreshDir {
    path: PathBuf,
    directory: RealDirectory,
    lock: DirectoryLock,
    disk: DiskOptions,
    /// The node's key.
    pub key: NodeKey,
    /// The run that it is in.
    pub run: Incarnation,
    /// Whom it has left the founding to, before this start.
    pub promise: Option<Promise>,
    /// The cluster for which its last one has given itself up.
    pub winner: Option<ClusterId>,
}

impl DataDir {
    /// Opens `path`, making it first where it is missing. Founds a cluster where there is none and the options say so.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Opened, OpenError> {
        refuse_unrestored(path)?;
        make_dir(path)?;
        let directory = RealDirectory::open(path)?;
        let lock = directory.lock()?;
        space::make_room(path);
        let mut identity = formation::founded(&directory).map_err(failed_content(path))?;
        if let Some(leaving) = identity.take_if(|identity| identity.stage == Stage::Leaving) {
            identity = Some(archive(path, &directory, &leaving)?);
        }
        let is_fresh = |identity: &Identity| matches!(identity.stage, Stage::Fresh | Stage::Forming);
        if identity.as_ref().is_none_or(is_fresh) {
            match (options.when_fresh, identity) {
                (WhenFresh::Solo, None) => drop(found(path, &directory, Stage::Founding)?),
                (WhenFresh::Solo, Some(known)) => {
                    let begun = new_cluster(path, known.key, Stage::Founding)?;
                    formation::take_up(&directory, &begun).map_err(failed_content(path))?;
                }
                (WhenFresh::Meet, known) => {
                    let identity = known.map_or_else(|| found(path, &directory, Stage::Fresh), Ok)?;
                    let (path, disk) = (path.to_owned(), options.disk);
                    let Identity { key, promise, winner, incarnation: run, .. } = identity;
                    let fresh = FreshDir { path, directory, lock, disk, key, run, promise, winner };
                    return Ok(Opened::Fresh(fresh));
                }
            }
        }
        let nonce = random_u64().map_err(failed("draw randomness for", path))?;
        let content = formation::open(&directory, nonce, None, options.disk).map_err(failed_content(path))?;
        if let Some(tear) = &content.recovered.tear {
            tracing::warn!(
                file = tear.file,
                offset = tear.offset,
                "the last batch of the log was not finished when the machine stopped; it was never acknowledged"
            );
        }
        if let Some(damage) = &content.damage {
            tracing::error!(
                error = %super::chain(damage),
                "the store cannot be opened: another member's state takes its place"
            );
        }
        Ok(Opened::Node(Self { content, lock }))
    }
}

impl DataDir {
    /// Notes that the node's cluster has ended for it, and for which other one, if for any: the next opening archives what it has of that. Its lock must be
    /// held. Where the cluster itself has said so, in its charter, what others may need that were away comes first.
    pub(super) fn leave(
        path: &Path,
        identity: &Identity,
        facts: &Facts,
        winner: Option<ClusterId>,
    ) -> Result<(), OpenError> {
        let root = RealDirectory::open(path)?;
        if let Some(end) = facts.charter.dissolved {
            let kept = kept_tombstones(&root).map_err(failed(READ_TOMBSTONES, path))?;
            let own = formation::sign(&identity.key, identity.cluster(), identity.generation, end);
            let all = formation::taken_along(own, facts, &kept);
            if !all.is_empty() {
                keep_tombstones(&root, &all)
                    .map_err(failed("write what became of the cluster into", path))?;
            }
        }
        formation::leave(&root, winner).map_err(failed_content(path))
    }

    /// What became of clusters that the node comes from, as far as its present one has not noted that yet.
    pub(super) fn tombstones(path: &Path) -> Result<Vec<Tombstone>, OpenError> {
        kept_tombstones(&RealDirectory::open(path)?).map_err(failed(READ_TOMBSTONES, path))
    }

    /// It has.
    pub(super) fn forget_tombstones(path: &Path) -> Result<(), OpenError> {
        let dropped = drop_tombstones(&RealDirectory::open(path)?);
        dropped.map_err(failed("remove what became of former clusters from", path))
    }

    /// Notes that the data directory must never take part in its cluster again. Its lock must be held.
    pub fn fence(path: &Path) -> Result<(), OpenError> {
        formation::fence(&RealDirectory::open(path)?).map_err(failed_content(path))
    }

    /// Notes that the state is not to be trusted, and another member's has to take its place. Its lock must be held.
    pub fn distrust(path: &Path) -> Result<(), OpenError> {
        formation::distrust(&RealDirectory::open(path)?).map_err(failed_content(path))
    }

    /// Notes that redb has stopped at one of the files of states. Its lock must be held.
    pub fn note_damage(path: &Path) -> Result<(), OpenError> {
        formation::note_damage(&RealDirectory::open(path)?).map_err(failed_content(path))
    }

    /// The same while it is opened; whether that helps the next start.
    pub fn note_damage_at_start(path: &Path) -> Result<bool, OpenError> {
        formation::note_damage_at_start(&RealDirectory::open(path)?).map_err(failed_content(path))
    }
}

/// Where the state of the cluster that a node leaves goes; the same until the node is in none.
fn shelf_for(path: &Path, leaving: &Identity) -> PathBuf {
    path.join(ARCHIVE_NAME).join(format!("{}-{}", leaving.cluster(), leaving.incarnation))
}

/// Puts what a node has of a cluster that has ended for it out of its way, and the node into no cluster. What was cut off before is gone on with.
fn archive(path: &Path, directory: &RealDirectory, leaving: &Identity) -> Result<Identity, OpenError> {
    let (shelves, shelf) = (path.join(ARCHIVE_NAME), shelf_for(path, leaving));
    DirBuilder::new().recursive(true).mode(OWNER_ONLY).create(&shelf).map_err(failed("create", &shelf))?;
    for name in formation::STATE_NAMES {
        match std::fs::rename(path.join(name), shelf.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("archive", path)(error));
            }
            _ => {}
        }
    }
    for directory in [&shelf, &shelves, &path.to_owned()] {
        File::open(directory).and_then(|open| open.sync_all()).map_err(failed("sync", directory))?;
    }
    // Before the last step, so that one that is cut off is done again. What cannot be tidied up keeps no node from its next cluster.
    if let Err(error) = prune(&shelves, &shelf) {
        tracing::warn!(archives = %shelves.display(), %error, "cannot remove the oldest archive");
    }
    let fresh = formation::become_fresh(directory).map_err(failed_content(path))?;
    tracing::warn!(archive = %shelf.display(), "what this node had of its former cluster is archived; it is in no cluster now");
    Ok(fresh)
}

/// Removes the oldest of too many archives: disks are small. Which are old is counted in starts of the node, since a box without a battery begins in
/// 1970 each time.
fn prune(shelves: &Path, made: &Path) -> io::Result<()> {
    let mut others = Vec::new();
    for shelf in std::fs::read_dir(shelves)? {
        let shelf = shelf?.path();
        let name = shelf.file_name().unwrap_or_default().to_string_lossy();
        // What somebody else has put there is not ours to remove.
        let start = name.rsplit_once('-').and_then(|(_, start)| start.parse::<u64>().ok());
        others.extend(start.filter(|_| shelf != made).map(|start| (start, shelf.clone())));
    }
    others.sort();
    for (_, oldest) in &others[..(others.len() + 1).saturating_sub(ARCHIVES_MAX)] {
        std::fs::remove_dir_all(oldest)?;
    }
    Ok(())
}

/// The key of the node in `path`, and whether it was made just now: then the node is fresh. A record that is there is only read, which needs no lock.
pub(super) fn key(path: &Path) -> Result<(NodeKey, bool), OpenError> {
    refuse_unrestored(path)?;
    make_dir(path)?;
    let directory = RealDirectory::open(path)?;
    let known = || formation::founded(&directory).map_err(failed_content(path));
    if let Some(identity) = known()? {
        return Ok((identity.key, false));
    }
    let _lock = directory.lock()?;
    // Whoever had the lock a moment ago may have made one.
    match known()? {
        Some(identity) => Ok((identity.key, false)),
        None => Ok((found(path, &directory, Stage::Fresh)?.key, true)),
    }
}

impl FreshDir {
    /// Who this node would be in a cluster that it founds.
    pub fn founder(&self) -> Result<Identity, OpenError> {
        new_cluster(&self.path, self.key.clone(), Stage::Forming)
    }

    /// Notes whom this node leaves the founding to.
    pub fn note_promise(&self, promise: Option<Promise>) -> Result<(), OpenError> {
        formation::note_promise(&self.directory, promise).map_err(failed_content(&self.path))
    }

    /// Begins as a member of the cluster that has let this node in.
    pub fn join(self, welcome: Welcome) -> Result<DataDir, OpenError> {
        let Welcome { root, generation, member, members, commands } = welcome;
        commands.check()?;
        let identity = Identity { member, root, generation, ..self.founder()? };
        tracing::info!(cluster = %identity.cluster(), %member, "joins a cluster");
        let (meta, log_start) = joining_state(members);
        self.begin(&identity, meta, log_start)
    }

    /// Begins what was found or founded: store and log with these facts.
    pub fn begin(self, begun: &Identity, meta: Meta, log_start: Position) -> Result<DataDir, OpenError> {
        let Self { path, directory, lock, disk, .. } = self;
        formation::take_up(&directory, begun).map_err(failed_content(&path))?;
        let nonce = random_u64().map_err(failed("draw randomness for", &path))?;
        let content = Content { meta, batches: &mut std::iter::empty(), log_start };
        let content =
            formation::open(&directory, nonce, Some(content), disk).map_err(failed_content(&path))?;
        Ok(DataDir { content, lock })
    }
}

/// Where a restore makes what is to have this name; that as well, without what does not belong to it (`DIR/`, `DIR/.`).
pub(super) fn restored_beside(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let name = path.file_name()?;
    let mut beside = name.to_owned();
    beside.push(RESTORING);
    Some((path.with_file_name(beside), path.with_file_name(name)))
}

/// Nothing is begun under a name that a restore was to give, and was cut off before: the node would be an empty one, where everybody takes it for restored.
fn refuse_unrestored(path: &Path) -> Result<(), OpenError> {
    let founded = |path: &Path| match RealDirectory::open(path) {
        Ok(directory) => formation::founded(&directory).map_err(failed_content(path)),
        Err(DirectoryError::Io { source, .. })
            if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    };
    let Some((beside, _)) = restored_beside(path) else {
        return Ok(());
    };
    let is_restore = |left: &Identity| matches!(left.stage, Stage::Restoring | Stage::Established);
    if founded(&beside)?.as_ref().is_some_and(is_restore) && founded(path)?.is_none() {
        return Err(failed_content(&beside)(formation::OpenError::Unfinished));
    }
    Ok(())
}

/// A data directory that a node was founded in, and that waits for what the node begins with.
pub(super) struct Claimed {
    path: PathBuf,
    directory: RealDirectory,
    lock: DirectoryLock,
    /// Who the node will be.
    pub(super) identity: Identity,
}

impl Claimed {
    /// Founds a node to be restored into `path`. `None` where there is anything but a restore that was cut off.
    pub(super) fn found(path: &Path) -> Result<Option<Self>, OpenError> {
        let is_empty = match std::fs::read_dir(path) {
            Ok(mut entries) => {
                entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == IDENTITY_DRAFT))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(_) => return Ok(None),
        };
        make_dir(path)?;
        let directory = RealDirectory::open(path)?;
        let lock = directory.lock()?;
        let identity = match formation::founded(&directory) {
            Ok(None) if is_empty => found(path, &directory, Stage::Restoring)?,
            Ok(Some(identity)) if identity.stage == Stage::Restoring => identity,
            _ => return Ok(None),
        };
        Ok(Some(Self { path: path.to_owned(), directory, lock, identity }))
    }

    /// Makes the node, and gives its directory the name that it is to have. The revision that it begins with.
    pub(super) fn fill(
        self,
        content: Content<'_>,
        disk: DiskOptions,
        name: &Path,
    ) -> Result<Revision, OpenError> {
        let Self { path, directory, lock, .. } = self;
        let nonce = random_u64().map_err(failed("draw randomness for", &path))?;
        let made = formation::open(&directory, nonce, Some(content), disk).map_err(failed_content(&path))?;
        let revision = made.store.meta().revision;
        made.store.close().map_err(|error| failed_content(&path)(error.into()))?;
        if path != name {
            let parent = name.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = open_parent(parent.unwrap_or(Path::new(".")))?;
            // All that is in it is durable by now. A crash leaves the whole of it under the one name or the other.
            std::fs::rename(&path, name).map_err(failed("give its name to", name))?;
            if let Some(parent) = parent {
                parent.sync_all().map_err(failed("sync what holds", name))?;
            }
        }
        drop(lock);
        Ok(revision)
    }
}

/// The operating system said no.
pub(super) fn failed<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> OpenError + use<'a> {
    move |source| OpenError::Io { action, path: path.to_owned(), source }
}

/// What is in the directory is of no use.
pub(super) fn failed_content(path: &Path) -> impl FnOnce(formation::OpenError) -> OpenError + use<'_> {
    move |source| OpenError::Content { path: path.to_owned(), source }
}

fn make_dir(path: &Path) -> Result<(), OpenError> {
    DirBuilder::new().recursive(true).mode(OWNER_ONLY).create(path).map_err(failed("create", path))?;
    let mode = std::fs::metadata(path).map_err(failed("examine", path))?.permissions().mode();
    if mode & 0o077 != 0 {
        let mode = format!("{:o}", mode & 0o777);
        tracing::warn!(path = %path.display(), mode, "others may look into the data directory; 700 keeps them out");
    }
    // Without this a power cut could take the directory's name, or that of one above it, and everything that was acknowledged
    // with it. Also where they existed: whoever made them may not have got as far.
    for parent in path.ancestors().skip(1) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let Some(parent) = open_parent(parent)? else { break };
        parent.sync_all().map_err(failed("sync", path))?;
    }
    Ok(())
}

/// A directory to be synced. One that we may not read is not one that we have made, or whoever made it has let us write names into it alone: `None`.
fn open_parent(parent: &Path) -> Result<Option<File>, OpenError> {
    match File::open(parent) {
        Ok(parent) => Ok(Some(parent)),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(failed("open", parent)(error)),
    }
}

fn found(path: &Path, directory: &RealDirectory, stage: Stage) -> Result<Identity, OpenError> {
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| no_randomness(path))?;
    let identity = new_cluster(path, NodeKey::from_pkcs8(key.as_ref().to_vec())?, stage)?;
    formation::found(directory, &identity).map_err(failed_content(path))?;
    if stage != Stage::Fresh {
        tracing::info!(
            cluster = %identity.cluster(),
            member = %identity.member,
            key = %identity.key.fingerprint(),
            "founded a cluster of one"
        );
    }
    Ok(identity)
}

/// The holder of a key as the founder of a cluster that nobody knows yet.
fn new_cluster(path: &Path, key: NodeKey, stage: Stage) -> Result<Identity, OpenError> {
    let root = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| no_randomness(path))?;
    let root = Ed25519KeyPair::from_pkcs8(root.as_ref()).map_err(|_| KeyError)?;
    let root = ClusterRoot(root.public_key().as_ref().try_into().map_err(|_| KeyError)?);
    let nonce = random_u64().map_err(failed("draw randomness for", path))?;
    Ok(Identity { stage, ..found_solo(key, root, nonce).identity })
}

fn no_randomness(path: &Path) -> OpenError {
    failed("draw randomness for", path)(io::Error::other("no randomness"))
}

#[cfg(test)]
#[path = "data_dir_test.rs"]
mod tests;
