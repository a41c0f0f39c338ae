//! The registry: plain atomics that the working rooms count into, and their rendering for Prometheus.
//!
//! Owns: what is measured, under etcd's names (API reference, section 12). Must never: lock or allocate when something is
//! counted. `app` makes one [`Metrics`], shares it by `Arc`, and hands its text to whoever asks for `/metrics`.

mod health;
mod instruments;
mod peers;
mod process;
mod render;
mod requests;

use std::time::Duration;

pub use health::{HealthCheck, HealthCheckMetrics};
pub use instruments::{Counter, Gauge, Histogram};
pub use peers::{PeerMetrics, PeerTraffic};
pub use requests::{RequestMetrics, Special, Texts, Versions};

use crate::ids::{AuthRevision, Digest, LogIndex, MemberId, Revision};

/// First bucket of etcd's disk histograms; each is twice the one before.
const DISK_BUCKET_FIRST: Duration = Duration::from_millis(1);
/// How many buckets etcd's disk histograms have.
const DISK_BUCKETS: usize = 14;
/// First bucket of etcd's histogram of whole compactions; each is twice the one before.
const COMPACTION_BUCKET_FIRST: Duration = Duration::from_millis(100);
/// How many buckets it has.
const COMPACTION_BUCKETS: usize = 14;
/// How many buckets etcd's histogram of their pieces has; the first is that of the disk.
const COMPACTION_PAUSE_BUCKETS: usize = 13;
/// First bucket of etcd's histogram of times to live; each is twice the one before.
const LEASE_TTL_BUCKET_FIRST: Duration = Duration::from_secs(1);
/// How many buckets it has.
const LEASE_TTL_BUCKETS: usize = 24;
/// The bounds of how long calls take, in milliseconds: Prometheus' own, which etcd has.
const HANDLING_BOUNDS_MILLIS: [u64; 11] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000];
/// gRPC's status codes are the numbers below this.
const GRPC_CODES: usize = 17;

/// Everything that is counted where it happens.
#[derive(Debug)]
pub struct Metrics {
    /// Times that this member saw the leader change, losing it included.
    pub leader_changes: Counter,
    /// Proposals that ended in an error.
    pub proposals_failed: Counter,
    /// Reads of a read index that ended in an error.
    pub read_indexes_failed: Counter,
    /// Reads that found no read index, or whose index was not applied, in time.
    pub slow_read_indexes: Counter,
    /// Batches of entries that took too long to apply.
    pub slow_applies: Counter,
    /// Times that this member led and was late with a heartbeat.
    pub late_heartbeats: Counter,
    /// How long the log's fdatasync takes.
    pub wal_fsync: Histogram,
    /// How long it takes to hand a batch of entries to the system, before that.
    pub wal_write: Histogram,
    /// Bytes written to the log.
    pub wal_written_bytes: Counter,
    /// How long a durable commit of the store takes.
    pub backend_commit: Histogram,
    /// How long the pieces take in which the store removes what was compacted.
    pub compaction_pauses: Histogram,
    /// How long that takes altogether, waits included.
    pub compactions: Histogram,
    /// When it was done last, in seconds since 1970; 0 is not in this run.
    pub compacted_at: Gauge,
    /// Ranges read.
    pub ranges: Counter,
    /// Puts applied.
    pub puts: Counter,
    /// Deletes applied.
    pub deletes: Counter,
    /// Transactions applied.
    pub txns: Counter,
    /// Leases granted.
    pub leases_granted: Counter,
    /// Leases ended, by clients and by the clock.
    pub leases_revoked: Counter,
    /// Renewals of leases.
    pub leases_renewed: Counter,
    /// Leases ended because their time was over.
    pub leases_expired: Counter,
    /// Times to live of the leases granted.
    pub lease_ttl: Histogram,
    /// Streams of watchers that are open.
    pub watch_streams: Gauge,
    /// Watchers.
    pub watchers: Gauge,
    /// Watchers that are behind.
    pub slow_watchers: Gauge,
    /// Events told to watchers.
    pub events_told: Counter,
    /// Bytes sent to clients in gRPC messages.
    pub client_grpc_sent_bytes: Counter,
    /// Bytes received from clients in gRPC messages.
    pub client_grpc_received_bytes: Counter,
    /// What clients ask for.
    pub requests: RequestMetrics,
    /// Client connections that are open.
    pub client_connections: Gauge,
    /// Client connections that were refused because too many were open.
    pub client_connections_refused: Counter,
    /// Times that `/health` said that this member is well.
    pub health_successes: Counter,
    /// Times that it said otherwise.
    pub health_failures: Counter,
    /// One entry for each of [`HealthCheck::ALL`].
    pub health_checks: [HealthCheckMetrics; HealthCheck::ALL.len()],
    /// One entry for each method, in the order given to [`Metrics::new`].
    pub grpc: Box<[GrpcMethodMetrics]>,
}

impl Metrics {
    /// Everything at zero. `methods` are all that the server has: each is shown from the start, so that a rate over the
    /// first call is no gap.
    pub fn new(methods: impl IntoIterator<Item = GrpcMethod>) -> Self {
        Self {
            leader_changes: Counter::default(),
            proposals_failed: Counter::default(),
            read_indexes_failed: Counter::default(),
            slow_read_indexes: Counter::default(),
            slow_applies: Counter::default(),
            late_heartbeats: Counter::default(),
            wal_fsync: Histogram::new(DISK_BUCKET_FIRST, DISK_BUCKETS),
            wal_write: Histogram::new(DISK_BUCKET_FIRST, DISK_BUCKETS),
            wal_written_bytes: Counter::default(),
            backend_commit: Histogram::new(DISK_BUCKET_FIRST, DISK_BUCKETS),
            compaction_pauses: Histogram::new(DISK_BUCKET_FIRST, COMPACTION_PAUSE_BUCKETS),
            compactions: Histogram::new(COMPACTION_BUCKET_FIRST, COMPACTION_BUCKETS),
            compacted_at: Gauge::default(),
            ranges: Counter::default(),
            puts: Counter::default(),
            deletes: Counter::default(),
            txns: Counter::default(),
            leases_granted: Counter::default(),
            leases_revoked: Counter::default(),
            leases_renewed: Counter::default(),
            leases_expired: Counter::default(),
            lease_ttl: Histogram::new(LEASE_TTL_BUCKET_FIRST, LEASE_TTL_BUCKETS),
            watch_streams: Gauge::default(),
            watchers: Gauge::default(),
            slow_watchers: Gauge::default(),
            events_told: Counter::default(),
            client_grpc_sent_bytes: Counter::default(),
            client_grpc_received_bytes: Counter::default(),
            requests: RequestMetrics::default(),
            client_connections: Gauge::default(),
            client_connections_refused: Counter::default(),
            health_successes: Counter::default(),
            health_failures: Counter::default(),
            health_checks: Default::default(),
            grpc: methods.into_iter().map(GrpcMethodMetrics::new).collect(),
        }
    }

    /// The same, and how long calls of each method take: as much text again, so that it has to be wanted (`--metrics extensive`).
    pub fn extensive(mut self) -> Self {
        for method in &mut self.grpc {
            let bounds = HANDLING_BOUNDS_MILLIS.map(Duration::from_millis);
            method.handling = Some(Histogram::with_bounds(bounds));
        }
        self
    }

    /// The text of `/metrics` (Prometheus text format 0.0.4): what was counted, the state as of now, and the process.
    pub fn render(&self, gauges: &Gauges<'_>) -> String {
        render::render(self, gauges, process::sample().as_ref())
    }
}

/// The name of a gRPC method, for labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcMethod {
    /// With its package: `etcdserverpb.KV`.
    pub service: &'static str,
    /// `Range`.
    pub method: &'static str,
    /// Which sides stream.
    pub kind: GrpcKind,
}

/// Which sides of a gRPC method stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcKind {
    /// Neither.
    Unary,
    /// The server.
    ServerStream,
    /// Both.
    BidiStream,
}

/// What is counted about one gRPC method.
#[derive(Debug)]
pub struct GrpcMethodMetrics {
    /// Its labels.
    pub name: GrpcMethod,
    /// Calls that began.
    pub started: Counter,
    /// Messages received.
    pub received: Counter,
    /// Messages sent.
    pub sent: Counter,
    /// How long calls take, where that is wanted.
    pub handling: Option<Histogram>,
    /// What else is counted of it, if anything.
    pub special: Option<Special>,
    handled: [Counter; GRPC_CODES],
}

impl GrpcMethodMetrics {
    fn new(name: GrpcMethod) -> Self {
        Self {
            special: Special::of(name.method),
            name,
            started: Counter::default(),
            received: Counter::default(),
            sent: Counter::default(),
            handling: None,
            handled: [const { Counter::new() }; GRPC_CODES],
        }
    }

    /// Whether anybody wants to know how long calls take.
    pub fn is_timed(&self) -> bool {
        self.handling.is_some() || self.special.is_some_and(Special::is_timed)
    }

    /// Counts the end of a call. A code that gRPC does not define counts as Unknown, as it does in gRPC.
    pub fn handled(&self, code: i32) {
        const UNKNOWN: usize = 2;
        let code = usize::try_from(code).ok().filter(|code| *code < GRPC_CODES).unwrap_or(UNKNOWN);
        self.handled[code].add(1);
    }
}

/// The state that is asked for at each rendering instead of being kept in step all the time.
#[derive(Clone, Debug)]
pub struct Gauges<'a> {
    /// This member.
    pub member: MemberId,
    /// The version that this server reports to clients.
    pub server_version: &'a str,
    /// The version that the cluster agrees on, when it does.
    pub cluster_version: Option<&'a str>,
    /// Whether this member knows a leader.
    pub has_leader: bool,
    /// Whether it is the leader.
    pub is_leader: bool,
    /// Whether it only listens.
    pub is_learner: bool,
    /// The last committed entry.
    pub committed: LogIndex,
    /// The last applied entry.
    pub applied: LogIndex,
    /// Proposals that wait for their result.
    pub proposals_pending: u64,
    /// Size of the store's file in bytes.
    pub db_total_bytes: u64,
    /// Bytes of it that hold data.
    pub db_in_use_bytes: u64,
    /// The quota in bytes; `None` is no quota, shown as 0.
    pub quota_bytes: Option<u64>,
    /// What all entries up to this one have come to.
    pub digest: (LogIndex, Digest),
    /// Keys that exist.
    pub keys: u64,
    /// The current revision.
    pub revision: Revision,
    /// The revision that was compacted last.
    pub compacted: Revision,
    /// The revision of users and roles.
    pub auth_revision: AuthRevision,
    /// Other clusters that this one cannot become one with.
    pub conflicts: u64,
    /// The alarms that are raised: whose, and which.
    pub alarms: Vec<(MemberId, &'static str)>,
    /// The other members.
    pub peers: Vec<PeerTraffic>,
    /// Whether the disk has too little room for puts.
    pub disk_short: bool,
    /// Bytes written to the data directory, by what for.
    pub disk_written: &'a [(&'static str, u64)],
    /// Revisions that were made meanwhile.
    pub disk_revisions: u64,
    /// Bytes written in the last whole hour in which no key was, once there was one.
    pub disk_idle_hour: Option<u64>,
    /// Of backups by schedule, where somebody wants some.
    pub backups: Option<Backups>,
}

/// What has come of backups by schedule in this run.
#[derive(Clone, Copy, Debug)]
pub struct Backups {
    /// Files written.
    pub written: u64,
    /// Tries that came to nothing.
    pub failed: u64,
    /// The last one was such.
    pub failing: bool,
    /// Of the last file; 0 where there is none.
    pub revision: Revision,
}

#[cfg(test)]
#[path = "metrics_test.rs"]
mod tests;
