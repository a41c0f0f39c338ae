//! The logs of all members: that they match, that a disk keeps what it has, and that whoever leads has what was committed.
//!
//! Owns: what each log holds, by what its member hands to the disk and what a start reads from there; who leads in which term. Must never: ask a
//! member what is in its log, or forget anything because a process ends. Driven by `world`.
//!
//! # What is judged
//!
//! - Log matching: two logs that have an entry of the same index and term are the same up to it, committed or not. Not so what a member made in a term that
//!   has not come to its own disk: nothing of it has left, and after a crash it may lead in that term again (`votes` looks that nothing leaves).
//! - What a state is handed is what the logs have there.
//! - In each term one member leads at most, and when it begins its log has every entry that was committed in an earlier term, with all that
//!   comes before it. An entry that only later turns out to have been committed by then counts as well.
//! - What was synced is there after a start, unless the member has put something else in its place meanwhile.

use std::collections::BTreeMap;

use covey::ids::{LogIndex, MemberId, Term};
use covey::wal::{HardState, LogEntry, Position};
use ring::digest::{Context, SHA256};

/// All logs begin after this position.
const BEGIN: LogIndex = LogIndex(1);

/// Stands for all entries up to one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Prefix([u8; 32]);

impl Prefix {
    fn with(self, entry: &LogEntry) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&self.0);
        for number in [entry.index.0, entry.term.0, entry.kind as u64] {
            context.update(&number.to_be_bytes());
        }
        context.update(&entry.data);
        Self(context.finish().as_ref().try_into().expect("of this length"))
    }
}

/// What happens to a member's log.
#[derive(Clone, Debug)]
pub(crate) enum LogEvent {
    /// A process begins with what is on the disk.
    Opened { promised: HardState, start: Position, entries: Vec<LogEntry> },
    /// These follow, in memory, and are on their way to the disk. They replace what was there from the first of them on.
    Appended(Vec<LogEntry>),
    /// A state is about to take the place of the one at hand, and its position that of the log.
    Installing,
    /// The log begins anew after this position.
    Reset(Position),
    /// So far the member says that it goes, whenever all of it was handed out.
    Ends(LogIndex),
    /// The disk has the log from one position to the other, and what was promised.
    Synced { promised: HardState, start: Position, last: Position },
}

/// With whom an entry was seen that is not forgotten.
const NOBODY: MemberId = MemberId(0);

/// One member's log.
#[derive(Clone, Debug)]
struct Log {
    start: Position,
    /// The prefix at the start, and after each entry behind it, with that one's term.
    begin: Prefix,
    entries: Vec<(Term, Prefix)>,
    /// Up to here it is on the disk, as far as that is certain.
    durable: Option<LogIndex>,
    installing: bool,
}

impl Log {
    fn new(start: Position, begin: Prefix) -> Self {
        Self { start, begin, entries: Vec::new(), durable: None, installing: false }
    }

    fn last(&self) -> LogIndex {
        LogIndex(self.start.index.0 + self.entries.len() as u64)
    }

    /// How many of the entries there are up to this one; `None` before the start.
    fn up_to(&self, index: LogIndex) -> Option<usize> {
        index.0.checked_sub(self.start.index.0).map(|count| usize::try_from(count).expect("small"))
    }

    /// Where this log has an entry.
    fn entry(&self, index: LogIndex) -> Option<(Term, Prefix)> {
        match self.up_to(index)? {
            0 => Some((self.start.term, self.begin)),
            count => self.entries.get(count - 1).copied(),
        }
    }

    fn prefix(&self, index: LogIndex) -> Option<Prefix> {
        self.entry(index).map(|(_, prefix)| prefix)
    }

    fn append(&mut self, entry: &LogEntry) -> Prefix {
        assert!(entry.index <= self.last().next(), "a gap before entry {}", entry.index);
        let before = LogIndex(entry.index.0 - 1);
        let prefix = self.prefix(before).expect("what a state includes is not replaced").with(entry);
        self.entries.truncate(self.up_to(before).expect("it is there"));
        self.entries.push((entry.term, prefix));
        self.durable = self.durable.min(Some(before));
        prefix
    }
}

/// An entry that a state was handed.
struct Committed {
    prefix: Prefix,
    /// A term in which it was committed at the latest.
    by: Term,
}

#[derive(Default)]
pub(crate) struct Logs {
    /// By index and term of an entry: the log up to it, as it was first seen, and with whom.
    prefixes: BTreeMap<(LogIndex, Term), (Prefix, MemberId)>,
    members: BTreeMap<MemberId, Log>,
    /// From `BEGIN` on.
    committed: Vec<Committed>,
    /// Who was seen to lead in a term, with the log of that moment.
    leaders: BTreeMap<Term, (MemberId, Log)>,
}

impl Logs {
    pub(crate) fn note(&mut self, member: MemberId, event: LogEvent) {
        match event {
            LogEvent::Opened { promised, start, entries } => {
                self.open(member, promised.term, start, &entries);
            }
            LogEvent::Appended(entries) => {
                let log = self.members.get_mut(&member).expect("it was opened");
                for entry in &entries {
                    let prefix = log.append(entry);
                    let (index, term) = (entry.index, entry.term);
                    let (first, with) = *self.prefixes.entry((index, term)).or_insert((prefix, member));
                    let same = prefix == first;
                    assert!(
                        same,
                        "members {member} and {with} have entry {index} of term {term}, and not the same up to it"
                    );
                }
            }
            LogEvent::Installing => {
                let log = self.members.get_mut(&member).expect("it was opened");
                (log.durable, log.installing) = (None, true);
            }
            LogEvent::Reset(to) => {
                let log = self.beginning_after(to);
                self.members.insert(member, log);
            }
            LogEvent::Ends(last) => {
                let log = &self.members[&member];
                let end = log.last();
                assert!(log.installing || end == last, "a log that ends at {end} is said to end at {last}");
            }
            LogEvent::Synced { start, last, .. } => {
                let log = self.members.get_mut(&member).expect("it was opened");
                // Else it has something else in that place by now, which is still on its way to the disk.
                let same = log.entry(last.index).is_some_and(|(term, _)| term == last.term);
                if same && start.index >= log.start.index && !log.installing {
                    log.durable = Some(last.index);
                }
            }
        }
    }

    fn open(&mut self, member: MemberId, term: Term, start: Position, entries: &[LogEntry]) {
        if self.members.contains_key(&member) {
            self.prefixes.retain(|(_, made_in), (_, with)| *made_in <= term || *with != member);
            self.leaders.retain(|led_in, (leader, _)| *led_in <= term || *leader != member);
        }
        let mut log = self.beginning_after(start);
        for entry in entries {
            let (index, prefix) = (entry.index, log.append(entry));
            let known = self.known(index, entry.term);
            assert!(
                known == Some(prefix),
                "the disk of member {member} has an entry {index} that no log had"
            );
        }
        if let Some(before) = self.members.get(&member)
            && let Some(durable) = before.durable.filter(|durable| *durable > start.index)
        {
            let kept = log.prefix(durable) == before.prefix(durable);
            assert!(kept, "the disk of member {member} had entry {durable}, and has it no more");
        }
        log.durable = Some(log.last());
        self.members.insert(member, log);
    }

    fn beginning_after(&self, start: Position) -> Log {
        let begin = match self.known(start.index, start.term) {
            Some(prefix) => prefix,
            None if start.index <= BEGIN => Prefix::default(),
            None => panic!("a log begins after entry {} that no log had", start.index),
        };
        Log::new(start, begin)
    }

    fn known(&self, index: LogIndex, term: Term) -> Option<Prefix> {
        self.prefixes.get(&(index, term)).map(|(prefix, _)| *prefix)
    }

    /// The member's disk is put back, and so has forgotten. Others may have entries of it that its disk knows nothing of any more, however often it starts.
    pub(crate) fn forget(&mut self, member: MemberId) {
        self.members.remove(&member);
        for (_, with) in self.prefixes.values_mut().filter(|(_, with)| *with == member) {
            *with = NOBODY;
        }
    }

    /// A member in this term hands these entries to its state.
    pub(crate) fn commit(&mut self, by: Term, entries: &[LogEntry]) {
        for entry in entries {
            let index = entry.index;
            let before = self.committed_at(LogIndex(index.0 - 1)).expect("without gaps");
            let prefix = before.with(entry);
            let known = self.known(index, entry.term);
            assert!(known == Some(prefix), "entry {index} is committed, and no log has it so");
            let place = usize::try_from(index.0 - BEGIN.0 - 1).expect("small");
            match self.committed.get_mut(place) {
                Some(known) if known.by <= by => continue,
                Some(known) => known.by = by,
                None => self.committed.push(Committed { prefix, by }),
            }
            // Whoever leads in a later term had it from the beginning, even where nobody knew then that it was committed.
            for (term, (_, log)) in self.leaders.range(by.next()..) {
                self.check_complete(*term, log, index);
            }
        }
    }

    fn committed_at(&self, index: LogIndex) -> Option<Prefix> {
        match usize::try_from(index.0.checked_sub(BEGIN.0)?).expect("small") {
            0 => Some(Prefix::default()),
            count => self.committed.get(count - 1).map(|committed| committed.prefix),
        }
    }

    /// A member leads in a term: nobody else ever does, and it has all that was committed in earlier ones.
    pub(crate) fn see_leader(&mut self, term: Term, member: MemberId) {
        if let Some((leader, _)) = self.leaders.get(&term) {
            assert_eq!(*leader, member, "two members lead in term {term}");
            return;
        }
        let log = self.members[&member].clone();
        if let Some(place) = self.committed.iter().rposition(|committed| committed.by < term) {
            self.check_complete(term, &log, LogIndex(BEGIN.0 + 1 + place as u64));
        }
        self.leaders.insert(term, (member, log));
    }

    fn check_complete(&self, term: Term, log: &Log, index: LogIndex) {
        // What is before its start is in its state, and the start says which history that is from.
        let index = index.max(log.start.index);
        assert!(
            log.prefix(index) == self.committed_at(index),
            "the leader of term {term}, whose log ends at {}, lacks entry {index}, which was committed before",
            log.last()
        );
    }
}
