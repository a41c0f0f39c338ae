//! The sockets that clients and monitoring come to, and what each of them asks for.
//!
//! Owns: which socket is for what, and whom it lets in. Must never: look at what is asked. Driven by `serve`.

use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;

use smol::{Async, LocalExecutor};

use super::certificates::Certificates;
use super::serve::ServeFailure;
use crate::api::{self, Api, Listener, Plaintext, Serves};
use crate::config::{ClientConfig, ListenUrl, Scheme, ServeConfig};
use crate::runtime::listening;
use crate::tls::{ServerTls, TlsFiles};

/// A socket that is bound and not served yet.
pub(super) struct Socket {
    listen: ListenUrl,
    serves: Serves,
    listener: TcpListener,
}

/// Binds all of them.
pub(super) fn bind(config: &ServeConfig) -> Result<Vec<Socket>, ServeFailure> {
    let bind = |(serves, listen): (Serves, &ListenUrl)| {
        let listener = listening::tcp(listen.address)
            .map_err(|source| ServeFailure::Listen { url: listen.url.to_string(), source })?;
        Ok(Socket { listen: listen.clone(), serves, listener })
    };
    let clients = config.client.listen_urls.iter().map(|url| (Serves::Clients, url));
    let probes = config.metrics.listen_urls.iter().map(|url| (Serves::Probes, url));
    clients.chain(probes).map(bind).collect()
}

/// What clients have to show, and are shown.
pub(super) enum ClientTls {
    /// Nothing.
    None,
    /// By files.
    Files {
        files: Arc<ServerTls>,
        /// The common name of what clients show is a user.
        names_users: bool,
    },
    /// By the cluster's own authority.
    Cluster(Arc<Certificates>),
}

impl ClientTls {
    pub(super) fn load(config: &ClientConfig) -> Result<Self, ServeFailure> {
        let Some(files) = &config.tls else { return Ok(Self::None) };
        let names_users = files.client_cert_auth;
        let files = Arc::new(ServerTls::load(TlsFiles {
            cert: files.cert_file.clone(),
            key: files.key_file.clone(),
            trusted_ca: files.client_ca_file.clone(),
            client_cert_auth: files.client_cert_auth,
            crl: files.client_crl_file.clone(),
            allowed: files.allowed.clone(),
            protocol: config.tls_protocol.clone(),
        })?);
        Ok(Self::Files { files, names_users })
    }

    /// What is read from files, if anything is.
    pub(super) fn files(&self) -> Option<Arc<ServerTls>> {
        match self {
            Self::Files { files, .. } => Some(Arc::clone(files)),
            Self::None | Self::Cluster(_) => None,
        }
    }

    /// TLS is recognised by its first byte wherever there is a certificate.
    fn listener(&self, serves: Serves, scheme: Scheme, demands_certificates: bool) -> Listener {
        let plaintext = plaintext(scheme, demands_certificates);
        let (tls, admit, names_users) = match self {
            Self::None => (None, None, false),
            Self::Files { files, names_users } => {
                let files = Arc::clone(files);
                (Some(Arc::new(move || Some(files.current())) as api::TlsSource), None, *names_users)
            }
            // What the cluster issues says who may come, and not which user that is.
            Self::Cluster(certificates) => (Some(certificates.source()), Some(certificates.admit()), false),
        };
        Listener { serves, plaintext, tls, admit, names_users }
    }
}

/// An https URL also serves this machine in plain text, unless its operator wants to see certificates. An http URL serves everybody: one for probes shows no user's
/// data, and one for clients is meant so.
fn plaintext(scheme: Scheme, demands_certificates: bool) -> Plaintext {
    match (scheme, demands_certificates) {
        (Scheme::Http, _) => Plaintext::Anyone,
        (Scheme::Https, false) => Plaintext::Loopback,
        (Scheme::Https, true) => Plaintext::Nobody,
    }
}

/// Serves whoever comes to these sockets.
pub(super) fn listen(
    config: &ServeConfig,
    sockets: Vec<Socket>,
    tls: &ClientTls,
    api: &Api,
    executor: &Rc<LocalExecutor<'static>>,
) -> Result<(), ServeFailure> {
    let demands_certificates = config.client.tls.as_ref().is_some_and(|files| files.client_ca_file.is_some());
    for Socket { listen, serves, listener } in sockets {
        let url = listen.url.to_string();
        let listener =
            Async::new(listener).map_err(|source| ServeFailure::Listen { url: url.clone(), source })?;
        let (api, takes) = (api.clone(), tls.listener(serves, listen.url.scheme, demands_certificates));
        match serves {
            Serves::Clients => tracing::info!(url, "serving client requests"),
            Serves::Probes => tracing::info!(url, "serving metrics"),
        }
        let connections = Rc::clone(executor);
        let accept =
            async move { api.accept(&listener, takes, |task| connections.spawn(task).detach()).await };
        executor.spawn(accept).detach();
    }
    Ok(())
}

/// A socket once more, for whoever has it before there is a cluster.
pub(super) struct Port {
    pub(super) listener: TcpListener,
    pub(super) serves: Serves,
    pub(super) plaintext: Plaintext,
}

/// All of them.
pub(super) fn shared(sockets: &[Socket]) -> io::Result<Vec<Port>> {
    let share = |socket: &Socket| {
        let Socket { listen, serves, listener } = socket;
        let plaintext = plaintext(listen.url.scheme, false);
        Ok(Port { listener: listener.try_clone()?, serves: *serves, plaintext })
    };
    sockets.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_for_whom_the_url_and_the_settings_say() {
        for (scheme, demands_certificates, expected) in [
            (Scheme::Http, false, Plaintext::Anyone),
            (Scheme::Http, true, Plaintext::Anyone),
            (Scheme::Https, false, Plaintext::Loopback),
            (Scheme::Https, true, Plaintext::Nobody),
        ] {
            let found = plaintext(scheme, demands_certificates);
            assert_eq!(found, expected, "{scheme:?}, certificates demanded: {demands_certificates}");
        }
    }
}
