//! Images of the state that a node writes by itself, now and then, into a directory of the operator's.
//!
//! Owns: when, under which names, which old ones go, and what has come of it so far. Must never: give a name to what is not whole and durable, remove an old one before there is
//! another, write where nothing has changed, or take room that the node itself may need. Driven by `serve`.
//!
//! ```text
//! DIR/covey-00000012-r4711.snapshot   the twelfth, of revision 4711: what `covey snapshot restore` takes
//! DIR/covey.part                      one that is being written, or was when a crash came
//!
//! part written, synced piece by piece ─► renamed ─► directory synced ─► the oldest removed
//! ```
//!
//! On the disk of the node itself there is no new one where that would leave less than puts are taken with, and the reserve for deletions (`runtime::space`): it is not begun, and
//! given up where somebody else fills the disk meanwhile. The others stay, for each is worth more than one that would come instead.
//!
//! A crash leaves a part, which the next one begins anew, or one more than are kept. Which of two is newer their numbers say, and no time: clocks may be
//! wrong. The interval is time in which the node ran. A box that is turned on for shorter than that has one all the same, a while after each start, if anything was written since the last.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use smol::Timer;

use super::chain;
use super::image_file::ImageFile;
use crate::api::BackupsMade;
use crate::auth::Auth;
use crate::config::BackupConfig;
use crate::ids::{AuthRevision, Revision};
use crate::mvcc::View;
use crate::runtime::clock::Clock;
use crate::runtime::{Handle, HoldError};
use crate::snapshot::{HASH_BYTES, ImageWriter, Record, WriteError};
use crate::store::StoreError;
use crate::time::Instant;

/// How long after its start a node looks at the latest whether there is something to back up.
const FIRST_AFTER: Duration = Duration::from_mins(10);
/// Bytes that are read and written at a time; others have their turns in between.
const SLICE_BYTES: usize = 256 * 1024;
/// Bytes after which the disk is waited for: a sync of all at once would keep the log's waiting behind it.
const SYNC_BYTES: usize = 4 * 1024 * 1024;
/// It holds everything that there is.
const FILE_MODE: u32 = 0o600;
/// There are numbers enough for all time, and one after each.
const NUMBER_MAX: u64 = 1 << 48;
const PART: &str = "covey.part";
const PREFIX: &str = "covey-";
const SUFFIX: &str = ".snapshot";

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
enum BackupError {
    /// The operating system said no.
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The state cannot be read to its end.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was read is not what was counted.
    #[error(transparent)]
    Image(#[from] WriteError),
    /// The disk of the node has too little room.
    #[error(
        "{} has no room for it: {needed} bytes are needed, and of what is free all but {spare} are kept for the node itself",
        path.display()
    )]
    NoRoom { path: PathBuf, needed: u64, spare: u64 },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io { action, path, source }
}

/// What has come of backups in this run, for whoever asks how the node stands.
#[derive(Debug, Default)]
pub(super) struct Backups(Mutex<Outcome>);

#[derive(Debug, Default)]
struct Outcome {
    /// Somebody wants some.
    scheduled: bool,
    written: u64,
    failed: u64,
    /// The revision of the last one, and when it was there.
    last: Option<(Revision, Instant)>,
    /// Why the last try has come to nothing, if it has.
    trouble: Option<String>,
}

impl Backups {
    fn note(&self, change: impl FnOnce(&mut Outcome)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Nothing where nobody wants any, nor did in this run.
    pub(super) fn made(&self, now: Instant) -> Option<BackupsMade> {
        let outcome = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Outcome { scheduled, written, failed, last, ref trouble } = *outcome;
        (scheduled || written + failed > 0).then(|| BackupsMade {
            written,
            failed,
            last: last.map(|(revision, at)| (revision, now.since(at))),
            trouble: trouble.clone(),
        })
    }
}

/// What a backup is of. Leases alone are no reason for another one: they come with the keys that are attached to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    revision: Revision,
    users: AuthRevision,
}

impl Mark {
    fn of(revision: Revision, auth: &Auth) -> Self {
        Self { revision, users: auth.revision }
    }

    fn of_view(view: &View) -> Self {
        Self::of(view.revision(), &view.facts().auth)
    }

    /// Whether nobody has written anything yet.
    fn is_of_nothing(self) -> bool {
        self == Self::of(Revision(1), &Auth::default())
    }

    /// What a file is of, by its first record; nothing where it cannot be read.
    fn of_file(path: &Path) -> Option<Self> {
        let mut file = ImageFile::open(path).ok()?;
        match file.records().ok()?.next()?.ok()? {
            Record::Facts(facts) => Some(Self::of(facts.revision, &facts.auth)),
            Record::Lease(..) | Record::Change(..) | Record::End { .. } => None,
        }
    }
}

/// A backup by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    number: u64,
    revision: i64,
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        let (number, revision) = text.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split_once("-r")?;
        let name = Self { number: number.parse().ok()?, revision: revision.parse().ok()? };
        // Not what merely looks like one: it would be removed in its turn.
        (name.text() == text && name.number <= NUMBER_MAX).then_some(name)
    }

    fn text(self) -> String {
        let Self { number, revision } = self;
        format!("{PREFIX}{number:08}-r{revision}{SUFFIX}")
    }
}

/// Those that are there, oldest first.
fn list(directory: &Path) -> Result<Vec<Name>, BackupError> {
    let entries = fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(failed("read", directory))?;
    let is_file = |entry: &&fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
    let files = entries.iter().filter(is_file);
    let mut names: Vec<Name> = files.filter_map(|entry| Name::parse(entry.file_name().to_str()?)).collect();
    names.sort_unstable();
    Ok(names)
}

/// Backs up as the settings say, for ever.
pub(super) async fn back_up(config: Option<BackupConfig>, handle: &Handle, clock: Clock, backups: &Backups) {
    // What has gone wrong by other settings is of no interest any more.
    backups.note(|outcome| (outcome.scheduled, outcome.trouble) = (config.is_some(), None));
    let Some(config) = config else { return };
    let mut rest = config.interval.min(FIRST_AFTER);
    loop {
        Timer::after(rest).await;
        rest = config.interval;
        match back_up_once(&config, handle).await {
            Ok(made) => backups.note(|outcome| {
                outcome.trouble = None;
                if let Some(revision) = made {
                    outcome.written += 1;
                    outcome.last = Some((revision, clock.now()));
                }
            }),
            Err(error) => {
                let why = chain(&error);
                tracing::error!(error = %why, "there is no new backup");
                backups.note(|outcome| {
                    outcome.failed += 1;
                    outcome.trouble = Some(why);
                });
            }
        }
    }
}

/// The revision of the new one; nothing where the last one has all that there is.
async fn back_up_once(config: &BackupConfig, handle: &Handle) -> Result<Option<Revision>, BackupError> {
    let mark = Mark::of_view(&handle.view());
    if !handle.has_state() || mark.is_of_nothing() {
        return Ok(None);
    }
    let directory = config.directory.clone();
    let number = handle.blocking(move || next_number(&directory, mark)).await?;
    let Some(number) = number else { return Ok(None) };
    let hold = handle.hold_removal().await.map_err(HoldError::from)?;
    let (view, directory, asked) = (hold.view(handle)?, config.directory.clone(), handle.clone());
    let room = Room(Box::new(move |directory| asked.to_spare(directory)));
    let mut image = handle.blocking(move || Image::begin(&directory, &view, room)).await?;
    loop {
        let view = hold.view(handle)?;
        let slice = handle.blocking(move || image.write_slice(&view).map(|left| (image, left))).await?;
        image = slice.0;
        if !slice.1 {
            break;
        }
    }
    drop(hold);
    let keep = config.keep;
    let (path, bytes, revision) = handle.blocking(move || image.finish(number, keep)).await?;
    tracing::info!(file = %path.display(), bytes, %revision, "a backup was written");
    Ok(Some(revision))
}

/// The number of the next one; none where the last one has all that there is.
fn next_number(directory: &Path, mark: Mark) -> Result<Option<u64>, BackupError> {
    let Some(last) = list(directory)?.pop() else { return Ok(Some(1)) };
    let is_known = Mark::of_file(&directory.join(last.text())) == Some(mark);
    Ok((!is_known).then_some(last.number + 1))
}

/// How many bytes may be written into a directory; `None` where it does not matter.
struct Room(Box<Spare>);

type Spare = dyn Fn(&Path) -> Option<u64> + Send;

impl Room {
    /// Refuses to write more than there is room for.
    fn check(&self, directory: &Path, needed: u64) -> Result<(), BackupError> {
        match (self.0)(directory) {
            Some(spare) if spare < needed => {
                Err(BackupError::NoRoom { path: directory.to_owned(), needed, spare })
            }
            _ => Ok(()),
        }
    }
}

/// One that is being written. Without its name it is removed again.
struct Image {
    directory: PathBuf,
    part: Part,
    writer: ImageWriter,
    room: Room,
}

/// Its file, which goes unless it was given a name.
struct Part {
    path: PathBuf,
    file: File,
    named: bool,
    /// Bytes that no sync has covered.
    unsynced: usize,
    /// Nobody else writes one there meanwhile: not another server, nor a turn of this one that was given up and is not over.
    _lock: File,
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.named {
            // The next one removes it otherwise.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Part {
    /// A file of its own, in a directory that is locked for it.
    fn create(directory: &Path) -> Result<Self, BackupError> {
        let lock = File::open(directory).map_err(failed("open", directory))?;
        lock.try_lock().map_err(io::Error::from).map_err(failed("lock", directory))?;
        let path = directory.join(PART);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &path)(error));
            }
            _ => {}
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(FILE_MODE).open(&path);
        let file = file.map_err(failed("create", &path))?;
        Ok(Self { file, path, named: false, unsynced: 0, _lock: lock })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.file.write_all(bytes).map_err(failed("write", &self.path))?;
        self.unsynced += bytes.len();
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            self.file.sync_data().map_err(failed("sync", &self.path))?;
        }
        Ok(())
    }
}

impl Image {
    fn begin(directory: &Path, view: &View, room: Room) -> Result<Self, BackupError> {
        let writer = ImageWriter::start(view)?;
        // First, since a part that was left takes room.
        let part = Part::create(directory)?;
        room.check(directory, writer.total_bytes() + HASH_BYTES as u64)?;
        Ok(Self { directory: directory.to_owned(), part, writer, room })
    }

    /// Writes the next part; whether there is more.
    fn write_slice(&mut self, view: &View) -> Result<bool, BackupError> {
        let Some(slice) = self.writer.next_slice(view, SLICE_BYTES)? else { return Ok(false) };
        // Whoever else writes to the disk counts on nobody.
        self.room.check(&self.directory, slice.len() as u64)?;
        self.part.write(&slice)?;
        Ok(true)
    }

    /// Gives it its name, and removes those that are no longer kept; its path, its size and its revision.
    fn finish(self, number: u64, keep: usize) -> Result<(PathBuf, u64, Revision), BackupError> {
        let Self { directory, mut part, writer, .. } = self;
        let (revision, image_bytes) = (writer.revision(), writer.total_bytes());
        let hash = writer.hash()?;
        part.write(&hash)?;
        let path = directory.join(Name { number, revision: revision.0 }.text());
        // On the disk before its name is: what has a name is whole.
        part.file.sync_all().map_err(failed("sync", &part.path))?;
        fs::rename(&part.path, &path).map_err(failed("rename", &part.path))?;
        part.named = true;
        // A power cut could still take the name: the older ones stay until then.
        let synced = File::open(&directory).and_then(|directory| directory.sync_all());
        synced.map_err(failed("sync", &directory))?;
        let mut names = list(&directory)?;
        names.truncate(names.len().saturating_sub(keep));
        for name in names {
            let old = directory.join(name.text());
            // It is tried again with the next one, and the others go all the same.
            if let Err(error) = fs::remove_file(&old) {
                tracing::warn!(file = %old.display(), %error, "an old backup cannot be removed");
            }
        }
        Ok((path, image_bytes + hash.len() as u64, revision))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::machine::rig::Rig;

    #[test]
    fn names_are_ordered_by_number_and_no_other_file_is_taken_for_one() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "covey-00000009-r7.snapshot",
            "covey-00000010-r5.snapshot",
            "covey-100000000-r9.snapshot",
            "covey-9-r7.snapshot",
            "covey-00000011-r+5.snapshot",
            "covey-00000012.snapshot",
            "covey-00000013-r5.snapshot.old",
            "covey-18446744073709551615-r5.snapshot",
            PART,
            "saved",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::create_dir(dir.path().join("covey-00000014-r5.snapshot")).unwrap();
        let name = |number, revision| Name { number, revision };
        assert_eq!(list(dir.path()).unwrap(), [name(9, 7), name(10, 5), name(100_000_000, 9)]);
        let mark = Mark { revision: Revision(9), users: Auth::default().revision };
        assert_eq!(next_number(dir.path(), mark).unwrap(), Some(100_000_001), "the last one is no image");
        assert!(list(&dir.path().join("missing")).is_err());
    }

    /// A view of so many kilobytes.
    fn view(kilobytes: usize) -> View {
        let mut rig = Rig::new();
        for n in 0..kilobytes.div_ceil(64) {
            rig.put(&format!("key{n}"), &"v".repeat(64 * 1024));
        }
        rig.view()
    }

    fn names(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect()
    }

    #[test]
    fn what_has_no_room_is_not_begun_and_what_loses_its_room_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let view = view(1024);
        let whole = ImageWriter::start(&view).unwrap().total_bytes() + HASH_BYTES as u64;
        let short = Room(Box::new(move |_| Some(whole - 1)));
        fs::write(dir.path().join(PART), "of a run before").unwrap();
        let refused = Image::begin(dir.path(), &view, short).err().unwrap();
        assert!(
            matches!(refused, BackupError::NoRoom { needed, spare, .. } if (needed, spare) == (whole, whole - 1)),
            "{refused}"
        );
        assert!(names(dir.path()).is_empty(), "what was left of another one takes room");

        let asked = AtomicU64::new(0);
        let others_write = move |_: &Path| match asked.fetch_add(1, Ordering::Relaxed) {
            0..3 => Some(whole),
            _ => Some(1),
        };
        let mut image = Image::begin(dir.path(), &view, Room(Box::new(others_write))).unwrap();
        assert!(image.write_slice(&view).unwrap() && image.write_slice(&view).unwrap());
        let refused = image.write_slice(&view).unwrap_err();
        assert!(matches!(refused, BackupError::NoRoom { spare: 1, .. }), "{refused}");
        assert_eq!(names(dir.path()), [PART]);
        drop(image);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn what_is_written_is_synced_piece_by_piece_and_comes_out_whole() {
        let dir = tempfile::tempdir().unwrap();
        let view = view(9 * 1024);
        let mut image = Image::begin(dir.path(), &view, Room(Box::new(|_| None))).unwrap();
        let mut most = 0;
        while image.write_slice(&view).unwrap() {
            most = most.max(image.part.unsynced);
        }
        assert!((SYNC_BYTES - 2 * SLICE_BYTES..SYNC_BYTES).contains(&most), "{most}");
        assert!(image.part.unsynced < 2 * 1024 * 1024, "nine megabytes, the last of which is left");
        let (path, bytes, revision) = image.finish(1, 1).unwrap();
        assert_eq!((revision, bytes), (view.revision(), fs::metadata(&path).unwrap().len()));
        assert_eq!(Mark::of_file(&path), Some(Mark::of_view(&view)));
    }

    #[test]
    fn what_has_come_of_backups_is_told_while_somebody_wants_some() {
        let backups = Backups::default();
        let at = |seconds| Instant::default() + Duration::from_secs(seconds);
        assert_eq!(backups.made(at(1)), None);
        backups.note(|outcome| outcome.scheduled = true);
        assert_eq!(backups.made(at(1)), Some(BackupsMade::default()));
        backups.note(|outcome| (outcome.written, outcome.last) = (1, Some((Revision(7), at(2)))));
        backups.note(|outcome| (outcome.scheduled, outcome.trouble) = (false, Some("no room".into())));
        let last = Some((Revision(7), Duration::from_secs(3)));
        let made = BackupsMade { written: 1, failed: 0, last, trouble: Some("no room".into()) };
        assert_eq!(backups.made(at(5)), Some(made));
    }

    #[test]
    fn a_part_without_a_name_goes_and_one_that_was_left_is_no_hindrance() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(PART);
        fs::write(&path, "cut off").unwrap();
        let mut part = Part::create(dir.path()).unwrap();
        part.write(b"half").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"half");
        assert!(Part::create(dir.path()).is_err(), "one at a time");
        drop(part);
        assert!(!path.exists());
    }
}
