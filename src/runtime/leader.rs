//! Who leads: streams that need a leader and the loss of one, leadership that is handed over, a member that is none any more.
//!
//! Owns: hand-overs; how long a leader may be missing before such streams are cut (API reference, section 2.8). Must never: cut one for an election
//! that goes well. Noted by the core thread, awaited by `api`.

use std::future::{Future, pending};
use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;

use super::Milestone;
use super::handle::{Handle, ServeError, Shared};
use super::threads::CoreInput;
use crate::consensus::CoreStatus;
use crate::ids::{MemberId, Term};
use crate::limits::ELECTION_TIMEOUT;
use crate::node::Progress;
use crate::time::Instant;

/// How long there may be no leader (etcd's three election timeouts).
const PATIENCE: Duration = ELECTION_TIMEOUT.saturating_mul(3);

/// Who led last, and since when that one is lost: what was on its way through it may be lost with it.
#[derive(Debug, Default)]
pub(super) struct Succession {
    led: Option<(MemberId, Term)>,
    lost_at: Option<Instant>,
}

impl Succession {
    /// Who leads has changed, perhaps. Once there is another leader, or the same one anew: when the one before was lost. Whoever waits since
    /// before that, for something that went through it, waits in vain, or for an answer that another member has.
    pub(super) fn note(&mut self, now: Instant, status: &CoreStatus) -> Option<Instant> {
        let leads = status.leader.map(|leader| (leader, status.term));
        if self.led.is_some() && self.led != leads {
            let lost_at = *self.lost_at.get_or_insert(now);
            self.led = leads.or(self.led);
            return leads.is_some().then(|| {
                self.lost_at = None;
                lost_at
            });
        }
        // The one that was lost for a moment goes on in its term.
        self.lost_at = None;
        self.led = leads.or(self.led);
        None
    }
}

/// Since when no leader is known.
#[derive(Debug, Default)]
pub(super) struct LeaderGap {
    since: Option<Instant>,
}

impl LeaderGap {
    /// Looks again; a gap that is too long counts as one loss, and as another when it has lasted as long once more.
    pub(super) fn note(&mut self, now: Instant, known: bool, losses: &Milestone) {
        if known {
            self.since = None;
            return;
        }
        let since = *self.since.get_or_insert(now);
        if now.since(since) >= PATIENCE {
            self.since = Some(now);
            losses.reach(losses.value() + 1);
        }
    }
}

/// How long one member may take to lead in the place of one that stops.
const STEP_DOWN_MAX: Duration = Duration::from_millis(500);
/// How often is looked whether leadership has moved.
const LOOK: Duration = Duration::from_millis(5);
/// How long a hand-over may take; raft gives it up after an election timeout.
const HAND_OVER_MAX: Duration = ELECTION_TIMEOUT.saturating_mul(2);

/// Why leadership was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandOverError {
    /// This member does not lead.
    #[error("not leader")]
    NotLeader,
    /// The other one cannot lead: it is no voter.
    #[error("bad leader transferee")]
    BadTransferee,
    /// It has not taken over in time.
    #[error("request timed out, leader transfer took too long")]
    TookTooLong,
}

impl Handle {
    /// Whether a learner has caught up: only the leader can say, and is asked.
    ///
    /// # Errors
    /// `None` for one that has not.
    pub async fn check_in_sync(&self, learner: MemberId) -> Result<(), Option<ServeError>> {
        let status = self.status();
        let progress = match status.leader {
            Some(leader) if leader != status.member => self.ask_progress(leader, learner).await?,
            _ => match self.is_in_sync(learner).await? {
                Some(true) => Progress::InSync,
                Some(false) => Progress::Behind,
                None => Progress::NotLeading,
            },
        };
        match progress {
            Progress::InSync => Ok(()),
            Progress::Behind => Err(None),
            Progress::NotLeading => Err(Some(ServeError::LeaderChanged)),
        }
    }

    /// The same as far as this member can say: `None` where it does not lead.
    pub(super) async fn is_in_sync(&self, member: MemberId) -> Result<Option<bool>, ServeError> {
        let (answer, answered) = oneshot::channel();
        self.0.core.send(CoreInput::InSync(member, answer)).map_err(|_| ServeError::Stopped)?;
        answered.await.map_err(|oneshot::Canceled| ServeError::Stopped)
    }

    /// Hands leadership to another voter, and waits until it leads.
    pub async fn hand_over(&self, to: MemberId) -> Result<(), HandOverError> {
        let status = self.status();
        if !status.leads() {
            return Err(HandOverError::NotLeader);
        }
        if to == status.member {
            return Ok(());
        }
        if !self.view().facts().conf_state.voters.contains(&to) {
            return Err(HandOverError::BadTransferee);
        }
        let until = self.0.clock.now() + HAND_OVER_MAX;
        drop(self.0.core.send(CoreInput::HandOver(to)));
        while self.0.clock.now() < until {
            if self.status().leader == Some(to) {
                return Ok(());
            }
            smol::Timer::after(LOOK).await;
        }
        Err(HandOverError::TookTooLong)
    }

    /// Hands leadership to whoever takes it, before this member stops: nobody has to wait for an election then.
    pub async fn step_down(&self) {
        let me = self.ids().member;
        let voters = self.view().facts().conf_state.voters.clone();
        for heir in voters.into_iter().filter(|voter| *voter != me) {
            if self.status().leader != Some(me) {
                return;
            }
            if self.check_in_sync(heir).await.is_err() {
                continue;
            }
            let outcome = smol::future::or(self.hand_over(heir), async {
                smol::Timer::after(STEP_DOWN_MAX).await;
                Err(HandOverError::TookTooLong)
            });
            if let Err(error) = outcome.await {
                tracing::info!(%heir, %error, "could not hand leadership over");
            }
        }
    }

    /// Resolves when this member was removed from the cluster.
    pub fn removed(&self) -> impl Future<Output = ()> + Send + 'static {
        self.once(|shared| &shared.removal)
    }

    /// Whether it was.
    pub fn was_removed(&self) -> bool {
        self.0.removal.value() > 0
    }

    /// Other members say that this one was removed. It may never hear of that otherwise: nobody sends it the log any more.
    pub fn peer_says_removed(&self) {
        self.0.removal.reach(1);
    }

    /// Resolves when another member has shown that this one's data directory is an old copy.
    pub fn fenced(&self) -> impl Future<Output = ()> + Send + 'static {
        self.once(|shared| &shared.fencing)
    }

    /// Resolves when something has happened; not when the node stops without it.
    pub(super) fn once(&self, what: fn(&Shared) -> &Milestone) -> impl Future<Output = ()> + Send + 'static {
        let shared = Arc::clone(&self.0);
        async move {
            if !what(&shared).wait(1).await {
                pending::<()>().await;
            }
        }
    }

    /// Another member has seen a run of this one that its data directory knows nothing of.
    pub fn peer_says_fenced(&self) {
        self.0.fencing.reach(1);
    }

    /// Resolves when this member has known no leader for three election timeouts; counted from this call on.
    pub fn leader_lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let shared = Arc::clone(&self.0);
        let next = shared.leader_losses.value() + 1;
        async move {
            if !shared.leader_losses.wait(next).await {
                // The node stops, and says so in its own way.
                pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_of_a_leader_counts_from_when_it_was_lost_and_once_there_is_another() {
        let mut succession = Succession::default();
        let status = |leader: Option<u64>, term| CoreStatus {
            leader: leader.map(MemberId),
            term: Term(term),
            ..CoreStatus::default()
        };
        let mut note = |at, leader, term| succession.note(Instant(at), &status(leader, term));
        assert_eq!(note(1, None, 1), None);
        assert_eq!(note(2, Some(7), 2), None, "nobody waited for another one before");
        assert_eq!(note(3, Some(7), 2), None);
        assert_eq!(note(4, None, 2), None);
        assert_eq!(note(5, None, 3), None);
        assert_eq!(note(6, Some(8), 4), Some(Instant(4)));
        assert_eq!(note(7, Some(8), 4), None);
        assert_eq!(note(8, Some(9), 5), Some(Instant(8)), "without a gap");
        assert_eq!(note(9, None, 5), None);
        assert_eq!(note(10, Some(9), 5), None, "it was there all the time");
        assert_eq!(note(11, Some(9), 6), Some(Instant(11)), "the same one anew");
    }

    #[test]
    fn only_a_long_gap_is_a_loss() {
        let (losses, mut gap) = (Milestone::default(), LeaderGap::default());
        let at = |millis| Instant(0) + Duration::from_millis(millis);
        gap.note(at(0), true, &losses);
        gap.note(at(1000), false, &losses);
        gap.note(at(3900), false, &losses);
        gap.note(at(3950), true, &losses);
        gap.note(at(4000), false, &losses);
        gap.note(at(6999), false, &losses);
        assert_eq!(losses.value(), 0);
        gap.note(at(7000), false, &losses);
        assert_eq!(losses.value(), 1);
        gap.note(at(9999), false, &losses);
        assert_eq!(losses.value(), 1);
        gap.note(at(10_000), false, &losses);
        assert_eq!(losses.value(), 2);
    }
}
