//! The servers that are compared: covey as this build made it, and an etcd, each alone on one core.
//!
//! Owns: their processes, data directories and certificates, and what the system says of a process. Must never: listen beyond 127.0.0.1.
//! Driven by `cases`.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::slice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

use crate::load::Target;
use crate::turns::Servers;

/// The core that servers run on; the generator has the other one.
const SERVER_CORE: &str = "0";
const START_PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(1);
/// What `/proc` counts CPU time in, per second, on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Covey,
    Etcd,
}

/// What is compared.
#[derive(Clone)]
pub struct Programs {
    pub covey: PathBuf,
    pub etcd: PathBuf,
    /// Where data directories are made; the disk that is measured.
    pub scratch: PathBuf,
}

/// How a server is started beyond the default.
#[derive(Clone, Default)]
pub struct Setup {
    pub tls: bool,
    /// A program, with its arguments, that starts the server: `strace`, say.
    pub wrapper: Vec<String>,
    /// Where its data goes; a fresh directory without it.
    pub data: Option<PathBuf>,
}

/// A server's process. It is killed when this is dropped.
pub struct Process {
    child: Child,
    /// Another program started the server, and waits for it.
    wrapped: bool,
}

impl Process {
    /// Starts a program with its arguments on the servers' core; what it prints goes to `log`.
    pub fn start(wrapper: &[String], words: &[String], log: &Path) -> io::Result<Self> {
        let log = fs::File::create(log)?;
        let child = Command::new("taskset")
            .args(["-c", SERVER_CORE, "setpriv", "--pdeathsig", "KILL"])
            .args(wrapper)
            .args(words)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self { child, wrapped: !wrapper.is_empty() })
    }

    /// Ends the process, by SIGTERM or by SIGKILL.
    pub fn end(&mut self, kill: bool) -> io::Result<()> {
        let signal = if kill { "-KILL" } else { "-TERM" };
        Command::new("kill").args([signal, &self.pid().to_string()]).status()?;
        self.child.wait()?;
        Ok(())
    }

    /// The server's own process: a wrapper's only child.
    pub fn pid(&self) -> u32 {
        let own = self.child.id();
        if !self.wrapped {
            return own;
        }
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        children.split_whitespace().next().and_then(|pid| pid.parse().ok()).unwrap_or(own)
    }

    /// CPU time that the process has used.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        // Fields 14 and 15; the second field may hold anything in parentheses.
        let rest = stat.rsplit(')').next().unwrap_or_default();
        let ticks: u64 =
            rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        status_number(Path::new(&format!("/proc/{}/status", self.pid())), "VmRSS:") * 1024
    }

    /// How often its threads have gone to sleep and been woken.
    pub fn wakeups(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
        tasks.map(|task| status_number(&task.path().join("status"), "voluntary_ctxt_switches:")).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // A wrapper ends with what it wraps.
        let ended = self.end(true);
        if ended.is_err() {
            self.child.kill().ok();
        }
    }
}

/// A running server, alone.
pub struct Server {
    process: Process,
    kind: Kind,
    programs: Programs,
    setup: Setup,
    pub target: Target,
    dir: TempDir,
}

impl Server {
    /// Starts one and waits until it takes connections.
    pub fn start(programs: &Programs, kind: Kind, setup: Setup) -> io::Result<Self> {
        let dir = TempDir::new_in(&programs.scratch)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let tls = if setup.tls { Some(certificate(dir.path())?) } else { None };
        let target = Target { address, tls, namespace: None };
        let process = spawn(programs, kind, &setup, dir.path(), address)?;
        let server = Self { process, kind, programs: programs.clone(), setup, target, dir };
        wait_until_ready(&server.target, &dir_log(server.dir.path()))?;
        Ok(server)
    }

    /// Ends the process, by SIGTERM or by SIGKILL, and starts it again on the same data. Answers how long it took
    /// from its start to its first answer.
    pub fn restart(&mut self, kill: bool) -> io::Result<Duration> {
        self.process.end(kill)?;
        let began = Instant::now();
        self.process = spawn(&self.programs, self.kind, &self.setup, self.dir.path(), self.target.address)?;
        wait_until_ready(&self.target, &dir_log(self.dir.path()))?;
        Ok(began.elapsed())
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        data_of(&self.setup, self.dir.path())
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

impl Servers for Server {
    fn loaded(&self) -> &[Target] {
        slice::from_ref(&self.target)
    }

    fn cpu(&self) -> Duration {
        self.process.cpu()
    }
}

fn dir_log(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// Waits until a server answers a read.
pub fn wait_until_ready(target: &Target, log: &Path) -> io::Result<()> {
    let began = Instant::now();
    while !crate::cases::answers(target) {
        if began.elapsed() > START_PATIENCE {
            let log = fs::read_to_string(log).unwrap_or_default();
            return Err(io::Error::other(format!("the server does not answer:\n{log}")));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn status_number(path: &Path, field: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn data_of(setup: &Setup, dir: &Path) -> PathBuf {
    setup.data.clone().unwrap_or_else(|| dir.join("data"))
}

fn spawn(
    programs: &Programs,
    kind: Kind,
    setup: &Setup,
    dir: &Path,
    address: SocketAddr,
) -> io::Result<Process> {
    let scheme = if setup.tls { "https" } else { "http" };
    let url = format!("{scheme}://{address}");
    let mut words = Vec::new();
    let (program, flags) = match kind {
        Kind::Covey => (&programs.covey, vec!["serve".to_owned(), "--solo".to_owned()]),
        Kind::Etcd => {
            let peer = format!("http://127.0.0.1:{}", free_port()?);
            (
                &programs.etcd,
                vec!["--listen-peer-urls".to_owned(), peer, "--log-level".to_owned(), "error".to_owned()],
            )
        }
    };
    words.push(program.display().to_string());
    words.extend(flags);
    words.extend(["--data-dir".to_owned(), data_of(setup, dir).display().to_string()]);
    for flag in ["--listen-client-urls", "--advertise-client-urls"] {
        words.extend([flag.to_owned(), url.clone()]);
    }
    if setup.tls {
        for (flag, file) in [("--cert-file", "cert.pem"), ("--key-file", "key.pem")] {
            words.extend([flag.to_owned(), dir.join(file).display().to_string()]);
        }
    }
    Process::start(&setup.wrapper, &words, &dir_log(dir))
}

/// Writes a certificate for 127.0.0.1, and answers what trusts it.
fn certificate(dir: &Path) -> io::Result<Arc<ClientConfig>> {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).map_err(io::Error::other)?;
    fs::write(dir.join("cert.pem"), cert.pem())?;
    fs::write(dir.join("key.pem"), signing_key.serialize_pem())?;
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
