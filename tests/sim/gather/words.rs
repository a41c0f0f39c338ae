//! What members that hear no leader are told of their cluster, true or not, and what they have to lose by going by it.
//!
//! Owns: what is in the log of each beyond its state, and what whoever has a node's key says. Must never: decide who is believed (`formation::believe` does). Part
//! of [`World`].

use std::time::Duration;

use bytes::Bytes;
use covey::command::codec::encode;
use covey::command::{CharterCommand, Command, Envelope, Tombstone};
use covey::formation::{Generation, Known, Tail, believe, sign};
use covey::ids::{ClusterId, LogIndex, ProposalId, PublicKey, Term};
use covey::store::Dissolution;
use covey::wal::{EntryKind, LogEntry, Position};

use super::cluster::{Entry, write};
use super::host::Host;
use super::members::{Doing, Membership, Then};
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
        let entry = |(index, entry): (u64, &Entry)| {
            let (kind, data) = match entry {
                Entry::Change => (EntryKind::ConfChangeV2, Bytes::new()),
                Entry::Command(command) => {
                    let (id, command) = (ProposalId::default(), command.clone());
                    (EntryKind::Normal, encode(&Envelope { id, caller: None, command }))
                }
            };
            LogEntry { index: LogIndex(index), term: Term(1), kind, data }
        };
        let (applied, holds) = (self.hosts[at].membership.applied, self.hosts[at].disk.holds);
        let entries = self.clusters[cluster].entries(applied, holds.max(applied));
        let entries: Vec<LogEntry> = (applied as u64 + 1..).zip(entries).map(entry).collect();
        let last = LogIndex((applied + entries.len()) as u64);
        let written = self.facts(at, cluster).charter.committed;
        Tail::of(LogIndex(applied as u64), &entries, Position { index: last, term: Term(1) }, written)
    }

    /// Whether its cluster has ended, and its log may have what others have voted for than those that it knows: then it goes by nobody's word.
    pub(super) fn is_torn(&self, at: usize) -> bool {
        let Some(cluster) = self.is_in(at) else { return false };
        let tail = self.tail(at, cluster);
        self.clusters[cluster].winner().is_some() && tail.has_users() && tail.has_changes()
    }

    /// Whether somebody else has this key, too: of each cluster that of its founder.
    pub(super) fn is_taken(&self, key: PublicKey) -> bool {
        let is_founder = self.clusters.iter().any(|cluster| cluster.founder == key);
        is_founder && self.plan.meets.is_some_and(|meets| meets.taken)
    }

    /// Users write as soon as others vote; and who has all of that in its log, and does not know yet that it counts, hears no more.
    pub(super) fn is_torn_away(&mut self, cluster: usize) {
        if self.healed || !self.plan.meets.is_some_and(|meets| meets.cuts) {
            return;
        }
        let Some(leader) = self.clusters[cluster].leader else { return };
        self.propose(leader, write(), Then::Nothing);
        let soon = self.plan.meets.map_or(Duration::ZERO, |meets| meets.commit) + Duration::from_millis(500);
        self.later(soon, Doing::CutOff(cluster));
    }

    pub(super) fn cuts_off(&mut self, cluster: usize) {
        let voters = self.clusters[cluster].voters().into_iter().map(|key| self.host_of(key));
        let leader = self.clusters[cluster].leader;
        let knows_less = |host: &usize| self.hosts[*host].disk.holds > self.hosts[*host].membership.applied;
        let late = voters
            .filter(|host| Some(*host) != leader && self.is_in(*host) == Some(cluster))
            .find(knows_less);
        let (Some(late), Some(last)) = (late.filter(|_| !self.healed), self.parts.iter().max()) else {
            return;
        };
        self.parts[late] = last + 1;
        self.note(&[18, late as u64], || format!("node {late} is cut off"));
        self.parted();
    }

    /// Somebody who has keys makes up words, in the names of those, of others, and of nobody.
    pub(super) fn floods(&mut self, at: usize, cluster: usize) {
        let leader = self.clusters[cluster].leader;
        if self.healed || !leader.is_some_and(|leader| self.has_majority(cluster, leader)) {
            return;
        }
        self.note(&[17, at as u64], || format!("somebody makes up words in cluster {cluster}"));
        let winner = self.clusters[cluster].id();
        let end = Dissolution { winner, at: FAR, ordered: false };
        let members: Vec<PublicKey> = self.clusters[cluster].tip().keys().map(|(_, key)| key).collect();
        let founder = self.host_of(self.clusters[cluster].founder);
        for _ in 0..self.prng.range(64, 130) {
            let of = ClusterId(self.prng.next_u64());
            let mut word = sign(&self.hosts[founder].node_key, of, Generation(1), end);
            match self.prng.range(0, 4) {
                0 => word = sign(&Host::new(&mut self.prng).node_key, of, Generation(1), end),
                1 => word.signer = members[self.pick() % members.len()],
                2 => {
                    let other = self.pick() % self.clusters.len();
                    let other = &self.clusters[other];
                    let taken = &self.hosts[self.host_of(other.founder)].node_key;
                    word = sign(taken, other.id(), Generation(1), end);
                }
                _ => {}
            }
            let command = CharterCommand::BurySigned { tombstone: word, ordered: None };
            self.clusters[cluster].apply(&Command::Charter(command));
        }
        self.report.floods += 1;
    }

    /// An end that stands in the cluster's log beyond a member's state, also one that is refused.
    fn end_in_log(&self, at: usize, cluster: usize) -> Option<Dissolution> {
        let (cluster, applied) = (&self.clusters[cluster], self.hosts[at].membership.applied);
        let mut entries = (applied as u64 + 1..).zip(cluster.entries(applied, cluster.len()));
        entries.find_map(|(index, entry)| match entry {
            Entry::Command(Command::Charter(CharterCommand::Dissolve { winner })) => {
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
        let taken = self.host_of(self.clusters[cluster].founder);
        let is_elsewhere = |other: &usize| *other != cluster && self.clusters[*other].winner().is_none();
        let Some(other) = (0..self.clusters.len()).find(is_elsewhere) else { return };
        let far = Dissolution { winner: self.clusters[other].id(), at: FAR, ordered: false };
        let end = self.end_in_log(at, cluster).filter(|_| self.prng.one_in(2)).unwrap_or(far);
        let word = sign(&self.hosts[taken].node_key, self.clusters[cluster].id(), Generation(1), end);
        let before = self.report.told;
        self.told(at, cluster, &[word]);
        self.report.lured += self.report.told - before;
    }

    /// It leaves on the word of members that it knows; where that is not true, it had nothing that a user was told is written.
    pub(super) fn told(&mut self, at: usize, cluster: usize, tombstones: &[Tombstone]) {
        let (id, facts) = (self.clusters[cluster].id(), self.facts(at, cluster));
        let Membership { applied, ends, .. } = self.hosts[at].membership;
        let (tail, applied, suspect) = (self.tail(at, cluster), LogIndex(applied as u64), false);
        self.report.torn += u64::from(!ends && tail.has_users() && tail.has_changes());
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
            !tail.has_users() || !tail.has_changes(),
            "node {at} leaves cluster {id} and cannot know who votes"
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
