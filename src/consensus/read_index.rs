//! Read-index rounds: from which position on a state is new enough (dissertation, section 6.4).
//!
//! Owns: contexts of rounds, and what other members ask the leader for. Must never: use a context twice, or confirm a round that began before the
//! request came. Driven by `node::Core`.
//!
//! Raft would confirm what each member asks for by a round of heartbeats of its own. Here a leader takes the request out of raft's hands,
//! and answers it from the next round that it starts for itself: one round for all members.

use bytes::Bytes;
use raft::StateRole;
use raft::eraftpb::{self, Entry, MessageType};

use super::Consensus;
use super::convert::Message;
use super::guard::Refusal;
use super::types::ReadRound;
use crate::ids::LogIndex;
use crate::planted::{self, Bug};
use crate::time::Instant;

/// Another member's wish for a read index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    from: u64,
    /// By which that member knows its round.
    context: Bytes,
}

impl Consensus {
    /// Starts a read-index round. It may get lost, as any message may; then start another one.
    pub fn start_read_round(&mut self, now: Instant) -> ReadRound {
        self.count_ticks(now);
        self.rounds += 1;
        let round = ReadRound(self.rounds);
        // A context used twice let a delayed heartbeat answer confirm a later round, and a read was stale.
        let mut context = Vec::with_capacity(16);
        context.extend_from_slice(&self.boot_nonce.to_be_bytes());
        let unique = if planted::has(Bug::ReuseReadContext) { 1 } else { round.0 };
        context.extend_from_slice(&unique.to_be_bytes());
        if !self.removed {
            self.node.read_index(context);
            self.after_call();
        }
        round
    }

    /// Whether a round started now has a chance: raft drops it when no leader is known, or when this leader has not
    /// committed an entry of its own term yet (dissertation, section 6.4).
    pub fn serves_reads(&self) -> bool {
        let raft = &self.node.raft;
        match raft.state {
            StateRole::Leader => raft.commit_to_current_term(),
            _ => raft.leader_id != raft::INVALID_ID && !self.removed,
        }
    }

    /// What another member asks for with `message`, if that is a read index and this member can find it by a round of its own.
    pub fn read_request(&self, message: &Message) -> Result<Option<ReadRequest>, Refusal> {
        let (raft, message) = (&self.node.raft, &message.0);
        let answers = raft.state == StateRole::Leader && self.serves_reads() && !self.removed;
        if message.msg_type != MessageType::MsgReadIndex || !answers {
            return Ok(None);
        }
        self.check(message)?;
        let context = message.entries.first().map(|entry| entry.data.clone());
        Ok(context.map(|context| ReadRequest { from: message.from, context }))
    }

    /// The answer to a request, from a round that was started after it came. `None` where this member leads no more.
    pub fn answer_read(&self, request: ReadRequest, index: LogIndex) -> Option<Message> {
        let raft = &self.node.raft;
        (raft.state == StateRole::Leader && !self.removed).then(|| {
            Message(eraftpb::Message {
                msg_type: MessageType::MsgReadIndexResp,
                from: raft.id,
                to: request.from,
                term: raft.term,
                index: index.0,
                entries: vec![Entry { data: request.context, ..Entry::default() }],
                ..eraftpb::Message::default()
            })
        })
    }

    pub(super) fn round_of(&self, state: &raft::ReadState) -> Option<(ReadRound, LogIndex)> {
        let (boot, round) = state.request_ctx.split_first_chunk::<8>()?;
        let round: [u8; 8] = round.try_into().ok()?;
        let round = if planted::has(Bug::ReuseReadContext) { self.rounds } else { u64::from_be_bytes(round) };
        (u64::from_be_bytes(*boot) == self.boot_nonce).then_some((ReadRound(round), LogIndex(state.index)))
    }
}
