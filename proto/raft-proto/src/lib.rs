//! The message types of the `raft` crate: what raft keeps in its log, hands to storage and sends
//! to peers.
//!
//! # Why it exists
//! `raft` 0.7 takes these types from a crate of this name. The published one generates them in its
//! build script, which needs `protoc` on the building machine and brings an old prost with it. This
//! one has the same name and version, so that `[patch.crates-io]` can put it in its place, and
//! declares the messages in Rust.
//!
//! # What it owns
//! - [`eraftpb`]: the messages, with the field numbers of raft-rs' `eraftpb.proto`, and their two
//!   codecs: [`prost::Message`] for drivers, `protobuf::Message` (protobuf 2) because raft measures
//!   entries and reads and writes configuration changes through it;
//! - the accessors with `get_`, `set_`, `mut_` and `take_` that raft calls. Other code can use the
//!   fields, which are public;
//! - [`ConfChangeI`], [`new_conf_change_single`] and [`conf_state_eq`], which raft calls.
//!
//! It holds only what raft 0.7 with its `prost-codec` feature uses.
//!
//! # Bytes from outside
//! Decoding never panics. Fields with an unknown number are skipped, as protobuf wants it. An
//! unknown *enum value* is a [`prost::DecodeError`]: protobuf would keep the number, but then an
//! operation that an older binary does not know would have to be read as some other one, and members
//! of the cluster would silently apply different things.
//!
//! Encoding is deterministic: fields in ascending order of number, defaults left out. Payloads are
//! [`Bytes`](prost::bytes::Bytes), so the copies of an entry that raft makes for its log and for
//! each follower share one allocation. A message decoded from a `Bytes` buffer shares that buffer
//! and keeps all of it alive; one decoded from a slice owns copies.

mod accessors;
mod codec;
mod confchange;
mod confstate;
pub mod eraftpb;

pub use crate::confchange::{ConfChangeI, new_conf_change_single};
pub use crate::confstate::conf_state_eq;

/// All message types, for `raft::prelude` to pass on.
pub mod prelude {
    pub use crate::eraftpb::{
        ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry,
        EntryType, HardState, Message, MessageType, Snapshot, SnapshotMetadata,
    };
}
