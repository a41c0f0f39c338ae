//! Networks of namespaces, and boxes on them.
//!
//! Owns: namespaces, wires, and the processes in them; all of it goes when it is dropped. Must never: touch an interface, a rule or a process that
//! it has not made.
//!
//! ```text
//! switch namespace   bridge left ─┬─ wire ── eth0 of box 0        bridge right ─┬─ wire ── eth0 of box 2
//!                                 └─ wire ── eth0 of box 1                      └─ wire ── eth0 of box 3
//!                    the two may be joined by one more wire
//! ```

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Where Debian has it: boxes are started without a PATH.
const IP: &str = "/usr/sbin/ip";
const LOOK: Duration = Duration::from_millis(20);
/// An interface gives itself an address of the link within so long.
const LINK_COMES: Duration = Duration::from_secs(5);

/// Says this to the box itself, and prints the answer as it comes.
const ASK: &str = r#"
exec 3<>/dev/tcp/127.0.0.1/2379
printf %s "$0" >&3
/bin/cat <&3
"#;
/// Where a second process on a box listens for members and for clients.
const LODGERS_PORTS: [u16; 2] = [2390, 2389];
/// Runs a program, after a directory and a number, where all is as it is here but for the hardware: the board has that number, and the machine is no container. What is mounted
/// goes with the process: each that is started in a namespace of the network has mounts of its own.
const OTHER_BOARD: &str = r#"
set -e
mkdir -p "$0"
mount -t tmpfs none "$0"
for place in /*; do
  case $place in
    /sys | "$0") continue ;;
  esac
  if [ -L "$place" ]; then
    cp -a "$place" "$0/"
  elif [ -d "$place" ]; then
    mkdir "$0$place"
    mount --rbind "$place" "$0$place"
  fi
done
mkdir -p "$0/sys/class/dmi/id"
echo "$1" > "$0/sys/class/dmi/id/board_serial"
root=$0
shift
exec chroot "$root" "$@"
"#;

/// Numbers the networks of one run of the tests.
static LANS: AtomicU32 = AtomicU32::new(0);

#[expect(clippy::disallowed_methods, reason = "what is measured is the time of other processes")]
pub fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "other processes go on meanwhile")]
pub fn wait(time: Duration) {
    sleep(time);
}

/// Looks again and again until something is there.
pub fn until<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = now();
    while began.elapsed() < patience {
        if let Some(found) = look() {
            return found;
        }
        wait(LOOK);
    }
    panic!("{what}: not within {patience:?}");
}

fn ip(arguments: &[&str]) {
    let done = Command::new(IP).args(arguments).output().unwrap();
    assert!(done.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Which of the two switches a wire leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

impl Side {
    fn bridge(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
        }
    }
}

/// A network, and the boxes on it.
pub struct Lan {
    pub boxes: Vec<Box>,
    switch: String,
    root: TempDir,
}

impl Lan {
    /// So many boxes on one switch; none runs.
    pub fn new(boxes: usize) -> Self {
        Self::with(&vec![Side::Left; boxes])
    }

    /// Boxes on two switches that are not joined.
    pub fn with(sides: &[Side]) -> Self {
        let lan = format!("cz{}-{}", std::process::id(), LANS.fetch_add(1, Ordering::Relaxed));
        let switch = format!("{lan}-sw");
        ip(&["netns", "add", &switch]);
        for side in [Side::Left, Side::Right] {
            let bridge = side.bridge();
            // Without snooping: groups are what the tests are about, and nobody queries for them here.
            ip(&["-n", &switch, "link", "add", bridge, "type", "bridge", "mcast_snooping", "0"]);
            ip(&["-n", &switch, "link", "set", bridge, "up"]);
        }
        let mut made = Self { boxes: Vec::new(), switch, root: tempfile::tempdir().unwrap() };
        for (n, side) in sides.iter().enumerate() {
            let netns = format!("{lan}-{n}");
            ip(&["netns", "add", &netns]);
            let data_dir = made.root.path().join(format!("box{n}"));
            made.boxes.push(Box::off(n, netns, data_dir, None));
            ip(&["-n", &made.boxes[n].netns, "link", "set", "lo", "up"]);
            made.plug_in(n, "eth0", *side);
            made.boxes[n].address("add", "eth0", &address(n));
            ip(&["-n", &made.boxes[n].netns, "link", "set", "eth0", "up"]);
        }
        made
    }

    /// A second process on a box, with a directory and ports of its own.
    pub fn lodge(&mut self, n: usize) {
        let (netns, n) = (self.boxes[n].netns.clone(), self.boxes.len());
        let data_dir = self.root.path().join(format!("box{n}"));
        self.boxes.push(Box::off(n, netns, data_dir, Some(LODGERS_PORTS)));
    }

    /// One more wire from a box to a switch; without an address, and down at the box's end.
    pub fn plug_in(&self, n: usize, interface: &str, side: Side) {
        let netns = &self.boxes[n].netns;
        let port = format!("p{n}-{interface}");
        let peer = ["type", "veth", "peer", "name", interface, "netns", netns];
        ip(&[&["-n", &self.switch, "link", "add", &port][..], &peer[..]].concat());
        ip(&["-n", &self.switch, "link", "set", &port, "master", side.bridge(), "up"]);
    }

    /// Joins the two switches.
    pub fn join(&self) {
        ip(&["-n", &self.switch, "link", "add", "to-right", "type", "veth", "peer", "name", "to-left"]);
        ip(&["-n", &self.switch, "link", "set", "to-right", "master", "left", "up"]);
        ip(&["-n", &self.switch, "link", "set", "to-left", "master", "right", "up"]);
    }

    /// Pulls the cable of a box out of the switch, or puts it back.
    pub fn cable(&self, n: usize, state: &str) {
        ip(&["-n", &self.switch, "link", "set", &format!("p{n}-eth0"), state]);
    }

    /// Starts every box with these arguments.
    pub fn start(&mut self, more: &[&str]) {
        for one in &mut self.boxes {
            one.start(more);
        }
    }

    /// A file beside the boxes' directories.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for one in &mut self.boxes {
            one.kill();
        }
        let boxes = self.boxes.iter().filter(|one| one.ports.is_none());
        for netns in boxes.map(|one| &one.netns).chain([&self.switch]) {
            drop(Command::new(IP).args(["netns", "del", netns]).status());
        }
        #[expect(clippy::print_stderr, reason = "what a failed test left behind")]
        if std::thread::panicking() {
            for one in &self.boxes {
                eprintln!("---- box {} ----\n{}", one.n, one.log());
            }
        }
    }
}

/// The address that a box begins with.
pub fn address(n: usize) -> String {
    format!("10.88.0.{}/24", n + 1)
}

/// A box: its namespace, its disk, and the program on it.
pub struct Box {
    n: usize,
    pub netns: String,
    pub data_dir: PathBuf,
    /// What its clock says when it starts, if not the truth.
    pub clock: Option<String>,
    /// The number that its board says it has, if it says anything.
    pub board: Option<String>,
    /// Of which build it is, if of another one: the newest commands that it understands.
    pub plays: Option<&'static str>,
    /// Where it listens for members and for clients, if not where all do.
    ports: Option<[u16; 2]>,
    child: Option<Child>,
}

impl Box {
    /// One that is not switched on, of this build and with a clock that is right.
    fn off(n: usize, netns: String, data_dir: PathBuf, ports: Option<[u16; 2]>) -> Self {
        Self { n, netns, data_dir, clock: None, board: None, plays: None, ports, child: None }
    }

    fn log_path(&self) -> PathBuf {
        self.data_dir.with_extension("log")
    }

    /// All that it has logged, over all its runs.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Gives it an address, or takes it.
    pub fn address(&self, what: &str, interface: &str, address: &str) {
        ip(&["-n", &self.netns, "address", what, address, "dev", interface]);
    }

    /// The one that its first wire has given itself.
    pub fn address_of_the_link(&self) -> String {
        until("an address of the link", LINK_COMES, || {
            let mut command = self.command(IP);
            let output =
                command.args(["-6", "-o", "address", "show", "dev", "eth0", "scope", "link"]).output();
            let printed = String::from_utf8(output.unwrap().stdout).unwrap();
            let (_, rest) = printed.split_once(" inet6 ")?;
            rest.split_once('/').map(|(address, _)| address.to_owned())
        })
    }

    /// Runs `ip` in it.
    pub fn ip(&self, arguments: &[&str]) {
        ip(&[&["-n", &self.netns], arguments].concat());
    }

    /// No packet of this port leaves it any more, for addresses of the link neither.
    pub fn block_udp(&self, port: u16) {
        let port = port.to_string();
        for family in ["-4", "-6"] {
            for direction in ["sport", "dport"] {
                self.ip(&[
                    family,
                    "rule",
                    "add",
                    "pref",
                    "5",
                    "ipproto",
                    "udp",
                    direction,
                    &port,
                    "blackhole",
                ]);
            }
        }
    }

    fn inside(&self) -> Command {
        let mut command = Command::new(IP);
        command.args(["netns", "exec", &self.netns]).env_clear().stdin(Stdio::null());
        command
    }

    /// A command that runs another program in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.inside();
        command.arg(program);
        command
    }

    /// Starts the server on it. All that it is told is where its data is and how to log; the name stands for the host name, which namespaces share.
    pub fn start(&mut self, more: &[&str]) {
        assert!(self.child.is_none(), "box {} runs", self.n);
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = self.inside();
        if let Some(board) = &self.board {
            command.args(["/bin/sh", "-c", OTHER_BOARD]).arg(self.data_dir.with_extension("root")).arg(board);
            command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        }
        command.arg(program()).args(["serve", "--log-format", "text", "--name", &format!("box{}", self.n)]);
        self.set_clock(&mut command);
        if let Some(commands) = self.plays {
            command.env("PLAYED_COMMANDS", commands);
        }
        if let Some([peers, clients]) = self.ports {
            command.arg(format!("--listen-peer-urls=https://[::]:{peers}"));
            command.arg(format!("--listen-client-urls=https://[::]:{clients}"));
        }
        command.arg("--data-dir").arg(&self.data_dir).args(more).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// What runs on it has its time.
    fn set_clock(&self, command: &mut Command) {
        if let Some(clock) = &self.clock {
            // The monotonic clock goes on as it does: that is what a wrong battery is like.
            command.env("LD_PRELOAD", faketime()).env("FAKETIME", format!("@{clock}"));
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("TZ", "UTC");
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.pid().to_string()]).status().unwrap().success());
    }

    /// As by a power cut; nothing where it does not run.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// Waits for the end after a signal; the exit code.
    pub fn ended(&mut self, patience: Duration) -> i32 {
        let mut child = self.child.take().expect("it runs");
        let status = until("the end of a process", patience, || child.try_wait().unwrap());
        status.code().unwrap_or(-1)
    }

    fn client(&self) -> Command {
        let mut command = self.command(&program());
        self.set_clock(&mut command);
        command.args(self.ports.map(|[_, clients]| format!("--endpoints=http://127.0.0.1:{clients}")));
        command
    }

    /// Runs a client command on it, as its operator would: what it printed, or why it failed.
    pub fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.client().args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// The same for one whose exit code says something: that, and what it printed.
    pub fn exit(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.client().args(arguments).output().unwrap();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The same for one that must succeed.
    pub fn must(&self, arguments: &[&str]) -> String {
        self.run(arguments).unwrap_or_else(|error| panic!("box {} {arguments:?}: {error}", self.n))
    }

    /// What it tells monitoring, or nothing while it does not.
    pub fn metrics(&self) -> String {
        self.ask("GET /metrics", "", "")
    }

    /// What it answers by HTTP to a process of its own, with the head: to a method and a path, with lines of the head and a body.
    pub fn ask(&self, what: &str, head: &str, body: &str) -> String {
        let length = body.len();
        let text = format!(
            "{what} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {length}\r\n{head}\r\n{body}"
        );
        let output = self.command("/bin/bash").args(["-c", ASK, &text]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The members as it knows them: name, and whether it only learns.
    pub fn members(&self) -> Vec<(String, bool)> {
        let Ok(listed) = self.run(&["member", "list"]) else { return Vec::new() };
        let row = |line: &str| {
            let fields: Vec<&str> = line.split(", ").collect();
            Some(((*fields.get(2)?).to_owned(), *fields.get(5)? == "true"))
        };
        let mut members: Vec<_> = listed.lines().filter_map(row).collect();
        members.sort();
        members
    }
}

/// Where Debian's package has it, whatever the machine.
fn faketime() -> PathBuf {
    let libraries = std::fs::read_dir("/usr/lib").unwrap().filter_map(Result::ok);
    let places = libraries.map(|entry| entry.path().join("faketime/libfaketime.so.1"));
    let found = places.into_iter().find(|place| place.exists());
    found.expect("libfaketime is installed")
}

fn program() -> String {
    std::env::var("COVEY_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_covey").to_owned())
}
