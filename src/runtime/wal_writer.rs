//! The wal thread: everything that waits becomes one write and one sync.
//!
//! Owns: the log on disk while the node runs, and the merging of batches. Must never: report a batch before its sync has succeeded, or go
//! on after a failed one. Driven by its queue.

use super::threads::{Context, CoreInput, Fault};
use super::{Drained, Mailbox};
use crate::consensus::{Persist, PersistId};
use crate::disk::Directory;
use crate::ids::LogIndex;
use crate::limits::WAL_BATCH_BYTES;
use crate::wal::{Batch, HardState, LogEntry, Wal};

/// What the wal thread is asked for.
pub(super) enum WalJob {
    /// Make this durable.
    Persist(Persist),
    /// Entries before this one are not needed any more.
    Cut { before: LogIndex },
}

/// Persists that are written together: they follow one another without a gap, so that one batch holds them all.
#[derive(Default)]
struct Merged {
    hard_state: Option<HardState>,
    entries: Vec<LogEntry>,
    bytes: usize,
    last: Option<PersistId>,
}

impl Merged {
    /// Whether `next` can join: its entries continue these, and together they are no larger than a batch should be.
    fn takes(&self, next: &Persist) -> bool {
        let (Some(last), Some(first)) = (self.entries.last(), next.entries.first()) else { return true };
        let more: usize = next.entries.iter().map(|entry| entry.data.len()).sum();
        first.index == last.index.next() && self.bytes + more <= WAL_BATCH_BYTES
    }

    fn add(&mut self, next: Persist) {
        self.hard_state = next.hard_state.or(self.hard_state);
        self.bytes += next.entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        if self.entries.is_empty() {
            self.entries = next.entries;
        } else {
            self.entries.extend(next.entries);
        }
        self.last = Some(next.id);
    }
}

/// The thread's work.
pub(super) fn run<D: Directory>(mut wal: Wal<D>, context: &Context) -> Result<(), Fault> {
    let queue: &Mailbox<WalJob> = &context.queues.wal;
    let mut jobs = Vec::new();
    loop {
        if queue.drain(&mut jobs, None) == Drained::Closed {
            return Ok(());
        }
        let mut merged = Merged::default();
        let mut cut = None;
        for job in jobs.drain(..) {
            match job {
                WalJob::Persist(persist) => {
                    if !merged.takes(&persist) {
                        write(&mut wal, std::mem::take(&mut merged), context)?;
                    }
                    merged.add(persist);
                }
                WalJob::Cut { before } => cut = Some(before),
            }
        }
        write(&mut wal, merged, context)?;
        if let Some(before) = cut {
            wal.cut(before)?;
        }
        // The next segment is filled with zeros while nobody waits for it, not when a batch finds that there is none.
        if queue.is_empty() {
            wal.prepare()?;
        }
    }
}

fn write<D: Directory>(wal: &mut Wal<D>, merged: Merged, context: &Context) -> Result<(), Fault> {
    let Some(last) = merged.last else { return Ok(()) };
    let before = wal.usage().appended_bytes;
    let batch = Batch { hard_state: merged.hard_state, entries: &merged.entries };
    wal.append(batch)?;
    let clock = context.shared.clock;
    let began = clock.now();
    // Nothing of the batch is acknowledged before this returns: a crash until here loses only what nobody was told of.
    wal.sync()?;
    context.metrics.wal_fsync.observe(clock.now().since(began));
    context.metrics.wal_written_bytes.add(wal.usage().appended_bytes - before);
    drop(context.shared.core.send(CoreInput::Persisted(last)));
    Ok(())
}
