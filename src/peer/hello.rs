//! The hello: what two members tell each other before anything else, and what they refuse each other for.
//!
//! Owns: its bytes, the rules, the sentence of each refusal. Must never: touch a connection, or judge anything that depends on a name or
//! a date. Driven by `greet`.
//!
//! ```text
//! magic (4 bytes), protocol version (u16), cluster, generation, sender, receiver, incarnation, boot nonce of the sender's run, incarnation,
//! boot nonce of the receiver's latest run that the sender knows of, or 0 and 0 (u64 each); little endian
//! ```
//! The first six bytes stay what they are in every version, so that another version can be named and not only be unreadable.

use crate::formation::{Generation, Identity, Stale, judge_run, judge_runs};
use crate::ids::{ClusterId, Incarnation, MemberId, Run};

/// The version of what members speak: hello, control stream, and what refusals mean.
pub const PROTOCOL: u16 = 1;

const MAGIC: [u8; 4] = *b"cvph";
const HEAD_BYTES: usize = 6;
const NUMBERS: usize = 8;
/// The bytes of a hello. One of a later version may be longer, within the bound of a frame of [`HELLO_FRAME_MAX`].
pub const HELLO_BYTES: usize = HEAD_BYTES + 8 * NUMBERS;
/// The largest hello of any version.
pub const HELLO_FRAME_MAX: usize = 1024;
/// How much of a peer's sentence is shown, in bytes.
const SENTENCE_MAX: usize = 300;

/// Stands for no run in a hello: the first start of a node is its start 1.
const NEVER: Run = Run { incarnation: Incarnation(0), boot_nonce: 0 };

/// What a member says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its cluster's generation.
    pub generation: Generation,
    /// Who it is.
    pub from: MemberId,
    /// Whom it takes the other for.
    pub to: MemberId,
    /// Its run.
    pub run: Run,
    /// The latest run of the other that it knows of.
    pub seen: Option<Run>,
}

/// What is known of the other end of a connection, by its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Whose key it is.
    pub member: MemberId,
    /// The latest run that this member has shown.
    pub seen: Option<Run>,
}

/// Why bytes are no hello of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloError {
    /// Of another version.
    Version(u16),
    /// No hello at all.
    Malformed,
}

impl Hello {
    /// What a node says to a member of which it knows so much.
    pub fn to(own: &Identity, known: &Known) -> Self {
        Self {
            cluster: own.cluster(),
            generation: own.generation,
            from: own.member,
            to: known.member,
            run: own.run(),
            seen: known.seen,
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let seen = self.seen.unwrap_or(NEVER);
        let mut bytes = Vec::with_capacity(HELLO_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(PROTOCOL.to_le_bytes());
        for number in [
            self.cluster.0,
            self.generation.0,
            self.from.0,
            self.to.0,
            self.run.incarnation.0,
            self.run.boot_nonce,
            seen.incarnation.0,
            seen.boot_nonce,
        ] {
            bytes.extend(number.to_le_bytes());
        }
        bytes
    }

    /// Reads back what [`Hello::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, HelloError> {
        let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(HelloError::Malformed)?;
        let (version, rest) = rest.split_first_chunk::<2>().ok_or(HelloError::Malformed)?;
        if *magic != MAGIC {
            return Err(HelloError::Malformed);
        }
        let version = u16::from_le_bytes(*version);
        if version != PROTOCOL {
            return Err(HelloError::Version(version));
        }
        let (numbers, []) = rest.as_chunks::<8>() else { return Err(HelloError::Malformed) };
        let numbers: [u64; NUMBERS] = numbers
            .iter()
            .map(|number| u64::from_le_bytes(*number))
            .collect::<Vec<_>>()
            .try_into()
            .map_err(|_| HelloError::Malformed)?;
        let [cluster, generation, from, to, incarnation, boot_nonce, seen, seen_nonce] = numbers;
        let seen = Run { incarnation: Incarnation(seen), boot_nonce: seen_nonce };
        Ok(Self {
            cluster: ClusterId(cluster),
            generation: Generation(generation),
            from: MemberId(from),
            to: MemberId(to),
            run: Run { incarnation: Incarnation(incarnation), boot_nonce },
            seen: (seen != NEVER).then_some(seen),
        })
    }
}

/// What a refusal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalKind {
    /// The key is not that of a member, or not of the member that was meant.
    Key,
    /// Another version of the protocol.
    Version,
    /// Another cluster.
    Cluster,
    /// Another generation of the cluster.
    Generation,
    /// Another member than the one that was meant.
    Recipient,
    /// Another member than the one that the key belongs to.
    Sender,
    /// A run that a later one has replaced: a copy of the member, or its disk of an earlier time.
    OldRun,
    /// Bytes that are no hello.
    Malformed,
    /// The member was removed. Who is told so stops.
    Removed,
    /// Who refuses has found out that it is a copy itself: the other one has seen a run of it that it knows nothing of.
    Fenced,
}

/// The kinds in the order of their codes; a code, once given, keeps its meaning.
const KINDS: [RefusalKind; 10] = [
    RefusalKind::Key,
    RefusalKind::Version,
    RefusalKind::Cluster,
    RefusalKind::Generation,
    RefusalKind::Recipient,
    RefusalKind::Sender,
    RefusalKind::OldRun,
    RefusalKind::Malformed,
    RefusalKind::Removed,
    RefusalKind::Fenced,
];
/// The application error code of the first kind; those below end connections that nobody refused.
const FIRST_CODE: u32 = 0x100;

impl RefusalKind {
    /// The code that a connection is closed with.
    pub fn code(self) -> u32 {
        let place = KINDS.iter().position(|kind| *kind == self).and_then(|place| u32::try_from(place).ok());
        FIRST_CODE + place.unwrap_or(0)
    }

    /// Reads back [`RefusalKind::code`].
    pub fn from_code(code: u64) -> Option<Self> {
        let place = code.checked_sub(u64::from(FIRST_CODE))?;
        KINDS.get(usize::try_from(place).ok()?).copied()
    }
}

/// Why one end refuses the other: the same in both logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What for.
    pub kind: RefusalKind,
    /// One plain sentence.
    pub sentence: String,
}

impl Refusal {
    /// What `us` tells a member that was removed.
    pub(super) fn removed(us: MemberId, member: MemberId) -> Self {
        let sentence = format!("member {us} refuses member {member}: it was removed from the cluster");
        Self { kind: RefusalKind::Removed, sentence }
    }

    /// What the other end gave as its reason when it closed the connection. It is shown in a log, so that only
    /// printable text is taken, and not much of it.
    pub fn received(kind: RefusalKind, reason: &[u8]) -> Self {
        let cut = &reason[..reason.len().min(SENTENCE_MAX)];
        let text = String::from_utf8_lossy(cut);
        let sentence = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { kind, sentence }
    }
}

/// Looks whether a member that shows `bytes`, on a connection with the key of `known`, is one to talk to, and whether this one is. `to_them` is our own
/// hello to it.
pub fn judge(own: &Identity, to_them: &Hello, known: &Known, bytes: &[u8]) -> Result<Hello, Refusal> {
    let (us, them) = (to_them.from, known.member);
    let refuse = |kind, reason: String| {
        Err(Refusal { kind, sentence: format!("member {us} refuses member {them}: {reason}") })
    };
    let hello = match Hello::decode(bytes) {
        Ok(hello) => hello,
        Err(HelloError::Version(version)) => {
            let reason = format!("it speaks version {version} of the peer protocol, not {PROTOCOL}");
            return refuse(RefusalKind::Version, reason);
        }
        Err(HelloError::Malformed) => {
            return refuse(RefusalKind::Malformed, "its hello is unreadable".into());
        }
    };
    if hello.cluster != to_them.cluster {
        let reason = format!("it is in cluster {}, not in cluster {}", hello.cluster, to_them.cluster);
        return refuse(RefusalKind::Cluster, reason);
    }
    let (theirs, ours) = (hello.generation, to_them.generation);
    if theirs != ours {
        let reason = format!("it is in generation {} of the cluster, not in generation {}", theirs.0, ours.0);
        return refuse(RefusalKind::Generation, reason);
    }
    if hello.from != them {
        let reason = format!("with the key of member {them} it says that it is member {}", hello.from);
        return refuse(RefusalKind::Sender, reason);
    }
    if hello.to != us {
        return refuse(RefusalKind::Recipient, format!("it wants to talk to member {}", hello.to));
    }
    match judge_runs(own, hello.run, known.seen, hello.seen) {
        Ok(()) => Ok(hello),
        Err(Stale::Theirs(seen)) => Err(old_run(us, known.member, hello.run, seen)),
        Err(Stale::Ours(seen)) => {
            let sentence = format!(
                "member {us} stops: member {them} has seen start {} of it, of which its data directory knows nothing",
                seen.incarnation
            );
            Err(Refusal { kind: RefusalKind::Fenced, sentence })
        }
    }
}

/// The part of [`judge`] that time can change: another run may have shown itself meanwhile.
pub(super) fn judge_again(us: MemberId, shown: Run, known: &Known) -> Result<(), Refusal> {
    judge_run(shown, known.seen).map_err(|seen| old_run(us, known.member, shown, seen))
}

fn old_run(us: MemberId, them: MemberId, shown: Run, seen: Run) -> Refusal {
    let sentence = format!(
        "member {us} refuses member {them}: it shows start {}, but start {} of this member was here already",
        shown.incarnation, seen.incarnation
    );
    Refusal { kind: RefusalKind::OldRun, sentence }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;
    use crate::formation::test_founding;

    fn own() -> Identity {
        let earlier = vec![Run { incarnation: Incarnation(4), boot_nonce: 44 }];
        let (incarnation, boot_nonce) = (Incarnation(5), 55);
        Identity { incarnation, boot_nonce, earlier, ..test_founding(1).identity }
    }

    fn hello(from: u64, to: u64) -> Hello {
        Hello {
            cluster: ClusterId(0xaa),
            generation: Generation(1),
            from: MemberId(from),
            to: MemberId(to),
            run: Run { incarnation: Incarnation(5), boot_nonce: 55 },
            seen: None,
        }
    }

    fn known(seen: Option<(u64, u64)>) -> Known {
        let run = |(incarnation, boot_nonce)| Run { incarnation: Incarnation(incarnation), boot_nonce };
        Known { member: MemberId(2), seen: seen.map(run) }
    }

    fn refusal(bytes: &[u8], seen: Option<(u64, u64)>) -> Refusal {
        judge(&own(), &hello(1, 2), &known(seen), bytes).unwrap_err()
    }

    #[test]
    fn who_fits_is_accepted() {
        let theirs = hello(2, 1);
        for seen in [None, Some((5, 55)), Some((4, 9))] {
            assert_eq!(judge(&own(), &hello(1, 2), &known(seen), &theirs.encode()), Ok(theirs));
        }
    }

    #[test]
    fn each_mismatch_is_refused_with_its_own_sentence() {
        let good = hello(2, 1);
        let changed: [(Hello, RefusalKind, &str); 4] = [
            (
                Hello { cluster: ClusterId(0xbb), ..good },
                RefusalKind::Cluster,
                "it is in cluster bb, not in cluster aa",
            ),
            (
                Hello { generation: Generation(2), ..good },
                RefusalKind::Generation,
                "it is in generation 2 of the cluster, not in generation 1",
            ),
            (
                Hello { from: MemberId(3), ..good },
                RefusalKind::Sender,
                "with the key of member 2 it says that it is member 3",
            ),
            (Hello { to: MemberId(9), ..good }, RefusalKind::Recipient, "it wants to talk to member 9"),
        ];
        for (theirs, kind, reason) in changed {
            let sentence = format!("member 1 refuses member 2: {reason}");
            assert_eq!(refusal(&theirs.encode(), None), Refusal { kind, sentence });
        }
        let mut later = good.encode();
        later[4] = 2;
        later.extend([1, 2, 3]);
        let version = refusal(&later, None);
        assert_eq!(version.kind, RefusalKind::Version);
        assert!(version.sentence.ends_with("it speaks version 2 of the peer protocol, not 1"));
        assert_eq!(refusal(b"GET / HTTP/1.1\r\n", None).kind, RefusalKind::Malformed);
    }

    #[test]
    fn a_copy_or_an_older_disk_is_refused() {
        for seen in [(6, 1), (5, 56)] {
            let refused = refusal(&hello(2, 1).encode(), Some(seen));
            assert_eq!(refused.kind, RefusalKind::OldRun, "{seen:?}");
            assert!(refused.sentence.contains("it shows start 5, but start"), "{}", refused.sentence);
        }
    }

    #[test]
    fn who_was_seen_in_a_run_that_it_does_not_know_is_a_copy_itself() {
        let run = |(incarnation, boot_nonce)| Run { incarnation: Incarnation(incarnation), boot_nonce };
        for seen in [(4, 44), (5, 55), (3, 33)] {
            let theirs = Hello { seen: Some(run(seen)), ..hello(2, 1) };
            let judged = judge(&own(), &hello(1, 2), &known(None), &theirs.encode());
            assert_eq!(judged, Ok(theirs));
        }
        for seen in [(4, 45), (5, 56), (6, 66)] {
            let theirs = Hello { seen: Some(run(seen)), ..hello(2, 1) };
            let refused = refusal(&theirs.encode(), None);
            assert_eq!(refused.kind, RefusalKind::Fenced, "{seen:?}");
            assert!(refused.sentence.starts_with("member 1 stops: member 2 has seen start"));
        }
    }

    #[test]
    fn a_truncated_or_longer_hello_is_malformed() {
        let whole = hello(2, 1).encode();
        assert_eq!(whole.len(), HELLO_BYTES);
        for cut in 0..whole.len() {
            assert_eq!(Hello::decode(&whole[..cut]), Err(HelloError::Malformed), "cut at {cut}");
        }
        let longer = [&whole[..], &[0; 8]].concat();
        assert_eq!(Hello::decode(&longer), Err(HelloError::Malformed));
    }

    #[test]
    fn codes_come_back_and_foreign_sentences_are_tamed() {
        for kind in KINDS {
            assert_eq!(RefusalKind::from_code(kind.code().into()), Some(kind));
        }
        for code in [0, 0xff, 0x10a, u64::MAX] {
            assert_eq!(RefusalKind::from_code(code), None);
        }
        let reason = [b"a\nb\x1b[2J".to_vec(), vec![0xff; 1000]].concat();
        let tamed = Refusal::received(RefusalKind::Key, &reason).sentence;
        assert!(tamed.starts_with("a b [2J") && tamed.chars().count() <= SENTENCE_MAX);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Hello::decode(&bytes);
            let _ = Hello::decode(&[&MAGIC[..], &[1, 0], &bytes].concat());
        }
    }
}
