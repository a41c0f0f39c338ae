//! A node behind a loopback port, and clients for it.
//!
//! Owns: starting and stopping. Must never: know what is tested.

use std::convert::Infallible;
use std::future::Future;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use covey::api::{Admit, Api, ApiOptions, Host, Listener, Plaintext, Serves, Stop, TlsSource, methods};
use covey::command::Alarm;
use covey::consensus::Pace;
use covey::disk::Directory;
use covey::formation::first_state_of;
use covey::ids::{ClusterId, MemberId, PublicKey};
use covey::node::{Recovery, recover};
use covey::prng::Prng;
use covey::runtime::clock::Clock;
use covey::runtime::files::RealDirectory;
use covey::runtime::{AdmissionOptions, Handle, NodeIds, Parts, Running};
use covey::store::{ConfState, FoldBatch, Meta, Store, StoreOptions};
use covey::telemetry::metrics::Metrics;
use covey::wal::{self, Wal};
use smol::{Async, Task, Timer};
use tempfile::TempDir;

pub use crate::channel::Channel;

/// How long anything that should happen may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The node's own id.
pub const MEMBER: MemberId = MemberId(0xa);
/// A member that never answers.
const ABSENT: MemberId = MemberId(0xb);

/// A node that serves on a loopback port until it is dropped.
pub struct Server {
    pub api: Api,
    pub handle: Handle,
    pub address: SocketAddr,
    pub stop: Stop,
    pub metrics: Arc<Metrics>,
    node: Option<Running>,
    dir: Arc<TempDir>,
}

/// What a test changes about a server.
pub struct Setup {
    pub options: ApiOptions,
    pub serves: Serves,
    pub plaintext: Plaintext,
    pub tls: Option<TlsSource>,
    pub admit: Option<Admit>,
    /// The common names of clients' certificates are users.
    pub names_users: bool,
    /// What is around the node.
    pub host: Arc<dyn Host>,
    /// Alarms that are raised from the beginning.
    pub alarms: Vec<Alarm>,
    /// The cluster's other member never answers, so there is no leader.
    pub lonely: bool,
    /// This member does not vote, and the one that does never answers.
    pub learns: bool,
    /// The state is not to be trusted. Needs a member that votes beside it.
    pub suspect: bool,
    /// This member has joined a cluster and has not got its state yet.
    pub joins: bool,
    /// The quota in bytes.
    pub quota: Option<u64>,
    /// How often quiet watchers are told how far they are.
    pub progress_interval: Duration,
    /// What may wait for watchers.
    pub watch_limits: covey::watch::Limits,
    /// What node and API count into.
    pub metrics: Arc<Metrics>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            options: ApiOptions::default(),
            serves: Serves::Clients,
            plaintext: Plaintext::Anyone,
            tls: None,
            admit: None,
            names_users: false,
            host: Arc::new(crate::around::Around::default()),
            alarms: Vec::new(),
            lonely: false,
            learns: false,
            suspect: false,
            joins: false,
            quota: Some(2 << 30),
            progress_interval: Duration::from_secs(600),
            watch_limits: covey::watch::Limits::default(),
            metrics: Arc::new(Metrics::new(methods(false))),
        }
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub async fn with(setup: Setup) -> Self {
        Self::over(Arc::new(TempDir::new().unwrap()), setup).await
    }

    /// Listens in plain text at an address of the machine that others reach, too, until the task is dropped. A machine without a network has none.
    pub fn listen_to_anybody(&self) -> Option<(SocketAddr, Task<()>)> {
        let mut addresses = if_addrs::get_if_addrs().unwrap().into_iter().map(|interface| interface.ip());
        let reachable = addresses.find(|ip| ip.is_ipv4() && !ip.is_loopback())?;
        let socket = Async::<TcpListener>::bind((reachable, 0)).unwrap();
        let address = socket.get_ref().local_addr().unwrap();
        let listener = Listener {
            serves: Serves::Clients,
            plaintext: Plaintext::Anyone,
            tls: None,
            admit: None,
            names_users: false,
        };
        let api = self.api.clone();
        let accepting = smol::spawn(async move {
            api.accept(&socket, listener, |task| smol::spawn(task).detach()).await;
        });
        Some((address, accepting))
    }

    /// Stops the node and starts it again on what it has left, behind another port.
    pub async fn restart(self) -> Self {
        self.restart_with(Setup::default()).await
    }

    /// The same with other settings. Where it is to be lonely or to learn, the members have changed meanwhile.
    pub async fn restart_with(self, setup: Setup) -> Self {
        let dir = Arc::clone(&self.dir);
        drop(self);
        Self::over(dir, setup).await
    }

    async fn over(dir: Arc<TempDir>, setup: Setup) -> Self {
        let node = start_node(dir.path(), &setup);
        let handle = node.handle().clone();
        if !setup.lonely && !setup.learns && !setup.joins {
            until("a leader", || handle.status().leader.is_some()).await;
        }
        let (stop, stopping) = Stop::pair();
        let metrics = Arc::clone(&setup.metrics);
        let text = Arc::new(|| "up 1\n".to_owned());
        let api = Api::new(handle.clone(), setup.host, setup.options, Arc::clone(&metrics), text, stopping);
        let socket = Async::<TcpListener>::bind(([127, 0, 0, 1], 0)).unwrap();
        let address = socket.get_ref().local_addr().unwrap();
        let listener = Listener {
            serves: setup.serves,
            plaintext: setup.plaintext,
            tls: setup.tls,
            admit: setup.admit,
            names_users: setup.names_users,
        };
        let accepting = api.clone();
        smol::spawn(async move {
            accepting.accept(&socket, listener, |task| smol::spawn(task).detach()).await;
        })
        .detach();
        Self { api, handle, address, stop, metrics, node: Some(node), dir }
    }

    pub async fn connect(&self) -> Async<TcpStream> {
        let stream = Async::<TcpStream>::connect(self.address).await.unwrap();
        // As every client of gRPC does: else what is sent in two writes waits for an acknowledgement that takes its time.
        stream.get_ref().set_nodelay(true).unwrap();
        stream
    }

    /// A gRPC client on a connection of its own.
    pub async fn channel(&self) -> Channel {
        Channel::over(self.connect().await).await.unwrap()
    }

    /// Waits until no connection and no call is left.
    pub async fn idle(&self) {
        let counters = self.api.counters();
        until("everything ends", || counters.connections() == 0 && counters.calls() == 0).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.announce();
        let ended = self.node.take().map(Running::stop);
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the node ends well");
        }
    }
}

/// Founds a node, unless there is one, and starts its threads, without what `app` adds to that.
fn start_node(dir: &Path, setup: &Setup) -> Running {
    let log = dir.join("wal");
    std::fs::create_dir_all(&log).unwrap();
    start_node_on(RealDirectory::open(&log).unwrap(), dir, setup)
}

/// The same with the log in `log`.
pub fn start_node_on<D>(log: D, dir: &Path, setup: &Setup) -> Running
where
    D: Directory + Send + 'static,
    D::File: Send,
{
    let (mut meta, log_start) = first_state_of(MEMBER, PublicKey([1; 32]));
    meta.alarms.clone_from(&setup.alarms);
    add_absent(&mut meta, setup);
    if setup.joins {
        (meta.members, meta.conf_state) = Default::default();
    }
    let store_dir = RealDirectory::open(dir).unwrap();
    let mut store = Store::open_in(&store_dir, "store", StoreOptions::default()).unwrap();
    let cluster = ClusterId(0xc);
    let identity = wal::Identity { cluster, member: MEMBER };
    let options = wal::Options { segment_bytes: 4 << 20, prefill: false };
    let root = log.clone();
    let (log, entries) = if store.is_initialised() {
        if setup.lonely || setup.learns {
            let mut meta = store.meta().clone();
            add_absent(&mut meta, setup);
            store.fold(&FoldBatch { meta, ..FoldBatch::default() }).unwrap();
        }
        let (log, recovered) = Wal::open(log, identity, options).unwrap();
        (log, recovered.entries)
    } else {
        store.initialise(&meta).unwrap();
        (Wal::create(log, identity, log_start, options).unwrap(), Vec::new())
    };
    if setup.suspect {
        store.distrust();
    }
    // Another one for each start.
    let boot_nonce = 1 + entries.len() as u64;
    let quota = setup.quota;
    let recovery = Recovery {
        member: MEMBER,
        boot_nonce,
        base: Arc::new(store.base().unwrap()),
        hard_state: log.hard_state(),
        log_start: log.start(),
        entries,
        quota_bytes: quota,
        prng: Prng::new(1),
        pace: Pace::default(),
    };
    let clock = Clock::start();
    let (core, applier) = recover(clock.now(), recovery, &covey::telemetry::raft_logger()).unwrap();
    let ids = NodeIds { cluster, member: MEMBER, boot_nonce };
    let admission =
        AdmissionOptions { request_bytes: setup.options.request_bytes_max, quota, hold_until: None };
    let options =
        covey::watch::Options { progress_interval: setup.progress_interval, limits: setup.watch_limits };
    let hub = covey::watch::Hub::new(options, Prng::new(2));
    let parts = Parts {
        core,
        applier,
        wal: log,
        root,
        store,
        ids,
        admission,
        space: Arc::default(),
        whereabouts: None,
        hub,
    };
    Running::start(parts, clock, Arc::clone(&setup.metrics)).unwrap()
}

/// Has the member that never answers vote: beside this one, or in its place.
fn add_absent(meta: &mut Meta, setup: &Setup) {
    if !setup.lonely && !setup.learns {
        return;
    }
    let (absent, _) = first_state_of(ABSENT, PublicKey([2; 32]));
    meta.members.truncate(1);
    meta.members.extend(absent.members);
    meta.conf_state = if setup.learns {
        ConfState { voters: vec![ABSENT], learners: vec![MEMBER], ..ConfState::default() }
    } else {
        ConfState { voters: vec![MEMBER, ABSENT], ..ConfState::default() }
    };
}

/// Waits for a condition, a while.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let mut waited = Duration::ZERO;
    while !holds() {
        assert!(waited < PATIENCE, "{what}: not within {PATIENCE:?}");
        let step = Duration::from_millis(5);
        Timer::after(step).await;
        waited += step;
    }
}

/// Runs a test; one that hangs fails.
pub fn run(test: impl Future<Output = ()>) {
    let late = async {
        Timer::after(PATIENCE * 2).await;
        panic!("the test hangs");
    };
    smol::block_on(smol::future::or(test, late));
}

/// A refusal must be this one, letter for letter.
pub fn is(status: &tonic::Status, code: tonic::Code, text: &str) {
    assert_eq!((status.code(), status.message()), (code, text));
}

/// A request body with nothing in it.
pub fn empty() -> tonic::body::Body {
    tonic::body::Body::empty()
}

/// A body that carries these bytes and then says nothing more, without ending.
pub struct Endless(pub Option<bytes::Bytes>);

impl http_body::Body for Endless {
    type Data = bytes::Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Infallible>>> {
        match self.0.take() {
            Some(bytes) => Poll::Ready(Some(Ok(http_body::Frame::data(bytes)))),
            None => Poll::Pending,
        }
    }
}
