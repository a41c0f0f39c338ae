//! What the operator's service asks of the process: what is around the node, certificates for clients, and that the cluster end.
//!
//! Owns: nothing; it looks where others keep it, and hands orders on. Must never: change anything. Made by `serve`, asked by `api`.

use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;
use smol::channel::Sender;

use super::admission::Pending;
use super::backup::Backups;
use super::encounters::{Conflicts, Order};
use super::idle::IdleHour;
use super::lan::Lan;
use crate::api::{
    BackupsMade, ClusterBeside, ComesIn, DiskWritten, GivingUp, Host, IssuedClient, PendingNode, SeenNode,
    YieldRefusal,
};
use crate::command::{self, ClientKey};
use crate::config::TrustMode;
use crate::discovery::Sighting;
use crate::ids::{ClusterId, Revision};
use crate::runtime::clock::Clock;
use crate::runtime::written::{Purpose, Written};
use crate::runtime::{Handle, ServeError};
use crate::telemetry::{self, LogLevel};
use crate::time::Instant;
use crate::tls::{Authority, Issued};

/// See the module.
pub(super) struct Operator {
    /// Where others are looked for, if they are.
    pub(super) lan: Option<Arc<Lan>>,
    pub(super) trust: TrustMode,
    pub(super) pending: Arc<Pending>,
    pub(super) conflicts: Arc<Conflicts>,
    /// To whoever meets the other clusters.
    pub(super) orders: Sender<Order>,
    pub(super) clock: Clock,
    /// When the node began to serve.
    pub(super) began: Instant,
    /// In what the box is another one than at the last start.
    pub(super) other_hardware: Option<String>,
    pub(super) written: Arc<Written>,
    pub(super) idle_hour: Arc<IdleHour>,
    pub(super) backups: Arc<Backups>,
    pub(super) handle: Handle,
    /// The state's when the node began to serve.
    pub(super) began_at: Revision,
}

impl Host for Operator {
    fn comes_in(&self) -> ComesIn {
        match self.trust {
            TrustMode::LanOpen => ComesIn::ByWindow,
            TrustMode::FleetKey => ComesIn::BySecret,
            TrustMode::Locked => ComesIn::ByNothing,
        }
    }

    fn up(&self) -> Duration {
        self.clock.now().since(self.began)
    }

    fn other_hardware(&self) -> Option<String> {
        self.other_hardware.clone()
    }

    fn disk_written(&self) -> DiskWritten {
        let bytes = |purpose| self.written.bytes(purpose);
        DiskWritten {
            log: bytes(Purpose::Log),
            store: bytes(Purpose::Store),
            transfer: bytes(Purpose::Transfer),
            other: bytes(Purpose::Other),
            revisions: u64::try_from(self.handle.view().revision().0 - self.began_at.0).unwrap_or(0),
            idle_hour: self.idle_hour.bytes(),
        }
    }

    fn backups(&self) -> Option<BackupsMade> {
        self.backups.made(self.clock.now())
    }

    fn pending(&self) -> Vec<PendingNode> {
        let now = self.clock.now();
        let node = |node: super::admission::PendingNode| PendingNode {
            fingerprint: node.fingerprint,
            name: node.name,
            peer_urls: node.peer_urls,
            asked: now.since(node.asked),
        };
        self.pending.list().into_iter().map(node).collect()
    }

    fn conflicts(&self) -> Vec<ClusterBeside> {
        let now = self.clock.now();
        let beside = |(cluster, beside): (_, super::encounters::Beside)| ClusterBeside {
            cluster,
            addresses: beside.addresses,
            why: beside.why.to_string(),
            since: now.since(beside.since),
        };
        self.conflicts.list().into_iter().map(beside).collect()
    }

    fn seen(&self) -> Vec<SeenNode> {
        let sightings = self.lan.as_ref().map(|lan| lan.sightings()).unwrap_or_default();
        let node = |Sighting { fingerprint, name, addresses, cluster, .. }| SeenNode {
            fingerprint,
            name,
            addresses,
            cluster,
        };
        sightings.into_iter().map(node).collect()
    }

    fn issue(&self, authority: &command::Authority, name: &str) -> Result<IssuedClient, String> {
        let authority = Authority::load(&authority.certificate, &authority.key);
        let issued = authority.and_then(|authority| {
            let Issued { certificate, key, key_hash } = authority.issue_client(name)?;
            Ok(IssuedClient { certificate, key, known_by: ClientKey(key_hash) })
        });
        issued.map_err(|error| error.to_string())
    }

    fn log_level(&self) -> LogLevel {
        telemetry::log_level().unwrap_or(LogLevel::Info)
    }

    fn set_log_level(&self, level: LogLevel) {
        let before = self.log_level();
        // Said where it is still, or already, logged.
        if level as u8 <= before as u8 {
            telemetry::set_log_level(level);
        }
        tracing::warn!(level = level.name(), before = before.name(), "an operator has changed the log level");
        telemetry::set_log_level(level);
    }

    fn give_up_for(&self, winner: ClusterId) -> GivingUp {
        let (done, outcome) = oneshot::channel();
        let handed_on = match &self.lan {
            Some(_) => self.orders.try_send(Order { winner, done }).map_err(|_| YieldRefusal::Busy),
            None => Err(YieldRefusal::Alone),
        };
        Box::pin(async move {
            handed_on?;
            outcome.await.unwrap_or(Err(YieldRefusal::Unknown(ServeError::Stopped)))
        })
    }

    fn certificate(&self, authority: &command::Authority) -> Result<String, String> {
        let authority = Authority::load(&authority.certificate, &authority.key);
        authority.map(|authority| authority.certificate_pem()).map_err(|error| error.to_string())
    }
}
