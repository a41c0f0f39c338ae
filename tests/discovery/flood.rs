//! A LAN that is full of answers nobody has asked for, and of questions.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use crate::lan::{FLOODS, Lan, now, wait};

/// Bytes of a packet on Ethernet, without its headers.
const PACKET_BYTES: usize = 1472;
/// What a flood consists of.
const ANSWERS: &str = "answers";
const QUESTIONS: &str = "questions";
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
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let mut number = 0;
    loop {
        let packet = if what == ANSWERS { answers(&mut number) } else { questions() };
        // What is lost for want of room is made up for by the next.
        let _ = socket.send_to(&packet, (Ipv4Addr::new(224, 0, 0, 251), 5353));
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
