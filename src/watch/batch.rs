//! Events, made once for all watchers that are told of them.
//!
//! Owns: what counts against the budget of queued events, for exactly as long as anybody holds it. Must never: know how an event looks
//! on the wire. Made by `scan`, held by outlets and whoever sends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::command::KeyValue;
use crate::ids::VersionId;
use crate::store::Change;

/// What an event costs beside its keys and values, in bytes, about.
const EVENT_BYTES: usize = 160;

/// One change, as watchers are told of it.
#[derive(Debug)]
pub struct Event {
    /// Which change.
    pub id: VersionId,
    /// The change.
    pub change: Change,
    /// What the key was one revision before, where a watcher wants to know and it is still known.
    pub previous: Option<KeyValue>,
}

impl Event {
    /// About how much memory it takes, and about how long it is on the wire.
    pub fn bytes(&self) -> usize {
        let change = usize::try_from(self.change.stored_bytes()).unwrap_or(usize::MAX);
        let previous = self.previous.as_ref().map_or(0, |kv| kv.key.len() + kv.value.len());
        change + previous + EVENT_BYTES
    }
}

/// The events of some whole revisions, for all watchers of one scope.
#[derive(Debug)]
pub struct Batch {
    /// In order, at least one.
    pub events: Vec<Arc<Event>>,
    /// Whether the previous values are told.
    pub prev_kv: bool,
    encoded: OnceLock<Bytes>,
    bytes: usize,
    budget: Arc<Budget>,
}

impl Batch {
    /// A batch that counts against `budget` until it is dropped.
    pub fn new(events: Vec<Arc<Event>>, prev_kv: bool, budget: &Arc<Budget>) -> Self {
        assert!(!events.is_empty(), "a batch tells something");
        let bytes = events.iter().map(|event| event.bytes()).sum();
        budget.0.fetch_add(bytes, Ordering::Relaxed);
        Self { events, prev_kv, encoded: OnceLock::new(), bytes, budget: Arc::clone(budget) }
    }

    /// The form on the wire, made by whoever is first to need it. It counts as the events do.
    pub fn encoded(&self, encode: impl FnOnce(&Self) -> Bytes) -> Bytes {
        let encoded = self.encoded.get_or_init(|| {
            let bytes = encode(self);
            self.budget.0.fetch_add(bytes.len(), Ordering::Relaxed);
            bytes
        });
        encoded.clone()
    }

    /// What it counts against bounds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let encoded = self.encoded.get().map_or(0, Bytes::len);
        self.budget.0.fetch_sub(self.bytes + encoded, Ordering::Relaxed);
    }
}

/// Bytes of all batches that are alive.
#[derive(Debug, Default)]
pub struct Budget(AtomicUsize);

impl Budget {
    /// How many there are.
    pub fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
