//! The conditions of a transaction (API reference, section 1.6).
//!
//! Owns: when a compare holds. Must never: see a transaction's own writes; its caller passes the view from before them.

use std::cmp::Ordering;

use super::rows::Draft;
use super::view::View;
use crate::command::{Compare, CompareResult, CompareTarget};
use crate::store::StoreError;

impl View {
    /// Whether every key of the compare's interval satisfies it; an empty interval counts as one missing key.
    pub(super) fn holds(&self, compare: &Compare) -> Result<bool, StoreError> {
        let mut empty = true;
        for row in self.rows(&compare.range, self.rev, 1)? {
            empty = false;
            let mut draft = row?.draft(&self.base)?;
            if matches!(compare.target, CompareTarget::Value(_)) {
                draft.fetch(&self.base)?;
            }
            if !holds_for(compare, &draft) {
                return Ok(false);
            }
        }
        Ok(!empty || holds_for_missing(compare))
    }
}

fn holds_for(compare: &Compare, draft: &Draft) -> bool {
    let kv = &draft.kv;
    let ordering = match &compare.target {
        CompareTarget::Version(operand) => kv.version.cmp(operand),
        CompareTarget::Create(operand) => kv.create_revision.0.cmp(operand),
        CompareTarget::Mod(operand) => kv.mod_revision.0.cmp(operand),
        CompareTarget::Value(operand) => kv.value.cmp(operand),
        CompareTarget::Lease(operand) => kv.lease.0.cmp(operand),
        CompareTarget::Unknown => Ordering::Equal,
    };
    satisfies(compare.result, ordering)
}

/// Every number of a missing key is 0. It has no value, not even an empty one, so no compare of values holds.
fn holds_for_missing(compare: &Compare) -> bool {
    let ordering = match &compare.target {
        CompareTarget::Version(operand)
        | CompareTarget::Create(operand)
        | CompareTarget::Mod(operand)
        | CompareTarget::Lease(operand) => 0.cmp(operand),
        CompareTarget::Value(_) => return false,
        CompareTarget::Unknown => Ordering::Equal,
    };
    satisfies(compare.result, ordering)
}

fn satisfies(result: CompareResult, ordering: Ordering) -> bool {
    match result {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
        CompareResult::NotEqual => ordering.is_ne(),
        CompareResult::Unknown => true,
    }
}
