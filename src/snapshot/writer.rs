//! An image of the state, in slices.
//!
//! Owns: what is in an image and in which order. Must never: hold a view. Driven by whoever sends or saves it, with a fresh view for each slice.

use std::sync::Arc;

use ring::digest::{Context, SHA256};

use super::format::{
    CHANGE_OVERHEAD_BYTES, END_BYTES, End, FRAME_HEAD_BYTES, HASH_BYTES, HEADER, Kind, LEASE_FRAME_BYTES,
    SEAL_BYTES, hash_of, put_change, put_end, put_frame, put_lease,
};
use super::{IMAGE_ALIGNMENT, WriteError};
use crate::ids::{LeaseId, Revision, VersionId};
use crate::mvcc::View;
use crate::store::{Lease, Meta, StoreError, encode_facts};

/// Writes one image.
///
/// # Contract
///
/// What the image holds is decided by the first view; the views after it are that one or newer, and have everything that it has: between
/// start and end the store removes nothing. One that has lost something ends the image with [`WriteError::Miscounted`], never with
/// a sound one that lacks it.
pub struct ImageWriter {
    at: Revision,
    /// Header and facts, until they are out.
    opening: Vec<u8>,
    /// What is left of the leases: they have no revisions, so those of the first view are kept.
    leases: std::vec::IntoIter<(LeaseId, Lease)>,
    leases_written: u64,
    next: VersionId,
    changes: u64,
    written: u64,
    total: u64,
    seal: u32,
    hash: Context,
    ended: bool,
}

impl ImageWriter {
    /// An image of the state that `view` shows.
    pub fn start(view: &View) -> Result<Self, StoreError> {
        let mut opening = HEADER.to_vec();
        let mut seal = crc32c::crc32c(&HEADER);
        // What a cluster knows of itself is of no use to another one, and some of it is secret.
        let auth = Arc::new(view.facts().auth.without_secrets());
        let facts = Meta { charter: Arc::default(), auth, ..view.meta() };
        put_frame(&mut opening, Kind::Facts, &mut seal, |out| out.extend(encode_facts(&facts)));
        let mut leases: Vec<_> = view.leases().iter().map(|(id, lease)| (id, *lease)).collect();
        leases.sort_unstable_by_key(|(id, _)| *id);
        let leases_bytes = (leases.len() * LEASE_FRAME_BYTES) as u64;
        let (changes, content) = view.count_changes()?;
        let end = FRAME_HEAD_BYTES + END_BYTES + SEAL_BYTES;
        let changes_bytes = changes * CHANGE_OVERHEAD_BYTES as u64 + content;
        let bare = (opening.len() + end) as u64 + leases_bytes + changes_bytes;
        let total = bare.next_multiple_of(IMAGE_ALIGNMENT as u64);
        let (at, next, hash) = (view.revision(), VersionId::default(), Context::new(&SHA256));
        Ok(Self {
            at,
            opening,
            leases: leases.into_iter(),
            leases_written: 0,
            next,
            changes: 0,
            written: 0,
            total,
            seal,
            hash,
            ended: false,
        })
    }

    /// The size of the whole image.
    pub fn total_bytes(&self) -> u64 {
        self.total
    }

    /// The revision that it is of.
    pub fn revision(&self) -> Revision {
        self.at
    }

    /// The next slice: about `budget` bytes, or a record that is larger. `None` after the last one.
    pub fn next_slice(&mut self, view: &View, budget: usize) -> Result<Option<Vec<u8>>, WriteError> {
        if self.ended {
            return Ok(None);
        }
        let mut slice = std::mem::take(&mut self.opening);
        while slice.len() < budget
            && let Some((id, lease)) = self.leases.next()
        {
            put_frame(&mut slice, Kind::Lease, &mut self.seal, |out| put_lease(out, id, &lease));
            self.leases_written += 1;
        }
        if self.leases.len() == 0 {
            self.write_changes(view, budget, &mut slice)?;
        }
        self.hash.update(&slice);
        self.written += slice.len() as u64;
        if !self.ended && self.written >= self.total {
            return Err(self.miscounted());
        }
        Ok(Some(slice))
    }

    fn write_changes(&mut self, view: &View, budget: usize, slice: &mut Vec<u8>) -> Result<(), WriteError> {
        self.ended = true;
        for change in view.changes(self.next)? {
            let (id, change) = change?;
            if id.main > self.at {
                break;
            }
            if slice.len() >= budget {
                (self.next, self.ended) = (id, false);
                break;
            }
            put_frame(slice, Kind::Change, &mut self.seal, |out| put_change(out, id, &change));
            self.changes += 1;
        }
        if self.ended { self.end(slice) } else { Ok(()) }
    }

    fn end(&mut self, slice: &mut Vec<u8>) -> Result<(), WriteError> {
        let mut hash = self.hash.clone();
        hash.update(slice);
        let end = End { leases: self.leases_written, changes: self.changes, hash: hash_of(hash) };
        put_frame(slice, Kind::End, &mut self.seal, |out| put_end(out, &end));
        let bare = self.written + slice.len() as u64;
        let found = bare.next_multiple_of(IMAGE_ALIGNMENT as u64);
        slice.resize(slice.len() + usize::try_from(found - bare).expect("below the alignment"), 0);
        if found == self.total { Ok(()) } else { Err(WriteError::Miscounted { expected: self.total, found }) }
    }

    /// The SHA-256 of the image, once it has been written.
    pub fn hash(self) -> Result<[u8; HASH_BYTES], WriteError> {
        if self.ended { Ok(hash_of(self.hash)) } else { Err(self.miscounted()) }
    }

    /// There is more, or less, than was counted: a view was of another state than the one before.
    pub fn miscounted(&self) -> WriteError {
        WriteError::Miscounted { expected: self.total, found: self.written }
    }
}
