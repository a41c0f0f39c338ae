//! The files that TLS is configured by.
//!
//! Owns: reading them, and errors that name the file. Must never: guess what a file was meant to be. Driven by its parent.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::server::VerifierBuilderError;
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::chosen::Allowed;
use super::protocol::Protocol;
use super::revoked::Revoked;

/// Where certificates and keys are (API reference, section 13).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// `--cert-file`: PEM, the server's certificate and then what leads to its root.
    pub cert: PathBuf,
    /// `--key-file`: PEM, its private key.
    pub key: PathBuf,
    /// `--trusted-ca-file`: PEM. With it every client must show a certificate that one of these has issued.
    pub trusted_ca: Option<PathBuf>,
    /// `--client-crl-file`: PEM or DER, the certificates that count no more.
    pub crl: Option<PathBuf>,
    /// Whose certificates count of those that are left.
    pub allowed: Allowed,
    /// What is spoken.
    pub protocol: Protocol,
    /// `--client-cert-auth`: says that clients must show a certificate; needs `trusted_ca`.
    pub client_cert_auth: bool,
}

/// Why TLS cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be opened or read.
    #[error("cannot read {}: {error}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A file that is no PEM.
    #[error("{} is not valid PEM: {error}", file.display())]
    Pem {
        /// Which.
        file: PathBuf,
        /// Why not.
        error: pem::Error,
    },
    /// A file without what it was given for.
    #[error("{} holds no {what}", file.display())]
    Empty {
        /// Which.
        file: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// A list of revoked certificates that cannot be read.
    #[error("{} holds a list of revoked certificates that cannot be read: {error}", file.display())]
    List {
        /// The file.
        file: PathBuf,
        /// Why not.
        error: webpki::Error,
    },
    /// A certificate authority that is none.
    #[error("{} holds a certificate that cannot be an authority: {error}", file.display())]
    Authority {
        /// The file.
        file: PathBuf,
        /// Why not.
        error: rustls::Error,
    },
    /// Authorities that clients cannot be checked against.
    #[error("{} cannot be used to check clients: {error}", file.display())]
    Authorities {
        /// The file.
        file: PathBuf,
        /// Why not.
        error: VerifierBuilderError,
    },
    /// A certificate and a key that do not belong together, or are of a kind that is not supported.
    #[error("{} and {} cannot be used together: {error}", cert.display(), key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why not.
        error: rustls::Error,
    },
    /// Client certificates are asked for, and nothing says whose.
    #[error(
        "client certificates are required (client-cert-auth), but no trusted-ca-file says who may issue them"
    )]
    NoAuthorities,
    /// The provider does not support the versions of TLS that are offered.
    #[error("TLS 1.2 and 1.3 are not available: {0}")]
    Versions(rustls::Error),
}

/// What tells one content of a file from the next, without reading it. A file that is missing has none.
pub(super) type Stamp = Option<(u64, u64, i64, i64)>;

impl TlsFiles {
    fn all(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.cert), Some(&self.key), self.trusted_ca.as_ref(), self.crl.as_ref()]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }

    /// The files as they are now. Links are followed, for renewal often moves a link.
    pub(super) fn stamps(&self) -> Vec<Stamp> {
        let stamp = |meta: std::fs::Metadata| (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
        self.all().map(|file| std::fs::metadata(file).ok().map(stamp)).collect()
    }

    pub(super) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        certificates(&self.cert)
    }

    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_file(&self.key).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsError::Empty { file: self.key.clone(), what: "private key" },
            error => unreadable(&self.key, error),
        })
    }

    /// Who may issue the certificates of clients; `None` when clients need none.
    pub(super) fn client_authorities(&self) -> Result<Option<(PathBuf, RootCertStore)>, TlsError> {
        let Some(file) = &self.trusted_ca else {
            return if self.client_cert_auth { Err(TlsError::NoAuthorities) } else { Ok(None) };
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(file)? {
            roots.add(certificate).map_err(|error| TlsError::Authority { file: file.clone(), error })?;
        }
        Ok(Some((file.clone(), roots)))
    }

    /// Which certificates count no more.
    pub(super) fn revoked(&self) -> Result<Revoked, TlsError> {
        let Some(file) = &self.crl else { return Ok(Revoked::default()) };
        let bytes = std::fs::read(file).map_err(|error| TlsError::Read { file: file.clone(), error })?;
        // DER begins with a sequence.
        let lists: Vec<_> = if bytes.first() == Some(&0x30) {
            vec![CertificateRevocationListDer::from(bytes)]
        } else {
            let lists = CertificateRevocationListDer::pem_slice_iter(&bytes).collect::<Result<_, _>>();
            lists.map_err(|error| unreadable(file, error))?
        };
        if lists.is_empty() {
            return Err(TlsError::Empty { file: file.clone(), what: "list of revoked certificates" });
        }
        Revoked::by(&lists).map_err(|error| TlsError::List { file: file.clone(), error })
    }
}

impl fmt::Display for TlsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for file in self.all() {
            write!(f, "{between}{}", file.display())?;
            between = ", ";
        }
        Ok(())
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let items = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = items.map_err(|error| unreadable(file, error))?;
    if certificates.is_empty() {
        return Err(TlsError::Empty { file: file.to_owned(), what: "certificate" });
    }
    Ok(certificates)
}

fn unreadable(file: &Path, error: pem::Error) -> TlsError {
    let file = file.to_owned();
    match error {
        pem::Error::Io(error) => TlsError::Read { file, error },
        error => TlsError::Pem { file, error },
    }
}
