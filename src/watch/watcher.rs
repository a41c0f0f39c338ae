//! The records of the hub: streams, watchers, and the scopes that watchers share.
//!
//! Owns: their shapes, and which synced watchers a scope has. Must never: grow: there may be hundreds of thousands of each. Driven by
//! the hub.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::index::Span;
use super::{CreateRequest, Filters, Outlet};
use crate::ids::Revision;
use crate::store::ChangeKind;
use crate::time::Instant;

/// A client's stream.
#[derive(Debug)]
pub struct Stream {
    pub outlet: Arc<Outlet>,
    /// Its watchers by their ids.
    pub watchers: BTreeMap<i64, u32>,
    /// Where the choice of ids goes on.
    pub next_id: i64,
    /// Those that are behind, by their cursors.
    pub behind: BTreeSet<(Revision, u32)>,
    /// How many are ahead.
    pub ahead: usize,
    /// The cursor under which it stands among the streams that can be brought forward.
    pub ready: Option<Revision>,
    /// Its place in the line of those, or of those that wait for memory.
    pub turn: u64,
    /// Whether it waits for memory.
    pub starved: bool,
    /// How many want to be told of progress, and when the next time is.
    pub notified: usize,
    pub tick: Option<Instant>,
    /// While some of them are still to be told: all from this id on.
    pub telling: Option<i64>,
}

impl Stream {
    /// A stream without watchers.
    pub fn new(outlet: Arc<Outlet>) -> Self {
        Self {
            outlet,
            watchers: BTreeMap::new(),
            next_id: 0,
            behind: BTreeSet::new(),
            ahead: 0,
            ready: None,
            turn: 0,
            starved: false,
            notified: 0,
            tick: None,
            telling: None,
        }
    }
}

/// One watcher.
#[derive(Debug)]
pub struct Watcher {
    pub stream: u32,
    pub scope: u32,
    pub id: i64,
    pub state: State,
    pub fragment: bool,
    pub progress_notify: bool,
    /// Whether it was told of events since the last tick.
    pub told: bool,
}

/// How far a watcher is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In between.
    Unplaced,
    /// Where the hub is; its place in the scope's list.
    Synced { place: usize },
    /// This revision is the next to be told.
    Behind(Revision),
    /// This revision, which does not exist yet, is the first to be told.
    Ahead(Revision),
}

/// What watchers with the same interval and the same wishes share.
#[derive(Debug)]
pub struct Scope {
    pub span: Span,
    pub filters: Filters,
    pub prev_kv: bool,
    /// How many watchers it has.
    pub watchers: u32,
    /// Those of them that are synced.
    pub synced: Vec<u32>,
    /// The next scope with the same span.
    pub sibling: Option<u32>,
    /// Its place among what a slice has found, while one is made.
    pub found: Option<u32>,
    /// Whether the revision that is looked through is left to a later slice.
    pub late: bool,
    /// The lowest cursor of its watchers that are behind and that the slice is made for, if it is for any.
    pub chosen: Option<Revision>,
}

impl Scope {
    /// An empty one.
    pub fn new(span: Span, request: &CreateRequest) -> Self {
        Self {
            span,
            filters: request.filters,
            prev_kv: request.prev_kv,
            watchers: 0,
            synced: Vec::new(),
            sibling: None,
            found: None,
            late: false,
            chosen: None,
        }
    }

    /// Whether watchers with these wishes belong here, given that the span does.
    pub fn fits(&self, request: &CreateRequest) -> bool {
        self.filters == request.filters && self.prev_kv == request.prev_kv
    }

    /// Whether its watchers want to hear of such a change.
    pub fn wants(&self, kind: &ChangeKind) -> bool {
        match kind {
            ChangeKind::Put { .. } => !self.filters.no_put,
            ChangeKind::Delete => !self.filters.no_delete,
        }
    }
}
