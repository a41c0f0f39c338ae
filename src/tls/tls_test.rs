//! Server TLS from files: good ones, bad ones, changed ones.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::*;

/// Writes a certificate authority and a certificate that it has issued.
fn write(dir: &Path, name: &str) -> TlsFiles {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, format!("{name} authority"));
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let mut leaf = CertificateParams::new(vec!["localhost".into()]).unwrap();
    leaf.distinguished_name.push(DnType::CommonName, name);
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&leaf_key, &issuer).unwrap();
    let files = TlsFiles {
        cert: dir.join("cert.pem"),
        key: dir.join("key.pem"),
        trusted_ca: Some(dir.join("ca.pem")),
        client_cert_auth: true,
        ..TlsFiles::default()
    };
    fs::write(&files.cert, leaf.pem()).unwrap();
    fs::write(&files.key, leaf_key.serialize_pem()).unwrap();
    fs::write(dir.join("ca.pem"), ca.pem()).unwrap();
    files
}

fn refusal(files: TlsFiles) -> String {
    ServerTls::load(files).unwrap_err().to_string()
}

#[test]
fn good_files_make_a_configuration_with_both_protocols() {
    let dir = TempDir::new().unwrap();
    let config = ServerTls::load(write(dir.path(), "one")).unwrap().current();
    assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
}

#[test]
fn errors_name_the_file_that_is_bad() {
    let dir = TempDir::new().unwrap();
    let files = write(dir.path(), "one");
    let missing = TlsFiles { cert: dir.path().join("nothing.pem"), ..files.clone() };
    assert!(refusal(missing).contains("nothing.pem"));
    let swapped = TlsFiles { key: files.cert.clone(), ..files.clone() };
    assert!(refusal(swapped).ends_with("cert.pem holds no private key"));
    let empty = dir.path().join("empty.pem");
    fs::write(&empty, "no PEM in here\n").unwrap();
    let no_cert = TlsFiles { cert: empty.clone(), ..files.clone() };
    assert!(refusal(no_cert).ends_with("empty.pem holds no certificate"));
    let no_roots = TlsFiles { trusted_ca: Some(empty), ..files.clone() };
    assert!(refusal(no_roots).ends_with("empty.pem holds no certificate"));
    let torn = dir.path().join("torn.pem");
    fs::write(&torn, "-----BEGIN CERTIFICATE-----\n####\n-----END CERTIFICATE-----\n").unwrap();
    assert!(refusal(TlsFiles { cert: torn, ..files.clone() }).contains("torn.pem is not valid PEM"));
    let other = TempDir::new().unwrap();
    let mixed = TlsFiles { key: write(other.path(), "two").key, ..files.clone() };
    assert!(refusal(mixed).contains("cannot be used together"));
    let nobody = TlsFiles { trusted_ca: None, ..files };
    assert!(refusal(nobody).contains("trusted-ca-file"));
}

#[test]
fn changed_files_are_used_and_half_changed_ones_are_not() {
    let dir = TempDir::new().unwrap();
    let tls = ServerTls::load(write(dir.path(), "one")).unwrap();
    let first = tls.current();
    assert!(Arc::ptr_eq(&first, &tls.current()), "nothing has changed");

    // A renewal that has come as far as the certificate.
    let renewal = TempDir::new().unwrap();
    let renewed = write(renewal.path(), "two");
    fs::rename(&renewed.cert, dir.path().join("cert.pem")).unwrap();
    assert!(Arc::ptr_eq(&first, &tls.current()), "the new certificate does not fit the old key");
    fs::rename(&renewed.key, dir.path().join("key.pem")).unwrap();
    assert!(!Arc::ptr_eq(&first, &tls.current()), "now it fits");

    tls.read_again();
    let second = tls.current();
    assert!(Arc::ptr_eq(&second, &tls.current()), "they are read once");
    tls.read_again();
    assert!(!Arc::ptr_eq(&second, &tls.current()), "whatever they look like");
    let second = tls.current();
    fs::remove_file(dir.path().join("ca.pem")).unwrap();
    assert!(Arc::ptr_eq(&second, &tls.current()), "a missing file does not turn client certificates off");
}
