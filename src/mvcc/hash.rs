//! HashKV: one number for all that the store retains (API reference, section 5.4).
//!
//! Owns: which changes are hashed and as which bytes; they are etcd's, so that the two can be compared. Must never: depend on how far the
//! removal of compacted changes has come. Driven by maintenance requests and by the comparison of members.
//!
//! etcd also hashes at each compaction, under the compacted revision *before* it, and answers a later request for just that revision with the
//! remembered number. We do not: its removal reads every version anyway, ours reads only what is superseded, and to read all of the state at
//! every compaction is a price for a big machine. What that hash is for, members that differ without anybody asking, the digest finds.

use bytes::BufMut;

use super::ReadError;
use super::range::from_key;
use super::rows::Step;
use super::view::View;
use crate::command::varint::put_varint;
use crate::command::{KeyRange, Rejection};
use crate::ids::{Revision, VersionId};
use crate::store::{Change, ChangeKind, StoreError};

/// The hash of what is retained, and of what exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C.
    pub hash: u32,
    /// The compacted revision; -1 when never compacted.
    pub compact_revision: i64,
    /// The revision up to which changes were hashed.
    pub hash_revision: Revision,
}

/// Which hash: two members, or one at two times, that hash the same name must come to the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashName {
    /// The compacted revision; -1 when never compacted.
    pub compact_revision: i64,
    /// The revision up to which changes are hashed.
    pub hash_revision: Revision,
}

impl View {
    /// Hashes everything retained up to `revision` (0: the current one) in one go.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, ReadError> {
        let mut walk = HashWalk::start(self.hash_name(revision)?);
        loop {
            if let Some(hash) = walk.step(self, u64::MAX)? {
                return Ok(hash);
            }
        }
    }

    /// What a hash up to `revision` (0: the current one) is of; refuses revisions that cannot be read.
    pub fn hash_name(&self, revision: i64) -> Result<HashName, ReadError> {
        if revision < 0 {
            return Err(Rejection::Compacted.into());
        }
        let hash_revision = self.plain_revision(revision)?;
        let compact_revision = if self.facts().ever_compacted { self.compacted().0 } else { -1 };
        Ok(HashName { compact_revision, hash_revision })
    }

    /// Whether a change at or below the compacted revision is the version of its key that a read at `witness` sees.
    fn survives(&self, id: VersionId, change: &Change, witness: Revision) -> Result<bool, StoreError> {
        if change.kind == ChangeKind::Delete {
            return Ok(false);
        }
        let visible = self.find(&change.key, witness)?;
        Ok(visible.is_some_and(|row| row.id() == id))
    }
}

/// A hash under way. It reads everything, so it goes in steps, and each may read from a newer view than the one before: what is
/// hashed was decided at the start. Between start and end the store must remove nothing.
pub struct HashWalk {
    name: HashName,
    /// Which changes at or below the compacted revision count: those that a read at this revision sees.
    witness: Revision,
    /// Where it is still to be seen whether any key is live at the revision that is hashed.
    search: Option<KeyRange>,
    next: VersionId,
    hash: u32,
    row: Vec<u8>,
}

impl HashWalk {
    /// Begins the hash of what a view calls `name`.
    pub fn start(name: HashName) -> Self {
        let all = KeyRange::everything();
        let (next, hash) = (VersionId::default(), crc32c::crc32c(b"key"));
        Self { name, witness: name.hash_revision, search: Some(all), next, hash, row: Vec::new() }
    }

    /// Hashes changes of about `budget` bytes as the quota counts them, at least one; the hash once there are no more.
    pub fn step(&mut self, view: &View, budget: u64) -> Result<Option<HashKv>, StoreError> {
        if let Some(rest) = self.search.take() {
            self.decide_witness(view, &rest)?;
            return Ok(None);
        }
        let mut spent = 0;
        for change in view.changes(self.next)? {
            let (id, change) = change?;
            if id.main > self.name.hash_revision {
                break;
            }
            if spent >= budget {
                self.next = id;
                return Ok(None);
            }
            spent += change.stored_bytes();
            if id.main > self.name.compacted() || view.survives(id, &change, self.witness)? {
                self.row.clear();
                encode(id, &change, &mut self.row);
                self.hash = crc32c::crc32c_append(self.hash, &self.row);
            }
        }
        let HashName { compact_revision, hash_revision } = self.name;
        Ok(Some(HashKv { hash: self.hash, compact_revision, hash_revision }))
    }

    /// Changes at or below the compacted revision count where a read at the hashed one still sees them, so what removal takes away or has
    /// not yet taken away makes no difference. With no key live there, etcd hashes what removal leaves: the versions live
    /// at the compacted revision.
    fn decide_witness(&mut self, view: &View, rest: &KeyRange) -> Result<(), StoreError> {
        match view.steps(rest, self.name.hash_revision, 1)?.next().transpose()? {
            Some(Step::Row(_)) => {}
            Some(Step::Pause(key)) => self.search = Some(from_key(key, rest)),
            None => self.witness = self.name.compacted(),
        }
        Ok(())
    }
}

impl HashName {
    fn compacted(self) -> Revision {
        Revision(self.compact_revision.max(0))
    }
}

impl HashKv {
    /// What this is the hash of.
    pub fn name(&self) -> HashName {
        HashName { compact_revision: self.compact_revision, hash_revision: self.hash_revision }
    }
}

/// The bytes that etcd stores for a change: its key for the revision, then a `KeyValue` in protobuf.
fn encode(id: VersionId, change: &Change, row: &mut Vec<u8>) {
    row.put_i64(id.main.0);
    row.put_u8(b'_');
    row.put_i64(i64::from(id.sub));
    match &change.kind {
        ChangeKind::Delete => {
            row.put_u8(b't');
            put_bytes(1, &change.key, row);
        }
        ChangeKind::Put { value, create_revision, version, lease } => {
            put_bytes(1, &change.key, row);
            put_number(2, create_revision.0, row);
            put_number(3, id.main.0, row);
            put_number(4, *version, row);
            put_bytes(5, value, row);
            put_number(6, lease.0, row);
        }
    }
}

fn put_number(field: u8, number: i64, row: &mut Vec<u8>) {
    if number != 0 {
        row.put_u8(field << 3);
        put_varint(row, number.cast_unsigned());
    }
}

fn put_bytes(field: u8, bytes: &[u8], row: &mut Vec<u8>) {
    if !bytes.is_empty() {
        row.put_u8(field << 3 | 2);
        put_varint(row, bytes.len() as u64);
        row.put_slice(bytes);
    }
}
