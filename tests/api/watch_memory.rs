//! What watches cost a whole process in memory: RSS, not what the server counts itself.
//!
//! One of them is a test. All of them print figures, also of another build of the program:
//! `COVEY=PATH cargo test --test api watch_memory -- --ignored --nocapture --test-threads 1`.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use covey::wire::etcdserverpb as pb;
use covey::wire::etcdserverpb::kv_client::KvClient;
use covey::wire::etcdserverpb::lease_client::LeaseClient;
use pb::watch_request::RequestUnion;
use smol::{Async, Timer};
use tempfile::TempDir;

use crate::harness::{Channel, PATIENCE};
use crate::watch::{Kv, put};
use crate::watch_load::read_up_to;
use crate::watcher::{Watcher, create};

pub(crate) const MB: usize = 1 << 20;

/// The program, with a directory of its own.
pub(crate) struct Process {
    child: Child,
    address: String,
    _dir: TempDir,
}

impl Process {
    pub(crate) async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let address = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().to_string();
        let program = std::env::var_os("COVEY").unwrap_or_else(|| env!("CARGO_BIN_EXE_covey").into());
        let log = dir.path().join("log");
        let mut command = Command::new(program);
        command.args(["serve", "--solo", "--listen-client-urls", &format!("http://{address}"), "--data-dir"]);
        command.arg(dir.path().join("data")).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let mut process = Self { child: command.spawn().unwrap(), address, _dir: dir };
        while !std::fs::read_to_string(&log).unwrap().contains("ready to serve client requests") {
            assert!(process.child.try_wait().unwrap().is_none(), "it has ended");
            Timer::after(Duration::from_millis(10)).await;
        }
        process
    }

    async fn connect(&self) -> Async<TcpStream> {
        let address: std::net::SocketAddr = self.address.parse().unwrap();
        Async::<TcpStream>::connect(address).await.unwrap()
    }

    pub(crate) async fn kv(&self) -> Kv {
        KvClient::new(Channel::over(self.connect().await).await.unwrap())
    }

    pub(crate) async fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(Channel::over(self.connect().await).await.unwrap())
    }

    /// A line of its status in kB, as bytes.
    fn status(&self, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let kilobytes: usize = line.trim_matches([':', '\t', ' ', 'k', 'B']).parse().unwrap();
        kilobytes * 1024
    }

    /// What it has in memory.
    fn rss(&self) -> usize {
        self.status("VmRSS")
    }

    /// The most it ever had.
    pub(crate) fn peak(&self) -> usize {
        self.status("VmHWM")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a scenario has come to, in bytes of RSS.
struct Figures {
    before: usize,
    peak: usize,
    /// Once all clients have gone.
    after: usize,
}

/// Runs a scenario against a process of its own.
#[expect(clippy::print_stdout, reason = "the figures are what it is run for")]
async fn measure(what: &str, scenario: impl AsyncFnOnce(&Process)) -> Figures {
    let process = Process::start().await;
    let mut kv = process.kv().await;
    put(&mut kv, "first", "v").await;
    let before = process.rss();
    scenario(&process).await;
    drop(kv);
    Timer::after(Duration::from_secs(1)).await;
    let figures = Figures { before, peak: process.peak(), after: process.rss() };
    let [before, peak, after] = [figures.before, figures.peak, figures.after].map(|bytes| bytes / 1024);
    println!("{what}: {before} kB before, {peak} kB at most, {after} kB after");
    figures
}

async fn streams(process: &Process, count: usize, per_connection: usize, window: u32) -> Vec<Watcher> {
    let mut streams = Vec::new();
    let mut channel = None;
    for n in 0..count {
        if n % per_connection == 0 {
            let stream = process.connect().await;
            channel = Some(Channel::with_windows(stream, window, 16 << 20).await.unwrap());
        }
        let mut stream = Watcher::over(channel.clone().unwrap()).await;
        // Every one wants something else, so that no two share what they are told.
        stream.create(create("k", &format!("l{n}"))).await;
        streams.push(stream);
    }
    streams
}

/// Puts the key so many times, eight at a time; the last revision.
async fn write(process: &Process, count: usize, value_bytes: usize) -> i64 {
    const WRITERS: usize = 8;
    let kv = process.kv().await;
    let writers = (0..WRITERS).map(|writer| {
        let (mut kv, value) = (kv.clone(), "v".repeat(value_bytes));
        smol::spawn(async move {
            for _ in (writer..count).step_by(WRITERS) {
                put(&mut kv, "k", &value).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await;
    }
    put(&mut kv.clone(), "k", "last").await
}

/// Everybody reads everything.
async fn read_all(streams: Vec<Watcher>, last: i64) {
    let readers = streams
        .into_iter()
        .map(|mut stream| smol::spawn(async move { read_up_to(&mut stream, 2, last).await }));
    for reader in readers.collect::<Vec<_>>() {
        assert_eq!(reader.await, last);
    }
}

async fn a_thousand_watchers(process: &Process) {
    const WRITES: usize = 1000;
    let streams = streams(process, 1000, 100, 65_535).await;
    let last = 3 + i64::try_from(WRITES).unwrap();
    let readers = smol::spawn(read_all(streams, last));
    assert_eq!(write(process, WRITES, 100).await, last);
    readers.await;
}

/// 200 MB pass it by.
async fn a_slow_reader(process: &Process) {
    const VALUE_BYTES: usize = 20_000;
    let streams = streams(process, 1, 1, 65_535).await;
    let last = write(process, 200 * MB / VALUE_BYTES, VALUE_BYTES).await;
    read_all(streams, last).await;
}

/// Five hundred streams that take nothing, of large values. Nobody sends or takes anything for some time.
async fn stalled_streams(process: &Process) {
    const VALUE_BYTES: usize = 400_000;
    let streams = streams(process, 500, 50, 8 * 1024).await;
    for _ in 0..4 {
        write(process, 2, VALUE_BYTES).await;
        Timer::after(Duration::from_millis(500)).await;
    }
    drop(streams);
}

/// Two hundred clients that come back from where they were, ten times.
async fn a_storm(process: &Process) {
    let last = write(process, 2000, 1000).await;
    for round in 0..10 {
        let mut clients = Vec::new();
        for _ in 0..200 {
            let channel = Channel::over(process.connect().await).await.unwrap();
            clients.push(Watcher::over(channel).await);
        }
        let seen = 3 + round * 100;
        for client in &clients {
            let request = pb::WatchCreateRequest { start_revision: seen + 1, ..create("k", "l") };
            client.send(RequestUnion::CreateRequest(request));
        }
        for client in &mut clients {
            assert!(client.next().await.created);
            read_up_to(client, seen, (seen + 200).min(last)).await;
        }
    }
}

/// Waits as long as it takes, up to minutes.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let late = async {
        Timer::after(PATIENCE * 15).await;
        panic!("the test hangs");
    };
    smol::block_on(smol::future::or(test, late));
}

#[test]
#[ignore = "figures, and nothing to compare them with"]
fn figures() {
    run(async {
        measure("1000 watchers, each on a stream of its own", a_thousand_watchers).await;
        measure("a reader that takes nothing while 200 MB are written", a_slow_reader).await;
        measure("500 streams that take nothing of values of 400 kB", stalled_streams).await;
        measure("200 clients that reconnect 10 times", a_storm).await;
    });
}

/// What their number times their values would be is gigabytes.
#[test]
fn streams_that_take_nothing_cost_no_more_than_their_memory() {
    run(async {
        let Figures { before, peak, .. } = measure("500 streams that take nothing", stalled_streams).await;
        let most = 3 * covey::limits::WATCH_QUEUED_BYTES_MAX;
        assert!(peak - before < most, "{} MB more, where {} are allowed", (peak - before) / MB, most / MB);
    });
}
