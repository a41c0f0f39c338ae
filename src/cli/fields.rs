//! etcdctl's fields format: a name and a value a line.
//!
//! Owns: its layout. Must never: leave a field out because it is zero.

use std::io::{self, Write};

use super::access_reply;
use super::quote::quote;
use super::reply::Reply;
use super::simple::alarm_name;
use crate::wire::etcdserverpb::response_op::Response;
use crate::wire::etcdserverpb::{
    DeleteRangeResponse, Member, PutResponse, RangeResponse, ResponseHeader, StatusResponse, TxnResponse,
    WatchResponse,
};
use crate::wire::mvccpb::KeyValue;

pub fn write(out: &mut impl Write, reply: &Reply) -> io::Result<()> {
    match reply {
        Reply::Range(response, _) => range(out, response),
        Reply::Put(response) => put(out, response),
        Reply::Delete(response) => delete(out, response),
        Reply::Txn(response) => txn(out, response),
        Reply::Compacted(revision) => writeln!(out, "compacted revision {revision}"),
        Reply::LeaseGranted(response) => {
            header(out, response.header.as_ref())?;
            writeln!(out, "\"ID\" : {}\n\"TTL\" : {}", response.id, response.ttl)
        }
        Reply::LeaseRevoked(_, response) => header(out, response.header.as_ref()),
        Reply::LeaseTimeToLive(response, _) => {
            header(out, response.header.as_ref())?;
            let (id, ttl, granted) = (response.id, response.ttl, response.granted_ttl);
            writeln!(out, "\"ID\" : {id}\n\"TTL\" : {ttl}\n\"GrantedTTL\" : {granted}")?;
            response.keys.iter().try_for_each(|key| writeln!(out, "\"Key\" : {}", quote(key)))
        }
        Reply::Leases(response) => {
            header(out, response.header.as_ref())?;
            response.leases.iter().try_for_each(|lease| writeln!(out, "\"ID\" : {}", lease.id))
        }
        Reply::LeaseKeptAlive(response) => {
            header(out, response.header.as_ref())?;
            writeln!(out, "\"ID\" : {}\n\"TTL\" : {}", response.id, response.ttl)
        }
        Reply::Watch(response) => watch(out, response),
        Reply::Status(answers) => {
            answers.iter().try_for_each(|(endpoint, answer)| status(out, endpoint, answer))
        }
        Reply::Health(healths) => healths.iter().try_for_each(|health| {
            let error = health.error.as_deref().unwrap_or_default();
            writeln!(out, "\"Endpoint\" : {}", quote(health.endpoint.as_bytes()))?;
            writeln!(out, "\"Health\" : {}\n\"Took\" : {:?}", health.error.is_none(), health.took)?;
            writeln!(out, "\"Error\" : {error}\n")
        }),
        Reply::Hashes(answers) => answers.iter().try_for_each(|(endpoint, answer)| {
            header(out, answer.header.as_ref())?;
            writeln!(out, "\"Endpoint\" : {}", quote(endpoint.as_bytes()))?;
            writeln!(out, "\"Hash\" : {}\n", answer.hash)
        }),
        Reply::Alarms(response) => {
            header(out, response.header.as_ref())?;
            response.alarms.iter().try_for_each(|each| {
                writeln!(out, "\"MemberID\" : {}", each.member_id)?;
                writeln!(out, "\"AlarmType\" : {}\n", alarm_name(each.alarm))
            })
        }
        Reply::Access(answer) => access_reply::fields(out, answer, header),
        Reply::Members(response) => {
            header(out, response.header.as_ref())?;
            response.members.iter().try_for_each(|each| member(out, each))
        }
        // etcdctl has no fields for these: it changes the members and then says so.
        Reply::MemberAdded(_, response) => {
            header(out, response.header.as_ref())?;
            response.member.iter().try_for_each(|each| member(out, each))
        }
        Reply::MemberRemoved(_, response) => header(out, response.header.as_ref()),
        Reply::MemberUpdated(_, response) => header(out, response.header.as_ref()),
        Reply::MemberPromoted(_, response) => header(out, response.header.as_ref()),
        Reply::LeaderMoved { response, .. } => header(out, response.header.as_ref()),
    }
}

fn range(out: &mut impl Write, response: &RangeResponse) -> io::Result<()> {
    header(out, response.header.as_ref())?;
    response.kvs.iter().try_for_each(|kv| key_value(out, "", kv))?;
    writeln!(out, "\"More\" : {}\n\"Count\" : {}", response.more, response.count)
}

fn put(out: &mut impl Write, response: &PutResponse) -> io::Result<()> {
    header(out, response.header.as_ref())?;
    response.prev_kv.iter().try_for_each(|kv| key_value(out, "Prev", kv))
}

fn delete(out: &mut impl Write, response: &DeleteRangeResponse) -> io::Result<()> {
    header(out, response.header.as_ref())?;
    writeln!(out, "\"Deleted\" : {}", response.deleted)?;
    response.prev_kvs.iter().try_for_each(|kv| key_value(out, "Prev", kv))
}

/// As deep as prost decodes: a hundred levels.
fn txn(out: &mut impl Write, response: &TxnResponse) -> io::Result<()> {
    header(out, response.header.as_ref())?;
    writeln!(out, "\"Succeeded\" : {}", response.succeeded)?;
    for answer in response.responses.iter().filter_map(|answer| answer.response.as_ref()) {
        match answer {
            Response::ResponseRange(response) => range(out, response)?,
            Response::ResponsePut(response) => put(out, response)?,
            Response::ResponseDeleteRange(response) => delete(out, response)?,
            Response::ResponseTxn(response) => txn(out, response)?,
        }
    }
    Ok(())
}

fn watch(out: &mut impl Write, response: &WatchResponse) -> io::Result<()> {
    header(out, response.header.as_ref())?;
    for event in &response.events {
        writeln!(out, "\"Type\" : {}", event.r#type().as_str_name())?;
        event.prev_kv.iter().try_for_each(|kv| key_value(out, "Prev", kv))?;
        event.kv.iter().try_for_each(|kv| key_value(out, "", kv))?;
    }
    Ok(())
}

fn status(out: &mut impl Write, endpoint: &str, answer: &StatusResponse) -> io::Result<()> {
    header(out, answer.header.as_ref())?;
    let downgrade = answer.downgrade_info.clone().unwrap_or_default();
    writeln!(out, "\"Version\" : {}", quote(answer.version.as_bytes()))?;
    writeln!(out, "\"StorageVersion\" : {}", quote(answer.storage_version.as_bytes()))?;
    writeln!(out, "\"DBSize\" : {}", answer.db_size)?;
    writeln!(out, "\"DBSizeInUse\" : {}", answer.db_size_in_use)?;
    writeln!(out, "\"DBSizeQuota\" : {}", answer.db_size_quota)?;
    writeln!(out, "\"Leader\" : {}", answer.leader)?;
    writeln!(out, "\"IsLearner\" : {}", answer.is_learner)?;
    writeln!(out, "\"RaftIndex\" : {}", answer.raft_index)?;
    writeln!(out, "\"RaftTerm\" : {}", answer.raft_term)?;
    writeln!(out, "\"RaftAppliedIndex\" : {}", answer.raft_applied_index)?;
    writeln!(out, "\"Errors\" : [{}]", answer.errors.join(" "))?;
    writeln!(out, "\"Endpoint\" : {}", quote(endpoint.as_bytes()))?;
    writeln!(out, "\"DowngradeTargetVersion\" : {}", quote(downgrade.target_version.as_bytes()))?;
    writeln!(out, "\"DowngradeEnabled\" : {}\n", downgrade.enabled)
}

fn member(out: &mut impl Write, member: &Member) -> io::Result<()> {
    writeln!(out, "\"ID\" : {}", member.id)?;
    writeln!(out, "\"Name\" : {}", quote(member.name.as_bytes()))?;
    member.peer_urls.iter().try_for_each(|url| writeln!(out, "\"PeerURL\" : {}", quote(url.as_bytes())))?;
    member
        .client_urls
        .iter()
        .try_for_each(|url| writeln!(out, "\"ClientURL\" : {}", quote(url.as_bytes())))?;
    writeln!(out, "\"IsLearner\" : {}\n", member.is_learner)
}

fn header(out: &mut impl Write, header: Option<&ResponseHeader>) -> io::Result<()> {
    let header = header.copied().unwrap_or_default();
    writeln!(out, "\"ClusterID\" : {}", header.cluster_id)?;
    writeln!(out, "\"MemberID\" : {}", header.member_id)?;
    writeln!(out, "\"Revision\" : {}", header.revision)?;
    writeln!(out, "\"RaftTerm\" : {}", header.raft_term)
}

fn key_value(out: &mut impl Write, prefix: &str, kv: &KeyValue) -> io::Result<()> {
    writeln!(out, "\"{prefix}Key\" : {}", quote(&kv.key))?;
    writeln!(out, "\"{prefix}CreateRevision\" : {}", kv.create_revision)?;
    writeln!(out, "\"{prefix}ModRevision\" : {}", kv.mod_revision)?;
    writeln!(out, "\"{prefix}Version\" : {}", kv.version)?;
    writeln!(out, "\"{prefix}Value\" : {}", quote(&kv.value))?;
    writeln!(out, "\"{prefix}Lease\" : {}", kv.lease)
}
