//! A control group that limits the memory of one member, page cache included, over all its runs.
//!
//! Owns: the group, of whichever version the machine has. Must never: limit anybody else, or outlive the test. Needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::until;

/// Where version 1 has what limits memory, ...
const FIRST: &str = "/sys/fs/cgroup/memory";
/// ... and where version 2 has everything.
const SECOND: &str = "/sys/fs/cgroup";

/// The group, for as long as it is held.
pub struct MemoryGroup {
    path: PathBuf,
    is_first: bool,
}

impl MemoryGroup {
    /// A group whose processes have so many bytes together, and no swap.
    pub fn of(bytes: u64) -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let name = format!("covey-{}", std::process::id());
        let first = own.lines().find_map(|line| line.split_once(":memory:"));
        let group = match first {
            // Below the test's own: what limits that goes on doing so.
            Some((_, path)) => Self { path: below(FIRST, path).join(name), is_first: true },
            // Beside it, since a group of version 2 has either processes or groups.
            None => Self { path: Path::new(SECOND).join(name), is_first: false },
        };
        if !group.is_first {
            fs::write(Path::new(SECOND).join("cgroup.subtree_control"), "+memory").unwrap();
        }
        fs::create_dir(&group.path).unwrap();
        let files = if group.is_first {
            ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
        } else {
            ["memory.max", "memory.swap.max"]
        };
        group.write(files[0], bytes);
        // Kernels that do not count swap have no such file.
        if group.path.join(files[1]).exists() {
            group.write(files[1], if group.is_first { bytes } else { 0 });
        }
        group
    }

    fn write(&self, file: &str, value: u64) {
        fs::write(self.path.join(file), value.to_string()).unwrap();
    }

    /// A program that is in the group before it has anything in memory.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$0\" \"$@\"", self.path.display());
        command.args(["-c", &script, program]);
        command
    }

    /// How many processes of it were killed because there was no memory left.
    pub fn killed(&self) -> u64 {
        let file = if self.is_first { "memory.oom_control" } else { "memory.events" };
        let text = fs::read_to_string(self.path.join(file)).unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.expect("the kernel counts them").parse().unwrap()
    }
}

fn below(mounted: &str, group: &str) -> PathBuf {
    let path = Path::new(mounted).join(group.trim_start_matches('/'));
    // A container sees its own group at the top.
    if path.exists() { path } else { mounted.into() }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // The last process may have been waited for, and not be out yet.
        if std::thread::panicking() {
            drop(fs::remove_dir(&self.path));
        } else {
            until("an empty group", || fs::remove_dir(&self.path).ok());
        }
    }
}
