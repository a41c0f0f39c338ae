//! A node's port for clients, from the first byte on.
//!
//! Owns: one node in this process, and that after whatever a connection brought, nothing of it is left and others are served. Must never: take an answer for
//! more than bytes.

use std::net::Shutdown;
use std::sync::OnceLock;
use std::time::Duration;

use smol::Timer;
use smol::future::or;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::clients::CALLS;
use crate::harness::Server;
use crate::input::{Input, piece};

/// What a connection may take to be answered, or given up.
const PATIENCE: Duration = Duration::from_secs(25);
/// Of an answer, no more is read: its window.
const ANSWER_MAX: usize = 60_000;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| smol::block_on(Server::start()))
}

/// Sends all of `bytes`, says that this was all where the answer does not matter, and reads until `enough` or until the end.
async fn talk(bytes: &[u8], all: bool, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let client = server().connect().await;
    let (mut hears, mut says) = (&client, &client);
    let mut answer = Vec::new();
    let read = async {
        let mut some = [0; 4096];
        while answer.len() < ANSWER_MAX && !enough(&answer) {
            match hears.read(&mut some).await {
                Ok(count) if count > 0 => answer.extend_from_slice(&some[..count]),
                _ => break,
            }
        }
    };
    let said = async {
        // Who has heard enough hangs up.
        drop(says.write_all(bytes).await);
        if all {
            drop(client.get_ref().shutdown(Shutdown::Write));
        }
        std::future::pending::<()>().await;
    };
    let late = async {
        Timer::after(PATIENCE).await;
        panic!("neither answered nor given up");
    };
    or(or(read, said), late).await;
    answer
}

/// Nothing is left of it.
async fn gone() {
    let api = &server().api;
    let mut waited = Duration::ZERO;
    while api.counters().connections() > 0 || api.counters().calls() > 0 || api.answers().bytes().0 > 0 {
        assert!(waited < PATIENCE, "{:?}, answers {:?}", api.counters(), api.answers().bytes());
        let step = Duration::from_micros(200);
        Timer::after(step).await;
        waited += step;
    }
}

/// Others are served.
async fn others_are_served() {
    let ask = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = talk(ask, false, |_| false).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&answer));
}

/// Whatever is said first: HTTP/1.1, HTTP/2, or neither.
pub fn connection(bytes: &[u8]) {
    smol::block_on(async {
        let mut input = Input(bytes);
        let said = match input.u8() & 1 {
            0 => input.0.to_vec(),
            _ => [PREFACE, SETTINGS, input.0].concat(),
        };
        talk(&said, true, |_| false).await;
        gone().await;
        others_are_served().await;
        gone().await;
    });
}

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &1_u32.to_be_bytes(), payload].concat()
}

/// A field whose name is at `index` of HPACK's static table, as it is (RFC 7541, section 6.2.2).
fn field(index: u8, value: &[u8]) -> Vec<u8> {
    let name: &[u8] = &[0x0f, index.wrapping_sub(15)];
    let name = if index < 15 { std::slice::from_ref(&index) } else { name };
    [name, &[u8::try_from(value.len()).unwrap()], value].concat()
}

/// Whether the other end has answered: to the end of the stream, unless it has none.
fn is_answered(mut answer: &[u8], endless: bool) -> bool {
    while let Some(([a, b, c, kind, flags, ..], rest)) = answer.split_first_chunk::<9>() {
        let ends = flags & END_STREAM != 0 || endless;
        if (matches!(*kind, DATA | HEADERS) && ends) || matches!(*kind, RESET | GOAWAY) {
            return true;
        }
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        answer = rest.get(length..).unwrap_or_default();
    }
    false
}

/// A call with these messages, which the node has to judge.
pub fn call(bytes: &[u8]) {
    let mut input = Input(bytes);
    let call = &CALLS[usize::from(input.u8()) % CALLS.len()];
    // POST, http.
    let mut fields = vec![0x83, 0x86];
    fields.extend(field(4, call.path.as_bytes()));
    fields.extend(field(1, b"localhost"));
    fields.extend(field(31, b"application/grpc"));
    let mut said = [PREFACE, SETTINGS, &frame(HEADERS, END_HEADERS, &fields)].concat();
    let mut messages = Vec::new();
    while !input.is_empty() {
        let message = input.piece();
        messages.push(0);
        messages.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        messages.extend(message);
    }
    for part in messages.chunks(16 * 1024) {
        said.extend(frame(DATA, 0, part));
    }
    said.extend(frame(DATA, END_STREAM, b""));
    smol::block_on(async {
        // Watchers live until their client has gone.
        let enough = |answer: &[u8]| is_answered(answer, call.path.ends_with("/Watch"));
        let answer = talk(&said, false, enough).await;
        assert!(enough(&answer) || answer.len() >= ANSWER_MAX, "an answer to {}: {answer:?}", call.path);
        gone().await;
        others_are_served().await;
        gone().await;
    });
}

/// Paths of the JSON gateway; of streams with a first object, since nothing is answered to none.
const PATHS: [(&str, &[u8]); 6] = [
    ("/v3/kv/range", b""),
    ("/v3/kv/txn", b""),
    ("/v3/watch", br#"{"create_request":{"key":"YQ=="}}"#),
    ("/v3/lease/keepalive", br#"{"ID":"1"}"#),
    ("/v3/auth/authenticate", b""),
    ("/v3/election/leader", b""),
];

/// How the answer to a body in these pieces begins.
async fn posted<'a>(path: &str, pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n");
    let mut said = head.into_bytes();
    for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
        said.extend(format!("{:x}\r\n", piece.len()).as_bytes());
        said.extend(piece);
        said.extend(b"\r\n");
    }
    said.extend(b"0\r\n\r\n");
    let answer = talk(&said, false, |answer| answer.windows(4).any(|end| end == b"\r\n\r\n")).await;
    let answer = String::from_utf8_lossy(&answer);
    answer.lines().next().unwrap_or_default().to_owned()
}

/// Objects for the JSON gateway: how those of one message are cut changes nothing.
pub fn objects(bytes: &[u8]) {
    let mut input = Input(bytes);
    let (path, first) = PATHS[usize::from(input.u8()) % PATHS.len()];
    let mut pieces = vec![first];
    while !input.is_empty() {
        pieces.push(input.piece());
    }
    smol::block_on(async {
        let cut = posted(path, pieces.iter().copied()).await;
        gone().await;
        let whole = posted(path, [&pieces.concat()[..]]).await;
        gone().await;
        assert!(cut.starts_with("HTTP/1.1 "), "{path}: {cut}");
        // What is wrong in a later object of a stream may come before or after the answer to the first has begun.
        assert!(cut == whole || !first.is_empty(), "{path}, in {} pieces: {cut}, and {whole}", pieces.len());
        others_are_served().await;
        gone().await;
    });
}

pub mod seeds {
    use super::*;

    pub fn connection() -> Vec<Vec<u8>> {
        let http1: [&[u8]; 4] = [
            b"\0GET /version HTTP/1.1\r\nhost: localhost\r\n\r\nGET /metrics HTTP/1.0\r\n\r\n",
            b"\0GET /health?serializable=true&exclude=NOSPACE HTTP/1.1\r\nHost: [::1]:1\r\nConnection: close\r\n\r\n",
            b"\0POST /version HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
            b"\0OPTIONS * HTTP/1.1\r\nhost: evil.example\r\norigin: null\r\ncontent-length: 3\r\n\r\nabc",
        ];
        let get = |path: &[u8], flags| {
            let fields = [vec![0x82, 0x86], field(4, path), field(1, b"http://localhost:2379")].concat();
            frame(HEADERS, flags, &fields)
        };
        let frames = [
            get(b"/health", END_HEADERS | END_STREAM),
            frame(6, 0, b"12345678"),
            frame(8, 0, &65_535_u32.to_be_bytes()),
            frame(3, 0, &8_u32.to_be_bytes()),
            frame(4, 0, &[0, 4, 0, 0, 0, 9]),
            frame(9, END_HEADERS, &[0x82]),
        ];
        let http2 = [1].into_iter().chain(frames.concat()).collect();
        let single = frames.iter().map(|frame| [&[1], &frame[..]].concat());
        http1.iter().map(|seed| seed.to_vec()).chain(single).chain([http2]).collect()
    }

    pub fn objects() -> Vec<Vec<u8>> {
        let bodies: [&[&str]; 6] = [
            &[r#"{"key":"Zm9v","#, r#""range_end":"AA==","limit":"7"} {"key""#],
            &[
                r#"{"compare":[{"key":"YQ==","target":"VERSION"}],"success":[{"request_range":{"key":"YQ=="}}]}"#,
            ],
            &[
                r#"{"create_request":{"key":"YQ=="}}{"create_re"#,
                r#"quest":{"key":"\u0059\\"}}"#,
                r#"{"progress_request":{}}"#,
            ],
            &[r#"{"ID":"1"}"#, "\n", r#"{"ID":"2"}{"#],
            &[r#"{"name":"root","pass"#, r#"word":"}\""}"#],
            &["null", "{}"],
        ];
        let seed = |(path, body): (u8, &&[&str])| {
            [path].into_iter().chain(body.iter().flat_map(|text| piece(text.as_bytes()))).collect()
        };
        (0..).zip(&bodies).map(seed).collect()
    }

    pub fn call() -> Vec<Vec<u8>> {
        (0..).zip(&CALLS).map(|(number, call)| [&[number], &piece(&(call.sound)())[..]].concat()).collect()
    }
}
