//! What is too large, too many or too slow.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use covey::api::{ApiOptions, Plaintext, Serves, Waiting};
use covey::runtime::clock::Clock;
use covey::time::Instant;
use covey::wire::etcdserverpb as pb;
use covey::wire::etcdserverpb::kv_client::KvClient;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::{Async, Task, Timer};
use tonic::Code;

use crate::harness::{Channel, Server, Setup, empty, is, run, until};
use crate::keepalive::HELLO;
use crate::watcher::{Watcher, create};

#[test]
fn a_message_above_the_limit_is_refused_in_gos_words() {
    run(async {
        let server = Server::start().await;
        let mut kv = KvClient::new(server.channel().await);
        let put = |bytes: usize| pb::PutRequest {
            key: "k".into(),
            value: vec![b'v'; bytes].into(),
            ..Default::default()
        };
        kv.put(put(1_500_000)).await.expect("below both limits");
        let refusal = kv.put(put(1_572_864)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument);
        assert_eq!(refusal.message(), "etcdserver: request is too large");
        let refusal = kv.put(put(2_097_152)).await.unwrap_err();
        assert_eq!(refusal.code(), Code::ResourceExhausted);
        // Key and value with their tags and lengths: 3 + 1 + 4 bytes more.
        assert_eq!(refusal.message(), "grpc: received message larger than max (2097160 vs. 2097152)");
    });
}

#[test]
fn one_connection_too_many_is_closed_and_counted() {
    run(async {
        let options = ApiOptions { connections_max: 2, ..Default::default() };
        let server = Server::with(Setup { options, ..Default::default() }).await;
        let first = server.connect().await;
        let _second = server.connect().await;
        let counters = server.api.counters();
        until("two are open", || counters.connections() == 2).await;
        let mut third = server.connect().await;
        let mut nothing = Vec::new();
        assert_eq!(third.read_to_end(&mut nothing).await.unwrap_or(0), 0);
        assert_eq!((counters.connections(), counters.refused(), counters.accepted()), (2, 1, 2));
        drop(first);
        until("one has left", || counters.connections() == 1).await;
        let mut fourth = server.connect().await;
        fourth
            .write_all(b"GET /version HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        fourth.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    });
}

/// A client may begin any number of calls, and never say what it wants. It is told so, and others go on.
#[test]
fn one_call_too_many_is_refused_to_whoever_has_many() {
    const MANY: usize = 20;
    run(async {
        let options = ApiOptions { calls_max: MANY, ..Default::default() };
        let server = Server::with(Setup { options, ..Default::default() }).await;
        let channel = server.channel().await;
        let mut waiting = Vec::new();
        for _ in 0..MANY {
            waiting.push(Watcher::over(channel.clone()).await);
        }
        let counters = server.api.counters();
        until("all wait", || counters.calls() == MANY).await;
        let range = || pb::RangeRequest { key: "k".into(), ..Default::default() };
        let mut kv = KvClient::new(channel);
        is(&kv.range(range()).await.unwrap_err(), Code::Unknown, "etcdserver: too many requests");
        KvClient::new(server.channel().await).range(range()).await.unwrap();
        waiting[0].create(create("k", "")).await;
        drop(waiting.pop());
        until("one has left", || counters.calls() < MANY).await;
        kv.range(range()).await.unwrap();
    });
}

#[test]
fn a_client_that_says_nothing_is_disconnected() {
    run(async {
        let server = Server::start().await;
        let mut silent = server.connect().await;
        let mut slow = server.connect().await;
        slow.write_all(b"GET /version HTTP/1.1\r\nhost: ").await.unwrap();
        let mut nothing = Vec::new();
        let clock = Clock::start();
        assert_eq!(silent.read_to_end(&mut nothing).await.unwrap_or(0), 0);
        let waited = clock.now().since(Instant::default());
        assert!(waited >= Duration::from_secs(9) && waited < Duration::from_secs(15), "{waited:?}");
        drop(slow.read_to_end(&mut nothing).await);
        server.idle().await;
    });
}

/// Connects, says `opening`, then a byte of `drops` each second, and answers how long it was let.
pub async fn drip(address: SocketAddr, opening: Vec<u8>, drops: Vec<u8>) -> Duration {
    let client = Async::<TcpStream>::connect(address).await.unwrap();
    let clock = Clock::start();
    (&client).write_all(&opening).await.unwrap();
    let speak = async {
        for byte in drops {
            Timer::after(Duration::from_secs(1)).await;
            // The other half finds out that it has ended.
            drop((&client).write_all(&[byte]).await);
        }
        std::future::pending::<()>().await;
    };
    let listen = async {
        drop((&client).read_to_end(&mut Vec::new()).await);
    };
    smol::future::or(listen, speak).await;
    clock.now().since(Instant::default())
}

/// Starts the port for probes of a node without a cluster.
fn wait_for_a_cluster() -> (SocketAddr, Task<()>) {
    let socket = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
    let address = socket.get_ref().local_addr().unwrap();
    let serving = smol::spawn(async move {
        let spawn = |task| smol::spawn(task).detach();
        Waiting::default().serve(&socket, Serves::Probes, Plaintext::Anyone, spawn).await;
    });
    (address, serving)
}

/// There are few places for probes, and who gives no sign of life held one until hyper asked for one, after hours, although it was told to end; before there is a cluster for ever.
#[test]
fn a_silent_probe_over_http2_leaves_its_place_to_others() {
    run(async {
        let options = ApiOptions { probe_age_max: Duration::from_secs(1), ..ApiOptions::default() };
        let server = Server::with(Setup { options, serves: Serves::Probes, ..Setup::default() }).await;
        let (waiting, _serving) = wait_for_a_cluster();
        let early = smol::spawn(drip(waiting, HELLO.to_vec(), Vec::new()));
        let silent = smol::spawn(drip(server.address, HELLO.to_vec(), Vec::new()));
        // hyper's client does as it is told.
        let others = [
            server.channel().await,
            Channel::over(Async::<TcpStream>::connect(waiting).await.unwrap()).await.unwrap(),
        ];
        Timer::after(Duration::from_secs(9)).await;
        for polite in others {
            let probe = http::Request::get("http://localhost/livez").body(empty()).unwrap();
            assert!(polite.send(probe).await.is_err(), "it was told to end, and did");
        }
        for end in [silent, early] {
            let waited = end.await;
            let range = Duration::from_secs(10)..Duration::from_secs(20);
            assert!(range.contains(&waited), "{waited:?}");
        }
    });
}

/// hyper asks a silent HTTP/2 client for signs of life after hours, and one within its head is neither silent nor able to give any. So each could hold a connection for as long as it liked.
#[test]
fn a_head_over_http2_that_does_not_come_to_its_end_ends_its_connection() {
    /// A head's first frame with `:method: GET` alone.
    const BEGUN: &[u8] = b"\0\0\x01\x01\0\0\0\0\x01\x82";
    /// Another one, of `accept-encoding`, after which there may be more.
    const GOES_ON: &[u8] = b"\0\0\x01\x09\0\0\0\0\x01\x90";
    /// A whole head, `GET /` by http, and nothing after it.
    const WHOLE: &[u8] = b"\0\0\x03\x01\x05\0\0\0\x01\x82\x84\x86";
    run(async {
        let server = Server::start().await;
        let (waiting, _serving) = wait_for_a_cluster();
        let announced = [HELLO, b"\0\0\x64\x01\x05\0\0\0\x01\x82"].concat();
        let ends: Vec<_> = [
            (server.address, HELLO[..3].to_vec(), Vec::new()),
            (server.address, HELLO[..3].to_vec(), HELLO[3..].to_vec()),
            (server.address, announced, vec![0x90; 40]),
            (server.address, [HELLO, BEGUN].concat(), GOES_ON.repeat(4)),
            (waiting, HELLO[..3].to_vec(), Vec::new()),
        ]
        .into_iter()
        .map(|(address, opening, drops)| smol::spawn(drip(address, opening, drops)))
        .collect();
        // Who is silent between heads stays, and so does who is slow, but gets there.
        let idle = server.channel().await;
        let _slow = smol::spawn(drip(server.address, [HELLO, &WHOLE[..9]].concat(), WHOLE[9..].to_vec()));
        for (number, end) in ends.into_iter().enumerate() {
            let waited = end.await;
            let range = Duration::from_secs(9)..Duration::from_secs(15);
            assert!(range.contains(&waited), "{number}: {waited:?}");
        }
        until("the others stay", || server.api.counters().connections() == 2).await;
        KvClient::new(idle).range(pb::RangeRequest { key: "k".into(), ..Default::default() }).await.unwrap();
    });
}
