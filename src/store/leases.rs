//! Leases on disk: which exist, and which keys are attached to each.
//!
//! Owns: the tables `lease` and `attached`. Must never: know when a lease ends. Written by folds, read through [`Base`].
//!
//! `attached` follows `live`: a key has a row under the lease that its head names, and no other. So it costs nothing where no
//! lease is used, and the keys of a lease are found without a look at all keys.

use std::ops::Bound;

use bytes::Bytes;
use redb::WriteTransaction;

use super::base::{Base, MALFORMED};
use super::error::StoreError;
use super::schema::{
    ATTACHED, ATTACHED_NAME, LEASE, LEASE_ID_BYTES, LEASE_NAME, attached_key, parse_attached, parse_lease,
    write_attached, write_lease,
};
use super::types::Lease;
use crate::ids::LeaseId;

impl Base {
    /// All leases, in no order that means anything.
    pub fn leases(&self) -> Result<Vec<(LeaseId, Lease)>, StoreError> {
        let mut leases = Vec::new();
        if self.hides_leases {
            return Ok(leases);
        }
        for row in self.lease.range::<&[u8; LEASE_ID_BYTES]>(..)? {
            let (id, row) = row?;
            let parsed = parse_lease(*id.value(), row.value());
            leases.push(parsed.ok_or_else(|| StoreError::damaged(LEASE_NAME, id.value(), MALFORMED))?);
        }
        Ok(leases)
    }

    /// The keys at or after `from` whose current version is attached to `lease`, in key order.
    pub fn attached<'b>(
        &'b self,
        lease: LeaseId,
        from: &[u8],
    ) -> Result<impl Iterator<Item = Result<Bytes, StoreError>> + use<'b>, StoreError> {
        let first = attached_key(lease, from);
        let rows = self.attached.range::<&[u8]>((Bound::Included(first.as_slice()), Bound::Unbounded))?;
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
