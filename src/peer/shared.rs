//! What the transport's tasks have in common.
//!
//! Owns: the way from any thread to the transport's. Must never: be locked while something is awaited. Made by `Transport::start`.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use quinn::{Connection, Endpoint};
use smol::channel::Sender;

use super::events::Events;
use super::forming::{Answerer, Trust};
use super::gate::Gate;
use super::manager::Input;
use super::outbox::Outbox;
use super::socket::Host;
use super::trust::{Credentials, Pins};
use crate::formation::Identity;
use crate::ids::{MemberId, PublicKey};
use crate::runtime::clock::Clock;
use crate::runtime::listening::UdpPort;
use crate::telemetry::metrics::PeerMetrics;
use crate::time::Instant;

pub(super) struct Shared {
    /// Who this node is.
    pub(super) own: Identity,
    pub(super) clock: Clock,
    pub(super) pins: Arc<Pins>,
    pub(super) credentials: Credentials,
    pub(super) endpoint: Endpoint,
    pub(super) host: Host,
    pub(super) events: Events,
    pub(super) inputs: Sender<Input>,
    /// The node's own key.
    pub(super) own_key: PublicKey,
    /// Where strangers are heard.
    pub(super) listen: UdpPort,
    /// See [`Options`](super::Options).
    pub(super) forming: Option<(Trust, Answerer)>,
    pub(super) counters: Counters,
    gate: Mutex<Gate>,
    outboxes: RwLock<BTreeMap<MemberId, Arc<Outbox>>>,
    connections: Mutex<BTreeMap<MemberId, Connected>>,
}

/// A connection in use.
pub(super) struct Connected {
    pub(super) connection: Connection,
    pub(super) since: Instant,
    /// The other end is not heard any more.
    pub(super) silent: bool,
    /// Bytes sent and received that are counted already.
    counted: (u64, u64),
}

impl Connected {
    /// One that nothing is counted of yet.
    pub(super) fn new(connection: Connection, since: Instant) -> Self {
        Self { connection, since, silent: false, counted: (0, 0) }
    }

    /// Counts what it has carried since the last time.
    pub(super) fn count(&mut self, metrics: &PeerMetrics) {
        let stats = self.connection.stats();
        let (sent, received) = (stats.udp_tx.bytes, stats.udp_rx.bytes);
        metrics.sent_bytes.add(sent.saturating_sub(self.counted.0));
        metrics.received_bytes.add(received.saturating_sub(self.counted.1));
        self.counted = (sent, received);
    }
}

/// What has happened since the start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) handshakes: AtomicU64,
    pub(super) turned_away: AtomicU64,
}

/// Everything that a [`Shared`] is made from.
pub(super) struct Parts {
    pub(super) own: Identity,
    pub(super) clock: Clock,
    pub(super) pins: Arc<Pins>,
    pub(super) credentials: Credentials,
    pub(super) endpoint: Endpoint,
    pub(super) host: Host,
    pub(super) events: Events,
    pub(super) inputs: Sender<Input>,
    pub(super) own_key: PublicKey,
    pub(super) listen: UdpPort,
    pub(super) forming: Option<(Trust, Answerer)>,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { own, clock, pins, credentials, endpoint, host, events, inputs, own_key, listen, forming } =
            parts;
        Self {
            own,
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
            counters: Counters::default(),
            gate: Mutex::default(),
            outboxes: RwLock::default(),
            connections: Mutex::default(),
        }
    }

    pub(super) fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn outboxes(&self) -> RwLockReadGuard<'_, BTreeMap<MemberId, Arc<Outbox>>> {
        self.outboxes.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn outboxes_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<MemberId, Arc<Outbox>>> {
        self.outboxes.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connections in use.
    pub(super) fn connections(&self) -> MutexGuard<'_, BTreeMap<MemberId, Connected>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
