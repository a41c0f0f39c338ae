//! Saving, looking at and restoring snapshots.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use covey::config::EXIT_CONFIG;
use covey::formation::{self, Stage};
use covey::prng::Prng;
use covey::runtime::files::RealDirectory;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Outcome, Server, covey, free_endpoint, must, rest, run, took, until};

const BUMP: i64 = 1_000_000_000;
/// Of what is large.
const KEYS: usize = 200;
/// Of the moments at which something is killed.
const SEED: u64 = 8;

/// A directory with a snapshot of a few keys, and what they were.
struct Saved {
    dir: TempDir,
    keys: String,
}

impl Saved {
    fn make() -> Self {
        let dir = TempDir::new().unwrap();
        let server = Server::start(&dir.path().join("data"));
        for n in 0..20 {
            server.must(&["put", &format!("key {}", n % 6), &format!("value {n}")]);
        }
        server.must(&["del", "key 3"]);
        server.must(&["compact", "10"]);
        let saved = Self { keys: keys(&server), dir };
        let said = server.must(&["snapshot", "save", &saved.file()]);
        assert!(said.starts_with(&format!("Snapshot saved at {}\n", saved.file())), "{said}");
        assert!(said.contains("of revision 22 in"), "{said}");
        saved
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn file(&self) -> String {
        self.text("saved")
    }

    fn restore(&self, to: &str, more: &[&str]) -> Outcome {
        let (file, to) = (self.file(), self.text(to));
        run(&[&["snapshot", "restore", &file, "--data-dir", &to], more].concat())
    }
}

/// Everything but the header, in JSON.
fn keys(server: &Server) -> String {
    let all = server.must(&["get", "", "--prefix", "-w", "json"]);
    let mut all: Value = serde_json::from_str(&all).unwrap();
    all.as_object_mut().unwrap().remove("header").unwrap();
    all.to_string()
}

fn revision(server: &Server) -> i64 {
    let answer: Value = serde_json::from_str(&server.must(&["get", "none", "-w", "json"])).unwrap();
    answer["header"]["revision"].as_i64().unwrap()
}

fn cluster(server: &Server) -> u64 {
    let answer: Value = serde_json::from_str(&server.must(&["get", "none", "-w", "json"])).unwrap();
    answer["header"]["cluster_id"].as_u64().unwrap()
}

#[test]
fn what_was_saved_is_served_again_by_a_new_node() {
    let saved = Saved::make();
    let metadata = fs::metadata(saved.file()).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "it holds everything");
    assert_eq!(metadata.len() % 512, 32);
    assert!(!saved.path("saved.part").exists());
    let status = must(&["snapshot", "status", &saved.file()]);
    assert!(status.contains(", 22, ") && status.ends_with("covey 1\n"), "{status}");
    let status: Value =
        serde_json::from_str(&must(&["snapshot", "status", &saved.file(), "-w", "json"])).unwrap();
    assert_eq!(status["revision"], 22);
    assert_eq!(status["totalSize"].as_u64(), Some(metadata.len() - 32));
    assert!(status["totalKey"].as_u64().unwrap() >= 5 && status["hash"].as_u64().unwrap() > 0);
    let (hash, versions, size) = (&status["hash"], &status["totalKey"], &status["totalSize"]);
    let fields = format!(
        "\"Hash\" : {hash}\n\"Revision\" : 22\n\"Keys\" : {versions}\n\"Size\" : {size}\n\"Version\" : covey 1\n"
    );
    assert_eq!(must(&["snapshot", "status", &saved.file(), "-w", "fields"]), fields);
    let table = must(&["snapshot", "status", &saved.file(), "-w", "table"]);
    assert!(
        table.contains(" REVISION │ TOTAL KEYS │ TOTAL SIZE │ VERSION ") && table.contains("│ covey 1 │\n"),
        "{table}"
    );

    let before = Server::start(&saved.path("data"));
    let restored = saved.restore("new", &["--name", "box", "--initial-cluster", "box=http://localhost:2380"]);
    assert_eq!(restored.code, 0, "{restored:?}");
    let expected = format!("Snapshot of revision 22 restored into {}\n", saved.text("new"));
    assert!(restored.stdout.starts_with(&expected), "{restored:?}");
    for _ in 0..2 {
        // The second time after kill -9.
        let server = Server::start(&saved.path("new"));
        assert_eq!(keys(&server), saved.keys);
        assert_ne!(cluster(&server), cluster(&before), "nobody takes it for the old cluster");
        assert!(revision(&server) >= 22 + BUMP);
        let old = server.run(&["get", "key 1", "--rev", "22"]);
        assert!(old.stderr.contains("mvcc: required revision has been compacted"), "{old:?}");
        server.must(&["put", "key 3", "again"]);
        server.must(&["del", "key 3"]);
    }
    let data = run(&["snapshot", "restore", &saved.file(), "--data-dir", &saved.text("new")]);
    assert_eq!(
        data.stderr,
        format!("Error: data-dir {:?} not empty or could not be read\n", saved.text("new"))
    );
}

#[test]
fn a_revision_that_is_kept_shows_what_was_readable() {
    let saved = Saved::make();
    let restored = saved.restore("new", &["--bump-revision", "0", "-w", "json"]);
    let said: Value = serde_json::from_str(&restored.stdout).unwrap();
    assert_eq!((said["snapshotRevision"].as_i64(), said["revision"].as_i64()), (Some(22), Some(22)));
    let server = Server::start(&saved.path("new"));
    assert_eq!((keys(&server), revision(&server)), (saved.keys.clone(), 22));
    assert_eq!(server.must(&["get", "key 3", "--rev", "21", "--print-value-only"]), "value 15\n");
    assert!(server.run(&["get", "key 3", "--rev", "9"]).stderr.contains("has been compacted"));
}

#[test]
fn a_file_that_is_not_sound_is_refused_and_leaves_no_directory() {
    let saved = Saved::make();
    let sound = fs::read(saved.file()).unwrap();
    let image = sound.len() - 32;
    let spoil = |content: &[u8]| fs::write(saved.file(), content).unwrap();
    let refused = |words: &str, more: &[&str]| {
        let outcome = saved.restore("new", more);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.stderr.contains(words), "{words}: {outcome:?}");
        assert!(!saved.path("new").exists(), "nothing was touched");
    };
    spoil(&sound[..image]);
    refused("snapshot missing hash but --skip-hash-check=false", &[]);
    let mut other_hash = sound.clone();
    other_hash[image] ^= 1;
    spoil(&other_hash);
    refused("expected sha256 [", &[]);
    let mut flipped = sound.clone();
    flipped[400] ^= 1;
    spoil(&flipped);
    refused("checksum does not fit", &["--skip-hash-check"]);
    spoil(&[&sound[..image - 512], &sound[image..]].concat());
    refused("cut off", &[]);
    spoil(&[b'x'; 1024 + 32]);
    refused("not an image of covey's", &[]);
    spoil(&sound);
    refused("cannot be raised", &["--bump-revision", "9223372036854775807"]);
    spoil(&other_hash);
    let restored = saved.restore("new", &["--skip-hash-check"]);
    assert_eq!(restored.code, 0, "{restored:?}");
    for wrong in [&["snapshot"][..], &["snapshot", "save"], &["snapshot", "frob", "x"]] {
        assert_eq!(run(wrong).code, 128);
    }
    let two = "a=http://h:1,b=http://h:2";
    assert_eq!(saved.restore("newer", &["--name", "a", "--initial-cluster", two]).code, 128);
}

#[test]
fn a_save_that_fails_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("saved");
    let nobody = ["--endpoints", "127.0.0.1:1", "snapshot", "save", file.to_str().unwrap()];
    let outcome = run(&nobody);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// A server with so much that it takes a while to save and to restore.
fn filled(dir: &Path) -> Server {
    let server = Server::start(&dir.join("data"));
    let value = "v".repeat(120_000);
    for n in 0..KEYS {
        server.must(&["put", &format!("key {n}"), &value]);
    }
    server
}

/// A snapshot of that.
fn large(dir: &Path) -> PathBuf {
    let file = dir.join("saved");
    filled(dir).must(&["snapshot", "save", file.to_str().unwrap()]);
    file
}

/// How many keys of [`filled`] there are.
fn count(server: &Server) -> usize {
    server.must(&["get", "key", "--prefix", "--keys-only"]).matches("key").count()
}

/// Runs a command and kills it at a moment that is drawn from the time that it takes, and a little more; whether that came before its end.
fn kill_meanwhile(arguments: &[&str], took: Duration, prng: &mut Prng) -> bool {
    let moment = took.mul_f64(f64::from(u32::try_from(prng.range(0, 1200)).unwrap()) / 1000.0);
    let mut child = covey(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    rest(moment);
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

/// What is under the name of a snapshot is the one from before or the new one, and whole.
#[test]
fn a_save_that_is_killed_at_any_moment_leaves_the_file_of_before_or_a_whole_one() {
    let dir = TempDir::new().unwrap();
    let server = filled(dir.path());
    let (file, part) = (dir.path().join("saved"), dir.path().join("saved.part"));
    let save = ["--endpoints", &server.endpoint, "snapshot", "save", file.to_str().unwrap()];
    let saved = || {
        let status = must(&["snapshot", "status", file.to_str().unwrap(), "-w", "json"]);
        serde_json::from_str::<Value>(&status).unwrap()["revision"].as_i64().unwrap()
    };
    let took = took(|| drop(must(&save)));
    let (mut prng, mut last, mut cut_off) = (Prng::new(SEED), saved(), 0);
    for round in 0..16 {
        server.must(&["put", "round", &round.to_string()]);
        let was_killed = kill_meanwhile(&save, took, &mut prng);
        let (before, now) = (last, saved());
        assert!(now == before || now == revision(&server), "round {round}: {now}");
        assert!(was_killed || now == revision(&server), "round {round}: it has said that it was saved");
        (last, cut_off) = (now, cut_off + u32::from(now == before));
    }
    assert!(cut_off > 0, "no save was cut off");
    must(&save);
    assert_eq!((saved(), part.exists()), (revision(&server), false));
}

/// As shells complete it, and as a directory is meant.
#[test]
fn a_directory_to_restore_into_may_be_named_with_what_does_not_belong_to_its_name() {
    let saved = Saved::make();
    for (name, more) in [("one", "/"), ("two", "/."), ("three", "//./")] {
        let restored = saved.restore(&format!("{name}{more}"), &[]);
        assert_eq!(restored.code, 0, "{restored:?}");
        assert_eq!(keys(&Server::start(&saved.path(name))), saved.keys);
        assert!(!part(&saved.path(name)).exists());
    }
}

/// What a restore has under way, beside what it makes.
fn part(new: &Path) -> PathBuf {
    PathBuf::from(format!("{}.restoring", new.display()))
}

fn restore(file: &Path, to: &Path) -> [String; 5] {
    let [file, to] = [file, to].map(|path| path.to_str().unwrap().to_owned());
    ["snapshot", "restore", &file, "--data-dir", &to].map(str::to_owned)
}

/// What has the name is whole. What a restore that was cut off has left the next one makes use of.
#[test]
fn a_restore_that_is_killed_at_any_moment_leaves_nothing_under_the_name_or_all() {
    let dir = TempDir::new().unwrap();
    let file = large(dir.path());
    let took = took(|| drop(must(&restore(&file, &dir.path().join("first")))));
    let (mut prng, mut cut_off) = (Prng::new(SEED), 0);
    for round in 0..10 {
        let new = dir.path().join(format!("new{round}"));
        let arguments = restore(&file, &new);
        let was_killed = kill_meanwhile(&arguments.each_ref().map(String::as_str), took, &mut prng);
        if was_killed && !new.exists() {
            cut_off += 1;
            let again = run(&arguments);
            if again.code != 0 {
                // The moment between the last byte and the name.
                assert!(again.stderr.contains(".restoring is in the way"), "{again:?}");
                fs::rename(part(&new), &new).unwrap();
            }
        }
        assert_eq!(count(&Server::start(&new)), KEYS, "round {round}");
        assert!(!part(&new).exists(), "round {round}");
    }
    assert!(cut_off > 0, "no restore was cut off");
}

/// Kills a restore once its node has a record: a name below `dir` to restore to, and where that was begun, which is not whole. One that was faster, or at its
/// very end, is tried again under another name.
fn cut_off(file: &Path, dir: &Path, is_there: bool) -> (PathBuf, PathBuf) {
    for attempt in 0..20 {
        let new = dir.join(format!("new{attempt}"));
        let at = if is_there { new.clone() } else { part(&new) };
        if is_there {
            fs::create_dir(&new).unwrap();
        }
        let mut restore = covey(&restore(file, &new)).stdout(Stdio::null()).spawn().unwrap();
        until("there is a record", || [&at, &new].iter().any(|at| at.join("identity.1").exists()));
        restore.kill().unwrap();
        restore.wait().unwrap();
        let left = RealDirectory::open(&at).ok().and_then(|left| formation::founded(&left).unwrap());
        if left.is_some_and(|left| left.stage == Stage::Restoring) {
            return (new, at);
        }
    }
    panic!("no restore was cut off");
}

fn is_refused(data_dir: &Path) {
    let [data_dir, url] = [data_dir.to_str().unwrap(), &format!("http://{}", free_endpoint())];
    let served = run(&["serve", "--solo", "--data-dir", data_dir, "--listen-client-urls", url]);
    assert_eq!(served.code, i32::from(EXIT_CONFIG), "{served:?}");
    assert!(served.stderr.contains("that was not finished: restore it again"), "{served:?}");
}

/// A directory that is there already is filled, since it may not be ours to replace. What is in it says that it is not whole.
#[test]
fn a_restore_that_is_killed_is_not_served_and_can_be_done_again() {
    let dir = TempDir::new().unwrap();
    let file = large(dir.path());
    for is_there in [false, true] {
        let dir = dir.path().join(is_there.to_string());
        fs::create_dir(&dir).unwrap();
        let (new, at) = cut_off(&file, &dir, is_there);
        is_refused(&at);
        // Nor is anything begun under the name that it was to have.
        is_refused(&new);
        assert_eq!(new.exists(), is_there);
        must(&restore(&file, &new));
        assert_eq!((count(&Server::start(&new)), part(&new).exists()), (KEYS, false));
    }
    // Somebody else's is left alone, and told of.
    let other = dir.path().join("other");
    fs::create_dir(part(&other)).unwrap();
    fs::write(part(&other).join("somebody's"), "").unwrap();
    let outcome = run(&restore(&file, &other));
    assert_eq!((outcome.code, other.exists()), (1, false), "{outcome:?}");
    assert!(outcome.stderr.contains("other.restoring is in the way: rename or remove it"), "{outcome:?}");
    // Also one whose last bytes were lost by a copy is found before anything is made.
    let mut spoiled = File::options().write(true).open(&file).unwrap();
    spoiled.seek(SeekFrom::End(-4096)).unwrap();
    spoiled.write_all(&[0; 4096]).unwrap();
    let again = dir.path().join("again");
    let outcome = run(&restore(&file, &again));
    assert_eq!((outcome.code, again.exists(), part(&again).exists()), (1, false, false), "{outcome:?}");
}
