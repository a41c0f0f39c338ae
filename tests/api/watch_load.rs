//! Watches under load: readers that do not read, crowds, and clients that come and go.

use std::time::Duration;

use covey::api::ApiOptions;
use covey::runtime::clock::Clock;
use covey::time::Instant;
use covey::wire::etcdserverpb as pb;
use pb::watch_request::RequestUnion;

use crate::harness::{Channel, Server, Setup, run, until};
use crate::watch::{Kv, client, put, put_at_once};
use crate::watcher::{Watcher, create};

/// Puts with values of this many bytes.
const VALUE_BYTES: usize = 4096;

async fn put_large(kv: &Kv, count: usize) {
    let value = "v".repeat(VALUE_BYTES);
    let puts = (0..count).map(|_| {
        let (mut kv, value) = (kv.clone(), value.clone());
        smol::spawn(async move { put(&mut kv, "k", &value).await })
    });
    for put in puts.collect::<Vec<_>>() {
        put.await;
    }
}

/// The revisions of all events that come, which must follow one another, until `last`.
pub async fn read_up_to(stream: &mut Watcher, mut seen: i64, last: i64) -> i64 {
    while seen < last {
        for event in stream.next().await.events {
            let revision = event.kv.unwrap().mod_revision;
            assert_eq!(revision, seen + 1);
            seen = revision;
        }
    }
    seen
}

/// While one client does not read, what waits for it is bounded, others are told everything at once, and when it reads again it
/// has missed nothing.
#[test]
fn a_client_that_does_not_read_costs_little_and_misses_nothing() {
    run(async {
        const WRITES: usize = 3000;
        let server = Server::start().await;
        let kv = client(&server).await;
        let narrow = Channel::narrow(server.connect().await, 65_535).await.unwrap();
        let mut slow = Watcher::over(narrow).await;
        slow.create(create("k", "")).await;
        let told_before = server.metrics.events_told.value();
        put_large(&kv, WRITES).await;
        until("it is behind", || server.metrics.slow_watchers.value() == 1).await;
        let told = usize::try_from(server.metrics.events_told.value() - told_before).unwrap();
        assert!(told * VALUE_BYTES < 4 << 20, "{told} events of {WRITES} wait");
        let mut fast = Watcher::start(&server).await;
        fast.create(create("k", "")).await;
        let last = put(&mut kv.clone(), "k", "last").await;
        assert_eq!(fast.events(0, 1).await.len(), 1);
        assert_eq!(server.metrics.slow_watchers.value(), 1);
        assert_eq!(read_up_to(&mut slow, 1, last).await, last);
        until("it has caught up", || server.metrics.slow_watchers.value() == 0).await;
        slow.progress();
        let progress = slow.next().await;
        assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, last));
    });
}

/// Streams that take nothing, many on a connection. Each wants something else, so that no two share what they are told.
async fn stalled(server: &Server, count: usize) -> Vec<Watcher> {
    const STREAMS_PER_CONNECTION: usize = 100;
    let mut streams = Vec::new();
    let mut channel = None;
    for n in 0..count {
        if n % STREAMS_PER_CONNECTION == 0 {
            channel = Some(Channel::with_windows(server.connect().await, 8 * 1024, 16 << 20).await.unwrap());
        }
        let mut stream = Watcher::over(channel.clone().unwrap()).await;
        stream.create(create("k", &format!("l{n}"))).await;
        streams.push(stream);
    }
    streams
}

/// What is on its way to clients that take nothing counts as what it is, once, and against the watchers' budget alone: other calls go on.
#[test]
fn many_clients_that_take_nothing_stand_in_nobodys_way() {
    run(async {
        const STREAMS: usize = 1500;
        const VALUE_BYTES: usize = 20 * 1024;
        const ROUNDS: i64 = 3;
        let options = ApiOptions { answer_bytes_max: 8 << 20, ..ApiOptions::default() };
        let server = Server::with(Setup { options, ..Setup::default() }).await;
        let mut kv = client(&server).await;
        let mut streams = stalled(&server, STREAMS).await;
        let value = "v".repeat(VALUE_BYTES);
        for _ in 0..ROUNDS {
            put(&mut kv, "k", &value).await;
        }
        until("all are told", || {
            server.metrics.events_told.value() + server.metrics.slow_watchers.value() >= STREAMS as u64
        })
        .await;
        let (counted, _) = server.api.answers().bytes();
        assert!(counted < 2 << 20, "{counted} bytes count as answers");
        let range = pb::RangeRequest { key: "k".into(), ..Default::default() };
        assert_eq!(kv.range(range).await.unwrap().into_inner().kvs[0].value.len(), VALUE_BYTES);
        for stream in &mut streams {
            assert_eq!(read_up_to(stream, 1, 1 + ROUNDS).await, 1 + ROUNDS);
        }
    });
}

/// Clients that hold the memory for what watchers are told are disconnected for those that wait for it.
#[test]
fn whoever_holds_what_others_wait_for_has_to_go() {
    run(async {
        const STREAMS: usize = 300;
        const VALUE_BYTES: usize = 40 * 1024;
        let options = ApiOptions { answer_patience: Duration::from_secs(4), ..ApiOptions::default() };
        let watch_limits = covey::watch::Limits { queued_bytes: 1 << 20, ..Default::default() };
        let server = Server::with(Setup { options, watch_limits, ..Setup::default() }).await;
        let mut kv = client(&server).await;
        let holders = stalled(&server, STREAMS).await;
        let value = "v".repeat(VALUE_BYTES);
        for _ in 0..2 {
            put(&mut kv, "k", &value).await;
        }
        // Those that are not hold what there is, and have to go before long: on a busy machine some do before all are behind.
        until("most are behind", || server.metrics.slow_watchers.value() > STREAMS as u64 / 2).await;
        // It takes everything at once, but there is no memory for it.
        let mut stream = Watcher::start(&server).await;
        stream.create(create("k", "")).await;
        let clock = Clock::start();
        put(&mut kv, "k", &value).await;
        assert_eq!(stream.events(0, 1).await.len(), 1);
        assert!(clock.now().since(Instant::default()) > Duration::from_secs(1), "there was none");
        until("they have gone", || server.metrics.watch_streams.value() == 1).await;
        drop(holders);
    });
}

/// The writer is flat out; every one of the watchers gets every change, in order, whether or not it falls behind on the way.
#[test]
fn a_thousand_watchers_miss_nothing() {
    run(async {
        const WATCHERS: usize = 1000;
        const WRITES: i64 = 400;
        let server = Server::start().await;
        let kv = client(&server).await;
        let mut stream = Watcher::start(&server).await;
        for number in 0..WATCHERS {
            // Every other one has the prefix for itself.
            let end = if number % 2 == 0 { "l".to_owned() } else { format!("l{number}") };
            stream.send(RequestUnion::CreateRequest(create("k", &end)));
        }
        for _ in 0..WATCHERS {
            assert!(stream.next().await.created);
        }
        let writes =
            smol::spawn(async move { put_at_once(&kv, "k", usize::try_from(WRITES).unwrap()).await });
        let mut seen = vec![1; WATCHERS];
        let mut left = WATCHERS;
        while left > 0 {
            let message = stream.next().await;
            let seen = &mut seen[usize::try_from(message.watch_id).unwrap()];
            for event in message.events {
                assert_eq!(event.kv.unwrap().mod_revision, *seen + 1);
                *seen += 1;
            }
            left -= usize::from(*seen == WRITES + 1);
        }
        writes.await;
        stream.quiet().await;
    });
}

/// Clients connect, resume where they were, read a little and vanish, all at once and again and again.
#[test]
fn a_storm_of_reconnecting_clients_leaves_nothing_and_misses_nothing() {
    run(async {
        const CLIENTS: usize = 60;
        const ROUNDS: usize = 5;
        const WRITES: i64 = 600;
        let server = Server::start().await;
        let kv = client(&server).await;
        let writer = kv.clone();
        let writes =
            smol::spawn(async move { put_at_once(&writer, "k", usize::try_from(WRITES).unwrap()).await });
        let mut seen = vec![1_i64; CLIENTS];
        for round in 0..ROUNDS {
            let mut streams = Vec::new();
            for seen in &seen {
                let stream = Watcher::start(&server).await;
                stream.send(RequestUnion::CreateRequest(pb::WatchCreateRequest {
                    start_revision: seen + 1,
                    ..create("k", "l")
                }));
                streams.push(stream);
            }
            for (stream, seen) in streams.iter_mut().zip(&mut seen) {
                assert!(stream.next().await.created);
                if *seen <= WRITES {
                    *seen = read_up_to(stream, *seen, *seen + 1).await;
                }
            }
            if round + 1 == ROUNDS {
                writes_end(&mut streams, &mut seen, WRITES + 1).await;
            }
        }
        writes.await;
        let metrics = &server.metrics;
        until("all have gone", || (metrics.watch_streams.value(), metrics.watchers.value()) == (0, 0)).await;
        drop(kv);
        server.idle().await;
    });
}

async fn writes_end(streams: &mut [Watcher], seen: &mut [i64], last: i64) {
    for (stream, seen) in streams.iter_mut().zip(seen) {
        *seen = read_up_to(stream, *seen, last).await;
    }
}

#[test]
fn a_stream_may_have_a_hundred_thousand_watchers() {
    run(async {
        const WATCHERS: i64 = 100_000;
        let server = Server::start().await;
        let mut kv = client(&server).await;
        let mut stream = Watcher::start(&server).await;
        for number in 0..WATCHERS {
            stream.send(RequestUnion::CreateRequest(create(&format!("/some/key/{number}"), "")));
        }
        for number in 0..WATCHERS {
            assert_eq!(stream.next().await.watch_id, number);
        }
        for number in [0, 77_777, WATCHERS - 1] {
            put(&mut kv, &format!("/some/key/{number}"), "v").await;
            assert_eq!(stream.events(number, 1).await.len(), 1);
        }
        stream.progress();
        assert_eq!(stream.next().await.watch_id, -1);
        drop(stream);
        until("all have gone", || server.metrics.watchers.value() == 0).await;
    });
}
