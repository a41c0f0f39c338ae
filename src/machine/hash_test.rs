//! HashKV against values that etcd publishes, and its independence of how far removal has come.

use bytes::Bytes;

use super::model::crc32c_bitwise;
use super::rig::{Rig, put, range};
use crate::command::Rejection;
use crate::ids::Revision;
use crate::mvcc::{HashKv, ReadError};

/// The stride of etcd's own regression test of HashKV (`TestHashByRevValue` and `TestHashByRevValueLastRevision`), whose keys
/// and expected values these are. Computed by etcd, so they bind the bytes that are hashed and not only our reading of the text.
const CYCLE: i64 = 71;
const LAST_CYCLE: i64 = 1210;

/// Hashes in the middle of each cycle's writes.
const MIDWAY: [u32; 19] = [
    4_082_599_214,
    2_279_933_401,
    3_284_231_217,
    126_286_495,
    900_108_730,
    2_475_485_232,
    1_226_296_507,
    2_503_661_030,
    4_155_130_747,
    106_915_399,
    406_914_006,
    1_882_211_381,
    806_177_088,
    664_311_366,
    1_496_914_449,
    2_434_525_091,
    3_988_652_253,
    1_122_462_288,
    724_436_716,
];

/// Hashes at the last revision of each cycle.
const LAST: [u32; 19] = [
    1_913_897_190,
    224_860_069,
    1_565_167_519,
    1_566_261_620,
    2_037_173_024,
    691_659_396,
    2_713_730_748,
    3_919_322_507,
    769_967_540,
    2_909_194_793,
    1_576_921_157,
    4_067_701_532,
    2_226_384_237,
    2_923_408_134,
    2_680_329_256,
    1_546_717_673,
    2_713_657_846,
    1_046_575_299,
    2_017_735_779,
];

fn key(number: i64) -> &'static str {
    const WEEK: [&str; 7] = ["alice", "bob", "celine", "dominik", "eve", "frederica", "gorge"];
    match (number % (2 * CYCLE), number % CYCLE) {
        (30, _) => "zenek",
        (_, 30) => "xavery",
        _ => WEEK[usize::try_from(number % 7).expect("not negative")],
    }
}

/// Writes a cycle, hashes at `offset` behind its start (or at its end) and compacts to there, over and over.
fn published(offset: impl Fn(i64) -> Option<i64>, expected: [u32; 19], settle: impl Fn(&mut Rig)) {
    let mut rig = Rig::new();
    let mut compacted = -1;
    for (cycle, hash) in (0..).zip(expected) {
        let start = cycle * CYCLE;
        let length = if cycle == 18 { LAST_CYCLE } else { CYCLE };
        for number in start..=start + length {
            rig.put(key(number), &number.to_string());
        }
        settle(&mut rig);
        let at = offset(length).map_or(rig.view().revision().0, |offset| start + offset);
        let expected = HashKv { hash, compact_revision: compacted, hash_revision: Revision(at) };
        assert_eq!(rig.view().hash_kv(at).expect("retained"), expected, "in cycle {cycle}");
        rig.compact(at).expect("accepted");
        compacted = at;
    }
}

#[test]
fn the_values_that_etcd_publishes() {
    let in_overlay = |_: &mut Rig| {};
    let in_store = |rig: &mut Rig| {
        rig.rotate();
        rig.fold();
        while !rig.compact_slice(20) {}
    };
    published(|length| Some(length / 2), MIDWAY, in_overlay);
    published(|length| Some(length / 2), MIDWAY, in_store);
    published(|_| None, LAST, in_overlay);
    published(|_| None, LAST, in_store);
}

#[test]
fn no_step_of_removal_changes_it_even_with_no_key_left() {
    let mut rig = Rig::new();
    for value in ["1", "2", "3"] {
        rig.put("a", value);
        rig.put("b", value);
    }
    rig.delete("b", "");
    rig.compact(7).expect("accepted");
    rig.delete("a", "");
    rig.rotate();
    rig.fold();
    let view = rig.view();
    assert_eq!(
        view.range(&range("\0", "\0")).expect("now").count,
        0,
        "the case that etcd makes an exception for"
    );
    let before = view.hash_kv(0).expect("retained");
    let bytes = rig.view().bytes_in_use();
    while !rig.compact_slice(1) {
        assert_eq!(rig.view().hash_kv(0).expect("retained"), before);
    }
    assert_eq!(rig.view().hash_kv(0).expect("retained"), before);
    assert!(rig.view().bytes_in_use() < bytes, "something was removed");
    rig.put("c", "");
    assert_ne!(rig.view().hash_kv(0).expect("retained").hash, before.hash);
}

#[test]
fn its_revision_is_bounded_like_that_of_a_read() {
    let mut rig = Rig::new();
    rig.put("a", "1");
    rig.put("a", "2");
    rig.compact(3).expect("accepted");
    let refused = |revision| match rig.view().hash_kv(revision) {
        Err(ReadError::Rejected(rejection)) => rejection,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(4), Rejection::FutureRevision);
    assert_eq!(refused(2), Rejection::Compacted);
    assert_eq!(refused(-1), Rejection::Compacted);
    assert_eq!(rig.view().hash_kv(3).expect("retained"), rig.view().hash_kv(0).expect("retained"));
}

#[test]
fn a_negative_lease_is_hashed_as_ten_bytes() {
    // Computed from the text of the reference: one put of key "k", value "v", lease -7, at revision 2.
    let rig = Rig::new();
    let mut tip = rig.tip();
    let granted_at = crate::ids::LogIndex(1);
    let record = crate::store::Lease { ttl: 9, remaining: 0, granted_at };
    tip.set_lease(crate::ids::LeaseId(-7), Some(record));
    let lease = crate::command::LeaseChange::Set(crate::ids::LeaseId(-7));
    let leased = crate::command::Put { lease, ..put("k", "v") };
    crate::mvcc::Writer::new(&mut tip, crate::mvcc::Allowance::UNLIMITED).put(&leased).expect("accepted");
    let mut fed = Bytes::from_static(b"key\0\0\0\0\0\0\0\x02_\0\0\0\0\0\0\0\0").to_vec();
    fed.extend_from_slice(b"\x0a\x01k\x10\x02\x18\x02\x20\x01\x2a\x01v\x30");
    fed.extend_from_slice(b"\xf9\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    assert_eq!(tip.view().hash_kv(0).expect("retained").hash, crc32c_bitwise(&fed));
}

#[test]
fn the_naive_checksum_is_crc32c() {
    assert_eq!(crc32c_bitwise(b"123456789"), 0xe306_9283, "the check value of RFC 3720's polynomial");
}
