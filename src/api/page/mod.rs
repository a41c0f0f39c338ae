//! The status page: the cluster at a glance, in a browser, as the member that is asked sees it.
//!
//! Owns: its text, who is shown what, and that nobody but the page itself sends its one request. Must never: show a credential, change anything but by that request, or cost
//! anything while nobody looks. Driven by `http`, and by `waiting` where there is no cluster yet.
//!
//! ```text
//! GET  /status          one page with its style and script in it (page.html, page.css, page.js); it names nothing outside
//! GET  /status.json     what it shows, asked for every two seconds while somebody sees it: what `covey status -w json` prints, counters, the last lines of the log
//! POST /status/approve  covey.v1.Admin/NodeApprove, by way of the JSON gateway
//! ```
//!
//! etcd's root is left as it is: nothing is there. Rates are the page's own business: it takes the difference of the counters of two answers.
//!
//! | connection | is shown | may approve |
//! | --- | --- | --- |
//! | plain text, from this machine to itself | everything, as by `covey status` there | yes |
//! | plain text from elsewhere | nothing: refused | no |
//! | TLS with a client's certificate; where authentication is on, a user's certificate or token | everything | no |
//! | any other TLS | the verdict in a word, and how many members there are | no |
//!
//! What keeps other pages out, in the order in which it is looked at:
//!
//! | attack | what stops it |
//! | --- | --- |
//! | another page asks | its `Origin` is refused, and one that is configured (`--cors`) may use the API and not this; answers may not be embedded, framed or guessed at (`Cross-Origin-Resource-Policy`, `frame-ancestors`, `nosniff`) |
//! | a name that a page controls leads here | on this machine `Host` must be this server's own (`browser`); elsewhere the certificate does not fit that name |
//! | another page has the browser approve | the request's type and its header cannot be sent across origins without being asked for first, and that is refused; configured hosts do not count here |
//! | what a box calls itself is code | the page sets text alone, and its policy runs no script but the one whose hash it names |

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tonic::Status;

use super::body::Body;
use super::browser::{BrowserPolicy, Refusal};
use super::credentials::Credentials;
use super::dispatch::{Connection, Shown, Whence, has_room};
use super::http::{JSON, TEXT, only, page, refuse};
use super::status_json::status_as_json;
use super::verdict::judge;
use super::{gate, gateway};
use crate::telemetry;
use crate::wire::covey::v1 as pb;
use crate::wire::covey::v1::admin_server;

/// All of the page.
const PAGE: &str = concat!(
    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
    "<title>covey</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>",
    include_str!("page.css"),
    "</style>\n</head>\n<body>\n",
    include_str!("page.html"),
    "<script>",
    include_str!("page.js"),
    "</script>\n</body>\n</html>\n",
);
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
/// Only a page of the same origin can send it without asking first.
const BY_PAGE: HeaderName = HeaderName::from_static("x-covey-page");
/// What proxies add to what they pass on.
const PASSED_ON: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];
const CORP: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The policy under which browsers run the page: its own style and script, by their hashes, and questions to where it came from.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |begin: &str, end: &str| {
        let inside = PAGE.split_once(begin).and_then(|(_, rest)| rest.split_once(end));
        let (inside, _) = inside.unwrap_or_default();
        STANDARD.encode(digest(&SHA256, inside.as_bytes()))
    };
    let (style, script) = (hash("<style>", "</style>"), hash("<script>", "</script>"));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    );
    // base64 is text; without a policy of its own the page would not work, and do no harm.
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// A part of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The text.
    Page,
    /// What it shows.
    Data,
    /// Lets a node in.
    Approval,
}

impl Part {
    /// The one at this path.
    pub fn at(path: &str) -> Option<Self> {
        match path {
            "/status" => Some(Self::Page),
            "/status.json" => Some(Self::Data),
            "/status/approve" => Some(Self::Approval),
            _ => None,
        }
    }

    fn method(self) -> &'static str {
        match self {
            Self::Page | Self::Data => "GET",
            Self::Approval => "POST",
        }
    }
}

/// Whether it is the page itself that sends this, to the machine that it was served to. Browsers name the origin of such a request even within one origin.
pub fn is_from_itself<B>(connection: &Connection, request: &Request<B>) -> bool {
    connection.whence == Whence::Here
        && Part::at(request.uri().path()) == Some(Part::Approval)
        && connection.shared.options.browser.is_own_page(request.uri(), request.headers())
}

/// Answers what is asked of a member. `foreign` is a request of another page that may use the API.
pub async fn answer(
    connection: &Connection,
    part: Part,
    request: Request<Incoming>,
    foreign: bool,
) -> Response<Body> {
    if foreign {
        return guarded(refuse(Refusal::Origin));
    }
    if *request.method() != part.method() {
        return guarded(only(part.method()));
    }
    if (connection.whence, connection.shown) == (Whence::Elsewhere, Shown::Plain) {
        let text = "The status page is served by https, and in plain text to the machine itself.\n";
        return guarded(page(StatusCode::FORBIDDEN, TEXT, text));
    }
    if connection.whence == Whence::Here && !is_known_here(connection, &request) {
        return guarded(refuse(Refusal::Host));
    }
    let _counted = connection.shared.counters.call(&connection.counted);
    if !has_room(connection) {
        return guarded(page(StatusCode::SERVICE_UNAVAILABLE, TEXT, "Too many requests.\n"));
    }
    let response = match part {
        Part::Page => text(),
        Part::Data => match data(connection, request.headers()).await {
            Ok(data) => page(StatusCode::OK, JSON, data.to_string()),
            Err(status) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{}\n", status.message())),
        },
        Part::Approval if !is_by_page(request.headers()) => {
            page(StatusCode::FORBIDDEN, TEXT, "Only the status page asks for this.\n")
        }
        Part::Approval => gateway::call(connection, admin_server::SERVICE_NAME, "NodeApprove", request).await,
    };
    guarded(response)
}

/// Whether a request to this machine comes from it, as far as one can tell: not through a proxy, which says so, nor by a name that a web page may control, for which `*` is none.
fn is_known_here<B>(connection: &Connection, request: &Request<B>) -> bool {
    let headers = request.headers();
    !PASSED_ON.iter().any(|name| headers.contains_key(*name))
        && connection.shared.options.browser.judge_named_host(request.uri(), headers).is_ok()
}

/// The same of a node that is in no cluster yet: it shows itself, to this machine alone.
pub fn answer_waiting<B>(part: Part, request: &Request<B>, status: &pb::StatusResponse) -> Response<Body> {
    // Names that are configured count once there is a cluster.
    let policy = BrowserPolicy::default();
    let judged = policy.judge_origin(request.headers());
    let judged = judged.and_then(|_| policy.judge_host(request.uri(), request.headers()));
    guarded(match (judged, part) {
        (Err(refusal), _) => refuse(refusal),
        _ if *request.method() != part.method() => only(part.method()),
        (Ok(()), Part::Page) => text(),
        (Ok(()), Part::Data) => page(StatusCode::OK, JSON, whole(status, false, None).to_string()),
        (Ok(()), Part::Approval) => page(StatusCode::NOT_FOUND, TEXT, "This node is in no cluster yet.\n"),
    })
}

fn text() -> Response<Body> {
    let mut response = page(StatusCode::OK, HTML, PAGE);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    response
}

/// What browsers make of an answer: nothing but what it is, for nobody but this page, and only now.
fn guarded(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CORP, HeaderValue::from_static("same-origin"));
    response
}

/// Whether a request has what other pages cannot send.
fn is_by_page(headers: &HeaderMap) -> bool {
    headers.contains_key(BY_PAGE) && headers.get(CONTENT_TYPE).is_some_and(|kind| kind == "application/json")
}

/// What this connection is shown.
async fn data(connection: &Connection, headers: &HeaderMap) -> Result<Value, Status> {
    // What of it is shown is found out after it was read, and so by no earlier state.
    let status = connection.shared.operator.all().await?;
    if sees_all(connection, headers).await {
        let load = load(connection);
        Ok(whole(&status, connection.whence == Whence::Here, Some(load)))
    } else {
        Ok(redacted(&status))
    }
}

/// Whether whoever asks has shown a credential, or is on this machine.
async fn sees_all(connection: &Connection, headers: &HeaderMap) -> bool {
    let node = &connection.shared.node;
    if connection.whence == Whence::Here {
        return true;
    }
    if !node.handle().view().facts().auth.enabled {
        return connection.shown == Shown::Certificate;
    }
    let mut credentials = Credentials::of(headers, None);
    if credentials.token().is_none() {
        credentials = Credentials::by_certificate(connection.common_name.as_ref());
    }
    gate::admit(node, admin_server::SERVICE_NAME, "Status", &credentials, connection.whence).await.is_ok()
}

fn whole(status: &pb::StatusResponse, may_approve: bool, load: Option<Value>) -> Value {
    let event = |said: telemetry::Said| {
        let millis = u64::try_from(said.at.as_millis()).unwrap_or(u64::MAX);
        json!({ "number": said.number, "at": millis, "level": said.level, "text": said.text })
    };
    json!({
        "redacted": false,
        "may_approve": may_approve,
        "version": env!("CARGO_PKG_VERSION"),
        "status": status_as_json(status, &judge(status)),
        "load": load,
        "events": telemetry::recent().into_iter().map(event).collect::<Vec<_>>(),
    })
}

/// Without a name, an address or anything else that is somebody's.
fn redacted(status: &pb::StatusResponse) -> Value {
    let verdict = judge(status);
    let members = status.cluster.as_ref().map(|cluster| &cluster.members[..]).unwrap_or_default();
    let count = |counts: fn(&pb::Member) -> bool| members.iter().filter(|member| counts(member)).count();
    json!({
        "redacted": true,
        "may_approve": false,
        "status": {
            "healthy": verdict.healthy,
            "verdict": verdict.word(),
            "cluster": {
                "committed": status.cluster.as_ref().is_some_and(|cluster| cluster.committed),
                "voters": count(|member| member.votes),
                "learners": count(|member| !member.votes),
                "reached": count(|member| member.reached),
            },
        },
    })
}

/// What this member holds, and what clients ask of it.
fn load(connection: &Connection) -> Value {
    let shared = &connection.shared;
    let (node, metrics) = (&shared.node, &shared.metrics);
    let (status, view) = (node.handle().status(), node.handle().view());
    let (revision, compacted) = (view.revision(), view.compacted());
    // Those of a state that is not shown may be wrong.
    let keys = node.require_state().is_ok().then(|| view.keys());
    json!({
        "keys": keys,
        "revision": revision.0,
        "compacted": compacted.0,
        "file_bytes": status.file_bytes,
        "connections": shared.counters.connections(),
        "watchers": metrics.watchers.value(),
        "counters": {
            "puts": metrics.puts.value(),
            "deletes": metrics.deletes.value(),
            "txns": metrics.txns.value(),
            "ranges": metrics.ranges.value(),
            "events": metrics.events_told.value(),
            "received_bytes": metrics.client_grpc_received_bytes.value(),
            "sent_bytes": metrics.client_grpc_sent_bytes.value(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_one_style_and_one_script_and_names_nothing_outside() {
        for once in ["<style>", "</style>", "<script>", "</script>"] {
            assert_eq!(PAGE.matches(once).count(), 1, "{once}: the policy would name the wrong part");
        }
        for never in
            ["http://", "https://", "src=", "@import", "url(", "javascript:", "innerHTML", " style=", "eval("]
        {
            assert!(!PAGE.contains(never), "{never}");
        }
        let handlers = PAGE.split('<').filter(|tag| tag.split('>').next().unwrap().contains(" on"));
        assert_eq!(handlers.count(), 0, "no handlers in tags");
        assert!(PAGE.len() < 20 * 1024, "{} bytes", PAGE.len());
        let policy = POLICY.to_str().unwrap();
        assert_eq!(policy.matches("'sha256-").count(), 2, "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }

    #[test]
    fn every_part_has_one_path() {
        let part = |path| Part::at(path);
        assert_eq!((part("/status"), part("/status.json")), (Some(Part::Page), Some(Part::Data)));
        assert_eq!(part("/status/approve"), Some(Part::Approval));
        for path in ["/", "/status/", "/Status", "/status.json/", "status"] {
            assert_eq!(part(path), None, "{path}");
        }
    }
}
