//! Members that find, lose and find each other again.
//!
//! Owns: exchange, restarts, addresses, crossing dials, other families of addresses. Must never: depend on which end dials first.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use covey::ids::{Incarnation, MemberId};
use covey::peer::Event;

use crate::harness::{Node, append, heartbeat, identity, index_of, pair, peer};

#[test]
fn messages_go_both_ways_in_order() {
    let (a, b) = pair();
    let count = 2000;
    for n in 0..count {
        a.transport.send(vec![append(1, 2, n, 300), heartbeat(1, 2, n)]);
        b.transport.send(vec![append(2, 1, n, 300)]);
    }
    for (node, from) in [(&b, 1), (&a, 2)] {
        let mut next = 0;
        while next < count {
            for message in node.wait_batch() {
                if message.encoded_len() > 100 {
                    assert_eq!(message, append(from, 3 - from, next, 300));
                    next += 1;
                }
            }
        }
    }
}

#[test]
fn five_members_are_all_connected_with_each_other() {
    let nodes: Vec<Node> = (1..=5).map(|id| Node::start(identity(id))).collect();
    let peers: Vec<_> = nodes.iter().map(Node::peer).collect();
    for node in &nodes {
        node.trust(&peers);
    }
    for node in &nodes {
        for other in nodes.iter().filter(|other| other.id() != node.id()) {
            node.wait_connected(other.id());
        }
    }
    for node in &nodes {
        let others = nodes.iter().filter(|other| other.id() != node.id());
        node.transport.send(others.clone().map(|other| heartbeat(node.id(), other.id(), 7)).collect());
        for other in others {
            other.wait_message(&heartbeat(node.id(), other.id(), 7));
        }
        assert_eq!(node.transport.stats().connected, 4);
    }
}

/// A message for somebody else, or from somebody else, goes no further than the end of the connection.
#[test]
fn messages_between_others_are_dropped() {
    let (a, b) = pair();
    // Of the three, the transport itself sends only those that are for member 2.
    a.transport.send(vec![append(9, 2, 1, 10), append(1, 9, 1, 10), append(1, 2, 2, 10)]);
    assert_eq!(b.wait_batch(), [append(1, 2, 2, 10)]);
}

/// The acceptor has moved and the dialler hears of it, or the other way round: either way there is a connection at once.
#[test]
fn a_member_that_restarts_elsewhere_is_found_by_its_new_address() {
    for moved in [1, 2] {
        let (a, b) = pair();
        let (stays, goes) = if moved == 2 { (a, b) } else { (b, a) };
        let mut next_run = goes.identity.clone();
        next_run.earlier.push(next_run.run());
        next_run.incarnation = Incarnation(2);
        next_run.boot_nonce += 1;
        drop(goes);
        stays.wait_unreachable(moved);
        let again = Node::start(next_run);
        let before = Instant::now();
        // It knows nobody, so that it has to be dialled.
        let unreachable = peer(&stays.identity, &[]);
        again.trust(&[unreachable]);
        stays.trust(&[again.peer()]);
        assert_eq!(stays.wait_connected(moved), again.address);
        assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
        again.wait_connected(3 - moved);
        again.transport.send(vec![append(moved, 3 - moved, 5, 10)]);
        stays.wait_message(&append(moved, 3 - moved, 5, 10));
    }
}

/// Its port is free again, and its next start is taken for what it is.
#[test]
fn a_member_that_restarts_at_its_old_port_is_back_without_a_timeout() {
    let (a, b) = pair();
    let mut next_run = b.identity.clone();
    next_run.earlier.push(next_run.run());
    next_run.incarnation = Incarnation(2);
    next_run.boot_nonce += 1;
    let address = b.address;
    let connected = || a.transport.connected().get(&MemberId(2)).copied();
    let first = connected().expect("they are a pair");
    let traffic = || a.transport.traffic().pop().unwrap();
    let carried = traffic();
    assert!(carried.connected);
    assert!(carried.metrics.sent_bytes.value() > 0 && carried.metrics.received_bytes.value() > 0);
    drop(b);
    a.wait_unreachable(2);
    assert_eq!(connected(), None);
    assert_eq!((traffic().connected, carried.metrics.disconnects.value()), (false, 1));
    let before = Instant::now();
    let again = Node::start_at(next_run, address);
    again.trust(&[a.peer()]);
    a.wait_connected(2);
    assert!(connected() > Some(first), "it is connected since then");
    again.wait_connected(1);
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    a.transport.send(vec![heartbeat(1, 2, 3)]);
    again.wait_message(&heartbeat(1, 2, 3));
}

/// The connection works, but leads to where the member says that it is no longer.
#[test]
fn a_changed_address_is_dialled_while_the_old_connection_still_works() {
    let a = Node::start_at(identity(1), "[::]:0".parse().unwrap());
    let b = Node::start_at(identity(2), "[::]:0".parse().unwrap());
    let at = |host: &str| -> SocketAddr { format!("{host}:{}", b.address.port()).parse().unwrap() };
    b.trust(&[peer(&a.identity, &[])]);
    a.trust(&[peer(&b.identity, &[at("127.0.0.1")])]);
    assert_eq!(a.wait_connected(2), at("127.0.0.1"));
    b.wait_connected(1);
    for host in ["[::1]", "127.0.0.2"] {
        let moved = at(host);
        a.trust(&[peer(&b.identity, &[moved])]);
        assert_eq!(a.wait_connected(2), moved);
        b.wait_connected(1);
        a.transport.send(vec![heartbeat(1, 2, 9)]);
        b.wait_message(&heartbeat(1, 2, 9));
    }
    assert_eq!(a.log.count(|event| matches!(event, Event::Unreachable(_))), 0, "nothing was lost on the way");
}

/// Of several addresses the first may be dead.
#[test]
fn the_next_address_is_tried() {
    let (a, b) = (Node::start(identity(1)), Node::start(identity(2)));
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    a.trust(&[peer(&b.identity, &[nobody.local_addr().unwrap(), b.address])]);
    b.trust(&[peer(&a.identity, &[])]);
    assert_eq!(a.wait_connected(2), b.address);
}

/// Somebody on the network says of a member that it is in other places all the time, faster than the right one comes to its turn.
#[test]
fn false_news_of_where_a_member_is_keeps_nobody_from_it() {
    let (a, b) = (Node::start(identity(1)), Node::start(identity(2)));
    let nobody: Vec<UdpSocket> = (0..24).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    let mut nowhere = nobody.iter().map(|socket| socket.local_addr().unwrap()).collect::<Vec<_>>();
    let heard = nowhere.split_off(12);
    nowhere.push(b.address);
    b.trust(&[peer(&a.identity, &[])]);
    let (id, mut place) = peer(&b.identity, &nowhere);
    let began = Instant::now();
    while a.transport.stats().connected == 0 {
        place.heard = heard.clone();
        place.heard.rotate_left(began.elapsed().as_millis() as usize % heard.len());
        a.trust(&[(id, place.clone())]);
        std::thread::sleep(Duration::from_millis(100));
        // One after the other the false ones alone would take twelve seconds.
        assert!(began.elapsed() < Duration::from_secs(10), "it was never reached");
    }
    assert_eq!(a.wait_connected(2), b.address);
}

/// It had moved, and was found; then somebody says that it has moved again, which is not so.
#[test]
fn a_member_is_looked_for_where_it_was_met() {
    let (a, b) = (Node::start(identity(1)), Node::start(identity(2)));
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (id, mut place) = peer(&b.identity, &[nobody]);
    place.heard = vec![b.address];
    a.trust(&[(id, place.clone())]);
    b.trust(&[peer(&a.identity, &[])]);
    assert_eq!(a.wait_connected(2), b.address);
    place.heard = Vec::new();
    a.trust(&[(id, place)]);
    let (mut next_run, address) = (b.identity.clone(), b.address);
    next_run.earlier.push(next_run.run());
    next_run.incarnation = Incarnation(2);
    next_run.boot_nonce += 1;
    drop(b);
    a.wait_unreachable(2);
    let again = Node::start_at(next_run, address);
    again.trust(&[peer(&a.identity, &[])]);
    assert_eq!(a.wait_connected(2), address);
}

/// Both dial at once, many times over. One connection has to stay, the same at both ends, and nothing that is sent may vanish
/// without a word.
#[test]
fn dials_that_cross_end_as_one_connection() {
    let mut dialled_twice = 0;
    for round in 0..15 {
        let (a, b) = (Node::start(identity(1)), Node::start(identity(2)));
        b.trust(&[peer(&a.identity, &[])]);
        a.trust(&[peer(&b.identity, &[])]);
        // A member that is known already is dialled at once when its address is news.
        b.trust(&[a.peer()]);
        if round % 3 == 1 {
            std::thread::sleep(Duration::from_millis(round));
        }
        a.trust(&[b.peer()]);
        a.wait_connected(2);
        b.wait_connected(1);
        let until = Instant::now() + Duration::from_millis(700);
        let mut sent = 0;
        while Instant::now() < until {
            a.transport.send(vec![append(1, 2, sent, 50)]);
            sent += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        a.transport.send(vec![append(1, 2, sent, 50)]);
        let mut got = BTreeSet::new();
        while !got.contains(&sent) {
            got.extend(b.wait_batch().iter().map(index_of));
        }
        let lost = (0..sent).filter(|n| !got.contains(n)).count();
        let reported = a.log.count(|event| matches!(event, Event::Unreachable(_)));
        assert!(lost == 0 || reported > 0, "round {round}: {lost} of {sent} are lost without a word");
        dialled_twice +=
            usize::from(a.transport.stats().handshakes > 0 && b.transport.stats().handshakes > 0);
        assert_eq!((a.transport.stats().connected, b.transport.stats().connected), (1, 1));
    }
    assert!(dialled_twice > 0, "no dials have crossed: this test sees nothing");
}

/// Carries packets between one dialler and one node, until it is cut.
struct Wire {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Wire {
    fn to(node: SocketAddr) -> Self {
        let near = UdpSocket::bind("127.0.0.1:0").unwrap();
        let far = UdpSocket::bind("127.0.0.1:0").unwrap();
        far.connect(node).unwrap();
        let wire = Self { address: near.local_addr().unwrap(), cut: Arc::default() };
        let dialler: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let (near_too, far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        let (cut, cut_too) = (Arc::clone(&wire.cut), Arc::clone(&wire.cut));
        let dialler_too = Arc::clone(&dialler);
        std::thread::spawn(move || {
            let mut packet = [0; 2048];
            while let Ok((length, from)) = near.recv_from(&mut packet) {
                *dialler.lock().unwrap() = Some(from);
                if !cut.load(Ordering::Relaxed) {
                    // A port that nobody listens on is a loss like any other.
                    let _ = far.send(&packet[..length]);
                }
            }
        });
        std::thread::spawn(move || {
            let mut packet = [0; 2048];
            loop {
                let Ok(length) = far_too.recv(&mut packet) else { continue };
                if let Some(to) = *dialler_too.lock().unwrap()
                    && !cut_too.load(Ordering::Relaxed)
                {
                    let _ = near_too.send_to(&packet[..length], to);
                }
            }
        });
        wire
    }
}

/// Two members, of which the first has reached the second by a wire.
fn wired() -> (Node, Node, Wire) {
    let (a, b) = (Node::start(identity(1)), Node::start(identity(2)));
    let wire = Wire::to(b.address);
    b.trust(&[peer(&a.identity, &[])]);
    a.trust(&[peer(&b.identity, &[wire.address])]);
    a.wait_connected(2);
    b.wait_connected(1);
    (a, b, wire)
}

/// A power cut says no farewell. The node that comes back answers for its past, so that the other end need not wait for its timeout of ten
/// seconds, although the node knows nobody to dial.
#[test]
fn after_a_power_cut_the_old_connection_is_given_up_at_once() {
    let (a, b, wire) = wired();
    wire.cut.store(true, Ordering::Relaxed);
    let (mut next_run, address) = (b.identity.clone(), b.address);
    next_run.earlier.push(next_run.run());
    next_run.incarnation = Incarnation(2);
    next_run.boot_nonce += 1;
    drop(b);
    assert_eq!(a.transport.stats().connected, 1, "it cannot know");
    let again = Node::start_at(next_run, address);
    again.trust(&[peer(&a.identity, &[])]);
    wire.cut.store(false, Ordering::Relaxed);
    let before = Instant::now();
    while a.log.count(|event| matches!(event, Event::Unreachable(_))) == 0 {
        a.transport.send(vec![heartbeat(1, 2, 1)]);
        std::thread::sleep(Duration::from_millis(50));
        assert!(before.elapsed() < Duration::from_secs(5), "the old connection is still there");
    }
    a.wait_connected(2);
    again.wait_connected(1);
}

/// Asks for a sign of life as a leader does, until it is so.
fn beat_until(a: &Node, what: &str, mut is_so: impl FnMut() -> bool) {
    let before = Instant::now();
    while !is_so() {
        a.transport.send(vec![heartbeat(1, 2, 1)]);
        std::thread::sleep(Duration::from_millis(50));
        // QUIC alone gives up after ten seconds.
        assert!(before.elapsed() < Duration::from_secs(6), "{what}: not in time");
    }
}

/// Packets are lost without a word on the way that is in use, and there is another.
#[test]
fn a_member_that_is_silent_is_dialled_wherever_it_may_be() {
    let (a, b, wire) = wired();
    let (id, mut place) = peer(&b.identity, &[wire.address]);
    place.heard = vec![b.address];
    a.trust(&[(id, place)]);
    wire.cut.store(true, Ordering::Relaxed);
    beat_until(&a, "the other way", || a.log.count(|event| matches!(event, Event::Connected { .. })) > 0);
    assert_eq!(a.wait_connected(2), b.address);
    b.wait_connected(1);
    a.transport.send(vec![heartbeat(1, 2, 9)]);
    b.wait_message(&heartbeat(1, 2, 9));
}

#[test]
fn a_member_that_is_silent_is_not_reached_until_it_is_heard_again() {
    let (a, _b, wire) = wired();
    let since = a.transport.connected()[&MemberId(2)];
    wire.cut.store(true, Ordering::Relaxed);
    beat_until(&a, "silent", || a.transport.connected().is_empty());
    a.wait_unreachable(2);
    assert!(!a.transport.traffic()[0].connected);
    wire.cut.store(false, Ordering::Relaxed);
    beat_until(&a, "heard again", || !a.transport.connected().is_empty());
    assert!(a.transport.connected()[&MemberId(2)] >= since);
}
