//! The network interfaces that lead to other boxes, and since when each of them does.
//!
//! Owns: what is read from the kernel, and its news of changes. Must never: wait, or count an address that cannot be used yet. Driven by the
//! thread in `mod`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use super::rules::InterfaceRules;
use crate::time::Instant;

/// Interfaces that are looked at.
pub const INTERFACES_MAX: usize = 32;
/// Addresses of one interface that are looked at: routers on the LAN may hand out many.
pub const INTERFACE_ADDRESSES_MAX: usize = 16;

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR` and `RTMGRP_IPV6_IFADDR` of `linux/rtnetlink.h`.
const NEWS_OF_LINKS_AND_ADDRESSES: u32 = 0x1 | 0x10 | 0x100;

/// Where the kernel lists all interfaces.
const INTERFACES: &str = "/sys/class/net";
/// The kernel's list of IPv6 addresses, with flags that `getifaddrs` does not tell.
const IF_INET6: &str = "/proc/net/if_inet6";
/// `IFA_F_TENTATIVE` and `IFA_F_DADFAILED` of `linux/if_addr.h`: another box may have this address.
const NOT_OURS_YET: u8 = 0x40 | 0x08;

/// An interface that counts, with carrier and at least one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number, which is the zone of its link-local addresses.
    pub index: u32,
    /// Its addresses: those that reach farther come first.
    pub addresses: Vec<IpAddr>,
    /// Since when it has had carrier and an address without a break.
    pub since: Instant,
}

/// An interface, and whether it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surveyed {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Why it does not count.
    pub why_not: Option<&'static str>,
}

/// All interfaces of the machine, for people to look at.
pub fn survey(rules: &InterfaceRules) -> io::Result<Vec<Surveyed>> {
    let mut all: BTreeMap<String, Surveyed> = BTreeMap::new();
    for entry in fs::read_dir(INTERFACES)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let why_not = Some(if rules.takes(&name, false) {
            "it has no address"
        } else {
            "its name is not one of those that count"
        });
        all.insert(name.clone(), Surveyed { name, addresses: Vec::new(), why_not });
    }
    for seen in if_addrs::get_if_addrs()? {
        let name = seen.name.split(':').next().unwrap_or_default();
        let Some(interface) = all.get_mut(name) else { continue };
        interface.addresses.push(seen.ip());
        interface.why_not = if seen.ip().is_loopback() {
            Some("it is the box itself")
        } else if !rules.takes(name, seen.is_p2p()) {
            Some("its name or kind is one of containers, tunnels and modems; --interfaces makes it count")
        } else if !seen.is_oper_up() {
            Some("it has no carrier")
        } else if interface.addresses.iter().any(is_usable) {
            None
        } else {
            Some("it has no address that others can reach")
        };
    }
    Ok(all.into_values().collect())
}

/// Whether an address means something only together with an interface.
pub fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Whether others on the LAN may reach an address.
pub(super) fn is_usable(address: &IpAddr) -> bool {
    let mapped = matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some());
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(mapped || broadcast || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

/// What there is now, without those that do not count.
pub(super) fn look(rules: &InterfaceRules, now: Instant) -> io::Result<Vec<Interface>> {
    let not_ours = fs::read_to_string(IF_INET6).map(|list| not_ours_yet(&list)).unwrap_or_default();
    let mut found: BTreeMap<u32, Interface> = BTreeMap::new();
    for seen in if_addrs::get_if_addrs()? {
        let address = seen.ip();
        let Some(index) = seen.index else { continue };
        // A second address may have a label, which is shown after a colon.
        let name = seen.name.split(':').next().unwrap_or_default().to_owned();
        let counts = seen.is_oper_up() && rules.takes(&name, seen.is_p2p());
        if !counts || !is_usable(&address) || not_ours.contains(&(index, address)) {
            continue;
        }
        let interface = Interface { name, index, addresses: Vec::new(), since: now };
        found.entry(index).or_insert(interface).addresses.push(address);
    }
    for interface in found.values_mut() {
        interface.addresses.sort_by_key(|address| (is_link_local(address), *address));
        interface.addresses.dedup();
        interface.addresses.truncate(INTERFACE_ADDRESSES_MAX);
    }
    Ok(found.into_values().take(INTERFACES_MAX).collect())
}

/// Puts what was found in the place of what was known: who was there before has been there since then. Tells whether anything is different.
pub(super) fn replace(known: &mut Vec<Interface>, mut found: Vec<Interface>) -> bool {
    for interface in &mut found {
        let before =
            known.iter().find(|known| known.index == interface.index && known.name == interface.name);
        if let Some(before) = before {
            interface.since = before.since;
        }
    }
    let differs = *known != found;
    *known = found;
    differs
}

/// The addresses in the kernel's list that others might have: lines of address, index, prefix length, scope, flags and name.
fn not_ours_yet(list: &str) -> Vec<(u32, IpAddr)> {
    let parse = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let address = u128::from_str_radix(fields.next()?, 16).ok()?;
        let index = u32::from_str_radix(fields.next()?, 16).ok()?;
        let flags = u8::from_str_radix(fields.nth(2)?, 16).ok()?;
        (flags & NOT_OURS_YET != 0).then_some((index, IpAddr::V6(Ipv6Addr::from_bits(address))))
    };
    list.lines().filter_map(parse).collect()
}

/// The kernel's word that interfaces or addresses have changed.
pub(super) struct News(OwnedFd);

impl News {
    pub(super) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Without a number it is the family's first protocol, NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, NEWS_OF_LINKS_AND_ADDRESSES))?;
        Ok(Self(socket))
    }

    /// Forgets what has been said: everything is looked at anew anyway.
    pub(super) fn drain(&self) {
        let mut buffer = [0_u8; 4096];
        // What was lost for want of room (ENOBUFS) is news like any other.
        while let Ok(_) | Err(Errno::NOBUFS | Errno::INTR) = recv(&self.0, &mut buffer[..], RecvFlags::TRUNC)
        {
        }
    }
}

impl AsFd for News {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn interface(index: u32, addresses: &[&str], since: u64) -> Interface {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        let since = Instant::default() + Duration::from_secs(since);
        Interface { name: format!("eth{index}"), index, addresses, since }
    }

    #[test]
    fn an_interface_that_stays_keeps_its_time_whatever_its_addresses_do() {
        let mut known = vec![interface(2, &["10.0.0.1"], 5)];
        assert!(!replace(&mut known, vec![interface(2, &["10.0.0.1"], 9)]));
        assert!(replace(&mut known, vec![interface(2, &["10.0.0.2"], 10), interface(3, &["fe80::1"], 10)]));
        assert_eq!(known, [interface(2, &["10.0.0.2"], 5), interface(3, &["fe80::1"], 10)]);
        assert!(replace(&mut known, vec![interface(3, &["fe80::1"], 11)]));
        assert!(replace(&mut known, vec![interface(2, &["10.0.0.2"], 12), interface(3, &["fe80::1"], 12)]));
        assert_eq!(known, [interface(2, &["10.0.0.2"], 12), interface(3, &["fe80::1"], 10)]);
    }

    #[test]
    fn another_interface_with_the_number_of_one_that_is_gone_is_new() {
        let mut known = vec![interface(2, &["10.0.0.1"], 5)];
        let other = Interface { name: "wlan0".to_owned(), ..interface(2, &["10.0.0.1"], 9) };
        assert!(replace(&mut known, vec![other.clone()]));
        assert_eq!(known, [other]);
    }

    #[test]
    fn addresses_that_others_may_have_are_found_in_the_kernels_list() {
        let list = "fe80000000000000f8db07fffe5dd3ac 02 40 20 40     eth0\n\
                    fe8000000000000000fc00fffe000001 04 40 20 80     eth1\n\
                    20010db8000000000000000000000001 0a 40 00 c8     eth2\n\
                    no such thing\n\n";
        let expected = [(2, "fe80::f8db:7ff:fe5d:d3ac"), (10, "2001:db8::1")];
        assert_eq!(not_ours_yet(list), expected.map(|(index, address)| (index, address.parse().unwrap())));
    }

    #[test]
    fn what_nobody_else_reaches_is_no_address() {
        for address in [
            "127.0.0.1",
            "0.0.0.0",
            "224.0.0.251",
            "255.255.255.255",
            "::",
            "::1",
            "ff02::fb",
            "::ffff:1.2.3.4",
        ] {
            assert!(!is_usable(&address.parse().unwrap()), "{address}");
        }
        for address in ["10.0.0.1", "169.254.7.7", "8.8.8.8", "fe80::1", "fd00::1", "2001:db8::1"] {
            assert!(is_usable(&address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn the_kernel_is_asked() {
        let news = News::open().unwrap();
        news.drain();
        let rules = InterfaceRules::new(vec!["*".to_owned()]);
        for interface in look(&rules, Instant::default()).unwrap() {
            assert!(interface.index > 0 && !interface.addresses.is_empty());
        }
    }
}
