//! Other clusters on the LAN: who they are, and what becomes of this one.
//!
//! Owns: when they are asked, and which conflicts there are. Must never: decide who gives itself up (`formation::course` does, or an operator), give this cluster
//! up before the other one has taken its members in, or take what is announced for a cluster: only a member's own answer is one. Driven by `peers`.

use std::collections::{BTreeMap, BTreeSet};
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
use crate::command::{CharterCommand, CommandVersion};
use crate::formation::{
    ABSORBED_MAX, Answer, Candidate, Conflict, Course, Question, Standing, View, course, outdated,
};
use crate::ids::{ClusterId, PublicKey};
use crate::peer::{AskError, Transport};
use crate::runtime::clock::random_u64;
use crate::store::Member;
use crate::telemetry::Listed;
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
                %cluster, addresses = %Listed(&addresses), %why,
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
    fn retain(&self, clusters: &BTreeSet<ClusterId>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|known, _| clusters.contains(known));
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

impl NotTakenIn {
    /// What an operator is told who has ordered it.
    fn refusal(self, cluster: ClusterId) -> YieldRefusal {
        match self {
            Self::Pending(why) => YieldRefusal::Sealed { cluster, why },
            Self::Said(why) => YieldRefusal::Declined { cluster, why },
        }
    }
}

/// A member of another cluster, as it has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Neighbour {
    key: PublicKey,
    at: SocketAddr,
    standing: Standing,
}

/// What has come of looking for a cluster that was announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Met {
    /// The one that is there, as it has said last.
    cluster: Option<ClusterId>,
    outcome: String,
}

/// The clusters that have answered, each once. Anybody can announce one under any number of names; its own counts most.
fn distinct(answers: &[(ClusterId, Option<Neighbour>)]) -> BTreeMap<ClusterId, &Neighbour> {
    let mut clusters = BTreeMap::new();
    for (announced, other) in answers {
        let Some(other) = other else { continue };
        let cluster = other.standing.cluster;
        if *announced == cluster || !clusters.contains_key(&cluster) {
            clusters.insert(cluster, other);
        }
    }
    clusters
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
        let (mut before, mut pause) = (BTreeMap::<ClusterId, Met>::new(), LOOKS);
        loop {
            let changed = self.lan.changed();
            let beside = self.lan.clusters_beside(own);
            before.retain(|announced, _| beside.contains_key(announced));
            self.desk.conflicts.retain(&before.values().filter_map(|met| met.cluster).collect());
            if beside.is_empty() {
                (before, pause) = (BTreeMap::new(), LOOKS);
                changed.await;
                continue;
            }
            // What became of one that is not asked this time is what became of it before.
            let mut now = before.clone();
            if self.desk.has_nothing_to_say().is_none() {
                self.meet_all(beside, &mut now).await;
            }
            for (announced, Met { outcome, cluster }) in
                now.iter().filter(|(id, met)| before.get(id) != Some(met))
            {
                tracing::info!(%announced, cluster = cluster.map(display), %outcome, "there is another cluster on this network");
            }
            pause = if now == before { LOOKS_MAX.min(pause * 2) } else { LOOKS };
            before = now;
            Timer::after(pause).await;
        }
    }

    /// Carries out what operators order, one after the other, until it is dropped.
    pub(super) async fn obey(&self, orders: Receiver<Order>) {
        while let Some(Order { winner, done }) = next_order(&orders).await {
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
        let asked = handle.view().applied();
        let beside = self.desk.conflicts.list().remove(&winner).ok_or(YieldRefusal::NoConflict(winner))?;
        let is_meant = |standing: &Standing| standing.cluster == winner;
        let found = self.ask_who(&beside.addresses, is_meant).await;
        let found = found.ok_or(YieldRefusal::Silent(winner))?;
        if let Some(outdated) = outdated(&self.desk.standing(), &found.standing, true) {
            return Err(YieldRefusal::Outdated { cluster: winner, outdated });
        }
        let witness = found.key;
        self.hand_members_over(&found).await.map_err(|why| why.refusal(winner))?;
        let order = CharterCommand::Yield { winner, witness, asked };
        let applied = handle.change_charter(order).await.map_err(YieldRefusal::Unknown)?;
        applied.outcome.map(drop).map_err(YieldRefusal::Rejected)
    }

    /// Asks the clusters that are announced, and notes what has come of it.
    async fn meet_all(
        &self,
        beside: BTreeMap<ClusterId, Vec<SocketAddr>>,
        met: &mut BTreeMap<ClusterId, Met>,
    ) {
        let asked = asked_now(beside.clone(), random_u64().unwrap_or_default());
        let ask = |(announced, addresses): (ClusterId, Vec<SocketAddr>)| async move {
            (announced, self.ask_who(&addresses, |_| true).await)
        };
        let answers = together(CLUSTERS_ASKED_MAX, asked, ask).await;
        let mut outcomes = BTreeMap::new();
        for (cluster, other) in distinct(&answers) {
            let addresses = beside.get(&cluster).cloned().unwrap_or_else(|| vec![other.at]);
            outcomes.insert(cluster, self.meet(other, addresses).await);
        }
        for (announced, other) in answers {
            let met = met.entry(announced).or_default();
            let cluster = other.map(|other| other.standing.cluster);
            // One that does not answer now is what it was.
            met.cluster = cluster.or(met.cluster);
            let outcome = cluster.and_then(|cluster| outcomes.get(&cluster).cloned());
            met.outcome = outcome.unwrap_or_else(|| "nobody answers".into());
        }
    }

    /// What this encounter has come to.
    async fn meet(&self, other: &Neighbour, addresses: Vec<SocketAddr>) -> String {
        let (own, cluster) = (self.desk.standing(), other.standing.cluster);
        if cluster == own.cluster {
            return "it has become a part of this one".into();
        }
        let course = course(&own, &other.standing, self.desk.trusts());
        if let Course::Conflict(why) = course {
            self.desk.conflicts.note(cluster, addresses, why, self.desk.clock.now());
            return why.to_string();
        }
        self.desk.conflicts.resolved(cluster);
        match course {
            Course::Yield if self.desk.handle.status().leads() => self.give_up_for(other).await,
            Course::Yield => "this one is about to give itself up for it".into(),
            Course::Wait | Course::Conflict(_) => "it is to give itself up for this one".into(),
        }
    }

    /// The first of them that answers as whoever is meant, and what it says of its cluster.
    async fn ask_who(
        &self,
        addresses: &[SocketAddr],
        is_meant: impl Fn(&Standing) -> bool,
    ) -> Option<Neighbour> {
        let (name, view) = (self.desk.name.clone(), View::default());
        let question = Question::Probe { name, over: None, view };
        let (question, is_meant) = (&question, &is_meant);
        let ask = |at: &SocketAddr| {
            let at = *at;
            async move {
                match self.transport.ask_stranger(at, question).await {
                    Ok((key, Answer::Member(standing))) if is_meant(&standing) => {
                        Ok(Neighbour { key, at, standing })
                    }
                    _ => Err(()),
                }
            }
        };
        staggered(addresses, ask).await.ok()
    }

    /// Has the other cluster take this one's members in, and gives this one up then.
    async fn give_up_for(&self, winner: &Neighbour) -> String {
        if let Err(why) = self.hand_members_over(winner).await {
            return why.to_string();
        }
        // What a user writes before this is in the log prevents it, and what comes after that fails.
        let (handle, winner) = (&self.desk.handle, winner.standing.cluster);
        match handle.change_charter(CharterCommand::Dissolve { winner }).await.map(|applied| applied.outcome)
        {
            Ok(Ok(_)) => "this one has given itself up for it".into(),
            Ok(Err(rejection)) => rejection.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Has the other cluster take this one's members in, on the word of the member of it that has answered.
    async fn hand_members_over(&self, winner: &Neighbour) -> Result<(), NotTakenIn> {
        let candidate = |member: &Member| {
            let (name, peer_urls) = (member.attributes.name.clone(), member.attributes.peer_urls.clone());
            Some(Candidate { key: member.key?, name, peer_urls })
        };
        let view = self.desk.handle.view();
        let own = PublicKey(*self.desk.identity.key.public());
        let (asks, mut others): (Vec<Candidate>, Vec<Candidate>) =
            view.facts().members.iter().filter_map(candidate).partition(|node| node.key == own);
        let understands = view.facts().understood();
        drop(view);
        others.sort_by_key(|node| node.key);
        let mut others = others.chunks(ABSORBED_MAX - 1);
        self.hand_over(winner, [&asks, others.next().unwrap_or_default()].concat(), understands).await?;
        for more in others {
            self.hand_over(winner, [&asks, more].concat(), understands).await?;
        }
        Ok(())
    }

    async fn hand_over(
        &self,
        winner: &Neighbour,
        nodes: Vec<Candidate>,
        understands: CommandVersion,
    ) -> Result<(), NotTakenIn> {
        let &Neighbour { key, at, ref standing } = winner;
        let (cluster, winner) = (self.desk.identity.cluster(), standing.cluster);
        let question = Question::Absorb { cluster, winner, nodes, understands };
        took_in(key, self.transport.ask_stranger(at, &question).await)
    }
}

/// The next order that somebody still waits for. Until the members' port is there orders wait, too, and whoever has given one up by then may have thought better of it.
async fn next_order(orders: &Receiver<Order>) -> Option<Order> {
    loop {
        let order = orders.recv().await.ok()?;
        if !order.done.is_canceled() {
            return Some(order);
        }
        tracing::warn!(winner = %order.winner, "nobody waits any more for an order that this cluster give itself up: it is dropped");
    }
}

/// Whether the node that has said which cluster it is in has had this one's members let in; or why not. Another one at its address may be of another cluster.
fn took_in(asked: PublicKey, answer: Result<(PublicKey, Answer), AskError>) -> Result<(), NotTakenIn> {
    match answer {
        Ok((key, _)) if key != asked => Err(NotTakenIn::Said("another node answers there by now".into())),
        Ok((_, Answer::Absorbed)) => Ok(()),
        Ok((_, Answer::Pending(why))) => Err(NotTakenIn::Pending(why)),
        Ok((_, Answer::Wait(why) | Answer::Refused(why))) => Err(NotTakenIn::Said(why)),
        Ok(_) => Err(NotTakenIn::Said("it answers something else than it was asked".into())),
        Err(error) => Err(NotTakenIn::Said(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formation::Generation;

    fn neighbour(key: u8, cluster: u64) -> Neighbour {
        let standing = Standing {
            name: String::new(),
            cluster: ClusterId(cluster),
            generation: Generation(1),
            committed: true,
            open: false,
            uses: CommandVersion::FIRST,
            understands: CommandVersion::FIRST,
        };
        Neighbour { key: PublicKey([key; 32]), at: ([10, 0, 0, key], 2380).into(), standing }
    }

    /// Whoever is on the network can announce its neighbour as a hundred clusters, each of them a conflict and a line for the operator.
    #[test]
    fn a_cluster_is_met_once_under_whatever_names_it_is_announced() {
        let announced = |id, other| (ClusterId(id), other);
        let answers = [
            announced(3, Some(neighbour(1, 7))),
            announced(4, None),
            announced(7, Some(neighbour(2, 7))),
            announced(8, Some(neighbour(1, 7))),
            announced(9, Some(neighbour(3, 5))),
            announced(10, Some(neighbour(4, 5))),
        ];
        let met = distinct(&answers);
        assert_eq!(met.keys().copied().collect::<Vec<_>>(), [ClusterId(5), ClusterId(7)]);
        assert_eq!(*met[&ClusterId(7)], neighbour(2, 7), "who is announced as what it is comes first");
        assert_eq!(*met[&ClusterId(5)], neighbour(3, 5));
    }

    #[test]
    fn a_cluster_gives_itself_up_on_the_word_of_the_node_that_it_has_met() {
        let (one, other) = (PublicKey([1; 32]), PublicKey([2; 32]));
        assert_eq!(took_in(one, Ok((one, Answer::Absorbed))), Ok(()));
        assert!(took_in(one, Ok((other, Answer::Absorbed))).is_err(), "it may be of another cluster");
        for answer in [Answer::Wait("?".into()), Answer::Pending("?".into()), Answer::Promised { round: 1 }] {
            assert!(took_in(one, Ok((one, answer))).is_err());
        }
        assert!(took_in(one, Err(AskError::NotProven)).is_err());
    }

    #[test]
    fn an_operator_is_told_why_the_other_cluster_lets_nobody_in() {
        let refusal = NotTakenIn::Pending("there are 128 members".into()).refusal(ClusterId(7));
        let text = refusal.to_string();
        assert!(text.contains("there are 128 members") && text.contains("covey node approve"), "{text}");
        assert!(matches!(refusal, YieldRefusal::Sealed { cluster: ClusterId(7), .. }));
    }

    #[test]
    fn an_order_that_nobody_waits_for_is_not_carried_out() {
        let (orders, ordered) = smol::channel::bounded(3);
        let order = |winner| {
            let (done, outcome) = oneshot::channel();
            orders.try_send(Order { winner: ClusterId(winner), done }).unwrap();
            outcome
        };
        drop(order(1));
        let waits = order(2);
        drop(order(3));
        orders.close();
        let next = || smol::block_on(next_order(&ordered)).map(|order| order.winner);
        assert_eq!(next(), Some(ClusterId(2)));
        assert_eq!(next(), None);
        drop(waits);
    }
}
