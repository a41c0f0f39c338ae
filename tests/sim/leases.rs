//! When leases ended and what clients were told of them: whether one ended early.
//!
//! Owns: for each lease that was ever granted, until when clients may count on it. Must never: look at a member. Driven by `oracle`, with the
//! time of the world, which no member sees.
//!
//! A client may count on a lease for its time to live from the moment at which it asked for the grant or the renewal that was answered. The
//! members measure from a later moment, so this is the least that they owe. They measure it by their own clocks: where those are fast, a lease is
//! shorter, by no more than the fastest of them is.
//!
//! It must also have had the time to renew. Nobody can before the leader's own first entry is in the leader's state, nor before the grant is:
//! from the later of the two on, what is left of a lease's time has to pass.

use std::collections::BTreeMap;
use std::time::Duration;

use covey::command::{Applied, LeaseCommand, LeaseInstance, Outcome};
use covey::ids::{LeaseId, LogIndex, Term};
use covey::node::{LeaseAnswer, LeaseRequest};
use covey::store::Lease;
use covey::time::Instant;

use crate::model::Model;
use crate::world::{GOOD, shortest};

/// An answer about leases, and when it was asked for.
pub(crate) struct Told {
    pub(crate) request: LeaseRequest,
    pub(crate) answer: LeaseAnswer,
    pub(crate) asked: Instant,
    /// What had been shown to clients by then.
    pub(crate) asked_after: LogIndex,
    pub(crate) now: Instant,
}

/// One lease, from its grant on.
struct Life {
    ttl: i64,
    promised: Instant,
    /// The last leader that could renew it, by its term, and until when it had to wait.
    renewable: (Term, Instant),
    ended: Option<End>,
}

/// The end of a lease.
#[derive(Clone, Copy)]
struct End {
    at: Instant,
    index: LogIndex,
    by_itself: bool,
}

pub(crate) struct Leases {
    fastest: u64,
    lives: BTreeMap<LeaseInstance, Life>,
    pub(crate) expired: u64,
    pub(crate) checkpoints: u64,
}

impl Leases {
    /// No clock is faster than `fastest`, in thousandths of a good one.
    pub(crate) fn new(fastest: u64) -> Self {
        Self { fastest, lives: BTreeMap::new(), expired: 0, checkpoints: 0 }
    }

    /// The least that so many seconds of a member take.
    fn seconds(&self, seconds: i64) -> Duration {
        shortest(Duration::from_secs(seconds.unsigned_abs()), self.fastest)
    }

    /// The least that a member's clock shows of some time in which leases go on: where even the fastest one is slow, less than all of it.
    fn shown(&self, time: Duration) -> Duration {
        shortest(time, GOOD * GOOD / self.fastest.min(GOOD))
    }

    /// An entry was seen committed for the first time, with this result.
    pub(crate) fn committed(
        &mut self,
        now: Instant,
        index: LogIndex,
        command: &LeaseCommand,
        result: &Applied,
    ) {
        match (command, &result.outcome) {
            (LeaseCommand::Grant { id, ttl }, Ok(_)) => {
                // Whoever asked for it, did so before.
                let (ttl, promised) = (*ttl, now + self.seconds(*ttl));
                let instance = LeaseInstance { id: *id, granted_at: index };
                let renewable = (Term(0), promised);
                self.lives.insert(instance, Life { ttl, promised, renewable, ended: None });
            }
            (LeaseCommand::Revoke { id }, Ok(_)) => {
                for (_, life) in self.lives.range_mut(of(*id)) {
                    life.ended = life.ended.or(Some(End { at: now, index, by_itself: false }));
                }
            }
            (LeaseCommand::Expire { term, leases }, Ok(Outcome::LeaseExpire(ended))) => {
                for instance in leases.iter().filter(|lease| ended.contains(&lease.id)) {
                    let life = self.lives.get_mut(instance).expect("it was granted");
                    let early = life.promised.since(now);
                    assert!(early.is_zero(), "{instance:?} ended {early:?} before a client could think so");
                    let (renewable_in, until) = life.renewable;
                    assert!(
                        renewable_in >= *term,
                        "{instance:?} was ended by one that nobody could ask to renew it"
                    );
                    let early = until.since(now);
                    assert!(
                        early.is_zero(),
                        "{instance:?} had {early:?} less than its time to be renewed in"
                    );
                    life.ended = Some(End { at: now, index, by_itself: true });
                    self.expired += 1;
                }
            }
            (LeaseCommand::Checkpoint { .. }, Ok(Outcome::LeaseCheckpoint(changed))) => {
                self.checkpoints += changed.len() as u64;
            }
            _ => {}
        }
    }

    /// Whoever leads in this term shows these leases, and can renew them from now on.
    pub(crate) fn led<'l>(
        &mut self,
        now: Instant,
        term: Term,
        leases: impl Iterator<Item = (LeaseId, &'l Lease)>,
    ) {
        for (id, lease) in leases {
            let left = self.seconds(if lease.remaining > 0 { lease.remaining } else { lease.ttl });
            let instance = LeaseInstance { id, granted_at: lease.granted_at };
            let life = self.lives.get_mut(&instance).expect("it was granted");
            if life.renewable.0 < term {
                life.renewable = (term, now + left);
            }
        }
    }

    /// A client was told this.
    pub(crate) fn told(&mut self, told: &Told, model: &Model) {
        let Told { request, answer, asked, asked_after, now } = told;
        match (request, answer) {
            (LeaseRequest::Renew(id), LeaseAnswer::Renewed { ttl }) => {
                let promised = *asked + self.seconds(*ttl);
                // The one that was renewed, if there was only one at the time. An end that nobody had heard of may have come after the
                // renewal.
                let candidates = self.lives.range_mut(of(*id));
                let alive = |life: &Life| life.ended.is_none_or(|end| end.index > *asked_after);
                let mut candidates: Vec<_> = candidates.filter(|(_, life)| alive(life)).collect();
                assert!(!candidates.is_empty(), "{id} was renewed and is gone");
                if let [(instance, life)] = &mut candidates[..] {
                    assert_eq!(life.ttl, *ttl, "the time to live of {id}");
                    if let Some(end) = life.ended.filter(|end| end.by_itself) {
                        assert!(end.at >= promised, "{instance:?} was renewed and ended early");
                    }
                    life.promised = life.promised.max(promised);
                }
            }
            (LeaseRequest::Renew(id) | LeaseRequest::TimeToLive(id), LeaseAnswer::Gone) => {
                let there = model.leases.get(id).filter(|lease| lease.granted_at <= *asked_after);
                assert!(there.is_none(), "{id} is said to be gone and is there: {there:?}");
            }
            (LeaseRequest::TimeToLive(id), LeaseAnswer::TimeToLive { granted, remaining }) => {
                let mut lives = self.lives.range(of(*id));
                let fits = |(_, life): (&LeaseInstance, &Life)| {
                    let least = self.shown(life.promised.since(*now)).as_secs();
                    life.ttl == *granted && remaining <= granted && remaining.unsigned_abs() >= least
                };
                assert!(lives.any(fits), "{id} of {granted} s is said to have {remaining} s left");
            }
            (LeaseRequest::List, LeaseAnswer::List(ids)) => {
                let known = |(id, _): &(&LeaseId, &crate::model::Leased)| ids.contains(id);
                let old = model.leases.iter().filter(|(_, lease)| lease.granted_at <= *asked_after);
                assert!(old.filter(|lease| !known(lease)).count() == 0, "a lease is missing in {ids:?}");
            }
            (_, LeaseAnswer::NotLeading | LeaseAnswer::TooMany) => {}
            _ => panic!("{request:?} is answered with {answer:?}"),
        }
    }
}

/// All that was ever granted under an id.
fn of(id: LeaseId) -> std::ops::RangeInclusive<LeaseInstance> {
    LeaseInstance { id, granted_at: LogIndex(0) }..=LeaseInstance { id, granted_at: LogIndex(u64::MAX) }
}
