//! A disk of a few megabytes, for one member: a file system in memory, mounted in a namespace of its own.
//!
//! Owns: the namespace and what fills the disk up. Must never: mount anything where others see it. Needs root.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::process::{Cluster, until};

/// Where Debian has them.
const UNSHARE: &str = "/usr/bin/unshare";
const NSENTER: &str = "/usr/bin/nsenter";

/// The disk, for as long as it is held.
pub struct SmallDisk {
    /// Keeps the namespace, over all runs of the member.
    holder: Child,
    mounted: PathBuf,
}

/// So many members, each on a disk of its own, that serve.
pub fn start(members: usize, megabytes: u32) -> Cluster {
    let mut cluster = Cluster::prepare(members);
    let initial = cluster.initial();
    for host in &mut cluster.hosts {
        host.disk = Some(SmallDisk::at(&host.data_dir, megabytes));
        host.start(&["--initial-cluster", &initial]);
    }
    cluster.wait_ready();
    cluster
}

impl SmallDisk {
    /// A disk of so many megabytes at `path`, which is made.
    pub fn at(path: &Path, megabytes: u32) -> Self {
        fs::create_dir_all(path).unwrap();
        let script = format!(
            "mount -t tmpfs -o size={megabytes}m,mode=700 small {} && exec sleep 1000",
            path.display()
        );
        let mut command = Command::new(UNSHARE);
        command.args(["-m", "sh", "-c", &script]).stdin(Stdio::null());
        let holder = command.spawn().unwrap();
        let mounted = PathBuf::from(format!("/proc/{}/root{}", holder.id(), path.display()));
        let disk = Self { holder, mounted };
        let id = disk.holder.id();
        let is_mounted = |mounts: String| mounts.contains(&format!(" {} ", path.display()));
        until("a small disk", || {
            fs::read_to_string(format!("/proc/{id}/mounts")).is_ok_and(is_mounted).then_some(())
        });
        disk
    }

    /// Where it is from outside.
    pub fn path(&self) -> &Path {
        &self.mounted
    }

    /// The filesystem is not there any more for whoever looks for it; who has files of it open has them still.
    pub fn detach(&self, path: &Path) {
        self.shell(&format!("umount -l {}", path.display()));
    }

    /// Whoever looks for it finds it read-only. Files that are open for writing stay so, as after an error that has a filesystem remounted by the kernel.
    pub fn make_read_only(&self, path: &Path) {
        let path = path.display();
        self.shell(&format!("mount --bind {path} {path} && mount -o remount,bind,ro {path}"));
    }

    fn shell(&self, script: &str) {
        assert!(self.command("sh").args(["-c", script]).status().unwrap().success(), "{script}");
    }

    /// A program that sees the disk.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(NSENTER);
        command.args(["-t", &self.holder.id().to_string(), "-m", program]);
        command
    }

    fn filler(&self) -> PathBuf {
        self.mounted.join("filler")
    }

    /// Fills it to the last page, as some other program would.
    pub fn fill_up(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler()).unwrap();
        for size in [64 * 1024, 4096] {
            loop {
                match file.write_all(&vec![7; size]) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    /// Fills it, as some other program would, until so much is left.
    pub fn leave(&self, megabytes: u64) {
        let file = File::create(self.filler()).unwrap();
        let found = statvfs(&self.mounted).unwrap();
        let free = found.f_bavail * found.f_frsize;
        fallocate(&file, FallocateFlags::empty(), 0, free - (megabytes << 20)).unwrap();
    }

    /// Gives back what was filled.
    pub fn clear(&self) {
        fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}
