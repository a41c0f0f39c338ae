//! What goes on for long, while whoever has begun it may come to be somebody who might not begin it.
//!
//! Owns: what becomes of it then. Must never: depend on how far a stream is ahead of its reader.

use std::time::Duration;

use covey::api::{LoginOptions, TokenKind};
use covey::wire::etcdserverpb as pb;
use covey::wire::etcdserverpb::kv_client::KvClient;
use covey::wire::etcdserverpb::lease_client::LeaseClient;
use covey::wire::etcdserverpb::maintenance_client::MaintenanceClient;
use covey::wire::etcdserverpb::watch_client::WatchClient;
use covey::wire::v3electionpb::CampaignRequest;
use covey::wire::v3electionpb::election_client::ElectionClient;
use covey::wire::v3lockpb as pb_lock;
use covey::wire::v3lockpb::lock_client::LockClient;
use smol::stream::StreamExt as _;
use smol::{Task, Timer};
use tonic::{Code, Request, Status, Streaming};

use crate::auth::{DENIED, Land, NO_TOKEN, NO_USER, Shore, by, told};
use crate::harness::{Channel, Setup, run};

/// What a client takes before it has read what came earlier: less than any chunk.
const WINDOW: u32 = 64 * 1024;
/// How many keys make several chunks together, and how large each is.
const LARGE_KEYS: usize = 40;
const LARGE_BYTES: usize = 200_000;

/// What becomes of a user meanwhile.
#[derive(Clone, Copy, Debug)]
enum Change {
    Deleted,
    OtherPassword,
    RoleTaken(&'static str),
}

impl Change {
    async fn happen(self, land: &Land, root: &str, user: &str) {
        let (mut auth, name) = (land.auth(), user.to_owned());
        match self {
            Self::Deleted => {
                drop(auth.user_delete(by(root, pb::AuthUserDeleteRequest { name })).await.unwrap());
            }
            Self::OtherPassword => {
                let password = "another".to_owned();
                let change = pb::AuthUserChangePasswordRequest { name, password, ..Default::default() };
                drop(auth.user_change_password(by(root, change)).await.unwrap());
            }
            Self::RoleTaken(role) => {
                let revoke = pb::AuthUserRevokeRoleRequest { name, role: role.into() };
                drop(auth.user_revoke_role(by(root, revoke)).await.unwrap());
            }
        }
    }

    /// What is said of it to whoever has a token of before.
    fn refusal(self) -> (Code, &'static str) {
        if matches!(self, Self::RoleTaken(_)) { DENIED } else { NO_TOKEN }
    }
}

async fn grant(land: &Land, root: &str, user: &str, role: &str) {
    let grant = pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
    land.auth().user_grant_role(by(root, grant)).await.unwrap();
}

/// Waits until so many contend.
async fn until_contenders(land: &Land, root: &str, count: i64) {
    let all = pb::RangeRequest { key: "k/lock/".into(), range_end: "k/lock0".into(), ..Default::default() };
    while land.kv().range(by(root, all.clone())).await.unwrap().into_inner().count != count {
        Timer::after(Duration::from_millis(10)).await;
    }
}

/// Waits for a lock, or for an election by the same name; whoever gets it is told the key.
fn contend(land: &Land, token: &str, lease: i64, is_election: bool) -> Task<Result<bytes::Bytes, Status>> {
    let (channel, token) = (land.channel.clone(), token.to_owned());
    smol::spawn(async move {
        let name = bytes::Bytes::from("k/lock");
        if is_election {
            let campaign = CampaignRequest { name, lease, value: "v".into() };
            let won = ElectionClient::new(channel).campaign(by(&token, campaign)).await?;
            Ok(won.into_inner().leader.unwrap().key)
        } else {
            let lock = pb_lock::LockRequest { name, lease };
            Ok(LockClient::new(channel).lock(by(&token, lock)).await?.into_inner().key)
        }
    })
}

/// Whoever may not contend any more by the time of its turn does not get the lock, and does not keep it from the next either, though it may delete nothing.
#[test]
fn who_waits_for_a_lock_is_looked_at_again_before_it_has_it() {
    let changes =
        [Change::Deleted, Change::OtherPassword, Change::RoleTaken("writes"), Change::RoleTaken("reads")];
    for (number, change) in changes.into_iter().enumerate() {
        run(async {
            let land = Land::new().await;
            let root = land.token("root").await;
            grant(&land, &root, "writer", "reads").await;
            for id in [5, 6] {
                let grant = pb::LeaseGrantRequest { ttl: 600, id };
                LeaseClient::new(land.channel.clone()).lease_grant(by(&root, grant)).await.unwrap();
            }
            let is_election = number % 2 == 1;
            let held = contend(&land, &root, Land::LEASE, is_election).await.unwrap();
            let waiting = contend(&land, &land.token("writer").await, 5, is_election);
            until_contenders(&land, &root, 2).await;
            let behind = contend(&land, &root, 6, is_election);
            until_contenders(&land, &root, 3).await;
            change.happen(&land, &root, "writer").await;
            let unlock = by(&root, pb_lock::UnlockRequest { key: held });
            LockClient::new(land.channel.clone()).unlock(unlock).await.unwrap();
            told(waiting.await, (Code::Unknown, change.refusal().1));
            assert_eq!(behind.await.unwrap(), "k/lock/6", "{change:?}");
        });
    }
}

/// A key that was there before the call is not the server's to take back.
#[test]
fn whoever_may_write_no_more_has_no_key_deleted_that_it_found() {
    run(async {
        let land = Land::new().await;
        let root = land.token("root").await;
        grant(&land, &root, "writer", "reads").await;
        let grant = pb::LeaseGrantRequest { ttl: 600, id: 5 };
        LeaseClient::new(land.channel.clone()).lease_grant(by(&root, grant)).await.unwrap();
        let held = contend(&land, &root, Land::LEASE, false).await.unwrap();
        let mine = pb::PutRequest { key: "k/lock/5".into(), value: "root's".into(), ..Default::default() };
        land.kv().put(by(&root, mine)).await.unwrap();
        let waiting = contend(&land, &land.token("writer").await, 5, false);
        // It has found the key, and waits.
        Timer::after(Duration::from_millis(300)).await;
        Change::RoleTaken("writes").happen(&land, &root, "writer").await;
        let unlock = by(&root, pb_lock::UnlockRequest { key: held });
        LockClient::new(land.channel.clone()).unlock(unlock).await.unwrap();
        told(waiting.await, (Code::Unknown, DENIED.1));
        Timer::after(Duration::from_millis(300)).await;
        let key = pb::RangeRequest { key: "k/lock/5".into(), ..Default::default() };
        assert_eq!(land.kv().range(by(&root, key)).await.unwrap().into_inner().count, 1, "it is root's");
    });
}

#[test]
fn a_token_that_has_ended_gets_no_lock() {
    run(async {
        let mut setup = Setup::default();
        let tokens = TokenKind::Simple(Duration::from_secs(2));
        setup.options.logins = LoginOptions { tokens, bcrypt_cost: 4 };
        let land = Land::with(setup).await;
        let root = land.token("root").await;
        let grant = pb::LeaseGrantRequest { ttl: 600, id: 5 };
        LeaseClient::new(land.channel.clone()).lease_grant(by(&root, grant)).await.unwrap();
        let held = contend(&land, &root, Land::LEASE, false).await.unwrap();
        let waiting = contend(&land, &land.token("root").await, 5, false);
        until_contenders(&land, &root, 2).await;
        Timer::after(Duration::from_secs(4)).await;
        let root = land.token("root").await;
        let unlock = by(&root, pb_lock::UnlockRequest { key: held });
        LockClient::new(land.channel.clone()).unlock(unlock).await.unwrap();
        told(waiting.await, (Code::Unknown, NO_TOKEN.1));
        until_contenders(&land, &root, 0).await;
    });
}

/// So many keys that no stream of them is ahead of its client's reading to the end.
async fn fill(land: &Land, token: &str) {
    for number in 0..LARGE_KEYS {
        let (key, value) = (format!("k/{number:02}").into(), vec![b'v'; LARGE_BYTES].into());
        land.kv().put(by(token, pb::PutRequest { key, value, ..Default::default() })).await.unwrap();
    }
}

async fn narrow(land: &Land) -> Channel {
    Channel::narrow(land.server.connect().await, WINDOW).await.unwrap()
}

/// How a stream ends that must not come to its end.
async fn end<T>(mut stream: Streaming<T>) -> Status {
    loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("all of it came"),
            Err(status) => return status,
        }
    }
}

/// A range of many chunks, and a snapshot: the one begun by a user whose rights have changed, and both by nobody before everybody had to be somebody.
#[test]
fn what_is_read_in_pieces_ends_with_the_right_to_read_it() {
    let range = || pb::RangeRequest { key: "k/".into(), range_end: "k0".into(), ..Default::default() };
    for change in [Change::Deleted, Change::OtherPassword, Change::RoleTaken("reads")] {
        run(async {
            let land = Land::new().await;
            let root = land.token("root").await;
            fill(&land, &root).await;
            let reader = land.token("reader").await;
            let mut client = KvClient::new(narrow(&land).await);
            let mut stream = client.range_stream(by(&reader, range())).await.unwrap().into_inner();
            stream.message().await.unwrap().unwrap();
            change.happen(&land, &root, "reader").await;
            told(Err::<(), _>(end(stream).await), change.refusal());
        });
    }
    run(async {
        let land = Land::new().await;
        let root = land.token("root").await;
        grant(&land, &root, "reader", "root").await;
        fill(&land, &root).await;
        let mut maintenance = MaintenanceClient::new(narrow(&land).await);
        for change in [Change::OtherPassword, Change::RoleTaken("root")] {
            let password = if matches!(change, Change::OtherPassword) { "reader" } else { "another" };
            let token = land.log_in("reader", password).await.unwrap();
            let request = by(&token, pb::SnapshotRequest {});
            let mut image = maintenance.snapshot(request).await.unwrap().into_inner();
            image.message().await.unwrap().unwrap();
            change.happen(&land, &root, "reader").await;
            told(Err::<(), _>(end(image).await), change.refusal());
        }
        land.auth().auth_disable(by(&root, pb::AuthDisableRequest {})).await.unwrap();
        let mut kv = KvClient::new(narrow(&land).await);
        let mut stream = kv.range_stream(range()).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        let mut image = maintenance.snapshot(pb::SnapshotRequest {}).await.unwrap().into_inner();
        image.message().await.unwrap().unwrap();
        land.auth().auth_enable(pb::AuthEnableRequest {}).await.unwrap();
        told(Err::<(), _>(end(stream).await), NO_USER);
        told(Err::<(), _>(end(image).await), DENIED);
    });
}

async fn watch(channel: &Channel, token: Option<&str>) -> Streaming<pb::WatchResponse> {
    let create = pb::WatchCreateRequest { key: "k/1".into(), ..Default::default() };
    let create =
        pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    let mut request = Request::new(smol::stream::once(create).chain(smol::stream::pending()));
    if let Some(token) = token {
        request.metadata_mut().insert("token", token.parse().unwrap());
    }
    let mut answers = WatchClient::new(channel.clone()).watch(request).await.unwrap().into_inner();
    let created = answers.message().await.unwrap().unwrap();
    assert!(created.created && !created.canceled);
    answers
}

/// What was begun by a token of a password ends with that password; who came by a certificate has shown none.
#[test]
fn a_watcher_ends_with_the_password_that_its_token_was_given_for() {
    run(async {
        let mut setup = Setup::default();
        setup.options.logins.bcrypt_cost = 4;
        let shore = Shore::with(true, setup).await;
        let land = &shore.land;
        let root = land.token("root").await;
        let certified = shore.channel("certified").await;
        let mut by_certificate = watch(&certified, None).await;
        let mut by_token = watch(&land.channel, Some(&land.token("reader").await)).await;
        let mut by_another = watch(&land.channel, Some(&root)).await;
        for user in ["certified", "reader"] {
            Change::OtherPassword.happen(land, &root, user).await;
        }
        land.writes(&root).await.unwrap();
        for going_on in [&mut by_certificate, &mut by_another] {
            assert_eq!(going_on.message().await.unwrap().unwrap().events.len(), 1);
        }
        let told = by_token.message().await.unwrap().unwrap();
        let reason = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
        assert_eq!((told.canceled, told.events.len(), told.cancel_reason.as_str()), (true, 0, reason));
    });
}
