//! More keys and more changes than one lock or one allocation of a generation covers, spread over the layers.

use bytes::Bytes;

use super::model::Model;
use super::rig::{Rig, TERM, interval, put, range};
use crate::command::{
    Command, Compare, CompareResult, CompareTarget, DeleteRange, KeyRange, Op, Put, Range, Txn,
};
use crate::ids::{Revision, VersionId};
use crate::limits::OVERLAY_READ_CHUNK;

/// Keys enough that a walk takes a lock several times.
const KEYS: usize = 3 * OVERLAY_READ_CHUNK + 11;

fn key(number: usize) -> String {
    format!("{:05}", number * 7 % KEYS)
}

/// A store, a frozen and an active generation, each with puts and deletes of its own and of the layers below.
fn three_layers() -> (Rig, Model) {
    let (mut rig, mut model) = (Rig::new(), Model::new());
    let mut apply = |rig: &mut Rig, command: Command| {
        let expected = model.apply(rig.view().applied().next(), TERM, &command);
        assert_eq!(rig.apply(command), expected);
    };
    for (layer, share) in [(0, 2), (1, 3), (2, 5)] {
        let ops = |numbers: Vec<usize>| {
            let puts = numbers.into_iter().map(|number| Op::Put(put(&key(number), &layer.to_string())));
            Txn { success: puts.collect(), ..Txn::default() }
        };
        for start in (0..KEYS).step_by(100) {
            let numbers = (start..(start + 100).min(KEYS)).filter(|number| number % share == 0);
            apply(&mut rig, Command::Txn(ops(numbers.collect())));
        }
        for number in (0..KEYS).filter(|number| number % 11 == layer) {
            let range = interval(&key(number), "");
            apply(&mut rig, Command::DeleteRange(DeleteRange { range, prev_kv: true }));
        }
        match layer {
            0 => {
                rig.rotate();
                rig.fold();
            }
            1 => rig.rotate(),
            _ => {}
        }
    }
    (rig, model)
}

#[test]
fn walks_go_on_where_a_lock_ended() {
    let (rig, model) = three_layers();
    let view = rig.view();
    let chunk = i64::try_from(OVERLAY_READ_CHUNK).expect("small");
    for (start, end) in [("\0", "\0"), ("00100", "00500"), ("00256", "00257"), ("00700", "\0")] {
        for limit in [0, 1, 2, chunk - 1, chunk, chunk + 1] {
            for revision in [0, model.rev / 3, model.rev / 2, model.rev - 30] {
                let request = Range { limit, revision, ..range(start, end) };
                let counting = Range { count_only: true, ..request.clone() };
                assert_eq!(view.range(&request).ok(), model.range(&request).ok(), "{request:?}");
                assert_eq!(view.range(&counting).ok(), model.range(&counting).ok(), "{counting:?}");
            }
        }
    }
}

#[test]
fn changes_go_on_where_a_lock_ended() {
    let (rig, model) = three_layers();
    let view = rig.view();
    for from in [0, model.rev / 3, model.rev / 2, model.rev - 1, model.rev + 1] {
        let from = VersionId { main: Revision(from), sub: 3 };
        let got: Vec<VersionId> = view
            .changes(from)
            .expect("a sound store")
            .map(|change| change.expect("a sound store").0)
            .collect();
        let id = |main, sub| VersionId { main: Revision(main), sub };
        let all = model.events.iter().map(|event| id(event.main, event.sub));
        let expected: Vec<VersionId> = all.filter(|id| *id >= from).collect();
        assert_eq!(got, expected);
    }
}

#[test]
fn a_delete_of_all_reaches_every_layer() {
    let (mut rig, mut model) = three_layers();
    let command = Command::DeleteRange(DeleteRange { range: interval("\0", "\0"), prev_kv: true });
    let expected = model.apply(rig.view().applied().next(), TERM, &command);
    assert_eq!(rig.apply(command), expected);
    assert_eq!(rig.view().range(&range("\0", "\0")).expect("now").count, 0);
}

/// A decoded command shares the bytes of its log entry. What an overlay keeps of a transaction must not hold on to the rest of it: a
/// small put beside a large compare would keep a thousand times what is counted.
#[test]
fn a_small_change_does_not_keep_a_large_entry() {
    let entry = Bytes::from(vec![b'x'; 1024 * 1024]);
    let within = |kept: &Bytes| entry.as_ptr_range().contains(&kept.as_ptr());
    let compare = |value: Bytes| Compare {
        range: interval("k", ""),
        result: CompareResult::Equal,
        target: CompareTarget::Value(value),
    };
    let shared = Put { key: entry.slice(..4), value: Some(entry.slice(4..8)), ..put("", "") };
    let kept = |txn: Txn| {
        let mut rig = Rig::new();
        rig.txn(txn).expect("accepted");
        rig.view().range(&range("x", "y")).expect("now").kvs.remove(0)
    };
    let alone = kept(Txn { success: vec![Op::Put(shared.clone())], ..Txn::default() });
    assert!(within(&alone.value), "where nothing else is in the entry nothing is copied");
    let beside_a_compare = Txn {
        compare: vec![compare(entry.slice(8..))],
        failure: vec![Op::Put(shared.clone())],
        ..Txn::default()
    };
    let other_branch = Txn {
        success: vec![Op::Txn(Txn { success: vec![Op::Put(shared.clone())], ..Txn::default() })],
        failure: vec![Op::Put(Put { value: Some(entry.slice(8..)), ..shared })],
        ..Txn::default()
    };
    let delete = DeleteRange { range: KeyRange::single(entry.slice(..4)), prev_kv: false };
    let mut rig = Rig::new();
    rig.put("xxxx", "");
    let deleting = Txn { failure: vec![Op::DeleteRange(delete)], ..beside_a_compare.clone() };
    rig.txn(deleting).expect("accepted");
    for change in rig.view().changes(VersionId::default()).expect("a sound store") {
        assert!(!within(&change.expect("a sound store").1.key));
    }
    for txn in [beside_a_compare, other_branch] {
        let kv = kept(txn);
        assert!(!within(&kv.key) && !within(&kv.value));
    }
}
