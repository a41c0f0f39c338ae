//! The Watch service (API reference, section 2).
//!
//! Owns: one future per stream, which carries requests to the node's hub and responses back. Must never: keep responses itself: the hub's
//! bounds would be worth nothing. Driven by `dispatch`, then by gRPC, which asks for a message once it can send one.
//!
//! tonic's generated server would encode each response anew for each watcher, and copy it for each stream. Here the events of a batch are
//! encoded once, by whoever is first to send it (see `watch_codec`), and all streams send the same bytes, hence a body of our own.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http_body::{Body, Frame};
use smol::stream::Stream;
use tonic::Status;
use tonic::codec::Streaming;

use super::body::CountedElsewhere;
use super::credentials::Credentials;
use super::errors;
use super::node::Node;
use super::parse;
use super::stop::Stopping;
use super::watch_codec::{Codec, Outgoing};
use super::watch_permits::{Permit, Verdict, WatchPermits};
use crate::command::KeyRange;
use crate::limits::GRPC_OVERHEAD_BYTES;
use crate::runtime::Watching;
use crate::watch;
use crate::wire::etcdserverpb as pb;

/// Requests that ask for nothing, after which others on the thread have their turn.
const IDLE_REQUESTS_MAX: usize = 64;

/// Serves `etcdserverpb.Watch`. Cheap to clone.
#[derive(Clone)]
pub struct WatchService {
    node: Node,
    stopping: Stopping,
    message_bytes_max: usize,
}

impl WatchService {
    /// Serves until the end is announced. Requests may be a little larger than `request_bytes_max`, and responses that may be cut into
    /// pieces are when they are.
    pub fn new(node: Node, stopping: Stopping, request_bytes_max: usize) -> Self {
        Self { node, stopping, message_bytes_max: request_bytes_max + GRPC_OVERHEAD_BYTES }
    }

    /// Answers a call of `Watch`.
    pub fn call<B>(self, request: http::Request<B>) -> http::Response<tonic::body::Body>
    where
        B: Body + Send + 'static,
        B::Error: Into<tonic::codegen::StdError> + Send,
    {
        if let Some(encoding) = request.headers().get("grpc-encoding").filter(|value| *value != "identity") {
            return errors::compressed(encoding).into_http();
        }
        let stopping = self.stopping;
        let credentials = request.extensions().get().cloned().unwrap_or_default();
        let requests = Streaming::new_request(Codec, request.into_body(), None, Some(self.message_bytes_max));
        let stream = WatchStream {
            requests: Some(requests),
            watching: self.node.handle().watch(),
            node: self.node,
            stopped: Box::pin(async move { stopping.announced().await }),
            message_bytes_max: self.message_bytes_max,
            pieces: VecDeque::new(),
            credentials,
            checking: None,
            permits: WatchPermits::default(),
        };
        let body = tonic::body::Body::new(WatchBody { stream: Some(stream), rest: VecDeque::new() });
        let mut response = http::Response::new(body);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        response.extensions_mut().insert(CountedElsewhere);
        response
    }
}

/// The responses of one stream as bytes.
struct WatchBody {
    /// `None` once it has ended.
    stream: Option<WatchStream>,
    /// The events of a response whose head has gone.
    rest: VecDeque<Bytes>,
}

impl Body for WatchBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if let Some(events) = this.rest.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(events))));
        }
        let Some(stream) = &mut this.stream else { return Poll::Ready(None) };
        let status = match ready!(Pin::new(stream).poll_next(cx)) {
            Some(Ok(response)) => {
                let (head, rest) = response.into_parts();
                this.rest = rest;
                return Poll::Ready(Some(Ok(Frame::data(head))));
            }
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        this.stream = None;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_none()
    }
}

/// The responses of one stream.
struct WatchStream {
    /// `None` once the client has closed its side, which ends nothing.
    requests: Option<Streaming<pb::WatchRequest>>,
    watching: Watching,
    node: Node,
    stopped: Pin<Box<dyn Future<Output = ()> + Send>>,
    message_bytes_max: usize,
    /// What is left of a response that was cut into pieces.
    pieces: VecDeque<Outgoing>,
    /// By which every watcher is created.
    credentials: Credentials,
    /// Whether one may be is being looked at once more; those behind it wait.
    checking: Option<Checking>,
    /// Whose its watchers are.
    permits: WatchPermits,
}

/// What is asked of the hub, once it is known whether the keys may be watched.
type Checking = Pin<Box<dyn Future<Output = (watch::Request, Option<Permit>)> + Send>>;

/// A request that must not be made of the hub before its client may read the keys: the same one, or what it is told instead.
async fn permitted(
    node: Node,
    credentials: Credentials,
    create: watch::CreateRequest,
) -> (watch::Request, Option<Permit>) {
    // The request's own bytes would keep all that came with them.
    let own = Bytes::copy_from_slice;
    let range = KeyRange::from_wire(own(&create.range.start), own(&create.range.wire_end()));
    if node.handle().status().leader.is_some() {
        // If that fails, it is what this member knows that counts.
        drop(node.learn_whether_open().await);
    }
    let view = node.handle().view();
    let looked = node.permitted(&credentials, view, |permits| permits.access.may_read(&range)).await;
    match looked {
        Ok((view, caller)) => {
            let permit = caller.map(|caller| Permit::new(&credentials, caller, range, &view));
            (watch::Request::Create(create), permit)
        }
        Err(status) => (watch::Request::Refused(errors::watch_refusal(&status)), None),
    }
}

impl WatchStream {
    /// Whether it has to be found out whether a watcher may be created. Whoever has a token was given it while authentication is on, which this member may not know yet. What starts before all
    /// revisions is refused for that, as in etcd.
    fn must_ask(&self, create: &watch::CreateRequest) -> bool {
        create.start >= 0
            && (self.credentials.token().is_some() || self.node.handle().view().facts().auth.enabled)
    }

    /// Hands in what the client asks for, as far as there is room for answers.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> Result<(), Status> {
        let mut idle = 0;
        while self.watching.takes_requests() {
            if idle == IDLE_REQUESTS_MAX {
                cx.waker().wake_by_ref();
                break;
            }
            if let Some(checking) = &mut self.checking {
                let Poll::Ready((request, permit)) = checking.as_mut().poll(cx) else { break };
                self.checking = None;
                self.permits.ask(permit);
                self.watching.request(request);
                continue;
            }
            let Some(requests) = &mut self.requests else { break };
            match Pin::new(requests).poll_next(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => self.requests = None,
                Poll::Ready(Some(request)) => match parse::watch_request(request?) {
                    Some(watch::Request::Create(create)) if self.must_ask(&create) => {
                        let (node, credentials) = (self.node.clone(), self.credentials.clone());
                        self.checking = Some(Box::pin(permitted(node, credentials, create)));
                    }
                    Some(request) => {
                        if matches!(request, watch::Request::Create(_)) {
                            self.permits.ask(None);
                        }
                        self.watching.request(request);
                    }
                    None => idle += 1,
                },
            }
        }
        Ok(())
    }
}

impl Stream for WatchStream {
    type Item = Result<Outgoing, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(piece) = this.pieces.pop_front() {
            return Poll::Ready(Some(Ok(piece)));
        }
        if this.stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(errors::stopped())));
        }
        if let Err(status) = this.poll_requests(cx) {
            return Poll::Ready(Some(Err(status)));
        }
        loop {
            let response = ready!(this.watching.poll_next(cx))?;
            let header = this.node.header(response.revision);
            match this.permits.judge(&response, || this.node.handle().view()) {
                Verdict::Send => {}
                Verdict::Drop => continue,
                Verdict::End(refusal) => {
                    let watch_id = response.watch_id;
                    this.watching.request(watch::Request::Cancel { watch_id });
                    return Poll::Ready(Some(Ok(Outgoing::ended(header, watch_id, refusal))));
                }
            }
            let mut pieces = Outgoing::of(header, response, this.message_bytes_max);
            let first = pieces.pop_front();
            this.pieces = pieces;
            return Poll::Ready(first.map(Ok));
        }
    }
}
