//! What is kept, what is dropped, and a crash at every point.

use bytes::Bytes;

use super::*;
use crate::command::{
    Command, DeleteRange, Envelope, KeyRange, LeaseChange, MemberAttributes, MemberCommand, Put,
};
use crate::disk::sim::{FaultPlan, SimDir, Survival};
use crate::formation::{Content, DataDir, DiskOptions, Generation, Identity, Stage, test_founding};
use crate::ids::{LeaseId, ProposalId, PublicKey, Term};
use crate::store::{StoreOptions, test_charter};
use crate::wal::{self, Batch, HardState};

const OTHERS: [MemberId; 2] = [MemberId(2), MemberId(3)];
const PUTS: u64 = 20;

fn options() -> DiskOptions {
    DiskOptions {
        store: StoreOptions { cache_bytes: 1 << 20 },
        wal: wal::Options { segment_bytes: 16384, prefill: true },
    }
}

fn entry(index: u64, command: Option<Command>) -> LogEntry {
    let id = ProposalId { boot: 9, seq: index };
    let data =
        command.map_or_else(Bytes::new, |command| codec::encode(&Envelope { id, caller: None, command }));
    LogEntry { index: LogIndex(index), term: Term(2), kind: EntryKind::Normal, data }
}

fn put(n: u64) -> Command {
    let lease = LeaseChange::Set(LeaseId::NONE);
    Command::Put(Put { key: format!("k{n}").into(), value: Some("v".into()), lease, prev_kv: false })
}

/// One of three members. Its log goes beyond what it knows to be committed, and ends with a fourth.
fn member_of_three() -> (SimDir, Identity) {
    let root = SimDir::new(1);
    let founding = test_founding(1);
    formation::found(&root, &Identity { stage: Stage::Restoring, ..founding.identity }).unwrap();
    let own = founding.meta.members[0].clone();
    let other = |id: &MemberId| Member {
        key: Some(PublicKey([7; 32])),
        votes: true,
        attributes: MemberAttributes { member: *id, name: format!("m{id}"), ..own.attributes.clone() },
    };
    let mut members: Vec<Member> = OTHERS.iter().map(other).chain([own.clone()]).collect();
    members.sort_by_key(Member::id);
    let conf_state = ConfState { voters: members.iter().map(Member::id).collect(), ..ConfState::default() };
    let charter = Arc::new(Charter { dissolved: None, ..test_charter() });
    let meta = Meta { conf_state, members, charter, ..founding.meta };
    let content = Content { meta, batches: &mut std::iter::empty(), log_start: founding.log_start };
    let mut data = formation::open(&root, 2, Some(content), options()).unwrap();
    let mut entries = vec![entry(2, None)];
    entries.extend((0..PUTS).map(|n| entry(3 + n, Some(put(n)))));
    let peer_urls = vec!["http://new:1".to_owned()];
    let add = MemberCommand::Add { peer_urls, votes: true, strict: false, learners_max: 1 };
    entries.push(entry(3 + PUTS, Some(Command::Member(add))));
    let hard_state = HardState { term: Term(2), vote: None, commit: LogIndex(2) };
    data.wal.append(Batch { hard_state: Some(hard_state), entries: &entries }).unwrap();
    data.wal.sync().unwrap();
    (root, data.identity)
}

fn recover(root: &SimDir) -> Result<Alone, AloneError> {
    go_on_alone(root, formation::open_to_recover(root, options())?)
}

fn check(data: &DataDir<SimDir>, before: &Identity) {
    let meta = data.store.meta();
    assert_eq!(data.identity.generation, Generation(before.generation.0 + 1));
    assert_eq!(data.identity.cluster(), before.cluster());
    assert_eq!(meta.conf_state, ConfState { voters: vec![before.member], ..ConfState::default() });
    assert_eq!(meta.members.iter().map(Member::id).collect::<Vec<_>>(), [before.member]);
    assert!(OTHERS.iter().all(|other| meta.removed.iter().any(|(gone, _)| gone == other)));
    assert_eq!(meta.applied, data.recovered.last().index);
    assert_eq!(meta.revision, Revision(1 + i64::try_from(PUTS).unwrap()), "all that the log held");
    let charter = &meta.charter;
    assert!(charter.automatic && charter.committed && charter.dissolved.is_none());
    assert!(!charter.is_open() && charter.tokens.is_empty() && charter.approved.is_empty(), "{charter:?}");
    assert_eq!(charter.authority, test_charter().authority);
    assert_eq!(charter.clients, test_charter().clients);
}

#[test]
fn one_of_three_goes_on_with_all_that_its_log_holds() {
    let (root, before) = member_of_three();
    let alone = recover(&root).unwrap();
    assert_eq!(alone.dropped.len(), 3, "the one that was only in the log, too");
    assert_eq!(alone.applied, LogIndex(3 + PUTS));
    check(&formation::open(&root, 5, None, options()).unwrap(), &before);
    let again = recover(&root).unwrap();
    assert_eq!(
        (again.dropped.len(), again.revision),
        (0, alone.revision),
        "and once more, if somebody wants"
    );
}

/// More than a generation holds is deleted by one entry of the log.
#[test]
fn a_deletion_of_very_many_keys_is_among_what_the_log_holds() {
    let (root, _) = member_of_three();
    let mut data = formation::open_to_recover(&root, options()).unwrap();
    let first = data.recovered.last().index.0 + 1;
    let large = |n: u64| {
        let lease = LeaseChange::Set(LeaseId::NONE);
        let key = format!("large {n:060000}").into();
        Command::Put(Put { key, value: Some("v".into()), lease, prev_kv: false })
    };
    let puts = 2 + crate::limits::OVERLAY_BYTES as u64 / 60_000;
    let range = KeyRange::from_wire("large".into(), "m".into());
    let delete = Command::DeleteRange(DeleteRange { range, prev_kv: false });
    let commands = (0..puts).map(large).chain([delete, put(0)]);
    let entries: Vec<_> =
        (first..).zip(commands).map(|(index, command)| entry(index, Some(command))).collect();
    data.wal.append(Batch { hard_state: None, entries: &entries }).unwrap();
    data.wal.sync().unwrap();
    drop(data);
    let alone = recover(&root).unwrap();
    assert_eq!(alone.revision, Revision(1 + i64::try_from(PUTS + puts + 2).unwrap()));
    let data = formation::open(&root, 5, None, options()).unwrap();
    let all = KeyRange::from_wire("\0".into(), "\0".into());
    assert_eq!(data.store.base().unwrap().count_live(&all, 100).unwrap(), (PUTS, None));
}

#[test]
fn who_goes_on_alone_does_so_for_good_even_where_the_cluster_was_given_up() {
    let founding = test_founding(1);
    let charter = Arc::new(Charter { committed: false, ..test_charter() });
    let meta = Meta { charter, ..founding.meta };
    let (meta, _) = alone(meta, founding.identity.member).unwrap();
    assert!(meta.charter.committed && meta.charter.dissolved.is_none());
}

#[test]
fn a_crash_leaves_a_member_of_the_old_cluster_or_one_that_refuses_to_start() {
    let (root, _) = member_of_three();
    let first = root.operations();
    recover(&root).unwrap();
    let operations = root.operations() - first;
    let (mut untouched, mut half, mut done) = (0, 0, 0);
    for crash_at in 1..=operations {
        let (root, before) = member_of_three();
        root.plan(FaultPlan { crash_at: Some(first + crash_at), ..FaultPlan::default() });
        drop(recover(&root));
        for survival in [Survival::Nothing, Survival::Everything, Survival::Random] {
            let left = root.crash(survival);
            match formation::open(&left, 5, None, options()) {
                Ok(data) if data.identity.generation == before.generation => {
                    untouched += 1;
                    assert_eq!(data.store.meta().members.len(), 3);
                }
                Ok(data) => {
                    done += 1;
                    check(&data, &before);
                }
                Err(error @ OpenError::RecoveryUnfinished) => {
                    half += 1;
                    assert!(error.is_for_ever(), "no start finishes it");
                    recover(&left).unwrap();
                    check(&formation::open(&left, 6, None, options()).unwrap(), &before);
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(untouched > 2 && half > 10 && done > 0, "{untouched}, {half}, {done}");
}

#[test]
fn who_is_not_a_member_does_not_go_on() {
    let (root, _) = member_of_three();
    let mut data = formation::open_to_recover(&root, options()).unwrap();
    let mut meta = data.store.meta().clone();
    meta.members.retain(|other| other.id() != data.identity.member);
    data.store.fold(&FoldBatch { meta, ..FoldBatch::default() }).unwrap();
    assert!(matches!(go_on_alone(&root, data), Err(AloneError::NotMember)));
    assert_eq!(formation::founded(&root).unwrap().unwrap().stage, Stage::Established, "untouched");
}
