//! The part of the log that raft reads: entries in memory, from a start position to the last one.
//!
//! Owns: the entries that are not yet in the store's checkpoint, and a bounded tail of older ones for followers. Must never:
//! touch a disk (the write-ahead log persists the same entries on its own thread). Driven by `Consensus`.
//!
//! ```text
//!        start          checkpoint C                      last
//!   ──────┼──────────────────┼──────────────────────────────┤
//!    cut  │  tail, bounded   │  needed to rebuild the state │
//! ```

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::limits::LOG_OFFERED_BYTES_MAX;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// What an entry costs in memory beyond its data, in bytes.
const ENTRY_OVERHEAD_BYTES: usize = size_of::<Entry>();

/// Raft's view of the log. Positions here are plain numbers because they are raft's own.
pub(super) struct LogStore {
    /// What raft is told once, at its start.
    initial: RaftState,
    /// Index and term of the entry before the first one kept.
    start: (u64, u64),
    entries: VecDeque<Entry>,
    /// Entries at or below this are in the store's checkpoint and only kept for followers.
    checkpoint: u64,
    /// Bytes of the entries from the start to the checkpoint.
    tail_bytes: usize,
    /// Followers that raft wanted a snapshot for in vain. Raft asks through a shared reference.
    wanted: RefCell<BTreeSet<u64>>,
    /// The snapshots, without their state, that raft may send, by follower.
    offers: BTreeMap<u64, Snapshot>,
}

impl LogStore {
    /// A log after `start` (index, term). `entries` must follow it without a gap.
    pub(super) fn new(
        start: (u64, u64),
        entries: Vec<Entry>,
        hard_state: HardState,
        conf_state: ConfState,
    ) -> Self {
        for (expected, entry) in (start.0 + 1..).zip(&entries) {
            assert_eq!(entry.index, expected, "the log has a gap");
        }
        Self {
            initial: RaftState::new(hard_state, conf_state),
            start,
            entries: entries.into(),
            checkpoint: start.0,
            tail_bytes: 0,
            wanted: RefCell::default(),
            offers: BTreeMap::new(),
        }
    }

    /// Begins anew after a snapshot's position (index, term).
    pub(super) fn restore(&mut self, start: (u64, u64)) {
        assert!(start.0 >= self.checkpoint, "the state does not go back");
        self.start = start;
        self.checkpoint = start.0;
        self.entries.clear();
        self.tail_bytes = 0;
    }

    /// Lets raft send this snapshot to a follower; false when the entries after it are gone.
    pub(super) fn offer(&mut self, to: u64, snapshot: Snapshot) -> bool {
        self.offers.insert(to, snapshot);
        self.offer_holds(to)
    }

    /// Takes an offer back.
    pub(super) fn withdraw(&mut self, to: u64) {
        self.offers.remove(&to);
    }

    /// The position that a follower is offered.
    pub(super) fn offered(&self, to: u64) -> Option<u64> {
        self.offers.get(&to).map(|snapshot| snapshot.get_metadata().index)
    }

    /// Whether a follower that takes the offer can go on from there.
    pub(super) fn offer_holds(&self, to: u64) -> bool {
        self.offered(to).is_some_and(|index| index >= self.start.0)
    }

    /// Whom raft wanted a snapshot for since the last call.
    pub(super) fn take_wanted(&mut self) -> BTreeSet<u64> {
        std::mem::take(self.wanted.get_mut())
    }

    /// The last index; the start's when nothing follows it.
    pub(super) fn last(&self) -> u64 {
        self.start.0 + self.entries.len() as u64
    }

    /// Up to where the store holds the state.
    pub(super) fn checkpoint(&self) -> u64 {
        self.checkpoint
    }

    /// The first index whose entry is kept.
    pub(super) fn first(&self) -> u64 {
        self.start.0 + 1
    }

    /// Adds entries, dropping those that they replace: a follower's uncommitted tail may contradict a new leader's log.
    pub(super) fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        assert!(first > self.checkpoint, "a checkpointed entry is never replaced");
        assert!(first <= self.last() + 1, "the log has a gap");
        self.entries.truncate(self.offset(first));
        self.entries.extend(entries);
    }

    /// Notes that the store holds everything up to `checkpoint`, and lets go of the oldest entries until at most
    /// `tail_max` bytes of checkpointed ones are left.
    pub(super) fn cut(&mut self, checkpoint: u64, tail_max: usize) {
        assert!(checkpoint <= self.last(), "the checkpoint is ahead of the log");
        if checkpoint > self.checkpoint {
            let newly = self.offset(self.checkpoint + 1)..self.offset(checkpoint + 1);
            self.tail_bytes += self.entries.range(newly).map(entry_bytes).sum::<usize>();
            self.checkpoint = checkpoint;
        }
        // Who installs an offered snapshot goes on after it: a fold in the meantime must not take that away.
        let offered = self.offers.values().map(|snapshot| snapshot.get_metadata().index).min();
        while self.tail_bytes > tail_max {
            let needed = offered.is_some_and(|offered| self.start.0 >= offered);
            if needed && self.tail_bytes <= LOG_OFFERED_BYTES_MAX {
                break;
            }
            let Some(entry) = self.entries.pop_front() else { break };
            assert!(entry.index <= self.checkpoint, "entries after the checkpoint are never cut");
            self.tail_bytes -= entry_bytes(&entry);
            self.start = (entry.index, entry.term);
        }
        // A burst must not hold its peak of memory for good.
        if self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    fn offset(&self, index: u64) -> usize {
        usize::try_from(index - self.first()).unwrap_or(usize::MAX)
    }
}

/// What an entry counts against a bound on memory.
pub(super) fn entry_bytes(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + ENTRY_OVERHEAD_BYTES
}

impl Storage for LogStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(StorageError::Compacted.into());
        }
        assert!(high <= self.last() + 1, "raft asks beyond the log's end");
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0;
        let within = |entry: &&Entry| {
            let first = size == 0;
            size += entry_bytes(entry) as u64;
            first || size <= max_size
        };
        Ok(self.entries.range(self.offset(low)..self.offset(high)).take_while(within).cloned().collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.start.0 {
            return Ok(self.start.1);
        }
        if index < self.start.0 {
            return Err(StorageError::Compacted.into());
        }
        match self.entries.get(self.offset(index)) {
            Some(entry) => Ok(entry.term),
            None => Err(StorageError::Unavailable.into()),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// The state is not here. A follower behind the tail waits until whoever drives this room has brought it the state and offers
    /// its position.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let offer = self.offers.get(&to).filter(|_| self.offer_holds(to));
        if let Some(snapshot) = offer.filter(|snapshot| snapshot.get_metadata().index >= request_index) {
            return Ok(snapshot.clone());
        }
        self.wanted.borrow_mut().insert(to);
        Err(StorageError::SnapshotTemporarilyUnavailable.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64, bytes: usize) -> Entry {
        Entry { index, term, data: vec![7; bytes].into(), ..Entry::default() }
    }

    fn store(start: (u64, u64), entries: Vec<Entry>) -> LogStore {
        LogStore::new(start, entries, HardState::default(), ConfState::default())
    }

    fn indexes(store: &LogStore, low: u64, high: u64, max: u64) -> Vec<u64> {
        let entries = store.entries(low, high, max, GetEntriesContext::empty(false)).unwrap();
        entries.iter().map(|entry| entry.index).collect()
    }

    #[test]
    fn reads_are_bounded_by_position_and_bytes() {
        let store = store((4, 2), (5..10).map(|index| entry(index, 3, 1000)).collect());
        assert_eq!((store.first(), store.last()), (5, 9));
        assert_eq!(indexes(&store, 6, 9, u64::MAX), [6, 7, 8]);
        assert_eq!(indexes(&store, 5, 10, 2500), [5, 6]);
        assert_eq!(indexes(&store, 5, 10, 0), [5], "one entry at least, or raft never gets on");
        assert_eq!(store.term(4).unwrap(), 2);
        assert_eq!(store.term(9).unwrap(), 3);
        assert!(store.term(3).is_err() && store.term(10).is_err());
        assert!(store.entries(4, 6, None, GetEntriesContext::empty(false)).is_err());
    }

    #[test]
    fn a_newer_leader_replaces_the_tail() {
        let mut store = store((1, 1), (2..6).map(|index| entry(index, 1, 0)).collect());
        store.append(vec![entry(4, 2, 0)]);
        assert_eq!(store.last(), 4);
        assert_eq!((store.term(3).unwrap(), store.term(4).unwrap()), (1, 2));
        store.append(vec![entry(5, 2, 0), entry(6, 2, 0)]);
        assert_eq!(store.last(), 6);
    }

    #[test]
    fn a_cut_keeps_what_the_checkpoint_lacks_and_a_bounded_tail() {
        let mut store = store((1, 1), (2..=11).map(|index| entry(index, 1, 1000)).collect());
        let one = 1000 + ENTRY_OVERHEAD_BYTES;
        store.cut(8, 3 * one);
        assert_eq!(store.first(), 6, "three of the seven checkpointed entries fit");
        store.cut(8, 0);
        assert_eq!((store.first(), store.last()), (9, 11));
        assert_eq!(store.term(8).unwrap(), 1, "the term before the first entry is still known");
        store.cut(11, 0);
        assert_eq!((store.first(), store.last()), (12, 11));
        store.append(vec![entry(12, 2, 0)]);
        assert_eq!(indexes(&store, 12, 13, 0), [12]);
    }
}
