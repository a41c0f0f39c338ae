//! Clusters of three, covey's and etcd's, both with TLS between members: the same loads as for one server, over all nodes.
//!
//! Owns: how three servers are started together, and what is measured of them. Must never: let one of the two have another number of clients on
//! its leader. All three share the servers' core, so that what counts is the CPU time of all of them for a call. Driven by `cases`.

use std::fs::{self, Permissions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use tempfile::TempDir;

use crate::cases::{KEYS, Pace, fill, leads, megabytes, millis, put_load, range_load, slow_syncs};
use crate::links::Links;
use crate::load::{Load, Target, run};
use crate::report::Row;
use crate::server::{Kind, Process, Programs, free_port, wait_until_ready};
use crate::turns::{Servers, contest};

const NODES: usize = 3;
/// How long elections and the like have to be over before anything is measured.
pub const SETTLE: Duration = Duration::from_secs(3);

/// Of the bad links: how late each frame is, the share that is lost, and how long they are under load. Losses are rare, so it takes a while until
/// both have had as many.
const LATE_MS: u32 = 20;
const LOST: f64 = 0.02;
const LINKS_LOAD: Duration = Duration::from_secs(40);

/// Running servers, in the order of their names.
pub struct Cluster {
    processes: Vec<Process>,
    /// What starts each, and with what.
    commands: Vec<(Vec<String>, Vec<String>)>,
    pub targets: Vec<Target>,
    /// The same, who led at the start first: a single client is on the leader of both.
    from_leader: Vec<Target>,
    dir: TempDir,
}

impl Cluster {
    /// Starts three, and waits until each answers.
    pub fn start(programs: &Programs, kind: Kind, wrapper: &[String]) -> io::Result<Self> {
        Self::start_many(programs, kind, wrapper, NODES)
    }

    pub fn start_many(programs: &Programs, kind: Kind, wrapper: &[String], nodes: usize) -> io::Result<Self> {
        Self::start_on(programs, kind, nodes, |_| wrapper.to_vec(), None)
    }

    /// One in each namespace of a network, where its clients are, too.
    fn start_over(programs: &Programs, kind: Kind, links: &Links) -> io::Result<Self> {
        let wrapper = |n| ["ip", "netns", "exec", &links.namespace(n)].map(str::to_owned).to_vec();
        Self::start_on(programs, kind, NODES, wrapper, Some(links))
    }

    fn start_on(
        programs: &Programs,
        kind: Kind,
        nodes: usize,
        wrapper: impl Fn(usize) -> Vec<String>,
        links: Option<&Links>,
    ) -> io::Result<Self> {
        let dir = TempDir::new_in(&programs.scratch)?;
        let mut ports = Vec::new();
        for _ in 0..nodes {
            ports.push((free_port()?, free_port()?));
        }
        let scheme = if kind == Kind::Covey { "http" } else { "https" };
        let host = |n| if links.is_some() { Links::address(n) } else { Ipv4Addr::LOCALHOST.to_string() };
        let peer = |n: usize| format!("{scheme}://{}:{}", host(n), ports[n].1);
        let initial: Vec<String> = (0..nodes).map(|n| format!("n{n}={}", peer(n))).collect();
        let secret = links.filter(|_| kind == Kind::Covey).map(|_| secret(dir.path())).transpose()?;
        let (mut processes, mut commands, mut targets) = (Vec::new(), Vec::new(), Vec::new());
        for (n, (port, _)) in ports.iter().enumerate() {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
            let mut words = command(programs, kind, n, dir.path(), address, &peer(n), &initial.join(","));
            if let Some(secret) = &secret {
                words.extend(["--cluster-secret-file".into(), secret.clone()]);
            }
            let wrapper = wrapper(n);
            processes.push(Process::start(&wrapper, &words, &log(dir.path(), n))?);
            commands.push((wrapper, words));
            targets.push(Target { address, tls: None, namespace: links.map(|links| links.namespace(n)) });
        }
        for (n, target) in targets.iter().enumerate() {
            wait_until_ready(target, &log(dir.path(), n))?;
        }
        let mut cluster = Self { processes, commands, from_leader: targets.clone(), targets, dir };
        let leader = cluster.leader()?;
        cluster.from_leader.rotate_left(leader);
        Ok(cluster)
    }

    /// Ends one of them, by SIGTERM or by SIGKILL.
    pub fn end(&mut self, n: usize, kill: bool) -> io::Result<()> {
        self.processes[n].end(kill)
    }

    /// Starts one again that has ended, and waits until it answers.
    pub fn restart(&mut self, n: usize) -> io::Result<()> {
        let (wrapper, words) = &self.commands[n];
        self.processes[n] = Process::start(wrapper, words, &log(self.dir.path(), n))?;
        wait_until_ready(&self.targets[n], &log(self.dir.path(), n))
    }

    /// Which of them leads.
    pub fn leader(&self) -> io::Result<usize> {
        for (n, target) in self.targets.iter().enumerate() {
            if leads(target)? {
                return Ok(n);
            }
        }
        Err(io::Error::other("nobody leads"))
    }
}

impl Servers for Cluster {
    fn loaded(&self) -> &[Target] {
        &self.from_leader
    }

    fn cpu(&self) -> Duration {
        self.processes.iter().map(Process::cpu).sum()
    }
}

fn log(dir: &Path, n: usize) -> std::path::PathBuf {
    dir.join(format!("log{n}"))
}

/// What lets members trust each other beyond loopback.
fn secret(dir: &Path) -> io::Result<String> {
    let file = dir.join("secret");
    fs::write(&file, "bm90LWEtc2VjcmV0LWJ1dC10aGUtYmVuY2gncy1vd24K\n")?;
    fs::set_permissions(&file, Permissions::from_mode(0o600))?;
    Ok(file.display().to_string())
}

fn command(
    programs: &Programs,
    kind: Kind,
    n: usize,
    dir: &Path,
    address: SocketAddr,
    peer: &str,
    initial: &str,
) -> Vec<String> {
    let (name, client) = (format!("n{n}"), format!("http://{address}"));
    let data = dir.join(&name).display().to_string();
    let mut words: Vec<&str> = Vec::new();
    let (covey, etcd) = (programs.covey.display().to_string(), programs.etcd.display().to_string());
    match kind {
        Kind::Covey => words.extend([covey.as_str(), "serve"]),
        Kind::Etcd => words.extend([etcd.as_str(), "--log-level", "error", "--peer-auto-tls"]),
    }
    words.extend(["--name", &name, "--data-dir", &data, "--initial-cluster", initial]);
    words.extend(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    words.extend(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
    words.into_iter().map(str::to_owned).collect()
}

fn compare(programs: &Programs, name: &str, load: &Load, keys: u64) -> io::Result<Vec<Row>> {
    let start = |kind| {
        let cluster = Cluster::start(programs, kind, &[])?;
        fill(&cluster.targets[0], keys)?;
        Ok(cluster)
    };
    let (covey, etcd) = contest(load, start, || Ok(()))?;
    let speeds = (covey.outcome.per_second(), etcd.outcome.per_second());
    let p50 = (millis(covey.outcome.percentile(0.5)), millis(etcd.outcome.percentile(0.5)));
    let cpu = (covey.cpu_per_call(), etcd.cpu_per_call());
    Ok(vec![
        Row::at_most(format!("{name}: CPU per call, all nodes"), "µs", cpu.0, cpu.1, Some(0.6)),
        Row::at_least(format!("{name}: throughput"), "/s", speeds.0, speeds.1, None),
        Row::at_most(format!("{name}: p50"), "ms", p50.0, p50.1, None),
    ])
}

/// Puts of clients that are spread over all nodes.
pub fn puts(programs: &Programs, pace: Pace) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for clients in [1, 100, 1000] {
        let name = format!("three nodes, put 256 B, {clients} clients");
        rows.extend(compare(programs, &name, &put_load(clients, pace), 0)?);
    }
    Ok(rows)
}

/// Linearizable reads of one key, over all nodes.
pub fn reads(programs: &Programs, pace: Pace) -> io::Result<Vec<Row>> {
    let load = Load { duration: pace.load, ..range_load(100, false, 1) };
    compare(programs, "three nodes, linearizable read, 100 clients", &load, KEYS)
}

/// Each sync takes 5 ms longer: how many of them, on how many nodes, stand one after another in a put's way.
pub fn slow_sync(programs: &Programs, pace: Pace) -> io::Result<Vec<Row>> {
    let one = |kind| -> io::Result<f64> {
        let cluster = Cluster::start(programs, kind, &slow_syncs())?;
        Ok(millis(run(&cluster.from_leader, &put_load(100, pace))?.percentile(0.5)))
    };
    let name = "three nodes, 5 ms per sync, 100 clients: put p50".into();
    Ok(vec![Row::at_most(name, "ms", one(Kind::Covey)?, one(Kind::Etcd)?, Some(0.6))])
}

/// Every frame between members is late, and some are lost.
pub fn bad_links(programs: &Programs, _: Pace) -> io::Result<Vec<Row>> {
    let links = Links::new(NODES, LATE_MS, LOST)?;
    let mut rows = Vec::new();
    for clients in [1, 100] {
        let load = put_load(clients, Pace { load: LINKS_LOAD });
        let start = |kind| Cluster::start_over(programs, kind, &links);
        let (covey, etcd) = contest(&load, start, || Ok(()))?;
        let what = |what: &str| {
            format!(
                "three nodes, each frame {LATE_MS} ms late and {} % lost, put, {clients} clients: {what}",
                LOST * 100.0
            )
        };
        let speeds = (covey.outcome.per_second(), etcd.outcome.per_second());
        let at =
            |share: f64| (millis(covey.outcome.percentile(share)), millis(etcd.outcome.percentile(share)));
        let (p50, p99) = (at(0.5), at(0.99));
        rows.push(Row::at_least(what("throughput"), "/s", speeds.0, speeds.1, Some(1.5)));
        rows.push(Row::at_most(what("p50"), "ms", p50.0, p50.1, None));
        rows.push(Row::at_most(what("p99"), "ms", p99.0, p99.1, Some(1.0)));
    }
    Ok(rows)
}

/// What a cluster costs that nobody asks anything of.
pub fn idle(programs: &Programs, pace: Pace) -> io::Result<Vec<Row>> {
    let one = |kind| -> io::Result<[f64; 3]> {
        let cluster = Cluster::start(programs, kind, &[])?;
        sleep(SETTLE);
        let leader = cluster.leader()?;
        let count = || cluster.processes.iter().map(Process::wakeups).collect::<Vec<_>>();
        let before = count();
        sleep(pace.load * 2);
        let rates: Vec<f64> = count()
            .into_iter()
            .zip(before)
            .map(|(after, before)| (after - before) as f64 / (pace.load * 2).as_secs_f64())
            .collect();
        let follower = (0..NODES).filter(|n| *n != leader).map(|n| rates[n]).fold(0.0, f64::max);
        let resident = cluster.processes.iter().map(Process::resident).max().unwrap_or(0);
        Ok([rates[leader], follower, megabytes(resident)])
    };
    let (covey, etcd) = (one(Kind::Covey)?, one(Kind::Etcd)?);
    let names = [
        ("three nodes, idle: wakeups of the leader", "/s", 120.0),
        ("three nodes, idle: wakeups of the busier follower", "/s", 60.0),
        ("three nodes, idle: largest RSS", "MB", 12.0),
    ];
    let row = |(n, (name, unit, limit)): (usize, (&str, &'static str, f64))| {
        let mut row = Row::at_most(name.into(), unit, covey[n], etcd[n], None);
        row.limit = Some(limit);
        row
    };
    Ok(names.into_iter().enumerate().map(row).collect())
}
