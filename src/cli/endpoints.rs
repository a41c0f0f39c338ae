//! What is asked of each endpoint by itself: `endpoint status|health|hashkv` and `defrag`.
//!
//! Owns: which endpoints, and what is said of one that does not answer. Must never: let one of them keep the others from being asked. Driven by
//! `run`.

use std::io;
use std::rc::Rc;

use bytes::Bytes;
use smol::LocalExecutor;
use tonic::Code;

use super::args::{ClientSettings, Endpoint, Parsed, UsageError, endpoint};
use super::calls::{CallError, answered, origin, timed};
use super::client::{Channel, connect};
use super::progress::Progress;
use super::reach::{endpoints, first_reachable};
use super::reply::{Health, Reply};
use super::requests::revision;
use super::spec::{Command, ENDPOINT_STATUS};
use super::spec_upkeep::{DEFRAG, ENDPOINT_HASHKV, ENDPOINT_HEALTH};
use crate::runtime::clock::Clock;
use crate::time::Instant;
use crate::wire::etcdserverpb::alarm_request::AlarmAction;
use crate::wire::etcdserverpb::cluster_client::ClusterClient;
use crate::wire::etcdserverpb::kv_client::KvClient;
use crate::wire::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::wire::etcdserverpb::{
    AlarmRequest, AlarmType, DefragmentRequest, HashKvRequest, HashKvResponse, MemberListRequest,
    RangeRequest, StatusRequest, StatusResponse,
};

/// A key that is read to see whether the cluster agrees on anything. It need not be there, nor be readable.
const PROBE: &[u8] = b"health";
/// What is said when a member is not well. etcdctl's words.
const UNHEALTHY: &str = "unhealthy cluster";

/// What to ask each endpoint.
#[derive(Clone, Copy, Debug)]
pub enum Question {
    /// `endpoint status`
    Status,
    /// `endpoint health`
    Health,
    /// `endpoint hashkv`, at this revision.
    HashKv(i64),
    /// `defrag`
    Defragment,
}

/// What to ask, and whom.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    question: Question,
    /// Whether the cluster says which endpoints there are.
    everywhere: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Asked {
    /// To be printed.
    pub reply: Option<Reply>,
    /// What went wrong, a line for each endpoint.
    pub complaints: Vec<String>,
    /// What is said at the end of a command that has failed.
    pub verdict: Option<String>,
}

/// What the arguments ask for, where the command is one of these.
pub fn job(command: &Command, parsed: &Parsed) -> Result<Option<Job>, UsageError> {
    let (question, refusal) = match command.name {
        name if name == ENDPOINT_STATUS.name => {
            (Question::Status, "endpoint status command does not accept any arguments")
        }
        name if name == ENDPOINT_HEALTH.name => {
            (Question::Health, "endpoint health command does not accept any arguments")
        }
        name if name == ENDPOINT_HASHKV.name => {
            let revision = parsed.parse("rev", revision)?.unwrap_or(0);
            (Question::HashKv(revision), "endpoint hashkv command does not accept any arguments")
        }
        name if name == DEFRAG.name => (Question::Defragment, "defrag command does not accept any arguments"),
        _ => return Ok(None),
    };
    if !parsed.arguments.is_empty() {
        return Err(UsageError::Arguments(refusal));
    }
    Ok(Some(Job { question, everywhere: parsed.switch("cluster")? }))
}

/// Asks. `say` prints a line at once.
pub fn perform(
    settings: &ClientSettings,
    job: Job,
    say: impl Fn(&str) -> io::Result<()>,
) -> Result<Asked, AskError> {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        let endpoints = if job.everywhere {
            listed(&executor, settings).await?
        } else {
            endpoints(&executor, settings).await.map_err(CallError::from)?
        };
        match job.question {
            Question::Status => Ok(statuses(&executor, settings, &endpoints).await),
            Question::Health => Ok(healths(&executor, settings, &endpoints).await),
            Question::HashKv(revision) => Ok(hashes(&executor, settings, &endpoints, revision).await),
            Question::Defragment => {
                defragment(&executor, settings, &endpoints, say).await.map_err(AskError::Output)
            }
        }
    }))
}

/// Why nobody was asked, or nobody was told.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No answer where one was needed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Who the members are could not be found out. etcdctl's words.
    #[error("failed to fetch endpoints from etcd cluster member list: {0}")]
    Members(CallError),
    /// A member says where it is in a way that nobody can connect to.
    #[error(transparent)]
    Endpoint(UsageError),
    /// Nobody reads what is printed.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

/// All client URLs of all members.
async fn listed(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &ClientSettings,
) -> Result<Vec<Endpoint>, AskError> {
    let (channel, asked) = first_reachable(executor, settings).await.map_err(CallError::from)?;
    let mut client = ClusterClient::with_origin(channel, origin(&asked));
    let request = timed(settings, MemberListRequest { linearizable: true });
    let answer = answered(settings, client.member_list(request)).await.map_err(AskError::Members)?;
    let urls = answer.members.iter().flat_map(|member| &member.client_urls);
    urls.map(|url| endpoint(url, asked.tls).map_err(AskError::Endpoint)).collect()
}

async fn statuses(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &ClientSettings,
    endpoints: &[Endpoint],
) -> Asked {
    let (mut answers, mut complaints) = (Vec::new(), Vec::new());
    for endpoint in endpoints {
        match status(executor, settings, endpoint).await {
            Ok(answer) => answers.push((endpoint.text.clone(), answer)),
            Err(error) => {
                complaints.push(format!("Failed to get the status of endpoint {} ({error})", endpoint.text));
            }
        }
    }
    Asked { reply: Some(Reply::Status(answers)), complaints, verdict: None }
}

/// How one endpoint stands.
pub async fn status(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &ClientSettings,
    endpoint: &Endpoint,
) -> Result<StatusResponse, CallError> {
    let mut client = maintenance(connect(executor, settings, endpoint).await?, endpoint);
    answered(settings, client.status(timed(settings, StatusRequest {}))).await
}

async fn hashes(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &ClientSettings,
    endpoints: &[Endpoint],
    revision: i64,
) -> Asked {
    let (mut answers, mut complaints, mut verdict) = (Vec::new(), Vec::new(), None);
    for endpoint in endpoints {
        match hash(executor, settings, endpoint, revision).await {
            Ok(answer) => answers.push((endpoint.text.clone(), answer)),
            Err(error) => {
                complaints.push(format!("Failed to get the hash of endpoint {} ({error})", endpoint.text));
                verdict = Some(error.to_string());
            }
        }
    }
    Asked { reply: Some(Reply::Hashes(answers)), complaints, verdict }
}

async fn hash(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &ClientSettings,
    endpoint: &Endpoint,
    revision: i64,
) -> Result<HashKvResponse, CallError> {
    let mut client = maintenance(connect(executor, settings, endpoint).await?, endpoint);
    let request = timed(settings, HashKvRequest { revision });
    answered(settings, client.hash_kv(request)).await
}

/// All at once: one that is away takes its whole timeout.
async fn healths(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &ClientSettings,
    endpoints: &[Endpoint],
) -> Asked {
    let ask = |endpoint: &Endpoint| {
        let (on, settings, endpoint) = (Rc::clone(executor), settings.clone(), endpoint.clone());
        executor.spawn(async move {
            let clock = Clock::start();
            let error = healthy(&on, &settings, &endpoint).await.err();
            Health { endpoint: endpoint.text, took: clock.now().since(Instant::default()), error }
        })
    };
    let asked: Vec<_> = endpoints.iter().map(ask).collect();
    let mut healths = Vec::new();
    for each in asked {
        healths.push(each.await);
    }
    let mut complaints = Vec::new();
    if settings.format.is_simple() {
        for health in &healths {
            if let Some(error) = &health.error {
                let endpoint = &health.endpoint;
                complaints.push(format!("{endpoint} is unhealthy: failed to commit proposal: {error}"));
            }
        }
    }
    let is_well = healths.iter().all(|health| health.error.is_none());
    let verdict = (!is_well).then(|| UNHEALTHY.to_owned());
    Asked { reply: Some(Reply::Health(healths)), complaints, verdict }
}

/// A member is well that can read at the cluster's latest state and knows of no alarm.
async fn healthy(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &ClientSettings,
    endpoint: &Endpoint,
) -> Result<(), String> {
    let channel = connect(executor, settings, endpoint).await.map_err(|error| error.to_string())?;
    let probe = RangeRequest { key: Bytes::from_static(PROBE), ..RangeRequest::default() };
    let mut client = KvClient::with_origin(channel.clone(), origin(endpoint));
    match answered(settings, client.range(timed(settings, probe))).await {
        // Whoever is not allowed to read it is told so by a cluster that agrees.
        Err(CallError::Refused(status)) if status.code() == Code::PermissionDenied => {}
        Err(error) => return Err(error.to_string()),
        Ok(_) => {}
    }
    let mut client = maintenance(channel, endpoint);
    let list = AlarmRequest { action: AlarmAction::Get as i32, ..AlarmRequest::default() };
    let Ok(answer) = answered(settings, client.alarm(timed(settings, list))).await else {
        return Err("Unable to fetch the alarm list".to_owned());
    };
    let alarms = answer.alarms;
    if alarms.is_empty() {
        return Ok(());
    }
    let name = |alarm: i32| match AlarmType::try_from(alarm) {
        Ok(AlarmType::Nospace) => "NOSPACE ",
        Ok(AlarmType::Corrupt) => "CORRUPT ",
        Ok(AlarmType::None) | Err(_) => "UNKNOWN ",
    };
    Err(alarms.iter().fold("Active Alarm(s): ".to_owned(), |text, member| text + name(member.alarm)))
}

async fn defragment(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &ClientSettings,
    endpoints: &[Endpoint],
    say: impl Fn(&str) -> io::Result<()>,
) -> io::Result<Asked> {
    let mut complaints = Vec::new();
    for endpoint in endpoints {
        let name = &endpoint.text;
        let progress = Progress::begin(&format!("defragmenting {name}"));
        let done = defragment_one(executor, settings, endpoint).await;
        drop(progress);
        match done {
            Ok(()) => say(&format!("Finished defragmenting etcd member[{name}]"))?,
            Err(error) => complaints.push(format!("Failed to defragment etcd member[{name}] ({error})")),
        }
    }
    Ok(Asked { reply: None, complaints, verdict: None })
}

async fn defragment_one(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &ClientSettings,
    endpoint: &Endpoint,
) -> Result<(), CallError> {
    let mut client = maintenance(connect(executor, settings, endpoint).await?, endpoint);
    let request = timed(settings, DefragmentRequest {});
    answered(settings, client.defragment(request)).await.map(drop)
}

fn maintenance(channel: Channel, endpoint: &Endpoint) -> MaintenanceClient<Channel> {
    MaintenanceClient::with_origin(channel, origin(endpoint))
}
