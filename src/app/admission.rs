//! What a member of a cluster that formed by itself answers to nodes that have none.
//!
//! Owns: by which right a node is let in, and who waits for an operator. Must never: let anybody in: the log does, by its own rules, and what is asked for
//! here may be refused there. Driven by `peers`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::command::{Admission, CharterCommand, Command, Rejection, TokenId};
use crate::config::TrustMode;
use crate::formation::{Answer, Fingerprint, Identity, Question, Standing, Welcome};
use crate::ids::PublicKey;
use crate::limits::PENDING_NODES_MAX;
use crate::mvcc::Facts;
use crate::peer::{Answerer, Tokens};
use crate::runtime::Handle;
use crate::runtime::clock::Clock;
use crate::time::Instant;

/// A node that has asked to be let in, and that nothing lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PendingNode {
    pub(super) fingerprint: Fingerprint,
    pub(super) name: String,
    pub(super) peer_urls: Vec<String>,
    /// When it asked last.
    pub(super) asked: Instant,
}

/// Those that have asked last. Whoever asks very often, under ever new keys, pushes others out and takes no memory.
#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<VecDeque<PendingNode>>);

impl Pending {
    fn note(&self, node: PendingNode) {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.retain(|known| known.fingerprint != node.fingerprint);
        if nodes.len() == PENDING_NODES_MAX {
            nodes.pop_front();
        }
        nodes.push_back(node);
    }

    fn forget(&self, fingerprint: Fingerprint) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|known| known.fingerprint != fingerprint);
    }

    /// Who waits, the one that asked last at the end.
    pub(super) fn list(&self) -> Vec<PendingNode> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// What a member needs to answer.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) identity: Identity,
    pub(super) name: String,
    pub(super) handle: Handle,
    pub(super) trust: TrustMode,
    pub(super) pending: Arc<Pending>,
    pub(super) clock: Clock,
}

impl Desk {
    /// Answers whoever was found to be worth listening to.
    pub(super) fn answerer(self) -> Answerer {
        Arc::new(move |key, _, question| {
            let desk = self.clone();
            Box::pin(async move { desk.answer(key, question).await })
        })
    }

    /// What proofs with the tokens of this cluster are made with.
    pub(super) fn tokens(&self) -> Tokens {
        let handle = self.handle.clone();
        Tokens(Arc::new(move |id| handle.view().facts().charter.token(id).map(|token| token.key)))
    }

    async fn answer(&self, key: PublicKey, question: Question) -> Answer {
        match question {
            Question::Probe { .. } | Question::Promise { .. } => Answer::Member(self.standing()),
            Question::Meets(_) => {
                let sentence = "this cluster formed by itself: start the node without --initial-cluster";
                Answer::Refused(sentence.into())
            }
            Question::Join { name, peer_urls, claim } => self.join(key, name, peer_urls, &claim).await,
        }
    }

    fn standing(&self) -> Standing {
        let view = self.handle.view();
        let charter = &view.facts().charter;
        Standing {
            name: self.name.clone(),
            cluster: self.identity.cluster(),
            generation: self.identity.generation,
            committed: charter.committed,
            open: charter.is_open(),
        }
    }

    async fn join(&self, key: PublicKey, name: String, peer_urls: Vec<String>, claim: &[u8]) -> Answer {
        if let Some(welcome) = self.welcome(key) {
            return welcome;
        }
        let fingerprint = Fingerprint::of(&key);
        let Some(by) = right(self.handle.view().facts(), self.trust, fingerprint, claim) else {
            self.pending.note(PendingNode { fingerprint, name, peer_urls, asked: self.clock.now() });
            return Answer::Pending(format!(
                "the cluster is sealed: on one of its boxes type \"covey node approve {fingerprint}\""
            ));
        };
        let command = CharterCommand::Admit { key, name, peer_urls, by };
        match self.handle.propose(Command::Charter(command)).await.map(|applied| applied.outcome) {
            Ok(Ok(_)) => {
                self.pending.forget(fingerprint);
                // Applied here, for that is where the answer comes from.
                self.welcome(key).unwrap_or_else(|| Answer::Wait("it was removed meanwhile".into()))
            }
            Ok(Err(rejection)) => Answer::Wait(rejection_in_words(rejection)),
            Err(error) => Answer::Wait(error.to_string()),
        }
    }

    fn welcome(&self, key: PublicKey) -> Option<Answer> {
        let view = self.handle.view();
        let members = &view.facts().members;
        let member = members.iter().find(|member| member.key == Some(key))?.id();
        let Identity { root, generation, .. } = self.identity;
        Some(Answer::Welcome(Box::new(Welcome { root, generation, member, members: members.clone() })))
    }
}

/// By which right this node may come in, if by any.
fn right(facts: &Facts, trust: TrustMode, fingerprint: Fingerprint, claim: &[u8]) -> Option<Admission> {
    let charter = &facts.charter;
    match trust {
        // As with the secret: who names a token has proven to have it.
        TrustMode::LanOpen | TrustMode::Locked if !claim.is_empty() => {
            Some(Admission::Token(TokenId(claim.try_into().ok()?)))
        }
        // It has proven that it has the secret, or it would not have been listened to.
        TrustMode::FleetKey => Some(Admission::FleetKey),
        _ if charter.approved.contains(fingerprint.bytes()) => Some(Admission::Approval),
        TrustMode::LanOpen if charter.is_open() => Some(Admission::Window),
        TrustMode::LanOpen | TrustMode::Locked => None,
    }
}

fn rejection_in_words(rejection: Rejection) -> String {
    format!("the cluster does not let it in: {rejection}")
}
