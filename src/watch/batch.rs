//! Events, made once for all watchers that are told of them.
//!
//! Owns: what counts against the budget of queued events, for exactly as long as anybody holds it. Must never: know how an event looks
//! on the wire. Made by `scan`, held by outlets and whoever sends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

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

/// Makes the form on the wire of events, with previous values or without.
pub type Encode = fn(&[Arc<Event>], bool) -> Bytes;

/// The events of one revision that has very many: encoded in parts as they are found, for as events they would take many times as much.
#[derive(Clone, Debug, Default)]
pub struct Long {
    events: usize,
    bytes: usize,
    parts: Vec<Bytes>,
}

impl Long {
    /// Adds the next ones.
    pub fn push(&mut self, events: usize, part: Bytes) {
        self.events += events;
        self.bytes += part.len();
        self.parts.push(part);
    }

    /// How many bytes they are together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The events of some whole revisions, for all watchers of one scope: as events until somebody has encoded them, as bytes from then on.
#[derive(Debug)]
pub struct Batch {
    /// Whether the previous values are told.
    pub prev_kv: bool,
    len: usize,
    bytes: usize,
    /// Empty once they are encoded.
    events: Mutex<Vec<Arc<Event>>>,
    /// What comes after them.
    long: Long,
    encoded: OnceLock<Vec<Bytes>>,
    counted: Counted,
}

impl Batch {
    /// A batch of `events` and the longer revision behind them, if there is any of that.
    pub fn of(events: Vec<Arc<Event>>, long: Long, prev_kv: bool, budget: &Arc<Budget>) -> Option<Self> {
        (events.len() + long.events > 0).then(|| Self::new(events, long, prev_kv, budget))
    }

    /// A batch of `events` and the longer revision behind them, which counts against `budget` until it is dropped.
    pub fn new(events: Vec<Arc<Event>>, long: Long, prev_kv: bool, budget: &Arc<Budget>) -> Self {
        let len = events.len() + long.events;
        assert!(len > 0, "a batch tells something");
        let bytes = events.iter().map(|event| event.bytes()).sum::<usize>() + long.bytes;
        Self {
            prev_kv,
            len,
            bytes,
            long,
            events: Mutex::new(events),
            encoded: OnceLock::new(),
            counted: Counted::new(budget, bytes),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Event>>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many events it has: at least one.
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The events in order, as long as nobody has encoded them; not those of a long revision.
    pub fn events(&self) -> Vec<Arc<Event>> {
        self.lock().clone()
    }

    /// The form on the wire, in pieces, made by whoever is first to need it. From then on it is all that is kept, and what counts.
    pub fn encoded(&self, encode: impl FnOnce(&[Arc<Event>]) -> Bytes) -> &[Bytes] {
        self.encoded.get_or_init(|| {
            let events = std::mem::take(&mut *self.lock());
            let first = (!events.is_empty()).then(|| encode(&events));
            let encoded: Vec<Bytes> = first.into_iter().chain(self.long.parts.iter().cloned()).collect();
            self.counted.change(encoded.iter().map(Bytes::len).sum());
            encoded
        })
    }

    /// Counts a copy of some of it for as long as the result lives.
    pub fn count_copy(&self, bytes: usize) -> Counted {
        Counted::new(&self.counted.budget, bytes)
    }

    /// What it counts in a queue.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Bytes of all batches that are alive, and of what was copied out of them.
#[derive(Debug, Default)]
pub struct Budget(AtomicUsize);

impl Budget {
    /// How many there are.
    pub fn used(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A part of the budget, given back when dropped.
#[derive(Debug)]
pub struct Counted {
    budget: Arc<Budget>,
    bytes: AtomicUsize,
}

impl Counted {
    fn new(budget: &Arc<Budget>, bytes: usize) -> Self {
        budget.0.fetch_add(bytes, Ordering::Relaxed);
        Self { budget: Arc::clone(budget), bytes: AtomicUsize::new(bytes) }
    }

    fn change(&self, bytes: usize) {
        self.budget.0.fetch_add(bytes, Ordering::Relaxed);
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        self.budget.0.fetch_sub(before, Ordering::Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{LeaseId, Revision};
    use crate::store::ChangeKind;

    fn event(key: &[u8]) -> Arc<Event> {
        let id = VersionId { main: Revision(2), sub: 0 };
        let change = Change { key: Bytes::copy_from_slice(key), kind: ChangeKind::Delete };
        Arc::new(Event { id, change, previous: None })
    }

    /// Of the two forms, only one is held and counted; the second reader finds what the first has made.
    #[test]
    fn what_counts_is_what_is_held() {
        let budget = Arc::default();
        let events = vec![event(b"a"), event(b"key")];
        let witness = Arc::downgrade(&events[0]);
        let batch = Batch::new(events, Long::default(), false, &budget);
        assert_eq!((batch.len(), budget.used()), (2, batch.bytes()));
        assert!(batch.bytes() > 2 * EVENT_BYTES + 4, "{}", batch.bytes());
        let encoded = batch.encoded(|events| Bytes::copy_from_slice(&events[1].change.key));
        assert_eq!(
            (encoded, budget.used(), witness.strong_count()),
            (&[Bytes::from_static(b"key")][..], 3, 0)
        );
        assert_eq!(batch.encoded(|_| unreachable!("it is encoded")), encoded);
        let copy = batch.count_copy(40);
        assert_eq!(budget.used(), 43);
        drop(batch);
        assert_eq!(budget.used(), 40, "the copy lives on");
        drop(copy);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_long_revision_follows_what_is_encoded_later() {
        let budget = Arc::default();
        let mut long = Long::default();
        long.push(3, Bytes::from_static(b"three"));
        long.push(1, Bytes::from_static(b"1"));
        let batch = Batch::new(vec![event(b"a")], long.clone(), false, &budget);
        assert_eq!((batch.len(), batch.bytes(), budget.used()), (5, event(b"a").bytes() + 6, batch.bytes()));
        assert_eq!(batch.encoded(|_| Bytes::from_static(b"e")), ["e", "three", "1"]);
        assert_eq!(budget.used(), 7);
        let alone = Batch::new(Vec::new(), long, false, &budget);
        assert_eq!(alone.encoded(|_| unreachable!("there is nothing to encode")), ["three", "1"]);
    }

    #[test]
    fn what_a_key_was_before_counts_too() {
        let bare = event(b"key");
        let previous = KeyValue {
            key: Bytes::from_static(b"key"),
            value: Bytes::from_static(&[b'v'; 1000]),
            create_revision: Revision(1),
            mod_revision: Revision(1),
            version: 1,
            lease: LeaseId::NONE,
        };
        let full = Event { id: bare.id, change: bare.change.clone(), previous: Some(previous) };
        assert_eq!(full.bytes(), bare.bytes() + 1003);
    }
}
