//! Which indexes the log holds and the term of each, in a few words of memory.
//!
//! Owns: the arithmetic of start, end and terms. Must never: hold entries. Driven by `log` when writing, by `recovery` when reading.

use super::entry::Position;
use crate::ids::{LogIndex, Term};

/// The log from after `start` to `last`, as runs of entries with one term.
///
/// ```text
/// start (4, t2)   entries 5 6 7 8 9    runs: (5, t2) (8, t3)    term of 7: t2
///                   term  2 2 2 3 3
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    start: Position,
    last: LogIndex,
    /// The first index of each term, ascending.
    runs: Vec<Position>,
}

impl Span {
    pub(super) fn new(start: Position) -> Self {
        Self { start, last: start.index, runs: Vec::new() }
    }

    /// The position before the first entry.
    pub(super) fn start(&self) -> Position {
        self.start
    }

    /// The position of the last entry, or `start` where there is none.
    pub(super) fn last(&self) -> Position {
        Position { index: self.last, term: self.runs.last().map_or(self.start.term, |run| run.term) }
    }

    /// The position at an index; `None` outside of the log.
    pub(super) fn position(&self, index: LogIndex) -> Option<Position> {
        if index == self.start.index {
            return Some(self.start);
        }
        if index < self.start.index || index > self.last {
            return None;
        }
        let after = self.runs.partition_point(|run| run.index <= index);
        let run = self.runs.get(after.checked_sub(1)?)?;
        Some(Position { index, term: run.term })
    }

    /// Forgets the entries above `index`.
    pub(super) fn truncate(&mut self, index: LogIndex) {
        assert!(index >= self.start.index, "entries below the log's start are gone");
        self.last = self.last.min(index);
        self.runs.truncate(self.runs.partition_point(|run| run.index <= index));
    }

    /// Adds an entry at the end.
    pub(super) fn push(&mut self, term: Term) {
        let last = self.last();
        self.last = last.index.next();
        if self.runs.is_empty() || last.term != term {
            self.runs.push(Position { index: self.last, term });
        }
    }

    /// Forgets the entries up to `index`, which the log holds.
    pub(super) fn advance_start(&mut self, index: LogIndex) {
        let Some(start) = self.position(index) else { return };
        self.start = start;
        let first = index.next();
        let covering = self.runs.partition_point(|run| run.index <= first);
        self.runs.drain(..covering.saturating_sub(1));
        if self.last == index {
            self.runs.clear();
        } else if let Some(run) = self.runs.first_mut() {
            run.index = run.index.max(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Position, Span};
    use crate::ids::{LogIndex, Term};

    fn at(index: u64, term: u64) -> Position {
        Position { index: LogIndex(index), term: Term(term) }
    }

    #[test]
    fn agrees_with_a_plain_list_under_every_operation() {
        let mut prng = crate::prng::Prng::new(1);
        let mut span = Span::new(at(3, 1));
        let mut plain = vec![at(3, 1)];
        for _ in 0..5000 {
            let (first, last) = (plain[0].index.0, plain.last().unwrap().index.0);
            let any = LogIndex(prng.range(first, last + 1));
            match prng.range(0, 10) {
                0 => {
                    span.truncate(any);
                    plain.retain(|p| p.index <= any);
                }
                1 => {
                    span.advance_start(any);
                    plain.retain(|p| p.index >= any);
                }
                _ => {
                    let term = plain.last().unwrap().term.0 + u64::from(prng.one_in(4));
                    span.push(Term(term));
                    plain.push(at(last + 1, term));
                }
            }
            assert_eq!((span.start(), span.last()), (plain[0], *plain.last().unwrap()));
            for position in &plain {
                assert_eq!(span.position(position.index), Some(*position));
            }
            assert_eq!(span.position(LogIndex(plain.last().unwrap().index.0 + 1)), None);
            assert_eq!(span.position(LogIndex(plain[0].index.0 - 1)), None);
            assert!(span.runs.len() < 2 + plain.len());
        }
    }
}
