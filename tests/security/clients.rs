//! The clients' port: which call is served to whom, on every kind of listener.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use covey::api::{Admit, Plaintext, Stay, TlsSource};
use covey::ids::ClusterId;
use covey::tls::{Authority, ClusterTls, Issued, KeyHash, Protocol, ServerNames, ServerTls, TlsFiles};
use futures_rustls::TlsConnector;
use http_body_util::BodyExt as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use smol::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tempfile::TempDir;

use crate::harness::{Channel, Server, Setup, run};

/// How clients are listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listener {
    /// `http://`: as etcd without TLS, for anyone.
    Http,
    /// `https://` with the operator's files.
    Files,
    /// The same, and clients have to show certificates of the operator's authority; nothing in plain text.
    FilesAndClients,
    /// `https://` by the cluster's own authority: as boxes without configuration have it.
    Cluster,
}

/// What a client brings. Whoever connects here is on the machine itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Credential {
    /// No TLS.
    Plain,
    /// TLS, and no certificate.
    Nothing,
    /// The certificate that was issued to it.
    Issued,
    /// One that was taken back.
    Revoked,
    /// One by the right authority, which was never put on the list: by a stolen authority's key.
    Minted,
    /// Another cluster's.
    Foreign,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// There is no answer to anything: the handshake failed, or the connection ended.
    Refused,
    /// Every call is answered as [`CALLS`] says.
    Served,
}

/// A call of each service with an empty request, its gRPC code, and what has to be true of it: that it was looked at by the service.
const CALLS: &[(&str, u32)] = &[
    ("etcdserverpb.KV/Range", 3),
    ("etcdserverpb.KV/Put", 3),
    ("etcdserverpb.KV/DeleteRange", 3),
    ("etcdserverpb.KV/Txn", 0),
    ("etcdserverpb.Lease/LeaseLeases", 0),
    ("etcdserverpb.Lease/LeaseRevoke", 5),
    ("etcdserverpb.Cluster/MemberList", 0),
    ("etcdserverpb.Cluster/MemberRemove", 5),
    ("etcdserverpb.Maintenance/Status", 0),
    ("etcdserverpb.Maintenance/Alarm", 0),
    ("etcdserverpb.Maintenance/HashKV", 0),
    ("grpc.health.v1.Health/Check", 0),
    ("etcdserverpb.Auth/AuthEnable", 9),
    ("etcdserverpb.Auth/Authenticate", 9),
    // Nobody has this.
    ("v3electionpb.Election/Leader", 2),
    ("covey.v1.Nothing/There", 12),
];

/// What is answered to HTTP.
const PAGES: &[(&str, u16)] = &[
    ("/health", 200),
    ("/version", 200),
    ("/metrics", 200),
    ("/", 404),
    ("/v3/kv/range", 501),
    ("/debug/pprof", 404),
];

const TABLE: &[(Listener, Credential, Outcome)] = &[
    (Listener::Http, Credential::Plain, Outcome::Served),
    (Listener::Http, Credential::Nothing, Outcome::Refused),
    (Listener::Http, Credential::Issued, Outcome::Refused),
    (Listener::Files, Credential::Plain, Outcome::Served),
    (Listener::Files, Credential::Nothing, Outcome::Served),
    (Listener::Files, Credential::Foreign, Outcome::Served),
    (Listener::FilesAndClients, Credential::Plain, Outcome::Refused),
    (Listener::FilesAndClients, Credential::Nothing, Outcome::Refused),
    (Listener::FilesAndClients, Credential::Issued, Outcome::Served),
    (Listener::FilesAndClients, Credential::Foreign, Outcome::Refused),
    // Whoever is on a box is its operator.
    (Listener::Cluster, Credential::Plain, Outcome::Served),
    (Listener::Cluster, Credential::Nothing, Outcome::Refused),
    (Listener::Cluster, Credential::Issued, Outcome::Served),
    (Listener::Cluster, Credential::Revoked, Outcome::Refused),
    (Listener::Cluster, Credential::Minted, Outcome::Refused),
    (Listener::Cluster, Credential::Foreign, Outcome::Refused),
];

/// An authority, with what it has issued.
struct Pki {
    authority: Authority,
    issued: Arc<Mutex<BTreeSet<KeyHash>>>,
}

impl Pki {
    fn new(id: u64) -> Self {
        let made = Authority::generate(ClusterId(id)).unwrap();
        let authority = Authority::load(&made.certificate_der, &made.key_pkcs8).unwrap();
        Self { authority, issued: Arc::default() }
    }

    fn issue(&self) -> Issued {
        let client = self.authority.issue_client("client").unwrap();
        self.issued.lock().unwrap().insert(client.key_hash);
        client
    }

    fn cluster(&self) -> Arc<ClusterTls> {
        let list = Arc::clone(&self.issued);
        let is_issued = Arc::new(move |key: &KeyHash| list.lock().unwrap().contains(key));
        let names = ServerNames::of_machine("box", []);
        Arc::new(ClusterTls::new(&self.authority, names, is_issued, Protocol::default()).unwrap())
    }

    fn pem(&self) -> String {
        let der = self.authority.certificate().to_vec();
        pem::encode(&pem::Pem::new("CERTIFICATE", der))
    }
}

/// All that a test of one listener has.
struct Side {
    own: Pki,
    foreign: Pki,
    server: Server,
    /// Of the operator's files.
    _files: TempDir,
    /// Whom the server's certificate comes from.
    root: CertificateDer<'static>,
}

impl Side {
    async fn of(listener: Listener) -> Self {
        let (own, foreign, files) = (Pki::new(1), Pki::new(2), TempDir::new().unwrap());
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let path = |name: &str| files.path().join(name);
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        std::fs::write(path("cert"), certificate.pem()).unwrap();
        std::fs::write(path("ca"), own.pem()).unwrap();
        let by_files = |trusted_ca| {
            let client_cert_auth = trusted_ca == Some(path("ca"));
            let files = TlsFiles {
                cert: path("cert"),
                key: path("key"),
                trusted_ca,
                client_cert_auth,
                ..TlsFiles::default()
            };
            let tls = Arc::new(ServerTls::load(files).unwrap());
            Some(Arc::new(move || Some(tls.current())) as TlsSource)
        };
        // As `app::serve` has them.
        let (plaintext, tls, admit) = match listener {
            Listener::Http => (Plaintext::Anyone, None, None),
            Listener::Files => (Plaintext::Loopback, by_files(None), None),
            Listener::FilesAndClients => (Plaintext::Nobody, by_files(Some(path("ca"))), None),
            Listener::Cluster => {
                let (tls, for_admit) = (own.cluster(), own.cluster());
                let source = Arc::new(move || Some(tls.current())) as TlsSource;
                let admit: Admit = Arc::new(move |shown| {
                    for_admit.clients().admit(shown).map(|stay| Box::pin(stay) as Stay)
                });
                (Plaintext::Loopback, Some(source), Some(admit))
            }
        };
        let root = match listener {
            Listener::Cluster => own.authority.certificate().clone(),
            _ => certificate.into(),
        };
        let server = Server::with(Setup { plaintext, tls, admit, ..Setup::default() }).await;
        Self { own, foreign, server, _files: files, root }
    }

    fn shows(&self, credential: Credential) -> Option<Issued> {
        match credential {
            Credential::Plain | Credential::Nothing => None,
            Credential::Issued => Some(self.own.issue()),
            Credential::Revoked => {
                let client = self.own.issue();
                self.own.issued.lock().unwrap().remove(&client.key_hash);
                Some(client)
            }
            Credential::Minted => Some(self.own.authority.issue_client("client").unwrap()),
            Credential::Foreign => Some(self.foreign.issue()),
        }
    }

    /// What every call comes to: `None` where nobody answers.
    async fn try_all(&self, credential: Credential) -> [Option<String>; 2] {
        let shows = self.shows(credential);
        let tcp = self.server.connect().await;
        if credential == Credential::Plain {
            return [calls(tcp).await, pages(self.server.connect().await).await];
        }
        let connect = async |alpn: &[u8]| {
            let name = ServerName::try_from("localhost").unwrap();
            self.connector(shows.as_ref(), alpn).connect(name, self.server.connect().await).await.ok()
        };
        let calls = match connect(b"h2").await {
            Some(stream) => calls(stream).await,
            None => None,
        };
        let pages = match connect(b"http/1.1").await {
            Some(stream) => pages(stream).await,
            None => None,
        };
        [calls, pages]
    }

    fn connector(&self, shows: Option<&Issued>, alpn: &[u8]) -> TlsConnector {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shows {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let chain = vec![CertificateDer::from_pem_slice(client.certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

/// All calls, one line each, as they were answered; `None` where the connection ends before the first.
async fn calls(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Option<String> {
    let channel = Channel::over(stream).await.ok()?;
    let mut table = String::new();
    for (path, _) in CALLS {
        let nothing = bytes::Bytes::from_static(&[0; 5]);
        let body = tonic::body::Body::new(http_body_util::Full::new(nothing));
        let request = http::Request::post(format!("http://any.authority/{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .unwrap();
        let answer = channel.send(request).await.ok()?;
        let (head, body) = answer.into_parts();
        let trailers = body.collect().await.ok()?.trailers().cloned().unwrap_or_default();
        let code =
            head.headers.get("grpc-status").or(trailers.get("grpc-status"))?.to_str().unwrap().to_owned();
        writeln!(table, "{path} {code}").unwrap();
    }
    Some(table)
}

/// The same for pages.
async fn pages(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<String> {
    let mut table = String::new();
    for (n, (path, _)) in PAGES.iter().enumerate() {
        let last = if n + 1 == PAGES.len() { "connection: close\r\n" } else { "" };
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{last}\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let head = head(&mut stream).await?;
        let status = head.split(' ').nth(1)?;
        let lower = head.to_ascii_lowercase();
        let length: usize = match lower.split("content-length: ").nth(1) {
            Some(rest) => rest.split("\r\n").next()?.parse().unwrap(),
            None => 0,
        };
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        writeln!(table, "{path} {status}").unwrap();
    }
    Some(table)
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).await.ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

fn expected<N: std::fmt::Display>(rows: &[(&str, N)]) -> String {
    let mut table = String::new();
    for (path, code) in rows {
        writeln!(table, "{path} {code}").unwrap();
    }
    table
}

#[test]
fn every_call_by_listener_and_credential() {
    for (listener, credential, outcome) in TABLE {
        run(async {
            let side = Side::of(*listener).await;
            let found = side.try_all(*credential).await;
            let expected = match outcome {
                Outcome::Refused => [None, None],
                Outcome::Served => [Some(expected(CALLS)), Some(expected(PAGES))],
            };
            assert_eq!(found, expected, "{listener:?} {credential:?}");
        });
    }
}
