//! Load: connections that each keep a number of calls under way, and how long each call took.
//!
//! Owns: the generator's one thread. Must never: think between two calls, or count one that was not answered. Driven by `cases`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use smol::future::zip;
use smol::io::{AsyncRead, AsyncWrite};
use smol::{Async, LocalExecutor};

use crate::http2::{Answer, Connection};
use crate::links::connect_within;

/// Connections that many clients share at most; beyond it each carries several.
const CONNECTIONS_MAX: usize = 100;

/// Where a server listens.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub tls: Option<Arc<ClientConfig>>,
    /// The namespace of the network that it listens in, if it is another one.
    pub namespace: Option<String>,
}

/// A socket, with TLS or without.
pub enum Stream {
    Plain(Async<TcpStream>),
    Tls(Box<TlsStream<Async<TcpStream>>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(stream) => Pin::new(stream).poll_close(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_close(cx),
        }
    }
}

impl Target {
    /// A greeted connection.
    pub async fn connect(&self) -> io::Result<Connection<Stream>> {
        let socket = match &self.namespace {
            None => Async::<TcpStream>::connect(self.address).await?,
            Some(namespace) => Async::new(connect_within(namespace, self.address)?)?,
        };
        socket.get_ref().set_nodelay(true)?;
        let stream = match &self.tls {
            None => Stream::Plain(socket),
            Some(config) => {
                let name = ServerName::from(self.address.ip());
                let connector = TlsConnector::from(Arc::clone(config));
                Stream::Tls(Box::new(connector.connect(name, socket).await?))
            }
        };
        Connection::open(stream, self.address.to_string(), self.tls.is_some()).await
    }
}

/// What is asked, again and again.
#[derive(Clone)]
pub struct Load {
    pub path: &'static str,
    /// The request's message by its number.
    pub message: Rc<dyn Fn(u64) -> Vec<u8>>,
    pub clients: usize,
    pub duration: Duration,
    /// On each connection a call is due so often, and takes as long as from then to its answer: one that has to wait for an
    /// earlier one counts that, too. `None` for as fast as answers come.
    pub pace: Option<Duration>,
}

/// What came of a load.
#[derive(Default)]
pub struct Outcome {
    pub calls: u64,
    pub elapsed: Duration,
    /// Sorted.
    latencies: Vec<Duration>,
}

impl Outcome {
    /// Adds what a later run of the same load came to.
    pub fn merge(&mut self, other: Self) {
        self.calls += other.calls;
        self.elapsed += other.elapsed;
        self.latencies.extend(other.latencies);
        self.latencies.sort_unstable();
    }

    pub fn per_second(&self) -> f64 {
        self.calls as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency below which `share` of all calls stayed.
    pub fn percentile(&self, share: f64) -> Duration {
        percentile(&self.latencies, share)
    }
}

/// Of sorted durations, the one at `share` of the way.
pub fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}

/// Connections to servers, and the clients that share them.
pub struct Clients {
    executor: LocalExecutor<'static>,
    open: Vec<Client>,
}

struct Client {
    connection: Connection<Stream>,
    /// Calls that it keeps under way.
    share: usize,
    /// Of its next request.
    number: u64,
}

impl Clients {
    /// Each server gets as many connections as the others.
    pub fn connect(targets: &[Target], clients: usize) -> io::Result<Self> {
        let connections = clients.min(CONNECTIONS_MAX);
        let open = smol::block_on(async {
            let mut open = Vec::new();
            for (n, target) in targets.iter().cycle().take(connections).enumerate() {
                let share = clients / connections + usize::from(n < clients % connections);
                open.push(Client { connection: target.connect().await?, share, number: (n as u64) << 32 });
            }
            io::Result::Ok(open)
        })?;
        Ok(Self { executor: LocalExecutor::new(), open })
    }

    /// Puts the servers under load until the time is over and every call is answered.
    pub fn run(&mut self, load: &Load) -> io::Result<Outcome> {
        self.run_beside(load, smol::future::ready(Ok(())), false)
    }

    fn run_beside(
        &mut self,
        load: &Load,
        beside: impl Future<Output = io::Result<()>>,
        ends: bool,
    ) -> io::Result<Outcome> {
        let over = Rc::new(Cell::new(false));
        let began = Instant::now();
        let connections = self.open.len() as u32;
        let tasks: Vec<_> = (0..connections)
            .zip(self.open.drain(..))
            .map(|(n, client)| {
                // Paced connections take turns.
                let due = began + load.pace.unwrap_or_default() * n / connections;
                self.executor.spawn(drive(client, load.clone(), due, Rc::clone(&over)))
            })
            .collect();
        let drive_all = async {
            let mut all = Vec::new();
            for task in tasks {
                let (client, latencies) = task.await?;
                self.open.push(client);
                all.extend(latencies);
            }
            let elapsed = began.elapsed();
            all.sort_unstable();
            Ok(Outcome { calls: all.len() as u64, elapsed, latencies: all })
        };
        let beside = async {
            let done = beside.await;
            over.set(ends);
            done
        };
        let (outcome, done) = smol::block_on(self.executor.run(zip(drive_all, beside)));
        done.and(outcome)
    }
}

/// One load on clients of its own.
pub fn run(targets: &[Target], load: &Load) -> io::Result<Outcome> {
    Clients::connect(targets, load.clients)?.run(load)
}

/// The same, until something else is over that goes on beside it.
pub fn run_beside(
    targets: &[Target],
    load: &Load,
    beside: impl Future<Output = io::Result<()>>,
) -> io::Result<Outcome> {
    Clients::connect(targets, load.clients)?.run_beside(load, beside, true)
}

async fn drive(
    mut client: Client,
    load: Load,
    mut due: Instant,
    over: Rc<Cell<bool>>,
) -> io::Result<(Client, Vec<Duration>)> {
    let connection = &mut client.connection;
    let mut latencies = Vec::new();
    let mut open: BTreeMap<u32, (Instant, bool)> = BTreeMap::new();
    let mut answers = Vec::new();
    let end = due + load.duration;
    let goes_on = || Instant::now() < end && !over.get();
    while goes_on() || !open.is_empty() {
        while open.len() < client.share && goes_on() {
            let asked = match load.pace {
                None => Instant::now(),
                Some(pace) => {
                    smol::Timer::at(due).await;
                    let asked = due;
                    due += pace;
                    asked
                }
            };
            let message = (load.message)(client.number);
            client.number += 1;
            open.insert(connection.call(load.path, &message, true), (asked, false));
        }
        if open.is_empty() {
            break; // the time was over between two looks at the clock
        }
        connection.flush().await?;
        connection.receive(&mut answers).await?;
        let now = Instant::now();
        for answer in answers.drain(..) {
            match answer {
                Answer::Message { stream, .. } => {
                    if let Some(call) = open.get_mut(&stream) {
                        call.1 = true;
                    }
                }
                Answer::Ended { stream } => {
                    let Some((asked, answered)) = open.remove(&stream) else { continue };
                    if !answered {
                        return Err(io::Error::other(format!("{} was refused", load.path)));
                    }
                    latencies.push(now.duration_since(asked));
                }
            }
        }
    }
    Ok((client, latencies))
}
