//! What every service needs of the node: headers, views to read from, proposals with their answers.
//!
//! Owns: which thread a read runs on. Must never: know a message of the wire but the header. Driven by the services.

use std::sync::Arc;

use tonic::Status;

use super::errors;
use crate::command::{Command, KeyRange, Op, Outcome, Range, RangeResult, Txn};
use crate::ids::Revision;
use crate::limits::{READ_PORTION_BYTES, READ_PORTION_KEYS};
use crate::mvcc::{Portion, ReadError, View};
use crate::runtime::Handle;
use crate::wire::etcdserverpb::ResponseHeader;

/// Keys that a transaction may read on the thread that serves connections.
const INLINE_READS_MAX: usize = 8;
/// What a long range reads before others have their turn.
const READ_PORTION: Portion = Portion { keys: READ_PORTION_KEYS, bytes: READ_PORTION_BYTES };

/// The node as the services see it. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    handle: Handle,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// It sees everything acknowledged before it was asked for, by any member.
    Linearizable,
    /// It sees what this member has applied.
    Serializable,
}

impl Freshness {
    /// From the wire's `serializable`.
    pub fn from_wire(serializable: bool) -> Self {
        if serializable { Freshness::Serializable } else { Freshness::Linearizable }
    }
}

impl Node {
    /// Wraps a handle.
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }

    /// The node's own handle.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// A header as of `revision`.
    pub fn header(&self, revision: Revision) -> ResponseHeader {
        let ids = self.handle.ids();
        ResponseHeader {
            cluster_id: ids.cluster.0,
            member_id: ids.member.0,
            revision: revision.0,
            raft_term: self.handle.term().0,
        }
    }

    /// The state to read from.
    pub async fn view(&self, freshness: Freshness) -> Result<Arc<View>, Status> {
        if freshness == Freshness::Linearizable {
            self.handle.read_barrier().await?;
        }
        Ok(self.handle.view())
    }

    /// Runs `read` on a view: here when `small`, else on the pool.
    ///
    /// A view does not say whether a key is in memory. A single key costs microseconds when it is and some page reads when it is not, less
    /// than a walk through the pool's queue costs every read; a range has no bound.
    pub async fn read<T: Send + 'static>(
        &self,
        view: Arc<View>,
        small: bool,
        read: impl FnOnce(&View) -> T + Send + 'static,
    ) -> T {
        if small {
            return read(&view);
        }
        self.handle
            .blocking(move || {
                let result = read(&view);
                // The last reference may close a transaction of the store.
                drop(view);
                result
            })
            .await
    }

    /// Answers a range from a view, as `render` makes it: here when it is small, else on the pool, in portions between which other reads
    /// have their turns.
    pub async fn range<T: Send + 'static>(
        &self,
        view: Arc<View>,
        range: Range,
        render: impl FnOnce(RangeResult) -> T + Send + 'static,
    ) -> Result<T, ReadError> {
        if is_small_range(&range.range) {
            return view.range(&range).map(render);
        }
        let mut reading = view.begin_range(range)?;
        let mut render = Some(render);
        // The last reference to the view may close a transaction of the store: it goes with the work, on a thread of the pool.
        let portion = move || match view.continue_range(&mut reading, READ_PORTION) {
            Ok(result) => Some(Ok(render.take()?(result?))),
            Err(error) => Some(Err(error)),
        };
        self.handle.in_slices(portion).await
    }

    /// Proposes a command and waits until its effect can be read.
    pub async fn propose(&self, command: Command) -> Result<(Revision, Outcome), Status> {
        let applied = self.handle.propose(command).await?;
        Ok((applied.revision, applied.outcome?))
    }

    /// Refuses what a learner does not serve.
    pub fn require_voter(&self) -> Result<(), Status> {
        if self.is_learner() { Err(errors::not_for_learners()) } else { Ok(()) }
    }

    /// Whether this member receives the log without voting.
    pub fn is_learner(&self) -> bool {
        self.handle.view().facts().conf_state.learners.contains(&self.handle.ids().member)
    }
}

/// The machine has answered a command with another one's result, which only a bug of ours can do.
pub fn not_in_kind(outcome: &Outcome) -> ! {
    unreachable!("a command is answered in kind, not with {outcome:?}")
}

/// Whether a range is read where it arrives.
pub fn is_small_range(range: &KeyRange) -> bool {
    range.is_single()
}

/// Whether a transaction that cannot write is read where it arrives.
pub fn is_small_txn(txn: &Txn) -> bool {
    let ops = txn.success.iter().chain(&txn.failure);
    let mut ranges = txn.compare.iter().map(|compare| &compare.range).chain(ops.filter_map(|op| match op {
        Op::Range(range) => Some(&range.range),
        Op::Put(_) | Op::DeleteRange(_) | Op::Txn(_) => None,
    }));
    txn.compare.len() + txn.success.len() + txn.failure.len() <= INLINE_READS_MAX
        && ranges.all(KeyRange::is_single)
}
