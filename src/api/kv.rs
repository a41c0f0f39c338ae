//! The KV service (API reference, section 1).
//!
//! Owns: which way each request takes: a read of a view, or a proposal. Must never: interpret a field (`parse`) or make an error
//! text (`errors`). Driven by `dispatch`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::credentials::Credentials;
use super::node::{
    Freshness, Node, READ_PORTION, is_small_range, is_small_txn, may_return_much, not_in_kind,
};
use super::range_stream::RangeStream;
use super::watch_permits::Permit;
use super::{parse, render};
use crate::command::{Command, Op, OpResult, Outcome, Txn, TxnResult};
use crate::ids::Revision;
use crate::limits::ANSWER_FIRST_BYTES;
use crate::mvcc::{Allowance, Progress, ReadError, View};
use crate::wire::etcdserverpb as pb;
use crate::wire::etcdserverpb::kv_server::Kv;

/// Serves `etcdserverpb.KV`.
pub struct KvService {
    node: Node,
    txn_ops_max: usize,
    request_bytes_max: usize,
}

impl KvService {
    /// The service with its limits: operations per level of a transaction, and bytes that a chunk of a streamed range aims at.
    pub fn new(node: Node, txn_ops_max: usize, request_bytes_max: usize) -> Self {
        Self { node, txn_ops_max, request_bytes_max }
    }

    async fn write(
        &self,
        credentials: &Credentials,
        command: Command,
    ) -> Result<(pb::ResponseHeader, Outcome), Status> {
        // How much it will return is not known before it is applied.
        let _room = if may_return_much(&command) {
            Some(self.node.answers().reserve_for_write().await?)
        } else {
            None
        };
        let (revision, outcome) = self.node.propose(credentials, command).await?;
        Ok((self.node.header(revision), outcome))
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let request = request.into_inner();
        let freshness = Freshness::from_wire(request.serializable);
        let range = parse::range(request)?;
        if freshness == Freshness::Linearizable {
            self.node.require_voter()?;
        }
        let view = self.node.view(freshness).await?;
        let (view, _) =
            self.node.permitted(&credentials, view, |permits| permits.access.may_read(&range.range)).await?;
        let header = self.node.header(view.revision());
        let answer = if is_small_range(&range.range) {
            view.range(&range).map(|result| render::range(header, result))?
        } else {
            let begin = move |view: &View| {
                let mut reading = view.begin_range(range.clone())?;
                Ok(move |view: &View, allowance: &mut Allowance| {
                    let progress = view.continue_range(&mut reading, READ_PORTION, allowance)?;
                    Ok(progress.map(|result| render::range(header, result)))
                })
            };
            self.node.read_much(view, begin).await?
        };
        Ok(Response::new(answer))
    }

    type RangeStreamStream = RangeStream;

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<RangeStream>, Status> {
        let credentials = Credentials::of_call(&request);
        let request = request.into_inner();
        let freshness = Freshness::from_wire(request.serializable);
        let range = parse::range_stream(request)?;
        let view = self.node.view(freshness).await?;
        let (view, caller) =
            self.node.permitted(&credentials, view, |permits| permits.access.may_read(&range.range)).await?;
        let permit = caller.map(|caller| Permit::new(&credentials, caller, range.range.clone(), &view));
        Ok(Response::new(RangeStream::start(self.node.clone(), view, range, permit, self.request_bytes_max)))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let put = parse::put(request.into_inner())?;
        let (header, outcome) = self.write(&credentials, Command::Put(put)).await?;
        let Outcome::Put(result) = outcome else { not_in_kind(&outcome) };
        Ok(Response::new(render::put(header, result)))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let delete = parse::delete_range(request.into_inner())?;
        let (header, outcome) = self.write(&credentials, Command::DeleteRange(delete)).await?;
        let Outcome::DeleteRange(result) = outcome else { not_in_kind(&outcome) };
        Ok(Response::new(render::delete_range(header, result)))
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let parsed = parse::txn(request.into_inner(), self.txn_ops_max)?;
        let txn = parsed.txn;
        if txn.touches_nothing() {
            // Nothing is asked of whoever wants nothing, as in etcd, not even to be somebody.
            let view = self.node.view(Freshness::from_wire(parsed.serializable)).await?;
            let view = self.node.not_mistaken(&credentials, view).await?;
            return Ok(Response::new(render::txn(self.node.header(view.revision()), of_nothing(&txn))));
        }
        if !txn.is_read_only() {
            let (header, outcome) = self.write(&credentials, Command::Txn(txn)).await?;
            let Outcome::Txn(result) = outcome else { not_in_kind(&outcome) };
            return Ok(Response::new(render::txn(header, result)));
        }
        let view = self.node.view(Freshness::from_wire(parsed.serializable)).await?;
        let (view, _) =
            self.node.permitted(&credentials, view, |permits| permits.access.may_run(&txn)).await?;
        let header = self.node.header(view.revision());
        let is_small = is_small_txn(&txn);
        let read = move |view: &View, allowance: &mut Allowance| {
            let result = view.txn_read_only(&txn, allowance)?;
            Ok::<_, ReadError>(result.map(|result| render::txn(header, result)))
        };
        // Few keys, but their values may be large all the same.
        let at_once = if is_small { read(&view, &mut Allowance::of(ANSWER_FIRST_BYTES))? } else { None };
        let answer = if let Some(answer) = at_once {
            answer
        } else {
            let read = Arc::new(read);
            let begin = move |_: &View| {
                let read = Arc::clone(&read);
                Ok(move |view: &View, allowance: &mut Allowance| {
                    Ok(read(view, allowance)?.map_or(Progress::TooLarge, Progress::Done))
                })
            };
            self.node.read_much(view, begin).await?
        };
        Ok(Response::new(answer))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let request = request.into_inner();
        let revision = request.revision;
        let (header, _) = self.write(&credentials, Command::Compact { revision }).await?;
        if request.physical {
            self.node.handle().compaction_finished(Revision(revision)).await?;
        }
        Ok(Response::new(pb::CompactionResponse { header: Some(header) }))
    }
}

/// What a transaction comes to that touches nothing ([`Txn::touches_nothing`]).
fn of_nothing(txn: &Txn) -> TxnResult {
    let nested = txn.success.iter().filter_map(|op| match op {
        // The revision in an inner header is 0, as in etcd.
        Op::Txn(nested) => Some((Revision(0), OpResult::Txn(of_nothing(nested)))),
        Op::Range(_) | Op::Put(_) | Op::DeleteRange(_) => None,
    });
    TxnResult { succeeded: true, responses: nested.collect() }
}
