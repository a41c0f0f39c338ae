//! `covey doctor`: what is well on this box, what is not, and what to do about it, in plain sentences.
//!
//! Owns: the judgement. Must never: change anything, or need a server. Driven by `run`.

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::admin;
use super::args::{ClientSettings, Format, Parsed, UsageError};
use super::simple::human_bytes;
use crate::api::verdict::{self, other_hardware, renewals};
use crate::app::{DataDirFindings, Findings, examine};
use crate::discovery::InterfaceRules;
use crate::limits::QUOTA_BYTES;
use crate::wire::covey::v1 as pb;

/// Where members are listened to unless it is said.
const PEER_PORT: u16 = 2380;
/// A disk that takes longer for a synced write makes all writes slow, ...
const SYNC_SLOW: Duration = Duration::from_millis(20);
/// ... and one that takes longer than that makes others take this box for dead.
const SYNC_TOO_SLOW: Duration = Duration::from_millis(200);
/// With less than this a log cannot go on for long.
const FREE_BYTES_MIN: u64 = 64 << 20;
/// The first second of 2024: a clock that says less was never set.
const YEAR_2024: i64 = 1_704_067_200;
/// The first second of 2046, twenty years after this was written: a clock that says more was set wrong, or lost its battery and came back with anything.
const YEAR_2046: i64 = 2_398_377_600;

/// How much of a problem something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Ok,
    Warn,
    Fail,
}

impl Level {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do; empty where there is nothing to do.
    pub advice: String,
}

fn ok(found: impl Into<String>) -> Check {
    Check { level: Level::Ok, found: found.into(), advice: String::new() }
}

fn warn(found: impl Into<String>, advice: impl Into<String>) -> Check {
    Check { level: Level::Warn, found: found.into(), advice: advice.into() }
}

fn fail(found: impl Into<String>, advice: impl Into<String>) -> Check {
    Check { level: Level::Fail, found: found.into(), advice: advice.into() }
}

/// What the arguments say.
#[derive(Debug)]
pub struct Job {
    data_dir: PathBuf,
    interfaces: Vec<String>,
    peer_port: u16,
}

/// What the arguments ask for.
pub fn job(parsed: &Parsed) -> Result<Job, UsageError> {
    if !parsed.arguments.is_empty() {
        return Err(UsageError::Arguments("doctor takes no arguments, only flags"));
    }
    let peer_port = parsed.text("peer-port").map_or(Ok(PEER_PORT), str::parse);
    let peer_port = peer_port.map_err(|_| UsageError::Flags("--peer-port takes a port"))?;
    let names = parsed.text("interfaces").unwrap_or_default().split(',').map(str::trim);
    let interfaces = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Ok(Job { data_dir: parsed.data_dir(env::vars_os())?, interfaces, peer_port })
}

/// Looks at everything, with the server's help where it runs.
pub fn perform(job: &Job, settings: &ClientSettings) -> Vec<Check> {
    let server = admin::status(settings).map_err(|error| error.to_string());
    let rules = InterfaceRules::new(job.interfaces.clone());
    judge(&job.data_dir, job.peer_port, &examine(&job.data_dir, &rules, job.peer_port), &server)
}

fn judge(
    data_dir: &Path,
    port: u16,
    findings: &Findings,
    server: &Result<pb::StatusResponse, String>,
) -> Vec<Check> {
    let mut checks = Vec::new();
    network(&mut checks, findings);
    checks.push(peer_port(port, findings.peer_port_is_bound, server.as_ref().ok()));
    let quota = server.as_ref().ok().and_then(|status| status.cluster.as_ref());
    let quota = quota.map_or(QUOTA_BYTES, |cluster| cluster.quota_bytes.saturating_sub(cluster.bytes_in_use));
    match &findings.data_dir {
        Some(found) => disk(&mut checks, data_dir, found, quota),
        None => checks.push(warn(
            format!("there is no data directory {}", data_dir.display()),
            "name the one that \"covey serve\" uses with --data-dir; it is made at the first start",
        )),
    }
    checks.push(clock(findings.unix_seconds));
    match server {
        Ok(status) => cluster(&mut checks, status, port),
        Err(error) => checks.push(warn(
            format!("no covey answers on this box: {error}"),
            "start it with \"covey serve\", or say with --endpoints where it listens",
        )),
    }
    checks
}

fn network(checks: &mut Vec<Check>, findings: &Findings) {
    for interface in &findings.interfaces {
        let addresses: Vec<String> = interface.addresses.iter().map(ToString::to_string).collect();
        let (name, addresses) = (&interface.name, addresses.join(", "));
        checks.push(ok(match interface.why_not {
            None => format!("interface {name} counts: {addresses}"),
            Some(why) => format!("interface {name} does not count: {why}"),
        }));
    }
    if findings.interfaces.iter().all(|interface| interface.why_not.is_some()) {
        checks.push(fail(
            "no interface leads to other boxes",
            "plug in a cable, give the box an address, or name an interface with --interfaces",
        ));
    }
    for (name, echo) in &findings.multicast {
        checks.push(match echo {
            Ok(()) => ok(format!(
                "multicast leaves and comes back on {name}; whether the switch passes it on, other boxes that are seen tell"
            )),
            Err(error) => warn(
                format!("multicast does not come back on {name}: {error}"),
                "allow 224.0.0.251 (UDP 5353, mDNS) in this box's firewall, or name the others with --peers",
            ),
        });
    }
}

/// Whether nobody but an operator makes the cluster larger than this one box.
fn is_solo(status: &pb::StatusResponse) -> bool {
    status.cluster.as_ref().is_some_and(|cluster| !cluster.automatic && cluster.members.len() <= 1)
}

fn peer_port(port: u16, is_bound: bool, server: Option<&pb::StatusResponse>) -> Check {
    match (is_bound, server) {
        (true, Some(_)) => ok(format!("UDP port {port} is listened on")),
        (true, None) => warn(
            format!("UDP port {port} is taken, and no covey answers"),
            format!("find out by whom: \"ss -ulpn sport = :{port}\""),
        ),
        (false, Some(status)) if is_solo(status) => {
            ok(format!("UDP port {port} is free, and a cluster of one needs none"))
        }
        (false, Some(_)) => fail(
            format!("covey runs, and nobody listens on UDP port {port}"),
            "name another port with --peer-port, or look into covey's log",
        ),
        (false, None) => ok(format!("UDP port {port} is free")),
    }
}

fn disk(checks: &mut Vec<Check>, path: &Path, found: &DataDirFindings, quota: u64) {
    let shown = path.display();
    checks.push(match (found.is_own, found.mode & 0o077) {
        (true, 0) => ok(format!("{shown} is for its owner alone")),
        (true, _) => fail(
            format!("others may look into {shown}, which has the node's key ({:o})", found.mode),
            format!("chmod 700 {shown}"),
        ),
        (false, _) => warn(format!("{shown} is another user's"), "run this as the user that covey runs as"),
    });
    checks.push(match &found.sync {
        Ok(time) if *time <= SYNC_SLOW => ok(format!("a synced write to {shown} takes {}", millis(*time))),
        Ok(time) => {
            let level = if *time <= SYNC_TOO_SLOW { Level::Warn } else { Level::Fail };
            let found = format!("a synced write to {shown} takes {}", millis(*time));
            Check {
                level,
                found,
                advice: "every write of the cluster waits for this: use another disk or card".into(),
            }
        }
        Err(error) => fail(
            format!("{shown} cannot be written to: {error}"),
            "look at its permissions, and whether the disk is full or mounted read-only",
        ),
    });
    let free = human_bytes(i64::try_from(found.free_bytes).unwrap_or(i64::MAX));
    checks.push(match found.free_bytes {
        free_bytes if free_bytes < FREE_BYTES_MIN => {
            fail(format!("only {free} are free"), "make room: covey stops when it cannot write its log")
        }
        free_bytes if free_bytes < quota => warn(
            format!("{free} are free, less than the quota would allow to be stored"),
            "make room, or set a lower --quota-backend-bytes",
        ),
        _ => ok(format!("{free} are free")),
    });
}

fn millis(time: Duration) -> String {
    let tenths = time.as_micros() / 100;
    format!("{}.{} ms", tenths / 10, tenths % 10)
}

/// Only a remark: covey goes by no clock on the wall.
fn clock(unix_seconds: i64) -> Check {
    if unix_seconds < YEAR_2024 {
        warn(
            "the clock is before 2024",
            "nothing in covey depends on it; times in logs are wrong until it is set",
        )
    } else if unix_seconds >= YEAR_2046 {
        warn(
            "the clock is past 2045, decades ahead",
            "nothing that keeps the cluster together depends on it; until it is set times in logs are wrong, and certificates and tokens that others have issued count as expired here",
        )
    } else {
        ok("the clock has been set")
    }
}

fn cluster(checks: &mut Vec<Check>, status: &pb::StatusResponse, port: u16) {
    let verdict = verdict::judge(status);
    // Where something else is wrong, it is part of what is to be done about it.
    let remarks = status.cluster.iter().flat_map(renewals).chain(other_hardware(status));
    let remarks: Vec<_> = remarks.filter(|_| verdict.healthy).collect();
    checks.push(if verdict.healthy { ok(verdict.line) } else { fail(verdict.line, verdict.next.join("; ")) });
    checks.extend(remarks.into_iter().map(|(found, advice)| warn(found, advice)));
    let members = status.cluster.as_ref().map(|cluster| &cluster.members[..]).unwrap_or_default();
    let own = status.cluster.as_ref().map_or(0, |cluster| cluster.member);
    for member in members.iter().filter(|member| member.id != own && !member.fingerprint.is_empty()) {
        let at = format!("{} at {}", member.name, member.peer_urls.join(" "));
        checks.push(if member.reached {
            ok(format!("{at} is reached"))
        } else {
            fail(
                format!("{at} is not reached"),
                format!("is it on? do the firewalls of both boxes let UDP port {port} through, in and out?"),
            )
        });
    }
    for node in &status.seen {
        let at = format!("{} at {}", node.name, node.addresses.join(" "));
        checks.push(warn(
            format!("{at} is seen, and no member here: {}", node.why),
            "\"covey status\" tells more",
        ));
    }
    if members.len() <= 1 && status.seen.is_empty() && !is_solo(status) {
        checks.push(warn(
            "no other box is seen",
            format!("if there should be one: is it on the same network, and do mDNS (UDP 5353) and UDP port {port} get through?"),
        ));
    }
}

/// Whether nothing failed.
pub fn is_well(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.level < Level::Fail)
}

/// Prints the checks.
pub fn write(out: &mut impl Write, format: Format, checks: &[Check]) -> io::Result<()> {
    if format == Format::Json {
        let check = |check: &Check| json!({ "level": check.level.word(), "found": check.found, "advice": check.advice });
        let all = json!({ "well": is_well(checks), "checks": checks.iter().map(check).collect::<Vec<_>>() });
        serde_json::to_writer(&mut *out, &all)?;
        return writeln!(out);
    }
    checks.iter().try_for_each(|Check { level, found, advice }| {
        writeln!(out, "{:4}  {found}", level.word())?;
        if advice.is_empty() { Ok(()) } else { writeln!(out, "      -> {advice}") }
    })
}

#[cfg(test)]
#[path = "doctor_test.rs"]
mod tests;
