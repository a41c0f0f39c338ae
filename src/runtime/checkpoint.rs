//! The checkpoint thread: the only writer of the store, and the one that looks whether its rows are still what was written.
//!
//! Owns: the store while the node runs, and the turns between folds and compaction. Must never: let a fold wait for more than one
//! slice of compaction. Driven by its queue.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Drained;
use super::hold::{Grant, Holds};
use super::threads::{ApplierInput, Context, CoreInput, Fault};
use crate::limits::{COMPACTION_PAUSE, COMPACTION_SLICE, SCRUB_PAUSE, SCRUB_REST, SCRUB_SLICE};
use crate::store::{FoldBatch, ScrubCursor, Store};
use crate::time::Instant;

/// What the checkpoint thread is asked for.
pub(super) enum CheckpointJob {
    /// Commit a frozen generation.
    Fold(FoldBatch),
    /// Begin to remove what compaction left over.
    Compact,
    /// Stop removing until the reader is done.
    Hold(Grant),
}

/// The thread's work.
pub(super) fn run(mut store: Store, context: &Context) -> Result<(), Fault> {
    let mut jobs = Vec::new();
    let mut compacting = false;
    let mut holds = Holds::new(context.shared.clock);
    let mut held = false;
    let mut scrub = Scrub::new(context.shared.clock.now());
    loop {
        let patience = match (compacting, held) {
            (true, true) => Holds::LOOK,
            (true, false) => COMPACTION_PAUSE,
            (false, _) => context.shared.clock.until(scrub.next_slice),
        };
        if context.queues.checkpoint.drain(&mut jobs, Some(patience)) == Drained::Closed {
            return Ok(());
        }
        for job in jobs.drain(..) {
            match job {
                CheckpointJob::Fold(batch) => fold(&mut store, &batch, context)?,
                CheckpointJob::Compact => compacting = true,
                CheckpointJob::Hold(grant) => holds.ask(grant, &context.queues),
            }
        }
        if compacting {
            held = !holds.allow_removal();
            if !held && compact(&mut store, context)? {
                compacting = false;
                holds.removal_finished(&context.queues);
            }
        }
        scrub.run_if_due(&store, context.shared.clock.now())?;
    }
}

/// A slow walk over all rows, again and again: what rots where nobody reads is found before it is needed.
struct Scrub {
    cursor: ScrubCursor,
    rows: usize,
    next_slice: Instant,
}

impl Scrub {
    fn new(now: Instant) -> Self {
        Self { cursor: ScrubCursor::default(), rows: 0, next_slice: now + SCRUB_PAUSE }
    }

    /// Checks a slice when its time has come. Damage ends the node: an answer could be wrong from here on.
    fn run_if_due(&mut self, store: &Store, now: Instant) -> Result<(), Fault> {
        if now < self.next_slice {
            return Ok(());
        }
        let progress = store.scrub_slice(std::mem::take(&mut self.cursor), SCRUB_SLICE)?;
        self.rows += progress.rows;
        let pause = if let Some(next) = progress.next {
            self.cursor = next;
            SCRUB_PAUSE
        } else {
            tracing::debug!(rows = self.rows, "all rows of the store are sound");
            self.rows = 0;
            SCRUB_REST
        };
        self.next_slice = now + pause;
        Ok(())
    }
}

fn fold(store: &mut Store, batch: &FoldBatch, context: &Context) -> Result<(), Fault> {
    let clock = context.shared.clock;
    let began = clock.now();
    store.fold(batch)?;
    let took = clock.now().since(began);
    context.metrics.backend_commit.observe(took);
    context.shared.file_bytes.store(store.file_bytes(), Ordering::Relaxed);
    tracing::debug!(
        changes = batch.changes.len(),
        applied = batch.meta.applied.0,
        took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "folded the overlay into the store"
    );
    drop(context.queues.applier.send(ApplierInput::Folded(Arc::new(store.base()?))));
    // Only now may the log lose what the fold covers: it is durable in the store.
    drop(context.shared.core.send(CoreInput::Checkpointed(batch.meta.applied)));
    Ok(())
}

/// One slice; whether it was the last.
fn compact(store: &mut Store, context: &Context) -> Result<bool, Fault> {
    let progress = store.compact_slice(COMPACTION_SLICE)?;
    let base = store.base()?;
    let reached = u64::try_from(base.meta().compaction_finished.0).unwrap_or(0);
    drop(context.queues.applier.send(ApplierInput::Compacted(Arc::new(base))));
    context.shared.file_bytes.store(store.file_bytes(), Ordering::Relaxed);
    context.shared.compacted.reach(reached);
    if progress.finished {
        tracing::info!(revision = reached, "finished scheduled compaction");
    }
    Ok(progress.finished)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::ids::{LeaseId, LogIndex, MemberId, Revision, VersionId};
    use crate::store::{Change, ChangeKind, StoreOptions};

    #[test]
    fn a_scrub_walks_in_slices_with_pauses_and_then_rests() {
        let (mut meta, _) = crate::formation::first_state(MemberId(1));
        let mut store = Store::open(InMemoryBackend::new(), StoreOptions::default()).unwrap();
        store.initialise(&meta).unwrap();
        let rows = SCRUB_SLICE + 1;
        let main = Revision(2);
        let change = |sub: u32| {
            let kind = ChangeKind::Put {
                value: Bytes::new(),
                create_revision: main,
                version: 1,
                lease: LeaseId::NONE,
            };
            (VersionId { main, sub }, Change { key: Bytes::from(sub.to_be_bytes().to_vec()), kind })
        };
        meta.applied = LogIndex(2);
        meta.revision = main;
        let changes = (0..u32::try_from(rows).unwrap()).map(change).collect();
        store.fold(&FoldBatch { changes, meta }).unwrap();

        let mut now = Instant(1);
        let mut scrub = Scrub::new(now);
        scrub.run_if_due(&store, now).unwrap();
        assert_eq!(scrub.rows, 0, "not at once: a start is busy enough");
        let mut slices = 0;
        loop {
            now = scrub.next_slice;
            scrub.run_if_due(&store, now).unwrap();
            slices += 1;
            if scrub.next_slice == now + SCRUB_REST {
                break;
            }
            assert_eq!(scrub.next_slice, now + SCRUB_PAUSE);
            assert!(scrub.rows <= slices * SCRUB_SLICE);
        }
        // Two tables of one slice and a row, and an empty one.
        assert_eq!(slices, 5);
        assert_eq!(scrub.cursor, ScrubCursor::default());
    }
}
