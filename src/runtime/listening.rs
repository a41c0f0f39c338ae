//! Sockets that listen, on UDP and TCP alike.
//!
//! Owns: what `[::]` means: every address of this machine, of both families or of those that there are. Must never: depend on the system's defaults for
//! that. Called by `app` and `peer`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

/// Clients that may wait to be accepted; the kernel has a bound of its own.
const BACKLOG: i32 = 128;

/// Makes a socket for addresses like this one.
type Make = fn(SocketAddr, SocketType) -> Result<OwnedFd, Errno>;

/// Listens for connections.
pub fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    Ok(TcpListener::from(bound(make, address, SocketType::STREAM)?))
}

/// Where packets are taken: at one port of one address or of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpPort {
    port: u16,
    /// Not empty; none twice.
    addresses: Vec<IpAddr>,
}

impl From<SocketAddr> for UdpPort {
    fn from(address: SocketAddr) -> Self {
        Self { port: address.port(), addresses: vec![address.ip()] }
    }
}

impl UdpPort {
    /// Takes packets at all of these; `None` for none, and for several ports.
    pub fn at(places: impl IntoIterator<Item = SocketAddr>) -> Option<Self> {
        let mut places = places.into_iter();
        let mut all = Self::from(places.next()?);
        for place in places {
            if place.port() != all.port {
                return None;
            }
            if !all.addresses.contains(&place.ip()) {
                all.addresses.push(place.ip());
            }
        }
        Some(all)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Listens. Several addresses share a socket that gets the packets for all of this machine's: see [`Self::takes`].
    pub fn listen(&self) -> io::Result<UdpSocket> {
        let address = match self.addresses[..] {
            [only] => only,
            _ if self.addresses.iter().all(IpAddr::is_ipv4) => Ipv4Addr::UNSPECIFIED.into(),
            _ => Ipv6Addr::UNSPECIFIED.into(),
        };
        Ok(UdpSocket::from(bound(make, SocketAddr::new(address, self.port), SocketType::DGRAM)?))
    }

    /// Whether it is the listener that is found at a place, if that is on this machine.
    pub fn is_at(&self, place: SocketAddr) -> bool {
        let ip = place.ip().to_canonical();
        let is_there = |address: &IpAddr| match address {
            _ if *address == ip => true,
            IpAddr::V4(every) => every.is_unspecified() && ip.is_ipv4(),
            IpAddr::V6(every) => every.is_unspecified(),
        };
        place.port() == self.port && self.addresses.iter().any(is_there)
    }

    /// Whether a packet to this address of the machine is for the listener. One whose address is not known is only where there is no choice.
    pub fn takes(&self, to: Option<IpAddr>) -> bool {
        let to = to.map(|to| to.to_canonical());
        self.addresses.len() == 1
            || self.addresses.iter().any(|address| match address {
                _ if to == Some(*address) => true,
                IpAddr::V4(every) => every.is_unspecified() && to.is_some_and(|to| to.is_ipv4()),
                IpAddr::V6(every) => every.is_unspecified(),
            })
    }
}

impl fmt::Display for UdpPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, address) in self.addresses.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            write!(f, "{separator}{}", SocketAddr::new(*address, self.port))?;
        }
        Ok(())
    }
}

fn make(address: SocketAddr, kind: SocketType) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    socket_with(family, kind, SocketFlags::CLOEXEC, None)
}

fn bound(make: Make, address: SocketAddr, kind: SocketType) -> Result<OwnedFd, Errno> {
    let everywhere = address.is_ipv6() && address.ip().is_unspecified();
    let socket = match make(address, kind) {
        // The kernel was started without IPv6: what is left of every address is IPv4.
        Err(Errno::AFNOSUPPORT) if everywhere => {
            return bound(make, (Ipv4Addr::UNSPECIFIED, address.port()).into(), kind);
        }
        made => made?,
    };
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, !everywhere)?;
    }
    if kind == SocketType::STREAM {
        // Connections of an earlier run that linger do not keep the port.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    if kind == SocketType::STREAM {
        listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    const EVERYWHERE: &str = "[::]:0";

    /// The same on a kernel without IPv6.
    fn make_v4(address: SocketAddr, kind: SocketType) -> Result<OwnedFd, Errno> {
        if address.is_ipv6() { Err(Errno::AFNOSUPPORT) } else { make(address, kind) }
    }

    /// As where `net.ipv6.bindv6only` is set.
    fn make_v6_only(address: SocketAddr, kind: SocketType) -> Result<OwnedFd, Errno> {
        let socket = make(address, kind)?;
        sockopt::set_ipv6_v6only(&socket, true)?;
        Ok(socket)
    }

    #[test]
    fn the_unspecified_address_listens_on_both_families_or_on_the_one_that_there_is() {
        for make in [make as Make, make_v6_only, make_v4] {
            let socket =
                UdpSocket::from(bound(make, EVERYWHERE.parse().unwrap(), SocketType::DGRAM).unwrap());
            let port = socket.local_addr().unwrap().port();
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.send_to(b"x", ("127.0.0.1", port)).unwrap();
            let (_, from) = socket.recv_from(&mut [0; 9]).unwrap();
            assert_eq!(from.ip().to_canonical(), sender.local_addr().unwrap().ip());
            assert!(
                UdpPort::from(SocketAddr::from(([127, 0, 0, 1], port))).listen().is_err(),
                "the port is taken"
            );

            let socket =
                TcpListener::from(bound(make, EVERYWHERE.parse().unwrap(), SocketType::STREAM).unwrap());
            let port = socket.local_addr().unwrap().port();
            assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
        }
    }

    #[test]
    fn several_addresses_have_one_port() {
        let at = |places: &[&str]| UdpPort::at(places.iter().map(|place| place.parse().unwrap()));
        let takes = |port: &UdpPort, to: &str| port.takes(Some(to.parse().unwrap()));
        let two = at(&["127.0.0.1:7", "[::1]:7", "127.0.0.1:7"]).unwrap();
        assert_eq!(two.to_string(), "127.0.0.1:7, [::1]:7");
        assert!(takes(&two, "127.0.0.1") && takes(&two, "::1") && takes(&two, "::ffff:127.0.0.1"));
        assert!(!takes(&two, "127.0.0.2") && !takes(&two, "::2") && !two.takes(None));
        let mixed = at(&["0.0.0.0:7", "[::1]:7"]).unwrap();
        assert!(takes(&mixed, "10.0.0.1") && takes(&mixed, "::1") && !takes(&mixed, "fe80::1"));
        let all = at(&["[::]:7", "10.0.0.1:7"]).unwrap();
        assert!(takes(&all, "10.0.0.2") && takes(&all, "fe80::1"));
        assert!(at(&["127.0.0.1:7"]).unwrap().takes(None), "the kernel has seen to it");
        assert_eq!(at(&["127.0.0.1:7", "127.0.0.1:8"]), None);
        assert_eq!(at(&[]), None);
    }

    /// Whoever has named an address wants that one.
    #[test]
    fn a_listener_is_at_its_addresses_and_at_its_port() {
        let at = |places: &[&str]| UdpPort::at(places.iter().map(|place| place.parse().unwrap())).unwrap();
        let is_at = |port: &UdpPort, place: &str| port.is_at(place.parse().unwrap());
        let every = at(&["[::]:7"]);
        assert!(is_at(&every, "10.0.0.1:7") && is_at(&every, "[fd00::1]:7") && !is_at(&every, "10.0.0.1:8"));
        let every_v4 = at(&["0.0.0.0:7"]);
        assert!(is_at(&every_v4, "[::ffff:10.0.0.1]:7") && !is_at(&every_v4, "[fd00::1]:7"));
        // Another process may listen at another address of the machine.
        let one = at(&["10.0.0.1:7"]);
        assert!(is_at(&one, "10.0.0.1:7") && !is_at(&one, "10.0.0.2:7"));
    }

    #[test]
    fn no_other_address_gives_way() {
        for kind in [SocketType::DGRAM, SocketType::STREAM] {
            let refused = bound(make_v4, "[::1]:0".parse().unwrap(), kind);
            assert_eq!(refused.unwrap_err(), Errno::AFNOSUPPORT);
        }
    }
}
