//! A disk that answers nothing any more: what is told of it, and who leads instead.
//!
//! Owns: when that is so. Must never: take a disk for stuck that is only slow, or give up a lead that nobody else can take. Part of [`Core`].
//!
//! A leader needs its own disk for nothing that raft asks of it, as long as the others are a majority: its heartbeats go on, and what they have on
//! their disks is committed. But it applies nothing that its own disk has not, so that nobody who has asked it for a write is answered. The transfer needs
//! no disk but those of the others. Afterwards it keeps to itself until its disk answers: its votes, and the questions whether others
//! would vote for it, wait for that ([`Consensus::poll_ready`](crate::consensus::Consensus::poll_ready)).

use super::core::{Core, CoreOutput};
use crate::consensus::PersistId;
use crate::ids::MemberId;
use crate::limits::DISK_STUCK;
use crate::time::Instant;

/// What was told of the disk last.
#[derive(Debug, Default)]
pub(super) struct Stall {
    /// What it was to write first, and whether another member was to lead for that.
    told: Option<(PersistId, Option<MemberId>)>,
}

impl Core {
    /// Until when the disk has time to answer; `None` where it owes nothing, or that time is over.
    pub(super) fn disk_deadline(&self) -> Option<Instant> {
        let deadline = self.consensus.awaits_disk_since()? + DISK_STUCK;
        (deadline > self.now).then_some(deadline)
    }

    /// Tells of a disk that is stuck, and lets another member lead that can do without.
    pub(super) fn look_after_disk(&mut self) {
        let consensus = &self.consensus;
        let Some((since, batch)) = consensus.awaits_disk_since().zip(consensus.first_unsynced()) else {
            return;
        };
        let waited = self.now.since(since);
        if waited < DISK_STUCK {
            return;
        }
        let heirs = self.consensus.ahead_of_disk();
        let waits_to_hand_on = !heirs.is_empty();
        let heir = self.hand_on_to(heirs);
        let news = match self.stall.told.filter(|(told, _)| *told == batch) {
            None => heir.is_some() || !waits_to_hand_on,
            Some((_, before)) => before.is_none() && heir.is_some(),
        };
        if news {
            self.stall.told = Some((batch, heir));
            self.outputs.push_back(CoreOutput::DiskStuck { waited, heir });
        }
    }
}
