//! What a member of a cluster that formed by itself answers to nodes that have none.
//!
//! Owns: by which right a node is let in, and who waits for an operator. Must never: let anybody in: the log does, by its own rules, and what is asked for
//! here may be refused there. Driven by `peers`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::encounters::Conflicts;
use super::fates::Decision;
use super::staggered::together;
use crate::command::{Admission, CharterCommand, CommandVersion, Rejection, TokenId, Tombstone};
use crate::config::TrustMode;
use crate::formation::{
    ABSORBED_MAX, Answer, Candidate, Fingerprint, Identity, Outdated, PLACE_BYTES_MAX, PLACES_MAX, Question,
    Standing, Welcome,
};
use crate::ids::{ClusterId, Incarnation, LogIndex, PublicKey};
use crate::limits::PENDING_NODES_MAX;
use crate::machine::check_admission;
use crate::mvcc::Facts;
use crate::node::{self, Applicants};
use crate::peer::{Answerer, Tokens};
use crate::runtime::Handle;
use crate::runtime::clock::Clock;
use crate::store::{Charter, Member};
use crate::telemetry::Muffle;
use crate::time::Instant;

/// A node that has asked to be let in, and that nothing lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PendingNode {
    fingerprint: Fingerprint,
    name: String,
    peer_urls: Vec<String>,
    /// When it asked last.
    asked: Instant,
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
    fn list(&self) -> Vec<PendingNode> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// The same as of now, for operators.
    pub(super) fn as_of(&self, now: Instant) -> Vec<node::PendingNode> {
        let told = |PendingNode { fingerprint, name, peer_urls, asked }: PendingNode| node::PendingNode {
            fingerprint,
            name,
            peer_urls,
            asked: now.since(asked),
        };
        self.list().into_iter().map(told).collect()
    }
}

/// So many boxes of older builds are told of in a minute.
const OUTDATED_TOLD_MAX: u8 = 16;

/// What a member needs to answer.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) identity: Identity,
    pub(super) name: String,
    pub(super) handle: Handle,
    pub(super) trust: TrustMode,
    pub(super) pending: Arc<Pending>,
    pub(super) conflicts: Arc<Conflicts>,
    /// Boxes of older builds that were told of.
    pub(super) outdated: Arc<Mutex<Muffle<u8>>>,
    /// Taken when the cluster has ended for this member without saying so itself.
    pub(super) ended: Arc<Decision>,
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

    /// Who waits at this member, as the others are told.
    pub(super) fn applicants(&self) -> Applicants {
        Applicants(self.pending.as_of(self.clock.now()))
    }

    /// What proofs with the tokens of this cluster are made with.
    pub(super) fn tokens(&self) -> Tokens {
        let handle = self.handle.clone();
        Tokens(Arc::new(move |id| handle.view().facts().charter.token(id).map(|token| token.key)))
    }

    async fn answer(&self, key: PublicKey, question: Question) -> Answer {
        if let Some(why) = self.has_nothing_to_say() {
            return Answer::Wait(why.into());
        }
        match question {
            Question::Probe { .. } | Question::Promise { .. } => Answer::Member(self.standing()),
            Question::Meets(_) => {
                let sentence = "this cluster formed by itself: start the node without --initial-cluster";
                Answer::Refused(sentence.into())
            }
            Question::Join { name, peer_urls, claim, run, understands } => {
                let node = Candidate { key, name, peer_urls };
                if let Some(answer) = self.turns_down(&node, understands) {
                    return answer;
                }
                self.join(node, &claim, run, understands).await
            }
            Question::Absorb { cluster, winner, nodes, understands } => {
                match asked_rightly(key, cluster, winner, &nodes, self.identity.cluster()) {
                    Ok(()) => self.absorb(key, cluster, nodes, understands).await,
                    Err(why) => Answer::Refused(why),
                }
            }
            Question::Fate { cluster } => self.fate(cluster),
        }
    }

    /// Why this member must not speak for its cluster: it does not know it yet, or there is none any more.
    pub(super) fn has_nothing_to_say(&self) -> Option<&'static str> {
        let view = self.handle.view();
        why_silent(&view.facts().charter, view.applied(), self.handle.is_catching_up())
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
            open: is_open(self.trust, charter),
            uses: view.facts().commands,
            understands: view.facts().understood(),
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

    async fn join(
        &self,
        node: Candidate,
        claim: &[u8],
        run: Incarnation,
        understands: CommandVersion,
    ) -> Answer {
        let key = node.key;
        let Some(by) = self.right(key, claim) else { return self.waits(node, sealed(key)) };
        match self.admit(node.clone(), by, run, None).await {
            // Applied here, for that is where the answer comes from. Newer commands may have come into use before it; after it they do not.
            Ok(()) => self
                .turns_down(&node, understands)
                .or_else(|| self.welcome(key))
                .unwrap_or_else(|| Answer::Wait("it was removed meanwhile".into())),
            Err(answer) => answer,
        }
    }

    /// What a node is told that could not go on from this cluster's state.
    fn turns_down(&self, node: &Candidate, understands: CommandVersion) -> Option<Answer> {
        let why = too_old(understands, self.handle.view().facts().commands)?;
        let fingerprint = Fingerprint::of(&node.key);
        let alike = fingerprint.bytes()[0] % OUTDATED_TOLD_MAX;
        let mut told = self.outdated.lock().unwrap_or_else(PoisonError::into_inner);
        if told.tell(self.clock.now(), alike).is_some() {
            tracing::warn!(
                name = node.name, %fingerprint, why,
                "a node of an older build asks to join and is not let in; this is told once a minute"
            );
        }
        Some(Answer::Refused(why))
    }

    /// Lets in the members of a cluster that gives itself up then. One of them asks: only of that one is it known that it holds its key.
    async fn absorb(
        &self,
        key: PublicKey,
        cluster: ClusterId,
        nodes: Vec<Candidate>,
        understands: CommandVersion,
    ) -> Answer {
        let outdated = || {
            let used = self.handle.view().facts().commands;
            Outdated::of(true, understands, used).map(|outdated| Answer::Refused(outdated.to_string()))
        };
        if let Some(answer) = outdated() {
            return answer;
        }
        let (admitted, waiting) = sorted_out(self.handle.view().facts(), self.trust, key, nodes);
        let mut answer = None;
        for node in waiting {
            let why = sealed(node.key);
            answer = Some(self.waits(node, why));
        }
        if let Some(answer) = answer {
            return answer;
        }
        // Whoever asks does not wait for as many turns of the log as there are members.
        let outcomes = together(ABSORBED_MAX, admitted, |(node, by)| {
            self.admit(node, by, Incarnation(0), Some(cluster))
        })
        .await;
        // Newer commands may have come into use before they were members; after that they do not.
        outcomes.into_iter().find_map(Result::err).or_else(outdated).unwrap_or(Answer::Absorbed)
    }

    /// What is known of another cluster, or how this one stands.
    fn fate(&self, cluster: ClusterId) -> Answer {
        let known = left_of(cluster, &self.handle.view().facts().charter);
        if known.is_empty() { Answer::Member(self.standing()) } else { Answer::Buried(known) }
    }

    /// Notes a node that an operator has to let in, and tells it why.
    fn waits(&self, node: Candidate, why: String) -> Answer {
        let Candidate { key, name, peer_urls } = node;
        let (fingerprint, asked) = (Fingerprint::of(&key), self.clock.now());
        self.pending.note(PendingNode { fingerprint, name, peer_urls: kept(peer_urls), asked });
        Answer::Pending(why)
    }

    /// Has the log let a node in, or says why not. Of who is a member already the log is asked, too: the cluster may have ended, and this member not know it
    /// yet. Let in as who it was, a node that has left would vote with an empty log.
    async fn admit(
        &self,
        node: Candidate,
        by: Admission,
        run: Incarnation,
        of: Option<ClusterId>,
    ) -> Result<(), Answer> {
        // Nothing is written to the log only to be refused there.
        let checked = {
            let view = self.handle.view();
            let is_in = member_with(view.facts(), node.key).is_some();
            if is_in { Ok(()) } else { check_admission(view.facts(), node.key, by) }
        };
        if let Err(rejection) = checked {
            return Err(self.waits(node, refused(rejection)));
        }
        let Candidate { key, name, peer_urls } = node;
        let peer_urls = kept(peer_urls);
        match self.handle.change_charter(CharterCommand::Admit { key, name, peer_urls, by, run, of }).await {
            Ok(applied) => {
                self.pending.forget(Fingerprint::of(&key));
                applied.outcome.map(drop).map_err(|rejection| Answer::Pending(refused(rejection)))
            }
            Err(error) => Err(Answer::Wait(error.to_string())),
        }
    }

    fn right(&self, key: PublicKey, claim: &[u8]) -> Option<Admission> {
        right(self.handle.view().facts(), self.trust, key, claim)
    }

    fn welcome(&self, key: PublicKey) -> Option<Answer> {
        let view = self.handle.view();
        let member = member_with(view.facts(), key)?.id();
        let Identity { root, generation, .. } = self.identity;
        let welcome = Welcome::of(root, generation, member, &view.facts().members, view.facts().commands);
        Some(Answer::Welcome(Box::new(welcome)))
    }
}

/// See [`Desk::has_nothing_to_say`].
fn why_silent(charter: &Charter, applied: LogIndex, catches_up: bool) -> Option<&'static str> {
    if charter.dissolved.is_some() {
        return Some("its cluster has given itself up for another one");
    }
    let is_new = applied == LogIndex(0) || catches_up;
    is_new.then_some("it does not know its cluster's state yet")
}

/// What a node is told that does not understand what the cluster uses: it would have to stop before it has begun.
fn too_old(understands: CommandVersion, used: CommandVersion) -> Option<String> {
    let (CommandVersion(understood), CommandVersion(uses)) = (understands, used);
    (understands < used).then(|| {
        format!(
            "covey is to be upgraded on this node: it understands commands up to version {understood}, and the cluster uses version {uses}"
        )
    })
}

/// What the members of another cluster have left of its end.
fn left_of(cluster: ClusterId, charter: &Charter) -> Vec<Tombstone> {
    charter.buried.iter().filter(|tombstone| tombstone.cluster == cluster).copied().collect()
}

/// Whether nodes come in that no operator has let in.
fn is_open(trust: TrustMode, charter: &Charter) -> bool {
    match trust {
        TrustMode::LanOpen => charter.is_open(),
        TrustMode::FleetKey => true,
        TrustMode::Locked => false,
    }
}

/// By which right a node may come in, if by any. Another one may ask for it, which shows nothing of its key: what lets it in names that key, or lets in any.
fn right(facts: &Facts, trust: TrustMode, key: PublicKey, claim: &[u8]) -> Option<Admission> {
    let charter = &facts.charter;
    if member_with(facts, key).is_some() {
        // It is in: nothing has to let it in.
        return Some(Admission::Window);
    }
    // An operator's word about this very key lets in one that was removed, too, and costs no token.
    if charter.approved.contains(&key.fingerprint()) {
        return Some(Admission::Approval);
    }
    match trust {
        // It has proven that it has the secret, or it would not have been listened to.
        TrustMode::FleetKey => Some(Admission::FleetKey),
        // As with the secret: who names a token has proven to have it.
        TrustMode::LanOpen | TrustMode::Locked if !claim.is_empty() => {
            Some(Admission::Token(TokenId(claim.try_into().ok()?)))
        }
        TrustMode::LanOpen if charter.is_open() => Some(Admission::Window),
        TrustMode::LanOpen | TrustMode::Locked => None,
    }
}

/// Whom of the members of another cluster the log is to let in, and who waits for an operator. About those that are in there is nothing to be said; but of the one
/// that asks the log is asked all the same, for the cluster may have ended, and this member not know it yet.
fn sorted_out(
    facts: &Facts,
    trust: TrustMode,
    asks: PublicKey,
    nodes: Vec<Candidate>,
) -> (Vec<(Candidate, Admission)>, Vec<Candidate>) {
    let (mut admitted, mut waiting) = (Vec::new(), Vec::new());
    for node in nodes {
        match right(facts, trust, node.key, &[]) {
            None => waiting.push(node),
            Some(_) if node.key != asks && member_with(facts, node.key).is_some() => {}
            Some(by) => admitted.push((node, by)),
        }
    }
    (admitted, waiting)
}

/// Whether the cluster that is to take in the members of another one is asked, and by one of those. Who has met a member of another cluster may have met it before
/// it came into this one, and would give itself up for a cluster that has not taken anybody in.
fn asked_rightly(
    asks: PublicKey,
    cluster: ClusterId,
    winner: ClusterId,
    nodes: &[Candidate],
    own: ClusterId,
) -> Result<(), String> {
    if winner != own {
        return Err(format!("it is in cluster {own} by now"));
    }
    if cluster == own || !nodes.iter().any(|node| node.key == asks) {
        return Err("only a member of another cluster may ask for its members".into());
    }
    Ok(())
}

/// What is kept of where a node says that it is, best first.
fn kept(mut peer_urls: Vec<String>) -> Vec<String> {
    peer_urls.retain(|url| url.len() <= PLACE_BYTES_MAX);
    peer_urls.truncate(PLACES_MAX);
    peer_urls
}

/// The member that holds this key.
fn member_with(facts: &Facts, key: PublicKey) -> Option<&Member> {
    facts.members.iter().find(|member| member.key == Some(key))
}

/// What a node is told that has shown something which lets it in no more, or not now.
fn refused(rejection: Rejection) -> String {
    let advice = match rejection {
        Rejection::TokenNotFound | Rejection::TokenUsed => {
            ": on one of its boxes type \"covey token create\", put what it prints into the file of --join-token-file on this one, and start covey here again"
        }
        _ => "",
    };
    format!("the cluster does not let it in: {rejection}{advice}")
}

/// What a node is told that nothing lets in.
fn sealed(key: PublicKey) -> String {
    let fingerprint = Fingerprint::of(&key);
    format!("the cluster is sealed: on one of its boxes type \"covey node approve {fingerprint}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::MemberAttributes;
    use crate::ids::MemberId;
    use crate::store::Dissolution;

    fn key(n: u64) -> PublicKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        PublicKey(key)
    }

    fn node(n: u64) -> PendingNode {
        let fingerprint = Fingerprint::of(&key(n));
        PendingNode { fingerprint, name: n.to_string(), peer_urls: Vec::new(), asked: Instant(n) }
    }

    #[test]
    fn those_who_asked_last_wait_and_no_more_than_so_many() {
        let pending = Pending::default();
        let names = || pending.list().into_iter().map(|node| node.name).collect::<Vec<_>>();
        let all = 3 * PENDING_NODES_MAX as u64;
        for n in 0..all {
            pending.note(node(n));
            // It asks again and again, and is there once.
            pending.note(node(7));
        }
        assert_eq!(pending.list().len(), PENDING_NODES_MAX);
        assert_eq!(names().last().unwrap(), "7");
        assert_eq!(names().iter().filter(|name| *name == "7").count(), 1);
        assert!(!names().contains(&"0".to_owned()) && names().contains(&(all - 1).to_string()));
        pending.forget(node(7).fingerprint);
        assert!(!names().contains(&"7".to_owned()));
    }

    /// The state of a cluster that has formed by itself, with one member.
    fn facts(open: bool, approved: &[PublicKey]) -> Facts {
        let mut charter = Charter::automatic();
        charter.approved = approved.iter().map(PublicKey::fingerprint).collect();
        if !open {
            charter.elapsed = charter.window.closes;
        }
        let attributes = MemberAttributes { member: MemberId(1), ..MemberAttributes::default() };
        let members = vec![Member { key: Some(key(1)), votes: true, attributes }];
        Facts { members, charter: Arc::new(charter), ..Facts::default() }
    }

    /// A cluster of several boxes that gives itself up is asked for by one of them: the others show nothing themselves.
    #[test]
    fn what_lets_a_node_in_follows_from_the_mode_of_trust() {
        use TrustMode::{FleetKey, LanOpen, Locked};
        let (open, sealed) = (facts(true, &[]), facts(false, &[]));
        let (approves, token) = (facts(false, &[key(2)]), Some(Admission::Token(TokenId([7; 8]))));
        let (window, approval) = (Some(Admission::Window), Some(Admission::Approval));
        let fleet = Some(Admission::FleetKey);
        let claim: &[u8] = &[7; 8];
        for (trust, facts, claim, expected) in [
            (LanOpen, &open, &[][..], window),
            (LanOpen, &sealed, &[], None),
            (LanOpen, &approves, &[], approval),
            (LanOpen, &sealed, claim, token),
            (LanOpen, &open, &[7; 7], None),
            (Locked, &open, &[], None),
            (Locked, &approves, &[], approval),
            (Locked, &sealed, claim, token),
            (LanOpen, &approves, claim, approval),
            (FleetKey, &sealed, &[], fleet),
            (FleetKey, &approves, &[], approval),
        ] {
            assert_eq!(right(facts, trust, key(2), claim), expected, "{trust:?} {claim:?}");
        }
        for trust in [LanOpen, Locked, FleetKey] {
            assert_eq!(right(&sealed, trust, key(1), &[]), window, "a member");
        }
        assert_eq!(right(&approves, LanOpen, key(3), &[]), None, "somebody else is approved");
        // What others are told is what happens.
        for (trust, facts) in [(LanOpen, &open), (LanOpen, &sealed), (Locked, &open), (FleetKey, &sealed)] {
            assert_eq!(
                is_open(trust, &facts.charter),
                right(facts, trust, key(2), &[]).is_some(),
                "{trust:?}"
            );
        }
    }

    /// What the boxes of a fleet have lets in all of them, but for those that an operator has removed; and an operator may have it back.
    #[test]
    fn a_key_that_was_removed_comes_back_by_an_approval_whatever_the_mode_of_trust() {
        for trust in [TrustMode::LanOpen, TrustMode::Locked, TrustMode::FleetKey] {
            let removed = vec![(MemberId(2), Some(key(2)))];
            let before = Facts { removed, ..facts(true, &[]) };
            let lets_in = |facts: &Facts| {
                right(facts, trust, key(2), &[]).is_some_and(|by| check_admission(facts, key(2), by).is_ok())
            };
            assert!(!lets_in(&before), "{trust:?}");
            assert!(lets_in(&Facts { charter: facts(true, &[key(2)]).charter, ..before }), "{trust:?}");
        }
    }

    #[test]
    fn of_another_clusters_members_the_log_is_asked_about_those_that_are_new_and_the_one_that_asks() {
        let node = |n| Candidate { key: key(n), name: n.to_string(), peer_urls: Vec::new() };
        let sort = |facts: &Facts, asks, nodes: &[u64]| {
            let nodes = nodes.iter().copied().map(node).collect();
            let (admitted, waiting) = sorted_out(facts, TrustMode::LanOpen, key(asks), nodes);
            let names = |node: Candidate| node.name.parse().unwrap();
            let admitted: Vec<(u64, _)> = admitted.into_iter().map(|(node, by)| (names(node), by)).collect();
            (admitted, waiting.into_iter().map(names).collect::<Vec<u64>>())
        };
        let window = |n| (n, Admission::Window);
        let open = facts(true, &[]);
        assert_eq!(sort(&open, 3, &[1, 2, 3]), (vec![window(2), window(3)], vec![]), "one is in");
        assert_eq!(
            sort(&open, 1, &[1]),
            (vec![window(1)], vec![]),
            "the log says whether the cluster still is"
        );
        // None comes in before all do: a cluster that is torn apart could not give itself up any more.
        let approves = facts(false, &[key(2)]);
        assert_eq!(sort(&approves, 2, &[2, 3]), (vec![(2, Admission::Approval)], vec![3]));
        let approves = facts(false, &[key(2), key(3)]);
        let approved = |n| (n, Admission::Approval);
        assert_eq!(sort(&approves, 2, &[2, 3]), (vec![approved(2), approved(3)], vec![]));
    }

    #[test]
    fn a_member_speaks_for_its_cluster_once_it_knows_it_and_while_there_is_one() {
        let (lives, knows) = (Charter::automatic(), LogIndex(1));
        assert_eq!(why_silent(&lives, knows, false), None);
        assert!(why_silent(&lives, LogIndex(0), false).is_some_and(|why| why.contains("state")));
        assert!(why_silent(&lives, knows, true).is_some_and(|why| why.contains("state")));
        let end = Dissolution { winner: ClusterId(2), at: LogIndex(1), ordered: false };
        let ended = Charter { dissolved: Some(end), ..Charter::automatic() };
        for catches_up in [false, true] {
            assert!(why_silent(&ended, knows, catches_up).is_some_and(|why| why.contains("given itself up")));
        }
    }

    #[test]
    fn of_a_cluster_that_has_ended_all_is_told_that_its_members_have_left() {
        let tombstone = |cluster, signer| Tombstone {
            cluster: ClusterId(cluster),
            winner: ClusterId(1),
            at: LogIndex(5),
            signer: key(signer),
            signature: [0; 64],
        };
        let buried = vec![tombstone(2, 7), tombstone(3, 8), tombstone(2, 9)];
        let charter = Charter { buried, ..Charter::automatic() };
        assert_eq!(left_of(ClusterId(2), &charter), [tombstone(2, 7), tombstone(2, 9)]);
        assert_eq!(left_of(ClusterId(1), &charter), [], "it is where they went");
    }

    #[test]
    fn the_members_of_another_cluster_are_asked_for_by_one_of_them_and_of_the_cluster_that_they_are_to_join()
    {
        let nodes = [2, 3].map(|n| Candidate { key: key(n), name: n.to_string(), peer_urls: Vec::new() });
        let asks = |n, cluster, winner| {
            asked_rightly(key(n), ClusterId(cluster), ClusterId(winner), &nodes, ClusterId(7)).is_ok()
        };
        assert!(asks(2, 9, 7));
        assert!(!asks(2, 9, 8), "the box was in another cluster when it was met");
        assert!(!asks(4, 9, 7) && !asks(2, 7, 7));
    }

    #[test]
    fn who_has_a_token_that_is_worth_nothing_is_told_to_get_another_one() {
        for worthless in [Rejection::TokenUsed, Rejection::TokenNotFound] {
            let told = refused(worthless);
            assert!(told.contains("covey token create") && told.contains("--join-token-file"), "{told}");
        }
        assert!(!refused(Rejection::Sealed).contains("token create"), "there is none to be replaced");
    }

    #[test]
    fn of_a_box_with_many_addresses_the_first_are_kept() {
        let url = |n: usize| format!("https://10.0.0.{n}:2380");
        let urls = |count| (0..count).map(url).collect::<Vec<_>>();
        assert_eq!(kept(urls(3)), urls(3));
        assert_eq!(kept(urls(40)), urls(PLACES_MAX));
        let long = "u".repeat(PLACE_BYTES_MAX + 1);
        assert_eq!(kept([vec![long], urls(40)].concat()), urls(PLACES_MAX));
    }
}
