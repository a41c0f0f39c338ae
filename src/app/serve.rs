//! `covey serve`: from settings to a serving node, until a signal or a fault.
//!
//! Owns: the order of start and end, and the process's exit code. Must never: let a fault be followed by another answer. Driven by
//! `main`.

use std::io;
use std::pin::pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_signal::{Signal, Signals};
use smol::future::or;
use smol::stream::StreamExt as _;
use smol::{LocalExecutor, Task, Timer};

use super::admission::Desk;
use super::attend::Outside;
use super::certificates::Certificates;
use super::chain;
use super::charter;
use super::data_dir::{DataDir, OpenError, OpenOptions, Opened, WhenFresh};
use super::fates::{self, Decision, Departure};
use super::forming;
use super::gather;
use super::hardware;
use super::lan::Lan;
use super::listeners::{self, ClientTls, Socket};
use super::metrics::metrics_text;
use super::operator::Operator;
use super::peers::Members;
use super::reload::{Reload, Told};
use super::resources;
use super::schedule;
use super::supervisor::{self, Supervisor};
use crate::api::{
    self, Api, ApiOptions, BrowserPolicy, Jwt, KeyError, LoginOptions, MemberRules, Stop, Stopping, TokenKind,
};
use crate::command::{CommandVersion, MemberAttributes};
use crate::config::{AuthConfig, EXIT_CONFIG, Loaded, ServeConfig, TokenConfig, TrustMode, Url};
use crate::formation::{self, DiskOptions, Identity, NodeKey};
use crate::ids::{LogIndex, MemberId};
use crate::limits::{
    ANSWER_WRITE_SHARE, COMMIT_AFTER, KEEPALIVE_TIMEOUT, WATCH_LONG_EVENTS, WATCH_SLICE_BYTES,
};
use crate::mvcc::Facts;
use crate::node::{ApplierError, RecoverError, Recovery, VotePolicy, recover};
use crate::peer::Trust;
use crate::prng::Prng;
use crate::runtime::clock::{Clock, random_u64};
use crate::runtime::space::Space;
use crate::runtime::written::Written;
use crate::runtime::{AdmissionOptions, Fault, Handle, Lost, NodeIds, Parts, Running, ServeError};
use crate::store::{Dissolution, Meta, StoreError, StoreOptions};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{self, Listed};
use crate::tls::TlsError;
use crate::watch::{self, Hub};

/// How long open calls may take to end once the node is told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long connections have, after that, to take the answer that the node stops.
const GOODBYE_MAX: Duration = Duration::from_millis(500);
/// How long a member goes on after its cluster has given itself up, for the others to learn of that.
const LINGER: Duration = Duration::from_secs(2);
/// Orders of an operator's that wait for the one that is being carried out.
const ORDERS_MAX: usize = 1;
/// How often a drain looks whether it is done.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// How long a new node waits before it tries again to publish what it is called.
const PUBLISH_RETRY: Duration = Duration::from_millis(500);
/// How long clients of a node that the cluster knows nothing of yet are kept waiting for that: longer than it takes where there is a leader.
const INTRODUCTION_MAX: Duration = Duration::from_secs(1);

/// Why a node did not serve, or stopped serving.
#[derive(Debug, thiserror::Error)]
pub enum ServeFailure {
    /// The data directory cannot be used.
    #[error("cannot open the data directory")]
    Open(#[from] OpenError),
    /// What is in it contradicts itself, or cannot be read.
    #[error("the data directory cannot be gone on from")]
    Recover(#[from] RecoverError),
    /// The store cannot be read.
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
    /// A TLS file is of no use.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// A key for tokens is of no use.
    #[error("tokens cannot be made or checked (--auth-token)")]
    Tokens(#[from] KeyError),
    /// A client URL cannot be listened on.
    #[error("cannot listen on {url}")]
    Listen {
        /// The URL as it was given.
        url: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The cluster's secret cannot be used.
    #[error("nobody could be let into the cluster")]
    Secret(#[from] forming::SecretFailure),
    /// The members' port cannot be listened on.
    #[error("cannot form a cluster with others")]
    Forming(#[from] crate::peer::StartError),
    /// The network cannot be looked at.
    #[error("others cannot be found")]
    Discovery(#[from] crate::discovery::StartError),
    /// The operating system refused something a server needs.
    #[error("cannot {action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Other members know more of this one than its data directory does.
    #[error(
        "the data directory is an old copy of this member, or one of two that are in use: remove the member from the cluster, add it anew and start it with an empty data directory"
    )]
    Fenced,
    /// A majority of the members has another state than this one.
    #[error(
        "the state of this member is not that of the majority: it is not shown any more, and another member's takes its place at the next start"
    )]
    Diverged,
    /// Nobody else has what the data directory held: a start would find nothing, and found a cluster without it.
    #[error("no other member has the state: bring the data directory back before this node is started again")]
    Bereft(#[source] Fault),
    /// The node could not go on.
    #[error("the node failed")]
    Fault(#[from] Fault),
}

impl ServeFailure {
    /// Whether the state on this member's disk, or in its memory, is not what it was made to be.
    fn is_of_the_state(&self) -> bool {
        match self {
            Self::Diverged => true,
            Self::Store(error)
            | Self::Recover(RecoverError::Store(error))
            | Self::Fault(Fault::Store(error) | Fault::Applier(ApplierError::Store { cause: error, .. })) => {
                matches!(error, StoreError::Damaged { .. })
            }
            _ => false,
        }
    }

    /// Whether no further start helps, as long as nobody changes something.
    fn is_for_ever(&self) -> bool {
        match self {
            Self::Fenced
            | Self::Bereft(_)
            | Self::Fault(Fault::Applier(ApplierError::NotUnderstood { .. })) => true,
            Self::Open(error) => error.is_for_ever(),
            Self::Store(error) | Self::Recover(RecoverError::Store(error)) => error.is_of_another_build(),
            _ => false,
        }
    }

    /// What the supervisor of the process is told.
    fn exit_code(&self) -> ExitCode {
        if self.is_for_ever() { EXIT_CONFIG.into() } else { ExitCode::FAILURE }
    }
}

/// Runs a node until SIGTERM or SIGINT (success) or until it cannot go on (failure, logged).
pub fn serve(loaded: Loaded) -> ExitCode {
    for warning in &loaded.config.warnings {
        tracing::warn!("{warning}");
    }
    let reload = match Reload::of(loaded, Supervisor::of_process()) {
        Ok(reload) => Rc::new(reload),
        Err(error) => {
            tracing::error!(%error, "the node stops: it cannot watch for signals");
            return ExitCode::FAILURE;
        }
    };
    loop {
        match run(&reload.config(), &reload) {
            Ok(End::Stop | End::Removed) => return ExitCode::SUCCESS,
            // Its cluster has ended for it: it begins anew, and looks for another one.
            Ok(End::Leave) => {}
            Err(failure) => {
                tracing::error!(error = %chain(&failure), "the node stops");
                return failure.exit_code();
            }
        }
    }
}

/// Why a run has ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It was told to.
    Stop,
    /// The cluster has given itself up for another one, or this member was never needed in it.
    Leave,
    /// It is no member any more.
    Removed,
}

impl End {
    fn why(self) -> &'static str {
        match self {
            Self::Stop => "told to",
            Self::Leave => "its cluster has given itself up",
            Self::Removed => "no member any more",
        }
    }
}

/// Those that end a run.
fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::Term => "SIGTERM",
        Signal::Int => "SIGINT",
        _ => "another",
    }
}

fn run(config: &ServeConfig, reload: &Rc<Reload>) -> Result<End, ServeFailure> {
    let clock = Clock::start();
    // Everything that can be wrong with the configuration is found before the data directory is touched.
    let sockets = listeners::bind(config)?;
    let mut tls = ClientTls::load(&config.client)?;
    let logins = logins(&config.auth)?;
    let store = StoreOptions { cache_bytes: config.store.cache_bytes };
    let disk = DiskOptions { store, ..DiskOptions::default() };
    let mut trust = forming::trust(&config.peer)?;
    let when_fresh = if config.solo { WhenFresh::Solo } else { WhenFresh::Meet };
    let started: Arc<OnceLock<Handle>> = Arc::default();
    note_damage(config, &started);
    reload.supervisor.say("opens its data directory");
    let opened = DataDir::open(&config.data_dir, OpenOptions { when_fresh, disk })?;
    let other_hardware = hardware::look(&config.data_dir);
    let own = key_to_be_found_by(config, &opened);
    let name = if own.is_some() { name_of(config) } else { config.name.clone() };
    let lan = own.map(|key| Lan::start(config, &name, key.fingerprint(), clock)).transpose()?;
    if config.peer.trust != TrustMode::FleetKey {
        trust.near = lan.as_ref().map(|lan| lan.near());
    }
    let outside = |name| {
        let ports = listeners::shared(&sockets)
            .map_err(|source| ServeFailure::System { action: "share a socket", source })?;
        let (config, trust, reload) = (&config.peer, trust.clone(), Rc::clone(reload));
        Ok::<_, ServeFailure>(Outside { name, config, trust, ports, clock, reload })
    };
    let data = match (opened, &config.peer.initial, &lan) {
        (Opened::Node(data), ..) => data,
        (Opened::Fresh(fresh), Some(initial), _) => forming::form(fresh, initial, outside(&config.name)?)?,
        (Opened::Fresh(fresh), None, Some(lan)) => {
            let outside = outside(&name)?;
            match gather::gather(fresh, lan, outside)? {
                Some(data) => data,
                None => return Ok(End::Stop),
            }
        }
        (Opened::Fresh(_), None, None) => unreachable!("a cluster of one was founded"),
    };
    let metrics = Metrics::new(api::methods(config.client.reflection));
    let metrics = Arc::new(if config.metrics.extensive { metrics.extensive() } else { metrics });
    let written = data.content.root.written();
    let member = data.content.identity.member;
    let others_vote = data.content.store.meta().conf_state.others_vote(member);
    let (running, identity, lock) =
        start(config, data, clock, &metrics).or_else(|failure| failed(config, failure, others_vote))?;
    let handle = running.handle().clone();
    started.get_or_init(|| handle.clone());
    if let (Some(lan), ClientTls::None) = (&lan, &tls) {
        let (lan, cluster) = (Arc::clone(lan), identity.cluster());
        let protocol = config.client.tls_protocol.clone();
        tls = ClientTls::Cluster(Certificates::new(handle.clone(), lan, cluster, host_name(), protocol));
    }
    let (ended, reload) = (Arc::default(), Rc::clone(reload));
    let place = Place { name, identity, ended, trust, lan, tls, logins, other_hardware, reload, written };
    let outcome = smol::block_on(attend(config, &running, &place, sockets, clock, metrics));
    let end = match outcome {
        Ok(end) => end,
        // The threads are not waited for: one of them may hang in the very call that failed.
        Err(failure) => return failed(config, failure, handle.others_vote()),
    };
    running.stop()?;
    let end = if end == End::Removed { after_removal(handle.view().facts(), member) } else { end };
    if end == End::Leave {
        leave(config, &place, &handle)?;
    }
    drop(lock);
    tracing::info!(why = end.why(), "stopped");
    Ok(end)
}

/// The key of a node that others find by itself.
fn key_to_be_found_by<'a>(config: &ServeConfig, opened: &'a Opened) -> Option<&'a NodeKey> {
    match opened {
        _ if !config.is_automatic() => None,
        // One that somebody founded stays what it is, whatever the next start is told.
        Opened::Node(data) => is_automatic(data.content.store.meta()).then_some(&data.content.identity.key),
        Opened::Fresh(fresh) => Some(&fresh.key),
    }
}

/// Has the data directory begin anew, if that is still what has come of the cluster.
fn leave(config: &ServeConfig, place: &Place, handle: &Handle) -> Result<(), ServeFailure> {
    match place.ended.outcome(handle, &place.identity) {
        Departure::Leaves(winner) => {
            DataDir::leave(&config.data_dir, &place.identity, handle.view().facts(), winner)?;
        }
        Departure::Stays => tracing::warn!("the cluster is there again: this member stays"),
    }
    Ok(())
}

/// What becomes of a node that is no member any more. One that was let in and came only as it was given up has nothing that counts, and looks for a cluster anew.
fn after_removal(facts: &Facts, member: MemberId) -> End {
    if fates::is_forgotten(facts, member) {
        tracing::warn!(
            "this member had not come for so long that the cluster has forgotten it: it begins anew"
        );
        End::Leave
    } else {
        tracing::warn!("this member was removed from the cluster: its data directory is of no use any more");
        End::Removed
    }
}

/// Has it noted when redb stops at a damaged page, of the store that is opened or, later, of the node that has started.
fn note_damage(config: &ServeConfig, started: &Arc<OnceLock<Handle>>) {
    let (path, started) = (config.data_dir.clone(), Arc::clone(started));
    telemetry::note_store_damage(move || match started.get() {
        Some(handle) => handle.others_vote() && DataDir::note_damage(&path).is_ok(),
        None => DataDir::note_damage_at_start(&path).is_ok_and(|helps| helps),
    });
}

/// Notes in the data directory, whose lock is held, what the next start has to know of a failure.
fn failed<T>(config: &ServeConfig, failure: ServeFailure, others_vote: bool) -> Result<T, ServeFailure> {
    if matches!(failure, ServeFailure::Fenced) {
        // So that it does not start again and again until it has caught up with what the others know.
        DataDir::fence(&config.data_dir)?;
    } else if failure.is_of_the_state() && others_vote {
        DataDir::distrust(&config.data_dir)?;
        tracing::warn!("at the next start another member's state takes the place of this one's");
    }
    Err(failure)
}

/// How clients show who they are, with the keys that it takes.
fn logins(config: &AuthConfig) -> Result<LoginOptions, ServeFailure> {
    let tokens = match &config.token {
        TokenConfig::Simple(ttl) => TokenKind::Simple(*ttl),
        TokenConfig::Jwt(options) => TokenKind::Jwt(Arc::new(Jwt::load(options)?)),
    };
    Ok(LoginOptions { tokens, bcrypt_cost: config.bcrypt_cost })
}

type Started = (Running, Identity, crate::runtime::files::DirectoryLock);

fn start(
    config: &ServeConfig,
    data: DataDir,
    clock: Clock,
    metrics: &Arc<Metrics>,
) -> Result<Started, ServeFailure> {
    let DataDir { content, lock } = data;
    let formation::DataDir { identity, root, store, wal, recovered, .. } = content;
    if store.is_suspect() {
        tracing::warn!(
            "the state of this member is not to be trusted: it serves nobody before a leader has sent it another one"
        );
    }
    let seed = random_u64().map_err(|source| ServeFailure::System { action: "draw randomness", source })?;
    let mut prng = Prng::new(seed);
    let mut hub = Hub::new(
        watch::Options {
            progress_interval: config.client.watch_progress_interval,
            limits: watch::Limits::default(),
        },
        prng.fork(),
    );
    hub.encode_long(watch::Parts {
        events: WATCH_LONG_EVENTS,
        bytes: WATCH_SLICE_BYTES,
        encode: api::encode_events,
    });
    let recovery = Recovery {
        member: identity.member,
        boot_nonce: identity.boot_nonce,
        base: Arc::new(store.base()?),
        hard_state: recovered.hard_state,
        log_start: recovered.start,
        entries: recovered.entries,
        quota_bytes: config.store.quota_bytes,
        pace: config.peer.pace,
        prng,
    };
    let (mut core, mut applier) = recover(clock.now(), recovery, &telemetry::raft_logger())?;
    core.set_vote_policy(VotePolicy { voters: config.peer.voters, ..VotePolicy::default() });
    applier.set_answer_bytes(resources::answer_bytes() / ANSWER_WRITE_SHARE);
    let ids =
        NodeIds { cluster: identity.cluster(), member: identity.member, boot_nonce: identity.boot_nonce };
    let admission = AdmissionOptions {
        request_bytes: config.client.max_request_bytes,
        quota: config.store.quota_bytes,
        hold_until: Some(clock.now() + COMMIT_AFTER),
    };
    let space = Arc::new(Space::of(&config.data_dir));
    let whereabouts = Some(lock.whereabouts().map_err(OpenError::Directory)?);
    let parts = Parts { core, applier, wal, root, store, ids, admission, space, whereabouts, hub };
    Ok((Running::start(parts, clock, Arc::clone(metrics))?, identity, lock))
}

/// Who the node is among others.
struct Place {
    name: String,
    identity: Identity,
    /// Taken when its cluster has ended for it, and does not say so itself.
    ended: Arc<Decision>,
    trust: Trust,
    /// Where it finds others, if it does.
    lan: Option<Arc<Lan>>,
    tls: ClientTls,
    logins: LoginOptions,
    /// In what its box is another one than at the last start.
    other_hardware: Option<String>,
    reload: Rc<Reload>,
    /// What this run has written to the data directory.
    written: Arc<Written>,
}

/// Whether a state is that of a cluster that formed by itself, or of a node on its way into one, which knows nothing of it yet.
fn is_automatic(meta: &Meta) -> bool {
    meta.charter.automatic || meta.applied == LogIndex(0)
}

/// What a node is called that finds others by itself: what the box is, where nobody has chosen anything else.
fn name_of(config: &ServeConfig) -> String {
    let host = host_name();
    if config.is_named() || host.is_empty() { config.name.clone() } else { host }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Serves clients on this thread until a signal or a fault comes.
async fn attend(
    config: &ServeConfig,
    running: &Running,
    place: &Place,
    sockets: Vec<Socket>,
    clock: Clock,
    metrics: Arc<Metrics>,
) -> Result<End, ServeFailure> {
    let Place { identity, lan, tls, reload, .. } = place;
    let supervisor = &reload.supervisor;
    let mut signals = Signals::new([Signal::Term, Signal::Int])
        .map_err(|source| ServeFailure::System { action: "watch for signals", source })?;
    let handle = running.handle().clone();
    let (stop, stopping) = Stop::pair();
    let executor = Rc::new(LocalExecutor::new());
    let (members, operator) = beside(config, &handle, place, clock)?;
    let (idle_hour, written) = (Arc::clone(&operator.idle_hour), Arc::clone(&place.written));
    let (measured, backups) = (handle.clone(), Arc::clone(&operator.backups));
    executor.spawn(async move { idle_hour.measure(&measured, &written).await }).detach();
    let api = build_api(config, &handle, operator, place.logins.clone(), metrics, stopping);
    // A task of its own: while the node drains, its last writes still need the others.
    let members = executor.spawn(members.talk(Rc::clone(&executor)));
    let (attendant, attended) = (supervisor.clone(), handle.clone());
    executor.spawn(async move { attendant.attend(attended).await }).detach();
    let (attends, told) = (Rc::clone(reload), Told { node: handle.clone(), tls: tls.files() });
    let reloading = async move { attends.attend(Some(&told), || supervisor::standing(&told.node)).await };
    executor.spawn(reloading).detach();
    let serving = async {
        // Before anything that needs the others: they may all have moved, and find each other by this alone.
        if let Some(lan) = lan {
            lan.announce(Some(identity.cluster()), false);
        }
        if let ClientTls::Cluster(certificates) = tls {
            let certificates = Arc::clone(certificates);
            executor.spawn(async move { certificates.keep().await }).detach();
        }
        let told = {
            let mut publishing = pin!(publish(&handle, || attributes(config, place)));
            let published = async { Some(publishing.as_mut().await) };
            let told = or(published, served_before(&handle)).await;
            listeners::listen(config, sockets, tls, &api, &executor)?;
            supervisor.ready(&supervisor::standing(&handle));
            match told {
                Some(told) => told,
                None => publishing.await,
            }
        };
        let moving = async {
            if let Some(lan) = lan {
                publish_changes(&handle, config, place, lan, told).await;
            }
        };
        executor.spawn(charter::keep_time(handle.clone(), clock, config.peer.trust)).detach();
        let bury = fates::bury(handle.clone(), config.data_dir.clone(), identity.cluster());
        executor.spawn(bury).detach();
        let by_schedule = schedule::follow(Rc::clone(reload), handle.clone(), clock, backups);
        executor.spawn(by_schedule).detach();
        tracing::info!("ready to serve client requests");
        if let Some(lan) = lan {
            lan.announce(Some(identity.cluster()), true);
        }
        moving.await;
        smol::future::pending().await
    };
    // A task of its own: polled with the rest it would look at its descriptor at every wake-up.
    let signal = executor.spawn(async move { signals.next().await });
    let end = executor.run(or(end_of_run(running, &place.ended, signal), serving)).await?;
    if end == End::Stop {
        supervisor.stopping();
    }
    let fault = async { Err(ServeFailure::Fault(running.fault().await)) };
    let outcome = executor.run(or(wind_down(running, &api, stop), fault)).await;
    executor.run(members.cancel()).await;
    outcome.map(|()| end)
}

/// What talks to other members, and what operators are told of that.
fn beside(
    config: &ServeConfig,
    handle: &Handle,
    place: &Place,
    clock: Clock,
) -> Result<(Members, Operator), ServeFailure> {
    let Place { name, identity, trust, lan, .. } = place;
    let seed = random_u64().map_err(|source| ServeFailure::System { action: "draw randomness", source })?;
    let (pending, conflicts) = (Arc::default(), Arc::default());
    let (orders, ordered) = smol::channel::bounded(ORDERS_MAX);
    let desk = Desk {
        identity: identity.clone(),
        name: name.clone(),
        handle: handle.clone(),
        trust: config.peer.trust,
        pending: Arc::clone(&pending),
        conflicts: Arc::clone(&conflicts),
        outdated: Arc::default(),
        ended: Arc::clone(&place.ended),
        clock,
    };
    let members = Members {
        handle: handle.clone(),
        identity: identity.clone(),
        listen: config.peer.listen.clone(),
        clock,
        prng: Prng::new(seed),
        trust: Some(trust.clone()),
        found: lan.clone().map(|lan| (lan, desk, ordered)),
    };
    let operator = Operator {
        lan: lan.clone(),
        trust: config.peer.trust,
        pending,
        lately: Arc::default(),
        conflicts,
        orders,
        clock,
        began: clock.now(),
        other_hardware: place.other_hardware.clone(),
        written: Arc::clone(&place.written),
        idle_hour: Arc::default(),
        backups: Arc::default(),
        handle: handle.clone(),
        began_at: handle.view().revision(),
    };
    Ok((members, operator))
}

/// Waits for a signal, a fault, or word that this member has no part in its cluster any more.
async fn end_of_run(
    running: &Running,
    ended: &Decision,
    signal: Task<Option<io::Result<Signal>>>,
) -> Result<End, ServeFailure> {
    let handle = running.handle();
    let told = async {
        match signal.await {
            Some(Ok(signal)) => tracing::info!(signal = signal_name(signal), "stopping"),
            // Without signals nobody could stop the node in order.
            Some(Err(source)) => return Err(ServeFailure::System { action: "watch for signals", source }),
            None => tracing::info!("stopping: no signal can come any more"),
        }
        Ok(End::Stop)
    };
    let removed = async {
        handle.removed().await;
        tracing::warn!("this member has no part in its cluster any more: the node stops");
        Ok(End::Removed)
    };
    let fenced = async {
        handle.fenced().await;
        Err(ServeFailure::Fenced)
    };
    let diverged = async {
        handle.distrusted().await;
        Err(ServeFailure::Diverged)
    };
    let abandoned = async {
        if !ended.taken().await {
            std::future::pending::<()>().await;
        }
        Ok(End::Leave)
    };
    let fault = async {
        Err(match running.fault().await {
            fault @ Fault::Lost(Lost::Gone { .. } | Lost::Replaced { .. }) if !handle.others_vote() => {
                ServeFailure::Bereft(fault)
            }
            fault => ServeFailure::Fault(fault),
        })
    };
    let leaves = or(removed, or(left(handle), abandoned));
    or(or(fault, or(fenced, diverged)), or(told, leaves)).await
}

/// Waits until the cluster has given itself up for another one, and the other members have had time to learn that from this one.
async fn left(handle: &Handle) -> Result<End, ServeFailure> {
    loop {
        let changed = handle.charter_changed();
        if let Some(Dissolution { winner, ordered, .. }) = handle.view().facts().charter.dissolved {
            let why = if ordered { "an operator has ordered it" } else { "nobody had written to it" };
            tracing::warn!(%winner, why, "this cluster has given itself up for another one: its members join that");
            Timer::after(LINGER).await;
            return Ok(End::Leave);
        }
        changed.await;
    }
}

/// Lets others lead, and what clients have begun come to its end.
async fn wind_down(running: &Running, api: &Api, stop: Stop) -> Result<(), ServeFailure> {
    running.handle().step_down().await;
    stop.announce();
    // Who was removed can bring nothing to its end any more.
    if !running.handle().was_removed() {
        drain(api, DRAIN_MAX).await;
    }
    // Whoever still waits for a write is told so on an open connection.
    running.close();
    drain(api, GOODBYE_MAX).await;
    let left = api.counters().connections();
    if left > 0 {
        tracing::warn!(connections = left, "connections did not end in time");
    }
    Ok(())
}

fn build_api(
    config: &ServeConfig,
    handle: &Handle,
    operator: Operator,
    logins: LoginOptions,
    metrics: Arc<Metrics>,
    stopping: Stopping,
) -> Api {
    let (keepalive_interval, keepalive_timeout) = config.client.keepalive.unzip();
    let options = ApiOptions {
        request_bytes_max: config.client.max_request_bytes,
        txn_ops_max: config.client.max_txn_ops,
        connections_max: resources::connections(config.client.max_connections),
        calls_max: resources::calls(),
        window_bytes_max: resources::window_bytes(),
        answer_bytes_max: resources::answer_bytes(),
        streams_max: config.client.max_streams,
        keepalive_min_time: config.client.keepalive_min_time,
        keepalive_interval,
        keepalive_timeout: keepalive_timeout.unwrap_or(KEEPALIVE_TIMEOUT),
        members: MemberRules { strict: config.peer.strict, learners_max: config.peer.learners_max },
        browser: BrowserPolicy {
            hosts: config.client.allowed_hosts.clone(),
            origins: config.client.cors.clone(),
        },
        logins,
        gateway: config.client.gateway,
        ..ApiOptions::default()
    };
    let operator = Arc::new(operator);
    let text = metrics_text(handle.clone(), Arc::clone(&operator), Arc::clone(&metrics));
    Api::new(handle.clone(), operator, options, metrics, text, stopping)
}

/// What this member is called and where it is found, in this run.
fn attributes(config: &ServeConfig, place: &Place) -> MemberAttributes {
    let Place { name, identity, lan, .. } = place;
    let found = |urls: &[Url], port: u16, here: fn(&Lan) -> Vec<String>| match lan {
        Some(lan) if urls.is_empty() => here(lan),
        // Plain text is for this machine alone.
        None if urls.is_empty() => vec![format!("http://localhost:{port}")],
        _ => urls.iter().map(ToString::to_string).collect(),
    };
    let client_port = config.client.listen_urls.first().map_or(0, |listen| listen.address.port());
    MemberAttributes {
        member: identity.member,
        name: name.clone(),
        peer_urls: found(&config.peer.advertise_urls, config.peer.listen.port(), Lan::peer_urls),
        client_urls: found(&config.client.advertise_urls, client_port, Lan::client_urls),
        incarnation: identity.incarnation.0,
        boot_nonce: identity.boot_nonce,
        understands: CommandVersion::understood(),
    }
}

/// Tells the cluster what this member is called and where clients find it, as it is by the time that it can be told; what it was.
async fn publish(handle: &Handle, attributes: impl Fn() -> MemberAttributes) -> MemberAttributes {
    let mut said = None;
    loop {
        let now = attributes();
        match handle.publish(now.clone()).await {
            Ok(_) | Err(ServeError::Stopped) => return now,
            Err(error) => {
                if said.replace(error) != Some(error) {
                    tracing::warn!(%error, "could not publish this member's attributes; trying again");
                }
                Timer::after(PUBLISH_RETRY).await;
            }
        }
    }
}

/// Waits until clients are served although this run of the member is not published. That takes a leader, and one that comes back alone has none: how it stands
/// and what it has a copy of can be asked all the same. One that has never published is given some time first, so that a client which asks at once for the
/// members gets no answer without addresses.
async fn served_before<T>(handle: &Handle) -> Option<T> {
    let late = async {
        Timer::after(INTRODUCTION_MAX).await;
    };
    handle.replayed().await;
    or(handle.introduced(), late).await;
    None
}

/// Tells the cluster where this member is found whenever that changes.
async fn publish_changes(
    handle: &Handle,
    config: &ServeConfig,
    place: &Place,
    lan: &Lan,
    mut told: MemberAttributes,
) {
    loop {
        let changed = lan.changed();
        let now = attributes(config, place);
        if now != told {
            tracing::info!(
                peer_urls = %Listed(&now.peer_urls),
                client_urls = %Listed(&now.client_urls),
                "this member has moved"
            );
            // What is new meanwhile is told instead.
            let lost = async {
                changed.await;
                false
            };
            let published = async {
                publish(handle, || now.clone()).await;
                true
            };
            if or(published, lost).await {
                told = now;
            }
            continue;
        }
        changed.await;
    }
}

/// Waits until no connection is open, for a bounded time.
async fn drain(api: &Api, patience: Duration) {
    let finished = async {
        while api.counters().connections() > 0 {
            Timer::after(DRAIN_LOOK).await;
        }
    };
    let late = async {
        Timer::after(patience).await;
    };
    or(finished, late).await;
}
