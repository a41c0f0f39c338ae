//! What goes into the raft log and what comes out of applying it.
//!
//! Owns: the domain types of requests and results, and (in `codec`) the versioned bytes of a log entry, (in `varint`) those of a number.
//! Must never: depend on protobuf types (they stop at the edge) or on state. Built by `api` and `node`, consumed
//! by `machine`.

mod auth;
mod charter;
pub mod codec;
mod intervals;
mod key_range;
mod lease;
mod member;
mod tombstone;
mod txn;
pub mod varint;
mod version;

use bytes::Bytes;

pub use auth::{AuthCommand, Caller, PasswordHash, Permission, PermissionKind, TokenSecret};
pub use charter::{Admission, Authority, CharterCommand, ClientKey, TokenId, TokenKey};
pub use intervals::{Intervals, SpanEnd};
pub use key_range::{KeyBounds, KeyRange, RangeEnd};
pub use lease::{LeaseCommand, LeaseInstance};
pub use member::MemberCommand;
pub use tombstone::{SIGNATURE_BYTES, TOMBSTONE_BYTES, Tombstone};
pub use txn::{
    Compare, CompareResult, CompareTarget, DeleteRange, LeaseChange, Op, Put, Range, Sort, SortOrder,
    SortTarget, Txn,
};
#[cfg(debug_assertions)]
pub use version::play;
pub use version::{CommandVersion, NotUnderstood};

use crate::ids::{LeaseId, MemberId, ProposalId, Revision};

/// A log entry's content: a command, who asks for it, and who waits for its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The proposal that this entry carries.
    pub id: ProposalId,
    /// On whose behalf, where authentication is on and it is somebody's.
    pub caller: Option<Caller>,
    /// What to do.
    pub command: Command,
}

/// What is to be applied: the part of an [`Envelope`] that the state depends on.
#[derive(Clone, Copy, Debug)]
pub struct Request<'e> {
    /// See [`Envelope::caller`].
    pub caller: Option<&'e Caller>,
    /// What to do.
    pub command: &'e Command,
}

impl<'e> From<&'e Envelope> for Request<'e> {
    fn from(envelope: &'e Envelope) -> Self {
        Self { caller: envelope.caller.as_ref(), command: &envelope.command }
    }
}

impl<'e> From<&'e Command> for Request<'e> {
    /// On nobody's behalf.
    fn from(command: &'e Command) -> Self {
        Self { caller: None, command }
    }
}

/// A change of the replicated state. Applying it is a function of the state and of these fields alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Sets one key.
    Put(Put),
    /// Deletes an interval of keys.
    DeleteRange(DeleteRange),
    /// Compares, then runs one of two branches, all in one revision.
    Txn(Txn),
    /// Forgets what is older than the newest version at this revision, for each key.
    Compact {
        /// The revision to compact to; still readable afterwards.
        revision: i64,
    },
    /// Raises or clears an alarm of a member.
    Alarm {
        /// Whether it is raised or cleared.
        action: AlarmAction,
        /// Which alarm of which member.
        alarm: Alarm,
    },
    /// A member's name and client URLs, published at each of its starts.
    Publish(MemberAttributes),
    /// Grants, ends or checkpoints leases.
    Lease(LeaseCommand),
    /// Changes the members.
    Member(MemberCommand),
    /// Changes what the cluster has agreed on about itself.
    Charter(CharterCommand),
    /// Changes users, roles and permissions.
    Auth(AuthCommand),
    /// From now on the log may have commands of this version.
    Raise(CommandVersion),
}

impl Command {
    /// Whether it is what a user or an operator asks for. The first such command that takes effect is the end of the time in which the cluster
    /// may still give itself up for another one; what nodes and leaders do by themselves is not, nor are alarms, which are about this cluster's members alone.
    pub fn is_users(&self) -> bool {
        match self {
            Self::Put(_)
            | Self::DeleteRange(_)
            | Self::Txn(_)
            | Self::Compact { .. }
            | Self::Lease(LeaseCommand::Grant { .. } | LeaseCommand::Revoke { .. })
            | Self::Auth(
                AuthCommand::Enable
                | AuthCommand::Disable
                | AuthCommand::AddUser { .. }
                | AuthCommand::DeleteUser { .. }
                | AuthCommand::ChangePassword { .. }
                | AuthCommand::GrantRole { .. }
                | AuthCommand::RevokeRole { .. }
                | AuthCommand::AddRole { .. }
                | AuthCommand::DeleteRole { .. }
                | AuthCommand::GrantPermission { .. }
                | AuthCommand::RevokePermission { .. },
            )
            | Self::Member(
                MemberCommand::Add { .. }
                | MemberCommand::Promote { .. }
                | MemberCommand::Remove { .. }
                | MemberCommand::Update { .. },
            )
            | Self::Charter(
                CharterCommand::OpenWindow { .. }
                | CharterCommand::Seal
                | CharterCommand::Approve { .. }
                | CharterCommand::CreateToken { .. }
                | CharterCommand::RevokeToken { .. }
                | CharterCommand::IssueClient { .. }
                | CharterCommand::RevokeClient { .. }
                | CharterCommand::RenewClient { .. },
            ) => true,
            Self::Alarm { .. }
            | Self::Publish(_)
            | Self::Raise(_)
            | Self::Auth(AuthCommand::EstablishTokens { .. })
            | Self::Lease(LeaseCommand::Expire { .. } | LeaseCommand::Checkpoint { .. })
            | Self::Member(MemberCommand::Bind { .. } | MemberCommand::Revote { .. })
            | Self::Charter(
                CharterCommand::Admit { .. }
                | CharterCommand::Forget { .. }
                | CharterCommand::Elapsed { .. }
                | CharterCommand::Establish(_)
                | CharterCommand::ReplaceAuthority { .. }
                | CharterCommand::Dissolve { .. }
                | CharterCommand::Yield { .. }
                | CharterCommand::Bury(_)
                | CharterCommand::BurySigned { .. },
            ) => false,
        }
    }

    /// Whether only users ask for it, so that it takes one while authentication is on. All others nodes and leaders propose by themselves, too, or operators at their box.
    pub fn takes_caller(&self) -> bool {
        match self {
            Self::Put(_) | Self::DeleteRange(_) | Self::Txn(_) => true,
            Self::Lease(command) => {
                matches!(command, LeaseCommand::Grant { .. } | LeaseCommand::Revoke { .. })
            }
            Self::Auth(command) => !matches!(command, AuthCommand::EstablishTokens { .. }),
            Self::Compact { .. }
            | Self::Alarm { .. }
            | Self::Publish(_)
            | Self::Member(_)
            | Self::Charter(_)
            | Self::Raise(_) => false,
        }
    }
}

/// What a member tells the cluster about itself at each start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberAttributes {
    /// Whose attributes these are.
    pub member: MemberId,
    /// The member's `--name`.
    pub name: String,
    /// Where peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// How often the member has started.
    pub incarnation: u64,
    /// The random nonce of this start.
    pub boot_nonce: u64,
    /// The newest commands that it understands.
    pub understands: CommandVersion,
}

/// Whether an alarm is raised or cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlarmAction {
    /// Raise it; raising a raised one changes nothing.
    Activate,
    /// Clear it; clearing an absent one changes nothing and returns nothing.
    Deactivate,
    /// Raise it because a member's quota is used up. Unlike one that an operator has raised, it goes when there is room again.
    QuotaReached,
    /// Clear it because there is room again; one that an operator has raised meanwhile, or before, stays.
    QuotaRelieved,
}

/// The kinds of alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlarmKind {
    /// The store's quota is exhausted: writes that take space are refused.
    NoSpace,
    /// Members disagree about their data: all writes are refused.
    Corrupt,
}

/// A raised alarm: which kind, at which member. Ordered for listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// The member that the alarm is about.
    pub member: MemberId,
    /// What is wrong.
    pub kind: AlarmKind,
}

/// A key and what the store knows of its version at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key; never empty.
    pub key: Bytes,
    /// The value; empty is a legal value.
    pub value: Bytes,
    /// The revision of the put that made the key exist.
    pub create_revision: Revision,
    /// The revision of the last put.
    pub mod_revision: Revision,
    /// Puts since the key exists, from 1.
    pub version: i64,
    /// The lease the key is attached to, or [`LeaseId::NONE`].
    pub lease: LeaseId,
}

/// The answer to a [`Range`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// The keys found, in the order asked for.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit cut something off.
    pub more: bool,
    /// Keys in the interval, whatever the limit and the revision filters.
    pub count: i64,
}

/// The answer to a [`Put`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutResult {
    /// The version before, where asked for and existing.
    pub previous: Option<KeyValue>,
}

/// The answer to a [`DeleteRange`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteResult {
    /// How many keys were deleted.
    pub deleted: i64,
    /// The versions before in key order, where asked for.
    pub previous: Vec<KeyValue>,
}

/// The answer to a [`Txn`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnResult {
    /// Whether all compares held, so that the success branch ran.
    pub succeeded: bool,
    /// One result for each operation of the branch that ran, in order, with the revision after it.
    pub responses: Vec<(Revision, OpResult)>,
}

/// The answer to one [`Op`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    /// Of a range.
    Range(RangeResult),
    /// Of a put.
    Put(PutResult),
    /// Of a delete.
    DeleteRange(DeleteResult),
    /// Of a nested transaction.
    Txn(TxnResult),
}

/// The result of an applied command, with the store's revision right after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The store's revision after the command.
    pub revision: Revision,
    /// What the command answers, or why it was turned down without changing anything.
    pub outcome: Result<Outcome, Rejection>,
}

/// What a command answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Of [`Command::Put`].
    Put(PutResult),
    /// Of [`Command::DeleteRange`].
    DeleteRange(DeleteResult),
    /// Of [`Command::Txn`].
    Txn(TxnResult),
    /// Of any command that returns keys and values: it took effect, and what it returns is more than is answered.
    AnswerTooLarge,
    /// Of [`Command::Compact`]: it is in effect for reads; removal follows.
    Compact,
    /// Of [`Command::Alarm`]: the alarms that were raised or cleared.
    Alarm(Vec<Alarm>),
    /// Of [`Command::Publish`].
    Publish,
    /// Of [`Command::Member`] and [`CharterCommand::Admit`]: which member it was about.
    Member(MemberId),
    /// Of [`Command::Charter`], but for admissions.
    Charter,
    /// Of [`Command::Auth`].
    Auth,
    /// Of [`Command::Raise`].
    Raise(CommandVersion),
    /// Of [`LeaseCommand::Grant`].
    LeaseGrant {
        /// The time to live in seconds.
        ttl: i64,
    },
    /// Of [`LeaseCommand::Revoke`].
    LeaseRevoke,
    /// Of [`LeaseCommand::Expire`]: the leases that it ended.
    LeaseExpire(Vec<LeaseId>),
    /// Of [`LeaseCommand::Checkpoint`]: the leases that it changed.
    LeaseCheckpoint(Vec<LeaseId>),
}

/// Why a command or a read was turned down; nothing was changed. Mapped to etcd's code and text in `api`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// `ignore_value` or `ignore_lease` on a key that does not exist.
    #[error("key not found")]
    KeyNotFound,
    /// The lease that a put or a revocation names does not exist.
    #[error("requested lease not found")]
    LeaseNotFound,
    /// A lease with the id of a grant exists.
    #[error("lease already exists")]
    LeaseExists,
    /// The revision is below the compacted one.
    #[error("required revision has been compacted")]
    Compacted,
    /// The revision is above the current one.
    #[error("required revision is a future revision")]
    FutureRevision,
    /// The NOSPACE alarm is raised and the command takes space.
    #[error("database space exceeded")]
    NoSpace,
    /// The CORRUPT alarm is raised.
    #[error("corrupt cluster")]
    Corrupt,
    /// No member has this id.
    #[error("member not found")]
    MemberNotFound,
    /// Another member is at one of the URLs.
    #[error("Peer URLs already exists")]
    PeerUrlExists,
    /// There are as many members that do not vote as there may be.
    #[error("too many learner members in cluster")]
    TooManyLearners,
    /// Too few of the voters have started for the change to be safe.
    #[error("re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    /// The member votes already.
    #[error("can only promote a learner member")]
    NotLearner,
    /// The place belongs to another node, or the node has another place.
    #[error("the place belongs to another node")]
    PlaceTaken,
    /// No more alarms of this kind are kept.
    #[error("too many alarms are raised")]
    TooManyAlarms,
    /// The cluster has given itself up for another one.
    #[error("the cluster has dissolved into another one")]
    Dissolved,
    /// A user has written to the cluster, so that it may not give itself up.
    #[error("the cluster holds what users have written and does not dissolve")]
    Committed,
    /// A member of the other cluster is one of this one.
    #[error(
        "a member of the other cluster is a member here, too: that cluster may be about to give itself up for this one"
    )]
    Entangled,
    /// Only a cluster that formed by itself lets nodes in without an operator.
    #[error("the cluster did not form by itself: nodes come in by a token, an approval or as added members")]
    NotAutomatic,
    /// The window is closed.
    #[error("the cluster is sealed: nodes come in by a token or an approval")]
    Sealed,
    /// An operator has removed the node, so that it takes one to let it in again.
    #[error("the node was removed: it comes in again by a token or an approval")]
    NodeRemoved,
    /// No operator has approved the node.
    #[error("the node is not approved")]
    NotApproved,
    /// No token has this id, or it has expired.
    #[error("there is no such token, or it has expired")]
    TokenNotFound,
    /// A node came in with the token.
    #[error("the token was used")]
    TokenUsed,
    /// Another token has this id.
    #[error("another token has this id")]
    TokenExists,
    /// No more tokens are kept.
    #[error("there are too many tokens")]
    TooManyTokens,
    /// No more approvals are kept.
    #[error("there are too many approvals")]
    TooManyApprovals,
    /// Nobody more is let in.
    #[error("the cluster has too many members")]
    TooManyMembers,
    /// No client that is accepted has this key.
    #[error("there is no such client")]
    ClientNotFound,
    /// The key is another client's.
    #[error("the key belongs to another client")]
    ClientExists,
    /// No more clients are kept.
    #[error("there are too many clients")]
    TooManyClients,
    /// The cluster has an authority.
    #[error("the cluster has an authority")]
    AuthorityExists,
    /// A name, an address or a certificate is longer than any.
    #[error("a name, an address or a certificate is too long")]
    TooLong,
    /// Something is to last shorter or longer than it may.
    #[error("the time is too short or too long")]
    TimeOutOfRange,
    /// A user without a name is to be added; or authentication is on, and a request is nobody's.
    #[error("user name is empty")]
    UserNameEmpty,
    /// A user has this name.
    #[error("user name already exists")]
    UserExists,
    /// No user has this name.
    #[error("user name not found")]
    UserNotFound,
    /// A role without a name is to be added.
    #[error("role name is empty")]
    RoleNameEmpty,
    /// A role has this name.
    #[error("role name already exists")]
    RoleExists,
    /// No role has this name.
    #[error("role name not found")]
    RoleNotFound,
    /// Authentication is to be enabled while nobody could disable it.
    #[error("root user does not exist")]
    RootUserMissing,
    /// As before: there is a user root, who may not do everything.
    #[error("root user does not have root role")]
    RootRoleMissing,
    /// The user does not have the role that is to be taken from it.
    #[error("role is not granted to the user")]
    RoleNotGranted,
    /// The role does not have the permission that is to be taken from it.
    #[error("permission is not granted to the role")]
    PermissionNotGranted,
    /// What would leave nobody who may do everything; or a permission for an interval that is none.
    #[error("invalid auth management")]
    InvalidAuthManagement,
    /// The user may not do that.
    #[error("permission denied")]
    PermissionDenied,
    /// Users or roles have changed since it was looked who asks.
    #[error("revision of auth store is old")]
    AuthRevisionOld,
    /// Users and roles would take more than is kept.
    #[error("there are too many users, roles and permissions")]
    AuthTooLarge,
    /// A command, or a version of commands, that not all members understand.
    #[error("not capable")]
    NotCapable,
}
