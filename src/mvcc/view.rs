//! The state as of one revision, for as long as someone holds it.
//!
//! Owns: [`View`] and its publication; lookups of one key; which revisions may be read. Must never: change what another holder
//! of the same layers sees. Made and published by `machine`'s driver; read by everything that answers clients.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::ReadError;
use super::generation::Generation;
use super::leases::Leases;
use super::rows::Row;
use super::sweep::Swept;
use crate::auth::Auth;
use crate::command::{Alarm, CommandVersion, KeyValue, Rejection};
use crate::ids::{Digest, LogIndex, MemberId, PublicKey, Revision, Term, VersionId};
use crate::limits::PUT_OVERHEAD_BYTES;
use crate::planted::{self, Bug};
use crate::store::{Base, Change, ChangeKind, Charter, ConfState, Member, Meta, StoreError};

/// The replicated facts beside the keys. Shared by views until one changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Reads below this are refused; 0 when never compacted.
    pub compacted: Revision,
    /// Whether a compaction was ever accepted (one to revision 0 is, once).
    pub ever_compacted: bool,
    /// Raised alarms, sorted.
    pub alarms: Vec<Alarm>,
    /// Whose NOSPACE alarm was raised by the quota alone, sorted: it is cleared once there is room.
    pub over_quota: Vec<MemberId>,
    /// The members of the cluster, by id; see [`Meta::members`].
    pub members: Vec<Member>,
    /// The members removed last, oldest first.
    pub removed: Vec<(MemberId, Option<PublicKey>)>,
    /// See [`Meta::forming`].
    pub forming: bool,
    /// See [`Meta::charter`].
    pub charter: Arc<Charter>,
    /// See [`Meta::auth`].
    pub auth: Arc<Auth>,
    /// See [`Meta::commands`].
    pub commands: CommandVersion,
    /// The configuration of the cluster.
    pub conf_state: ConfState,
}

impl Facts {
    /// The newest commands that everybody understands who takes part; `None` while somebody who was removed still does, or nobody has come.
    pub fn understood_by_all(&self) -> Option<CommandVersion> {
        self.understood_by(|_| true)
    }

    /// The newest commands that every member's build can go on with. Who is in a cluster understands what it uses, also where that one has not said so yet.
    /// Who was let in and has never come has nothing to lose.
    pub fn understood(&self) -> CommandVersion {
        self.understood_by(|member| member.run().is_some()).unwrap_or_default().max(self.commands)
    }

    fn understood_by(&self, counts: impl Fn(&Member) -> bool) -> Option<CommandVersion> {
        let bound = self.members.iter().filter(|member| member.key.is_some() && counts(member));
        let newest = bound.map(|member| member.attributes.understands).min();
        newest.filter(|_| self.all_have_left())
    }

    /// The keys of all that take part, with their members: those that are members, and those that were removed but still vote or listen, for
    /// it may take their votes to let them go.
    pub fn keys(&self) -> impl Iterator<Item = (MemberId, PublicKey)> {
        let bound = self.members.iter().map(|member| (member.id(), member.key));
        let takes_part = |id| self.conf_state.names(id) && !planted::has(Bug::CutOffLeaving);
        let leaving = self.removed.iter().copied().filter(move |(id, _)| takes_part(*id));
        bound.chain(leaving).filter_map(|(id, key)| Some((id, key?)))
    }

    /// Whether only members take part: nobody who was removed is sent the log any more.
    pub fn all_have_left(&self) -> bool {
        self.conf_state.ids().all(|id| self.members.iter().any(|member| member.id() == id))
    }
}

/// The state as of one revision: a handful of references. Clones are cheap, reads are pure, nothing that happens later shows.
///
/// It keeps its layers alive, the store's pages among them: a view held for minutes makes the store's file grow.
#[derive(Clone)]
pub struct View {
    pub(super) rev: Revision,
    pub(super) keys: u64,
    pub(super) active: Arc<Generation>,
    pub(super) frozen: Option<Arc<Generation>>,
    pub(super) base: Arc<Base>,
    pub(super) facts: Arc<Facts>,
    pub(super) leases: Leases,
    pub(super) applied: LogIndex,
    pub(super) applied_term: Term,
    pub(super) digest: Digest,
    /// What the entry that is being applied has swept; in a view that anybody is shown there is nothing.
    pub(super) swept: Swept,
}

impl View {
    /// The state that a store holds, with an empty overlay.
    pub fn of_base(base: Arc<Base>) -> Result<Self, StoreError> {
        let meta = base.meta();
        assert!(meta.revision >= Revision(1), "a store starts at revision 1");
        let facts = Facts {
            compacted: meta.compacted,
            ever_compacted: meta.ever_compacted,
            alarms: meta.alarms.clone(),
            over_quota: meta.over_quota.clone(),
            members: meta.members.clone(),
            removed: meta.removed.clone(),
            forming: meta.forming,
            charter: Arc::clone(&meta.charter),
            auth: Arc::clone(&meta.auth),
            commands: meta.commands,
            conf_state: meta.conf_state.clone(),
        };
        Ok(Self {
            rev: meta.revision,
            keys: base.keys(),
            applied: meta.applied,
            applied_term: meta.applied_term,
            digest: meta.digest,
            active: Arc::default(),
            frozen: None,
            swept: Swept::default(),
            facts: Arc::new(facts),
            leases: Leases::of_base(&base)?,
            base,
        })
    }

    /// The facts of a store that holds this state, but for those that are its own business.
    pub fn meta(&self) -> Meta {
        let Facts {
            compacted,
            ever_compacted,
            alarms,
            over_quota,
            members,
            removed,
            forming,
            charter,
            auth,
            commands,
            conf_state,
        } = self.facts().clone();
        Meta {
            applied: self.applied,
            applied_term: self.applied_term,
            digest: self.digest,
            conf_state,
            revision: self.rev,
            compacted,
            ever_compacted,
            // The store's own.
            compaction_finished: Revision(0),
            bytes_in_use: 0,
            alarms,
            over_quota,
            members,
            removed,
            forming,
            charter,
            auth,
            commands,
        }
    }

    /// How many changes are retained up to this view's revision, and how many bytes their keys and values have.
    pub fn count_changes(&self) -> Result<(u64, u64), StoreError> {
        let stored = self.base.count_changes()?;
        let first = VersionId::first_of(self.base.meta().revision.next());
        let frozen = self.frozen.iter().flat_map(|frozen| frozen.changes(first, self.rev));
        let overlay = frozen.chain(self.active.changes(first, self.rev));
        Ok(overlay.fold(stored, |(changes, content), (_, change)| {
            (changes + 1, content + change.stored_bytes() - PUT_OVERHEAD_BYTES)
        }))
    }

    /// The current revision of this state.
    pub fn revision(&self) -> Revision {
        self.rev
    }

    /// How many keys exist.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// The log entry that this state is the result of.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// That entry's term.
    pub fn applied_term(&self) -> Term {
        self.applied_term
    }

    /// What all entries up to that one have come to.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The facts beside the keys.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The compacted revision: the lowest that can be read; 0 when never compacted.
    pub fn compacted(&self) -> Revision {
        self.facts.compacted
    }

    /// Bytes of all retained changes and of the leases, for the quota: the store's count and what the overlay adds to it.
    pub fn bytes_in_use(&self) -> u64 {
        self.base.meta().bytes_in_use + self.overlay_bytes() + self.leases.bytes()
    }

    /// Bytes that are not in the store yet.
    pub fn overlay_bytes(&self) -> u64 {
        self.frozen.as_ref().map_or(0, |frozen| frozen.bytes()) + self.active.bytes()
    }

    /// The key as it was at `at`, which must be retained (`compacted <= at <= revision`) or the answer is a rejection.
    pub fn get(&self, key: &Bytes, at: Revision) -> Result<Option<KeyValue>, ReadError> {
        self.retained(at)?;
        Ok(self.value_at(key, at)?)
    }

    /// The retained changes from `from` on up to this view's revision, in order. Below the compacted revision some are missing.
    pub fn changes(
        &self,
        from: VersionId,
    ) -> Result<impl Iterator<Item = Result<(VersionId, Change), StoreError>> + '_, StoreError> {
        let base_end = self.base.meta().revision;
        let stored = if from.main <= base_end { Some(self.base.changes(from, base_end)?) } else { None };
        let frozen = self.frozen.iter().flat_map(move |frozen| frozen.changes(from, self.rev));
        let overlay = frozen.chain(self.active.changes(from, self.rev));
        Ok(stored.into_iter().flatten().chain(overlay.map(Ok)))
    }

    /// Whether the state is not to be trusted, and waits to be replaced.
    pub fn is_suspect(&self) -> bool {
        self.base.is_suspect()
    }

    /// All changes from this revision on are there; of earlier ones the store may have removed some.
    pub fn complete_from(&self) -> Revision {
        self.base.complete_from()
    }

    /// Refuses revisions that cannot be read: compacted ones and future ones.
    pub(super) fn retained(&self, at: Revision) -> Result<Revision, Rejection> {
        if at > self.rev {
            return Err(Rejection::FutureRevision);
        }
        if at < self.facts.compacted || at.0 <= 0 {
            return Err(Rejection::Compacted);
        }
        Ok(at)
    }

    /// The revision that a range outside of a transaction reads at: 0 and below is the current one.
    pub(super) fn plain_revision(&self, asked: i64) -> Result<Revision, Rejection> {
        if asked <= 0 { Ok(self.rev) } else { self.retained(Revision(asked)) }
    }

    /// The revision that a range inside a transaction reads at; `None` is "now", which moves with the transaction's writes.
    pub(super) fn txn_revision(&self, asked: i64) -> Result<Option<Revision>, Rejection> {
        if self.txn_reads_now(asked) { Ok(None) } else { self.retained(Revision(asked)).map(Some) }
    }

    /// 0 is now; and while nothing was ever compacted -1 is too, which a store of that sort counts as compacted to.
    pub(super) fn txn_reads_now(&self, asked: i64) -> bool {
        asked == 0 || (asked == -1 && !self.facts.ever_compacted)
    }

    /// Whether a read at `at` is answered by the base alone, from its history.
    pub(super) fn is_historic(&self, at: Revision) -> bool {
        at < self.base.meta().revision
    }

    /// The live version of one key at a retained revision.
    pub(super) fn find(&self, key: &Bytes, at: Revision) -> Result<Option<Row>, StoreError> {
        if self.is_historic(at) {
            let version = self.base.version_at(key, at)?;
            return Ok(version
                .filter(|(_, tombstone)| !tombstone)
                .map(|(id, _)| Row::Historic { key: key.clone(), id }));
        }
        let frozen = || self.frozen.as_ref().and_then(|frozen| frozen.find(key, at));
        let active = self.active.find(key, at);
        if active.is_none() && self.swept_at(at).is_some_and(|swept| swept.contain(key)) {
            return Ok(None);
        }
        match active.or_else(frozen) {
            Some((_, ChangeKind::Delete)) => Ok(None),
            Some((id, kind)) => Ok(Row::in_memory(key.clone(), id, kind)),
            None => Ok(self.base.head(key)?.map(|head| Row::Stored { key: key.clone(), head })),
        }
    }

    pub(super) fn value_at(&self, key: &Bytes, at: Revision) -> Result<Option<KeyValue>, StoreError> {
        self.find(key, at)?.map(|row| row.draft(&self.base)?.load(&self.base)).transpose()
    }
}

/// Where the newest view is found. Publishing and loading hold its lock for one reference count.
pub struct ViewCell {
    newest: Mutex<Arc<View>>,
}

impl ViewCell {
    /// A cell that holds `view`.
    pub fn new(view: View) -> Self {
        Self { newest: Mutex::new(Arc::new(view)) }
    }

    /// Makes `view` the one that is found from now on. It must not be older than the one before.
    pub fn publish(&self, view: View) {
        let view = Arc::new(view);
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(view.applied >= newest.applied, "time runs forward");
        let old = std::mem::replace(&mut *newest, view);
        drop(newest);
        // The last reference to a base closes a read transaction: not under the lock.
        drop(old);
    }

    /// The newest view.
    pub fn load(&self) -> Arc<View> {
        Arc::clone(&self.newest.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
