//! The Lock service (API reference, section 7.2).
//!
//! Owns: nothing but the order of its steps. Must never: answer before the lock is held. Driven by `dispatch`.

use bytes::Bytes;
use tonic::{Request, Response, Status};

use super::contest::{Contest, as_told, lease_of};
use super::credentials::Credentials;
use super::errors::{self, BadRequest};
use super::node::Node;
use super::stop::Stopping;
use crate::command::{Command, DeleteRange, KeyRange};
use crate::wire::v3lockpb as pb;
use crate::wire::v3lockpb::lock_server::Lock;

/// Serves `v3lockpb.Lock`.
pub struct LockService {
    node: Node,
    stopping: Stopping,
}

impl LockService {
    /// The service of a node; whoever waits for a lock is told when the end is announced.
    pub fn new(node: Node, stopping: Stopping) -> Self {
        Self { node, stopping }
    }
}

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(&self, request: Request<pb::LockRequest>) -> Result<Response<pb::LockResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let pb::LockRequest { name, lease } = request.into_inner();
        let stopping = self.stopping.clone();
        let contest = Contest::new(self.node.clone(), stopping, credentials.clone(), &name)?;
        // It may take long from here on, and what came with it is as large as a request may be.
        drop(name);
        let lease = lease_of(&self.node, &credentials, lease).await?;
        let mut contender = contest.enter(lease, Bytes::new()).await?;
        let held = contest.turn(&mut contender).await?.ok_or_else(errors::session_expired)?;
        contender.stay();
        let header = Some(self.node.header(held));
        Ok(Response::new(pb::LockResponse { header, key: contender.key.clone() }))
    }

    async fn unlock(
        &self,
        request: Request<pb::UnlockRequest>,
    ) -> Result<Response<pb::UnlockResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let key = request.into_inner().key;
        if key.is_empty() {
            return Err(as_told(&BadRequest::KeyNotProvided.into()));
        }
        let delete = DeleteRange { range: KeyRange::single(key), prev_kv: false };
        let deleted = self.node.propose(&credentials, Command::DeleteRange(delete)).await;
        let (revision, _) = deleted.map_err(|status| as_told(&status))?;
        Ok(Response::new(pb::UnlockResponse { header: Some(self.node.header(revision)) }))
    }
}
