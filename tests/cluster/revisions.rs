//! Revisions at the edges of what is kept: of a delete that is compacted, and of the future. etcd has lost events and gone
//! back there (its issues 17780, 18089, 19179 and 20221), and told of progress before the events (15220).
//!
//! Owns: these few situations. Must never: ask one member only, where others may answer differently.

use covey::wire::etcdserverpb as pb;
use covey::wire::mvccpb::event::EventType;
use pb::watch_request::RequestUnion;
use smol::block_on;
use smol::stream;
use tonic::Streaming;

use crate::client::{self, in_time, kv_client, maintenance_client, put};
use crate::process::{Cluster, Host, PATIENCE, until};

/// All keys, from a revision on.
pub fn from(start_revision: i64) -> pb::WatchCreateRequest {
    let (key, range_end) = (bytes::Bytes::from_static(&[0]), bytes::Bytes::from_static(&[0]));
    pb::WatchCreateRequest { key, range_end, start_revision, ..Default::default() }
}

fn ask_for_progress() -> pb::WatchRequest {
    let progress = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
    pb::WatchRequest { request_union: Some(progress) }
}

pub async fn next(stream: &mut Streaming<pb::WatchResponse>) -> pb::WatchResponse {
    in_time(PATIENCE, stream.message()).await.expect("the stream is not silent").unwrap().expect("no end")
}

/// A stream with one watcher from a revision on.
pub async fn watch(host: &Host, start_revision: i64) -> Streaming<pb::WatchResponse> {
    client::watch(host, from(start_revision), stream::pending(), false).await
}

/// A revision, whether it was a delete, and the key.
pub type Change = (i64, bool, Vec<u8>);

/// What changed, up to a revision; always something newer than before.
pub async fn events(stream: &mut Streaming<pb::WatchResponse>, to: i64) -> Vec<Change> {
    let mut seen: Vec<Change> = Vec::new();
    while seen.last().is_none_or(|(revision, ..)| *revision < to) {
        for event in next(stream).await.events {
            let deleted = event.r#type() == EventType::Delete;
            let kv = event.kv.unwrap();
            assert!(
                seen.last().is_none_or(|(revision, ..)| *revision <= kv.mod_revision),
                "it goes back: {seen:?}"
            );
            seen.push((kv.mod_revision, deleted, kv.key.to_vec()));
        }
    }
    seen
}

async fn delete(host: &Host, key: &str) -> i64 {
    let request = pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
    let done = kv_client(host).await.unwrap().delete_range(request).await.unwrap().into_inner();
    assert_eq!(done.deleted, 1);
    done.header.unwrap().revision
}

/// The revision that a member is at, and the hash of its keys there.
pub fn state(host: &Host) -> (i64, u32) {
    until("a hash", || {
        block_on(async {
            let mut client = maintenance_client(host).await.ok()?;
            let answer = client.hash_kv(pb::HashKvRequest { revision: 0 }).await.ok()?.into_inner();
            Some((answer.header?.revision, answer.hash))
        })
    })
}

/// The last revision is a delete, and it is compacted: nothing of it is left in the keys, but it has been.
#[test]
fn a_compacted_delete_is_not_forgotten_by_a_crash() {
    let mut cluster = Cluster::start(3);
    for round in 0..3 {
        let at = block_on(async {
            for key in ["a", "b", "c", "d"] {
                put(&cluster.hosts[0], key, "value").await.unwrap();
            }
            delete(&cluster.hosts[1], "b").await;
            let at = delete(&cluster.hosts[2], "a").await;
            let compact = pb::CompactionRequest { revision: at, physical: round > 0 };
            kv_client(&cluster.hosts[0]).await.unwrap().compact(compact).await.unwrap();
            at
        });
        for host in &mut cluster.hosts {
            host.kill();
        }
        for host in &mut cluster.hosts {
            host.start(&[]);
        }
        cluster.wait_ready();
        let first = state(&cluster.hosts[0]);
        assert_eq!(first.0, at, "the revision has gone back");
        for host in &cluster.hosts {
            assert_eq!(state(host), first, "{}", host.name);
            let seen = block_on(async { events(&mut watch(host, at).await, at).await });
            assert_eq!(seen, [(at, true, b"a".to_vec())], "{}", host.name);
        }
    }
}

/// Of members, some are behind the client that asks: what is in the future for them is old for others.
#[test]
fn a_watch_of_the_future_hears_nothing_older() {
    let cluster = Cluster::start(3);
    block_on(async {
        for _ in 0..20 {
            let now = put(&cluster.hosts[0], "key", "value").await.unwrap();
            let start = now + 5;
            let mut streams = Vec::new();
            for host in &cluster.hosts {
                streams.push(watch(host, start).await);
            }
            for _ in 0..6 {
                put(&cluster.hosts[1], "key", "value").await.unwrap();
            }
            for stream in &mut streams {
                let seen = events(stream, now + 6).await;
                let revisions: Vec<i64> = seen.iter().map(|(revision, ..)| *revision).collect();
                assert_eq!(revisions, [now + 5, now + 6]);
            }
        }
    });
}

/// Progress is a promise: what comes after it is newer.
#[test]
fn progress_is_told_after_the_events_that_it_covers() {
    let cluster = Cluster::start(3);
    block_on(async {
        let leader = cluster.leader();
        let follower = &cluster.hosts[(leader + 1) % 3];
        let (requests, receiver) = smol::channel::unbounded();
        let mut written = put(&cluster.hosts[leader], "key", "value").await.unwrap();
        let mut responses = client::watch(follower, from(written), receiver, false).await;
        let (mut last, mut promised, mut answers) = (written - 1, 0, 0);
        for _ in 0..200 {
            written = put(&cluster.hosts[leader], "key", "value").await.unwrap();
            requests.send(ask_for_progress()).await.unwrap();
        }
        while last < written || answers == 0 {
            let response = next(&mut responses).await;
            let revision = response.header.as_ref().unwrap().revision;
            if response.events.is_empty() {
                answers += 1;
                promised = promised.max(revision);
                assert_eq!(last, promised, "told of progress to {promised} after events to {last}");
            }
            for event in response.events {
                let at = event.kv.unwrap().mod_revision;
                assert!(at > promised && at > last, "{at} after {last}, promised to {promised}");
                last = at;
            }
        }
    });
}
