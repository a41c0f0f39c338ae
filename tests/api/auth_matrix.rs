//! Every method of every service, called by everybody there can be: what each is told.

use std::sync::Arc;
use std::time::Duration;

use covey::api::{LoginOptions, TokenKind, methods};
use covey::limits::REQUEST_TIMEOUT;
use covey::telemetry::metrics::Metrics;
use covey::wire::{etcdserverpb as pb, v3electionpb, v3lockpb};
use http_body_util::BodyExt as _;
use prost::Message;
use smol::Timer;
use tempfile::TempDir;
use tonic::{Code, Status};

use crate::auth::{Land, Rights, Shore, jwt};
use crate::harness::{Channel, Server, Setup, run};

/// What a call comes to.
///
/// | | |
/// | --- | --- |
/// | `.` | whatever the service says: it was let in |
/// | `e` | nobody asks |
/// | `t` | the token is none |
/// | `d` | that user may not |
/// | `l` | a learner that has not caught up does not serve it |
/// | `n` | there is no leader |
/// | `o` | it was waited for, and nothing came |
const REFUSALS: [(char, Code, &str); 6] = [
    ('e', Code::InvalidArgument, "etcdserver: user name is empty"),
    ('t', Code::Unauthenticated, "etcdserver: invalid auth token"),
    ('d', Code::PermissionDenied, "etcdserver: permission denied"),
    ('l', Code::FailedPrecondition, "etcdserver: rpc not supported for learner"),
    ('n', Code::Unavailable, "etcdserver: no leader"),
    ('o', Code::Unavailable, "etcdserver: request timed out"),
];

/// What is said of who asks, as the services tell it that are clients of the others: without the code.
const TOLD_ON: [&str; 2] = ["v3lockpb.Lock", "v3electionpb.Election"];

/// What is refused there is said in a message of the stream.
const WATCH: &str = "etcdserverpb.Watch/Watch";
/// Whether a message is compressed, and its length.
const FRAME_HEAD_BYTES: usize = 5;

/// Who calls, in this order: nobody, with a token that is none, with one that has ended, a user without a role, one that may read what the call is about, one that may write it, the user that a certificate names
/// (who may do both), and root.
const CALLERS: usize = 8;
/// And then root, who asks another member: one that learns and has not caught up, and one that has a vote and no leader.
const MEMBERS: usize = 2;

/// After that a stream which says nothing has let its client in.
const SILENT: Duration = Duration::from_millis(100);
/// The same where all is asked at once, and others are waited for.
const WAITED: Duration = REQUEST_TIMEOUT.saturating_add(Duration::from_secs(3));

fn message(message: impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    framed.extend(body);
    framed
}

fn key() -> bytes::Bytes {
    "k/1".into()
}

/// A method, a message for it, and what everybody is told, then by whom.
type Row = (&'static str, Vec<u8>, &'static str);

/// One call of each method. What changes something comes last, and is called so that it does not change who may do what.
fn table() -> Vec<Row> {
    [keys(), leases(), cluster(), contests(), last_of_leases(), others(), users(), roles(), last()].concat()
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
    let nothing = op(pb::request_op::Request::RequestTxn(pb::TxnRequest::default()));
    let nothing = pb::TxnRequest { compare: vec![], success: vec![nothing], failure: vec![] };
    vec![
        ("etcdserverpb.KV/Range", message(range()), "ettd.d..lo"),
        ("etcdserverpb.KV/Range", message(serializable), "ettd.d...."),
        ("etcdserverpb.KV/Range", message(all), "ettd.d..lo"),
        ("etcdserverpb.KV/Range", message(beyond), "ettdddd.lo"),
        ("etcdserverpb.KV/RangeStream", message(range()), "ettd.d..lo"),
        ("etcdserverpb.KV/Put", message(put()), "ettdd...ln"),
        ("etcdserverpb.KV/Put", message(reads_before), "ettddd..ln"),
        ("etcdserverpb.KV/DeleteRange", message(delete()), "ettdd...ln"),
        ("etcdserverpb.KV/DeleteRange", message(deletes_before), "ettddd..ln"),
        ("etcdserverpb.KV/Txn", message(if_read), "ettddd..ln"),
        ("etcdserverpb.KV/Txn", message(else_writes), "ettddd..ln"),
        ("etcdserverpb.KV/Txn", message(read_only), "ettd.d..lo"),
        ("etcdserverpb.KV/Txn", message(nested), "ettdd...ln"),
        // Of whoever wants nothing nothing is wanted.
        ("etcdserverpb.KV/Txn", message(pb::TxnRequest::default()), ".tt.....lo"),
        ("etcdserverpb.KV/Txn", message(nothing), ".tt.....lo"),
        (
            "etcdserverpb.KV/Compact",
            message(pb::CompactionRequest { revision: 1, physical: false }),
            "ettdddd.ln",
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
        ("etcdserverpb.Watch/Watch", message(pb::WatchRequest::default()), "........l."),
        ("etcdserverpb.Watch/Watch", message(watch("k0")), "ettd.d..l."),
        ("etcdserverpb.Watch/Watch", message(watch("k1")), "ettdddd.l."),
        ("etcdserverpb.Watch/Watch", message(watch("\0")), "ettdddd.l."),
        ("etcdserverpb.Lease/LeaseGrant", message(pb::LeaseGrantRequest { ttl: 60, id: 0 }), "ett.....ln"),
        (
            "etcdserverpb.Lease/LeaseGrant",
            message(pb::LeaseGrantRequest { ttl: i64::MAX, id: 0 }),
            "ett.....l.",
        ),
        (
            "etcdserverpb.Lease/LeaseKeepAlive",
            message(pb::LeaseKeepAliveRequest { id: Land::LEASE }),
            "ettdd...lo",
        ),
        (
            "etcdserverpb.Lease/LeaseTimeToLive",
            message(pb::LeaseTimeToLiveRequest { id: Land::LEASE, keys: true }),
            "ettd.d..lo",
        ),
        (
            "etcdserverpb.Lease/LeaseTimeToLive",
            message(pb::LeaseTimeToLiveRequest { id: Land::LEASE, keys: false }),
            "ett.....lo",
        ),
        ("etcdserverpb.Lease/LeaseLeases", message(pb::LeaseLeasesRequest {}), "ettd.d..lo"),
    ]
}

fn cluster() -> Vec<Row> {
    let alarm = |action: pb::alarm_request::AlarmAction| pb::AlarmRequest {
        action: action.into(),
        member_id: 99,
        alarm: pb::AlarmType::Nospace.into(),
    };
    vec![
        (
            "etcdserverpb.Cluster/MemberList",
            message(pb::MemberListRequest { linearizable: true }),
            "ett.....lo",
        ),
        ("etcdserverpb.Cluster/MemberAdd", message(pb::MemberAddRequest::default()), "ettdddd.l."),
        ("etcdserverpb.Cluster/MemberRemove", message(pb::MemberRemoveRequest { id: 99 }), "ettdddd.ln"),
        ("etcdserverpb.Cluster/MemberUpdate", message(pb::MemberUpdateRequest::default()), "ettdddd.l."),
        ("etcdserverpb.Cluster/MemberPromote", message(pb::MemberPromoteRequest { id: 99 }), "ettdddd.l."),
        ("etcdserverpb.Maintenance/Status", message(pb::StatusRequest {}), "ett......."),
        ("etcdserverpb.Maintenance/Alarm", message(alarm(pb::alarm_request::AlarmAction::Get)), "ett.....lo"),
        (
            "etcdserverpb.Maintenance/Alarm",
            message(alarm(pb::alarm_request::AlarmAction::Deactivate)),
            "ettdddd.ln",
        ),
        (
            "etcdserverpb.Maintenance/Alarm",
            message(pb::AlarmRequest { action: 9, ..Default::default() }),
            "ettdddd.l.",
        ),
        ("etcdserverpb.Maintenance/Defragment", message(pb::DefragmentRequest {}), "ettdddd.l."),
        ("etcdserverpb.Maintenance/Hash", message(pb::HashRequest {}), "ettdddd.l."),
        ("etcdserverpb.Maintenance/HashKV", message(pb::HashKvRequest { revision: 0 }), "ettdddd.l."),
        ("etcdserverpb.Maintenance/Snapshot", message(pb::SnapshotRequest {}), "ettdddd..."),
        (
            "etcdserverpb.Maintenance/MoveLeader",
            message(pb::MoveLeaderRequest { target_id: 99 }),
            "ettdddd.l.",
        ),
        ("etcdserverpb.Maintenance/Downgrade", message(pb::DowngradeRequest::default()), "ettdddd.l."),
    ]
}

fn contests() -> Vec<Row> {
    let leader = Some(v3electionpb::LeaderKey { name: "k".into(), key: key(), rev: 1, lease: Land::LEASE });
    vec![
        (
            "v3lockpb.Lock/Lock",
            message(v3lockpb::LockRequest { name: "k".into(), lease: Land::LEASE }),
            "ettddd..ln",
        ),
        ("v3lockpb.Lock/Unlock", message(v3lockpb::UnlockRequest { key: key() }), "ettdd...ln"),
        (
            "v3electionpb.Election/Leader",
            message(v3electionpb::LeaderRequest { name: "k".into() }),
            "ettd.d..lo",
        ),
        (
            "v3electionpb.Election/Observe",
            message(v3electionpb::LeaderRequest { name: "k".into() }),
            "ettd.d..lo",
        ),
        (
            "v3electionpb.Election/Proclaim",
            message(v3electionpb::ProclaimRequest { leader: leader.clone(), value: bytes::Bytes::new() }),
            "ettddd..ln",
        ),
        ("v3electionpb.Election/Resign", message(v3electionpb::ResignRequest { leader }), "ettddd..ln"),
        (
            "v3electionpb.Election/Campaign",
            message(v3electionpb::CampaignRequest {
                name: "k".into(),
                lease: Land::LEASE,
                value: bytes::Bytes::new(),
            }),
            "ettddd..ln",
        ),
    ]
}

fn last_of_leases() -> Vec<Row> {
    vec![(
        "etcdserverpb.Lease/LeaseRevoke",
        message(pb::LeaseRevokeRequest { id: Land::LEASE }),
        "ettdd...ln",
    )]
}

fn others() -> Vec<Row> {
    vec![
        ("grpc.health.v1.Health/Check", message(()), "........l."),
        ("grpc.health.v1.Health/Watch", message(()), "........l."),
        ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", message(()), ".........."),
        ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", message(()), ".........."),
        // On this machine nobody is asked: the operator of a box has its disk. With a certificate, a client comes from elsewhere.
        ("covey.v1.Admin/Status", message(()), ".........."),
        ("covey.v1.Admin/LogLevel", message(()), ".........."),
        ("covey.v1.Admin/TokenCreate", message(()), "........ln"),
        ("covey.v1.Admin/TokenList", message(()), "........lo"),
        ("covey.v1.Admin/TokenRevoke", message(()), "........l."),
        ("covey.v1.Admin/NodePending", message(()), "........l."),
        ("covey.v1.Admin/NodeApprove", message(()), "........l."),
        ("covey.v1.Admin/WindowOpen", message(()), "........ln"),
        ("covey.v1.Admin/WindowClose", message(()), "........ln"),
        ("covey.v1.Admin/GiveUp", message(()), "........l."),
        ("covey.v1.Admin/ClientIssue", message(()), "........l."),
        ("covey.v1.Admin/ClientList", message(()), "........lo"),
        ("covey.v1.Admin/ClientRevoke", message(()), "........lo"),
        ("covey.v1.Admin/ClientRenew", message(()), "........lo"),
    ]
}

fn users() -> Vec<Row> {
    let name = || "nobody".to_owned();
    vec![
        ("etcdserverpb.Auth/AuthStatus", message(pb::AuthStatusRequest {}), "........lo"),
        (
            "etcdserverpb.Auth/Authenticate",
            message(pb::AuthenticateRequest { name: name(), password: String::new() }),
            "........lo",
        ),
        ("etcdserverpb.Auth/AuthEnable", message(pb::AuthEnableRequest {}), "ettdddd.ln"),
        (
            "etcdserverpb.Auth/UserAdd",
            message(pb::AuthUserAddRequest { name: "root".into(), ..Default::default() }),
            "ettdddd.ln",
        ),
        // The one that may read asks for itself.
        (
            "etcdserverpb.Auth/UserGet",
            message(pb::AuthUserGetRequest { name: "reader".into() }),
            "ettd.dd.lo",
        ),
        ("etcdserverpb.Auth/UserList", message(pb::AuthUserListRequest {}), "ettdddd.lo"),
        ("etcdserverpb.Auth/UserDelete", message(pb::AuthUserDeleteRequest { name: name() }), "ettdddd.ln"),
        (
            "etcdserverpb.Auth/UserChangePassword",
            message(pb::AuthUserChangePasswordRequest { name: name(), ..Default::default() }),
            "ettdddd.ln",
        ),
        (
            "etcdserverpb.Auth/UserGrantRole",
            message(pb::AuthUserGrantRoleRequest { user: name(), role: "reads".into() }),
            "ettdddd.ln",
        ),
        (
            "etcdserverpb.Auth/UserRevokeRole",
            message(pb::AuthUserRevokeRoleRequest { name: name(), role: "reads".into() }),
            "ettdddd.ln",
        ),
    ]
}

fn roles() -> Vec<Row> {
    let name = || "nobody".to_owned();
    vec![
        ("etcdserverpb.Auth/RoleAdd", message(pb::AuthRoleAddRequest { name: "reads".into() }), "ettdddd.ln"),
        // The one that may read has this role.
        ("etcdserverpb.Auth/RoleGet", message(pb::AuthRoleGetRequest { role: "reads".into() }), "ettd.d..lo"),
        ("etcdserverpb.Auth/RoleList", message(pb::AuthRoleListRequest {}), "ettdddd.lo"),
        ("etcdserverpb.Auth/RoleDelete", message(pb::AuthRoleDeleteRequest { role: name() }), "ettdddd.ln"),
        (
            "etcdserverpb.Auth/RoleGrantPermission",
            message(pb::AuthRoleGrantPermissionRequest {
                name: name(),
                perm: Some(Land::permission(Rights::Read, "k", "")),
            }),
            "ettdddd.ln",
        ),
        (
            "etcdserverpb.Auth/RoleRevokePermission",
            message(pb::AuthRoleRevokePermissionRequest { role: name(), ..Default::default() }),
            "ettdddd.ln",
        ),
    ]
}

fn last() -> Vec<Row> {
    vec![("etcdserverpb.Auth/AuthDisable", message(pb::AuthDisableRequest {}), "ettdddd.ln")]
}

/// Calls a method with one message, and waits for its answer, or until there is one that is not the end.
async fn call(
    channel: &Channel,
    path: &str,
    body: &[u8],
    metadata: &[(&str, &str)],
    silence: Duration,
) -> Status {
    let mut request =
        http::Request::post(format!("http://x/{path}")).header("content-type", "application/grpc");
    for (name, value) in metadata {
        request = request.header(*name, *value);
    }
    let body = tonic::body::Body::new(http_body_util::Full::from(body.to_vec()));
    let answered = async {
        let response = channel.send(request.body(body).unwrap()).await.unwrap();
        if let Some(status) = Status::from_header_map(response.headers()) {
            return status;
        }
        let Some(frame) = response.into_body().frame().await.map(Result::unwrap) else {
            return Status::ok("");
        };
        if let Some(refusal) = frame.data_ref().filter(|_| path == WATCH).and_then(|data| refused(data)) {
            return refusal;
        }
        let trailers = frame.into_trailers().ok();
        trailers.and_then(|trailers| Status::from_header_map(&trailers)).unwrap_or_else(|| Status::ok(""))
    };
    let silent = async {
        Timer::after(silence).await;
        Status::ok("")
    };
    smol::future::or(answered, silent).await
}

/// What a watcher's first message says of why there is none: as Go prints an error.
fn refused(data: &[u8]) -> Option<Status> {
    let told = pb::WatchResponse::decode(data.get(FRAME_HEAD_BYTES..)?).unwrap();
    let (code, text) = told.cancel_reason.strip_prefix("rpc error: code = ")?.split_once(" desc = ")?;
    let found = REFUSALS.iter().find(|(_, known, _)| format!("{known:?}") == code);
    Some(Status::new(found.map_or(Code::Unknown, |found| found.1), text))
}

fn outcome(path: &str, status: &Status) -> char {
    let is_told_on = TOLD_ON.iter().any(|service| path.starts_with(service));
    let refusal = REFUSALS.iter().find(|(letter, code, text)| {
        let code = if is_told_on && matches!(letter, 'e' | 't' | 'd') { Code::Unknown } else { *code };
        status.message() == *text && status.code() == code
    });
    refusal.map_or('.', |(letter, ..)| *letter)
}

#[test]
fn every_method_tells_everybody_what_they_may_not() {
    run(async {
        let mut missing: Vec<String> =
            methods(true).map(|method| format!("{}/{}", method.service, method.method)).collect();
        let table = table();
        missing.retain(|path| table.iter().all(|(row, ..)| row != path));
        assert_eq!(missing, Vec::<String>::new(), "every method is in the table");

        let ttl = Duration::from_secs(8);
        let mut setup = offering_all();
        setup.options.logins = LoginOptions { tokens: TokenKind::Simple(ttl), bcrypt_cost: 4 };
        let shore = Shore::with(true, setup).await;
        let land = &shore.land;
        let (plain, certified) = (land.server.channel().await, shore.channel("certified").await);
        let ended = land.token("reader").await;
        Timer::after(ttl + Duration::from_millis(200)).await;
        let tokens = [
            None,
            Some("none.1".to_owned()),
            Some(ended),
            Some(land.token("nothing").await),
            Some(land.token("reader").await),
            Some(land.token("writer").await),
            None,
            Some(land.token("root").await),
        ];
        let mut wrong = Vec::new();
        for (path, body, expected) in &table {
            let mut found = String::new();
            for (caller, token) in tokens.iter().enumerate() {
                let channel = if caller == 6 { &certified } else { &plain };
                let token = token.as_deref().map(|token| ("token", token));
                let status = call(channel, path, body, token.as_slice(), SILENT).await;
                found.push(outcome(path, &status));
            }
            assert_eq!((found.len(), expected.len()), (CALLERS, CALLERS + MEMBERS));
            if found != expected[..CALLERS] {
                wrong.push(format!("{path}: {found} instead of {expected}"));
            }
        }
        assert_eq!(wrong, Vec::<String>::new());
    });
}

/// The operator of the box is asked for nothing on it. Whoever comes from elsewhere has to be somebody to be shown anything.
#[test]
fn the_operators_service_asks_who_comes_from_elsewhere() {
    run(async {
        let table = others().into_iter().filter(|(path, ..)| path.starts_with("covey.v1.Admin/"));
        let table: Vec<Row> = table.collect();
        assert!(!table.is_empty());
        for names_users in [true, false] {
            let mut setup = offering_all();
            setup.options.logins.bcrypt_cost = 4;
            let shore = Shore::with(names_users, setup).await;
            let token = shore.land.token("nothing").await;
            let callers = [
                ("certified", None, if names_users { '.' } else { 'e' }),
                ("stranger", None, if names_users { 'd' } else { 'e' }),
                ("certified", Some("none.1"), 't'),
                ("stranger", Some(token.as_str()), '.'),
            ];
            for (name, token, expected) in callers {
                let channel = shore.channel(name).await;
                for (path, body, _) in &table {
                    let token = token.map(|token| ("token", token));
                    let status = call(&channel, path, body, token.as_slice(), SILENT).await;
                    assert_eq!(outcome(path, &status), expected, "{path} {name} {names_users}: {status:?}");
                }
            }
        }
    });
}

fn offering_all() -> Setup {
    Setup { metrics: Arc::new(Metrics::new(methods(true))), ..Setup::default() }
}

/// What root is told of each row of the table, all of it asked at once.
async fn told_root(server: &Server, metadata: &[(&'static str, &str)]) -> Vec<char> {
    let channel = server.channel().await;
    let calls = table().into_iter().map(|(path, body, _)| {
        let channel = channel.clone();
        let metadata: Vec<_> = metadata.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        smol::spawn(async move {
            let metadata: Vec<_> = metadata.iter().map(|(name, value)| (*name, value.as_str())).collect();
            outcome(path, &call(&channel, path, &body, &metadata, WAITED).await)
        })
    });
    let (calls, mut told) = (calls.collect::<Vec<_>>(), Vec::new());
    for call in calls {
        told.push(call.await);
    }
    told
}

/// That one may do everything does not make a leader: what has to be read is waited for, and what has to be written is refused sooner. Root has its token from
/// before.
#[test]
fn every_method_tells_root_what_the_member_cannot_do() {
    run(async {
        let dir = TempDir::new().unwrap();
        let tokens = jwt(dir.path(), "HS512", true);
        let setup = || {
            let mut setup = offering_all();
            setup.options.logins =
                LoginOptions { tokens: TokenKind::Jwt(Arc::clone(&tokens)), bcrypt_cost: 4 };
            setup
        };
        let land = Land::with(setup()).await;
        let token = land.token("root").await;
        let with_token = ("token", token.as_str());
        // What was folded is known whoever votes.
        let compact = message(pb::CompactionRequest { revision: 2, physical: true });
        let channel = land.server.channel().await;
        let folded = call(&channel, "etcdserverpb.KV/Compact", &compact, &[with_token], WAITED).await;
        assert_eq!(folded.code(), Code::Ok);
        let learner = land.server.restart_with(Setup { learns: true, ..setup() }).await;
        let by_learner = told_root(&learner, &[with_token]).await;
        let leaderless = learner.restart_with(Setup { lonely: true, ..setup() }).await;
        let without_leader = told_root(&leaderless, &[with_token]).await;
        let mut wrong = Vec::new();
        for ((path, _, expected), found) in table().iter().zip(by_learner.into_iter().zip(without_leader)) {
            let found = String::from_iter([found.0, found.1]);
            if found != expected[CALLERS..] {
                wrong.push(format!("{path}: {found} instead of {expected}"));
            }
        }
        assert_eq!(wrong, Vec::<String>::new());
        let in_vain = told_root(&leaderless, &[with_token, ("hasleader", "true")]).await;
        assert!(
            in_vain.iter().all(|told| *told == 'n'),
            "whoever asks for a leader is told at once: {in_vain:?}"
        );
    });
}
