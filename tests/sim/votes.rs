//! What members promise each other in messages: a term, a vote.
//!
//! Owns: for whom each member has voted in each term, by the messages that left it and by what its disk had. Must never: ask a member for whom it voted, or forget
//! anything because a process ends or a disk changes: others have counted on it. Driven by `world`.

use std::collections::BTreeMap;

use covey::consensus::Message;
use covey::ids::{MemberId, Term};
use covey::wal::HardState;
use prost::Message as _;
use raft::eraftpb::{self, MessageType};

use crate::logs::LogEvent;

#[derive(Default)]
pub(crate) struct Votes {
    /// By voter and term.
    votes: BTreeMap<(MemberId, Term), MemberId>,
    /// What each member's disk has.
    promised: BTreeMap<MemberId, HardState>,
}

impl Votes {
    pub(crate) fn note(&mut self, member: MemberId, event: &LogEvent) {
        match event {
            LogEvent::Opened { promised, start, .. } => {
                // A log that was only just made has the term of the position that it continues.
                let term = promised.term.max(start.term);
                self.promised.insert(member, HardState { term, ..*promised });
            }
            LogEvent::Synced { promised, .. } => {
                self.promised.insert(member, *promised);
                if let Some(candidate) = promised.vote {
                    self.vote(member, promised.term, candidate);
                }
            }
            LogEvent::Appended(_) | LogEvent::Installing | LogEvent::Reset(_) | LogEvent::Ends(_) => {}
        }
    }

    /// A message leaves a member.
    pub(crate) fn send(&mut self, member: MemberId, message: &Message) {
        let message = eraftpb::Message::decode(message.encode()).expect("what was encoded");
        let (term, promised) = (Term(message.term), self.promised[&member]);
        let candidate = match message.msg_type {
            // Neither promises anything: both are about a term that may never come.
            MessageType::MsgRequestPreVote | MessageType::MsgRequestPreVoteResponse => return,
            // Who asks for votes has its own.
            MessageType::MsgRequestVote => Some(member),
            MessageType::MsgRequestVoteResponse if !message.reject => Some(MemberId(message.to)),
            _ => None,
        };
        assert!(promised.term >= term, "term {term} leaves member {member} before it is on the disk");
        if let Some(candidate) = candidate {
            let kept = promised.term > term || promised.vote == Some(candidate);
            assert!(kept, "a vote of member {member} in term {term} leaves before it is on the disk");
            self.vote(member, term, candidate);
        }
    }

    fn vote(&mut self, member: MemberId, term: Term, candidate: MemberId) {
        let first = *self.votes.entry((member, term)).or_insert(candidate);
        assert_eq!(candidate, first, "member {member} votes a second time in term {term}");
    }
}
