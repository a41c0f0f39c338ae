//! The client against a real gRPC server on the loopback interface, made of the generated server code.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_rustls::TlsAcceptor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use smol::{Async, LocalExecutor};
use tonic::{Request, Response, Status};
use tower_service::Service as _;

use super::{Call, CallError, perform};
use crate::cli::args::{ClientSettings, Endpoint, Format};
use crate::cli::reply::{Reply, ValuesOnly};
use crate::runtime::io::HyperIo;
use crate::wire::etcdserverpb::kv_server::{Kv, KvServer};
use crate::wire::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, LeaseGrantRequest,
    PutRequest, PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse,
};
use crate::wire::mvccpb::KeyValue;

/// Answers a range with its own key and a large value, refuses puts, and never answers a delete.
#[derive(Clone)]
struct Echo;

const VALUE_BYTES: usize = 6 * 1024 * 1024;

#[tonic::async_trait]
impl Kv for Echo {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let key = request.into_inner().key;
        let kv = KeyValue { key, value: Bytes::from(vec![b'v'; VALUE_BYTES]), ..KeyValue::default() };
        Ok(Response::new(RangeResponse { kvs: vec![kv], count: 1, ..RangeResponse::default() }))
    }

    type RangeStreamStream = smol::stream::Empty<Result<RangeStreamResponse, Status>>;

    async fn range_stream(
        &self,
        _: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        assert_eq!(request.metadata().get("grpc-timeout").unwrap(), "500000u");
        Err(Status::invalid_argument("etcdserver: key is not provided"))
    }

    async fn delete_range(
        &self,
        _: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        std::future::pending().await
    }

    async fn txn(&self, _: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        Ok(Response::new(TxnResponse { succeeded: true, ..TxnResponse::default() }))
    }

    async fn compact(&self, _: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        Ok(Response::new(CompactionResponse::default()))
    }
}

/// Serves on a free port until the test process ends; over TLS when given a configuration.
fn start_server(tls: Option<rustls::ServerConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    thread::spawn(move || {
        let executor = std::rc::Rc::new(LocalExecutor::new());
        smol::block_on(executor.run(async {
            let listener = Async::new(listener).unwrap();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (acceptor, spawner) = (acceptor.clone(), Spawner(std::rc::Rc::clone(&executor)));
                let connection = async move {
                    match acceptor {
                        Some(acceptor) => {
                            // A client that does not trust us goes away, which is what its test wants to see.
                            if let Ok(stream) = acceptor.accept(socket).await {
                                serve(spawner, HyperIo::new(stream)).await;
                            }
                        }
                        None => serve(spawner, HyperIo::new(socket)).await,
                    }
                };
                executor.spawn(connection).detach();
            }
        }));
    });
    address
}

#[derive(Clone)]
struct Spawner(std::rc::Rc<LocalExecutor<'static>>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Spawner {
    fn execute(&self, future: F) {
        self.0.spawn(future).detach();
    }
}

async fn serve<S>(spawner: Spawner, io: HyperIo<S>)
where
    S: smol::io::AsyncRead + smol::io::AsyncWrite + Unpin + 'static,
{
    let service = KvServer::new(Echo);
    let service = service_fn(move |request| service.clone().call(request));
    let _ = http2::Builder::new(spawner).serve_connection(io, service).await;
}

fn endpoint(text: &str, tls: bool, host: &str, port: u16) -> Endpoint {
    Endpoint { text: text.to_owned(), tls, host: host.to_owned(), port }
}

fn settings(endpoints: Vec<Endpoint>) -> ClientSettings {
    ClientSettings {
        endpoints,
        searches: false,
        cacert: None,
        identity: None,
        trusts_anyone: false,
        credentials: None,
        keep_alive: (Duration::from_secs(2), Duration::from_secs(6)),
        dial_timeout: Duration::from_secs(5),
        command_timeout: Duration::from_secs(20),
        format: Format::Simple,
    }
}

fn get() -> Call {
    Call::Range(RangeRequest { key: Bytes::from_static(b"k"), ..RangeRequest::default() }, ValuesOnly(false))
}

#[track_caller]
fn assert_answered(settings: &ClientSettings) {
    let Reply::Range(response, ValuesOnly(false)) = perform(settings, get()).unwrap() else {
        panic!("not a range")
    };
    assert_eq!((&response.kvs[0].key[..], response.kvs[0].value.len()), (&b"k"[..], VALUE_BYTES));
}

#[test]
fn answers_larger_than_grpcs_default_come_through_and_dead_endpoints_are_passed_over() {
    let address = start_server(None);
    // A port that was free a moment ago: nobody listens there.
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dead = endpoint("dead", false, "127.0.0.1", dead.port());
    assert_answered(&settings(vec![dead.clone(), endpoint("live", false, "127.0.0.1", address.port())]));
    let error = perform(&settings(vec![dead]), get()).unwrap_err();
    assert!(error.to_string().starts_with("cannot connect to dead: Connection refused"), "{error}");
}

#[test]
fn errors_are_the_servers_words_and_time_runs_out() {
    let address = start_server(None);
    let mut settings = settings(vec![endpoint("live", false, "localhost", address.port())]);
    settings.command_timeout = Duration::from_millis(500);
    let refused = perform(&settings, Call::Put(PutRequest::default())).unwrap_err();
    assert_eq!(refused.to_string(), "etcdserver: key is not provided");
    settings.command_timeout = Duration::from_millis(50);
    let late = perform(&settings, Call::Delete(DeleteRangeRequest::default())).unwrap_err();
    assert!(matches!(late, CallError::TimedOut));
    assert_eq!(late.to_string(), "context deadline exceeded");
    settings.command_timeout = Duration::from_secs(20);
    let compacted = perform(&settings, Call::Compact(CompactionRequest { revision: 7, physical: false }));
    assert!(matches!(compacted, Ok(Reply::Compacted(7))));
    assert!(matches!(perform(&settings, Call::Txn(TxnRequest::default())), Ok(Reply::Txn(r)) if r.succeeded));
}

/// The words and the exit codes are etcdctl's.
#[test]
fn what_came_of_a_lease_is_told_as_etcdctl_tells_it() {
    let gone = "etcdserver: requested lease not found";
    for (call, told, code) in [
        (Call::LeaseGrant(LeaseGrantRequest::default()), format!("failed to grant lease ({gone})"), 1),
        (Call::LeaseRevoke(7), format!("failed to revoke lease ({gone})"), 1),
        (Call::LeaseKeepAlive(7), gone.to_owned(), 2),
        (Call::LeaseTimeToLive(7, true), gone.to_owned(), 2),
        (Call::Leases, gone.to_owned(), 2),
        (Call::Members, gone.to_owned(), 1),
    ] {
        let error = CallError::from(Status::not_found(gone)).of_call(&call);
        assert_eq!((error.to_string(), error.exit_code()), (told, code), "{call:?}");
    }
}

/// An authority and a certificate for localhost that it has signed, for the server or a client.
fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[test]
fn tls_trusts_the_given_authority_only_and_shows_its_own_certificate() {
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "leaf");
    let leaf = params.signed_by(&key, &ours).unwrap();

    let mut roots = rustls::RootCertStore::empty();
    roots.add(ours.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let address = start_server(Some(config));

    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, pem: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    };
    let mut settings = settings(vec![endpoint("tls", true, "localhost", address.port())]);
    settings.cacert = Some(write("ca.pem", ours.pem()));
    settings.identity = Some((write("cert.pem", leaf.pem()), write("key.pem", key.serialize_pem())));
    assert_answered(&settings);

    let without_identity = ClientSettings { identity: None, ..settings.clone() };
    assert!(perform(&without_identity, get()).is_err(), "the server wants a certificate");
    settings.cacert = Some(write("other.pem", theirs.pem()));
    let error = perform(&settings, get()).unwrap_err().to_string();
    assert!(
        error.starts_with("cannot connect to tls over TLS: ") && error.contains("UnknownIssuer"),
        "{error}"
    );
    settings.cacert = Some(write("empty.pem", String::new()));
    assert!(perform(&settings, get()).unwrap_err().to_string().starts_with("no certificate in "));
}
