//! The wal thread: the log's disk, and nothing else, so that only batches wait for it.
//!
//! Owns: when `node::LogWriter` gets its turns. Must never: go on after a failed one. Driven by its queue.

use futures_channel::oneshot;

use super::Drained;
use super::threads::{Context, CoreInput, Fault};
use crate::disk::Directory;
use crate::node::{LogJob, LogWriter};

/// What the wal thread is told.
pub(super) enum WalInput {
    Job(LogJob),
    /// Say so once all that came before is done.
    Pulse(oneshot::Sender<()>),
}

/// The thread's work.
pub(super) fn run<D: Directory>(mut writer: LogWriter<D>, context: &Context) -> Result<(), Fault> {
    let queue = &context.queues.wal;
    let clock = context.shared.clock;
    let (mut inputs, mut pulses) = (Vec::new(), Vec::new());
    loop {
        if queue.drain(&mut inputs, None) == Drained::Closed {
            return Ok(());
        }
        for input in inputs.drain(..) {
            match input {
                WalInput::Job(job) => writer.handle(job),
                WalInput::Pulse(answer) => pulses.push(answer),
            }
        }
        let mut written_bytes = writer.usage().appended_bytes;
        while writer.write()? {
            let began = clock.now();
            let durable = writer.sync()?;
            context.metrics.wal_fsync.observe(clock.now().since(began));
            let appended_bytes = writer.usage().appended_bytes;
            context.metrics.wal_written_bytes.add(appended_bytes - written_bytes);
            written_bytes = appended_bytes;
            drop(durable.map(|id| context.shared.core.send(CoreInput::Persisted(id))));
        }
        for answer in pulses.drain(..) {
            // Whoever asked may have gone.
            let _ = answer.send(());
        }
        // A batch that comes meanwhile waits for one piece at most.
        while queue.is_empty() && writer.rest()? {}
    }
}
