//! What is live on the client listeners, and what was turned away.
//!
//! Owns: the numbers, and the bound on connections. Must never: be asked to decide anything else. Counted by `server` and `dispatch`, read
//! by metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tonic::Status;

use super::errors;
use crate::limits::REQUESTS_ARRIVING_BYTES_MAX;

/// Connections at a time for those who look whether the node is well, where they have a port of their own: clients leave them their places.
const PROBES_MAX: usize = 32;

/// The numbers of one server.
#[derive(Debug, Default)]
pub struct Counters {
    connections: Arc<AtomicUsize>,
    probes: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
    arriving_bytes: Arc<AtomicUsize>,
    /// Connections taken on since the start.
    accepted: AtomicU64,
    /// Connections closed at once, because too many were open.
    refused: AtomicU64,
    /// Connections that ended before they had said anything sensible: handshakes that failed or took too long, the wrong protocol.
    failed: AtomicU64,
}

/// The calls of one connection.
#[derive(Debug, Default)]
pub struct CallsOfOne(Arc<AtomicUsize>);

impl CallsOfOne {
    /// How many have not ended.
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A call, counted for all connections and for its own.
#[derive(Debug)]
pub struct LiveCall {
    _of_all: Live,
    _of_one: Live,
}

/// Bytes of one request that is not complete, among those of all.
#[derive(Debug)]
pub struct Arriving {
    bytes: usize,
    of_all: Arc<AtomicUsize>,
}

impl Arriving {
    /// Nothing has come yet.
    pub(super) fn new(of_all: &Arc<AtomicUsize>) -> Self {
        Self { bytes: 0, of_all: Arc::clone(of_all) }
    }

    /// So many bytes are there now; an error if that is too much together with those of all the others.
    pub(super) fn set(&mut self, bytes: usize) -> Result<(), Status> {
        let before = std::mem::replace(&mut self.bytes, bytes);
        self.of_all.fetch_sub(before, Ordering::Relaxed);
        let all = self.of_all.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if all > REQUESTS_ARRIVING_BYTES_MAX { Err(errors::too_much_arriving()) } else { Ok(()) }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.of_all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Something that counts for as long as it lives.
#[derive(Debug)]
pub struct Live(Arc<AtomicUsize>);

impl Live {
    fn count(gauge: &Arc<AtomicUsize>) -> (Self, usize) {
        let before = gauge.fetch_add(1, Ordering::Relaxed);
        (Self(Arc::clone(gauge)), before)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counters {
    /// Counts a connection; `None` when `max` are open.
    pub(super) fn connect(&self, max: usize) -> Option<Live> {
        let (live, before) = Live::count(&self.connections);
        if before >= max {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.accepted.fetch_add(1, Ordering::Relaxed);
        Some(live)
    }

    /// Counts a connection on a port for probes; `None` when too many are open.
    pub(super) fn connect_probe(&self) -> Option<Live> {
        let (live, before) = Live::count(&self.probes);
        (before < PROBES_MAX).then_some(live)
    }

    /// Bytes of requests that are not complete.
    pub(super) fn arriving_bytes(&self) -> &Arc<AtomicUsize> {
        &self.arriving_bytes
    }

    /// Counts a call of a connection.
    pub(super) fn call(&self, of: &CallsOfOne) -> LiveCall {
        LiveCall { _of_all: Live::count(&self.calls).0, _of_one: Live::count(&of.0).0 }
    }

    pub(super) fn fail(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// gRPC calls that have not ended.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Connections taken on since the start.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections closed at once, because too many were open.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Connections that failed before the first request.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}
