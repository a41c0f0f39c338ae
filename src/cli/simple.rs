//! etcdctl's simple format: for people and shell scripts.
//!
//! Owns: its layout. Must never: escape what it was not asked to: keys and values are printed as they are.

use std::io::{self, Write};

use super::access_reply;
use super::quote::quote;
use super::reply::{Health, Reply, ValuesOnly};
use crate::wire::etcdserverpb::response_op::Response;
use crate::wire::etcdserverpb::{
    AlarmMember, AlarmType, DeleteRangeResponse, LeaseTimeToLiveResponse, Member, MemberAddResponse,
    PutResponse, RangeResponse, ResponseHeader, StatusResponse, TxnResponse, WatchResponse,
};
use crate::wire::mvccpb::KeyValue;

/// How keys and values are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bytes {
    Plain,
    /// `\x61\x62`
    Hex,
}

pub fn write(out: &mut impl Write, reply: &Reply, bytes: Bytes) -> io::Result<()> {
    match reply {
        Reply::Range(response, values_only) => range(out, response, *values_only, bytes),
        Reply::Put(response) => put(out, response, bytes),
        Reply::Delete(response) => delete(out, response, bytes),
        Reply::Txn(response) => txn(out, response, bytes),
        Reply::Compacted(revision) => writeln!(out, "compacted revision {revision}"),
        Reply::LeaseGranted(response) => {
            writeln!(out, "lease {} granted with TTL({}s)", lease_id(response.id), response.ttl)
        }
        Reply::LeaseRevoked(id, _) => writeln!(out, "lease {} revoked", lease_id(*id)),
        Reply::LeaseTimeToLive(response, keys) => time_to_live(out, response, *keys),
        Reply::Leases(response) => {
            writeln!(out, "found {} leases", response.leases.len())?;
            response.leases.iter().try_for_each(|lease| writeln!(out, "{}", lease_id(lease.id)))
        }
        Reply::LeaseKeptAlive(response) => {
            writeln!(out, "lease {} keepalived with TTL({})", lease_id(response.id), response.ttl)
        }
        Reply::Watch(response) => watch(out, response, bytes),
        Reply::Status(answers) => {
            answers.iter().try_for_each(|(endpoint, answer)| status(out, endpoint, answer))
        }
        Reply::Health(healths) => healths.iter().filter(|health| health.error.is_none()).try_for_each(
            |Health { endpoint, took, .. }| {
                writeln!(out, "{endpoint} is healthy: successfully committed proposal: took = {took:?}")
            },
        ),
        Reply::Hashes(answers) => {
            answers.iter().try_for_each(|(endpoint, answer)| writeln!(out, "{endpoint}, {}", answer.hash))
        }
        Reply::Alarms(response) => response.alarms.iter().try_for_each(|each| alarm(out, each)),
        Reply::Access(answer) => access_reply::simple(out, answer),
        Reply::Members(response) => response.members.iter().try_for_each(|each| member(out, each)),
        Reply::MemberAdded(name, response) => member_added(out, name, response),
        Reply::MemberRemoved(id, response) => changed(out, *id, "removed from", response.header),
        Reply::MemberUpdated(id, response) => changed(out, *id, "updated in", response.header),
        Reply::MemberPromoted(id, response) => changed(out, *id, "promoted in", response.header),
        Reply::LeaderMoved { from, to, .. } => {
            writeln!(out, "Leadership transferred from {from:x} to {to:x}")
        }
    }
}

fn range(
    out: &mut impl Write,
    response: &RangeResponse,
    values_only: ValuesOnly,
    bytes: Bytes,
) -> io::Result<()> {
    response.kvs.iter().try_for_each(|kv| {
        if values_only.0 { line(out, &kv.value, bytes) } else { key_value(out, kv, bytes) }
    })
}

fn put(out: &mut impl Write, response: &PutResponse, bytes: Bytes) -> io::Result<()> {
    writeln!(out, "OK")?;
    response.prev_kv.iter().try_for_each(|kv| key_value(out, kv, bytes))
}

fn delete(out: &mut impl Write, response: &DeleteRangeResponse, bytes: Bytes) -> io::Result<()> {
    writeln!(out, "{}", response.deleted)?;
    response.prev_kvs.iter().try_for_each(|kv| key_value(out, kv, bytes))
}

/// An answer may hold transactions, which may hold others. prost refuses to decode more than a hundred levels, so this
/// recursion is bounded.
fn txn(out: &mut impl Write, response: &TxnResponse, bytes: Bytes) -> io::Result<()> {
    writeln!(out, "{}", if response.succeeded { "SUCCESS" } else { "FAILURE" })?;
    for answer in response.responses.iter().filter_map(|answer| answer.response.as_ref()) {
        writeln!(out)?;
        match answer {
            Response::ResponseRange(response) => range(out, response, ValuesOnly(false), bytes)?,
            Response::ResponsePut(response) => put(out, response, bytes)?,
            Response::ResponseDeleteRange(response) => delete(out, response, bytes)?,
            Response::ResponseTxn(response) => txn(out, response, bytes)?,
        }
    }
    Ok(())
}

fn time_to_live(out: &mut impl Write, response: &LeaseTimeToLiveResponse, keys: bool) -> io::Result<()> {
    if response.granted_ttl == 0 && response.ttl == -1 {
        return writeln!(out, "lease {} already expired", lease_id(response.id));
    }
    write!(
        out,
        "lease {} granted with TTL({}s), remaining({}s)",
        lease_id(response.id),
        response.granted_ttl,
        response.ttl
    )?;
    if keys {
        out.write_all(b", attached keys([")?;
        for (place, key) in response.keys.iter().enumerate() {
            out.write_all(if place == 0 { b"" } else { b" " })?;
            out.write_all(key)?;
        }
        out.write_all(b"])")?;
    }
    out.write_all(b"\n")
}

fn watch(out: &mut impl Write, response: &WatchResponse, bytes: Bytes) -> io::Result<()> {
    for event in &response.events {
        writeln!(out, "{}", event.r#type().as_str_name())?;
        event.prev_kv.iter().chain(&event.kv).try_for_each(|kv| key_value(out, kv, bytes))?;
    }
    Ok(())
}

/// As Go prints the message: what is zero is left out, and every field is followed by a space.
fn alarm(out: &mut impl Write, alarm: &AlarmMember) -> io::Result<()> {
    if alarm.member_id != 0 {
        write!(out, "memberID:{} ", alarm.member_id)?;
    }
    if alarm.alarm != 0 {
        write!(out, "alarm:{} ", alarm_name(alarm.alarm))?;
    }
    writeln!(out)
}

/// The name of an alarm; the number of one that is not known.
pub fn alarm_name(alarm: i32) -> String {
    AlarmType::try_from(alarm).map_or_else(|_| alarm.to_string(), |alarm| alarm.as_str_name().to_owned())
}

fn member(out: &mut impl Write, member: &Member) -> io::Result<()> {
    writeln!(out, "{}", member_columns(member).join(", "))
}

/// What is told of a member. One that has not started has no name yet.
pub fn member_columns(member: &Member) -> [String; 6] {
    let Member { id, name, peer_urls, client_urls, is_learner } = member;
    let state = if name.is_empty() { "unstarted" } else { "started" };
    [
        format!("{id:x}"),
        state.to_owned(),
        name.clone(),
        peer_urls.join(","),
        client_urls.join(","),
        is_learner.to_string(),
    ]
}

/// What the new node has to be started with, as etcd's variables, which `serve` reads, too.
fn member_added(out: &mut impl Write, name: &str, response: &MemberAddResponse) -> io::Result<()> {
    let added = response.member.clone().unwrap_or_default();
    let how = if added.is_learner { "added as learner to" } else { "added to" };
    changed(out, added.id, how, response.header)?;
    let named = |member: &Member| {
        let name = if member.id == added.id { name } else { &member.name };
        member.peer_urls.iter().map(|url| format!("{name}={url}")).collect::<Vec<_>>()
    };
    let cluster: Vec<String> = response.members.iter().flat_map(named).collect();
    writeln!(out, "\nETCD_NAME={}", quote(name.as_bytes()))?;
    writeln!(out, "ETCD_INITIAL_CLUSTER={}", quote(cluster.join(",").as_bytes()))?;
    writeln!(out, "ETCD_INITIAL_ADVERTISE_PEER_URLS={}", quote(added.peer_urls.join(",").as_bytes()))?;
    writeln!(out, "ETCD_INITIAL_CLUSTER_STATE=\"existing\"")
}

fn changed(out: &mut impl Write, member: u64, how: &str, header: Option<ResponseHeader>) -> io::Result<()> {
    let cluster = header.map_or(0, |header| header.cluster_id);
    writeln!(out, "Member {member:16x} {how} cluster {cluster:16x}")
}

fn status(out: &mut impl Write, endpoint: &str, answer: &StatusResponse) -> io::Result<()> {
    writeln!(out, "{}", status_columns(endpoint, answer).join(", "))
}

/// The columns of etcdctl 3.6's `endpoint status`.
pub fn status_columns(endpoint: &str, answer: &StatusResponse) -> [String; 16] {
    let member = answer.header.map_or(0, |header| header.member_id);
    let downgrade = answer.downgrade_info.clone().unwrap_or_default();
    [
        endpoint.to_owned(),
        format!("{member:x}"),
        answer.version.clone(),
        answer.storage_version.clone(),
        human_bytes(answer.db_size),
        human_bytes(answer.db_size_in_use),
        format!("{}%", unused_percent(answer)),
        human_bytes(answer.db_size_quota),
        (answer.leader == member).to_string(),
        answer.is_learner.to_string(),
        answer.raft_term.to_string(),
        answer.raft_index.to_string(),
        answer.raft_applied_index.to_string(),
        answer.errors.join(", "),
        downgrade.target_version,
        downgrade.enabled.to_string(),
    ]
}

fn unused_percent(answer: &StatusResponse) -> i64 {
    if answer.db_size <= 0 { 0 } else { 100 - answer.db_size_in_use.saturating_mul(100) / answer.db_size }
}

/// Bytes in powers of a thousand, with one digit behind the point below ten: `8.8 MB`, `22 MB`.
pub fn human_bytes(bytes: i64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let bytes = u128::try_from(bytes).unwrap_or(0);
    let mut unit = 0;
    let mut scale = 1;
    while bytes / scale >= 1000 {
        scale *= 1000;
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes} B");
    }
    let tenths = (bytes * 10 + scale / 2) / scale;
    if tenths < 100 {
        format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
    } else {
        // Halves go to the even side, as Go prints them.
        format!("{} {}", (tenths + 4 + tenths / 10 % 2) / 10, UNITS[unit])
    }
}

/// A lease as Go prints it in hexadecimal with sixteen places: the sign takes one.
pub fn lease_id(id: i64) -> String {
    if id < 0 { format!("-{:015x}", id.unsigned_abs()) } else { format!("{id:016x}") }
}

fn key_value(out: &mut impl Write, kv: &KeyValue, bytes: Bytes) -> io::Result<()> {
    line(out, &kv.key, bytes)?;
    line(out, &kv.value, bytes)
}

fn line(out: &mut impl Write, text: &[u8], bytes: Bytes) -> io::Result<()> {
    match bytes {
        Bytes::Plain => out.write_all(text)?,
        Bytes::Hex => text.iter().try_for_each(|byte| write!(out, "\\x{byte:02x}"))?,
    }
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::human_bytes;

    #[test]
    fn bytes_for_people() {
        for (bytes, text) in [
            (-1, "0 B"),
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (8_800_000, "8.8 MB"),
            (20_480, "20 kB"),
            (2_147_483_648, "2.1 GB"),
            (i64::MAX, "9.2 EB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }
}
