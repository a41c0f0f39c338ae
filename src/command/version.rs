//! Which commands may be in the log, while members of several builds read it.
//!
//! Owns: the versions of commands, and what this build understands. Must never: let a command be of a version that an earlier build took for another
//! one. Asked before proposing, while applying and before a state is gone on from.
//!
//! A member that cannot read a committed entry has to stop, so nothing may be proposed that one of the members does not understand. Each command has a version, which
//! is the first byte of its entry: that of the first builds that understand it. Three things follow from that number:
//!
//! - Each member publishes the newest version that it understands, at each start, with its name and its addresses.
//! - The state has the version that the cluster *uses*. The leader raises it ([`Command::Raise`]) as soon as everybody who is bound to a key, votes or not,
//!   understands a newer one; applied, the entry looks once more, since somebody may have come, or come back with an older build, behind the proposal. It is never lowered.
//! - A command of a version above is refused, before it is proposed and, the same on all members, while it is applied.
//!
//! Who is told to propose looks at a state that may be old, which errs on the safe side: the version only rises. A member that is away, or never came, holds
//! it where it is, until it has published itself or is removed.
//!
//! A build that is too old for a version that is in use stops before it shows or writes anything of it ([`NotUnderstood`]): when it opens a store, when it is welcomed to a cluster,
//! and when it applies an entry that raises the version. That takes an operator who goes back to an older build, or who adds a node with one; the newer build goes on
//! from what is on the disk.
//!
//! As long as all is of the first version, every byte that is written, sent or counted by the digest is what it was in builds that knew of no versions.
//!
//! A command to come does not compile before [`Command::version`] has its version, the next one: raise [`CommandVersion::NEWEST`], and give it a tag. A new shape of one
//! that is there is a command to come. What nodes write to their own disks has versions of its own, and follows this one where it depends on such commands.

use super::{AuthCommand, CharterCommand, Command, CompareTarget, LeaseCommand, MemberCommand, Op, Txn};

/// A version of what may be in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommandVersion(pub u8);

impl CommandVersion {
    /// That of all that was there before there were versions.
    pub const FIRST: Self = Self(1);
    /// Words of other clusters' members are kept by who has signed them ([`CharterCommand::BurySigned`]).
    pub const SIGNED_WORDS: Self = Self(2);
    /// The newest that this build understands.
    const NEWEST: Self = Self::SIGNED_WORDS;

    /// The newest that this process understands.
    pub fn understood() -> Self {
        played::version().unwrap_or(Self::NEWEST)
    }

    /// Whether this process may go on from a state that uses this version.
    pub fn check(self) -> Result<(), NotUnderstood> {
        let understood = Self::understood();
        if self <= understood { Ok(()) } else { Err(NotUnderstood { used: self, understood }) }
    }
}

impl Default for CommandVersion {
    fn default() -> Self {
        Self::FIRST
    }
}

/// What a cluster has agreed on is newer than this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cluster uses commands of version {}, of which this build of covey understands those up to version {}: start a newer one",
    used.0,
    understood.0
)]
pub struct NotUnderstood {
    /// What the cluster uses.
    pub used: CommandVersion,
    /// What this process understands.
    pub understood: CommandVersion,
}

impl Command {
    /// The first version that has it.
    pub fn version(&self) -> CommandVersion {
        played::version_of(self).unwrap_or_else(|| self.since())
    }

    /// That of each kind, by its name. No arm takes whatever is left: what comes later has to say here since when it is there.
    fn since(&self) -> CommandVersion {
        match self {
            Self::Txn(txn) => since_of(txn),
            Self::Put(_)
            | Self::DeleteRange(_)
            | Self::Compact { .. }
            | Self::Alarm { .. }
            | Self::Publish(_)
            | Self::Raise(_)
            | Self::Lease(
                LeaseCommand::Grant { .. }
                | LeaseCommand::Revoke { .. }
                | LeaseCommand::Expire { .. }
                | LeaseCommand::Checkpoint { .. },
            )
            | Self::Member(
                MemberCommand::Add { .. }
                | MemberCommand::Bind { .. }
                | MemberCommand::Promote { .. }
                | MemberCommand::Remove { .. }
                | MemberCommand::Update { .. }
                | MemberCommand::Revote { .. },
            )
            | Self::Charter(
                CharterCommand::Admit { .. }
                | CharterCommand::Forget { .. }
                | CharterCommand::Elapsed { .. }
                | CharterCommand::OpenWindow { .. }
                | CharterCommand::Seal
                | CharterCommand::Approve { .. }
                | CharterCommand::CreateToken { .. }
                | CharterCommand::RevokeToken { .. }
                | CharterCommand::Establish(_)
                | CharterCommand::ReplaceAuthority { .. }
                | CharterCommand::IssueClient { .. }
                | CharterCommand::RevokeClient { .. }
                | CharterCommand::RenewClient { .. }
                | CharterCommand::Dissolve { .. }
                | CharterCommand::Yield { .. }
                | CharterCommand::Bury(_),
            )
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
                | AuthCommand::RevokePermission { .. }
                | AuthCommand::EstablishTokens { .. },
            ) => CommandVersion::FIRST,
            Self::Charter(CharterCommand::BurySigned { .. }) => CommandVersion::SIGNED_WORDS,
        }
    }
}

/// That of the newest that a transaction is made of.
fn since_of(txn: &Txn) -> CommandVersion {
    let compares = txn.compare.iter().map(|compare| match compare.target {
        CompareTarget::Version(_)
        | CompareTarget::Create(_)
        | CompareTarget::Mod(_)
        | CompareTarget::Value(_)
        | CompareTarget::Lease(_)
        | CompareTarget::Unknown => CommandVersion::FIRST,
    });
    let ops = txn.success.iter().chain(&txn.failure).map(|op| match op {
        Op::Range(_) | Op::Put(_) | Op::DeleteRange(_) => CommandVersion::FIRST,
        Op::Txn(txn) => since_of(txn),
    });
    compares.chain(ops).max().unwrap_or_default()
}

#[cfg(debug_assertions)]
pub use played::play;

/// A later build as tests play it: it understands one version more, which has puts of certain keys. Nothing of it is in a release.
#[cfg(debug_assertions)]
mod played {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::{Command, CommandVersion};

    /// Keys of which puts are of that version.
    const KEYS: &[u8] = b"played/";

    /// 0: no other one than this build's.
    static VERSION: AtomicU8 = AtomicU8::new(0);

    /// From now on this process is of a build that understands this.
    pub fn play(version: CommandVersion) {
        VERSION.store(version.0, Ordering::Relaxed);
    }

    pub(super) fn version() -> Option<CommandVersion> {
        Some(CommandVersion(VERSION.load(Ordering::Relaxed))).filter(|version| version.0 > 0)
    }

    pub(super) fn version_of(command: &Command) -> Option<CommandVersion> {
        version().filter(|_| matches!(command, Command::Put(put) if put.key.starts_with(KEYS)))
    }
}

#[cfg(not(debug_assertions))]
mod played {
    use super::{Command, CommandVersion};

    pub(super) const fn version() -> Option<CommandVersion> {
        None
    }

    pub(super) const fn version_of(_command: &Command) -> Option<CommandVersion> {
        None
    }
}
