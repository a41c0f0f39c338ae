//! Transactions from text, against the requests that etcdctl makes of the same text.

use bytes::Bytes;

use super::{parse, words};
use crate::wire::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::wire::etcdserverpb::request_op::Request;
use crate::wire::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

fn comparison(line: &str) -> Compare {
    parse(line).unwrap().compare.remove(0)
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn a_whole_transaction() {
    let text = "mod(\"key1\") > \"0\"\n\nput key1 \"overwrote-key1\"\nget --prefix k\n\nput 'key 1' created\ndel a b\n\n";
    let request = |request| RequestOp { request: Some(request) };
    let put = |key, value| {
        request(Request::RequestPut(PutRequest {
            key: Bytes::from_static(key),
            value: Bytes::from_static(value),
            ..PutRequest::default()
        }))
    };
    let expected = TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Greater as i32,
            target: CompareTarget::Mod as i32,
            key: Bytes::from_static(b"key1"),
            range_end: Bytes::new(),
            target_union: Some(TargetUnion::ModRevision(0)),
        }],
        success: vec![
            put(b"key1", b"overwrote-key1"),
            request(Request::RequestRange(RangeRequest {
                key: Bytes::from_static(b"k"),
                range_end: Bytes::from_static(b"l"),
                ..RangeRequest::default()
            })),
        ],
        failure: vec![
            put(b"key 1", b"created"),
            request(Request::RequestDeleteRange(DeleteRangeRequest {
                key: Bytes::from_static(b"a"),
                range_end: Bytes::from_static(b"b"),
                prev_kv: false,
            })),
        ],
    };
    assert_eq!(parse(text).unwrap(), expected);
}

#[test]
fn blocks_may_be_empty_and_the_end_ends_them() {
    assert_eq!(parse("").unwrap(), TxnRequest::default());
    assert_eq!(parse("\n\n\n\n").unwrap(), TxnRequest::default());
    let only_failure = parse("\n\n del x ").unwrap();
    assert_eq!(
        (only_failure.compare.len(), only_failure.success.len(), only_failure.failure.len()),
        (0, 0, 1)
    );
    assert_eq!(error("\n\n\nput a b"), "a transaction has three blocks, but something follows: put a b");
}

#[test]
fn every_target_and_operator() {
    for (line, target, operand) in [
        ("ver(\"k\") = \"1\"", CompareTarget::Version, TargetUnion::Version(1)),
        ("version(\"k\") = \"1\"", CompareTarget::Version, TargetUnion::Version(1)),
        ("c(\"k\") = \"2\"", CompareTarget::Create, TargetUnion::CreateRevision(2)),
        ("create(\"k\") = \"2\"", CompareTarget::Create, TargetUnion::CreateRevision(2)),
        ("m(\"k\") = \"-3\"", CompareTarget::Mod, TargetUnion::ModRevision(-3)),
        ("val(\"k\") = \"\\xff\"", CompareTarget::Value, TargetUnion::Value(Bytes::from_static(b"\xff"))),
        ("value(`k`) = ``", CompareTarget::Value, TargetUnion::Value(Bytes::new())),
        ("lease(\"k\") = \"1f\"", CompareTarget::Lease, TargetUnion::Lease(0x1f)),
    ] {
        let compare = comparison(line);
        assert_eq!((compare.target, compare.target_union), (target as i32, Some(operand)), "{line}");
        assert_eq!((&compare.key[..], compare.result), (&b"k"[..], CompareResult::Equal as i32));
    }
    for (operator, result) in
        [("!=", CompareResult::NotEqual), ("<", CompareResult::Less), (">", CompareResult::Greater)]
    {
        assert_eq!(comparison(&format!("ver(\"k\")  {operator}  \"1\"")).result, result as i32);
    }
}

#[test]
fn bad_lines_are_named() {
    for line in [
        "mod",
        "mod(key) > \"0\"",
        "mod(\"k\" > \"0\"",
        "mod(\"k\") >= \"0\"",
        "mod(\"k\") > 0",
        "mod(\"k\") > \"0\" x",
        "mod(\"k\")>\"0\"",
    ] {
        assert_eq!(error(line), format!("malformed comparison: {line}"));
    }
    assert_eq!(
        error("size(\"k\") = \"0\""),
        "malformed comparison: size(\"k\") = \"0\" (unknown target size)"
    );
    assert!(error("ver(\"k\") = \"x\"").starts_with("invalid txn compare request: "));
    for line in ["put 'a b", "status", "txn x"] {
        assert_eq!(error(&format!("\n{line}\n")), format!("invalid txn request: {line}"));
    }
    assert!(error("\nput a\n").contains("put command needs"));
    assert!(error("\nget --prefx a\n").contains("did you mean --prefix?"));
}

#[test]
fn words_are_split_at_spaces_outside_of_quotes() {
    assert_eq!(words(" a  'b c' \"d\\te\" f'g ").unwrap(), ["a", "b c", "d\te", "f'g"]);
    assert_eq!(words("\"\" ''").unwrap(), ["", ""]);
    assert_eq!(words("\"a"), None);
}
