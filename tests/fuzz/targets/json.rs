//! What clients send to the JSON gateway, read by itself.
//!
//! Owns: that a request takes no more memory than its bytes warrant, and that whatever is read is written as JSON that reads the same.

use covey::api::json_there_and_back;

use crate::input::Input;
use crate::memory::bounded;

/// The messages that have most in them.
const MESSAGES: [&str; 8] = [
    "etcdserverpb.RangeRequest",
    "etcdserverpb.TxnRequest",
    "etcdserverpb.WatchRequest",
    "etcdserverpb.AlarmRequest",
    "etcdserverpb.MemberAddRequest",
    "etcdserverpb.AuthUserAddRequest",
    "v3electionpb.ResignRequest",
    "etcdserverpb.RangeResponse",
];
/// Three bytes of JSON are at most eleven of the wire (`-1,` in a list), and come back no longer than they were, but for names and escapes.
const BYTES_FOR_EACH: usize = 128;

pub fn gateway(bytes: &[u8]) {
    let mut input = Input(bytes);
    let message = MESSAGES[usize::from(input.u8()) % MESSAGES.len()];
    let json = input.0;
    let Some((wire, back)) = bounded(json, BYTES_FOR_EACH, || json_there_and_back(message, json)) else {
        return;
    };
    assert!(wire.len() <= 4 * json.len(), "{} bytes of {}", wire.len(), json.len());
    let (_, again) = json_there_and_back(message, &back).expect("what was written can be read");
    assert_eq!(again, back, "and says the same");
}

pub mod seeds {
    pub fn gateway() -> Vec<Vec<u8>> {
        let texts = [
            r#"{"key":"Zm9v","range_end":"-_8","limit":"7","sortOrder":"DESCEND","keys_only":true,"revision":1e1}"#,
            r#"{"compare":[{"key":"YQ==","target":"VALUE","value":"","range_end":"AA=="}],"success":[{"requestPut":{"key":"YQ=="}},
                {"request_txn":{"failure":[{"request_delete_range":{"prev_kv":true}}]}}]}"#,
            r#"{"create_request":{"key":"YQ==","filters":["NOPUT",1],"watch_id":"9","bogus":[{"a":[1.5e3,null,"\u00e9"]}]}}"#,
            r#"{"action":"ACTIVATE","memberID":18446744073709551615,"alarm":2}"#,
            r#"{"peerURLs":["http://a:1","\"\\\n"],"isLearner":true}"#,
            r#"{"name":"root","password":"\ud83d\ude00","options":{"no_password":false},"hashedPassword":null}"#,
            r#"{"leader":{"name":"bg==","key":"aw==","rev":"2","lease":-1}}"#,
            r#"{"header":{"cluster_id":"1"},"kvs":[{"key":"YQ==","value":"Yg==","version":"3"}],"more":true,"count":"-1"}"#,
        ];
        let seed = |(place, text): (u8, &str)| [&[place], text.as_bytes()].concat();
        (0..).zip(texts).map(seed).collect()
    }
}
