//! The fingerprint of a node, before it has a cluster, and at any time after that.
//!
//! Owns: that a key is made where there is none. Must never: change anything else, or need the lock of a directory that has a key: its node
//! may run. Driven by the command line.

use std::path::Path;

use super::data_dir::{self, OpenError};
use crate::formation::Fingerprint;

/// Why a node's fingerprint is not known.
#[derive(Debug, thiserror::Error)]
#[error("{}", super::chain(.0))]
pub struct FingerprintFailure(#[from] OpenError);

/// By what other nodes know a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Of its key.
    pub fingerprint: Fingerprint,
    /// The key was just made.
    pub is_new: bool,
}

/// The fingerprint of the node in this data directory; the directory and a key are made where there are none.
pub fn node_fingerprint(path: &Path) -> Result<Known, FingerprintFailure> {
    let (key, is_new) = data_dir::key(path)?;
    Ok(Known { fingerprint: key.fingerprint(), is_new })
}
