//! Both servers under the same load in alternating turns: a machine that others use is not as fast in one second as in the next.
//!
//! Owns: the turns, and what came of them. Must never: count what the first, unmeasured one costs, in which caches, connections and Go's heap
//! find their size. Driven by the measures.

use std::io;
use std::time::Duration;

use crate::load::{Clients, Load, Outcome, Target};
use crate::server::Kind;

const TURNS: u32 = 8;

/// What a load is put on.
pub trait Servers {
    fn loaded(&self) -> &[Target];
    /// CPU time that all of them have used.
    fn cpu(&self) -> Duration;
}

/// Servers under a load that they bear in turns with others.
pub struct Contender<S> {
    pub servers: S,
    clients: Clients,
    pub outcome: Outcome,
    cpu: Duration,
}

impl<S: Servers> Contender<S> {
    fn start(servers: S, turn: &Load) -> io::Result<Self> {
        let mut clients = Clients::connect(servers.loaded(), turn.clients)?;
        clients.run(turn)?;
        Ok(Self { servers, clients, outcome: Outcome::default(), cpu: Duration::ZERO })
    }

    fn take_turn(&mut self, turn: &Load) -> io::Result<()> {
        let before = self.servers.cpu();
        self.outcome.merge(self.clients.run(turn)?);
        self.cpu += self.servers.cpu().saturating_sub(before);
        Ok(())
    }

    /// In microseconds.
    pub fn cpu_per_call(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.outcome.calls as f64
    }
}

/// covey and etcd after all turns of a load; `between` is called before each of them.
pub fn contest<S: Servers>(
    load: &Load,
    start: impl Fn(Kind) -> io::Result<S>,
    between: impl FnMut() -> io::Result<()>,
) -> io::Result<(Contender<S>, Contender<S>)> {
    contest_of(load, start(Kind::Covey)?, start(Kind::Etcd)?, between)
}

/// The same of servers that run already.
pub fn contest_of<S: Servers>(
    load: &Load,
    covey: S,
    etcd: S,
    mut between: impl FnMut() -> io::Result<()>,
) -> io::Result<(Contender<S>, Contender<S>)> {
    let turn = Load { duration: load.duration / TURNS, ..load.clone() };
    let (mut covey, mut etcd) = (Contender::start(covey, &turn)?, Contender::start(etcd, &turn)?);
    for _ in 0..TURNS {
        between()?;
        covey.take_turn(&turn)?;
        between()?;
        etcd.take_turn(&turn)?;
    }
    Ok((covey, etcd))
}
