//! Comparing this member's state with the others': what is asked, and what follows for this member.
//!
//! Owns: the questions, and the word that this member's state is not to be trusted. Must never: judge (`node::judge` does). Called by `app`.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use futures_channel::oneshot;

use super::handle::{Handle, ServeError};
use super::threads::{ApplierInput, CoreInput};
use crate::ids::{Digest, LogIndex, MemberId};
use crate::node::{DigestAt, Verdict, judge};

/// The others have applied by then what this member has applied now, as a rule.
const LAG: Duration = Duration::from_secs(2);
/// How long one of them may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

impl Handle {
    /// Compares this member's state with that of the voters, at an entry after `compared`: at a milestone, or else at the last one. `None` where there
    /// is nothing to compare: nobody else votes, the voters are changing, or nothing was applied since.
    pub async fn compare(&self, compared: LogIndex, milestone: bool) -> Option<(LogIndex, Verdict)> {
        let me = self.ids().member;
        let view = self.view();
        let conf = &view.facts().conf_state;
        if !conf.others_vote(me) || !conf.voters_outgoing.is_empty() {
            return None;
        }
        let voters = conf.voters.clone();
        drop(view);
        let (answer, answered) = oneshot::channel();
        let input = ApplierInput::ComparisonPoint { compared, milestone, answer };
        self.0.queues.applier.send(input).ok()?;
        let (point, own) = answered.await.ok().flatten()?;
        smol::Timer::after(LAG).await;
        let mut others = BTreeMap::new();
        for voter in voters.iter().copied().filter(|voter| *voter != me) {
            let late = async {
                smol::Timer::after(ANSWER_MAX).await;
                Err(ServeError::TimedOut)
            };
            if let Ok(Some(digest)) = smol::future::or(self.ask_digest(voter, point), late).await {
                others.insert(voter, digest);
            }
        }
        Some((point, judge(me, own, &voters, &others)))
    }

    /// The digest of this member's state after an entry, as far as it is known.
    pub(super) async fn digest_at(&self, index: LogIndex) -> Result<Option<Digest>, ServeError> {
        let (answer, answered) = oneshot::channel();
        let input = ApplierInput::DigestAt(index, answer);
        self.0.queues.applier.send(input).map_err(|_| ServeError::Stopped)?;
        answered.await.map_err(|oneshot::Canceled| ServeError::Stopped)
    }

    async fn ask_digest(&self, of: MemberId, index: LogIndex) -> Result<Option<Digest>, ServeError> {
        let answer = self.ask(of, DigestAt::question(index)).await?;
        let DigestAt(digest) = DigestAt::decode(answer).map_err(|error| {
            tracing::warn!(%of, %error, "a member's answer is not understood");
            ServeError::TimedOut
        })?;
        Ok(digest)
    }

    /// These have another state, and nobody knows who is right; with none of them, that is over.
    pub fn set_contradicted_by(&self, others: BTreeSet<MemberId>) {
        drop(self.0.core.send(CoreInput::ContradictedBy(others)));
    }

    /// This member's state is not to be trusted any more: it must not be shown to anybody.
    pub fn distrust(&self) {
        self.0.suspicion.reach(1);
    }

    /// Resolves when this member's state is not to be trusted any more.
    pub fn distrusted(&self) -> impl Future<Output = ()> + Send + 'static {
        self.once(|shared| &shared.suspicion)
    }
}
