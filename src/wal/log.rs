//! The writing side of the log.
//!
//! Owns: the open segments and the order in which they are written, synced and used again. Must never: acknowledge before a
//! sync, write after a failure. Driven by the wal thread.

use std::collections::VecDeque;

use super::batch::{Content, Head};
use super::entry::{Batch, HardState, Identity, Position};
use super::error::{WalError, failed};
use super::recovery::{self, Recovered};
use super::sector::{PAGE_SECTORS, Packer, offset_of, sectors_of};
use super::segment::{FIRST_SECTOR, Header, Segment, generation_of, is_draft, seed_of};
use super::span::Span;
use crate::disk::{Directory, File};
use crate::ids::LogIndex;
use crate::limits;

/// Free segments that are kept for later; what a cut frees beyond them is removed.
const SPARES_MAX: usize = 2;
/// A buffer that one large batch has grown beyond this is given back, in bytes.
const BUFFER_KEPT_BYTES: usize = 256 * 1024;
/// The first generation and the first sequence of a log.
const FIRST: u64 = 1;

/// How a log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a segment, a multiple of the page and at least two. Existing segments keep theirs.
    pub segment_bytes: u64,
    /// Fill segments with zeros first and use them again, so that a batch is overwritten in place and its sync writes no metadata.
    /// Off where the filesystem writes every block to a new place anyway.
    pub prefill: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: limits::WAL_SEGMENT_BYTES, prefill: true }
    }
}

/// What the log uses and has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all segments on the disk, free ones too.
    pub disk_bytes: u64,
    /// Bytes of batches written, with checksums and padding to whole sectors.
    pub appended_bytes: u64,
    /// Syncs of batches.
    pub syncs: u64,
}

/// The raft log of one member.
///
/// ```text
/// generation   4            5            6                  7
///              [5,6][7,8,9] [10][9,10']  [11,12,13]  free   (spare)
/// start        4            8            10
///              ^ floor                   ^ active
/// ```
///
/// The second batch of segment 5 replaced entry 9, so everything above 8 is in 5 and later; `cut(9)` gives up segment 4.
///
/// Giving up is never waited for. A cut only says where the floor will be; the next batch, whoever's it is, takes that to the disk, or
/// [`Wal::prepare`] does while nobody writes. What lies below a durable floor is used again, or removed, by `prepare` too, one segment at
/// a time, and else when a batch needs a segment and there is no spare: so the log never grows while it has segments to give.
///
/// ```text
/// cut(9)         4  5  6  7      nothing on the disk: a crash leaves the old floor, which keeps more than is needed
/// next batch     4 |5  6  7      floor 5 is in its head, and counts once it is synced: a crash before leaves the old floor
/// prepare           5  6  7  8   segment 4 has a new header, then a new name: a crash leaves it below the floor, where recovery
///                                removes it, or with a header that contradicts its name, which recovery removes as well
/// ```
///
/// Contract: [`Wal::append`] writes, [`Wal::sync`] makes durable, and there is a sync between two appends (at most one batch can be
/// torn). After an error nothing works any more: what is on the disk is unknown until the log is opened anew. [`WalError::Full`] is the
/// exception: it comes before anything is written, and the same call may be made again.
#[derive(Debug)]
pub struct Wal<D: Directory> {
    dir: D,
    identity: Identity,
    options: Options,
    /// By generation, without gaps: those that count, then the active one, then spares.
    segments: VecDeque<Segment<D::File>>,
    active: usize,
    /// The first generation that counts, on the disk once the last batch is synced.
    floor: u64,
    /// The floor that the next batch brings with it.
    planned_floor: Option<u64>,
    span: Span,
    hard_state: HardState,
    chain: u32,
    next_sequence: u64,
    packer: Packer,
    unsynced: bool,
    poisoned: bool,
    /// The generation that was active when there was no room for a spare behind it.
    spareless: Option<u64>,
    appended_bytes: u64,
    syncs: u64,
}

/// What recovery hands over.
pub(super) struct Parts<F> {
    pub(super) segments: VecDeque<Segment<F>>,
    pub(super) active: usize,
    pub(super) floor: u64,
    pub(super) span: Span,
    pub(super) hard_state: HardState,
    pub(super) chain: u32,
    pub(super) next_sequence: u64,
}

/// Why a batch is written.
#[derive(Clone, Copy)]
enum Purpose {
    Append,
    /// To move the floor where it was planned.
    Cut,
    Reset {
        to: Position,
    },
}

impl<D: Directory> Wal<D> {
    /// Makes a log that begins after `start` (index 0 for a cluster's first members, the snapshot's position for a joiner), with two
    /// segments. Durable when it returns; after a crash in between there is none, and it can be made again.
    pub fn create(dir: D, identity: Identity, start: Position, options: Options) -> Result<Self, WalError> {
        for name in dir.list().map_err(failed("", "list the directory"))? {
            if generation_of(&name).is_some() {
                return Err(WalError::Exists { file: name });
            }
            if is_draft(&name) {
                dir.remove(&name).map_err(failed(&name, "remove"))?;
            }
        }
        let parts = Parts {
            segments: VecDeque::new(),
            active: 0,
            floor: FIRST,
            span: Span::new(start),
            hard_state: HardState { term: start.term, vote: None, commit: start.index },
            chain: 0,
            next_sequence: FIRST,
        };
        let mut wal = Self::with(dir, identity, options, parts);
        // The name comes last: a segment that can be found has a header and a first batch. A crash before leaves a draft.
        wal.segments.push_back(Segment::draft(&wal.dir, wal.header(FIRST, options.segment_bytes))?);
        wal.write(Purpose::Reset { to: start }, Batch::default())?;
        wal.sync()?;
        if let Some(first) = wal.segments.front_mut() {
            first.publish(&wal.dir)?;
        }
        wal.prepare()?;
        Ok(wal)
    }

    /// Opens the log and reads all of it. Everything that [`Recovered`] holds is durable when this returns; what it says was torn
    /// is wiped from the disk.
    pub fn open(dir: D, identity: Identity, options: Options) -> Result<(Self, Recovered), WalError> {
        let (parts, recovered) = recovery::recover(&dir, identity)?;
        Ok((Self::with(dir, identity, options, parts), recovered))
    }

    fn with(dir: D, identity: Identity, options: Options, parts: Parts<D::File>) -> Self {
        let Options { segment_bytes, .. } = options;
        assert!(segment_bytes.is_multiple_of(offset_of(PAGE_SECTORS)), "segments are whole pages");
        assert!(segment_bytes > offset_of(FIRST_SECTOR), "a segment has room for a batch");
        let Parts { segments, active, floor, span, hard_state, chain, next_sequence } = parts;
        Self {
            dir,
            identity,
            options,
            segments,
            active,
            floor,
            planned_floor: None,
            span,
            hard_state,
            chain,
            next_sequence,
            packer: Packer::default(),
            unsynced: false,
            poisoned: false,
            spareless: None,
            appended_bytes: 0,
            syncs: 0,
        }
    }

    /// The position before the first entry that the log still has.
    pub fn start(&self) -> Position {
        self.span.start()
    }

    /// The position of the last entry, written or durable.
    pub fn last(&self) -> Position {
        self.span.last()
    }

    /// The last hard state written.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// What the log uses and has done.
    pub fn usage(&self) -> Usage {
        Usage {
            disk_bytes: self.segments.iter().map(Segment::disk_bytes).sum(),
            appended_bytes: self.appended_bytes,
            syncs: self.syncs,
        }
    }

    /// Writes a batch, which is durable only after [`Wal::sync`]. Entries at or below the last index replace the log from the first
    /// of them on. An empty batch does nothing.
    pub fn append(&mut self, batch: Batch<'_>) -> Result<(), WalError> {
        if batch.entries.is_empty() && batch.hard_state.is_none() {
            return self.guarded(|_| Ok(()));
        }
        self.guarded(|wal| {
            wal.check(&batch);
            wal.write(Purpose::Append, batch)
        })
    }

    /// Makes the last batch durable with one fdatasync; does nothing if it is already.
    pub fn sync(&mut self) -> Result<(), WalError> {
        self.guarded(|wal| {
            if wal.unsynced {
                wal.segments[wal.active].sync()?;
                wal.unsynced = false;
                wal.syncs += 1;
            }
            Ok(())
        })
    }

    /// One piece of work ahead, so that no append has to do it: moves the floor, uses a given up segment again, or makes a spare where
    /// there is none and the disk has room. For moments in which nobody waits; `false` when there is nothing left to do. Durable when it returns, with at most
    /// three syncs.
    pub fn prepare(&mut self) -> Result<bool, WalError> {
        self.guarded(|wal| {
            assert!(!wal.unsynced, "work ahead comes between batches");
            if wal.planned_floor.is_some() {
                return match wal.write(Purpose::Cut, Batch::default()) {
                    // It would be the first batch of another segment: the batch that gets one brings it along.
                    Err(WalError::Full { .. }) => Ok(false),
                    written => {
                        written?;
                        wal.sync()?;
                        Ok(true)
                    }
                };
            }
            if wal.release_one()? {
                return Ok(true);
            }
            let active = wal.segments[wal.active].header.generation;
            // A full disk is not filled again and again for something that nobody needs yet.
            if wal.active + 1 < wal.segments.len() || wal.spareless == Some(active) {
                return Ok(false);
            }
            match wal.extend(wal.options.segment_bytes) {
                Err(WalError::Full { .. }) => {
                    wal.spareless = Some(active);
                    Ok(false)
                }
                made => made.map(|()| true),
            }
        })
    }

    /// Gives up entries below `before`, which a checkpoint covers: whole segments, so that some of them stay. Nothing is written: the
    /// next batch or [`Wal::prepare`] makes it so. A crash until then leaves entries that are not needed.
    pub fn cut(&mut self, before: LogIndex) -> Result<(), WalError> {
        self.guarded(|wal| {
            let covers = |segment: &Segment<_>| segment.start.is_some_and(|start| start.index < before);
            let Some(first) = wal.segments.range(..=wal.active).rposition(covers) else { return Ok(()) };
            let segment = &wal.segments[first];
            let floor = segment.header.generation;
            if floor > wal.planned_floor.unwrap_or(wal.floor) {
                wal.planned_floor = Some(floor);
                if let Some(start) = segment.start {
                    wal.span.advance_start(start.index);
                }
            }
            Ok(())
        })
    }

    /// Forgets all entries and begins anew after `to`, the position of a snapshot that is in place and durable. The hard state stays,
    /// its commit index moves up to `to`. Durable when it returns.
    ///
    /// A crash between the snapshot and this leaves the old log: whoever opens it and finds the store ahead of it resets it again.
    pub fn reset(&mut self, to: Position) -> Result<(), WalError> {
        self.guarded(|wal| {
            assert!(!wal.unsynced, "a reset comes between batches");
            wal.hard_state.commit = wal.hard_state.commit.max(to.index);
            if wal.hard_state.term < to.term {
                (wal.hard_state.term, wal.hard_state.vote) = (to.term, None);
            }
            // The floor moves further than any cut has planned.
            wal.planned_floor = None;
            wal.write(Purpose::Reset { to }, Batch::default())?;
            wal.sync()
        })
    }

    /// Refuses to go on after an error that has left the disk unknown, and remembers one.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, WalError>) -> Result<T, WalError> {
        if self.poisoned {
            return Err(WalError::Poisoned);
        }
        let result = work(self);
        self.poisoned = result.as_ref().is_err_and(|error| !error.is_full());
        result
    }

    /// What raft guarantees and recovery relies on.
    fn check(&self, batch: &Batch<'_>) {
        assert!(!self.unsynced, "one batch is synced before the next is written");
        if let Some(hard_state) = batch.hard_state {
            let old = self.hard_state;
            assert!(
                hard_state.term >= old.term && hard_state.commit >= old.commit,
                "the hard state moves on"
            );
            let revoted = hard_state.vote != old.vote && hard_state.term == old.term && old.vote.is_some();
            assert!(!revoted, "one vote in a term");
        }
        if let Some(first) = batch.entries.first() {
            let last = self.span.last().index;
            assert!(first.index > self.span.start().index, "entries below the log's start were applied");
            assert!(first.index <= last.next(), "entry {} does not follow {last}", first.index);
            let contiguous = |pair: &[super::LogEntry]| {
                pair[1].index == pair[0].index.next() && pair[1].term >= pair[0].term
            };
            assert!(batch.entries.windows(2).all(contiguous), "entries are consecutive, terms never fall");
        }
    }

    fn write(&mut self, purpose: Purpose, batch: Batch<'_>) -> Result<(), WalError> {
        let start = self.start_of(purpose, &batch);
        let hard_state = batch.hard_state.unwrap_or(self.hard_state);
        let head = |floor| Some(Head { floor, start, reset: matches!(purpose, Purpose::Reset { .. }) });
        let active = &self.segments[self.active];
        let reaches_back = active.start.is_none_or(|first| start.index < first.index);
        let mut content = Content { hard_state: batch.hard_state, head: None, entries: batch.entries };
        let floor = self.planned_floor.take();
        if reaches_back || floor.is_some() || !matches!(purpose, Purpose::Append) {
            content = Content { hard_state: Some(hard_state), head: head(self.floor), ..content };
        }
        let mut sectors = sectors_of(content.payload_bytes());
        let mut place = active.place(sectors);
        if place.is_none() {
            content = Content { hard_state: Some(hard_state), head: head(self.floor), ..content };
            sectors = sectors_of(content.payload_bytes());
            self.advance(sectors).inspect_err(|_| self.planned_floor = floor)?;
            place = self.segments[self.active].place(sectors);
        }
        assert!(place.is_some(), "a segment is made to hold the batch");
        let at = place.unwrap_or(FIRST_SECTOR);
        self.floor = match purpose {
            Purpose::Append | Purpose::Cut => floor.unwrap_or(self.floor),
            Purpose::Reset { .. } => self.segments[self.active].header.generation,
        };
        content.head = content.head.and_then(|_| head(self.floor));
        self.put(content, at)?;
        self.hard_state = hard_state;
        self.note(purpose, start, &batch);
        Ok(())
    }

    /// The position that the batch's entries follow.
    fn start_of(&self, purpose: Purpose, batch: &Batch<'_>) -> Position {
        let before = |first: LogIndex| self.span.position(LogIndex(first.0 - 1));
        match (purpose, batch.entries.first()) {
            (Purpose::Reset { to }, _) => to,
            (_, Some(first)) => before(first.index).unwrap_or_else(|| self.span.last()),
            (_, None) => self.span.last(),
        }
    }

    /// Writes a batch to its place in the active segment. A crash before the sync keeps any of its sectors: recovery sees a tear and
    /// drops the batch, or finds all of them and keeps it; both are right, nobody was told.
    fn put(&mut self, content: Content<'_>, at: u64) -> Result<(), WalError> {
        content.pack(self.chain, &mut self.packer);
        self.chain = self.packer.seal(seed_of(self.identity), at, self.next_sequence);
        let bytes = self.packer.bytes();
        let written = bytes.len() as u64;
        let segment = &mut self.segments[self.active];
        self.unsynced = true;
        segment.file.write_at(offset_of(at), bytes).map_err(failed(&segment.name, "write"))?;
        segment.next = at + written / offset_of(1);
        self.next_sequence += 1;
        self.appended_bytes += written;
        self.packer.shrink(BUFFER_KEPT_BYTES);
        Ok(())
    }

    /// Keeps track of what the written batch means for the log and for the segment's start.
    fn note(&mut self, purpose: Purpose, start: Position, batch: &Batch<'_>) {
        if let Purpose::Reset { to } = purpose {
            self.span = Span::new(to);
            self.segments[self.active].start = Some(to);
            return;
        }
        lower(&mut self.segments[self.active].start, start);
        if !batch.entries.is_empty() {
            self.span.truncate(start.index);
            for entry in batch.entries {
                self.span.push(entry.term);
            }
        }
    }

    /// Moves on to a segment that has room for so many sectors. Segments too small for an oversize batch stay empty.
    fn advance(&mut self, sectors: u64) -> Result<(), WalError> {
        let fits = |segment: &Segment<_>| FIRST_SECTOR + sectors <= segment.end();
        // A file that has its zeros is cheaper than a new one, even now that a batch waits for it; and whoever never rests must not grow.
        while !self.segments.range(self.active + 1..).any(fits) && self.release_one()? {}
        if let Some(position) = self.segments.range(self.active + 1..).position(fits) {
            self.active += 1 + position;
            return Ok(());
        }
        let needed = offset_of((FIRST_SECTOR + sectors).next_multiple_of(PAGE_SECTORS));
        self.extend(needed.max(self.options.segment_bytes))?;
        self.active = self.segments.len() - 1;
        Ok(())
    }

    /// Makes a new spare. A crash before the content is synced leaves a draft, one before the name is durable leaves a draft or a whole
    /// segment without a batch: neither is needed yet. Where there is no room for it, what there is of the draft goes: no batch depends on it.
    fn extend(&mut self, length: u64) -> Result<(), WalError> {
        let header = self.header(self.next_generation(), length);
        let made = Segment::draft(&self.dir, header).and_then(|mut segment| {
            segment.sync()?;
            Ok(segment)
        });
        let mut segment = match made {
            Err(error) if error.lacks_room() => return Err(Segment::discard(&self.dir, header)?),
            made => made?,
        };
        segment.publish(&self.dir)?;
        self.segments.push_back(segment);
        Ok(())
    }

    /// Uses the oldest segment below the floor again, or removes it; `false` where there is none. Its end is durable, because the floor
    /// is: a crash leaves it or not, and recovery removes what is below the floor.
    fn release_one(&mut self) -> Result<bool, WalError> {
        assert!(!self.unsynced, "the floor is on the disk");
        if self.segments.front().is_none_or(|oldest| oldest.header.generation >= self.floor) {
            return Ok(false);
        }
        let Some(oldest) = self.segments.pop_front() else { return Ok(false) };
        self.active -= 1;
        let length = self.options.segment_bytes;
        let reusable = self.options.prefill && oldest.header.prefilled && oldest.header.length == length;
        if reusable && self.segments.len() - self.active - 1 < SPARES_MAX {
            let header = self.header(self.next_generation(), length);
            self.segments.push_back(oldest.recycle(&self.dir, header)?);
        } else {
            self.dir.remove(&oldest.name).map_err(failed(&oldest.name, "remove"))?;
        }
        Ok(true)
    }

    fn next_generation(&self) -> u64 {
        self.segments.back().map_or(FIRST, |last| last.header.generation + 1)
    }

    fn header(&self, generation: u64, length: u64) -> Header {
        Header {
            generation,
            identity: self.identity,
            oldest: self.next_sequence,
            length,
            prefilled: self.options.prefill,
        }
    }
}

/// A segment got a batch that continues the log after `start`: what is above is in this segment now. Earlier segments can keep what they
/// know: a cut prefers the latest that will do.
pub(super) fn lower(known: &mut Option<Position>, start: Position) {
    if known.is_none_or(|known| start.index < known.index) {
        *known = Some(start);
    }
}
