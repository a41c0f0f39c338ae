//! What Prometheus makes of a member's metrics: etcd's own alerts and dashboard find what they name.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use covey::wire::v3lockpb::lock_client::LockClient;
use covey::wire::{etcdserverpb as pb, v3lockpb};
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use pb::maintenance_client::MaintenanceClient;
use smol::{block_on, stream};
use tonic::{Code, Request, Status};

use crate::client::{channel, channel_to, watch};
use crate::process::{Cluster, Host, PATIENCE, until, wait};
use crate::slow_disk::{DELAY, SlowSyncs};

/// See its first lines.
const MIXIN: &str = include_str!("mixin.txt");
/// What promtool has against names, which are etcd's.
const AGAINST_NAMES: [&str; 13] = [
    "etcd_debugging_lease_ttl_total non-counter metrics should not have \"_total\" suffix",
    "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds use base unit \"seconds\" instead of \"milliseconds\"",
    "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds use base unit \"seconds\" instead of \"milliseconds\"",
    "etcd_debugging_mvcc_keys_total non-counter metrics should not have \"_total\" suffix",
    "etcd_debugging_mvcc_slow_watcher_total non-counter metrics should not have \"_total\" suffix",
    "etcd_debugging_mvcc_watch_stream_total non-counter metrics should not have \"_total\" suffix",
    "etcd_debugging_mvcc_watcher_total non-counter metrics should not have \"_total\" suffix",
    "etcd_disk_wal_write_bytes_total non-counter metrics should not have \"_total\" suffix",
    "etcd_server_health_failures counter metrics should have \"_total\" suffix",
    "etcd_server_health_success counter metrics should have \"_total\" suffix",
    "etcd_server_learner_promote_successes counter metrics should have \"_total\" suffix",
    "etcd_server_proposals_applied_total non-counter metrics should not have \"_total\" suffix",
    "etcd_server_proposals_committed_total non-counter metrics should not have \"_total\" suffix",
];

/// So often is looked how long a round trip takes after one that took long.
const LOOKS: usize = 10;
/// Bytes that a store may hold, ...
const QUOTA: u32 = 2_000_000;
/// ... and of a value of which many go into it.
const VALUE: usize = 20_000;
/// Much longer than the bound of alerts for a round trip.
const STOPPED: Duration = Duration::from_millis(2100);

fn start() -> Cluster {
    let mut cluster = Cluster::prepare(2);
    let initial = cluster.initial();
    for host in &mut cluster.hosts {
        host.start(&["--initial-cluster", &initial, "--metrics=extensive"]);
    }
    cluster.wait_ready();
    cluster
}

fn scrape(host: &Host) -> String {
    let mut stream = TcpStream::connect(&host.endpoint).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// A bit of everything. The revision is that of the put.
fn drive(host: &Host, revision: &str) {
    host.must(&["put", "key", "value"]);
    host.must(&["get", "key"]);
    let granted = host.must(&["lease", "grant", "60"]);
    let id = granted.split(' ').nth(1).unwrap();
    host.must(&["lease", "keep-alive", "--once", id]);
    block_on(async {
        let create = pb::WatchCreateRequest { key: "key".into(), ..Default::default() };
        // Its client has nothing more to ask: what is left of the call ends with what is dropped.
        drop(watch(host, create, stream::empty(), false).await);
        let again = pb::LeaseGrantRequest { id: i64::from_str_radix(id, 16).unwrap(), ttl: 60 };
        LeaseClient::new(channel(host).await.unwrap()).lease_grant(again).await.unwrap_err();
    });
    // The store commits what it takes to compact it.
    host.must(&["compaction", revision]);
}

/// The sum of all samples of a series; none where there is no sample.
fn value(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let samples = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let shown = series.strip_prefix(name)?;
        let shown: Vec<&str> = match shown.strip_prefix('{') {
            Some(shown) => shown.trim_end_matches('}').split(',').collect(),
            None if shown.is_empty() => Vec::new(),
            None => return None,
        };
        let is_shown = |label: &&str| {
            shown.iter().filter_map(|shown| shown.split_once('=')).any(|(name, value)| {
                label.split_once('=').map_or(name == *label, |(wanted, exactly)| {
                    name == wanted && value.trim_matches('"') == exactly
                })
            })
        };
        labels.iter().all(is_shown).then(|| value.parse::<f64>().unwrap())
    });
    samples.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

/// The lines of the list that do not hold of what was scraped before and after.
fn unmet(before: &str, after: &str) -> Vec<&'static str> {
    let is_unmet = |row: &&str| {
        let mut words = row.split_whitespace();
        let (kind, does, name) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let labels: Vec<&str> = words.collect();
        let family = if kind == "histogram" { name.strip_suffix("_bucket").unwrap() } else { name };
        let is_of_kind = after.contains(&format!("# TYPE {family} {kind}\n"));
        let (before, after) = (value(before, name, &labels), value(after, name, &labels));
        let does_so = match does {
            "is-there" => after.is_some(),
            "is-positive" => after > Some(0.0),
            "moves" => after > before && before.is_some(),
            _ => panic!("{row}"),
        };
        !(is_of_kind && does_so)
    };
    MIXIN.lines().filter(|line| !line.starts_with('#')).filter(is_unmet).collect()
}

#[test]
fn what_etcds_alerts_and_dashboard_name_is_there_and_moves_with_traffic() {
    let cluster = start();
    for (host, revision) in cluster.hosts.iter().zip(["2", "3"]) {
        let before = scrape(host);
        drive(host, revision);
        // A commit, and the end of a stream, take a moment.
        until("all that is to move has moved", || unmet(&before, &scrape(host)).is_empty().then_some(()));
    }
}

/// What the alerts are for is seen, and counted as etcd counts it.
#[test]
fn what_etcds_alerts_are_about_moves_what_they_look_at() {
    let mut cluster = start();
    let before = scrape(&cluster.hosts[0]);
    let more =
        |now: &str, name: &str, labels: &[&str]| value(now, name, labels) > value(&before, name, labels);
    cluster.hosts[1].kill();
    let host = &cluster.hosts[0];
    let now = until("it has no leader", || {
        Some(scrape(host)).filter(|now| value(now, "etcd_server_has_leader", &[]) == Some(0.0))
    });
    assert!(!more(&now, "etcd_server_leader_changes_seen_total", &[]), "that there is none is no change");
    host.run(&["put", "key", "value"]).unwrap_err();
    until("all that fails is counted", || {
        let now = scrape(host);
        let is_counted = more(&now, "etcd_server_proposals_failed_total", &[])
            && more(&now, "etcd_network_peer_sent_failures_total", &["To"])
            && ["grpc_code=Unavailable", "grpc_code=DeadlineExceeded"]
                .iter()
                .any(|code| more(&now, "grpc_server_handled_total", &["grpc_type=unary", code]));
        is_counted.then_some(())
    });
    let initial = cluster.initial();
    cluster.hosts[1].start(&["--initial-cluster", &initial, "--metrics=extensive"]);
    until("there is a leader again", || {
        let now = scrape(&cluster.hosts[0]);
        let is_back = value(&now, "etcd_server_has_leader", &[]) == Some(1.0);
        (is_back && more(&now, "etcd_server_leader_changes_seen_total", &[])).then_some(())
    });
}

/// How many are above a bound in seconds.
fn above(text: &str, histogram: &str, bound: &str) -> f64 {
    let at_most = value(text, &format!("{histogram}_bucket"), &[&format!("le={bound}")]).unwrap();
    value(text, &format!("{histogram}_count"), &[]).unwrap() - at_most
}

/// A way that takes too long: the other member is stopped in the middle, which to the clock of this one is the same.
#[test]
fn a_way_that_is_slow_is_in_the_buckets_that_alerts_look_at() {
    let cluster = start();
    let [host, other] = &cluster.hosts[..] else { panic!("two members") };
    let slow = || above(&scrape(host), "etcd_network_peer_round_trip_time_seconds", "0.1024");
    let before = slow();
    until("a slow way is seen", || {
        other.signal("-STOP");
        // Whatever becomes of it: there is something to be answered late.
        drop(block_on(put_to(&host.endpoint, STOPPED)));
        wait(STOPPED);
        other.signal("-CONT");
        // Each look takes one of the round trips, whose mean soon is what it was.
        (0..LOOKS).any(|_| slow() > before).then_some(())
    });
}

/// A disk that takes too long, and nothing else does.
#[test]
#[ignore = "needs root and strace: .ci/run prometheus"]
fn a_sync_that_is_slow_is_in_the_buckets_that_alerts_look_at() {
    let cluster = start();
    let host = &cluster.hosts[0];
    let slow = || above(&scrape(host), "etcd_disk_wal_fsync_duration_seconds", "0.512");
    let before = slow();
    let syncs = SlowSyncs::of(host, DELAY);
    block_on(put_to(&host.endpoint, PATIENCE)).unwrap();
    // Two members have it once both have: this one's sync is over, and counted at its end.
    until("a slow sync is seen", || (slow() > before).then_some(()));
    drop(syncs);
}

/// What a put comes to, within a time that its client says.
async fn put_to(endpoint: &str, limit: Duration) -> Result<(), Status> {
    let mut request = Request::new(pb::PutRequest { key: "slow".into(), ..Default::default() });
    request.set_timeout(limit);
    KvClient::new(channel_to(endpoint).await?).put(request).await.map(drop)
}

/// Each of the codes that alerts count, but for those of damage and of mistakes of the program's.
#[test]
fn whatever_fails_is_counted_by_its_code_and_what_waits_is_seen() {
    let cluster = start();
    let [host, other] = &cluster.hosts[..] else { panic!("two members") };
    let before = scrape(host);
    let more = |now: &str, code: &str| {
        let labels = ["grpc_type=unary", &format!("grpc_code={code}")];
        value(now, "grpc_server_handled_total", &labels)
            > value(&before, "grpc_server_handled_total", &labels)
    };
    block_on(async {
        let channel = channel(host).await.unwrap();
        let value = vec![0; 8 << 20].into();
        let large = pb::PutRequest { key: "large".into(), value, ..Default::default() };
        let large = KvClient::new(channel.clone()).put(large).await.unwrap_err();
        assert_eq!(large.code(), Code::ResourceExhausted, "{large:?}");
        let lock = v3lockpb::LockRequest { name: "lock".into(), lease: 99 };
        let lock = LockClient::new(channel).lock(lock).await.unwrap_err();
        assert_eq!(lock.code(), Code::Unknown, "{lock:?}");
    });
    until("a proposal is seen that waits", || {
        other.signal("-STOP");
        let endpoint = host.endpoint.clone();
        // Until the member sees that it has nobody, or for as long as this.
        let waiting = std::thread::spawn(move || block_on(put_to(&endpoint, Duration::from_secs(1))));
        let mut is_pending = false;
        while !waiting.is_finished() && !is_pending {
            is_pending = value(&scrape(host), "etcd_server_proposals_pending", &[]) > Some(0.0);
        }
        drop(waiting.join());
        other.signal("-CONT");
        is_pending.then_some(())
    });
    other.signal("-STOP");
    until("nobody leads", || {
        let told = block_on(put_to(&host.endpoint, PATIENCE)).err()?;
        (told.code() == Code::Unavailable).then_some(())
    });
    // What is read is waited for.
    let late = block_on(async {
        let mut request = Request::new(pb::RangeRequest { key: "slow".into(), ..Default::default() });
        request.set_timeout(Duration::from_millis(100));
        KvClient::new(channel(host).await.unwrap()).range(request).await.unwrap_err()
    });
    assert_eq!(late.code(), Code::DeadlineExceeded);
    let now = scrape(host);
    for code in ["ResourceExhausted", "Unknown", "DeadlineExceeded", "Unavailable"] {
        assert!(more(&now, code), "{code}");
    }
    other.signal("-CONT");
}

/// Before the first fold as well, when nearly nothing is in the file.
#[test]
fn a_quota_that_is_nearly_used_up_is_seen_before_it_is() {
    let mut cluster = Cluster::prepare(1);
    let initial = cluster.initial();
    let quota = format!("--quota-backend-bytes={QUOTA}");
    cluster.hosts[0].start(&["--initial-cluster", &initial, &quota]);
    cluster.wait_ready();
    let host = &cluster.hosts[0];
    let refused = block_on(async {
        let mut client = KvClient::new(channel(host).await.unwrap());
        loop {
            let put =
                pb::PutRequest { key: "key".into(), value: vec![7; VALUE].into(), ..Default::default() };
            if let Err(refused) = client.put(put).await {
                break refused;
            }
        }
    });
    assert_eq!(refused.message(), "etcdserver: mvcc: database space exceeded");
    let now = scrape(host);
    let of = |name| value(&now, name, &[]).unwrap();
    let (total, used) =
        (of("etcd_mvcc_db_total_size_in_bytes"), of("etcd_mvcc_db_total_size_in_use_in_bytes"));
    let quota = of("etcd_server_quota_backend_bytes");
    assert!(quota.to_bits() == f64::from(QUOTA).to_bits(), "{quota}");
    // The bound of etcd's alert.
    assert!(total >= used && used > 0.95 * quota && used <= quota, "{used} of {total} of {quota}");
    let size = block_on(async {
        let mut client = MaintenanceClient::new(channel(host).await.unwrap());
        client.status(pb::StatusRequest {}).await.unwrap().into_inner()
    });
    assert!(
        size.db_size >= size.db_size_in_use && size.db_size_in_use > i64::from(QUOTA) / 100 * 95,
        "{size:?}"
    );
}

#[test]
#[ignore = "needs promtool: .ci/run prometheus"]
fn promtool_has_nothing_against_the_metrics_but_names_that_etcd_gave() {
    let cluster = start();
    let host = &cluster.hosts[0];
    drive(host, "2");
    let program = std::env::var("PROMTOOL_BIN").expect("the stage says where it is");
    let mut command = Command::new(program);
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(scrape(host).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let mut against: Vec<&str> = said.lines().collect();
    against.sort_unstable();
    assert_eq!(against, AGAINST_NAMES);
}
