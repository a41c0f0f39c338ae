//! How long nothing can be written when the leader goes.
//!
//! Owns: the measure, with bounds that leave room for a busy machine. More trials, with figures:
//! `cargo test --test cluster gaps -- --ignored --nocapture`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use covey::wire::etcdserverpb as pb;

use crate::client::kv_client;
use crate::process::{Cluster, Host, now, wait};
use crate::silence::{AFTERMATH, longest};

/// What one trial has come to: the longest time without any write, and without one at a single follower.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Gap {
    of_all: Duration,
    at_one: Duration,
}

/// Writes through one member on one connection until it is told to stop; when each write was acknowledged.
fn write(host: &Host, stop: &AtomicBool) -> Vec<Instant> {
    let mut acknowledged = Vec::new();
    smol::block_on(async {
        let mut client = None;
        while !stop.load(Ordering::Relaxed) {
            if client.is_none() {
                client = kv_client(host).await.ok();
            }
            let put = pb::PutRequest { key: "key".into(), value: "value".into(), ..Default::default() };
            let done = match &mut client {
                Some(client) => client.put(put).await.is_ok(),
                None => false,
            };
            if done {
                acknowledged.push(now());
            } else {
                client = None;
                smol::Timer::after(Duration::from_millis(2)).await;
            }
        }
    });
    acknowledged
}

/// One trial: everybody writes, and the leader is sent `signal`.
fn trial(cluster: &mut Cluster, signal: &str) -> Gap {
    let leader = cluster.leader();
    let (hosts, stop) = (&cluster.hosts, &AtomicBool::new(false));
    let (from, writes) = thread::scope(|scope| {
        let writers: Vec<_> = hosts.iter().map(|host| scope.spawn(move || write(host, stop))).collect();
        wait(Duration::from_secs(1));
        let from = now();
        hosts[leader].signal(signal);
        wait(AFTERMATH);
        stop.store(true, Ordering::Relaxed);
        let writes: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        (from, writes)
    });
    cluster.hosts[leader].ended();
    cluster.hosts[leader].start(&[]);
    cluster.wait_ready();
    let at_one =
        (0..writes.len()).filter(|host| *host != leader).map(|host| longest(writes[host].clone(), from));
    Gap { at_one: at_one.max().unwrap(), of_all: longest(writes.concat(), from) }
}

fn trials(count: usize, signal: &str) -> Vec<Gap> {
    let mut cluster = Cluster::start(3);
    let mut gaps: Vec<Gap> = (0..count).map(|_| trial(&mut cluster, signal)).collect();
    gaps.sort_unstable();
    gaps
}

#[test]
fn a_lost_leader_is_replaced_soon_and_one_that_ends_is_hardly_missed() {
    let killed = trials(2, "-KILL");
    assert!(killed[0].of_all < Duration::from_millis(2500), "{:?}", killed[0].of_all);
    assert!(killed[0].at_one < Duration::from_millis(2500), "{:?}", killed[0].at_one);
    let ended = trials(2, "-TERM");
    assert!(ended[0].of_all < Duration::from_millis(500), "{:?}", ended[0].of_all);
}

#[test]
#[ignore = "figures, and nothing to compare them with"]
fn figures() {
    for signal in ["-KILL", "-TERM"] {
        let gaps = trials(10, signal);
        let (p50, worst) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
        let at_one = gaps.iter().map(|gap| gap.at_one).max().unwrap();
        println!(
            "{signal}: no write for {:?} (p50), {:?} (most); through one follower for {at_one:?} at most",
            p50.of_all, worst.of_all
        );
    }
}
