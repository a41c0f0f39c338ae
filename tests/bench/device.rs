//! What reaches the disk: a file system on a loop device, whose counters count journal and all. Needs root.
//!
//! Owns: the loop devices. Must never: leave out what a server owes: it is made to write all of that down before the end of what is counted.
//! Driven by `cases`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::slice;
use std::thread::{self, sleep};
use std::time::Duration;

use tempfile::TempDir;

use crate::cases::{Pace, megabytes, put_load};
use crate::load::{Load, run};
use crate::report::Row;
use crate::server::{Kind, Programs, Server, Setup};
use crate::upkeep::compact;

const VOLUME_BYTES: u64 = 4 << 30;
/// `/sys/block` counts in these, whatever the device's own sectors are.
const SECTOR_BYTES: u64 = 512;
/// A trickle's pace.
const EACH: Duration = Duration::from_millis(100);
/// A fresh server's own start is over by then.
const SETTLE: Duration = Duration::from_secs(5);
const HOUR: Duration = Duration::from_secs(3600);

/// A file system of its own. It is gone when this is dropped.
struct Volume {
    device: String,
    dir: TempDir,
}

impl Volume {
    fn make(scratch: &Path) -> io::Result<Self> {
        let dir = TempDir::new_in(scratch)?;
        let image = dir.path().join("image");
        fs::File::create(&image)?.set_len(VOLUME_BYTES)?;
        let device = output("losetup", &["--find", "--show", &image.display().to_string()])?;
        let volume = Self { device, dir };
        // Without "lazy", the kernel has nothing left to write for the file system's own sake.
        let whole = "lazy_itable_init=0,lazy_journal_init=0";
        output("mkfs.ext4", &["-q", "-E", whole, &volume.device])?;
        fs::create_dir(volume.root())?;
        output("mount", &[&volume.device, &volume.root().display().to_string()])?;
        Ok(volume)
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Bytes that the device was given, once all that waits has been written.
    fn written(&self) -> io::Result<u64> {
        output("sync", &["-f", &self.root().display().to_string()])?;
        let name = self.device.rsplit('/').next().unwrap_or_default();
        let counters = fs::read_to_string(format!("/sys/block/{name}/stat"))?;
        let sectors: Option<u64> = counters.split_whitespace().nth(6).and_then(|field| field.parse().ok());
        Ok(sectors.ok_or_else(|| io::Error::other("the device has no counter"))? * SECTOR_BYTES)
    }

    fn start(&self, programs: &Programs, kind: Kind) -> io::Result<Server> {
        Server::start(programs, kind, Setup { data: Some(self.root().join("data")), ..Setup::default() })
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        output("umount", &[&self.root().display().to_string()]).ok();
        output("losetup", &["--detach", &self.device]).ok();
    }
}

fn output(program: &str, words: &[&str]) -> io::Result<String> {
    let done = Command::new(program).args(words).output()?;
    if !done.status.success() {
        let why = String::from_utf8_lossy(&done.stderr);
        return Err(io::Error::other(format!("{program} {words:?}: {why}")));
    }
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

/// Measures both at the same time: bytes are the same however busy the machine is.
fn both(one: impl Fn(Kind) -> io::Result<f64> + Sync) -> io::Result<(f64, f64)> {
    thread::scope(|scope| {
        let etcd = scope.spawn(|| one(Kind::Etcd));
        let covey = one(Kind::Covey)?;
        Ok((covey, etcd.join().map_err(|_| io::Error::other("the other one's measure died"))??))
    })
}

/// Bytes that the device is given for each put, whose values nothing can compress. A compaction at the end has a server write all that it owes:
/// much of what there is for a trickle, so that it counts there. Of many puts that is the smaller part, and the removal is told apart.
pub fn per_put(programs: &Programs, pace: Pace) -> io::Result<Vec<Row>> {
    let one = |kind, load: &Load| -> io::Result<[f64; 2]> {
        let volume = Volume::make(&programs.scratch)?;
        let server = volume.start(programs, kind)?;
        sleep(SETTLE);
        let begin = volume.written()?;
        let outcome = run(slice::from_ref(&server.target), load)?;
        let put = volume.written()?;
        smol::block_on(compact(&server.target))?;
        let each = |bytes: u64| bytes as f64 / 1024.0 / outcome.calls as f64;
        Ok([each(put - begin), each(volume.written()? - put)])
    };
    let trickle = Pace { load: pace.load * 12 };
    let trickle = Load { pace: Some(EACH), ..put_load(1, trickle) };
    let (covey, etcd) = (one(Kind::Covey, &trickle)?, one(Kind::Etcd, &trickle)?);
    let at_ten = Row::at_most(
        "device bytes per put at 10/s".into(),
        "KB",
        covey.iter().sum(),
        etcd.iter().sum(),
        Some(0.18),
    );
    let many = put_load(100, pace);
    let (covey, etcd) = (one(Kind::Covey, &many)?, one(Kind::Etcd, &many)?);
    Ok(vec![
        at_ten,
        Row::at_most("device bytes per put at 100 clients".into(), "KB", covey[0], etcd[0], Some(0.9)),
        Row::at_most("device bytes to compact each of them".into(), "KB", covey[1], etcd[1], None),
    ])
}

/// Bytes that the device is given for a server that nobody asks anything of.
pub fn idle(programs: &Programs, pace: Pace) -> io::Result<Vec<Row>> {
    let (covey, etcd) = both(|kind| {
        let volume = Volume::make(&programs.scratch)?;
        let _server = volume.start(programs, kind)?;
        sleep(SETTLE);
        let before = volume.written()?;
        let watched = pace.load * 24;
        sleep(watched);
        let written = megabytes(volume.written()? - before);
        Ok(written * HOUR.as_secs_f64() / watched.as_secs_f64())
    })?;
    let mut row = Row::at_most("device bytes of an idle hour".into(), "MB", covey, etcd, None);
    row.limit = Some(0.1);
    Ok(vec![row])
}
