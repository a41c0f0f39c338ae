//! The ports of a node that is in no cluster yet: it says how the node stands, to whoever is on this machine, and to probes whether it lives, and nothing else.
//!
//! Owns: what is answered instead of everything else. Must never: serve another machine anything but probes at a port that is for these, or outlive the task that runs it. Driven by
//! `app` while it looks for others.

use std::convert::Infallible;
use std::future::{Ready, poll_fn, ready};
use std::net::{TcpListener, TcpStream};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use smol::{Async, Timer};
use tonic::Status;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;
use tower_service::Service;

use super::admin::hex;
use super::body::Body;
use super::browser::BrowserPolicy;
use super::calls::Calls;
use super::dispatch::{Whence, is_grpc};
use super::http::{only, refuse};
use super::io::{GREETING_MAX, Transport};
use super::page::{self, Part};
use super::pings::Pings;
use super::probes::Probe;
use super::server::{ACCEPT_PAUSE, Greeted, Listener, Plaintext, Protocol, Serves, Task, greet};
use super::timer::{SmolTimer, within};
use crate::formation::Fingerprint;
use crate::ids::ClusterId;
use crate::wire::covey::v1 as pb;

/// Connections at a time: an operator's, and probes. One more is closed at once.
const CONNECTIONS_MAX: usize = 32;
/// After how long an HTTP/2 connection is told to end: hyper would let it be silent for ever. Over HTTP/1.1 silence ends one.
const AGE_MAX: Duration = Duration::from_secs(5);
/// The one call that is answered.
const STATUS: &str = "/covey.v1.Admin/Status";

/// What a node says of itself while it waits.
#[derive(Clone, Debug, Default)]
pub struct WaitingNode {
    /// What it is called.
    pub name: String,
    /// Who it is.
    pub fingerprint: Option<Fingerprint>,
    /// For how long it has waited.
    pub up: Duration,
    /// For what.
    pub waits_for: String,
    /// Who else is there.
    pub around: Vec<AroundNode>,
}

/// Somebody who is there, or may be.
#[derive(Clone, Debug, Default)]
pub struct AroundNode {
    /// Who, where that is known.
    pub fingerprint: Option<Fingerprint>,
    /// What it calls itself.
    pub name: String,
    /// Where it may be.
    pub addresses: Vec<String>,
    /// The cluster that it is in.
    pub cluster: Option<ClusterId>,
    /// How it stands, in words.
    pub stands: String,
}

/// See the module. Cheap to clone; all clones say the same.
#[derive(Clone, Default)]
pub struct Waiting(Arc<Mutex<WaitingNode>>);

impl Waiting {
    /// Says this from now on.
    pub fn tell(&self, node: WaitingNode) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = node;
    }

    fn told(&self) -> WaitingNode {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes connections from `socket`, which `serves` this once there is a cluster, and hands each to `spawn`, until it is dropped. `plaintext` says who may come to
    /// probes; to all else whoever is on this machine.
    pub async fn serve(
        &self,
        socket: &Async<TcpListener>,
        serves: Serves,
        plaintext: Plaintext,
        spawn: impl Fn(Task),
    ) {
        let open = Arc::new(());
        loop {
            match socket.accept().await {
                // This one counts, too.
                Ok(_) if Arc::strong_count(&open) > CONNECTIONS_MAX => {}
                Ok((client, _)) => {
                    let (waiting, open) = (self.clone(), Arc::clone(&open));
                    spawn(Box::pin(async move {
                        waiting.talk(client, serves, plaintext).await;
                        drop(open);
                    }));
                }
                Err(_) => {
                    Timer::after(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn talk(&self, client: Async<TcpStream>, serves: Serves, plaintext: Plaintext) {
        let listener = Listener {
            serves,
            plaintext: if serves == Serves::Probes { plaintext } else { Plaintext::Loopback },
            tls: None,
            admit: None,
            names_users: false,
        };
        let Ok(Greeted { stream, protocol, whence, .. }) =
            within(GREETING_MAX, greet(client, &listener)).await
        else {
            return;
        };
        // As many as it likes.
        let pings = (protocol == Protocol::Http2).then(|| Pings::new(Duration::ZERO));
        let transport = Transport::new(stream, pings);
        let service = service_fn(|request| self.answer(request, serves, whence));
        // Whatever goes wrong is between hyper and the client.
        match protocol {
            Protocol::Http1 => {
                let mut builder = http1::Builder::new();
                builder.timer(SmolTimer).header_read_timeout(GREETING_MAX);
                drop(builder.serve_connection(transport, service).await);
            }
            Protocol::Http2 => {
                let mut calls = Calls::default();
                let mut builder = http2::Builder::new(calls.spawner());
                builder.timer(SmolTimer);
                let waiting = self.clone();
                let service = service_fn(move |request| {
                    let waiting = waiting.clone();
                    async move { waiting.answer(request, serves, whence).await }
                });
                let mut http = pin!(builder.serve_connection(transport, service));
                let mut age = Timer::after(AGE_MAX);
                let mut draining = false;
                let both = poll_fn(|cx| {
                    if !draining && Pin::new(&mut age).poll(cx).is_ready() {
                        draining = true;
                        http.as_mut().graceful_shutdown();
                    }
                    let done = http.as_mut().poll(cx);
                    if done.is_pending() {
                        calls.poll(cx);
                    }
                    done
                });
                // h2 waits for a sign of life before it is done with a client that was told to end.
                let overdue = async {
                    Timer::after(AGE_MAX + GREETING_MAX).await;
                    Ok(())
                };
                drop(smol::future::or(both, overdue).await);
            }
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        serves: Serves,
        whence: Whence,
    ) -> Result<Response<tonic::body::Body>, Infallible> {
        if serves == Serves::Probes || !is_grpc(&request) {
            return Ok(self.answer_plain(&request, serves, whence).map(tonic::body::Body::new));
        }
        let node = self.told();
        if request.uri().path() != STATUS {
            let sentence = format!("covey: this node is in no cluster yet: {}", node.waits_for);
            return Ok(Status::unavailable(sentence).into_http());
        }
        let mut grpc = Grpc::new(ProstCodec::default());
        Ok(grpc.unary(Says(node), request).await)
    }

    /// Whatever is not gRPC. What is not there before there is a cluster is unavailable as long.
    fn answer_plain(&self, request: &Request<Incoming>, serves: Serves, whence: Whence) -> Response<Body> {
        // As later: a web page may have come by a name of its own.
        if whence == Whence::Here
            && let Err(refusal) = BrowserPolicy::default().judge_host(request.uri(), request.headers())
        {
            return refuse(refusal);
        }
        let (node, path) = (self.told(), request.uri().path());
        match (Probe::at(path), Part::at(path)) {
            (Some(_), _) if *request.method() != Method::GET => only("GET"),
            (Some(probe), _) => probe.answer_waiting(&node.waits_for, request.uri().query()),
            (None, Some(part)) if serves == Serves::Clients => {
                page::answer_waiting(part, request, &node.into())
            }
            (None, _) => Probe::Health.answer_waiting(&node.waits_for, None),
        }
    }
}

/// The one method.
struct Says(WaitingNode);

impl Service<tonic::Request<pb::StatusRequest>> for Says {
    type Response = tonic::Response<pb::StatusResponse>;
    type Error = Status;
    type Future = Ready<Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: tonic::Request<pb::StatusRequest>) -> Self::Future {
        ready(Ok(tonic::Response::new(self.0.clone().into())))
    }
}

impl From<WaitingNode> for pb::StatusResponse {
    fn from(node: WaitingNode) -> Self {
        let digits = |fingerprint: Option<Fingerprint>| {
            fingerprint.map(|fingerprint| hex(fingerprint.bytes())).unwrap_or_default()
        };
        let WaitingNode { name, fingerprint, up, waits_for, around } = node;
        let sighting = |node: AroundNode| pb::Sighting {
            fingerprint: digits(node.fingerprint),
            name: node.name,
            addresses: node.addresses,
            cluster: node.cluster.map_or(0, |cluster| cluster.0),
            why: node.stands,
        };
        Self {
            name,
            fingerprint: digits(fingerprint),
            up_seconds: up.as_secs(),
            cluster: None,
            waits_for,
            seen: around.into_iter().map(sighting).collect(),
            other_hardware: String::new(),
            disk_short: false,
            disk_written: None,
            backups: None,
        }
    }
}
