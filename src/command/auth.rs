//! What the log says about users and what they may do (API reference, section 6).
//!
//! Owns: the shape of the commands, and of what is said of a user in a client's entry. Must never: hold a password, only what was made of it. Built by `api`, executed by
//! `auth`.

use std::fmt;

use super::KeyRange;
use crate::ids::AuthRevision;

/// The user on whose behalf an entry is proposed. Entries have none while authentication is off, nor does what nodes and leaders propose by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user's name.
    pub user: String,
    /// The revision of users and roles that this was found out at. At another one the entry is refused: who it is, and what they may do, may have changed.
    pub revision: AuthRevision,
}

/// What was made of a password, to compare with. Means nothing to the state; empty for a user without a password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PasswordHash(pub String);

impl fmt::Debug for PasswordHash {
    /// Without the hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(..)")
    }
}

/// What all members make and check tokens with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenSecret(pub [u8; 32]);

impl fmt::Debug for TokenSecret {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(..)")
    }
}

/// What may be done with keys. Discriminants are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PermissionKind {
    /// They may be read and watched.
    Read = 0,
    /// They may be put and deleted.
    Write = 1,
    /// Both.
    ReadWrite = 2,
}

impl PermissionKind {
    /// The one with this discriminant.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Read, Self::Write, Self::ReadWrite].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// What a role may do with an interval of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// What.
    pub kind: PermissionKind,
    /// With which keys.
    pub range: KeyRange,
}

/// A change of users, roles and permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthCommand {
    /// From now on every request is somebody's. Once more changes nothing.
    Enable,
    /// Anybody may do everything again. Once more changes nothing.
    Disable,
    /// Adds a user without roles.
    AddUser {
        /// The name.
        name: String,
        /// What was made of the password.
        password: PasswordHash,
        /// The user has none, and is known by a certificate only.
        no_password: bool,
    },
    /// Removes a user.
    DeleteUser {
        /// Which.
        name: String,
    },
    /// Gives a user another password; one that has none keeps it that way.
    ChangePassword {
        /// Which user.
        name: String,
        /// What was made of the password.
        password: PasswordHash,
    },
    /// Gives a user a role. One that it has changes nothing.
    GrantRole {
        /// The user.
        user: String,
        /// The role.
        role: String,
    },
    /// Takes a role from a user.
    RevokeRole {
        /// The user.
        user: String,
        /// The role.
        role: String,
    },
    /// Adds a role without permissions.
    AddRole {
        /// The name.
        name: String,
    },
    /// Removes a role, and takes it from all users.
    DeleteRole {
        /// Which.
        name: String,
    },
    /// Gives a role a permission, in the place of the one for the same interval if there is one.
    GrantPermission {
        /// The role.
        role: String,
        /// The permission.
        permission: Permission,
    },
    /// Takes the permission for exactly this interval from a role.
    RevokePermission {
        /// The role.
        role: String,
        /// The interval.
        range: KeyRange,
    },
    /// Gives the cluster what its tokens are made with; where there is one already, or authentication is off, it changes nothing. Proposed by a member by itself.
    EstablishTokens {
        /// From a member's randomness.
        secret: TokenSecret,
    },
}
