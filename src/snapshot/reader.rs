//! Reading an image back, as its bytes come.
//!
//! Owns: the judgement of what is sound. Must never: give out a record before its checksum fits, or hold more than what was pushed last and one
//! incomplete frame. Driven by restores.

use bytes::{Bytes, BytesMut};
use ring::digest::{Context, SHA256};

use super::format::{
    End, FRAME_HEAD_BYTES, HEADER, Kind, SEAL_BYTES, hash_of, parse_change, parse_end, parse_lease,
};
use super::{IMAGE_ALIGNMENT, IMAGE_VERSION, ImageError};
use crate::ids::{LeaseId, Revision, VersionId};
use crate::limits::{ALARMS_MAX, REQUEST_BYTES_MAX};
use crate::store::{Change, Lease, Meta, StoreError, decode_facts};

/// No body is longer: the largest is a change, which fits a request, or facts, which are a list of members.
const BODY_BYTES_MAX: usize = 2 * REQUEST_BYTES_MAX;
/// Where bbolt's pages have its mark, and the mark.
const BBOLT_MARK_AT: usize = 16;
const BBOLT_MARK: [u8; 4] = 0xed0c_daed_u32.to_le_bytes();

/// A part of an image.
#[derive(Debug, PartialEq, Eq)]
pub enum Record {
    /// First of all: the facts. Its raft position and its members are those of the cluster that it was taken from.
    Facts(Box<Meta>),
    /// Then the leases, by id.
    Lease(LeaseId, Lease),
    /// Then the retained changes, ascending.
    Change(VersionId, Change),
    /// At last: everything was sound.
    End {
        /// How many changes there were.
        changes: u64,
        /// CRC-32C over all records: equal images have equal ones.
        checksum: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Header,
    Facts,
    Leases,
    Changes,
    Padding,
}

/// Reads one image: [`ImageReader::push`] bytes, [`ImageReader::next_record`] until `None`, and so on, then [`ImageReader::finish`].
/// An error is final.
pub struct ImageReader {
    buffer: BytesMut,
    /// Where the buffer begins in the image.
    offset: u64,
    stage: Stage,
    seal: u32,
    hash: Context,
    revision: Revision,
    last_lease: Option<LeaseId>,
    last: Option<VersionId>,
    leases: u64,
    changes: u64,
}

impl Default for ImageReader {
    fn default() -> Self {
        Self {
            buffer: BytesMut::new(),
            offset: 0,
            stage: Stage::Header,
            seal: crc32c::crc32c(&HEADER),
            hash: Context::new(&SHA256),
            revision: Revision(0),
            last_lease: None,
            last: None,
            leases: 0,
            changes: 0,
        }
    }
}

impl ImageReader {
    /// More bytes of the image.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next record; `None` until more bytes come.
    pub fn next_record(&mut self) -> Result<Option<Record>, ImageError> {
        if self.stage == Stage::Header && !self.header()? {
            return Ok(None);
        }
        if self.stage == Stage::Padding {
            return self.padding().map(|()| None);
        }
        let Some((kind, body)) = self.frame()? else { return Ok(None) };
        let damaged = |what| Err(ImageError::Damaged { offset: self.offset, what });
        let record = match (self.stage, kind) {
            (Stage::Facts, Kind::Facts) => self.facts(&body)?,
            (Stage::Leases, Kind::Lease) => self.lease(&body)?,
            (Stage::Leases | Stage::Changes, Kind::Change) => self.change(&body)?,
            (Stage::Leases | Stage::Changes, Kind::End) => self.end(&body)?,
            _ => return damaged("a record in the wrong place"),
        };
        self.consume(FRAME_HEAD_BYTES + body.len() + SEAL_BYTES);
        Ok(Some(record))
    }

    /// Confirms that the image was whole. Its size in bytes.
    pub fn finish(self) -> Result<u64, ImageError> {
        if self.stage != Stage::Padding || !self.offset.is_multiple_of(IMAGE_ALIGNMENT as u64) {
            return Err(ImageError::CutOff { offset: self.offset + self.buffer.len() as u64 });
        }
        Ok(self.offset)
    }

    fn damaged(&self, what: &'static str) -> ImageError {
        ImageError::Damaged { offset: self.offset, what }
    }

    /// Lets go of bytes that have been read.
    fn consume(&mut self, count: usize) {
        let read = self.buffer.split_to(count);
        self.hash.update(&read);
        self.offset += count as u64;
    }

    /// Whether the header has been passed.
    fn header(&mut self) -> Result<bool, ImageError> {
        // No image is shorter than that.
        let Some(begin) = self.buffer.first_chunk::<{ BBOLT_MARK_AT + BBOLT_MARK.len() }>() else {
            return Ok(false);
        };
        if begin[BBOLT_MARK_AT..] == BBOLT_MARK && begin[0] != IMAGE_VERSION {
            return Err(ImageError::Bbolt);
        }
        if begin[1..HEADER.len()] != HEADER[1..] {
            return Err(ImageError::NotAnImage);
        }
        if begin[0] != IMAGE_VERSION {
            return Err(ImageError::UnsupportedVersion { found: begin[0], supported: IMAGE_VERSION });
        }
        self.consume(HEADER.len());
        self.stage = Stage::Facts;
        Ok(true)
    }

    /// The next frame, once all of it is there; it stays in the buffer.
    fn frame(&mut self) -> Result<Option<(Kind, Bytes)>, ImageError> {
        let Some((head, rest)) = self.buffer.split_first_chunk::<FRAME_HEAD_BYTES>() else {
            return Ok(None);
        };
        let [kind, length @ ..] = *head;
        let kind = Kind::parse(kind).ok_or_else(|| self.damaged("no kind of record"))?;
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > BODY_BYTES_MAX {
            return Err(self.damaged("a record longer than any"));
        }
        let Some((body, rest)) = rest.split_at_checked(length) else { return Ok(None) };
        let Some((found, _)) = rest.split_first_chunk::<SEAL_BYTES>() else { return Ok(None) };
        let seal = crc32c::crc32c_append(self.seal, &self.buffer[..FRAME_HEAD_BYTES + length]);
        if seal.to_le_bytes() != *found {
            return Err(self.damaged("checksum does not fit"));
        }
        let body = Bytes::copy_from_slice(body);
        self.seal = seal;
        Ok(Some((kind, body)))
    }

    fn facts(&mut self, body: &[u8]) -> Result<Record, ImageError> {
        let meta = decode_facts(body).map_err(|error| match error {
            StoreError::UnsupportedVersion { found, supported } => {
                ImageError::UnsupportedFacts { found, supported }
            }
            _ => self.damaged("facts that are none"),
        })?;
        let sound = meta.revision >= Revision(1)
            && meta.compacted <= meta.revision
            && (meta.ever_compacted || meta.compacted == Revision(0))
            && meta.alarms.len() <= 2 * ALARMS_MAX
            && meta.alarms.is_sorted_by(|a, b| a < b)
            && meta.over_quota.is_sorted_by(|a, b| a < b);
        if !sound {
            return Err(self.damaged("facts that contradict each other"));
        }
        self.revision = meta.revision;
        self.stage = Stage::Leases;
        Ok(Record::Facts(Box::new(meta)))
    }

    fn lease(&mut self, body: &[u8]) -> Result<Record, ImageError> {
        let (id, lease) = parse_lease(body).ok_or_else(|| self.damaged("a lease that is none"))?;
        if self.last_lease.is_some_and(|last| last >= id) {
            return Err(self.damaged("a lease out of order"));
        }
        self.last_lease = Some(id);
        self.leases += 1;
        Ok(Record::Lease(id, lease))
    }

    fn change(&mut self, body: &Bytes) -> Result<Record, ImageError> {
        let (id, change) = parse_change(body).ok_or_else(|| self.damaged("a change that is none"))?;
        // The first write of a store makes revision 2.
        let first = VersionId::first_of(Revision(2));
        if id < first || self.last.is_some_and(|last| last >= id) || id.main > self.revision {
            return Err(self.damaged("a change out of order"));
        }
        self.stage = Stage::Changes;
        self.last = Some(id);
        self.changes += 1;
        Ok(Record::Change(id, change))
    }

    fn end(&mut self, body: &[u8]) -> Result<Record, ImageError> {
        let found = End { leases: self.leases, changes: self.changes, hash: hash_of(self.hash.clone()) };
        if parse_end(body).ok_or_else(|| self.damaged("an end that is none"))? != found {
            return Err(self.damaged("the end does not fit what was before it"));
        }
        self.stage = Stage::Padding;
        Ok(Record::End { changes: self.changes, checksum: self.seal })
    }

    fn padding(&mut self) -> Result<(), ImageError> {
        let position = usize::try_from(self.offset % IMAGE_ALIGNMENT as u64).unwrap_or(0);
        let missing = (IMAGE_ALIGNMENT - position) % IMAGE_ALIGNMENT;
        if self.buffer.len() > missing || self.buffer.iter().any(|byte| *byte != 0) {
            return Err(self.damaged("bytes behind the end"));
        }
        self.consume(self.buffer.len());
        Ok(())
    }
}
