//! `covey status`: whether the box and its cluster are well, in one line, and the rest below it.
//!
//! Owns: the verdict. Must never: call a cluster healthy that lacks a member, or say that something is wrong without saying what to do. Driven by `run`.

use std::io::{self, Write};

use serde_json::json;

use super::admin::{grouped, pending_json, span};
use super::args::Format;
use crate::wire::covey::v1 as pb;

/// Digits of a fingerprint by which people tell a few nodes apart.
const SHORT_DIGITS: usize = 16;

/// What it comes down to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// All is well.
    pub healthy: bool,
    /// In one line.
    pub line: String,
    /// What to do, one step in a line.
    pub next: Vec<String>,
}

fn sick(line: String, next: &[&str]) -> Verdict {
    Verdict { healthy: false, line, next: next.iter().map(|step| (*step).to_owned()).collect() }
}

/// The verdict on what a node says of itself.
pub fn judge(status: &pb::StatusResponse) -> Verdict {
    let mut verdict = verdict(status);
    let renewals = status.cluster.iter().flat_map(renewals);
    let remarks = renewals.chain(other_hardware(status));
    verdict.next.extend(remarks.map(|(found, advice)| format!("{found}: {advice}")));
    verdict
}

/// That the box is another one than at the last start, and what to do about it.
pub fn other_hardware(status: &pb::StatusResponse) -> Option<(String, &'static str)> {
    const ADVICE: &str = "if its disk was copied, stop one of the two boxes and type \"covey prepare-image\" there; if it was repaired, the next start says no more of it";
    let parts = Some(&status.other_hardware).filter(|parts| !parts.is_empty())?;
    Some((format!("this box is other hardware than at its last start ({parts})"), ADVICE))
}

/// Clients that know servers by an authority that was replaced, and what to do about it.
pub fn renewals(cluster: &pb::Cluster) -> impl Iterator<Item = (String, &'static str)> {
    const ADVICE: &str =
        "\"covey client list\" says who, \"covey client renew NAME\" gives the new authority";
    let pb::Cluster { outdated_clients, outdated_seconds, lost_clients, .. } = *cluster;
    let left = span(outdated_seconds);
    let outdated =
        format!("clients to be renewed within {left}, since a member was removed: {outdated_clients}");
    let lost = format!("clients that know no server any more, since they were not renewed: {lost_clients}");
    let all = [(outdated_clients, outdated), (lost_clients, lost)];
    all.into_iter().filter(|(count, _)| *count > 0).map(|(_, found)| (found, ADVICE))
}

fn verdict(status: &pb::StatusResponse) -> Verdict {
    let Some(cluster) = &status.cluster else {
        return sick(
            format!("gathering: {}", status.waits_for),
            &["if this lasts, \"covey doctor\" on this box says what is in the way"],
        );
    };
    if cluster.dissolved_for != 0 {
        let line = format!(
            "dissolved: this cluster has given itself up for {:x}, which its members join",
            cluster.dissolved_for
        );
        return sick(line, &["nothing: ask again in a minute"]);
    }
    if cluster.leader == 0 {
        return leaderless(cluster);
    }
    let leader = name_of(cluster, cluster.leader);
    if cluster.catching_up {
        let line = format!("joining: this box has not got all data yet; leader {leader}");
        return sick(line, &["nothing: ask again in a minute"]);
    }
    if let Some(conflict) = cluster.conflicts.first() {
        let line = format!(
            "CONFLICT: there is another cluster on this network ({:x}): {}",
            conflict.cluster, conflict.why
        );
        return sick(
            line,
            &[
                "decide which of the two stays: both go on as they are until then",
                &format!("if it is the other one: \"covey yield {:x}\" on this box", conflict.cluster),
                &format!("if it is this one: \"covey yield {:x}\" on a box of the other one", cluster.id),
                "whoever yields keeps its data as an archive only; \"covey doctor\" on both sides looks for what else keeps them apart",
            ],
        );
    }
    if let Some(alarm) = cluster.alarms.first() {
        let next = match alarm.as_str() {
            "NOSPACE" => {
                "delete what is not needed and type \"covey compact REVISION\": the alarm ends by itself once there is room"
            }
            _ => {
                "look into the logs of all boxes, and at which of them holds the right data, before anything is changed"
            }
        };
        return sick(format!("ALARM {alarm}: the cluster refuses writes; leader {leader}"), &[next]);
    }
    let away: Vec<&pb::Member> = missing(cluster).collect();
    if let [first, ..] = away[..] {
        let names: Vec<String> = away.iter().map(|member| shown_name(member)).collect();
        let line =
            format!("degraded: {} not reached; leader {leader}; {}", names.join(", "), standing(cluster));
        let gone = format!("if it is gone for good: \"covey member remove {:x}\"", first.id);
        return sick(line, &["look at that box: is it on, and what does \"covey doctor\" say there?", &gone]);
    }
    let line = format!("healthy: {}, leader {leader}; {}", counts(cluster), standing(cluster));
    let next = cluster.pending.iter().map(|node| format!("to let {} in: \"{}\"", node.name, approve(node)));
    Verdict { healthy: true, line, next: next.collect() }
}

fn leaderless(cluster: &pb::Cluster) -> Verdict {
    let voters = || cluster.members.iter().filter(|member| member.votes);
    if voters().next().is_none() {
        let line = "joining: this box has not heard from its cluster's leader yet".to_owned();
        return sick(
            line,
            &[
                "if this lasts, look at the cluster's other boxes: are they on, and what does \"covey status\" say there?",
            ],
        );
    }
    let reached = voters().filter(|member| member.reached).count();
    let away: Vec<String> = voters().filter(|member| !member.reached).map(shown_name).collect();
    let missing = if away.is_empty() { String::new() } else { format!("; not reached: {}", away.join(", ")) };
    let line = format!(
        "no leader: {reached} of {} voters are reached, {} are needed{missing}",
        voters().count(),
        voters().count() / 2 + 1
    );
    if reached > voters().count() / 2 {
        return sick(
            line,
            &["ask again in a few seconds: one is elected", "if this lasts, look into the log of this box"],
        );
    }
    sick(
        line,
        &[
            "bring the boxes back that are not reached",
            "if a majority is lost for good, with its disks: stop covey here and type \"covey recover\"",
        ],
    )
}

/// Members that have a node and are not reached.
fn missing(cluster: &pb::Cluster) -> impl Iterator<Item = &pb::Member> {
    cluster.members.iter().filter(|member| !member.reached && !member.fingerprint.is_empty())
}

fn counts(cluster: &pb::Cluster) -> String {
    let voters = cluster.members.iter().filter(|member| member.votes).count();
    let many = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    match cluster.members.len() - voters {
        0 => many(voters, "voter"),
        learners => format!("{}, {}", many(voters, "voter"), many(learners, "learner")),
    }
}

fn standing(cluster: &pb::Cluster) -> String {
    let phase = if cluster.committed { "committed" } else { "provisional" };
    match cluster.open_seconds {
        _ if cluster.by_secret => format!("{phase}; open to whoever has the cluster's secret"),
        0 => format!("{phase}; sealed"),
        seconds => format!("{phase}; open for {}", span(seconds)),
    }
}

pub(super) fn name_of(cluster: &pb::Cluster, id: u64) -> String {
    let found = cluster.members.iter().find(|member| member.id == id);
    found.map_or_else(|| format!("{id:x}"), shown_name)
}

fn shown_name(member: &pb::Member) -> String {
    if member.name.is_empty() { format!("{:x}", member.id) } else { member.name.clone() }
}

fn short(fingerprint: &str) -> String {
    grouped(fingerprint.get(..SHORT_DIGITS).unwrap_or(fingerprint))
}

/// By all digits: another node, with a key made for it, may begin with the same ones by the time that this is typed.
fn approve(node: &pb::PendingNode) -> String {
    format!("covey node approve {}", node.fingerprint)
}

/// Prints it all.
pub fn write(
    out: &mut impl Write,
    format: Format,
    status: &pb::StatusResponse,
    verdict: &Verdict,
) -> io::Result<()> {
    match format {
        Format::Json => {
            serde_json::to_writer(&mut *out, &as_json(status, verdict))?;
            writeln!(out)
        }
        Format::Simple | Format::Hex | Format::Fields | Format::Table => write_simple(out, status, verdict),
    }
}

fn write_simple(out: &mut impl Write, status: &pb::StatusResponse, verdict: &Verdict) -> io::Result<()> {
    writeln!(out, "{}", verdict.line)?;
    verdict.next.iter().try_for_each(|step| writeln!(out, "  next: {step}"))?;
    match &status.cluster {
        Some(cluster) => write_cluster(out, cluster)?,
        None => writeln!(out, "\nthis box: {}, {}", status.name, grouped(&status.fingerprint))?,
    }
    if !status.seen.is_empty() {
        writeln!(out, "\nothers on the network")?;
    }
    status.seen.iter().try_for_each(|node| {
        let addresses = node.addresses.join(" ");
        writeln!(out, "  {}, {}, {addresses}: {}", node.name, short(&node.fingerprint), node.why)
    })
}

fn write_cluster(out: &mut impl Write, cluster: &pb::Cluster) -> io::Result<()> {
    writeln!(out, "\ncluster {:x}: {}", cluster.id, standing(cluster))?;
    let width = cluster.members.iter().map(|member| shown_name(member).len()).max().unwrap_or(0);
    for member in &cluster.members {
        let role = match (member.id == cluster.leader, member.votes) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        let there = match member {
            member if member.id == cluster.member => "this box",
            pb::Member { fingerprint, .. } if fingerprint.is_empty() => "awaited",
            pb::Member { reached: true, .. } => "reached",
            _ => "AWAY",
        };
        let (name, urls) = (shown_name(member), member.peer_urls.join(" "));
        writeln!(out, "  {name:width$}  {role:7}  {there:8}  {}  {urls}", short(&member.fingerprint))?;
    }
    if !cluster.pending.is_empty() {
        writeln!(out, "\nwaiting to be let in")?;
    }
    for node in &cluster.pending {
        let (urls, asked) = (node.peer_urls.join(" "), span(node.asked_seconds));
        writeln!(out, "  {}, {}, {urls}, asked {asked} ago", node.name, grouped(&node.fingerprint))?;
    }
    for conflict in &cluster.conflicts {
        let (addresses, since) = (conflict.addresses.join(" "), span(conflict.since_seconds));
        writeln!(
            out,
            "\nCONFLICT with cluster {:x} at {addresses}, for {since}: {}",
            conflict.cluster, conflict.why
        )?;
    }
    Ok(())
}

/// Ids are text: not every reader of JSON has all 64 bits.
fn as_json(status: &pb::StatusResponse, verdict: &Verdict) -> serde_json::Value {
    let id = |id: u64| format!("{id:x}");
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
        })
    };
    let conflict = |conflict: &pb::Conflict| {
        json!({
            "cluster": id(conflict.cluster),
            "addresses": conflict.addresses,
            "why": conflict.why,
            "since_seconds": conflict.since_seconds,
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
            "bytes_in_use": cluster.bytes_in_use,
            "quota_bytes": cluster.quota_bytes,
            "outdated_clients": cluster.outdated_clients,
            "outdated_seconds": (cluster.outdated_clients > 0).then_some(cluster.outdated_seconds),
            "lost_clients": cluster.lost_clients,
        })
    });
    let seen = |node: &pb::Sighting| {
        json!({
            "fingerprint": node.fingerprint,
            "name": node.name,
            "addresses": node.addresses,
            "cluster": (node.cluster != 0).then(|| id(node.cluster)),
            "why": node.why,
        })
    };
    json!({
        "healthy": verdict.healthy,
        "verdict": verdict.line,
        "next": verdict.next,
        "name": status.name,
        "fingerprint": status.fingerprint,
        "up_seconds": status.up_seconds,
        "waits_for": status.waits_for,
        "other_hardware": status.other_hardware,
        "cluster": cluster,
        "seen": status.seen.iter().map(seen).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
#[path = "status_test.rs"]
mod tests;
