//! TLS on the client port.

use std::fs;
use std::sync::Arc;

use covey::api::{Plaintext, Serves, TlsSource};
use covey::tls::{Allowed, Protocol, ServerTls, TlsFiles, Version};
use covey::wire::grpc::health::v1::HealthCheckRequest;
use covey::wire::grpc::health::v1::health_client::HealthClient;
use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use smol::Async;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tempfile::TempDir;

use crate::harness::{Channel, Server, Setup, run, until};
use crate::limits::drip;

/// An authority, and what it has issued.
pub struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (pem, certificate) = (certificate.pem(), certificate.into());
        Self { certificate, pem, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, usage: ExtendedKeyUsagePurpose) -> (rcgen::Certificate, KeyPair) {
        self.issue_to("leaf", usage)
    }

    pub fn issue_to(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (rcgen::Certificate, KeyPair) {
        self.issue_for(name, "localhost", usage)
    }

    fn issue_for(
        &self,
        name: &str,
        host: &str,
        usage: ExtendedKeyUsagePurpose,
    ) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec![host.into()]).unwrap();
        params.extended_key_usages = vec![usage];
        params.serial_number = Some(SerialNumber::from_slice(name.as_bytes()));
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Writes a server's files; with `clients` their certificates are asked for.
    pub fn write(&self, dir: &TempDir, clients: Option<&Authority>) -> TlsFiles {
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
            ..TlsFiles::default()
        }
    }

    /// The serial numbers of those of these names, as revoked.
    fn revoke(&self, names: &[&str]) -> rcgen::CertificateRevocationList {
        let day = |year| date_time_ymd(year, 1, 1);
        let one = |name: &&str| RevokedCertParams {
            serial_number: SerialNumber::from_slice(name.as_bytes()),
            revocation_time: day(2020),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: day(2020),
            // Long past: an old list counts all the same.
            next_update: day(2021),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: names.iter().map(one).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap()
    }

    pub fn client(&self, alpn: &[&str], identity: Option<(rcgen::Certificate, KeyPair)>) -> TlsConnector {
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
    serve_on(files, plaintext, Serves::Clients).await
}

async fn serve_on(files: TlsFiles, plaintext: Plaintext, serves: Serves) -> Server {
    let tls = Arc::new(ServerTls::load(files).unwrap());
    let tls = Some(Arc::new(move || Some(tls.current())) as TlsSource);
    Server::with(Setup { serves, plaintext, tls, ..Setup::default() }).await
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

pub async fn version_over(stream: impl smol::io::AsyncRead + smol::io::AsyncWrite + Unpin) -> String {
    get_over("/version", stream).await
}

async fn get_over(path: &str, mut stream: impl smol::io::AsyncRead + smol::io::AsyncWrite + Unpin) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
    drop(stream.write_all(request.as_bytes()).await);
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

/// Whether a client with this certificate is served.
async fn is_served(server: &Server, authority: &Authority, identity: (rcgen::Certificate, KeyPair)) -> bool {
    match handshake(server, &authority.client(&["h2"], Some(identity))).await {
        Ok(stream) => is_healthy(stream).await,
        Err(_) => false,
    }
}

#[test]
fn of_the_clients_that_are_vouched_for_those_come_in_whose_name_is_allowed() {
    run(async {
        let (authority, dir) = (Authority::new("authority"), TempDir::new().unwrap());
        let issue = |name, host| authority.issue_for(name, host, ExtendedKeyUsagePurpose::ClientAuth);
        let host = |host: &'static str| ServerName::try_from(host).unwrap();
        let names = Allowed::Names(vec!["good".into(), "other".into()]);
        let hosts = Allowed::Hosts(vec![host("box.lan"), host("10.0.0.1")]);
        for (allowed, name, host, comes_in) in [
            (&names, "good", "a.lan", true),
            (&names, "Good", "a.lan", false),
            (&names, "goods", "good", false),
            (&hosts, "good", "box.lan", true),
            (&hosts, "good", "10.0.0.1", true),
            (&hosts, "box.lan", "a.lan", false),
        ] {
            let files = TlsFiles { allowed: allowed.clone(), ..authority.write(&dir, Some(&authority)) };
            let server = serve(files, Plaintext::Nobody).await;
            assert_eq!(is_served(&server, &authority, issue(name, host)).await, comes_in, "{name} {host}");
        }
        // Names that a stranger's authority has written count for nothing.
        let files = TlsFiles { allowed: names, ..authority.write(&dir, Some(&authority)) };
        let server = serve(files, Plaintext::Nobody).await;
        let stranger =
            Authority::new("stranger").issue_for("good", "a.lan", ExtendedKeyUsagePurpose::ClientAuth);
        assert!(!is_served(&server, &authority, stranger).await);
    });
}

#[test]
fn a_list_of_revoked_certificates_and_the_authorities_are_read_anew_while_clients_are_served() {
    run(async {
        let (authority, dir) = (Authority::new("authority"), TempDir::new().unwrap());
        let issue = |name| authority.issue_for(name, "a.lan", ExtendedKeyUsagePurpose::ClientAuth);
        let crl = dir.path().join("crl");
        let write = |names: &[&str]| fs::write(&crl, authority.revoke(names).pem().unwrap()).unwrap();
        write(&["nobody"]);
        let files = TlsFiles { crl: Some(crl.clone()), ..authority.write(&dir, Some(&authority)) };
        let server = serve(files, Plaintext::Nobody).await;
        let stream = handshake(&server, &authority.client(&["h2"], Some(issue("early")))).await.unwrap();
        let mut before = HealthClient::new(Channel::over(stream).await.unwrap());
        before.check(HealthCheckRequest::default()).await.unwrap();
        assert!(is_served(&server, &authority, issue("one")).await);
        write(&["one", "early"]);
        assert!(!is_served(&server, &authority, issue("one")).await);
        assert!(is_served(&server, &authority, issue("two")).await);
        before.check(HealthCheckRequest::default()).await.expect("only handshakes are looked at, as in etcd");
        fs::write(&crl, authority.revoke(&["one", "two", "more"]).der()).unwrap();
        assert!(!is_served(&server, &authority, issue("two")).await, "DER");
        for spoiled in ["", "no list"] {
            fs::write(&crl, spoiled).unwrap();
            assert!(!is_served(&server, &authority, issue("one")).await, "what was revoked stays so");
            assert!(is_served(&server, &authority, issue("three")).await);
        }
        fs::remove_file(&crl).unwrap();
        assert!(!is_served(&server, &authority, issue("one")).await);
        let other = Authority::new("other");
        // Of several lists each counts, and so does one by an authority that has issued nothing.
        let list = |by: &Authority, names: &[&str]| by.revoke(names).pem().unwrap();
        let lists = [list(&authority, &["one"]), list(&authority, &["two"]), list(&other, &["three"])];
        fs::write(&crl, lists.concat()).unwrap();
        for name in ["one", "two", "three"] {
            assert!(!is_served(&server, &authority, issue(name)).await, "{name}");
        }
        assert!(is_served(&server, &authority, issue("four")).await);
        write(&["three"]);
        assert!(is_served(&server, &authority, issue("one")).await);
        let of_other = || other.issue_for("one", "a.lan", ExtendedKeyUsagePurpose::ClientAuth);
        assert!(!is_served(&server, &authority, of_other()).await);
        fs::write(dir.path().join("ca.pem"), format!("{}{}", authority.pem, other.pem)).unwrap();
        assert!(is_served(&server, &authority, of_other()).await);
        assert!(is_served(&server, &authority, issue("one")).await);
        // An authority that is there no more vouches for nobody, and those that are still do.
        fs::write(dir.path().join("ca.pem"), &other.pem).unwrap();
        assert!(!is_served(&server, &authority, issue("four")).await);
        fs::write(dir.path().join("ca.pem"), format!("{}{}", authority.pem, other.pem)).unwrap();
        assert!(is_served(&server, &authority, issue("four")).await);
        // What another one has issued with the same number is refused, too.
        write(&["one"]);
        assert!(!is_served(&server, &authority, of_other()).await);
    });
}

/// A listener of its own for probes is no way around the list.
#[test]
fn a_certificate_that_was_revoked_reads_no_metrics_either() {
    run(async {
        let (authority, dir) = (Authority::new("authority"), TempDir::new().unwrap());
        let crl = dir.path().join("crl");
        fs::write(&crl, authority.revoke(&["gone"]).pem().unwrap()).unwrap();
        let files = TlsFiles { crl: Some(crl), ..authority.write(&dir, Some(&authority)) };
        let server = serve_on(files, Plaintext::Nobody, Serves::Probes).await;
        let read = async |name| {
            let identity = authority.issue_for(name, "a.lan", ExtendedKeyUsagePurpose::ClientAuth);
            let client = authority.client(&["http/1.1"], Some(identity));
            let Ok(stream) = handshake(&server, &client).await else { return String::new() };
            get_over("/metrics", stream).await
        };
        assert!(read("there").await.starts_with("HTTP/1.1 200 "));
        assert_eq!(read("gone").await, "");
    });
}

/// Whoever begins a handshake and does not go on with it, or never gets to its end, is not waited for.
#[test]
fn a_handshake_that_does_not_come_to_its_end_ends_its_connection() {
    run(async {
        let (authority, dir) = (Authority::new("authority"), TempDir::new().unwrap());
        let server = serve(authority.write(&dir, None), Plaintext::Nobody).await;
        // The header of a record of 256 bytes, a handshake's.
        let header = [0x16, 3, 1, 1, 0];
        // What begins a message that a client begins with, of 252 bytes.
        let hello = [1, 0, 0, 252].into_iter().chain([3; 60]);
        let ends = [header[..1].to_vec(), header.to_vec()].into_iter().zip([Vec::new(), hello.collect()]);
        let ends: Vec<_> =
            ends.map(|(opening, drops)| smol::spawn(drip(server.address, opening, drops))).collect();
        for end in ends {
            let waited = end.await;
            assert!((9..15).contains(&waited.as_secs()), "{waited:?}");
        }
        assert!(is_healthy(handshake(&server, &authority.client(&["h2"], None)).await.unwrap()).await);
    });
}

#[test]
fn a_version_of_tls_or_a_cipher_that_is_not_offered_is_refused() {
    run(async {
        let (authority, dir) = (Authority::new("authority"), TempDir::new().unwrap());
        let speaks = |protocol: Protocol| TlsFiles { protocol, ..authority.write(&dir, None) };
        let connect = async |server: &Server, version: &'static rustls::SupportedProtocolVersion| {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(authority.certificate.clone()).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let stream = handshake(server, &TlsConnector::from(Arc::new(config))).await.ok()?;
            stream.get_ref().1.negotiated_cipher_suite().map(|chosen| chosen.suite())
        };
        let (v12, v13) = (&rustls::version::TLS12, &rustls::version::TLS13);
        let newest = Protocol { least: Some(Version::Tls13), ..Protocol::default() };
        let server = serve(speaks(newest), Plaintext::Nobody).await;
        assert_eq!((connect(&server, v12).await, connect(&server, v13).await.is_some()), (None, true));
        let oldest = Protocol { most: Some(Version::Tls12), ..Protocol::default() };
        let server = serve(speaks(oldest), Plaintext::Nobody).await;
        assert_eq!((connect(&server, v12).await.is_some(), connect(&server, v13).await), (true, None));
        // The one that no client puts first.
        let ciphers = vec!["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256".to_owned()];
        let server = serve(speaks(Protocol { ciphers, ..Protocol::default() }), Plaintext::Nobody).await;
        let chosen = rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256;
        assert_eq!(connect(&server, v12).await, Some(chosen));
        assert!(connect(&server, v13).await.is_some_and(|cipher| cipher != chosen));
        let ciphers = vec!["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256".to_owned()];
        let server = serve(speaks(Protocol { ciphers, ..Protocol::default() }), Plaintext::Nobody).await;
        assert_eq!(connect(&server, v12).await, None, "its key is of another kind");
    });
}
