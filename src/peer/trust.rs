//! Whom a connection may be with: pinned public keys, and nothing else.
//!
//! Owns: the set of keys, rustls' configurations, what checks them. Must never: look at a name or a date (boxes without a clock battery
//! start in 1970), accept a key whose holder has not signed the handshake, or resume a session. Driven by `endpoint` and rustls.
//!
//! Members show their bare keys (RFC 7250) and no certificates: a certificate would say nothing that is believed, and be
//! one more thing to parse before a stranger is turned away.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};

use super::hello::Known;
use crate::formation::{Dialect, Fingerprint, NodeKey, later_run};
use crate::ids::{MemberId, PublicKey, Run};

/// What members speak with each other.
pub(super) const ALPN_PEER: &[u8] = b"covey-peer/1";
/// What nodes speak that are in no cluster, and members with them, on the same port: best first, with what is said in each.
pub(super) const ALPNS_FORMING: [(&[u8], Dialect); 2] =
    [(b"covey-form/2", Dialect::Versioned), (b"covey-form/1", Dialect::Plain)];

/// How nodes talk that have agreed on this protocol, if it is one of those for nodes in no cluster.
pub(super) fn dialect_of(protocol: Option<&[u8]>) -> Option<Dialect> {
    ALPNS_FORMING.into_iter().find(|(known, _)| protocol == Some(known)).map(|(_, dialect)| dialect)
}

/// A SubjectPublicKeyInfo of an Ed25519 key up to the key itself (RFC 8410, section 4): always these bytes.
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The Ed25519 key in a SubjectPublicKeyInfo; `None` for anything else.
pub(super) fn key_of(spki: &[u8]) -> Option<PublicKey> {
    let key = spki.strip_prefix(&SPKI_HEAD)?;
    Some(PublicKey(key.try_into().ok()?))
}

/// The keys that are accepted, whose they are, and the latest run that each has shown. Replaced while connections come and go.
#[derive(Debug, Default)]
pub(super) struct Pins {
    accepted: RwLock<BTreeMap<PublicKey, Known>>,
    /// The keys of members that were removed.
    removed: RwLock<BTreeMap<PublicKey, MemberId>>,
}

impl Pins {
    /// Whose key this is.
    pub(super) fn known(&self, key: &PublicKey) -> Option<Known> {
        self.accepted.read().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    /// Which member this was the key of, before it was removed.
    pub(super) fn removed(&self, key: &PublicKey) -> Option<MemberId> {
        self.removed.read().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    /// The holders of these keys are told that they were removed.
    pub(super) fn replace_removed(&self, keys: BTreeMap<PublicKey, MemberId>) {
        *self.removed.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Accepts these keys from now on and no others. What was seen of a member is not forgotten.
    pub(super) fn replace(&self, keys: impl Iterator<Item = (PublicKey, MemberId, Option<Run>)>) {
        let mut pins = self.accepted.write().unwrap_or_else(PoisonError::into_inner);
        let fresh = keys
            .map(|(key, member, seen)| {
                let before = pins.get(&key).filter(|known| known.member == member);
                let seen = later_run(before.and_then(|known| known.seen), seen);
                (key, Known { member, seen })
            })
            .collect();
        *pins = fresh;
    }

    /// The holder of this key has shown this run.
    pub(super) fn saw(&self, key: &PublicKey, run: Run) {
        let mut pins = self.accepted.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = pins.get_mut(key) {
            known.seen = later_run(known.seen, Some(run));
        }
    }
}

/// A key that is not the one, or none of those, that are accepted.
#[derive(thiserror::Error)]
enum KeyRefused {
    #[error("the key {0} is not that of a member")]
    Stranger(Fingerprint),
    #[error("the key {shown} is not the expected one, {expected}")]
    Other { shown: Fingerprint, expected: Fingerprint },
    #[error("what was shown is not an Ed25519 key")]
    NotEd25519,
}

/// What rustls puts around a sentence of ours: it shows such errors by `Debug`.
const AROUND: (&str, &str) = ("invalid peer certificate: Other(OtherError(", "))");

impl fmt::Debug for KeyRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The sentence alone, of an error that rustls shows.
pub(super) fn sentence_of(shown: &[u8]) -> &[u8] {
    let inside =
        shown.strip_prefix(AROUND.0.as_bytes()).and_then(|rest| rest.strip_suffix(AROUND.1.as_bytes()));
    inside.unwrap_or(shown)
}

impl From<KeyRefused> for Error {
    fn from(why: KeyRefused) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
    }
}

/// What both directions have in common: who is meant, and how signatures are checked.
struct Verifier {
    accepts: Accepts,
    algorithms: WebPkiSupportedAlgorithms,
}

enum Accepts {
    /// Whoever dials has to be pinned.
    Pinned(Arc<Pins>),
    /// Whoever is dialled has to be the one that was meant.
    One(PublicKey),
    /// Any key is let in whose holder has signed the handshake. What it may do is decided after that.
    Any,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

impl Verifier {
    fn check(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        let key = key_of(shown).ok_or(KeyRefused::NotEd25519)?;
        match &self.accepts {
            // Who was removed is told so by a member, and not by TLS.
            Accepts::Pinned(pins) if pins.known(&key).is_some() || pins.removed(&key).is_some() => Ok(()),
            Accepts::Pinned(_) => Err(KeyRefused::Stranger(Fingerprint::of(&key)).into()),
            Accepts::Any => Ok(()),
            Accepts::One(expected) if *expected == key => Ok(()),
            Accepts::One(expected) => {
                Err(KeyRefused::Other { shown: Fingerprint::of(&key), expected: Fingerprint::of(expected) }
                    .into())
            }
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(shown.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms)
    }
}

/// Only TLS 1.3 is offered, so that this is never asked for.
fn never_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered))
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(shown).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        never_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(shown).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        never_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The node's side of every handshake.
#[derive(Clone)]
pub(super) struct Credentials {
    provider: Arc<CryptoProvider>,
    shown: Arc<CertifiedKey>,
}

impl Credentials {
    pub(super) fn new(key: &NodeKey) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let private = PrivatePkcs8KeyDer::from(key.pkcs8().to_vec());
        let signer = rustls::crypto::ring::sign::any_eddsa_type(&private)?;
        let spki = [&SPKI_HEAD[..], key.public()].concat();
        let shown = Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signer));
        Ok(Self { provider, shown })
    }

    fn verifier(&self, accepts: Accepts) -> Arc<Verifier> {
        let algorithms = self.provider.signature_verification_algorithms;
        Arc::new(Verifier { accepts, algorithms })
    }

    /// For those who dial a member: they must hold a pinned key, unless nodes without a cluster are heard as well. Which protocol
    /// somebody wants is known only after its key was looked at, so that a key is looked up once more where it has to be a member's.
    pub(super) fn server(
        &self,
        pins: &Arc<Pins>,
        hears_strangers: bool,
    ) -> Result<rustls::ServerConfig, Error> {
        if hears_strangers {
            return self.server_with(
                Accepts::Any,
                &[&[ALPN_PEER], &ALPNS_FORMING.map(|(name, _)| name)[..]].concat(),
            );
        }
        self.server_with(Accepts::Pinned(Arc::clone(pins)), &[ALPN_PEER])
    }

    /// For those who dial a node that is in no cluster.
    pub(super) fn server_of_strangers(&self) -> Result<rustls::ServerConfig, Error> {
        self.server_with(Accepts::Any, &ALPNS_FORMING.map(|(name, _)| name))
    }

    fn server_with(&self, accepts: Accepts, protocols: &[&[u8]]) -> Result<rustls::ServerConfig, Error> {
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(self.verifier(accepts))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&self.shown))));
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(config)
    }

    /// For dialling the holder of `key`.
    pub(super) fn client(&self, key: PublicKey) -> Result<rustls::ClientConfig, Error> {
        self.client_with(Accepts::One(key), &[ALPN_PEER])
    }

    /// For dialling whoever is there, to ask or to join.
    pub(super) fn client_of_strangers(&self) -> Result<rustls::ClientConfig, Error> {
        self.client_with(Accepts::Any, &ALPNS_FORMING.map(|(name, _)| name))
    }

    fn client_with(&self, accepts: Accepts, protocols: &[&[u8]]) -> Result<rustls::ClientConfig, Error> {
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(accepts))
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(
                &self.shown,
            ))));
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = false;
        Ok(config)
    }
}

#[cfg(test)]
#[path = "trust_test.rs"]
mod tests;
