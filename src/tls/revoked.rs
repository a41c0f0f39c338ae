//! Which certificates of clients count no more: `--client-crl-file`.
//!
//! Owns: the comparison of serial numbers. Must never: let in what a list names, whoever has signed the list. Driven by `chosen`, for each handshake.
//!
//! As in etcd, a list is the operator's word, like the settings beside it: a certificate whose serial number it has is refused, whichever authority has issued the one and the other. rustls would
//! take a list for the certificates of its own issuer alone, so that one of another authority revoked nothing, and nobody said so.

use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use webpki::{CertRevocationList, EndEntityCert, Error, OwnedCertRevocationList};

/// What the lists name.
#[derive(Debug, Default)]
pub(super) struct Revoked(Vec<CertRevocationList<'static>>);

impl Revoked {
    /// What these lists name, past their date or not: an old list is better than none.
    pub(super) fn by(lists: &[CertificateRevocationListDer<'_>]) -> Result<Self, Error> {
        let lists = lists.iter().map(|list| OwnedCertRevocationList::from_der(list).map(Into::into));
        lists.collect::<Result<_, _>>().map(Self)
    }

    /// Whether one of the lists has the serial number of this certificate.
    pub(super) fn has(&self, certificate: &CertificateDer<'_>) -> Result<bool, Error> {
        if self.0.is_empty() {
            return Ok(false);
        }
        let certificate = EndEntityCert::try_from(certificate)?;
        for list in &self.0 {
            if list.find_serial(certificate.serial())?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
