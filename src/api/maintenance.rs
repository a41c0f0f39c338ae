//! The Maintenance service (API reference, section 5).
//!
//! Owns: status, alarms, hashes, hand-overs and the answers of a server that has nothing to defragment or to downgrade to. Must never:
//! touch files. Driven by `dispatch`.

use std::sync::Arc;
use std::time::Duration;

use smol::Timer;
use tonic::{Request, Response, Status};

use super::credentials::Credentials;
use super::hashes::Hashes;
use super::node::{Freshness, Node, not_in_kind};
use super::snapshot_stream::SnapshotStream;
use super::{errors, parse, render, version};
use crate::command::{Alarm, AlarmAction, Command, Outcome};
use crate::ids::MemberId;
use crate::limits::SNAPSHOTS_MAX;
use crate::runtime::{HandOverError, ServeError};
use crate::wire::etcdserverpb as pb;
use crate::wire::etcdserverpb::maintenance_server::Maintenance;
use pb::alarm_request::AlarmAction as WireAction;
use pb::downgrade_request::DowngradeAction;

/// How long a defragmentation waits for removal: less than clients wait for its answer.
const DEFRAGMENT_WAIT_MAX: Duration = Duration::from_secs(2);

/// Serves `etcdserverpb.Maintenance`.
pub struct MaintenanceService {
    node: Node,
    hashes: Hashes,
    /// Each snapshot that is sent has one of these.
    snapshots: Arc<()>,
}

impl MaintenanceService {
    /// The service of a node.
    pub fn new(node: Node) -> Self {
        Self { hashes: Hashes::new(node.clone()), snapshots: Arc::default(), node }
    }

    /// The raised alarms of one kind, or all of them.
    async fn list_alarms(
        &self,
        credentials: &Credentials,
        filter: Option<Alarm>,
    ) -> Result<pb::AlarmResponse, Status> {
        let view = self.node.view(Freshness::Linearizable).await?;
        let (view, _) = self.node.permitted(credentials, view, |_| true).await?;
        let kept = |alarm: &&Alarm| filter.is_none_or(|filter| filter.kind == alarm.kind);
        let alarms = view.facts().alarms.iter().filter(kept).map(render::alarm).collect();
        Ok(pb::AlarmResponse { header: Some(self.node.header(view.revision())), alarms })
    }

    async fn change_alarm(
        &self,
        credentials: &Credentials,
        action: AlarmAction,
        alarm: Alarm,
    ) -> Result<pb::AlarmResponse, Status> {
        let (revision, outcome) = self.node.propose(credentials, Command::Alarm { action, alarm }).await?;
        let Outcome::Alarm(changed) = outcome else { not_in_kind(&outcome) };
        let alarms = changed.iter().map(render::alarm).collect();
        Ok(pb::AlarmResponse { header: Some(self.node.header(revision)), alarms })
    }

    /// What etcd answers to a change that names no alarm.
    fn no_alarm(&self) -> pb::AlarmResponse {
        let revision = self.node.handle().view().revision();
        pb::AlarmResponse { header: Some(self.node.header(revision)), alarms: Vec::new() }
    }
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        let credentials = Credentials::of_call(&request);
        let request = request.into_inner();
        let alarm = parse::alarm(&request);
        if WireAction::try_from(request.action) != Ok(WireAction::Get) {
            self.node.require_root(&credentials).await?;
        }
        let response = match (WireAction::try_from(request.action), alarm) {
            (Ok(WireAction::Get), _) => self.list_alarms(&credentials, alarm).await?,
            (Ok(WireAction::Activate), Some(alarm)) => {
                self.change_alarm(&credentials, AlarmAction::Activate, alarm).await?
            }
            (Ok(WireAction::Deactivate), Some(alarm)) => {
                self.change_alarm(&credentials, AlarmAction::Deactivate, alarm).await?
            }
            (Ok(WireAction::Activate | WireAction::Deactivate), None) | (Err(_), _) => self.no_alarm(),
        };
        Ok(Response::new(response))
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusResponse>, Status> {
        let status = self.node.handle().status();
        let view = self.node.handle().view();
        let mut errors = Vec::new();
        if status.leader.is_none() {
            errors.push(errors::no_leader().message().to_owned());
        }
        // Go's text form of the message, trailing space included.
        errors.extend(
            view.facts().alarms.iter().map(|alarm| {
                format!("memberID:{} alarm:{} ", alarm.member.0, render::alarm_name(alarm.kind))
            }),
        );
        Ok(Response::new(pb::StatusResponse {
            header: Some(self.node.header(view.revision())),
            version: version::SERVER.to_owned(),
            db_size: signed(status.size_bytes()),
            leader: status.leader.map_or(0, |leader| leader.0),
            raft_index: status.commit.0,
            raft_term: status.term.0,
            raft_applied_index: status.applied.0,
            errors,
            db_size_in_use: signed(status.bytes_in_use),
            is_learner: status.is_learner,
            storage_version: version::STORAGE.to_owned(),
            db_size_quota: status.quota.map_or(0, signed),
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }))
    }

    async fn defragment(
        &self,
        _: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        // The store reuses free pages by itself and never blocks. What there is to wait for is the removal of what was compacted, which
        // is under way already and goes on when this does not wait for it any more.
        let compacted = self.node.handle().view().compacted();
        let late = async {
            Timer::after(DEFRAGMENT_WAIT_MAX).await;
            Ok(())
        };
        smol::future::or(self.node.handle().compaction_finished(compacted), late).await?;
        Ok(Response::new(pb::DefragmentResponse::default()))
    }

    async fn hash(&self, _: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        let hash = self.hashes.hash_kv(0).await?;
        let header = Some(self.node.header(self.node.handle().view().revision()));
        Ok(Response::new(pb::HashResponse { header, hash: hash.hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let hash = self.hashes.hash_kv(request.into_inner().revision).await?;
        Ok(Response::new(pb::HashKvResponse {
            header: Some(self.node.header(self.node.handle().view().revision())),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.hash_revision.0,
        }))
    }

    type SnapshotStream = SnapshotStream;

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        if Arc::strong_count(&self.snapshots) > SNAPSHOTS_MAX {
            return Err(ServeError::TooManyRequests.into());
        }
        let place = Arc::clone(&self.snapshots);
        let credentials = Credentials::of_call(&request);
        Ok(Response::new(SnapshotStream::start(self.node.clone(), &credentials, place).await?))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let target = MemberId(request.into_inner().target_id);
        self.node.handle().hand_over(target).await.map_err(|error| match error {
            HandOverError::NotLeader => errors::not_leader(),
            HandOverError::BadTransferee => errors::bad_leader_transferee(),
            HandOverError::TookTooLong => errors::leader_transfer_timed_out(),
        })?;
        Ok(Response::new(pb::MoveLeaderResponse::default()))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        let request = request.into_inner();
        // This server reads one version of its data only: no target is a valid one, and no downgrade is ever under way.
        Err(match DowngradeAction::try_from(request.action) {
            Ok(DowngradeAction::Validate | DowngradeAction::Enable)
                if parse::is_version(&request.version) =>
            {
                errors::invalid_downgrade_target()
            }
            Ok(DowngradeAction::Validate | DowngradeAction::Enable) => errors::wrong_downgrade_format(),
            Ok(DowngradeAction::Cancel) => errors::no_inflight_downgrade(),
            Err(_) => errors::unknown_action(),
        })
    }
}

/// A size for a signed field of the wire.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
