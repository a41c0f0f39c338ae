//! The store's disk as a machine: folds, between them slices of compaction and pieces of the state for or from others, and a slow scrub.
//!
//! Owns: the store while the member runs, whose turn it is on it, and who is told of what in which order. Must never: let a fold wait
//! for more than one slice, report what is not in the store yet, or close a store under its readers. Driven by the checkpoint thread of `runtime` and by the simulator.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::source::{Source, TransferOutcome};
use super::staging::Staging;
use super::transfer::{TransferContent, TransferMessage};
use crate::consensus::SnapshotMark;
use crate::disk::Directory;
use crate::formation::keep_facts;
use crate::ids::{LogIndex, MemberId, Revision};
use crate::limits::{COMPACTION_PAUSE, COMPACTION_SLICE, SCRUB_PAUSE, SCRUB_REST, SCRUB_SLICE};
use crate::store::{Base, FoldBatch, ScrubCursor, Store, StoreError};
use crate::time::Instant;

/// What the checkpointer is asked for by [`super::ApplierOutput`].
#[derive(Debug)]
pub enum CheckpointJob {
    /// Commit a frozen generation.
    Fold(FoldBatch),
    /// Begin to remove what compaction left over.
    Compact,
    /// A message of a transfer has come from this member. One too many is dropped, which is a loss like any other.
    Receive(MemberId, TransferMessage),
    /// Send the state to a follower, from the beginning.
    Serve {
        /// Whom.
        to: MemberId,
        /// An entry that the state has to include.
        from: LogIndex,
    },
    /// Stop sending to this follower.
    Settle(MemberId),
    /// Stop sending to anybody.
    SettleAll,
    /// The staged state of this position takes the place of the store.
    Install(SnapshotMark),
    /// Consensus counts on nothing that is staged.
    Release,
}

/// What others are to be told.
#[derive(Debug)]
pub enum CheckpointOutput {
    /// To [`super::Applier::handle_folded`].
    Folded(Arc<Base>),
    /// To [`super::Core::handle_checkpointed`].
    Checkpointed(LogIndex),
    /// To [`super::Applier::handle_compacted`].
    Compacted(Arc<Base>),
    /// To that member's [`Checkpointer`], as a [`CheckpointJob::Receive`]. Loss is harmless.
    Send(MemberId, TransferMessage),
    /// To [`super::Core::handle_transfer`].
    Transferred(MemberId, TransferOutcome),
    /// To [`super::Core::handle_staged`].
    Staged(SnapshotMark),
    /// To [`super::Core::handle_contest`].
    Contested,
    /// To [`super::Applier::handle_installed`], and then the position to [`super::Core::handle_installed`].
    Installed(Arc<Base>),
    /// To callers who wait until the removal up to this revision has come to its end.
    Removed(Revision),
}

/// A piece of work that was done, for whoever measures and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointWork {
    /// A generation of so many changes is in the store, whose state is now that of this position.
    Fold {
        /// Changes.
        changes: usize,
        /// The position.
        applied: LogIndex,
    },
    /// A slice of compaction.
    Slice {
        /// The revision up to which everything is removed, once this was the last slice.
        finished: Option<Revision>,
    },
    /// A piece of a transfer was read, or received.
    Piece,
    /// The store is that of another member, as of this position.
    Install {
        /// The position.
        applied: LogIndex,
    },
    /// A slice of the scrub.
    Scrub {
        /// The rows that the walk has found sound, once this was the last slice.
        finished: Option<usize>,
    },
}

/// Messages of transfers that may wait; a source has one on its way.
const INBOX_MAX: usize = 16;
/// Removal that has to wait for a transfer is looked at again after this.
const HELD_PAUSE: Duration = Duration::from_secs(1);

/// When the next slice of compaction is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compaction {
    /// There is nothing to remove.
    Resting,
    /// At this time.
    Due(Instant),
    /// A pause after the call that comes next: how long a slice took is not known while it is done.
    Paused,
}

/// A slow walk over all rows, again and again: what rots where nobody reads is found before it is needed.
#[derive(Debug)]
struct Scrub {
    cursor: ScrubCursor,
    rows: usize,
    next_slice: Instant,
}

/// The store and what is to be done with it.
///
/// # Contract
///
/// [`Checkpointer::handle`] what has come, one piece of [`Checkpointer::work`], carry out what [`Checkpointer::poll_output`] gives, and
/// so on; once `work` has answered `None`, sleep until there is a new job, or until [`Checkpointer::poll_timeout`]. `now` is taken anew
/// for each call and never goes backwards. After an error nothing works any more.
pub struct Checkpointer<D> {
    root: D,
    member: MemberId,
    store: Store,
    /// Stores whose place another one has taken, while somebody still reads them.
    retired: Vec<Store>,
    source: Source,
    staging: Staging<D>,
    inbox: VecDeque<(MemberId, TransferMessage)>,
    install: Option<SnapshotMark>,
    folds: VecDeque<FoldBatch>,
    compaction: Compaction,
    /// Somebody reads what compaction would remove.
    held: bool,
    /// See [`Checkpointer::hold_writes`].
    full: bool,
    /// Changes that a slice of compaction may remove.
    slice: usize,
    scrub: Scrub,
    outputs: VecDeque<CheckpointOutput>,
}

impl<D: Directory> Checkpointer<D> {
    /// A checkpointer of a store that was just opened in `root`, in the run of `member` that has this nonce.
    pub fn new(now: Instant, store: Store, root: D, member: MemberId, boot_nonce: u64) -> Self {
        let staging = Staging::new(now, root.clone(), member, store.options());
        Self {
            root,
            member,
            store,
            retired: Vec::new(),
            source: Source::new(member, boot_nonce),
            staging,
            inbox: VecDeque::new(),
            install: None,
            folds: VecDeque::new(),
            compaction: Compaction::Resting,
            held: false,
            full: false,
            slice: COMPACTION_SLICE,
            scrub: Scrub { cursor: ScrubCursor::default(), rows: 0, next_slice: now + SCRUB_PAUSE },
            outputs: VecDeque::new(),
        }
    }

    /// Makes slices of compaction smaller or larger than [`COMPACTION_SLICE`].
    pub fn set_slice(&mut self, changes: usize) {
        self.slice = changes;
    }

    /// Sends other members the state in smaller or larger pieces than
    /// [`TRANSFER_PIECE_BYTES`](crate::limits::TRANSFER_PIECE_BYTES).
    pub fn set_piece_bytes(&mut self, bytes: usize) {
        self.source.set_piece_bytes(bytes);
    }

    /// Whether there is something to remove.
    pub fn wants_to_remove(&self) -> bool {
        self.compaction != Compaction::Resting
    }

    /// Removes nothing from now on, or does again.
    pub fn hold_removal(&mut self, held: bool) {
        self.held = held;
    }

    /// Whether there is something to write to the store.
    pub fn wants_to_write(&self) -> bool {
        self.wants_to_remove() || !self.folds.is_empty() || !self.inbox.is_empty()
    }

    /// The disk has no room, or has it again. Until it has, folds and removal wait, and what others send of a state is lost: they send it again.
    pub fn hold_writes(&mut self, full: bool) {
        self.full = full;
    }

    /// Takes a job; nothing is done yet.
    pub fn handle(&mut self, now: Instant, job: CheckpointJob) -> Result<(), StoreError> {
        match job {
            CheckpointJob::Fold(batch) => self.folds.push_back(batch),
            CheckpointJob::Compact => self.compaction = Compaction::Due(now),
            CheckpointJob::Receive(from, message) if self.inbox.len() < INBOX_MAX => {
                self.inbox.push_back((from, message));
            }
            CheckpointJob::Receive(..) => {}
            CheckpointJob::Serve { to, from } => self.source.begin(now, to, from),
            CheckpointJob::Settle(to) => self.source.end(to),
            CheckpointJob::SettleAll => self.source.end_all(),
            CheckpointJob::Install(mark) => self.install = Some(mark),
            CheckpointJob::Release => self.staging.release()?,
        }
        Ok(())
    }

    /// One piece of work that is due at `now`; `None` when there is none.
    ///
    /// A fold goes first. It also ends the pause of a compaction: were folds to follow one another without end, nothing would be
    /// removed otherwise, and the store would grow.
    pub fn work(&mut self, now: Instant) -> Result<Option<CheckpointWork>, StoreError> {
        if self.compaction == Compaction::Paused {
            self.compaction = Compaction::Due(now + COMPACTION_PAUSE);
        }
        self.retired.retain(Store::has_readers);
        if let Some(mark) = self.install.take() {
            return self.put_in_place(now, &mark).map(Some);
        }
        // What the applier handed out before it heard of an install is of the store before.
        let applied = self.store.meta().applied;
        self.folds.retain(|batch| batch.meta.applied > applied);
        if !self.full
            && let Some(batch) = self.folds.pop_front()
        {
            if let Compaction::Due(_) = self.compaction {
                self.compaction = Compaction::Due(now);
            }
            return self.fold(&batch).map(Some);
        }
        if let Some((from, message)) = self.inbox.pop_front() {
            return self.receive(now, from, message).map(Some);
        }
        if self.source.work(now, || self.store.base())? {
            self.collect_from_source();
            return Ok(Some(CheckpointWork::Piece));
        }
        if let Compaction::Due(at) = self.compaction
            && at <= now
            && !self.held
            && !self.full
        {
            let meta = self.store.meta();
            if meta.compaction_finished >= meta.compacted {
                // It was asked for the store that another one has replaced meanwhile.
                self.compaction = Compaction::Resting;
            } else if self.source.holds(meta.compacted) {
                self.compaction = Compaction::Due(now + HELD_PAUSE);
            } else {
                return self.compact().map(Some);
            }
        }
        self.staging.expire(now)?;
        if self.scrub.next_slice <= now && self.store.is_suspect() {
            // It waits to be replaced: nobody wants to know what is wrong with it.
            self.scrub.next_slice = now + SCRUB_REST;
        } else if self.scrub.next_slice <= now {
            return self.scrub(now).map(Some);
        }
        Ok(None)
    }

    /// When there is work without a new job.
    pub fn poll_timeout(&self) -> Instant {
        let compaction = match self.compaction {
            Compaction::Due(at) if !self.held && !self.full => Some(at),
            Compaction::Resting | Compaction::Due(_) | Compaction::Paused => None,
        };
        let timeouts = [compaction, self.source.poll_timeout(), self.staging.poll_timeout()];
        timeouts.into_iter().flatten().fold(self.scrub.next_slice, Instant::min)
    }

    /// The next thing to tell others, until `None`.
    pub fn poll_output(&mut self) -> Option<CheckpointOutput> {
        self.outputs.pop_front()
    }

    /// The store, to look at.
    pub fn store(&self) -> &Store {
        &self.store
    }

    fn fold(&mut self, batch: &FoldBatch) -> Result<CheckpointWork, StoreError> {
        let applied = batch.meta.applied;
        self.store.fold(batch)?;
        self.source.note_fold(&batch.leases);
        self.outputs.push_back(CheckpointOutput::Folded(Arc::new(self.store.base()?)));
        self.keep_facts()?;
        // Only now may the log lose what the fold covers: it is durable in the store, and the log has the position of the facts beside it.
        self.outputs.push_back(CheckpointOutput::Checkpointed(applied));
        let swept =
            batch.sweep.as_ref().map_or(0, |sweep| usize::try_from(sweep.count()).unwrap_or(usize::MAX));
        Ok(CheckpointWork::Fold { changes: batch.changes.len().saturating_add(swept), applied })
    }

    fn keep_facts(&self) -> Result<(), StoreError> {
        keep_facts(&self.root, self.member, self.store.meta()).map_err(StoreError::Io)
    }

    fn receive(
        &mut self,
        now: Instant,
        from: MemberId,
        message: TransferMessage,
    ) -> Result<CheckpointWork, StoreError> {
        if let TransferContent::Status { progress, whole } = message.content {
            self.source.handle_status(now, from, message.transfer, progress, whole);
            self.collect_from_source();
            return Ok(CheckpointWork::Piece);
        }
        if self.full {
            return Ok(CheckpointWork::Piece);
        }
        let reaction = self.staging.handle(now, message)?;
        if let Some(mark) = reaction.staged {
            self.outputs.push_back(CheckpointOutput::Staged(mark));
        }
        if reaction.contested {
            self.outputs.push_back(CheckpointOutput::Contested);
        }
        if let Some(answer) = reaction.answer {
            self.outputs.push_back(CheckpointOutput::Send(from, answer));
        }
        Ok(CheckpointWork::Piece)
    }

    fn collect_from_source(&mut self) {
        while let Some((to, message)) = self.source.poll_message() {
            self.outputs.push_back(CheckpointOutput::Send(to, message));
        }
        while let Some((to, outcome)) = self.source.poll_outcome() {
            self.outputs.push_back(CheckpointOutput::Transferred(to, outcome));
        }
    }

    /// The staged store takes the place of the store. Folds that wait are of the old one and in the new one already.
    fn put_in_place(&mut self, now: Instant, mark: &SnapshotMark) -> Result<CheckpointWork, StoreError> {
        let store = self.staging.install(mark)?;
        self.retired.push(std::mem::replace(&mut self.store, store));
        // Before the log begins anew: it loses the position of those that are kept so far.
        self.keep_facts()?;
        self.folds.clear();
        self.source.end_all();
        self.compaction = Compaction::Resting;
        self.scrub = Scrub { cursor: ScrubCursor::default(), rows: 0, next_slice: now + SCRUB_PAUSE };
        self.outputs.push_back(CheckpointOutput::Installed(Arc::new(self.store.base()?)));
        Ok(CheckpointWork::Install { applied: mark.position.index })
    }

    fn compact(&mut self) -> Result<CheckpointWork, StoreError> {
        let progress = self.store.compact_slice(self.slice)?;
        let base = self.store.base()?;
        let reached = base.meta().compaction_finished;
        self.outputs.push_back(CheckpointOutput::Compacted(Arc::new(base)));
        self.outputs.push_back(CheckpointOutput::Removed(reached));
        self.compaction = if progress.finished { Compaction::Resting } else { Compaction::Paused };
        Ok(CheckpointWork::Slice { finished: progress.finished.then_some(reached) })
    }

    /// Damage ends the member: an answer could be wrong from here on.
    fn scrub(&mut self, now: Instant) -> Result<CheckpointWork, StoreError> {
        let scrub = &mut self.scrub;
        let progress = self.store.scrub_slice(std::mem::take(&mut scrub.cursor), SCRUB_SLICE)?;
        scrub.rows += progress.rows;
        let finished = if let Some(next) = progress.next {
            scrub.cursor = next;
            scrub.next_slice = now + SCRUB_PAUSE;
            None
        } else {
            scrub.next_slice = now + SCRUB_REST;
            Some(std::mem::take(&mut scrub.rows))
        };
        Ok(CheckpointWork::Scrub { finished })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use redb::backends::InMemoryBackend;

    use super::*;
    use crate::disk::sim::SimDir;
    use crate::formation::first_state_of;
    use crate::ids::{LeaseId, MemberId, PublicKey, VersionId};
    use crate::store::{Change, ChangeKind, StoreOptions};

    const START: Instant = Instant(1_000_000_000);

    fn checkpointer() -> Checkpointer<SimDir> {
        let (meta, _) = first_state_of(MemberId(1), PublicKey([1; 32]));
        let mut store = Store::open(InMemoryBackend::new(), StoreOptions::default()).unwrap();
        store.initialise(&meta).unwrap();
        Checkpointer::new(START, store, SimDir::new(1), MemberId(1), 1)
    }

    /// A fold of one revision with so many puts; odd revisions overwrite what even ones have put.
    fn fold(checkpointer: &Checkpointer<SimDir>, puts: u32) -> FoldBatch {
        let mut meta = checkpointer.store().meta().clone();
        for batch in &checkpointer.folds {
            meta = batch.meta.clone();
        }
        let main = meta.revision.next();
        let change = |sub: u32| {
            let kind = ChangeKind::Put {
                value: Bytes::new(),
                create_revision: main,
                version: 1,
                lease: LeaseId::NONE,
            };
            (VersionId { main, sub }, Change { key: Bytes::from(sub.to_be_bytes().to_vec()), kind })
        };
        meta.applied = meta.applied.next();
        meta.revision = main;
        FoldBatch { changes: (0..puts).map(change).collect(), leases: Vec::new(), sweep: None, meta }
    }

    fn drain(checkpointer: &mut Checkpointer<SimDir>) -> Vec<CheckpointOutput> {
        std::iter::from_fn(|| checkpointer.poll_output()).collect()
    }

    #[test]
    fn a_fold_is_shown_to_the_state_before_the_log_may_be_cut() {
        let mut checkpointer = checkpointer();
        let batch = fold(&checkpointer, 3);
        checkpointer.handle(START, CheckpointJob::Fold(batch)).unwrap();
        assert!(drain(&mut checkpointer).is_empty(), "nothing is in the store yet");
        let work = checkpointer.work(START).unwrap();
        assert_eq!(work, Some(CheckpointWork::Fold { changes: 3, applied: LogIndex(2) }));
        let outputs = drain(&mut checkpointer);
        let [CheckpointOutput::Folded(base), CheckpointOutput::Checkpointed(LogIndex(2))] = &outputs[..]
        else {
            panic!("{outputs:?}");
        };
        assert_eq!(base.meta().revision, Revision(2));
        assert_eq!(checkpointer.work(START).unwrap(), None);
        assert_eq!(checkpointer.poll_timeout(), START + SCRUB_PAUSE);
    }

    /// What a start needs of the store is beside it when the log may lose what the fold covers.
    #[test]
    fn the_facts_of_a_fold_are_kept_where_others_vote() {
        let mut checkpointer = checkpointer();
        for others in [false, true] {
            let mut batch = fold(&checkpointer, 1);
            batch.meta.conf_state.voters.extend(others.then_some(MemberId(2)));
            checkpointer.handle(START, CheckpointJob::Fold(batch)).unwrap();
            checkpointer.work(START).unwrap();
            let names = checkpointer.root.list().unwrap();
            assert_eq!(names.contains(&"facts.0".to_owned()), others, "{names:?}");
        }
    }

    /// Three folds and a compaction to the revision of the last.
    fn hand_in_a_compaction(checkpointer: &mut Checkpointer<SimDir>) {
        for _ in 0..2 {
            let batch = fold(checkpointer, 6);
            checkpointer.handle(START, CheckpointJob::Fold(batch)).unwrap();
        }
        let mut compacted = fold(checkpointer, 6);
        compacted.meta.compacted = compacted.meta.revision;
        checkpointer.handle(START, CheckpointJob::Fold(compacted)).unwrap();
        checkpointer.handle(START, CheckpointJob::Compact).unwrap();
    }

    /// A fold that comes meanwhile goes first; slices have pauses, which count from the end of the slice; folds without end do not
    /// keep slices from their turn.
    #[test]
    fn slices_of_compaction_come_between_folds_and_with_pauses() {
        let mut checkpointer = checkpointer();
        checkpointer.set_slice(2);
        hand_in_a_compaction(&mut checkpointer);
        for _ in 0..3 {
            assert!(matches!(checkpointer.work(START).unwrap(), Some(CheckpointWork::Fold { .. })));
        }
        let slice = Some(CheckpointWork::Slice { finished: None });
        assert_eq!(checkpointer.work(START).unwrap(), slice);
        let after = START + Duration::from_millis(70);
        assert_eq!(checkpointer.work(after).unwrap(), None);
        assert_eq!(checkpointer.poll_timeout(), after + COMPACTION_PAUSE);
        drain(&mut checkpointer);

        let batch = fold(&checkpointer, 1);
        checkpointer.handle(after, CheckpointJob::Fold(batch)).unwrap();
        assert!(matches!(checkpointer.work(after).unwrap(), Some(CheckpointWork::Fold { .. })));
        assert_eq!(checkpointer.work(after).unwrap(), slice, "a fold ends the pause");
        assert_eq!(checkpointer.work(after).unwrap(), None);
        drain(&mut checkpointer);

        let reached = loop {
            let now = checkpointer.poll_timeout();
            let work = checkpointer.work(now).unwrap();
            assert!(now < START + SCRUB_PAUSE && checkpointer.work(now).unwrap().is_none());
            let outputs = drain(&mut checkpointer);
            assert!(matches!(outputs[..], [CheckpointOutput::Compacted(_), CheckpointOutput::Removed(_)]));
            if let Some(CheckpointWork::Slice { finished: Some(reached) }) = work {
                break reached;
            }
        };
        assert_eq!(reached, Revision(4));
        assert_eq!(checkpointer.poll_timeout(), START + SCRUB_PAUSE, "nothing is left to remove");
    }

    #[test]
    fn nothing_is_removed_while_somebody_reads_it() {
        let mut checkpointer = checkpointer();
        hand_in_a_compaction(&mut checkpointer);
        checkpointer.hold_removal(true);
        for _ in 0..3 {
            assert!(matches!(checkpointer.work(START).unwrap(), Some(CheckpointWork::Fold { .. })));
        }
        assert_eq!(checkpointer.work(START).unwrap(), None);
        assert_eq!(checkpointer.poll_timeout(), START + SCRUB_PAUSE, "it does not spin");
        assert!(checkpointer.wants_to_remove());
        checkpointer.hold_removal(false);
        assert!(matches!(checkpointer.work(START).unwrap(), Some(CheckpointWork::Slice { .. })));
    }

    #[test]
    fn a_scrub_walks_in_slices_with_pauses_and_then_rests() {
        let mut checkpointer = checkpointer();
        let rows = SCRUB_SLICE + 1;
        let batch = fold(&checkpointer, u32::try_from(rows).unwrap());
        checkpointer.handle(START, CheckpointJob::Fold(batch)).unwrap();
        checkpointer.work(START).unwrap();
        assert_eq!(checkpointer.work(START).unwrap(), None, "not at once: a start is busy enough");
        let mut slices = 0;
        let sound = loop {
            let now = checkpointer.poll_timeout();
            let Some(CheckpointWork::Scrub { finished }) = checkpointer.work(now).unwrap() else {
                panic!("a slice is due");
            };
            slices += 1;
            let pause = if finished.is_some() { SCRUB_REST } else { SCRUB_PAUSE };
            assert_eq!(checkpointer.poll_timeout(), now + pause);
            if let Some(rows) = finished {
                break rows;
            }
            assert!(checkpointer.scrub.rows <= slices * SCRUB_SLICE);
        };
        // Two tables of one slice and a row, and three empty ones.
        assert_eq!((slices, sound), (7, 2 * rows));
        assert_eq!(checkpointer.scrub.cursor, ScrubCursor::default());
    }
}
