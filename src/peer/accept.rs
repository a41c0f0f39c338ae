//! Connections that others begin.
//!
//! Owns: the way of a stranger from its first packet to an accepted hello. Must never: do more for an address than `gate` allows, or serve
//! a protocol that was not agreed on. Driven by the endpoint.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, Incoming};
use rustls_pki_types::CertificateDer;
use smol::future::or;

use super::endpoint::{self, canonical};
use super::forming::{self, Answerer, Heard};
use super::gate::{Admission, Shown};
use super::greet::{self, Failure, refuse, unfinished, why};
use super::hello::{Known, Refusal, RefusalKind};
use super::manager::{Established, Input};
use super::shared::Shared;
use super::trust::{ALPN_PEER, dialect_of, key_of};
use crate::ids::{MemberId, PublicKey};

/// From the first packet to the end of the hellos, or of a question.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(3);

/// Lets strangers in, one task each, for as long as the endpoint is open.
pub(super) async fn run(shared: Arc<Shared>) {
    while let Some(incoming) = endpoint::accept(&shared.endpoint, &shared.listen).await {
        let address = incoming.remote_address().ip();
        let is_proven = incoming.remote_address_validated();
        let admission = shared.gate().ask(shared.clock.now(), address, is_proven);
        match admission {
            Admission::Begin => {
                shared.counters.handshakes.fetch_add(1, Ordering::Relaxed);
                let place = Place { shared: Arc::clone(&shared), address, shown: Shown::Nothing };
                if let Some(task) = shared.host.spawn(welcome(place, incoming)) {
                    task.detach();
                }
            }
            Admission::Prove => {
                // It can only fail for an address that is proven.
                let _ = incoming.retry();
            }
            Admission::Ignore => {
                shared.counters.turned_away.fetch_add(1, Ordering::Relaxed);
                incoming.ignore();
            }
        }
    }
}

/// One handshake's share of the gate, however it ends.
struct Place {
    shared: Arc<Shared>,
    address: IpAddr,
    shown: Shown,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.gate().ended(self.address, self.shown);
    }
}

/// What somebody has come for.
enum Greeting {
    /// It is a member.
    Member(Established),
    /// It has a question, and is in no cluster or in another one.
    Question(Heard, Answerer),
}

async fn welcome(mut place: Place, incoming: Incoming) {
    let shared = Arc::clone(&place.shared);
    let address = canonical(incoming.remote_address());
    let mut member = None;
    let late = async {
        shared.host.sleep(WELCOME_TIMEOUT).await;
        Err(Failure::Lost("it took too long to say who it is".into()))
    };
    match or(greeted(&shared, incoming, &mut member), late).await {
        Ok(Greeting::Member(established)) => {
            place.shown = Shown::Right;
            let _ = shared.inputs.try_send(Input::Established(established));
        }
        Ok(Greeting::Question(heard, answerer)) => {
            place.shown = heard.shown;
            // It has said what it wants; what is answered may have to go through the log.
            or(forming::answer(heard, &answerer), shared.host.sleep(forming::TIMEOUT)).await;
        }
        Err(failure) => {
            let _ = shared.inputs.try_send(Input::NotWelcome { member, address, failure });
        }
    }
}

async fn greeted(
    shared: &Arc<Shared>,
    incoming: Incoming,
    member: &mut Option<MemberId>,
) -> Result<Greeting, Failure> {
    let connecting = incoming.accept().map_err(|error| why(&error))?;
    let connection = connecting.await.map_err(|error| unfinished(&error))?;
    let protocol = protocol_of(&connection);
    if let Some(dialect) = dialect_of(protocol.as_deref())
        && let Some((trust, answerer)) = &shared.forming
    {
        let heard = forming::hear(&connection, dialect, shared.own_key, trust).await;
        let heard = heard.ok_or_else(|| Failure::Lost("it asks, and has not shown that it may".into()))?;
        return Ok(Greeting::Question(heard, Arc::clone(answerer)));
    }
    if protocol.as_deref() != Some(ALPN_PEER) {
        let sentence = format!("member {} speaks another protocol with members", shared.own.member);
        return Err(refuse(&connection, Refusal { kind: RefusalKind::Version, sentence }));
    }
    // Looked up again after the handshake: the key may have been removed meanwhile.
    let key = shown_key(&connection);
    let Some((key, known)) = key.and_then(|key| Some((key, shared.pins.known(&key)?))) else {
        if let Some(removed) = key.and_then(|key| shared.pins.removed(&key)) {
            return Err(dismiss(shared, &connection, removed).await);
        }
        let sentence = format!("member {} does not know the key that was shown", shared.own.member);
        return Err(refuse(&connection, Refusal { kind: RefusalKind::Key, sentence }));
    };
    *member = Some(known.member);
    let greeted = greet::answer(&connection, &shared.own, &known).await?;
    Ok(Greeting::Member(Established { key, connection, greeted, attempt: None }))
}

/// Tells a member that it was removed; but first the two find out whether they are of one cluster and generation, since who hears it, stops.
async fn dismiss(shared: &Shared, connection: &Connection, member: MemberId) -> Failure {
    if let Err(failure) = greet::answer(connection, &shared.own, &Known { member, seen: None }).await {
        // Nothing that it says of this member, or against it, counts.
        return Failure::Lost(format!("member {member} was removed, and said: {failure}"));
    }
    refuse(connection, Refusal::removed(shared.own.member, member))
}

pub(super) fn protocol_of(connection: &Connection) -> Option<Vec<u8>> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    data.protocol
}

pub(super) fn shown_key(connection: &Connection) -> Option<PublicKey> {
    let shown = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    key_of(shown.first()?)
}
