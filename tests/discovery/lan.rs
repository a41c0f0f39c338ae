//! Hosts in network namespaces of their own, and wires between them.
//!
//! Owns: namespaces, wires, and the helpers that run in them. Must never: touch an interface of the machine's own, or leave a namespace or a
//! process behind.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::inside::{ROLE, STATE};

/// Names the variable that says with what a process floods.
pub const FLOODS: &str = "COVEY_DISCOVERY_FLOOD";
/// How long anything that should happen may take, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);

#[expect(clippy::disallowed_methods, reason = "what is measured is the time of other processes")]
pub fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "other processes go on meanwhile")]
pub fn wait(time: Duration) {
    thread::sleep(time);
}

/// Runs `ip`.
pub fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Namespaces with wires to switches, which are in a namespace of their own.
pub struct Lan {
    name: String,
    switches: String,
    namespaces: Vec<String>,
}

impl Lan {
    /// This many namespaces and two switches, `lan` and `other`; no wires.
    pub fn new(hosts: usize) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("disco{}-{}-", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut lan = Self { switches: format!("{name}switches"), name, namespaces: Vec::new() };
        lan.add_namespace(lan.switches.clone());
        for switch in ["lan", "other"] {
            ip(&format!("-n {} link add {switch} type bridge mcast_snooping 0", lan.switches));
            ip(&format!("-n {} link set {switch} up", lan.switches));
        }
        for host in 0..hosts {
            lan.add_namespace(lan.netns(host));
        }
        lan
    }

    /// The same, each host with an `eth0` on the switch `lan` that has the address `10.78.0.` and its number plus one.
    pub fn wired(hosts: usize) -> Self {
        let lan = Self::new(hosts);
        for host in 0..hosts {
            lan.plug(host, "eth0", "lan");
            lan.address(host, "add", &format!("10.78.0.{}/24", host + 1), "eth0");
        }
        lan
    }

    fn add_namespace(&mut self, name: String) {
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        self.namespaces.push(name);
    }

    fn netns(&self, host: usize) -> String {
        format!("{}{host}", self.name)
    }

    /// Runs `ip` for a host.
    pub fn ip(&self, host: usize, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.netns(host)));
    }

    /// Gives a host an interface with a wire to a switch.
    pub fn plug(&self, host: usize, interface: &str, switch: &str) {
        let (switches, port) = (&self.switches, format!("p{host}{interface}"));
        ip(&format!(
            "-n {switches} link add {port} type veth peer name {interface} netns {}",
            self.netns(host)
        ));
        ip(&format!("-n {switches} link set {port} master {switch} up"));
        self.ip(host, &format!("link set {interface} up"));
    }

    /// Whether the switch passes on to a host what is meant for all.
    pub fn multicast(&self, host: usize, is_on: bool) {
        let what = if is_on { "on" } else { "off" };
        ip(&format!("-n {} link set p{host}eth0 type bridge_slave mcast_flood {what}", self.switches));
    }

    /// Adds an address, or deletes it.
    pub fn address(&self, host: usize, what: &str, address: &str, interface: &str) {
        self.ip(host, &format!("address {what} {address} dev {interface}"));
    }

    /// Starts a process there that floods with this, until it is dropped.
    pub fn flood(&self, host: usize, test: &str, what: &str) -> Flood {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns(host)]).arg(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--ignored"]).env(FLOODS, what).stdout(Stdio::null());
        Flood(command.spawn().unwrap())
    }

    /// Starts a helper there, that looks at the interfaces that are named or at those that count anyway.
    pub fn start(&self, host: usize, key: u8, interfaces: &str) -> Node {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns(host)]).arg(program);
        command.args(["inside::a_namespace", "--exact", "--ignored", "--nocapture", "--test-threads", "1"]);
        command.env(ROLE, format!("{key} {interfaces}")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let state = Arc::new(Mutex::new(String::new()));
        let (lines, to) = (BufReader::new(child.stdout.take().unwrap()).lines(), Arc::clone(&state));
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, text)) = line.split_once(STATE) {
                    text.clone_into(&mut to.lock().unwrap());
                }
            }
        });
        Node { child, stdin, state }
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for name in &self.namespaces {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// A process in a namespace, with a discovery of its own.
pub struct Node {
    child: Child,
    stdin: Option<ChildStdin>,
    state: Arc<Mutex<String>>,
}

/// A process that floods.
pub struct Flood(Child);

impl Flood {
    /// Waits for the end of one that has one, which must be a good one.
    pub fn end(mut self) {
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What one of them sees.
#[derive(Clone, Debug, Default)]
pub struct Sees {
    /// Each as `name@cluster`, with its addresses.
    pub nodes: Vec<(String, Vec<SocketAddr>)>,
    /// Each with its addresses.
    pub interfaces: Vec<(String, Vec<String>)>,
    /// What clients find, once they have looked.
    pub endpoints: Option<Vec<SocketAddr>>,
}

impl Sees {
    pub fn names(&self) -> Vec<&str> {
        self.nodes.iter().map(|(name, _)| name.as_str()).collect()
    }

    pub fn addresses_of(&self, name: &str) -> Vec<SocketAddr> {
        self.nodes.iter().find(|(node, _)| node == name).map(|(_, at)| at.clone()).unwrap_or_default()
    }

    fn parse(text: &str) -> Self {
        let mut sees = Self::default();
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let fields: Vec<&str> = part.split(' ').collect();
            let list = || fields[2].split(',').filter(|field| !field.is_empty());
            let sockets = || list().map(|field| field.parse().unwrap()).collect();
            match fields[0] {
                "node" => sees.nodes.push((fields[1].to_owned(), sockets())),
                "interface" => {
                    sees.interfaces.push((fields[1].to_owned(), list().map(str::to_owned).collect()));
                }
                "endpoints" => sees.endpoints = Some(sockets()),
                other => panic!("{other}"),
            }
        }
        sees
    }
}

impl Node {
    /// Announces a node on this port by this name, and a client port if it is not 0.
    pub fn announce(&mut self, port: u16, name: &str, cluster: u64, client_port: u16) {
        self.tell(&format!("announce {port} {name} {cluster} {client_port}"));
    }

    /// Gives it a command.
    pub fn tell(&mut self, command: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{command}").unwrap();
    }

    pub fn sees(&self) -> Sees {
        Sees::parse(&self.state.lock().unwrap())
    }

    /// Waits until what it sees is right.
    pub fn until(&self, what: &str, is_right: impl Fn(&Sees) -> bool) -> Sees {
        let began = now();
        loop {
            let sees = self.sees();
            if is_right(&sees) {
                println!("{what} after {:?}", began.elapsed());
                return sees;
            }
            assert!(began.elapsed() < PATIENCE, "{what}: not in time, but {sees:?}");
            wait(LOOK);
        }
    }

    /// Waits until it sees these nodes and no others.
    pub fn until_sees(&self, names: &[&str]) -> Sees {
        self.until(&format!("{names:?}"), |sees| sees.names() == names)
    }

    /// Whether it runs: one in which something has panicked does not.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// How many bytes of memory it has.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
    }

    /// Lets it say goodbye.
    pub fn stop(mut self) {
        drop(self.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
