//! Which leases a follower is yet to be sent.
//!
//! Owns: how far the walk over the table has come, and which of those behind it have changed since. Must never: hold the leases themselves, or let
//! one go that the follower has in an older form. Driven by [`super::source`].
//!
//! ```text
//! places   a  b  c  d ┊ e  f  g        sent up to d, then a fold that changes b, ends c and grants f:
//!             *  *    ┊                b and c are sent again, as the next base has them; f comes with the walk
//! ```
//!
//! So the leases of a base that has neither changes behind the walk nor leases before it are those that the follower has.

use std::collections::BTreeSet;

use crate::ids::LeaseId;
use crate::store::{Base, Lease, LeasePlace, StoreError};

/// Leases that changed and wait to be sent again: more than folds can change while one piece is on its way, some 16 MB. A link that lags further
/// behind never catches up. Few in tests.
const CHANGED_MAX: usize = if cfg!(test) { 64 } else { 1 << 20 };

/// The most that a lease takes in a piece: its id, the length of its row, two times of at most nine bytes, an index of ten, the seal.
const ROW_BYTES_MAX: usize = 8 + 1 + 2 * 9 + 10 + 4;

/// How far a walk has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    Nothing,
    /// This one, and all before it.
    Place(LeasePlace),
    /// All that there were.
    End,
}

/// A walk over the leases of a store that goes on changing.
#[derive(Debug)]
pub(super) struct LeaseWalk {
    reached: Reached,
    /// Behind the walk, and changed.
    changed: BTreeSet<LeasePlace>,
}

impl Default for LeaseWalk {
    fn default() -> Self {
        Self { reached: Reached::Nothing, changed: BTreeSet::new() }
    }
}

impl LeaseWalk {
    /// A fold has changed this lease, granted it or ended it.
    pub(super) fn note(&mut self, id: LeaseId) {
        let place = LeasePlace::of(id);
        let passed = match self.reached {
            Reached::Nothing => false,
            Reached::Place(reached) => place <= reached,
            Reached::End => true,
        };
        if passed && !self.is_overrun() {
            self.changed.insert(place);
        }
    }

    /// Whether more has changed than is kept. Then there is nothing to go on from.
    pub(super) fn is_overrun(&self) -> bool {
        self.changed.len() > CHANGED_MAX
    }

    /// What to send next, as `base` has it, in the order of the places; empty once that is all. `base` is the newest one.
    ///
    /// Those that changed go first: were they to wait for the walk, there could be as many of them as it takes long.
    pub(super) fn next_piece(
        &mut self,
        base: &Base,
        bytes: usize,
    ) -> Result<Vec<(LeaseId, Option<Lease>)>, StoreError> {
        let most = (bytes / ROW_BYTES_MAX).max(1);
        assert!(!self.is_overrun(), "what was not kept is missed");
        let mut leases = Vec::new();
        while leases.len() < most
            && let Some(place) = self.changed.pop_first()
        {
            leases.push((place.id(), base.lease_at(place)?));
        }
        let after = match self.reached {
            Reached::Nothing => None,
            Reached::Place(place) => Some(place),
            Reached::End => return Ok(leases),
        };
        let room = most - leases.len();
        let mut taken = 0;
        for lease in base.leases_after(after)?.take(room) {
            let (id, lease) = lease?;
            leases.push((id, Some(lease)));
            self.reached = Reached::Place(LeasePlace::of(id));
            taken += 1;
        }
        if taken < room {
            self.reached = Reached::End;
        }
        Ok(leases)
    }
}
