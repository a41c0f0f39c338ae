//! The raft log on disk: what raft wants back after a crash, in segments that are filled with zeros and used again.
//!
//! Owns: the format, the order of writes and syncs, recovery. Must never: know what an entry means, read a clock, or go on after a
//! failed write or sync. Driven by the wal thread: [`Wal::append`] and [`Wal::sync`] for each batch, [`Wal::cut`] after a checkpoint,
//! [`Wal::prepare`] when idle, [`Wal::reset`] after a snapshot was installed.
//!
//! # Format, version 1
//!
//! A segment is a file named by its generation, 16 hex digits and `.wal`; generations count up without gaps. A file is made as
//! `.tmp`, so one that is called `.wal` has a header. All integers are little endian.
//!
//! ```text
//! segment   header (one sector, the rest of its page unused) | batch | batch | free ...
//! sector    512 bytes: payload 500 | sequence u64 (top bit: the first of its batch) | crc32c u32
//! header    "coveywal" | version u8 | flags u8 (1: filled with zeros) | generation u64 | cluster u64 | member u64 |
//!           oldest sequence u64 | length of the segment u64                                     (its trailer: generation, crc)
//! batch     the payloads of its sectors joined:
//!           length u32 | chain before u32 | entries u32 | flags u8 | index of the first entry u64 |
//!           hard state: term u64, vote u64, commit u64        (flag 1)
//!           head: floor u64, index u64, term u64              (flag 2; flag 4: reset)
//!           entries: term u64 | length u32 | kind u8 | data
//! ```
//!
//! A batch is the unit of writing, syncing and tearing. It occupies whole sectors of one segment, so no write ever touches a sector
//! of an earlier batch. Its sequence, one above its predecessor's, is in each of its sectors; the sector's checksum also covers the
//! cluster, the member and the sector's place. *Chain* is the checksum over the checksums of the sectors of a batch, and each batch
//! carries the chain of the one before. The batch begins where the last one ended, or at the next page if it then touches fewer
//! pages: the page is what the device is handed.
//!
//! The first batch in a segment has a *head*, and repeats the hard state: it is readable without the segments before it. The head
//! says after which position (index, term) the batch continues the log, and which generation (*floor*) is the first that still counts.
//! A batch has one too when it replaces entries from before the segment's own start, when it moves the floor, and when it resets the log.
//!
//! # Recovery: what a sector can tell
//!
//! Behind the last batch lies what was never written (zeros), what an earlier use of the file left (a sequence below the header's
//! *oldest*), or the remains of the one batch that was being written when the machine died (the sequence that is due):
//!
//! ```text
//! due sequence 8    | 7 7 7 | 8 0 8 3 | 0 0     a tear: each sector is new, or is what was there before: batch 8 never was
//!                   | 7 7 7 | 8 x 8 8 | 0 0     damage: x is neither; refuse to start
//!                   | 7 7 7 | 8 0 8 8 | 9 9     damage: 9 was written, so 8 had been synced; refuse to start
//! ```
//!
//! A whole lost sector in the last batch looks like a tear. Nothing in this file can tell; that a member whose log is shorter than what
//! its peers saw it acknowledge does not vote is the business of `formation`.

mod batch;
mod entry;
mod error;
mod log;
mod recovery;
mod sector;
mod segment;
mod span;

pub use entry::{Batch, EntryKind, HardState, Identity, LogEntry, Position};
pub use error::{Damage, WalError};
pub use log::{Options, Usage, Wal};
pub use recovery::{Recovered, Tear};

#[cfg(test)]
mod crash_test;
#[cfg(test)]
mod damage_test;
#[cfg(test)]
mod log_test;
#[cfg(test)]
mod testing;
