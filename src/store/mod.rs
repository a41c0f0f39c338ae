//! The state on disk: every change that is retained, and what is current, in one redb file.
//!
//! Owns: the file `store.redb`, its schema, its commits, and the removal of what was compacted. Must never: judge a
//! request, know the overlay, or look at a clock. Driven by the checkpoint thread ([`Store`]) and read by `mvcc`
//! ([`Base`]).
//!
//! ```text
//! types     what is stored, as values               schema, facts, encoding   the bytes of it
//! charter   what the cluster agreed on about itself, and the bytes of that
//! auth      the bytes of users and roles
//! writer    opening and commits (Store)             base, scan                reading (Base)
//! fold      changes become rows                     compact, scrub            in slices, between folds
//! stage     a store that comes from another member
//! ```

mod auth;
mod backend;
mod base;
mod change_log;
mod charter;
mod compact;
mod encoding;
mod error;
mod facts;
mod fold;
mod leases;
mod scan;
mod schema;
mod scrub;
mod stage;
mod sweep;
mod types;
mod writer;

#[cfg(test)]
mod crash_test;
#[cfg(test)]
mod damage_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod testing;

pub use auth::put_auth;
#[cfg(test)]
pub(crate) use auth::test_auth;
pub use backend::{IoCounts, Meter};
pub use base::Base;
pub use change_log::{ChangeLog, ChangeRef};
#[cfg(test)]
pub(crate) use charter::test_charter;
pub use charter::{Awaited, Bridge, Charter, Client, Dissolution, Token, Window, put_charter};
pub use compact::CompactionProgress;
pub use error::{StoreError, WHOLE_FILE};
pub use facts::{decode as decode_facts, encode as encode_facts};
pub use leases::LeasePlace;
pub use scan::{Changes, Heads, VersionsAt, Visit};
pub use schema::FORMAT_VERSION;
pub use scrub::{ScrubCursor, ScrubProgress};
pub use stage::{
    FIRST_CHANGE, PieceError, Stage, StageProgress, TransferId, pack, pack_leases, unpack, unpack_leases,
};
pub use types::{
    Change, ChangeKind, ConfState, Doomed, FoldBatch, Head, Lease, Member, Meta, Sweep, SweepStep,
};
pub use writer::{Store, StoreOptions, is_engine_source};
/// Rows that nothing but the store reads, for `tests/fuzz`.
#[doc(hidden)]
pub mod rows {
    pub use super::encoding::seal;
    pub use super::schema::{
        HIST_ROW_BYTES, attached_key, parse_attached, parse_hist, parse_hist_key, parse_live, write_attached,
        write_hist, write_live,
    };
}
