//! From the members that the state names to raft's configuration.
//!
//! Owns: which change of the configuration comes next. Must never: remove the last voter, or make a voter of a member that has not caught up: the
//! majority that commits would be one that lacks the log; or take votes away so that the rest stands fewer losses than before.
//! Pure; asked by [`Core`](super::Core) while it leads.
//!
//! ```text
//! the state's members     raft's configuration
//! bound, missing          ─► learner, all that are missing in one change
//! votes, a learner        ─► voter, once it has caught up; all that have in one (joint) change
//! votes no more, a voter  ─► learner, in the same change as those who vote instead; the leader itself after it has handed over
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
    /// Its node has come, and said so.
    pub came: bool,
    /// It has not, and its time for that is over.
    pub overdue: bool,
}

/// What the configuration is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// By member.
    pub targets: Vec<Target>,
    /// All that are to vote begin to at once: the cluster was founded for them.
    pub forming: bool,
    /// The leader decides who votes ([`Growth`](super::growth::Growth)), and who is to vote begins to together with the others.
    pub automatic: bool,
    /// A user has written: what is in the cluster must not get lost.
    pub committed: bool,
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
            came: member.run().is_some(),
            overdue: !member.votes && facts.charter.is_overdue(member.id()),
        };
        Self {
            targets: facts.members.iter().map(target).collect(),
            forming: facts.forming,
            automatic: facts.charter.automatic,
            committed: facts.charter.committed,
        }
    }

    /// Whether there is nothing left to change in `conf`, now or later.
    pub(super) fn is_met_by(&self, conf: &ConfState) -> bool {
        let ConfState { voters, learners, .. } = conf;
        let met = |target: &Target| match (target.bound, target.votes) {
            (false, _) => true,
            (true, true) => voters.contains(&target.member),
            (true, false) => conf.learners.contains(&target.member),
        };
        self.targets.iter().all(met)
            && voters.iter().chain(learners).all(|member| self.find(*member).is_some())
    }

    fn find(&self, member: MemberId) -> Option<&Target> {
        self.targets.iter().find(|target| target.member == member)
    }

    /// Whether it is a member and is to vote, or is to listen.
    fn has(&self, member: MemberId, votes: bool) -> bool {
        self.find(member).is_some_and(|target| target.votes == votes)
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
    let missing = wanted.targets.iter().filter(|target| target.bound && !conf.names(target.member));
    let joins = missing.map(|target| (target.member, MemberChange::Learner)).collect();
    change(joins).or_else(|| revote(conf, wanted, me, hand_over, &has_caught_up)).or_else(|| {
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

fn change(changes: Vec<(MemberId, MemberChange)>) -> Option<Step> {
    (!changes.is_empty()).then(|| Step::Change(ConfChange { changes, ..ConfChange::default() }))
}

/// Who votes from now on, and who no longer.
fn revote(
    conf: &ConfState,
    wanted: &Membership,
    me: MemberId,
    hand_over: &HandOver,
    has_caught_up: impl Fn(MemberId) -> bool,
) -> Option<Step> {
    let is_there = |member: MemberId| member == me || has_caught_up(member);
    let promoted = promotions(conf, wanted, &has_caught_up);
    let mut demoted = demotions(conf, wanted, &promoted, is_there);
    if demoted.contains(&me) {
        let stays = |voter: &MemberId| wanted.has(*voter, true) && has_caught_up(*voter);
        let heir = hand_over.next(conf.voters.iter().copied().filter(stays));
        if let Some(heir) = heir {
            return Some(Step::HandOver(heir));
        }
        // Among those who are promoted there may be one.
        demoted.retain(|member| *member != me);
    }
    let promotions = promoted.into_iter().map(|member| (member, MemberChange::Voter));
    change(promotions.chain(demoted.into_iter().map(|member| (member, MemberChange::Learner))).collect())
}

/// Who may begin to vote now.
fn promotions(
    conf: &ConfState,
    wanted: &Membership,
    has_caught_up: impl Fn(MemberId) -> bool,
) -> Vec<MemberId> {
    let mut waiting = waiting(conf, wanted);
    let here = |target: &Target| !target.votes || conf.names(target.member);
    let all_here = !wanted.forming || wanted.targets.iter().all(here);
    // From one voter to two, or with one of two that are to come, the cluster would stand no loss more, and wait for one member more.
    let together = wanted.forming || wanted.automatic;
    if !all_here || together && !waiting.iter().all(|member| has_caught_up(*member)) {
        return Vec::new();
    }
    waiting.retain(|member| has_caught_up(*member));
    waiting
}

fn waiting(conf: &ConfState, wanted: &Membership) -> Vec<MemberId> {
    conf.learners.iter().copied().filter(|member| wanted.has(*member, true)).collect()
}

/// Who may stop voting in the change in which these begin to: all that are to, or nobody as long as somebody who is to vote instead cannot.
fn demotions(
    conf: &ConfState,
    wanted: &Membership,
    promoted: &[MemberId],
    is_there: impl Fn(MemberId) -> bool,
) -> Vec<MemberId> {
    let demoted: Vec<MemberId> =
        conf.voters.iter().copied().filter(|member| wanted.has(*member, false)).collect();
    let stay = conf.voters.iter().filter(|voter| !demoted.contains(voter)).chain(promoted);
    let stay: Vec<MemberId> = stay.copied().collect();
    let there = stay.iter().filter(|voter| is_there(**voter)).count();
    let complete = waiting(conf, wanted).len() == promoted.len();
    let safe = losses_stood(stay.len()) >= losses_stood(conf.voters.len()) && there > stay.len() / 2;
    if complete && safe { demoted } else { Vec::new() }
}

/// How many of so many voters may be lost.
fn losses_stood(voters: usize) -> usize {
    voters.saturating_sub(1) / 2
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
        let target = |member: &u64| Target {
            member: MemberId(*member),
            bound: true,
            votes: true,
            came: true,
            overdue: false,
        };
        Membership { targets: members.iter().map(target).collect(), ..Membership::default() }
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
        wanted.targets[1].votes = false;
        assert!(wanted.is_met_by(&conf(&[1], &[2])) && !wanted.is_met_by(&conf(&[1, 2], &[])));
    }

    /// By whom it is led, who votes and listens, who is to vote, who has caught up, and what is to be done.
    type Case = (u64, (&'static [u64], &'static [u64]), &'static [u64], &'static [u64], Option<Step>);

    fn check(cases: Vec<Case>, automatic: bool) {
        for (me, (voting, listening), to_vote, ready, step) in cases {
            let conf = conf(voting, listening);
            let all = [voting, listening].concat();
            let mut wanted = Membership { automatic, ..voters(&all) };
            for target in &mut wanted.targets {
                target.votes = to_vote.contains(&target.member.0);
            }
            let ready = ids(ready);
            let next = next_step(&conf, &wanted, MemberId(me), &HandOver::default(), |member| {
                ready.contains(&member)
            });
            assert_eq!(next, step, "{me} leads {conf:?}, to vote are {to_vote:?}, there are {ready:?}");
        }
    }

    fn swap(promoted: &[u64], demoted: &[u64]) -> Option<Step> {
        let (Step::Change(mut one), Step::Change(two)) =
            (changes(MemberChange::Voter, promoted), changes(MemberChange::Learner, demoted))
        else {
            return None;
        };
        one.changes.extend(two.changes);
        Some(Step::Change(one))
    }

    #[test]
    fn who_votes_no_more_goes_in_the_change_in_which_others_come() {
        let hand_over = |heir| Some(Step::HandOver(MemberId(heir)));
        check(
            vec![
                (1, (&[1, 2, 3], &[4]), &[1, 2, 4], &[2, 4], swap(&[4], &[3])),
                (1, (&[1, 2, 3], &[4]), &[1, 2, 4], &[2, 3, 4], swap(&[4], &[3])),
                (1, (&[1, 2, 3], &[4]), &[1, 2, 4], &[2], None),
                (1, (&[1, 2, 3], &[4]), &[1, 2, 4], &[2, 3], None),
                (1, (&[1, 2, 3], &[4, 5]), &[1, 4, 5], &[2, 4, 5], swap(&[4, 5], &[2, 3])),
                // All but one of the new majority would have to come yet.
                (1, (&[1, 2, 3, 4, 5], &[6]), &[1, 2, 3, 4, 6], &[4, 6], swap(&[6], &[5])),
                (1, (&[1, 2, 3, 4, 5], &[6]), &[1, 2, 3, 4, 6], &[5, 6], swap(&[6], &[])),
                // Without anybody who comes, where the rest stands as many losses.
                (1, (&[1, 2, 3, 4], &[]), &[1, 2, 3], &[2, 3, 4], swap(&[], &[4])),
                (1, (&[1, 2, 3, 4], &[]), &[1, 2, 3], &[2], swap(&[], &[4])),
                (1, (&[1, 2, 3, 4], &[]), &[1, 2, 3], &[4], None),
                (1, (&[1, 2, 3], &[]), &[1, 2], &[2], None),
                (1, (&[1, 2, 3], &[]), &[1, 2], &[2, 3], None),
                (1, (&[1, 2, 3], &[]), &[], &[2, 3], None),
                (1, (&[1], &[]), &[], &[], None),
                (1, (&[1, 2], &[]), &[1], &[], swap(&[], &[2])),
                // The leader itself.
                (3, (&[1, 2, 3], &[4]), &[1, 2, 4], &[2, 4], hand_over(2)),
                (3, (&[1, 2, 3], &[4]), &[1, 2, 4], &[4], swap(&[4], &[])),
                (3, (&[1, 2, 3], &[4]), &[1, 2, 4], &[1, 2], None),
                (3, (&[1, 2, 3], &[]), &[1, 2], &[1, 2], None),
                (2, (&[1, 2], &[]), &[1], &[1], hand_over(1)),
                (1, (&[1], &[2]), &[2], &[2], swap(&[2], &[])),
            ],
            true,
        );
    }

    #[test]
    fn where_the_leader_decides_who_votes_all_that_are_to_begin_together() {
        check(
            vec![
                (1, (&[1], &[2, 3]), &[1, 2, 3], &[2], None),
                (1, (&[1], &[2, 3]), &[1, 2, 3], &[2, 3], swap(&[2, 3], &[])),
                (1, (&[1], &[2, 3]), &[1, 2], &[2], swap(&[2], &[])),
                (1, (&[1, 2, 3], &[4, 5]), &[1, 2, 3, 4, 5], &[2, 3, 5], None),
            ],
            true,
        );
        check(
            vec![
                (1, (&[1], &[2, 3]), &[1, 2, 3], &[2], swap(&[2], &[])),
                (1, (&[1, 2, 3], &[4, 5]), &[1, 2, 4, 5], &[2, 4], swap(&[4], &[])),
                (1, (&[1, 2, 3], &[4, 5]), &[1, 2, 4, 5], &[2, 4, 5], swap(&[4, 5], &[3])),
            ],
            false,
        );
        let mut wanted = Membership { automatic: true, ..voters(&[1, 2, 3, 4]) };
        wanted.targets[3].bound = false;
        assert_eq!(
            next_step(&conf(&[1], &[2, 3]), &wanted, ME, &HandOver::default(), |_| true),
            swap(&[2, 3], &[]),
            "a place without a node keeps nobody waiting"
        );
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
