//! The guard before `step`: which messages raft is shown.
//!
//! Owns: every rule that keeps a message from making raft panic or from moving its progress to where no log can be. The raft crate trusts its
//! peers: it indexes into what they send, counts on their numbers and stops the process when they contradict its log. A peer here may be a box with a lost
//! disk, an old copy of another, or hostile. Must never: change state; a refused message is as good as lost, which raft
//! is built for. Driven by `Consensus::step`.

use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use raft::{Raft, StateRole};

use super::log_store::LogStore;
use super::snapshot::mark_of;
use super::types::SnapshotMark;
use crate::wal::Position;

/// No index or term ever gets near this; above it raft's additions could overflow.
const POSITION_MAX: u64 = 1 << 62;

/// Why a message was not shown to raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is for another member.
    #[error("the message is for another member")]
    NotForUs,
    /// The sender claims to be this member, or asks for what only a member of the configuration may ask for and is none.
    #[error("the sender is not a member")]
    UnknownSender,
    /// Raft sends such a message only to itself, or this version has no use for it.
    #[error("the kind of message is not for the wire")]
    UnexpectedKind,
    /// The term is missing where it must be given, or given where it must be missing.
    #[error("the message has an impossible term")]
    Term,
    /// An index beyond what any log reaches, or beyond this log where the sender should have known better.
    #[error("the message has an impossible log position")]
    Position,
    /// The sender takes for committed what this member never had: one of the two has lost its log.
    #[error("the commit position is beyond this member's log")]
    CommitBeyondLog,
    /// The entries do not follow one another, or their terms go backwards, or their kind is not proposed here.
    #[error("the entries do not form a log")]
    Entries,
    /// A forwarded proposal is no command that this version reads. In the log it would stop every member that applies it.
    #[error("a proposal cannot be read")]
    Unreadable,
    /// Only a leader can act on it.
    #[error("this member does not lead")]
    NotLeader,
    /// A vote for a candidacy whose own log is not on disk yet, so it cannot have been asked for.
    #[error("the vote answers no request of this member")]
    VoteNotAskedFor,
    /// A snapshot of anything but the state that is staged on this member's disk, or in a message that is none.
    #[error("the snapshot is not the one that is staged here")]
    Snapshot,
    /// This member does not trust its own state, and so must not lead.
    #[error("this member waits for another state")]
    Suspect,
    /// There is no room for more before what waits is on the disk and applied.
    #[error("too much waits for the disk, or to be applied")]
    Full,
    /// This member is no longer in the cluster.
    #[error("this member was removed")]
    Removed,
}

/// Whether a log can have come to this position.
pub fn is_reachable(position: Position) -> bool {
    let Position { index, term } = position;
    (1..POSITION_MAX).contains(&index.0) && (1..POSITION_MAX).contains(&term.0)
}

/// The member that a message has come to.
pub(super) struct Receiver<'a> {
    pub(super) raft: &'a Raft<LogStore>,
    /// The state that is staged on its disk.
    pub(super) expected: Option<&'a SnapshotMark>,
    /// It does not trust its state, and must not lead.
    pub(super) suspect: bool,
    /// Nothing of its log is on its way to the disk.
    pub(super) all_persisted: bool,
}

/// Whether `message` can be stepped into the receiver's raft.
pub(super) fn check(receiver: &Receiver<'_>, message: &Message) -> Result<(), Refusal> {
    let Receiver { raft, expected, suspect, all_persisted } = *receiver;
    if message.to != raft.id {
        return Err(Refusal::NotForUs);
    }
    if message.from == raft.id
        || message.from == raft::INVALID_ID
        || ((needs_membership(message.msg_type) || (votes_alone(raft) && !suspect))
            && raft.prs().get(message.from).is_none())
    {
        return Err(Refusal::UnknownSender);
    }
    let numbers = [message.term, message.log_term, message.index, message.commit, message.commit_term];
    if numbers.iter().any(|&number| number >= POSITION_MAX) || message.reject_hint >= POSITION_MAX {
        return Err(Refusal::Position);
    }
    let carries = message.msg_type == MessageType::MsgSnapshot;
    if message.snapshot.is_some() != carries {
        return Err(Refusal::Snapshot);
    }
    check_request_for_state(message)?;
    check_term(message)?;
    match message.msg_type {
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum => Err(Refusal::UnexpectedKind),
        MessageType::MsgSnapshot => check_snapshot(raft, expected, message),
        MessageType::MsgPropose => check_proposal(raft, message),
        MessageType::MsgReadIndex => check_read(raft, message),
        // A follower would pass it on, and raft stops when a message that it passes on has a term.
        MessageType::MsgTransferLeader => leads(raft),
        MessageType::MsgAppend => check_append(message),
        MessageType::MsgAppendResponse => check_append_response(raft, message),
        MessageType::MsgHeartbeat => check_heartbeat(raft, message),
        MessageType::MsgRequestVoteResponse => check_vote(raft, all_persisted, message),
        MessageType::MsgTimeoutNow if suspect => Err(Refusal::Suspect),
        MessageType::MsgTimeoutNow | MessageType::MsgRequestPreVoteResponse => {
            check_may_campaign(raft, all_persisted)
        }
        MessageType::MsgRequestVote
        | MessageType::MsgRequestPreVote
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgReadIndexResp => Ok(()),
    }
}

/// Who may send the rest is decided by keys alone (`peer`), and not by the configuration that this member happens to have applied: of two
/// voters, one may not have heard yet that the other was added. Were it to refuse that one's appends or its candidacy, a majority could stay without
/// a leader (dissertation, section 4.1: members process messages from servers that are not in their own configuration). What
/// concerns a leader alone it can judge, for it knows the configuration. So does a lone voter: whoever may come to lead beside it was made a voter
/// by its own vote, and was a learner before; a stranger's word would stop the process, since raft knows that nobody else can lead. Not so one that never leads before it has another
/// state: the one at hand may be older than the others, and they are who it waits for.
fn needs_membership(kind: MessageType) -> bool {
    matches!(
        kind,
        MessageType::MsgPropose
            | MessageType::MsgReadIndex
            | MessageType::MsgTransferLeader
            | MessageType::MsgTimeoutNow
    )
}

/// Whether the log goes back to where the state is. Not so from a restore until the state is reported to be there: raft looks for what is not
/// applied before a candidacy, and stops the process where it finds a gap.
pub(super) fn reaches_state(raft: &Raft<LogStore>) -> bool {
    let log = &raft.raft_log;
    log.unstable_snapshot().is_some() || log.applied + 1 >= log.first_index()
}

/// Whether this member alone decides elections and commits.
pub(super) fn votes_alone(raft: &Raft<LogStore>) -> bool {
    let voters = raft.prs().conf().voters();
    voters.contains(raft.id) && voters.ids().iter().all(|id| id == raft.id)
}

/// Term 0 means "from this node itself" to raft and skips its checks; forwarded requests are the exception.
fn check_term(message: &Message) -> Result<(), Refusal> {
    let forwarded = matches!(message.msg_type, MessageType::MsgPropose | MessageType::MsgReadIndex);
    if forwarded == (message.term == 0) { Ok(()) } else { Err(Refusal::Term) }
}

/// A follower that does not trust its state asks for another one, which must not be behind the end of its log: it has confirmed that much. It
/// asks by the refusal of an append.
fn check_request_for_state(message: &Message) -> Result<(), Refusal> {
    let asks = message.msg_type == MessageType::MsgAppendResponse
        && message.reject
        && message.request_snapshot == message.reject_hint;
    if message.request_snapshot == raft::INVALID_INDEX || asks { Ok(()) } else { Err(Refusal::Snapshot) }
}

fn leads(raft: &Raft<LogStore>) -> Result<(), Refusal> {
    if raft.state == StateRole::Leader { Ok(()) } else { Err(Refusal::NotLeader) }
}

/// Forwarded proposals are commands only: changes of the configuration start at the leader.
fn check_proposal(raft: &Raft<LogStore>, message: &Message) -> Result<(), Refusal> {
    leads(raft)?;
    let command = |entry: &Entry| {
        entry.entry_type == EntryType::EntryNormal && !entry.data.is_empty() && entry.context.is_empty()
    };
    if message.entries.is_empty() || !message.entries.iter().all(command) {
        return Err(Refusal::Entries);
    }
    Ok(())
}

fn check_read(raft: &Raft<LogStore>, message: &Message) -> Result<(), Refusal> {
    leads(raft)?;
    if message.entries.len() == 1 { Ok(()) } else { Err(Refusal::Entries) }
}

fn check_append(message: &Message) -> Result<(), Refusal> {
    // The term of a position outside the log reads as 0, so that a claimed 0 would match anywhere.
    if message.log_term == 0 || message.log_term > message.term {
        return Err(Refusal::Term);
    }
    let mut previous = (message.index, message.log_term);
    for entry in &message.entries {
        let follows = entry.index == previous.0 + 1
            && (previous.1..=message.term).contains(&entry.term)
            && entry.context.is_empty()
            && entry.entry_type != EntryType::EntryConfChange;
        if !follows {
            return Err(Refusal::Entries);
        }
        previous = (entry.index, entry.term);
    }
    Ok(())
}

/// A follower can only confirm or refuse what this leader sent it.
fn check_append_response(raft: &Raft<LogStore>, message: &Message) -> Result<(), Refusal> {
    let furthest = message.index.max(message.request_snapshot);
    if message.term == raft.term && furthest > raft.raft_log.last_index() {
        return Err(Refusal::Position);
    }
    Ok(())
}

/// A leader tells a follower to commit what it knows to be in that follower's log. A follower that came back with an empty
/// disk does not have it; raft would stop the process.
fn check_heartbeat(raft: &Raft<LogStore>, message: &Message) -> Result<(), Refusal> {
    if message.term >= raft.term && message.commit > raft.raft_log.last_index() {
        return Err(Refusal::CommitBeyondLog);
    }
    Ok(())
}

/// Raft begins its log anew at whatever position it is told, and takes over the configuration unseen. So it is shown one position: that of the
/// state which is whole and durable in its place here, as the facts in that state name it.
fn check_snapshot(
    raft: &Raft<LogStore>,
    expected: Option<&SnapshotMark>,
    message: &Message,
) -> Result<(), Refusal> {
    let Some((snapshot, expected)) = message.snapshot.as_ref().zip(expected) else {
        return Err(Refusal::Snapshot);
    };
    // Raft takes a leader that is sent a snapshot for one of a lower term, and makes up the term.
    let leads = raft.state == StateRole::Leader && message.term <= raft.term;
    let named = mark_of(snapshot).is_some_and(|named| named == *expected);
    if leads || !named || !snapshot.data.is_empty() || !message.entries.is_empty() {
        return Err(Refusal::Snapshot);
    }
    if expected.position.term.0 > message.term {
        return Err(Refusal::Term);
    }
    Ok(())
}

/// Vote requests leave only after everything before them is on disk, so a vote that comes earlier was not asked for.
fn check_vote(raft: &Raft<LogStore>, all_persisted: bool, message: &Message) -> Result<(), Refusal> {
    let current = raft.state == StateRole::Candidate && message.term == raft.term;
    if current && !all_persisted { Err(Refusal::VoteNotAskedFor) } else { Ok(()) }
}

/// Who votes alone would lead at once, with entries that are still on their way to the disk. Who is installing a state waits for it.
pub(super) fn check_may_campaign(raft: &Raft<LogStore>, all_persisted: bool) -> Result<(), Refusal> {
    let ready = reaches_state(raft) && (all_persisted || !votes_alone(raft));
    if ready { Ok(()) } else { Err(Refusal::VoteNotAskedFor) }
}
