//! Elections among members whose disks are slow.
//!
//! Owns: for whose vote a candidate waits, and when the time of an election stands still. Must never: touch what a vote needs before it leaves: it is on
//! the disk then. Part of [`Consensus`].
//!
//! A candidacy takes two syncs one after the other, the candidate's and then those of its voters, and each may take many times as long as the shortest
//! election timeout. A candidate that began anew at that one would have a later term before the votes of the last one arrive, for ever. So
//!
//! - who knows of no leader counts no time while its disk owes it an answer: nothing that it could say in an election would leave;
//! - a candidate whose question has left waits for those that said before that they would vote for it, as long as a disk may be slow, and
//!   asks again meanwhile. Who has refused it is not waited for, so that a split vote ends as soon as ever;
//! - while it waits, it does not care for the next candidacy of who has voted for it.

use std::collections::BTreeSet;

use raft::StateRole;
use raft::eraftpb::{self, MessageType};

use super::Consensus;
use super::ticks::ticks;
use crate::limits::DISK_STUCK;
use crate::time::Instant;

/// A candidate has asked for votes after so many syncs: one that is under way, and its own.
const SYNCS: u32 = 2;

/// What became of the questions of a candidate.
#[derive(Debug, Default)]
pub(super) struct Candidacy {
    /// The term that it is about.
    term: u64,
    /// Who said that it would vote for this member in that term, and has not refused to.
    backers: BTreeSet<u64>,
    /// Who has voted for it.
    voters: BTreeSet<u64>,
    /// When its disk had all that it was given: the question leaves then.
    pub(super) asked: Instant,
    /// This member stands after so many ticks at the earliest, since it has said that it would vote for another one.
    pub(super) gives_way: usize,
    /// It has done so since it last stood itself.
    gave_way: bool,
}

impl Candidacy {
    /// The next candidacy may be this member's own.
    pub(super) fn stand_again(&mut self) {
        (self.gives_way, self.gave_way) = (0, false);
    }
}

impl Consensus {
    /// Whether this member looks for a leader, and would say so only once its disk has answered.
    pub(super) fn is_silenced_by_disk(&self) -> bool {
        let raft = &self.node.raft;
        raft.state != StateRole::Leader && raft.leader_id == raft::INVALID_ID && !self.outstanding.is_empty()
    }

    /// Notes what an answer says of this member's candidacy; answers whether a message is not worth a look, since its sender's last vote may decide.
    pub(super) fn note_candidacies(&mut self, message: &eraftpb::Message) -> bool {
        let (from, term) = (message.from, message.term);
        let raft = &self.node.raft;
        let own = match message.msg_type {
            // Some come when others were enough.
            MessageType::MsgRequestPreVoteResponse if raft.state == StateRole::PreCandidate => raft.term + 1,
            MessageType::MsgRequestPreVoteResponse | MessageType::MsgRequestVoteResponse => raft.term,
            MessageType::MsgRequestPreVote => {
                return self.candidacy.voters.contains(&from) && self.awaits_votes();
            }
            _ => return false,
        };
        let votes = message.msg_type == MessageType::MsgRequestVoteResponse;
        if message.reject {
            self.candidacy.backers.remove(&from);
        } else if term == own && raft.prs().get(from).is_some() {
            if self.candidacy.term != term {
                self.candidacy.term = term;
                self.candidacy.backers.clear();
                self.candidacy.voters.clear();
            }
            self.candidacy.backers.insert(from);
            if votes {
                self.candidacy.voters.insert(from);
            }
        }
        false
    }

    /// Who has said that it would vote for another member leaves that one the time of its candidacy, by what its own disk takes. Only once, until it has
    /// stood itself: the other one may be one that nobody else hears.
    pub(super) fn give_way(&mut self, to: u64) {
        let raft = &self.node.raft;
        let agrees = |answer: &eraftpb::Message| {
            let kind = answer.msg_type == MessageType::MsgRequestPreVoteResponse;
            kind && answer.to == to && !answer.reject
        };
        if !self.candidacy.gave_way && raft.msgs.last().is_some_and(agrees) {
            let time = (self.longest_sync * SYNCS).min(self.pace.longest_timeout());
            self.candidacy.gives_way = raft.election_elapsed + ticks(time);
            self.candidacy.gave_way = true;
            self.set_election_timeout();
        }
    }

    /// Called after each tick.
    pub(super) fn note_own_campaign(&mut self) {
        if self.candidacy.gave_way && self.node.raft.election_elapsed == 0 {
            self.candidacy.stand_again();
            self.set_election_timeout();
        }
    }

    /// Whether this candidate wins as soon as those that were for it have answered.
    fn awaits_votes(&self) -> bool {
        let Candidacy { term, backers, asked, .. } = &self.candidacy;
        let raft = &self.node.raft;
        raft.state == StateRole::Candidate
            && raft.term == *term
            && self.now.since(*asked) < DISK_STUCK
            && raft.prs().has_quorum(&backers.iter().copied().chain([raft.id]).collect())
    }

    /// Whether this candidate begins no new candidacy at its next tick, although its time would be over, but asks again for the votes that it waits for.
    pub(super) fn wait_for_votes(&mut self) -> bool {
        let raft = &self.node.raft;
        if raft.election_elapsed + 1 < self.election_ticks || !self.awaits_votes() {
            return false;
        }
        let log = &raft.raft_log;
        let (commit, commit_term) = log.commit_info();
        let question = eraftpb::Message {
            msg_type: MessageType::MsgRequestVote,
            from: raft.id,
            term: raft.term,
            index: log.last_index(),
            log_term: log.last_term(),
            commit,
            commit_term,
            ..eraftpb::Message::default()
        };
        let Candidacy { backers, voters, .. } = &self.candidacy;
        let silent = backers.difference(voters);
        let questions: Vec<eraftpb::Message> =
            silent.map(|to| eraftpb::Message { to: *to, ..question.clone() }).collect();
        let raft = &mut self.node.raft;
        raft.msgs.extend(questions);
        raft.election_elapsed = 0;
        true
    }
}
