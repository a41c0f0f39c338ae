//! A whole member on one thread: core, applier, log and store joined as `runtime` joins them, with a simulated disk.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::command::codec::encode;
use crate::command::{Alarm, AlarmAction, AlarmKind, Applied, Command, Envelope, LeaseChange, Outcome, Put};
use crate::consensus::{ConfChange, ConfChangeRefusal, MemberChange, Persist, Role};
use crate::disk::DatabaseFile;
use crate::disk::Directory;
use crate::disk::sim::{SimDir, Survival};
use crate::formation::{Founding, test_founding};
use crate::ids::{Digest, LeaseId, LogIndex, ProposalId, Revision, Term};
use crate::limits::{
    OVERLAY_BYTES, OVERLAY_IDLE, PROPOSALS_PENDING_BYTES_MAX, PROPOSALS_PENDING_MAX, QUOTA_BYTES,
    REQUEST_BYTES_MAX, UNAPPLIED_BYTES_MAX, WAL_BATCH_BYTES,
};
use crate::mvcc::View;
use crate::store::{Base, FoldBatch, Meta, Store, StoreOptions};
use crate::wal::{Batch, EntryKind, LogEntry, Options, Wal};

/// Where log and store are.
#[derive(Clone)]
struct Disks {
    log: SimDir,
    store: SimDir,
}

impl Disks {
    fn open_store(&self) -> Store {
        let names = self.store.list().unwrap();
        let file = if names.is_empty() { self.store.create("store") } else { self.store.open("store") };
        Store::open(DatabaseFile::new(file.unwrap()), StoreOptions::default()).unwrap()
    }

    /// Power off: what was not synced is gone.
    fn crash(&self) -> Self {
        Self { log: self.log.crash(Survival::Nothing), store: self.store.crash(Survival::Nothing) }
    }
}

/// One run of a member; dropping it is a crash.
pub(super) struct Member {
    pub(super) core: Core,
    pub(super) applier: Applier,
    wal: Wal<SimDir>,
    disks: Disks,
    pub(super) founding: Founding,
    pub(super) store: Store,
    pub(super) view: Option<View>,
    pub(super) now: Instant,
    boot: u64,
    seq: u64,
    pub(super) replies: Vec<(ProposalId, Applied)>,
    reads: Vec<(ReadId, LogIndex)>,
    pub(super) lease_answers: Vec<(u64, LeaseAnswer)>,
    refused: Vec<(Request, RefusedWhy)>,
    pub(super) folds: usize,
    /// While true, folds and syncs stay where they are.
    pub(super) hold_folds: bool,
    pub(super) hold_syncs: bool,
    /// How long it takes to apply a batch.
    pub(super) apply_time: Duration,
    /// Whether it has peers; what it writes to them gets lost.
    expects_messages: bool,
    pub(super) quota: Option<u64>,
    pub(super) held_fold: Option<FoldBatch>,
    held_persists: Vec<Persist>,
}

impl Member {
    pub(super) fn found() -> Self {
        let founding = test_founding(1);
        let disks = Disks { log: SimDir::new(1), store: SimDir::new(2) };
        let identity = wal_identity(&founding);
        drop(Wal::create(disks.log.clone(), identity, founding.log_start, small()).unwrap());
        disks.open_store().initialise(&founding.meta).unwrap();
        disks.store.sync().unwrap();
        let mut member = Self::start(founding, disks, 1, Some(QUOTA_BYTES));
        member.hold_syncs = false;
        member.run();
        member
    }

    /// A member that has not done anything yet, with a disk that does not sync.
    fn start(founding: Founding, disks: Disks, boot: u64, quota: Option<u64>) -> Self {
        let (wal, recovered) = Wal::open(disks.log.clone(), wal_identity(&founding), small()).unwrap();
        let store = disks.open_store();
        let recovery = Recovery {
            member: founding.identity.member,
            boot_nonce: boot,
            base: Arc::new(store.base().unwrap()),
            hard_state: recovered.hard_state,
            log_start: recovered.start,
            entries: recovered.entries,
            quota_bytes: quota,
            pace: Pace::default(),
            prng: Prng::new(boot),
        };
        let now = Instant(boot);
        let (core, applier) = recover(now, recovery, &discard()).unwrap();
        Self {
            core,
            applier,
            wal,
            disks,
            founding,
            store,
            view: None,
            now,
            boot,
            seq: 0,
            replies: Vec::new(),
            reads: Vec::new(),
            lease_answers: Vec::new(),
            refused: Vec::new(),
            folds: 0,
            hold_folds: false,
            hold_syncs: true,
            apply_time: Duration::ZERO,
            expects_messages: false,
            quota,
            held_fold: None,
            held_persists: Vec::new(),
        }
    }

    /// Power off and on, with a disk that does not sync yet.
    pub(super) fn reboot(self) -> Self {
        let (disks, boot) = (self.disks.crash(), self.boot + 1);
        let expects_messages = self.expects_messages;
        Self { expects_messages, ..Self::start(self.founding, disks, boot, self.quota) }
    }

    /// Power off and on.
    pub(super) fn restart(self) -> Self {
        let mut member = self.reboot();
        member.hold_syncs = false;
        member.run();
        member
    }

    /// Runs until nothing is left to do at this moment.
    pub(super) fn run(&mut self) {
        loop {
            let core = self.core.poll_output();
            let applier = self.applier.poll_output(self.now).unwrap();
            if matches!(applier, Some(ApplierOutput::Publish(_))) {
                self.now = self.now + self.apply_time;
            }
            if core.is_none() && applier.is_none() && !self.sync() {
                break;
            }
            if let Some(output) = core {
                self.core_output(output);
            }
            if let Some(output) = applier {
                self.applier_output(output);
            }
        }
    }

    fn core_output(&mut self, output: CoreOutput) {
        match output {
            CoreOutput::Persist(persist) => self.held_persists.push(persist),
            CoreOutput::Apply(entries) => self.applier.handle_entries(self.now, entries),
            CoreOutput::ReadReady(ids, index) => self.reads.extend(ids.into_iter().map(|id| (id, index))),
            CoreOutput::Refused { request, why } => self.refused.push((request, why)),
            CoreOutput::CutLog { before } => self.wal.cut(before).unwrap(),
            CoreOutput::Send(messages) => assert!(self.expects_messages, "to nobody: {messages:?}"),
            CoreOutput::DiskStuck { .. } => {}
            CoreOutput::Store(_) | CoreOutput::ResetLog { .. } | CoreOutput::FoldSoon => {
                panic!("no follower asks, no leader sends")
            }
            CoreOutput::Status(status) => {
                self.applier
                    .handle_leadership(self.now, (status.role == Role::Leader).then_some(status.term));
            }
        }
    }

    pub(super) fn applier_output(&mut self, output: ApplierOutput) {
        match output {
            ApplierOutput::Publish(view) => {
                self.view = Some(view);
            }
            ApplierOutput::Replies(replies) => {
                let applied = self.view.as_ref().unwrap().applied();
                assert!(applied >= self.applier.applied(), "an answer never comes before its view");
                self.replies.extend(replies);
            }
            ApplierOutput::Applied { index, bytes, .. } => self.core.handle_applied(self.now, index, bytes),
            ApplierOutput::ConfChange(entry) => {
                let conf_state = self.core.apply_conf_change(self.now, &entry).unwrap().unwrap();
                self.applier.apply_conf_state(self.now, entry.index, conf_state);
            }
            ApplierOutput::Fold(batch) if self.hold_folds => self.held_fold = Some(batch),
            ApplierOutput::Fold(batch) => self.fold(&batch),
            ApplierOutput::CompactStart => {
                while !self.store.compact_slice(2).unwrap().finished {
                    self.applier.handle_compacted(self.now, self.base());
                }
                self.applier.handle_compacted(self.now, self.base());
            }
            ApplierOutput::Propose(command) => {
                self.propose(command);
            }
            // What the configuration is to be is the tests' own business.
            ApplierOutput::Membership(_) => {}
            ApplierOutput::LeaseAnswers(answers) => self.lease_answers.extend(answers),
        }
    }

    pub(super) fn fold(&mut self, batch: &FoldBatch) {
        self.folds += 1;
        self.store.fold(batch).unwrap();
        self.applier.handle_folded(self.now, self.base());
        self.core.handle_checkpointed(self.now, batch.meta.applied);
    }

    fn base(&self) -> Arc<Base> {
        Arc::new(self.store.base().unwrap())
    }

    /// One write and one sync for everything that waits, as the wal thread does it.
    fn sync(&mut self) -> bool {
        if self.hold_syncs {
            return false;
        }
        let Some(id) = self.held_persists.last().map(|persist| persist.id) else { return false };
        let persists: Vec<Persist> = self.held_persists.drain(..).collect();
        let hard_state = persists.iter().rev().find_map(|persist| persist.hard_state);
        let entries: Vec<_> = persists.into_iter().flat_map(|persist| persist.entries).collect();
        self.wal.append(Batch { hard_state, entries: &entries }).unwrap();
        self.wal.sync().unwrap();
        self.core.handle_persisted(self.now, id);
        true
    }

    pub(super) fn propose(&mut self, command: Command) -> ProposalId {
        self.seq += 1;
        let id = ProposalId { boot: self.boot, seq: self.seq };
        self.core.handle_proposal(self.now, id, encode(&Envelope { id, caller: None, command }));
        id
    }

    pub(super) fn put(&mut self, key: &str, value: impl Into<Bytes>) -> Applied {
        let id = self.propose(put(key, value));
        self.run();
        let found = self.replies.iter().position(|(replied, _)| *replied == id);
        self.replies.remove(found.expect("an answer")).1
    }

    pub(super) fn value(&self, key: &str) -> Option<Bytes> {
        let view = self.view.as_ref().unwrap();
        view.get(&Bytes::copy_from_slice(key.as_bytes()), view.revision()).unwrap().map(|found| found.value)
    }
}

pub(super) fn put(key: &str, value: impl Into<Bytes>) -> Command {
    Command::Put(Put {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Some(value.into()),
        lease: LeaseChange::Set(LeaseId::NONE),
        prev_kv: false,
    })
}

fn wal_identity(founding: &Founding) -> crate::wal::Identity {
    crate::wal::Identity { cluster: founding.identity.cluster(), member: founding.identity.member }
}

fn small() -> Options {
    Options { prefill: false, ..Options::default() }
}

fn discard() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

#[test]
fn a_lone_member_serves_at_once_and_sleeps_when_idle() {
    let mut member = Member::found();
    assert_eq!(member.core.status().role, Role::Leader);
    assert!(member.core.status().sole_voter);
    let applied = member.put("a", "1");
    assert_eq!(applied.revision, Revision(2));
    assert!(matches!(applied.outcome, Ok(Outcome::Put(_))));
    assert_eq!(member.value("a").as_deref(), Some(&b"1"[..]));
    assert_eq!(member.core.poll_timeout(), None, "no heartbeats without peers");
    assert_eq!(member.applier.poll_timeout(), Some(member.now + OVERLAY_IDLE));
}

#[test]
fn what_was_answered_survives_crashes_and_folds() {
    let mut member = Member::found();
    member.put("a", "1");
    member.put("b", "2");
    member = member.restart();
    assert_eq!(member.value("a").as_deref(), Some(&b"1"[..]), "replayed from the log");
    assert_eq!(member.folds, 0);
    assert_eq!(member.put("a", "3").revision, Revision(4));
    member.now = member.now + OVERLAY_IDLE;
    member.applier.handle_timeout(member.now);
    member.run();
    assert_eq!(member.folds, 1, "a quiet, dirty overlay is folded");
    assert_eq!(member.applier.poll_timeout(), None, "and then nothing is left to wake up for");
    assert_eq!(member.store.meta().revision, Revision(4));
    member = member.restart();
    assert_eq!(member.value("a").as_deref(), Some(&b"3"[..]));
    assert_eq!(member.value("b").as_deref(), Some(&b"2"[..]));
    assert_eq!(member.put("c", "4").revision, Revision(5));
}

#[test]
fn an_unsynced_proposal_is_not_answered_and_may_be_gone() {
    let mut member = Member::found();
    member.put("a", "1");
    member.hold_syncs = true;
    member.propose(put("b", "2"));
    member.run();
    assert!(member.replies.is_empty());
    assert_eq!(member.value("b"), None, "not even visible");
    member.hold_syncs = false;
    member.held_persists.clear();
    member = member.restart();
    assert_eq!(member.value("a").as_deref(), Some(&b"1"[..]));
    assert_eq!(member.value("b"), None);
}

#[test]
fn proposals_that_come_together_share_one_sync() {
    let mut member = Member::found();
    let before = member.wal.usage().syncs;
    for n in 0..100 {
        member.propose(put(&format!("k{n}"), "v"));
    }
    member.run();
    assert_eq!(member.replies.len(), 100);
    assert_eq!(member.wal.usage().syncs, before + 1);
    // Replies are in the order of the log.
    assert!(member.replies.windows(2).all(|pair| pair[0].0.seq < pair[1].0.seq));
}

#[test]
fn what_comes_while_the_disk_syncs_is_the_next_batch() {
    let mut member = Member::found();
    let before = member.wal.usage().syncs;
    member.hold_syncs = true;
    for n in 0..4 {
        member.propose(put(&format!("k{n}"), "v"));
        member.run();
    }
    assert_eq!(member.held_persists.len(), 1);
    member.hold_syncs = false;
    member.run();
    assert_eq!((member.replies.len(), member.wal.usage().syncs), (4, before + 2));
}

#[test]
fn replies_of_an_earlier_run_reach_nobody() {
    let mut member = Member::found();
    member.put("a", "1");
    member = member.restart();
    assert!(member.replies.is_empty(), "replayed entries have no callers");
}

#[test]
fn a_linearizable_read_waits_for_what_was_committed_before() {
    let mut member = Member::found();
    member.put("a", "1");
    let commit = member.core.status().commit;
    member.core.handle_read(member.now, ReadId(1));
    member.core.handle_read(member.now, ReadId(2));
    member.run();
    assert_eq!(member.reads, [(ReadId(1), commit), (ReadId(2), commit)]);
}

#[test]
fn a_read_before_the_first_commit_of_the_term_is_not_lost() {
    let mut member = Member::found();
    member.put("a", "1");
    let mut member = member.reboot();
    member.core.handle_read(member.now, ReadId(7));
    member.run();
    assert!(member.reads.is_empty(), "a leader does not know yet what is committed");
    assert!(!member.core.status().sole_voter);
    assert_eq!(member.value("a"), None, "a read without a round would be stale");
    member.hold_syncs = false;
    member.run();
    let commit = member.core.status().commit;
    assert_eq!(member.reads, [(ReadId(7), commit)]);
    assert!(member.core.status().sole_voter);
}

#[test]
fn too_many_proposals_are_refused_by_number_and_by_bytes() {
    let mut member = Member::found();
    member.hold_syncs = true;
    for _ in 0..PROPOSALS_PENDING_MAX {
        member.propose(put("k", "v"));
    }
    member.run();
    assert!(member.refused.is_empty());
    let one_more = member.propose(put("k", "v"));
    member.run();
    assert_eq!(member.refused, [(Request::Proposal(one_more), RefusedWhy::TooManyRequests)]);
    member.hold_syncs = false;
    member.run();
    assert_eq!(member.replies.len(), PROPOSALS_PENDING_MAX);
    member.put("k", "there is room again");

    member.hold_syncs = true;
    member.refused.clear();
    let value = Bytes::from(vec![0; REQUEST_BYTES_MAX]);
    for _ in 0..PROPOSALS_PENDING_BYTES_MAX / REQUEST_BYTES_MAX {
        member.propose(put("k", value.clone()));
        member.run();
    }
    assert_eq!(member.refused.len(), 1, "with their overhead they are too many bytes by one");
}

#[test]
fn a_slow_fold_stalls_the_applier_and_then_the_core() {
    let mut member = Member::found();
    member.hold_folds = true;
    let value = Bytes::from(vec![1; 256 * 1024]);
    let mut sent = 0;
    // Until the overlay (two generations) and what may be committed but unapplied are full.
    while member.refused.is_empty() {
        member.propose(put(&format!("k{sent}"), value.clone()));
        sent += 1;
        member.run();
        assert!(sent < 1000, "somewhere it has to stop");
    }
    assert!(member.applier.is_stalled());
    let applied = member.replies.len() * value.len();
    assert!((2 * OVERLAY_BYTES..3 * OVERLAY_BYTES).contains(&applied), "two generations: {applied}");
    let committed = usize::try_from(member.core.status().commit.0).unwrap() * value.len() - applied;
    assert!(committed <= UNAPPLIED_BYTES_MAX + WAL_BATCH_BYTES + value.len(), "{committed}");
    assert_eq!(member.folds, 0);

    member.hold_folds = false;
    let batch = member.held_fold.take().unwrap();
    member.fold(&batch);
    member.run();
    assert_eq!(member.replies.len(), sent - 1, "everything that was taken is done");
    assert!(member.folds >= 3);
    let member = member.restart();
    let last = format!("k{}", sent - 2);
    assert_eq!(member.value(&last), Some(value));
}

#[test]
fn entries_that_change_nothing_are_folded_away_too() {
    let mut member = Member::found();
    let clear = Command::Alarm {
        action: AlarmAction::Deactivate,
        alarm: Alarm { member: member.founding.identity.member, kind: AlarmKind::Corrupt },
    };
    let mut entries = 0;
    while member.folds < 2 {
        for _ in 0..1000 {
            member.propose(clear.clone());
        }
        member.run();
        entries += 1000;
        assert!(entries < 1_000_000, "the log would grow for ever");
    }
    let revision = member.view.as_ref().unwrap().revision();
    assert_eq!(revision, Revision(1));
    let span = member.wal.last().index.0 - member.wal.start().index.0;
    assert!(span < entries, "the log on disk was cut: {span}");
}

#[test]
fn the_leader_clears_nospace_once_compaction_has_made_room() {
    let mut member = Member::found();
    let alarm = Alarm { member: member.founding.identity.member, kind: AlarmKind::NoSpace };
    let value = Bytes::from(vec![1; 1024 * 1024]);
    for _ in 0..20 {
        member.put("k", value.clone());
    }
    let used = member.view.as_ref().unwrap().bytes_in_use();
    member.quota = Some(used);
    member = member.restart();
    let by_operator = Alarm { member: MemberId(77), kind: AlarmKind::NoSpace };
    member.propose(Command::Alarm { action: AlarmAction::QuotaReached, alarm });
    member.propose(Command::Alarm { action: AlarmAction::Activate, alarm: by_operator });
    member.run();
    assert_eq!(member.view.as_ref().unwrap().facts().alarms.len(), 2);
    member.propose(Command::Compact { revision: 21 });
    member.run();
    let view = member.view.as_ref().unwrap();
    assert!(view.bytes_in_use() < used / 2);
    assert_eq!(view.facts().alarms, [by_operator], "what an operator has raised stays");
    member.propose(Command::Alarm { action: AlarmAction::Deactivate, alarm: by_operator });
    assert_eq!(member.put("k", "v").revision, Revision(22));
}

#[test]
fn an_entry_that_cannot_be_read_stops_the_member() {
    let mut member = Member::found();
    let id = ProposalId { boot: 1, seq: 99 };
    member.core.handle_proposal(member.now, id, Bytes::from_static(&[250, 1, 2]));
    while let Some(output) = member.core.poll_output() {
        member.core_output(output);
    }
    member.sync();
    let failure = loop {
        if let Some(output) = member.core.poll_output() {
            member.core_output(output);
        }
        match member.applier.poll_output(member.now) {
            Ok(Some(output)) => member.applier_output(output),
            Ok(None) => {}
            Err(failure) => break failure,
        }
    };
    let index = member.core.status().last;
    assert!(matches!(failure, ApplierError::EntryUnreadable { index: at, .. } if at == index));
}

#[test]
fn a_second_member_ends_the_shortcut_for_reads_before_it_is_there() {
    let mut member = Member::found();
    member.put("a", "1");
    let change = ConfChange { changes: vec![(MemberId(77), MemberChange::Learner)], context: Bytes::new() };
    member.core.propose_conf_change(member.now, &change).unwrap();
    let refused = member.core.propose_conf_change(member.now, &change);
    assert_eq!(refused, Err(ConfChangeRefusal::Pending), "one at a time");
    let first = member.core.poll_output();
    assert!(
        matches!(first, Some(CoreOutput::Status(status)) if !status.sole_voter),
        "before the entry leaves"
    );
    member.expects_messages = true;
    member.run();
    let conf_state = &member.view.as_ref().unwrap().facts().conf_state;
    assert_eq!(conf_state.learners, [MemberId(77)]);
    assert!(
        !member.core.status().sole_voter,
        "a learner does not vote, but it acknowledges what it has passed on"
    );
    assert!(member.core.poll_timeout().is_some(), "but it wants heartbeats");

    // The configuration is part of the state: it is there again after a restart, folded or not.
    let mut member = member.restart();
    assert!(member.core.poll_timeout().is_some());
    assert_eq!(member.put("b", "2").revision, Revision(3));
    let back = ConfChange { changes: vec![(MemberId(77), MemberChange::Remove)], context: Bytes::new() };
    member.core.propose_conf_change(member.now, &back).unwrap();
    member.run();
    assert_eq!(member.core.poll_timeout(), None);
    assert!(member.core.status().sole_voter);
}

#[test]
fn a_change_that_a_coming_state_has_waits_for_that_state() {
    let mut member = Member::found();
    let (before, digest) = (member.applier.applied(), member.view.as_ref().unwrap().digest());
    let entry = |index, kind| LogEntry { index, term: Term(9), kind, data: Bytes::new() };
    let change = entry(before.next(), EntryKind::ConfChangeV2);
    let behind = entry(change.index.next(), EntryKind::Normal);
    let bytes = change.memory_bytes() + behind.memory_bytes();
    member.applier.handle_entries(member.now, vec![change, behind.clone()]);
    member.applier.handle_fold_wish(member.now);
    let asked = member.applier.poll_output(member.now).unwrap();
    assert!(matches!(asked, Some(ApplierOutput::ConfChange(entry)) if entry.index == before.next()));
    while let Some(output) = member.applier.poll_output(member.now).unwrap() {
        member.applier_output(output);
    }
    let meta = member.store.meta().clone();
    assert_eq!((meta.applied, meta.digest), (before, digest), "nothing of it is in a fold");

    let disks = Disks { log: SimDir::new(3), store: SimDir::new(4) };
    let mut store = disks.open_store();
    store.initialise(&Meta { applied: behind.index, digest: Digest(7), ..meta }).unwrap();
    member.applier.handle_installed(member.now, Arc::new(store.base().unwrap())).unwrap();
    let published = member.applier.poll_output(member.now).unwrap();
    assert!(matches!(published, Some(ApplierOutput::Publish(view)) if view.digest() == Digest(7)));
    let counted = member.applier.poll_output(member.now).unwrap();
    assert!(
        matches!(counted, Some(ApplierOutput::Applied { index, bytes: all, awaited: true }) if (index, all) == (behind.index, bytes))
    );
    member.applier.handle_entries(member.now, vec![entry(behind.index.next(), EntryKind::Normal)]);
    assert!(member.applier.poll_output(member.now).unwrap().is_some());
    assert_eq!(member.applier.applied(), behind.index.next());
}

/// By a leader's first entry the core may do what it could not before, and nothing else tells it so; of what users write it hears in time.
#[test]
fn the_core_hears_at_once_of_what_it_waits_for() {
    let mut member = Member::found();
    let mut awaited = |data: Bytes| {
        let index = member.applier.applied().next();
        let entry = LogEntry { index, term: Term(9), kind: EntryKind::Normal, data };
        member.applier.handle_entries(member.now, vec![entry]);
        let mut told = Vec::new();
        while let Some(output) = member.applier.poll_output(member.now).unwrap() {
            if let ApplierOutput::Applied { awaited, .. } = output {
                told.push(awaited);
            }
        }
        told
    };
    let id = ProposalId { boot: 7, seq: 1 };
    let put = encode(&Envelope { id, caller: None, command: put("a", "1") });
    assert_eq!([awaited(put.clone()), awaited(Bytes::new()), awaited(put)], [[false], [true], [false]]);
}
