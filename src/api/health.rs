//! gRPC's health service (API reference, section 5.6).
//!
//! Owns: the state of the one service that is known to it, the server as a whole. Must never: ask the node: being up is the state,
//! and whether the cluster has a leader is another question, asked elsewhere. Driven by `dispatch`.

use std::pin::Pin;

use smol::stream::{self, Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::stop::Stopping;
use crate::wire::grpc::health::v1::health_check_response::ServingStatus;
use crate::wire::grpc::health::v1::health_server::Health;
use crate::wire::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse};

/// Serves `grpc.health.v1.Health`.
pub struct HealthService {
    stopping: Stopping,
}

impl HealthService {
    /// Healthy until the end is announced.
    pub fn new(stopping: Stopping) -> Self {
        Self { stopping }
    }
}

fn now(stopping: &Stopping) -> ServingStatus {
    if stopping.is_announced() { ServingStatus::NotServing } else { ServingStatus::Serving }
}

fn message(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !request.into_inner().service.is_empty() {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(message(now(&self.stopping))))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = request.into_inner().service.is_empty();
        let stopping = self.stopping.clone();
        let first = if known { now(&stopping) } else { ServingStatus::ServiceUnknown };
        // An unknown service may come to exist, as far as the protocol goes, so its stream stays open too.
        let last = async move {
            stopping.announced().await;
            ServingStatus::NotServing
        };
        let states = stream::once(first).chain(stream::once_future(last)).map(|state| Ok(message(state)));
        Ok(Response::new(Box::pin(states)))
    }
}
