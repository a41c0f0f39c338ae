//! What the log's tests share: a model of the log, histories for it, and their comparison.
//!
//! Owns: what a log must hold after each step. Must never: look at how the log does it. Driven by the tests of `wal`.

use std::collections::BTreeMap;

use super::{Batch, EntryKind, HardState, Identity, LogEntry, Options, Position, Recovered, Wal, WalError};
use crate::disk::sim::{SimDir, Survival};
use crate::ids::{ClusterId, LogIndex, MemberId, Term};
use crate::prng::Prng;

pub(super) const IDENTITY: Identity = Identity { cluster: ClusterId(0xc0), member: MemberId(0xa1) };
/// Three pages for batches in a segment.
pub(super) const SMALL: Options = Options { segment_bytes: 4 * 4096, prefill: true };
pub(super) const GROWING: Options = Options { prefill: false, ..SMALL };

pub(super) fn at(index: u64, term: u64) -> Position {
    Position { index: LogIndex(index), term: Term(term) }
}

/// An entry whose content tells index, term and length apart from any other's.
pub(super) fn entry(index: u64, term: u64, length: usize) -> LogEntry {
    let mut prng = Prng::new(index << 32 | term << 16 | length as u64);
    let data: Vec<u8> = (0..length).map(|_| prng.next_u64().to_le_bytes()[0]).collect();
    LogEntry { index: LogIndex(index), term: Term(term), kind: EntryKind::Normal, data: data.into() }
}

pub(super) fn entries(first: u64, count: u64, term: u64, length: usize) -> Vec<LogEntry> {
    (first..first + count).map(|index| entry(index, term, length)).collect()
}

/// One call of the log's owner.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Append and sync.
    Append(Option<HardState>, Vec<LogEntry>),
    Cut(LogIndex),
    Reset(Position),
    Prepare,
    /// The process ends and starts again; the machine does not.
    Reopen,
}

/// What a log must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Model {
    hard_state: HardState,
    /// Where it was made or reset.
    base: Position,
    /// Entries up to here may be gone.
    cut: LogIndex,
    entries: BTreeMap<u64, LogEntry>,
}

impl Model {
    pub(super) fn new(start: Position) -> Self {
        let hard_state = HardState { term: start.term, vote: None, commit: start.index };
        Self { hard_state, base: start, cut: start.index, entries: BTreeMap::new() }
    }

    pub(super) fn last(&self) -> Position {
        self.position(self.entries.keys().last().map_or(self.base.index.0, |index| *index))
    }

    fn position(&self, index: u64) -> Position {
        self.entries.get(&index).map_or(self.base, |entry| at(index, entry.term.0))
    }

    pub(super) fn apply(&mut self, step: &Step) {
        match step {
            Step::Append(hard_state, entries) => {
                self.hard_state = hard_state.unwrap_or(self.hard_state);
                if let Some(first) = entries.first() {
                    self.entries.split_off(&first.index.0);
                }
                self.entries.extend(entries.iter().map(|entry| (entry.index.0, entry.clone())));
            }
            Step::Cut(before) => self.cut = self.cut.max(LogIndex(before.0 - 1)),
            Step::Reset(to) => {
                let HardState { term, commit, .. } = self.hard_state;
                if term < to.term {
                    self.hard_state = HardState { term: to.term, vote: None, commit };
                }
                self.hard_state.commit = commit.max(to.index);
                (self.base, self.cut) = (*to, to.index);
                self.entries.clear();
            }
            Step::Prepare | Step::Reopen => {}
        }
    }

    /// Whether a log that was read says what this one does.
    pub(super) fn agrees(&self, recovered: &Recovered) -> Result<(), String> {
        let Recovered { hard_state, start, entries, .. } = recovered;
        if *hard_state != self.hard_state {
            return Err(format!("{hard_state:?} instead of {:?}", self.hard_state));
        }
        if start.index < self.base.index || start.index > self.cut || *start != self.position(start.index.0) {
            return Err(format!("starts at {start:?}, base {:?}, cut {}", self.base, self.cut));
        }
        let expected: Vec<&LogEntry> =
            self.entries.range(start.index.0 + 1..).map(|(_, entry)| entry).collect();
        if !entries.iter().eq(expected.iter().copied()) {
            let ours: Vec<_> = expected.iter().map(|entry| (entry.index.0, entry.term.0)).collect();
            let theirs: Vec<_> = entries.iter().map(|entry| (entry.index.0, entry.term.0)).collect();
            return Err(format!("entries {theirs:?} instead of {ours:?}"));
        }
        Ok(())
    }
}

/// Steps as raft and its checkpoints would make them: terms rise, what is committed stays, cuts and resets keep to it.
pub(super) fn history(seed: u64, steps: usize) -> (Position, Vec<Step>) {
    let mut prng = Prng::new(seed);
    let start = if prng.one_in(2) { at(0, 0) } else { at(5, 2) };
    let mut model = Model::new(start);
    let mut all = Vec::new();
    for _ in 0..steps {
        let step = next_step(&mut prng, &model);
        model.apply(&step);
        all.push(step);
    }
    (start, all)
}

fn next_step(prng: &mut Prng, model: &Model) -> Step {
    let HardState { term, vote, commit } = model.hard_state;
    let last = model.last().index.0;
    match prng.range(0, 20) {
        0 => Step::Reopen,
        1 | 7 => Step::Prepare,
        2 | 3 => Step::Cut(LogIndex(prng.range(1, commit.0 + 2))),
        4 if prng.one_in(3) => {
            let index = prng.range(commit.0, last.max(commit.0) + 4);
            Step::Reset(at(index.max(1), term.0.max(1) + prng.range(0, 2)))
        }
        5 | 6 => {
            let hard_state = HardState { term: term.next(), vote: Some(MemberId(prng.range(1, 4))), commit };
            Step::Append(Some(hard_state), Vec::new())
        }
        _ => {
            let leads = term.0 == 0 || prng.one_in(6);
            let term = if leads { term.next() } else { term };
            let vote = if leads { None } else { vote };
            let first = if leads { prng.range(commit.0, last + 1) + 1 } else { last + 1 };
            let count = [0, 1, 1, 1, 2, 9][usize::try_from(prng.range(0, 6)).unwrap()];
            let length = [0, 10, 300, 600, 2000, 5000][usize::try_from(prng.range(0, 6)).unwrap()];
            let entries = entries(first, count, term.0, length);
            let known = if count == 0 { last } else { first + count - 1 };
            let commit = LogIndex(prng.range(commit.0, known.max(commit.0) + 1));
            let changed = leads || prng.one_in(2);
            Step::Append(changed.then_some(HardState { term, vote, commit }), entries)
        }
    }
}

/// How far a history got.
pub(super) struct Outcome {
    /// What was acknowledged; `None` if not even the log's making was.
    pub(super) acknowledged: Option<Model>,
    /// What it would be with the step that failed.
    pub(super) attempted: Option<Model>,
    /// The log as the failure left it.
    pub(super) wal: Option<Wal<SimDir>>,
    pub(super) error: Option<WalError>,
    /// Whether the step that failed was an open.
    pub(super) reopening: bool,
}

impl Outcome {
    /// Whether a log that was read is one that this history may have left.
    pub(super) fn allows(&self, opened: &Result<Recovered, WalError>) -> Result<Option<Model>, String> {
        match opened {
            Ok(recovered) => {
                let mut reasons = String::new();
                for model in [&self.acknowledged, &self.attempted].into_iter().flatten() {
                    match model.agrees(recovered) {
                        Ok(()) => return Ok(Some(model.clone())),
                        Err(reason) => reasons = format!("{reasons}\n{reason}"),
                    }
                }
                Err(reasons)
            }
            Err(WalError::Absent) if self.acknowledged.is_none() => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Runs a history until it ends or a step fails.
pub(super) fn run(dir: &SimDir, options: Options, start: Position, steps: &[Step]) -> Outcome {
    let mut model = Model::new(start);
    let mut wal = match Wal::create(dir.clone(), IDENTITY, start, options) {
        Ok(wal) => wal,
        Err(error) => {
            return Outcome {
                acknowledged: None,
                attempted: Some(model),
                wal: None,
                error: Some(error),
                reopening: false,
            };
        }
    };
    for step in steps {
        let before = model.clone();
        model.apply(step);
        let mut take = || match step {
            Step::Append(hard_state, entries) => {
                let batch = Batch { hard_state: *hard_state, entries };
                wal.append(batch).and_then(|()| wal.sync())
            }
            Step::Cut(before) => wal.cut(*before),
            Step::Reset(to) => wal.reset(*to),
            Step::Prepare => wal.prepare().map(drop),
            Step::Reopen => Wal::open(dir.clone(), IDENTITY, options).map(|(opened, recovered)| {
                wal = opened;
                model.agrees(&recovered).unwrap();
                assert_eq!(recovered.tear, None);
            }),
        };
        // Where there was no room, the owner asks again.
        let done = match take() {
            Err(WalError::Full { .. }) => take(),
            done => done,
        };
        if let Err(error) = done {
            return Outcome {
                acknowledged: Some(before),
                attempted: Some(model),
                wal: Some(wal),
                error: Some(error),
                reopening: matches!(step, Step::Reopen),
            };
        }
        assert_eq!((wal.last(), wal.hard_state()), (model.last(), model.hard_state), "after {step:?}");
    }
    Outcome { acknowledged: Some(model), attempted: None, wal: Some(wal), error: None, reopening: false }
}

pub(super) fn open(dir: &SimDir, options: Options) -> Result<(Wal<SimDir>, Recovered), WalError> {
    Wal::open(dir.clone(), IDENTITY, options)
}

/// The same bytes in a directory of their own.
pub(super) fn copy(dir: &SimDir) -> SimDir {
    dir.crash(Survival::Everything)
}
