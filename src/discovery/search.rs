//! Where clients are served on the LAN, for a client that looks.
//!
//! Owns: one search, which is over when it is dropped. Must never: say anything of this box, or decide whom to trust: anybody can say anything. Driven
//! by the command line.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use mdns_sd::{HostnameResolutionEvent, Receiver, ResolvedService, ServiceEvent};
use smol::Timer;
use smol::future::or;
use smol::stream::{Stream, StreamExt as _};

use super::daemon::{Held, Load, UNANSWERED_MAX, found, listener};
use super::interfaces::{is_link_local, look};
use super::sighting::{CLIENTS, SIGHTINGS_MAX};
use super::{InterfaceRules, StartError};
use crate::time::Instant;

/// How often it is looked at how much the daemon holds.
const LOOKS: Duration = Duration::from_millis(50);

/// See the module.
pub struct Search {
    daemon: Held,
    looks: Timer,
    unanswered: u32,
    events: Pin<Box<dyn Stream<Item = ServiceEvent> + Send>>,
    /// Names of servers whose other addresses are asked for, too.
    hosts: BTreeMap<String, Receiver<HostnameResolutionEvent>>,
    told: BTreeSet<SocketAddr>,
    to_tell: VecDeque<SocketAddr>,
}

impl fmt::Debug for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Search")
    }
}

impl Search {
    /// Asks on all interfaces that count; `None` where there is none.
    pub fn start(rules: &InterfaceRules) -> Result<Option<Self>, StartError> {
        let interfaces = look(rules, Instant::default())?;
        if interfaces.is_empty() {
            return Ok(None);
        }
        let daemon = listener(&interfaces)?;
        let events = Box::pin(daemon.mdns.browse(CLIENTS)?.into_stream());
        let (hosts, told, to_tell) = (BTreeMap::new(), BTreeSet::new(), VecDeque::new());
        let looks = Timer::interval(LOOKS);
        Ok(Some(Self { daemon, looks, unanswered: 0, events, hosts, told, to_tell }))
    }

    /// The next place where a server may be, over TLS; each is told once. `None` when enough was said, or nothing more can be heard.
    pub async fn next(&mut self) -> Option<SocketAddr> {
        loop {
            if let Some(address) = self.to_tell.pop_front() {
                return Some(address);
            }
            if self.told.len() >= SIGHTINGS_MAX || self.hosts.len() >= SIGHTINGS_MAX {
                return None;
            }
            let event = async { self.events.next().await.map(Some) };
            let looks = async { self.looks.next().await.map(|_| None) };
            match or(looks, event).await? {
                Some(ServiceEvent::ServiceResolved(service)) => self.take(&service)?,
                Some(_) => {}
                None => match self.daemon.load() {
                    Load::Bearable => self.unanswered = 0,
                    // A box may be slow.
                    Load::Unknown if self.unanswered < UNANSWERED_MAX => self.unanswered += 1,
                    // So much is said that what is meant for us is not found in it.
                    Load::Unknown | Load::TooMuch => return None,
                },
            }
        }
    }

    fn take(&mut self, service: &ResolvedService) -> Option<()> {
        // Certificates and URLs have no room for zones.
        let addresses = found(service).socket_addresses().into_iter().filter(|at| !is_link_local(&at.ip()));
        self.to_tell.extend(addresses.filter(|address| self.told.insert(*address)));
        let host = service.get_hostname();
        if !self.hosts.contains_key(host) {
            // An answer has the addresses of its own kind only. These are told as others of the service.
            self.hosts.insert(host.to_owned(), self.daemon.mdns.resolve_hostname(host, None).ok()?);
        }
        Some(())
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        // One that is still busy takes nothing more, and ends with the process.
        let _ = self.daemon.end();
    }
}
