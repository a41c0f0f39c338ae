//! Whether an address is this box's own, or on one of the networks that it is on.
//!
//! Owns: these questions. Must never: keep an answer, since networks come and go. Asked for each stranger that wants to be heard.

use std::net::{IpAddr, SocketAddr};

use if_addrs::{IfAddr, get_if_addrs};

use super::rules::InterfaceRules;

/// A network of one address, or nearly, is a link with one other end; one of very many is more than a LAN.
const PREFIX_V4_MIN: u8 = 8;
const PREFIX_V6_MIN: u8 = 32;

/// Whether `address` is in the network of an interface that counts: no router is between.
pub fn is_near(rules: &InterfaceRules, address: IpAddr) -> bool {
    // Without a list nobody is known to be near.
    let Ok(interfaces) = get_if_addrs() else { return false };
    interfaces.iter().any(|interface| {
        let name = interface.name.split(':').next().unwrap_or_default();
        rules.takes(name, interface.is_p2p()) && contains(&interface.addr, address)
    })
}

/// Whether the address is one of this box's own: of the interface that it names, or whichever it is on.
pub fn is_own(at: &SocketAddr) -> bool {
    let address = at.ip().to_canonical();
    let scope = if let SocketAddr::V6(at) = at { at.scope_id() } else { 0 };
    let is_it = |own: &if_addrs::Interface| {
        own.ip() == address && (scope == 0 || own.index.is_none_or(|index| index == scope))
    };
    address.is_loopback() || get_if_addrs().is_ok_and(|interfaces| interfaces.iter().any(is_it))
}

fn contains(network: &IfAddr, address: IpAddr) -> bool {
    match (network, address) {
        (IfAddr::V4(network), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(network.prefixlen.min(32))).unwrap_or(0);
            network.prefixlen >= PREFIX_V4_MIN && network.ip.to_bits() & mask == address.to_bits() & mask
        }
        (IfAddr::V6(network), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(network.prefixlen.min(128))).unwrap_or(0);
            network.prefixlen >= PREFIX_V6_MIN && network.ip.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};

    use if_addrs::{Ifv4Addr, Ifv6Addr};

    use super::*;

    fn v4(text: &str, prefixlen: u8) -> IfAddr {
        let (ip, netmask) = (text.parse().unwrap(), Ipv4Addr::UNSPECIFIED);
        IfAddr::V4(Ifv4Addr { ip, netmask, prefixlen, broadcast: None })
    }

    fn v6(text: &str, prefixlen: u8) -> IfAddr {
        let (ip, netmask) = (text.parse().unwrap(), Ipv6Addr::UNSPECIFIED);
        IfAddr::V6(Ifv6Addr { ip, netmask, prefixlen, broadcast: None })
    }

    #[test]
    fn the_box_itself_is_known_by_any_of_its_addresses() {
        for own in ["127.0.0.1", "127.0.1.1", "::1", "::ffff:127.0.0.1"] {
            assert!(is_own(&SocketAddr::new(own.parse().unwrap(), 0)), "{own}");
        }
        for interface in get_if_addrs().unwrap() {
            assert!(is_own(&SocketAddr::new(interface.ip(), 0)), "{interface:?}");
            if let (IpAddr::V6(ip), Some(index)) = (interface.ip(), interface.index) {
                assert!(is_own(&SocketAddrV6::new(ip, 0, 0, index).into()), "{interface:?}");
                let is_elsewhere = is_own(&SocketAddrV6::new(ip, 0, 0, index + 1000).into());
                assert_eq!(is_elsewhere, ip.is_loopback(), "another link has its own");
            }
        }
        // Kept for documentation: no box has them.
        for other in ["192.0.2.1", "2001:db8::1"] {
            assert!(!is_own(&SocketAddr::new(other.parse().unwrap(), 0)), "{other}");
        }
    }

    #[test]
    fn who_is_in_the_same_network_is_near() {
        for (network, address, expected) in [
            (v4("10.1.2.3", 24), "10.1.2.254", true),
            (v4("10.1.2.3", 24), "10.1.3.3", false),
            (v4("10.1.2.3", 24), "::ffff:10.1.2.4", false),
            (v4("10.1.2.3", 32), "10.1.2.3", true),
            (v4("10.1.2.3", 32), "10.1.2.4", false),
            (v4("10.1.2.3", 0), "8.8.8.8", false),
            (v6("fe80::1", 64), "fe80::abcd", true),
            (v6("fe80::1", 64), "fe80:0:0:1::1", false),
            (v6("2001:db8::1", 64), "2001:db8::2:3", true),
            (v6("2001:db8::1", 0), "2001:db8::2", false),
        ] {
            assert_eq!(contains(&network, address.parse().unwrap()), expected, "{address}");
        }
    }
}
