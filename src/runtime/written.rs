//! What is written to the data directory, by what it is for.
//!
//! Owns: the counts, in bytes of the pages that the device is handed. Must never: hold a write up. Counted by `runtime::files`, read by whoever shows it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::formation::{LOG_NAME, STAGED_NAME, STORE_NAME};

/// The kernel hands a device whole pages, however little of one is written.
const PAGE_BYTES: u64 = 4096;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The raft log.
    Log,
    /// The state.
    Store,
    /// A state that comes from another member.
    Transfer,
    /// Who the node is, and the like.
    Other,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Log, Self::Store, Self::Transfer, Self::Other];

    /// Its name in metrics and for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Store => "store",
            Self::Transfer => "transfer",
            Self::Other => "other",
        }
    }

    /// What a file is for, by the directory below the data directory that it is in, if it is in one, and its name.
    pub(super) fn of(below: Option<&str>, name: &str) -> Self {
        match below {
            Some(LOG_NAME) => Self::Log,
            _ if name.starts_with(STAGED_NAME) => Self::Transfer,
            _ if name.starts_with(STORE_NAME) => Self::Store,
            _ => Self::Other,
        }
    }
}

/// What an open file is for. A state that has come whole becomes the store without being closed.
#[derive(Debug)]
pub(super) struct Tag(AtomicUsize);

/// The counts since the start of the process.
#[derive(Debug, Default)]
pub struct Written {
    bytes: [AtomicU64; Purpose::ALL.len()],
    open: Mutex<Vec<(PathBuf, Weak<Tag>)>>,
}

impl Written {
    /// Bytes written for this.
    pub fn bytes(&self, purpose: Purpose) -> u64 {
        self.bytes[purpose as usize].load(Ordering::Relaxed)
    }

    /// Bytes written in all.
    pub fn total(&self) -> u64 {
        Purpose::ALL.into_iter().map(|purpose| self.bytes(purpose)).sum()
    }

    /// A file was opened, or made.
    pub(super) fn open(&self, path: PathBuf, purpose: Purpose) -> Arc<Tag> {
        let tag = Arc::new(Tag(AtomicUsize::new(purpose as usize)));
        let mut open = self.lock();
        open.retain(|(_, tag)| tag.strong_count() > 0);
        open.push((path, Arc::downgrade(&tag)));
        tag
    }

    /// A file has another name, and so another purpose.
    pub(super) fn rename(&self, from: &Path, to: PathBuf, purpose: Purpose) {
        for (path, tag) in self.lock().iter_mut().filter(|(path, _)| path == from) {
            path.clone_from(&to);
            if let Some(tag) = tag.upgrade() {
                tag.0.store(purpose as usize, Ordering::Relaxed);
            }
        }
    }

    /// What an open file is called now.
    pub(super) fn path_of(&self, tag: &Tag) -> Option<Box<Path>> {
        let is_it = |known: &Weak<Tag>| std::ptr::eq(known.as_ptr(), tag);
        self.lock().iter().find(|(_, known)| is_it(known)).map(|(path, _)| path.as_path().into())
    }

    /// Counts a write.
    pub(super) fn count(&self, tag: &Tag, offset: u64, bytes: u64) {
        if bytes > 0 {
            let (first, end) = (offset / PAGE_BYTES, (offset + bytes).div_ceil(PAGE_BYTES));
            self.bytes[tag.0.load(Ordering::Relaxed)]
                .fetch_add((end - first) * PAGE_BYTES, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(PathBuf, Weak<Tag>)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Directory as _, File as _};
    use crate::runtime::files::RealDirectory;

    #[test]
    fn files_are_told_apart_by_their_names() {
        for (below, name, purpose) in [
            (Some("wal"), "0000000000000001.wal", Purpose::Log),
            (Some("wal"), "0000000000000002.tmp", Purpose::Log),
            (None, "store.redb", Purpose::Store),
            (None, "store.redb.new", Purpose::Store),
            (None, "store.redb.staged", Purpose::Transfer),
            (None, "store.redb.staged.new", Purpose::Transfer),
            (None, "identity.0", Purpose::Other),
        ] {
            assert_eq!(Purpose::of(below, name), purpose, "{name}");
        }
    }

    #[test]
    fn whole_pages_are_counted() {
        let written = Written::default();
        let tag = written.open("wal/1".into(), Purpose::Log);
        for (offset, bytes, pages) in [(0, 0, 0), (0, 1, 1), (4095, 2, 2), (512, 512, 1), (4096, 8192, 2)] {
            let before = written.total();
            written.count(&tag, offset, bytes);
            assert_eq!(written.total() - before, pages * 4096, "{bytes} at {offset}");
        }
        assert_eq!((written.bytes(Purpose::Log), written.bytes(Purpose::Store)), (6 * 4096, 0));
    }

    #[test]
    fn a_state_that_has_come_is_the_store_from_then_on() {
        let dir = tempfile::tempdir().unwrap();
        let root = RealDirectory::open(dir.path()).unwrap();
        let (written, wal) = (root.written(), root.subdirectory(LOG_NAME).unwrap());
        let counts = || Purpose::ALL.map(|purpose| written.bytes(purpose) / PAGE_BYTES);
        let staged = root.create(STAGED_NAME).unwrap();
        staged.write_at(0, b"x").unwrap();
        wal.create("1.wal").unwrap().write_at(5000, b"x").unwrap();
        root.clone().create("identity.0").unwrap().write_at(0, b"x").unwrap();
        assert_eq!(counts(), [1, 0, 1, 1]);
        root.rename(STAGED_NAME, STORE_NAME).unwrap();
        staged.write_at(0, b"x").unwrap();
        assert_eq!(counts(), [1, 1, 1, 1]);
        root.open(STORE_NAME).unwrap().write_at(0, b"x").unwrap();
        assert_eq!(counts(), [1, 2, 1, 1]);
    }

    #[test]
    fn a_file_is_called_what_it_was_renamed_to() {
        let written = Written::default();
        let log = written.open("wal/1.tmp".into(), Purpose::Log);
        let store = written.open("store.redb".into(), Purpose::Store);
        written.rename(Path::new("wal/1.tmp"), "wal/1.wal".into(), Purpose::Log);
        assert_eq!(written.path_of(&log).as_deref(), Some(Path::new("wal/1.wal")));
        assert_eq!(written.path_of(&store).as_deref(), Some(Path::new("store.redb")));
    }
}
