//! Reads that the core has not been told of yet.
//!
//! Owns: their keys, until a round can take them along. Must never: keep one whose core has stopped. Filled by `Handle`, emptied by the core thread.
//!
//! The core is woken once for all that come together, not while a round is on its way, and not before as many are there as it waits for.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keys of reads that wait for a round.
pub(super) struct Arrivals {
    /// `None` once the core has stopped.
    inner: Mutex<Option<Inner>>,
}

struct Inner {
    keys: Vec<u64>,
    /// The core is woken for so many.
    wanted: usize,
}

/// Nobody will take what arrives.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Closed;

impl Default for Arrivals {
    fn default() -> Self {
        Self { inner: Mutex::new(Some(Inner { keys: Vec::new(), wanted: 1 })) }
    }
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, Option<Inner>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a read. Whether its caller has to wake the core.
    pub fn push(&self, key: u64) -> Result<bool, Closed> {
        let mut inner = self.lock();
        let inner = inner.as_mut().ok_or(Closed)?;
        inner.keys.push(key);
        Ok(inner.keys.len() == inner.wanted)
    }

    /// How many have come.
    pub fn len(&self) -> usize {
        self.lock().as_ref().map_or(0, |inner| inner.keys.len())
    }

    /// From now on the core is woken when so many are there. Whether they are already, so that nobody will wake it.
    pub fn wait_for(&self, wanted: usize) -> bool {
        self.lock().as_mut().is_some_and(|inner| {
            inner.wanted = wanted;
            inner.keys.len() >= wanted
        })
    }

    /// All that have come, in their order.
    pub fn take(&self) -> Vec<u64> {
        self.lock().as_mut().map(|inner| std::mem::take(&mut inner.keys)).unwrap_or_default()
    }

    /// Lets nothing more in.
    pub fn close(&self) {
        *self.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_is_woken_for_as_many_as_it_waits_for() {
        let arrivals = Arrivals::default();
        assert!(!arrivals.wait_for(3));
        assert_eq!([1, 2, 3, 4].map(|key| arrivals.push(key)), [Ok(false), Ok(false), Ok(true), Ok(false)]);
        assert_eq!(arrivals.len(), 4);
        assert!(arrivals.wait_for(4), "they are there already");
        assert!(!arrivals.wait_for(5));
        assert_eq!((arrivals.push(5), arrivals.take().len(), arrivals.len()), (Ok(true), 5, 0));
    }

    #[test]
    fn only_the_first_of_a_group_wakes_the_core() {
        let arrivals = Arrivals::default();
        assert_eq!([1, 2, 3].map(|key| arrivals.push(key)), [Ok(true), Ok(false), Ok(false)]);
        assert_eq!(arrivals.take(), [1, 2, 3]);
        assert_eq!(arrivals.push(4), Ok(true));
        arrivals.close();
        assert_eq!(arrivals.push(5), Err(Closed));
        assert_eq!(arrivals.take(), [0; 0]);
    }
}
