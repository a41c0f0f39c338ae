//! `covey snapshot`: save, look at, restore.
//!
//! Owns: the file that is saved, and what is said of files. Must never: leave a file under its final name that is not whole. Driven by `run`.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ring::digest::{Context, SHA256};
use serde::Serialize;
use smol::{LocalExecutor, Timer};
use tonic::{Request, Streaming};

use super::args::{ClientSettings, Format, Parsed, UsageError};
use super::calls::{CallError, origin};
use super::progress::Progress;
use super::reach::first_reachable;
use super::simple::human_bytes;
use super::table;
use crate::app::{
    FileError, HashCheck, ImageFile, ImageSummary, RestoreError, RestoreOptions, Restored, restore,
};
use crate::config::{ValueError, boolean};
use crate::runtime::clock::Clock;
use crate::snapshot::{IMAGE_ALIGNMENT, ImageError, ImageReader, NewRevisions, REVISION_BUMP, Record};
use crate::time::Instant;
use crate::wire::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::wire::etcdserverpb::{SnapshotRequest, SnapshotResponse};

/// How long a server may be silent in the middle of a snapshot.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// A snapshot holds everything that there is.
const FILE_MODE: u32 = 0o600;
/// What the hash takes.
const HASH_BYTES: usize = 32;

/// Why a snapshot command failed; exit code 1.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// No answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// What came is not what was sent. Nothing was saved.
    #[error("the snapshot did not arrive whole: {0}")]
    NotWhole(&'static str),
    /// What came is damaged. Nothing was saved.
    #[error("the snapshot is damaged: {0}")]
    Image(#[from] ImageError),
    /// The file is of no use.
    #[error("{0}")]
    File(#[from] FileError),
    /// Nothing was restored.
    #[error("{0}")]
    Restore(#[from] RestoreError),
}

/// What to do.
#[derive(Debug)]
pub enum Job {
    /// `snapshot save`
    Save(PathBuf),
    /// `snapshot status`
    Status(PathBuf),
    /// `snapshot restore`
    Restore(RestoreOptions),
}

/// What is said when it is done.
#[derive(Debug)]
pub enum Done {
    Saved { path: PathBuf, bytes: u64, took: Duration, revision: Option<i64> },
    Examined(ImageSummary),
    Restored { options: RestoreOptions, made: Restored },
}

/// What the arguments ask for.
pub fn job(parsed: &Parsed, settings: &ClientSettings) -> Result<Job, UsageError> {
    let (name, file) = match parsed.arguments.as_slice() {
        [name, file] => (name.as_slice(), PathBuf::from(std::ffi::OsStr::from_bytes(file))),
        _ => return Err(UsageError::Arguments("snapshot needs save, status or restore, and one file")),
    };
    match name {
        b"save" if settings.endpoints.len() == 1 || settings.searches => Ok(Job::Save(file)),
        b"save" => {
            Err(UsageError::Arguments("snapshot must be requested to one selected node, not multiple"))
        }
        b"status" => Ok(Job::Status(file)),
        b"restore" => Ok(Job::Restore(restore_options(file, parsed)?)),
        _ => Err(UsageError::Arguments("snapshot can save, status and restore")),
    }
}

fn restore_options(file: PathBuf, parsed: &Parsed) -> Result<RestoreOptions, UsageError> {
    let name = parsed.text("name").unwrap_or("default");
    check_cluster(name, parsed.text("initial-cluster"))?;
    let bump = parsed.parse("bump-revision", bump)?.unwrap_or(REVISION_BUMP);
    // A revision that is not raised has nothing below it that was not there.
    let mark_compacted = parsed.parse("mark-compacted", boolean)?.unwrap_or(bump > 0);
    let hash = if parsed.switch("skip-hash-check")? { HashCheck::Skipped } else { HashCheck::Required };
    let revisions = NewRevisions { bump, mark_compacted };
    Ok(RestoreOptions { file, data_dir: parsed.data_dir(env::vars_os())?, hash, revisions })
}

fn bump(text: &str) -> Result<i64, ValueError> {
    text.parse().ok().filter(|bump| *bump >= 0).ok_or(ValueError::Number)
}

/// A restored node is the only member of its cluster; more join it afterwards.
fn check_cluster(name: &str, cluster: Option<&str>) -> Result<(), UsageError> {
    let Some(cluster) = cluster else { return Ok(()) };
    let mut names = cluster.split(',').filter_map(|member| member.trim().split_once('=')).map(|pair| pair.0);
    let first = names.next();
    if names.any(|other| Some(other) != first) {
        return Err(UsageError::Flags(
            "--initial-cluster names more than one member: restore one, and let the others join it",
        ));
    }
    if first != Some(name) {
        return Err(UsageError::Flags("couldn't find local name in the initial cluster configuration"));
    }
    Ok(())
}

/// Does it.
pub fn perform(settings: &ClientSettings, job: Job) -> Result<Done, SnapshotError> {
    match job {
        Job::Save(path) => save(settings, path),
        Job::Status(path) => {
            let mut file = ImageFile::open(&path)?;
            Ok(Done::Examined(file.examine(HashCheck::Required)?))
        }
        Job::Restore(options) => {
            let progress = Progress::begin(&format!("restoring {}", options.file.display()));
            let made = restore(&options)?;
            drop(progress);
            Ok(Done::Restored { options, made })
        }
    }
}

fn save(settings: &ClientSettings, path: PathBuf) -> Result<Done, SnapshotError> {
    let clock = Clock::start();
    let mut part = path.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = write_part(settings, &part).and_then(|received| {
        finish(&part, &path).map_err(|source| SnapshotError::Write { path: path.clone(), source })?;
        Ok(received)
    });
    let Received { bytes, revision } = written.inspect_err(|_| {
        // It may not even have been made.
        let _ = fs::remove_file(&part);
    })?;
    Ok(Done::Saved { path, bytes, took: clock.now().since(Instant::default()), revision })
}

fn write_part(settings: &ClientSettings, part: &Path) -> Result<Received, SnapshotError> {
    let failed = |source| SnapshotError::Write { path: part.to_owned(), source };
    let mut options = OpenOptions::new();
    let mut file =
        options.write(true).create(true).truncate(true).mode(FILE_MODE).open(part).map_err(failed)?;
    let executor = Rc::new(LocalExecutor::new());
    let received = smol::block_on(executor.run(async {
        let (channel, endpoint) = first_reachable(&executor, settings).await.map_err(CallError::from)?;
        let mut client = MaintenanceClient::with_origin(channel, origin(&endpoint));
        let stream = client.snapshot(Request::new(SnapshotRequest {})).await.map_err(CallError::from)?;
        let mut progress = Progress::begin(&format!("saving {}", part.display()));
        receive(stream.into_inner(), &mut progress, |blob| file.write_all(blob).map_err(failed)).await
    }))?;
    file.sync_all().map_err(failed)?;
    Ok(received)
}

/// Gives the file its name; a crash leaves it with or without, and whole if with.
fn finish(part: &Path, path: &Path) -> io::Result<()> {
    fs::rename(part, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

struct Received {
    /// With the hash.
    bytes: u64,
    /// Where the server is a covey.
    revision: Option<i64>,
}

/// Takes the stream to its end. The last message is the hash of all before, and is known as such only when no other follows.
async fn receive(
    mut stream: Streaming<SnapshotResponse>,
    progress: &mut Progress,
    mut write: impl FnMut(&[u8]) -> Result<(), SnapshotError>,
) -> Result<Received, SnapshotError> {
    let mut hash = Context::new(&SHA256);
    let mut look = Look { reader: Some(ImageReader::default()), revision: None };
    let (mut last, mut bytes): (Option<Bytes>, u64) = (None, 0);
    while let Some(message) = next(&mut stream).await? {
        let left = message.remaining_bytes;
        if let Some(blob) = last.replace(message.blob) {
            hash.update(&blob);
            look.at(&blob)?;
            bytes += blob.len() as u64;
            write(&blob)?;
            progress.show(&format!("{} saved, {} to come", size(bytes), size(left)));
        }
    }
    let sent =
        last.filter(|last| last.len() == HASH_BYTES).ok_or(SnapshotError::NotWhole("it has no hash"))?;
    if hash.finish().as_ref() != sent {
        return Err(SnapshotError::NotWhole("its hash does not fit"));
    }
    if !bytes.is_multiple_of(IMAGE_ALIGNMENT as u64) {
        return Err(SnapshotError::NotWhole("its size is not a multiple of 512"));
    }
    write(&sent)?;
    let revision = look.finish()?;
    Ok(Received { bytes: bytes + HASH_BYTES as u64, revision })
}

fn size(bytes: u64) -> String {
    human_bytes(i64::try_from(bytes).unwrap_or(i64::MAX))
}

async fn next(stream: &mut Streaming<SnapshotResponse>) -> Result<Option<SnapshotResponse>, CallError> {
    let late = async {
        Timer::after(SILENCE_MAX).await;
        Err(CallError::TimedOut)
    };
    let message = async { stream.message().await.map_err(CallError::from) };
    smol::future::or(message, late).await
}

/// Reads an image of ours while it passes; etcd's is not ours to judge.
struct Look {
    reader: Option<ImageReader>,
    revision: Option<i64>,
}

impl Look {
    fn at(&mut self, blob: &[u8]) -> Result<(), ImageError> {
        let Some(reader) = &mut self.reader else { return Ok(()) };
        reader.push(blob);
        loop {
            match reader.next_record() {
                Ok(Some(Record::Facts(facts))) => self.revision = Some(facts.revision.0),
                Ok(Some(Record::Lease(..) | Record::Change(..) | Record::End { .. })) => {}
                Ok(None) => return Ok(()),
                Err(ImageError::Bbolt) => {
                    self.reader = None;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn finish(self) -> Result<Option<i64>, ImageError> {
        self.reader.map(ImageReader::finish).transpose()?;
        Ok(self.revision)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SavedJson {
    path: String,
    total_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
    took_seconds: f64,
}

/// The fields of `etcdutl snapshot status`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusJson {
    hash: u32,
    revision: i64,
    total_key: u64,
    total_size: u64,
    version: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RestoredJson {
    data_dir: String,
    cluster_id: u64,
    member_id: u64,
    snapshot_revision: i64,
    revision: i64,
}

/// Prints what was done; JSON where that was asked for, otherwise lines for people.
pub fn write(out: &mut impl Write, format: Format, done: &Done) -> io::Result<()> {
    match (done, format) {
        (Done::Saved { path, bytes, took, revision }, Format::Json) => {
            let path = path.display().to_string();
            let (total_size, took_seconds) = (*bytes, took.as_secs_f64());
            json(out, &SavedJson { path, total_size, revision: *revision, took_seconds })
        }
        (Done::Saved { path, bytes, took, revision }, _) => {
            let of = revision.map(|revision| format!(" of revision {revision}")).unwrap_or_default();
            let size = size(*bytes);
            writeln!(out, "Snapshot saved at {}", path.display())?;
            writeln!(out, "{size}{of} in {took:.1?}")
        }
        (Done::Examined(summary), _) => examined(out, format, summary),
        (Done::Restored { options, made }, Format::Json) => json(
            out,
            &RestoredJson {
                data_dir: options.data_dir.display().to_string(),
                cluster_id: made.cluster.0,
                member_id: made.member.0,
                snapshot_revision: made.from.0,
                revision: made.revision.0,
            },
        ),
        (Done::Restored { options, made }, _) => {
            let Restored { cluster, member, from, revision } = made;
            writeln!(out, "Snapshot of revision {from} restored into {}", options.data_dir.display())?;
            writeln!(out, "cluster {cluster}, member {member}, revision {revision}")
        }
    }
}

/// As `etcdutl snapshot status`.
fn examined(out: &mut impl Write, format: Format, summary: &ImageSummary) -> io::Result<()> {
    let status = StatusJson {
        hash: summary.checksum,
        revision: summary.facts.revision.0,
        total_key: summary.changes,
        total_size: summary.bytes,
        version: format!("covey {}", crate::snapshot::IMAGE_VERSION),
    };
    let StatusJson { hash, revision, total_key, total_size, ref version } = status;
    match format {
        Format::Json => json(out, &status),
        Format::Fields => {
            writeln!(out, "\"Hash\" : {hash}\n\"Revision\" : {revision}\n\"Keys\" : {total_key}")?;
            writeln!(out, "\"Size\" : {total_size}\n\"Version\" : {version}")
        }
        Format::Table => table::draw(
            out,
            &["HASH", "REVISION", "TOTAL KEYS", "TOTAL SIZE", "VERSION"],
            &[vec![
                format!("{hash:x}"),
                revision.to_string(),
                total_key.to_string(),
                size(total_size),
                version.clone(),
            ]],
        ),
        Format::Simple | Format::Hex => {
            writeln!(out, "{hash:x}, {revision}, {total_key}, {}, {version}", size(total_size))
        }
    }
}

fn json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}
