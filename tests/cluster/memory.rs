//! A member that has 32 MB for everything: it serves a hundred thousand keys and a hundred watchers, and nobody kills it. Root, by `.ci/run crash`.

use covey::wire::etcdserverpb as pb;
use pb::kv_client::KvClient;
use pb::request_op::Request;
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use smol::stream::{self, StreamExt as _};
use tonic::Streaming;

use crate::channel::Channel;
use crate::client;
use crate::memory_group::MemoryGroup;
use crate::process::{Cluster, Host};

const MEMORY_BYTES: u64 = 32 << 20;
const KEYS: usize = 100_000;
const VALUE_BYTES: usize = 100;
/// Puts of one transaction, below the default bound.
const AT_ONCE: usize = 100;
/// Watchers of all keys, on so many streams of one connection.
const STREAMS: usize = 10;
const WATCHERS_OF_EACH: usize = 10;
/// What they are told of.
const WATCHED: usize = 2000;

fn key(number: usize) -> String {
    format!("key{number:06}")
}

/// Puts keys from `first` on, many at a time.
async fn put(kv: &mut KvClient<Channel>, keys: std::ops::Range<usize>, value: &str) {
    let all: Vec<usize> = keys.collect();
    for some in all.chunks(AT_ONCE) {
        let put = |number: &usize| {
            let put = pb::PutRequest {
                key: key(*number).into(),
                value: value.to_owned().into(),
                ..Default::default()
            };
            pb::RequestOp { request: Some(Request::RequestPut(put)) }
        };
        let txn = pb::TxnRequest { success: some.iter().map(put).collect(), ..Default::default() };
        assert!(kv.txn(txn).await.unwrap().into_inner().succeeded);
    }
}

/// Streams with watchers of every key from a revision on.
async fn watch(channel: &Channel, from: i64) -> Vec<Streaming<pb::WatchResponse>> {
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let create = pb::WatchCreateRequest {
            key: "key".into(),
            range_end: "kez".into(),
            start_revision: from,
            ..Default::default()
        };
        let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let requests = stream::iter(vec![create; WATCHERS_OF_EACH]).chain(stream::pending());
        streams.push(WatchClient::new(channel.clone()).watch(requests).await.unwrap().into_inner());
    }
    streams
}

/// Reads a stream until each of its watchers has been told of so many changes, in order.
async fn told(mut responses: Streaming<pb::WatchResponse>) {
    let mut next = [0; WATCHERS_OF_EACH];
    while next.iter().any(|next| *next < WATCHED) {
        let response = responses.message().await.unwrap().expect("it goes on");
        assert!(!response.canceled, "{response:?}");
        let watcher = usize::try_from(response.watch_id).unwrap();
        for event in response.events {
            assert_eq!(event.kv.unwrap().key, key(next[watcher]).as_bytes());
            next[watcher] += 1;
        }
    }
}

fn has_all(host: &Host, value: &str) {
    assert_eq!(
        host.must(&["get", "--prefix", "key", "--count-only", "--write-out", "fields"])
            .matches(&format!("\"Count\" : {KEYS}"))
            .count(),
        1
    );
    for number in [0, WATCHED - 1] {
        assert_eq!(host.must(&["get", &key(number)]), format!("{}\n{value}\n", key(number)));
    }
    assert_eq!(host.must(&["get", &key(KEYS - 1)]).len(), key(0).len() + VALUE_BYTES + 2);
}

#[test]
#[ignore = "needs root"]
fn a_hundred_thousand_keys_and_a_hundred_watchers_fit_into_32_megabytes() {
    // A file system in memory would count as the member's memory.
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut cluster = Cluster::prepare(1);
    let host = &mut cluster.hosts[0];
    host.data_dir = disk.path().join("data");
    host.group = Some(MemoryGroup::of(MEMORY_BYTES));
    host.start(&["--initial-cluster", &host.named()]);
    cluster.wait_ready();
    let host = &mut cluster.hosts[0];
    let after = "w".repeat(VALUE_BYTES);
    smol::block_on(async {
        let channel = client::channel(host).await.unwrap();
        let mut kv = KvClient::new(channel.clone());
        put(&mut kv, 0..KEYS, &"v".repeat(VALUE_BYTES)).await;
        let range = pb::RangeRequest { key: "key".into(), ..Default::default() };
        let revision = kv.range(range).await.unwrap().into_inner().header.unwrap().revision;
        let streams = watch(&channel, revision + 1).await;
        // All at once: they share a connection, which one that nobody reads would bring to a stop.
        let readers: Vec<_> = streams.into_iter().map(|responses| smol::spawn(told(responses))).collect();
        put(&mut kv, 0..WATCHED, &after).await;
        for reader in readers {
            reader.await;
        }
    });
    has_all(host, &after);
    host.signal("-TERM");
    assert_eq!(host.ended(), 0, "{}", host.log());
    host.start(&[]);
    cluster.wait_ready();
    let host = &mut cluster.hosts[0];
    has_all(host, &after);
    host.kill();
    host.start(&[]);
    cluster.wait_ready();
    let host = &mut cluster.hosts[0];
    has_all(host, &after);
    assert_eq!(host.group.as_ref().unwrap().killed(), 0);
    host.kill();
}
