//! The other end of the wire, by hand: QUIC without the transport, to say what the transport never would.
//!
//! Owns: the bytes of the protocol, written out a second time. Must never: use the transport's own encoding.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use covey::formation::{Identity, NodeKey};
use covey::ids::{Incarnation, MemberId, Run};
use covey::peer::{Event, PROTOCOL, RefusalKind};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, RecvStream, SendStream, SmolRuntime,
};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use smol::block_on;

use crate::anybody::Anybody;
use crate::harness::{Node, append, identity, new_key, peer, public};

fn client(key: &NodeKey, protocol: &str) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = PrivatePkcs8KeyDer::from(key.pkcs8().to_vec());
    let signer = rustls::crypto::ring::sign::any_eddsa_type(&private).unwrap();
    let spki = signer.public_key().unwrap().as_ref().to_vec();
    let shown = Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signer));
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(shown)));
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()))
}

fn endpoint() -> Endpoint {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(SmolRuntime)).unwrap()
}

async fn connect(address: SocketAddr, key: &NodeKey, protocol: &str) -> Result<Connection, ConnectionError> {
    endpoint().connect_with(client(key, protocol), address, "anything").unwrap().await
}

/// The hello of version 1, written out.
fn hello(version: u16, from: &Identity, to: u64, seen: Option<Run>) -> Vec<u8> {
    let mut bytes = b"cvph".to_vec();
    bytes.extend(version.to_le_bytes());
    let run = [from.incarnation.0, from.boot_nonce];
    let seen = seen.map_or([0, 0], |run| [run.incarnation.0, run.boot_nonce]);
    let numbers = [[from.cluster().0, from.generation.0], [from.member.0, to], run, seen];
    bytes.extend(numbers.as_flattened().iter().flat_map(|number| number.to_le_bytes()));
    bytes
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_le_bytes(), body].concat()
}

/// A node that trusts member 1, and member 1, which is us.
fn node() -> (Node, Identity) {
    let (node, us) = (Node::start(identity(2)), identity(1));
    node.trust(&[peer(&us, &[])]);
    (node, us)
}

/// A connection up to the end of the hellos.
async fn welcome(node: &Node, us: &Identity) -> (Connection, SendStream, RecvStream) {
    let connection = connect(node.address, &us.key, "covey-peer/1").await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&framed(&hello(PROTOCOL, us, 2, None))).await.unwrap();
    let mut theirs = vec![0; 4 + 70];
    recv.read_exact(&mut theirs).await.unwrap();
    let expected = [None, Some(us.run())].map(|seen| framed(&hello(1, &node.identity, 1, seen)));
    assert!(expected.contains(&theirs), "the hello as it is written down, at first and later: {theirs:?}");
    send.write_all(&framed(&[1])).await.unwrap();
    node.wait_connected(1);
    (connection, send, recv)
}

/// How the node ends the connection: code and sentence.
async fn closed(connection: &Connection) -> (u64, String) {
    match connection.closed().await {
        ConnectionError::ApplicationClosed(close) => {
            (close.error_code.into_inner(), String::from_utf8(close.reason.to_vec()).unwrap())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_version_is_refused_by_name() {
    let (node, us) = node();
    block_on(async {
        let connection = connect(node.address, &us.key, "covey-peer/1").await.unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        // Longer than ours, as a later version may be.
        let later = [hello(9, &us, 2, None), vec![1; 100]].concat();
        send.write_all(&framed(&later)).await.unwrap();
        let (_, sentence) = closed(&connection).await;
        assert_eq!(sentence, "member 2 refuses member 1: it speaks version 9 of the peer protocol, not 1");
    });
    let kind = node.log.wait("the refusal", |event| match event {
        Event::Refused { why, .. } => Some(why.kind),
        _ => None,
    });
    assert_eq!(kind, RefusalKind::Version);
}

/// Keys are looked up at the beginning and at the end of the hellos, and the members may change in between: one that is new may come too early, one
/// that is removed too late. Only the latter is told so, for whoever hears it stops for good.
#[test]
fn who_is_no_member_at_the_end_of_its_hello_hears_of_a_removal_only_if_there_was_one() {
    for (removed, kind) in [(None, RefusalKind::Key), (Some(MemberId(1)), RefusalKind::Removed)] {
        let (node, us) = node();
        block_on(async {
            let connection = connect(node.address, &us.key, "covey-peer/1").await.unwrap();
            let (mut send, mut recv) = connection.open_bi().await.unwrap();
            send.write_all(&framed(&hello(PROTOCOL, &us, 2, None))).await.unwrap();
            recv.read_exact(&mut [0; 4 + 70]).await.unwrap();
            node.transport.set_removed(removed.map(|id| (public(&us.key), id)).into_iter().collect());
            node.trust(&[]);
            send.write_all(&framed(&[1])).await.unwrap();
            let (code, sentence) = closed(&connection).await;
            assert_eq!(RefusalKind::from_code(code), Some(kind), "{sentence}");
        });
        assert_eq!(node.transport.stats().connected, 0);
    }
}

/// A box that was removed, because it was stolen perhaps, could stop every member for good.
#[test]
fn what_a_removed_member_says_counts_for_nothing() {
    let (node, us) = node();
    node.trust(&[]);
    node.transport.set_removed([(public(&us.key), MemberId(1))].into());
    let invented = Run { incarnation: Incarnation(99), boot_nonce: 99 };
    block_on(async {
        let connection = connect(node.address, &us.key, "covey-peer/1").await.unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&framed(&hello(PROTOCOL, &us, 2, Some(invented)))).await.unwrap();
        closed(&connection).await;
    });
    let counts = |event: &Event| match event {
        Event::Refused { member, why, .. } => member.is_some() || why.kind == RefusalKind::Fenced,
        _ => false,
    };
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(node.log.count(|event| counts(event)), 0);
}

#[test]
fn hellos_that_are_none_are_refused() {
    let (node, us) = node();
    let whole = framed(&hello(1, &us, 2, None));
    let cases: [(&[u8], &str); 4] = [
        (b"GET / HTTP/1.1\r\n\r\n", "are allowed"),
        (&whole[..30], "a hello that ends before its end"),
        (&whole[..2], "a hello that ends before its end"),
        (&framed(b"hello"), "its hello is unreadable"),
    ];
    for (bytes, expected) in cases {
        block_on(async {
            let connection = connect(node.address, &us.key, "covey-peer/1").await.unwrap();
            let (mut send, _recv) = connection.open_bi().await.unwrap();
            send.write_all(bytes).await.unwrap();
            send.finish().unwrap();
            let (_, sentence) = closed(&connection).await;
            assert!(sentence.contains(expected), "{sentence}");
        });
    }
    assert_eq!(node.transport.stats().connected, 0);
}

/// It has the key, and then says nothing.
#[test]
fn who_does_not_say_hello_is_dropped() {
    let (node, us) = node();
    let began = Instant::now();
    block_on(async {
        let connection = connect(node.address, &us.key, "covey-peer/1").await.unwrap();
        connection.closed().await;
    });
    assert!((2..8).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[test]
fn another_protocol_is_not_served() {
    let (node, us) = node();
    block_on(async {
        let refused = connect(node.address, &us.key, "covey-peer/2").await;
        assert!(matches!(refused, Err(ConnectionError::ConnectionClosed(_))), "{refused:?}");
    });
    let kind = node.log.wait("the refusal", |event| match event {
        Event::Refused { why, .. } => Some(why.kind),
        _ => None,
    });
    assert_eq!(kind, RefusalKind::Version);
}

fn raft_item(message: &covey::consensus::Message) -> Vec<u8> {
    [&[1], &message.encode()[..]].concat()
}

/// After the hellos: whatever comes that is no frame ends the connection with a reason, and nothing else.
#[test]
fn malformed_frames_end_the_connection() {
    let (node, us) = node();
    let body = framed(&raft_item(&append(1, 2, 1, 10)));
    let half = body[..body.len() - 1].to_vec();
    let control: [(Vec<u8>, &str); 5] = [
        (u32::MAX.to_le_bytes().to_vec(), "a frame of 4294967295 bytes"),
        (framed(&half), "a frame whose items do not fill it"),
        (framed(&framed(&[1, 0xff, 0xff])), "not a raft message"),
        (framed(&framed(&[9; 9])), "an item of unknown kind 9"),
        (framed(&body)[..20].to_vec(), "a stream that ends in the middle of a frame"),
    ];
    for (bytes, expected) in control {
        block_on(async {
            let (connection, mut send, _recv) = welcome(&node, &us).await;
            send.write_all(&bytes).await.unwrap();
            send.finish().unwrap();
            let (_, sentence) = closed(&connection).await;
            assert!(sentence.contains(expected), "{sentence}");
        });
    }
    let streams: [(&[&[u8]], &str); 6] = [
        (&[&[9, 1]], "a stream of unknown kind 9"),
        (&[&[1, 7]], "a stream of version 7"),
        (&[&[1]], "a stream that ends in the middle"),
        (&[&[1, 1], &[1, 1]], "a second append stream"),
        // A parcel is one frame.
        (&[&[2, 1, 1, 0, 0, 0, 7, 0, 0, 0, 0]], "a frame whose items do not fill it"),
        (&[&[2, 1, 0xff, 0xff, 0xff, 0xff]], "a frame of 4294967295 bytes"),
    ];
    for (preambles, expected) in streams {
        block_on(async {
            let (connection, _send, _recv) = welcome(&node, &us).await;
            let mut open = Vec::new();
            for preamble in preambles {
                let mut stream = connection.open_uni().await.unwrap();
                stream.write_all(preamble).await.unwrap();
                if preamble.len() < 2 {
                    stream.finish().unwrap();
                }
                open.push(stream);
            }
            let (_, sentence) = closed(&connection).await;
            assert!(sentence.contains(expected), "{sentence}");
        });
    }
}

/// As the format is written down, byte by byte: another implementation would be understood.
#[test]
fn messages_written_by_hand_are_understood() {
    let (node, us) = node();
    block_on(async {
        let (connection, mut send, _recv) = welcome(&node, &us).await;
        let (one, two) = (append(1, 2, 1, 10), append(1, 2, 2, 10));
        let body = [framed(&raft_item(&one)), framed(&raft_item(&two))].concat();
        send.write_all(&framed(&body)).await.unwrap();
        node.wait_message(&two);
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&[1, 1]).await.unwrap();
        for byte in framed(&framed(&raft_item(&append(1, 2, 3, 40)))) {
            stream.write_all(&[byte]).await.unwrap();
        }
        node.wait_message(&append(1, 2, 3, 40));
    });
}

/// Hundreds of strangers from one address cost a handful of handshakes, and a member next to them still gets in.
#[test]
fn a_flood_of_strangers_costs_bounded_work() {
    let (node, _) = node();
    let member = Node::start(identity(3));
    node.trust(&[member.peer()]);
    let key = new_key();
    let began = Instant::now();
    let endpoint = endpoint();
    let attempts = 400;
    block_on(async {
        let mut dialled = Vec::new();
        for _ in 0..attempts {
            let connecting = endpoint.connect_with(client(&key, "covey-peer/1"), node.address, "x").unwrap();
            dialled.push(smol::spawn(connecting));
            smol::Timer::after(Duration::from_millis(1)).await;
        }
        smol::Timer::after(Duration::from_millis(500)).await;
    });
    let stats = node.transport.stats();
    // A burst of 16, and two a second.
    let allowed = 16 + 2 * (began.elapsed().as_secs() + 1);
    assert!(stats.handshakes <= allowed, "{stats:?}, {allowed} allowed");
    assert!(stats.handshakes >= 10 && stats.turned_away > 100, "{stats:?}: the flood was none");
    let told = node.log.count(|event| matches!(event, Event::Refused { .. }));
    assert!(told <= 2, "{told} events");
    // The flood has used up what this address may begin; the node itself may dial.
    member.trust(&[node.peer()]);
    node.wait_connected(3);
}
