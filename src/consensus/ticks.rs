//! Raft's time: ticks counted from the time that calls bring along, and timeouts drawn from our own seed.
//!
//! Owns: when raft ticks, when it campaigns, and the election timeout. Must never: read a clock, or tick a member whom nobody hears.
//! Driven by every call of [`Consensus`].

use std::time::Duration;

use raft::StateRole;

use super::{Consensus, guard};
use crate::limits::{ELECTION_TIMEOUT, HEARTBEAT};
use crate::time::Instant;

/// The grain of raft's timeouts: fine enough that two members rarely draw the same election timeout.
pub(super) const TICK: Duration = Duration::from_millis(10);
pub(super) const HEARTBEAT_TICKS: usize = ticks(HEARTBEAT);
pub(super) const ELECTION_TICKS: usize = ticks(ELECTION_TIMEOUT);
/// A pause of the process counts as at most this many ticks: one election is enough to find out what happened meanwhile.
const CATCH_UP_TICKS_MAX: u64 = 2 * ELECTION_TICKS as u64;

const _: () = assert!(ELECTION_TICKS > HEARTBEAT_TICKS && HEARTBEAT_TICKS > 0);

const fn ticks(duration: Duration) -> usize {
    (duration.as_millis() / TICK.as_millis()) as usize
}

impl Consensus {
    /// Counts the ticks up to `now`; to be called at [`Consensus::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.count_ticks(now);
    }

    /// When something happens without a call. `None` for a member without peers: nobody needs its heartbeats.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let raft = &self.node.raft;
        if !self.ticks_matter() {
            return None;
        }
        let left = if raft.state == StateRole::Leader {
            let heartbeat = raft.heartbeat_timeout().saturating_sub(raft.heartbeat_elapsed());
            heartbeat.min(raft.election_timeout().saturating_sub(raft.election_elapsed))
        } else {
            self.election_ticks.saturating_sub(raft.election_elapsed)
        };
        let ticks = u32::try_from(left.max(1)).unwrap_or(u32::MAX);
        Some(self.last_tick + TICK * ticks)
    }

    fn ticks_matter(&self) -> bool {
        let raft = &self.node.raft;
        let takes_part = !self.removed && !self.is_alone() && guard::reaches_state(raft);
        takes_part && (raft.state == StateRole::Leader || raft.promotable())
    }

    pub(super) fn count_ticks(&mut self, now: Instant) {
        let passed = now.since(self.last_tick).as_nanos() / TICK.as_nanos();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        if !self.ticks_matter() || passed > CATCH_UP_TICKS_MAX {
            self.last_tick = now;
        } else {
            self.last_tick = self.last_tick + TICK * u32::try_from(passed).unwrap_or(u32::MAX);
        }
        for _ in 0..passed.min(CATCH_UP_TICKS_MAX) {
            // Who votes alone leads within the tick, and raft wants its whole log on disk then.
            let unready = guard::votes_alone(&self.node.raft) && !guard::all_persisted(&self.node.raft);
            if !self.ticks_matter() || (unready && self.node.raft.state != StateRole::Leader) {
                break;
            }
            self.node.tick();
            self.after_call();
        }
    }

    pub(super) fn campaign_if_alone(&mut self) {
        let raft = &self.node.raft;
        let ready = guard::all_persisted(raft) && guard::reaches_state(raft);
        if raft.state != StateRole::Leader && guard::votes_alone(raft) && ready {
            // Raft declines while a committed change of the configuration is not applied; `handle_applied` asks again.
            let _ = self.node.campaign();
            self.after_call();
        }
    }

    /// Raft draws its election timeout from the thread's generator whenever term or role change; ours takes its place before the next tick
    /// can look at it, so that a run is a function of its seed.
    pub(super) fn after_call(&mut self) {
        let raft = &mut self.node.raft;
        if self.drawn_for == (raft.term, raft.state) {
            raft.set_randomized_election_timeout(self.election_ticks);
        } else {
            self.drawn_for = (raft.term, raft.state);
            self.draw_election_timeout();
        }
    }

    pub(super) fn draw_election_timeout(&mut self) {
        let ticks = ELECTION_TICKS as u64;
        self.election_ticks = usize::try_from(self.prng.range(ticks, 2 * ticks)).unwrap_or(ELECTION_TICKS);
        self.node.raft.set_randomized_election_timeout(self.election_ticks);
    }
}
