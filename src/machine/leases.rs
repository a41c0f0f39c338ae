//! What lease commands do to the state (API reference, section 3).
//!
//! Owns: granting, ending and checkpointing. Must never: ask what time it is: that a lease is due is the proposing leader's word, and the entry's
//! term says whether it was the leader's still. Part of [`Machine`].

use super::Machine;
use crate::command::{LeaseCommand, Outcome, Rejection};
use crate::ids::LeaseId;
use crate::mvcc::{Allowance, ReadError, Writer};
use crate::store::{Lease, StoreError};

impl Machine {
    pub(super) fn execute_lease(&mut self, command: &LeaseCommand) -> Result<Outcome, ReadError> {
        match command {
            LeaseCommand::Grant { id, ttl } => {
                if self.tip.view().leases().contains(*id) {
                    return Err(Rejection::LeaseExists.into());
                }
                let granted_at = self.applied();
                self.set_lease(*id, Some(Lease { ttl: *ttl, remaining: 0, granted_at }));
                Ok(Outcome::LeaseGrant { ttl: *ttl })
            }
            LeaseCommand::Revoke { id } => {
                if !self.tip.view().leases().contains(*id) {
                    return Err(Rejection::LeaseNotFound.into());
                }
                self.end_lease(*id)?;
                Ok(Outcome::LeaseRevoke)
            }
            LeaseCommand::Expire { term, leases } if *term == self.applied_term() => {
                let mut ended = Vec::new();
                for lease in leases {
                    if self.tip.view().leases().has(*lease) {
                        self.end_lease(lease.id)?;
                        ended.push(lease.id);
                    }
                }
                Ok(Outcome::LeaseExpire(ended))
            }
            LeaseCommand::Checkpoint { term, leases, .. } if *term == self.applied_term() => {
                let mut changed = Vec::new();
                for (instance, remaining) in leases {
                    let found = self.tip.view().leases().find(instance.id).copied();
                    let found = found.filter(|lease| lease.granted_at == instance.granted_at);
                    if let Some(lease) = found {
                        self.set_lease(instance.id, Some(Lease { remaining: *remaining, ..lease }));
                        changed.push(instance.id);
                    }
                }
                Ok(Outcome::LeaseCheckpoint(changed))
            }
            LeaseCommand::Expire { .. } => Ok(Outcome::LeaseExpire(Vec::new())),
            LeaseCommand::Checkpoint { .. } => Ok(Outcome::LeaseCheckpoint(Vec::new())),
        }
    }

    /// The keys go in one revision of the lease's own; without any there is none.
    fn end_lease(&mut self, id: LeaseId) -> Result<(), StoreError> {
        Writer::new(&mut self.tip, Allowance::NOTHING).delete_of_lease(id)?;
        self.set_lease(id, None);
        Ok(())
    }

    fn set_lease(&mut self, id: LeaseId, lease: Option<Lease>) {
        self.tip.set_lease(id, lease);
        self.changed_leases.insert(id);
    }

    /// What the store has to be told of leases, by id.
    pub(super) fn take_changed_leases(&mut self) -> Vec<(LeaseId, Option<Lease>)> {
        let changed = std::mem::take(&mut self.changed_leases);
        let leases = self.tip.view().leases();
        changed.into_iter().map(|id| (id, leases.find(id).copied())).collect()
    }
}
