//! Roles: intervals of keys, and what may be done with them.
//!
//! Owns: how permissions join. Must never: know who has a role. Part of `auth`.
//!
//! An interval is permitted where the permissions of all roles together leave no gap in it, whatever the bounds of each: what touches is one. A single key `k` is
//! the interval from `k` up to `k\0`, the next key that there can be.

use bytes::Bytes;

use super::ITEM_BYTES;
use crate::command::{Intervals, KeyRange, Permission, PermissionKind, RangeEnd, SpanEnd};

/// What some users may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// By start, then by end as the wire has it; one for each interval.
    permissions: Vec<Permission>,
    /// What follows from them.
    read: Intervals,
    write: Intervals,
}

impl Role {
    /// A role with these permissions; `None` unless they are in the order of [`Role::permissions`].
    pub fn of(permissions: Vec<Permission>) -> Option<Self> {
        let ascends = permissions.is_sorted_by(|a, b| order(&a.range) < order(&b.range));
        let mut role = Self { permissions, ..Self::default() };
        role.join();
        ascends.then_some(role)
    }

    /// Its permissions, by key; one for each interval.
    pub fn permissions(&self) -> &[Permission] {
        &self.permissions
    }

    /// Whether there is a permission for just this interval.
    pub(super) fn has(&self, range: &KeyRange) -> bool {
        self.find(range).is_ok()
    }

    pub(super) fn grant(&mut self, permission: Permission) {
        match self.find(&permission.range) {
            Ok(place) => self.permissions[place] = permission,
            Err(place) => self.permissions.insert(place, permission),
        }
        self.join();
    }

    /// Whether there was a permission for just this interval.
    pub(super) fn revoke(&mut self, range: &KeyRange) -> bool {
        let Ok(place) = self.find(range) else { return false };
        self.permissions.remove(place);
        self.join();
        true
    }

    pub(super) fn bytes(&self) -> usize {
        let ranges = self.permissions.iter().map(|permission| &permission.range);
        ranges.map(|range| range.start.len() + range.wire_end().len() + ITEM_BYTES).sum()
    }

    fn find(&self, range: &KeyRange) -> Result<usize, usize> {
        self.permissions.binary_search_by(|permission| order(&permission.range).cmp(&order(range)))
    }

    fn join(&mut self) {
        (self.read, self.write) = (Intervals::default(), Intervals::default());
        for Permission { kind, range } in &self.permissions {
            let span = span_of(range);
            if *kind != PermissionKind::Write {
                self.read.add(&span);
            }
            if *kind != PermissionKind::Read {
                self.write.add(&span);
            }
        }
    }
}

/// What permissions are sorted by: the start, then the end as the wire has it.
fn order(range: &KeyRange) -> (&Bytes, Bytes) {
    (&range.start, range.wire_end())
}

/// Whether a role may be given this interval: one that starts with a key, and ends behind it.
pub(super) fn is_grantable(range: &KeyRange) -> bool {
    !range.start.is_empty() && !range.is_empty()
}

/// Whether the roles together may read (or write) all of an interval. One that is empty, because it ends before it starts, stands for its start.
pub(super) fn cover<'r>(
    roles: impl Iterator<Item = &'r Role> + Clone,
    range: &KeyRange,
    write: bool,
) -> bool {
    let span = if range.is_empty() { KeyRange::single(range.start.clone()) } else { range.clone() };
    let KeyRange { start, end } = span_of(&span);
    let mut from = &start;
    loop {
        // Each step goes behind the key that it began with, or ends here.
        match reach(roles.clone(), from, write) {
            None => return false,
            Some(SpanEnd::Unbounded) => return true,
            Some(SpanEnd::Before(covered)) if matches!(&end, RangeEnd::Before(end) if end <= covered) => {
                return true;
            }
            Some(SpanEnd::Before(covered)) => from = covered,
        }
    }
}

/// Up to where one of the roles may read (or write) everything from `key` on, the one that gets furthest; `None` where none of them may do so with `key` itself.
pub(super) fn reach<'r>(
    roles: impl Iterator<Item = &'r Role>,
    key: &[u8],
    write: bool,
) -> Option<SpanEnd<'r>> {
    let sets = roles.map(|role| if write { &role.write } else { &role.read });
    sets.filter_map(|set| set.end_of_span(key)).max()
}

/// The same keys as an interval that has bounds.
fn span_of(range: &KeyRange) -> KeyRange {
    let KeyRange { start, end } = range.clone();
    let end = match end {
        RangeEnd::Single => RangeEnd::Before(Bytes::from([&start, &b"\0"[..]].concat())),
        other => other,
    };
    KeyRange { start, end }
}
