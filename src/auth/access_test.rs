//! Permissions one by one, and against keys that are looked at one by one.

use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::auth::Role;
use crate::command::{
    Compare, CompareResult, CompareTarget, LeaseChange, PasswordHash, Permission, PermissionKind, Range,
    RangeEnd,
};
use crate::ids::{AuthRevision, LeaseId};
use crate::limits::TXN_DEPTH_MAX;

fn range(start: &str, end: &str) -> KeyRange {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    KeyRange::from_wire(bytes(start), bytes(end))
}

fn grant(kind: PermissionKind, start: &str, end: &str) -> Permission {
    Permission { kind, range: range(start, end) }
}

/// A user "u" with a role for each of these lists, and authentication on.
fn auth_of(roles: &[Vec<Permission>]) -> Auth {
    let mut auth = Auth { enabled: true, revision: AuthRevision(7), ..Auth::default() };
    let mut names = Vec::new();
    for (number, permissions) in roles.iter().enumerate() {
        let name = format!("role {number}");
        let mut role = Role::default();
        for permission in permissions {
            role.grant(permission.clone());
        }
        auth.roles.insert(name.clone(), Arc::new(role));
        names.push(name);
    }
    let user = |roles| {
        let (password, since) = (PasswordHash::default(), AuthRevision(2));
        Arc::new(User { password, no_password: true, since, roles })
    };
    auth.users.insert("u".into(), user(names));
    auth.users.insert("admin".into(), user(vec!["root".into()]));
    auth
}

fn caller(user: &str) -> Caller {
    Caller { user: user.to_owned(), revision: AuthRevision(7) }
}

#[test]
fn what_touches_is_one_interval_and_what_is_missing_is_refused() {
    use PermissionKind::{Read, ReadWrite, Write};
    let auth = auth_of(&[
        vec![grant(Read, "a", "b"), grant(Read, "k", ""), grant(Write, "m", "")],
        vec![grant(ReadWrite, "b", "c"), grant(Read, "k\0", "l"), grant(Read, "x", "\0")],
    ]);
    let reads = |start, end| auth.may_read("u", &range(start, end));
    let writes = |start, end| auth.may_write("u", &range(start, end));
    assert!(reads("a", "b") && reads("b", "c") && reads("a", "c") && reads("aa", "bz") && reads("b", ""));
    assert!(!reads("a", "c\0") && !reads("Z", "b") && !reads("c", "") && !reads("a", "\0"));
    assert!(reads("k", "") && reads("k", "k\0") && reads("k", "l") && !reads("k", "l\0"));
    assert!(!reads("m", "") && writes("m", "") && !writes("m\0", "") && !writes("m", "n"));
    assert!(reads("x", "\0") && reads("zz", "\0") && reads("x", "y") && !reads("w", "\0"));
    assert!(writes("b", "c") && !writes("a", "c"));
    // One that is empty stands for its start.
    assert!(reads("b", "a") && !reads("d", "a"));
    assert!(!auth.may_read("nobody", &range("a", "")) && auth.may_write("admin", &range("a", "\0")));
    assert!(auth.is_root("admin") && !auth.is_root("u") && !auth.is_root("nobody"));
}

#[test]
fn who_asks_is_somebody_of_now() {
    let auth = auth_of(&[]);
    let refused = |caller: Option<&Caller>| auth.access(caller).err();
    assert_eq!(refused(None), Some(Rejection::UserNameEmpty));
    assert_eq!(refused(Some(&caller(""))), Some(Rejection::UserNameEmpty));
    for revision in [6, 8, 0] {
        let old = Caller { revision: AuthRevision(revision), ..caller("admin") };
        assert_eq!(refused(Some(&old)), Some(Rejection::AuthRevisionOld));
    }
    assert_eq!(refused(Some(&caller("nobody"))), Some(Rejection::PermissionDenied));
    assert!(auth.access(Some(&caller("u"))).is_ok_and(|access| !access.is_root()));
    assert!(auth.access(Some(&caller("admin"))).is_ok_and(|access| access.is_root()));
    let off = Auth { enabled: false, ..auth };
    for caller in [None, Some(caller("")), Some(caller("nobody"))] {
        assert!(off.access(caller.as_ref()).is_ok_and(|access| access.is_root()));
    }
}

fn put(key: &str, prev_kv: bool) -> Put {
    let (key, lease) = (Bytes::copy_from_slice(key.as_bytes()), LeaseChange::Set(LeaseId::NONE));
    Put { key, value: Some(Bytes::new()), lease, prev_kv }
}

/// "r" may be read, "w" written, "x" both.
fn permits(command: &Command) -> bool {
    use PermissionKind::{Read, ReadWrite, Write};
    let permissions = vec![grant(Read, "r", "s"), grant(Write, "w", "x"), grant(ReadWrite, "x", "y")];
    let auth = auth_of(&[permissions]);
    let admin = auth.access(Some(&caller("admin"))).unwrap();
    assert_eq!(admin.check(command), Ok(()), "root may do everything");
    let access = auth.access(Some(&caller("u"))).unwrap();
    access.check(command).inspect_err(|error| assert_eq!(*error, Rejection::PermissionDenied)).is_ok()
}

fn nested(depth: usize, txn: Txn) -> Txn {
    (0..depth).fold(txn, |txn, _| Txn { failure: vec![Op::Txn(txn)], ..Txn::default() })
}

#[test]
fn each_operation_takes_its_permissions_wherever_it_is() {
    let delete = |start, end, prev_kv| DeleteRange { range: range(start, end), prev_kv };
    let reads = |start, end| Op::Range(Range::all(range(start, end)));
    let ops = [
        (Op::Put(put("w", false)), true),
        (Op::Put(put("w", true)), false),
        (Op::Put(put("r", false)), false),
        (Op::Put(put("x", true)), true),
        (Op::DeleteRange(delete("w", "y", false)), true),
        (Op::DeleteRange(delete("w", "y", true)), false),
        (Op::DeleteRange(delete("x", "y", true)), true),
        (Op::DeleteRange(delete("w", "\0", false)), false),
        (reads("r", ""), true),
        (reads("r", "s"), true),
        (reads("r", "x"), false),
        (reads("w", ""), false),
    ];
    for (op, permitted) in ops {
        match &op {
            Op::Put(put) => assert_eq!(permits(&Command::Put(put.clone())), permitted, "{put:?}"),
            Op::DeleteRange(delete) => {
                assert_eq!(permits(&Command::DeleteRange(delete.clone())), permitted, "{delete:?}");
            }
            Op::Range(_) | Op::Txn(_) => {}
        }
        for depth in [0, 1, TXN_DEPTH_MAX] {
            let success = Txn { success: vec![reads("r", ""), op.clone()], ..Txn::default() };
            let failure = Txn { failure: vec![op.clone()], ..Txn::default() };
            for txn in [success, failure] {
                assert_eq!(permits(&Command::Txn(nested(depth, txn))), permitted, "{depth} {op:?}");
            }
        }
    }
}

#[test]
fn a_compare_reads() {
    let compare = |start, end| {
        let (result, target) = (CompareResult::Equal, CompareTarget::Version(0));
        let compare = Compare { range: range(start, end), result, target };
        Txn { compare: vec![compare], ..Txn::default() }
    };
    for depth in [0, 1] {
        let permits = |txn| permits(&Command::Txn(nested(depth, txn)));
        assert!(permits(compare("r", "")) && permits(compare("r", "s")) && permits(compare("x", "y")));
        assert!(!permits(compare("w", "")) && !permits(compare("r", "\0")));
    }
}

#[test]
fn what_is_the_clusters_takes_the_role_root() {
    let id = LeaseId(7);
    for lease in [LeaseCommand::Grant { id, ttl: 60 }, LeaseCommand::Revoke { id }] {
        assert!(permits(&Command::Lease(lease)), "its keys are looked at elsewhere");
    }
    for command in [
        Command::Compact { revision: 1 },
        Command::Lease(LeaseCommand::Expire { term: crate::ids::Term(1), leases: Vec::new() }),
        Command::Charter(crate::command::CharterCommand::Seal),
        Command::Auth(crate::command::AuthCommand::Disable),
    ] {
        assert!(!permits(&command), "{command:?}");
    }
}

/// Keys of up to three letters out of three: enough for all ways in which intervals can lie.
fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(0), Just(b'a'), Just(b'b')], 1..=3)
}

fn interval() -> impl Strategy<Value = KeyRange> {
    let end = prop_oneof![
        2 => Just(Vec::new()),
        1 => Just(vec![0]),
        6 => key(),
    ];
    (key(), end).prop_map(|(start, end)| KeyRange::from_wire(start.into(), end.into()))
}

fn permission() -> impl Strategy<Value = Permission> {
    let kind =
        prop_oneof![Just(PermissionKind::Read), Just(PermissionKind::Write), Just(PermissionKind::ReadWrite)];
    let grantable = interval().prop_filter("ends before it starts", |range| !range.is_empty());
    (kind, grantable).prop_map(|(kind, range)| Permission { kind, range })
}

/// Every key between whose neighbours an interval can begin or end: the bounds themselves, and the key right behind each.
fn probes(ranges: &[&KeyRange]) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    for range in ranges {
        keys.push(range.start.to_vec());
        if let RangeEnd::Before(end) = &range.end {
            keys.push(end.to_vec());
        }
    }
    let behind = keys.iter().map(|key| [&key[..], &[0]].concat()).collect::<Vec<_>>();
    keys.extend(behind);
    keys
}

proptest! {
    /// Key by key: all that lie in the request must lie in a permission. Between two neighbouring probes nothing begins or ends.
    #[test]
    fn an_interval_is_permitted_if_each_of_its_keys_is(
        roles in vec(vec(permission(), 0..6), 0..3),
        request in interval(),
        write in any::<bool>(),
    ) {
        let kind_fits = |kind| match kind {
            PermissionKind::Read => !write,
            PermissionKind::Write => write,
            PermissionKind::ReadWrite => true,
        };
        // The last grant for an interval is the one that counts in a role.
        let counts = |role: &[Permission], place: usize| {
            kind_fits(role[place].kind) && role[place + 1..].iter().all(|later| later.range != role[place].range)
        };
        let granted: Vec<&KeyRange> = roles
            .iter()
            .flat_map(|role| (0..role.len()).filter(|place| counts(role, *place)).map(|place| &role[place].range))
            .collect();
        let mut ranges = granted.clone();
        ranges.push(&request);
        let asked = |key: &Vec<u8>| request.contains(key) || request.is_empty() && *key == request.start;
        let expected = probes(&ranges)
            .iter()
            .filter(|key| asked(key))
            .all(|key| granted.iter().any(|range| range.contains(key)));
        let auth = auth_of(&roles);
        let found = if write { auth.may_write("u", &request) } else { auth.may_read("u", &request) };
        prop_assert_eq!(found, expected, "{:?} in {:?}", request, granted);
    }
}
