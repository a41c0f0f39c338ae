//! TLS of a node whose cluster issues its certificates itself.
//!
//! Owns: this node's server certificate, made anew when what it says has changed. Must never: let anybody in without a certificate whose key is
//! on the cluster's list, or resume a session (its key may have been revoked meanwhile). Built and updated by `app`; asked by `api` for each
//! handshake.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::ALPN;
use super::authority::{Authority, AuthorityError, ServerKey, ServerNames};
use super::clients::{Clients, IsIssued, KeyVerifier};
use super::protocol::Protocol;
use crate::telemetry::Listed;

/// TLS by the cluster's own authority, as it is for the next handshake.
pub struct ClusterTls {
    key: ServerKey,
    clients: Arc<Clients>,
    protocol: Protocol,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    /// Who has issued the certificate, what leads there, and what it says.
    authority: CertificateDer<'static>,
    bridges: Vec<CertificateDer<'static>>,
    names: ServerNames,
}

impl Current {
    fn new(authority: &Authority, names: ServerNames, config: Arc<ServerConfig>) -> Self {
        let bridges = authority.bridges().to_vec();
        Self { config, authority: authority.certificate().clone(), bridges, names }
    }

    fn says(&self, authority: &Authority, names: &ServerNames) -> bool {
        self.authority == *authority.certificate()
            && self.bridges == authority.bridges()
            && self.names == *names
    }
}

impl ClusterTls {
    /// A new key, and a certificate for it with these names.
    pub fn new(
        authority: &Authority,
        names: ServerNames,
        is_issued: IsIssued,
        protocol: Protocol,
    ) -> Result<Self, AuthorityError> {
        let (key, clients) = (ServerKey::generate()?, Arc::new(Clients::new(is_issued)));
        let config = configure(authority, &key, &names, &clients, &protocol)?;
        let current = Current::new(authority, names, config);
        Ok(Self { key, clients, protocol, current: Mutex::new(current) })
    }

    /// Makes the certificate anew if another authority is to issue it, or other ways are to lead there, or it is to say something else. Open connections stay. When it fails,
    /// the certificate from before stays in use, and the next call tries again.
    pub fn update(&self, authority: &Authority, names: ServerNames) -> Result<(), AuthorityError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.says(authority, &names) {
            return Ok(());
        }
        let config = configure(authority, &self.key, &names, &self.clients, &self.protocol)?;
        tracing::info!(
            hosts = %Listed(&names.hosts),
            addresses = %Listed(&names.addresses),
            "the server certificate was made anew");
        *current = Current::new(authority, names, config);
        Ok(())
    }

    /// The configuration for the next handshake.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// Who is connected, by the keys of their certificates.
    pub fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }
}

fn configure(
    authority: &Authority,
    key: &ServerKey,
    names: &ServerNames,
    clients: &Arc<Clients>,
    protocol: &Protocol,
) -> Result<Arc<ServerConfig>, AuthorityError> {
    let provider = protocol.provider();
    let verifier = KeyVerifier::new(Arc::clone(clients), authority.subject().clone(), &provider);
    let chain = authority.issue_server(key, names)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&protocol.versions())?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain, PrivateKeyDer::from(key.to_pkcs8()))?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::authority::Successor;
    use super::*;
    use crate::ids::ClusterId;

    #[test]
    fn the_certificate_is_made_anew_only_when_it_would_say_something_else() {
        let authority = |number| {
            let made = Authority::generate(ClusterId(number)).unwrap();
            Authority::load(&made.certificate_der, &made.key_pkcs8).unwrap()
        };
        let (one, other) = (authority(1), authority(1));
        let Successor { authority: next, bridge_der } = other.succeed().unwrap();
        let next = || Authority::load(&next.certificate_der, &next.key_pkcs8).unwrap();
        let (reached, alone) = (next().reached_by([&bridge_der[..]]), next());
        let names = |last| ServerNames::of_machine("box", [IpAddr::from([192, 0, 2, last])]);
        let tls = ClusterTls::new(&one, names(1), Arc::new(|_| true), Protocol::default()).unwrap();
        let mut before = tls.current();
        for (authority, address, is_new) in [
            (&one, 1, false),
            (&one, 2, true),
            (&one, 2, false),
            (&other, 2, true),
            (&other, 2, false),
            (&reached, 2, true),
            (&reached, 2, false),
            (&alone, 2, true),
        ] {
            tls.update(authority, names(address)).unwrap();
            let now = tls.current();
            assert_eq!(!Arc::ptr_eq(&before, &now), is_new, "{address}");
            before = now;
        }
    }
}
