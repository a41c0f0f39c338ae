//! A store that was staged is the one that it was taken from, whatever it was cut into and wherever that was cut off.

use super::super::scrub::ScrubCursor;
use super::super::testing::{Disk, SMALL, at, attached_to, batch, delete, dump, founded, put};
use super::*;
use crate::disk::Directory;
use crate::disk::sim::{FaultPlan, SimDir, Survival};

const TRANSFER: TransferId = TransferId { source: MemberId(7), boot: 8, number: 9 };
const NAME: &str = "staged";

/// Changes of one key at many revisions, of many keys at one, a tombstone that stays and one that went, leases.
fn source() -> Store {
    let mut store = founded(&Disk::default());
    let lease = Lease { ttl: 60, remaining: 5, granted_at: LogIndex(3) };
    let mut leased = put("leased", "x", 3, 1);
    let super::super::types::ChangeKind::Put { lease: of, .. } = &mut leased.kind else { unreachable!() };
    *of = LeaseId(11);
    let mut first = batch(
        &store,
        vec![
            (at(2, 0), put("a", "1", 2, 1)),
            (at(3, 0), leased),
            (at(4, 0), delete("a")),
            (at(5, 0), put("a", "2", 5, 1)),
            (at(6, 0), delete("gone")),
        ],
    );
    first.leases = vec![(LeaseId(11), Some(lease)), (LeaseId(12), Some(lease))];
    store.fold(&first).unwrap();
    let many = (0..20).map(|sub| (at(7, sub), put(format!("k{sub}"), "v", 7, 1))).collect();
    let mut second = batch(&store, many);
    second.meta.compacted = Revision(5);
    store.fold(&second).unwrap();
    while !store.compact_slice(100).unwrap().finished {}
    store
}

/// The pieces of a store, each of so many changes, with the progress after each.
fn pieces(store: &Store, size: usize) -> Vec<(Bytes, StageProgress)> {
    let changes = dump(store).changes;
    let mut progress = StageProgress::default();
    let mut pieces = Vec::new();
    for changes in changes.chunks(size) {
        let piece = pack(changes);
        progress = progress.after(&piece, changes).unwrap();
        pieces.push((piece, progress));
    }
    pieces
}

/// Goes on with a staged store from where it is; as `node` does it.
fn go_on(directory: &SimDir, source: &Store, size: usize) -> Result<Store, StoreError> {
    let mut staged = Store::open_in(directory, NAME, SMALL)?;
    if staged.is_initialised() {
        return Ok(staged);
    }
    let done = staged.stage()?.map_or_else(StageProgress::default, |stage| stage.progress);
    let behind = |(_, progress): &(Bytes, StageProgress)| progress.changes <= done.changes;
    for (piece, progress) in pieces(source, size).into_iter().skip_while(behind) {
        staged.stage_piece(TRANSFER, progress, &unpack(&piece).unwrap())?;
    }
    let base = source.base()?;
    let (meta, leases) = unpack_facts(&pack_facts(&base)?).unwrap();
    staged.finish_stage(&meta, &leases)?;
    Ok(staged)
}

fn assert_same(source: &Store, staged: &Store) {
    let (mut theirs, ours) = (dump(source), dump(staged));
    // Removal is each store's own.
    let meta = theirs.meta.as_mut().unwrap();
    meta.compaction_finished = Revision(0);
    assert_eq!(theirs, ours);
    let (theirs, ours) = (source.base().unwrap(), staged.base().unwrap());
    assert_eq!(theirs.leases().unwrap(), ours.leases().unwrap());
    assert_eq!(attached_to(&ours, LeaseId(11)).unwrap(), [Bytes::from_static(b"leased")]);
    let mut cursor = Some(ScrubCursor::default());
    while let Some(from) = cursor {
        cursor = ours.scrub_slice(from, 10).unwrap().next;
    }
    assert!(staged.is_as_installed().unwrap());
}

#[test]
fn a_staged_store_is_the_one_that_it_came_from() {
    let source = source();
    for size in [1, 3, 100] {
        let directory = SimDir::new(1);
        let mut staged = go_on(&directory, &source, size).unwrap();
        assert_same(&source, &staged);
        let next = batch(&staged, vec![(at(8, 0), put("a", "3", 5, 2))]);
        staged.fold(&next).unwrap();
        assert!(!staged.is_as_installed().unwrap(), "it has moved on");
        assert!(!source.is_as_installed().unwrap(), "this one was founded");
    }
}

#[test]
fn a_staged_store_is_no_store_before_it_is_whole_and_goes_on_after_a_crash_anywhere() {
    let source = source();
    let whole = SimDir::new(1);
    go_on(&whole, &source, 4).unwrap();
    let mut resumed = 0;
    for crash_at in 1..=whole.operations() {
        for survival in [Survival::Nothing, Survival::Everything, Survival::Random] {
            let directory = SimDir::new(crash_at);
            directory.plan(FaultPlan { crash_at: Some(crash_at), ..FaultPlan::default() });
            // Some of the last operations are of the closing only.
            drop(go_on(&directory, &source, 4));
            let directory = directory.crash(survival);
            if directory.list().unwrap().contains(&NAME.to_owned()) {
                let staged = Store::open_in(&directory, NAME, SMALL).unwrap();
                resumed += usize::from(staged.stage().unwrap().is_some() && !staged.is_initialised());
            }
            assert_same(&source, &go_on(&directory, &source, 4).unwrap());
        }
    }
    assert!(resumed > 20, "{resumed} were half way");
}

#[test]
fn no_bit_of_a_piece_can_change_unnoticed() {
    let source = source();
    let (piece, _) = pieces(&source, 3).remove(1);
    for bit in 0..piece.len() * 8 {
        let mut flipped = piece.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(unpack(&flipped.into()), Err(PieceError), "bit {bit}");
    }
    let facts = pack_facts(&source.base().unwrap()).unwrap();
    for bit in 0..facts.len() * 8 {
        let mut flipped = facts.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(unpack_facts(&flipped.into()), Err(PieceError), "bit {bit}");
    }
}

#[test]
fn a_piece_follows_the_one_before() {
    let changes = dump(&source()).changes;
    let piece = pack(&changes[3..5]);
    let progress = StageProgress::default().after(&piece, &changes[3..5]).unwrap();
    assert_eq!(progress.after(&piece, &changes[3..5]), None, "these are in already");
    assert_eq!(progress.after(&Bytes::new(), &[]), None);
    let disordered = [changes[7].clone(), changes[6].clone()];
    assert_eq!(progress.after(&pack(&disordered), &disordered), None);
    assert!(progress.after(&pack(&changes[5..6]), &changes[5..6]).is_some());
}
