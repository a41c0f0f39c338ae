//! The simulated disk: what survives a crash, and faults where they were ordered.

use std::collections::BTreeMap;

use redb::ReadableDatabase;

use super::{Fault, FaultPlan, SimDir, Survival};
use crate::disk::{DatabaseFile, Directory, File};

fn content(dir: &SimDir, name: &str) -> Option<Vec<u8>> {
    let file = dir.open(name).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    Some(bytes)
}

fn durable(seed: u64, name: &str, bytes: &[u8]) -> SimDir {
    let dir = SimDir::new(seed);
    let file = dir.create(name).unwrap();
    file.write_at(0, bytes).unwrap();
    file.sync_data().unwrap();
    dir.sync().unwrap();
    dir
}

#[test]
fn synced_bytes_survive_and_unsynced_sectors_choose_for_themselves() {
    let dir = durable(1, "a", &[1; 2048]);
    dir.open("a").unwrap().write_at(100, &[2; 1500]).unwrap();
    let mut outcomes = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let after = content(&dir.crash(Survival::Random), "a").unwrap();
        assert_eq!(after.len(), 2048);
        assert!(after[..100].iter().chain(&after[1600..]).all(|b| *b == 1));
        let kept: Vec<u8> = [100, 512, 1024, 1536].iter().map(|at| after[*at]).collect();
        for (sector, version) in [100..512, 512..1024, 1024..1536, 1536..1600].into_iter().zip(&kept) {
            assert!(after[sector].iter().all(|b| b == version), "a sector is old or new, whole");
        }
        outcomes.insert(kept);
    }
    assert_eq!(outcomes.len(), 16, "every pattern of four sectors occurs");
    assert!(content(&dir.crash(Survival::Nothing), "a").unwrap().iter().all(|b| *b == 1));
    assert_eq!(content(&dir.crash(Survival::Everything), "a"), content(&dir, "a"));
}

#[test]
fn a_length_survives_with_its_sync_only() {
    let dir = durable(2, "a", &[1; 512]);
    let file = dir.open("a").unwrap();
    file.write_at(512, &[2; 1024]).unwrap();
    assert_eq!(content(&dir.crash(Survival::Nothing), "a").unwrap().len(), 512);
    file.sync_data().unwrap();
    assert_eq!(content(&dir.crash(Survival::Nothing), "a").unwrap().len(), 1536);
    file.set_len(10).unwrap();
    file.set_len(1536).unwrap();
    let mut expected = vec![0; 1536];
    expected[..10].fill(1);
    assert_eq!(content(&dir, "a").unwrap(), expected, "what a shorter length cut off reads as zeros");
    file.sync_data().unwrap();
    assert_eq!(content(&dir.crash(Survival::Random), "a").unwrap(), expected);
}

#[test]
fn names_survive_with_the_directory_sync_only() {
    let dir = durable(3, "a", b"old");
    dir.create("b").unwrap();
    dir.rename("a", "c").unwrap();
    let nothing = dir.crash(Survival::Nothing);
    assert_eq!(nothing.list().unwrap(), ["a"]);
    dir.sync().unwrap();
    assert_eq!(dir.crash(Survival::Nothing).list().unwrap(), ["b", "c"]);
    dir.remove("c").unwrap();
    assert_eq!(dir.crash(Survival::Nothing).list().unwrap(), ["b", "c"]);
}

#[test]
fn a_directory_has_files_of_its_own_and_shares_the_disks_fate() {
    let root = durable(9, "a", b"root");
    let made = root.operations();
    let below = root.subdirectory("d").unwrap();
    assert_eq!(root.operations(), made + 1);
    let file = below.create("a").unwrap();
    file.write_at(0, b"below").unwrap();
    file.sync_data().unwrap();
    below.sync().unwrap();
    assert_eq!(content(&root, "a").unwrap(), b"root");
    let again = root.subdirectory("d").unwrap();
    assert_eq!(
        (content(&again, "a").unwrap(), root.list().unwrap()),
        (b"below".to_vec(), vec!["a".to_owned(), "d".to_owned()])
    );
    assert!(root.open("d").is_err() && root.remove("d").is_err() && root.subdirectory("a").is_err());

    assert_eq!(root.crash(Survival::Nothing).list().unwrap(), ["a"], "lost with all that is in it");
    root.sync().unwrap();
    let left = root.crash(Survival::Nothing).subdirectory("d").unwrap();
    assert_eq!(content(&left, "a").unwrap(), b"below");
    let next = root.detach();
    assert!(below.list().is_err() && file.sync_data().is_err(), "one process, one disk");
    assert_eq!(content(&next.subdirectory("d").unwrap(), "a").unwrap(), b"below");
}

#[test]
fn a_failed_sync_is_not_made_good_by_the_next() {
    let dir = durable(4, "a", &[1; 512]);
    let file = dir.open("a").unwrap();
    file.write_at(0, &[2; 512]).unwrap();
    dir.plan(FaultPlan {
        fail_at: BTreeMap::from([(dir.operations() + 1, Fault::Eio)]),
        ..FaultPlan::default()
    });
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    file.sync_data().unwrap();
    let mut read = [0; 512];
    file.read_at(0, &mut read).unwrap();
    assert_eq!(read, [2; 512], "still read");
    assert_eq!(content(&dir.crash(Survival::Nothing), "a").unwrap(), [1; 512], "never written");
    assert_eq!(content(&dir.detach(), "a").unwrap(), [1; 512], "the next process is not taken in");
}

#[test]
fn a_killed_process_leaves_what_it_wrote_no_more_durable_than_it_was() {
    let dir = durable(6, "a", &[1; 512]);
    let file = dir.open("a").unwrap();
    file.write_at(0, &[2; 512]).unwrap();
    dir.create("b").unwrap();
    let next = dir.detach();
    assert!(file.write_at(0, &[3; 512]).is_err() && dir.list().is_err(), "the process is dead");
    assert_eq!(content(&next, "a").unwrap(), [2; 512]);
    assert_eq!(next.list().unwrap(), ["a", "b"]);
    let lost = next.crash(Survival::Nothing);
    assert_eq!((content(&lost, "a").unwrap(), lost.list().unwrap()), (vec![1; 512], vec!["a".to_owned()]));
    next.open("a").unwrap().sync_data().unwrap();
    assert_eq!(content(&next.crash(Survival::Nothing), "a").unwrap(), [2; 512]);
}

#[test]
fn faults_strike_the_operation_they_name() {
    let dir = durable(5, "a", &[1; 512]);
    let file = dir.open("a").unwrap();
    let at = dir.operations();
    let plan = FaultPlan {
        crash_at: Some(at + 3),
        fail_at: BTreeMap::from([(at + 2, Fault::Enospc)]),
        ..FaultPlan::default()
    };
    dir.plan(plan);
    file.write_at(0, &[2; 512]).unwrap();
    assert_eq!(file.write_at(0, &[3; 512]).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    assert!(dir.rename("a", "b").is_err(), "dies here");
    assert!(file.read_at(0, &mut [0; 1]).is_err() && dir.list().is_err() && dir.sync().is_err());
    assert_eq!(
        dir.crash(Survival::Everything).list().unwrap(),
        ["b"],
        "the operation may have reached the disk"
    );
    dir.flip_bit("b", 5, 0);
    assert_eq!(content(&dir.crash(Survival::Nothing), "a").unwrap()[5], 0);

    let dir = durable(6, "a", &[1; 512]);
    dir.plan(FaultPlan { fail_read_at: Some(2), ..FaultPlan::default() });
    let file = dir.open("a").unwrap();
    assert!(file.read_at(0, &mut [0; 1]).is_ok());
    assert!(file.read_at(0, &mut [0; 1]).is_err());
    assert!(file.read_at(0, &mut [0; 1]).is_ok());
}

#[test]
fn a_removed_file_lives_while_it_is_open() {
    let dir = durable(7, "a", b"x");
    let file = dir.open("a").unwrap();
    dir.remove("a").unwrap();
    dir.sync().unwrap();
    let mut byte = [0];
    file.read_at(0, &mut byte).unwrap();
    assert_eq!(&byte, b"x");
    drop(file);
    dir.sync().unwrap();
    assert!(dir.lock().tree.files.is_empty());
}

/// Of two changes of a name that no sync has covered a crash may keep the first alone.
#[test]
fn a_removed_file_may_come_back_with_its_content() {
    let mut came_back = 0;
    for seed in 0..40 {
        let dir = SimDir::new(seed);
        let file = dir.create("a").unwrap();
        file.write_at(0, b"abc").unwrap();
        file.sync_data().unwrap();
        drop(file);
        dir.remove("a").unwrap();
        // Another change, so that what has no name is looked for.
        drop(dir.create("b").unwrap());
        dir.remove("b").unwrap();
        let after =
            if seed % 2 == 0 { dir.crash(Survival::Random) } else { dir.detach().crash(Survival::Random) };
        if after.list().unwrap().contains(&"a".to_owned()) {
            let mut bytes = [0; 3];
            after.open("a").unwrap().read_at(0, &mut bytes).unwrap();
            assert_eq!(&bytes, b"abc");
            came_back += 1;
        }
    }
    assert!(came_back > 4, "{came_back}");
}

#[test]
fn equal_seeds_crash_equally() {
    let run = |seed| {
        let dir = durable(seed, "a", &[1; 4096]);
        dir.open("a").unwrap().write_at(0, &[2; 4096]).unwrap();
        content(&dir.crash(Survival::Random), "a")
    };
    assert_eq!(run(8), run(8));
    assert_ne!(run(8), run(9));
}

/// redb's own promise over this disk: a commit that returned survives any crash.
#[test]
fn redb_keeps_its_commits_over_a_crash() {
    const TABLE: redb::TableDefinition<u64, u64> = redb::TableDefinition::new("t");
    let put = |database: &redb::Database, value: u64| -> Result<(), redb::Error> {
        let txn = database.begin_write()?;
        txn.open_table(TABLE)?.insert(0, value)?;
        Ok(txn.commit()?)
    };
    let history = |dir: &SimDir| -> u64 {
        let Ok(file) = dir.create("redb") else { return 0 };
        let Ok(database) = redb::Builder::new().create_with_backend(DatabaseFile::new(file)) else {
            return 0;
        };
        if dir.sync().is_err() {
            return 0;
        }
        (1..=3).take_while(|value| put(&database, *value).is_ok()).count() as u64
    };
    let whole = SimDir::new(10);
    assert_eq!(history(&whole), 3);
    let (mut dead, step) = (0, 3);
    for crash_at in (1..=whole.operations()).step_by(step) {
        let dir = SimDir::new(11);
        dir.plan(FaultPlan { crash_at: Some(crash_at), ..FaultPlan::default() });
        let acknowledged = history(&dir);
        dead += u64::from(acknowledged < 3);
        if acknowledged == 0 {
            continue;
        }
        let after = dir.crash(Survival::Random);
        let backend = DatabaseFile::new(after.open("redb").unwrap());
        let database = redb::Builder::new().create_with_backend(backend).unwrap();
        let table = database.begin_read().unwrap().open_table(TABLE).unwrap();
        let found = table.get(0).unwrap().unwrap().value();
        assert!((acknowledged..=acknowledged + 1).contains(&found), "{found} after {acknowledged}");
    }
    assert!(dead > 0, "some crash hit the history");
}
