//! A store that comes from another member: changes in order of revision, leases, and at the end the facts.
//!
//! Owns: the bytes of a piece of changes or leases, how far a staged store has come, and the moment in which it is whole. Must never: be taken
//! for a store before it is whole, or take a change that does not follow the last one. Driven by `node::Checkpointer`, on the file that will
//! replace the store's own.
//!
//! ```text
//! piece            (id:12 bytes as in `rev`  length:varint  row as in `rev`, with its checksum)*
//! piece of leases  (id:8 bytes as in `lease`  length:varint  row as in `lease`, or nothing but its seal where the lease has ended)*
//! meta "staged"    version:u8 (2)  source:u64  boot:u64  number:u64  next:12 bytes  changes:u64  leases:u64  digest:u32  bytes:u64  seal
//!                  numbers LE
//! meta "installed" version:u8 (1)  index:u64 LE  seal
//! ```
//!
//! A lease comes anew when it has changed at the source, so pieces of leases follow one another in any order; within one the ids ascend as the
//! table has them.
//!
//! A staged store has no facts before it is whole, so nobody opens half of one by accident. The facts come with the row `installed`, in one
//! commit: as long as no fold moves the store on, it says why the log beside it may be older than the state.

use bytes::Bytes;
use redb::{Durability, ReadableDatabase as _, WriteTransaction};

use super::change_log::ChangeLog;
use super::encoding::{Reader, put_bytes, seal, unseal};
use super::error::StoreError;
use super::leases::LeasePlace;
use super::schema::{
    AUTH_KEY, FACTS_KEY, ID_BYTES, LEASE_ID_BYTES, META, META_NAME, id_key, parse_change, parse_id,
    parse_lease, write_lease, write_rev,
};
use super::types::{Change, Lease, Meta};
use super::writer::Store;
use super::{auth, facts, fold};
use crate::auth::Auth;
use crate::command::varint::put_varint;
use crate::ids::{LeaseId, LogIndex, MemberId, Revision, VersionId};

const STAGED_KEY: &str = "staged";
const INSTALLED_KEY: &str = "installed";
const STAGED_VERSION: u8 = 2;
const INSTALLED_VERSION: u8 = 1;

/// Where a transfer begins: before all changes.
pub const FIRST_CHANGE: VersionId = VersionId { main: Revision(0), sub: 0 };

/// One transfer of a state: of one run of its source, to one member, counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransferId {
    /// Who sends.
    pub source: MemberId,
    /// The random number of the sender's run.
    pub boot: u64,
    /// The how manieth of that run.
    pub number: u64,
}

/// How far a transfer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageProgress {
    /// The place behind the last change: no later one is below it.
    pub next: VersionId,
    /// Changes so far.
    pub changes: u64,
    /// Leases so far, each as often as it came.
    pub leases: u64,
    /// CRC32C over all pieces so far.
    pub digest: u32,
}

impl Default for StageProgress {
    fn default() -> Self {
        Self { next: FIRST_CHANGE, changes: 0, leases: 0, digest: 0 }
    }
}

impl StageProgress {
    /// The progress after one more piece. `None` when the piece does not follow: nothing in it is below [`StageProgress::next`].
    pub fn after(&self, piece: &Bytes, changes: &[(VersionId, Change)]) -> Option<Self> {
        let (Some((first, _)), Some((last, _))) = (changes.first(), changes.last()) else { return None };
        let sub = last.sub.checked_add(1)?;
        let ascends = changes.is_sorted_by(|(a, _), (b, _)| a < b);
        (*first >= self.next && ascends).then(|| Self {
            next: VersionId { main: last.main, sub },
            changes: self.changes + changes.len() as u64,
            digest: crc32c::crc32c_append(self.digest, piece),
            ..*self
        })
    }

    /// The progress after one more piece of leases. `None` for one that is empty or out of order.
    pub fn after_leases(&self, piece: &Bytes, leases: &[(LeaseId, Option<Lease>)]) -> Option<Self> {
        let ascends = leases.is_sorted_by(|(a, _), (b, _)| LeasePlace::of(*a) < LeasePlace::of(*b));
        (!leases.is_empty() && ascends).then(|| Self {
            leases: self.leases + leases.len() as u64,
            digest: crc32c::crc32c_append(self.digest, piece),
            ..*self
        })
    }
}

/// What a staged store says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Where it comes from.
    pub transfer: TransferId,
    /// How far it has come.
    pub progress: StageProgress,
    /// Bytes of its changes, as the quota counts them.
    bytes: u64,
}

/// Bytes from a peer are not a piece of changes or leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a piece of a state: malformed, damaged, or out of order")]
pub struct PieceError;

/// The bytes of changes on their way to another member.
pub fn pack(changes: &[(VersionId, Change)]) -> Bytes {
    let (mut piece, mut row) = (Vec::new(), Vec::new());
    for (id, change) in changes {
        write_rev(&mut row, *id, change);
        piece.extend_from_slice(&id_key(*id));
        put_varint(&mut piece, row.len() as u64);
        piece.extend_from_slice(&row);
    }
    piece.into()
}

/// Reads back what [`pack`] wrote.
pub fn unpack(piece: &Bytes) -> Result<Vec<(VersionId, Change)>, PieceError> {
    let mut reader = Reader::new(piece);
    let mut changes = Vec::new();
    while !reader.is_empty() {
        changes.push(take_change(&mut reader).ok_or(PieceError)?);
    }
    Ok(changes)
}

fn take_change(reader: &mut Reader<'_>) -> Option<(VersionId, Change)> {
    let id = parse_id(&reader.array::<ID_BYTES>()?)?;
    Some((id, parse_change(id, reader.bytes()?)?))
}

/// The bytes of leases on their way to another member, those that have ended among them (`None`).
pub fn pack_leases(leases: &[(LeaseId, Option<Lease>)]) -> Bytes {
    let mut piece = Vec::new();
    for (id, lease) in leases {
        let ended = || {
            let mut row = Vec::new();
            seal(&id.0.to_le_bytes(), &mut row);
            row
        };
        piece.extend_from_slice(&id.0.to_le_bytes());
        put_bytes(&mut piece, &lease.map_or_else(ended, |lease| write_lease(*id, &lease)));
    }
    piece.into()
}

/// Reads back what [`pack_leases`] wrote.
pub fn unpack_leases(piece: &Bytes) -> Result<Vec<(LeaseId, Option<Lease>)>, PieceError> {
    let mut reader = Reader::new(piece);
    let mut leases = Vec::new();
    while !reader.is_empty() {
        leases.push(take_lease(&mut reader).ok_or(PieceError)?);
    }
    Ok(leases)
}

fn take_lease(reader: &mut Reader<'_>) -> Option<(LeaseId, Option<Lease>)> {
    let id = reader.array::<LEASE_ID_BYTES>()?;
    let row = reader.bytes()?;
    if unseal(&id, row)?.is_empty() {
        return Some((LeaseId(i64::from_le_bytes(id)), None));
    }
    parse_lease(id, row).map(|(id, lease)| (id, Some(lease)))
}

/// Staging.
impl Store {
    /// What this store says of the transfer that it comes from; `None` for one that was founded, or into which nothing was staged yet.
    pub fn stage(&self) -> Result<Option<Stage>, StoreError> {
        self.check_usable()?;
        let meta = self.database.begin_read()?.open_table(META)?;
        let Some(row) = meta.get(STAGED_KEY)? else { return Ok(None) };
        let stage = parse_stage(row.value());
        let damaged = || StoreError::damaged(META_NAME, STAGED_KEY.as_bytes(), "malformed");
        stage.map(Some).ok_or_else(damaged)
    }

    /// Adds changes to a store that is not whole, in one durable commit together with how far it has come then.
    ///
    /// What a crash leaves is the store before or after this piece: its row says which, and the transfer goes on from there.
    pub fn stage_piece(
        &mut self,
        transfer: TransferId,
        progress: StageProgress,
        changes: &[(VersionId, Change)],
    ) -> Result<(), StoreError> {
        let added = changes.iter().map(|(_, change)| change.stored_bytes()).sum();
        self.stage_rows(transfer, progress, added, &changes.iter().cloned().collect(), &[])
    }

    /// The same for leases: each is there from now on, or not any more.
    pub fn stage_leases(
        &mut self,
        transfer: TransferId,
        progress: StageProgress,
        leases: &[(LeaseId, Option<Lease>)],
    ) -> Result<(), StoreError> {
        self.stage_rows(transfer, progress, 0, &ChangeLog::default(), leases)
    }

    fn stage_rows(
        &mut self,
        transfer: TransferId,
        progress: StageProgress,
        added_bytes: u64,
        changes: &ChangeLog,
        leases: &[(LeaseId, Option<Lease>)],
    ) -> Result<(), StoreError> {
        assert!(!self.is_initialised(), "what is whole is not staged into");
        let before = self.stage()?;
        let same = before.filter(|before| before.transfer == transfer);
        assert_eq!(before, same, "one store is staged from one transfer");
        let bytes = before.map_or(0, |before| before.bytes) + added_bytes;
        let row = stage_row(&Stage { transfer, progress, bytes });
        let dirty_bytes_max = self.dirty_bytes_max();
        self.commit_rows(|database| {
            let txn = fold::write_rows(database, changes, leases, dirty_bytes_max)?.txn;
            txn.open_table(META)?.insert(STAGED_KEY, row.as_slice())?;
            Ok(txn)
        })
    }

    /// Makes a staged store whole: these are the facts after its last change, and its leases are all that there are then. Durable when it
    /// returns.
    ///
    /// Removal begins anew in it: some of what came may have been removed at the source meanwhile.
    pub fn finish_stage(&mut self, meta: &Meta) -> Result<(), StoreError> {
        assert!(!self.is_initialised(), "a store becomes whole once");
        let bytes_in_use = self.stage()?.map_or(0, |stage| stage.bytes);
        let meta = Meta { bytes_in_use, compaction_finished: Revision(0), ..meta.clone() };
        let mut installed = vec![INSTALLED_VERSION];
        installed.extend_from_slice(&meta.applied.0.to_le_bytes());
        seal(INSTALLED_KEY.as_bytes(), &mut installed);
        let facts = facts::encode_row(&meta);
        self.commit_rows(|database| {
            let txn = database.begin_write()?;
            put_meta(&txn, INSTALLED_KEY, &installed)?;
            put_meta(&txn, FACTS_KEY, &facts)?;
            if *meta.auth != Auth::default() {
                put_meta(&txn, AUTH_KEY, &auth::encode(&meta.auth))?;
            }
            Ok(txn)
        })?;
        self.become_whole(meta);
        Ok(())
    }

    /// Whether the state is exactly what came from another member: no fold has moved it on. Then the log beside it may be the one
    /// from before, which a crash in the middle of the install leaves.
    pub fn is_as_installed(&self) -> Result<bool, StoreError> {
        self.check_usable()?;
        let meta = self.database.begin_read()?.open_table(META)?;
        let Some(row) = meta.get(INSTALLED_KEY)? else { return Ok(false) };
        let index = parse_installed(row.value());
        let damaged = || StoreError::damaged(META_NAME, INSTALLED_KEY.as_bytes(), "malformed");
        Ok(index.ok_or_else(damaged)? == self.meta().applied)
    }

    fn commit_rows(
        &mut self,
        write: impl FnOnce(&redb::Database) -> Result<WriteTransaction, StoreError>,
    ) -> Result<(), StoreError> {
        self.attempt(|store| {
            let mut txn = write(&store.database)?;
            txn.set_durability(Durability::Immediate)?;
            txn.set_quick_repair(true);
            Ok(txn.commit()?)
        })
    }
}

fn put_meta(txn: &WriteTransaction, key: &str, row: &[u8]) -> Result<(), StoreError> {
    txn.open_table(META)?.insert(key, row)?;
    Ok(())
}

fn stage_row(stage: &Stage) -> Vec<u8> {
    let Stage { transfer, progress, bytes } = stage;
    let mut row = vec![STAGED_VERSION];
    for number in [transfer.source.0, transfer.boot, transfer.number] {
        row.extend_from_slice(&number.to_le_bytes());
    }
    row.extend_from_slice(&id_key(progress.next));
    row.extend_from_slice(&progress.changes.to_le_bytes());
    row.extend_from_slice(&progress.leases.to_le_bytes());
    row.extend_from_slice(&progress.digest.to_le_bytes());
    row.extend_from_slice(&bytes.to_le_bytes());
    seal(STAGED_KEY.as_bytes(), &mut row);
    row
}

fn parse_stage(row: &[u8]) -> Option<Stage> {
    let mut reader = Reader::new(unseal(STAGED_KEY.as_bytes(), row)?);
    if reader.u8()? != STAGED_VERSION {
        return None;
    }
    let transfer = TransferId {
        source: MemberId(u64::from_le_bytes(reader.array()?)),
        boot: u64::from_le_bytes(reader.array()?),
        number: u64::from_le_bytes(reader.array()?),
    };
    let progress = StageProgress {
        next: parse_id(&reader.array::<ID_BYTES>()?)?,
        changes: u64::from_le_bytes(reader.array()?),
        leases: u64::from_le_bytes(reader.array()?),
        digest: u32::from_le_bytes(reader.array()?),
    };
    let stage = Stage { transfer, progress, bytes: u64::from_le_bytes(reader.array()?) };
    reader.end()?;
    Some(stage)
}

fn parse_installed(row: &[u8]) -> Option<LogIndex> {
    let mut reader = Reader::new(unseal(INSTALLED_KEY.as_bytes(), row)?);
    if reader.u8()? != INSTALLED_VERSION {
        return None;
    }
    let index = LogIndex(u64::from_le_bytes(reader.array()?));
    reader.end()?;
    Some(index)
}

#[cfg(test)]
#[path = "stage_test.rs"]
mod tests;
