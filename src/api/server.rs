//! From a listening socket to hyper.
//!
//! Owns: how many connections are open, how long a client may take to say what it speaks, the settings of HTTP. Must never: spawn
//! anything itself (the caller says where a connection runs), or hold a client's failure against another. Driven by `app`.

use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_rustls::TlsAcceptor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use rustix::net::sockopt;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use smol::{Async, Timer};

use super::admin::{AdminService, Host};
use super::answers::{Answers, Outbox, Patience};
use super::auth::AuthService;
use super::authority::Mending;
use super::browser::BrowserPolicy;
use super::calls::Calls;
use super::cluster::{ClusterService, MemberRules};
use super::counters::{CallsOfOne, Counters, Live};
use super::credentials::{Asker, LoginOptions};
use super::dispatch::{Connection, Services, Shown, Whence, answer};
use super::election::ElectionService;
use super::health::HealthService;
use super::io::{GREETING_MAX, Rewound, Socket, Stream, Transport};
use super::kv::KvService;
use super::lease::LeaseService;
use super::lock::LockService;
use super::logins::Logins;
use super::maintenance::MaintenanceService;
use super::node::Node;
use super::pings::Pings;
use super::reflection::ReflectionService;
use super::stop::Stopping;
use super::timer::{SmolTimer, within};
use super::turned_away::{Reason, TurnedAway, is_departure};
use super::watch::WatchService;
use super::windows::Windows;
use crate::auth::common_name;
use crate::limits::{
    ANSWER_PATIENCE, ANSWERS_BYTES_MAX, CALLS, CONNECTIONS, GRPC_OVERHEAD_BYTES, KEEPALIVE_INTERVAL,
    KEEPALIVE_MIN_TIME, KEEPALIVE_TIMEOUT, REQUEST_BYTES, STREAMS_PER_CONNECTION, TXN_OPS, WINDOWS_BYTES_MAX,
};
use crate::runtime::Handle;
use crate::telemetry::metrics::Metrics;
use crate::wire::covey::v1::admin_server::AdminServer;
use crate::wire::etcdserverpb::auth_server::AuthServer;
use crate::wire::etcdserverpb::cluster_server::ClusterServer;
use crate::wire::etcdserverpb::kv_server::KvServer;
use crate::wire::etcdserverpb::lease_server::LeaseServer;
use crate::wire::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::wire::grpc::health::v1::health_server::HealthServer;
use crate::wire::v3electionpb::election_server::ElectionServer;
use crate::wire::v3lockpb::lock_server::LockServer;

/// How long accepting pauses when the system is out of descriptors or memory.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The largest HTTP/2 frame that is taken.
const FRAME_BYTES: u32 = 64 * 1024;
/// Bytes that hyper takes from one answer's body before the client has taken earlier ones.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// The headers of one request.
const HEADER_BYTES: u32 = 64 * 1024;
/// When TCP itself looks whether a silent client is still there, then how often and how many times in vain.
const TCP_PROBE_AFTER: Duration = Duration::from_secs(30);
const TCP_PROBE_EVERY: Duration = Duration::from_secs(10);
const TCP_PROBES: u32 = 3;

/// The text of `/metrics`, made when it is asked for.
pub type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;
/// The TLS configuration for the next handshake; none while there is no certificate.
pub type TlsSource = Arc<dyn Fn() -> Option<Arc<ServerConfig>> + Send + Sync>;
/// Whether a client that has shown these certificates in its handshake may stay, and until when.
pub type Admit = Arc<dyn Fn(&[CertificateDer<'_>]) -> Option<Stay> + Send + Sync>;
/// Resolves when a client has to leave.
pub type Stay = Pin<Box<dyn Future<Output = ()> + Send>>;
/// One connection with all its calls. Whoever drops it has dropped all of that.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the API needs to know beside the node.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// `--max-request-bytes`. A message may be [`GRPC_OVERHEAD_BYTES`] larger before it is refused unread.
    pub request_bytes_max: usize,
    /// `--max-txn-ops`.
    pub txn_ops_max: usize,
    /// Open connections; one more is closed at once.
    pub connections_max: usize,
    /// Calls that have not ended, on all connections together; one more is refused to whoever has more than a few.
    pub calls_max: usize,
    /// Bytes that clients may have sent and nobody has read, beyond what HTTP/2 lets each connection send.
    pub window_bytes_max: usize,
    /// Bytes of answers that are being read or that clients have not taken, on all connections together.
    pub answer_bytes_max: usize,
    /// How long a client may take nothing of what it was answered.
    pub answer_patience: Duration,
    /// What changes of the members go by.
    pub members: MemberRules,
    /// `--max-concurrent-streams`: calls at a time on one connection.
    pub streams_max: u32,
    /// `--grpc-keepalive-min-time`: how often a client may ask for a sign of life; zero is as often as it likes.
    pub keepalive_min_time: Duration,
    /// `--grpc-keepalive-interval`: how long a client may be silent before it is asked for a sign of life; `None` is for ever.
    pub keepalive_interval: Option<Duration>,
    /// `--grpc-keepalive-timeout`: how long the sign may take.
    pub keepalive_timeout: Duration,
    /// After how long an HTTP/2 connection to a port for probes is told to end. There are few places, and who keeps one without a word would keep others out. Over HTTP/1.1 silence ends one anyway.
    pub probe_age_max: Duration,
    /// Which web pages may call.
    pub browser: BrowserPolicy,
    /// How clients show who they are.
    pub logins: LoginOptions,
    /// `--enable-grpc-gateway`: whether JSON is answered.
    pub gateway: bool,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            request_bytes_max: REQUEST_BYTES,
            txn_ops_max: TXN_OPS,
            connections_max: CONNECTIONS,
            calls_max: CALLS,
            window_bytes_max: WINDOWS_BYTES_MAX,
            answer_bytes_max: ANSWERS_BYTES_MAX,
            answer_patience: ANSWER_PATIENCE,
            members: MemberRules::default(),
            streams_max: STREAMS_PER_CONNECTION,
            keepalive_min_time: KEEPALIVE_MIN_TIME,
            keepalive_interval: Some(KEEPALIVE_INTERVAL),
            keepalive_timeout: KEEPALIVE_TIMEOUT,
            probe_age_max: PROBE_AGE_MAX,
            browser: BrowserPolicy::default(),
            logins: LoginOptions::default(),
            gateway: true,
        }
    }
}

/// What one listening socket takes.
#[derive(Clone)]
pub struct Listener {
    /// What it is for.
    pub serves: Serves,
    /// Who may speak without TLS; anybody else who does is disconnected.
    pub plaintext: Plaintext,
    /// How to answer one that speaks TLS; without, it is disconnected.
    pub tls: Option<TlsSource>,
    /// Who may stay of those who speak TLS; without, whoever came through the handshake may, for as long as they like.
    pub admit: Option<Admit>,
    /// Whether the common name of a client's certificate is a user.
    pub names_users: bool,
}

/// What a listening socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serves {
    /// The whole API.
    Clients,
    /// Whether the node is well, and its metrics.
    Probes,
}

/// Who may speak without TLS on a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plaintext {
    /// Everybody.
    Anyone,
    /// Processes of this machine.
    Loopback,
    /// Nobody.
    Nobody,
}

impl Plaintext {
    /// Whether a client may, that is or is not on this machine.
    const fn allows(self, from_here: bool) -> bool {
        match self {
            Plaintext::Anyone => true,
            Plaintext::Loopback => from_here,
            Plaintext::Nobody => false,
        }
    }
}

/// The API of one node. Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Shared>);

/// What all connections share.
pub(super) struct Shared {
    pub(super) options: ApiOptions,
    pub(super) node: Node,
    pub(super) services: Services,
    /// The one of them that the status page asks.
    pub(super) operator: Arc<AdminService>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) metrics_text: MetricsText,
    pub(super) counters: Counters,
    pub(super) turned_away: Arc<TurnedAway>,
    windows: Windows,
    stopping: Stopping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Why a connection ended, other than in order.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{}", in_full(.0))]
    Http(hyper::Error),
    #[error("the client has said nothing for too long")]
    Silent,
    #[error("the client does not take what it was answered")]
    Stalled,
    #[error("the client's certificate was revoked")]
    Revoked,
}

impl Ended {
    /// Why its client was turned away, if it was.
    fn reason(&self) -> Option<Reason> {
        match self {
            Self::Http(error) => {
                let cause = error.source().and_then(|source| source.downcast_ref());
                let has_gone = error.is_incomplete_message() || error.is_closed() || error.is_canceled();
                let is_its_own = !has_gone && !error.is_user() && !cause.is_some_and(is_departure);
                is_its_own.then_some(Reason::BadHttp)
            }
            Self::Stalled => Some(Reason::Stalled),
            Self::Silent | Self::Revoked => None,
        }
    }
}

/// hyper names the kind, and what it was stands behind that.
fn in_full(error: &hyper::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// A connection that has got as far as its first request.
pub(super) struct Greeted {
    pub(super) stream: Stream,
    pub(super) protocol: Protocol,
    pub(super) whence: Whence,
    shown: Shown,
    asker: Asker,
    /// The user that its certificate names.
    common_name: Option<Arc<str>>,
    /// `None` is for ever.
    stay: Option<Stay>,
}

impl Api {
    /// The API of a node, until `stopping` is announced.
    pub fn new(
        handle: Handle,
        host: Arc<dyn Host>,
        options: ApiOptions,
        metrics: Arc<Metrics>,
        metrics_text: MetricsText,
        stopping: Stopping,
    ) -> Self {
        let answers = Answers::new(options.answer_bytes_max, handle.watch_shortage());
        let logins = Arc::new(Logins::new(&options.logins, handle.ids().boot_nonce));
        let node = Node::new(handle.clone(), answers, logins);
        let message_bytes_max = options.request_bytes_max + GRPC_OVERHEAD_BYTES;
        let kv = KvService::new(node.clone(), options.txn_ops_max, options.request_bytes_max);
        let operator = Arc::new(AdminService::new(node.clone(), host));
        let services = Services {
            kv: KvServer::new(kv).max_decoding_message_size(message_bytes_max),
            lease: LeaseServer::new(LeaseService::new(node.clone(), stopping.clone()))
                .max_decoding_message_size(message_bytes_max),
            watch: WatchService::new(node.clone(), stopping.clone(), options.request_bytes_max),
            cluster: ClusterServer::new(ClusterService::new(node.clone(), options.members))
                .max_decoding_message_size(message_bytes_max),
            maintenance: MaintenanceServer::new(MaintenanceService::new(node.clone()))
                .max_decoding_message_size(message_bytes_max),
            auth: AuthServer::new(AuthService::new(node.clone()))
                .max_decoding_message_size(message_bytes_max),
            lock: LockServer::new(LockService::new(node.clone(), stopping.clone()))
                .max_decoding_message_size(message_bytes_max),
            election: ElectionServer::new(ElectionService::new(node.clone(), stopping.clone()))
                .max_decoding_message_size(message_bytes_max),
            health: HealthServer::new(HealthService::new(stopping.clone()))
                .max_decoding_message_size(message_bytes_max),
            admin: AdminServer::from_arc(Arc::clone(&operator)).max_decoding_message_size(message_bytes_max),
            reflection: ReflectionService::new(stopping.clone()),
        };
        let counters = Counters::default();
        let windows = Windows::new(options.window_bytes_max);
        Self(Arc::new(Shared {
            options,
            node,
            services,
            operator,
            metrics,
            metrics_text,
            counters,
            turned_away: Arc::default(),
            windows,
            stopping,
        }))
    }

    /// What is live, and what was turned away.
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// What answers take of the memory.
    pub fn answers(&self) -> &Answers {
        self.0.node.answers()
    }

    /// Takes connections from `socket` and hands each to `spawn`, until the end is announced.
    ///
    /// A connection is best run by the thread it was spawned on for as long as it lives: its calls hop between threads otherwise.
    pub async fn accept(&self, socket: &Async<TcpListener>, listener: Listener, spawn: impl Fn(Task)) {
        let stopped = async {
            self.0.stopping.announced().await;
            None
        };
        let mut stopped = pin!(stopped);
        let mut starved = false;
        loop {
            let next = async { Some(socket.accept().await) };
            match smol::future::or(stopped.as_mut(), next).await {
                None => return,
                Some(Ok((client, peer))) => {
                    starved = false;
                    let live = match listener.serves {
                        Serves::Clients => self.0.counters.connect(self.0.options.connections_max),
                        Serves::Probes => self.0.counters.connect_probe(),
                    };
                    if let Some(live) = live {
                        spawn(Box::pin(self.clone().serve(client, peer, listener.clone(), live)));
                    } else {
                        self.0.metrics.client_connections_refused.add(1);
                        self.0.turned_away.tell(Reason::Crowd, peer, &"there is room once others have left");
                        drop(client);
                    }
                }
                // The client has gone while it waited.
                Some(Err(error)) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Some(Err(error)) => {
                    // Out of descriptors or memory: the clients in the queue stay there until others leave.
                    if !std::mem::replace(&mut starved, true) {
                        tracing::warn!(%error, "cannot accept clients");
                    }
                    Timer::after(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve(self, client: Async<TcpStream>, peer: SocketAddr, listener: Listener, live: Live) {
        let shared = self.0;
        let _open = OpenConnection::count(&shared.metrics);
        let stopping = shared.stopping.clone();
        let stopped = async {
            stopping.announced().await;
            Err(io::ErrorKind::ConnectionAborted.into())
        };
        // Apart, for a handshake takes more than all that comes after it, and the connection may live for months.
        let greeted = Box::pin(within(GREETING_MAX, greet(client, &listener)));
        let greeted = smol::future::or(stopped, greeted).await;
        let Greeted { stream, protocol, whence, shown, asker, common_name, stay } = match greeted {
            Ok(greeted) => greeted,
            Err(error) => {
                tracing::debug!(%error, "a client did not get as far as a request");
                shared.counters.fail();
                if !is_departure(&error) {
                    shared.turned_away.tell(Reason::NoRequest, peer, &error);
                }
                return;
            }
        };
        let calls = Calls::default();
        let outbox = Arc::new(Outbox::new(shared.node.answers().clone()));
        let connection = Arc::new(Connection {
            shared: Arc::clone(&shared),
            calls: calls.spawner(),
            counted: CallsOfOne::default(),
            whence,
            shown,
            serves: listener.serves,
            common_name,
            asker,
            peer,
            outbox,
        });
        let revoked = async {
            match stay {
                None => std::future::pending().await,
                Some(stay) => stay.await,
            }
            Err(Ended::Revoked)
        };
        let talk = async {
            match protocol {
                Protocol::Http1 => run_http1(connection, calls, Transport::new(stream, None), stopping).await,
                Protocol::Http2 => {
                    let pings = Pings::new(shared.options.keepalive_min_time);
                    run_http2(connection, calls, Transport::new(stream, Some(pings)), stopping).await
                }
            }
        };
        let done = smol::future::or(revoked, talk).await;
        if let Err(error) = done {
            tracing::debug!(%error, "a connection ended");
            if let Some(reason) = error.reason() {
                shared.turned_away.tell(reason, peer, &error);
            }
        }
        drop(live);
    }
}

/// A connection, as the metrics see it.
struct OpenConnection(Arc<Metrics>);

impl OpenConnection {
    fn count(metrics: &Arc<Metrics>) -> Self {
        metrics.client_connections.increment();
        Self(Arc::clone(metrics))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.client_connections.decrement();
    }
}

/// Finds out what a client speaks: TLS or not, then HTTP/2 or not.
pub(super) async fn greet(client: Async<TcpStream>, listener: &Listener) -> io::Result<Greeted> {
    prepare(client.get_ref())?;
    let (local, peer) = (client.get_ref().local_addr()?, client.get_ref().peer_addr()?);
    let (from_here, asker) = (is_from_here(local, peer), Asker::at(peer));
    let stream = Rewound::peek(Socket::new(client), is_telling).await?;
    if !stream.head().starts_with(&[TLS_HANDSHAKE]) {
        if !listener.plaintext.allows(from_here) {
            return Err(io::Error::other("plaintext where TLS is required"));
        }
        let protocol = protocol_of(stream.head())?;
        let stream = Stream::Plain(stream);
        let whence = if from_here { Whence::Here } else { Whence::Elsewhere };
        return Ok(Greeted {
            stream,
            protocol,
            whence,
            shown: Shown::Plain,
            asker,
            common_name: None,
            stay: None,
        });
    }
    let Some(tls) = listener.tls.as_ref().and_then(|tls| tls()) else {
        return Err(io::Error::other("TLS where none is configured, or no certificate is there yet"));
    };
    let stream = TlsAcceptor::from(tls).accept(stream).await?;
    let stay = match &listener.admit {
        None => None,
        Some(admit) => {
            let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
            Some(admit(shown).ok_or_else(|| io::Error::other("the client's certificate was revoked"))?)
        }
    };
    let certificates = stream.get_ref().1.peer_certificates().filter(|shown| !shown.is_empty());
    let shown = if certificates.is_some() { Shown::Certificate } else { Shown::Nothing };
    let names_user = certificates.filter(|_| listener.names_users);
    let common_name = names_user.and_then(|shown| common_name(shown.first()?)).map(Arc::from);
    let (stream, protocol) = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => (Rewound::fresh(stream), Protocol::Http2),
        Some(_) => (Rewound::fresh(stream), Protocol::Http1),
        None => {
            let stream = Rewound::peek(stream, is_telling).await?;
            let protocol = protocol_of(stream.head())?;
            (stream, protocol)
        }
    };
    let stream = Stream::Tls(Box::new(stream));
    Ok(Greeted { stream, protocol, whence: Whence::Elsewhere, shown, asker, common_name, stay })
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Whether a client is on this machine. Others reach its loopback addresses where the kernel routes them (`route_localnet`, which kube-proxy sets), but
/// not from one.
fn is_from_here(local: SocketAddr, peer: SocketAddr) -> bool {
    is_loopback(local) && is_loopback(peer)
}

/// What an HTTP/2 connection to a port for probes may ask for at a time.
const PROBE_STREAMS: u32 = 4;
/// Default of [`ApiOptions::probe_age_max`].
const PROBE_AGE_MAX: Duration = Duration::from_secs(60);

/// The first byte of a TLS connection: a handshake record (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 22;
/// How an HTTP/2 connection starts (RFC 9113, section 3.4). No HTTP/1.1 method starts with these letters.
const HTTP2_START: &[u8] = b"PRI";

/// Whether these first bytes tell the protocol.
fn is_telling(head: &[u8]) -> bool {
    head.len() >= HTTP2_START.len() || !HTTP2_START.starts_with(head)
}

fn protocol_of(head: &[u8]) -> io::Result<Protocol> {
    match head {
        [] => Err(io::ErrorKind::UnexpectedEof.into()),
        head if head.starts_with(HTTP2_START) => Ok(Protocol::Http2),
        _ => Ok(Protocol::Http1),
    }
}

/// Small answers leave at once, and clients whose machine has vanished are noticed although they owe us nothing.
fn prepare(client: &TcpStream) -> io::Result<()> {
    client.set_nodelay(true)?;
    sockopt::set_socket_keepalive(client, true)?;
    sockopt::set_tcp_keepidle(client, TCP_PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(client, TCP_PROBE_EVERY)?;
    sockopt::set_tcp_keepcnt(client, TCP_PROBES)?;
    Ok(())
}

async fn run_http2(
    connection: Arc<Connection>,
    mut calls: Calls,
    transport: Transport,
    stopping: Stopping,
) -> Result<(), Ended> {
    let options = &connection.shared.options;
    let (serves, age_max) = (connection.serves, options.probe_age_max);
    let windows = &connection.shared.windows;
    let (streams_max, window) = match serves {
        Serves::Clients => (options.streams_max, windows.open()),
        Serves::Probes => (options.streams_max.min(PROBE_STREAMS), windows.open_smallest()),
    };
    let mut patience = Patience::new(Arc::clone(&connection.outbox), options.answer_patience);
    // In a block, since what it is made of would be kept beside it.
    let mut http = pin!({
        let mut builder = http2::Builder::new(calls.spawner());
        builder
            .timer(SmolTimer)
            .initial_stream_window_size(window.of_stream())
            .initial_connection_window_size(window.of_connection())
            .max_frame_size(FRAME_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .max_header_list_size(HEADER_BYTES)
            .max_concurrent_streams(streams_max)
            .keep_alive_interval(options.keepalive_interval)
            .keep_alive_timeout(options.keepalive_timeout)
            .auto_date_header(false);
        let connection = Arc::clone(&connection);
        let service = service_fn(move |request| answer(Arc::clone(&connection), request));
        builder.serve_connection(Mending::new(transport), service)
    });
    let older_than = async |age: Duration| match serves {
        Serves::Clients => std::future::pending().await,
        Serves::Probes => drop(Timer::after(age).await),
    };
    let mut stopped = pin!(smol::future::or(stopping.announced(), older_than(age_max)));
    // h2 waits for a sign of life before it is done with a client that was told to end.
    let overdue = async {
        older_than(age_max + GREETING_MAX).await;
        Err(Ended::Silent)
    };
    let mut draining = false;
    let talk = poll_fn(|cx| {
        if !draining && stopped.as_mut().poll(cx).is_ready() {
            draining = true;
            http.as_mut().graceful_shutdown();
        }
        let done = http.as_mut().poll(cx);
        if done.is_ready() {
            let why =
                |error: hyper::Error| if error.is_timeout() { Ended::Silent } else { Ended::Http(error) };
            return done.map_err(why);
        }
        calls.poll(cx);
        patience.poll(cx).map(|()| Err(Ended::Stalled))
    });
    smol::future::or(talk, overdue).await
}

async fn run_http1(
    connection: Arc<Connection>,
    mut calls: Calls,
    transport: Transport,
    stopping: Stopping,
) -> Result<(), Ended> {
    let mut builder = http1::Builder::new();
    builder.timer(SmolTimer).header_read_timeout(GREETING_MAX).max_buf_size(HEADER_BYTES as usize);
    let mut patience =
        Patience::new(Arc::clone(&connection.outbox), connection.shared.options.answer_patience);
    let asked = &AtomicBool::new(false);
    let service = service_fn(move |request| {
        asked.store(true, Ordering::Relaxed);
        answer(Arc::clone(&connection), request)
    });
    let mut http = pin!(builder.serve_connection(transport, service));
    let mut stopped = pin!(stopping.announced());
    let mut draining = false;
    poll_fn(move |cx| {
        if !draining && stopped.as_mut().poll(cx).is_ready() {
            draining = true;
            http.as_mut().graceful_shutdown();
        }
        let done = http.as_mut().poll(cx);
        if done.is_ready() {
            // One that has asked for something may be silent afterwards; one that has begun to ask, and does not come to an end, may not.
            let is_silent = |error: &hyper::Error| error.is_timeout() && asked.load(Ordering::Relaxed);
            return done.map_err(|error| if is_silent(&error) { Ended::Silent } else { Ended::Http(error) });
        }
        // hyper spawns nothing here, but calls have deadlines.
        calls.poll(cx);
        patience.poll(cx).map(|()| Err(Ended::Stalled))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_is_for_whom_the_listener_says() {
        let allowed = |who: Plaintext| (who.allows(true), who.allows(false));
        assert_eq!(allowed(Plaintext::Anyone), (true, true));
        assert_eq!(allowed(Plaintext::Loopback), (true, false));
        assert_eq!(allowed(Plaintext::Nobody), (false, false));
    }

    /// What only some do has memory of its own while they do it: a handshake, a request that is no call.
    #[test]
    fn a_connection_and_a_call_take_little() {
        fn of_connection<A, B, C, D, E, F>(_: impl Fn(A, B, C, D, E) -> F) -> usize {
            size_of::<F>()
        }
        fn of_call<A, B, F>(_: impl Fn(A, B) -> F) -> usize {
            size_of::<F>()
        }
        let sizes = (of_connection(Api::serve), of_call(answer));
        assert!(sizes.0 <= 4096 && sizes.1 <= 4096, "{sizes:?}");
    }

    /// A host on the LAN gets as far as the loopback addresses of a box that routes them.
    #[test]
    fn who_is_here_has_both_ends_of_its_connection_here() {
        for (local, peer, expected) in [
            ("127.0.0.1:2379", "127.0.0.1:40000", true),
            ("[::ffff:127.0.0.1]:2379", "[::ffff:127.0.0.9]:40000", true),
            ("[::1]:2379", "[::1]:40000", true),
            ("127.0.0.1:2379", "10.0.0.7:40000", false),
            ("[::ffff:127.0.0.1]:2379", "[::ffff:10.0.0.7]:40000", false),
            ("10.0.0.1:2379", "127.0.0.1:40000", false),
        ] {
            assert_eq!(
                is_from_here(local.parse().unwrap(), peer.parse().unwrap()),
                expected,
                "{peer} to {local}"
            );
        }
    }

    #[test]
    fn the_first_bytes_tell_the_protocol() {
        assert!(!is_telling(b"") && !is_telling(b"P") && !is_telling(b"PR"));
        for (head, protocol) in [
            (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], Protocol::Http2),
            (b"PRI", Protocol::Http2),
            (b"PUT / HTTP/1.1\r\n", Protocol::Http1),
            (b"PROPFIND / HTTP/1.1\r\n", Protocol::Http1),
            (b"GET", Protocol::Http1),
            (b"\0", Protocol::Http1),
        ] {
            assert!(is_telling(head));
            assert_eq!(protocol_of(head).unwrap(), protocol, "{head:?}");
        }
        assert!(is_telling(&[TLS_HANDSHAKE]));
        // A client that closes in the middle of the word cannot be helped, but must not be waited for.
        assert_eq!(protocol_of(b"").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
