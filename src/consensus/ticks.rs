//! Raft's time: ticks counted from the time that calls bring along, and timeouts drawn from our own seed.
//!
//! Owns: when raft ticks, when it campaigns, and the election timeout, which follows the gaps between the leader's words. Must never: read a clock, or tick a member whom nobody hears.
//! Driven by every call of [`Consensus`].

use std::collections::BTreeSet;
use std::time::Duration;

use raft::StateRole;

use super::{Consensus, guard};
use crate::ids::MemberId;
use crate::limits::{ELECTION_TIMEOUT_MAX, ELECTION_TIMEOUT_MIN, HEARTBEAT};
use crate::time::Instant;

/// The grain of raft's timeouts: fine enough that two members rarely draw the same election timeout.
pub(super) const TICK: Duration = Duration::from_millis(10);
/// How many times longer than the shortest election timeout a leader waits for a majority.
const LEADER_PATIENCE: u64 = 2;
/// A leader is missed after so many times the longest gap between its words that was seen lately.
const GAPS: u32 = 4;
/// A gap counts half as much after about this long.
const GAP_MEMORY: Duration = Duration::from_secs(60);
/// Who does not trust its state looks for a leader for so many of the longest timeouts before it campaigns all the same: the others come first.
const SUSPECT_PATIENCE: u32 = 4;
/// How finely the chance part of a timeout is drawn.
const CHANCES: u64 = 1024;

/// How often leaders are heard, and how soon they are missed. Members of one cluster should have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How often a leader shows that it is there.
    pub heartbeat: Duration,
    /// The shortest time without a word of the leader after which a follower looks for another one.
    pub election_min: Duration,
    /// The longest, where its words come irregularly.
    pub election_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { heartbeat: HEARTBEAT, election_min: ELECTION_TIMEOUT_MIN, election_max: ELECTION_TIMEOUT_MAX }
    }
}

impl Pace {
    pub(super) fn heartbeat_ticks(&self) -> usize {
        ticks(self.heartbeat).max(1)
    }

    /// More than a heartbeat, whatever the settings: raft insists.
    pub(super) fn election_ticks(&self) -> usize {
        ticks(self.election_min).max(self.heartbeat_ticks() + 1)
    }

    /// Beyond the longest timeout that can be drawn: each member waits between one and two of them.
    pub(super) fn election_ticks_end(&self) -> usize {
        2 * ticks(self.election_max).max(self.election_ticks()) + 1
    }

    /// Whatever the settings: not below the shortest.
    pub(super) fn longest_timeout(&self) -> Duration {
        self.election_max.max(self.election_min)
    }

    /// A pause of the process counts as at most so many ticks: one election is enough to find out what happened meanwhile.
    fn catch_up_ticks(&self) -> u64 {
        2 * self.election_ticks() as u64
    }
}

pub(super) fn ticks(duration: Duration) -> usize {
    usize::try_from(duration.as_millis() / TICK.as_millis()).unwrap_or(usize::MAX / 4)
}

/// What is left of the longest of some times after another while.
pub(super) fn faded(longest: Duration, after: Duration) -> Duration {
    let forgotten = longest.as_nanos() * after.min(GAP_MEMORY).as_nanos() / GAP_MEMORY.as_nanos();
    longest.saturating_sub(Duration::from_nanos(u64::try_from(forgotten).unwrap_or(u64::MAX)))
}

impl Consensus {
    /// Counts the ticks up to `now`; to be called at [`Consensus::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.count_ticks(now);
    }

    /// Whether this member leads and its heartbeat is due for longer than from one to the next, which is etcd's measure, too.
    pub fn is_heartbeat_late(&self, now: Instant) -> bool {
        let leads = self.node.raft.state == StateRole::Leader;
        leads && self.poll_timeout().is_some_and(|at| now.since(at) > self.pace.heartbeat)
    }

    /// When something happens without a call. `None` for a member without peers: nobody needs its heartbeats.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let raft = &self.node.raft;
        if self.waits_for_state() {
            let heard = self.last_heard();
            let forgets = (raft.leader_id != raft::INVALID_ID).then(|| heard + TICK * self.ticks_to_forget());
            return Some(forgets.unwrap_or(heard + self.suspect_patience()).max(self.last_tick + TICK));
        }
        if !self.ticks_matter() {
            return None;
        }
        let ticks = u32::try_from(self.ticks_left()).unwrap_or(u32::MAX);
        Some(self.last_tick + TICK * ticks)
    }

    /// After how many ticks something happens.
    fn ticks_left(&self) -> usize {
        let raft = &self.node.raft;
        if self.is_silenced_by_disk() {
            // Nothing does, but a pause of the process is to be told from a disk that takes its time.
            return self.pace.election_ticks();
        }
        let left = if raft.state == StateRole::Leader {
            let heartbeat = raft.heartbeat_timeout().saturating_sub(raft.heartbeat_elapsed());
            heartbeat.min(raft.election_timeout().saturating_sub(raft.election_elapsed))
        } else {
            self.election_ticks.saturating_sub(raft.election_elapsed)
        };
        left.max(1)
    }

    fn ticks_matter(&self) -> bool {
        let raft = &self.node.raft;
        let takes_part = !self.removed && !self.is_alone() && guard::reaches_state(raft);
        takes_part && (raft.state == StateRole::Leader || raft.promotable())
    }

    pub(super) fn count_ticks(&mut self, now: Instant) {
        self.now = now;
        let passed = now.since(self.last_tick).as_nanos() / TICK.as_nanos();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        // Who was to be woken only after that has missed nothing, even if it was a little late.
        let most = self.pace.catch_up_ticks().max((self.ticks_left() + self.pace.election_ticks()) as u64);
        let paused = passed > most;
        if self.ticks_matter() && paused {
            // In a pause of the process its disk may have answered without being heard. What it had waited for before counts as it did.
            self.disk_heard = self.disk_heard + now.since(self.last_tick.max(self.disk_heard));
        }
        if !self.ticks_matter() || paused {
            self.last_tick = now;
        } else {
            self.last_tick = self.last_tick + TICK * u32::try_from(passed).unwrap_or(u32::MAX);
        }
        if self.waits_for_state() {
            self.wait_for_leader(now);
            return;
        }
        if self.suspect {
            // Whoever follows it has its time.
            (self.began, self.heard) = (now, None);
        }
        let counted = if paused { self.pace.catch_up_ticks() } else { passed };
        for _ in 0..counted {
            // Who votes alone leads within the tick, and raft wants its whole log on disk then.
            let unready = guard::votes_alone(&self.node.raft) && !self.all_persisted();
            let still = !self.ticks_matter() || self.is_silenced_by_disk();
            if still || (unready && self.node.raft.state != StateRole::Leader) {
                break;
            }
            if !self.wait_for_votes() {
                self.node.tick();
                self.note_own_campaign();
            }
            self.be_patient();
            self.after_call();
        }
    }

    /// Whether this member leaves it to others to lead, because of its state.
    fn waits_for_state(&self) -> bool {
        self.suspect && !self.removed && self.node.raft.state == StateRole::Follower
    }

    /// Who does not trust its state does not campaign while others may. But it votes, and against a leader that others have lost it must not hold on
    /// to that one; and it may be the only one with the whole log. So after a long time without any leader it does campaign, to bring
    /// the others what they lack and hand over (`node::serving`).
    fn wait_for_leader(&mut self, now: Instant) {
        let silence = now.since(self.last_heard());
        let forgets = self.ticks_to_forget();
        let raft = &mut self.node.raft;
        if silence >= TICK * forgets && raft.leader_id != raft::INVALID_ID {
            let term = raft.term;
            raft.become_follower(term, raft::INVALID_ID);
        }
        if silence >= self.suspect_patience() {
            // A candidacy that comes to nothing, or cannot be, is not tried again at once.
            (self.began, self.heard) = (now, None);
            let raft = &self.node.raft;
            let may_campaign = guard::check_may_campaign(raft, self.all_persisted()).is_ok();
            if raft.leader_id == raft::INVALID_ID && raft.promotable() && may_campaign {
                // Declined where a change of the configuration is not applied.
                let _ = self.node.campaign();
            }
        }
        self.after_call();
    }

    /// When a leader was last heard, or this member began to look for one.
    fn last_heard(&self) -> Instant {
        self.heard.map_or(self.began, |(_, at)| at)
    }

    fn suspect_patience(&self) -> Duration {
        self.pace.longest_timeout() * SUSPECT_PATIENCE
    }

    /// How long raft waits for a voter that leadership is handed to: an election timeout, of which a leader counts only some of the ticks.
    pub fn hand_over_max(&self) -> Duration {
        self.pace.election_min * u32::try_from(LEADER_PATIENCE).unwrap_or(1)
    }

    /// Who has not answered a leader for so long does not answer in time: twice as long as the leader itself waits for a majority.
    pub fn silence_max(&self) -> Duration {
        self.hand_over_max() * 2
    }

    /// The members that answer this leader. `None` where this member does not lead: of the others none has to say anything to it.
    pub fn answering(&self, now: Instant) -> Option<BTreeSet<MemberId>> {
        let patience = self.silence_max();
        let lately = self.heard_from.iter().filter(|(_, at)| now.since(**at) < patience);
        let leads = !self.removed && self.node.raft.state == StateRole::Leader;
        leads.then(|| lately.map(|(member, _)| MemberId(*member)).collect())
    }

    fn ticks_to_forget(&self) -> u32 {
        u32::try_from(self.election_ticks).unwrap_or(u32::MAX)
    }

    /// A leader looks whether a majority answers. It may take its time over that: who has lost the majority commits nothing and confirms no read,
    /// whether it knows that yet or not, and a leader that steps down for a short gap costs an election. So only one of so
    /// many of its ticks counts.
    fn be_patient(&mut self) {
        let raft = &mut self.node.raft;
        if raft.state != StateRole::Leader {
            return;
        }
        self.leader_ticks += 1;
        if !self.leader_ticks.is_multiple_of(LEADER_PATIENCE) {
            raft.election_elapsed = raft.election_elapsed.saturating_sub(1);
        }
    }

    pub(super) fn campaign_if_alone(&mut self) {
        let raft = &self.node.raft;
        let ready = self.all_persisted() && guard::reaches_state(raft) && !self.suspect;
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
            if self.drawn_for.0 != raft.term || raft.leader_id != raft::INVALID_ID {
                self.candidacy.stand_again();
            }
            self.drawn_for = (raft.term, raft.state);
            self.draw_election_timeout();
        }
    }

    /// The leader of this term has said something. A link or a leader that is slow now and then is not missed at once: the time without a word
    /// after which it is grows with the gaps. Only those between two words of one leader count, for what lies between two
    /// leaders says nothing of either.
    pub(super) fn hear(&mut self, now: Instant) {
        let leader = (self.node.raft.term, self.node.raft.leader_id);
        let before = self.heard.replace((leader, now));
        if let Some((_, at)) = before.filter(|(who, _)| *who == leader) {
            let gap = now.since(at);
            let before = faded(self.longest_gap, gap);
            // A longer gap could not raise the timeout, and would take longer to be forgotten.
            let gap = gap.min(self.pace.longest_timeout() / GAPS);
            self.longest_gap = before.max(gap);
            self.candidacy.stand_again();
            self.set_election_timeout();
        }
    }

    pub(super) fn draw_election_timeout(&mut self) {
        self.chance = self.prng.range(0, CHANCES);
        self.set_election_timeout();
    }

    pub(super) fn set_election_timeout(&mut self) {
        let least = (self.longest_gap * GAPS).clamp(self.pace.election_min, self.pace.longest_timeout());
        let least = ticks(least).max(self.pace.election_ticks());
        let more = least as u64 * self.chance / CHANCES;
        let drawn = least + usize::try_from(more).unwrap_or(0);
        // Who gives way may have waited for as long as anybody does.
        self.election_ticks = drawn.max(self.candidacy.gives_way).min(self.pace.election_ticks_end() - 1);
        self.node.raft.set_randomized_election_timeout(self.election_ticks);
    }
}
