//! The JSON gateway (API reference, section 10): gRPC's methods for clients that speak HTTP and JSON.
//!
//! Owns: what of HTTP is what of gRPC, in both directions. Must never: answer a call itself, or keep one to other limits than gRPC's: each is made a
//! call like any other and goes where those go. Driven by `http`
//! and `page`.
//!
//! ```text
//! paths      which method
//! requests   JSON objects, as they come ─► messages      split   where they end      read    one of them
//! dispatch   the call: its limits, its service
//! answer     messages ─► JSON, as it is taken            write   one of them
//! ```
//!
//! On both ways there is never a tree in between: the wire is written from JSON, and JSON from the wire, by what `schema` says of their fields.
//! prost-reflect, which goes by descriptors as well, makes such a tree of every message and adds 870 KiB to the binary.

mod answer;
mod paths;
mod read;
mod requests;
mod split;
mod write;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tonic::{Code, Status};

pub use answer::Answer;
pub use paths::behind_prefix;
pub use requests::Requests;

use super::body::Body;
use super::dispatch::{self, Connection};
use super::errors;
use super::record::Source;
use super::schema::schema;
use crate::limits::GRPC_OVERHEAD_BYTES;

/// How a header of HTTP begins that is metadata of the call, or of its answer.
const METADATA_PREFIX: &str = "grpc-metadata-";
/// How metadata begins that is gRPC's own, and not a client's to choose.
const RESERVED_PREFIX: &str = "grpc-";
const TIMEOUT: &str = "grpc-timeout";
/// Under which name a token is metadata.
const TOKEN: HeaderName = HeaderName::from_static("token");
/// How some clients begin a token.
const BEARER: &[u8] = b"Bearer ";

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
/// The code that is nginx's, and gRPC's for a call that the client gave up.
const CLIENT_CLOSED: u16 = 499;

/// Answers a request whose path goes on with `path` behind the gateway's prefix.
pub async fn answer(connection: &Connection, path: &str, request: Request<Incoming>) -> Response<Body> {
    let Some((service, name)) = paths::method_of(path) else { return refuse(&errors::no_such_path()) };
    call(connection, service, name, request).await
}

/// Makes a request the call of this method.
pub async fn call(
    connection: &Connection,
    service: &str,
    name: &str,
    request: Request<Incoming>,
) -> Response<Body> {
    let schema = schema();
    let Some(method) = schema.method(service, name) else { return refuse(&errors::no_such_path()) };
    if request.method() != Method::POST {
        return refuse(&errors::method_not_allowed());
    }
    if connection.common_name.is_some() {
        return refuse(&errors::common_name_ignored());
    }
    let (head, body) = request.into_parts();
    let headers = match metadata(&head.headers) {
        Ok(headers) => headers,
        Err(status) => return refuse(&status),
    };
    let shared = &connection.shared;
    let bytes_max = shared.options.request_bytes_max + GRPC_OVERHEAD_BYTES;
    let requests = Requests::new(body, schema, method, bytes_max, shared.counters.arriving_bytes());
    let mut call = Request::new(Source::Json(requests));
    match format!("/{service}/{name}").parse() {
        Ok(uri) => *call.uri_mut() = uri,
        Err(_) => return refuse(&errors::no_such_path()),
    }
    *call.method_mut() = Method::POST;
    *call.headers_mut() = headers;

    let response = dispatch::call(connection, call).await;
    if let Some(status) = Status::from_header_map(response.headers())
        && status.code() != Code::Ok
    {
        return refuse(&status);
    }
    let mut answer = Answer::new(response.into_body(), schema, method, &connection.outbox);
    if let Err(status) = answer.begin().await {
        if method.server_streams {
            return page(http_status(status.code()), Body::whole(error_of_stream(&status)));
        }
        return refuse(&status);
    }
    let body = answer.whole().map_or_else(|| Body::of_json(answer), Body::whole);
    let mut response = page(StatusCode::OK, body);
    response.headers_mut().insert(HeaderName::from_static("grpc-metadata-content-type"), GRPC);
    response
}

/// What of a request's headers is metadata of its call.
fn metadata(headers: &HeaderMap) -> Result<HeaderMap, Status> {
    let mut metadata = HeaderMap::new();
    for (name, value) in headers {
        if let Some(name) = name.as_str().strip_prefix(METADATA_PREFIX)
            && !name.starts_with(RESERVED_PREFIX)
            && name != CONTENT_TYPE.as_str()
            && let Ok(name) = HeaderName::try_from(name)
        {
            metadata.append(name, value.clone());
        }
    }
    if let Some(token) = headers.get(AUTHORIZATION) {
        let token = token.as_bytes().strip_prefix(BEARER).unwrap_or(token.as_bytes());
        // What is left of a sound value is one.
        if let Ok(token) = HeaderValue::from_bytes(token) {
            metadata.insert(TOKEN, token);
        }
    }
    if let Some(timeout) = headers.get(TIMEOUT) {
        dispatch::parse_timeout(timeout.as_bytes()).ok_or_else(|| errors::invalid_timeout(timeout))?;
        metadata.insert(TIMEOUT, timeout.clone());
    }
    Ok(metadata)
}

fn refuse(status: &Status) -> Response<Body> {
    // Older gateways have the text as `error`, newer ones as `message`.
    let (code, message) = (status.code() as i32, status.message());
    let text = serde_json::json!({ "error": message, "code": code, "message": message });
    page(http_status(status.code()), Body::whole(text.to_string()))
}

/// The last line of a stream that ends with an error, with the names of older gateways and of newer ones.
fn error_of_stream(status: &Status) -> Vec<u8> {
    let (code, message, http) = (status.code() as i32, status.message(), http_status(status.code()));
    let reason = http.canonical_reason().unwrap_or_default();
    let error = serde_json::json!({
        "grpc_code": code, "code": code, "message": message, "http_code": http.as_u16(), "http_status": reason,
    });
    let mut line = serde_json::json!({ "error": error }).to_string().into_bytes();
    line.push(b'\n');
    line
}

fn page(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// The HTTP status of a gRPC code.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::from_u16(CLIENT_CLOSED).unwrap_or(StatusCode::REQUEST_TIMEOUT),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// One JSON object as the message of that name, and back; for tests that have bytes of their own.
pub fn json_there_and_back(message: &str, json: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let schema = schema();
    let message = schema.message(message)?;
    let wire = read::encode(schema, message, json, usize::MAX).ok()?;
    let mut back = Vec::new();
    let mut writer = write::Writer::new(schema, message, wire.len());
    let rest = writer.write(&mut wire.clone().into(), &mut back, usize::MAX);
    assert_eq!(rest, Ok(write::Rest::Done), "what was read can be written");
    Some((wire, back))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_become_metadata_but_not_those_that_are_reserved() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer abc.def"),
            ("grpc-timeout", "3S"),
            ("grpc-metadata-hasleader", "true"),
            ("grpc-metadata-grpc-encoding", "gzip"),
            ("grpc-metadata-", "x"),
            ("grpc-encoding", "gzip"),
            ("content-type", "application/json"),
            ("host", "localhost"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let metadata = metadata(&headers).unwrap();
        let mut found: Vec<_> =
            metadata.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        found.sort_unstable();
        assert_eq!(found, [("grpc-timeout", "3S"), ("hasleader", "true"), ("token", "abc.def")]);
        headers.insert("authorization", HeaderValue::from_static("plain"));
        assert_eq!(super::metadata(&headers).unwrap()["token"], "plain");
        headers.insert("grpc-timeout", HeaderValue::from_static("zz"));
        let refused = super::metadata(&headers).unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "invalid grpc-timeout: zz"));
    }

    #[test]
    fn errors_have_the_names_of_all_gateways() {
        let line = error_of_stream(&Status::not_found("gone\n"));
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"error\":{\"code\":5,\"grpc_code\":5,\"http_code\":404,\"http_status\":\"Not Found\",\"message\":\"gone\\n\"}}\n"
        );
        assert_eq!(http_status(Code::Cancelled).as_u16(), 499);
    }
}
