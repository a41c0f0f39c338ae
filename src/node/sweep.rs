//! Entries that the store carries out, since they delete very many keys.
//!
//! Owns: when one begins, and who is told of its end. Must never: apply anything meanwhile, or let leases end because nobody could renew
//! them. Part of [`Applier`].
//!
//! An entry whose deletions would fill a generation by themselves ([`Machine::has_to_sweep`](crate::machine::Machine::has_to_sweep)) waits for the fold that is under
//! way, and is then part of the next one. Entries wait for it as they do when both generations are full.

use super::applier::{Applier, ApplierError, ApplierOutput};
use crate::command::{Applied, Envelope};
use crate::time::Instant;
use crate::wal::LogEntry;

/// An entry that is too large for a generation.
pub(super) struct Sweep {
    entry: LogEntry,
    envelope: Envelope,
    /// Since when entries wait for it.
    since: Instant,
    /// What it comes to once the store has it; unknown while it waits for a fold.
    applied: Option<Applied>,
}

impl Sweep {
    /// The entry, which is not applied.
    pub(super) fn into_entry(self) -> LogEntry {
        self.entry
    }
}

impl Applier {
    /// Sets an entry aside until it can be handed to the store.
    pub(super) fn plan_sweep(&mut self, entry: LogEntry, envelope: Envelope) {
        self.sweep = Some(Sweep { entry, envelope, since: self.now, applied: None });
    }

    /// Hands it to the store, if nothing is being folded; whether there was one.
    pub(super) fn begin_sweep(&mut self) -> Result<bool, ApplierError> {
        if self.folding {
            return Ok(false);
        }
        let Some(mut sweep) = self.sweep.take_if(|sweep| sweep.applied.is_none()) else { return Ok(false) };
        let LogEntry { index, term, .. } = sweep.entry;
        let (batch, applied) = self
            .machine
            .begin_sweep(index, term, &sweep.envelope, self.answer_for(sweep.envelope.id))
            .map_err(|cause| ApplierError::Store { index, cause })?;
        sweep.applied = Some(applied);
        self.sweep = Some(sweep);
        self.folding = true;
        self.unfolded_bytes = 0;
        self.outputs.push_back(ApplierOutput::Fold(batch));
        Ok(true)
    }

    /// A fold is in the store, and with it the entry, if it was part of it.
    pub(super) fn end_sweep(&mut self) {
        let Some(sweep) = self.sweep.take_if(|sweep| sweep.applied.is_some()) else { return };
        self.note_applied(&sweep.entry);
        self.note_digest();
        // Renewals have waited for the state, like everybody.
        self.lessor.postpone(self.now, self.now.since(sweep.since));
        let Some(applied) = sweep.applied else { return };
        let Envelope { id, command, .. } = sweep.envelope;
        self.note_outcome(&command, &applied);
        let reply = self.is_ours(id).then_some((id, applied));
        self.publish(reply.into_iter().collect());
    }
}
