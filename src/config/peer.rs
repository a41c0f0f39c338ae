//! The settings about other members.
//!
//! Owns: the initial cluster, and the rules between it and what this member says of itself. Must never: read a file or resolve a name. Built by
//! `serve`, consumed by `app`.

use std::path::PathBuf;
use std::time::Duration;

use super::error::ConfigError;
use super::url::{Url, split_host_port};
use crate::consensus::Pace;
use crate::formation::Fingerprint;
use crate::runtime::listening::UdpPort;

/// The name of an interface is no longer (IFNAMSIZ, with the zero at its end).
const ZONE_BYTES_MAX: usize = 15;
/// A leader is not missed before it could have been heard so often (etcd's rule).
const HEARTBEATS_MIN: u32 = 5;

/// What has to do with other members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Where to listen for them.
    pub listen: UdpPort,
    /// Where they are told to find this one. Empty where others are found: then it is wherever this box has addresses.
    pub advertise_urls: Vec<Url>,
    /// How a cluster begins, where this node has none yet.
    pub initial: Option<InitialCluster>,
    /// Whose holders are let in that are in no cluster yet.
    pub secret_file: Option<PathBuf>,
    /// Whose holders are let in that are in no cluster; empty: any. With a secret they need both.
    pub fingerprints: Vec<Fingerprint>,
    /// How many vote, where nodes find each other: 3, 5 or 7.
    pub voters: usize,
    /// Who is let in, where nodes find each other.
    pub trust: TrustMode,
    /// The token that lets this node in.
    pub token_file: Option<PathBuf>,
    /// Where others may be.
    pub peers: Vec<PeerHint>,
    /// Names of interfaces, or their beginnings with a `*` behind; empty: the rules of `discovery`.
    pub interfaces: Vec<String>,
    /// Refuse changes of the members that could leave no majority.
    pub strict: bool,
    /// The most members that may be added without a vote.
    pub learners_max: u64,
    /// How soon a leader is missed.
    pub pace: Pace,
    /// How often the state is compared with the other members'; zero is never.
    pub compare_interval: Duration,
}

/// Who is let in, where nodes find each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustMode {
    /// Whoever is on the LAN, for a while after the founding.
    LanOpen,
    /// Whoever has the secret.
    FleetKey,
    /// Nobody whom no operator has let in.
    Locked,
}

/// Where somebody may be: a name or an address, and a UDP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerHint {
    /// A name, or an address without brackets; of a link with its interface, `fe80::1%eth0`.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl PeerHint {
    /// Parses `host`, `host:port`, `address` or `[v6]:port`; an address of a link has its interface behind a `%`.
    pub(super) fn parse(text: &str, port: u16) -> Option<Self> {
        if let Some(hint) = Self::parse_zoned(text, port) {
            return Some(hint);
        }
        if let Ok(address) = text.parse::<std::net::IpAddr>() {
            return Some(Self { host: address.to_string(), port });
        }
        let (host, port) =
            split_host_port(text).map(|(host, port)| (host.to_owned(), port)).or_else(|| {
                let whole = format!("{text}:{port}");
                split_host_port(&whole).map(|(host, port)| (host.to_owned(), port))
            })?;
        Some(Self { host, port })
    }

    /// `fe80::1%eth0`, `[fe80::1%eth0]` or `[fe80::1%eth0]:port`.
    fn parse_zoned(text: &str, port: u16) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
            None => (text, port),
            Some(Some((host, ""))) => (host, port),
            Some(bracketed) => {
                let (host, port) = bracketed?;
                let port = port.strip_prefix(':').filter(|port| port.bytes().all(|c| c.is_ascii_digit()))?;
                (host, port.parse().ok().filter(|port| *port != 0)?)
            }
        };
        let (address, zone) = host.split_once('%')?;
        let address =
            address.parse::<std::net::Ipv6Addr>().ok().filter(std::net::Ipv6Addr::is_unicast_link_local)?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@');
        let is_zone = (1..=ZONE_BYTES_MAX).contains(&zone.len()) && zone.chars().all(is_name);
        is_zone.then(|| Self { host: format!("{address}%{zone}"), port })
    }
}

impl std::fmt::Display for PeerHint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Nodes that form a cluster together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialCluster {
    /// Each with its name and where it is, in the order of the names, this one among them.
    pub nodes: Vec<(String, Vec<Url>)>,
    /// Join the cluster that there is, and never found one.
    pub existing: bool,
    /// Nodes with different tokens do not form a cluster.
    pub token: String,
}

impl InitialCluster {
    /// Reads `name=url,name=url,...`; a name that stands there several times has several URLs.
    pub(super) fn parse(text: &[(&str, Url)], existing: bool, token: &str) -> Self {
        let mut nodes: Vec<(String, Vec<Url>)> = Vec::new();
        for (name, url) in text {
            match nodes.iter_mut().find(|(known, _)| known == name) {
                Some((_, urls)) => urls.push(url.clone()),
                None => nodes.push(((*name).to_owned(), vec![url.clone()])),
            }
        }
        nodes.sort_by(|a, b| a.0.cmp(&b.0));
        Self { nodes, existing, token: token.to_owned() }
    }
}

impl PeerConfig {
    /// The rules that no setting can break alone.
    pub(super) fn check(&self, name: &str) -> Result<(), ConfigError> {
        let Pace { heartbeat, election_min, .. } = self.pace;
        if election_min < heartbeat * HEARTBEATS_MIN {
            return Err(ConfigError::ElectionTooShort {
                heartbeat: heartbeat.as_millis(),
                election: election_min.as_millis(),
            });
        }
        match (self.trust, &self.secret_file) {
            (TrustMode::FleetKey, None) => return Err(ConfigError::FleetKeyMissing),
            (TrustMode::LanOpen, Some(_)) => return Err(ConfigError::LanOpenWithSecret),
            _ => {}
        }
        let Some(initial) = &self.initial else { return Ok(()) };
        let own = initial.nodes.iter().find(|(known, _)| known == name);
        let (_, urls) = own.ok_or_else(|| ConfigError::NotInInitialCluster(name.to_owned()))?;
        let shown = |urls: &[Url]| {
            let mut shown: Vec<String> = urls.iter().map(ToString::to_string).collect();
            shown.sort_unstable();
            shown
        };
        if shown(urls) != shown(&self.advertise_urls) {
            return Err(ConfigError::InitialUrlsDiffer {
                name: name.to_owned(),
                initial: shown(urls).join(","),
                advertised: shown(&self.advertise_urls).join(","),
            });
        }
        let is_loopback = |url: &Url| {
            url.host == "localhost" || url.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        };
        let far = initial.nodes.iter().flat_map(|(_, urls)| urls).find(|url| !is_loopback(url));
        match far {
            Some(url) if self.secret_file.is_none() && self.fingerprints.is_empty() => {
                Err(ConfigError::TrustNeeded(url.to_string()))
            }
            _ => Ok(()),
        }
    }
}
