//! What is measured, and how: one function for each row of the table.
//!
//! Owns: the workloads. Must never: compare servers that were started differently, or take a figure of one run for both. Driven by `main`.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::rc::Rc;
use std::slice;
use std::time::{Duration, Instant};

use covey::wire::etcdserverpb as pb;
use prost::Message as _;
use smol::LocalExecutor;

use crate::device;
use crate::failover;
use crate::grow;
use crate::http2::{Answer, Connection};
use crate::load::{Load, Outcome, Stream, Target, percentile, run};
use crate::report::Row;
use crate::server::{Kind, Programs, Server, Setup};
use crate::three;
use crate::turns::contest;
use crate::upkeep;

pub const PUT: &str = "/etcdserverpb.KV/Put";
pub const RANGE: &str = "/etcdserverpb.KV/Range";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const VALUE_BYTES: usize = 256;
/// Keys that writes go to.
pub const KEYS: u64 = 1000;
/// Syncs of the disk's own measure, before each turn.
const SYNCS: usize = 100;
const WATCHERS: usize = 1000;
const IDLE_CONNECTIONS: usize = 500;
const IDLE_WATCHERS: usize = 20_000;
const MANY_KEYS: u64 = 100_000;
/// So large that [`MANY_KEYS`] of them are a gigabyte.
const LARGE_VALUE_BYTES: usize = 10_000;

/// How long a measure runs.
#[derive(Clone, Copy)]
pub struct Pace {
    pub load: Duration,
}

/// A measure: makes rows of the table.
pub type Measure = fn(&Programs, Pace) -> io::Result<Vec<Row>>;

/// All measures, by the name that `--only` takes.
pub const MEASURES: [(&str, Measure); 23] = [
    ("put", puts),
    ("read", reads),
    ("put-tls", puts_tls),
    ("read-tls", reads_tls),
    ("watch", watch),
    ("latency", latency),
    ("slow-sync", slow_sync),
    ("syncs", syncs),
    ("stalls", upkeep::stalls),
    ("device", device::per_put),
    ("device-idle", device::idle),
    ("memory", memory),
    ("restart", restart),
    ("restart-large", restart_large),
    ("idle", idle),
    ("connections", connections),
    ("three-put", three::puts),
    ("three-read", three::reads),
    ("three-slow-sync", three::slow_sync),
    ("three-idle", three::idle),
    ("three-links", three::bad_links),
    ("three-failover", failover::gaps),
    ("grow", grow::grow),
];

/// Whether a server answers a read.
pub fn answers(target: &Target) -> bool {
    call_once(target, RANGE, &(range_load(1, false, 1).message)(0)).is_ok()
}

/// Whether a server leads its cluster.
pub fn leads(target: &Target) -> io::Result<bool> {
    let answer = call_once(target, STATUS, &pb::StatusRequest {}.encode_to_vec())?;
    let status = pb::StatusResponse::decode(&answer[..]).map_err(io::Error::other)?;
    Ok(status.header.is_some_and(|header| header.member_id == status.leader))
}

fn call_once(target: &Target, path: &'static str, message: &[u8]) -> io::Result<Vec<u8>> {
    smol::block_on(async { call(&mut target.connect().await?, path, message).await })
}

/// One call on a connection that has no other; its answer's message.
pub async fn call(
    connection: &mut Connection<Stream>,
    path: &'static str,
    message: &[u8],
) -> io::Result<Vec<u8>> {
    connection.call(path, message, true);
    connection.flush().await?;
    let (mut answers, mut found) = (Vec::new(), None);
    loop {
        connection.receive(&mut answers).await?;
        for answer in answers.drain(..) {
            match answer {
                Answer::Message { body, .. } => found = Some(body),
                Answer::Ended { .. } => {
                    return found.ok_or_else(|| io::Error::other("the call was refused"));
                }
            }
        }
    }
}

pub fn put_message(number: u64, keys: u64) -> Vec<u8> {
    put_message_of(number, keys, VALUE_BYTES)
}

pub fn put_message_of(number: u64, keys: u64, bytes: usize) -> Vec<u8> {
    // Spread, and different for each value, so that neither order nor compression helps anybody.
    let mixed =
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let key = format!("/bench/{:016x}", mixed % keys);
    let mut value = Vec::with_capacity(bytes);
    let mut state = mixed | 1;
    while value.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        value.extend(state.to_le_bytes());
    }
    pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }.encode_to_vec()
}

pub fn put_load(clients: usize, pace: Pace) -> Load {
    let message = Rc::new(|number| put_message(number, KEYS));
    Load { path: PUT, message, clients, duration: pace.load, pace: None }
}

pub fn range_load(clients: usize, serializable: bool, limit: i64) -> Load {
    let message = Rc::new(move |number: u64| {
        let key = format!("/bench/{:016x}", number.wrapping_mul(7919) % KEYS);
        let (key, range_end) =
            if limit > 1 { ("/bench/".into(), "/bench0".into()) } else { (key.into(), bytes::Bytes::new()) };
        pb::RangeRequest { key, range_end, limit, serializable, ..Default::default() }.encode_to_vec()
    });
    Load { path: RANGE, message, clients, duration: Duration::from_secs(1), pace: None }
}

/// Every key once, in order.
pub fn fill(target: &Target, keys: u64) -> io::Result<()> {
    fill_with(target, keys, VALUE_BYTES)
}

pub fn fill_with(target: &Target, keys: u64, bytes: usize) -> io::Result<()> {
    smol::block_on(async {
        let mut connection = target.connect().await?;
        let (mut asked, mut answered, mut ended, mut answers) = (0, 0, 0, Vec::new());
        while ended < keys {
            while asked < keys && asked - ended < 64 {
                let put = pb::PutRequest {
                    key: format!("/bench/{asked:016x}").into(),
                    value: vec![b'v'; bytes].into(),
                    ..Default::default()
                };
                connection.call(PUT, &put.encode_to_vec(), true);
                asked += 1;
            }
            connection.flush().await?;
            connection.receive(&mut answers).await?;
            for answer in answers.drain(..) {
                match answer {
                    Answer::Message { .. } => answered += 1,
                    Answer::Ended { .. } => ended += 1,
                }
            }
        }
        if answered < ended {
            return Err(io::Error::other(format!("{} puts were refused", ended - answered)));
        }
        Ok(())
    })
}

/// CPU per call and throughput of one load, on both.
fn compare(
    programs: &Programs,
    name: &str,
    tls: bool,
    load: &Load,
    cpu: f64,
    speed: Option<f64>,
) -> io::Result<Vec<Row>> {
    let start = |kind| {
        let server = Server::start(programs, kind, Setup { tls, ..Setup::default() })?;
        if load.path == RANGE {
            fill(&server.target, KEYS)?;
        }
        Ok(server)
    };
    let (covey, etcd) = contest(load, start, || Ok(()))?;
    let cpus = (covey.cpu_per_call(), etcd.cpu_per_call());
    let (covey, etcd) = (covey.outcome, etcd.outcome);
    let at = |share| (millis(covey.percentile(share)), millis(etcd.percentile(share)));
    let (p50, p99) = (at(0.5), at(0.99));
    Ok(vec![
        Row::at_most(format!("{name}: CPU per call"), "µs", cpus.0, cpus.1, Some(cpu)),
        Row::at_least(format!("{name}: throughput"), "/s", covey.per_second(), etcd.per_second(), speed),
        Row::at_most(format!("{name}: p50"), "ms", p50.0, p50.1, None),
        Row::at_most(format!("{name}: p99"), "ms", p99.0, p99.1, None),
    ])
}

pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn puts(programs: &Programs, pace: Pace) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (clients, speed) in [(1, 1.3), (100, 2.0), (1000, 2.0)] {
        let name = format!("put 256 B, {clients} clients");
        rows.extend(compare(programs, &name, false, &put_load(clients, pace), 0.5, Some(speed))?);
    }
    Ok(rows)
}

fn puts_tls(programs: &Programs, pace: Pace) -> io::Result<Vec<Row>> {
    compare(programs, "put 256 B over TLS, 100 clients", true, &put_load(100, pace), 0.4, None)
}

fn reads(programs: &Programs, pace: Pace) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    let kinds = [
        ("one key, linearizable", false, 1),
        ("one key, serializable", true, 1),
        ("range of 100", false, 100),
    ];
    for (name, serializable, limit) in kinds {
        let load = Load { duration: pace.load, ..range_load(100, serializable, limit) };
        rows.extend(compare(programs, &format!("read {name}, 100 clients"), false, &load, 0.5, None)?);
    }
    Ok(rows)
}

fn reads_tls(programs: &Programs, pace: Pace) -> io::Result<Vec<Row>> {
    let load = Load { duration: pace.load, ..range_load(100, false, 1) };
    compare(programs, "read one key over TLS, 100 clients", true, &load, 0.35, None)
}

/// What 1000 watchers of one prefix cost for each event that they get, and how long an event takes from the put that made it.
fn watch(programs: &Programs, pace: Pace) -> io::Result<Vec<Row>> {
    let one = |kind| -> io::Result<(f64, Duration)> {
        let server = Server::start(programs, kind, Setup::default())?;
        let before = server.process().cpu();
        let (events, mut delays) = smol::block_on(watch_events(&server.target, pace.load))?;
        delays.sort_unstable();
        let cpu = server.process().cpu().saturating_sub(before).as_secs_f64() * 1e6 / events as f64;
        Ok((cpu, percentile(&delays, 0.99)))
    };
    let ((covey_cpu, covey_delay), (etcd_cpu, etcd_delay)) = (one(Kind::Covey)?, one(Kind::Etcd)?);
    Ok(vec![
        Row::at_most("1000 watchers: CPU per event".into(), "µs", covey_cpu, etcd_cpu, Some(0.6)),
        Row::at_most(
            "1000 watchers: put to event, p99".into(),
            "ms",
            millis(covey_delay),
            millis(etcd_delay),
            Some(0.5),
        ),
    ])
}

async fn watch_events(target: &Target, duration: Duration) -> io::Result<(u64, Vec<Duration>)> {
    let create =
        pb::WatchCreateRequest { key: "/bench/".into(), range_end: "/bench0".into(), ..Default::default() };
    let mut watching = target.connect().await?;
    for _ in 0..WATCHERS {
        watching.call(WATCH, &watch_request(create.clone()), false);
    }
    watching.flush().await?;
    let (mut answers, mut created) = (Vec::new(), 0);
    while created < WATCHERS {
        watching.receive(&mut answers).await?;
        created += answers.drain(..).count();
    }
    let mut writing = target.connect().await?;
    let (began, mut events, mut delays, mut number) = (Instant::now(), 0, Vec::new(), 0);
    while began.elapsed() < duration {
        let asked = Instant::now();
        writing.call(PUT, &put_message(number, KEYS), true);
        number += 1;
        writing.flush().await?;
        let mut seen = 0;
        while seen < WATCHERS {
            watching.receive(&mut answers).await?;
            for answer in answers.drain(..) {
                let Answer::Message { body, .. } = answer else { continue };
                seen += pb::WatchResponse::decode(&body[..]).map_err(io::Error::other)?.events.len();
                delays.push(asked.elapsed());
            }
        }
        events += seen as u64;
        writing.receive(&mut answers).await?;
        answers.clear();
    }
    Ok((events, delays))
}

fn watch_request(create: pb::WatchCreateRequest) -> Vec<u8> {
    use pb::watch_request::RequestUnion;
    pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }.encode_to_vec()
}

/// A lone client's put beside the disk's own sync.
fn latency(programs: &Programs, pace: Pace) -> io::Result<Vec<Row>> {
    let file = long_file(&programs.scratch)?;
    let mut disk = Vec::new();
    let start = |kind| Server::start(programs, kind, Setup::default());
    let (covey, etcd) = contest(&put_load(1, pace), start, || {
        disk.extend(sync_latencies(&file)?);
        Ok(())
    })?;
    disk.sort_unstable();
    let in_syncs =
        |outcome: &Outcome| outcome.percentile(0.5).as_secs_f64() / percentile(&disk, 0.5).as_secs_f64();
    let (covey, etcd) = (in_syncs(&covey.outcome), in_syncs(&etcd.outcome));
    let mut row = Row::at_most("put p50 in fdatasyncs, 1 client".into(), "×", covey, etcd, None);
    row.limit = Some(1.5);
    Ok(vec![row])
}

/// A file in which every page has its place on the disk.
fn long_file(dir: &Path) -> io::Result<fs::File> {
    let mut file = tempfile::tempfile_in(dir)?;
    file.write_all(&vec![0; 4096 * SYNCS])?;
    file.sync_all()?;
    Ok(file)
}

/// How long the disk's fdatasync takes after a small write into a file that is long enough already.
fn sync_latencies(file: &fs::File) -> io::Result<Vec<Duration>> {
    let mut took = Vec::new();
    for number in 0..SYNCS {
        std::os::unix::fs::FileExt::write_all_at(file, &[1; 512], 4096 * number as u64)?;
        let began = Instant::now();
        file.sync_data()?;
        took.push(began.elapsed());
    }
    Ok(took)
}

fn strace(words: &[&str]) -> Vec<String> {
    let fixed = ["strace", "-f", "--seccomp-bpf", "-qq"];
    fixed.iter().chain(words).map(|word| (*word).to_owned()).collect()
}

/// A wrapper in which each sync takes 5 ms longer.
pub fn slow_syncs() -> Vec<String> {
    let (trace, inject) = ("trace=fdatasync,fsync", "inject=fdatasync,fsync:delay_exit=5000");
    strace(&["-e", trace, "-e", inject, "-o", "/dev/null"])
}

/// Each sync takes 5 ms longer: how many of them stand one after another in a put's way.
fn slow_sync(programs: &Programs, pace: Pace) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (clients, limit) in [(1, 1.0), (100, 0.6)] {
        let one = |kind| -> io::Result<Duration> {
            let server = Server::start(programs, kind, Setup { wrapper: slow_syncs(), ..Setup::default() })?;
            Ok(run(slice::from_ref(&server.target), &put_load(clients, pace))?.percentile(0.5))
        };
        let (covey, etcd) = (millis(one(Kind::Covey)?), millis(one(Kind::Etcd)?));
        rows.push(Row::at_most(
            format!("5 ms per sync, {clients} clients: put p50"),
            "ms",
            covey,
            etcd,
            Some(limit),
        ));
    }
    Ok(rows)
}

/// Syncs for each put of a trickle.
fn syncs(programs: &Programs, pace: Pace) -> io::Result<Vec<Row>> {
    let one = |kind| -> io::Result<f64> {
        let dir = tempfile::tempdir_in(&programs.scratch)?;
        let log = dir.path().join("syncs");
        let wrapper = strace(&["-e", "trace=fdatasync,fsync", "-o", &log.display().to_string()]);
        let server = Server::start(programs, kind, Setup { wrapper, ..Setup::default() })?;
        let count = || fs::read_to_string(&log).map(|text| text.matches("sync(").count());
        std::thread::sleep(Duration::from_secs(1));
        let before = count()?;
        let load =
            Load { pace: Some(Duration::from_millis(100)), duration: pace.load * 2, ..put_load(1, pace) };
        let outcome = run(slice::from_ref(&server.target), &load)?;
        Ok((count()? - before) as f64 / outcome.calls as f64)
    };
    let mut row =
        Row::at_most("fdatasync per put at 10/s".into(), "", one(Kind::Covey)?, one(Kind::Etcd)?, None);
    row.limit = Some(1.0);
    Ok(vec![row])
}

fn memory(programs: &Programs, _: Pace) -> io::Result<Vec<Row>> {
    let one = |kind| -> io::Result<[f64; 4]> {
        let server = Server::start(programs, kind, Setup::default())?;
        std::thread::sleep(Duration::from_secs(1));
        let fresh = server.process().resident();
        let size = directory_bytes(&server.data())?;
        for _ in 0..MANY_KEYS / KEYS {
            fill(&server.target, KEYS)?;
        }
        let rewritten = server.process().resident();
        let server = Server::start(programs, kind, Setup::default())?;
        fill(&server.target, MANY_KEYS)?;
        Ok([megabytes(fresh), megabytes(rewritten), megabytes(server.process().resident()), megabytes(size)])
    };
    let (covey, etcd) = (one(Kind::Covey)?, one(Kind::Etcd)?);
    let names =
        ["RSS fresh", "RSS after 100k puts over 1k keys", "RSS with 100k keys", "empty data directory"];
    let limits = [8.0, 32.0, 48.0, 8.0];
    let row = |n: usize| {
        let mut row = Row::at_most(names[n].into(), "MB", covey[n], etcd[n], None);
        row.limit = Some(limits[n]);
        row
    };
    Ok((0..names.len()).map(row).collect())
}

/// What the files of a directory take on the disk.
pub fn directory_bytes(dir: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() {
            directory_bytes(&entry.path())?
        } else {
            std::os::unix::fs::MetadataExt::blocks(&metadata) * 512
        };
    }
    Ok(sum)
}

fn restart(programs: &Programs, _: Pace) -> io::Result<Vec<Row>> {
    restart_with(programs, "100k keys", VALUE_BYTES, Some(0.15))
}

fn restart_large(programs: &Programs, _: Pace) -> io::Result<Vec<Row>> {
    restart_with(programs, "1 GB", LARGE_VALUE_BYTES, None)
}

fn restart_with(programs: &Programs, what: &str, bytes: usize, ratio: Option<f64>) -> io::Result<Vec<Row>> {
    // The one that was killed has the log of what it had not written down to go through.
    let one = |kind| -> io::Result<[Duration; 2]> {
        let mut server = Server::start(programs, kind, Setup::default())?;
        fill_with(&server.target, MANY_KEYS, bytes)?;
        Ok([server.restart(true)?, server.restart(false)?])
    };
    let (covey, etcd) = (one(Kind::Covey)?, one(Kind::Etcd)?);
    let row = |(n, how): (usize, &str)| {
        let name = format!("restart with {what}, {how}");
        Row::at_most(name, "ms", millis(covey[n]), millis(etcd[n]), ratio)
    };
    Ok(["after kill -9", "clean"].into_iter().enumerate().map(row).collect())
}

fn idle(programs: &Programs, pace: Pace) -> io::Result<Vec<Row>> {
    let one = |kind| -> io::Result<f64> {
        let server = Server::start(programs, kind, Setup::default())?;
        std::thread::sleep(Duration::from_secs(3));
        let before = server.process().wakeups();
        std::thread::sleep(pace.load * 2);
        Ok((server.process().wakeups() - before) as f64 / (pace.load * 2).as_secs_f64())
    };
    let mut row = Row::at_most("idle wakeups".into(), "/s", one(Kind::Covey)?, one(Kind::Etcd)?, None);
    row.limit = Some(5.0);
    Ok(vec![row])
}

/// What a connection costs that does nothing, and a watcher that sees nothing.
fn connections(programs: &Programs, _: Pace) -> io::Result<Vec<Row>> {
    let one = |kind, tls| -> io::Result<f64> {
        let server = Server::start(programs, kind, Setup { tls, ..Setup::default() })?;
        smol::block_on(async {
            let before = server.process().resident();
            let mut open = Vec::new();
            for number in 0..IDLE_CONNECTIONS {
                let mut connection = server.target.connect().await?;
                let message = (range_load(1, true, 1).message)(number as u64);
                connection.call(RANGE, &message, true);
                connection.flush().await?;
                let mut answers = Vec::new();
                while !answers.iter().any(|answer| matches!(answer, Answer::Ended { .. })) {
                    connection.receive(&mut answers).await?;
                }
                open.push(connection);
            }
            Ok((server.process().resident() - before) as f64 / 1024.0 / open.len() as f64)
        })
    };
    let watchers = |kind| -> io::Result<f64> {
        let server = Server::start(programs, kind, Setup::default())?;
        smol::block_on(LocalExecutor::new().run(idle_watchers(&server)))
    };
    let absolute = |name: &str, covey, etcd, limit| {
        let mut row = Row::at_most(name.into(), "KB", covey, etcd, None);
        row.limit = Some(limit);
        row
    };
    Ok(vec![
        absolute("idle connection", one(Kind::Covey, false)?, one(Kind::Etcd, false)?, 30.0),
        absolute("idle TLS connection", one(Kind::Covey, true)?, one(Kind::Etcd, true)?, 60.0),
        absolute("idle watcher", watchers(Kind::Covey)?, watchers(Kind::Etcd)?, 0.5),
    ])
}

async fn idle_watchers(server: &Server) -> io::Result<f64> {
    let mut connection = server.target.connect().await?;
    let before = server.process().resident();
    let (mut stream, mut answers, mut created) = (None, Vec::new(), 0);
    for number in 0..IDLE_WATCHERS {
        let key = format!("/bench/{number:016x}");
        let message = watch_request(pb::WatchCreateRequest { key: key.into(), ..Default::default() });
        match stream {
            None => stream = Some(connection.call(WATCH, &message, false)),
            Some(stream) => connection.send(stream, &message, false),
        }
        connection.flush().await?;
        while created <= number {
            connection.receive(&mut answers).await?;
            created += answers.drain(..).count();
        }
    }
    Ok((server.process().resident() - before) as f64 / 1024.0 / IDLE_WATCHERS as f64)
}
