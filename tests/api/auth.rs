//! Users, roles and tokens, as clients see them.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use covey::api::{Jwt, JwtOptions, LoginOptions, Plaintext, SignMethod, TlsSource, TokenKind};
use covey::tls::ServerTls;
use covey::wire::authpb::{Permission, UserAddOptions};
use covey::wire::etcdserverpb as pb;
use covey::wire::etcdserverpb::auth_client::AuthClient;
use covey::wire::etcdserverpb::kv_client::KvClient;
use covey::wire::etcdserverpb::lease_client::LeaseClient;
use covey::wire::etcdserverpb::watch_client::WatchClient;
use covey::wire::v3electionpb as pb_election;
use covey::wire::v3electionpb::election_client::ElectionClient;
use covey::wire::v3lockpb as pb_lock;
use covey::wire::v3lockpb::lock_client::LockClient;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData as _};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::stream::StreamExt as _;
use smol::{LocalExecutor, Timer};
use tempfile::TempDir;
use tonic::{Code, Request, Status};

use crate::harness::{Channel, Server, Setup, is, run};
use crate::tls::{Authority, ClientStream, handshake};

/// What a role is granted.
pub use covey::wire::authpb::permission::Type as Rights;

/// A server with users: `nothing` has no role, `reader` and `writer` one each for the keys that begin with `k/`, `certified` both and no password, `root` may do everything. Passwords are names.
pub struct Land {
    pub server: Server,
    pub channel: Channel,
}

impl Land {
    /// A lease with a key below `k/`.
    pub const LEASE: i64 = 77;

    pub async fn new() -> Self {
        let mut setup = Setup::default();
        setup.options.logins.bcrypt_cost = 4;
        Self::with(setup).await
    }

    /// Authentication is on, and nobody is logged in.
    pub async fn with(setup: Setup) -> Self {
        let server = Server::with(setup).await;
        let channel = server.channel().await;
        let land = Self { server, channel };
        let mut auth = land.auth();
        for (role, rights) in [("reads", Rights::Read), ("writes", Rights::Write)] {
            auth.role_add(pb::AuthRoleAddRequest { name: role.into() }).await.unwrap();
            let perm = Some(Self::permission(rights, "k/", "k0"));
            let grant = pb::AuthRoleGrantPermissionRequest { name: role.into(), perm };
            auth.role_grant_permission(grant).await.unwrap();
        }
        let users: [(&str, &[&str]); 5] = [
            ("nothing", &[]),
            ("reader", &["reads"]),
            ("writer", &["writes"]),
            ("certified", &["reads", "writes"]),
            ("root", &["root"]),
        ];
        for (user, roles) in users {
            let mut add =
                pb::AuthUserAddRequest { name: user.into(), password: user.into(), ..Default::default() };
            if user == "certified" {
                add.options = Some(UserAddOptions { no_password: true });
            }
            auth.user_add(add).await.unwrap();
            for role in roles {
                land.grant(user, role).await;
            }
        }
        land.kv().put(put("k/1", "v")).await.unwrap();
        let mut lease = LeaseClient::new(land.channel.clone());
        lease.lease_grant(pb::LeaseGrantRequest { ttl: 600, id: Self::LEASE }).await.unwrap();
        land.kv().put(pb::PutRequest { lease: Self::LEASE, ..put("k/leased", "v") }).await.unwrap();
        auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
        land
    }

    pub fn permission(rights: Rights, key: &'static str, range_end: &'static str) -> Permission {
        Permission { perm_type: rights.into(), key: key.into(), range_end: range_end.into() }
    }

    async fn grant(&self, user: &str, role: &str) {
        let grant = pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
        self.auth().user_grant_role(grant).await.unwrap();
    }

    /// What root grants to a role while authentication is on.
    async fn allow(&self, root: &str, role: &str, permission: Permission) {
        let grant = pb::AuthRoleGrantPermissionRequest { name: role.into(), perm: Some(permission) };
        self.auth().role_grant_permission(by(root, grant)).await.unwrap();
    }

    pub async fn token(&self, user: &str) -> String {
        self.log_in(user, user).await.unwrap()
    }

    pub async fn log_in(&self, name: &str, password: &str) -> Result<String, Status> {
        let request = pb::AuthenticateRequest { name: name.into(), password: password.into() };
        Ok(self.auth().authenticate(request).await?.into_inner().token)
    }

    pub fn auth(&self) -> AuthClient<Channel> {
        AuthClient::new(self.channel.clone())
    }

    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    pub async fn reads(&self, token: &str) -> Result<i64, Status> {
        let range = pb::RangeRequest { key: "k/1".into(), ..Default::default() };
        Ok(self.kv().range(by(token, range)).await?.into_inner().count)
    }

    pub async fn writes(&self, token: &str) -> Result<(), Status> {
        self.kv().put(by(token, put("k/1", "w"))).await.map(drop)
    }
}

/// A land that clients come to by TLS, too, who have to show a certificate.
pub struct Shore {
    pub land: Land,
    servers: Authority,
    clients: Authority,
    _dir: TempDir,
}

impl Shore {
    pub async fn with(names_users: bool, setup: Setup) -> Self {
        let (servers, clients, dir) =
            (Authority::new("servers"), Authority::new("clients"), TempDir::new().unwrap());
        let tls = Arc::new(ServerTls::load(servers.write(&dir, Some(&clients))).unwrap());
        let tls = Some(Arc::new(move || Some(tls.current())) as TlsSource);
        let land = Land::with(Setup { plaintext: Plaintext::Loopback, tls, names_users, ..setup }).await;
        Self { land, servers, clients, _dir: dir }
    }

    /// A connection of whoever has a certificate with this name, for this protocol.
    pub async fn stream(&self, name: &str, protocol: &str) -> ClientStream {
        let identity = self.clients.issue_to(name, ExtendedKeyUsagePurpose::ClientAuth);
        handshake(&self.land.server, &self.servers.client(&[protocol], Some(identity))).await.unwrap()
    }

    pub async fn channel(&self, name: &str) -> Channel {
        Channel::over(self.stream(name, "h2").await).await.unwrap()
    }
}

fn put(key: &'static str, value: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

/// A request with a token.
pub fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("token", token.parse().unwrap());
    request
}

pub const DENIED: (Code, &str) = (Code::PermissionDenied, "etcdserver: permission denied");
pub const NO_TOKEN: (Code, &str) = (Code::Unauthenticated, "etcdserver: invalid auth token");
pub const NO_USER: (Code, &str) = (Code::InvalidArgument, "etcdserver: user name is empty");
const OLD: (Code, &str) = (Code::InvalidArgument, "etcdserver: revision of auth store is old");

pub fn told<T>(result: Result<T, Status>, (code, text): (Code, &str)) {
    is(&result.map(drop).unwrap_err(), code, text);
}

#[test]
fn whoever_logs_in_is_told_what_is_wrong_and_no_more() {
    run(async {
        let land = Land::new().await;
        let failed = "etcdserver: authentication failed, invalid user ID or password";
        let long = "p".repeat(73);
        let (longer, unknown) = ("p".repeat(1 << 20), "n".repeat(1 << 20));
        let wrong = [
            ("reader", "writer"),
            ("reader", ""),
            ("nobody", "nobody"),
            ("nobody", "root"),
            ("", ""),
            ("reader", &*long),
            ("reader", &*longer),
            (&*unknown, "reader"),
        ];
        for (name, password) in wrong {
            told(land.log_in(name, password).await, (Code::InvalidArgument, failed));
        }
        let no_password = "auth: authentication failed, password was given for no password user";
        told(land.log_in("certified", "certified").await, (Code::Unknown, no_password));
        let root = land.token("root").await;
        let mut auth = land.auth();
        let add = |name: &str, password: &str, hashed: &str| pb::AuthUserAddRequest {
            name: name.into(),
            password: password.into(),
            hashed_password: hashed.into(),
            options: None,
        };
        let too_long = auth.user_add(by(&root, add("long", &long, ""))).await;
        told(too_long, (Code::Unknown, "bcrypt: password length exceeds 72 bytes"));
        let no_hash = auth.user_add(by(&root, add("hashed", "", "bm9uZQ=="))).await.unwrap_err();
        assert_eq!(no_hash.code(), Code::InvalidArgument);
        let name = "n".repeat(257);
        let named = auth.user_add(by(&root, add(&name, "", ""))).await.unwrap_err();
        let role = auth.role_add(by(&root, pb::AuthRoleAddRequest { name })).await.unwrap_err();
        for status in [named, role] {
            is(
                &status,
                Code::InvalidArgument,
                "covey: the name of a user or a role must not be longer than 256 bytes",
            );
        }
        // What Go's bcrypt makes of "allmine", in base64.
        let hash = "JDJhJDEwJFhhampRdk5odnZSdDVHU2VGazF4RmV5cVJyc3hraEJrVWlRZWcwZHQud1UxcUQ0YUZEY2dh";
        let in_lines = format!("{}\r\n{}\n", &hash[..76], &hash[76..]);
        auth.user_add(by(&root, add("hashed", "", &in_lines))).await.unwrap();
        land.log_in("hashed", "allmine").await.unwrap();
        auth.auth_disable(by(&root, pb::AuthDisableRequest {})).await.unwrap();
        told(
            land.log_in("reader", "reader").await,
            (Code::FailedPrecondition, "etcdserver: authentication is not enabled"),
        );
        // Nobody is asked for a token, and a wrong one is no harm.
        assert_eq!(land.reads("none").await.unwrap(), 1);
    });
}

#[test]
fn a_user_is_granted_so_many_roles_and_no_more() {
    run(async {
        let land = Land::new().await;
        let root = land.token("root").await;
        let refused = async |number: usize| {
            let (mut auth, name) = (land.auth(), format!("role-{number}"));
            auth.role_add(by(&root, pb::AuthRoleAddRequest { name: name.clone() })).await.unwrap();
            let grant = pb::AuthUserGrantRoleRequest { user: "nothing".into(), role: name };
            auth.user_grant_role(by(&root, grant)).await.err()
        };
        for number in 0..256 {
            assert!(refused(number).await.is_none(), "{number}");
        }
        let one_more = refused(256).await.unwrap();
        is(&one_more, Code::InvalidArgument, "covey: a user must not have more than 256 roles");
    });
}

/// Whoever shows passwords without end over one connection keeps nobody from logging in over another one.
#[test]
fn a_flood_of_logins_leaves_room_for_others() {
    run(async {
        let land = Land::new().await;
        let flooder = AuthClient::new(land.server.channel().await);
        let refused = Cell::new(0);
        let flood = async || loop {
            let request = pb::AuthenticateRequest { name: "reader".into(), password: "wrong".into() };
            let status = flooder.clone().authenticate(request).await.unwrap_err();
            refused.set(refused.get() + usize::from(status.message() == "etcdserver: too many requests"));
        };
        let executor = LocalExecutor::new();
        for _ in 0..100 {
            executor.spawn(flood()).detach();
        }
        let others = async {
            for _ in 0..20 {
                land.token("writer").await;
            }
        };
        executor.run(others).await;
        assert!(refused.get() > 100, "{} were refused", refused.get());
    });
}

/// Another password, another user of the same name, and disabling end what was given before.
#[test]
fn a_token_ends_with_what_it_was_given_for() {
    run(async {
        let land = Land::new().await;
        let (root, reader, writer) =
            (land.token("root").await, land.token("reader").await, land.token("writer").await);
        assert_eq!(land.reads(&reader).await.unwrap(), 1);
        let mut auth = land.auth();
        let change = pb::AuthUserChangePasswordRequest {
            name: "reader".into(),
            password: "new".into(),
            ..Default::default()
        };
        auth.user_change_password(by(&root, change)).await.unwrap();
        told(land.reads(&reader).await, NO_TOKEN);
        let reader = land.log_in("reader", "new").await.unwrap();
        auth.user_delete(by(&root, pb::AuthUserDeleteRequest { name: "reader".into() })).await.unwrap();
        told(land.reads(&reader).await, NO_TOKEN);
        let add =
            pb::AuthUserAddRequest { name: "reader".into(), password: "new".into(), ..Default::default() };
        auth.user_add(by(&root, add)).await.unwrap();
        told(land.reads(&reader).await, NO_TOKEN);
        land.writes(&writer).await.unwrap();
        auth.auth_disable(by(&root, pb::AuthDisableRequest {})).await.unwrap();
        auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
        told(land.writes(&writer).await, NO_TOKEN);
        told(land.kv().put(put("k/1", "x")).await, NO_USER);
    });
}

#[test]
fn a_token_that_is_not_used_ends_and_one_that_is_does_not() {
    run(async {
        let ttl = Duration::from_secs(2);
        let mut setup = Setup::default();
        setup.options.logins = LoginOptions { tokens: TokenKind::Simple(ttl), bcrypt_cost: 4 };
        let land = Land::with(setup).await;
        let (used, unused) = (land.token("reader").await, land.token("reader").await);
        for _ in 0..10 {
            Timer::after(ttl / 4).await;
            land.reads(&used).await.unwrap();
        }
        told(land.reads(&unused).await, NO_TOKEN);
    });
}

/// As etcd has it since 3.6: before, the role seemed to have no permission.
#[test]
fn the_role_root_is_there_for_everything() {
    run(async {
        let land = Land::new().await;
        let root = land.token("root").await;
        let get = by(&root, pb::AuthRoleGetRequest { role: "root".into() });
        let everything = Land::permission(Rights::Readwrite, "", "\0");
        assert_eq!(land.auth().role_get(get).await.unwrap().into_inner().perm, [everything]);
    });
}

/// Who waits for a lock, and whose token has ended meanwhile, stands in nobody's way once it has gone.
#[test]
fn a_waiter_whose_token_has_ended_leaves_all_the_same() {
    run(async {
        let mut setup = Setup::default();
        setup.options.logins =
            LoginOptions { tokens: TokenKind::Simple(Duration::from_secs(1)), bcrypt_cost: 4 };
        let land = Land::with(setup).await;
        let lock = || pb_lock::LockRequest { name: "k/lock".into(), lease: Land::LEASE };
        let locks = || LockClient::new(land.channel.clone());
        let mut lease = LeaseClient::new(land.channel.clone());
        let root = land.token("root").await;
        let grant = pb::LeaseGrantRequest { ttl: 600, id: 5 };
        lease.lease_grant(by(&root, grant)).await.unwrap();
        let held = locks().lock(by(&root, lock())).await.unwrap().into_inner().key;
        let waits = pb_lock::LockRequest { lease: 5, ..lock() };
        let in_vain = async {
            Timer::after(Duration::from_secs(3)).await;
        };
        let mut waiter = locks();
        let waiting = async { drop(waiter.lock(by(&root, waits)).await) };
        smol::future::or(waiting, in_vain).await;
        let root = land.token("root").await;
        locks().unlock(by(&root, pb_lock::UnlockRequest { key: held })).await.unwrap();
        let left =
            pb::RangeRequest { key: "k/lock/".into(), range_end: "k/lock0".into(), ..Default::default() };
        let mut count = 1;
        for _ in 0..250 {
            count = land.kv().range(by(&root, left.clone())).await.unwrap().into_inner().count;
            if count == 0 {
                break;
            }
            Timer::after(Duration::from_millis(20)).await;
        }
        assert_eq!(count, 0, "its key is still there");
    });
}

/// What changes nothing and shows nothing is not asked who it is for, as in etcd; a token that is none is none all the same.
#[test]
fn a_transaction_of_nothing_takes_nothing() {
    run(async {
        let land = Land::new().await;
        let root = land.token("root").await;
        let op = |request| pb::RequestOp { request: Some(request) };
        let nest = |inner| op(pb::request_op::Request::RequestTxn(inner));
        let nothing = pb::TxnRequest::default;
        let nested =
            || pb::TxnRequest { success: vec![nest(nothing())], failure: vec![nest(nothing())], ..nothing() };
        let now = land.kv().txn(by(&root, nothing())).await.unwrap().into_inner().header.unwrap().revision;
        for (txn, inner) in [(nothing(), 0), (nested(), 1)] {
            for token in [Some(land.token("nothing").await), None] {
                let request =
                    token.map_or_else(|| Request::new(txn.clone()), |token| by(&token, txn.clone()));
                let answer = land.kv().txn(request).await.unwrap().into_inner();
                assert_eq!((answer.succeeded, answer.responses.len()), (true, inner));
                assert_eq!(answer.header.unwrap().revision, now);
            }
            told(land.kv().txn(by("none.1", txn)).await, NO_TOKEN);
        }
        let compare = vec![pb::Compare { key: "k/1".into(), ..Default::default() }];
        let within =
            pb::TxnRequest { failure: vec![nest(pb::TxnRequest { compare, ..nothing() })], ..nothing() };
        told(land.kv().txn(within).await, NO_USER);
    });
}

/// As everywhere, nobody is told what is wrong with what they ask for.
#[test]
fn who_grants_a_lease_comes_before_what_is_wrong_with_it() {
    run(async {
        let land = Land::new().await;
        let mut lease = LeaseClient::new(land.channel.clone());
        let refused = [
            (i64::MAX, 5, (Code::OutOfRange, "etcdserver: too large lease TTL")),
            (i64::MAX, Land::LEASE, (Code::OutOfRange, "etcdserver: too large lease TTL")),
            (60, Land::LEASE, (Code::FailedPrecondition, "etcdserver: lease already exists")),
        ];
        let nothing = land.token("nothing").await;
        for (ttl, id, refusal) in refused {
            let grant = pb::LeaseGrantRequest { ttl, id };
            told(lease.lease_grant(grant).await, NO_USER);
            told(lease.lease_grant(by("none.1", grant)).await, NO_TOKEN);
            told(lease.lease_grant(by(&nothing, grant)).await, refusal);
        }
    });
}

/// Who may write, and may not see the others, puts no key: it would be in their way.
#[test]
fn who_may_not_see_the_others_does_not_contend() {
    run(async {
        let land = Land::new().await;
        let (root, writer) = (land.token("root").await, land.token("writer").await);
        // The contender's own key may be read, and the others' not.
        land.allow(&root, "writes", Land::permission(Rights::Readwrite, "k/own/4d", "")).await;
        let revision = async || {
            let range = pb::RangeRequest { key: "k/1".into(), ..Default::default() };
            land.kv().range(by(&root, range)).await.unwrap().into_inner().header.unwrap().revision
        };
        let before = revision().await;
        let denied = (Code::Unknown, DENIED.1);
        for name in ["k/none", "k/own"] {
            let lock = pb_lock::LockRequest { name: name.into(), lease: Land::LEASE };
            told(LockClient::new(land.channel.clone()).lock(by(&writer, lock)).await, denied);
            let campaign =
                pb_election::CampaignRequest { name: name.into(), lease: Land::LEASE, value: "v".into() };
            told(ElectionClient::new(land.channel.clone()).campaign(by(&writer, campaign)).await, denied);
        }
        assert_eq!(revision().await, before, "nothing was written, and nothing taken back");
    });
}

/// Both branches count, whichever is taken, at any depth; so do what a put overwrites, and the keys of its lease.
#[test]
fn a_transaction_takes_what_all_of_it_takes() {
    run(async {
        let land = Land::new().await;
        let (reader, writer) = (land.token("reader").await, land.token("writer").await);
        let op = |request| pb::RequestOp { request: Some(request) };
        let writes = |key| op(pb::request_op::Request::RequestPut(put(key, "x")));
        let never = || pb::Compare { key: "k/none".into(), target: 0, result: 1, ..Default::default() };
        let txn = |compare, success, failure| pb::TxnRequest { compare, success, failure };
        let nest = |inner| op(pb::request_op::Request::RequestTxn(inner));
        let elsewhere = txn(vec![], vec![writes("k/2")], vec![writes("other")]);
        told(land.kv().txn(by(&writer, elsewhere)).await, DENIED);
        let nested = txn(vec![], vec![nest(txn(vec![], vec![], vec![writes("other")]))], vec![]);
        told(land.kv().txn(by(&writer, nested)).await, DENIED);
        told(land.kv().txn(by(&reader, txn(vec![never()], vec![writes("k/2")], vec![]))).await, DENIED);
        told(land.kv().txn(by(&writer, txn(vec![never()], vec![], vec![]))).await, DENIED);
        land.kv().txn(by(&writer, txn(vec![], vec![writes("k/2")], vec![writes("k/3")]))).await.unwrap();
        let before = pb::PutRequest { prev_kv: true, ..put("k/2", "x") };
        told(land.kv().put(by(&writer, before)).await, DENIED);
        let attach = |lease| pb::PutRequest { lease, ..put("k/4", "x") };
        land.kv().put(by(&writer, attach(Land::LEASE))).await.unwrap();
        // Another key of the lease is not theirs: the end of the one would be the end of the other.
        let root = land.token("root").await;
        land.kv().put(by(&root, pb::PutRequest { lease: Land::LEASE, ..put("other", "x") })).await.unwrap();
        told(land.kv().put(by(&writer, attach(Land::LEASE))).await, DENIED);
        let mut lease = LeaseClient::new(land.channel.clone());
        told(lease.lease_revoke(by(&writer, pb::LeaseRevokeRequest { id: Land::LEASE })).await, DENIED);
        told(lease.lease_leases(by(&reader, pb::LeaseLeasesRequest {})).await, DENIED);
        let keys = pb::LeaseTimeToLiveRequest { id: Land::LEASE, keys: true };
        told(lease.lease_time_to_live(by(&reader, keys)).await, DENIED);
        let renew = smol::stream::once(pb::LeaseKeepAliveRequest { id: Land::LEASE });
        let mut answers = lease.lease_keep_alive(by(&writer, renew)).await.unwrap().into_inner();
        told(answers.message().await, DENIED);
    });
}

#[test]
fn a_watcher_is_created_for_keys_that_may_be_read() {
    run(async {
        let land = Land::new().await;
        let (reader, writer) = (land.token("reader").await, land.token("writer").await);
        let create = |key: &'static str, range_end: &'static str| pb::WatchRequest {
            request_union: Some(pb::watch_request::RequestUnion::CreateRequest(pb::WatchCreateRequest {
                key: key.into(),
                range_end: range_end.into(),
                ..Default::default()
            })),
        };
        let ask = async |token: Option<&str>, requests: Vec<pb::WatchRequest>| {
            let requests = smol::stream::iter(requests).chain(smol::stream::pending());
            let mut request = Request::new(requests);
            if let Some(token) = token {
                request.metadata_mut().insert("token", token.parse().unwrap());
            }
            WatchClient::new(land.channel.clone()).watch(request).await.unwrap().into_inner()
        };
        let refused = async |token: Option<&str>, key, end, reason: &str| {
            let told = ask(token, vec![create(key, end)]).await.message().await.unwrap().unwrap();
            let expected = (true, true, -1, format!("rpc error: code = {reason}"));
            assert_eq!((told.created, told.canceled, told.watch_id, told.cancel_reason), expected);
        };
        let denied = "PermissionDenied desc = etcdserver: permission denied";
        refused(Some(&writer), "k/", "k0", denied).await;
        refused(Some(&reader), "k/", "k1", denied).await;
        refused(Some(&reader), "k/", "\0", denied).await;
        refused(Some(&reader), "", "", denied).await;
        // The right to one key is none to those behind it.
        let root = land.token("root").await;
        land.allow(&root, "reads", Land::permission(Rights::Read, "one", "")).await;
        refused(Some(&reader), "one", "\0", denied).await;
        refused(Some(&reader), "one", "onf", denied).await;
        let told = ask(Some(&reader), vec![create("one", "")]).await.message().await.unwrap().unwrap();
        assert!(told.created && !told.canceled);
        refused(Some("none.1"), "k/", "k0", "Unauthenticated desc = etcdserver: invalid auth token").await;
        refused(None, "k/", "k0", "InvalidArgument desc = etcdserver: user name is empty").await;
        // One that is refused ends nothing, and answers come in the order of the requests.
        let requests = vec![create("k/1", ""), create("other", ""), create("k/", "k0")];
        let mut answers = ask(Some(&reader), requests).await;
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(answers.message().await.unwrap().unwrap().watch_id);
        }
        assert_eq!(ids, [0, -1, 1]);
        land.writes(&writer).await.unwrap();
        let told = [answers.message().await.unwrap().unwrap(), answers.message().await.unwrap().unwrap()];
        assert_eq!(told.map(|told| told.events.len()), [1, 1]);
        // What a user may not read any more it is not told, and what it is told of ends.
        let revoke = pb::AuthRoleRevokePermissionRequest {
            role: "reads".into(),
            key: "k/".into(),
            range_end: "k0".into(),
        };
        land.auth().role_revoke_permission(by(&root, revoke)).await.unwrap();
        land.writes(&writer).await.unwrap();
        for _ in 0..2 {
            let told = answers.message().await.unwrap().unwrap();
            assert_eq!((told.created, told.canceled, told.events.len()), (false, true, 0));
            assert_eq!(told.cancel_reason, format!("rpc error: code = {denied}"));
        }
        // Nor is who was nobody told any more, once everybody has to be somebody.
        land.auth().auth_disable(by(&root, pb::AuthDisableRequest {})).await.unwrap();
        let mut open = ask(None, vec![create("k/1", "")]).await;
        assert!(open.message().await.unwrap().unwrap().created);
        land.writes("none").await.unwrap();
        assert_eq!(open.message().await.unwrap().unwrap().events.len(), 1);
        land.auth().auth_enable(pb::AuthEnableRequest {}).await.unwrap();
        land.writes(&land.token("writer").await).await.unwrap();
        let told = open.message().await.unwrap().unwrap();
        assert_eq!((told.canceled, told.events.len()), (true, 0));
    });
}

/// Who observes an election is told of it for as long as its keys may be read, though nobody else is elected.
#[test]
fn an_observer_ends_with_the_permission() {
    run(async {
        let land = Land::new().await;
        let (root, reader) = (land.token("root").await, land.token("reader").await);
        let elections = || ElectionClient::new(land.channel.clone());
        let site = || "k/site".into();
        let campaign = pb_election::CampaignRequest { name: site(), lease: Land::LEASE, value: "a".into() };
        let leader = elections().campaign(by(&root, campaign)).await.unwrap().into_inner().leader;
        let observe = pb_election::LeaderRequest { name: site() };
        let mut news = elections().observe(by(&reader, observe)).await.unwrap().into_inner();
        let proclaim = async |value: &'static str| {
            let proclaim = pb_election::ProclaimRequest { leader: leader.clone(), value: value.into() };
            elections().proclaim(by(&root, proclaim)).await.unwrap();
        };
        assert_eq!(news.message().await.unwrap().unwrap().kv.unwrap().value, "a");
        proclaim("b").await;
        assert_eq!(news.message().await.unwrap().unwrap().kv.unwrap().value, "b");
        let revoke = pb::AuthUserRevokeRoleRequest { name: "reader".into(), role: "reads".into() };
        land.auth().user_revoke_role(by(&root, revoke)).await.unwrap();
        proclaim("c").await;
        told(news.message().await, (Code::Unknown, DENIED.1));
    });
}

#[test]
fn who_has_a_certificate_needs_no_token_and_a_token_counts_before_it() {
    run(async {
        for names_users in [true, false] {
            let mut setup = Setup::default();
            setup.options.logins.bcrypt_cost = 4;
            let shore = Shore::with(names_users, setup).await;
            let land = &shore.land;
            let channel = async |name: &str| KvClient::new(shore.channel(name).await);
            let expected = |named| if names_users { named } else { NO_USER };
            let mut certified = channel("certified").await;
            match certified.put(put("k/1", "c")).await {
                Ok(_) => assert!(names_users),
                Err(status) => is(&status, NO_USER.0, NO_USER.1),
            }
            told(certified.put(put("other", "c")).await, expected(DENIED));
            told(channel("nobody").await.put(put("k/1", "c")).await, expected(DENIED));
            let reader = land.token("reader").await;
            told(certified.put(by(&reader, put("k/1", "c"))).await, DENIED);
            told(certified.put(by("none.1", put("k/1", "c"))).await, NO_TOKEN);
            // A gateway's certificate is the gateway's.
            let mut proxied = Request::new(put("k/1", "c"));
            proxied.metadata_mut().insert("grpcgateway-accept", "*/*".parse().unwrap());
            told(certified.put(proxied).await, NO_USER);
            let answer = by_gateway(&shore, "certified").await;
            let expected = if names_users {
                "CommonName of client sending a request against gateway will be ignored and not used as expected"
            } else {
                NO_USER.1
            };
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(expected), "{answer}");
        }
    });
}

/// What the JSON gateway says to a client whose certificate names this user, whatever its headers say.
async fn by_gateway(shore: &Shore, name: &str) -> String {
    let mut stream = shore.stream(name, "http/1.1").await;
    let body = r#"{"key":"ay8x"}"#;
    let head = "POST /v3/kv/range HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                grpc-metadata-content-type: application/grpc\r\n";
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Whoever only closes the connection has said what there was to say.
    drop(stream.read_to_end(&mut answer).await);
    String::from_utf8(answer).unwrap()
}

/// A key pair for a method that is not RSA, for which ring makes none; `credentials` has all of them.
pub fn jwt(dir: &Path, method: &str, signs: bool) -> Arc<Jwt> {
    jwt_for(dir, method, signs, Duration::from_secs(300))
}

/// The same for tokens that live for so long.
pub fn jwt_for(dir: &Path, method: &str, signs: bool, ttl: Duration) -> Arc<Jwt> {
    let (private_key, public_key) = (dir.join(format!("{method}.key")), dir.join(format!("{method}.pub")));
    let method = SignMethod::named(method).unwrap();
    if !private_key.exists() {
        let kind = match method {
            SignMethod::P256 => &PKCS_ECDSA_P256_SHA256,
            _ => &PKCS_ED25519,
        };
        let key = KeyPair::generate_for(kind).unwrap();
        let public = pem::encode(&pem::Pem::new("PUBLIC KEY", key.subject_public_key_info()));
        fs::write(&private_key, key.serialize_pem()).unwrap();
        fs::write(&public_key, public).unwrap();
    }
    let is_shared = matches!(method, SignMethod::Shared(..));
    let (private_key, public_key) =
        ((signs || is_shared).then_some(private_key), (!is_shared).then_some(public_key));
    Arc::new(Jwt::load(&JwtOptions { method, public_key, private_key, ttl }).unwrap())
}

#[test]
fn web_tokens_are_good_for_one_revision_of_users_and_roles() {
    run(async {
        let dir = TempDir::new().unwrap();
        for method in ["ES256", "EdDSA", "HS512"] {
            let mut setup = Setup::default();
            let tokens = TokenKind::Jwt(jwt(dir.path(), method, true));
            setup.options.logins = LoginOptions { tokens, bcrypt_cost: 4 };
            let land = Land::with(setup).await;
            let (root, reader, writer) =
                (land.token("root").await, land.token("reader").await, land.token("writer").await);
            assert_eq!(reader.split('.').count(), 3, "{method}");
            assert_eq!(land.reads(&reader).await.unwrap(), 1);
            told(land.writes(&reader).await, DENIED);
            land.writes(&writer).await.unwrap();
            land.auth().role_add(by(&root, pb::AuthRoleAddRequest { name: "another".into() })).await.unwrap();
            told(land.reads(&reader).await, OLD);
            told(land.writes(&writer).await, OLD);
            told(land.auth().user_list(by(&root, pb::AuthUserListRequest {})).await, OLD);
            let reader = land.token("reader").await;
            assert_eq!(land.reads(&reader).await.unwrap(), 1, "{method}");
        }
    });
}

#[test]
fn a_member_with_a_public_key_takes_web_tokens_and_makes_none() {
    run(async {
        let dir = TempDir::new().unwrap();
        drop(jwt(dir.path(), "ES256", true));
        let mut setup = Setup::default();
        let tokens = TokenKind::Jwt(jwt(dir.path(), "ES256", false));
        setup.options.logins = LoginOptions { tokens, bcrypt_cost: 4 };
        let land = Land::with(setup).await;
        let text = "auth: token signing attempted with verify-only key";
        told(land.log_in("reader", "reader").await, (Code::Unknown, text));
    });
}

/// A change of roles while a write is on its way is none of its business, unless it forbids it.
#[test]
fn writes_go_on_while_roles_change() {
    run(async {
        let land = Land::new().await;
        let (root, writer) = (land.token("root").await, land.token("writer").await);
        let changes = async {
            for name in 0..40 {
                let add = pb::AuthRoleAddRequest { name: format!("role-{name}") };
                land.auth().role_add(by(&root, add)).await.unwrap();
                Timer::after(Duration::from_millis(10)).await;
            }
            true
        };
        let writes = async {
            while land.writes(&writer).await.is_ok() {}
            false
        };
        assert!(smol::future::or(changes, writes).await);
        let revoke = pb::AuthUserRevokeRoleRequest { name: "writer".into(), role: "writes".into() };
        land.auth().user_revoke_role(by(&root, revoke)).await.unwrap();
        told(land.writes(&writer).await, DENIED);
    });
}
