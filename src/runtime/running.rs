//! A node that runs: its threads, started together and waited for together.
//!
//! Owns: the start and the end. Must never: go on when one of the threads has ended by itself. Driven by `app`.

use std::sync::Arc;
use std::thread::JoinHandle;

use smol::channel::{Receiver, RecvError};

use super::clock::Clock;
use super::handle::{AdmissionOptions, Handle, NodeIds, Shared};
use super::space::Space;
use super::threads::{self, Context, Fault};
use super::whereabouts::{Lookout, Whereabouts};
use super::{checkpoint, wal_writer, watch};
use crate::disk::Directory;
use crate::node::{Applier, Checkpointer, Core, LogWriter};
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::wal::Wal;
use crate::watch::Hub;

/// The parts of a node, recovered or new.
pub struct Parts<D: Directory> {
    /// Consensus.
    pub core: Core,
    /// The state.
    pub applier: Applier,
    /// The log.
    pub wal: Wal<D>,
    /// The data directory.
    pub root: D,
    /// The store.
    pub store: Store,
    /// Who the node is.
    pub ids: NodeIds,
    /// What its admission goes by.
    pub admission: AdmissionOptions,
    /// The room on the disk.
    pub space: Arc<Space>,
    /// Where the data directory has to be, if it is on a disk.
    pub whereabouts: Option<Whereabouts>,
    /// Who is told of changes.
    pub hub: Hub,
}

/// A node whose threads run.
pub struct Running {
    handle: Handle,
    ends: Receiver<Result<(), Fault>>,
    threads: Vec<JoinHandle<()>>,
}

/// How many threads a node has.
const THREADS: usize = 5;

impl Running {
    /// Starts the threads. The node serves as soon as its core has found a leader; for a cluster of one that is at once.
    pub fn start<D>(parts: Parts<D>, clock: Clock, metrics: Arc<Metrics>) -> Result<Self, Fault>
    where
        D: Directory + Send + 'static,
        D::File: Send,
    {
        let Parts { core, applier, wal, root, store, ids, admission, space, whereabouts, hub } = parts;
        let (member, boot_nonce) = (ids.member, ids.boot_nonce);
        let base = Arc::new(store.base()?);
        let shared = Arc::new(Shared::new(ids, admission, clock, base, store.file_bytes(), space)?);
        // What of the log is known to count, before anybody asks.
        shared.set_core_status(core.status());
        let context = Context { shared: Arc::clone(&shared), queues: Arc::clone(&shared.queues), metrics };
        let checkpointer = Checkpointer::new(clock.now(), store, root, member, boot_nonce);
        let writer = LogWriter::new(wal);
        let (notices, ends) = smol::channel::unbounded();
        let (for_wal, for_checkpoint) = (context.clone(), context.clone());
        let (for_applier, for_watch) = (context.clone(), context.clone());
        let threads = [
            threads::spawn("checkpoint", &notices, move || {
                checkpoint::run(checkpointer, whereabouts.map(Lookout::new), &for_checkpoint)
            }),
            threads::spawn("wal", &notices, move || wal_writer::run(writer, &for_wal)),
            threads::spawn("applier", &notices, move || threads::run_applier(applier, &for_applier)),
            threads::spawn("watch", &notices, move || watch::run(hub, &for_watch)),
            threads::spawn("core", &notices, move || threads::run_core(core, &context)),
        ];
        let threads = threads.into_iter().collect::<Result<Vec<_>, _>>().map_err(Fault::Threads)?;
        assert_eq!(threads.len(), THREADS);
        Ok(Self { handle: Handle(shared), ends, threads })
    }

    /// The way in.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits for a fault; a node that was not stopped ends by one only.
    pub async fn fault(&self) -> Fault {
        loop {
            match self.ends.recv().await {
                Ok(Err(fault)) => return fault,
                // A thread ends well only when it is stopped.
                Ok(Ok(())) => {}
                // All of them have, and a panic would have been told of: clients may still be read their answers.
                Err(RecvError) => std::future::pending().await,
            }
        }
    }

    /// Takes no more requests, and answers those that wait that the node stops.
    pub fn close(&self) {
        self.handle.0.core.close();
    }

    /// Stops the threads, each after what it has begun, and waits for them. What was acknowledged is durable already.
    pub fn stop(self) -> Result<(), Fault> {
        self.close();
        // The way out holds the transport, which holds what comes in.
        self.handle.0.peers.set_link(None);
        for thread in self.threads {
            // A thread that panicked has reported that.
            drop(thread.join());
        }
        std::iter::from_fn(|| self.ends.try_recv().ok()).collect()
    }
}
