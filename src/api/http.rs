//! What is not gRPC: `/version`, `/metrics`, the pages of `probes` (API reference, section 11), and the way to the JSON gateway and the status page.
//!
//! Owns: paths and methods. Must never: read a request's body. Driven by `dispatch`, over HTTP/1.1 and HTTP/2 alike.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW,
    CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, VARY,
};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::body::Body;
use super::browser::Refusal;
use super::dispatch::{Connection, Whence};
use super::page::{self as status_page, Part};
use super::probes::Probe;
use super::server::Serves;
use super::{gateway, version};

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(super) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const NOT_FOUND: &str = "404 page not found\n";

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
        let (method, path) = (request.method(), request.uri().path());
        match (path, Probe::at(path)) {
            // Whatever the method is, as in etcd.
            ("/metrics", _) => metrics(method, (shared.metrics_text)()),
            (_, Some(_)) if method != Method::GET => only_get(),
            (_, Some(probe)) => probe.answer(&shared.node, &shared.metrics, request.uri().query()).await,
            _ if connection.serves == Serves::Probes => page(StatusCode::NOT_FOUND, TEXT, NOT_FOUND),
            ("/version", _) if method != Method::GET => only_get(),
            ("/version", _) => page(StatusCode::OK, JSON, version_text()),
            _ if !shared.options.gateway => page(StatusCode::NOT_FOUND, TEXT, NOT_FOUND),
            _ => match (Part::at(path), gateway::behind_prefix(path)) {
                (Some(part), _) => status_page::answer(connection, part, request, origin.is_some()).await,
                (None, Some(path)) => {
                    let path = path.to_owned();
                    gateway::answer(connection, &path, request).await
                }
                (None, None) => page(StatusCode::NOT_FOUND, TEXT, NOT_FOUND),
            },
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

fn only_get() -> Response<Body> {
    only("GET")
}

/// Turns down any other method.
pub(super) fn only(method: &'static str) -> Response<Body> {
    let mut response = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Method Not Allowed\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(method));
    response
}

/// Over HTTP/2 nobody else leaves the text out of an answer to HEAD.
fn metrics(method: &Method, text: String) -> Response<Body> {
    if method != Method::HEAD {
        return page(StatusCode::OK, METRICS, text);
    }
    let mut response = page(StatusCode::OK, METRICS, "");
    response.headers_mut().insert(CONTENT_LENGTH, text.len().into());
    response
}

pub(super) fn page(
    status: StatusCode,
    content_type: HeaderValue,
    text: impl Into<bytes::Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Body::whole(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn version_text() -> String {
    let (server, cluster, storage) = (version::SERVER, version::CLUSTER, version::STORAGE);
    format!(r#"{{"etcdserver":"{server}","etcdcluster":"{cluster}","storage":"{storage}"}}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_json_with_etcds_fields() {
        let value: serde_json::Value = serde_json::from_str(&version_text()).unwrap();
        assert_eq!(value["etcdserver"], version::SERVER);
        assert_eq!(value["etcdcluster"], "3.6.0");
        assert_eq!(value["storage"], "3.6.0");
    }
}
