//! Nodes without a cluster, on the members' port and on one another's.
//!
//! Owns: what it costs to ask with and without the cluster's secret. Must never: judge what is answered (`formation` is).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use covey::formation::{Answer, ClusterSecret, Introduction, NodeKey, Question};
use covey::peer::{Answerer, AskError, Forming, Options, Transport, Trust};
use covey::prng::Prng;
use covey::runtime::clock::Clock;
use covey::runtime::listening::UdpPort;
use smol::block_on;

use crate::harness::{identity, new_key};

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn secret(text: &str) -> Trust {
    Trust { secret: Some(ClusterSecret::parse(text).unwrap()), ..Trust::default() }
}

fn right() -> Trust {
    secret("0123456789abcdefghijkl")
}

fn answerer() -> Answerer {
    Arc::new(|_, _, _| Box::pin(async { Answer::Fresh { name: "n".into() } }))
}

fn node(key: &NodeKey, trust: Trust) -> Forming {
    Forming::start(key, &loopback().into(), trust, answerer(), Clock::start()).unwrap()
}

/// Asks so often, one after the other, and tells who was listened to.
fn ask(count: u64, trust: Trust, address: SocketAddr) -> Vec<Result<(), AskError>> {
    let asker = node(&new_key(), trust);
    let question = Question::Meets(Introduction { name: "n".into(), peer_urls: Vec::new(), named: [0; 32] });
    (0..count).map(|_| block_on(asker.ask(address, &question)).map(drop)).collect()
}

/// Whoever proves that it has the secret may ask as often as it has to.
fn check_friends(address: SocketAddr) {
    let outcomes = ask(40, right(), address);
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

/// Whoever does not is a stranger: a burst of 16, and two a second.
fn check_strangers(address: SocketAddr) {
    let (began, count) = (Instant::now(), 24);
    let outcomes = ask(count, secret("0123456789abcdefghijkX"), address);
    assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
    let allowed = 16 + 2 * (began.elapsed().as_secs() + 1);
    assert!(count <= allowed, "{count} were gone into, {allowed} allowed");
}

#[test]
fn asking_a_member_is_free_only_with_the_secret() {
    let options = Options {
        identity: identity(1),
        listen: loopback().into(),
        prng: Prng::new(1),
        clock: Clock::start(),
        forming: Some((right(), answerer())),
    };
    let transport = Transport::start(options, Arc::new(drop)).unwrap();
    let address = transport.local_address().unwrap();
    check_friends(address);
    assert_eq!(transport.stats().turned_away, 0);
    check_strangers(address);
    assert!(transport.stats().turned_away > 0);
}

/// A node of several addresses has one port, and whoever asks at another address of the machine finds nobody.
#[test]
fn a_member_is_reached_at_its_addresses_and_at_no_other() {
    let listen = UdpPort::at(["127.0.0.1:0", "127.0.0.2:0"].map(|place| place.parse().unwrap()));
    let options = Options {
        identity: identity(1),
        listen: listen.unwrap(),
        prng: Prng::new(1),
        clock: Clock::start(),
        forming: Some((right(), answerer())),
    };
    let transport = Transport::start(options, Arc::new(drop)).unwrap();
    let port = transport.local_address().unwrap().port();
    for (address, expected) in [([127, 0, 0, 1], true), ([127, 0, 0, 2], true), ([127, 0, 0, 3], false)] {
        let outcomes = ask(1, right(), (address, port).into());
        assert_eq!(outcomes[0].is_ok(), expected, "{address:?}: {outcomes:?}");
    }
}

/// What a member is asked goes through the log, which may have to wait for a slow disk or an election. Whoever asks has that patience, too.
#[test]
fn a_member_may_take_its_time_for_an_answer() {
    let slowly = Duration::from_millis(3200);
    let options = Options {
        identity: identity(1),
        listen: loopback().into(),
        prng: Prng::new(1),
        clock: Clock::start(),
        forming: Some((
            right(),
            Arc::new(move |_, _, _| {
                Box::pin(async move {
                    smol::Timer::after(slowly).await;
                    Answer::Absorbed
                })
            }),
        )),
    };
    let transport = Transport::start(options, Arc::new(drop)).unwrap();
    let outcomes = ask(1, right(), transport.local_address().unwrap());
    assert!(outcomes[0].is_ok(), "{outcomes:?}");
}

/// On a network where nobody has to show anything: whoever gathers asks a few times a second, and whoever asks all the time is held to a rate.
#[test]
fn asking_a_member_without_a_secret_has_its_rate() {
    let options = Options {
        identity: identity(1),
        listen: loopback().into(),
        prng: Prng::new(1),
        clock: Clock::start(),
        forming: Some((Trust::default(), answerer())),
    };
    let transport = Transport::start(options, Arc::new(drop)).unwrap();
    let address = transport.local_address().unwrap();
    let began = Instant::now();
    // More than what is answered at once.
    let outcomes = ask(240, Trust::default(), address);
    assert!(outcomes[..100].iter().all(Result::is_ok), "{outcomes:?}");
    let (allowed, stats) = (160 + 20 * (began.elapsed().as_secs() + 1), transport.stats());
    assert!(stats.handshakes <= allowed, "{stats:?}, {allowed} allowed");
}

#[test]
fn asking_a_node_without_a_cluster_is_free_only_with_the_secret() {
    let socket = std::net::UdpSocket::bind(loopback()).unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    let _asked = Forming::start(&new_key(), &address.into(), right(), answerer(), Clock::start()).unwrap();
    check_friends(address);
    check_strangers(address);
}
