//! What one member asks another: things that only the leader can say, and who the members are.
//!
//! Owns: the questions, the answers and their bytes, but for those of `applicants`. Must never: decide who is asked, or answer. Made by whoever serves a client on a member that
//! does not lead; carried beside raft's messages, where loss is harmless: the client's request is asked again or fails.
//!
//! ```text
//! question  = version:u8 (1)  kind:u8 (1 renew, 2 time to live)  lease:i64 LE     or  kind:u8 (3 roster)
//!                                                                            or  kind:u8 (4 in sync?)  member:u64 LE
//!                                                                            or  kind:u8 (5 digest?)  version:u8  entry:u64 LE
//!                                                                            or  kind:u8 (6), see `applicants`
//! answer    = version:u8 (1)  kind:u8
//!             1 renewed: ttl:i64 LE     2 gone     3 time to live: granted, remaining:i64 LE     4 not leading     5 too many
//!             6 roster: facts (as the store keeps them)     7 in sync     8 behind     9 digest:u64 LE     10 no digest     11, see `applicants`
//! ```
//! The list of leases has no bytes: every member gives it from its own state, since it has no bound.

use bytes::{Buf as _, Bytes};

use super::leases::{LeaseAnswer, LeaseRequest};
use crate::ids::{Digest, LeaseId, LogIndex, MemberId};
use crate::mvcc::{DIGEST_VERSION, Facts, View};
use crate::store::{Meta, decode_facts, encode_facts};

/// The version of the bytes.
pub(super) const VERSION: u8 = 1;
const RENEW: u8 = 1;
const TIME_TO_LIVE: u8 = 2;
const ROSTER: u8 = 3;
const IN_SYNC_ASKED: u8 = 4;
const DIGEST_ASKED: u8 = 5;
const RENEWED: u8 = 1;
const GONE: u8 = 2;
const TIME: u8 = 3;
const NOT_LEADING: u8 = 4;
const TOO_MANY: u8 = 5;
const ROSTER_ANSWER: u8 = 6;
const IN_SYNC: u8 = 7;
const BEHIND: u8 = 8;
const DIGEST: u8 = 9;
const NO_DIGEST: u8 = 10;

/// Bytes from a member are no question or answer of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a question or an answer of this version")]
pub struct QuestionError;

impl LeaseRequest {
    /// Its bytes; `None` for what is not asked another member.
    pub fn encode(self) -> Option<Bytes> {
        let (kind, id) = match self {
            Self::Renew(id) => (RENEW, id),
            Self::TimeToLive(id) => (TIME_TO_LIVE, id),
            Self::List => return None,
        };
        let mut bytes = vec![VERSION, kind];
        bytes.extend(id.0.to_le_bytes());
        Some(bytes.into())
    }

    /// Reads back what [`LeaseRequest::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<Self, QuestionError> {
        let (kind, mut rest) = open(bytes)?;
        let request = match kind {
            RENEW => Self::Renew(LeaseId(number(&mut rest)?)),
            TIME_TO_LIVE => Self::TimeToLive(LeaseId(number(&mut rest)?)),
            _ => return Err(QuestionError),
        };
        if rest.is_empty() { Ok(request) } else { Err(QuestionError) }
    }
}

impl LeaseAnswer {
    /// Its bytes; `None` for what is no answer to another member.
    pub fn encode(&self) -> Option<Bytes> {
        let (kind, numbers) = match self {
            Self::Renewed { ttl } => (RENEWED, vec![*ttl]),
            Self::Gone => (GONE, Vec::new()),
            Self::TimeToLive { granted, remaining } => (TIME, vec![*granted, *remaining]),
            Self::List(_) => return None,
            Self::NotLeading => (NOT_LEADING, Vec::new()),
            Self::TooMany => (TOO_MANY, Vec::new()),
        };
        let mut bytes = vec![VERSION, kind];
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        Some(bytes.into())
    }

    /// Reads back what [`LeaseAnswer::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<Self, QuestionError> {
        let (kind, mut rest) = open(bytes)?;
        let answer = match kind {
            RENEWED => Self::Renewed { ttl: number(&mut rest)? },
            GONE => Self::Gone,
            TIME => Self::TimeToLive { granted: number(&mut rest)?, remaining: number(&mut rest)? },
            NOT_LEADING => Self::NotLeading,
            TOO_MANY => Self::TooMany,
            _ => return Err(QuestionError),
        };
        if rest.is_empty() { Ok(answer) } else { Err(QuestionError) }
    }

    /// Whether this answers such a request: a member of another version, or a hostile one, may answer anything.
    pub fn is_answer_to(&self, request: LeaseRequest) -> bool {
        match self {
            Self::Renewed { .. } => matches!(request, LeaseRequest::Renew(_)),
            Self::TimeToLive { .. } => matches!(request, LeaseRequest::TimeToLive(_)),
            Self::Gone => request != LeaseRequest::List,
            Self::List(_) => request == LeaseRequest::List,
            Self::NotLeading | Self::TooMany => true,
        }
    }
}

/// Whether a learner has caught up with the leader, which alone can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It has.
    InSync,
    /// It has not.
    Behind,
    /// This member does not lead.
    NotLeading,
}

impl Progress {
    /// The question about a member.
    pub fn question(of: MemberId) -> Bytes {
        let mut bytes = vec![VERSION, IN_SYNC_ASKED];
        bytes.extend(of.0.to_le_bytes());
        bytes.into()
    }

    /// About whom a question asks, if it is that one.
    pub fn asked_by(question: &[u8]) -> Option<MemberId> {
        let (head, rest) = question.split_first_chunk::<2>()?;
        let id: [u8; 8] = rest.try_into().ok()?;
        (*head == [VERSION, IN_SYNC_ASKED]).then(|| MemberId(u64::from_le_bytes(id)))
    }

    /// Its bytes.
    pub fn encode(self) -> Bytes {
        let kind = match self {
            Self::InSync => IN_SYNC,
            Self::Behind => BEHIND,
            Self::NotLeading => NOT_LEADING,
        };
        vec![VERSION, kind].into()
    }

    /// Reads back what [`Progress::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<Self, QuestionError> {
        let (kind, rest) = open(bytes)?;
        match kind {
            IN_SYNC if rest.is_empty() => Ok(Self::InSync),
            BEHIND if rest.is_empty() => Ok(Self::Behind),
            NOT_LEADING if rest.is_empty() => Ok(Self::NotLeading),
            _ => Err(QuestionError),
        }
    }
}

/// The digest of a member's state after an entry, if it can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestAt(pub Option<Digest>);

impl DigestAt {
    /// The question for that after an entry.
    pub fn question(index: LogIndex) -> Bytes {
        let mut bytes = vec![VERSION, DIGEST_ASKED, DIGEST_VERSION];
        bytes.extend(index.0.to_le_bytes());
        bytes.into()
    }

    /// After which entry a question asks for it, if it is that one. One for digests of another version has no answer.
    pub fn asked_by(question: &[u8]) -> Option<LogIndex> {
        let (head, rest) = question.split_first_chunk::<3>()?;
        let index = u64::from_le_bytes(rest.try_into().ok()?);
        (*head == [VERSION, DIGEST_ASKED, DIGEST_VERSION]).then_some(LogIndex(index))
    }

    /// Its bytes.
    pub fn encode(self) -> Bytes {
        let Some(digest) = self.0 else { return Bytes::from_static(&[VERSION, NO_DIGEST]) };
        let mut bytes = vec![VERSION, DIGEST];
        bytes.extend(digest.0.to_le_bytes());
        bytes.into()
    }

    /// Reads back what [`DigestAt::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<Self, QuestionError> {
        let (kind, mut rest) = open(bytes)?;
        let digest = match kind {
            DIGEST => Some(Digest(number(&mut rest)?.cast_unsigned())),
            NO_DIGEST => None,
            _ => return Err(QuestionError),
        };
        if rest.is_empty() { Ok(Self(digest)) } else { Err(QuestionError) }
    }
}

/// Who takes part, as of a position in the log. A member that was away may find that nobody it knows leads any more, and that it does not know
/// those who do; whom it knows tells it of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// The last entry that it takes into account.
    pub applied: LogIndex,
    /// The members, the removed ones that still take part, and the configuration that says so.
    pub facts: Facts,
}

impl Roster {
    /// The question for one.
    pub fn question() -> Bytes {
        Bytes::from_static(&[VERSION, ROSTER])
    }

    /// Whether a question is that one.
    pub fn is_asked_by(question: &[u8]) -> bool {
        question == [VERSION, ROSTER]
    }

    /// What a member at this view answers.
    pub fn of(view: &View) -> Self {
        let Facts { members, removed, conf_state, .. } = view.facts().clone();
        let removed = removed.into_iter().filter(|(id, _)| conf_state.names(*id)).collect();
        Self { applied: view.applied(), facts: Facts { members, removed, conf_state, ..Facts::default() } }
    }

    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let Facts { members, removed, conf_state, .. } = self.facts.clone();
        let meta = Meta { applied: self.applied, members, removed, conf_state, ..Meta::default() };
        let mut bytes = vec![VERSION, ROSTER_ANSWER];
        bytes.extend(encode_facts(&meta));
        bytes.into()
    }

    /// Reads back what [`Roster::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<Self, QuestionError> {
        let (kind, rest) = open(bytes)?;
        if kind != ROSTER_ANSWER {
            return Err(QuestionError);
        }
        let meta = decode_facts(&rest).map_err(|_| QuestionError)?;
        let Meta { applied, members, removed, conf_state, .. } = meta;
        Ok(Self { applied, facts: Facts { members, removed, conf_state, ..Facts::default() } })
    }
}

pub(super) fn open(mut bytes: Bytes) -> Result<(u8, Bytes), QuestionError> {
    if bytes.try_get_u8() != Ok(VERSION) {
        return Err(QuestionError);
    }
    let kind = bytes.try_get_u8().map_err(|_| QuestionError)?;
    Ok((kind, bytes))
}

fn number(bytes: &mut Bytes) -> Result<i64, QuestionError> {
    bytes.try_get_i64_le().map_err(|_| QuestionError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formation::test_founding;
    use crate::ids::PublicKey;

    #[test]
    fn questions_and_answers_come_back_and_other_bytes_are_refused() {
        let id = LeaseId(-7);
        for request in [LeaseRequest::Renew(id), LeaseRequest::TimeToLive(id)] {
            let bytes = request.encode().unwrap();
            assert_eq!(LeaseRequest::decode(bytes.clone()), Ok(request));
            refuses_spoiled(&bytes, LeaseRequest::decode);
        }
        for answer in [
            LeaseAnswer::Renewed { ttl: i64::MAX },
            LeaseAnswer::Gone,
            LeaseAnswer::TimeToLive { granted: 60, remaining: 0 },
            LeaseAnswer::NotLeading,
            LeaseAnswer::TooMany,
        ] {
            let bytes = answer.encode().unwrap();
            assert_eq!(LeaseAnswer::decode(bytes.clone()), Ok(answer));
            refuses_spoiled(&bytes, LeaseAnswer::decode);
        }
        assert_eq!((LeaseRequest::List.encode(), LeaseAnswer::List(vec![id]).encode()), (None, None));
    }

    #[test]
    fn whether_a_learner_is_in_sync_is_asked_and_answered() {
        let question = Progress::question(MemberId(u64::MAX));
        assert_eq!(Progress::asked_by(&question), Some(MemberId(u64::MAX)));
        assert_eq!(Progress::asked_by(&question[..9]), None);
        assert_eq!(Progress::asked_by(&LeaseRequest::Renew(LeaseId(1)).encode().unwrap()), None);
        assert!(LeaseRequest::decode(question).is_err());
        for answer in [Progress::InSync, Progress::Behind, Progress::NotLeading] {
            assert_eq!(Progress::decode(answer.encode()), Ok(answer));
            refuses_spoiled(&answer.encode(), Progress::decode);
        }
    }

    #[test]
    fn digests_are_asked_for_and_answered() {
        let question = DigestAt::question(LogIndex(u64::MAX - 1));
        assert_eq!(DigestAt::asked_by(&question), Some(LogIndex(u64::MAX - 1)));
        for at in 0..3 {
            let mut other = question.to_vec();
            other[at] ^= 1;
            assert_eq!(DigestAt::asked_by(&other), None, "another version, or another question");
        }
        assert_eq!(DigestAt::asked_by(&question[..10]), None);
        assert!(LeaseRequest::decode(question.clone()).is_err() && Progress::asked_by(&question).is_none());
        for answer in [DigestAt(Some(Digest(u64::MAX))), DigestAt(Some(Digest(0))), DigestAt(None)] {
            assert_eq!(DigestAt::decode(answer.encode()), Ok(answer));
            refuses_spoiled(&answer.encode(), DigestAt::decode);
        }
    }

    #[test]
    fn a_roster_has_those_that_take_part_and_comes_back() {
        assert!(Roster::is_asked_by(&Roster::question()));
        assert!(LeaseRequest::decode(Roster::question()).is_err());
        let founding = test_founding(1);
        let own = founding.meta.members[0].clone();
        let (leaving, gone) =
            ((MemberId(5), Some(PublicKey([5; 32]))), (MemberId(6), Some(PublicKey([6; 32]))));
        let mut conf_state = founding.meta.conf_state.clone();
        conf_state.learners = vec![leaving.0];
        let facts = Facts {
            members: vec![own.clone()],
            removed: vec![leaving, gone],
            conf_state,
            forming: true,
            ..Facts::default()
        };
        assert_eq!(facts.keys().map(|(id, _)| id).collect::<Vec<_>>(), [own.id(), leaving.0]);
        let roster = Roster { applied: LogIndex(9), facts };
        let bytes = roster.encode();
        let back = Roster::decode(bytes.clone()).unwrap();
        assert_eq!((back.applied, &back.facts.members), (roster.applied, &roster.facts.members));
        assert_eq!(back.facts.keys().collect::<Vec<_>>(), roster.facts.keys().collect::<Vec<_>>());
        for cut in 0..bytes.len() {
            assert!(Roster::decode(bytes.slice(..cut)).is_err(), "{cut}");
        }
        assert!(LeaseAnswer::decode(bytes).is_err());
    }

    fn refuses_spoiled<T: std::fmt::Debug>(bytes: &Bytes, decode: fn(Bytes) -> Result<T, QuestionError>) {
        assert!(decode(bytes.slice(..1)).is_err());
        assert!(decode([&bytes[..], &[0]].concat().into()).is_err(), "a byte too many");
        for (at, wrong) in [(0, 2), (1, 0), (1, 99)] {
            let mut other = bytes.to_vec();
            other[at] = wrong;
            assert!(decode(other.into()).is_err());
        }
    }

    #[test]
    fn an_answer_of_another_kind_is_told_apart() {
        let renew = LeaseRequest::Renew(LeaseId(1));
        assert!(LeaseAnswer::Renewed { ttl: 1 }.is_answer_to(renew) && LeaseAnswer::Gone.is_answer_to(renew));
        assert!(!LeaseAnswer::List(vec![]).is_answer_to(renew));
        assert!(!LeaseAnswer::Gone.is_answer_to(LeaseRequest::List));
    }
}
