//! Entries that are swept, one rule at a time; whole histories with them are in `model_test`.

use super::rig::{Rig, TERM, in_layers_of, interval, put, range};
use crate::command::{
    Command, DeleteRange, LeaseChange, LeaseCommand, LeaseInstance, Op, OpResult, Outcome, Put, Range, Txn,
};
use crate::ids::{LeaseId, LogIndex, Revision, VersionId};
use crate::store::ChangeKind;

/// So small that every deletion of an interval is swept in which there is a key.
const NO_ROOM: usize = 1;

fn delete(key: &str, end: &str) -> Op {
    Op::DeleteRange(DeleteRange { range: interval(key, end), prev_kv: true })
}

fn leased(key: &str, lease: LeaseId) -> Command {
    Command::Put(Put { lease: LeaseChange::Set(lease), ..put(key, "v") })
}

/// The changes of the revisions after `before`, deletions without values.
fn changes(rig: &Rig, before: i64) -> Vec<(i64, u32, String, bool)> {
    let view = rig.view();
    let changes = view.changes(VersionId::first_of(Revision(before + 1))).unwrap().map(Result::unwrap);
    let shown = changes.map(|(id, change)| {
        let key = String::from_utf8(change.key.to_vec()).unwrap();
        (id.main.0, id.sub, key, change.kind == ChangeKind::Delete)
    });
    shown.collect()
}

#[test]
fn a_transaction_sees_what_it_has_deleted_and_put() {
    in_layers_of(NO_ROOM, |rig, settle| {
        for key in ["a", "b", "c", "d", "z"] {
            rig.put(key, "v");
        }
        settle(rig);
        rig.put("e", "v");
        let before = rig.put("b", "w");
        let all = |limit, count_only| Op::Range(Range { limit, count_only, ..range("a", "\0") });
        let old = Op::Range(Range { revision: before, count_only: true, ..range("a", "\0") });
        let nested =
            Txn { success: vec![Op::Put(put("bb", "x")), delete("b", "d"), all(0, true)], ..Txn::default() };
        let txn = Txn {
            success: vec![
                Op::Put(put("0", "x")),
                all(1, false),
                Op::Txn(nested),
                delete("a", "c"),
                all(1, false),
                old,
                Op::Put(put("y", "x")),
                all(0, true),
                delete("f", "g"),
                Op::Range(range("bb", "")),
            ],
            ..Txn::default()
        };
        let (sweeps, result) = (rig.sweeps, rig.txn(txn).unwrap());
        assert_eq!(rig.sweeps, sweeps + 1);
        let mut seen = Vec::new();
        flatten(&result.responses, &mut seen);
        let expected = ["put", "range 1 of 6", "put", "deleted 3: b bb c", "range 0 of 4", "deleted 1: a"];
        assert_eq!(seen[..6], expected);
        let expected = ["range 1 of 3", "range 0 of 6", "put", "range 0 of 4", "deleted 0:", "range 0 of 0"];
        assert_eq!(seen[6..], expected);
        let of = |sub, key: &str, deleted| (before + 1, sub, key.to_owned(), deleted);
        let expected = [
            of(0, "0", false),
            of(1, "bb", false),
            of(2, "b", true),
            of(3, "bb", true),
            of(4, "c", true),
            of(5, "a", true),
            of(6, "y", false),
        ];
        assert_eq!(changes(rig, before), expected);
        rig.check_digest();
    });
}

fn flatten(responses: &[(Revision, OpResult)], into: &mut Vec<String>) {
    for (_, response) in responses {
        match response {
            OpResult::Put(_) => into.push("put".to_owned()),
            OpResult::Range(range) => into.push(format!("range {} of {}", range.kvs.len(), range.count)),
            OpResult::DeleteRange(result) => {
                let keys = result.previous.iter().map(|kv| format!(" {}", kv.key.escape_ascii()));
                into.push(format!("deleted {}:{}", result.deleted, keys.collect::<String>()));
            }
            OpResult::Txn(nested) => flatten(&nested.responses, into),
        }
    }
}

#[test]
fn leases_end_each_in_a_revision_of_its_own() {
    in_layers_of(NO_ROOM, |rig, settle| {
        let grant = |rig: &mut Rig, id| {
            rig.apply(Command::Lease(LeaseCommand::Grant { id: LeaseId(id), ttl: 10 }));
            LeaseInstance { id: LeaseId(id), granted_at: rig.view().applied() }
        };
        let leases = [1, 2, 3, 4].map(|id| grant(rig, id));
        for (key, lease) in [("c", 2), ("a", 2), ("x", 1), ("b", 1), ("y", 4)] {
            rig.apply(leased(key, LeaseId(lease)));
        }
        settle(rig);
        rig.apply(leased("b", LeaseId(2)));
        rig.apply(leased("a", LeaseId::NONE));
        let before = rig.view().revision().0;
        let older = LeaseInstance { granted_at: LogIndex(0), ..leases[3] };
        let leases = vec![leases[1], leases[2], leases[0], older];
        let applied = rig.apply(Command::Lease(LeaseCommand::Expire { term: TERM, leases }));
        assert_eq!(applied.outcome, Ok(Outcome::LeaseExpire([2, 3, 1].map(LeaseId).to_vec())));
        assert_eq!((rig.sweeps, applied.revision.0), (1, before + 2));
        let of = |after, sub, key: &str| (before + after, sub, key.to_owned(), true);
        assert_eq!(changes(rig, before), [of(1, 0, "b"), of(1, 1, "c"), of(2, 0, "x")]);
        rig.apply(Command::Lease(LeaseCommand::Revoke { id: LeaseId(4) }));
        assert_eq!((rig.sweeps, rig.view().leases().len()), (2, 0));
        rig.check_digest();
    });
}

/// What another leader wrote does nothing, and takes no fold.
#[test]
fn nothing_is_swept_for_what_has_no_effect() {
    let mut rig = Rig::with_overlay(NO_ROOM);
    rig.apply(Command::Lease(LeaseCommand::Grant { id: LeaseId(1), ttl: 10 }));
    let granted_at = rig.view().applied();
    rig.apply(leased("a", LeaseId(1)));
    let leases = vec![LeaseInstance { id: LeaseId(1), granted_at }];
    rig.apply(Command::Lease(LeaseCommand::Expire { term: crate::ids::Term(TERM.0 - 1), leases }));
    let never = vec![delete("a", "b")];
    rig.txn(Txn { failure: never, ..Txn::default() }).unwrap();
    rig.txn(Txn { success: vec![delete("a", ""), delete("b", "c")], ..Txn::default() }).unwrap();
    assert_eq!(rig.sweeps, 0);
}
