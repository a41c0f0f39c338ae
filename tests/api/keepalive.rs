//! Signs of life in both directions, and the streams of one connection, as raw frames.

use std::net::TcpStream;
use std::time::Duration;

use covey::api::{ApiOptions, Serves};
use covey::wire::etcdserverpb as pb;
use covey::wire::etcdserverpb::kv_client::KvClient;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::{Async, Timer};

use crate::harness::{Server, Setup, run, until};

/// The preface and empty settings.
pub const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0payload.";

const SETTINGS: u8 = 4;
const PING_KIND: u8 = 6;
const GOAWAY: u8 = 7;

async fn server(options: ApiOptions) -> Server {
    Server::with(Setup { options, ..Setup::default() }).await
}

/// All frames until the server closes: kind, flags and payload.
async fn frames(client: &mut Async<TcpStream>) -> Vec<(u8, u8, Vec<u8>)> {
    let mut bytes = Vec::new();
    // That it resets the connection in the end is as good as closing it.
    drop(client.read_to_end(&mut bytes).await);
    let mut frames = Vec::new();
    let mut rest = bytes.as_slice();
    while let Some((head, after)) = rest.split_first_chunk::<9>() {
        let length = usize::from(head[1]) * 256 + usize::from(head[2]);
        let (payload, after) = after.split_at_checked(length).expect("frames are whole");
        frames.push((head[3], head[4], payload.to_vec()));
        rest = after;
    }
    frames
}

#[test]
fn a_client_that_pings_too_often_is_told_to_calm_down() {
    run(async {
        let server = server(ApiOptions::default()).await;
        let mut client = server.connect().await;
        client.write_all(HELLO).await.unwrap();
        for _ in 0..4 {
            client.write_all(PING).await.unwrap();
            Timer::after(Duration::from_millis(20)).await;
        }
        let frames = frames(&mut client).await;
        let answers = frames.iter().filter(|(kind, flags, _)| (*kind, *flags) == (PING_KIND, 1)).count();
        assert_eq!(answers, 3, "{frames:?}");
        let (kind, _, payload) = frames.last().unwrap();
        assert_eq!((*kind, &payload[4..8]), (GOAWAY, &[0, 0, 0, 11][..]), "ENHANCE_YOUR_CALM");
        assert_eq!(&payload[8..], b"too_many_pings");
        server.idle().await;
    });
}

#[test]
fn pings_in_good_time_are_answered() {
    run(async {
        let min = Duration::from_millis(50);
        let server = server(ApiOptions { keepalive_min_time: min, ..ApiOptions::default() }).await;
        let mut client = server.connect().await;
        client.write_all(HELLO).await.unwrap();
        for _ in 0..6 {
            Timer::after(min * 2).await;
            client.write_all(PING).await.unwrap();
        }
        client.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
        let frames = frames(&mut client).await;
        assert_eq!(frames.iter().filter(|(kind, flags, _)| (*kind, *flags) == (PING_KIND, 1)).count(), 6);
    });
}

#[test]
fn a_silent_client_is_pinged_and_goes_unless_it_answers() {
    run(async {
        let options = ApiOptions {
            keepalive_interval: Some(Duration::from_millis(100)),
            keepalive_timeout: Duration::from_millis(200),
            ..ApiOptions::default()
        };
        let server = server(options).await;
        let mut dead = server.connect().await;
        dead.write_all(HELLO).await.unwrap();
        let alive = server.channel().await;
        let counters = server.api.counters();
        until("both are there", || counters.connections() == 2).await;
        let frames = frames(&mut dead).await;
        assert!(frames.iter().any(|(kind, flags, _)| (*kind, *flags) == (PING_KIND, 0)), "{frames:?}");
        // hyper's client answers pings by itself.
        Timer::after(Duration::from_secs(1)).await;
        assert_eq!(counters.connections(), 1);
        let one = pb::RangeRequest { key: "k".into(), ..Default::default() };
        KvClient::new(alive).range(one).await.unwrap();
        assert_eq!(counters.accepted(), 2);
    });
}

/// What the server says of itself to a client that has only greeted it.
async fn settings(server: &Server) -> Vec<u8> {
    let mut client = server.connect().await;
    client.write_all(HELLO).await.unwrap();
    client.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    let said = frames(&mut client).await;
    said.into_iter().find(|(kind, flags, _)| (*kind, *flags) == (SETTINGS, 0)).unwrap().2
}

#[test]
fn a_client_is_told_how_many_streams_it_may_have() {
    run(async {
        let server = server(ApiOptions { streams_max: 77, ..ApiOptions::default() }).await;
        let settings = settings(&server).await;
        assert!(settings.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 77]), "{settings:?}");
    });
}

/// Whoever comes to a port for probes could take most of what makes clients' windows large.
#[test]
fn a_probe_gets_the_smallest_window_whatever_is_left_for_clients() {
    const INITIAL_WINDOW: u8 = 4;
    run(async {
        for (serves, window) in [(Serves::Clients, 1 << 20), (Serves::Probes, 65_535 / 4)] {
            let server = Server::with(Setup { serves, ..Setup::default() }).await;
            let settings = settings(&server).await;
            let setting = settings.chunks(6).find(|setting| setting[1] == INITIAL_WINDOW).unwrap();
            assert_eq!(setting[2..], u32::to_be_bytes(window), "{serves:?}");
        }
    });
}
