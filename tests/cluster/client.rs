//! Clients of one member over a connection of their own.
//!
//! Owns: the shortest way to a request. Must never: retry: an outcome may be unknown.

use std::time::Duration;

use covey::wire::etcdserverpb as pb;
use pb::cluster_client::ClusterClient;
use pb::kv_client::KvClient;
use pb::maintenance_client::MaintenanceClient;
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;
use smol::stream::{self, Stream, StreamExt as _};
use smol::{Async, Timer};
use tonic::{Request, Status, Streaming};

use crate::channel::Channel;
use crate::process::Host;

pub async fn channel(host: &Host) -> Result<Channel, Status> {
    channel_to(&host.endpoint).await
}

pub async fn channel_to(endpoint: &str) -> Result<Channel, Status> {
    let unavailable = |error: &dyn std::error::Error| Status::unavailable(error.to_string());
    let address: std::net::SocketAddr = endpoint.parse().unwrap();
    let stream = Async::<std::net::TcpStream>::connect(address).await.map_err(|error| unavailable(&error))?;
    // As every client of gRPC does: without it the second write of a connection waits for an acknowledgement that takes its time.
    stream.get_ref().set_nodelay(true).map_err(|error| unavailable(&error))?;
    Channel::over(stream).await.map_err(|error| unavailable(&error))
}

pub async fn kv_client(host: &Host) -> Result<KvClient<Channel>, Status> {
    Ok(KvClient::new(channel(host).await?))
}

pub async fn cluster_client(host: &Host) -> Result<ClusterClient<Channel>, Status> {
    Ok(ClusterClient::new(channel(host).await?))
}

pub async fn maintenance_client(host: &Host) -> Result<MaintenanceClient<Channel>, Status> {
    Ok(MaintenanceClient::new(channel(host).await?))
}

/// Puts one key; the revision.
pub async fn put(host: &Host, key: &str, value: &str) -> Result<i64, Status> {
    let request =
        pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
    let response = kv_client(host).await?.put(request).await?.into_inner();
    Ok(response.header.unwrap().revision)
}

/// A stream with one watcher, on which more may be asked.
pub async fn watch(
    host: &Host,
    create: pb::WatchCreateRequest,
    more: impl Stream<Item = pb::WatchRequest> + Send + 'static,
    needs_leader: bool,
) -> Streaming<pb::WatchResponse> {
    let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let mut request = Request::new(stream::once(create).chain(more));
    if needs_leader {
        request.metadata_mut().insert("hasleader", "true".parse().unwrap());
    }
    let mut client = WatchClient::new(channel(host).await.unwrap());
    let mut responses = client.watch(request).await.unwrap().into_inner();
    let created = responses.message().await.unwrap().unwrap();
    assert!(created.created && !created.canceled, "{created:?}");
    responses
}

/// What comes of something that may take too long; None if it does.
pub async fn in_time<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let late = async {
        Timer::after(limit).await;
        None
    };
    smol::future::or(async { Some(work.await) }, late).await
}
