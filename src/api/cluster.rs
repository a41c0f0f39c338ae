//! The Cluster service (API reference, section 4).
//!
//! Owns: the order of checks, and when a change counts as done. Must never: change raft's configuration: that follows the members by itself.
//! Driven by `dispatch`.

use tonic::{Request, Response, Status};

use super::credentials::Credentials;
use super::node::{Freshness, Node, not_in_kind};
use super::{errors, parse, render};
use crate::command::{MemberCommand, Outcome};
use crate::ids::{MemberId, Revision};
use crate::limits::LEARNERS;
use crate::machine::check_started;
use crate::mvcc::Facts;
use crate::store::Member;
use crate::wire::etcdserverpb as pb;
use crate::wire::etcdserverpb::cluster_server::Cluster;

/// Serves `etcdserverpb.Cluster`.
pub struct ClusterService {
    node: Node,
    rules: MemberRules,
}

/// What a member goes by when it is asked to change the members; etcd's settings of the same names.
#[derive(Clone, Copy, Debug)]
pub struct MemberRules {
    /// Refuse what could leave no majority that has started and is reached.
    pub strict: bool,
    /// How many members may be added without a vote.
    pub learners_max: u64,
}

impl Default for MemberRules {
    fn default() -> Self {
        Self { strict: true, learners_max: LEARNERS }
    }
}

impl ClusterService {
    /// The service of a node.
    pub fn new(node: Node, rules: MemberRules) -> Self {
        Self { node, rules }
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let view = self.node.view(Freshness::from_wire(!request.into_inner().linearizable)).await?;
        let (view, _) = self.node.permitted(&credentials, view, |_| true).await?;
        // Headers of this service leave the revision out.
        let header = self.node.header(Revision(0));
        let members = render::members(view.facts());
        Ok(Response::new(pb::MemberListResponse { header: Some(header), members }))
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let pb::MemberAddRequest { peer_urls: urls, is_learner } = request.into_inner();
        let (strict, learners_max) = (self.rules.strict, self.rules.learners_max);
        let peer_urls = parse::peer_urls(urls)?;
        let command = MemberCommand::Add { peer_urls, votes: !is_learner, strict, learners_max };
        let (id, members) = self.change(&credentials, command, |_, _| true).await?;
        let member = members.iter().find(|member| member.id == id.0).cloned();
        let header = Some(self.node.header(Revision(0)));
        Ok(Response::new(pb::MemberAddResponse { header, member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let command =
            MemberCommand::Remove { id: MemberId(request.into_inner().id), strict: self.rules.strict };
        let (_, members) =
            self.change(&credentials, command, |facts, id| !facts.conf_state.names(id)).await?;
        Ok(Response::new(pb::MemberRemoveResponse { header: Some(self.node.header(Revision(0))), members }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let pb::MemberUpdateRequest { id, peer_urls: urls } = request.into_inner();
        let command = MemberCommand::Update { id: MemberId(id), peer_urls: parse::peer_urls(urls)? };
        let (_, members) = self.change(&credentials, command, |_, _| true).await?;
        Ok(Response::new(pb::MemberUpdateResponse { header: Some(self.node.header(Revision(0))), members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let id = MemberId(request.into_inner().id);
        let learns = |member: &Member| member.id() == id && !member.votes;
        if self.node.handle().view().facts().members.iter().any(learns) {
            // Of one that does not exist, or votes, the state says more.
            self.node.handle().check_in_sync(id).await.map_err(|error| match error {
                None => errors::learner_not_in_sync(),
                Some(error) => error.into(),
            })?;
        }
        let command = MemberCommand::Promote { id, strict: self.rules.strict };
        let (_, members) =
            self.change(&credentials, command, |facts, id| facts.conf_state.voters.contains(&id)).await?;
        Ok(Response::new(pb::MemberPromoteResponse { header: Some(self.node.header(Revision(0))), members }))
    }
}

impl ClusterService {
    /// Changes the members, and waits until raft's configuration has followed as far as `followed` says. The member that it was about, and
    /// all members after it.
    async fn change(
        &self,
        credentials: &Credentials,
        command: MemberCommand,
        followed: impl Fn(&Facts, MemberId) -> bool,
    ) -> Result<(MemberId, Vec<pb::Member>), Status> {
        let handle = self.node.handle();
        let known = if handle.view().facts().auth.enabled {
            Some(self.node.root(credentials).await?)
        } else {
            // Whether that is so still takes a majority, and where there is none it is said that this is why.
            None
        };
        let reach = handle.reach().await?;
        let view = handle.view();
        // The state decides this again. Here it comes first, as with etcd, so that clients are told of members that are missing before they are told
        // that these are not reached.
        check_started(view.facts(), &command)?;
        if !reach.allows(&command, view.facts()) {
            return Err(errors::unhealthy_cluster());
        }
        drop(view);
        let caller = match known {
            Some(caller) => caller,
            None => self.node.root(credentials).await?,
        };
        let applied = handle.change_members_for(caller, command).await?;
        let outcome = applied.outcome?;
        let Outcome::Member(id) = outcome else { not_in_kind(&outcome) };
        handle.until_facts(|facts| followed(facts, id)).await?;
        Ok((id, render::members(handle.view().facts())))
    }
}
