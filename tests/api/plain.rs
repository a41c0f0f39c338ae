//! HTTP/1.1, and HTTP/2 that is not gRPC.

use covey::api::{ApiOptions, BrowserPolicy};
use covey::command::{Alarm, AlarmKind};
use http::Request;
use http_body_util::BodyExt as _;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{MEMBER, Server, Setup, empty, run};

/// An answer taken apart: status line, lower-case headers, text.
struct Answer {
    status: u16,
    headers: String,
    text: String,
}

impl Answer {
    fn has(&self, header: &str) -> bool {
        self.headers.lines().any(|line| line == header)
    }
}

/// Sends one request with these headers over HTTP/1.1 and reads until the server closes.
async fn ask(server: &Server, request: &str, headers: &[&str]) -> Answer {
    let mut stream = server.connect().await;
    let mut text = format!("{request} HTTP/1.1\r\nconnection: close\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    let (status, headers) = head.split_once("\r\n").unwrap();
    let status = status.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, headers: headers.to_lowercase().replace('\r', ""), text: text.to_owned() }
}

const OWN: &str = "host: localhost";

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
        for path in ["/version", "/metrics", "/health"] {
            for method in ["HEAD", "POST", "OPTIONS"] {
                let refusal = ask(&server, &format!("{method} {path}"), &[OWN, "content-length: 0"]).await;
                assert_eq!(refusal.status, 405, "{method} {path}");
                assert!(refusal.has("allow: get"), "{method} {path}");
            }
        }
        for path in ["/", "/v3/kv/range", "/healthz", "/version/"] {
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
