//! From the members that the state names to raft's configuration.
//!
//! Owns: which change of the configuration comes next. Must never: remove the last voter, or make a voter of a member that has not caught up: the
//! majority that commits would be one that lacks the log. Pure; asked by [`Core`](super::Core) while it leads.
//!
//! ```text
//! the state's members     raft's configuration
//! bound, missing          ─► learner, all that are missing in one change
//! votes, a learner        ─► voter, once it has caught up; all that have in one (joint) change
//! not there any more      ─► out; the leader itself after it has handed over
//! ```

use std::time::Duration;

use crate::consensus::{ConfChange, MemberChange};
use crate::ids::MemberId;
use crate::limits::{ELECTION_TIMEOUT, HEARTBEAT};
use crate::mvcc::Facts;
use crate::store::ConfState;
use crate::time::Instant;

/// What a member is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Which.
    pub member: MemberId,
    /// A node has the place, so that it can take part.
    pub bound: bool,
    /// It is to vote.
    pub votes: bool,
}

/// What the configuration is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// By member.
    pub targets: Vec<Target>,
    /// All that are to vote begin to at once: the cluster was founded for them.
    pub forming: bool,
}

/// How a leader that is to go has another voter lead.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HandOver {
    /// Who was the last to try.
    pub(super) tried: Option<MemberId>,
    /// When the next one may try, once it is known that one has to.
    next_at: Option<Instant>,
}

impl HandOver {
    /// What is committed is known to the others by then, and so is that this leader is to go: a member that was asked for that has its answer
    /// before it finds that the leader has changed.
    const FIRST: Duration = HEARTBEAT;
    /// How long writes have their turn after an attempt that has failed. Raft gives up by itself, and until then takes no proposals: without a
    /// pause nothing would be written for as long as attempts fail.
    const PAUSE: Duration = ELECTION_TIMEOUT;

    /// Whose turn it is: one that does not take over may be unable to, so that the next one has its turn, and after the last one the first.
    pub(super) fn next(&self, heirs: impl Iterator<Item = MemberId>) -> Option<MemberId> {
        heirs.min_by_key(|heir| (Some(*heir) <= self.tried, *heir))
    }

    /// Whether this voter may try now; nobody is trying. `attempt_max`: how long proposals may have had to wait for the attempt before.
    pub(super) fn may_try(&mut self, now: Instant, to: MemberId, attempt_max: Duration) -> bool {
        let pause = if self.tried.is_none() { Self::FIRST } else { Self::PAUSE.max(attempt_max) };
        let is_time = now >= *self.next_at.get_or_insert(now + pause);
        if is_time {
            *self = Self { tried: Some(to), next_at: None };
        }
        is_time
    }
}

/// The next step towards it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Propose this.
    Change(ConfChange),
    /// Let this voter lead: the leader is to go.
    HandOver(MemberId),
}

impl Membership {
    /// What the state names.
    pub fn of(facts: &Facts) -> Self {
        let target = |member: &crate::store::Member| Target {
            member: member.id(),
            bound: member.key.is_some(),
            votes: member.votes,
        };
        Self { targets: facts.members.iter().map(target).collect(), forming: facts.forming }
    }

    /// Whether there is nothing left to change in `conf`, now or later.
    pub(super) fn is_met_by(&self, conf: &ConfState) -> bool {
        let ConfState { voters, learners, .. } = conf;
        let met = |target: &Target| match (target.bound, target.votes) {
            (false, _) => true,
            (true, true) => voters.contains(&target.member),
            (true, false) => conf.names(target.member),
        };
        self.targets.iter().all(met)
            && voters.iter().chain(learners).all(|member| self.find(*member).is_some())
    }

    fn find(&self, member: MemberId) -> Option<&Target> {
        self.targets.iter().find(|target| target.member == member)
    }
}

/// The next step from `conf`, which is not joint, as its leader `me` sees it, and whose turn it is to lead in its place. `None` when there is none to take now.
pub(super) fn next_step(
    conf: &ConfState,
    wanted: &Membership,
    me: MemberId,
    hand_over: &HandOver,
    has_caught_up: impl Fn(MemberId) -> bool,
) -> Option<Step> {
    let change = |changes: Vec<(MemberId, MemberChange)>| {
        (!changes.is_empty()).then(|| Step::Change(ConfChange { changes, ..ConfChange::default() }))
    };
    let missing = wanted.targets.iter().filter(|target| target.bound && !conf.names(target.member));
    let joins = missing.map(|target| (target.member, MemberChange::Learner)).collect();
    change(joins).or_else(|| change(promotions(conf, wanted, &has_caught_up))).or_else(|| {
        let gone = |member: &&MemberId| wanted.find(**member).is_none();
        let learners = conf.learners.iter().filter(gone);
        let voters: Vec<MemberId> = conf.voters.iter().filter(gone).copied().collect();
        if voters.contains(&me) {
            // What is left of the members has to have a leader before this one goes.
            let stays = |voter: &MemberId| wanted.find(*voter).is_some() && has_caught_up(*voter);
            let heirs = conf.voters.iter().copied().filter(stays);
            return hand_over.next(heirs).map(Step::HandOver);
        }
        // One voter at a time: of each two majorities that follow each other, one member at least is in both without a joint change.
        let leaves = learners.copied().chain(voters.first().copied());
        change(leaves.map(|member| (member, MemberChange::Remove)).collect())
    })
}

fn promotions(
    conf: &ConfState,
    wanted: &Membership,
    has_caught_up: impl Fn(MemberId) -> bool,
) -> Vec<(MemberId, MemberChange)> {
    let waits = |member: &&MemberId| wanted.find(**member).is_some_and(|target| target.votes);
    let waiting: Vec<MemberId> = conf.learners.iter().filter(waits).copied().collect();
    let here = |target: &Target| !target.votes || conf.names(target.member);
    if wanted.forming
        && !(wanted.targets.iter().all(here) && waiting.iter().all(|member| has_caught_up(*member)))
    {
        return Vec::new();
    }
    let ready = waiting.into_iter().filter(|member| has_caught_up(*member));
    ready.map(|member| (member, MemberChange::Voter)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: MemberId = MemberId(1);

    fn ids(members: &[u64]) -> Vec<MemberId> {
        members.iter().copied().map(MemberId).collect()
    }

    fn conf(voters: &[u64], learners: &[u64]) -> ConfState {
        ConfState { voters: ids(voters), learners: ids(learners), ..ConfState::default() }
    }

    fn voters(members: &[u64]) -> Membership {
        let target = |member: &u64| Target { member: MemberId(*member), bound: true, votes: true };
        Membership { targets: members.iter().map(target).collect(), forming: false }
    }

    fn changes(kind: MemberChange, members: &[u64]) -> Step {
        let changes = ids(members).into_iter().map(|member| (member, kind)).collect();
        Step::Change(ConfChange { changes, ..ConfChange::default() })
    }

    #[test]
    fn who_is_missing_comes_in_as_a_learner_once_there_is_a_node_for_the_place() {
        let mut wanted = voters(&[1, 2, 3]);
        assert_eq!(
            next_step(&conf(&[1], &[]), &wanted, ME, &HandOver::default(), |_| true),
            Some(changes(MemberChange::Learner, &[2, 3]))
        );
        wanted.targets[1].bound = false;
        assert_eq!(
            next_step(&conf(&[1], &[]), &wanted, ME, &HandOver::default(), |_| true),
            Some(changes(MemberChange::Learner, &[3]))
        );
        assert_eq!(
            next_step(&conf(&[1, 2, 3], &[]), &voters(&[1, 2, 3]), ME, &HandOver::default(), |_| true),
            None,
            "it is there"
        );
    }

    #[test]
    fn who_is_to_vote_does_so_once_it_has_caught_up() {
        let mut wanted = voters(&[1, 2, 3, 4]);
        wanted.targets[3].votes = false;
        let conf = conf(&[1], &[2, 3, 4]);
        let ready = |member: MemberId| member != MemberId(3);
        assert_eq!(
            next_step(&conf, &wanted, ME, &HandOver::default(), ready),
            Some(changes(MemberChange::Voter, &[2]))
        );
        wanted.forming = true;
        assert_eq!(
            next_step(&conf, &wanted, ME, &HandOver::default(), ready),
            None,
            "those that the cluster is founded for all at once"
        );
        assert_eq!(
            next_step(&conf, &wanted, ME, &HandOver::default(), |_| true),
            Some(changes(MemberChange::Voter, &[2, 3]))
        );
    }

    #[test]
    fn what_is_met_needs_no_further_look() {
        let mut wanted = voters(&[1, 2, 3]);
        assert!(wanted.is_met_by(&conf(&[1, 2, 3], &[])));
        assert!(!wanted.is_met_by(&conf(&[1, 2], &[3])) && !wanted.is_met_by(&conf(&[1, 2, 3, 4], &[])));
        wanted.targets[2].bound = false;
        assert!(wanted.is_met_by(&conf(&[1, 2], &[])), "nothing changes before a node has the place");
    }

    #[test]
    fn a_forming_cluster_waits_for_those_that_are_not_even_learners() {
        let wanted = Membership { forming: true, ..voters(&[1, 2, 3]) };
        assert_eq!(
            next_step(&conf(&[1], &[2]), &wanted, ME, &HandOver::default(), |_| true),
            Some(changes(MemberChange::Learner, &[3]))
        );
    }

    #[test]
    fn who_is_gone_leaves_one_voter_at_a_time_and_the_leader_last() {
        let conf = conf(&[1, 2, 3], &[4]);
        assert_eq!(
            next_step(&conf, &voters(&[1]), ME, &HandOver::default(), |_| true),
            Some(changes(MemberChange::Remove, &[4, 2]))
        );
        assert_eq!(
            next_step(&conf, &voters(&[2, 3]), ME, &HandOver::default(), |member| member == MemberId(3)),
            Some(Step::HandOver(MemberId(3)))
        );
        assert_eq!(
            next_step(&conf, &voters(&[2, 3]), ME, &HandOver::default(), |_| false),
            None,
            "nobody could take over"
        );
        assert_eq!(
            next_step(&self::conf(&[1], &[]), &voters(&[]), ME, &HandOver::default(), |_| true),
            None,
            "the last voter stays"
        );
    }

    #[test]
    fn an_heir_that_did_not_take_over_is_followed_by_the_next_one_that_has_caught_up() {
        let (conf, wanted) = (conf(&[1, 2, 3, 4, 5], &[]), voters(&[2, 3, 5]));
        let after = |tried: u64, ready: &[u64]| {
            let ready = ids(ready);
            next_step(
                &conf,
                &wanted,
                ME,
                &HandOver { tried: Some(MemberId(tried)), next_at: None },
                |member| ready.contains(&member),
            )
        };
        let heir = |member: u64| Some(Step::HandOver(MemberId(member)));
        assert_eq!(after(2, &[2, 3, 4, 5]), heir(3));
        assert_eq!(after(3, &[2, 3, 4, 5]), heir(5), "4 goes, too");
        assert_eq!(after(5, &[2, 3, 4, 5]), heir(2));
        assert_eq!(after(2, &[2, 5]), heir(5));
        assert_eq!(after(2, &[2]), heir(2), "there is no other");
    }
}
