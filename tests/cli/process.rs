//! Processes of the program under test.
//!
//! Owns: their start, their ends, what they printed. Must never: leave one running, or listen on anything but 127.0.0.1.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::port::Port;

/// How long anything that should happen may take, in looks of [`LOOK`].
const LOOKS_MAX: usize = 3000;
const LOOK: Duration = Duration::from_millis(10);

/// What a command left behind.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// The program with these arguments and an environment without surprises.
pub fn covey(arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_covey"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub fn run(arguments: &[impl AsRef<OsStr>]) -> Outcome {
    let output = covey(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Outcome {
        code: output.status.code().unwrap_or(-1),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// Runs a command that must succeed; what it printed.
pub fn must(arguments: &[impl AsRef<OsStr>]) -> String {
    let outcome = run(arguments);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    outcome.stdout
}

/// Looks again and again until something holds.
#[expect(clippy::disallowed_methods, reason = "a test waits for other processes")]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..LOOKS_MAX {
        if holds() {
            return;
        }
        sleep(LOOK);
    }
    panic!("{what}: not in time");
}

/// Lets others go on for so long.
#[expect(clippy::disallowed_methods, reason = "other processes go on meanwhile")]
pub fn rest(time: Duration) {
    sleep(time);
}

/// How long something takes.
#[expect(clippy::disallowed_methods, reason = "what is measured is the time of other processes")]
pub fn took(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// A loopback port that nobody listens on, and that nobody else is lent while these tests run.
pub fn free_endpoint() -> String {
    let port = Port::lend();
    let address = port.address();
    std::mem::forget(port);
    address
}

/// A server that is killed when it is dropped.
pub struct Server {
    pub endpoint: String,
    child: Child,
}

impl Server {
    /// Serves a directory; its log goes to a file beside it.
    pub fn start(data_dir: &Path) -> Self {
        Self::start_in(data_dir, &[])
    }

    /// The same, with this in its environment.
    pub fn start_in(data_dir: &Path, environment: &[(&str, &OsStr)]) -> Self {
        Self::start_by("http", data_dir, environment)
    }

    /// The same, on a URL of this scheme.
    pub fn start_by(scheme: &str, data_dir: &Path, environment: &[(&str, &OsStr)]) -> Self {
        let endpoint = free_endpoint();
        let log = data_dir.with_extension("log");
        let url = format!("{scheme}://{endpoint}");
        let flags = ["serve", "--solo", "--listen-client-urls", url.as_str(), "--data-dir"].map(OsStr::new);
        let mut command = covey(&flags);
        command.arg(data_dir).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        command.envs(environment.iter().copied());
        let mut server = Self { endpoint, child: command.spawn().unwrap() };
        let mut ended = false;
        until("the server serves", || {
            ended = server.child.try_wait().unwrap().is_some();
            ended || std::fs::read_to_string(&log).unwrap().contains("ready to serve client requests")
        });
        assert!(!ended, "the server has ended: {}", std::fs::read_to_string(&log).unwrap());
        server
    }

    /// Runs a client command against this server, which must succeed.
    pub fn must(&self, arguments: &[&str]) -> String {
        must(&[&["--endpoints", self.endpoint.as_str()], arguments].concat())
    }

    /// The same, where it may fail.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        run(&[&["--endpoints", self.endpoint.as_str()], arguments].concat())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Tells it to stop, and waits for its end.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    /// As by `kill -9`.
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
