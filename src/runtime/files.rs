//! A real directory behind the seam of `disk`.
//!
//! Owns: the system calls, and what is known of filesystems. Must never: buffer, retry, or hide an error: after a failed sync the
//! caller stops. Driven by `wal`, `store` and `formation` on their threads.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Advice, FlockOperation, fadvise, flock, fstatfs};

use super::slow_sync::SlowSyncs;
use super::whereabouts::Whereabouts;
use super::written::{Purpose, Tag, Written};
use crate::disk::{Directory, File};

/// Filesystems that never write in place, by the magic of `statfs(2)`: btrfs, bcachefs, f2fs, ubifs, zfs.
const COPY_ON_WRITE: [u64; 5] = [0x9123_683e, 0xca45_1a4e, 0xf2f5_2010, 0x2405_1905, 0x2fc1_2fc1];

/// The mode of directories that hold the node's key or everybody's values.
pub const OWNER_ONLY: u32 = 0o700;

/// A directory of the operating system. Clones are the same directory.
#[derive(Clone, Debug)]
pub struct RealDirectory {
    path: PathBuf,
    handle: Arc<fs::File>,
    /// Its name where it is below another one.
    name: Option<String>,
    written: Arc<Written>,
    slow_syncs: Arc<SlowSyncs>,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The operating system said no.
    #[error("cannot open the directory {path}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process works in it.
    #[error("the directory {path} is in use by another process")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
}

/// Keeps other processes out of a directory until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DirectoryLock {
    /// The lock lasts as long as the descriptor.
    handle: fs::File,
    path: PathBuf,
}

impl DirectoryLock {
    /// By what is found out whether what is locked is still what its path leads to, for as long as it is locked.
    pub fn whereabouts(&self) -> Result<Whereabouts, DirectoryError> {
        Whereabouts::of(&self.path, &self.handle)
            .map_err(|source| DirectoryError::Io { path: self.path.clone(), source })
    }
}

impl RealDirectory {
    /// Opens an existing directory.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let handle = open_directory(path)?;
        Ok(Self {
            path: path.to_owned(),
            handle: Arc::new(handle),
            name: None,
            written: Arc::default(),
            slow_syncs: Arc::default(),
        })
    }

    /// What is written to it, and to all below it.
    pub fn written(&self) -> Arc<Written> {
        Arc::clone(&self.written)
    }

    fn purpose_of(&self, name: &str) -> Purpose {
        Purpose::of(self.name.as_deref(), name)
    }

    fn file(&self, name: &str, file: fs::File) -> io::Result<RealFile> {
        let tag = self.written.open(self.path_of(name)?, self.purpose_of(name));
        Ok(RealFile { file, written: self.written(), tag, slow_syncs: Arc::clone(&self.slow_syncs) })
    }

    /// Locks the directory for this process (`flock(2)`: it survives no crash and needs no file).
    pub fn lock(&self) -> Result<DirectoryLock, DirectoryError> {
        let handle = open_directory(&self.path)?;
        match flock(&handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(DirectoryLock { handle, path: self.path.clone() }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DirectoryError::Locked { path: self.path.clone() }),
            Err(errno) => Err(DirectoryError::Io { path: self.path.clone(), source: errno.into() }),
        }
    }

    fn path_of(&self, name: &str) -> io::Result<PathBuf> {
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        Ok(self.path.join(name))
    }
}

/// Makes sure that what is read from now on is what the disk holds.
///
/// When a sync fails, Linux calls the pages clean that it could not write: the next process would read them, count on them, and
/// no sync of its own would ever write them. So what is dirty is written, and everything else is dropped and read again.
fn read_from_disk(file: &fs::File) -> io::Result<()> {
    file.sync_data()?;
    // Some filesystems have no page cache to drop.
    let _ = fadvise(file, 0, None, Advice::DontNeed);
    Ok(())
}

fn open_directory(path: &Path) -> Result<fs::File, DirectoryError> {
    let io = |source| DirectoryError::Io { path: path.to_owned(), source };
    let handle = fs::File::open(path).map_err(io)?;
    if handle.metadata().map_err(io)?.is_dir() {
        Ok(handle)
    } else {
        Err(io(io::Error::from(io::ErrorKind::NotADirectory)))
    }
}

impl Directory for RealDirectory {
    type File = RealFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<RealFile> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        self.file(name, options.open(self.path_of(name)?)?)
    }

    fn open(&self, name: &str) -> io::Result<RealFile> {
        let file = fs::OpenOptions::new().read(true).write(true).open(self.path_of(name)?)?;
        read_from_disk(&file)?;
        self.file(name, file)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (old, new) = (self.path_of(from)?, self.path_of(to)?);
        fs::rename(&old, &new)?;
        self.written.rename(&old, new, self.purpose_of(to));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path_of(name)?)
    }

    fn subdirectory(&self, name: &str) -> io::Result<Self> {
        let path = self.path_of(name)?;
        match fs::DirBuilder::new().mode(OWNER_ONLY).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let handle = fs::File::open(&path)?;
        if handle.metadata()?.is_dir() {
            Ok(Self {
                path,
                handle: Arc::new(handle),
                name: Some(name.to_owned()),
                written: self.written(),
                slow_syncs: Arc::clone(&self.slow_syncs),
            })
        } else {
            Err(io::Error::from(io::ErrorKind::NotADirectory))
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.slow_syncs.watch(|| self.handle.sync_all(), || Some(self.path.as_path().into()))
    }

    fn overwrites_in_place(&self) -> io::Result<bool> {
        let kind = fstatfs(&self.handle)?.f_type;
        // The type of the field differs between architectures; the magics are 32 bits everywhere.
        #[expect(clippy::cast_sign_loss, reason = "a magic number, not a quantity")]
        let magic = kind as u64 & 0xffff_ffff;
        Ok(!COPY_ON_WRITE.contains(&magic))
    }
}

/// An open file of a [`RealDirectory`].
#[derive(Debug)]
pub struct RealFile {
    file: fs::File,
    written: Arc<Written>,
    tag: Arc<Tag>,
    slow_syncs: Arc<SlowSyncs>,
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        self.written.count(&self.tag, offset, bytes.len() as u64);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.slow_syncs.watch(|| self.file.sync_data(), || self.written.path_of(&self.tag))
    }
}

#[cfg(test)]
mod tests {
    use super::{DirectoryError, RealDirectory};
    use crate::disk::{Directory, File};
    use crate::ids::{ClusterId, LogIndex, MemberId, Term};
    use crate::wal::{Batch, EntryKind, Identity, LogEntry, Options, Position, Wal};

    #[test]
    fn files_keep_what_is_written_and_names_follow() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = RealDirectory::open(temporary.path()).unwrap();
        let file = dir.create("a").unwrap();
        file.write_at(3, b"xyz").unwrap();
        file.sync_data().unwrap();
        assert!(dir.create("a").is_err(), "create never opens what exists");
        dir.rename("a", "b").unwrap();
        dir.sync().unwrap();
        let mut read = [0xff; 6];
        dir.open("b").unwrap().read_at(0, &mut read).unwrap();
        assert_eq!(&read, b"\0\0\0xyz");
        assert!(dir.open("b").unwrap().read_at(1, &mut read).is_err(), "beyond the end");
        assert_eq!(dir.list().unwrap(), ["b"]);
        dir.remove("b").unwrap();
        assert!(dir.list().unwrap().is_empty());
        dir.overwrites_in_place().unwrap();
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = RealDirectory::open(temporary.path()).unwrap();
        for name in ["", ".", "..", "../x", "/etc/passwd"] {
            assert!(dir.create(name).is_err(), "{name:?}");
        }
    }

    /// The log over system calls: cut, recycled and opened again, it holds what was appended.
    #[test]
    fn the_log_lives_in_it() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = RealDirectory::open(temporary.path()).unwrap();
        let identity = Identity { cluster: ClusterId(1), member: MemberId(2) };
        let options = Options { segment_bytes: 4 * 4096, prefill: dir.overwrites_in_place().unwrap() };
        let mut wal = Wal::create(dir.clone(), identity, Position::default(), options).unwrap();
        for index in 1..=100 {
            let entry = LogEntry {
                index: LogIndex(index),
                term: Term(1),
                kind: EntryKind::Normal,
                data: vec![u8::try_from(index).unwrap(); 2000].into(),
            };
            wal.append(Batch { hard_state: None, entries: &[entry] }).unwrap();
            wal.sync().unwrap();
            if index % 10 == 0 {
                wal.cut(LogIndex(index - 5)).unwrap();
                drop(wal);
                let (opened, recovered) = Wal::open(dir.clone(), identity, options).unwrap();
                assert_eq!((recovered.last().index, recovered.tear), (LogIndex(index), None));
                assert!(
                    recovered
                        .entries
                        .iter()
                        .all(|entry| *entry.data == [u8::try_from(entry.index.0).unwrap(); 2000])
                );
                assert!(recovered.entries.len() >= 6);
                wal = opened;
            }
        }
    }

    #[test]
    fn one_lock_at_a_time() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = RealDirectory::open(temporary.path()).unwrap();
        let lock = dir.lock().unwrap();
        assert!(matches!(dir.lock(), Err(DirectoryError::Locked { .. })));
        drop(lock);
        assert!(dir.lock().is_ok());
    }

    #[test]
    fn a_file_is_no_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(RealDirectory::open(file.path()), Err(DirectoryError::Io { .. })));
    }
}
