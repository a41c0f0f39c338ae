//! Which of the clients that an operator's authorities vouch for are let in: `--client-crl-file`, `--client-cert-allowed-cn` and `--client-cert-allowed-hostname`.
//!
//! Owns: the order in which that is asked, and the comparison of names. Must never: let in whom rustls' own verifier refuses, or take for equal what is not, byte for byte. Driven by
//! rustls for each handshake.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::revoked::Revoked;
use crate::auth::common_name_bytes;

/// Who is let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Allowed {
    /// Whoever the authorities vouch for.
    #[default]
    Everybody,
    /// Whose certificate has one of these common names.
    Names(Vec<String>),
    /// Whose certificate is good for one of these hosts or addresses.
    Hosts(Vec<ServerName<'static>>),
}

impl Allowed {
    fn has(&self, shown: &CertificateDer<'_>) -> Result<bool, Error> {
        Ok(match self {
            Self::Everybody => true,
            Self::Names(names) => common_name_bytes(shown)
                .is_some_and(|(_, name)| names.iter().any(|allowed| allowed.as_bytes() == name)),
            Self::Hosts(hosts) => {
                let shown = ParsedCertificate::try_from(shown)?;
                hosts.iter().any(|host| verify_server_name(&shown, host).is_ok())
            }
        })
    }
}

/// rustls' verifier, then the lists of what counts no more, then the names.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) vouched: Arc<dyn ClientCertVerifier>,
    pub(super) revoked: Revoked,
    pub(super) allowed: Allowed,
}

impl ClientCertVerifier for Chosen {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.vouched.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.vouched.verify_client_cert(shown, intermediates, now)?;
        // Of what comes behind the first, what cannot be read has vouched for nobody.
        if self.revoked.has(shown).map_err(|_| CertificateError::BadEncoding)?
            || intermediates.iter().any(|certificate| self.revoked.has(certificate).unwrap_or(false))
        {
            return Err(CertificateError::Revoked.into());
        }
        if self.allowed.has(shown)? {
            return Ok(verified);
        }
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(NotAllowed)))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.vouched.verify_tls12_signature(message, shown, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.vouched.verify_tls13_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.vouched.supported_verify_schemes()
    }
}

/// A certificate of the right authority for somebody else.
#[derive(thiserror::Error)]
#[error("client certificate authentication failed: its name is not one that is allowed")]
struct NotAllowed;

/// rustls shows such errors by `Debug`.
impl fmt::Debug for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
        KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
    };
    use rustls::RootCertStore;
    use rustls::server::WebPkiClientVerifier;

    use super::*;

    #[test]
    fn names_are_looked_at_only_in_what_somebody_vouches_for() {
        let certificate = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
        };
        let mut roots = RootCertStore::empty();
        roots.add(certificate("authority")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let vouched = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let (revoked, allowed) = (Revoked::default(), Allowed::Names(vec!["good".to_owned()]));
        let chosen = Chosen { vouched, revoked, allowed };
        let strangers: [&[u8]; 3] = [&certificate("good"), &certificate("bad"), b"no certificate"];
        for stranger in strangers {
            let judge = |verifier: &dyn ClientCertVerifier| {
                verifier.verify_client_cert(&stranger.into(), &[], UnixTime::now()).unwrap_err()
            };
            assert_eq!(judge(&chosen), judge(&*chosen.vouched));
        }
    }

    /// A list counts for all that a client shows, whoever has signed it.
    #[test]
    fn a_number_on_a_list_is_refused_wherever_it_is_shown() {
        let issue = |number: u64, is_ca, by: Option<&Issuer<'_, KeyPair>>| {
            let mut params = CertificateParams::default();
            params.is_ca = is_ca;
            params.serial_number = Some(SerialNumber::from(number));
            params.distinguished_name.push(DnType::CommonName, format!("number {number}"));
            let key = KeyPair::generate().unwrap();
            let certificate = match by {
                None => params.self_signed(&key),
                Some(by) => params.signed_by(&key, by),
            };
            (certificate.unwrap().der().clone(), Issuer::new(params, key))
        };
        let ca = || IsCa::Ca(BasicConstraints::Unconstrained);
        let (root, by_root) = issue(1, ca(), None);
        let (between, by_between) = issue(200, ca(), Some(&by_root));
        let (leaf, _) = issue(300, IsCa::NoCa, Some(&by_between));
        let (_, by_another) = issue(4, ca(), None);
        let list = |numbers: &[u64]| {
            let day = |year| date_time_ymd(year, 1, 1);
            let revoked = |number: &u64| RevokedCertParams {
                serial_number: SerialNumber::from(*number),
                revocation_time: day(2020),
                reason_code: None,
                invalidity_date: None,
            };
            let params = CertificateRevocationListParams {
                this_update: day(2020),
                next_update: day(2021),
                crl_number: SerialNumber::from(1),
                issuing_distribution_point: None,
                revoked_certs: numbers.iter().map(revoked).collect(),
                key_identifier_method: KeyIdMethod::Sha256,
            };
            params.signed_by(&by_another).unwrap().der().clone()
        };
        let mut roots = RootCertStore::empty();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let vouched = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let chain = [between, CertificateDer::from_slice(b"no certificate")];
        for (numbers, is_refused) in
            [(&[][..], false), (&[5, 6], false), (&[5, 300], true), (&[200], true), (&[1], false)]
        {
            let revoked = Revoked::by(&[list(&[7]), list(numbers)]).unwrap();
            let chosen = Chosen { vouched: Arc::clone(&vouched), revoked, allowed: Allowed::Everybody };
            let judged = chosen.verify_client_cert(&leaf, &chain, UnixTime::now()).err();
            let expected = is_refused.then_some(Error::InvalidCertificate(CertificateError::Revoked));
            assert_eq!(judged, expected, "{numbers:?}");
        }
    }
}
