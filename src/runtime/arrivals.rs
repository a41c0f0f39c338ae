//! Reads that the core has not been told of yet.
//!
//! Owns: their keys, until a round can take them along. Must never: keep one whose core has stopped. Filled by `Handle`, emptied by the core thread.
//!
//! The core is woken once for all that come together, and not again while a round is on its way.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keys of reads that wait for a round.
pub(super) struct Arrivals {
    /// `None` once the core has stopped.
    keys: Mutex<Option<Vec<u64>>>,
}

/// Nobody will take what arrives.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Closed;

impl Default for Arrivals {
    fn default() -> Self {
        Self { keys: Mutex::new(Some(Vec::new())) }
    }
}

impl Arrivals {
    fn lock(&self) -> MutexGuard<'_, Option<Vec<u64>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a read. Whether it is the first, whose caller has to wake the core.
    pub fn push(&self, key: u64) -> Result<bool, Closed> {
        let mut keys = self.lock();
        let keys = keys.as_mut().ok_or(Closed)?;
        keys.push(key);
        Ok(keys.len() == 1)
    }

    /// All that have come, in their order.
    pub fn take(&self) -> Vec<u64> {
        self.lock().as_mut().map(std::mem::take).unwrap_or_default()
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
