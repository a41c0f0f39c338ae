//! Holding back the removal of compacted versions while somebody reads all of the state in slices.
//!
//! Owns: [`Hold`], and how long holds may last. Must never: let a slow or a vanished reader keep removal waiting without bound. Given out by
//! the checkpoint thread, which alone removes; kept by whoever reads.
//!
//! A long read must not keep one view: that would keep every page that is freed meanwhile. So it takes a fresh view for each slice, and what it
//! has not read yet must still be in the next one. Writes only add; folds move; removal alone takes away.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_channel::oneshot;

use super::clock::Clock;
use super::handle::{Handle, ServeError};
use super::threads::{ApplierInput, CoreInput, Queues};
use crate::limits::{HOLD_IDLE_MAX, HOLD_MAX};
use crate::mvcc::View;
use crate::time::Instant;

/// Who is told that a hold is in force.
pub(super) type Grant = oneshot::Sender<Hold>;

/// Removal waits while this lives. It ends by itself when its reader takes no view for [`HOLD_IDLE_MAX`], or once removal has waited for
/// [`HOLD_MAX`].
pub struct Hold(Arc<State>);

struct State {
    /// When the reader last showed itself; nanoseconds of the clock.
    seen: AtomicU64,
    lost: AtomicBool,
}

/// Why a slice cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HoldError {
    /// The node takes no more requests.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Reading took too long, so removal goes on, and what is left to read may be incomplete.
    #[error("reading the whole state took too long")]
    Lost,
}

impl Handle {
    /// Holds removal back from now on: every view that [`Hold::view`] gives has all that the first one has.
    pub async fn hold_removal(&self) -> Result<Hold, ServeError> {
        let (grant, granted) = oneshot::channel();
        self.0.core.send(CoreInput::Hold(grant)).map_err(|_| ServeError::Stopped)?;
        granted.await.map_err(|_| ServeError::Stopped)
    }
}

impl Hold {
    /// The newest state, with all that was retained when the hold began.
    pub fn view(&self, handle: &Handle) -> Result<Arc<View>, HoldError> {
        self.0.seen.store(handle.0.clock.now().0, Ordering::Relaxed);
        let view = handle.view();
        // In this order: a view that lacks something was published after the hold was marked.
        if self.0.lost.load(Ordering::Acquire) { Err(HoldError::Lost) } else { Ok(view) }
    }
}

/// The holds of a node, on the checkpoint thread.
pub(super) struct Holds {
    clock: Clock,
    held: Vec<Weak<State>>,
    /// Since when removal has had work that it was kept from.
    since: Option<Instant>,
    /// Readers that wait for their turn: removal has been held back for too long and goes first.
    waiting: Vec<Grant>,
}

impl Holds {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, held: Vec::new(), since: None, waiting: Vec::new() }
    }

    /// A reader asks for a hold.
    pub(super) fn ask(&mut self, grant: Grant, queues: &Queues) {
        if self.since.is_some_and(|since| self.clock.now().since(since) >= HOLD_MAX) {
            self.waiting.push(grant);
        } else {
            self.give(grant, queues);
        }
    }

    /// The hold begins now, but its reader is told once the views show all that was removed before.
    fn give(&mut self, grant: Grant, queues: &Queues) {
        self.held.retain(|hold| hold.strong_count() > 0);
        let seen = AtomicU64::new(self.clock.now().0);
        let state = Arc::new(State { seen, lost: AtomicBool::new(false) });
        self.held.push(Arc::downgrade(&state));
        drop(queues.applier.send(ApplierInput::Fence(Box::new(move || drop(grant.send(Hold(state)))))));
    }

    /// Whether removal, which has work, may do some of it.
    pub(super) fn allow_removal(&mut self) -> bool {
        let now = self.clock.now();
        let since = *self.since.get_or_insert(now);
        let overdue = now.since(since) >= HOLD_MAX;
        self.held.retain(|hold| {
            let Some(state) = hold.upgrade() else { return false };
            let idle = now.since(Instant(state.seen.load(Ordering::Relaxed)));
            let lost = overdue || idle >= HOLD_IDLE_MAX;
            if lost {
                tracing::warn!("a reader of the whole state is too slow: compaction goes on without it");
                state.lost.store(true, Ordering::Release);
            }
            !lost
        });
        if self.held.is_empty() && !overdue {
            self.since = None;
        }
        self.held.is_empty()
    }

    /// Another state takes the place of the one that is read: what is left to read is not what was begun with.
    pub(super) fn lose_all(&mut self) {
        for state in self.held.drain(..).filter_map(|hold| hold.upgrade()) {
            state.lost.store(true, Ordering::Release);
        }
    }

    /// Removal has nothing left to do.
    pub(super) fn removal_finished(&mut self, queues: &Queues) {
        self.since = None;
        for grant in std::mem::take(&mut self.waiting) {
            self.give(grant, queues);
        }
    }

    /// How long to wait before asking again whether removal may go on.
    pub(super) const LOOK: Duration = Duration::from_millis(100);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(holds: &mut Holds, queues: &Queues) -> Option<Hold> {
        let (grant, mut granted) = oneshot::channel();
        holds.ask(grant, queues);
        let mut inputs = Vec::new();
        queues.applier.drain(&mut inputs, Some(Duration::ZERO));
        for input in inputs {
            let ApplierInput::Fence(pass) = input else { panic!("only fences were sent") };
            pass();
        }
        granted.try_recv().expect("not dropped")
    }

    fn age(holds: &mut Holds, by: Duration) {
        holds.since = holds.since.map(|since| Instant(since.0 - u64::try_from(by.as_nanos()).unwrap()));
    }

    #[test]
    fn removal_waits_for_readers_that_live_and_read() {
        let (mut holds, queues) = (Holds::new(Clock::start()), Queues::default());
        assert!(holds.allow_removal());
        let (one, two) = (granted(&mut holds, &queues).unwrap(), granted(&mut holds, &queues).unwrap());
        assert!(!holds.allow_removal());
        drop(one);
        assert!(!holds.allow_removal());
        drop(two);
        assert!(holds.allow_removal());
        assert_eq!(holds.since, None, "what is held back next has all its time");
    }

    #[test]
    fn a_reader_that_has_gone_quiet_loses_its_hold() {
        let clock = Clock::start();
        let (mut holds, queues) = (Holds::new(clock), Queues::default());
        let hold = granted(&mut holds, &queues).unwrap();
        assert!(!holds.allow_removal() && !hold.0.lost.load(Ordering::Acquire));
        holds.clock = clock.ahead(HOLD_IDLE_MAX);
        assert!(holds.allow_removal() && hold.0.lost.load(Ordering::Acquire));
    }

    #[test]
    fn nobody_goes_on_reading_in_another_members_state() {
        let (mut holds, queues) = (Holds::new(Clock::start()), Queues::default());
        let hold = granted(&mut holds, &queues).unwrap();
        holds.lose_all();
        assert!(hold.0.lost.load(Ordering::Acquire) && holds.allow_removal());
        let next = granted(&mut holds, &queues).unwrap();
        assert!(!next.0.lost.load(Ordering::Acquire));
    }

    #[test]
    fn readers_that_take_turns_do_not_hold_removal_back_for_ever() {
        let clock = Clock::start().ahead(HOLD_MAX);
        let (mut holds, queues) = (Holds::new(clock), Queues::default());
        let one = granted(&mut holds, &queues).unwrap();
        assert!(!holds.allow_removal());
        let two = granted(&mut holds, &queues).unwrap();
        drop(one);
        age(&mut holds, HOLD_MAX);
        assert!(holds.allow_removal() && two.0.lost.load(Ordering::Acquire));
        let (grant, mut late) = oneshot::channel();
        holds.ask(grant, &queues);
        assert!(queues.applier.is_empty(), "removal goes first");
        assert!(holds.allow_removal());
        holds.removal_finished(&queues);
        assert!(!queues.applier.is_empty() && late.try_recv().is_ok());
    }
}
