//! Walking the state on disk in order: current keys, keys at a revision, changes.
//!
//! Owns: the three iterators. Must never: hold more than one row in memory, or go on after an error. Made by [`Base`],
//! which they borrow.
//!
//! None keeps a position of its own between calls of the caller's: to resume, ask for a range that starts after the last key.

use std::cmp::Ordering;
use std::ops::Bound;

use bytes::Bytes;
use redb::{AccessGuard, Range};

use super::base::{Base, MALFORMED, parse_hist_row};
use super::error::StoreError;
use super::schema::{
    HIST_ROW_BYTES, HistKey, ID_BYTES, ID_FIRST, ID_LAST, LIVE_NAME, REV_NAME, hist_key, id_key, last_of,
    parse_change, parse_id, parse_live,
};
use super::types::{Change, Head};
use crate::command::{KeyRange, RangeEnd};
use crate::ids::{Revision, VersionId};

type LiveRange<'a> = Range<'a, &'static [u8], &'static [u8]>;
type LiveRow<'a> = (AccessGuard<'a, &'static [u8]>, AccessGuard<'a, &'static [u8]>);
type HistRange<'a> = Range<'a, HistKey, &'static [u8; HIST_ROW_BYTES]>;
type HistRow<'a> = (AccessGuard<'a, HistKey>, AccessGuard<'a, &'static [u8; HIST_ROW_BYTES]>);

/// Rows of one key that a walk steps over before it seeks past the rest: a step is some ten times cheaper than a seek.
/// Few in tests, so that short histories have both.
const STEPS_BEFORE_SEEK: usize = if cfg!(test) { 3 } else { 16 };

/// Keys in a row that did not exist at the revision, after which a walk pauses. Few in tests, for the same reason.
const KEYS_BEFORE_PAUSE: usize = if cfg!(test) { 2 } else { 1024 };

/// The current keys of a range, ascending.
pub struct Heads<'a> {
    /// `None` for an empty range, and after an error.
    rows: Option<LiveRange<'a>>,
}

impl<'a> Heads<'a> {
    pub(super) fn new(base: &'a Base, range: &KeyRange) -> Result<Self, StoreError> {
        Ok(Self { rows: live_range(base, range)? })
    }

    fn step(&mut self) -> Result<Option<(Bytes, Head)>, StoreError> {
        let Some(row) = self.rows.as_mut().and_then(Iterator::next) else {
            return Ok(None);
        };
        let row = row?;
        let head = live_head(&row)?;
        Ok(Some((Bytes::copy_from_slice(row.0.value()), head)))
    }
}

impl Iterator for Heads<'_> {
    type Item = Result<(Bytes, Head), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.step();
        if result.is_err() {
            self.rows = None;
        }
        result.transpose()
    }
}

/// What a walk at a revision comes to next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Visit {
    /// A key that existed, and its version there.
    Version(Bytes, VersionId),
    /// None of many keys existed; this is the last of them. Whoever shares a thread may go on from it later.
    Pause(Bytes),
}

/// The keys of a range that existed at a revision, ascending: `live` and `hist` merged.
///
/// A key is in one of them or in both. Its version at the revision is its head where that is old enough, otherwise
/// the newest row of `hist` that is; where that is a tombstone the key did not exist.
pub struct VersionsAt<'a> {
    base: &'a Base,
    range: KeyRange,
    at: Revision,
    live: Option<LiveRange<'a>>,
    hist: Option<HistRange<'a>>,
    next_live: Option<LiveRow<'a>>,
    next_hist: Option<HistRow<'a>>,
    /// The key that the walk is at.
    key: Vec<u8>,
    /// Its version at the revision, if it existed.
    version: Option<VersionId>,
}

impl<'a> VersionsAt<'a> {
    pub(super) fn new(base: &'a Base, range: &KeyRange, at: Revision) -> Result<Self, StoreError> {
        let mut start = Vec::new();
        hist_key(&mut start, &range.start, ID_FIRST);
        let hist = if range.is_empty() { None } else { hist_range(base, range, Bound::Included(&start))? };
        let live = live_range(base, range)?;
        let (range, key, version) = (range.clone(), Vec::new(), None);
        let mut walk = Self { base, range, at, live, hist, next_live: None, next_hist: None, key, version };
        walk.step_live()?;
        walk.step_hist()?;
        Ok(walk)
    }

    /// Goes to the next key, whether it existed or not; false behind the last.
    fn advance(&mut self) -> Result<bool, StoreError> {
        let (on_live, on_hist) = match self.compare_next()? {
            None => return Ok(false),
            Some(order) => (order != Ordering::Greater, order != Ordering::Less),
        };
        self.key.clear();
        let mut found = None;
        if on_live && let Some(row) = &self.next_live {
            self.key.extend_from_slice(row.0.value());
            found = Some(live_head(row)?.id).filter(|id| id.main <= self.at);
            self.step_live()?;
        } else if let Some((raw_key, row)) = &self.next_hist {
            self.key.extend_from_slice(parse_hist_row(raw_key.value(), *row.value())?.0);
        }
        if on_hist {
            let superseded = self.pass_hist(found.is_some())?;
            found = found.or(superseded);
        }
        self.version = found;
        Ok(true)
    }

    /// Counts those of the next `keys` keys that existed; with the key behind them, if there is one.
    pub(super) fn count(mut self, keys: usize) -> Result<(u64, Option<Bytes>), StoreError> {
        let mut count = 0;
        for _ in 0..keys {
            if !self.advance()? {
                return Ok((count, None));
            }
            count += u64::from(self.version.is_some());
        }
        let next = match (self.compare_next()?, &self.next_live, &self.next_hist) {
            (Some(Ordering::Less | Ordering::Equal), Some((key, _)), _) => Some(key.value()),
            (Some(_), _, Some((raw_key, row))) => Some(parse_hist_row(raw_key.value(), *row.value())?.0),
            _ => None,
        };
        Ok((count, next.map(Bytes::copy_from_slice)))
    }

    fn visit(&mut self) -> Result<Option<Visit>, StoreError> {
        for _ in 0..KEYS_BEFORE_PAUSE {
            if !self.advance()? {
                return Ok(None);
            }
            if let Some(id) = self.version {
                return Ok(Some(Visit::Version(Bytes::copy_from_slice(&self.key), id)));
            }
        }
        Ok(Some(Visit::Pause(Bytes::copy_from_slice(&self.key))))
    }

    /// Which of the two tables has the lower next key; `None` when both have ended.
    fn compare_next(&self) -> Result<Option<Ordering>, StoreError> {
        let hist_key = match &self.next_hist {
            Some((raw_key, row)) => Some(parse_hist_row(raw_key.value(), *row.value())?.0),
            None => None,
        };
        Ok(match (&self.next_live, hist_key) {
            (None, None) => None,
            (Some(_), None) => Some(Ordering::Less),
            (None, Some(_)) => Some(Ordering::Greater),
            (Some(live), Some(hist_key)) => Some(live.0.value().cmp(hist_key)),
        })
    }

    /// Passes all rows of `self.key` in `hist`; answers the newest one at or below the revision, unless it is a tombstone.
    fn pass_hist(&mut self, found: bool) -> Result<Option<VersionId>, StoreError> {
        let mut newest = None;
        for _ in 0..STEPS_BEFORE_SEEK {
            let Some((raw_key, row)) = &self.next_hist else {
                return Ok(newest);
            };
            let (key, id, tombstone) = parse_hist_row(raw_key.value(), *row.value())?;
            if key != self.key {
                return Ok(newest);
            }
            if id.main <= self.at {
                newest = (!tombstone).then_some(id);
            }
            self.step_hist()?;
        }
        if !found {
            let superseded = self.base.superseded_at(&self.key, self.at)?;
            newest = superseded.and_then(|(id, tombstone)| (!tombstone).then_some(id));
        }
        let mut after = Vec::new();
        hist_key(&mut after, &self.key, ID_LAST);
        self.hist = hist_range(self.base, &self.range, Bound::Excluded(&after))?;
        self.step_hist()?;
        Ok(newest)
    }

    fn step_live(&mut self) -> Result<(), StoreError> {
        self.next_live = self.live.as_mut().and_then(Iterator::next).transpose()?;
        Ok(())
    }

    fn step_hist(&mut self) -> Result<(), StoreError> {
        self.next_hist = self.hist.as_mut().and_then(Iterator::next).transpose()?;
        Ok(())
    }

    fn end(&mut self) {
        (self.live, self.hist, self.next_live, self.next_hist) = (None, None, None, None);
    }
}

impl Iterator for VersionsAt<'_> {
    type Item = Result<Visit, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.visit();
        if result.is_err() {
            self.end();
        }
        result.transpose()
    }
}

/// Changes in the order they were made.
pub struct Changes<'a> {
    /// `None` for an empty interval, and after an error.
    rows: Option<Range<'a, &'static [u8; ID_BYTES], &'static [u8]>>,
}

impl<'a> Changes<'a> {
    pub(super) fn new(base: &'a Base, from: VersionId, to: Revision) -> Result<Self, StoreError> {
        if from > last_of(to) {
            return Ok(Self { rows: None });
        }
        let (from, to) = (id_key(from), id_key(last_of(to)));
        Ok(Self { rows: Some(base.rev.range::<&[u8; ID_BYTES]>(&from..=&to)?) })
    }

    fn step(&mut self) -> Result<Option<(VersionId, Change)>, StoreError> {
        let Some(row) = self.rows.as_mut().and_then(Iterator::next) else {
            return Ok(None);
        };
        let (key, row) = row?;
        let damaged = || StoreError::damaged(REV_NAME, key.value(), MALFORMED);
        let id = parse_id(key.value()).ok_or_else(damaged)?;
        Ok(Some((id, parse_change(id, row.value()).ok_or_else(damaged)?)))
    }
}

impl Iterator for Changes<'_> {
    type Item = Result<(VersionId, Change), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.step();
        if result.is_err() {
            self.rows = None;
        }
        result.transpose()
    }
}

fn live_range<'a>(base: &'a Base, range: &KeyRange) -> Result<Option<LiveRange<'a>>, StoreError> {
    Ok(match range.bounds() {
        None => None,
        Some(bounds) => Some(base.live.range::<&[u8]>(bounds)?),
    })
}

fn live_head(row: &LiveRow<'_>) -> Result<Head, StoreError> {
    let key = row.0.value();
    parse_live(key, row.1.value()).ok_or_else(|| StoreError::damaged(LIVE_NAME, key, MALFORMED))
}

/// The rows of `hist` from `start` to the end of `range`; `None` where that is behind the start.
fn hist_range<'a>(
    base: &'a Base,
    range: &KeyRange,
    start: Bound<&Vec<u8>>,
) -> Result<Option<HistRange<'a>>, StoreError> {
    let mut end = Vec::new();
    let end = match &range.end {
        RangeEnd::Single => {
            hist_key(&mut end, &range.start, ID_LAST);
            Bound::Included(end.as_slice())
        }
        RangeEnd::Before(key) => {
            hist_key(&mut end, key, ID_FIRST);
            Bound::Excluded(end.as_slice())
        }
        RangeEnd::Unbounded => Bound::Unbounded,
    };
    // The last row of a single key is both the bound behind it and the end: redb takes such a range for a mistake.
    if matches!((start, end), (Bound::Excluded(start), Bound::Included(end)) if start == end) {
        return Ok(None);
    }
    Ok(Some(base.hist.range::<&[u8]>((start.map(Vec::as_slice), end))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{Disk, at, batch, everything, founded, put};

    #[test]
    fn a_walk_pauses_where_for_long_no_key_existed() {
        let mut store = founded(&Disk::default());
        let keys = ["a", "b", "c", "d", "e", "f"];
        let mut changes = vec![(at(2, 0), put("a", "", 2, 1)), (at(2, 1), put("f", "", 2, 1))];
        changes.extend((3..).zip(&keys[1..5]).map(|(rev, key)| (at(rev, 0), put(*key, "", rev, 1))));
        store.fold(&batch(&store, changes)).unwrap();
        let base = store.base().unwrap();
        let visits: Vec<Visit> =
            base.versions_at(&everything(), Revision(2)).unwrap().map(Result::unwrap).collect();
        let expected = [
            Visit::Version("a".into(), at(2, 0)),
            Visit::Pause("c".into()),
            Visit::Pause("e".into()),
            Visit::Version("f".into(), at(2, 1)),
        ];
        assert_eq!(visits, expected);
        assert_eq!(base.count_at(&everything(), Revision(2), 3).unwrap(), (1, Some("d".into())));
        assert_eq!(base.count_at(&everything(), Revision(2), 6).unwrap(), (2, None));
    }
}
