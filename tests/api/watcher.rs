//! A client of the Watch service that says what it asks for and takes what comes.
//!
//! Owns: one stream. Must never: hide a message.

use std::time::Duration;

use covey::wire::etcdserverpb as pb;
use covey::wire::etcdserverpb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use smol::Timer;
use smol::channel::Sender;
use tonic::{Status, Streaming};

use crate::harness::{Channel, PATIENCE, Server};

/// How long nothing must come before a test believes that nothing will.
const QUIET: Duration = Duration::from_millis(200);

/// One stream of watchers.
pub struct Watcher {
    /// `None` once the client's side is closed.
    requests: Option<Sender<pb::WatchRequest>>,
    responses: Streaming<pb::WatchResponse>,
}

/// A request for a watcher of a key, or of `[key, end)`.
pub fn create(key: &str, end: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: key.to_owned().into(),
        range_end: end.to_owned().into(),
        ..Default::default()
    }
}

impl Watcher {
    /// A stream on a connection of its own.
    pub async fn start(server: &Server) -> Self {
        Self::over(server.channel().await).await
    }

    /// A stream on this connection.
    pub async fn over(channel: Channel) -> Self {
        Self::with(channel, |_| {}).await.unwrap()
    }

    /// A stream with its request's metadata changed.
    pub async fn with(
        channel: Channel,
        change: impl FnOnce(&mut tonic::metadata::MetadataMap),
    ) -> Result<Self, Status> {
        let (requests, receiver) = smol::channel::unbounded();
        let mut request = tonic::Request::new(receiver);
        change(request.metadata_mut());
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        let responses = client.watch(request).await?.into_inner();
        Ok(Self { requests: Some(requests), responses })
    }

    /// Sends any request.
    pub fn send(&self, union: RequestUnion) {
        let request = pb::WatchRequest { request_union: Some(union) };
        self.requests.as_ref().unwrap().try_send(request).unwrap();
    }

    /// Sends one that asks for nothing.
    pub fn send_nothing(&self) {
        self.requests.as_ref().unwrap().try_send(pb::WatchRequest::default()).unwrap();
    }

    /// Creates a watcher; its id.
    pub async fn create(&mut self, request: pb::WatchCreateRequest) -> i64 {
        let answer = self.ask(request).await;
        assert!(answer.created && !answer.canceled, "{answer:?}");
        answer.watch_id
    }

    /// Asks for a watcher; the answer.
    pub async fn ask(&mut self, request: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.send(RequestUnion::CreateRequest(request));
        self.next().await
    }

    /// Asks to cancel a watcher.
    pub fn cancel(&self, watch_id: i64) {
        self.send(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id }));
    }

    /// Asks how far the stream is.
    pub fn progress(&self) {
        self.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
    }

    /// Closes the client's side.
    pub fn close_half(&mut self) {
        self.requests = None;
    }

    /// The next message.
    pub async fn next(&mut self) -> pb::WatchResponse {
        self.message().await.unwrap()
    }

    /// The next message, or how the stream ended.
    pub async fn message(&mut self) -> Result<pb::WatchResponse, Status> {
        let late = async {
            Timer::after(PATIENCE).await;
            panic!("no message within {PATIENCE:?}");
        };
        let next =
            async { self.responses.message().await.map(|message| message.expect("no end without status")) };
        smol::future::or(next, late).await
    }

    /// Nothing comes.
    pub async fn quiet(&mut self) {
        let late = async {
            Timer::after(QUIET).await;
            None
        };
        let next = async { Some(self.responses.message().await) };
        let came = smol::future::or(next, late).await;
        assert!(came.is_none(), "{came:?}");
    }

    /// The next `count` events of a watcher; nothing else may come in between.
    pub async fn events(&mut self, watch_id: i64, count: usize) -> Vec<covey::wire::mvccpb::Event> {
        let mut events = Vec::new();
        while events.len() < count {
            let message = self.next().await;
            assert_eq!(message.watch_id, watch_id, "{message:?}");
            assert!(!message.events.is_empty() && !message.canceled, "{message:?}");
            events.extend(message.events);
        }
        assert_eq!(events.len(), count);
        events
    }
}

/// An event in short: what happened to which key at which revision.
pub fn brief(event: &covey::wire::mvccpb::Event) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let kv = event.kv.as_ref().unwrap();
    let before = event.prev_kv.as_ref().map_or_else(String::new, |kv| format!(" was {}", text(&kv.value)));
    match event.r#type {
        0 => format!("{} {}={}{before}", kv.mod_revision, text(&kv.key), text(&kv.value)),
        _ => format!("{} -{}{before}", kv.mod_revision, text(&kv.key)),
    }
}

/// Many of them.
pub fn briefs(events: &[covey::wire::mvccpb::Event]) -> Vec<String> {
    events.iter().map(brief).collect()
}
