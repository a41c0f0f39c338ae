//! Changes in order of their ids, shared without copies.
//!
//! Owns: how changes lie in memory. Must never: alter or drop one that is in. Grown by a generation of the overlay, handed to a fold as
//! it is.
//!
//! ```text
//! full: [256 changes] [256 keys of one deletion] [256 changes] ...     tail: [up to 255 changes]
//! ```
//!
//! A full part is shared by everybody who holds the log. One deletion of very many keys is the largest thing that a single command can
//! make of a generation, so a part that is nothing but that keeps keys alone, a third of what changes take.

use std::sync::Arc;

use super::types::{Change, ChangeKind};
use crate::ids::VersionId;

/// Changes in a full part: growing the log never copies more.
const PART: usize = 256;

/// Changes, ascending by id. Clones share all but the last few.
#[derive(Clone, Debug, Default)]
pub struct ChangeLog {
    full: Vec<Arc<Part>>,
    /// Fewer than [`PART`].
    tail: Vec<(VersionId, Change)>,
}

#[derive(Debug)]
enum Part {
    Changes(Box<[(VersionId, Change)]>),
    /// Deletions of one revision, numbered without gaps.
    Deletions {
        first: VersionId,
        keys: Box<[bytes::Bytes]>,
    },
}

/// A change where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeRef<'l> {
    /// Which change it is.
    pub id: VersionId,
    /// The key that changed.
    pub key: &'l bytes::Bytes,
    /// What it became.
    pub kind: &'l ChangeKind,
}

impl ChangeRef<'_> {
    /// The change by itself; shares key and value.
    pub fn to_owned(self) -> (VersionId, Change) {
        (self.id, Change { key: self.key.clone(), kind: self.kind.clone() })
    }

    /// See [`Change::stored_bytes`].
    pub fn stored_bytes(self) -> u64 {
        super::types::stored_bytes(self.key, self.kind)
    }
}

impl ChangeLog {
    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.full.len() * PART + self.tail.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The change at a place below [`ChangeLog::len`].
    pub fn get(&self, place: usize) -> ChangeRef<'_> {
        match self.full.get(place / PART) {
            Some(part) => part.get(place % PART),
            None => change_ref(&self.tail[place % PART]),
        }
    }

    /// The last change.
    pub fn last(&self) -> Option<ChangeRef<'_>> {
        self.len().checked_sub(1).map(|place| self.get(place))
    }

    /// All changes in order.
    pub fn iter(&self) -> impl Iterator<Item = ChangeRef<'_>> {
        (0..self.len()).map(|place| self.get(place))
    }

    /// Adds the next change, whose id is above all others.
    pub fn push(&mut self, id: VersionId, change: Change) {
        assert!(self.last().is_none_or(|last| last.id < id), "changes arrive in the order of their ids");
        if self.tail.capacity() == 0 {
            self.tail.reserve_exact(PART);
        }
        self.tail.push((id, change));
        if self.tail.len() == PART {
            self.full.push(Arc::new(Part::of(std::mem::take(&mut self.tail))));
        }
    }

    /// The first place that does not satisfy `before`, which holds for a prefix of the log.
    pub fn partition(&self, before: impl Fn(VersionId) -> bool) -> usize {
        let full = self.full.partition_point(|part| before(part.get(PART - 1).id));
        let within = match self.full.get(full) {
            // Half of a part is skipped at a time.
            Some(part) => partition_places(|place| before(part.get(place).id)),
            None => self.tail.partition_point(|(id, _)| before(*id)),
        };
        full * PART + within
    }
}

/// The first of the places of a part for which `before` does not hold.
fn partition_places(before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, PART);
    while low < high {
        let middle = usize::midpoint(low, high);
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

fn change_ref((id, change): &(VersionId, Change)) -> ChangeRef<'_> {
    ChangeRef { id: *id, key: &change.key, kind: &change.kind }
}

impl Part {
    fn of(changes: Vec<(VersionId, Change)>) -> Self {
        let Some((first, _)) = changes.first() else { return Self::Changes(Box::default()) };
        let first = *first;
        let follows =
            |id: VersionId, place: usize| id.main == first.main && (first.sub..).nth(place) == Some(id.sub);
        let mut places = changes.iter().enumerate();
        if places.all(|(place, (id, change))| change.kind == ChangeKind::Delete && follows(*id, place)) {
            Self::Deletions { first, keys: changes.into_iter().map(|(_, change)| change.key).collect() }
        } else {
            Self::Changes(changes.into())
        }
    }

    fn get(&self, place: usize) -> ChangeRef<'_> {
        match self {
            Self::Changes(changes) => change_ref(&changes[place]),
            Self::Deletions { first, keys } => {
                let after = u32::try_from(place).expect("a part is small");
                let id = VersionId { main: first.main, sub: first.sub + after };
                ChangeRef { id, key: &keys[place], kind: &ChangeKind::Delete }
            }
        }
    }
}

impl FromIterator<(VersionId, Change)> for ChangeLog {
    fn from_iter<I: IntoIterator<Item = (VersionId, Change)>>(changes: I) -> Self {
        let mut log = Self::default();
        changes.into_iter().for_each(|(id, change)| log.push(id, change));
        log
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ids::{LeaseId, Revision};

    fn key(n: u32) -> Bytes {
        Bytes::from(format!("{n:06}"))
    }

    fn put(main: i64, sub: u32) -> (VersionId, Change) {
        let kind = ChangeKind::Put {
            value: Bytes::from_static(b"v"),
            create_revision: Revision(main),
            version: 1,
            lease: LeaseId::NONE,
        };
        (VersionId { main: Revision(main), sub }, Change { key: key(sub), kind })
    }

    fn delete(main: i64, sub: u32) -> (VersionId, Change) {
        (VersionId { main: Revision(main), sub }, Change { key: key(sub), kind: ChangeKind::Delete })
    }

    /// Puts, a deletion of many keys from the middle of a part on, and puts again.
    fn changes() -> Vec<(VersionId, Change)> {
        let puts = (2..300).map(|main| put(main, 0));
        let gaps = (0..600).map(|n| delete(301, 2 * n));
        puts.chain((0..1000).map(|sub| delete(300, sub))).chain(gaps).chain([put(302, 0)]).collect()
    }

    #[test]
    fn what_goes_in_comes_out() {
        let changes = changes();
        let log: ChangeLog = changes.iter().cloned().collect();
        assert_eq!(log.len(), changes.len());
        assert!(log.iter().map(ChangeRef::to_owned).eq(changes.iter().cloned()));
        assert_eq!(log.last().map(ChangeRef::to_owned), changes.last().cloned());
        let bytes: u64 = changes.iter().map(|(_, change)| change.stored_bytes()).sum();
        assert_eq!(log.iter().map(ChangeRef::stored_bytes).sum::<u64>(), bytes);
        let compact = log.full.iter().filter(|part| matches!(***part, Part::Deletions { .. })).count();
        assert_eq!(compact, 3, "the parts that are one deletion, and no other");
    }

    #[test]
    fn a_prefix_ends_where_it_should() {
        let changes = changes();
        let log: ChangeLog = changes.iter().cloned().collect();
        for at in 0..=changes.len() {
            let id = changes.get(at).map_or(VersionId { main: Revision(999), sub: 0 }, |(id, _)| *id);
            assert_eq!(log.partition(|before| before < id), at);
        }
        assert_eq!(ChangeLog::default().partition(|_| true), 0);
    }

    #[test]
    fn a_clone_keeps_what_it_saw() {
        let mut log: ChangeLog = changes().into_iter().collect();
        let seen = log.clone();
        (0..999).for_each(|sub| {
            let (id, change) = delete(400, sub);
            log.push(id, change);
        });
        assert_eq!((seen.len(), log.len()), (changes().len(), changes().len() + 999));
        assert!(Arc::ptr_eq(&seen.full[0], &log.full[0]));
    }
}
