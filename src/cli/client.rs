//! A gRPC connection to a server: connect, TLS, HTTP/2, and a service that the generated clients accept.
//!
//! Owns: one connection. Must never: retry a request, as a write may have happened. Driven by `run` on its executor.

use std::env;
use std::fs;
use std::future::Future;
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_rustls::TlsConnector;
use http::{HeaderName, HeaderValue};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use smol::io::{AsyncRead, AsyncWrite};
use smol::{Async, LocalExecutor, Timer};
use tonic::body::Body;
use tonic::{Code, Status};
use tower_service::Service;

use super::args::{ClientSettings, Credentials, Endpoint, Password};
use super::calls::origin;
use super::reach::Nobody;
use crate::api::timer::SmolTimer;
use crate::runtime::io::HyperIo;
use crate::wire::etcdserverpb::AuthenticateRequest;
use crate::wire::etcdserverpb::auth_client::AuthClient;

/// Where systems keep the authorities that they trust, as one PEM file.
const SYSTEM_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Flow-control window in bytes: a large range arrives without waiting for the client's updates.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Where etcd's clients put what the server gave them for name and password.
const TOKEN: HeaderName = HeaderName::from_static("token");
/// What a server says to whom it does not ask for a name.
const AUTH_IS_OFF: &str = "etcdserver: authentication is not enabled";
/// A connection is tried no oftener than gRPC's clients do: servers end those that are a burden.
const SILENCE_MIN: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name, the port or the server's answer to them.
    #[error("cannot connect to {endpoint}: {source}")]
    Tcp {
        /// As it was given.
        endpoint: String,
        /// What the system says.
        source: io::Error,
    },
    /// It took too long.
    #[error("cannot connect to {endpoint}: timed out after {timeout:?}")]
    TimedOut {
        /// As it was given.
        endpoint: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// The two could not agree on TLS, or the certificate is not trusted.
    #[error("cannot connect to {endpoint} over TLS: {source}")]
    Tls {
        /// As it was given.
        endpoint: String,
        /// Why not.
        source: io::Error,
    },
    /// It does not speak HTTP/2.
    #[error("cannot speak HTTP/2 with {endpoint}: {source}")]
    Http2 {
        /// As it was given.
        endpoint: String,
        /// Why not.
        source: hyper::Error,
    },
    /// A certificate or key file cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// A file without any certificate.
    #[error("no certificate in {}", .0.display())]
    NoCertificate(PathBuf),
    /// The system's authorities were not found.
    #[error("no trusted authorities on this system: use --cacert")]
    NoAuthorities,
    /// Certificate and key do not fit together, or rustls refuses them.
    #[error("cannot set up TLS: {0}")]
    Rustls(#[from] rustls::Error),
    /// The server does not believe who we are, in its words.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// A token that cannot be sent.
    #[error("the server's token cannot be used")]
    Token,
    /// Neither where a bundle says, nor on the LAN.
    #[error("{0}")]
    Nobody(Box<Nobody>),
}

/// A connection that the generated clients send through. Cloning it shares it.
#[derive(Clone)]
pub struct Channel {
    sender: SendRequest<Body>,
    /// What says who we are, where the server asks.
    token: Option<HeaderValue>,
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if let Some(token) = &self.token {
            request.headers_mut().insert(TOKEN, token.clone());
        }
        Box::pin(self.sender.send_request(request))
    }
}

/// hyper's way to spawn the tasks of a connection: on the one thread of the command.
#[derive(Clone)]
struct Spawner(Rc<LocalExecutor<'static>>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, future: F) {
        self.0.spawn(future).detach();
    }
}

/// Connects to one endpoint within the dial timeout, and says who we are, where that was given.
pub async fn connect(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &ClientSettings,
    endpoint: &Endpoint,
) -> Result<Channel, ConnectError> {
    let timeout = settings.dial_timeout;
    let late = async {
        Timer::after(timeout).await;
        Err(ConnectError::TimedOut { endpoint: endpoint.text.clone(), timeout })
    };
    let mut channel = smol::future::or(connect_unbounded(executor, settings, endpoint), late).await?;
    if let Some(Credentials { user, password: Some(Password(password)) }) = &settings.credentials {
        let request = AuthenticateRequest { name: user.clone(), password: password.clone() };
        channel.token = authenticate(channel.clone(), endpoint, settings.command_timeout, request).await?;
    }
    Ok(channel)
}

/// The token for a user; none where nobody has to say who it is.
async fn authenticate(
    channel: Channel,
    endpoint: &Endpoint,
    timeout: Duration,
    request: AuthenticateRequest,
) -> Result<Option<HeaderValue>, ConnectError> {
    let late = async {
        Timer::after(timeout).await;
        Err(Status::deadline_exceeded("context deadline exceeded"))
    };
    let mut client = AuthClient::with_origin(channel, origin(endpoint));
    match smol::future::or(client.authenticate(request), late).await {
        Ok(answer) => {
            let mut token =
                HeaderValue::try_from(answer.into_inner().token).map_err(|_| ConnectError::Token)?;
            token.set_sensitive(true);
            Ok(Some(token))
        }
        // A server without the service asks nobody either.
        Err(status) if status.message() == AUTH_IS_OFF || status.code() == Code::Unimplemented => Ok(None),
        Err(status) => Err(ConnectError::Refused(Box::new(status))),
    }
}

async fn connect_unbounded(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &ClientSettings,
    endpoint: &Endpoint,
) -> Result<Channel, ConnectError> {
    let named = |source| ConnectError::Tcp { endpoint: endpoint.text.clone(), source };
    let socket = connect_tcp(endpoint).await.map_err(named)?;
    if !endpoint.tls {
        return handshake(executor, settings, endpoint, socket).await;
    }
    let failed = |source| ConnectError::Tls { endpoint: endpoint.text.clone(), source };
    let config = tls_config(settings)?;
    let name =
        ServerName::try_from(endpoint.host.clone()).map_err(|error| failed(io::Error::other(error)))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await.map_err(failed)?;
    handshake(executor, settings, endpoint, stream).await
}

/// Tries every address that the name has.
async fn connect_tcp(endpoint: &Endpoint) -> io::Result<Async<TcpStream>> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in smol::net::resolve((endpoint.host.as_str(), endpoint.port)).await? {
        match Async::<TcpStream>::connect(address).await {
            Ok(socket) => {
                socket.get_ref().set_nodelay(true)?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn handshake<S>(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &ClientSettings,
    endpoint: &Endpoint,
    stream: S,
) -> Result<Channel, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (silence_max, answer_max) = settings.keep_alive;
    let (sender, connection) = http2::Builder::new(Spawner(Rc::clone(executor)))
        .timer(SmolTimer)
        .keep_alive_interval(Some(silence_max.max(SILENCE_MIN)))
        .keep_alive_timeout(answer_max)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .handshake(HyperIo::new(stream))
        .await
        .map_err(|source| ConnectError::Http2 { endpoint: endpoint.text.clone(), source })?;
    // What ends the connection reaches the caller through its request.
    executor.spawn(async { drop(connection.await) }).detach();
    Ok(Channel { sender, token: None })
}

fn tls_config(settings: &ClientSettings) -> Result<ClientConfig, ConnectError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = if settings.trusts_anyone {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustsAnyone(provider)))
    } else {
        builder.with_root_certificates(trusted(settings)?)
    };
    let mut config = match &settings.identity {
        Some((cert, key)) => {
            let pem = |source| ConnectError::Pem { path: key.clone(), source };
            builder
                .with_client_auth_cert(certificates(cert)?, PrivateKeyDer::from_pem_file(key).map_err(pem)?)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn trusted(settings: &ClientSettings) -> Result<RootCertStore, ConnectError> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities(settings.cacert.as_deref())? {
        // The system's file may hold one that rustls cannot read; the others still count.
        if let (Err(error), Some(_)) = (roots.add(certificate), &settings.cacert) {
            return Err(error.into());
        }
    }
    Ok(roots)
}

/// Takes any certificate of whoever holds its key: `--insecure-skip-tls-verify`.
#[derive(Debug)]
struct TrustsAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustsAnyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The given authorities, or else the system's: `SSL_CERT_FILE`, as OpenSSL and Go read it, before the usual places.
fn authorities(cacert: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    if let Some(path) = cacert {
        return certificates(path);
    }
    let usual = SYSTEM_AUTHORITIES.into_iter().map(PathBuf::from);
    let mut places = env::var_os("SSL_CERT_FILE").map(PathBuf::from).into_iter().chain(usual);
    let found = places.find(|path| fs::metadata(path).is_ok_and(|metadata| metadata.is_file()));
    certificates(&found.ok_or(ConnectError::NoAuthorities)?)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let failed = |source| ConnectError::Pem { path: path.to_owned(), source };
    let certificates = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if certificates.is_empty() { Err(ConnectError::NoCertificate(path.to_owned())) } else { Ok(certificates) }
}
