//! Images in files: the image, and behind it the hash that the server sent.
//!
//! Owns: the hash at the end and the reading of records from a file. Must never: trust a file: every record is checked, and the hash unless its
//! owner says otherwise. Driven by the snapshot commands.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::Path;

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

use crate::snapshot::{IMAGE_ALIGNMENT, ImageError, ImageReader, Record};
use crate::store::Meta;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system said no.
    #[error("cannot read the snapshot: {0}")]
    Io(#[from] io::Error),
    /// The content is no sound image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The file ends with the image; etcd's words.
    #[error("snapshot missing hash but --skip-hash-check=false")]
    NoHash,
    /// The hash is of something else; etcd's words.
    #[error("expected sha256 [{expected}], got [{found}]")]
    HashMismatch {
        /// What the file says.
        expected: String,
        /// What it has.
        found: String,
    },
    /// The image has no facts, or no end; its reader lets that not pass.
    #[error("the snapshot is not whole")]
    NotWhole,
}

/// Whether a file's hash is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashCheck {
    /// It must be there and fit.
    Required,
    /// It may be missing or wrong: the image was taken from somewhere else than a server.
    Skipped,
}

/// What a sound file holds.
#[derive(Clone, Debug)]
pub struct ImageSummary {
    /// The facts.
    pub facts: Meta,
    /// How many changes.
    pub changes: u64,
    /// CRC-32C over all records.
    pub checksum: u32,
    /// Bytes of the image, without the hash behind it.
    pub bytes: u64,
}

/// An image in a file.
pub struct ImageFile {
    file: File,
    image_bytes: u64,
    hash: Option<[u8; SHA256_OUTPUT_LEN]>,
}

impl ImageFile {
    /// Opens a file and looks at its size.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let tail = SHA256_OUTPUT_LEN as u64;
        if length % IMAGE_ALIGNMENT as u64 != tail {
            return Ok(Self { file, image_bytes: length, hash: None });
        }
        let mut hash = [0; SHA256_OUTPUT_LEN];
        file.seek(io::SeekFrom::Start(length - tail))?;
        file.read_exact(&mut hash)?;
        Ok(Self { file, image_bytes: length - tail, hash: Some(hash) })
    }

    /// Reads all of it: whether it is sound, and what it holds.
    pub fn examine(&mut self, check: HashCheck) -> Result<ImageSummary, FileError> {
        if self.hash.is_none() && check == HashCheck::Required {
            // What it is comes before what it lacks.
            self.records()?.next().transpose()?;
            return Err(FileError::NoHash);
        }
        let expected = self.hash.filter(|_| check == HashCheck::Required);
        let (mut facts, mut end) = (None, None);
        let mut records = self.records()?;
        for record in &mut records {
            match record? {
                Record::Facts(meta) => facts = Some(*meta),
                Record::Lease(..) | Record::Change(..) => {}
                Record::End { changes, checksum } => end = Some((changes, checksum)),
            }
        }
        let found = records.hash.finish();
        if let Some(expected) = expected.filter(|expected| expected != found.as_ref()) {
            return Err(FileError::HashMismatch { expected: hex(&expected), found: hex(found.as_ref()) });
        }
        let (facts, (changes, checksum)) = facts.zip(end).ok_or(FileError::NotWhole)?;
        Ok(ImageSummary { facts, changes, checksum, bytes: self.image_bytes })
    }

    /// The records, from the first one. After the last one the image was whole.
    pub fn records(&mut self) -> Result<Records<'_>, FileError> {
        self.file.rewind()?;
        let source = (&mut self.file).take(self.image_bytes);
        let (reader, hash) = (Some(ImageReader::default()), Context::new(&SHA256));
        Ok(Records { source, reader, hash, piece: vec![0; PIECE_BYTES] })
    }
}

/// The records of an image, one at a time. Ends after the last one or an error.
pub struct Records<'f> {
    source: io::Take<&'f mut File>,
    reader: Option<ImageReader>,
    hash: Context,
    piece: Vec<u8>,
}

impl Records<'_> {
    fn step(&mut self) -> Result<Option<Record>, FileError> {
        while let Some(reader) = &mut self.reader {
            if let Some(record) = reader.next_record()? {
                return Ok(Some(record));
            }
            let count = self.source.read(&mut self.piece)?;
            self.hash.update(&self.piece[..count]);
            reader.push(&self.piece[..count]);
            if count == 0
                && let Some(reader) = self.reader.take()
            {
                reader.finish()?;
            }
        }
        Ok(None)
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.reader = None;
        }
        step.transpose()
    }
}

/// Bytes as lowercase hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
