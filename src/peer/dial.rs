//! Connections that this node begins.
//!
//! Owns: one attempt at all of a member's addresses. Must never: decide when the next one is (`manager` does). Driven by `manager`.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
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
/// After so long the next address is dialled as well: a LAN has answered by then.
const STAGGER: Duration = Duration::from_millis(150);
/// TLS wants a name; nobody looks at it.
const NAME: &str = "covey";

/// One attempt.
pub(super) struct Attempt {
    pub(super) member: MemberId,
    pub(super) key: PublicKey,
    /// In the order in which they are dialled.
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) pause: Duration,
    /// Set once the pause is over: from here on the other end may already count on the connection.
    pub(super) begun: Arc<AtomicBool>,
    /// Tells this attempt from those before it.
    pub(super) number: u64,
}

/// Waits out the pause, tries the addresses, and reports.
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

/// One address after the other is dialled, and none is waited for: whoever says where somebody is could have all the others waited for. The first
/// connection that both ends have accepted is the one; the others end before they have been.
///
/// A refusal says more than that nobody was there, so that it is what is reported.
async fn reach(
    shared: &Arc<Shared>,
    attempt: &Attempt,
) -> Result<Established, (Option<SocketAddr>, Failure)> {
    let config =
        client(&shared.credentials, attempt.key).map_err(|error| (None, Failure::Lost(error.to_string())))?;
    let one_in_time = |(address, wait): (SocketAddr, Duration)| {
        let config = config.clone();
        Box::pin(async move {
            shared.host.sleep(wait).await;
            let late = async {
                shared.host.sleep(DIAL_TIMEOUT).await;
                Err(Failure::Lost("no answer".into()))
            };
            or(one(shared, attempt, address, config), late).await.map_err(|failure| (address, failure))
        })
    };
    let waits = (0..).map(|n| STAGGER * n);
    let mut tries: Vec<_> = attempt.addresses.iter().copied().zip(waits).map(one_in_time).collect();
    let mut worst = (None, Failure::Lost("no address is known".into()));
    poll_fn(|context| {
        let mut established = None;
        tries.retain_mut(|one| {
            // Whichever is polled after that could be accepted as well.
            if established.is_some() {
                return true;
            }
            match one.as_mut().poll(context) {
                Poll::Pending => return true,
                Poll::Ready(Ok(new)) => established = Some(new),
                Poll::Ready(Err((address, failure))) => {
                    if !matches!(worst.1, Failure::Refused { .. }) {
                        worst = (Some(address), failure);
                    }
                }
            }
            false
        });
        match established {
            Some(established) => Poll::Ready(Ok(established)),
            None if tries.is_empty() => Poll::Ready(Err(worst.clone())),
            None => Poll::Pending,
        }
    })
    .await
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
