//! The store's disk as a machine: folds, slices of compaction between them, and a slow scrub.
//!
//! Owns: the store while the member runs, whose turn it is on it, and who is told of what in which order. Must never: let a fold wait
//! for more than one slice, or report what is not in the store yet. Driven by the checkpoint thread of `runtime` and by the simulator.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::ids::{LogIndex, Revision};
use crate::limits::{COMPACTION_PAUSE, COMPACTION_SLICE, SCRUB_PAUSE, SCRUB_REST, SCRUB_SLICE};
use crate::store::{Base, FoldBatch, ScrubCursor, Store, StoreError};
use crate::time::Instant;

/// What the checkpointer is asked for by [`super::ApplierOutput`].
#[derive(Debug)]
pub enum CheckpointJob {
    /// Commit a frozen generation.
    Fold(FoldBatch),
    /// Begin to remove what compaction left over.
    Compact,
}

/// What others are to be told.
#[derive(Debug)]
pub enum CheckpointOutput {
    /// To [`super::Applier::handle_folded`].
    Folded(Arc<Base>),
    /// To [`super::Core::handle_checkpointed`].
    Checkpointed(LogIndex),
    /// To [`super::Applier::handle_compacted`].
    Compacted(Arc<Base>),
    /// To callers who wait until the removal up to this revision has come to its end.
    Removed(Revision),
}

/// A piece of work that was done, for whoever measures and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointWork {
    /// A generation of so many changes is in the store, whose state is now that of this position.
    Fold {
        /// Changes.
        changes: usize,
        /// The position.
        applied: LogIndex,
    },
    /// A slice of compaction.
    Slice {
        /// The revision up to which everything is removed, once this was the last slice.
        finished: Option<Revision>,
    },
    /// A slice of the scrub.
    Scrub {
        /// The rows that the walk has found sound, once this was the last slice.
        finished: Option<usize>,
    },
}

/// When the next slice of compaction is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compaction {
    /// There is nothing to remove.
    Resting,
    /// At this time.
    Due(Instant),
    /// A pause after the call that comes next: how long a slice took is not known while it is done.
    Paused,
}

/// A slow walk over all rows, again and again: what rots where nobody reads is found before it is needed.
#[derive(Debug)]
struct Scrub {
    cursor: ScrubCursor,
    rows: usize,
    next_slice: Instant,
}

/// The store and what is to be done with it.
///
/// # Contract
///
/// [`Checkpointer::handle`] what has come, one piece of [`Checkpointer::work`], carry out what [`Checkpointer::poll_output`] gives, and
/// so on; once `work` has answered `None`, sleep until there is a new job, or until [`Checkpointer::poll_timeout`]. `now` is taken anew
/// for each call and never goes backwards. After an error nothing works any more.
pub struct Checkpointer {
    store: Store,
    folds: VecDeque<FoldBatch>,
    compaction: Compaction,
    /// Changes that a slice of compaction may remove.
    slice: usize,
    scrub: Scrub,
    outputs: VecDeque<CheckpointOutput>,
}

impl Checkpointer {
    /// A checkpointer of a store that was just opened.
    pub fn new(now: Instant, store: Store) -> Self {
        Self {
            store,
            folds: VecDeque::new(),
            compaction: Compaction::Resting,
            slice: COMPACTION_SLICE,
            scrub: Scrub { cursor: ScrubCursor::default(), rows: 0, next_slice: now + SCRUB_PAUSE },
            outputs: VecDeque::new(),
        }
    }

    /// Makes slices of compaction smaller or larger than [`COMPACTION_SLICE`].
    pub fn set_slice(&mut self, changes: usize) {
        self.slice = changes;
    }

    /// Takes a job; nothing is done yet.
    pub fn handle(&mut self, now: Instant, job: CheckpointJob) {
        match job {
            CheckpointJob::Fold(batch) => self.folds.push_back(batch),
            CheckpointJob::Compact => self.compaction = Compaction::Due(now),
        }
    }

    /// One piece of work that is due at `now`; `None` when there is none.
    ///
    /// A fold goes first. It also ends the pause of a compaction: were folds to follow one another without end, nothing would be
    /// removed otherwise, and the store would grow.
    pub fn work(&mut self, now: Instant) -> Result<Option<CheckpointWork>, StoreError> {
        if self.compaction == Compaction::Paused {
            self.compaction = Compaction::Due(now + COMPACTION_PAUSE);
        }
        if let Some(batch) = self.folds.pop_front() {
            if let Compaction::Due(_) = self.compaction {
                self.compaction = Compaction::Due(now);
            }
            return self.fold(&batch).map(Some);
        }
        if let Compaction::Due(at) = self.compaction
            && at <= now
        {
            return self.compact().map(Some);
        }
        if self.scrub.next_slice <= now {
            return self.scrub(now).map(Some);
        }
        Ok(None)
    }

    /// When there is work without a new job.
    pub fn poll_timeout(&self) -> Instant {
        match self.compaction {
            Compaction::Due(at) => at.min(self.scrub.next_slice),
            Compaction::Resting | Compaction::Paused => self.scrub.next_slice,
        }
    }

    /// The next thing to tell others, until `None`.
    pub fn poll_output(&mut self) -> Option<CheckpointOutput> {
        self.outputs.pop_front()
    }

    /// The store, to look at.
    pub fn store(&self) -> &Store {
        &self.store
    }

    fn fold(&mut self, batch: &FoldBatch) -> Result<CheckpointWork, StoreError> {
        self.store.fold(batch)?;
        let applied = batch.meta.applied;
        self.outputs.push_back(CheckpointOutput::Folded(Arc::new(self.store.base()?)));
        // Only now may the log lose what the fold covers: it is durable in the store.
        self.outputs.push_back(CheckpointOutput::Checkpointed(applied));
        Ok(CheckpointWork::Fold { changes: batch.changes.len(), applied })
    }

    fn compact(&mut self) -> Result<CheckpointWork, StoreError> {
        let progress = self.store.compact_slice(self.slice)?;
        let base = self.store.base()?;
        let reached = base.meta().compaction_finished;
        self.outputs.push_back(CheckpointOutput::Compacted(Arc::new(base)));
        self.outputs.push_back(CheckpointOutput::Removed(reached));
        self.compaction = if progress.finished { Compaction::Resting } else { Compaction::Paused };
        Ok(CheckpointWork::Slice { finished: progress.finished.then_some(reached) })
    }

    /// Damage ends the member: an answer could be wrong from here on.
    fn scrub(&mut self, now: Instant) -> Result<CheckpointWork, StoreError> {
        let scrub = &mut self.scrub;
        let progress = self.store.scrub_slice(std::mem::take(&mut scrub.cursor), SCRUB_SLICE)?;
        scrub.rows += progress.rows;
        let finished = if let Some(next) = progress.next {
            scrub.cursor = next;
            scrub.next_slice = now + SCRUB_PAUSE;
            None
        } else {
            scrub.next_slice = now + SCRUB_REST;
            Some(std::mem::take(&mut scrub.rows))
        };
        Ok(CheckpointWork::Scrub { finished })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::formation::first_state;
    use crate::ids::{LeaseId, MemberId, VersionId};
    use crate::store::{Change, ChangeKind, StoreOptions};

    const START: Instant = Instant(1_000_000_000);

    fn checkpointer() -> Checkpointer {
        let (meta, _) = first_state(MemberId(1));
        let mut store = Store::open(InMemoryBackend::new(), StoreOptions::default()).unwrap();
        store.initialise(&meta).unwrap();
        Checkpointer::new(START, store)
    }

    /// A fold of one revision with so many puts; odd revisions overwrite what even ones have put.
    fn fold(checkpointer: &Checkpointer, puts: u32) -> FoldBatch {
        let mut meta = checkpointer.store().meta().clone();
        for batch in &checkpointer.folds {
            meta = batch.meta.clone();
        }
        let main = meta.revision.next();
        let change = |sub: u32| {
            let kind = ChangeKind::Put {
                value: Bytes::new(),
                create_revision: main,
                version: 1,
                lease: LeaseId::NONE,
            };
            (VersionId { main, sub }, Change { key: Bytes::from(sub.to_be_bytes().to_vec()), kind })
        };
        meta.applied = meta.applied.next();
        meta.revision = main;
        FoldBatch { changes: (0..puts).map(change).collect(), meta }
    }

    fn drain(checkpointer: &mut Checkpointer) -> Vec<CheckpointOutput> {
        std::iter::from_fn(|| checkpointer.poll_output()).collect()
    }

    #[test]
    fn a_fold_is_shown_to_the_state_before_the_log_may_be_cut() {
        let mut checkpointer = checkpointer();
        let batch = fold(&checkpointer, 3);
        checkpointer.handle(START, CheckpointJob::Fold(batch));
        assert!(drain(&mut checkpointer).is_empty(), "nothing is in the store yet");
        let work = checkpointer.work(START).unwrap();
        assert_eq!(work, Some(CheckpointWork::Fold { changes: 3, applied: LogIndex(2) }));
        let outputs = drain(&mut checkpointer);
        let [CheckpointOutput::Folded(base), CheckpointOutput::Checkpointed(LogIndex(2))] = &outputs[..]
        else {
            panic!("{outputs:?}");
        };
        assert_eq!(base.meta().revision, Revision(2));
        assert_eq!(checkpointer.work(START).unwrap(), None);
        assert_eq!(checkpointer.poll_timeout(), START + SCRUB_PAUSE);
    }

    /// A fold that comes meanwhile goes first; slices have pauses, which count from the end of the slice; folds without end do not
    /// keep slices from their turn.
    #[test]
    fn slices_of_compaction_come_between_folds_and_with_pauses() {
        let mut checkpointer = checkpointer();
        checkpointer.set_slice(2);
        for _ in 0..2 {
            let batch = fold(&checkpointer, 6);
            checkpointer.handle(START, CheckpointJob::Fold(batch));
        }
        let mut compacted = fold(&checkpointer, 6);
        compacted.meta.compacted = compacted.meta.revision;
        checkpointer.handle(START, CheckpointJob::Fold(compacted));
        checkpointer.handle(START, CheckpointJob::Compact);
        for _ in 0..3 {
            assert!(matches!(checkpointer.work(START).unwrap(), Some(CheckpointWork::Fold { .. })));
        }
        let slice = Some(CheckpointWork::Slice { finished: None });
        assert_eq!(checkpointer.work(START).unwrap(), slice);
        let after = START + Duration::from_millis(70);
        assert_eq!(checkpointer.work(after).unwrap(), None);
        assert_eq!(checkpointer.poll_timeout(), after + COMPACTION_PAUSE);
        drain(&mut checkpointer);

        let batch = fold(&checkpointer, 1);
        checkpointer.handle(after, CheckpointJob::Fold(batch));
        assert!(matches!(checkpointer.work(after).unwrap(), Some(CheckpointWork::Fold { .. })));
        assert_eq!(checkpointer.work(after).unwrap(), slice, "a fold ends the pause");
        assert_eq!(checkpointer.work(after).unwrap(), None);
        drain(&mut checkpointer);

        let reached = loop {
            let now = checkpointer.poll_timeout();
            let work = checkpointer.work(now).unwrap();
            assert!(now < START + SCRUB_PAUSE && checkpointer.work(now).unwrap().is_none());
            let outputs = drain(&mut checkpointer);
            assert!(matches!(outputs[..], [CheckpointOutput::Compacted(_), CheckpointOutput::Removed(_)]));
            if let Some(CheckpointWork::Slice { finished: Some(reached) }) = work {
                break reached;
            }
        };
        assert_eq!(reached, Revision(4));
        assert_eq!(checkpointer.poll_timeout(), START + SCRUB_PAUSE, "nothing is left to remove");
    }

    #[test]
    fn a_scrub_walks_in_slices_with_pauses_and_then_rests() {
        let mut checkpointer = checkpointer();
        let rows = SCRUB_SLICE + 1;
        let batch = fold(&checkpointer, u32::try_from(rows).unwrap());
        checkpointer.handle(START, CheckpointJob::Fold(batch));
        checkpointer.work(START).unwrap();
        assert_eq!(checkpointer.work(START).unwrap(), None, "not at once: a start is busy enough");
        let mut slices = 0;
        let sound = loop {
            let now = checkpointer.poll_timeout();
            let Some(CheckpointWork::Scrub { finished }) = checkpointer.work(now).unwrap() else {
                panic!("a slice is due");
            };
            slices += 1;
            let pause = if finished.is_some() { SCRUB_REST } else { SCRUB_PAUSE };
            assert_eq!(checkpointer.poll_timeout(), now + pause);
            if let Some(rows) = finished {
                break rows;
            }
            assert!(checkpointer.scrub.rows <= slices * SCRUB_SLICE);
        };
        // Two tables of one slice and a row, and an empty one.
        assert_eq!((slices, sound), (5, 2 * rows));
        assert_eq!(checkpointer.scrub.cursor, ScrubCursor::default());
    }
}
