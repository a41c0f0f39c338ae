//! What every service needs of the node: headers, views to read from, proposals with their answers.
//!
//! Owns: which thread a read runs on. Must never: know a message of the wire but the header. Driven by the services.

use std::sync::Arc;

use tonic::Status;

use super::answers::Answers;
use super::errors;
use super::logins::Logins;
use crate::command::{Command, KeyRange, Op, Outcome, Txn};
use crate::ids::Revision;
use crate::limits::{ANSWER_FIRST_BYTES, READ_PORTION_BYTES, READ_PORTION_KEYS};
use crate::mvcc::{Allowance, Portion, Progress, ReadError, View};
use crate::runtime::Handle;
use crate::wire::etcdserverpb::ResponseHeader;

/// Keys that a transaction may read on the thread that serves connections.
const INLINE_READS_MAX: usize = 8;
/// What a long range reads before others have their turn.
pub const READ_PORTION: Portion = Portion { keys: READ_PORTION_KEYS, bytes: READ_PORTION_BYTES };

/// The node as the services see it. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    handle: Handle,
    answers: Answers,
    logins: Arc<Logins>,
}

/// What came of one try to read.
enum Attempt<T> {
    Done(T),
    Failed(ReadError),
    /// There is no room to begin.
    NoRoom,
    /// It needs more room than it has.
    TooLarge,
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
    /// Wraps a handle; answers count against `answers`, and callers are known by `logins`.
    pub fn new(handle: Handle, answers: Answers, logins: Arc<Logins>) -> Self {
        Self { handle, answers, logins }
    }

    /// How callers are known.
    pub fn logins(&self) -> &Logins {
        &self.logins
    }

    /// The memory of answers.
    pub fn answers(&self) -> &Answers {
        &self.answers
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

    /// Runs a read whose answer may be large, on the pool, once there is room for its answer: first a little, and again with more if that
    /// was not enough. What `begin` answers is called until it is done; in between other reads have their turns.
    ///
    /// The room is given back on return. What is made of the answer counts from the moment its body is polled, which is in the same turn.
    pub async fn read_much<T: Send + 'static, S>(
        &self,
        view: Arc<View>,
        begin: impl Fn(&View) -> Result<S, ReadError> + Send + Sync + 'static,
    ) -> Result<T, Status>
    where
        S: FnMut(&View, &mut Allowance) -> Result<Progress<T>, ReadError> + Send + 'static,
    {
        let begin = Arc::new(begin);
        let mut bytes = ANSWER_FIRST_BYTES;
        let mut reserved = None;
        loop {
            let (view, begin, answers) = (Arc::clone(&view), Arc::clone(&begin), self.answers.clone());
            let mut room = reserved.take();
            let mut under_way: Option<S> = None;
            let mut allowance = answers.allowance(bytes);
            let attempt = self.handle.in_slices(move || {
                // Not before a thread is free: room that nobody fills is lost to others.
                let Some(mut filled) = room.take().or_else(|| answers.try_reserve(bytes)) else {
                    return Some((Attempt::NoRoom, None));
                };
                let read = match under_way.take() {
                    Some(read) => Ok(read),
                    None => begin(&view),
                };
                let progress = read.and_then(|mut read| {
                    let progress = read(&view, &mut allowance)?;
                    under_way = Some(read);
                    Ok(progress)
                });
                match progress {
                    Ok(Progress::More) => {
                        room = Some(filled);
                        None
                    }
                    Ok(Progress::Done(result)) => {
                        filled.resize(allowance.used());
                        Some((Attempt::Done(result), Some(filled)))
                    }
                    Ok(Progress::TooLarge) => Some((Attempt::TooLarge, None)),
                    Err(error) => Some((Attempt::Failed(error), None)),
                }
            });
            match attempt.await {
                (Attempt::Done(result), _room) => return Ok(result),
                (Attempt::Failed(error), _) => return Err(error.into()),
                (Attempt::NoRoom, _) => reserved = Some(self.answers.reserve(bytes).await?),
                (Attempt::TooLarge, _) => bytes = self.answers.more_than(bytes),
            }
        }
    }

    /// Refuses what takes a state, where there is none that may be shown.
    pub fn require_state(&self) -> Result<(), Status> {
        if self.handle.has_state() { Ok(()) } else { Err(errors::no_state()) }
    }

    /// Refuses what a learner does not serve before it has caught up. After that it serves what the others serve.
    pub fn require_voter(&self) -> Result<(), Status> {
        if self.handle.is_catching_up() { Err(errors::not_for_learners()) } else { Ok(()) }
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

/// Whether the answer to a write may be large: whether it reads or returns more than single keys.
pub fn may_return_much(command: &Command) -> bool {
    match command {
        Command::DeleteRange(delete) => delete.prev_kv && !delete.range.is_single(),
        Command::Txn(txn) => reads_intervals(txn),
        _ => false,
    }
}

fn reads_intervals(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Range(range) => !range.count_only && !range.range.is_single(),
        Op::DeleteRange(delete) => delete.prev_kv && !delete.range.is_single(),
        Op::Txn(nested) => reads_intervals(nested),
        Op::Put(_) => false,
    })
}
