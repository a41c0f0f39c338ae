//! What one caller may do.
//!
//! Owns: who a request counts for, and which permissions it takes (API reference, section 6.3). Must never: look at a key or a lease: which keys a lease has is asked where
//! that is known ([`View::authorize`](crate::mvcc::View::authorize)). Asked before proposing and again while applying, so that both say the same.

use super::roles::{self, Role};
use super::{Auth, User};
use crate::command::{
    Caller, Command, DeleteRange, KeyRange, LeaseCommand, Op, Put, Rejection, SpanEnd, Txn,
};

/// What a caller may do, as of one state of users and roles.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    auth: &'a Auth,
    /// `None` may do everything.
    user: Option<&'a User>,
}

impl Auth {
    /// What a caller may do. While authentication is off everybody may do everything, whoever they say they are; while it is on, nobody in particular is refused, and so is who was found
    /// out about at another revision.
    pub fn access(&self, caller: Option<&Caller>) -> Result<Access<'_>, Rejection> {
        if !self.enabled {
            return Ok(Access { auth: self, user: None });
        }
        let caller = caller.filter(|caller| !caller.user.is_empty()).ok_or(Rejection::UserNameEmpty)?;
        if caller.revision != self.revision {
            return Err(Rejection::AuthRevisionOld);
        }
        self.access_of(&caller.user)
    }

    /// What a user may do.
    pub fn access_of(&self, user: &str) -> Result<Access<'_>, Rejection> {
        let user = self.user(user).ok_or(Rejection::PermissionDenied)?;
        Ok(Access { auth: self, user: Some(user).filter(|user| !user.is_root()) })
    }

    /// Whether a user may read all keys of an interval.
    pub fn may_read(&self, user: &str, range: &KeyRange) -> bool {
        self.access_of(user).is_ok_and(|access| access.may_read(range))
    }

    /// Whether a user may write all keys of an interval.
    pub fn may_write(&self, user: &str, range: &KeyRange) -> bool {
        self.access_of(user).is_ok_and(|access| access.may_write(range))
    }

    /// Whether a user may do everything.
    pub fn is_root(&self, user: &str) -> bool {
        self.access_of(user).is_ok_and(|access| access.is_root())
    }
}

impl<'a> Access<'a> {
    /// Whether that is everything.
    pub fn is_root(&self) -> bool {
        self.user.is_none()
    }

    /// Whether all keys of an interval may be read.
    pub fn may_read(&self, range: &KeyRange) -> bool {
        self.is_root() || roles::cover(self.roles(), range, false)
    }

    /// Whether all keys of an interval may be written.
    pub fn may_write(&self, range: &KeyRange) -> bool {
        self.is_root() || roles::cover(self.roles(), range, true)
    }

    /// Up to where everything from `key` on may be read (or written), at least; `None` where that is forbidden for `key` itself.
    pub fn reach(&self, key: &[u8], write: bool) -> Option<SpanEnd<'a>> {
        if self.is_root() { Some(SpanEnd::Unbounded) } else { roles::reach(self.roles(), key, write) }
    }

    /// Whether a transaction may run, whichever branches it takes, but for the keys of leases. What is nested counts like what is not.
    pub fn may_run(&self, txn: &Txn) -> bool {
        txn.compare.iter().all(|compare| self.may_read(&compare.range))
            && txn.success.iter().chain(&txn.failure).all(|op| match op {
                Op::Range(range) => self.may_read(&range.range),
                Op::Put(put) => self.may_put(put),
                Op::DeleteRange(delete) => self.may_delete(delete),
                Op::Txn(nested) => self.may_run(nested),
            })
    }

    /// Whether a command may take effect, but for the keys of the leases that it names.
    pub fn check(&self, command: &Command) -> Result<(), Rejection> {
        let permitted = match command {
            Command::Put(put) => self.may_put(put),
            Command::DeleteRange(delete) => self.may_delete(delete),
            Command::Txn(txn) => self.may_run(txn),
            Command::Lease(LeaseCommand::Grant { .. } | LeaseCommand::Revoke { .. }) => true,
            Command::Compact { .. }
            | Command::Alarm { .. }
            | Command::Publish(_)
            | Command::Lease(LeaseCommand::Expire { .. } | LeaseCommand::Checkpoint { .. })
            | Command::Member(_)
            | Command::Charter(_)
            | Command::Auth(_)
            | Command::Raise(_) => self.is_root(),
        };
        if permitted { Ok(()) } else { Err(Rejection::PermissionDenied) }
    }

    fn may_put(&self, put: &Put) -> bool {
        let key = KeyRange::single(put.key.clone());
        self.may_write(&key) && (!put.prev_kv || self.may_read(&key))
    }

    fn may_delete(&self, delete: &DeleteRange) -> bool {
        self.may_write(&delete.range) && (!delete.prev_kv || self.may_read(&delete.range))
    }

    fn roles(&self) -> impl Iterator<Item = &'a Role> + Clone {
        let auth = self.auth;
        let names = self.user.map_or(&[][..], |user| &user.roles);
        names.iter().filter_map(move |name| auth.role(name))
    }
}

#[cfg(test)]
#[path = "access_test.rs"]
mod tests;
