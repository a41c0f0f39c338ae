//! A cluster that has lost the majority of its members for good: one of them goes on alone.
//!
//! Owns: the data directory while that is decided and done, and what is found in it. Must never: change anything before somebody has agreed to
//! what may be lost. Driven by the command line, on a node that does not run.

use std::path::Path;

use super::data_dir::{OpenError, failed_content};
use crate::formation::{self, DiskOptions, Generation, Stage};
use crate::ids::{ClusterId, LogIndex, MemberId};
use crate::node::{Alone, AloneError, go_on_alone};
use crate::runtime::files::{DirectoryLock, RealDirectory};
use crate::store::Member;

/// Why a node does not go on alone.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The data directory cannot be used.
    #[error("{}", super::chain(.0))]
    Directory(#[from] OpenError),
    /// Its state is of no use.
    #[error("{}", super::chain(.0))]
    State(#[from] AloneError),
}

/// A node whose data directory is open; nothing is changed yet.
pub struct Recovery {
    root: RealDirectory,
    content: formation::DataDir<RealDirectory>,
    /// Keeps other processes out until all is done.
    _lock: DirectoryLock,
}

/// What the node is, for whoever has to decide.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node's place in it.
    pub member: MemberId,
    /// The generation that begins.
    pub generation: Generation,
    /// The other members that the state names; the log may name more.
    pub others: Vec<Member>,
    /// The last entry of the node's log.
    pub last: LogIndex,
    /// The last entry that it knows to be committed.
    pub committed: LogIndex,
    /// Its state was found to be damaged, or to be another one than the majority's.
    pub suspect: bool,
}

impl Recovery {
    /// Opens the data directory of a node that does not run.
    pub fn open(path: &Path) -> Result<Self, RecoveryError> {
        let root = RealDirectory::open(path).map_err(OpenError::from)?;
        let lock = root.lock().map_err(OpenError::from)?;
        let content =
            formation::open_to_recover(&root, DiskOptions::default()).map_err(failed_content(path))?;
        Ok(Self { root, content, _lock: lock })
    }

    /// What was found.
    pub fn finding(&self) -> Finding {
        let formation::DataDir { identity, store, recovered, .. } = &self.content;
        let begun = identity.stage == Stage::Recovering;
        let generation = Generation(identity.generation.0 + u64::from(!begun));
        let others = store.meta().members.iter().filter(|member| member.id() != identity.member);
        Finding {
            cluster: identity.cluster(),
            member: identity.member,
            generation,
            others: others.cloned().collect(),
            last: recovered.last().index,
            committed: recovered.hard_state.commit.max(store.meta().applied),
            suspect: store.is_suspect(),
        }
    }

    /// Makes the node the only member of its cluster.
    pub fn carry_out(self) -> Result<Alone, RecoveryError> {
        let Self { root, content, _lock } = self;
        Ok(go_on_alone(&root, content)?)
    }
}
