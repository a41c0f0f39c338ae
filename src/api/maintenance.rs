//! The Maintenance service (API reference, section 5).
//!
//! Owns: status and alarms. Must never: touch files; what would is not offered yet and answers as an unknown method does.
//! Driven by `dispatch`.

use smol::stream::Pending;
use tonic::{Request, Response, Status};

use super::node::{Freshness, Node, not_in_kind};
use super::{errors, parse, render, version};
use crate::command::{Alarm, AlarmAction, Command, Outcome};
use crate::wire::etcdserverpb as pb;
use crate::wire::etcdserverpb::maintenance_server::{Maintenance, SERVICE_NAME};
use pb::alarm_request::AlarmAction as WireAction;

/// Serves `etcdserverpb.Maintenance`.
pub struct MaintenanceService {
    node: Node,
}

impl MaintenanceService {
    /// The service of a node.
    pub fn new(node: Node) -> Self {
        Self { node }
    }

    /// The raised alarms of one kind, or all of them.
    async fn list_alarms(&self, filter: Option<Alarm>) -> Result<pb::AlarmResponse, Status> {
        let view = self.node.view(Freshness::Linearizable).await?;
        let kept = |alarm: &&Alarm| filter.is_none_or(|filter| filter.kind == alarm.kind);
        let alarms = view.facts().alarms.iter().filter(kept).map(render::alarm).collect();
        Ok(pb::AlarmResponse { header: Some(self.node.header(view.revision())), alarms })
    }

    async fn change_alarm(&self, action: AlarmAction, alarm: Alarm) -> Result<pb::AlarmResponse, Status> {
        let (revision, outcome) = self.node.propose(Command::Alarm { action, alarm }).await?;
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
        let request = request.into_inner();
        let alarm = parse::alarm(&request);
        let response = match (WireAction::try_from(request.action), alarm) {
            (Ok(WireAction::Get), _) => self.list_alarms(alarm).await?,
            (Ok(WireAction::Activate), Some(alarm)) => {
                self.change_alarm(AlarmAction::Activate, alarm).await?
            }
            (Ok(WireAction::Deactivate), Some(alarm)) => {
                self.change_alarm(AlarmAction::Deactivate, alarm).await?
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
            // What is not folded into the file yet is in use too.
            db_size: signed(status.file_bytes.max(status.bytes_in_use)),
            leader: status.leader.map_or(0, |leader| leader.0),
            raft_index: status.commit.0,
            raft_term: status.term.0,
            raft_applied_index: status.applied.0,
            errors,
            db_size_in_use: signed(status.bytes_in_use),
            is_learner: self.node.is_learner(),
            storage_version: version::STORAGE.to_owned(),
            db_size_quota: status.quota.map_or(0, signed),
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }))
    }

    async fn defragment(
        &self,
        _: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        Err(errors::unknown_method(SERVICE_NAME, "Defragment"))
    }

    async fn hash(&self, _: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        Err(errors::unknown_method(SERVICE_NAME, "Hash"))
    }

    async fn hash_kv(&self, _: Request<pb::HashKvRequest>) -> Result<Response<pb::HashKvResponse>, Status> {
        Err(errors::unknown_method(SERVICE_NAME, "HashKV"))
    }

    type SnapshotStream = Pending<Result<pb::SnapshotResponse, Status>>;

    async fn snapshot(
        &self,
        _: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(errors::unknown_method(SERVICE_NAME, "Snapshot"))
    }

    async fn move_leader(
        &self,
        _: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        Err(errors::unknown_method(SERVICE_NAME, "MoveLeader"))
    }

    async fn downgrade(
        &self,
        _: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        Err(errors::unknown_method(SERVICE_NAME, "Downgrade"))
    }
}

/// A size for a signed field of the wire.
fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
