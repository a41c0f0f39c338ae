//! The one table of settings. Flags, environment variables, the TOML file, the example file and `--help` all derive from it.
//!
//! Owns: names, kinds, defaults and help lines. Must never: parse a value (`values` does) or know where a value came from
//! (`sources` does). Read by every other file of this room.

use crate::{api, limits};

/// Connections that clients may hold open at once, unless set otherwise.
pub const CONNECTIONS: u64 = limits::CONNECTIONS as u64;
/// Backups that are kept, unless set otherwise: a week of days.
const BACKUPS_KEPT: u64 = 7;

/// Identifies a setting; its number is its place in [`SETTINGS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SettingId {
    /// `--config-file`
    ConfigFile,
    /// `--name`
    Name,
    /// `--data-dir`
    DataDir,
    /// `--solo`
    Solo,
    /// `--listen-client-urls`
    ListenClientUrls,
    /// `--advertise-client-urls`
    AdvertiseClientUrls,
    /// `--max-request-bytes`
    MaxRequestBytes,
    /// `--max-txn-ops`
    MaxTxnOps,
    /// `--watch-progress-notify-interval`
    WatchProgressNotifyInterval,
    /// `--max-connections`
    MaxConnections,
    /// `--max-concurrent-streams`
    MaxStreams,
    /// `--grpc-keepalive-min-time`
    KeepaliveMinTime,
    /// `--grpc-keepalive-interval`
    KeepaliveInterval,
    /// `--grpc-keepalive-timeout`
    KeepaliveTimeout,
    /// `--allowed-hosts`
    AllowedHosts,
    /// `--cors`
    Cors,
    /// `--enable-grpc-gateway`
    EnableGateway,
    /// `--enable-grpc-reflection`
    EnableReflection,
    /// `--cert-file`
    Certificate,
    /// `--key-file`
    PrivateKey,
    /// `--trusted-ca-file`
    TrustedCaFile,
    /// `--client-cert-auth`
    ClientCertAuth,
    /// `--client-crl-file`
    ClientCrlFile,
    /// `--client-cert-allowed-cn`
    ClientAllowedCn,
    /// `--client-cert-allowed-hostname`
    ClientAllowedHostname,
    /// `--tls-min-version`
    TlsMinVersion,
    /// `--tls-max-version`
    TlsMaxVersion,
    /// `--cipher-suites`
    CipherSuites,
    /// `--auth-token`
    AuthToken,
    /// `--auth-token-ttl`
    AuthTokenTtl,
    /// `--bcrypt-cost`
    BcryptCost,
    /// `--listen-peer-urls`
    ListenPeerUrls,
    /// `--initial-advertise-peer-urls`
    AdvertisePeerUrls,
    /// `--initial-cluster`
    InitialCluster,
    /// `--initial-cluster-state`
    InitialClusterState,
    /// `--initial-cluster-token`
    InitialClusterToken,
    /// `--cluster-secret-file`
    ClusterSecretFile,
    /// `--peer-fingerprints`
    PeerFingerprints,
    /// `--voters`
    Voters,
    /// `--trust`
    Trust,
    /// `--join-token-file`
    JoinTokenFile,
    /// `--peers`
    Peers,
    /// `--interfaces`
    Interfaces,
    /// `--strict-reconfig-check`
    StrictReconfigCheck,
    /// `--max-learners`
    MaxLearners,
    /// `--heartbeat-interval`
    Heartbeat,
    /// `--election-timeout`
    Election,
    /// `--corrupt-check-time`
    CorruptCheckTime,
    /// `--quota-backend-bytes`
    Quota,
    /// `--store-cache-bytes`
    StoreCache,
    /// `--auto-compaction-mode`
    CompactionMode,
    /// `--auto-compaction-retention`
    CompactionRetention,
    /// `--backup-dir`
    BackupDir,
    /// `--backup-interval`
    BackupInterval,
    /// `--backup-keep`
    BackupKeep,
    /// `--listen-metrics-urls`
    ListenMetricsUrls,
    /// `--metrics`
    Metrics,
    /// `--log-level`
    LogLevel,
    /// `--log-format`
    LogFormat,
}

/// How a setting's value looks; decides what a flag needs, what TOML may hold and what help shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A path; empty means "not set".
    Path,
    /// true or false; the flag may stand without a value.
    Bool,
    /// A whole number.
    Number,
    /// Texts separated by commas; an array in TOML.
    List,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// What a setting is when nobody sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// This text.
    Text(&'static str),
    /// This number.
    Number(u64),
    /// It follows from other settings: the rule in words, and what it comes to when those have their defaults.
    Derived {
        /// In words, for help.
        rule: &'static str,
        /// The value where everything else is at its default.
        usual: &'static str,
    },
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Which one.
    pub key: SettingId,
    /// The flag, without dashes; the environment variable follows from it.
    pub flag: &'static str,
    /// etcd's flag for the same thing, which is accepted too, and its `ETCD_` variable with it.
    pub etcd: Option<&'static str>,
    /// Where it stands in the file: tables and key, joined by dots. Empty for what a file cannot set.
    pub toml: &'static str,
    /// How its value looks.
    pub kind: Kind,
    /// What it is when nobody sets it.
    pub fallback: Fallback,
    /// What it does: a sentence without its end.
    pub help: &'static str,
}

impl Setting {
    /// The environment variable of this product.
    pub fn env(&self) -> String {
        variable("COVEY_", self.flag)
    }

    /// etcd's environment variable, where etcd has the setting.
    pub fn etcd_env(&self) -> Option<String> {
        self.etcd.map(|flag| variable("ETCD_", flag))
    }

    /// Whether a running server takes it anew on SIGHUP.
    pub fn reloads(&self) -> bool {
        use SettingId::{
            BackupDir, BackupInterval, BackupKeep, CompactionMode, CompactionRetention, CorruptCheckTime,
            LogFormat, LogLevel, Quota, Voters,
        };
        let backup = [BackupDir, BackupInterval, BackupKeep];
        let taken =
            [Voters, CorruptCheckTime, Quota, CompactionMode, CompactionRetention, LogLevel, LogFormat];
        taken.contains(&self.key) || backup.contains(&self.key)
    }

    /// The default as one would write it after the flag.
    pub fn fallback_text(&self) -> String {
        match self.fallback {
            Fallback::Text(text) | Fallback::Derived { usual: text, .. } => text.to_owned(),
            Fallback::Number(number) => number.to_string(),
        }
    }
}

/// The setting with this key.
pub fn setting(key: SettingId) -> &'static Setting {
    let found = &SETTINGS[key as usize];
    assert!(found.key == key, "the table stands in the order of the keys");
    found
}

fn variable(prefix: &str, flag: &str) -> String {
    let mut name = String::from(prefix);
    name.extend(flag.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_uppercase() }));
    name
}

/// A setting that etcd has under the same name.
const fn same(
    key: SettingId,
    flag: &'static str,
    toml: &'static str,
    kind: Kind,
    fallback: Fallback,
    help: &'static str,
) -> Setting {
    Setting { key, flag, etcd: Some(flag), toml, kind, fallback, help }
}

/// A setting that only this product has.
const fn ours(
    key: SettingId,
    flag: &'static str,
    toml: &'static str,
    kind: Kind,
    fallback: Fallback,
    help: &'static str,
) -> Setting {
    Setting { key, flag, etcd: None, toml, kind, fallback, help }
}

/// Every setting of `covey serve`, in the order of [`SettingId`], those of one TOML table together.
pub const SETTINGS: [Setting; 59] = [
    ours(
        SettingId::ConfigFile,
        "config-file",
        "",
        Kind::Path,
        Fallback::Text(""),
        "Read settings from this TOML file; flags and environment win over it",
    ),
    same(
        SettingId::Name,
        "name",
        "name",
        Kind::Text,
        Fallback::Text("default"),
        "How people call this member; need not be unique",
    ),
    same(
        SettingId::DataDir,
        "data-dir",
        "data-dir",
        Kind::Path,
        Fallback::Derived { rule: "<name>.covey", usual: "default.covey" },
        "Where everything is kept",
    ),
    ours(
        SettingId::Solo,
        "solo",
        "solo",
        Kind::Bool,
        Fallback::Text("false"),
        "Be a cluster of one at once, without looking for others (one box, tests)",
    ),
    same(
        SettingId::ListenClientUrls,
        "listen-client-urls",
        "client.listen-urls",
        Kind::List,
        Fallback::Derived {
            rule: "https://[::]:2379; for --solo and --initial-cluster http://localhost:2379",
            usual: "https://[::]:2379",
        },
        "Where to listen for clients",
    ),
    same(
        SettingId::AdvertiseClientUrls,
        "advertise-client-urls",
        "client.advertise-urls",
        Kind::List,
        Fallback::Derived { rule: "the URLs listened on, with this box's addresses for [::]", usual: "" },
        "Where clients are told to find this member",
    ),
    same(
        SettingId::MaxRequestBytes,
        "max-request-bytes",
        "client.max-request-bytes",
        Kind::Number,
        Fallback::Number(limits::REQUEST_BYTES as u64),
        "The largest write that is accepted, in bytes",
    ),
    same(
        SettingId::MaxTxnOps,
        "max-txn-ops",
        "client.max-txn-ops",
        Kind::Number,
        Fallback::Number(limits::TXN_OPS as u64),
        "The most operations in a transaction",
    ),
    same(
        SettingId::WatchProgressNotifyInterval,
        "watch-progress-notify-interval",
        "client.watch-progress-notify-interval",
        Kind::Text,
        Fallback::Text("10m"),
        "How often quiet watchers that ask for it are told how far they are; 100ms is the least",
    ),
    ours(
        SettingId::MaxConnections,
        "max-connections",
        "client.max-connections",
        Kind::Number,
        Fallback::Number(CONNECTIONS),
        "The most connections that clients may hold at once",
    ),
    same(
        SettingId::MaxStreams,
        "max-concurrent-streams",
        "client.max-concurrent-streams",
        Kind::Number,
        Fallback::Number(limits::STREAMS_PER_CONNECTION as u64),
        "The most calls, watches among them, that one connection may have open",
    ),
    same(
        SettingId::KeepaliveMinTime,
        "grpc-keepalive-min-time",
        "client.keepalive-min-time",
        Kind::Text,
        Fallback::Text("5s"),
        "Disconnect clients that ping more often than this; 0 lets them",
    ),
    same(
        SettingId::KeepaliveInterval,
        "grpc-keepalive-interval",
        "client.keepalive-interval",
        Kind::Text,
        Fallback::Text("2h"),
        "Ping a client that has been silent this long, to see whether it is still there; 0 never does",
    ),
    same(
        SettingId::KeepaliveTimeout,
        "grpc-keepalive-timeout",
        "client.keepalive-timeout",
        Kind::Text,
        Fallback::Text("20s"),
        "Disconnect a client that does not answer a ping within this time; 0 sends no pings",
    ),
    Setting {
        key: SettingId::AllowedHosts,
        flag: "allowed-hosts",
        etcd: Some("host-whitelist"),
        toml: "client.allowed-hosts",
        kind: Kind::List,
        fallback: Fallback::Text(""),
        help: "Names, beside localhost and addresses, by which web pages may call this member; * is any",
    },
    same(
        SettingId::Cors,
        "cors",
        "client.cors",
        Kind::List,
        Fallback::Text(""),
        "Web origins whose pages may call this member; * is any",
    ),
    same(
        SettingId::EnableGateway,
        "enable-grpc-gateway",
        "client.enable-grpc-gateway",
        Kind::Bool,
        Fallback::Text("true"),
        "Answer JSON over HTTP, as in POST /v3/kv/range, and show the status page, beside gRPC",
    ),
    ours(
        SettingId::EnableReflection,
        "enable-grpc-reflection",
        "client.enable-grpc-reflection",
        Kind::Bool,
        Fallback::Text("false"),
        "Tell gRPC clients that ask, as grpcurl does, what there is to call",
    ),
    same(
        SettingId::Certificate,
        "cert-file",
        "client.tls.cert-file",
        Kind::Path,
        Fallback::Text(""),
        "Certificate chain shown to clients, PEM; needed for https",
    ),
    same(
        SettingId::PrivateKey,
        "key-file",
        "client.tls.key-file",
        Kind::Path,
        Fallback::Text(""),
        "Private key of the certificate, PEM",
    ),
    same(
        SettingId::TrustedCaFile,
        "trusted-ca-file",
        "client.tls.trusted-ca-file",
        Kind::Path,
        Fallback::Text(""),
        "Authorities of client certificates, PEM; a client without one is refused",
    ),
    same(
        SettingId::ClientCertAuth,
        "client-cert-auth",
        "client.tls.client-cert-auth",
        Kind::Bool,
        Fallback::Text("false"),
        "Refuse clients without a certificate, whose common name is a user; needs the authorities",
    ),
    same(
        SettingId::ClientCrlFile,
        "client-crl-file",
        "client.tls.crl-file",
        Kind::Path,
        Fallback::Text(""),
        "Certificates of clients that were revoked, PEM or DER",
    ),
    ours(
        SettingId::ClientAllowedCn,
        "client-cert-allowed-cn",
        "client.tls.allowed-cn",
        Kind::List,
        Fallback::Text(""),
        "Refuse clients whose certificate has another common name than one of these",
    ),
    same(
        SettingId::ClientAllowedHostname,
        "client-cert-allowed-hostname",
        "client.tls.allowed-hostname",
        Kind::List,
        Fallback::Text(""),
        "Refuse clients whose certificate is good for none of these hosts and addresses",
    ),
    same(
        SettingId::TlsMinVersion,
        "tls-min-version",
        "client.tls.min-version",
        Kind::Text,
        Fallback::Text("TLS1.2"),
        "The oldest TLS that clients may speak, TLS1.2 or TLS1.3",
    ),
    same(
        SettingId::TlsMaxVersion,
        "tls-max-version",
        "client.tls.max-version",
        Kind::Text,
        Fallback::Text(""),
        "The newest TLS that clients may speak, TLS1.2 or TLS1.3; empty is the newest that there is",
    ),
    same(
        SettingId::CipherSuites,
        "cipher-suites",
        "client.tls.cipher-suites",
        Kind::List,
        Fallback::Text(""),
        "The ciphers of TLS 1.2 that are offered, by their names in Go; empty is all",
    ),
    same(
        SettingId::AuthToken,
        "auth-token",
        "auth.token",
        Kind::Text,
        Fallback::Text("simple"),
        "simple, or jwt,sign-method=M,pub-key=F,priv-key=F,ttl=T, which ends by the clock of each box",
    ),
    same(
        SettingId::AuthTokenTtl,
        "auth-token-ttl",
        "auth.token-ttl",
        Kind::Number,
        Fallback::Number(api::SIMPLE_TTL.as_secs()),
        "Seconds without use after which a simple token ends, whatever the clock of a box says",
    ),
    same(
        SettingId::BcryptCost,
        "bcrypt-cost",
        "auth.bcrypt-cost",
        Kind::Number,
        Fallback::Number(api::BCRYPT_COST as u64),
        "What hashing a password costs, from 4 to 16: each one more is twice the time",
    ),
    same(
        SettingId::ListenPeerUrls,
        "listen-peer-urls",
        "peer.listen-urls",
        Kind::List,
        Fallback::Derived {
            rule: "https://[::]:2380; for --solo and --initial-cluster localhost",
            usual: "https://[::]:2380",
        },
        "Where to listen for members, on UDP",
    ),
    same(
        SettingId::AdvertisePeerUrls,
        "initial-advertise-peer-urls",
        "peer.advertise-urls",
        Kind::List,
        Fallback::Derived { rule: "the URLs listened on, with this box's addresses for [::]", usual: "" },
        "Where other members are told to find this one",
    ),
    same(
        SettingId::InitialCluster,
        "initial-cluster",
        "peer.initial-cluster",
        Kind::List,
        Fallback::Text(""),
        "The nodes that form a cluster together, each as name=url, this one among them",
    ),
    same(
        SettingId::InitialClusterState,
        "initial-cluster-state",
        "peer.initial-cluster-state",
        Kind::Choice(&["new", "existing"]),
        Fallback::Text("new"),
        "Whether they may found a cluster, or join the one that there is",
    ),
    same(
        SettingId::InitialClusterToken,
        "initial-cluster-token",
        "peer.initial-cluster-token",
        Kind::Text,
        Fallback::Text("etcd-cluster"),
        "Nodes with different tokens do not form a cluster",
    ),
    ours(
        SettingId::ClusterSecretFile,
        "cluster-secret-file",
        "peer.secret-file",
        Kind::Path,
        Fallback::Text(""),
        "A file with a generated secret that all nodes have; without it and fingerprints all are on this machine",
    ),
    ours(
        SettingId::PeerFingerprints,
        "peer-fingerprints",
        "peer.fingerprints",
        Kind::List,
        Fallback::Text(""),
        "Let in only nodes with these keys (covey node fingerprint prints them); with a secret they need both",
    ),
    ours(
        SettingId::Voters,
        "voters",
        "peer.voters",
        Kind::Choice(&["3", "5", "7"]),
        Fallback::Text("3"),
        "How many members of a cluster that formed by itself vote; the others have a full copy",
    ),
    ours(
        SettingId::Trust,
        "trust",
        "peer.trust",
        Kind::Choice(&["lan-open", "fleet-key", "locked"]),
        Fallback::Derived { rule: "lan-open; with a secret fleet-key", usual: "lan-open" },
        "Who gets in: the LAN at first, those with the secret, or nobody",
    ),
    ours(
        SettingId::JoinTokenFile,
        "join-token-file",
        "peer.join-token-file",
        Kind::Path,
        Fallback::Text(""),
        "A file with the token that lets this node into a cluster (covey token create makes one)",
    ),
    ours(
        SettingId::Peers,
        "peers",
        "peer.peers",
        Kind::List,
        Fallback::Text(""),
        "Where other nodes may be, as host or host:port, where multicast does not reach them",
    ),
    ours(
        SettingId::Interfaces,
        "interfaces",
        "peer.interfaces",
        Kind::List,
        Fallback::Text(""),
        "Find others on these interfaces, as eth0 or eth*; else on all but tunnels and containers",
    ),
    same(
        SettingId::StrictReconfigCheck,
        "strict-reconfig-check",
        "peer.strict-reconfig-check",
        Kind::Bool,
        Fallback::Text("true"),
        "Refuse changes of the members that could leave no majority",
    ),
    same(
        SettingId::MaxLearners,
        "max-learners",
        "peer.max-learners",
        Kind::Number,
        Fallback::Number(limits::LEARNERS),
        "The most members that may be added without a vote",
    ),
    same(
        SettingId::Heartbeat,
        "heartbeat-interval",
        "peer.heartbeat-interval",
        Kind::Number,
        Fallback::Number(limits::HEARTBEAT_MILLIS),
        "How often a leader shows that it is there, in milliseconds",
    ),
    same(
        SettingId::Election,
        "election-timeout",
        "peer.election-timeout",
        Kind::Number,
        Fallback::Number(limits::ELECTION_MILLIS),
        "A silent leader is missed after this, in milliseconds, and later where it is heard irregularly",
    ),
    same(
        SettingId::CorruptCheckTime,
        "corrupt-check-time",
        "peer.corrupt-check-time",
        Kind::Text,
        Fallback::Text("1m"),
        "How often the members compare their states; 0 never does",
    ),
    same(
        SettingId::Quota,
        "quota-backend-bytes",
        "store.quota-bytes",
        Kind::Number,
        Fallback::Number(limits::QUOTA_BYTES),
        "Refuse writes above this much data, in bytes; 0 is the default, below 0 is no limit",
    ),
    ours(
        SettingId::StoreCache,
        "store-cache-bytes",
        "store.cache-bytes",
        Kind::Number,
        Fallback::Number(limits::STORE_CACHE_BYTES as u64),
        "Memory for pages of the store, in bytes; the largest part of what the process uses",
    ),
    same(
        SettingId::CompactionMode,
        "auto-compaction-mode",
        "compaction.mode",
        Kind::Choice(&["periodic", "revision"]),
        Fallback::Text("periodic"),
        "Whether the retention is a time or a number of revisions",
    ),
    same(
        SettingId::CompactionRetention,
        "auto-compaction-retention",
        "compaction.retention",
        Kind::Text,
        Fallback::Text("0"),
        "How much history to keep: 10m, 2h or a number of hours; or revisions; 0 keeps all",
    ),
    ours(
        SettingId::BackupDir,
        "backup-dir",
        "backup.dir",
        Kind::Path,
        Fallback::Text(""),
        "Write snapshots into this directory by itself, which is to be on another disk; empty writes none",
    ),
    ours(
        SettingId::BackupInterval,
        "backup-interval",
        "backup.interval",
        Kind::Text,
        Fallback::Text("24h"),
        "How often, where something has changed; 1s is the least",
    ),
    ours(
        SettingId::BackupKeep,
        "backup-keep",
        "backup.keep",
        Kind::Number,
        Fallback::Number(BACKUPS_KEPT),
        "How many of them are kept; the oldest goes once there is another",
    ),
    same(
        SettingId::ListenMetricsUrls,
        "listen-metrics-urls",
        "metrics.listen-urls",
        Kind::List,
        Fallback::Text(""),
        "Where to answer /metrics, /health, /livez and /readyz as well, and nothing else; http shows them to anyone",
    ),
    same(
        SettingId::Metrics,
        "metrics",
        "metrics.detail",
        Kind::Choice(&["basic", "extensive"]),
        Fallback::Text("basic"),
        "Whether /metrics has histograms of how long the calls of each method take, too",
    ),
    same(
        SettingId::LogLevel,
        "log-level",
        "log.level",
        Kind::Choice(&["debug", "info", "warn", "error", "panic", "fatal"]),
        Fallback::Text("info"),
        "The least serious messages that are logged",
    ),
    same(
        SettingId::LogFormat,
        "log-format",
        "log.format",
        Kind::Choice(&["json", "console", "text"]),
        Fallback::Text("json"),
        "One JSON object a line, or lines for people (console and text are the same)",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Fallback, Kind, SETTINGS, SettingId, setting};

    #[test]
    fn the_table_stands_in_the_order_of_the_keys() {
        for (place, row) in SETTINGS.iter().enumerate() {
            assert_eq!(row.key as usize, place, "{}", row.flag);
            assert_eq!(setting(row.key).flag, row.flag);
        }
    }

    #[test]
    fn no_name_means_two_things() {
        let mut seen = BTreeSet::new();
        for row in &SETTINGS {
            assert!(seen.insert(row.flag), "flag {}", row.flag);
            if let Some(etcd) = row.etcd.filter(|etcd| *etcd != row.flag) {
                assert!(seen.insert(etcd), "flag {etcd}");
            }
        }
        let places: BTreeSet<_> = SETTINGS.iter().map(|row| row.toml).collect();
        assert_eq!(places.len(), SETTINGS.len());
    }

    #[test]
    fn choices_contain_their_default_and_names_are_derived() {
        for row in &SETTINGS {
            if let (Kind::Choice(words), Fallback::Text(text)) = (row.kind, row.fallback) {
                assert!(words.contains(&text), "{}", row.flag);
            }
        }
        assert_eq!(setting(SettingId::ListenClientUrls).env(), "COVEY_LISTEN_CLIENT_URLS");
        assert_eq!(setting(SettingId::AllowedHosts).etcd_env().as_deref(), Some("ETCD_HOST_WHITELIST"));
        assert_eq!(setting(SettingId::Solo).etcd_env(), None);
    }
}
