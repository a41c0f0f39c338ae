//! Somebody who adds, promotes and removes members, and nodes that come when there is a place for them.
//!
//! Owns: which change is asked for and when, and what a cluster has to come to once nobody changes it any more. Must never: do what no operator
//! could do: a removed node's disk is wiped only when raft's configuration has let it go.

use std::sync::Arc;
use std::time::Duration;

use covey::command::{Command, MemberCommand};
use covey::ids::MemberId;
use covey::limits::REQUEST_TIMEOUT;
use covey::mvcc::{Facts, View};
use covey::store::Member as Stored;
use covey::time::Instant;

use super::{Asked, Event, RESTART, World};
use crate::disk::Disk;
use crate::member::Member;
use crate::plan::draw;
use crate::workload::Ask;

/// How many learners there may be at once.
const LEARNERS_MAX: u64 = 2;
/// Fewer voters are left to nobody.
const VOTERS_MIN: usize = 2;
/// In so long the configuration is what the members are to be, once nothing goes wrong.
const SETTLED_MAX: Duration = Duration::from_secs(60);

impl World {
    /// The newest state that any member shows.
    pub(super) fn newest_view(&self) -> Option<Arc<View>> {
        let views = self.hosts.iter().filter_map(|host| host.member.as_ref()).map(Member::view);
        views.max_by_key(|view| view.applied())
    }

    pub(super) fn administer(&mut self) {
        let Some(gap) = self.plan.admin else { return };
        let delay = draw(&mut self.prng, gap);
        self.queue.after(delay, Event::Administer);
        if self.on_again.is_some_and(|at| at <= self.queue.now()) {
            self.switch_on();
        }
        let Some(view) = self.newest_view() else { return };
        let facts = view.facts();
        for host in 0..self.hosts.len() {
            self.follow(host, facts);
        }
        self.lose(&view);
        if self.plan.grows.is_some() {
            return self.grow(facts);
        }
        if !self.calm && !self.loses() && self.prng.one_in(3) {
            self.change_something(facts);
        }
    }

    /// What a host does, by what the members say of its node.
    fn follow(&mut self, host: usize, facts: &Facts) {
        let url = self.cluster.url(host);
        let place = facts.members.iter().find(|member| member.attributes.peer_urls == [url.clone()]);
        match (place, self.cluster.member(host)) {
            (Some(place), _) if place.key.is_none() => {
                let (id, key) = (place.id(), self.cluster.key(host));
                self.oracle.places.see(id, &url);
                self.command(MemberCommand::Bind { id, key });
            }
            // Somebody else was there.
            (Some(place), None) if place.key != Some(self.cluster.key(host)) => {
                let (id, key) = (place.id(), self.cluster.key(host));
                self.command(MemberCommand::Bind { id, key });
            }
            (Some(place), None) => {
                self.note("join", &[host as u64, place.id().0]);
                self.oracle.places.see(place.id(), &url);
                self.cluster.join(host, place.id(), facts.members.clone());
                self.schedule_start(host, RESTART);
            }
            (None, Some(id)) => {
                let removed = facts.removed.iter().any(|(gone, _)| *gone == id);
                if removed && !facts.conf_state.names(id) && (self.calm || self.prng.one_in(4)) {
                    self.replace(host);
                }
            }
            (Some(place), Some(_)) => self.publish(host, place),
            (None, None) => {}
        }
    }

    /// A removed node is gone, and its host has another one.
    fn replace(&mut self, number: usize) {
        self.note("replace", &[number as u64]);
        let disk = Disk::new(&mut self.prng);
        self.cluster.replace(number);
        self.end_process(number, disk);
        let host = &mut self.hosts[number];
        (host.standing, host.starting) = (None, false);
        (host.put_back, host.fenced) = (false, false);
    }

    /// A host whose node is no member, and for which there is no place.
    pub(super) fn spare(&self, facts: &Facts) -> Option<usize> {
        (0..self.hosts.len()).find(|host| {
            let url = self.cluster.url(*host);
            self.cluster.member(*host).is_none()
                && facts.members.iter().all(|member| member.attributes.peer_urls != [url.clone()])
        })
    }

    fn change_something(&mut self, facts: &Facts) {
        let spare = self.spare(facts);
        let learners: Vec<MemberId> =
            facts.members.iter().filter(|member| !member.votes).map(Stored::id).collect();
        let command = match (self.prng.range(0, 4), spare) {
            (0..2, Some(host)) => {
                let votes = self.prng.one_in(3);
                let peer_urls = vec![self.cluster.url(host)];
                MemberCommand::Add { peer_urls, votes, strict: false, learners_max: LEARNERS_MAX }
            }
            (2, _) if !learners.is_empty() => {
                let id = learners[self.pick(learners.len())];
                MemberCommand::Promote { id, strict: false }
            }
            _ if is_settled(facts) => {
                let gone = &facts.members[self.pick(facts.members.len())];
                let voters = facts.members.iter().filter(|member| member.votes).count();
                if gone.votes && voters <= VOTERS_MIN {
                    return;
                }
                MemberCommand::Remove { id: gone.id(), strict: false }
            }
            _ => return,
        };
        for member in &facts.members {
            self.oracle.places.see(member.id(), &member.attributes.peer_urls[0]);
        }
        if let Asked::Sent(op) = self.command(command) {
            self.changes.push((op, self.queue.now()));
        }
    }

    pub(super) fn command(&mut self, command: MemberCommand) -> Asked {
        let host = self.pick(self.hosts.len());
        self.ask(host, Ask::Write(Command::Member(command)))
    }

    pub(super) fn pick(&mut self, of: usize) -> usize {
        usize::try_from(self.prng.range(0, of as u64)).expect("few")
    }

    /// Nobody asks for changes any more: raft's configuration becomes what the members are to be, and every node either belongs or is gone.
    pub(super) fn settle_members(&mut self) {
        self.settled_at = Instant(u64::MAX);
        // What was asked before may still take effect.
        let quiet = self.queue.now() + REQUEST_TIMEOUT;
        while self.queue.now() < quiet {
            self.step();
        }
        let deadline = self.queue.now() + SETTLED_MAX;
        loop {
            let view = self.newest_view();
            let settled = view.is_some_and(|view| {
                let facts = view.facts();
                let belongs = |host: usize| match self.cluster.member(host) {
                    Some(id) => facts.members.iter().any(|member| member.id() == id),
                    None => facts
                        .members
                        .iter()
                        .all(|member| member.attributes.peer_urls != [self.cluster.url(host)]),
                };
                let grown = self.plan.grows.is_none_or(|growing| self.is_grown(growing));
                !self.loses() && is_settled(facts) && grown && (0..self.hosts.len()).all(belongs)
            });
            if settled {
                self.settled_at = self.queue.now();
                return;
            }
            self.step();
            assert!(self.queue.now() < deadline, "the members do not settle:\n{}", self.described());
        }
    }

    /// Every member knows the same ones, those that the log says.
    pub(super) fn check_members(&self) {
        for host in &self.hosts {
            if let Some(member) = &host.member
                && member.view().applied() == self.oracle.last()
            {
                self.oracle.places.check_all(member.view().facts());
            }
        }
    }
}

/// Whether raft's configuration is what the members are to be.
pub(super) fn is_settled(facts: &Facts) -> bool {
    let conf = &facts.conf_state;
    let stays = |member: &Stored| {
        let list = if member.votes { &conf.voters } else { &conf.learners };
        list.contains(&member.id())
    };
    conf.voters_outgoing.is_empty()
        && facts.members.iter().all(|member| member.key.is_some() && stays(member))
        && conf.voters.len() + conf.learners.len() == facts.members.len()
}
