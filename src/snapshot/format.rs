//! The bytes of an image's parts.
//!
//! Owns: header, frames and the bodies of changes and ends. Must never: change the meaning of a byte that was written; a new shape takes a new
//! [`IMAGE_VERSION`](super::IMAGE_VERSION). Driven by writer and reader.

use bytes::Bytes;
use ring::digest::Context;

use super::IMAGE_VERSION;
use crate::ids::{LeaseId, LogIndex, Revision, VersionId};
use crate::store::{Change, ChangeKind, Lease};

/// What an image begins with.
pub const HEADER: [u8; 16] = *b"\x01covey image\0\0\0\0";
const _: () = assert!(HEADER[0] == IMAGE_VERSION);

/// Kind and length in front of a body.
pub const FRAME_HEAD_BYTES: usize = 5;
/// The checksum behind a body.
pub const SEAL_BYTES: usize = 4;
/// What a lease takes.
pub const LEASE_FRAME_BYTES: usize = FRAME_HEAD_BYTES + 4 * 8 + SEAL_BYTES;
/// What a change takes beside its key and value.
pub const CHANGE_OVERHEAD_BYTES: usize = FRAME_HEAD_BYTES + CHANGE_FIXED_BYTES + SEAL_BYTES;
/// The part of a change's body that is always there.
const CHANGE_FIXED_BYTES: usize = 8 + 4 + 1 + 8 + 8 + 8 + 4;
/// SHA-256.
pub const HASH_BYTES: usize = 32;
/// The body of the end.
pub const END_BYTES: usize = 8 + 8 + HASH_BYTES;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Facts,
    Lease,
    Change,
    End,
}

impl Kind {
    pub fn byte(self) -> u8 {
        match self {
            Kind::Facts => 1,
            Kind::Lease => 2,
            Kind::Change => 3,
            Kind::End => 4,
        }
    }

    pub fn parse(byte: u8) -> Option<Self> {
        [Kind::Facts, Kind::Lease, Kind::Change, Kind::End].into_iter().find(|kind| kind.byte() == byte)
    }
}

/// Appends a frame whose body `write` appends; `seal` is the checksum of everything before, and then of everything up to here.
pub fn put_frame(out: &mut Vec<u8>, kind: Kind, seal: &mut u32, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.push(kind.byte());
    out.extend_from_slice(&[0; 4]);
    let body = out.len();
    write(out);
    let length = u32::try_from(out.len() - body).expect("a body is at most a few megabytes");
    out[start + 1..body].copy_from_slice(&length.to_le_bytes());
    *seal = crc32c::crc32c_append(*seal, &out[start..]);
    out.extend_from_slice(&seal.to_le_bytes());
}

/// The body of a change.
pub fn put_change(out: &mut Vec<u8>, id: VersionId, change: &Change) {
    out.extend_from_slice(&id.main.0.to_le_bytes());
    out.extend_from_slice(&id.sub.to_le_bytes());
    let (value, create, version, lease) = match &change.kind {
        ChangeKind::Delete => (None, 0, 0, 0),
        ChangeKind::Put { value, create_revision, version, lease } => {
            (Some(value), create_revision.0, *version, lease.0)
        }
    };
    out.push(u8::from(value.is_none()));
    for number in [create, version, lease] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    let key_bytes = u32::try_from(change.key.len()).expect("a key fits a request");
    out.extend_from_slice(&key_bytes.to_le_bytes());
    out.extend_from_slice(&change.key);
    out.extend_from_slice(value.map_or(&[], |value| value.as_ref()));
}

/// A change from its body; `None` for what [`put_change`] does not write.
pub fn parse_change(body: &Bytes) -> Option<(VersionId, Change)> {
    let mut rest: &[u8] = body;
    let main = Revision(i64::from_le_bytes(take(&mut rest)?));
    let sub = u32::from_le_bytes(take(&mut rest)?);
    let [tombstone] = take(&mut rest)?;
    let create_revision = Revision(i64::from_le_bytes(take(&mut rest)?));
    let version = i64::from_le_bytes(take(&mut rest)?);
    let lease = LeaseId(i64::from_le_bytes(take(&mut rest)?));
    let key_bytes = usize::try_from(u32::from_le_bytes(take(&mut rest)?)).ok()?;
    let (key, value) = rest.split_at_checked(key_bytes)?;
    let (key, value) = (body.slice_ref(key), body.slice_ref(value));
    let kind = match tombstone {
        0 if version > 0 && (0..=main.0).contains(&create_revision.0) => {
            ChangeKind::Put { value, create_revision, version, lease }
        }
        1 if (create_revision.0, version, lease.0, value.len()) == (0, 0, 0, 0) => ChangeKind::Delete,
        _ => return None,
    };
    (main.0 >= 0 && !key.is_empty()).then_some((VersionId { main, sub }, Change { key, kind }))
}

/// The body of a lease.
pub fn put_lease(out: &mut Vec<u8>, id: LeaseId, lease: &Lease) {
    for number in [id.0, lease.ttl, lease.remaining] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&lease.granted_at.0.to_le_bytes());
}

/// A lease from its body; `None` for what [`put_lease`] does not write.
pub fn parse_lease(mut body: &[u8]) -> Option<(LeaseId, Lease)> {
    let id = LeaseId(i64::from_le_bytes(take(&mut body)?));
    let ttl = i64::from_le_bytes(take(&mut body)?);
    let remaining = i64::from_le_bytes(take(&mut body)?);
    let granted_at = LogIndex(u64::from_le_bytes(take(&mut body)?));
    let sound = id != LeaseId::NONE && ttl > 0 && (0..=ttl).contains(&remaining) && body.is_empty();
    sound.then_some((id, Lease { ttl, remaining, granted_at }))
}

/// What an end says of all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub leases: u64,
    pub changes: u64,
    pub hash: [u8; HASH_BYTES],
}

/// The body of the end.
pub fn put_end(out: &mut Vec<u8>, end: &End) {
    out.extend_from_slice(&end.leases.to_le_bytes());
    out.extend_from_slice(&end.changes.to_le_bytes());
    out.extend_from_slice(&end.hash);
}

/// An end from its body.
pub fn parse_end(mut body: &[u8]) -> Option<End> {
    let leases = u64::from_le_bytes(take(&mut body)?);
    let changes = u64::from_le_bytes(take(&mut body)?);
    let hash = take(&mut body)?;
    body.is_empty().then_some(End { leases, changes, hash })
}

/// A finished SHA-256.
pub fn hash_of(context: Context) -> [u8; HASH_BYTES] {
    let mut hash = [0; HASH_BYTES];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}
