//! TLS for the client listeners: certificates, and whom to ask for one.
//!
//! Owns: rustls' configuration, and noticing that its files have changed. Must never: log or keep key material beyond rustls, or serve with
//! less protection than was configured because a file is bad. Built by `app`; asked by `api` for each handshake.
//!
//! Certificates come from files ([`ServerTls`]), or from the cluster's own authority ([`ClusterTls`]).

mod authority;
mod chosen;
mod clients;
mod cluster;
mod files;
mod protocol;
mod revoked;

use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

pub use authority::{
    Authority, AuthorityError, Issued, KeyHash, NewAuthority, ServerKey, ServerNames, Successor, key_hash_of,
};
pub use chosen::Allowed;
use chosen::Chosen;
pub use clients::{Clients, IsIssued};
pub use cluster::ClusterTls;
use files::Stamp;
pub use files::{TlsError, TlsFiles};
pub use protocol::{Protocol, Version};

/// The protocols that are offered, best first. gRPC's Go clients refuse a server that does not choose `h2`.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// TLS as the files say it, for every handshake anew.
///
/// Certificates are renewed by replacing files, often several and not at once, so a set that does not fit together is no error: the
/// last good one stays in use until the files make sense again.
#[derive(Debug)]
pub struct ServerTls {
    files: TlsFiles,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// The files as they were when `config` was made or, if they were bad, when that was noticed.
    seen: Vec<Stamp>,
}

impl ServerTls {
    /// Reads the files, which must be good to begin with.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let seen = files.stamps();
        let config = Arc::new(configure(&files)?);
        Ok(Self { files, current: Mutex::new(Current { config, seen }) })
    }

    /// The configuration for the next handshake. Looks whether files have changed, which costs a `stat` for each.
    pub fn current(&self) -> Arc<ServerConfig> {
        let stamps = self.files.stamps();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if stamps != current.seen {
            current.seen = stamps;
            match configure(&self.files) {
                Ok(config) => {
                    current.config = Arc::new(config);
                    tracing::info!(files = %self.files, "TLS files have changed and are in use");
                }
                Err(error) => {
                    tracing::warn!(%error, "TLS files have changed and are of no use; the ones before stay");
                }
            }
        }
        Arc::clone(&current.config)
    }

    /// Reads the files now, whether or not they look as if they had changed.
    pub fn read_again(&self) {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).seen.clear();
        self.current();
    }
}

fn configure(files: &TlsFiles) -> Result<ServerConfig, TlsError> {
    let provider = files.protocol.provider();
    let chain = files.chain()?;
    let key = files.key()?;
    let verifier = match files.client_authorities()? {
        None => WebPkiClientVerifier::no_client_auth(),
        Some((file, roots)) => {
            let vouched = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .map_err(|error| TlsError::Authorities { file, error })?;
            let (revoked, allowed) = (files.revoked()?, files.allowed.clone());
            Arc::new(Chosen { vouched, revoked, allowed }) as Arc<dyn ClientCertVerifier>
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&files.protocol.versions())
        .map_err(TlsError::Versions)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| TlsError::Pair { cert: files.cert.clone(), key: files.key.clone(), error })?;
    if files.trusted_ca.is_some() {
        // Whoever comes back is looked at anew: the certificate may have come to its end meanwhile.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Ok(config)
}

#[cfg(test)]
#[path = "tls_test.rs"]
mod tests;
