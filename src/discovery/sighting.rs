//! What boxes say of themselves on the LAN, and what is believed of it: that somebody may be there.
//!
//! Owns: the names and the texts of both services. Must never: trust what a packet says, or keep more of it than the bounds here. Driven by `daemon`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use super::interfaces::{is_link_local, is_usable};
use crate::formation::Fingerprint;
use crate::ids::ClusterId;

/// Nodes, on their UDP port for members.
pub(super) const NODES: &str = "_covey._udp.local.";
/// Members that serve clients: the name that etcd's own clients look for.
pub(super) const CLIENTS: &str = "_etcd-client-ssl._tcp.local.";

/// Others that are known of at a time; more are not heard until some are gone.
pub const SIGHTINGS_MAX: usize = 256;
/// Addresses of another one that are kept.
pub const SIGHTING_ADDRESSES_MAX: usize = 16;
/// Bytes of a node's name that are announced, and believed.
pub const NAME_BYTES_MAX: usize = 64;

/// What the text must say of its version.
const VERSION: &str = "1";
/// Digits of the fingerprint in a node's instance name.
const INSTANCE_DIGITS: usize = 16;

/// What this node announces. What is `None` is withdrawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announcement {
    /// That it is there.
    pub node: Option<NodeAnnouncement>,
    /// That clients are served on this TCP port.
    pub client_port: Option<u16>,
}

/// That a node is there, and of which cluster it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAnnouncement {
    /// The UDP port for members.
    pub port: u16,
    /// The cluster it is a member of, if it is.
    pub cluster: Option<ClusterId>,
    /// What people call it.
    pub name: String,
}

/// Another node that may be there. A dead one is seen for two minutes more, and anybody can say anything: it is no more than somebody to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The first part of its service name.
    pub instance: String,
    /// The fingerprint that it claims.
    pub fingerprint: Fingerprint,
    /// The cluster that it claims to be in.
    pub cluster: Option<ClusterId>,
    /// What it calls itself, without control characters.
    pub name: String,
    /// Where its UDP port for members may be; link-local addresses with their zone, and after the others.
    pub addresses: Vec<SocketAddr>,
}

/// The first part of a node's service name.
pub(super) fn instance_of(fingerprint: &Fingerprint) -> String {
    hex(fingerprint)[..INSTANCE_DIGITS].to_owned()
}

/// A fingerprint as the text carries it.
fn hex(fingerprint: &Fingerprint) -> String {
    fingerprint.to_string().replace(' ', "")
}

/// The pairs of the text that say this.
pub(super) fn text_of(own: &Fingerprint, node: &NodeAnnouncement) -> [(&'static str, String); 4] {
    let cluster = node.cluster.map(|id| format!("{:016x}", id.0)).unwrap_or_default();
    let name = printable(&node.name);
    [("v", VERSION.to_owned()), ("fp", hex(own)), ("c", cluster), ("n", name)]
}

/// What was found under some name, as it came.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The first part of the name.
    pub instance: String,
    /// Of the service.
    pub port: u16,
    /// Each with the index of the interface it was heard on.
    pub addresses: Vec<(IpAddr, u32)>,
    /// Pairs of the text, with lower-case keys.
    pub text: BTreeMap<String, Vec<u8>>,
}

impl Found {
    fn text(&self, key: &str) -> Option<&str> {
        self.text.get(key).and_then(|value| str::from_utf8(value).ok())
    }

    /// What is to be made of it; `None` for what no node of this version says.
    pub fn sighting(&self) -> Option<Sighting> {
        if self.text("v") != Some(VERSION) {
            return None;
        }
        let fingerprint: Fingerprint = self.text("fp")?.parse().ok()?;
        if self.instance != instance_of(&fingerprint) {
            return None;
        }
        let cluster = match self.text("c")? {
            "" => None,
            id => Some(ClusterId(u64::from_str_radix(id, 16).ok().filter(|id| *id != 0)?)),
        };
        let name = printable(self.text("n").unwrap_or_default());
        let addresses = self.socket_addresses();
        (!addresses.is_empty()).then_some(Sighting {
            instance: self.instance.clone(),
            fingerprint,
            cluster,
            name,
            addresses,
        })
    }

    /// The addresses that somebody may be reached at: with a zone where they need one, those that reach farther first.
    pub(super) fn socket_addresses(&self) -> Vec<SocketAddr> {
        if self.port == 0 {
            return Vec::new();
        }
        let mut usable: Vec<_> = self.addresses.iter().filter(|(address, _)| is_usable(address)).collect();
        usable.sort_by_key(|(address, interface)| (is_link_local(address), *address, *interface));
        let mut addresses: Vec<SocketAddr> = usable
            .into_iter()
            .map(|(address, interface)| match address {
                IpAddr::V6(v6) if v6.is_unicast_link_local() => {
                    SocketAddrV6::new(*v6, self.port, 0, *interface).into()
                }
                _ => SocketAddr::new(*address, self.port),
            })
            .collect();
        addresses.dedup();
        addresses.truncate(SIGHTING_ADDRESSES_MAX);
        addresses
    }
}

/// What may be shown of a name that somebody chose: no control characters, and not too long.
fn printable(name: &str) -> String {
    let mut shown = String::new();
    for c in name.chars().filter(|c| !c.is_control()) {
        if shown.len() + c.len_utf8() > NAME_BYTES_MAX {
            break;
        }
        shown.push(c);
    }
    shown
}
