//! One call of each method, and what everybody is told by whom.
//!
//! Owns: the table. Must never: ask anybody. The tests of clusters read it, too.

use covey::wire::authpb::Permission;
use covey::wire::{etcdserverpb as pb, v3electionpb, v3lockpb};
use tonic::Code;

use super::asking::{NOTHING, OK, message};

/// A lease with a key below `k/`.
pub const LEASE: i64 = 77;

fn key() -> bytes::Bytes {
    "k/1".into()
}

/// A method, a message for it, what everybody is told, and what whoever was let in is answered.
///
/// Who calls, in this order: nobody, with a token that is none, with one that has ended, a user without a role, one that may read what the call is about, one that may write it, the user that a certificate names
/// (who may do both), and root. Then what a member tells root that learns and has not caught up: that, or what a voter tells everybody. Then what one tells that has a vote and no leader: nobody, a token that is none,
/// a user without a role, the two that may read and write, and root.
pub type Row = (&'static str, Vec<u8>, &'static str, (Code, &'static str));

/// One call of each method. What changes something comes last, and is called so that it does not change who may do what.
pub fn table() -> Vec<Row> {
    [
        keys(),
        leases(),
        cluster(),
        maintenance(),
        contests(),
        last_of_leases(),
        others(),
        admin(),
        users(),
        roles(),
        last(),
    ]
    .concat()
}

fn keys() -> Vec<Row> {
    let range = || pb::RangeRequest { key: key(), ..Default::default() };
    let serializable = pb::RangeRequest { serializable: true, ..range() };
    let put = || pb::PutRequest { key: key(), ..Default::default() };
    let reads_before = pb::PutRequest { prev_kv: true, ..put() };
    let delete = || pb::DeleteRangeRequest { key: key(), ..Default::default() };
    let deletes_before = pb::DeleteRangeRequest { prev_kv: true, ..delete() };
    let all = pb::RangeRequest { key: "k/".into(), range_end: "k0".into(), ..Default::default() };
    let beyond = pb::RangeRequest { key: "k/".into(), range_end: "k1".into(), ..Default::default() };
    let op = |request| pb::RequestOp { request: Some(request) };
    let reads = || op(pb::request_op::Request::RequestRange(range()));
    let writes = || op(pb::request_op::Request::RequestPut(put()));
    let compare = || pb::Compare { key: key(), ..Default::default() };
    let if_read = pb::TxnRequest { compare: vec![compare()], success: vec![writes()], failure: vec![] };
    let else_writes = pb::TxnRequest { compare: vec![], success: vec![reads()], failure: vec![writes()] };
    let read_only = pb::TxnRequest { compare: vec![], success: vec![reads()], failure: vec![] };
    let inner = pb::TxnRequest { compare: vec![], success: vec![], failure: vec![writes()] };
    let nested = op(pb::request_op::Request::RequestTxn(inner));
    let nested = pb::TxnRequest { compare: vec![], success: vec![nested], failure: vec![] };
    let inner = pb::TxnRequest {
        success: vec![op(pb::request_op::Request::RequestPut(pb::PutRequest { prev_kv: true, ..put() }))],
        ..pb::TxnRequest::default()
    };
    let nested_before = pb::TxnRequest {
        failure: vec![op(pb::request_op::Request::RequestTxn(inner))],
        ..pb::TxnRequest::default()
    };
    let nothing = op(pb::request_op::Request::RequestTxn(pb::TxnRequest::default()));
    let nothing = pb::TxnRequest { compare: vec![], success: vec![nothing], failure: vec![] };
    vec![
        ("etcdserverpb.KV/Range", message(range()), "ettd.d.. l oooooo", OK),
        ("etcdserverpb.KV/Range", message(serializable), "ettd.d.. . etd.d.", OK),
        ("etcdserverpb.KV/Range", message(all), "ettd.d.. l oooooo", OK),
        ("etcdserverpb.KV/Range", message(beyond), "ettdddd. l oooooo", OK),
        ("etcdserverpb.KV/RangeStream", message(range()), "ettd.d.. l oooooo", OK),
        ("etcdserverpb.KV/Put", message(put()), "ettdd... l etddnn", OK),
        ("etcdserverpb.KV/Put", message(reads_before), "ettddd.. l etdddn", OK),
        ("etcdserverpb.KV/DeleteRange", message(delete()), "ettdd... l etddnn", OK),
        ("etcdserverpb.KV/DeleteRange", message(deletes_before), "ettddd.. l etdddn", OK),
        ("etcdserverpb.KV/Txn", message(if_read), "ettddd.. l etdddn", OK),
        ("etcdserverpb.KV/Txn", message(else_writes), "ettddd.. l etdddn", OK),
        ("etcdserverpb.KV/Txn", message(read_only), "ettd.d.. l oooooo", OK),
        ("etcdserverpb.KV/Txn", message(nested), "ettdd... l etddnn", OK),
        ("etcdserverpb.KV/Txn", message(nested_before), "ettddd.. l etdddn", OK),
        // Of whoever wants nothing nothing is wanted.
        ("etcdserverpb.KV/Txn", message(pb::TxnRequest::default()), ".tt..... l oooooo", OK),
        ("etcdserverpb.KV/Txn", message(nothing), ".tt..... l oooooo", OK),
        (
            "etcdserverpb.KV/Compact",
            message(pb::CompactionRequest { revision: 1, physical: false }),
            "ettdddd. l etdddn",
            OK,
        ),
    ]
}

fn leases() -> Vec<Row> {
    let watch = |range_end: &'static str| pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(pb::WatchCreateRequest {
            key: "k/".into(),
            range_end: range_end.into(),
            ..Default::default()
        })),
    };
    vec![
        ("etcdserverpb.Watch/Watch", message(pb::WatchRequest::default()), "........ l ......", NOTHING),
        ("etcdserverpb.Watch/Watch", message(watch("k0")), "ettd.d.. l etd.d.", OK),
        ("etcdserverpb.Watch/Watch", message(watch("k1")), "ettdddd. l etddd.", OK),
        ("etcdserverpb.Watch/Watch", message(watch("\0")), "ettdddd. l etddd.", OK),
        (
            "etcdserverpb.Lease/LeaseGrant",
            message(pb::LeaseGrantRequest { ttl: 60, id: 0 }),
            "ett..... l etnnnn",
            OK,
        ),
        (
            "etcdserverpb.Lease/LeaseGrant",
            message(pb::LeaseGrantRequest { ttl: i64::MAX, id: 0 }),
            "ett..... l et....",
            (Code::OutOfRange, "etcdserver: too large lease TTL"),
        ),
        (
            "etcdserverpb.Lease/LeaseKeepAlive",
            message(pb::LeaseKeepAliveRequest { id: LEASE }),
            "ettdd... l etddoo",
            OK,
        ),
        (
            "etcdserverpb.Lease/LeaseTimeToLive",
            message(pb::LeaseTimeToLiveRequest { id: LEASE, keys: true }),
            "ettd.d.. l etoooo",
            OK,
        ),
        (
            "etcdserverpb.Lease/LeaseTimeToLive",
            message(pb::LeaseTimeToLiveRequest { id: LEASE, keys: false }),
            "ett..... l etoooo",
            OK,
        ),
        ("etcdserverpb.Lease/LeaseLeases", message(pb::LeaseLeasesRequest {}), "ettd.d.. l etoooo", OK),
    ]
}

fn cluster() -> Vec<Row> {
    vec![
        (
            "etcdserverpb.Cluster/MemberList",
            message(pb::MemberListRequest { linearizable: true }),
            "ett..... l etoooo",
            OK,
        ),
        (
            "etcdserverpb.Cluster/MemberAdd",
            message(pb::MemberAddRequest::default()),
            "ettdddd. l etddd.",
            (Code::InvalidArgument, "etcdserver: given member URLs are invalid"),
        ),
        (
            "etcdserverpb.Cluster/MemberRemove",
            message(pb::MemberRemoveRequest { id: 99 }),
            "ettdddd. l etdddn",
            (Code::NotFound, "etcdserver: member not found"),
        ),
        (
            "etcdserverpb.Cluster/MemberUpdate",
            message(pb::MemberUpdateRequest::default()),
            "ettdddd. l etddd.",
            (Code::InvalidArgument, "etcdserver: given member URLs are invalid"),
        ),
        (
            "etcdserverpb.Cluster/MemberPromote",
            message(pb::MemberPromoteRequest { id: 99 }),
            "ettdddd. l etddd.",
            (Code::Unknown, "etcdserver: re-configuration failed due to not enough started members"),
        ),
    ]
}

fn maintenance() -> Vec<Row> {
    let alarm = |action: pb::alarm_request::AlarmAction| pb::AlarmRequest {
        action: action.into(),
        member_id: 99,
        alarm: pb::AlarmType::Nospace.into(),
    };
    vec![
        ("etcdserverpb.Maintenance/Status", message(pb::StatusRequest {}), "ett..... . et....", OK),
        (
            "etcdserverpb.Maintenance/Alarm",
            message(alarm(pb::alarm_request::AlarmAction::Get)),
            "ett..... l oooooo",
            OK,
        ),
        (
            "etcdserverpb.Maintenance/Alarm",
            message(alarm(pb::alarm_request::AlarmAction::Deactivate)),
            "ettdddd. l etdddn",
            OK,
        ),
        (
            "etcdserverpb.Maintenance/Alarm",
            message(pb::AlarmRequest { action: 9, ..Default::default() }),
            "ettdddd. l etddd.",
            OK,
        ),
        ("etcdserverpb.Maintenance/Defragment", message(pb::DefragmentRequest {}), "ettdddd. l etddd.", OK),
        ("etcdserverpb.Maintenance/Hash", message(pb::HashRequest {}), "ettdddd. l etddd.", OK),
        (
            "etcdserverpb.Maintenance/HashKV",
            message(pb::HashKvRequest { revision: 0 }),
            "ettdddd. l etddd.",
            OK,
        ),
        ("etcdserverpb.Maintenance/Snapshot", message(pb::SnapshotRequest {}), "ettdddd. . etddd.", OK),
        (
            "etcdserverpb.Maintenance/MoveLeader",
            message(pb::MoveLeaderRequest { target_id: 99 }),
            "ettdddd. l etdddm",
            (Code::FailedPrecondition, "etcdserver: bad leader transferee"),
        ),
        (
            "etcdserverpb.Maintenance/Downgrade",
            message(pb::DowngradeRequest::default()),
            "ettdddd. l etddd.",
            (Code::InvalidArgument, "etcdserver: wrong downgrade target version format"),
        ),
    ]
}

fn contests() -> Vec<Row> {
    let leader = Some(v3electionpb::LeaderKey { name: "k/n".into(), key: key(), rev: 1, lease: LEASE });
    vec![
        (
            "v3lockpb.Lock/Lock",
            message(v3lockpb::LockRequest { name: "k/n".into(), lease: LEASE }),
            "ettddd.. l etdddn",
            OK,
        ),
        ("v3lockpb.Lock/Unlock", message(v3lockpb::UnlockRequest { key: key() }), "ettdd... l etddnn", OK),
        (
            "v3electionpb.Election/Leader",
            message(v3electionpb::LeaderRequest { name: "k/n".into() }),
            "ettd.d.. l oooooo",
            OK,
        ),
        (
            "v3electionpb.Election/Observe",
            message(v3electionpb::LeaderRequest { name: "k/n".into() }),
            "ettd.d.. l oooooo",
            OK,
        ),
        (
            "v3electionpb.Election/Proclaim",
            message(v3electionpb::ProclaimRequest { leader: leader.clone(), value: bytes::Bytes::new() }),
            "ettddd.. l etdddn",
            (Code::Unknown, "election: not leader"),
        ),
        (
            "v3electionpb.Election/Resign",
            message(v3electionpb::ResignRequest { leader }),
            "ettddd.. l etdddn",
            OK,
        ),
        (
            "v3electionpb.Election/Campaign",
            message(v3electionpb::CampaignRequest {
                name: "k/n".into(),
                lease: LEASE,
                value: bytes::Bytes::new(),
            }),
            "ettddd.. l etdddn",
            OK,
        ),
    ]
}

fn last_of_leases() -> Vec<Row> {
    vec![(
        "etcdserverpb.Lease/LeaseRevoke",
        message(pb::LeaseRevokeRequest { id: LEASE }),
        "ettdd.ff l etnnnn",
        OK,
    )]
}

fn others() -> Vec<Row> {
    vec![
        ("grpc.health.v1.Health/Check", message(()), "........ l ......", OK),
        ("grpc.health.v1.Health/Watch", message(()), "........ l ......", OK),
        ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", message(()), "........ . ......", OK),
        (
            "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            message(()),
            "........ . ......",
            OK,
        ),
    ]
}

/// The operator's own. On this machine nobody is asked: the operator of a box has its disk. With a certificate, a client comes from elsewhere.
pub fn admin() -> Vec<Row> {
    vec![
        ("covey.v1.Admin/Status", message(()), "........ . ......", OK),
        ("covey.v1.Admin/LogLevel", message(()), "........ . ......", OK),
        (
            "covey.v1.Admin/TokenCreate",
            message(()),
            "......b. l nnnnnn",
            (Code::InvalidArgument, "covey: the time is too short or too long"),
        ),
        ("covey.v1.Admin/TokenList", message(()), "........ l oooooo", OK),
        (
            "covey.v1.Admin/TokenRevoke",
            message(()),
            "......b. l ......",
            (Code::InvalidArgument, "covey: a token's id has 16 hexadecimal digits"),
        ),
        ("covey.v1.Admin/NodePending", message(()), "........ l ......", OK),
        (
            "covey.v1.Admin/NodeApprove",
            message(()),
            "......b. l ......",
            (
                Code::InvalidArgument,
                "covey: a fingerprint has 64 hexadecimal digits; of a node that is pending, the first 32 are enough",
            ),
        ),
        (
            "covey.v1.Admin/WindowOpen",
            message(()),
            "......b. l nnnnnn",
            (
                Code::FailedPrecondition,
                "covey: the cluster did not form by itself: nodes come in by a token, an approval or as added members",
            ),
        ),
        ("covey.v1.Admin/WindowClose", message(()), "......b. l nnnnnn", OK),
        (
            "covey.v1.Admin/GiveUp",
            message(()),
            "......b. l ......",
            (
                Code::FailedPrecondition,
                "covey: this cluster is not in conflict with cluster 0: \"covey status\" names those that it is in conflict with",
            ),
        ),
        (
            "covey.v1.Admin/ClientIssue",
            message(()),
            "......b. l ......",
            (
                Code::FailedPrecondition,
                "covey: this cluster issues no certificates: its members have their own, or none",
            ),
        ),
        ("covey.v1.Admin/ClientList", message(()), "........ l oooooo", OK),
        (
            "covey.v1.Admin/ClientRevoke",
            message(()),
            "......b. l oooooo",
            (Code::NotFound, "covey: there is no such client"),
        ),
        (
            "covey.v1.Admin/ClientRenew",
            message(()),
            "......b. l oooooo",
            (Code::NotFound, "covey: there is no such client"),
        ),
    ]
}

fn users() -> Vec<Row> {
    let name = || "nobody".to_owned();
    vec![
        ("etcdserverpb.Auth/AuthStatus", message(pb::AuthStatusRequest {}), "........ l oooooo", OK),
        (
            "etcdserverpb.Auth/Authenticate",
            message(pb::AuthenticateRequest { name: name(), password: String::new() }),
            "........ l oooooo",
            (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password"),
        ),
        ("etcdserverpb.Auth/AuthEnable", message(pb::AuthEnableRequest {}), "ettdddd. l etdddn", OK),
        (
            "etcdserverpb.Auth/UserAdd",
            message(pb::AuthUserAddRequest { name: "root".into(), ..Default::default() }),
            "ettdddd. l etdddn",
            (Code::FailedPrecondition, "etcdserver: user name already exists"),
        ),
        // The one that may read asks for itself.
        (
            "etcdserverpb.Auth/UserGet",
            message(pb::AuthUserGetRequest { name: "reader".into() }),
            "ettd.dd. l oooooo",
            OK,
        ),
        ("etcdserverpb.Auth/UserList", message(pb::AuthUserListRequest {}), "ettdddd. l etdddo", OK),
        (
            "etcdserverpb.Auth/UserDelete",
            message(pb::AuthUserDeleteRequest { name: name() }),
            "ettdddd. l etdddn",
            (Code::FailedPrecondition, "etcdserver: user name not found"),
        ),
        (
            "etcdserverpb.Auth/UserChangePassword",
            message(pb::AuthUserChangePasswordRequest { name: name(), ..Default::default() }),
            "ettdddd. l etdddn",
            (Code::FailedPrecondition, "etcdserver: user name not found"),
        ),
        (
            "etcdserverpb.Auth/UserGrantRole",
            message(pb::AuthUserGrantRoleRequest { user: name(), role: "reads".into() }),
            "ettdddd. l etdddn",
            (Code::FailedPrecondition, "etcdserver: user name not found"),
        ),
        (
            "etcdserverpb.Auth/UserRevokeRole",
            message(pb::AuthUserRevokeRoleRequest { name: name(), role: "reads".into() }),
            "ettdddd. l etdddn",
            (Code::FailedPrecondition, "etcdserver: user name not found"),
        ),
    ]
}

fn roles() -> Vec<Row> {
    let name = || "nobody".to_owned();
    vec![
        (
            "etcdserverpb.Auth/RoleAdd",
            message(pb::AuthRoleAddRequest { name: "reads".into() }),
            "ettdddd. l etdddn",
            (Code::FailedPrecondition, "etcdserver: role name already exists"),
        ),
        // The one that may read has this role.
        (
            "etcdserverpb.Auth/RoleGet",
            message(pb::AuthRoleGetRequest { role: "reads".into() }),
            "ettd.d.. l oooooo",
            OK,
        ),
        ("etcdserverpb.Auth/RoleList", message(pb::AuthRoleListRequest {}), "ettdddd. l etdddo", OK),
        (
            "etcdserverpb.Auth/RoleDelete",
            message(pb::AuthRoleDeleteRequest { role: name() }),
            "ettdddd. l etdddn",
            (Code::FailedPrecondition, "etcdserver: role name not found"),
        ),
        (
            "etcdserverpb.Auth/RoleGrantPermission",
            message(pb::AuthRoleGrantPermissionRequest {
                name: name(),
                perm: Some(Permission { key: "k".into(), ..Default::default() }),
            }),
            "ettdddd. l etdddn",
            (Code::FailedPrecondition, "etcdserver: role name not found"),
        ),
        (
            "etcdserverpb.Auth/RoleRevokePermission",
            message(pb::AuthRoleRevokePermissionRequest { role: name(), ..Default::default() }),
            "ettdddd. l etdddn",
            (Code::FailedPrecondition, "etcdserver: role name not found"),
        ),
    ]
}

fn last() -> Vec<Row> {
    vec![("etcdserverpb.Auth/AuthDisable", message(pb::AuthDisableRequest {}), "ettdddd. l etdddn", OK)]
}
