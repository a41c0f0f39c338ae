//! The checkpoint thread: the store's disk, and nothing else, so that neither log nor state waits for it.
//!
//! Owns: when `node::Checkpointer` gets its turns, and the looks at where the data directory is. Must never: go on after a failed one. Driven by its queue.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Drained;
use super::clock::unix_seconds;
use super::hold::{Grant, Holds};
use super::space::Change;
use super::threads::{ApplierInput, Context, CoreInput, Fault};
use super::whereabouts::Lookout;
use crate::disk::Directory;
use crate::ids::MemberId;
use crate::limits::{DIRECTORY_LOOK, FOLD_ROOM_BYTES};
use crate::node::{CheckpointJob, CheckpointOutput, CheckpointWork, Checkpointer, TransferMessage};
use crate::time::Instant;
use crate::wal::Position;

/// What the checkpoint thread is asked for.
pub(super) enum CheckpointInput {
    Job(CheckpointJob),
    /// Something of a transfer has come.
    Transfer {
        from: MemberId,
        message: TransferMessage,
        /// Dropped once it is taken.
        hold: Box<dyn Send>,
    },
    /// Stop removing until the reader is done.
    Hold(Grant),
    /// Look how much room the disk has.
    Look,
    /// The log of this member waits for room.
    LogWaits,
}

/// How often is looked whether a disk without room has some again.
const ROOM_LOOK: Duration = Duration::from_secs(1);

/// The thread's work.
pub(super) fn run<D: Directory>(
    mut checkpointer: Checkpointer<D>,
    mut lookout: Option<Lookout>,
    context: &Context,
) -> Result<(), Fault> {
    let clock = context.shared.clock;
    let mut jobs = Vec::new();
    let mut holds = Holds::new(clock);
    let mut patience = Duration::ZERO;
    let (mut room, mut removal) = (Room { asked: true, hands_on: false }, Removal::default());
    let mut next_check = clock.now() + DIRECTORY_LOOK;
    loop {
        // One piece of work at a time, and what has come meanwhile in between: a fold does not wait for more than a slice.
        if context.queues.checkpoint.drain(&mut jobs, Some(patience)) == Drained::Closed {
            return Ok(());
        }
        for job in jobs.drain(..) {
            match job {
                CheckpointInput::Job(job) => checkpointer.handle(clock.now(), job)?,
                CheckpointInput::Transfer { from, message, hold } => {
                    checkpointer.handle(clock.now(), CheckpointJob::Receive(from, message))?;
                    drop(hold);
                }
                CheckpointInput::Hold(grant) => holds.ask(grant, &context.queues),
                CheckpointInput::Look => room.asked = true,
                CheckpointInput::LogWaits => (room.asked, room.hands_on) = (true, true),
            }
        }
        if let Some(lookout) = &mut lookout
            && clock.now() >= next_check
        {
            lookout.look()?;
            next_check = clock.now() + DIRECTORY_LOOK;
        }
        let full = room.look(&checkpointer, context);
        checkpointer.hold_writes(full);
        let target = checkpointer.store().meta().compacted;
        let held = checkpointer.wants_to_remove()
            && (context.shared.watches.needs(target) || !holds.allow_removal());
        checkpointer.hold_removal(held);
        let began = clock.now();
        patience = match checkpointer.work(began)? {
            Some(work) => {
                if let CheckpointWork::Install { .. } = work {
                    // Before anybody can be shown the new state.
                    holds.lose_all();
                }
                removal.note(&work, began, context);
                note(work, clock.now().since(began), context);
                context.shared.file_bytes.store(checkpointer.store().file_bytes(), Ordering::Relaxed);
                Duration::ZERO
            }
            None if held => clock.until(checkpointer.poll_timeout()).min(Holds::LOOK),
            None => clock.until(checkpointer.poll_timeout()),
        };
        if full || context.shared.space.is_short() {
            patience = patience.min(ROOM_LOOK);
        }
        if lookout.is_some() {
            patience = patience.min(clock.until(next_check));
        }
        while let Some(output) = checkpointer.poll_output() {
            carry_out(output, context);
        }
        if !checkpointer.wants_to_remove() {
            holds.removal_finished(&context.queues);
        }
    }
}

/// What is done about the room on the disk.
struct Room {
    /// Somebody wants to know.
    asked: bool,
    /// This member has led when room became short, and does still.
    hands_on: bool,
}

impl Room {
    /// Looks, if asked to or where it matters; whether there is too little for the store to write anything.
    fn look<D: Directory>(&mut self, checkpointer: &Checkpointer<D>, context: &Context) -> bool {
        let space = &context.shared.space;
        let data_bytes = checkpointer.store().bytes_in_use();
        let wants_to_write = checkpointer.wants_to_write();
        if std::mem::take(&mut self.asked) || wants_to_write || space.is_short() {
            match space.look(data_bytes) {
                Some(Change::Short { room }) => {
                    tracing::warn!(
                        room,
                        "the disk is nearly full: puts are refused until there is room again"
                    );
                    self.hands_on = true;
                }
                Some(Change::Enough { room }) => {
                    tracing::info!(room, "the disk has room again");
                    self.hands_on = false;
                }
                None => {}
            }
        }
        // Once the log of a leader stops, everybody's writes wait, and the others may have room. Who is elected all the same keeps it: the others have none either.
        self.hands_on &= context.shared.leads();
        if self.hands_on {
            drop(context.shared.core.send(CoreInput::LetAnotherLead));
        }
        wants_to_write && !space.has_room(FOLD_ROOM_BYTES, data_bytes)
    }
}

fn carry_out(output: CheckpointOutput, context: &Context) {
    match output {
        CheckpointOutput::Folded(base) => drop(context.queues.applier.send(ApplierInput::Folded(base))),
        CheckpointOutput::Checkpointed(applied) => {
            drop(context.shared.core.send(CoreInput::Checkpointed(applied)));
        }
        CheckpointOutput::Compacted(base) => {
            drop(context.queues.applier.send(ApplierInput::Compacted(base)));
        }
        CheckpointOutput::Installed(base) => {
            let meta = base.meta();
            let position = Position { index: meta.applied, term: meta.applied_term };
            // What was removed there needs no removal here, whoever waits for it.
            let finished = u64::try_from(meta.compaction_finished.0).unwrap_or(0);
            context.shared.compacted.reach(finished);
            // The applier first: what the core hands it from then on continues the new state.
            drop(context.queues.applier.send(ApplierInput::Installed(base)));
            drop(context.shared.core.send(CoreInput::Installed(position)));
        }
        CheckpointOutput::Staged(mark) => drop(context.shared.core.send(CoreInput::Staged(mark))),
        CheckpointOutput::Contested => drop(context.shared.core.send(CoreInput::Contested)),
        CheckpointOutput::Transferred(to, outcome) => {
            drop(context.shared.core.send(CoreInput::Transferred(to, Box::new(outcome))));
        }
        CheckpointOutput::Send(to, message) => context.shared.peers.transfer(to, message),
        CheckpointOutput::Removed(revision) => {
            context.shared.compacted.reach(u64::try_from(revision.0).unwrap_or(0));
        }
    }
}

/// Since when the store removes what was compacted.
#[derive(Default)]
struct Removal(Option<Instant>);

impl Removal {
    fn note(&mut self, work: &CheckpointWork, began: Instant, context: &Context) {
        let finished_since = self.finished(work, began);
        if !matches!(work, CheckpointWork::Slice { .. }) {
            return;
        }
        let (metrics, now) = (&context.metrics, context.shared.clock.now());
        metrics.compaction_pauses.observe(now.since(began));
        if let Some(since) = finished_since {
            metrics.compactions.observe(now.since(since));
            metrics.compacted_at.set(unix_seconds());
        }
    }

    /// Since when what this work has finished went on.
    fn finished(&mut self, work: &CheckpointWork, began: Instant) -> Option<Instant> {
        match work {
            CheckpointWork::Slice { finished } => {
                self.0.get_or_insert(began);
                finished.and_then(|_| self.0.take())
            }
            // What was removed went with the old state, and is never finished.
            CheckpointWork::Install { .. } => {
                self.0 = None;
                None
            }
            _ => None,
        }
    }
}

fn note(work: CheckpointWork, took: Duration, context: &Context) {
    match work {
        CheckpointWork::Fold { changes, applied } => {
            context.metrics.backend_commit.observe(took);
            tracing::debug!(
                changes,
                applied = applied.0,
                took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                "folded the overlay into the store"
            );
        }
        CheckpointWork::Slice { finished: Some(revision) } => {
            tracing::info!(revision = revision.0, "finished scheduled compaction");
        }
        CheckpointWork::Scrub { finished: Some(rows) } => {
            tracing::debug!(rows, "all rows of the store are sound");
        }
        CheckpointWork::Install { applied } => {
            tracing::info!(
                applied = applied.0,
                "the state of another member has taken the place of this one's"
            );
        }
        CheckpointWork::Piece
        | CheckpointWork::Slice { finished: None }
        | CheckpointWork::Scrub { finished: None } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{LogIndex, Revision};

    /// The state of another member came while something was removed; the next removal took as long as it was since then.
    #[test]
    fn a_removal_that_ends_with_the_old_state_is_not_that_of_the_new() {
        let at = |seconds| Instant::default() + Duration::from_secs(seconds);
        let slice = |finished: Option<i64>| CheckpointWork::Slice { finished: finished.map(Revision) };
        let mut removal = Removal::default();
        assert_eq!(removal.finished(&slice(None), at(1)), None);
        assert_eq!(removal.finished(&slice(Some(5)), at(2)), Some(at(1)));
        assert_eq!(removal.finished(&slice(None), at(3)), None);
        assert_eq!(removal.finished(&CheckpointWork::Install { applied: LogIndex(9) }, at(4)), None);
        assert_eq!(removal.finished(&slice(Some(7)), at(60)), Some(at(60)));
    }
}
