//! Images of random histories, restored and compared; images with any bit flipped or any end cut off.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use proptest::test_runner::TestCaseError;
use redb::backends::InMemoryBackend;

use super::{
    IMAGE_ALIGNMENT, ImageError, ImageReader, ImageWriter, NewRevisions, Record, Refold, WriteError,
};
use crate::command::{
    Alarm, AlarmAction, AlarmKind, Command, DeleteRange, KeyRange, LeaseChange, LeaseCommand, Put, RangeEnd,
};
use crate::ids::{LeaseId, LogIndex, MemberId, Revision, Term, VersionId};
use crate::machine::Machine;
use crate::mvcc::{Allowance, View};
use crate::store::{
    Base, ChangeLog, Charter, FoldBatch, Lease, Meta, Store, StoreOptions, test_auth, test_charter,
};

/// A machine over a store in memory.
struct Rig {
    store: Store,
    machine: Machine,
}

fn new_store(meta: &Meta) -> Store {
    let mut store = Store::open(InMemoryBackend::new(), StoreOptions { cache_bytes: 1 << 20 }).unwrap();
    store.initialise(meta).unwrap();
    store
}

fn base(store: &Store) -> Arc<Base> {
    Arc::new(store.base().unwrap())
}

impl Rig {
    fn new() -> Self {
        let store = new_store(&Meta { revision: Revision(1), ..Meta::default() });
        Self { machine: Machine::new(base(&store)).unwrap(), store }
    }

    fn apply(&mut self, command: &Command) {
        let index = self.machine.applied().next();
        self.machine.apply(index, Term(1), command, Allowance::UNLIMITED).unwrap();
    }

    fn put(&mut self, key: &'static str, value: &[u8]) {
        self.apply(&put(Bytes::from_static(key.as_bytes()), Bytes::copy_from_slice(value)));
    }

    fn compact(&mut self, revision: i64) {
        self.apply(&Command::Compact { revision });
    }

    fn fold(&mut self) {
        if let Some(batch) = self.machine.rotate() {
            self.store.fold(&batch).unwrap();
            self.machine.folded(base(&self.store));
        }
    }

    fn remove(&mut self, limit: usize) {
        self.store.compact_slice(limit).unwrap();
        self.machine.rebased(base(&self.store));
    }

    fn view(&self) -> View {
        self.machine.view()
    }
}

fn put(key: Bytes, value: Bytes) -> Command {
    let (value, lease) = (Some(value), LeaseChange::Set(LeaseId::NONE));
    Command::Put(Put { key, value, lease, prev_kv: false })
}

/// A whole image, from one view.
fn image(view: &View, budget: usize) -> Vec<u8> {
    let mut writer = ImageWriter::start(view).unwrap();
    let mut image = Vec::new();
    while let Some(slice) = writer.next_slice(view, budget).unwrap() {
        image.extend(slice);
    }
    assert_eq!(image.len() as u64, writer.total_bytes());
    assert_eq!(writer.hash().unwrap()[..], *ring::digest::digest(&ring::digest::SHA256, &image).as_ref());
    image
}

/// All records of an image that comes in pieces.
fn read(image: &[u8], piece: usize) -> Result<Vec<Record>, ImageError> {
    let mut reader = ImageReader::default();
    let mut records = Vec::new();
    for piece in image.chunks(piece) {
        reader.push(piece);
        while let Some(record) = reader.next_record()? {
            records.push(record);
        }
    }
    assert_eq!(reader.finish()?, image.len() as u64);
    Ok(records)
}

/// A store with what an image holds.
fn restore(image: &[u8]) -> Store {
    let mut records = read(image, 1000).unwrap().into_iter();
    let Some(Record::Facts(meta)) = records.next() else { panic!("facts come first") };
    let mut store = new_store(&Meta { revision: Revision(1), ..Meta::default() });
    let mut batch = FoldBatch { changes: ChangeLog::default(), leases: Vec::new(), sweep: None, meta: *meta };
    for record in records {
        match record {
            Record::Lease(id, lease) => batch.leases.push((id, Some(lease))),
            Record::Change(id, change) => batch.changes.push(id, change),
            Record::Facts(_) | Record::End { .. } => {}
        }
    }
    store.fold(&batch).unwrap();
    store
}

fn sample() -> Rig {
    let mut rig = Rig::new();
    rig.apply(&Command::Lease(LeaseCommand::Grant { id: LeaseId(-7), ttl: 60 }));
    rig.put("a", b"1");
    rig.put("b", b"");
    rig.fold();
    rig.put("a", b"22");
    rig.apply(&Command::DeleteRange(DeleteRange { range: KeyRange::single("b".into()), prev_kv: false }));
    let alarm = Alarm { member: MemberId(3), kind: AlarmKind::NoSpace };
    rig.apply(&Command::Alarm { action: AlarmAction::QuotaReached, alarm });
    rig.compact(3);
    rig
}

#[test]
fn what_a_cluster_knows_of_itself_is_not_in_its_images() {
    let charter = Arc::new(test_charter());
    let auth = Arc::new(test_auth());
    let store = new_store(&Meta { revision: Revision(1), charter, auth, ..Meta::default() });
    let view = Machine::new(base(&store)).unwrap().view();
    assert_eq!(*view.meta().charter, test_charter());
    let image = image(&view, usize::MAX);
    let Record::Facts(facts) = read(&image, image.len()).unwrap().remove(0) else {
        panic!("facts come first")
    };
    assert_eq!(*facts.charter, Charter::default());
    assert_eq!(*facts.auth, test_auth().without_secrets(), "users and roles are, as in etcd's");
    let refold = Refold::new(&Meta::default(), &facts, NewRevisions::default()).unwrap();
    assert_eq!(refold.finish().meta.auth, facts.auth);
    // All secrets in it consist of such bytes.
    assert!(!image.windows(8).any(|bytes| bytes == [0xab; 8]));
}

#[test]
fn an_image_is_what_the_head_of_the_room_says() {
    let rig = sample();
    let view = rig.view();
    let image = image(&view, usize::MAX);
    assert_eq!(image[..16], *b"\x01covey image\0\0\0\0");
    assert!(image.len().is_multiple_of(IMAGE_ALIGNMENT));
    let mut records = read(&image, image.len()).unwrap();
    assert_eq!(records.remove(0), Record::Facts(Box::new(view.meta())));
    assert!(matches!(records.pop(), Some(Record::End { changes: 4, .. })));
    let lease = Lease { ttl: 60, remaining: 0, granted_at: LogIndex(1) };
    assert_eq!(records.remove(0), Record::Lease(LeaseId(-7), lease));
    let found = records.into_iter().map(|record| match record {
        Record::Change(id, change) => (id, change),
        other => panic!("{other:?}"),
    });
    let changes = view.changes(VersionId::default()).unwrap().map(Result::unwrap);
    assert!(found.eq(changes));
}

#[test]
fn any_flipped_bit_is_found() {
    let sound = image(&sample().view(), usize::MAX);
    for bit in 0..sound.len() * 8 {
        let mut flipped = sound.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&flipped, 100).is_err(), "bit {bit}");
    }
}

#[test]
fn a_missing_or_an_added_end_is_found() {
    let sound = image(&sample().view(), usize::MAX);
    for cut in 0..sound.len() {
        let error = read(&sound[..cut], 100).unwrap_err();
        assert_eq!(error, ImageError::CutOff { offset: cut as u64 }, "cut at {cut}");
    }
    for more in [&[0][..], &[1], &[0; IMAGE_ALIGNMENT]] {
        let error = read(&[&sound, more].concat(), 100).unwrap_err();
        assert!(matches!(error, ImageError::Damaged { .. }));
    }
}

#[test]
fn damage_is_named_by_where_it_is() {
    let sound = image(&sample().view(), usize::MAX);
    let facts = 16 + 5 + u32::from_le_bytes(sound[17..21].try_into().unwrap()) as usize + 4;
    let mut damaged = sound;
    damaged[facts + 20] ^= 1;
    let what = "checksum does not fit";
    assert_eq!(read(&damaged, 100).unwrap_err(), ImageError::Damaged { offset: facts as u64, what });
}

#[test]
fn what_is_no_image_of_this_version_is_called_what_it_is() {
    let sound = image(&sample().view(), usize::MAX);
    let mut newer = sound.clone();
    newer[0] = 2;
    assert_eq!(read(&newer, 7).unwrap_err(), ImageError::UnsupportedVersion { found: 2, supported: 1 });
    let mut bbolt = vec![0; 4096];
    bbolt[16..20].copy_from_slice(&[0xed, 0xda, 0x0c, 0xed]);
    assert_eq!(read(&bbolt, 100).unwrap_err(), ImageError::Bbolt);
    assert_eq!(read(&[b'x'; 600], 100).unwrap_err(), ImageError::NotAnImage);
    // Newer facts in an image of this version, sealed well.
    let body = &sound[21..];
    let length = u32::from_le_bytes(sound[17..21].try_into().unwrap()) as usize;
    let mut meta_row = body[..length].to_vec();
    meta_row[0] += 2;
    let content = length - 4;
    let seal = crc32c::crc32c_append(crc32c::crc32c(b"facts"), &meta_row[..content]);
    meta_row[content..].copy_from_slice(&seal.to_le_bytes());
    let mut odd = sound.clone();
    odd[21..21 + length].copy_from_slice(&meta_row);
    let seal = crc32c::crc32c_append(crc32c::crc32c(&odd[..16]), &odd[16..21 + length]);
    odd[21 + length..25 + length].copy_from_slice(&seal.to_le_bytes());
    assert!(matches!(read(&odd, 100).unwrap_err(), ImageError::UnsupportedFacts { .. }));
}

#[test]
fn an_image_whose_changes_were_removed_under_it_ends_with_an_error() {
    let mut rig = Rig::new();
    for n in 0..40 {
        rig.put("k", &[n; 100]);
    }
    let mut writer = ImageWriter::start(&rig.view()).unwrap();
    writer.next_slice(&rig.view(), 1000).unwrap();
    rig.compact(41);
    rig.fold();
    while rig.store.meta().compaction_finished < Revision(41) {
        rig.remove(100);
    }
    let error = loop {
        match writer.next_slice(&rig.view(), 1000) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the image is not whole"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, WriteError::Miscounted { .. }), "{error}");
}

/// As when the state of another member takes the place of this one's.
#[test]
fn an_image_that_comes_to_more_than_was_counted_ends_with_an_error() {
    let (mut small, mut large) = (Rig::new(), Rig::new());
    for n in 0..40 {
        small.put("k", &[n; 10]);
        large.put("k", &[n; 1000]);
    }
    let mut writer = ImageWriter::start(&small.view()).unwrap();
    let error = loop {
        match writer.next_slice(&large.view(), 100) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the image is not whole"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, WriteError::Miscounted { .. }), "{error}");
    assert!(matches!(writer.hash(), Err(WriteError::Miscounted { .. })));
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Command),
    Fold,
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || proptest::sample::select(vec!["a", "a\0", "b", "cc", "d"]).prop_map(Bytes::from);
    let lease = || (1_i64..4).prop_map(LeaseId);
    let value = || proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    prop_oneof![
        6 => (key(), value()).prop_map(|(key, value)| Step::Apply(put(key, value))),
        3 => (key(), lease()).prop_map(|(key, lease)| {
            let lease = LeaseChange::Set(lease);
            Step::Apply(Command::Put(Put { key, value: Some(Bytes::new()), lease, prev_kv: false }))
        }),
        2 => lease().prop_map(|id| Step::Apply(Command::Lease(LeaseCommand::Grant { id, ttl: 9 }))),
        1 => lease().prop_map(|id| Step::Apply(Command::Lease(LeaseCommand::Revoke { id }))),
        2 => (key(), key()).prop_map(|(start, end)| {
            let range = KeyRange { start, end: RangeEnd::Before(end) };
            Step::Apply(Command::DeleteRange(DeleteRange { range, prev_kv: false }))
        }),
        1 => (1_i64..60).prop_map(|revision| Step::Apply(Command::Compact { revision })),
        2 => proptest::strategy::Just(Step::Fold),
        1 => (1_usize..5).prop_map(Step::Remove),
    ]
}

fn run(rig: &mut Rig, step: &Step, held: bool) {
    match step {
        Step::Apply(command) => rig.apply(command),
        Step::Fold => rig.fold(),
        // Removal is held back while an image is written.
        Step::Remove(limit) if !held => rig.remove(*limit),
        Step::Remove(_) => {}
    }
}

fn hash(view: &View, revision: i64) -> Option<crate::mvcc::HashKv> {
    view.hash_kv(revision).ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_restored_image_is_the_state_it_was_taken_of(
        before in proptest::collection::vec(step(), 1..60),
        during in proptest::collection::vec(step(), 0..30),
        budget in 1_usize..400,
    ) {
        model(&before, &during, budget)?;
    }
}

/// Takes an image in small slices while the history goes on, and compares what is restored with the state as it was at the start.
fn model(before: &[Step], during: &[Step], budget: usize) -> Result<(), TestCaseError> {
    let mut rig = Rig::new();
    for step in before {
        run(&mut rig, step, false);
    }
    let then = rig.view();
    let mut writer = ImageWriter::start(&then).unwrap();
    let mut image = Vec::new();
    let mut during = during.iter();
    while let Some(slice) = writer.next_slice(&rig.view(), budget).unwrap() {
        image.extend(slice);
        during.by_ref().take(3).for_each(|step| run(&mut rig, step, true));
    }
    prop_assert_eq!(image.len() as u64, writer.total_bytes());
    prop_assert_eq!(writer.revision(), then.revision());
    let mut store = restore(&image);
    let restored = View::of_base(base(&store)).unwrap();
    prop_assert_eq!(restored.meta(), then.meta());
    prop_assert_eq!(restored.applied(), then.applied());
    prop_assert_eq!(restored.leases(), then.leases());
    for lease in 1..4 {
        prop_assert_eq!(
            restored.lease_keys(LeaseId(lease)).unwrap(),
            then.lease_keys(LeaseId(lease)).unwrap()
        );
    }
    prop_assert_eq!(restored.bytes_in_use(), {
        let (changes, content) = then.count_changes().unwrap();
        content + changes * crate::limits::PUT_OVERHEAD_BYTES + then.leases().bytes()
    });
    let all = |view: &View, revision| {
        let everything = KeyRange::everything();
        view.range(&crate::command::Range { revision, ..crate::command::Range::all(everything) }).ok()
    };
    for revision in 0..=then.revision().0 + 1 {
        prop_assert_eq!(all(&restored, revision), all(&then, revision));
        prop_assert_eq!(hash(&restored, revision), hash(&then, revision));
    }
    // What was left to remove is removed there too.
    while !store.compact_slice(3).unwrap().finished {}
    let removed = View::of_base(base(&store)).unwrap();
    prop_assert_eq!(hash(&removed, 0), hash(&then, 0));
    prop_assert_eq!(all(&removed, 0), all(&then, 0));
    // The restored machine goes on where the other one was.
    let mut machine = Machine::new(base(&store)).unwrap();
    let LogIndex(applied) = then.applied();
    let next = machine
        .apply(LogIndex(applied + 1), Term(1), &put("z".into(), "z".into()), Allowance::UNLIMITED)
        .unwrap();
    prop_assert_eq!(next.revision, then.revision().next());
    Ok(())
}
