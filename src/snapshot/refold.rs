//! From the records of an image to what a new store is made of.
//!
//! Owns: what of an image is kept for a new cluster, and what changes on the way. Must never: hold more than one batch. Driven by restores, which
//! fold each batch into the store of a node that was founded for that.

use std::sync::Arc;

use crate::command::Outcome;
use crate::ids::{LeaseId, Revision, VersionId};
use crate::limits::OVERLAY_BYTES;
use crate::store::{Change, ChangeLog, FoldBatch, Lease, Meta};

/// The highest revision that a restored store may begin with: nobody writes as often as there are revisions above it.
const REVISION_MAX: i64 = i64::MAX / 2;

/// How far a restored store's revision is raised by default (API reference, section 15): more than a cluster can have written
/// between its last snapshot and its end.
pub const REVISION_BUMP: i64 = 1_000_000_000;

/// What happens to revisions when an image is restored.
///
/// The cluster that the image was taken of has gone on after that, and clients have seen those revisions. Were they given out once more for
/// other changes, watchers and caches would miss them without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewRevisions {
    /// The current revision is raised by this.
    pub bump: i64,
    /// Whether everything below the raised one is compacted, so that whoever resumes at an older one is told so.
    pub mark_compacted: bool,
}

impl Default for NewRevisions {
    fn default() -> Self {
        Self { bump: REVISION_BUMP, mark_compacted: true }
    }
}

/// The revision would be raised too far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("revision {revision} cannot be raised by {bump}")]
pub struct RevisionTooHigh {
    /// The image's.
    pub revision: Revision,
    /// What was asked for.
    pub bump: i64,
}

/// Collects changes into batches, which end wherever there is enough for one: a single revision may have very many changes.
pub struct Refold {
    /// The facts after the next batch.
    next: Meta,
    /// The facts after the last one.
    last: Meta,
    leases: Vec<(LeaseId, Option<Lease>)>,
    changes: ChangeLog,
    bytes: u64,
}

impl Refold {
    /// A store whose first facts are `first` (a founder's) and whose content is an image's, with these facts.
    pub fn new(first: &Meta, image: &Meta, revisions: NewRevisions) -> Result<Self, RevisionTooHigh> {
        let NewRevisions { bump, mark_compacted } = revisions;
        let raised = image.revision.0.checked_add(bump).filter(|raised| bump >= 0 && *raised <= REVISION_MAX);
        let revision = raised.map(Revision).ok_or(RevisionTooHigh { revision: image.revision, bump })?;
        let mut last = Meta {
            revision,
            compacted: if mark_compacted { revision } else { image.compacted },
            ever_compacted: mark_compacted || image.ever_compacted,
            alarms: image.alarms.clone(),
            over_quota: image.over_quota.clone(),
            auth: Arc::clone(&image.auth),
            commands: image.commands,
            digest: image.digest,
            ..first.clone()
        };
        // Members that restore the same image in different ways do not have the same state.
        last.digest.result(revision, last.compacted, &Ok(Outcome::Compact));
        Ok(Self { next: first.clone(), last, leases: Vec::new(), changes: ChangeLog::default(), bytes: 0 })
    }

    /// Takes a lease. It is granted anew: it has all its time, and the log that it was granted in is gone.
    pub fn lease(&mut self, id: LeaseId, lease: Lease) {
        let granted_at = self.next.applied;
        self.leases.push((id, Some(Lease { remaining: 0, granted_at, ..lease })));
    }

    /// Takes the next change; gives a batch when there is enough for one.
    pub fn change(&mut self, id: VersionId, change: Change) -> Option<FoldBatch> {
        let batch = (self.bytes >= OVERLAY_BYTES as u64).then(|| {
            self.bytes = 0;
            let leases = std::mem::take(&mut self.leases);
            FoldBatch {
                changes: std::mem::take(&mut self.changes),
                leases,
                sweep: None,
                meta: self.next.clone(),
            }
        });
        self.next.revision = id.main;
        self.bytes += change.stored_bytes();
        self.changes.push(id, change);
        batch
    }

    /// The last batch.
    pub fn finish(self) -> FoldBatch {
        FoldBatch { changes: self.changes, leases: self.leases, sweep: None, meta: self.last }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ids::LogIndex;
    use crate::store::ChangeKind;

    fn first() -> Meta {
        Meta { applied: LogIndex(1), revision: Revision(1), ..Meta::default() }
    }

    fn image(revision: i64) -> Meta {
        let (revision, compacted) = (Revision(revision), Revision(7));
        Meta { applied: LogIndex(99), revision, compacted, ever_compacted: true, ..Meta::default() }
    }

    #[test]
    fn batches_end_when_they_are_large_and_go_on_from_one_another() {
        let mut refold = Refold::new(&first(), &image(9), NewRevisions::default()).unwrap();
        let change = || Change { key: Bytes::from(vec![b'k'; OVERLAY_BYTES / 2]), kind: ChangeKind::Delete };
        let mut batches = Vec::new();
        for (main, sub) in [(2, 0), (3, 0), (3, 1), (3, 2), (4, 0), (9, 0)] {
            batches.extend(refold.change(VersionId { main: Revision(main), sub }, change()));
        }
        batches.push(refold.finish());
        let ids = |batch: &FoldBatch| batch.changes.iter().map(|change| change.id.main.0).collect::<Vec<_>>();
        assert_eq!(batches.iter().map(ids).collect::<Vec<_>>(), [vec![2, 3], vec![3, 3], vec![4, 9]]);
        assert_eq!((batches[0].meta.revision, batches[0].meta.compacted), (Revision(3), Revision(0)));
        assert_eq!(batches[1].meta.revision, Revision(3));
        let last = &batches[2].meta;
        assert_eq!(last.revision, Revision(9 + REVISION_BUMP));
        assert_eq!((last.compacted, last.ever_compacted), (last.revision, true));
        assert_eq!(last.applied, LogIndex(1), "the log begins anew");
    }

    #[test]
    fn revisions_can_be_kept_but_not_raised_beyond_reason() {
        let keep = NewRevisions { bump: 0, mark_compacted: false };
        let kept = Refold::new(&first(), &image(9), keep).unwrap().finish().meta;
        assert_eq!((kept.revision, kept.compacted), (Revision(9), Revision(7)));
        for bump in [-1, i64::MAX, REVISION_MAX - 8] {
            assert!(Refold::new(&first(), &image(9), NewRevisions { bump, mark_compacted: true }).is_err());
        }
    }

    #[test]
    fn one_image_restored_in_two_ways_gives_two_digests() {
        let digest = |bump| {
            let revisions = NewRevisions { bump, mark_compacted: false };
            Refold::new(&first(), &image(9), revisions).unwrap().finish().meta.digest
        };
        assert_eq!(digest(0), digest(0));
        assert_ne!(digest(0), digest(1));
    }
}
