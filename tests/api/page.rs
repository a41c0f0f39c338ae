//! The status page: what it is made of, who is shown what, and who may let a node in by it.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use covey::api::{
    ApiOptions, BrowserPolicy, ClusterBeside, PendingNode, Plaintext, SeenNode, Serves, Waiting, WaitingNode,
};
use covey::formation::Fingerprint;
use covey::ids::ClusterId;
use covey::tls::ServerTls;
use covey::wire::etcdserverpb as pb;
use covey::wire::etcdserverpb::kv_client::KvClient;
use serde_json::{Value, json};
use smol::Async;
use tempfile::TempDir;

use crate::around::Around;
use crate::auth::Shore;
use crate::client_keys::{Cluster, own};
use crate::harness::{Server, Setup, run};
use crate::plain::{Answer, OWN, ask, ask_over};
use crate::tls::{Authority, handshake};

const JSON: &str = "content-type: application/json";
const BY_PAGE: &str = "x-covey-page: 1";

fn fingerprint(digit: u8) -> Fingerprint {
    Fingerprint::from_bytes([digit; 32])
}

/// All that is somebody's, so that it can be looked for where it must not be.
fn around() -> Around {
    let pending = PendingNode {
        fingerprint: fingerprint(0xa1),
        name: "pending-box".into(),
        peer_urls: vec!["https://10.0.0.9:2380".into()],
        asked: Duration::from_secs(3),
    };
    let seen = SeenNode {
        fingerprint: fingerprint(0xa2),
        name: "seen-box".into(),
        addresses: vec!["10.0.0.8:2380".parse().unwrap()],
        cluster: None,
    };
    let beside = ClusterBeside {
        outdated: None,
        cluster: ClusterId(0xdd),
        addresses: vec!["10.0.0.7:2380".parse().unwrap()],
        why: "both".into(),
        since: Duration::from_secs(5),
    };
    Around {
        pending: Mutex::new(vec![pending]),
        seen: Mutex::new(vec![seen]),
        conflicts: Mutex::new(vec![beside]),
        ..Around::default()
    }
}

async fn server(options: ApiOptions) -> Server {
    Server::with(Setup { host: Arc::new(around()), options, ..Setup::default() }).await
}

fn parsed(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.has("content-type: application/json"), "{}", answer.headers);
    serde_json::from_str(&answer.text).unwrap()
}

fn is_guarded(answer: &Answer) -> bool {
    let headers = [
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
        "cross-origin-resource-policy: same-origin",
    ];
    headers.iter().all(|header| answer.has(header)) && !answer.headers.contains("access-control")
}

/// What is between two marks, of which there is one each.
fn inside<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    text.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).unwrap().0
}

#[test]
fn the_page_is_one_text_and_its_policy_names_what_may_run() {
    run(async {
        let server = server(ApiOptions::default()).await;
        let page = ask(&server, "GET /status", &[OWN]).await;
        assert_eq!(page.status, 200);
        assert!(page.has("content-type: text/html; charset=utf-8") && is_guarded(&page), "{}", page.headers);
        assert!(page.text.starts_with("<!doctype html>\n") && page.text.ends_with("</html>\n"));
        // Header lines are in small letters here, which base64 is not: it is looked for in the same.
        let policy = page.headers.lines().find(|line| line.starts_with("content-security-policy: ")).unwrap();
        let named = |text: &str| {
            let hash = STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()));
            format!("'sha256-{hash}'").to_lowercase()
        };
        for (directive, text) in [
            ("script-src", inside(&page.text, "<script>", "</script>")),
            ("style-src", inside(&page.text, "<style>", "</style>")),
        ] {
            assert!(policy.contains(&format!("{directive} {};", named(text))), "{directive}: {policy}");
        }
        for directive in [
            "default-src 'none'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(directive), "{directive}: {policy}");
        }
        for (path, allow) in [("/status", "get"), ("/status.json", "get"), ("/status/approve", "post")] {
            for method in ["GET", "HEAD", "POST", "PUT", "OPTIONS"]
                .into_iter()
                .filter(|method| !method.eq_ignore_ascii_case(allow))
            {
                let refused = ask(&server, &format!("{method} {path}"), &[OWN, "content-length: 0"]).await;
                assert_eq!(refused.status, 405, "{method} {path}");
                assert!(refused.has(&format!("allow: {allow}")), "{method} {path}: {}", refused.headers);
            }
        }
        server.idle().await;
    });
}

#[test]
fn on_the_box_the_page_shows_what_the_operator_is_told_and_what_the_member_holds() {
    run(async {
        let server = server(ApiOptions::default()).await;
        let before = parsed(&ask(&server, "GET /status.json", &[OWN]).await);
        assert_eq!((&before["redacted"], &before["may_approve"]), (&json!(false), &json!(true)));
        assert_eq!(before["version"], env!("CARGO_PKG_VERSION"));
        let status = &before["status"];
        assert!(status["verdict"].as_str().unwrap().starts_with("CONFLICT: "), "{status}");
        assert_eq!(status["cluster"]["members"][0]["leads"], true);
        assert_eq!(status["cluster"]["pending"][0]["fingerprint"], "a1".repeat(32));
        assert_eq!((&status["seen"][0]["name"], &status["up_seconds"]), (&json!("seen-box"), &json!(77)));
        assert_eq!((&before["load"]["keys"], &before["load"]["revision"]), (&json!(0), &json!(1)));

        let mut kv = KvClient::new(server.channel().await);
        for key in ["a", "b", "a"] {
            kv.put(pb::PutRequest { key: key.into(), ..Default::default() }).await.unwrap();
        }
        let range = pb::RangeRequest { key: "a".into(), ..Default::default() };
        kv.range(range).await.unwrap();
        let after = parsed(&ask(&server, "GET /status.json", &[OWN]).await);
        let load = &after["load"];
        assert_eq!((&load["keys"], &load["revision"], &load["compacted"]), (&json!(2), &json!(4), &json!(0)));
        assert_eq!(after["status"]["cluster"]["keys"], 2);
        assert_eq!(
            (&load["counters"]["puts"], &load["counters"]["ranges"]),
            (&json!(3), &json!(1)),
            "looking is no read"
        );
        assert!(
            load["counters"]["received_bytes"].as_u64() > Some(0) && load["connections"].as_u64() > Some(0)
        );
        assert!(load["file_bytes"].as_u64() > Some(0));
    });
}

#[test]
fn a_member_without_leader_or_state_shows_that() {
    run(async {
        let lonely = Server::with(Setup { lonely: true, ..Setup::default() }).await;
        let shown = parsed(&ask(&lonely, "GET /status.json", &[OWN]).await);
        let verdict = shown["status"]["verdict"].as_str().unwrap().to_owned();
        assert!(verdict.starts_with("no leader: 1 of 2 voters"), "{verdict}");
        let joining = Server::with(Setup { joins: true, ..Setup::default() }).await;
        let shown = parsed(&ask(&joining, "GET /status.json", &[OWN]).await);
        let verdict = shown["status"]["verdict"].as_str().unwrap();
        assert!(verdict.starts_with("joining: "), "{verdict}");
        assert_eq!(shown["load"]["keys"], Value::Null, "what there is of it may be wrong");
    });
}

#[test]
fn other_pages_are_shown_nothing() {
    run(async {
        let browser =
            BrowserPolicy { hosts: vec!["box.lan".into()], origins: vec!["https://console.example".into()] };
        let configured = server(ApiOptions { browser, ..ApiOptions::default() }).await;
        let plain = server(ApiOptions::default()).await;
        let own = format!("origin: http://127.0.0.1:{}", plain.address.port());
        for path in ["/status", "/status.json"] {
            let request = format!("GET {path}");
            for host in ["host: evil.example", "host: localhost.evil.example", "x: y"] {
                assert_eq!(ask(&plain, &request, &[host]).await.status, 421, "{path} {host}");
            }
            // A page's own questions come without an origin.
            for origin in ["origin: null", "origin: http://evil.example", &own] {
                assert_eq!(ask(&plain, &request, &[OWN, origin]).await.status, 403, "{path} {origin}");
            }
            assert_eq!(ask(&configured, &request, &["host: box.lan"]).await.status, 200, "{path}");
            let other = ask(&configured, &request, &[OWN, "origin: https://console.example"]).await;
            assert_eq!(other.status, 403, "{path}: it may use the API, and that is all");
        }
        let off = server(ApiOptions { gateway: false, ..ApiOptions::default() }).await;
        let probes = Server::with(Setup { serves: Serves::Probes, ..Setup::default() }).await;
        for request in ["GET /status", "GET /status.json", "POST /status/approve"] {
            for server in [&off, &probes] {
                assert_eq!(ask(server, request, &[OWN, "content-length: 0"]).await.status, 404, "{request}");
            }
        }
    });
}

/// Sends what the page sends to let a node in, with these headers instead of its own.
async fn approve(server: &Server, headers: &[&str], fingerprint: &str) -> Answer {
    let body = json!({ "fingerprint": fingerprint }).to_string();
    let length = format!("content-length: {}", body.len());
    let headers = [headers, &[&length[..]]].concat();
    ask_over(server.connect().await, "POST /status/approve", &headers, &body).await
}

#[test]
fn the_page_lets_a_node_in_and_no_other_page_does() {
    run(async {
        let browser = BrowserPolicy { hosts: vec!["*".into()], origins: vec!["*".into()] };
        let careless = server(ApiOptions { browser, ..ApiOptions::default() }).await;
        let plain = server(ApiOptions::default()).await;
        let waits = "a1".repeat(32);
        for server in [&plain, &careless] {
            let port = server.address.port();
            let (host, own) = (format!("host: 127.0.0.1:{port}"), format!("origin: http://127.0.0.1:{port}"));
            let rebound =
                (format!("host: evil.example:{port}"), format!("origin: http://evil.example:{port}"));
            let refused: [&[&str]; 9] = [
                &[&host, "origin: http://evil.example", JSON, BY_PAGE],
                &[&host, "origin: null", JSON, BY_PAGE],
                &[&host, "origin: http://127.0.0.1:1", JSON, BY_PAGE],
                &[&host, "origin: http://localhost", JSON, BY_PAGE],
                &[&rebound.0, &rebound.1, JSON, BY_PAGE],
                &[&host, &own, JSON],
                &[&host, &own, BY_PAGE],
                &[&host, &own, "content-type: text/plain", BY_PAGE],
                &[&host, JSON],
            ];
            for headers in refused {
                let answer = approve(server, headers, &waits).await;
                assert!(matches!(answer.status, 403 | 421), "{headers:?}: {} {}", answer.status, answer.text);
            }
            // Nor is anything shown by such a name, or to who comes by a proxy on this machine.
            for (header, status) in [(&rebound.0[..], 421), ("x-forwarded-for: 10.0.0.9", 421)] {
                let host = if header.starts_with("host") { header } else { &host };
                let shown = ask(server, "GET /status.json", &[host, header]).await;
                assert_eq!(shown.status, status, "{header}: {}", shown.text);
            }
            // Asked whether it might, the server grants nothing that would let it.
            let asks =
                ["access-control-request-method: POST", "access-control-request-headers: x-covey-page"];
            let headers = [&[&host[..], "origin: http://evil.example"][..], &asks].concat();
            let granted = ask(server, "OPTIONS /status/approve", &headers).await;
            assert!(
                !granted.headers.contains("x-covey-page") && !granted.headers.contains("allow-headers: *")
            );
            assert!(server.handle.view().facts().charter.approved.is_empty(), "nobody was let in");

            let answer = approve(server, &[&host, &own, JSON, BY_PAGE], &"a7".repeat(16)).await;
            assert_eq!(answer.status, 404, "{}", answer.text);
            let why: Value = serde_json::from_str(&answer.text).unwrap();
            assert!(why["message"].as_str().unwrap().contains("no node that begins like this"), "{why}");
            let answer = approve(server, &[&host, &own, JSON, BY_PAGE], &waits).await;
            assert_eq!(parsed(&answer), json!({ "fingerprint": waits }));
            assert!(is_guarded(&answer), "{}", answer.headers);
            assert_eq!(server.handle.view().facts().charter.approved, [[0xa1; 32]]);
        }
    });
}

/// What must not be in what strangers are shown.
fn names_somebody(text: &str) -> Option<&'static str> {
    let all = [
        "pending-box",
        "seen-box",
        "10.0.0.",
        "a1a1",
        "a2a2",
        "fingerprint",
        "url",
        "events",
        "load",
        "next",
        "dd",
        "name",
    ];
    all.into_iter().find(|part| text.contains(part))
}

fn is_redacted(answer: &Answer) {
    let shown = parsed(answer);
    assert!(is_guarded(answer), "{}", answer.headers);
    assert_eq!(names_somebody(&answer.text), None, "{}", answer.text);
    let status = json!({
        "healthy": false,
        "verdict": "CONFLICT",
        "cluster": { "committed": true, "voters": 1, "learners": 0, "reached": 1 },
    });
    assert_eq!(shown, json!({ "redacted": true, "may_approve": false, "status": status }));
}

/// They see everything, and change nothing.
fn is_whole_without_approval(answer: &Answer) {
    let shown = parsed(answer);
    assert_eq!((&shown["redacted"], &shown["may_approve"]), (&json!(false), &json!(false)));
    assert_eq!(shown["status"]["cluster"]["pending"][0]["name"], "pending-box");
}

#[test]
fn by_tls_a_certificate_shows_everything_and_nothing_else_does() {
    run(async {
        let (servers, dir) = (Authority::new("servers"), TempDir::new().unwrap());
        let tls = Arc::new(ServerTls::load(servers.write(&dir, None)).unwrap());
        let setup = |tls: Arc<ServerTls>| Setup {
            host: Arc::new(around()),
            plaintext: Plaintext::Loopback,
            tls: Some(Arc::new(move || Some(tls.current()))),
            ..Setup::default()
        };
        let server = Server::with(setup(tls)).await;
        let connect = async || handshake(&server, &servers.client(&["http/1.1"], None)).await.unwrap();
        is_redacted(&ask_over(connect().await, "GET /status.json", &[OWN], "").await);
        // No header makes somebody of nobody.
        is_redacted(&ask_over(connect().await, "GET /status.json", &[OWN, "authorization: root"], "").await);
        assert_eq!(ask_over(connect().await, "GET /status", &["host: localhost"], "").await.status, 200);

        let cluster = Cluster::new();
        let server = cluster.serve_around(Arc::new(around())).await;
        let (good, tls13) = (cluster.issue("good"), &rustls::version::TLS13);
        let client = cluster.client(tls13, &["http/1.1"], Some(own(&good)));
        let connect = async || handshake(&server, &client).await.unwrap();
        is_whole_without_approval(&ask_over(connect().await, "GET /status.json", &[OWN], "").await);
        let body = json!({ "fingerprint": "a1".repeat(32) }).to_string();
        let length = format!("content-length: {}", body.len());
        // The page itself sends the first of these, and the other is as near as anybody comes.
        for headers in [
            &[OWN, JSON, BY_PAGE, "origin: https://localhost", &length[..]][..],
            &[OWN, JSON, BY_PAGE, &length[..]],
        ] {
            let answer = ask_over(connect().await, "POST /status/approve", headers, &body).await;
            assert_eq!(answer.status, 403, "{}", answer.text);
        }
        assert!(server.handle.view().facts().charter.approved.is_empty());
    });
}

#[test]
fn where_authentication_is_on_a_user_is_shown_everything_and_nobody_else_is() {
    run(async {
        for names_users in [true, false] {
            let mut setup = Setup { host: Arc::new(around()), ..Setup::default() };
            setup.options.logins.bcrypt_cost = 4;
            let shore = Shore::with(names_users, setup).await;
            let land = &shore.land;
            let look = async |name: &str, headers: &[&str]| {
                let stream = shore.stream(name, "http/1.1").await;
                ask_over(stream, "GET /status.json", &[&[OWN][..], headers].concat(), "").await
            };
            let certified = look("certified", &[]).await;
            if names_users {
                is_whole_without_approval(&certified);
            } else {
                is_redacted(&certified);
            }
            is_redacted(&look("stranger", &[]).await);
            let token = format!("authorization: Bearer {}", land.token("reader").await);
            is_whole_without_approval(&look("stranger", &[&token]).await);
            is_redacted(&look("certified", &["authorization: none.1"]).await);
            // Who is on the box needs no user.
            assert_eq!(parsed(&ask(&land.server, "GET /status.json", &[OWN]).await)["may_approve"], true);
        }
    });
}

/// A listener for plain text from anywhere is one for the API, as etcd has it.
#[test]
fn plain_text_from_elsewhere_is_shown_nothing() {
    run(async {
        let server = server(ApiOptions::default()).await;
        let Some((address, accepting)) = server.listen_to_anybody() else { return };
        let look = async |request: &str| {
            let stream = Async::<std::net::TcpStream>::connect(address).await.unwrap();
            let host = format!("host: {address}");
            ask_over(stream, request, &[&host[..], JSON, BY_PAGE, "content-length: 0"], "").await
        };
        assert_eq!(look("GET /version").await.status, 200);
        for request in ["GET /status", "GET /status.json", "POST /status/approve"] {
            let refused = look(request).await;
            assert_eq!((refused.status, is_guarded(&refused)), (403, true), "{request}");
            assert!(refused.text.contains("https"), "{}", refused.text);
        }
        accepting.cancel().await;
    });
}

#[test]
fn a_node_without_a_cluster_shows_itself_to_its_machine() {
    run(async {
        let socket = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
        let address = socket.get_ref().local_addr().unwrap();
        let waiting = Waiting::default();
        waiting.tell(WaitingNode {
            name: "new-box".into(),
            fingerprint: Some(fingerprint(0xb1)),
            up: Duration::from_secs(5),
            waits_for: "an operator".into(),
            ..WaitingNode::default()
        });
        let serving = smol::spawn(async move {
            let spawn = |task| smol::spawn(task).detach();
            waiting.serve(&socket, Serves::Clients, Plaintext::Loopback, spawn).await;
        });
        let look = async |request: &str, headers: &[&str]| {
            let stream = Async::<std::net::TcpStream>::connect(address).await.unwrap();
            ask_over(stream, request, headers, "").await
        };
        let page = look("GET /status", &[OWN]).await;
        assert!(
            page.status == 200 && is_guarded(&page) && page.headers.contains("content-security-policy: ")
        );
        let shown = parsed(&look("GET /status.json", &[OWN]).await);
        let status = &shown["status"];
        assert_eq!(
            (&status["verdict"], &status["fingerprint"], &status["cluster"]),
            (&json!("gathering: an operator"), &json!("b1".repeat(32)), &Value::Null)
        );
        assert_eq!((&shown["may_approve"], &shown["load"]), (&json!(false), &Value::Null));
        for (request, header, refusal) in [
            ("GET /status.json", "host: evil.example", 421),
            ("GET /status", "host: evil.example", 421),
            ("GET /status.json", "x: y", 421),
            ("POST /status.json", OWN, 405),
            ("POST /status/approve", OWN, 404),
            ("GET /health", OWN, 503),
        ] {
            assert_eq!(
                look(request, &[header, "content-length: 0"]).await.status,
                refusal,
                "{request} {header}"
            );
        }
        assert_eq!(look("GET /status.json", &[OWN, "origin: http://evil.example"]).await.status, 403);
        serving.cancel().await;
    });
}

/// Whoever starts what does not live again must not do so while a box waits for others: it would wait from the beginning each time.
#[test]
fn a_node_without_a_cluster_lives_and_is_not_ready() {
    run(async {
        for serves in [Serves::Clients, Serves::Probes] {
            let socket = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
            let address = socket.get_ref().local_addr().unwrap();
            let waiting = Waiting::default();
            let waits_for = "an operator".to_owned();
            waiting.tell(WaitingNode { waits_for, ..WaitingNode::default() });
            let serving = smol::spawn(async move {
                let spawn = |task| smol::spawn(task).detach();
                waiting.serve(&socket, serves, Plaintext::Anyone, spawn).await;
            });
            let look = async |request: &str, header: &str| {
                let stream = Async::<std::net::TcpStream>::connect(address).await.unwrap();
                let answer = ask_over(stream, request, &[header], "").await;
                (answer.status, answer.text)
            };
            assert_eq!(look("GET /livez", OWN).await, (200, "ok\n".to_owned()));
            let verbose = "[+]serializable_read ok\nok\n".to_owned();
            assert_eq!(look("GET /livez?verbose", OWN).await, (200, verbose));
            let (status, why) = look("GET /readyz", OWN).await;
            let reads = "[-]linearizable_read failed: this node is in no cluster yet: an operator\n";
            assert!(status == 503 && why.contains(reads), "{status} {why}");
            let (status, why) = look("GET /health", OWN).await;
            let reason = "\"reason\":\"this node is in no cluster yet: an operator\"";
            assert!(status == 503 && why.contains(reason), "{status} {why}");
            assert_eq!(look("POST /livez", OWN).await.0, 405);
            assert_eq!(look("GET /livez", "host: evil.example").await.0, 421);
            // A port for probes has nothing else.
            let page = look("GET /status", OWN).await.0;
            assert_eq!(page, if serves == Serves::Clients { 200 } else { 503 });
            serving.cancel().await;
        }
    });
}
