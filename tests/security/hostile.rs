//! Bytes that nobody sends, in amounts in which nobody sends them, on every port of a real process: its memory stays bounded, others are served meanwhile, and
//! the log has a line about it, not thousands.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use covey::prng::Prng;
use covey::wire::etcdserverpb as pb;
use covey::wire::etcdserverpb::kv_client::KvClient;
use smol::{Async, Timer, block_on};
use tempfile::TempDir;

use crate::channel::Channel;
use crate::lan::{now, until, wait};
use crate::nodes::{PATIENCE, Pair, covey, memory_of};
use crate::port::Port;

/// Connections that the server takes.
const CONNECTIONS: usize = 96;
/// Calls at a time that it takes on each.
const STREAMS_MAX: usize = 1000;
/// What no attack of these takes more than, in bytes: what is bounded together (answers, unfinished requests) is not reached by any of them.
const GROWTH_MAX: u64 = 48 << 20;
/// How long a client's own request may take while an attack goes on, on a busy machine.
const SERVED_WITHIN: Duration = Duration::from_secs(5);
/// Longer than a server waits for the head of a request.
const HEAD_PATIENCE: Duration = Duration::from_secs(20);
/// What begins each line of the log about somebody who was turned away.
const TURNED_AWAY: &str = "a client was turned away";

/// A member that is alone, behind plain and encrypted ports.
struct Target {
    root: TempDir,
    child: Child,
    plain: SocketAddr,
    tls: SocketAddr,
    probes: SocketAddr,
    _lent: [Port; 4],
}

impl Target {
    fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let lent = [(); 4].map(|()| Port::lend());
        let [plain, tls, probes, peer] =
            [0, 1, 2, 3].map(|n| SocketAddr::from(([127, 0, 0, 1], lent[n].number)));
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let [certificate, key, log] = ["certificate", "key", "log"].map(|name| root.path().join(name));
        fs::write(&certificate, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let clients = format!("http://{plain},https://{tls}");
        let mut command = covey(&["serve", "--name", "target", "--log-format", "text", "--data-dir"]);
        command.arg(root.path().join("data")).args(["--listen-client-urls", &clients]);
        command.args(["--advertise-client-urls", &clients, "--cert-file"]).arg(certificate);
        command.arg("--key-file").arg(key).args(["--listen-metrics-urls", &format!("http://{probes}")]);
        command.args(["--listen-peer-urls", &format!("http://{peer}")]);
        command.args(["--initial-cluster", &format!("target=http://{peer}")]);
        command.args(["--max-connections", &CONNECTIONS.to_string()]);
        command.args(["--max-concurrent-streams", &STREAMS_MAX.to_string()]);
        command.stdout(Stdio::null()).stderr(File::create(log).unwrap());
        let target = Self { child: command.spawn().unwrap(), root, plain, tls, probes, _lent: lent };
        until("it serves", PATIENCE, || {
            let is_ready = target.log().contains("ready to serve client requests");
            is_ready.then_some(())
        });
        target
    }

    fn log(&self) -> String {
        fs::read_to_string(self.root.path().join("log")).unwrap()
    }

    /// Lines about those who were turned away, by their reason.
    fn turned_away(&self) -> BTreeMap<String, usize> {
        let mut lines = BTreeMap::new();
        for line in self.log().lines().filter(|line| line.contains(TURNED_AWAY)) {
            let reason = line.split_once("reason=\"").unwrap_or_else(|| panic!("{line}")).1;
            *lines.entry(reason.split('"').next().unwrap().to_owned()).or_default() += 1;
        }
        lines
    }

    /// Carries out an attack. For one that lasts less than a minute, each of these reasons is told of once, and no other.
    fn survives(mut self, attack: impl FnOnce(&Self), reasons: &[&str]) {
        let lines = self.log().lines().count();
        let before = memory_of(self.child.id());
        // The memory it has had at most counts from here.
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
        let (over, served) = (AtomicBool::new(false), AtomicU64::new(0));
        thread::scope(|scope| {
            let ends = Ends(&over);
            scope.spawn(|| block_on(keep_asking(self.plain, &over, &served)));
            let asked = || Some(served.load(Ordering::Relaxed)).filter(|served| *served > 0);
            let before = until("another client", PATIENCE, asked);
            let began = now();
            attack(&self);
            assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
            // Whoever waits for an answer gets one after it at the latest, and so does whoever asks anew.
            until("another client", PATIENCE, || asked().filter(|served| *served > before + 1));
            drop(ends);
        });
        assert_eq!(self.child.try_wait().unwrap(), None, "{}", self.log());
        let most = highest_memory_of(self.child.id());
        assert!(most < before + GROWTH_MAX, "{before} bytes before, {most} under attack");
        let expected: BTreeMap<String, usize> =
            reasons.iter().map(|reason| ((*reason).to_owned(), 1)).collect();
        assert_eq!(self.turned_away(), expected, "{}", self.log());
        assert!(self.log().lines().count() <= lines + reasons.len() + 2, "{}", self.log());
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Ends the client also where the attack has panicked.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a process has had in memory at most, in bytes.
fn highest_memory_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// A client as any other, which was there before the attack: writes and reads until it is told to stop, and counts how often it was answered.
async fn keep_asking(address: SocketAddr, over: &AtomicBool, served: &AtomicU64) {
    let stream = Async::<TcpStream>::connect(address).await.unwrap();
    stream.get_ref().set_nodelay(true).unwrap();
    let mut kv = KvClient::new(Channel::over(stream).await.unwrap());
    while !over.load(Ordering::Relaxed) {
        let value = served.load(Ordering::Relaxed).to_string();
        let put = pb::PutRequest { key: "key".into(), value: value.clone().into(), ..Default::default() };
        let asked = async {
            kv.put(put).await.unwrap();
            let range = pb::RangeRequest { key: "key".into(), ..Default::default() };
            kv.range(range).await.unwrap().into_inner().kvs.remove(0).value
        };
        let late = async {
            Timer::after(SERVED_WITHIN).await;
            panic!("another client was not served");
        };
        assert_eq!(smol::future::or(asked, late).await, value.as_bytes());
        served.fetch_add(1, Ordering::Relaxed);
        Timer::after(Duration::from_millis(20)).await;
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends as much of this as the other end takes, and reads until it closes; what it said.
fn say(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    // It may have heard enough before the end.
    drop(stream.write_all(bytes));
    drop(stream.shutdown(Shutdown::Write));
    heard(&mut stream)
}

/// What comes until the other end closes.
fn heard(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("it does not close: {error}")
        }
        _ => said,
    }
}

fn random(prng: &mut Prng, bytes_max: u64) -> Vec<u8> {
    let bytes = prng.range(1, bytes_max);
    (0..bytes).map(|_| prng.next_u64().to_le_bytes()[0]).collect()
}

/// What a client begins with that speaks HTTP/2, with its empty settings.
const HTTP2_START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// RFC 9113, section 4.1.
const FRAME_HEAD_BYTES: usize = 9;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a gRPC call (RFC 7541: fields of the static table, the rest literally).
fn call_head(path: &str) -> Vec<u8> {
    let literal = |value: &str| [&[u8::try_from(value.len()).unwrap()], value.as_bytes()].concat();
    let mut head = vec![0x83, 0x86, 0x04];
    head.extend(literal(path));
    head.push(0x01);
    head.extend(literal("localhost"));
    head.extend([0x0f, 0x10]);
    head.extend(literal("application/grpc"));
    head
}

/// Streams of a client have odd numbers.
fn stream_number(n: u32) -> u32 {
    2 * n + 1
}

const NO_REQUEST: &str = "its first bytes are no request";
const BAD_HTTP: &str = "it does not keep to HTTP or its bounds";
const CROWD: &str = "too many connections are open";
const TOO_LARGE: &str = "its message is too large";

#[test]
fn random_bytes_on_the_ports_of_clients_change_nothing() {
    const TIMES: usize = 120;
    let openings: [&[u8]; 6] = [
        b"",
        HTTP2_START,
        b"GET /version HTTP/1.1\r\n",
        b"POST /v3/kv/range HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\0",
        b"\x16",
    ];
    let attack = |target: &Target| {
        let mut prng = Prng::new(6);
        for address in [target.plain, target.tls, target.probes] {
            for n in 0..TIMES {
                let noise = random(&mut prng, 4096);
                say(address, &[openings[n % openings.len()], &noise].concat());
            }
        }
    };
    Target::start().survives(attack, &[NO_REQUEST, BAD_HTTP]);
}

/// Nothing is answered to them, and nothing is said of them: they are no attempt to get in, and anybody can send as many as the wire takes.
#[test]
fn random_packets_on_the_port_of_members_change_nothing() {
    const PACKETS: usize = 4000;
    let mut pair = Pair::new().form();
    let lines = |pair: &Pair| pair.log(0).lines().count();
    let (before, lines_before) = (pair.memory(0), lines(&pair));
    let mut prng = Prng::new(7);
    let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    socket.connect(pair.joining(0)).unwrap();
    for n in 0..PACKETS {
        let mut packet = random(&mut prng, 1400);
        // Half of them look like the first of a connection (RFC 9000, section 17.2).
        if n % 2 == 0 {
            packet = [&[packet[0] | 0xc0, 0, 0, 0, 1], &packet[..], &[0; 1200]].concat();
            packet.truncate(1400);
        }
        // That the port is closed would be told of by the next one.
        socket.send(&packet).unwrap();
        if n % (PACKETS / 10) == 0 {
            pair.must(n / (PACKETS / 10) % 2, &["put", "key", "served meanwhile"]);
        }
    }
    assert_eq!(pair.must(1, &["get", "key"]), "key\nserved meanwhile\n");
    assert!(pair.runs(0), "{}", pair.log(0));
    assert!(pair.memory(0) < before + GROWTH_MAX, "{before} bytes before, {} afterwards", pair.memory(0));
    assert!(lines(&pair) <= lines_before + 2, "{}", pair.log(0));
}

#[test]
fn heads_and_messages_that_are_too_large_are_refused() {
    const TIMES: usize = 20;
    let attack = |target: &Target| {
        let head = [&b"GET /version HTTP/1.1\r\nx: "[..], &vec![b'x'; 1 << 20]].concat();
        for _ in 0..TIMES {
            for address in [target.plain, target.probes] {
                let answer = say(address, &head);
                assert!(
                    answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
                    "{}",
                    String::from_utf8_lossy(&answer)
                );
            }
        }
        // A head in HTTP/2 that goes on and on.
        let more = frame(CONTINUATION, 0, 1, &[0x40, 1, b'x', 1, b'x'].repeat(3000));
        let endless = [HTTP2_START, &frame(HEADERS, 0, 1, &call_head("/a.B/C")), &more.repeat(100)].concat();
        for _ in 0..TIMES {
            say(target.plain, &endless);
        }
        let refusal = block_on(async {
            let stream = Async::<TcpStream>::connect(target.plain).await.unwrap();
            let mut kv = KvClient::new(Channel::over(stream).await.unwrap());
            let put = |bytes| pb::PutRequest {
                key: "k".into(),
                value: vec![b'v'; bytes].into(),
                ..Default::default()
            };
            for _ in 1..TIMES {
                kv.put(put(4 << 20)).await.unwrap_err();
            }
            kv.put(put(4 << 20)).await.unwrap_err()
        });
        assert!(refusal.message().starts_with("grpc: received message larger than max"), "{refusal:?}");
        // A prefix that announces four gigabytes, and nothing behind it.
        let announced = frame(DATA, 0, 1, &[0, 0xff, 0xff, 0xff, 0xff, b'x']);
        let call = frame(HEADERS, END_HEADERS, 1, &call_head("/etcdserverpb.KV/Put"));
        for _ in 0..TIMES {
            say(target.plain, &[HTTP2_START, &call, &announced].concat());
        }
        let head = b"POST /v3/kv/put HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
        let json = [&head[..], b"1000000\r\n{\"key\":\"", &vec![b'a'; 16 << 20][..]].concat();
        for _ in 0..TIMES {
            let answer = say(target.plain, &json);
            assert!(
                answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
                "{}",
                String::from_utf8_lossy(&answer)
            );
        }
    };
    Target::start().survives(attack, &[BAD_HTTP, TOO_LARGE]);
}

#[test]
fn a_flood_of_connections_is_turned_away_at_the_bound() {
    let attack = |target: &Target| {
        let mut held: Vec<TcpStream> = (0..4 * CONNECTIONS).map(|_| connect(target.plain)).collect();
        let is_closed = |stream: &mut TcpStream| {
            stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            match stream.read(&mut [0_u8]) {
                Ok(count) => count == 0,
                Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            }
        };
        // One place is the client's that came before.
        until("the rest is turned away", PATIENCE, || {
            let open = held.iter_mut().filter_map(|stream| (!is_closed(stream)).then_some(())).count();
            (open < CONNECTIONS).then_some(())
        });
    };
    Target::start().survives(attack, &[CROWD]);
}

/// HTTP/2 lets a client open a stream and take it back in the next frame, as often as it likes.
#[test]
fn streams_that_are_reset_at_once_end_their_connection() {
    const STREAMS: u32 = 20_000;
    let attack = |target: &Target| {
        let head = call_head("/etcdserverpb.KV/Range");
        let cancelled = 8_u32.to_be_bytes();
        let mut flood = HTTP2_START.to_vec();
        for n in 0..STREAMS {
            flood.extend(frame(HEADERS, END_HEADERS, stream_number(n), &head));
            flood.extend(frame(RST_STREAM, 0, stream_number(n), &cancelled));
        }
        for _ in 0..4 {
            say(target.plain, &flood);
        }
    };
    Target::start().survives(attack, &[BAD_HTTP]);
}

/// Calls that never say what they want are kept, as many as one connection may have. More are refused, and whoever goes on all the same is turned away.
#[test]
fn a_flood_of_streams_ends_its_connection() {
    const STREAMS: u32 = 20_000;
    let attack = |target: &Target| {
        let head = call_head("/etcdserverpb.Watch/Watch");
        let calls = (0..STREAMS).flat_map(|n| frame(HEADERS, END_HEADERS, stream_number(n), &head));
        let flood: Vec<u8> = HTTP2_START.iter().copied().chain(calls).collect();
        let mut stream = connect(target.plain);
        let mut writer = stream.try_clone().unwrap();
        let writes = thread::spawn(move || writer.write_all(&flood).is_ok());
        let frames = take_frames(&mut heard(&mut stream));
        assert!(frames.iter().any(|(kind, _)| *kind == RST_STREAM || *kind == GOAWAY), "nothing was refused");
        writes.join().unwrap();
    };
    Target::start().survives(attack, &[BAD_HTTP]);
}

/// Takes whole frames off what has come: their kinds and payloads.
fn take_frames(came: &mut Vec<u8>) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while came.len() >= FRAME_HEAD_BYTES {
        let length = u32::from_be_bytes([0, came[0], came[1], came[2]]) as usize;
        if came.len() < FRAME_HEAD_BYTES + length {
            break;
        }
        let frame: Vec<u8> = came.drain(..FRAME_HEAD_BYTES + length).collect();
        frames.push((frame[3], frame[FRAME_HEAD_BYTES..].to_vec()));
    }
    frames
}

/// A byte now and then keeps no place for ever.
#[test]
fn a_head_that_never_ends_is_not_waited_for() {
    let attack = |target: &Target| {
        let began = now();
        let mut slow: Vec<TcpStream> = (0..CONNECTIONS / 2).map(|_| connect(target.plain)).collect();
        for stream in &mut slow {
            stream.write_all(b"GET /version HTTP/1.1\r\nhost: ").unwrap();
        }
        while !slow.is_empty() {
            assert!(began.elapsed() < HEAD_PATIENCE, "{} are still there", slow.len());
            wait(Duration::from_millis(500));
            slow.retain_mut(|stream| stream.write_all(b"x").is_ok());
        }
    };
    Target::start().survives(attack, &[BAD_HTTP]);
}

/// The first connections may send more at once than those in a crowd, and all together no more than there is a budget for.
#[test]
fn windows_shrink_as_connections_become_many() {
    let target = Target::start();
    let mut held: Vec<TcpStream> = (0..CONNECTIONS - 1).map(|_| connect(target.plain)).collect();
    let windows: Vec<u32> = held
        .iter_mut()
        .map(|stream| {
            stream.write_all(HTTP2_START).unwrap();
            window_of(stream)
        })
        .collect();
    assert!(windows[0] > 1 << 20, "{windows:?}");
    assert!(windows[CONNECTIONS - 2] < 128 << 10, "{windows:?}");
    assert!(windows.is_sorted_by(|first, second| first >= second), "{windows:?}");
    let all: u64 = windows.iter().map(|window| u64::from(*window)).sum();
    assert!(all <= (CONNECTIONS as u64) * 65_535 + (64 << 20), "{all}");
    drop(held);
    until("a large one again", PATIENCE, || {
        let mut stream = connect(target.plain);
        stream.write_all(HTTP2_START).ok()?;
        (window_of(&mut stream) >= windows[0]).then_some(())
    });
}

/// What a connection may send before anything is read: HTTP/2's first window, and what the server adds to it.
fn window_of(stream: &mut TcpStream) -> u32 {
    let (mut came, mut window) = (Vec::new(), 65_535);
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "it has closed");
        came.extend_from_slice(&buffer[..count]);
        for (kind, payload) in take_frames(&mut came) {
            match kind {
                WINDOW_UPDATE => window += u32::from_be_bytes(payload.try_into().unwrap()),
                // It has our settings. Once it answers this, too, it has said all that it says by itself.
                SETTINGS if payload.is_empty() => stream.write_all(&frame(PING, 0, 0, &[0; 8])).unwrap(),
                PING => return window,
                _ => {}
            }
        }
    }
}
