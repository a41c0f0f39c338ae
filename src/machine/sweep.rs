//! Entries that delete too much for a generation: deletions, transactions, the end of leases.
//!
//! Owns: which those are, and how the state gets past one. Must never: show any of it before the store has all of it. Part of [`Machine`].
//!
//! A deletion takes memory for each of its keys where it becomes changes. An entry whose deletions would fill a generation by themselves is swept
//! instead: it is applied to a state of its own, which takes note of what it comes to and what the store has to do; the store carries that out along with
//! the fold of what was before, and the state goes on from there. Both ways lead to the same state, so that it is each member's own business which one
//! it takes.

use super::Machine;
use crate::command::{Applied, Request};
use crate::ids::{LogIndex, Term};
use crate::mvcc::{Allowance, ReadError, may_delete_many};
use crate::store::{FoldBatch, StoreError};

impl Machine {
    /// Whether the next entry, which has this command, has to be swept.
    pub fn has_to_sweep<'e>(&self, term: Term, request: impl Into<Request<'e>>) -> Result<bool, StoreError> {
        let (request, view) = (request.into(), self.tip.view());
        if !may_delete_many(request.command) || self.gate(request.command).is_err() {
            return Ok(false);
        }
        // In this order: what is not permitted is not gone through.
        match view.authorize(request) {
            Ok(()) => view.outweighs(term, request.command, self.overlay_bytes),
            Err(ReadError::Rejected(_)) => Ok(false),
            Err(ReadError::Store(error)) => Err(error),
        }
    }

    /// Applies the entry at `index`, which deletes so much: the store has to fold the batch, and then the state is what was applied. Until
    /// [`Machine::folded`] nothing else can be. No generation may be frozen. `answer` is as in [`Machine::apply`].
    pub fn begin_sweep<'e>(
        &mut self,
        index: LogIndex,
        term: Term,
        request: impl Into<Request<'e>>,
        answer: Allowance,
    ) -> Result<(FoldBatch, Applied), StoreError> {
        assert!(self.freezing.is_none(), "one fold at a time");
        let (own, changes) = self.tip.begin_sweep();
        let shown = std::mem::replace(&mut self.tip, own);
        let applied = self.apply(index, term, request, answer)?;
        let (leases, sweep) = (self.take_changed_leases(), self.tip.take_sweep());
        let meta = self.tip.view().meta();
        self.ahead = Some(std::mem::replace(&mut self.tip, shown));
        (self.rotated, self.rotated_compacted) = (index, meta.compacted);
        self.freezing = Some(index);
        Ok((FoldBatch { changes, leases, sweep, meta }, applied))
    }
}
