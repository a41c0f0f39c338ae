//! The Watch service over the wire: its rules one by one (API reference, section 2).

use std::time::Duration;

use covey::api::ApiOptions;
use covey::wire::etcdserverpb as pb;
use covey::wire::etcdserverpb::kv_client::KvClient;
use pb::request_op::Request;
use pb::watch_create_request::FilterType;
use tonic::Code;

use crate::harness::{Channel, Server, Setup, run, until};
use crate::watcher::{Watcher, brief, briefs, create};

pub type Kv = KvClient<Channel>;

pub async fn client(server: &Server) -> Kv {
    KvClient::new(server.channel().await)
}

pub async fn put(kv: &mut Kv, key: &str, value: &str) -> i64 {
    let put =
        pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
    kv.put(put).await.unwrap().into_inner().header.unwrap().revision
}

/// Many puts below a prefix, all on their way at once.
pub async fn put_at_once(kv: &Kv, prefix: &str, count: usize) {
    let puts = (0..count).map(|number| {
        let (mut kv, key) = (kv.clone(), format!("{prefix}{}", number % 10));
        smol::spawn(async move { put(&mut kv, &key, "value").await })
    });
    for put in puts.collect::<Vec<_>>() {
        put.await;
    }
}

async fn delete(kv: &mut Kv, key: &str, end: &str) -> i64 {
    let delete = delete_request(key, end);
    kv.delete_range(delete).await.unwrap().into_inner().header.unwrap().revision
}

fn delete_request(key: &str, end: &str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        ..Default::default()
    }
}

async fn compact(kv: &mut Kv, revision: i64) {
    kv.compact(pb::CompactionRequest { revision, physical: true }).await.unwrap();
}

fn from(start_revision: i64, request: pb::WatchCreateRequest) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { start_revision, ..request }
}

fn with_id(watch_id: i64, request: pb::WatchCreateRequest) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { watch_id, ..request }
}

/// A watcher that is refused: why, and that nothing else is said.
async fn refused(stream: &mut Watcher, request: pb::WatchCreateRequest) -> String {
    let answer = stream.ask(request).await;
    assert!(answer.created && answer.canceled && answer.watch_id == -1, "{answer:?}");
    assert!(answer.events.is_empty() && answer.compact_revision == 0, "{answer:?}");
    answer.cancel_reason
}

#[test]
fn the_keys_of_all_watchers_are_bounded_in_bytes() {
    run(async {
        const KEY_BYTES: usize = 1 << 20;
        let server = Server::start().await;
        let mut stream = Watcher::start(&server).await;
        let key = |n: usize| format!("{n:04}{}", "k".repeat(KEY_BYTES - 4));
        let most = covey::limits::WATCH_KEYS_BYTES_MAX / KEY_BYTES;
        for n in 0..most {
            stream.create(create(&key(n), "")).await;
        }
        let reason = refused(&mut stream, create("one more", "")).await;
        assert_eq!(reason, "covey: the keys of all watchers are too large");
        // Those that share an interval share its keys, and the last one that ends gives them back.
        let shares = stream.create(create(&key(0), "")).await;
        for (id, gives_back) in [(0, false), (shares, true)] {
            stream.cancel(id);
            assert!(stream.next().await.canceled);
            let again = stream.ask(create(&key(most), "")).await;
            assert_eq!(again.canceled, !gives_back);
            stream.cancel(again.watch_id);
            assert!(again.canceled || stream.next().await.canceled);
        }
        stream.create(create("one more", "")).await;
        drop(stream);
        until("all have gone", || server.metrics.watchers.value() == 0).await;
    });
}

#[test]
fn a_watcher_is_created_told_and_cancelled() {
    run(async {
        let server = Server::start().await;
        let mut kv = client(&server).await;
        assert_eq!(put(&mut kv, "k", "before").await, 2);
        let mut stream = Watcher::start(&server).await;
        let created = stream.ask(create("k", "")).await;
        assert!(created.created && !created.canceled && created.events.is_empty());
        let header = created.header.unwrap();
        assert_eq!((created.watch_id, header.revision), (0, 2));
        let status = server.handle.status();
        assert_eq!((header.cluster_id, header.member_id), (status.cluster.0, status.member.0));
        assert_eq!(header.raft_term, status.term.0);
        put(&mut kv, "other", "x").await;
        put(&mut kv, "k", "v").await;
        delete(&mut kv, "k", "").await;
        let events = stream.events(0, 2).await;
        assert_eq!(briefs(&events), ["4 k=v", "5 -k"]);
        let (put_kv, deleted) = (events[0].kv.as_ref().unwrap(), events[1].kv.as_ref().unwrap());
        assert_eq!((put_kv.create_revision, put_kv.version), (2, 2));
        assert_eq!((deleted.create_revision, deleted.version, deleted.lease), (0, 0, 0));
        stream.progress();
        let progress = stream.next().await;
        assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, 5));
        assert!(progress.events.is_empty() && !progress.created && !progress.canceled);
        stream.cancel(0);
        let canceled = stream.next().await;
        assert!(canceled.canceled && canceled.watch_id == 0 && canceled.cancel_reason.is_empty());
        assert_eq!((canceled.compact_revision, canceled.header.unwrap().revision), (0, 5));
        put(&mut kv, "k", "after").await;
        // Nobody is there any more: neither to be cancelled again nor to be told how far they are.
        stream.cancel(0);
        stream.progress();
        stream.send_nothing();
        stream.quiet().await;
    });
}

#[test]
fn ids_are_chosen_by_either_side() {
    run(async {
        let server = Server::start().await;
        let mut stream = Watcher::start(&server).await;
        assert_eq!(stream.create(create("a", "")).await, 0);
        assert_eq!(stream.create(with_id(1, create("a", ""))).await, 1);
        assert_eq!(stream.create(with_id(-7, create("a", ""))).await, -7);
        assert_eq!(stream.create(create("a", "")).await, 2, "1 is in use");
        let why = refused(&mut stream, with_id(1, create("b", ""))).await;
        assert_eq!(why, "mvcc: duplicate watch ID provided on the WatchStream");
        stream.cancel(1);
        assert!(stream.next().await.canceled);
        assert_eq!(stream.create(with_id(1, create("b", ""))).await, 1, "free again");
        assert_eq!(stream.create(create("a", "")).await, 3);
        // Another stream has ids of its own.
        assert_eq!(Watcher::start(&server).await.create(create("a", "")).await, 0);
        put(&mut client(&server).await, "b", "v").await;
        assert_eq!(briefs(&stream.events(1, 1).await), ["2 b=v"]);
        stream.quiet().await;
    });
}

#[test]
fn answers_come_in_the_order_of_requests() {
    run(async {
        let server = Server::start().await;
        let mut kv = client(&server).await;
        put(&mut kv, "k", "v").await;
        let mut stream = Watcher::start(&server).await;
        // More than may wait at once, and all have something to be told.
        for _ in 0..700 {
            stream.send(pb::watch_request::RequestUnion::CreateRequest(from(2, create("k", ""))));
        }
        let (mut created, mut told) = (0, std::collections::BTreeSet::new());
        while told.len() < 700 {
            let message = stream.next().await;
            if message.created {
                assert_eq!(message.watch_id, created);
                created += 1;
            } else {
                assert!(message.watch_id < created, "created comes first");
                assert_eq!(briefs(&message.events), ["2 k=v"]);
                assert!(told.insert(message.watch_id));
            }
        }
        stream.quiet().await;
    });
}

#[test]
fn a_watcher_starts_where_it_is_told() {
    run(async {
        let server = Server::start().await;
        let mut kv = client(&server).await;
        for value in ["a", "b", "c", "d"] {
            put(&mut kv, "k", value).await;
        }
        let mut stream = Watcher::start(&server).await;
        let past = stream.create(from(3, create("k", ""))).await;
        assert_eq!(briefs(&stream.events(past, 3).await), ["3 k=b", "4 k=c", "5 k=d"]);
        let future = stream.ask(from(8, create("k", ""))).await;
        assert_eq!(future.header.unwrap().revision, 5);
        stream.progress();
        stream.quiet().await;
        for value in ["e", "f", "g"] {
            put(&mut kv, "k", value).await;
        }
        let mut got = [Vec::new(), Vec::new()];
        while got[0].len() + got[1].len() < 4 {
            let message = stream.next().await;
            got[usize::try_from(message.watch_id).unwrap()].extend(briefs(&message.events));
        }
        assert_eq!(got, [vec!["6 k=e", "7 k=f", "8 k=g"], vec!["8 k=g"]]);
        stream.progress();
        assert_eq!(stream.next().await.header.unwrap().revision, 8);
        let why = refused(&mut stream, from(-1, create("k", ""))).await;
        assert_eq!(why, "etcdserver: mvcc: required revision has been compacted");
    });
}

#[test]
fn a_compacted_start_is_created_and_then_cancelled() {
    run(async {
        let server = Server::start().await;
        let mut kv = client(&server).await;
        for value in ["a", "b", "c", "d"] {
            put(&mut kv, "k", value).await;
        }
        compact(&mut kv, 4).await;
        let mut stream = Watcher::start(&server).await;
        assert_eq!(stream.create(from(3, create("k", ""))).await, 0);
        let canceled = stream.next().await;
        assert!(canceled.canceled && !canceled.created && canceled.cancel_reason.is_empty());
        assert_eq!((canceled.watch_id, canceled.compact_revision), (0, 4));
        let header = canceled.header.unwrap();
        assert!(header.revision == 0 && header.member_id != 0);
        // The compacted revision itself can still be told.
        let valid = stream.create(from(4, create("k", ""))).await;
        assert_eq!(briefs(&stream.events(valid, 2).await), ["4 k=c", "5 k=d"]);
        // What was before the first is known no more.
        let request = pb::WatchCreateRequest { prev_kv: true, ..from(4, create("k", "")) };
        let old = stream.create(request).await;
        assert_eq!(briefs(&stream.events(old, 2).await), ["4 k=c", "5 k=d was c"]);
    });
}

#[test]
fn intervals_are_those_of_ranges() {
    run(async {
        let server = Server::start().await;
        let mut kv = client(&server).await;
        let mut stream = Watcher::start(&server).await;
        for (key, end) in [("b", ""), ("a", "c"), ("b", "\0"), ("", "\0"), ("", "")] {
            stream.create(create(key, end)).await;
        }
        for (key, end) in [("c", "b"), ("b", "b")] {
            assert_eq!(refused(&mut stream, create(key, end)).await, "mvcc: watcher range is empty");
        }
        for key in ["a", "b", "c", "\0"] {
            put(&mut kv, key, "v").await;
        }
        let mut got = vec![Vec::new(); 5];
        while got.iter().map(Vec::len).sum::<usize>() < 10 {
            let message = stream.next().await;
            let events = message.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision);
            got[usize::try_from(message.watch_id).unwrap()].extend(events);
        }
        assert_eq!(got, [vec![3], vec![2, 3], vec![3, 4], vec![2, 3, 4, 5], vec![5]]);
        stream.quiet().await;
    });
}

#[test]
fn filters_and_old_values() {
    run(async {
        let server = Server::start().await;
        let mut kv = client(&server).await;
        let mut stream = Watcher::start(&server).await;
        let filtered = |filters: &[i32], prev_kv| pb::WatchCreateRequest {
            filters: filters.to_vec(),
            prev_kv,
            ..create("k", "")
        };
        let (no_put, no_delete) = (FilterType::Noput as i32, FilterType::Nodelete as i32);
        stream.create(filtered(&[no_put], false)).await;
        stream.create(filtered(&[no_delete, 77], true)).await;
        stream.create(filtered(&[no_put, no_delete], true)).await;
        put(&mut kv, "k", "a").await;
        put(&mut kv, "k", "b").await;
        delete(&mut kv, "k", "").await;
        put(&mut kv, "k", "c").await;
        let mut got = vec![Vec::new(); 3];
        while got[0].len() + got[1].len() < 4 {
            let message = stream.next().await;
            got[usize::try_from(message.watch_id).unwrap()].extend(briefs(&message.events));
        }
        assert_eq!(got[0], ["4 -k"]);
        // Neither of the two puts that made the key has anything before it.
        assert_eq!(got[1], ["2 k=a", "3 k=b was a", "5 k=c"]);
        stream.quiet().await;
        stream.progress();
        assert_eq!(stream.next().await.header.unwrap().revision, 5, "what is filtered out counts as seen");
    });
}

#[test]
fn one_revision_is_one_message_with_all_its_changes_in_order() {
    run(async {
        let server = Server::start().await;
        let mut kv = client(&server).await;
        put(&mut kv, "k", "old").await;
        let mut stream = Watcher::start(&server).await;
        let request = pb::WatchCreateRequest { prev_kv: true, ..create("k", "l") };
        stream.create(request.clone()).await;
        let op = |request| pb::RequestOp { request: Some(request) };
        let nested = |request| {
            op(Request::RequestTxn(pb::TxnRequest { success: vec![op(request)], ..Default::default() }))
        };
        let put = |key: &str, value: &str| {
            Request::RequestPut(pb::PutRequest {
                key: key.to_owned().into(),
                value: value.to_owned().into(),
                ..Default::default()
            })
        };
        // A key may be put in one nested transaction and deleted in a later one.
        let txn = pb::TxnRequest {
            success: vec![
                nested(put("k", "new")),
                op(put("k2", "second")),
                nested(Request::RequestDeleteRange(delete_request("k", ""))),
            ],
            ..Default::default()
        };
        kv.txn(txn).await.unwrap();
        let message = stream.next().await;
        assert_eq!(briefs(&message.events), ["3 k=new was old", "3 k2=second", "3 -k was old"]);
        assert_eq!(message.header.unwrap().revision, 3);
        // The same when it is history.
        let again = stream.create(from(3, request)).await;
        assert_eq!(stream.events(again, 3).await.len(), 3);
    });
}

#[test]
fn old_changes_come_in_pieces_of_whole_revisions() {
    run(async {
        const WRITES: usize = 1200;
        let server = Server::start().await;
        let mut kv = client(&server).await;
        put_at_once(&kv, "k", WRITES).await;
        let mut stream = Watcher::start(&server).await;
        stream.create(from(1, create("k", "l"))).await;
        let first = stream.next().await;
        assert_eq!(first.events.len(), 1000);
        assert_eq!(first.header.unwrap().revision, 1001, "as far as it tells");
        let rest = stream.next().await;
        let revisions = first.events.iter().chain(&rest.events);
        let revisions: Vec<i64> = revisions.map(|event| event.kv.as_ref().unwrap().mod_revision).collect();
        assert!(revisions.into_iter().eq(2..i64::try_from(WRITES).unwrap() + 2));
        put(&mut kv, "k", "new").await;
        assert_eq!(briefs(&stream.events(0, 1).await), ["1202 k=new"]);
    });
}

#[test]
fn large_messages_are_cut_for_those_who_can_put_them_together() {
    run(async {
        let options = ApiOptions { request_bytes_max: 64 * 1024, ..ApiOptions::default() };
        let server = Server::with(Setup { options, ..Setup::default() }).await;
        let mut kv = client(&server).await;
        let value = "v".repeat(50_000);
        for number in 0..30 {
            put(&mut kv, &format!("k{number:02}"), &value).await;
        }
        let mut stream = Watcher::start(&server).await;
        // All old values go in one revision: 1.5 MB.
        delete(&mut kv, "k", "l").await;
        let request = pb::WatchCreateRequest { prev_kv: true, fragment: true, ..from(32, create("k", "l")) };
        let id = stream.create(request.clone()).await;
        let mut sizes = Vec::new();
        loop {
            let piece = stream.next().await;
            assert_eq!((piece.watch_id, piece.header.unwrap().revision), (id, 32));
            assert!(prost::Message::encoded_len(&piece) < 64 * 1024 + 512 * 1024);
            sizes.push(piece.events.len());
            if !piece.fragment {
                break;
            }
        }
        assert_eq!(sizes, [11, 11, 8]);
        let whole = stream.create(pb::WatchCreateRequest { fragment: false, ..request }).await;
        let message = stream.next().await;
        assert_eq!((message.watch_id, message.events.len(), message.fragment), (whole, 30, false));
        // Small messages are never cut.
        put(&mut kv, "k", "v").await;
        assert!(!stream.next().await.fragment);
    });
}

#[test]
fn quiet_watchers_are_told_how_far_they_are() {
    run(async {
        let setup = Setup { progress_interval: Duration::from_millis(100), ..Setup::default() };
        let server = Server::with(setup).await;
        let mut kv = client(&server).await;
        let mut stream = Watcher::start(&server).await;
        let notified = pb::WatchCreateRequest { progress_notify: true, ..create("k", "") };
        stream.create(notified).await;
        stream.create(create("k", "")).await;
        put(&mut kv, "other", "v").await;
        for _ in 0..3 {
            let message = stream.next().await;
            assert!(message.events.is_empty() && !message.created && message.watch_id == 0, "{message:?}");
            assert!(message.header.unwrap().revision <= 2);
        }
    });
}

#[test]
fn a_client_may_close_its_side() {
    run(async {
        let server = Server::start().await;
        let mut kv = client(&server).await;
        let mut stream = Watcher::start(&server).await;
        stream.create(create("k", "")).await;
        stream.close_half();
        stream.quiet().await;
        put(&mut kv, "k", "v").await;
        assert_eq!(briefs(&stream.events(0, 1).await), ["2 k=v"]);
    });
}

#[test]
fn whoever_vanishes_leaves_nothing() {
    run(async {
        let server = Server::start().await;
        let channel = server.channel().await;
        let mut streams = Vec::new();
        for number in 0..6 {
            let mut stream = if number % 2 == 0 {
                Watcher::over(channel.clone()).await
            } else {
                Watcher::start(&server).await
            };
            for _ in 0..5 {
                stream.create(create("k", "l")).await;
            }
            streams.push(stream);
        }
        let metrics = &server.metrics;
        until("all are there", || (metrics.watch_streams.value(), metrics.watchers.value()) == (6, 30)).await;
        // A stream of a connection that stays, and a connection.
        drop(streams.drain(..2));
        until("two have gone", || (metrics.watch_streams.value(), metrics.watchers.value()) == (4, 20)).await;
        drop(streams);
        drop(channel);
        until("all have gone", || (metrics.watch_streams.value(), metrics.watchers.value()) == (0, 0)).await;
        server.idle().await;
    });
}

#[test]
fn the_end_of_the_server_is_one_that_clients_come_back_from() {
    run(async {
        let server = Server::start().await;
        let mut stream = Watcher::start(&server).await;
        stream.create(create("k", "")).await;
        server.stop.announce();
        let end = stream.message().await.unwrap_err();
        assert_eq!((end.code(), end.message()), (Code::Unavailable, "etcdserver: server stopped"));
        server.idle().await;
    });
}

#[test]
fn a_stream_that_needs_a_leader_is_refused_without_one() {
    run(async {
        let server = Server::with(Setup { lonely: true, ..Setup::default() }).await;
        let needs = |metadata: &mut tonic::metadata::MetadataMap| {
            metadata.insert("hasleader", "true".parse().unwrap());
        };
        let refused = Watcher::with(server.channel().await, needs).await.err().unwrap();
        assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "etcdserver: no leader"));
        // One that does not stays, and is told nothing.
        let mut stream = Watcher::start(&server).await;
        stream.create(create("k", "")).await;
        stream.quiet().await;
    });
}

/// The time that the client gave the call is over for a stream that is told nothing, and for one that is told something all the time.
#[test]
fn a_stream_ends_when_its_time_is_over() {
    run(async {
        let server = Server::start().await;
        let mut kv = client(&server).await;
        let short = |metadata: &mut tonic::metadata::MetadataMap| {
            metadata.insert("grpc-timeout", "500m".parse().unwrap());
        };
        let channel = server.channel().await;
        let mut quiet = Watcher::with(channel.clone(), short).await.unwrap();
        let mut busy = Watcher::with(channel.clone(), short).await.unwrap();
        let mut endless = Watcher::over(channel).await;
        for (stream, key) in [(&mut quiet, "quiet"), (&mut busy, "busy"), (&mut endless, "quiet")] {
            stream.create(create(key, "")).await;
        }
        let writes = smol::spawn(async move {
            loop {
                put(&mut kv, "busy", "v").await;
            }
        });
        for stream in [&mut busy, &mut quiet] {
            let end = loop {
                match stream.message().await {
                    Ok(message) => assert!(!message.events.is_empty()),
                    Err(end) => break end,
                }
            };
            assert_eq!((end.code(), end.message()), (Code::DeadlineExceeded, "context deadline exceeded"));
        }
        writes.cancel().await;
        endless.quiet().await;
        until("the others have gone", || server.metrics.watch_streams.value() == 1).await;
    });
}

#[test]
fn a_watcher_created_after_a_put_does_not_see_it() {
    run(async {
        let server = Server::start().await;
        let mut kv = client(&server).await;
        let mut stream = Watcher::start(&server).await;
        for round in 0..100 {
            let revision = put(&mut kv, "k", "v").await;
            let created = stream.ask(create("k", "")).await;
            assert!(created.header.unwrap().revision >= revision);
            stream.progress();
            let progress = stream.next().await;
            assert_eq!((progress.watch_id, progress.header.unwrap().revision), (-1, revision));
            stream.cancel(round);
            assert!(stream.next().await.canceled);
        }
    });
}

/// Kubernetes serves lists from its cache once a progress answer is at least as new as what it knows.
#[test]
fn progress_never_overtakes_events() {
    run(async {
        let server = Server::start().await;
        let mut stream = Watcher::start(&server).await;
        stream.create(create("k", "l")).await;
        let mut writer = client(&server).await;
        let writes = smol::spawn(async move {
            for number in 0..300 {
                put(&mut writer, "k", &number.to_string()).await;
            }
        });
        let (mut told, mut answers) = (1, 0);
        while told < 301 {
            stream.progress();
            let message = stream.next().await;
            let revision = message.header.unwrap().revision;
            if message.events.is_empty() {
                answers += 1;
                assert_eq!(revision, told, "all up to there has been told");
                continue;
            }
            for event in &message.events {
                told += 1;
                assert_eq!(event.kv.as_ref().unwrap().mod_revision, told, "{}", brief(event));
            }
            assert!(revision >= told);
        }
        writes.await;
        assert!(answers > 0);
    });
}
