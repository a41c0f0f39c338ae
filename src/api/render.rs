//! From results to messages on the wire.
//!
//! Owns: the shape of answers, inner headers of transactions included (API reference, sections 0.1, 0.2 and 1.6). Must never: decide what
//! an answer is. Driven by the services.

use bytes::Bytes;

use crate::command::{
    Alarm, AlarmKind, DeleteResult, KeyRange, KeyValue, OpResult, Permission, PutResult, RangeResult,
    TxnResult,
};
use crate::ids::Revision;
use crate::mvcc::Facts;
use crate::store::Member;
use crate::wire::{authpb, etcdserverpb as pb, mvccpb};
use pb::response_op::Response;

/// A key-value pair.
pub fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision.0,
        mod_revision: kv.mod_revision.0,
        version: kv.version,
        value: kv.value,
        lease: kv.lease.0,
    }
}

fn key_values(kvs: Vec<KeyValue>) -> Vec<mvccpb::KeyValue> {
    kvs.into_iter().map(key_value).collect()
}

/// What a role may do with an interval.
pub fn permission(permission: &Permission) -> authpb::Permission {
    let KeyRange { start, .. } = &permission.range;
    let range_end = permission.range.wire_end();
    authpb::Permission { perm_type: permission.kind as i32, key: start.clone(), range_end }
}

/// What root may do.
pub fn everything() -> authpb::Permission {
    let perm_type = authpb::permission::Type::Readwrite.into();
    authpb::Permission { perm_type, key: Bytes::new(), range_end: Bytes::from_static(b"\0") }
}

/// The answer to a range.
pub fn range(header: pb::ResponseHeader, result: RangeResult) -> pb::RangeResponse {
    pb::RangeResponse {
        header: Some(header),
        kvs: key_values(result.kvs),
        more: result.more,
        count: result.count,
    }
}

/// A part of the answer to a streamed range; the last one is made by [`range`].
pub fn range_chunk(kvs: Vec<KeyValue>) -> pb::RangeResponse {
    pb::RangeResponse { kvs: key_values(kvs), ..pb::RangeResponse::default() }
}

/// The answer to a put.
pub fn put(header: pb::ResponseHeader, result: PutResult) -> pb::PutResponse {
    pb::PutResponse { header: Some(header), prev_kv: result.previous.map(key_value) }
}

/// The answer to a deletion.
pub fn delete_range(header: pb::ResponseHeader, result: DeleteResult) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header: Some(header),
        deleted: result.deleted,
        prev_kvs: key_values(result.previous),
    }
}

/// The answer to a transaction.
pub fn txn(header: pb::ResponseHeader, result: TxnResult) -> pb::TxnResponse {
    let responses = result.responses.into_iter().map(|(revision, result)| response_op(revision, result));
    pb::TxnResponse { header: Some(header), succeeded: result.succeeded, responses: responses.collect() }
}

/// One operation's answer. Its header has the revision alone, and that of a nested transaction not even that.
fn response_op(revision: Revision, result: OpResult) -> pb::ResponseOp {
    let header = pb::ResponseHeader { revision: revision.0, ..pb::ResponseHeader::default() };
    let response = match result {
        OpResult::Range(result) => Response::ResponseRange(range(header, result)),
        OpResult::Put(result) => Response::ResponsePut(put(header, result)),
        OpResult::DeleteRange(result) => Response::ResponseDeleteRange(delete_range(header, result)),
        OpResult::Txn(result) => Response::ResponseTxn(txn(pb::ResponseHeader::default(), result)),
    };
    pb::ResponseOp { response: Some(response) }
}

/// An alarm.
pub fn alarm(alarm: &Alarm) -> pb::AlarmMember {
    let kind = match alarm.kind {
        AlarmKind::NoSpace => pb::AlarmType::Nospace,
        AlarmKind::Corrupt => pb::AlarmType::Corrupt,
    };
    pb::AlarmMember { member_id: alarm.member.0, alarm: kind.into() }
}

/// An alarm's name on the wire.
pub fn alarm_name(kind: AlarmKind) -> &'static str {
    match kind {
        AlarmKind::NoSpace => "NOSPACE",
        AlarmKind::Corrupt => "CORRUPT",
    }
}

/// The members of the cluster, with a name and client URLs where they have said them. One that is to vote is shown as a voter also while it
/// catches up: etcd's clients wait for what they asked for.
pub fn members(facts: &Facts) -> Vec<pb::Member> {
    let one = |member: &Member| {
        let said = member.attributes.clone();
        pb::Member {
            id: said.member.0,
            name: said.name,
            peer_urls: said.peer_urls,
            client_urls: said.client_urls,
            is_learner: !member.votes,
        }
    };
    facts.members.iter().map(one).collect()
}

#[cfg(test)]
#[path = "render_test.rs"]
mod tests;
