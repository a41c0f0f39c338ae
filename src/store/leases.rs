//! Leases on disk: which exist, and which keys are attached to each.
//!
//! Owns: the tables `lease` and `attached`. Must never: know when a lease ends. Written by folds, read through [`Base`].
//!
//! `attached` follows `live`: a key has a row under the lease that its head names, and no other. So it costs nothing where no
//! lease is used, and the keys of a lease are found without a look at all keys.

use std::ops::Bound;

use bytes::Bytes;
use redb::{ReadableTable, WriteTransaction};

use super::base::{Base, MALFORMED};
use super::encoding::SEAL_BYTES;
use super::error::StoreError;
use super::schema::{
    ATTACHED, ATTACHED_NAME, LEASE, LEASE_ID_BYTES, LEASE_NAME, attached_key, parse_attached, parse_lease,
    write_attached, write_lease,
};
use super::types::Lease;
use crate::ids::LeaseId;

/// The place of a lease in the table, whose order is that of the bytes of the ids and means nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeasePlace([u8; LEASE_ID_BYTES]);

impl LeasePlace {
    /// The place of this lease, whether there is one or not.
    pub const fn of(id: LeaseId) -> Self {
        Self(id.0.to_le_bytes())
    }

    /// Whose place it is.
    pub const fn id(self) -> LeaseId {
        LeaseId(i64::from_le_bytes(self.0))
    }
}

impl Base {
    /// All leases, in the order of their places.
    pub fn leases(&self) -> Result<Vec<(LeaseId, Lease)>, StoreError> {
        if self.suspect {
            return Ok(Vec::new());
        }
        self.leases_after(None)?.collect()
    }

    /// The leases behind a place, or all, in the order of their places.
    pub fn leases_after(
        &self,
        place: Option<LeasePlace>,
    ) -> Result<impl Iterator<Item = Result<(LeaseId, Lease), StoreError>> + use<>, StoreError> {
        let from = place.as_ref().map_or(Bound::Unbounded, |place| Bound::Excluded(&place.0));
        let rows = self.lease.range::<&[u8; LEASE_ID_BYTES]>((from, Bound::Unbounded))?;
        Ok(rows.map(|row| {
            let (id, row) = row?;
            parse_row(*id.value(), row.value())
        }))
    }

    /// The lease at a place; `None` where there is none.
    pub fn lease_at(&self, place: LeasePlace) -> Result<Option<Lease>, StoreError> {
        let Some(row) = self.lease.get(&place.0)? else { return Ok(None) };
        parse_row(place.0, row.value()).map(|(_, lease)| Some(lease))
    }

    /// The keys at or after `from` whose current version is attached to `lease`, in key order.
    pub fn attached<'b>(
        &'b self,
        lease: LeaseId,
        from: &[u8],
    ) -> Result<impl Iterator<Item = Result<Bytes, StoreError>> + use<'b>, StoreError> {
        attached_in(&self.attached, lease, from)
    }
}

/// The keys at or after `from` that a table has attached to `lease`, in key order.
pub(super) fn attached_in<'t, T: ReadableTable<&'static [u8], &'static [u8; SEAL_BYTES]>>(
    table: &'t T,
    lease: LeaseId,
    from: &[u8],
) -> Result<impl Iterator<Item = Result<Bytes, StoreError>> + use<'t, T>, StoreError> {
    let first = attached_key(lease, from);
    let rows = table.range::<&[u8]>((Bound::Included(first.as_slice()), Bound::Unbounded))?;
    let keys = rows.map(|row| {
        let (raw_key, row) = row?;
        let parsed = parse_attached(raw_key.value(), *row.value());
        let (of, key) =
            parsed.ok_or_else(|| StoreError::damaged(ATTACHED_NAME, raw_key.value(), MALFORMED))?;
        Ok((of, Bytes::copy_from_slice(key)))
    });
    Ok(keys.map_while(move |found| match found {
        Ok((of, key)) => (of == lease).then_some(Ok(key)),
        Err(error) => Some(Err(error)),
    }))
}

fn parse_row(id: [u8; LEASE_ID_BYTES], row: &[u8]) -> Result<(LeaseId, Lease), StoreError> {
    parse_lease(id, row).ok_or_else(|| StoreError::damaged(LEASE_NAME, &id, MALFORMED))
}

/// Writes the leases that changed.
pub(super) fn write_leases(
    txn: &WriteTransaction,
    leases: &[(LeaseId, Option<Lease>)],
) -> Result<(), StoreError> {
    if leases.is_empty() {
        return Ok(());
    }
    let mut table = txn.open_table(LEASE)?;
    for (id, lease) in leases {
        match lease {
            Some(lease) => table.insert(&id.0.to_le_bytes(), write_lease(*id, lease).as_slice())?,
            // One that was granted and ended between two folds was never there.
            None => table.remove(&id.0.to_le_bytes())?,
        };
    }
    Ok(())
}

/// What folding a stretch of keys does to `attached`: gathered, then written in the table's order.
#[derive(Default)]
pub(super) struct Attachments {
    moves: Vec<(Vec<u8>, bool)>,
}

impl Attachments {
    /// A key's head named `before` and names `after` now.
    pub(super) fn note(&mut self, key: &[u8], before: LeaseId, after: LeaseId) {
        if before == after {
            return;
        }
        for (lease, attached) in [(before, false), (after, true)] {
            if lease != LeaseId::NONE {
                self.moves.push((attached_key(lease, key), attached));
            }
        }
    }

    /// Writes what was noted.
    pub(super) fn write(mut self, txn: &WriteTransaction) -> Result<(), StoreError> {
        if self.moves.is_empty() {
            return Ok(());
        }
        self.moves.sort_unstable();
        let mut table = txn.open_table(ATTACHED)?;
        for (raw_key, attached) in &self.moves {
            if *attached {
                table.insert(raw_key.as_slice(), &write_attached(raw_key))?;
            } else if table.remove(raw_key.as_slice())?.is_none() {
                return Err(StoreError::damaged(ATTACHED_NAME, raw_key, super::base::MISSING));
            }
        }
        Ok(())
    }
}
