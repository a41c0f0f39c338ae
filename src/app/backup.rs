//! Images of the state that a node writes by itself, now and then, into a directory of the operator's.
//!
//! Owns: when, under which names, and which old ones go. Must never: give a name to what is not whole and durable, remove an old one before there is another, or write where
//! nothing has changed. Driven by `serve`.
//!
//! ```text
//! DIR/covey-00000012-r4711.snapshot   the twelfth, of revision 4711: what `covey snapshot restore` takes
//! DIR/covey.part                      one that is being written, or was when a crash came
//!
//! part written ─► synced ─► renamed ─► directory synced ─► the oldest removed
//! ```
//!
//! A crash leaves a part, which the next one begins anew, or one more than are kept. Which of two is newer their numbers say, and no time: clocks may be
//! wrong. The interval is time in which the node ran. A box that is turned on for shorter than that has one all the same, a while after each start, if anything was written since the last.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use smol::Timer;

use super::chain;
use super::image_file::ImageFile;
use crate::auth::Auth;
use crate::config::BackupConfig;
use crate::ids::{AuthRevision, Revision};
use crate::mvcc::View;
use crate::runtime::{Handle, HoldError};
use crate::snapshot::{ImageWriter, Record, WriteError};
use crate::store::StoreError;

/// How long after its start a node looks at the latest whether there is something to back up.
const FIRST_AFTER: Duration = Duration::from_mins(10);
/// Bytes that are read and written at a time; others have their turns in between.
const SLICE_BYTES: usize = 256 * 1024;
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
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io { action, path, source }
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
pub(super) async fn back_up(config: Option<BackupConfig>, handle: &Handle) {
    let Some(config) = config else { return };
    let mut rest = config.interval.min(FIRST_AFTER);
    loop {
        Timer::after(rest).await;
        rest = config.interval;
        if let Err(error) = back_up_once(&config, handle).await {
            tracing::error!(error = %chain(&error), "there is no new backup");
        }
    }
}

async fn back_up_once(config: &BackupConfig, handle: &Handle) -> Result<(), BackupError> {
    let mark = Mark::of_view(&handle.view());
    if !handle.has_state() || mark.is_of_nothing() {
        return Ok(());
    }
    let directory = config.directory.clone();
    let number = handle.blocking(move || next_number(&directory, mark)).await?;
    let Some(number) = number else { return Ok(()) };
    let hold = handle.hold_removal().await.map_err(HoldError::from)?;
    let (view, directory) = (hold.view(handle)?, config.directory.clone());
    let mut image = handle.blocking(move || Image::begin(&directory, &view)).await?;
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
    tracing::info!(file = %path.display(), bytes, revision, "a backup was written");
    Ok(())
}

/// The number of the next one; none where the last one has all that there is.
fn next_number(directory: &Path, mark: Mark) -> Result<Option<u64>, BackupError> {
    let Some(last) = list(directory)?.pop() else { return Ok(Some(1)) };
    let is_known = Mark::of_file(&directory.join(last.text())) == Some(mark);
    Ok((!is_known).then_some(last.number + 1))
}

/// One that is being written. Without its name it is removed again.
struct Image {
    directory: PathBuf,
    part: Part,
    writer: ImageWriter,
}

/// Its file, which goes unless it was given a name.
struct Part {
    path: PathBuf,
    file: File,
    named: bool,
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
        Ok(Self { file: file.map_err(failed("create", &path))?, path, named: false, _lock: lock })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.file.write_all(bytes).map_err(failed("write", &self.path))
    }
}

impl Image {
    fn begin(directory: &Path, view: &View) -> Result<Self, BackupError> {
        let writer = ImageWriter::start(view)?;
        Ok(Self { directory: directory.to_owned(), part: Part::create(directory)?, writer })
    }

    /// Writes the next part; whether there is more.
    fn write_slice(&mut self, view: &View) -> Result<bool, BackupError> {
        match self.writer.next_slice(view, SLICE_BYTES)? {
            Some(slice) => self.part.write(&slice).map(|()| true),
            None => Ok(false),
        }
    }

    /// Gives it its name, and removes those that are no longer kept; its path, its size and its revision.
    fn finish(self, number: u64, keep: usize) -> Result<(PathBuf, u64, i64), BackupError> {
        let Self { directory, mut part, writer } = self;
        let (revision, image_bytes) = (writer.revision().0, writer.total_bytes());
        let hash = writer.hash()?;
        part.write(&hash)?;
        let path = directory.join(Name { number, revision }.text());
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
    use super::*;

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
