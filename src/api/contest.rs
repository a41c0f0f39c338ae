//! Who of several owns a name: what locks and elections have in common (API reference, section 7).
//!
//! Owns: the layout of the keys, which client libraries share bit for bit, and the wait for one's turn. Must never: let a contender that has
//! gone away stand in others' way, or say of anybody that it owns what it may not own. Driven by `lock` and `election`.
//!
//! A contender is the key `name/lease`, attached to the lease; the one with the smallest create revision owns the name. Whoever waits
//! watches the contender right before it and nobody else, so that an owner that leaves wakes one.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use tonic::{Code, Status};

use super::credentials::Credentials;
use super::errors;
use super::logins::Permits;
use super::node::{Freshness, Node, READ_PORTION, not_in_kind};
use super::stop::Stopping;
use super::watch_permits::Permit;
use crate::auth::ROOT;
use crate::command::{
    Command, Compare, CompareResult, CompareTarget, DeleteRange, KeyRange, KeyValue, LeaseChange, Op,
    OpResult, Outcome, Put, Range, Sort, SortOrder, SortTarget, Txn, TxnResult,
};
use crate::ids::{LeaseId, Revision};
use crate::mvcc::{Allowance, View};
use crate::runtime::Watching;
use crate::watch::{CreateRequest, Filters, Message, Request};

/// Whoever waits keeps the name in memory, for as long as it likes.
const NAME_BYTES_MAX: usize = 4096;
/// The time to live, in seconds, of a lease that a contender without one is granted. Nobody renews it but its holder.
const LEASE_TTL: i64 = 60;
/// No key was created by it.
const NEVER: Revision = Revision(-1);

/// A name that contenders are after.
#[derive(Clone)]
pub struct Contest {
    node: Node,
    stopping: Stopping,
    /// Whoever is in it acts by these.
    credentials: Credentials,
    prefix: Bytes,
}

/// Whose a name is.
pub struct Owner {
    /// The owner's key; `None` where there is no owner.
    pub kv: Option<KeyValue>,
    /// The revision of the state that says so.
    pub revision: Revision,
    /// By what that was told; `None` where nobody has to be anybody.
    pub permit: Option<Permit>,
}

/// A contender that waits. Dropped before it is its turn, it leaves.
pub struct Contender {
    node: Node,
    /// Who it is for; its token may end while it waits.
    user: Option<String>,
    /// Its key.
    pub key: Bytes,
    /// The revision that created the key: its place.
    pub place: Revision,
    /// What the key held, if it was there before.
    pub found: Option<KeyValue>,
    /// The revision that it entered at, or was found at.
    pub entered: Revision,
    /// All contenders.
    all: KeyRange,
    /// This call has put its key in.
    is_own: bool,
    leaves: bool,
}

impl Contest {
    /// The contest for `name`, as somebody sees it; waits in it end when the end is announced.
    pub fn new(
        node: Node,
        stopping: Stopping,
        credentials: Credentials,
        name: &[u8],
    ) -> Result<Self, Status> {
        if name.len() > NAME_BYTES_MAX {
            return Err(errors::name_too_long());
        }
        Ok(Self { node, stopping, credentials, prefix: [name, b"/"].concat().into() })
    }

    /// All contenders.
    pub fn range(&self) -> KeyRange {
        // The byte after the slash that each prefix ends with.
        let end = [&self.prefix[..self.prefix.len() - 1], b"0"].concat();
        KeyRange::from_wire(self.prefix.clone(), end.into())
    }

    /// The key of the contender with this lease.
    fn key(&self, lease: LeaseId) -> Bytes {
        let sign = if lease.0 < 0 { "-" } else { "" };
        [&self.prefix[..], format!("{sign}{:x}", lease.0.unsigned_abs()).as_bytes()].concat().into()
    }

    /// Enters with `value`, unless this lease is in already. Whoever may not see who else contends does not come in: nothing is put, and nothing has to be taken back. etcd's lock asks for the first of
    /// all contenders in the same transaction; its election lets such a one in, and tells it after that, and the key stays in others' way.
    pub async fn enter(&self, lease: LeaseId, value: Bytes) -> Result<Contender, Status> {
        let key = self.key(lease);
        // Takes the right to read all contenders, as all that stands in a transaction does, and reads none.
        let sees_all = Txn {
            compare: vec![created_at(&key, NEVER)],
            success: vec![Op::Range(Range::all(self.range()))],
            failure: Vec::new(),
        };
        let txn = Txn {
            compare: vec![created_at(&key, Revision(0))],
            success: vec![says(&key, value, lease)],
            failure: vec![Op::Range(Range::all(KeyRange::single(key.clone()))), Op::Txn(sees_all)],
        };
        let (revision, result) = run(&self.node, &self.credentials, txn).await?;
        let found = match result.responses.into_iter().next() {
            Some((_, OpResult::Range(mut found))) => found.kvs.pop(),
            _ => None,
        };
        let place = found.as_ref().map_or(revision, |kv| kv.create_revision);
        let node = self.node.clone();
        let user =
            node.caller(&self.credentials, &node.handle().view()).ok().flatten().map(|caller| caller.user);
        // Who was in before may have its turn already, or wait by another call.
        let is_own = found.is_none();
        let all = self.range();
        Ok(Contender { node, user, key, place, found, entered: revision, all, is_own, leaves: is_own })
    }

    /// Waits until nobody is before `contender`. Answers the revision at which that was seen; `None` when it has lost its own place meanwhile,
    /// with its lease or by somebody's deletion. Whoever may not contend any more by then has waited in vain.
    pub async fn turn(&self, contender: &mut Contender) -> Result<Option<Revision>, Status> {
        let mut waited = false;
        loop {
            // Whoever entered before has a smaller place, which it can lose and never have again: also an old state, if it has the contender, shows
            // all that are before it, or some that have left.
            let view = self
                .node
                .view(if waited { Freshness::Linearizable } else { Freshness::Serializable })
                .await?;
            let view = self.contending(view, &contender.key).await?;
            let revision = view.revision();
            let mine = view.range(&Range::all(KeyRange::single(contender.key.clone())))?;
            if mine.kvs.first().is_none_or(|kv| kv.create_revision != contender.place) {
                return Ok(None);
            }
            let before = Range {
                max_create_revision: contender.place.0 - 1,
                ..one_by(self.range(), SortOrder::Descend)
            };
            let Some(before) = self.first(view, before).await? else { return Ok(Some(revision)) };
            contender.leaves = true;
            let keys = [before.key, contender.key.clone()].map(KeyRange::single);
            let deletions = Filters { no_put: true, no_delete: false };
            self.unless_stopped(self.news_of(keys, revision, deletions)).await?;
            waited = true;
        }
    }

    /// Who owns the name.
    pub async fn owner(&self) -> Result<Owner, Status> {
        let view = self.node.view(Freshness::Linearizable).await?;
        let (view, permit) = self.readable(view).await?;
        let revision = view.revision();
        let kv = self.first(view, one_by(self.range(), SortOrder::Ascend)).await?;
        Ok(Owner { kv, revision, permit })
    }

    /// A view in which all contenders may be read, and by what.
    async fn readable(&self, view: Arc<View>) -> Result<(Arc<View>, Option<Permit>), Status> {
        let range = self.range();
        let permitted =
            self.node.permitted(&self.credentials, view, |permits| permits.access.may_read(&range));
        let (view, caller) = permitted.await.map_err(|status| as_told(&status))?;
        let permit = caller.map(|caller| Permit::new(&self.credentials, caller, range, &view));
        Ok((view, permit))
    }

    /// A view in which the caller may contend by this key. etcd asks only whether the key may still be read.
    async fn contending(&self, view: Arc<View>, key: &Bytes) -> Result<Arc<View>, Status> {
        let (all, own) = (self.range(), KeyRange::single(key.clone()));
        let permits = |permits: Permits<'_>| permits.access.may_read(&all) && permits.access.may_write(&own);
        let permitted = self.node.permitted(&self.credentials, view, permits).await;
        permitted.map(|(view, _)| view).map_err(|status| as_told(&status))
    }

    /// The first key of a range of any size.
    async fn first(&self, view: Arc<View>, range: Range) -> Result<Option<KeyValue>, Status> {
        let begin = move |view: &View| {
            let mut reading = view.begin_range(range.clone())?;
            Ok(move |view: &View, allowance: &mut Allowance| {
                view.continue_range(&mut reading, READ_PORTION, allowance)
            })
        };
        Ok(self.node.read_much(view, begin).await?.kvs.into_iter().next())
    }

    /// Waits until something has happened to these keys after `since`, or may have.
    pub async fn news_of(
        &self,
        ranges: impl IntoIterator<Item = KeyRange>,
        since: Revision,
        filters: Filters,
    ) -> Result<(), Status> {
        let watching = self.node.handle().watch();
        for range in ranges {
            watching.request(watcher(range, since, filters));
        }
        // What it is is read from the state; of what is compacted nothing else can be known.
        while let Some(Message::Created | Message::Progress) = next(&watching).await? {}
        Ok(())
    }

    /// Does this unless the end is announced before it is done.
    pub async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let stopped = async {
            self.stopping.announced().await;
            Err(errors::stopped())
        };
        smol::future::or(work, stopped).await
    }
}

impl Contender {
    /// It stays, whatever becomes of this value.
    pub fn stay(&mut self) {
        self.leaves = false;
    }
}

impl Drop for Contender {
    /// A client that has gone away is not to be waited for, nor is one that may do nothing any more: what this call has put in and nobody has written since, the server itself takes back, hence as
    /// root, who is always there. A key that was there before goes only where its user may delete it, and as long as it is nobody's turn. Should this be lost, the lease ends it.
    fn drop(&mut self) {
        if self.leaves {
            let user = if self.is_own { ROOT.to_owned() } else { self.user.take().unwrap_or_default() };
            let txn = departure(&self.key, self.place, self.is_own, &self.all);
            self.node.handle().propose_unheard(user, Command::Txn(txn));
        }
    }
}

/// Gives a contender's key this value.
pub fn says(key: &Bytes, value: Bytes, lease: LeaseId) -> Op {
    let (key, lease) = (key.clone(), LeaseChange::Set(lease));
    Op::Put(Put { key, value: Some(value), lease, prev_kv: false })
}

/// What takes a contender's key out of others' way, whose call has put it in or has found it among `all`. One that was there before is another call's by the same lease, which may have its turn by
/// now: while somebody is before it, no call has.
fn departure(key: &Bytes, place: Revision, is_own: bool, all: &KeyRange) -> Txn {
    let mut txn = leave(key, place);
    if is_own {
        txn.compare.push(written_at(key, place));
    } else {
        let nobody_is_before = Compare {
            range: all.clone(),
            result: CompareResult::Greater,
            target: CompareTarget::Create(place.0 - 1),
        };
        let delete = Txn { compare: vec![nobody_is_before], success: Vec::new(), failure: txn.success };
        txn.success = vec![Op::Txn(delete)];
    }
    txn
}

/// Deletes a contender's key, unless it is another's by now.
pub fn leave(key: &Bytes, place: Revision) -> Txn {
    let delete = DeleteRange { range: KeyRange::single(key.clone()), prev_kv: false };
    Txn { compare: vec![created_at(key, place)], success: vec![Op::DeleteRange(delete)], failure: Vec::new() }
}

/// Whether the key was created by this revision; 0 is whether there is none.
pub fn created_at(key: &Bytes, revision: Revision) -> Compare {
    equal(key, CompareTarget::Create(revision.0))
}

/// Whether the key was written last by this revision.
fn written_at(key: &Bytes, revision: Revision) -> Compare {
    equal(key, CompareTarget::Mod(revision.0))
}

fn equal(key: &Bytes, target: CompareTarget) -> Compare {
    Compare { range: KeyRange::single(key.clone()), result: CompareResult::Equal, target }
}

/// Applies a transaction.
pub async fn run(node: &Node, credentials: &Credentials, txn: Txn) -> Result<(Revision, TxnResult), Status> {
    let proposed = node.propose(credentials, Command::Txn(txn)).await;
    let (revision, outcome) = proposed.map_err(|status| as_told(&status))?;
    let Outcome::Txn(result) = outcome else { not_in_kind(&outcome) };
    Ok((revision, result))
}

/// The lease to contend with: the caller's own, or one that is made for it.
pub async fn lease_of(node: &Node, credentials: &Credentials, lease: i64) -> Result<LeaseId, Status> {
    let lease = LeaseId(lease);
    if lease != LeaseId::NONE {
        return Ok(lease);
    }
    let granted = node.grant_lease(credentials, LeaseId::NONE, LEASE_TTL).await;
    let (id, applied) = granted.map_err(|status| as_told(&status))?;
    applied.outcome.map_err(|rejection| as_told(&rejection.into()))?;
    Ok(id)
}

/// What is wrong with a request, as these services tell it: etcd's are clients of its own API, and lose the code on the way. A server that
/// is not available says so here, too, for then clients try another.
pub fn as_told(status: &Status) -> Status {
    let code = if status.code() == Code::Unavailable { Code::Unavailable } else { Code::Unknown };
    Status::new(code, status.message())
}

/// A watcher of what comes after `since`.
pub fn watcher(range: KeyRange, since: Revision, filters: Filters) -> Request {
    Request::Create(CreateRequest {
        range,
        start: since.0 + 1,
        watch_id: 0,
        filters,
        prev_kv: false,
        fragment: false,
        progress_notify: false,
    })
}

/// What a watcher is told next; `None` when it has ended because what it had to be told is compacted.
pub async fn next(watching: &Watching) -> Result<Option<Message>, Status> {
    let response = poll_fn(|cx| watching.poll_next(cx)).await?;
    match response.message {
        Message::Compacted(_) => Ok(None),
        Message::Refused(refusal) => Err(Status::unknown(errors::watch_refused(refusal))),
        message => Ok(Some(message)),
    }
}

/// The first key by create revision.
fn one_by(range: KeyRange, order: SortOrder) -> Range {
    Range { limit: 1, sort: Sort { target: SortTarget::Create, order }, ..Range::all(range) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two calls by the same lease have the same key. The one that has put it in may have been told that it owns the name when the other one's client goes away.
    #[test]
    fn who_has_found_its_key_takes_it_from_nobody_whose_turn_it_is() {
        let (key, place, all) =
            (Bytes::from("n/1"), Revision(5), KeyRange::from_wire("n/".into(), "n0".into()));
        let own = departure(&key, place, true, &all);
        assert_eq!(own.compare, [created_at(&key, place), written_at(&key, place)]);
        assert!(matches!(own.success[..], [Op::DeleteRange(_)]));

        let found = departure(&key, place, false, &all);
        assert_eq!(found.compare, [created_at(&key, place)], "by whomever it was written last");
        let [Op::Txn(where_it_is_nobodys_turn)] = &found.success[..] else { panic!("{found:?}") };
        let nobody_is_before = CompareTarget::Create(place.0 - 1);
        let [compare] = &where_it_is_nobodys_turn.compare[..] else { panic!("{found:?}") };
        assert_eq!((&compare.range, &compare.target), (&all, &nobody_is_before));
        assert_eq!(compare.result, CompareResult::Greater);
        assert!(where_it_is_nobodys_turn.success.is_empty());
        assert!(matches!(where_it_is_nobodys_turn.failure[..], [Op::DeleteRange(_)]));
    }
}
