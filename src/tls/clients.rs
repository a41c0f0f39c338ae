//! Clients that are known by the keys of their certificates, as in a cluster that issues them itself.
//!
//! Owns: whom rustls lets in, and the end of connections whose key counts no more. Must never: look at a name, a date or an issuer (whoever takes
//! the authority's key from a box must be able to mint nothing), or accept a key whose holder has not signed the handshake. Driven by rustls
//! for each handshake, by `api` for each connection, and by `app` when the list of keys has changed.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use smol::channel::{self, Receiver, RecvError, Sender};

use super::authority::{KeyHash, key_hash_of};

/// Whether a key is one of those that the cluster has issued to clients, as its state is now. Must not call back into [`Clients`].
pub type IsIssued = Arc<dyn Fn(&KeyHash) -> bool + Send + Sync>;

/// The clients of a node.
pub struct Clients {
    is_issued: IsIssued,
    /// What ends the connections that are open, for each key.
    open: Mutex<BTreeMap<KeyHash, Weak<End>>>,
}

/// The end of all connections with one key. It lives as long as the last of them.
struct End {
    // Nothing is ever sent: closing the channel is the message, and reaches every receiver.
    announcer: Sender<Infallible>,
    listener: Receiver<Infallible>,
}

impl Clients {
    /// Nobody is connected yet.
    pub fn new(is_issued: IsIssued) -> Self {
        Self { is_issued, open: Mutex::default() }
    }

    /// Takes note of a connection whose handshake is done. What is returned resolves when the connection has to be closed, and is dropped with
    /// it; `None` when that is at once.
    pub fn admit(&self, shown: &[CertificateDer<'_>]) -> Option<impl Future<Output = ()> + Send + use<>> {
        let key = key_hash_of(shown.first()?).ok()?;
        let end = self.end_of(key);
        // Asked behind the note: a key that is taken from the list meanwhile is missed here, or found by the review after.
        (self.is_issued)(&key).then_some(async move {
            let Err(RecvError) = end.listener.recv().await;
        })
    }

    /// Closes the connections whose keys are no longer on the list. To be called whenever it may have changed.
    pub fn review(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|key, end| {
            let Some(end) = end.upgrade() else { return false };
            let stays = (self.is_issued)(key);
            if !stays {
                tracing::info!(key = %Hex(key), "a client's certificate was revoked: its connections are closed");
                end.announcer.close();
            }
            stays
        });
    }

    fn end_of(&self, key: KeyHash) -> Arc<End> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(end) = open.get(&key).and_then(Weak::upgrade) {
            return end;
        }
        let (announcer, listener) = channel::bounded(1);
        let end = Arc::new(End { announcer, listener });
        open.insert(key, Arc::downgrade(&end));
        end
    }
}

/// rustls' question who may come in.
pub(super) struct KeyVerifier {
    clients: Arc<Clients>,
    /// The authority's name: what clients choose their certificate by that have several.
    hints: [DistinguishedName; 1],
    algorithms: WebPkiSupportedAlgorithms,
}

impl KeyVerifier {
    pub(super) fn new(clients: Arc<Clients>, hint: DistinguishedName, provider: &CryptoProvider) -> Self {
        Self { clients, hints: [hint], algorithms: provider.signature_verification_algorithms }
    }
}

impl fmt::Debug for KeyVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyVerifier")
    }
}

impl ClientCertVerifier for KeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let key = key_hash_of(shown)?;
        if (self.clients.is_issued)(&key) {
            return Ok(ClientCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(NotIssued(key))))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, shown, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, shown, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A key that is not on the list.
#[derive(thiserror::Error)]
#[error("the cluster has issued no certificate for the key {}, or has revoked it", Hex(.0))]
struct NotIssued(KeyHash);

/// rustls shows such errors by `Debug`.
impl fmt::Debug for NotIssued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

struct Hex<'a>(&'a KeyHash);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use rustls_pki_types::pem::PemObject as _;
    use smol::future::{block_on, poll_once};

    use super::super::authority::Authority;
    use super::*;
    use crate::ids::ClusterId;

    fn certificate() -> CertificateDer<'static> {
        let made = Authority::generate(ClusterId(1)).unwrap();
        let authority = Authority::load(&made.certificate_der, &made.key_pkcs8).unwrap();
        CertificateDer::from_pem_slice(authority.issue_client("a").unwrap().certificate.as_bytes()).unwrap()
    }

    #[test]
    fn a_connection_ends_with_its_key_and_no_other_does() {
        let (stays, goes) = (certificate(), certificate());
        let gone = Arc::new(AtomicBool::new(false));
        let (flag, revoked) = (Arc::clone(&gone), key_hash_of(&goes).unwrap());
        let clients = Clients::new(Arc::new(move |key| !(flag.load(Relaxed) && *key == revoked)));
        let admit = |shown: &CertificateDer<'static>| clients.admit(std::slice::from_ref(shown));
        let mut kept = Box::pin(admit(&stays).unwrap());
        let mut cut = [Box::pin(admit(&goes).unwrap()), Box::pin(admit(&goes).unwrap())];
        clients.review();
        assert!(block_on(poll_once(&mut kept)).is_none());
        assert!(cut.iter_mut().all(|end| block_on(poll_once(end)).is_none()));
        gone.store(true, Relaxed);
        assert!(admit(&goes).is_none(), "it comes too late");
        clients.review();
        assert!(block_on(poll_once(&mut kept)).is_none());
        assert!(cut.iter_mut().all(|end| block_on(poll_once(end)).is_some()));
        gone.store(false, Relaxed);
        let mut back = Box::pin(admit(&goes).unwrap());
        clients.review();
        assert!(block_on(poll_once(&mut back)).is_none(), "the end of before is not its end");
        assert!(clients.admit(&[]).is_none());
        drop((kept, cut, back));
        clients.review();
        assert!(clients.open.lock().unwrap().is_empty(), "nothing is kept of those who have left");
    }
}
