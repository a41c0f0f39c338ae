//! Revisions: reading the state at any retained one, and making the next.
//!
//! Owns: the overlay of changes that are not in the store yet, the views that readers take, the meaning of every read and write
//! of keys (API reference, sections 0.2 to 0.4 and 1.2 to 1.7). Must never: read a clock, order by a hash map, or decide by local
//! settings. Reads are driven by whoever holds a [`View`], writes by `machine` alone.
//!
//! # The three layers
//!
//! ```text
//!            revisions  1 ............ base.revision | ........ | ........ view.rev | later writes
//! View {                [        base (store)       ] [ frozen ] [       active ~~~~|~~~~~~~~~~~~> ]
//! ```
//!
//! Each layer holds the changes of a span of revisions, and each span follows on the one below. Hence:
//!
//! - a read at a revision within the base needs nothing of the overlay;
//! - a read above it needs of the base only the heads of keys, never their history;
//! - the newest change of a key at or below a revision is in the highest layer that has one.
//!
//! `active` keeps growing under a view; the view ignores what lies above its revision, so publishing a view copies nothing.

mod access;
pub mod check;
mod compare;
mod digest;
mod footprint;
mod generation;
mod hash;
mod leases;
mod pages;
mod range;
mod rows;
mod sweep;
mod tip;
mod view;
mod writer;

pub use check::{InvalidRequest, cost_of};
pub use digest::DIGEST_VERSION;
pub use generation::Generation;
pub use hash::{HashKv, HashName, HashWalk};
pub use leases::{LeaseKeys, Leases};
pub use pages::{Page, PagesEnd, RangePages};
pub use range::{Allowance, Portion, Progress, RangeReading};
pub use sweep::may_delete_many;
pub use tip::Tip;
pub use view::{Facts, View, ViewCell};
pub use writer::Writer;

use crate::command::Rejection;
use crate::store::StoreError;

/// Why a read or a write gave no result.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The request is at fault. A function of the state and the request alone, so equal on all members.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The store is at fault. Fatal for a member that was applying.
    #[error(transparent)]
    Store(#[from] StoreError),
}
