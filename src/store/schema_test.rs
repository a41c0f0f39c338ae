//! The bytes of every kind of row, pinned, and what their parsers refuse.

use super::super::encoding::unseal;
use super::super::testing::{at, delete, put};
use super::*;
use crate::prng::Prng;

fn put_with_lease(lease: i64) -> Change {
    let kind = ChangeKind::Put {
        value: Bytes::from_static(b"v"),
        create_revision: Revision(3),
        version: 300,
        lease: LeaseId(lease),
    };
    Change { key: Bytes::from_static(b"key"), kind }
}

fn rev_row(id: VersionId, change: &Change) -> Vec<u8> {
    let mut row = Vec::new();
    write_rev(&mut row, id, change);
    row
}

/// These bytes are on disks: a change of them needs a new format version.
#[test]
fn rows_are_what_the_table_in_the_head_of_this_file_says() {
    let row = rev_row(at(5, 1), &put("k", "v", 3, 2));
    assert_eq!(unseal(&id_key(at(5, 1)), &row), Some(&[0, 1, b'k', 2, 2, b'v'][..]));
    let row = rev_row(at(5, 1), &put_with_lease(-2));
    let lease = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let body = [&[1, 3, b'k', b'e', b'y', 2, 0xac, 2][..], &lease, b"v"].concat();
    assert_eq!(unseal(&id_key(at(5, 1)), &row), Some(body.as_slice()));
    let row = rev_row(at(6, 0), &delete("k"));
    assert_eq!(unseal(&id_key(at(6, 0)), &row), Some(&[2, 1, b'k'][..]));

    let mut row = Vec::new();
    let head = Head { id: at(300, 0), create_revision: Revision(299), version: 1, lease: LeaseId(0) };
    write_live(&mut row, b"k", &head);
    assert_eq!(unseal(b"k", &row), Some(&[0, 0xac, 2, 1, 1][..]));
    let head = Head { id: at(300, 7), lease: LeaseId(1), ..head };
    write_live(&mut row, b"k", &head);
    assert_eq!(unseal(b"k", &row), Some(&[3, 0xac, 2, 7, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0][..]));

    hist_key(&mut row, b"k", at(258, 3));
    assert_eq!(row, [b'k', 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3]);
    assert_eq!(write_hist(&row, true)[0], 2);
    assert_eq!(write_hist(b"123456789", false), [0, SEAL[0], SEAL[1], SEAL[2], SEAL[3]]);
}

#[test]
fn rows_of_leases_are_what_the_table_says() {
    let lease = Lease { ttl: 300, remaining: 1, granted_at: LogIndex(129) };
    let id = (-2_i64).to_le_bytes();
    let row = write_lease(LeaseId(-2), &lease);
    assert_eq!(unseal(&id, &row), Some(&[0xac, 2, 1, 0x81, 1][..]));
    assert_eq!(parse_lease(id, &row), Some((LeaseId(-2), lease)));
    assert_eq!(parse_lease(2_i64.to_le_bytes(), &row), None, "a row under another id");
    let raw_key = attached_key(LeaseId(258), b"k");
    assert_eq!(raw_key, [2, 1, 0, 0, 0, 0, 0, 0, b'k']);
    let row = write_attached(&raw_key);
    assert_eq!(parse_attached(&raw_key, row), Some((LeaseId(258), &b"k"[..])));
    assert_eq!(parse_attached(&attached_key(LeaseId(258), b"l"), row), None);
    let short = [1, 2, 3];
    assert_eq!(parse_attached(&short, write_attached(&short)), None, "too short for a lease");
}

#[test]
fn what_no_lease_can_have_is_damage() {
    let sealed = |id: i64, body: &[u8]| {
        let mut row = body.to_vec();
        seal(&id.to_le_bytes(), &mut row);
        parse_lease(id.to_le_bytes(), &row)
    };
    assert!(sealed(1, &[5, 0, 9]).is_some());
    for (id, body) in [(0, &[5, 0, 9][..]), (1, &[0, 0, 9]), (1, &[5, 0]), (1, &[5, 0, 9, 9]), (1, &[])] {
        assert_eq!(sealed(id, body), None, "{id} {body:?}");
    }
}

/// CRC32C over "123456789" and a zero byte, low byte first.
const SEAL: [u8; 4] = [79, 157, 56, 195];

#[test]
fn rows_come_back_and_nothing_else_does() {
    let extremes = [at(1, 0), at(1, u32::MAX), at(i64::MAX, 0), at(i64::MAX, u32::MAX)];
    for id in extremes {
        for create in [1, id.main.0] {
            for (version, lease) in [(1, 0), (i64::MAX, i64::MIN), (128, i64::MAX)] {
                let (create_revision, lease) = (Revision(create), LeaseId(lease));
                let value = Bytes::from_static(b"value");
                let kind = ChangeKind::Put { value, create_revision, version, lease };
                let change = Change { key: Bytes::from_static(b"\0"), kind };
                let row = rev_row(id, &change);
                assert_eq!(parse_change(id, &row).as_ref(), Some(&change));
                assert_eq!(RevRow::parse(id, &row).unwrap().stored_bytes(), change.stored_bytes());
                let head = Head { id, create_revision, version, lease };
                let mut live = Vec::new();
                write_live(&mut live, b"\0", &head);
                assert_eq!(parse_live(b"\0", &live), Some(head));
                for cut in 0..live.len() {
                    assert_eq!(parse_live(b"\0", &live[..cut]), None);
                }
            }
        }
        let row = rev_row(id, &delete("gone"));
        assert_eq!(parse_change(id, &row), Some(delete("gone")));
        assert_eq!(parse_id(&id_key(id)), Some(id));
    }
    assert_eq!(parse_id(&[0xff; ID_BYTES]), None, "a negative revision");
    assert_eq!(parse_hist_key(&[0; ID_BYTES - 1]), None);
}

/// A row with a fitting seal and a body that was never written so: what a faulty program, not a faulty disk, would leave.
#[test]
fn sealed_nonsense_is_refused() {
    let id = at(5, 0);
    let sealed = |body: &[u8], key: &[u8]| {
        let mut row = body.to_vec();
        seal(key, &mut row);
        row
    };
    let bodies: [&[u8]; 7] = [
        b"",
        &[3, 1, b'k', 0, 1],
        &[2, 1, b'k', 0],
        &[0, 1, b'k', 6, 1],
        &[0, 1, b'k', 0, 0],
        &[0, 9, b'k', 0, 1],
        &[1, 1, b'k', 0, 1, 0, 0],
    ];
    for body in bodies {
        assert!(RevRow::parse(id, &sealed(body, &id_key(id))).is_none(), "{body:?}");
    }
    for body in [&b""[..], &[4, 5, 0, 1], &[0, 5, 6, 1], &[0, 5, 0, 0], &[0, 5, 0, 1, 0], &[2, 5, 0]] {
        assert!(parse_live(b"k", &sealed(body, b"k")).is_none(), "{body:?}");
    }
    let row: [u8; HIST_ROW_BYTES] = sealed(&[1], b"k").try_into().unwrap();
    assert_eq!(parse_hist(b"k", row), None);
}

/// redb finds rows by separators alone, so a wrong one hides rows; the trees of other tests are too low to have many.
#[test]
fn a_separator_parts_its_neighbours_and_is_no_longer_than_the_left_one() {
    let mut random = Prng::new(3);
    let mut shorter = 0;
    let mut draw = || {
        let length = random.range(1, 20);
        let key: Vec<u8> = (0..length).map(|_| if random.one_in(2) { 0 } else { 0xff }).collect();
        let mut raw = Vec::new();
        hist_key(&mut raw, &key, at(i64::try_from(random.range(0, 3)).unwrap(), 0));
        raw
    };
    for _ in 0..5000 {
        let (mut left, mut right) = (draw(), draw());
        match HistKey::compare(&left, &right) {
            Ordering::Equal => continue,
            Ordering::Greater => std::mem::swap(&mut left, &mut right),
            Ordering::Less => {}
        }
        let separator = HistKey::separator(&left, &right);
        assert!(separator.len() <= left.len());
        assert!(HistKey::compare(&left, &separator).is_le() && HistKey::compare(&separator, &right).is_lt());
        shorter += usize::from(separator.len() < left.len());
    }
    assert!(shorter > 1000, "{shorter}");
}

#[test]
fn whatever_a_page_holds_can_be_compared() {
    let ordered: [&[u8]; 4] = [b"", b"short", &[0; 12], &[1; 13]];
    for left in ordered {
        for right in ordered {
            assert_eq!(HistKey::compare(left, right), HistKey::compare(right, left).reverse());
        }
    }
}
