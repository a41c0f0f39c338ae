//! Segments: files with a header, named by generation.
//!
//! Owns: names, the header, making and recycling of files, where in a segment a batch goes. Must never: know what is in a batch.
//! Driven by `log` and `recovery`.

use std::io;

use bytes::Buf;

use super::entry::{Identity, Position};
use super::error::{Damage, WalError, failed};
use super::sector::{COUNTER_MAX, PAGE_SECTORS, SECTOR, State, inspect, offset_of, seal_first};
use crate::disk::{Directory, File};
use crate::ids::{ClusterId, MemberId};
use crate::planted::{self, Bug};

/// The format that this release writes, and the only one it reads.
pub(super) const VERSION: u8 = 1;
/// The first sector that a batch can have; the header's page is never written together with one.
pub(super) const FIRST_SECTOR: u64 = PAGE_SECTORS;

const MAGIC: &[u8; 8] = b"coveywal";
/// The seed of a header's checksum: it must be readable before it is known whose log it is.
const HEADER_SEED: u32 = 0;
const PREFILLED: u8 = 1;
const SUFFIX: &str = ".wal";
const DRAFT_SUFFIX: &str = ".tmp";
/// Bytes that one write of the filling with zeros takes.
const FILL_BYTES: usize = 64 * 1024;

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) generation: u64,
    pub(super) identity: Identity,
    /// Sequences below are from an earlier use of the file.
    pub(super) oldest: u64,
    /// Bytes of the whole segment, a multiple of the page.
    pub(super) length: u64,
    /// Whether the file has that length from the start.
    pub(super) prefilled: bool,
}

impl Header {
    fn encode(&self) -> [u8; SECTOR] {
        let mut bytes = Vec::with_capacity(SECTOR);
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.push(if self.prefilled { PREFILLED } else { 0 });
        for value in
            [self.generation, self.identity.cluster.0, self.identity.member.0, self.oldest, self.length]
        {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        let mut sector = [0; SECTOR];
        sector[..bytes.len()].copy_from_slice(&bytes);
        seal_first(&mut sector, HEADER_SEED, 0, self.generation);
        sector
    }

    /// Reads the first sector of the file `name`. Magic, version and the sector's checksum stay where they are in every version, so
    /// that damage is not mistaken for a newer release.
    pub(super) fn decode(sector: &[u8; SECTOR], name: &str) -> Result<Self, WalError> {
        let corrupt = |what| WalError::Corrupt { file: name.to_owned(), offset: 0, what };
        match inspect(sector, HEADER_SEED, 0) {
            State::Damaged if sector.starts_with(MAGIC) => return Err(corrupt(Damage::Checksum)),
            State::Damaged | State::Zero => return Err(corrupt(Damage::Magic)),
            State::Written { .. } => {}
        }
        let Some([version, flags, rest @ ..]) = sector.strip_prefix(MAGIC) else {
            return Err(corrupt(Damage::Magic));
        };
        if *version != VERSION {
            return Err(WalError::UnsupportedVersion {
                file: name.to_owned(),
                found: *version,
                supported: VERSION,
            });
        }
        let mut rest = rest;
        let mut next = || rest.try_get_u64_le().map_err(|_| corrupt(Damage::Layout));
        let generation = next()?;
        let identity = Identity { cluster: ClusterId(next()?), member: MemberId(next()?) };
        let (oldest, length) = (next()?, next()?);
        let whole_pages = length.is_multiple_of(offset_of(PAGE_SECTORS)) && length > offset_of(FIRST_SECTOR);
        if *flags & !PREFILLED != 0 || !whole_pages || generation > COUNTER_MAX || oldest > COUNTER_MAX {
            return Err(corrupt(Damage::Layout));
        }
        Ok(Self { generation, identity, oldest, length, prefilled: *flags & PREFILLED != 0 })
    }

    /// What the checksums of the segment's batches start from.
    pub(super) fn seed(&self) -> u32 {
        seed_of(self.identity)
    }
}

/// What the checksums of a member's batches start from.
pub(super) fn seed_of(identity: Identity) -> u32 {
    let seed = crc32c::crc32c(&identity.cluster.0.to_le_bytes());
    crc32c::crc32c_append(seed, &identity.member.0.to_le_bytes())
}

/// The file of a generation.
pub(super) fn name_of(generation: u64) -> String {
    format!("{generation:016x}{SUFFIX}")
}

/// The generation of a file; `None` if it is no segment.
pub(super) fn generation_of(name: &str) -> Option<u64> {
    let generation = u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok()?;
    (generation <= COUNTER_MAX && name_of(generation) == name).then_some(generation)
}

fn draft_name_of(generation: u64) -> String {
    format!("{generation:016x}{DRAFT_SUFFIX}")
}

/// Whether a file was being made when the process ended; nothing in it counts.
pub(super) fn is_draft(name: &str) -> bool {
    let generation = name.strip_suffix(DRAFT_SUFFIX).and_then(|hex| u64::from_str_radix(hex, 16).ok());
    generation.is_some_and(|generation| draft_name_of(generation) == name)
}

/// Makes names durable. Without it a file that was synced may have no name after a crash, and with it goes the log.
pub(super) fn sync_names<D: Directory>(dir: &D) -> Result<(), WalError> {
    if planted::has(Bug::SkipDirSync) {
        return Ok(());
    }
    dir.sync().map_err(failed("", "sync the directory"))
}

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment<F> {
    pub(super) name: String,
    pub(super) file: F,
    pub(super) header: Header,
    /// Everything above is in this segment and later ones; `None` while it has no batch.
    pub(super) start: Option<Position>,
    /// The first free sector.
    pub(super) next: u64,
}

impl<F: File> Segment<F> {
    /// Makes the file under a draft name; neither content nor name are durable yet.
    pub(super) fn draft<D: Directory<File = F>>(dir: &D, header: Header) -> Result<Self, WalError> {
        let name = draft_name_of(header.generation);
        let file = dir.create(&name).map_err(failed(&name, "create"))?;
        if header.prefilled {
            let zeros = vec![0; FILL_BYTES];
            let mut offset = 0;
            while offset < header.length {
                let n = usize::try_from(header.length - offset).unwrap_or(FILL_BYTES).min(FILL_BYTES);
                file.write_at(offset, &zeros[..n]).map_err(failed(&name, "fill"))?;
                offset += n as u64;
            }
        }
        file.write_at(0, &header.encode()).map_err(failed(&name, "write the header of"))?;
        Ok(Self { name, file, header, start: None, next: FIRST_SECTOR })
    }

    /// Removes the draft of a segment that the disk has no room for, and says so.
    pub(super) fn discard<D: Directory<File = F>>(dir: &D, header: Header) -> Result<WalError, WalError> {
        let name = draft_name_of(header.generation);
        match dir.remove(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&name, "remove")(error)),
            _ => Ok(WalError::Full { file: name_of(header.generation) }),
        }
    }

    /// Gives a durable draft its name and makes the name durable.
    pub(super) fn publish<D: Directory<File = F>>(&mut self, dir: &D) -> Result<(), WalError> {
        let name = name_of(self.header.generation);
        dir.rename(&self.name, &name).map_err(failed(&self.name, "rename"))?;
        self.name = name;
        sync_names(dir)
    }

    /// Makes another segment of a file whose batches count no more.
    ///
    /// The header is replaced in one sector: a crash leaves the old segment, or one whose header contradicts its name, which
    /// recovery throws away. The names of several are made durable one after the other: if only the later one survived,
    /// there would be a gap, which is how a lost segment looks.
    pub(super) fn recycle<D: Directory<File = F>>(
        mut self,
        dir: &D,
        header: Header,
    ) -> Result<Self, WalError> {
        assert!(header.prefilled && self.header.prefilled && header.length == self.header.length);
        self.file.write_at(0, &header.encode()).map_err(failed(&self.name, "write the header of"))?;
        self.sync()?;
        let mut recycled = Self { header, start: None, next: FIRST_SECTOR, ..self };
        recycled.publish(dir)?;
        Ok(recycled)
    }

    /// One fdatasync.
    pub(super) fn sync(&mut self) -> Result<(), WalError> {
        self.file.sync_data().map_err(failed(&self.name, "sync"))
    }

    /// The sector behind the last one.
    pub(super) fn end(&self) -> u64 {
        self.header.length / offset_of(1)
    }

    /// Where a batch of so many sectors goes; `None` if it does not fit.
    pub(super) fn place(&self, sectors: u64) -> Option<u64> {
        candidates(self.next)
            .filter(|at| at + sectors <= self.end())
            .min_by_key(|at| pages_touched(*at, sectors))
    }

    /// Bytes that the file occupies.
    pub(super) fn disk_bytes(&self) -> u64 {
        if self.header.prefilled { self.header.length } else { offset_of(self.next) }
    }
}

/// Where a batch can begin when sectors are free from `next` on: right there, or at the page after.
pub(super) fn candidates(next: u64) -> impl Iterator<Item = u64> {
    let page = next.next_multiple_of(PAGE_SECTORS);
    std::iter::once(next).chain((page != next).then_some(page))
}

fn pages_touched(at: u64, sectors: u64) -> u64 {
    (at + sectors).div_ceil(PAGE_SECTORS) - at / PAGE_SECTORS
}

#[cfg(test)]
mod tests {
    use super::{FIRST_SECTOR, Header, Segment, generation_of, is_draft, name_of, seal_first};
    use crate::disk::sim::SimDir;
    use crate::ids::{ClusterId, MemberId};
    use crate::wal::{Damage, Identity, WalError};

    const HEADER: Header = Header {
        generation: 7,
        identity: Identity { cluster: ClusterId(1), member: MemberId(2) },
        oldest: 9,
        length: 3 * 4096,
        prefilled: false,
    };

    #[test]
    fn a_header_comes_back_and_every_flipped_bit_is_noticed() {
        let sector = HEADER.encode();
        assert_eq!(Header::decode(&sector, "f").unwrap(), HEADER);
        for bit in 0..sector.len() * 8 {
            let mut sector = sector;
            sector[bit / 8] ^= 1 << (bit % 8);
            let error = Header::decode(&sector, "f").unwrap_err();
            assert!(matches!(error, WalError::Corrupt { offset: 0, .. }), "bit {bit}: {error}");
        }
    }

    #[test]
    fn another_version_is_refused_by_name() {
        for version in [0, 2, 255] {
            let mut sector = HEADER.encode();
            sector[8] = version;
            seal_first(&mut sector, 0, 0, 7);
            let error = Header::decode(&sector, "some.wal").unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("log file some.wal has format version {version}; this release knows 1")
            );
        }
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for length in [0, 4096, 4097, u64::MAX] {
            let sector = Header { length, ..HEADER }.encode();
            let error = Header::decode(&sector, "f").unwrap_err();
            assert!(matches!(error, WalError::Corrupt { what: Damage::Layout, .. }), "{length}");
        }
    }

    #[test]
    fn names_and_generations_correspond() {
        for generation in [0, 1, 0xabc, u64::MAX >> 1] {
            assert_eq!(generation_of(&name_of(generation)), Some(generation));
        }
        for name in
            ["", ".wal", "1.wal", "000000000000000A.wal", "+00000000000000a.wal", "ffffffffffffffff.wal"]
        {
            assert_eq!(generation_of(name), None, "{name}");
        }
        assert!(is_draft("000000000000000a.tmp") && !is_draft("identity.tmp"));
    }

    #[test]
    fn a_batch_goes_where_it_touches_the_fewest_pages() {
        let mut segment = Segment::draft(&SimDir::new(1), HEADER).unwrap();
        assert_eq!(segment.place(1), Some(FIRST_SECTOR));
        for (next, sectors, place) in [
            (9, 1, Some(9)),
            (15, 1, Some(15)),
            (15, 2, Some(16)),
            (9, 8, Some(16)),
            (9, 9, Some(9)),
            (9, 15, Some(9)),
            (9, 16, None),
            (17, 8, None),
            (24, 1, None),
        ] {
            segment.next = next;
            assert_eq!(segment.place(sectors), place, "{sectors} sectors from {next}");
        }
    }
}
