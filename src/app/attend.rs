//! The ports of a node that looks for others, or waits for them, to form a cluster.
//!
//! Owns: which sockets are listened on meanwhile. Must never: outlive the wait: the sockets are the cluster's then. Driven by `gather` and `forming`.

use std::pin::Pin;
use std::rc::Rc;

use smol::future::or;
use smol::{Async, LocalExecutor};

use super::listeners::Port;
use super::reload::Reload;
use super::serve::ServeFailure;
use super::supervisor::WAITS;
use crate::api::Waiting;
use crate::config::PeerConfig;
use crate::peer::Trust;
use crate::runtime::clock::Clock;

/// What a node without a cluster is told from outside.
pub(super) struct Outside<'a> {
    /// What it is called.
    pub(super) name: &'a str,
    pub(super) config: &'a PeerConfig,
    /// Who is worth listening to.
    pub(super) trust: Trust,
    /// Where clients and probes will be served, and operators and probes are.
    pub(super) ports: Vec<Port>,
    pub(super) clock: Clock,
    pub(super) reload: Rc<Reload>,
}

/// Answers whoever asks at the client port, for ever. Nothing of that is left once the executor is gone.
pub(super) async fn attend_operators<T>(
    executor: &LocalExecutor<'static>,
    waiting: Waiting,
    ports: Vec<Port>,
    reload: Rc<Reload>,
) -> Result<T, ServeFailure> {
    let supervisor = reload.supervisor.clone();
    executor.spawn(async move { reload.attend(None, || WAITS.to_owned()).await }).detach();
    executor.spawn(async move { supervisor.wait_for_others().await }).detach();
    let attend = async |Port { listener, serves, plaintext }: Port| -> T {
        match Async::new(listener) {
            Ok(listener) => {
                waiting.serve(&listener, serves, plaintext, |task| executor.spawn(task).detach()).await;
            }
            Err(error) => tracing::warn!(%error, "operators are not answered before there is a cluster"),
        }
        std::future::pending().await
    };
    let nobody: Pin<Box<dyn Future<Output = T>>> = Box::pin(std::future::pending());
    let all = ports.into_iter().fold(nobody, |others, port| Box::pin(or(others, attend(port))));
    Ok(all.await)
}
