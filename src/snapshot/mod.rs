//! Images of the state: everything that a member needs to take over from another, or an operator from a backup.
//!
//! Owns: the format, its writer and its reader. Must never: touch a file or a socket, or hold more than a slice of the state. Written from
//! views by maintenance requests; read back by whoever restores.
//!
//! # Format
//!
//! An image is logical: it says what was written, not how a store keeps it. Not etcd's format, and none of etcd's tools opens it.
//!
//! ```text
//! image   header  facts  lease*  change*  end  zeros up to a multiple of 512 bytes
//!
//! header  version:u8 (1)  "covey image"  0:u32
//! frame   kind:u8  length of body:u32  body  seal:u32          seal = CRC-32C over everything so far but the seals
//! facts   the facts of the store (`store::facts`, with a version of its own), users and roles among them, without the cluster's charter and what tokens are made with
//! lease   id:u64  ttl:u64  remaining:u64  granted at:u64                              by id
//! change  main:u64  sub:u32  tombstone:u8  create:u64  version:u64  lease:u64  length of key:u32  key  value
//! end     number of leases:u64  number of changes:u64  SHA-256 over all before this frame                         all numbers little endian
//! ```
//!
//! Changes are those that the store retains, in the order they were made. They are of fixed width but for key and value, so the size of an image
//! follows from what the store counts anyway, and a client can be told it before anything was read.
//!
//! An image is of one revision. It is written in slices from fresh views, while the removal of compacted versions is held back: see
//! [`ImageWriter`].

mod format;
mod reader;
mod refold;
mod writer;

pub use format::HASH_BYTES;
pub use reader::{ImageReader, Record};
pub use refold::{NewRevisions, REVISION_BUMP, Refold, RevisionTooHigh};
pub use writer::ImageWriter;

use crate::store::StoreError;

/// The version of the format, in an image's first byte.
pub const IMAGE_VERSION: u8 = 1;
/// An image's size is a multiple of this; who stores one finds the hash behind it by the rest (API reference, section 5.5).
pub const IMAGE_ALIGNMENT: usize = 512;

/// Why an image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was read is not what there was at the start.
    #[error("the state has {found} bytes of image where {expected} were counted")]
    Miscounted {
        /// Bytes that were announced.
        expected: u64,
        /// Bytes that there were.
        found: u64,
    },
}

/// Why bytes are not an image.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// They begin like something else.
    #[error("not an image of covey's")]
    NotAnImage,
    /// They begin like a database of etcd's.
    #[error("a database of etcd's, which covey does not read")]
    Bbolt,
    /// An image of another version.
    #[error("an image of version {found}; this program reads version {supported}")]
    UnsupportedVersion {
        /// The image's.
        found: u8,
        /// Ours.
        supported: u8,
    },
    /// The facts in the image are of another version.
    #[error("facts of version {found}; this program reads version {supported}")]
    UnsupportedFacts {
        /// The image's.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// Something is not what was written.
    #[error("damaged at byte {offset}: {what}")]
    Damaged {
        /// Where the damaged part begins.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The end is missing.
    #[error("cut off at byte {offset}")]
    CutOff {
        /// How many bytes there are.
        offset: u64,
    },
}

#[cfg(test)]
mod image_test;
