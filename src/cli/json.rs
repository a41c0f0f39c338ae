//! etcdctl's JSON: the messages as Go's encoder prints them.
//!
//! Owns: the shape: proto names, numbers as numbers, bytes as base64, zeros left out. It is *not* the JSON of the HTTP
//! gateway, whose 64-bit numbers are strings. Must never: reorder fields: scripts compare whole lines.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::access::Answer;
use super::reply::{self, Reply};
use crate::wire::authpb;
use crate::wire::etcdserverpb as pb;
use crate::wire::etcdserverpb::response_op;
use crate::wire::mvccpb;

pub fn write(out: &mut impl Write, reply: &Reply) -> io::Result<()> {
    match reply {
        Reply::Range(response, _) => object(out, &Range::of(response)),
        Reply::Put(response) => object(out, &Put::of(response)),
        Reply::Delete(response) => object(out, &Delete::of(response)),
        Reply::Txn(response) => object(out, &Txn::of(response)),
        Reply::Compacted(revision) => writeln!(out, "compacted revision {revision}"),
        Reply::LeaseGranted(response) => object(
            out,
            &Granted {
                header: header(response.header).unwrap_or_default(),
                id: response.id,
                ttl: response.ttl,
                error: &response.error,
            },
        ),
        Reply::LeaseRevoked(_, response) => object(out, &Empty { header: header(response.header) }),
        Reply::LeaseTimeToLive(response, _) => object(out, &TimeToLive::of(response)),
        Reply::Leases(response) => object(
            out,
            &Leases {
                header: header(response.header).unwrap_or_default(),
                leases: response.leases.iter().map(|lease| LeaseId { id: lease.id }).collect(),
            },
        ),
        Reply::LeaseKeptAlive(response) => object(
            out,
            &KeptAlive {
                header: header(response.header).unwrap_or_default(),
                id: response.id,
                ttl: response.ttl,
            },
        ),
        Reply::Watch(response) => object(out, &Watch::of(response)),
        Reply::Status(answers) => object(
            out,
            &answers.iter().map(|(endpoint, answer)| Status::of(endpoint, answer)).collect::<Vec<_>>(),
        ),
        Reply::Health(healths) => object(out, &healths.iter().map(Health::of).collect::<Vec<_>>()),
        Reply::Hashes(answers) => object(
            out,
            &answers.iter().map(|(endpoint, answer)| Hash::of(endpoint, answer)).collect::<Vec<_>>(),
        ),
        Reply::Alarms(response) => {
            let alarm = |alarm: &pb::AlarmMember| Alarm { member_id: alarm.member_id, alarm: alarm.alarm };
            let alarms = response.alarms.iter().map(alarm).collect();
            object(out, &Alarms { header: header(response.header), alarms })
        }
        Reply::Access(answer) => access(out, answer),
        Reply::Members(response) => object(out, &Members::of(response.header, &response.members)),
        Reply::MemberAdded(_, response) => object(
            out,
            &Added {
                header: header(response.header),
                member: response.member.as_ref().map(Member::of),
                members: response.members.iter().map(Member::of).collect(),
            },
        ),
        Reply::MemberRemoved(_, response) => object(out, &Members::of(response.header, &response.members)),
        Reply::MemberUpdated(_, response) => object(out, &Members::of(response.header, &response.members)),
        Reply::MemberPromoted(_, response) => object(out, &Members::of(response.header, &response.members)),
        Reply::LeaderMoved { response, .. } => object(out, &Empty { header: header(response.header) }),
    }
}

fn access(out: &mut impl Write, answer: &Answer) -> io::Result<()> {
    match answer {
        Answer::Said(said) => writeln!(out, "{said}"),
        Answer::Done(_, response) => object(out, &Empty { header: header(*response) }),
        Answer::Status(response) => {
            let pb::AuthStatusResponse { enabled, auth_revision, .. } = *response;
            object(out, &AuthStatus { header: header(response.header), enabled, auth_revision })
        }
        Answer::User(_, response) => {
            object(out, &User { header: header(response.header), roles: response.roles.clone() })
        }
        Answer::Users(response) => {
            object(out, &Users { header: header(response.header), users: response.users.clone() })
        }
        Answer::Roles(response) => {
            object(out, &User { header: header(response.header), roles: response.roles.clone() })
        }
        Answer::Role(_, response) => object(out, &Role::of(response)),
        // As etcdctl does, though it is no object.
        Answer::Detail(name, roles) => {
            writeln!(out, "User: {name}")?;
            roles.iter().try_for_each(|(_, response)| {
                writeln!(out)?;
                object(out, &Role::of(response))
            })
        }
    }
}

fn object(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Declares a JSON object: each field is left out when it is its type's default.
macro_rules! object {
    ($(#[$doc:meta])* $name:ident { $($field:ident : $type:ty $(as $wire:literal)?),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Default, PartialEq, Serialize)]
        struct $name {
            $(#[serde(skip_serializing_if = "is_default" $(, rename = $wire)?)] $field: $type,)+
        }
    };
}

object!(Header { cluster_id: u64, member_id: u64, revision: i64, raft_term: u64 });
object!(Kv { key: String, create_revision: i64, mod_revision: i64, version: i64, value: String, lease: i64 });
object!(Range { header: Option<Header>, kvs: Vec<Kv>, more: bool, count: i64 });
object!(Put { header: Option<Header>, prev_kv: Option<Kv> });
object!(Delete { header: Option<Header>, deleted: i64, prev_kvs: Vec<Kv> });
object!(Txn { header: Option<Header>, succeeded: bool, responses: Vec<Op> });
object!(
    /// Go wraps the oneof in a field of its own name.
    Op { response: Option<OneOf> as "Response" }
);
object!(OneOf {
    range: Option<Range> as "response_range",
    put: Option<Put> as "response_put",
    delete_range: Option<Delete> as "response_delete_range",
    txn: Option<Txn> as "response_txn",
});
object!(Status { endpoint: String as "Endpoint", status: StatusBody as "Status" });
object!(StatusBody {
    header: Option<Header>,
    version: String,
    db_size: i64 as "dbSize",
    leader: u64,
    raft_index: u64 as "raftIndex",
    raft_term: u64 as "raftTerm",
    raft_applied_index: u64 as "raftAppliedIndex",
    errors: Vec<String>,
    db_size_in_use: i64 as "dbSizeInUse",
    is_learner: bool as "isLearner",
    storage_version: String as "storageVersion",
    db_size_quota: i64 as "dbSizeQuota",
    downgrade_info: Option<Downgrade> as "downgradeInfo",
});
object!(Downgrade { enabled: bool, target_version: String as "targetVersion" });

object!(Hash { endpoint: String as "Endpoint", hash: HashBody as "HashKV" });
object!(HashBody { header: Option<Header>, hash: u32, compact_revision: i64, hash_revision: i64 });
object!(Alarms { header: Option<Header>, alarms: Vec<Alarm> });
object!(Alarm { member_id: u64 as "memberID", alarm: i32 });
object!(AuthStatus { header: Option<Header>, enabled: bool, auth_revision: u64 as "authRevision" });
object!(User { header: Option<Header>, roles: Vec<String> });
object!(Users { header: Option<Header>, users: Vec<String> });
object!(Role { header: Option<Header>, perm: Vec<Permission> });
object!(Permission { kind: i32 as "permType", key: String, range_end: String });
object!(
    /// An answer that says nothing but who gave it.
    Empty { header: Option<Header> }
);
object!(Member {
    id: u64 as "ID",
    name: String,
    peer_urls: Vec<String> as "peerURLs",
    client_urls: Vec<String> as "clientURLs",
    is_learner: bool as "isLearner",
});
object!(Members { header: Option<Header>, members: Vec<Member> });
object!(Added { header: Option<Header>, member: Option<Member>, members: Vec<Member> });
object!(Event { kind: i32 as "type", kv: Option<Kv>, prev_kv: Option<Kv> });

/// Leases and watches go through types of Go's client, whose fields are there when they are zero, too.
#[derive(Serialize)]
struct Granted<'a> {
    #[serde(flatten)]
    header: Header,
    #[serde(rename = "ID")]
    id: i64,
    #[serde(rename = "TTL")]
    ttl: i64,
    #[serde(rename = "Error")]
    error: &'a str,
}

#[derive(Serialize)]
struct KeptAlive {
    #[serde(flatten)]
    header: Header,
    #[serde(rename = "ID")]
    id: i64,
    #[serde(rename = "TTL")]
    ttl: i64,
}

#[derive(Serialize)]
struct TimeToLive {
    #[serde(flatten)]
    header: Header,
    id: i64,
    ttl: i64,
    #[serde(rename = "granted-ttl")]
    granted_ttl: i64,
    /// Go's empty list is null.
    keys: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Leases {
    #[serde(flatten)]
    header: Header,
    leases: Vec<LeaseId>,
}

#[derive(Serialize)]
struct LeaseId {
    id: i64,
}

#[derive(Serialize)]
struct Health<'a> {
    endpoint: &'a str,
    #[serde(rename = "health")]
    is_well: bool,
    took: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl<'a> Health<'a> {
    fn of(health: &'a reply::Health) -> Self {
        Self {
            endpoint: &health.endpoint,
            is_well: health.error.is_none(),
            took: format!("{:?}", health.took),
            error: health.error.as_deref(),
        }
    }
}

impl Role {
    fn of(response: &pb::AuthRoleGetResponse) -> Self {
        let permission = |perm: &authpb::Permission| Permission {
            kind: perm.perm_type,
            key: STANDARD.encode(&perm.key),
            range_end: STANDARD.encode(&perm.range_end),
        };
        Self { header: header(response.header), perm: response.perm.iter().map(permission).collect() }
    }
}

impl Hash {
    fn of(endpoint: &str, answer: &pb::HashKvResponse) -> Self {
        let hash = HashBody {
            header: header(answer.header),
            hash: answer.hash,
            compact_revision: answer.compact_revision,
            hash_revision: answer.hash_revision,
        };
        Self { endpoint: endpoint.to_owned(), hash }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Watch {
    header: Header,
    events: Vec<Event>,
    compact_revision: i64,
    canceled: bool,
    created: bool,
}

impl TimeToLive {
    fn of(response: &pb::LeaseTimeToLiveResponse) -> Self {
        let keys: Vec<String> = response.keys.iter().map(|key| STANDARD.encode(key)).collect();
        Self {
            header: header(response.header).unwrap_or_default(),
            id: response.id,
            ttl: response.ttl,
            granted_ttl: response.granted_ttl,
            keys: Some(keys).filter(|keys| !keys.is_empty()),
        }
    }
}

impl Watch {
    fn of(response: &pb::WatchResponse) -> Self {
        let event = |event: &mvccpb::Event| Event {
            kind: event.r#type,
            kv: event.kv.as_ref().map(Kv::of),
            prev_kv: event.prev_kv.as_ref().map(Kv::of),
        };
        Self {
            header: header(response.header).unwrap_or_default(),
            events: response.events.iter().map(event).collect(),
            compact_revision: response.compact_revision,
            canceled: response.canceled,
            created: response.created,
        }
    }
}

impl Member {
    fn of(member: &pb::Member) -> Self {
        let pb::Member { id, name, peer_urls, client_urls, is_learner } = member.clone();
        Self { id, name, peer_urls, client_urls, is_learner }
    }
}

impl Members {
    fn of(from: Option<pb::ResponseHeader>, members: &[pb::Member]) -> Self {
        Self { header: header(from), members: members.iter().map(Member::of).collect() }
    }
}

fn header(header: Option<pb::ResponseHeader>) -> Option<Header> {
    let pb::ResponseHeader { cluster_id, member_id, revision, raft_term } = header?;
    Some(Header { cluster_id, member_id, revision, raft_term })
}

impl Kv {
    fn of(kv: &mvccpb::KeyValue) -> Self {
        Self {
            key: STANDARD.encode(&kv.key),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            value: STANDARD.encode(&kv.value),
            lease: kv.lease,
        }
    }
}

impl Range {
    fn of(response: &pb::RangeResponse) -> Self {
        Self {
            header: header(response.header),
            kvs: response.kvs.iter().map(Kv::of).collect(),
            more: response.more,
            count: response.count,
        }
    }
}

impl Put {
    fn of(response: &pb::PutResponse) -> Self {
        Self { header: header(response.header), prev_kv: response.prev_kv.as_ref().map(Kv::of) }
    }
}

impl Delete {
    fn of(response: &pb::DeleteRangeResponse) -> Self {
        Self {
            header: header(response.header),
            deleted: response.deleted,
            prev_kvs: response.prev_kvs.iter().map(Kv::of).collect(),
        }
    }
}

impl Txn {
    /// As deep as prost decodes: a hundred levels.
    fn of(response: &pb::TxnResponse) -> Self {
        Self {
            header: header(response.header),
            succeeded: response.succeeded,
            responses: response.responses.iter().map(Op::of).collect(),
        }
    }
}

impl Op {
    fn of(answer: &pb::ResponseOp) -> Self {
        let response = answer.response.as_ref().map(|response| match response {
            response_op::Response::ResponseRange(response) => {
                OneOf { range: Some(Range::of(response)), ..OneOf::default() }
            }
            response_op::Response::ResponsePut(response) => {
                OneOf { put: Some(Put::of(response)), ..OneOf::default() }
            }
            response_op::Response::ResponseDeleteRange(response) => {
                OneOf { delete_range: Some(Delete::of(response)), ..OneOf::default() }
            }
            response_op::Response::ResponseTxn(response) => {
                OneOf { txn: Some(Txn::of(response)), ..OneOf::default() }
            }
        });
        Self { response }
    }
}

impl Status {
    fn of(endpoint: &str, answer: &pb::StatusResponse) -> Self {
        let downgrade = answer.downgrade_info.as_ref();
        let status = StatusBody {
            header: header(answer.header),
            version: answer.version.clone(),
            db_size: answer.db_size,
            leader: answer.leader,
            raft_index: answer.raft_index,
            raft_term: answer.raft_term,
            raft_applied_index: answer.raft_applied_index,
            errors: answer.errors.clone(),
            db_size_in_use: answer.db_size_in_use,
            is_learner: answer.is_learner,
            storage_version: answer.storage_version.clone(),
            db_size_quota: answer.db_size_quota,
            downgrade_info: downgrade.map(|downgrade| Downgrade {
                enabled: downgrade.enabled,
                target_version: downgrade.target_version.clone(),
            }),
        };
        Self { endpoint: endpoint.to_owned(), status }
    }
}
