//! What the transport costs. Run by name: `cargo test --release --test peer -- --ignored --nocapture --test-threads=1 costs`.
//!
//! Owns: figures, printed. Must never: fail because a machine is slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use covey::peer::Event;

use crate::harness::{Log, Node, append, heartbeat, identity, peer};

/// CPU time of all threads of the process, from the scheduler.
fn cpu() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
    };
    Duration::from_nanos(tasks.map(|task| of(task.unwrap().path())).sum())
}

fn status(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// How often the process's threads have been woken.
fn switches() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0)
    };
    tasks.map(|task| of(task.unwrap().path())).sum()
}

/// Two nodes; the second one only counts.
fn counted() -> (Node, Node, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&count);
    let a = Node::start(identity(1));
    let sink = Arc::new(move |event| {
        if let Event::Messages(received) = event {
            counter.fetch_add(u64::try_from(received.messages().len()).unwrap(), Ordering::Relaxed);
        }
    });
    let b = Node::start_with(identity(2), "127.0.0.1:0".parse().unwrap(), Arc::new(Log::default()), sink);
    a.trust(&[b.peer()]);
    b.trust(&[peer(&a.identity, &[])]);
    a.wait_connected(2);
    std::thread::sleep(Duration::from_millis(300));
    (a, b, count)
}

#[test]
#[ignore = "prints figures"]
fn cpu_per_message_in_batches_of_1_and_32() {
    let (a, _b, count) = counted();
    for (batch, payload) in [(1, 256), (32, 256), (1, 16 * 1024), (32, 16 * 1024)] {
        let rounds = 20_000 / batch;
        let (before, began) = (cpu(), Instant::now());
        let start = count.load(Ordering::Relaxed);
        for round in 0..rounds {
            a.transport.send((0..batch).map(|n| append(1, 2, n, payload)).collect());
            while count.load(Ordering::Relaxed) - start < (round + 1) * batch {
                std::thread::sleep(Duration::from_micros(20));
            }
        }
        let messages = u32::try_from(rounds * batch).unwrap();
        println!(
            "batches of {batch}, {payload} bytes: {:?} CPU and {:?} a message, both ends and the test together",
            cpu().saturating_sub(before) / messages,
            began.elapsed() / messages
        );
    }
}

#[test]
#[ignore = "prints figures"]
fn wakeups_of_a_pair() {
    let (a, _b, _) = counted();
    for heartbeats in [false, true] {
        let (before, ticks) = (switches(), 200);
        for n in 0..ticks {
            if heartbeats {
                a.transport.send(vec![heartbeat(1, 2, n)]);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        // The test's own thread wakes once a tick.
        let woken = (switches() - before - ticks) * 10 / ticks;
        println!("heartbeats every 100 ms: {heartbeats}: {woken} wakeups a second for both ends");
    }
}

#[test]
#[ignore = "prints figures"]
fn memory_per_idle_connection() {
    let count = 100;
    let others: Vec<Node> = (1..=count).map(|id| Node::start(identity(id))).collect();
    let hubs: Vec<Node> = (1001..=1004).map(|id| Node::start(identity(id))).collect();
    let everybody: Vec<_> = others.iter().map(Node::peer).collect();
    let mut before = 0;
    // What a node's thread touches with its first connection is not the connection's.
    for known in 1..=hubs.len() {
        let hub = &hubs[known - 1];
        hub.trust(&everybody);
        let of_hubs: Vec<_> = hubs[..known].iter().map(Node::peer).collect();
        for other in &others {
            other.trust(&of_hubs);
        }
        for other in &others {
            hub.wait_connected(other.id());
            other.wait_connected(hub.id());
        }
        std::thread::sleep(Duration::from_secs(3));
        let now = status("VmRSS");
        println!("{known} connections a node: {} kB more per end", now.saturating_sub(before) / (2 * count));
        before = now;
    }
}
