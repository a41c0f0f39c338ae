//! The room on the disk that the data directory is on, and a reserve for when there is none.
//!
//! Owns: the file `reserve`, and whether room counts as short. Must never: fail because of what it cannot measure or set aside, or be asked by a
//! thread that serves clients. Looked after by the checkpoint thread; the wal thread takes the reserve when it needs it at once.
//!
//! ```text
//! room    = what the filesystem has free + what the store's file occupies beyond twice the data (its pages are used again)
//! short     once there is less than LOW: puts are refused, and the reserve is given up, so that what is on its way, deletions and
//!           compactions have it
//! enough    once there is twice as much again; the reserve is set aside anew when the filesystem itself has room for it
//! ```
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
use crate::limits::{DISK_LOW_BYTES, DISK_RESERVE_BYTES};
use crate::time::Instant;

/// The file of the reserve. It has nothing in it.
pub const RESERVE_NAME: &str = "reserve";
/// Small disks have a smaller reserve: one part in this many. What has to be left for what is on its way is the same on every disk.
const SHARE: u64 = 16;
/// Pages are not full, and large values take a power of two: data may occupy as many times its bytes in the store's file.
const PAGES_PER_DATA: u64 = 2;
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
}

#[derive(Debug)]
struct Place {
    path: PathBuf,
    reserve_bytes: u64,
    low_bytes: u64,
    /// The filesystem cannot set room aside.
    unsupported: AtomicBool,
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

    /// Looks how much room there is while the store has so much data, and acts on it. What has changed, if something has.
    pub(super) fn look(&self, data_bytes: u64) -> Option<Change> {
        let place = self.place.as_ref()?;
        let free = place.free()?;
        let room = free + place.spare_pages(free, data_bytes);
        let was_short = self.short.load(Ordering::Relaxed);
        let is_short = room < place.low_bytes * if was_short { 2 } else { 1 };
        if is_short {
            place.give_up_reserve();
        } else if free >= place.reserve_bytes + place.low_bytes {
            place.set_reserve_aside();
        }
        self.short.store(is_short, Ordering::Relaxed);
        match (was_short, is_short) {
            (false, true) => Some(Change::Short { room }),
            (true, false) => Some(Change::Enough { room }),
            _ => None,
        }
    }

    /// Whether there is so much room, the reserve included, which is given up for it.
    pub(super) fn has_room(&self, bytes: u64, data_bytes: u64) -> bool {
        let Some(place) = &self.place else { return true };
        let room = || place.free().is_none_or(|free| free + place.spare_pages(free, data_bytes) >= bytes);
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
        let set_aside = fs::metadata(place.reserve()).map_or(0, |found| found.len());
        let kept = 2 * place.low_bytes + place.reserve_bytes.saturating_sub(set_aside);
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
        /// Bytes.
        room: u64,
    },
    /// There is enough again.
    Enough {
        /// Bytes.
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
    fn spare_pages(&self, free: u64, data_bytes: u64) -> u64 {
        let Ok(found) = fs::metadata(self.path.join(STORE_NAME)) else { return 0 };
        let occupied = found.blocks() * BLOCK_BYTES;
        if found.len().saturating_sub(occupied) > free {
            return 0;
        }
        occupied.saturating_sub(data_bytes.saturating_mul(PAGES_PER_DATA))
    }

    fn reserve(&self) -> PathBuf {
        self.path.join(RESERVE_NAME)
    }

    fn give_up_reserve(&self) -> bool {
        fs::remove_file(self.reserve()).is_ok()
    }

    /// A crash on the way leaves a shorter file, which is made longer.
    fn set_reserve_aside(&self) {
        if self.unsupported.load(Ordering::Relaxed)
            || fs::metadata(self.reserve()).is_ok_and(|found| found.len() >= self.reserve_bytes)
        {
            return;
        }
        let set_aside = || -> io::Result<()> {
            let file: File = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(self.reserve())?;
            fallocate(&file, FallocateFlags::empty(), 0, self.reserve_bytes)?;
            Ok(())
        };
        if let Err(error) = set_aside() {
            // Written full of zeros it would wear out the flash that it is to serve.
            self.unsupported.store(error.kind() != io::ErrorKind::StorageFull, Ordering::Relaxed);
            self.give_up_reserve();
            tracing::debug!(%error, "no room can be set aside on this filesystem");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(space.look(0), None);
        let found = fs::metadata(&reserve).unwrap();
        assert_eq!(found.len(), 1 << 20);
        assert!(found.blocks() * BLOCK_BYTES >= 1 << 20, "it takes room");
        assert!(space.has_room(1 << 20, 0) && reserve.exists(), "nobody needs it");
        assert!(!space.has_room(u64::MAX, 0) && !reserve.exists());
        assert!(!space.take_reserve(), "there is only one");

        // A run before this one has died while it was set aside.
        fs::write(&reserve, b"").unwrap();
        space.look(0);
        assert_eq!(fs::metadata(&reserve).unwrap().len(), 1 << 20);
        assert!(space.take_reserve());
    }

    #[test]
    fn room_is_short_until_there_is_clearly_enough() {
        let dir = tempfile::tempdir().unwrap();
        let (free, _) = measure(dir.path()).unwrap();
        // Others write to this disk while the test runs: the numbers leave them room.
        let slack = free / 16;
        let (low, high) = (place(dir.path(), 1, free / 2 - slack), place(dir.path(), 1, free + slack));
        assert_eq!((low.look(0), low.is_short()), (None, false));
        fs::write(dir.path().join(RESERVE_NAME), b"").unwrap();
        assert!(matches!(high.look(0), Some(Change::Short { .. })));
        assert!(high.is_short() && !dir.path().join(RESERVE_NAME).exists());
        assert_eq!(high.look(0), None, "it is told once");

        let between = place(dir.path(), 1, free / 2 + slack);
        assert_eq!(between.look(0), None);
        between.short.store(true, Ordering::Relaxed);
        assert_eq!((between.look(0), between.is_short()), (None, true), "a little more than too little");
        low.short.store(true, Ordering::Relaxed);
        assert!(matches!(low.look(0), Some(Change::Enough { .. })) && !low.is_short());
        low.set_log_waits(true);
        assert_eq!((low.look(0), low.is_short()), (None, true), "pages of the store are none of the log's");
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
}
