//! Asking for one call, and which refusal it comes to.
//!
//! Owns: the letters that refusals have in the table. Must never: know who asks. The tests of clusters use it, too.

use std::time::Duration;

use covey::limits::REQUEST_TIMEOUT;
use covey::wire::etcdserverpb as pb;
use http_body_util::BodyExt as _;
use prost::Message;
use smol::Timer;
use tonic::{Code, Status};

use super::table::Row;
use crate::channel::Channel;

/// What a call comes to.
///
/// | | |
/// | --- | --- |
/// | `.` | what the row says: it was let in |
/// | `e` | nobody asks |
/// | `t` | the token is none |
/// | `d` | that user may not |
/// | `l` | a learner that has not caught up does not serve it |
/// | `n` | there is no leader |
/// | `o` | it was waited for, and nothing came |
/// | `m` | this member does not lead |
/// | `f` | another call has ended the lease |
/// | `b` | that is for the operator of a box |
/// | `?` | something else |
const REFUSALS: [(char, Code, &str); 9] = [
    ('e', Code::InvalidArgument, "etcdserver: user name is empty"),
    ('t', Code::Unauthenticated, "etcdserver: invalid auth token"),
    ('d', Code::PermissionDenied, "etcdserver: permission denied"),
    ('l', Code::FailedPrecondition, "etcdserver: rpc not supported for learner"),
    ('n', Code::Unavailable, "etcdserver: no leader"),
    ('o', Code::Unavailable, "etcdserver: request timed out"),
    ('m', Code::FailedPrecondition, "etcdserver: not leader"),
    ('f', Code::NotFound, "etcdserver: requested lease not found"),
    (
        'b',
        Code::PermissionDenied,
        "covey: this is for the operator of a box: on one of the cluster's boxes, as its endpoint, use 127.0.0.1 without TLS",
    ),
];

/// What is said of who asks, as the services tell it that are clients of the others: without the code.
const TOLD_ON: [&str; 2] = ["v3lockpb.Lock", "v3electionpb.Election"];

/// What is refused there is said in a message of the stream.
const WATCH: &str = "etcdserverpb.Watch/Watch";
/// Whether a message is compressed, and its length.
const FRAME_HEAD_BYTES: usize = 5;

/// What most rows are answered.
pub const OK: (Code, &str) = (Code::Ok, "");
/// A stream on which nothing comes.
pub const NOTHING: (Code, &str) = (Code::Ok, "nothing came");

/// After that a stream which has nothing to say has let its client in. A refusal that is later would count as that; one row is waited for.
const SILENT: Duration = Duration::from_millis(300);
/// By then everything else has said something.
const WAITED: Duration = REQUEST_TIMEOUT.saturating_add(Duration::from_secs(10));

/// A message as a call's body.
pub fn message(message: impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    framed.extend(body);
    framed
}

/// Calls a method with one message, and waits for its answer, or until there is one that is not the end. One that has nothing to say to whoever is let in, as it is to be here, is not waited for.
pub async fn call(
    channel: &Channel,
    (path, body, _, answer): &Row,
    metadata: &[(&str, &str)],
    is_let_in: bool,
) -> Status {
    let mut request =
        http::Request::post(format!("http://x/{path}")).header("content-type", "application/grpc");
    for (name, value) in metadata {
        request = request.header(*name, *value);
    }
    let body = tonic::body::Body::new(http_body_util::Full::from(body.clone()));
    let answered = async {
        let response = channel.send(request.body(body).unwrap()).await.unwrap();
        if let Some(status) = Status::from_header_map(response.headers()) {
            return status;
        }
        let Some(frame) = response.into_body().frame().await.map(Result::unwrap) else {
            return Status::ok("");
        };
        if let Some(refusal) = frame.data_ref().filter(|_| *path == WATCH).and_then(|data| refused(data)) {
            return refusal;
        }
        let trailers = frame.into_trailers().ok();
        trailers.and_then(|trailers| Status::from_header_map(&trailers)).unwrap_or_else(|| Status::ok(""))
    };
    let silent = async {
        Timer::after(if is_let_in && *answer == NOTHING { SILENT } else { WAITED }).await;
        Status::ok(NOTHING.1)
    };
    smol::future::or(answered, silent).await
}

/// What a watcher's first message says of why there is none: as Go prints an error.
fn refused(data: &[u8]) -> Option<Status> {
    let told = pb::WatchResponse::decode(data.get(FRAME_HEAD_BYTES..)?).unwrap();
    let (code, text) = told.cancel_reason.strip_prefix("rpc error: code = ")?.split_once(" desc = ")?;
    let found = REFUSALS.iter().find(|(_, known, _)| format!("{known:?}") == code);
    Some(Status::new(found.map_or(Code::Unknown, |found| found.1), text))
}

/// The letter of what a call has come to.
pub fn outcome((path, _, _, answer): &Row, status: &Status) -> char {
    let is_told_on = TOLD_ON.iter().any(|service| path.starts_with(service));
    let refusal = REFUSALS.iter().find(|(letter, code, text)| {
        let code = if is_told_on && matches!(letter, 'e' | 't' | 'd') { Code::Unknown } else { *code };
        status.message() == *text && status.code() == code
    });
    let is_answer = (status.code(), status.message()) == *answer;
    if is_answer { '.' } else { refusal.map_or('?', |(letter, ..)| *letter) }
}
