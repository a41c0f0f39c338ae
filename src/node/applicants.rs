//! Who waits at a member to be let in, as the others are told of it.
//!
//! Owns: the question for that, its answer and their bytes. Must never: keep what strangers have said beyond the bounds here, or show it to anybody but members. What is
//! answered is `app`'s, which knows who has asked.
//!
//! ```text
//! question    = version:u8 (1)  kind:u8 (6 who waits?)
//! answer      = version:u8 (1)  kind:u8 (11)  count:u8  as many nodes
//! node        = fingerprint:32 bytes  asked:u32 LE (seconds ago)  name:text  count:u8  as many peer URLs, each a text
//! text        = length:u8  UTF-8
//! ```

use std::time::Duration;

use bytes::Bytes;

use super::question::{QuestionError, VERSION, open};
use crate::formation::{FINGERPRINT_BYTES, Fingerprint, PLACE_BYTES_MAX, PLACES_MAX};
use crate::limits::{NODE_NAME_BYTES_MAX, PENDING_NODES_MAX};

const WHO_WAITS: u8 = 6;
const THESE_WAIT: u8 = 11;

/// A node that waits for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingNode {
    /// Who.
    pub fingerprint: Fingerprint,
    /// What it calls itself.
    pub name: String,
    /// Where it is.
    pub peer_urls: Vec<String>,
    /// How long ago it has asked last.
    pub asked: Duration,
}

/// The nodes that have asked a member to be let in, and that nothing lets in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applicants(pub Vec<PendingNode>);

impl Applicants {
    /// The question for them.
    pub fn question() -> Bytes {
        Bytes::from_static(&[VERSION, WHO_WAITS])
    }

    /// Whether a question is that one.
    pub fn is_asked_by(question: &[u8]) -> bool {
        question == [VERSION, WHO_WAITS]
    }

    /// Their bytes: of too many the last ones, and of what each says of itself as much as there is room for.
    pub fn encode(&self) -> Bytes {
        let told = &self.0[self.0.len().saturating_sub(PENDING_NODES_MAX)..];
        let mut out = vec![VERSION, THESE_WAIT];
        put_length(&mut out, told.len());
        for PendingNode { fingerprint, name, peer_urls, asked } in told {
            out.extend_from_slice(fingerprint.bytes());
            let seconds = u32::try_from(asked.as_secs()).unwrap_or(u32::MAX);
            out.extend_from_slice(&seconds.to_le_bytes());
            put_text(&mut out, &name[..name.floor_char_boundary(NODE_NAME_BYTES_MAX)]);
            let urls = peer_urls.iter().filter(|url| url.len() <= PLACE_BYTES_MAX).take(PLACES_MAX);
            put_length(&mut out, urls.clone().count());
            urls.for_each(|url| put_text(&mut out, url));
        }
        out.into()
    }

    /// Reads back what [`Applicants::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<Self, QuestionError> {
        let (kind, rest) = open(bytes)?;
        if kind != THESE_WAIT {
            return Err(QuestionError);
        }
        let rest = &mut &rest[..];
        let count = take_length(rest, PENDING_NODES_MAX)?;
        let nodes = (0..count).map(|_| take_node(rest)).collect::<Result<_, _>>()?;
        if rest.is_empty() { Ok(Self(nodes)) } else { Err(QuestionError) }
    }
}

fn take_node(bytes: &mut &[u8]) -> Result<PendingNode, QuestionError> {
    let fingerprint = Fingerprint::from_bytes(take_array::<FINGERPRINT_BYTES>(bytes)?);
    let asked = Duration::from_secs(u32::from_le_bytes(take_array(bytes)?).into());
    let name = take_text(bytes, NODE_NAME_BYTES_MAX)?;
    let urls = take_length(bytes, PLACES_MAX)?;
    let peer_urls = (0..urls).map(|_| take_text(bytes, PLACE_BYTES_MAX)).collect::<Result<_, _>>()?;
    Ok(PendingNode { fingerprint, name, peer_urls, asked })
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    debug_assert!(u8::try_from(length).is_ok(), "all bounds here are below that: {length}");
    out.push(u8::try_from(length).unwrap_or(u8::MAX));
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn take_length(bytes: &mut &[u8], most: usize) -> Result<usize, QuestionError> {
    let [length] = take_array(bytes)?;
    Some(usize::from(length)).filter(|length| *length <= most).ok_or(QuestionError)
}

fn take_text(bytes: &mut &[u8], most: usize) -> Result<String, QuestionError> {
    let length = take_length(bytes, most)?;
    let (text, rest) = bytes.split_at_checked(length).ok_or(QuestionError)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).map_err(|_| QuestionError)
}

fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], QuestionError> {
    let (array, rest) = bytes.split_first_chunk().ok_or(QuestionError)?;
    *bytes = rest;
    Ok(*array)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8, name: &str, urls: usize) -> PendingNode {
        PendingNode {
            fingerprint: Fingerprint::from_bytes([n; FINGERPRINT_BYTES]),
            name: name.to_owned(),
            peer_urls: (0..urls).map(|url| format!("https://10.0.0.{url}:2380")).collect(),
            asked: Duration::from_secs(n.into()),
        }
    }

    #[test]
    fn who_waits_is_asked_and_answered() {
        assert!(Applicants::is_asked_by(&Applicants::question()));
        assert!(!Applicants::is_asked_by(&[VERSION, WHO_WAITS, 0]));
        let all = Applicants(vec![node(1, "box1", 2), node(200, "", 0), node(3, "ünï", PLACES_MAX)]);
        for answer in [Applicants::default(), all] {
            let bytes = answer.encode();
            assert_eq!(Applicants::decode(bytes.clone()), Ok(answer));
            for cut in 0..bytes.len() {
                assert!(Applicants::decode(bytes.slice(..cut)).is_err(), "{cut}");
            }
            assert!(Applicants::decode([&bytes[..], &[0]].concat().into()).is_err(), "a byte too many");
            for (at, wrong) in [(0, 2), (1, WHO_WAITS), (2, u8::MAX)] {
                let mut other = bytes.to_vec();
                other[at] = wrong;
                assert!(Applicants::decode(other.into()).is_err(), "{at}");
            }
        }
    }

    /// What strangers say of themselves may be anything, and what members say of strangers has its bounds all the same.
    #[test]
    fn of_very_much_as_much_is_told_as_there_is_room_for() {
        let long = node(9, &"ü".repeat(NODE_NAME_BYTES_MAX), 3 * PLACES_MAX);
        let mut loud = long.clone();
        loud.peer_urls.insert(0, "u".repeat(PLACE_BYTES_MAX + 1));
        let many = (0..).take(3 * PENDING_NODES_MAX).map(|n| node(n, "box", 1));
        let told = Applicants::decode(Applicants(many.chain([loud]).collect()).encode()).unwrap().0;
        assert_eq!(told.len(), PENDING_NODES_MAX);
        let last = told.last().unwrap();
        assert_eq!((&last.peer_urls[..], last.name.len()), (&long.peer_urls[..PLACES_MAX], 254));
        let first = 3 * PENDING_NODES_MAX + 1 - PENDING_NODES_MAX;
        assert_eq!(told[0], node(u8::try_from(first).unwrap(), "box", 1), "those that asked last");
    }
}
