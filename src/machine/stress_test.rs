//! Readers on their own threads while the applier publishes and the store folds and removes: every view is a whole number of commands.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use bytes::Bytes;

use super::Machine;
use super::rig::{base, interval, new_store, put, range};
use crate::command::{Command, DeleteRange, Op, Range, RangeResult, Txn};
use crate::ids::{LogIndex, Revision, Term};
use crate::mvcc::{Allowance, RangePages, View, ViewCell};
use crate::store::{Base, FoldBatch, Store};

const COMMANDS: i64 = 4000;
/// Keys of the window that are live at any time.
const WINDOW: i64 = 300;
/// Revisions that compaction leaves.
const RETAINED: i64 = 200;
const READERS: usize = 3;

/// What the store's thread is asked for: a fold, or else a slice of removal.
type Job = Option<FoldBatch>;

/// The `number`th command: one new key in the window, the oldest one out, and two keys that always change together.
///
/// It makes revision `number + 2`.
fn command(number: i64) -> Command {
    let value = number.to_string();
    let out = window_key(number - WINDOW);
    Command::Txn(Txn {
        success: vec![
            Op::Put(put("left", &value)),
            Op::Put(put(&window_key(number), &value)),
            Op::DeleteRange(DeleteRange { range: interval(&out, ""), prev_kv: false }),
            Op::Put(put("right", &value)),
        ],
        ..Txn::default()
    })
}

/// Scattered over the key space, so that layers interleave.
fn window_key(number: i64) -> String {
    format!("window/{:05}", (number * 7919).rem_euclid(100_003))
}

/// What holds at every revision that a command made.
fn check_revision(view: &View, revision: Revision) {
    let number = revision.0 - 2;
    let at = |key: &str, end: &str| {
        view.range(&Range { revision: revision.0, ..range(key, end) }).expect("retained")
    };
    let twins = [at("left", ""), at("right", "")].map(|mut found| found.kvs.remove(0));
    for twin in &twins {
        assert_eq!(twin.value, number.to_string(), "a command shows as a whole");
        assert_eq!((twin.mod_revision, twin.version), (revision, number + 1));
    }
    let window = at("window/", "window0");
    assert_eq!(window.count, WINDOW.min(number + 1));
    assert_eq!(i64::try_from(window.kvs.len()), Ok(window.count), "what is found is what is counted");
    let newest = window.kvs.iter().map(|kv| kv.mod_revision).max();
    assert_eq!(newest, Some(revision));
}

fn reader(cell: &ViewCell, done: &AtomicBool, reads: &AtomicU64) {
    let mut last = Revision(0);
    while !done.load(Ordering::Acquire) {
        let view = cell.load();
        assert!(view.revision() >= last, "views are published in order");
        last = view.revision();
        if last < Revision(2) {
            thread::yield_now();
            continue;
        }
        let oldest = view.compacted().0.max(2);
        check_revision(&view, last);
        check_revision(&view, Revision(i64::midpoint(oldest, last.0)));
        check_revision(&view, Revision(oldest));
        let whole = view.range(&range("\0", "\0")).expect("retained");
        let hash = view.hash_kv(0).expect("retained");
        thread::yield_now();
        assert_eq!(in_pages(&view), whole, "a view stays what it was");
        assert_eq!(view.hash_kv(0).expect("retained"), hash);
        reads.fetch_add(1, Ordering::Relaxed);
    }
}

fn in_pages(view: &Arc<View>) -> RangeResult {
    let mut pages = RangePages::new(Arc::clone(view), range("\0", "\0")).expect("retained");
    let mut result = RangeResult::default();
    while let Some(page) = pages.next_page(64, usize::MAX).expect("a sound store") {
        result.kvs.extend(page.kvs);
        result.count = page.end.map_or(0, |end| end.count);
    }
    result
}

fn storekeeper(mut store: Store, jobs: &Receiver<Job>, bases: &Sender<(bool, Arc<Base>)>) {
    for job in jobs {
        let folded = job.is_some();
        if let Some(batch) = job {
            store.fold(&batch).expect("a sound store");
        } else {
            store.compact_slice(50).expect("a sound store");
        }
        if bases.send((folded, base(&store))).is_err() {
            return;
        }
    }
}

/// Applies all commands in small batches; rotates whenever nothing is frozen.
fn applier(mut machine: Machine, cell: &ViewCell, jobs: &Sender<Job>, bases: &Receiver<(bool, Arc<Base>)>) {
    let mut index = LogIndex(0);
    let mut apply = |machine: &mut Machine, command: &Command| {
        index = index.next();
        machine
            .apply(index, Term(1), command, Allowance::UNLIMITED)
            .expect("a sound store")
            .outcome
            .expect("accepted");
    };
    for number in 0..COMMANDS {
        apply(&mut machine, &command(number));
        if number % 100 == 0 && number > RETAINED {
            apply(&mut machine, &Command::Compact { revision: number - RETAINED });
        }
        if number % 7 != 0 {
            continue;
        }
        while let Ok((folded, base)) = bases.try_recv() {
            if folded { machine.folded(base) } else { machine.rebased(base) }
        }
        cell.publish(machine.view());
        let ask =
            |job| if jobs.send(job).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) };
        if let Some(batch) = machine.rotate() {
            let asked = [ask(Some(batch)), ask(None)];
            assert!(asked.iter().all(ControlFlow::is_continue), "the store's thread lives");
        }
    }
}

#[test]
fn readers_see_whole_commands_while_layers_move() {
    let store = new_store();
    let machine = Machine::new(base(&store)).expect("a sound store");
    let cell = ViewCell::new(machine.view());
    let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let (jobs, jobs_in) = channel();
    let (bases_out, bases) = channel();
    thread::scope(|scope| {
        scope.spawn(move || storekeeper(store, &jobs_in, &bases_out));
        let readers = [(); READERS].map(|()| scope.spawn(|| reader(&cell, &done, &reads)));
        applier(machine, &cell, &jobs, &bases);
        done.store(true, Ordering::Release);
        for reader in readers {
            reader.join().expect("nothing failed");
        }
        // Only now may the store close: a view does not outlive it.
        let left = cell.load().get(&Bytes::from_static(b"left"), cell.load().revision()).expect("retained");
        assert!(left.is_some_and(|kv| kv.version > COMMANDS - 7));
        drop(jobs);
    });
    assert!(reads.load(Ordering::Relaxed) > 0, "the readers came to read");
}
