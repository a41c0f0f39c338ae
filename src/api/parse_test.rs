//! Requests from the wire to domain types: what is kept, what is refused.

use bytes::Bytes;

use super::*;

fn ranged(key: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), ..Default::default() }
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn put_op(key: &'static str) -> pb::RequestOp {
    op(Request::RequestPut(pb::PutRequest { key: key.into(), ..Default::default() }))
}

fn branch(success: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { success, ..Default::default() }
}

const TOO_MANY: BadRequest = BadRequest::Shape(InvalidRequest::TooManyOperations);

#[test]
fn a_range_keeps_every_field() {
    let parsed = range(pb::RangeRequest {
        key: "a".into(),
        range_end: "b".into(),
        limit: -1,
        revision: 7,
        sort_order: 2,
        sort_target: 3,
        serializable: true,
        keys_only: true,
        count_only: true,
        min_mod_revision: 1,
        max_mod_revision: 2,
        min_create_revision: 3,
        max_create_revision: 4,
    });
    let expected = Range {
        range: KeyRange::from_wire("a".into(), "b".into()),
        limit: -1,
        revision: 7,
        sort: Sort { target: SortTarget::Mod, order: SortOrder::Descend },
        keys_only: true,
        count_only: true,
        min_mod_revision: 1,
        max_mod_revision: 2,
        min_create_revision: 3,
        max_create_revision: 4,
    };
    assert_eq!(parsed, Ok(expected));
}

#[test]
fn sort_numbers_are_the_wires() {
    let orders = [SortOrder::None, SortOrder::Ascend, SortOrder::Descend];
    let targets =
        [SortTarget::Key, SortTarget::Version, SortTarget::Create, SortTarget::Mod, SortTarget::Value];
    for order in -1..4 {
        for target in -1..6 {
            let known = |all: usize, number: i32| usize::try_from(number).ok().filter(|index| *index < all);
            let expected = match (known(3, order), known(5, target)) {
                (Some(order), Some(target)) => Ok(Sort { order: orders[order], target: targets[target] }),
                _ => Err(BadRequest::InvalidSortOption),
            };
            let request = pb::RangeRequest { sort_order: order, sort_target: target, ..ranged("k") };
            assert_eq!(range(request).map(|range| range.sort), expected, "{order} {target}");
        }
    }
    // The key comes first.
    let both = pb::RangeRequest { sort_order: 9, ..ranged("") };
    assert_eq!(range(both), Err(BadRequest::KeyNotProvided));
}

#[test]
fn a_put_says_what_it_keeps() {
    let wire =
        pb::PutRequest { key: "k".into(), value: "v".into(), lease: -5, prev_kv: true, ..Default::default() };
    let parsed = put(wire.clone()).unwrap();
    assert_eq!(parsed.value.as_deref(), Some(&b"v"[..]));
    assert_eq!((parsed.lease, parsed.prev_kv), (LeaseChange::Set(LeaseId(-5)), true));
    let empty = put(pb::PutRequest { value: Bytes::new(), lease: 0, ..wire.clone() }).unwrap();
    assert_eq!(empty.value, Some(Bytes::new()), "an empty value is a value");
    assert_eq!(empty.lease, LeaseChange::Set(LeaseId::NONE), "no lease detaches");
    let kept =
        pb::PutRequest { key: "k".into(), ignore_value: true, ignore_lease: true, ..Default::default() };
    let kept = put(kept).unwrap();
    assert_eq!((kept.value, kept.lease), (None, LeaseChange::Keep));
    let refused = |key: &'static str, ignore_value, ignore_lease| {
        put(pb::PutRequest { key: key.into(), ignore_value, ignore_lease, ..wire.clone() }).unwrap_err()
    };
    assert_eq!(refused("", true, true), BadRequest::KeyNotProvided);
    assert_eq!(refused("k", true, true), BadRequest::ValueProvided);
    assert_eq!(refused("k", false, true), BadRequest::LeaseProvided);
}

#[test]
fn compares_read_their_operand_only_if_it_is_of_their_kind() {
    let wire = |result, target, union| {
        let key = Bytes::from_static(b"k");
        compare(pb::Compare { result, target, key, range_end: Bytes::new(), target_union: union })
    };
    let targets = [
        (0, TargetUnion::Version(3), CompareTarget::Version(3), CompareTarget::Version(0)),
        (1, TargetUnion::CreateRevision(3), CompareTarget::Create(3), CompareTarget::Create(0)),
        (2, TargetUnion::ModRevision(3), CompareTarget::Mod(3), CompareTarget::Mod(0)),
        (
            3,
            TargetUnion::Value("v".into()),
            CompareTarget::Value("v".into()),
            CompareTarget::Value(Bytes::new()),
        ),
        (4, TargetUnion::Lease(3), CompareTarget::Lease(3), CompareTarget::Lease(0)),
    ];
    for (number, union, fitting, other) in targets {
        assert_eq!(wire(0, number, Some(union)).target, fitting);
        assert_eq!(wire(0, number, None).target, other);
        let foreign = if number == 0 { TargetUnion::Lease(9) } else { TargetUnion::Version(9) };
        assert_eq!(wire(0, number, Some(foreign)).target, other);
    }
    assert_eq!(wire(0, 5, Some(TargetUnion::Version(9))).target, CompareTarget::Unknown);
    let results =
        [CompareResult::Equal, CompareResult::Greater, CompareResult::Less, CompareResult::NotEqual];
    for (number, result) in (0..).zip(results) {
        assert_eq!(wire(number, 0, None).result, result);
    }
    assert_eq!(wire(4, 0, None).result, CompareResult::Unknown);
}

#[test]
fn the_first_broken_rule_is_the_one_that_is_named() {
    let empty_compare = vec![pb::Compare::default()];
    let bad_op = || op(Request::RequestRange(ranged("")));
    // Size before keys, even where the size is that of another list.
    let large = pb::TxnRequest { compare: empty_compare.clone(), ..branch(vec![put_op("k"); 3]) };
    assert_eq!(txn(large, 2).unwrap_err(), TOO_MANY);
    // Compares before operations.
    let unnamed = pb::RequestOp { request: None };
    let both = pb::TxnRequest { compare: empty_compare, ..branch(vec![unnamed.clone()]) };
    assert_eq!(txn(both, 2).unwrap_err(), BadRequest::KeyNotProvided);
    // Operations in order, success before failure.
    let ordered = pb::TxnRequest { failure: vec![bad_op()], ..branch(vec![put_op("k"), unnamed]) };
    assert_eq!(txn(ordered, 2).unwrap_err(), BadRequest::EmptyOperation);
    // Operations before duplicates.
    let duplicates = branch(vec![put_op("k"), put_op("k"), bad_op()]);
    assert_eq!(txn(duplicates, 3).unwrap_err(), BadRequest::KeyNotProvided);
    let duplicates = branch(vec![put_op("k"), put_op("k")]);
    assert_eq!(txn(duplicates, 3).unwrap_err(), BadRequest::Shape(InvalidRequest::DuplicateKey));
}

#[test]
fn a_nested_transaction_has_what_its_parent_leaves() {
    let nest = |inner: usize, beside: usize| {
        let inner = branch(vec![op(Request::RequestRange(ranged("k"))); inner]);
        let mut ops = vec![op(Request::RequestTxn(inner))];
        ops.extend(vec![op(Request::RequestRange(ranged("k"))); beside]);
        branch(ops)
    };
    assert!(txn(nest(127, 0), 128).is_ok());
    assert_eq!(txn(nest(128, 0), 128).unwrap_err(), TOO_MANY);
    assert!(txn(nest(118, 9), 128).is_ok());
    assert_eq!(txn(nest(119, 9), 128).unwrap_err(), TOO_MANY);
}

#[test]
fn nesting_ends_before_the_stack_does() {
    let deep = |levels: usize| {
        (1..levels).fold(branch(Vec::new()), |inner, _| branch(vec![op(Request::RequestTxn(inner))]))
    };
    assert!(txn(deep(TXN_DEPTH_MAX), usize::MAX).is_ok());
    assert_eq!(txn(deep(TXN_DEPTH_MAX + 1), usize::MAX).unwrap_err(), TOO_MANY);
}

#[test]
fn only_transactions_of_serializable_ranges_are_serializable() {
    let read = |serializable| op(Request::RequestRange(pb::RangeRequest { serializable, ..ranged("k") }));
    let is_serializable = |success: Vec<_>, failure: Vec<_>| {
        txn(pb::TxnRequest { failure, ..branch(success) }, 9).unwrap().serializable
    };
    assert!(is_serializable(vec![read(true)], vec![]) && is_serializable(vec![], vec![read(true)]));
    assert!(!is_serializable(vec![read(true)], vec![read(false)]));
    assert!(!is_serializable(vec![read(true), put_op("k")], vec![]));
    assert!(!is_serializable(vec![], vec![]), "compares alone are linearizable");
}

#[test]
fn alarms_need_a_kind() {
    let named = |kind| alarm(&pb::AlarmRequest { action: 1, member_id: 5, alarm: kind });
    assert_eq!(named(1), Some(Alarm { member: MemberId(5), kind: AlarmKind::NoSpace }));
    assert_eq!(named(2), Some(Alarm { member: MemberId(5), kind: AlarmKind::Corrupt }));
    assert_eq!((named(0), named(3)), (None, None));
}

#[test]
fn versions_are_what_etcd_takes_for_them() {
    for version in ["3.5", "3.5.0", "0.0", "3.5.0-rc.1", "3.5.0+git-1", "3.5.0-rc+x"] {
        assert!(is_version(version), "{version}");
    }
    for other in ["", "3", "3.x", "v3.5", "3.5.0.0", "3.5-rc", "3.5+x", "3.5.0-rc_1", "3..0", " 3.5"] {
        assert!(!is_version(other), "{other}");
    }
}
