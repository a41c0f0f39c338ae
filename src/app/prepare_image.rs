//! `covey prepare-image`: a disk that is about to be copied is made one of a node that has never run.
//!
//! Owns: what goes, and in which order. Must never: touch a directory that is in use, or anything that is not covey's. Driven by the command line.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::data_dir::{ARCHIVE_NAME, OpenError, failed};
use super::hardware::HARDWARE_NAMES;
use crate::formation::{IDENTITY_NAMES, STATE_NAMES, TOMBSTONE_NAMES};
use crate::runtime::files::{DirectoryLock, RealDirectory};
use crate::runtime::space::RESERVE_NAME;

/// Why the disk is not scrubbed, or only in part; then it can be done again.
#[derive(Debug, thiserror::Error)]
#[error("{}", super::chain(.0))]
pub struct ScrubError(#[from] OpenError);

/// A data directory that may be scrubbed: nobody else has it.
pub struct Scrub {
    path: PathBuf,
    /// What goes, in this order.
    goes: Vec<PathBuf>,
    stays: Vec<PathBuf>,
    _lock: DirectoryLock,
}

impl Scrub {
    /// Looks at the data directory of a node that does not run.
    pub fn open(path: &Path) -> Result<Self, ScrubError> {
        let lock =
            RealDirectory::open(path).and_then(|directory| directory.lock()).map_err(OpenError::from)?;
        // The identity first: what must never be on two disks is the key. Without it, nothing starts on the rest.
        let ours = IDENTITY_NAMES
            .iter()
            .chain(&STATE_NAMES)
            .chain([&ARCHIVE_NAME])
            .chain(&HARDWARE_NAMES)
            .chain(&TOMBSTONE_NAMES)
            .chain([&RESERVE_NAME]);
        let goes: Vec<PathBuf> = ours.map(|name| path.join(name)).filter(|entry| entry.exists()).collect();
        let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(failed("list", path))?;
        let stays = entries.iter().map(fs::DirEntry::path).filter(|entry| !goes.contains(entry)).collect();
        Ok(Self { path: path.to_owned(), goes, stays, _lock: lock })
    }

    /// What of it is covey's, and goes.
    pub fn goes(&self) -> &[PathBuf] {
        &self.goes
    }

    /// What is not, and stays.
    pub fn stays(&self) -> &[PathBuf] {
        &self.stays
    }

    /// Removes it for good.
    pub fn carry_out(self) -> Result<(), ScrubError> {
        for entry in &self.goes {
            let removed = if entry.is_dir() { fs::remove_dir_all(entry) } else { fs::remove_file(entry) };
            removed.map_err(failed("remove", entry))?;
        }
        let synced = File::open(&self.path).and_then(|directory| directory.sync_all());
        Ok(synced.map_err(failed("sync", &self.path))?)
    }
}
