//! The reading side of the log: what is on the disk after any crash, or why it is not a log.
//!
//! Owns: the judgement between a tear and damage (see the room's `mod.rs`). Must never: return an entry that was not written, or drop one that
//! was synced. Driven by [`super::Wal::open`].

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;

use super::batch::{self, Decoded};
use super::entry::{HardState, Identity, LogEntry, Position};
use super::error::{Damage, WalError, failed};
use super::log::{Parts, lower};
use super::sector::{COUNTER_MAX, PAYLOAD, Reader, SECTOR, State, offset_of, sectors_of, stored_checksum};
use super::segment::{
    FIRST_SECTOR, Header, Segment, candidates, generation_of, is_draft, name_of, sync_names,
};
use super::span::Span;
use crate::disk::{Directory, File};
use crate::ids::LogIndex;

/// Sectors that one write of wiping takes.
const WIPE_SECTORS: usize = 16;

/// What was in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The last hard state.
    pub hard_state: HardState,
    /// The position before the first entry.
    pub start: Position,
    /// The entries, from `start.index + 1` on without gaps. Those of one batch share its memory.
    pub entries: Vec<LogEntry>,
    /// The batch that was being written when the machine died, where there are remains of it. It had not been synced.
    pub tear: Option<Tear>,
}

impl Recovered {
    /// Whether the log has this position: as an entry, or as the one before its first.
    pub fn contains(&self, position: Position) -> bool {
        let at = self.entries.partition_point(|entry| entry.index < position.index);
        let entry = self.entries.get(at).map(|entry| Position { index: entry.index, term: entry.term });
        self.start == position || entry == Some(position)
    }

    /// The position of the last entry, or `start` where there is none.
    pub fn last(&self) -> Position {
        let last = self.entries.last();
        last.map_or(self.start, |entry| Position { index: entry.index, term: entry.term })
    }
}

/// Where remains of an unfinished batch were wiped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tear {
    /// The file.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: u64,
}

/// Sectors of one segment that carry the sequence which is due.
struct Remains {
    segment: usize,
    first: u64,
    last: u64,
}

/// What is at a place where a batch could begin.
enum Found {
    Batch(Box<Located>),
    /// Nothing that was written since the segment was made, or another batch's sectors.
    Absent,
    /// Some of its sectors are there, in place of others is what was there before.
    Torn,
    /// No crash leaves it so.
    Bad {
        sector: u64,
        what: Damage,
    },
}

struct Located {
    decoded: Decoded,
    sequence: u64,
    chain: u32,
    /// The first sector behind it.
    next: u64,
}

pub(super) fn recover<D: Directory>(
    dir: &D,
    identity: Identity,
) -> Result<(Parts<D::File>, Recovered), WalError> {
    let Files { mut segments, obsolete } = Files::open(dir, identity)?;
    let before = before_gap(&segments);
    let mut released: Vec<_> = segments.drain(..before).map(|segment| segment.name).collect();
    released.extend(obsolete);
    let oldest = segments.front().map_or(0, |segment| segment.header.generation);

    let mut replay = Replay::new(segments.len());
    let active = replay.run(&segments)?;
    let Some(last) = replay.last else {
        let first = segments.front().map_or("", |segment| &segment.name);
        return Err(corrupt(first, 0, Damage::Empty));
    };
    if replay.floor < oldest {
        return Err(corrupt(&name_of(oldest - 1), 0, Damage::Missing));
    }
    let remains = remains(&segments, active, &replay)?;
    for (segment, extent) in segments.iter_mut().zip(&replay.extents) {
        (segment.start, segment.next) = (extent.start, extent.next);
    }
    let tear = wipe(&mut segments, &remains)?;
    // Batches may have been read from the page cache only, after the process alone had died: raft is about to count on them. And a
    // name may be as young: without it the next sync would be for nothing.
    if let Some(segment) = segments.get_mut(active) {
        segment.sync()?;
    }
    let below = segments.partition_point(|segment| segment.header.generation < replay.floor);
    released.extend(segments.drain(..below).map(|segment| segment.name));
    for name in &released {
        dir.remove(name).map_err(failed(name, "remove"))?;
    }
    sync_names(dir)?;
    replay.finish(segments, active - below, last, tear)
}

/// The files of the directory that could be the log's.
struct Files<F> {
    /// By generation.
    segments: VecDeque<Segment<F>>,
    /// Drafts, and segments that were about to be used again.
    obsolete: Vec<String>,
}

impl<F: File> Files<F> {
    fn open<D: Directory<File = F>>(dir: &D, identity: Identity) -> Result<Self, WalError> {
        let mut obsolete = Vec::new();
        let mut names = BTreeMap::new();
        for name in dir.list().map_err(failed("", "list the directory"))? {
            if let Some(generation) = generation_of(&name) {
                names.insert(generation, name);
            } else if is_draft(&name) {
                obsolete.push(name);
            }
        }
        let mut segments = VecDeque::new();
        for (generation, name) in names {
            let file = dir.open(&name).map_err(failed(&name, "open"))?;
            let header = read_header(&file, &name, identity)?;
            if header.generation == generation {
                segments.push_back(Segment { name, file, header, start: None, next: FIRST_SECTOR });
            } else {
                // The header is replaced before the name. Should the generation in the name still count, it will be missed.
                obsolete.push(name);
            }
        }
        if segments.is_empty() { Err(WalError::Absent) } else { Ok(Self { segments, obsolete }) }
    }
}

fn read_header<F: File>(file: &F, name: &str, identity: Identity) -> Result<Header, WalError> {
    let mut reader = Reader::new(file, name, 0)?;
    let header = Header::decode(reader.sector(0)?, name)?;
    if header.identity != identity {
        return Err(WalError::WrongIdentity {
            file: name.to_owned(),
            found: header.identity,
            expected: identity,
        });
    }
    if header.prefilled && reader.length() < header.length {
        return Err(corrupt(name, 0, Damage::Truncated));
    }
    Ok(header)
}

/// How many segments lie before the last gap between generations. Those that are being given up vanish in any order, so they may
/// leave gaps; the log itself has none.
fn before_gap<F>(segments: &VecDeque<Segment<F>>) -> usize {
    let generations = segments.iter().map(|segment| segment.header.generation);
    let pairs = generations.clone().zip(generations.skip(1));
    pairs.enumerate().filter(|(_, (a, b))| a + 1 != *b).last().map_or(0, |(number, _)| number + 1)
}

/// The log as it takes shape, batch by batch.
struct Replay {
    span: Span,
    entries: Vec<LogEntry>,
    hard_state: HardState,
    floor: u64,
    /// Chain and sequence of the last batch; `None` before the first.
    last: Option<(u32, u64)>,
    /// What is known of each segment.
    extents: Vec<Extent>,
}

/// See the fields of the same names in [`Segment`].
#[derive(Clone)]
struct Extent {
    start: Option<Position>,
    next: u64,
}

/// What lies behind the last batch.
enum Ahead {
    /// The batch that is due, at this sector.
    Batch(u64, Box<Located>),
    Nothing,
    /// What no crash leaves, unless the log goes on elsewhere: then it is a gap that nobody needs.
    Bad(WalError),
}

impl Replay {
    fn new(segments: usize) -> Self {
        Self {
            extents: vec![Extent { start: None, next: FIRST_SECTOR }; segments],
            span: Span::new(Position::default()),
            entries: Vec::new(),
            hard_state: HardState::default(),
            floor: 0,
            last: None,
        }
    }

    fn due(&self) -> Option<u64> {
        self.last.map(|(_, sequence)| sequence + 1)
    }

    /// Reads batch after batch, from the first segment on; returns which one holds the last.
    fn run<F: File>(&mut self, segments: &VecDeque<Segment<F>>) -> Result<usize, WalError> {
        let mut current = 0;
        while let Some(segment) = segments.get(current) {
            let mut reader = segment.reader()?;
            let mut found = self.within(&mut reader, segment, self.extents[current].next)?;
            while let Ahead::Batch(at, located) = found {
                self.take(current, segment, at, *located)?;
                found = self.within(&mut reader, segment, self.extents[current].next)?;
            }
            let next = self.continuation(segments, current);
            match (found, next) {
                (Ahead::Bad(error), _) if self.last.is_none() => return Err(error),
                (_, Ok(Some(next))) => current = next,
                (Ahead::Bad(error), _) | (_, Err(error)) => return Err(error),
                (_, Ok(None)) => return Ok(current),
            }
        }
        Ok(current)
    }

    /// The batch that is due, if it is in this segment behind its sector `next`.
    fn within<F: File>(
        &self,
        reader: &mut Reader<'_, F>,
        segment: &Segment<F>,
        next: u64,
    ) -> Result<Ahead, WalError> {
        let mut bad = None;
        for at in candidates(next) {
            match find(reader, segment, at, self.due())? {
                Found::Batch(located) if self.continues(&located) => return Ok(Ahead::Batch(at, located)),
                Found::Batch(_) => bad = bad.or(Some((at, Damage::Chain))),
                Found::Bad { sector, what } => bad = bad.or(Some((sector, what))),
                Found::Absent | Found::Torn => {}
            }
        }
        Ok(bad.map_or(Ahead::Nothing, |(sector, what)| Ahead::Bad(segment.corrupt(sector, what))))
    }

    /// The later segment that begins with the batch that is due. Those in between were too small for it.
    fn continuation<F: File>(
        &self,
        segments: &VecDeque<Segment<F>>,
        current: usize,
    ) -> Result<Option<usize>, WalError> {
        let mut bad = None;
        for (number, segment) in segments.iter().enumerate().skip(current + 1) {
            match self.within(&mut segment.reader()?, segment, FIRST_SECTOR)? {
                Ahead::Batch(..) => return Ok(Some(number)),
                Ahead::Bad(error) => bad = bad.or(Some(error)),
                Ahead::Nothing => {}
            }
        }
        bad.map_or(Ok(None), Err)
    }

    fn continues(&self, located: &Located) -> bool {
        self.last.is_none_or(|(chain, _)| located.decoded.previous == chain)
    }

    /// Takes a batch of a segment in.
    fn take<F: File>(
        &mut self,
        number: usize,
        segment: &Segment<F>,
        at: u64,
        located: Located,
    ) -> Result<(), WalError> {
        let Located { decoded, sequence, chain, next } = located;
        let (start, reset) =
            self.apply(decoded, at == FIRST_SECTOR).map_err(|what| segment.corrupt(at, what))?;
        if self.floor > segment.header.generation {
            return Err(segment.corrupt(at, Damage::Layout));
        }
        self.extents[number].next = next;
        if reset {
            self.extents[number].start = Some(start);
            self.floor = segment.header.generation;
        } else {
            lower(&mut self.extents[number].start, start);
        }
        self.last = Some((chain, sequence));
        Ok(())
    }

    /// Takes a batch in; returns the position that it continues, and whether it reset the log.
    fn apply(&mut self, decoded: Decoded, starts_segment: bool) -> Result<(Position, bool), Damage> {
        let Decoded { hard_state, head, entries, .. } = decoded;
        if starts_segment && (head.is_none() || hard_state.is_none()) {
            return Err(Damage::Layout);
        }
        if self.last.is_none() {
            self.span = Span::new(head.map_or_else(Position::default, |head| head.start));
        }
        let first = entries.first().map(|entry| LogIndex(entry.index.0 - 1));
        let start = match (head, first) {
            (Some(head), Some(before)) if before != head.start.index => return Err(Damage::Layout),
            (Some(head), _) => head.start,
            (None, Some(before)) => self.span.position(before).ok_or(Damage::Gap)?,
            (None, None) => self.span.last(),
        };
        let reset = head.is_some_and(|head| head.reset);
        if reset || start.index < self.span.start().index {
            self.span = Span::new(start);
            self.entries.clear();
        } else if self.span.position(start.index) != Some(start) {
            return Err(Damage::Gap);
        }
        if first.is_some() {
            self.truncate(start.index);
        }
        for entry in entries {
            self.span.push(entry.term);
            self.entries.push(entry);
        }
        self.floor = head.map_or(self.floor, |head| head.floor.max(self.floor));
        self.hard_state = hard_state.unwrap_or(self.hard_state);
        Ok((start, reset))
    }

    fn truncate(&mut self, index: LogIndex) {
        self.span.truncate(index);
        let kept = self.entries.partition_point(|entry| entry.index <= index);
        self.entries.truncate(kept);
    }

    fn finish<F>(
        mut self,
        segments: VecDeque<Segment<F>>,
        active: usize,
        last: (u32, u64),
        tear: Option<Tear>,
    ) -> Result<(Parts<F>, Recovered), WalError> {
        let first = segments.front();
        let start = first.and_then(|first| first.start).ok_or_else(|| {
            // The floor stands at a segment that begins without a batch.
            corrupt(first.map_or("", |first| &first.name), offset_of(FIRST_SECTOR), Damage::LaterBatch)
        })?;
        self.span.advance_start(start.index);
        let gone = self.entries.partition_point(|entry| entry.index <= start.index);
        self.entries.drain(..gone);
        let Self { span, entries, hard_state, floor, .. } = self;
        let recovered = Recovered { hard_state, start: span.start(), entries, tear };
        let (chain, next_sequence) = (last.0, last.1 + 1);
        Ok((Parts { segments, active, floor, span, hard_state, chain, next_sequence }, recovered))
    }
}

/// Looks for a batch at a place; `due` is the sequence it must have, where that is known.
fn find<F: File>(
    reader: &mut Reader<'_, F>,
    segment: &Segment<F>,
    at: u64,
    due: Option<u64>,
) -> Result<Found, WalError> {
    if at >= segment.end() {
        return Ok(Found::Absent);
    }
    let sequence = match reader.state(at)? {
        State::Damaged => return Ok(Found::Bad { sector: at, what: Damage::Checksum }),
        State::Written { sequence, leads: true } if sequence >= segment.header.oldest => sequence,
        State::Written { .. } | State::Zero => return Ok(Found::Absent),
    };
    if due.is_some_and(|due| due != sequence) || sequence == COUNTER_MAX {
        return Ok(Found::Absent);
    }
    let length = batch::payload_length(reader.sector(at)?);
    let sectors = sectors_of(length);
    if length < batch::PREFIX_BYTES || sectors > segment.end() - at {
        return Ok(Found::Bad { sector: at, what: Damage::Layout });
    }
    let mut payload = BytesMut::new();
    let mut chain = 0;
    for sector in at..at + sectors {
        match reader.state(sector)? {
            State::Written { sequence: own, leads } if own == sequence && leads == (sector == at) => {}
            State::Written { sequence: other, .. } if other >= segment.header.oldest => {
                return Ok(Found::Bad { sector, what: Damage::Sequence });
            }
            State::Written { .. } | State::Zero => return Ok(Found::Torn),
            State::Damaged => return Ok(Found::Bad { sector, what: Damage::Checksum }),
        }
        if payload.is_empty() {
            // The length is a claim; the file's own is a fact.
            payload.reserve(length.min(usize::try_from(reader.length()).unwrap_or(length)));
        }
        let bytes = reader.sector(sector)?;
        chain = crc32c::crc32c_append(chain, stored_checksum(bytes));
        payload.extend_from_slice(&bytes[..PAYLOAD.min(length - payload.len())]);
    }
    Ok(match batch::decode(payload.freeze()) {
        Ok(decoded) => Found::Batch(Box::new(Located { decoded, sequence, chain, next: at + sectors })),
        Err(what) => Found::Bad { sector: at, what },
    })
}

/// Judges everything behind the last batch: what remains of the one that is due was torn, and nothing else may be there.
fn remains<F: File>(
    segments: &VecDeque<Segment<F>>,
    active: usize,
    replay: &Replay,
) -> Result<Vec<Remains>, WalError> {
    let due = replay.due();
    let mut all = Vec::new();
    for (number, segment) in segments.iter().enumerate().skip(active) {
        let mut reader = segment.reader()?;
        let mut remains: Option<Remains> = None;
        let next = replay.extents[number].next;
        for sector in next..segment.end().min(reader.sectors()) {
            match reader.state(sector)? {
                State::Zero => {}
                State::Damaged => return Err(segment.corrupt(sector, Damage::Checksum)),
                State::Written { sequence, .. } if sequence < segment.header.oldest => {}
                State::Written { sequence, .. } if Some(sequence) == due => {
                    let first = remains.map_or(sector, |remains| remains.first);
                    remains = Some(Remains { segment: number, first, last: sector });
                }
                State::Written { sequence, .. } => {
                    let later = due.is_some_and(|due| sequence > due);
                    let what = if later { Damage::LaterBatch } else { Damage::Sequence };
                    return Err(segments[active].corrupt(replay.extents[active].next, what));
                }
            }
        }
        all.extend(remains);
    }
    Ok(all)
}

/// Puts zeros over the remains of a torn batch, durably: its sequence will be used again, and a later recovery must not take old
/// sectors for new ones. A crash in between leaves fewer remains, which are still a tear.
fn wipe<F: File>(segments: &mut VecDeque<Segment<F>>, all: &[Remains]) -> Result<Option<Tear>, WalError> {
    let zeros = [0; WIPE_SECTORS * SECTOR];
    let mut tear = None;
    for Remains { segment, first, last } in all {
        let Some(segment) = segments.get_mut(*segment) else { continue };
        tear.get_or_insert_with(|| Tear { file: segment.name.clone(), offset: offset_of(*first) });
        for at in (*first..=*last).step_by(WIPE_SECTORS) {
            let sectors = (last + 1 - at).min(WIPE_SECTORS as u64);
            let bytes = usize::try_from(offset_of(sectors)).unwrap_or(zeros.len());
            segment.file.write_at(offset_of(at), &zeros[..bytes]).map_err(failed(&segment.name, "wipe"))?;
        }
        segment.sync()?;
    }
    Ok(tear)
}

impl<F: File> Segment<F> {
    fn reader(&self) -> Result<Reader<'_, F>, WalError> {
        Reader::new(&self.file, &self.name, self.header.seed())
    }
}

impl<F> Segment<F> {
    fn corrupt(&self, sector: u64, what: Damage) -> WalError {
        corrupt(&self.name, offset_of(sector), what)
    }
}

fn corrupt(file: &str, offset: u64, what: Damage) -> WalError {
    WalError::Corrupt { file: file.to_owned(), offset, what }
}
