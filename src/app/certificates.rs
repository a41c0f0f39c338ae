//! TLS for clients in a cluster that issues its certificates itself: the authority in its state, and what follows from it on this box.
//!
//! Owns: when the authority comes into being, and when certificates are made anew. Must never: let the authority's key out of the state. Driven by
//! `serve`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use smol::Timer;
use smol::future::or;

use super::lan::Lan;
use crate::api;
use crate::command::{self, CharterCommand, ClientKey};
use crate::ids::ClusterId;
use crate::runtime::Handle;
use crate::tls::{Authority, AuthorityError, ClusterTls, ServerNames};

/// How often a cluster without an authority is looked at: somebody may have come to lead meanwhile.
const ESTABLISH_AGAIN: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Certificates {
    handle: Handle,
    lan: Arc<Lan>,
    cluster: ClusterId,
    /// What the box is called.
    host: String,
    tls: OnceLock<ClusterTls>,
}

impl Certificates {
    pub(super) fn new(handle: Handle, lan: Arc<Lan>, cluster: ClusterId, host: String) -> Arc<Self> {
        Arc::new(Self { handle, lan, cluster, host, tls: OnceLock::new() })
    }

    /// The configuration for each handshake, once there is an authority.
    pub(super) fn source(self: &Arc<Self>) -> api::TlsSource {
        let certificates = Arc::clone(self);
        Arc::new(move || certificates.tls.get().map(ClusterTls::current))
    }

    /// Who may stay of those who came through it.
    pub(super) fn admit(self: &Arc<Self>) -> api::Admit {
        let certificates = Arc::clone(self);
        Arc::new(move |shown| {
            let stay = certificates.tls.get()?.clients().admit(shown)?;
            Some(Box::pin(stay))
        })
    }

    /// Keeps what clients see in step with the state and with the box's addresses, until it is dropped.
    pub(super) async fn keep(&self) {
        loop {
            let changed = or(self.handle.charter_changed(), self.lan.changed());
            let authority = self.handle.view().facts().charter.authority.clone();
            let Some(authority) = authority else {
                self.establish().await;
                let later = async {
                    Timer::after(ESTABLISH_AGAIN).await;
                };
                or(changed, later).await;
                continue;
            };
            if let Err(error) = self.follow(&authority) {
                tracing::error!(%error, "clients on other boxes cannot be served: there is no certificate to show them");
            }
            changed.await;
        }
    }

    /// Makes the cluster's authority, where this member leads. Of two that two leaders make the first one in the log counts.
    async fn establish(&self) {
        if !self.handle.status().leads() {
            return;
        }
        let made = match Authority::generate(self.cluster) {
            Ok(made) => made,
            Err(error) => return tracing::error!(%error, "cannot make an authority for clients"),
        };
        let (certificate, key) = (Bytes::from(made.certificate_der), Bytes::from(made.key_pkcs8));
        let command = CharterCommand::Establish(command::Authority { certificate, key });
        if let Err(error) = self.handle.change_charter(command).await {
            tracing::debug!(%error, "cannot establish an authority for clients yet");
        }
    }

    fn follow(&self, authority: &command::Authority) -> Result<(), AuthorityError> {
        // First of all, whatever becomes of the certificate.
        if let Some(tls) = self.tls.get() {
            tls.clients().review();
        }
        let authority = Authority::load(&authority.certificate, &authority.key)?;
        let names = ServerNames::of_machine(&self.host, self.lan.addresses());
        if let Some(tls) = self.tls.get() {
            return tls.update(&authority, names);
        }
        let handle = self.handle.clone();
        let is_issued = move |key: &[u8; 32]| handle.view().facts().charter.client(ClientKey(*key)).is_some();
        // Only this task makes it.
        let _ = self.tls.set(ClusterTls::new(&authority, names, Arc::new(is_issued))?);
        Ok(())
    }
}
