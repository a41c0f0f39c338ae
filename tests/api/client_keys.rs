//! TLS as clients see it where the cluster issues the certificates: whose key is on its list gets in, and nobody else.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use covey::api::{Host, Plaintext, Stay};
use covey::ids::ClusterId;
use covey::tls::{
    Authority, ClusterTls, Issued, KeyHash, NewAuthority, Protocol, ServerNames, Successor, Version,
};
use covey::wire::grpc::health::v1::HealthCheckRequest;
use covey::wire::grpc::health::v1::health_client::HealthClient;
use futures_rustls::TlsConnector;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, HandshakeKind, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use smol::io::AsyncReadExt as _;

use crate::harness::{Channel, Server, Setup, run, until};
use crate::tls::{handshake, is_healthy, version_over};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// What a cluster has of its own for TLS, and the list of the keys that count.
pub struct Cluster {
    pub authority: Authority,
    /// What a member of it knows of that.
    made: NewAuthority,
    pub tls: Arc<ClusterTls>,
    issued: Arc<Mutex<BTreeSet<KeyHash>>>,
    /// What leads to the authority from those before, the last one first.
    bridges: Vec<Vec<u8>>,
}

impl Cluster {
    pub fn new() -> Self {
        Self::speaking(Protocol::default())
    }

    /// One whose members speak this.
    fn speaking(protocol: Protocol) -> Self {
        Self::of(Authority::generate(ClusterId(0xc0_7e)).unwrap(), protocol)
    }

    /// One that has this authority.
    fn of(made: NewAuthority, protocol: Protocol) -> Self {
        let authority = load(&made);
        let issued = Arc::<Mutex<BTreeSet<KeyHash>>>::default();
        let list = Arc::clone(&issued);
        let is_issued = Arc::new(move |key: &KeyHash| list.lock().unwrap().contains(key));
        let tls = ClusterTls::new(&authority, names([]), is_issued, protocol).unwrap();
        Self { authority, made, tls: Arc::new(tls), issued, bridges: Vec::new() }
    }

    /// A client whose key is on the list.
    pub fn issue(&self, name: &str) -> Issued {
        let client = self.authority.issue_client(name).unwrap();
        self.issued.lock().unwrap().insert(client.key_hash);
        client
    }

    pub fn revoke(&self, client: &Issued) {
        assert!(self.issued.lock().unwrap().remove(&client.key_hash));
        self.tls.clients().review();
    }

    /// Another authority takes the place of the one that there is. Who knows that one is led to the other.
    pub fn replace(&mut self) {
        let Successor { authority, bridge_der } = self.authority.succeed().unwrap();
        self.made = authority;
        self.bridges.insert(0, bridge_der);
        self.show();
    }

    /// Nobody is led to it any more.
    pub fn forget(&mut self) {
        self.bridges.clear();
        self.show();
    }

    fn show(&mut self) {
        self.authority = load(&self.made).reached_by(self.bridges.iter().map(Vec::as_slice));
        self.tls.update(&self.authority, names([])).unwrap();
    }

    /// A node of the cluster, as `covey serve` has it.
    pub async fn serve(&self) -> Server {
        self.serve_around(Setup::default().host).await
    }

    /// The same with this around it.
    pub async fn serve_around(&self, host: Arc<dyn Host>) -> Server {
        let (tls, clients) = (Arc::clone(&self.tls), Arc::clone(self.tls.clients()));
        Server::with(Setup {
            plaintext: Plaintext::Loopback,
            tls: Some(Arc::new(move || Some(tls.current()))),
            admit: Some(Arc::new(move |shown| clients.admit(shown).map(|stay| Box::pin(stay) as Stay))),
            host,
            ..Setup::default()
        })
        .await
    }

    /// A connection of a client that shows this.
    pub async fn channel(&self, server: &Server, client: &Issued) -> Channel {
        let connector = self.client(&rustls::version::TLS13, &["h2"], Some(own(client)));
        Channel::over(handshake(server, &connector).await.unwrap()).await.unwrap()
    }

    pub fn client(
        &self,
        version: &'static SupportedProtocolVersion,
        alpn: &[&str],
        shows: Option<CertifiedKey>,
    ) -> TlsConnector {
        Self::client_of(&self.authority, version, alpn, shows)
    }

    /// A client that knows servers by this authority.
    fn client_of(
        root: &Authority,
        version: &'static SupportedProtocolVersion,
        alpn: &[&str],
        shows: Option<CertifiedKey>,
    ) -> TlsConnector {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(root.certificate().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shows {
            None => builder.with_no_client_auth(),
            Some(shown) => builder.with_client_cert_resolver(Arc::new(Shows(Arc::new(shown)))),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

fn load(made: &NewAuthority) -> Authority {
    Authority::load(&made.certificate_der, &made.key_pkcs8).unwrap()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn names<const N: usize>(addresses: [IpAddr; N]) -> ServerNames {
    ServerNames::of_machine("box", addresses)
}

/// The certificate of one client with the key of another: what rustls itself would not take for a pair.
fn mixed(certificate: &Issued, key: &Issued) -> CertifiedKey {
    let chain = vec![CertificateDer::from_pem_slice(certificate.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.key.as_bytes()).unwrap();
    CertifiedKey::new(chain, provider().key_provider.load_private_key(key).unwrap())
}

pub fn own(client: &Issued) -> CertifiedKey {
    mixed(client, client)
}

#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, hints: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // Java and browsers choose by this.
        assert!(hints.len() == 1 && hints[0].ends_with(b"covey CA c07e"), "{hints:?}");
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Whether somebody who shows this is answered. In TLS 1.3 the client learns of the server's judgement only after its own handshake.
async fn is_served(server: &Server, client: &TlsConnector) -> bool {
    match handshake(server, client).await {
        Ok(stream) => is_healthy(stream).await,
        Err(_) => false,
    }
}

#[test]
fn a_client_is_let_in_by_its_key_and_by_nothing_else() {
    run(async {
        let cluster = Cluster::new();
        let server = cluster.serve().await;
        let (good, other) = (cluster.issue("good"), cluster.issue("other"));
        let minted = cluster.authority.issue_client("good").unwrap();
        let stranger = Cluster::new().issue("good");
        for version in VERSIONS {
            let ask = async |shows| is_served(&server, &cluster.client(version, &["h2"], shows)).await;
            assert!(ask(Some(own(&good))).await, "{version:?}");
            assert!(!ask(None).await, "no certificate: {version:?}");
            assert!(
                !ask(Some(own(&minted))).await,
                "signed by our authority, and not on the list: {version:?}"
            );
            assert!(!ask(Some(own(&stranger))).await, "another cluster's: {version:?}");
            assert!(!ask(Some(mixed(&good, &other))).await, "without the key: {version:?}");
            assert!(ask(Some(own(&other))).await, "{version:?}");
        }
        // Where the client learns of it in the handshake, it is seen that this was refused there, and not only after it.
        let minted = cluster.client(&rustls::version::TLS12, &["h2"], Some(own(&minted)));
        assert!(handshake(&server, &minted).await.is_err());
        server.idle().await;
        assert_eq!(server.api.counters().failed(), 9);
    });
}

#[test]
fn what_tls_offers_stays_when_the_certificate_is_made_anew() {
    run(async {
        let most = Some(Version::Tls12);
        let mut cluster = Cluster::speaking(Protocol { most, ..Protocol::default() });
        let server = cluster.serve().await;
        let client = cluster.issue("client");
        for made in ["at first", "anew"] {
            let [old, new] = VERSIONS.map(|version| cluster.client(version, &["h2"], Some(own(&client))));
            assert!(is_served(&server, &old).await, "{made}");
            assert!(handshake(&server, &new).await.is_err(), "{made}");
            cluster.replace();
        }
    });
}

#[test]
fn plaintext_is_served_on_the_machine_itself_where_others_need_a_certificate() {
    run(async {
        let server = Cluster::new().serve().await;
        HealthClient::new(server.channel().await).check(HealthCheckRequest::default()).await.unwrap();
    });
}

#[test]
fn a_key_that_is_revoked_closes_the_connections_that_came_with_it_and_no_others() {
    run(async {
        let cluster = Cluster::new();
        let server = cluster.serve().await;
        let (leaves, stays) = (cluster.issue("leaves"), cluster.issue("stays"));
        let connect = async |client: &Issued| {
            let connector = cluster.client(&rustls::version::TLS13, &["h2"], Some(own(client)));
            HealthClient::new(Channel::over(handshake(&server, &connector).await.unwrap()).await.unwrap())
        };
        let (mut cut, mut kept) = (connect(&leaves).await, connect(&stays).await);
        cut.check(HealthCheckRequest::default()).await.unwrap();
        let mut watching = cut.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        watching.message().await.unwrap().unwrap();
        // A connection on which nothing was said yet, and which speaks the other protocol.
        let connector = cluster.client(&rustls::version::TLS12, &["http/1.1"], Some(own(&leaves)));
        let mut silent = handshake(&server, &connector).await.unwrap();
        kept.check(HealthCheckRequest::default()).await.unwrap();
        until("all are there", || server.api.counters().connections() == 3).await;

        cluster.revoke(&leaves);
        assert!(watching.message().await.is_err(), "a stream ends with the connection");
        assert!(cut.check(HealthCheckRequest::default()).await.is_err());
        let mut nothing = Vec::new();
        drop(silent.read_to_end(&mut nothing).await);
        assert!(nothing.is_empty());
        until("one is left", || server.api.counters().connections() == 1).await;
        kept.check(HealthCheckRequest::default()).await.unwrap();
    });
}

#[test]
fn nobody_comes_back_by_a_session_from_before_its_key_was_revoked() {
    run(async {
        let cluster = Cluster::new();
        let server = cluster.serve().await;
        for version in VERSIONS {
            let client = cluster.issue("client");
            // Both handshakes by one configuration, which keeps what it could resume.
            let connector = cluster.client(version, &["http/1.1"], Some(own(&client)));
            for _ in 0..2 {
                let stream = handshake(&server, &connector).await.unwrap();
                assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
                assert!(version_over(stream).await.starts_with("HTTP/1.1 200 OK"), "{version:?}");
            }
            cluster.revoke(&client);
            assert!(!is_served(&server, &connector).await, "{version:?}");
        }
    });
}

/// Whoever took a box has the key of the authority from before, and has been shown all that servers show.
#[test]
fn an_authority_that_was_replaced_is_known_for_a_while_and_is_nobody_to_those_who_know_the_next_one() {
    run(async {
        let mut cluster = Cluster::new();
        let server = cluster.serve().await;
        let client = cluster.issue("client");
        let mut thief = Cluster::of(cluster.made.clone(), Protocol::default());
        thief.issued.lock().unwrap().insert(client.key_hash);
        let stolen = load(&cluster.made);
        cluster.replace();
        thief.bridges = cluster.bridges.clone();
        thief.show();
        let thief = thief.serve().await;
        // The client keeps its key and its certificate: only whom it trusts is renewed.
        let knows =
            |root: &Authority, version| Cluster::client_of(root, version, &["h2"], Some(own(&client)));
        let clients = VERSIONS.map(|version| (knows(&stolen, version), knows(&cluster.authority, version)));
        for (old, new) in &clients {
            assert!(is_served(&server, old).await && is_served(&server, new).await);
            assert!(is_served(&thief, old).await, "this is why it ends");
            assert!(!is_served(&thief, new).await);
        }
        cluster.forget();
        for (old, new) in &clients {
            assert!(!is_served(&server, old).await && is_served(&server, new).await);
            assert!(!is_served(&thief, new).await);
        }
    });
}

#[test]
fn a_new_address_is_in_the_certificate_of_the_next_handshake_and_old_connections_stay() {
    run(async {
        let cluster = Cluster::new();
        let server = cluster.serve().await;
        let client = cluster.issue("client");
        let connector = cluster.client(&rustls::version::TLS13, &["h2"], Some(own(&client)));
        let stream = handshake(&server, &connector).await.unwrap();
        let mut before = HealthClient::new(Channel::over(stream).await.unwrap());
        let address = IpAddr::from([192, 0, 2, 7]);
        let by_address = async || connector.connect(address.into(), server.connect().await).await;
        assert!(by_address().await.is_err(), "it is not there yet");
        cluster.tls.update(&cluster.authority, names([address])).unwrap();
        assert!(is_healthy(by_address().await.unwrap()).await);
        before.check(HealthCheckRequest::default()).await.expect("the old connection is still good");
    });
}
