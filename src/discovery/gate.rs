//! The sockets of an mDNS daemon, in our hands as well: to see that something comes, and to let nothing come for a while.
//!
//! Owns: how they are found (the daemon's library hands none out), and how much may wait in them. Must never: read from them, or send. Driven by `daemon`.
//!
//! The daemon reads until nothing is there, and does nothing else meanwhile. When more comes than it can read it hears us no more, and takes memory without
//! end. Behind a gate that is shut it comes to the end of what waits, and hears us again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};
use std::time::Duration;

use rustix::net::sockopt::{set_socket_recv_buffer_size, socket_type};
use rustix::net::{SocketType, getsockname};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use socket2::{SockFilter, SockRef};

use super::poll_for;

/// Where the kernel lists what this process has open.
const OPEN: &str = "/proc/self/fd";
/// What may wait in each of them. What comes beyond is lost, as in any network.
const QUEUE_BYTES: usize = 128 << 10;
/// One for each kind of address.
const SOCKETS: usize = 2;
/// How often it is looked whether they are there, and how many times.
const LOOKS: Duration = Duration::from_millis(2);
const LOOKS_MAX: u32 = 250;
/// `BPF_RET | BPF_K` of `linux/bpf_common.h`: how many bytes of a packet are taken.
const TAKES: u16 = 0x06;

/// The sockets that are open at some time.
pub(super) struct Open(BTreeSet<String>);

impl Open {
    pub(super) fn now() -> Self {
        Self(sockets().into_keys().collect())
    }
}

/// See the module.
pub(super) struct Gate {
    sockets: Vec<OwnedFd>,
    is_shut: bool,
}

impl Gate {
    /// The sockets on this UDP port that were opened since then; all are there once `is_done`. `None` where this box gives us none in hand.
    pub(super) fn find(before: &Open, port: u16, is_done: impl Fn() -> bool) -> Option<Self> {
        let mut found = Ok(Vec::new());
        for _ in 0..LOOKS_MAX {
            let is_last = is_done();
            found = since(before, port);
            if is_last || found.as_ref().map_or(true, |found| found.len() >= SOCKETS) {
                break;
            }
            poll_for(&mut [], Some(LOOKS));
        }
        match found {
            Ok(sockets) if !sockets.is_empty() => Some(Self { sockets, is_shut: false }),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%error, "mDNS cannot be held back");
                None
            }
        }
    }

    /// To be waited for: they can be read when something has come.
    pub(super) fn sockets(&self) -> &[OwnedFd] {
        &self.sockets
    }

    pub(super) fn is_shut(&self) -> bool {
        self.is_shut
    }

    /// Nothing comes any more but what waits already. What is said by them is said.
    pub(super) fn shut(&mut self) {
        self.is_shut = true;
        let nothing = [SockFilter::new(TAKES, 0, 0, 0)];
        for socket in &self.sockets {
            if let Err(error) = SockRef::from(socket).attach_filter(&nothing) {
                tracing::debug!(%error, "mDNS is not held back");
            }
        }
    }

    /// Ends that.
    pub(super) fn open(&mut self) {
        if std::mem::take(&mut self.is_shut) {
            for socket in &self.sockets {
                // It fails where none is attached.
                let _ = SockRef::from(socket).detach_filter();
            }
        }
    }
}

/// All sockets of this process, by what the kernel calls each, with one of its descriptors.
fn sockets() -> BTreeMap<String, RawFd> {
    let Ok(entries) = fs::read_dir(OPEN) else { return BTreeMap::new() };
    let socket = |entry: fs::DirEntry| {
        let kind = fs::read_link(entry.path()).ok()?.into_os_string().into_string().ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        kind.starts_with("socket:").then_some((kind, number))
    };
    entries.filter_map(Result::ok).filter_map(socket).collect()
}

/// Those on this port that were not there before, with a bound to what waits in them.
fn since(before: &Open, port: u16) -> io::Result<Vec<OwnedFd>> {
    let this = pidfd_open(getpid(), PidfdFlags::empty())?;
    let mut found = Vec::new();
    for number in sockets().into_iter().filter(|(kind, _)| !before.0.contains(kind)).map(|(_, number)| number)
    {
        // It may be closed by now, and be something else.
        let socket = match pidfd_getfd(&this, number, PidfdGetfdFlags::empty()) {
            Err(rustix::io::Errno::BADF) => continue,
            socket => socket?,
        };
        let is_udp = socket_type(&socket).is_ok_and(|kind| kind == SocketType::DGRAM);
        let at = getsockname(&socket).ok().and_then(|at| SocketAddr::try_from(at).ok());
        if is_udp && at.is_some_and(|at| at.port() == port) {
            set_socket_recv_buffer_size(&socket, QUEUE_BYTES)?;
            found.push(socket);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

    use super::*;

    #[test]
    fn nothing_comes_through_a_gate_that_is_shut() {
        let earlier = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = earlier.local_addr().unwrap().port();
        let before = Open::now();
        let socket = UdpSocket::bind((Ipv6Addr::LOCALHOST, port)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let twice = socket.try_clone().unwrap();
        let mut gate = Gate::find(&before, port, || true).unwrap();
        assert_eq!(gate.sockets().len(), 1, "neither the one from before, nor one twice");
        let (to, from) = (socket.local_addr().unwrap(), UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap());
        let comes = |what: &[u8]| {
            from.send_to(what, to).unwrap();
            let mut buffer = [0; 8];
            twice.recv(&mut buffer).is_ok_and(|bytes| &buffer[..bytes] == what)
        };
        assert!(comes(b"open"));
        gate.shut();
        gate.shut();
        assert!(gate.is_shut() && !comes(b"shut"));
        // It is no end for what goes out.
        socket.send_to(b"out", from.local_addr().unwrap()).unwrap();
        assert_eq!(from.recv(&mut [0; 8]).unwrap(), 3);
        gate.open();
        gate.open();
        assert!(!gate.is_shut() && comes(b"again"));
        assert!(Gate::find(&Open::now(), port, || true).is_none());
    }
}
