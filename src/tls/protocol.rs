//! Which versions of TLS, and which ciphers, are offered.
//!
//! Owns: their names in settings. Must never: offer what was not asked for because what was is not there. Built by `app`, asked when a configuration is
//! made.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 1.2.
    Tls12,
    /// 1.3.
    Tls13,
}

/// What is offered: by default all that there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protocol {
    /// `--tls-min-version`.
    pub least: Option<Version>,
    /// `--tls-max-version`.
    pub most: Option<Version>,
    /// `--cipher-suites`, by their names in Go; none is all. Those of TLS 1.3 may be named and are there in any case, as in Go.
    pub ciphers: Vec<String>,
}

impl Protocol {
    /// The ciphers of a version, as Go calls them.
    pub fn ciphers_of(version: Version) -> Vec<String> {
        let all = rustls::crypto::ring::default_provider().cipher_suites;
        all.into_iter().filter(|suite| version_of(*suite) == version).map(name_of).collect()
    }

    pub(super) fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let all = [(Version::Tls13, &rustls::version::TLS13), (Version::Tls12, &rustls::version::TLS12)];
        let is_offered = |version: Version| {
            self.least.is_none_or(|least| version >= least) && self.most.is_none_or(|most| version <= most)
        };
        all.into_iter().filter(|(version, _)| is_offered(*version)).map(|(_, version)| version).collect()
    }

    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        let mut provider = rustls::crypto::ring::default_provider();
        provider.cipher_suites.retain(|suite| {
            let is_chosen = || self.ciphers.contains(&name_of(*suite));
            self.ciphers.is_empty() || version_of(*suite) == Version::Tls13 || is_chosen()
        });
        Arc::new(provider)
    }
}

fn version_of(suite: SupportedCipherSuite) -> Version {
    match suite {
        SupportedCipherSuite::Tls12(_) => Version::Tls12,
        SupportedCipherSuite::Tls13(_) => Version::Tls13,
    }
}

/// As the registry of ciphers calls it, and so does Go; rustls puts the version into the names of TLS 1.3.
fn name_of(suite: SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replace("TLS13_", "TLS_")
}

#[cfg(test)]
mod tests {
    use rustls::ProtocolVersion::{TLSv1_2, TLSv1_3};

    use super::*;

    #[test]
    fn what_is_offered_is_what_was_asked_for() {
        let versions = |least, most| {
            let protocol = Protocol { least, most, ciphers: Vec::new() };
            protocol.versions().iter().map(|version| version.version).collect::<Vec<_>>()
        };
        assert_eq!(versions(None, None), [TLSv1_3, TLSv1_2]);
        assert_eq!(versions(Some(Version::Tls13), None), [TLSv1_3]);
        assert_eq!(versions(None, Some(Version::Tls12)), [TLSv1_2]);
        let of_13 = ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"];
        assert_eq!(Protocol::ciphers_of(Version::Tls13), of_13);
        let chosen = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
        assert!(Protocol::ciphers_of(Version::Tls12).iter().any(|cipher| cipher == chosen));
        let offered = |ciphers: &[&str]| {
            let ciphers = ciphers.iter().map(|cipher| (*cipher).to_owned()).collect();
            let provider = Protocol { ciphers, ..Protocol::default() }.provider();
            provider.cipher_suites.iter().map(|suite| name_of(*suite)).collect::<Vec<_>>()
        };
        assert_eq!(offered(&[chosen, of_13[1]]), [&of_13[..], &[chosen]].concat());
        assert_eq!(offered(&of_13), of_13);
        assert!(offered(&[]).len() > of_13.len() + 1);
    }
}
