//! Who this node is, and how a cluster begins.
//!
//! Owns: the identity record and founding. Must never: make keys or random numbers (they come from above), or
//! take a damaged record for a fresh start. Driven by `app` at start.

mod found;
mod identity;
mod record;

#[cfg(test)]
pub(crate) use found::test_founding;
pub use found::{Founding, first_state, found_solo};
pub use identity::{ClusterRoot, Fingerprint, Generation, Identity, KeyError, NodeKey, Stage};
pub use record::{RecordError, create, load, mark_established, start};
