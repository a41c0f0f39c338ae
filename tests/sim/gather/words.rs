//! What members that hear no leader are told of their cluster, true or not, and what they have to lose by going by it.
//!
//! Owns: what is in the log of each beyond its state, and what whoever has a node's key says. Must never: decide who is believed (`formation::believe` does). Part
//! of [`World`].

use std::time::Duration;

use covey::command::codec::encode;
use covey::command::{CharterCommand, Command, Envelope, Tombstone};
use covey::formation::{Generation, Known, Tail, believe, sign};
use covey::ids::{LogIndex, ProposalId, Term};
use covey::mvcc::Facts;
use covey::store::{ConfState, Dissolution, Member};
use covey::wal::{EntryKind, LogEntry, Position};

use super::members::{Doing, Membership};
use super::world::World;

/// Where the clusters of a liar have ended: further than any log goes.
const FAR: LogIndex = LogIndex(1 << 40);

impl World {
    /// An entry is in the logs of all voters that the leader reaches, before most of them know that it counts.
    pub(super) fn is_taken_by_voters(&mut self, cluster: usize, index: usize) {
        let Some(leader) = self.clusters[cluster].leader else { return };
        for key in self.clusters[cluster].voters() {
            let host = self.host_of(key);
            if self.is_in(host) == Some(cluster) && self.reach(leader, host) {
                self.hosts[host].disk.holds = index;
            }
        }
    }

    /// What is in a member's log beyond its state.
    fn tail(&self, at: usize, cluster: usize) -> Tail {
        let entry = |(index, command): (u64, &Command)| {
            let command = command.clone();
            let data = encode(&Envelope { id: ProposalId::default(), caller: None, command });
            LogEntry { index: LogIndex(index), term: Term(1), kind: EntryKind::Normal, data }
        };
        let (applied, holds) = (self.hosts[at].membership.applied, self.hosts[at].disk.holds);
        let entries = self.clusters[cluster].entries(applied, holds.max(applied));
        let entries: Vec<LogEntry> = (applied as u64 + 1..).zip(entries).map(entry).collect();
        let last = LogIndex((applied + entries.len()) as u64);
        let written = self.facts(at, cluster).charter.committed;
        Tail::of(LogIndex(applied as u64), &entries, Position { index: last, term: Term(1) }, written)
    }

    /// The member whose key somebody has.
    fn taken_of(&self, facts: &Facts) -> Option<usize> {
        Some(self.host_of(facts.members.iter().find_map(|member| member.key)?))
    }

    /// An end that stands in the cluster's log beyond a member's state, also one that is refused.
    fn end_in_log(&self, at: usize, cluster: usize) -> Option<Dissolution> {
        let (cluster, applied) = (&self.clusters[cluster], self.hosts[at].membership.applied);
        let mut entries = (applied as u64 + 1..).zip(cluster.entries(applied, cluster.len()));
        entries.find_map(|(index, command)| match command {
            Command::Charter(CharterCommand::Dissolve { winner }) => {
                Some(Dissolution { winner: *winner, at: LogIndex(index), ordered: false })
            }
            _ => None,
        })
    }

    /// Somebody who has the key of a member that it knows says that its cluster has ended for another one.
    pub(super) fn is_lied_to(&mut self, at: usize, cluster: usize) {
        if self.healed || !self.plan.meets.is_some_and(|meets| meets.taken) {
            return;
        }
        let Some(taken) = self.taken_of(&self.facts(at, cluster)) else { return };
        let is_elsewhere = |other: &usize| *other != cluster && self.clusters[*other].winner().is_none();
        let Some(other) = (0..self.clusters.len()).find(is_elsewhere) else { return };
        let far = Dissolution { winner: self.clusters[other].id(), at: FAR, ordered: false };
        let end = self.end_in_log(at, cluster).filter(|_| self.prng.one_in(2)).unwrap_or(far);
        let word = sign(&self.hosts[taken].node_key, self.clusters[cluster].id(), Generation(1), end);
        self.told(at, cluster, &[word]);
    }

    /// It leaves on the word of members that it knows; where that is not true, it had nothing that a user was told is written.
    pub(super) fn told(&mut self, at: usize, cluster: usize, tombstones: &[Tombstone]) {
        let (id, mut facts) = (self.clusters[cluster].id(), Facts::clone(&self.facts(at, cluster)));
        let votes = facts.members.iter().filter(|member| member.votes && member.key.is_some());
        let voters = votes.map(Member::id).collect();
        facts.conf_state = ConfState { voters, ..ConfState::default() };
        let Membership { applied, ends, .. } = self.hosts[at].membership;
        let (tail, applied, suspect) = (self.tail(at, cluster), LogIndex(applied as u64), false);
        let known = Known { cluster: id, generation: Generation(1), applied, facts: &facts, tail, suspect };
        let Some(Dissolution { winner, .. }) = believe(tombstones, &known).ok().filter(|_| !ends) else {
            return;
        };
        let is_true = self.clusters[cluster].winner() == Some(winner);
        let holds = self.clusters[cluster].at(self.hosts[at].disk.holds);
        assert!(
            is_true || !holds.charter.committed,
            "node {at} leaves cluster {id} with what a user has written, on the word of one that lies"
        );
        assert!(
            is_true || self.plan.meets.is_some_and(|meets| meets.taken),
            "node {at} leaves cluster {id} for one that it has not ended for"
        );
        let host = &mut self.hosts[at];
        let Membership { ends, told, deceived, .. } = &mut host.membership;
        (*ends, *told, *deceived) = (true, Some(winner), !is_true);
        let boot = host.boot;
        self.report.told += 1;
        self.report.deceived += u64::from(!is_true);
        self.later(Duration::from_millis(1), Doing::Leaves(at, boot));
    }
}
