//! Directories of a build that is newer than this one, and of somebody else: refused in words, once and for all.
//!
//! Owns: the one field that makes a file one of a newer format, and the checksum over it. Must never: change anything else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use covey::config::EXIT_CONFIG;
use redb::{Database, ReadableTable as _, TableDefinition};

use crate::content::describe;
use crate::kept::{Kept, kept};
use crate::process::{Cluster, Host};
use crate::{ROOT, wait_ready};

/// Where the identity record has its version, behind its magic (`formation/record.rs`); behind that comes the length of the payload.
const RECORD_VERSION_AT: usize = 8;
const RECORD_HEAD_BYTES: usize = 14;
/// Where a segment of the log has its version, behind its magic, and the checksum of its first sector (`wal/segment.rs`, `wal/sector.rs`).
const SEGMENT_VERSION_AT: usize = 8;
const SEGMENT_SEAL: std::ops::Range<usize> = 508..512;
/// Where the store has its version (`store/schema.rs`).
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const FORMAT: &str = "format";
const FORMAT_BYTES: usize = 4;

/// Makes a copy of the identity record one of the next version, which is returned.
fn raise_record(file: &Path) -> u32 {
    let mut bytes = fs::read(file).unwrap();
    let length = u32::from_le_bytes(bytes[10..RECORD_HEAD_BYTES].try_into().unwrap()) as usize;
    let end = RECORD_HEAD_BYTES + length;
    let sealed = crc32c::crc32c(&bytes[..end]).to_le_bytes();
    assert_eq!(bytes[end..end + 4], sealed, "this is where the record has its checksum");
    bytes[RECORD_VERSION_AT] += 1;
    let sealed = crc32c::crc32c(&bytes[..end]).to_le_bytes();
    bytes[end..end + 4].copy_from_slice(&sealed);
    fs::write(file, &bytes).unwrap();
    bytes[RECORD_VERSION_AT].into()
}

/// The same for a segment of the log.
fn raise_segment(file: &Path) -> u32 {
    let mut bytes = fs::read(file).unwrap();
    let seal = |bytes: &[u8]| {
        let place = crc32c::crc32c(&0_u64.to_le_bytes());
        crc32c::crc32c_append(place, &bytes[..SEGMENT_SEAL.start]).to_le_bytes()
    };
    assert_eq!(bytes[SEGMENT_SEAL], seal(&bytes), "this is where a segment has its checksum");
    bytes[SEGMENT_VERSION_AT] += 1;
    let sealed = seal(&bytes);
    bytes[SEGMENT_SEAL].copy_from_slice(&sealed);
    fs::write(file, &bytes).unwrap();
    bytes[SEGMENT_VERSION_AT].into()
}

/// The same for the store.
fn raise_store(file: &Path) -> u32 {
    let database = Database::open(file).unwrap();
    let txn = database.begin_write().unwrap();
    let mut meta = txn.open_table(META).unwrap();
    let row = meta.get(FORMAT).unwrap().unwrap().value().to_vec();
    let seal = |body: &[u8]| crc32c::crc32c_append(crc32c::crc32c(FORMAT.as_bytes()), body).to_le_bytes();
    let (body, sealed) = row.split_at(FORMAT_BYTES);
    assert_eq!(sealed, seal(body), "this is where the store has its checksum");
    let version = u32::from_le_bytes(body.try_into().unwrap()) + 1;
    let body = version.to_le_bytes();
    meta.insert(FORMAT, [body, seal(&body)].concat().as_slice()).unwrap();
    drop(meta);
    txn.commit().unwrap();
    version
}

/// The first segment of a log.
fn segment(data_dir: &Path) -> PathBuf {
    let entries = fs::read_dir(data_dir.join("wal")).unwrap().map(|entry| entry.unwrap().path());
    entries.min().expect("a segment")
}

/// The copies that can be tried: of each build that is kept, a node that votes alone.
fn nodes() -> impl Iterator<Item = (Cluster, Kept)> {
    kept("one").into_iter().map(|kept| {
        let cluster = Cluster::prepare(1);
        kept.unpack(&cluster.hosts[0].data_dir);
        (cluster, kept)
    })
}

/// It is refused at every start, in these words.
fn is_refused(host: &mut Host, words: &str) {
    for _ in 0..2 {
        host.start(&["--solo"]);
        assert_eq!(host.ended(), i32::from(EXIT_CONFIG), "{}", host.log());
    }
    assert_eq!(host.log().matches(words).count(), 2, "{words}: {}", host.log());
}

#[test]
fn a_newer_format_is_refused_by_name_and_number_and_is_left_as_it_is() {
    for (mut cluster, kept) in nodes() {
        let saved = cluster.path("saved");
        let host = &mut cluster.hosts[0];
        let (store, segment) = (host.data_dir.join("store.redb"), segment(&host.data_dir));
        let name = segment.file_name().unwrap().to_str().unwrap();
        for (file, raise, words) in [
            (&store, raise_store as fn(&Path) -> u32, "store: format version"),
            (&segment, raise_segment, &format!("log file {name} has format version")),
        ] {
            fs::copy(file, &saved).unwrap();
            let found = raise(file);
            is_refused(host, &format!("{words} {found}; this"));
            fs::copy(&saved, file).unwrap();
        }
        host.start(&["--solo"]);
        wait_ready(host, &ROOT);
        assert_eq!(describe(host, &ROOT), kept.content, "{kept:?}");
        host.kill();
        let copies = ["identity.0", "identity.1"].map(|name| host.data_dir.join(name));
        let found = copies.map(|copy| raise_record(&copy))[0];
        is_refused(host, &format!("the identity record has format version {found}; this"));
    }
}

/// Somebody has mixed up disks, or the files on them.
#[test]
fn a_log_of_another_cluster_is_refused_for_good() {
    for ((mut cluster, _), other) in nodes().zip(kept("stopped")) {
        let other_dir = cluster.path("other");
        other.unpack(&other_dir);
        let host = &mut cluster.hosts[0];
        fs::remove_dir_all(host.data_dir.join("wal")).unwrap();
        fs::rename(other_dir.join("wal"), host.data_dir.join("wal")).unwrap();
        is_refused(host, " belongs to ");
    }
}

#[test]
fn settings_that_are_wrong_end_with_the_same_code() {
    for wrong in [
        &["serve", "--nonsense"][..],
        &["serve", "--solo", "--backup-keep", "0"],
        &["config", "check", "--nonsense"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_covey"));
        let output = command.args(wrong).env_clear().stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(i32::from(EXIT_CONFIG)), "{wrong:?} {output:?}");
    }
}
