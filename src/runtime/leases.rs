//! The way in for what clients do with leases.
//!
//! Owns: the ids that clients leave to the server, the shortest time to live, and the read-index round before anything that only the leader can
//! say. Must never: know a deadline. Part of [`Handle`].

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::handle::{Handle, ServeError};
use super::threads::ApplierInput;
use crate::command::{Applied, Caller, Command, LeaseCommand, Rejection};
use crate::ids::LeaseId;
use crate::limits::{ELECTION_TIMEOUT, LEASE_TTL_MIN, READS_PENDING_MAX};
use crate::node::{LeaseAnswer, LeaseRequest};

/// How long a request that only the leader can answer looks for one; an election takes at most two timeouts as a rule.
const LEADER_PATIENCE: Duration = ELECTION_TIMEOUT.saturating_mul(2);
/// The pause before another leader is looked for.
const LEADER_RETRY: Duration = Duration::from_millis(20);

/// What is known of a lease's time, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeToLive {
    /// As granted.
    pub granted: i64,
    /// What is left; 0 when the end is due.
    pub remaining: i64,
}

impl Handle {
    /// Grants a lease of at least [`LEASE_TTL_MIN`] seconds; `ttl` must not be above [`LEASE_TTL_MAX`](crate::limits::LEASE_TTL_MAX). For
    /// [`LeaseId::NONE`] an id that is free is found. Answers the id with the result.
    pub async fn grant_lease(
        &self,
        caller: Option<Caller>,
        id: LeaseId,
        ttl: i64,
    ) -> Result<(LeaseId, Applied), ServeError> {
        let ttl = ttl.max(LEASE_TTL_MIN);
        if id != LeaseId::NONE {
            let command = Command::Lease(LeaseCommand::Grant { id, ttl });
            return Ok((id, self.propose_for(caller, command).await?));
        }
        loop {
            let id = self.draw_lease_id();
            let command = Command::Lease(LeaseCommand::Grant { id, ttl });
            let applied = self.propose_for(caller.clone(), command).await?;
            if applied.outcome != Err(Rejection::LeaseExists) {
                return Ok((id, applied));
            }
        }
    }

    /// A positive number of 63 bits.
    fn draw_lease_id(&self) -> LeaseId {
        let mut prng = self.0.lease_ids.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let id = LeaseId((prng.next_u64() >> 1).cast_signed());
            if id != LeaseId::NONE {
                return id;
            }
        }
    }

    /// Starts the time to live of a lease anew and answers it, in seconds; `None` for a lease that does not exist any more. One whose end is
    /// due is waited for.
    pub async fn renew_lease(&self, id: LeaseId) -> Result<Option<i64>, ServeError> {
        match self.ask_leader(LeaseRequest::Renew(id)).await? {
            LeaseAnswer::Renewed { ttl } => Ok(Some(ttl)),
            LeaseAnswer::Gone => Ok(None),
            other => Err(refusal(&other)),
        }
    }

    /// The time that a lease has left; `None` for one that does not exist.
    pub async fn time_to_live(&self, id: LeaseId) -> Result<Option<TimeToLive>, ServeError> {
        match self.ask_leader(LeaseRequest::TimeToLive(id)).await? {
            LeaseAnswer::TimeToLive { granted, remaining } => Ok(Some(TimeToLive { granted, remaining })),
            LeaseAnswer::Gone => Ok(None),
            other => Err(refusal(&other)),
        }
    }

    /// All leases, soonest end first; on a member that does not lead, and so does not know that, by id.
    pub async fn leases(&self) -> Result<Vec<LeaseId>, ServeError> {
        let status = self.status();
        if status.leads() {
            match self.ask_own_lessor(LeaseRequest::List).await? {
                LeaseAnswer::List(leases) => return Ok(leases),
                LeaseAnswer::NotLeading => {}
                other => return Err(refusal(&other)),
            }
        } else {
            self.read_barrier().await?;
        }
        let view = self.view();
        let by_id = move || {
            let mut leases: Vec<LeaseId> = view.leases().iter().map(|(id, _)| id).collect();
            leases.sort_unstable();
            leases
        };
        Ok(self.blocking(by_id).await)
    }

    /// Asks whoever leads, and whoever leads then where that one is lost on the way: asking twice does no harm.
    async fn ask_leader(&self, request: LeaseRequest) -> Result<LeaseAnswer, ServeError> {
        let shared = &self.0;
        let until = shared.clock.now() + LEADER_PATIENCE;
        loop {
            let status = self.status();
            let outcome = match status.leader {
                Some(leader) if leader != status.member => self.ask_lessor_of(leader, request).await,
                _ => self.ask_own_lessor(request).await,
            };
            let lost = match &outcome {
                Ok(LeaseAnswer::NotLeading) => true,
                Ok(_) => false,
                Err(error) => matches!(error, ServeError::NoLeader | ServeError::LeaderChanged),
            };
            if !lost || shared.clock.now() >= until {
                return outcome;
            }
            smol::Timer::after(LEADER_RETRY).await;
        }
    }

    /// Asks this member's own lessor, which knows something only while it leads.
    pub(super) async fn ask_own_lessor(&self, request: LeaseRequest) -> Result<LeaseAnswer, ServeError> {
        // A member that was deposed without knowing it does not get past this.
        self.read_barrier().await?;
        let shared = &self.0;
        let number = shared.sequence.fetch_add(1, Ordering::Relaxed);
        let waiting = shared
            .leases
            .register(number, shared.clock.now(), READS_PENDING_MAX)
            .ok_or(ServeError::TooManyRequests)?;
        let input = ApplierInput::Lease { number, request };
        shared.queues.applier.send(input).map_err(|_| ServeError::Stopped)?;
        waiting.await.unwrap_or(Err(ServeError::Stopped))
    }
}

/// Why there is no answer.
fn refusal(answer: &LeaseAnswer) -> ServeError {
    match answer {
        LeaseAnswer::TooMany => ServeError::TooManyRequests,
        LeaseAnswer::NotLeading => ServeError::NoLeader,
        LeaseAnswer::Renewed { .. }
        | LeaseAnswer::Gone
        | LeaseAnswer::TimeToLive { .. }
        | LeaseAnswer::List(_) => unreachable!("a request is answered in kind, not with {answer:?}"),
    }
}
