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

/// Of a long revision scopes beside the first one are told in the same slice up to so many parts in all. The others go without it for now.
const LONG_PARTS_MAX: usize = 4;

/// So many parts scopes' shares in events may take until all of them have them encoded.
const SHARES_PARTS_MAX: usize = 64;

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
    /// The last revision that has events.
    pub latest: Revision,
    /// Whether they are left to a later slice, since other scopes have taken the memory.
    pub late: bool,
}

/// Where a revision is long, and how its events are encoded then.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// So many events are encoded together, or more, if those take fewer bytes than the next figure says. Scopes share events, so few of them are
    /// better left as they are.
    pub events: usize,
    /// Bytes of events that are encoded together.
    pub bytes: usize,
    /// How.
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
    let mut long = None;
    let mut matches = Vec::new();
    let (mut covered, mut revisions, mut rows, mut bytes) = (None, 0, 0, 0);
    let mut loose = Loose::default();
    for row in view.changes(VersionId::first_of(from))? {
        let (id, change) = row?;
        if id.main > to {
            break;
        }
        if covered != Some(id.main) {
            let full = long.is_some()
                || revisions >= bounds.revisions
                || rows >= bounds.rows
                || bytes >= bounds.bytes;
            if let Some(covered) = covered.filter(|_| full) {
                slice.through = covered;
                break;
            }
            covered = Some(id.main);
            revisions += 1;
            loose = Loose::default();
        }
        rows += 1;
        scopes.find(id.main, &change, &mut matches);
        if matches.is_empty() {
            continue;
        }
        let previous = if matches.iter().any(|scope| scopes.all[*scope].prev_kv) {
            previous(view, id, &change)?
        } else {
            None
        };
        let event = Arc::new(Event { id, change, previous });
        // What scopes share counts once, and for each of them that it is shared.
        let shares_bytes = matches.len() * size_of::<Arc<Event>>();
        bytes += event.bytes() + shares_bytes;
        loose.events += 1;
        loose.bytes += event.bytes();
        loose.shares_bytes += shares_bytes;
        for scope in matches.drain(..) {
            slice.add(scope, &event, &mut scopes.all[scope]);
        }
        if let Some(parts) = parts.filter(|parts| loose.is_much(parts)) {
            long.get_or_insert_with(Room::default).encode(&mut slice.found, id.main, parts, scopes.all);
            loose = Loose::default();
        }
    }
    if let (Some(parts), Some(mut room), Some(covered)) = (parts, long, covered) {
        room.encode(&mut slice.found, covered, parts, scopes.all);
    }
    for found in &slice.found {
        let scope = &mut scopes.all[found.scope];
        (scope.found, scope.late) = (None, false);
    }
    Ok(slice)
}

/// What there is of a revision that nobody has encoded.
#[derive(Debug, Default)]
struct Loose {
    events: usize,
    bytes: usize,
    /// What it takes that scopes share them.
    shares_bytes: usize,
}

impl Loose {
    fn is_much(&self, parts: &Parts) -> bool {
        let is_long = self.events >= parts.events && self.bytes >= parts.bytes;
        is_long || self.shares_bytes >= parts.bytes.saturating_mul(SHARES_PARTS_MAX)
    }
}

/// What scopes have encoded of a long revision.
#[derive(Debug, Default)]
struct Room {
    /// The scope that is told in any case, or no slice would tell anybody: the first to have any of it.
    first: Option<u32>,
    /// Bytes of the others.
    others: usize,
}

impl Room {
    /// Encodes what is there of a long revision, for those for whom there is room.
    fn encode(&mut self, found: &mut [Found], revision: Revision, parts: Parts, scopes: &mut Slab<Scope>) {
        for found in found.iter_mut().filter(|found| found.latest == revision && !found.late) {
            let before = found.long_bytes();
            found.encode_latest(scopes[found.scope].prev_kv, parts.encode);
            if *self.first.get_or_insert(found.scope) == found.scope {
                continue;
            }
            self.others += found.long_bytes() - before;
            if self.others > parts.bytes.saturating_mul(LONG_PARTS_MAX) {
                self.others -= found.long_bytes();
                found.long = None;
                found.late = true;
                scopes[found.scope].late = true;
            }
        }
    }
}

impl Slice {
    fn add(&mut self, number: u32, event: &Arc<Event>, scope: &mut Scope) {
        let end = self.found.len();
        let place = scope.found.map_or(end, |place| place as usize);
        if place == end {
            scope.found = u32::try_from(end).ok();
            let latest = event.id.main;
            self.found.push(Found { scope: number, events: Vec::new(), long: None, latest, late: false });
        }
        let found = &mut self.found[place];
        found.latest = event.id.main;
        found.events.push(Arc::clone(event));
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
    }

    fn long_bytes(&self) -> usize {
        self.long.as_ref().map_or(0, Long::bytes)
    }

    /// The last revision that a slice through `through` tells of.
    pub fn told_through(&self, through: Revision) -> Revision {
        if self.late { Revision(self.latest.0 - 1) } else { through }
    }
}

impl Scopes<'_> {
    /// Puts the scopes that want this change into `matches`.
    fn find(&mut self, revision: Revision, change: &Change, matches: &mut Vec<u32>) {
        let Scopes { index, all, wanted } = self;
        index.stab(&change.key, |first| {
            let mut next = Some(first);
            while let Some(number) = next {
                let scope = &all[number];
                let listens = match wanted {
                    For::Synced => !scope.synced.is_empty(),
                    For::Chosen => scope.chosen.is_some_and(|from| from <= revision),
                };
                if listens && !scope.late && scope.wants(&change.kind) {
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
