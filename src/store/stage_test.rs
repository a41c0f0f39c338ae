//! A store that was staged is the one that it was taken from, whatever it was cut into and wherever that was cut off.

use super::super::scrub::ScrubCursor;
use super::super::testing::{Disk, SMALL, at, attached_to, batch, delete, dump, founded, put};
use super::*;
use crate::disk::Directory;
use crate::disk::sim::{FaultPlan, SimDir, Survival};

const TRANSFER: TransferId = TransferId { source: MemberId(7), boot: 8, number: 9 };
const NAME: &str = "staged";

/// Changes of one key at many revisions, of many keys at one, a tombstone that stays and one that went, leases that were checkpointed and that
/// have ended.
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
    first.leases = (11..18).map(|id| (LeaseId(id), Some(lease))).collect();
    store.fold(&first).unwrap();
    let many = (0..20).map(|sub| (at(7, sub), put(format!("k{sub}"), "v", 7, 1))).collect();
    let mut second = batch(&store, many);
    second.meta.compacted = Revision(5);
    let checkpointed = Lease { remaining: 3, ..lease };
    second.leases = vec![(LeaseId(12), Some(checkpointed)), (LeaseId(14), None)];
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

/// The pieces of its leases, each of so many, with the progress after each. At first they are what they once were: all as they were granted.
fn lease_pieces(store: &Store, size: usize, mut progress: StageProgress) -> Vec<(Bytes, StageProgress)> {
    let mut leases: Vec<_> = store.base().unwrap().leases().unwrap();
    leases.push((LeaseId(14), Lease { ttl: 9, remaining: 0, granted_at: LogIndex(2) }));
    leases.sort_unstable_by_key(|(id, _)| LeasePlace::of(*id));
    let granted: Vec<_> =
        leases.iter().map(|(id, lease)| (*id, Some(Lease { remaining: 0, ..*lease }))).collect();
    let now: Vec<_> = leases.iter().map(|(id, lease)| (*id, (id.0 != 14).then_some(*lease))).collect();
    let mut pieces = Vec::new();
    for leases in granted.chunks(size).chain(now.chunks(size)) {
        let piece = pack_leases(leases);
        progress = progress.after_leases(&piece, leases).unwrap();
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
    let behind = |(_, progress): &(Bytes, StageProgress)| {
        (progress.changes, progress.leases) <= (done.changes, done.leases)
    };
    let pieces = pieces(source, size);
    let (_, all) = pieces.last().unwrap().clone();
    for (piece, progress) in pieces.into_iter().skip_while(behind) {
        staged.stage_piece(TRANSFER, progress, &unpack(&piece).unwrap())?;
    }
    for (piece, progress) in lease_pieces(source, size, all).into_iter().skip_while(behind) {
        staged.stage_leases(TRANSFER, progress, &unpack_leases(&piece).unwrap())?;
    }
    staged.finish_stage(source.meta())?;
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
    let (mut resumed, mut within_leases) = (0, 0);
    for crash_at in 1..=whole.operations() {
        for survival in [Survival::Nothing, Survival::Everything, Survival::Random] {
            let directory = SimDir::new(crash_at);
            directory.plan(FaultPlan { crash_at: Some(crash_at), ..FaultPlan::default() });
            // Some of the last operations are of the closing only.
            drop(go_on(&directory, &source, 4));
            let directory = directory.crash(survival);
            if directory.list().unwrap().contains(&NAME.to_owned()) {
                let staged = Store::open_in(&directory, NAME, SMALL).unwrap();
                let stage = staged.stage().unwrap().filter(|_| !staged.is_initialised());
                resumed += usize::from(stage.is_some());
                within_leases += usize::from(stage.is_some_and(|stage| stage.progress.leases > 0));
            }
            assert_same(&source, &go_on(&directory, &source, 4).unwrap());
        }
    }
    assert!(resumed > 20, "{resumed} were half way");
    assert!(within_leases > 10, "{within_leases} were half way through the leases");
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
    let (_, progress) = pieces(&source, 100).remove(0);
    let leases = lease_pieces(&source, 100, progress);
    for (piece, _) in leases {
        for bit in 0..piece.len() * 8 {
            let mut flipped = piece.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unpack_leases(&flipped.into()), Err(PieceError), "bit {bit}");
        }
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

#[test]
fn leases_in_a_piece_ascend_as_in_their_table() {
    let progress = StageProgress::default();
    let after = |leases: &[i64]| {
        let leases: Vec<_> = leases.iter().map(|id| (LeaseId(*id), None)).collect();
        progress.after_leases(&pack_leases(&leases), &leases)
    };
    assert_eq!(after(&[]), None);
    assert_eq!(after(&[1, 1]), None);
    assert_eq!(after(&[1, 256]), None, "256 begins with a zero byte");
    let after = after(&[256, 1]).unwrap();
    assert_eq!((after.leases, after.changes, after.next), (2, 0, progress.next));
    assert_ne!(after.digest, progress.digest);
}

#[test]
fn how_far_a_store_has_come_is_not_read_from_a_row_of_another_version() {
    let progress = StageProgress { changes: 2, leases: 3, digest: 4, ..StageProgress::default() };
    let stage = Stage { transfer: TRANSFER, progress, bytes: 5 };
    let row = stage_row(&stage);
    assert_eq!(parse_stage(&row), Some(stage));
    for version in [STAGED_VERSION - 1, STAGED_VERSION + 1] {
        let mut other = row[..row.len() - 4].to_vec();
        other[0] = version;
        seal(STAGED_KEY.as_bytes(), &mut other);
        assert_eq!(parse_stage(&other), None);
    }
}
