//! The tables of `store.redb` and the bytes of their rows.
//!
//! Owns: every byte that the store gives redb, except the facts in `meta` (`facts`, `auth`). Must never: change the meaning of a byte
//! that was written; a new shape takes a new [`FORMAT_VERSION`]. Driven by `fold`, `base`, `scan`, `compact`, `scrub`.
//!
//! ```text
//! table  key                                 row
//! meta   "format"                            version:u32 LE                                             seal
//! meta   "facts"                             see `facts`                                                seal
//! meta   "auth"                              see `auth`                                                 seal
//! rev    main:u64 BE  sub:u32 BE             flags:u8 (0 put, 1 put with lease)  key:bytes
//!                                            main - create:varint  version:varint  [lease:u64 LE]  value  seal
//!                                            flags:u8 (2 tombstone)  key:bytes                          seal
//! live   key                                 flags:u8 (bit 0 lease, bit 1 sub)  main:varint  [sub:varint]
//!                                            main - create:varint  version:varint  [lease:u64 LE]       seal
//! hist   key  main:u64 BE  sub:u32 BE        flags:u8 (0 put, 2 tombstone)                              seal
//! lease  id:u64 LE                           ttl:varint  remaining:varint  granted_at:varint            seal
//! attached  lease:u64 LE  key                                                                           seal
//!
//! varint = LEB128    bytes = length:varint raw    seal = CRC32C over table key and row, u32 LE
//! ```
//!
//! Rows are as short as they can be because a fold rewrites the whole page around each row of `live` and `hist` that it touches: the
//! fewer pages those tables span, the fewer bytes a put costs the device. A `rev` row is written once, at the table's end.
//!
//! The order of `hist` is by key, then by id; a key that is a prefix of another needs the comparison of [`HistKey`], because
//! the raw bytes of `key ‖ id` would sort `"a" ‖ id` between the rows of `"a\0…"`.

use std::borrow::Cow;
use std::cmp::Ordering;

use bytes::Bytes;
use redb::{Key, TableDefinition, TypeName, Value};

use super::encoding::{Reader, SEAL_BYTES, checksum, put_bytes, seal, share, unseal};
use super::types::{Change, ChangeKind, Head, Lease};
use crate::command::varint::put_varint;
use crate::ids::{LeaseId, LogIndex, Revision, VersionId};

/// The version of everything in this file, in the row "format" of `meta`.
pub const FORMAT_VERSION: u32 = 2;

/// Values that there is one of.
pub const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// Every retained change.
pub const REV: TableDefinition<'_, &[u8; ID_BYTES], &[u8]> = TableDefinition::new("rev");
/// The current version of every key that exists.
pub const LIVE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("live");
/// Superseded versions and tombstones that are retained.
pub const HIST: TableDefinition<'_, HistKey, &[u8; HIST_ROW_BYTES]> = TableDefinition::new("hist");

/// Every lease.
pub const LEASE: TableDefinition<'_, &[u8; LEASE_ID_BYTES], &[u8]> = TableDefinition::new("lease");
/// Which keys are attached to which lease: one row for each head in `live` that names one.
pub const ATTACHED: TableDefinition<'_, &[u8], &[u8; SEAL_BYTES]> = TableDefinition::new("attached");

/// The row of `meta` that is read before anything else.
pub const FORMAT_KEY: &str = "format";
/// The row of `meta` that holds the facts; absent until the store is initialised.
pub const FACTS_KEY: &str = "facts";
/// The row of `meta` that holds users and roles; absent until there were any.
pub const AUTH_KEY: &str = "auth";

/// An id as a key.
pub const ID_BYTES: usize = 12;
/// The id of a lease as a key.
pub const LEASE_ID_BYTES: usize = 8;
/// A row of `hist`: flags and seal.
pub const HIST_ROW_BYTES: usize = 1 + SEAL_BYTES;

/// The name of `meta`, for errors.
pub const META_NAME: &str = "meta";
/// The name of `rev`, for errors.
pub const REV_NAME: &str = "rev";
/// The name of `live`, for errors.
pub const LIVE_NAME: &str = "live";
/// The name of `hist`, for errors.
pub const HIST_NAME: &str = "hist";
/// The name of `lease`, for errors.
pub const LEASE_NAME: &str = "lease";
/// The name of `attached`, for errors.
pub const ATTACHED_NAME: &str = "attached";

const FLAG_LEASE: u8 = 1;
const FLAG_TOMBSTONE: u8 = 2;
const FLAG_SUB: u8 = 2;

/// The lowest id that a row can have.
pub const ID_FIRST: VersionId = VersionId { main: Revision(0), sub: 0 };
/// The highest id that a row can have.
pub const ID_LAST: VersionId = last_of(Revision(i64::MAX));

/// The last change that a revision can hold.
pub const fn last_of(main: Revision) -> VersionId {
    VersionId { main, sub: u32::MAX }
}

/// An id as the key of a `rev` row.
pub fn id_key(id: VersionId) -> [u8; ID_BYTES] {
    assert!(id.main.0 >= 0, "revisions are counted from 0");
    let mut key = [0; ID_BYTES];
    key[..8].copy_from_slice(&id.main.0.to_be_bytes());
    key[8..].copy_from_slice(&id.sub.to_be_bytes());
    key
}

/// The id in the key of a `rev` row; `None` for a negative revision, which is never written.
pub fn parse_id(key: &[u8; ID_BYTES]) -> Option<VersionId> {
    let mut reader = Reader::new(key);
    let main = i64::from_be_bytes(reader.array()?);
    let sub = u32::from_be_bytes(reader.array()?);
    (main >= 0).then_some(VersionId { main: Revision(main), sub })
}

/// Writes the key of a `hist` row over what `out` holds.
pub fn hist_key(out: &mut Vec<u8>, key: &[u8], id: VersionId) {
    out.clear();
    out.extend_from_slice(key);
    out.extend_from_slice(&id_key(id));
}

/// The parts of a `hist` key; `None` where it is too short or its revision negative.
pub fn parse_hist_key(raw: &[u8]) -> Option<(&[u8], VersionId)> {
    let (key, id) = raw.split_last_chunk::<ID_BYTES>()?;
    Some((key, parse_id(id)?))
}

/// The key type of `hist`: the encoded key, ordered by its parts.
#[derive(Debug)]
pub struct HistKey;

impl HistKey {
    /// Splits without judging: redb compares whatever a damaged page holds.
    fn split(raw: &[u8]) -> (&[u8], &[u8]) {
        raw.split_at(raw.len().saturating_sub(ID_BYTES))
    }
}

impl Value for HistKey {
    type SelfType<'a> = &'a [u8];
    type AsBytes<'a> = &'a [u8];

    fn fixed_width() -> Option<usize> {
        None
    }

    fn from_bytes<'a>(data: &'a [u8]) -> &'a [u8]
    where
        Self: 'a,
    {
        data
    }

    fn as_bytes<'a, 'b: 'a>(value: &'a &'b [u8]) -> &'a [u8]
    where
        Self: 'b,
    {
        value
    }

    fn type_name() -> TypeName {
        TypeName::new("covey::hist_key")
    }
}

impl Key for HistKey {
    fn compare(left: &[u8], right: &[u8]) -> Ordering {
        Self::split(left).cmp(&Self::split(right))
    }

    /// Shortens what branch pages hold: between two keys, a short key that parts them, with the lowest id.
    fn separator<'a>(left: &'a [u8], right: &'a [u8]) -> Cow<'a, [u8]> {
        let ((left_key, _), (right_key, _)) = (Self::split(left), Self::split(right));
        if left_key < right_key {
            let between = <&[u8]>::separator(left_key, right_key);
            if between.len() < left_key.len() {
                let mut raw = Vec::with_capacity(between.len() + ID_BYTES);
                hist_key(&mut raw, &between, ID_FIRST);
                return Cow::Owned(raw);
            }
        }
        Cow::Borrowed(left)
    }
}

/// Writes the `rev` row of `change` at `id` over what `out` holds.
pub fn write_rev(out: &mut Vec<u8>, id: VersionId, change: &Change) {
    out.clear();
    match &change.kind {
        ChangeKind::Put { value, create_revision, version, lease } => {
            out.push(if *lease == LeaseId::NONE { 0 } else { FLAG_LEASE });
            put_bytes(out, &change.key);
            put_origin(out, id, *create_revision, *version, *lease);
            out.extend_from_slice(value);
        }
        ChangeKind::Delete => {
            out.push(FLAG_TOMBSTONE);
            put_bytes(out, &change.key);
        }
    }
    seal(&id_key(id), out);
}

/// A `rev` row without its bytes copied.
pub struct RevRow<'a> {
    /// The key that changed.
    pub key: &'a [u8],
    /// What it became; `None` for a tombstone.
    pub put: Option<RevPut<'a>>,
}

/// The part of a `rev` row that only a put has.
pub struct RevPut<'a> {
    /// The value.
    pub value: &'a [u8],
    /// The head that this version has while it is the current one.
    pub head: Head,
}

impl<'a> RevRow<'a> {
    /// Reads a row whose seal must fit; `None` for anything that [`write_rev`] does not write.
    pub fn parse(id: VersionId, row: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(unseal(&id_key(id), row)?);
        let flags = reader.u8()?;
        let key = reader.bytes()?;
        if flags == FLAG_TOMBSTONE {
            reader.end()?;
            return Some(Self { key, put: None });
        }
        let head = parse_origin(&mut reader, id, flags)?;
        Some(Self { key, put: Some(RevPut { value: reader.rest(), head }) })
    }

    /// What the row counts against the quota; equals [`Change::stored_bytes`].
    pub fn stored_bytes(&self) -> u64 {
        let value = self.put.as_ref().map_or(0, |put| put.value.len());
        (self.key.len() + value) as u64 + crate::limits::PUT_OVERHEAD_BYTES
    }
}

/// Reads a `rev` row into a change that owns its bytes, in one allocation.
pub fn parse_change(id: VersionId, row: &[u8]) -> Option<Change> {
    let whole = Bytes::copy_from_slice(row);
    let parsed = RevRow::parse(id, &whole)?;
    let key = share(&whole, parsed.key);
    let kind = match parsed.put {
        None => ChangeKind::Delete,
        Some(RevPut { value, head }) => ChangeKind::Put {
            value: share(&whole, value),
            create_revision: head.create_revision,
            version: head.version,
            lease: head.lease,
        },
    };
    Some(Change { key, kind })
}

/// Writes the `live` row of `key` over what `out` holds.
pub fn write_live(out: &mut Vec<u8>, key: &[u8], head: &Head) {
    out.clear();
    let lease = if head.lease == LeaseId::NONE { 0 } else { FLAG_LEASE };
    let sub = if head.id.sub == 0 { 0 } else { FLAG_SUB };
    out.push(lease | sub);
    put_varint(out, head.id.main.0.unsigned_abs());
    if head.id.sub != 0 {
        put_varint(out, u64::from(head.id.sub));
    }
    put_origin(out, head.id, head.create_revision, head.version, head.lease);
    seal(key, out);
}

/// Reads a `live` row; `None` for anything that [`write_live`] does not write.
pub fn parse_live(key: &[u8], row: &[u8]) -> Option<Head> {
    let mut reader = Reader::new(unseal(key, row)?);
    let flags = reader.u8()?;
    if flags & !(FLAG_LEASE | FLAG_SUB) != 0 {
        return None;
    }
    let main = Revision(reader.count()?);
    let sub = if flags & FLAG_SUB == 0 { 0 } else { u32::try_from(reader.varint()?).ok()? };
    let head = parse_origin(&mut reader, VersionId { main, sub }, flags & FLAG_LEASE)?;
    reader.end()?;
    Some(head)
}

/// The `hist` row under `raw_key`.
pub fn write_hist(raw_key: &[u8], tombstone: bool) -> [u8; HIST_ROW_BYTES] {
    let flags = if tombstone { FLAG_TOMBSTONE } else { 0 };
    let [a, b, c, d] = checksum(raw_key, &[flags]);
    [flags, a, b, c, d]
}

/// Whether a `hist` row is a tombstone; `None` for anything that [`write_hist`] does not write.
pub fn parse_hist(raw_key: &[u8], row: [u8; HIST_ROW_BYTES]) -> Option<bool> {
    match unseal(raw_key, &row)? {
        [0] => Some(false),
        [FLAG_TOMBSTONE] => Some(true),
        _ => None,
    }
}

/// The `lease` row of `id`.
pub fn write_lease(id: LeaseId, lease: &Lease) -> Vec<u8> {
    assert!(lease.ttl > 0 && lease.remaining >= 0, "times are not negative");
    let mut out = Vec::new();
    put_varint(&mut out, lease.ttl.unsigned_abs());
    put_varint(&mut out, lease.remaining.unsigned_abs());
    put_varint(&mut out, lease.granted_at.0);
    seal(&id.0.to_le_bytes(), &mut out);
    out
}

/// Reads a `lease` row; `None` for anything that [`write_lease`] does not write.
pub fn parse_lease(id: [u8; LEASE_ID_BYTES], row: &[u8]) -> Option<(LeaseId, Lease)> {
    let mut reader = Reader::new(unseal(&id, row)?);
    let (ttl, remaining, granted_at) = (reader.count()?, reader.count()?, LogIndex(reader.varint()?));
    reader.end()?;
    let id = LeaseId(i64::from_le_bytes(id));
    (ttl > 0 && id != LeaseId::NONE).then_some((id, Lease { ttl, remaining, granted_at }))
}

/// The key of an `attached` row.
pub fn attached_key(lease: LeaseId, key: &[u8]) -> Vec<u8> {
    [&lease.0.to_le_bytes(), key].concat()
}

/// The row of `attached` under `raw_key`.
pub fn write_attached(raw_key: &[u8]) -> [u8; SEAL_BYTES] {
    checksum(raw_key, &[])
}

/// The lease and the key that an `attached` row ties; `None` for anything that [`write_attached`] does not write.
pub fn parse_attached(raw_key: &[u8], row: [u8; SEAL_BYTES]) -> Option<(LeaseId, &[u8])> {
    unseal(raw_key, &row)?;
    let (lease, key) = raw_key.split_first_chunk::<LEASE_ID_BYTES>()?;
    Some((LeaseId(i64::from_le_bytes(*lease)), key))
}

/// The fields that `rev` and `live` share. The creation is stored as a distance, which is short for short-lived keys.
fn put_origin(out: &mut Vec<u8>, id: VersionId, create: Revision, version: i64, lease: LeaseId) {
    assert!(create >= Revision(0) && create <= id.main, "a key is created before it is changed");
    assert!(version > 0, "versions are counted from 1");
    put_varint(out, (id.main.0 - create.0).unsigned_abs());
    put_varint(out, version.unsigned_abs());
    if lease != LeaseId::NONE {
        out.extend_from_slice(&lease.0.to_le_bytes());
    }
}

fn parse_origin(reader: &mut Reader<'_>, id: VersionId, flags: u8) -> Option<Head> {
    let create = id.main.0 - reader.count()?;
    let version = reader.count()?;
    let lease = match flags {
        0 => LeaseId::NONE,
        FLAG_LEASE => LeaseId(i64::from_le_bytes(reader.array()?)),
        _ => return None,
    };
    (create >= 0 && version > 0).then_some(Head { id, create_revision: Revision(create), version, lease })
}

#[cfg(test)]
#[path = "schema_test.rs"]
mod tests;
