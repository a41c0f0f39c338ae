//! Watches on a member that loses the others.

use std::time::Duration;

use covey::wire::v3electionpb::election_client::ElectionClient;
use covey::wire::{etcdserverpb as pb, v3electionpb};
use pb::lease_client::LeaseClient;
use smol::Timer;
use smol::stream::{self, StreamExt as _};
use tonic::{Code, Request, Status, Streaming};

use crate::client::{self, channel, in_time, put};
use crate::process::{Cluster, Host, PATIENCE};

/// A stream with a watcher of one key.
async fn watch(host: &Host, needs_leader: bool) -> Streaming<pb::WatchResponse> {
    let create = pb::WatchCreateRequest { key: "key".into(), ..Default::default() };
    client::watch(host, create, stream::pending(), needs_leader).await
}

/// A stream that keeps a lease, and has done so once.
async fn keep_alive(host: &Host) -> Streaming<pb::LeaseKeepAliveResponse> {
    let mut client = LeaseClient::new(channel(host).await.unwrap());
    let id = client.lease_grant(pb::LeaseGrantRequest { id: 0, ttl: 60 }).await.unwrap().into_inner().id;
    let asks = stream::once(pb::LeaseKeepAliveRequest { id }).chain(stream::pending());
    let mut answers = client.lease_keep_alive(strict(asks)).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().map(|answer| (answer.id, answer.ttl)), Some((id, 60)));
    answers
}

/// A stream that observes an election which nobody stands for.
async fn observe(host: &Host) -> Streaming<v3electionpb::LeaderResponse> {
    let election = v3electionpb::LeaderRequest { name: "election".into() };
    ElectionClient::new(channel(host).await.unwrap()).observe(strict(election)).await.unwrap().into_inner()
}

fn strict<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("hasleader", "true".parse().unwrap());
    request
}

/// How a stream ends that has nothing to tell any more.
async fn ended<T>(stream: &mut Streaming<T>) -> Status {
    let end = in_time(PATIENCE, stream.message()).await.expect("it is cut");
    end.err().expect("no message, and no end without status")
}

/// The next message with events, or the end, within some time; the revision of its last event.
async fn within(time: Duration, stream: &mut Streaming<pb::WatchResponse>) -> Option<Result<i64, Status>> {
    let message =
        in_time(time, stream.message()).await?.map(|message| message.expect("no end without status"));
    Some(message.map(|message| message.events.last().unwrap().kv.as_ref().unwrap().mod_revision))
}

/// Puts the key as soon as that is possible, and looks whether the streams are told. Attempts that failed may have had an effect, too.
async fn put_and_hear(host: &Host, streams: &mut [&mut Streaming<pb::WatchResponse>]) {
    let revision = loop {
        match put(host, "key", "value").await {
            Ok(revision) => break revision,
            Err(_) => drop(Timer::after(Duration::from_millis(50)).await),
        }
    };
    for stream in streams {
        while within(PATIENCE, stream).await.expect("it is told").unwrap() < revision {}
    }
}

/// A member without a leader goes on as if nothing happened. Who wants to hear of that says so, and can turn to another member.
#[test]
fn a_stream_that_needs_a_leader_ends_when_it_is_lost() {
    let mut cluster = Cluster::start(3);
    smol::block_on(async {
        let mut strict = watch(&cluster.hosts[0], true).await;
        let mut patient = watch(&cluster.hosts[0], false).await;
        let mut alive = keep_alive(&cluster.hosts[0]).await;
        let mut observed = observe(&cluster.hosts[0]).await;
        // Losing one member costs an election at most, and no stream.
        cluster.hosts[1].kill();
        put_and_hear(&cluster.hosts[2], &mut [&mut strict, &mut patient]).await;
        cluster.hosts[2].kill();
        let end = within(PATIENCE, &mut strict).await.expect("it is cut").unwrap_err();
        let also = [("a keepalive", ended(&mut alive).await), ("an observer", ended(&mut observed).await)];
        for (what, end) in also.into_iter().chain([("a watch", end)]) {
            assert_eq!((end.code(), end.message()), (Code::Unavailable, "etcdserver: no leader"), "{what}");
        }
        assert!(within(Duration::from_millis(500), &mut patient).await.is_none());
        cluster.hosts[1].start(&[]);
        put_and_hear(&cluster.hosts[0], &mut [&mut patient]).await;
    });
}
