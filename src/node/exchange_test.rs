//! The two ends of a transfer against each other, without raft: what is lost, repeated or contested on the way.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::consensus::SnapshotMark;
use crate::disk::Directory;
use crate::disk::sim::SimDir;
use crate::formation::{STAGED_NAME, STORE_NAME, first_state_of};
use crate::ids::{LeaseId, LogIndex, PublicKey, Revision, VersionId};
use crate::prng::Prng;
use crate::store::{Change, ChangeKind, ChangeLog, FoldBatch, Lease, Store, StoreOptions};

const SOURCE: MemberId = MemberId(1);
const FOLLOWER: MemberId = MemberId(2);

struct End {
    me: MemberId,
    root: SimDir,
    checkpointer: Checkpointer<SimDir>,
    staged: Vec<SnapshotMark>,
    outcomes: Vec<TransferOutcome>,
    installed: Vec<Arc<Base>>,
    contested: usize,
}

impl End {
    fn new(me: MemberId, boot: u64, root: SimDir) -> Self {
        let mut store = Store::open_in(&root, STORE_NAME, StoreOptions { cache_bytes: 1 << 20 }).unwrap();
        if !store.is_initialised() {
            let (mut meta, _) = first_state_of(me, PublicKey([1; 32]));
            meta.conf_state.voters = vec![SOURCE, FOLLOWER];
            store.initialise(&meta).unwrap();
        }
        let checkpointer = Checkpointer::new(Instant(0), store, root.clone(), me, boot);
        let (staged, outcomes, installed) = (Vec::new(), Vec::new(), Vec::new());
        Self { me, root, checkpointer, staged, outcomes, installed, contested: 0 }
    }

    fn put(&mut self, now: Instant, keys: u32) {
        let mut meta = self.checkpointer.store().meta().clone();
        meta.revision = meta.revision.next();
        meta.applied = meta.applied.next();
        let change = |sub: u32| {
            let (create_revision, version, lease) = (meta.revision, 1, LeaseId::NONE);
            let kind = ChangeKind::Put { value: Bytes::from(vec![7; 100]), create_revision, version, lease };
            let key = format!("{} {sub}", meta.revision.0).into();
            (VersionId { main: meta.revision, sub }, Change { key, kind })
        };
        let batch =
            FoldBatch { changes: (0..keys).map(change).collect(), leases: Vec::new(), sweep: None, meta };
        self.job(now, CheckpointJob::Fold(batch));
        self.checkpointer.work(now).unwrap();
    }

    /// Folds these leases, as if they were granted, checkpointed or ended now.
    fn lease(&mut self, now: Instant, leases: Vec<(LeaseId, Option<Lease>)>) {
        let mut meta = self.checkpointer.store().meta().clone();
        meta.applied = meta.applied.next();
        self.job(
            now,
            CheckpointJob::Fold(FoldBatch { changes: ChangeLog::default(), leases, sweep: None, meta }),
        );
        self.checkpointer.work(now).unwrap();
    }

    fn applied(&self) -> LogIndex {
        self.checkpointer.store().meta().applied
    }

    fn leases(&self) -> Vec<(LeaseId, Lease)> {
        self.checkpointer.store().base().unwrap().leases().unwrap()
    }

    fn job(&mut self, now: Instant, job: CheckpointJob) {
        self.checkpointer.handle(now, job).unwrap();
    }

    /// All work that is due now; what is to be sent.
    fn work(&mut self, now: Instant) -> Vec<TransferMessage> {
        let mut messages = Vec::new();
        while self.checkpointer.work(now).unwrap().is_some() {
            while let Some(output) = self.checkpointer.poll_output() {
                match output {
                    CheckpointOutput::Send(to, message) => {
                        assert_ne!(to, self.me);
                        messages.push(message);
                    }
                    CheckpointOutput::Staged(mark) => self.staged.push(mark),
                    CheckpointOutput::Transferred(_, outcome) => self.outcomes.push(outcome),
                    CheckpointOutput::Installed(base) => self.installed.push(base),
                    CheckpointOutput::Contested => self.contested += 1,
                    CheckpointOutput::Folded(_)
                    | CheckpointOutput::Checkpointed(_)
                    | CheckpointOutput::Compacted(_)
                    | CheckpointOutput::Removed(_) => {}
                }
            }
        }
        messages
    }
}

struct Pair {
    source: End,
    follower: End,
    now: Instant,
    /// Messages are lost when the function says so of their number.
    lose: fn(usize) -> bool,
    sent: usize,
    /// The size of the largest message.
    largest: usize,
}

impl Pair {
    fn new() -> Self {
        let mut source = End::new(SOURCE, 1, SimDir::new(1));
        source.checkpointer.set_piece_bytes(1000);
        let mut pair = Self {
            source,
            follower: End::new(FOLLOWER, 2, SimDir::new(2)),
            now: Instant(1),
            lose: |_| false,
            sent: 0,
            largest: 0,
        };
        for _ in 0..10 {
            pair.source.put(pair.now, 3);
        }
        pair
    }

    fn serve(&mut self) {
        self.source.job(self.now, CheckpointJob::Serve { to: FOLLOWER, from: LogIndex(0) });
    }

    /// Lets so much time pass, in steps of ten milliseconds.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(10);
            let mut pieces = VecDeque::from(self.source.work(self.now));
            pieces.extend(self.source.work(self.now));
            for message in pieces {
                self.sent += 1;
                let bytes = message.encode();
                self.largest = self.largest.max(bytes.len());
                if (self.lose)(self.sent) {
                    continue;
                }
                let message = TransferMessage::decode(bytes).unwrap();
                self.follower.job(self.now, CheckpointJob::Receive(SOURCE, message));
            }
            for message in self.follower.work(self.now) {
                self.sent += 1;
                if !(self.lose)(self.sent) {
                    self.source.job(self.now, CheckpointJob::Receive(FOLLOWER, message.clone()));
                    // Late copies of what has been answered already.
                    self.source.job(self.now, CheckpointJob::Receive(FOLLOWER, message));
                }
            }
        }
    }
}

#[test]
fn what_is_lost_is_sent_again_and_what_is_folded_meanwhile_comes_too() {
    let mut pair = Pair::new();
    pair.lose = |number| number % 3 == 0;
    pair.serve();
    pair.pass(Duration::from_secs(2));
    assert!(pair.follower.staged.is_empty(), "some pieces are on their way still");
    pair.source.put(pair.now, 2);
    pair.pass(Duration::from_secs(20));
    let facts = pair.source.checkpointer.store().meta().clone();
    let mark = source::mark_of(&facts);
    assert_eq!(pair.follower.staged, std::slice::from_ref(&mark));
    assert_eq!(
        pair.source.outcomes,
        [TransferOutcome::Whole(mark.clone())],
        "once, however often it is said"
    );

    pair.follower.job(pair.now, CheckpointJob::Install(mark));
    pair.follower.work(pair.now);
    let base = pair.follower.installed.pop().unwrap();
    assert_eq!((base.meta().applied, base.meta().revision), (facts.applied, facts.revision));
    assert_eq!(base.meta().bytes_in_use, facts.bytes_in_use);
    let count = base.changes(VersionId::default(), facts.revision).unwrap().count();
    assert_eq!(count, 32);
    assert!(!pair.follower.root.list().unwrap().contains(&STAGED_NAME.to_owned()));
}

/// Neither the disk nor the link is there for the transfer alone.
#[test]
fn there_is_a_rest_between_two_pieces() {
    let mut pair = Pair::new();
    pair.source.checkpointer.set_piece_bytes(1);
    pair.serve();
    let mut took = Duration::ZERO;
    while pair.follower.staged.is_empty() {
        took += Duration::from_millis(1);
        let now = pair.now + took;
        for message in pair.source.work(now) {
            pair.follower.job(now, CheckpointJob::Receive(SOURCE, message));
        }
        for message in pair.follower.work(now) {
            pair.source.job(now, CheckpointJob::Receive(FOLLOWER, message));
        }
    }
    // One for each of thirty changes, and the facts.
    assert!((150..400).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn a_follower_that_crashed_goes_on_where_it_was_and_one_that_lost_its_file_begins_anew() {
    let mut pair = Pair::new();
    pair.serve();
    pair.pass(Duration::from_millis(30));
    let before = pair.sent;
    let root = pair.follower.root.crash(crate::disk::sim::Survival::Nothing);
    pair.follower = End::new(FOLLOWER, 3, root);
    pair.pass(Duration::from_secs(2));
    assert_eq!(pair.follower.staged.len(), 1);
    let steps = pair.sent - before;
    pair.serve();
    let before = pair.sent;
    pair.pass(Duration::from_millis(30));
    let root = pair.follower.root.crash(crate::disk::sim::Survival::Nothing);
    root.remove(STAGED_NAME).unwrap();
    pair.follower = End::new(FOLLOWER, 4, root);
    pair.pass(Duration::from_secs(2));
    assert_eq!(pair.follower.staged.len(), 1);
    assert!(pair.sent - before > steps, "all of it was sent again");
}

/// Consensus may have the promised one installed at any moment; only its word ends that.
#[test]
fn what_is_promised_is_replaced_only_once_consensus_has_let_go() {
    let mut pair = Pair::new();
    pair.serve();
    pair.pass(Duration::from_secs(2));
    let mark = pair.follower.staged[0].clone();
    pair.source.put(pair.now, 1);
    pair.serve();
    pair.pass(Duration::from_secs(2));
    assert!(pair.follower.contested > 0);
    assert_eq!(pair.follower.staged, [mark]);
    pair.follower.job(pair.now, CheckpointJob::Release);
    pair.pass(Duration::from_secs(2));
    assert_eq!(pair.follower.staged.len(), 2);
    let position = pair.follower.staged[1].position;
    assert_eq!(position.index, pair.source.checkpointer.store().meta().applied);
}

#[test]
fn removal_waits_for_a_transfer_that_it_would_thin_out() {
    let mut pair = Pair::new();
    pair.serve();
    pair.pass(Duration::from_millis(20));
    let mut batch = FoldBatch {
        changes: ChangeLog::default(),
        leases: Vec::new(),
        sweep: None,
        meta: pair.source.checkpointer.store().meta().clone(),
    };
    batch.meta.applied = batch.meta.applied.next();
    batch.meta.compacted = Revision(10);
    pair.source.job(pair.now, CheckpointJob::Fold(batch));
    pair.source.job(pair.now, CheckpointJob::Compact);
    let finished = |pair: &Pair| pair.source.checkpointer.store().meta().compaction_finished;
    pair.lose = |_| true;
    pair.pass(Duration::from_secs(5));
    assert_eq!(finished(&pair), Revision(0));
    pair.lose = |_| false;
    pair.pass(Duration::from_secs(4));
    assert_eq!(finished(&pair), Revision(10), "the transfer is past it");
    assert_eq!(pair.follower.staged.len(), 1);
}

#[test]
fn who_does_not_answer_is_given_up_and_what_nobody_goes_on_with_is_removed() {
    let mut pair = Pair::new();
    pair.serve();
    pair.pass(Duration::from_millis(30));
    assert!(pair.follower.root.list().unwrap().contains(&STAGED_NAME.to_owned()));
    pair.lose = |_| true;
    pair.pass(Duration::from_secs(31));
    assert_eq!(pair.source.outcomes, [TransferOutcome::Failed]);
    pair.pass(Duration::from_secs(300));
    assert!(!pair.follower.root.list().unwrap().contains(&STAGED_NAME.to_owned()));
}

#[test]
fn facts_that_raft_could_not_begin_from_are_not_taken() {
    let mut pair = Pair::new();
    let mut batch = FoldBatch {
        changes: ChangeLog::default(),
        leases: Vec::new(),
        sweep: None,
        meta: pair.source.checkpointer.store().meta().clone(),
    };
    batch.meta.applied = batch.meta.applied.next();
    batch.meta.conf_state.voters = vec![SOURCE];
    pair.source.job(pair.now, CheckpointJob::Fold(batch));
    pair.serve();
    pair.pass(Duration::from_secs(5));
    assert!(pair.follower.staged.is_empty(), "it is no member there");
}

#[test]
fn facts_that_nothing_could_be_added_to_are_not_taken() {
    let spoiled: [fn(&mut crate::store::Meta); 4] = [
        |meta| meta.applied = LogIndex(u64::MAX - 1),
        |meta| meta.applied_term = crate::ids::Term(1 << 62),
        |meta| meta.applied_term = crate::ids::Term(0),
        |meta| meta.revision = Revision(i64::MAX - 1),
    ];
    for spoil in spoiled {
        let mut pair = Pair::new();
        let mut meta = pair.source.checkpointer.store().meta().clone();
        meta.applied = meta.applied.next();
        spoil(&mut meta);
        let batch = FoldBatch { changes: ChangeLog::default(), leases: Vec::new(), sweep: None, meta };
        pair.source.job(pair.now, CheckpointJob::Fold(batch));
        pair.serve();
        pair.pass(Duration::from_secs(2));
        assert!(pair.follower.staged.is_empty());
    }
}

#[test]
fn a_version_that_nothing_could_follow_is_not_taken() {
    for (version, taken) in [(7, 1), (i64::MAX, 0)] {
        let mut pair = Pair::new();
        let mut meta = pair.source.checkpointer.store().meta().clone();
        meta.revision = meta.revision.next();
        meta.applied = meta.applied.next();
        let (value, create_revision, lease) = (Bytes::new(), Revision(2), LeaseId::NONE);
        let kind = ChangeKind::Put { value, create_revision, version, lease };
        let change = (VersionId { main: meta.revision, sub: 0 }, Change { key: "key".into(), kind });
        let batch =
            FoldBatch { changes: [change].into_iter().collect(), leases: Vec::new(), sweep: None, meta };
        pair.source.job(pair.now, CheckpointJob::Fold(batch));
        pair.serve();
        pair.pass(Duration::from_secs(2));
        assert_eq!(pair.follower.staged.len(), taken);
    }
}

/// Whoever reads a view keeps what it holds: the old store stays open until the last one is gone.
#[test]
fn a_reader_of_the_store_before_is_not_cut_off() {
    let mut pair = Pair::new();
    pair.follower.put(pair.now, 1);
    let before = pair.follower.checkpointer.store().base().unwrap();
    for _ in 0..3 {
        pair.source.put(pair.now, 1);
    }
    pair.serve();
    pair.pass(Duration::from_secs(2));
    let mark = pair.follower.staged[0].clone();
    pair.follower.job(pair.now, CheckpointJob::Install(mark));
    pair.follower.work(pair.now);
    assert_eq!(before.changes(VersionId::default(), Revision(2)).unwrap().map(Result::unwrap).count(), 1);
}

fn granted(index: u64, remaining: i64) -> Lease {
    Lease { ttl: 60, remaining, granted_at: LogIndex(index) }
}

/// While pieces of leases are on their way, folds grant, change and end leases before and behind the place that the walk has come to; messages
/// are lost, and the follower crashes after each of them in turn. Whatever position the transfer ends at, the leases are those of that position.
#[test]
fn leases_in_several_pieces_are_those_of_the_facts_that_end_the_transfer() {
    for crash_after in (0..60).step_by(2) {
        let mut pair = Pair::new();
        let mut prng = Prng::new(crash_after);
        let all = (1..=300).map(|id| (LeaseId(id << 7), Some(granted(1, 0)))).collect();
        pair.source.lease(pair.now, all);
        let first = pair.source.applied();
        pair.lose = |number| number % 11 == 0;
        pair.serve();
        let (mut leases_at, mut crashed) = (BTreeMap::new(), false);
        while pair.follower.staged.is_empty() {
            if pair.sent >= usize::try_from(crash_after).unwrap() && !std::mem::replace(&mut crashed, true) {
                let survival = crate::disk::sim::Survival::Random;
                pair.follower = End::new(FOLLOWER, 3, pair.follower.root.crash(survival));
            }
            if prng.one_in(4) {
                let index = pair.source.applied().0 + 1;
                let mut of_one = |_| {
                    let id = LeaseId(i64::try_from(prng.range(1, 320) << 7).unwrap());
                    let remaining = i64::try_from(prng.range(1, 60)).unwrap();
                    (id, if prng.one_in(2) { None } else { Some(granted(index, remaining)) })
                };
                let changed: BTreeMap<_, _> = (0..3).map(&mut of_one).collect();
                pair.source.lease(pair.now, changed.into_iter().collect());
            }
            leases_at.insert(pair.source.applied(), pair.source.leases());
            assert!(leases_at.len() < 1000, "it does not come to an end");
            pair.pass(Duration::from_millis(10));
        }
        assert!(pair.largest < 1200, "{} bytes", pair.largest);
        let mark = pair.follower.staged.pop().unwrap();
        assert!(mark.position.index.0 > first.0 + 20, "folds came between the pieces");
        pair.follower.job(pair.now, CheckpointJob::Install(mark.clone()));
        pair.follower.work(pair.now);
        assert_eq!(pair.follower.leases(), leases_at[&mark.position.index], "crash after {crash_after}");
    }
}

#[test]
fn a_follower_that_falls_too_far_behind_the_changes_of_leases_is_given_up() {
    let mut pair = Pair::new();
    pair.source.lease(pair.now, (1..=300).map(|id| (LeaseId(id), Some(granted(1, 0)))).collect());
    pair.serve();
    pair.pass(Duration::from_millis(300));
    assert!(pair.follower.staged.is_empty(), "in the middle of the leases");
    pair.lose = |_| true;
    for remaining in 1..20 {
        pair.source.lease(pair.now, (1..=300).map(|id| (LeaseId(id), Some(granted(1, remaining)))).collect());
    }
    pair.pass(Duration::from_secs(1));
    assert_eq!(pair.source.outcomes, [TransferOutcome::Failed]);
}
