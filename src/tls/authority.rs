//! The cluster's own certificate authority, for what clients see: the servers' certificates and those that clients show.
//!
//! Owns: what stands in these certificates. Must never: keep a private key that it made for somebody else, sign with anything but P-256 (many
//! TLS stacks take no Ed25519), or look at a clock. The authority is the same on all members: its certificate and key are in the replicated
//! state. Driven by `cluster` and by `app`.
//!
//! An authority may take the place of another one, whose key somebody has taken along. Who trusts the old one is led to the new one for a while, by a
//! certificate of the new key that the old one has signed (a bridge). Who trusts the new one never has to look at the old one.
//!
//! ```text
//! old ──bridge──► new ──► server        new ──► server
//!  ▲ a client from before                ▲ a client from after
//! ```

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType, SerialNumber, date_time_ymd,
};
use ring::digest::{SHA256, digest};
use rustls::server::ParsedCertificate;
use rustls::{DistinguishedName, RootCertStore};
use rustls_pki_types::{CertificateDer, DnsName, PrivatePkcs8KeyDer};

use crate::ids::ClusterId;
use crate::runtime::clock::entropy;

/// SHA-256 of a SubjectPublicKeyInfo: what a client's certificate is known by.
pub type KeyHash = [u8; 32];

/// The common name of servers' certificates. Clients go by the alternative names; this one only has to differ from the authority's, for OpenSSL
/// takes a certificate whose subject is its issuer's for a self-signed one.
const SERVER_NAME: &str = "covey server";
/// Bytes of a serial number: random, so that none repeats. RFC 5280, section 4.1.2.2, allows 20.
const SERIAL_BYTES: usize = 16;
/// The last second that a certificate can name; RFC 5280, section 4.1.2.5, has it stand for "no end".
const LAST_DAY: (i32, u8, u8) = (9999, 12, 31);
const LAST_SECOND_OF_DAY: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60 - 1);
/// A common name is no longer than this, in characters (RFC 5280, appendix A.1).
const COMMON_NAME_MAX: usize = 64;
/// Addresses in one certificate. Each takes up to 18 bytes of every handshake, and a machine with so many gives most to containers.
const ADDRESSES_MAX: usize = 256;

/// Why there is no authority, or no certificate of it.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// No key or certificate could be made.
    #[error("cannot make a key or a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The system gives no randomness.
    #[error("cannot draw a serial number: {0}")]
    Random(#[from] io::Error),
    /// The authority's certificate is not one, or rustls takes none of what it has issued.
    #[error("the cluster's authority cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// The authority's name is not as it was given to it.
    #[error("the cluster's authority has a name that is not covey's")]
    Name,
    /// Certificate and key of the authority are of two.
    #[error("certificate and key of the cluster's authority do not belong together")]
    Mismatch,
    /// A client that cannot be called so.
    #[error("a client's name has 1 to {COMMON_NAME_MAX} characters, and is not the authority's")]
    ClientName,
}

/// What a new authority is kept by.
#[derive(Clone, PartialEq, Eq)]
pub struct NewAuthority {
    /// Its certificate, signed by itself.
    pub certificate_der: Vec<u8>,
    /// Its private key.
    pub key_pkcs8: Vec<u8>,
}

/// What an authority leaves to its clients when another one takes its place.
#[derive(Clone, PartialEq, Eq)]
pub struct Successor {
    /// The other one.
    pub authority: NewAuthority,
    /// Its certificate, signed by the one before.
    pub bridge_der: Vec<u8>,
}

/// What a client shows, and what the cluster keeps of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM (PKCS #8). It is nowhere else.
    pub key: String,
    /// By what the cluster knows the certificate again.
    pub key_hash: KeyHash,
}

/// What a server answers to: what stands in its certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerNames {
    /// Names of the machine.
    pub hosts: BTreeSet<String>,
    /// Its addresses.
    pub addresses: BTreeSet<IpAddr>,
}

impl ServerNames {
    /// All that a machine is called: by its host name with and without domain, by its name in mDNS, by its addresses, and as clients on the
    /// machine itself call it. A host name that cannot stand in a certificate is left out.
    pub fn of_machine(host: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let label = host.split('.').next().unwrap_or_default();
        let hosts = [host.clone(), label.to_owned(), format!("{label}.local"), "localhost".to_owned()];
        let is_of_one_machine = |address: &IpAddr| !address.is_unspecified() && !address.is_multicast();
        let addresses = addresses.into_iter().map(|address| address.to_canonical()).filter(is_of_one_machine);
        let mut addresses: BTreeSet<IpAddr> = addresses.take(ADDRESSES_MAX).collect();
        addresses.extend([IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)]);
        let hosts = hosts.into_iter().filter(|host| DnsName::try_from(host.as_str()).is_ok()).collect();
        Self { hosts, addresses }
    }

    fn alternative_names(&self) -> Result<Vec<SanType>, rcgen::Error> {
        let hosts = self.hosts.iter().map(|host| Ok(SanType::DnsName(host.as_str().try_into()?)));
        let addresses = self.addresses.iter().map(|address| Ok(SanType::IpAddress(*address)));
        hosts.chain(addresses).collect()
    }
}

/// The private key of this node's server certificates, made anew with every process.
pub struct ServerKey(KeyPair);

impl ServerKey {
    /// A new key.
    pub fn generate() -> Result<Self, AuthorityError> {
        Ok(Self(new_key()?))
    }

    /// As rustls takes it.
    pub(super) fn to_pkcs8(&self) -> PrivatePkcs8KeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der())
    }
}

/// A certificate authority, ready to sign.
pub struct Authority {
    certificate: CertificateDer<'static>,
    name: String,
    subject: DistinguishedName,
    issuer: Issuer<'static, KeyPair>,
    /// What leads to it from those before, the last one first.
    bridges: Vec<CertificateDer<'static>>,
}

impl Authority {
    /// Makes the authority of a cluster. Every one that the cluster may have after it has the same name, so that clients which choose their
    /// certificate by the names that the server hints at find the ones from before.
    pub fn generate(cluster: ClusterId) -> Result<NewAuthority, AuthorityError> {
        let key = new_key()?;
        let certificate_der =
            authority_params(&format!("covey CA {cluster}"))?.self_signed(&key)?.der().to_vec();
        Ok(NewAuthority { certificate_der, key_pkcs8: key.serialize_der() })
    }

    /// Makes the authority that is to take the place of this one.
    pub fn succeed(&self) -> Result<Successor, AuthorityError> {
        let key = new_key()?;
        let certificate_der = authority_params(&self.name)?.self_signed(&key)?.der().to_vec();
        let mut params = authority_params(&self.name)?;
        // By this alone it is told from one that is signed by itself: all authorities have one name.
        params.use_authority_key_identifier_extension = true;
        let bridge_der = params.signed_by(&key, &self.issuer)?.der().to_vec();
        let authority = NewAuthority { certificate_der, key_pkcs8: key.serialize_der() };
        Ok(Successor { authority, bridge_der })
    }

    /// Takes up the authority that the cluster has.
    pub fn load(certificate_der: &[u8], key_pkcs8: &[u8]) -> Result<Self, AuthorityError> {
        let certificate = CertificateDer::from(certificate_der.to_vec());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone())?;
        let (Some(anchor), Some(subject)) = (roots.roots.first(), roots.subjects().pop()) else {
            return Err(AuthorityError::Name);
        };
        let name = common_name(&anchor.subject).ok_or(AuthorityError::Name)?.to_owned();
        let key = KeyPair::from_pkcs8_der_and_sign_algo(
            &PrivatePkcs8KeyDer::from(key_pkcs8),
            &PKCS_ECDSA_P256_SHA256,
        )?;
        if key_hash(&key.subject_public_key_info()) != key_hash_of(&certificate)? {
            return Err(AuthorityError::Mismatch);
        }
        // Of these, only the name and how keys are identified go into what is issued.
        let issuer = Issuer::new(params(&name)?, key);
        Ok(Self { certificate, name, subject, issuer, bridges: Vec::new() })
    }

    /// The same with what leads to it from those before, the last one first.
    pub fn reached_by<'a>(mut self, bridges_der: impl IntoIterator<Item = &'a [u8]>) -> Self {
        self.bridges = bridges_der.into_iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        self
    }

    /// The authority's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The same as clients are given it.
    pub fn certificate_pem(&self) -> String {
        to_pem("CERTIFICATE", &self.certificate)
    }

    /// What leads to it from those before, the last one first.
    pub(super) fn bridges(&self) -> &[CertificateDer<'static>] {
        &self.bridges
    }

    /// Its name, as servers hint at whose certificates they take.
    pub(super) fn subject(&self) -> &DistinguishedName {
        &self.subject
    }

    /// The chain that a server shows. The authority's own certificate is not in it: who does not have it cannot trust it. From each certificate there is
    /// one way on, so that clients find it which never try another (OpenSSL does not).
    pub fn issue_server(
        &self,
        key: &ServerKey,
        names: &ServerNames,
    ) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
        let mut params = params(SERVER_NAME)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = names.alternative_names()?;
        let mut chain = vec![self.sign(params, &key.0)?];
        chain.extend(self.bridges.iter().cloned());
        Ok(chain)
    }

    /// A key and a certificate for a client. They count once their hash is in the cluster's list.
    pub fn issue_client(&self, name: &str) -> Result<Issued, AuthorityError> {
        let is_sayable = name.chars().all(|c| !c.is_control()) && !name.trim().is_empty();
        if !is_sayable || name.chars().count() > COMMON_NAME_MAX || name == self.name {
            return Err(AuthorityError::ClientName);
        }
        let mut params = params(name)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = new_key()?;
        let certificate = self.sign(params, &key)?;
        Ok(Issued {
            certificate: to_pem("CERTIFICATE", &certificate),
            key: to_pem("PRIVATE KEY", key.serialized_der()),
            key_hash: key_hash(&key.subject_public_key_info()),
        })
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: &KeyPair,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer)?.into())
    }
}

/// By what the holder of a certificate is known; an error when it is no certificate.
pub fn key_hash_of(certificate: &CertificateDer<'_>) -> Result<KeyHash, rustls::Error> {
    Ok(key_hash(&ParsedCertificate::try_from(certificate)?.subject_public_key_info()))
}

fn key_hash(spki: &[u8]) -> KeyHash {
    let mut hash = KeyHash::default();
    hash.copy_from_slice(digest(&SHA256, spki).as_ref());
    hash
}

fn new_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

/// What all authorities have in common. How many may be between them and a server is not said: each one that takes another's place is one more, and not
/// all clients leave those out of the count that have the same name (RFC 5280, section 4.2.1.9).
fn authority_params(name: &str) -> Result<CertificateParams, AuthorityError> {
    let mut params = params(name)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// What all certificates have in common. They are valid from the first second that a wrong clock can say to the last one that a certificate can
/// name: boxes without a clock battery start in 1970.
fn params(common_name: &str) -> Result<CertificateParams, AuthorityError> {
    let mut serial = [0; SERIAL_BYTES];
    entropy(&mut serial)?;
    let (year, month, day) = LAST_DAY;
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(year, month, day) + LAST_SECOND_OF_DAY;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name.push(DnType::CommonName, common_name);
    Ok(params)
}

/// The name in a subject that is one common name and nothing else, as all of ours are.
///
/// ```text
/// SET { SEQUENCE { OID 2.5.4.3, UTF8String name } }
/// 31 n+9  30 n+7   06 03 55 04 03  0c n
/// ```
fn common_name(subject: &[u8]) -> Option<&str> {
    let [0x31, set, 0x30, pair, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, len, name @ ..] = subject else {
        return None;
    };
    let length = usize::from(*len);
    let is_whole =
        length == name.len() && usize::from(*pair) == length + 7 && usize::from(*set) == length + 9;
    std::str::from_utf8(name).ok().filter(|_| is_whole)
}

fn to_pem(label: &str, der: &[u8]) -> String {
    pem::encode_config(&Pem::new(label, der), EncodeConfig::new().set_line_ending(LineEnding::LF))
}

#[cfg(test)]
#[path = "authority_test.rs"]
mod tests;
