//! What a member of a cluster that formed by itself answers to nodes that have none.
//!
//! Owns: by which right a node is let in, and who waits for an operator. Must never: let anybody in: the log does, by its own rules, and what is asked for
//! here may be refused there. Driven by `peers`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::encounters::Conflicts;
use crate::command::{Admission, CharterCommand, Command, TokenId};
use crate::config::TrustMode;
use crate::formation::{Answer, Candidate, Fingerprint, Identity, Question, Standing, Welcome};
use crate::ids::{ClusterId, PublicKey};
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
    pub(super) conflicts: Arc<Conflicts>,
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
            Question::Join { name, peer_urls, claim } => {
                self.join(Candidate { key, name, peer_urls }, &claim).await
            }
            Question::Absorb { cluster, nodes } => self.absorb(key, cluster, nodes).await,
        }
    }

    /// How this member's cluster stands.
    pub(super) fn standing(&self) -> Standing {
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

    /// Whether this cluster would give itself up for one that was found to be worth listening to.
    pub(super) fn trusts(&self) -> bool {
        match self.trust {
            TrustMode::FleetKey => true,
            TrustMode::LanOpen => self.handle.view().facts().charter.is_open(),
            TrustMode::Locked => false,
        }
    }

    async fn join(&self, node: Candidate, claim: &[u8]) -> Answer {
        let key = node.key;
        if let Some(welcome) = self.welcome(key) {
            return welcome;
        }
        match self.admit(node, claim).await {
            // Applied here, for that is where the answer comes from.
            Ok(()) => self.welcome(key).unwrap_or_else(|| Answer::Wait("it was removed meanwhile".into())),
            Err(answer) => answer,
        }
    }

    /// Lets in the members of a cluster that gives itself up then. One of them asks.
    async fn absorb(&self, key: PublicKey, cluster: ClusterId, nodes: Vec<Candidate>) -> Answer {
        if cluster == self.identity.cluster() || !nodes.iter().any(|node| node.key == key) {
            return Answer::Refused("only a member of another cluster may ask for its members".into());
        }
        for node in nodes {
            if let Err(answer) = self.admit(node, &[]).await {
                return answer;
            }
        }
        Answer::Absorbed
    }

    /// Has the log let a node in, or says why not.
    async fn admit(&self, node: Candidate, claim: &[u8]) -> Result<(), Answer> {
        let Candidate { key, name, peer_urls } = node;
        let fingerprint = Fingerprint::of(&key);
        let Some(by) = right(self.handle.view().facts(), self.trust, fingerprint, claim) else {
            self.pending.note(PendingNode { fingerprint, name, peer_urls, asked: self.clock.now() });
            return Err(Answer::Pending(format!(
                "the cluster is sealed: on one of its boxes type \"covey node approve {fingerprint}\""
            )));
        };
        let command = CharterCommand::Admit { key, name, peer_urls, by };
        match self.handle.propose(Command::Charter(command)).await.map(|applied| applied.outcome) {
            Ok(Ok(_)) => {
                self.pending.forget(fingerprint);
                Ok(())
            }
            Ok(Err(rejection)) => Err(Answer::Wait(format!("the cluster does not let it in: {rejection}"))),
            Err(error) => Err(Answer::Wait(error.to_string())),
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
