//! A cluster to which nodes come, and that decides by itself who votes.
//!
//! Owns: who comes and who is switched off, and what the votes have to come to. Must never: say who votes.

use std::time::Duration;

use covey::command::MemberCommand;
use covey::ids::MemberId;
use covey::mvcc::{Facts, View};
use covey::time::Instant;

use super::World;
use super::members::is_settled;
use crate::member::Member;
use crate::plan::{Growing, draw};

/// As many learners as come: nobody asks for more.
const LEARNERS_MAX: u64 = 100;
/// One look in so many lets a node come, and one in so many switches a member off, while things go wrong.
const COMES_ONE_IN: u64 = 5;
const OFF_ONE_IN: u64 = 12;
/// So long after a member is to be replaced it is.
const PATIENCE: Duration = Duration::from_secs(60);

impl World {
    /// The next node comes, or somebody switches a machine off, and on again much later.
    pub(super) fn grow(&mut self, facts: &Facts) {
        if let Some(host) = self.spare(facts)
            && (self.calm || self.prng.one_in(COMES_ONE_IN))
        {
            let peer_urls = vec![self.cluster.url(host)];
            let learners_max = LEARNERS_MAX;
            self.command(MemberCommand::Add { peer_urls, votes: false, strict: false, learners_max });
        }
        if !self.calm && self.on_again.is_none() && self.prng.one_in(OFF_ONE_IN) {
            let mean = self.absence_max() * 3 / 2;
            let off = draw(&mut self.prng, mean);
            self.on_again = Some(self.queue.now() + off);
            let host = self.pick(self.hosts.len());
            self.switch_off(host);
        }
    }

    /// How long a voter is missed before it is replaced.
    fn absence_max(&self) -> Duration {
        self.plan.grows.map_or(Duration::ZERO, |growing| growing.policy.absence_max)
    }

    fn switch_off(&mut self, host: usize) {
        self.note("off", &[host as u64]);
        self.hosts[host].off = true;
        self.kill_if_up(host);
    }

    /// All machines are on from now on.
    pub(super) fn switch_on(&mut self) {
        self.on_again = None;
        for host in 0..self.hosts.len() {
            if std::mem::take(&mut self.hosts[host].off) && self.cluster.member(host).is_some() {
                self.note("on", &[host as u64]);
                self.schedule_start(host, Duration::ZERO);
            }
        }
    }

    /// All nodes have come, as many vote as there should, and all know it: as long as only one member knows that it is no longer the only voter, it
    /// is.
    pub(super) fn is_grown(&self, growing: Growing) -> bool {
        let members = self.hosts.len();
        let most = members.min(growing.policy.voters);
        let expected = [1, 3, 5].into_iter().filter(|count| *count <= most).max();
        let grown = |member: &Member| {
            let view = member.view();
            let facts = view.facts();
            facts.members.len() == members
                && is_settled(facts)
                && Some(facts.conf_state.voters.len()) == expected
        };
        self.hosts.iter().all(|host| host.member.as_ref().is_some_and(grown))
    }

    /// There are never fewer voters than there were, and never an even number of them: that would be one more that must not fail.
    pub(super) fn check_votes(&mut self) {
        let views: Vec<_> =
            self.hosts.iter().filter_map(|host| host.member.as_ref()).map(Member::view).collect();
        for view in views.iter().filter(|view| view.applied() > self.voters.0) {
            let facts = view.facts();
            let conf = &facts.conf_state;
            let count = facts.members.iter().filter(|member| member.votes).count();
            assert!(count % 2 == 1 && conf.voters.len() % 2 == 1, "{conf:?}");
            assert!(count >= self.voters.1 && conf.voters.len() <= count, "{conf:?} after {:?}", self.voters);
        }
        let newest = views.iter().max_by_key(|view| view.applied());
        if let Some(view) = newest.filter(|view| view.applied() > self.voters.0) {
            self.voters = (view.applied(), votes(view).len());
        }
    }

    /// Nothing else goes wrong: a voter dies and is replaced. Then as many members vanish together as there may for the rest to go on, and come
    /// back.
    pub(super) fn lose_members(&mut self) {
        let Some(view) = self.newest_view() else { return };
        let voting = votes(&view);
        if self.hosts.len() > voting.len() {
            self.lose_a_voter(&voting);
            self.vanish_together();
        }
    }

    fn lose_a_voter(&mut self, voting: &[MemberId]) {
        self.settled_at = Instant(u64::MAX);
        let gone = voting[self.pick(voting.len())];
        let host = self.host_of(gone);
        let (begin, voters) = (self.queue.now(), voting.len());
        self.switch_off(host);
        while self.newest_view().is_none_or(|view| votes(&view).contains(&gone)) {
            self.step();
            let missed = self.queue.now().since(begin);
            assert!(missed < self.absence_max() + PATIENCE, "nobody votes instead:\n{}", self.described());
        }
        let missed = self.queue.now().since(begin);
        assert!(missed >= self.shortest(self.absence_max()), "replaced after {missed:?}");
        let deadline = self.queue.now() + PATIENCE;
        let settled = |view: &View| {
            let conf = &view.facts().conf_state;
            conf.voters.len() == voters && conf.voters_outgoing.is_empty() && conf.learners.contains(&gone)
        };
        while !self.newest_view().is_some_and(|view| settled(&view)) {
            self.step();
            assert!(self.queue.now() < deadline, "the configuration does not follow:\n{}", self.described());
        }
        self.switch_on();
        self.settle_members();
    }

    fn vanish_together(&mut self) {
        let Some(view) = self.newest_view() else { return };
        let mut voting = votes(&view);
        let majority = voting.len() / 2 + 1;
        self.mix(&mut voting);
        let mut vanish = voting.split_off(majority);
        let learners =
            view.facts().members.iter().filter(|member| !member.votes).map(covey::store::Member::id);
        let half = self.hosts.len().div_ceil(2);
        let missing = half.saturating_sub(vanish.len());
        vanish.extend(learners.take(missing));
        if vanish.len() < half || half + majority >= self.hosts.len() {
            // Too few of them, or nobody is left who could vote instead.
            return;
        }
        self.settled_at = Instant(u64::MAX);
        self.report.frozen += 1;
        for member in vanish {
            self.switch_off(self.host_of(member));
        }
        let (before, until) = (votes(&view), self.queue.now() + self.absence_max() + PATIENCE);
        while self.queue.now() < until {
            self.step();
            let unchanged = self.newest_view().is_none_or(|view| votes(&view) == before);
            assert!(unchanged, "half of the members are not lost for good:\n{}", self.described());
        }
        self.switch_on();
        self.settle_members();
    }

    fn mix(&mut self, members: &mut [MemberId]) {
        for at in (1..members.len()).rev() {
            let other = self.pick(at + 1);
            members.swap(at, other);
        }
    }

    fn host_of(&self, member: MemberId) -> usize {
        (0..self.hosts.len()).find(|host| self.cluster.member(*host) == Some(member)).expect("a member")
    }
}

/// Who is to vote.
fn votes(view: &View) -> Vec<MemberId> {
    view.facts().members.iter().filter(|member| member.votes).map(covey::store::Member::id).collect()
}
