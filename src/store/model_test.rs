//! The store against a list of changes: whatever is folded, compacted and reopened, every read answers what the list says.
//!
//! The list keeps everything and filters when asked, so it shares no idea with the tables but the rules of the API reference.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;

use super::base::Base;
use super::scan::Visit;
use super::schema::id_key;
use super::scrub::ScrubCursor;
use super::testing::{Disk, at, attached_to, batch, everything, founded, open};
use super::types::{Change, ChangeKind, Doomed, Head, Lease, Sweep, SweepStep};
use super::writer::Store;
use crate::command::KeyRange;
use crate::ids::{LeaseId, LogIndex, Revision, VersionId};

/// Keys that are prefixes of each other, that end in what an id looks like, and that sort around separators.
fn keys() -> Vec<Bytes> {
    let mut keys: Vec<Bytes> =
        [&b"\0"[..], b"\0\0", b"a", b"a\0", b"a\0\0", b"a\xff", b"ab", b"b", b"\xff", b"\xff\xff"]
            .map(Bytes::from_static)
            .to_vec();
    for id in [at(0, 0), at(3, 0), at(5, 1), at(i64::MAX, u32::MAX)] {
        keys.push([b"a", &id_key(id)[..]].concat().into());
    }
    keys.push([b"a", &[0xff; 12][..]].concat().into());
    keys.push(vec![b'k'; 5000].into());
    keys.sort();
    keys
}

/// Operations of (key, size and lease of a put, or a delete).
type Txn = Vec<(Index, Option<(usize, i64)>)>;

#[derive(Clone, Debug)]
enum Step {
    /// Transactions, what is swept after them in one revision, and up to which share of the revisions a compaction rides along.
    Fold(Vec<Txn>, Vec<Part>, Option<Index>),
    Slice(usize),
    Finish,
    Reopen,
}

/// A part of a sweep.
#[derive(Clone, Debug)]
enum Part {
    Changes(Txn),
    Interval(Index),
    Attached(i64),
}

fn part() -> impl Strategy<Value = Part> {
    let op = (any::<Index>(), prop::option::weighted(0.7, (0_usize..20, 0_i64..4)));
    prop_oneof![
        2 => prop::collection::vec(op, 1..4).prop_map(Part::Changes),
        2 => any::<Index>().prop_map(Part::Interval),
        1 => (1_i64..4).prop_map(Part::Attached),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![8 => 0_usize..20, 1 => Just(5000_usize)];
    let lease = prop_oneof![3 => Just(0_i64), 2 => 1_i64..4, 1 => any::<i64>()];
    let op = (any::<Index>(), prop::option::weighted(0.7, (size, lease)));
    let txns = prop::collection::vec(prop::collection::vec(op, 1..5), 0..5);
    prop::collection::vec(
        prop_oneof![
            6 => (txns, prop::collection::vec(part(), 0..4), prop::option::weighted(0.4, any::<Index>()))
                .prop_map(|(txns, sweep, to)| Step::Fold(txns, sweep, to)),
            4 => (1_usize..4).prop_map(Step::Slice),
            1 => Just(Step::Finish),
            2 => Just(Step::Reopen),
        ],
        1..16,
    )
}

/// Every change ever.
#[derive(Default)]
struct Model {
    changes: Vec<(VersionId, Change)>,
    leases: BTreeMap<LeaseId, Lease>,
}

impl Model {
    fn version_at(&self, key: &[u8], at: Revision) -> Option<(VersionId, bool)> {
        let newest = self.changes.iter().rfind(|(id, change)| change.key == key && id.main <= at);
        newest.map(|(id, change)| (*id, change.kind == ChangeKind::Delete))
    }

    fn alive_at(&self, range: &KeyRange, at: Revision) -> Vec<(Bytes, VersionId)> {
        let mut newest = BTreeMap::new();
        for (id, change) in self.changes.iter().filter(|(id, _)| id.main <= at) {
            newest.insert(change.key.clone(), (*id, change.kind == ChangeKind::Delete));
        }
        let alive = newest.into_iter().filter(|(key, (_, dead))| !dead && range.contains(key));
        alive.map(|(key, (id, _))| (key, id)).collect()
    }

    /// API reference, section 1.7.
    fn retained(&self, compacted: Revision) -> Vec<(VersionId, Change)> {
        let keep = |id: VersionId, change: &Change| {
            id.main > compacted
                || (self.version_at(&change.key, compacted).is_some_and(|(newest, _)| newest == id)
                    && (change.kind != ChangeKind::Delete || id.main == compacted))
        };
        self.changes.iter().filter(|(id, change)| keep(*id, change)).cloned().collect()
    }

    /// The live keys by the lease that they are attached to.
    fn attached(&self) -> BTreeSet<(LeaseId, Bytes)> {
        let mut newest = BTreeMap::new();
        for (_, change) in &self.changes {
            newest.insert(change.key.clone(), change.kind.clone());
        }
        let attached = newest.into_iter().filter_map(|(key, kind)| match kind {
            ChangeKind::Put { lease, .. } if lease != LeaseId::NONE => Some((lease, key)),
            _ => None,
        });
        attached.collect()
    }

    /// Leases come with their first key, change now and then, and go with their last one; 3 stays.
    fn leases_after(&mut self, applied: LogIndex) -> Vec<(LeaseId, Option<Lease>)> {
        let attached: BTreeSet<LeaseId> = self.attached().into_iter().map(|(lease, _)| lease).collect();
        let gone = |id: &LeaseId| !attached.contains(id) && *id != LeaseId(3);
        let gone: Vec<LeaseId> = self.leases.keys().copied().filter(gone).collect();
        self.leases.retain(|id, _| !gone.contains(id));
        let mut changed: Vec<_> = gone.into_iter().map(|id| (id, None)).collect();
        for id in attached {
            if applied.0.is_multiple_of(2) || !self.leases.contains_key(&id) {
                let lease = Lease { ttl: 5, remaining: i64::from(applied.0 > 3), granted_at: applied };
                self.leases.insert(id, lease);
                changed.push((id, Some(lease)));
            }
        }
        changed
    }

    /// The changes of a transaction, as `mvcc` would make them.
    fn apply(&mut self, main: Revision, txn: &[(Index, Option<(usize, i64)>)]) -> Vec<(VersionId, Change)> {
        let mut made = Vec::new();
        for (key, op) in txn {
            let key = key.get(&keys()).clone();
            let id = self.next_id(main);
            let last = self.changes.iter().rfind(|(_, change)| change.key == key);
            let (create, version) = match last {
                Some((_, Change { kind: ChangeKind::Put { create_revision, version, .. }, .. })) => {
                    (*create_revision, version + 1)
                }
                _ => (main, 1),
            };
            let kind = match op {
                Some((size, lease)) => ChangeKind::Put {
                    value: vec![u8::try_from(size % 256).unwrap(); *size].into(),
                    create_revision: create,
                    version,
                    lease: LeaseId(*lease),
                },
                None if version == 1 => continue,
                None => ChangeKind::Delete,
            };
            made.push((id, Change { key, kind }));
            self.changes.push(made[made.len() - 1].clone());
        }
        made
    }

    /// The id of the next change if it belongs to this revision.
    fn next_id(&self, main: Revision) -> VersionId {
        match self.changes.last() {
            Some((last, _)) if last.main == main => VersionId { sub: last.sub + 1, ..*last },
            _ => VersionId::first_of(main),
        }
    }

    /// The step that this part of a sweep is; none where it changes nothing.
    fn sweep(&mut self, main: Revision, part: &Part) -> Option<SweepStep> {
        let (first, keys) = (
            self.next_id(main),
            match part {
                Part::Changes(txn) => {
                    let changes = self.apply(main, txn);
                    return (!changes.is_empty()).then(|| SweepStep::Changes(changes.into_iter().collect()));
                }
                Part::Interval(index) => Doomed::Interval(index.get(&ranges()).clone()),
                Part::Attached(lease) => Doomed::Attached(LeaseId(*lease)),
            },
        );
        let doomed: Vec<Bytes> = match &keys {
            Doomed::Interval(range) => self.alive_at(range, main).into_iter().map(|(key, _)| key).collect(),
            Doomed::Attached(lease) => {
                let attached = self.attached().into_iter();
                attached.filter(|(of, _)| of == lease).map(|(_, key)| key).collect()
            }
        };
        let count = doomed.len() as u64;
        for key in doomed {
            self.changes.push((self.next_id(main), Change { key, kind: ChangeKind::Delete }));
        }
        (count > 0).then_some(SweepStep::Delete { first, keys, count })
    }
}

fn fold(store: &mut Store, model: &mut Model, txns: &[Txn], parts: &[Part], to: Option<&Index>) {
    let mut changes = Vec::new();
    let mut main = store.meta().revision;
    for txn in txns {
        let made = model.apply(main.next(), txn);
        if !made.is_empty() {
            main = main.next();
        }
        changes.extend(made);
    }
    let mut batch = batch(store, changes);
    let steps: Vec<SweepStep> = parts.iter().filter_map(|part| model.sweep(main.next(), part)).collect();
    if !steps.is_empty() {
        batch.meta.revision = main.next();
        batch.sweep = Some(Sweep { steps });
    }
    batch.leases = model.leases_after(batch.meta.applied);
    if let Some(to) = to {
        let low = batch.meta.compacted.0;
        let span = usize::try_from(batch.meta.revision.0 - low + 1).unwrap();
        batch.meta.compacted = Revision(low + i64::try_from(to.index(span)).unwrap());
        batch.meta.ever_compacted = true;
    }
    store.fold(&batch).unwrap();
}

fn ranges() -> Vec<KeyRange> {
    let mut ranges = vec![everything(), KeyRange::from_wire(Bytes::new(), Bytes::from_static(b"\0"))];
    let keys = keys();
    for (at, key) in keys.iter().enumerate() {
        ranges.push(KeyRange::single(key.clone()));
        let end = keys[(at * 7 + 3) % keys.len()].clone();
        ranges.push(KeyRange::from_wire(key.clone(), end));
        ranges.push(KeyRange::from_wire(key.clone(), Bytes::from_static(b"\0")));
    }
    ranges
}

/// The versions of a walk, and no pause that goes back.
fn found(walk: impl Iterator<Item = Visit>) -> Vec<(Bytes, VersionId)> {
    let (mut found, mut passed) = (Vec::new(), Bytes::new());
    for visit in walk {
        let key = match visit {
            Visit::Version(key, id) => {
                found.push((key.clone(), id));
                key
            }
            Visit::Pause(key) => key,
        };
        assert!(passed < key, "the walk is at {key:?} after {passed:?}");
        passed = key;
    }
    found
}

/// A count that goes on at the key where the piece before it ended.
fn in_pieces(range: &KeyRange, mut count: impl FnMut(&KeyRange) -> (u64, Option<Bytes>)) -> u64 {
    let (mut sum, mut rest) = (0, range.clone());
    loop {
        let (piece, next) = count(&rest);
        sum += piece;
        match next {
            Some(next) => rest.start = next,
            None => return sum,
        }
    }
}

fn check_reads(base: &Base, model: &Model) -> Result<(), TestCaseError> {
    let (compacted, revision) = (base.meta().compacted, base.meta().revision);
    for range in ranges() {
        let alive = model.alive_at(&range, revision);
        let heads: Vec<(Bytes, Head)> = base.heads(&range).unwrap().map(Result::unwrap).collect();
        let named: Vec<_> = heads.iter().map(|(key, head)| (key.clone(), head.id)).collect();
        prop_assert_eq!(&named, &alive);
        for keys in [1, 3, usize::MAX] {
            let count = in_pieces(&range, |range| base.count_live(range, keys).unwrap());
            prop_assert_eq!(count, alive.len() as u64);
        }
        for (key, head) in &heads {
            let change = &model.changes.iter().find(|(id, _)| *id == head.id).unwrap().1;
            prop_assert_eq!(Some(base.value(key, head).unwrap()), change.key_value(head.id));
        }
        for at in compacted.0..=revision.0 {
            let alive = model.alive_at(&range, Revision(at));
            let found = found(base.versions_at(&range, Revision(at)).unwrap().map(Result::unwrap));
            prop_assert_eq!(&found, &alive, "range {:?} at {}", range, at);
            for keys in [1, 3, usize::MAX] {
                let count = in_pieces(&range, |range| base.count_at(range, Revision(at), keys).unwrap());
                prop_assert_eq!(count, alive.len() as u64);
            }
        }
    }
    for key in keys() {
        let head = base.head(&key).unwrap().map(|head| head.id);
        let newest = model.version_at(&key, revision);
        prop_assert_eq!(head, newest.and_then(|(id, dead)| (!dead).then_some(id)));
        for at in compacted.0..=revision.0 {
            // A tombstone below the compacted revision may be gone or not be gone yet; both say the same.
            let shown = |found: Option<(VersionId, bool)>| {
                found.filter(|(id, tombstone)| !tombstone || id.main >= compacted)
            };
            let found = base.version_at(&key, Revision(at)).unwrap();
            prop_assert_eq!(shown(found), shown(model.version_at(&key, Revision(at))));
        }
    }
    Ok(())
}

fn check_rows(base: &Base, model: &Model) -> Result<(), TestCaseError> {
    let meta = base.meta();
    let rows: Vec<_> =
        base.changes(VersionId::default(), meta.revision).unwrap().map(Result::unwrap).collect();
    let counted: u64 = rows.iter().map(|(_, change)| change.stored_bytes()).sum();
    prop_assert_eq!(counted, meta.bytes_in_use, "the byte count equals a recount");
    if meta.compaction_finished == meta.compacted {
        prop_assert_eq!(&rows, &model.retained(meta.compacted));
    }
    for from in meta.compacted.0 + 1..=meta.revision.0 {
        let expected: Vec<_> = model
            .changes
            .iter()
            .filter(|(id, _)| id.main.0 >= from && id.main.0 <= from + 1)
            .cloned()
            .collect();
        let found = base.changes(at(from, 0), Revision(from + 1)).unwrap().map(Result::unwrap);
        prop_assert_eq!(found.collect::<Vec<_>>(), expected);
        prop_assert_eq!(base.changes(at(from, 0), Revision(from - 1)).unwrap().count(), 0);
    }
    let leases: BTreeMap<_, _> = base.leases().unwrap().into_iter().collect();
    prop_assert_eq!(&leases, &model.leases);
    let attached = model.attached();
    for lease in leases.keys().copied().chain([LeaseId(3), LeaseId(-1)]) {
        let keys = attached.iter().filter(|(of, _)| *of == lease).map(|(_, key)| key.clone());
        prop_assert_eq!(attached_to(base, lease).unwrap(), keys.collect::<Vec<_>>());
    }
    for (id, change) in &rows {
        prop_assert_eq!(&base.change(*id).unwrap(), change);
    }
    let mut cursor = Some(ScrubCursor::default());
    let mut seen = 0;
    while let Some(from) = cursor {
        let progress = base.scrub_slice(from, 3).unwrap();
        (cursor, seen) = (progress.next, seen + progress.rows);
    }
    if meta.compaction_finished == meta.compacted {
        let of_leases = leases.len() + attached.len();
        prop_assert_eq!(seen, 2 * rows.len() + of_leases, "every change is in rev, and in live or hist");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_read_answers_what_the_list_of_changes_says(steps in steps()) {
        let disk = Disk::default();
        let mut store = founded(&disk);
        let mut model = Model::default();
        let first = store.base().unwrap();
        for step in &steps {
            match step {
                Step::Fold(txns, sweep, to) => {
                    fold(&mut store, &mut model, txns, sweep, to.as_ref());
                }
                Step::Slice(limit) => {
                    let progress = store.compact_slice(*limit).unwrap();
                    assert!(progress.removed <= *limit);
                }
                Step::Finish => while !store.compact_slice(2).unwrap().finished {},
                Step::Reopen => {
                    drop(store);
                    store = open(&disk);
                }
            }
            check_reads(&store.base().unwrap(), &model)?;
            check_rows(&store.base().unwrap(), &model)?;
        }
        while !store.compact_slice(3).unwrap().finished {}
        prop_assert_eq!(store.meta().compaction_finished, store.meta().compacted);
        check_reads(&store.base().unwrap(), &model)?;
        check_rows(&store.base().unwrap(), &model)?;
        if !steps.iter().any(|step| matches!(step, Step::Reopen)) {
            prop_assert_eq!(first.count_live(&everything(), usize::MAX).unwrap(), (0, None), "a base does not see later commits");
            prop_assert_eq!(first.changes(at(0, 0), Revision(i64::MAX)).unwrap().count(), 0);
        }
    }
}
