//! The sending end of a transfer: this member's store, in pieces, to followers that the log cannot reach.
//!
//! Owns: who is sent what next, what is sent again, and how far removal may go meanwhile. Must never: send a piece that removal has
//! thinned out in the middle of a transfer. Driven by [`super::Checkpointer`], a piece at a time between folds.
//!
//! Pieces are read from the newest base, so a transfer grows with every fold until it has caught up with one; that base's facts end it. Two
//! pieces of different bases fit together as long as removal has only worked behind the later one:
//!
//! ```text
//! k: put at 5, deleted at 7, put at 9; removal to 8 leaves 9 alone
//!    5 sent, then removal, then 9: the follower would show k at 8          so: removal to C waits while a transfer is at or below C
//!    5 and 7 sent, then removal, then 9: the follower removes 5 and 7 itself, for its own removal begins anew
//! ```
//!
//! Leases come once all changes have, in the order of their table. One that a fold changes after it was sent is sent again (`lease_walk`), so that
//! what the follower has are the leases of the base that ends the transfer, whichever bases they came from.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::lease_walk::LeaseWalk;
use super::transfer::{TransferContent, TransferMessage};
use crate::consensus::SnapshotMark;
use crate::ids::{LeaseId, LogIndex, MemberId, Revision};
use crate::limits::TRANSFER_PIECE_BYTES;
use crate::store::{
    Base, Lease, Meta, StageProgress, StoreError, TransferId, encode_facts, pack, pack_leases,
};
use crate::time::Instant;
use crate::wal::Position;

/// What has no answer is sent again after this.
const RESEND: Duration = Duration::from_millis(500);
/// A follower that does not get on for this long is given up; raft asks anew when it hears from it.
const PATIENCE: Duration = Duration::from_secs(30);
/// The rest between two pieces to one follower: at most some 50 MB/s of the disk and the link, so that writes go on.
const PIECE_PAUSE: Duration = Duration::from_millis(5);

/// The pause before it is looked again whether the store is one that the follower can begin from; a fold was asked for.
const NAMED_PAUSE: Duration = Duration::from_millis(50);

/// What became of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferOutcome {
    /// The follower has all of it on its disk.
    Whole(SnapshotMark),
    /// It is given up.
    Failed,
}

/// What is on its way.
#[derive(Debug)]
struct Flight {
    content: TransferContent,
    /// Where the follower stands once it has it.
    after: StageProgress,
    /// The position that the last message stands for.
    mark: Option<SnapshotMark>,
}

impl Flight {
    fn is_last(&self) -> bool {
        self.mark.is_some()
    }
}

#[derive(Debug)]
struct Transfer {
    id: TransferId,
    /// The first position that the state may end at.
    from: LogIndex,
    acknowledged: StageProgress,
    leases: LeaseWalk,
    flight: Option<Flight>,
    /// When to make the next piece, or to send the last one again.
    due: Instant,
    /// When the follower last got on.
    moved: Instant,
    whole: bool,
}

/// All transfers of this member.
#[derive(Debug)]
pub(super) struct Source {
    member: MemberId,
    boot: u64,
    begun: u64,
    piece_bytes: usize,
    transfers: BTreeMap<MemberId, Transfer>,
    messages: VecDeque<(MemberId, TransferMessage)>,
    outcomes: VecDeque<(MemberId, TransferOutcome)>,
}

impl Source {
    pub(super) fn new(member: MemberId, boot: u64) -> Self {
        Self {
            member,
            boot,
            begun: 0,
            piece_bytes: TRANSFER_PIECE_BYTES,
            transfers: BTreeMap::new(),
            messages: VecDeque::new(),
            outcomes: VecDeque::new(),
        }
    }

    pub(super) fn set_piece_bytes(&mut self, bytes: usize) {
        self.piece_bytes = bytes;
    }

    /// Begins a transfer, from the first change on, of a state that includes the entry at `from`.
    pub(super) fn begin(&mut self, now: Instant, to: MemberId, from: LogIndex) {
        self.begun += 1;
        let id = TransferId { source: self.member, boot: self.boot, number: self.begun };
        let transfer = Transfer {
            id,
            from,
            acknowledged: StageProgress::default(),
            leases: LeaseWalk::default(),
            flight: None,
            due: now,
            moved: now,
            whole: false,
        };
        self.transfers.insert(to, transfer);
    }

    /// A fold has changed these leases in the store.
    pub(super) fn note_fold(&mut self, leases: &[(LeaseId, Option<Lease>)]) {
        // What has its last message belongs to the base of that.
        let goes_on = |transfer: &&mut Transfer| !transfer.flight.as_ref().is_some_and(Flight::is_last);
        for transfer in self.transfers.values_mut().filter(goes_on) {
            for (id, _) in leases {
                transfer.leases.note(*id);
            }
        }
    }

    /// Ends a transfer, whatever became of it.
    pub(super) fn end(&mut self, to: MemberId) {
        self.transfers.remove(&to);
    }

    pub(super) fn end_all(&mut self) {
        self.transfers.clear();
    }

    /// What a follower says of its progress.
    pub(super) fn handle_status(
        &mut self,
        now: Instant,
        from: MemberId,
        id: TransferId,
        progress: StageProgress,
        whole: bool,
    ) {
        let Some(transfer) = self.transfers.get_mut(&from).filter(|transfer| transfer.id == id) else {
            return;
        };
        let Some(flight) = &transfer.flight else { return };
        if whole && let Some(mark) = &flight.mark {
            transfer.moved = now;
            if !transfer.whole {
                transfer.whole = true;
                self.outcomes.push_back((from, TransferOutcome::Whole(mark.clone())));
            }
        } else if flight.mark.is_none() && progress == flight.after {
            (transfer.acknowledged, transfer.flight) = (progress, None);
            (transfer.moved, transfer.due) = (now, now + PIECE_PAUSE);
        } else if progress == StageProgress::default() && transfer.acknowledged != progress {
            // It has nothing of this transfer any more. Anything else that does not fit is late: what it has never becomes less.
            let first = transfer.from;
            self.begin(now, from, first);
        }
    }

    /// Sends one piece that is due, or one again; false when nothing is due.
    pub(super) fn work(
        &mut self,
        now: Instant,
        base: impl FnOnce() -> Result<Base, StoreError>,
    ) -> Result<bool, StoreError> {
        let Some((&to, transfer)) = self.transfers.iter_mut().find(|(_, transfer)| transfer.due <= now)
        else {
            return Ok(false);
        };
        if now.since(transfer.moved) >= PATIENCE || transfer.leases.is_overrun() {
            self.transfers.remove(&to);
            self.outcomes.push_back((to, TransferOutcome::Failed));
            return Ok(true);
        }
        let flight = if let Some(flight) = transfer.flight.take() {
            Some(flight)
        } else {
            let from = transfer.from;
            let is_end = |meta: &Meta| meta.conf_state.names(to) && meta.applied >= from;
            next_flight(transfer, &base()?, self.piece_bytes, is_end)?
        };
        let Some(flight) = flight else {
            transfer.due = now + NAMED_PAUSE;
            return Ok(true);
        };
        let message = TransferMessage { transfer: transfer.id, content: flight.content.clone() };
        transfer.flight = Some(flight);
        transfer.due = now + RESEND;
        self.messages.push_back((to, message));
        Ok(true)
    }

    /// When [`Source::work`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.transfers.values().map(|transfer| transfer.due).min()
    }

    /// Whether removal of what is at or below `target` has to wait.
    pub(super) fn holds(&self, target: Revision) -> bool {
        let behind = |transfer: &Transfer| !transfer.whole && transfer.acknowledged.next.main <= target;
        self.transfers.values().any(behind)
    }

    pub(super) fn poll_message(&mut self) -> Option<(MemberId, TransferMessage)> {
        self.messages.pop_front()
    }

    pub(super) fn poll_outcome(&mut self) -> Option<(MemberId, TransferOutcome)> {
        self.outcomes.pop_front()
    }
}

/// `None` where all is sent but the store is none that the follower could begin from yet: it is not far enough, or its configuration does not name
/// the follower, who would refuse such an end.
fn next_flight(
    transfer: &mut Transfer,
    base: &Base,
    piece_bytes: usize,
    is_end: impl Fn(&Meta) -> bool,
) -> Result<Option<Flight>, StoreError> {
    let before = transfer.acknowledged;
    let (mut changes, mut bytes) = (Vec::new(), 0);
    for change in base.changes(before.next, base.meta().revision)? {
        let (id, change) = change?;
        bytes += change.stored_bytes();
        changes.push((id, change));
        if bytes >= piece_bytes as u64 {
            break;
        }
    }
    let disordered = || StoreError::damaged_file("changes or leases are not in order");
    if !changes.is_empty() {
        let piece = pack(&changes);
        let after = before.after(&piece, &changes).ok_or_else(disordered)?;
        return Ok(Some(Flight {
            content: TransferContent::Piece { before, changes: piece },
            after,
            mark: None,
        }));
    }
    let leases = transfer.leases.next_piece(base, piece_bytes)?;
    if !leases.is_empty() {
        let piece = pack_leases(&leases);
        let after = before.after_leases(&piece, &leases).ok_or_else(disordered)?;
        return Ok(Some(Flight {
            content: TransferContent::Leases { before, leases: piece },
            after,
            mark: None,
        }));
    }
    Ok(is_end(base.meta()).then(|| {
        let content = TransferContent::Last { at: before, facts: encode_facts(base.meta()).into() };
        Flight { content, after: before, mark: Some(mark_of(base.meta())) }
    }))
}

/// The position that a store's facts stand for.
pub(super) fn mark_of(meta: &Meta) -> SnapshotMark {
    let position = Position { index: meta.applied, term: meta.applied_term };
    SnapshotMark { position, conf_state: meta.conf_state.clone() }
}
