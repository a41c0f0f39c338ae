//! Real mDNS between network namespaces: nodes that come and go, on networks that come and go.
//!
//! Owns: what has to be seen. Must never: speak on a network of the machine's own. The tests need root: `.ci/run zero`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "the processes in namespaces tell by it what they see")]

mod flood;
mod inside;
mod lan;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lan::{Lan, Node, wait};

/// Longer than anything takes that is seen at all.
const LONG: Duration = Duration::from_secs(4);

/// Nodes on hosts that have an `eth0`, called `n0`, `n1`, and so on, in no cluster.
fn nodes(lan: &Lan, count: usize) -> Vec<Node> {
    (0..count)
        .map(|host| {
            let mut node = lan.start(host, u8::try_from(host).unwrap(), "");
            node.announce(2380, &format!("n{host}"), 0, 0);
            node
        })
        .collect()
}

fn is_v4(address: &SocketAddr) -> bool {
    address.is_ipv4()
}

fn is_link_local(address: &SocketAddr) -> bool {
    matches!(address.ip(), IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn three_nodes_see_each_other_and_not_themselves() {
    let lan = Lan::wired(3);
    let mut nodes = nodes(&lan, 3);
    for (node, others) in nodes.iter().zip([["n1@0", "n2@0"], ["n0@0", "n2@0"], ["n0@0", "n1@0"]]) {
        node.until_sees(&others);
        let sees = node.until("both kinds of addresses", |sees| {
            sees.nodes.iter().all(|(_, at)| at.iter().any(is_v4) && at.iter().any(is_link_local))
        });
        for (name, at) in sees.nodes {
            let number: usize = name[1..2].parse().unwrap();
            assert_eq!(at[0], format!("10.78.0.{}:2380", number + 1).parse().unwrap());
            // Without its zone it leads nowhere.
            let SocketAddr::V6(v6) = at[1] else { panic!("{at:?}") };
            assert!(v6.scope_id() > 0 && at.len() == 2, "{at:?}");
        }
    }
    // What one says anew takes the place of what it has said.
    nodes[0].announce(2390, "n0", 0xabc, 0);
    for other in &nodes[1..] {
        let sees = other.until("a cluster", |sees| sees.names().contains(&"n0@abc"));
        assert!(sees.addresses_of("n0@abc").iter().all(|at| at.port() == 2390));
    }
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn who_withdraws_or_stops_is_seen_no_more() {
    let lan = Lan::wired(3);
    let mut nodes = nodes(&lan, 3);
    nodes[0].until_sees(&["n1@0", "n2@0"]);
    nodes[1].tell("withdraw");
    nodes[0].until_sees(&["n2@0"]);
    nodes.remove(2).stop();
    nodes[0].until_sees(&[]);
    // It still looks, and may come back.
    nodes[1].until_sees(&["n0@0"]);
    nodes[1].announce(2380, "n1", 0, 0);
    nodes[0].until_sees(&["n1@0"]);
}

/// A box may be up long before its network.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn an_interface_that_comes_later_is_used() {
    let lan = Lan::new(2);
    lan.plug(0, "eth0", "lan");
    lan.address(0, "add", "10.78.0.1/24", "eth0");
    let nodes = nodes(&lan, 2);
    wait(Duration::from_secs(2));
    assert!(nodes[1].sees().interfaces.is_empty());
    lan.plug(1, "eth0", "lan");
    lan.address(1, "add", "10.78.0.2/24", "eth0");
    nodes[1].until("an interface", |sees| {
        sees.interfaces.iter().any(|(name, at)| name == "eth0" && at.contains(&"10.78.0.2".to_owned()))
    });
    nodes[0].until("the late one", |sees| sees.addresses_of("n1@0").iter().any(is_v4));
    nodes[1].until("the early one", |sees| sees.addresses_of("n0@0").iter().any(is_v4));
    // And it may go.
    lan.ip(1, "link del eth0");
    nodes[1].until("no interface", |sees| sees.interfaces.is_empty());
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn an_address_that_changes_is_seen_and_the_one_before_is_not() {
    let lan = Lan::wired(2);
    let nodes = nodes(&lan, 2);
    let old: SocketAddr = "10.78.0.2:2380".parse().unwrap();
    nodes[0].until("the first address", |sees| sees.addresses_of("n1@0").contains(&old));
    lan.address(1, "del", "10.78.0.2/24", "eth0");
    lan.address(1, "add", "10.78.0.22/24", "eth0");
    let new: SocketAddr = "10.78.0.22:2380".parse().unwrap();
    nodes[0].until("the other address", |sees| {
        let at = sees.addresses_of("n1@0");
        at.contains(&new) && !at.contains(&old)
    });
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_network_without_any_configuration_is_enough() {
    let lan = Lan::new(2);
    lan.plug(0, "eth0", "lan");
    lan.plug(1, "eth0", "lan");
    let nodes = nodes(&lan, 2);
    for (node, other) in nodes.iter().zip(["n1@0", "n0@0"]) {
        let sees = node.until("a link-local address", |sees| !sees.addresses_of(other).is_empty());
        assert!(sees.addresses_of(other).iter().all(is_link_local), "{sees:?}");
    }
}

/// What is on the other side of `docker0` is no other box, and must hear nothing; nor is its address of any use to those on `eth0`.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn networks_of_containers_do_not_count_unless_they_are_asked_for() {
    let lan = Lan::wired(2);
    for (host, interface, address) in [(0, "docker0", "172.17.0.1/16"), (1, "veth0", "172.17.0.2/16")] {
        lan.plug(host, interface, "other");
        lan.address(host, "add", address, interface);
    }
    let mut first = lan.start(0, 0, "");
    first.announce(2380, "n0", 0, 2379);
    // Asks for the network of containers, on which nobody speaks.
    let mut container = lan.start(1, 1, "veth*");
    container.announce(2380, "n1", 0, 0);
    container.until("its interface", |sees| sees.interfaces.len() == 1 && sees.interfaces[0].0 == "veth0");
    let mut second = lan.start(1, 2, "");
    second.announce(2380, "n2", 0, 0);
    let sees = second.until("the first", |sees| sees.addresses_of("n0@0").iter().any(is_v4));
    assert!(sees.addresses_of("n0@0").iter().all(|at| !at.to_string().starts_with("172.")), "{sees:?}");
    wait(LONG);
    let sees = container.sees();
    assert!(sees.addresses_of("n0@0").is_empty(), "{sees:?}");
    let sees = first.sees();
    assert_eq!(sees.names(), ["n2@0"], "{sees:?}");
    assert!(sees.interfaces.iter().all(|(name, _)| name == "eth0"), "{sees:?}");
}

/// Each network is told the addresses on it, and no others.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_node_on_two_networks_is_seen_on_both() {
    let lan = Lan::new(3);
    for (host, interface, switch, address) in [
        (0, "eth0", "lan", "10.78.0.1/24"),
        (0, "eth1", "other", "10.79.0.1/24"),
        (1, "eth0", "lan", "10.78.0.2/24"),
        (2, "eth0", "other", "10.79.0.3/24"),
    ] {
        lan.plug(host, interface, switch);
        lan.address(host, "add", address, interface);
    }
    let nodes = nodes(&lan, 3);
    nodes[0].until_sees(&["n1@0", "n2@0"]);
    for (node, prefix, not) in [(1, "10.78.", "10.79."), (2, "10.79.", "10.78.")] {
        let sees = nodes[node].until("the one in the middle", |sees| {
            sees.addresses_of("n0@0").iter().any(|at| at.to_string().starts_with(prefix))
        });
        assert!(!sees.addresses_of("n0@0").iter().any(|at| at.to_string().starts_with(not)), "{sees:?}");
        assert_eq!(sees.names(), ["n0@0"]);
    }
}

/// Nobody is seen, and nothing breaks: once there is multicast, all is well.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn a_network_without_multicast_does_no_harm() {
    let lan = Lan::wired(2);
    (0..2).for_each(|host| lan.multicast(host, false));
    let nodes = nodes(&lan, 2);
    nodes[0].until("its interface", |sees| sees.interfaces.len() == 1);
    wait(LONG);
    assert!(nodes[0].sees().nodes.is_empty() && nodes[1].sees().nodes.is_empty());
    (0..2).for_each(|host| lan.multicast(host, true));
    nodes[0].until_sees(&["n1@0"]);
    nodes[1].until_sees(&["n0@0"]);
}

/// Others on the box use the port, too (avahi): all of them hear everything.
#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn the_port_is_shared() {
    let lan = Lan::wired(2);
    let mut nodes = nodes(&lan, 2);
    let mut third = lan.start(0, 7, "");
    third.announce(2480, "n7", 0, 0);
    nodes[1].until_sees(&["n0@0", "n7@0"]);
    third.until_sees(&["n0@0", "n1@0"]);
    nodes[0].until_sees(&["n1@0", "n7@0"]);
    nodes[0].tell("withdraw");
    third.until_sees(&["n1@0"]);
}

#[test]
#[ignore = "needs root and namespaces: .ci/run zero"]
fn clients_find_members_that_serve_them() {
    let lan = Lan::wired(3);
    let mut nodes = nodes(&lan, 3);
    nodes[1].announce(2380, "n1", 0, 2379);
    nodes[0].until_sees(&["n1@0", "n2@0"]);
    nodes[0].tell("find");
    let sees = nodes[0].until("an answer", |sees| sees.endpoints.is_some());
    let found = sees.endpoints.unwrap();
    assert_eq!(found[0], "10.78.0.2:2379".parse().unwrap());
    assert!(found.iter().all(|at| at.port() == 2379), "{found:?}");
}
