//! Whether a node and its cluster are well, in one line, and what is to be done where they are not.
//!
//! Owns: the verdict, and its words. Must never: call a cluster healthy that lacks a member, or say that something is wrong without saying what to do. Asked by `page`, and
//! by `covey status` and `covey doctor` of what a node has told them.

use crate::wire::covey::v1 as pb;

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

impl Verdict {
    /// The same in a word or two, which name nobody.
    pub fn word(&self) -> &str {
        self.line.split(':').next().unwrap_or_default()
    }
}

fn sick(line: String, next: &[&str]) -> Verdict {
    Verdict { healthy: false, line, next: next.iter().map(|step| (*step).to_owned()).collect() }
}

/// The verdict on what a node says of itself.
pub fn judge(status: &pb::StatusResponse) -> Verdict {
    let mut verdict = verdict(status);
    let renewals = status.cluster.iter().flat_map(renewals);
    let older = status.cluster.iter().filter_map(older_builds);
    let remarks = renewals.chain(other_hardware(status)).chain(older).chain(no_backup(status));
    verdict.next.extend(remarks.map(|(found, advice)| format!("{found}: {advice}")));
    verdict
}

/// That the box is another one than at the last start, and what to do about it.
pub fn other_hardware(status: &pb::StatusResponse) -> Option<(String, &'static str)> {
    const ADVICE: &str = "if its disk was copied, stop one of the two boxes and type \"covey prepare-image\" there; if it was repaired, the next start says no more of it";
    let parts = Some(&status.other_hardware).filter(|parts| !parts.is_empty())?;
    Some((format!("this box is other hardware than at its last start ({parts})"), ADVICE))
}

/// That the last backup by schedule has come to nothing, and what to do about it.
pub fn no_backup(status: &pb::StatusResponse) -> Option<(String, &'static str)> {
    const ADVICE: &str =
        "look at the directory that --backup-dir names; it is tried again after each --backup-interval";
    let trouble = &status.backups.as_ref()?.trouble;
    (!trouble.is_empty()).then(|| (format!("there is no new backup ({trouble})"), ADVICE))
}

/// That the cluster cannot do yet what some of its members can, and what to do about it.
pub fn older_builds(cluster: &pb::Cluster) -> Option<(String, &'static str)> {
    const ADVICE: &str = "upgrade covey on them; one that is gone for good holds it back until it is removed";
    let came = || cluster.members.iter().filter(|member| !member.fingerprint.is_empty());
    if came().all(|member| member.understands <= cluster.commands) {
        return None;
    }
    let newest = came().map(|member| member.understands).max()?;
    let older: Vec<String> = came().filter(|member| member.understands < newest).map(shown_name).collect();
    let older = Some(older).filter(|older| !older.is_empty())?;
    let found =
        format!("what is new in covey is not used before all members have it ({} not)", older.join(", "));
    Some((found, ADVICE))
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
        return conflicting(cluster, conflict);
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
    if status.disk_short {
        return sick(
            format!("DISK FULL: this box takes no puts while it leads; leader {leader}"),
            &[
                "free room on the disk that holds its data directory, or delete what is not needed and type \"covey compact REVISION\": it goes on by itself",
            ],
        );
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

fn conflicting(cluster: &pb::Cluster, conflict: &pb::Conflict) -> Verdict {
    let line = format!(
        "CONFLICT: there is another cluster on this network ({:x}): {}",
        conflict.cluster, conflict.why
    );
    if let Some(next) = upgrade(cluster, conflict) {
        return sick(
            line,
            &[
                &next,
                "the two become one by themselves then; where one of them is sealed by that time, \"covey status\" says what to type",
            ],
        );
    }
    // The other one sees no conflict where nobody has written to this one: it waits for this one to give itself up.
    let first =
        if cluster.committed { "" } else { "\"covey put\" something here, since nobody has yet, and then " };
    sick(
        line,
        &[
            "decide which of the two stays: both go on as they are until then",
            &format!("if it is the other one: \"covey yield {:x}\" on this box", conflict.cluster),
            &format!("if it is this one: {first}\"covey yield {:x}\" on a box of the other one", cluster.id),
            "whoever yields keeps its data as an archive only; \"covey doctor\" on both sides looks for what else keeps them apart",
        ],
    )
}

/// Which boxes are of too old a build for the two clusters to become one.
fn upgrade(cluster: &pb::Cluster, conflict: &pb::Conflict) -> Option<String> {
    let pb::Conflict { upgrade_here, upgrade_there, addresses, .. } = conflict;
    if *upgrade_here > 0 {
        let came = cluster.members.iter().filter(|member| !member.fingerprint.is_empty());
        let older: Vec<String> =
            came.filter(|member| member.understands < *upgrade_here).map(shown_name).collect();
        if older.is_empty() {
            return Some(
                "all boxes of this cluster are upgraded: it is tried again within half a minute".into(),
            );
        }
        return Some(format!(
            "upgrade covey on the boxes of this cluster that are older, or remove those that are gone for good: {}",
            older.join(", ")
        ));
    }
    (*upgrade_there > 0).then(|| {
        let at = addresses.join(", ");
        format!("upgrade covey on the boxes of the other cluster, which is at {at}, where they are older")
    })
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

/// Whether it stays for good, and who may come in.
pub fn standing(cluster: &pb::Cluster) -> String {
    let phase = if cluster.committed { "committed" } else { "provisional" };
    match cluster.open_seconds {
        _ if cluster.by_secret => format!("{phase}; open to whoever has the cluster's secret"),
        0 => format!("{phase}; sealed"),
        seconds => format!("{phase}; open for {}", span(seconds)),
    }
}

/// What a member is called, or its id.
pub fn name_of(cluster: &pb::Cluster, id: u64) -> String {
    let found = cluster.members.iter().find(|member| member.id == id);
    found.map_or_else(|| format!("{id:x}"), shown_name)
}

/// What it is called, or its id.
pub fn shown_name(member: &pb::Member) -> String {
    if member.name.is_empty() { format!("{:x}", member.id) } else { member.name.clone() }
}

/// By all digits: another node, with a key made for it, may begin with the same ones by the time that this is typed.
fn approve(node: &pb::PendingNode) -> String {
    format!("covey node approve {}", node.fingerprint)
}

/// Seconds for people: the two largest units at most.
pub fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let pair = |large: u64, unit: &str, small: u64, smaller: &str| match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {smaller}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) if minutes < 10 => pair(minutes, "min", seconds % 60, "s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => pair(hours, "h", minutes, "min"),
        (days, hours, _) => pair(days, "d", hours, "h"),
    }
}

#[cfg(test)]
#[path = "verdict_test.rs"]
pub mod tests;
