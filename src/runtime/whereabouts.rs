//! Whether the data directory is still where it was.
//!
//! Owns: how that is found out. Must never: open, read or write anything: it costs a few system calls on what the kernel has in memory. Looked at by the
//! checkpoint thread.
//!
//! Files that are open outlive their names, and a filesystem that was detached lives on under them: a log can be appended to and synced for days
//! where no later start finds it. So the path is compared with what was opened there. A look that fails has seen nothing of the kind: it is made again, and only where none
//! succeeds for a minute does the directory count as lost. What the disk has then, writes and syncs find out by themselves, and end the process the first time.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::formation::{LOG_NAME, STORE_NAME};
use crate::limits::DIRECTORY_LOOKS_FAILED_MAX;

/// What is in every data directory that serves.
const KEPT: [&str; 2] = [STORE_NAME, LOG_NAME];

/// Why a data directory is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// There is nothing at its path.
    #[error("{path} is not there any more: it was removed, or its filesystem was unmounted")]
    Gone {
        /// The directory, or what was in it.
        path: PathBuf,
    },
    /// At its path there is another directory.
    #[error(
        "{path} is another directory than the one that was opened: it was replaced, or its filesystem was unmounted or mounted over"
    )]
    Replaced {
        /// The directory.
        path: PathBuf,
    },
    /// Its filesystem takes no more writes.
    #[error("{path} is on a filesystem that has become read-only")]
    ReadOnly {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system said no, each time.
    #[error("{path} cannot be reached")]
    Unreachable {
        /// The directory, or what is in it.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

/// A directory at its path.
#[derive(Clone, Debug)]
pub struct Whereabouts {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Whereabouts {
    /// Of what was opened at `path`, and is held open: its number is nobody else's meanwhile.
    pub(super) fn of(path: &Path, opened: &fs::File) -> io::Result<Self> {
        let found = opened.metadata()?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    /// Whether a start would find there what is written now.
    pub(super) fn check(&self) -> Result<(), Lost> {
        let found = look(&self.path)?;
        if (found.dev(), found.ino()) != (self.device, self.inode) {
            return Err(Lost::Replaced { path: self.path.clone() });
        }
        for name in KEPT {
            look(&self.path.join(name))?;
        }
        // What cannot be told is found out by the next write.
        if statvfs(&self.path).is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY)) {
            return Err(Lost::ReadOnly { path: self.path.clone() });
        }
        Ok(())
    }
}

/// Looks at a directory now and then.
#[derive(Debug)]
pub(super) struct Lookout {
    directory: Whereabouts,
    /// Looks that have failed since the last one that did not.
    failed: u32,
}

impl Lookout {
    /// At this one, of which nothing bad is known.
    pub(super) fn new(directory: Whereabouts) -> Self {
        Self { directory, failed: 0 }
    }

    /// Looks once more; an error once the directory counts as lost.
    pub(super) fn look(&mut self) -> Result<(), Lost> {
        let looked = self.directory.check();
        let Err(Lost::Unreachable { path, source }) = &looked else {
            self.failed = 0;
            return looked;
        };
        self.failed += 1;
        if self.failed >= DIRECTORY_LOOKS_FAILED_MAX {
            return looked;
        }
        tracing::warn!(
            path = %path.display(),
            error = %source,
            failed = self.failed,
            "could not look whether the data directory is still where it was; it is tried again"
        );
        Ok(())
    }
}

fn look(path: &Path) -> Result<fs::Metadata, Lost> {
    fs::metadata(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Lost::Gone { path: path.to_owned() },
        _ => Lost::Unreachable { path: path.to_owned(), source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data_dir(path: &Path) -> Whereabouts {
        fs::create_dir(path).unwrap();
        fs::write(path.join(STORE_NAME), b"").unwrap();
        fs::create_dir(path.join(LOG_NAME)).unwrap();
        Whereabouts::of(path, &fs::File::open(path).unwrap()).unwrap()
    }

    #[test]
    fn what_is_where_it_was_is_not_lost() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("data");
        let directory = data_dir(&path);
        directory.check().unwrap();
        // A state that came from another member takes the store's place.
        fs::write(path.join("staged"), b"").unwrap();
        fs::rename(path.join("staged"), path.join(STORE_NAME)).unwrap();
        directory.check().unwrap();
    }

    #[test]
    fn what_was_removed_is_lost_even_if_it_is_made_anew() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("data");
        let directory = data_dir(&path);
        // As the lock does.
        let held = fs::File::open(&path).unwrap();
        fs::remove_dir_all(&path).unwrap();
        assert!(matches!(directory.check(), Err(Lost::Gone { path: gone }) if gone == path));
        data_dir(&path);
        assert!(matches!(directory.check(), Err(Lost::Replaced { path: replaced }) if replaced == path));
        fs::remove_dir_all(&path).unwrap();
        fs::write(&path, b"a file").unwrap();
        assert!(matches!(directory.check(), Err(Lost::Replaced { .. })));
        drop(held);
    }

    /// Any error of `stat(2)` ended a member, whose log and store were well.
    #[test]
    fn what_cannot_be_looked_at_is_lost_only_if_that_lasts() {
        let temporary = tempfile::tempdir().unwrap();
        let (real, way) = (temporary.path().join("real"), temporary.path().join("way"));
        fs::create_dir(&real).unwrap();
        // A way that leads to itself is an error that says nothing of what is behind it (ELOOP).
        let lead_to = |target: &Path| {
            drop(fs::remove_file(&way));
            std::os::unix::fs::symlink(target, &way).unwrap();
        };
        lead_to(&real);
        let mut lookout = Lookout::new(data_dir(&way.join("data")));
        for _ in 0..2 {
            lead_to(&way);
            for _ in 1..DIRECTORY_LOOKS_FAILED_MAX {
                lookout.look().unwrap();
            }
            lead_to(&real);
            lookout.look().unwrap();
        }
        lead_to(&way);
        for _ in 1..DIRECTORY_LOOKS_FAILED_MAX {
            lookout.look().unwrap();
        }
        assert!(matches!(lookout.look(), Err(Lost::Unreachable { path, .. }) if path == way.join("data")));
        lead_to(temporary.path());
        assert!(matches!(lookout.look(), Err(Lost::Gone { .. })), "what is seen counts at once");
    }

    #[test]
    fn what_was_emptied_is_lost() {
        for name in KEPT {
            let temporary = tempfile::tempdir().unwrap();
            let path = temporary.path().join("data");
            let directory = data_dir(&path);
            fs::rename(path.join(name), path.join("away")).unwrap();
            assert!(matches!(directory.check(), Err(Lost::Gone { path: gone }) if gone == path.join(name)));
        }
    }
}
