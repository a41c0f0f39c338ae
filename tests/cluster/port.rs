//! Ports for processes that a test starts.
//!
//! Owns: that a port is nobody else's for as long as a test wants it, whether its process listens on it or not. Must never: lend one that the kernel gives to
//! whoever names none.

use std::net::{TcpListener, UdpSocket};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that the kernel gives to whoever names none: a client anywhere on the machine would take the port of a member that is not
/// started yet, or is being started again. As `tests/harness` has them.
const PORTS: Range<u16> = 20_000..32_000;
/// Where the search for the next one goes on.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// A port that is free for both protocols, for as long as this lives: no other test gets it that goes by this, nor a program that goes by `tests/harness`.
pub struct Port {
    pub number: u16,
    _claim: UnixListener,
}

impl Port {
    pub fn lend() -> Self {
        // Runs at the same time begin at different places.
        let begin = u16::try_from(std::process::id() % u32::from(PORTS.end - PORTS.start)).unwrap();
        for _ in PORTS {
            let next = NEXT_PORT.fetch_add(1, Ordering::Relaxed).wrapping_add(begin);
            let number = PORTS.start + next % (PORTS.end - PORTS.start);
            let name = SocketAddr::from_abstract_name(format!("port-lent-{number}")).unwrap();
            let Ok(claim) = UnixListener::bind_addr(&name) else { continue };
            let address = ("127.0.0.1", number);
            if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
                return Self { number, _claim: claim };
            }
        }
        panic!("no port is free");
    }

    /// With the loopback address.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

#[test]
fn a_port_is_lent_to_one_at_a_time() {
    let ephemeral = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let first: u16 = ephemeral.split_whitespace().next().unwrap().parse().unwrap();
    assert!(PORTS.end <= first, "the kernel gives {first} to anybody");
    let port = Port::lend();
    let name = SocketAddr::from_abstract_name(format!("port-lent-{}", port.number)).unwrap();
    assert!(UnixListener::bind_addr(&name).is_err());
    drop(port);
    assert!(UnixListener::bind_addr(&name).is_ok());
}
