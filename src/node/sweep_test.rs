//! Deletions of very many keys in a whole member on one thread: what waits for the store, and what comes to the same.

use std::time::Duration;

use bytes::Bytes;

use super::driver_test::{Member, put};
use super::{LeaseAnswer, LeaseRequest};
use crate::command::{
    Command, DeleteRange, KeyRange, LeaseChange, LeaseCommand, Op, Outcome, Put, Range, Txn,
};
use crate::ids::{Digest, LeaseId, ProposalId};
use crate::mvcc::View;

/// Room for a few keys: all that are put below have some ten times as many.
const SMALL: usize = 1000;
const KEYS: usize = 30;
const LEASE: LeaseId = LeaseId(7);

fn delete_all(prev_kv: bool) -> Command {
    let zero = Bytes::from_static(b"\0");
    Command::DeleteRange(DeleteRange { range: KeyRange::from_wire(zero.clone(), zero), prev_kv })
}

impl Member {
    fn with_keys(overlay_bytes: Option<usize>) -> Self {
        let mut member = Self::found();
        if let Some(bytes) = overlay_bytes {
            member.applier.set_overlay_bytes(bytes);
        }
        member.propose(Command::Lease(LeaseCommand::Grant { id: LEASE, ttl: 10 }));
        for number in 0..KEYS {
            let lease = LeaseChange::Set(if number % 3 == 0 { LEASE } else { LeaseId::NONE });
            let key = format!("k{number}").into();
            member.propose(Command::Put(Put { key, value: Some("v".into()), lease, prev_kv: false }));
        }
        member.run();
        member
    }

    fn view(&self) -> &View {
        self.view.as_ref().unwrap()
    }

    fn digest(&self) -> Digest {
        self.view().digest()
    }

    /// What a deletion was answered, with how many previous values.
    fn answer(&self, id: ProposalId) -> Option<(i64, usize)> {
        let (_, applied) = self.replies.iter().find(|(replied, _)| *replied == id)?;
        match &applied.outcome {
            Ok(Outcome::DeleteRange(result)) => Some((result.deleted, result.previous.len())),
            other => panic!("{other:?}"),
        }
    }

    fn release_fold(&mut self) {
        let batch = self.held_fold.take().expect("a fold is under way");
        self.fold(&batch);
        self.run();
    }
}

#[test]
fn a_deletion_of_many_keys_comes_to_the_same_whoever_carries_it_out() {
    for prev_kv in [false, true] {
        let results = [None, Some(SMALL)].map(|overlay_bytes| {
            let mut member = Member::with_keys(overlay_bytes);
            let deletion = member.propose(delete_all(prev_kv));
            member.propose(put("after", "v"));
            member.run();
            assert_eq!(member.answer(deletion), Some((30, if prev_kv { KEYS } else { 0 })));
            assert!(member.folds > 2 || overlay_bytes.is_none());
            let (digest, applied) = (member.digest(), member.applier.applied());
            let member = member.restart();
            assert_eq!(member.applier.digest_at(applied), Some(digest));
            let keys = member.view().lease_keys(LEASE).unwrap();
            assert!(keys.is_empty() && member.value("k0").is_none() && member.value("after").is_some());
            (digest, member.view().revision(), member.view().bytes_in_use())
        });
        assert_eq!(results[0], results[1]);
    }
}

#[test]
fn what_comes_behind_it_waits_and_nothing_shows_before() {
    let mut member = Member::with_keys(Some(SMALL));
    member.hold_folds = true;
    // The fold of what is full is under way, and the deletion has to wait for it.
    while member.held_fold.is_none() {
        member.put("k0", "v");
    }
    member.put("k1", "changed");
    let before = (member.view().revision(), member.digest());
    let deletion = member.propose(delete_all(false));
    let put = member.propose(put("after", "v"));
    member.run();
    assert!(member.held_fold.as_ref().unwrap().sweep.is_none() && member.applier.is_stalled());
    member.release_fold();
    assert!(member.held_fold.as_ref().unwrap().sweep.is_some() && member.applier.is_stalled());
    assert_eq!((member.view().revision(), member.digest()), before);
    assert_eq!(member.value("k1").as_deref(), Some(&b"changed"[..]));
    assert!(member.answer(deletion).is_none());
    member.release_fold();
    assert_eq!(member.answer(deletion), Some((30, 0)));
    assert_eq!(member.replies.last().map(|(id, _)| *id), Some(put));
    assert_eq!((member.value("k1"), member.value("after")), (None, Some("v".into())));
}

#[test]
fn a_member_that_crashes_meanwhile_has_it_to_do_again() {
    let mut member = Member::with_keys(Some(SMALL));
    member.propose(delete_all(false));
    member.run();
    let (digest, applied) = (member.digest(), member.applier.applied());

    let mut member = Member::with_keys(Some(SMALL));
    member.hold_folds = true;
    member.propose(delete_all(false));
    member.run();
    assert!(member.held_fold.is_some() && member.applier.applied() < applied);
    let member = member.restart();
    assert_eq!(member.applier.digest_at(applied), Some(digest));
    assert_eq!(member.value("k1"), None);
}

#[test]
fn leases_do_not_end_while_nobody_can_renew_them() {
    let mut member = Member::with_keys(Some(SMALL));
    let left = |member: &mut Member| {
        member.applier.handle_lease_request(member.now, 1, LeaseRequest::TimeToLive(LEASE));
        member.run();
        member.lease_answers.pop()
    };
    member.now = member.now + Duration::from_secs(4);
    member.hold_folds = true;
    member.propose(delete_all(false));
    member.run();
    assert_eq!(member.applier.poll_timeout(), None, "there is nothing to do");
    member.now = member.now + Duration::from_mins(1);
    member.applier.handle_timeout(member.now);
    member.run();
    assert!(member.view().leases().contains(LEASE));
    member.hold_folds = false;
    member.release_fold();
    assert_eq!(left(&mut member), Some((1, LeaseAnswer::TimeToLive { granted: 10, remaining: 6 })));
    member.now = member.now + Duration::from_secs(6);
    member.applier.handle_timeout(member.now);
    member.run();
    assert!(!member.view().leases().contains(LEASE));
}

#[test]
fn leases_with_many_keys_end_once_and_the_lessor_hears_of_it() {
    let ended = |overlay_bytes| {
        let mut member = Member::with_keys(overlay_bytes);
        member.hold_folds = overlay_bytes.is_some();
        member.now = member.now + Duration::from_secs(11);
        member.applier.handle_timeout(member.now);
        member.run();
        if overlay_bytes.is_some() {
            assert!(member.view().leases().contains(LEASE) && member.held_fold.is_some());
            member.hold_folds = false;
            member.release_fold();
        }
        assert!(
            !member.view().leases().contains(LEASE) && member.view().lease_keys(LEASE).unwrap().is_empty()
        );
        assert_eq!((member.value("k0"), member.value("k1").is_some()), (None, true));
        member.applier.handle_lease_request(member.now, 1, LeaseRequest::List);
        member.run();
        assert_eq!(member.lease_answers.pop(), Some((1, LeaseAnswer::List(Vec::new()))));
        let digest = member.digest();
        let member = member.restart();
        assert!(member.value("k0").is_none() && !member.view().leases().contains(LEASE));
        (digest, member.view().revision())
    };
    assert_eq!(ended(None), ended(Some(SMALL)));
}

#[test]
fn a_transaction_that_deletes_many_keys_comes_to_the_same_whoever_carries_it_out() {
    let results = [None, Some(SMALL)].map(|overlay_bytes| {
        let mut member = Member::with_keys(overlay_bytes);
        let Command::DeleteRange(delete) = delete_all(true) else { unreachable!() };
        let count = Range { count_only: true, ..Range::all(delete.range.clone()) };
        let put = |key: &'static str| {
            let lease = LeaseChange::Set(LeaseId::NONE);
            Op::Put(Put { key: key.into(), value: Some("v".into()), lease, prev_kv: false })
        };
        let nested = Txn { success: vec![put("a")], ..Txn::default() };
        let success = vec![Op::Txn(nested), Op::DeleteRange(delete), Op::Range(count), put("z")];
        let txn = member.propose(Command::Txn(Txn { success, ..Txn::default() }));
        member.run();
        let (_, applied) = member.replies.iter().find(|(id, _)| *id == txn).unwrap();
        let outcome = applied.clone();
        assert_eq!((member.value("a"), member.value("z").is_some()), (None, true));
        (outcome, member.digest(), member.restart().view().bytes_in_use())
    });
    assert_eq!(results[0], results[1]);
}
