//! Load: connections that each keep a number of calls under way, and how long each call took.
//!
//! Owns: the generator's one thread. Must never: think between two calls, or count one that was not answered. Driven by `cases`.

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
use smol::io::{AsyncRead, AsyncWrite};
use smol::{Async, LocalExecutor};

use crate::http2::{Answer, Connection};

/// Connections that many clients share at most; beyond it each carries several.
const CONNECTIONS_MAX: usize = 100;

/// Where a server listens.
#[derive(Clone)]
pub struct Target {
    pub address: SocketAddr,
    pub tls: Option<Arc<ClientConfig>>,
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
        let socket = Async::<TcpStream>::connect(self.address).await?;
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
    /// Calls begin no closer than this to one another, on each connection; `None` for as fast as answers come.
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

/// Puts servers under load, each with as many connections as the others, until the time is over and every call is answered.
pub fn run(targets: &[Target], load: &Load) -> io::Result<Outcome> {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        let connections = load.clients.min(CONNECTIONS_MAX);
        let mut open = Vec::new();
        for target in targets.iter().cycle().take(connections) {
            open.push(target.connect().await?);
        }
        let began = Instant::now();
        let tasks: Vec<_> = open
            .into_iter()
            .enumerate()
            .map(|(number, connection)| {
                let share = load.clients / connections + usize::from(number < load.clients % connections);
                let first = (number as u64) << 32;
                executor.spawn(drive(connection, load.clone(), share, first, began))
            })
            .collect();
        let mut latencies = Vec::new();
        for task in tasks {
            latencies.extend(task.await?);
        }
        let elapsed = began.elapsed();
        latencies.sort_unstable();
        Ok(Outcome { calls: latencies.len() as u64, elapsed, latencies })
    }))
}

async fn drive(
    mut connection: Connection<Stream>,
    load: Load,
    share: usize,
    first: u64,
    began: Instant,
) -> io::Result<Vec<Duration>> {
    let (mut number, mut latencies) = (first, Vec::new());
    let mut open: BTreeMap<u32, (Instant, bool)> = BTreeMap::new();
    let mut answers = Vec::new();
    while began.elapsed() < load.duration || !open.is_empty() {
        while open.len() < share && began.elapsed() < load.duration {
            let message = (load.message)(number);
            number += 1;
            open.insert(connection.call(load.path, &message, true), (Instant::now(), false));
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
        if let Some(pace) = load.pace
            && open.is_empty()
        {
            smol::Timer::after(pace).await;
        }
    }
    Ok(latencies)
}
