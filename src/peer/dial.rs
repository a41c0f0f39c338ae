//! Connections that this node begins.
//!
//! Owns: one attempt at all of a member's addresses. Must never: decide when the next one is (`manager` does). Driven by `manager`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quinn::ClientConfig;
use smol::future::or;

use super::endpoint::client;
use super::greet::{self, Failure, unfinished};
use super::hello::Known;
use super::manager::{Established, Input};
use super::shared::Shared;
use crate::ids::{MemberId, PublicKey};

/// For one address, from the first packet to the end of the hellos.
const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// TLS wants a name; nobody looks at it.
const NAME: &str = "covey";

/// One attempt.
pub(super) struct Attempt {
    pub(super) member: MemberId,
    pub(super) key: PublicKey,
    /// In the order in which they are tried.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) pause: Duration,
    /// Set once the pause is over: from here on the other end may already count on the connection.
    pub(super) begun: Arc<AtomicBool>,
    /// Tells this attempt from those before it.
    pub(super) number: u64,
}

/// Waits out the pause, tries the addresses one after the other, and reports.
pub(super) async fn run(shared: Arc<Shared>, attempt: Attempt) {
    if !attempt.pause.is_zero() {
        shared.host.sleep(attempt.pause).await;
    }
    attempt.begun.store(true, Ordering::Relaxed);
    let (member, number) = (attempt.member, attempt.number);
    let input = match reach(&shared, &attempt).await {
        Ok(established) => Input::Established(established),
        Err((address, failure)) => Input::DialFailed { member, number, address, failure },
    };
    let _ = shared.inputs.try_send(input);
}

/// A refusal says more than that nobody was there, so that it is what is reported.
async fn reach(
    shared: &Arc<Shared>,
    attempt: &Attempt,
) -> Result<Established, (Option<SocketAddr>, Failure)> {
    let mut worst = (None, Failure::Lost("no address is known".into()));
    let config =
        client(&shared.credentials, attempt.key).map_err(|error| (None, Failure::Lost(error.to_string())))?;
    for &address in &attempt.addresses {
        let late = async {
            shared.host.sleep(DIAL_TIMEOUT).await;
            Err(Failure::Lost("no answer".into()))
        };
        match or(one(shared, attempt, address, config.clone()), late).await {
            Ok(established) => return Ok(established),
            Err(failure) => {
                if !matches!(worst.1, Failure::Refused { .. }) {
                    worst = (Some(address), failure);
                }
            }
        }
    }
    Err(worst)
}

async fn one(
    shared: &Arc<Shared>,
    attempt: &Attempt,
    address: SocketAddr,
    config: ClientConfig,
) -> Result<Established, Failure> {
    let lost = |error: &dyn std::error::Error| Failure::Lost(error.to_string());
    let connecting = shared.endpoint.connect_with(config, address, NAME).map_err(|error| lost(&error))?;
    let connection = connecting.await.map_err(|error| unfinished(&error))?;
    let seen = shared.pins.known(&attempt.key).and_then(|known| known.seen);
    let known = Known { member: attempt.member, seen };
    let greeted = greet::dial(&connection, &shared.own, &known).await?;
    Ok(Established { key: attempt.key, connection, greeted, attempt: Some(attempt.number) })
}
