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
use crate::command::{CharterCommand, Command};
use crate::formation::{Answer, Candidate, Conflict, Course, Question, Standing, View, course};
use crate::ids::ClusterId;
use crate::peer::Transport;
use crate::store::Member;
use crate::time::Instant;

/// How often another cluster is asked by a leader, which may have something to do, ...
const LEADER_LOOKS: Duration = Duration::from_secs(2);
/// ... and by the others, which only tell their operators.
const OTHERS_LOOK: Duration = Duration::from_secs(10);

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
    /// Looks out for other clusters, until it is dropped. Without any it costs nothing.
    pub(super) async fn look_out(&self) {
        let own = self.desk.identity.cluster();
        loop {
            let changed = self.lan.changed();
            let beside = self.lan.clusters_beside(own);
            self.desk.conflicts.retain(&beside);
            if beside.is_empty() {
                changed.await;
                continue;
            }
            for (cluster, addresses) in beside {
                self.meet(cluster, addresses).await;
            }
            let pause = if self.leads() { LEADER_LOOKS } else { OTHERS_LOOK };
            Timer::after(pause).await;
        }
    }

    fn leads(&self) -> bool {
        let status = self.desk.handle.status();
        status.leader == Some(status.member)
    }

    async fn meet(&self, announced: ClusterId, addresses: Vec<SocketAddr>) {
        let Some((at, other)) = self.ask_who(&addresses).await else { return };
        let own = self.desk.standing();
        if other.cluster == own.cluster {
            // It has joined this one, and the word of that is on its way.
            return self.desk.conflicts.resolved(announced);
        }
        match course(&own, &other, self.desk.trusts()) {
            Course::Wait => self.desk.conflicts.resolved(other.cluster),
            Course::Conflict(why) => {
                self.desk.conflicts.note(other.cluster, addresses, why, self.desk.clock.now());
            }
            Course::Yield if self.leads() => self.give_up_for(&other, at).await,
            Course::Yield => {}
        }
    }

    /// The first of them that answers, and what it says of its cluster.
    async fn ask_who(&self, addresses: &[SocketAddr]) -> Option<(SocketAddr, Standing)> {
        let (name, view) = (self.desk.name.clone(), View::default());
        let question = Question::Probe { name, over: None, view };
        for at in addresses {
            if let Ok((_, Answer::Member(standing))) = self.transport.ask_stranger(*at, &question).await {
                return Some((*at, standing));
            }
        }
        None
    }

    /// Has the other cluster take this one's members in, and gives this one up then.
    async fn give_up_for(&self, winner: &Standing, at: SocketAddr) {
        let handle = &self.desk.handle;
        let candidate = |member: &Member| {
            let (name, peer_urls) = (member.attributes.name.clone(), member.attributes.peer_urls.clone());
            Some(Candidate { key: member.key?, name, peer_urls })
        };
        let nodes = handle.view().facts().members.iter().filter_map(candidate).collect();
        let question = Question::Absorb { cluster: self.desk.identity.cluster(), nodes };
        let winner = winner.cluster;
        match self.transport.ask_stranger(at, &question).await {
            Ok((_, Answer::Absorbed)) => {}
            Ok((_, answer)) => {
                return tracing::info!(%winner, ?answer, "another cluster does not take this one's members in");
            }
            Err(error) => return tracing::info!(%winner, %error, "cannot talk to another cluster"),
        }
        // What a user writes before this is in the log prevents it, and what comes after that fails.
        match handle.propose(Command::Charter(CharterCommand::Dissolve { winner })).await {
            Ok(applied) => {
                tracing::warn!(%winner, outcome = ?applied.outcome, "gave this cluster up for another one")
            }
            Err(error) => tracing::info!(%winner, %error, "cannot give this cluster up"),
        }
    }
}
