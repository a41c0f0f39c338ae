//! The log's disk as a machine: what waits becomes one write and one sync.
//!
//! Owns: the log while the member runs, the merging of batches, and the order of batches and cuts. Must never: name a batch as durable
//! before its sync has succeeded. Driven by the wal thread of `runtime` and by the simulator.

use std::collections::VecDeque;

use crate::consensus::{Persist, PersistId};
use crate::disk::Directory;
use crate::ids::LogIndex;
use crate::limits::WAL_BATCH_BYTES;
use crate::wal::{Batch, HardState, LogEntry, Position, Usage, Wal, WalError};

/// What the log's writer is asked for, in the order of [`super::CoreOutput`].
#[derive(Debug)]
pub enum LogJob {
    /// Make this durable.
    Persist(Persist),
    /// The state at this position has taken the place of what was there: begin the log anew after it. What waits is written before.
    Reset {
        /// The position.
        to: Position,
    },
    /// Entries before this one are not needed any more.
    Cut {
        /// The first entry that is still needed.
        before: LogIndex,
    },
}

/// Persists that are written together: they follow one another without a gap, so that one batch holds them all.
#[derive(Debug)]
struct Merged {
    hard_state: Option<HardState>,
    entries: Vec<LogEntry>,
    bytes: usize,
    last: PersistId,
}

impl Merged {
    /// Whether `next` can join: its entries continue these, and together they are no larger than a batch should be.
    fn takes(&self, next: &Persist) -> bool {
        let (Some(last), Some(first)) = (self.entries.last(), next.entries.first()) else { return true };
        first.index == last.index.next() && self.bytes + bytes_of(next) <= WAL_BATCH_BYTES
    }

    fn add(&mut self, next: Persist) {
        self.hard_state = next.hard_state.or(self.hard_state);
        self.bytes += bytes_of(&next);
        if self.entries.is_empty() {
            self.entries = next.entries;
        } else {
            self.entries.extend(next.entries);
        }
        self.last = next.id;
    }
}

impl From<Persist> for Merged {
    fn from(first: Persist) -> Self {
        let bytes = bytes_of(&first);
        Self { hard_state: first.hard_state, entries: first.entries, bytes, last: first.id }
    }
}

fn bytes_of(persist: &Persist) -> usize {
    persist.entries.iter().map(|entry| entry.data.len()).sum()
}

/// What waits for its turn.
#[derive(Debug)]
enum Waiting {
    Batch(Merged),
    Reset(Position),
}

/// The log and what waits to be written to it.
///
/// # Contract
///
/// [`LogWriter::handle`] everything that has come, the more at once, the larger the batches. Then [`LogWriter::write`], and as long as
/// it answers `true`, [`LogWriter::sync`], whose id goes to [`super::Core::handle_persisted`], and `write` again. Then, as long as nothing
/// has come meanwhile, [`LogWriter::rest`] until it answers `false`. After an error nothing works any more, but for
/// [`WalError::Full`]: what waits goes on waiting, and is written by the same call once there is room.
pub struct LogWriter<D: Directory> {
    wal: Wal<D>,
    waiting: VecDeque<Waiting>,
    /// Written, and not synced.
    written: Option<PersistId>,
    cut: Option<LogIndex>,
}

impl<D: Directory> LogWriter<D> {
    /// A writer of a log that was just opened.
    pub fn new(wal: Wal<D>) -> Self {
        Self { wal, waiting: VecDeque::new(), written: None, cut: None }
    }

    /// Takes a job; nothing is written yet.
    pub fn handle(&mut self, job: LogJob) {
        match job {
            LogJob::Persist(next) => match self.waiting.back_mut() {
                Some(Waiting::Batch(merged)) if merged.takes(&next) => merged.add(next),
                _ => self.waiting.push_back(Waiting::Batch(next.into())),
            },
            LogJob::Reset { to } => {
                self.waiting.push_back(Waiting::Reset(to));
                self.cut = None;
            }
            LogJob::Cut { before } => self.cut = Some(before),
        }
    }

    /// Writes the next batch; `false` when there is none, so that there is nothing to sync. What is cut costs it a few bytes.
    pub fn write(&mut self) -> Result<bool, WalError> {
        assert!(self.written.is_none(), "one batch is synced before the next is written");
        if let Some(before) = self.cut.take() {
            self.wal.cut(before)?;
        }
        while let Some(waiting) = self.waiting.front() {
            match waiting {
                // The state is in place and durable: a crash before this is through leaves the old log, which the next start resets.
                Waiting::Reset(to) => self.wal.reset(*to)?,
                Waiting::Batch(merged) => {
                    self.wal.append(Batch { hard_state: merged.hard_state, entries: &merged.entries })?;
                    self.written = Some(merged.last);
                }
            }
            self.waiting.pop_front();
            if self.written.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// After [`WalError::Full`]: gives up what the log need not have any more, which is used again; `false` when there is none of that.
    pub fn make_room(&mut self) -> Result<bool, WalError> {
        // A reset may be under way, and work ahead comes between batches.
        self.wal.sync()?;
        self.wal.prepare()
    }

    /// Makes the batch durable that was written last, and names the last persist in it; `None` where there was none.
    pub fn sync(&mut self) -> Result<Option<PersistId>, WalError> {
        // Nothing of the batch is acknowledged before this returns: a crash until here loses only what nobody was told of.
        self.wal.sync()?;
        Ok(self.written.take())
    }

    /// One piece of work ahead for a moment in which nobody waits ([`Wal::prepare`]); `false` when there is none left.
    pub fn rest(&mut self) -> Result<bool, WalError> {
        self.wal.prepare()
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.written.is_none() && self.cut.is_none()
    }

    /// The position before the first entry that the log still has.
    pub fn start(&self) -> Position {
        self.wal.start()
    }

    /// The position of the last entry, written or durable.
    pub fn last(&self) -> Position {
        self.wal.last()
    }

    /// The last hard state written.
    pub fn hard_state(&self) -> HardState {
        self.wal.hard_state()
    }

    /// What the log uses and has done.
    pub fn usage(&self) -> Usage {
        self.wal.usage()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::{FaultPlan, SimDir, Survival};
    use crate::ids::{ClusterId, MemberId, Term};
    use crate::wal::{EntryKind, Identity, Options};

    const IDENTITY: Identity = Identity { cluster: ClusterId(1), member: MemberId(2) };
    const OPTIONS: Options = Options { segment_bytes: 4 * 4096, prefill: true };

    fn writer(disk: &SimDir) -> LogWriter<SimDir> {
        LogWriter::new(Wal::create(disk.clone(), IDENTITY, Position::default(), OPTIONS).unwrap())
    }

    fn persist(id: u64, entries: std::ops::Range<u64>, bytes: usize) -> LogJob {
        let entry = |index| LogEntry {
            index: LogIndex(index),
            term: Term(1),
            kind: EntryKind::Normal,
            data: vec![7; bytes].into(),
        };
        LogJob::Persist(Persist {
            id: PersistId(id),
            hard_state: None,
            entries: entries.map(entry).collect(),
        })
    }

    /// Writes and syncs until nothing waits; the ids in the order in which they became durable.
    fn drive(writer: &mut LogWriter<SimDir>) -> Vec<u64> {
        let mut durable = Vec::new();
        while writer.write().unwrap() {
            durable.push(writer.sync().unwrap().unwrap().0);
        }
        assert!(writer.is_idle());
        durable
    }

    #[test]
    fn what_waits_is_synced_once_and_the_last_id_stands_for_all() {
        let mut writer = writer(&SimDir::new(1));
        writer.handle(persist(1, 1..3, 10));
        writer.handle(persist(2, 3..4, 10));
        let vote = HardState { term: Term(1), vote: Some(MemberId(2)), commit: LogIndex(0) };
        let only_vote = Persist { id: PersistId(3), hard_state: Some(vote), entries: Vec::new() };
        writer.handle(LogJob::Persist(only_vote));
        writer.handle(persist(4, 4..5, 10));
        let syncs = writer.usage().syncs;
        assert_eq!(drive(&mut writer), [4]);
        assert_eq!(writer.usage().syncs - syncs, 1);
        assert_eq!((writer.last().index, writer.hard_state()), (LogIndex(4), vote));
    }

    #[test]
    fn entries_that_replace_others_and_batches_that_grow_too_large_stay_apart() {
        let mut writer = writer(&SimDir::new(1));
        writer.handle(persist(1, 1..4, 10));
        writer.handle(persist(2, 3..5, 10));
        writer.handle(persist(3, 5..6, WAL_BATCH_BYTES));
        writer.handle(persist(4, 6..7, 1));
        assert_eq!(drive(&mut writer), [1, 2, 3, 4]);
        assert_eq!(writer.last().index, LogIndex(6));
    }

    /// The batch that comes with an install names entries after it, which follow nothing that the log has before.
    #[test]
    fn a_reset_comes_between_the_batches_before_and_after_it() {
        let disk = SimDir::new(1);
        let mut writer = writer(&disk);
        writer.handle(persist(1, 1..4, 10));
        writer.handle(LogJob::Cut { before: LogIndex(3) });
        let to = Position { index: LogIndex(9), term: Term(1) };
        writer.handle(LogJob::Reset { to });
        writer.handle(persist(2, 10..12, 10));
        assert_eq!(drive(&mut writer), [1, 2]);
        assert_eq!((writer.start(), writer.last().index), (to, LogIndex(11)));
        assert_eq!(writer.hard_state().commit, LogIndex(9));
    }

    /// A fold lets the log be cut just when those who waited for it send their next batches: these must not wait for the syncs that
    /// moving the floor and using segments again take.
    #[test]
    fn a_batch_right_after_a_fold_is_one_write_and_one_sync() {
        let disk = SimDir::new(1);
        let mut writer = writer(&disk);
        for index in 1..8 {
            writer.handle(persist(index, index..index + 1, 6000));
            drive(&mut writer);
        }
        while writer.rest().unwrap() {}
        let (operations, files) = (disk.operations(), disk.list().unwrap().len());
        writer.handle(LogJob::Cut { before: LogIndex(7) });
        writer.handle(persist(8, 8..9, 10));
        assert_eq!(drive(&mut writer), [8]);
        assert_eq!(disk.operations() - operations, 2);
        assert!(writer.start().index > LogIndex(0));

        writer.handle(persist(9, 9..10, 10));
        drive(&mut writer);
        assert_eq!((disk.operations() - operations, disk.list().unwrap().len()), (4, files));
        let mut pieces = 0;
        while writer.rest().unwrap() {
            pieces += 1;
        }
        assert!(
            pieces >= 3,
            "each segment is a piece of its own, so that a batch waits for one at most: {pieces}"
        );
        assert!(disk.list().unwrap().len() < files);
    }

    /// Nothing of what waits for room is lost, named as durable, or written out of order.
    #[test]
    fn what_a_full_disk_has_no_room_for_waits() {
        let disk = SimDir::new(1);
        let mut writer = writer(&disk);
        disk.plan(FaultPlan { full: true, ..FaultPlan::default() });
        let mut durable = Vec::new();
        for index in 1..8 {
            writer.handle(persist(index, index..index + 1, 6000));
            match writer.write() {
                Ok(written) => {
                    assert!(written && durable.len() as u64 == index - 1);
                    durable.push(writer.sync().unwrap().unwrap().0);
                }
                Err(error) => assert!(error.is_full(), "{error}"),
            }
        }
        assert_eq!(durable, [1, 2], "two segments are there, each with room for one of these");
        assert!(!writer.is_idle() && writer.write().unwrap_err().is_full());
        disk.plan(FaultPlan::default());
        assert_eq!(drive(&mut writer), [7]);
        assert_eq!(Wal::open(disk, IDENTITY, OPTIONS).unwrap().1.last().index, LogIndex(7));
    }

    /// A fold lets the log be cut while a batch waits for room: the log has that room itself.
    #[test]
    fn a_full_disk_is_no_end_to_a_log_that_may_be_cut() {
        let disk = SimDir::new(1);
        let mut writer = writer(&disk);
        disk.plan(FaultPlan { full: true, ..FaultPlan::default() });
        for index in 1..4 {
            writer.handle(persist(index, index..index + 1, 6000));
            if index < 3 {
                assert_eq!(drive(&mut writer), [index]);
            }
        }
        assert!(writer.write().unwrap_err().is_full() && !writer.make_room().unwrap());
        writer.handle(LogJob::Cut { before: LogIndex(2) });
        assert!(writer.write().unwrap_err().is_full());
        while writer.make_room().unwrap() {}
        assert_eq!(drive(&mut writer), [3]);
        assert_eq!(Wal::open(disk, IDENTITY, OPTIONS).unwrap().1.last().index, LogIndex(3));
    }

    #[test]
    fn a_cut_reaches_the_disk_without_a_batch_too() {
        let disk = SimDir::new(1);
        let mut writer = writer(&disk);
        for index in 1..8 {
            writer.handle(persist(index, index..index + 1, 6000));
            drive(&mut writer);
        }
        let start = writer.start();
        writer.handle(LogJob::Cut { before: LogIndex(7) });
        assert!(drive(&mut writer).is_empty());
        let reopen = || Wal::open(disk.crash(Survival::Nothing), IDENTITY, OPTIONS).unwrap().1;
        assert_eq!(reopen().start, start, "nobody has had time for it");
        assert!(writer.rest().unwrap());
        assert!(reopen().start.index > start.index && reopen().start == writer.start());
    }
}
