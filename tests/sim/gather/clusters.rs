//! What must hold between clusters that meet, and what a whole network comes to.
//!
//! Owns: the checks after every change of a cluster, and the end of a run. Must never: change anything but by the events of `world`. Part of [`World`].

use std::collections::BTreeSet;
use std::time::Duration;

use covey::command::CommandVersion;
use covey::ids::ClusterId;
use covey::time::Instant;

use super::cluster::{Cluster, member};
use super::world::{Obstacle, Report, World};

/// Once nothing goes wrong any more a network becomes one cluster in so long: nodes that are in none need a minute, and clusters dissolve one after the other.
const ONE_CLUSTER: Duration = Duration::from_secs(150);

impl World {
    fn cluster_of(&self, id: ClusterId) -> usize {
        self.clusters.iter().position(|cluster| cluster.id() == id).expect("a cluster")
    }

    /// Whoever dissolves has been taken in, as far as it was known when that was asked for.
    pub(super) fn check_taken_in(&self, cluster: usize, asked: usize, winner: ClusterId) {
        let winner = &self.clusters[self.cluster_of(winner)];
        for key in self.clusters[cluster].at(asked).members.iter().filter_map(|member| member.key) {
            let taken = member(winner.tip(), key).is_some();
            let host = self.host_of(key);
            assert!(taken, "cluster {cluster} dissolves and node {host} was not taken in");
        }
    }

    /// After every change of a cluster or of who is in it.
    pub(super) fn check_clusters(&self) {
        for cluster in &self.clusters {
            let (mut next, mut steps) = (cluster.winner(), 0);
            while let Some(winner) = next {
                steps += 1;
                assert!(steps <= self.clusters.len(), "clusters dissolve into each other: {}", cluster.id());
                next = self.clusters[self.cluster_of(winner)].winner();
            }
        }
        for cluster in self.clusters.iter().filter(|cluster| cluster.winner().is_none()) {
            let (id, uses) = (cluster.id(), cluster.tip().commands);
            assert!(
                self.understood(cluster) >= uses,
                "cluster {id} has members that do not understand {uses:?}"
            );
        }
        for (host, box_) in self.hosts.iter().enumerate() {
            let lives = self.clusters.iter().filter(|cluster| cluster.winner().is_none());
            let votes =
                lives.filter(|cluster| member(cluster.tip(), box_.key).is_some_and(|member| member.votes));
            // Whoever has left by a lie still has a place where it was.
            let votes = votes.count();
            assert!(votes <= 1 || self.report.deceived > 0, "node {host} votes in two clusters that live");
            if let Some(cluster) = self.is_in(host) {
                let root = self.clusters[cluster].root;
                assert!(box_.disk.cluster == Some(root), "node {host} acts for another cluster than its own");
                assert!(
                    !box_.membership.former.contains(&root),
                    "node {host} acts for a cluster that it has left"
                );
            }
        }
    }

    pub(super) fn run_meeting(mut self) -> Report {
        self.users();
        let from = Instant(0) + self.plan.heal.max(self.last_switch());
        let limit = from + ONE_CLUSTER;
        while !(self.healed && self.is_one()) && self.queue.now() < limit {
            let event = self.queue.pop().expect("time goes on");
            self.happens(event);
        }
        self.check_clusters();
        self.report.took = self.queue.now().since(from);
        if !self.is_one() {
            self.report.obstacle = self.obstacle();
            assert!(
                self.report.obstacle.is_some(),
                "not one cluster in {ONE_CLUSTER:?}: {}; {}",
                self.standing(),
                self.roll()
            );
        }
        let ghosts = self.ghosts();
        let lives: BTreeSet<usize> = (0..self.hosts.len()).filter_map(|host| self.is_in(host)).collect();
        Report {
            clusters: lives.len(),
            trace: self.trace.hash(),
            events: self.trace.events(),
            ghosts,
            simulated: self.queue.now().since(Instant(0)),
            ..self.report
        }
    }

    /// All nodes are in one cluster and know its last entry.
    fn is_one(&self) -> bool {
        let Some(cluster) = self.is_in(0) else { return false };
        let tip = self.clusters[cluster].len();
        let knows =
            |host: usize| self.is_in(host) == Some(cluster) && self.hosts[host].membership.applied == tip;
        self.clusters[cluster].winner().is_none() && (0..self.hosts.len()).all(knows)
    }

    /// Members of living clusters whose nodes are in another one.
    fn ghosts(&self) -> usize {
        let lives = self.clusters.iter().enumerate().filter(|(_, cluster)| cluster.winner().is_none());
        let lives =
            lives.filter(|(number, _)| (0..self.hosts.len()).any(|host| self.is_in(host) == Some(*number)));
        let of = |(number, cluster): (usize, &Cluster)| {
            let keys = cluster.tip().members.iter().filter_map(|member| member.key);
            keys.filter(|key| self.is_in(self.host_of(*key)) != Some(number)).count()
        };
        lives.map(of).sum()
    }

    fn obstacle(&self) -> Option<Obstacle> {
        let there: BTreeSet<usize> =
            self.hosts.iter().filter_map(|host| Some(self.number(host.disk.cluster?))).collect();
        let there: Vec<_> = there.into_iter().map(|cluster| &self.clusters[cluster]).collect();
        // A node that is in none is none of them.
        let live = || there.iter().copied().filter(|cluster| cluster.winner().is_none());
        let fleet = self.plan.meets.is_some_and(|meets| meets.fleet);
        if self.report.deceived > 0 {
            Some(Obstacle::Deceived)
        } else if live().filter(|cluster| cluster.tip().charter.committed).count() > 1 {
            Some(Obstacle::Conflict)
        } else if !fleet && live().any(|cluster| !cluster.tip().charter.is_open()) {
            Some(Obstacle::Sealed)
        } else if self.is_outdated(&live().collect::<Vec<_>>()) {
            Some(Obstacle::Outdated)
        } else if (0..self.hosts.len()).any(|host| self.is_torn(host)) {
            Some(Obstacle::Torn)
        } else if self.report.lured > 0 && there.iter().any(|cluster| cluster.winner().is_some()) {
            Some(Obstacle::Lured)
        } else {
            None
        }
    }

    /// The newest commands that all members of a cluster understand.
    pub(super) fn understood(&self, cluster: &Cluster) -> CommandVersion {
        let members = cluster.tip().members.iter().filter_map(|member| member.key);
        let understood = members.map(|key| self.plan.understands[self.host_of(key)]).min();
        understood.unwrap_or(cluster.tip().commands)
    }

    /// Whether a node that is in no cluster, or a cluster's members, are of too old a build for one of these.
    fn is_outdated(&self, live: &[&Cluster]) -> bool {
        let newest = live.iter().map(|cluster| cluster.tip().commands).max().unwrap_or_default();
        let alone = |host: usize| self.hosts[host].disk.cluster.is_none();
        let nodes = (0..self.hosts.len()).filter(|host| alone(*host));
        let mut understood = nodes.map(|host| self.plan.understands[host]);
        // The one that would have to give itself up is the one that has to understand the other.
        let rank = |cluster: &Cluster| (!cluster.tip().charter.committed, cluster.id());
        let yields_to = |one: &Cluster, other: &Cluster| {
            rank(other) < rank(one) && self.understood(one) < other.tip().commands
        };
        understood.any(|understands| understands < newest)
            || live.iter().any(|one| live.iter().any(|other| yields_to(one, other)))
    }

    /// Who is where.
    fn roll(&self) -> String {
        let of = |host: usize| {
            let cluster = self.is_in(host)?;
            let applied = self.hosts[host].membership.applied;
            Some((cluster, applied, self.clusters[cluster].len()))
        };
        let hosts: Vec<_> = (0..self.hosts.len()).map(of).collect();
        let clusters = self.clusters.iter().map(|cluster| {
            (
                cluster.id(),
                cluster.winner(),
                cluster.leader,
                cluster.tip().charter.committed,
                cluster.voters().len(),
            )
        });
        format!("{hosts:?} {:?}", clusters.collect::<Vec<_>>())
    }
}
