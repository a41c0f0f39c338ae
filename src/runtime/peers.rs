//! The other members, as a node's threads know them: a way out, and what comes in.
//!
//! Owns: who waits for the answer of which member. Must never: know how anything travels. What comes is handed in by `app`, on the
//! transport's thread, and nothing here waits.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;
use futures_channel::oneshot;

use super::Urgency;
use super::checkpoint::CheckpointInput;
use super::handle::{Handle, ServeError};
use super::threads::CoreInput;
use crate::consensus::Message;
use crate::ids::MemberId;
use crate::limits::QUESTIONS_PENDING_MAX;
use crate::node::{
    Applicants, DigestAt, LeaseAnswer, LeaseRequest, Progress, Reach, Roster, TransferMessage,
};
use crate::telemetry::metrics::PeerTraffic;
use crate::time::Instant;

/// Proposals of another member that come at once and are larger than this together do not wait for others.
const JOINING_BYTES_MAX: usize = 64 << 10;

/// The way to the other members. None of it waits, and any of it may be lost.
pub trait PeerLink: Send + Sync {
    /// Sends each message to the member that it names.
    fn send(&self, messages: Vec<Message>);
    /// Sends something of a transfer.
    fn transfer(&self, to: MemberId, message: TransferMessage);
    /// Asks a member something; false where that is known to be in vain.
    fn ask(&self, to: MemberId, number: u64, question: Bytes) -> bool;
    /// Answers what a member has asked.
    fn answer(&self, to: MemberId, number: u64, answer: Bytes);
    /// Which members are connected, and since when.
    fn connected(&self) -> BTreeMap<MemberId, Instant>;
    /// What was counted about each, for metrics.
    fn traffic(&self) -> Vec<PeerTraffic>;
}

/// The other members.
#[derive(Default)]
pub(super) struct Peers {
    link: RwLock<Option<Arc<dyn PeerLink>>>,
    asked: Mutex<BTreeMap<u64, Asked>>,
}

struct Asked {
    whom: MemberId,
    since: Instant,
    answer: oneshot::Sender<Bytes>,
}

/// Takes the question back when its asker goes away.
struct Place<'a> {
    peers: &'a Peers,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.peers.asked().remove(&self.number);
    }
}

impl Peers {
    fn asked(&self) -> MutexGuard<'_, BTreeMap<u64, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way out; a node that is alone has none.
    pub(super) fn link(&self) -> Option<Arc<dyn PeerLink>> {
        self.link.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_link(&self, link: Option<Arc<dyn PeerLink>>) {
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = link;
        if self.link().is_none() {
            self.asked().clear();
        }
    }

    pub(super) fn send(&self, messages: Vec<Message>) {
        // Where there is no way, messages are lost, as raft allows.
        if let Some(link) = self.link() {
            link.send(messages);
        }
    }

    pub(super) fn transfer(&self, to: MemberId, message: TransferMessage) {
        if let Some(link) = self.link() {
            link.transfer(to, message);
        }
    }

    /// Whether anybody waits for a member's answer.
    pub(super) fn awaits_answers(&self) -> bool {
        !self.asked().is_empty()
    }

    /// Gives up what was asked at `limit` or before: a question or an answer may get lost without a word.
    pub(super) fn expire(&self, limit: Instant) {
        self.asked().retain(|_, asked| asked.since > limit);
    }

    /// This member will not answer what it was asked.
    pub(super) fn give_up(&self, whom: MemberId) {
        self.asked().retain(|_, asked| asked.whom != whom);
    }

    /// `is_wanted` is asked only once the question would be given up together with its addressee.
    pub(super) async fn ask(
        &self,
        since: Instant,
        whom: MemberId,
        number: u64,
        question: Bytes,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Bytes, ServeError> {
        let link = self.link().ok_or(ServeError::NoLeader)?;
        let (answer, waiting) = oneshot::channel();
        let _place = Place { peers: self, number };
        {
            let mut asked = self.asked();
            if asked.len() >= QUESTIONS_PENDING_MAX {
                return Err(ServeError::TooManyRequests);
            }
            asked.insert(number, Asked { whom, since, answer });
        }
        if !is_wanted() || !link.ask(whom, number, question) {
            return Err(ServeError::LeaderChanged);
        }
        // Dropped unanswered when the member cannot be reached any more.
        waiting.await.map_err(|_| ServeError::LeaderChanged)
    }
}

/// What comes from other members. Their identity was checked by whoever calls these.
impl Handle {
    /// From now on other members are reached by `link`.
    pub fn connect_peers(&self, link: Arc<dyn PeerLink>) {
        self.0.peers.set_link(Some(link));
    }

    /// What was counted about the way to each other member; nothing where this one is alone.
    pub fn peer_traffic(&self) -> Vec<PeerTraffic> {
        self.0.peers.link().map(|link| link.traffic()).unwrap_or_default()
    }

    /// Messages of a member; `hold` is dropped once they are handled.
    pub fn peer_messages(&self, messages: Vec<Message>, hold: Box<dyn Send>) {
        let passed_on = messages.iter().all(Message::is_proposal);
        let proposals = || messages.iter().flat_map(Message::proposals);
        // More would soon take all the room that there is for what nobody has looked at.
        let urgency = if passed_on && proposals().map(Bytes::len).sum::<usize>() <= JOINING_BYTES_MAX {
            Urgency::Joins(proposals().count())
        } else {
            Urgency::Now
        };
        // Where the core has ended, so does the node.
        drop(self.0.core.send_with(urgency, CoreInput::Messages { messages, hold }));
    }

    /// Which other members this one reaches: those that it is connected with and hears, and of them, where it leads, those that answer. Whether it
    /// hears one takes it seconds to know.
    pub async fn reach(&self) -> Result<Reach, ServeError> {
        let (answer, answered) = oneshot::channel();
        self.0.core.send(CoreInput::Answering(answer)).map_err(|_| ServeError::Stopped)?;
        let answering = answered.await.map_err(|oneshot::Canceled| ServeError::Stopped)?;
        let mut connected = self.0.peers.link().map(|link| link.connected()).unwrap_or_default();
        if let Some(answering) = answering {
            connected.retain(|member, _| answering.contains(member));
        }
        Ok(Reach { me: self.0.ids.member, now: self.0.clock.now(), connected })
    }

    /// What was sent to this member lately may be lost, and what it was asked has no answer.
    pub fn peer_unreachable(&self, member: MemberId) {
        self.0.peers.give_up(member);
        drop(self.0.core.send(CoreInput::Unreachable(member)));
    }

    /// Something of a transfer; `hold` is dropped once it is taken.
    pub fn peer_transfer(&self, from: MemberId, message: TransferMessage, hold: Box<dyn Send>) {
        drop(self.0.queues.checkpoint.send(CheckpointInput::Transfer { from, message, hold }));
    }

    /// The answer of a member.
    pub fn peer_answer(&self, from: MemberId, number: u64, answer: Bytes) {
        let asked = &mut self.0.peers.asked();
        if asked.get(&number).is_some_and(|asked| asked.whom == from)
            && let Some(asked) = asked.remove(&number)
        {
            drop(asked.answer.send(answer));
        }
    }

    /// Answers what a member asks; nothing for what is no question.
    pub async fn answer_question(&self, from: MemberId, number: u64, question: Bytes) {
        if Roster::is_asked_by(&question) {
            if let Some(link) = self.0.peers.link() {
                link.answer(from, number, Roster::of(&self.view()).encode());
            }
            return;
        }
        if let Some(member) = Progress::asked_by(&question) {
            let answer = match self.is_in_sync(member).await {
                Ok(Some(true)) => Progress::InSync,
                Ok(Some(false)) => Progress::Behind,
                Ok(None) | Err(_) => Progress::NotLeading,
            };
            if let Some(link) = self.0.peers.link() {
                link.answer(from, number, answer.encode());
            }
            return;
        }
        if let Some(index) = DigestAt::asked_by(&question) {
            let digest = self.digest_at(index).await.unwrap_or_default();
            if let Some(link) = self.0.peers.link() {
                link.answer(from, number, DigestAt(digest).encode());
            }
            return;
        }
        let Ok(request) = LeaseRequest::decode(question) else {
            tracing::warn!(%from, "a member asks what this version does not understand");
            return;
        };
        let answer = match self.ask_own_lessor(request).await {
            Ok(answer) => answer,
            Err(ServeError::TooManyRequests) => LeaseAnswer::TooMany,
            Err(_) => LeaseAnswer::NotLeading,
        };
        if let Some((link, bytes)) = self.0.peers.link().zip(answer.encode()) {
            link.answer(from, number, bytes);
        }
    }

    /// Asks another member something.
    pub(super) async fn ask(&self, whom: MemberId, question: Bytes) -> Result<Bytes, ServeError> {
        self.ask_while(whom, question, || true).await
    }

    /// Asks the leader something, unless another one has taken its place.
    async fn ask_leading(&self, leader: MemberId, question: Bytes) -> Result<Bytes, ServeError> {
        self.ask_while(leader, question, || self.status().leader == Some(leader)).await
    }

    async fn ask_while(
        &self,
        whom: MemberId,
        question: Bytes,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Bytes, ServeError> {
        let number = self.0.sequence.fetch_add(1, Ordering::Relaxed);
        self.0.peers.ask(self.0.clock.now(), whom, number, question, is_wanted).await
    }

    /// Asks the leader whether a member has caught up.
    pub(super) async fn ask_progress(&self, leader: MemberId, of: MemberId) -> Result<Progress, ServeError> {
        let answer = self.ask_leading(leader, Progress::question(of)).await?;
        Progress::decode(answer).map_err(|error| {
            tracing::warn!(%leader, %error, "the leader's answer is not understood");
            ServeError::LeaderChanged
        })
    }

    /// Asks another member who the members are.
    pub async fn ask_roster(&self, of: MemberId) -> Result<Roster, ServeError> {
        let answer = self.ask(of, Roster::question()).await?;
        Roster::decode(answer).map_err(|error| {
            tracing::warn!(%of, %error, "a member's answer is not understood");
            ServeError::NoLeader
        })
    }

    /// Asks another member who waits there to be let in. A member of an earlier build never answers that.
    pub async fn ask_applicants(&self, of: MemberId) -> Result<Applicants, ServeError> {
        let answer = self.ask(of, Applicants::question()).await?;
        Applicants::decode(answer).map_err(|error| {
            tracing::warn!(%of, %error, "a member's answer is not understood");
            ServeError::NoLeader
        })
    }

    pub(super) async fn ask_lessor_of(
        &self,
        leader: MemberId,
        request: LeaseRequest,
    ) -> Result<LeaseAnswer, ServeError> {
        let Some(question) = request.encode() else { return self.ask_own_lessor(request).await };
        let answer = self.ask_leading(leader, question).await?;
        match LeaseAnswer::decode(answer) {
            Ok(answer) if answer.is_answer_to(request) => Ok(answer),
            _ => {
                tracing::warn!(%leader, "the leader's answer is not understood");
                Err(ServeError::LeaderChanged)
            }
        }
    }
}
