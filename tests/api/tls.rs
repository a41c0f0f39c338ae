//! TLS on the client port.

use std::fs;
use std::sync::Arc;

use covey::api::Plaintext;
use covey::tls::{ServerTls, TlsFiles};
use covey::wire::grpc::health::v1::HealthCheckRequest;
use covey::wire::grpc::health::v1::health_client::HealthClient;
use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use smol::Async;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tempfile::TempDir;

use crate::harness::{Channel, Server, Setup, run, until};

/// An authority, and what it has issued.
struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (pem, certificate) = (certificate.pem(), certificate.into());
        Self { certificate, pem, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, usage: ExtendedKeyUsagePurpose) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.extended_key_usages = vec![usage];
        params.distinguished_name.push(DnType::CommonName, "leaf");
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Writes a server's files; with `clients` their certificates are asked for.
    fn write(&self, dir: &TempDir, clients: Option<&Authority>) -> TlsFiles {
        let (certificate, key) = self.issue(ExtendedKeyUsagePurpose::ServerAuth);
        let path = |name: &str| dir.path().join(name);
        fs::write(path("key.pem"), key.serialize_pem()).unwrap();
        fs::write(path("cert.pem"), certificate.pem()).unwrap();
        let trusted_ca = clients.map(|authority| {
            fs::write(path("ca.pem"), &authority.pem).unwrap();
            path("ca.pem")
        });
        TlsFiles {
            cert: path("cert.pem"),
            key: path("key.pem"),
            trusted_ca,
            client_cert_auth: clients.is_some(),
        }
    }

    fn client(&self, alpn: &[&str], identity: Option<(rcgen::Certificate, KeyPair)>) -> TlsConnector {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
                builder.with_client_auth_cert(vec![certificate.into()], key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

async fn serve(files: TlsFiles, plaintext: Plaintext) -> Server {
    let tls = Arc::new(ServerTls::load(files).unwrap());
    Server::with(Setup { plaintext, tls: Some(Arc::new(move || Some(tls.current()))), ..Setup::default() })
        .await
}

pub type ClientStream = TlsStream<Async<std::net::TcpStream>>;

pub async fn handshake(server: &Server, client: &TlsConnector) -> std::io::Result<ClientStream> {
    let name = ServerName::try_from("localhost").unwrap();
    client.connect(name, server.connect().await).await
}

pub async fn is_healthy(stream: ClientStream) -> bool {
    let Ok(channel) = Channel::over(stream).await else { return false };
    HealthClient::new(channel).check(HealthCheckRequest::default()).await.is_ok()
}

pub async fn version_over(mut stream: impl smol::io::AsyncRead + smol::io::AsyncWrite + Unpin) -> String {
    let request = b"GET /version HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    drop(stream.write_all(request).await);
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer).await);
    String::from_utf8(answer).unwrap()
}

#[test]
fn alpn_chooses_between_http2_and_http1_and_without_it_the_first_bytes_do() {
    run(async {
        let (authority, dir) = (Authority::new("authority"), TempDir::new().unwrap());
        let server = serve(authority.write(&dir, None), Plaintext::Nobody).await;
        for alpn in [&["h2", "http/1.1"][..], &["h2"], &[]] {
            let stream = handshake(&server, &authority.client(alpn, None)).await.unwrap();
            let chosen = alpn.first().map(|name| name.as_bytes());
            assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
            assert!(is_healthy(stream).await, "{alpn:?}");
        }
        for alpn in [&["http/1.1"][..], &[]] {
            let stream = handshake(&server, &authority.client(alpn, None)).await.unwrap();
            // The name is the certificate's business here, not the Host header's.
            assert!(version_over(stream).await.starts_with("HTTP/1.1 200 OK"), "{alpn:?}");
        }
        assert!(handshake(&server, &authority.client(&["spdy/3"], None)).await.is_err());
        server.idle().await;
    });
}

#[test]
fn each_kind_of_client_is_served_only_where_it_is_wanted() {
    run(async {
        let (authority, dir) = (Authority::new("authority"), TempDir::new().unwrap());
        let client = authority.client(&["h2"], None);
        let only_tls = serve(authority.write(&dir, None), Plaintext::Nobody).await;
        assert_eq!(version_over(only_tls.connect().await).await, "", "plaintext is not answered");
        until("it is counted", || only_tls.api.counters().failed() == 1).await;
        let both = serve(authority.write(&dir, None), Plaintext::Loopback).await;
        let request = b"GET /version HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let mut plain = both.connect().await;
        plain.write_all(request).await.unwrap();
        let mut answer = String::new();
        plain.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"));
        assert!(is_healthy(handshake(&both, &client).await.unwrap()).await);
        let only_plain = Server::start().await;
        assert!(handshake(&only_plain, &client).await.is_err(), "TLS is not answered");
        only_plain.idle().await;
        only_tls.idle().await;
    });
}

#[test]
fn client_certificates_are_required_and_judged_by_their_issuer() {
    run(async {
        let (authority, dir) = (Authority::new("authority"), TempDir::new().unwrap());
        let (clients, strangers) = (Authority::new("clients"), Authority::new("strangers"));
        let server = serve(authority.write(&dir, Some(&clients)), Plaintext::Nobody).await;
        let ask = async |identity| {
            // In TLS 1.3 the client learns of the server's judgement only after its own handshake.
            match handshake(&server, &authority.client(&["h2"], identity)).await {
                Ok(stream) => is_healthy(stream).await,
                Err(_) => false,
            }
        };
        assert!(ask(Some(clients.issue(ExtendedKeyUsagePurpose::ClientAuth))).await);
        assert!(!ask(None).await, "no certificate");
        assert!(!ask(Some(strangers.issue(ExtendedKeyUsagePurpose::ClientAuth))).await, "a stranger's");
        assert!(!ask(Some(clients.issue(ExtendedKeyUsagePurpose::ServerAuth))).await, "for another purpose");
        server.idle().await;
        assert_eq!(server.api.counters().failed(), 3);
    });
}

#[test]
fn renewed_certificates_are_used_for_the_next_handshake_and_old_connections_stay() {
    run(async {
        let (old, new, dir) = (Authority::new("old"), Authority::new("new"), TempDir::new().unwrap());
        let server = serve(old.write(&dir, None), Plaintext::Nobody).await;
        let stream = handshake(&server, &old.client(&["h2"], None)).await.unwrap();
        let mut before = HealthClient::new(Channel::over(stream).await.unwrap());
        before.check(HealthCheckRequest::default()).await.unwrap();
        new.write(&dir, None);
        assert!(handshake(&server, &old.client(&["h2"], None)).await.is_err());
        assert!(is_healthy(handshake(&server, &new.client(&["h2"], None)).await.unwrap()).await);
        before.check(HealthCheckRequest::default()).await.expect("the old connection is still good");
    });
}
