//! Nodes for the tests: keys, members, messages, and waiting for events.
//!
//! Owns: the shortest way to a running transport. Must never: sleep where it can wait for an event.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use covey::consensus::{Allowance, Message};
use covey::formation::{ClusterRoot, Generation, Identity, NodeKey, Stage};
use covey::ids::{Incarnation, MemberId, PublicKey};
use covey::peer::{Event, Events, Options, Peer, Transport};
use covey::prng::Prng;
use covey::runtime::clock::Clock;
use prost::Message as _;
use raft::eraftpb::{self, Entry, MessageType};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn new_key() -> NodeKey {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    NodeKey::from_pkcs8(pkcs8.as_ref().to_vec()).unwrap()
}

pub fn public(key: &NodeKey) -> PublicKey {
    PublicKey(*key.public())
}

/// A member of the cluster that all tests are about, at its first start.
pub fn identity(member: u64) -> Identity {
    Identity {
        shown: true,
        earlier: Vec::new(),
        promise: None,
        winner: None,
        key: new_key(),
        member: MemberId(member),
        root: ClusterRoot([7; 32]),
        generation: Generation(1),
        stage: Stage::Established,
        incarnation: Incarnation(1),
        boot_nonce: 1000 + member,
    }
}

#[derive(Default)]
pub struct Log {
    events: Mutex<Vec<Event>>,
    arrived: Condvar,
}

impl Log {
    fn push(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        self.arrived.notify_all();
    }

    /// Waits for an event that `pick` takes something from, and removes it; the others stay.
    pub fn wait<T>(&self, what: &str, mut pick: impl FnMut(&mut Event) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        let mut events = self.events.lock().unwrap();
        loop {
            let mut found = None;
            for (at, event) in events.iter_mut().enumerate() {
                if let Some(value) = pick(event) {
                    found = Some((at, value));
                    break;
                }
            }
            if let Some((at, value)) = found {
                let event = events.remove(at);
                drop(events);
                drop(event);
                return value;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited for {what} in vain; there are {events:?}");
            events = self.arrived.wait_timeout(events, left).unwrap().0;
        }
    }

    pub fn count(&self, mut matches: impl FnMut(&Event) -> bool) -> usize {
        self.events.lock().unwrap().iter().filter(|event| matches(event)).count()
    }

    pub fn clear(&self) {
        let events = std::mem::take(&mut *self.events.lock().unwrap());
        drop(events);
    }
}

/// A running node.
pub struct Node {
    pub identity: Identity,
    pub transport: Transport,
    pub log: Arc<Log>,
    pub address: SocketAddr,
}

impl Node {
    pub fn start(identity: Identity) -> Self {
        Self::start_at(identity, "127.0.0.1:0".parse().unwrap())
    }

    pub fn start_at(identity: Identity, listen: SocketAddr) -> Self {
        let log = Arc::new(Log::default());
        let for_events = Arc::clone(&log);
        Self::start_with(identity, listen, log, Arc::new(move |event| for_events.push(event)))
    }

    pub fn start_with(identity: Identity, listen: SocketAddr, log: Arc<Log>, events: Events) -> Self {
        let prng = Prng::new(identity.boot_nonce);
        let options = Options {
            identity: identity.clone(),
            listen: listen.into(),
            prng,
            clock: Clock::start(),
            forming: None,
        };
        let transport = Transport::start(options, events).unwrap();
        let address = transport.local_address().unwrap();
        Self { identity, transport, log, address }
    }

    pub fn id(&self) -> u64 {
        self.identity.member.0
    }

    /// As another node's list of members has it.
    pub fn peer(&self) -> (MemberId, Peer) {
        peer(&self.identity, &[self.address])
    }

    pub fn trust(&self, peers: &[(MemberId, Peer)]) {
        self.transport.set_peers(peers.iter().cloned().collect::<BTreeMap<_, _>>());
    }

    pub fn wait_connected(&self, with: u64) -> SocketAddr {
        self.log.wait(&format!("a connection of {} with {with}", self.id()), |event| match event {
            Event::Connected { member, address, .. } if member.0 == with => Some(*address),
            _ => None,
        })
    }

    pub fn wait_unreachable(&self, with: u64) {
        self.log.wait(&format!("{with} to be unreachable"), |event| match event {
            Event::Unreachable(member) if member.0 == with => Some(()),
            _ => None,
        });
    }

    /// The next messages, as they came together.
    pub fn wait_batch(&self) -> Vec<Message> {
        self.log.wait("messages", |event| match event {
            Event::Messages(received) => Some(received.messages().to_vec()),
            _ => None,
        })
    }

    /// Waits until this message has come. Others that came with or before it are dropped.
    pub fn wait_message(&self, expected: &Message) {
        self.log.wait("a message", |event| match event {
            Event::Messages(received) if received.messages().contains(expected) => {
                assert_eq!(received.from, expected.from());
                Some(())
            }
            _ => None,
        });
    }
}

pub fn peer(identity: &Identity, addresses: &[SocketAddr]) -> (MemberId, Peer) {
    let peer =
        Peer { key: public(&identity.key), addresses: addresses.to_vec(), heard: Vec::new(), seen: None };
    (identity.member, peer)
}

/// Two connected nodes.
pub fn pair() -> (Node, Node) {
    let (a, b) = (Node::start(identity(1)), Node::start(identity(2)));
    a.trust(&[b.peer()]);
    b.trust(&[a.peer()]);
    a.wait_connected(2);
    b.wait_connected(1);
    (a, b)
}

pub fn message(kind: MessageType, from: u64, to: u64, index: u64, payload: usize) -> Message {
    let entry = Entry { term: 1, index: index + 1, data: vec![0x5a; payload].into(), ..Entry::default() };
    let raft = eraftpb::Message {
        msg_type: kind,
        from,
        to,
        term: 1,
        index,
        entries: if payload == 0 { vec![] } else { vec![entry] },
        ..eraftpb::Message::default()
    };
    Message::decode(raft.encode_to_vec().into(), &mut Allowance::default()).unwrap()
}

pub fn index_of(message: &Message) -> u64 {
    eraftpb::Message::decode(message.encode()).unwrap().index
}

pub fn heartbeat(from: u64, to: u64, index: u64) -> Message {
    message(MessageType::MsgHeartbeat, from, to, index, 0)
}

pub fn append(from: u64, to: u64, index: u64, payload: usize) -> Message {
    message(MessageType::MsgAppend, from, to, index, payload)
}
