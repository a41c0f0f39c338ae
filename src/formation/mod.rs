//! Who this node is, how a cluster begins, and how a node begins again from its data directory.
//!
//! Owns: the identity record, founding, and the order in which a data directory comes into being. Must never: make keys or random
//! numbers (they come from above), or take a damaged record or a half lost directory for a fresh start. Driven by `app` at start.

mod data_dir;
mod encounter;
mod facts;
mod found;
pub mod gathering;
mod identity;
mod meeting;
mod message;
mod record;
mod runs;
mod secret;
mod tail;
mod token;
mod tombstone;

#[cfg(test)]
mod data_dir_test;

pub use data_dir::{
    Content, ContentError, DataDir, DiskOptions, LOG_NAME, OpenError, STAGED_NAME, STATE_NAMES, STORE_NAME,
    SUSPECT_NAME, become_fresh, begin_recovery, distrust, end_recovery, fence, found, founded, leave,
    note_damage, note_damage_at_start, note_promise, open, open_to_recover, take_up, trust,
};
pub use encounter::{Conflict, Course, Outdated, course, outdated};
pub use facts::keep_facts;
#[cfg(test)]
pub(crate) use found::test_founding;
pub use found::{Founding, first_state, first_state_of, found_automatic, found_solo};
pub use identity::{
    ClusterRoot, FINGERPRINT_BYTES, Fingerprint, FingerprintError, Generation, Identity, KeyError, NodeKey,
    Promise, Stage,
};
pub use meeting::{Meeting, Named, Reception, Verdict, joining_state, receive};
pub use message::{
    ABSORBED_MAX, Answer, CLAIM_BYTES_MAX, Candidate, Dialect, Introduction, MessageError, PLACE_BYTES_MAX,
    PLACES_MAX, Question, Standing, VIEW_NODES_MAX, View, Welcome,
};
pub use record::{IDENTITY_NAMES, RecordError, TEMPORARY as IDENTITY_DRAFT};
pub use runs::{Stale, judge_run, judge_runs, later_run};
pub use secret::{
    Binding, ClusterSecret, EXPORTED_BYTES, PROOF_BYTES, Prover, SECRET_BYTES_MAX, SecretError,
};
pub use tail::Tail;
pub use token::{JoinToken, TOKEN_BYTES, TokenError};
pub use tombstone::{
    Doubt, GENERATIONS_MAX, Known, TOMBSTONE_NAMES, believe, burial, drop_tombstones, keep_tombstones,
    kept_tombstones, ordered_of, sign, taken_along,
};
