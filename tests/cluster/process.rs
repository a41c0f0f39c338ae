//! The members of a cluster as processes.
//!
//! Owns: their data directories, ports, starts and ends. Must never: leave one running, or listen outside of the
//! loopback interface and of namespaces that were made for the test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::memory_group::MemoryGroup;
use crate::port::Port;
use crate::small_disk::SmallDisk;

/// How long anything that should happen may take.
pub const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(5);

/// Where Debian has it: members are started without a PATH.
pub const IP: &str = "/usr/sbin/ip";

/// Looks again and again until something is there.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = now();
    while began.elapsed() < PATIENCE {
        if let Some(found) = look() {
            return found;
        }
        wait(LOOK);
    }
    panic!("{what}: not in time");
}

#[expect(clippy::disallowed_methods, reason = "what is measured is the time of other processes")]
pub fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "other processes go on meanwhile")]
pub fn wait(time: Duration) {
    sleep(time);
}

/// A member's place on disk and on the network, whether it runs or not.
pub struct Host {
    pub name: String,
    pub data_dir: PathBuf,
    /// Of clients.
    pub endpoint: String,
    /// Of members.
    pub peer_port: u16,
    /// The network namespace that it runs in, where it is not the test's own.
    pub netns: Option<String>,
    /// The disk that its data directory is on, where it is one of its own.
    pub disk: Option<SmallDisk>,
    /// What limits its memory, if something does.
    pub group: Option<MemoryGroup>,
    /// The file that says by how much its wall clock is wrong, where it may be; see [`Host::set_clock`].
    pub clock: Option<PathBuf>,
    /// The build that it runs, where that is not this one.
    pub program: Option<String>,
    /// Whether it plays a build that understands one version of commands more.
    pub is_later: bool,
    child: Option<Child>,
    /// Nobody else uses them meanwhile, whether it runs or not.
    _ports: [Port; 2],
}

impl Host {
    fn log_path(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }

    /// Where other members find it.
    pub fn peer_url(&self) -> String {
        let (address, _) = self.endpoint.rsplit_once(':').expect("an address and a port");
        format!("http://{address}:{}", self.peer_port)
    }

    /// As it stands in an initial cluster.
    pub fn named(&self) -> String {
        format!("{}={}", self.name, self.peer_url())
    }

    /// All that it has logged, over all its runs.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Starts it; does not wait until it serves.
    pub fn start(&mut self, more: &[&str]) {
        assert!(self.child.is_none(), "{} runs", self.name);
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let program = self.program.clone().or_else(|| std::env::var("COVEY_BIN").ok());
        let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_covey").to_owned());
        // Either becomes the program, whose process so has the id that is known here.
        let mut command = match (&self.netns, &self.disk, &self.group) {
            (Some(netns), ..) => {
                let mut command = Command::new(IP);
                command.args(["netns", "exec", netns, &program]);
                command
            }
            (None, Some(disk), _) => disk.command(&program),
            (None, None, Some(group)) => group.command(&program),
            (None, None, None) => Command::new(program),
        };
        command.args(["serve", "--name", &self.name, "--log-format", "text", "--data-dir"]);
        command.arg(&self.data_dir);
        let (client, peer) = (format!("http://{}", self.endpoint), self.peer_url());
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer]).args(more);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        if self.is_later {
            command.env("PLAYED_COMMANDS", "3");
        } else if self.program.is_some() {
            // Where no earlier build can be had, this one plays it.
            command.env("PLAYED_COMMANDS", "1");
        }
        if let Some(clock) = &self.clock {
            // The monotonic clock goes on as it does: no battery and no server on the network sets that.
            command.env("LD_PRELOAD", faketime()).env("FAKETIME_TIMESTAMP_FILE", clock);
            command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("TZ", "UTC");
        }
        self.child = Some(command.spawn().unwrap());
    }

    /// Sets its wall clock, while it runs, too: by how much it is wrong, as `+10y`.
    pub fn set_clock(&self, wrong_by: &str) {
        let file = self.clock.as_ref().expect("its clock can be wrong");
        // In one step: it is read all the time.
        let new = file.with_extension("new");
        std::fs::write(&new, wrong_by).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// As by `kill -9`.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits for the end after a signal; the exit code.
    pub fn ended(&mut self) -> i32 {
        let mut child = self.child.take().expect("it runs");
        let status = until("the end of a process", || child.try_wait().unwrap());
        status.code().unwrap_or(-1)
    }

    /// Runs a client command against this member: what it printed, or why it failed.
    pub fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.client(arguments);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// The same with all that came of it.
    pub fn client(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_covey"));
        command.args(["--endpoints", &self.endpoint]).args(arguments).env_clear().stdin(Stdio::null());
        command.output().unwrap()
    }

    /// The same for one that must succeed.
    pub fn must(&self, arguments: &[&str]) -> String {
        match self.run(arguments) {
            Ok(printed) => printed,
            Err(error) => panic!("{} {arguments:?}: {error}\n{}", self.name, self.log()),
        }
    }

    /// A field of what `endpoint status` prints.
    fn status(&self, field: usize) -> Option<String> {
        self.run(&["endpoint", "status"]).ok()?.trim().split(", ").nth(field).map(str::to_owned)
    }

    /// Whether it leads, as it knows it.
    pub fn leads(&self) -> bool {
        self.status(8).as_deref() == Some("true")
    }

    /// The term that it is in.
    pub fn term(&self) -> String {
        until("a status", || self.status(10))
    }
}

impl Drop for Host {
    #[expect(clippy::print_stderr, reason = "what a failed test left behind")]
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            eprintln!("---- {} ----\n{}", self.name, self.log());
        }
    }
}

/// Where Debian's package has it, whatever the machine.
fn faketime() -> PathBuf {
    let libraries = std::fs::read_dir("/usr/lib").unwrap().filter_map(Result::ok);
    let places = libraries.map(|entry| entry.path().join("faketime/libfaketime.so.1"));
    let found = places.into_iter().find(|place| place.exists());
    found.expect("libfaketime is installed")
}

/// Members that run on this machine.
pub struct Cluster {
    pub hosts: Vec<Host>,
    root: TempDir,
}

impl Cluster {
    /// Members that formed a cluster together.
    pub fn start(members: usize) -> Self {
        let mut cluster = Self::prepare(members);
        let initial = cluster.initial();
        for host in &mut cluster.hosts {
            host.start(&["--initial-cluster", &initial]);
        }
        cluster.wait_ready();
        cluster
    }

    /// Hosts that do not run.
    pub fn prepare(members: usize) -> Self {
        let root = tempfile::tempdir().unwrap();
        let hosts = (0..members).map(|n| new_host(root.path(), n)).collect();
        Self { hosts, root }
    }

    /// A file beside the hosts' directories.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// One more host that does not run.
    pub fn add_host(&mut self) -> usize {
        self.hosts.push(new_host(self.root.path(), self.hosts.len()));
        self.hosts.len() - 1
    }

    /// What all hosts are told of each other.
    pub fn initial(&self) -> String {
        self.hosts.iter().map(Host::named).collect::<Vec<_>>().join(",")
    }

    pub fn wait_ready(&mut self) {
        for n in 0..self.hosts.len() {
            until(&format!("{} serves", self.hosts[n].name), || {
                // One may wait for another that is not coming.
                for host in &mut self.hosts {
                    assert!(host.is_running(), "{} has ended", host.name);
                }
                self.hosts[n].run(&["get", "ready"]).ok()
            });
        }
    }
}

impl Cluster {
    /// Which host leads, as one of them knows it.
    pub fn leader(&self) -> usize {
        until("a leader", || self.hosts.iter().position(Host::leads))
    }
}

fn new_host(root: &Path, n: usize) -> Host {
    let name = format!("m{n}");
    let ports = [(); 2].map(|()| Port::lend());
    Host {
        data_dir: root.join(&name),
        name,
        endpoint: ports[0].address(),
        peer_port: ports[1].number,
        netns: None,
        disk: None,
        group: None,
        clock: None,
        program: None,
        is_later: false,
        child: None,
        _ports: ports,
    }
}
