//! Linearizable reads behind the core: their index is confirmed, and the state has to get there.
//!
//! Owns: which reads wait for which position. Must never: let a read look at a state older than its index. Driven by the threads of
//! `runtime` and by the simulator, with what [`super::CoreOutput::ReadReady`] and [`super::ApplierOutput::Applied`] say.

use std::collections::BTreeMap;

use super::core::ReadId;
use crate::ids::LogIndex;

/// Reads that know their index.
#[derive(Debug)]
pub struct ConfirmedReads {
    applied: LogIndex,
    waiting: BTreeMap<LogIndex, Vec<ReadId>>,
}

impl ConfirmedReads {
    /// Nobody waits; the state is at `applied`.
    pub fn new(applied: LogIndex) -> Self {
        Self { applied, waiting: BTreeMap::new() }
    }

    /// These reads need the state at `index`. Answers those that may look at once: all or none.
    pub fn confirm(&mut self, reads: Vec<ReadId>, index: LogIndex) -> Vec<ReadId> {
        if index <= self.applied {
            return reads;
        }
        self.waiting.entry(index).or_default().extend(reads);
        Vec::new()
    }

    /// The state that can be read has got to `applied`. Answers those who have waited for that.
    pub fn reach(&mut self, applied: LogIndex) -> Vec<ReadId> {
        self.applied = self.applied.max(applied);
        let later = self.waiting.split_off(&self.applied.next());
        std::mem::replace(&mut self.waiting, later).into_values().flatten().collect()
    }

    /// The position that the state has got to.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// Forgets those whose callers have gone.
    pub fn retain(&mut self, waits: impl Fn(ReadId) -> bool) {
        self.waiting.retain(|_, reads| {
            reads.retain(|read| waits(*read));
            !reads.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_waits_for_its_own_index_and_no_longer() {
        let mut reads = ConfirmedReads::new(LogIndex(4));
        assert_eq!(reads.confirm(vec![ReadId(1)], LogIndex(4)), [ReadId(1)]);
        assert!(reads.confirm(vec![ReadId(2), ReadId(3)], LogIndex(9)).is_empty());
        // Another leader's answer may be of an earlier position.
        assert!(reads.confirm(vec![ReadId(4)], LogIndex(6)).is_empty());
        assert!(reads.reach(LogIndex(5)).is_empty());
        assert_eq!(reads.reach(LogIndex(8)), [ReadId(4)]);
        assert!(reads.reach(LogIndex(7)).is_empty());
        assert_eq!(reads.applied(), LogIndex(8), "it does not go back");
        reads.retain(|read| read != ReadId(2));
        assert_eq!(reads.reach(LogIndex(9)), [ReadId(3)]);
    }
}
