//! What metrics learn of each call: that it began, how it ended, what it carried.
//!
//! Owns: the list of methods that are offered. Must never: delay or change a call. Driven by `dispatch` and the bodies of requests and
//! answers.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tonic::{Code, Status};

use super::counters::{Arriving, LiveCall};
use super::errors;
use super::frames::Frames;
use super::gateway::Requests;
use super::reflection;
use super::timer::now;
use crate::telemetry::metrics::{GrpcKind, GrpcMethod, GrpcMethodMetrics, Metrics, Special};
use crate::wire::covey::v1::admin_server;
use crate::wire::etcdserverpb::{
    auth_server, cluster_server, kv_server, lease_server, maintenance_server, watch_server,
};
use crate::wire::grpc::health::v1::health_server;
use crate::wire::v3electionpb::election_server;
use crate::wire::v3lockpb::lock_server;

const fn method(service: &'static str, method: &'static str, kind: GrpcKind) -> GrpcMethod {
    GrpcMethod { service, method, kind }
}

/// Every method of the services that are offered, for metrics that show each from the start.
const METHODS: [GrpcMethod; 65] = [
    method(kv_server::SERVICE_NAME, "Range", GrpcKind::Unary),
    method(kv_server::SERVICE_NAME, "RangeStream", GrpcKind::ServerStream),
    method(kv_server::SERVICE_NAME, "Put", GrpcKind::Unary),
    method(kv_server::SERVICE_NAME, "DeleteRange", GrpcKind::Unary),
    method(kv_server::SERVICE_NAME, "Txn", GrpcKind::Unary),
    method(kv_server::SERVICE_NAME, "Compact", GrpcKind::Unary),
    method(lease_server::SERVICE_NAME, "LeaseGrant", GrpcKind::Unary),
    method(lease_server::SERVICE_NAME, "LeaseRevoke", GrpcKind::Unary),
    method(lease_server::SERVICE_NAME, "LeaseKeepAlive", GrpcKind::BidiStream),
    method(lease_server::SERVICE_NAME, "LeaseTimeToLive", GrpcKind::Unary),
    method(lease_server::SERVICE_NAME, "LeaseLeases", GrpcKind::Unary),
    method(watch_server::SERVICE_NAME, "Watch", GrpcKind::BidiStream),
    method(cluster_server::SERVICE_NAME, "MemberAdd", GrpcKind::Unary),
    method(cluster_server::SERVICE_NAME, "MemberRemove", GrpcKind::Unary),
    method(cluster_server::SERVICE_NAME, "MemberUpdate", GrpcKind::Unary),
    method(cluster_server::SERVICE_NAME, "MemberList", GrpcKind::Unary),
    method(cluster_server::SERVICE_NAME, "MemberPromote", GrpcKind::Unary),
    method(maintenance_server::SERVICE_NAME, "Alarm", GrpcKind::Unary),
    method(maintenance_server::SERVICE_NAME, "Status", GrpcKind::Unary),
    method(maintenance_server::SERVICE_NAME, "Defragment", GrpcKind::Unary),
    method(maintenance_server::SERVICE_NAME, "Hash", GrpcKind::Unary),
    method(maintenance_server::SERVICE_NAME, "HashKV", GrpcKind::Unary),
    method(maintenance_server::SERVICE_NAME, "Snapshot", GrpcKind::ServerStream),
    method(maintenance_server::SERVICE_NAME, "MoveLeader", GrpcKind::Unary),
    method(maintenance_server::SERVICE_NAME, "Downgrade", GrpcKind::Unary),
    method(auth_server::SERVICE_NAME, "AuthEnable", GrpcKind::Unary),
    method(auth_server::SERVICE_NAME, "AuthDisable", GrpcKind::Unary),
    method(auth_server::SERVICE_NAME, "AuthStatus", GrpcKind::Unary),
    method(auth_server::SERVICE_NAME, "Authenticate", GrpcKind::Unary),
    method(auth_server::SERVICE_NAME, "UserAdd", GrpcKind::Unary),
    method(auth_server::SERVICE_NAME, "UserGet", GrpcKind::Unary),
    method(auth_server::SERVICE_NAME, "UserList", GrpcKind::Unary),
    method(auth_server::SERVICE_NAME, "UserDelete", GrpcKind::Unary),
    method(auth_server::SERVICE_NAME, "UserChangePassword", GrpcKind::Unary),
    method(auth_server::SERVICE_NAME, "UserGrantRole", GrpcKind::Unary),
    method(auth_server::SERVICE_NAME, "UserRevokeRole", GrpcKind::Unary),
    method(auth_server::SERVICE_NAME, "RoleAdd", GrpcKind::Unary),
    method(auth_server::SERVICE_NAME, "RoleGet", GrpcKind::Unary),
    method(auth_server::SERVICE_NAME, "RoleList", GrpcKind::Unary),
    method(auth_server::SERVICE_NAME, "RoleDelete", GrpcKind::Unary),
    method(auth_server::SERVICE_NAME, "RoleGrantPermission", GrpcKind::Unary),
    method(auth_server::SERVICE_NAME, "RoleRevokePermission", GrpcKind::Unary),
    method(lock_server::SERVICE_NAME, "Lock", GrpcKind::Unary),
    method(lock_server::SERVICE_NAME, "Unlock", GrpcKind::Unary),
    method(election_server::SERVICE_NAME, "Campaign", GrpcKind::Unary),
    method(election_server::SERVICE_NAME, "Proclaim", GrpcKind::Unary),
    method(election_server::SERVICE_NAME, "Leader", GrpcKind::Unary),
    method(election_server::SERVICE_NAME, "Observe", GrpcKind::ServerStream),
    method(election_server::SERVICE_NAME, "Resign", GrpcKind::Unary),
    method(health_server::SERVICE_NAME, "Check", GrpcKind::Unary),
    method(health_server::SERVICE_NAME, "Watch", GrpcKind::ServerStream),
    method(admin_server::SERVICE_NAME, "Status", GrpcKind::Unary),
    method(admin_server::SERVICE_NAME, "TokenCreate", GrpcKind::Unary),
    method(admin_server::SERVICE_NAME, "TokenList", GrpcKind::Unary),
    method(admin_server::SERVICE_NAME, "TokenRevoke", GrpcKind::Unary),
    method(admin_server::SERVICE_NAME, "NodePending", GrpcKind::Unary),
    method(admin_server::SERVICE_NAME, "NodeApprove", GrpcKind::Unary),
    method(admin_server::SERVICE_NAME, "LogLevel", GrpcKind::Unary),
    method(admin_server::SERVICE_NAME, "WindowOpen", GrpcKind::Unary),
    method(admin_server::SERVICE_NAME, "WindowClose", GrpcKind::Unary),
    method(admin_server::SERVICE_NAME, "GiveUp", GrpcKind::Unary),
    method(admin_server::SERVICE_NAME, "ClientIssue", GrpcKind::Unary),
    method(admin_server::SERVICE_NAME, "ClientList", GrpcKind::Unary),
    method(admin_server::SERVICE_NAME, "ClientRevoke", GrpcKind::Unary),
    method(admin_server::SERVICE_NAME, "ClientRenew", GrpcKind::Unary),
];

/// What is offered beside them to whoever wants it (`--enable-grpc-reflection`).
const REFLECTION: [GrpcMethod; 2] = [
    method(reflection::V1, reflection::METHOD, GrpcKind::BidiStream),
    method(reflection::V1ALPHA, reflection::METHOD, GrpcKind::BidiStream),
];

/// The methods to make [`Metrics`] with: what is not among those is not offered.
pub fn methods(reflection: bool) -> impl Iterator<Item = GrpcMethod> {
    METHODS.into_iter().chain(REFLECTION.into_iter().filter(move |_| reflection))
}

/// What a call is told whose method is not offered.
pub fn unknown(metrics: &Metrics, service: &str, name: &str) -> Status {
    if metrics.grpc.iter().any(|method| method.name.service == service) {
        errors::unknown_method(service, name)
    } else {
        errors::unknown_service(service)
    }
}

/// One call, from its first byte to the end of its answer. Dropped before that, it counts as cancelled.
pub struct CallRecord {
    metrics: Arc<Metrics>,
    /// Its place among the methods; `None` for a method that nobody offers.
    place: Option<usize>,
    code: Code,
    sent: Frames,
    /// When it began, where anybody wants to know: few methods are worth two looks at the clock.
    began: Option<Instant>,
    _live: LiveCall,
}

impl CallRecord {
    /// A call of `path` (`/package.Service/Method`) begins.
    pub fn begin(metrics: &Arc<Metrics>, path: &str, live: LiveCall) -> Self {
        let place =
            path.strip_prefix('/').and_then(|path| path.rsplit_once('/')).and_then(|(service, name)| {
                metrics.grpc.iter().position(|each| each.name.method == name && each.name.service == service)
            });
        let method = place.map(|place| &metrics.grpc[place]);
        if let Some(method) = method {
            method.started.add(1);
        }
        Self {
            metrics: Arc::clone(metrics),
            began: method.is_some_and(GrpcMethodMetrics::is_timed).then(now),
            place,
            code: Code::Cancelled,
            sent: Frames::default(),
            _live: live,
        }
    }

    /// Whether the method is one that is offered.
    pub fn is_known(&self) -> bool {
        self.place.is_some()
    }

    /// Whether either side sends more than one message.
    pub fn is_stream(&self) -> bool {
        self.place.is_some_and(|place| self.metrics.grpc[place].name.kind != GrpcKind::Unary)
    }

    /// The body of the call's request; `arriving` counts what all bodies have brought.
    pub fn request_body(&self, body: Source, arriving: &Arc<AtomicUsize>) -> RequestBody {
        let (metrics, place) = (Arc::clone(&self.metrics), self.place);
        let (frames, arriving) = (Frames::default(), Arriving::new(arriving));
        RequestBody { body, frames, arriving, metrics, place }
    }

    /// Looks into headers or trailers of the answer for the status.
    pub fn note_status(&mut self, headers: &HeaderMap) {
        if let Some(status) = Status::from_header_map(headers) {
            self.code = status.code();
            let special = self.place.and_then(|place| self.metrics.grpc[place].special);
            if special == Some(Special::Promotion) && self.code != Code::Ok {
                self.metrics.requests.promotions_failed.count(status.message());
            }
        }
    }

    /// Whether what has left are whole messages.
    pub fn is_between_messages(&self) -> bool {
        self.sent.partial() == 0
    }

    /// A piece of the answer leaves.
    pub fn note_sent(&mut self, data: &[u8]) {
        self.metrics.client_grpc_sent_bytes.add(data.len() as u64);
        let messages = self.sent.feed(data);
        if let Some(place) = self.place {
            self.metrics.grpc[place].sent.add(messages);
        }
    }
}

impl Drop for CallRecord {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            let method = &self.metrics.grpc[place];
            method.handled(self.code as i32);
            let is_ok = self.code == Code::Ok;
            if let Some(began) = self.began {
                let took = now() - began;
                if let Some(handling) = &method.handling {
                    handling.observe(took);
                }
                if let Some(special) = method.special {
                    self.metrics.requests.note(special, is_ok, took);
                }
            }
            match method.special {
                Some(Special::Promotion) if is_ok => self.metrics.requests.promotions.add(1),
                Some(Special::Range | Special::RangeStream) if is_ok => self.metrics.ranges.add(1),
                _ => {}
            }
        }
    }
}

/// Where the messages of a request come from. One type for all, so that the services' code is in the binary once.
pub enum Source {
    /// gRPC.
    Grpc(Incoming),
    /// JSON.
    Json(Requests),
}

/// A request's body, counted while it arrives and against a bound that all share.
pub struct RequestBody {
    body: Source,
    frames: Frames,
    /// What has come of a message that is not complete: what slow or hostile senders can make us hold.
    arriving: Arriving,
    metrics: Arc<Metrics>,
    place: Option<usize>,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let next = match &mut this.body {
            Source::Grpc(body) => {
                Pin::new(body).poll_frame(context).map_err(|error| Status::from_error(Box::new(error)))
            }
            Source::Json(requests) => Pin::new(requests).poll_frame(context),
        };
        if let Poll::Ready(Some(Ok(frame))) = &next
            && let Some(data) = frame.data_ref()
        {
            this.metrics.client_grpc_received_bytes.add(data.len() as u64);
            let complete = this.frames.feed(data);
            if let Some(place) = this.place {
                this.metrics.grpc[place].received.add(complete);
            }
            if let Err(status) = this.arriving.set(this.frames.partial()) {
                return Poll::Ready(Some(Err(status)));
            }
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Source::Grpc(body) => body.is_end_stream(),
            Source::Json(requests) => requests.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Source::Grpc(body) => body.size_hint(),
            Source::Json(requests) => requests.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_looked_at_for_few_methods_or_for_all() {
        let timed = |metrics: &Metrics| {
            let timed = metrics.grpc.iter().filter(|method| method.is_timed());
            timed.map(|method| method.name.method).collect::<Vec<_>>()
        };
        assert_eq!(timed(&Metrics::new(methods(false))), ["Range", "Hash", "HashKV", "Snapshot"]);
        assert_eq!(timed(&Metrics::new(methods(false)).extensive()).len(), METHODS.len());
    }
}
