//! What the operator's service asks of the process: what is around the node, certificates for clients, and that the cluster end.
//!
//! Owns: nothing; it looks where others keep it, and hands orders on. Must never: change anything. Made by `serve`, asked by `api`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;
use smol::Timer;
use smol::channel::Sender;
use smol::future::or;

use super::admission::Pending;
use super::backup::Backups;
use super::encounters::{Conflicts, Order};
use super::idle::IdleHour;
use super::lan::Lan;
use super::lately::Lately;
use super::staggered::together;
use crate::api::{
    AllPending, AskedAround, AskedLately, BackupsMade, ClusterBeside, ComesIn, DiskWritten, GivingUp, Host,
    IssuedClient, PendingNode, SeenNode, YieldRefusal,
};
use crate::command::{self, ClientKey};
use crate::config::TrustMode;
use crate::discovery::Sighting;
use crate::formation::Fingerprint;
use crate::ids::{ClusterId, MemberId, Revision};
use crate::limits::ADMITTED_MEMBERS_MAX;
use crate::node::Applicants;
use crate::runtime::clock::Clock;
use crate::runtime::written::{Purpose, Written};
use crate::runtime::{Handle, ServeError};
use crate::store::Member;
use crate::telemetry::{self, LogLevel};
use crate::time::Instant;
use crate::tls::{Authority, Issued};

/// The other members say within so long who waits there, or are named as those that have not.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Operator {
    /// Where others are looked for, if they are.
    pub(super) lan: Option<Arc<Lan>>,
    pub(super) trust: TrustMode,
    pub(super) pending: Arc<Pending>,
    pub(super) lately: Arc<Lately>,
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

    fn pending_anywhere(&self) -> AskedAround {
        let (handle, own) = (self.handle.clone(), self.pending.as_of(self.clock.now()));
        Box::pin(async move { all_pending(own, ask_around(&handle).await) })
    }

    fn pending_lately(&self) -> AskedLately {
        let (handle, clock) = (self.handle.clone(), self.clock);
        let (pending, lately) = (Arc::clone(&self.pending), Arc::clone(&self.lately));
        Box::pin(async move {
            if let Some(round) = lately.begin(clock.now()) {
                let said = all_pending(Vec::new(), ask_around(&handle).await);
                round.end(said.nodes, clock.now());
            }
            let now = clock.now();
            all_pending(pending.as_of(now), vec![Ok(Applicants(lately.said(now)))]).nodes
        })
    }

    fn conflicts(&self) -> Vec<ClusterBeside> {
        let now = self.clock.now();
        let beside = |(cluster, beside): (_, super::encounters::Beside)| ClusterBeside {
            cluster,
            addresses: beside.addresses,
            why: beside.why.to_string(),
            outdated: beside.why.outdated(),
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

/// What each of the other members says of who waits there, or its name.
async fn ask_around(handle: &Handle) -> Vec<Result<Applicants, String>> {
    let ask = |(id, name): (MemberId, String)| {
        let handle = handle.clone();
        async move {
            let late = async {
                Timer::after(ANSWERED_WITHIN).await;
                Err(ServeError::TimedOut)
            };
            or(handle.ask_applicants(id), late).await.map_err(|_| name)
        }
    };
    together(ADMITTED_MEMBERS_MAX, others(handle), ask).await
}

/// The other members that have a node, and what each is called.
fn others(handle: &Handle) -> Vec<(MemberId, String)> {
    let (view, own) = (handle.view(), handle.ids().member);
    let others = view.facts().members.iter().filter(|member| member.key.is_some() && member.id() != own);
    let name = |member: &Member| {
        let name = Some(&member.attributes.name).filter(|name| !name.is_empty());
        name.cloned().unwrap_or_else(|| member.id().to_string())
    };
    others.map(|member| (member.id(), name(member))).collect()
}

/// Who waits at this member and at those that have answered, each node once, the one that asked last at the end; and the names of those that have not.
fn all_pending(own: Vec<PendingNode>, answers: Vec<Result<Applicants, String>>) -> AllPending {
    let (mut known, mut silent) = (BTreeMap::<Fingerprint, PendingNode>::new(), Vec::new());
    let mut note = |node: PendingNode| {
        let is_news = known.get(&node.fingerprint).is_none_or(|before| node.asked < before.asked);
        if is_news {
            known.insert(node.fingerprint, node);
        }
    };
    own.into_iter().for_each(&mut note);
    for answer in answers {
        match answer {
            Ok(Applicants(nodes)) => nodes.into_iter().for_each(&mut note),
            Err(name) => silent.push(name),
        }
    }
    silent.sort_unstable();
    let mut nodes: Vec<PendingNode> = known.into_values().collect();
    nodes.sort_by_key(|node| std::cmp::Reverse(node.asked));
    AllPending { nodes, silent }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8, asked: u64) -> PendingNode {
        PendingNode {
            fingerprint: Fingerprint::from_bytes([n; 32]),
            name: format!("box{n}"),
            peer_urls: Vec::new(),
            asked: Duration::from_secs(asked),
        }
    }

    /// A box may be heard by some members only, and asks them in turn.
    #[test]
    fn who_waits_anywhere_is_shown_once_and_as_of_when_it_asked_last() {
        let answers = vec![
            Ok(Applicants(vec![node(3, 9), node(2, 1)])),
            Err("box8".to_owned()),
            Ok(Applicants::default()),
            Err("box7".to_owned()),
            Ok(Applicants(vec![node(2, 7), node(4, 2)])),
        ];
        let AllPending { nodes, silent } = all_pending(vec![node(1, 30), node(2, 3)], answers);
        assert_eq!(nodes, [node(1, 30), node(3, 9), node(4, 2), node(2, 1)]);
        assert_eq!(silent, ["box7", "box8"]);
    }
}
