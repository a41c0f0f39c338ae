//! The LAN as a node sees it that finds others by itself: where it is, and where others may be.
//!
//! Owns: what is announced, and how addresses become places to dial. Must never: believe what was heard there: it says where somebody may be, and
//! never who. Driven by `serve`, `gather` and `peers`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::config::ServeConfig;
use crate::discovery::{
    Announcement, Discovery, InterfaceRules, NodeAnnouncement, Options, Sighting, StartError, is_link_local,
    is_near,
};
use crate::formation::Fingerprint;
use crate::formation::gathering::Network;
use crate::ids::ClusterId;
use crate::peer::Near;
use crate::runtime::Milestone;
use crate::runtime::clock::Clock;
use crate::time::Instant;

/// See the module. Dropped, nothing is announced any more.
pub(super) struct Lan {
    discovery: Discovery,
    news: Arc<Milestone>,
    rules: InterfaceRules,
    /// What this node is called.
    name: String,
    peer_port: u16,
    client_port: u16,
    /// When it began to look.
    began: Instant,
    booted_lately: bool,
}

/// What is found in so short a time was there before.
const BEGINS: Duration = Duration::from_secs(1);
/// A box that has run for less than this was powered on together with its switch, perhaps, which lets nothing through at first.
const BOOTS: Duration = Duration::from_secs(60);

/// Clusters that are asked in one look, all at a time, ...
pub(super) const CLUSTERS_ASKED_MAX: usize = 16;
/// ... and addresses at which one of them is. So a look is over after some seconds, however much is announced by whoever wants to keep it up.
const ADDRESSES_ASKED_MAX: usize = 16;

fn uptime() -> Duration {
    let uptime = clock_gettime(ClockId::Boottime);
    Duration::try_from(uptime).unwrap_or_default()
}

impl Lan {
    /// Begins to look around.
    pub(super) fn start(
        config: &ServeConfig,
        name: &str,
        own: Fingerprint,
        clock: Clock,
    ) -> Result<Arc<Self>, StartError> {
        let news = Arc::new(Milestone::default());
        let for_thread = Arc::clone(&news);
        let on_news = Arc::new(move || for_thread.reach(for_thread.value() + 1));
        let interfaces = InterfaceRules::new(config.peer.interfaces.clone());
        let rules = interfaces.clone();
        let discovery = Discovery::start(Options { interfaces, own, clock }, on_news)?;
        let client_port = config.client.listen_urls.first().map_or(0, |listen| listen.address.port());
        let peer_port = config.peer.listen.port();
        let (name, began, booted_lately) = (name.to_owned(), clock.now(), uptime() < BOOTS);
        Ok(Arc::new(Self { discovery, news, rules, name, peer_port, client_port, began, booted_lately }))
    }

    /// Resolves when anything was heard, or an address has changed, since this call.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + use<> {
        let (news, next) = (Arc::clone(&self.news), self.news.value() + 1);
        async move {
            news.wait(next).await;
        }
    }

    /// Says that this node is here, in a cluster or in none, and whether clients are served.
    pub(super) fn announce(&self, cluster: Option<ClusterId>, serves: bool) {
        let node = NodeAnnouncement { port: self.peer_port, cluster, name: self.name.clone() };
        let client_port = serves.then_some(self.client_port);
        self.discovery.announce(&Announcement { node: Some(node), client_port });
    }

    /// Where each node may be that was heard of.
    pub(super) fn places(&self) -> BTreeMap<Fingerprint, Vec<SocketAddr>> {
        let mut places: BTreeMap<Fingerprint, Vec<SocketAddr>> = BTreeMap::new();
        for sighting in self.discovery.sightings() {
            places.entry(sighting.fingerprint).or_default().extend(sighting.addresses);
        }
        places
    }

    /// Every node that was heard of.
    pub(super) fn sightings(&self) -> Vec<Sighting> {
        self.discovery.sightings()
    }

    /// Where members of other clusters may be, by cluster.
    pub(super) fn clusters_beside(&self, own: ClusterId) -> BTreeMap<ClusterId, Vec<SocketAddr>> {
        let mut clusters: BTreeMap<ClusterId, Vec<SocketAddr>> = BTreeMap::new();
        for sighting in self.discovery.sightings() {
            if let Some(cluster) = sighting.cluster.filter(|cluster| *cluster != own) {
                clusters.entry(cluster).or_default().extend(sighting.addresses);
            }
        }
        clusters
    }

    /// The addresses of this box that mean something to others, whichever link they are on; see [`in_turn`].
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        in_turn(self.discovery.interfaces().into_iter().map(|interface| interface.addresses))
    }

    /// Where other members find this one.
    pub(super) fn peer_urls(&self) -> Vec<String> {
        self.urls(self.peer_port)
    }

    /// Where clients find it.
    pub(super) fn client_urls(&self) -> Vec<String> {
        self.urls(self.client_port)
    }

    fn urls(&self, port: u16) -> Vec<String> {
        let url = |address: IpAddr| format!("https://{}", SocketAddr::new(address, port));
        self.addresses().into_iter().map(url).collect()
    }

    /// How long there has been a network, and whether it is still changing. What was up when this process began is taken to have been up for long,
    /// unless the box itself has just been powered on.
    pub(super) fn network(&self) -> Network {
        let interfaces = self.discovery.interfaces();
        let since = interfaces.iter().map(|interface| interface.since);
        let came_up = |at: &Instant| self.booted_lately || at.since(self.began) > BEGINS;
        Network { carrier_since: since.clone().min(), last_up: since.filter(came_up).max() }
    }

    /// Who is on the same network as this box.
    pub(super) fn near(&self) -> Near {
        let rules = self.rules.clone();
        Near(Arc::new(move |address| is_near(&rules, address)))
    }
}

/// Which of the clusters that were heard of are asked in one look, and where: of very many others each time, with another `start`, since who announces them may
/// want to hide one.
pub(super) fn asked_now(
    beside: BTreeMap<ClusterId, Vec<SocketAddr>>,
    start: u64,
) -> Vec<(ClusterId, Vec<SocketAddr>)> {
    let clusters = some(beside.into_iter().collect(), CLUSTERS_ASKED_MAX, start);
    let of = |(cluster, addresses)| (cluster, some(addresses, ADDRESSES_ASKED_MAX, start));
    clusters.into_iter().map(of).collect()
}

fn some<T>(mut all: Vec<T>, most: usize, start: u64) -> Vec<T> {
    if all.len() > most {
        let first = start % all.len() as u64;
        all.rotate_left(usize::try_from(first).unwrap_or_default());
        all.truncate(most);
    }
    all
}

/// The addresses of all interfaces that mean something beyond one link: the first of each interface, then the second of each, and so on. Not all of them are
/// kept everywhere, and an interface with many must not push out the others.
fn in_turn(interfaces: impl Iterator<Item = Vec<IpAddr>>) -> Vec<IpAddr> {
    let mut placed = BTreeMap::new();
    for addresses in interfaces {
        for (place, address) in addresses.into_iter().filter(|address| !is_link_local(address)).enumerate() {
            let best = placed.entry(address).or_insert(place);
            *best = place.min(*best);
        }
    }
    let mut addresses: Vec<(usize, IpAddr)> =
        placed.into_iter().map(|(address, place)| (place, address)).collect();
    addresses.sort_unstable();
    addresses.into_iter().map(|(_, address)| address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn an_interface_with_many_addresses_pushes_out_no_other() {
        let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let many = ["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2", "fe80::1"];
        let interfaces = [parse(&many), parse(&["fe80::2"]), parse(&["192.168.1.7", "10.0.0.2", "fe80::3"])];
        let expected = ["10.0.0.1", "192.168.1.7", "10.0.0.2", "fd00::1", "fd00::2"];
        assert_eq!(in_turn(interfaces.into_iter()), parse(&expected));
    }

    #[test]
    fn whoever_announces_very_much_keeps_up_no_look_and_hides_nobody() {
        let address = |n: usize| SocketAddr::from(([10, 0, 0, 1], u16::try_from(n).unwrap()));
        let beside = |clusters: u64, addresses: usize| {
            let addresses: Vec<SocketAddr> = (0..addresses).map(address).collect();
            (1..=clusters).map(|cluster| (ClusterId(cluster), addresses.clone())).collect::<BTreeMap<_, _>>()
        };
        let few: Vec<_> = beside(3, 4).into_iter().collect();
        assert_eq!(asked_now(beside(3, 4), u64::MAX), few, "all of them, in their order");
        let mut seen = [BTreeSet::new(), BTreeSet::new()];
        for start in 0..300 {
            let asked = asked_now(beside(256, 300), start);
            assert_eq!(asked.len(), CLUSTERS_ASKED_MAX);
            for (cluster, addresses) in asked {
                assert_eq!(addresses.len(), ADDRESSES_ASKED_MAX);
                seen[0].insert(cluster.0);
                seen[1].extend(addresses.into_iter().map(|at| u64::from(at.port())));
            }
        }
        assert_eq!(seen.map(|seen| seen.len()), [256, 300]);
    }
}
