//! A file of ours as the file that redb keeps its database in.
//!
//! Owns: the way from one seam to the other. Must never: lock (whoever opens a database holds the lock of its directory), buffer, or
//! swallow an error. Driven by redb on behalf of `store`.

use std::io;

use super::File;

/// A file for redb.
#[derive(Debug)]
pub struct DatabaseFile<F>(F);

impl<F: File> DatabaseFile<F> {
    /// A database in `file`.
    pub fn new(file: F) -> Self {
        Self(file)
    }
}

impl<F: File> redb::StorageBackend for DatabaseFile<F> {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}
