//! What the service manager is told: that the node is ready, how it stands, that it lives, that it stops.
//!
//! Owns: the datagrams of sd_notify(3). Must never: wait for the service manager, or say that a node lives whose threads take no turns. Driven by `serve`, and by
//! `attend` while there is no cluster.
//!
//! ```text
//! service manager ◄─ WATCHDOG=1 ─ main ─ are you there? ─► core ─ and you? ─► wal ─┐
//!                                  ▲                                               │
//!                                  └──────── yes, behind all that had to be done ──┘
//! ```
//!
//! Whoever of them hangs, nothing is said any more, and the service manager kills the process and starts it again; what was acknowledged is on disk. The applier
//! and the checkpoint thread are not asked: one entry, or one fold, may rightly take them longer than anybody should wait for a core that hangs. A disk that takes
//! no write for that long counts as hanging, too: such a member serves nobody.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::rc::Rc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use smol::Timer;
use smol::future::or;

use crate::runtime::Handle;

/// How often the service manager is told how the node stands where it waits for no sign of life.
const INTERVAL: Duration = Duration::from_secs(15);
/// So many signs of life come within the time after which the first one is missed.
const SIGNS: u32 = 4;
/// A node that has found no cluster by then counts as started: it does what it can until others come, and whoever waits for the start goes on.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is said of a node without a cluster.
pub(super) const WAITS: &str = "has no cluster yet and waits for others: covey status tells more";

/// A cheap, cloneable reference to the service manager, where there is one.
#[derive(Clone, Default)]
pub(super) struct Supervisor(Option<Rc<Line>>);

struct Line {
    socket: UnixDatagram,
    address: SocketAddr,
    /// After which silence the node is started anew.
    watchdog: Option<Duration>,
    said: RefCell<Said>,
    was_ready: Cell<bool>,
}

#[derive(Default)]
struct Said {
    status: String,
    /// What found no room in the service manager's queue, and goes with what comes next.
    unheard: String,
}

impl Supervisor {
    /// The one that has started this process.
    pub(super) fn of_process() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let watchdog = watchdog(
            env::var_os("WATCHDOG_USEC").as_deref(),
            env::var_os("WATCHDOG_PID").as_deref(),
            process::id(),
        );
        Self::at(&name, watchdog).unwrap_or_else(|error| {
            tracing::warn!(socket = %name.display(), %error, "the service manager cannot be told anything");
            Self::default()
        })
    }

    fn at(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self(Some(Rc::new(Line {
            socket,
            address,
            watchdog,
            said: RefCell::default(),
            was_ready: Cell::default(),
        }))))
    }

    /// The node has come up as far as it can by itself.
    pub(super) fn ready(&self, status: &str) {
        if let Some(line) = &self.0 {
            line.was_ready.set(true);
        }
        self.tell("READY=1\n", status);
    }

    /// The node reads its settings again, and says so once it has. The time tells systemd to which of its requests that belongs. Who was never
    /// ready is told nothing: it would be ready then.
    pub(super) fn reloading(&self) {
        if self.was_ready() {
            let now = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
            self.tell(
                &format!("RELOADING=1\nMONOTONIC_USEC={}\n", now.as_micros()),
                "reads its settings again",
            );
        }
    }

    /// It has read them.
    pub(super) fn reloaded(&self, status: &str) {
        if self.was_ready() {
            self.ready(status);
        }
    }

    fn was_ready(&self) -> bool {
        self.0.as_ref().is_some_and(|line| line.was_ready.get())
    }

    /// The node is on its way to `status`.
    pub(super) fn say(&self, status: &str) {
        self.tell("", status);
    }

    /// The node was told to stop.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\n", "stops");
    }

    /// Says how a node stands that is a member, and that it lives as long as it does.
    pub(super) async fn attend(&self, handle: Handle) -> Infallible {
        self.beat(async || handle.pulse().await, || standing(&handle)).await
    }

    /// Says that a node has no cluster yet. There are no threads that could hang.
    pub(super) async fn wait_for_others(&self) -> Infallible {
        self.say(WAITS);
        let late = async {
            Timer::after(PATIENCE).await;
            self.ready(WAITS);
            std::future::pending().await
        };
        or(late, self.beat(async || true, || WAITS.to_owned())).await
    }

    async fn beat(&self, lives: impl AsyncFn() -> bool, status: impl Fn() -> String) -> Infallible {
        let Some(line) = &self.0 else { return std::future::pending().await };
        let interval = line.watchdog.map_or(INTERVAL, |patience| patience / SIGNS);
        loop {
            Timer::after(interval).await;
            if lives().await {
                self.tell(if line.watchdog.is_some() { "WATCHDOG=1\n" } else { "" }, &status());
            }
        }
    }

    fn tell(&self, news: &str, status: &str) {
        let Some(line) = &self.0 else { return };
        let mut said = line.said.borrow_mut();
        let mut text = std::mem::take(&mut said.unheard);
        text.push_str(news);
        if said.status != status {
            text.push_str("STATUS=");
            text.push_str(status);
            text.push('\n');
        }
        if text.is_empty() {
            return;
        }
        match line.socket.send_to_addr(text.as_bytes(), &line.address) {
            Ok(_) => status.clone_into(&mut said.status),
            // That it lives is said again anyway, and how it stands: only what is said once is kept.
            Err(error) => {
                tracing::debug!(%error, "the service manager did not hear");
                said.unheard = text
                    .lines()
                    .filter(|line| is_said_once(line))
                    .fold(String::new(), |kept, line| kept + line + "\n");
            }
        }
    }
}

fn is_said_once(line: &str) -> bool {
    matches!(line, "READY=1" | "STOPPING=1" | "RELOADING=1") || line.starts_with("MONOTONIC_USEC=")
}

/// How long the service manager waits for a sign of life of this process, as it says in the environment (sd_watchdog_enabled(3)).
fn watchdog(microseconds: Option<&OsStr>, of: Option<&OsStr>, this: u32) -> Option<Duration> {
    let number = |text: &OsStr| text.to_str()?.parse::<u64>().ok();
    if of.is_some_and(|of| number(of) != Some(this.into())) {
        return None;
    }
    microseconds.and_then(number).filter(|microseconds| *microseconds > 0).map(Duration::from_micros)
}

/// How a member stands, for `systemctl status`.
pub(super) fn standing(handle: &Handle) -> String {
    let status = handle.status();
    let role = match status.leader {
        Some(leader) if leader == status.member => "leads".to_owned(),
        Some(leader) => format!("follows {leader}"),
        None => "knows no leader".to_owned(),
    };
    format!("serves clients as member {} of cluster {}; {role}", status.member, status.cluster)
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt as _;

    use super::*;

    fn heard(socket: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 1024];
        let bytes = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..bytes]).into_owned())
    }

    fn manager(address: &SocketAddr) -> UnixDatagram {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    #[test]
    fn sockets_with_a_path_and_without_one_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let hidden = format!("covey-supervisor-{}", process::id());
        let places = [
            (SocketAddr::from_pathname(&path).unwrap(), path.as_os_str().to_owned()),
            (SocketAddr::from_abstract_name(&hidden).unwrap(), format!("@{hidden}").into()),
        ];
        for (address, name) in places {
            let manager = manager(&address);
            let supervisor = Supervisor::at(&name, None).unwrap();
            supervisor.say("comes");
            supervisor.reloading();
            supervisor.reloaded("comes");
            supervisor.ready("is there");
            supervisor.say("is there");
            supervisor.reloading();
            supervisor.reloaded("is there");
            supervisor.stopping();
            let all: Vec<String> = std::iter::from_fn(|| heard(&manager)).collect();
            let ready = "READY=1\nSTATUS=is there\n";
            let (reloading, others): (Vec<_>, Vec<_>) =
                all.iter().map(String::as_str).partition(|text| text.starts_with("RELOADING=1\n"));
            assert_eq!(others, ["STATUS=comes\n", ready, ready, "STOPPING=1\nSTATUS=stops\n"]);
            let [reloading] = reloading[..] else { panic!("{reloading:?}") };
            let since = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
            assert!(since.parse::<u64>().unwrap() > 0);
        }
        assert!(Supervisor::at(OsStr::new("vsock:2:1234"), None).is_err());
        // Without a service manager nobody is told.
        Supervisor::default().ready("is there");
    }

    #[test]
    fn whoever_does_not_hear_is_told_later_and_never_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let supervisor = Supervisor::at(path.as_os_str(), None).unwrap();
        supervisor.ready("is there");
        let manager = manager(&SocketAddr::from_pathname(&path).unwrap());
        supervisor.say("is there");
        assert_eq!(heard(&manager).unwrap(), "READY=1\nSTATUS=is there\n");

        // As many as its queue takes, and then more.
        let mut sent = 0;
        while supervisor.0.as_ref().unwrap().said.borrow().status == sent.to_string() || sent == 0 {
            sent += 1;
            supervisor.say(&sent.to_string());
            assert!(sent < 100_000, "the queue has no end");
        }
        supervisor.stopping();
        while heard(&manager).is_some() {}
        supervisor.say("late");
        assert_eq!(heard(&manager).unwrap(), "STOPPING=1\nSTATUS=late\n");
    }

    #[test]
    fn only_what_lives_is_said_to_live() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = manager(&SocketAddr::from_pathname(&path).unwrap());
        let supervisor = Supervisor::at(path.as_os_str(), Some(Duration::from_millis(4))).unwrap();
        let lives = |lives: bool| {
            let beats = async {
                supervisor.beat(async || lives, || "stands".to_owned()).await;
            };
            smol::block_on(or(beats, async {
                Timer::after(Duration::from_millis(200)).await;
            }));
            std::iter::from_fn(|| heard(&manager)).collect::<String>()
        };
        assert!(lives(true).starts_with("WATCHDOG=1\nSTATUS=stands\nWATCHDOG=1\n"));
        assert_eq!(lives(false), "");
    }

    #[test]
    fn the_watchdog_is_that_of_this_process() {
        let text = |text: &'static str| Some(OsStr::new(text));
        let minute = Some(Duration::from_secs(60));
        assert_eq!(watchdog(text("60000000"), None, 7), minute);
        assert_eq!(watchdog(text("60000000"), text("7"), 7), minute);
        for (microseconds, of) in [
            (None, None),
            (text("0"), None),
            (text("-1"), None),
            (text("60000000"), text("8")),
            (text("1"), text("x")),
        ] {
            assert_eq!(watchdog(microseconds, of, 7), None, "{microseconds:?} {of:?}");
        }
    }
}
