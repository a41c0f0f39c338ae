//! One run of the mDNS daemon, from its start to its farewell.
//!
//! Owns: how `mdns-sd` is driven, and how much it may hold. Must never: use an interface or an address that it was not given. Driven by `mdns`, and by
//! clients that look for an endpoint.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use mdns_sd::{
    DaemonStatus, IfKind, IfPredicate, Metrics, Receiver, ResolvedService, ScopedIp, ServiceDaemon,
    ServiceEvent, ServiceInfo,
};
use smol::stream::Stream;

use super::gate::{Gate, Open};
use super::interfaces::Interface;
use super::sighting::{Announcement, CLIENTS, Found, NODES, instance_of, text_of};
use crate::formation::Fingerprint;

/// Records that a daemon may hold. It keeps what nobody asked for as well, for as long as is claimed or for good; each takes 300 to 800 bytes.
pub(super) const RECORDS_MAX: i64 = 8 << 10;
/// Times that it may have in its list, two for every record that came, of 16 bytes each.
pub(super) const TIMERS_MAX: i64 = 128 << 10;
/// Events of one run: of each name it has ever resolved it keeps the name.
pub(super) const EVENTS_MAX: usize = 64 << 10;
/// The port of mDNS.
const PORT: u16 = 5353;
/// How long it is waited for when it is asked how much it holds.
const ANSWERS: Duration = Duration::from_millis(20);
/// How often in a row it may not answer.
pub(super) const UNANSWERED_MAX: u32 = 10;
/// How long it may take to say goodbye on the LAN.
const FAREWELL: Duration = Duration::from_millis(500);

type Events = Pin<Box<dyn Stream<Item = ServiceEvent> + Send>>;

/// How much a daemon holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// No more than it may.
    Bearable,
    /// It has not answered: there is so much to read that it does nothing else.
    Unknown,
    /// More than it may, or it is no more.
    TooMuch,
}

/// A daemon, and what can be done about what it takes.
pub(super) struct Held {
    pub(super) mdns: ServiceDaemon,
    gate: Option<Gate>,
    asked: Option<Receiver<Metrics>>,
}

/// See the module.
pub(super) struct Daemon {
    held: Held,
    own: Fingerprint,
    used: Used,
    events: Option<Events>,
    taken: usize,
}

/// Addresses, each on the interface of this index.
type Used = Arc<Mutex<Vec<(u32, IpAddr)>>>;

fn on_interfaces(interfaces: &[Interface]) -> Vec<(u32, IpAddr)> {
    let on = |interface: &Interface| {
        let index = interface.index;
        interface.addresses.iter().map(|address| (index, *address)).collect::<Vec<_>>()
    };
    interfaces.iter().flat_map(on).collect()
}

/// A daemon that uses these addresses only.
fn start(used: &Used) -> Result<Held, mdns_sd::Error> {
    let before = Open::now();
    let mdns = ServiceDaemon::new_with_port(PORT)?;
    let began = mdns.status()?;
    let gate = Gate::find(&before, PORT, || !began.is_empty());
    // Changes are told by the kernel.
    mdns.set_ip_check_interval(0)?;
    mdns.disable_interface(IfKind::All)?;
    let used = Arc::clone(used);
    let is_used = IfPredicate::new(move |seen| {
        let used = used.lock().unwrap_or_else(PoisonError::into_inner);
        seen.index.is_some_and(|index| used.contains(&(index, seen.ip())))
    });
    mdns.enable_interface(IfKind::Predicate(is_used))?;
    Ok(Held { mdns, gate, asked: None })
}

/// A daemon that nothing is said by, on these interfaces only.
pub(super) fn listener(interfaces: &[Interface]) -> Result<Held, mdns_sd::Error> {
    start(&Arc::new(Mutex::new(on_interfaces(interfaces))))
}

impl Held {
    /// How much it holds.
    pub(super) fn load(&mut self) -> Load {
        let asked = match self.asked.take() {
            Some(asked) => asked,
            None => match self.mdns.get_metrics() {
                Ok(asked) => asked,
                Err(mdns_sd::Error::Again) => return Load::Unknown,
                Err(_) => return Load::TooMuch,
            },
        };
        match asked.recv_timeout(ANSWERS) {
            Ok(metrics) => load_of(&metrics),
            Err(_) if asked.is_disconnected() => Load::TooMuch,
            Err(_) => {
                self.asked = Some(asked);
                Load::Unknown
            }
        }
    }

    /// Has it say goodbye, and take nothing more. What comes back tells when it is no more; nothing when it is.
    pub(super) fn end(&mut self) -> Option<Receiver<DaemonStatus>> {
        if let Some(gate) = &mut self.gate {
            gate.shut();
        }
        let ended = self.mdns.shutdown().ok()?;
        (!has_ended(&ended, FAREWELL)).then_some(ended)
    }
}

impl Daemon {
    pub(super) fn start(own: Fingerprint, interfaces: &[Interface]) -> Result<Self, mdns_sd::Error> {
        let used = Arc::new(Mutex::new(on_interfaces(interfaces)));
        Ok(Self { held: start(&used)?, own, used, events: None, taken: 0 })
    }

    fn used(&self) -> Vec<(u32, IpAddr)> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Uses these interfaces from now on, if they are what it uses and more; false if not: it does not follow what is taken away. What is
    /// announced has to be announced once more.
    pub(super) fn grow(&self, interfaces: &[Interface]) -> Result<bool, mdns_sd::Error> {
        let (before, after) = (self.used(), on_interfaces(interfaces));
        if !before.iter().all(|used| after.contains(used)) {
            return Ok(false);
        }
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = after;
        // Asked for nothing more, it looks once more at what it was asked for.
        self.held.mdns.enable_interface(Vec::<IfKind>::new())?;
        Ok(true)
    }

    /// Says this on the LAN from now on, and nothing else.
    pub(super) fn announce(&self, announcement: &Announcement) -> Result<(), mdns_sd::Error> {
        let node = announcement.node.as_ref();
        let text = node.map(|node| text_of(&self.own, node).to_vec()).unwrap_or_default();
        self.say(NODES, node.map(|node| node.port), &text)?;
        self.say(CLIENTS, announcement.client_port, &[])
    }

    fn say(&self, service: &str, port: Option<u16>, text: &[(&str, String)]) -> Result<(), mdns_sd::Error> {
        let instance = instance_of(&self.own);
        let Some(port) = port else {
            self.held.mdns.unregister(&format!("{instance}.{service}"))?;
            return Ok(());
        };
        let host = format!("covey-{instance}.local.");
        // Each interface is told those that are in its networks.
        let addresses: Vec<IpAddr> = self.used().into_iter().map(|(_, address)| address).collect();
        let mut info = ServiceInfo::new(service, &instance, &host, &addresses[..], port, text)?;
        // The name is made of a hash: nobody else has it.
        info.set_requires_probe(false);
        self.held.mdns.register(info)
    }

    /// Asks who is there. What it knows already comes as an event once more.
    pub(super) fn ask(&mut self) -> Result<(), mdns_sd::Error> {
        self.events = Some(Box::pin(self.held.mdns.browse(NODES)?.into_stream()));
        Ok(())
    }

    /// Has it forget what it has heard of other nodes, however long that was to be believed, and ask anew.
    pub(super) fn ask_afresh(&mut self) -> Result<(), mdns_sd::Error> {
        self.held.mdns.stop_browse(NODES)?;
        self.ask()
    }

    /// What has happened; `context` is woken when there is more.
    pub(super) fn next(&mut self, context: &mut Context<'_>) -> Result<Option<ServiceEvent>, mdns_sd::Error> {
        loop {
            match self.events.as_mut().map(|events| events.as_mut().poll_next(context)) {
                Some(Poll::Ready(Some(event))) => {
                    self.taken += 1;
                    return Ok(Some(event));
                }
                Some(Poll::Pending) => return Ok(None),
                // It gives up whoever is too slow.
                Some(Poll::Ready(None)) | None => self.ask()?,
            }
        }
    }

    /// How much it holds.
    pub(super) fn load(&mut self) -> Load {
        if self.taken > EVENTS_MAX { Load::TooMuch } else { self.held.load() }
    }

    /// What can be read when something comes; nothing where that is not known.
    pub(super) fn sockets(&self) -> &[OwnedFd] {
        self.held.gate.as_ref().map_or(&[], Gate::sockets)
    }

    /// Lets nothing come until it is opened.
    pub(super) fn shut(&mut self) {
        if let Some(gate) = &mut self.held.gate {
            gate.shut();
        }
    }

    /// Lets everything come; whether it was shut.
    pub(super) fn open(&mut self) -> bool {
        let was_shut = self.held.gate.as_ref().is_some_and(Gate::is_shut);
        if let Some(gate) = &mut self.held.gate {
            gate.open();
        }
        was_shut
    }

    /// See [`Held::end`].
    pub(super) fn end(mut self) -> Option<Receiver<DaemonStatus>> {
        self.held.end()
    }
}

/// Whether a daemon is no more, or will be within `patience`.
pub(super) fn has_ended(ended: &Receiver<DaemonStatus>, patience: Duration) -> bool {
    ended.recv_timeout(patience).is_ok() || ended.is_disconnected()
}

fn load_of(metrics: &Metrics) -> Load {
    let sum = |prefix: &str| -> i64 {
        metrics.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, count)| count).sum()
    };
    if sum("cached-") > RECORDS_MAX || sum("timer") > TIMERS_MAX { Load::TooMuch } else { Load::Bearable }
}

/// The first part of a full service name.
pub(super) fn instance_in(full_name: &str) -> String {
    full_name.split('.').next().unwrap_or_default().to_ascii_lowercase()
}

/// What was found, without what is not looked at.
pub(super) fn found(service: &ResolvedService) -> Found {
    let addresses = service.get_addresses().iter().filter_map(|address| match address {
        ScopedIp::V4(v4) => Some((IpAddr::V4(*v4.addr()), 0)),
        ScopedIp::V6(v6) => Some((IpAddr::V6(*v6.addr()), v6.scope_id().index)),
        _ => None,
    });
    let text = service.get_properties().iter();
    Found {
        instance: instance_in(service.get_fullname()),
        port: service.get_port(),
        addresses: addresses.collect(),
        text: text
            .map(|pair| (pair.key().to_ascii_lowercase(), pair.val().unwrap_or_default().to_vec()))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_daemon_holds_is_added_up() {
        let load = |counts: &[(&str, i64)]| {
            load_of(&counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect())
        };
        assert_eq!(load(&[]), Load::Bearable);
        assert_eq!(load(&[("cached-ptr", RECORDS_MAX), ("timer", TIMERS_MAX)]), Load::Bearable);
        assert_eq!(
            load(&[("cached-srv", RECORDS_MAX / 2), ("cached-nsec", RECORDS_MAX / 2 + 1)]),
            Load::TooMuch
        );
        assert_eq!(load(&[("timer", TIMERS_MAX + 1)]), Load::TooMuch);
        assert_eq!(load(&[("cache-refresh-ptr", i64::MAX)]), Load::Bearable);
    }
}
