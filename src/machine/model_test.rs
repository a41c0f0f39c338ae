//! The main proof of `mvcc` and `machine`: random histories, with folds, removals and restarts in between, against the naive model.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof};
use proptest::test_runner::{Config, TestCaseError};
use proptest::{prop_assert_eq, proptest};

use super::model::{Leased, Model, State};
use super::rig::{Entry, Rig, TERM, interval};
use crate::command::{
    Alarm, AlarmAction, AlarmKind, Command, Compare, CompareResult, CompareTarget, DeleteRange, Intervals,
    KeyRange, KeyValue, LeaseChange, LeaseCommand, LeaseInstance, MemberAttributes, Op, Put, Range,
    RangeResult, Rejection, Sort, SortOrder, SortTarget, Txn,
};
use crate::ids::{LeaseId, LogIndex, MemberId, Revision, Term, VersionId};
use crate::mvcc::{Allowance, HashKv, HashWalk, Portion, Progress, RangePages, ReadError, View};
use crate::store::{ChangeKind, ConfState};

/// What happens next to the machine.
#[derive(Clone, Debug)]
enum Step {
    Apply(Command),
    /// Ends or checkpoints a lease as a leader of this term does; where it exists it may be meant as an older one.
    Expire {
        id: LeaseId,
        term: Term,
        outdated: bool,
        checkpoint: Option<i64>,
    },
    Enter(Entry),
    Rotate,
    Fold,
    /// So many slices of so many rows.
    CompactSlices(usize, usize),
    Reopen,
    /// Takes a view that must not change any more.
    Pin,
    Read(Range),
    ReadTxn(Txn),
}

/// Keys at the edges of order: the lowest, prefixes of each other, zero and 0xff bytes at the end.
fn key() -> impl Strategy<Value = Bytes> {
    const KEYS: [&[u8]; 12] =
        [b"\0", b"a", b"a\0", b"a\0\0", b"a\xff", b"aa", b"b", b"b\0", b"ba", b"c", b"\xff", b"\xff\xff"];
    prop::sample::select(KEYS.as_slice()).prop_map(Bytes::from_static)
}

fn key_range() -> impl Strategy<Value = KeyRange> {
    let unbounded = Just(Bytes::from_static(b"\0"));
    prop_oneof![
        2 => key().prop_map(KeyRange::single),
        3 => (key(), key()).prop_map(|(start, end)| KeyRange::from_wire(start, end)),
        1 => (key(), unbounded.clone()).prop_map(|(start, end)| KeyRange::from_wire(start, end)),
        1 => unbounded.prop_map(|zero| KeyRange::from_wire(zero.clone(), zero)),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    const VALUES: [&[u8]; 5] = [b"", b"v", b"w", b"\0", b"longer value"];
    prop::sample::select(VALUES.as_slice()).prop_map(Bytes::from_static)
}

/// Small numbers that revisions, versions and counts take; rarely negative.
fn number() -> impl Strategy<Value = i64> {
    prop_oneof![2 => Just(0), 8 => 1i64..40, 1 => -2i64..0]
}

fn lease_id() -> impl Strategy<Value = LeaseId> {
    prop::sample::select(vec![LeaseId(-7), LeaseId(1), LeaseId(2), LeaseId(i64::MAX)])
}

fn lease_command() -> impl Strategy<Value = Command> {
    let grant = (lease_id(), 2i64..1000).prop_map(|(id, ttl)| LeaseCommand::Grant { id, ttl });
    let revoke = lease_id().prop_map(|id| LeaseCommand::Revoke { id });
    prop_oneof![2 => grant, 1 => revoke].prop_map(Command::Lease)
}

fn expire() -> impl Strategy<Value = Step> {
    let term = prop_oneof![4 => Just(TERM), 1 => Just(Term(TERM.0 - 1))];
    let checkpoint = option::of(0i64..500);
    (lease_id(), term, prop::bool::weighted(0.2), checkpoint)
        .prop_map(|(id, term, outdated, checkpoint)| Step::Expire { id, term, outdated, checkpoint })
}

fn put() -> impl Strategy<Value = Put> {
    let lease = prop_oneof![
        10 => Just(LeaseChange::Set(LeaseId::NONE)),
        2 => Just(LeaseChange::Keep),
        6 => lease_id().prop_map(LeaseChange::Set),
    ];
    (key(), option::weighted(0.9, value()), lease, any::<bool>())
        .prop_map(|(key, value, lease, prev_kv)| Put { key, value, lease, prev_kv })
}

fn delete() -> impl Strategy<Value = DeleteRange> {
    (key_range(), any::<bool>()).prop_map(|(range, prev_kv)| DeleteRange { range, prev_kv })
}

fn range() -> impl Strategy<Value = Range> {
    let target = prop::sample::select(vec![
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::Create,
        SortTarget::Mod,
        SortTarget::Value,
    ]);
    let order = prop::sample::select(vec![SortOrder::None, SortOrder::Ascend, SortOrder::Descend]);
    let sort = prop_oneof![
        Just(Sort::default()),
        (target, order).prop_map(|(target, order)| Sort { target, order }),
    ];
    let limit = prop_oneof![2 => Just(0i64), 3 => 1i64..6, 1 => Just(-1), 1 => Just(i64::MAX)];
    let revision = prop_oneof![3 => Just(0i64), 2 => number()];
    let filters = prop_oneof![3 => Just([0i64; 4]), 2 => prop::array::uniform4(number())];
    (key_range(), limit, revision, sort, any::<bool>(), prop::bool::weighted(0.15), filters).prop_map(
        |(range, limit, revision, sort, keys_only, count_only, filters)| Range {
            range,
            limit,
            revision,
            sort,
            keys_only,
            count_only,
            min_mod_revision: filters[0],
            max_mod_revision: filters[1],
            min_create_revision: filters[2],
            max_create_revision: filters[3],
        },
    )
}

fn compare() -> impl Strategy<Value = Compare> {
    let result = prop::sample::select(vec![
        CompareResult::Equal,
        CompareResult::Greater,
        CompareResult::Less,
        CompareResult::NotEqual,
        CompareResult::Unknown,
    ]);
    let target = prop_oneof![
        number().prop_map(CompareTarget::Version),
        number().prop_map(CompareTarget::Create),
        number().prop_map(CompareTarget::Mod),
        value().prop_map(CompareTarget::Value),
        number().prop_map(CompareTarget::Lease),
        Just(CompareTarget::Unknown),
    ];
    (key_range(), result, target).prop_map(|(range, result, target)| Compare { range, result, target })
}

fn txn() -> impl Strategy<Value = Txn> {
    let leaf = prop_oneof![
        3 => put().prop_map(Op::Put),
        2 => delete().prop_map(Op::DeleteRange),
        3 => range().prop_map(Op::Range),
    ];
    let op = leaf.prop_recursive(3, 12, 3, |inner| {
        (vec(compare(), 0..2), vec(inner.clone(), 0..4), vec(inner, 0..4))
            .prop_map(|(compare, success, failure)| Op::Txn(Txn { compare, success, failure }))
    });
    (vec(compare(), 0..3), vec(op.clone(), 0..5), vec(op, 0..5)).prop_map(|(compare, success, failure)| Txn {
        compare,
        success,
        failure,
    })
}

fn read_txn() -> impl Strategy<Value = Txn> {
    let ranges = || vec(range().prop_map(Op::Range), 0..4);
    (vec(compare(), 0..3), ranges(), ranges()).prop_map(|(compare, success, failure)| Txn {
        compare,
        success,
        failure,
    })
}

fn alarm() -> impl Strategy<Value = Command> {
    let kind = prop::sample::select(vec![AlarmKind::NoSpace, AlarmKind::Corrupt]);
    let action = prop::sample::select(vec![
        AlarmAction::Deactivate,
        AlarmAction::Deactivate,
        AlarmAction::Deactivate,
        AlarmAction::Activate,
        AlarmAction::QuotaReached,
        AlarmAction::QuotaRelieved,
    ]);
    (action, kind, 1u64..3).prop_map(|(action, kind, member)| Command::Alarm {
        action,
        alarm: Alarm { member: MemberId(member), kind },
    })
}

fn other_entry() -> impl Strategy<Value = Entry> {
    let publish = |member| MemberAttributes { member: MemberId(member), ..MemberAttributes::default() };
    let conf = |voter| ConfState { voters: vec![MemberId(voter)], ..ConfState::default() };
    prop_oneof![
        Just(Entry::Empty),
        (1u64..4).prop_map(move |member| Entry::Command(Command::Publish(publish(member)))),
        (1u64..4).prop_map(move |voter| Entry::Conf(conf(voter))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => put().prop_map(|put| Step::Apply(Command::Put(put))),
        6 => delete().prop_map(|delete| Step::Apply(Command::DeleteRange(delete))),
        12 => txn().prop_map(|txn| Step::Apply(Command::Txn(txn))),
        10 => lease_command().prop_map(Step::Apply),
        4 => expire(),
        5 => number().prop_map(|revision| Step::Apply(Command::Compact { revision })),
        2 => alarm().prop_map(Step::Apply),
        2 => other_entry().prop_map(Step::Enter),
        8 => Just(Step::Rotate),
        8 => Just(Step::Fold),
        5 => (1usize..6, 1usize..6).prop_map(|(slices, limit)| Step::CompactSlices(slices, limit)),
        2 => Just(Step::Reopen),
        3 => Just(Step::Pin),
        14 => range().prop_map(Step::Read),
        4 => read_txn().prop_map(Step::ReadTxn),
    ]
}

proptest! {
    #![proptest_config(Config { cases: 256, failure_persistence: None, ..Config::default() })]

    #[test]
    fn any_history_reads_as_in_the_model(steps in vec(step(), 1..80)) {
        play(Rig::new(), steps)?;
    }

    /// Deletions of so many keys are left to the store, and nothing else is different.
    #[test]
    fn any_history_with_sweeps_reads_as_in_the_model(keys in 1usize..5, steps in vec(step(), 1..80)) {
        play(Rig::with_overlay(keys * 257), steps)?;
    }
}

fn play(mut rig: Rig, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut model = Model::new();
    let mut pinned: Vec<(View, Model)> = Vec::new();
    for step in steps {
        match step {
            Step::Apply(command) => apply(&mut rig, &mut model, &command)?,
            Step::Expire { id, term, outdated, checkpoint } => {
                let granted_at = model.leases.get(&id).map_or(LogIndex(1), |lease| lease.granted_at);
                let lease = LeaseInstance { id, granted_at: LogIndex(granted_at.0 - u64::from(outdated)) };
                let other = LeaseInstance { id: LeaseId(1), granted_at };
                let command = match checkpoint {
                    None => LeaseCommand::Expire { term, leases: vec![lease, other] },
                    Some(left) => LeaseCommand::Checkpoint {
                        term,
                        sequence: 1,
                        leases: vec![(lease, left), (other, left)],
                    },
                };
                apply(&mut rig, &mut model, &Command::Lease(command))?;
            }
            Step::Enter(entry) => rig.enter(entry),
            Step::Rotate => rig.rotate(),
            Step::Fold => rig.fold(),
            Step::CompactSlices(slices, limit) => {
                let mut slices = 0..slices;
                while slices.next().is_some() && !rig.compact_slice(limit) {}
            }
            Step::Reopen => rig.reopen(),
            Step::Pin => pinned.push((rig.view(), model.clone())),
            Step::Read(range) => prop_assert_eq!(rejection(ask(&rig.view(), &range)), model.range(&range)),
            Step::ReadTxn(txn) => {
                let revision = model.rev;
                prop_assert_eq!(
                    rejection(
                        rig.view().txn_read_only(&txn, &mut Allowance::of(usize::MAX)).map(Option::unwrap)
                    ),
                    model.txn(&txn)
                );
                prop_assert_eq!(model.rev, revision);
            }
        }
        prop_assert_eq!(rig.view().revision().0, model.rev);
    }
    rig.check_digest();
    pinned.push((rig.view(), model));
    pinned.iter().try_for_each(|(view, model)| everything_agrees(view, model))
}

fn apply(rig: &mut Rig, model: &mut Model, command: &Command) -> Result<(), TestCaseError> {
    let index = rig.view().applied().next();
    prop_assert_eq!(rig.apply(command.clone()), model.apply(index, TERM, command));
    Ok(())
}

fn rejection<T>(result: Result<T, ReadError>) -> Result<T, Rejection> {
    result.map_err(|error| match error {
        ReadError::Rejected(rejection) => rejection,
        ReadError::Store(error) => panic!("{error}"),
    })
}

/// Compares all that a view can be asked: whole and in pages at each revision, the changes, and the hash.
fn everything_agrees(view: &View, model: &Model) -> Result<(), TestCaseError> {
    let all = KeyRange::everything;
    let view = Arc::new(view.clone());
    for revision in 0..=model.rev + 1 {
        let range = Range { revision, ..Range::all(all()) };
        let expected = model.range(&range);
        prop_assert_eq!(&rejection(ask(&view, &range)), &expected);
        let limited = Range { limit: 3, ..range.clone() };
        prop_assert_eq!(rejection(in_pages(&view, limited.clone(), 2, usize::MAX)), model.range(&limited));
        prop_assert_eq!(rejection(in_pages(&view, range.clone(), 4, 5)), expected.clone());
        let counted = Range { count_only: true, ..range };
        prop_assert_eq!(rejection(in_pages(&view, counted.clone(), 4, 5)), model.range(&counted));
        if revision > 0 {
            let state: Option<State> = expected.is_ok().then(|| model.state_at(revision));
            let got = rejection(view.get(&Bytes::from_static(b"a\0"), Revision(revision)));
            prop_assert_eq!(got.ok(), state.map(|state| state.get(&b"a\0"[..]).cloned()));
        }
        let hash = rejection(view.hash_kv(revision));
        prop_assert_eq!(hash.map(|hash| hash.hash), expected.map(|_| model.hash_kv(revision)));
        prop_assert_eq!(hash, rejection(hash_in_steps(&view, revision)));
    }
    prop_assert_eq!(rejection(view.hash_kv(0)).map(|hash| hash.compact_revision), Ok(model.compacted));
    for from in [0, model.compacted + 1, model.rev / 2, model.rev, model.rev + 1] {
        changes_agree(&view, model, from.max(model.compacted + 1))?;
    }
    leases_agree(&view, model)?;
    prop_assert_eq!(view.keys(), model.state_at(model.rev).len() as u64);
    let alarms: Vec<Alarm> = model.alarms.iter().copied().collect();
    prop_assert_eq!(&view.facts().alarms, &alarms);
    Ok(())
}

/// A hash of a change a step.
fn hash_in_steps(view: &View, revision: i64) -> Result<HashKv, ReadError> {
    let mut walk = HashWalk::start(view.hash_name(revision)?);
    loop {
        if let Some(hash) = walk.step(view, 1)? {
            return Ok(hash);
        }
    }
}

/// The leases that there are, and the keys of each, also of those that there are not.
fn leases_agree(view: &View, model: &Model) -> Result<(), TestCaseError> {
    let leases: BTreeMap<LeaseId, Leased> = view
        .leases()
        .iter()
        .map(|(id, lease)| {
            let (ttl, remaining, granted_at) = (lease.ttl, lease.remaining, lease.granted_at);
            (id, Leased { ttl, remaining, granted_at })
        })
        .collect();
    prop_assert_eq!(view.leases().len(), leases.len());
    prop_assert_eq!(&leases, &model.leases);
    for id in [LeaseId(-7), LeaseId(1), LeaseId(2), LeaseId(i64::MAX), LeaseId(3)] {
        prop_assert_eq!(view.lease_keys(id).expect("a sound store"), model.keys_of(id));
        prop_assert_eq!(in_small_portions(view, id), model.keys_of(id));
        for within in some_intervals() {
            let found = view.is_lease_within(id, |key| within.end_of_span(key)).expect("a sound store");
            prop_assert_eq!(found, model.keys_of(id).iter().all(|key| within.contain(key)));
        }
    }
    Ok(())
}

/// Nothing, everything, and what ends or begins where keys do.
fn some_intervals() -> [Intervals; 5] {
    let sets: [&[(&str, &str)]; 5] = [
        &[],
        &[("\0", "\0")],
        &[("a", "b")],
        &[("\0", "a\0"), ("a\0\0", "b\0"), ("c", "\0")],
        &[("a\0", "aa"), ("b", "ba")],
    ];
    sets.map(|set| {
        let mut intervals = Intervals::default();
        for (start, end) in set {
            intervals.add(&interval(start, end));
        }
        intervals
    })
}

fn in_small_portions(view: &View, lease: LeaseId) -> Vec<Bytes> {
    let mut reading = view.begin_lease_keys(lease);
    let portion = Portion { keys: 1, bytes: usize::MAX };
    loop {
        let allowance = &mut Allowance::of(usize::MAX);
        match view.continue_lease_keys(&mut reading, portion, allowance).expect("a sound store") {
            Progress::More => {}
            Progress::Done(keys) => return keys,
            Progress::TooLarge => unreachable!("all of it is allowed"),
        }
    }
}

fn changes_agree(view: &View, model: &Model, from: i64) -> Result<(), TestCaseError> {
    let got: Vec<(VersionId, Bytes, Option<KeyValue>)> = view
        .changes(VersionId::first_of(Revision(from)))
        .expect("a sound store")
        .map(|change| change.expect("a sound store"))
        .map(|(id, change)| {
            assert_eq!(change.key_value(id).is_none(), change.kind == ChangeKind::Delete);
            (id, change.key.clone(), change.key_value(id))
        })
        .collect();
    let expected: Vec<_> = model
        .events
        .iter()
        .filter(|event| event.main >= from)
        .map(|event| {
            (VersionId { main: Revision(event.main), sub: event.sub }, event.key.clone(), event.kv.clone())
        })
        .collect();
    prop_assert_eq!(got, expected);
    Ok(())
}

/// A range, read at once and in small portions.
fn ask(view: &View, range: &Range) -> Result<RangeResult, ReadError> {
    let in_portions = |portion| {
        let mut reading = view.begin_range(range.clone())?;
        loop {
            match view.continue_range(&mut reading, portion, &mut Allowance::of(usize::MAX))? {
                Progress::More => {}
                Progress::Done(result) => return Ok(result),
                Progress::TooLarge => unreachable!("all of it is allowed"),
            }
        }
    };
    let whole = rejection(view.range(range));
    for portion in [Portion { keys: 1, bytes: usize::MAX }, Portion { keys: 3, bytes: 4 }] {
        assert_eq!(rejection(in_portions(portion)), whole, "{portion:?} of {range:?}");
    }
    view.range(range)
}

/// A range, put together from its pages.
fn in_pages(view: &Arc<View>, range: Range, keys: usize, bytes: usize) -> Result<RangeResult, ReadError> {
    let mut pages = RangePages::new(Arc::clone(view), range)?;
    let mut result = RangeResult::default();
    while let Some(page) = pages.next_page(keys, bytes)? {
        assert!(page.kvs.len() <= keys);
        let size: usize = page.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
        assert!(size <= bytes || page.kvs.len() == 1);
        result.kvs.extend(page.kvs);
        if let Some(end) = page.end {
            (result.more, result.count) = (end.more, end.count);
        }
    }
    Ok(result)
}
