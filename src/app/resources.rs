//! What the machine allows this process: open files and memory, and how many clients and answers that is enough for.
//!
//! Owns: the reading of those limits at start. Must never: refuse to start because of them. Driven by `serve`.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limits::{ANSWERS_BYTES_MAX, ANSWERS_BYTES_MIN, CALLS, WINDOWS_BYTES_MAX};

/// Descriptors that are kept for the log, the store, and what the runtime needs.
const DESCRIPTORS_RESERVED: usize = 64;
/// What an idle connection with a stream takes in bytes, rounded up from what was measured (28 KB).
const CONNECTION_BYTES: u64 = 32 * 1024;
/// What a call takes that waits for its client, in bytes, rounded up from what was measured (2.4 KB).
const CALL_BYTES: u64 = 4 * 1024;
/// The share of the memory that connections may take, their calls, and what they were answered: one part in this many for each.
const MEMORY_SHARE: u64 = 16;
/// However little there is, so many clients are let in.
const CONNECTIONS_MIN: usize = 16;

/// How many of the wanted connections the machine has room for. Raises the limit on open files as far as it may: the log needs a new file
/// every few megabytes, and one that cannot be made ends the process.
pub(super) fn connections(wanted: usize) -> usize {
    let by_files = raise_open_files().map_or(wanted, |limit| limit.saturating_sub(DESCRIPTORS_RESERVED));
    let by_memory = memory_limit().map_or(wanted, affordable);
    let room = wanted.min(by_files).min(by_memory.max(CONNECTIONS_MIN)).max(1);
    if room < wanted {
        tracing::warn!(
            wanted,
            room,
            by_files,
            by_memory,
            "fewer connections than configured: the machine is small"
        );
    }
    room
}

/// Calls that there is room for.
pub(super) fn calls() -> usize {
    memory_limit().map_or(CALLS, |memory| parts_of(memory, CALL_BYTES).min(CALLS))
}

/// Bytes that clients may have sent and nobody has read, beyond what each connection has anyway.
pub(super) fn window_bytes() -> usize {
    memory_limit().map_or(WINDOWS_BYTES_MAX, |memory| parts_of(memory, 1).min(WINDOWS_BYTES_MAX))
}

/// Bytes that answers may take together.
pub(super) fn answer_bytes() -> usize {
    memory_limit().map_or(ANSWERS_BYTES_MAX, answer_bytes_of)
}

fn answer_bytes_of(memory: u64) -> usize {
    let share = usize::try_from(memory / MEMORY_SHARE).unwrap_or(usize::MAX);
    share.clamp(ANSWERS_BYTES_MIN, ANSWERS_BYTES_MAX)
}

/// How many of such a size fit into a share of the memory.
fn parts_of(memory: u64, bytes: u64) -> usize {
    usize::try_from(memory / MEMORY_SHARE / bytes).unwrap_or(usize::MAX)
}

fn affordable(memory: u64) -> usize {
    parts_of(memory, CONNECTION_BYTES)
}

fn raise_open_files() -> Option<usize> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit on open files");
            limit.current
        }
    };
    current.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// The memory of the machine in bytes, or what the control groups that this process is in leave of it.
fn memory_limit() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory_of_machine(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let files = limit_files(&groups);
    let limits = files.iter().filter_map(|file| memory_of_group(&fs::read_to_string(file).ok()?));
    machine.into_iter().chain(limits).min()
}

/// Where the limits stand: a group's own and those of the groups around it hold alike. In a container the group may be named as the machine outside has it,
/// and stand at the top: files that are not there are passed over.
fn limit_files(cgroup: &str) -> Vec<String> {
    let mut files = Vec::new();
    for (version, path) in groups_of_process(cgroup) {
        let (mounted, file) = match version {
            Version::One => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            Version::Two => ("/sys/fs/cgroup", "memory.max"),
        };
        let ancestors = path.match_indices('/').map(|(end, _)| &path[..end]).chain([path]);
        files.extend(ancestors.map(|group| format!("{mounted}{}/{file}", group.trim_end_matches('/'))));
    }
    files
}

/// `MemTotal:  1014204 kB` in `/proc/meminfo` (proc(5)).
fn memory_of_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// Of control groups (cgroups(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// `0::/system.slice/covey.service` in `/proc/self/cgroup` (version 2), and `4:memory:/covey` where memory is limited by version 1.
fn groups_of_process(cgroup: &str) -> impl Iterator<Item = (Version, &str)> {
    cgroup.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        match controllers {
            "" => Some((Version::Two, path)),
            _ => controllers.split(',').any(|name| name == "memory").then_some((Version::One, path)),
        }
    })
}

/// A number of bytes, or `max`. Version 1 has a number for that, which is more than any machine has.
fn memory_of_group(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_the_system_writes_them() {
        let meminfo = "MemFree: 1 kB\nMemTotal:        1014204 kB\n";
        assert_eq!(memory_of_machine(meminfo), Some(1_014_204 * 1024));
        assert_eq!(memory_of_machine("MemTotal: many kB"), None);
        assert_eq!(
            limit_files("1:cpu,x:/a\n0::/system.slice/covey.service\n"),
            [
                "/sys/fs/cgroup/memory.max",
                "/sys/fs/cgroup/system.slice/memory.max",
                "/sys/fs/cgroup/system.slice/covey.service/memory.max"
            ]
        );
        assert_eq!(
            limit_files("9:name=systemd:/\n4:hugetlb,memory:/covey\nnonsense\n"),
            [
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/covey/memory.limit_in_bytes"
            ]
        );
        assert_eq!((memory_of_group("max\n"), memory_of_group("33554432\n")), (None, Some(33_554_432)));
    }

    #[test]
    fn a_small_machine_takes_fewer_clients() {
        assert_eq!(affordable(1 << 30), 2048, "a box with 1 GB has room for the default");
        assert_eq!(affordable(64 << 20), 128);
        assert!(memory_limit().is_some_and(|memory| memory > 1 << 20), "this machine tells");
        assert_eq!(answer_bytes_of(1 << 30), 64 << 20);
        assert_eq!((answer_bytes_of(32 << 20), answer_bytes_of(1 << 40)), (8 << 20, 256 << 20));
        assert_eq!(parts_of(64 << 20, CALL_BYTES), 1024);
        assert!((1024..=CALLS).contains(&calls()));
        assert_eq!(connections(10), 10);
        assert!((1..=1_000_000_000).contains(&connections(1_000_000_000)));
    }
}
