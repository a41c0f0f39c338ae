//! Other clusters on the LAN: who they are, and what becomes of this one.
//!
//! Owns: when they are asked, and which conflicts there are. Must never: decide who gives itself up (`formation::course` does), give this cluster up before the
//! other one has taken its members in, or take what is announced for a cluster: only a member's own answer is one. Driven by `peers`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use smol::Timer;

use super::admission::Desk;
use super::lan::Lan;
use super::staggered::staggered;
use crate::command::CharterCommand;
use crate::formation::{ABSORBED_MAX, Answer, Candidate, Conflict, Course, Question, Standing, View, course};
use crate::ids::ClusterId;
use crate::peer::Transport;
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
            let mut now = BTreeMap::new();
            if self.desk.has_nothing_to_say().is_none() {
                for (cluster, addresses) in beside {
                    now.insert(cluster, self.meet(cluster, addresses).await);
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

    /// What this encounter has come to.
    async fn meet(&self, announced: ClusterId, addresses: Vec<SocketAddr>) -> String {
        let Some((at, other)) = self.ask_who(&addresses).await else { return "nobody answers".into() };
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

    /// The first of them that answers, and what it says of its cluster.
    async fn ask_who(&self, addresses: &[SocketAddr]) -> Option<(SocketAddr, Standing)> {
        let (name, view) = (self.desk.name.clone(), View::default());
        let question = Question::Probe { name, over: None, view };
        let question = &question;
        let ask = |at: &SocketAddr| {
            let at = *at;
            async move {
                match self.transport.ask_stranger(at, question).await {
                    Ok((_, Answer::Member(standing))) => Ok((at, standing)),
                    _ => Err(()),
                }
            }
        };
        staggered(addresses, ask).await.ok()
    }

    /// Has the other cluster take this one's members in, and gives this one up then.
    async fn give_up_for(&self, winner: &Standing, at: SocketAddr) -> String {
        let handle = &self.desk.handle;
        let candidate = |member: &Member| {
            let (name, peer_urls) = (member.attributes.name.clone(), member.attributes.peer_urls.clone());
            Some(Candidate { key: member.key?, name, peer_urls })
        };
        let mut nodes: Vec<Candidate> = handle.view().facts().members.iter().filter_map(candidate).collect();
        if nodes.len() > ABSORBED_MAX {
            return "this cluster has too many members to give itself up by itself".into();
        }
        nodes.sort_by_key(|node| node.key);
        let question = Question::Absorb { cluster: self.desk.identity.cluster(), nodes };
        match self.transport.ask_stranger(at, &question).await {
            Ok((_, Answer::Absorbed)) => {}
            Ok((_, Answer::Pending(why) | Answer::Wait(why) | Answer::Refused(why))) => return why,
            Ok(_) => return "it answers something else than it was asked".into(),
            Err(error) => return error.to_string(),
        }
        // What a user writes before this is in the log prevents it, and what comes after that fails.
        let winner = winner.cluster;
        match handle.change_charter(CharterCommand::Dissolve { winner }).await.map(|applied| applied.outcome)
        {
            Ok(Ok(_)) => "this one has given itself up for it".into(),
            Ok(Err(rejection)) => rejection.to_string(),
            Err(error) => error.to_string(),
        }
    }
}
