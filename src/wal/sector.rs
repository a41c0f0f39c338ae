//! Sectors: the unit that a disk writes whole, each with its own proof.
//!
//! Owns: the trailer of a sector, packing a payload into sectors, reading them through a small window. Must never: know what a
//! payload means. Driven by `segment`, `log` and `recovery`.

use super::error::{WalError, failed};
use crate::disk::File;

/// Bytes of a sector.
pub(super) const SECTOR: usize = 512;
/// Bytes of a sector that carry payload.
pub(super) const PAYLOAD: usize = SECTOR - SEQUENCE_BYTES - CHECKSUM_BYTES;
/// Sectors of a page, the unit in which the kernel writes back.
pub(super) const PAGE_SECTORS: u64 = 8;
/// Sequences and generations above this were not written by us: it leaves room to count on.
pub(super) const COUNTER_MAX: u64 = u64::MAX >> 1;

/// Marks the first sector of a batch, in its sequence. Without it the data in the middle of a torn batch could pass for the beginning of one.
const LEADS: u64 = 1 << 63;
const SEQUENCE_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 4;
const CHECKSUM_AT: usize = SECTOR - CHECKSUM_BYTES;
/// Sectors that [`Reader`] holds: large enough to read at the disk's speed, small enough not to show in the process's size.
const WINDOW_SECTORS: usize = 128;

/// What a sector says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It was never written, or wiped.
    Zero,
    /// It is what was written at this place.
    Written {
        /// The batch that it belongs to.
        sequence: u64,
        /// Whether it is the first of that batch.
        leads: bool,
    },
    /// It is neither.
    Damaged,
}

/// Bytes to a number of sectors.
pub(super) fn sectors_of(payload: usize) -> u64 {
    payload.div_ceil(PAYLOAD) as u64
}

/// Byte offset of a sector.
pub(super) fn offset_of(number: u64) -> u64 {
    number.saturating_mul(SECTOR as u64)
}

fn checksum(sector: &[u8], seed: u32, number: u64) -> u32 {
    let seed = crc32c::crc32c_append(seed, &number.to_le_bytes());
    crc32c::crc32c_append(seed, &sector[..CHECKSUM_AT])
}

/// Completes the first sector of something, whose payload is in place; returns its checksum.
pub(super) fn seal_first(sector: &mut [u8], seed: u32, number: u64, sequence: u64) -> u32 {
    seal(sector, seed, number, sequence | LEADS)
}

/// Completes a sector that continues another; returns its checksum.
pub(super) fn seal(sector: &mut [u8], seed: u32, number: u64, sequence: u64) -> u32 {
    assert_eq!(sector.len(), SECTOR, "sealing is done sector by sector");
    sector[PAYLOAD..CHECKSUM_AT].copy_from_slice(&sequence.to_le_bytes());
    let checksum = checksum(sector, seed, number);
    sector[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    checksum
}

/// Judges a sector that was read at a place.
pub(super) fn inspect(sector: &[u8; SECTOR], seed: u32, number: u64) -> State {
    if *sector == [0; SECTOR] {
        return State::Zero;
    }
    let (_, trailer) = sector.split_at(PAYLOAD);
    let (sequence, stored) = trailer.split_at(SEQUENCE_BYTES);
    let sequence = sequence.try_into().map_or(u64::MAX, u64::from_le_bytes);
    if stored != checksum(sector, seed, number).to_le_bytes() {
        return State::Damaged;
    }
    State::Written { sequence: sequence & !LEADS, leads: sequence & LEADS != 0 }
}

/// The stored checksum of a sector.
pub(super) fn stored_checksum(sector: &[u8; SECTOR]) -> &[u8] {
    &sector[CHECKSUM_AT..]
}

/// Builds the sectors of one batch in a buffer that is used again.
#[derive(Debug, Default)]
pub(super) struct Packer {
    bytes: Vec<u8>,
    payload: usize,
}

impl Packer {
    /// Starts a batch of so many payload bytes.
    pub(super) fn start(&mut self, payload: usize) {
        self.bytes.clear();
        self.bytes.resize(payload.div_ceil(PAYLOAD) * SECTOR, 0);
        self.payload = 0;
    }

    /// Adds payload bytes.
    pub(super) fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = self.payload / PAYLOAD * SECTOR + self.payload % PAYLOAD;
            let n = bytes.len().min(PAYLOAD - self.payload % PAYLOAD);
            let (now, later) = bytes.split_at(n);
            self.bytes[at..at + n].copy_from_slice(now);
            self.payload += n;
            bytes = later;
        }
    }

    /// Completes the sectors, which will lie from sector `first` on; returns the batch's chain value.
    pub(super) fn seal(&mut self, seed: u32, first: u64, sequence: u64) -> u32 {
        assert_eq!(
            self.payload.div_ceil(PAYLOAD) * SECTOR,
            self.bytes.len(),
            "a batch fills what it asked for"
        );
        let mut chain = 0;
        for (number, sector) in (first..).zip(self.bytes.chunks_exact_mut(SECTOR)) {
            let seal = if number == first { seal_first } else { seal };
            let checksum = seal(sector, seed, number, sequence);
            chain = crc32c::crc32c_append(chain, &checksum.to_le_bytes());
        }
        chain
    }

    /// The sectors.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the buffer back if it is larger than `bytes`.
    pub(super) fn shrink(&mut self, bytes: usize) {
        if self.bytes.capacity() > bytes {
            *self = Self::default();
        }
    }
}

/// Reads a file by sectors; beyond the end of the file there are zeros.
pub(super) struct Reader<'a, F> {
    file: &'a F,
    name: &'a str,
    seed: u32,
    length: u64,
    window: Vec<[u8; SECTOR]>,
    window_first: u64,
}

impl<'a, F: File> Reader<'a, F> {
    pub(super) fn new(file: &'a F, name: &'a str, seed: u32) -> Result<Self, WalError> {
        let length = file.len().map_err(failed(name, "read the length of"))?;
        Ok(Self { file, name, seed, length, window: Vec::new(), window_first: 0 })
    }

    /// Bytes of the file.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Sectors of the file, the last one perhaps in part.
    pub(super) fn sectors(&self) -> u64 {
        self.length.div_ceil(SECTOR as u64)
    }

    /// The sector's bytes.
    pub(super) fn sector(&mut self, number: u64) -> Result<&[u8; SECTOR], WalError> {
        const BEYOND: [u8; SECTOR] = [0; SECTOR];
        if number >= self.sectors() {
            return Ok(&BEYOND);
        }
        let within = |first: u64, window: &Vec<_>| {
            let index = usize::try_from(number.checked_sub(first)?).ok()?;
            (index < window.len()).then_some(index)
        };
        if within(self.window_first, &self.window).is_none() {
            self.fill(number)?;
        }
        let sector = within(self.window_first, &self.window).and_then(|index| self.window.get(index));
        Ok(sector.unwrap_or(&BEYOND))
    }

    fn fill(&mut self, first: u64) -> Result<(), WalError> {
        let wanted = (self.sectors() - first).min(WINDOW_SECTORS as u64);
        let wanted = usize::try_from(wanted).unwrap_or(WINDOW_SECTORS);
        self.window.clear();
        self.window.resize(wanted, [0; SECTOR]);
        self.window_first = first;
        let offset = offset_of(first);
        let bytes = self.window.as_flattened_mut();
        let present = usize::try_from(self.length - offset).unwrap_or(usize::MAX).min(bytes.len());
        self.file.read_at(offset, &mut bytes[..present]).map_err(failed(self.name, "read"))
    }

    /// What the sector says about itself.
    pub(super) fn state(&mut self, number: u64) -> Result<State, WalError> {
        let seed = self.seed;
        Ok(inspect(self.sector(number)?, seed, number))
    }
}

#[cfg(test)]
mod tests {
    use super::{PAYLOAD, Packer, SECTOR, State, inspect, sectors_of};

    fn sectors(packer: &Packer) -> Vec<[u8; SECTOR]> {
        packer.bytes().chunks_exact(SECTOR).map(|sector| sector.try_into().unwrap()).collect()
    }

    #[test]
    fn payload_is_spread_over_sectors_and_comes_back() {
        let payload: Vec<u8> = (0..3 * PAYLOAD - 7).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let mut packer = Packer::default();
        packer.start(payload.len());
        for piece in payload.chunks(13) {
            packer.put(piece);
        }
        packer.seal(9, 40, 77);
        let sectors = sectors(&packer);
        assert_eq!(sectors.len() as u64, sectors_of(payload.len()));
        let joined: Vec<u8> = sectors.iter().flat_map(|sector| &sector[..PAYLOAD]).copied().collect();
        assert_eq!(&joined[..payload.len()], payload);
        for (number, sector) in (40..).zip(&sectors) {
            assert_eq!(inspect(sector, 9, number), State::Written { sequence: 77, leads: number == 40 });
            assert_eq!(inspect(sector, 8, number), State::Damaged, "another member's");
            assert_eq!(inspect(sector, 9, number + 1), State::Damaged, "at another place");
        }
        assert_eq!(inspect(&[0; SECTOR], 9, 40), State::Zero);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut packer = Packer::default();
        packer.start(300);
        packer.put(&[5; 300]);
        packer.seal(1, 8, 1);
        for bit in 0..SECTOR * 8 {
            let mut sector = sectors(&packer)[0];
            sector[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(inspect(&sector, 1, 8), State::Damaged, "bit {bit}");
        }
    }
}
