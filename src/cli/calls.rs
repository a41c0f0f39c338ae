//! The calls behind the client commands.
//!
//! Owns: what is asked, and for how long. Must never: send a request twice, but for one whose token was not taken: that has done nothing. Driven by
//! `run`.

use std::future::Future;
use std::rc::Rc;

use http::Uri;
use smol::{LocalExecutor, Timer};
use tonic::{Request, Response, Status};

use super::EXIT_FAILED;
use super::access;
use super::args::{ClientSettings, EXIT_BAD_ARGUMENTS, Endpoint};
use super::client::{Channel, ConnectError, connect};
use super::endpoints::status;
use super::reach::{endpoints, first_reachable};
use super::reply::{Reply, ValuesOnly};
use crate::wire::etcdserverpb::alarm_request::AlarmAction;
use crate::wire::etcdserverpb::auth_client::AuthClient;
use crate::wire::etcdserverpb::cluster_client::ClusterClient;
use crate::wire::etcdserverpb::kv_client::KvClient;
use crate::wire::etcdserverpb::lease_client::LeaseClient;
use crate::wire::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::wire::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, CompactionRequest, DeleteRangeRequest, LeaseGrantRequest,
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
    MemberUpdateRequest, MoveLeaderRequest, PutRequest, RangeRequest, TxnRequest,
};

/// etcdctl's exit code of a command that has no connection to ask through.
const EXIT_BAD_CONNECTION: u8 = 2;

/// What to ask for.
#[derive(Clone, Debug)]
pub enum Call {
    /// `get`; whether only values are wanted.
    Range(RangeRequest, ValuesOnly),
    /// `put`
    Put(PutRequest),
    /// `del`
    Delete(DeleteRangeRequest),
    /// `txn`
    Txn(TxnRequest),
    /// `compact`
    Compact(CompactionRequest),
    /// `lease grant`
    LeaseGrant(LeaseGrantRequest),
    /// `lease revoke`
    LeaseRevoke(i64),
    /// `lease timetolive`; whether the keys are wanted.
    LeaseTimeToLive(i64, bool),
    /// `lease keep-alive --once`
    LeaseKeepAlive(i64),
    /// `lease list`
    Leases,
    /// `alarm list`
    AlarmList,
    /// `alarm disarm`, of all alarms.
    AlarmDisarm,
    /// `auth`, `user` and `role`
    Access(access::Question),
    /// `member list`
    Members,
    /// `member add`, with the name that the node will have.
    MemberAdd(String, MemberAddRequest),
    /// `member remove`
    MemberRemove(u64),
    /// `member update`
    MemberUpdate(MemberUpdateRequest),
    /// `member promote`
    MemberPromote(u64),
    /// `move-leader`
    MoveLeader(u64),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No endpoint could be reached; this is the last one's reason.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server said no, in its words.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// None of the endpoints is the leader's. etcdctl's words.
    #[error("no leader endpoint given at [{0}]")]
    NoLeader(String),
    /// The answer took too long; a write may have happened all the same.
    #[error("context deadline exceeded")]
    TimedOut,
    /// What came of granting or revoking a lease, in etcdctl's words.
    #[error("failed to {0} lease ({1})")]
    OfLease(&'static str, Box<CallError>),
    /// What came of asking for a lease, or renewing one, which etcdctl tells apart by its exit code.
    #[error(transparent)]
    AboutLease(Box<CallError>),
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl CallError {
    /// etcdctl's exit code: whoever is not let in has no connection.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Connect(ConnectError::Refused(_)) | Self::AboutLease(_) => EXIT_BAD_CONNECTION,
            Self::NoLeader(_) => EXIT_BAD_ARGUMENTS,
            _ => EXIT_FAILED,
        }
    }

    /// As etcdctl tells it of such a call.
    fn of_call(self, call: &Call) -> Self {
        match call {
            // Nothing was asked.
            _ if matches!(self, Self::Connect(_)) => self,
            Call::LeaseGrant(_) => Self::OfLease("grant", Box::new(self)),
            Call::LeaseRevoke(_) => Self::OfLease("revoke", Box::new(self)),
            Call::LeaseTimeToLive(..) | Call::LeaseKeepAlive(_) | Call::Leases => {
                Self::AboutLease(Box::new(self))
            }
            _ => self,
        }
    }
}

/// Connects and asks.
pub fn perform(settings: &ClientSettings, call: Call) -> Result<Reply, CallError> {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        if let Call::MoveLeader(heir) = call {
            return move_leader(&executor, settings, heir).await;
        }
        let answer = ask_first(&executor, settings, call.clone()).await;
        let answer = match answer {
            Err(CallError::Refused(status)) if settings.credentials.is_some() && is_token_stale(&status) => {
                ask_first(&executor, settings, call.clone()).await
            }
            answer => answer,
        };
        answer.map_err(|error| error.of_call(&call))
    }))
}

/// Asks the first that can be reached, with a token of its own.
async fn ask_first(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &ClientSettings,
    call: Call,
) -> Result<Reply, CallError> {
    let (channel, endpoint) = first_reachable(executor, settings).await?;
    within_timeout(settings, unary(channel, &endpoint, settings, call)).await
}

/// Whether a server has refused a token, for which there can be a new one: it was restarted, who may do what has changed, or the token is too old.
/// Nothing was done.
pub fn is_token_stale(status: &Status) -> bool {
    const STALE: [&str; 3] = [
        "etcdserver: invalid auth token",
        "etcdserver: revision of auth store is old",
        "etcdserver: user name is empty",
    ];
    STALE.contains(&status.message())
}

async fn unary(
    channel: Channel,
    endpoint: &Endpoint,
    settings: &ClientSettings,
    call: Call,
) -> Result<Reply, CallError> {
    let client_of_cluster = ClusterClient::with_origin(channel.clone(), origin(endpoint));
    let client_of_leases = LeaseClient::with_origin(channel.clone(), origin(endpoint));
    let mut client =
        KvClient::with_origin(channel.clone(), origin(endpoint)).max_decoding_message_size(usize::MAX);
    let answer = match call {
        Call::Range(request, values_only) => {
            client.range(timed(settings, request)).await.map(|r| Reply::Range(r.into_inner(), values_only))
        }
        Call::Put(request) => client.put(timed(settings, request)).await.map(inner(Reply::Put)),
        Call::Delete(request) => {
            client.delete_range(timed(settings, request)).await.map(inner(Reply::Delete))
        }
        Call::Txn(request) => client.txn(timed(settings, request)).await.map(inner(Reply::Txn)),
        Call::Compact(request) => {
            let revision = request.revision;
            client.compact(timed(settings, request)).await.map(|_| Reply::Compacted(revision))
        }
        Call::AlarmList => {
            let mut client = MaintenanceClient::with_origin(channel, origin(endpoint));
            client.alarm(timed(settings, every_alarm())).await.map(inner(Reply::Alarms))
        }
        Call::AlarmDisarm => {
            let client = MaintenanceClient::with_origin(channel, origin(endpoint));
            disarm(client, settings).await.map(Reply::Alarms)
        }
        Call::Access(question) => {
            let client = AuthClient::with_origin(channel, origin(endpoint));
            access::ask(client, settings, question).await.map(Reply::Access)
        }
        Call::MoveLeader(_) => unreachable!("it asks every endpoint"),
        Call::Members
        | Call::MemberAdd(..)
        | Call::MemberRemove(_)
        | Call::MemberUpdate(_)
        | Call::MemberPromote(_) => return members(client_of_cluster, settings, call).await,
        lease => return leases(client_of_leases, settings, lease).await,
    };
    answer.map_err(refused)
}

fn every_alarm() -> AlarmRequest {
    AlarmRequest { action: AlarmAction::Get as i32, ..AlarmRequest::default() }
}

/// Clears each alarm that is listed: a request that names none clears none. What is answered is what was cleared.
async fn disarm(
    mut client: MaintenanceClient<Channel>,
    settings: &ClientSettings,
) -> Result<AlarmResponse, Status> {
    let mut cleared = client.alarm(timed(settings, every_alarm())).await?.into_inner();
    for AlarmMember { member_id, alarm } in std::mem::take(&mut cleared.alarms) {
        let request = AlarmRequest { action: AlarmAction::Deactivate as i32, member_id, alarm };
        let answer = client.alarm(timed(settings, request)).await?.into_inner();
        cleared.header = answer.header;
        cleared.alarms.extend(answer.alarms);
    }
    Ok(cleared)
}

async fn leases(
    mut client: LeaseClient<Channel>,
    settings: &ClientSettings,
    call: Call,
) -> Result<Reply, CallError> {
    let answer = match call {
        Call::LeaseGrant(request) => {
            client.lease_grant(timed(settings, request)).await.map(inner(Reply::LeaseGranted))
        }
        Call::LeaseRevoke(id) => client
            .lease_revoke(timed(settings, LeaseRevokeRequest { id }))
            .await
            .map(inner(|response| Reply::LeaseRevoked(id, response))),
        Call::LeaseTimeToLive(id, keys) => client
            .lease_time_to_live(timed(settings, LeaseTimeToLiveRequest { id, keys }))
            .await
            .map(inner(|response| Reply::LeaseTimeToLive(response, keys))),
        Call::LeaseKeepAlive(id) => match renew(&mut client, settings, id).await {
            Ok(response) if response.ttl > 0 => Ok(Reply::LeaseKeptAlive(response)),
            Ok(_) => Err(Status::not_found("etcdserver: requested lease not found")),
            Err(status) => Err(status),
        },
        _ => client.lease_leases(timed(settings, LeaseLeasesRequest {})).await.map(inner(Reply::Leases)),
    };
    answer.map_err(refused)
}

async fn members(
    mut client: ClusterClient<Channel>,
    settings: &ClientSettings,
    call: Call,
) -> Result<Reply, CallError> {
    let answer = match call {
        Call::MemberAdd(name, request) => client
            .member_add(timed(settings, request))
            .await
            .map(inner(|response| Reply::MemberAdded(name, response))),
        Call::MemberRemove(id) => client
            .member_remove(timed(settings, MemberRemoveRequest { id }))
            .await
            .map(inner(|response| Reply::MemberRemoved(id, response))),
        Call::MemberUpdate(request) => {
            let id = request.id;
            let answer = client.member_update(timed(settings, request)).await;
            answer.map(inner(|response| Reply::MemberUpdated(id, response)))
        }
        Call::MemberPromote(id) => client
            .member_promote(timed(settings, MemberPromoteRequest { id }))
            .await
            .map(inner(|response| Reply::MemberPromoted(id, response))),
        _ => {
            let request = MemberListRequest { linearizable: true };
            client.member_list(timed(settings, request)).await.map(inner(Reply::Members))
        }
    };
    answer.map_err(refused)
}

/// Renews a lease once; a TTL of 0 says that there is none.
pub async fn renew(
    client: &mut LeaseClient<Channel>,
    settings: &ClientSettings,
    id: i64,
) -> Result<LeaseKeepAliveResponse, Status> {
    let requests = smol::stream::once(LeaseKeepAliveRequest { id });
    let answer = client.lease_keep_alive(timed(settings, requests)).await?.into_inner().message().await?;
    answer.ok_or_else(|| Status::unavailable("the server ended the renewal without an answer"))
}

/// Only the leader hands over: it is looked for among the endpoints. One that is not there is passed over.
async fn move_leader(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &ClientSettings,
    heir: u64,
) -> Result<Reply, CallError> {
    let endpoints = endpoints(executor, settings).await?;
    for endpoint in &endpoints {
        let Ok(status) = status(executor, settings, endpoint).await else { continue };
        if status.header.is_none_or(|header| header.member_id != status.leader) {
            continue;
        }
        let channel = connect(executor, settings, endpoint).await?;
        let mut client = MaintenanceClient::with_origin(channel, origin(endpoint));
        let request = MoveLeaderRequest { target_id: heir };
        let response = answered(settings, client.move_leader(timed(settings, request))).await?;
        return Ok(Reply::LeaderMoved { from: status.leader, to: heir, response });
    }
    let given: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.text.as_str()).collect();
    Err(CallError::NoLeader(given.join(" ")))
}

fn inner<T>(wrap: impl FnOnce(T) -> Reply) -> impl FnOnce(Response<T>) -> Reply {
    |response| wrap(response.into_inner())
}

/// The server is told when to give up, too.
pub fn timed<T>(settings: &ClientSettings, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(settings.command_timeout);
    request
}

/// The answer of a call, as long as it is waited for.
pub async fn answered<T>(
    settings: &ClientSettings,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CallError> {
    within_timeout(settings, async { Ok(call.await?.into_inner()) }).await
}

/// What comes later than the setting allows is not waited for.
pub async fn within_timeout<T>(
    settings: &ClientSettings,
    answer: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    let late = async {
        Timer::after(settings.command_timeout).await;
        Err(CallError::TimedOut)
    };
    smol::future::or(answer, late).await
}

fn refused(status: Status) -> CallError {
    status.into()
}

/// Scheme and authority, which HTTP/2 wants in each request.
pub fn origin(endpoint: &Endpoint) -> Uri {
    let host =
        if endpoint.host.contains(':') { format!("[{}]", endpoint.host) } else { endpoint.host.clone() };
    let scheme = if endpoint.tls { "https" } else { "http" };
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(format!("{host}:{}", endpoint.port))
        .path_and_query("/")
        .build();
    uri.expect("an endpoint has been checked to be a host and a port")
}

#[cfg(test)]
#[path = "calls_test.rs"]
mod tests;
