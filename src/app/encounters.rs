//! Other clusters on the LAN: who they are, and what becomes of this one.
//!
//! Owns: when they are asked, and which conflicts there are. Must never: decide who gives itself up (`formation::course` does, or an operator), give this cluster
//! up before the other one has taken its members in, or take what is announced for a cluster: only a member's own answer is one. Driven by `peers`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_channel::oneshot;
use smol::Timer;
use smol::channel::Receiver;

use super::admission::Desk;
use super::lan::{CLUSTERS_ASKED_MAX, Lan, asked_now};
use super::staggered::{staggered, together};
use crate::api::YieldRefusal;
use crate::command::CharterCommand;
use crate::formation::{ABSORBED_MAX, Answer, Candidate, Conflict, Course, Question, Standing, View, course};
use crate::ids::{ClusterId, PublicKey};
use crate::peer::Transport;
use crate::runtime::clock::random_u64;
use crate::store::Member;
use crate::time::Instant;

/// How often other clusters are asked while something changes, ...
const LOOKS: Duration = Duration::from_secs(2);
/// ... and at least how often while nothing does.
const LOOKS_MAX: Duration = Duration::from_secs(30);

/// A cluster that this one cannot become one with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Beside {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) why: Conflict,
    /// Since when.
    pub(super) since: Instant,
}

/// The conflicts that a member knows of.
#[derive(Debug, Default)]
pub(super) struct Conflicts(Mutex<BTreeMap<ClusterId, Beside>>);

impl Conflicts {
    /// All of them.
    pub(super) fn list(&self) -> BTreeMap<ClusterId, Beside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, cluster: ClusterId, addresses: Vec<SocketAddr>, why: Conflict, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.get(&cluster).filter(|before| before.why == why);
        if before.is_none() {
            tracing::error!(
                %cluster, ?addresses, %why,
                "CONFLICT: there is another cluster on this network, and the two cannot become one by themselves: both go on as they are"
            );
        }
        let since = before.map_or(now, |before| before.since);
        known.insert(cluster, Beside { addresses, why, since });
    }

    fn resolved(&self, cluster: ClusterId) {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&cluster).is_some() {
            tracing::info!(%cluster, "the conflict with another cluster is over");
        }
    }

    /// Only these are still there.
    fn retain(&self, clusters: &BTreeMap<ClusterId, Vec<SocketAddr>>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|known, _| clusters.contains_key(known));
    }
}

/// An operator's order that this cluster give itself up for another one.
pub(super) struct Order {
    pub(super) winner: ClusterId,
    /// Is told what has come of it.
    pub(super) done: oneshot::Sender<Result<(), YieldRefusal>>,
}

/// Why another cluster has not taken this one's members in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum NotTakenIn {
    /// An operator has to let them in there.
    #[error("{0}")]
    Pending(String),
    /// Anything else.
    #[error("{0}")]
    Said(String),
}

/// See the module.
pub(super) struct Encounters {
    pub(super) transport: Arc<Transport>,
    pub(super) desk: Desk,
    pub(super) lan: Arc<Lan>,
}

impl Encounters {
    /// Looks out for other clusters, until it is dropped. Without any it costs nothing, and little where there are some and nothing changes.
    pub(super) async fn look_out(&self) {
        let own = self.desk.identity.cluster();
        let (mut before, mut pause) = (BTreeMap::new(), LOOKS);
        loop {
            let changed = self.lan.changed();
            let beside = self.lan.clusters_beside(own);
            self.desk.conflicts.retain(&beside);
            if beside.is_empty() {
                (before, pause) = (BTreeMap::new(), LOOKS);
                changed.await;
                continue;
            }
            // What became of one that is not asked this time is what became of it before.
            before.retain(|cluster, _| beside.contains_key(cluster));
            let mut now = before.clone();
            if self.desk.has_nothing_to_say().is_none() {
                let asked = asked_now(beside, random_u64().unwrap_or_default());
                let ask = |(cluster, addresses): (ClusterId, Vec<SocketAddr>)| async move {
                    (cluster, self.ask_who(&addresses, |_| true).await, addresses)
                };
                for (cluster, answer, addresses) in together(CLUSTERS_ASKED_MAX, asked, ask).await {
                    now.insert(cluster, self.meet(cluster, answer, addresses).await);
                }
            }
            for (cluster, outcome) in
                now.iter().filter(|(cluster, outcome)| before.get(*cluster) != Some(*outcome))
            {
                tracing::info!(%cluster, %outcome, "there is another cluster on this network");
            }
            pause = if now == before { LOOKS_MAX.min(pause * 2) } else { LOOKS };
            before = now;
            Timer::after(pause).await;
        }
    }

    /// Carries out what operators order, one after the other, until it is dropped.
    pub(super) async fn obey(&self, orders: Receiver<Order>) {
        while let Ok(Order { winner, done }) = orders.recv().await {
            tracing::warn!(%winner, "an operator orders that this cluster give itself up for another one");
            let outcome = self.yield_to(winner).await;
            if let Err(refusal) = &outcome {
                tracing::warn!(%winner, %refusal, "the cluster goes on");
            }
            // Whoever has ordered it may not wait for that any more.
            drop(done.send(outcome));
        }
        std::future::pending::<()>().await;
    }

    async fn yield_to(&self, winner: ClusterId) -> Result<(), YieldRefusal> {
        let handle = &self.desk.handle;
        // All who are members by now are to be taken in.
        handle.read_barrier().await.map_err(YieldRefusal::Leaderless)?;
        if let Some(why) = self.desk.has_nothing_to_say() {
            return Err(YieldRefusal::Speechless(why));
        }
        let beside = self.desk.conflicts.list().remove(&winner).ok_or(YieldRefusal::NoConflict(winner))?;
        let is_meant = |standing: &Standing| standing.cluster == winner;
        let found = self.ask_who(&beside.addresses, is_meant).await;
        let (at, _) = found.ok_or(YieldRefusal::Silent(winner))?;
        let witness = self.hand_members_over(at).await.map_err(|why| match why {
            NotTakenIn::Pending(_) => YieldRefusal::Sealed(winner),
            NotTakenIn::Said(why) => YieldRefusal::Declined { cluster: winner, why },
        })?;
        let order = CharterCommand::Yield { winner, witness };
        let applied = handle.change_charter(order).await.map_err(YieldRefusal::Unknown)?;
        applied.outcome.map(drop).map_err(YieldRefusal::Rejected)
    }

    /// What this encounter has come to.
    async fn meet(
        &self,
        announced: ClusterId,
        answer: Option<(SocketAddr, Standing)>,
        addresses: Vec<SocketAddr>,
    ) -> String {
        let Some((at, other)) = answer else { return "nobody answers".into() };
        let own = self.desk.standing();
        if other.cluster == own.cluster {
            self.desk.conflicts.resolved(announced);
            return "it has become a part of this one".into();
        }
        let course = course(&own, &other, self.desk.trusts());
        if let Course::Conflict(why) = course {
            self.desk.conflicts.note(announced, addresses, why, self.desk.clock.now());
            return why.to_string();
        }
        self.desk.conflicts.resolved(announced);
        match course {
            Course::Yield if self.desk.handle.status().leads() => self.give_up_for(&other, at).await,
            Course::Yield => "this one is about to give itself up for it".into(),
            Course::Wait | Course::Conflict(_) => "it is to give itself up for this one".into(),
        }
    }

    /// The first of them that answers as whoever is meant, and what it says of its cluster.
    async fn ask_who(
        &self,
        addresses: &[SocketAddr],
        is_meant: impl Fn(&Standing) -> bool,
    ) -> Option<(SocketAddr, Standing)> {
        let (name, view) = (self.desk.name.clone(), View::default());
        let question = Question::Probe { name, over: None, view };
        let (question, is_meant) = (&question, &is_meant);
        let ask = |at: &SocketAddr| {
            let at = *at;
            async move {
                match self.transport.ask_stranger(at, question).await {
                    Ok((_, Answer::Member(standing))) if is_meant(&standing) => Ok((at, standing)),
                    _ => Err(()),
                }
            }
        };
        staggered(addresses, ask).await.ok()
    }

    /// Has the other cluster take this one's members in, and gives this one up then.
    async fn give_up_for(&self, winner: &Standing, at: SocketAddr) -> String {
        if let Err(why) = self.hand_members_over(at).await {
            return why.to_string();
        }
        // What a user writes before this is in the log prevents it, and what comes after that fails.
        let (handle, winner) = (&self.desk.handle, winner.cluster);
        match handle.change_charter(CharterCommand::Dissolve { winner }).await.map(|applied| applied.outcome)
        {
            Ok(Ok(_)) => "this one has given itself up for it".into(),
            Ok(Err(rejection)) => rejection.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Has the other cluster take this one's members in; the key of its member that says so.
    async fn hand_members_over(&self, at: SocketAddr) -> Result<PublicKey, NotTakenIn> {
        let candidate = |member: &Member| {
            let (name, peer_urls) = (member.attributes.name.clone(), member.attributes.peer_urls.clone());
            Some(Candidate { key: member.key?, name, peer_urls })
        };
        let view = self.desk.handle.view();
        let own = PublicKey(*self.desk.identity.key.public());
        let (asks, mut others): (Vec<Candidate>, Vec<Candidate>) =
            view.facts().members.iter().filter_map(candidate).partition(|node| node.key == own);
        drop(view);
        others.sort_by_key(|node| node.key);
        let mut others = others.chunks(ABSORBED_MAX - 1);
        let mut witness = self.hand_over(at, [&asks, others.next().unwrap_or_default()].concat()).await?;
        for more in others {
            witness = self.hand_over(at, [&asks, more].concat()).await?;
        }
        Ok(witness)
    }

    async fn hand_over(&self, at: SocketAddr, nodes: Vec<Candidate>) -> Result<PublicKey, NotTakenIn> {
        let question = Question::Absorb { cluster: self.desk.identity.cluster(), nodes };
        match self.transport.ask_stranger(at, &question).await {
            Ok((witness, Answer::Absorbed)) => Ok(witness),
            Ok((_, Answer::Pending(why))) => Err(NotTakenIn::Pending(why)),
            Ok((_, Answer::Wait(why) | Answer::Refused(why))) => Err(NotTakenIn::Said(why)),
            Ok(_) => Err(NotTakenIn::Said("it answers something else than it was asked".into())),
            Err(error) => Err(NotTakenIn::Said(error.to_string())),
        }
    }
}
