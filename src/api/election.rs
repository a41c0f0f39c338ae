//! The Election service (API reference, section 7.3).
//!
//! Owns: nothing but the order of its steps, and how far an observer is. Must never: answer a campaign that is not won. Driven by `dispatch`.

use std::collections::VecDeque;
use std::pin::Pin;

use bytes::Bytes;
use prost::Message as _;
use smol::stream::{self, Stream};
use tonic::{Request, Response, Status};

use super::contest::{Contest, Owner, as_told, created_at, lease_of, leave, next, run, says, watcher};
use super::credentials::Credentials;
use super::errors::BadRequest;
use super::node::Node;
use super::stop::Stopping;
use super::watch_codec::encoded;
use super::watch_permits::{Permit, check};
use super::{errors, render};
use crate::command::{KeyRange, Txn};
use crate::ids::{LeaseId, Revision};
use crate::runtime::Watching;
use crate::watch::{Filters, Message};
use crate::wire::etcdserverpb::WatchResponse;
use crate::wire::mvccpb::event::EventType;
use crate::wire::mvccpb::{Event, KeyValue};
use crate::wire::v3electionpb as pb;
use crate::wire::v3electionpb::election_server::Election;

/// Serves `v3electionpb.Election`.
pub struct ElectionService {
    node: Node,
    stopping: Stopping,
}

/// How far an observer is.
struct Observer {
    contest: Contest,
    node: Node,
    /// Where news of whom it was told of comes from; none when it has to look for one.
    follows: Option<Watching>,
    /// By what it may be told of that.
    permit: Option<Permit>,
    /// News that was not told yet.
    news: VecDeque<Event>,
}

impl ElectionService {
    /// The service of a node; whoever waits for something is told when the end is announced.
    pub fn new(node: Node, stopping: Stopping) -> Self {
        Self { node, stopping }
    }

    fn contest(&self, credentials: &Credentials, name: &[u8]) -> Result<Contest, Status> {
        Contest::new(self.node.clone(), self.stopping.clone(), credentials.clone(), name)
    }

    /// Gives the key of the contender created by `place` another value.
    async fn replace(
        &self,
        credentials: &Credentials,
        key: &Bytes,
        place: Revision,
        value: Bytes,
        lease: LeaseId,
    ) -> Result<Revision, Status> {
        let (compare, success) = (vec![created_at(key, place)], vec![says(key, value, lease)]);
        let txn = Txn { compare, success, failure: Vec::new() };
        let (revision, result) = run(&self.node, credentials, txn).await?;
        if result.succeeded { Ok(revision) } else { Err(errors::not_elected()) }
    }
}

#[tonic::async_trait]
impl Election for ElectionService {
    async fn campaign(
        &self,
        request: Request<pb::CampaignRequest>,
    ) -> Result<Response<pb::CampaignResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let pb::CampaignRequest { name, lease, value } = request.into_inner();
        let contest = self.contest(&credentials, &name)?;
        // It is answered after what may be a long time, and what came with it is as large as a request may be.
        let name = Bytes::copy_from_slice(&name);
        let lease = lease_of(&self.node, &credentials, lease).await?;
        let mut contender = contest.enter(lease, value.clone()).await?;
        let (key, place) = (contender.key.clone(), contender.place);
        if contender.found.take().is_some_and(|found| found.value != value) {
            self.replace(&credentials, &key, place, value, lease).await?;
        } else {
            // It may take long from here on.
            drop(value);
        }
        contest.turn(&mut contender).await?.ok_or_else(errors::not_elected)?;
        contender.stay();
        // As of the entry, also after a wait: etcd's is.
        let header = Some(self.node.header(contender.entered));
        let leader = Some(pb::LeaderKey { name, key, rev: place.0, lease: lease.0 });
        Ok(Response::new(pb::CampaignResponse { header, leader }))
    }

    async fn proclaim(
        &self,
        request: Request<pb::ProclaimRequest>,
    ) -> Result<Response<pb::ProclaimResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let request = request.into_inner();
        let leader = leader(request.leader)?;
        let lease = lease_of(&self.node, &credentials, leader.lease).await?;
        let revision =
            self.replace(&credentials, &leader.key, Revision(leader.rev), request.value, lease).await?;
        Ok(Response::new(pb::ProclaimResponse { header: Some(self.node.header(revision)) }))
    }

    async fn leader(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<pb::LeaderResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let owner = self.contest(&credentials, &request.into_inner().name)?.owner().await?;
        let kv = Some(render::key_value(owner.kv.ok_or_else(errors::nobody_elected)?));
        Ok(Response::new(pb::LeaderResponse { header: Some(self.node.header(owner.revision)), kv }))
    }

    type ObserveStream = Pin<Box<dyn Stream<Item = Result<pb::LeaderResponse, Status>> + Send>>;

    async fn observe(
        &self,
        request: Request<pb::LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let credentials = Credentials::of_call(&request);
        let contest = self.contest(&credentials, &request.into_inner().name)?;
        let (node, follows, news) = (self.node.clone(), None, VecDeque::new());
        let observer = Observer { contest, node, follows, permit: None, news };
        let leaders = stream::try_unfold(observer, |mut observer| async move {
            let (revision, kv) = observer.contest.clone().unless_stopped(observer.next()).await?;
            let header = Some(observer.node.header(revision));
            Ok(Some((pb::LeaderResponse { header, kv: Some(kv) }, observer)))
        });
        Ok(Response::new(Box::pin(leaders)))
    }

    async fn resign(
        &self,
        request: Request<pb::ResignRequest>,
    ) -> Result<Response<pb::ResignResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let leader = leader(request.into_inner().leader)?;
        let (revision, _) = run(&self.node, &credentials, leave(&leader.key, Revision(leader.rev))).await?;
        Ok(Response::new(pb::ResignResponse { header: Some(self.node.header(revision)) }))
    }
}

/// Whom a request names.
fn leader(leader: Option<pb::LeaderKey>) -> Result<pb::LeaderKey, Status> {
    let leader = leader.ok_or_else(errors::leader_missing)?;
    if leader.key.is_empty() {
        return Err(as_told(&BadRequest::KeyNotProvided.into()));
    }
    Ok(leader)
}

impl Observer {
    /// The next leader, or the next value of this one, and the revision of that.
    async fn next(&mut self) -> Result<(Revision, KeyValue), Status> {
        loop {
            let Some(watching) = &self.follows else {
                let Owner { kv, revision, permit } = self.contest.owner().await?;
                let Some(leader) = kv else {
                    self.contest.news_of([self.contest.range()], revision, Filters::default()).await?;
                    continue;
                };
                self.permit = permit;
                let watching = self.node.handle().watch();
                watching.request(watcher(KeyRange::single(leader.key.clone()), revision, Filters::default()));
                self.follows = Some(watching);
                return Ok((revision, render::key_value(leader)));
            };
            if let Some(event) = self.news.pop_front() {
                check(self.permit.as_mut(), &self.node.handle().view()).map_err(|status| as_told(&status))?;
                if event.r#type == i32::from(EventType::Put)
                    && let Some(kv) = event.kv
                {
                    return Ok((Revision(kv.mod_revision), kv));
                }
                self.news.clear();
                self.follows = None;
                continue;
            }
            match next(watching).await? {
                Some(Message::Events { batch, .. }) => {
                    // Another watcher may have encoded them already, and then nothing else is left of them.
                    for events in encoded(&batch) {
                        let response = WatchResponse::decode(events.clone());
                        let events = response.map_err(|error| Status::internal(error.to_string()))?.events;
                        self.news.extend(events);
                    }
                }
                Some(_) => {}
                None => self.follows = None,
            }
        }
    }
}
