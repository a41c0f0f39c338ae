//! The API reference's rules for keys, one by one: sections 1.2 to 1.7 and 5.2. Each reads from the overlay and, folded, from the store.

use bytes::Bytes;

use super::Machine;
use super::rig::{Entry, FOUNDER, Rig, base, in_all_layers, interval, new_store, put, range};
use crate::command::{
    Alarm, AlarmAction, AlarmKind, Command, Compare, CompareResult, CompareTarget, DeleteRange, KeyValue,
    LeaseChange, MemberAttributes, Op, OpResult, Outcome, Put, PutResult, Range, RangeResult, Rejection,
    Sort, SortOrder, SortTarget, Txn, TxnResult,
};
use crate::ids::{LeaseId, LogIndex, MemberId, Revision, Term, VersionId};
use crate::limits::OVERLAY_BYTES;
use crate::mvcc::{Allowance, ReadError, Writer};
use crate::store::{ChangeKind, ConfState, Lease, Member};

fn read(rig: &Rig, request: &Range) -> RangeResult {
    rig.view().range(request).expect("retained")
}

fn refused(rig: &Rig, request: &Range) -> Rejection {
    match rig.view().range(request) {
        Err(ReadError::Rejected(rejection)) => rejection,
        other => panic!("{other:?}"),
    }
}

fn keys(kvs: &[KeyValue]) -> Vec<&str> {
    kvs.iter().map(|kv| std::str::from_utf8(&kv.key).expect("ascii")).collect()
}

fn success(ops: Vec<Op>) -> Txn {
    Txn { success: ops, ..Txn::default() }
}

fn delete(key: &str, end: &str) -> Op {
    Op::DeleteRange(DeleteRange { range: interval(key, end), prev_kv: true })
}

fn revisions(result: &TxnResult) -> Vec<i64> {
    result.responses.iter().map(|(revision, _)| revision.0).collect()
}

#[test]
fn a_key_counts_its_puts_and_starts_anew_after_a_delete() {
    in_all_layers(|rig, settle| {
        assert_eq!(rig.view().revision(), Revision(1), "a fresh store");
        assert_eq!(rig.put("k", "v"), 2);
        settle(rig);
        assert_eq!(rig.put("k", "v"), 3, "an equal value counts too");
        settle(rig);
        let kv = read(rig, &range("k", "")).kvs.remove(0);
        assert_eq!((kv.create_revision.0, kv.mod_revision.0, kv.version), (2, 3, 2));
        assert_eq!(rig.delete("k", ""), 1);
        settle(rig);
        assert_eq!(read(rig, &range("k", "")), RangeResult::default());
        rig.put("k", "");
        settle(rig);
        let kv = read(rig, &range("k", "")).kvs.remove(0);
        assert_eq!((kv.create_revision.0, kv.mod_revision.0, kv.version, kv.value.len()), (5, 5, 1, 0));
    });
}

#[test]
fn a_reversed_interval_is_empty_and_a_delete_of_nothing_makes_no_revision() {
    in_all_layers(|rig, settle| {
        rig.put("l", "v");
        settle(rig);
        assert_eq!(read(rig, &range("m", "k")), RangeResult::default());
        assert_eq!(rig.delete("m", "k"), 0);
        assert_eq!(rig.delete("a", "b"), 0);
        assert_eq!(rig.view().revision(), Revision(2));
        assert_eq!(rig.delete("\0", "\0"), 1);
        assert_eq!(rig.view().revision(), Revision(3));
    });
}

#[test]
fn zero_and_negative_revisions_are_now_future_ones_are_refused() {
    in_all_layers(|rig, settle| {
        rig.put("k", "1");
        rig.put("k", "2");
        settle(rig);
        for (revision, value) in [(0, "2"), (-5, "2"), (3, "2"), (2, "1")] {
            let kvs = read(rig, &Range { revision, ..range("k", "") }).kvs;
            assert_eq!(kvs[0].value, value, "at {revision}");
        }
        assert!(read(rig, &Range { revision: 1, ..range("k", "") }).kvs.is_empty());
        assert_eq!(refused(rig, &Range { revision: 4, ..range("k", "") }), Rejection::FutureRevision);
    });
}

#[test]
fn the_compacted_revision_itself_reads_as_before_whatever_is_removed() {
    in_all_layers(|rig, settle| {
        rig.put("a", "1");
        rig.put("b", "1");
        rig.delete("a", "");
        rig.put("b", "2");
        settle(rig);
        let at = Range { revision: 4, ..range("\0", "\0") };
        let before = read(rig, &at);
        rig.compact(4).expect("accepted");
        let below = Range { revision: 3, ..at.clone() };
        assert_eq!(refused(rig, &below), Rejection::Compacted, "at once, removed or not");
        settle(rig);
        while !rig.compact_slice(1) {
            assert_eq!(read(rig, &at), before);
        }
        assert_eq!(read(rig, &at), before);
        assert_eq!(refused(rig, &below), Rejection::Compacted);
    });
}

#[test]
fn count_ignores_the_limit_and_more_says_that_it_cut() {
    in_all_layers(|rig, settle| {
        for key in ["a", "b", "c", "d"] {
            rig.put(key, key);
            settle(rig);
        }
        let answer = |limit| {
            let result = read(rig, &Range { limit, ..range("a", "\0") });
            (result.kvs.len(), result.more, result.count)
        };
        assert_eq!(answer(0), (4, false, 4));
        assert_eq!(answer(-1), (4, false, 4));
        assert_eq!(answer(1), (1, true, 4));
        assert_eq!(answer(3), (3, true, 4));
        assert_eq!(answer(4), (4, false, 4), "a limit that just fits cuts nothing");
        let counted = read(rig, &Range { limit: 1, count_only: true, ..range("a", "d") });
        assert_eq!(counted, RangeResult { kvs: vec![], more: false, count: 3 });
    });
}

#[test]
fn filters_come_before_the_limit_and_do_not_change_the_count() {
    in_all_layers(|rig, settle| {
        for key in ["a", "b", "c", "d"] {
            rig.put(key, "");
        }
        rig.put("a", "again");
        settle(rig);
        let answer = |request: Range| {
            let result = read(rig, &Range { range: interval("a", "\0"), ..request });
            (keys(&result.kvs).join(""), result.more, result.count)
        };
        let all = || range("a", "\0");
        let said = |keys: &str, more| (keys.to_owned(), more, 4);
        assert_eq!(answer(Range { min_mod_revision: 4, ..all() }), said("acd", false), "inclusive");
        assert_eq!(answer(Range { max_mod_revision: 4, ..all() }), said("bc", false), "inclusive");
        assert_eq!(answer(Range { min_create_revision: 3, limit: 2, ..all() }), said("bc", true));
        assert_eq!(answer(Range { max_create_revision: 3, limit: 2, ..all() }), said("ab", false));
        assert_eq!(answer(Range { max_mod_revision: -1, ..all() }), said("", false), "nothing is below 0");
        assert_eq!(answer(Range { min_create_revision: -1, ..all() }), said("abcd", false));
    });
}

#[test]
fn sorting_takes_the_whole_interval_and_ties_stay_in_key_order() {
    use SortOrder::{Ascend, Descend, None};
    in_all_layers(|rig, settle| {
        for (key, value) in [("c", "1"), ("a", "2"), ("b", "1"), ("a", "0")] {
            rig.put(key, value);
            settle(rig);
        }
        let answer = |target, order, limit| {
            let result = read(rig, &Range { sort: Sort { target, order }, limit, ..range("a", "\0") });
            assert_eq!((result.more, result.count), (limit > 0 && limit < 3, 3));
            keys(&result.kvs).join("")
        };
        assert_eq!(answer(SortTarget::Key, None, 0), "abc");
        assert_eq!(answer(SortTarget::Key, Ascend, 2), "ab");
        assert_eq!(answer(SortTarget::Key, Descend, 1), "c");
        assert_eq!(answer(SortTarget::Create, None, 0), "cab", "no order with a target is ascending");
        assert_eq!(answer(SortTarget::Create, None, 1), "c", "and takes in what the limit cuts");
        assert_eq!(answer(SortTarget::Create, Descend, 0), "bac");
        assert_eq!(answer(SortTarget::Mod, Ascend, 0), "cba");
        assert_eq!(answer(SortTarget::Version, Ascend, 0), "bca", "ties in key order");
        assert_eq!(answer(SortTarget::Version, Descend, 0), "abc", "ties in key order");
        assert_eq!(answer(SortTarget::Value, Descend, 0), "bca");
    });
}

#[test]
fn keys_only_sorts_by_the_value_that_it_then_leaves_out() {
    in_all_layers(|rig, settle| {
        rig.put("a", "2");
        rig.put("b", "1");
        settle(rig);
        let sort = Sort { target: SortTarget::Value, order: SortOrder::Ascend };
        let result = read(rig, &Range { sort, keys_only: true, ..range("a", "c") });
        assert_eq!(keys(&result.kvs), ["b", "a"]);
        assert!(result.kvs.iter().all(|kv| kv.value.is_empty() && kv.version == 1));
    });
}

#[test]
fn a_put_answers_with_the_version_before_where_asked() {
    in_all_layers(|rig, settle| {
        let asking = |value: &str| Command::Put(Put { prev_kv: true, ..put("k", value) });
        assert_eq!(rig.apply(asking("1")).outcome, Ok(Outcome::Put(PutResult { previous: None })));
        settle(rig);
        match rig.apply(asking("2")).outcome {
            Ok(Outcome::Put(PutResult { previous: Some(kv) })) => {
                assert_eq!((kv.value.as_ref(), kv.mod_revision.0, kv.version), (&b"1"[..], 2, 1));
            }
            other => panic!("{other:?}"),
        }
        let plain = rig.apply(Command::Put(put("k", "3"))).outcome;
        assert_eq!(plain, Ok(Outcome::Put(PutResult::default())));
    });
}

#[test]
fn ignoring_the_value_needs_a_key_and_makes_a_revision() {
    in_all_layers(|rig, settle| {
        let keeping = || Put { value: None, ..put("k", "") };
        assert_eq!(rig.apply(Command::Put(keeping())).outcome, Err(Rejection::KeyNotFound));
        let keeping_lease = Put { lease: LeaseChange::Keep, ..put("k", "") };
        assert_eq!(rig.apply(Command::Put(keeping_lease)).outcome, Err(Rejection::KeyNotFound));
        rig.put("k", "v");
        settle(rig);
        assert_eq!(rig.apply(Command::Put(keeping())).revision, Revision(3));
        settle(rig);
        let kv = read(rig, &range("k", "")).kvs.remove(0);
        assert_eq!((kv.value.as_ref(), kv.version), (&b"v"[..], 2));
        rig.delete("k", "");
        settle(rig);
        assert_eq!(rig.apply(Command::Put(keeping())).outcome, Err(Rejection::KeyNotFound));
        assert_eq!(rig.view().revision(), Revision(4), "what is refused makes no revision");
    });
}

#[test]
fn a_lease_is_replaced_kept_or_detached() {
    let rig = Rig::new();
    let mut tip = rig.tip();
    for id in [-7, 8] {
        tip.set_lease(LeaseId(id), Some(Lease { ttl: 9, remaining: 0, granted_at: LogIndex(1) }));
    }
    let mut write = |lease| Writer::new(&mut tip, Allowance::UNLIMITED).put(&Put { lease, ..put("k", "v") });
    write(LeaseChange::Set(LeaseId(-7))).expect("negative ids are legal");
    assert!(matches!(
        write(LeaseChange::Set(LeaseId(9))),
        Err(ReadError::Rejected(Rejection::LeaseNotFound))
    ));
    write(LeaseChange::Keep).expect("the key exists");
    write(LeaseChange::Set(LeaseId(8))).expect("replaced");
    write(LeaseChange::Set(LeaseId::NONE)).expect("detached");
    let leases: Vec<i64> = tip
        .view()
        .changes(VersionId::default())
        .expect("a sound store")
        .map(|change| match change.expect("a sound store").1.kind {
            ChangeKind::Put { lease, .. } => lease.0,
            ChangeKind::Delete => panic!("nothing was deleted"),
        })
        .collect();
    assert_eq!(leases, [-7, -7, 8, 0]);
}

#[test]
fn an_unknown_lease_is_found_before_a_missing_key_in_a_put_and_after_it_in_a_txn() {
    let mut rig = Rig::new();
    let wrong = || Put { value: None, lease: LeaseChange::Set(LeaseId(5)), ..put("k", "") };
    assert_eq!(rig.apply(Command::Put(wrong())).outcome, Err(Rejection::LeaseNotFound));
    assert_eq!(rig.txn(success(vec![Op::Put(wrong())])), Err(Rejection::KeyNotFound));
    let lease_only = Put { value: Some(Bytes::new()), ..wrong() };
    assert_eq!(rig.txn(success(vec![Op::Put(lease_only.clone())])), Err(Rejection::LeaseNotFound));
    // And in a transaction all puts are looked at before the first range.
    let nested = Op::Txn(success(vec![Op::Range(Range { revision: 99, ..range("k", "") })]));
    assert_eq!(rig.txn(success(vec![nested.clone()])), Err(Rejection::FutureRevision));
    assert_eq!(rig.txn(success(vec![nested, Op::Put(lease_only)])), Err(Rejection::LeaseNotFound));
}

#[test]
fn a_delete_takes_one_revision_and_answers_in_key_order() {
    in_all_layers(|rig, settle| {
        for key in ["c", "a", "b"] {
            rig.put(key, key);
            settle(rig);
        }
        let applied =
            rig.apply(Command::DeleteRange(DeleteRange { range: interval("a", "\0"), prev_kv: true }));
        let Ok(Outcome::DeleteRange(result)) = applied.outcome else { panic!("{applied:?}") };
        assert_eq!((applied.revision.0, result.deleted), (5, 3));
        assert_eq!(keys(&result.previous), ["a", "b", "c"]);
        settle(rig);
        let view = rig.view();
        let changes = view.changes(VersionId::first_of(Revision(5))).expect("a sound store");
        let changes: Vec<_> = changes.map(|change| change.expect("a sound store")).collect();
        let order: Vec<_> = changes.iter().map(|(id, change)| (id.sub, change.key.as_ref())).collect();
        assert_eq!(order, [(0, &b"a"[..]), (1, b"b"), (2, b"c")]);
    });
}

fn holds(rig: &Rig, range: (&str, &str), result: CompareResult, target: CompareTarget) -> bool {
    let compare = vec![Compare { range: interval(range.0, range.1), result, target }];
    let txn = Txn { compare, ..Txn::default() };
    let result = rig.view().txn_read_only(&txn, &mut Allowance::of(0)).expect("no ranges");
    result.expect("nothing is collected").succeeded
}

#[test]
fn a_missing_key_compares_as_zero_and_its_value_never() {
    use CompareResult::{Equal, Greater, Less, NotEqual, Unknown};
    let rig = Rig::new();
    for target in [CompareTarget::Version, CompareTarget::Create, CompareTarget::Mod, CompareTarget::Lease] {
        assert!(holds(&rig, ("k", ""), Equal, target(0)));
        assert!(holds(&rig, ("k", "\0"), Less, target(1)), "an empty interval is one missing key");
        assert!(!holds(&rig, ("k", ""), NotEqual, target(0)));
    }
    for result in [Equal, Greater, Less, NotEqual, Unknown] {
        assert!(!holds(&rig, ("k", ""), result, CompareTarget::Value(Bytes::new())));
    }
    assert!(holds(&rig, ("k", ""), Equal, CompareTarget::Unknown), "0 with 0");
    assert!(!holds(&rig, ("k", ""), Less, CompareTarget::Unknown));
    assert!(holds(&rig, ("k", ""), Unknown, CompareTarget::Version(77)));
}

#[test]
fn every_key_of_a_compared_interval_must_satisfy() {
    use CompareResult::{Equal, Greater, Less, NotEqual};
    in_all_layers(|rig, settle| {
        rig.put("a", "1");
        rig.put("b", "2");
        settle(rig);
        let value = |value: &'static str| CompareTarget::Value(Bytes::from_static(value.as_bytes()));
        assert!(holds(rig, ("a", "c"), Greater, value("0")));
        assert!(!holds(rig, ("a", "c"), Greater, value("1")));
        assert!(holds(rig, ("a", "c"), Less, value("20")), "bytewise");
        assert!(!holds(rig, ("a", "c"), Equal, value("1")));
        assert!(holds(rig, ("a", "c"), NotEqual, value("")));
        assert!(holds(rig, ("a", "b"), Equal, CompareTarget::Create(2)));
        assert!(holds(rig, ("a", "c"), Equal, CompareTarget::Version(1)));
        assert!(!holds(rig, ("a", "c"), Equal, CompareTarget::Mod(3)));
    });
}

#[test]
fn a_txn_reads_its_own_writes_and_its_headers_tell_when_they_began() {
    in_all_layers(|rig, settle| {
        rig.put("a", "old");
        settle(rig);
        let result = rig.txn(success(vec![
            Op::Range(range("a", "")),
            delete("x", ""),
            Op::Put(put("b", "new")),
            Op::Range(Range { limit: 1, ..range("a", "z") }),
            Op::Range(Range { revision: 2, ..range("a", "z") }),
            delete("a", "b"),
            Op::Range(range("a", "z")),
            Op::Txn(success(vec![Op::Range(range("b", ""))])),
        ]));
        let result = result.expect("nothing to refuse");
        assert_eq!(revisions(&result), [2, 2, 3, 3, 3, 3, 3, 0]);
        let ranged = |position: usize| match &result.responses[position].1 {
            OpResult::Range(result) => result,
            other => panic!("{other:?}"),
        };
        assert_eq!((ranged(3).more, ranged(3).count), (true, 2));
        assert_eq!(keys(&ranged(4).kvs), ["a"], "an old revision does not show them");
        assert_eq!(keys(&ranged(6).kvs), ["b"]);
        assert_eq!(ranged(6).kvs[0].mod_revision, Revision(3));
        match &result.responses[7].1 {
            OpResult::Txn(nested) => assert_eq!(revisions(nested), [3]),
            other => panic!("{other:?}"),
        }
        assert_eq!(rig.view().revision(), Revision(3), "one revision for all");
    });
}

#[test]
fn a_txn_without_a_change_makes_no_revision() {
    let mut rig = Rig::new();
    let result = rig.txn(Txn::default()).expect("an empty one succeeds");
    assert_eq!(result, TxnResult { succeeded: true, responses: vec![] });
    let result = rig.txn(success(vec![delete("a", "z"), Op::Txn(Txn::default())])).expect("accepted");
    assert_eq!(revisions(&result), [1, 0]);
    assert_eq!(rig.view().revision(), Revision(1));
}

#[test]
fn nested_branches_are_chosen_before_the_first_write() {
    let mut rig = Rig::new();
    let missing =
        Compare { range: interval("k", ""), result: CompareResult::Equal, target: CompareTarget::Version(0) };
    let nested = Txn {
        compare: vec![missing],
        success: vec![Op::Put(put("then", ""))],
        failure: vec![Op::Put(put("else", ""))],
    };
    let ops = vec![Op::Put(put("k", "")), Op::Txn(nested)];
    rig.txn(success(ops)).expect("accepted");
    assert_eq!(keys(&read(&rig, &range("\0", "\0")).kvs), ["k", "then"]);
}

#[test]
fn what_the_path_cannot_do_fails_all_of_it() {
    in_all_layers(|rig, settle| {
        for value in ["1", "2", "3"] {
            rig.put("k", value);
        }
        settle(rig);
        let before_any = Op::Range(Range { revision: -1, ..range("k", "") });
        assert!(rig.txn(success(vec![before_any])).is_ok(), "etcd reads the present");
        rig.compact(3).expect("accepted");
        let fails = |rig: &mut Rig, op: Op| {
            let nested = Txn { success: vec![op], ..Txn::default() };
            let ops = vec![Op::Put(put("new", "")), Op::Txn(nested)];
            let rejection = rig.txn(success(ops)).expect_err("refused");
            assert_eq!(rig.view().revision(), Revision(4));
            assert_eq!(read(rig, &range("\0", "\0")).count, 1, "nothing is left of it");
            rejection
        };
        let at = |revision| Op::Range(Range { revision, ..range("k", "") });
        assert_eq!(fails(rig, at(2)), Rejection::Compacted);
        assert_eq!(fails(rig, at(-1)), Rejection::Compacted, "unlike outside of a transaction");
        assert_eq!(fails(rig, at(5)), Rejection::FutureRevision, "its own revision too");
        let keeping = Put { value: None, ..put("new", "") };
        assert_eq!(fails(rig, Op::Put(keeping)), Rejection::KeyNotFound, "what it makes is not there yet");
        let leased = Put { lease: LeaseChange::Set(LeaseId(1)), ..put("k", "") };
        assert_eq!(fails(rig, Op::Put(leased)), Rejection::LeaseNotFound);
        // The branch that does not run may hold anything.
        let other = Txn { failure: vec![at(99)], ..Txn::default() };
        assert!(rig.txn(other).expect("accepted").succeeded);
    });
}

#[test]
fn two_changes_of_a_key_in_one_revision_are_both_kept_and_the_last_wins() {
    in_all_layers(|rig, settle| {
        let ops = vec![
            Op::Txn(success(vec![Op::Put(put("k", "1"))])),
            Op::Txn(success(vec![delete("k", "")])),
            Op::Put(put("k", "2")),
            Op::Put(put("k", "3")),
        ];
        rig.txn(success(ops)).expect("accepted");
        settle(rig);
        let kv = read(rig, &range("k", "")).kvs.remove(0);
        assert_eq!((kv.value.as_ref(), kv.version, kv.create_revision.0), (&b"3"[..], 2, 2));
        let view = rig.view();
        assert_eq!(view.changes(VersionId::default()).expect("a sound store").count(), 4);
        rig.put("k", "4");
        settle(rig);
        let kv = read(rig, &Range { revision: 2, ..range("k", "") }).kvs.remove(0);
        assert_eq!(kv.value, "3", "also from history");
    });
}

#[test]
fn compacting_follows_the_rule_of_zero() {
    let mut rig = Rig::new();
    assert_eq!(rig.compact(-1), Err(Rejection::Compacted));
    assert_eq!(rig.view().hash_kv(0).expect("retained").compact_revision, -1);
    assert_eq!(rig.compact(0), Ok(()), "once, on a store never compacted");
    assert_eq!(rig.compact(0), Err(Rejection::Compacted));
    assert_eq!(rig.compact(-1), Err(Rejection::Compacted));
    assert_eq!(rig.compact(2), Err(Rejection::FutureRevision));
    rig.put("k", "v");
    assert_eq!(rig.compact(2), Ok(()), "up to the current one");
    assert_eq!(rig.compact(2), Err(Rejection::Compacted));
    assert_eq!(rig.compact(1), Err(Rejection::Compacted));
    assert_eq!(rig.view().revision(), Revision(2), "compaction makes no revision");
}

#[test]
fn the_store_learns_of_a_compaction_with_the_next_fold() {
    let mut rig = Rig::new();
    for value in ["1", "2", "3"] {
        rig.put("k", value);
    }
    rig.rotate();
    rig.fold();
    let before = rig.view().bytes_in_use();
    rig.compact(4).expect("accepted");
    while !rig.compact_slice(10) {}
    assert!(rig.machine.should_rotate(), "small, but the store waits to be told");
    assert_eq!(rig.view().bytes_in_use(), before);
    rig.rotate();
    rig.fold();
    assert!(!rig.machine.should_rotate());
    while !rig.compact_slice(10) {}
    assert_eq!(rig.view().bytes_in_use(), before / 3);
}

#[test]
fn only_what_changed_is_folded_and_one_generation_at_a_time() {
    let store = new_store();
    let mut machine = Machine::new(base(&store)).expect("a sound store");
    assert!(!machine.is_dirty() && machine.rotate().is_none());
    machine.apply_empty(LogIndex(1), Term(3));
    assert_eq!(machine.applied_term(), Term(3));
    let batch = machine.rotate().expect("the position in the log is worth a fold");
    assert_eq!((batch.changes.len(), batch.meta.applied, batch.meta.applied_term), (0, LogIndex(1), Term(3)));
    let large = Command::Put(Put { value: Some(Bytes::from(vec![0; OVERLAY_BYTES])), ..put("k", "") });
    machine
        .apply(LogIndex(2), Term(3), &large, Allowance::UNLIMITED)
        .expect("a sound store")
        .outcome
        .expect("accepted");
    assert!(machine.must_stall() && !machine.should_rotate() && machine.rotate().is_none());
}

/// A member whose client waits reads what the client is told; another one, or the same at a replay, reads nothing, and one that has little
/// memory for answers reads little. What becomes of the state is the same.
#[test]
fn what_is_read_for_the_answer_changes_nothing_else() {
    let value = Bytes::from(vec![b'v'; 10_000]);
    let fill = |n: u32| Command::Put(Put { value: Some(value.clone()), ..put(&format!("k{n}"), "") });
    let everything = || Op::Range(range("k", "l"));
    let delete = |key: &str, end: &str| DeleteRange { range: interval(key, end), prev_kv: true };
    let nested = Txn { success: vec![everything()], ..Txn::default() };
    let ops = vec![
        everything(),
        Op::Put(Put { prev_kv: true, ..put("k3", "new") }),
        Op::DeleteRange(delete("k0", "k3")),
        Op::Txn(nested),
    ];
    let mut commands: Vec<Command> = (0..10).map(fill).collect();
    commands.push(Command::Put(Put { prev_kv: true, ..put("k9", "new") }));
    commands.push(Command::Txn(Txn { success: ops, ..Txn::default() }));
    commands.push(Command::DeleteRange(delete("k4", "l")));
    let play = |answer: Allowance| {
        let store = new_store();
        let mut machine = Machine::new(base(&store)).expect("a sound store");
        let outcomes: Vec<Outcome> = (1..)
            .zip(&commands)
            .map(|(index, command)| machine.apply(LogIndex(index), Term(3), command, answer).expect("sound"))
            .map(|applied| applied.outcome.expect("accepted"))
            .collect();
        (machine.view(), outcomes.into_iter().skip(10).collect::<Vec<_>>())
    };
    let (whole, answered) = play(Allowance::UNLIMITED);
    assert!(answered.iter().all(|outcome| *outcome != Outcome::AnswerTooLarge));
    for (answer, too_large) in
        [(Allowance::NOTHING, [false; 3]), (Allowance::of(20_000), [false, true, true])]
    {
        let (view, outcomes) = play(answer);
        assert_eq!((view.revision(), view.digest()), (whole.revision(), whole.digest()));
        assert_eq!(view.hash_kv(0).expect("sound"), whole.hash_kv(0).expect("sound"));
        let found: Vec<bool> = outcomes.iter().map(|outcome| *outcome == Outcome::AnswerTooLarge).collect();
        assert_eq!(found, too_large);
        let told = format!("{outcomes:?}").contains("vvvv");
        assert_eq!(told, too_large[1], "nothing is read for nobody; what is little enough is told");
    }
}

#[test]
fn a_member_that_publishes_again_replaces_what_it_said() {
    let mut rig = Rig::new();
    let said = |member, name: &str| MemberAttributes {
        member: MemberId(member),
        name: name.to_owned(),
        ..MemberAttributes::default()
    };
    for attributes in [said(FOUNDER.0, "first"), said(3, "a stranger"), said(FOUNDER.0, "renamed")] {
        assert_eq!(rig.apply(Command::Publish(attributes)).outcome, Ok(Outcome::Publish));
    }
    let conf_state = ConfState { voters: vec![MemberId(3)], ..ConfState::default() };
    rig.enter(Entry::Conf(conf_state.clone()));
    rig.rotate();
    rig.fold();
    rig.reopen();
    let view = rig.view();
    let listed = vec![Member { key: None, votes: true, attributes: said(FOUNDER.0, "renamed") }];
    assert_eq!((&view.facts().members, &view.facts().conf_state), (&listed, &conf_state));
    assert_eq!(view.revision(), Revision(1), "none of this makes a revision");
}

fn alarm(action: AlarmAction, kind: AlarmKind) -> Command {
    Command::Alarm { action, alarm: Alarm { member: MemberId(7), kind } }
}

#[test]
fn alarms_are_raised_once_and_cleared_once_and_survive_a_restart() {
    let mut rig = Rig::new();
    let listed = vec![Alarm { member: MemberId(7), kind: AlarmKind::NoSpace }];
    for _ in 0..2 {
        let raised = rig.apply(alarm(AlarmAction::Activate, AlarmKind::NoSpace));
        assert_eq!(raised.outcome, Ok(Outcome::Alarm(listed.clone())));
    }
    rig.rotate();
    rig.fold();
    rig.reopen();
    assert_eq!(rig.view().facts().alarms, listed);
    for expected in [listed, vec![]] {
        let cleared = rig.apply(alarm(AlarmAction::Deactivate, AlarmKind::NoSpace));
        assert_eq!(cleared.outcome, Ok(Outcome::Alarm(expected)));
    }
    assert!(rig.view().facts().alarms.is_empty());
}

#[test]
fn no_space_refuses_what_could_put_and_lets_the_rest_pass() {
    let mut rig = Rig::new();
    rig.put("k", "v");
    rig.apply(alarm(AlarmAction::Activate, AlarmKind::NoSpace));
    assert_eq!(rig.apply(Command::Put(put("k", ""))).outcome, Err(Rejection::NoSpace));
    let nested_put = success(vec![Op::Txn(Txn { failure: vec![Op::Put(put("k", ""))], ..Txn::default() })]);
    assert_eq!(rig.txn(nested_put), Err(Rejection::NoSpace), "though it would not run");
    rig.txn(success(vec![delete("k", ""), Op::Range(range("k", ""))])).expect("takes no space");
    assert_eq!(rig.delete("k", ""), 0);
    rig.compact(2).expect("frees space");
    rig.apply(alarm(AlarmAction::Deactivate, AlarmKind::NoSpace));
    rig.put("k", "v");
}

#[test]
fn corrupt_refuses_all_writes_of_keys_and_outranks_no_space() {
    let mut rig = Rig::new();
    rig.put("k", "v");
    rig.apply(alarm(AlarmAction::Activate, AlarmKind::NoSpace));
    rig.apply(alarm(AlarmAction::Activate, AlarmKind::Corrupt));
    let commands = [
        Command::Put(put("k", "")),
        Command::DeleteRange(DeleteRange { range: interval("k", ""), prev_kv: false }),
        Command::Txn(Txn::default()),
        Command::Compact { revision: 2 },
    ];
    for command in commands {
        assert_eq!(rig.apply(command).outcome, Err(Rejection::Corrupt));
    }
    assert_eq!(read(&rig, &range("k", "")).count, 1, "reads are served");
    rig.apply(alarm(AlarmAction::Deactivate, AlarmKind::Corrupt));
    assert_eq!(rig.apply(Command::Put(put("k", ""))).outcome, Err(Rejection::NoSpace));
}
