//! The Lease service (API reference, section 3).
//!
//! Owns: what a client is told of a lease that does not exist, which differs from call to call. Must never: know when a lease ends. Driven by
//! `dispatch`.

use std::pin::Pin;
use std::sync::Arc;

use smol::stream::{self, Stream};
use tonic::{Request, Response, Status, Streaming};

use super::credentials::Credentials;
use super::errors::{self, BadRequest};
use super::node::{Node, READ_PORTION, not_in_kind};
use super::stop::Stopping;
use crate::command::{Command, LeaseCommand, Outcome};
use crate::ids::LeaseId;
use crate::limits::LEASE_TTL_MAX;
use crate::mvcc::{Allowance, View};
use crate::wire::etcdserverpb as pb;
use crate::wire::etcdserverpb::lease_server::Lease;

/// What the answer to a question for a lease's time says of one that does not exist.
const NO_SUCH_LEASE: i64 = -1;
/// What a lease in a list takes while the answer is made, in bytes: twice its id, and its message.
const LISTED_LEASE_BYTES: usize = 32;

/// Serves `etcdserverpb.Lease`.
pub struct LeaseService {
    node: Node,
    stopping: Stopping,
}

impl LeaseService {
    /// The service of a node; its streams end when the end is announced.
    pub fn new(node: Node, stopping: Stopping) -> Self {
        Self { node, stopping }
    }
}

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let request = request.into_inner();
        if request.ttl > LEASE_TTL_MAX {
            // Who asks comes before what is asked for, as everywhere.
            self.node.require_user(&credentials).await?;
            return Err(BadRequest::LeaseTtlTooLarge.into());
        }
        let (id, applied) = self.node.grant_lease(&credentials, LeaseId(request.id), request.ttl).await?;
        let header = Some(self.node.header(applied.revision));
        let outcome = applied.outcome?;
        let Outcome::LeaseGrant { ttl } = outcome else { not_in_kind(&outcome) };
        Ok(Response::new(pb::LeaseGrantResponse { header, id: id.0, ttl, error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let id = LeaseId(request.into_inner().id);
        let revoke = Command::Lease(LeaseCommand::Revoke { id });
        let (revision, _) = self.node.propose(&credentials, revoke).await?;
        Ok(Response::new(pb::LeaseRevokeResponse { header: Some(self.node.header(revision)) }))
    }

    type LeaseKeepAliveStream =
        Pin<Box<dyn Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send>>;

    /// One renewal after the other, so that the answers come in the order of the requests.
    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let credentials = Credentials::of_call(&request);
        let state = (request.into_inner(), credentials, self.node.clone(), self.stopping.clone());
        let answers = stream::try_unfold(state, |(mut requests, credentials, node, stopping)| async move {
            let work = async {
                let Some(request) = requests.message().await? else { return Ok(None) };
                renew(&node, &credentials, request).await.map(Some)
            };
            let stopped = async {
                stopping.announced().await;
                Err(errors::stopped())
            };
            let answer = smol::future::or(work, stopped).await?;
            Ok(answer.map(|answer| (answer, (requests, credentials, node, stopping))))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let request = request.into_inner();
        let id = LeaseId(request.id);
        self.node.require_user(&credentials).await?;
        let found = self.node.handle().time_to_live(id).await?;
        let view = self.node.handle().view();
        let (view, caller) = self.node.permitted(&credentials, view, |_| true).await?;
        let header = Some(self.node.header(view.revision()));
        let Some(time) = found else {
            let ttl = NO_SUCH_LEASE;
            let unknown = pb::LeaseTimeToLiveResponse { header, id: id.0, ttl, ..Default::default() };
            return Ok(Response::new(unknown));
        };
        let keys = if request.keys {
            let begin = move |view: &View| {
                let mut reading = view.begin_lease_keys(id);
                Ok(move |view: &View, allowance: &mut Allowance| {
                    Ok(view.continue_lease_keys(&mut reading, READ_PORTION, allowance)?)
                })
            };
            let keys = self.node.read_much(Arc::clone(&view), begin).await?;
            self.node.may_read_keys(view, caller, keys).await?
        } else {
            Vec::new()
        };
        let (ttl, granted_ttl) = (time.remaining, time.granted);
        Ok(Response::new(pb::LeaseTimeToLiveResponse { header, id: id.0, ttl, granted_ttl, keys }))
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        self.node.require_user(&credentials).await?;
        let expected = self.node.handle().view().leases().len();
        let _room = self.node.answers().reserve(expected.saturating_mul(LISTED_LEASE_BYTES)).await?;
        let leases = self.node.handle().leases().await?;
        self.node.may_read_leases(&credentials, leases.clone()).await?;
        let header = Some(self.node.header(self.node.handle().view().revision()));
        let leases = leases.into_iter().map(|id| pb::LeaseStatus { id: id.0 }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header, leases }))
    }
}

/// The header is as of before the renewal, as etcd's is. A lease that is gone is no error: the stream goes on.
async fn renew(
    node: &Node,
    credentials: &Credentials,
    request: pb::LeaseKeepAliveRequest,
) -> Result<pb::LeaseKeepAliveResponse, Status> {
    node.may_write_lease(credentials, LeaseId(request.id)).await?;
    let header = Some(node.header(node.handle().view().revision()));
    let ttl = node.handle().renew_lease(LeaseId(request.id)).await?.unwrap_or(0);
    Ok(pb::LeaseKeepAliveResponse { header, id: request.id, ttl })
}
