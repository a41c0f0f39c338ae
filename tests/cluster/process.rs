//! The members of a cluster as processes on loopback.
//!
//! Owns: their data directories, ports, starts and ends. Must never: leave one running, or listen on anything but 127.0.0.1.

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use covey::command::MemberAttributes;
use covey::formation::{
    ClusterRoot, Content, DiskOptions, Founding, Identity, NodeKey, Stage, found, found_solo, open,
};
use covey::ids::PublicKey;
use covey::runtime::files::RealDirectory;
use covey::store::Member;
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use tempfile::TempDir;

/// How long anything that should happen may take.
pub const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(5);

/// Looks again and again until something is there.
#[expect(clippy::disallowed_methods, reason = "a test waits for other processes")]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if let Some(found) = look() {
            return found;
        }
        sleep(LOOK);
    }
    panic!("{what}: not in time");
}

/// A member's place on disk and on the network, whether it runs or not.
pub struct Host {
    pub name: String,
    pub data_dir: PathBuf,
    /// Of clients.
    pub endpoint: String,
    /// Of members.
    pub peer_port: u16,
    child: Option<Child>,
}

impl Host {
    fn log_path(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }

    /// All that it has logged, over all its runs.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Starts it; does not wait until it serves.
    pub fn start(&mut self, more: &[&str]) {
        assert!(self.child.is_none(), "{} runs", self.name);
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_covey"));
        command.args(["serve", "--name", &self.name, "--log-format", "text", "--data-dir"]);
        command.arg(&self.data_dir);
        let (client, peer) =
            (format!("http://{}", self.endpoint), format!("http://127.0.0.1:{}", self.peer_port));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer]).args(more);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_covey"));
        command.args(["--endpoints", &self.endpoint]).args(arguments).env_clear().stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// The same for one that must succeed.
    pub fn must(&self, arguments: &[&str]) -> String {
        match self.run(arguments) {
            Ok(printed) => printed,
            Err(error) => panic!("{} {arguments:?}: {error}\n{}", self.name, self.log()),
        }
    }
}

impl Drop for Host {
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

/// A free port for both protocols. Others may take it before it is used, which the tests would notice.
fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = tcp.local_addr().unwrap().port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Members that run on this machine.
pub struct Cluster {
    pub hosts: Vec<Host>,
    #[expect(dead_code, reason = "removed with the cluster")]
    root: TempDir,
}

impl Cluster {
    /// Members that all vote from the beginning, running and with a leader.
    pub fn start(members: usize) -> Self {
        let root = tempfile::tempdir().unwrap();
        let hosts: Vec<Host> = (0..members).map(|n| new_host(root.path(), n)).collect();
        found_together(&hosts);
        let mut cluster = Self { hosts, root };
        for host in &mut cluster.hosts {
            host.start(&[]);
        }
        cluster.wait_ready();
        cluster
    }

    pub fn wait_ready(&mut self) {
        for host in &mut self.hosts {
            until(&format!("{} serves", host.name), || {
                assert!(host.is_running(), "{} has ended", host.name);
                host.run(&["get", "ready"]).ok()
            });
        }
    }
}

impl Cluster {
    /// Which host leads, as one of them knows it.
    pub fn leader(&self) -> usize {
        until("a leader", || {
            self.hosts.iter().position(|host| {
                let status = host.run(&["status"]).unwrap_or_default();
                status.split(", ").nth(8) == Some("true")
            })
        })
    }
}

fn new_host(root: &Path, n: usize) -> Host {
    let name = format!("m{n}");
    Host {
        data_dir: root.join(&name),
        name,
        endpoint: format!("127.0.0.1:{}", free_port()),
        peer_port: free_port(),
        child: None,
    }
}

/// Makes the data directories of members that know each other and all vote.
fn found_together(hosts: &[Host]) {
    let key = || {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        NodeKey::from_pkcs8(pkcs8.as_ref().to_vec()).unwrap()
    };
    let foundings: Vec<Founding> =
        hosts.iter().map(|host| found_solo(key(), ClusterRoot([7; 32]), host.peer_port.into())).collect();
    let mut members: Vec<Member> =
        hosts.iter().zip(&foundings).map(|(host, founding)| as_member(host, &founding.identity)).collect();
    members.sort_by_key(Member::id);
    for (host, founding) in hosts.iter().zip(&foundings) {
        std::fs::create_dir(&host.data_dir).unwrap();
        let directory = RealDirectory::open(&host.data_dir).unwrap();
        let identity = Identity { stage: Stage::Restoring, ..founding.identity.clone() };
        found(&directory, &identity).unwrap();
        let mut meta = founding.meta.clone();
        meta.conf_state.voters = members.iter().map(Member::id).collect();
        meta.members.clone_from(&members);
        let content = Content { meta, batches: &mut std::iter::empty(), log_start: founding.log_start };
        let made = open(&directory, 1, Some(content), DiskOptions::default()).unwrap();
        made.store.close().unwrap();
    }
}

fn as_member(host: &Host, identity: &Identity) -> Member {
    let attributes = MemberAttributes {
        member: identity.member,
        name: host.name.clone(),
        peer_urls: vec![format!("http://127.0.0.1:{}", host.peer_port)],
        ..MemberAttributes::default()
    };
    Member { key: Some(PublicKey(*identity.key.public())), votes: true, attributes }
}
