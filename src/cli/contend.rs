//! `lock` and `elect`: one among many holds something.
//!
//! Owns: the lease that it is held by, and what is run meanwhile. Must never: say that something is held whose lease may have ended. Driven by `run`.

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::pin::{Pin, pin};
use std::process::{Child, Command as Program, ExitStatus};
use std::rc::Rc;
use std::time::Duration;

use async_signal::{Signal, Signals};
use bytes::Bytes;
use rustix::process::{Pid, kill_process};
use smol::future::or;
use smol::stream::StreamExt as _;
use smol::{LocalExecutor, Timer};
use tonic::Status;

use super::args::{ClientSettings, Parsed, UsageError};
use super::calls::{CallError, answered, origin, renew, timed};
use super::lasting::{LastingError, Line, Work};
use super::output;
use super::progress::Progress;
use super::reach::first_reachable;
use super::reply::{Reply, ValuesOnly};
use super::requests;
use super::spec::Command;
use super::spec_upkeep::{ELECT, LOCK};
use crate::wire::etcdserverpb::kv_client::KvClient;
use crate::wire::etcdserverpb::lease_client::LeaseClient;
use crate::wire::etcdserverpb::{
    LeaseGrantRequest, LeaseRevokeRequest, RangeRequest, RangeResponse, ResponseHeader,
};
use crate::wire::v3electionpb::election_client::ElectionClient;
use crate::wire::v3electionpb::{CampaignRequest, LeaderRequest, LeaderResponse};
use crate::wire::v3lockpb::LockRequest;
use crate::wire::v3lockpb::lock_client::LockClient;

/// How many seconds a holder may be away before another one has its turn; etcdctl's.
const LOCK_TTL: i64 = 10;
const ELECTION_TTL: i64 = 60;
/// A lease is renewed when one part in so many of its time is over, as Go's client does.
const RENEWALS_PER_TTL: u32 = 3;
/// What a server says of a lease that has ended.
const NO_LEASE: &str = "etcdserver: requested lease not found";
/// What a shell adds to the number of the signal that a command has died of.
const EXIT_SIGNAL: i32 = 128;

/// What to do.
#[derive(Debug)]
pub enum Job {
    /// To hold something.
    Hold(Contest),
    /// `elect --listen`: the election's name.
    Listen(Bytes),
}

/// What to hold, and how.
#[derive(Debug)]
pub struct Contest {
    name: Bytes,
    ttl: i64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// With the command to run meanwhile, if any.
    Lock(Vec<OsString>),
    /// With what the winner announces.
    Election(Bytes),
}

impl Kind {
    /// How the end of the lease is told. etcdctl's words.
    fn expired(&self) -> &'static str {
        match self {
            Self::Lock(_) => "session expired",
            Self::Election(_) => "elect: session expired",
        }
    }
}

/// Why it is not held, or no more.
#[derive(Debug, thiserror::Error)]
pub enum ContendError {
    /// There is no connection, the server said no, nobody reads what is printed, or the command could not be run.
    #[error(transparent)]
    Lasting(#[from] LastingError),
    /// The server did not answer as it should.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The lease may have ended.
    #[error("{0}")]
    Expired(&'static str),
    /// Somebody has deleted the key at once.
    #[error("lock lost on init")]
    Lost,
    /// Interrupted while others held it. etcdctl's words.
    #[error("context canceled")]
    Interrupted,
    /// The system does not tell of interrupts.
    #[error("cannot watch for signals: {0}")]
    Signals(io::Error),
    /// The command failed. etcdctl's words.
    #[error("{}", told(*.0))]
    Failed(ExitStatus),
}

fn told(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("signal: {}", signal.unwrap_or_default()),
    }
}

impl ContendError {
    /// The command's own exit code, where it was run.
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            Self::Failed(status) => {
                let code = status.code().unwrap_or(EXIT_SIGNAL + status.signal().unwrap_or_default());
                u8::try_from(code).ok()
            }
            _ => None,
        }
    }
}

/// What the arguments ask for, where the command is one of these.
pub fn job(command: &Command, parsed: &Parsed) -> Result<Option<Job>, UsageError> {
    if command.name == LOCK.name {
        let [name, rest @ ..] = parsed.arguments.as_slice() else {
            const NEEDS: &str = "lock takes a lock name argument and an optional command to execute";
            return Err(UsageError::Arguments(NEEDS));
        };
        let ttl = parsed.parse("ttl", requests::seconds)?.unwrap_or(LOCK_TTL);
        let kind = Kind::Lock(rest.iter().map(|word| OsString::from_vec(word.clone())).collect());
        return Ok(Some(Job::Hold(Contest { name: name.clone().into(), ttl, kind })));
    }
    if command.name != ELECT.name {
        return Ok(None);
    }
    match (parsed.arguments.as_slice(), parsed.switch("listen")?) {
        ([name], true) => Ok(Some(Job::Listen(name.clone().into()))),
        ([_], false) => Err(UsageError::Flags("no proposal argument but -l not set")),
        ([_, _], true) => Err(UsageError::Flags("proposal given but -l is set")),
        ([name, value], false) => {
            let kind = Kind::Election(value.clone().into());
            Ok(Some(Job::Hold(Contest { name: name.clone().into(), ttl: ELECTION_TTL, kind })))
        }
        _ => Err(UsageError::Arguments(
            "elect takes one election name argument and an optional proposal argument",
        )),
    }
}

/// Waits until it is held, and holds it until the command has ended, or until told to stop.
pub fn hold(
    settings: &ClientSettings,
    contest: &Contest,
    print: impl Fn(&Reply) -> io::Result<()>,
) -> Result<(), ContendError> {
    let executor = Rc::new(LocalExecutor::new());
    let signals = Signals::new([Signal::Int, Signal::Term]).map_err(ContendError::Signals)?;
    smol::block_on(executor.run(async {
        let mut line = Line::new(Rc::clone(&executor), settings);
        let (channel, endpoint) = line.connect().await?;
        // Counted from before the lease is asked for: it cannot end earlier.
        let mut client = LeaseClient::with_origin(channel, origin(&endpoint));
        let request = timed(settings, LeaseGrantRequest { ttl: contest.ttl, id: 0 });
        let ends = Timer::after(whole_seconds(contest.ttl));
        let granted = answered(settings, client.lease_grant(request)).await?;
        // A server may give more time than was asked for, which is not counted on.
        let ttl = whole_seconds(granted.ttl.min(contest.ttl));
        let session = Session { id: granted.id, ttl, expired: contest.kind.expired() };
        let kept = session.keep(line, settings, ends);
        let outcome = held(&executor, settings, contest, &session, kept, signals, print).await;
        // Nobody has to wait for the lease's end. What is held by it is deleted with it.
        let ended = session.end(&executor, settings).await;
        outcome.and(ended)
    }))
}

/// The lease that something is held by.
struct Session {
    id: i64,
    ttl: Duration,
    /// How its end is told.
    expired: &'static str,
}

impl Session {
    /// Renews the lease for as long as that is possible; `ends` is when it may end.
    async fn keep(&self, mut line: Line<'_>, settings: &ClientSettings, mut ends: Timer) -> ContendError {
        loop {
            Timer::after(self.ttl / RENEWALS_PER_TTL).await;
            let after_this = Timer::after(self.ttl);
            let late = async {
                (&mut ends).await;
                Err(ContendError::Expired(self.expired))
            };
            if let Err(error) = or(self.renewed(&mut line, settings), late).await {
                return error;
            }
            ends = after_this;
        }
    }

    async fn renewed(&self, line: &mut Line<'_>, settings: &ClientSettings) -> Result<(), ContendError> {
        loop {
            let (channel, endpoint) = line.connect().await?;
            let mut client = LeaseClient::with_origin(channel, origin(&endpoint));
            match renew(&mut client, settings, self.id).await {
                Ok(answer) if answer.ttl > 0 => {
                    line.note_success();
                    return Ok(());
                }
                Ok(_) => return Err(ContendError::Expired(self.expired)),
                Err(status) => line.broken(status).await?,
            }
        }
    }

    async fn end(
        &self,
        executor: &Rc<LocalExecutor<'static>>,
        settings: &ClientSettings,
    ) -> Result<(), ContendError> {
        let (channel, endpoint) = first_reachable(executor, settings).await.map_err(CallError::from)?;
        let mut client = LeaseClient::with_origin(channel, origin(&endpoint));
        let request = timed(settings, LeaseRevokeRequest { id: self.id });
        match answered(settings, client.lease_revoke(request)).await {
            Err(CallError::Refused(status)) if status.message() == NO_LEASE => Ok(()),
            answer => Ok(answer.map(drop)?),
        }
    }
}

/// How it is held: the key, and the state in which it was.
struct Won {
    key: Bytes,
    revision: i64,
}

async fn held(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &ClientSettings,
    contest: &Contest,
    session: &Session,
    kept: impl Future<Output = ContendError>,
    mut signals: Signals,
    print: impl Fn(&Reply) -> io::Result<()>,
) -> Result<(), ContendError> {
    let mut kept = pin!(kept);
    let waiting = Progress::begin(&format!("waiting for {}", String::from_utf8_lossy(&contest.name)));
    let interrupted = async {
        signals.next().await;
        Err(ContendError::Interrupted)
    };
    let won = or(win(executor, settings, contest, session), or(interrupted, lost(kept.as_mut()))).await?;
    drop(waiting);
    if let Kind::Lock(words) = &contest.kind
        && let Some((command, arguments)) = words.split_first()
    {
        let mut program = Program::new(command);
        program.args(arguments);
        program.env("ETCD_LOCK_KEY", OsString::from_vec(won.key.to_vec()));
        program.env("ETCD_LOCK_REV", won.revision.to_string());
        let failed = |source| LastingError::Run { command: command.to_string_lossy().into_owned(), source };
        let child = program.spawn().map_err(failed)?;
        let status = run(child, lost(kept.as_mut()), signals).await.map_err(failed)?;
        return if status.success() { Ok(()) } else { Err(ContendError::Failed(status)) };
    }
    let shown = async {
        let response = get(executor, settings, won.key).await?;
        if response.kvs.is_empty() {
            return Err(ContendError::Lost);
        }
        print(&Reply::Range(response, ValuesOnly(false))).map_err(LastingError::Output)?;
        signals.next().await;
        Ok::<_, ContendError>(())
    };
    or(shown, lost(kept.as_mut())).await
}

/// The end of the lease, as the end of whatever is done meanwhile.
async fn lost<T>(kept: Pin<&mut impl Future<Output = ContendError>>) -> Result<T, ContendError> {
    Err(kept.await)
}

/// Waits for the command, which an interrupt of the terminal reaches by itself. That the lease has ended is said and does not end the command: only it knows
/// how to stop.
async fn run(
    mut child: Child,
    lost: impl Future<Output = Result<(), ContendError>>,
    mut signals: Signals,
) -> io::Result<ExitStatus> {
    let pid = Pid::from_child(&child);
    let ended = smol::unblock(move || child.wait());
    let warned = async {
        if let Err(error) = lost.await {
            output::to_stderr(&format!("Warning: {error}; the command goes on without the lock"));
        }
        std::future::pending().await
    };
    let told_to_stop = async {
        while let Some(Ok(signal)) = signals.next().await {
            if signal == Signal::Term {
                // It may have ended just now.
                let _ = kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        std::future::pending().await
    };
    or(ended, or(warned, told_to_stop)).await
}

/// Asks for it until it is ours, over however many connections that takes.
async fn win(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &ClientSettings,
    contest: &Contest,
    session: &Session,
) -> Result<Won, ContendError> {
    let mut line = Line::new(Rc::clone(executor), settings);
    loop {
        let (channel, endpoint) = line.connect().await?;
        let (name, lease) = (contest.name.clone(), session.id);
        let revision = |header: Option<ResponseHeader>| header.map_or(0, |header| header.revision);
        let answer = match &contest.kind {
            Kind::Lock(_) => {
                let mut client = LockClient::with_origin(channel, origin(&endpoint));
                client.lock(LockRequest { name, lease }).await.map(|answer| {
                    let answer = answer.into_inner();
                    Won { key: answer.key, revision: revision(answer.header) }
                })
            }
            Kind::Election(value) => {
                let mut client = ElectionClient::with_origin(channel, origin(&endpoint));
                let request = CampaignRequest { name, lease, value: value.clone() };
                client.campaign(request).await.map(|answer| {
                    let answer = answer.into_inner();
                    let key = answer.leader.unwrap_or_default().key;
                    Won { key, revision: revision(answer.header) }
                })
            }
        };
        match answer {
            Ok(won) => return Ok(won),
            Err(status) if status.message() == NO_LEASE => {
                return Err(ContendError::Expired(session.expired));
            }
            Err(status) => line.broken(status).await?,
        }
    }
}

async fn get(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &ClientSettings,
    key: Bytes,
) -> Result<RangeResponse, CallError> {
    let (channel, endpoint) = first_reachable(executor, settings).await?;
    let mut client = KvClient::with_origin(channel, origin(&endpoint)).max_decoding_message_size(usize::MAX);
    let request = timed(settings, RangeRequest { key, ..RangeRequest::default() });
    answered(settings, client.range(request)).await
}

/// Prints who leads whenever that changes.
pub fn listen<'a>(
    settings: &'a ClientSettings,
    name: Bytes,
    print: impl Fn(&Reply) -> io::Result<()> + 'a,
) -> Work<'a> {
    Box::new(move |executor| {
        Box::pin(async move {
            let mut line = Line::new(executor, settings);
            let mut seen = None;
            loop {
                let (channel, endpoint) = line.connect().await?;
                let mut client = ElectionClient::with_origin(channel, origin(&endpoint))
                    .max_decoding_message_size(usize::MAX);
                let broken = match client.observe(LeaderRequest { name: name.clone() }).await {
                    Err(status) => status,
                    Ok(answers) => {
                        let mut answers = answers.into_inner();
                        loop {
                            match answers.message().await {
                                Ok(Some(answer)) => {
                                    line.note_success();
                                    show(&mut seen, answer, &print)?;
                                }
                                Ok(None) => break Status::unavailable("elect: observer lost"),
                                Err(status) => break status,
                            }
                        }
                    }
                };
                line.broken(broken).await?;
            }
        })
    })
}

/// Prints who leads, unless that was the last one, which a new connection tells again.
fn show(
    seen: &mut Option<i64>,
    answer: LeaderResponse,
    print: &impl Fn(&Reply) -> io::Result<()>,
) -> Result<(), LastingError> {
    let Some(kv) = answer.kv else { return Ok(()) };
    if seen.replace(kv.mod_revision) == Some(kv.mod_revision) {
        return Ok(());
    }
    let response = RangeResponse { header: answer.header, kvs: vec![kv], more: false, count: 1 };
    print(&Reply::Range(response, ValuesOnly(false))).map_err(LastingError::Output)
}

/// Go's client counts whole seconds, and no less than one.
fn whole_seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0).max(1))
}
