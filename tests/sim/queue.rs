//! Virtual time: what happens next, and a hash of all that has happened.
//!
//! Owns: the clock, the order of events, the trace. Must never: look at a real clock, or order two events by anything but their time and
//! the order in which they were scheduled. Driven by `world`.

use std::collections::BTreeMap;
use std::time::Duration;

use covey::time::Instant;

/// Events by time; those of one time in the order in which they were scheduled.
pub(crate) struct Queue<E> {
    now: Instant,
    sequence: u64,
    events: BTreeMap<(Instant, u64), E>,
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        Self { now: Instant(0), sequence: 0, events: BTreeMap::new() }
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn after(&mut self, delay: Duration, event: E) {
        self.sequence += 1;
        self.events.insert((self.now + delay, self.sequence), event);
    }

    /// The next event; its time is now.
    pub(crate) fn pop(&mut self) -> Option<E> {
        let ((at, _), event) = self.events.pop_first()?;
        assert!(at >= self.now, "time runs forward");
        self.now = at;
        Some(event)
    }
}

/// A hash over everything that a run did, in order: two runs that differ anywhere differ here.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    hash: u64,
    events: u64,
    verbose: bool,
}

impl Trace {
    pub(crate) fn new(verbose: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, events: 0, verbose }
    }

    /// Notes something that happened; the text is only made when it is shown.
    pub(crate) fn note(&mut self, now: Instant, numbers: &[u64], text: impl FnOnce() -> String) {
        self.events += 1;
        self.mix(&[now.0]);
        self.mix(numbers);
        if self.verbose {
            println!("{:>12.6} {}", Duration::from_nanos(now.0).as_secs_f64(), text());
        }
    }

    pub(crate) fn mix_bytes(&mut self, bytes: &[u8]) {
        self.mix(&[u64::from(crc32c::crc32c(bytes)) << 32 | bytes.len() as u64]);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// Adds numbers to the hash.
    pub(crate) fn mix(&mut self, numbers: &[u64]) {
        for number in numbers {
            let mixed = (self.hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.hash = mixed ^ (mixed >> 29);
        }
    }
}
