//! Which network interfaces lead to other boxes.
//!
//! Owns: the names that do not count. Must never: look at the machine. Driven by `interfaces`.

/// Interfaces that lead to containers, virtual machines, tunnels and the box itself: they count only when they are asked for. A star at the
/// end stands for anything. What is not here counts: wired, wireless, bonds, VLANs, and bridges that somebody made by hand (`br0`). The end of a
/// veth pair inside a container is usually called `eth0`, and is its way to the others.
pub const NOT_BY_DEFAULT: &[&str] = &[
    "lo",
    // Containers and their networks.
    "docker*",
    "br-*",
    "podman*",
    "veth*",
    "cni*",
    "cbr*",
    "flannel*",
    "cali*",
    "cilium*",
    "lxc*",
    "lxdbr*",
    "incusbr*",
    "kube-*",
    "nodelocaldns",
    "weave*",
    "vxlan*",
    "geneve*",
    // Virtual machines.
    "virbr*",
    "vnet*",
    "vmnet*",
    "vboxnet*",
    "macvtap*",
    // Tunnels and mobile networks.
    "tun*",
    "tap*",
    "wg*",
    "zt*",
    "tailscale*",
    "nebula*",
    "ipsec*",
    "gre*",
    "sit*",
    "ip6tnl*",
    "ppp*",
    "wwan*",
    // Placeholders of the kernel's.
    "dummy*",
    "ifb*",
];

/// Which interfaces count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceRules {
    asked_for: Vec<String>,
}

impl InterfaceRules {
    /// Those with these names and no others; a star at the end of a name stands for anything. Without names all but [`NOT_BY_DEFAULT`].
    pub fn new(asked_for: Vec<String>) -> Self {
        Self { asked_for }
    }

    /// Whether an interface of this name counts. One that has a single other end (a tunnel, a modem) has to be asked for, too.
    pub fn takes(&self, name: &str, point_to_point: bool) -> bool {
        if self.asked_for.is_empty() {
            return !point_to_point && !NOT_BY_DEFAULT.iter().any(|pattern| fits(pattern, name));
        }
        self.asked_for.iter().any(|pattern| fits(pattern, name))
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(head) => name.starts_with(head),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_other_boxes_counts() {
        let rules = InterfaceRules::default();
        for name in [
            "eth0",
            "eno1",
            "enp3s0",
            "enx001122334455",
            "wlan0",
            "bond0",
            "br0",
            "eth0.10",
            "vlan10",
            "usb0",
        ] {
            assert!(rules.takes(name, false), "{name}");
            assert!(!rules.takes(name, true), "{name}");
        }
    }

    #[test]
    fn what_leads_to_containers_and_through_tunnels_does_not() {
        let rules = InterfaceRules::default();
        for name in [
            "lo",
            "docker0",
            "docker_gwbridge",
            "br-0a1b2c3d4e5f",
            "veth12ab",
            "virbr0",
            "cni0",
            "flannel.1",
            "cali0123",
            "tun0",
            "tap0",
            "wg0",
            "zt5u4uptmb",
            "tailscale0",
            "vmnet8",
            "ppp0",
            "wwan0",
        ] {
            assert!(!rules.takes(name, false), "{name}");
        }
    }

    #[test]
    fn who_asks_for_some_gets_those_and_no_others() {
        let rules = InterfaceRules::new(vec!["wg0".to_owned(), "docker*".to_owned()]);
        assert!(rules.takes("wg0", true) && rules.takes("docker0", false));
        assert!(!rules.takes("eth0", false) && !rules.takes("wg01", true) && !rules.takes("lo", false));
    }
}
