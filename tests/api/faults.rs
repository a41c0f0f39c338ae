//! What the threads of a node do when the disk under the log fails: the node ends, and nobody is told that a write succeeded.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use covey::command::{Command, LeaseChange, Put};
use covey::disk::sim::{Fault as DiskFault, FaultPlan, SimDir, SimFile};
use covey::disk::{Directory, File};
use covey::ids::LeaseId;
use covey::runtime::{Fault, Handle, ServeError};
use smol::Timer;
use tempfile::TempDir;

use crate::harness::{Setup, run, start_node_on, until};

/// Operations of the log's directory that a put makes at most: a write and a sync.
const OPERATIONS_OF_A_PUT: u64 = 2;

fn put(key: &'static str) -> Command {
    Command::Put(Put {
        key: Bytes::from_static(key.as_bytes()),
        value: Some(Bytes::from_static(b"v")),
        lease: LeaseChange::Set(LeaseId::NONE),
        prev_kv: false,
    })
}

fn has(handle: &Handle, key: &'static str) -> bool {
    let view = handle.view();
    view.get(&Bytes::from_static(key.as_bytes()), view.revision()).unwrap().is_some()
}

#[test]
fn a_write_or_sync_that_fails_ends_the_node_without_an_answer() {
    for nth in 1..=OPERATIONS_OF_A_PUT {
        for fault in [DiskFault::Eio, DiskFault::Enospc] {
            run(async {
                let (disk, dir) = (SimDir::new(nth), TempDir::new().unwrap());
                let node = start_node_on(disk.clone(), dir.path(), &Setup::default());
                let handle = node.handle().clone();
                until("a leader", || handle.status().leader.is_some()).await;
                handle.propose(put("before")).await.unwrap();
                // Nobody writes now, so the operation that fails is one of the next put.
                let mut quiet = disk.operations();
                loop {
                    Timer::after(Duration::from_millis(50)).await;
                    if std::mem::replace(&mut quiet, disk.operations()) == quiet {
                        break;
                    }
                }
                let fail_at = BTreeMap::from([(quiet + nth, fault)]);
                disk.plan(FaultPlan { fail_at, ..FaultPlan::default() });

                let asked = handle.propose(put("after"));
                smol::pin!(asked);
                let ended = async { Err(node.fault().await) };
                let answered = async { Ok(asked.as_mut().await) };
                match smol::future::or(answered, ended).await {
                    Err(Fault::Wal(_)) => {}
                    other => panic!("operation {nth}, {fault:?}: {other:?}"),
                }
                assert!(has(&handle, "before") && !has(&handle, "after"), "what is not durable is not shown");
                node.close();
                assert_eq!(asked.await, Err(ServeError::Stopped));
                assert!(matches!(handle.propose(put("later")).await, Err(ServeError::Stopped)));
            });
        }
    }
}

/// Clients may still be told that the node stops, for a moment; what comes of that is its own process's business, and no failure.
#[test]
fn a_node_that_has_stopped_in_order_is_no_fault() {
    run(async {
        let (disk, dir) = (SimDir::new(1), TempDir::new().unwrap());
        let node = start_node_on(disk, dir.path(), &Setup::default());
        let handle = node.handle().clone();
        until("a leader", || handle.status().leader.is_some()).await;
        node.close();
        let fault = async { Some(node.fault().await) };
        let late = async {
            // Long enough for its threads to end.
            Timer::after(Duration::from_millis(500)).await;
            None
        };
        let fault = smol::future::or(fault, late).await;
        assert!(fault.is_none(), "{fault:?}");
        assert!(node.stop().is_ok());
    });
}

/// A disk whose syncs hang while somebody holds the lock.
#[derive(Clone)]
struct Hanging {
    disk: SimDir,
    hold: Arc<Mutex<()>>,
}

#[derive(Debug)]
struct HangingFile {
    file: SimFile,
    hold: Arc<Mutex<()>>,
}

impl Hanging {
    fn file(&self, file: SimFile) -> HangingFile {
        HangingFile { file, hold: Arc::clone(&self.hold) }
    }
}

impl Directory for Hanging {
    type File = HangingFile;

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<HangingFile> {
        Ok(self.file(self.disk.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<HangingFile> {
        Ok(self.file(self.disk.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn subdirectory(&self, name: &str) -> io::Result<Self> {
        Ok(Self { disk: self.disk.subdirectory(name)?, hold: Arc::clone(&self.hold) })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }

    fn overwrites_in_place(&self) -> io::Result<bool> {
        self.disk.overwrites_in_place()
    }
}

impl File for HangingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        drop(self.hold.lock().unwrap_or_else(PoisonError::into_inner));
        self.file.sync_data()
    }
}

/// By its pulse a service manager is told that the node lives, and starts it anew if not.
#[test]
fn a_node_whose_log_hangs_has_no_pulse() {
    let (hold, dir) = (Arc::new(Mutex::new(())), TempDir::new().unwrap());
    let node = start_node_on(
        Hanging { disk: SimDir::new(1), hold: Arc::clone(&hold) },
        dir.path(),
        &Setup::default(),
    );
    let handle = node.handle().clone();
    let has_pulse = || {
        smol::block_on(smol::future::or(async { Some(handle.pulse().await) }, async {
            Timer::after(Duration::from_millis(300)).await;
            None
        }))
    };
    smol::block_on(handle.propose(put("before"))).unwrap();
    assert_eq!(has_pulse(), Some(true));
    let hangs = hold.lock().unwrap();
    let asked = handle.propose(put("after"));
    smol::pin!(asked);
    assert!(smol::block_on(smol::future::poll_once(asked.as_mut())).is_none());
    // The question may come to the log before what it hangs at.
    assert!((0..20).any(|_| has_pulse().is_none()), "the core lives and the log does not");
    drop(hangs);
    assert!(smol::block_on(asked).is_ok());
    assert!(smol::block_on(handle.pulse()));
    node.close();
    assert!(!smol::block_on(handle.pulse()), "it has stopped");
    node.stop().unwrap();
}
