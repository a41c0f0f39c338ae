//! How long nothing can be done when the leader goes.
//!
//! Owns: the measure, with bounds that leave room for a busy machine. More trials, with figures:
//! `cargo test --test cluster gaps -- --ignored --nocapture`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use covey::wire::etcdserverpb as pb;
use pb::kv_client::KvClient;
use pb::lease_client::LeaseClient;
use smol::stream;
use tonic::Status;

use crate::channel::Channel;
use crate::client::channel;
use crate::process::{Cluster, Host, now, wait};
use crate::silence::{AFTERMATH, longest};

/// What a client that knows one follower is promised.
const AT_ONE_MAX: Duration = Duration::from_secs(2);
/// What a client does before it does the same again: the members share a machine.
const PAUSE: Duration = Duration::from_millis(5);

/// What a client does all the time. Each needs the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Put,
    Get,
    /// Renews a lease.
    Renew(i64),
}

impl Work {
    async fn once(self, channel: Channel) -> Result<(), Status> {
        match self {
            Self::Put => {
                let put = pb::PutRequest { key: "key".into(), value: "value".into(), ..Default::default() };
                KvClient::new(channel).put(put).await.map(drop)
            }
            Self::Get => {
                let get = pb::RangeRequest { key: "key".into(), ..Default::default() };
                KvClient::new(channel).range(get).await.map(drop)
            }
            Self::Renew(id) => {
                let asked = stream::once(pb::LeaseKeepAliveRequest { id });
                let mut answers = LeaseClient::new(channel).lease_keep_alive(asked).await?.into_inner();
                let answer = answers.message().await?.ok_or_else(|| Status::unavailable("no answer"))?;
                assert!(answer.ttl > 0, "the lease has ended");
                Ok(())
            }
        }
    }

    /// Through one member on one connection until it is told to stop; when each was done.
    fn keep_on(self, host: &Host, stop: &AtomicBool) -> Vec<Instant> {
        let mut done = Vec::new();
        smol::block_on(async {
            let mut connection = None;
            while !stop.load(Ordering::Relaxed) {
                if connection.is_none() {
                    connection = channel(host).await.ok();
                }
                match &connection {
                    Some(channel) if self.once(channel.clone()).await.is_ok() => done.push(now()),
                    _ => connection = None,
                }
                smol::Timer::after(PAUSE).await;
            }
        });
        done
    }
}

/// What one trial has come to: the longest time without any write, and without what a client does at a single follower.
#[derive(Clone, Copy, Debug)]
struct Gap {
    of_all: Duration,
    at_one: (Duration, Work),
}

/// One trial: everybody works, and the leader is sent `signal`.
fn trial(cluster: &mut Cluster, signal: &str) -> Gap {
    let leader = cluster.leader();
    // Ended in the middle, it would have ended early.
    let granted = cluster.hosts[leader].must(&["lease", "grant", "5"]);
    let lease = i64::from_str_radix(granted.split_whitespace().nth(1).unwrap(), 16).unwrap();
    let (hosts, stop) = (&cluster.hosts, &AtomicBool::new(false));
    let (from, done) = thread::scope(|scope| {
        let works = [Work::Put, Work::Get, Work::Renew(lease)];
        let all = works.into_iter().flat_map(|work| (0..hosts.len()).map(move |host| (work, host)));
        let clients: Vec<_> = all
            .map(|(work, host)| (work, host, scope.spawn(move || work.keep_on(&hosts[host], stop))))
            .collect();
        wait(Duration::from_secs(1));
        let from = now();
        hosts[leader].signal(signal);
        wait(AFTERMATH);
        stop.store(true, Ordering::Relaxed);
        if signal == "-STOP" {
            // Its own clients are waiting.
            hosts[leader].signal("-CONT");
        }
        let done: Vec<_> =
            clients.into_iter().map(|(work, host, client)| (work, host, client.join().unwrap())).collect();
        (from, done)
    });
    if signal != "-STOP" {
        cluster.hosts[leader].ended();
        cluster.hosts[leader].start(&[]);
    }
    cluster.wait_ready();
    let followers = done.iter().filter(|(_, host, _)| *host != leader);
    let gaps = followers.map(|(work, _, times)| (longest(times.clone(), from), *work));
    let at_one = gaps.max_by_key(|(gap, _)| *gap).unwrap();
    let writes = done.into_iter().filter(|(work, ..)| *work == Work::Put).flat_map(|(_, _, times)| times);
    Gap { of_all: longest(writes.collect(), from), at_one }
}

fn trials(cluster: &mut Cluster, count: usize, signal: &str) -> Vec<Gap> {
    let mut gaps: Vec<Gap> = (0..count).map(|_| trial(cluster, signal)).collect();
    gaps.sort_unstable_by_key(|gap| gap.of_all);
    gaps
}

#[test]
fn a_lost_leader_is_replaced_soon_and_one_that_ends_is_hardly_missed() {
    let mut cluster = Cluster::start(3);
    for signal in ["-KILL", "-STOP"] {
        let lost = trials(&mut cluster, 2, signal);
        assert!(lost.iter().all(|gap| gap.at_one.0 < AT_ONE_MAX), "{signal}: {lost:?}");
    }
    let ended = trials(&mut cluster, 2, "-TERM");
    assert!(ended[0].of_all < Duration::from_millis(500), "{ended:?}");
}

#[test]
#[ignore = "figures, and nothing to compare them with"]
fn figures() {
    let mut cluster = Cluster::start(3);
    for signal in ["-KILL", "-STOP", "-TERM"] {
        let gaps = trials(&mut cluster, 10, signal);
        let (p50, worst) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
        let (at_one, work) = gaps.iter().map(|gap| gap.at_one).max_by_key(|(gap, _)| *gap).unwrap();
        println!(
            "{signal}: no write for {:?} (p50), {:?} (most); through one follower for {at_one:?} at most ({work:?})",
            p50.of_all, worst.of_all
        );
    }
}
