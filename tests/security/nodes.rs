//! Processes on the loopback that were told of each other.
//!
//! Owns: their directories, ports and ends. Must never: leave one running, or have one look for others by itself.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use covey::formation::ClusterSecret;
use tempfile::TempDir;

use crate::lan::until;
use crate::port::Port;

pub const PATIENCE: Duration = Duration::from_secs(30);
pub const SECRET: &str = "q83ZJ0c5mPp4XyWuR9tLkd7s";

/// Two nodes, named `a` and `b`.
pub struct Pair {
    pub root: TempDir,
    ports: [u16; 2],
    endpoints: [String; 2],
    children: [Option<Child>; 2],
    pub more: Vec<String>,
    _lent: [[Port; 2]; 2],
}

impl Pair {
    /// None of them runs.
    pub fn new() -> Self {
        let (peers, clients) = ([(); 2].map(|()| Port::lend()), [(); 2].map(|()| Port::lend()));
        Self {
            root: tempfile::tempdir().unwrap(),
            ports: [0, 1].map(|n| peers[n].number),
            endpoints: [0, 1].map(|n| clients[n].address()),
            children: [None, None],
            more: Vec::new(),
            _lent: [peers, clients],
        }
    }

    /// The same with a secret.
    pub fn with_secret() -> Self {
        let mut pair = Self::new();
        let path = pair.root.path().join("secret");
        std::fs::write(&path, SECRET).unwrap();
        pair.more = vec!["--cluster-secret-file".into(), path.to_str().unwrap().into()];
        pair
    }

    /// Where others ask it.
    pub fn joining(&self, n: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[n]))
    }

    pub fn data_dir(&self, n: usize) -> PathBuf {
        self.root.path().join(["a", "b"][n])
    }

    pub fn log(&self, n: usize) -> String {
        std::fs::read_to_string(self.data_dir(n).with_extension("log")).unwrap_or_default()
    }

    pub fn start(&mut self, n: usize) {
        let log = File::options().create(true).append(true).open(self.data_dir(n).with_extension("log"));
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let (peer, client) = (url(self.ports[n]), format!("http://{}", self.endpoints[n]));
        let cluster = format!("a={},b={}", url(self.ports[0]), url(self.ports[1]));
        let mut command = Command::new("/bin/sh");
        // The mask that hides nothing: what is to be hidden does not depend on who starts it, and how.
        command.args(["-c", "umask 0; exec \"$0\" \"$@\"", &program()]).env_clear().stdin(Stdio::null());
        command.args(["serve", "--name", ["a", "b"][n], "--initial-cluster", &cluster]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.arg("--data-dir").arg(self.data_dir(n)).args(&self.more);
        command.stdout(Stdio::null()).stderr(log.unwrap());
        self.children[n] = Some(command.spawn().unwrap());
    }

    /// Both, until they serve.
    pub fn form(mut self) -> Self {
        for n in 0..2 {
            self.start(n);
        }
        for n in 0..2 {
            until("a cluster", PATIENCE, || {
                assert!(self.runs(n), "{}", self.log(n));
                self.log(n).contains("ready to serve client requests").then_some(())
            });
        }
        self
    }

    pub fn runs(&mut self, n: usize) -> bool {
        self.children[n].as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Bytes of memory that it has.
    pub fn memory(&self, n: usize) -> u64 {
        memory_of(self.children[n].as_ref().unwrap().id())
    }

    /// A client command that must succeed.
    pub fn must(&self, n: usize, arguments: &[&str]) -> String {
        let output = covey(&["--endpoints", &self.endpoints[n]]).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}\n{}", self.log(n));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for mut child in self.children.iter_mut().filter_map(Option::take) {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// What every process here has to do with.
pub fn covey(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

fn program() -> String {
    std::env::var("COVEY_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_covey").to_owned())
}

/// What a process has in memory, in bytes.
pub fn memory_of(pid: u32) -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

pub fn secret() -> ClusterSecret {
    ClusterSecret::parse(SECRET).unwrap()
}
