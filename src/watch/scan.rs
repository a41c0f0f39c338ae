//! A slice of changes, sorted by the scopes that want them.
//!
//! Owns: where a slice ends. Must never: end inside of a revision, or make an event twice. Driven by the hub.

use std::sync::Arc;

use super::batch::{Encode, Event, Long};
use super::index::Index;
use super::slab::Slab;
use super::watcher::Scope;
use crate::command::KeyValue;
use crate::ids::{Revision, VersionId};
use crate::mvcc::{ReadError, View};
use crate::store::{Change, ChangeKind, StoreError};

/// For whom a slice is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// Scopes with synced watchers.
    Synced,
    /// Scopes that were chosen.
    Chosen,
}

/// What a slice has found.
#[derive(Debug)]
pub struct Slice {
    /// The last revision that it covers, and covers whole.
    pub through: Revision,
    /// The events of each scope that has any.
    pub found: Vec<Found>,
}

/// The events of one scope.
#[derive(Debug)]
pub struct Found {
    pub scope: u32,
    pub events: Vec<Arc<Event>>,
    /// The last revision, or what comes first of it, if it has very many.
    pub long: Option<Long>,
    /// The last revision that has events, and bytes of those that are not encoded.
    pub latest: Revision,
    latest_bytes: usize,
}

/// Where a revision is long, and how its events are encoded then.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// Bytes of events that are encoded together.
    pub bytes: usize,
    pub encode: Encode,
}

/// The scopes, as a slice looks at them.
pub struct Scopes<'h> {
    pub index: &'h Index,
    pub all: &'h mut Slab<Scope>,
    pub wanted: For,
}

/// How large a slice gets before it ends at the next revision.
#[derive(Clone, Copy, Debug)]
pub struct SliceBounds {
    /// Revisions with changes.
    pub revisions: usize,
    /// Changes.
    pub rows: usize,
    /// Bytes of events.
    pub bytes: usize,
}

/// The changes of `[from, to]`, or of as many whole revisions from `from` on as fit, and at least of one.
pub fn slice(
    view: &View,
    from: Revision,
    to: Revision,
    bounds: SliceBounds,
    parts: Option<Parts>,
    mut scopes: Scopes<'_>,
) -> Result<Slice, StoreError> {
    let mut slice = Slice { through: to, found: Vec::new() };
    let mut long = false;
    let mut matches = Vec::new();
    let (mut covered, mut revisions, mut rows, mut bytes) = (None, 0, 0, 0);
    for row in view.changes(VersionId::first_of(from))? {
        let (id, change) = row?;
        if id.main > to {
            break;
        }
        if covered != Some(id.main) {
            let full = long || revisions >= bounds.revisions || rows >= bounds.rows || bytes >= bounds.bytes;
            if let Some(covered) = covered.filter(|_| full) {
                slice.through = covered;
                break;
            }
            covered = Some(id.main);
            revisions += 1;
        }
        rows += 1;
        scopes.find(&change, &mut matches);
        if matches.is_empty() {
            continue;
        }
        let previous = if matches.iter().any(|scope| scopes.all[*scope].prev_kv) {
            previous(view, id, &change)?
        } else {
            None
        };
        let event = Arc::new(Event { id, change, previous });
        bytes += event.bytes();
        for scope in matches.drain(..) {
            let found = slice.add(scope, &event, &mut scopes.all[scope]);
            if let Some(parts) = parts.filter(|parts| found.latest_bytes >= parts.bytes) {
                found.encode_latest(scopes.all[scope].prev_kv, parts.encode);
                long = true;
            }
        }
    }
    for found in &mut slice.found {
        let scope = &mut scopes.all[found.scope];
        scope.found = None;
        if let Some(parts) = parts.filter(|_| found.long.is_some()) {
            found.encode_latest(scope.prev_kv, parts.encode);
        }
    }
    Ok(slice)
}

impl Slice {
    fn add(&mut self, number: u32, event: &Arc<Event>, scope: &mut Scope) -> &mut Found {
        let end = self.found.len();
        let place = scope.found.map_or(end, |place| place as usize);
        if place == end {
            scope.found = u32::try_from(end).ok();
            let latest = event.id.main;
            self.found.push(Found { scope: number, events: Vec::new(), long: None, latest, latest_bytes: 0 });
        }
        let found = &mut self.found[place];
        if found.latest != event.id.main {
            (found.latest, found.latest_bytes) = (event.id.main, 0);
        }
        found.latest_bytes += event.bytes();
        found.events.push(Arc::clone(event));
        found
    }
}

impl Found {
    /// The first revision that has events.
    pub fn first(&self) -> Revision {
        self.events.first().map_or(self.latest, |event| event.id.main)
    }

    /// Encodes what is there of the latest revision.
    fn encode_latest(&mut self, prev_kv: bool, encode: Encode) {
        let first = self.events.partition_point(|event| event.id.main < self.latest);
        if first < self.events.len() {
            let part = encode(&self.events[first..], prev_kv);
            self.long.get_or_insert_default().push(self.events.len() - first, part);
            self.events.truncate(first);
        }
        self.latest_bytes = 0;
    }
}

impl Scopes<'_> {
    /// Puts the scopes that want this change into `matches`.
    fn find(&mut self, change: &Change, matches: &mut Vec<u32>) {
        let Scopes { index, all, wanted } = self;
        index.stab(&change.key, |first| {
            let mut next = Some(first);
            while let Some(number) = next {
                let scope = &all[number];
                let listens = match wanted {
                    For::Synced => !scope.synced.is_empty(),
                    For::Chosen => scope.chosen,
                };
                if listens && scope.wants(&change.kind) {
                    matches.push(number);
                }
                next = scope.sibling;
            }
        });
    }
}

/// What the key was one revision before; nothing where it did not exist, or is not known any more. A second change of a key in one
/// revision has the same answer as the first: revisions are what can be read.
fn previous(view: &View, id: VersionId, change: &Change) -> Result<Option<KeyValue>, StoreError> {
    if let ChangeKind::Put { create_revision, .. } = &change.kind
        && *create_revision == id.main
    {
        return Ok(None);
    }
    match view.get(&change.key, Revision(id.main.0 - 1)) {
        Ok(previous) => Ok(previous),
        Err(ReadError::Rejected(_)) => Ok(None),
        Err(ReadError::Store(error)) => Err(error),
    }
}
