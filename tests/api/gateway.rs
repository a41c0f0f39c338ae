//! The JSON gateway, by HTTP/1.1 as it is on the wire.

use std::net::TcpStream;
use std::time::Duration;

use covey::api::{ApiOptions, BrowserPolicy};
use covey::wire::etcdserverpb as pb;
use covey::wire::etcdserverpb::kv_client::KvClient;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::{Async, Timer};

use crate::harness::{Server, Setup, run, until};

/// One connection.
struct Client {
    stream: Async<TcpStream>,
    came: Vec<u8>,
    /// How long the answer's body is, and that it has not been taken; `None` if it comes in chunks.
    length: Option<usize>,
    /// What has come of its lines.
    lines: Vec<u8>,
}

/// An answer that has come whole.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    json: Value,
}

impl Client {
    async fn to(server: &Server) -> Self {
        Self { stream: server.connect().await, came: Vec::new(), length: None, lines: Vec::new() }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends a request with all of its body.
    async fn request(&mut self, head: &str, body: &[u8]) {
        let head = format!("{head}host: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
        self.send([head.as_bytes(), body].concat()).await;
    }

    /// Begins a request whose body goes on.
    async fn open(&mut self, path: &str) {
        self.send(format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"))
            .await;
    }

    async fn chunk(&mut self, text: &str) {
        self.send(format!("{:x}\r\n{text}\r\n", text.len())).await;
    }

    /// Reads more; whether something came.
    async fn more(&mut self) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        let count = self.stream.read(&mut buffer).await.unwrap_or(0);
        self.came.extend_from_slice(&buffer[..count]);
        count > 0
    }

    async fn up_to(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.came.windows(end.len()).position(|window| window == end) {
                return Some(self.came.drain(..at + end.len()).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.came.len() < count {
            assert!(self.more().await, "the answer ends early");
        }
        self.came.drain(..count).collect()
    }

    /// Status and lower-case headers.
    async fn head(&mut self) -> (u16, String) {
        let head = self.up_to(b"\r\n\r\n").await.expect("an answer");
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split('\r').next());
        self.length = length.map(|length| length.parse().unwrap());
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head)
    }

    async fn next_chunk(&mut self) -> Option<Vec<u8>> {
        if let Some(length) = &mut self.length {
            let length = std::mem::take(length);
            return if length > 0 { Some(self.exactly(length).await) } else { None };
        }
        let size = self.up_to(b"\r\n").await?;
        let size = usize::from_str_radix(std::str::from_utf8(&size).unwrap().trim(), 16).unwrap();
        let mut chunk = self.exactly(size + 2).await;
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }

    /// The next line of a stream; none at its end.
    async fn line(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.lines.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.lines.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let chunk = self.next_chunk().await?;
            self.lines.extend_from_slice(&chunk);
        }
    }

    async fn answer(&mut self) -> Answer {
        let (status, head) = self.head().await;
        let mut body = Vec::new();
        while let Some(chunk) = self.next_chunk().await {
            body.extend_from_slice(&chunk);
        }
        let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Answer { status, head, json }
    }

    async fn post(&mut self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.request(&format!("POST {path} HTTP/1.1\r\n"), body.as_ref()).await;
        self.answer().await
    }

    /// What a sound request is answered, without its header.
    async fn ok(&mut self, path: &str, body: &str) -> Value {
        let mut answer = self.post(path, body).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json.as_object_mut().unwrap().remove("header");
        answer.json
    }

    /// What a request is refused with.
    async fn refused(&mut self, path: &str, body: impl AsRef<[u8]>) -> (u16, i64, String) {
        let answer = self.post(path, body).await;
        let text = answer.json["message"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned();
        assert_eq!(answer.json["error"], text.as_str());
        assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
        (answer.status, answer.json["code"].as_i64().unwrap(), text)
    }
}

/// As etcd's annotations name them, but for the two that go on for ever.
const PATHS: &str = "kv/range kv/put kv/deleterange kv/txn kv/compaction lease/grant lease/revoke \
    kv/lease/revoke lease/timetolive kv/lease/timetolive lease/leases kv/lease/leases cluster/member/add \
    cluster/member/remove cluster/member/update cluster/member/list cluster/member/promote maintenance/alarm \
    maintenance/status maintenance/defragment maintenance/hash maintenance/hashkv maintenance/snapshot \
    maintenance/transfer-leadership maintenance/downgrade auth/enable auth/disable auth/status auth/authenticate \
    auth/user/add auth/user/get auth/user/list auth/user/delete auth/user/changepw auth/user/grant auth/user/revoke \
    auth/role/add auth/role/get auth/role/list auth/role/delete auth/role/grant auth/role/revoke lock/unlock \
    election/campaign election/proclaim election/leader election/resign lease/keepalive lock/lock";

#[test]
fn every_path_answers() {
    run(async {
        let server = Server::start().await;
        for path in PATHS.split_whitespace() {
            // A field that nobody knows, and a name that nobody else has.
            let name = if path.starts_with("lock") { "bG9j" } else { "ZWxl" };
            let body = json!({ "bogus": [], "name": name }).to_string();
            let answer = Client::to(&server).await.post(&format!("/v3/{path}"), body).await;
            assert_ne!(answer.json["message"], "Not Found", "{path}: {answer:?}");
            assert!(answer.head.contains("content-type: application/json"), "{path}: {answer:?}");
        }
        Client::to(&server).await.ok("/v3beta/kv/range", r#"{"key":"YQ=="}"#).await;
        let mut client = Client::to(&server).await;
        for path in ["/v3/", "/v3/kv", "/v3/kv/range/", "/v3/kv/Range", "/v3/covey.v1.Admin/Status"] {
            assert_eq!(client.refused(path, "{}").await, (404, 5, "Not Found".into()), "{path}");
        }
        for method in ["GET", "PUT", "DELETE", "PATCH"] {
            client.request(&format!("{method} /v3/kv/range HTTP/1.1\r\n"), b"").await;
            let answer = client.answer().await;
            assert_eq!(
                (answer.status, &answer.json["message"]),
                (501, &json!("Method Not Allowed")),
                "{method}"
            );
        }
        for path in ["/v3", "/v3alpha/kv/range"] {
            assert_eq!(client.post(path, "{}").await.status, 404, "{path}");
        }
        drop(client);
        server.idle().await;
    });
}

#[test]
fn keys_are_put_read_compared_and_deleted() {
    run(async {
        let server = Server::start().await;
        let mut client = Client::to(&server).await;
        let put = client.post("/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#).await;
        assert_eq!(put.json["header"]["revision"], "2");
        assert_eq!(put.json["header"]["member_id"], "10");
        assert!(put.head.contains("grpc-metadata-content-type: application/grpc"), "{}", put.head);
        assert!(put.head.contains("content-length: "), "{}", put.head);
        let pair =
            json!({"key":"Zm9v","create_revision":"2","mod_revision":"2","version":"1","value":"YmFy"});
        let range = client.ok("/v3/kv/range", r#"{"key":"Zm9v"}"#).await;
        assert_eq!(range, json!({"kvs":[pair],"count":"1"}));
        // Trailing bytes are passed over, as etcd does.
        assert_eq!(client.ok("/v3/kv/range", r#"{"key":"Zm9v"} and so on"#).await, range);
        let txn = r#"{"compare":[{"key":"Zm9v","target":"VERSION","version":"1"}],
            "success":[{"requestPut":{"key":"Zm9v","value":"eA==","prevKv":true}},{"request_range":{"key":"Zm9v"}}]}"#;
        let txn = client.ok("/v3/kv/txn", txn).await;
        assert_eq!(txn["succeeded"], true);
        assert_eq!(txn["responses"][0]["response_put"]["prev_kv"], pair);
        assert_eq!(txn["responses"][1]["response_range"]["kvs"][0]["value"], "eA==");
        let deleted = client.ok("/v3/kv/deleterange", r#"{"key":"Zm9v","prev_kv":true}"#).await;
        assert_eq!((&deleted["deleted"], &deleted["prev_kvs"][0]["version"]), (&json!("1"), &json!("2")));
        assert_eq!(client.ok("/v3/kv/compaction", r#"{"revision":4}"#).await, json!({}));
        let refused = client.refused("/v3/kv/range", r#"{"key":"Zm9v","revision":2}"#).await;
        assert_eq!(refused, (400, 11, "etcdserver: mvcc: required revision has been compacted".into()));
        assert_eq!(
            client.refused("/v3/kv/range", "").await,
            (400, 3, "etcdserver: key is not provided".into())
        );
        assert_eq!(server.api.counters().accepted(), 1, "all of that on one connection");
    });
}

#[test]
fn json_is_answered_over_http2_too() {
    run(async {
        let server = Server::start().await;
        let body =
            tonic::body::Body::new(http_body_util::Full::new(r#"{"key":"YQ==","value":"Yg=="}"#.into()));
        let request = http::Request::post("http://localhost/v3/kv/put");
        let request = request.header("content-type", "application/json").body(body).unwrap();
        let response = server.channel().await.send(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let text = response.into_body().collect().await.unwrap().to_bytes();
        let json: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(json["header"]["revision"], "2");
    });
}

#[test]
fn leases_are_kept_alive_by_a_request_that_goes_on() {
    run(async {
        let server = Server::start().await;
        let mut client = Client::to(&server).await;
        assert_eq!(
            client.ok("/v3/lease/grant", r#"{"TTL":"100","ID":"7"}"#).await,
            json!({"ID":"7","TTL":"100"})
        );
        let refused = client.refused("/v3/kv/lease/revoke", r#"{"ID":99}"#).await;
        assert_eq!(refused, (404, 5, "etcdserver: requested lease not found".into()));
        client.ok("/v3/kv/put", r#"{"key":"YQ==","lease":7}"#).await;
        let time = client.ok("/v3/kv/lease/timetolive", r#"{"ID":7,"keys":true}"#).await;
        assert_eq!((&time["grantedTTL"], &time["keys"]), (&json!("100"), &json!(["YQ=="])));

        client.open("/v3/lease/keepalive").await;
        client.chunk(r#"{"ID""#).await;
        client.chunk(":7}").await;
        assert_eq!(client.head().await.0, 200);
        assert_eq!(client.line().await.unwrap()["result"]["TTL"], "100");
        // Two at once, and half of a third.
        client.chunk(r#" {"ID":"7"}{"ID":8} {"I"#).await;
        assert_eq!(client.line().await.unwrap()["result"]["TTL"], "100");
        let gone = client.line().await.unwrap();
        assert_eq!((&gone["result"]["ID"], gone["result"].get("TTL")), (&json!("8"), None));
        client.chunk(r#"D":7}"#).await;
        assert_eq!(client.line().await.unwrap()["result"]["ID"], "7");
        client.send("0\r\n\r\n").await;
        assert_eq!(client.line().await, None);
        // The connection goes on.
        assert_eq!(client.ok("/v3/lease/leases", "").await, json!({"leases":[{"ID":"7"}]}));
        // What is wrong in the middle is said in the stream.
        client.request("POST /v3/lease/keepalive HTTP/1.1\r\n", br#"{"ID":7}{"ID":x}"#).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, 200);
        assert_eq!(client.post("/v3/lease/keepalive", r#"{"ID":x}"#).await.status, 400);
    });
}

#[test]
fn a_watch_answers_while_its_request_goes_on() {
    run(async {
        let server = Server::start().await;
        let mut writer = Client::to(&server).await;
        writer.ok("/v3/kv/put", r#"{"key":"YQ==","value":"MQ=="}"#).await;
        let mut client = Client::to(&server).await;
        client.open("/v3/watch").await;
        client.chunk(r#"{"create_request":{"key":"YQ==","start_revision":"1","prev_kv":true}}"#).await;
        let (status, head) = client.head().await;
        assert_eq!(status, 200);
        assert!(head.contains("content-type: application/json"), "{head}");
        let created = client.line().await.unwrap();
        assert_eq!((&created["result"]["created"], created["result"].get("watch_id")), (&json!(true), None));
        let event = client.line().await.unwrap()["result"]["events"][0].take();
        assert_eq!((event.get("type"), &event["kv"]["value"]), (None, &json!("MQ==")));
        writer.ok("/v3/kv/deleterange", r#"{"key":"YQ=="}"#).await;
        let event = client.line().await.unwrap()["result"]["events"][0].take();
        assert_eq!((&event["type"], &event["prev_kv"]["value"]), (&json!("DELETE"), &json!("MQ==")));
        // Another watcher on the same stream, long after the first.
        client.chunk(r#"{"createRequest":{"key":"Yg==","watchId":9}}"#).await;
        assert_eq!(client.line().await.unwrap()["result"]["watch_id"], "9");
        client.chunk(r#"{"cancel_request":{"watch_id":"9"}}"#).await;
        assert_eq!(client.line().await.unwrap()["result"]["canceled"], true);
        // The end of the request ends nothing.
        client.send("0\r\n\r\n").await;
        writer.ok("/v3/kv/put", r#"{"key":"YQ==","value":"Mg=="}"#).await;
        let event = client.line().await.unwrap()["result"]["events"][0].take();
        assert_eq!(event["kv"]["value"], "Mg==");
        drop((client, writer));
        server.idle().await;
    });
}

/// Events that are shared with other streams, and come in several pieces.
#[test]
fn a_watch_is_told_of_large_events() {
    run(async {
        let server = Server::start().await;
        let mut watchers = Vec::new();
        for _ in 0..3 {
            let mut client = Client::to(&server).await;
            client
                .request(
                    "POST /v3/watch HTTP/1.1\r\n",
                    br#"{"create_request":{"key":"AA==","range_end":"AA=="}}"#,
                )
                .await;
            client.head().await;
            client.line().await.unwrap();
            watchers.push(client);
        }
        let mut kv = KvClient::new(server.channel().await);
        let put = |key: u8| {
            let put = pb::PutRequest {
                key: vec![b'a' + key].into(),
                value: vec![key; 100_000].into(),
                ..Default::default()
            };
            pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }
        };
        kv.txn(pb::TxnRequest { success: (0..10).map(put).collect(), ..Default::default() }).await.unwrap();
        for client in &mut watchers {
            let events = client.line().await.unwrap()["result"]["events"].take();
            assert_eq!(events.as_array().unwrap().len(), 10);
            assert_eq!(events[3]["kv"]["value"].as_str().unwrap().len(), 133_336);
        }
    });
}

#[test]
fn a_snapshot_comes_in_lines() {
    run(async {
        let server = Server::start().await;
        let mut client = Client::to(&server).await;
        client.request("POST /v3/maintenance/snapshot HTTP/1.1\r\n", b"").await;
        assert_eq!(client.head().await.0, 200);
        let (mut blobs, mut last) = (0, Value::Null);
        while let Some(line) = client.line().await {
            let line = line["result"].clone();
            assert!(line["blob"].is_string(), "{line}");
            (blobs, last) = (blobs + 1, line);
        }
        assert!(blobs >= 2, "{blobs}");
        assert_eq!((last["blob"].as_str().unwrap().len(), last.get("remaining_bytes")), (44, None), "a hash");
        assert_eq!(client.ok("/v3/kv/range", r#"{"key":"YQ=="}"#).await, json!({}), "the connection goes on");
    });
}

#[test]
fn who_waits_is_answered_or_late_or_gone() {
    run(async {
        let server = Server::start().await;
        let mut client = Client::to(&server).await;
        client.ok("/v3/lease/grant", r#"{"TTL":"100","ID":"7"}"#).await;
        client.ok("/v3/lease/grant", r#"{"TTL":"100","ID":"8"}"#).await;
        let first = client.ok("/v3/lock/lock", r#"{"name":"bA==","lease":7}"#).await;
        // The time of a call holds on HTTP/1.1, too.
        client
            .request("POST /v3/lock/lock HTTP/1.1\r\ngrpc-timeout: 50m\r\n", br#"{"name":"bA==","lease":8}"#)
            .await;
        let late = client.answer().await;
        assert_eq!((late.status, &late.json["message"]), (504, &json!("context deadline exceeded")));
        client
            .request(
                "POST /v3/watch HTTP/1.1\r\ngrpc-timeout: 50m\r\n",
                br#"{"create_request":{"key":"YQ=="}}"#,
            )
            .await;
        assert_eq!(client.head().await.0, 200);
        client.line().await.unwrap();
        let end = client.line().await.unwrap();
        assert_eq!((&end["error"]["code"], &end["error"]["grpc_code"]), (&json!(4), &json!(4)));
        assert_eq!(client.line().await, None);
        let refused = client.post("/v3/kv/range", "{}").await;
        assert_eq!(refused.status, 400);
        client.request("POST /v3/kv/range HTTP/1.1\r\ngrpc-timeout: soon\r\n", b"{}").await;
        assert_eq!(client.answer().await.json["message"], "invalid grpc-timeout: soon");

        // Clients that go while they wait, for a lock, a leader, an event, the rest of their own request.
        let mut gone = Vec::new();
        for (path, body) in [
            ("/v3/lock/lock", r#"{"name":"bA==","lease":8}"#),
            ("/v3/election/observe", r#"{"name":"bm8="}"#),
            ("/v3/watch", r#"{"create_request":{"key":"YQ=="}}"#),
            ("/v3/watch", r#"{"create_request":"#),
        ] {
            let mut client = Client::to(&server).await;
            client.open(path).await;
            client.chunk(body).await;
            if path != "/v3/watch" {
                client.send("0\r\n\r\n").await;
            }
            gone.push(client);
        }
        until("all wait", || server.api.counters().calls() == 4).await;
        drop(gone);
        until("nobody waits", || server.api.counters().calls() == 0).await;
        let second = client.ok("/v3/lock/unlock", &json!({ "key": first["key"] }).to_string()).await;
        assert_eq!(second, json!({}));
        client.ok("/v3/lock/lock", r#"{"name":"bA==","lease":8}"#).await;
    });
}

#[test]
fn what_is_no_request_is_refused_and_costs_nothing() {
    run(async {
        let server = Server::start().await;
        for (body, text) in [
            ("null", "JSON objects are expected"),
            ("[1]", "JSON objects are expected"),
            ("{\"key\":", "unexpected EOF"),
            ("{\"key\":5}", "field key takes bytes in base64"),
            ("{\"key\":\"!\"}", "field key takes bytes in base64"),
            ("{\"limit\":1e400}", "number out of range"),
            ("{\"limit\":99999999999999999999}", "field limit takes an int64"),
            ("{\"key\":\"\",\"key\":\"\"}", "comes twice"),
            ("{\"key\"\0}", "expected `:`"),
        ] {
            let (status, code, message) = Client::to(&server).await.refused("/v3/kv/range", body).await;
            assert_eq!((status, code), (400, 3), "{body}");
            assert!(message.starts_with("json: ") && message.contains(text), "{body}: {message}");
        }
        let deep = r#"{"success":[{"request_txn":"#.repeat(5000) + "{" + &"}]}".repeat(5000) + "}";
        let (status, _, message) = Client::to(&server).await.refused("/v3/kv/txn", deep).await;
        assert_eq!(status, 400);
        assert!(message.contains("recursion limit"), "{message}");
        until("nothing is kept", || server.api.answers().bytes().0 == 0).await;
        server.idle().await;
    });
}

/// It was answered as a fault of the server's own.
#[test]
fn a_body_that_is_no_sequence_of_chunks_is_refused_as_json_that_is_none() {
    run(async {
        let server = Server::start().await;
        for chunks in ["zz\r\n{\"key\":\"YQ==\"}\r\n0\r\n\r\n", "5\r\n{\"kextra", "ffffffffffffffffff\r\n"] {
            let mut client = Client::to(&server).await;
            client.open("/v3/kv/range").await;
            client.send(chunks).await;
            let answer = client.answer().await;
            assert_eq!((answer.status, &answer.json["code"]), (400, &json!(3)), "{chunks:?}: {answer:?}");
            let message = answer.json["message"].as_str().unwrap();
            assert!(message.starts_with("json: "), "{message}");
        }
        server.idle().await;
    });
}

#[test]
fn a_request_that_is_too_large_is_refused_however_it_comes() {
    run(async {
        let options = ApiOptions { request_bytes_max: 1000, ..Default::default() };
        let server = Server::with(Setup { options, ..Default::default() }).await;
        let put = |bytes: usize| json!({ "key": "YQ==", "value": "YWFh".repeat(bytes / 3) }).to_string();
        let refused = Client::to(&server).await.refused("/v3/kv/put", put(300_000)).await;
        assert_eq!(refused, (400, 3, "etcdserver: request is too large".into()));
        let refused = Client::to(&server).await.refused("/v3/kv/put", put(600_000)).await;
        assert_eq!(refused, (429, 8, "grpc: received message larger than max (600007 vs. 525288)".into()));
        // Longer than any message may be, before it is complete, before it has begun, and after it.
        for begin in ["{\"key\":\"", "{\"key\":[", "{}"] {
            let mut client = Client::to(&server).await;
            client.open("/v3/kv/put").await;
            client.chunk(begin).await;
            let chunk = if begin == "{}" { " " } else { "AAAA" }.repeat(20_000);
            for _ in 0..200 {
                let chunk = format!("{:x}\r\n{chunk}\r\n", chunk.len());
                if client.stream.write_all(chunk.as_bytes()).await.is_err() {
                    break;
                }
            }
            let refusal = client.up_to(b"\r\n").await;
            assert!(refusal.is_none_or(|line| line.starts_with(b"HTTP/1.1 429")), "{begin}");
            until("it is let go of", || server.api.counters().calls() == 0).await;
        }
    });
}

#[test]
fn a_slow_reader_is_not_read_for_and_has_to_go() {
    run(async {
        const VALUE: usize = 1 << 20;
        let options = ApiOptions { answer_patience: Duration::from_secs(1), ..Default::default() };
        let server = Server::with(Setup { options, ..Default::default() }).await;
        let mut kv = KvClient::new(server.channel().await);
        for key in 0..8 {
            let put = pb::PutRequest {
                key: vec![key].into(),
                value: vec![key; VALUE].into(),
                ..Default::default()
            };
            kv.put(put).await.unwrap();
        }
        drop(kv);
        server.idle().await;
        let all = r#"{"key":"AA==","range_end":"AA=="}"#;
        let mut client = Client::to(&server).await;
        client.request("POST /v3/kv/range HTTP/1.1\r\n", all.as_bytes()).await;
        // While it is read, more is set aside for it.
        let is_made = |held| held > 8 * VALUE && held < 9 * VALUE;
        until("it is answered", || is_made(server.api.answers().bytes().0)).await;
        // The answer is 11 MB of JSON, of which there is never more than is on its way.
        Timer::after(Duration::from_millis(100)).await;
        let (held, _) = server.api.answers().bytes();
        assert!(held < 9 * VALUE, "{held}");
        server.idle().await;
        assert_eq!(server.api.answers().bytes().0, 0);
        drop(client);
        let answer = Client::to(&server).await.post("/v3/kv/range", all).await;
        assert_eq!(answer.json["kvs"].as_array().unwrap().len(), 8);
    });
}

#[test]
fn pages_and_rebound_names_get_no_answer() {
    run(async {
        let server = Server::start().await;
        for (headers, status) in [("origin: http://localhost\r\n", 403), ("origin: null\r\n", 403)] {
            let mut client = Client::to(&server).await;
            client.request(&format!("POST /v3/kv/put HTTP/1.1\r\n{headers}"), br#"{"key":"YQ=="}"#).await;
            assert_eq!(client.head().await.0, status, "{headers}");
        }
        let mut client = Client::to(&server).await;
        client.send("POST /v3/kv/put HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 14\r\n\r\n{\"key\":\"YQ==\"}").await;
        assert_eq!(client.head().await.0, 421);
        assert_eq!(Client::to(&server).await.ok("/v3/kv/range", r#"{"key":"YQ=="}"#).await, json!({}));

        let browser = BrowserPolicy { origins: vec!["https://console.example".into()], ..Default::default() };
        let options = ApiOptions { browser, ..Default::default() };
        let server = Server::with(Setup { options, ..Default::default() }).await;
        let mut client = Client::to(&server).await;
        let head = "POST /v3/kv/put HTTP/1.1\r\norigin: https://console.example\r\n";
        client.request(head, br#"{"key":"YQ=="}"#).await;
        let (status, head) = client.head().await;
        assert_eq!(status, 200);
        assert!(head.contains("access-control-allow-origin: https://console.example"), "{head}");
    });
}

#[test]
fn it_can_be_switched_off() {
    run(async {
        let options = ApiOptions { gateway: false, ..Default::default() };
        let server = Server::with(Setup { options, ..Default::default() }).await;
        let answer = Client::to(&server).await.post("/v3/kv/range", "{}").await;
        assert_eq!((answer.status, answer.json), (404, Value::Null));
    });
}
