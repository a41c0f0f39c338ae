//! What is counted about what clients ask for, beside the calls of each method.
//!
//! Owns: the instruments, and that no client can make their number grow. Must never: know what a request is about. Counted by `api`, shown by `render`.

use std::sync::OnceLock;
use std::time::Duration;

use super::{Counter, Histogram};

/// What stands for the version of a client that says none.
const UNKNOWN_VERSION: &str = "unknown";
/// So many different texts are told apart. Clients choose some of them.
const TEXTS_MAX: usize = 16;
/// A text of more bytes is not kept.
const TEXT_BYTES_MAX: usize = 128;
/// What stands for all that are not told apart.
const OTHERS: &str = "other";
/// First bucket of etcd's histogram of ranges; each is twice the one before.
const RANGE_BUCKET_FIRST: Duration = Duration::from_micros(100);
/// How many buckets it has.
const RANGE_BUCKETS: usize = 20;
/// First bucket of etcd's histograms of hashes and snapshots; each is twice the one before.
const WHOLE_BUCKET_FIRST: Duration = Duration::from_millis(10);
/// How many buckets those of hashes have.
const HASH_BUCKETS: usize = 15;
/// How many buckets that of snapshots has.
const SNAPSHOT_BUCKETS: usize = 17;

/// A method of which more is counted than of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// `Range`.
    Range,
    /// `RangeStream`.
    RangeStream,
    /// `Hash`.
    Hash,
    /// `HashKV`.
    RevisionHash,
    /// `Snapshot`.
    Snapshot,
    /// `MemberPromote`.
    Promotion,
}

impl Special {
    /// What a method of this name is.
    pub(super) fn of(method: &str) -> Option<Self> {
        Some(match method {
            "Range" => Self::Range,
            "RangeStream" => Self::RangeStream,
            "Hash" => Self::Hash,
            "HashKV" => Self::RevisionHash,
            "Snapshot" => Self::Snapshot,
            "MemberPromote" => Self::Promotion,
            _ => return None,
        })
    }

    /// Whether it is shown how long it takes. How long a range in pieces takes is up to its client.
    pub(super) fn is_timed(self) -> bool {
        !matches!(self, Self::RangeStream | Self::Promotion)
    }
}

/// See the module.
#[derive(Debug)]
pub struct RequestMetrics {
    /// Unary calls, by the version of the API that the client says it is of.
    pub unary_versions: Versions,
    /// Streams, by the same.
    pub stream_versions: Versions,
    /// Learners that became voters because somebody asked for it.
    pub promotions: Counter,
    /// Those that did not, by what was said.
    pub promotions_failed: Texts,
    /// How long ranges took that were read.
    pub ranges: Histogram,
    /// How long those took that were not.
    pub ranges_failed: Histogram,
    /// How long hashing all of the state took.
    pub hashes: Histogram,
    /// How long hashing the state as of a revision took.
    pub revision_hashes: Histogram,
    /// How long sending a snapshot to a client took.
    pub snapshots: Histogram,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        let range = || Histogram::new(RANGE_BUCKET_FIRST, RANGE_BUCKETS);
        let hash = || Histogram::new(WHOLE_BUCKET_FIRST, HASH_BUCKETS);
        Self {
            unary_versions: Versions::default(),
            stream_versions: Versions::default(),
            promotions: Counter::default(),
            promotions_failed: Texts::default(),
            ranges: range(),
            ranges_failed: range(),
            hashes: hash(),
            revision_hashes: hash(),
            snapshots: Histogram::new(WHOLE_BUCKET_FIRST, SNAPSHOT_BUCKETS),
        }
    }
}

impl RequestMetrics {
    /// A call of this method has ended. What fails is not measured but for ranges, as in etcd.
    pub fn note(&self, method: Special, is_ok: bool, took: Duration) {
        let histogram = match (method, is_ok) {
            (Special::Range, true) => &self.ranges,
            (Special::Range, false) => &self.ranges_failed,
            (Special::Hash, true) => &self.hashes,
            (Special::RevisionHash, true) => &self.revision_hashes,
            (Special::Snapshot, true) => &self.snapshots,
            _ => return,
        };
        histogram.observe(took);
    }
}

/// Counters by the version that a client says: what strangers say takes no place from those that say none, and what is no version takes none at all.
#[derive(Debug, Default)]
pub struct Versions {
    unknown: Counter,
    said: Texts,
}

impl Versions {
    /// One more that says this, or says none.
    pub fn count(&self, version: Option<&str>) {
        let is_version = |version: &str| version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        match version {
            None | Some("") => self.unknown.add(1),
            Some(version) if is_version(version) => self.said.count(version),
            Some(_) => self.said.others.add(1),
        }
    }

    /// Those that say none, from the start, and those that have come.
    pub(super) fn counted(&self) -> impl Iterator<Item = (&str, u64)> {
        std::iter::once((UNKNOWN_VERSION, self.unknown.value())).chain(self.said.counted())
    }
}

/// Counters by a text: the first ones that come are told apart, each kept once.
#[derive(Debug, Default)]
pub struct Texts {
    known: [OnceLock<Box<str>>; TEXTS_MAX],
    counters: [Counter; TEXTS_MAX],
    others: Counter,
}

impl Texts {
    /// One more of it.
    pub fn count(&self, text: &str) {
        let is_it = |place: &OnceLock<Box<str>>| &**place.get_or_init(|| text.into()) == text;
        // Two lines of one name would be no metrics any more.
        let is_kept = text.len() <= TEXT_BYTES_MAX && text != OTHERS;
        let place = self.known.iter().position(|place| is_kept && is_it(place));
        let counter = place.map_or(&self.others, |place| &self.counters[place]);
        counter.add(1);
    }

    /// Those that have come.
    pub(super) fn counted(&self) -> impl Iterator<Item = (&str, u64)> {
        let texts = self.known.iter().map_while(|text| text.get().map(|text| &**text));
        let counted = texts.zip(&self.counters).map(|(text, counter)| (text, counter.value()));
        counted.chain(Some((OTHERS, self.others.value())).filter(|(_, count)| *count > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever clients say, no more than so many lines come of it.
    #[test]
    fn only_so_many_texts_are_told_apart() {
        let texts = Texts::default();
        for n in 0..3 * TEXTS_MAX {
            texts.count(&n.to_string());
            texts.count("0");
        }
        texts.count(&"v".repeat(TEXT_BYTES_MAX + 1));
        let counted: Vec<_> = texts.counted().collect();
        assert_eq!(counted.len(), TEXTS_MAX + 1);
        assert_eq!(counted[0], ("0", 1 + 3 * TEXTS_MAX as u64));
        assert_eq!(counted[1], ("1", 1));
        assert_eq!(counted[TEXTS_MAX], (OTHERS, 2 * TEXTS_MAX as u64 + 1));
    }

    /// Somebody who knows what stands for the rest made two lines of it once, which a scrape refuses as a whole.
    #[test]
    fn what_stands_for_the_rest_is_there_once() {
        let texts = Texts::default();
        texts.count(OTHERS);
        for n in 0..=TEXTS_MAX {
            texts.count(&n.to_string());
        }
        let counted: Vec<_> = texts.counted().collect();
        assert_eq!(counted.iter().filter(|(text, _)| *text == OTHERS).collect::<Vec<_>>(), [&(OTHERS, 2)]);
        assert_eq!(counted.len(), TEXTS_MAX + 1);
    }

    #[test]
    fn what_is_no_version_takes_no_place_and_nobody_takes_that_of_those_who_say_none() {
        let versions = Versions::default();
        for word in ["v3", OTHERS, UNKNOWN_VERSION, "3.5\"} 1", "3,5", "٣"] {
            versions.count(Some(word));
        }
        for n in 0..TEXTS_MAX {
            versions.count(Some(&format!("3.{n}")));
        }
        versions.count(Some("4.0"));
        versions.count(None);
        versions.count(Some(""));
        let counted: Vec<_> = versions.counted().collect();
        assert_eq!(counted.first(), Some(&(UNKNOWN_VERSION, 2)));
        assert_eq!(counted[1], ("3.0", 1));
        assert_eq!(counted.last(), Some(&(OTHERS, 7)));
        assert_eq!(counted.len(), TEXTS_MAX + 2);
    }
}
