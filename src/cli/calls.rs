//! The calls behind the client commands.
//!
//! Owns: which endpoint is asked, and for how long. Must never: send a request twice. Driven by `run`.

use std::future::Future;
use std::rc::Rc;

use http::Uri;
use smol::{LocalExecutor, Timer};
use tonic::{Request, Response, Status};

use super::args::{ClientSettings, Endpoint};
use super::client::{Channel, ConnectError, connect};
use super::reply::{Reply, ValuesOnly};
use crate::wire::etcdserverpb::kv_client::KvClient;
use crate::wire::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::wire::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, StatusRequest, TxnRequest,
};

/// What to ask for.
#[derive(Debug)]
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
    /// `status`
    Status,
}

/// Why there is no answer; exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No endpoint could be reached; this is the last one's reason.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server said no, in its words.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// The answer took too long; a write may have happened all the same.
    #[error("context deadline exceeded")]
    TimedOut,
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// Connects and asks.
pub fn perform(settings: &ClientSettings, call: Call) -> Result<Reply, CallError> {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        match call {
            Call::Status => statuses(&executor, settings).await,
            call => {
                let (channel, endpoint) = first_reachable(&executor, settings).await?;
                within_timeout(settings, unary(channel, endpoint, settings, call)).await
            }
        }
    }))
}

/// Connects to the first endpoint that lets us.
async fn first_reachable<'a>(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &'a ClientSettings,
) -> Result<(Channel, &'a Endpoint), ConnectError> {
    let (last, others) = settings.endpoints.split_last().expect("there is at least one endpoint");
    for endpoint in others {
        if let Ok(channel) = connect(executor, settings, endpoint).await {
            return Ok((channel, endpoint));
        }
    }
    Ok((connect(executor, settings, last).await?, last))
}

async fn unary(
    channel: Channel,
    endpoint: &Endpoint,
    settings: &ClientSettings,
    call: Call,
) -> Result<Reply, CallError> {
    let mut client = KvClient::with_origin(channel, origin(endpoint)).max_decoding_message_size(usize::MAX);
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
        Call::Status => unreachable!("status asks every endpoint"),
    };
    answer.map_err(refused)
}

/// Asks each endpoint; one that does not answer fails the command, after the others were asked.
async fn statuses(
    executor: &Rc<LocalExecutor<'static>>,
    settings: &ClientSettings,
) -> Result<Reply, CallError> {
    let mut answers = Vec::new();
    for endpoint in &settings.endpoints {
        let channel = connect(executor, settings, endpoint).await?;
        let ask = async {
            let mut client = MaintenanceClient::with_origin(channel, origin(endpoint));
            client.status(timed(settings, StatusRequest {})).await.map_err(refused)
        };
        answers.push((endpoint.text.clone(), within_timeout(settings, ask).await?.into_inner()));
    }
    Ok(Reply::Status(answers))
}

fn inner<T>(wrap: impl FnOnce(T) -> Reply) -> impl FnOnce(Response<T>) -> Reply {
    |response| wrap(response.into_inner())
}

/// The server is told when to give up, too.
fn timed<T>(settings: &ClientSettings, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(settings.command_timeout);
    request
}

async fn within_timeout<T>(
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
