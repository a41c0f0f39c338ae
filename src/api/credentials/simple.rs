//! etcd's simple tokens: known to every member, gone when they are not used for a while.
//!
//! Owns: what stands in a token, and how long each is good here. Must never: look at a wall clock, or write to the log for each login: see [`crate::auth`]. Driven by `tokens`.
//!
//! ```text
//! token = base64url( version:u8 (2)  run:u64  made:u64  at:u64  drawn:u64  since:u64  user…  HMAC-SHA256 of all that, by the cluster's secret )
//! ```
//!
//! Whoever has the secret can tell that a member has made a token, in which run, when by that run's own clock, and at which entry of the log. The rest is each member's business: it keeps when a
//! token was used last, and one that it does not know is as old as it was made. By another member's clock that is a guess: the fastest that a token of that run has come says how the two clocks
//! differ, and the first one counts as new.
//!
//! What ends a token everywhere is the state (another password, another user of that name, disabling), and the end of the run that made it: as in etcd the client logs in again. A member that
//! begins anew does not know which of the others' tokens have ended, and takes none from before, as in etcd: those that were made at an earlier entry than the one that made it known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use crate::command::TokenSecret;
use crate::ids::{AuthRevision, LogIndex};
use crate::time::Instant;

/// Default of `--auth-token-ttl` (etcd's default).
pub const SIMPLE_TTL: Duration = Duration::from_secs(300);
/// Tokens whose last use is kept; of more, those that end first are as old as they were made. Some 2 MB.
const USED_MAX: usize = 16 * 1024;
/// Runs whose clocks are known.
const RUNS_MAX: usize = 256;
/// The longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 4 * 1024;
/// What the secret signs is a token of ours and nothing else.
const VERSION: u8 = 2;
const TAG_BYTES: usize = 32;
const HEAD_BYTES: usize = 1 + 5 * 8;

/// Tells one token from another.
type Tag = [u8; TAG_BYTES];

/// Makes and checks tokens.
pub struct SimpleTokens {
    ttl: Duration,
    run: u64,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// When each ends, unless it is used before.
    ends: BTreeMap<Tag, Instant>,
    /// The same, soonest first.
    soonest: BTreeSet<(Instant, Tag)>,
    /// How far this member's clock is ahead of that of another run, in milliseconds, at most.
    ahead: BTreeMap<u64, i128>,
}

/// Whom a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The user.
    pub user: String,
    /// See [`crate::auth::User::since`].
    pub since: AuthRevision,
}

impl SimpleTokens {
    /// Those of this run, for so long after their last use.
    pub fn new(ttl: Duration, run: u64) -> Self {
        Self { ttl, run, known: Mutex::default() }
    }

    /// A new token, by a state that has the entries up to `at`. `drawn` is random, so that no two are the same.
    pub fn make(
        &self,
        secret: &TokenSecret,
        holder: &Holder,
        drawn: u64,
        at: LogIndex,
        now: Instant,
    ) -> String {
        let mut bytes = vec![VERSION];
        for number in [self.run, millis(now), at.0, drawn, holder.since.0] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(holder.user.as_bytes());
        let tag = hmac::sign(&key(secret), &bytes);
        bytes.extend(tag.as_ref());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whose token this is, if it is good: then it is used now. `is_known` says whether another run is that of a member today, and what it made at an entry may be good here.
    pub fn check(
        &self,
        secret: &TokenSecret,
        token: &str,
        now: Instant,
        is_known: impl Fn(u64, LogIndex) -> bool,
    ) -> Option<Holder> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (signed, tag) = bytes.split_last_chunk::<TAG_BYTES>()?;
        hmac::verify(&key(secret), signed, tag).ok()?;
        let (head, user) = signed.split_at_checked(HEAD_BYTES)?;
        if head[0] != VERSION {
            return None;
        }
        let number = |place: usize| {
            let from = 1 + place * 8;
            head.get(from..from + 8)?.try_into().ok().map(u64::from_le_bytes)
        };
        let (run, made, at, since) = (number(0)?, number(1)?, LogIndex(number(2)?), number(4)?);
        if run != self.run && !is_known(run, at) {
            return None;
        }
        let user = String::from_utf8(user.to_vec()).ok()?;
        self.is_in_time(*tag, run, made, now).then_some(Holder { user, since: AuthRevision(since) })
    }

    fn is_in_time(&self, tag: Tag, run: u64, made: u64, now: Instant) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let good = match known.forget(&tag) {
            Some(end) => now < end,
            None => known.age(run, made, now, run == self.run) < self.ttl,
        };
        if good {
            known.keep(tag, now + self.ttl);
        }
        good
    }
}

impl Known {
    fn forget(&mut self, tag: &Tag) -> Option<Instant> {
        let end = self.ends.remove(tag)?;
        self.soonest.remove(&(end, *tag));
        Some(end)
    }

    fn keep(&mut self, tag: Tag, end: Instant) {
        self.ends.insert(tag, end);
        self.soonest.insert((end, tag));
        if self.ends.len() > USED_MAX
            && let Some((_, tag)) = self.soonest.pop_first()
        {
            self.ends.remove(&tag);
        }
    }

    /// How old a token is that was made at this time of its run's clock; at least so old.
    fn age(&mut self, run: u64, made: u64, now: Instant, is_own: bool) -> Duration {
        let apart = i128::from(millis(now)) - i128::from(made);
        let ahead = if is_own {
            0
        } else {
            *self.ahead.entry(run).and_modify(|ahead| *ahead = apart.min(*ahead)).or_insert(apart)
        };
        if self.ahead.len() > RUNS_MAX {
            self.ahead.pop_first();
        }
        Duration::from_millis(u64::try_from((apart - ahead).max(0)).unwrap_or(u64::MAX))
    }
}

fn millis(now: Instant) -> u64 {
    u64::try_from(now.since(Instant::default()).as_millis()).unwrap_or(u64::MAX)
}

fn key(secret: &TokenSecret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &secret.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: TokenSecret = TokenSecret([7; 32]);
    const TTL: Duration = Duration::from_secs(300);

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    fn alice() -> Holder {
        Holder { user: "alice".into(), since: AuthRevision(3) }
    }

    const ENTRY: LogIndex = LogIndex(40);

    fn nobody(_: u64, _: LogIndex) -> bool {
        false
    }

    #[test]
    fn a_token_is_good_while_it_is_used() {
        let tokens = SimpleTokens::new(TTL, 1);
        let token = tokens.make(&SECRET, &alice(), 5, ENTRY, at(1000));
        for seconds in [1000, 1299, 1598, 1897] {
            assert_eq!(tokens.check(&SECRET, &token, at(seconds), nobody), Some(alice()), "{seconds}");
        }
        for seconds in [2197, 2198, 9000] {
            assert_eq!(tokens.check(&SECRET, &token, at(seconds), nobody), None, "{seconds}");
        }
        let unused = tokens.make(&SECRET, &alice(), 6, ENTRY, at(1000));
        assert_eq!(tokens.check(&SECRET, &unused, at(1300), nobody), None);
        assert_ne!(token, tokens.make(&SECRET, &alice(), 7, ENTRY, at(1000)));
    }

    #[test]
    fn nothing_else_is_a_token() {
        let tokens = SimpleTokens::new(TTL, 1);
        let token = tokens.make(&SECRET, &alice(), 5, ENTRY, at(0));
        assert_eq!(tokens.check(&TokenSecret([8; 32]), &token, at(0), nobody), None);
        for place in 0..token.len() {
            let mut other = token.clone().into_bytes();
            other[place] = if other[place] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert_eq!(tokens.check(&SECRET, &other, at(0), nobody), None, "byte {place}");
            assert_eq!(tokens.check(&SECRET, &token[..place], at(0), nobody), None, "{place} bytes");
        }
        assert_eq!(tokens.check(&SECRET, &"A".repeat(TOKEN_BYTES_MAX + 1), at(0), nobody), None);
    }

    /// Every member takes what another one has made, for as long; and nothing of a run that has ended.
    #[test]
    fn a_token_is_good_at_every_member() {
        let (one, other) = (SimpleTokens::new(TTL, 1), SimpleTokens::new(TTL, 2));
        let is_run = |run: u64, _: LogIndex| run == 1 || run == 2;
        // Their clocks have begun at other times, and the second member is asked first when the token is not new any more.
        let token = one.make(&SECRET, &alice(), 5, ENTRY, at(10_000));
        assert_eq!(other.check(&SECRET, &token, at(200), is_run), Some(alice()));
        // By what is known now, an older one has ended, which was never seen here; a younger one has not.
        let (old, young) = (
            one.make(&SECRET, &alice(), 6, ENTRY, at(9_700)),
            one.make(&SECRET, &alice(), 7, ENTRY, at(10_050)),
        );
        assert_eq!(other.check(&SECRET, &old, at(200), is_run), None);
        assert_eq!(other.check(&SECRET, &young, at(260), is_run), Some(alice()));
        // What has ended here does not begin anew.
        assert_eq!(other.check(&SECRET, &token, at(200 + 300), is_run), None);
        assert_eq!(other.check(&SECRET, &token, at(200 + 301), is_run), None);
        let restarted = SimpleTokens::new(TTL, 3);
        assert_eq!(restarted.check(&SECRET, &young, at(0), |run, _| run == 2), None);
    }

    #[test]
    fn what_was_made_before_a_member_was_there_is_nothing_to_it() {
        let (one, other) = (SimpleTokens::new(TTL, 1), SimpleTokens::new(TTL, 2));
        let is_known = |run: u64, at: LogIndex| run == 1 && at >= ENTRY;
        let before = one.make(&SECRET, &alice(), 5, LogIndex(ENTRY.0 - 1), at(10_000));
        let since = one.make(&SECRET, &alice(), 6, ENTRY, at(10_000));
        assert_eq!(other.check(&SECRET, &before, at(1), is_known), None);
        assert_eq!(other.check(&SECRET, &since, at(1), is_known), Some(alice()));
        // By its own clock a member knows how old they are.
        assert_eq!(one.check(&SECRET, &before, at(10_001), nobody), Some(alice()));
    }

    #[test]
    fn of_too_many_tokens_those_are_forgotten_that_end_first() {
        let tokens = SimpleTokens::new(TTL, 1);
        let first = tokens.make(&SECRET, &alice(), u64::MAX, ENTRY, at(0));
        assert!(tokens.check(&SECRET, &first, at(100), nobody).is_some());
        for drawn in 0..USED_MAX as u64 {
            let token = tokens.make(&SECRET, &alice(), drawn, ENTRY, at(200));
            assert!(tokens.check(&SECRET, &token, at(200), nobody).is_some());
        }
        // Its use is forgotten, its age is not.
        assert!(tokens.check(&SECRET, &first, at(301), nobody).is_none());
        let known = tokens.known.lock().unwrap();
        assert_eq!((known.ends.len(), known.soonest.len()), (USED_MAX, USED_MAX));
    }
}
