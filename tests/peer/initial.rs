//! The first packet of a connection, by hand: anybody can write one, whose keys everybody knows.
//!
//! Owns: its bytes (RFC 9000, section 17.2.2; RFC 9001, section 5). Must never: show a key.

use std::net::UdpSocket;
use std::time::Duration;

use covey::peer::{Event, RefusalKind};
use rustls::Side;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{Keys, Version};

use crate::harness::{Node, identity, peer};

const DATAGRAM_BYTES: usize = 1200;
const TAG_BYTES: usize = 16;
const NUMBER_BYTES: usize = 4;

/// A packet that closes a connection which never was, with this code of the application's.
fn closing(code: u32) -> Vec<u8> {
    let connection = u64::from(code).to_be_bytes();
    let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    let keys = Keys::initial(Version::V1, suite, suite.quic.unwrap(), &connection, Side::Client).local;
    // A long header: first packets, with a number of four bytes.
    let mut packet = vec![0xc3, 0, 0, 0, 1, 8];
    packet.extend(connection);
    // No connection id of its own, no token; then the length of the rest.
    packet.extend([0, 0]);
    let rest = DATAGRAM_BYTES - packet.len() - 2;
    packet.extend((0x4000 | u16::try_from(rest).unwrap()).to_be_bytes());
    let number_at = packet.len();
    packet.extend([0; NUMBER_BYTES]);
    let header = packet.clone();
    // The frame, without a reason, and padding.
    let mut payload = vec![0x1d];
    payload.extend((0x4000 | u16::try_from(code).unwrap()).to_be_bytes());
    payload.resize(rest - NUMBER_BYTES - TAG_BYTES, 0);
    let tag = keys.packet.encrypt_in_place(0, &header, &mut payload).unwrap();
    packet.extend(payload);
    packet.extend(tag.as_ref());
    let (head, body) = packet.split_at_mut(number_at + NUMBER_BYTES);
    let (first, rest) = head.split_at_mut(1);
    let sample = &body[..keys.header.sample_len()];
    keys.header.encrypt_in_place(sample, &mut first[0], &mut rest[number_at - 1..]).unwrap();
    packet
}

/// A member that is told that it was removed stops, and one that is told of a later run never starts again: from a member, and from nobody else.
#[test]
fn nobody_is_refused_by_a_packet_that_anybody_can_write() {
    for kind in [RefusalKind::Removed, RefusalKind::OldRun] {
        let node = Node::start(identity(2));
        node.trust(&[peer(&identity(1), &[])]);
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(&closing(kind.code()), node.address).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(node.transport.stats().handshakes, 1, "it was looked at");
        assert_eq!(node.log.count(|event| matches!(event, Event::Refused { .. })), 0);
    }
}
