//! What a member's log has beyond its state, as far as it matters where others say that the cluster has ended.
//!
//! Owns: what there may be of users. Must never: take an entry for one that counts: of what is here nobody knows how much is committed. Read from the log by `app`
//! and by the simulator; `tombstone` judges by it.

use crate::command::codec::decode;
use crate::command::{CharterCommand, Command};
use crate::ids::{LogIndex, Term};
use crate::wal::{EntryKind, LogEntry, Position};

/// See the module. It holds for as long as the log ends where it did: behind one entry, by index and term, there is one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// How far the state was; a later one leaves less behind it.
    after: LogIndex,
    last: Position,
    users: bool,
    changes: bool,
}

impl Tail {
    /// One of which nothing is known.
    pub const UNKNOWN: Self = {
        let last = Position { index: LogIndex(0), term: Term(0) };
        Self { after: LogIndex(u64::MAX), last, users: true, changes: true }
    };

    /// That of a log which ends at `last` and has these entries after `after`, if they are all there. What comes after an end is left out: where that counts the end
    /// does, too, and where the end does all that comes after it is refused. An end behind what a user has written (`written`: the state says so) is refused itself.
    pub fn of(after: LogIndex, entries: &[LogEntry], last: Position, written: bool) -> Self {
        let expected = (after.0..last.index.0).map(|before| LogIndex(before + 1));
        if !expected.eq(entries.iter().map(|entry| entry.index)) {
            return Self::UNKNOWN;
        }
        let mut tail = Self { after, last, users: false, changes: false };
        for entry in entries {
            match weight_of(entry) {
                Weight::Nothing => {}
                Weight::Users => tail.users = true,
                Weight::Change => tail.changes = true,
                Weight::End if written || tail.users => {}
                Weight::End => break,
            }
        }
        tail
    }

    /// Whether it is still that of a log that ends there, for a state that is so far.
    pub fn is_of(&self, applied: LogIndex, last: Position) -> bool {
        applied >= self.after && last == self.last
    }

    /// Whether it need not be read again for a state that is so far: what weighs may have come into the state since.
    pub fn is_current(&self, applied: LogIndex, last: Position) -> bool {
        self.is_of(applied, last) && (applied == self.after || !self.may_weigh())
    }

    /// Whether a user may have been told that something in it is done.
    pub fn has_users(&self) -> bool {
        self.users
    }

    /// Whether others may vote than those that the state says.
    pub fn has_changes(&self) -> bool {
        self.changes
    }

    /// Whether a user may have been told that something in it is done, or it may be that the vote of this member is needed.
    pub fn may_weigh(&self) -> bool {
        self.users || self.changes
    }
}

enum Weight {
    Nothing,
    Users,
    Change,
    End,
}

fn weight_of(entry: &LogEntry) -> Weight {
    match entry.kind {
        EntryKind::Normal if entry.data.is_empty() => Weight::Nothing,
        EntryKind::Normal => match decode(entry.data.clone()).map(|envelope| envelope.command) {
            Ok(Command::Charter(CharterCommand::Dissolve { .. })) => Weight::End,
            Ok(command) if !command.is_users() => Weight::Nothing,
            // What cannot be read may be anything.
            Ok(_) | Err(_) => Weight::Users,
        },
        EntryKind::ConfChange | EntryKind::ConfChangeV2 => Weight::Change,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Envelope;
    use crate::command::codec::encode;
    use crate::ids::{ClusterId, ProposalId};

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
        entry(index, Some(Command::Charter(CharterCommand::Dissolve { winner: ClusterId(9) })))
    }

    fn at(index: u64, term: u64) -> Position {
        Position { index: LogIndex(index), term: Term(term) }
    }

    fn tail(after: u64, entries: &[LogEntry]) -> Tail {
        let last = entries.last().map_or(after, |entry| entry.index.0);
        Tail::of(LogIndex(after), entries, at(last, 1), false)
    }

    fn change(index: u64) -> LogEntry {
        LogEntry { kind: EntryKind::ConfChangeV2, ..entry(index, None) }
    }

    #[test]
    fn what_a_user_asked_for_weighs_even_where_nobody_knows_that_it_is_committed() {
        assert!(tail(4, &[entry(5, None), seal(6), elapsed(7)]).may_weigh());
        assert!(!tail(6, &[elapsed(7)]).may_weigh());
        assert!(!tail(5, &[]).may_weigh());
        let strange = |index| LogEntry { data: "?".into(), ..entry(index, None) };
        assert!(tail(5, &[strange(6)]).has_users());
        for later in [change(7), strange(7)] {
            assert!(!tail(5, &[dissolve(6), later]).may_weigh());
        }
    }

    #[test]
    fn a_change_of_those_who_vote_is_told_from_what_a_user_asked_for() {
        let has = |tail: Tail| (tail.has_users(), tail.has_changes());
        assert_eq!(has(tail(5, &[change(6), elapsed(7)])), (false, true));
        assert_eq!(has(tail(5, &[seal(6), elapsed(7)])), (true, false));
        assert_eq!(has(tail(5, &[change(6), seal(7)])), (true, true));
        assert_eq!(has(tail(5, &[elapsed(6)])), (false, false));
        assert_eq!(has(Tail::UNKNOWN), (true, true));
        assert!(tail(5, &[change(6)]).may_weigh());
    }

    #[test]
    fn what_comes_after_an_end_is_nothing_and_what_comes_before_may_be() {
        assert!(!tail(5, &[entry(6, None), dissolve(7), seal(8), dissolve(9)]).may_weigh());
        assert!(tail(5, &[seal(6), dissolve(7)]).has_users());
    }

    /// A leader proposes one before it knows that a user's write stands before it.
    #[test]
    fn an_end_that_is_refused_hides_nothing() {
        assert!(tail(5, &[seal(6), dissolve(7), change(8)]).has_changes());
        let entries = [dissolve(6), change(7), seal(8)];
        assert!(!tail(5, &entries).may_weigh());
        let written = Tail::of(LogIndex(5), &entries, at(8, 1), true);
        assert!(written.has_users() && written.has_changes());
    }

    /// A log that begins too late, ends elsewhere or has a gap.
    #[test]
    fn a_log_that_is_not_all_there_may_weigh() {
        let entries = [elapsed(6), elapsed(7)];
        assert!(!Tail::of(LogIndex(5), &entries, at(7, 1), false).may_weigh());
        assert_eq!(Tail::of(LogIndex(4), &entries, at(7, 1), false), Tail::UNKNOWN);
        assert_eq!(Tail::of(LogIndex(5), &entries, at(8, 1), false), Tail::UNKNOWN);
        assert_eq!(Tail::of(LogIndex(5), &[elapsed(6), elapsed(8)], at(8, 1), false), Tail::UNKNOWN);
        assert_eq!(Tail::of(LogIndex(5), &[], at(6, 1), false), Tail::UNKNOWN);
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

    /// A member whose state took in what weighed went on as if it had that in its log, until its process was started again.
    #[test]
    fn what_weighed_is_looked_for_again_once_the_state_is_further() {
        for weighs in [tail(5, &[seal(6), elapsed(7)]), tail(5, &[change(6), elapsed(7)])] {
            assert!(weighs.is_current(LogIndex(5), at(7, 1)));
            assert!(!weighs.is_current(LogIndex(6), at(7, 1)));
            assert!(!weighs.is_current(LogIndex(5), at(8, 1)));
        }
        let nothing = tail(5, &[elapsed(6), elapsed(7)]);
        assert!(nothing.is_current(LogIndex(6), at(7, 1)));
        assert!(!nothing.is_current(LogIndex(6), at(8, 1)));
    }
}
