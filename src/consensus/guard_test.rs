//! Nothing that a peer sends makes raft panic.
//!
//! Random messages, among them ones that are nearly right, are stepped into members in every role, between ticks, slow syncs
//! and proposals. A panic anywhere fails the test; so does a commit position that goes back or beyond the log.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use raft::eraftpb::{self, EntryType, MessageType, Snapshot, SnapshotMetadata};

use super::testing::{conf, logger, start_of};
use super::ticks::TICK;
use super::*;
use crate::wal::Position;

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

/// What happens to the member under test.
#[derive(Clone, Debug)]
enum Event {
    /// A message; numbers below `NEAR` are taken relative to the member's own term and log.
    Step(eraftpb::Message),
    Tick(u64),
    Propose,
    ReadRound,
    AskForState,
    Transfer(u64),
    ConfChange(u64, u8),
    /// The disk confirms everything, or only the oldest batch.
    Persist(bool),
    Cut,
    /// A state is staged at so many entries after the commit position, in a term so much before the member's.
    Stage(u64, u64),
    /// The install that is under way is done.
    Installed,
}

const NEAR: u64 = 8;

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..NEAR, 1 => NEAR..NEAR + 20, 1 => select(vec![u64::MAX, u64::MAX - 1, 1 << 62, 1 << 40])]
}

fn wire_entry() -> impl Strategy<Value = eraftpb::Entry> {
    let kind = select(vec![
        EntryType::EntryNormal,
        EntryType::EntryNormal,
        EntryType::EntryConfChange,
        EntryType::EntryConfChangeV2,
    ]);
    (kind, number(), number(), vec(any::<u8>(), 0..20)).prop_map(|(entry_type, term, index, data)| {
        eraftpb::Entry { entry_type, term, index, data: data.into(), ..Default::default() }
    })
}

fn message() -> impl Strategy<Value = eraftpb::Message> {
    let snapshot = prop_oneof![
        9 => Just(None),
        1 => (number(), number(), vec(0_u64..6, 0..4)).prop_map(|(index, term, voters)| {
            let conf_state = eraftpb::ConfState { voters, learners: vec![1], ..Default::default() };
            let metadata = SnapshotMetadata { conf_state: Some(conf_state), index, term };
            Some(Snapshot { metadata: Some(metadata), ..Default::default() })
        }),
    ];
    let numbers = (number(), number(), number(), number(), number(), number());
    // A run of entries that fits is rare by chance: most are made to fit when they are stepped.
    let entries = vec(wire_entry(), 0..4);
    let who = (select(vec![1_u64, 1, 1, 1, 1, 1, 2, 9]), 0_u64..6);
    let flags = (any::<bool>(), select(vec![0_u64, 0, 0, 0, 3]));
    (select(KINDS.to_vec()), who, numbers, entries, snapshot, flags).prop_map(
        |(msg_type, (to, from), numbers, entries, snapshot, (reject, request_snapshot))| eraftpb::Message {
            msg_type,
            to,
            from,
            term: numbers.0,
            log_term: numbers.1,
            index: numbers.2,
            commit: numbers.3,
            reject_hint: numbers.4,
            commit_term: numbers.5,
            entries,
            snapshot,
            reject,
            request_snapshot,
            ..Default::default()
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        20 => message().prop_map(Event::Step),
        3 => (1..250_u64).prop_map(Event::Tick),
        2 => Just(Event::Propose),
        1 => Just(Event::ReadRound),
        1 => Just(Event::AskForState),
        1 => (0..6_u64).prop_map(Event::Transfer),
        1 => (1..5_u64, 0..3_u8).prop_map(|(id, kind)| Event::ConfChange(id, kind)),
        4 => any::<bool>().prop_map(Event::Persist),
        1 => Just(Event::Cut),
        2 => (0..6_u64, 0..3_u64).prop_map(|(ahead, before)| Event::Stage(ahead, before)),
        2 => Just(Event::Installed),
    ]
}

/// A member and what it waits for.
struct Victim {
    raft: Consensus,
    now: Instant,
    waiting: VecDeque<PersistId>,
    installing: Option<SnapshotMark>,
    applied: LogIndex,
    commit: LogIndex,
}

impl Victim {
    fn new(voters: &[u64], learners: &[u64]) -> Self {
        Self::start(voters, learners, false)
    }

    fn start(voters: &[u64], learners: &[u64], suspect: bool) -> Self {
        let mut start = Start { suspect, ..start_of(1, conf(voters, learners)) };
        start.entries = (2..6)
            .map(|index| LogEntry {
                index: LogIndex(index),
                term: Term(1 + index / 3),
                kind: EntryKind::Normal,
                data: Bytes::from_static(b"x"),
            })
            .collect();
        start.hard_state = HardState { term: Term(3), vote: None, commit: LogIndex(3) };
        let raft = Consensus::start(Instant(0), start, Prng::new(1), &logger()).unwrap();
        let (applied, commit) = (LogIndex(1), LogIndex(1));
        let mut victim =
            Self { raft, now: Instant(0), waiting: VecDeque::new(), installing: None, applied, commit };
        victim.drain();
        victim
    }

    fn take(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Step(message) => {
                let message = self.near(message);
                let _ = self.raft.step(now, Message(message));
            }
            Event::Tick(ticks) => {
                self.now = now + TICK * u32::try_from(ticks).unwrap();
                self.raft.handle_timeout(self.now);
            }
            Event::Propose => {
                let _ = self.raft.propose(now, vec![Bytes::from_static(b"mine")]);
            }
            Event::AskForState => self.raft.request_state(now),
            Event::ReadRound => {
                self.raft.start_read_round(now);
            }
            Event::Transfer(to) => self.raft.transfer_leader(now, MemberId(to)),
            Event::ConfChange(id, kind) => {
                let kind =
                    [MemberChange::Voter, MemberChange::Learner, MemberChange::Remove][usize::from(kind)];
                let changes = vec![(MemberId(id), kind)];
                let _ = self.raft.propose_conf_change(now, &ConfChange { changes, context: Bytes::new() });
            }
            Event::Persist(all) => {
                // What came with an install is written after it.
                let id = if self.installing.is_some() {
                    None
                } else if all {
                    self.waiting.back()
                } else {
                    self.waiting.front()
                };
                if let Some(&id) = id {
                    self.waiting.retain(|waiting| *waiting > id);
                    self.raft.handle_persisted(now, id);
                }
            }
            Event::Cut => {
                if self.installing.is_none() {
                    self.raft.cut(self.applied);
                }
            }
            Event::Stage(ahead, before) => self.stage(ahead, before),
            Event::Installed => self.finish_install(),
        }
        self.drain();
    }

    /// Small numbers become positions around the member's own, so that messages get past the first checks.
    fn near(&self, mut message: eraftpb::Message) -> eraftpb::Message {
        let status = self.raft.status();
        let last = self.raft.node.raft.raft_log.last_index();
        let position = |number: u64| if number < NEAR { (last + 2).saturating_sub(number) } else { number };
        message.index = position(message.index);
        message.commit = position(message.commit);
        message.reject_hint = position(message.reject_hint);
        if (1..NEAR).contains(&message.term) {
            message.term = (status.term.0 + 2).saturating_sub(message.term / 2);
        }
        // The true term of the entry before, half of the time.
        if message.request_snapshot != 0 && message.msg_type == MessageType::MsgAppendResponse {
            message.request_snapshot = message.reject_hint;
        }
        if message.log_term < NEAR / 2 {
            message.log_term = self.raft.node.raft.raft_log.term(message.index).unwrap_or(0);
        }
        let fits = message.msg_type == MessageType::MsgAppend && message.reject;
        let (mut index, mut term) = (message.index, message.log_term);
        for entry in &mut message.entries {
            if fits {
                (index, term) =
                    (index.saturating_add(1), term.max(message.term.saturating_sub(entry.term % 2)));
                (entry.index, entry.term) = (index, term);
                if entry.entry_type != EntryType::EntryNormal {
                    (entry.entry_type, entry.data) = (EntryType::EntryConfChangeV2, Bytes::new());
                }
            }
        }
        if let Some(expected) = &self.raft.expected
            && message.msg_type == MessageType::MsgSnapshot
        {
            // The one that is staged, but for a message in some that is made up.
            if !message.reject {
                let Position { index, term } = expected.position;
                let conf_state = Some(conf_state_to_raft(&expected.conf_state));
                let metadata = Some(SnapshotMetadata { conf_state, index: index.0, term: term.0 });
                message.snapshot = Some(Snapshot { metadata, ..Default::default() });
                message.entries.clear();
                message.request_snapshot = 0;
            }
        } else if message.msg_type != MessageType::MsgSnapshot && message.reject {
            message.snapshot = None;
        }
        if matches!(message.msg_type, MessageType::MsgPropose | MessageType::MsgReadIndex) && !message.reject
        {
            message.term = 0;
        }
        message
    }

    /// As a whole state that came from a peer: a configuration with this member in it, and a position that the leader may or may not name.
    fn stage(&mut self, ahead: u64, before: u64) {
        if self.raft.is_installing() {
            return;
        }
        let status = self.raft.status();
        let index = LogIndex(status.commit.0 + ahead);
        let term = Term(status.term.0.saturating_sub(before).max(1));
        let conf_state = if before == 1 { conf(&[1, 2], &[3]) } else { conf(&[1, 2, 3], &[4]) };
        let position = Position { index, term };
        self.raft.expect_snapshot(Some(SnapshotMark { position, conf_state }));
    }

    fn finish_install(&mut self) {
        if let Some(mark) = self.installing.take() {
            self.applied = mark.position.index;
            self.raft.handle_installed(self.now, mark.position);
            self.raft.handle_applied(self.now, mark.position.index);
        }
    }

    fn drain(&mut self) {
        while let Some(ready) = self.raft.poll_ready() {
            assert!(self.installing.is_none(), "an install is done before anything else is");
            self.installing = ready.install;
            assert!(self.installing.is_none() || ready.committed.is_empty());
            self.waiting.extend(ready.persist.map(|persist| persist.id));
            for entry in ready.committed {
                assert_eq!(entry.index, self.applied.next(), "entries are applied in order and once");
                self.applied = entry.index;
                if entry.kind != EntryKind::Normal {
                    // Garbage that a leader committed is fatal for the node, but not a panic.
                    let _ = self.raft.apply_conf_change(self.now, &entry);
                }
                self.raft.handle_applied(self.now, entry.index);
            }
        }
        let status = self.raft.status();
        assert!(status.commit >= self.commit && status.commit <= status.last);
        self.commit = status.commit;
    }
}

fn survives(voters: &[u64], learners: &[u64], lead: bool) {
    survives_as(|| {
        let mut victim = Victim::new(voters, learners);
        if lead {
            make_leader(&mut victim);
        }
        victim
    });
}

fn survives_as(make: impl Fn() -> Victim) {
    let mut runner = TestRunner::new(Config { cases: 3000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&vec(event(), 1..60), |events| {
        let run = || {
            let mut victim = make();
            for event in events {
                victim.take(event);
            }
        };
        catch_unwind(AssertUnwindSafe(run))
            .map_err(|_| proptest::test_runner::TestCaseError::fail("raft panicked"))
    });
    outcome.unwrap();
}

/// Gets member 1 the vote of member 2, by the book.
fn make_leader(victim: &mut Victim) {
    victim.take(Event::Tick(2 * Pace::default().election_ticks() as u64));
    for answer in [MessageType::MsgRequestPreVoteResponse, MessageType::MsgRequestVoteResponse] {
        let term = victim.raft.node.raft.term + u64::from(answer == MessageType::MsgRequestPreVoteResponse);
        let vote = eraftpb::Message { msg_type: answer, to: 1, from: 2, term, ..Default::default() };
        victim.raft.step(victim.now, Message(vote)).unwrap();
        victim.drain();
        victim.take(Event::Persist(true));
    }
    assert_eq!(victim.raft.status().role, Role::Leader);
}

#[test]
fn a_follower_survives_any_message() {
    survives(&[1, 2, 3], &[4], false);
}

#[test]
fn a_leader_survives_any_message() {
    survives(&[1, 2, 3], &[4], true);
}

#[test]
fn a_learner_survives_any_message() {
    survives(&[2, 3], &[1], false);
}

#[test]
fn a_lone_voter_survives_any_message() {
    survives(&[1], &[2, 3], false);
}

#[test]
fn who_waits_for_a_state_survives_any_message() {
    survives_as(|| Victim::start(&[1, 2, 3], &[4], true));
    survives_as(|| Victim::start(&[1], &[], true));
}

/// A follower of term 3 with entries up to 5, the last of term 2, and what it says to one message from member 2.
fn verdict(edit: impl FnOnce(&mut eraftpb::Message)) -> Result<(), Refusal> {
    let victim = Victim::new(&[1, 2, 3], &[]);
    let mut message = eraftpb::Message { to: 1, from: 2, term: 3, ..Default::default() };
    edit(&mut message);
    victim.raft.check(&message)
}

/// The rules one by one: the random ones would not miss a rule that only keeps nonsense out.
#[test]
fn each_rule_refuses_what_it_is_for() {
    let append = |message: &mut eraftpb::Message| {
        message.msg_type = MessageType::MsgAppend;
        (message.index, message.log_term) = (5, 2);
        let entry = |index, term| eraftpb::Entry { index, term, ..Default::default() };
        message.entries = vec![entry(6, 2), entry(7, 3)];
    };
    let refused = |rule: fn(&mut eraftpb::Message)| {
        verdict(|message| {
            append(message);
            rule(message);
        })
    };
    assert_eq!(refused(|_| {}), Ok(()));
    assert_eq!(refused(|message| message.to = 2), Err(Refusal::NotForUs));
    assert_eq!(refused(|message| message.from = 1), Err(Refusal::UnknownSender));
    assert_eq!(refused(|message| message.from = 0), Err(Refusal::UnknownSender));
    assert_eq!(refused(|message| message.from = 9), Ok(()), "a member may not have heard of another one yet");
    assert_eq!(refused(|message| message.term = 0), Err(Refusal::Term));
    assert_eq!(refused(|message| message.term = u64::MAX), Err(Refusal::Position));
    assert_eq!(refused(|message| message.log_term = 0), Err(Refusal::Term));
    assert_eq!(refused(|message| message.log_term = 4), Err(Refusal::Term));
    assert_eq!(refused(|message| message.snapshot = Some(Snapshot::default())), Err(Refusal::Snapshot));
    assert_eq!(refused(|message| message.request_snapshot = 1), Err(Refusal::Snapshot));
    assert_eq!(refused(|message| message.entries[1].index = 8), Err(Refusal::Entries));
    assert_eq!(refused(|message| message.entries[1].term = 1), Err(Refusal::Entries));
    assert_eq!(refused(|message| message.entries[1].term = 4), Err(Refusal::Entries));
    assert_eq!(
        refused(|message| message.entries[0].context = Bytes::from_static(b"x")),
        Err(Refusal::Entries)
    );
    let old_form =
        |message: &mut eraftpb::Message| message.entries[0].entry_type = EntryType::EntryConfChange;
    assert_eq!(refused(old_form), Err(Refusal::Entries));

    let kind = |msg_type| verdict(|message| message.msg_type = msg_type);
    for local in [MessageType::MsgHup, MessageType::MsgBeat, MessageType::MsgUnreachable] {
        assert_eq!(kind(local), Err(Refusal::UnexpectedKind));
    }
    assert_eq!(kind(MessageType::MsgSnapshot), Err(Refusal::Snapshot));
    only_the_staged_snapshot_is_shown_to_raft();
    assert_eq!(kind(MessageType::MsgTransferLeader), Err(Refusal::NotLeader));
    assert_eq!(kind(MessageType::MsgPropose), Err(Refusal::Term), "forwarded requests have no term");
    let forwarded = |msg_type| verdict(|message| (message.msg_type, message.term) = (msg_type, 0));
    assert_eq!(forwarded(MessageType::MsgPropose), Err(Refusal::NotLeader));
    assert_eq!(forwarded(MessageType::MsgReadIndex), Err(Refusal::NotLeader));
    let heartbeat =
        |commit| verdict(|message| (message.msg_type, message.commit) = (MessageType::MsgHeartbeat, commit));
    assert_eq!(heartbeat(5), Ok(()));
    assert_eq!(heartbeat(6), Err(Refusal::CommitBeyondLog));
}

#[test]
fn a_leader_takes_only_what_answers_it() {
    let mut victim = Victim::new(&[1, 2, 3], &[]);
    make_leader(&mut victim);
    let (term, last) = (victim.raft.status().term.0, victim.raft.status().last.0);
    let verdict = |edit: &dyn Fn(&mut eraftpb::Message)| {
        let mut message = eraftpb::Message { to: 1, from: 2, term, ..Default::default() };
        edit(&mut message);
        victim.raft.check(&message)
    };
    let response = |index| {
        move |message: &mut eraftpb::Message| {
            (message.msg_type, message.index) = (MessageType::MsgAppendResponse, index);
        }
    };
    assert_eq!(verdict(&response(last)), Ok(()));
    assert_eq!(verdict(&response(last + 1)), Err(Refusal::Position));
    let entry = |entry_type, data| eraftpb::Entry { entry_type, data, ..Default::default() };
    let propose = |entries: Vec<eraftpb::Entry>| {
        verdict(&|message| {
            (message.msg_type, message.term) = (MessageType::MsgPropose, 0);
            message.entries.clone_from(&entries);
        })
    };
    let command = entry(EntryType::EntryNormal, Bytes::from_static(b"x"));
    assert_eq!(propose(vec![command.clone()]), Ok(()));
    assert_eq!(propose(vec![]), Err(Refusal::Entries));
    assert_eq!(propose(vec![entry(EntryType::EntryNormal, Bytes::new())]), Err(Refusal::Entries));
    let smuggled = entry(EntryType::EntryConfChangeV2, Bytes::from_static(b"x"));
    assert_eq!(propose(vec![command.clone(), smuggled]), Err(Refusal::Entries));
    let read = |entries: Vec<eraftpb::Entry>| {
        verdict(&|message| {
            (message.msg_type, message.term) = (MessageType::MsgReadIndex, 0);
            message.entries.clone_from(&entries);
        })
    };
    assert_eq!(read(vec![command.clone()]), Ok(()));
    assert_eq!(read(vec![command.clone(), command]), Err(Refusal::Entries));
    let transfer = |message: &mut eraftpb::Message| message.msg_type = MessageType::MsgTransferLeader;
    assert_eq!(verdict(&transfer), Ok(()));
}

fn only_the_staged_snapshot_is_shown_to_raft() {
    let mut victim = Victim::new(&[1, 2, 3], &[]);
    let expected = SnapshotMark {
        position: Position { index: LogIndex(9), term: Term(3) },
        conf_state: conf(&[1, 2, 3], &[]),
    };
    let verdict = |victim: &Victim, edit: &dyn Fn(&mut eraftpb::Message)| {
        let conf_state = Some(eraftpb::ConfState { voters: vec![3, 1, 2], ..Default::default() });
        let metadata = Some(SnapshotMetadata { conf_state, index: 9, term: 3 });
        let snapshot = Some(Snapshot { metadata, ..Default::default() });
        let msg_type = MessageType::MsgSnapshot;
        let mut message =
            eraftpb::Message { msg_type, to: 1, from: 2, term: 3, snapshot, ..Default::default() };
        edit(&mut message);
        victim.raft.check(&message)
    };
    let metadata = |message: &mut eraftpb::Message, edit: fn(&mut SnapshotMetadata)| {
        edit(message.snapshot.as_mut().unwrap().metadata.as_mut().unwrap());
    };
    assert_eq!(verdict(&victim, &|_| {}), Err(Refusal::Snapshot), "nothing is staged");
    victim.raft.expect_snapshot(Some(expected));
    assert_eq!(verdict(&victim, &|_| {}), Ok(()), "in whatever order it names the voters");
    let edits: [&dyn Fn(&mut eraftpb::Message); 6] = [
        &|message| message.snapshot = None,
        &|message| metadata(message, |metadata| metadata.index = 10),
        &|message| metadata(message, |metadata| metadata.term = 2),
        &|message| metadata(message, |metadata| metadata.conf_state = None),
        &|message| message.snapshot.as_mut().unwrap().data = b"x".to_vec().into(),
        &|message| message.entries = vec![eraftpb::Entry::default()],
    ];
    for edit in edits {
        assert_eq!(verdict(&victim, edit), Err(Refusal::Snapshot));
    }
    assert_eq!(verdict(&victim, &|message| message.term = 2), Err(Refusal::Term));
    let heartbeat = |message: &mut eraftpb::Message| message.msg_type = MessageType::MsgHeartbeat;
    assert_eq!(verdict(&victim, &heartbeat), Err(Refusal::Snapshot), "it belongs into no other message");
    make_leader(&mut victim);
    let term = victim.raft.status().term.0;
    assert_eq!(verdict(&victim, &|message| message.term = term), Err(Refusal::Snapshot));
}
