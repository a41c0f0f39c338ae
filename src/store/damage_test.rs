//! Bytes that are not what was written: found when they are read, and named.
//!
//! Rows are changed through redb itself, so that its own structure stays sound and only our checks can notice.

use bytes::Bytes;
use redb::{
    Database, Key, ReadableDatabase as _, ReadableTable, ReadableTableMetadata as _, TableDefinition, Value,
};

use super::encoding::seal;
use super::error::StoreError;
use super::schema::{
    ATTACHED, AUTH_KEY, FACTS_KEY, FORMAT_KEY, FORMAT_VERSION, HIST, LEASE, LIVE, META, REV, attached_key,
    hist_key, id_key, write_attached, write_live,
};
use super::scrub::ScrubCursor;
use super::testing::{Disk, SMALL, at, attached_to, batch, delete, everything, founded, open, put};
use super::types::{ChangeKind, Head, Lease};
use super::writer::{Store, is_engine_source};
use crate::ids::{LeaseId, LogIndex, Revision, VersionId};

/// `a` has a history, `b` was deleted, `c` is plain.
fn filled() -> Disk {
    let disk = Disk::default();
    let mut store = founded(&disk);
    let changes = vec![
        (at(2, 0), put("a", "one", 2, 1)),
        (at(3, 0), put("a", "two", 2, 2)),
        (at(4, 0), put("b", "one", 4, 1)),
        (at(4, 1), put("c", "one", 4, 1)),
        (at(5, 0), delete("b")),
    ];
    store.fold(&batch(&store, changes)).unwrap();
    disk
}

/// Changes `disk` through redb.
fn alter<K: Key + 'static, V: Value + 'static>(
    disk: &Disk,
    definition: TableDefinition<'_, K, V>,
    alteration: impl FnOnce(&mut redb::Table<'_, K, V>),
) {
    let database = Database::builder().create_with_backend(disk.clone()).unwrap();
    let txn = database.begin_write().unwrap();
    alteration(&mut txn.open_table(definition).unwrap());
    txn.commit().unwrap();
}

fn scrub(store: &Store) -> Result<usize, StoreError> {
    let (mut cursor, mut rows) = (Some(ScrubCursor::default()), 0);
    while let Some(from) = cursor {
        let progress = store.scrub_slice(from, 2)?;
        (cursor, rows) = (progress.next, rows + progress.rows);
    }
    Ok(rows)
}

/// Asserts that `result` is damage of this row.
#[track_caller]
fn assert_names<T>(result: Result<T, StoreError>, table: &str, key: &[u8]) {
    let error = result.err().expect("damage is noticed");
    match &error {
        StoreError::Damaged { table: found, key: found_key, .. } => {
            assert_eq!((*found, found_key.as_ref()), (table, key), "{error}");
        }
        other => panic!("{other}"),
    }
    assert!(error.is_fatal() && error.is_damage() && error.to_string().contains(table));
}

fn collect<T>(items: impl Iterator<Item = Result<T, StoreError>>) -> Result<Vec<T>, StoreError> {
    items.collect()
}

#[test]
fn a_flipped_bit_in_a_change_is_named() {
    let key = id_key(at(3, 0));
    let length = {
        let disk = filled();
        let mut length = 0;
        alter(&disk, REV, |rev| length = rev.get(&key).unwrap().unwrap().value().len());
        length
    };
    for byte in 0..length {
        let disk = filled();
        alter(&disk, REV, |rev| {
            let mut row = rev.get(&key).unwrap().unwrap().value().to_vec();
            row[byte] ^= 0x10;
            rev.insert(&key, row.as_slice()).unwrap();
        });
        let store = open(&disk);
        let base = store.base().unwrap();
        assert_names(base.change(at(3, 0)), "rev", &key);
        let head = base.head(b"a").unwrap().unwrap();
        assert_names(base.value(&Bytes::from_static(b"a"), &head), "rev", &key);
        assert_names(collect(base.changes(VersionId::default(), Revision(9)).unwrap()), "rev", &key);
        assert_names(scrub(&store), "rev", &key);
        assert!(base.change(at(2, 0)).is_ok(), "other rows are read");
    }
}

#[test]
fn a_flipped_bit_in_an_index_row_is_named() {
    for byte in 0..8 {
        let disk = filled();
        alter(&disk, LIVE, |live| {
            let mut row = live.get(&b"a"[..]).unwrap().unwrap().value().to_vec();
            row[byte] ^= 1;
            live.insert(&b"a"[..], row.as_slice()).unwrap();
        });
        let mut store = open(&disk);
        let base = store.base().unwrap();
        assert_names(base.head(b"a"), "live", b"a");
        assert_names(base.version_at(b"a", Revision(9)), "live", b"a");
        assert_names(collect(base.heads(&everything()).unwrap()), "live", b"a");
        assert_names(collect(base.versions_at(&everything(), Revision(9)).unwrap()), "live", b"a");
        assert_names(scrub(&store), "live", b"a");
        let over = batch(&store, vec![(at(6, 0), put("a", "three", 2, 3))]);
        assert_names(store.fold(&over), "live", b"a");
        assert!(matches!(store.base(), Err(StoreError::Poisoned)));
    }
}

#[test]
fn a_flipped_bit_in_a_superseded_row_is_named() {
    let mut key = Vec::new();
    hist_key(&mut key, b"a", at(2, 0));
    for byte in 0..5 {
        let disk = filled();
        alter(&disk, HIST, |hist| {
            let mut row = *hist.get(key.as_slice()).unwrap().unwrap().value();
            row[byte] ^= 2;
            hist.insert(key.as_slice(), &row).unwrap();
        });
        let mut store = open(&disk);
        let base = store.base().unwrap();
        assert_names(base.version_at(b"a", Revision(2)), "hist", &key);
        let walk = base.versions_at(&everything(), Revision(2)).and_then(collect);
        assert_names(walk, "hist", &key);
        assert_names(scrub(&store), "hist", &key);
        let mut compaction = batch(&store, vec![]);
        compaction.meta.compacted = Revision(5);
        store.fold(&compaction).unwrap();
        assert_names(store.compact_slice(10), "hist", &key);
    }
}

/// Key `a` is attached to lease 7.
fn leased() -> Disk {
    let disk = filled();
    let mut store = open(&disk);
    let mut change = put("a", "three", 2, 3);
    if let ChangeKind::Put { lease, .. } = &mut change.kind {
        *lease = LeaseId(7);
    }
    let mut batch = batch(&store, vec![(at(6, 0), change)]);
    batch.leases = vec![(LeaseId(7), Some(Lease { ttl: 60, remaining: 0, granted_at: LogIndex(2) }))];
    store.fold(&batch).unwrap();
    disk
}

#[test]
fn a_damaged_lease_is_named() {
    let id = 7_i64.to_le_bytes();
    let rows = scrub(&open(&leased())).unwrap();
    assert_eq!(rows, 14, "six changes, each in rev and in live or hist, a lease and an attachment");
    for byte in 0..7 {
        let disk = leased();
        alter(&disk, LEASE, |leases| {
            let mut row = leases.get(&id).unwrap().unwrap().value().to_vec();
            row[byte] ^= 1;
            leases.insert(&id, row.as_slice()).unwrap();
        });
        let store = open(&disk);
        assert_names(store.base().unwrap().leases(), "lease", &id);
        assert_names(scrub(&store), "lease", &id);
    }
    let disk = leased();
    alter(&disk, LEASE, |leases| drop(leases.remove(&id).unwrap()));
    assert_names(scrub(&open(&disk)), "lease", &id);
}

#[test]
fn a_damaged_attachment_is_named() {
    let raw_key = attached_key(LeaseId(7), b"a");
    for byte in 0..4 {
        let disk = leased();
        alter(&disk, ATTACHED, |attached| {
            let mut row = *attached.get(raw_key.as_slice()).unwrap().unwrap().value();
            row[byte] ^= 1;
            attached.insert(raw_key.as_slice(), &row).unwrap();
        });
        let store = open(&disk);
        assert_names(attached_to(&store.base().unwrap(), LeaseId(7)), "attached", &raw_key);
        assert_names(scrub(&store), "attached", &raw_key);
    }
    // One that is lost would leave a key behind when its lease ends; one too many would delete another's.
    let disk = leased();
    alter(&disk, ATTACHED, |attached| drop(attached.remove(raw_key.as_slice()).unwrap()));
    let mut store = open(&disk);
    assert_names(scrub(&store), "attached", &raw_key);
    let detach = batch(&store, vec![(at(7, 0), delete("a"))]);
    assert_names(store.fold(&detach), "attached", &raw_key);
    let disk = leased();
    let foreign = attached_key(LeaseId(7), b"c");
    alter(&disk, ATTACHED, |attached| {
        attached.insert(foreign.as_slice(), &write_attached(&foreign)).unwrap();
    });
    assert_names(scrub(&open(&disk)), "attached", &foreign);
}

/// A fold meets a damaged row when much of it is committed already, though not durably. What the next start finds is the state before:
/// rows of the fold under the old position would be folded once more on top of themselves.
#[test]
fn a_fold_that_fails_in_its_middle_leaves_nothing_behind() {
    let disk = filled();
    alter(&disk, LIVE, |live| {
        let mut row = live.get(&b"c"[..]).unwrap().unwrap().value().to_vec();
        row[3] ^= 1;
        live.insert(&b"c"[..], row.as_slice()).unwrap();
    });
    let rows = || {
        let database = Database::builder().create_with_backend(disk.clone()).unwrap();
        let txn = database.begin_read().unwrap();
        let count = |table: Result<u64, redb::StorageError>| table.unwrap();
        (count(txn.open_table(REV).unwrap().len()), count(txn.open_table(LIVE).unwrap().len()))
    };
    let before = rows();
    let mut store = open(&disk);
    let applied = store.meta().applied;
    // The cache is 1 MiB: in stages of a third of that. The damaged key comes last.
    let large = (0..40).map(|n| (at(6, n), put(format!("a{n:02}"), vec![7; 100_000], 6, 1)));
    let changes = large.chain([(at(6, 40), delete("c"))]).collect();
    let fold = batch(&store, changes);
    assert_names(store.fold(&fold), "live", b"c");
    drop(store);
    assert_eq!(rows(), before);
    assert_eq!(open(&disk).meta().applied, applied);
}

#[test]
fn a_row_in_anothers_place_or_not_there_is_named() {
    let disk = filled();
    let (third, fourth) = (id_key(at(3, 0)), id_key(at(4, 1)));
    alter(&disk, REV, |rev| {
        let row = rev.get(&fourth).unwrap().unwrap().value().to_vec();
        rev.insert(&third, row.as_slice()).unwrap();
        rev.remove(&fourth).unwrap();
    });
    let store = open(&disk);
    let base = store.base().unwrap();
    assert_names(base.change(at(3, 0)), "rev", &third);
    assert_names(base.change(at(4, 1)), "rev", &fourth);
    let head = base.head(b"c").unwrap().unwrap();
    assert_names(base.value(&Bytes::from_static(b"c"), &head), "rev", &fourth);

    let disk = filled();
    alter(&disk, REV, |rev| drop(rev.remove(&id_key(at(2, 0))).unwrap().unwrap()));
    let store = open(&disk);
    assert_names(scrub(&store), "rev", &id_key(at(2, 0)));
}

/// Rows whose seals fit, but which do not belong together.
#[test]
fn a_head_that_names_another_change_is_named() {
    let other_key = Head { id: at(3, 0), create_revision: Revision(2), version: 2, lease: LeaseId::NONE };
    let other_version = Head { id: at(4, 1), create_revision: Revision(4), version: 2, lease: LeaseId::NONE };
    let tombstone = Head { id: at(5, 0), create_revision: Revision(4), version: 1, lease: LeaseId::NONE };
    for wrong in [other_key, other_version, tombstone] {
        let disk = filled();
        alter(&disk, LIVE, |live| {
            let mut row = Vec::new();
            write_live(&mut row, b"c", &wrong);
            live.insert(&b"c"[..], row.as_slice()).unwrap();
        });
        let store = open(&disk);
        let base = store.base().unwrap();
        let head = base.head(b"c").unwrap().unwrap();
        assert_names(base.value(&Bytes::from_static(b"c"), &head), "rev", &id_key(wrong.id));
        assert_names(scrub(&store), "live", b"c");
    }
}

#[test]
fn an_undamaged_store_passes_the_scrub() {
    assert_eq!(scrub(&open(&filled())).unwrap(), 10, "five changes, each in rev and in live or hist");
}

#[test]
fn a_store_of_another_format_is_refused_and_left_alone() {
    for found in [0, FORMAT_VERSION - 1, FORMAT_VERSION + 1, u32::MAX] {
        let disk = filled();
        alter(&disk, META, |meta| {
            let mut row = found.to_le_bytes().to_vec();
            seal(FORMAT_KEY.as_bytes(), &mut row);
            meta.insert(FORMAT_KEY, row.as_slice()).unwrap();
        });
        let error = Store::open(disk.clone(), SMALL).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, StoreError::UnsupportedVersion { supported: FORMAT_VERSION, .. }), "{error}");
        assert!(text.contains(&found.to_string()) && !error.is_fatal(), "{text}");
        alter(&disk, META, |meta| assert!(meta.get(FACTS_KEY).unwrap().is_some()));
    }
}

#[test]
fn damaged_or_missing_facts_are_named() {
    for key in [FORMAT_KEY, FACTS_KEY, AUTH_KEY] {
        let disk = filled();
        alter(&disk, META, |meta| {
            let mut row = meta.get(key).unwrap().unwrap().value().to_vec();
            row[2] ^= 4;
            meta.insert(key, row.as_slice()).unwrap();
        });
        assert_names(Store::open(disk, SMALL), "meta", key.as_bytes());
    }
    for key in [FORMAT_KEY, AUTH_KEY] {
        let disk = filled();
        alter(&disk, META, |meta| drop(meta.remove(key).unwrap()));
        assert_names(Store::open(disk, SMALL), "meta", key.as_bytes());
    }
}

#[test]
fn a_file_that_is_no_store_is_damage() {
    for bytes in [vec![0; 100], vec![0; 73728], b"something else entirely".repeat(1000)] {
        assert_names(Store::open(Disk::holding(bytes), SMALL), "(file)", b"");
    }
    let disk = Disk::default();
    alter(&disk, TableDefinition::<&str, u64>::new("other"), |table| drop(table.insert("a", 1).unwrap()));
    assert_names(Store::open(disk, SMALL), "(file)", b"");
}

/// Zeroing or inverting any page of the file: opening says so or the store opens; it never panics.
#[test]
fn opening_survives_any_page_destroyed() {
    const PAGE_BYTES: usize = 4096;
    let image = filled().bytes();
    let mut refused = 0;
    for page in 0..image.len() / PAGE_BYTES {
        for destroy in [|byte: &mut u8| *byte = 0, |byte: &mut u8| *byte = !*byte] {
            let mut bytes = image.clone();
            bytes[page * PAGE_BYTES..][..PAGE_BYTES].iter_mut().for_each(destroy);
            if let Err(error) = Store::open(Disk::holding(bytes), SMALL) {
                assert!(error.is_damage(), "page {page}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 2, "only {refused} pages mattered");
}

#[test]
fn redbs_panics_are_told_from_ours() {
    assert!(is_engine_source("/any/where/redb-4.6.0/src/tree_store/btree_base.rs"));
    assert!(!is_engine_source("src/store/redb_like.rs") && !is_engine_source("src/store/base.rs"));
}
