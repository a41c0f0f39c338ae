//! The record survives any crash, and damage is never taken for a fresh start.

use super::*;
use crate::disk::sim::{FaultPlan, SimDir, Survival};
use crate::formation::test_founding;

fn new_record() -> (SimDir, Identity) {
    let (dir, identity) = (SimDir::new(1), test_founding(1).identity);
    create(&dir, &identity).unwrap();
    (dir, identity)
}

fn damage(dir: &SimDir, copy: usize) {
    dir.flip_bit(COPIES[copy], 30, 3);
}

fn write_raw(dir: &SimDir, copy: usize, bytes: &[u8]) {
    make_copy(dir, COPIES[copy], bytes).unwrap();
}

#[test]
fn what_was_written_comes_back_and_each_start_counts() {
    let dir = SimDir::new(1);
    assert!(load(&dir).unwrap().is_none() && start(&dir, 5).unwrap().is_none(), "a fresh directory");
    assert!(matches!(mark_established(&dir), Err(RecordError::Missing)));
    let founding = test_founding(1);
    create(&dir, &founding.identity).unwrap();
    assert!(matches!(create(&dir, &founding.identity), Err(RecordError::Exists)));
    assert_eq!(load(&dir).unwrap().unwrap().stage, Stage::Founding);
    mark_established(&dir).unwrap();
    let again = start(&dir, 77).unwrap().unwrap();
    assert_eq!((again.incarnation, again.boot_nonce), (Incarnation(2), 77));
    assert_eq!((again.member, again.root), (founding.identity.member, founding.identity.root));
    assert_eq!(again.key.pkcs8(), founding.identity.key.pkcs8());
    assert_eq!((again.stage, again.generation), (Stage::Established, Generation(1)));
    assert_eq!(start(&dir, 78).unwrap().unwrap().incarnation, Incarnation(3));
    let names = dir.list().unwrap();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn earlier_runs_are_remembered_up_to_the_last_that_was_noted() {
    let (dir, first) = new_record();
    let show = |nonce| {
        let run = start(&dir, nonce).unwrap().unwrap();
        note_shown(&dir).unwrap();
        run
    };
    let mut last = first.clone();
    for nonce in 2..=60 {
        last = show(nonce);
    }
    let run = |n| Run { incarnation: Incarnation(n), boot_nonce: n };
    assert!(last.knows(first.run()) && (2..=60).all(|n| last.knows(run(n))));
    assert!(!last.knows(run(61)) && !last.knows(Run { boot_nonce: 7, ..run(30) }));
    forget_before(&dir, run(30)).unwrap();
    let found = load(&dir).unwrap().unwrap();
    assert!(!found.knows(run(29)) && (30..=60).all(|n| found.knows(run(n))));
    // However often it starts without being noted, neither what was noted last nor what it was lately is forgotten.
    for nonce in 61..=500 {
        last = show(nonce);
    }
    assert!(last.knows(run(30)) && (450..=500).all(|n| last.knows(run(n))) && !last.knows(run(200)));
    assert_eq!(last.earlier.len(), EARLIER_MAX);
    // Starts that come to nothing take no room from them, whenever they are.
    for nonce in 501..=900 {
        last = if nonce == 701 { show(nonce) } else { start(&dir, nonce).unwrap().unwrap() };
    }
    assert!([30, 450, 500, 701, 900].into_iter().all(|n| last.knows(run(n))) && !last.knows(run(600)));
    assert_eq!(last.incarnation, Incarnation(900));
}

/// A promise outlives every restart, and ends with the cluster that the node gets.
#[test]
fn a_promise_is_kept_until_there_is_a_cluster() {
    let (dir, identity) = new_record();
    assert_eq!(identity.promise, None);
    let promise = |round| Some(Promise { candidate: PublicKey([7; 32]), round });
    note_promise(&dir, promise(5)).unwrap();
    assert_eq!(start(&dir, 2).unwrap().unwrap().promise, promise(5));
    damage(&dir, 0);
    assert_eq!(start(&dir, 3).unwrap().unwrap().promise, promise(5), "both copies say so");
    note_promise(&dir, None).unwrap();
    assert_eq!(load(&dir).unwrap().unwrap().promise, None);
    note_promise(&dir, promise(6)).unwrap();
    // A crash while a cluster begins makes the node fresh again: whom it has promised may still count on it.
    take_up(&dir, &Identity { stage: Stage::Forming, ..identity }).unwrap();
    assert_eq!(load(&dir).unwrap().unwrap().promise, promise(6));
    mark_established(&dir).unwrap();
    assert_eq!(load(&dir).unwrap().unwrap().promise, None);
    assert!(matches!(note_promise(&SimDir::new(2), promise(1)), Err(RecordError::Missing)));
}

#[test]
fn a_fenced_directory_stays_fenced() {
    let (dir, _) = new_record();
    mark_established(&dir).unwrap();
    fence(&dir).unwrap();
    assert_eq!(start(&dir, 5).unwrap().unwrap().stage, Stage::Fenced);
    damage(&dir, 0);
    assert_eq!(load(&dir).unwrap().unwrap().stage, Stage::Fenced, "both copies say so");
}

#[test]
fn one_damaged_copy_is_replaced_by_the_other() {
    for copy in [0, 1] {
        let (dir, identity) = new_record();
        damage(&dir, copy);
        let found = start(&dir, 9).unwrap().unwrap();
        assert_eq!((found.member, found.incarnation), (identity.member, Incarnation(2)));
        damage(&dir, 1 - copy);
        let found = load(&dir).unwrap().unwrap();
        assert_eq!((found.incarnation, found.boot_nonce), (Incarnation(2), 9), "both were written anew");
    }
}

#[test]
fn one_missing_copy_is_made_again() {
    for copy in COPIES {
        let (dir, _) = new_record();
        dir.remove(copy).unwrap();
        assert_eq!(start(&dir, 9).unwrap().unwrap().incarnation, Incarnation(2));
        assert_eq!(dir.list().unwrap().len(), 2);
    }
}

#[test]
fn two_damaged_copies_are_an_error_and_never_a_fresh_start() {
    let (dir, identity) = new_record();
    damage(&dir, 0);
    damage(&dir, 1);
    assert!(matches!(load(&dir), Err(RecordError::Damaged)));
    assert!(matches!(start(&dir, 9), Err(RecordError::Damaged)));
    assert!(matches!(create(&dir, &identity), Err(RecordError::Damaged)));
    dir.remove(COPIES[0]).unwrap();
    assert!(matches!(load(&dir), Err(RecordError::Damaged)), "a damaged one beside a missing one");
}

#[test]
fn damage_anywhere_in_a_copy_is_noticed() {
    let whole = encode(&test_founding(1).identity);
    for offset in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[offset] ^= 0x10;
        assert!(open_frame(&bytes).is_none(), "byte {offset}");
        assert!(open_frame(&whole[..offset]).is_none(), "cut at {offset}");
    }
    let mut longer = whole.clone();
    longer.extend([1, 2, 3]);
    assert!(open_frame(&longer).and_then(|(_, payload)| decode_payload(payload)).is_some());
}

#[test]
fn a_later_version_is_refused_even_beside_a_known_one() {
    let (dir, _) = new_record();
    write_raw(&dir, 1, &seal_frame(VERSION + 1, b"whatever it holds then"));
    let refused = start(&dir, 9);
    assert!(matches!(refused, Err(RecordError::UnknownVersion { found }) if found == VERSION + 1));
}

/// Who leaves a cluster for another one may look for that for long, through restarts.
#[test]
fn the_cluster_that_a_node_leaves_for_is_known_until_it_is_in_one() {
    let (dir, identity) = new_record();
    mark_established(&dir).unwrap();
    leave(&dir, Some(ClusterId(5))).unwrap();
    assert_eq!(become_fresh(&dir).unwrap().winner, Some(ClusterId(5)));
    take_up(&dir, &Identity { stage: Stage::Forming, ..identity }).unwrap();
    assert_eq!(start(&dir, 2).unwrap().unwrap().winner, Some(ClusterId(5)), "it may be fresh again");
    assert_eq!(mark_established(&dir).unwrap().winner, None);
    leave(&dir, Some(ClusterId(5))).unwrap();
    leave(&dir, None).unwrap();
    assert_eq!(load(&dir).unwrap().unwrap().winner, None, "the last one counts");
}

#[test]
fn a_payload_that_no_version_wrote_is_damage_not_a_panic() {
    let (dir, identity) = new_record();
    let promise = Some(Promise { candidate: PublicKey([7; 32]), round: 8 });
    let winner = Some(ClusterId(9));
    let whole = encode(&Identity { promise, winner, ..identity });
    let payload = &whole[FRAME_HEAD_BYTES..whole.len() - 4];
    for length in 0..payload.len() {
        assert!(decode_payload(&payload[..length]).is_none(), "{length} bytes");
    }
    let mut unknown_stage = payload.to_vec();
    unknown_stage[0] = 9;
    assert!(decode_payload(&unknown_stage).is_none());
    write_raw(&dir, 0, &seal_frame(VERSION, &unknown_stage));
    assert!(load(&dir).unwrap().is_some());
}

#[test]
fn files_of_two_nodes_contradict_each_other() {
    let (dir, _) = new_record();
    write_raw(&dir, 1, &encode(&test_founding(2).identity));
    assert!(matches!(load(&dir), Err(RecordError::Contradiction)));
}

/// A crash between the two writes of a start leaves two whole copies. The older one's incarnation was not the last.
#[test]
fn of_two_whole_copies_the_later_one_counts() {
    for later in [0, 1] {
        let (dir, mut identity) = new_record();
        identity.incarnation = Incarnation(7);
        write_raw(&dir, later, &encode(&identity));
        assert_eq!(load(&dir).unwrap().unwrap().incarnation, Incarnation(7), "copy {later} is later");
        identity.stage = Stage::Established;
        write_raw(&dir, 1 - later, &encode(&identity));
        assert_eq!(load(&dir).unwrap().unwrap().stage, Stage::Established);
    }
}

/// Runs `history` with a crash in each of its operations, each with several outcomes of what was not synced.
fn at_each_crash(
    prepare: impl Fn() -> SimDir,
    history: impl Fn(&SimDir) -> Result<(), RecordError>,
    check: impl Fn(u64, &SimDir),
) {
    let dir = prepare();
    let before = dir.operations();
    history(&dir).unwrap();
    let after = dir.operations();
    assert!(after > before + 1, "the history does something");
    for crash_at in before + 1..=after {
        for survival in [Survival::Nothing, Survival::Everything, Survival::Random, Survival::Random] {
            let dir = prepare();
            dir.plan(FaultPlan { crash_at: Some(crash_at), ..FaultPlan::default() });
            assert!(history(&dir).is_err());
            check(crash_at, &dir.crash(survival));
        }
    }
}

#[test]
fn a_crash_while_founding_leaves_nothing_or_a_whole_record() {
    let identity = test_founding(1).identity;
    at_each_crash(
        || SimDir::new(3),
        |dir| create(dir, &identity),
        |at, left| match load(left).unwrap() {
            None => create(left, &identity).unwrap(),
            Some(found) => {
                assert_eq!(found.member, identity.member, "crash at {at}");
                assert_eq!(start(left, 2).unwrap().unwrap().incarnation, Incarnation(2));
            }
        },
    );
}

/// An incarnation that was shown to anybody must not come again.
#[test]
fn a_crash_while_starting_leaves_the_old_or_the_new_incarnation() {
    at_each_crash(
        || new_record().0,
        |dir| start(dir, 9).map(|_| ()),
        |at, left| {
            let next = start(left, 10).unwrap().unwrap().incarnation;
            assert!([Incarnation(2), Incarnation(3)].contains(&next), "crash at {at}: {next}");
        },
    );
    // And once a start has returned, its incarnation has been used up.
    let (dir, _) = new_record();
    start(&dir, 9).unwrap();
    let left = dir.crash(Survival::Nothing);
    assert_eq!(start(&left, 10).unwrap().unwrap().incarnation, Incarnation(3));
}

/// What was noted before is forgotten only for what takes its place, and what was noted once that has returned stays.
#[test]
fn a_crash_while_a_promise_is_noted_leaves_the_old_or_the_new_one() {
    let promise = |round| Some(Promise { candidate: PublicKey([7; 32]), round });
    let prepare = || {
        let dir = new_record().0;
        note_promise(&dir, promise(1)).unwrap();
        dir
    };
    for next in [promise(2), None] {
        at_each_crash(
            prepare,
            |dir| note_promise(dir, next),
            |at, left| {
                let found = start(left, 9).unwrap().unwrap().promise;
                assert!([promise(1), next].contains(&found), "crash at {at}: {found:?}");
                assert_eq!(load(left).unwrap().unwrap().promise, found);
            },
        );
        let dir = prepare();
        note_promise(&dir, next).unwrap();
        assert_eq!(load(&dir.crash(Survival::Nothing)).unwrap().unwrap().promise, next);
    }
}

type Change<'a> = &'a dyn Fn(&SimDir) -> Result<(), RecordError>;

/// From a cluster that has ended to the next one, step by step: what a crash leaves is gone on with from where it stands, and no step that was done is
/// undone. The node keeps its key, and each stage that is found is one that a start knows what to do with.
#[test]
fn a_crash_while_a_cluster_is_left_leaves_the_step_before_or_after() {
    let established = || {
        let dir = new_record().0;
        mark_established(&dir).unwrap();
        dir
    };
    let (first, next) = (test_founding(1).identity, test_founding(2).identity);
    let next = Identity { stage: Stage::Forming, key: first.key.clone(), ..next };
    let steps: [(Change<'_>, Stage); 4] = [
        (&|dir| leave(dir, Some(ClusterId(5))), Stage::Leaving),
        (&|dir| become_fresh(dir).map(drop), Stage::Fresh),
        (&|dir| take_up(dir, &next), Stage::Forming),
        (&|dir| mark_established(dir).map(drop), Stage::Established),
    ];
    for (n, (step, after)) in steps.iter().enumerate() {
        let prepare = || {
            let dir = established();
            steps[..n].iter().for_each(|(done, _)| done(&dir).unwrap());
            dir
        };
        let before = load(&prepare()).unwrap().unwrap().stage;
        at_each_crash(prepare, step, |at, left| {
            let found = load(left).unwrap().unwrap();
            assert!([before, *after].contains(&found.stage), "crash at {at}: {:?}", found.stage);
            assert_eq!(found.key.pkcs8(), first.key.pkcs8());
            let done = if found.stage == *after { n + 1 } else { n };
            for (step, stage) in &steps[done..] {
                step(left).unwrap();
                assert_eq!(load(left).unwrap().unwrap().stage, *stage);
            }
            let last = load(left).unwrap().unwrap();
            assert_eq!((last.member, last.root), (next.member, next.root));
            // Either copy will do.
            for copy in [0, 1] {
                let left = left.crash(Survival::Everything);
                damage(&left, copy);
                assert_eq!(load(&left).unwrap().unwrap().root, next.root, "crash at {at}, copy {copy}");
            }
        });
        let dir = prepare();
        step(&dir).unwrap();
        assert_eq!(load(&dir.crash(Survival::Nothing)).unwrap().unwrap().stage, *after, "it is durable");
    }
}

/// A device that tears what the simulated one writes whole must still leave one copy.
#[test]
fn the_only_whole_copy_is_written_last() {
    for damaged in [0, 1] {
        let (dir, _) = new_record();
        damage(&dir, damaged);
        // A write and its sync; the machine dies in the second operation.
        dir.plan(FaultPlan { crash_at: Some(dir.operations() + 2), ..FaultPlan::default() });
        assert!(start(&dir, 9).is_err());
        let left = dir.crash(Survival::Everything);
        let incarnation = |copy: usize| read_copy(&left, COPIES[copy]).unwrap().unwrap().incarnation;
        assert_eq!((incarnation(damaged), incarnation(1 - damaged)), (Incarnation(2), Incarnation(1)));
    }
}
