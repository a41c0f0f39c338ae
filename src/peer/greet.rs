//! The first exchange on a connection, and what the end of one means.
//!
//! Owns: the order of the hellos, and which error is a refusal. Must never: use a connection before both ends have accepted each other:
//! QUIC lets the one who dials write before it was judged. Driven by `accept` and `dial`.
//!
//! ```text
//! who dials                                     who was dialled
//!    hello ──────────────────────────────────────► judges
//!   judges ◄────────────────────────────────────── hello
//! accepted ──────────────────────────────────────► in use
//! ```
//! Instead of its next step, either may close the connection with a refusal's code and sentence.

use quinn::{Connection, ConnectionError, ReadExactError, RecvStream, SendStream, VarInt};

use super::events::RefusedBy;
use super::frame::{LENGTH_BYTES, frame};
use super::hello::{HELLO_FRAME_MAX, Hello, Known, Refusal, RefusalKind, judge};
use super::trust::sentence_of;
use crate::formation::Identity;

/// Application error codes that refuse nobody.
pub(super) const CLOSED_STOPPING: u32 = 0;
pub(super) const CLOSED_REPLACED: u32 = 1;
pub(super) const CLOSED_PROTOCOL: u32 = 2;

/// What the last step says.
const ACCEPTED: [u8; 1] = [1];
/// Of all streams the control stream goes first.
const CONTROL_PRIORITY: i32 = 2;

/// TLS alerts come as transport errors from here on (RFC 9001, section 4.8).
const CRYPTO_ERROR: u64 = 0x100;
const ALERT_NO_APPLICATION_PROTOCOL: u64 = 120;

/// A connection whose ends have accepted each other; its streams go on as the control stream.
pub(super) struct Greeted {
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    pub(super) hello: Hello,
}

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{}", refusal.sentence)]
    Refused { by: RefusedBy, refusal: Refusal },
    /// The other end keeps another connection of the two.
    #[error("replaced by another connection")]
    Replaced,
    #[error("{0}")]
    Lost(String),
}

impl Failure {
    fn by_us(refusal: Refusal) -> Self {
        Self::Refused { by: RefusedBy::Us, refusal }
    }
}

/// The dialling end.
pub(super) async fn dial(
    connection: &Connection,
    identity: &Identity,
    known: &Known,
) -> Result<Greeted, Failure> {
    let own = Hello::to(identity, known);
    let (mut send, mut recv) = connection.open_bi().await.map_err(|error| why(&error))?;
    prefer(&send);
    write(connection, &mut send, &own.encode()).await?;
    let bytes = read(connection, &mut recv).await?;
    let hello = judge(identity, &own, known, &bytes).map_err(|refusal| refuse(connection, refusal))?;
    write(connection, &mut send, &ACCEPTED).await?;
    Ok(Greeted { send, recv, hello })
}

/// The dialled end.
pub(super) async fn answer(
    connection: &Connection,
    identity: &Identity,
    known: &Known,
) -> Result<Greeted, Failure> {
    let own = Hello::to(identity, known);
    let (mut send, mut recv) = connection.accept_bi().await.map_err(|error| why(&error))?;
    prefer(&send);
    let bytes = read(connection, &mut recv).await?;
    let hello = judge(identity, &own, known, &bytes).map_err(|refusal| refuse(connection, refusal))?;
    write(connection, &mut send, &own.encode()).await?;
    let verdict = read(connection, &mut recv).await?;
    if verdict != ACCEPTED {
        let sentence = format!("member {} refuses member {}: its answer is unreadable", own.from, own.to);
        return Err(refuse(connection, Refusal { kind: RefusalKind::Malformed, sentence }));
    }
    Ok(Greeted { send, recv, hello })
}

/// Ends the connection with a refusal that the other end can log.
pub(super) fn refuse(connection: &Connection, refusal: Refusal) -> Failure {
    connection.close(VarInt::from_u32(refusal.kind.code()), refusal.sentence.as_bytes());
    Failure::by_us(refusal)
}

fn prefer(send: &SendStream) {
    // It can only fail for a stream that is closed already, which the next write finds out.
    let _ = send.set_priority(CONTROL_PRIORITY);
}

async fn write(connection: &Connection, send: &mut SendStream, body: &[u8]) -> Result<(), Failure> {
    send.write_chunk(frame(body)).await.map_err(|error| closed(connection, &error))
}

/// One frame and not a byte more, for what follows is not a hello.
async fn read(connection: &Connection, recv: &mut RecvStream) -> Result<Vec<u8>, Failure> {
    let mut head = [0; LENGTH_BYTES];
    recv.read_exact(&mut head).await.map_err(|error| ended(connection, &error))?;
    let length = usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX);
    if length > HELLO_FRAME_MAX {
        let sentence = format!("a hello of {length} bytes, where {HELLO_FRAME_MAX} are allowed");
        return Err(refuse(connection, Refusal { kind: RefusalKind::Malformed, sentence }));
    }
    let mut body = vec![0; length];
    recv.read_exact(&mut body).await.map_err(|error| ended(connection, &error))?;
    Ok(body)
}

/// A stream that ends in its hello is malformed; one whose connection has ended says no more than that.
fn ended(connection: &Connection, error: &ReadExactError) -> Failure {
    if let ReadExactError::FinishedEarly(_) = error {
        let sentence = "a hello that ends before its end".to_owned();
        return refuse(connection, Refusal { kind: RefusalKind::Malformed, sentence });
    }
    closed(connection, error)
}

/// What ended a handshake. Only who has completed one has shown a key: before that anybody can send a packet that says anything, and a refusal that
/// nobody can be held to is none.
pub(super) fn unfinished(error: &ConnectionError) -> Failure {
    match error {
        ConnectionError::ApplicationClosed(_) => {
            Failure::Lost("closed in the middle of the handshake".into())
        }
        _ => why(error),
    }
}

fn closed(connection: &Connection, error: &impl ToString) -> Failure {
    connection.close_reason().map_or_else(|| Failure::Lost(error.to_string()), |error| why(&error))
}

/// What the end of a connection means.
pub(super) fn why(error: &ConnectionError) -> Failure {
    let by_key = |by, code: u64, reason: &[u8]| {
        let alert = code.checked_sub(CRYPTO_ERROR).filter(|alert| *alert <= 0xff)?;
        let kind = match alert {
            ALERT_NO_APPLICATION_PROTOCOL => RefusalKind::Version,
            _ => RefusalKind::Key,
        };
        Some(Failure::Refused { by, refusal: Refusal::received(kind, sentence_of(reason)) })
    };
    let refusal = match error {
        ConnectionError::ApplicationClosed(close) => {
            let code = close.error_code.into_inner();
            match RefusalKind::from_code(code) {
                Some(kind) => {
                    let refusal = Refusal::received(kind, &close.reason);
                    Some(Failure::Refused { by: RefusedBy::Them, refusal })
                }
                None if code == u64::from(CLOSED_REPLACED) => Some(Failure::Replaced),
                None => None,
            }
        }
        ConnectionError::ConnectionClosed(close) => {
            by_key(RefusedBy::Them, close.error_code.into(), &close.reason)
        }
        ConnectionError::TransportError(error) => {
            by_key(RefusedBy::Us, error.code.into(), error.reason.as_bytes())
        }
        _ => None,
    };
    refusal.unwrap_or_else(|| Failure::Lost(error.to_string()))
}
