//! The rules of transactions that need no state, and prices.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::{Strategy, prop, prop_oneof};
use proptest::test_runner::Config;
use proptest::{prop_assert_eq, proptest};

use super::{InvalidRequest, cost_of, range_stream, txn};
use crate::command::{
    Command, Compare, CompareResult, CompareTarget, DeleteRange, KeyRange, LeaseChange, Op, Put, Range, Sort,
    SortOrder, SortTarget, Txn,
};
use crate::ids::LeaseId;
use crate::limits::{TXN_DEPTH_MAX, TXN_OPS};

fn interval(key: &'static str, end: &'static str) -> KeyRange {
    KeyRange::from_wire(Bytes::from_static(key.as_bytes()), Bytes::from_static(end.as_bytes()))
}

fn put(key: &'static str) -> Op {
    let lease = LeaseChange::Set(LeaseId::NONE);
    let key = Bytes::from_static(key.as_bytes());
    Op::Put(Put { key, value: Some(Bytes::from_static(b"12345")), lease, prev_kv: false })
}

fn delete(key: &'static str, end: &'static str) -> Op {
    Op::DeleteRange(DeleteRange { range: interval(key, end), prev_kv: false })
}

fn range(key: &'static str) -> Op {
    Op::Range(Range::all(interval(key, "")))
}

fn child(success: Vec<Op>, failure: Vec<Op>) -> Op {
    Op::Txn(Txn { compare: vec![], success, failure })
}

fn judged(success: Vec<Op>) -> Result<(), InvalidRequest> {
    let both =
        [Txn { success: success.clone(), ..Txn::default() }, Txn { failure: success, ..Txn::default() }];
    let [then, otherwise] = both.map(|request| txn(&request, TXN_OPS));
    assert_eq!(then, otherwise, "both branches are judged alike");
    then
}

#[test]
fn the_largest_list_of_a_level_takes_from_what_its_children_may_have() {
    let ranges = |count: usize| vec![range("k"); count];
    let too_many = Err(InvalidRequest::TooManyOperations);
    assert_eq!(judged(ranges(128)), Ok(()));
    assert_eq!(judged(ranges(129)), too_many);
    assert_eq!(judged(vec![child(ranges(127), ranges(127))]), Ok(()), "one operation leaves 127");
    assert_eq!(judged(vec![child(vec![], ranges(128))]), too_many);
    let compare =
        Compare { range: interval("k", ""), result: CompareResult::Equal, target: CompareTarget::Unknown };
    let compares = |count| Txn { compare: vec![compare.clone(); count], ..Txn::default() };
    assert_eq!(txn(&compares(128), 128), Ok(()));
    assert_eq!(txn(&compares(129), 128), too_many);
    let shared = |nested| Txn { success: vec![Op::Txn(nested)], ..compares(100) };
    assert_eq!(txn(&shared(compares(28)), 128), Ok(()));
    assert_eq!(txn(&shared(compares(29)), 128), too_many);
}

#[test]
fn nesting_ends_where_the_log_could_not_carry_it() {
    let deep = |levels: usize| {
        (1..levels).fold(Txn::default(), |inner, _| Txn { success: vec![Op::Txn(inner)], ..Txn::default() })
    };
    assert_eq!(txn(&deep(TXN_DEPTH_MAX), usize::MAX), Ok(()));
    assert_eq!(txn(&deep(TXN_DEPTH_MAX + 1), usize::MAX), Err(InvalidRequest::TooManyOperations));
}

#[test]
fn no_key_changes_twice_save_through_etcds_holes() {
    let duplicate = Err(InvalidRequest::DuplicateKey);
    let then = |ops| child(ops, vec![]);
    assert_eq!(judged(vec![put("a"), put("b"), range("a")]), Ok(()));
    assert_eq!(judged(vec![put("a"), put("a")]), duplicate);
    assert_eq!(judged(vec![put("a"), delete("a", "")]), duplicate);
    assert_eq!(judged(vec![delete("a", "c"), put("b")]), duplicate, "in any order");
    assert_eq!(judged(vec![delete("a", "c"), put("c")]), Ok(()), "the end is outside");
    assert_eq!(judged(vec![delete("a", "c"), delete("b", "d")]), Ok(()), "deletes may overlap");
    assert_eq!(judged(vec![put("b"), delete("c", "a")]), Ok(()), "a reversed interval deletes nothing");
    assert_eq!(judged(vec![put("b"), delete("a", "\0")]), duplicate, "etcd overlooks this one");
    assert_eq!(judged(vec![delete("a", "z"), delete("b", "c"), put("d")]), duplicate, "one within another");
    // Nested.
    assert_eq!(judged(vec![child(vec![put("a")], vec![put("a")])]), Ok(()), "only one of them runs");
    assert_eq!(judged(vec![child(vec![put("a")], vec![delete("a", "")])]), Ok(()));
    assert_eq!(judged(vec![then(vec![put("a")]), put("a")]), duplicate);
    assert_eq!(judged(vec![then(vec![put("a")]), child(vec![], vec![put("a")])]), duplicate);
    assert_eq!(judged(vec![then(vec![put("a")]), delete("a", "")]), duplicate);
    assert_eq!(judged(vec![then(vec![delete("a", "")]), put("a")]), duplicate);
    assert_eq!(judged(vec![then(vec![delete("a", "")]), then(vec![put("a")])]), duplicate);
    assert_eq!(judged(vec![then(vec![put("a")]), then(vec![delete("a", "")])]), Ok(()), "the hole");
    assert_eq!(judged(vec![then(vec![then(vec![put("a")])]), then(vec![put("a")])]), duplicate);
}

#[test]
fn a_txn_costs_what_its_dearer_branch_puts() {
    let cost = |success, failure| cost_of(&Command::Txn(Txn { compare: vec![], success, failure }));
    assert_eq!(cost(vec![], vec![]), 0);
    assert_eq!(cost(vec![range("k"), delete("k", "")], vec![]), 0);
    assert_eq!(cost(vec![put("k")], vec![put("k"), put("long")]), (1 + 5 + 256) + (4 + 5 + 256));
    assert_eq!(cost(vec![child(vec![put("k")], vec![put("kk")]), put("k")], vec![]), 263 + 262);
    let Op::Put(single) = put("k") else { panic!("a put") };
    assert_eq!(cost_of(&Command::Put(single)), 262);
    assert_eq!(cost_of(&Command::Compact { revision: 1 }), 0);
}

#[test]
fn only_ranges_in_key_order_without_bounds_are_streamed() {
    let plain = || Range::all(interval("k", ""));
    let sorted = |target, order| Range { sort: Sort { target, order }, ..plain() };
    assert_eq!(range_stream(&plain()), Ok(()));
    assert_eq!(range_stream(&sorted(SortTarget::Key, SortOrder::Ascend)), Ok(()));
    let order = Err(InvalidRequest::StreamOrder);
    assert_eq!(range_stream(&sorted(SortTarget::Key, SortOrder::Descend)), order);
    assert_eq!(range_stream(&sorted(SortTarget::Mod, SortOrder::None)), order);
    let bounded = Range { max_create_revision: 1, ..plain() };
    assert_eq!(range_stream(&bounded), Err(InvalidRequest::StreamFilter));
}

/// The rule over plain lists: what a branch puts and deletes, each pair compared.
fn naive(ops: &[Op]) -> Result<(Vec<Bytes>, Vec<KeyRange>), ()> {
    let mut deletes: Vec<KeyRange> = Vec::new();
    let mut puts: Vec<Bytes> = Vec::new();
    deletes.extend(ops.iter().filter_map(|op| match op {
        Op::DeleteRange(delete) => Some(delete.range.clone()),
        _ => None,
    }));
    for op in ops {
        if let Op::Txn(nested) = op {
            let (then_puts, then_deletes) = naive(&nested.success)?;
            let (else_puts, else_deletes) = naive(&nested.failure)?;
            for key in then_puts.iter().chain(&else_puts) {
                if puts.contains(key) || deletes.iter().any(|range| range.contains(key)) {
                    return Err(());
                }
            }
            puts.extend(then_puts.into_iter().chain(else_puts));
            deletes.extend(then_deletes.into_iter().chain(else_deletes));
        }
    }
    for op in ops {
        if let Op::Put(put) = op {
            if puts.contains(&put.key) || deletes.iter().any(|range| range.contains(&put.key)) {
                return Err(());
            }
            puts.push(put.key.clone());
        }
    }
    Ok((puts, deletes))
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let key = || prop::sample::select(vec!["a", "a\0", "b", "c", "d", "e", "f", "g", "h", "i", "\0"]);
    let leaf = prop_oneof![
        2 => key().prop_map(put),
        1 => (key(), key()).prop_map(|(start, end)| delete(start, end)),
        1 => key().prop_map(|key| delete(key, "")),
    ];
    let op = leaf.prop_recursive(3, 16, 4, |inner| {
        (vec(inner.clone(), 0..4), vec(inner, 0..4)).prop_map(|(success, failure)| child(success, failure))
    });
    vec(op, 0..6)
}

proptest! {
    #![proptest_config(Config { cases: 2000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn overlaps_are_found_as_by_comparing_all_pairs(ops in ops()) {
        let expected = naive(&ops).map_or(Err(InvalidRequest::DuplicateKey), |_| Ok(()));
        prop_assert_eq!(judged(ops), expected);
    }
}
