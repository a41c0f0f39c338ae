//! Watches on a member that loses the others.

use std::time::Duration;

use covey::wire::etcdserverpb as pb;
use smol::Timer;
use smol::stream;
use tonic::{Code, Status, Streaming};

use crate::client::{self, in_time, put};
use crate::process::{Cluster, Host, PATIENCE};

/// A stream with a watcher of one key.
async fn watch(host: &Host, needs_leader: bool) -> Streaming<pb::WatchResponse> {
    let create = pb::WatchCreateRequest { key: "key".into(), ..Default::default() };
    client::watch(host, create, stream::pending(), needs_leader).await
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
        // Losing one member costs an election at most, and no stream.
        cluster.hosts[1].kill();
        put_and_hear(&cluster.hosts[2], &mut [&mut strict, &mut patient]).await;
        cluster.hosts[2].kill();
        let end = within(PATIENCE, &mut strict).await.expect("it is cut").unwrap_err();
        assert_eq!((end.code(), end.message()), (Code::Unavailable, "etcdserver: no leader"));
        assert!(within(Duration::from_millis(500), &mut patient).await.is_none());
        cluster.hosts[1].start(&[]);
        put_and_hear(&cluster.hosts[0], &mut [&mut patient]).await;
    });
}
