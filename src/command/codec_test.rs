//! Round trips of every command, a pinned encoding, and bytes that are no command.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::super::{
    Admission, AuthCommand, Authority, Caller, CharterCommand, ClientKey, PasswordHash, Permission,
    PermissionKind, TokenId, TokenKey, TokenSecret, Tombstone,
};
use super::*;
use crate::ids::{AuthRevision, ClusterId, Incarnation, LogIndex};

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..6).prop_map(Bytes::from)
}

fn key_range() -> impl Strategy<Value = KeyRange> {
    (bytes(), bytes()).prop_map(|(key, end)| KeyRange::from_wire(key, end))
}

fn read() -> impl Strategy<Value = Range> {
    let target = prop_oneof![
        Just(SortTarget::Key),
        Just(SortTarget::Version),
        Just(SortTarget::Create),
        Just(SortTarget::Mod),
        Just(SortTarget::Value)
    ];
    let order = prop_oneof![Just(SortOrder::None), Just(SortOrder::Ascend), Just(SortOrder::Descend)];
    (key_range(), target, order, any::<[bool; 2]>(), any::<[i64; 6]>()).prop_map(
        |(range, target, order, [keys_only, count_only], n)| Range {
            range,
            limit: n[0],
            revision: n[1],
            sort: Sort { target, order },
            keys_only,
            count_only,
            min_mod_revision: n[2],
            max_mod_revision: n[3],
            min_create_revision: n[4],
            max_create_revision: n[5],
        },
    )
}

fn put() -> impl Strategy<Value = Put> {
    let lease =
        prop_oneof![Just(LeaseChange::Keep), any::<i64>().prop_map(|id| LeaseChange::Set(LeaseId(id)))];
    (bytes(), proptest::option::of(bytes()), lease, any::<bool>())
        .prop_map(|(key, value, lease, prev_kv)| Put { key, value, lease, prev_kv })
}

fn delete() -> impl Strategy<Value = DeleteRange> {
    (key_range(), any::<bool>()).prop_map(|(range, prev_kv)| DeleteRange { range, prev_kv })
}

fn compare() -> impl Strategy<Value = Compare> {
    let result = prop_oneof![
        Just(CompareResult::Equal),
        Just(CompareResult::Greater),
        Just(CompareResult::Less),
        Just(CompareResult::NotEqual),
        Just(CompareResult::Unknown)
    ];
    let target = prop_oneof![
        any::<i64>().prop_map(CompareTarget::Version),
        any::<i64>().prop_map(CompareTarget::Create),
        any::<i64>().prop_map(CompareTarget::Mod),
        any::<i64>().prop_map(CompareTarget::Lease),
        bytes().prop_map(CompareTarget::Value),
        Just(CompareTarget::Unknown)
    ];
    (key_range(), result, target).prop_map(|(range, result, target)| Compare { range, result, target })
}

fn txn() -> impl Strategy<Value = Txn> {
    let leaf =
        prop_oneof![read().prop_map(Op::Range), put().prop_map(Op::Put), delete().prop_map(Op::DeleteRange)];
    let op = leaf.prop_recursive(3, 12, 3, |op| {
        (vec(compare(), 0..2), vec(op.clone(), 0..3), vec(op, 0..3))
            .prop_map(|(compare, success, failure)| Op::Txn(Txn { compare, success, failure }))
    });
    (vec(compare(), 0..3), vec(op.clone(), 0..4), vec(op, 0..4)).prop_map(|(compare, success, failure)| Txn {
        compare,
        success,
        failure,
    })
}

fn lease_command() -> impl Strategy<Value = LeaseCommand> {
    let id = || any::<i64>().prop_filter("no lease", |id| *id != 0).prop_map(LeaseId);
    let seconds = || prop_oneof![0..=LEASE_TTL_MAX, Just(LEASE_TTL_MAX), 0..300_i64];
    let instance = || {
        (id(), any::<u64>())
            .prop_map(|(id, granted_at)| LeaseInstance { id, granted_at: LogIndex(granted_at) })
    };
    prop_oneof![
        (id(), seconds()).prop_map(|(id, ttl)| LeaseCommand::Grant { id, ttl: ttl.max(1) }),
        id().prop_map(|id| LeaseCommand::Revoke { id }),
        (any::<u64>(), vec(instance(), 0..4))
            .prop_map(|(term, leases)| LeaseCommand::Expire { term: Term(term), leases }),
        (any::<u64>(), any::<u64>(), vec((instance(), seconds()), 0..4)).prop_map(
            |(term, sequence, leases)| LeaseCommand::Checkpoint { term: Term(term), sequence, leases }
        ),
    ]
}

fn tombstone(number: u64, hash: [u8; 32]) -> Tombstone {
    let (cluster, winner, at) = (ClusterId(number), ClusterId(1), LogIndex(number));
    Tombstone { cluster, winner, at, signer: PublicKey(hash), signature: [5; 64] }
}

fn charter_command() -> impl Strategy<Value = CharterCommand> {
    let by = prop_oneof![
        Just(Admission::Window),
        any::<[u8; 8]>().prop_map(|id| Admission::Token(TokenId(id))),
        Just(Admission::Approval),
        Just(Admission::FleetKey),
    ];
    let fields = (any::<[u8; 32]>(), any::<[u8; 8]>(), any::<u64>(), any::<String>(), bytes(), bytes());
    (0..17, fields, by, vec(any::<String>(), 0..3)).prop_map(
        |(kind, (hash, id, number, name, one, other), by, peer_urls)| {
            let (id, key) = (TokenId(id), TokenKey(hash));
            match kind {
                0 => CharterCommand::Admit {
                    key: PublicKey(hash),
                    name,
                    peer_urls,
                    by,
                    run: Incarnation(number),
                    of: (number % 2 == 0).then_some(ClusterId(number)),
                },
                1 => CharterCommand::Elapsed { to: number },
                2 => CharterCommand::OpenWindow { seconds: number },
                3 => CharterCommand::Seal,
                4 => CharterCommand::Approve { fingerprint: hash },
                5 => CharterCommand::CreateToken { id, key, seconds: number },
                6 => CharterCommand::RevokeToken { id },
                7 => CharterCommand::Establish(Authority { certificate: one, key: other }),
                8 => CharterCommand::IssueClient { key: ClientKey(hash), name },
                9 => CharterCommand::RevokeClient { key: ClientKey(hash) },
                10 => CharterCommand::ReplaceAuthority {
                    term: Term(number),
                    exposed: LogIndex(number / 2),
                    bridge: other.clone(),
                    authority: Authority { certificate: one, key: other },
                },
                11 => CharterCommand::RenewClient { key: ClientKey(hash) },
                12 => CharterCommand::Dissolve { winner: ClusterId(number) },
                13 => CharterCommand::Yield {
                    winner: ClusterId(number),
                    witness: PublicKey(hash),
                    asked: LogIndex(number / 3),
                },
                14 => CharterCommand::Forget { member: MemberId(number) },
                15 => CharterCommand::BurySigned {
                    tombstone: tombstone(number, hash),
                    ordered: (number % 2 == 0).then_some(number),
                },
                _ => CharterCommand::Bury(tombstone(number, hash)),
            }
        },
    )
}

fn auth_command() -> impl Strategy<Value = AuthCommand> {
    let kind = proptest::sample::select(vec![
        PermissionKind::Read,
        PermissionKind::Write,
        PermissionKind::ReadWrite,
    ]);
    let fields = (any::<String>(), any::<String>(), kind, key_range(), any::<bool>(), any::<[u8; 32]>());
    (0..12, fields).prop_map(|(number, (name, other, kind, range, flag, secret))| match number {
        0 => AuthCommand::Enable,
        1 => AuthCommand::Disable,
        2 => AuthCommand::AddUser { name, password: PasswordHash(other), no_password: flag },
        3 => AuthCommand::DeleteUser { name },
        4 => AuthCommand::ChangePassword { name, password: PasswordHash(other) },
        5 => AuthCommand::GrantRole { user: name, role: other },
        6 => AuthCommand::RevokeRole { user: name, role: other },
        7 => AuthCommand::AddRole { name },
        8 => AuthCommand::DeleteRole { name },
        9 => AuthCommand::GrantPermission { role: name, permission: Permission { kind, range } },
        10 => AuthCommand::RevokePermission { role: name, range },
        _ => AuthCommand::EstablishTokens { secret: TokenSecret(secret) },
    })
}

fn caller() -> impl Strategy<Value = Option<Caller>> {
    let caller = (any::<String>(), any::<u64>())
        .prop_map(|(user, revision)| Caller { user, revision: AuthRevision(revision) });
    proptest::option::of(caller)
}

fn command() -> impl Strategy<Value = Command> {
    let action = proptest::sample::select(vec![
        AlarmAction::Activate,
        AlarmAction::Deactivate,
        AlarmAction::QuotaReached,
        AlarmAction::QuotaRelieved,
    ]);
    let alarm = (action, any::<bool>(), any::<u64>()).prop_map(|(action, space, member)| Command::Alarm {
        action,
        alarm: Alarm {
            member: MemberId(member),
            kind: if space { AlarmKind::NoSpace } else { AlarmKind::Corrupt },
        },
    });
    let texts = || vec(any::<String>(), 0..3);
    let publish = (any::<[u64; 3]>(), any::<String>(), texts(), texts(), 1_u8..).prop_map(
        |(n, name, peer, client, newest)| {
            Command::Publish(MemberAttributes {
                member: MemberId(n[0]),
                name,
                peer_urls: peer,
                client_urls: client,
                incarnation: n[1],
                boot_nonce: n[2],
                understands: CommandVersion(newest),
            })
        },
    );
    let ids = || vec(any::<u64>().prop_map(MemberId), 0..4);
    let revote = (ids(), ids())
        .prop_map(|(promote, demote)| Command::Member(MemberCommand::Revote { promote, demote }));
    let member = (any::<u64>(), texts(), any::<[bool; 2]>(), any::<u64>(), any::<[u8; 32]>(), 0..5).prop_map(
        |(id, peer_urls, [votes, strict], learners_max, key, kind)| {
            let id = MemberId(id);
            Command::Member(match kind {
                0 => MemberCommand::Add { peer_urls, votes, strict, learners_max },
                1 => MemberCommand::Bind { id, key: PublicKey(key) },
                2 => MemberCommand::Promote { id, strict },
                3 => MemberCommand::Remove { id, strict },
                _ => MemberCommand::Update { id, peer_urls },
            })
        },
    );
    prop_oneof![
        member,
        charter_command().prop_map(Command::Charter),
        auth_command().prop_map(Command::Auth),
        revote,
        (2_u8..).prop_map(|version| Command::Raise(CommandVersion(version))),
        lease_command().prop_map(Command::Lease),
        put().prop_map(Command::Put),
        delete().prop_map(Command::DeleteRange),
        txn().prop_map(Command::Txn),
        any::<i64>().prop_map(|revision| Command::Compact { revision }),
        alarm,
        publish
    ]
}

proptest! {
    #[test]
    fn every_command_comes_back(
        command in command(),
        caller in caller(),
        boot in any::<u64>(),
        seq in any::<u64>(),
    ) {
        let envelope = Envelope { id: ProposalId { boot, seq }, caller, command };
        assert_eq!(decode(encode(&envelope)), Ok(envelope));
    }

    #[test]
    fn a_cut_entry_is_refused(
        command in command(),
        caller in caller(),
        cut in any::<proptest::sample::Index>(),
    ) {
        let whole = encode(&Envelope { id: ProposalId { boot: 1, seq: 2 }, caller, command });
        let cut = cut.index(whole.len());
        assert!(decode(whole.slice(..cut)).is_err());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(mut noise in vec(any::<u8>(), 0..200)) {
        if let Some(first) = noise.first_mut() {
            *first = 1;
        }
        let _ = decode(Bytes::from(noise));
    }
}

/// The bytes that version 1 has written since the first day: a change here breaks every log in the field.
#[test]
fn version_1_is_pinned() {
    let put = Put {
        key: Bytes::from_static(b"k"),
        value: Some(Bytes::from_static(b"v")),
        lease: LeaseChange::Set(LeaseId(-1)),
        prev_kv: true,
    };
    let envelope =
        Envelope { id: ProposalId { boot: 0x0102, seq: 300 }, caller: None, command: Command::Put(put) };
    let expected = [1, 2, 1, 0, 0, 0, 0, 0, 0, 0xac, 2, 1, 1, 1, b'k', 1, b'v', 1];
    assert_eq!(encode(&envelope).as_ref(), expected);
}

#[test]
fn leases_in_version_1_are_pinned() {
    let instance = |id| LeaseInstance { id: LeaseId(id), granted_at: LogIndex(300) };
    let (term, leases) = (Term(5), vec![instance(1), instance(-1)]);
    let checkpoints = vec![(instance(2), 60)];
    let cases: [(LeaseCommand, &[u8]); 4] = [
        (LeaseCommand::Grant { id: LeaseId(-2), ttl: 60 }, &[7, 3, 120]),
        (LeaseCommand::Revoke { id: LeaseId(64) }, &[8, 0x80, 1]),
        (LeaseCommand::Expire { term, leases }, &[9, 5, 2, 2, 0xac, 2, 1, 0xac, 2]),
        (
            LeaseCommand::Checkpoint { term, sequence: 7, leases: checkpoints },
            &[10, 5, 7, 1, 4, 0xac, 2, 120],
        ),
    ];
    for (command, expected) in cases {
        let envelope = Envelope { id: ProposalId::default(), caller: None, command: Command::Lease(command) };
        assert_eq!(&encode(&envelope)[10..], expected);
    }
}

#[test]
fn changes_of_the_charter_in_version_1_are_pinned() {
    let (id, hash) = (TokenId([9; 8]), [7; 32]);
    let admit = |by| CharterCommand::Admit {
        key: PublicKey(hash),
        name: "b".into(),
        peer_urls: vec!["u".into()],
        by,
        run: Incarnation(3),
        of: None,
    };
    let admitted = |by: &[u8]| [&[1][..], &hash, &[1, b'b', 1, 1, b'u'], by, &[3, 0]].concat();
    let authority = Authority { certificate: Bytes::from_static(b"c"), key: Bytes::from_static(b"k") };
    let cases = [
        (admit(Admission::Window), admitted(&[0])),
        (admit(Admission::Token(id)), admitted(&[1, 9, 9, 9, 9, 9, 9, 9, 9])),
        (admit(Admission::Approval), admitted(&[2])),
        (admit(Admission::FleetKey), admitted(&[3])),
        (CharterCommand::Forget { member: MemberId(258) }, vec![16, 2, 1, 0, 0, 0, 0, 0, 0]),
        (CharterCommand::Elapsed { to: 300 }, vec![2, 0xac, 2]),
        (CharterCommand::OpenWindow { seconds: 60 }, vec![3, 60]),
        (CharterCommand::Seal, vec![4]),
        (CharterCommand::Approve { fingerprint: hash }, [&[5][..], &hash].concat()),
        (
            CharterCommand::CreateToken { id, key: TokenKey(hash), seconds: 60 },
            [&[6][..], &id.0, &hash, &[60]].concat(),
        ),
        (CharterCommand::RevokeToken { id }, [&[7][..], &id.0].concat()),
        (CharterCommand::Establish(authority.clone()), vec![8, 1, b'c', 1, b'k']),
        (
            CharterCommand::IssueClient { key: ClientKey(hash), name: "n".into() },
            [&[9][..], &hash, &[1, b'n']].concat(),
        ),
        (CharterCommand::RevokeClient { key: ClientKey(hash) }, [&[10][..], &hash].concat()),
        (
            CharterCommand::ReplaceAuthority {
                term: Term(3),
                exposed: LogIndex(300),
                authority,
                bridge: Bytes::from_static(b"by"),
            },
            vec![14, 3, 0xac, 2, 1, b'c', 1, b'k', 2, b'b', b'y'],
        ),
        (CharterCommand::RenewClient { key: ClientKey(hash) }, [&[15][..], &hash].concat()),
        (CharterCommand::Dissolve { winner: ClusterId(258) }, vec![11, 2, 1, 0, 0, 0, 0, 0, 0]),
        (
            CharterCommand::Bury(tombstone(258, hash)),
            [
                &[12, 2, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0][..],
                &hash,
                &[5; 64],
            ]
            .concat(),
        ),
        (
            CharterCommand::Yield { winner: ClusterId(258), witness: PublicKey(hash), asked: LogIndex(300) },
            [&[13, 2, 1, 0, 0, 0, 0, 0, 0][..], &hash, &[0xac, 2]].concat(),
        ),
    ];
    for (command, expected) in cases {
        let envelope =
            Envelope { id: ProposalId::default(), caller: None, command: Command::Charter(command) };
        assert_eq!(encode(&envelope)[10..], [&[16][..], &expected].concat(), "{envelope:?}");
    }
}

#[test]
fn who_is_let_in_with_its_cluster_in_version_1_is_pinned() {
    let admit = CharterCommand::Admit {
        key: PublicKey([7; 32]),
        name: String::new(),
        peer_urls: Vec::new(),
        by: Admission::FleetKey,
        run: Incarnation(0),
        of: Some(ClusterId(258)),
    };
    let envelope = Envelope { id: ProposalId::default(), caller: None, command: Command::Charter(admit) };
    let expected = [&[16, 1][..], &[7; 32], &[0, 0, 3, 0, 1, 2, 1, 0, 0, 0, 0, 0, 0]].concat();
    assert_eq!(encode(&envelope)[10..], expected);
}

#[test]
fn what_version_2_has_brought_is_pinned() {
    let said = [&[16, 17][..], &tombstone(258, [7; 32]).to_bytes()].concat();
    for (ordered, behind) in [(None, &[0][..]), (Some(258), &[1, 2, 1, 0, 0, 0, 0, 0, 0])] {
        let command = CharterCommand::BurySigned { tombstone: tombstone(258, [7; 32]), ordered };
        let envelope =
            Envelope { id: ProposalId::default(), caller: None, command: Command::Charter(command) };
        let mut bytes = encode(&envelope).to_vec();
        assert_eq!((bytes[0], &bytes[10..]), (2, &[&said[..], behind].concat()[..]));
        assert_eq!(encode_for(&envelope, || CommandVersion::FIRST), None);
        bytes[0] = 1;
        let refused = CodecError::Undefined { what: "version of a command", value: 1 };
        assert_eq!(decode(bytes.into()), Err(refused), "an earlier build would not have stopped at it");
    }
}

#[test]
fn a_revote_in_version_1_is_pinned() {
    let revote =
        MemberCommand::Revote { promote: vec![MemberId(1), MemberId(300)], demote: vec![MemberId(2)] };
    let envelope = Envelope { id: ProposalId::default(), caller: None, command: Command::Member(revote) };
    assert_eq!(&encode(&envelope)[10..], [24, 2, 1, 0xac, 2, 1, 2]);
}

#[test]
fn changes_of_users_and_roles_in_version_1_are_pinned() {
    let (a, b) = (|| "a".to_owned(), || "b".to_owned());
    let range = || KeyRange { start: Bytes::from_static(b"k"), end: RangeEnd::Unbounded };
    let permission = |kind| Permission { kind, range: range() };
    let grant = |kind| AuthCommand::GrantPermission { role: a(), permission: permission(kind) };
    let cases = [
        (AuthCommand::Enable, vec![1]),
        (AuthCommand::Disable, vec![2]),
        (
            AuthCommand::AddUser { name: a(), password: PasswordHash("hash".into()), no_password: false },
            b"\x03\x01a\x04hash\x00".to_vec(),
        ),
        (
            AuthCommand::AddUser { name: a(), password: PasswordHash::default(), no_password: true },
            b"\x03\x01a\x00\x01".to_vec(),
        ),
        (AuthCommand::DeleteUser { name: a() }, b"\x04\x01a".to_vec()),
        (
            AuthCommand::ChangePassword { name: a(), password: PasswordHash("hash".into()) },
            b"\x05\x01a\x04hash".to_vec(),
        ),
        (AuthCommand::GrantRole { user: a(), role: b() }, b"\x06\x01a\x01b".to_vec()),
        (AuthCommand::RevokeRole { user: a(), role: b() }, b"\x07\x01a\x01b".to_vec()),
        (AuthCommand::AddRole { name: a() }, b"\x08\x01a".to_vec()),
        (AuthCommand::DeleteRole { name: a() }, b"\x09\x01a".to_vec()),
        (grant(PermissionKind::Read), b"\x0a\x01a\x00\x01k\x01".to_vec()),
        (grant(PermissionKind::Write), b"\x0a\x01a\x01\x01k\x01".to_vec()),
        (grant(PermissionKind::ReadWrite), b"\x0a\x01a\x02\x01k\x01".to_vec()),
        (AuthCommand::RevokePermission { role: a(), range: range() }, b"\x0b\x01a\x01k\x01".to_vec()),
        (AuthCommand::EstablishTokens { secret: TokenSecret([7; 32]) }, [&[12][..], &[7; 32]].concat()),
    ];
    for (command, expected) in cases {
        let envelope = Envelope { id: ProposalId::default(), caller: None, command: Command::Auth(command) };
        assert_eq!(encode(&envelope)[10..], [&[26][..], &expected].concat(), "{envelope:?}");
    }
}

#[test]
fn a_caller_in_version_1_is_pinned_and_there_is_at_most_one() {
    let caller = Some(Caller { user: "u".into(), revision: AuthRevision(300) });
    let envelope = Envelope { id: ProposalId::default(), caller, command: Command::Compact { revision: 3 } };
    let bytes = encode(&envelope);
    assert_eq!(&bytes[10..], [25, 1, b'u', 0xac, 2, 4, 6]);
    let nobody = encode(&Envelope { caller: None, ..envelope });
    assert_eq!(nobody.len() + 5, bytes.len(), "nothing where there is none");
    let twice = [&bytes[..15], &bytes[10..]].concat();
    assert_eq!(decode(twice.into()), Err(CodecError::Undefined { what: "command", value: 25 }));
}

/// The store and the lessor count on these bounds.
#[test]
fn leases_without_an_id_or_with_a_time_out_of_bounds_are_refused() {
    let entry = |body: &[u8]| decode(Bytes::from([&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], body].concat()));
    assert!(entry(&[7, 2, 120]).is_ok() && entry(&[10, 5, 7, 1, 4, 1, 0]).is_ok());
    let bodies: [&[u8]; 4] = [&[7, 0, 120], &[7, 2, 0], &[7, 2, 1], &[10, 5, 7, 1, 4, 1, 1]];
    for body in bodies {
        assert!(matches!(entry(body), Err(CodecError::Undefined { .. })), "{body:?}");
    }
    let mut beyond = Writer(vec![7, 2]);
    beyond.signed(LEASE_TTL_MAX + 1);
    assert!(matches!(entry(&beyond.0), Err(CodecError::Undefined { .. })));
}

#[test]
fn another_version_and_a_longer_entry_are_refused() {
    let envelope =
        Envelope { id: ProposalId::default(), caller: None, command: Command::Compact { revision: 3 } };
    let mut bytes = encode(&envelope).to_vec();
    bytes.push(0);
    assert_eq!(decode(Bytes::from(bytes.clone())), Err(CodecError::TrailingBytes(1)));
    bytes[0] = 3;
    assert_eq!(decode(Bytes::from(bytes)), Err(CodecError::UnsupportedVersion { found: 3, understood: 2 }));
}

/// Which version has brought a command, by its tag and, where that has kinds, by the kind behind it. What stands here was shipped and is never changed.
fn brought(tag: u8, kind: u8) -> Option<u8> {
    match tag {
        1..=15 | 24 | 27 | 28 => Some(1),
        16 if kind == 17 => Some(2),
        16 => (1..=16).contains(&kind).then_some(1),
        26 => (1..=12).contains(&kind).then_some(1),
        _ => None,
    }
}

/// Where an entry without a caller, and with 0 for its number, has its tag.
const TAG_AT: usize = 10;

fn entry_of(command: Command) -> Bytes {
    encode(&Envelope { id: ProposalId::default(), caller: None, command })
}

#[test]
fn there_is_no_tag_but_those_whose_version_is_known() {
    for tag in (0..=u8::MAX).filter(|tag| *tag != CALLER) {
        for kind in 0..=u8::MAX {
            let mut entry = entry_of(Command::Compact { revision: 3 })[..TAG_AT].to_vec();
            entry.extend([tag, kind]);
            let what = ["command", "change of the charter", "change of users and roles"];
            let is_undefined = matches!(
                decode(Bytes::from(entry)),
                Err(CodecError::Undefined { what: found, .. }) if what.contains(&found)
            );
            assert_eq!(is_undefined, brought(tag, kind).is_none(), "tag {tag}, kind {kind}");
        }
    }
}

/// A member that understands the version of an entry understands the entry.
#[test]
fn each_kind_names_the_version_that_it_came_with() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for _ in 0..20_000 {
        let command = command().new_tree(&mut runner).unwrap().current();
        let entry = entry_of(command.clone());
        let (tag, kind) = (entry[TAG_AT], entry.get(TAG_AT + 1).copied().unwrap_or_default());
        assert_eq!(Some(entry[0]), brought(tag, kind), "{command:?}");
        seen.insert((tag, if matches!(tag, 16 | 26) { kind } else { 1 }));
    }
    let kinds = |tag| if matches!(tag, 16 | 26) { 0..=u8::MAX } else { 1..=1 };
    let all = (0..=u8::MAX).flat_map(|tag| kinds(tag).map(move |kind| (tag, kind)));
    let all: BTreeSet<_> = all.filter(|(tag, kind)| brought(*tag, *kind).is_some()).collect();
    assert_eq!(seen, all, "each was looked at");
}

/// A length that promises more than there is must not reserve memory for it.
#[test]
fn a_nested_bomb_is_refused_at_the_depth_limit() {
    let mut txn = Txn::default();
    for _ in 0..=TXN_DEPTH_MAX {
        txn = Txn { success: vec![Op::Txn(txn)], ..Txn::default() };
    }
    let bomb = encode(&Envelope { id: ProposalId::default(), caller: None, command: Command::Txn(txn) });
    assert_eq!(decode(bomb), Err(CodecError::TooDeep));
}
