//! What `/metrics` shows: the counters, and the node's state at the moment of asking.
//!
//! Owns: where each gauge comes from. Must never: keep state. Built by `serve`, called by `api`.

use std::sync::Arc;

use super::operator::Operator;
use crate::api::{Host as _, MetricsText, alarm_name, version};
use crate::ids::Revision;
use crate::runtime::Handle;
use crate::runtime::written::Purpose;
use crate::telemetry::metrics::{Backups, Gauges, Metrics};

/// The function that makes the text of `/metrics`.
pub(super) fn metrics_text(handle: Handle, operator: Arc<Operator>, metrics: Arc<Metrics>) -> MetricsText {
    Arc::new(move || {
        let status = handle.status();
        let (view, disk) = (handle.view(), operator.disk_written());
        let alarms = view.facts().alarms.iter().map(|alarm| (alarm.member, alarm_name(alarm.kind)));
        metrics.render(&Gauges {
            member: status.member,
            server_version: version::SERVER,
            cluster_version: Some(version::CLUSTER),
            has_leader: status.leader.is_some(),
            is_leader: status.leads(),
            is_learner: status.is_learner,
            committed: status.commit,
            applied: status.applied,
            proposals_pending: handle.proposals_pending() as u64,
            db_total_bytes: status.size_bytes(),
            db_in_use_bytes: status.bytes_in_use,
            quota_bytes: status.quota,
            digest: status.digest,
            keys: view.keys(),
            revision: view.revision(),
            compacted: view.compacted(),
            alarms: alarms.collect(),
            peers: handle.peer_traffic(),
            auth_revision: view.facts().auth.revision,
            conflicts: operator.conflicts.list().len() as u64,
            disk_short: handle.is_disk_short(),
            backups: operator.backups().map(|made| Backups {
                written: made.written,
                failed: made.failed,
                failing: made.trouble.is_some(),
                revision: made.last.map_or(Revision(0), |(revision, _)| revision),
            }),
            disk_written: &Purpose::ALL.map(|purpose| (purpose.name(), operator.written.bytes(purpose))),
            disk_revisions: disk.revisions,
            disk_idle_hour: disk.idle_hour,
        })
    })
}
