//! The receiving end of a transfer: a store beside the store, which takes its place when it is whole.
//!
//! Owns: the staged file from its first piece to the rename. Must never: touch a staged store that consensus was told of and still counts
//! on, or believe facts that consensus could not begin from. Driven by [`super::Checkpointer`].
//!
//! ```text
//! nothing ── first piece ──► growing ── last message ──► whole, promised ── install ──► it is the store
//!    ▲                          │ another transfer begins         │ consensus counts on it no more
//!    └──────────────────────────┴─────────────────────────────────┘
//! ```

use std::time::Duration;

use bytes::Bytes;

use super::source::mark_of;
use super::transfer::{TransferContent, TransferMessage};
use crate::consensus::{SnapshotMark, is_reachable, is_sound};
use crate::disk::Directory;
use crate::formation::{STAGED_NAME, STORE_NAME, trust};
use crate::ids::{MemberId, Revision};
use crate::store::{
    Change, ChangeKind, Meta, StageProgress, Store, StoreError, StoreOptions, TransferId, decode_facts,
    unpack, unpack_leases,
};
use crate::time::Instant;

/// What nobody goes on with for this long is removed: it takes as much of the disk as the store.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(300);
/// No revision gets near this, even where a restored state began at half of what there is (`snapshot::refold`), and no version of a key: one more
/// could overflow.
const REVISION_MAX: Revision = Revision(i64::MAX / 4 * 3);

/// What is in the staged file.
enum State {
    /// Not looked at since the start; there may be one from an earlier run.
    Unknown,
    Nothing,
    Staged {
        store: Store,
        transfer: TransferId,
        progress: StageProgress,
        /// Once it is whole.
        mark: Option<SnapshotMark>,
    },
}

/// What a message led to.
#[derive(Debug, Default)]
pub(super) struct Reaction {
    /// To be sent back.
    pub(super) answer: Option<TransferMessage>,
    /// Consensus may take this position from now on.
    pub(super) staged: Option<SnapshotMark>,
    /// Consensus is to be asked whether it still counts on what is staged: another transfer wants the place.
    pub(super) contested: bool,
}

/// The staged file.
pub(super) struct Staging<D> {
    root: D,
    member: MemberId,
    options: StoreOptions,
    state: State,
    /// Consensus was told of it, and may have it installed.
    promised: bool,
    touched: Instant,
}

impl<D: Directory> Staging<D> {
    pub(super) fn new(now: Instant, root: D, member: MemberId, options: StoreOptions) -> Self {
        Self { root, member, options, state: State::Unknown, promised: false, touched: now }
    }

    /// A message from the source of a transfer.
    pub(super) fn handle(&mut self, now: Instant, message: TransferMessage) -> Result<Reaction, StoreError> {
        let TransferMessage { transfer, content } = message;
        self.look()?;
        let begins = match &content {
            TransferContent::Piece { before: at, .. }
            | TransferContent::Leases { before: at, .. }
            | TransferContent::Last { at, .. } => *at == StageProgress::default(),
            TransferContent::Status { .. } => return Ok(Reaction::default()),
        };
        let known = matches!(&self.state, State::Staged { transfer: known, .. } if *known == transfer);
        if !known && !begins {
            return Ok(answer(transfer, StageProgress::default(), false));
        }
        if !known && self.promised {
            return Ok(Reaction { contested: true, ..Reaction::default() });
        }
        if !known {
            self.begin(transfer)?;
        }
        self.touched = now;
        match content {
            TransferContent::Piece { before, changes } => {
                self.take_part(transfer, before, |store| stage_changes(store, transfer, before, &changes))
            }
            TransferContent::Leases { before, leases } => {
                self.take_part(transfer, before, |store| stage_leases(store, transfer, before, &leases))
            }
            TransferContent::Last { at, facts } => self.take_last(transfer, at, &facts),
            TransferContent::Status { .. } => Ok(Reaction::default()),
        }
    }

    /// Consensus does not count on what is staged any more.
    pub(super) fn release(&mut self) -> Result<(), StoreError> {
        self.promised = false;
        self.remove()
    }

    /// Removes what nobody goes on with.
    pub(super) fn expire(&mut self, now: Instant) -> Result<(), StoreError> {
        self.look()?;
        match self.poll_timeout() {
            Some(due) if due <= now => self.remove(),
            _ => Ok(()),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let may_expire = !self.promised && matches!(self.state, State::Staged { .. });
        may_expire.then(|| self.touched + LEFTOVER_PATIENCE)
    }

    /// Puts the staged store in the place of the store, and hands it over. Durable when this returns.
    ///
    /// A crash before the name is durable leaves the old store, and the staged one under its own name. After it the old log lies beside the
    /// new store, which says so of itself (`formation::data_dir` finishes that at the next start).
    pub(super) fn install(&mut self, wanted: &SnapshotMark) -> Result<Store, StoreError> {
        let State::Staged { store, mark, .. } = std::mem::replace(&mut self.state, State::Nothing) else {
            return Err(StoreError::damaged_file("the staged store is gone"));
        };
        assert!(self.promised && mark.as_ref() == Some(wanted), "what was promised is what is installed");
        self.promised = false;
        self.root.rename(STAGED_NAME, STORE_NAME).map_err(StoreError::Io)?;
        self.root.sync().map_err(StoreError::Io)?;
        // After a crash before this, the new store is replaced once more, which does no harm.
        trust(&self.root).map_err(StoreError::Io)?;
        Ok(store)
    }

    /// What an earlier run left. One that cannot be used is no loss: it is a copy.
    fn look(&mut self) -> Result<(), StoreError> {
        if !matches!(self.state, State::Unknown) {
            return Ok(());
        }
        self.state = State::Nothing;
        let names = self.root.list().map_err(StoreError::Io)?;
        if !names.iter().any(|name| name == STAGED_NAME) {
            return Ok(());
        }
        let opened = Store::open_in(&self.root, STAGED_NAME, self.options)
            .and_then(|store| store.stage().map(|stage| stage.map(|stage| (store, stage))));
        match opened {
            Ok(Some((store, stage))) => {
                let mark = store.is_initialised().then(|| mark_of(store.meta()));
                let (transfer, progress) = (stage.transfer, stage.progress);
                self.state = State::Staged { store, transfer, progress, mark };
                Ok(())
            }
            Err(error @ StoreError::Io(_)) => Err(error),
            Ok(None) | Err(_) => self.remove(),
        }
    }

    fn begin(&mut self, transfer: TransferId) -> Result<(), StoreError> {
        self.remove()?;
        let mut store = Store::open_in(&self.root, STAGED_NAME, self.options)?;
        let progress = StageProgress::default();
        store.stage_piece(transfer, progress, &[])?;
        self.state = State::Staged { store, transfer, progress, mark: None };
        Ok(())
    }

    fn remove(&mut self) -> Result<(), StoreError> {
        assert!(!self.promised, "consensus counts on what is staged");
        self.state = State::Nothing;
        let names = self.root.list().map_err(StoreError::Io)?;
        if names.iter().any(|name| name == STAGED_NAME) {
            // Should the name come back after a crash, so does a store that says which transfer it belongs to.
            self.root.remove(STAGED_NAME).map_err(StoreError::Io)?;
        }
        Ok(())
    }

    /// Changes or leases that follow what is there. What cannot be read is as good as lost: it was damaged on its way, and is sent again.
    fn take_part(
        &mut self,
        id: TransferId,
        before: StageProgress,
        stage: impl FnOnce(&mut Store) -> Result<Option<StageProgress>, StoreError>,
    ) -> Result<Reaction, StoreError> {
        let State::Staged { store, progress, mark, .. } = &mut self.state else {
            return Ok(Reaction::default());
        };
        if mark.is_none() && before == *progress {
            let Some(after) = stage(store)? else { return Ok(Reaction::default()) };
            *progress = after;
        }
        Ok(answer(id, *progress, mark.is_some()))
    }

    fn take_last(
        &mut self,
        id: TransferId,
        at: StageProgress,
        facts: &Bytes,
    ) -> Result<Reaction, StoreError> {
        let State::Staged { store, progress, mark, .. } = &mut self.state else {
            return Ok(Reaction::default());
        };
        if mark.is_none() && at == *progress {
            let Ok(meta) = decode_facts(facts) else { return Ok(Reaction::default()) };
            if !is_plausible(&meta, progress, self.member) {
                return Ok(Reaction::default());
            }
            // What is too new for this build is not to take the place of what it can read.
            meta.commands.check()?;
            store.finish_stage(&meta)?;
            *mark = Some(mark_of(&meta));
        }
        let mut reaction = answer(id, *progress, mark.is_some());
        if !self.promised && mark.is_some() {
            self.promised = true;
            reaction.staged.clone_from(mark);
        }
        Ok(reaction)
    }
}

fn stage_changes(
    store: &mut Store,
    id: TransferId,
    before: StageProgress,
    piece: &Bytes,
) -> Result<Option<StageProgress>, StoreError> {
    let Ok(changes) = unpack(piece) else { return Ok(None) };
    if !changes.iter().all(|(_, change)| may_be_followed(change)) {
        return Ok(None);
    }
    let Some(after) = before.after(piece, &changes) else { return Ok(None) };
    store.stage_piece(id, after, &changes)?;
    Ok(Some(after))
}

fn stage_leases(
    store: &mut Store,
    id: TransferId,
    before: StageProgress,
    piece: &Bytes,
) -> Result<Option<StageProgress>, StoreError> {
    let Ok(leases) = unpack_leases(piece) else { return Ok(None) };
    let Some(after) = before.after_leases(piece, &leases) else { return Ok(None) };
    store.stage_leases(id, after, &leases)?;
    Ok(Some(after))
}

fn answer(transfer: TransferId, progress: StageProgress, whole: bool) -> Reaction {
    let content = TransferContent::Status { progress, whole };
    Reaction { answer: Some(TransferMessage { transfer, content }), ..Reaction::default() }
}

/// Whether the next version of the key can be counted. The revisions of changes are bounded by that of the facts.
fn may_be_followed(change: &Change) -> bool {
    match change.kind {
        ChangeKind::Put { version, .. } => version < REVISION_MAX.0,
        ChangeKind::Delete => true,
    }
}

/// Whether these can be the facts of a store with the changes that came: raft and the state begin from them unseen.
fn is_plausible(meta: &Meta, progress: &StageProgress, member: MemberId) -> bool {
    let conf = &meta.conf_state;
    is_reachable(mark_of(meta).position)
        && (progress.next.main.max(Revision(1))..REVISION_MAX).contains(&meta.revision)
        && meta.compacted <= meta.revision
        && is_sound(conf)
        && conf.names(member)
}
