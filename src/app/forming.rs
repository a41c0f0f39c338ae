//! From a node without a cluster to one that has one: it meets the nodes that it was told of.
//!
//! Owns: when the others are asked, and what is logged of the wait. Must never: decide who founds (`formation` does), or serve clients meanwhile, but for who asks how it stands. Driven
//! by `serve` before the node starts; and the answers of a node that has started to those that have none.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use smol::future::or;
use smol::{LocalExecutor, Timer};

use super::attend::{Outside, attend_operators};
use super::data_dir::{DataDir, FreshDir};
use super::serve::ServeFailure;
use crate::api::{AroundNode, Waiting, WaitingNode};
use crate::command::MemberCommand;
use crate::config::{InitialCluster, PeerConfig, Url};
use crate::formation::{
    Answer, ClusterSecret, Fingerprint, Founding, Identity, Meeting, Named, NodeKey, Reception,
    SECRET_BYTES_MAX, SecretError, Stage, TokenError, Verdict, receive,
};
use crate::ids::PublicKey;
use crate::peer::{Answerer, Forming, Trust};
use crate::runtime::clock::Clock;
use crate::runtime::listening::UdpPort;
use crate::runtime::{Handle, ServeError};

/// The pause between two rounds of questions.
const ROUND_PAUSE: Duration = Duration::from_millis(300);
/// How often is said what is waited for, while nothing changes.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// Why the cluster's secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFailure {
    /// The file cannot be read.
    #[error("cannot read the secret in {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// What it holds is no token.
    #[error("the join token in {path} cannot be used")]
    Token {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: TokenError,
    },
    /// What it holds is no secret.
    #[error("the cluster secret {path} cannot be used")]
    Secret {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: SecretError,
    },
}

/// Who is listened to that is in no cluster yet, and what this node shows.
pub(super) fn trust(config: &PeerConfig) -> Result<Trust, SecretFailure> {
    let secret = config.secret_file.as_deref().map(|path| {
        ClusterSecret::parse(&read(path)?)
            .map_err(|source| SecretFailure::Secret { path: path.to_owned(), source })
    });
    let token = config.token_file.as_deref().map(|path| {
        read(path)?.parse().map_err(|source| SecretFailure::Token { path: path.to_owned(), source })
    });
    let fingerprints = config.fingerprints.clone();
    Ok(Trust { secret: secret.transpose()?, token: token.transpose()?, fingerprints, ..Trust::default() })
}

fn read(path: &Path) -> Result<String, SecretFailure> {
    let read = || {
        let length = std::fs::metadata(path)?.len();
        if length > 2 * SECRET_BYTES_MAX as u64 {
            return Err(std::io::Error::other("the file is too large for a secret"));
        }
        std::fs::read_to_string(path)
    };
    read().map_err(|source| SecretFailure::Read { path: path.to_owned(), source })
}

/// Meets the others until there is a cluster, and begins the data directory with it.
pub(super) fn form(
    fresh: FreshDir,
    initial: &InitialCluster,
    outside: Outside<'_>,
) -> Result<DataDir, ServeFailure> {
    let Outside { name, config, trust, ports, clock, reload } = outside;
    let named = initial.nodes.iter().map(|(name, urls)| Named {
        name: name.clone(),
        peer_urls: urls.iter().map(ToString::to_string).collect(),
    });
    let meeting = Meeting::new(name, &initial.token, named.collect(), initial.existing);
    // Settings are checked for it.
    let Some(meeting) = meeting else { unreachable!("the node is among those of the initial cluster") };
    let executor = LocalExecutor::new();
    let said = Said::new(name, fresh.key.fingerprint(), meeting.others(), clock);
    let attending = attend_operators(&executor, said.waiting.clone(), ports, reload);
    let meets = meet(&fresh.key, meeting.clone(), &config.listen, trust, said);
    let verdict = smol::block_on(executor.run(or(meets, attending)))?;
    let data = match verdict {
        Verdict::Join(welcome) => fresh.join(*welcome)?,
        Verdict::Found(others) => {
            let founder = fresh.founder()?;
            let founding = meeting.found(fresh.key.clone(), founder.root, founder.boot_nonce, &others);
            let Founding { identity, meta, log_start } = founding;
            tracing::info!(cluster = %identity.cluster(), member = %identity.member, others = others.len(), "founded a cluster");
            fresh.begin(&Identity { stage: Stage::Forming, ..identity }, meta, log_start)?
        }
    };
    Ok(data)
}

async fn meet(
    key: &NodeKey,
    meeting: Meeting,
    listen: &UdpPort,
    trust: Trust,
    mut said: Said,
) -> Result<Verdict, ServeFailure> {
    if let Some(verdict) = meeting.verdict() {
        return Ok(verdict);
    }
    let shared = Arc::new(Mutex::new(meeting.clone()));
    let for_answers = Arc::clone(&shared);
    let answerer: Answerer = Arc::new(move |_, _, question| {
        let answer = for_answers.lock().unwrap_or_else(PoisonError::into_inner).answer(&question);
        Box::pin(async move { answer })
    });
    let port = Forming::start(key, listen, trust, answerer, said.clock)?;
    let question = meeting.question();
    let mut meeting = meeting;
    loop {
        meeting.begin_round();
        for other in meeting.others().to_vec() {
            let mut trouble = String::from("it has no address");
            for address in addresses(&other.peer_urls).await {
                match port.ask(address, &question).await {
                    Err(error) => trouble = format!("{address}: {error}"),
                    Ok((key, answer)) => match meeting.heard(&other.name, key, answer) {
                        Ok(Some(verdict)) => return Ok(verdict),
                        Ok(None) => {
                            trouble.clear();
                            break;
                        }
                        Err(sentence) => trouble = sentence,
                    },
                }
            }
            if !trouble.is_empty() {
                said.waits_for(&other.name, &trouble);
            }
            let stands = if trouble.is_empty() { "it is in no cluster either".into() } else { trouble };
            said.stands(&other.name, stands);
        }
        Timer::after(ROUND_PAUSE).await;
    }
}

/// What was said of the wait, so that it is not said in every round.
struct Said {
    clock: Clock,
    last: Vec<(String, String, crate::time::Instant)>,
    began: crate::time::Instant,
    /// What operators are told.
    node: WaitingNode,
    waiting: Waiting,
}

impl Said {
    fn new(name: &str, fingerprint: Fingerprint, others: &[Named], clock: Clock) -> Self {
        let unheard = |other: &Named| AroundNode {
            name: other.name.clone(),
            addresses: other.peer_urls.clone(),
            stands: "it has not answered yet".into(),
            ..AroundNode::default()
        };
        let node = WaitingNode {
            name: name.to_owned(),
            fingerprint: Some(fingerprint),
            waits_for: "it waits for the other nodes that --initial-cluster names".into(),
            around: others.iter().map(unheard).collect(),
            ..WaitingNode::default()
        };
        let said = Self { clock, last: Vec::new(), began: clock.now(), node, waiting: Waiting::default() };
        said.waiting.tell(said.node.clone());
        said
    }

    /// Tells operators how another node stands.
    fn stands(&mut self, node: &str, stands: String) {
        if let Some(shown) = self.node.around.iter_mut().find(|shown| shown.name == node) {
            shown.stands = stands;
        }
        self.node.up = self.clock.now().since(self.began);
        self.waiting.tell(self.node.clone());
    }

    fn waits_for(&mut self, node: &str, why: &str) {
        let now = self.clock.now();
        let is_news = |(known, said, at): &(String, String, crate::time::Instant)| {
            known == node && said == why && now.since(*at) < SAY_AGAIN
        };
        if self.last.iter().any(is_news) {
            return;
        }
        self.last.retain(|(known, ..)| known != node);
        self.last.push((node.to_owned(), why.to_owned(), now));
        tracing::info!(node, why, "waiting for another node, to form a cluster");
    }
}

/// Where a host and a port lead, as far as the system's resolver knows. The resolver also knows the number of the interface that an address of a link names.
pub(super) async fn resolve(host_and_port: String) -> Vec<SocketAddr> {
    smol::unblock(move || {
        let bracketed = host_and_port.strip_prefix('[').and_then(|rest| rest.rsplit_once("]:"));
        let found = match bracketed.map(|(host, port)| (host, port.parse::<u16>())) {
            Some((host, Ok(port))) => (host, port).to_socket_addrs(),
            _ => host_and_port.to_socket_addrs(),
        };
        found.map(Iterator::collect).unwrap_or_default()
    })
    .await
}

async fn addresses(urls: &[String]) -> Vec<SocketAddr> {
    let urls: Vec<Url> = urls.iter().filter_map(|url| Url::parse(url).ok()).collect();
    // The resolver waits; nothing else is to be done meanwhile.
    smol::unblock(move || {
        let resolve = |url: &Url| (url.host.as_str(), url.port).to_socket_addrs().map(Iterator::collect);
        urls.iter().filter_map(|url| resolve(url).ok()).flat_map(|found: Vec<SocketAddr>| found).collect()
    })
    .await
}

/// The answers of a member to nodes that are in no cluster.
pub(super) fn answerer(identity: &Identity, handle: &Handle) -> Answerer {
    let (identity, handle) = (identity.clone(), handle.clone());
    Arc::new(move |key, _, question| {
        let (identity, handle) = (identity.clone(), handle.clone());
        Box::pin(async move {
            let ask = || {
                let view = handle.view();
                receive(&identity, (&view.facts().members, view.facts().commands), key, &question)
            };
            let id = match ask() {
                Reception::Answer(answer) => return answer,
                Reception::Bind(id) => id,
            };
            match bind(&handle, id, key).await {
                Ok(()) => match ask() {
                    Reception::Answer(answer) => answer,
                    Reception::Bind(_) => Answer::Wait("another node was faster".into()),
                },
                Err(error) => Answer::Wait(error.to_string()),
            }
        })
    })
}

async fn bind(handle: &Handle, id: crate::ids::MemberId, key: PublicKey) -> Result<(), ServeError> {
    let applied = handle.change_members(MemberCommand::Bind { id, key }).await?;
    if let Err(rejection) = applied.outcome {
        tracing::warn!(member = %id, %rejection, "a node did not get the place that it came for");
    }
    Ok(())
}
