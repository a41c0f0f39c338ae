//! The rendered text, read back by a strict reader of the exposition format.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Backups, Gauges, GrpcKind, GrpcMethod, Metrics, PeerTraffic, Special, render};
use crate::ids::{AuthRevision, Digest, LogIndex, MemberId, Revision};

const METHODS: [GrpcMethod; 2] = [
    GrpcMethod { service: "etcdserverpb.KV", method: "Range", kind: GrpcKind::Unary },
    GrpcMethod { service: "etcdserverpb.Watch", method: "Watch", kind: GrpcKind::BidiStream },
];

fn gauges() -> Gauges<'static> {
    Gauges {
        member: MemberId(0xab),
        server_version: "3.6.0",
        cluster_version: Some("a\"b\\c\nd"),
        has_leader: true,
        is_leader: false,
        is_learner: false,
        committed: LogIndex(9),
        applied: LogIndex(8),
        proposals_pending: 1,
        db_total_bytes: 4096,
        db_in_use_bytes: 1024,
        quota_bytes: Some(77),
        digest: (LogIndex(8), Digest(u64::MAX)),
        keys: 6,
        revision: Revision(5),
        compacted: Revision(3),
        auth_revision: AuthRevision(11),
        conflicts: 2,
        alarms: vec![(MemberId(0xab), "NOSPACE")],
        peers: vec![PeerTraffic { member: MemberId(0xcd), connected: true, metrics: Arc::default() }],
        disk_short: true,
        disk_written: &[("log", 8192), ("store", 4096)],
        disk_revisions: 12,
        disk_idle_hour: Some(512),
        backups: Some(Backups { written: 7, failed: 2, failing: true, revision: Revision(4) }),
    }
}

/// Names and values.
type Labels = Vec<(String, String)>;

/// One metric family as a strict reader understands it.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    /// Suffix of the name, labels as written (unescaped), value.
    samples: Vec<(String, Labels, f64)>,
}

/// Reads the text format; panics at anything that a strict reader would refuse.
fn read(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line ends");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(!help.is_empty());
            let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap().to_owned();
            assert!(["counter", "gauge", "histogram"].contains(&kind.as_str()));
            let before = families.insert(name.to_owned(), Family { kind, samples: Vec::new() });
            assert!(before.is_none(), "{name} twice");
            name.clone_into(&mut current);
            continue;
        }
        let (name, labels, value) = read_sample(line);
        let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} stands in {current}"));
        let family = families.get_mut(&current).unwrap();
        let suffixes: &[&str] =
            if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(suffixes.contains(&suffix), "{line}");
        family.samples.push((suffix.to_owned(), labels, value));
    }
    for (name, family) in &families {
        assert!(!family.samples.is_empty(), "{name} is empty");
        let distinct: BTreeSet<_> =
            family.samples.iter().map(|(suffix, labels, _)| (suffix, labels)).collect();
        assert_eq!(distinct.len(), family.samples.len(), "{name} has a sample twice");
        if family.kind == "histogram" {
            check_histogram(name, family);
        }
    }
    families
}

fn read_sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap();
    let name = &line[..end];
    assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{line}");
    let mut labels = Vec::new();
    let mut rest = &line[end..];
    if rest.starts_with('{') {
        rest = &rest[1..];
        loop {
            let (label, after) = rest.split_once("=\"").unwrap();
            let mut value = String::new();
            let mut chars = after.char_indices();
            let close = loop {
                match chars.next().unwrap() {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match chars.next().unwrap().1 {
                        'n' => '\n',
                        c @ ('"' | '\\') => c,
                        c => panic!("\\{c} in {line}"),
                    }),
                    (_, c) => value.push(c),
                }
            };
            labels.push((label.to_owned(), value));
            rest = &after[close + 1..];
            match rest.as_bytes()[0] {
                b',' => rest = &rest[1..],
                b'}' => break,
                _ => panic!("{line}"),
            }
        }
        rest = &rest[1..];
    }
    (name.to_owned(), labels, rest.strip_prefix(' ').unwrap().parse().unwrap())
}

/// A family may have several, which differ in their labels other than the bound.
fn check_histogram(name: &str, family: &Family) {
    type Series = (Vec<(f64, f64)>, Option<f64>, usize);
    let mut all: BTreeMap<Labels, Series> = BTreeMap::new();
    for (suffix, labels, value) in &family.samples {
        let mut labels = labels.clone();
        let bound = (suffix == "_bucket").then(|| labels.pop().unwrap());
        let (buckets, count, sums) = all.entry(labels).or_default();
        match (&suffix[..], bound) {
            ("_bucket", Some((le, bound))) => {
                assert_eq!(le, "le");
                buckets.push((bound.parse().unwrap(), *value));
            }
            ("_count", _) => *count = Some(*value),
            _ => *sums += 1,
        }
    }
    for (buckets, count, sums) in all.into_values() {
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0), "{name}");
        assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{name} is not cumulative");
        let (bound, last) = *buckets.last().unwrap();
        assert!(bound.is_infinite() && (last - count.unwrap()).abs() < f64::EPSILON, "{name}");
        assert_eq!(sums, 1, "{name}");
    }
}

#[track_caller]
fn assert_value(families: &BTreeMap<String, Family>, name: &str, kind: &str, expected: f64) {
    let family = &families[name];
    assert_eq!(family.kind, kind, "{name}");
    assert!((family.samples[0].2 - expected).abs() < 1e-9, "{name} is {}", family.samples[0].2);
}

#[test]
fn the_text_is_strictly_valid_and_shows_what_was_counted() {
    let metrics = Metrics::new(METHODS);
    metrics.puts.add(3);
    metrics.wal_fsync.observe(Duration::from_micros(1500));
    metrics.wal_fsync.observe(Duration::from_secs(60));
    metrics.client_connections.increment();
    metrics.grpc[0].started.add(1);
    metrics.grpc[0].handled(11);
    metrics.grpc[0].handled(99);
    let families = read(&metrics.render(&gauges()));

    assert_value(&families, "etcd_server_has_leader", "gauge", 1.0);
    assert_value(&families, "covey_cluster_conflicts", "gauge", 2.0);
    assert_value(&families, "covey_disk_short", "gauge", 1.0);
    assert_value(&families, "etcd_debugging_mvcc_keys_total", "gauge", 6.0);
    let written = &families["covey_disk_written_bytes_total"].samples;
    let counted: Vec<_> = written.iter().map(|(_, labels, bytes)| (labels[0].1.as_str(), *bytes)).collect();
    assert_eq!(counted, [("log", 8192.0), ("store", 4096.0)]);
    assert_value(&families, "covey_disk_revisions_total", "counter", 12.0);
    assert_value(&families, "covey_disk_idle_hour_bytes", "gauge", 512.0);
    let unknown = read(&metrics.render(&Gauges { disk_idle_hour: None, ..gauges() }));
    assert!(!unknown.contains_key("covey_disk_idle_hour_bytes"), "there was no such hour yet");
    assert_value(&families, "covey_backup_failing", "gauge", 1.0);
    assert_value(&families, "covey_backup_revision", "gauge", 4.0);
    let backups = &families["covey_backups_total"].samples;
    let counted: Vec<_> = backups.iter().map(|(_, labels, count)| (labels[0].1.as_str(), *count)).collect();
    assert_eq!(counted, [("written", 7.0), ("failed", 2.0)]);
    assert_value(&families, "etcd_server_proposals_committed_total", "gauge", 9.0);
    assert_value(&families, "etcd_server_quota_backend_bytes", "gauge", 77.0);
    assert_value(&families, "etcd_mvcc_put_total", "counter", 3.0);
    assert_value(&families, "covey_client_connections", "gauge", 1.0);
    assert_value(&families, "covey_state_digest", "gauge", 9_007_199_254_740_991.0);
    let peer = |label: &str| vec![(label.to_owned(), "cd".to_owned())];
    assert_eq!(families["etcd_network_peer_sent_bytes_total"].samples[0].1, peer("To"));
    assert_eq!(families["etcd_network_peer_received_bytes_total"].samples[0].1, peer("From"));
    assert_value(&families, "etcd_network_active_peers", "gauge", 1.0);
    assert_value(&families, "etcd_debugging_server_alarms", "gauge", 1.0);
    assert_value(&families, "covey_state_digest_index", "gauge", 8.0);
    assert_eq!(families["etcd_server_id"].samples[0].1, [("server_id".to_owned(), "ab".to_owned())]);
    let version = &families["etcd_cluster_version"].samples[0].1[0].1;
    assert_eq!(version, "a\"b\\c\nd", "escaping is undone by a reader");
    assert!(
        families.contains_key("process_resident_memory_bytes") && families.contains_key("process_open_fds")
    );

    let handled: Vec<_> =
        families["grpc_server_handled_total"].samples.iter().filter(|sample| sample.2 > 0.0).collect();
    let code = |i: usize| handled[i].1[0].1.as_str();
    assert_eq!((handled.len(), code(0), code(1)), (2, "Unknown", "OutOfRange"));
}

#[test]
fn histogram_bounds_are_etcds() {
    let metrics = Metrics::new([]);
    metrics.wal_fsync.observe(Duration::from_micros(1500));
    let text = render::render(&metrics, &gauges(), None);
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("etcd_disk_wal_fsync")).collect();
    let bounds = [
        "0.001", "0.002", "0.004", "0.008", "0.016", "0.032", "0.064", "0.128", "0.256", "0.512", "1.024",
        "2.048", "4.096", "8.192", "+Inf",
    ];
    for (line, bound) in lines.iter().zip(bounds) {
        let count = u8::from(bound != "0.001");
        assert_eq!(*line, format!("etcd_disk_wal_fsync_duration_seconds_bucket{{le=\"{bound}\"}} {count}"));
    }
    assert_eq!(
        lines[bounds.len()..],
        ["etcd_disk_wal_fsync_duration_seconds_sum 0.0015", "etcd_disk_wal_fsync_duration_seconds_count 1"]
    );
}

#[test]
fn every_method_is_there_from_the_start_with_every_code() {
    let families = read(&Metrics::new(METHODS).render(&gauges()));
    for name in ["grpc_server_started_total", "grpc_server_msg_received_total", "grpc_server_msg_sent_total"]
    {
        assert_eq!(families[name].samples.len(), METHODS.len(), "{name}");
    }
    let handled = &families["grpc_server_handled_total"].samples;
    assert_eq!(handled.len(), METHODS.len() * 17);
    let labels: Vec<(&str, &str)> = handled[17].1.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let expected = [
        ("grpc_code", "OK"),
        ("grpc_method", "Watch"),
        ("grpc_service", "etcdserverpb.Watch"),
        ("grpc_type", "bidi_stream"),
    ];
    assert_eq!(labels, expected);
}

#[test]
fn how_long_calls_take_is_shown_where_it_is_wanted() {
    assert!(!read(&Metrics::new(METHODS).render(&gauges())).contains_key("grpc_server_handling_seconds"));
    let metrics = Metrics::new(METHODS).extensive();
    metrics.grpc[0].handling.as_ref().unwrap().observe(Duration::from_millis(30));
    let families = read(&metrics.render(&gauges()));
    let samples = &families["grpc_server_handling_seconds"].samples;
    let first = samples.iter().find(|(_, _, value)| *value > 0.0).unwrap();
    assert_eq!(first.1.last().unwrap(), &("le".to_owned(), "0.05".to_owned()));
    assert_eq!(samples.len(), METHODS.len() * 14);
}

#[test]
fn nothing_counted_is_a_valid_text_too() {
    let mut gauges = gauges();
    gauges.cluster_version = None;
    gauges.quota_bytes = None;
    gauges.alarms.clear();
    gauges.peers.clear();
    let families = read(&render::render(&Metrics::new(METHODS), &gauges, None));
    assert!(!families.contains_key("etcd_cluster_version") && !families.contains_key("process_open_fds"));
    assert_value(&families, "etcd_server_quota_backend_bytes", "gauge", 0.0);
}

/// What the page says of etcd's metrics is so.
#[test]
fn the_page_of_etcds_metrics_names_those_that_are_shown_and_those_that_are_not() {
    let metrics = Metrics::new(METHODS).extensive();
    metrics.requests.promotions_failed.count("why");
    let families = read(&metrics.render(&gauges()));
    let (otherwise, left_out) = include_str!("etcd-metrics.md").split_once("## Left out").unwrap();
    let names = |part: &'static str| {
        part.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect::<Vec<_>>()
    };
    let (otherwise, left_out) = (names(otherwise), names(left_out));
    assert!(otherwise.len() >= 10 && left_out.len() >= 25, "the page was not understood");
    assert!(left_out.is_sorted());
    for name in otherwise {
        assert!(families.contains_key(name), "{name}");
    }
    for name in left_out {
        assert!(!families.contains_key(name), "{name}");
    }
}

#[test]
fn what_clients_ask_for_is_shown() {
    let metrics = Metrics::new(METHODS);
    metrics.requests.unary_versions.count(Some("3.5"));
    metrics.requests.promotions_failed.count("why \"so\"");
    metrics.requests.note(Special::Range, true, Duration::from_micros(150));
    metrics.requests.note(Special::Range, false, Duration::from_micros(50));
    metrics.requests.note(Special::RangeStream, true, Duration::from_micros(50));
    metrics.requests.note(Special::RevisionHash, true, Duration::from_millis(15));
    metrics.requests.note(Special::RevisionHash, false, Duration::from_millis(15));
    metrics.compaction_pauses.observe(Duration::from_micros(1500));
    let families = read(&metrics.render(&gauges()));
    let found = |name: &str, suffix: &str, label: (&str, &str)| {
        let samples = families[name].samples.iter().filter(|sample| sample.0 == suffix);
        let mut fitting = samples
            .filter(|sample| sample.1.iter().any(|(name, value)| (name.as_str(), value.as_str()) == label));
        fitting.next().map(|sample| sample.2)
    };
    let requests = "etcd_server_client_requests_total";
    assert_eq!(found(requests, "", ("client_api_version", "3.5")), Some(1.0));
    assert_eq!(found(requests, "", ("type", "stream")), Some(0.0), "from the start");
    let reason = ("Reason", "why \"so\"");
    assert_eq!(found("etcd_server_learner_promote_failures", "", reason), Some(1.0));
    let ranges = "etcd_server_range_duration_seconds";
    assert_eq!(found(ranges, "_bucket", ("le", "0.0001")), Some(0.0));
    assert_eq!(found(ranges, "_bucket", ("le", "0.0002")), Some(1.0));
    assert_eq!(found(ranges, "_count", ("success", "false")), Some(1.0));
    let hashes = &families["etcd_mvcc_hash_rev_duration_seconds"].samples;
    assert_eq!(hashes.last().map(|sample| sample.2), Some(1.0), "one that fails is not measured");
    let pauses = "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds";
    assert_eq!(found(pauses, "_bucket", ("le", "1")), Some(0.0));
    assert_eq!(found(pauses, "_bucket", ("le", "2")), Some(1.0));
    assert_value(&families, "etcd_debugging_auth_revision", "gauge", 11.0);
    assert_value(&families, "etcd_network_known_peers", "gauge", 1.0);
}
