//! Two clusters that meet: which of them gives itself up for the other.
//!
//! Owns: that decision, equal on both sides. Must never: count anything that can change on the way (comparing numbers of members lets two clusters dissolve
//! into each other), or give up what a user has written. Pure; asked by `app` once the other cluster's member has answered.
//!
//! A cluster to which a user has written beats one to which nobody has, and of two of those the lower id wins. `committed` can change, but in one direction, and
//! the log has the last word: giving up takes effect only where nothing was written before it. So two clusters never both give up: whichever sees the other one
//! ahead by id does, and the other one, which sees itself ahead by the same ids, can only be beaten by a write, which would not let this one win.
//!
//! None gives itself up for a cluster that uses commands which one of its own members does not understand: that one could go on in neither.

use std::fmt;

use super::message::Standing;
use crate::command::CommandVersion;
use crate::planted::{self, Bug};

/// What a cluster does about another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// It asks the other one to take its members in, and gives itself up then.
    Yield,
    /// It waits for the other one to do that.
    Wait,
    /// It stays as it is, and an operator has to decide.
    Conflict(Conflict),
}

/// Why two clusters cannot become one by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Both have what users have written.
    #[error("users have written to both clusters")]
    BothCommitted,
    /// The one that would have to give itself up does not trust the other one.
    #[error("this cluster is sealed, and the other one has not proven to have the same secret")]
    Untrusted,
    /// The members of the one that would have to give itself up are of a build that is too old for the other one.
    #[error("{0}")]
    Outdated(Outdated),
}

impl Conflict {
    /// Which boxes are to be upgraded, where that is why.
    pub fn outdated(self) -> Option<Outdated> {
        match self {
            Self::BothCommitted | Self::Untrusted => None,
            Self::Outdated(outdated) => Some(outdated),
        }
    }
}

/// Boxes of one cluster that are to be upgraded before they can be in another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outdated {
    /// Whether they are those of the cluster that says so.
    pub ours: bool,
    /// What all of them understand.
    pub understood: CommandVersion,
    /// What they would have to.
    pub used: CommandVersion,
}

impl Outdated {
    /// What is in the way of boxes all of which understand so much, where so much is used; `None`: nothing.
    pub fn of(ours: bool, understood: CommandVersion, used: CommandVersion) -> Option<Self> {
        (understood < used).then_some(Self { ours, understood, used })
    }
}

impl fmt::Display for Outdated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ours, understood: CommandVersion(understood), used: CommandVersion(used) } = self;
        let (whose, who) =
            if *ours { ("this cluster", "the other one") } else { ("the other cluster", "this one") };
        write!(
            f,
            "covey is to be upgraded on the boxes of {whose}: {who} uses commands of version {used}, and not all of them understand more than version {understood}"
        )
    }
}

/// Why members of one cluster cannot be in another one. `ours`: they are those of the cluster that asks.
pub fn outdated(members_of: &Standing, other: &Standing, ours: bool) -> Option<Outdated> {
    Outdated::of(ours, members_of.understands, other.uses)
}

/// What a cluster that stands like this does about `other`. `trusts`: what the other one has shown is enough to join it.
pub fn course(own: &Standing, other: &Standing, trusts: bool) -> Course {
    let rank = |cluster: &Standing| (!cluster.committed, cluster.cluster);
    let is_ahead = if planted::has(Bug::CompareNames) && own.committed == other.committed {
        own.name < other.name
    } else {
        rank(own) < rank(other)
    };
    let outdated = if is_ahead { outdated(other, own, false) } else { outdated(own, other, true) };
    if own.committed && other.committed {
        Course::Conflict(Conflict::BothCommitted)
    } else if let Some(outdated) = outdated {
        Course::Conflict(Conflict::Outdated(outdated))
    } else if is_ahead {
        Course::Wait
    } else if trusts {
        Course::Yield
    } else {
        Course::Conflict(Conflict::Untrusted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formation::Generation;
    use crate::ids::ClusterId;

    fn standing(cluster: u64, committed: bool) -> Standing {
        let (name, generation) = (String::new(), Generation(1));
        let (uses, understands) = (CommandVersion(1), CommandVersion(2));
        Standing { name, cluster: ClusterId(cluster), generation, committed, open: true, uses, understands }
    }

    #[test]
    fn what_users_have_written_stays_and_otherwise_the_lower_id_wins() {
        let both = Course::Conflict(Conflict::BothCommitted);
        for (own, other, expected) in [
            ((1, false), (2, false), Course::Wait),
            ((2, false), (1, false), Course::Yield),
            ((2, true), (1, false), Course::Wait),
            ((1, false), (2, true), Course::Yield),
            ((1, true), (2, true), both),
            ((2, true), (1, true), both),
        ] {
            let (own, other) = (standing(own.0, own.1), standing(other.0, other.1));
            assert_eq!(course(&own, &other, true), expected, "{own:?} {other:?}");
            let distrusted = match expected {
                Course::Yield => Course::Conflict(Conflict::Untrusted),
                course => course,
            };
            assert_eq!(course(&own, &other, false), distrusted);
        }
    }

    /// Whichever would give itself up, and whatever the other one uses then.
    #[test]
    fn no_cluster_gives_itself_up_for_one_that_its_members_do_not_understand() {
        let of = |uses, understands, cluster| {
            let (uses, understands) = (CommandVersion(uses), CommandVersion(understands));
            Standing { uses, understands, ..standing(cluster, false) }
        };
        for (winner, loser) in [((1, 1), (1, 1)), ((1, 1), (2, 2)), ((1, 2), (1, 1)), ((2, 2), (2, 2))] {
            let (winner, loser) = (of(winner.0, winner.1, 1), of(loser.0, loser.1, 2));
            let courses = (course(&winner, &loser, true), course(&loser, &winner, true));
            assert_eq!(courses, (Course::Wait, Course::Yield), "{winner:?} {loser:?}");
        }
        let (winner, loser) = (of(2, 3, 1), of(1, 1, 2));
        let outdated = |ours| {
            let (understood, used) = (CommandVersion(1), CommandVersion(2));
            Course::Conflict(Conflict::Outdated(Outdated { ours, understood, used }))
        };
        for trusts in [false, true] {
            assert_eq!(course(&winner, &loser, trusts), outdated(false));
            assert_eq!(course(&loser, &winner, trusts), outdated(true));
        }
        let Course::Conflict(why) = outdated(true) else { unreachable!() };
        assert_eq!(
            why.to_string(),
            "covey is to be upgraded on the boxes of this cluster: the other one uses commands of version 2, and not all of them understand more than version 1"
        );
    }

    /// Each looks at the other in some moment of its own; a cluster that has written something by the time that it would give up does not.
    #[test]
    fn two_clusters_never_both_give_up() {
        for bits in 0..64_u32 {
            let bit = |n: u32| bits >> n & 1 == 1;
            // As seen by the other one, and as it is when its own decision takes effect: never less.
            let (one_seen, one_now) = (bit(0), bit(0) || bit(1));
            let (two_seen, two_now) = (bit(2), bit(2) || bit(3));
            let one = course(&standing(1, one_now), &standing(2, two_seen), bit(4));
            let two = course(&standing(2, two_now), &standing(1, one_seen), bit(5));
            let gives_up = |course, committed: bool| course == Course::Yield && !committed;
            assert!(!(gives_up(one, one_now) && gives_up(two, two_now)), "{bits:b}");
        }
    }
}
