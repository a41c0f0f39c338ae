//! Users, roles and what they may do, as replicated state (API reference, section 6).
//!
//! Owns: what each command changes of them, and whether somebody may do something. Must never: see a password or a token: those are made and compared in `api`. Changed by
//! `machine` alone, asked by `mvcc` and `api`.
//!
//! ```text
//! roles     what of the roles' permissions follows for an interval
//! access    what one caller may do
//! certificate   whom a client's certificate names
//! ```
//!
//! # Tokens
//!
//! No entry of the log is written when somebody logs in: that would be a write to every box's disk for each run of a client. The members share a secret instead
//! ([`Auth::token_secret`]), by which each of them can tell a token that another one has made. Nothing in that needs a clock that is right. What ends a token is state: disabling drops the
//! secret, and another password, or another user of the same name, has another [`User::since`]. A member that finds no secret proposes one ([`AuthCommand::EstablishTokens`]).
//! An image of the state has none.

mod access;
mod certificate;
mod roles;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use access::Access;
pub use certificate::{common_name, common_name_bytes};
pub use roles::Role;

use crate::command::{AuthCommand, PasswordHash, Rejection, TokenSecret};
use crate::ids::AuthRevision;
use crate::limits::{AUTH_BYTES_MAX, ROLE_PERMISSIONS_MAX, USER_ROLES_MAX};

/// The user without whom authentication cannot be on, and the role that may do everything.
pub const ROOT: &str = "root";

/// What a user, a role or a permission counts beside its names, keys and hash, in bytes.
const ITEM_BYTES: usize = 16;

/// Users, roles, and whether they count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Whether every request must be somebody's.
    pub enabled: bool,
    /// Counts the changes, from 1. Enabling is none: what is checked then was not before.
    pub revision: AuthRevision,
    /// What tokens are made with; `None` until a member needs it.
    pub token_secret: Option<TokenSecret>,
    /// By name.
    pub users: BTreeMap<String, Arc<User>>,
    /// By name. The role root may be missing here, and can do all the same.
    pub roles: BTreeMap<String, Arc<Role>>,
}

/// Somebody who may do what some roles may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// What was made of the password.
    pub password: PasswordHash,
    /// The user has no password, and nobody logs in by one.
    pub no_password: bool,
    /// The revision that made the user, or gave it its password.
    pub since: AuthRevision,
    /// Sorted.
    pub roles: Vec<String>,
}

/// Why a change is not even proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// The user has as many roles as it may have.
    #[error("a user must not have more than {} roles", USER_ROLES_MAX)]
    Roles,
    /// The role has as many permissions as it may have.
    #[error("a role must not have more than {} permissions", ROLE_PERMISSIONS_MAX)]
    Permissions,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            enabled: false,
            revision: AuthRevision(1),
            token_secret: None,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
        }
    }
}

impl User {
    /// Whether it has the role root, and may do everything.
    pub fn is_root(&self) -> bool {
        self.has_role(ROOT)
    }

    /// Whether it has a role.
    pub fn has_role(&self, role: &str) -> bool {
        self.find_role(role).is_ok()
    }

    fn find_role(&self, role: &str) -> Result<usize, usize> {
        self.roles.binary_search_by(|has| has.as_str().cmp(role))
    }
}

impl Auth {
    /// The user of this name.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name).map(AsRef::as_ref)
    }

    /// The role of this name.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name).map(AsRef::as_ref)
    }

    /// What an image of the state has of it: not what tokens are made with.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        Self { token_secret: None, ..self.clone() }
    }

    /// Refuses what makes too much of one user or role. Asked before proposing and never while applying: what is in the log may be from before there was such a bound, and must come to the same.
    pub fn check_bounds(&self, command: &AuthCommand) -> Result<(), Excess> {
        match command {
            AuthCommand::GrantRole { user, role } => {
                let full = |user: &User| user.roles.len() >= USER_ROLES_MAX && !user.has_role(role);
                if self.user(user).is_some_and(full) { Err(Excess::Roles) } else { Ok(()) }
            }
            AuthCommand::GrantPermission { role, permission } => {
                let full = |role: &Role| {
                    role.permissions().len() >= ROLE_PERMISSIONS_MAX && !role.has(&permission.range)
                };
                if self.role(role).is_some_and(full) { Err(Excess::Permissions) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    /// What a command makes of it. The same again where it changes nothing.
    pub fn after(&self, command: &AuthCommand) -> Result<Self, Rejection> {
        let mut next = self.clone();
        if next.execute(command)? {
            next.revision = next.revision.next();
        }
        let bytes = next.bytes();
        if bytes > AUTH_BYTES_MAX && bytes > self.bytes() {
            return Err(Rejection::AuthTooLarge);
        }
        Ok(next)
    }

    /// Whether something has changed that is counted. After an error it is of no use.
    fn execute(&mut self, command: &AuthCommand) -> Result<bool, Rejection> {
        match command {
            AuthCommand::Enable => {
                self.enable()?;
                return Ok(false);
            }
            AuthCommand::Disable => {
                self.token_secret = None;
                return Ok(std::mem::take(&mut self.enabled));
            }
            AuthCommand::AddUser { name, password, no_password } => {
                self.add_user(name, password, *no_password)?;
            }
            AuthCommand::DeleteUser { name } => {
                if self.enabled && name == ROOT {
                    return Err(Rejection::InvalidAuthManagement);
                }
                self.users.remove(name).ok_or(Rejection::UserNotFound)?;
            }
            AuthCommand::ChangePassword { name, password } => {
                let since = self.revision.next();
                let user = self.user_mut(name)?;
                user.since = since;
                if !user.no_password {
                    user.password = password.clone();
                }
            }
            AuthCommand::GrantRole { user, role } => return self.grant_role(user, role),
            AuthCommand::RevokeRole { user, role } => {
                if self.enabled && user == ROOT && role == ROOT {
                    return Err(Rejection::InvalidAuthManagement);
                }
                let user = self.user_mut(user)?;
                let place = user.find_role(role).map_err(|_| Rejection::RoleNotGranted)?;
                user.roles.remove(place);
            }
            AuthCommand::AddRole { name } => self.add_role(name)?,
            AuthCommand::DeleteRole { name } => self.delete_role(name)?,
            AuthCommand::GrantPermission { role, permission } => {
                if !roles::is_grantable(&permission.range) {
                    return Err(Rejection::InvalidAuthManagement);
                }
                self.role_mut(role)?.grant(permission.clone());
            }
            AuthCommand::RevokePermission { role, range } => {
                if !self.role_mut(role)?.revoke(range) {
                    return Err(Rejection::PermissionNotGranted);
                }
            }
            AuthCommand::EstablishTokens { secret } => {
                if self.enabled {
                    self.token_secret.get_or_insert(*secret);
                }
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn enable(&mut self) -> Result<(), Rejection> {
        if !self.enabled {
            let root = self.user(ROOT).ok_or(Rejection::RootUserMissing)?;
            if !root.is_root() {
                return Err(Rejection::RootRoleMissing);
            }
            self.enabled = true;
        }
        Ok(())
    }

    fn add_user(&mut self, name: &str, password: &PasswordHash, no_password: bool) -> Result<(), Rejection> {
        if name.is_empty() {
            return Err(Rejection::UserNameEmpty);
        }
        if self.users.contains_key(name) {
            return Err(Rejection::UserExists);
        }
        let password = if no_password { PasswordHash::default() } else { password.clone() };
        let user = User { password, no_password, since: self.revision.next(), roles: Vec::new() };
        self.users.insert(name.to_owned(), Arc::new(user));
        Ok(())
    }

    fn grant_role(&mut self, user: &str, role: &str) -> Result<bool, Rejection> {
        let known = role == ROOT || self.roles.contains_key(role);
        let user = self.user_mut(user)?;
        if !known {
            return Err(Rejection::RoleNotFound);
        }
        let place = user.find_role(role);
        if let Err(place) = place {
            user.roles.insert(place, role.to_owned());
        }
        Ok(place.is_err())
    }

    fn add_role(&mut self, name: &str) -> Result<(), Rejection> {
        if name.is_empty() {
            return Err(Rejection::RoleNameEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(Rejection::RoleExists);
        }
        self.roles.insert(name.to_owned(), Arc::default());
        Ok(())
    }

    fn delete_role(&mut self, name: &str) -> Result<(), Rejection> {
        if self.enabled && name == ROOT {
            return Err(Rejection::InvalidAuthManagement);
        }
        self.roles.remove(name).ok_or(Rejection::RoleNotFound)?;
        for user in self.users.values_mut() {
            if let Ok(place) = user.find_role(name) {
                Arc::make_mut(user).roles.remove(place);
            }
        }
        Ok(())
    }

    fn user_mut(&mut self, name: &str) -> Result<&mut User, Rejection> {
        self.users.get_mut(name).map(Arc::make_mut).ok_or(Rejection::UserNotFound)
    }

    fn role_mut(&mut self, name: &str) -> Result<&mut Role, Rejection> {
        self.roles.get_mut(name).map(Arc::make_mut).ok_or(Rejection::RoleNotFound)
    }

    /// What users and roles take.
    fn bytes(&self) -> usize {
        let users = self.users.iter().map(|(name, user)| {
            let roles = user.roles.iter().map(|role| role.len() + ITEM_BYTES).sum::<usize>();
            name.len() + user.password.0.len() + roles + ITEM_BYTES
        });
        let roles = self.roles.iter().map(|(name, role)| name.len() + role.bytes() + ITEM_BYTES);
        users.chain(roles).sum()
    }
}

#[cfg(test)]
mod rules_test;
