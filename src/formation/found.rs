//! Founding a cluster of one.
//!
//! Owns: the first facts of a cluster. Must never: touch a disk. Driven by `app`.

use std::sync::Arc;

use super::identity::{ClusterRoot, Generation, Identity, NodeKey, Stage, founder_id};
use crate::command::MemberAttributes;
use crate::ids::{Incarnation, LogIndex, MemberId, PublicKey, Revision, Term};
use crate::store::{Charter, ConfState, Member, Meta, Window};
use crate::wal::Position;

/// A cluster that consists of its founder: what has to be on disk before it serves (see [`super::open`] for the order).
#[derive(Clone, Debug)]
pub struct Founding {
    /// Who the founder is.
    pub identity: Identity,
    /// What the store begins with.
    pub meta: Meta,
    /// The position that the log continues. Not 0: a joiner's log must begin at a snapshot, so there has to be one.
    pub log_start: Position,
}

/// Founds a cluster alone. Key, root and nonce are fresh and random.
pub fn found_solo(key: NodeKey, root: ClusterRoot, boot_nonce: u64) -> Founding {
    let member = founder_id(&key, boot_nonce);
    let identity = Identity {
        key,
        member,
        root,
        generation: Generation(1),
        stage: Stage::Founding,
        incarnation: Incarnation(1),
        boot_nonce,
        shown: true,
        earlier: Vec::new(),
        promise: None,
        winner: None,
    };
    let (meta, log_start) = first_state(&identity);
    Founding { identity, meta, log_start }
}

/// Founds alone a cluster that forms by itself: others come in until its window closes. That is on the record only once it is done, so that a founder
/// that is interrupted asks anew who is there ([`Stage::Forming`]). One that is not to be `open` has no window: nobody comes in by being near.
pub fn found_automatic(key: NodeKey, root: ClusterRoot, boot_nonce: u64, open: bool) -> Founding {
    let mut founding = found_solo(key, root, boot_nonce);
    founding.identity.stage = Stage::Forming;
    let charter = Charter::automatic();
    let window = if open { charter.window } else { Window::default() };
    founding.meta.charter = Arc::new(Charter { window, ..charter });
    founding
}

/// What the store of a cluster's founder begins with, and the position that its log continues.
pub fn first_state(founder: &Identity) -> (Meta, Position) {
    first_state_of(founder.member, PublicKey(*founder.key.public()))
}

/// As [`first_state`].
pub fn first_state_of(founder: MemberId, key: PublicKey) -> (Meta, Position) {
    let (index, term) = (LogIndex(1), Term(1));
    let attributes = MemberAttributes { member: founder, ..MemberAttributes::default() };
    let meta = Meta {
        applied: index,
        applied_term: term,
        conf_state: ConfState { voters: vec![founder], ..ConfState::default() },
        revision: Revision(1),
        members: vec![Member { key: Some(key), votes: true, attributes }],
        ..Meta::default()
    };
    (meta, Position { index, term })
}

/// The founding of a node with a key that follows from `seed`.
#[cfg(test)]
pub(crate) fn test_founding(seed: u8) -> Founding {
    found_solo(super::identity::test_key(seed), ClusterRoot([seed; 32]), u64::from(seed))
}

#[cfg(test)]
mod tests {
    use super::super::identity::test_key;
    use super::*;

    #[test]
    fn only_a_cluster_that_forms_by_itself_begins_open_and_without_commitment() {
        let (key, root) = (test_key(1), ClusterRoot([1; 32]));
        let (solo, automatic) =
            (found_solo(key.clone(), root, 1), found_automatic(key.clone(), root, 1, true));
        assert_eq!(*solo.meta.charter, Charter::default());
        assert!(!solo.meta.charter.automatic && solo.meta.charter.committed && !solo.meta.charter.is_open());
        let charter = &automatic.meta.charter;
        assert!(charter.automatic && !charter.committed && charter.is_open());
        assert_eq!(charter.next_deadline(), Some(30 * 60));
        assert_eq!((solo.identity.stage, automatic.identity.stage), (Stage::Founding, Stage::Forming));
        let closed = found_automatic(key, root, 1, false).meta.charter;
        assert!(
            closed.automatic && !closed.committed && !closed.is_open() && closed.next_deadline().is_none()
        );
        let meta = Meta { charter: Arc::clone(&solo.meta.charter), ..automatic.meta };
        assert_eq!(meta, solo.meta, "all the rest is the same");
    }
}
