//! What the kernel says about this process, for the `process_` metrics.
//!
//! Owns: the reading of `/proc`. Must never: fail; what cannot be read is left out. Called once for each rendering.

use std::fs;

use rustix::process::{Resource, getrlimit};

/// `USER_HZ`: the unit of times in `/proc`, 100 on every architecture that Rust's Linux targets have.
const TICKS_PER_SECOND: u64 = 100;

/// One look at the process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Process {
    /// User and system time, in ticks of 10 ms.
    pub cpu_ticks: u64,
    /// When it was started, in seconds since 1970.
    pub start_seconds: f64,
    /// Memory in RAM.
    pub resident_bytes: u64,
    /// Address space.
    pub virtual_bytes: u64,
    /// Open files.
    pub open_fds: u64,
    /// How many it may open; `None` is unlimited.
    pub max_fds: Option<u64>,
}

impl Process {
    pub(super) fn cpu_seconds(&self) -> f64 {
        ticks_to_seconds(self.cpu_ticks)
    }
}

/// Looks at this process; `None` where there is no `/proc`.
pub(super) fn sample() -> Option<Process> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let system = fs::read_to_string("/proc/stat").ok()?;
    // The directory that is being read is an open file, too.
    let open_fds = (fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1);
    parse(&stat, &status, &system, open_fds, getrlimit(Resource::Nofile).current)
}

fn parse(stat: &str, status: &str, system: &str, open_fds: u64, max_fds: Option<u64>) -> Option<Process> {
    // The command's name may hold spaces and brackets; everything after its last bracket is numbers.
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    // proc(5) counts from 1 and the state, first here, is number 3.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let boot_seconds: u64 = value_after(system, "btime ")?.parse().ok()?;
    let kilobytes = |name| value_after(status, name)?.parse::<u64>().ok()?.checked_mul(1024);
    Some(Process {
        cpu_ticks: field(14)? + field(15)?,
        start_seconds: ticks_to_seconds(boot_seconds * TICKS_PER_SECOND + field(22)?),
        resident_bytes: kilobytes("VmRSS:")?,
        virtual_bytes: kilobytes("VmSize:")?,
        open_fds,
        max_fds,
    })
}

/// The first word after `name` on the line that begins with it.
fn value_after<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace().next()
}

#[expect(clippy::cast_precision_loss, reason = "2^53 ticks are three million years")]
fn ticks_to_seconds(ticks: u64) -> f64 {
    ticks as f64 / TICKS_PER_SECOND as f64
}

#[cfg(test)]
mod tests {
    use super::{parse, sample};

    #[test]
    fn fields_are_found_behind_a_name_with_brackets() {
        let stat = "1 (a) b) S 2 3 4 5 6 7 8 9 10 11 150 25 14 15 16 17 18 19 1234 0 0";
        let status = "Name:\ta\nVmSize:\t   20 kB\nVmRSS:\t 10 kB\n";
        let process = parse(stat, status, "cpu 1\nbtime 1000\n", 7, Some(9)).unwrap();
        assert_eq!(process.cpu_seconds().to_string(), "1.75");
        assert_eq!(process.start_seconds.to_string(), "1012.34");
        assert_eq!((process.resident_bytes, process.virtual_bytes), (10_240, 20_480));
        assert_eq!(parse("1 a", status, "btime 1\n", 7, None), None);
        assert_eq!(parse(stat, "", "btime 1\n", 7, None), None);
    }

    #[test]
    fn this_process_is_plausible() {
        let process = sample().unwrap();
        assert!(process.open_fds >= 3 && process.resident_bytes > 100 * 1024);
        assert!(process.start_seconds > 1.5e9 && process.virtual_bytes >= process.resident_bytes);
    }
}
