//! A power cut at every call to the disk once the file is created: what opens again is the state before or after the commit that
//! was under way, whole.
//!
//! The story: a store is created, founded, filled, compacted to the end and filled again while the disk records every
//! call. For each prefix of the record four disks are made, which differ in what became of the writes that no sync had
//! covered yet: all there, none there, some there, some there in part (sectors of 512 bytes).

use super::error::StoreError;
use bytes::Bytes;
use redb::Database;

use super::scrub::ScrubCursor;
use super::testing::{Call, Disk, Dump, SMALL, apply, at, batch, delete, dump, founded, open, put};
use super::types::{Change, ChangeKind, Doomed, FoldBatch, Lease, Meta, Sweep, SweepStep};
use super::writer::{Store, StoreOptions};
use crate::command::KeyRange;
use crate::disk::Directory;
use crate::disk::sim::{FaultPlan, SimDir, Survival};
use crate::ids::{LeaseId, LogIndex, Revision, VersionId};
use crate::prng::Prng;

const SECTOR_BYTES: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unsynced {
    Kept,
    Lost,
    Some,
    Torn,
}

/// The disk after a power cut behind the first `cut` calls.
fn after_power_cut(calls: &[Call], unsynced: Unsynced, random: &mut Prng) -> Vec<u8> {
    let synced = calls.iter().rposition(|call| matches!(call, Call::Sync)).map_or(0, |last| last + 1);
    let mut bytes = Vec::new();
    for call in &calls[..synced] {
        apply(&mut bytes, call);
    }
    for call in &calls[synced..] {
        let keep = match unsynced {
            Unsynced::Kept => true,
            Unsynced::Lost => false,
            Unsynced::Some => random.one_in(2),
            Unsynced::Torn => {
                if let Call::Write { offset, data } = call {
                    for (at, sector) in data.chunks(SECTOR_BYTES).enumerate() {
                        if random.one_in(2) {
                            let offset = offset + (at * SECTOR_BYTES) as u64;
                            apply(&mut bytes, &Call::Write { offset, data: sector.to_vec() });
                        }
                    }
                    continue;
                }
                random.one_in(2)
            }
        };
        if keep {
            apply(&mut bytes, call);
        }
    }
    bytes
}

/// What a run left durable: after how many calls it was sure, and what it was.
struct Milestone {
    calls: usize,
    state: Dump,
}

/// Keys of which a deletion takes several transactions.
const SWEPT: u32 = 600;

/// So small that a fold takes several transactions, and pages are written before the commit.
const TINY: StoreOptions = StoreOptions { cache_bytes: 256 << 10 };

fn put_leased(key: String, create: i64, lease: LeaseId) -> Change {
    let (create_revision, value) = (Revision(create), vec![7; 100].into());
    Change { key: key.into(), kind: ChangeKind::Put { value, create_revision, version: 1, lease } }
}

/// The end of a lease, and a transaction that puts before and after it deletes.
fn sweep(store: &Store) -> FoldBatch {
    let first = store.meta().revision.next();
    let (ended, txn) = (first.next(), first.next().next());
    let range = KeyRange::from_wire("key 2".into(), "kez~".into());
    let base = store.base().unwrap();
    let (live, _) = base.count_live(&range, usize::MAX).unwrap();
    let lease = LeaseId(1);
    let keys: Vec<Bytes> = base.attached(lease, &[]).unwrap().map(Result::unwrap).collect();
    let (attached, among_them) = (keys.len() as u64, keys.iter().filter(|key| range.contains(key)).count());
    let count = live - among_them as u64 + 1;
    assert!(attached > 3 && count > u64::from(SWEPT), "some of them with leases");
    let change = |main, sub, key: &'static str| (VersionId { main, sub }, put(key, "", main.0, 1));
    let after = u32::try_from(count).unwrap() + 1;
    let mut swept = batch(store, vec![(VersionId::first_of(first), put("kez 0", "", first.0 - 1, 2))]);
    swept.leases = vec![(lease, None)];
    swept.sweep = Some(Sweep {
        steps: vec![
            SweepStep::Delete {
                first: VersionId::first_of(ended),
                keys: Doomed::Attached(lease),
                count: attached,
            },
            SweepStep::Changes([change(txn, 0, "kez and one")].into_iter().collect()),
            SweepStep::Delete {
                first: VersionId { main: txn, sub: 1 },
                keys: Doomed::Interval(range),
                count,
            },
            SweepStep::Changes([change(txn, after, "later")].into_iter().collect()),
        ],
    });
    swept.meta.revision = txn;
    swept
}

fn record() -> (Vec<Call>, Vec<Milestone>) {
    let disk = Disk::default();
    let mut milestones: Vec<Milestone> = Vec::new();
    let mut note = |store: &Store| {
        let calls = disk.calls();
        let noted = milestones.last().map_or(0, |last| last.calls);
        // Without a sync nothing new is sure.
        if calls[noted..].iter().any(|call| matches!(call, Call::Sync)) {
            milestones.push(Milestone { calls: calls.len(), state: dump(store) });
        }
    };
    let mut store = Store::open(disk.clone(), TINY).unwrap();
    note(&store);
    store.initialise(&Meta { revision: Revision(1), ..Meta::default() }).unwrap();
    note(&store);
    for round in 0..3_i64 {
        let first = 2 + round * 40;
        let mut changes: Vec<(VersionId, _)> = (0..40)
            .map(|n| {
                (at(first + n, 0), put_leased(format!("key {}", n % 30), first + n, LeaseId(round * n % 3)))
            })
            .collect();
        changes.push((at(first + 39, 1), delete(format!("key {round}"))));
        let mut batch = batch(&store, changes);
        let lease = Lease { ttl: 60, remaining: round, granted_at: LogIndex(round.unsigned_abs()) };
        batch.leases = (1..3).map(|id| (LeaseId(id), Some(lease))).collect();
        batch.meta.compacted = Revision(if round == 1 { first + 30 } else { batch.meta.compacted.0 });
        store.fold(&batch).unwrap();
        note(&store);
        while round == 1 && !store.compact_slice(6).unwrap().finished {
            note(&store);
        }
        note(&store);
    }
    let first = store.meta().revision.next();
    let change = |sub| (VersionId { main: first, sub }, put(format!("kez {sub}"), "", first.0, 1));
    store.fold(&batch(&store, (0..SWEPT).map(change).collect())).unwrap();
    note(&store);
    store.fold(&sweep(&store)).unwrap();
    note(&store);
    (disk.calls(), milestones)
}

#[test]
fn a_power_cut_at_any_call_leaves_the_state_before_or_after_the_commit() {
    let (calls, milestones) = record();
    let mut random = Prng::new(1);
    let (mut old, mut new) = (0, 0);
    for cut in milestones[0].calls..=calls.len() {
        let sure = milestones.iter().rposition(|milestone| milestone.calls <= cut).unwrap();
        let before = &milestones[sure].state;
        let after = milestones.get(sure + 1).map(|milestone| &milestone.state);
        for unsynced in [Unsynced::Kept, Unsynced::Lost, Unsynced::Some, Unsynced::Torn] {
            let image = after_power_cut(&calls[..cut], unsynced, &mut random);
            if unsynced == Unsynced::Some {
                assert_opens_without_repair(&image, cut);
            }
            let store = Store::open(Disk::holding(image), TINY).unwrap_or_else(|error| {
                panic!("cut behind call {cut}, unsynced writes {unsynced:?}: {error}");
            });
            let found = dump(&store);
            old += usize::from(&found == before);
            new += usize::from(Some(&found) == after);
            assert!(&found == before || Some(&found) == after, "cut behind call {cut}, {unsynced:?}");
        }
    }
    assert!(old > 0 && new > 0, "both outcomes were met");
}

/// A repair reads the whole file, twice.
fn assert_opens_without_repair(image: &[u8], cut: usize) {
    let mut builder = Database::builder();
    let opened = builder
        .set_repair_callback(redb::RepairSession::abort)
        .create_with_backend(Disk::holding(image.to_vec()));
    assert!(opened.is_ok(), "cut behind call {cut}: {opened:?}");
}

/// A crash between two slices may leave changes removed and the rows that name them not; the next walk finds what is
/// left, and only that.
#[test]
fn a_compaction_that_was_cut_off_goes_on_after_opening() {
    let mut random = Prng::new(2);
    let (calls, milestones) = record();
    let finished = |state: &Dump| {
        state
            .meta
            .as_ref()
            .is_some_and(|meta| meta.compacted > Revision(0) && meta.compaction_finished == meta.compacted)
    };
    let done = milestones.iter().position(|milestone| finished(&milestone.state)).unwrap();
    let begun = milestones
        .iter()
        .position(|milestone| milestone.state.meta.as_ref().is_some_and(|meta| meta.compacted > Revision(0)));
    let begun = begun.unwrap();
    assert!(done > begun + 3, "some of its slices were durable before the last");
    for cut in milestones[begun].calls..milestones[done].calls {
        let disk = Disk::holding(after_power_cut(&calls[..cut], Unsynced::Some, &mut random));
        let mut store = Store::open(disk.clone(), TINY).unwrap();
        let again = store.compact_slice(7).unwrap();
        drop(store);
        let mut store = Store::open(disk, TINY).unwrap();
        while !store.compact_slice(7).unwrap().finished {}
        assert_eq!(dump(&store), milestones[done].state, "cut behind call {cut}, first slice {again:?}");
        let (mut cursor, mut rows) = (Some(ScrubCursor::default()), 0);
        while let Some(from) = cursor {
            let progress = store.scrub_slice(from, 100).unwrap();
            (cursor, rows) = (progress.next, rows + progress.rows);
        }
        let leases = &milestones[done].state.leases;
        let of_leases: usize = leases.iter().map(|(.., keys)| 1 + keys.len()).sum();
        assert_eq!(
            rows,
            2 * milestones[done].state.changes.len() + of_leases,
            "each change is in rev, and in live or hist"
        );
    }
}

/// A crash at any point of making a store leaves none, or one that opens; and what is left of it is not in the way.
#[test]
fn a_file_has_its_name_only_when_it_is_whole() {
    let found = |directory: &SimDir| -> Result<(), StoreError> {
        let mut store = Store::open_in(directory, "store.redb", SMALL)?;
        assert!(!store.is_initialised());
        store.initialise(&Meta { revision: Revision(1), ..Meta::default() })
    };
    let whole = SimDir::new(1);
    found(&whole).unwrap();
    assert_eq!(whole.list().unwrap(), ["store.redb"]);
    let mut named = 0;
    for crash_at in 1..=whole.operations() {
        let directory = SimDir::new(crash_at);
        directory.plan(FaultPlan { crash_at: Some(crash_at), ..FaultPlan::default() });
        // The last operations are those of closing it.
        let done = found(&directory).is_ok();
        for survival in [Survival::Nothing, Survival::Everything, Survival::Random] {
            let left = directory.crash(survival);
            named += usize::from(left.list().unwrap().iter().any(|name| name == "store.redb"));
            let store = Store::open_in(&left, "store.redb", SMALL).unwrap();
            assert!(store.is_initialised() || !done, "cut in {crash_at}");
            assert_eq!(store.meta().revision, Revision(i64::from(store.is_initialised())));
            assert_eq!(left.list().unwrap(), ["store.redb"]);
        }
    }
    assert!(named > 3, "some crash came after the name");
    let store = Store::open_in(&whole.detach(), "store.redb", SMALL).unwrap();
    assert!(store.is_initialised() && store.meta().revision == Revision(1));
}

#[test]
fn a_refused_write_or_sync_poisons_the_store_and_loses_nothing() {
    let disk = Disk::default();
    let mut store = founded(&disk);
    let first = batch(&store, (2..40).map(|n| (at(n, 0), put(format!("{n}"), "v", n, 1))).collect());
    store.fold(&first).unwrap();
    let (image, before) = (disk.bytes(), dump(&store));
    let second = batch(&store, (40..80).map(|n| (at(n, 0), put(format!("{n}"), "v", n, 1))).collect());
    drop(store);
    let mut outcomes = [0, 0];
    for healthy in 0.. {
        let disk = Disk::holding(image.clone());
        let mut store = open(&disk);
        disk.fail_after(healthy);
        match store.fold(&second) {
            Ok(()) => break,
            Err(error) => assert!(matches!(error, StoreError::Io(_)) && error.is_fatal(), "{error}"),
        }
        assert!(matches!(store.fold(&second), Err(StoreError::Poisoned)));
        assert!(matches!(store.base(), Err(StoreError::Poisoned)));
        assert!(matches!(store.compact_slice(1), Err(StoreError::Poisoned)));
        drop(store);
        let found = dump(&open(&Disk::holding(disk.bytes())));
        let new = found.meta.as_ref().map(|meta| meta.revision) == Some(second.meta.revision);
        outcomes[usize::from(new)] += 1;
        assert!(new || found == before, "failure behind call {healthy}");
    }
    assert!(outcomes[0] > 2, "{outcomes:?}");
}
