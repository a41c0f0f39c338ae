//! The byte-level seam to the disk: what log, store and identity record need of a directory of files.
//!
//! Owns: the two traits, what they promise about a crash, and the way from them to redb's own seam. Must never: interpret bytes.
//! Implemented by `runtime::files` (a real directory) and by `disk::sim` (faults on demand); driven by `wal`, `store` and `formation`.
//!
//! # What survives a crash
//!
//! - Bytes written and then covered by a successful [`File::sync_data`] survive. Others may be lost or torn, in any order, in
//!   units of sectors.
//! - A created, renamed or removed name survives once [`Directory::sync`] has succeeded after it.
//! - After a failed sync nothing is known of the bytes it covered, and a later success proves nothing about them: the
//!   caller stops the process. Whoever opens the file next reads what the disk holds, not what the failed sync left in memory alone: else
//!   it would count on bytes that are gone after a power cut.

mod database;
pub mod sim;

use std::fmt::Debug;
use std::io;

pub use database::DatabaseFile;

/// One directory: names contain no separators.
pub trait Directory: Clone {
    /// An open file of it.
    type File: File;

    /// The names in it, in no particular order, those of directories too.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes a new, empty file for reading and writing; an existing one is an error.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Opens an existing file for reading and writing. What is read is on the disk, or will be with the next sync.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a name.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The directory of this name in it, for its owner only, made where it is missing. As with files, its name survives a crash once
    /// [`Directory::sync`] of this directory has succeeded; until then all that is in it may be lost.
    fn subdirectory(&self, name: &str) -> io::Result<Self>;
    /// Makes the names durable.
    fn sync(&self) -> io::Result<()>;
    /// Whether a file that was filled with zeros is cheaper to overwrite than a growing one is to extend: not where the filesystem
    /// writes every block to a new place anyway.
    fn overwrites_in_place(&self) -> io::Result<bool>;
}

/// An open file, addressed by offset; it has no cursor. Several threads may use it at once.
pub trait File: Debug + Send + Sync + 'static {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Fills `buffer` from `offset`; reading beyond the end is an error.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, growing the file where needed.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts or extends (with zeros) to `length` bytes.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Makes the content durable, and the length where it changed (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
}
