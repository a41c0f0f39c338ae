//! The room on the disk that the data directory is on, and a reserve for when there is none.
//!
//! Owns: the file `reserve`, and whether room counts as short. Must never: fail because of what it cannot measure or set aside, or be asked by a
//! thread that serves clients. Looked after by the checkpoint thread; the wal thread takes the reserve when it needs it at once.
//!
//! ```text
//! room    = what the filesystem has free + what is set aside + what the store's file occupies beyond twice the data (its pages are
//!           used again) - the whole reserve
//! short     once there is less than LOW: puts are refused, and the reserve is given up, so that what is on its way, deletions and
//!           compactions have it
//! enough    once there is twice as much again; the reserve is set aside anew when the filesystem itself has room for it
//! ```
//!
//! Of the whole reserve as much is set aside as deletions and compactions of the data that there are can need: a segment of the log, and
//! each page of the store once more with what a deletion adds ([`wanted`]). Others may fill the disk at any time, so it grows as soon as the data do
//! ([`Space::is_outgrown`]), and never shrinks. What the data themselves fill never gets as far as the whole of it, set aside or not, whatever their size.
//!
//! Others may fill the disk faster than anybody looks. Then batches and folds wait where they are, unacknowledged, until there is room.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::formation::STORE_NAME;
use crate::limits::{
    DISK_LOW_BYTES, DISK_RESERVE_BYTES, DISK_RESERVE_BYTES_MIN, FOLD_ROOM_BYTES, WAL_SEGMENT_BYTES,
};
use crate::time::Instant;

/// The file of the reserve. It has nothing in it.
pub const RESERVE_NAME: &str = "reserve";
/// Small disks have a smaller reserve: one part in this many. What has to be left for what is on its way is the same on every disk.
const SHARE: u64 = 16;
/// Pages are not full, and large values take a power of two: data may occupy as many times its bytes in the store's file.
const PAGES_PER_DATA: u64 = 2;
/// What the reserve has for each byte of data. The worst that was measured are keys of a thousand bytes without values, which are in three tables: 2.8.
const RESERVE_PER_DATA: u64 = 3;
/// What of it the store leaves to a segment of the log, and to small files.
const ELSEWHERE_BYTES: u64 = WAL_SEGMENT_BYTES + 256 * 1024;
/// Room for less than this is not enough for anything that the store does.
const WORK_BYTES_MIN: u64 = 512 * 1024;
/// It grows by so many bytes at a time.
const RESERVE_STEP: u64 = 1 << 20;
/// How old what is known of the room may be when somebody wants to put something.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes in a block of `stat(2)`.
const BLOCK_BYTES: u64 = 512;

/// What of the disk is free for a node.
#[derive(Debug, Default)]
pub struct Space {
    /// Nothing where nothing is measured, and there is always room.
    place: Option<Place>,
    short: AtomicBool,
    /// The log waits for room, which the store's spare pages are not.
    log_waits: AtomicBool,
    /// On the node's clock.
    looked_at: AtomicU64,
    /// With more data than this the reserve has to grow.
    covers: AtomicU64,
    /// What the store's file has occupied when room became short, or at the last look.
    occupied: AtomicU64,
}

#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// The whole of it.
    reserve_bytes: u64,
    low_bytes: u64,
    /// The filesystem cannot set room aside.
    unsupported: AtomicBool,
}

/// What the reserve is to have for so much data, were there no bound.
fn wanted(data_bytes: u64) -> u64 {
    steps(data_bytes).saturating_mul(RESERVE_STEP).saturating_add(DISK_RESERVE_BYTES_MIN)
}

/// How many steps it has grown by for so much data.
fn steps(data_bytes: u64) -> u64 {
    data_bytes.saturating_mul(RESERVE_PER_DATA) / RESERVE_STEP
}

/// What work on a store may write that has so much data, with what is to be folded into it. It is never more than the reserve has beside what goes elsewhere.
fn work_bytes(data_bytes: u64) -> u64 {
    (wanted(data_bytes) - ELSEWHERE_BYTES).min(FOLD_ROOM_BYTES)
}

/// Gives up the reserve of an earlier run where there is no other room: a start needs some.
pub fn make_room(path: &Path) {
    if let Some(place) = Place::of(path)
        && place.free().is_some_and(|free| free < place.low_bytes)
    {
        place.give_up_reserve();
    }
}

impl Space {
    /// The room on the disk of this directory.
    pub fn of(path: &Path) -> Self {
        Self { place: Place::of(path), ..Self::default() }
    }

    /// Whether puts are to be refused, as of the last look.
    pub fn is_short(&self) -> bool {
        self.short.load(Ordering::Relaxed) || self.log_waits.load(Ordering::Relaxed)
    }

    /// The log waits for room, or does no longer.
    pub(super) fn set_log_waits(&self, waits: bool) {
        self.log_waits.store(waits, Ordering::Relaxed);
    }

    /// Whether somebody should look, since the last look is too old. It is asked for once.
    pub(super) fn wants_look(&self, now: Instant) -> bool {
        if self.place.is_none() {
            return false;
        }
        let looked_at = self.looked_at.load(Ordering::Relaxed);
        now.since(Instant(looked_at)) >= LOOK_INTERVAL
            && self.looked_at.compare_exchange(looked_at, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether the reserve has to grow for so much data. It is said once before somebody has looked again.
    pub(super) fn is_outgrown(&self, data_bytes: u64) -> bool {
        let outgrown = self.place.is_some() && data_bytes > self.covers.load(Ordering::Relaxed);
        if outgrown {
            self.covers.store(u64::MAX, Ordering::Relaxed);
        }
        outgrown
    }

    /// Looks how much room there is while there is so much data, and so much of that in the store, and acts on it. What has changed, if something has.
    pub(super) fn look(&self, data_bytes: u64, stored_bytes: u64) -> Option<Change> {
        let place = self.place.as_ref()?;
        let target = wanted(data_bytes).min(place.reserve_bytes);
        let covers = (steps(data_bytes) + 1).saturating_mul(RESERVE_STEP) / RESERVE_PER_DATA;
        let covers = if target < place.reserve_bytes { covers } else { u64::MAX };
        self.covers.store(covers, Ordering::Relaxed);
        let free = place.free()?;
        let set_aside = place.set_aside();
        let backed = free + set_aside + place.spare_pages(free, stored_bytes);
        let room = backed.saturating_sub(place.reserve_bytes);
        let was_short = self.short.load(Ordering::Relaxed);
        let is_short = room < place.low_bytes * if was_short { 2 } else { 1 };
        if !(was_short && is_short) {
            self.occupied.store(place.occupied(), Ordering::Relaxed);
        }
        if is_short {
            place.give_up_reserve();
        } else if set_aside < target && free >= target - set_aside + place.low_bytes {
            place.set_reserve_aside(set_aside, target);
        }
        self.short.store(is_short, Ordering::Relaxed);
        match (was_short, is_short) {
            (false, true) => Some(Change::Short { room }),
            (true, false) => Some(Change::Enough { room }),
            _ => None,
        }
    }

    /// Whether there is room for what the store does, the reserve included, while there is so much data, and so much of that in the store. Beyond what it has taken since room
    /// became short it takes the less.
    pub(super) fn has_room_to_work(&self, data_bytes: u64, stored_bytes: u64) -> bool {
        self.has_room(self.work_bytes(data_bytes), stored_bytes)
    }

    fn work_bytes(&self, data_bytes: u64) -> u64 {
        let occupied = self.place.as_ref().map_or(0, Place::occupied);
        let taken = occupied.saturating_sub(self.occupied.load(Ordering::Relaxed));
        work_bytes(data_bytes).saturating_sub(taken).max(WORK_BYTES_MIN)
    }

    /// Whether there is so much room, the reserve included, which is given up for it.
    pub(super) fn has_room(&self, bytes: u64, stored_bytes: u64) -> bool {
        let Some(place) = &self.place else { return true };
        let room = || place.free().is_none_or(|free| free + place.spare_pages(free, stored_bytes) >= bytes);
        room() || (place.give_up_reserve() && room())
    }

    /// Bytes that something which can wait may write into this directory, if that is on the disk of the node: what is free beyond what puts are taken with again
    /// and beyond the reserve, set aside or not. `None`: elsewhere, where the node needs nothing, or where nothing is measured. Waits for the disk.
    pub(super) fn to_spare(&self, directory: &Path) -> Option<u64> {
        let place = self.place.as_ref()?;
        let device = |path: &Path| fs::metadata(path).ok().map(|found| found.dev());
        if device(&place.path)? != device(directory)? {
            return None;
        }
        let kept = 2 * place.low_bytes + place.reserve_bytes.saturating_sub(place.set_aside());
        Some(place.free()?.saturating_sub(kept))
    }

    /// Gives up the reserve for something that there is no room for; whether there was one.
    pub(super) fn take_reserve(&self) -> bool {
        self.place.as_ref().is_some_and(Place::give_up_reserve)
    }
}

/// What a look has found to be new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// There is too little.
    Short {
        /// Bytes beyond the reserve.
        room: u64,
    },
    /// There is enough again.
    Enough {
        /// Bytes beyond the reserve.
        room: u64,
    },
}

/// What is free for everybody, and what there is in all, in bytes; nothing where the filesystem does not tell.
fn measure(path: &Path) -> Option<(u64, u64)> {
    let found = statvfs(path).ok()?;
    let total = found.f_blocks.saturating_mul(found.f_frsize);
    (total > 0).then(|| (found.f_bavail.saturating_mul(found.f_frsize), total))
}

impl Place {
    fn of(path: &Path) -> Option<Self> {
        let (_, total) = measure(path)?;
        Some(Self {
            path: path.to_owned(),
            reserve_bytes: DISK_RESERVE_BYTES.min(total / SHARE),
            low_bytes: DISK_LOW_BYTES,
            unsupported: AtomicBool::new(false),
        })
    }

    fn free(&self) -> Option<u64> {
        measure(&self.path).map(|(free, _)| free)
    }

    /// What the store's file occupies and its data does not need. It is no room while there is a hole in the file that is larger than what is free: the
    /// store may put pages there before it uses others again.
    fn spare_pages(&self, free: u64, stored_bytes: u64) -> u64 {
        let Ok(found) = fs::metadata(self.path.join(STORE_NAME)) else { return 0 };
        let occupied = found.blocks() * BLOCK_BYTES;
        if found.len().saturating_sub(occupied) > free {
            return 0;
        }
        occupied.saturating_sub(stored_bytes.saturating_mul(PAGES_PER_DATA))
    }

    fn occupied(&self) -> u64 {
        fs::metadata(self.path.join(STORE_NAME)).map_or(0, |found| found.blocks() * BLOCK_BYTES)
    }

    fn reserve(&self) -> PathBuf {
        self.path.join(RESERVE_NAME)
    }

    fn give_up_reserve(&self) -> bool {
        fs::remove_file(self.reserve()).is_ok()
    }

    fn set_aside(&self) -> u64 {
        fs::metadata(self.reserve()).map_or(0, |found| found.len())
    }

    /// Makes the reserve larger. A crash on the way leaves a shorter file, which is made longer.
    fn set_reserve_aside(&self, from: u64, to: u64) {
        if self.unsupported.load(Ordering::Relaxed) {
            return;
        }
        let open = || -> io::Result<File> {
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(self.reserve())
        };
        let set_aside = |file: &File| {
            Ok(fallocate(file, FallocateFlags::empty(), 0, to).inspect_err(|_| drop(file.set_len(from)))?)
        };
        if let Err(error) = open().and_then(|file| set_aside(&file)) {
            // Written full of zeros it would wear out the flash that it is to serve.
            self.unsupported.store(error.kind() != io::ErrorKind::StorageFull, Ordering::Relaxed);
            if from == 0 {
                self.give_up_reserve();
            }
            tracing::debug!(%error, "no room can be set aside on this filesystem");
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ids::{LeaseId, Revision, VersionId};
    use crate::runtime::files::RealDirectory;
    use crate::store::{self, ChangeKind, FoldBatch, Meta, Store, StoreOptions};

    fn place(path: &Path, reserve_bytes: u64, low_bytes: u64) -> Space {
        let unsupported = AtomicBool::new(false);
        let place = Place { path: path.to_owned(), reserve_bytes, low_bytes, unsupported };
        Space { place: Some(place), ..Space::default() }
    }

    #[test]
    fn the_reserve_is_set_aside_and_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = dir.path().join(RESERVE_NAME);
        let space = place(dir.path(), 1 << 20, 1 << 20);
        assert_eq!(space.look(0, 0), None);
        let found = fs::metadata(&reserve).unwrap();
        assert_eq!(found.len(), 1 << 20);
        assert!(found.blocks() * BLOCK_BYTES >= 1 << 20, "it takes room");
        assert!(space.has_room(1 << 20, 0) && reserve.exists(), "nobody needs it");
        assert!(!space.has_room(u64::MAX, 0) && !reserve.exists());
        assert!(!space.take_reserve(), "there is only one");

        // A run before this one has died while it was set aside.
        fs::write(&reserve, b"").unwrap();
        space.look(0, 0);
        assert_eq!(fs::metadata(&reserve).unwrap().len(), 1 << 20);
        assert!(space.take_reserve());
    }

    #[test]
    fn the_reserve_grows_with_the_data() {
        let dir = tempfile::tempdir().unwrap();
        let space = place(dir.path(), DISK_RESERVE_BYTES, 1);
        let set_aside = || space.place.as_ref().unwrap().set_aside();
        let third = RESERVE_STEP / 3;
        space.look(0, 0);
        assert_eq!(set_aside(), DISK_RESERVE_BYTES_MIN);
        assert!(!space.is_outgrown(third));
        assert!(space.is_outgrown(third + 1) && !space.is_outgrown(u64::MAX), "it is said once");
        space.look(third + 1, 0);
        assert_eq!(set_aside(), DISK_RESERVE_BYTES_MIN + RESERVE_STEP);
        assert!(!space.is_outgrown(2 * third) && space.is_outgrown(2 * third + 1));
        space.look(u64::MAX, 0);
        assert_eq!(set_aside(), DISK_RESERVE_BYTES);
        assert!(!space.is_outgrown(u64::MAX), "that is all of it");
        space.look(0, 0);
        assert_eq!(set_aside(), DISK_RESERVE_BYTES, "it does not shrink");
        assert!(!Space::default().is_outgrown(1), "nothing is measured");
    }

    #[test]
    fn a_reserve_that_cannot_grow_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let space = place(dir.path(), DISK_RESERVE_BYTES, 1);
        let place = space.place.as_ref().unwrap();
        space.look(0, 0);
        place.set_reserve_aside(DISK_RESERVE_BYTES_MIN, u64::MAX / 4);
        assert_eq!(place.set_aside(), DISK_RESERVE_BYTES_MIN);
        assert!(place.give_up_reserve());
        place.unsupported.store(false, Ordering::Relaxed);
        place.set_reserve_aside(0, u64::MAX / 4);
        assert!(!place.give_up_reserve(), "what is empty is removed");
    }

    #[test]
    fn puts_leave_the_whole_reserve_however_much_of_it_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let (free, _) = measure(dir.path()).unwrap();
        let space = place(dir.path(), free / 4 * 3, free / 3);
        assert!(matches!(space.look(0, 0), Some(Change::Short { room }) if room <= free / 4 + free / 16));
        assert_eq!((space.look(0, 0), space.is_short()), (None, true), "what is given up is not for puts");
    }

    #[test]
    fn room_is_short_until_there_is_clearly_enough() {
        let dir = tempfile::tempdir().unwrap();
        let (free, _) = measure(dir.path()).unwrap();
        // Others write to this disk while the test runs: the numbers leave them room.
        let slack = free / 16;
        let (low, high) = (place(dir.path(), 1, free / 2 - slack), place(dir.path(), 1, free + slack));
        assert_eq!((low.look(0, 0), low.is_short()), (None, false));
        fs::write(dir.path().join(RESERVE_NAME), b"").unwrap();
        assert!(matches!(high.look(0, 0), Some(Change::Short { .. })));
        assert!(high.is_short() && !dir.path().join(RESERVE_NAME).exists());
        assert_eq!(high.look(0, 0), None, "it is told once");

        let between = place(dir.path(), 1, free / 2 + slack);
        assert_eq!(between.look(0, 0), None);
        between.short.store(true, Ordering::Relaxed);
        assert_eq!((between.look(0, 0), between.is_short()), (None, true), "a little more than too little");
        low.short.store(true, Ordering::Relaxed);
        assert!(matches!(low.look(0, 0), Some(Change::Enough { .. })) && !low.is_short());
        low.set_log_waits(true);
        assert_eq!(
            (low.look(0, 0), low.is_short()),
            (None, true),
            "pages of the store are none of the log's"
        );
        low.set_log_waits(false);
        assert!(!low.is_short());
    }

    #[test]
    fn what_can_wait_leaves_the_node_its_room_and_its_reserve() {
        let dir = tempfile::tempdir().unwrap();
        let (free, _) = measure(dir.path()).unwrap();
        let slack = free / 16;
        let within = |space: Space, expected: u64| {
            let spare = space.to_spare(dir.path()).unwrap();
            assert!(spare.abs_diff(expected) <= slack, "{spare}, not {expected}");
        };
        within(place(dir.path(), 0, free / 4), free / 2);
        within(place(dir.path(), free / 4, free / 8), free / 2);
        within(place(dir.path(), free / 2, free / 2), 0);
        // What is set aside is not free any more. Here it is a hole, which takes no room.
        File::create(dir.path().join(RESERVE_NAME)).unwrap().set_len(free / 4).unwrap();
        within(place(dir.path(), free / 4, free / 8), free * 3 / 4);
        let elsewhere = Path::new("/proc");
        assert_eq!(place(dir.path(), 0, free).to_spare(elsewhere), None, "another disk");
        assert_eq!(place(dir.path(), 0, free).to_spare(&dir.path().join("missing")), None);
        assert_eq!(Space::default().to_spare(dir.path()), None);
    }

    #[test]
    fn what_the_store_has_taken_since_room_became_short_it_needs_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let (free, _) = measure(dir.path()).unwrap();
        let data_bytes = 3 << 20;
        let store = File::create(dir.path().join(STORE_NAME)).unwrap();
        let space = place(dir.path(), free, 1 << 40);
        assert!(space.look(data_bytes, data_bytes).is_some() && space.is_short());
        let whole = work_bytes(data_bytes);
        assert_eq!(space.work_bytes(data_bytes), whole);
        fallocate(&store, FallocateFlags::empty(), 0, 1 << 20).unwrap();
        space.look(data_bytes, data_bytes);
        assert_eq!(space.work_bytes(data_bytes), whole - (1 << 20));
        fallocate(&store, FallocateFlags::empty(), 0, 1 << 24).unwrap();
        assert_eq!(space.work_bytes(data_bytes), WORK_BYTES_MIN);
        space.short.store(false, Ordering::Relaxed);
        space.look(data_bytes, data_bytes);
        assert_eq!(space.work_bytes(data_bytes), whole, "it is another shortage");
    }

    #[test]
    fn pages_that_the_store_has_beyond_its_data_are_room() {
        let dir = tempfile::tempdir().unwrap();
        let space = place(dir.path(), 1, 1);
        let spare = |free, data| space.place.as_ref().unwrap().spare_pages(free, data);
        assert_eq!(spare(1 << 30, 0), 0, "no store yet");
        let store = File::create(dir.path().join(STORE_NAME)).unwrap();
        fallocate(&store, FallocateFlags::empty(), 0, 1 << 20).unwrap();
        store.set_len(1 << 30).unwrap();
        let all = [0, 1 << 18, 1 << 19, 1 << 30].map(|data| spare(1 << 30, data));
        assert_eq!(all, [1 << 20, 1 << 19, 0, 0]);
        let hole = (1 << 30) - (1 << 20);
        assert_eq!((spare(hole, 0), spare(hole - 1, 0)), (1 << 20, 0), "the hole may be filled first");
    }

    #[test]
    fn it_is_looked_at_once_in_a_while_and_not_at_all_where_nothing_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::of(dir.path());
        let at = |millis| Instant::default() + Duration::from_millis(millis);
        assert!(!space.wants_look(at(99)));
        assert!(space.wants_look(at(100)) && !space.wants_look(at(100)) && !space.wants_look(at(199)));
        assert!(space.wants_look(at(200)));
        assert!(!Space::default().wants_look(at(1 << 20)) && Space::default().has_room(u64::MAX, 0));
        assert!(!Space::of(&dir.path().join("missing")).is_short());
    }

    /// A file, and what it occupies.
    fn store_in(path: &Path) -> (Store, impl Fn() -> u64) {
        let mut store =
            Store::open_in(&RealDirectory::open(path).unwrap(), STORE_NAME, StoreOptions::default()).unwrap();
        store.initialise(&Meta { revision: Revision(1), ..Meta::default() }).unwrap();
        let file = path.join(STORE_NAME);
        (store, move || fs::metadata(&file).unwrap().blocks() * BLOCK_BYTES)
    }

    /// The reserve for so much data is enough to delete all of them and to have them removed. Long keys without values are the worst.
    #[test]
    fn what_a_deletion_of_all_data_takes_is_set_aside() {
        for (keys, key_bytes) in [(1500, 20), (600, 1000)] {
            let dir = tempfile::tempdir().unwrap();
            let (mut store, occupied) = store_in(dir.path());
            let fold = |store: &mut Store, kind: ChangeKind| {
                let meta = store.meta().clone();
                let main = meta.revision.next();
                let change = |n: u32| {
                    let key = Bytes::from(format!("{:0key_bytes$}", n.wrapping_mul(0x9e37_79b9)));
                    (VersionId { main, sub: n }, store::Change { key, kind: kind.clone() })
                };
                let meta = Meta { applied: meta.applied.next(), revision: main, ..meta };
                let changes = (0..keys).map(change).collect();
                store.fold(&FoldBatch { changes, leases: Vec::new(), sweep: None, meta }).unwrap();
            };
            let put = ChangeKind::Put {
                value: Bytes::new(),
                create_revision: Revision(2),
                version: 1,
                lease: LeaseId::NONE,
            };
            fold(&mut store, put);
            let (before, data_bytes) = (occupied(), store.bytes_in_use());
            fold(&mut store, ChangeKind::Delete);
            let meta = store.meta().clone();
            let meta = Meta {
                applied: meta.applied.next(),
                revision: meta.revision.next(),
                compacted: meta.revision.next(),
                ever_compacted: true,
                ..meta
            };
            store.fold(&FoldBatch { meta, ..FoldBatch::default() }).unwrap();
            let mut most = occupied();
            while !store.compact_slice(1000).unwrap().finished {
                most = most.max(occupied());
            }
            assert!(store.bytes_in_use() < data_bytes / 100);
            let (took, bound) = (most - before, work_bytes(data_bytes));
            assert!(bound < FOLD_ROOM_BYTES && took <= bound, "{took} of {bound} for {data_bytes}");
            assert!(WAL_SEGMENT_BYTES + bound < wanted(data_bytes), "the log has its part beside it");
        }
    }
}
