//! Nodes that are in no cluster, on the members' port: a question and its answer, under a protocol of its own.
//!
//! Owns: who is listened to (whoever proves the cluster's secret, holds a key that is listed, or, with neither asked for, processes of this machine), and
//! the limits of what they may say. Must never: hand on a word of somebody who has not shown that, or ask or answer a key that is not listed. What is asked and
//! answered is `formation`'s. Driven by `app`, and by `accept` for nodes that dial a member.
//!
//! ```text
//! who dials:   version (1 byte)  proof (32 bytes)  question        and the end of the stream
//! who answers: version (1 byte)  proof (32 bytes)  answer          and the end of the stream
//! ```
//!
//! The protocol has two names. Builds that know the first alone read no versions of commands, and are sent none; TLS finds out who knows which.

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use quinn::{Connection, ConnectionError, Endpoint, SendStream, VarInt};
use smol::Executor;
use smol::future::or;

use super::accept::{protocol_of, shown_key};
use super::endpoint::{self, Opened, StartError, canonical};
use super::gate::{Admission, Gate, Shown};
use super::greet::CLOSED_STOPPING;
use super::hello::{Refusal, RefusalKind};
use super::socket::Host;
use super::trust::{Credentials, dialect_of};
use crate::command::{TokenId, TokenKey};
use crate::formation::{
    Answer, Binding, ClusterSecret, Dialect, EXPORTED_BYTES, Fingerprint, JoinToken, NodeKey, PROOF_BYTES,
    Prover, Question,
};
use crate::ids::PublicKey;
use crate::runtime::clock::Clock;
use crate::runtime::listening::UdpPort;

/// What the two ends derive from their connection, and nobody else can.
const EXPORT_LABEL: &[u8] = b"EXPORTER-covey-forming-1";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + PROOF_BYTES;
/// No question or answer is longer: the longest names some members.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// From the first packet to the end of the answer, which may have to go through the log.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// Closed with it: what was said is no question of this protocol, or comes from somebody who is not listened to.
const CLOSED_NOT_HEARD: u32 = 0x200;
/// The same for a token that lets nobody in here, as long as nobody gives out another one. It is said before anything is proven, by the token's cluster or by anybody
/// else: whoever hears it may ask less often, and must not conclude anything.
const CLOSED_TOKEN: u32 = 0x201;
/// How long the end of the connections may take.
const FAREWELL: Duration = Duration::from_millis(200);

/// Who is listened to: whoever shows all that is asked for here. Where nothing is, processes of this machine, and whoever is near.
///
/// With both a secret and a list, either of them alone would let in somebody whom the other one was set up to keep out.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// It has to prove that it has this.
    pub secret: Option<ClusterSecret>,
    /// It has to hold the key of one of these; empty: any key.
    pub fingerprints: Vec<Fingerprint>,
    /// Who is near, where they need not show anything.
    pub near: Option<Near>,
    /// The token that this node has to be let in with.
    pub token: Option<JoinToken>,
    /// The tokens that let others in, wherever they are. With a secret as well, both have to be proven.
    pub tokens: Option<Tokens>,
}

/// What proofs with a token are made with, of those that the cluster has given out.
#[derive(Clone)]
pub struct Tokens(pub Arc<dyn Fn(TokenId) -> Option<TokenKey> + Send + Sync>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

/// Whether somebody is on the same network.
#[derive(Clone)]
pub struct Near(pub Arc<dyn Fn(IpAddr) -> bool + Send + Sync>);

impl fmt::Debug for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Near")
    }
}

/// Answers questions of nodes whose key and right to be heard were checked, and that ask from this address.
pub type Answerer = Arc<
    dyn Fn(PublicKey, SocketAddr, Question) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync,
>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody answers there, or not in time.
    #[error("{0}")]
    Lost(String),
    /// With nothing to know others by, only this machine is asked.
    #[error(
        "{0} is not on this machine or near it, and there is neither a cluster secret (--cluster-secret-file) nor a list of keys (--peer-fingerprints)"
    )]
    TooFar(SocketAddr),
    /// The token that this node was given lets nobody in there, as it says. It has not proven to know that token.
    #[error("{0}")]
    Token(String),
    /// It was told nothing.
    #[error("{0}")]
    Key(#[from] KeyRefused),
    /// The other end has another secret, or none.
    #[error("it does not prove that it has the cluster's secret")]
    NotProven,
    /// It says what is no answer of this version.
    #[error("its answer is not understood")]
    Malformed,
}

/// A key that is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefused {
    /// Somebody else's.
    #[error("the key {0} is not among those of --peer-fingerprints")]
    Unlisted(Fingerprint),
    /// This node's own, in other hands.
    #[error("both nodes have the key {0}: one is a copy of the other")]
    Own(Fingerprint),
}

/// Why somebody is not listened to, as it is told.
#[derive(Debug, thiserror::Error)]
enum Unheard {
    #[error(
        "this node does not listen to other machines: it was given neither --cluster-secret-file nor --peer-fingerprints"
    )]
    Elsewhere,
    #[error("this node does not listen: is the cluster secret the same on both?")]
    Unproven,
    #[error("this node is in no cluster that gives out join tokens")]
    NoTokens,
    /// An approval does not stand in for it: by the token alone the node knows the cluster.
    #[error(
        "this cluster has given out no such join token, or it is used up, or its time is over: on one of its boxes type \"covey token create\", put what it prints into the file of \
        --join-token-file on this one, and start covey here again"
    )]
    Token,
    #[error("this node does not listen: {0}")]
    Key(#[from] KeyRefused),
}

/// The two ends of a connection, and what only they can derive from it.
struct Ends {
    exported: [u8; EXPORTED_BYTES],
    dialler: PublicKey,
    dialled: PublicKey,
}

impl Trust {
    fn hears(&self, address: SocketAddr) -> bool {
        let asks = self.secret.is_some() || !self.fingerprints.is_empty();
        let ip = canonical(address).ip();
        asks || ip.is_loopback() || self.near.as_ref().is_some_and(|near| near.0(ip))
    }

    /// Whether whoever holds this key may be talked with. It was shown by TLS, in either direction, that the other end does.
    fn knows(&self, own: PublicKey, key: PublicKey) -> Result<(), KeyRefused> {
        let fingerprint = Fingerprint::of(&key);
        // A list is the same on all nodes, and so has the node's own key, too: that lets nobody in who has copied it.
        if key == own {
            return Err(KeyRefused::Own(fingerprint));
        }
        if self.fingerprints.is_empty() || self.fingerprints.contains(&fingerprint) {
            Ok(())
        } else {
            Err(KeyRefused::Unlisted(fingerprint))
        }
    }

    /// What is proven by whoever asks this, and by whoever answers it.
    fn secret_for_asking(&self, question: &Question) -> Option<ClusterSecret> {
        let token = self
            .token
            .as_ref()
            .filter(|_| matches!(question, Question::Join { claim, .. } if !claim.is_empty()));
        match token {
            Some(token) => Some(self.secret_with(&token.key())),
            None => self.secret.clone(),
        }
    }

    /// The name of a token is no secret: naming one has to prove it, whatever else is proven.
    fn secret_with(&self, token: &TokenKey) -> ClusterSecret {
        self.secret.as_ref().map_or_else(|| ClusterSecret::of_token(token), |secret| secret.with_token(token))
    }

    /// The same as this node knows it, of somebody at this address who has asked this. An error: it is not to be heard.
    fn secret_for_answering(
        &self,
        address: SocketAddr,
        question: &Question,
    ) -> Result<Option<ClusterSecret>, Unheard> {
        let claim = match question {
            Question::Join { claim, .. } if !claim.is_empty() => claim,
            _ if self.hears(address) => return Ok(self.secret.clone()),
            _ => return Err(Unheard::Elsewhere),
        };
        let id = TokenId(claim[..].try_into().map_err(|_| Unheard::Token)?);
        let key = self.tokens.as_ref().ok_or(Unheard::NoTokens)?.0(id).ok_or(Unheard::Token)?;
        Ok(Some(self.secret_with(&key)))
    }
}

fn prove(secret: Option<&ClusterSecret>, prover: Prover, ends: &Ends, said: &[&[u8]]) -> [u8; PROOF_BYTES] {
    secret.map_or([0; PROOF_BYTES], |secret| secret.prove(prover, &ends.binding(said)))
}

fn accepts(
    secret: Option<&ClusterSecret>,
    prover: Prover,
    ends: &Ends,
    said: &[&[u8]],
    proof: &[u8],
) -> bool {
    match secret {
        Some(secret) => secret.accepts(prover, &ends.binding(said), proof),
        // Somebody who does prove something expects to be proven something, too.
        None => proof.iter().all(|byte| *byte == 0),
    }
}

impl Ends {
    fn of(connection: &Connection, dialler: PublicKey, dialled: PublicKey) -> Option<Self> {
        let mut exported = [0; EXPORTED_BYTES];
        connection.export_keying_material(&mut exported, EXPORT_LABEL, b"").ok()?;
        Some(Self { exported, dialler, dialled })
    }

    fn binding<'a>(&self, said: &'a [&'a [u8]]) -> Binding<'a> {
        let Self { exported, dialler, dialled } = *self;
        Binding { exported, dialler, dialled, said }
    }
}

fn sealed(proof: [u8; PROOF_BYTES], message: &[u8]) -> Vec<u8> {
    [&[VERSION], &proof[..], message].concat()
}

/// The proof and what it comes with.
fn opened(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, message) = bytes.split_at_checked(HEAD_BYTES)?;
    let (version, proof) = head.split_first()?;
    (*version == VERSION).then_some((proof, message))
}

/// Hears one question on a connection of this protocol. What is none, or comes from somebody who is not listened to, is the end of the connection.
pub(super) async fn hear(
    connection: &Connection,
    dialect: Dialect,
    own: PublicKey,
    trust: &Trust,
) -> Option<Heard> {
    match heard(connection, dialect, own, trust).await {
        Ok(heard) => Some(heard),
        Err(why) => {
            let code = if matches!(why, Unheard::Token) { CLOSED_TOKEN } else { CLOSED_NOT_HEARD };
            connection.close(VarInt::from_u32(code), why.to_string().as_bytes());
            None
        }
    }
}

/// A question of somebody who is listened to, and where its answer goes.
pub(super) struct Heard {
    /// What whoever asks has shown: all others than those who have shown something are strangers, whatever they have said.
    pub(super) shown: Shown,
    dialect: Dialect,
    key: PublicKey,
    at: SocketAddr,
    ends: Ends,
    question: Question,
    asked: Vec<u8>,
    secret: Option<ClusterSecret>,
    send: SendStream,
}

async fn heard(
    connection: &Connection,
    dialect: Dialect,
    own: PublicKey,
    trust: &Trust,
) -> Result<Heard, Unheard> {
    let at = connection.remote_address();
    // A token may come from anywhere, but only members have any.
    if !trust.hears(at) && trust.tokens.is_none() {
        return Err(Unheard::Elsewhere);
    }
    let key = shown_key(connection).ok_or(Unheard::Unproven)?;
    trust.knows(own, key)?;
    let ends = Ends::of(connection, key, own).ok_or(Unheard::Unproven)?;
    let (bytes, send) = receive(connection).await.ok_or(Unheard::Unproven)?;
    let (proof, asked) = opened(&bytes).ok_or(Unheard::Unproven)?;
    // It is read before it is known to be proven: without it nobody knows by what it has to be.
    let question = Question::decode(asked).map_err(|_| Unheard::Unproven)?;
    let secret = trust.secret_for_answering(at, &question)?;
    if !accepts(secret.as_ref(), Prover::Dialler, &ends, &[asked], proof) {
        return Err(Unheard::Unproven);
    }
    let has_right = secret.is_some() || !trust.fingerprints.is_empty();
    let shown = if has_right { Shown::Right } else { Shown::Near };
    Ok(Heard { shown, dialect, key, at, ends, question, asked: asked.to_vec(), secret, send })
}

async fn receive(connection: &Connection) -> Option<(Vec<u8>, SendStream)> {
    let (send, mut recv) = connection.accept_bi().await.ok()?;
    Some((recv.read_to_end(MESSAGE_BYTES_MAX).await.ok()?, send))
}

/// Answers it; the end of the connection is its end.
pub(super) async fn answer(heard: Heard, answerer: &Answerer) {
    let Heard { dialect, key, at, ends, question, asked, secret, mut send, .. } = heard;
    let answer = answerer(key, at, question).await.encode_in(dialect);
    let proof = prove(secret.as_ref(), Prover::Dialled, &ends, &[&asked, &answer]);
    // Who has gone meanwhile asks again.
    if send.write_all(&sealed(proof, &answer)).await.is_ok() {
        let _ = send.finish();
        let _ = send.stopped().await;
    }
}

/// The port of a node that is in no cluster: it answers others like it, and asks them. Dropped, its connections end.
pub struct Forming {
    inner: Arc<Inner>,
    stop: smol::channel::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

struct Inner {
    endpoint: Endpoint,
    credentials: Credentials,
    own: PublicKey,
    trust: Trust,
    answerer: Answerer,
    clock: Clock,
    host: Host,
    /// Where strangers are heard.
    listen: UdpPort,
    gate: Mutex<Gate>,
}

impl fmt::Debug for Forming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forming")
    }
}

impl Forming {
    /// Binds the port and starts the thread.
    pub fn start(
        key: &NodeKey,
        listen: &UdpPort,
        trust: Trust,
        answerer: Answerer,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let credentials = Credentials::new(key)?;
        let server = credentials.server_of_strangers()?;
        Self::start_with(key, listen, (credentials, server), trust, answerer, clock)
    }

    fn start_with(
        key: &NodeKey,
        listen: &UdpPort,
        (credentials, server): (Credentials, rustls::ServerConfig),
        trust: Trust,
        answerer: Answerer,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let executor = Arc::new(Executor::new());
        let Opened { endpoint, reactor, host } = endpoint::open(listen, key, server, &executor)?;
        let own = PublicKey(*key.public());
        let (gate, listen) = (Mutex::default(), listen.clone());
        let inner =
            Arc::new(Inner { endpoint, credentials, own, trust, answerer, clock, host, listen, gate });
        let (stop, stopped) = smol::channel::bounded(1);
        let for_thread = Arc::clone(&inner);
        let work = move || {
            let endpoint = for_thread.endpoint.clone();
            executor.spawn(accept(for_thread)).detach();
            reactor.run(executor.run(async {
                // Closed or told: either way nobody asks any more.
                let _ = stopped.recv().await;
                endpoint.close(VarInt::from_u32(CLOSED_STOPPING), b"this node has found its cluster");
                or(endpoint.wait_idle(), reactor.sleep(FAREWELL)).await;
            }));
        };
        let thread = thread::Builder::new().name("forming".into()).spawn(work).map_err(StartError::Thread)?;
        Ok(Self { inner, stop, thread: Some(thread) })
    }

    /// Asks the node at `address`: who it is, by its key, and what it says.
    pub async fn ask(
        &self,
        address: SocketAddr,
        question: &Question,
    ) -> Result<(PublicKey, Answer), AskError> {
        let Inner { endpoint, credentials, own, trust, .. } = &*self.inner;
        ask(&Asker { endpoint, credentials, own: *own, trust }, address, question).await
    }
}

/// Who asks.
pub(super) struct Asker<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) credentials: &'a Credentials,
    pub(super) own: PublicKey,
    pub(super) trust: &'a Trust,
}

/// Asks the node at `address`, in bounded time.
pub(super) async fn ask(
    asker: &Asker<'_>,
    address: SocketAddr,
    question: &Question,
) -> Result<(PublicKey, Answer), AskError> {
    let late = async {
        smol::Timer::after(TIMEOUT).await;
        Err(AskError::Lost("no answer".into()))
    };
    or(ask_in_time(asker, address, question), late).await
}

async fn ask_in_time(
    asker: &Asker<'_>,
    address: SocketAddr,
    question: &Question,
) -> Result<(PublicKey, Answer), AskError> {
    let Asker { endpoint, credentials, own, trust } = *asker;
    let secret = trust.secret_for_asking(question);
    if !trust.hears(address) && secret.is_none() {
        return Err(AskError::TooFar(address));
    }
    let lost = |error: &dyn fmt::Display| AskError::Lost(error.to_string());
    let config = endpoint::client_of(credentials.client_of_strangers().map_err(|error| lost(&error))?)
        .map_err(|error| lost(&error))?;
    let connecting = endpoint.connect_with(config, address, "covey").map_err(|error| lost(&error))?;
    let connection = connecting.await.map_err(|error| lost(&error))?;
    let dialect = dialect_of(protocol_of(&connection).as_deref()).ok_or(AskError::Malformed)?;
    let key = shown_key(&connection).ok_or(AskError::Malformed)?;
    trust.knows(own, key)?;
    let ends = Ends::of(&connection, own, key).ok_or(AskError::Malformed)?;
    let lost = |error: &dyn fmt::Display| why_closed(&connection).unwrap_or_else(|| lost(error));
    let (mut send, mut recv) = connection.open_bi().await.map_err(|error| lost(&error))?;
    let asked = question.encode_in(dialect);
    let proof = prove(secret.as_ref(), Prover::Dialler, &ends, &[&asked]);
    send.write_all(&sealed(proof, &asked)).await.map_err(|error| lost(&error))?;
    let _ = send.finish();
    let bytes = recv.read_to_end(MESSAGE_BYTES_MAX).await.map_err(|error| lost(&error))?;
    connection.close(VarInt::from_u32(CLOSED_STOPPING), b"answered");
    let (proof, answer) = opened(&bytes).ok_or(AskError::Malformed)?;
    if !accepts(secret.as_ref(), Prover::Dialled, &ends, &[&asked, answer], proof) {
        return Err(AskError::NotProven);
    }
    Ok((key, Answer::decode(answer).map_err(|_| AskError::Malformed)?))
}

/// What the other end has said when it closed the connection.
fn why_closed(connection: &Connection) -> Option<AskError> {
    Some(match connection.close_reason()? {
        ConnectionError::ApplicationClosed(close) => {
            let Refusal { sentence, .. } = Refusal::received(RefusalKind::Key, &close.reason);
            let is_token = close.error_code == VarInt::from_u32(CLOSED_TOKEN);
            if is_token { AskError::Token(sentence) } else { AskError::Lost(sentence) }
        }
        error => AskError::Lost(error.to_string()),
    })
}

impl Drop for Forming {
    fn drop(&mut self) {
        let _ = self.stop.try_send(());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

async fn accept(inner: Arc<Inner>) {
    let gate = |inner: &Inner, ask: &dyn Fn(&mut Gate) -> Admission| {
        ask(&mut inner.gate.lock().unwrap_or_else(PoisonError::into_inner))
    };
    while let Some(incoming) = endpoint::accept(&inner.endpoint, &inner.listen).await {
        let address = incoming.remote_address().ip();
        let (now, proven) = (inner.clock.now(), incoming.remote_address_validated());
        match gate(&inner, &|gate| gate.ask(now, address, proven)) {
            Admission::Begin => {
                let for_task = Arc::clone(&inner);
                let task = inner.host.spawn(async move {
                    let inner = for_task;
                    let served = async {
                        let Ok(connecting) = incoming.accept() else { return Shown::Nothing };
                        let Ok(connection) = connecting.await else { return Shown::Nothing };
                        let dialect = dialect_of(protocol_of(&connection).as_deref());
                        let Some(dialect) = dialect else { return Shown::Nothing };
                        let heard = hear(&connection, dialect, inner.own, &inner.trust).await;
                        let Some(heard) = heard else { return Shown::Nothing };
                        let shown = heard.shown;
                        answer(heard, &inner.answerer).await;
                        shown
                    };
                    let late = async {
                        inner.host.sleep(TIMEOUT).await;
                        Shown::Nothing
                    };
                    let shown = or(served, late).await;
                    inner.gate.lock().unwrap_or_else(PoisonError::into_inner).ended(address, shown);
                });
                task.into_iter().for_each(smol::Task::detach);
            }
            Admission::Prove => drop(incoming.retry()),
            Admission::Ignore => incoming.ignore(),
        }
    }
}

#[cfg(test)]
#[path = "forming_test.rs"]
mod tests;
