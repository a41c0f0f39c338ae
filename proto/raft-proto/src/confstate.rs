//! Comparison of configurations.

use std::collections::BTreeSet;

use crate::eraftpb::ConfState;

/// Whether both describe the same configuration: the same ids in each role, in any order.
#[must_use]
pub fn conf_state_eq(a: &ConfState, b: &ConfState) -> bool {
    same_ids(&a.voters, &b.voters)
        && same_ids(&a.learners, &b.learners)
        && same_ids(&a.voters_outgoing, &b.voters_outgoing)
        && same_ids(&a.learners_next, &b.learners_next)
        && a.auto_leave == b.auto_leave
}

fn same_ids(a: &[u64], b: &[u64]) -> bool {
    a == b || a.iter().collect::<BTreeSet<_>>() == b.iter().collect::<BTreeSet<_>>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joint() -> ConfState {
        ConfState {
            voters: vec![1, 2, 3],
            learners: vec![4, 5],
            voters_outgoing: vec![1, 2, 6],
            learners_next: vec![6],
            auto_leave: true,
        }
    }

    #[test]
    fn order_is_ignored() {
        let other = ConfState {
            voters: vec![3, 1, 2],
            learners: vec![5, 4],
            voters_outgoing: vec![6, 2, 1],
            ..joint()
        };
        assert!(conf_state_eq(&joint(), &other));
        assert!(conf_state_eq(&other, &joint()));
    }

    #[test]
    fn every_field_counts() {
        let changes: [fn(&mut ConfState); 5] = [
            |cs| cs.voters.push(7),
            |cs| cs.learners.clear(),
            |cs| cs.voters_outgoing[0] = 7,
            |cs| cs.learners_next.push(1),
            |cs| cs.auto_leave = false,
        ];
        for change in changes {
            let mut other = joint();
            change(&mut other);
            assert!(!conf_state_eq(&joint(), &other));
            assert!(!conf_state_eq(&other, &joint()));
        }
    }
}
