//! What the leader does for the charter: it counts the cluster's running time, by which windows close and tokens expire.
//!
//! Owns: when that is counted, and when it is noted. Must never: ask a wall clock, or write while nothing ends by it (flash wears out). Driven by
//! `serve`, on every member; only the one that leads writes.

use std::time::Duration;

use smol::Timer;

use crate::command::CharterCommand;
use crate::config::TrustMode;
use crate::runtime::Handle;
use crate::runtime::clock::Clock;
use crate::store::Charter;
use crate::time::Instant;

/// How often is looked who leads, while something ends by the running time; and the pause before time that could not be noted is noted again.
const LOOK: Duration = Duration::from_secs(5);

/// Counts running time for as long as this member leads, or nothing else would.
#[derive(Debug, Default)]
struct RunningTime {
    /// A point in time, and how long the cluster had run by then.
    from: Option<(Instant, u64)>,
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
        let Some(deadline) = charter.next_deadline().filter(|_| leads) else {
            self.from = None;
            return Next::Rest;
        };
        // Whoever led before may have counted on, and its count came later than its successor began.
        let known = self.from.filter(|from| counted(*from, now) >= charter.elapsed);
        let from = *self.from.insert(known.unwrap_or((now, charter.elapsed)));
        let due = deadline.min(charter.elapsed.saturating_add(charter.elapsed_interval()));
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
        let changed = handle.charter_changed();
        let charter = handle.view().facts().charter.clone();
        // Elsewhere nobody came in by it.
        if was_open && !charter.is_open() && trust == TrustMode::LanOpen {
            tracing::info!("the window has closed: nodes come in by a token or an approval from now on");
        }
        was_open = charter.is_open();
        let pause = match time.look(clock.now(), handle.status().leads(), &charter) {
            Next::Note(to) => match handle.change_charter(CharterCommand::Elapsed { to }).await {
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!(%error, "could not note how long the cluster has run; trying again");
                    LOOK
                }
            },
            Next::At(at) => clock.until(at).min(LOOK),
            // Another member leads, which this one may have to do soon.
            Next::Rest if charter.next_deadline().is_some() => LOOK,
            Next::Rest => {
                changed.await;
                continue;
            }
        };
        let late = async {
            Timer::after(pause).await;
        };
        smol::future::or(changed, late).await;
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
        assert_eq!(noted(charter(0, 150, &[]), 1000), [(60, 60), (120, 120), (150, 150)]);
        assert_eq!(noted(charter(300, 300, &[330, 400]), 1000), [(30, 330), (90, 390), (100, 400)]);
        assert_eq!(noted(charter(300, 300, &[]), 1000), [], "nothing ends");
        let dissolved = Some(Dissolution { winner: ClusterId(1), at: LogIndex(1), ordered: false });
        assert_eq!(noted(Charter { dissolved, ..charter(0, 150, &[]) }, 1000), [], "nobody comes in");
    }

    #[test]
    fn only_the_leader_counts_and_only_from_when_it_leads() {
        let charter = charter(100, 1000, &[]);
        let mut time = RunningTime::default();
        assert_eq!(time.look(after(0), false, &charter), Next::Rest);
        assert_eq!(time.look(after(500), true, &charter), Next::At(after(560)));
        assert_eq!(time.look(after(559), true, &charter), Next::At(after(560)));
        assert_eq!(time.look(after(560), true, &charter), Next::Note(160));
        assert_eq!(time.look(after(563), true, &charter), Next::Note(163), "it was not noted");
        assert_eq!(time.look(after(570), false, &charter), Next::Rest);
        assert_eq!(time.look(after(900), true, &charter), Next::At(after(960)), "what it had is forgotten");
    }

    #[test]
    fn what_others_have_counted_counts_and_nothing_counts_twice() {
        let mut time = RunningTime::default();
        assert_eq!(time.look(after(0), true, &charter(0, 1000, &[])), Next::At(after(60)));
        assert_eq!(time.look(after(60), true, &charter(0, 1000, &[])), Next::Note(60));
        // It took a while.
        assert_eq!(time.look(after(70), true, &charter(60, 1000, &[])), Next::At(after(120)));
        // The leader before has counted more.
        assert_eq!(time.look(after(80), true, &charter(100, 1000, &[])), Next::At(after(140)));
        assert_eq!(time.look(after(140), true, &charter(100, 1000, &[])), Next::Note(160));
        // While nothing ends, no time goes by.
        assert_eq!(time.look(after(200), true, &charter(160, 160, &[])), Next::Rest);
        assert_eq!(time.look(after(900), true, &charter(160, 160, &[400])), Next::At(after(960)));
    }
}
