//! From a member that has lost the majority of its cluster to the only member of what is left.
//!
//! Owns: what of the log counts, what the state says of the members after it, and the order, in which a crash leaves either the node as it was, or one
//! that refuses to start until this is done again. Must never: be done to a node that runs, or without somebody's consent. Driven by `app`.
//!
//! ```text
//! record (recovering, next generation) ──► log applied, members dropped: one commit ──► record (established)
//! ```
//!
//! The generation comes first: the others must never take a node that decides alone for one of their cluster.
//!
//! All that the log holds counts as committed. What a client was told is in the logs of a majority, and this member may hold it without knowing that it
//! was committed; an entry that nobody was told of does no harm, since its client was told nothing at all.

use std::sync::Arc;

use crate::command::codec::{self, CodecError};
use crate::disk::Directory;
use crate::formation::{self, OpenError};
use crate::ids::{LogIndex, MemberId, Revision};
use crate::machine::Machine;
use crate::mvcc::Allowance;
use crate::store::{Charter, ConfState, FoldBatch, Member, Meta, Store, StoreError, Window};
use crate::wal::{EntryKind, LogEntry};

/// Why a member cannot go on alone.
#[derive(Debug, thiserror::Error)]
pub enum AloneError {
    /// An entry of the log cannot be read.
    #[error("the log entry {index} cannot be read")]
    Entry {
        /// Which.
        index: LogIndex,
        /// Why not.
        #[source]
        cause: CodecError,
    },
    /// The store failed.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// The data directory failed.
    #[error("the data directory cannot be used")]
    Directory(#[from] OpenError),
    /// It has no state, or one that does not have it among the members.
    #[error("this node has no state of which it is a member")]
    NotMember,
}

/// What came of it.
#[derive(Debug)]
pub struct Alone {
    /// The members that are none any more.
    pub dropped: Vec<Member>,
    /// The revision of the state.
    pub revision: Revision,
    /// The last entry of the log, which the state includes.
    pub applied: LogIndex,
}

/// Makes the node of a data directory, opened for it, the only member of its cluster.
pub fn go_on_alone<D: Directory>(root: &D, data: formation::DataDir<D>) -> Result<Alone, AloneError> {
    let formation::DataDir { identity, mut store, recovered, .. } = data;
    if !store.meta().members.iter().any(|member| member.id() == identity.member) {
        return Err(AloneError::NotMember);
    }
    formation::begin_recovery(root)?;
    let alone = take_over(&mut store, &recovered.entries, identity.member)?;
    store.close()?;
    formation::end_recovery(root)?;
    Ok(alone)
}

/// Applies all entries that `store` does not have yet, and makes `member` the only one. The last thing that happens is one commit which says both; after a
/// crash it can be done again from where it was.
fn take_over(store: &mut Store, entries: &[LogEntry], member: MemberId) -> Result<Alone, AloneError> {
    let mut machine = Machine::new(Arc::new(store.base()?))?;
    let applied = machine.applied();
    for entry in entries.iter().filter(|entry| entry.index > applied) {
        apply(&mut machine, store, entry)?;
        if machine.should_rotate()
            && let Some(batch) = machine.rotate()
        {
            fold(&mut machine, store, &batch)?;
        }
    }
    let (applied, view) = (machine.applied(), machine.view());
    let batch = machine.rotate();
    let batch = batch.unwrap_or_else(|| FoldBatch { meta: view.meta(), ..FoldBatch::default() });
    let (meta, dropped) = alone(batch.meta, member).ok_or(AloneError::NotMember)?;
    let revision = meta.revision;
    store.fold(&FoldBatch { meta, ..batch })?;
    Ok(Alone { dropped, revision, applied })
}

fn apply(machine: &mut Machine, store: &mut Store, entry: &LogEntry) -> Result<(), AloneError> {
    let (index, term) = (entry.index, entry.term);
    // Which configuration an entry leads to does not matter: it ends with this member alone.
    if entry.kind != EntryKind::Normal || entry.data.is_empty() {
        machine.apply_empty(index, term);
        return Ok(());
    }
    let envelope = codec::decode(entry.data.clone()).map_err(|cause| AloneError::Entry { index, cause })?;
    if machine.has_to_sweep(term, &envelope)? {
        let (batch, _) = machine.begin_sweep(index, term, &envelope, Allowance::NOTHING)?;
        return fold(machine, store, &batch);
    }
    machine.apply(index, term, &envelope, Allowance::NOTHING)?;
    Ok(())
}

fn fold(machine: &mut Machine, store: &mut Store, batch: &FoldBatch) -> Result<(), AloneError> {
    store.fold(batch)?;
    machine.folded(Arc::new(store.base()?));
    Ok(())
}

/// The facts with `member` alone, and the others; `None` where it is not among them.
fn alone(meta: Meta, member: MemberId) -> Option<(Meta, Vec<Member>)> {
    let (mut kept, dropped): (Vec<_>, Vec<_>) =
        meta.members.into_iter().partition(|other| other.id() == member);
    let own = kept.first_mut()?;
    own.votes = true;
    // The runs that the others have seen are of the generation that ends here.
    (own.attributes.incarnation, own.attributes.boot_nonce) = (0, 0);
    let mut removed = meta.removed;
    removed.extend(dropped.iter().map(|other| (other.id(), other.key)));
    removed.drain(..removed.len().saturating_sub(crate::limits::REMOVED_MEMBERS_MAX));
    let mut alarms = meta.alarms;
    alarms.retain(|alarm| alarm.member == member);
    let mut over_quota = meta.over_quota;
    over_quota.retain(|of| *of == member);
    let conf_state = ConfState { voters: vec![member], ..ConfState::default() };
    let charter = Arc::new(Charter {
        // Somebody has decided that this cluster goes on, and what it holds with it.
        committed: true,
        dissolved: None,
        // They may have been used, or their time may have come, in what is lost.
        window: Window::default(),
        tokens: Vec::new(),
        approved: Vec::new(),
        // They have what this member has.
        exposed: if dropped.is_empty() { meta.charter.exposed } else { Some(meta.applied) },
        awaited: Vec::new(),
        ..Charter::clone(&meta.charter)
    });
    let meta =
        Meta { members: kept, removed, alarms, over_quota, conf_state, forming: false, charter, ..meta };
    Some((meta, dropped))
}

#[cfg(test)]
#[path = "alone_test.rs"]
mod tests;
