//! Why the log cannot go on.
//!
//! Owns: the errors of the room. Each but a full disk is fatal: the process stops and says so. Built everywhere in `wal`, consumed by the
//! wal thread and by the start of the process.

use std::io;

use super::entry::Identity;

/// Why the log cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The operating system failed an operation.
    #[error("cannot {operation} {file}")]
    Io {
        /// The file; empty for the directory itself.
        file: String,
        /// What was tried.
        operation: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The device has no room for another segment. Nothing has changed, and the same may be tried again.
    #[error("there is no room on the disk for log file {file}")]
    Full {
        /// The file that could not be made.
        file: String,
    },
    /// The bytes are not what was written: no crash leaves them so.
    #[error("log file {file} is damaged at byte {offset}: {what}")]
    Corrupt {
        /// The file.
        file: String,
        /// Where in it, in bytes; 0 where the file as a whole is wrong.
        offset: u64,
        /// How it was noticed.
        what: Damage,
    },
    /// A later release wrote it, or none.
    #[error("log file {file} has format version {found}; this release knows {supported}")]
    UnsupportedVersion {
        /// The file.
        file: String,
        /// The version in its header.
        found: u8,
        /// The version that this release reads and writes.
        supported: u8,
    },
    /// The log of another member.
    #[error("log file {file} belongs to {found}, this is {expected}")]
    WrongIdentity {
        /// The file.
        file: String,
        /// Whose log it is.
        found: Identity,
        /// Who opens it.
        expected: Identity,
    },
    /// There is no log in the directory.
    #[error("there is no log in the directory")]
    Absent,
    /// There is a log where one was to be made.
    #[error("there is a log already, with {file}")]
    Exists {
        /// A file of it.
        file: String,
    },
    /// An earlier write or sync failed; what is on the disk is unknown.
    #[error("the log stopped after an earlier error")]
    Poisoned,
}

/// How damage was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A sector does not match its checksum.
    #[error("a sector does not match its checksum")]
    Checksum,
    /// The file does not begin like a segment.
    #[error("it does not begin like a segment of the log")]
    Magic,
    /// The file is shorter than its header says.
    #[error("it is shorter than its header says")]
    Truncated,
    /// A segment between others is not there.
    #[error("it is missing")]
    Missing,
    /// A batch is damaged or gone although a later one was written after it.
    #[error("a batch is missing, but a later one was written")]
    LaterBatch,
    /// A sector has a sequence that cannot be at its place.
    #[error("a sector belongs to another batch")]
    Sequence,
    /// A batch does not follow the one before.
    #[error("a batch does not continue the one before it")]
    Chain,
    /// A batch continues the log at a position that the log does not have.
    #[error("entries do not continue the log before them")]
    Gap,
    /// A checksum holds, but what it covers makes no sense.
    #[error("a batch or header is not laid out as it should be")]
    Layout,
    /// There is no batch in any segment, not even the first.
    #[error("there is no batch in the log")]
    Empty,
}

impl WalError {
    /// Whether the log is as it was, and goes on once there is room.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Whether the operating system had no room for what was tried.
    pub(super) fn lacks_room(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

/// Puts the file and what was tried to an error of the operating system.
pub(super) fn failed(file: &str, operation: &'static str) -> impl FnOnce(io::Error) -> WalError {
    let file = file.to_owned();
    move |source| WalError::Io { file, operation, source }
}
