//! `covey status`: whether the box and its cluster are well, in one line, and the rest below it.
//!
//! Owns: how it is printed. Must never: judge (`verdict` of the API does). Driven by `run`.

use std::io::{self, Write};

use super::admin::grouped;
use super::args::Format;
use crate::api::status_as_json;
use crate::api::verdict::{Verdict, shown_name, span, standing};
use crate::wire::covey::v1 as pb;

/// Digits of a fingerprint by which people tell a few nodes apart.
const SHORT_DIGITS: usize = 16;

fn short(fingerprint: &str) -> String {
    grouped(fingerprint.get(..SHORT_DIGITS).unwrap_or(fingerprint))
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
            serde_json::to_writer(&mut *out, &status_as_json(status, verdict))?;
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
    status.disk_written.iter().try_for_each(|written| writeln!(out, "\n{}", written_line(written)))?;
    status.backups.iter().try_for_each(|backups| writeln!(out, "\n{}", backups_line(backups)))?;
    if !status.seen.is_empty() {
        writeln!(out, "\nothers on the network")?;
    }
    status.seen.iter().try_for_each(|node| {
        let addresses = node.addresses.join(" ");
        writeln!(out, "  {}, {}, {addresses}: {}", node.name, short(&node.fingerprint), node.why)
    })
}

fn tenths(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

/// What flash wears out by.
fn written_line(written: &pb::DiskWritten) -> String {
    let pb::DiskWritten { log, store, transfer, other, revisions, idle_hour_known, idle_hour } = *written;
    let all = format!(
        "written to disk: {} (log {}, store {}, transfer {}, other {})",
        tenths(log + store + transfer + other),
        tenths(log),
        tenths(store),
        tenths(transfer),
        tenths(other)
    );
    let each = (log + store).checked_div(revisions).map(|bytes| format!("{bytes} bytes for each revision"));
    let idle = idle_hour_known.then(|| format!("{} in the last idle hour", tenths(idle_hour)));
    [Some(all), each, idle].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// What there is of the data elsewhere.
fn backups_line(backups: &pb::Backups) -> String {
    let pb::Backups { written, failed, revision, ago_seconds, trouble } = backups;
    let last = if *revision > 0 {
        format!("backups: {written} in this run, the last of revision {revision}, {} ago", span(*ago_seconds))
    } else {
        "backups: none in this run".to_owned()
    };
    let failed = (*failed > 0).then(|| format!("{failed} failed"));
    let trouble = (!trouble.is_empty()).then(|| format!("THE LAST TRY HAS FAILED: {trouble}"));
    [Some(last), failed, trouble].into_iter().flatten().collect::<Vec<_>>().join("; ")
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
    writeln!(out, "\nkeys: {}; with their history {}", cluster.keys, tenths(cluster.bytes_in_use))?;
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

#[cfg(test)]
#[path = "status_test.rs"]
mod tests;
