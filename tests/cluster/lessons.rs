//! Situations in which etcd has gone wrong, with several members as processes. The numbers are those of its issues.
//!
//! Owns: those that need processes, and the list of where the others are. Must never: look at anything but what clients see, save for whether
//! the situation was reached.
//!
//! | etcd's issue | where |
//! | --- | --- |
//! | 13766, 14370 | `tests/sim`: a crash at every operation of the disk (`crash_points`), and both bugs planted (`planted`) |
//! | 15220, 17780, 18089, 19179, 20221 | `revisions` |
//! | 14685, 15271, 17529, 18667, 20418 | here |

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use covey::wire::etcdserverpb as pb;
use pb::maintenance_client::MaintenanceClient;
use pb::request_op::Request;
use pb::watch_request::RequestUnion;
use smol::block_on;
use smol::stream;
use tonic::{Code, Status, Streaming};

use crate::client::{self, kv_client, put};
use crate::process::{Cluster, Host, until, wait};
use crate::revisions::{events, from, next, state};

/// Puts a key with so many bytes as its value.
async fn put_bytes(host: &Host, key: &str, bytes: usize) -> Result<i64, Status> {
    put(host, key, &"v".repeat(bytes)).await
}

async fn compact(host: &Host, revision: i64) -> Result<(), Status> {
    kv_client(host).await?.compact(pb::CompactionRequest { revision, physical: false }).await.map(drop)
}

/// All members are at the same revision with the same keys.
fn agree(cluster: &Cluster) {
    until("members that agree", || {
        let states: Vec<_> = cluster.hosts.iter().map(state).collect();
        states.windows(2).all(|two| two[0] == two[1]).then_some(())
    });
}

/// 14685: a defragmentation made the state durable without the position in the log that it belongs to. After a crash in the middle of one,
/// entries took effect a second time.
///
/// What is written at any time here is rows and position in one commit, and a defragmentation writes nothing of its own; it waits for the
/// removal of what was compacted.
#[test]
fn nothing_takes_effect_twice_after_a_crash_while_defragmenting() {
    /// So large that the state is folded several times in each round.
    const VALUE_BYTES: usize = 100_000;
    let mut cluster = Cluster::start(3);
    let written = &AtomicU64::new(0);
    for victim in 0..3 {
        block_on(compact(&cluster.hosts[victim], state(&cluster.hosts[victim]).0)).unwrap();
        let (hosts, stop) = (&mut cluster.hosts, &AtomicBool::new(false));
        let endpoint = &hosts[victim].endpoint.clone();
        thread::scope(|scope| {
            let (before, rest) = hosts.split_at_mut(victim);
            let (lost, after) = rest.split_first_mut().unwrap();
            for host in before.iter().chain(&*after) {
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        // Of one that fails the outcome is unknown: no other write has its key.
                        let number = written.fetch_add(1, Ordering::Relaxed);
                        drop(block_on(put_bytes(host, &format!("key{number}"), VALUE_BYTES)));
                    }
                });
            }
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    drop(block_on(defragment(endpoint)));
                    wait(Duration::from_millis(5));
                }
            });
            wait(Duration::from_secs(1));
            lost.kill();
            stop.store(true, Ordering::Relaxed);
        });
        cluster.hosts[victim].start(&[]);
        cluster.wait_ready();
        agree(&cluster);
        for host in &cluster.hosts {
            let once = |kv: &covey::wire::mvccpb::KeyValue| kv.version == 1;
            assert!(block_on(all_keys(host)).iter().all(once), "{} has written twice", host.name);
        }
    }
    assert!(written.load(Ordering::Relaxed) > 100, "they wrote");
}

async fn defragment(endpoint: &str) -> Result<(), Status> {
    let mut client = MaintenanceClient::new(client::channel_to(endpoint).await?);
    client.defragment(pb::DefragmentRequest {}).await.map(drop)
}

async fn all_keys(host: &Host) -> Vec<covey::wire::mvccpb::KeyValue> {
    let (key, range_end) = (bytes::Bytes::from_static(&[0]), bytes::Bytes::from_static(&[0]));
    let range = pb::RangeRequest { key, range_end, keys_only: true, ..Default::default() };
    kv_client(host).await.unwrap().range(range).await.unwrap().into_inner().kvs
}

/// 15271: a watcher that had been told everything was, once its member had come to a state of another member's, told again what
/// it had been told last.
#[test]
fn a_watcher_is_told_nothing_twice_when_its_member_takes_another_members_state() {
    let cluster = Cluster::start(3);
    block_on(async {
        let (mut watcher, seen, last) = take_another_state(&cluster, false).await;
        assert_eq!(events(&mut watcher, last).await.first().unwrap().0, seen + 1);
        // What it has missed is compacted in the state that came.
        let (mut watcher, mut seen, last) = take_another_state(&cluster, true).await;
        let end = loop {
            let response = next(&mut watcher).await;
            for event in response.events {
                // What was on its way to it when it stood still.
                seen += 1;
                assert_eq!(event.kv.unwrap().mod_revision, seen);
            }
            if response.canceled {
                break response.compact_revision;
            }
        };
        assert!(end > seen + 1 && end < last, "compacted at {end}, after {seen} of {last}");
    });
}

/// Has a follower take the leader's state; a watcher of the follower, the last revision that it was told, and the last one that there is.
async fn take_another_state(cluster: &Cluster, compacts: bool) -> (Streaming<pb::WatchResponse>, i64, i64) {
    /// More than a leader keeps of its log.
    const BULK: usize = 24;
    const BULK_BYTES: usize = 1 << 20;
    const TOLD: usize = 20;
    let leader = cluster.leader();
    let late = &cluster.hosts[(leader + 1) % 3];
    let store = || std::fs::metadata(late.data_dir.join("store.redb")).unwrap().ino();
    let mut seen = put(&cluster.hosts[leader], "key", "first").await.unwrap();
    let mut watcher = client::watch(late, from(seen), stream::pending(), false).await;
    for _ in 0..TOLD {
        seen = put(&cluster.hosts[leader], "key", "told").await.unwrap();
    }
    assert_eq!(events(&mut watcher, seen).await.len(), 1 + TOLD);
    let file = store();
    late.signal("-STOP");
    let mut last = seen;
    for _ in 0..BULK {
        last = put_bytes(&cluster.hosts[leader], "bulk", BULK_BYTES).await.unwrap();
    }
    if compacts {
        compact(&cluster.hosts[leader], last).await.unwrap();
        defragment(&cluster.hosts[leader].endpoint).await.unwrap();
    }
    late.signal("-CONT");
    until("the late one has another state", || (store() != file).then_some(()));
    for _ in 0..3 {
        last = put(&cluster.hosts[leader], "key", "new").await.unwrap();
    }
    (watcher, seen, last)
}

/// 17529: watchers of one stream that its client did not read were behind when what they had to come was compacted. They went on after it
/// and said nothing of the gap.
#[test]
fn a_starved_watcher_that_is_overtaken_by_a_compaction_is_told_so() {
    const WATCHERS: i64 = 6;
    const WRITES: usize = 600;
    const VALUE_BYTES: usize = 64 << 10;
    let cluster = Cluster::start(3);
    let host = &cluster.hosts[0];
    block_on(async {
        let first = put(host, "key", "value").await.unwrap();
        let more = (1..WATCHERS).map(move |_| {
            let create = RequestUnion::CreateRequest(from(first));
            pb::WatchRequest { request_union: Some(create) }
        });
        let mut responses = client::watch(
            host,
            from(first),
            stream::StreamExt::chain(stream::iter(more), stream::pending()),
            false,
        )
        .await;
        let mut last = first;
        for _ in 0..WRITES {
            last = put_bytes(&cluster.hosts[1], "key", VALUE_BYTES).await.unwrap();
        }
        compact(&cluster.hosts[2], last).await.unwrap();
        let (mut seen, mut ended) = (BTreeMap::new(), 0);
        while ended < WATCHERS {
            let response = next(&mut responses).await;
            let seen = seen.entry(response.watch_id).or_insert(first - 1);
            for event in response.events {
                assert_eq!(event.kv.unwrap().mod_revision, *seen + 1, "watcher {}", response.watch_id);
                *seen += 1;
            }
            if response.canceled {
                assert!(response.compact_revision == last && *seen < last - 1, "after {seen}");
                ended += 1;
            }
            assert!(*seen < last, "this watcher was not starved");
        }
    });
}

/// 18667: members left the reads out of transactions that others had asked for. One that reads a compacted revision fails, and so it did for
/// the member that was asked, while the others wrote what else was in it.
///
/// Here, too, nobody reads for nobody (`mvcc::writer`); whether a transaction may read is looked at by all.
#[test]
fn a_transaction_that_reads_what_is_compacted_fails_on_all_members() {
    let cluster = Cluster::start(3);
    block_on(async {
        let first = put(&cluster.hosts[0], "key", "one").await.unwrap();
        let last = put(&cluster.hosts[0], "key", "two").await.unwrap();
        compact(&cluster.hosts[0], last).await.unwrap();
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        let future = "etcdserver: mvcc: required revision is a future revision";
        for host in &cluster.hosts {
            for (revision, why) in [(first, compacted), (last + 100, future)] {
                let put = pb::PutRequest { key: "other".into(), value: "x".into(), ..Default::default() };
                let range = pb::RangeRequest { key: "key".into(), revision, ..Default::default() };
                let success = [Request::RequestPut(put), Request::RequestRange(range)];
                let success = success.map(|request| pb::RequestOp { request: Some(request) }).to_vec();
                let txn = pb::TxnRequest { success, ..Default::default() };
                let refused = kv_client(host).await.unwrap().txn(txn).await.unwrap_err();
                assert_eq!((refused.code(), refused.message()), (Code::OutOfRange, why), "{}", host.name);
            }
        }
        let after = put(&cluster.hosts[1], "key", "three").await.unwrap();
        assert_eq!(after, last + 1, "no transaction was anything but refused");
    });
    agree(&cluster);
}

/// 20418: a member that had asked for a read index in vain asked again under the same number. While leaders stood still and
/// changed, it took the answer to its first question for one to its second, and what it read was older than what others had been told.
#[test]
fn reads_that_wait_while_a_leader_is_paused_are_not_older_than_what_was_written_meanwhile() {
    let cluster = Cluster::start(3);
    for round in 0..4 {
        let leader = cluster.leader();
        let others = [(leader + 1) % 3, (leader + 2) % 3];
        until("an old value", || cluster.hosts[others[0]].run(&["put", "key", &format!("old{round}")]).ok());
        cluster.hosts[leader].signal("-STOP");
        thread::scope(|scope| {
            // They find out what to read at from whom stands still, and then from whom follows it.
            for host in others.iter().cycle().take(6) {
                scope.spawn(|| drop(cluster.hosts[*host].run(&["get", "key"])));
            }
            let value = format!("new{round}");
            until("a write without the leader", || {
                cluster.hosts[others[1]].run(&["put", "key", &value]).ok()
            });
            let late = cluster.hosts.iter().cycle().take(9);
            let late: Vec<_> = late.map(|host| scope.spawn(|| host.run(&["get", "key"]))).collect();
            wait(Duration::from_millis(200));
            cluster.hosts[leader].signal("-CONT");
            let read: Vec<_> = late.into_iter().filter_map(|read| read.join().unwrap().ok()).collect();
            assert!(read.len() > 3, "{} reads were answered", read.len());
            assert!(read.iter().all(|read| *read == format!("key\n{value}\n")), "{read:?}");
        });
    }
}
