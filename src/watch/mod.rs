//! Watches: who is told of which change, and how far everybody is (API reference, section 2).
//!
//! Owns: the cursors of all watchers, the search for the watchers of a change, and the queues of responses to their streams. Must
//! never: keep a copy of changes for a watcher that is behind, split a revision, or speak of a state that no view has shown. Driven by
//! the watch thread of `runtime` and by the simulator.
//!
//! ```text
//! requests ──► Hub ── streams ── watchers ──► scopes: an interval, its filters, whether old values are wanted
//!               │                              ▲
//! views ────────┴── slices of changes ── index ┘ ──► one batch per scope ──► outlets of the streams
//! ```
//!
//! A watcher is in one of three states, by its cursor, the revision that it has to see next:
//!
//! - *synced*: the cursor is where the hub is; the scope lists it, and new changes are matched for the scope as a whole;
//! - *behind*: its stream had no room, or it started at an old revision; slices of old changes bring it forward once there is room;
//! - *ahead*: it starts at a revision that does not exist yet, and becomes synced when the hub gets there.
//!
//! A cursor moves over whole revisions, and a watcher becomes synced exactly when its cursor meets the hub's: nothing is missed or
//! told twice.

mod batch;
mod catch_up;
mod hub;
mod index;
mod intervals;
mod outlet;
mod progress;
mod scan;
mod scarcity;
mod slab;
mod watcher;

pub use batch::{Batch, Counted, Encode, Event};
pub use hub::{Counts, Hub, Limits, Options};
pub use outlet::{End, Outlet, Taken};
pub use scan::Parts;

use std::sync::Arc;

use crate::command::KeyRange;
use crate::ids::Revision;

#[cfg(test)]
mod hub_test;
#[cfg(test)]
mod model_test;

/// A stream of one client, for as long as the hub lives. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// Changes that a watcher does not want to hear of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Puts.
    pub no_put: bool,
    /// Deletions.
    pub no_delete: bool,
}

/// What a client asks for when it creates a watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateRequest {
    /// The keys.
    pub range: KeyRange,
    /// The first revision to be told of; 0 is the one after the current.
    pub start: i64,
    /// The id that the client wants; 0 lets the hub choose.
    pub watch_id: i64,
    /// What not to tell.
    pub filters: Filters,
    /// Whether each event brings what the key was before.
    pub prev_kv: bool,
    /// Whether large responses may be cut into pieces.
    pub fragment: bool,
    /// Whether it is told from time to time how far it is.
    pub progress_notify: bool,
}

/// What a client asks of its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A new watcher.
    Create(CreateRequest),
    /// An end to one.
    Cancel {
        /// Which.
        watch_id: i64,
    },
    /// How far the stream as a whole is.
    Progress,
    /// A watcher for which there was no room to wait. It is told so when its turn comes, as answers come in the order of requests.
    Refused(Refusal),
}

impl Request {
    /// Bytes of the keys that it brings.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Create(request) => request.range.start.len() + request.range.wire_end().len(),
            Self::Cancel { .. } | Self::Progress | Self::Refused(_) => 0,
        }
    }
}

/// Why a watcher is not created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another of the stream has the id.
    DuplicateId,
    /// The interval has no keys.
    EmptyRange,
    /// It would start at a negative revision.
    NegativeStart,
    /// The server has as many watchers as it takes.
    TooManyWatchers,
    /// The keys of all watchers would take more memory than they may.
    KeysTooLarge,
    /// Those of all requests that wait would.
    TooManyRequests,
    /// Every request has to be somebody's.
    NobodyAsks,
    /// The token is none, or has ended.
    BadToken,
    /// The token is of before the last change of users and roles.
    OldRevision,
    /// The keys may not be read.
    NotPermitted,
}

/// What a hub is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// There is a newer view.
    NewView,
    /// A stream begins.
    Open(StreamId, Arc<Outlet>),
    /// The client of a stream asks for something.
    Request(StreamId, Request),
    /// The reader of a stream says that there is room.
    Room(StreamId),
    /// A stream is gone.
    Close(StreamId),
}

/// The id in answers that concern no watcher in particular.
pub const NO_WATCHER: i64 = -1;

/// One message to a client.
#[derive(Clone, Debug)]
pub struct Response {
    /// The watcher, or [`NO_WATCHER`].
    pub watch_id: i64,
    /// For events and progress: everything up to here that the watcher wants has been told with this message. Otherwise the current
    /// revision.
    pub revision: Revision,
    /// What it says.
    pub message: Message,
}

/// What a message to a client says.
#[derive(Clone, Debug)]
pub enum Message {
    /// The watcher exists from now on.
    Created,
    /// It never will.
    Refused(Refusal),
    /// It has ended because the client wanted that.
    Canceled,
    /// It has ended because what it had to be told next is compacted; this is the compacted revision.
    Compacted(Revision),
    /// Nothing but the revision.
    Progress,
    /// Changes, whole revisions in order.
    Events {
        /// Shared by all watchers that are told the same.
        batch: Arc<Batch>,
        /// Whether it may be cut into pieces.
        fragment: bool,
    },
}
