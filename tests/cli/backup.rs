//! Backups that a server writes by itself.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use covey::prng::Prng;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Server, must, rest, until};

const PART: &str = "covey.part";
/// Of the moments at which a server is killed.
const SEED: u64 = 8;

/// A server that backs itself up each second, and what it has of that.
struct Backed {
    dir: TempDir,
}

impl Backed {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("backups")).unwrap();
        Self { dir }
    }

    fn directory(&self) -> PathBuf {
        self.dir.path().join("backups")
    }

    fn start(&self) -> Server {
        let directory = self.directory();
        let environment = [
            ("COVEY_BACKUP_DIR", directory.as_os_str()),
            ("COVEY_BACKUP_INTERVAL", OsStr::new("1s")),
            ("COVEY_BACKUP_KEEP", OsStr::new("2")),
        ];
        Server::start_in(&self.dir.path().join("data"), &environment)
    }

    /// The names that there are, but for that of a part, in order.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != PART);
        names.sort();
        names
    }

    fn restore(&self, name: &str, to: &str) -> Server {
        let (file, to) = (self.directory().join(name), self.dir.path().join(to));
        must(&[
            OsStr::new("snapshot"),
            "restore".as_ref(),
            file.as_ref(),
            "--data-dir".as_ref(),
            to.as_ref(),
        ]);
        Server::start(&to)
    }
}

/// The revision of a file that must be whole.
fn revision(file: &Path) -> i64 {
    let status = must(&["snapshot", "status", file.to_str().unwrap(), "-w", "json"]);
    serde_json::from_str::<Value>(&status).unwrap()["revision"].as_i64().unwrap()
}

#[test]
fn what_has_changed_is_backed_up_and_the_oldest_goes() {
    let backed = Backed::new();
    let server = backed.start();
    server.must(&["put", "key", "one"]);
    until("the first", || backed.names() == ["covey-00000001-r2.snapshot"]);
    // A user is a change as well.
    server.must(&["user", "add", "someone", "--no-password"]);
    until("the second", || backed.names().last().is_some_and(|name| name == "covey-00000002-r2.snapshot"));
    server.must(&["put", "key", "two"]);
    let kept = ["covey-00000002-r2.snapshot", "covey-00000003-r3.snapshot"];
    until("the third, without the first", || backed.names() == kept);
    drop(server);
    // Nothing has changed while the interval comes twice.
    let server = backed.start();
    let modified = || fs::metadata(backed.directory()).unwrap().modified().unwrap();
    let before = modified();
    rest(Duration::from_secs(3));
    assert_eq!((backed.names(), modified()), (kept.map(str::to_owned).to_vec(), before));
    server.must(&["put", "key", "three"]);
    until("the fourth", || backed.names() == ["covey-00000003-r3.snapshot", "covey-00000004-r4.snapshot"]);
    for (name, value) in backed.names().iter().zip(["two", "three"]) {
        let restored = backed.restore(name, value);
        assert_eq!(restored.must(&["get", "key", "--print-value-only"]), format!("{value}\n"));
        assert_eq!(restored.must(&["user", "list"]), "someone\n");
    }
}

/// Whatever has a name is whole, and there is always one.
#[test]
fn a_server_that_is_killed_while_it_backs_up_leaves_nothing_half_done_under_a_name() {
    let backed = Backed::new();
    let mut server = backed.start();
    let value = "v".repeat(120_000);
    for n in 0..200 {
        server.must(&["put", &format!("key {n}"), &value]);
    }
    let (mut last, mut cut_off, mut prng) = (0, 0, Prng::new(SEED));
    for round in 0..12 {
        server.must(&["put", "round", &round.to_string()]);
        until("a part", || backed.directory().join(PART).exists() || backed.names().len() > 2);
        if round % 3 == 1 {
            // Anywhere within it, or behind it.
            rest(Duration::from_millis(prng.range(0, 400)));
        }
        if round % 3 == 2 {
            // Further on: a name is about to come, or an old file to go.
            let before = backed.names();
            until("another name", || backed.names() != before || !backed.directory().join(PART).exists());
        }
        drop(server);
        cut_off += u32::from(backed.directory().join(PART).exists());
        let names = backed.names();
        assert!(names.len() <= 3, "{names:?}");
        for name in &names {
            let revision = revision(&backed.directory().join(name));
            assert!(name.ends_with(&format!("-r{revision}.snapshot")), "{name}");
            last = last.max(revision);
        }
        server = backed.start();
    }
    assert!(cut_off > 0, "no backup was cut off");
    server.must(&["put", "round", "the last"]);
    let revision_now = {
        let answer: Value = serde_json::from_str(&server.must(&["get", "round", "-w", "json"])).unwrap();
        answer["header"]["revision"].as_i64().unwrap()
    };
    let suffix = format!("-r{revision_now}.snapshot");
    until("a whole one", || backed.names().last().is_some_and(|name| name.ends_with(&suffix)));
    assert!(revision_now > last);
    drop(server);
    let restored = backed.restore(backed.names().last().unwrap(), "restored");
    assert_eq!(restored.must(&["get", "round", "--print-value-only"]), "the last\n");
    assert_eq!(restored.must(&["get", "key", "--prefix", "--keys-only"]).matches("key").count(), 200);
}

#[test]
fn a_directory_that_is_missing_is_named_in_the_log_and_the_server_goes_on() {
    let backed = Backed::new();
    fs::remove_dir(backed.directory()).unwrap();
    let server = backed.start();
    server.must(&["put", "key", "one"]);
    let log = backed.dir.path().join("data.log");
    until("it is said", || {
        let log = fs::read_to_string(&log).unwrap();
        log.contains("there is no new backup") && log.contains(backed.directory().to_str().unwrap())
    });
    fs::create_dir(backed.directory()).unwrap();
    until("it is there again", || backed.names() == ["covey-00000001-r2.snapshot"]);
    server.must(&["get", "key"]);
}
