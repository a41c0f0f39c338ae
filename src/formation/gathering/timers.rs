//! How long everything takes while nodes gather.
//!
//! Owns: the numbers, each of which a test may change. Must never: depend on each other in a way that is not said here. Read by `gathering`.

use std::time::Duration;

/// How long everything takes.
#[derive(Clone, Copy, Debug)]
pub struct Timers {
    /// Nobody founds before it has looked around for so long.
    pub probe_min: Duration,
    /// What a node sees has to stay the same for so long.
    pub stable: Duration,
    /// Who has not answered for so long is not visible any more.
    pub session: Duration,
    /// Who is announced and does not answer is left out after so long.
    pub unreachable: Duration,
    /// However many are announced that never answer: they are waited for no longer than this in all.
    pub sightings: Duration,
    /// A promise is held for so long, ...
    pub promise_held: Duration,
    /// ... and counted on for so long. The difference is for the founder to be there before anybody else tries.
    pub promise_counted: Duration,
    /// Between two promises: each is written twice and synced, and its end, too.
    pub promise_every: Duration,
    /// Founded alone, where nobody else has been there for so long, ...
    pub solo_after: Duration,
    /// ... and no interface has come up in so long: a switch may let nothing through for half a minute.
    pub solo_after_up: Duration,
    /// How long it is waited for nodes that do not see the same ones.
    pub patience: Duration,
    /// A cluster that was there is waited for as long as its only member may take to start again.
    pub member_gone: Duration,
    /// How long a node that has left its cluster for another one looks for that before it is in any other: it may not hear it first.
    pub winner_awaited: Duration,
    /// Between two probes of a node, ...
    pub probe_every: Duration,
    /// ... and of one that may found at any moment.
    pub watch_every: Duration,
    /// A probe without an answer is lost after so long, ...
    pub probe_timeout: Duration,
    /// ... and another question: the answer may have to wait for a disk, or for a cluster's log.
    pub ask_timeout: Duration,
    /// After an attempt that came to nothing: at least this, at most twice as long; twice that after the next one, ...
    pub back_off: Duration,
    /// ... and so on up to this.
    pub back_off_max: Duration,
    /// Between two requests to join that only time can change, ...
    pub join_every: Duration,
    /// ... and that somebody has to grant.
    pub pending_every: Duration,
    /// A claim that is turned down is shown there again after as long as the latter, then after twice that, and so on up to this, ...
    pub claim_every_max: Duration,
    /// ... and up to this where nobody has shown to know it: whoever says so may be anybody, and the cluster be there later.
    pub claim_doubted_max: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        let (millis, seconds) = (Duration::from_millis, Duration::from_secs);
        Self {
            probe_min: seconds(3),
            stable: seconds(2),
            session: seconds(5),
            unreachable: seconds(10),
            sightings: seconds(20),
            promise_held: seconds(30),
            promise_counted: seconds(20),
            promise_every: seconds(1),
            solo_after: seconds(8),
            solo_after_up: seconds(35),
            patience: seconds(20),
            member_gone: seconds(30),
            winner_awaited: seconds(30),
            probe_every: seconds(1),
            watch_every: millis(250),
            probe_timeout: seconds(3),
            ask_timeout: seconds(6),
            back_off: millis(500),
            back_off_max: seconds(8),
            join_every: seconds(1),
            pending_every: seconds(5),
            claim_every_max: seconds(120),
            claim_doubted_max: seconds(30),
        }
    }
}
