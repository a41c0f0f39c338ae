//! Whether somebody may do what they ask for, as of a view.
//!
//! Owns: the part of the answer that takes the state: which keys a lease has. Must never: answer otherwise before proposing than while applying. Driven by `machine`, and by `api` before it
//! proposes or reads.

use std::collections::BTreeSet;

use super::ReadError;
use super::view::View;
use crate::auth::Access;
use crate::command::{Command, LeaseChange, LeaseCommand, Op, Put, Rejection, Request, Txn};
use crate::ids::LeaseId;

impl View {
    /// Refuses what a caller may not do. Nobody is refused who is nobody, where that can be a node's own doing.
    ///
    /// The keys of a lease go with it. So whoever ends one, or adds a key to it, must be able to write all keys that it has.
    pub fn authorize(&self, request: Request<'_>) -> Result<(), ReadError> {
        let Request { caller, command } = request;
        let auth = &self.facts().auth;
        if !auth.enabled || caller.is_none() && !command.takes_caller() {
            return Ok(());
        }
        let access = auth.access(caller)?;
        access.check(command)?;
        let mut leases = BTreeSet::new();
        match command {
            Command::Put(put) => leases.extend(lease_of(put)),
            Command::Txn(txn) => leases_of(txn, &mut leases),
            Command::Lease(LeaseCommand::Revoke { id }) => leases.extend([*id]),
            _ => {}
        }
        leases.into_iter().try_for_each(|lease| self.authorize_lease(access, lease, true))
    }

    /// Refuses somebody who may not read (or write) all keys that are attached to a lease. There may be no such lease.
    pub fn authorize_lease(&self, access: Access<'_>, lease: LeaseId, write: bool) -> Result<(), ReadError> {
        if access.is_root() || !self.leases().contains(lease) {
            return Ok(());
        }
        let within = self.is_lease_within(lease, |key| access.reach(key, write))?;
        if within { Ok(()) } else { Err(Rejection::PermissionDenied.into()) }
    }
}

/// The lease that a put attaches its key to.
fn lease_of(put: &Put) -> Option<LeaseId> {
    match put.lease {
        LeaseChange::Set(lease) if lease != LeaseId::NONE => Some(lease),
        LeaseChange::Set(_) | LeaseChange::Keep => None,
    }
}

/// Those that any branch names.
fn leases_of(txn: &Txn, into: &mut BTreeSet<LeaseId>) {
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Put(put) => into.extend(lease_of(put)),
            Op::Txn(nested) => leases_of(nested, into),
            Op::Range(_) | Op::DeleteRange(_) => {}
        }
    }
}
