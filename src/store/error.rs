//! What can go wrong with the state on disk, and what each failure means for the process.
//!
//! Owns: the one error enum of the room and its translation from redb's. Must never: log, or end the process (the caller does,
//! by kind). Returned by everything in `store`.

use std::borrow::Cow;
use std::io;

use bytes::Bytes;

use crate::command::NotUnderstood;

/// Stands for a table's name where the damage is in the file's own structure rather than in one row.
pub const WHOLE_FILE: &str = "(file)";

/// A failure of the store. Nothing here is worth a retry: see [`StoreError::is_fatal`].
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk refused a read, a write or a sync. After a failed sync nothing is known of what it covered.
    #[error("store: input or output failed: {0}")]
    Io(#[source] io::Error),
    /// Bytes that this program did not write, or not there.
    #[error("store: table {table}, key {}: {what}", key.escape_ascii())]
    Damaged {
        /// The table, or [`WHOLE_FILE`].
        table: &'static str,
        /// The key of the row as stored; empty where no row can be named.
        key: Bytes,
        /// What is wrong with it.
        what: Cow<'static, str>,
    },
    /// Written by another version of covey.
    #[error("store: format version {found}; this build reads version {supported}")]
    UnsupportedVersion {
        /// The version found.
        found: u32,
        /// The version that this build reads and writes.
        supported: u32,
    },
    /// What is in it was agreed on by newer builds.
    #[error("store: {0}")]
    NotUnderstood(#[from] NotUnderstood),
    /// An earlier write failed, so that what is on disk is unknown.
    #[error("store: not usable after an earlier failure")]
    Poisoned,
    /// redb refused an operation for a reason that this program should never give it.
    #[error("store: {0}")]
    Engine(#[source] Box<redb::Error>),
}

impl StoreError {
    /// A row that cannot be what was written.
    pub(super) fn damaged(table: &'static str, key: &[u8], what: &'static str) -> Self {
        Self::Damaged { table, key: Bytes::copy_from_slice(key), what: Cow::Borrowed(what) }
    }

    /// Damage outside of any row.
    pub(crate) fn damaged_file(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Damaged { table: WHOLE_FILE, key: Bytes::new(), what: what.into() }
    }

    /// Whether the process must stop rather than go on: everything except the refusal to open a file of another version, or of a cluster that uses one, which
    /// harmed nothing. A failed write or sync is never retried (style guide, "fatal").
    pub fn is_fatal(&self) -> bool {
        !self.is_of_another_build()
    }

    /// Whether the file is for another build of covey than this one.
    pub fn is_of_another_build(&self) -> bool {
        matches!(self, Self::UnsupportedVersion { .. } | Self::NotUnderstood(_))
    }

    /// Whether the bytes on disk are at fault, rather than the device or the program.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match error {
            // No device answers so: redb does, to a file that does not begin as its own do.
            redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                Self::damaged_file(error.to_string())
            }
            redb::Error::Io(error) => Self::Io(error),
            redb::Error::Corrupted(what) => Self::damaged_file(what),
            redb::Error::PreviousIo => Self::Poisoned,
            redb::Error::TableTypeMismatch { table, .. } => {
                Self::damaged_file(format!("table {table} has other types"))
            }
            redb::Error::TableDoesNotExist(table) => Self::damaged_file(format!("table {table} is missing")),
            other => Self::Engine(Box::new(other)),
        }
    }
}

macro_rules! from_redb {
    ($($kind:ident)*) => {$(
        impl From<redb::$kind> for StoreError {
            fn from(error: redb::$kind) -> Self {
                redb::Error::from(error).into()
            }
        }
    )*};
}

from_redb! { StorageError TableError TransactionError CommitError DatabaseError CursorError SetDurabilityError }
