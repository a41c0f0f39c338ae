//! What nodes ask of each other before they are in one cluster, and what they are answered.
//!
//! Owns: the questions, the answers, and the bytes of both. Must never: judge what is said (`meeting` and `gathering` do), or panic at any bytes. Carried
//! by `peer`, one question and its answer at a time.
//!
//! ```text
//! question  = version:u8 (2)  kind:u8
//!             1 meets:   name:text  peer_urls:list of text  named:32 bytes
//!             2 probe:   name:text  over:u8 (0, 1)  round:u64, if 1  view
//!             3 promise: round:u64  patient:u8 (0, 1)  view
//!             4 join:    name:text  peer_urls:list of text  claim:bytes  run:u64  [understands:u8]
//!             5 absorb:  cluster:u64  winner:u64  nodes:list of (key:32 bytes  name:text  peer_urls:list of text)  [understands:u8]
//!             6 fate:    cluster:u64
//! answer    = version:u8 (2)  kind:u8
//!             1 fresh: name:text     2 welcome: root:32  generation:u64  member:u64  facts (as the store keeps them)
//!             3 wait: sentence:text  4 refused: sentence:text
//!             5 gathers: name:text  attempt:u8 (0, 1)  round:u64, if 1  promised:u8 (0, 1)  to:32, if 1  waits:u8 (0, 1)  view
//!             6 promised: round:u64  7 not promised: sentence:text
//!             8 member: name:text  cluster:u64  generation:u64  flags:u8 (1 committed, 2 open)  [uses:u8  understands:u8]
//!             9 pending: sentence:text     10 absorbed     11 buried: list of 120 bytes, see `Tombstone`
//! view      = list of fingerprints of 32 bytes, ascending
//! ```
//!
//! Lengths and counts are u16; all numbers are little endian. What is in brackets are versions of commands: missing, they are the first, as with builds that know
//! of none, which take what has them for no message at all and are not told them ([`Dialect`]).

use super::identity::{ClusterRoot, FINGERPRINT_BYTES, Fingerprint, Generation, PUBLIC_KEY_BYTES};
use super::meeting::joining_state;
use crate::command::{CommandVersion, MemberAttributes, TOMBSTONE_BYTES, Tombstone};
use crate::ids::{ClusterId, Incarnation, MemberId, PublicKey};
use crate::limits::{ADMITTED_MEMBERS_MAX, NODE_NAME_BYTES_MAX, TOMBSTONES_MAX};
use crate::store::{Member, Meta, decode_facts, encode_facts};

/// The version of the bytes.
const VERSION: u8 = 2;
/// Names, URLs and sentences are no longer than this.
pub(super) const TEXT_BYTES_MAX: usize = 4096;
/// No node says more URLs of itself than these, the first of what it has.
const URLS_MAX: usize = 16;
/// What is shown for being let in is no longer.
pub const CLAIM_BYTES_MAX: usize = 256;
/// Of where a member is no more is said: what all of them say has to fit into one answer.
pub const PLACES_MAX: usize = 8;
/// The same of one of these places.
pub const PLACE_BYTES_MAX: usize = 128;
/// Names and places in one welcome: room for those of as many members as come in by themselves.
const WELCOME_TEXT_BYTES_MAX: usize =
    ADMITTED_MEMBERS_MAX * (NODE_NAME_BYTES_MAX + PLACES_MAX * PLACE_BYTES_MAX);
/// So many members of another cluster are taken in at a time, whoever asks for that among them.
pub const ABSORBED_MAX: usize = 32;
/// No view names more nodes. Of more, the ones with the lowest fingerprints are those that matter.
pub const VIEW_NODES_MAX: usize = 512;

/// Which builds are to read a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// All: without versions of commands.
    Plain,
    /// Those that know of versions of commands.
    Versioned,
}

/// What a node without a cluster asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// A node that was told of the others: is this one of them?
    Meets(Introduction),
    /// Who is there?
    Probe {
        /// What the asking node is called.
        name: String,
        /// The last of its attempts to found that is over: a promise for that one binds nobody any more.
        over: Option<u64>,
        /// Whom it sees, itself among them.
        view: View,
    },
    /// Shall the asking node found?
    Promise {
        /// Its attempt.
        round: u64,
        /// Whether it has long waited for nodes that do not see the same ones.
        patient: bool,
        /// Whom it sees, itself among them.
        view: View,
    },
    /// May the asking node join?
    Join {
        /// What it is called.
        name: String,
        /// Where it is reached.
        peer_urls: Vec<String>,
        /// What it shows for being let in; what that is, is not known here. Empty: nothing.
        claim: Vec<u8>,
        /// The run in which it asks: who is known from an earlier one has begun anew since.
        run: Incarnation,
        /// The newest commands that it understands.
        understands: CommandVersion,
    },
    /// Does this cluster take in the members of another one, which gives itself up then?
    Absorb {
        /// The other one.
        cluster: ClusterId,
        /// This one, as its member has said: it may be in another one by now.
        winner: ClusterId,
        /// The members of the other one.
        nodes: Vec<Candidate>,
        /// The newest commands that all of these understand.
        understands: CommandVersion,
    },
    /// What became of this cluster, of which the asking node is a member that hears no leader?
    Fate {
        /// Which.
        cluster: ClusterId,
    },
}

/// A node that is to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its key.
    pub key: PublicKey,
    /// What it is called.
    pub name: String,
    /// Where it is reached.
    pub peer_urls: Vec<String>,
}

/// What a node says of itself that was told of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
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
    /// There is no cluster here either, and this node was told of the same others.
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
    /// There is no cluster here either, and this node looks for others.
    Gathers {
        /// What it is called.
        name: String,
        /// Its attempt to found, if it makes one. An attempt that is not named here has ended.
        round: Option<u64>,
        /// Whom it leaves the founding to, if anybody; itself, while it makes an attempt.
        promised: Option<Fingerprint>,
        /// Whether it waits for a cluster that it knows of, and so takes no part in the founding of another one.
        waits: bool,
        /// Whom it sees, itself among them.
        view: View,
    },
    /// The founding is left to whoever asks.
    Promised {
        /// Its attempt.
        round: u64,
    },
    /// It is not, and why.
    NotPromised(String),
    /// There is a cluster.
    Member(Standing),
    /// An operator has to let the node in; ask again.
    Pending(String),
    /// They are members.
    Absorbed,
    /// The cluster has ended, as these say.
    Buried(Vec<Tombstone>),
}

/// What a member says of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What the member is called.
    pub name: String,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The cluster's generation.
    pub generation: Generation,
    /// Whether a user has written anything.
    pub committed: bool,
    /// Whether nodes are let in that no operator has let in.
    pub open: bool,
    /// The newest commands that it uses.
    pub uses: CommandVersion,
    /// The newest commands that all of its members understand.
    pub understands: CommandVersion,
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
    /// The newest commands that the cluster uses.
    pub commands: CommandVersion,
}

impl Welcome {
    /// That of a cluster of these members. Whose key counts has to be known of all of them; of what they have published about themselves, which may be any number of
    /// addresses, there is as much as one answer has room for: the cluster tells the rest.
    pub fn of(
        root: ClusterRoot,
        generation: Generation,
        member: MemberId,
        members: &[Member],
        commands: CommandVersion,
    ) -> Self {
        let mut room = WELCOME_TEXT_BYTES_MAX;
        let mut has_room = |text: &String| {
            let left = room.checked_sub(text.len());
            room = left.unwrap_or(room);
            left.is_some()
        };
        let mut shown = |member: &Member| {
            let MemberAttributes { name, peer_urls, .. } = &member.attributes;
            let name = Some(name).filter(|name| name.len() <= NODE_NAME_BYTES_MAX && has_room(name));
            let urls = peer_urls.iter().filter(|url| url.len() <= PLACE_BYTES_MAX).take(PLACES_MAX);
            let attributes = MemberAttributes {
                name: name.cloned().unwrap_or_default(),
                peer_urls: urls.filter(|url| has_room(url)).cloned().collect(),
                client_urls: Vec::new(),
                ..member.attributes
            };
            Member { attributes, ..*member }
        };
        Self { root, generation, member, members: members.iter().map(&mut shown).collect(), commands }
    }
}

/// The nodes without a cluster that one of them sees, itself among them: ascending, and of many the lowest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View(Vec<Fingerprint>);

/// Bytes are no question or answer of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a question or an answer of this version")]
pub struct MessageError;

impl View {
    /// The view of a node that sees these.
    pub fn of(nodes: impl IntoIterator<Item = Fingerprint>) -> Self {
        let mut nodes: Vec<Fingerprint> = nodes.into_iter().collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.truncate(VIEW_NODES_MAX);
        Self(nodes)
    }

    /// The nodes, ascending.
    pub fn nodes(&self) -> &[Fingerprint] {
        &self.0
    }

    /// The one that founds.
    pub fn lowest(&self) -> Option<Fingerprint> {
        self.0.first().copied()
    }

    /// Whether it is among them.
    pub fn has(&self, node: &Fingerprint) -> bool {
        self.0.binary_search(node).is_ok()
    }
}

impl Question {
    /// Its bytes, with all that it says.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_in(Dialect::Versioned)
    }

    /// Its bytes for such builds.
    pub fn encode_in(&self, dialect: Dialect) -> Vec<u8> {
        let mut out = vec![VERSION];
        match self {
            Self::Meets(Introduction { name, peer_urls, named }) => {
                out.push(question::MEETS);
                put_text(&mut out, name);
                put_texts(&mut out, peer_urls);
                out.extend_from_slice(named);
            }
            Self::Probe { name, over, view } => {
                out.push(question::PROBE);
                put_text(&mut out, name);
                put_round(&mut out, *over);
                put_view(&mut out, view);
            }
            Self::Promise { round, patient, view } => {
                out.push(question::PROMISE);
                out.extend_from_slice(&round.to_le_bytes());
                out.push((*patient).into());
                put_view(&mut out, view);
            }
            Self::Join { name, peer_urls, claim, run, understands } => {
                out.push(question::JOIN);
                put_text(&mut out, name);
                put_texts(&mut out, peer_urls);
                let claim = &claim[..claim.len().min(CLAIM_BYTES_MAX)];
                put_count(&mut out, claim.len());
                out.extend_from_slice(claim);
                out.extend_from_slice(&run.0.to_le_bytes());
                put_versions(&mut out, dialect, &[*understands]);
            }
            Self::Absorb { cluster, winner, nodes, understands } => {
                out.push(question::ABSORB);
                out.extend_from_slice(&cluster.0.to_le_bytes());
                out.extend_from_slice(&winner.0.to_le_bytes());
                let nodes = &nodes[..nodes.len().min(ABSORBED_MAX)];
                put_count(&mut out, nodes.len());
                for Candidate { key, name, peer_urls } in nodes {
                    out.extend_from_slice(&key.0);
                    put_text(&mut out, name);
                    put_texts(&mut out, peer_urls);
                }
                put_versions(&mut out, dialect, &[*understands]);
            }
            Self::Fate { cluster } => {
                out.push(question::FATE);
                out.extend_from_slice(&cluster.0.to_le_bytes());
            }
        }
        out
    }

    /// Reads back what [`Question::encode`] wrote.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, MessageError> {
        let bytes = &mut bytes;
        let question = match take_kind(bytes)? {
            question::MEETS => Self::Meets(Introduction {
                name: take_text(bytes)?,
                peer_urls: take_texts(bytes)?,
                named: take_array(bytes)?,
            }),
            question::PROBE => {
                Self::Probe { name: take_text(bytes)?, over: take_round(bytes)?, view: take_view(bytes)? }
            }
            question::PROMISE => Self::Promise {
                round: take_number(bytes)?,
                patient: take_flag(bytes)?,
                view: take_view(bytes)?,
            },
            question::JOIN => {
                let (name, peer_urls) = (take_text(bytes)?, take_texts(bytes)?);
                let length = take_count(bytes, CLAIM_BYTES_MAX)?;
                let claim = take_bytes(bytes, length)?.to_vec();
                let run = Incarnation(take_number(bytes)?);
                let [understands] = take_versions(bytes)?;
                Self::Join { name, peer_urls, claim, run, understands }
            }
            question::ABSORB => {
                let (cluster, winner) = (ClusterId(take_number(bytes)?), ClusterId(take_number(bytes)?));
                let node = |bytes: &mut &[u8]| {
                    let key = PublicKey(take_array(bytes)?);
                    Ok(Candidate { key, name: take_text(bytes)?, peer_urls: take_texts(bytes)? })
                };
                let count = take_count(bytes, ABSORBED_MAX)?;
                let nodes = (0..count).map(|_| node(bytes)).collect::<Result<_, _>>()?;
                let [understands] = take_versions(bytes)?;
                Self::Absorb { cluster, winner, nodes, understands }
            }
            question::FATE => Self::Fate { cluster: ClusterId(take_number(bytes)?) },
            _ => return Err(MessageError),
        };
        end(bytes, question)
    }
}

mod question {
    pub(super) const MEETS: u8 = 1;
    pub(super) const PROBE: u8 = 2;
    pub(super) const PROMISE: u8 = 3;
    pub(super) const JOIN: u8 = 4;
    pub(super) const ABSORB: u8 = 5;
    pub(super) const FATE: u8 = 6;
}

mod answer {
    pub(super) const FRESH: u8 = 1;
    pub(super) const WELCOME: u8 = 2;
    pub(super) const WAIT: u8 = 3;
    pub(super) const REFUSED: u8 = 4;
    pub(super) const GATHERS: u8 = 5;
    pub(super) const PROMISED: u8 = 6;
    pub(super) const NOT_PROMISED: u8 = 7;
    pub(super) const MEMBER: u8 = 8;
    pub(super) const PENDING: u8 = 9;
    pub(super) const ABSORBED: u8 = 10;
    pub(super) const BURIED: u8 = 11;
}

const COMMITTED: u8 = 1;
const OPEN: u8 = 2;

impl Answer {
    /// Its bytes, with all that it says.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_in(Dialect::Versioned)
    }

    /// Its bytes for such builds.
    pub fn encode_in(&self, dialect: Dialect) -> Vec<u8> {
        let mut out = vec![VERSION];
        let mut say = |kind, text: &str| {
            out.push(kind);
            put_text(&mut out, text);
        };
        match self {
            Self::Fresh { name } => say(answer::FRESH, name),
            Self::Wait(sentence) => say(answer::WAIT, sentence),
            Self::Refused(sentence) => say(answer::REFUSED, sentence),
            Self::NotPromised(sentence) => say(answer::NOT_PROMISED, sentence),
            Self::Pending(sentence) => say(answer::PENDING, sentence),
            Self::Welcome(welcome) => {
                out.push(answer::WELCOME);
                out.extend_from_slice(&welcome.root.0);
                out.extend_from_slice(&welcome.generation.0.to_le_bytes());
                out.extend_from_slice(&welcome.member.0.to_le_bytes());
                let (meta, _) = joining_state(welcome.members.clone());
                out.extend_from_slice(&encode_facts(&Meta { commands: welcome.commands, ..meta }));
            }
            Self::Gathers { name, round, promised, waits, view } => {
                say(answer::GATHERS, name);
                put_round(&mut out, *round);
                out.push(promised.is_some().into());
                out.extend(promised.iter().flat_map(Fingerprint::bytes));
                out.push((*waits).into());
                put_view(&mut out, view);
            }
            Self::Absorbed => out.push(answer::ABSORBED),
            Self::Buried(tombstones) => {
                out.push(answer::BURIED);
                let tombstones = &tombstones[..tombstones.len().min(TOMBSTONES_MAX)];
                put_count(&mut out, tombstones.len());
                out.extend(tombstones.iter().flat_map(Tombstone::to_bytes));
            }
            Self::Promised { round } => {
                out.push(answer::PROMISED);
                out.extend_from_slice(&round.to_le_bytes());
            }
            Self::Member(Standing { name, cluster, generation, committed, open, uses, understands }) => {
                say(answer::MEMBER, name);
                out.extend_from_slice(&cluster.0.to_le_bytes());
                out.extend_from_slice(&generation.0.to_le_bytes());
                out.push(if *committed { COMMITTED } else { 0 } | if *open { OPEN } else { 0 });
                put_versions(&mut out, dialect, &[*uses, *understands]);
            }
        }
        out
    }

    /// Reads back what [`Answer::encode`] wrote.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, MessageError> {
        let bytes = &mut bytes;
        let answer = match take_kind(bytes)? {
            answer::FRESH => Self::Fresh { name: take_text(bytes)? },
            answer::WELCOME => Self::Welcome(Box::new(take_welcome(bytes)?)),
            answer::WAIT => Self::Wait(take_text(bytes)?),
            answer::REFUSED => Self::Refused(take_text(bytes)?),
            answer::GATHERS => {
                let name = take_text(bytes)?;
                let round = take_round(bytes)?;
                let promised = if take_flag(bytes)? { Some(take_node(bytes)?) } else { None };
                Self::Gathers { name, round, promised, waits: take_flag(bytes)?, view: take_view(bytes)? }
            }
            answer::PROMISED => Self::Promised { round: take_number(bytes)? },
            answer::NOT_PROMISED => Self::NotPromised(take_text(bytes)?),
            answer::MEMBER => {
                let name = take_text(bytes)?;
                let (cluster, generation) = (ClusterId(take_number(bytes)?), Generation(take_number(bytes)?));
                let [flags] = take_array(bytes)?;
                if cluster.0 == 0 || flags & !(COMMITTED | OPEN) != 0 {
                    return Err(MessageError);
                }
                let (committed, open) = (flags & COMMITTED != 0, flags & OPEN != 0);
                let [uses, understands] = take_versions(bytes)?;
                Self::Member(Standing { name, cluster, generation, committed, open, uses, understands })
            }
            answer::PENDING => Self::Pending(take_text(bytes)?),
            answer::ABSORBED => Self::Absorbed,
            answer::BURIED => {
                let count = take_count(bytes, TOMBSTONES_MAX)?;
                let tombstone =
                    |bytes: &mut &[u8]| Ok(Tombstone::from_bytes(&take_array::<TOMBSTONE_BYTES>(bytes)?));
                Self::Buried((0..count).map(|_| tombstone(bytes)).collect::<Result<_, _>>()?)
            }
            _ => return Err(MessageError),
        };
        end(bytes, answer)
    }
}

fn take_welcome(bytes: &mut &[u8]) -> Result<Welcome, MessageError> {
    let root = ClusterRoot(take_array::<PUBLIC_KEY_BYTES>(bytes)?);
    let generation = Generation(take_number(bytes)?);
    let member = MemberId(take_number(bytes)?);
    let facts = decode_facts(std::mem::take(bytes)).map_err(|_| MessageError)?;
    let (members, commands) = (facts.members, facts.commands);
    // Ascending, and the one that is welcome among them: the state begins from these unseen.
    let sound = members.is_sorted_by(|a, b| a.id() < b.id())
        && members.iter().any(|known| known.id() == member && known.key.is_some());
    if sound { Ok(Welcome { root, generation, member, members, commands }) } else { Err(MessageError) }
}

/// Its first bytes, where it is longer than any that is read back.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(TEXT_BYTES_MAX)];
    put_count(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// The first of them, where they are more than are read back.
fn put_texts(out: &mut Vec<u8>, texts: &[String]) {
    let texts = &texts[..texts.len().min(URLS_MAX)];
    put_count(out, texts.len());
    for text in texts {
        put_text(out, text);
    }
}

fn put_round(out: &mut Vec<u8>, round: Option<u64>) {
    out.push(round.is_some().into());
    out.extend(round.iter().flat_map(|round| round.to_le_bytes()));
}

fn put_view(out: &mut Vec<u8>, view: &View) {
    put_count(out, view.0.len());
    for node in &view.0 {
        out.extend_from_slice(node.bytes());
    }
}

fn put_versions(out: &mut Vec<u8>, dialect: Dialect, versions: &[CommandVersion]) {
    if dialect == Dialect::Versioned {
        out.extend(versions.iter().map(|version| version.0));
    }
}

pub(super) fn put_count(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
}

fn take_kind(bytes: &mut &[u8]) -> Result<u8, MessageError> {
    let [version, kind] = take_array(bytes)?;
    if version == VERSION { Ok(kind) } else { Err(MessageError) }
}

fn take_count(bytes: &mut &[u8], max: usize) -> Result<usize, MessageError> {
    let count = usize::from(u16::from_le_bytes(take_array(bytes)?));
    if count <= max { Ok(count) } else { Err(MessageError) }
}

fn take_number(bytes: &mut &[u8]) -> Result<u64, MessageError> {
    Ok(u64::from_le_bytes(take_array(bytes)?))
}

/// All of them at the end, or none.
fn take_versions<const N: usize>(bytes: &mut &[u8]) -> Result<[CommandVersion; N], MessageError> {
    let versions = if bytes.is_empty() { [CommandVersion::FIRST.0; N] } else { take_array(bytes)? };
    if versions.contains(&0) { Err(MessageError) } else { Ok(versions.map(CommandVersion)) }
}

fn take_flag(bytes: &mut &[u8]) -> Result<bool, MessageError> {
    match take_array(bytes)? {
        [0] => Ok(false),
        [1] => Ok(true),
        _ => Err(MessageError),
    }
}

fn take_round(bytes: &mut &[u8]) -> Result<Option<u64>, MessageError> {
    if take_flag(bytes)? { take_number(bytes).map(Some) } else { Ok(None) }
}

fn take_text(bytes: &mut &[u8]) -> Result<String, MessageError> {
    let length = take_count(bytes, TEXT_BYTES_MAX)?;
    let text = take_bytes(bytes, length)?;
    Ok(std::str::from_utf8(text).map_err(|_| MessageError)?.to_owned())
}

fn take_texts(bytes: &mut &[u8]) -> Result<Vec<String>, MessageError> {
    (0..take_count(bytes, URLS_MAX)?).map(|_| take_text(bytes)).collect()
}

fn take_view(bytes: &mut &[u8]) -> Result<View, MessageError> {
    let count = take_count(bytes, VIEW_NODES_MAX)?;
    let nodes = (0..count).map(|_| take_node(bytes)).collect::<Result<Vec<_>, MessageError>>()?;
    if nodes.is_sorted_by(|a, b| a < b) { Ok(View(nodes)) } else { Err(MessageError) }
}

fn take_node(bytes: &mut &[u8]) -> Result<Fingerprint, MessageError> {
    Ok(Fingerprint::from_bytes(take_array::<FINGERPRINT_BYTES>(bytes)?))
}

fn take_bytes<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], MessageError> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(MessageError)?;
    *bytes = rest;
    Ok(taken)
}

fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], MessageError> {
    let (array, rest) = bytes.split_first_chunk::<N>().ok_or(MessageError)?;
    *bytes = rest;
    Ok(*array)
}

fn end<T>(bytes: &[u8], value: T) -> Result<T, MessageError> {
    if bytes.is_empty() { Ok(value) } else { Err(MessageError) }
}

#[cfg(test)]
#[path = "message_test.rs"]
mod tests;
