//! The bytes of one simulated file: what a crash cannot take, and what it may.
//!
//! Owns: the versions of each sector since the last sync. Must never: decide when a crash happens. Driven by `disk::sim`.

use std::collections::BTreeMap;
use std::io;

use super::Survival;
use crate::prng::Prng;

/// The unit that a disk writes whole or not at all, in bytes.
pub(super) const SECTOR: usize = 512;
/// Unsynced versions of one sector that a crash may choose from; older ones are forgotten.
const VERSIONS_MAX: usize = 4;

type Sector = [u8; SECTOR];

/// ```text
/// stable    AAAA BBBB CCCC            as of the last sync; its length is the length as of then
/// pending        B'       D E         written since: a crash keeps or drops each sector by itself
/// read      AAAA B'   CCCC D E
/// ```
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    stable: Vec<u8>,
    length: u64,
    pending: BTreeMap<u64, Pending>,
    /// Lengths that were set since the last sync, the newest ones.
    resized: Vec<u64>,
    /// The length before the first write since the last sync that made the file longer.
    appended: Option<u64>,
}

#[derive(Clone, Debug)]
struct Pending {
    /// Oldest first, never empty.
    versions: Vec<Sector>,
    /// A sync of it has failed. The page cache calls such a page clean: it is still read, but no later sync writes it.
    abandoned: bool,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    fn sector(&self, number: u64) -> Sector {
        if let Some(newest) = self.pending.get(&number).and_then(|pending| pending.versions.last()) {
            return *newest;
        }
        let mut sector = [0; SECTOR];
        let start = bytes_of(number).min(self.stable.len());
        let end = (start + SECTOR).min(self.stable.len());
        sector[..end - start].copy_from_slice(&self.stable[start..end]);
        sector
    }

    fn put_sector(&mut self, number: u64, sector: &Sector) {
        let pending =
            self.pending.entry(number).or_insert(Pending { versions: Vec::new(), abandoned: false });
        if pending.versions.len() == VERSIONS_MAX {
            pending.versions.remove(0);
        }
        pending.versions.push(*sector);
        pending.abandoned = false;
    }

    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.length);
        end.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        for (number, within, part) in pieces(offset, buffer.len()) {
            let sector = self.sector(number);
            let n = part.len();
            buffer[part].copy_from_slice(&sector[within..within + n]);
        }
        Ok(())
    }

    pub(super) fn write_at(&mut self, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        if end > self.length {
            self.appended.get_or_insert(self.length);
            self.resize(end);
        }
        for (number, within, part) in pieces(offset, bytes.len()) {
            let mut sector = self.sector(number);
            sector[within..within + part.len()].copy_from_slice(&bytes[part]);
            self.put_sector(number, &sector);
        }
    }

    pub(super) fn set_len(&mut self, length: u64) {
        if self.resized.len() == VERSIONS_MAX {
            self.resized.remove(0);
        }
        self.resized.push(length);
        self.resize(length);
    }

    fn resize(&mut self, length: u64) {
        let (shorter, longer) = (self.length.min(length), self.length.max(length));
        if length < self.length {
            self.pending.retain(|number, _| number * (SECTOR as u64) < length);
        }
        self.length = length;
        // What lies between the two lengths reads as zeros from now on, also where an old length left bytes behind.
        let left_behind = longer.min(self.stable.len() as u64).max(shorter.next_multiple_of(SECTOR as u64));
        for (number, within, part) in pieces(shorter, usize_of(left_behind.saturating_sub(shorter))) {
            let mut sector = self.sector(number);
            if sector[within..within + part.len()].iter().any(|byte| *byte != 0) {
                sector[within..within + part.len()].fill(0);
                self.put_sector(number, &sector);
            }
        }
    }

    pub(super) fn sync(&mut self) {
        self.stable.resize(usize_of(self.length), 0);
        self.resized.clear();
        self.appended = None;
        let (lost, kept): (BTreeMap<_, _>, BTreeMap<_, _>) =
            std::mem::take(&mut self.pending).into_iter().partition(|(_, pending)| pending.abandoned);
        self.pending = lost;
        for (number, pending) in kept {
            if let Some(newest) = pending.versions.last() {
                put_stable(&mut self.stable, number, newest);
            }
        }
    }

    /// After a failed sync the dirty pages count as clean: no later sync covers them.
    pub(super) fn fail_sync(&mut self) {
        for pending in self.pending.values_mut() {
            pending.abandoned = true;
        }
    }

    /// Lets go of what a failed sync has left in the page cache alone: it is read from the medium again.
    pub(super) fn forget_abandoned(&mut self) {
        self.pending.retain(|_, pending| !pending.abandoned);
    }

    /// What the medium holds after a crash.
    pub(super) fn crash(&self, survival: Survival, prng: &mut Prng) -> Content {
        let mut stable = self.stable.clone();
        stable.resize(self.surviving_length(survival, prng), 0);
        for (number, pending) in &self.pending {
            let versions = pending.versions.len() as u64;
            let pick = match survival {
                Survival::Nothing => 0,
                Survival::Everything => versions,
                Survival::Random => prng.range(0, versions + 1),
            };
            if let Some(picked) = pick.checked_sub(1).and_then(|i| pending.versions.get(usize_of(i))) {
                put_stable(&mut stable, *number, picked);
            }
        }
        Content { length: stable.len() as u64, stable, ..Content::default() }
    }

    /// A length that was set is taken over whole or not at all; a file that grew by writing may have grown by some of them.
    fn surviving_length(&self, survival: Survival, prng: &mut Prng) -> usize {
        let (old, new) = (self.stable.len(), usize_of(self.length));
        match survival {
            Survival::Nothing => old,
            Survival::Everything => new,
            Survival::Random => {
                let mut candidates = vec![old, new];
                candidates.extend(self.resized.iter().map(|length| usize_of(*length)));
                if let Some(from) = self.appended.map(usize_of).filter(|from| *from < new) {
                    let sectors = (new - from).div_ceil(SECTOR) as u64;
                    candidates.push((from + SECTOR * usize_of(prng.range(0, sectors + 1))).min(new));
                }
                candidates[usize_of(prng.range(0, candidates.len() as u64))]
            }
        }
    }

    /// Flips one bit on the medium, under whatever was written since.
    pub(super) fn flip_bit(&mut self, offset: u64, bit: u8) {
        let at = usize_of(offset);
        let mask = 1 << (bit % 8);
        if let Some(byte) = self.stable.get_mut(at) {
            *byte ^= mask;
        }
        if let Some(pending) = self.pending.get_mut(&(offset / SECTOR as u64)) {
            for version in &mut pending.versions {
                version[at % SECTOR] ^= mask;
            }
        }
    }
}

/// Cuts `length` bytes from `offset` at sector borders: (sector, offset within it, the part of the bytes).
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + done as u64;
        let within = usize_of(at % SECTOR as u64);
        let n = (SECTOR - within).min(length - done);
        let piece = (at / SECTOR as u64, within, done..done + n);
        done += n;
        Some(piece)
    })
}

fn put_stable(stable: &mut [u8], number: u64, sector: &Sector) {
    let start = bytes_of(number).min(stable.len());
    let end = (start + SECTOR).min(stable.len());
    stable[start..end].copy_from_slice(&sector[..end - start]);
}

fn bytes_of(sector: u64) -> usize {
    usize_of(sector * SECTOR as u64)
}

/// Simulated files are held in memory, so their offsets fit a `usize`.
fn usize_of(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
