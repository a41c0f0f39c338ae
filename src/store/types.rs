//! What the store keeps, as values: changes, heads of keys, small tables, and the batch that one fold commits.
//!
//! Owns: the shapes and their relations. Must never: know redb or bytes on disk (`schema` does).
//! Built by `mvcc` when a generation is frozen, read back through `Base`.

use std::sync::Arc;

use bytes::Bytes;

use super::change_log::ChangeLog;
use super::charter::Charter;
use crate::auth::Auth;
use crate::command::{Alarm, CommandVersion, KeyRange, KeyValue, MemberAttributes};
use crate::ids::{
    Digest, Incarnation, LeaseId, LogIndex, MemberId, PublicKey, Revision, Run, Term, VersionId,
};

/// One change of one key; with its [`VersionId`] it is a row of the `rev` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key that changed.
    pub key: Bytes,
    /// What it became.
    pub kind: ChangeKind,
}

/// What a change made of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It has this value.
    Put {
        /// The value.
        value: Bytes,
        /// The revision of the put that made the key exist.
        create_revision: Revision,
        /// Puts since the key exists, from 1.
        version: i64,
        /// The lease, or [`LeaseId::NONE`].
        lease: LeaseId,
    },
    /// It is gone (a tombstone).
    Delete,
}

impl Change {
    /// The key-value pair that this change made at `id`; `None` for a tombstone.
    pub fn key_value(&self, id: VersionId) -> Option<KeyValue> {
        match &self.kind {
            ChangeKind::Put { value, create_revision, version, lease } => Some(KeyValue {
                key: self.key.clone(),
                value: value.clone(),
                create_revision: *create_revision,
                mod_revision: id.main,
                version: *version,
                lease: *lease,
            }),
            ChangeKind::Delete => None,
        }
    }

    /// What a row of this change counts against the quota, in bytes.
    pub fn stored_bytes(&self) -> u64 {
        stored_bytes(&self.key, &self.kind)
    }
}

pub(super) fn stored_bytes(key: &Bytes, kind: &ChangeKind) -> u64 {
    let value = match kind {
        ChangeKind::Put { value, .. } => value.len(),
        ChangeKind::Delete => 0,
    };
    (key.len() + value) as u64 + crate::limits::PUT_OVERHEAD_BYTES
}

/// The current version of a key without its value: a row of the `live` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Where the change is in the `rev` table.
    pub id: VersionId,
    /// The revision of the put that made the key exist.
    pub create_revision: Revision,
    /// Puts since the key exists, from 1.
    pub version: i64,
    /// The lease, or [`LeaseId::NONE`].
    pub lease: LeaseId,
}

/// The replicated facts that are one value each, and the raft position that the store's content equals.
///
/// `applied` and everything else here change in the same commit: a store is always the state after exactly
/// the entries up to `applied`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The last log entry whose effect is in the store.
    pub applied: LogIndex,
    /// That entry's term.
    pub applied_term: Term,
    /// What the entries up to `applied` have come to.
    pub digest: Digest,
    /// The configuration of the cluster as of `applied`.
    pub conf_state: ConfState,
    /// The current revision.
    pub revision: Revision,
    /// Reads below this are refused; 0 when never compacted.
    pub compacted: Revision,
    /// Whether a compaction was ever accepted (one to revision 0 is, once).
    pub ever_compacted: bool,
    /// The compacted revision up to which removal has finished; trails `compacted`.
    pub compaction_finished: Revision,
    /// Bytes of all retained changes ([`Change::stored_bytes`]).
    pub bytes_in_use: u64,
    /// Raised alarms, sorted.
    pub alarms: Vec<Alarm>,
    /// Whose NOSPACE alarm was raised by the quota alone, sorted.
    pub over_quota: Vec<MemberId>,
    /// The members of the cluster, by id: what its configuration is to come to.
    pub members: Vec<Member>,
    /// The members removed last, oldest first: an id is never given out twice, and whoever comes with such a key is told what happened.
    pub removed: Vec<(MemberId, Option<PublicKey>)>,
    /// The cluster was founded for several members, and not all of them vote yet: until then nothing that a user writes is acknowledged, for
    /// the founder would be its only copy.
    pub forming: bool,
    /// What the cluster has agreed on about itself. Shared, since it may be long and seldom changes.
    pub charter: Arc<Charter>,
    /// Users, roles and what they may do. Shared for the same reason.
    pub auth: Arc<Auth>,
    /// The newest commands that the log may have: all members understand them.
    pub commands: CommandVersion,
}

/// A member of the cluster, or the place that is kept for one. Raft's configuration ([`ConfState`]) follows: the leader proposes changes
/// until it is what the members are to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// The key that speaks for it; none while the place waits for a node to prove that it may have it. Until then it is not in raft's
    /// configuration.
    pub key: Option<PublicKey>,
    /// Whether it votes as soon as it has caught up, or only listens.
    pub votes: bool,
    /// Its id, and what it has published; before that, where it is expected.
    pub attributes: MemberAttributes,
}

impl Member {
    /// Its id.
    pub fn id(&self) -> MemberId {
        self.attributes.member
    }

    /// The run in which it has published that; `None` for one that was added and has never started.
    pub fn run(&self) -> Option<Run> {
        let MemberAttributes { incarnation, boot_nonce, .. } = self.attributes;
        (incarnation > 0).then_some(Run { incarnation: Incarnation(incarnation), boot_nonce })
    }
}

/// Raft's configuration: who votes and who listens. Mirrors raft's own type so that raft's stays in `consensus`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfState {
    /// Voters of the incoming (or only) configuration.
    pub voters: Vec<MemberId>,
    /// Members that receive the log without voting.
    pub learners: Vec<MemberId>,
    /// Voters of the outgoing configuration while a joint change is under way.
    pub voters_outgoing: Vec<MemberId>,
    /// Outgoing voters that become learners when the joint change ends.
    pub learners_next: Vec<MemberId>,
    /// Whether the joint change ends by itself.
    pub auto_leave: bool,
}

impl ConfState {
    /// Whether a member is in it, in whatever part.
    pub fn names(&self, member: MemberId) -> bool {
        self.ids().any(|id| id == member)
    }

    /// All that are in it, some of them twice.
    pub fn ids(&self) -> impl Iterator<Item = MemberId> {
        let Self { voters, learners, voters_outgoing, learners_next, .. } = self;
        [voters, learners, voters_outgoing, learners_next].into_iter().flatten().copied()
    }

    /// Whether there is a voter beside this member.
    pub fn others_vote(&self, member: MemberId) -> bool {
        self.voters.iter().any(|voter| *voter != member)
    }
}

/// A lease, as far as all members agree on it; when it ends is known to the leader alone. A row of the `lease` table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its time to live in seconds, as it was granted.
    pub ttl: i64,
    /// The seconds that it had left at its last checkpoint; 0 stands for the whole time to live.
    pub remaining: i64,
    /// The entry that granted it.
    pub granted_at: LogIndex,
}

/// Everything that one fold commits: the changes of a frozen generation in order of their ids, the leases that
/// changed with them, and the facts as of its last entry. `bytes_in_use` and `compaction_finished` of `meta` are the store's own business and ignored.
#[derive(Clone, Debug, Default)]
pub struct FoldBatch {
    /// The changes, ascending by id, each id above every one in the store.
    pub changes: ChangeLog,
    /// Leases that were granted, checkpointed or ended (`None`), by id.
    pub leases: Vec<(LeaseId, Option<Lease>)>,
    /// What the last entry of the generation does, after the changes, if it deletes too much to be changes.
    pub sweep: Option<Sweep>,
    /// The facts after them.
    pub meta: Meta,
}

/// What an entry does that deletes very many keys, which the store deletes where they are: so it takes no memory for each of them.
#[derive(Clone, Debug, Default)]
pub struct Sweep {
    /// In order; ids ascend from step to step.
    pub steps: Vec<SweepStep>,
}

/// A part of a [`Sweep`].
#[derive(Clone, Debug)]
pub enum SweepStep {
    /// Changes as in any other entry.
    Changes(ChangeLog),
    /// The deletion of all that is there by then, numbered in key order.
    Delete {
        /// The id of the first deletion.
        first: VersionId,
        /// Which keys.
        keys: Doomed,
        /// How many there are; another number is damage.
        count: u64,
    },
}

/// Which keys are deleted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doomed {
    /// Those of an interval.
    Interval(KeyRange),
    /// Those that are attached to a lease.
    Attached(LeaseId),
}

impl Sweep {
    /// How many changes it makes.
    pub fn count(&self) -> u64 {
        self.steps.iter().map(SweepStep::count).sum()
    }

    /// Adds a change.
    pub fn push(&mut self, id: VersionId, change: Change) {
        if let Some(SweepStep::Changes(changes)) = self.steps.last_mut() {
            return changes.push(id, change);
        }
        self.steps.push(SweepStep::Changes([(id, change)].into_iter().collect()));
    }
}

impl SweepStep {
    /// How many changes it makes: at least one.
    pub fn count(&self) -> u64 {
        match self {
            Self::Changes(changes) => changes.len() as u64,
            Self::Delete { count, .. } => *count,
        }
    }

    /// Where it begins.
    pub(super) fn first(&self) -> Option<VersionId> {
        match self {
            Self::Changes(changes) => changes.iter().next().map(|change| change.id),
            Self::Delete { first, .. } => Some(*first),
        }
    }
}
