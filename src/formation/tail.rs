//! What a member's log has beyond its state, as far as it matters where others say that the cluster has ended.
//!
//! Owns: what there may be of users. Must never: take an entry for one that counts: of what is here nobody knows how much is committed. Read from the log by `app`
//! and by the simulator; `tombstone` judges by it.

use crate::command::codec::decode;
use crate::command::{CharterCommand, Command};
use crate::ids::{ClusterId, LogIndex, Term};
use crate::store::Dissolution;
use crate::wal::{EntryKind, LogEntry, Position};

/// See the module. It holds for as long as the log ends where it did: behind one entry, by index and term, there is one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// How far the state was; a later one leaves less behind it.
    after: LogIndex,
    last: Position,
    may_weigh: bool,
    /// The first end of the cluster, and for which other one.
    end: Option<(LogIndex, ClusterId)>,
}

impl Tail {
    /// One of which nothing is known.
    pub const UNKNOWN: Self = {
        let last = Position { index: LogIndex(0), term: Term(0) };
        Self { after: LogIndex(u64::MAX), last, may_weigh: true, end: None }
    };

    /// That of a log which ends at `last` and has these entries after `after`, if they are all there.
    pub fn of(after: LogIndex, entries: &[LogEntry], last: Position) -> Self {
        let expected = (after.0..last.index.0).map(|before| LogIndex(before + 1));
        if !expected.eq(entries.iter().map(|entry| entry.index)) {
            return Self::UNKNOWN;
        }
        let mut tail = Self { after, last, may_weigh: false, end: None };
        for entry in entries {
            match weight_of(entry) {
                Weight::Nothing => {}
                Weight::Something => tail.may_weigh |= tail.end.is_none(),
                Weight::End(winner) => {
                    tail.end.get_or_insert((entry.index, winner));
                }
            }
        }
        tail
    }

    /// Whether it is still that of a log that ends there, for a state that is so far.
    pub fn is_of(&self, applied: LogIndex, last: Position) -> bool {
        applied >= self.after && last == self.last
    }

    /// Whether a user may have been told that something in it is done, or it may be that the vote of this member is needed. Not by what comes after an end: where
    /// that counts the end does, too, and where the end does all that comes after it is refused.
    pub fn may_weigh(&self) -> bool {
        self.may_weigh
    }

    /// Whether this end is in it, at its place.
    pub(super) fn holds(&self, end: &Dissolution) -> bool {
        !end.ordered && self.end == Some((end.at, end.winner))
    }
}

enum Weight {
    Nothing,
    Something,
    End(ClusterId),
}

fn weight_of(entry: &LogEntry) -> Weight {
    match entry.kind {
        EntryKind::Normal if entry.data.is_empty() => Weight::Nothing,
        EntryKind::Normal => match decode(entry.data.clone()).map(|envelope| envelope.command) {
            Ok(Command::Charter(CharterCommand::Dissolve { winner })) => Weight::End(winner),
            Ok(command) if !command.is_users() => Weight::Nothing,
            // What cannot be read may be anything.
            Ok(_) | Err(_) => Weight::Something,
        },
        EntryKind::ConfChange | EntryKind::ConfChangeV2 => Weight::Something,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Envelope;
    use crate::command::codec::encode;
    use crate::ids::ProposalId;

    const WINNER: ClusterId = ClusterId(9);

    fn entry(index: u64, command: Option<Command>) -> LogEntry {
        let envelope = |command| encode(&Envelope { id: ProposalId::default(), caller: None, command });
        let data = command.map(envelope).unwrap_or_default();
        LogEntry { index: LogIndex(index), term: Term(1), kind: EntryKind::Normal, data }
    }

    /// What a user asks for.
    fn seal(index: u64) -> LogEntry {
        entry(index, Some(Command::Charter(CharterCommand::Seal)))
    }

    fn elapsed(index: u64) -> LogEntry {
        entry(index, Some(Command::Charter(CharterCommand::Elapsed { to: 60 })))
    }

    fn dissolve(index: u64) -> LogEntry {
        entry(index, Some(Command::Charter(CharterCommand::Dissolve { winner: WINNER })))
    }

    fn at(index: u64, term: u64) -> Position {
        Position { index: LogIndex(index), term: Term(term) }
    }

    fn tail(after: u64, entries: &[LogEntry]) -> Tail {
        let last = entries.last().map_or(after, |entry| entry.index.0);
        Tail::of(LogIndex(after), entries, at(last, 1))
    }

    #[test]
    fn what_a_user_asked_for_weighs_even_where_nobody_knows_that_it_is_committed() {
        assert!(tail(4, &[entry(5, None), seal(6), elapsed(7)]).may_weigh());
        assert!(!tail(6, &[elapsed(7)]).may_weigh());
        assert!(!tail(5, &[]).may_weigh());
        let change = LogEntry { kind: EntryKind::ConfChangeV2, ..entry(6, None) };
        let strange = LogEntry { data: "?".into(), ..entry(6, None) };
        for weighs in [change, strange] {
            assert!(tail(5, std::slice::from_ref(&weighs)).may_weigh());
            assert!(!tail(5, &[dissolve(6), LogEntry { index: LogIndex(7), ..weighs }]).may_weigh());
        }
    }

    #[test]
    fn what_comes_after_an_end_is_nothing_and_what_comes_before_may_be() {
        assert!(!tail(5, &[entry(6, None), dissolve(7), seal(8), dissolve(9)]).may_weigh());
        assert!(tail(5, &[seal(6), dissolve(7)]).may_weigh());
        let end = |at, winner| Dissolution { winner, at: LogIndex(at), ordered: false };
        for held in [tail(5, &[dissolve(6), seal(7), dissolve(8)]), tail(4, &[seal(5), dissolve(6)])] {
            assert!(held.holds(&end(6, WINNER)));
            assert!(!held.holds(&end(8, WINNER)), "the first one counts");
            assert!(!held.holds(&end(6, ClusterId(8))));
            assert!(!held.holds(&Dissolution { ordered: true, ..end(6, WINNER) }));
        }
    }

    /// A log that begins too late, ends elsewhere or has a gap.
    #[test]
    fn a_log_that_is_not_all_there_may_weigh() {
        let entries = [elapsed(6), elapsed(7)];
        assert!(!Tail::of(LogIndex(5), &entries, at(7, 1)).may_weigh());
        assert_eq!(Tail::of(LogIndex(4), &entries, at(7, 1)), Tail::UNKNOWN);
        assert_eq!(Tail::of(LogIndex(5), &entries, at(8, 1)), Tail::UNKNOWN);
        assert_eq!(Tail::of(LogIndex(5), &[elapsed(6), elapsed(8)], at(8, 1)), Tail::UNKNOWN);
        assert_eq!(Tail::of(LogIndex(5), &[], at(6, 1)), Tail::UNKNOWN);
        assert!(Tail::UNKNOWN.may_weigh());
    }

    /// Another leader may have put other entries in the same places.
    #[test]
    fn it_is_that_of_a_log_with_the_same_last_entry() {
        let tail = tail(5, &[elapsed(6), elapsed(7)]);
        assert!(tail.is_of(LogIndex(5), at(7, 1)) && tail.is_of(LogIndex(7), at(7, 1)));
        assert!(!tail.is_of(LogIndex(5), at(8, 1)) && !tail.is_of(LogIndex(5), at(7, 2)));
        assert!(!tail.is_of(LogIndex(4), at(7, 1)), "it was not looked at from there");
        assert!(!Tail::UNKNOWN.is_of(LogIndex(7), Position::default()));
    }
}
