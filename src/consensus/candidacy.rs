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
//!   asks all again meanwhile that have not answered. Who has refused it is not waited for, so that a split vote ends as soon as ever;
//! - while it waits, it does not care for the next candidacy of who has voted for it.

use std::collections::BTreeSet;

use raft::StateRole;
use raft::eraftpb::{self, MessageType};

use super::Consensus;
use super::ticks::ticks;
use crate::limits::DISK_STUCK;
use crate::time::Instant;

/// A candidate has asked for votes after so many syncs: one that is under way, and its own.
pub(super) const SYNCS: u32 = 2;

/// What became of the questions of a candidate.
#[derive(Debug, Default)]
pub(super) struct Candidacy {
    /// The term that it is about.
    term: u64,
    /// Who said that it would vote for this member in that term, and has not refused to.
    backers: BTreeSet<u64>,
    /// Who has voted for it.
    voters: BTreeSet<u64>,
    /// Who will not.
    refused: BTreeSet<u64>,
    /// When its disk had all that it was given: the question leaves then.
    pub(super) asked: Instant,
    /// This member stands after so many ticks at the earliest, since it has said that it would vote for another one.
    pub(super) gives_way: usize,
    /// It has done so since it last stood itself.
    gave_way: bool,
}

impl Candidacy {
    /// Its answers are about this term from now on. Who would vote for it in an earlier one has not said so for this.
    fn begin(&mut self, term: u64, backers: BTreeSet<u64>) {
        (self.term, self.backers) = (term, backers);
        self.voters.clear();
        self.refused.clear();
    }

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
        self.note_transfer();
        let (from, term) = (message.from, message.term);
        let raft = &self.node.raft;
        let stands_next = raft.state == StateRole::PreCandidate;
        let votes = message.msg_type == MessageType::MsgRequestVoteResponse;
        match message.msg_type {
            MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse => {}
            MessageType::MsgRequestPreVote => {
                return self.candidacy.voters.contains(&from) && self.awaits_votes();
            }
            _ => return false,
        }
        if !raft.prs().conf().voters().contains(from) {
            return false;
        }
        let candidacy = &mut self.candidacy;
        if message.reject {
            let refuses_vote = votes && term == raft.term && term == candidacy.term;
            if refuses_vote {
                candidacy.refused.insert(from);
            }
            // Who refuses a question ahead of a candidacy names its own term.
            if refuses_vote || (!votes && stands_next) {
                candidacy.backers.remove(&from);
            }
            return false;
        }
        // Some say so when others were enough, and votes of the last term may come when it is asked for the next one.
        let about_own = term == raft.term || (!votes && stands_next && term == raft.term + 1);
        if about_own && term > candidacy.term {
            candidacy.begin(term, BTreeSet::new());
        }
        if about_own && term == candidacy.term {
            candidacy.backers.insert(from);
            if votes {
                candidacy.voters.insert(from);
            }
        }
        false
    }

    /// A leader that lets this member lead spares it the question ahead: whoever does not refuse is for it.
    fn note_transfer(&mut self) {
        let raft = &self.node.raft;
        if raft.state == StateRole::Candidate && raft.term > self.candidacy.term {
            let others = raft.prs().conf().voters().ids().iter().filter(|id| *id != raft.id).collect();
            self.candidacy.begin(raft.term, others);
        }
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
            self.candidacy.gives_way = raft.election_elapsed + ticks(self.longest_sync * SYNCS);
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
            && self.now.since(*asked) < DISK_STUCK.max(self.pace.longest_timeout() * SYNCS)
            && raft.prs().has_quorum(&backers.iter().copied().chain([raft.id]).collect())
    }

    /// Whether this candidate begins no new candidacy at its next tick, although its time would be over, but asks again for the votes that it waits for.
    pub(super) fn wait_for_votes(&mut self) -> bool {
        self.note_transfer();
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
        let Candidacy { voters, refused, .. } = &self.candidacy;
        let is_silent = |id: &u64| *id != raft.id && !voters.contains(id) && !refused.contains(id);
        let ids = raft.prs().conf().voters().ids();
        let questions: Vec<eraftpb::Message> =
            ids.iter().filter(is_silent).map(|to| eraftpb::Message { to, ..question.clone() }).collect();
        let raft = &mut self.node.raft;
        raft.msgs.extend(questions);
        raft.election_elapsed = 0;
        true
    }
}
