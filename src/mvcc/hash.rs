//! HashKV: one number for all that the store retains (API reference, section 5.4).
//!
//! Owns: which changes are hashed and as which bytes; they are etcd's, so that the two can be compared. Must never: depend on how far the
//! removal of compacted changes has come. Driven by maintenance requests and by the comparison of members.

use bytes::BufMut;

use super::ReadError;
use super::view::View;
use crate::command::varint::put_varint;
use crate::command::{KeyRange, RangeEnd, Rejection};
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

impl View {
    /// Hashes everything retained up to `revision` (0: the current one). Reads all of it: long, and best at low priority.
    pub fn hash_kv(&self, revision: i64) -> Result<HashKv, ReadError> {
        if revision < 0 {
            return Err(Rejection::Compacted.into());
        }
        let at = self.plain_revision(revision)?;
        // Changes at or below the compacted revision count where a read at `at` still sees them, so what removal takes away or has not
        // yet taken away makes no difference. With no key live at `at` etcd hashes what removal leaves: the versions live at
        // the compacted revision.
        let all = KeyRange { start: bytes::Bytes::from_static(&[0]), end: RangeEnd::Unbounded };
        let any_live = self.rows(&all, at, 1)?.next().transpose()?.is_some();
        let witness = if any_live { at } else { self.compacted() };
        let mut hash = crc32c::crc32c(b"key");
        let mut row = Vec::new();
        for change in self.changes(VersionId::default())? {
            let (id, change) = change?;
            if id.main > at {
                break;
            }
            if id.main > self.compacted() || self.survives(id, &change, witness)? {
                row.clear();
                encode(id, &change, &mut row);
                hash = crc32c::crc32c_append(hash, &row);
            }
        }
        let compact_revision = if self.facts().ever_compacted { self.compacted().0 } else { -1 };
        Ok(HashKv { hash, compact_revision, hash_revision: at })
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
