//! A member's raft among peers that say anything.
//!
//! Owns: that no row of messages, in whatever part the member plays, makes raft stop the process, move its commit position back or apply an entry twice.
//! Must never: give messages an order or a meaning that a hostile peer would not.

use std::collections::{BTreeMap, VecDeque};

use ::raft::eraftpb::{self, EntryType, MessageType};
use bytes::Bytes;
use covey::command::codec;
use covey::consensus::{
    Allowance, ConfChange, Consensus, MemberChange, Message, Pace, PersistId, SnapshotMark, Start,
};
use covey::ids::{LogIndex, MemberId, Term};
use covey::prng::Prng;
use covey::store::ConfState;
use covey::time::Instant;
use covey::wal::{EntryKind, HardState, LogEntry, Position};
use prost::Message as _;

use crate::input::Input;

const KINDS: [MessageType; 19] = [
    MessageType::MsgHup,
    MessageType::MsgBeat,
    MessageType::MsgPropose,
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgUnreachable,
    MessageType::MsgSnapStatus,
    MessageType::MsgCheckQuorum,
    MessageType::MsgTransferLeader,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

fn ids(ids: &[u64]) -> Vec<MemberId> {
    ids.iter().copied().map(MemberId).collect()
}

fn conf(voters: &[u64], learners: &[u64]) -> ConfState {
    ConfState { voters: ids(voters), learners: ids(learners), ..ConfState::default() }
}

/// A member and what it waits for.
struct Victim {
    raft: Consensus,
    now: Instant,
    waiting: VecDeque<PersistId>,
    installing: Option<SnapshotMark>,
    staged: Option<SnapshotMark>,
    /// The terms of its log.
    terms: BTreeMap<u64, u64>,
    applied: LogIndex,
    commit: LogIndex,
}

impl Victim {
    fn new(shape: u8) -> Self {
        let conf_state = match shape & 3 {
            0 => conf(&[1, 2, 3], &[]),
            1 => conf(&[2, 3], &[1]),
            2 => conf(&[1], &[2]),
            _ => conf(&[1, 2], &[4]),
        };
        let entry = |index| LogEntry {
            index: LogIndex(index),
            term: Term(1 + index / 3),
            kind: EntryKind::Normal,
            data: Bytes::from_static(b"x"),
        };
        let position = Position { index: LogIndex(1), term: Term(1) };
        let start = Start {
            member: MemberId(1),
            boot_nonce: 5,
            applied: position,
            conf_state,
            hard_state: HardState { term: Term(3), vote: None, commit: LogIndex(3) },
            log_start: position,
            entries: (2..6).map(entry).collect(),
            pace: Pace::default(),
            suspect: shape & 4 != 0,
            removed: false,
        };
        let terms = (1..6).map(|index| (index, if index == 1 { 1 } else { 1 + index / 3 })).collect();
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raft = Consensus::start(Instant(0), start, Prng::new(1), &logger).unwrap();
        let (now, waiting, first) = (Instant(0), VecDeque::new(), LogIndex(1));
        let mut victim =
            Self { raft, now, waiting, installing: None, staged: None, terms, applied: first, commit: first };
        victim.drain();
        victim
    }

    fn take(&mut self, input: &mut Input<'_>) {
        let now = self.now;
        match input.u8() & 15 {
            0 => {
                self.now = now + std::time::Duration::from_millis(input.u16().into());
                self.raft.handle_timeout(self.now);
            }
            1 => drop(self.raft.propose(now, vec![Bytes::from_static(b"mine")])),
            2 => drop(self.raft.start_read_round(now)),
            3 => self.raft.request_state(now),
            4 => self.raft.transfer_leader(now, MemberId(u64::from(input.u8()) % 6)),
            5 => {
                let kinds = [MemberChange::Voter, MemberChange::Learner, MemberChange::Remove];
                let change = (MemberId(1 + u64::from(input.u8()) % 5), kinds[usize::from(input.u8()) % 3]);
                let change = ConfChange { changes: vec![change], context: Bytes::new() };
                let _ = self.raft.propose_conf_change(now, &change);
            }
            6 | 7 => self.persist(input.u8() & 1 == 0),
            8 if self.installing.is_none() => drop(self.raft.cut(self.applied)),
            9 => self.stage(input),
            10 => self.finish_install(),
            _ => self.hear(input),
        }
        self.drain();
    }

    /// What came with an install is written after it.
    fn persist(&mut self, all: bool) {
        let id = if all { self.waiting.back() } else { self.waiting.front() };
        if let Some(&id) = id.filter(|_| self.installing.is_none()) {
            self.waiting.retain(|waiting| *waiting > id);
            self.raft.handle_persisted(self.now, id);
        }
    }

    fn stage(&mut self, input: &mut Input<'_>) {
        if self.raft.is_installing() {
            return;
        }
        let status = self.raft.status();
        let index = LogIndex(status.commit.0 + u64::from(input.u8() % 6));
        let term = Term(status.term.0.saturating_sub(u64::from(input.u8() % 3)).max(1));
        let conf_state = if input.u8() & 1 == 0 { conf(&[1, 2], &[3]) } else { conf(&[1, 2, 3], &[4]) };
        let mark = SnapshotMark { position: Position { index, term }, conf_state };
        self.staged = Some(mark.clone());
        self.raft.expect_snapshot(Some(mark));
    }

    fn finish_install(&mut self) {
        if let Some(mark) = self.installing.take() {
            self.applied = mark.position.index;
            self.raft.handle_installed(self.now, mark.position);
            self.raft.handle_applied(self.now, mark.position.index);
        }
    }

    /// Numbers are near to where the member is, mostly: what is far away is refused at once.
    fn number(input: &mut Input<'_>, near: u64) -> u64 {
        match input.u8() {
            255 => input.u64(),
            254 => 0,
            away => near.saturating_add(4).saturating_sub(u64::from(away % 9)),
        }
    }

    fn hear(&mut self, input: &mut Input<'_>) {
        let status = self.raft.status();
        let flags = input.u8();
        let index = Self::number(input, status.last.0);
        let term = if flags & 1 == 0 { status.term.0 } else { Self::number(input, status.term.0) };
        let log_term = self.terms.get(&index).copied().filter(|_| flags & 2 == 0);
        let mut message = eraftpb::Message {
            msg_type: KINDS[usize::from(input.u8()) % KINDS.len()],
            to: if flags & 0xe0 == 0xe0 { 2 } else { 1 },
            from: u64::from(input.u8()) % 6,
            term,
            log_term: log_term.unwrap_or_else(|| Self::number(input, status.term.0)),
            index,
            commit: Self::number(input, status.commit.0),
            reject: flags & 4 != 0,
            reject_hint: Self::number(input, status.last.0),
            ..Default::default()
        };
        if flags & 8 != 0 {
            message.request_snapshot = Self::number(input, status.commit.0);
            message.commit_term = Self::number(input, status.term.0);
            message.priority = i64::from(input.u8());
            message.context = Bytes::copy_from_slice(input.bytes(16));
        }
        if matches!(message.msg_type, MessageType::MsgPropose | MessageType::MsgReadIndex) && flags & 16 == 0
        {
            message.term = 0;
        }
        message.entries = Self::entries(input, index, term);
        if message.msg_type == MessageType::MsgSnapshot || flags & 16 != 0 && flags & 1 != 0 {
            message.snapshot = Some(self.snapshot(input));
        }
        let read = Message::decode(message.encode_to_vec().into(), &mut Allowance::default());
        if let Ok(message) = read {
            drop(self.raft.read_request(&message));
            let _ = self.raft.step(self.now, message);
        }
    }

    fn entries(input: &mut Input<'_>, mut index: u64, term: u64) -> Vec<eraftpb::Entry> {
        let count = input.u8() % 5;
        let mut entries = Vec::new();
        for _ in 0..count {
            index = index.saturating_add(1);
            let shape = input.u8();
            let entry_type = match shape & 7 {
                0 => EntryType::EntryConfChange,
                1 => EntryType::EntryConfChangeV2,
                _ => EntryType::EntryNormal,
            };
            let data = match shape >> 3 & 3 {
                0 => Bytes::new(),
                1 => super::commands::encoded().next().unwrap_or_default(),
                _ => Bytes::copy_from_slice(input.bytes((shape >> 5).into())),
            };
            let index = if shape == 255 { Self::number(input, index) } else { index };
            let term = if shape & 0xc0 == 0xc0 { Self::number(input, term) } else { term };
            entries.push(eraftpb::Entry { entry_type, term, index, data, ..Default::default() });
        }
        entries
    }

    fn snapshot(&self, input: &mut Input<'_>) -> eraftpb::Snapshot {
        let ids = |members: &[MemberId]| members.iter().map(|member| member.0).collect();
        let metadata = match &self.staged {
            Some(SnapshotMark { position, conf_state }) if input.u8() & 3 != 0 => {
                let conf_state = Some(eraftpb::ConfState {
                    voters: ids(&conf_state.voters),
                    learners: ids(&conf_state.learners),
                    ..Default::default()
                });
                eraftpb::SnapshotMetadata { conf_state, index: position.index.0, term: position.term.0 }
            }
            _ => {
                let voters = input.bytes(3).iter().map(|id| u64::from(*id) % 6).collect();
                let conf_state = Some(eraftpb::ConfState { voters, ..Default::default() });
                let status = self.raft.status();
                let index = Self::number(input, status.last.0);
                eraftpb::SnapshotMetadata { conf_state, index, term: Self::number(input, status.term.0) }
            }
        };
        eraftpb::Snapshot { metadata: Some(metadata), ..Default::default() }
    }

    fn drain(&mut self) {
        while let Some(ready) = self.raft.poll_ready() {
            assert!(self.installing.is_none(), "an install is done before anything else is");
            if let Some(mark) = ready.install {
                assert!(ready.committed.is_empty());
                self.terms = BTreeMap::from([(mark.position.index.0, mark.position.term.0)]);
                self.installing = Some(mark);
            }
            if let Some(persist) = ready.persist {
                self.waiting.push_back(persist.id);
                for entry in persist.entries {
                    self.terms.split_off(&entry.index.0);
                    self.terms.insert(entry.index.0, entry.term.0);
                }
            }
            for entry in ready.committed {
                assert_eq!(entry.index, self.applied.next(), "entries are applied in order and once");
                self.applied = entry.index;
                if entry.kind != EntryKind::Normal {
                    // What a leader committed may be garbage, which stops the node in order.
                    drop(self.raft.apply_conf_change(self.now, &entry));
                } else if !entry.data.is_empty() {
                    drop(codec::decode(entry.data));
                }
                self.raft.handle_applied(self.now, entry.index);
            }
        }
        let status = self.raft.status();
        assert!(status.commit >= self.commit && status.commit <= status.last, "{status:?}");
        self.commit = status.commit;
    }
}

pub fn messages(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut victim = Victim::new(input.u8());
    while !input.is_empty() {
        victim.take(&mut input);
    }
}

pub mod seeds {
    use covey::prng::Prng;

    /// There is nothing that only our own encoder writes: rows of numbers do.
    pub fn messages() -> Vec<Vec<u8>> {
        let mut prng = Prng::new(1);
        (0..16_u8)
            .map(|shape| {
                let numbers = (0..60).flat_map(|_| prng.next_u64().to_le_bytes());
                [shape].into_iter().chain(numbers).collect()
            })
            .collect()
    }
}
