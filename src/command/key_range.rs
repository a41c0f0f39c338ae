//! Half-open intervals of keys, parsed once from etcd's `(key, range_end)` convention.
//!
//! Owns: the meaning of `range_end` (API reference, section 0.3). Must never: know what the keys hold.
//! Driven by everything that takes an interval: ranges, deletes, compares, watches, permissions.

use std::ops::Bound;

use bytes::Bytes;

/// The bounds that an ordered map's `range` takes.
pub type KeyBounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Where an interval of keys ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RangeEnd {
    /// Exactly the start key.
    Single,
    /// Every key below this one; at or below the start key the interval is empty.
    Before(Bytes),
    /// No end.
    Unbounded,
}

/// An interval of keys: `[start, end)`, or the single key `start`.
///
/// | `range_end` on the wire | meaning |
/// | --- | --- |
/// | empty | exactly `start` |
/// | one zero byte | all keys at or above `start` |
/// | anything else | `start <= key < range_end`, empty when reversed |
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The first key that can lie inside.
    pub start: Bytes,
    /// Where it ends.
    pub end: RangeEnd,
}

impl KeyRange {
    /// The interval of exactly one key.
    pub const fn single(key: Bytes) -> Self {
        Self { start: key, end: RangeEnd::Single }
    }

    /// All keys.
    pub const fn everything() -> Self {
        Self { start: Bytes::from_static(&[0]), end: RangeEnd::Unbounded }
    }

    /// Reads the two wire fields. A start of one zero byte is the lowest possible key, so it needs no case of its own.
    pub fn from_wire(key: Bytes, range_end: Bytes) -> Self {
        let end = match range_end.as_ref() {
            [] => RangeEnd::Single,
            [0] => RangeEnd::Unbounded,
            _ => RangeEnd::Before(range_end),
        };
        Self { start: key, end }
    }

    /// The `range_end` field that [`KeyRange::from_wire`] would read back.
    pub fn wire_end(&self) -> Bytes {
        match &self.end {
            RangeEnd::Single => Bytes::new(),
            RangeEnd::Before(end) => end.clone(),
            RangeEnd::Unbounded => Bytes::from_static(&[0]),
        }
    }

    /// Whether `key` lies inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => key == self.start.as_ref(),
            RangeEnd::Before(end) => self.start.as_ref() <= key && key < end.as_ref(),
            RangeEnd::Unbounded => self.start.as_ref() <= key,
        }
    }

    /// Whether it names one key.
    pub fn is_single(&self) -> bool {
        self.end == RangeEnd::Single
    }

    /// Whether no key can lie inside (a reversed interval).
    pub fn is_empty(&self) -> bool {
        matches!(&self.end, RangeEnd::Before(end) if end <= &self.start)
    }

    /// The bounds for an ordered map's `range`; `None` for an empty interval, on which such maps may panic.
    pub fn bounds(&self) -> Option<KeyBounds<'_>> {
        if self.is_empty() {
            return None;
        }
        let start = Bound::Included(self.start.as_ref());
        let end = match &self.end {
            RangeEnd::Single => Bound::Included(self.start.as_ref()),
            RangeEnd::Before(end) => Bound::Excluded(end.as_ref()),
            RangeEnd::Unbounded => Bound::Unbounded,
        };
        Some((start, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &'static [u8], end: &'static [u8]) -> KeyRange {
        KeyRange::from_wire(Bytes::from_static(key), Bytes::from_static(end))
    }

    #[test]
    fn the_five_forms_of_the_reference() {
        assert!(range(b"k", b"").contains(b"k") && !range(b"k", b"").contains(b"k0"));
        assert!(range(b"k", b"m").contains(b"k") && range(b"k", b"m").contains(b"l\xff"));
        assert!(!range(b"k", b"m").contains(b"m") && !range(b"k", b"m").contains(b"j"));
        assert!(range(b"k", b"\0").contains(b"zzz") && !range(b"k", b"\0").contains(b"j"));
        assert!(range(b"\0", b"\0").contains(b"\0") && range(b"\0", b"\0").contains(b"a"));
        assert!(range(b"m", b"k").is_empty() && range(b"m", b"m").is_empty());
        assert!(range(b"m", b"k").bounds().is_none() && !range(b"m", b"k").contains(b"l"));
        assert!(!range(b"\0", b"\0").is_empty());
    }

    #[test]
    fn the_wire_form_comes_back() {
        for (key, end) in [(&b"a"[..], &b""[..]), (b"a", b"b"), (b"a", b"\0"), (b"b", b"a"), (b"\0", b"\0")] {
            let parsed = KeyRange::from_wire(Bytes::copy_from_slice(key), Bytes::copy_from_slice(end));
            assert_eq!(parsed.wire_end().as_ref(), end);
        }
    }
}
