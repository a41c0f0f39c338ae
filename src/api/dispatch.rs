//! From a request to the service that answers it.
//!
//! Owns: what holds for every gRPC call: its path, its metadata, its deadline, the size of its messages. Must never: know what a call is
//! about. Driven by hyper, once per request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE, HeaderMap};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use tonic::Status;
use tower_service::Service as _;

use super::admin::AdminService;
use super::answers::Outbox;
use super::auth::AuthService;
use super::body::{Body, CountedElsewhere, Leaderless};
use super::calls::{Deadline, Spawner};
use super::cluster::ClusterService;
use super::counters::CallsOfOne;
use super::credentials::{Asker, Credentials};
use super::election::ElectionService;
use super::health::HealthService;
use super::kv::KvService;
use super::lease::LeaseService;
use super::lock::LockService;
use super::maintenance::MaintenanceService;
use super::record::{CallRecord, RequestBody, Source};
use super::reflection::{self, ReflectionService};
use super::server::{Serves, Shared};
use super::timer::now;
use super::turned_away::Reason;
use super::watch::WatchService;
use super::{errors, gate, http as plain, page, record};
use crate::runtime::ServeError;
use crate::wire::covey::v1::admin_server::{self, AdminServer};
use crate::wire::etcdserverpb::auth_server::{self, AuthServer};
use crate::wire::etcdserverpb::cluster_server::{self, ClusterServer};
use crate::wire::etcdserverpb::kv_server::{self, KvServer};
use crate::wire::etcdserverpb::lease_server::{self, LeaseServer};
use crate::wire::etcdserverpb::maintenance_server::{self, MaintenanceServer};
use crate::wire::etcdserverpb::watch_server;
use crate::wire::grpc::health::v1::health_server::{self, HealthServer};
use crate::wire::v3electionpb::election_server::{self, ElectionServer};
use crate::wire::v3lockpb::lock_server::{self, LockServer};

/// However many calls there are, a connection may have so many.
const CALLS_LEFT_TO_EACH: usize = 16;
/// The longest time limit that is kept; beyond it a call may take as long as it likes.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What a learner serves too (API reference, section 4); of ranges only the serializable ones, which `kv` sees to.
const FOR_LEARNERS: [(&str, &str); 7] = [
    (kv_server::SERVICE_NAME, "Range"),
    (maintenance_server::SERVICE_NAME, "Status"),
    (maintenance_server::SERVICE_NAME, "Snapshot"),
    // Of what is wrong with it, too.
    (admin_server::SERVICE_NAME, "Status"),
    (admin_server::SERVICE_NAME, "LogLevel"),
    (reflection::V1, reflection::METHOD),
    (reflection::V1ALPHA, reflection::METHOD),
];

/// What is answered without a state, too.
const FOR_EVERYBODY: [(&str, &str); 5] = [
    (maintenance_server::SERVICE_NAME, "Status"),
    (admin_server::SERVICE_NAME, "Status"),
    (admin_server::SERVICE_NAME, "LogLevel"),
    (reflection::V1, reflection::METHOD),
    (reflection::V1ALPHA, reflection::METHOD),
];

/// The gRPC services that are offered. A call of any other is answered as unknown.
pub struct Services {
    /// `etcdserverpb.KV`.
    pub kv: KvServer<KvService>,
    /// `etcdserverpb.Lease`.
    pub lease: LeaseServer<LeaseService>,
    /// `etcdserverpb.Watch`.
    pub watch: WatchService,
    /// `etcdserverpb.Cluster`.
    pub cluster: ClusterServer<ClusterService>,
    /// `etcdserverpb.Maintenance`.
    pub maintenance: MaintenanceServer<MaintenanceService>,
    /// `etcdserverpb.Auth`.
    pub auth: AuthServer<AuthService>,
    /// `v3lockpb.Lock`.
    pub lock: LockServer<LockService>,
    /// `v3electionpb.Election`.
    pub election: ElectionServer<ElectionService>,
    /// `grpc.health.v1.Health`.
    pub health: HealthServer<HealthService>,
    /// `covey.v1.Admin`.
    pub admin: AdminServer<AdminService>,
    /// `grpc.reflection.v1.ServerReflection`, where it is among the methods that are counted.
    pub reflection: ReflectionService,
}

/// Where a connection comes from, as far as that gives rights. Each call carries it among its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whence {
    /// In plain text from this machine to itself: from whoever operates it; or from a web page in a browser here, by way of a name that the page
    /// controls.
    Here,
    /// From another machine, or with a certificate.
    Elsewhere,
}

/// What a client has shown in its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// There was none: it speaks in plain text.
    Plain,
    /// No certificate.
    Nothing,
    /// A certificate that the listener takes.
    Certificate,
}

/// One connection, as its requests see it.
pub struct Connection {
    /// The server.
    pub shared: Arc<Shared>,
    /// Where deadlines of this connection's calls are kept.
    pub calls: Spawner,
    /// How many of them there are.
    pub counted: CallsOfOne,
    /// Where it comes from.
    pub whence: Whence,
    /// What its client has shown.
    pub shown: Shown,
    /// What is served on it.
    pub serves: Serves,
    /// The user that its certificate names.
    pub common_name: Option<Arc<str>>,
    /// Who it is that logs in over it.
    pub asker: Asker,
    /// Its address.
    pub peer: SocketAddr,
    /// What was answered and is not taken.
    pub outbox: Arc<Outbox>,
}

/// Answers one request.
pub async fn answer(
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let response = judge(&connection, request).await;
    Ok(response.map(|body| body.through(&connection.outbox)))
}

async fn judge(connection: &Connection, request: Request<Incoming>) -> Response<Body> {
    // Web pages have no business here, whatever they ask for: see `browser`. Only this server's own has.
    let origin = match connection.shared.options.browser.judge_origin(request.headers()) {
        Ok(None) => None,
        _ if page::is_from_itself(connection, &request) => None,
        Ok(origin) => origin,
        Err(refusal) => return plain::refuse(refusal),
    };
    if connection.serves == Serves::Probes || !is_grpc(&request) {
        // Apart, for it takes more than a call, which has as much memory as the largest of what it may await.
        return Box::pin(plain::answer(connection, request, origin)).await;
    }
    if request.method() != Method::POST {
        let mut response = Response::new(Body::whole(""));
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, http::HeaderValue::from_static("POST"));
        return response;
    }
    call(connection, request.map(Source::Grpc)).await
}

/// gRPC is HTTP/2 with its content type; its web variant is something else.
pub fn is_grpc(request: &Request<Incoming>) -> bool {
    let content_type = request.headers().get(CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    let subtype = content_type.and_then(|value| value.strip_prefix(b"application/grpc"));
    request.version() == Version::HTTP_2 && matches!(subtype, Some([] | [b'+' | b';', ..]))
}

/// Answers a call, whatever its messages come from: gRPC's bytes are what it is answered by.
pub async fn call(connection: &Connection, request: Request<Source>) -> Response<Body> {
    let shared = &connection.shared;
    let record =
        CallRecord::begin(&shared.metrics, request.uri().path(), shared.counters.call(&connection.counted));
    let mut limits = match admit(connection, request.headers(), record.is_stream()) {
        Ok(limits) => limits,
        Err(status) => return finish(status.into_http(), CallLimits::default(), record),
    };
    // Whatever its headers say, JSON is nobody's by a certificate.
    let common_name = connection.common_name.as_ref().filter(|_| matches!(request.body(), Source::Grpc(_)));
    let mut request = request.map(|body| record.request_body(body, shared.counters.arriving_bytes()));
    request.extensions_mut().insert(connection.whence);
    let credentials = Credentials::of(request.headers(), common_name);
    request.extensions_mut().insert(credentials.clone());
    let work = pin!(route(connection, &credentials, record.is_known(), request));
    let response = match &mut limits.deadline {
        None => work.await,
        Some(deadline) => {
            let late = async {
                deadline.await;
                errors::deadline_exceeded().into_http()
            };
            smol::future::or(work, late).await
        }
    };
    finish(response, limits, record)
}

/// What may end a call from outside.
#[derive(Default)]
struct CallLimits {
    deadline: Option<Deadline>,
    /// For streams that need a leader.
    leaderless: Option<Leaderless>,
}

/// An answer that is only an error has its status in front; every other brings it at its end.
fn finish(
    response: Response<tonic::body::Body>,
    limits: CallLimits,
    mut record: CallRecord,
) -> Response<Body> {
    record.note_status(response.headers());
    let elsewhere = response.extensions().get::<CountedElsewhere>().is_some();
    response.map(|messages| {
        let body = Body::of_call(messages, limits.deadline, limits.leaderless, record);
        if elsewhere { body.counted_elsewhere() } else { body }
    })
}

/// Checks the metadata that every call may carry (API reference, section 8), and starts its clock.
fn admit(connection: &Connection, headers: &HeaderMap, stream: bool) -> Result<CallLimits, Status> {
    let timeout = headers
        .get("grpc-timeout")
        .map(|value| parse_timeout(value.as_bytes()).ok_or_else(errors::malformed_timeout));
    let version = headers.get("client-api-version").map(|version| std::str::from_utf8(version.as_bytes()));
    let version = version.transpose().map_err(|_| errors::invalid_client_version())?;
    let requests = &connection.shared.metrics.requests;
    let versions = if stream { &requests.stream_versions } else { &requests.unary_versions };
    versions.count(version);
    let wants_leader = headers.get("hasleader").is_some_and(|value| value == "true");
    let handle = connection.shared.node.handle();
    let leaderless = (wants_leader && stream).then(|| Box::pin(handle.leader_lost()) as Leaderless);
    if wants_leader && handle.status().leader.is_none() {
        return Err(errors::no_leader());
    }
    if !has_room(connection) {
        let open = connection.shared.counters.calls();
        connection.shared.turned_away.tell(
            Reason::Calls,
            connection.peer,
            &format_args!("{open} are under way"),
        );
        return Err(ServeError::TooManyRequests.into());
    }
    let limit = timeout.transpose()?.filter(|limit| *limit <= TIMEOUT_MAX);
    let deadline = limit.map(|limit| connection.calls.deadline(now() + limit));
    Ok(CallLimits { deadline, leaderless })
}

/// Whether there is room for a call that is counted already. Whoever fills the room for all leaves a few calls to each of the others.
pub fn has_room(connection: &Connection) -> bool {
    let shared = &connection.shared;
    let too_many =
        shared.counters.calls() > shared.options.calls_max && connection.counted.count() > CALLS_LEFT_TO_EACH;
    !too_many && !shared.node.answers().is_exhausted()
}

/// A number of at most eight digits and its unit (gRPC over HTTP/2, "Timeout").
pub fn parse_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

async fn route(
    connection: &Connection,
    credentials: &Credentials,
    is_known: bool,
    mut request: Request<RequestBody>,
) -> Response<tonic::body::Body> {
    let Shared { node, services, metrics, .. } = &*connection.shared;
    // Shares the request's bytes; the request itself moves on.
    let uri = request.uri().clone();
    let Some((service, method)) = uri.path().strip_prefix('/').and_then(|path| path.rsplit_once('/')) else {
        return errors::malformed_method(uri.path()).into_http();
    };
    // Also, so that nothing is served that the gate's table does not know.
    if !is_known {
        return record::unknown(metrics, service, method).into_http();
    }
    if !FOR_EVERYBODY.contains(&(service, method))
        && let Err(status) = node.require_state()
    {
        return status.into_http();
    }
    if !FOR_LEARNERS.contains(&(service, method))
        && let Err(status) = node.require_voter()
    {
        return status.into_http();
    }
    if let Err(status) = gate::admit(node, service, method, credentials, connection.whence).await {
        return status.into_http();
    }
    let Ok(response) = match service {
        kv_server::SERVICE_NAME => services.kv.clone().call(request).await,
        lease_server::SERVICE_NAME => services.lease.clone().call(request).await,
        watch_server::SERVICE_NAME if method == "Watch" => return services.watch.clone().call(request),
        watch_server::SERVICE_NAME => return errors::unknown_method(service, method).into_http(),
        cluster_server::SERVICE_NAME => services.cluster.clone().call(request).await,
        maintenance_server::SERVICE_NAME => services.maintenance.clone().call(request).await,
        auth_server::SERVICE_NAME => {
            request.extensions_mut().insert(connection.asker);
            services.auth.clone().call(request).await
        }
        lock_server::SERVICE_NAME => services.lock.clone().call(request).await,
        election_server::SERVICE_NAME => services.election.clone().call(request).await,
        health_server::SERVICE_NAME => services.health.clone().call(request).await,
        admin_server::SERVICE_NAME => services.admin.clone().call(request).await,
        reflection::V1 | reflection::V1ALPHA => {
            return Box::pin(services.reflection.clone().answer(request)).await;
        }
        _ => return errors::unknown_service(service).into_http(),
    };
    // Only an answer that is an error already has its status in front.
    if response.headers().contains_key(Status::GRPC_STATUS)
        && let Some(status) = Status::from_header_map(response.headers())
    {
        let translated = errors::translate(&status, service, method);
        let said = translated.as_ref().unwrap_or(&status);
        if let Some(reason) = errors::turns_away(said) {
            connection.shared.turned_away.tell(reason, connection.peer, &said.message());
        }
        if let Some(translated) = translated {
            return translated.into_http();
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_by_their_unit() {
        let cases: [(&[u8], Option<Duration>); 12] = [
            (b"1H", Some(Duration::from_secs(3600))),
            (b"2M", Some(Duration::from_secs(120))),
            (b"3S", Some(Duration::from_secs(3))),
            (b"4m", Some(Duration::from_millis(4))),
            (b"5u", Some(Duration::from_micros(5))),
            (b"99999999n", Some(Duration::from_nanos(99_999_999))),
            (b"100000000n", None),
            (b"S", None),
            (b"", None),
            (b"1", None),
            (b"-1S", None),
            (b"1s", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_timeout(text), expected, "{}", String::from_utf8_lossy(text));
        }
    }
}
