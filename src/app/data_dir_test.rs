//! A node that leaves a cluster loses nothing of it, whenever the machine stops.
//!
//! Owns: the cases. Must never: know more of an archive than where it is. Driven by the test runner.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::ids::{ClusterId, Incarnation, LogIndex};
use crate::store::{Charter, Dissolution};
use crate::wal;

fn options(when_fresh: WhenFresh) -> OpenOptions {
    let wal = wal::Options { prefill: false, ..wal::Options::default() };
    OpenOptions { when_fresh, disk: DiskOptions { wal, ..DiskOptions::default() } }
}

/// Founds a cluster of one in `path`, gives it a file of each kind that there may be, and notes that it has ended.
fn end_a_cluster(path: &Path, charter: &Charter) -> Identity {
    let Opened::Node(node) = DataDir::open(path, options(WhenFresh::Solo)).unwrap() else {
        panic!("it was founded");
    };
    node.content.store.close().unwrap();
    drop((node.content.wal, node.lock));
    for name in formation::STATE_NAMES {
        let file = path.join(name);
        if !file.exists() {
            std::fs::write(file, name).unwrap();
        }
    }
    let winner = charter.dissolved.map(|end| end.winner);
    let facts = Facts { charter: Arc::new(charter.clone()), ..Facts::default() };
    DataDir::leave(path, &node.content.identity, &facts, winner).unwrap();
    formation::founded(&RealDirectory::open(path).unwrap()).unwrap().unwrap()
}

fn begin_anew(path: &Path) -> FreshDir {
    match DataDir::open(path, options(WhenFresh::Meet)).unwrap() {
        Opened::Fresh(fresh) => fresh,
        Opened::Node(_) => panic!("it is in no cluster"),
    }
}

fn names_in(path: &Path) -> Vec<String> {
    let name = |entry: io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = std::fs::read_dir(path).unwrap().map(name).collect();
    names.sort();
    names
}

/// The machine may have stopped before the first copy of the record had its name: nothing was begun.
#[test]
fn a_draft_of_a_record_keeps_nobody_from_restoring_and_anything_else_does() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(IDENTITY_DRAFT), "covey-id").unwrap();
    let claimed = Claimed::found(dir.path()).unwrap().unwrap();
    assert_eq!(claimed.identity.stage, Stage::Restoring);
    drop(claimed);
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join(IDENTITY_DRAFT), "covey-id").unwrap();
    std::fs::write(other.path().join("somebody's"), "").unwrap();
    assert!(Claimed::found(other.path()).unwrap().is_none());
    assert_eq!(names_in(other.path()), [IDENTITY_DRAFT, "somebody's"]);
}

/// A service manager starts the server over and over while somebody restores: it must not begin an empty node, and say that all is well.
#[test]
fn nothing_is_begun_under_a_name_that_a_restore_was_to_give() {
    let temporary = tempfile::tempdir().unwrap();
    let (path, beside) = (temporary.path().join("data"), temporary.path().join("data.restoring"));
    let refused = || {
        for when_fresh in [WhenFresh::Solo, WhenFresh::Meet] {
            let error = DataDir::open(&path.join("."), options(when_fresh)).err().unwrap();
            assert!(
                error.is_for_ever() && super::super::chain(&error).contains("data.restoring"),
                "{error:?}"
            );
            assert!(matches!(error, OpenError::Content { source: formation::OpenError::Unfinished, .. }));
        }
        assert!(key(&path).is_err());
    };
    drop(Claimed::found(&beside).unwrap().unwrap());
    refused();
    assert!(!path.exists(), "the next restore gives it its name");
    std::fs::create_dir(&path).unwrap();
    refused();
    assert_eq!(names_in(&path), [""; 0]);
    std::fs::remove_dir_all(&beside).unwrap();

    // It was whole, and had no name yet.
    drop(DataDir::open(&beside, options(WhenFresh::Solo)).unwrap());
    refused();
    std::fs::remove_dir_all(&beside).unwrap();
    // What no restore has left has nothing to do with it.
    key(&beside).unwrap();
    drop(begin_anew(&path));
    std::fs::remove_dir_all(&beside).unwrap();
    drop(Claimed::found(&beside).unwrap().unwrap());
    drop(begin_anew(&path));
}

#[test]
fn an_archive_that_was_cut_off_is_gone_on_with_and_nothing_is_lost() {
    for moved in 0..=formation::STATE_NAMES.len() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path();
        let left = end_a_cluster(path, &Charter::default());
        let shelf = shelf_for(path, &left);
        // As far as it had come; not even the shelf may be there.
        for name in &formation::STATE_NAMES[..moved] {
            std::fs::create_dir_all(&shelf).unwrap();
            std::fs::rename(path.join(name), shelf.join(name)).unwrap();
        }
        let fresh = begin_anew(path);
        assert_eq!(fresh.key.pkcs8(), left.key.pkcs8(), "{moved} were moved");
        assert_eq!(names_in(path), [ARCHIVE_NAME, "identity.0", "identity.1"]);
        let mut all = formation::STATE_NAMES.map(str::to_owned);
        all.sort();
        assert_eq!(names_in(&shelf), all, "{moved} were moved");
        for name in &all[..2] {
            assert_eq!(std::fs::read_to_string(shelf.join(name)).unwrap(), *name);
        }
        drop(fresh);
        let archived = names_in(&path.join(ARCHIVE_NAME));
        drop(begin_anew(path));
        assert_eq!(names_in(&path.join(ARCHIVE_NAME)), archived, "that was done once and for all");
    }
}

/// The box has no battery: whatever was left later looks older.
#[test]
fn the_last_archives_are_kept_whatever_the_clock_says() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    let shelves = path.join(ARCHIVE_NAME);
    std::fs::create_dir_all(&shelves).unwrap();
    std::fs::write(shelves.join("notes"), "somebody's").unwrap();
    let mut left = Vec::new();
    for round in 0..12_u32 {
        let shelf = shelf_for(path, &end_a_cluster(path, &Charter::default()));
        drop(begin_anew(path));
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000) / (round + 1);
        File::open(&shelf).unwrap().set_modified(time).unwrap();
        left.push(shelf);
        for (n, shelf) in left.iter().enumerate() {
            assert_eq!(shelf.exists(), n + ARCHIVES_MAX >= left.len(), "archive {n} of {}", left.len());
        }
    }
    assert!(shelves.join("notes").exists());
}

/// A crash, or a disk that fails, in the middle of tidying up.
#[test]
fn archives_that_were_not_removed_are_removed_the_next_time() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    let left = end_a_cluster(path, &Charter::default());
    for start in [7, 8, 9] {
        let old = Identity { incarnation: Incarnation(start), ..test_identity() };
        std::fs::create_dir_all(shelf_for(path, &old)).unwrap();
    }
    drop(begin_anew(path));
    let kept = names_in(&path.join(ARCHIVE_NAME));
    assert_eq!(kept.len(), ARCHIVES_MAX, "{kept:?}");
    assert!(shelf_for(path, &left).exists(), "{kept:?}");
}

fn test_identity() -> Identity {
    formation::test_founding(9).identity
}

#[test]
fn who_leaves_a_cluster_that_gave_itself_up_keeps_its_word_for_that() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path();
    let end = |winner| Dissolution { winner: ClusterId(winner), at: LogIndex(40), ordered: winner == 3 };
    let ended = |winner| Charter { dissolved: Some(end(winner)), ..Charter::automatic() };
    let mut expected = Vec::new();
    for winner in [4, 3] {
        let left = end_a_cluster(path, &ended(winner));
        expected.push(formation::sign(&left.key, left.cluster(), left.generation, end(winner)));
        let fresh = begin_anew(path);
        assert_eq!(DataDir::tombstones(path).unwrap(), expected, "beside the identity, and not archived");
        assert_eq!(fresh.winner, Some(ClusterId(winner)));
        drop(fresh);
    }
    let left = end_a_cluster(path, &Charter::default());
    assert_eq!(DataDir::tombstones(path).unwrap(), expected, "nothing was said of this one");
    assert_ne!(left.cluster(), expected[1].cluster);
    DataDir::forget_tombstones(path).unwrap();
    assert_eq!(DataDir::tombstones(path).unwrap(), []);
}
