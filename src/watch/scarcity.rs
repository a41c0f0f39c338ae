//! Memory for events when it is short.
//!
//! Owns: how much a stream is given then, and who waits for memory instead of its reader. Must never: let readers that take nothing stop
//! one that does for as long as there is memory, or let many of them together take more than what is small for each. Driven by the hub.
//!
//! ```text
//! counted:  0 ──────────── queued_bytes ─────────── twice that ───────►
//!           as streams like │ one response a stream, │ only what is small, or is there for others already;
//!                           │ of small slices        │ who has something large to come waits until there is less
//! ```
//!
//! Who waits is lined up again once memory was given back. Nobody tells the hub of that, so it looks from time to time.

use std::sync::Arc;
use std::time::Duration;

use super::batch::Batch;
use super::hub::Hub;
use super::outlet::Room;
use super::scan::SliceBounds;
use crate::time::Instant;

/// How often to look whether there is memory for those that wait for it.
const LOOK: Duration = Duration::from_millis(20);
/// Slices are so much smaller than what counts as small that the last event seldom makes one large.
const SMALL_PARTS: usize = 4;

impl Hub {
    /// Whether events wait in all streams together that take more memory than they may.
    fn is_scarce(&self) -> bool {
        self.budget.used() > self.options.limits.queued_bytes
    }

    fn is_exhausted(&self, used: usize) -> bool {
        used > self.options.limits.queued_bytes.saturating_mul(2)
    }

    /// What a stream may have in its queue now. While memory is scarce, what already waits elsewhere must not stop a reader that has
    /// taken everything, or those that never read would stop all the others.
    pub(super) fn room(&self) -> Room {
        if self.is_scarce() { Room::ONE } else { self.small_room() }
    }

    /// The same for messages without events.
    pub(super) fn small_room(&self) -> Room {
        let limits = &self.options.limits;
        Room { responses: limits.stream_responses, bytes: limits.stream_bytes }
    }

    pub(super) fn slice_bounds(&self) -> SliceBounds {
        let limits = &self.options.limits;
        let bytes = if self.is_exhausted(self.budget.used()) {
            limits.small_bytes / SMALL_PARTS
        } else if self.is_scarce() {
            limits.scarce_slice_bytes
        } else {
            limits.slice_bytes
        };
        SliceBounds { revisions: limits.slice_revisions, rows: limits.slice_rows, bytes }
    }

    /// Whether there is memory for a batch that was just made, or given to others already.
    pub(super) fn has_memory(&self, batch: &Arc<Batch>) -> bool {
        let shared = Arc::strong_count(batch) > 1;
        shared
            || batch.bytes() <= self.options.limits.small_bytes
            || !self.is_exhausted(self.budget.used().saturating_sub(batch.bytes()))
    }

    /// A stream is not brought forward until there is memory for what comes next.
    pub(super) fn starve(&mut self, slot: u32) {
        self.unready(slot);
        let stream = &mut self.streams[slot];
        if !stream.starved {
            stream.starved = true;
            stream.turn = self.turn;
            self.turn += 1;
            self.starved.insert((stream.turn, slot));
        }
    }

    /// Takes a stream out of those that wait for memory.
    pub(super) fn unstarve(&mut self, slot: u32) {
        let stream = &mut self.streams[slot];
        if std::mem::take(&mut stream.starved) {
            self.starved.remove(&(stream.turn, slot));
        }
    }

    /// Lines those up again that wait for memory, in their order, if there is any.
    pub(super) fn feed(&mut self, now: Instant) {
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = None;
        }
        if self.is_exhausted(self.budget.used()) {
            return;
        }
        for (_, slot) in std::mem::take(&mut self.starved) {
            self.streams[slot].starved = false;
            self.refresh(slot);
        }
    }

    /// Sees to it that there is a look when somebody waits.
    pub(super) fn look_later(&mut self, now: Instant) {
        self.look_at = if self.starved.is_empty() { None } else { self.look_at.or(Some(now + LOOK)) };
    }
}
