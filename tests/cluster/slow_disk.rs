//! Disks on which a sync takes seconds: everybody waits, and nobody is elected; and one on which it takes minutes. Root and strace, by `.ci/run crash` and, for metrics, `prometheus`.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::client;
use crate::process::{Cluster, Host, now, until};

/// Where Debian has it: members are started without a PATH.
const STRACE: &str = "/usr/bin/strace";
/// What each sync takes longer.
pub const DELAY: Duration = Duration::from_secs(2);
/// The same for a disk that is stuck: longer than anybody waits.
const STUCK: Duration = Duration::from_secs(300);
/// How long a leader waits for such a disk.
const STUCK_AFTER: Duration = covey::limits::DISK_STUCK;
/// How long they do.
const TROUBLE: Duration = Duration::from_secs(30);
/// The threads that sync, as the map of the threads has them.
const SYNCING: [&str; 2] = ["wal", "checkpoint"];

/// While it lives, each sync of one member takes so much longer. The threads that do not sync run on untouched, as with a disk that is slow.
pub struct SlowSyncs(Child);

impl SlowSyncs {
    pub fn of(host: &Host, delay: Duration) -> Self {
        let tasks = fs::read_dir(format!("/proc/{}/task", host.pid())).unwrap().map(Result::unwrap);
        let named = |name: &str| SYNCING.contains(&name.trim());
        let syncing: Vec<String> = tasks
            .filter(|task| named(&fs::read_to_string(task.path().join("comm")).unwrap()))
            .map(|task| task.file_name().into_string().unwrap())
            .collect();
        assert_eq!(syncing.len(), SYNCING.len(), "{syncing:?}");
        let inject = format!("inject=fdatasync,fsync:delay_exit={}", delay.as_micros());
        let mut command = Command::new(STRACE);
        command.args(["-qq", "-e", "trace=fdatasync,fsync", "-e", &inject, "-o", "/dev/null"]);
        command.args(["-p", &syncing.join(",")]);
        let slow = Self(command.stdin(Stdio::null()).spawn().unwrap());
        let is_traced = |task: &String| {
            let status = fs::read_to_string(format!("/proc/{}/task/{task}/status", host.pid())).unwrap();
            !status.contains("TracerPid:\t0\n")
        };
        until("slow syncs", || syncing.iter().all(is_traced).then_some(()));
        slow
    }
}

impl Drop for SlowSyncs {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
#[ignore = "needs root and strace"]
fn syncs_of_two_seconds_everywhere_elect_nobody_and_are_told_of() {
    let cluster = Cluster::start(3);
    cluster.hosts[0].must(&["put", "key", "before"]);
    let leader = cluster.leader();
    let term = cluster.hosts[leader].term();
    let slow: Vec<SlowSyncs> = cluster.hosts.iter().map(|host| SlowSyncs::of(host, DELAY)).collect();
    let (began, mut puts) = (now(), 0);
    while began.elapsed() < TROUBLE {
        let began = now();
        smol::block_on(client::put(&cluster.hosts[(leader + 1) % 3], "key", &puts.to_string())).unwrap();
        assert!(began.elapsed() >= DELAY, "the syncs are not slow");
        puts += 1;
        assert!(cluster.hosts[leader].leads(), "another one was elected");
    }
    assert!(puts >= 4, "{puts}");
    drop(slow);
    for host in &cluster.hosts {
        assert_eq!(host.term(), term, "{}", host.log());
        let log = host.log();
        let warnings: Vec<&str> = log.lines().filter(|line| line.contains("the disk is slow")).collect();
        // A minute is longer than the trouble. Log and store are told of, each by itself.
        let of_log = format!("{}/", host.data_dir.join("wal").display());
        let of_log: Vec<&&str> = warnings.iter().filter(|warning| warning.contains(&of_log)).collect();
        let [warning] = of_log[..] else { panic!("{}: {warnings:?}", host.name) };
        assert!(warnings.len() <= 2, "{warnings:?}");
        let took = warning.split_once("took_ms=").unwrap().1.split(' ').next().unwrap();
        assert!(took.parse::<u128>().unwrap() >= DELAY.as_millis(), "{warning}");
        assert!(warning.contains(" warn "), "{warning}");
    }
    until("quick writes", || {
        let began = now();
        smol::block_on(client::put(&cluster.hosts[0], "key", "after")).ok()?;
        (began.elapsed() < DELAY).then_some(())
    });
}

/// The others do not need it, and go on; it comes back once its disk does.
#[test]
#[ignore = "needs root and strace"]
fn a_leader_whose_disk_is_stuck_hands_over() {
    let mut cluster = Cluster::start(3);
    cluster.hosts[0].must(&["put", "key", "before"]);
    let old = cluster.leader();
    let other = (old + 1) % 3;
    let began = now();
    let stuck = SlowSyncs::of(&cluster.hosts[old], STUCK);
    // By the disks of the two others, for one of whom it is.
    smol::block_on(client::put(&cluster.hosts[other], "key", "meanwhile")).unwrap();
    let new = until("another leader", || (0..3).find(|n| *n != old && cluster.hosts[*n].leads()));
    let took = began.elapsed();
    assert!((STUCK_AFTER..STUCK_AFTER + Duration::from_secs(5)).contains(&took), "{took:?}");
    let term = cluster.hosts[new].term();
    let told = cluster.hosts[old].log();
    let told: Vec<&str> = told.lines().filter(|line| line.contains("the disk is stuck")).collect();
    assert!(matches!(told[..], [line] if line.contains(" heir=")), "{told:?}");
    let began = now();
    while began.elapsed() < TROUBLE {
        smol::block_on(client::put(&cluster.hosts[new], "key", "without")).unwrap();
        assert!(cluster.hosts[new].leads(), "another one was elected");
    }
    assert_eq!(cluster.hosts[other].term(), term);
    drop(stuck);
    cluster.wait_ready();
    assert_eq!(cluster.hosts[old].must(&["get", "key"]), "key\nwithout\n");
}
