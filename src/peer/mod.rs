//! Messages between members: QUIC, one connection for each pair, on a thread of its own.
//!
//! Owns: the UDP port for members, who may connect, queues and streams for each member, the hello that decides. Must never: let bulk delay
//! liveness, block its callers, or believe anything but a pinned key. Driven by the node, to which it reports by [`Event`]s.
//!
//! ```text
//!             send                     control stream: heartbeats, votes, read index
//! node ──► Outbox (per member) ──► append stream: entries and answers          ──► lane::read ──► Event::Messages ──► node
//!          ask, answer         ──► control stream                              ──► Event::Question, Event::Answer
//!          send_parcel         ──► a stream for each                           ──► Event::Parcel
//!          set_peers           ──► Manager: who is dialled, which of two connections stays
//! ```

mod accept;
mod backoff;
mod congestion;
mod dial;
mod endpoint;
mod events;
mod forming;
mod frame;
mod gate;
mod greet;
mod hello;
mod item;
mod lane;
mod link;
mod manager;
mod outbox;
mod parcel;
mod reactor;
mod shared;
mod socket;
mod trust;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use quinn::VarInt;
use smol::channel::Receiver;
use smol::future::or;
use smol::{Executor, Task};

pub use endpoint::StartError;
pub use events::{Event, Events, Hold, Received, RefusedBy};
pub use forming::{Answerer, AskError, Forming, KeyRefused, Near, Tokens, Trust};
pub use hello::{PROTOCOL, Refusal, RefusalKind};
/// What strangers and members send before anything is believed, for `tests/fuzz`.
#[doc(hidden)]
pub mod heard {
    pub use super::frame::{FrameReader, StreamKind, decode, encode, frame};
    pub use super::hello::{Hello, Known, judge};
    pub use super::item::Item;
}

use crate::consensus::Message;
use crate::formation::{Answer, Identity, Question};
use crate::ids::{MemberId, PublicKey, Run};
use crate::prng::Prng;
use crate::runtime::clock::Clock;
use crate::runtime::listening::UdpPort;
use crate::telemetry::metrics::PeerTraffic;
use crate::time::Instant;
use endpoint::Opened;
use greet::CLOSED_STOPPING;
use item::Item;
use link::end_of_lane;
use manager::{Input, Manager};
use outbox::{Outbox, Pushed};
use reactor::Reactor;
use shared::{Parts, Shared};
use trust::{Credentials, Pins};

/// How long the end of the connections may take when the transport stops.
const FAREWELL: Duration = Duration::from_millis(500);

/// What the transport begins with.
pub struct Options {
    /// Who this node is, in this run.
    pub identity: Identity,
    /// Where members reach it: a UDP port for both directions.
    pub listen: UdpPort,
    /// Jitter; nothing secret is made of it.
    pub prng: Prng,
    /// The process's clock.
    pub clock: Clock,
    /// Whom nodes without a cluster have to convince, and who answers them; none: nobody is heard who is no member.
    pub forming: Option<(Trust, Answerer)>,
}

/// A member, as the transport needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its key: a connection is with this member when the other end holds it, and for no other reason.
    pub key: PublicKey,
    /// Where it has said that it is, best first. A link-local address has its zone.
    pub addresses: Vec<SocketAddr>,
    /// Where it may be by what anybody can say.
    pub heard: Vec<SocketAddr>,
    /// The latest run that it is known to have shown, beyond what was seen here.
    pub seen: Option<Run>,
}

impl Peer {
    fn has_address(&self) -> bool {
        !self.addresses.is_empty() || !self.heard.is_empty()
    }
}

/// Counters and levels, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Members that are connected.
    pub connected: usize,
    /// Handshakes that others have begun and that were gone into.
    pub handshakes: u64,
    /// Handshakes that were dropped unanswered, because their address or all together had used up what there is for strangers.
    pub turned_away: u64,
}

/// The running transport. Dropping it closes all connections and waits for the end of its thread, so that an event must not be what drops it.
pub struct Transport {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transport({})", self.shared.own.member)
    }
}

impl Transport {
    /// Binds the port and starts the thread. Nobody is trusted before [`Transport::set_peers`].
    pub fn start(options: Options, events: Events) -> Result<Self, StartError> {
        let Options { identity, listen, prng, clock, forming } = options;
        let executor = Arc::new(Executor::new());
        let pins = Arc::new(Pins::default());
        let credentials = Credentials::new(&identity.key)?;
        let Opened { endpoint, reactor, host } =
            endpoint::open(&listen, &identity.key, credentials.server(&pins, forming.is_some())?, &executor)?;
        let own_key = PublicKey(*identity.key.public());
        let (inputs, inbox) = smol::channel::unbounded();
        let shared = Arc::new(Shared::new(Parts {
            own: identity,
            clock,
            pins,
            credentials,
            endpoint,
            host,
            events,
            inputs,
            own_key,
            listen,
            forming,
        }));
        let for_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("peer-io".into())
            .spawn(move || run(&executor, &reactor, for_thread, inbox, prng))
            .map_err(StartError::Thread)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The address that it listens on.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.shared.endpoint.local_addr().ok()
    }

    /// These are the members from now on, and this is where they are. Who is not among them is cut off at once, and told that it was removed if
    /// [`Transport::set_removed`] has named it; who has moved is dialled at once. The node itself may be among them.
    pub fn set_peers(&self, peers: BTreeMap<MemberId, Peer>) {
        let pins = peers.iter().map(|(id, peer)| (peer.key, *id, peer.seen));
        self.shared.pins.replace(pins);
        self.tell(Input::Peers(peers));
    }

    /// These were members with these keys. If they come, they are told that they are none any more.
    pub fn set_removed(&self, removed: BTreeMap<PublicKey, MemberId>) {
        self.shared.pins.replace_removed(removed);
    }

    /// Sends each message to the member that it names. Never waits: what finds no place is dropped, and [`Event::Unreachable`] follows where
    /// raft has to know.
    pub fn send(&self, messages: Vec<Message>) {
        let outboxes = self.shared.outboxes();
        for message in messages {
            let to = message.to();
            let Some(outbox) = outboxes.get(&to) else { continue };
            if outbox.push(Item::Raft(message)) == Pushed::Lost {
                self.tell(Input::Lost(to));
            }
        }
    }

    /// Asks a member something; false when it is not connected. The answer, if one comes, is an [`Event::Answer`] with this number. The
    /// question may be lost, and is when [`Event::Unreachable`] comes before the answer.
    pub fn ask(&self, to: MemberId, number: u64, body: Bytes) -> bool {
        self.push(to, Item::Question { number, body })
    }

    /// Answers an [`Event::Question`].
    pub fn answer(&self, to: MemberId, number: u64, body: Bytes) {
        self.push(to, Item::Answer { number, body });
    }

    fn push(&self, to: MemberId, item: Item) -> bool {
        let outbox = self.shared.outboxes().get(&to).cloned();
        outbox.is_some_and(|outbox| outbox.push(item) == Pushed::Waits)
    }

    /// Sends something large, beside everything else and behind it. It may be lost; it is at once where the member is not connected, or
    /// has as many on their way to it as there may be.
    pub fn send_parcel(&self, to: MemberId, body: Bytes) {
        let connection = self.shared.connections().get(&to).map(|to| to.connection.clone());
        let outbox = self.shared.outboxes().get(&to).cloned();
        let place = outbox.and_then(|outbox| outbox.parcel_place());
        let Some((connection, place)) = connection.zip(place) else { return };
        let task = self.shared.host.spawn(async move {
            end_of_lane(&connection, parcel::send(&connection, &body).await);
            drop(place);
        });
        task.into_iter().for_each(Task::detach);
    }

    /// Asks a node that is no member, at `address`: who it is, by its key, and what it says.
    pub async fn ask_stranger(
        &self,
        address: SocketAddr,
        question: &Question,
    ) -> Result<(PublicKey, Answer), AskError> {
        let Shared { endpoint, credentials, own_key, forming, .. } = &*self.shared;
        let (trust, _) = forming.as_ref().ok_or(AskError::TooFar(address))?;
        forming::ask(&forming::Asker { endpoint, credentials, own: *own_key, trust }, address, question).await
    }

    /// Which members are connected, and since when. One that is silent is left out.
    pub fn connected(&self) -> BTreeMap<MemberId, Instant> {
        let connections = self.shared.connections();
        connections.iter().filter(|(_, with)| !with.silent).map(|(id, with)| (*id, with.since)).collect()
    }

    /// What was counted about each member until now. Each call takes one sample of every round trip, as QUIC knows it at the moment: a timer for that would
    /// wake a box that has nothing to do.
    pub fn traffic(&self) -> Vec<PeerTraffic> {
        let mut connections = self.shared.connections();
        let outboxes = self.shared.outboxes();
        let one = |(member, outbox): (&MemberId, &Arc<Outbox>)| {
            let connected = connections.get_mut(member);
            let is_connected = connected.as_ref().is_some_and(|connected| !connected.silent);
            if let Some(connected) = connected {
                connected.count(&outbox.metrics);
                outbox.metrics.round_trip.observe(connected.connection.rtt());
            }
            PeerTraffic { member: *member, connected: is_connected, metrics: Arc::clone(&outbox.metrics) }
        };
        outboxes.iter().map(one).collect()
    }

    /// How things are.
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        Stats {
            connected: self.shared.connections().len(),
            handshakes: counters.handshakes.load(Ordering::Relaxed),
            turned_away: counters.turned_away.load(Ordering::Relaxed),
        }
    }

    /// The queue is unbounded and ends with the thread, which ends with this.
    fn tell(&self, input: Input) {
        let _ = self.shared.inputs.try_send(input);
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.tell(Input::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// The thread.
fn run(
    executor: &Arc<Executor<'static>>,
    reactor: &Arc<Reactor>,
    shared: Arc<Shared>,
    inbox: Receiver<Input>,
    prng: Prng,
) {
    let endpoint = shared.endpoint.clone();
    executor.spawn(accept::run(Arc::clone(&shared))).detach();
    reactor.run(executor.run(async {
        Manager::new(shared, prng).run(inbox).await;
        endpoint.close(VarInt::from_u32(CLOSED_STOPPING), b"this member stops");
        or(endpoint.wait_idle(), reactor.sleep(FAREWELL)).await;
    }));
}
