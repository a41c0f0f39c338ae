//! The Cluster service (API reference, section 4).
//!
//! Owns: the listing of members. Must never: change the membership; those RPCs are not offered yet and answer as an unknown method
//! does. Driven by `dispatch`.

use tonic::{Request, Response, Status};

use super::node::{Freshness, Node};
use super::{errors, render};
use crate::ids::Revision;
use crate::wire::etcdserverpb as pb;
use crate::wire::etcdserverpb::cluster_server::{Cluster, SERVICE_NAME};

/// Serves `etcdserverpb.Cluster`.
pub struct ClusterService {
    node: Node,
}

impl ClusterService {
    /// The service of a node.
    pub fn new(node: Node) -> Self {
        Self { node }
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let view = self.node.view(Freshness::from_wire(!request.into_inner().linearizable)).await?;
        // Headers of this service leave the revision out.
        let header = self.node.header(Revision(0));
        let members = render::members(view.facts());
        Ok(Response::new(pb::MemberListResponse { header: Some(header), members }))
    }

    async fn member_add(
        &self,
        _: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        Err(errors::unknown_method(SERVICE_NAME, "MemberAdd"))
    }

    async fn member_remove(
        &self,
        _: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Err(errors::unknown_method(SERVICE_NAME, "MemberRemove"))
    }

    async fn member_update(
        &self,
        _: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Err(errors::unknown_method(SERVICE_NAME, "MemberUpdate"))
    }

    async fn member_promote(
        &self,
        _: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Err(errors::unknown_method(SERVICE_NAME, "MemberPromote"))
    }
}
