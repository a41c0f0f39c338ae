//! How requests come together: the more proposals share a batch, the fewer syncs there are, on every member, and the more reads share a round, the fewer messages.
//!
//! Owns: when those that wait go. Must never: hold proposals for longer than [`GATHERING_MAX`], or anybody when nobody else is to be expected. Driven by `Core`.
//!
//! ```text
//! disk   ├── sync of a batch ──┤              ├── sync of all that came ──
//!                              answers ► clients ► their next proposals
//!        │ others gather       │ all gather  │
//! ```
//!
//! Two groups of clients that take turns at the disk each wait for two syncs: for that of the others, and their own. Where those that were answered come
//! back soon, it pays to wait for them: then there is one group, and each waits for one sync. Whether they do shows soon, and where they do not it
//! is tried ever more seldom. So it is with reads and the rounds that they wait for.

use std::time::Duration;

use crate::consensus::PersistId;
use crate::limits::GATHERING_MAX;
use crate::time::Instant;

/// Who had to wait for less than this is not waited for: a timer is no more exact.
const TURN_MIN: Duration = Duration::from_micros(200);
/// Nobody has come in so long: nobody comes.
const SILENCE_MIN: Duration = Duration::from_micros(100);
/// The same, as a part of the time that the last turn took: all of them have to be answered before the first comes back.
const SILENCE_OF_TURN: u32 = 2;
/// So long those who come back are waited for at most, in parts of the last turn. Those who come at any rate, and not because they were served, are fewer
/// in that time than came during the turn.
const PATIENCE_OF_TURN: (u32, u32) = (3, 4);
/// It was worth it where no more than one of so many has not come back.
const MISSING_ONE_IN: usize = 8;
/// After so many attempts in vain the pauses between attempts grow no more, of which each is twice as long as the one before.
const VAIN_MAX: u32 = 6;

/// Those who take turns at something that serves many at once, and whether it pays to wait for those who were served.
#[derive(Debug, Default)]
pub(super) struct Company {
    expected: Option<Expected>,
    /// Somebody waits for them.
    held: bool,
    /// Attempts in a row that were in vain, and turns without another attempt.
    vain: u32,
    pause: u32,
}

/// Who is expected after a turn.
#[derive(Clone, Copy, Debug)]
struct Expected {
    /// So many would be all.
    all: usize,
    /// With so many it was worth it.
    enough: usize,
    /// Nobody is waited for after this.
    end: Instant,
    silence: Duration,
    /// Once everybody has an answer: how many were there when it was last looked, and when that will be next.
    look: Option<(usize, Instant)>,
}

impl Company {
    /// A turn that served `group` is over after `turn`, and `waiting` others have come meanwhile.
    pub(super) fn note_served(&mut self, now: Instant, turn: Duration, group: usize, waiting: usize) {
        self.expected = None;
        self.held = false;
        if group + waiting < 2 || !(TURN_MIN..=GATHERING_MAX).contains(&turn) {
            return;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return;
        }
        self.expected = Some(Expected {
            all: group + waiting,
            enough: waiting + group - group / MISSING_ONE_IN,
            end: now + turn * PATIENCE_OF_TURN.0 / PATIENCE_OF_TURN.1,
            silence: SILENCE_MIN.max(turn / SILENCE_OF_TURN),
            look: None,
        });
    }

    /// Whether those that wait, of whom there are some, go on waiting. `all_served`: everybody has an answer, so that silence counts.
    pub(super) fn holds(&mut self, now: Instant, waiting: usize, all_served: bool) -> bool {
        let Some(expected) = &mut self.expected else { return false };
        let mut is_over = waiting >= expected.all || now >= expected.end;
        if all_served && expected.look.is_none_or(|(_, look)| now >= look) {
            is_over |= expected.look.is_some_and(|(seen, _)| waiting <= seen);
            expected.look = Some((waiting, now + expected.silence));
        }
        if !is_over {
            self.held = true;
            return true;
        }
        let was_worth_it = waiting >= expected.enough;
        self.expected = None;
        // Who came too late for it has not waited.
        if std::mem::take(&mut self.held) {
            self.vain = if was_worth_it { 0 } else { VAIN_MAX.min(self.vain + 1) };
            self.pause = (1 << self.vain) - 1;
        }
        false
    }

    /// Somebody waits, and so many more have to come before that changes anything.
    pub(super) fn wanted(&self, waiting: usize) -> Option<usize> {
        self.expected.filter(|_| self.held).map(|expected| expected.all.saturating_sub(waiting))
    }

    /// When to ask again.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let expected = self.expected.filter(|_| self.held);
        let at = expected.map(|Expected { end, look, .. }| look.map_or(end, |(_, look)| end.min(look)));
        at.filter(|at| *at > now)
    }
}

/// What the core knows when it asks whether those that wait go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    pub(super) now: Instant,
    /// Proposals that wait.
    pub(super) waiting: usize,
    /// The last batch that the disk does not have.
    pub(super) unsynced: Option<PersistId>,
    /// The disk has the batch that was waited for.
    pub(super) is_synced: bool,
    /// All that is in the log is committed, so that everybody has an answer.
    pub(super) is_settled: bool,
}

/// For what those that wait do so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reason {
    /// None wait.
    #[default]
    Nothing,
    /// The disk has to have this batch. Nothing that it is given later makes them wait longer.
    Disk(PersistId, Instant),
    /// Others are expected, until then at most.
    Company(Instant),
    /// Those that are there go.
    Over,
}

/// When the proposals of a leader go into its log.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    reason: Reason,
    company: Company,
    /// Since when the disk has something to do.
    busy_since: Option<Instant>,
    /// Proposals that went into the log since the last sync ended.
    group: usize,
}

impl Gathering {
    /// What those that wait do so for, if that is the disk.
    pub(super) fn batch(&self) -> Option<PersistId> {
        match self.reason {
            Reason::Disk(id, _) => Some(id),
            _ => None,
        }
    }

    /// None wait.
    pub(super) fn note_none(&mut self) {
        self.reason = Reason::Nothing;
    }

    /// So many have gone into the log.
    pub(super) fn note_gone(&mut self, now: Instant, count: usize) {
        self.group += count;
        self.busy_since.get_or_insert(now);
    }

    /// The disk has something new, while so many wait; `is_idle` says whether it has nothing more to do.
    pub(super) fn note_synced(&mut self, now: Instant, waiting: usize, is_idle: bool) {
        let Some(began) = self.busy_since.take() else { return };
        if !is_idle {
            // What is left was not given to it before now.
            self.busy_since = Some(now);
        }
        self.company.note_served(now, now.since(began), std::mem::take(&mut self.group), waiting);
    }

    /// Whether those that wait, of whom there are some, go on waiting.
    pub(super) fn holds(&mut self, sight: Sight) -> bool {
        let end = match self.reason {
            Reason::Disk(_, end) | Reason::Company(end) => end,
            Reason::Nothing | Reason::Over => sight.now + GATHERING_MAX,
        };
        self.reason = match (self.reason, sight.unsynced) {
            (Reason::Nothing, Some(id)) => Reason::Disk(id, end),
            (Reason::Disk(..), Some(_)) if sight.now < end && !sight.is_synced => return true,
            (_, None)
                if sight.now < end && self.company.holds(sight.now, sight.waiting, sight.is_settled) =>
            {
                Reason::Company(end)
            }
            _ => Reason::Over,
        };
        self.reason != Reason::Over
    }

    /// How many more have to come before that changes anything; `None` where each may.
    pub(super) fn wanted(&self, waiting: usize) -> Option<usize> {
        match self.reason {
            Reason::Disk(..) => Some(usize::MAX),
            Reason::Company(_) => self.company.wanted(waiting),
            Reason::Nothing | Reason::Over => None,
        }
    }

    /// When to ask again whether those that wait go.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        match self.reason {
            // Once that has passed they wait for something else: a leader, the applier, the disk.
            Reason::Disk(_, end) => Some(end).filter(|end| *end > now),
            Reason::Company(end) => {
                self.company.poll_timeout(now).map(|at| at.min(end)).filter(|at| *at > now)
            }
            Reason::Nothing | Reason::Over => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::prng::Prng;

    const SYNC: Duration = Duration::from_millis(5);

    /// A leader without followers whose disk takes [`SYNC`], and clients that each have one proposal at a time.
    struct Site {
        now: Instant,
        gathering: Gathering,
        /// When which client has its next proposal.
        coming: BTreeSet<(Instant, usize)>,
        waiting: Vec<(Instant, usize)>,
        /// On the way to the disk, until when.
        written: Option<(Instant, Vec<(Instant, usize)>)>,
        syncs: u64,
        answered: u64,
        waited: Duration,
        longest: Duration,
    }

    impl Site {
        fn new(clients: usize) -> Self {
            Self {
                now: Instant::default(),
                gathering: Gathering::default(),
                coming: (0..clients).map(|client| (Instant::default(), client)).collect(),
                waiting: Vec::new(),
                written: None,
                syncs: 0,
                answered: 0,
                waited: Duration::ZERO,
                longest: Duration::ZERO,
            }
        }

        /// The next thing that happens; `think` is how long a client takes from an answer to its next proposal.
        fn step(&mut self, mut think: impl FnMut() -> Duration) {
            let synced = self.written.as_ref().map(|(until, _)| *until);
            let arrival = self.coming.first().map(|(at, _)| *at);
            let timeout = self.gathering.poll_timeout(self.now);
            self.now =
                [synced, arrival, timeout].into_iter().flatten().min().expect("nothing will ever happen");
            while let Some(come) = self.coming.pop_first() {
                if come.0 > self.now {
                    self.coming.insert(come);
                    break;
                }
                self.waiting.push(come);
            }
            if synced == Some(self.now) {
                let (_, written) = self.written.take().unwrap();
                self.gathering.note_synced(self.now, self.waiting.len(), true);
                self.syncs += 1;
                for (since, client) in written {
                    let waited = self.now.since(since);
                    self.answered += 1;
                    self.waited += waited;
                    self.longest = self.longest.max(waited);
                    self.coming.insert((self.now + think(), client));
                }
            }
            if self.waiting.is_empty() {
                self.gathering.note_none();
                return;
            }
            let sight = Sight {
                now: self.now,
                waiting: self.waiting.len(),
                unsynced: self.written.is_some().then_some(PersistId(self.syncs)),
                is_synced: false,
                is_settled: true,
            };
            if !self.gathering.holds(sight) {
                assert!(self.written.is_none(), "the disk is busy");
                self.gathering.note_gone(self.now, self.waiting.len());
                self.written = Some((self.now + SYNC, std::mem::take(&mut self.waiting)));
                self.gathering.note_none();
            }
        }

        /// Until so many are answered, beginning to count after a tenth of them: how many share a hundred syncs, and how long each waits.
        fn answer(&mut self, count: u64, mut think: impl FnMut() -> Duration) -> (u64, Duration) {
            while self.answered < count / 10 {
                self.step(&mut think);
            }
            (self.syncs, self.answered, self.waited) = (0, 0, Duration::ZERO);
            while self.answered < count {
                self.step(&mut think);
            }
            (100 * self.answered / self.syncs, self.waited / u32::try_from(self.answered).unwrap())
        }
    }

    #[test]
    fn clients_that_come_back_soon_share_one_sync() {
        let mut site = Site::new(100);
        let mut prng = Prng::new(1);
        let mut soon = || Duration::from_micros(100 + prng.next_u64() % 1500);
        // Half of them come while the first batch is on its way to the disk.
        let late = |n: usize| if n.is_multiple_of(2) { Duration::ZERO } else { SYNC / 2 };
        site.coming = (0..100).map(|n| (Instant::default() + late(n), n)).collect();
        let (shared, waited) = site.answer(10_000, &mut soon);
        assert!(shared > 9500, "{shared} share a hundred syncs");
        assert!(waited < SYNC * 4 / 3, "{waited:?}: the others' sync and their own would be {:?}", SYNC * 2);
    }

    #[test]
    fn nobody_waits_for_clients_that_do_not_come_back_soon() {
        for clients in [2, 5, 20, 100, 1000] {
            let mut site = Site::new(clients);
            let mut prng = Prng::new(clients as u64);
            let mut late = || Duration::from_micros(prng.next_u64() % 200_000);
            let (_, waited) = site.answer(20_000, &mut late);
            // On average half of another one's sync, and their own.
            assert!(waited < SYNC * 13 / 8, "{clients} clients: {waited:?}");
            assert!(site.longest <= SYNC * 2 + SYNC * 3 / 4, "{clients} clients: {:?}", site.longest);
        }
    }

    #[test]
    fn a_client_alone_never_waits() {
        let mut site = Site::new(1);
        let (shared, waited) = site.answer(100, || Duration::from_micros(50));
        assert_eq!((shared, waited), (100, SYNC));
    }

    /// What happens once: each attempt in vain makes the next one rarer, and one that was worth it brings them back.
    #[test]
    fn attempts_in_vain_become_rare_and_one_that_is_worth_it_brings_them_back() {
        let mut site = Site::new(4);
        let mut far = (0..).map(|n: u64| Duration::from_millis(7 + 3 * (n % 3)));
        let mut attempts = 0;
        for _ in 0..20_000 {
            let company = site.gathering.company.expected.is_some();
            site.step(|| far.next().unwrap());
            attempts += u64::from(!company && site.gathering.company.expected.is_some());
        }
        assert!(attempts * 16 < site.syncs, "{attempts} attempts in {} syncs", site.syncs);
        assert!(attempts > 0 && site.gathering.company.vain > 0);
        let (shared, _) = site.answer(10_000, || Duration::from_micros(300));
        assert!(shared > 385 && site.gathering.company.vain == 0, "{shared} share a hundred syncs");
    }

    /// A disk that hangs does not keep the followers from what they could write meanwhile.
    #[test]
    fn a_disk_that_hangs_is_not_waited_for() {
        let mut gathering = Gathering::default();
        let sight = Sight {
            now: Instant::default(),
            waiting: 1,
            unsynced: Some(PersistId(1)),
            is_synced: false,
            is_settled: false,
        };
        assert!(gathering.holds(sight));
        assert_eq!(gathering.wanted(1), Some(usize::MAX));
        let end = gathering.poll_timeout(sight.now).unwrap();
        assert_eq!(end, Instant::default() + GATHERING_MAX);
        assert!(!gathering.holds(Sight { now: end, ..sight }));
        assert_eq!((gathering.poll_timeout(end), gathering.wanted(1)), (None, None));
        // Nor for longer than that where company is expected after it.
        let mut gathering = Gathering::default();
        let nearly = GATHERING_MAX.saturating_sub(Duration::from_millis(1));
        gathering.note_gone(Instant::default(), 9);
        assert!(gathering.holds(sight));
        gathering.note_synced(Instant::default() + nearly, 1, true);
        let after = Sight { now: Instant::default() + nearly, unsynced: None, ..sight };
        assert!(gathering.holds(after));
        assert_eq!(gathering.poll_timeout(after.now), Some(end));
        assert!(!gathering.holds(Sight { now: end, ..after }));
        // What takes so long is no measure of how long clients take.
        let mut gathering = Gathering::default();
        gathering.note_gone(Instant::default(), 5);
        gathering.note_synced(Instant::default() + GATHERING_MAX * 2, 5, true);
        assert!(gathering.company.expected.is_none());
    }

    /// Over a network the answers come after the disk, and until they are there nobody can come back.
    #[test]
    fn silence_counts_once_everybody_has_an_answer() {
        let mut gathering = Gathering::default();
        let start = Instant::default();
        gathering.note_gone(start, 10);
        gathering.note_synced(start + SYNC, 1, true);
        let sight = |after: Duration, waiting, is_settled| Sight {
            now: start + SYNC + after,
            waiting,
            unsynced: None,
            is_synced: false,
            is_settled,
        };
        let silence = SYNC / SILENCE_OF_TURN;
        assert!(gathering.holds(sight(Duration::ZERO, 1, false)));
        assert_eq!(gathering.wanted(1), Some(10));
        assert!(gathering.holds(sight(silence, 1, false)), "no answers yet");
        assert!(!gathering.holds(sight(SYNC * 3 / 4, 1, false)), "not for ever");
        assert_eq!((gathering.company.vain, gathering.company.pause), (1, 1));

        let mut gathering = Gathering::default();
        gathering.note_gone(start, 10);
        gathering.note_synced(start + SYNC, 1, true);
        assert!(gathering.holds(sight(Duration::ZERO, 1, true)));
        assert!(!gathering.holds(sight(silence, 1, true)), "nobody has come back");

        let mut gathering = Gathering::default();
        gathering.note_gone(start, 10);
        gathering.note_synced(start + SYNC, 1, true);
        assert!(gathering.holds(sight(Duration::ZERO, 1, true)));
        assert!(gathering.holds(sight(silence, 2, true)), "one has");
    }
}
