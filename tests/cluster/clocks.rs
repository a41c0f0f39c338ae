//! Clocks that jump by decades under members that run: clients see nothing of it, and leases last as long as they were granted. `.ci/run lan`, which
//! installs libfaketime.

use std::time::Duration;

use crate::histories::{goes_on, judge};
use crate::process::{Cluster, Host, now, until};

/// Outlives the test.
const LONG: &str = "3600";
const LONG_SECONDS: u64 = 3600;
/// Longer than a jump and the look after it take.
const SHORT: &str = "15";
const SHORT_LASTS: Duration = Duration::from_secs(15);
/// What a look takes, on a busy machine.
const LOOK: Duration = Duration::from_secs(2);
/// What the end of a lease may come later.
const LATE: Duration = Duration::from_secs(10);

/// Grants a lease and attaches a key of the same name to it; its id.
fn grant(host: &Host, seconds: &str, key: &str) -> String {
    let granted = host.must(&["lease", "grant", seconds]);
    let id = granted.split_whitespace().nth(1).unwrap().to_owned();
    host.must(&["put", key, "here", "--lease", &id]);
    id
}

/// What is left of a lease in seconds; nothing once it has ended.
fn remaining(host: &Host, id: &str) -> Option<u64> {
    let said = host.must(&["lease", "timetolive", id]);
    let left = said.split_once("remaining(")?.1.split_once('s')?.0;
    Some(left.parse().unwrap())
}

/// The year that stands in front of the last line of its log.
fn year(host: &Host) -> i32 {
    // It writes one.
    let lines = host.log().lines().count();
    host.signal("-HUP");
    until("a line in the log", || (host.log().lines().count() > lines).then_some(()));
    host.log().lines().last().unwrap()[..4].parse().unwrap()
}

#[test]
#[ignore = "needs libfaketime"]
fn a_clock_that_jumps_by_decades_under_load_changes_nothing() {
    let mut cluster = Cluster::prepare(3);
    let initial = cluster.initial();
    for n in 0..3 {
        let clock = cluster.path(&format!("clock{n}"));
        cluster.hosts[n].clock = Some(clock);
        cluster.hosts[n].set_clock("+0");
        cluster.hosts[n].start(&["--initial-cluster", &initial]);
    }
    cluster.wait_ready();
    let long = grant(&cluster.hosts[0], LONG, "long");
    let truth = year(&cluster.hosts[0]);
    judge(&mut cluster, |cluster, load| {
        // The one that leads, by which leases end, and one that follows.
        for (from_leader, jump, years) in
            [(0, "+10y", 10), (0, "-50y", -50), (1, "+10y", 10), (1, "-50y", -50)]
        {
            let jumps = (cluster.leader() + from_leader) % 3;
            let host = &cluster.hosts[jumps];
            let (short, granted) = (grant(host, SHORT, "short"), now());
            host.set_clock(jump);
            // Years of libfaketime have 365 days.
            assert!((year(host) - truth - years).abs() <= 1, "the clock has not jumped: {}", host.log());
            goes_on(load);
            for host in &cluster.hosts {
                let left = remaining(host, &long).expect("a long lease is lost");
                assert!(left > LONG_SECONDS / 2 && left <= LONG_SECONDS, "{left}");
            }
            if granted.elapsed() + LOOK < SHORT_LASTS {
                assert!(remaining(&cluster.hosts[0], &short).is_some(), "a short lease is lost");
            }
            until("the end of a short lease", || {
                remaining(&cluster.hosts[0], &short).is_none().then_some(())
            });
            let lasted = granted.elapsed();
            assert!(lasted + LOOK >= SHORT_LASTS && lasted < SHORT_LASTS + LATE, "{lasted:?}");
            assert_eq!(cluster.hosts[1].must(&["get", "short"]), "");
            cluster.hosts[jumps].set_clock("+0");
        }
        assert_eq!(cluster.hosts[2].must(&["get", "long"]), "long\nhere\n");
    });
}
