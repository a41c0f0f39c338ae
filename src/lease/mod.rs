//! When leases end: the part of a lease that its leader alone knows.
//!
//! Owns: deadlines, renewals, which leases are due to end or to be checkpointed. Must never: change the replicated state (it says what
//! to propose), or read a clock. Held and driven by `node`'s applier, with the driver's monotonic time; nothing of it survives
//! the loss of leadership.
//!
//! ```text
//!                                deadline                  applied
//! granted, promoted ──► Running ──────────► Expiring ─────────────► gone; who waits hears so
//!                        │  ▲                 proposed again after a while
//!         renewed, with  │  │ clearing applied: the deadline moves, who waits hears so
//!         a checkpoint   ▼  │
//!                       Clearing
//!                             proposed again after a while
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::command::{LeaseCommand, LeaseInstance};
use crate::ids::{LeaseId, LogIndex, Term};
use crate::limits::{
    ELECTION_TIMEOUT, LEASE_CHECKPOINT_INTERVAL, LEASE_CHECKPOINT_SLACK, LEASE_RETRY, LEASES_EXPIRING_MAX,
    LEASES_PER_CHECKPOINT, LEASES_PER_EXPIRY, READS_PENDING_MAX, REQUEST_TIMEOUT,
};
use crate::store::Lease;
use crate::time::Instant;

/// What became of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The lease has its whole time to live again, of so many seconds.
    Renewed {
        /// The time to live.
        ttl: i64,
    },
    /// There is no such lease, or there was none left when the renewal came.
    Gone,
    /// This member does not lead, or cannot find out in time.
    NotLeading,
    /// Too many wait already.
    TooMany,
}

/// The lessor of a member. It has something to do while the member leads.
///
/// # Contract
///
/// - `now` never goes backwards.
/// - After each call, [`Lessor::take_answers`], and [`Lessor::poll_command`] until `None`; then sleep until [`Lessor::poll_timeout`].
/// - Commands are proposed and may get lost. What is applied of them comes back through `granted`, `ended` and `checkpointed`.
#[derive(Debug, Default)]
pub struct Lessor {
    leading: Option<Leading>,
    answers: Vec<(u64, Renewal)>,
}

#[derive(Debug)]
struct Leading {
    term: Term,
    leases: BTreeMap<LeaseId, Timed>,
    /// Of those that run, by deadline.
    deadlines: BTreeSet<(Instant, LeaseId)>,
    /// Of those whose end or clearing is proposed, by the time of the next attempt.
    expiring: BTreeSet<(Instant, LeaseId)>,
    clearing: BTreeSet<(Instant, LeaseId)>,
    /// Of those that run, by the time of the next checkpoint.
    checkpoints: BTreeSet<(Instant, LeaseId)>,
    /// Who waits for what becomes of a lease, and since when.
    waiting: BTreeMap<LeaseId, Vec<(Instant, u64)>>,
    waiting_count: usize,
    /// Those of them that have waited for too long.
    given_up: Vec<u64>,
    /// Of the last checkpoint proposed.
    sequence: u64,
}

/// A lease and its place in the sets.
#[derive(Clone, Copy, Debug)]
struct Timed {
    ttl: i64,
    granted_at: LogIndex,
    deadline: Instant,
    phase: Phase,
    checkpoint_at: Option<Instant>,
    /// There is a checkpoint that a next leader would go by, or one is on its way.
    checkpointed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Since the checkpoint of this sequence number, which is the clearing, unless it gets lost.
    Clearing {
        again_at: Instant,
        since: u64,
    },
    Expiring {
        again_at: Instant,
    },
}

/// Whole seconds, as a duration.
fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.max(0).unsigned_abs())
}

impl Lessor {
    /// The member leads from now on: every lease gets its remaining time anew. An election timeout is added, for renewals that the
    /// leader before has answered while this one was elected.
    pub fn promote<'l>(
        &mut self,
        now: Instant,
        term: Term,
        leases: impl Iterator<Item = (LeaseId, &'l Lease)>,
    ) {
        self.demote();
        let mut leading = Leading::new(term);
        for (id, lease) in leases {
            let remaining = if lease.remaining > 0 { lease.remaining } else { lease.ttl };
            let deadline = now + seconds(remaining) + ELECTION_TIMEOUT;
            leading.run(now, id, lease, deadline);
        }
        self.leading = Some(leading);
    }

    /// The member leads no more: whoever waits has to ask another one.
    pub fn demote(&mut self) {
        if let Some(leading) = self.leading.take() {
            let waiting = leading.waiting.into_values().flatten();
            self.answers.extend(waiting.map(|(_, asker)| (asker, Renewal::NotLeading)));
        }
    }

    /// The term in which the member leads.
    pub fn term(&self) -> Option<Term> {
        self.leading.as_ref().map(|leading| leading.term)
    }

    /// A grant was applied.
    pub fn granted(&mut self, now: Instant, id: LeaseId, lease: &Lease) {
        if let Some(leading) = &mut self.leading {
            leading.run(now, id, lease, now + seconds(lease.ttl));
        }
    }

    /// A lease was revoked or has expired.
    pub fn ended(&mut self, id: LeaseId) {
        let Some(leading) = &mut self.leading else { return };
        leading.remove(id);
        self.answers.extend(leading.take_waiting(id).map(|asker| (asker, Renewal::Gone)));
    }

    /// A checkpoint of so many seconds was applied, one of this term; 0 is the clearing of one. They are applied in the order of their
    /// sequence numbers, those that are not lost.
    pub fn checkpointed(&mut self, now: Instant, id: LeaseId, remaining: i64, sequence: u64) {
        let Some(leading) = &mut self.leading else { return };
        let Some(timed) = leading.leases.get_mut(&id) else { return };
        match timed.phase {
            _ if remaining > 0 => timed.checkpointed = true,
            Phase::Clearing { since, .. } if sequence >= since => {
                timed.checkpointed = false;
                let ttl = leading.renewed(now, id);
                let waiting = leading.take_waiting(id);
                self.answers.extend(waiting.map(|asker| (asker, Renewal::Renewed { ttl })));
            }
            // Proposed once more than it was needed.
            Phase::Running | Phase::Clearing { .. } | Phase::Expiring { .. } => {}
        }
    }

    /// A client renews a lease. The answer has this number, and may take a while.
    pub fn renew(&mut self, now: Instant, id: LeaseId, asker: u64) {
        let Some(leading) = &mut self.leading else {
            return self.answers.push((asker, Renewal::NotLeading));
        };
        let Some(timed) = leading.leases.get_mut(&id) else {
            return self.answers.push((asker, Renewal::Gone));
        };
        if timed.phase == Phase::Running && now < timed.deadline {
            if !timed.checkpointed {
                let ttl = leading.renewed(now, id);
                return self.answers.push((asker, Renewal::Renewed { ttl }));
            }
            // A crash after the answer must not bring the shorter remainder back.
            leading.clear(now, id);
        }
        // Too late, or not yet: what becomes of the lease is in the log.
        if leading.waiting_count == READS_PENDING_MAX {
            return self.answers.push((asker, Renewal::TooMany));
        }
        leading.waiting.entry(id).or_default().push((now, asker));
        leading.waiting_count += 1;
    }

    /// For so long no renewal could be heard: every lease that runs has that much longer.
    pub fn postpone(&mut self, now: Instant, by: Duration) {
        let Some(leading) = &mut self.leading else { return };
        let running: Vec<(Instant, LeaseId)> = leading.deadlines.iter().copied().collect();
        for (deadline, id) in running {
            leading.restart(now, id, deadline + by);
        }
    }

    /// The time that a lease has left; zero when its end is due. `None` for one that does not exist, and where the member does not lead.
    pub fn remaining(&self, now: Instant, id: LeaseId) -> Option<Duration> {
        let timed = self.leading.as_ref()?.leases.get(&id)?;
        Some(timed.deadline.since(now).min(seconds(timed.ttl)))
    }

    /// All leases, soonest end first. `None` where the member does not lead.
    pub fn by_expiry(&self) -> Option<impl Iterator<Item = LeaseId>> {
        let leading = self.leading.as_ref()?;
        // One that is being cleared is about to have its whole time again.
        let sets = [&leading.expiring, &leading.deadlines, &leading.clearing];
        Some(sets.into_iter().flatten().map(|(_, id)| *id))
    }

    /// What became of renewals since the last call.
    pub fn take_answers(&mut self) -> Vec<(u64, Renewal)> {
        if let Some(leading) = &mut self.leading {
            self.answers.extend(leading.given_up.drain(..).map(|asker| (asker, Renewal::NotLeading)));
        }
        std::mem::take(&mut self.answers)
    }

    /// The next thing to propose.
    pub fn poll_command(&mut self, now: Instant) -> Option<LeaseCommand> {
        let leading = self.leading.as_mut()?;
        leading.clear_due(now).or_else(|| leading.expire_due(now)).or_else(|| leading.checkpoint_due(now))
    }

    /// When there will be something to propose.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let leading = self.leading.as_ref()?;
        let room = leading.expiring.len() < LEASES_EXPIRING_MAX;
        let deadlines = leading.deadlines.first().filter(|_| room);
        let sets = [leading.expiring.first(), leading.clearing.first(), leading.checkpoints.first()];
        sets.into_iter().chain([deadlines]).flatten().map(|(at, _)| *at).min()
    }
}

impl Leading {
    fn new(term: Term) -> Self {
        Self {
            term,
            leases: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            expiring: BTreeSet::new(),
            clearing: BTreeSet::new(),
            checkpoints: BTreeSet::new(),
            waiting: BTreeMap::new(),
            waiting_count: 0,
            given_up: Vec::new(),
            sequence: 0,
        }
    }

    fn run(&mut self, now: Instant, id: LeaseId, lease: &Lease, deadline: Instant) {
        let timed = Timed {
            ttl: lease.ttl,
            granted_at: lease.granted_at,
            deadline,
            phase: Phase::Running,
            checkpoint_at: None,
            checkpointed: lease.remaining > 0,
        };
        assert!(self.leases.insert(id, timed).is_none(), "a lease is granted once until it ends");
        self.deadlines.insert((deadline, id));
        self.schedule_checkpoint(now, id);
    }

    /// Takes a lease out of the sets that it is in.
    fn unlink(&mut self, id: LeaseId) {
        let Some(timed) = self.leases.get_mut(&id) else { return };
        let removed = match timed.phase {
            Phase::Running => self.deadlines.remove(&(timed.deadline, id)),
            Phase::Clearing { again_at, .. } => self.clearing.remove(&(again_at, id)),
            Phase::Expiring { again_at } => self.expiring.remove(&(again_at, id)),
        };
        assert!(removed, "a lease is where its phase says");
        if let Some(at) = timed.checkpoint_at.take() {
            self.checkpoints.remove(&(at, id));
        }
    }

    fn remove(&mut self, id: LeaseId) {
        self.unlink(id);
        self.leases.remove(&id);
    }

    fn take_waiting(&mut self, id: LeaseId) -> impl Iterator<Item = u64> + use<> {
        let waiting = self.waiting.remove(&id).unwrap_or_default();
        self.waiting_count -= waiting.len();
        waiting.into_iter().map(|(_, asker)| asker)
    }

    /// Gives up whoever has waited so long that nobody is there any more. A lease may be about to end for ever: while CORRUPT is raised,
    /// none ends.
    fn give_up_waiting(&mut self, now: Instant, id: LeaseId) {
        let Some(waiting) = self.waiting.get_mut(&id) else { return };
        let late = waiting.extract_if(.., |(since, _)| now.since(*since) > REQUEST_TIMEOUT);
        let before = self.given_up.len();
        self.given_up.extend(late.map(|(_, asker)| asker));
        self.waiting_count -= self.given_up.len() - before;
        if waiting.is_empty() {
            self.waiting.remove(&id);
        }
    }

    /// Gives a lease its whole time to live again, and answers that.
    fn renewed(&mut self, now: Instant, id: LeaseId) -> i64 {
        let Some(Timed { ttl, deadline, .. }) = self.leases.get(&id).copied() else { return 0 };
        // The deadline that a new leader has given, with its grace, may be later.
        self.restart(now, id, deadline.max(now + seconds(ttl)));
        ttl
    }

    /// Lets a lease run until this deadline.
    fn restart(&mut self, now: Instant, id: LeaseId, deadline: Instant) {
        self.unlink(id);
        if let Some(timed) = self.leases.get_mut(&id) {
            timed.deadline = deadline;
            timed.phase = Phase::Running;
            self.deadlines.insert((deadline, id));
            self.schedule_checkpoint(now, id);
        }
    }

    fn clear(&mut self, now: Instant, id: LeaseId) {
        self.unlink(id);
        if let Some(timed) = self.leases.get_mut(&id) {
            // An older clearing that is late may have a checkpoint behind it in the log.
            timed.phase = Phase::Clearing { again_at: now, since: self.sequence + 1 };
            self.clearing.insert((now, id));
        }
    }

    /// Notes the next checkpoint, unless the lease ends before.
    fn schedule_checkpoint(&mut self, now: Instant, id: LeaseId) {
        let Some(timed) = self.leases.get_mut(&id) else { return };
        let at = now + LEASE_CHECKPOINT_INTERVAL;
        if at < timed.deadline && seconds(timed.ttl) > LEASE_CHECKPOINT_INTERVAL {
            timed.checkpoint_at = Some(at);
            self.checkpoints.insert((at, id));
        }
    }

    fn clear_due(&mut self, now: Instant) -> Option<LeaseCommand> {
        let mut leases = Vec::new();
        while leases.len() < LEASES_PER_CHECKPOINT
            && let Some((at, id)) = self.clearing.first().copied()
            && at <= now
        {
            self.clearing.pop_first();
            self.give_up_waiting(now, id);
            if let Some(timed) = self.leases.get_mut(&id)
                && let Phase::Clearing { again_at, .. } = &mut timed.phase
            {
                *again_at = now + LEASE_RETRY;
                self.clearing.insert((*again_at, id));
                leases.push((LeaseInstance { id, granted_at: timed.granted_at }, 0));
            }
        }
        self.checkpoint(leases)
    }

    fn expire_due(&mut self, now: Instant) -> Option<LeaseCommand> {
        let mut leases = Vec::new();
        let again_at = now + LEASE_RETRY;
        while leases.len() < LEASES_PER_EXPIRY {
            let again = self.expiring.first().copied().filter(|(at, _)| *at <= now);
            let room = self.expiring.len() < LEASES_EXPIRING_MAX;
            let newly = self.deadlines.first().copied().filter(|(at, _)| room && *at <= now);
            let Some((_, id)) = again.or(newly) else { break };
            self.give_up_waiting(now, id);
            self.unlink(id);
            self.expiring.insert((again_at, id));
            if let Some(timed) = self.leases.get_mut(&id) {
                timed.phase = Phase::Expiring { again_at };
                leases.push(LeaseInstance { id, granted_at: timed.granted_at });
            }
        }
        (!leases.is_empty()).then_some(LeaseCommand::Expire { term: self.term, leases })
    }

    fn checkpoint_due(&mut self, now: Instant) -> Option<LeaseCommand> {
        let mut leases = Vec::new();
        if self.checkpoints.first().is_none_or(|(at, _)| *at > now) {
            return None;
        }
        while leases.len() < LEASES_PER_CHECKPOINT
            && let Some((at, id)) = self.checkpoints.first().copied()
            && at <= now + LEASE_CHECKPOINT_SLACK
        {
            self.checkpoints.pop_first();
            if let Some(timed) = self.leases.get_mut(&id) {
                timed.checkpoint_at = None;
                timed.checkpointed = true;
                // Rounded up: a next leader must not end it before this one would have.
                let left = timed.deadline.since(now).min(seconds(timed.ttl));
                let rounded = left.as_secs() + u64::from(left.subsec_nanos() > 0);
                let instance = LeaseInstance { id, granted_at: timed.granted_at };
                leases.push((instance, i64::try_from(rounded).unwrap_or(timed.ttl)));
                self.schedule_checkpoint(now, id);
            }
        }
        self.checkpoint(leases)
    }

    fn checkpoint(&mut self, leases: Vec<(LeaseInstance, i64)>) -> Option<LeaseCommand> {
        if leases.is_empty() {
            return None;
        }
        self.sequence += 1;
        Some(LeaseCommand::Checkpoint { term: self.term, sequence: self.sequence, leases })
    }
}

#[cfg(test)]
mod lessor_test;
