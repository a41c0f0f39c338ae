//! Deletions that are too large for a generation.
//!
//! Owns: which those are, and how the state gets past one. Must never: show any of it before the store has all of it. Part of [`Machine`].
//!
//! A deletion takes memory for each of its keys where it becomes changes. One that would fill a generation by itself is swept instead: a first
//! walk finds what it comes to, the store carries it out along with the fold of what was before, and the state goes on from the store's. Both
//! ways lead to the same state, so that it is each member's own business which one it takes.

use super::Machine;
use crate::command::{Applied, Command, DeleteRange, Outcome};
use crate::ids::{LogIndex, Term};
use crate::mvcc::{Allowance, Writer};
use crate::store::{FoldBatch, Meta, StoreError, Sweep};

impl Machine {
    /// The deletion in a command that has to be swept.
    pub fn as_sweep<'c>(&self, command: &'c Command) -> Result<Option<&'c DeleteRange>, StoreError> {
        let Command::DeleteRange(delete) = command else { return Ok(None) };
        if self.gate(command).is_err() {
            return Ok(None);
        }
        let large = self.tip.view().outweighs(&delete.range, self.overlay_bytes)?;
        Ok(large.then_some(delete))
    }

    /// Applies the entry at `index`, which deletes so much: the store has to fold the batch, and then the state is what was applied. Until
    /// [`Machine::folded`] nothing else can be. No generation may be frozen. `answer` is as in [`Machine::apply`].
    pub fn begin_sweep(
        &mut self,
        index: LogIndex,
        term: Term,
        delete: &DeleteRange,
        answer: Allowance,
    ) -> Result<(FoldBatch, Applied), StoreError> {
        assert!(self.freezing.is_none(), "one fold at a time");
        let mut writer = Writer::new(&mut self.tip, answer);
        let (result, mut digest) = writer.survey(index, term, delete)?;
        let too_large = writer.is_answer_too_large();
        let view = self.tip.view();
        let (revision, compacted) = (view.revision().next(), view.compacted());
        let keys = result.deleted.unsigned_abs();
        let outcome = Ok(Outcome::DeleteRange(result));
        digest.result(revision, compacted, &outcome);
        let outcome = if too_large { Ok(Outcome::AnswerTooLarge) } else { outcome };
        let meta = Meta { applied: index, applied_term: term, digest, revision, ..view.meta() };
        (self.rotated, self.rotated_compacted) = (index, compacted);
        self.freezing = Some(index);
        self.sweeping = true;
        let leases = self.take_changed_leases();
        let sweep = Some(Sweep { range: delete.range.clone(), keys });
        let batch = FoldBatch { changes: self.tip.freeze(), leases, sweep, meta };
        Ok((batch, Applied { revision, outcome }))
    }
}
