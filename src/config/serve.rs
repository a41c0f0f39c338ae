//! What `covey serve` runs with: every setting parsed, and checked against the others.
//!
//! Owns: the typed configuration and the rules between settings. Must never: open, bind or create anything, or look at the
//! clock. Built by [`super::load`], consumed by `app`.

use std::path::PathBuf;
use std::time::Duration;

use rustls_pki_types::ServerName;

use super::auth_token::{self, AuthConfig};
use super::error::ConfigError;
use super::peer::{InitialCluster, PeerConfig, PeerHint, TrustMode};
use super::sources::Sources;
use super::table::{SettingId, setting};
use super::url::{ListenUrl, Scheme, Url};
use super::values::{self, AutoCompaction, ValueError};
use crate::api::{BCRYPT_COST_MAX, BCRYPT_COST_MIN};
use crate::consensus::Pace;
use crate::formation::{Fingerprint, FingerprintError};
use crate::limits::{self, ELECTION_MILLIS_MAX, ELECTION_TIMEOUT_MAX, HEARTBEAT_MILLIS_MIN};
use crate::runtime::listening::UdpPort;
use crate::telemetry::{LogFormat, LogLevel, LogSettings};
use crate::tls::{Allowed, Protocol, Version};

/// Names longer than this are refused.
const NAME_BYTES_MAX: usize = 255;
/// The most that `--max-txn-ops` may be set to.
const TXN_OPS_MAX: u64 = 65_536;
/// The most that `--max-connections` may be set to: one file descriptor each.
const CONNECTIONS_MAX: u64 = 1_000_000;
/// The least that `--store-cache-bytes` may be set to: below, every page of a fold is written twice and more.
const STORE_CACHE_BYTES_MIN: u64 = 4 * 1024 * 1024;
/// The most that `--store-cache-bytes` may be set to: what a 32-bit process can still address.
const STORE_CACHE_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// The most that `--backup-keep` may be set to: a directory is looked through for each.
const BACKUPS_MAX: u64 = 100_000;
/// The least that `--backup-interval` may be set to.
const BACKUP_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// The shortest request limit that leaves room for a small key and value.
const REQUEST_BYTES_MIN: u64 = 1024;

const _: () = {
    assert!(REQUEST_BYTES_MIN <= limits::REQUEST_BYTES as u64);
    assert!(limits::TXN_OPS as u64 <= TXN_OPS_MAX);
    assert!(STORE_CACHE_BYTES_MIN <= limits::STORE_CACHE_BYTES as u64);
    assert!(STORE_CACHE_BYTES_MAX <= u32::MAX as u64);
};

/// The whole configuration of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeConfig {
    /// How people call this member. Not empty, no control characters.
    pub name: String,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Be a cluster of one at once.
    pub solo: bool,
    /// The client listener.
    pub client: ClientConfig,
    /// How users show who they are.
    pub auth: AuthConfig,
    /// What has to do with other members.
    pub peer: PeerConfig,
    /// The store.
    pub store: StoreConfig,
    /// When old revisions are dropped without anybody asking.
    pub auto_compaction: AutoCompaction,
    /// Where snapshots are written without anybody asking, if they are.
    pub backup: Option<BackupConfig>,
    /// What monitoring is shown.
    pub metrics: MetricsConfig,
    /// What is logged and how.
    pub log: LogSettings,
    /// What is odd about the configuration but no error, a sentence each; to be logged once logging works.
    pub warnings: Vec<String>,
}

impl ServeConfig {
    /// Whether the node finds others by itself, and they it.
    pub fn is_automatic(&self) -> bool {
        !self.solo && self.peer.initial.is_none()
    }

    /// Whether somebody has chosen the name.
    pub fn is_named(&self) -> bool {
        self.name != setting(SettingId::Name).fallback_text()
    }
}

/// The client listener's part of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientConfig {
    /// Where to listen; not empty. Those with https need `tls`, which is then present, or the cluster's own authority where nodes find each other.
    pub listen_urls: Vec<ListenUrl>,
    /// Where clients are told to find this member. Empty where nodes find each other: then it is wherever this box has addresses.
    pub advertise_urls: Vec<Url>,
    /// The certificate, when one was given.
    pub tls: Option<TlsFiles>,
    /// What is spoken where there is TLS.
    pub tls_protocol: Protocol,
    /// The largest proposal that is accepted, in bytes as encoded.
    pub max_request_bytes: usize,
    /// The most operations in a transaction.
    pub max_txn_ops: usize,
    /// How often quiet watchers that ask for it are told how far they are.
    pub watch_progress_interval: Duration,
    /// The most connections that clients may hold at once.
    pub max_connections: usize,
    /// The most calls that one connection may have open.
    pub max_streams: u32,
    /// How often a client may ping; zero is as often as it likes.
    pub keepalive_min_time: Duration,
    /// After how much silence a client is pinged, and how long it may take to answer; `None` is never.
    pub keepalive: Option<(Duration, Duration)>,
    /// Names by which web pages may call this member on plaintext loopback connections; `*` is any.
    pub allowed_hosts: Vec<String>,
    /// Web origins whose pages may call this member; `*` is any.
    pub cors: Vec<String>,
    /// Whether JSON is answered.
    pub gateway: bool,
    /// Whether clients may ask what there is to call.
    pub reflection: bool,
}

/// The files of TLS for clients. They are read when connections come, not here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, PEM.
    pub cert_file: PathBuf,
    /// Its private key, PEM.
    pub key_file: PathBuf,
    /// When present, every client must show a certificate that these authorities (PEM) have signed.
    pub client_ca_file: Option<PathBuf>,
    /// `--client-cert-auth` was given: a client certificate's common name may stand for a user.
    pub client_cert_auth: bool,
    /// Certificates that count no more (PEM or DER).
    pub client_crl_file: Option<PathBuf>,
    /// Whose certificates count.
    pub allowed: Allowed,
}

/// What monitoring is shown, beside the client listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Where to listen for it; may be empty. Those with https are served by the certificates of the client listener.
    pub listen_urls: Vec<ListenUrl>,
    /// How long calls take is among it.
    pub extensive: bool,
}

/// Snapshots by schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupConfig {
    /// Where they go.
    pub directory: PathBuf,
    /// How often; at least a second.
    pub interval: Duration,
    /// How many are kept; at least one.
    pub keep: usize,
}

/// The store's part of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// Writes are refused above this many bytes of data; `None` is no limit.
    pub quota_bytes: Option<u64>,
    /// Memory for pages of the store, in bytes.
    pub cache_bytes: usize,
}

/// Where a server keeps everything that has these settings.
pub(super) fn data_dir(sources: &Sources) -> Result<PathBuf, ConfigError> {
    Ok(place(&Reader(sources))?.1)
}

/// A member's name, and its data directory, which is named after it unless somebody says otherwise.
fn place(reader: &Reader<'_>) -> Result<(String, PathBuf), ConfigError> {
    let name = reader.parse(SettingId::Name, name)?;
    let named = reader.0.is_set(SettingId::DataDir).then(|| reader.0.value(SettingId::DataDir).text);
    let data_dir = named.unwrap_or_else(|| format!("{name}.covey"));
    Ok((name, data_dir.into()))
}

/// Parses everything that was written.
pub(super) fn build(sources: Sources) -> Result<ServeConfig, ConfigError> {
    let reader = Reader(&sources);
    let (name, data_dir) = place(&reader)?;
    let mode = reader.parse(SettingId::CompactionMode, mode)?;
    let solo = reader.parse(SettingId::Solo, values::boolean)?;
    let is_automatic = !solo && sources.value(SettingId::InitialCluster).text.is_empty();
    let mut config = ServeConfig {
        name,
        data_dir,
        solo,
        client: client(&reader, is_automatic)?,
        auth: auth(&reader)?,
        peer: peer(&reader, is_automatic)?,
        store: StoreConfig {
            quota_bytes: reader.parse(SettingId::Quota, quota)?,
            cache_bytes: reader.number(
                SettingId::StoreCache,
                STORE_CACHE_BYTES_MIN,
                STORE_CACHE_BYTES_MAX,
            )?,
        },
        auto_compaction: reader
            .parse(SettingId::CompactionRetention, |text| values::retention(mode, text))?,
        backup: backup(&reader)?,
        metrics: metrics(&reader)?,
        log: LogSettings {
            level: reader.parse(SettingId::LogLevel, level)?,
            format: reader.parse(SettingId::LogFormat, format)?,
        },
        warnings: Vec::new(),
    };
    config.peer.check(&config.name)?;
    if let Some(https) = https(&config.metrics.listen_urls)
        && config.client.tls.is_none()
        && !is_automatic
    {
        return Err(ConfigError::MetricsWithoutCertificate(https.to_string()));
    }
    config.warnings = warnings(&config);
    config.warnings.splice(0..0, sources.warnings);
    Ok(config)
}

/// Where a node listens that nobody told anything else, and that does not look for others.
const LISTEN_CLIENTS_LOCALLY: &str = "http://localhost:2379";
const LISTEN_PEERS_LOCALLY: &str = "http://localhost:2380";

fn listen(reader: &Reader<'_>, key: SettingId, locally: Option<&str>) -> Result<Vec<ListenUrl>, ConfigError> {
    reader.parse(key, |text| {
        let fallback = locally.filter(|_| !reader.0.is_set(key));
        urls(fallback.unwrap_or(text), ListenUrl::parse)
    })
}

/// Where others are told to go. `None` where that follows from the addresses that this box has.
fn advertised(
    reader: &Reader<'_>,
    key: SettingId,
    listen: &[ListenUrl],
) -> Result<Option<Vec<Url>>, ConfigError> {
    if !reader.0.value(key).text.is_empty() {
        return reader.parse(key, |text| urls(text, Url::parse_reachable)).map(Some);
    }
    let is_everywhere = listen.iter().any(|url| url.address.ip().is_unspecified());
    Ok((!is_everywhere).then(|| listen.iter().map(|listen| listen.url.clone()).collect()))
}

fn peer(reader: &Reader<'_>, is_automatic: bool) -> Result<PeerConfig, ConfigError> {
    let locally = (!is_automatic).then_some(LISTEN_PEERS_LOCALLY);
    let listen_urls = listen(reader, SettingId::ListenPeerUrls, locally)?;
    let advertised = advertised(reader, SettingId::AdvertisePeerUrls, &listen_urls)?;
    let places = listen_urls.iter().map(|url| url.address);
    let listen = UdpPort::at(places).ok_or(ConfigError::OnePeerPort)?;
    let advertise_urls = match advertised {
        Some(advertised) => advertised,
        None if is_automatic => Vec::new(),
        None if reader.0.is_set(SettingId::InitialCluster) => {
            let shown: Vec<String> = listen_urls.iter().map(ToString::to_string).collect();
            return Err(ConfigError::AdvertisePeerNeeded(shown.join(",")));
        }
        None => listen_urls.iter().map(|listen| listen.url.clone()).collect(),
    };
    let state = reader
        .parse(SettingId::InitialClusterState, |text| values::choice(text, SettingId::InitialClusterState))?;
    let token = reader.0.value(SettingId::InitialClusterToken).text;
    let initial = reader.parse(SettingId::InitialCluster, |text| {
        let existing = state == "existing";
        // Places that nobody has taken have no name yet; etcd's tools list them, too.
        let named = values::list(text).filter(|item| !(existing && item.starts_with('=')));
        let parsed: Result<Vec<_>, _> = named.map(named_url).collect();
        Ok(InitialCluster::parse(&parsed?, existing, &token))
    })?;
    let path = |key| Some(reader.0.value(key).text).filter(|text| !text.is_empty()).map(PathBuf::from);
    let secret_file = path(SettingId::ClusterSecretFile);
    let trust = if reader.0.is_set(SettingId::Trust) {
        reader.parse(SettingId::Trust, trust)?
    } else if secret_file.is_some() {
        TrustMode::FleetKey
    } else {
        TrustMode::LanOpen
    };
    let hint =
        |part: &str| PeerHint::parse(part, listen.port()).ok_or_else(|| ValueError::Host(part.to_owned()));
    let peers = reader.parse(SettingId::Peers, |text| values::list(text).map(hint).collect())?;
    Ok(PeerConfig {
        listen,
        advertise_urls,
        initial: Some(initial).filter(|initial| !initial.nodes.is_empty()),
        secret_file,
        fingerprints: reader.parse(SettingId::PeerFingerprints, fingerprints)?,
        voters: reader.parse(SettingId::Voters, voters)?,
        trust,
        token_file: path(SettingId::JoinTokenFile),
        peers,
        interfaces: names(reader.0, SettingId::Interfaces),
        strict: reader.parse(SettingId::StrictReconfigCheck, values::boolean)?,
        learners_max: reader.parse(SettingId::MaxLearners, |text| values::number(text, 0..=u64::MAX))?,
        pace: pace(reader)?,
        compare_interval: reader.parse(SettingId::CorruptCheckTime, values::duration)?,
    })
}

fn pace(reader: &Reader<'_>) -> Result<Pace, ConfigError> {
    let millis = |key| {
        let number =
            reader.parse(key, |text| values::number(text, HEARTBEAT_MILLIS_MIN..=ELECTION_MILLIS_MAX));
        number.map(Duration::from_millis)
    };
    let (heartbeat, election_min) = (millis(SettingId::Heartbeat)?, millis(SettingId::Election)?);
    Ok(Pace { heartbeat, election_min, election_max: ELECTION_TIMEOUT_MAX.max(election_min) })
}

/// `name=url`.
fn named_url(text: &str) -> Result<(&str, Url), ValueError> {
    let (node, url) = text.split_once('=').ok_or(ValueError::NamedUrl)?;
    name(node)?;
    Ok((node, Url::parse_reachable(url)?))
}

fn client(reader: &Reader<'_>, is_automatic: bool) -> Result<ClientConfig, ConfigError> {
    let locally = (!is_automatic).then_some(LISTEN_CLIENTS_LOCALLY);
    let listen_urls = listen(reader, SettingId::ListenClientUrls, locally)?;
    let advertised = advertised(reader, SettingId::AdvertiseClientUrls, &listen_urls)?;
    let advertise_urls = match (advertised, listen_urls.iter().find(|url| url.address.ip().is_unspecified()))
    {
        (Some(advertised), _) => advertised,
        (None, Some(everywhere)) if !is_automatic => {
            return Err(ConfigError::AdvertiseNeeded(everywhere.to_string()));
        }
        (None, _) => Vec::new(),
    };
    let tls = tls(reader)?;
    match (https(&listen_urls), &tls) {
        (Some(https), None) if !is_automatic => {
            return Err(ConfigError::HttpsWithoutCertificate(https.to_string()));
        }
        _ => {}
    }
    Ok(ClientConfig {
        listen_urls,
        advertise_urls,
        tls,
        tls_protocol: protocol(reader)?,
        max_request_bytes: reader.number(
            SettingId::MaxRequestBytes,
            REQUEST_BYTES_MIN,
            limits::REQUEST_BYTES_MAX as u64,
        )?,
        max_txn_ops: reader.number(SettingId::MaxTxnOps, 1, TXN_OPS_MAX)?,
        watch_progress_interval: reader.parse(SettingId::WatchProgressNotifyInterval, progress_interval)?,
        max_connections: reader.number(SettingId::MaxConnections, 1, CONNECTIONS_MAX)?,
        max_streams: reader
            .parse(SettingId::MaxStreams, |text| values::number(text, 1..=u64::from(u32::MAX)))?
            .try_into()
            .unwrap_or(u32::MAX),
        keepalive_min_time: reader.parse(SettingId::KeepaliveMinTime, values::duration)?,
        keepalive: keepalive(reader)?,
        allowed_hosts: names(reader.0, SettingId::AllowedHosts),
        cors: names(reader.0, SettingId::Cors),
        gateway: reader.parse(SettingId::EnableGateway, values::boolean)?,
        reflection: reader.parse(SettingId::EnableReflection, values::boolean)?,
    })
}

fn backup(reader: &Reader<'_>) -> Result<Option<BackupConfig>, ConfigError> {
    let interval = reader.parse(SettingId::BackupInterval, |text| {
        let interval = values::duration(text)?;
        if interval < BACKUP_INTERVAL_MIN { Err(ValueError::Duration) } else { Ok(interval) }
    })?;
    let keep = reader.number(SettingId::BackupKeep, 1, BACKUPS_MAX)?;
    let directory = reader.0.value(SettingId::BackupDir).text;
    Ok((!directory.is_empty()).then(|| BackupConfig { directory: directory.into(), interval, keep }))
}

fn metrics(reader: &Reader<'_>) -> Result<MetricsConfig, ConfigError> {
    let listen_urls = reader.parse(SettingId::ListenMetricsUrls, |text| {
        if text.is_empty() { Ok(Vec::new()) } else { urls(text, ListenUrl::parse) }
    })?;
    let detail = reader.parse(SettingId::Metrics, |text| values::choice(text, SettingId::Metrics))?;
    Ok(MetricsConfig { listen_urls, extensive: detail == "extensive" })
}

/// The first of these that needs a certificate.
fn https(urls: &[ListenUrl]) -> Option<&ListenUrl> {
    urls.iter().find(|url| url.url.scheme == Scheme::Https)
}

fn auth(reader: &Reader<'_>) -> Result<AuthConfig, ConfigError> {
    let ttl = reader.parse(SettingId::AuthTokenTtl, auth_token::ttl)?;
    let cost = reader.parse(SettingId::BcryptCost, |text| {
        values::number(text, u64::from(BCRYPT_COST_MIN)..=u64::from(BCRYPT_COST_MAX))
    })?;
    Ok(AuthConfig {
        token: reader.parse(SettingId::AuthToken, |text| auth_token::parse(text, ttl))?,
        bcrypt_cost: u32::try_from(cost).unwrap_or(BCRYPT_COST_MAX),
    })
}

/// As in etcd, both have to be above zero.
fn keepalive(reader: &Reader<'_>) -> Result<Option<(Duration, Duration)>, ConfigError> {
    let interval = reader.parse(SettingId::KeepaliveInterval, values::duration)?;
    let timeout = reader.parse(SettingId::KeepaliveTimeout, values::duration)?;
    Ok((!interval.is_zero() && !timeout.is_zero()).then_some((interval, timeout)))
}

fn tls(reader: &Reader<'_>) -> Result<Option<TlsFiles>, ConfigError> {
    let path = |key| Some(reader.0.value(key).text).filter(|text| !text.is_empty()).map(PathBuf::from);
    let client_cert_auth = reader.parse(SettingId::ClientCertAuth, values::boolean)?;
    let client_ca_file = path(SettingId::TrustedCaFile);
    let client_crl_file = path(SettingId::ClientCrlFile);
    let allowed = allowed(reader)?;
    if client_ca_file.is_none() && (client_crl_file.is_some() || allowed != Allowed::Everybody) {
        return Err(ConfigError::ChosenWithoutCa);
    }
    if client_cert_auth && client_ca_file.is_none() {
        return Err(ConfigError::ClientAuthWithoutCa);
    }
    match (path(SettingId::Certificate), path(SettingId::PrivateKey)) {
        (Some(cert_file), Some(key_file)) => Ok(Some(TlsFiles {
            cert_file,
            key_file,
            client_ca_file,
            client_cert_auth,
            client_crl_file,
            allowed,
        })),
        (None, None) if client_ca_file.is_some() => Err(ConfigError::CaWithoutCertificate),
        (None, None) => Ok(None),
        _ => Err(ConfigError::HalfCertificate),
    }
}

fn allowed(reader: &Reader<'_>) -> Result<Allowed, ConfigError> {
    let host =
        |text: &str| ServerName::try_from(text.to_owned()).map_err(|_| ValueError::HostName(text.to_owned()));
    let hosts: Vec<_> = reader.parse(SettingId::ClientAllowedHostname, |text| {
        values::list(text).map(host).collect::<Result<_, _>>()
    })?;
    let names = names(reader.0, SettingId::ClientAllowedCn);
    match (names.is_empty(), hosts.is_empty()) {
        (true, true) => Ok(Allowed::Everybody),
        (false, true) => Ok(Allowed::Names(names)),
        (true, false) => Ok(Allowed::Hosts(hosts)),
        (false, false) => Err(ConfigError::AllowedTwice {
            names,
            hosts: self::names(reader.0, SettingId::ClientAllowedHostname),
        }),
    }
}

fn protocol(reader: &Reader<'_>) -> Result<Protocol, ConfigError> {
    let (least, most) = (
        reader.parse(SettingId::TlsMinVersion, tls_version)?,
        reader.parse(SettingId::TlsMaxVersion, tls_version)?,
    );
    if let (Some(_), Some(_)) = (least, most)
        && least > most
    {
        let text = |id| reader.0.value(id).text;
        return Err(ConfigError::TlsVersions {
            least: text(SettingId::TlsMinVersion),
            most: text(SettingId::TlsMaxVersion),
        });
    }
    let (of_12, of_13) = (Protocol::ciphers_of(Version::Tls12), Protocol::ciphers_of(Version::Tls13));
    let cipher = |text: &str| {
        // The older names that etcd knows, too.
        let name = if text.ends_with("_POLY1305") { format!("{text}_SHA256") } else { text.to_owned() };
        let is_there = of_12.contains(&name) || of_13.contains(&name);
        is_there.then_some(name).ok_or_else(|| ValueError::Cipher(text.to_owned()))
    };
    let ciphers: Vec<String> =
        reader.parse(SettingId::CipherSuites, |text| values::list(text).map(cipher).collect())?;
    if !ciphers.is_empty() {
        match (least, most) {
            (Some(Version::Tls13), _) => return Err(ConfigError::CiphersOfTls13),
            (_, Some(Version::Tls12)) if !ciphers.iter().any(|cipher| of_12.contains(cipher)) => {
                return Err(ConfigError::NoCipher);
            }
            _ => {}
        }
    }
    Ok(Protocol { least, most, ciphers })
}

/// As in etcd an empty one is no bound.
fn tls_version(text: &str) -> Result<Option<Version>, ValueError> {
    match text {
        "" => Ok(None),
        "TLS1.2" => Ok(Some(Version::Tls12)),
        "TLS1.3" => Ok(Some(Version::Tls13)),
        _ => Err(ValueError::TlsVersion(text.to_owned())),
    }
}

/// What etcd warns of, too.
fn warnings(config: &ServeConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    for listen in config.client.listen_urls.iter().filter(|listen| listen.url.scheme == Scheme::Http) {
        if config.client.tls.is_some() {
            warnings.push(format!("the scheme of {listen} is http: the certificate is not used there"));
        }
        if !listen.address.ip().is_loopback() {
            warnings.push(format!("client traffic on {listen} is neither encrypted nor authenticated"));
        }
    }
    warnings
}

/// Reads settings out of the sources and says where a bad one was written.
struct Reader<'a>(&'a Sources);

impl Reader<'_> {
    fn parse<T>(
        &self,
        key: SettingId,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Result<T, ConfigError> {
        let written = self.0.value(key);
        parse(&written.text).map_err(|reason| ConfigError::Value {
            origin: written.origin,
            value: written.text,
            reason,
        })
    }

    fn number(&self, key: SettingId, least: u64, most: u64) -> Result<usize, ConfigError> {
        let number = self.parse(key, |text| values::number(text, least..=most))?;
        Ok(usize::try_from(number).unwrap_or(usize::MAX))
    }
}

fn name(text: &str) -> Result<String, ValueError> {
    if text.is_empty() {
        return Err(ValueError::Empty);
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(ValueError::TooLong(NAME_BYTES_MAX));
    }
    if text.chars().any(char::is_control) {
        return Err(ValueError::Control);
    }
    Ok(text.to_owned())
}

fn urls<T: PartialEq + ToString>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, super::url::UrlError>,
) -> Result<Vec<T>, ValueError> {
    let mut urls: Vec<T> = Vec::new();
    for part in values::list(text) {
        let url = parse(part)?;
        if urls.contains(&url) {
            return Err(ValueError::Twice(url.to_string()));
        }
        urls.push(url);
    }
    if urls.is_empty() { Err(ValueError::Empty) } else { Ok(urls) }
}

/// One that stands there twice is that of two boxes with one key, or stands for another that is missing.
fn fingerprints(text: &str) -> Result<Vec<Fingerprint>, ValueError> {
    let mut fingerprints = Vec::new();
    for part in values::list(text) {
        let fingerprint =
            part.parse().map_err(|FingerprintError| ValueError::Fingerprint(part.to_owned()))?;
        if fingerprints.contains(&fingerprint) {
            return Err(ValueError::Twice(part.to_owned()));
        }
        fingerprints.push(fingerprint);
    }
    Ok(fingerprints)
}

fn names(sources: &Sources, id: SettingId) -> Vec<String> {
    values::list(&sources.value(id).text).map(str::to_owned).collect()
}

/// As etcd: 0 is the default, and less than the shortest is the shortest.
fn progress_interval(text: &str) -> Result<Duration, ValueError> {
    let interval = values::duration(text)?;
    if interval.is_zero() {
        return Ok(limits::WATCH_PROGRESS_INTERVAL);
    }
    Ok(interval.max(limits::WATCH_PROGRESS_INTERVAL_MIN))
}

/// As etcd: 0 is the default, a negative number switches the quota off.
fn quota(text: &str) -> Result<Option<u64>, ValueError> {
    Ok(match values::signed(text)? {
        0 => Some(limits::QUOTA_BYTES),
        bytes => u64::try_from(bytes).ok(),
    })
}

fn mode(text: &str) -> Result<&'static str, ValueError> {
    values::choice(text, SettingId::CompactionMode)
}

fn voters(text: &str) -> Result<usize, ValueError> {
    Ok(match values::choice(text, SettingId::Voters)? {
        "7" => 7,
        "5" => 5,
        _ => 3,
    })
}

fn trust(text: &str) -> Result<TrustMode, ValueError> {
    Ok(match values::choice(text, SettingId::Trust)? {
        "fleet-key" => TrustMode::FleetKey,
        "locked" => TrustMode::Locked,
        _ => TrustMode::LanOpen,
    })
}

fn level(text: &str) -> Result<LogLevel, ValueError> {
    Ok(match values::choice(text, SettingId::LogLevel)? {
        "debug" => LogLevel::Debug,
        "info" => LogLevel::Info,
        "warn" => LogLevel::Warn,
        // Nothing is logged above error here, and an error must never be hidden.
        _ => LogLevel::Error,
    })
}

fn format(text: &str) -> Result<LogFormat, ValueError> {
    Ok(match values::choice(text, SettingId::LogFormat)? {
        "json" => LogFormat::Json,
        _ => LogFormat::Text,
    })
}
