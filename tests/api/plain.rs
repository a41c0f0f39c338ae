//! HTTP/1.1, and HTTP/2 that is not gRPC.

use std::sync::Arc;

use covey::api::{ApiOptions, BrowserPolicy, Serves};
use covey::command::{Alarm, AlarmKind};
use covey::telemetry::metrics::HealthCheck;
use http::Request;
use http_body_util::BodyExt as _;
use smol::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::harness::{MEMBER, Server, Setup, empty, run};

/// An answer taken apart: status line, lower-case headers, text.
pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub text: String,
}

impl Answer {
    pub fn has(&self, header: &str) -> bool {
        self.headers.lines().any(|line| line == header)
    }
}

/// Sends one request with these headers over HTTP/1.1 and reads until the server closes.
pub async fn ask(server: &Server, request: &str, headers: &[&str]) -> Answer {
    ask_over(server.connect().await, request, headers, "").await
}

/// The same over this connection, with a body.
pub async fn ask_over(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
    headers: &[&str],
    body: &str,
) -> Answer {
    let mut text = format!("{request} HTTP/1.1\r\nconnection: close\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.push_str(body);
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // Over TLS a server that has closed may have said no more than that.
    drop(stream.read_to_end(&mut answer).await);
    let answer = String::from_utf8(answer).unwrap();
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    let (status, headers) = head.split_once("\r\n").unwrap();
    let status = status.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, headers: headers.to_lowercase().replace('\r', ""), text: text.to_owned() }
}

pub const OWN: &str = "host: localhost";

#[test]
fn the_paths_answer_get_and_nothing_else() {
    run(async {
        let server = Server::start().await;
        let version = ask(&server, "GET /version", &[OWN]).await;
        assert_eq!(version.status, 200);
        assert!(version.has("content-type: application/json"));
        assert_eq!(version.text, r#"{"etcdserver":"3.6.14","etcdcluster":"3.6.0","storage":"3.6.0"}"#);
        let metrics = ask(&server, "GET /metrics", &[OWN]).await;
        assert_eq!((metrics.status, metrics.text.as_str()), (200, "up 1\n"));
        assert!(metrics.has("content-type: text/plain; version=0.0.4; charset=utf-8"));
        for path in ["/version", "/health", "/livez", "/readyz", "/readyz/non_learner"] {
            for method in ["HEAD", "POST", "OPTIONS"] {
                let refusal = ask(&server, &format!("{method} {path}"), &[OWN, "content-length: 0"]).await;
                assert_eq!(refusal.status, 405, "{method} {path}");
                assert!(refusal.has("allow: get"), "{method} {path}");
            }
        }
        // promhttp looks at no method, either.
        assert_eq!(ask(&server, "POST /metrics", &[OWN, "content-length: 0"]).await.text, "up 1\n");
        let head = ask(&server, "HEAD /metrics", &[OWN]).await;
        assert_eq!((head.status, head.text.as_str()), (200, ""));
        assert!(head.has("content-length: 5"));
        for path in ["/", "/v3", "/healthz", "/version/", "/livez/", "/readyz/nothing"] {
            assert_eq!(ask(&server, &format!("GET {path}"), &[OWN]).await.status, 404, "{path}");
        }
        server.idle().await;
    });
}

#[test]
fn a_member_without_a_state_is_not_healthy_even_by_its_own_copy() {
    run(async {
        let server = Server::with(Setup { joins: true, ..Setup::default() }).await;
        let health = ask(&server, "GET /health?serializable=true", &[OWN]).await;
        assert_eq!(health.status, 503);
        assert!(health.text.contains("RANGE ERROR:covey: this member waits for"), "{}", health.text);
        // A restart would not bring the state.
        assert_eq!(ask(&server, "GET /livez", &[OWN]).await.status, 200);
        let ready = ask(&server, "GET /readyz/serializable_read", &[OWN]).await;
        let why = "[-]serializable_read failed: covey: this member waits for its cluster's state\n\n";
        assert_eq!((ready.status, ready.text.as_str()), (503, why));
    });
}

#[test]
fn one_connection_serves_many_requests_and_http2_the_same_pages() {
    run(async {
        let server = Server::start().await;
        let mut stream = server.connect().await;
        for _ in 0..3 {
            stream.write_all(b"GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            let mut answer = vec![0; 4096];
            let count = stream.read(&mut answer).await.unwrap();
            assert!(answer[..count].starts_with(b"HTTP/1.1 200 OK\r\n"));
        }
        assert_eq!(server.api.counters().accepted(), 1);
        let channel = server.channel().await;
        let head = Request::head("http://localhost/metrics").body(empty()).unwrap();
        let head = channel.send(head).await.unwrap();
        assert_eq!((head.status().as_u16(), &head.headers()["content-length"]), (200, &"5".parse().unwrap()));
        assert!(head.into_body().collect().await.unwrap().to_bytes().is_empty());
        let get = |uri: &str| Request::get(uri).body(empty()).unwrap();
        let response = channel.send(get("http://localhost/version")).await.unwrap();
        assert_eq!(response.status(), 200);
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert!(text.starts_with(br#"{"etcdserver""#));
        let response = channel.send(get("http://evil.example/version")).await.unwrap();
        assert_eq!(response.status(), 421);
    });
}

#[test]
fn a_rebound_name_and_a_foreign_page_are_refused() {
    run(async {
        let server = Server::start().await;
        let port = server.address.port();
        for own in ["127.0.0.1", "[::1]", "LocalHost"] {
            assert_eq!(
                ask(&server, "GET /version", &[&format!("host: {own}:{port}")]).await.status,
                200,
                "{own}"
            );
        }
        for foreign in ["host: evil.example", "host: localhost.evil.example", "x: y"] {
            assert_eq!(ask(&server, "GET /version", &[foreign]).await.status, 421, "{foreign}");
        }
        for origin in ["origin: http://localhost", "origin: null"] {
            assert_eq!(ask(&server, "GET /version", &[OWN, origin]).await.status, 403, "{origin}");
            assert_eq!(ask(&server, "OPTIONS /version", &[OWN, origin]).await.status, 403, "{origin}");
        }
    });
}

#[test]
fn a_configured_page_may_call() {
    run(async {
        let browser =
            BrowserPolicy { hosts: vec!["box.lan".into()], origins: vec!["https://console.example".into()] };
        let options = ApiOptions { browser, ..Default::default() };
        let server = Server::with(Setup { options, ..Default::default() }).await;
        let page = "origin: https://console.example";
        let preflight = ask(&server, "OPTIONS /v3/kv/range", &[OWN, page]).await;
        assert_eq!(preflight.status, 200);
        assert!(preflight.has("access-control-allow-origin: https://console.example"));
        assert!(preflight.has("access-control-allow-headers: accept, content-type, authorization"));
        let version = ask(&server, "GET /version", &["host: box.lan:2379", page]).await;
        assert_eq!(version.status, 200);
        assert!(
            version.has("access-control-allow-origin: https://console.example")
                && version.has("vary: origin")
        );
        assert_eq!(ask(&server, "GET /version", &[OWN, "origin: https://other.example"]).await.status, 403);
        let plain = ask(&server, "GET /version", &[OWN]).await;
        assert!(!plain.headers.contains("access-control"));
    });
}

#[test]
fn health_names_the_first_thing_that_is_wrong() {
    run(async {
        let server = Server::start().await;
        let well = ask(&server, "GET /health", &[OWN]).await;
        assert_eq!((well.status, well.text.as_str()), (200, r#"{"health":"true","reason":""}"#));
        let alarms = vec![Alarm { member: MEMBER, kind: AlarmKind::NoSpace }];
        let server = Server::with(Setup { lonely: true, alarms, ..Setup::default() }).await;
        for (query, status, reason) in [
            ("", 503, "ALARM NOSPACE"),
            ("?serializable=true", 503, "ALARM NOSPACE"),
            ("?exclude=NOSPACE", 503, "RAFT NO LEADER"),
            ("?exclude=CORRUPT", 503, "ALARM NOSPACE"),
            ("?exclude=CORRUPT&exclude=NOSPACE&serializable=true", 200, ""),
        ] {
            let answer = ask(&server, &format!("GET /health{query}"), &[OWN]).await;
            assert_eq!(answer.status, status, "{query}");
            assert!(answer.text.ends_with(&format!(r#""reason":"{reason}"}}"#)), "{query}: {}", answer.text);
        }
    });
}

#[test]
fn each_check_of_livez_and_readyz_is_named_when_it_fails_and_can_be_left_out() {
    run(async {
        let server = Server::start().await;
        for path in ["/livez", "/readyz", "/livez/serializable_read", "/readyz/linearizable_read"] {
            let well = ask(&server, &format!("GET {path}"), &[OWN]).await;
            assert_eq!((well.status, well.text.as_str()), (200, "ok\n"), "{path}");
            assert!(well.has("content-type: text/plain; charset=utf-8"));
        }
        let told =
            ask(&server, "GET /readyz?verbose&exclude=serializable_read&exclude=nothing", &[OWN]).await;
        assert_eq!(told.text, "[+]data_corruption ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n");
        let told =
            ask(&server, "GET /livez/serializable_read?verbose&exclude=serializable_read", &[OWN]).await;
        assert_eq!(told.text, "[+]serializable_read ok\nok\n", "what the path asks for is not left out");
        let alarm = |kind| vec![Alarm { member: MEMBER, kind }];
        let setup = Setup { lonely: true, alarms: alarm(AlarmKind::Corrupt), ..Setup::default() };
        let (metrics, server) = (Arc::clone(&setup.metrics), Server::with(setup).await);
        let ill = ask(&server, "GET /readyz?exclude=linearizable_read", &[OWN]).await;
        let text = "[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n[+]non_learner ok\n\n";
        assert_eq!((ill.status, ill.text.as_str()), (503, text));
        assert_eq!(ask(&server, "GET /livez", &[OWN]).await.status, 200);
        let all = "GET /readyz?exclude=data_corruption&exclude=linearizable_read";
        assert_eq!(ask(&server, all, &[OWN]).await.status, 200);
        let server = Server::with(Setup { alarms: alarm(AlarmKind::NoSpace), ..Setup::default() }).await;
        assert_eq!(ask(&server, "GET /readyz", &[OWN]).await.status, 200, "reads go on");
        let server = Server::with(Setup { learns: true, ..Setup::default() }).await;
        let learner = ask(&server, "GET /readyz/non_learner", &[OWN]).await;
        assert_eq!(learner.text, "[-]non_learner failed: not supported for learner\n\n");
        let counted = |check: HealthCheck| &metrics.health_checks[check as usize];
        assert_eq!(counted(HealthCheck::DataCorruption).counts(), (0, 1));
        assert_eq!(counted(HealthCheck::SerializableRead).counts(), (2, 0));
        assert_eq!(counted(HealthCheck::LinearizableRead).counts(), (0, 0));
    });
}

#[test]
fn a_port_for_probes_shows_how_the_member_is_and_nothing_of_the_api() {
    run(async {
        let server = Server::with(Setup { serves: Serves::Probes, ..Setup::default() }).await;
        for (path, status) in [
            ("/health", 200),
            ("/livez", 200),
            ("/readyz", 200),
            ("/metrics", 200),
            ("/version", 404),
            ("/v3/kv/range", 404),
            ("/etcdserverpb.KV/Range", 404),
        ] {
            assert_eq!(ask(&server, &format!("GET {path}"), &[OWN]).await.status, status, "{path}");
        }
        // Rebinding is no less of an attack here.
        assert_eq!(ask(&server, "GET /metrics", &["host: evil.example"]).await.status, 421);
        let channel = server.channel().await;
        for (path, status) in [("etcdserverpb.KV/Range", 404), ("grpc.health.v1.Health/Check", 404)] {
            let request = Request::post(format!("http://localhost/{path}"));
            let request = request.header("content-type", "application/grpc").body(empty()).unwrap();
            assert_eq!(channel.send(request).await.unwrap().status(), status, "{path}");
        }
        assert_eq!(server.api.counters().connections(), 0, "clients' places are not taken");
    });
}
