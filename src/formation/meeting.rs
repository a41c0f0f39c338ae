//! Static start: how nodes that were told of each other become one cluster, and how one more node joins it.
//!
//! Owns: what a node asks the others, what they answer, who founds and with which members, and the bytes of both. Must never: believe who asks:
//! that the other end holds the key that it shows, and is let in at all, was decided before (`peer`). Driven by `app` while the node has no cluster, and
//! by its members for those that have none.
//!
//! ```text
//! no cluster yet   asks every named node, again and again ─► all are Fresh, and its name is the lowest: it founds, with all of them as members
//!                                                          └► one says Welcome: it joins
//! a member         asked by a key among the members ─► Welcome
//!                  asked from the URLs of a place that is kept ─► the key is bound to the place, through the log ─► Welcome
//! ```
//!
//! ```text
//! question  = version:u8 (1)  name:text  peer_urls:list of text  named:32 bytes      lengths and counts are u16 LE
//! answer    = version:u8 (1)  kind:u8
//!             1 fresh: name:text     2 welcome: root:32  generation:u64 LE  member:u64 LE  facts (as the store keeps them)
//!             3 wait: sentence:text  4 refused: sentence:text
//! ```

use std::collections::BTreeMap;

use ring::digest::{SHA256, digest};

use super::found::{Founding, found_solo};
use super::identity::{ClusterRoot, Generation, Identity, NodeKey, PUBLIC_KEY_BYTES, hash_to_id};
use crate::command::MemberAttributes;
use crate::ids::{LogIndex, MemberId, PublicKey, Revision, Term};
use crate::store::{ConfState, Member, Meta, decode_facts, encode_facts};
use crate::wal::Position;

/// The version of the bytes.
const VERSION: u8 = 1;
const FRESH: u8 = 1;
const WELCOME: u8 = 2;
const WAIT: u8 = 3;
const REFUSED: u8 = 4;
/// Names, URLs and sentences are no longer than this.
const TEXT_BYTES_MAX: usize = 4096;
/// No node has more URLs.
const URLS_MAX: usize = 16;

/// A node that everybody was told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What it is called.
    pub name: String,
    /// Where it is reached.
    pub peer_urls: Vec<String>,
}

/// What a node without a cluster says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What it is called.
    pub name: String,
    /// Where it is reached.
    pub peer_urls: Vec<String>,
    /// What it was told: a digest of the token and of all named nodes.
    pub named: [u8; 32],
}

/// What it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There is no cluster here either.
    Fresh {
        /// What this node is called.
        name: String,
    },
    /// Join.
    Welcome(Box<Welcome>),
    /// Not now; ask again.
    Wait(String),
    /// Never, as things are.
    Refused(String),
}

/// What a node has to know to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The cluster.
    pub root: ClusterRoot,
    /// Its generation.
    pub generation: Generation,
    /// Which member the node is.
    pub member: MemberId,
    /// All members, with keys and places.
    pub members: Vec<Member>,
}

/// Bytes are no question or answer of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a question or an answer of this version")]
pub struct MeetingError;

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
        Question { name, peer_urls, named: self.digest }
    }

    /// What to answer another node.
    pub fn answer(&self, question: &Question) -> Answer {
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
            Answer::Wait(sentence) | Answer::Refused(sentence) => return Err(format!("{asked}: {sentence}")),
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

/// What a node's store begins with that joins: nothing but whom to listen to. The state of the others takes its place.
pub fn joining_state(members: Vec<Member>) -> (Meta, Position) {
    let meta = Meta {
        applied: LogIndex(0),
        applied_term: Term(0),
        conf_state: ConfState::default(),
        revision: Revision(1),
        members,
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

/// What a member with this identity and these members answers to the holder of `key`.
pub fn receive(identity: &Identity, members: &[Member], key: PublicKey, question: &Question) -> Reception {
    let welcome = |member| {
        Reception::Answer(Answer::Welcome(Box::new(Welcome {
            root: identity.root,
            generation: identity.generation,
            member,
            members: members.to_vec(),
        })))
    };
    if let Some(member) = members.iter().find(|member| member.key == Some(key)) {
        return welcome(member.id());
    }
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

/// Its first bytes, where it is longer than any that is read back.
fn put_text(out: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
    put_count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
}

fn take_count(bytes: &mut &[u8], max: usize) -> Result<usize, MeetingError> {
    let count = usize::from(u16::from_le_bytes(take_array(bytes)?));
    if count <= max { Ok(count) } else { Err(MeetingError) }
}

fn take_text(bytes: &mut &[u8]) -> Result<String, MeetingError> {
    let length = take_count(bytes, TEXT_BYTES_MAX)?;
    let (text, rest) = bytes.split_at_checked(length).ok_or(MeetingError)?;
    *bytes = rest;
    Ok(std::str::from_utf8(text).map_err(|_| MeetingError)?.to_owned())
}

fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], MeetingError> {
    let (array, rest) = bytes.split_first_chunk::<N>().ok_or(MeetingError)?;
    *bytes = rest;
    Ok(*array)
}

fn end<T>(bytes: &[u8], value: T) -> Result<T, MeetingError> {
    if bytes.is_empty() { Ok(value) } else { Err(MeetingError) }
}

impl Question {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_text(&mut out, &self.name);
        put_count(&mut out, self.peer_urls.len());
        for url in &self.peer_urls {
            put_text(&mut out, url);
        }
        out.extend_from_slice(&self.named);
        out
    }

    /// Reads back what [`Question::encode`] wrote.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, MeetingError> {
        let bytes = &mut bytes;
        if take_array(bytes)? != [VERSION] {
            return Err(MeetingError);
        }
        let name = take_text(bytes)?;
        let peer_urls =
            (0..take_count(bytes, URLS_MAX)?).map(|_| take_text(bytes)).collect::<Result<_, _>>()?;
        let named = take_array(bytes)?;
        end(bytes, Self { name, peer_urls, named })
    }
}

impl Answer {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match self {
            Self::Fresh { name } => {
                out.push(FRESH);
                put_text(&mut out, name);
            }
            Self::Welcome(welcome) => {
                out.push(WELCOME);
                out.extend_from_slice(&welcome.root.0);
                out.extend_from_slice(&welcome.generation.0.to_le_bytes());
                out.extend_from_slice(&welcome.member.0.to_le_bytes());
                let (meta, _) = joining_state(welcome.members.clone());
                out.extend_from_slice(&encode_facts(&meta));
            }
            Self::Wait(sentence) => {
                out.push(WAIT);
                put_text(&mut out, sentence);
            }
            Self::Refused(sentence) => {
                out.push(REFUSED);
                put_text(&mut out, sentence);
            }
        }
        out
    }

    /// Reads back what [`Answer::encode`] wrote.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, MeetingError> {
        let bytes = &mut bytes;
        let [version, kind] = take_array(bytes)?;
        if version != VERSION {
            return Err(MeetingError);
        }
        let answer = match kind {
            FRESH => Self::Fresh { name: take_text(bytes)? },
            WELCOME => {
                let root = ClusterRoot(take_array::<PUBLIC_KEY_BYTES>(bytes)?);
                let generation = Generation(u64::from_le_bytes(take_array(bytes)?));
                let member = MemberId(u64::from_le_bytes(take_array(bytes)?));
                let facts = decode_facts(std::mem::take(bytes)).map_err(|_| MeetingError)?;
                let members = facts.members;
                // Ascending, and the one that is welcome among them: the state begins from these unseen.
                let sound = members.is_sorted_by(|a, b| a.id() < b.id())
                    && members.iter().any(|known| known.id() == member && known.key.is_some());
                if !sound {
                    return Err(MeetingError);
                }
                Self::Welcome(Box::new(Welcome { root, generation, member, members }))
            }
            WAIT => Self::Wait(take_text(bytes)?),
            REFUSED => Self::Refused(take_text(bytes)?),
            _ => return Err(MeetingError),
        };
        end(bytes, answer)
    }
}

#[cfg(test)]
#[path = "meeting_test.rs"]
mod tests;
