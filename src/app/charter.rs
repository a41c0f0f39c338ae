//! What the leader does for the charter: it counts the cluster's running time, by which windows close and tokens expire.
//!
//! Owns: when that is counted, and when it is noted. Must never: ask a wall clock, or write while nothing ends by it (flash wears out). Driven by
//! `serve`, on every member; only the one that leads writes, and what it has counted when it has just ceased to.

use std::time::Duration;

use smol::Timer;
use smol::future::or;

use crate::command::CharterCommand;
use crate::config::TrustMode;
use crate::limits::ELAPSED_INTERVAL_SECONDS_MIN;
use crate::runtime::Handle;
use crate::runtime::clock::Clock;
use crate::store::Charter;
use crate::time::Instant;

/// How often a leader that counts looks at the clock: up to then is known what it has counted when it ceases to lead.
const LOOK: Duration = Duration::from_secs(5);
/// The pause before time that could not be noted is noted again.
const NOTE_AGAIN: Duration = Duration::from_secs(5);

/// Counts running time for as long as this member leads, or nothing else would.
#[derive(Debug, Default)]
struct RunningTime {
    /// While it leads: a point in time, and how long the cluster had run by then.
    from: Option<(Instant, u64)>,
    /// How long the cluster had run when it began to lead.
    began: u64,
    /// When it was last seen to lead.
    led: Instant,
    /// What it has counted while it led, and may not have noted.
    owed: u64,
}

/// What is to be done about the running time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing, as things are.
    Rest,
    /// Look again then.
    At(Instant),
    /// Note that it is this by now.
    Note(u64),
}

impl RunningTime {
    fn look(&mut self, now: Instant, leads: bool, charter: &Charter) -> Next {
        let Some(deadline) = charter.next_deadline() else {
            *self = Self::default();
            return Next::Rest;
        };
        if !leads {
            // Its successor has counted from what was noted. Both counts are of the same time, and the later one counts.
            if let Some(from) = self.from.take() {
                self.owed = counted(from, self.led);
            }
            return if self.owed > charter.elapsed { Next::Note(self.owed) } else { Next::Rest };
        }
        self.led = now;
        if self.from.is_none() {
            self.began = charter.elapsed.max(self.owed);
        }
        // Whoever led before may have counted on, and its count came later than its successor began.
        let known = self.from.filter(|from| counted(*from, now) >= charter.elapsed);
        let from = *self.from.insert(known.unwrap_or((now, charter.elapsed.max(self.owed))));
        let noted = charter.elapsed.saturating_sub(self.began);
        let interval = noted.clamp(ELAPSED_INTERVAL_SECONDS_MIN, charter.elapsed_interval());
        let due = deadline.min(charter.elapsed.saturating_add(interval));
        if counted(from, now) >= due {
            return Next::Note(counted(from, now));
        }
        Next::At(from.0 + Duration::from_secs(due - from.1))
    }
}

/// How long the cluster has run by now.
fn counted((since, elapsed): (Instant, u64), now: Instant) -> u64 {
    elapsed.saturating_add(now.since(since).as_secs())
}

/// Counts the cluster's running time while this member leads and something ends by it, and says in the log when the window has closed.
pub(super) async fn keep_time(handle: Handle, clock: Clock, trust: TrustMode) {
    let mut time = RunningTime::default();
    let mut was_open = false;
    loop {
        let changed = or(handle.charter_changed(), handle.leader_changed());
        let charter = handle.view().facts().charter.clone();
        // Elsewhere nobody came in by it.
        if was_open && !charter.is_open() && trust == TrustMode::LanOpen {
            tracing::info!("the window has closed: nodes come in by a token or an approval from now on");
        }
        was_open = charter.is_open();
        let status = handle.status();
        let pause = match time.look(clock.now(), status.leads(), &charter) {
            Next::Note(_) if status.leader.is_none() => NOTE_AGAIN,
            Next::Note(to) => match handle.change_charter(CharterCommand::Elapsed { to }).await {
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!(%error, "could not note how long the cluster has run; trying again");
                    NOTE_AGAIN
                }
            },
            Next::At(at) => clock.until(at).min(LOOK),
            Next::Rest => {
                changed.await;
                continue;
            }
        };
        let late = async {
            Timer::after(pause).await;
        };
        or(changed, late).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{TokenId, TokenKey};
    use crate::ids::{ClusterId, LogIndex};
    use crate::store::{Dissolution, Token, Window};

    const START: Instant = Instant(7_000_000_000);

    fn after(seconds: u64) -> Instant {
        START + Duration::from_secs(seconds)
    }

    /// The window closes at `closes`, and one token for each of `expires` is unused.
    fn charter(elapsed: u64, closes: u64, expires: &[u64]) -> Charter {
        let token = |expires: &u64| Token {
            id: TokenId([1; 8]),
            key: TokenKey([1; 32]),
            expires: *expires,
            used_by: None,
        };
        Charter {
            elapsed,
            window: Window { closes, ..Window::default() },
            tokens: expires.iter().map(token).collect(),
            ..Charter::automatic()
        }
    }

    /// What is noted, second by second, by a leader whose notes take effect at once.
    fn noted(mut charter: Charter, seconds: u64) -> Vec<(u64, u64)> {
        let (mut time, mut notes) = (RunningTime::default(), Vec::new());
        for second in 0..=seconds {
            if let Next::Note(to) = time.look(after(second), true, &charter) {
                notes.push((second, to));
                charter.elapsed = to;
                charter.tokens.retain(|token| token.expires > to);
            }
        }
        notes
    }

    #[test]
    fn each_minute_and_each_end_is_noted_and_nothing_else() {
        let first = [5, 10, 20, 40, 80].map(|at| (at, at));
        assert_eq!(noted(charter(0, 150, &[]), 1000), [&first[..], &[(140, 140), (150, 150)]].concat());
        let tokens = [5, 10, 20, 30, 60, 100].map(|at| (at, 300 + at));
        assert_eq!(noted(charter(300, 300, &[330, 400]), 1000), tokens);
        assert_eq!(noted(charter(300, 300, &[]), 1000), [], "nothing ends");
        let dissolved = Some(Dissolution { winner: ClusterId(1), at: LogIndex(1), ordered: false });
        assert_eq!(noted(Charter { dissolved, ..charter(0, 150, &[]) }, 1000), [], "nobody comes in");
    }

    #[test]
    fn only_the_leader_counts_and_only_from_when_it_leads() {
        let charter = charter(100, 1000, &[]);
        let mut time = RunningTime::default();
        assert_eq!(time.look(after(0), false, &charter), Next::Rest);
        assert_eq!(time.look(after(500), true, &charter), Next::At(after(505)));
        assert_eq!(time.look(after(504), true, &charter), Next::At(after(505)));
        assert_eq!(time.look(after(505), true, &charter), Next::Note(105));
        assert_eq!(time.look(after(508), true, &charter), Next::Note(108), "it was not noted");
        assert_eq!(
            time.look(after(570), false, &charter),
            Next::Note(108),
            "what it has counted is not lost"
        );
        let noted = Charter { elapsed: 108, ..charter.clone() };
        assert_eq!(time.look(after(571), false, &noted), Next::Rest);
        assert_eq!(time.look(after(900), true, &noted), Next::At(after(905)), "others have led meanwhile");
        // It leads again before its count was noted, and goes on from there.
        let mut time = RunningTime::default();
        time.look(after(0), true, &charter);
        time.look(after(3), true, &charter);
        assert_eq!(time.look(after(4), false, &charter), Next::Note(103));
        assert_eq!(time.look(after(50), true, &charter), Next::At(after(52)));
        assert_eq!(time.look(after(52), true, &charter), Next::Note(105));
    }

    #[test]
    fn what_others_have_counted_counts_and_nothing_counts_twice() {
        let mut time = RunningTime::default();
        assert_eq!(time.look(after(0), true, &charter(0, 1000, &[])), Next::At(after(5)));
        assert_eq!(time.look(after(60), true, &charter(0, 1000, &[])), Next::Note(60));
        // It took a while.
        assert_eq!(time.look(after(70), true, &charter(60, 1000, &[])), Next::At(after(120)));
        // The leader before has counted more.
        assert_eq!(time.look(after(80), true, &charter(100, 1000, &[])), Next::At(after(140)));
        assert_eq!(time.look(after(140), true, &charter(100, 1000, &[])), Next::Note(160));
        // While nothing ends, no time goes by.
        assert_eq!(time.look(after(200), true, &charter(160, 160, &[])), Next::Rest);
        assert_eq!(time.look(after(900), true, &charter(160, 160, &[400])), Next::At(after(905)));
    }

    /// Each leads for less than a minute, and dies.
    #[test]
    fn a_window_closes_however_often_leaders_change() {
        let mut charter = charter(0, 600, &[]);
        let (mut seconds, mut leaders) = (0, 0);
        while charter.is_open() {
            let mut time = RunningTime::default();
            leaders += 1;
            for _ in 0..30 {
                if let Next::Note(to) = time.look(after(seconds), true, &charter) {
                    charter.elapsed = to;
                }
                seconds += 1;
            }
            assert!(leaders < 60, "{} of {seconds} s were counted", charter.elapsed);
        }
    }
}
