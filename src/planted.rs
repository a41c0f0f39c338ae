//! Bugs that are put in on purpose, so that the simulator can show that it finds them.
//!
//! Owns: their names. Must never: do anything in a build without the feature `planted`, in which [`has`] is a constant. Driven by: tests, each of which
//! plants one bug for its own thread; a simulated cluster runs on one.

/// A bug that can be planted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bug {
    /// A leader applies an entry once it has that itself.
    AckBeforeQuorum,
    /// An entry counts as durable before it was synced.
    AckBeforeSync,
    /// Entries are appended behind a gap or another leader's.
    AppendAnywhere,
    /// A copy of a data directory, or an older one, is taken for the member itself.
    BelieveCopies,
    /// Of too many words of other clusters' members the oldest goes, whoever has said it.
    BuryByAge,
    /// Of two clusters that meet the one stays whose member says that it has the lower name, and not the one with the lower id: its members answer by turns.
    CompareNames,
    /// A member that is on its way out of the configuration is told nothing more.
    CutOffLeaving,
    /// A lease's deadline of an earlier leader's term ends it.
    EarlyDeadlines,
    /// A member that has what a user may have written leaves its cluster on the word of one other.
    FollowOneWord,
    /// The rows of a fold reach the disk with the position of the fold before.
    ForgetApplied,
    /// A node that starts again knows nothing of its promise to found with others.
    ForgetPromise,
    /// A vote is not on the disk when it is cast.
    ForgetVote,
    /// A leader that was removed goes on leading.
    LeadWhenRemoved,
    /// A log begins anew on the disk before the state that it begins after is there.
    LogBeforeState,
    /// A node promises itself to two founders.
    PromiseTwice,
    /// All read-index rounds have the same context.
    ReuseReadContext,
    /// Messages leave before what they say is on the disk.
    SendBeforeSync,
    /// A directory is not synced after a file was made in it.
    SkipDirSync,
    /// A member takes those that vote by its state for those by whom a write in its log was done, whatever changes of that the log has before it.
    TrustOldVoters,
    /// A vote is given to a candidate with an older log.
    VoteForAnyLog,
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this thread runs with `bug`.
#[cfg(feature = "planted")]
pub fn has(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this thread runs with `bug`: never, in a build without the feature.
#[cfg(not(feature = "planted"))]
pub const fn has(_bug: Bug) -> bool {
    false
}

/// From now on this thread runs with `bug`, and with no other one.
#[cfg(feature = "planted")]
pub fn plant(bug: Bug) {
    PLANTED.set(Some(bug));
}
