//! The Admin service: what the operator of a box asks and tells (`proto/covey/admin.proto`).
//!
//! Owns: who may ask for what, and the secrets of tokens until they are answered. Must never: hand out a secret, or change whom the cluster trusts, but on
//! the word of somebody on this very machine. Driven by `dispatch`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};

use super::credentials::Credentials;
use super::dispatch::Whence;
use super::node::{Freshness, Node};
use super::render;
use super::yielding::YieldRefusal;
use crate::command::{self, CharterCommand, ClientKey, TokenId};
use crate::formation::{Fingerprint, JoinToken, Outdated, TOKEN_BYTES};
use crate::ids::{ClusterId, PublicKey, Revision};
use crate::limits::{PENDING_NODES_SHOWN_MAX, PENDING_ROUNDS_MAX};
use crate::mvcc::{Facts, View};
use crate::node::{PendingNode, Reach};
use crate::runtime::clock::entropy;
use crate::store::{Charter, Member};
use crate::telemetry::LogLevel;
use crate::wire::covey::v1 as pb;
use crate::wire::covey::v1::admin_server::Admin;

/// Digits of a fingerprint that have to be given at least: nobody makes a key whose fingerprint begins with 128 bits of another one's.
const PREFIX_DIGITS_MIN: usize = 32;

/// By what a node comes in that has neither a token nor an approval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ComesIn {
    /// By being on the LAN while the window is open.
    #[default]
    ByWindow,
    /// By the cluster's secret.
    BySecret,
    /// By nothing.
    ByNothing,
}

/// Bytes that were written to the data directory, by what for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskWritten {
    /// For the log.
    pub log: u64,
    /// For the state.
    pub store: u64,
    /// For a state that came from another member.
    pub transfer: u64,
    /// For all else.
    pub other: u64,
    /// Revisions that were applied meanwhile.
    pub revisions: u64,
    /// In the last hour in which nobody wrote.
    pub idle_hour: Option<u64>,
}

/// What has come of backups by schedule since the node began to serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupsMade {
    /// Files written.
    pub written: u64,
    /// Tries that came to nothing.
    pub failed: u64,
    /// The revision of the last one, and how long it has been there.
    pub last: Option<(Revision, Duration)>,
    /// Why the last try has come to nothing, if it has.
    pub trouble: Option<String>,
}

/// What only the process around the node knows and can do.
pub trait Host: Send + Sync {
    /// How nodes come in.
    fn comes_in(&self) -> ComesIn;
    /// For how long it has run.
    fn up(&self) -> Duration;
    /// In which parts the box is other hardware than at the last start, if it is.
    fn other_hardware(&self) -> Option<String>;
    /// What was written to the data directory since the start.
    fn disk_written(&self) -> DiskWritten;
    /// What has come of backups by schedule; nothing where nobody wants any.
    fn backups(&self) -> Option<BackupsMade>;
    /// The nodes that have asked any member to be let in, and that nothing lets in.
    fn pending_anywhere(&self) -> AskedAround;
    /// The same; of the other members, as of the last few seconds.
    fn pending_lately(&self) -> AskedLately;
    /// The other clusters that this one cannot become one with.
    fn conflicts(&self) -> Vec<ClusterBeside>;
    /// The nodes that were heard of.
    fn seen(&self) -> Vec<SeenNode>;
    /// The certificate of an authority, PEM.
    fn certificate(&self, authority: &command::Authority) -> Result<String, String>;
    /// Makes key and certificate for a client.
    fn issue(&self, authority: &command::Authority, name: &str) -> Result<IssuedClient, String>;
    /// From which level on the process logs.
    fn log_level(&self) -> LogLevel;
    /// Has it log from this level on.
    fn set_log_level(&self, level: LogLevel);
    /// Gives the cluster up for another one, as its operator orders.
    fn give_up_for(&self, winner: ClusterId) -> GivingUp;
}

/// What comes of an order to give the cluster up. It is carried out whether somebody waits for that or not.
pub type GivingUp = Pin<Box<dyn Future<Output = Result<(), YieldRefusal>> + Send>>;

/// Who waits at all members, as far as they answer in bounded time.
pub type AskedAround = Pin<Box<dyn Future<Output = AllPending> + Send>>;

/// The nodes that wait at any member, of which the others have been asked lately.
pub type AskedLately = Pin<Box<dyn Future<Output = Vec<PendingNode>> + Send>>;

/// The nodes that wait for an operator, at whichever member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllPending {
    /// Each of them once, the one that asked last at the end.
    pub nodes: Vec<PendingNode>,
    /// The names of members that have not answered in time.
    pub silent: Vec<String>,
}

/// Another cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterBeside {
    /// Which.
    pub cluster: ClusterId,
    /// Where its members are.
    pub addresses: Vec<SocketAddr>,
    /// Why the two cannot become one.
    pub why: String,
    /// Which boxes are to be upgraded before they can, if any.
    pub outdated: Option<Outdated>,
    /// For how long that has been known.
    pub since: Duration,
}

/// A node that was heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenNode {
    /// Who it says it is.
    pub fingerprint: Fingerprint,
    /// What it calls itself.
    pub name: String,
    /// Where it may be.
    pub addresses: Vec<SocketAddr>,
    /// The cluster that it says it is in.
    pub cluster: Option<ClusterId>,
}

/// What a client was made.
pub struct IssuedClient {
    /// Its certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
    /// By what the cluster knows it.
    pub known_by: ClientKey,
}

/// Serves `covey.v1.Admin`.
pub struct AdminService {
    node: Node,
    host: Arc<dyn Host>,
    /// Each client for which all members are being asked has one of these: of the first if it is on this machine, so that nobody else is in an operator's way.
    rounds: [Arc<()>; 2],
}

impl AdminService {
    /// The service of a node.
    pub fn new(node: Node, host: Arc<dyn Host>) -> Self {
        Self { node, host, rounds: Default::default() }
    }

    async fn change(&self, command: CharterCommand) -> Result<(), Status> {
        self.node.handle().change_charter(command).await?.outcome?;
        Ok(())
    }

    /// A state that whoever asks may be shown, since they may be in that very state.
    async fn shown<T>(&self, request: &Request<T>, view: Arc<View>) -> Result<Arc<View>, Status> {
        if whence(request) == Whence::Here {
            return Ok(view);
        }
        let (view, _) = self.node.permitted(&Credentials::of_call(request), view, |_| true).await?;
        Ok(view)
    }

    /// Who waits at any member, as long as not too many ask that.
    async fn pending_anywhere(&self, whence: Whence) -> Result<AllPending, Status> {
        let [here, elsewhere] = &self.rounds;
        let round = Arc::clone(if whence == Whence::Here { here } else { elsewhere });
        if Arc::strong_count(&round) > 1 + PENDING_ROUNDS_MAX {
            return Err(Status::resource_exhausted(
                "covey: too many ask at the moment who waits at all members: try again in a few seconds",
            ));
        }
        let all = self.host.pending_anywhere().await;
        drop(round);
        Ok(all)
    }

    /// All that there is to see, for whoever finds out by itself what of it may be shown.
    pub async fn all(&self) -> Result<pb::StatusResponse, Status> {
        let reach = self.node.handle().reach().await?;
        let pending = self.host.pending_lately().await;
        Ok(self.describe(&reach, pending, self.node.handle().view().facts()))
    }

    fn describe(&self, reach: &Reach, waiting: Vec<PendingNode>, facts: &Facts) -> pb::StatusResponse {
        let seen = self.strangers(&waiting, facts);
        let cluster = self.cluster(reach, waiting, facts);
        let own = cluster.members.iter().find(|member| member.id == cluster.member);
        let (name, fingerprint) =
            own.map(|own| (own.name.clone(), own.fingerprint.clone())).unwrap_or_default();
        pb::StatusResponse {
            name,
            fingerprint,
            up_seconds: self.host.up().as_secs(),
            cluster: Some(cluster),
            waits_for: String::new(),
            seen,
            other_hardware: self.host.other_hardware().unwrap_or_default(),
            disk_short: self.node.handle().is_disk_short(),
            disk_written: Some(disk_written(self.host.disk_written())),
            backups: self.host.backups().map(backups),
        }
    }

    fn cluster(&self, reach: &Reach, waiting: Vec<PendingNode>, facts: &Facts) -> pb::Cluster {
        let handle = self.node.handle();
        let status = handle.status();
        let Charter { automatic, committed, dissolved, .. } = *facts.charter;
        let member = |member: &Member| {
            let is_reached = member.id() == reach.me || reach.connected.contains_key(&member.id());
            pb::Member {
                id: member.id().0,
                name: member.attributes.name.clone(),
                fingerprint: member.key.map(|key| hex(&key.fingerprint())).unwrap_or_default(),
                votes: member.votes,
                reached: is_reached,
                peer_urls: member.attributes.peer_urls.clone(),
                client_urls: member.attributes.client_urls.clone(),
                understands: member.attributes.understands.0.into(),
            }
        };
        let left = facts.charter.outdated().map(|(_, seconds)| seconds);
        let (outdated, lost): (Vec<u64>, Vec<u64>) = left.partition(|seconds| *seconds > 0);
        let alarm = |alarm: &command::Alarm| render::alarm_name(alarm.kind).to_owned();
        pb::Cluster {
            id: status.cluster.0,
            member: status.member.0,
            leader: status.leader.map_or(0, |leader| leader.0),
            term: status.term.0,
            automatic,
            committed,
            open_seconds: open_seconds(&facts.charter, self.host.comes_in()),
            by_secret: automatic && self.host.comes_in() == ComesIn::BySecret,
            dissolved_for: dissolved.map_or(0, |dissolved| dissolved.winner.0),
            catching_up: handle.is_catching_up() || !handle.has_state(),
            members: facts.members.iter().map(member).collect(),
            pending: last_of(waiting).map(pending).collect(),
            conflicts: self.host.conflicts().into_iter().map(conflict).collect(),
            alarms: facts.alarms.iter().map(alarm).collect(),
            bytes_in_use: status.bytes_in_use,
            quota_bytes: status.quota.unwrap_or(0),
            outdated_clients: outdated.len() as u64,
            outdated_seconds: outdated.into_iter().min().unwrap_or(0),
            lost_clients: lost.len() as u64,
            commands: facts.commands.0.into(),
            keys: handle.view().keys(),
        }
    }

    /// The authority that clients are to know servers by. While another one is about to take its place, nobody is given it who would have to come again.
    fn authority(&self) -> Result<command::Authority, Status> {
        let view = self.node.handle().view();
        let charter = &view.facts().charter;
        if charter.authority_is_due().is_some() {
            return Err(Status::unavailable(
                "covey: a member was removed, and the authority for clients is being replaced: try again in a moment",
            ));
        }
        charter.authority.clone().ok_or_else(|| {
            Status::failed_precondition(
                "covey: this cluster issues no certificates: its members have their own, or none",
            )
        })
    }

    /// What a client needs that is no secret, as of now: its authority's certificate, and where the servers are.
    fn directions(&self) -> Result<(String, Vec<String>), Status> {
        let view = self.node.handle().view();
        let facts = view.facts();
        let certificate = facts.charter.authority.as_ref().map(|authority| self.host.certificate(authority));
        let certificate = certificate.unwrap_or_else(|| Err("there is no authority".to_owned()));
        let certificate = certificate.map_err(|error| Status::internal(format!("covey: {error}")))?;
        let urls = facts.members.iter().flat_map(|member| member.attributes.client_urls.clone());
        Ok((certificate, urls.collect()))
    }

    /// The keys of all clients that are called so, of which there must be one.
    async fn clients_named(&self, name: &str) -> Result<Vec<ClientKey>, Status> {
        self.node.handle().read_barrier().await?;
        let view = self.node.handle().view();
        let named = view.facts().charter.clients.iter().filter(|client| client.name == name);
        let keys: Vec<ClientKey> = named.map(|client| client.key).collect();
        if keys.is_empty() { Err(crate::command::Rejection::ClientNotFound.into()) } else { Ok(keys) }
    }

    /// Those that were heard of and are no members.
    fn strangers(&self, waiting: &[PendingNode], facts: &Facts) -> Vec<pb::Sighting> {
        let own = self.node.handle().ids().cluster;
        let members: BTreeSet<Fingerprint> =
            facts.members.iter().filter_map(|member| member.key.as_ref()).map(Fingerprint::of).collect();
        let waiting: BTreeSet<Fingerprint> = waiting.iter().map(|node| node.fingerprint).collect();
        let strangers = self.host.seen().into_iter().filter(|node| !members.contains(&node.fingerprint));
        let told = |node: SeenNode| {
            let why = match node.cluster {
                None if waiting.contains(&node.fingerprint) => "it waits for an operator's approval",
                None => "it is in no cluster yet",
                Some(cluster) if cluster == own => "it says that it is in this cluster, and is no member",
                Some(_) => "it is in another cluster",
            };
            sighting(node, why.to_owned())
        };
        strangers.map(told).collect()
    }
}

fn disk_written(written: DiskWritten) -> pb::DiskWritten {
    let DiskWritten { log, store, transfer, other, revisions, idle_hour } = written;
    let (idle_hour_known, idle_hour) = (idle_hour.is_some(), idle_hour.unwrap_or_default());
    pb::DiskWritten { log, store, transfer, other, revisions, idle_hour_known, idle_hour }
}

fn backups(made: BackupsMade) -> pb::Backups {
    let BackupsMade { written, failed, last, trouble } = made;
    let (revision, ago) = last.unwrap_or_default();
    let (ago_seconds, trouble) = (ago.as_secs(), trouble.unwrap_or_default());
    pb::Backups { written, failed, revision: revision.0, ago_seconds, trouble }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let handle = self.node.handle();
        let reach = handle.reach().await?;
        let view = self.shown(&request, handle.view()).await?;
        let pending = self.host.pending_lately().await;
        Ok(Response::new(self.describe(&reach, pending, view.facts())))
    }

    async fn token_create(
        &self,
        request: Request<pb::TokenCreateRequest>,
    ) -> Result<Response<pb::TokenCreateResponse>, Status> {
        require_here(&request)?;
        if self.host.comes_in() == ComesIn::BySecret {
            return Err(Status::failed_precondition(
                "covey: nodes come in by the cluster's secret here, and one that was removed by \"covey node approve\": no token would let anybody in",
            ));
        }
        let seconds = request.into_inner().seconds;
        let mut secret = [0; TOKEN_BYTES];
        entropy(&mut secret).map_err(|error| Status::internal(format!("covey: no randomness: {error}")))?;
        let token = JoinToken::new(secret);
        let (id, key) = (token.id(), token.key());
        self.change(CharterCommand::CreateToken { id, key, seconds }).await?;
        Ok(Response::new(pb::TokenCreateResponse { token: token.to_string(), id: hex(&id.0), seconds }))
    }

    async fn token_list(
        &self,
        request: Request<pb::TokenListRequest>,
    ) -> Result<Response<pb::TokenListResponse>, Status> {
        let view = self.node.view(Freshness::Linearizable).await?;
        let view = self.shown(&request, view).await?;
        let charter = &view.facts().charter;
        let token = |token: &crate::store::Token| pb::Token {
            id: hex(&token.id.0),
            seconds: token.expires.saturating_sub(charter.elapsed),
            used_by: token.used_by.map(|key: PublicKey| hex(&key.fingerprint())).unwrap_or_default(),
        };
        Ok(Response::new(pb::TokenListResponse { tokens: charter.tokens.iter().map(token).collect() }))
    }

    async fn token_revoke(
        &self,
        request: Request<pb::TokenRevokeRequest>,
    ) -> Result<Response<pb::TokenRevokeResponse>, Status> {
        require_here(&request)?;
        let id = token_id(&request.into_inner().id)
            .ok_or_else(|| Status::invalid_argument("covey: a token's id has 16 hexadecimal digits"))?;
        self.change(CharterCommand::RevokeToken { id }).await?;
        Ok(Response::new(pb::TokenRevokeResponse {}))
    }

    async fn node_pending(
        &self,
        request: Request<pb::NodePendingRequest>,
    ) -> Result<Response<pb::NodePendingResponse>, Status> {
        let AllPending { nodes, silent } = self.pending_anywhere(whence(&request)).await?;
        let waiting = nodes.len();
        let nodes: Vec<_> = last_of(nodes).map(pending).collect();
        let left_out = (waiting - nodes.len()) as u64;
        Ok(Response::new(pb::NodePendingResponse { nodes, silent, left_out }))
    }

    async fn node_approve(
        &self,
        request: Request<pb::NodeApproveRequest>,
    ) -> Result<Response<pb::NodeApproveResponse>, Status> {
        require_here(&request)?;
        let text = request.into_inner().fingerprint;
        let is_whole = text.parse::<Fingerprint>().is_ok();
        let pending = if is_whole { Vec::new() } else { self.pending_anywhere(Whence::Here).await?.nodes };
        let fingerprint = meant(&text, pending.into_iter().map(|node| node.fingerprint))?;
        self.change(CharterCommand::Approve { fingerprint: *fingerprint.bytes() }).await?;
        Ok(Response::new(pb::NodeApproveResponse { fingerprint: hex(fingerprint.bytes()) }))
    }

    async fn log_level(
        &self,
        request: Request<pb::LogLevelRequest>,
    ) -> Result<Response<pb::LogLevelResponse>, Status> {
        if !request.get_ref().level.is_empty() {
            require_here(&request)?;
            let level = LogLevel::named(&request.get_ref().level).ok_or_else(|| {
                Status::invalid_argument("covey: a log level is one of debug, info, warn, error")
            })?;
            self.host.set_log_level(level);
        }
        Ok(Response::new(pb::LogLevelResponse { level: self.host.log_level().name().to_owned() }))
    }

    async fn window_open(
        &self,
        request: Request<pb::WindowOpenRequest>,
    ) -> Result<Response<pb::WindowOpenResponse>, Status> {
        require_here(&request)?;
        require_window(self.host.comes_in())?;
        self.change(CharterCommand::OpenWindow { seconds: request.into_inner().seconds }).await?;
        Ok(Response::new(pb::WindowOpenResponse {}))
    }

    async fn window_close(
        &self,
        request: Request<pb::WindowCloseRequest>,
    ) -> Result<Response<pb::WindowCloseResponse>, Status> {
        require_here(&request)?;
        // Where nothing lets nodes in, other members may still have another setting.
        if self.host.comes_in() == ComesIn::BySecret {
            require_window(ComesIn::BySecret)?;
        }
        self.change(CharterCommand::Seal).await?;
        Ok(Response::new(pb::WindowCloseResponse {}))
    }

    async fn give_up(
        &self,
        request: Request<pb::GiveUpRequest>,
    ) -> Result<Response<pb::GiveUpResponse>, Status> {
        require_here(&request)?;
        self.host.give_up_for(ClusterId(request.into_inner().cluster)).await?;
        Ok(Response::new(pb::GiveUpResponse {}))
    }

    async fn client_issue(
        &self,
        request: Request<pb::ClientIssueRequest>,
    ) -> Result<Response<pb::ClientIssueResponse>, Status> {
        require_here(&request)?;
        let name = request.into_inner().name;
        let IssuedClient { certificate, key, known_by } = self
            .host
            .issue(&self.authority()?, &name)
            .map_err(|error| Status::invalid_argument(format!("covey: {error}")))?;
        self.change(CharterCommand::IssueClient { key: known_by, name }).await?;
        // Of after that: the authority may have been replaced since, and what it has signed counts all the same.
        let (authority, endpoints) = self.directions()?;
        Ok(Response::new(pb::ClientIssueResponse { authority, certificate, key, endpoints }))
    }

    async fn client_list(
        &self,
        request: Request<pb::ClientListRequest>,
    ) -> Result<Response<pb::ClientListResponse>, Status> {
        let view = self.node.view(Freshness::Linearizable).await?;
        let view = self.shown(&request, view).await?;
        let charter = &view.facts().charter;
        let client = |one: &crate::store::Client| {
            let left = charter.trust_left(one);
            pb::Client {
                name: one.name.clone(),
                key: one.key.to_string(),
                outdated: left.is_some(),
                outdated_seconds: left.unwrap_or(0),
            }
        };
        Ok(Response::new(pb::ClientListResponse { clients: charter.clients.iter().map(client).collect() }))
    }

    async fn client_revoke(
        &self,
        request: Request<pb::ClientRevokeRequest>,
    ) -> Result<Response<pb::ClientRevokeResponse>, Status> {
        require_here(&request)?;
        let keys = self.clients_named(&request.into_inner().name).await?;
        for key in &keys {
            self.change(CharterCommand::RevokeClient { key: *key }).await?;
        }
        Ok(Response::new(pb::ClientRevokeResponse { revoked: keys.len() as u64 }))
    }

    async fn client_renew(
        &self,
        request: Request<pb::ClientRenewRequest>,
    ) -> Result<Response<pb::ClientRenewResponse>, Status> {
        // Whoever has taken an authority's key along could pose as a server, and hand out one of its own: nobody is renewed over the network.
        require_here(&request)?;
        let keys = self.clients_named(&request.into_inner().name).await?;
        self.authority()?;
        for key in keys {
            self.change(CharterCommand::RenewClient { key }).await?;
        }
        let (authority, endpoints) = self.directions()?;
        Ok(Response::new(pb::ClientRenewResponse { authority, endpoints }))
    }
}

fn whence<T>(request: &Request<T>) -> Whence {
    request.extensions().get().copied().unwrap_or(Whence::Elsewhere)
}

/// Only the operator of this machine, on it, gets further than this.
fn require_here<T>(request: &Request<T>) -> Result<(), Status> {
    match whence(request) {
        Whence::Here => Ok(()),
        Whence::Elsewhere => Err(Status::permission_denied(
            "covey: this is for the operator of a box: on one of the cluster's boxes, as its endpoint, use 127.0.0.1 without TLS",
        )),
    }
}

/// There is a window only where nodes come in by one.
fn require_window(comes_in: ComesIn) -> Result<(), Status> {
    let why = match comes_in {
        ComesIn::ByWindow => return Ok(()),
        ComesIn::BySecret => {
            "nodes come in by the cluster's secret here (--trust fleet-key), and whoever has it always does"
        }
        ComesIn::ByNothing => {
            "nobody comes in by being on the LAN here (--trust locked): make a token or approve the node"
        }
    };
    Err(Status::failed_precondition(format!("covey: there is no window: {why}")))
}

/// For how long whoever is on the LAN is let in.
fn open_seconds(charter: &Charter, comes_in: ComesIn) -> u64 {
    match comes_in {
        ComesIn::ByWindow => charter.window.closes.saturating_sub(charter.elapsed),
        ComesIn::BySecret | ComesIn::ByNothing => 0,
    }
}

/// The fingerprint that an operator means by this text: a whole one, or the beginning of exactly one that is pending.
fn meant(text: &str, pending: impl Iterator<Item = Fingerprint>) -> Result<Fingerprint, Status> {
    if let Ok(whole) = text.parse() {
        return Ok(whole);
    }
    let digits: String = text.chars().filter(|c| *c != ' ').collect::<String>().to_ascii_lowercase();
    if digits.len() < PREFIX_DIGITS_MIN || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(Status::invalid_argument(format!(
            "covey: a fingerprint has 64 hexadecimal digits; of a node that is pending, the first {PREFIX_DIGITS_MIN} are enough"
        )));
    }
    let mut fitting = pending.filter(|fingerprint| hex(fingerprint.bytes()).starts_with(&digits));
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => {
            Err(Status::failed_precondition("covey: more than one pending node begins like this"))
        }
        (None, _) => Err(Status::not_found(
            "covey: no node that begins like this is pending on a member that answers: give the whole fingerprint",
        )),
    }
}

fn token_id(text: &str) -> Option<TokenId> {
    let digits: Option<Vec<u8>> =
        text.bytes().map(|byte| char::from(byte).to_digit(16)?.try_into().ok()).collect();
    let digits = <[u8; 16]>::try_from(digits?).ok()?;
    let mut id = TokenId([0; 8]);
    for (byte, pair) in id.0.iter_mut().zip(digits.chunks(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Some(id)
}

/// Those that an answer names: the ones that asked last.
fn last_of(nodes: Vec<PendingNode>) -> impl Iterator<Item = PendingNode> {
    let left_out = nodes.len().saturating_sub(PENDING_NODES_SHOWN_MAX);
    nodes.into_iter().skip(left_out)
}

fn pending(node: PendingNode) -> pb::PendingNode {
    pb::PendingNode {
        fingerprint: hex(node.fingerprint.bytes()),
        name: node.name,
        peer_urls: node.peer_urls,
        asked_seconds: node.asked.as_secs(),
    }
}

fn conflict(beside: ClusterBeside) -> pb::Conflict {
    let upgrade = |ours| {
        let outdated = beside.outdated.filter(|outdated| outdated.ours == ours);
        outdated.map_or(0, |outdated| outdated.used.0.into())
    };
    pb::Conflict {
        upgrade_here: upgrade(true),
        upgrade_there: upgrade(false),
        cluster: beside.cluster.0,
        addresses: beside.addresses.iter().map(ToString::to_string).collect(),
        why: beside.why,
        since_seconds: beside.since.as_secs(),
    }
}

fn sighting(node: SeenNode, why: String) -> pb::Sighting {
    pb::Sighting {
        fingerprint: hex(node.fingerprint.bytes()),
        name: node.name,
        addresses: node.addresses.iter().map(ToString::to_string).collect(),
        cluster: node.cluster.map_or(0, |cluster| cluster.0),
        why,
    }
}

/// Bytes as small hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
#[path = "admin_test.rs"]
mod tests;
