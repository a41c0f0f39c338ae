//! What clients send, read by itself: messages, the two headers that tell browsers apart, certificates.
//!
//! Owns: that a request takes no more memory than its bytes warrant, and that no page gets past the two headers.

use std::fmt::Debug;
use std::net::{Ipv4Addr, Ipv6Addr};

use covey::api::BrowserPolicy;
use covey::tls::{Authority, key_hash_of};
use covey::wire::covey::v1 as admin;
use covey::wire::etcdserverpb as pb;
use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Uri};
use prost::Message;
use rustls::pki_types::CertificateDer;

use crate::input::{Input, piece};
use crate::memory::bounded;

/// Two bytes are an operation of a transaction, whose list doubles as it grows.
const BYTES_FOR_EACH: usize = 256;

fn comes_back<M: Message + Default + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(message) = bounded(bytes, BYTES_FOR_EACH, || M::decode(bytes)) {
        assert_eq!(M::decode(&message.encode_to_vec()[..]).unwrap(), message);
    }
}

/// A call, and what its request is made of.
pub struct Call {
    pub path: &'static str,
    read: fn(&[u8]),
    /// A sound request.
    pub sound: fn() -> Vec<u8>,
}

const fn call<M: Message + Default + PartialEq + Debug>(path: &'static str, sound: fn() -> Vec<u8>) -> Call {
    Call { path, read: comes_back::<M>, sound }
}

/// What any client may call.
pub const CALLS: [Call; 15] = [
    call::<pb::RangeRequest>("/etcdserverpb.KV/Range", || range().encode_to_vec()),
    call::<pb::PutRequest>("/etcdserverpb.KV/Put", || put().encode_to_vec()),
    call::<pb::DeleteRangeRequest>("/etcdserverpb.KV/DeleteRange", || delete().encode_to_vec()),
    call::<pb::TxnRequest>("/etcdserverpb.KV/Txn", || txn().encode_to_vec()),
    call::<pb::CompactionRequest>("/etcdserverpb.KV/Compact", || {
        pb::CompactionRequest { revision: 2, physical: true }.encode_to_vec()
    }),
    call::<pb::RangeRequest>("/etcdserverpb.KV/RangeStream", || range().encode_to_vec()),
    call::<pb::WatchRequest>("/etcdserverpb.Watch/Watch", || watch().encode_to_vec()),
    call::<pb::LeaseGrantRequest>("/etcdserverpb.Lease/LeaseGrant", || {
        pb::LeaseGrantRequest { ttl: 60, id: 7 }.encode_to_vec()
    }),
    call::<pb::LeaseKeepAliveRequest>("/etcdserverpb.Lease/LeaseKeepAlive", || {
        pb::LeaseKeepAliveRequest { id: 7 }.encode_to_vec()
    }),
    call::<pb::LeaseTimeToLiveRequest>("/etcdserverpb.Lease/LeaseTimeToLive", || {
        pb::LeaseTimeToLiveRequest { id: 7, keys: true }.encode_to_vec()
    }),
    call::<pb::LeaseRevokeRequest>("/etcdserverpb.Lease/LeaseRevoke", || {
        pb::LeaseRevokeRequest { id: 7 }.encode_to_vec()
    }),
    call::<pb::HashKvRequest>("/etcdserverpb.Maintenance/HashKV", || {
        pb::HashKvRequest { revision: 2 }.encode_to_vec()
    }),
    call::<admin::TokenCreateRequest>("/covey.v1.Admin/TokenCreate", || {
        admin::TokenCreateRequest::default().encode_to_vec()
    }),
    call::<admin::NodeApproveRequest>("/covey.v1.Admin/NodeApprove", || {
        admin::NodeApproveRequest::default().encode_to_vec()
    }),
    call::<pb::DowngradeRequest>("/etcdserverpb.Maintenance/Downgrade", || {
        pb::DowngradeRequest { action: 0, version: "3.5.0-rc.1+meta".into() }.encode_to_vec()
    }),
];

fn range() -> pb::RangeRequest {
    pb::RangeRequest { key: "a".into(), range_end: "z".into(), limit: 9, revision: 1, ..Default::default() }
}

fn put() -> pb::PutRequest {
    pb::PutRequest { key: "key".into(), value: "value".into(), prev_kv: true, ..Default::default() }
}

fn delete() -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: "k".into(), range_end: "l".into(), prev_kv: true }
}

fn txn() -> pb::TxnRequest {
    use pb::request_op::Request;

    let op = |request| pb::RequestOp { request: Some(request) };
    let compare = pb::Compare {
        result: 1,
        target: 3,
        key: "key".into(),
        range_end: "l".into(),
        target_union: Some(pb::compare::TargetUnion::Value("value".into())),
    };
    let inner = pb::TxnRequest { success: vec![op(Request::RequestRange(range()))], ..Default::default() };
    pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(Request::RequestPut(put())), op(Request::RequestTxn(inner))],
        failure: vec![op(Request::RequestDeleteRange(delete()))],
    }
}

fn watch() -> pb::WatchRequest {
    let create = pb::WatchCreateRequest {
        key: "a".into(),
        range_end: "z".into(),
        start_revision: 1,
        filters: vec![0],
        fragment: true,
        progress_notify: true,
        ..Default::default()
    };
    pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) }
}

pub fn requests(bytes: &[u8]) {
    let mut input = Input(bytes);
    let call = &CALLS[usize::from(input.u8()) % CALLS.len()];
    (call.read)(input.0);
}

/// Whether a name stands for this machine, whoever asks.
fn is_own(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    matches!(host.as_str(), "localhost" | "localhost.")
        || host.trim_end_matches('.').parse::<Ipv4Addr>().is_ok()
        || bare.parse::<Ipv6Addr>().is_ok()
}

/// By default no page may do anything, and no name but this machine's own is taken.
pub fn browser(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (host, origin) = (input.piece(), input.piece());
    let policy = BrowserPolicy::default();
    let mut headers = HeaderMap::new();
    if let Ok(origin) = HeaderValue::from_bytes(origin) {
        headers.insert(ORIGIN, origin);
        assert!(policy.judge_origin(&headers).is_err());
    }
    if let Ok(host) = HeaderValue::from_bytes(host) {
        headers.insert(HOST, host);
    }
    let Ok(uri) = Uri::try_from(input.0) else { return };
    let named = uri
        .authority()
        .map_or_else(|| headers.get(HOST).and_then(|host| host.to_str().ok()), |it| Some(it.as_str()));
    if policy.judge_host(&uri, &headers).is_ok() {
        let authority: http::uri::Authority = named.unwrap().parse().unwrap();
        assert!(is_own(authority.host()), "{authority}");
    }
}

/// A certificate that a client shows, and an authority that the state brings.
pub fn certificates(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (certificate, private) = (input.piece(), input.piece());
    let shown = CertificateDer::from(certificate);
    drop(bounded(bytes, BYTES_FOR_EACH, || key_hash_of(&shown)));
    if let Ok(authority) = Authority::load(certificate, private) {
        authority.issue_client("client").expect("an authority that is taken can issue");
    }
}

pub mod seeds {
    use super::*;

    pub fn requests() -> Vec<Vec<u8>> {
        (0..).zip(&CALLS).map(|(number, call)| [&[number], &(call.sound)()[..]].concat()).collect()
    }

    pub fn browser() -> Vec<Vec<u8>> {
        let seed = |host: &str, origin: &str, uri: &str| {
            [&piece(host.as_bytes())[..], &piece(origin.as_bytes()), uri.as_bytes()].concat()
        };
        vec![
            seed("localhost:2379", "", "/version"),
            seed("127.0.0.1:2379", "null", "/health?serializable=true"),
            seed("[::1]:2379", "https://console.example", "http://[::1]/metrics"),
            seed("localhost.", "http://localhost", "http://user@127.0.0.1:1/"),
            seed("evil.example", "https://evil.example", "http://127.0.0.1.evil.example/"),
        ]
    }

    /// Made anew for each run: what they are called and how long they last is the same, their keys are not.
    pub fn certificates() -> Vec<Vec<u8>> {
        let made = Authority::generate(covey::ids::ClusterId(7)).unwrap();
        let authority = Authority::load(&made.certificate_der, &made.key_pkcs8).unwrap();
        let client = authority.issue_client("client").unwrap();
        let shown = pem::parse(&client.certificate).unwrap();
        let (certificate, private) = (piece(&made.certificate_der), piece(&made.key_pkcs8));
        vec![[certificate, private.clone()].concat(), [piece(shown.contents()), private].concat()]
    }
}
