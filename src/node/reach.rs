//! Whether the members that are reached allow a change of the members: the part of etcd's strict reconfiguration check that is no state.
//!
//! Owns: the rule. Must never: decide what is applied, since each member reaches others. Pure; asked before a change is proposed.
//!
//! What counts are connections that have held for [`HEALTH_INTERVAL`], and so none right after a start: who has just come back may be about to
//! go again.

use std::collections::BTreeMap;

use crate::command::MemberCommand;
use crate::ids::MemberId;
use crate::limits::HEALTH_INTERVAL;
use crate::mvcc::Facts;
use crate::store::Member;
use crate::time::Instant;

/// Whom a member reaches.
#[derive(Clone, Debug)]
pub struct Reach {
    /// The member.
    pub me: MemberId,
    /// When that is so.
    pub now: Instant,
    /// Who is connected with it, and since when. A leader leaves out who is silent.
    pub connected: BTreeMap<MemberId, Instant>,
}

impl Reach {
    /// Whether those who are reached keep a majority through this change.
    ///
    /// - One more member, even without a vote: it may never come up, so that a majority of the grown cluster must be reached without it. A lone
    ///   voter could not grow otherwise, and may.
    /// - A voter less: one that is gone may go. Of one that is there, the others are looked at: a majority of them must be reached.
    /// - The rest is allowed: who is promoted has shown to the leader that it is there.
    pub fn allows(&self, command: &MemberCommand, facts: &Facts) -> bool {
        let voters = || facts.members.iter().filter(|member| member.votes).map(Member::id);
        match command {
            MemberCommand::Add { strict: true, .. } => {
                let count = voters().count();
                count == 1 || self.steady(voters()) >= majority_of(count + 1)
            }
            MemberCommand::Remove { id, strict: true } if voters().any(|voter| voter == *id) => {
                let others = || voters().filter(|voter| voter != id);
                let is_gone = *id != self.me && !self.connected.contains_key(id);
                is_gone || self.steady(others()) >= majority_of(others().count())
            }
            MemberCommand::Add { .. }
            | MemberCommand::Bind { .. }
            | MemberCommand::Promote { .. }
            | MemberCommand::Remove { .. }
            | MemberCommand::Update { .. }
            | MemberCommand::Revote { .. } => true,
        }
    }

    /// How many of these are reached and have been for long enough; the member itself always.
    fn steady(&self, members: impl Iterator<Item = MemberId>) -> usize {
        let since = |member| self.connected.get(&member).map(|since| self.now.since(*since));
        let is_steady = |member: &MemberId| {
            *member == self.me || since(*member).is_some_and(|held| held >= HEALTH_INTERVAL)
        };
        members.filter(is_steady).count()
    }
}

fn majority_of(members: usize) -> usize {
    members / 2 + 1
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command::MemberAttributes;

    const NOW: Instant = Instant(3_600_000_000_000);

    /// Voters from 1 on, and then learners.
    fn facts(voters: u64, learners: u64) -> Facts {
        let member = |n: u64| {
            let attributes = MemberAttributes { member: MemberId(n), ..MemberAttributes::default() };
            Member { key: None, votes: n <= voters, attributes }
        };
        Facts { members: (1..=voters + learners).map(member).collect(), ..Facts::default() }
    }

    /// Member 1, connected with these for so long.
    fn reach(others: &[(u64, Duration)]) -> Reach {
        let since = |held: Duration| Instant(NOW.0 - u64::try_from(held.as_nanos()).unwrap());
        let connected = others.iter().map(|(other, held)| (MemberId(*other), since(*held))).collect();
        Reach { me: MemberId(1), now: NOW, connected }
    }

    fn steady(others: &[u64]) -> Reach {
        reach(&others.iter().map(|other| (*other, HEALTH_INTERVAL)).collect::<Vec<_>>())
    }

    fn add(votes: bool, strict: bool) -> MemberCommand {
        MemberCommand::Add { peer_urls: Vec::new(), votes, strict, learners_max: 1 }
    }

    fn remove(id: u64) -> MemberCommand {
        MemberCommand::Remove { id: MemberId(id), strict: true }
    }

    #[test]
    fn a_majority_of_the_grown_cluster_must_be_reached_without_the_new_member() {
        for votes in [true, false] {
            let may_grow = |reach: Reach, voters: u64, learners: u64| {
                reach.allows(&add(votes, true), &facts(voters, learners))
            };
            assert!(may_grow(steady(&[]), 1, 0) && may_grow(steady(&[]), 1, 1), "a lone voter");
            assert!(!may_grow(steady(&[]), 2, 0) && may_grow(steady(&[2]), 2, 0));
            assert!(!may_grow(steady(&[2]), 3, 0) && may_grow(steady(&[2, 3]), 3, 0));
            assert!(!may_grow(steady(&[2, 4]), 3, 1), "who does not vote does not count");
            assert!(!may_grow(steady(&[2, 3]), 5, 0) && may_grow(steady(&[2, 3, 4]), 5, 0));
            let young = HEALTH_INTERVAL.saturating_sub(Duration::from_nanos(1));
            assert!(!may_grow(reach(&[(2, HEALTH_INTERVAL), (3, young)]), 3, 0), "not for long enough");
        }
        assert!(steady(&[]).allows(&add(true, false), &facts(3, 0)), "unless nobody wants to know");
    }

    #[test]
    fn a_voter_may_go_that_is_gone_or_that_leaves_a_reached_majority() {
        let may_go = |reach: Reach, voters: u64, id: u64| reach.allows(&remove(id), &facts(voters, 0));
        // Of three, one is lost.
        assert!(may_go(steady(&[2]), 3, 3), "the lost one");
        assert!(!may_go(steady(&[2]), 3, 2), "one of the living");
        assert!(!may_go(steady(&[2]), 3, 1), "this one itself");
        assert!((1..=3).all(|id| may_go(steady(&[2, 3]), 3, id)), "nobody is lost");
        // It may go as soon as it is gone, and stays until the others have been there for long enough.
        let young = reach(&[(2, HEALTH_INTERVAL), (3, Duration::ZERO)]);
        assert!(may_go(young.clone(), 3, 3) && !may_go(young, 3, 2));
        assert!(may_go(reach(&[(2, Duration::ZERO)]), 3, 3), "right after a start, too");
        // The last ones.
        assert!(may_go(steady(&[2]), 2, 2) && may_go(steady(&[2]), 2, 1) && may_go(steady(&[]), 2, 2));
        assert!(!may_go(steady(&[]), 2, 1), "who is left would not be there");
        assert!(!may_go(steady(&[]), 1, 1), "nobody would be left");
        let lax = MemberCommand::Remove { id: MemberId(2), strict: false };
        assert!(steady(&[2]).allows(&lax, &facts(3, 0)), "unless nobody wants to know");
    }

    #[test]
    fn what_takes_no_vote_needs_nobody() {
        let (alone, facts) = (steady(&[]), facts(3, 1));
        assert!(alone.allows(&remove(4), &facts), "a learner");
        assert!(alone.allows(&remove(9), &facts), "nobody");
        assert!(alone.allows(&MemberCommand::Promote { id: MemberId(4), strict: true }, &facts));
        assert!(alone.allows(&MemberCommand::Update { id: MemberId(2), peer_urls: Vec::new() }, &facts));
    }
}
