//! A node without a cluster looks for others, until it has joined one or founded one.
//!
//! Owns: where each question goes, and the promise on disk. Must never: decide anything (`formation::Gathering` does), or answer a promise that is not on
//! disk. Driven by `serve` before the node starts.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::{Discriminant, discriminant};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_signal::{Signal, Signals};
use futures_channel::oneshot;
use smol::channel::{Receiver, Sender};
use smol::future::or;
use smol::stream::StreamExt as _;
use smol::{LocalExecutor, Task, Timer};

use super::attend::{Outside, attend_operators};
use super::data_dir::{DataDir, FreshDir};
use super::forming::resolve;
use super::lan::Lan;
use super::serve::ServeFailure;
use super::staggered::staggered;
use crate::api::{AroundNode, Waiting, WaitingNode};
use crate::command::CommandVersion;
use crate::config::{PeerConfig, TrustMode};
use crate::discovery::is_own;
use crate::formation::gathering::{
    AskId, End, Gathering, Network, Options, Output, Sighting, Stands, State, Status, Ticket, Timers, Whom,
};
use crate::formation::{Answer, Fingerprint, Founding, Question, found_automatic};
use crate::ids::PublicKey;
use crate::peer::{Answerer, AskError, Forming};
use crate::prng::Prng;
use crate::runtime::clock::{BootClock, random_u64};
use crate::runtime::listening::UdpPort;
use crate::time::Instant;

/// What others ask and is not heard yet; whoever asks more is not heard.
const WAITING_MAX: usize = 64;
/// Nodes whose addresses are remembered because they have asked or answered.
const MET_MAX: usize = 64;
/// The clocks differ by less while the machine does not sleep.
const ASLEEP: Duration = Duration::from_secs(1);
/// How often is said what is waited for, while nothing changes.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// Something that has happened.
enum Happening {
    /// A node asks.
    Asked { from: PublicKey, at: SocketAddr, question: Question, answer: oneshot::Sender<Answer> },
    /// A node has answered.
    Answered { ask: AskId, from: PublicKey, at: SocketAddr, answer: Answer },
    /// Nobody has answered where it was asked.
    Lost { ask: AskId, why: String },
    /// The token lets nobody in there, as somebody says who has not proven to know it.
    TurnedDown { ask: AskId, why: String },
    /// It is this node itself that is there.
    Itself { ask: AskId, hint: String },
    /// Interfaces have changed, or others were heard of.
    Lan,
    /// It is time.
    Timeout,
    /// The process is told to stop.
    Stop,
}

/// Who is asked, and which kind of question.
type Asked = (Whom, Discriminant<Question>);

/// Looks for others until there is a cluster, and begins the data directory with it. `None`: the process was told to stop before.
pub(super) fn gather(
    fresh: FreshDir,
    lan: &Arc<Lan>,
    outside: Outside<'_>,
) -> Result<Option<DataDir>, ServeFailure> {
    let Outside { name, config, trust, ports, clock, reload } = outside;
    let executor = LocalExecutor::new();
    let seed = random_u64().map_err(|source| ServeFailure::System { action: "draw randomness", source })?;
    let (asked, happenings) = smol::channel::bounded(WAITING_MAX);
    // Its token was for the cluster that it has left; the other one knows its key.
    let token = trust.token.as_ref().filter(|_| fresh.winner.is_none());
    let claim = token.map(|token| token.id().0.to_vec()).unwrap_or_default();
    let knows_others = trust.secret.is_some() || trust.token.is_some() || !trust.fingerprints.is_empty();
    let guarded = config.trust == TrustMode::Locked && !knows_others;
    let port = Rc::new(Forming::start(&fresh.key, &config.listen, trust, answerer(asked), clock)?);
    lan.announce(None, false);
    let options = Options {
        key: PublicKey(*fresh.key.public()),
        name: name.to_owned(),
        peer_urls: lan.peer_urls(),
        claim,
        run: fresh.run,
        understands: CommandVersion::understood(),
        guarded,
        promise: fresh.promise,
        prefers: fresh.winner,
        timers: Timers::default(),
        prng: Prng::new(seed),
    };
    let clock = BootClock::start(clock);
    let gatherer = Gatherer {
        gathering: Gathering::new(clock.now(), options),
        fresh: &fresh,
        lan: Arc::clone(lan),
        executor: &executor,
        port,
        clock,
        slept: Duration::ZERO,
        resumed: None,
        happenings,
        tickets: BTreeMap::new(),
        met: Vec::new(),
        sighted: BTreeSet::new(),
        listen: config.listen.clone(),
        itself: BTreeSet::new(),
        asks: Vec::new(),
        said: None,
        name,
        began: clock.now(),
        waiting: Waiting::default(),
    };
    let serving = attend_operators(&executor, gatherer.waiting.clone(), ports, reload);
    let end = smol::block_on(executor.run(or(gatherer.run(config), serving)))?;
    let Some(end) = end else { return Ok(None) };
    let data = match end {
        End::Join(welcome) => fresh.join(*welcome)?,
        End::Found { alone, with } => {
            let founder = fresh.founder()?;
            let open = config.trust == TrustMode::LanOpen;
            let founding = found_automatic(fresh.key.clone(), founder.root, founder.boot_nonce, open);
            let Founding { identity, meta, log_start } = founding;
            tracing::info!(cluster = %identity.cluster(), member = %identity.member, alone, others = with.len(), "founded a cluster");
            fresh.begin(&identity, meta, log_start)?
        }
    };
    Ok(Some(data))
}

/// Another node, as operators see it.
fn shown(sighting: Sighting, places: &BTreeMap<Fingerprint, Vec<SocketAddr>>) -> AroundNode {
    let Sighting { whom, name, stands, unreachable } = sighting;
    let (fingerprint, addresses) = match whom {
        Whom::Node(node) => {
            let heard = places.get(&node).map(Vec::as_slice).unwrap_or_default();
            (Some(node), heard.iter().map(ToString::to_string).collect())
        }
        Whom::Address(address) => (None, vec![address]),
    };
    let cluster = match stands {
        Stands::Member(cluster) => Some(cluster),
        _ => None,
    };
    let stands = match (unreachable, stands) {
        (Some((_, why)), _) => format!("it does not answer: {why}"),
        (None, Stands::Unknown) => "it has not answered yet".into(),
        (None, Stands::Fresh) => "it is in no cluster either".into(),
        (None, Stands::Member(cluster)) => format!("it is in cluster {cluster}"),
        (None, Stands::Other(sentence)) => sentence,
    };
    AroundNode { fingerprint, name, addresses, cluster, stands }
}

/// Hands questions to the one who has the answers.
fn answerer(asked: Sender<Happening>) -> Answerer {
    Arc::new(move |from, at, question| {
        let asked = asked.clone();
        Box::pin(async move {
            let busy = || Answer::Wait("this node is busy".into());
            let (answer, answered) = oneshot::channel();
            if asked.try_send(Happening::Asked { from, at, question, answer }).is_err() {
                return busy();
            }
            answered.await.unwrap_or_else(|_| busy())
        })
    })
}

/// A network as it is after a sleep that has lasted for `slept` in all. Its times were taken by a clock that stood still meanwhile; and a switch may have to begin anew, too.
fn since_resumed(network: Network, slept: Duration, resumed: Instant) -> Network {
    let begins = |at: Instant| (at + slept).max(resumed);
    let carrier_since = network.carrier_since.map(begins);
    Network { carrier_since, last_up: network.last_up.map(begins).max(carrier_since.map(|_| resumed)) }
}

/// Where a hint leads, without this node itself; and whether that is there.
async fn others_at(hint: String, listen: UdpPort) -> (Vec<SocketAddr>, bool) {
    let places = resolve(hint).await;
    let is_itself = move |at: &SocketAddr| listen.is_at(*at) && is_own(at);
    let sorted_out = move || places.into_iter().partition(is_itself);
    let (own, others): (Vec<SocketAddr>, Vec<SocketAddr>) = smol::unblock(sorted_out).await;
    (others, !own.is_empty())
}

struct Gatherer<'a> {
    gathering: Gathering,
    fresh: &'a FreshDir,
    lan: Arc<Lan>,
    executor: &'a LocalExecutor<'static>,
    port: Rc<Forming>,
    /// Others count on promises while this machine sleeps.
    clock: BootClock,
    /// How long it has slept, and when that was last over.
    slept: Duration,
    resumed: Option<Instant>,
    happenings: Receiver<Happening>,
    /// Who waits for an answer.
    tickets: BTreeMap<Ticket, oneshot::Sender<Answer>>,
    /// Where nodes have asked or answered from, the latest last.
    met: Vec<(Fingerprint, SocketAddr)>,
    /// Who was there when it was looked last.
    sighted: BTreeSet<Fingerprint>,
    /// Where it listens itself, ...
    listen: UdpPort,
    /// ... and the hints that lead there, which is said once of each.
    itself: BTreeSet<String>,
    /// Questions on their way, by whom and what kind. The same is not asked twice at a time.
    asks: Vec<(Asked, Task<()>)>,
    said: Option<(State, Instant)>,
    name: &'a str,
    began: Instant,
    /// What operators are told.
    waiting: Waiting,
}

impl Gatherer<'_> {
    async fn run(mut self, config: &PeerConfig) -> Result<Option<End>, ServeFailure> {
        let mut signals = Signals::new([Signal::Term, Signal::Int])
            .map_err(|source| ServeFailure::System { action: "watch for signals", source })?;
        let (answers, answered) = smol::channel::unbounded();
        for hint in &config.peers {
            let whom = Whom::Address(hint.to_string());
            self.gathering.handle_sighting(self.clock.now(), whom, true);
        }
        let mut changed = Box::pin(self.lan.changed());
        self.look();
        loop {
            if let Some(end) = self.carry_out(&answers)? {
                return Ok(Some(end));
            }
            self.say();
            let timeout = self.gathering.poll_timeout(self.clock.now());
            let timer = timeout.map_or_else(Timer::never, |at| Timer::after(self.clock.until(at)));
            let asked = async { self.happenings.recv().await.unwrap_or(Happening::Stop) };
            let answered = async { answered.recv().await.unwrap_or(Happening::Stop) };
            let changes = async {
                changed.as_mut().await;
                Happening::Lan
            };
            let late = async {
                timer.await;
                Happening::Timeout
            };
            let told = async {
                match signals.next().await {
                    Some(_) => Happening::Stop,
                    None => std::future::pending().await,
                }
            };
            let happening = or(told, or(or(answered, asked), or(changes, late))).await;
            self.notice_sleep();
            match happening {
                Happening::Asked { from, at, question, answer } => {
                    self.meet(from, at);
                    let ticket = self.gathering.handle_question(self.clock.now(), from, question);
                    self.tickets.insert(ticket, answer);
                }
                Happening::Answered { ask, from, at, answer } => {
                    self.meet(from, at);
                    self.gathering.handle_answer(self.clock.now(), ask, from, answer);
                }
                Happening::Lost { ask, why } => self.gathering.handle_lost(self.clock.now(), ask, &why),
                Happening::TurnedDown { ask, why } => {
                    self.gathering.handle_turned_down(self.clock.now(), ask, &why);
                }
                Happening::Itself { ask, hint } => {
                    if self.itself.insert(hint.clone()) {
                        tracing::debug!(%hint, "this node itself is there, and is not asked");
                    }
                    self.gathering.handle_itself(self.clock.now(), ask);
                }
                Happening::Lan => {
                    changed = Box::pin(self.lan.changed());
                    self.look();
                }
                Happening::Timeout => {}
                Happening::Stop => {
                    tracing::info!("stopped before there was a cluster");
                    return Ok(None);
                }
            }
        }
    }

    /// Tells what is seen of the network and of others.
    fn look(&mut self) {
        let now = self.clock.now();
        self.gathering.handle_network(now, self.network());
        let seen: BTreeSet<Fingerprint> = self.lan.places().into_keys().collect();
        for gone in self.sighted.difference(&seen) {
            self.gathering.handle_sighting(now, Whom::Node(*gone), false);
        }
        for new in seen.difference(&self.sighted) {
            self.gathering.handle_sighting(now, Whom::Node(*new), true);
        }
        self.sighted = seen;
    }

    fn network(&self) -> Network {
        let network = self.lan.network();
        self.resumed.map_or(network, |resumed| since_resumed(network, self.slept, resumed))
    }

    /// Whatever was known before the machine slept is old now: this node looks around anew.
    fn notice_sleep(&mut self) {
        let slept = self.clock.slept();
        if slept > self.slept + ASLEEP {
            let now = self.clock.now();
            (self.slept, self.resumed) = (slept, Some(now));
            tracing::info!("the machine was suspended: looking for others anew");
            self.gathering.handle_network(now, self.network());
        }
    }

    fn meet(&mut self, key: PublicKey, at: SocketAddr) {
        let node = Fingerprint::of(&key);
        self.met.retain(|known| *known != (node, at));
        if self.met.len() == MET_MAX {
            self.met.remove(0);
        }
        self.met.push((node, at));
    }

    /// Does what is to be done now. What it has come to, if it has.
    fn carry_out(&mut self, answers: &Sender<Happening>) -> Result<Option<End>, ServeFailure> {
        let mut end = None;
        while let Some(output) = self.gathering.poll(self.clock.now()) {
            match output {
                Output::Ask { ask, whom, question } => self.ask(ask, whom, question, answers.clone()),
                Output::Answer { ticket, answer } => {
                    if let Some(waits) = self.tickets.remove(&ticket) {
                        // Who has gone meanwhile asks again.
                        drop(waits.send(answer));
                    }
                }
                Output::Persist(promise) => {
                    self.fresh.note_promise(promise)?;
                    self.gathering.handle_persisted(self.clock.now());
                }
                Output::End(verdict) => end = Some(verdict),
            }
        }
        Ok(end)
    }

    fn ask(&mut self, ask: AskId, whom: Whom, question: Question, answers: Sender<Happening>) {
        let mut places = match &whom {
            Whom::Node(node) => {
                // Where it was met it can be reached, in one direction at least.
                let met = self.met.iter().rev().filter(|(known, _)| known == node).map(|(_, at)| *at);
                let mut places: Vec<SocketAddr> = met.collect();
                let heard = self.lan.places().remove(node).unwrap_or_default();
                places.extend(heard.into_iter().filter(|at| !places.contains(at)).collect::<Vec<_>>());
                places
            }
            Whom::Address(_) => Vec::new(),
        };
        // What is asked anew is not waited for any more.
        let kind = (whom.clone(), discriminant(&question));
        self.asks.retain(|(asked, task)| *asked != kind && !task.is_finished());
        let expected = if let Whom::Node(node) = &whom { Some(*node) } else { None };
        let (port, listen) = (Rc::clone(&self.port), self.listen.clone());
        let work = async move {
            if let Whom::Address(hint) = whom {
                let itself;
                (places, itself) = others_at(hint.clone(), listen).await;
                if itself && places.is_empty() {
                    return Happening::Itself { ask, hint };
                }
            }
            let (port, question, turned_down) = (&port, &question, &RefCell::new(None));
            let ask_at = |at| async move {
                let (from, answer) = port.ask(at, question).await.map_err(|error| {
                    let why = format!("{at}: {error}");
                    if matches!(error, AskError::Token(_)) {
                        *turned_down.borrow_mut() = Some(why.clone());
                    }
                    why
                })?;
                // Addresses change hands; the node may be at another one.
                let node = Fingerprint::of(&from);
                if expected.is_some_and(|expected| expected != node) {
                    return Err(format!("{at}: a node with another key answers there: {}", node.short()));
                }
                Ok((from, at, answer))
            };
            match staggered(places, ask_at).await {
                Ok((from, at, answer)) => Happening::Answered { ask, from, at, answer },
                // It may have more addresses, of which others lead nowhere.
                Err(why) => match turned_down.take() {
                    Some(why) => Happening::TurnedDown { ask, why },
                    None => Happening::Lost { ask, why: why.unwrap_or_else(|| "it has no address".into()) },
                },
            }
        };
        let task = async move {
            let happening = work.await;
            // Once there is a cluster nobody listens any more.
            drop(answers.try_send(happening));
        };
        self.asks.push((kind, self.executor.spawn(task)));
    }

    /// Tells operators what is waited for, and logs it when that is news.
    fn say(&mut self) {
        let now = self.clock.now();
        let Status { state, around } = self.gathering.status(now);
        let places = self.lan.places();
        self.waiting.tell(WaitingNode {
            name: self.name.to_owned(),
            fingerprint: Some(self.fresh.key.fingerprint()),
            up: now.since(self.began),
            waits_for: state.to_string(),
            around: around.into_iter().map(|sighting| shown(sighting, &places)).collect(),
        });
        let is_news =
            self.said.as_ref().is_none_or(|(said, at)| *said != state || now.since(*at) >= SAY_AGAIN);
        if is_news {
            tracing::info!(%state, "looking for others, to form a cluster");
            self.said = Some((state, now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Before it slept it may have been alone for long: it must not found at once when it is awake again, for the others may just not have answered yet.
    #[test]
    fn a_node_that_has_slept_looks_around_anew() {
        let at = |seconds| Instant::default() + Duration::from_secs(seconds);
        let (slept, resumed) = (Duration::from_secs(100), at(130));
        let before = Network { carrier_since: Some(at(5)), last_up: None };
        let after = Network { carrier_since: Some(resumed), last_up: Some(resumed) };
        assert_eq!(since_resumed(before, slept, resumed), after);
        let later = Network { carrier_since: Some(at(5)), last_up: Some(at(40)) };
        let up_again = Network { carrier_since: Some(resumed), last_up: Some(at(140)) };
        assert_eq!(since_resumed(later, slept, resumed), up_again);
        assert_eq!(since_resumed(Network::default(), slept, resumed), Network::default());
    }
}
