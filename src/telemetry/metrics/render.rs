//! The text form of the metrics (Prometheus text format 0.0.4).
//!
//! Owns: the names, the help lines and the escaping. Must never: hold anything up while it renders. Called by
//! [`Metrics::render`].

use std::fmt::{Display, Write as _};

use super::process::Process;
use super::{
    Backups, Counter, Gauges, GrpcKind, GrpcMethodMetrics, HealthCheck, Histogram, Metrics, PeerMetrics,
};

/// The names of gRPC's codes by number, as Go spells them.
const GRPC_CODE_NAMES: [&str; super::GRPC_CODES] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];
/// In a second.
const MILLIS: f64 = 1000.0;
/// What one line of a gRPC method takes, about.
const GRPC_LINE_BYTES: usize = 128;
/// What everything else takes, about.
const REST_BYTES: usize = 16 * 1024;

pub(super) fn render(metrics: &Metrics, gauges: &Gauges<'_>, process: Option<&Process>) -> String {
    let grpc_lines = metrics.grpc.len() * (super::GRPC_CODES + 3);
    let mut text = Text(String::with_capacity(REST_BYTES + grpc_lines * GRPC_LINE_BYTES));
    server(&mut text, metrics, gauges);
    troubles(&mut text, metrics, gauges);
    health(&mut text, metrics);
    disk(&mut text, metrics, gauges);
    mvcc(&mut text, metrics, gauges);
    compactions(&mut text, metrics);
    leases(&mut text, metrics);
    network(&mut text, metrics);
    requests(&mut text, metrics);
    peers(&mut text, gauges);
    grpc(&mut text, &metrics.grpc);
    handling(&mut text, &metrics.grpc);
    if let Some(process) = process {
        self::process(&mut text, process);
    }
    text.0
}

fn server(text: &mut Text, metrics: &Metrics, gauges: &Gauges<'_>) {
    let member = gauges.member.to_string();
    text.gauge("etcd_server_has_leader", "Whether a leader is known: 1 is yes.", u8::from(gauges.has_leader));
    text.gauge(
        "covey_cluster_conflicts",
        "Other clusters on the network that this one cannot become one with by itself.",
        gauges.conflicts,
    );
    text.gauge(
        "etcd_server_is_leader",
        "Whether this member is the leader: 1 is yes.",
        u8::from(gauges.is_leader),
    );
    text.gauge(
        "etcd_server_is_learner",
        "Whether this member only listens: 1 is yes.",
        u8::from(gauges.is_learner),
    );
    text.counter(
        "etcd_server_leader_changes_seen_total",
        "Changes of the leader that were seen.",
        &metrics.leader_changes,
    );
    // etcd has these two as gauges.
    text.gauge(
        "etcd_server_proposals_committed_total",
        "The index of the last committed entry.",
        gauges.committed,
    );
    text.gauge("etcd_server_proposals_applied_total", "The index of the last applied entry.", gauges.applied);
    text.gauge(
        "etcd_server_proposals_pending",
        "Proposals that wait for their result.",
        gauges.proposals_pending,
    );
    text.counter(
        "etcd_server_proposals_failed_total",
        "Proposals that ended in an error.",
        &metrics.proposals_failed,
    );
    text.counter(
        "etcd_server_read_indexes_failed_total",
        "Read index requests that ended in an error.",
        &metrics.read_indexes_failed,
    );
    let (index, digest) = gauges.digest;
    text.gauge(
        "covey_state_digest",
        "Digest of the results of all entries up to covey_state_digest_index: members at the same index must have the same.",
        digest.0 >> (u64::BITS - f64::MANTISSA_DIGITS),
    );
    text.gauge("covey_state_digest_index", "The entry up to which covey_state_digest goes.", index);
    let quota = gauges.quota_bytes.unwrap_or(0);
    text.gauge("etcd_server_quota_backend_bytes", "The quota in bytes; 0 is none.", quota);
    text.info("etcd_server_id", "The id of this member, in the label.", "server_id", &member);
    text.info(
        "etcd_server_version",
        "The version of this server, in the label.",
        "server_version",
        gauges.server_version,
    );
    if let Some(version) = gauges.cluster_version {
        text.info(
            "etcd_cluster_version",
            "The version of the cluster, in the label.",
            "cluster_version",
            version,
        );
    }
}

/// What went slower than it should, and what is wrong.
fn troubles(text: &mut Text, metrics: &Metrics, gauges: &Gauges<'_>) {
    text.counter(
        "etcd_server_slow_read_indexes_total",
        "Reads that could not be confirmed in time.",
        &metrics.slow_read_indexes,
    );
    text.counter(
        "etcd_server_slow_apply_total",
        "Batches of entries that took more than 100 ms to apply.",
        &metrics.slow_applies,
    );
    text.counter(
        "etcd_server_heartbeat_send_failures_total",
        "Times that the leader was late with a heartbeat.",
        &metrics.late_heartbeats,
    );
    if !gauges.alarms.is_empty() {
        let name = "etcd_debugging_server_alarms";
        text.head(name, "Alarms that are raised: 1 is yes.", "gauge");
        for (member, alarm) in &gauges.alarms {
            text.sample(name, &[("server_id", &member.to_string()), ("alarm_type", alarm)], 1);
        }
    }
}

fn health(text: &mut Text, metrics: &Metrics) {
    text.counter(
        "etcd_server_health_success",
        "Times that /health said that this member is well.",
        &metrics.health_successes,
    );
    text.counter(
        "etcd_server_health_failures",
        "Times that /health said that this member is not well.",
        &metrics.health_failures,
    );
    let checks = || HealthCheck::ALL.iter().zip(&metrics.health_checks);
    let name = "etcd_server_healthchecks_total";
    text.head(name, "Checks of /livez and /readyz, by how they ended.", "counter");
    for (check, counted) in checks() {
        for (status, counter) in [("success", &counted.passed), ("error", &counted.failed)] {
            let labels = [("type", check.page()), ("name", check.name()), ("status", status)];
            text.sample(name, &labels, counter.value());
        }
    }
    let name = "etcd_server_healthcheck";
    let mut asked = checks().filter(|(_, counted)| counted.counts() != (0, 0)).peekable();
    if asked.peek().is_some() {
        text.head(name, "How each check of /livez and /readyz ended last: 1 is well.", "gauge");
    }
    for (check, counted) in asked {
        text.sample(name, &[("type", check.page()), ("name", check.name())], counted.last.value());
    }
}

fn disk(text: &mut Text, metrics: &Metrics, gauges: &Gauges<'_>) {
    text.gauge(
        "covey_disk_short",
        "Whether the disk has too little room for puts: 1 is yes.",
        u8::from(gauges.disk_short),
    );
    let name = "covey_disk_written_bytes_total";
    text.head(name, "Bytes of pages written to the data directory, by what for.", "counter");
    for &(kind, bytes) in gauges.disk_written {
        text.sample(name, &[("kind", kind)], bytes);
    }
    let name = "covey_disk_revisions_total";
    text.head(
        name,
        "Revisions made while those bytes were written: bytes by revisions is what one costs flash.",
        "counter",
    );
    text.sample(name, &[], gauges.disk_revisions);
    if let Some(bytes) = gauges.disk_idle_hour {
        let last = "Bytes of pages written in the last whole hour in which no key was.";
        text.gauge("covey_disk_idle_hour_bytes", last, bytes);
    }
    if let Some(Backups { written, failed, failing, revision }) = gauges.backups {
        let name = "covey_backups_total";
        text.head(name, "Backups by schedule, by what has come of them.", "counter");
        for (outcome, count) in [("written", written), ("failed", failed)] {
            text.sample(name, &[("outcome", outcome)], count);
        }
        let last = "Whether the last backup has failed: 1 is yes.";
        text.gauge("covey_backup_failing", last, u8::from(failing));
        text.gauge(
            "covey_backup_revision",
            "The revision of the last backup; 0 is none in this run.",
            revision,
        );
    }
    text.histogram(
        "etcd_disk_wal_fsync_duration_seconds",
        "How long the log's fdatasync takes.",
        &metrics.wal_fsync,
    );
    text.histogram(
        "etcd_disk_wal_write_duration_seconds",
        "How long it takes to hand a batch of entries to the system.",
        &metrics.wal_write,
    );
    // A gauge in etcd.
    text.gauge(
        "etcd_disk_wal_write_bytes_total",
        "Bytes written to the log.",
        metrics.wal_written_bytes.value(),
    );
    text.histogram(
        "etcd_disk_backend_commit_duration_seconds",
        "How long a durable commit of the store takes.",
        &metrics.backend_commit,
    );
}

fn mvcc(text: &mut Text, metrics: &Metrics, gauges: &Gauges<'_>) {
    text.gauge(
        "etcd_mvcc_db_total_size_in_bytes",
        "Size of the store's file in bytes.",
        gauges.db_total_bytes,
    );
    text.gauge(
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        "Bytes of the store's file that hold data.",
        gauges.db_in_use_bytes,
    );
    text.counter("etcd_mvcc_range_total", "Ranges read.", &metrics.ranges);
    text.counter("etcd_mvcc_put_total", "Puts applied.", &metrics.puts);
    text.counter("etcd_mvcc_delete_total", "Deletes applied.", &metrics.deletes);
    text.counter("etcd_mvcc_txn_total", "Transactions applied.", &metrics.txns);
    text.gauge(
        "etcd_debugging_mvcc_watch_stream_total",
        "Streams of watchers that are open.",
        metrics.watch_streams.value(),
    );
    text.gauge("etcd_debugging_mvcc_watcher_total", "Watchers.", metrics.watchers.value());
    text.gauge(
        "etcd_debugging_mvcc_slow_watcher_total",
        "Watchers that are behind.",
        metrics.slow_watchers.value(),
    );
    text.counter("etcd_debugging_mvcc_events_total", "Events told to watchers.", &metrics.events_told);
    text.gauge("etcd_debugging_auth_revision", "The revision of users and roles.", gauges.auth_revision.0);
    text.gauge("etcd_debugging_mvcc_keys_total", "Keys that exist.", gauges.keys);
    text.gauge("etcd_debugging_mvcc_current_revision", "The current revision.", gauges.revision);
    text.gauge(
        "etcd_debugging_mvcc_compact_revision",
        "The revision that was compacted last.",
        gauges.compacted,
    );
}

/// Of the removal of what was compacted; etcd measures it in milliseconds.
fn compactions(text: &mut Text, metrics: &Metrics) {
    text.histogram_in_millis(
        "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
        "How long the pieces take in which the store removes what was compacted.",
        &metrics.compaction_pauses,
    );
    text.histogram_in_millis(
        "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
        "How long removing what was compacted takes altogether.",
        &metrics.compactions,
    );
    text.gauge(
        "etcd_debugging_mvcc_db_compaction_last",
        "When the store had removed what was compacted, in seconds since 1970; 0 is not in this run.",
        metrics.compacted_at.value(),
    );
}

fn leases(text: &mut Text, metrics: &Metrics) {
    text.counter("etcd_debugging_lease_granted_total", "Leases granted.", &metrics.leases_granted);
    text.counter("etcd_debugging_lease_revoked_total", "Leases ended.", &metrics.leases_revoked);
    text.counter("etcd_debugging_lease_renewed_total", "Renewals of leases.", &metrics.leases_renewed);
    text.histogram(
        "etcd_debugging_lease_ttl_total",
        "Times to live of the leases granted, in seconds.",
        &metrics.lease_ttl,
    );
    text.counter(
        "etcd_debugging_server_lease_expired_total",
        "Leases ended because their time was over.",
        &metrics.leases_expired,
    );
}

fn network(text: &mut Text, metrics: &Metrics) {
    text.counter(
        "etcd_network_client_grpc_sent_bytes_total",
        "Bytes sent to clients in gRPC messages.",
        &metrics.client_grpc_sent_bytes,
    );
    text.counter(
        "etcd_network_client_grpc_received_bytes_total",
        "Bytes received from clients in gRPC messages.",
        &metrics.client_grpc_received_bytes,
    );
    text.gauge(
        "covey_client_connections",
        "Client connections that are open.",
        metrics.client_connections.value(),
    );
    text.counter(
        "covey_client_connections_refused_total",
        "Client connections refused because too many were open.",
        &metrics.client_connections_refused,
    );
}

fn requests(text: &mut Text, metrics: &Metrics) {
    let requests = &metrics.requests;
    let name = "etcd_server_client_requests_total";
    text.head(name, "Calls, by the version of the API that the client says it is of.", "counter");
    for (kind, versions) in [("unary", &requests.unary_versions), ("stream", &requests.stream_versions)] {
        for (version, count) in versions.counted() {
            text.sample(name, &[("client_api_version", version), ("type", kind)], count);
        }
    }
    text.counter(
        "etcd_server_learner_promote_successes",
        "Learners that became voters because somebody asked for it here.",
        &requests.promotions,
    );
    let name = "etcd_server_learner_promote_failures";
    let mut failed = requests.promotions_failed.counted().peekable();
    if failed.peek().is_some() {
        text.head(name, "Learners that did not, by what was said.", "counter");
    }
    for (reason, count) in failed {
        text.sample(name, &[("Reason", reason)], count);
    }
    let name = "etcd_server_range_duration_seconds";
    text.head(name, "How long ranges took, from the call to its answer.", "histogram");
    text.buckets(name, &[("success", "true")], &requests.ranges);
    text.buckets(name, &[("success", "false")], &requests.ranges_failed);
    text.histogram("etcd_mvcc_hash_duration_seconds", "How long calls of Hash took.", &requests.hashes);
    text.histogram(
        "etcd_mvcc_hash_rev_duration_seconds",
        "How long calls of HashKV took.",
        &requests.revision_hashes,
    );
    text.histogram(
        "etcd_disk_backend_snapshot_duration_seconds",
        "How long sending a snapshot to a client took.",
        &requests.snapshots,
    );
}

/// One line for each other member, whose id is the label as in etcd.
fn peers(text: &mut Text, gauges: &Gauges<'_>) {
    type Field = fn(&PeerMetrics) -> &Counter;
    // Only somebody who has others has something to say of them.
    if gauges.peers.is_empty() {
        return;
    }
    let families: [(&str, &str, &str, Field); 3] = [
        ("etcd_network_peer_sent_bytes_total", "Bytes sent to a member.", "To", |peer| &peer.sent_bytes),
        ("etcd_network_peer_received_bytes_total", "Bytes received from a member.", "From", |peer| {
            &peer.received_bytes
        }),
        (
            "etcd_network_peer_sent_failures_total",
            "Messages to a member that were dropped before they were sent.",
            "To",
            |peer| &peer.sent_failures,
        ),
    ];
    for (name, help, label, field) in families {
        text.head(name, help, "counter");
        for peer in &gauges.peers {
            text.sample(name, &[(label, &peer.member.to_string())], field(&peer.metrics).value());
        }
    }
    let local = gauges.member.to_string();
    let name = "etcd_network_active_peers";
    text.head(name, "Whether a member is connected: 1 is yes.", "gauge");
    for peer in &gauges.peers {
        let labels = [("Local", &local[..]), ("Remote", &peer.member.to_string())];
        text.sample(name, &labels, u8::from(peer.connected));
    }
    let name = "etcd_network_known_peers";
    text.head(name, "The other members: 1 each.", "gauge");
    for peer in &gauges.peers {
        text.sample(name, &[("Local", &local[..]), ("Remote", &peer.member.to_string())], 1);
    }
    let name = "etcd_network_disconnected_peers_total";
    text.head(name, "Connections with a member that were lost.", "counter");
    for peer in &gauges.peers {
        let labels = [("Local", &local[..]), ("Remote", &peer.member.to_string())];
        text.sample(name, &labels, peer.metrics.disconnects.value());
    }
    let name = "etcd_network_peer_round_trip_time_seconds";
    text.head(name, "Round trips to a member, one taken at each scrape.", "histogram");
    for peer in &gauges.peers {
        text.buckets(name, &[("To", &peer.member.to_string())], &peer.metrics.round_trip);
    }
}

fn grpc(text: &mut Text, methods: &[GrpcMethodMetrics]) {
    type Field = fn(&GrpcMethodMetrics) -> &Counter;
    let families: [(&str, &str, Field); 3] = [
        ("grpc_server_started_total", "Calls that began.", |method| &method.started),
        ("grpc_server_msg_received_total", "Messages received.", |method| &method.received),
        ("grpc_server_msg_sent_total", "Messages sent.", |method| &method.sent),
    ];
    for (name, help, field) in families {
        text.head(name, help, "counter");
        for method in methods {
            text.sample(name, &method_labels(method), field(method).value());
        }
    }
    let name = "grpc_server_handled_total";
    text.head(name, "Calls that ended, by code.", "counter");
    for method in methods {
        let [service, method_name, kind] = method_labels(method);
        for (code, count) in GRPC_CODE_NAMES.iter().zip(&method.handled) {
            text.sample(name, &[("grpc_code", code), method_name, service, kind], count.value());
        }
    }
}

/// How long calls of each method take, where that is wanted.
fn handling(text: &mut Text, methods: &[GrpcMethodMetrics]) {
    let name = "grpc_server_handling_seconds";
    let mut timed = methods.iter().filter_map(|method| Some((method, method.handling.as_ref()?))).peekable();
    if timed.peek().is_some() {
        text.head(name, "How long calls took until their answer was whole.", "histogram");
    }
    for (method, histogram) in timed {
        text.buckets(name, &method_labels(method), histogram);
    }
}

fn method_labels(method: &GrpcMethodMetrics) -> [(&'static str, &'static str); 3] {
    let kind = match method.name.kind {
        GrpcKind::Unary => "unary",
        GrpcKind::ServerStream => "server_stream",
        GrpcKind::BidiStream => "bidi_stream",
    };
    [("grpc_service", method.name.service), ("grpc_method", method.name.method), ("grpc_type", kind)]
}

fn process(text: &mut Text, process: &Process) {
    text.head("process_cpu_seconds_total", "User and system time in seconds.", "counter");
    text.sample("process_cpu_seconds_total", &[], process.cpu_seconds());
    text.gauge(
        "process_start_time_seconds",
        "Start of the process in seconds since 1970.",
        process.start_seconds,
    );
    text.gauge("process_resident_memory_bytes", "Memory in RAM, in bytes.", process.resident_bytes);
    text.gauge("process_virtual_memory_bytes", "Address space, in bytes.", process.virtual_bytes);
    for name in ["process_open_fds", "os_fd_used"] {
        text.gauge(name, "Open file descriptors.", process.open_fds);
    }
    if let Some(max) = process.max_fds {
        for name in ["process_max_fds", "os_fd_limit"] {
            text.gauge(name, "File descriptors that may be open.", max);
        }
    }
}

/// The output; writing to a string cannot fail, so results are dropped.
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            self.0.push(if i == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{label}=\"");
            escape(&mut self.0, text);
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help, "gauge");
        self.sample(name, &[], value);
    }

    /// A gauge of 1 that exists for its label.
    fn info(&mut self, name: &str, help: &str, label: &str, text: &str) {
        self.head(name, help, "gauge");
        self.sample(name, &[(label, text)], 1);
    }

    fn counter(&mut self, name: &str, help: &str, counter: &Counter) {
        self.head(name, help, "counter");
        self.sample(name, &[], counter.value());
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        self.buckets(name, &[], histogram);
    }

    fn histogram_in_millis(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        self.buckets_in(MILLIS, name, &[], histogram);
    }

    /// One histogram of those that the head before is of.
    fn buckets(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        self.buckets_in(1.0, name, labels, histogram);
    }

    /// The same in units of which there are so many in a second.
    fn buckets_in(&mut self, units: f64, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let bucket = format!("{name}_bucket");
        let mut count = 0;
        for (bound, below) in histogram.cumulative() {
            let bound =
                bound.map_or_else(|| "+Inf".to_owned(), |bound| (bound.as_secs_f64() * units).to_string());
            self.sample(&bucket, &[labels, &[("le", &bound)]].concat(), below);
            // The count is the last bucket's, so that the two agree even while others count.
            count = below;
        }
        self.sample(&format!("{name}_sum"), labels, histogram.sum().as_secs_f64() * units);
        self.sample(&format!("{name}_count"), labels, count);
    }
}

fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}
