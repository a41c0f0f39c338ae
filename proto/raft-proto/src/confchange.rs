//! Configuration changes: one view on their two forms, and which of them use a joint configuration.

use std::borrow::Cow;

use crate::eraftpb::{ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2};

/// One step of a configuration change.
#[must_use]
pub fn new_conf_change_single(node_id: u64, change_type: ConfChangeType) -> ConfChangeSingle {
    ConfChangeSingle { change_type, node_id }
}

/// A configuration change in either form. Raft works on the newer one, but writes an older one to
/// the log as it is.
pub trait ConfChangeI {
    /// The newer form.
    fn into_v2(self) -> ConfChangeV2;

    /// The newer form, converted only if this is the older one.
    fn as_v2(&self) -> Cow<'_, ConfChangeV2>;

    /// The older form, if this is one. There is no way back from the newer.
    fn as_v1(&self) -> Option<&ConfChange>;
}

impl ConfChangeI for ConfChange {
    fn into_v2(self) -> ConfChangeV2 {
        ConfChangeV2 {
            transition: ConfChangeTransition::Auto,
            changes: vec![new_conf_change_single(self.node_id, self.change_type)],
            context: self.context,
        }
    }

    fn as_v2(&self) -> Cow<'_, ConfChangeV2> {
        Cow::Owned(self.clone().into_v2())
    }

    fn as_v1(&self) -> Option<&ConfChange> {
        Some(self)
    }
}

impl ConfChangeI for ConfChangeV2 {
    fn into_v2(self) -> ConfChangeV2 {
        self
    }

    fn as_v2(&self) -> Cow<'_, ConfChangeV2> {
        Cow::Borrowed(self)
    }

    fn as_v1(&self) -> Option<&ConfChange> {
        None
    }
}

impl ConfChangeV2 {
    /// Whether this change enters a joint configuration, and if so, whether raft leaves it by itself
    /// (true) or waits for an empty change (false).
    ///
    /// One step moves a majority by at most one node, so old and new majorities overlap without a
    /// joint configuration (raft dissertation §4.1); more steps may not, so they always use one.
    #[must_use]
    pub fn enter_joint(&self) -> Option<bool> {
        match self.transition {
            ConfChangeTransition::Auto if self.changes.len() <= 1 => None,
            ConfChangeTransition::Auto | ConfChangeTransition::Implicit => Some(true),
            ConfChangeTransition::Explicit => Some(false),
        }
    }

    /// Whether this change leaves a joint configuration. Its context may hold anything.
    #[must_use]
    pub fn leave_joint(&self) -> bool {
        self.transition == ConfChangeTransition::Auto && self.changes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(transition: ConfChangeTransition, steps: u64) -> ConfChangeV2 {
        ConfChangeV2 {
            transition,
            changes: (1..=steps).map(|id| new_conf_change_single(id, ConfChangeType::AddNode)).collect(),
            ..ConfChangeV2::default()
        }
    }

    #[test]
    fn joint_by_transition_and_number_of_steps() {
        use ConfChangeTransition::{Auto, Explicit, Implicit};
        // (transition, steps, enter_joint, leave_joint)
        let table = [
            (Auto, 0, None, true),
            (Auto, 1, None, false),
            (Auto, 2, Some(true), false),
            (Implicit, 0, Some(true), false),
            (Implicit, 1, Some(true), false),
            (Explicit, 1, Some(false), false),
            (Explicit, 2, Some(false), false),
        ];
        for (transition, steps, enter, leave) in table {
            let cc = change(transition, steps);
            assert_eq!(cc.enter_joint(), enter, "{cc:?}");
            assert_eq!(cc.leave_joint(), leave, "{cc:?}");
        }
    }

    #[test]
    fn context_does_not_keep_a_change_from_leaving() {
        let mut cc = change(ConfChangeTransition::Auto, 0);
        cc.context = b"who asked".as_slice().into();
        assert!(cc.leave_joint());
    }

    #[test]
    fn older_form_becomes_a_single_step() {
        let v1 = ConfChange {
            id: 9,
            change_type: ConfChangeType::AddLearnerNode,
            node_id: 4,
            context: b"addr".as_slice().into(),
        };
        let v2 = ConfChangeV2 {
            transition: ConfChangeTransition::Auto,
            changes: vec![new_conf_change_single(4, ConfChangeType::AddLearnerNode)],
            context: b"addr".as_slice().into(),
        };
        assert_eq!(*v1.as_v2(), v2);
        assert_eq!(v1.as_v1(), Some(&v1));
        assert_eq!(v1.clone().into_v2(), v2);
        assert_eq!(v2.as_v1(), None);
        assert_eq!(*v2.as_v2(), v2);
        assert_eq!(v2.clone().into_v2(), v2);
    }
}
