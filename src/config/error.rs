//! Everything that can be wrong with a configuration, in words for the person who wrote it.
//!
//! Owns: the error type, its texts and its exit code. Must never: print (the command line does).

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::values::ValueError;

/// The exit code of a server that no further start helps, as long as nobody changes something: its settings are wrong, or its data directory is not for this
/// build or must not be used again (`EX_CONFIG` of sysexits). `systemd/covey.service` has it, so that systemd does not try for ever.
pub const EXIT_CONFIG: u8 = 78;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere.
    Default,
    /// On the command line, as this flag.
    Flag(String),
    /// In this environment variable.
    Env(String),
    /// In the file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key with its tables.
        key: &'static str,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Flag(flag) => write!(f, "flag --{flag}"),
            Origin::Env(name) => write!(f, "environment variable {name}"),
            Origin::File { path, line, key } => write!(f, "{}:{line}: key {key}", path.display()),
        }
    }
}

/// A name that was meant to be another, perhaps: ` (did you mean --name?)`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hint(pub Option<String>);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(name) => write!(f, " (did you mean {name}?)"),
            None => Ok(()),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A flag that does not exist.
    #[error("unknown flag: --{flag}{hint}")]
    UnknownFlag {
        /// Without its dashes.
        flag: String,
        /// The nearest that does.
        hint: Hint,
    },
    /// A flag of etcd's that does not exist here.
    #[error("etcd's --{flag} is not a flag of covey's: {instead}")]
    EtcdFlag {
        /// Without its dashes.
        flag: String,
        /// What there is instead.
        instead: &'static str,
    },
    /// An argument that belongs to no flag.
    #[error("\"{0}\" is not a valid flag")]
    Stray(String),
    /// A flag at the end that needs a value.
    #[error("flag needs an argument: --{0}")]
    ValueMissing(String),
    /// An argument or a variable in no known encoding.
    #[error("{0} is not valid UTF-8")]
    Encoding(String),
    /// A value that does not fit its setting.
    #[error("invalid value \"{value}\" for {origin}: {reason}")]
    Value {
        /// Where it was written.
        origin: Origin,
        /// What was written.
        value: String,
        /// Why it does not fit.
        reason: ValueError,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says, on one line.
        message: String,
    },
    /// A key of the file that does not exist.
    #[error("{}:{line}: unknown key \"{key}\"{hint}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key with its tables.
        key: String,
        /// The nearest that does.
        hint: Hint,
    },
    /// A key of the file whose value has the wrong TOML type.
    #[error("{}:{line}: key \"{key}\" must be {expected}", path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key with its tables.
        key: String,
        /// What it must be.
        expected: &'static str,
    },
    /// An https URL without a certificate to show.
    #[error("cannot listen on TLS for {0}: --cert-file and --key-file are not set")]
    HttpsWithoutCertificate(String),
    /// The same where monitoring is to be served.
    #[error("client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url: {0}")]
    MetricsWithoutCertificate(String),
    /// Half of a certificate.
    #[error("--cert-file and --key-file must be set together")]
    HalfCertificate,
    /// Client certificates cannot be judged.
    #[error("--client-cert-auth needs --trusted-ca-file")]
    ClientAuthWithoutCa,
    /// Authorities for client certificates, but no TLS.
    #[error("--trusted-ca-file needs --cert-file and --key-file")]
    CaWithoutCertificate,
    /// Nobody's certificate is looked at.
    #[error(
        "--client-crl-file, --client-cert-allowed-cn and --client-cert-allowed-hostname need --trusted-ca-file"
    )]
    ChosenWithoutCa,
    /// Two ways of choosing clients. etcd's words.
    #[error(
        "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[{}], hostnames=[{}])",
        quoted(names),
        quoted(hosts)
    )]
    AllowedTwice {
        /// By the one.
        names: Vec<String>,
        /// By the other.
        hosts: Vec<String>,
    },
    /// No version is left. etcd's words.
    #[error("min version ({least}) is greater than max version ({most})")]
    TlsVersions {
        /// The oldest.
        least: String,
        /// The newest.
        most: String,
    },
    /// There is no choice. etcd's words.
    #[error("cipher suites cannot be configured when only TLS1.3 is enabled")]
    CiphersOfTls13,
    /// No cipher is left.
    #[error("--cipher-suites names none of TLS 1.2, and --tls-max-version allows no newer one")]
    NoCipher,
    /// The node is not among those that form the cluster. etcd's words.
    #[error("couldn't find local name \"{0}\" in the initial cluster configuration")]
    NotInInitialCluster(String),
    /// The others would look for it elsewhere.
    #[error("--initial-cluster has {name}={initial} but --initial-advertise-peer-urls is {advertised}")]
    InitialUrlsDiffer {
        /// The node.
        name: String,
        /// Where it is by the one.
        initial: String,
        /// Where it is by the other.
        advertised: String,
    },
    /// Anybody on the network could take part.
    #[error(
        "{0} is not on this machine: put the same generated secret into a file on every node and name it with --cluster-secret-file (head -c 32 /dev/urandom | base64 makes one), or run covey node fingerprint on every node and list what it prints with --peer-fingerprints"
    )]
    TrustNeeded(String),
    /// There is nothing to prove.
    #[error(
        "--trust fleet-key needs --cluster-secret-file (head -c 32 /dev/urandom | base64 makes a secret)"
    )]
    FleetKeyMissing,
    /// A secret that nobody is asked for would be a false comfort.
    #[error("--trust lan-open lets in whoever is on the LAN: leave out --cluster-secret-file, or --trust")]
    LanOpenWithSecret,
    /// A leader would be missed for nothing.
    #[error(
        "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
    )]
    ElectionTooShort {
        /// In milliseconds.
        heartbeat: u128,
        /// In milliseconds.
        election: u128,
    },
    /// Nobody can connect to what is listened on.
    #[error("--advertise-client-urls is required when listening on {0}")]
    AdvertiseNeeded(String),
    /// The same for members.
    #[error("--initial-advertise-peer-urls is required when listening on {0}")]
    AdvertisePeerNeeded(String),
    /// Members are listened for at one port, of however many addresses.
    #[error("all URLs of --listen-peer-urls must have the same port")]
    OnePeerPort,
}

/// As Go prints a list of texts.
fn quoted(texts: &[String]) -> String {
    let quoted: Vec<String> = texts.iter().map(|text| format!("{text:?}")).collect();
    quoted.join(" ")
}

#[cfg(test)]
mod tests {
    use super::EXIT_CONFIG;

    #[test]
    fn systemd_is_told_which_exit_code_is_for_ever() {
        let unit = include_str!("../../systemd/covey.service");
        assert!(unit.lines().any(|line| line == format!("RestartPreventExitStatus={EXIT_CONFIG}")));
    }
}
