//! An operator of a box that is stopped: what it decides is proposed by a node on the box's data directory, inside of the test.
//!
//! Owns: that node, which is alone and so leads. Must never: be used on a directory whose cluster needs other votes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use covey::api::methods;
use covey::app::{DataDir, OpenOptions, Opened, WhenFresh};
use covey::command::{CharterCommand, Command};
use covey::consensus::Pace;
use covey::formation::{DiskOptions, Identity, JoinToken};
use covey::mvcc::Facts;
use covey::node::{Recovery, recover};
use covey::prng::Prng;
use covey::runtime::clock::Clock;
use covey::runtime::{AdmissionOptions, NodeIds, Parts, Running};
use covey::telemetry::metrics::Metrics;
use covey::watch::Hub;
use smol::Timer;

/// How often is looked whether the node leads.
const LOOK: Duration = Duration::from_millis(10);
const HOUR: u64 = 3600;

/// What the box has: who it is, and the state of its cluster.
pub struct Seen {
    pub identity: Identity,
    pub facts: Facts,
}

/// Makes a token.
pub fn create(token: &JoinToken) -> CharterCommand {
    CharterCommand::CreateToken { id: token.id(), key: token.key(), seconds: HOUR }
}

/// Proposes these, all of which must take effect, and tells what has become of the state.
pub fn decide(data_dir: &Path, commands: &[CharterCommand]) -> Seen {
    let options = OpenOptions { when_fresh: WhenFresh::Meet, disk: DiskOptions::default() };
    let Ok(Opened::Node(DataDir { content, lock })) = DataDir::open(data_dir, options) else {
        panic!("there is no cluster in {}", data_dir.display());
    };
    let covey::formation::DataDir { identity, root, store, wal, recovered, .. } = content;
    let recovery = Recovery {
        member: identity.member,
        boot_nonce: identity.boot_nonce,
        base: Arc::new(store.base().unwrap()),
        hard_state: recovered.hard_state,
        log_start: recovered.start,
        entries: recovered.entries,
        quota_bytes: None,
        pace: Pace::default(),
        prng: Prng::new(1),
    };
    let clock = Clock::start();
    let (core, applier) = recover(clock.now(), recovery, &covey::telemetry::raft_logger()).unwrap();
    let (cluster, member, boot_nonce) = (identity.cluster(), identity.member, identity.boot_nonce);
    let ids = NodeIds { cluster, member, boot_nonce };
    let admission = AdmissionOptions { request_bytes: 1 << 20, quota: None, hold_until: None };
    let hub = Hub::new(
        covey::watch::Options {
            progress_interval: Duration::from_secs(600),
            limits: covey::watch::Limits::default(),
        },
        Prng::new(2),
    );
    let parts = Parts {
        core,
        applier,
        wal,
        root,
        store,
        ids,
        admission,
        space: Arc::default(),
        whereabouts: None,
        hub,
    };
    let running = Running::start(parts, clock, Arc::new(Metrics::new(methods(false)))).unwrap();
    let handle = running.handle().clone();
    smol::block_on(async {
        while handle.status().leader != Some(member) {
            Timer::after(LOOK).await;
        }
        for command in commands {
            let applied = handle.propose(Command::Charter(command.clone())).await.unwrap();
            applied.outcome.unwrap();
        }
    });
    let facts = smol::block_on(async {
        handle.read_barrier().await.unwrap();
        handle.view().facts().clone()
    });
    running.stop().unwrap();
    drop(lock);
    Seen { identity, facts }
}
