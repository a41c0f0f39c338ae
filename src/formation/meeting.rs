//! Static start: how nodes that were told of each other become one cluster, and how one more node joins it.
//!
//! Owns: what a node asks the others, what they answer, who founds and with which members. Must never: believe who asks:
//! that the other end holds the key that it shows, and is let in at all, was decided before (`peer`). Driven by `app` while the node has no cluster, and
//! by its members for those that have none.
//!
//! ```text
//! no cluster yet   asks every named node, again and again ─► all are Fresh, and its name is the lowest: it founds, with all of them as members
//!                                                          └► one says Welcome: it joins
//! a member         asked by a key among the members ─► Welcome
//!                  asked from the URLs of a place that is kept ─► the key is bound to the place, through the log ─► Welcome
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use ring::digest::{SHA256, digest};

use super::found::{Founding, found_solo};
use super::identity::{ClusterRoot, Identity, NodeKey, hash_to_id};
use super::message::{Answer, Introduction, Question, Standing, Welcome, put_count, put_text};
use crate::command::{CommandVersion, MemberAttributes};
use crate::ids::{LogIndex, MemberId, PublicKey, Revision, Term};
use crate::store::{Charter, ConfState, Member, Meta};
use crate::wal::Position;

/// A node that everybody was told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What it is called.
    pub name: String,
    /// Where it is reached.
    pub peer_urls: Vec<String>,
}

/// The meeting of one node without a cluster.
#[derive(Clone, Debug)]
pub struct Meeting {
    own: Named,
    others: Vec<Named>,
    digest: [u8; 32],
    /// Only join.
    existing: bool,
    fresh: BTreeMap<String, PublicKey>,
}

/// What the meeting has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Found a cluster of these nodes and of this one.
    Found(Vec<(Named, PublicKey)>),
    /// Join this one.
    Join(Box<Welcome>),
}

impl Meeting {
    /// A node that was told of `named`, itself among them. With `existing` it never founds.
    pub fn new(own: &str, token: &str, named: Vec<Named>, existing: bool) -> Option<Self> {
        let digest = digest_of(token, &named);
        let (own, others): (Vec<Named>, Vec<Named>) = named.into_iter().partition(|node| node.name == own);
        let own = own.into_iter().next()?;
        Some(Self { own, others, digest, existing, fresh: BTreeMap::new() })
    }

    /// Whom to ask.
    pub fn others(&self) -> &[Named] {
        &self.others
    }

    /// What to ask them.
    pub fn question(&self) -> Question {
        let Named { name, peer_urls } = self.own.clone();
        Question::Meets(Introduction { name, peer_urls, named: self.digest })
    }

    /// What to answer another node.
    pub fn answer(&self, question: &Question) -> Answer {
        let Question::Meets(question) = question else {
            return Answer::Wait(format!(
                "{} was told of its initial cluster and waits for nobody else",
                self.own.name
            ));
        };
        if self.existing {
            return Answer::Wait(format!("{} waits to join a cluster itself", self.own.name));
        }
        if question.named != self.digest {
            return Answer::Refused(format!(
                "{} was told of another initial cluster, or of another token, than {}",
                self.own.name, question.name
            ));
        }
        Answer::Fresh { name: self.own.name.clone() }
    }

    /// A round of questions begins: what was answered before counts no more.
    pub fn begin_round(&mut self) {
        self.fresh.clear();
    }

    /// The node that is called `asked`, which holds `key`, has answered. What that comes to, or a sentence where it cannot be right.
    pub fn heard(&mut self, asked: &str, key: PublicKey, answer: Answer) -> Result<Option<Verdict>, String> {
        match answer {
            Answer::Welcome(welcome) => return Ok(Some(Verdict::Join(welcome))),
            Answer::Fresh { name } if name != asked => {
                return Err(format!("where {asked} should be, a node answers that is called {name}"));
            }
            Answer::Fresh { name } => {
                if self.fresh.values().any(|other| *other == key) {
                    return Err(format!(
                        "{name} answers with the key of another node: one is a copy of the other"
                    ));
                }
                self.fresh.insert(name, key);
            }
            Answer::Wait(sentence) | Answer::Refused(sentence) | Answer::Pending(sentence) => {
                return Err(format!("{asked}: {sentence}"));
            }
            Answer::Gathers { .. }
            | Answer::Promised { .. }
            | Answer::NotPromised(_)
            | Answer::Member(_)
            | Answer::Absorbed
            | Answer::Buried(_) => {
                return Err(format!("{asked} was not told of an initial cluster"));
            }
        }
        Ok(self.verdict())
    }

    /// What the meeting has come to without hearing anybody: a cluster of one, where nobody else is named.
    pub fn verdict(&self) -> Option<Verdict> {
        let all_fresh = self.others.iter().all(|other| self.fresh.contains_key(&other.name));
        let lowest = self.others.iter().all(|other| self.own.name < other.name);
        if self.existing || !all_fresh || !lowest {
            return None;
        }
        let keyed =
            self.others.iter().filter_map(|other| Some((other.clone(), *self.fresh.get(&other.name)?)));
        Some(Verdict::Found(keyed.collect()))
    }

    /// What a node founds that came to [`Verdict::Found`]: its key, root and nonce are fresh and random.
    pub fn found(
        &self,
        key: NodeKey,
        root: ClusterRoot,
        boot_nonce: u64,
        others: &[(Named, PublicKey)],
    ) -> Founding {
        let mut founding = found_solo(key, root, boot_nonce);
        let meta = &mut founding.meta;
        meta.members[0].attributes.name.clone_from(&self.own.name);
        meta.members[0].attributes.peer_urls.clone_from(&self.own.peer_urls);
        for (named, key) in others {
            let member = MemberId(hash_to_id(b"covey member id 1", &[&root.0, &key.0]));
            let Named { name, peer_urls } = named.clone();
            // Its name is not known to be its own before it says so.
            let attributes = MemberAttributes { member, name, peer_urls, ..MemberAttributes::default() };
            meta.members.push(Member { key: Some(*key), votes: true, attributes });
        }
        meta.members.sort_by_key(Member::id);
        meta.forming = !others.is_empty();
        founding
    }
}

/// What a node's store begins with that joins: nothing but whom to listen to. The state of the others takes its place. Until then it does not know whether a
/// user has written, and must not say so: another cluster would give itself up for that.
pub fn joining_state(members: Vec<Member>) -> (Meta, Position) {
    let meta = Meta {
        applied: LogIndex(0),
        applied_term: Term(0),
        conf_state: ConfState::default(),
        revision: Revision(1),
        members,
        charter: Arc::new(Charter { committed: false, ..Charter::default() }),
        ..Meta::default()
    };
    (meta, Position::default())
}

/// What a member makes of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reception {
    /// Answer this.
    Answer(Answer),
    /// The place of this member waits for the node that asks: bind the key to it, then ask again what to answer.
    Bind(MemberId),
}

/// What a member of a cluster that lets nobody in by itself answers to the holder of `key`: it has this identity, these are the members, and such commands it uses.
pub fn receive(
    identity: &Identity,
    (members, commands): (&[Member], CommandVersion),
    key: PublicKey,
    question: &Question,
) -> Reception {
    let welcome = |member| {
        let welcome = Welcome::of(identity.root, identity.generation, member, members, commands);
        Reception::Answer(Answer::Welcome(Box::new(welcome)))
    };
    let known = members.iter().find(|member| member.key == Some(key));
    let question = match (question, known) {
        (Question::Probe { .. } | Question::Promise { .. } | Question::Fate { .. }, _) => {
            return Reception::Answer(Answer::Member(standing(identity, members, commands)));
        }
        (Question::Meets(_) | Question::Join { .. }, Some(member)) => return welcome(member.id()),
        (Question::Join { .. }, None) | (Question::Absorb { .. }, _) => {
            let sentence = "the cluster is sealed: no node gets in by itself";
            return Reception::Answer(Answer::Pending(sentence.into()));
        }
        (Question::Meets(question), None) => question,
    };
    let same_urls = |member: &&Member| sorted(&member.attributes.peer_urls) == sorted(&question.peer_urls);
    match members.iter().find(same_urls) {
        Some(place) if place.key.is_none() => Reception::Bind(place.id()),
        Some(place) => Reception::Answer(Answer::Refused(format!(
            "member {} at these peer URLs has another key: remove it and add it anew, if its disk was lost",
            place.id()
        ))),
        None => Reception::Answer(Answer::Refused(format!(
            "no member is expected at the peer URLs {}: add it first (member add)",
            question.peer_urls.join(",")
        ))),
    }
}

/// Such a cluster is what it is from its first entry on: nothing in it may be given up for another one.
fn standing(identity: &Identity, members: &[Member], uses: CommandVersion) -> Standing {
    let own = members.iter().find(|member| member.id() == identity.member);
    let name = own.map(|member| member.attributes.name.clone()).unwrap_or_default();
    let (cluster, generation) = (identity.cluster(), identity.generation);
    Standing { name, cluster, generation, committed: true, open: false, uses, understands: uses }
}

fn sorted(urls: &[String]) -> Vec<&String> {
    let mut urls: Vec<&String> = urls.iter().collect();
    urls.sort_unstable();
    urls
}

/// Equal where the same token and the same nodes were given, in whatever order.
fn digest_of(token: &str, named: &[Named]) -> [u8; 32] {
    let mut bytes = b"covey initial cluster 1".to_vec();
    put_text(&mut bytes, token);
    let mut named: Vec<&Named> = named.iter().collect();
    named.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    for node in named {
        put_text(&mut bytes, &node.name);
        put_count(&mut bytes, node.peer_urls.len());
        for url in sorted(&node.peer_urls) {
            put_text(&mut bytes, url);
        }
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, &bytes).as_ref());
    hash
}

#[cfg(test)]
#[path = "meeting_test.rs"]
mod tests;
