//! The API reference's rules for leases that are state, one by one: section 3, and what 1.4 to 1.6 say of attachments.

use bytes::Bytes;

use super::rig::{Entry, Rig, TERM, in_all_layers, put};
use crate::command::{
    Alarm, AlarmAction, AlarmKind, Applied, Command, LeaseChange, LeaseCommand, LeaseInstance, Op, Outcome,
    Put, Rejection, Txn,
};
use crate::ids::{LeaseId, MemberId, Revision, Term, VersionId};
use crate::limits::LEASE_BYTES;
use crate::store::{ChangeKind, Lease};

const ONE: LeaseId = LeaseId(1);
const TWO: LeaseId = LeaseId(-2);

fn grant(rig: &mut Rig, id: LeaseId) -> LeaseInstance {
    let applied = rig.apply(Command::Lease(LeaseCommand::Grant { id, ttl: 60 }));
    assert_eq!(applied.outcome, Ok(Outcome::LeaseGrant { ttl: 60 }));
    LeaseInstance { id, granted_at: rig.view().applied() }
}

fn revoke(rig: &mut Rig, id: LeaseId) -> Applied {
    rig.apply(Command::Lease(LeaseCommand::Revoke { id }))
}

fn expire(rig: &mut Rig, term: Term, leases: &[LeaseInstance]) -> Vec<LeaseId> {
    let leases = leases.to_vec();
    match rig.apply(Command::Lease(LeaseCommand::Expire { term, leases })).outcome {
        Ok(Outcome::LeaseExpire(ended)) => ended,
        other => panic!("{other:?}"),
    }
}

fn leased(key: &str, lease: LeaseId) -> Put {
    Put { lease: LeaseChange::Set(lease), ..put(key, "v") }
}

fn attach(rig: &mut Rig, key: &str, lease: LeaseId) {
    let applied = rig.apply(Command::Put(leased(key, lease)));
    assert!(applied.outcome.is_ok(), "{applied:?}");
}

fn keys(rig: &Rig, lease: LeaseId) -> Vec<Bytes> {
    rig.view().lease_keys(lease).expect("a sound store")
}

/// The changes from a revision on: which key in which place, and whether it was deleted.
fn changes(rig: &Rig, from: i64) -> Vec<(i64, u32, Bytes, bool)> {
    let view = rig.view();
    let changes = view.changes(VersionId::first_of(Revision(from))).expect("a sound store");
    let changes = changes.map(|change| change.expect("a sound store"));
    changes.map(|(id, change)| (id.main.0, id.sub, change.key, change.kind == ChangeKind::Delete)).collect()
}

#[test]
fn a_grant_makes_no_revision_and_an_id_is_taken_once() {
    in_all_layers(|rig, settle| {
        let granted = grant(rig, TWO);
        settle(rig);
        let again = rig.apply(Command::Lease(LeaseCommand::Grant { id: TWO, ttl: 5 }));
        assert_eq!((again.revision, again.outcome), (Revision(1), Err(Rejection::LeaseExists)));
        let lease = Lease { ttl: 60, remaining: 0, granted_at: granted.granted_at };
        assert_eq!(rig.view().leases().find(TWO), Some(&lease));
        assert_eq!(rig.view().bytes_in_use(), LEASE_BYTES);
        assert_eq!(revoke(rig, TWO).outcome, Ok(Outcome::LeaseRevoke));
        settle(rig);
        assert_eq!((rig.view().leases().len(), rig.view().bytes_in_use()), (0, 0));
        assert_ne!(grant(rig, TWO), granted, "another lease under the same id");
    });
}

#[test]
fn a_revocation_deletes_the_attached_keys_in_order_in_one_revision() {
    in_all_layers(|rig, settle| {
        grant(rig, ONE);
        grant(rig, TWO);
        for key in ["c", "a", "b", "d", "e"] {
            attach(rig, key, ONE);
        }
        settle(rig);
        attach(rig, "b", TWO);
        attach(rig, "d", LeaseId::NONE);
        rig.delete("e", "");
        rig.apply(Command::Put(Put { lease: LeaseChange::Keep, ..put("c", "w") }));
        assert_eq!((keys(rig, ONE), keys(rig, TWO)), (vec!["a".into(), "c".into()], vec!["b".into()]));
        settle(rig);
        assert_eq!((keys(rig, ONE), keys(rig, TWO)), (vec!["a".into(), "c".into()], vec!["b".into()]));
        let before = rig.view();
        let revision = before.revision().0;
        let revoked = revoke(rig, ONE);
        assert_eq!((revoked.revision.0, revoked.outcome), (revision + 1, Ok(Outcome::LeaseRevoke)));
        let gone = [(revision + 1, 0, "a".into(), true), (revision + 1, 1, "c".into(), true)];
        assert_eq!(changes(rig, revision + 1), gone);
        settle(rig);
        assert_eq!((keys(rig, ONE), keys(rig, TWO)), (vec![], vec!["b".into()]));
        assert_eq!(
            before.lease_keys(ONE).expect("a sound store").len(),
            2,
            "an older view keeps what it had"
        );
        let revoked = revoke(rig, ONE);
        assert_eq!((revoked.revision.0, revoked.outcome), (revision + 1, Err(Rejection::LeaseNotFound)));
        rig.delete("b", "");
        let revoked = revoke(rig, TWO);
        assert_eq!(revoked.revision.0, revision + 2, "no keys, no revision");
    });
}

#[test]
fn only_an_existing_lease_is_attached_to() {
    in_all_layers(|rig, settle| {
        grant(rig, ONE);
        settle(rig);
        let refused = |rig: &mut Rig, command| rig.apply(command).outcome;
        assert_eq!(refused(rig, Command::Put(leased("k", LeaseId(5)))), Err(Rejection::LeaseNotFound));
        let txn = |leases: &[LeaseId]| {
            let put = |(number, lease): (usize, &LeaseId)| Op::Put(leased(&number.to_string(), *lease));
            Command::Txn(Txn { success: leases.iter().enumerate().map(put).collect(), ..Txn::default() })
        };
        assert_eq!(refused(rig, txn(&[ONE, LeaseId(5)])), Err(Rejection::LeaseNotFound));
        assert_eq!(rig.view().revision(), Revision(1), "nothing of it was done");
        assert!(refused(rig, txn(&[ONE, LeaseId::NONE, ONE])).is_ok());
        assert_eq!(keys(rig, ONE), ["0", "2"]);
    });
}

#[test]
fn leases_that_expire_together_have_a_revision_each() {
    in_all_layers(|rig, settle| {
        let (one, two, none) = (grant(rig, ONE), grant(rig, TWO), grant(rig, LeaseId(3)));
        attach(rig, "a", TWO);
        attach(rig, "b", ONE);
        attach(rig, "c", TWO);
        settle(rig);
        let unknown = LeaseInstance { id: LeaseId(9), ..one };
        assert_eq!(expire(rig, TERM, &[one, unknown, none, two, two]), [ONE, LeaseId(3), TWO]);
        let gone = [(5, 0, "b".into(), true), (6, 0, "a".into(), true), (6, 1, "c".into(), true)];
        assert_eq!(changes(rig, 5), gone);
        assert!(rig.view().leases().is_empty());
    });
}

#[test]
fn an_expiry_of_another_term_or_of_an_earlier_lease_ends_nothing() {
    in_all_layers(|rig, settle| {
        let first = grant(rig, ONE);
        assert_eq!(expire(rig, Term(TERM.0 - 1), &[first]), []);
        assert_eq!(expire(rig, Term(TERM.0 + 1), &[first]), []);
        revoke(rig, ONE);
        let second = grant(rig, ONE);
        settle(rig);
        assert_eq!(expire(rig, TERM, &[first]), []);
        assert_eq!(rig.view().leases().len(), 1);
        assert_eq!(expire(rig, TERM, &[second]), [ONE]);
    });
}

#[test]
fn a_checkpoint_is_kept_until_the_next() {
    in_all_layers(|rig, settle| {
        let lease = grant(rig, ONE);
        let other = LeaseInstance { id: TWO, ..lease };
        let checkpoint = |rig: &mut Rig, term, remaining| {
            let leases = vec![(other, 1), (lease, remaining)];
            rig.apply(Command::Lease(LeaseCommand::Checkpoint { term, sequence: 1, leases })).outcome
        };
        assert_eq!(checkpoint(rig, TERM, 30), Ok(Outcome::LeaseCheckpoint(vec![ONE])));
        settle(rig);
        assert_eq!(checkpoint(rig, Term(TERM.0 - 1), 5), Ok(Outcome::LeaseCheckpoint(vec![])));
        assert_eq!(rig.view().leases().find(ONE).map(|lease| lease.remaining), Some(30));
        assert_eq!(checkpoint(rig, TERM, 0), Ok(Outcome::LeaseCheckpoint(vec![ONE])));
        settle(rig);
        assert_eq!(rig.view().leases().find(ONE).map(|lease| lease.remaining), Some(0));
        assert_eq!(rig.view().revision(), Revision(1));
    });
}

#[test]
fn without_space_leases_end_and_none_is_granted_and_with_corrupt_data_nothing_happens() {
    let mut rig = Rig::new();
    let (one, two) = (grant(&mut rig, ONE), grant(&mut rig, TWO));
    attach(&mut rig, "k", ONE);
    let alarm = |action, kind| Command::Alarm { action, alarm: Alarm { member: MemberId(1), kind } };
    let third = || Command::Lease(LeaseCommand::Grant { id: LeaseId(3), ttl: 9 });
    rig.apply(alarm(AlarmAction::Activate, AlarmKind::Corrupt));
    assert_eq!(rig.apply(third()).outcome, Err(Rejection::Corrupt));
    assert_eq!(revoke(&mut rig, ONE).outcome, Err(Rejection::Corrupt));
    let leases = vec![one];
    let expiry = rig.apply(Command::Lease(LeaseCommand::Expire { term: TERM, leases }));
    assert_eq!(expiry.outcome, Err(Rejection::Corrupt));
    assert_eq!(rig.view().leases().len(), 2);
    rig.apply(alarm(AlarmAction::Deactivate, AlarmKind::Corrupt));
    rig.apply(alarm(AlarmAction::Activate, AlarmKind::NoSpace));
    assert_eq!(rig.apply(third()).outcome, Err(Rejection::NoSpace));
    assert_eq!(revoke(&mut rig, ONE).revision, Revision(3));
    assert_eq!(expire(&mut rig, TERM, &[two]), [TWO]);
}

#[test]
fn a_fold_takes_over_only_what_changed() {
    let mut rig = Rig::new();
    for id in 1..100 {
        grant(&mut rig, LeaseId(id));
    }
    rig.rotate();
    rig.fold();
    grant(&mut rig, LeaseId(200));
    revoke(&mut rig, LeaseId(7));
    grant(&mut rig, LeaseId(300));
    revoke(&mut rig, LeaseId(300));
    rig.enter(Entry::Empty);
    let batch = rig.machine.rotate().expect("there is something to fold");
    let changed: Vec<(i64, bool)> = batch.leases.iter().map(|(id, lease)| (id.0, lease.is_some())).collect();
    assert_eq!(changed, [(7, false), (200, true), (300, false)]);
}
