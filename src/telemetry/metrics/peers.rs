//! What is counted about the way to one other member.
//!
//! Owns: the instruments. Must never: outlive the member's place, so that there are never more of these than members. Counted by `peer`, shown by
//! `render`.

use std::sync::Arc;
use std::time::Duration;

use super::{Counter, Histogram};
use crate::ids::MemberId;

/// First bucket of etcd's histogram of round trips; each is twice the one before.
const ROUND_TRIP_BUCKET_FIRST: Duration = Duration::from_micros(100);
/// How many buckets it has.
const ROUND_TRIP_BUCKETS: usize = 16;

/// See the module.
#[derive(Debug)]
pub struct PeerMetrics {
    /// Bytes sent in UDP datagrams.
    pub sent_bytes: Counter,
    /// Bytes received in them.
    pub received_bytes: Counter,
    /// Messages that were not sent: it was not connected, or too much waited.
    pub sent_failures: Counter,
    /// Connections that were lost.
    pub disconnects: Counter,
    /// Round trips.
    pub round_trip: Histogram,
}

impl Default for PeerMetrics {
    fn default() -> Self {
        Self {
            sent_bytes: Counter::default(),
            received_bytes: Counter::default(),
            sent_failures: Counter::default(),
            disconnects: Counter::default(),
            round_trip: Histogram::new(ROUND_TRIP_BUCKET_FIRST, ROUND_TRIP_BUCKETS),
        }
    }
}

/// Another member, as monitoring sees it.
#[derive(Clone, Debug)]
pub struct PeerTraffic {
    /// Which.
    pub member: MemberId,
    /// Whether it is connected.
    pub connected: bool,
    /// What was counted.
    pub metrics: Arc<PeerMetrics>,
}
