//! Hashes over the whole state (API reference, section 5.4).
//!
//! Owns: which are remembered, and that one is computed at a time. Must never: keep a view for longer than a slice. Driven by `maintenance`.

use std::collections::VecDeque;

use smol::lock::Mutex;
use tonic::Status;

use super::node::Node;
use crate::ids::Revision;
use crate::limits::HASH_SLICE_BYTES;
use crate::mvcc::{HashKv, HashName, HashWalk};

/// How many results are remembered: who compares members asks each for the same one.
const REMEMBERED_MAX: usize = 16;
/// CRC-32C of what every hash begins with.
const HASH_OF_NOTHING: u32 = 1_084_519_789;

/// The hashes of a node.
pub struct Hashes {
    node: Node,
    /// The newest last. Locked while one is computed: everybody else who asks waits, perhaps for the very same one.
    remembered: Mutex<VecDeque<HashKv>>,
}

impl Hashes {
    /// Nothing is computed yet.
    pub fn new(node: Node) -> Self {
        Self { node, remembered: Mutex::default() }
    }

    /// The hash up to `revision`; 0 is the current one.
    pub async fn hash_kv(&self, revision: i64) -> Result<HashKv, Status> {
        if revision < 0 {
            // No change is that old, and etcd does not call it compacted.
            let HashName { compact_revision, .. } = self.node.handle().view().hash_name(0)?;
            return Ok(HashKv { hash: HASH_OF_NOTHING, compact_revision, hash_revision: Revision(revision) });
        }
        let mut remembered = self.remembered.lock().await;
        let name = self.node.handle().view().hash_name(revision)?;
        if let Some(known) = remembered.iter().find(|known| known.name() == name) {
            return Ok(*known);
        }
        let hash = self.compute(revision).await?;
        if remembered.len() == REMEMBERED_MAX {
            remembered.pop_front();
        }
        remembered.push_back(hash);
        Ok(hash)
    }

    async fn compute(&self, revision: i64) -> Result<HashKv, Status> {
        let hold = self.node.handle().hold_removal().await?;
        let view = hold.view(self.node.handle())?;
        // Only now: meanwhile the state has gone on, and a compaction may have been accepted and carried out.
        let name = view.hash_name(revision)?;
        let mut walk = HashWalk::start(name);
        loop {
            let view = hold.view(self.node.handle())?;
            let slice = move |view: &_| walk.step(view, HASH_SLICE_BYTES).map(|hash| (walk, hash));
            let (rest, hash) = self.node.read(view, false, slice).await?;
            if let Some(hash) = hash {
                return Ok(hash);
            }
            walk = rest;
        }
    }
}
