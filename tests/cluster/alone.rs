//! A member that comes back before the others do, as after a power cut.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use covey::wire::etcdserverpb as pb;
use pb::cluster_client::ClusterClient;
use smol::block_on;
use tonic::{Code, Request};

use crate::client::{channel, kv_client, put};
use crate::process::{Cluster, Host, until};

const READY: &str = "ready to serve client requests";

/// The body of a page at the client port.
fn page(host: &Host, path: &str) -> String {
    let mut stream = TcpStream::connect(&host.endpoint).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn status(host: &Host) -> Option<String> {
    let output = host.client(&["status"]);
    (!output.stdout.is_empty()).then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn one_that_comes_back_alone_says_who_is_missing_and_shows_its_copy() {
    let mut cluster = Cluster::start(3);
    // What was written last may be in its log without its knowing that it counts.
    for n in 0..9 {
        cluster.hosts[n % 3].must(&["put", &format!("key{n}"), "value"]);
    }
    until("all has come to it", || {
        (cluster.hosts[0].must(&["get", "key7", "--consistency", "s"]) == "key7\nvalue\n").then_some(())
    });
    for host in &mut cluster.hosts {
        host.kill();
    }
    let runs = cluster.hosts[0].log().matches(READY).count();
    cluster.hosts[0].start(&[]);

    let alone = &cluster.hosts[0];
    let said = until("a status", || status(alone));
    let (line, missing) = said.lines().next().unwrap().split_once("; not reached: ").unwrap();
    assert_eq!(line, "no leader: 1 of 3 voters are reached, 2 are needed");
    assert!(["m1, m2", "m2, m1"].contains(&missing), "{said}");
    assert!(said.contains("next: bring the boxes back that are not reached"), "{said}");
    assert_eq!(alone.must(&["get", "key0", "--consistency", "s"]), "key0\nvalue\n");
    block_on(async {
        let refusal = put(alone, "key0", "other").await.unwrap_err();
        assert_eq!((refusal.code(), refusal.message()), (Code::Unavailable, "etcdserver: no leader"));
        let range = pb::RangeRequest { key: "key0".into(), ..Default::default() };
        let mut kv = kv_client(alone).await.unwrap();
        let mut strict = Request::new(range.clone());
        strict.metadata_mut().insert("hasleader", "true".parse().unwrap());
        let refusal = kv.range(strict).await.unwrap_err();
        assert_eq!((refusal.code(), refusal.message()), (Code::Unavailable, "etcdserver: no leader"));
        let refusal = kv.range(range).await.unwrap_err();
        assert_eq!((refusal.code(), refusal.message()), (Code::Unavailable, "etcdserver: request timed out"));
        let mut members = ClusterClient::new(channel(alone).await.unwrap());
        let list = members.member_list(pb::MemberListRequest { linearizable: false }).await.unwrap();
        assert_eq!(list.into_inner().members.len(), 3);
    });
    assert_eq!(page(alone, "/health"), r#"{"health":"false","reason":"RAFT NO LEADER"}"#);
    assert_eq!(page(alone, "/health?serializable=true"), r#"{"health":"true","reason":""}"#);
    assert_eq!(alone.log().matches(READY).count(), runs, "whoever waits for this waits for the cluster");

    cluster.hosts[1].start(&[]);
    cluster.hosts[2].start(&[]);
    until("a write", || cluster.hosts[0].run(&["put", "after", "x"]).ok());
    cluster.wait_ready();
    until("all are there", || status(&cluster.hosts[0]).filter(|said| said.starts_with("healthy: 3 voters")));
    until("it has said who it is in this run", || {
        (cluster.hosts[0].log().matches(READY).count() == runs + 1).then_some(())
    });
    assert_eq!(cluster.hosts[0].must(&["get", "key8"]), "key8\nvalue\n");
}

#[test]
fn one_that_waits_for_the_others_to_found_a_cluster_says_so() {
    let mut cluster = Cluster::prepare(3);
    let initial = cluster.initial();
    cluster.hosts[0].start(&["--initial-cluster", &initial]);
    let said = until("a status with the others", || {
        status(&cluster.hosts[0]).filter(|said| said.contains("others on the network"))
    });
    assert!(
        said.starts_with("gathering: it waits for the other nodes that --initial-cluster names"),
        "{said}"
    );
    assert!(said.contains("  m1, ") && said.contains("  m2, "), "{said}");
    let refusal = block_on(put(&cluster.hosts[0], "key", "value")).unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable);
    assert!(refusal.message().starts_with("covey: this node is in no cluster yet"), "{refusal}");
    for host in &mut cluster.hosts[1..] {
        host.start(&["--initial-cluster", &initial]);
    }
    cluster.wait_ready();
}
