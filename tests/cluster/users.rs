//! Users in a cluster: who logs in at one member is known to all of them, and to one that came by another's state.

use covey::wire::etcdserverpb as pb;
use pb::auth_client::AuthClient;
use smol::block_on;
use tonic::{Code, Request, Status};

use crate::client::{channel, cluster_client, kv_client};
use crate::members::add;
use crate::process::{Cluster, Host, until};

const DENIED: (Code, &str) = (Code::PermissionDenied, "etcdserver: permission denied");
const NO_TOKEN: (Code, &str) = (Code::Unauthenticated, "etcdserver: invalid auth token");
const NO_USER: (Code, &str) = (Code::InvalidArgument, "etcdserver: user name is empty");

/// Turns authentication on, with `root`, and with `reader` for the keys that begin with `k/`. Passwords are names.
pub fn enable(host: &Host) {
    let commands: [&[&str]; 9] = [
        &["put", "k/1", "v"],
        &["put", "other", "v"],
        &["role", "add", "reads"],
        &["role", "grant-permission", "reads", "read", "k/", "k0"],
        &["user", "add", "root:root"],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "reader:reader"],
        &["user", "grant-role", "reader", "reads"],
        &["auth", "enable"],
    ];
    for command in commands {
        host.must(command);
    }
}

/// Asks for a token, once.
pub fn try_log_in(host: &Host, user: &str) -> Result<String, Status> {
    block_on(async {
        let request = pb::AuthenticateRequest { name: user.into(), password: user.into() };
        Ok(AuthClient::new(channel(host).await?).authenticate(request).await?.into_inner().token)
    })
}

fn log_in(host: &Host, user: &str) -> String {
    until("a login", || try_log_in(host, user).ok())
}

/// What is made at any member is good at all of them from then on: none takes a token from before its start.
pub fn meet(hosts: &[Host], user: &str) {
    for maker in hosts {
        for host in hosts {
            let reads = || read(host, &try_log_in(maker, user).ok()?, "k/1", false).ok();
            until("members know each other", reads);
        }
    }
}

/// A request with a token, or without where that is empty.
pub fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        request.metadata_mut().insert("token", token.parse().unwrap());
    }
    request
}

/// How many there are of a key.
pub fn read(host: &Host, token: &str, key: &'static str, serializable: bool) -> Result<i64, Status> {
    block_on(async {
        let range = pb::RangeRequest { key: key.into(), serializable, ..Default::default() };
        Ok(kv_client(host).await?.range(by(token, range)).await?.into_inner().count)
    })
}

fn write(host: &Host, token: &str, key: &'static str) -> Result<(), Status> {
    block_on(async {
        let put = pb::PutRequest { key: key.into(), value: "w".into(), ..Default::default() };
        kv_client(host).await?.put(by(token, put)).await.map(drop)
    })
}

fn told<T>(host: &Host, result: Result<T, Status>, (code, text): (Code, &str)) {
    let status = result.map(drop).expect_err(&host.name);
    assert_eq!((status.code(), status.message()), (code, text), "{}", host.name);
}

/// What a member says to the reader, to nobody, and to who has a token that is none.
fn check(host: &Host, reader: &str) {
    // Its own copy comes last: by then it has what there was before.
    for serializable in [false, true] {
        assert_eq!(read(host, reader, "k/1", serializable).unwrap(), 1, "{}", host.name);
        told(host, read(host, reader, "other", serializable), DENIED);
        told(host, read(host, "", "k/1", serializable), NO_USER);
        told(host, read(host, "none.1", "k/1", serializable), NO_TOKEN);
    }
    told(host, write(host, reader, "k/1"), DENIED);
    told(host, write(host, "", "k/1"), NO_USER);
}

#[test]
fn who_logs_in_at_one_member_is_known_to_all_also_when_that_one_is_gone() {
    let mut cluster = Cluster::start(3);
    enable(&cluster.hosts[0]);
    meet(&cluster.hosts, "reader");
    for issuer in &cluster.hosts {
        let token = log_in(issuer, "reader");
        for host in &cluster.hosts {
            check(host, &token);
        }
    }
    let (reader, root) = (log_in(&cluster.hosts[0], "reader"), log_in(&cluster.hosts[0], "root"));
    cluster.hosts[0].kill();
    let others = &cluster.hosts[1..];
    until("a leader", || read(&others[0], &reader, "k/1", false).ok());
    for host in others {
        check(host, &reader);
    }
    // What is taken away by one of them is by all.
    block_on(async {
        let mut auth = AuthClient::new(channel(&others[0]).await.unwrap());
        let revoke = pb::AuthUserRevokeRoleRequest { name: "reader".into(), role: "reads".into() };
        auth.user_revoke_role(by(&root, revoke)).await.unwrap();
    });
    for host in others {
        told(host, read(host, &reader, "k/1", false), DENIED);
        write(host, &root, "k/1").unwrap();
    }
}

/// It has never seen the entries that made them. A learner that has caught up serves users as the others do, and goes on with that when it votes.
#[test]
fn a_member_that_came_by_anothers_state_knows_users_and_roles() {
    let mut cluster = Cluster::start(1);
    let new = cluster.add_host();
    let id = add(&cluster, new, true).unwrap();
    enable(&cluster.hosts[0]);
    let initial = cluster.initial();
    cluster.hosts[new].start(&["--initial-cluster", &initial, "--initial-cluster-state", "existing"]);
    let (old, new) = (&cluster.hosts[0], &cluster.hosts[new]);
    // It takes no token from before its start.
    let reader = until("the new member has the state", || {
        let reader = log_in(old, "reader");
        read(new, &reader, "k/1", false).ok().map(|_| reader)
    });
    let root = log_in(old, "root");
    assert!(
        new.log().contains("the state of another member has taken the place of this one's"),
        "{}",
        new.log()
    );
    check(new, &reader);
    write(new, &root, "k/2").unwrap();
    // One that it has issued is good at the other.
    let issued = log_in(new, "reader");
    check(old, &issued);
    check(new, &issued);
    until("it votes", || {
        block_on(async {
            let promote = by(&root, pb::MemberPromoteRequest { id });
            cluster_client(old).await.ok()?.member_promote(promote).await.ok()
        })
    });
    check(new, &issued);
    check(new, &reader);
}
