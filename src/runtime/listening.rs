//! Sockets that listen, on UDP and TCP alike.
//!
//! Owns: what `[::]` means: every address of this machine, of both families or of those that there are. Must never: depend on the system's defaults for
//! that. Called by `app` and `peer`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
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

/// Listens for packets.
pub fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    Ok(UdpSocket::from(bound(make, address, SocketType::DGRAM)?))
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
            assert!(udp(([127, 0, 0, 1], port).into()).is_err(), "the port is taken");

            let socket =
                TcpListener::from(bound(make, EVERYWHERE.parse().unwrap(), SocketType::STREAM).unwrap());
            let port = socket.local_addr().unwrap().port();
            assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
        }
    }

    /// Whoever has named an address wants that one.
    #[test]
    fn no_other_address_gives_way() {
        for kind in [SocketType::DGRAM, SocketType::STREAM] {
            let refused = bound(make_v4, "[::1]:0".parse().unwrap(), kind);
            assert_eq!(refused.unwrap_err(), Errno::AFNOSUPPORT);
        }
    }
}
