//! The clients' port: which call is served to whom, on every kind of listener.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use covey::api::{Admit, Plaintext, Serves, Stay, TlsSource, methods};
use covey::ids::ClusterId;
use covey::telemetry::metrics::Metrics;
use covey::tls::{Authority, ClusterTls, Issued, KeyHash, Protocol, ServerNames, ServerTls, TlsFiles};
use futures_rustls::TlsConnector;
use http_body_util::BodyExt as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use smol::Timer;
use smol::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tempfile::TempDir;

use crate::harness::{Channel, Server, Setup, run};

/// How is listened.
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
    /// `http://` for monitoring alone.
    Probes,
    /// `https://` for monitoring alone, where clients have to show certificates.
    ProbesAndClients,
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
    /// Whoever operates the box: every call is answered.
    Operator,
    /// Whoever has shown a certificate: what is for operators is not.
    Known,
    /// Whoever has shown none: the status page is not whole either.
    Stranger,
    /// What monitoring asks is answered, and nothing else.
    Probes,
}

/// Every method with an empty request, and its gRPC code: that it was looked at by the service. Then the same for whoever is no operator of the box; 7 is for operators alone.
const CALLS: &[(&str, &str, &str)] = &[
    ("etcdserverpb.KV/Range", "3", "3"),
    ("etcdserverpb.KV/RangeStream", "3", "3"),
    ("etcdserverpb.KV/Put", "3", "3"),
    ("etcdserverpb.KV/DeleteRange", "3", "3"),
    ("etcdserverpb.KV/Txn", "0", "0"),
    ("etcdserverpb.KV/Compact", "0", "0"),
    ("etcdserverpb.Lease/LeaseGrant", "0", "0"),
    ("etcdserverpb.Lease/LeaseRevoke", "5", "5"),
    ("etcdserverpb.Lease/LeaseKeepAlive", "0", "0"),
    ("etcdserverpb.Lease/LeaseTimeToLive", "0", "0"),
    ("etcdserverpb.Lease/LeaseLeases", "0", "0"),
    ("etcdserverpb.Watch/Watch", SILENT, SILENT),
    ("etcdserverpb.Cluster/MemberAdd", "3", "3"),
    ("etcdserverpb.Cluster/MemberRemove", "5", "5"),
    ("etcdserverpb.Cluster/MemberUpdate", "3", "3"),
    ("etcdserverpb.Cluster/MemberList", "0", "0"),
    ("etcdserverpb.Cluster/MemberPromote", "2", "2"),
    ("etcdserverpb.Maintenance/Alarm", "0", "0"),
    ("etcdserverpb.Maintenance/Status", "0", "0"),
    ("etcdserverpb.Maintenance/Defragment", "0", "0"),
    ("etcdserverpb.Maintenance/Hash", "0", "0"),
    ("etcdserverpb.Maintenance/HashKV", "0", "0"),
    ("etcdserverpb.Maintenance/Snapshot", "0", "0"),
    ("etcdserverpb.Maintenance/MoveLeader", "9", "9"),
    ("etcdserverpb.Maintenance/Downgrade", "3", "3"),
    ("etcdserverpb.Auth/AuthEnable", "9", "9"),
    ("etcdserverpb.Auth/AuthDisable", "0", "0"),
    ("etcdserverpb.Auth/AuthStatus", "0", "0"),
    ("etcdserverpb.Auth/Authenticate", "9", "9"),
    ("etcdserverpb.Auth/UserAdd", "3", "3"),
    ("etcdserverpb.Auth/UserGet", "9", "9"),
    ("etcdserverpb.Auth/UserList", "0", "0"),
    ("etcdserverpb.Auth/UserDelete", "9", "9"),
    ("etcdserverpb.Auth/UserChangePassword", "9", "9"),
    ("etcdserverpb.Auth/UserGrantRole", "9", "9"),
    ("etcdserverpb.Auth/UserRevokeRole", "9", "9"),
    ("etcdserverpb.Auth/RoleAdd", "3", "3"),
    ("etcdserverpb.Auth/RoleGet", "9", "9"),
    ("etcdserverpb.Auth/RoleList", "0", "0"),
    ("etcdserverpb.Auth/RoleDelete", "9", "9"),
    ("etcdserverpb.Auth/RoleGrantPermission", "3", "3"),
    ("etcdserverpb.Auth/RoleRevokePermission", "9", "9"),
    ("v3lockpb.Lock/Lock", "0", "0"),
    ("v3lockpb.Lock/Unlock", "2", "2"),
    ("v3electionpb.Election/Campaign", SILENT, SILENT),
    ("v3electionpb.Election/Proclaim", "2", "2"),
    ("v3electionpb.Election/Leader", "0", "0"),
    ("v3electionpb.Election/Observe", "0", "0"),
    ("v3electionpb.Election/Resign", "2", "2"),
    ("grpc.health.v1.Health/Check", "0", "0"),
    ("grpc.health.v1.Health/Watch", "0", "0"),
    ("covey.v1.Admin/Status", "0", "0"),
    ("covey.v1.Admin/TokenCreate", "3", "7"),
    ("covey.v1.Admin/TokenList", "0", "0"),
    ("covey.v1.Admin/TokenRevoke", "3", "7"),
    ("covey.v1.Admin/NodePending", "0", "0"),
    ("covey.v1.Admin/NodeApprove", "3", "7"),
    ("covey.v1.Admin/LogLevel", "0", "0"),
    ("covey.v1.Admin/WindowOpen", "9", "7"),
    ("covey.v1.Admin/WindowClose", "0", "7"),
    ("covey.v1.Admin/GiveUp", "9", "7"),
    ("covey.v1.Admin/ClientIssue", "9", "7"),
    ("covey.v1.Admin/ClientList", "0", "0"),
    ("covey.v1.Admin/ClientRevoke", "5", "7"),
    ("covey.v1.Admin/ClientRenew", "5", "7"),
    ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "0", "0"),
    ("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "0", "0"),
    (NOBODYS, "12", "12"),
];

/// What is asked by HTTP, and the status for an operator, for a certificate, for none, and where only probes are answered.
const PAGES: &[(&str, [&str; 4])] = &[
    ("GET /health", ["200"; 4]),
    ("GET /livez", ["200"; 4]),
    ("GET /readyz", ["200"; 4]),
    ("GET /metrics", ["200"; 4]),
    ("GET /version", ["200", "200", "200", "404"]),
    ("GET /status", ["200", "200", "200", "404"]),
    ("GET /status.json", ["200 whole", "200 whole", "200 redacted", "404"]),
    ("POST /status/approve", ["400", "403", "403", "404"]),
    ("POST /v3/kv/put", ["400", "400", "400", "404"]),
    ("POST /v3/kv/range", ["400", "400", "400", "404"]),
    ("POST /v3/watch", ["200", "200", "200", "404"]),
    ("GET /v3/kv/range", ["501", "501", "501", "404"]),
    ("GET /", ["404"; 4]),
    ("GET /debug/pprof", ["404"; 4]),
];

const TABLE: &[(Listener, Credential, Outcome)] = &[
    (Listener::Http, Credential::Plain, Outcome::Operator),
    (Listener::Http, Credential::Nothing, Outcome::Refused),
    (Listener::Http, Credential::Issued, Outcome::Refused),
    (Listener::Files, Credential::Plain, Outcome::Operator),
    (Listener::Files, Credential::Nothing, Outcome::Stranger),
    // Nobody asks for it.
    (Listener::Files, Credential::Foreign, Outcome::Stranger),
    (Listener::FilesAndClients, Credential::Plain, Outcome::Refused),
    (Listener::FilesAndClients, Credential::Nothing, Outcome::Refused),
    (Listener::FilesAndClients, Credential::Issued, Outcome::Known),
    (Listener::FilesAndClients, Credential::Foreign, Outcome::Refused),
    // Whoever is on a box is its operator.
    (Listener::Cluster, Credential::Plain, Outcome::Operator),
    (Listener::Cluster, Credential::Nothing, Outcome::Refused),
    (Listener::Cluster, Credential::Issued, Outcome::Known),
    (Listener::Cluster, Credential::Revoked, Outcome::Refused),
    (Listener::Cluster, Credential::Minted, Outcome::Refused),
    (Listener::Cluster, Credential::Foreign, Outcome::Refused),
    (Listener::Probes, Credential::Plain, Outcome::Probes),
    (Listener::Probes, Credential::Nothing, Outcome::Refused),
    (Listener::ProbesAndClients, Credential::Plain, Outcome::Refused),
    (Listener::ProbesAndClients, Credential::Nothing, Outcome::Refused),
    (Listener::ProbesAndClients, Credential::Issued, Outcome::Probes),
    (Listener::ProbesAndClients, Credential::Foreign, Outcome::Refused),
];

/// Nobody has this method.
const NOBODYS: &str = "covey.v1.Nothing/There";
/// A stream on which nothing is said.
const SILENT: &str = "silent";
/// After that such a stream has let its client in; everything else is waited for.
const SILENCE: Duration = Duration::from_millis(300);

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
        // As `app::listeners` has them, whose own test says so, and one in `tests/cli`.
        let (plaintext, tls, admit) = match listener {
            Listener::Http | Listener::Probes => (Plaintext::Anyone, None, None),
            Listener::Files => (Plaintext::Loopback, by_files(None), None),
            Listener::FilesAndClients | Listener::ProbesAndClients => {
                (Plaintext::Nobody, by_files(Some(path("ca"))), None)
            }
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
        let serves = match listener {
            Listener::Probes | Listener::ProbesAndClients => Serves::Probes,
            _ => Serves::Clients,
        };
        let metrics = Arc::new(Metrics::new(methods(true)));
        let setup = Setup { serves, plaintext, tls, admit, metrics, ..Setup::default() };
        let server = Server::with(setup).await;
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

    /// What every call comes to: `None` where nobody answers any.
    async fn try_all(&self, credential: Credential) -> [Option<String>; 2] {
        let shows = self.shows(credential);
        let calls = match self.talk(credential, shows.as_ref(), b"h2").await {
            Some(stream) => calls(stream).await,
            None => None,
        };
        let (mut pages, mut answered) = (String::new(), false);
        for (request, _) in PAGES {
            let told = match self.talk(credential, shows.as_ref(), b"http/1.1").await {
                Some(stream) => page(stream, request).await,
                None => None,
            };
            answered |= told.is_some();
            writeln!(pages, "{request}: {}", told.as_deref().unwrap_or("nothing")).unwrap();
        }
        [calls, answered.then_some(pages)]
    }

    async fn talk(
        &self,
        credential: Credential,
        shows: Option<&Issued>,
        alpn: &[u8],
    ) -> Option<Box<dyn Talk>> {
        let tcp = self.server.connect().await;
        if credential == Credential::Plain {
            return Some(Box::new(tcp));
        }
        let name = ServerName::try_from("localhost").unwrap();
        let tls = self.connector(shows, alpn).connect(name, tcp).await.ok()?;
        Some(Box::new(tls))
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

/// A connection of either kind.
trait Talk: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Talk for T {}

/// All calls, one line each, as they were answered; `None` where the connection ends before the first.
async fn calls(stream: Box<dyn Talk>) -> Option<String> {
    let channel = Channel::over(stream).await.ok()?;
    let mut table = String::new();
    for (path, operator, _) in CALLS {
        let silent = async {
            if *operator != SILENT {
                return std::future::pending().await;
            }
            Timer::after(SILENCE).await;
            Some(SILENT.to_owned())
        };
        let code = smol::future::or(call(&channel, path), silent).await?;
        writeln!(table, "{path}: {code}").unwrap();
    }
    Some(table)
}

/// The gRPC code of one; whatever is told of is as good as 0. What is no gRPC has the status of HTTP.
async fn call(channel: &Channel, path: &str) -> Option<String> {
    let nothing = bytes::Bytes::from_static(&[0; 5]);
    let body = tonic::body::Body::new(http_body_util::Full::new(nothing));
    let request = http::Request::post(format!("http://localhost/{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap();
    let (head, mut body) = channel.send(request).await.ok()?.into_parts();
    if head.status != http::StatusCode::OK {
        return Some(format!("HTTP {}", head.status.as_u16()));
    }
    let code = |headers: &http::HeaderMap| Some(headers.get("grpc-status")?.to_str().unwrap().to_owned());
    if let Some(code) = code(&head.headers) {
        return Some(code);
    }
    match body.frame().await?.ok()?.into_trailers() {
        Ok(trailers) => code(&trailers),
        Err(_) => Some("0".to_owned()),
    }
}

/// The status of a page, and how much of it is shown; `None` where nobody answers.
async fn page(mut stream: Box<dyn Talk>, request: &str) -> Option<String> {
    let body = if request == "POST /v3/watch" { r#"{"create_request":{}}"# } else { "{}" };
    let sent = if request.starts_with("POST") { body } else { "" };
    let request = format!(
        "{request} HTTP/1.1\r\nhost: localhost\r\nx-covey-page: 1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{sent}",
        sent.len()
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let head = head(&mut stream).await?;
    let status = head.split(' ').nth(1)?;
    // What has no length is a stream.
    let lower = head.to_ascii_lowercase();
    let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    let is_redacted =
        serde_json::from_slice::<serde_json::Value>(&body).ok().and_then(|value| value["redacted"].as_bool());
    Some(match is_redacted {
        None => status.to_owned(),
        Some(true) => format!("{status} redacted"),
        Some(false) => format!("{status} whole"),
    })
}

async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).await.ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

/// What [`Side::try_all`] is to find.
fn expected(outcome: Outcome) -> [Option<String>; 2] {
    let (mut calls, mut pages) = (String::new(), String::new());
    let column = match outcome {
        Outcome::Refused => return [None, None],
        Outcome::Operator => 0,
        Outcome::Known => 1,
        Outcome::Stranger => 2,
        Outcome::Probes => 3,
    };
    for (path, operator, other) in CALLS {
        let code = [operator, other, other, &"HTTP 404"][column];
        writeln!(calls, "{path}: {code}").unwrap();
    }
    for (request, told) in PAGES {
        writeln!(pages, "{request}: {}", told[column]).unwrap();
    }
    [Some(calls), Some(pages)]
}

#[test]
fn every_call_by_listener_and_credential() {
    let offered: BTreeSet<String> =
        methods(true).map(|method| format!("{}/{}", method.service, method.method)).collect();
    let listed: BTreeSet<String> = CALLS.iter().map(|(path, ..)| (*path).to_owned()).collect();
    let made_up = BTreeSet::from([NOBODYS.to_owned()]);
    assert_eq!(listed, &offered | &made_up, "every method is in the table");
    for (listener, credential, outcome) in TABLE {
        run(async {
            let side = Side::of(*listener).await;
            let found = side.try_all(*credential).await;
            assert_eq!(found, expected(*outcome), "{listener:?} {credential:?}");
        });
    }
}
