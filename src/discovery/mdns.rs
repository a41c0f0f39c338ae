//! The mDNS daemon: what it announces and looks for, and what it has found.
//!
//! Owns: how `mdns-sd` is driven, and what is seen. Must never: use an interface that does not count. Driven by the thread in `mod`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use mdns_sd::{
    IfKind, IfPredicate, Receiver, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo,
};
use smol::stream::Stream;

use super::interfaces::is_link_local;
use super::rules::InterfaceRules;
use super::sighting::{Announcement, CLIENTS, Found, NODES, SIGHTINGS_MAX, Sighting, instance_of, text_of};
use crate::formation::Fingerprint;
use crate::runtime::clock::Clock;

/// How long the daemon may take to say goodbye on the LAN.
const FAREWELL: Duration = Duration::from_millis(500);

/// The daemon, a thread of its own, bound to interfaces that count.
pub(super) struct Mdns {
    daemon: ServiceDaemon,
    own: Fingerprint,
}

fn start(rules: InterfaceRules) -> Result<ServiceDaemon, mdns_sd::Error> {
    let daemon = ServiceDaemon::new()?;
    daemon.disable_interface(IfKind::All)?;
    let counts = IfPredicate::new(move |seen| rules.takes(&seen.name, seen.is_p2p()));
    daemon.enable_interface(IfKind::Predicate(counts))?;
    Ok(daemon)
}

/// The full name of a service of this node's.
fn full_name(own: &Fingerprint, service: &str) -> String {
    format!("{}.{service}", instance_of(own))
}

impl Mdns {
    pub(super) fn start(own: Fingerprint, rules: InterfaceRules) -> Result<Self, mdns_sd::Error> {
        Ok(Self { daemon: start(rules)?, own })
    }

    /// The interfaces have changed: has the daemon use those that are new.
    pub(super) fn look_at_interfaces(&self) -> Result<(), mdns_sd::Error> {
        self.daemon.enable_interface(Vec::<IfKind>::new())
    }

    /// Says this on the LAN from now on, and nothing else.
    pub(super) fn announce(&self, announcement: &Announcement) -> Result<(), mdns_sd::Error> {
        let node = announcement.node.as_ref();
        let text = node.map(|node| text_of(&self.own, node).to_vec()).unwrap_or_default();
        self.say(NODES, node.map(|node| node.port), &text)?;
        self.say(CLIENTS, announcement.client_port, &[])
    }

    fn say(&self, service: &str, port: Option<u16>, text: &[(&str, String)]) -> Result<(), mdns_sd::Error> {
        let Some(port) = port else {
            self.daemon.unregister(&full_name(&self.own, service))?;
            return Ok(());
        };
        let instance = instance_of(&self.own);
        let host = format!("covey-{instance}.local.");
        let mut info = ServiceInfo::new(service, &instance, &host, "", port, text)?.enable_addr_auto();
        // The name is made of a hash: nobody else has it.
        info.set_requires_probe(false);
        self.daemon.register(info)
    }

    pub(super) fn browse(&self, service: &str) -> Result<Receiver<ServiceEvent>, mdns_sd::Error> {
        self.daemon.browse(service)
    }
}

impl Drop for Mdns {
    fn drop(&mut self) {
        if let Ok(end) = self.daemon.shutdown() {
            let _ = end.recv_timeout(FAREWELL);
        }
    }
}

/// The first part of a full service name.
fn instance_in(full_name: &str) -> &str {
    full_name.split('.').next().unwrap_or_default()
}

/// What was found, without what is not looked at.
pub(super) fn found(service: &ResolvedService) -> Found {
    let addresses = service.get_addresses().iter().flat_map(|address| match address {
        ScopedIp::V4(v4) => vec![(IpAddr::V4(*v4.addr()), 0)],
        ScopedIp::V6(v6) => vec![(IpAddr::V6(*v6.addr()), v6.scope_id().index)],
        _ => Vec::new(),
    });
    let text = service.get_properties().iter();
    Found {
        instance: instance_in(service.get_fullname()).to_ascii_lowercase(),
        port: service.get_port(),
        addresses: addresses.collect(),
        text: text
            .map(|pair| (pair.key().to_ascii_lowercase(), pair.val().unwrap_or_default().to_vec()))
            .collect(),
    }
}

type Events = Pin<Box<dyn Stream<Item = ServiceEvent> + Send>>;

/// What is seen of other nodes.
pub(super) struct Seen {
    own: Fingerprint,
    events: Events,
    pub(super) sightings: BTreeMap<String, Sighting>,
}

impl Seen {
    pub(super) fn new(mdns: &Mdns) -> Result<Self, mdns_sd::Error> {
        let events = Box::pin(mdns.browse(NODES)?.into_stream());
        Ok(Self { own: mdns.own, events, sightings: BTreeMap::new() })
    }

    /// Takes what the daemon has found. Tells whether anything is different, and has `context` woken when there is more.
    pub(super) fn poll(&mut self, mdns: &Mdns, context: &mut Context<'_>) -> Result<bool, mdns_sd::Error> {
        let mut differs = false;
        loop {
            match self.events.as_mut().poll_next(context) {
                Poll::Ready(Some(event)) => differs |= self.take(event),
                // It gives up whoever is too slow.
                Poll::Ready(None) => self.events = Box::pin(mdns.browse(NODES)?.into_stream()),
                Poll::Pending => return Ok(differs),
            }
        }
    }

    fn take(&mut self, event: ServiceEvent) -> bool {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                let found = found(&service);
                match found.sighting().filter(|sighting| sighting.fingerprint != self.own) {
                    Some(sighting) => self.saw(sighting),
                    None => self.sightings.remove(&found.instance).is_some(),
                }
            }
            ServiceEvent::ServiceRemoved(_, full_name) => {
                self.sightings.remove(&instance_in(&full_name).to_ascii_lowercase()).is_some()
            }
            _ => false,
        }
    }

    fn saw(&mut self, sighting: Sighting) -> bool {
        let known = self.sightings.get(&sighting.instance);
        if known == Some(&sighting) || (known.is_none() && self.sightings.len() >= SIGHTINGS_MAX) {
            return false;
        }
        self.sightings.insert(sighting.instance.clone(), sighting);
        true
    }
}

/// How long others are waited for once one has answered.
const OTHERS: Duration = Duration::from_millis(300);

/// See [`super::client_endpoints`].
pub(super) fn client_endpoints(
    rules: InterfaceRules,
    patience: Duration,
    clock: Clock,
) -> Result<Vec<SocketAddr>, mdns_sd::Error> {
    let daemon = start(rules)?;
    let events = daemon.browse(CLIENTS)?;
    let mut until = clock.now() + patience;
    let mut endpoints = Vec::new();
    while let Ok(event) = events.recv_timeout(clock.until(until)) {
        let ServiceEvent::ServiceResolved(service) = event else { continue };
        endpoints.extend(found(&service).socket_addresses());
        until = until.min(clock.now() + OTHERS);
        if endpoints.len() >= SIGHTINGS_MAX {
            break;
        }
    }
    let _ = daemon.shutdown();
    endpoints.sort_by_key(|endpoint| (is_link_local(&endpoint.ip()), *endpoint));
    endpoints.dedup();
    Ok(endpoints)
}
