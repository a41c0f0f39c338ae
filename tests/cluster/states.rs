//! Members whose states differ, or are damaged: what is found out, and what becomes of it.

use std::fs;

use covey::formation::{STORE_NAME, SUSPECT_NAME};
use covey::ids::{Digest, LeaseId, VersionId};
use covey::runtime::files::RealDirectory;
use covey::store::{Change, ChangeKind, FoldBatch, Store, StoreOptions};
use covey::telemetry::EXIT_STORE_DAMAGED;
use covey::wire::etcdserverpb as pb;

use crate::client::maintenance_client;
use crate::process::{Cluster, Host, until};

const COMPARE: [&str; 2] = ["--corrupt-check-time", "1s"];

/// A cluster that compares often, with something in it.
fn start(members: usize) -> Cluster {
    let mut cluster = Cluster::prepare(members);
    let initial = cluster.initial();
    for host in &mut cluster.hosts {
        host.start(&["--initial-cluster", &initial, COMPARE[0], COMPARE[1]]);
    }
    cluster.wait_ready();
    cluster.hosts[0].must(&["put", "key", "value"]);
    cluster
}

fn stop(host: &mut Host) {
    host.signal("-TERM");
    assert_eq!(host.ended(), 0);
}

/// Puts into the state of a member that does not run what no other has.
fn spoil(host: &Host) {
    let root = RealDirectory::open(&host.data_dir).unwrap();
    let mut store = Store::open_in(&root, STORE_NAME, StoreOptions::default()).unwrap();
    let mut meta = store.meta().clone();
    meta.revision = meta.revision.next();
    meta.digest = Digest(!meta.digest.0);
    let (create_revision, version, lease) = (meta.revision, 1, LeaseId::NONE);
    let kind = ChangeKind::Put { value: "from nowhere".into(), create_revision, version, lease };
    let change = (VersionId { main: meta.revision, sub: 0 }, Change { key: "spoiled".into(), kind });
    store
        .fold(&FoldBatch { changes: [change].into_iter().collect(), leases: Vec::new(), sweep: None, meta })
        .unwrap();
    store.close().unwrap();
}

fn is_suspect(host: &Host) -> bool {
    host.data_dir.join(SUSPECT_NAME).exists()
}

fn hash(host: &Host) -> (i64, u32) {
    smol::block_on(async {
        let mut client = maintenance_client(host).await.unwrap();
        let hash = client.hash_kv(pb::HashKvRequest { revision: 0 }).await.unwrap().into_inner();
        (hash.header.unwrap().revision, hash.hash)
    })
}

/// All members have the same keys, and nothing that no client has put.
fn check_equal(cluster: &Cluster) {
    cluster.hosts[0].must(&["put", "last", "one"]);
    for host in &cluster.hosts {
        assert_eq!(host.must(&["get", "last"]), "last\none\n");
        assert_eq!(host.must(&["get", "spoiled"]), "");
        assert_eq!(host.must(&["get", "key"]), "key\nvalue\n");
        assert_eq!(hash(host), hash(&cluster.hosts[0]), "{}", host.name);
    }
}

#[test]
fn a_member_that_has_come_apart_from_the_majority_takes_its_state() {
    let mut cluster = start(3);
    let victim = (cluster.leader() + 1) % 3;
    stop(&mut cluster.hosts[victim]);
    spoil(&cluster.hosts[victim]);
    cluster.hosts[victim].start(&COMPARE);
    let code = cluster.hosts[victim].ended();
    assert_eq!(code, 1, "{}", cluster.hosts[victim].log());
    let log = cluster.hosts[victim].log();
    assert!(log.contains("the state of this member is not that of the majority"), "{log}");
    assert!(is_suspect(&cluster.hosts[victim]));

    cluster.hosts[victim].start(&COMPARE);
    cluster.wait_ready();
    assert!(!is_suspect(&cluster.hosts[victim]));
    check_equal(&cluster);
}

/// Leading proves nothing: the one that is wrong goes, whoever it is.
#[test]
fn a_leader_that_has_come_apart_goes_too() {
    let mut cluster = start(3);
    let victim = cluster.leader();
    stop(&mut cluster.hosts[victim]);
    spoil(&cluster.hosts[victim]);
    cluster.hosts[victim].start(&["--corrupt-check-time", "8s"]);
    cluster.wait_ready();
    let id = cluster.hosts[victim].must(&["endpoint", "status"]).split(", ").nth(1).unwrap().to_owned();
    make_leader(&cluster, &id, victim);
    let said = "members have another state than the majority";
    let other = &cluster.hosts[(victim + 1) % 3];
    until("the others notice", || other.log().contains(said).then_some(()));
    // It leads until it has compared.
    assert!(cluster.hosts[victim].leads());
    assert_eq!(cluster.hosts[victim].ended(), 1, "{}", cluster.hosts[victim].log());
    cluster.hosts[victim].start(&COMPARE);
    cluster.wait_ready();
    check_equal(&cluster);
}

fn make_leader(cluster: &Cluster, id: &str, host: usize) {
    let target = u64::from_str_radix(id, 16).unwrap();
    until("another leader", || {
        let leader = cluster.leader();
        let moved = smol::block_on(async {
            let mut client = maintenance_client(&cluster.hosts[leader]).await?;
            client.move_leader(pb::MoveLeaderRequest { target_id: target }).await
        });
        (moved.is_ok() && cluster.hosts[host].leads()).then_some(())
    });
}

/// Of two, nobody can say which one is right: what is there can be read, and nothing more is built on it.
#[test]
fn where_no_majority_decides_an_alarm_stops_all_writes() {
    let mut cluster = start(2);
    stop(&mut cluster.hosts[1]);
    spoil(&cluster.hosts[1]);
    cluster.hosts[1].start(&COMPARE);
    let refused = until("writes are refused", || cluster.hosts[0].run(&["put", "other", "one"]).err());
    assert!(refused.contains("corrupt cluster"), "{refused}");
    assert!(cluster.hosts[0].log().contains("there is no majority for either"));
    assert_eq!(cluster.hosts[0].must(&["get", "key"]), "key\nvalue\n");
    assert!(!is_suspect(&cluster.hosts[0]) && !is_suspect(&cluster.hosts[1]));
}

/// A bit that has changed on the disk is found by the scrub, and made good by the others.
#[test]
fn a_row_that_has_rotted_is_replaced() {
    assert_eq!(rot(|bytes, at| bytes[at] ^= 1), 1);
}

/// redb stops the process when it meets such a page: built with assertions, at the start, and else when somebody reads it.
#[test]
fn a_page_that_has_rotted_is_replaced() {
    const PAGE: usize = 4096;
    assert_eq!(rot(|bytes, at| bytes[at / PAGE * PAGE] = 0xee), EXIT_STORE_DAMAGED);
}

/// Not even a start can read it. What the member needs to know of the others lies beside it.
#[test]
fn a_store_that_cannot_be_opened_is_replaced() {
    let mut cluster = start(3);
    let victim = (cluster.leader() + 1) % 3;
    fold(&cluster.hosts[victim]);
    stop(&mut cluster.hosts[victim]);
    cluster.hosts[(victim + 1) % 3].must(&["put", "missed", "one"]);
    ruin(&cluster.hosts[victim]);
    cluster.hosts[victim].start(&[]);
    cluster.wait_ready();
    let log = cluster.hosts[victim].log();
    assert!(log.contains("the store cannot be opened: another member's state takes its place"), "{log}");
    assert!(!is_suspect(&cluster.hosts[victim]));
    assert_eq!(cluster.hosts[victim].must(&["get", "missed"]), "missed\none\n");
    check_equal(&cluster);
}

/// There is nobody to take another state from.
#[test]
fn a_store_that_cannot_be_opened_is_refused_by_whoever_votes_alone() {
    let mut cluster = Cluster::prepare(1);
    let host = &mut cluster.hosts[0];
    host.start(&["--solo"]);
    until("it serves", || host.run(&["put", "key", "value"]).ok());
    fold(host);
    stop(host);
    ruin(host);
    for _ in 0..2 {
        host.start(&[]);
        assert_eq!(host.ended(), 1, "{}", host.log());
        assert!(!is_suspect(host));
    }
    assert!(host.log().contains("the store cannot be used"), "{}", host.log());
}

/// Spoils the page that redb begins with.
fn ruin(host: &Host) {
    let path = host.data_dir.join(STORE_NAME);
    let mut bytes = fs::read(&path).unwrap();
    bytes[..4096].fill(0xee);
    fs::write(&path, bytes).unwrap();
}

/// A compaction is folded at once, and all that came before with it.
fn fold(host: &Host) {
    host.must(&["compact", &hash(host).0.to_string(), "--physical"]);
}

/// Spoils the store's file wherever a value lies in it, and looks whether the member comes back whole; the exit code with which it noticed.
fn rot(spoil: fn(&mut [u8], usize)) -> i32 {
    let mut cluster = start(3);
    // Large enough for a page of its own, which is not the first or the last of its tree.
    let value = "0123456789abcdef".repeat(4000);
    for n in 0..10 {
        cluster.hosts[0].must(&["put", &format!("sound {n}"), &"x".repeat(2000)]);
        if n == 5 {
            cluster.hosts[0].must(&["put", "rotten", &value]);
        }
    }
    let victim = &mut cluster.hosts[2];
    until("it has all", || (!victim.must(&["get", "sound 9"]).is_empty()).then_some(()));
    fold(victim);
    let path = victim.data_dir.join(STORE_NAME);
    let places = |bytes: &[u8]| -> Vec<usize> {
        let windows = bytes.windows(value.len()).enumerate();
        windows.filter(|(_, window)| *window == value.as_bytes()).map(|(at, _)| at).collect()
    };
    until("it is in the store", || (!places(&fs::read(&path).unwrap()).is_empty()).then_some(()));
    stop(victim);
    let mut bytes = fs::read(&path).unwrap();
    for at in places(&bytes) {
        spoil(&mut bytes, at);
    }
    fs::write(&path, bytes).unwrap();
    victim.start(&[]);
    let code = victim.ended();
    assert!(is_suspect(victim), "{}", victim.log());
    victim.start(&[]);
    cluster.wait_ready();
    assert_eq!(cluster.hosts[2].must(&["get", "rotten"]), format!("rotten\n{value}\n"));
    check_equal(&cluster);
    code
}
