//! Telling quiet watchers from time to time how far they are.
//!
//! Owns: when. Must never: name a revision that a watcher has not been told all of. Driven by the hub's driver.

use super::hub::Hub;
use super::watcher::State;
use super::{Message, Response};
use crate::time::Instant;

/// One in so many parts of the interval is added at random, so that streams which began together do not stay together.
const JITTER_PARTS: u32 = 10;

impl Hub {
    /// When there must be a turn.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let tick = self.ticks.first().map(|(at, _)| *at);
        [tick, self.look_at].into_iter().flatten().min()
    }

    /// Tells those whose time has come, up to the view that the hub has advanced to.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, slot)) = self.ticks.first().copied()
            && at <= now
        {
            self.tick(now, slot);
            self.streams[slot].telling = Some(i64::MIN);
            self.tell_progress(slot);
        }
    }

    /// Goes on telling the watchers of a stream, until all are told or the stream has no room.
    pub(super) fn tell_progress(&mut self, slot: u32) {
        let mut next = self.streams[slot].telling;
        while let Some(from) = next
            && let Some((id, number)) = self.streams[slot].watchers.range(from..).next()
        {
            let (watch_id, number) = (*id, *number);
            let watcher = &self.watchers[number];
            let quiet = !watcher.told && matches!(watcher.state, State::Synced { .. });
            let response = Response { watch_id, revision: self.revision, message: Message::Progress };
            if watcher.progress_notify && quiet && !self.offer(slot, response, self.small_room()) {
                self.streams[slot].telling = Some(watch_id);
                return;
            }
            self.watchers[number].told = false;
            next = watch_id.checked_add(1);
        }
        self.streams[slot].telling = None;
    }

    /// A stream has a watcher more that wants to be told.
    pub(super) fn start_ticking(&mut self, now: Instant, slot: u32) {
        self.streams[slot].notified += 1;
        if self.streams[slot].tick.is_none() {
            self.tick(now, slot);
        }
    }

    /// A stream has one less.
    pub(super) fn stop_ticking(&mut self, slot: u32) {
        let stream = &mut self.streams[slot];
        stream.notified -= 1;
        if stream.notified == 0
            && let Some(at) = stream.tick.take()
        {
            self.ticks.remove(&(at, slot));
        }
    }

    fn tick(&mut self, now: Instant, slot: u32) {
        let interval = self.options.progress_interval;
        let jitter = u64::try_from((interval / JITTER_PARTS).as_nanos()).unwrap_or(u64::MAX);
        let at = now + interval + std::time::Duration::from_nanos(self.random.range(0, jitter.max(1)));
        if let Some(before) = self.streams[slot].tick.replace(at) {
            self.ticks.remove(&(before, slot));
        }
        self.ticks.insert((at, slot));
    }
}
