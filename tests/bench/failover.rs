//! How long no client of a cluster of three can write when its leader goes.
//!
//! Owns: the writers, of which every member has one. Must never: wait for an answer that may not come: a writer that is not
//! answered soon asks anew, so that what is measured is the cluster and not a client's patience. Driven by `cases`.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use crate::cases::{KEYS, PUT, Pace, call, millis, put_message};
use crate::load::{Target, percentile};
use crate::report::Row;
use crate::server::{Kind, Programs};
use crate::silence::{AFTERMATH, longest};
use crate::three::{Cluster, SETTLE};

/// Of each kind of end.
const TRIALS: usize = 12;

/// A writer that has not been answered by then gives up its connection.
const PATIENCE: Duration = Duration::from_millis(50);
const PAUSE: Duration = Duration::from_millis(1);

/// The time without writes after a leader's end, by SIGKILL and by SIGTERM.
pub fn gaps(programs: &Programs, _: Pace) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (signal, kill) in [("SIGKILL", true), ("SIGTERM", false)] {
        let (covey, etcd) = (trials(programs, Kind::Covey, kill)?, trials(programs, Kind::Etcd, kill)?);
        let name = |what: &str| format!("three nodes, no write after {signal} of the leader: {what}");
        let at = |share: f64| (millis(percentile(&covey, share)), millis(percentile(&etcd, share)));
        let (p50, most) = (at(0.5), at(1.0));
        let mut row = Row::at_most(name("p50"), "ms", p50.0, p50.1, kill.then_some(0.6));
        row.limit = (!kill).then_some(30.0);
        rows.extend([row, Row::at_most(name("most"), "ms", most.0, most.1, None)]);
    }
    Ok(rows)
}

/// Sorted.
fn trials(programs: &Programs, kind: Kind, kill: bool) -> io::Result<Vec<Duration>> {
    let mut cluster = Cluster::start(programs, kind, &[])?;
    let mut gaps = Vec::new();
    for _ in 0..TRIALS {
        sleep(SETTLE);
        gaps.push(trial(&mut cluster, kill)?);
    }
    gaps.sort_unstable();
    Ok(gaps)
}

fn trial(cluster: &mut Cluster, kill: bool) -> io::Result<Duration> {
    let leader = cluster.leader()?;
    let targets = cluster.targets.clone();
    let stop = AtomicBool::new(false);
    let (from, acknowledged) = thread::scope(|scope| -> io::Result<_> {
        let writers: Vec<_> = targets.iter().map(|target| scope.spawn(|| write(target, &stop))).collect();
        sleep(Duration::from_secs(1));
        let from = Instant::now();
        let ended = cluster.end(leader, kill);
        sleep(AFTERMATH);
        stop.store(true, Ordering::Relaxed);
        let acknowledged = writers.into_iter().flat_map(|writer| writer.join().unwrap_or_default()).collect();
        ended.map(|()| (from, acknowledged))
    })?;
    cluster.restart(leader)?;
    Ok(longest(acknowledged, from))
}

/// Puts through one member until it is told to stop; when each was acknowledged.
fn write(target: &Target, stop: &AtomicBool) -> Vec<Instant> {
    let mut acknowledged = Vec::new();
    smol::block_on(async {
        let (mut connection, mut number) = (None, 0);
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            let message = put_message(number, KEYS);
            let put = async {
                let mut open = match connection.take() {
                    Some(open) => open,
                    None => target.connect().await.ok()?,
                };
                call(&mut open, PUT, &message).await.ok()?;
                Some(open)
            };
            let late = async {
                smol::Timer::after(PATIENCE).await;
                None
            };
            connection = smol::future::or(put, late).await;
            if connection.is_some() {
                acknowledged.push(Instant::now());
            }
            smol::Timer::after(PAUSE).await;
        }
    });
    acknowledged
}
