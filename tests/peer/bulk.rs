//! Much at once: a member that reads slowly, control beside bulk, parcels, questions.
//!
//! Owns: back pressure and what gives way. Must never: measure speed without a wide margin; `costs` prints figures.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use covey::consensus::Message;
use covey::ids::MemberId;
use covey::peer::Event;
use raft::eraftpb::MessageType;

use crate::harness::{Log, Node, append, heartbeat, identity, index_of, message, pair, peer};

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Node 1, and a node 2 that keeps every message and handles none.
fn with_a_hoarder() -> (Node, Node) {
    let (a, b) = (Node::start(identity(1)), Node::start(identity(2)));
    a.trust(&[b.peer()]);
    b.trust(&[peer(&a.identity, &[])]);
    a.wait_connected(2);
    b.wait_connected(1);
    (a, b)
}

fn received_bytes(node: &Node) -> usize {
    let mut bytes = 0;
    node.log.count(|event| {
        if let Event::Messages(received) = event {
            bytes += received.messages().iter().map(Message::encoded_len).sum::<usize>();
        }
        false
    });
    bytes
}

/// The node on the other side does not handle what comes: it may hold so much and no more, the sender's queue is bounded, the loss is
/// reported, and control still gets through.
#[test]
fn a_peer_that_does_not_handle_appends_holds_up_nothing_else() {
    let (a, b) = with_a_hoarder();
    let mib = 1024 * 1024;
    let slowest = (0..60).map(|n| {
        let before = Instant::now();
        a.transport.send(vec![append(1, 2, n, mib)]);
        std::thread::sleep(Duration::from_millis(10));
        before.elapsed()
    });
    let slowest = slowest.max().unwrap();
    assert!(slowest < Duration::from_secs(1), "the caller waited {slowest:?}");
    a.wait_unreachable(2);
    assert!(received_bytes(&b) <= 6 * mib, "{} bytes are held unhandled", received_bytes(&b));
    for n in 0..20 {
        a.transport.send(vec![heartbeat(1, 2, n)]);
        b.wait_message(&heartbeat(1, 2, n));
    }
    let again = a.log.count(|event| matches!(event, Event::Connected { .. }));
    assert_eq!(again, 0, "it was the queue, and not the connection");
    // The hoard is handled: what waited comes, and then new things do.
    b.log.clear();
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        a.transport.send(vec![append(1, 2, 1000, 10)]);
        std::thread::sleep(Duration::from_millis(50));
        let came = b.log.count(
            |event| matches!(event, Event::Messages(received) if received.messages().iter().any(|m| index_of(m) == 1000)),
        );
        if came > 0 {
            break;
        }
        b.log.clear();
        assert!(Instant::now() < until, "appends flow again");
    }
}

/// The largest message that raft makes of the largest request.
#[test]
fn the_largest_messages_arrive() {
    let (a, b) = pair();
    for kind in [MessageType::MsgAppend, MessageType::MsgPropose, MessageType::MsgReadIndex] {
        let large = message(kind, 1, 2, 7, 10 * 1024 * 1024);
        a.transport.send(vec![large.clone()]);
        b.wait_message(&large);
    }
}

/// What has come, in order: the lengths of appends, and the numbers and times of heartbeats.
enum Arrival {
    Append(usize),
    Heartbeat(u64, Instant),
}

/// While appends flow as fast as they can, heartbeats overtake all that were sent before them and wait.
#[test]
fn bulk_does_not_delay_control() {
    const PAYLOAD: usize = 512 * 1024;
    let came: Arc<(Mutex<Vec<Arrival>>, Condvar)> = Arc::default();
    let (a, into) = (Node::start(identity(1)), Arc::clone(&came));
    let sink = Arc::new(move |event| {
        if let Event::Messages(received) = event {
            let arrivals = received.messages().iter().map(|message| match message.encoded_len() {
                ..100 => Arrival::Heartbeat(index_of(message), Instant::now()),
                length => Arrival::Append(length),
            });
            into.0.lock().unwrap().extend(arrivals);
            into.1.notify_all();
        }
    });
    let b = Node::start_with(identity(2), loopback(), Arc::new(Log::default()), sink);
    a.trust(&[b.peer()]);
    b.trust(&[peer(&a.identity, &[])]);
    a.wait_connected(2);
    let mut sent = Vec::new();
    for n in 0..100_u64 {
        // More than the queue takes: it is full at this moment. The length tells the round.
        let payload = PAYLOAD + sent.len();
        a.transport.send((0..16).map(|_| append(1, 2, 1, payload)).collect());
        sent.push(Instant::now());
        a.transport.send(vec![heartbeat(1, 2, n)]);
        std::thread::sleep(Duration::from_millis(10));
    }
    let is_last = |arrival: &Arrival| matches!(arrival, Arrival::Heartbeat(99, _));
    let list = came.0.lock().unwrap();
    let waiting = |list: &mut Vec<Arrival>| !list.iter().any(is_last);
    let (list, late) = came.1.wait_timeout_while(list, Duration::from_secs(10), waiting).unwrap();
    assert!(!late.timed_out(), "the last heartbeat did not come");

    let (mut delays, mut overtook) = (Vec::new(), 0);
    for (place, arrival) in list.iter().enumerate() {
        let Arrival::Heartbeat(n, at) = arrival else { continue };
        let round = usize::try_from(*n).unwrap();
        delays.push(at.duration_since(sent[round]));
        let length = append(1, 2, 1, PAYLOAD + round).encoded_len();
        let is_older = |later: &Arrival| matches!(later, Arrival::Append(other) if *other <= length);
        overtook += usize::from(list[place..].iter().any(is_older));
    }
    delays.sort();
    assert_eq!(delays.len(), 100, "no heartbeat was lost");
    println!(
        "heartbeats beside bulk: median {:?}, 99th {:?}, worst {:?}; {overtook} of 100 overtook appends",
        delays[50], delays[98], delays[99]
    );
    assert!(overtook > 50, "{overtook} of 100 overtook the appends before them");
}

fn wait_parcel(node: &Node) -> (MemberId, Bytes) {
    node.log.wait("a parcel", |event| match event {
        Event::Parcel { from, body, .. } => Some((*from, body.clone())),
        _ => None,
    })
}

#[test]
fn parcels_arrive_whole_and_beside_messages() {
    let (a, b) = pair();
    for (n, length) in [1, 100_000, 10 * 1024 * 1024].into_iter().enumerate() {
        let n = u64::try_from(n).unwrap();
        let body = Bytes::from(vec![7; length]);
        a.transport.send_parcel(MemberId(2), body.clone());
        a.transport.send(vec![heartbeat(1, 2, n), append(1, 2, n, 1000)]);
        b.wait_message(&append(1, 2, n, 1000));
        assert_eq!(wait_parcel(&b), (MemberId(1), body));
    }
    a.transport.send_parcel(MemberId(9), Bytes::from_static(b"to nobody"));
}

#[test]
fn questions_get_their_answers_and_one_to_nobody_is_known_to_be_lost() {
    let (a, b) = pair();
    let large = Bytes::from(vec![3; 300_000]);
    for (number, question) in [(7, Bytes::from_static(b"how many?")), (8, large.clone())] {
        assert!(a.transport.ask(MemberId(2), number, question.clone()));
        let came = b.log.wait("the question", |event| match event {
            Event::Question { from, number, body } => Some((*from, *number, body.clone())),
            _ => None,
        });
        assert_eq!(came, (MemberId(1), number, question));
        b.transport.answer(MemberId(1), number, large.clone());
        let came = a.log.wait("the answer", |event| match event {
            Event::Answer { from, number, body } => Some((*from, *number, body.clone())),
            _ => None,
        });
        assert_eq!(came, (MemberId(2), number, large.clone()));
    }
    assert!(!a.transport.ask(MemberId(9), 9, large));
}
