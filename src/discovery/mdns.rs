//! mDNS on the interfaces that count now: who says what there, and what is said.
//!
//! Owns: when the daemon is begun anew (its cache has no bounds and believes every claim, and it does not follow addresses that go), and for how long others
//! are believed to be there. Must never: keep more of others than the bounds here. Driven by the thread in `mod`.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::task::Context;
use std::time::Duration;

use mdns_sd::{DaemonStatus, Receiver, ServiceEvent};

use super::daemon::{Daemon, Load, UNANSWERED_MAX, found, has_ended, instance_in};
use super::interfaces::Interface;
use super::sighting::{Announcement, SIGHTINGS_MAX, Sighting};
use crate::formation::Fingerprint;
use crate::time::Instant;

/// How long another one is believed to be there that was heard, whatever it claims.
const BELIEVED: Duration = Duration::from_secs(120);
/// The same when the daemon is begun anew: a goodbye may have been missed meanwhile.
const DOUBTED: Duration = Duration::from_secs(10);
/// How often everybody is asked anew: so early that an answer which is lost may come later, and before who is there is not believed any more.
const ASKS_AFRESH: Duration = Duration::from_secs(80);
/// A switch may let nothing through for half a minute after an interface came up: how long it is asked more often, and how often.
const CAME_UP: Duration = Duration::from_secs(60);
const ASKS_AGAIN: Duration = Duration::from_secs(5);
/// How long after something came it is looked at how much the daemon holds. In this time and the one for an answer a LAN that is flooded makes a fast
/// machine's daemon take 20 MB; a LAN on which nobody speaks costs nothing.
const LOOKS: Duration = Duration::from_millis(50);
/// The same where it is not known when something comes.
const LOOKS_BLIND: Duration = Duration::from_secs(1);
/// When it is looked again if it has not answered.
const LOOKS_AGAIN: Duration = Duration::from_millis(100);
/// Events that are taken before something else has its turn.
const EVENTS_AT_ONCE: usize = 256;
/// How long a LAN is not listened to that had too much to say: what it costs is bounded by this.
const CALMS: Duration = Duration::from_secs(10);
/// When it is tried again what went wrong.
const TRIES_AGAIN: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Mdns {
    own: Fingerprint,
    interfaces: Vec<Interface>,
    announcement: Announcement,
    run: Option<Run>,
    /// One that was too busy to say goodbye: there is no other one before it is gone.
    ending: Option<Receiver<DaemonStatus>>,
    begins: Instant,
    pub(super) sightings: Sightings,
}

/// A daemon, and what is due with it.
struct Run {
    daemon: Daemon,
    due: Due,
    unanswered: u32,
}

/// When what is done with a daemon.
#[derive(Clone, Copy, Debug)]
struct Due {
    asks_afresh: Instant,
    asks_again: Option<Instant>,
    /// `None` while nothing has come since the last look.
    looks: Option<Instant>,
}

/// How everybody is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asks {
    Afresh,
    Again,
}

impl Due {
    fn new(now: Instant) -> Self {
        Self { asks_afresh: now + ASKS_AFRESH, asks_again: Some(now + ASKS_AGAIN), looks: Some(now + LOOKS) }
    }

    fn first(&self) -> Instant {
        self.looks.into_iter().chain(self.asks_again).fold(self.asks_afresh, Instant::min)
    }

    /// Something has come. That the sockets can be read is seen only where the daemon has not read them yet; what it makes of that tells the rest.
    fn came(&mut self, now: Instant) {
        self.looks.get_or_insert(now + LOOKS);
    }

    fn happened(&mut self, event: &ServiceEvent, now: Instant) {
        let is_heard = matches!(
            event,
            ServiceEvent::ServiceFound(..)
                | ServiceEvent::ServiceResolved(_)
                | ServiceEvent::ServiceRemoved(..)
        );
        if is_heard {
            self.came(now);
        }
    }

    /// Whether everybody is to be asked now.
    fn ask(&mut self, came_up: Option<Instant>, now: Instant) -> Option<Asks> {
        if now >= self.asks_afresh {
            self.asks_afresh = now + ASKS_AFRESH;
            // Answers come, and what came unseen and tells us nothing is looked at then at the latest.
            self.came(now);
            return Some(Asks::Afresh);
        }
        self.asks_again.filter(|at| now >= *at)?;
        let lately = came_up.is_some_and(|at| now.since(at) < CAME_UP);
        self.asks_again = lately.then_some(now + ASKS_AGAIN);
        Some(Asks::Again)
    }
}

/// Why a run comes to its end.
#[derive(Debug, thiserror::Error)]
enum Ends {
    #[error(transparent)]
    Mdns(#[from] mdns_sd::Error),
    #[error("more is said on the LAN than can be kept")]
    TooMuch,
}

impl Mdns {
    pub(super) fn new(own: Fingerprint, interfaces: Vec<Interface>, now: Instant) -> Self {
        let sightings = Sightings::new(own);
        let announcement = Announcement::default();
        Self { own, interfaces, announcement, run: None, ending: None, begins: now, sightings }
    }

    /// The interfaces are these now. When something is gone, what was said there is taken back, and all is begun anew.
    pub(super) fn use_interfaces(&mut self, interfaces: &[Interface], now: Instant) {
        interfaces.clone_into(&mut self.interfaces);
        let announcement = &self.announcement;
        let grown = self.run.as_mut().map(|run| run.grow(interfaces, announcement, now));
        match grown {
            Some(Ok(true)) | None => {}
            Some(Ok(false)) => self.end(now),
            Some(Err(error)) => self.fail(&error, now),
        }
    }

    /// Says this from now on, and nothing else.
    pub(super) fn announce(&mut self, announcement: Announcement, now: Instant) {
        self.announcement = announcement;
        if let Some(Err(error)) = self.run.as_ref().map(|run| run.daemon.announce(&self.announcement)) {
            self.fail(&error, now);
        }
    }

    fn fail(&mut self, error: &mdns_sd::Error, now: Instant) {
        tracing::debug!(%error, "mDNS");
        self.end(now + TRIES_AGAIN);
    }

    /// Does what is due, and has `context` woken when there is more. Tells whether other sightings are believed than before.
    pub(super) fn turn(&mut self, context: &mut Context<'_>, now: Instant) -> bool {
        let mut differs = self.sightings.forget(now);
        match self.go_on(context, now) {
            Ok(took) => differs |= took,
            Err(Ends::Mdns(error)) => self.fail(&error, now),
            Err(error) => {
                tracing::warn!(pause = ?CALMS, "{error}; mDNS pauses");
                self.end(now + CALMS);
            }
        }
        differs
    }

    /// When something is due, if nothing happens before.
    pub(super) fn due(&self) -> Option<Instant> {
        let run = match &self.run {
            Some(run) => Some(run.due.first()),
            None => (!self.interfaces.is_empty()).then_some(self.begins),
        };
        [run, self.sightings.due()].into_iter().flatten().min()
    }

    /// What is waited for: when one of these can be read, something has come.
    pub(super) fn sockets(&self) -> &[OwnedFd] {
        let waits = self.run.as_ref().filter(|run| run.due.looks.is_none());
        waits.map_or(&[], |run| run.daemon.sockets())
    }

    /// Something has come.
    pub(super) fn heard(&mut self, now: Instant) {
        if let Some(run) = &mut self.run {
            run.due.came(now);
        }
    }

    /// Says goodbye.
    pub(super) fn end(&mut self, begins: Instant) {
        self.begins = begins;
        if let Some(run) = self.run.take() {
            self.ending = run.daemon.end();
        }
    }

    fn go_on(&mut self, context: &mut Context<'_>, now: Instant) -> Result<bool, Ends> {
        self.begin(now)?;
        let Some(run) = &mut self.run else { return Ok(false) };
        run.look(now)?;
        let came_up = self.interfaces.iter().map(|interface| interface.since).max();
        run.ask(came_up, now)?;
        let mut differs = false;
        for _ in 0..EVENTS_AT_ONCE {
            let Some(event) = run.daemon.next(context)? else { return Ok(differs) };
            run.due.happened(&event, now);
            differs |= self.sightings.take(event, now);
        }
        context.waker().wake_by_ref();
        Ok(differs)
    }

    fn begin(&mut self, now: Instant) -> Result<(), mdns_sd::Error> {
        if self.run.is_some() || self.interfaces.is_empty() || now < self.begins {
            return Ok(());
        }
        if self.ending.as_ref().is_some_and(|ending| !has_ended(ending, Duration::ZERO)) {
            self.begins = now + TRIES_AGAIN;
            return Ok(());
        }
        self.ending = None;
        let mut daemon = Daemon::start(self.own, &self.interfaces)?;
        daemon.ask()?;
        self.sightings.doubt(now);
        let run = self.run.insert(Run { daemon, due: Due::new(now), unanswered: 0 });
        // When this fails the run is ended, with what it has said so far.
        run.daemon.announce(&self.announcement)
    }
}

impl Drop for Mdns {
    fn drop(&mut self) {
        self.end(self.begins);
    }
}

impl Run {
    fn grow(
        &mut self,
        interfaces: &[Interface],
        announcement: &Announcement,
        now: Instant,
    ) -> Result<bool, mdns_sd::Error> {
        if !self.daemon.grow(interfaces)? {
            return Ok(false);
        }
        self.due.asks_again = Some(now + ASKS_AGAIN);
        self.daemon.announce(announcement)?;
        Ok(true)
    }

    fn look(&mut self, now: Instant) -> Result<(), Ends> {
        if self.due.looks.is_none_or(|looks| now < looks) {
            return Ok(());
        }
        match self.daemon.load() {
            Load::Bearable => {
                // What it says only once nothing comes any more is no good sign.
                if !self.daemon.open() {
                    self.unanswered = 0;
                }
                self.due.looks = self.daemon.sockets().is_empty().then_some(now + LOOKS_BLIND);
            }
            Load::Unknown => {
                self.daemon.shut();
                self.unanswered += 1;
                self.due.looks = Some(now + LOOKS_AGAIN);
            }
            Load::TooMuch => return Err(Ends::TooMuch),
        }
        if self.unanswered > UNANSWERED_MAX { Err(Ends::TooMuch) } else { Ok(()) }
    }

    fn ask(&mut self, came_up: Option<Instant>, now: Instant) -> Result<(), mdns_sd::Error> {
        match self.due.ask(came_up, now) {
            Some(Asks::Afresh) => self.daemon.ask_afresh(),
            Some(Asks::Again) => self.daemon.ask(),
            None => Ok(()),
        }
    }
}

/// The others that are believed to be there.
pub(super) struct Sightings {
    own: Fingerprint,
    /// Each until when.
    seen: BTreeMap<String, (Sighting, Instant)>,
}

impl Sightings {
    fn new(own: Fingerprint) -> Self {
        Self { own, seen: BTreeMap::new() }
    }

    /// All of them.
    pub(super) fn list(&self) -> Vec<Sighting> {
        self.seen.values().map(|(sighting, _)| sighting.clone()).collect()
    }

    fn take(&mut self, event: ServiceEvent, now: Instant) -> bool {
        match event {
            ServiceEvent::ServiceResolved(service) => {
                let found = found(&service);
                match found.sighting().filter(|sighting| sighting.fingerprint != self.own) {
                    Some(sighting) => self.saw(sighting, now),
                    None => self.seen.remove(&found.instance).is_some(),
                }
            }
            ServiceEvent::ServiceRemoved(_, full_name) => {
                self.seen.remove(&instance_in(&full_name)).is_some()
            }
            _ => false,
        }
    }

    fn saw(&mut self, sighting: Sighting, now: Instant) -> bool {
        let known = self.seen.get(&sighting.instance);
        if known.is_none() && self.seen.len() >= SIGHTINGS_MAX {
            return false;
        }
        let differs = known.is_none_or(|(known, _)| *known != sighting);
        self.seen.insert(sighting.instance.clone(), (sighting, now + BELIEVED));
        differs
    }

    /// Who is not heard again soon is believed no longer.
    fn doubt(&mut self, now: Instant) {
        for (_, until) in self.seen.values_mut() {
            *until = (*until).min(now + DOUBTED);
        }
    }

    fn forget(&mut self, now: Instant) -> bool {
        let before = self.seen.len();
        self.seen.retain(|_, (_, until)| now < *until);
        self.seen.len() < before
    }

    fn due(&self) -> Option<Instant> {
        self.seen.values().map(|(_, until)| *until).min()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::ids::PublicKey;

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    fn sighting(n: usize) -> Sighting {
        let (instance, fingerprint) = (format!("{n:016x}"), Fingerprint::of(&PublicKey([1; 32])));
        let addresses = vec![SocketAddr::from(([10, 0, 0, 1], 2380))];
        Sighting { instance, fingerprint, cluster: None, name: String::new(), addresses }
    }

    #[test]
    fn who_is_not_heard_any_more_is_believed_for_a_while() {
        let mut sightings = Sightings::new(Fingerprint::of(&PublicKey([0; 32])));
        assert!(sightings.saw(sighting(1), at(1)) && sightings.saw(sighting(2), at(2)));
        assert!(!sightings.saw(sighting(1), at(50)));
        assert_eq!(sightings.due(), Some(at(2) + BELIEVED));
        assert!(!sightings.forget(at(121)));
        assert!(sightings.forget(at(122)));
        assert_eq!(sightings.list(), [sighting(1)]);
        assert!(sightings.forget(at(170)) && sightings.due().is_none());
        // Those who were heard by a daemon that is no more are for less long.
        assert!(sightings.saw(sighting(1), at(200)) && sightings.saw(sighting(2), at(200)));
        sightings.doubt(at(201));
        assert!(!sightings.saw(sighting(2), at(202)));
        assert!(sightings.forget(at(201) + DOUBTED));
        assert_eq!(sightings.list(), [sighting(2)]);
    }

    #[test]
    fn there_are_never_more_than_so_many() {
        let mut sightings = Sightings::new(Fingerprint::of(&PublicKey([0; 32])));
        for n in 0..2 * SIGHTINGS_MAX {
            assert_eq!(sightings.saw(sighting(n), at(1)), n < SIGHTINGS_MAX);
        }
        // Who is known may still move.
        let moved = Sighting { addresses: Vec::new(), ..sighting(0) };
        assert!(sightings.saw(moved, at(2)));
        assert_eq!(sightings.list().len(), SIGHTINGS_MAX);
    }

    /// A daemon that is fast has read what came before anybody else sees that it can be read.
    #[test]
    fn what_the_daemon_has_heard_is_looked_at_though_nobody_saw_it_come() {
        let mut due = Due::new(at(0));
        let looked = |due: &mut Due| due.looks = None;
        looked(&mut due);
        due.happened(&ServiceEvent::SearchStarted("nodes".into()), at(1));
        assert_eq!(due.looks, None, "it has asked; nothing came");
        for event in [
            ServiceEvent::ServiceFound("nodes".into(), "a".into()),
            ServiceEvent::ServiceRemoved("nodes".into(), "a".into()),
        ] {
            due.happened(&event, at(2));
            due.happened(&event, at(3));
            assert_eq!(due.looks, Some(at(2) + LOOKS), "however much comes after that");
            looked(&mut due);
        }
        assert_eq!((due.ask(None, at(6)), due.ask(None, at(7)), due.looks), (Some(Asks::Again), None, None));
        let afresh = at(0) + ASKS_AFRESH;
        assert_eq!(due.first(), afresh);
        assert_eq!(due.ask(None, afresh), Some(Asks::Afresh));
        assert_eq!(due.first(), afresh + LOOKS, "at least so often");
        assert_eq!(due.ask(Some(at(0)), afresh), None);
    }

    #[test]
    fn without_an_interface_nothing_runs_and_nothing_is_due() {
        let mut mdns = Mdns::new(Fingerprint::of(&PublicKey([0; 32])), Vec::new(), at(1));
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(!mdns.turn(&mut context, at(2)));
        assert!(mdns.run.is_none() && mdns.due().is_none());
    }
}
