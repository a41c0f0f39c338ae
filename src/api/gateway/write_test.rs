//! Owns: what of a message is written as JSON, and in what portions. Must never: ask a server.

use bytes::Bytes;
use prost::Message as _;

use super::{Malformed, Rest, Writer};
use crate::api::schema::schema;
use crate::wire::{etcdserverpb as pb, mvccpb};

/// Writes a message that comes in these pieces, so many bytes at a time.
fn write(message: &str, pieces: &[&[u8]], full: usize) -> Result<String, Malformed> {
    let length = pieces.iter().map(|piece| piece.len()).sum();
    let mut writer = Writer::new(schema(), schema().message(message).unwrap(), length);
    let (mut pieces, mut wire, mut text) = (pieces.iter(), Bytes::new(), Vec::new());
    loop {
        let mut json = Vec::new();
        let rest = writer.write(&mut wire, &mut json, full)?;
        assert!(json.len() <= full + 20_000, "{} bytes at a time", json.len());
        text.append(&mut json);
        match rest {
            Rest::Full => {}
            Rest::Hungry => wire = Bytes::copy_from_slice(pieces.next().ok_or(Malformed)?),
            Rest::Done => return Ok(String::from_utf8(text).unwrap()),
        }
    }
}

fn pair(key: &'static str) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: key.into(),
        create_revision: 2,
        mod_revision: -3,
        version: 4,
        ..Default::default()
    }
}

#[test]
fn messages_are_written_as_etcd_writes_them() {
    let header = pb::ResponseHeader { cluster_id: u64::MAX, member_id: 1, revision: 2, raft_term: 3 };
    let range = pb::RangeResponse {
        header: Some(header),
        kvs: vec![pair("foo"), mvccpb::KeyValue { value: "x".into(), lease: i64::MIN, ..pair("") }],
        more: true,
        count: 2,
    };
    let header =
        r#"{"header":{"cluster_id":"18446744073709551615","member_id":"1","revision":"2","raft_term":"3"}"#;
    let expected = format!(
        "{header}{}",
        r#","kvs":[{"key":"Zm9v","create_revision":"2","mod_revision":"-3","version":"4"},{"create_revision":"2","mod_revision":"-3","version":"4","value":"eA==","lease":"-9223372036854775808"}],"more":true,"count":"2"}"#
    );
    let wire = range.encode_to_vec();
    for full in [1, 10, 100, 10_000] {
        assert_eq!(
            write("etcdserverpb.RangeResponse", &[&wire], full).unwrap(),
            expected,
            "{full} at a time"
        );
    }
    assert_eq!(write("etcdserverpb.RangeResponse", &[], 100).unwrap(), "{}");
}

#[test]
fn numbers_of_32_bits_enums_and_texts_are_written() {
    let hash = pb::HashKvResponse { hash: u32::MAX, compact_revision: -1, ..Default::default() };
    let text = write("etcdserverpb.HashKVResponse", &[&hash.encode_to_vec()], 100);
    assert_eq!(text.unwrap(), r#"{"hash":4294967295,"compact_revision":"-1"}"#);
    let alarm = |alarm| pb::AlarmMember { member_id: 1, alarm };
    let alarms = pb::AlarmResponse { alarms: vec![alarm(1), alarm(0), alarm(-7)], ..Default::default() };
    let text = write("etcdserverpb.AlarmResponse", &[&alarms.encode_to_vec()], 100).unwrap();
    assert_eq!(
        text,
        r#"{"alarms":[{"memberID":"1","alarm":"NOSPACE"},{"memberID":"1"},{"memberID":"1","alarm":-7}]}"#
    );
    let peer_urls = vec!["http://a".to_owned(), "\"\\\n\u{1}\u{e9}".to_owned()];
    let member = pb::Member { id: 1, peer_urls, is_learner: true, ..Default::default() };
    let text = write("etcdserverpb.Member", &[&member.encode_to_vec()], 100).unwrap();
    assert_eq!(
        text,
        "{\"ID\":\"1\",\"peerURLs\":[\"http://a\",\"\\\"\\\\\\n\\u0001\u{e9}\"],\"isLearner\":true}"
    );
    let filters = pb::WatchCreateRequest { filters: vec![0, 1, 2], watch_id: 5, ..Default::default() };
    let text = write("etcdserverpb.WatchCreateRequest", &[&filters.encode_to_vec()], 100).unwrap();
    assert_eq!(text, r#"{"filters":["NOPUT","NODELETE",2],"watch_id":"5"}"#);
}

#[test]
fn long_values_are_written_in_pieces() {
    for length in [12_287, 12_288, 12_289, 100_000] {
        let kv = mvccpb::KeyValue { value: vec![b'a'; length].into(), ..Default::default() };
        let text = write("mvccpb.KeyValue", &[&kv.encode_to_vec()], 4000).unwrap();
        let thirds = length / 3;
        assert!(text.starts_with(&format!(r#"{{"value":"{}"#, "YWFh".repeat(thirds))), "{length}");
        let end = ["\"}", "YQ==\"}", "YWE=\"}"][length % 3];
        assert_eq!(text[10 + 4 * thirds..], *end, "{length}");
    }
}

/// As a watch sends them: what is first of all, then the events, each in one piece.
#[test]
fn a_message_may_come_in_pieces() {
    let event = |kind, key| mvccpb::Event { r#type: kind, kv: Some(pair(key)), prev_kv: None };
    let head = pb::WatchResponse { watch_id: 7, ..Default::default() };
    let first = pb::WatchResponse { events: vec![event(0, "a"), event(1, "b")], ..Default::default() };
    let last = pb::WatchResponse { events: vec![event(0, "c")], ..Default::default() };
    let pieces = [head.encode_to_vec(), first.encode_to_vec(), last.encode_to_vec()];
    let text = write("etcdserverpb.WatchResponse", &[&pieces[0], &pieces[1], &pieces[2]], 50).unwrap();
    let kv =
        |key| format!(r#""kv":{{"key":"{key}","create_revision":"2","mod_revision":"-3","version":"4"}}"#);
    let events = format!(r#"{{{}}},{{"type":"DELETE",{}}},{{{}}}"#, kv("YQ=="), kv("Yg=="), kv("Yw=="));
    assert_eq!(text, format!(r#"{{"watch_id":"7","events":[{events}]}}"#));
}

#[test]
fn a_field_that_nobody_knows_is_passed_over() {
    // Fields 99 and 98, a number and bytes, in front of `more`.
    let wire = b"\x98\x06\x05\x92\x06\x02ab\x18\x01";
    assert_eq!(write("etcdserverpb.RangeResponse", &[wire], 100).unwrap(), r#"{"more":true}"#);
}

#[test]
fn what_is_no_message_is_a_fault_and_no_panic() {
    for wire in [
        &b"\x80"[..],
        b"\x0a",
        b"\x0a\x05ab",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x12\x02\x0a\x05",
        b"\x12\x03\x0a\x05abcdef",
        b"\x0d\0\0\0\0",
        b"\x92\x06\x7f",
        // A list of numbers where there is no list.
        b"\x22\x01\x01",
        // A number where there are messages.
        b"\x10\x01",
    ] {
        assert_eq!(write("etcdserverpb.RangeResponse", &[wire], 100), Err(Malformed), "{wire:?}");
    }
    assert_eq!(write("etcdserverpb.Member", &[b"\x12\x01\xff"], 100), Err(Malformed));
    assert_eq!(write("etcdserverpb.WatchCreateRequest", &[b"\x2a\x02\x01\x80\x01"], 100), Err(Malformed));
}
