//! Owns: what of JSON is taken for which message, and what is refused. Must never: ask a server.

use prost::Message as _;

use super::{Unreadable, encode};
use crate::api::schema::schema;
use crate::wire::etcdserverpb as pb;

fn read(message: &str, json: &str) -> Result<Vec<u8>, String> {
    let schema = schema();
    let encoded = encode(schema, schema.message(message).unwrap(), json.as_bytes(), usize::MAX);
    encoded.map_err(|error| error.to_string())
}

fn range(json: &str) -> pb::RangeRequest {
    pb::RangeRequest::decode(&read("etcdserverpb.RangeRequest", json).unwrap()[..]).unwrap()
}

fn refused(json: &str) -> String {
    read("etcdserverpb.RangeRequest", json).expect_err(json)
}

#[test]
fn every_spelling_of_a_request_is_the_same_request() {
    let expected = pb::RangeRequest {
        key: "foo".into(),
        limit: 7,
        revision: -1,
        sort_order: 2,
        keys_only: true,
        min_mod_revision: i64::MAX,
        ..Default::default()
    };
    for json in [
        r#"{"key":"Zm9v","limit":"7","revision":"-1","sort_order":"DESCEND","keys_only":true,"min_mod_revision":"9223372036854775807"}"#,
        r#" { "key" : "Zm9v", "limit":7, "revision":-1, "sortOrder":2, "keysOnly":true, "minModRevision":9223372036854775807 } "#,
        r#"{"\u006bey":"\u005am9v","limit":"7e0","revision":-1.0,"sort_order":2.0,"keys_only":true,"minModRevision":"9223372036854775807","bogus":[{"a":1}],"range_end":null,"serializable":false}"#,
    ] {
        assert_eq!(range(json), expected, "{json}");
    }
    assert_eq!(range("{}"), pb::RangeRequest::default());
    // A name that the enum does not have, and a number.
    assert_eq!(range(r#"{"sort_order":"FOO"}"#).sort_order, 0);
    assert_eq!(range(r#"{"sort_order":99}"#).sort_order, 99);
}

#[test]
fn base64_is_taken_in_both_alphabets_with_padding_and_without() {
    for (json, bytes) in [
        ("", &b""[..]),
        ("+/8=", b"\xfb\xff"),
        ("-_8=", b"\xfb\xff"),
        ("-_8", b"\xfb\xff"),
        ("Zm8", b"fo"),
        ("Zm9", b"fo"),
        ("AA==", b"\0"),
        // Line ends are passed over, and count where padding is asked for.
        ("Zm9v\\n", b"foo"),
        ("\\r\\n", b""),
        ("\\n\\n\\n\\n", b""),
        ("Z\\nm8\\r", b"fo"),
        ("Zm8=\\r\\n\\r\\n", b"fo"),
        ("AA=\\n\\n\\n\\n=", b"\0"),
    ] {
        assert_eq!(&range(&format!(r#"{{"key":"{json}"}}"#)).key[..], bytes, "{json}");
    }
    for wrong in [
        "!", "Z m", "Z", "+_8=", "Zm9v=", "====", "AA=", "Zm8=Zm8=", "Zm8\\n", "Z\\nm8", "Zm8=\\n",
        "Zm9v\\t", "Zm9v ",
    ] {
        let error = refused(&format!(r#"{{"key":"{wrong}"}}"#));
        assert!(error.starts_with("field key takes bytes in base64"), "{wrong}: {error}");
    }
}

#[test]
fn what_is_no_integer_is_refused() {
    for wrong in [
        "1.5",
        "1e30",
        "9223372036854775808",
        "-9223372036854775809",
        "99999999999999999999999",
        "true",
        "[]",
        "[1]",
        "{}",
        "\"\"",
        "\" 1\"",
        "\"1 \"",
        "\"+1\"",
        "\"0x1\"",
        "\"1.5\"",
        "\"NaN\"",
        "\"Infinity\"",
        "\"1e400\"",
        "\"9007199254740993.0\"",
        "\"9223372036854775808\"",
    ] {
        let error = refused(&format!(r#"{{"limit":{wrong}}}"#));
        assert!(error.starts_with("field limit takes an int64"), "{wrong}: {error}");
    }
    assert!(refused(r#"{"limit":1e400}"#).contains("out of range"));
    let alarm = |id: &str| {
        let wire = read("etcdserverpb.AlarmRequest", &format!(r#"{{"memberID":{id},"alarm":-1}}"#))?;
        pb::AlarmRequest::decode(&wire[..]).map_err(|error| error.to_string())
    };
    let request = alarm("\"18446744073709551615\"").unwrap();
    assert_eq!((request.member_id, request.alarm), (u64::MAX, -1));
    assert!(alarm("-1").is_err() && alarm("18446744073709551616").is_err());
}

#[test]
fn what_is_wrong_is_named() {
    for (json, expected) in [
        (r#"{"key":5}"#, "field key takes bytes in base64"),
        (r#"{"keys_only":"true"}"#, "field keys_only takes true or false"),
        (r#"{"keys_only":1}"#, "field keys_only takes true or false"),
        (r#"{"sort_order":1.5}"#, "field sort_order takes a name or a number"),
        (r#"{"key":"","key":""}"#, "field key comes twice"),
        (r#"{"sort_order":1,"sortOrder":1}"#, "field sort_order comes twice"),
        (r#"{"key":"#, "EOF while parsing"),
        (r#"{"key" "a"}"#, "expected `:`"),
        (r#"{"key":"]}"#, "EOF while parsing"),
        ("{\"key\":\"\u{1}\"}", "control character"),
        (r#"{"key":"\ud800"}"#, "hex escape"),
        ("{} {}", "trailing characters"),
        ("[]", "invalid type"),
    ] {
        let error = refused(json);
        assert!(error.contains(expected), "{json}: {error}");
    }
    assert!(
        encode(
            schema(),
            schema().message("etcdserverpb.RangeRequest").unwrap(),
            b"{\"key\":\"\xff\"}",
            usize::MAX
        )
        .is_err()
    );
}

#[test]
fn nested_messages_lists_and_choices_are_read() {
    let json = r#"{"compare":[{"key":"YQ==","version":"0"},{"key":"YQ==","target":"VALUE","value":""}],
        "success":[{"requestPut":{"key":"YQ==","lease":5}},{"request_txn":{"failure":[{"request_range":{}}]}}],
        "failure":[]}"#;
    let txn = pb::TxnRequest::decode(&read("etcdserverpb.TxnRequest", json).unwrap()[..]).unwrap();
    assert_eq!(txn.compare[0].target_union, Some(pb::compare::TargetUnion::Version(0)));
    assert_eq!(txn.compare[1].target_union, Some(pb::compare::TargetUnion::Value("".into())));
    assert_eq!((txn.success.len(), txn.failure.len()), (2, 0));
    let Some(pb::request_op::Request::RequestTxn(inner)) = &txn.success[1].request else { panic!("{txn:?}") };
    assert_eq!(
        inner.failure[0].request,
        Some(pb::request_op::Request::RequestRange(pb::RangeRequest::default()))
    );
    for (wrong, expected) in [
        (r#"{"compare":[null]}"#, "field compare takes an object in a list"),
        (r#"{"compare":{}}"#, "field compare takes an object in a list"),
        (r#"{"compare":[[]]}"#, "field compare takes an object in a list"),
        (r#"{"compare":[{"version":0,"value":""}]}"#, "value is one of several that are set"),
    ] {
        let error = read("etcdserverpb.TxnRequest", wrong).expect_err(wrong);
        assert!(error.contains(expected), "{wrong}: {error}");
    }
    let null = read("etcdserverpb.TxnRequest", r#"{"compare":[{"version":null,"value":"YQ=="}]}"#);
    assert!(null.is_ok(), "{null:?}");
    let filters = read("etcdserverpb.WatchCreateRequest", r#"{"filters":["NODELETE","FOO",0]}"#).unwrap();
    assert_eq!(pb::WatchCreateRequest::decode(&filters[..]).unwrap().filters, [1, 0]);
}

/// A negative number takes two bytes of JSON, and eleven on the wire.
#[test]
fn no_more_is_written_than_a_message_may_have() {
    let message = schema().message("etcdserverpb.WatchCreateRequest").unwrap();
    let json = format!(r#"{{"filters":[-1{}]}}"#, ",-1".repeat(999));
    let read = |bytes_max| encode(schema(), message, json.as_bytes(), bytes_max);
    assert_eq!(read(11_000).unwrap().len(), 11_000);
    assert!(matches!(read(10_999), Err(Unreadable::TooLong)));
    assert!(matches!(read(10), Err(Unreadable::TooLong)));
}

/// As deep as transactions may nest, and not as deep as the stack.
#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| {
        let (open, close) = (r#"{"success":[{"request_txn":"#.repeat(depth), "}]}".repeat(depth));
        read("etcdserverpb.TxnRequest", &format!("{open}{{}}{close}"))
    };
    assert!(nested(crate::limits::TXN_DEPTH_MAX).is_ok());
    let error = nested(10_000).unwrap_err();
    assert!(error.contains("recursion limit exceeded"), "{error}");
    // What is passed over needs no stack.
    let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
    assert!(read("etcdserverpb.TxnRequest", &format!(r#"{{"bogus":{open}{close}}}"#)).is_ok());
}
