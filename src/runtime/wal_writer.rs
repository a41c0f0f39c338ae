//! The wal thread: the log's disk, and nothing else, so that only batches wait for it.
//!
//! Owns: when `node::LogWriter` gets its turns, and the waiting for room on a full disk. Must never: go on after one that failed otherwise. Driven by its queue.

use std::time::Duration;

use futures_channel::oneshot;

use super::Drained;
use super::checkpoint::CheckpointInput;
use super::threads::{Context, CoreInput, Fault};
use crate::disk::Directory;
use crate::node::{LogJob, LogWriter};
use crate::wal::WalError;

/// How often is tried whether a full disk has room again.
const ROOM_LOOK: Duration = Duration::from_millis(500);

/// What the wal thread is told.
pub(super) enum WalInput {
    Job(LogJob),
    /// Say so once all that came before is done, or waits for room.
    Pulse(oneshot::Sender<()>),
}

/// The thread's work.
pub(super) fn run<D: Directory>(mut writer: LogWriter<D>, context: &Context) -> Result<(), Fault> {
    let queue = &context.queues.wal;
    let (mut inputs, mut pulses) = (Vec::new(), Vec::new());
    let mut waits_for_room = false;
    loop {
        if queue.drain(&mut inputs, waits_for_room.then_some(ROOM_LOOK)) == Drained::Closed {
            return Ok(());
        }
        for input in inputs.drain(..) {
            match input {
                WalInput::Job(job) => writer.handle(job),
                WalInput::Pulse(answer) => pulses.push(answer),
            }
        }
        let waited = waits_for_room;
        waits_for_room = write(&mut writer, context)?;
        if waits_for_room && context.shared.space.take_reserve() {
            waits_for_room = write(&mut writer, context)?;
        }
        match (waited, waits_for_room) {
            (false, true) => {
                tracing::error!("the disk is full: the log waits for room, and all writes with it");
                context.shared.space.set_log_waits(true);
                drop(context.queues.checkpoint.send(CheckpointInput::LogWaits));
            }
            (true, false) => {
                context.shared.space.set_log_waits(false);
                tracing::info!("the log has room again");
            }
            _ => {}
        }
        for answer in pulses.drain(..) {
            // Whoever asked may have gone.
            let _ = answer.send(());
        }
        // A batch that comes meanwhile waits for one piece at most.
        while !waits_for_room && queue.is_empty() && writer.rest()? {}
    }
}

/// Writes and syncs all that waits; whether some of it goes on waiting, for room. Nothing of that is acknowledged.
fn write<D: Directory>(writer: &mut LogWriter<D>, context: &Context) -> Result<bool, WalError> {
    let clock = context.shared.clock;
    let mut written_bytes = writer.usage().appended_bytes;
    loop {
        let begins = clock.now();
        match writer.write() {
            Ok(true) => context.metrics.wal_write.observe(clock.now().since(begins)),
            Ok(false) => return Ok(false),
            Err(WalError::Full { .. }) if writer.make_room()? => continue,
            Err(WalError::Full { .. }) => return Ok(true),
            Err(error) => return Err(error),
        }
        let began = clock.now();
        let durable = writer.sync()?;
        context.metrics.wal_fsync.observe(clock.now().since(began));
        let appended_bytes = writer.usage().appended_bytes;
        context.metrics.wal_written_bytes.add(appended_bytes - written_bytes);
        written_bytes = appended_bytes;
        drop(durable.map(|id| context.shared.core.send(CoreInput::Persisted(id))));
    }
}
