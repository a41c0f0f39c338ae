//! What is not gRPC: `/health`, `/version`, `/metrics` (API reference, section 11).
//!
//! Owns: paths, methods and texts of these. Must never: read a request's body. Driven by `dispatch`, over HTTP/1.1 and HTTP/2 alike.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW,
    CONTENT_TYPE, HeaderValue, VARY,
};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::body::Body;
use super::browser::Refusal;
use super::dispatch::{Connection, Whence};
use super::node::{Freshness, Node};
use super::{render, version};
use crate::command::{KeyRange, Range};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Answers a request that is not gRPC. `origin` is the web page's that made it, and allowed.
pub async fn answer(
    connection: &Connection,
    request: Request<Incoming>,
    origin: Option<HeaderValue>,
) -> Response<Body> {
    let shared = &connection.shared;
    if connection.whence == Whence::Here
        && let Err(refusal) = shared.options.browser.judge_host(request.uri(), request.headers())
    {
        return refuse(refusal);
    }
    let mut response = if origin.is_some() && request.method() == Method::OPTIONS {
        page(StatusCode::OK, TEXT, "")
    } else {
        match request.uri().path() {
            "/health" | "/version" | "/metrics" if request.method() != Method::GET => {
                let mut response = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method Not Allowed\n");
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
                response
            }
            "/health" => health(&shared.node, &HealthQuery::parse(request.uri().query())).await,
            "/version" => page(StatusCode::OK, JSON, version_text()),
            "/metrics" => page(StatusCode::OK, METRICS, (shared.metrics_text)()),
            _ => page(StatusCode::NOT_FOUND, TEXT, "404 page not found\n"),
        }
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        let methods = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        let allowed = HeaderValue::from_static("accept, content-type, authorization");
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    response
}

/// Turns down what a browser should not have sent.
pub fn refuse(refusal: Refusal) -> Response<Body> {
    match refusal {
        Refusal::Origin => page(StatusCode::FORBIDDEN, TEXT, "Origin not allowed\n"),
        // As etcd's --host-whitelist does.
        Refusal::Host => page(StatusCode::MISDIRECTED_REQUEST, TEXT, "Host not allowed\n"),
    }
}

fn page(status: StatusCode, content_type: HeaderValue, text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::whole(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn version_text() -> String {
    let (server, cluster, storage) = (version::SERVER, version::CLUSTER, version::STORAGE);
    format!(r#"{{"etcdserver":"{server}","etcdcluster":"{cluster}","storage":"{storage}"}}"#)
}

/// What `/health` is asked to look at.
#[derive(Debug, Default, PartialEq, Eq)]
struct HealthQuery {
    serializable: bool,
    /// Alarms that do not matter.
    excluded: Vec<String>,
}

impl HealthQuery {
    fn parse(query: Option<&str>) -> Self {
        let mut parsed = Self::default();
        for pair in query.unwrap_or_default().split('&') {
            match pair.split_once('=') {
                Some(("serializable", value)) => parsed.serializable = value == "true",
                Some(("exclude", alarm)) => parsed.excluded.push(alarm.to_owned()),
                _ => {}
            }
        }
        parsed
    }
}

async fn health(node: &Node, query: &HealthQuery) -> Response<Body> {
    let (status, health, reason) = match sickness(node, query).await {
        None => (StatusCode::OK, "true", String::new()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, "false", reason),
    };
    let text = serde_json::json!({ "health": health, "reason": reason });
    page(status, JSON, text.to_string())
}

/// What is wrong with this member: alarms, then its leader, then reading itself.
async fn sickness(node: &Node, query: &HealthQuery) -> Option<String> {
    let view = node.handle().view();
    let alarms = view.facts().alarms.iter().map(|alarm| render::alarm_name(alarm.kind));
    if let Some(alarm) = alarms.into_iter().find(|alarm| !query.excluded.iter().any(|name| name == alarm)) {
        return Some(format!("ALARM {alarm}"));
    }
    if !query.serializable && node.handle().status().leader.is_none() {
        return Some("RAFT NO LEADER".into());
    }
    if let Err(status) = node.require_state() {
        return Some(format!("RANGE ERROR:{}", status.message()));
    }
    let view = match node.view(Freshness::from_wire(query.serializable)).await {
        Ok(view) => view,
        Err(status) => return Some(format!("RANGE ERROR:{}", status.message())),
    };
    let probe = Range::all(KeyRange::single(bytes::Bytes::from_static(b"health")));
    let error = node.read(view, true, move |view| view.range(&probe)).await.err()?;
    Some(format!("RANGE ERROR:{}", tonic::Status::from(error).message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_health_query_is_read_as_probes_write_it() {
        let parse = HealthQuery::parse;
        assert_eq!(parse(None), HealthQuery::default());
        let both = parse(Some("exclude=NOSPACE&serializable=true&exclude=CORRUPT"));
        assert_eq!(both.excluded, ["NOSPACE", "CORRUPT"]);
        assert!(both.serializable);
        assert!(!parse(Some("serializable=1&x&=y&serializable=false")).serializable);
    }

    #[test]
    fn the_version_is_json_with_etcds_fields() {
        let value: serde_json::Value = serde_json::from_str(&version_text()).unwrap();
        assert_eq!(value["etcdserver"], version::SERVER);
        assert_eq!(value["etcdcluster"], "3.6.0");
        assert_eq!(value["storage"], "3.6.0");
    }
}
