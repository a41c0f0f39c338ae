//! The digests of entries that were applied lately, so that members can compare theirs at the same one.
//!
//! Owns: which are kept. Must never: grow. Kept by [`super::Applier`].
//!
//! Members are rarely at the same entry at the same moment. On a quiet cluster they soon are, and the last entries are enough; on a busy one
//! one of them may be many thousands ahead of another, and there are the milestones.

use crate::ids::{Digest, LogIndex};

/// So many of the last entries.
const RECENT: u64 = 512;
/// A milestone is an entry whose index is a multiple of this.
const STRIDE: u64 = 512;
/// So many of the last milestones.
const MILESTONES: u64 = 512;

/// Digests by entry, in two rings.
#[derive(Debug)]
pub(super) struct Trail {
    recent: Vec<(LogIndex, Digest)>,
    milestones: Vec<(LogIndex, Digest)>,
}

impl Default for Trail {
    fn default() -> Self {
        let ring = |slots: u64| (0..slots).map(|_| Default::default()).collect();
        Self { recent: ring(RECENT), milestones: ring(MILESTONES) }
    }
}

impl Trail {
    /// The digest after this entry, which is not before any that was noted.
    pub(super) fn note(&mut self, index: LogIndex, digest: Digest) {
        self.recent[slot(index.0, RECENT)] = (index, digest);
        if index.0.is_multiple_of(STRIDE) {
            self.milestones[slot(index.0 / STRIDE, MILESTONES)] = (index, digest);
        }
    }

    /// The digest after this entry, where it is still kept.
    pub(super) fn at(&self, index: LogIndex) -> Option<Digest> {
        let places =
            [self.recent[slot(index.0, RECENT)], self.milestones[slot(index.0 / STRIDE, MILESTONES)]];
        places.into_iter().find(|(kept, _)| *kept == index && index.0 > 0).map(|(_, digest)| digest)
    }

    /// The entry to compare at, after `compared`, and its digest. `milestone`: the last one that others are sure to know, too, if they have got
    /// there at all; otherwise the last entry.
    pub(super) fn point(
        &self,
        applied: LogIndex,
        compared: LogIndex,
        milestone: bool,
    ) -> Option<(LogIndex, Digest)> {
        let last_milestone = LogIndex(applied.0 - applied.0 % STRIDE);
        let points = [Some(last_milestone).filter(|_| milestone), Some(applied)];
        let mut later = points.into_iter().flatten().filter(|point| *point > compared);
        later.find_map(|point| Some((point, self.at(point)?)))
    }

    /// Forgets everything: the state is another one.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn slot(number: u64, slots: u64) -> usize {
    usize::try_from(number % slots).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_entries_and_the_last_milestones_are_kept() {
        let mut trail = Trail::default();
        assert_eq!(trail.at(LogIndex(0)), None);
        let last = 2 * STRIDE * MILESTONES + 7;
        for index in 3..=last {
            trail.note(LogIndex(index), Digest(index ^ 0x5555));
        }
        let kept = |index| trail.at(LogIndex(index)) == Some(Digest(index ^ 0x5555));
        assert!((last - RECENT + 1..=last).all(kept));
        assert!(kept(last - 7) && kept(last - 7 - STRIDE) && kept(last - 7 - STRIDE * (MILESTONES - 1)));
        for gone in [last - RECENT, last - 7 - STRIDE * MILESTONES, 3, last + 1] {
            assert_eq!(trail.at(LogIndex(gone)), None, "{gone}");
        }
        trail.clear();
        assert_eq!(trail.at(LogIndex(last)), None);
    }

    #[test]
    fn milestones_are_compared_on_a_busy_cluster_and_the_last_entry_on_a_quiet_one() {
        let mut trail = Trail::default();
        let applied = 3 * STRIDE + 5;
        (1..=applied).for_each(|index| trail.note(LogIndex(index), Digest(index)));
        let point = |trail: &Trail, compared, milestone| {
            trail.point(LogIndex(applied), LogIndex(compared), milestone).map(|(at, digest)| {
                assert_eq!(at.0, digest.0);
                at.0
            })
        };
        assert_eq!(point(&trail, 0, true), Some(3 * STRIDE));
        assert_eq!(point(&trail, 0, false), Some(applied));
        assert_eq!(point(&trail, 3 * STRIDE, true), Some(applied));
        assert_eq!(point(&trail, applied, true), None, "nothing has happened since");
        // After a start only the last entries are known.
        let mut trail = Trail::default();
        trail.note(LogIndex(applied), Digest(applied));
        assert_eq!(point(&trail, 0, true), Some(applied));
    }
}
