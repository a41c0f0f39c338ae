//! Users and their tokens, where there are several members.

use std::time::Duration;

use covey::wire::etcdserverpb as pb;
use smol::future::zip;
use smol::{Timer, block_on};
use tonic::{Code, Status};

use crate::client::kv_client;
use crate::process::{Cluster, Host, until};
use crate::users::{by, enable, meet, read, try_log_in};

/// A cluster with users, whose members know each other.
fn cluster() -> Cluster {
    let cluster = Cluster::start(3);
    enable(&cluster.hosts[0]);
    meet(&cluster.hosts, "root");
    cluster
}

async fn write(host: &Host, token: &str) -> Result<(), Status> {
    let put = pb::PutRequest { key: "k/1".into(), ..Default::default() };
    kv_client(host).await?.put(by(token, put)).await.map(drop)
}

/// As with etcd: it cannot know which of them have ended meanwhile. What is made anywhere since it is back is good there as everywhere.
#[test]
fn a_member_that_begins_anew_takes_no_token_from_before() {
    let mut cluster = cluster();
    let before = try_log_in(&cluster.hosts[0], "root").unwrap();
    for host in &cluster.hosts {
        read(host, &before, "k/1", false).unwrap();
    }
    cluster.hosts[1].kill();
    cluster.hosts[1].start(&[]);
    until("it is back, and known to be", || {
        let since = try_log_in(&cluster.hosts[0], "root").ok()?;
        read(&cluster.hosts[1], &since, "k/1", false).ok()
    });
    let refused = read(&cluster.hosts[1], &before, "k/1", false).unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unauthenticated, "etcdserver: invalid auth token")
    );
    for other in [0, 2] {
        read(&cluster.hosts[other], &before, "k/1", false).unwrap();
    }
    for maker in 0..3 {
        let since = try_log_in(&cluster.hosts[maker], "root").unwrap();
        for host in &cluster.hosts {
            read(host, &since, "k/1", false).unwrap();
        }
    }
}

/// A member that cannot have heard yet that authentication is on takes whoever has logged in at another one for somebody.
#[test]
fn a_member_that_lags_takes_tokens_all_the_same() {
    let cluster = cluster();
    for round in 0..5 {
        cluster.hosts[0].must(&["--user", "root:root", "auth", "disable"]);
        let leader = cluster.leader();
        let [leader, lags] = [leader, (leader + 1) % 3].map(|n| &cluster.hosts[n]);
        lags.must(&["get", "k/1"]);
        lags.signal("-STOP");
        leader.must(&["auth", "enable"]);
        let token = try_log_in(leader, "root").unwrap();
        let goes_on = async {
            Timer::after(Duration::from_millis(300)).await;
            lags.signal("-CONT");
        };
        let writes = async { zip(write(lags, &token), write(lags, &token)).await };
        let ((one, other), ()) = block_on(zip(writes, goes_on));
        assert!(one.is_ok() && other.is_ok(), "round {round}: {one:?} {other:?}");
    }
}
