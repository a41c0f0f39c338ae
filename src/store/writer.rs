//! The state on disk as a handle: opening, founding, and the commits that change it.
//!
//! Owns: the redb database, as its single writer, and the facts as of the last commit. Must never: be used again after a failed
//! commit, or take part in a read (a [`Base`] does). Driven by the checkpoint thread through `node`.
//!
//! # What a crash leaves
//!
//! Every commit that matters syncs twice: the new pages and the new commit slot first, then the byte that makes the
//! slot the current one (redb's two-phase commit, which quick repair requires). A crash before the second sync leaves
//! the state before the commit, whole; after it the state after. The file is never read through on opening: the
//! allocator's state is in the commit.
//!
//! # Damaged pages
//!
//! Rows carry checksums of their own, which [`Base`] checks. redb does not check the pages around them when it reads,
//! and it may panic on a page that it cannot have written. While opening, such a panic is caught and returned as
//! [`StoreError::Damaged`]. Later, and wherever the program is built to abort on panics (the release profile), a panic
//! hook at process level has to name the store and end the process with a code of its own; [`is_engine_source`] tells
//! it whose panic it was. Going on is never right.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::backend::{IoCounts, Meter, Metered};
use super::base::{Base, MALFORMED};
use super::compact::Walk;
use super::encoding::{SEAL_BYTES, seal, unseal};
use super::error::StoreError;
use super::schema::{
    ATTACHED, AUTH_KEY, FACTS_KEY, FORMAT_KEY, FORMAT_VERSION, HIST, LEASE, LIVE, META, META_NAME, REV,
};
use super::sweep::write_sweep;
use super::types::{FoldBatch, Meta};
use super::{auth, facts, fold};
use crate::disk::{DatabaseFile, Directory};
use crate::ids::Revision;
use crate::planted::{self, Bug};
use redb::backends::InMemoryBackend;
use redb::{Database, Durability, ReadableDatabase, StorageBackend, TableError, WriteTransaction};

/// The share of the cache that one transaction's changed pages may take: redb's write buffer is half of it, and branch
/// pages and redb's own tables are on top of what a fold counts.
const DIRTY_SHARE_OF_CACHE: usize = 3;

/// Added to the name of a file that is being created.
const UNFINISHED_SUFFIX: &str = ".new";

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// redb's page cache in bytes; half of it is the write buffer, and a fold that dirties more writes pages twice.
    pub cache_bytes: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { cache_bytes: crate::limits::STORE_CACHE_BYTES }
    }
}

/// The state on disk; the single writer of its file.
///
/// Reading goes through [`Store::base`], which any number of threads may share. After any error from a `&mut self`
/// method the store is poisoned: what is on disk is the state before or after that call, and only opening it again
/// tells which.
#[derive(Debug)]
pub struct Store {
    pub(super) database: Database,
    meter: Meter,
    options: StoreOptions,
    meta: Meta,
    initialised: bool,
    poisoned: bool,
    /// See [`Store::distrust`].
    suspect: bool,
    /// Shared with every reader.
    readers: Arc<()>,
    /// How far the compaction that is under way has come.
    pub(super) walk: Option<Walk>,
    /// What [`Base::complete_from`] says. Which removal an earlier run had begun is not known, so it begins with the compacted revision.
    pub(super) complete_from: Revision,
}

/// How sure a commit has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sureness {
    /// On disk when the commit returns.
    Durable,
    /// With the next durable commit; until then a crash undoes it.
    Deferred,
}

impl Store {
    /// Opens the file behind `backend`; an empty one becomes an uninitialised store.
    ///
    /// A file whose creation was cut off is damaged, not empty: nothing tells it from a store that lost its first page. So a
    /// new file should not have its final name before this has returned (see [`Store::open_in`]).
    ///
    /// # Errors
    /// [`StoreError::UnsupportedVersion`] for a format of another build, [`StoreError::Damaged`] for bytes that are no store.
    pub fn open(backend: impl StorageBackend, options: StoreOptions) -> Result<Self, StoreError> {
        let (metered, meter) = Metered::new(backend).map_err(StoreError::Io)?;
        // Nothing of ours outlives a panic here: the database under construction is dropped with it.
        let opened = catch_unwind(AssertUnwindSafe(|| open_database(metered, options)));
        let (database, found) = opened.unwrap_or_else(|panic| {
            let what = panic_text(panic.as_ref()).map_or("panicked", |text| text);
            Err(StoreError::damaged_file(format!("redb cannot read it: {what}")))
        })?;
        let initialised = found.is_some();
        let meta = found.unwrap_or_default();
        Ok(Self {
            complete_from: meta.compacted,
            database,
            meter,
            options,
            meta,
            initialised,
            poisoned: false,
            suspect: false,
            readers: Arc::default(),
            walk: None,
        })
    }

    /// Opens the file of this name; where there is none, an uninitialised store of that name is created and made durable.
    ///
    /// A new file gets its name only when it is whole, because one whose creation was cut off does not open. One process at a time:
    /// the caller holds the directory's lock.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_in<D: Directory>(
        directory: &D,
        name: &str,
        options: StoreOptions,
    ) -> Result<Self, StoreError> {
        let names = directory.list().map_err(StoreError::Io)?;
        if names.iter().any(|found| found == name) {
            let file = directory.open(name).map_err(StoreError::Io)?;
            return Self::open(DatabaseFile::new(file), options);
        }
        let unfinished = format!("{name}{UNFINISHED_SUFFIX}");
        if names.contains(&unfinished) {
            directory.remove(&unfinished).map_err(StoreError::Io)?;
        }
        let file = directory.create(&unfinished).map_err(StoreError::Io)?;
        let store = Self::open(DatabaseFile::new(file), options)?;
        directory.rename(&unfinished, name).map_err(StoreError::Io)?;
        // The content is durable by now. Without this a power cut could still take the name, and with it all that is
        // folded later.
        directory.sync().map_err(StoreError::Io)?;
        Ok(store)
    }

    /// A store that is not on the disk and has nothing but facts, which nobody is to trust: it stands in for one that is damaged until another
    /// one has come.
    pub fn stand_in(meta: &Meta, options: StoreOptions) -> Result<Self, StoreError> {
        let mut store = Self::open(InMemoryBackend::new(), options)?;
        store.initialise(meta)?;
        store.distrust();
        Ok(store)
    }

    /// How it was opened.
    pub fn options(&self) -> StoreOptions {
        self.options
    }

    /// Whether the store was founded or installed; until then it has no facts and takes no folds.
    pub fn is_initialised(&self) -> bool {
        self.initialised
    }

    /// Gives a new store its first facts, durably.
    pub fn initialise(&mut self, meta: &Meta) -> Result<(), StoreError> {
        assert!(!self.initialised, "a store is founded once");
        self.commit(meta.clone(), Sureness::Durable, |_, _| Ok(()))?;
        self.initialised = true;
        Ok(())
    }

    /// The facts as of the last commit.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// A reader of the state as of the last commit. Pages that it can see are not reused while it lives: hold one for a
    /// request, or as long as it is the newest, not for minutes after.
    pub fn base(&self) -> Result<Base, StoreError> {
        self.check_usable()?;
        let (meta, readers) = (self.meta.clone(), Arc::clone(&self.readers));
        Base::open(&self.database.begin_read()?, meta, self.complete_from, self.suspect, readers)
    }

    /// The rows are not to be trusted, and wait to be replaced: from now on a [`Base`] shows the facts and no leases, which a view would read whole.
    pub fn distrust(&mut self) {
        self.suspect = true;
    }

    /// Whether [`Store::distrust`] was called.
    pub fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Whether any reader is left; a store that is closed under them fails them.
    pub fn has_readers(&self) -> bool {
        Arc::strong_count(&self.readers) > 1
    }

    /// Commits a frozen generation: its changes, the sweep behind them and the facts after that, in one durable commit.
    ///
    /// Asserts that the batch continues the store: changes ascend, all above the stored revision and none above the
    /// batch's, and the applied index, the revision and the compacted revision do not go back. A batch cannot be
    /// folded twice.
    pub fn fold(&mut self, batch: &FoldBatch) -> Result<(), StoreError> {
        self.fold_from(self.meta.revision.next(), batch)
    }

    /// The same for a part of a content that comes in order, but not in whole revisions: the changes may go on in the revision that the last part has ended
    /// in. Nobody reads such a store before it has all of them.
    pub fn fold_part(&mut self, batch: &FoldBatch) -> Result<(), StoreError> {
        self.fold_from(self.meta.revision, batch)
    }

    fn fold_from(&mut self, first: Revision, batch: &FoldBatch) -> Result<(), StoreError> {
        assert!(self.initialised, "a store is founded before it is folded into");
        let meta = fold::facts_after(&self.meta, batch, first);
        let dirty_bytes_max = self.dirty_bytes_max();
        self.commit_with(meta, Sureness::Durable, |database, meta| {
            let stages = fold::write_rows(database, &batch.changes, &batch.leases, dirty_bytes_max)?;
            match &batch.sweep {
                Some(sweep) => write_sweep(stages, sweep, meta),
                None => Ok(stages.txn),
            }
        })
    }

    /// Closes the file, and with that makes slices of compaction durable that were waiting for it. Readers fail from now on.
    ///
    /// Dropping the store does the same and keeps quiet about errors; a crash instead loses nothing but those slices.
    pub fn close(self) -> Result<(), StoreError> {
        Ok(self.database.close()?)
    }

    /// The length of the file in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.meter.read().file_bytes
    }

    /// Bytes of all retained changes, as the quota counts them.
    pub fn bytes_in_use(&self) -> u64 {
        self.meta.bytes_in_use
    }

    /// What was asked of the disk since the store was opened.
    pub fn io_counts(&self) -> IoCounts {
        self.meter.read()
    }

    /// A handle that reads [`Store::io_counts`] from other threads.
    pub fn meter(&self) -> Meter {
        self.meter.clone()
    }

    /// [`Bug::ForgetApplied`]: the rows of a fold reach the disk with the position of the fold before.
    fn planted(&self, after: &Meta) -> Option<Meta> {
        let Meta { applied, applied_term, .. } = self.meta;
        let forgets = planted::has(Bug::ForgetApplied) && self.initialised;
        forgets.then(|| Meta { applied, applied_term, ..after.clone() })
    }

    pub(super) fn dirty_bytes_max(&self) -> usize {
        self.options.cache_bytes / DIRTY_SHARE_OF_CACHE
    }

    /// Runs something that ends with a commit. Until that has succeeded nobody knows what is on the disk, so the store is poisoned meanwhile,
    /// also by a panic; and after a failure nothing more is written: closing its file, redb would make durable what was committed on the way
    /// without the facts that belong to it, and a start would fold the same changes once more on top.
    pub(super) fn attempt<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.check_usable()?;
        self.poisoned = true;
        let result = work(self).inspect_err(|_| self.meter.refuse_writes())?;
        self.poisoned = false;
        Ok(result)
    }

    /// A staged store has got its facts.
    pub(super) fn become_whole(&mut self, meta: Meta) {
        self.complete_from = meta.compacted;
        (self.meta, self.initialised) = (meta, true);
    }

    pub(super) fn check_usable(&self) -> Result<(), StoreError> {
        if self.poisoned { Err(StoreError::Poisoned) } else { Ok(()) }
    }

    /// Runs `write` and stores `meta` in one commit.
    pub(super) fn commit(
        &mut self,
        meta: Meta,
        sureness: Sureness,
        write: impl FnOnce(&WriteTransaction, &mut Meta) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.commit_with(meta, sureness, |database, meta| {
            let txn = database.begin_write()?;
            write(&txn, meta)?;
            Ok(txn)
        })
    }

    /// Stores `meta` in the transaction that `write` leaves open, and commits it.
    fn commit_with(
        &mut self,
        mut meta: Meta,
        sureness: Sureness,
        write: impl FnOnce(&Database, &mut Meta) -> Result<WriteTransaction, StoreError>,
    ) -> Result<(), StoreError> {
        self.attempt(|store| {
            let mut txn = write(&store.database, &mut meta)?;
            match sureness {
                Sureness::Durable => txn.set_quick_repair(true),
                Sureness::Deferred => txn.set_durability(Durability::None)?,
            }
            let facts = facts::encode_row(store.planted(&meta).as_ref().unwrap_or(&meta));
            txn.open_table(META)?.insert(FACTS_KEY, facts.as_slice())?;
            if meta.auth != store.meta.auth {
                txn.open_table(META)?.insert(AUTH_KEY, auth::encode(&meta.auth).as_slice())?;
            }
            txn.commit()?;
            store.meta = meta;
            Ok(())
        })
    }
}

/// Whether a panic's source file (`Location::file`) belongs to redb, so that the store is what it could not read.
pub fn is_engine_source(file: &str) -> bool {
    file.split(['/', '\\']).any(|part| part == "redb" || part.starts_with("redb-"))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> Option<&str> {
    panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied())
}

/// The database, and its facts where it has been initialised.
fn open_database(
    backend: impl StorageBackend,
    options: StoreOptions,
) -> Result<(Database, Option<Meta>), StoreError> {
    let mut builder = Database::builder();
    let database = builder.set_cache_size(options.cache_bytes).create_with_backend(backend)?;
    let facts = match read_facts(&database)? {
        Found::Nothing => {
            create_schema(&database)?;
            None
        }
        Found::Schema => None,
        Found::Facts(meta) => Some(*meta),
    };
    Ok((database, facts))
}

/// What a file holds.
enum Found {
    /// No table: a new file, or one whose creation was cut off.
    Nothing,
    /// Tables, but no facts yet.
    Schema,
    /// A store.
    Facts(Box<Meta>),
}

fn read_facts(database: &Database) -> Result<Found, StoreError> {
    let txn = database.begin_read()?;
    let meta = match txn.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) if txn.list_tables()?.next().is_none() => {
            return Ok(Found::Nothing);
        }
        Err(error) => return Err(error.into()),
    };
    // The format before anything else: what the other rows mean depends on it.
    let damaged = |what| StoreError::damaged(META_NAME, FORMAT_KEY.as_bytes(), what);
    let format = meta.get(FORMAT_KEY)?.ok_or_else(|| damaged("missing"))?;
    match parse_format(format.value()) {
        Some(FORMAT_VERSION) => {}
        Some(found) => return Err(StoreError::UnsupportedVersion { found, supported: FORMAT_VERSION }),
        None => return Err(damaged(MALFORMED)),
    }
    match meta.get(FACTS_KEY)? {
        Some(row) => {
            let auth = meta.get(AUTH_KEY)?;
            let facts = facts::decode_row(row.value(), auth.as_ref().map(redb::AccessGuard::value))?;
            facts.commands.check()?;
            Ok(Found::Facts(Box::new(facts)))
        }
        None => Ok(Found::Schema),
    }
}

fn parse_format(row: &[u8]) -> Option<u32> {
    let body = unseal(FORMAT_KEY.as_bytes(), row)?;
    Some(u32::from_le_bytes(body.try_into().ok()?))
}

/// All tables and the format in one commit, so that a file has either none of them or all.
fn create_schema(database: &Database) -> Result<(), StoreError> {
    let mut txn = database.begin_write()?;
    txn.set_quick_repair(true);
    txn.open_table(REV)?;
    txn.open_table(LIVE)?;
    txn.open_table(HIST)?;
    txn.open_table(LEASE)?;
    txn.open_table(ATTACHED)?;
    let mut row = Vec::with_capacity(size_of::<u32>() + SEAL_BYTES);
    row.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    seal(FORMAT_KEY.as_bytes(), &mut row);
    txn.open_table(META)?.insert(FORMAT_KEY, row.as_slice())?;
    txn.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Base, Store};
    use crate::ids::LogIndex;
    use crate::store::testing::{Disk, at, batch, delete, dump, everything, founded, open, put};

    #[test]
    fn a_base_is_shared_between_threads_and_a_store_moves_to_one() {
        fn shared<T: Send + Sync + 'static>() {}
        fn moved<T: Send + 'static>() {}
        shared::<Base>();
        moved::<Store>();
    }

    #[test]
    #[should_panic(expected = "a change is folded once")]
    fn a_batch_is_not_folded_twice() {
        let mut store = founded(&Disk::default());
        let batch = batch(&store, vec![(at(2, 0), put("k", "v", 2, 1))]);
        store.fold(&batch).unwrap();
        drop(store.fold(&batch));
    }

    #[test]
    fn a_revision_may_come_in_parts() {
        let changes = [
            (at(2, 0), put("a", "v", 2, 1)),
            (at(2, 1), put("b", "v", 2, 1)),
            (at(2, 2), put("a", "w", 2, 2)),
            (at(2, 3), delete("b")),
            (at(3, 0), put("b", "v", 3, 1)),
        ];
        let mut whole = founded(&Disk::default());
        whole.fold(&batch(&whole, changes.to_vec())).unwrap();
        for end in 1..changes.len() {
            let mut parts = founded(&Disk::default());
            for part in [&changes[..end], &changes[end..]] {
                let mut batch = batch(&parts, part.to_vec());
                batch.meta.applied = whole.meta().applied;
                batch.meta.auth.clone_from(&whole.meta().auth);
                parts.fold_part(&batch).unwrap();
            }
            assert_eq!(dump(&parts), dump(&whole));
        }
    }

    #[test]
    #[should_panic(expected = "the applied index does not go back")]
    fn an_older_state_is_not_folded_over_a_newer_one() {
        let mut store = founded(&Disk::default());
        let mut batch = batch(&store, vec![]);
        batch.meta.applied = LogIndex(9);
        store.fold(&batch).unwrap();
        batch.meta.applied = LogIndex(8);
        drop(store.fold(&batch));
    }

    #[test]
    fn closing_makes_waiting_slices_durable() {
        let disk = Disk::default();
        let mut store = founded(&disk);
        let mut batch = batch(&store, (2..12).map(|n| (at(n, 0), put("k", "v", 2, n - 1))).collect());
        batch.meta.compacted = batch.meta.revision;
        store.fold(&batch).unwrap();
        store.compact_slice(100).unwrap();
        assert_eq!(store.compact_slice(2).unwrap().removed, 2);
        store.close().unwrap();
        let store = open(&disk);
        assert_eq!(store.base().unwrap().changes(at(0, 0), store.meta().revision).unwrap().count(), 8);
        assert_eq!(store.base().unwrap().count_live(&everything(), usize::MAX).unwrap(), (1, None));
    }
}
