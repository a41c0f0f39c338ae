//! The members' port as a stranger sees it: QUIC by hand, with any key, any protocol, any bytes.
//!
//! Owns: the frame of the joining protocol, written out a second time. Must never: hold anything back because it is not right.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use covey::formation::{Answer, Binding, ClusterSecret, NodeKey, Prover, Question};
use covey::ids::PublicKey;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, SmolRuntime};
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use rustls::client::{AlwaysResolvesClientRawPublicKeys, ResolvesClientCert};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use smol::Timer;
use smol::future::or;

use crate::anybody::Anybody;

/// What nodes speak that have no cluster, ...
pub const JOINING: &str = "covey-form/1";
/// ... and what members speak.
pub const MEMBERS: &str = "covey-peer/1";
const EXPORT_LABEL: &[u8] = b"EXPORTER-covey-forming-1";
/// In front of what is said: the version and the proof.
const HEAD_BYTES: usize = 33;
/// Longer than the other end takes for anything.
const PATIENCE: Duration = Duration::from_secs(8);

/// What is shown to the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A key, and the handshake is signed with it.
    Own,
    /// Somebody else's key: the handshake is signed with another one.
    Stolen(PublicKey),
    /// A certificate instead of a bare key.
    Certificate,
    Nothing,
}

/// Somebody with a key of its own.
pub struct Stranger {
    pub key: NodeKey,
    endpoint: Endpoint,
}

pub fn new_key() -> NodeKey {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    NodeKey::from_pkcs8(pkcs8.as_ref().to_vec()).unwrap()
}

fn spki(key: PublicKey) -> CertificateDer<'static> {
    let head = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    CertificateDer::from([&head[..], &key.0].concat())
}

fn config(key: &NodeKey, protocol: &str, shown: Shown) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let private = PrivatePkcs8KeyDer::from(key.pkcs8().to_vec());
    let signer = rustls::crypto::ring::sign::any_eddsa_type(&private).unwrap();
    let raw = |spki| {
        let pair = Arc::new(CertifiedKey::new(vec![spki], Arc::clone(&signer)));
        Some(Arc::new(AlwaysResolvesClientRawPublicKeys::new(pair)) as Arc<dyn ResolvesClientCert>)
    };
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let resolver = match shown {
        Shown::Own => raw(spki(PublicKey(*key.public()))),
        Shown::Stolen(other) => raw(spki(other)),
        Shown::Certificate | Shown::Nothing => None,
    };
    let mut config = match (resolver, shown) {
        (Some(resolver), _) => builder.with_client_cert_resolver(resolver),
        (None, Shown::Certificate) => {
            let made = rcgen::generate_simple_self_signed(vec!["covey".into()]).unwrap();
            let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
            builder.with_client_auth_cert(vec![made.cert.der().clone()], key.into()).unwrap()
        }
        (None, _) => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()))
}

/// How the other end took something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// There is no connection: the handshake was refused.
    AtTls,
    /// The connection was closed, with this sentence.
    Closed(String),
    /// There is an answer.
    Answer(Answer),
    /// Nothing has come, for longer than anything takes.
    Silence,
}

impl Stranger {
    /// One that sends from this address.
    pub fn at(address: impl Into<IpAddr>) -> Self {
        Self::with_key(new_key(), address)
    }

    pub fn with_key(key: NodeKey, address: impl Into<IpAddr>) -> Self {
        let socket = std::net::UdpSocket::bind((address.into(), 0)).unwrap();
        let runtime = Arc::new(SmolRuntime);
        Self { key, endpoint: Endpoint::new(EndpointConfig::default(), None, socket, runtime).unwrap() }
    }

    pub fn public(&self) -> PublicKey {
        PublicKey(*self.key.public())
    }

    pub async fn connect(
        &self,
        to: SocketAddr,
        protocol: &str,
        shown: Shown,
    ) -> Result<Connection, ConnectionError> {
        let late = async {
            Timer::after(PATIENCE).await;
            Err(ConnectionError::TimedOut)
        };
        let config = config(&self.key, protocol, shown);
        or(self.endpoint.connect_with(config, to, "covey").unwrap(), late).await
    }

    /// The bytes of a question as they have to be on this connection.
    pub fn asks(
        &self,
        connection: &Connection,
        secret: Option<&ClusterSecret>,
        question: &Question,
    ) -> Vec<u8> {
        let asked = question.encode();
        let proof = secret.map_or([0; 32], |secret| {
            let mut exported = [0; 32];
            connection.export_keying_material(&mut exported, EXPORT_LABEL, b"").unwrap();
            let (dialler, dialled) = (self.public(), shown_key(connection));
            let binding = Binding { exported, dialler, dialled, said: &[&asked] };
            secret.prove(Prover::Dialler, &binding)
        });
        [&[1], &proof[..], &asked].concat()
    }

    /// Connects and asks, all by the rules.
    pub async fn ask(&self, to: SocketAddr, secret: Option<&ClusterSecret>, question: &Question) -> Taken {
        let Ok(connection) = self.connect(to, JOINING, Shown::Own).await else { return Taken::AtTls };
        let bytes = self.asks(&connection, secret, question);
        say(&connection, &bytes).await
    }

    /// Connects and says this.
    pub async fn say(&self, to: SocketAddr, bytes: &[u8]) -> Taken {
        let Ok(connection) = self.connect(to, JOINING, Shown::Own).await else { return Taken::AtTls };
        say(&connection, bytes).await
    }
}

/// The key that the other end has shown.
pub fn shown_key(connection: &Connection) -> PublicKey {
    let shown = connection.peer_identity().unwrap().downcast::<Vec<CertificateDer<'static>>>().unwrap();
    PublicKey(*shown[0].last_chunk().unwrap())
}

/// Says this on a connection, to its end.
pub async fn say(connection: &Connection, bytes: &[u8]) -> Taken {
    let said = async {
        let (mut send, mut recv) = connection.open_bi().await.ok()?;
        // Somebody who does not want to hear more says so, which is no failure here.
        drop(send.write_all(bytes).await);
        drop(send.finish());
        let bytes = recv.read_to_end(1 << 20).await.ok()?;
        Some(Answer::decode(bytes.get(HEAD_BYTES..)?).unwrap())
    };
    let late = async {
        Timer::after(PATIENCE).await;
        None
    };
    match (or(said, late).await, connection.close_reason()) {
        (Some(answer), _) => Taken::Answer(answer),
        (None, Some(ConnectionError::ApplicationClosed(close))) => {
            Taken::Closed(String::from_utf8_lossy(&close.reason).into_owned())
        }
        (None, Some(ConnectionError::ConnectionClosed(_))) => Taken::AtTls,
        (None, _) => Taken::Silence,
    }
}
