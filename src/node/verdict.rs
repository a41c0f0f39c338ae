//! Which of the members is wrong, when their digests at the same entry differ.
//!
//! Owns: the rule. Must never: take the word of a minority, or of one member, for the truth. Pure; asked by whoever compares.
//!
//! The log is the same on all members, and the state is a function of it. So a member that differs has applied something wrongly, or its memory
//! or its disk has changed it since. Which one that is only a majority of the voters can say: leading proves nothing.

use std::collections::BTreeMap;

use crate::ids::{Digest, MemberId};

/// What the digests of the voters say, from where this member stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A majority has what this member has, and nobody that is known another one; `complete` where all voters' are known.
    Equal {
        /// Nobody's is missing.
        complete: bool,
    },
    /// Nobody that is known has another one, and they are no majority: that says nothing of who is right.
    TooFew,
    /// A majority of the voters has the same, and this member another one.
    Wrong {
        /// Who differs from this member.
        others: Vec<MemberId>,
    },
    /// A majority has what this member has, and these have not.
    Others(Vec<MemberId>),
    /// There are different ones, and none has a majority.
    Undecided {
        /// Who differs from this member.
        others: Vec<MemberId>,
        /// Nobody's is missing, so that waiting does not help.
        complete: bool,
    },
}

/// Judges `own`, the digest of `me`, beside those of the other voters as far as they are known.
pub fn judge(me: MemberId, own: Digest, voters: &[MemberId], others: &BTreeMap<MemberId, Digest>) -> Verdict {
    let of = |voter: &MemberId| if *voter == me { Some(own) } else { others.get(voter).copied() };
    let known: Vec<(MemberId, Digest)> = voters.iter().filter_map(|id| Some((*id, of(id)?))).collect();
    let complete = known.len() == voters.len();
    let has_majority =
        |digest: Digest| 2 * known.iter().filter(|(_, other)| *other == digest).count() > voters.len();
    let different: Vec<MemberId> =
        known.iter().filter(|(_, digest)| *digest != own).map(|(id, _)| *id).collect();
    if has_majority(own) {
        if different.is_empty() { Verdict::Equal { complete } } else { Verdict::Others(different) }
    } else if different.is_empty() {
        Verdict::TooFew
    } else if known.iter().any(|(_, digest)| *digest != own && has_majority(*digest)) {
        Verdict::Wrong { others: different }
    } else {
        Verdict::Undecided { others: different, complete }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict of member 1 with digest 1 among voters `1..=voters`.
    fn verdict(voters: u64, others: &[(u64, u64)]) -> Verdict {
        let voters: Vec<MemberId> = (1..=voters).map(MemberId).collect();
        let others = others.iter().map(|(id, digest)| (MemberId(*id), Digest(*digest))).collect();
        judge(MemberId(1), Digest(1), &voters, &others)
    }

    #[test]
    fn a_majority_says_who_is_wrong() {
        assert_eq!(verdict(3, &[(2, 1), (3, 1)]), Verdict::Equal { complete: true });
        let wrong =
            |others: &[u64]| Verdict::Wrong { others: others.iter().copied().map(MemberId).collect() };
        assert_eq!(verdict(3, &[(2, 9), (3, 9)]), wrong(&[2, 3]));
        assert_eq!(verdict(3, &[(2, 1), (3, 9)]), Verdict::Others(vec![MemberId(3)]));
        let away = verdict(5, &[(2, 9), (3, 9), (4, 9)]);
        assert_eq!(away, wrong(&[2, 3, 4]), "one that is away changes nothing");
    }

    #[test]
    fn without_a_majority_nobody_is_wrong() {
        let both = Verdict::Undecided { others: vec![MemberId(2)], complete: true };
        assert_eq!(verdict(2, &[(2, 9)]), both);
        let waits = Verdict::Undecided { others: vec![MemberId(2)], complete: false };
        assert_eq!(verdict(3, &[(2, 9)]), waits);
        let three = Verdict::Undecided { others: vec![MemberId(2), MemberId(3)], complete: true };
        assert_eq!(verdict(3, &[(2, 8), (3, 9)]), three);
        let even = vec![MemberId(3), MemberId(4)];
        let even = Verdict::Undecided { others: even, complete: true };
        assert_eq!(verdict(4, &[(2, 1), (3, 9), (4, 9)]), even);
    }

    /// Silence must not look like consent.
    #[test]
    fn who_is_alone_with_its_state_has_heard_nothing() {
        let equal = |others: u64| (2..2 + others).map(|id| (id, 1)).collect::<Vec<_>>();
        for (voters, too_few) in [(2, 0..1), (3, 0..1), (4, 0..2), (5, 0..2)] {
            for others in 0..voters {
                let complete = others + 1 == voters;
                let expected =
                    if too_few.contains(&others) { Verdict::TooFew } else { Verdict::Equal { complete } };
                assert_eq!(verdict(voters, &equal(others)), expected, "{others} others of {voters} voters");
            }
        }
        assert_eq!(verdict(1, &[]), Verdict::Equal { complete: true });
    }

    /// It copies what the voters have.
    #[test]
    fn a_learner_has_no_vote_in_this_either() {
        let judged = |digests: &[(u64, u64)]| {
            let others = digests.iter().map(|(id, digest)| (MemberId(*id), Digest(*digest))).collect();
            judge(MemberId(7), Digest(1), &[MemberId(1), MemberId(2)], &others)
        };
        let wrong = Verdict::Wrong { others: vec![MemberId(1), MemberId(2)] };
        assert_eq!(judged(&[(1, 9), (2, 9)]), wrong);
        let undecided = |complete| Verdict::Undecided { others: vec![MemberId(2)], complete };
        assert_eq!(judged(&[(1, 1), (2, 9)]), undecided(true));
        assert_eq!(judged(&[(2, 9)]), undecided(false));
        assert_eq!(judged(&[(1, 1), (2, 1)]), Verdict::Equal { complete: true });
        assert_eq!(judged(&[(1, 1)]), Verdict::TooFew, "its own does not count");
        assert_eq!(judged(&[]), Verdict::TooFew);
    }
}
