//! A LAN that is full of answers nobody has asked for, and of questions; and one on which somebody says what makes no sense.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use covey::prng::Prng;
use socket2::{Domain, Protocol, Socket, Type};

use crate::lan::{FLOODS, Lan, now, wait};

/// Bytes of a packet on Ethernet, without its headers.
const PACKET_BYTES: usize = 1472;
/// What a flood consists of.
const ANSWERS: &str = "answers";
const QUESTIONS: &str = "questions";
const NONSENSE: &str = "nonsense";
/// Where mDNS is spoken.
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const PORT: u16 = 5353;
const HEAD_BYTES: usize = 12;
/// Where the nonsense comes from.
const SEED: u64 = 5;
/// Packets of nonsense, and how many at a time: no more than are read, for of what is a flood nothing is read.
const NONSENSES: u32 = 6000;
const NONSENSES_AT_ONCE: u32 = 10;
const PAUSE: Duration = Duration::from_millis(10);
/// How long is listened for what others say that is sensible.
const LISTENS: Duration = Duration::from_secs(2);
/// A member's records that are heard at least: nonsense is made of them.
const HEARD_MIN: usize = 3;
/// So many processes flood: more than one can read as fast as they send.
const FLOODS_AT_ONCE: usize = 3;
const LASTS: Duration = Duration::from_secs(30);
/// What a node may take meanwhile: what comes before it is noticed, and what is in memory anyway.
const GROWTH_MAX: u64 = 48 << 20;

/// What a process in a namespace does that is told to flood.
#[test]
#[ignore = "is started by the other tests, in namespaces"]
fn a_flood() {
    let Ok(what) = std::env::var(FLOODS) else { return };
    if what == NONSENSE {
        return talk_nonsense();
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let mut number = 0;
    loop {
        let packet = if what == ANSWERS { answers(&mut number) } else { questions() };
        // What is lost for want of room is made up for by the next.
        let _ = socket.send_to(&packet, (GROUP, PORT));
    }
}

/// A name as it stands in a packet.
fn name(labels: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in labels {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn record(owner: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = owner.to_vec();
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&1_u16.to_be_bytes());
    bytes.extend_from_slice(&4500_u32.to_be_bytes());
    bytes.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

/// The service of nodes, asked for as often as a packet can.
fn questions() -> Vec<u8> {
    let mut question = name(&["_covey", "_udp", "local"]);
    question.extend([0, 12, 0, 1]);
    let count = (PACKET_BYTES - 12) / question.len();
    let mut packet = vec![0; 12];
    packet.extend(question.repeat(count));
    packet[4..6].copy_from_slice(&u16::try_from(count).unwrap().to_be_bytes());
    packet
}

/// A valid answer that is full of records which were in none before.
fn answers(number: &mut u32) -> Vec<u8> {
    let (mut packet, mut count) = (vec![0; 12], 0_u16);
    while packet.len() < PACKET_BYTES - 64 {
        *number += 1;
        count += 1;
        packet.extend(record(&name(&[&format!("{number:x}"), "local"]), 1, &number.to_be_bytes()));
    }
    packet[2] = 0x84;
    packet[6..8].copy_from_slice(&count.to_be_bytes());
    packet
}

/// A socket of the group, as everybody has it who speaks mDNS.
fn member_of_the_group() -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&std::net::SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)).into()).unwrap();
    let socket = UdpSocket::from(socket);
    socket.join_multicast_v4(&GROUP, &Ipv4Addr::UNSPECIFIED).unwrap();
    socket
}

/// What nodes answer, as it came.
fn heard(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut question = vec![0; HEAD_BYTES];
    question[5] = 1;
    question.extend(name(&["_covey", "_udp", "local"]));
    question.extend([0, 12, 0, 1]);
    socket.send_to(&question, (GROUP, PORT)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let (mut heard, mut packet, began) = (Vec::new(), [0; 9000], now());
    while began.elapsed() < LISTENS {
        let Ok((length, _)) = socket.recv_from(&mut packet) else { continue };
        // An answer, which tells of more than its name.
        if packet[2] & 0x80 != 0 && length > 100 {
            heard.push(packet[..length].to_vec());
        }
    }
    heard
}

/// Says so much that makes no sense, and ends.
fn talk_nonsense() {
    let socket = member_of_the_group();
    let answers = heard(&socket);
    let records: usize = answers.iter().map(|answer| usize::from(answer[7]) + usize::from(answer[11])).sum();
    assert!(records >= HEARD_MIN, "{answers:?}");
    let mut prng = Prng::new(SEED);
    for n in 0..NONSENSES {
        let packet = nonsense(&mut prng, &answers);
        // What has no room is made up for by the next.
        let _ = socket.send_to(&packet, (GROUP, PORT));
        if n % NONSENSES_AT_ONCE == 0 {
            wait(PAUSE);
        }
    }
}

/// Random bytes, some behind a head that makes sense; or what somebody has said, with a few things in it that are wrong.
fn nonsense(prng: &mut Prng, answers: &[Vec<u8>]) -> Vec<u8> {
    let below = |prng: &mut Prng, end: usize| usize::try_from(prng.range(0, end as u64)).unwrap();
    if prng.one_in(3) {
        let length = below(prng, PACKET_BYTES);
        let mut packet: Vec<u8> = (0..length).map(|_| prng.next_u64().to_le_bytes()[0]).collect();
        if length > HEAD_BYTES && prng.one_in(2) {
            packet[..HEAD_BYTES].fill(0);
            packet[2] = if prng.one_in(2) { 0x84 } else { 0 };
            for count in [5, 7, 9, 11] {
                packet[count] = below(prng, 4).to_le_bytes()[0];
            }
        }
        return packet;
    }
    let mut packet = answers[below(prng, answers.len())].clone();
    for _ in 0..=below(prng, 4) {
        let at = below(prng, packet.len() - 1);
        let last = u8::try_from(below(prng, 256)).unwrap();
        match below(prng, 6) {
            // It ends too soon.
            0 => packet.truncate(at.max(2)),
            // A name goes on elsewhere: before, behind, or where it is.
            1 => {
                let to = if prng.one_in(3) { at } else { below(prng, packet.len()) };
                packet[at..at + 2].copy_from_slice(&(0xc000 | u16::try_from(to).unwrap()).to_be_bytes());
            }
            // A length, or a kind, is another one.
            2 => packet[at] = last,
            3 => packet[at..at + 2].copy_from_slice(&[0xff, last]),
            // There are more records than that, or fewer.
            4 => packet[[5, 7, 9, 11][below(prng, 4)].min(at)] = last,
            // Something stands in it twice.
            _ => {
                let part = packet[at..].to_vec();
                let to = below(prng, packet.len());
                packet.splice(to..to, part);
                packet.truncate(PACKET_BYTES);
            }
        }
    }
    packet
}

/// What a node takes while more is said than it can hear, and that it hears again afterwards.
fn is_borne(what: &str) {
    let lan = Lan::wired(3);
    // To where the group's packets go.
    lan.ip(2, "route add default dev eth0");
    let mut node = lan.start(0, 0, "");
    node.announce(2380, "n0", 0, 0);
    let mut other = lan.start(1, 1, "");
    other.announce(2380, "n1", 0, 0);
    node.until_sees(&["n1@0"]);
    let before = node.memory();
    let floods: Vec<_> = (0..FLOODS_AT_ONCE).map(|_| lan.flood(2, "flood::a_flood", what)).collect();
    let (began, mut most) = (now(), 0);
    while began.elapsed() < LASTS {
        wait(Duration::from_millis(200));
        most = most.max(node.memory());
    }
    println!("{what}: {} KiB more than {}", (most - before) >> 10, before >> 10);
    assert!(most < before + GROWTH_MAX, "{before} bytes before the flood, {most} in it");
    drop(floods);
    other.announce(2390, "n2", 0, 0);
    node.until_sees(&["n2@0"]);
    other.until_sees(&["n0@0"]);
    assert!(node.memory() < before + GROWTH_MAX, "{before} bytes before the flood, {} after", node.memory());
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_flood_of_answers_takes_little_memory_and_blinds_nobody_for_longer() {
    is_borne(ANSWERS);
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_flood_of_questions_takes_little_memory_and_blinds_nobody_for_longer() {
    is_borne(QUESTIONS);
}

/// A node that finds no sense in it goes on, and sees those who make some.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn nonsense_ends_no_node_and_blinds_none() {
    let lan = Lan::wired(3);
    lan.ip(2, "route add default dev eth0");
    let mut nodes = [0, 1].map(|host: u8| {
        let mut node = lan.start(host.into(), host, "");
        node.announce(2380, &format!("n{host}"), 0, 0);
        node
    });
    nodes[0].until_sees(&["n1@0"]);
    lan.flood(2, "flood::a_flood", NONSENSE).end();
    assert!(nodes.iter_mut().all(crate::lan::Node::is_running), "a node has panicked");
    // One says something new, and one was not there before. What was made of the nonsense may be seen as well.
    nodes[1].announce(2390, "n2", 0, 0);
    let mut third = lan.start(2, 9, "");
    third.announce(2380, "n9", 0, 0);
    let sees_both = |sees: &crate::lan::Sees| ["n2@0", "n9@0"].iter().all(|name| sees.names().contains(name));
    nodes[0].until("those who make sense", sees_both);
    third.until("the others", |sees| ["n0@0", "n2@0"].iter().all(|name| sees.names().contains(name)));
    assert!(nodes.iter_mut().all(crate::lan::Node::is_running), "a node has panicked");
}
