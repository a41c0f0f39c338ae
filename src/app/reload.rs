//! Settings that are read again while the node runs, on SIGHUP.
//!
//! Owns: what a running node takes of them, and what is said of the rest. Must never: take a part of settings of which something is wrong, or end a node for them.
//! Driven by `serve` and, while there is no cluster, by `attend`.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use async_signal::{Signal, Signals};
use smol::future::or;
use smol::stream::StreamExt as _;

use super::chain;
use super::supervisor::Supervisor;
use crate::config::{Invocation, Loaded, ServeConfig};
use crate::runtime::{Handle, Milestone};
use crate::telemetry;
use crate::tls::ServerTls;

/// The settings that the process runs with.
pub(super) struct Reload {
    /// Who is told that they are read.
    pub(super) supervisor: Supervisor,
    /// Those in force: of what a running node takes, what was read last; of the rest, what it was started with.
    loaded: RefCell<Loaded>,
    hangups: Signals,
    /// Counts how often some were taken.
    taken: Milestone,
}

/// What of a node goes by settings and is told when they change.
pub(super) struct Told {
    pub(super) node: Handle,
    pub(super) tls: Option<Arc<ServerTls>>,
}

impl Reload {
    /// From now on a SIGHUP ends nothing, and is answered once somebody attends to it.
    pub(super) fn of(loaded: Loaded, supervisor: Supervisor) -> io::Result<Self> {
        let hangups = Signals::new([Signal::Hup])?;
        Ok(Self { supervisor, loaded: RefCell::new(loaded), hangups, taken: Milestone::default() })
    }

    /// The settings in force.
    pub(super) fn config(&self) -> ServeConfig {
        self.loaded.borrow().config.clone()
    }

    /// Does something by a setting, for ever, and begins anew whenever that has changed.
    pub(super) async fn follow<T: PartialEq + Clone>(
        &self,
        setting: impl Fn(&ServeConfig) -> T,
        work: impl AsyncFn(T),
    ) -> Infallible {
        loop {
            let now = setting(&self.loaded.borrow().config);
            let working = async {
                work(now.clone()).await;
                std::future::pending::<()>().await;
            };
            let changed = async {
                loop {
                    let next = self.taken.value() + 1;
                    if setting(&self.loaded.borrow().config) != now {
                        return;
                    }
                    self.taken.wait(next).await;
                }
            };
            or(changed, working).await;
        }
    }

    /// Reads the settings again whenever the process is told to, for a node that has started or for none yet, and says so to the service manager.
    pub(super) async fn attend(&self, told: Option<&Told>, status: impl Fn() -> String) -> Infallible {
        let mut hangups = &self.hangups;
        while let Some(hangup) = hangups.next().await {
            if let Err(error) = hangup {
                tracing::warn!(%error, "a signal was lost");
                continue;
            }
            self.supervisor.reloading();
            self.read_again(told);
            self.supervisor.reloaded(&status());
        }
        std::future::pending().await
    }

    fn read_again(&self, told: Option<&Told>) {
        if let Some(tls) = told.and_then(|told| told.tls.as_ref()) {
            tls.read_again();
        }
        let mut loaded = self.loaded.borrow_mut();
        let read = match loaded.places.read() {
            Ok(Invocation::Serve(read)) => *read,
            // Its flags are those with which it was started.
            Ok(Invocation::Help) => return,
            Err(error) => {
                tracing::error!(error = %chain(&error), "the settings are not taken: the node goes on with those that it has");
                return;
            }
        };
        for warning in &read.config.warnings {
            if !loaded.config.warnings.contains(warning) {
                tracing::warn!("{warning}");
            }
        }
        let (mut taken, mut late) = (Vec::new(), Vec::new());
        for (running, read) in loaded.settings.iter_mut().zip(read.settings) {
            if running.value == read.value {
                continue;
            }
            if read.reloads {
                taken.push(read.to_string());
                *running = read;
            } else {
                late.push(format!("--{}", read.flag));
            }
        }
        take(&mut loaded.config, read.config, told.map(|told| &told.node));
        drop(loaded);
        self.taken.reach(self.taken.value() + 1);
        if !late.is_empty() {
            tracing::warn!(
                settings = late.join(" "),
                "settings have changed that are taken at the next start"
            );
        }
        tracing::info!(changed = taken.join(", "), "the settings were read again");
    }
}

/// What a running node takes. What follows a setting by itself is told by what is counted.
fn take(running: &mut ServeConfig, read: ServeConfig, node: Option<&Handle>) {
    // Not where nothing was changed: an operator may have chosen another level since the start.
    if read.log.level != running.log.level {
        telemetry::set_log_level(read.log.level);
    }
    telemetry::set_log_format(read.log.format);
    if let Some(node) = node {
        node.set_quota(read.store.quota_bytes);
        node.set_voters(read.peer.voters);
    }
    running.log = read.log;
    running.store.quota_bytes = read.store.quota_bytes;
    running.peer.voters = read.peer.voters;
    running.peer.compare_interval = read.peer.compare_interval;
    running.auto_compaction = read.auto_compaction;
    running.backup = read.backup;
    running.warnings = read.warnings;
}
