//! Members of clusters that formed by themselves, and clusters that meet: what `app` does there, in virtual time.
//!
//! Owns: who leads, what is committed and who knows, who asks other clusters, and who leaves. Must never: decide what an entry does (the real machine does), or
//! who gives up (`formation::course`). Driven by `world`; what must hold is in `clusters`.
//!
//! What `app::admission`, `app::encounters` and `app::fates` do is said again here, since they are above the line.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use covey::command::{
    Admission, Applied, CharterCommand, Command, CommandVersion, MemberCommand, Outcome, Tombstone,
};
use covey::formation::gathering::{AskId, Whom};
use covey::formation::{
    Answer, Candidate, ClusterRoot, Course, Fingerprint, Generation, Question, Standing, View, Welcome,
    burial, course, joining_state, ordered_of, sign, taken_along,
};
use covey::ids::{ClusterId, Incarnation, LogIndex, PublicKey};
use covey::mvcc::Facts;
use covey::store::Member;
use covey::time::Instant;

use super::cluster::{Cluster, empty, member, write};
use super::host::{Disk, Node};
use super::world::{Event, World};

/// As in `app`: how often a leader asks other clusters, and how long a member goes on after the end of its cluster.
const LEADER_LOOKS: Duration = Duration::from_secs(2);
const LINGER: Duration = Duration::from_secs(2);
/// How long a member hears no leader before it asks what became of its cluster.
const SILENT: Duration = Duration::from_secs(10);
/// How often it is looked whether a cluster has a leader.
const ELECTIONS: Duration = Duration::from_millis(700);
/// How long raft's configuration takes to follow the members, with each step.
const CHANGES: Duration = Duration::from_millis(10);
/// How long a member that joins, and one that starts again, waits for the leader at most.
const STATE_COMES: Duration = Duration::from_secs(5);
const FIRST_ENTRIES: Duration = Duration::from_millis(500);
/// An entry that no majority takes is lost after so many attempts.
const ATTEMPTS_MAX: u32 = 6;
/// As `limits::VOTERS`.
const VOTERS: usize = 3;

/// What a member knows, beside its disk.
#[derive(Default)]
pub(super) struct Membership {
    /// What it begins with, before any entry.
    begins: Option<Arc<Facts>>,
    /// How much of the log it has applied.
    pub(super) applied: usize,
    /// It believes that it leads.
    leads: bool,
    /// It has seen the end of its cluster, or was told of it.
    pub(super) ends: bool,
    pub(super) told: Option<ClusterId>,
    /// That was not true.
    pub(super) deceived: bool,
    /// Since when it hears no leader.
    silent_since: Option<Instant>,
    asked: BTreeMap<AskId, Asked>,
    last_ask: u64,
    /// The clusters that it was in before.
    pub(super) former: Vec<ClusterRoot>,
}

/// What it has asked another cluster's member.
#[derive(Clone, Copy)]
enum Asked {
    Who,
    /// To take these in: its members as of this entry. Whether an operator has ordered that.
    Absorb(ClusterId, usize, bool),
    /// What became of its own cluster.
    Fate,
}

/// What happens in clusters.
pub(super) enum Doing {
    Applies(usize, u64),
    Looks(usize, u64),
    Elects(usize),
    /// Raft's configuration follows the members.
    Changes(usize),
    /// A voter is cut off.
    CutOff(usize),
    Leaves(usize, u64),
    Archived(usize, u64),
    Commits {
        cluster: usize,
        by: (usize, u64),
        command: Command,
        then: Then,
        attempt: u32,
    },
    Decided {
        by: (usize, u64),
        index: usize,
        applied: Applied,
        then: Then,
    },
    Users,
    Regroups,
}

/// What comes after an entry that a member has waited for.
#[derive(Clone)]
pub(super) enum Then {
    Nothing,
    /// Admissions, one after the other, and the answer to who has asked.
    Admits(Request),
    /// Nothing; the members as of this entry were taken in by the winner.
    Dissolves(usize),
    /// The cluster remembers what the node's disk need not any more.
    Buries(Tombstone),
}

#[derive(Clone)]
pub(super) struct Request {
    to: (usize, u64, AskId),
    left: Vec<Candidate>,
    joins: Option<(PublicKey, Incarnation)>,
    /// The cluster that they are all of.
    of: Option<ClusterId>,
}

impl World {
    /// Which cluster a root is of.
    pub(super) fn number(&self, root: ClusterRoot) -> usize {
        self.clusters.iter().position(|cluster| cluster.root == root).expect("a cluster")
    }

    pub(super) fn host_of(&self, key: PublicKey) -> usize {
        self.hosts.iter().position(|host| host.key == key).expect("a host")
    }

    /// The cluster that a running member is in.
    pub(super) fn is_in(&self, at: usize) -> Option<usize> {
        match self.hosts[at].node {
            Node::Member(root) => Some(self.number(root)),
            Node::Off | Node::Fresh { .. } => None,
        }
    }

    /// What a member has applied.
    pub(super) fn facts(&self, at: usize, cluster: usize) -> Arc<Facts> {
        let membership = &self.hosts[at].membership;
        let begins = membership.begins.as_ref().filter(|_| membership.applied == 0);
        Arc::clone(begins.unwrap_or_else(|| self.clusters[cluster].at(membership.applied)))
    }

    /// Members connect in one direction or the other.
    pub(super) fn reach(&self, one: usize, other: usize) -> bool {
        let dials = one == other || self.dials[one][other] || self.dials[other][one];
        dials && self.is_up(one) && self.is_up(other)
    }

    pub(super) fn has_majority(&self, cluster: usize, leader: usize) -> bool {
        let is_here = |key| {
            let voter = self.host_of(key);
            self.is_in(voter) == Some(cluster) && self.reach(leader, voter)
        };
        self.is_in(leader) == Some(cluster) && self.clusters[cluster].is_majority(is_here)
    }

    fn within(&mut self, most: Duration) -> Duration {
        let most = if self.healed { most.min(Duration::from_millis(200)) } else { most };
        Duration::from_micros(self.prng.range(500, u64::try_from(most.as_micros()).expect("short").max(501)))
    }

    pub(super) fn later(&mut self, delay: Duration, doing: Doing) {
        self.queue.after(delay, Event::Doing(doing));
    }

    pub(super) fn does(&mut self, doing: Doing) {
        let is_now = |world: &Self, (at, boot): (usize, u64)| world.hosts[at].boot == boot;
        match doing {
            Doing::Applies(at, boot) if is_now(self, (at, boot)) => self.applies(at),
            Doing::Looks(at, boot) if is_now(self, (at, boot)) => self.looks(at),
            Doing::Leaves(at, boot) if is_now(self, (at, boot)) => self.leaves(at),
            Doing::Archived(at, boot) if is_now(self, (at, boot)) => self.archived(at),
            Doing::Decided { by, .. } if !is_now(self, by) => {}
            Doing::Decided { by: (at, boot), index, applied, then } => {
                let Some(cluster) = self.is_in(at) else { return };
                if self.hosts[at].membership.applied < index {
                    let again = Doing::Decided { by: (at, boot), index, applied, then };
                    return self.later(Duration::from_millis(100), again);
                }
                self.decided(at, cluster, &applied, then);
            }
            Doing::Elects(cluster) => self.elects(cluster),
            Doing::Changes(cluster) => self.changes(cluster),
            Doing::CutOff(cluster) => self.cuts_off(cluster),
            Doing::Commits { cluster, by, command, then, attempt } => {
                self.commits(cluster, by, command, then, attempt);
            }
            Doing::Users => self.users(),
            Doing::Regroups => self.regroups(),
            Doing::Applies(..) | Doing::Looks(..) | Doing::Leaves(..) | Doing::Archived(..) => {}
        }
    }

    // The network.

    /// The network begins in parts, so that each founds a cluster.
    pub(super) fn begin_apart(&mut self) {
        let Some(meets) = self.plan.meets else { return };
        self.parts = self.hosts.iter().map(|_| self.prng.range(0, meets.parts)).collect();
        self.part_network();
        let gap = meets.regroup_gap + crate::plan::draw(&mut self.prng, meets.regroup_gap);
        self.later(gap, Doing::Regroups);
    }

    /// Two parts meet, or all is mixed anew.
    fn regroups(&mut self) {
        let Some(meets) = self.plan.meets.filter(|_| !self.healed) else { return };
        if self.prng.one_in(4) {
            let parts = self.prng.range(1, meets.parts + 1);
            for part in &mut self.parts {
                *part = self.prng.range(0, parts);
            }
        } else {
            let (one, other) = (self.pick(), self.pick());
            let (from, to) = (self.parts[one], self.parts[other]);
            self.parts.iter_mut().filter(|part| **part == from).for_each(|part| *part = to);
        }
        self.note(&[14], || "the network falls into other parts".into());
        self.parted();
        let gap = crate::plan::draw(&mut self.prng, meets.regroup_gap);
        self.later(gap, Doing::Regroups);
    }

    /// The network is in other parts, which all nodes see.
    pub(super) fn parted(&mut self) {
        self.part_network();
        for host in 0..self.hosts.len() {
            self.changed(host);
        }
    }

    fn part_network(&mut self) {
        for one in 0..self.hosts.len() {
            for other in 0..self.hosts.len() {
                let together = self.parts[one] == self.parts[other];
                (self.dials[one][other], self.sees[one][other]) = (together, together);
            }
        }
    }

    // Their lives.

    /// A node has founded, or joins one that has these members.
    pub(super) fn begins(&mut self, at: usize, root: ClusterRoot, members: Vec<Member>) {
        if self.plan.meets.is_none() {
            return;
        }
        let host = &mut self.hosts[at];
        let again = host.membership.former.contains(&root);
        assert!(!again, "node {at} is in a cluster again that has ended for it");
        let former = std::mem::take(&mut host.membership.former);
        host.membership = Membership { former, ..Membership::default() };
        if members.is_empty() {
            let number = self.clusters.len();
            let cluster = Cluster::found(&Self::base(self.plan.understands[at]), root, host.key, at);
            (host.disk.applied, host.disk.holds) = (cluster.len(), cluster.len());
            self.clusters.push(cluster);
            self.later(ELECTIONS, Doing::Elects(number));
        } else {
            let number = self.number(root);
            let (meta, _) = joining_state(members);
            let mut facts = Facts::clone(self.clusters[number].at(0));
            (facts.members, facts.charter) = (meta.members, meta.charter);
            self.hosts[at].membership.begins = Some(Arc::new(facts));
        }
        self.takes_part(at);
        self.check_clusters();
    }

    /// A member runs.
    pub(super) fn takes_part(&mut self, at: usize) {
        if self.plan.meets.is_none() {
            return;
        }
        let host = &mut self.hosts[at];
        let (boot, applied) = (host.boot, host.disk.applied);
        let Membership { former, begins, .. } = std::mem::take(&mut host.membership);
        host.membership = Membership { former, begins, applied, last_ask: 1 << 32, ..Membership::default() };
        // Whoever joins has nothing before the state comes.
        let longest = if applied == 0 { STATE_COMES } else { FIRST_ENTRIES };
        let soon =
            Duration::from_millis(self.prng.range(1, u64::try_from(longest.as_millis()).expect("short")));
        self.later(soon, Doing::Applies(at, boot));
        let soon = self.within(LEADER_LOOKS);
        self.later(soon, Doing::Looks(at, boot));
        self.ends_if_dissolved(at);
    }

    fn applies(&mut self, at: usize) {
        let Some(cluster) = self.is_in(at) else { return };
        let longest = self.plan.meets.map_or(Duration::ZERO, |meets| meets.apply);
        let (boot, pause) = (self.hosts[at].boot, self.within(longest));
        self.later(pause, Doing::Applies(at, boot));
        let leader = self.clusters[cluster].leader;
        let hears =
            leader.is_some_and(|leader| self.reach(at, leader) && self.is_in(leader) == Some(cluster));
        if !hears {
            return;
        }
        let tip = self.clusters[cluster].len();
        let slowly = !self.healed && self.prng.one_in(3);
        let host = &mut self.hosts[at];
        let before = host.membership.applied;
        host.disk.applied = before;
        host.membership.applied = if slowly { tip.min(before + 1) } else { tip };
        host.disk.holds = host.disk.holds.max(host.membership.applied);
        self.ends_if_dissolved(at);
    }

    fn ends_if_dissolved(&mut self, at: usize) {
        let Some(cluster) = self.is_in(at) else { return };
        let ended = self.facts(at, cluster).charter.dissolved.is_some();
        let host = &mut self.hosts[at];
        if ended && !host.membership.ends {
            host.membership.ends = true;
            let boot = host.boot;
            self.later(LINGER, Doing::Leaves(at, boot));
            if self.crashes_here() {
                self.crash(at);
            }
        }
    }

    fn leaves(&mut self, at: usize) {
        self.note(&[10, at as u64], || format!("node {at} leaves"));
        let Some(cluster) = self.is_in(at) else { return };
        let (id, facts) = (self.clusters[cluster].id(), self.facts(at, cluster));
        let host = &mut self.hosts[at];
        (host.disk.leaving, host.disk.deceived) = (true, host.membership.deceived);
        host.disk.winner = host.membership.told;
        if let Some(end) = facts.charter.dissolved {
            host.disk.winner = Some(end.winner);
            let own = sign(&host.node_key, id, Generation(1), end);
            host.disk.tombstones = taken_along(own, &facts, &host.disk.tombstones);
        }
        if self.crashes_here() {
            return self.crash(at);
        }
        self.archives(at);
    }

    pub(super) fn archives(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        (host.node, host.wake) = (Node::Off, None);
        host.boot += 1;
        let boot = host.boot;
        self.changed(at);
        if self.crashes_here() {
            let rest = self.within(Duration::from_secs(20));
            return self.queue.after(rest, Event::Power(at));
        }
        let write = self.write() * 3;
        self.later(write, Doing::Archived(at, boot));
    }

    fn archived(&mut self, at: usize) {
        self.note(&[11, at as u64], || format!("node {at} is in no cluster again"));
        let host = &mut self.hosts[at];
        let Disk { cluster, winner, tombstones, deceived, .. } = std::mem::take(&mut host.disk);
        // One that goes on may let it in again.
        host.membership.former.extend(cluster.filter(|_| !deceived));
        host.disk = Disk { winner, tombstones, ..Disk::default() };
        self.judge.left(at);
        self.start(at);
    }

    fn elects(&mut self, cluster: usize) {
        let root = self.clusters[cluster].root;
        let mut there = self.hosts.iter().filter(|host| host.disk.cluster == Some(root));
        if there.next().is_none() && self.clusters[cluster].winner().is_some() {
            return;
        }
        let soon = ELECTIONS + self.within(ELECTIONS);
        self.later(soon, Doing::Elects(cluster));
        let replaced = !self.healed && self.prng.one_in(40);
        let before = self.clusters[cluster].leader;
        if before.is_some_and(|leader| self.has_majority(cluster, leader)) && !replaced {
            let leader = before.expect("it is there");
            self.hosts[leader].membership.leads = true;
            self.changes(cluster);
            return self.grows(cluster, leader);
        }
        // It may believe for a while that it still does.
        if let Some(leader) = before.filter(|_| self.prng.one_in(2)) {
            self.hosts[leader].membership.leads = false;
        }
        let voters = self.clusters[cluster].voters();
        let able = voters.iter().map(|key| self.host_of(*key));
        let able: Vec<usize> = able.filter(|host| self.has_majority(cluster, *host)).collect();
        let choice = (!able.is_empty()).then(|| able[self.pick() % able.len()]);
        self.clusters[cluster].leader = choice;
        self.note(&[12, cluster as u64], || format!("cluster {cluster} is led by {choice:?}"));
        if let Some(leader) = choice {
            for other in 0..self.hosts.len() {
                if self.is_in(other) == Some(cluster) && self.reach(leader, other) {
                    self.hosts[other].membership.leads = other == leader;
                }
            }
        }
    }

    /// As `node::growth`, without its probation.
    fn grows(&mut self, cluster: usize, leader: usize) {
        let facts = Arc::clone(self.clusters[cluster].tip());
        let bound: Vec<&Member> = facts.members.iter().filter(|member| member.key.is_some()).collect();
        let voters = bound.iter().filter(|member| member.votes).count();
        let is_ready = |key: PublicKey| {
            let host = self.host_of(key);
            let knows = self.hosts[host].membership.applied > 0;
            knows && self.is_in(host) == Some(cluster) && self.reach(leader, host)
        };
        let spare = bound.iter().filter(|member| !member.votes && member.key.is_some_and(is_ready));
        let spare: Vec<_> = spare.map(|member| member.id()).collect();
        let wanted = bound.len().min(VOTERS).min(voters + spare.len());
        let count = wanted.saturating_sub(usize::from(wanted.is_multiple_of(2)));
        let promote: Vec<_> = spare.into_iter().take(count.saturating_sub(voters)).collect();
        if !promote.is_empty() {
            let command = Command::Member(MemberCommand::Revote { promote, demote: Vec::new() });
            let boot = self.hosts[leader].boot;
            let doing =
                Doing::Commits { cluster, by: (leader, boot), command, then: Then::Nothing, attempt: 0 };
            self.later(Duration::from_millis(5), doing);
        }
    }

    /// As `node::reconcile`.
    fn changes(&mut self, cluster: usize) {
        let leader = self.clusters[cluster].leader;
        if !leader.is_some_and(|leader| self.has_majority(cluster, leader))
            || !self.clusters[cluster].change()
        {
            return;
        }
        let index = self.clusters[cluster].len();
        self.note(&[16, cluster as u64], || format!("cluster {cluster} has other voters"));
        self.is_taken_by_voters(cluster, index);
        self.later(CHANGES, Doing::Changes(cluster));
        self.is_torn_away(cluster);
    }

    // The log.

    /// Whether a proposal is on its way.
    pub(super) fn propose(&mut self, at: usize, command: Command, then: Then) -> bool {
        let Some(cluster) = self.is_in(at) else { return false };
        let leader = self.clusters[cluster].leader;
        if !leader.is_some_and(|leader| self.reach(at, leader)) && !self.hosts[at].membership.leads {
            return false;
        }
        let longest = self.plan.meets.map_or(Duration::ZERO, |meets| meets.commit);
        let (by, delay) = ((at, self.hosts[at].boot), self.within(longest));
        self.later(delay, Doing::Commits { cluster, by, command, then, attempt: 0 });
        true
    }

    fn commits(&mut self, cluster: usize, by: (usize, u64), command: Command, then: Then, attempt: u32) {
        let leader = self.clusters[cluster].leader;
        if !leader.is_some_and(|leader| self.has_majority(cluster, leader)) {
            // It may be in a log that counts later, or in none.
            if attempt < ATTEMPTS_MAX && self.prng.one_in(2) {
                let later = self.within(Duration::from_secs(20));
                self.later(later, Doing::Commits { cluster, by, command, then, attempt: attempt + 1 });
            }
            return;
        }
        self.note(&[13, cluster as u64], || format!("cluster {cluster} commits {command:?}"));
        let had = self.clusters[cluster].winner();
        let applied = self.clusters[cluster].apply(&command);
        let index = self.clusters[cluster].len();
        self.is_taken_by_voters(cluster, index);
        let dissolved = self.clusters[cluster].winner().filter(|_| had.is_none());
        if let (Some(winner), Then::Dissolves(asked)) = (dissolved, &then) {
            self.report.dissolved += 1;
            self.report.given_up += u64::from(self.clusters[cluster].acknowledged > 0);
            self.check_taken_in(cluster, *asked, winner);
        }
        if matches!(command, Command::Member(_)) {
            self.later(CHANGES, Doing::Changes(cluster));
        }
        if let Then::Buries(word) = &then
            && !self.is_taken(word.signer)
        {
            self.clusters[cluster].says(*word);
        }
        self.check_clusters();
        let hop = self.within(Duration::from_millis(20));
        self.later(hop, Doing::Decided { by, index, applied, then });
    }

    fn decided(&mut self, at: usize, cluster: usize, applied: &Applied, then: Then) {
        match (then, &applied.outcome) {
            (Then::Admits(request), Ok(Outcome::Member(_))) => self.admits(at, cluster, request),
            (Then::Admits(Request { to: (to, boot, ask), .. }), outcome) => {
                self.answer(at, to, boot, ask, &Answer::Wait(format!("{outcome:?}")));
            }
            (Then::Buries(tombstone), Ok(_)) => {
                self.hosts[at].disk.tombstones.retain(|kept| *kept != tombstone);
                self.buries(at, cluster);
            }
            (Then::Nothing | Then::Dissolves(_) | Then::Buries(_), _) => {}
        }
    }

    pub(super) fn users(&mut self) {
        let Some(meets) = self.plan.meets.filter(|_| !self.healed) else { return };
        let Some(gap) = meets.users_gap else { return };
        let gap = crate::plan::draw(&mut self.prng, gap);
        self.later(gap, Doing::Users);
        let at = self.pick();
        let Some(cluster) = self.is_in(at) else { return };
        if meets.orders && self.prng.one_in(6) {
            return self.gives_up(at);
        }
        if meets.taken && self.prng.one_in(6) {
            return self.floods(at, cluster);
        }
        let command = if meets.closes_one_in > 0 && self.prng.one_in(meets.closes_one_in) {
            if self.prng.one_in(3) {
                Command::Charter(CharterCommand::Seal)
            } else {
                let to = self.facts(at, cluster).charter.elapsed + self.prng.range(60, 2500);
                Command::Charter(CharterCommand::Elapsed { to })
            }
        } else if self.prng.one_in(4) {
            write()
        } else {
            return;
        };
        self.propose(at, command, Then::Nothing);
    }

    // What others ask: as `app::admission`.

    fn stands(&self, at: usize, cluster: usize) -> Standing {
        let facts = self.facts(at, cluster);
        Standing {
            name: format!("n{at}"),
            cluster: self.clusters[cluster].id(),
            generation: Generation(1),
            committed: facts.charter.committed,
            open: facts.charter.is_open(),
            uses: facts.commands,
            understands: self.understood(&self.clusters[cluster]),
        }
    }

    pub(super) fn member_asked(&mut self, at: usize, to: (usize, u64, AskId), question: Question) {
        let Some(cluster) = self.is_in(at) else { return };
        let key = self.hosts[to.0].key;
        let request = match question {
            Question::Join { name, peer_urls, run, understands, .. } => {
                if understands < self.facts(at, cluster).commands {
                    return self.answer(at, to.0, to.1, to.2, &Answer::Refused("too old".into()));
                }
                let left = vec![Candidate { key, name, peer_urls }];
                Request { to, left, joins: Some((key, run)), of: None }
            }
            Question::Absorb { cluster: other, winner, nodes, understands } => {
                let known = nodes.iter().any(|node| node.key == key);
                let own = self.clusters[cluster].id();
                let is_old = understands < self.facts(at, cluster).commands;
                if winner != own || other == own || !known || is_old {
                    return self.answer(at, to.0, to.1, to.2, &Answer::Refused("none of it".into()));
                }
                Request { to, left: nodes, joins: None, of: Some(other) }
            }
            Question::Fate { cluster: ended } => {
                let facts = self.facts(at, cluster);
                let buried = facts.charter.buried.iter().filter(|tombstone| tombstone.cluster == ended);
                let buried: Vec<Tombstone> = buried.copied().collect();
                let is_known = !buried.is_empty();
                let answer =
                    if is_known { Answer::Buried(buried) } else { Answer::Member(self.stands(at, cluster)) };
                return self.answer(at, to.0, to.1, to.2, &answer);
            }
            _ => {
                let answer = Answer::Member(self.stands(at, cluster));
                return self.answer(at, to.0, to.1, to.2, &answer);
            }
        };
        self.admits(at, cluster, request);
    }

    fn welcome(&self, at: usize, cluster: usize, key: PublicKey) -> Option<Answer> {
        let facts = self.facts(at, cluster);
        let member = member(&facts, key)?.id();
        let (root, members) = (self.clusters[cluster].root, facts.members.clone());
        Some(Answer::Welcome(Box::new(Welcome {
            root,
            generation: Generation(1),
            member,
            members,
            commands: facts.commands,
        })))
    }

    fn admits(&mut self, at: usize, cluster: usize, mut request: Request) {
        let (to, boot, ask) = request.to;
        let answer = if request.left.is_empty() {
            match request.joins {
                Some((key, _)) => {
                    self.welcome(at, cluster, key).unwrap_or_else(|| Answer::Wait("removed".into()))
                }
                None => Answer::Absorbed,
            }
        } else {
            let facts = self.facts(at, cluster);
            let is_in = member(&facts, request.left[0].key).is_some();
            let by = match self.plan.meets {
                Some(meets) if meets.fleet => Some(Admission::FleetKey),
                _ => (facts.charter.is_open() || is_in).then_some(Admission::Window),
            };
            let Some(by) = by else {
                return self.answer(at, to, boot, ask, &Answer::Pending("it is sealed".into()));
            };
            let Candidate { key, name, peer_urls } = request.left.remove(0);
            let run = request.joins.map_or(Incarnation(0), |(_, run)| run);
            let command = CharterCommand::Admit { key, name, peer_urls, by, run, of: request.of };
            if self.propose(at, Command::Charter(command), Then::Admits(request)) {
                return;
            }
            Answer::Wait("no leader".into())
        };
        self.answer(at, to, boot, ask, &answer);
    }

    // Other clusters: as `app::encounters`.

    fn looks(&mut self, at: usize) {
        let boot = self.hosts[at].boot;
        self.later(LEADER_LOOKS, Doing::Looks(at, boot));
        let Some(cluster) = self.is_in(at).filter(|_| self.is_up(at)) else { return };
        self.buries(at, cluster);
        if self.is_silent(at, cluster) {
            let question = Question::Fate { cluster: self.clusters[cluster].id() };
            self.asks_beside(at, cluster, Asked::Fate, &question);
            self.is_lied_to(at, cluster);
        }
        if self.hosts[at].membership.leads {
            let question = Question::Probe { name: format!("n{at}"), over: None, view: View::default() };
            self.asks_beside(at, cluster, Asked::Who, &question);
        }
    }

    /// One after the other, since the latest is worth most.
    fn buries(&mut self, at: usize, cluster: usize) {
        if let Some(tombstone) = self.hosts[at].disk.tombstones.first().copied() {
            let uses = self.facts(at, cluster).commands;
            let bury = burial(tombstone, ordered_of(&tombstone), uses);
            self.propose(at, Command::Charter(bury), Then::Buries(tombstone));
        }
    }

    /// Whether it has heard no leader for long, as far as it looks.
    fn is_silent(&mut self, at: usize, cluster: usize) -> bool {
        let now = self.queue.now();
        let leader = self.clusters[cluster].leader;
        let hears =
            leader.is_some_and(|leader| self.reach(at, leader) && self.is_in(leader) == Some(cluster));
        let membership = &mut self.hosts[at].membership;
        if hears {
            membership.silent_since = None;
            return false;
        }
        now.since(*membership.silent_since.get_or_insert(now)) >= SILENT
    }

    /// One member of each other cluster that it sees.
    fn asks_beside(&mut self, at: usize, cluster: usize, what: Asked, question: &Question) {
        let mut beside: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for other in 0..self.hosts.len() {
            if let Some(theirs) = self.is_in(other).filter(|theirs| *theirs != cluster)
                && self.is_up(other)
                && self.sees[at][other]
            {
                beside.entry(theirs).or_default().push(other);
            }
        }
        for hosts in beside.into_values() {
            let other = hosts[self.pick() % hosts.len()];
            self.asks_stranger(at, other, what, question);
        }
    }

    fn asks_stranger(&mut self, at: usize, other: usize, what: Asked, question: &Question) {
        let node = Fingerprint::of(&self.hosts[other].key);
        let membership = &mut self.hosts[at].membership;
        membership.last_ask += 1;
        let ask = AskId(membership.last_ask);
        membership.asked.insert(ask, what);
        self.ask(at, ask, &Whom::Node(node), question);
    }

    pub(super) fn member_answered(&mut self, at: usize, from: usize, boot: u64, ask: AskId, answer: Answer) {
        let Some(cluster) = self.is_in(at) else { return };
        if self.hosts[at].boot != boot {
            return;
        }
        let Some(asked) = self.hosts[at].membership.asked.remove(&ask) else { return };
        match (asked, answer) {
            (Asked::Who, Answer::Member(other)) => self.meets(at, cluster, from, &other),
            (Asked::Fate, Answer::Buried(tombstones)) => self.told(at, cluster, &tombstones),
            (Asked::Absorb(..), Answer::Absorbed) if self.crashes_here() => self.crash(at),
            (Asked::Absorb(winner, asked, ordered), Answer::Absorbed) => {
                let command = if ordered {
                    CharterCommand::Yield {
                        winner,
                        witness: self.hosts[from].key,
                        asked: LogIndex(asked as u64),
                    }
                } else {
                    CharterCommand::Dissolve { winner }
                };
                self.propose(at, Command::Charter(command), Then::Dissolves(asked));
            }
            _ => {}
        }
    }

    fn meets(&mut self, at: usize, cluster: usize, with: usize, other: &Standing) {
        let own = self.stands(at, cluster);
        let trusts = self.trusts(at, cluster);
        if other.cluster == own.cluster || !self.hosts[at].membership.leads {
            return;
        }
        if course(&own, other, trusts) == Course::Yield {
            self.hands_members_over(at, cluster, with, other.cluster, false);
        }
    }

    fn hands_members_over(
        &mut self,
        at: usize,
        cluster: usize,
        with: usize,
        winner: ClusterId,
        ordered: bool,
    ) {
        let facts = self.facts(at, cluster);
        let candidate = |member: &Member| {
            let (name, peer_urls) = (member.attributes.name.clone(), member.attributes.peer_urls.clone());
            Some(Candidate { key: member.key?, name, peer_urls })
        };
        let nodes = facts.members.iter().filter_map(candidate).collect();
        let (cluster, understands) = (self.clusters[cluster].id(), self.understood(&self.clusters[cluster]));
        let question = Question::Absorb { cluster, winner, nodes, understands };
        let asked = Asked::Absorb(winner, self.hosts[at].membership.applied, ordered);
        self.asks_stranger(at, with, asked, &question);
    }

    /// An operator gives a cluster up for another one that users have written to, too; and now and then another operator the other one for this.
    fn gives_up(&mut self, at: usize) {
        let is_written_to = |world: &Self, host: usize| {
            let cluster = world.is_in(host).filter(|_| world.is_up(host))?;
            world.facts(host, cluster).charter.committed.then_some(cluster)
        };
        let Some(cluster) = is_written_to(self, at) else { return };
        let mut others = (0..self.hosts.len()).filter(|other| self.sees[at][*other]);
        let found = others
            .find_map(|other| Some((other, is_written_to(self, other).filter(|theirs| *theirs != cluster)?)));
        let Some((other, theirs)) = found else { return };
        let both = self.prng.one_in(4);
        self.orders(at, cluster, other, theirs);
        if both {
            self.orders(other, theirs, at, cluster);
        }
    }

    fn orders(&mut self, at: usize, cluster: usize, with: usize, winner: usize) {
        let winner = self.clusters[winner].id();
        self.note(&[15, at as u64], || format!("an operator gives cluster {cluster} up for {winner}"));
        self.clusters[cluster].ordered = true;
        self.hands_members_over(at, cluster, with, winner, true);
    }

    fn trusts(&self, at: usize, cluster: usize) -> bool {
        self.plan.meets.is_some_and(|meets| meets.fleet) || self.facts(at, cluster).charter.is_open()
    }

    /// Where all begin.
    fn base(commands: CommandVersion) -> Arc<covey::store::Base> {
        type Bases = RefCell<BTreeMap<CommandVersion, Arc<covey::store::Base>>>;
        thread_local!(static BASES: Bases = const { RefCell::new(BTreeMap::new()) });
        BASES.with_borrow_mut(|bases| Arc::clone(bases.entry(commands).or_insert_with(|| empty(commands))))
    }
}
