//! Large answers to clients that do not take them.

use std::time::Duration;

use covey::api::ApiOptions;
use covey::wire::etcdserverpb as pb;
use covey::wire::etcdserverpb::kv_client::KvClient;
use covey::wire::etcdserverpb::lease_client::LeaseClient;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use smol::Timer;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Channel, Server, Setup, run, until};

const KEYS: usize = 24;
const VALUE_BYTES: usize = 256 * 1024;
/// What all keys together come to.
const ANSWER_BYTES: usize = KEYS * VALUE_BYTES;
/// Two such answers fit, and a third does not.
const BUDGET: usize = 16 * 1024 * 1024;

async fn server(patience: Duration) -> Server {
    let options = ApiOptions { answer_bytes_max: BUDGET, answer_patience: patience, ..ApiOptions::default() };
    let server = Server::with(Setup { options, ..Setup::default() }).await;
    let mut kv = KvClient::new(server.channel().await);
    for n in 0..KEYS {
        let value = vec![b'v'; VALUE_BYTES].into();
        let put = pb::PutRequest { key: format!("k{n:02}").into(), value, ..Default::default() };
        kv.put(put).await.unwrap();
    }
    server
}

fn everything() -> pb::RangeRequest {
    pb::RangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() }
}

/// Asks and takes no more of the answer than HTTP/2's smallest window.
async fn ask_and_wait(server: &Server, method: &str, request: impl prost::Message) -> (Channel, Incoming) {
    let channel = Channel::narrow(server.connect().await, 65_535).await.unwrap();
    let body = ask(&channel, method, request).await;
    (channel, body)
}

async fn ask(channel: &Channel, method: &str, request: impl prost::Message) -> Incoming {
    let mut message = vec![0];
    message.extend(u32::try_from(request.encoded_len()).unwrap().to_be_bytes());
    request.encode(&mut message).unwrap();
    let request = http::Request::post(format!("http://any/etcdserverpb.KV/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(http_body_util::Full::new(bytes::Bytes::from(message))))
        .unwrap();
    channel.send(request).await.unwrap().into_body()
}

#[test]
fn clients_that_take_nothing_hold_no_more_than_the_budget_and_not_for_ever() {
    run(async {
        let server = server(Duration::from_secs(1)).await;
        let stalled = async {
            let mut held = Vec::new();
            for _ in 0..2 {
                held.push(ask_and_wait(&server, "Range", everything()).await);
            }
            held
        };
        let held = stalled.await;
        let answers = server.api.answers();
        assert!(answers.bytes().0 >= 2 * ANSWER_BYTES, "both are counted: {:?}", answers.bytes());
        // One key is read whatever large answers lie around.
        let mut kv = KvClient::new(server.channel().await);
        let one = pb::RangeRequest { key: "k00".into(), ..Default::default() };
        assert_eq!(kv.range(one).await.unwrap().into_inner().kvs[0].value.len(), VALUE_BYTES);
        let mut kv = kv.max_decoding_message_size(usize::MAX);
        // What does not fit waits for the others to be cut off.
        let answer = kv.range(everything()).await.unwrap().into_inner();
        assert_eq!(answer.kvs.len(), KEYS);
        assert!(answers.bytes().1 <= BUDGET, "the budget was kept: {:?}", answers.bytes());
        let counters = server.api.counters();
        until("both are cut off", || counters.connections() <= 1).await;
        for (_channel, body) in held {
            assert!(body.collect().await.is_err());
        }
        drop(kv);
        server.idle().await;
        assert_eq!(answers.bytes().0, 0, "nothing leaks");
    });
}

#[test]
fn clients_that_vanish_give_everything_back() {
    run(async {
        let server = server(Duration::from_secs(3600)).await;
        let answers = server.api.answers();
        let mut held = vec![ask_and_wait(&server, "Range", everything()).await];
        held.push(ask_and_wait(&server, "Range", everything()).await);
        // These wait for room.
        let mut waiting = Vec::new();
        for _ in 0..3 {
            let channel = server.channel().await;
            waiting.push(smol::spawn(async move { ask(&channel, "Range", everything()).await }));
        }
        Timer::after(Duration::from_millis(300)).await;
        assert!(waiting.iter().all(|task| !task.is_finished()), "they wait");
        drop((waiting, held));
        server.idle().await;
        until("all is given back", || answers.bytes().0 == 0).await;
        assert!(answers.bytes().1 <= BUDGET, "{:?}", answers.bytes());
    });
}

#[test]
fn a_slow_client_that_takes_something_is_served_to_the_end() {
    run(async {
        let server = server(Duration::from_millis(600)).await;
        let (_channel, mut body) = ask_and_wait(&server, "Range", everything()).await;
        let mut bytes = 0;
        // Five patiences long: one frame at a time, then the rest.
        for _ in 0..60 {
            Timer::after(Duration::from_millis(50)).await;
            bytes += body.frame().await.unwrap().unwrap().into_data().unwrap().len();
        }
        let Ok(rest) = body.collect().await else { panic!("it was cut off") };
        assert!(bytes + rest.to_bytes().len() > ANSWER_BYTES);
    });
}

#[test]
fn deletions_transactions_and_streams_count_too() {
    run(async {
        let server = server(Duration::from_secs(3600)).await;
        let answers = server.api.answers();
        let (_channel, _stream) = ask_and_wait(&server, "RangeStream", everything()).await;
        until("a chunk lies there", || answers.bytes().0 > VALUE_BYTES).await;
        let range = pb::request_op::Request::RequestRange(everything());
        let put = pb::PutRequest { key: "other".into(), ..Default::default() };
        let put = pb::request_op::Request::RequestPut(put);
        let ops = [range, put].map(|request| pb::RequestOp { request: Some(request) });
        let txn = pb::TxnRequest { success: ops.into(), ..Default::default() };
        let (_channel, _txn) = ask_and_wait(&server, "Txn", txn).await;
        until("that counts, too", || answers.bytes().0 > ANSWER_BYTES + VALUE_BYTES).await;
        let delete = pb::DeleteRangeRequest { key: "k".into(), range_end: "l".into(), prev_kv: true };
        let (_channel, _delete) = ask_and_wait(&server, "DeleteRange", delete).await;
        until("and that", || answers.bytes().0 > 2 * ANSWER_BYTES + VALUE_BYTES).await;
    });
}

#[test]
fn the_keys_of_a_lease_wait_for_room_too() {
    const LEASED: usize = 1500;
    const KEY_BYTES: usize = 4096;
    run(async {
        let server = server(Duration::from_secs(3600)).await;
        let channel = server.channel().await;
        let mut lease = LeaseClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
        lease.lease_grant(pb::LeaseGrantRequest { id: 7, ttl: 3600 }).await.unwrap();
        let puts = (0..LEASED).map(|n| {
            let mut kv = KvClient::new(channel.clone());
            let key = format!("{n:0KEY_BYTES$}").into();
            smol::spawn(async move {
                kv.put(pb::PutRequest { key, lease: 7, ..Default::default() }).await.unwrap();
            })
        });
        for put in puts.collect::<Vec<_>>() {
            put.await;
        }
        let held = [
            ask_and_wait(&server, "Range", everything()).await,
            ask_and_wait(&server, "Range", everything()).await,
        ];
        let asked = smol::spawn(async move {
            lease.lease_time_to_live(pb::LeaseTimeToLiveRequest { id: 7, keys: true }).await
        });
        Timer::after(Duration::from_millis(300)).await;
        assert!(!asked.is_finished(), "it waits");
        drop(held);
        let answer = asked.await.unwrap().into_inner();
        assert_eq!((answer.keys.len(), answer.keys[1].len()), (LEASED, KEY_BYTES));
        assert!(server.api.answers().bytes().1 <= BUDGET, "{:?}", server.api.answers().bytes());
    });
}

#[test]
fn over_http1_too_a_client_that_reads_nothing_is_disconnected() {
    run(async {
        let options = ApiOptions { answer_patience: Duration::from_millis(300), ..ApiOptions::default() };
        let server = Server::with(Setup { options, ..Setup::default() }).await;
        let mut client = server.connect().await;
        // Pipelined, so that the answers fill every buffer between the two.
        let ask = b"GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(1000);
        let flood = async { while client.write_all(&ask).await.is_ok() {} };
        flood.await;
        let mut answers = Vec::new();
        drop(client.read_to_end(&mut answers).await);
        drop(client);
        server.idle().await;
        assert_eq!(server.api.answers().bytes().0, 0);
    });
}
