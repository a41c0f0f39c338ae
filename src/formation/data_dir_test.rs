//! What a start makes of each thing that it may find, and a crash at every point of founding.

use bytes::Bytes;

use super::data_dir::{
    Content, DataDir, DiskOptions, LOG_NAME, OpenError, STAGED_NAME, STORE_NAME, SUSPECT_NAME,
    begin_recovery, distrust, end_recovery, fence, found, founded, note_damage, note_damage_at_start,
    note_promise, open, open_to_recover, take_up, trust,
};
use super::facts::{drop_facts, keep_facts};
use super::identity::{Identity, Stage};
use super::record::RecordError;
use super::test_founding;
use crate::disk::sim::{FaultPlan, SimDir, Survival};
use crate::disk::{Directory, File};
use crate::ids::{LeaseId, LogIndex, MemberId, Revision, Run, Term, VersionId};
use crate::store::{Change, ChangeKind, ChangeLog, FoldBatch, Lease, Meta, Store, StoreOptions};
use crate::wal::{self, Batch, EntryKind, HardState, LogEntry, Position};

fn options() -> DiskOptions {
    DiskOptions {
        store: StoreOptions { cache_bytes: 1 << 20 },
        wal: wal::Options { segment_bytes: 8192, prefill: true },
    }
}

fn identity(stage: Stage) -> Identity {
    Identity { stage, ..test_founding(1).identity }
}

/// As `app` does it.
fn start(root: &SimDir, nonce: u64) -> Result<DataDir<SimDir>, OpenError> {
    if founded(root)?.is_none() {
        found(root, &identity(Stage::Founding))?;
    }
    open(root, nonce, None, options())
}

fn use_log(data: &mut DataDir<SimDir>) {
    let term = data.wal.hard_state().term;
    let entry = LogEntry {
        index: data.wal.last().index.next(),
        term,
        kind: EntryKind::Normal,
        data: Bytes::from_static(b"entry"),
    };
    let hard_state = HardState { term, vote: None, commit: data.wal.last().index };
    data.wal.append(Batch { hard_state: Some(hard_state), entries: &[entry] }).unwrap();
    data.wal.sync().unwrap();
}

const LAST: LogIndex = LogIndex(40);

fn batch(first: i64, last: i64) -> FoldBatch {
    let put = |n: i64| {
        let main = Revision(n);
        let kind = ChangeKind::Put {
            value: Bytes::from_static(b"v"),
            create_revision: main,
            version: 1,
            lease: LeaseId::NONE,
        };
        (VersionId { main, sub: 0 }, Change { key: format!("key {n}").into(), kind })
    };
    let (founding, conf_state) = (test_founding(1), test_founding(1).meta.conf_state);
    let meta =
        Meta { applied: LAST, applied_term: Term(3), revision: Revision(last), conf_state, ..founding.meta };
    FoldBatch { changes: (first..=last).map(put).collect(), leases: Vec::new(), sweep: None, meta }
}

/// As whoever restores does it: two batches up to revision 9.
fn restore(root: &SimDir, nonce: u64) -> Result<DataDir<SimDir>, OpenError> {
    if founded(root)?.is_none() {
        found(root, &identity(Stage::Restoring))?;
    }
    let mut batches = [Ok(batch(2, 5)), Ok(batch(6, 9))].into_iter();
    let content = Content {
        meta: test_founding(1).meta,
        batches: &mut batches,
        log_start: Position { index: LAST, term: Term(3) },
    };
    open(root, nonce, Some(content), options())
}

#[test]
fn a_fresh_directory_is_founded_once_and_opened_from_then_on() {
    let root = SimDir::new(1);
    assert!(matches!(open(&root, 1, None, options()), Err(OpenError::Fresh)));
    assert!(root.list().unwrap().is_empty(), "nobody asked for it to be founded");
    let mut first = start(&root, 7).unwrap();
    assert_eq!((first.identity.stage, first.identity.boot_nonce), (Stage::Established, 7));
    assert_eq!(first.store.meta().revision, Revision(1));
    assert_eq!(first.wal.start().index, LogIndex(1));
    let again = found(&root, &identity(Stage::Founding));
    assert!(matches!(again, Err(OpenError::Record(RecordError::Exists))));
    use_log(&mut first);
    let incarnation = first.identity.incarnation;
    drop(first);

    let second = start(&root.detach(), 8).unwrap();
    assert_eq!(second.identity.member, identity(Stage::Founding).member);
    assert!(second.identity.incarnation > incarnation);
    assert_eq!(second.recovered.entries.len(), 1);
}

#[test]
fn a_directory_with_data_and_without_a_record_is_never_a_fresh_start() {
    for kept in [STORE_NAME, LOG_NAME] {
        let root = SimDir::new(2);
        if kept == LOG_NAME {
            root.subdirectory(kept).unwrap();
        } else {
            root.create(kept).unwrap();
        }
        for refusal in [
            founded(&root).err(),
            found(&root, &identity(Stage::Founding)).err(),
            open(&root, 1, None, options()).err(),
        ] {
            assert!(matches!(refusal, Some(OpenError::IdentityLost { name }) if name == kept), "{refusal:?}");
        }
        assert_eq!(root.list().unwrap(), [kept], "a refusal changes nothing");
    }
}

#[test]
fn what_the_record_promises_and_is_not_there_was_lost() {
    let root = SimDir::new(3);
    drop(start(&root, 1).unwrap());
    let without_store = root.detach();
    without_store.remove(STORE_NAME).unwrap();
    let refused = start(&without_store, 2);
    assert!(matches!(refused.err(), Some(OpenError::StateLost { name: STORE_NAME })));
    assert!(!without_store.list().unwrap().contains(&STORE_NAME.to_owned()), "none is made instead");

    let root = SimDir::new(4);
    drop(start(&root, 1).unwrap());
    let log = root.subdirectory(LOG_NAME).unwrap();
    for name in log.list().unwrap() {
        log.remove(&name).unwrap();
    }
    assert!(matches!(start(&root, 2).err(), Some(OpenError::Wal(_))));

    // A store that was made and never founded holds nothing of what was promised.
    let root = SimDir::new(5);
    drop(start(&root, 1).unwrap());
    root.remove(STORE_NAME).unwrap();
    drop(crate::store::Store::open_in(&root, STORE_NAME, options().store).unwrap());
    assert!(matches!(start(&root, 2).err(), Some(OpenError::StateLost { name: STORE_NAME })));
}

/// The copy of the record that says *established* is damaged, the other one is from before: what is there must not be made anew.
#[test]
fn a_log_in_use_is_not_made_anew_by_an_old_record() {
    let root = SimDir::new(6);
    found(&root, &identity(Stage::Founding)).unwrap();
    let mut data = open(&root, 1, None, options()).unwrap();
    use_log(&mut data);
    drop(data);
    let old = SimDir::new(7);
    found(&old, &identity(Stage::Founding)).unwrap();
    let mut record = [0; 256];
    let file = old.open("identity.0").unwrap();
    let length = usize::try_from(file.len().unwrap()).unwrap();
    file.read_at(0, &mut record[..length]).unwrap();
    for name in ["identity.0", "identity.1"] {
        root.remove(name).unwrap();
        root.create(name).unwrap().write_at(0, &record[..length]).unwrap();
    }
    assert!(matches!(start(&root, 2).err(), Some(OpenError::RecordOutdated)));
    let log = root.subdirectory(LOG_NAME).unwrap();
    assert!(!log.list().unwrap().is_empty() && root.list().unwrap().contains(&STORE_NAME.to_owned()));
}

#[test]
fn a_directory_that_is_restored_into_begins_with_that_and_nothing_else() {
    let root = SimDir::new(8);
    let restored = restore(&root, 1).unwrap();
    assert_eq!((restored.store.meta().revision, restored.store.meta().applied), (Revision(9), LAST));
    assert_eq!(restored.wal.start(), Position { index: LAST, term: Term(3) });
    drop(restored);
    assert!(matches!(restore(&root, 2).err(), Some(OpenError::NotRestoring)), "it is in use by now");
    let opened = start(&root, 3).unwrap();
    assert_eq!(opened.store.base().unwrap().changes(VersionId::default(), Revision(9)).unwrap().count(), 8);

    let root = SimDir::new(9);
    found(&root, &identity(Stage::Restoring)).unwrap();
    assert!(matches!(start(&root, 1).err(), Some(OpenError::Unfinished)), "not an empty store");
    let mut broken = [Ok(batch(2, 5)), Err("cut short".into())].into_iter();
    let content = Content {
        meta: test_founding(1).meta,
        batches: &mut broken,
        log_start: Position { index: LAST, term: Term(3) },
    };
    let refused = open(&root, 2, Some(content), options());
    assert!(matches!(refused.err(), Some(OpenError::Content(_))));
    assert!(matches!(start(&root, 3).err(), Some(OpenError::Unfinished)), "half a state is none");
    assert_eq!(restore(&root, 4).unwrap().store.meta().revision, Revision(9));
}

/// Founds, uses the log and opens again, with the power cut in each operation; then the same once more on what is left.
fn crash_everywhere(begin: fn(&SimDir, u64) -> Result<DataDir<SimDir>, OpenError>, revision: Revision) {
    let whole = SimDir::new(10);
    use_log(&mut begin(&whole, 1).unwrap());
    let operations = whole.operations();
    let (mut made, mut begun) = (0, 0);
    for crash_at in 1..=operations {
        let root = SimDir::new(crash_at);
        root.plan(FaultPlan { crash_at: Some(crash_at), ..FaultPlan::default() });
        // Ready before the power went: from here on it may have been acknowledged.
        let ready = begin(&root, 1).is_ok();
        for survival in [Survival::Nothing, Survival::Everything, Survival::Random] {
            let left = root.crash(survival);
            let stage = founded(&left).unwrap().map(|identity| identity.stage);
            assert!(!ready || stage == Some(Stage::Established), "cut in {crash_at}");
            let finished = if stage == Some(Stage::Established) {
                made += 1;
                start(&left, 2).unwrap()
            } else {
                begun += usize::from(stage.is_some());
                begin(&left, 2).unwrap()
            };
            assert_eq!(finished.identity.boot_nonce, 2);
            assert_eq!(finished.store.meta().revision, revision, "cut in {crash_at}, {survival:?}");
        }
    }
    assert!(made > 3 && begun > 20, "{made} of {operations} after the end, {begun} in the midst");
}

#[test]
fn a_crash_while_founding_leaves_something_that_a_start_finishes() {
    crash_everywhere(start, Revision(1));
}

#[test]
fn a_crash_while_restoring_leaves_something_that_another_restore_finishes() {
    crash_everywhere(restore, Revision(9));
}

/// What an install leaves when it was cut off: another member's store at entry 9 of term 3, and this member's log.
fn cut_off_install(seed: u64, entries: u64) -> SimDir {
    let root = SimDir::new(seed);
    let mut data = start(&root, 1).unwrap();
    let term = data.wal.hard_state().term;
    let entry = |index| {
        let data = Bytes::from_static(b"entry");
        LogEntry { index: LogIndex(index), term, kind: EntryKind::Normal, data }
    };
    let entries: Vec<LogEntry> = (2..2 + entries).map(entry).collect();
    let vote = Some(test_founding(2).identity.member);
    let hard_state = HardState { term: Term(term.0 + 1), vote, commit: LogIndex(2) };
    data.wal.append(Batch { hard_state: Some(hard_state), entries: &entries }).unwrap();
    data.wal.sync().unwrap();
    let mut meta = data.store.meta().clone();
    (meta.applied, meta.applied_term) = (LogIndex(9), Term(3));
    drop(data);
    let mut staged = Store::open_in(&root, STAGED_NAME, options().store).unwrap();
    staged.finish_stage(&meta).unwrap();
    drop(staged);
    root.rename(STAGED_NAME, STORE_NAME).unwrap();
    root.sync().unwrap();
    root.crash(Survival::Nothing)
}

#[test]
fn an_install_that_was_cut_off_is_finished_at_the_next_start() {
    let position = Position { index: LogIndex(9), term: Term(3) };
    // A log that ends before the position, and one that has another entry there.
    for entries in [2, 12] {
        let root = cut_off_install(entries, entries);
        let whole = {
            let root = root.detach();
            drop(start(&root, 2).unwrap());
            root.operations()
        };
        for crash_at in 1..=whole {
            let root = cut_off_install(entries, entries);
            root.plan(FaultPlan { crash_at: Some(crash_at), ..FaultPlan::default() });
            drop(start(&root, 2));
            let mut data = start(&root.crash(Survival::Random), 3).unwrap();
            assert_eq!((data.wal.start(), data.wal.last()), (position, position));
            assert!(data.recovered.entries.is_empty() && data.recovered.start == position);
            let kept = data.recovered.hard_state;
            assert_eq!(kept.commit, position.index);
            assert_eq!((kept.term, kept.vote), (Term(3), None), "no vote in the term of the position");
            use_log(&mut data);
        }
    }
}

/// The same store, had it moved on since: then its log was lost, and with it what this member has promised.
#[test]
fn a_store_that_has_moved_on_excuses_no_log() {
    let root = cut_off_install(1, 2);
    let mut store = Store::open_in(&root, STORE_NAME, options().store).unwrap();
    let mut meta = store.meta().clone();
    meta.applied = LogIndex(10);
    store.fold(&FoldBatch { changes: ChangeLog::default(), leases: Vec::new(), sweep: None, meta }).unwrap();
    drop(store);
    let data = start(&root, 2).unwrap();
    assert_eq!(data.recovered.entries.len(), 2, "nothing is discarded, and consensus will refuse it");
}

/// The state says that the cluster has noted a run of this member: a record that lacks it is an older one.
#[test]
fn a_record_that_is_older_than_the_state_is_refused() {
    let root = SimDir::new(1);
    let data = start(&root, 2).unwrap();
    let identity = data.identity.clone();
    drop(data.wal);
    let mut store = data.store;
    for (run, known) in [(identity.run(), true), (Run { boot_nonce: 77, ..identity.run() }, false)] {
        let mut meta = store.meta().clone();
        meta.applied = meta.applied.next();
        let attributes = &mut meta.members[0].attributes;
        (attributes.incarnation, attributes.boot_nonce) = (run.incarnation.0, run.boot_nonce);
        store.fold(&FoldBatch { meta, ..FoldBatch::default() }).unwrap();
        match open(&root, 3, None, options()) {
            Ok(_) => assert!(known),
            Err(OpenError::RecordRolledBack { incarnation }) => {
                assert!(!known && incarnation == run.incarnation);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_fenced_directory_is_not_opened() {
    let root = SimDir::new(1);
    let member = start(&root, 2).unwrap().identity.member;
    fence(&root).unwrap();
    assert!(matches!(start(&root, 3), Err(OpenError::Fenced { member: of }) if of == member));
    assert!(matches!(start(&root, 4), Err(OpenError::Fenced { .. })), "at every start");
}

/// The mark survives a power cut, and what is read whole at every start is not looked at under it: that may be what is damaged.
#[test]
fn a_state_that_is_not_to_be_trusted_stays_so_until_another_one_has_come() {
    let root = SimDir::new(1);
    let mut data = start(&root, 1).unwrap();
    let lease = Lease { ttl: 60, remaining: 0, granted_at: LogIndex(2) };
    let leases = vec![(LeaseId(7), Some(lease))];
    let meta = Meta { applied: data.store.meta().applied.next(), ..data.store.meta().clone() };
    data.store.fold(&FoldBatch { changes: ChangeLog::default(), leases, sweep: None, meta }).unwrap();
    assert_eq!(data.store.base().unwrap().leases().unwrap().len(), 1);
    drop(data);
    distrust(&root).unwrap();
    distrust(&root).unwrap();
    let root = root.crash(Survival::Nothing);
    let suspect = open_only(&root);
    assert_eq!(
        (suspect.store.is_suspect(), suspect.store.base().unwrap().leases().unwrap().len()),
        (true, 0)
    );
    drop(suspect);
    trust(&root).unwrap();
    let root = root.crash(Survival::Nothing);
    let data = open_only(&root);
    assert_eq!((data.store.is_suspect(), data.store.base().unwrap().leases().unwrap().len()), (false, 1));
}

/// Which of two files redb has stopped at is not known. A damaged copy would stop every start.
#[test]
fn damage_is_noted_and_a_copy_on_its_way_is_removed() {
    let root = SimDir::new(1);
    drop(start(&root, 1).unwrap());
    root.create(STAGED_NAME).unwrap();
    root.sync().unwrap();
    note_damage(&root).unwrap();
    let root = root.crash(Survival::Nothing);
    assert!(!root.list().unwrap().iter().any(|name| name == STAGED_NAME));
    assert!(open_only(&root).store.is_suspect());
}

/// Without a position in the log for what a test has put into the store.
fn open_only(root: &SimDir) -> DataDir<SimDir> {
    open_to_recover(root, options()).unwrap()
}

/// Only a node that is in no cluster has anything to promise.
#[test]
fn a_promise_is_noted_of_fresh_nodes_alone() {
    let root = SimDir::new(1);
    assert!(matches!(note_promise(&root, None), Err(OpenError::Fresh)));
    found(&root, &identity(Stage::Fresh)).unwrap();
    note_promise(&root, None).unwrap();
    take_up(&root, &identity(Stage::Founding)).unwrap();
    assert!(matches!(note_promise(&root, None), Err(OpenError::Record(RecordError::Exists))));
}

/// A directory of one of two voters, whose log has the entries from 2 to 11. The facts of the last fold are those after entry 9.
fn one_of_two(seed: u64) -> SimDir {
    let root = SimDir::new(seed);
    let mut data = start(&root, 1).unwrap();
    for _ in 2..=11 {
        use_log(&mut data);
    }
    let mut meta = data.store.meta().clone();
    meta.conf_state.voters.push(OTHER);
    meta.conf_state.voters.sort_unstable();
    (meta.applied, meta.revision) = (LogIndex(9), Revision(7));
    data.store.fold(&FoldBatch { meta: meta.clone(), ..FoldBatch::default() }).unwrap();
    keep_facts(&root, data.identity.member, &meta).unwrap();
    root
}

const OTHER: MemberId = MemberId(7);

fn ruin(root: &SimDir) {
    let file = root.open(STORE_NAME).unwrap();
    file.write_at(0, &[0xee; 4096]).unwrap();
    file.sync_data().unwrap();
}

/// It waits for another member's state as one whose rows are damaged does. Nothing is put where the store is: whoever tries to save what is in it, can.
#[test]
fn a_store_that_cannot_be_opened_is_replaced_where_others_vote() {
    let root = one_of_two(1);
    ruin(&root);
    for nonce in 2..4 {
        let data = start(&root, nonce).unwrap();
        assert!(data.store.is_suspect());
        assert_eq!(data.damage.is_some(), nonce == 2, "what is noted is not opened again");
        assert_eq!((data.store.meta().applied, data.store.meta().revision), (LogIndex(9), Revision(7)));
        assert_eq!((data.recovered.start.index, data.wal.last().index), (LogIndex(1), LogIndex(11)));
    }
    let root = root.crash(Survival::Nothing);
    assert!(start(&root, 4).unwrap().store.is_suspect(), "whatever happens meanwhile");
    // Whoever goes on alone needs the state.
    assert!(matches!(open_to_recover(&root, options()), Err(OpenError::Store(error)) if error.is_damage()));
}

#[test]
fn a_store_that_cannot_be_opened_is_refused_where_nobody_has_another_state() {
    let alone = SimDir::new(1);
    let mut data = start(&alone, 1).unwrap();
    use_log(&mut data);
    drop(data);
    let without_facts = one_of_two(2);
    drop_facts(&without_facts).unwrap();
    let without_log = one_of_two(3);
    let mut data = start(&without_log, 2).unwrap();
    data.wal.reset(Position { index: LogIndex(20), term: Term(3) }).unwrap();
    drop(data);
    assert!(!note_damage_at_start(&alone).unwrap() && !note_damage_at_start(&without_facts).unwrap());
    for root in [alone, without_facts, without_log] {
        ruin(&root);
        for nonce in 3..5 {
            let refused = start(&root, nonce).err();
            assert!(matches!(&refused, Some(OpenError::Store(error)) if error.is_damage()), "{refused:?}");
        }
        assert!(!root.list().unwrap().contains(&SUSPECT_NAME.to_owned()), "nothing was changed");
    }
}

/// redb may also end the process.
#[test]
fn damage_that_ends_a_start_is_noted_for_the_next_one() {
    let root = one_of_two(1);
    assert!(note_damage_at_start(&root).unwrap());
    let data = start(&root.crash(Survival::Nothing), 2).unwrap();
    assert!(data.store.is_suspect() && data.damage.is_none());
}

/// The log of a member that goes on alone continues the facts from before as well.
#[test]
fn who_goes_on_alone_keeps_no_facts_of_others() {
    let root = one_of_two(1);
    begin_recovery(&root).unwrap();
    end_recovery(&root).unwrap();
    ruin(&root);
    assert!(matches!(start(&root, 3), Err(OpenError::Store(_))));
}
