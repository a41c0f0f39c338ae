//! Who else is on the LAN: network interfaces that come and go, and what other nodes say of themselves by mDNS.
//!
//! Owns: one thread that waits for news of the kernel's and of the mDNS daemon. Must never: decide anything (what is seen is a
//! hint, and is asked over the joining protocol), use an interface that does not count, or fail because a network has no multicast. Driven by `app`.

mod daemon;
mod gate;
mod interfaces;
mod mdns;
mod near;
mod rules;
mod search;
mod sighting;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

pub use interfaces::{INTERFACE_ADDRESSES_MAX, Interface, Surveyed, is_link_local, survey};
pub use near::{is_near, is_own};
pub use rules::{InterfaceRules, NOT_BY_DEFAULT};
pub use search::Search;
#[doc(hidden)]
pub use sighting::Found;
pub use sighting::{
    Announcement, NAME_BYTES_MAX, NodeAnnouncement, SIGHTING_ADDRESSES_MAX, SIGHTINGS_MAX, Sighting,
};

use crate::formation::Fingerprint;
use crate::runtime::clock::Clock;
use interfaces::News;
use mdns::Mdns;

/// Changes of interfaces come in bursts: how long the rest of one is waited for.
const SETTLES: Duration = Duration::from_millis(50);
/// How often interfaces are looked at when the kernel does not tell of changes.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What discovery begins with.
pub struct Options {
    /// Which interfaces count.
    pub interfaces: InterfaceRules,
    /// The fingerprint of this node, which is announced and not seen.
    pub own: Fingerprint,
    /// The process's clock.
    pub clock: Clock,
}

/// Called from some thread when interfaces or sightings have changed; it must not wait.
pub type OnNews = Arc<dyn Fn() + Send + Sync>;

/// Discovery cannot start at all: not for want of a network, which may come later.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There are no descriptors, or no memory.
    #[error("cannot watch the network: {0}")]
    Watch(#[from] io::Error),
    /// The same, in the daemon.
    #[error("cannot start mDNS: {0}")]
    Mdns(#[from] mdns_sd::Error),
}

/// The running discovery. Dropping it takes back what was announced.
pub struct Discovery {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Discovery")
    }
}

/// What the thread and its callers see.
struct Shared {
    state: Mutex<State>,
    bell: Arc<Bell>,
    stopping: AtomicBool,
    on_news: OnNews,
}

#[derive(Default)]
struct State {
    interfaces: Vec<Interface>,
    sightings: Vec<Sighting>,
    /// What is to be said instead of what is said now.
    announcement: Option<Announcement>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the thread.
struct Bell(OwnedFd);

impl Bell {
    fn ring(&self) {
        // It can only fail when the count is full, and then it rings anyway.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

impl Discovery {
    /// Begins to look. Nothing is announced before [`Discovery::announce`].
    pub fn start(options: Options, on_news: OnNews) -> Result<Self, StartError> {
        let Options { interfaces: rules, own, clock } = options;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io::Error::from)?;
        let news = News::open()
            .inspect_err(|error| tracing::warn!(%error, "the kernel tells no news of interfaces"))
            .ok();
        let now = clock.now();
        let known = interfaces::look(&rules, now).unwrap_or_default();
        let mdns = Mdns::new(own, known.clone(), now);
        let state = Mutex::new(State { interfaces: known, ..State::default() });
        let bell = Arc::new(Bell(bell));
        let shared = Arc::new(Shared { state, bell, stopping: AtomicBool::new(false), on_news });
        let watch = Watch { shared: Arc::clone(&shared), news, mdns, rules, clock };
        let thread = thread::Builder::new().name("discovery".into()).spawn(move || watch.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Says this on the LAN from now on, and nothing else.
    pub fn announce(&self, announcement: &Announcement) {
        self.shared.lock().announcement = Some(announcement.clone());
        self.shared.bell.ring();
    }

    /// The other nodes that may be there now.
    pub fn sightings(&self) -> Vec<Sighting> {
        self.shared.lock().sightings.clone()
    }

    /// The interfaces that count, with carrier and address.
    pub fn interfaces(&self) -> Vec<Interface> {
        self.shared.lock().interfaces.clone()
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.bell.ring();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// The thread.
struct Watch {
    shared: Arc<Shared>,
    news: Option<News>,
    mdns: Mdns,
    rules: InterfaceRules,
    clock: Clock,
}

impl Watch {
    fn run(mut self) {
        let waker = Waker::from(Arc::clone(&self.shared.bell));
        let mut context = Context::from_waker(&waker);
        while !self.shared.stopping.load(Ordering::SeqCst) {
            self.turn(&mut context);
            if self.wait() {
                self.look_at_interfaces();
            }
        }
    }

    fn turn(&mut self, context: &mut Context<'_>) {
        let now = self.clock.now();
        let announcement = self.shared.lock().announcement.take();
        if let Some(announcement) = announcement {
            self.mdns.announce(announcement, now);
        }
        if self.mdns.turn(context, now) {
            self.shared.lock().sightings = self.mdns.sightings.list();
            (self.shared.on_news)();
        }
    }

    /// Waits for anything, or until something is due; true when interfaces may have changed.
    fn wait(&mut self) -> bool {
        let mut patience = self.mdns.due().map(|due| self.clock.until(due));
        if self.news.is_none() {
            patience = Some(patience.map_or(LOOK_AGAIN, |patience| patience.min(LOOK_AGAIN)));
        }
        let bell = PollFd::new(&self.shared.bell.0, PollFlags::IN);
        let sockets = self.mdns.sockets().iter().map(|socket| PollFd::new(socket, PollFlags::IN));
        let news = self.news.iter().map(|news| PollFd::from_borrowed_fd(news.as_fd(), PollFlags::IN));
        let mut all: Vec<_> = [bell].into_iter().chain(news).chain(sockets).collect();
        poll_for(&mut all, patience);
        let has_come: Vec<bool> = all.iter().map(|one| !one.revents().is_empty()).collect();
        if has_come[0] {
            let _ = rustix::io::read(&self.shared.bell.0, &mut [0_u8; 8]);
        }
        let (news, sockets) = has_come[1..].split_at(self.news.iter().count());
        if sockets.contains(&true) {
            self.mdns.heard(self.clock.now());
        }
        let Some(listens) = &self.news else { return true };
        let changed = news.contains(&true);
        if changed {
            poll_for(&mut [], Some(SETTLES));
            listens.drain();
        }
        changed
    }

    fn look_at_interfaces(&mut self) {
        let found = match interfaces::look(&self.rules, self.clock.now()) {
            Ok(found) => found,
            Err(error) => return tracing::debug!(%error, "interfaces"),
        };
        let mut state = self.shared.lock();
        if !interfaces::replace(&mut state.interfaces, found) {
            return;
        }
        let known = state.interfaces.clone();
        drop(state);
        self.mdns.use_interfaces(&known, self.clock.now());
        (self.shared.on_news)();
    }
}

fn poll_for(descriptors: &mut [PollFd<'_>], patience: Option<Duration>) {
    let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
    // Interrupted, everything is looked at once more.
    let _ = poll(descriptors, patience.as_ref());
}
