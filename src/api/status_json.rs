//! How a node and its cluster stand, as JSON: what `covey status -w json` prints, and what the status page is made from.
//!
//! Owns: the names of its fields. Must never: leave out what the text of `covey status` says. Asked by `page`, and by the command line of what a node has told it.

use serde_json::json;

use super::verdict::Verdict;
use crate::wire::covey::v1 as pb;

/// A node that waits, as JSON.
pub fn pending_json(node: &pb::PendingNode) -> serde_json::Value {
    let pb::PendingNode { fingerprint, name, peer_urls, asked_seconds } = node;
    json!({ "fingerprint": fingerprint, "name": name, "peer_urls": peer_urls, "asked_seconds": asked_seconds })
}

fn written_json(written: &pb::DiskWritten) -> serde_json::Value {
    json!({
        "log": written.log,
        "store": written.store,
        "transfer": written.transfer,
        "other": written.other,
        "revisions": written.revisions,
        "idle_hour": written.idle_hour_known.then_some(written.idle_hour),
    })
}

fn backups_json(backups: &pb::Backups) -> serde_json::Value {
    let pb::Backups { written, failed, revision, ago_seconds, trouble } = backups;
    let is_there = *revision > 0;
    json!({
        "written": written,
        "failed": failed,
        "revision": is_there.then_some(revision),
        "ago_seconds": is_there.then_some(ago_seconds),
        "trouble": trouble,
    })
}

fn id(id: u64) -> String {
    format!("{id:x}")
}

fn seen_json(node: &pb::Sighting) -> serde_json::Value {
    json!({
        "fingerprint": node.fingerprint,
        "name": node.name,
        "addresses": node.addresses,
        "cluster": (node.cluster != 0).then(|| id(node.cluster)),
        "why": node.why,
    })
}

/// All that a node says of itself, and the verdict on it. Ids are text: not every reader of JSON has all 64 bits.
pub fn status_as_json(status: &pb::StatusResponse, verdict: &Verdict) -> serde_json::Value {
    let member = |cluster: &pb::Cluster, member: &pb::Member| {
        json!({
            "id": id(member.id),
            "name": member.name,
            "fingerprint": member.fingerprint,
            "votes": member.votes,
            "leads": member.id == cluster.leader,
            "reached": member.reached,
            "peer_urls": member.peer_urls,
            "client_urls": member.client_urls,
            "understands": member.understands,
        })
    };
    let conflict = |conflict: &pb::Conflict| {
        json!({
            "cluster": id(conflict.cluster),
            "addresses": conflict.addresses,
            "why": conflict.why,
            "since_seconds": conflict.since_seconds,
            "upgrade_here": conflict.upgrade_here,
            "upgrade_there": conflict.upgrade_there,
        })
    };
    let cluster = status.cluster.as_ref().map(|cluster| {
        json!({
            "id": id(cluster.id),
            "member": id(cluster.member),
            "leader": (cluster.leader != 0).then(|| id(cluster.leader)),
            "term": cluster.term,
            "automatic": cluster.automatic,
            "committed": cluster.committed,
            "open_seconds": cluster.open_seconds,
            "by_secret": cluster.by_secret,
            "dissolved_for": (cluster.dissolved_for != 0).then(|| id(cluster.dissolved_for)),
            "catching_up": cluster.catching_up,
            "members": cluster.members.iter().map(|each| member(cluster, each)).collect::<Vec<_>>(),
            "pending": cluster.pending.iter().map(pending_json).collect::<Vec<_>>(),
            "conflicts": cluster.conflicts.iter().map(conflict).collect::<Vec<_>>(),
            "alarms": cluster.alarms,
            "keys": cluster.keys,
            "bytes_in_use": cluster.bytes_in_use,
            "quota_bytes": cluster.quota_bytes,
            "outdated_clients": cluster.outdated_clients,
            "outdated_seconds": (cluster.outdated_clients > 0).then_some(cluster.outdated_seconds),
            "lost_clients": cluster.lost_clients,
            "commands": cluster.commands,
        })
    });
    json!({
        "healthy": verdict.healthy,
        "verdict": verdict.line,
        "next": verdict.next,
        "name": status.name,
        "fingerprint": status.fingerprint,
        "up_seconds": status.up_seconds,
        "waits_for": status.waits_for,
        "other_hardware": status.other_hardware,
        "disk_short": status.disk_short,
        "disk_written": status.disk_written.as_ref().map(written_json),
        "backups": status.backups.as_ref().map(backups_json),
        "cluster": cluster,
        "seen": status.seen.iter().map(seen_json).collect::<Vec<_>>(),
    })
}
