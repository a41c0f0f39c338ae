//! Who may do what, while entries are applied; and that users and roles survive what keys survive.

use std::cell::Cell;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::select;

use super::rig::{FOUNDER, Rig, TERM, in_all_layers, in_layers_of, interval, put, range};
use crate::command::{
    Alarm, AlarmAction, AlarmKind, AuthCommand, Caller, CharterCommand, Command, Compare, CompareResult,
    CompareTarget, DeleteRange, LeaseChange, LeaseCommand, LeaseInstance, MemberAttributes, MemberCommand,
    Op, Outcome, PasswordHash, Permission, PermissionKind, Put, Rejection, TokenSecret, Txn,
};
use crate::ids::{AuthRevision, LeaseId, LogIndex, MemberId};

const LEASE: LeaseId = LeaseId(7);

fn auth(rig: &mut Rig, command: AuthCommand) {
    let by = rig.view().facts().auth.enabled.then(|| caller(rig, "root"));
    let applied = match by {
        Some(by) => rig.apply_for(by, Command::Auth(command)),
        None => rig.apply(Command::Auth(command)),
    };
    assert_eq!(applied.outcome, Ok(Outcome::Auth));
}

/// As somebody who was checked just now.
fn caller(rig: &Rig, user: &str) -> Caller {
    Caller { user: user.into(), revision: rig.view().facts().auth.revision }
}

fn as_user(rig: &mut Rig, user: &str, command: Command) -> Result<Outcome, Rejection> {
    let by = caller(rig, user);
    let before = rig.view();
    let applied = rig.apply_for(by, command);
    if applied.outcome.is_err() {
        let after = rig.view();
        assert_eq!((after.revision(), after.facts()), (before.revision(), before.facts()));
        assert_eq!(after.leases(), before.leases());
    }
    applied.outcome
}

fn add_user(rig: &mut Rig, name: &str, role: &str) {
    let name = name.to_owned();
    let password = PasswordHash(format!("hash of {name}"));
    auth(rig, AuthCommand::AddUser { name: name.clone(), password, no_password: false });
    auth(rig, AuthCommand::GrantRole { user: name, role: role.into() });
}

fn grant(rig: &mut Rig, kind: PermissionKind, start: &str, end: &str) {
    let permission = Permission { kind, range: interval(start, end) };
    auth(rig, AuthCommand::GrantPermission { role: "app".into(), permission });
}

/// Root, and a user "app" who may read "r", write "w", and both for "x" and what begins with it; authentication is on.
fn set_up(rig: &mut Rig) {
    add_user(rig, "root", "root");
    auth(rig, AuthCommand::AddRole { name: "app".into() });
    grant(rig, PermissionKind::Read, "r", "s");
    grant(rig, PermissionKind::Write, "w", "x");
    grant(rig, PermissionKind::ReadWrite, "x", "y");
    add_user(rig, "app", "app");
    auth(rig, AuthCommand::Enable);
}

fn leased(key: &str, lease: LeaseId) -> Put {
    Put { lease: LeaseChange::Set(lease), ..put(key, "v") }
}

fn grant_lease(id: LeaseId) -> Command {
    Command::Lease(LeaseCommand::Grant { id, ttl: 60 })
}

fn revoke_lease(id: LeaseId) -> Command {
    Command::Lease(LeaseCommand::Revoke { id })
}

fn delete(start: &str, end: &str, prev_kv: bool) -> Command {
    Command::DeleteRange(DeleteRange { range: interval(start, end), prev_kv })
}

#[test]
fn while_authentication_is_off_anybody_may_do_everything() {
    let mut rig = Rig::new();
    rig.put("a", "1");
    let stale = Caller { user: "nobody".into(), revision: AuthRevision(99) };
    assert!(rig.apply_for(stale.clone(), Command::Put(put("a", "2"))).outcome.is_ok());
    set_up(&mut rig);
    auth(&mut rig, AuthCommand::Disable);
    assert!(rig.apply(Command::Put(put("a", "3"))).outcome.is_ok());
    assert!(rig.apply_for(stale, delete("a", "\0", true)).outcome.is_ok());
}

#[test]
fn who_is_nobody_is_refused_what_users_ask_for() {
    let mut rig = Rig::new();
    set_up(&mut rig);
    for command in [
        Command::Put(put("x", "v")),
        delete("x", "", false),
        Command::Txn(Txn::default()),
        grant_lease(LEASE),
        revoke_lease(LEASE),
        Command::Auth(AuthCommand::Disable),
        Command::Auth(AuthCommand::AddRole { name: "r".into() }),
    ] {
        assert_eq!(rig.apply(command.clone()).outcome, Err(Rejection::UserNameEmpty), "{command:?}");
    }
}

/// What the cluster does by itself names nobody, and goes on.
#[test]
fn what_the_cluster_does_by_itself_is_never_refused() {
    let mut rig = Rig::new();
    set_up(&mut rig);
    assert!(as_user(&mut rig, "app", grant_lease(LEASE)).is_ok());
    assert!(as_user(&mut rig, "app", Command::Put(leased("x", LEASE))).is_ok());
    let instance = LeaseInstance { id: LEASE, granted_at: rig.machine.lease(LEASE).unwrap().granted_at };
    let leases = vec![(instance, 30)];
    let alarm = Alarm { member: MemberId(3), kind: AlarmKind::NoSpace };
    let secret = TokenSecret([1; 32]);
    for command in [
        Command::Lease(LeaseCommand::Checkpoint { term: TERM, sequence: 1, leases }),
        Command::Lease(LeaseCommand::Expire { term: TERM, leases: vec![instance] }),
        Command::Alarm { action: AlarmAction::QuotaReached, alarm },
        Command::Alarm { action: AlarmAction::QuotaRelieved, alarm },
        Command::Publish(MemberAttributes { member: FOUNDER, ..MemberAttributes::default() }),
        Command::Member(MemberCommand::Revote { promote: vec![FOUNDER], demote: Vec::new() }),
        Command::Charter(CharterCommand::Elapsed { to: 60 }),
        Command::Compact { revision: 1 },
        Command::Auth(AuthCommand::EstablishTokens { secret }),
    ] {
        let outcome = rig.apply(command.clone()).outcome;
        assert!(outcome.is_ok(), "{command:?}: {outcome:?}");
    }
    assert!(rig.machine.lease(LEASE).is_none() && rig.view().facts().auth.token_secret == Some(secret));
}

#[test]
fn what_is_not_a_users_to_do_takes_root() {
    let mut rig = Rig::new();
    set_up(&mut rig);
    let alarm = Alarm { member: MemberId(3), kind: AlarmKind::NoSpace };
    for command in [
        Command::Compact { revision: 1 },
        Command::Alarm { action: AlarmAction::Activate, alarm },
        Command::Alarm { action: AlarmAction::Deactivate, alarm },
        Command::Charter(CharterCommand::Elapsed { to: 60 }),
        Command::Auth(AuthCommand::AddRole { name: "r".into() }),
        Command::Auth(AuthCommand::ChangePassword { name: "app".into(), password: PasswordHash::default() }),
    ] {
        assert_eq!(
            as_user(&mut rig, "app", command.clone()),
            Err(Rejection::PermissionDenied),
            "{command:?}"
        );
        assert_eq!(as_user(&mut rig, "nobody", command.clone()), Err(Rejection::PermissionDenied));
        assert!(as_user(&mut rig, "root", command.clone()).is_ok(), "{command:?}");
    }
}

#[test]
fn keys_take_their_permissions_in_every_layer() {
    in_all_layers(|rig, settle| {
        set_up(rig);
        settle(rig);
        for (command, permitted) in [
            (Command::Put(put("w", "v")), true),
            (Command::Put(put("x", "v")), true),
            (Command::Put(put("r", "v")), false),
            (Command::Put(Put { prev_kv: true, ..put("w", "v") }), false),
            (Command::Put(Put { prev_kv: true, ..put("x", "v") }), true),
            (delete("w", "y", false), true),
            (delete("w", "y", true), false),
            (delete("r", "s", false), false),
            (delete("w", "\0", false), false),
        ] {
            settle(rig);
            let outcome = as_user(rig, "app", command.clone());
            let denied = outcome == Err(Rejection::PermissionDenied);
            assert_eq!((outcome.is_ok(), denied), (permitted, !permitted), "{command:?}: {outcome:?}");
        }
    });
}

#[test]
fn a_transaction_takes_what_both_of_its_branches_take_at_every_depth() {
    let mut rig = Rig::new();
    set_up(&mut rig);
    let compare = |key: &str| {
        let (result, target) = (CompareResult::Equal, CompareTarget::Version(0));
        Compare { range: interval(key, ""), result, target }
    };
    let permitted = || Txn {
        compare: vec![compare("r")],
        success: vec![Op::Put(put("w", "v")), Op::Range(range("r", "s"))],
        failure: vec![Op::DeleteRange(DeleteRange { range: interval("x", ""), prev_kv: true })],
    };
    let nest = |txn| Txn { failure: vec![Op::Txn(txn)], ..permitted() };
    for (txn, expected) in [
        (permitted(), true),
        (Txn { compare: vec![compare("w")], ..permitted() }, false),
        (Txn { success: vec![Op::Put(put("r", "v"))], ..permitted() }, false),
        // It does not run.
        (Txn { failure: vec![Op::Put(put("r", "v"))], ..permitted() }, false),
        (Txn { success: vec![Op::Range(range("w", ""))], ..permitted() }, false),
        (Txn { failure: vec![Op::Put(Put { prev_kv: true, ..put("w", "v") })], ..permitted() }, false),
    ] {
        for txn in [txn.clone(), nest(txn.clone()), nest(nest(txn))] {
            let outcome = as_user(&mut rig, "app", Command::Txn(txn.clone()));
            let denied = outcome == Err(Rejection::PermissionDenied);
            assert_eq!((outcome.is_ok(), denied), (expected, !expected), "{txn:?}");
            assert!(as_user(&mut rig, "root", Command::Txn(txn)).is_ok());
        }
    }
}

/// Who adds a key to a lease lets others of its users end that key, and who ends a lease ends all of its keys.
#[test]
fn a_lease_takes_the_permissions_of_all_its_keys() {
    in_all_layers(|rig, settle| {
        set_up(rig);
        let (own, mixed) = (LEASE, LeaseId(8));
        for id in [own, mixed] {
            assert!(as_user(rig, "app", grant_lease(id)).is_ok());
            assert!(as_user(rig, "app", Command::Put(leased("w", id))).is_ok());
        }
        assert!(as_user(rig, "app", Command::Put(leased("x", own))).is_ok());
        assert!(as_user(rig, "root", Command::Put(leased("z", mixed))).is_ok());
        settle(rig);
        let denied = Err(Rejection::PermissionDenied);
        let attach = |id| {
            let put = Op::Put(leased("x", id));
            let txn = Txn {
                failure: vec![Op::Txn(Txn { success: vec![put], ..Txn::default() })],
                ..Txn::default()
            };
            [Command::Put(leased("x", id)), Command::Txn(txn)]
        };
        for command in attach(mixed) {
            assert_eq!(as_user(rig, "app", command), denied);
        }
        assert_eq!(as_user(rig, "app", revoke_lease(mixed)), denied);
        for command in attach(own) {
            assert!(as_user(rig, "app", command).is_ok());
        }
        // What the lease is let go of is not in the way.
        assert!(as_user(rig, "root", Command::Put(put("z", "v"))).is_ok());
        settle(rig);
        assert!(as_user(rig, "app", revoke_lease(mixed)).is_ok());
        assert!(as_user(rig, "app", revoke_lease(own)).is_ok());
        assert_eq!(as_user(rig, "app", revoke_lease(own)), Err(Rejection::LeaseNotFound));
        assert_eq!(as_user(rig, "app", Command::Put(leased("x", own))), Err(Rejection::LeaseNotFound));
        assert_eq!(rig.view().lease_keys(mixed).unwrap(), Vec::<Bytes>::new());
    });
}

/// However many keys a lease has, and has had, each interval that its user may write is looked at once, in each layer.
#[test]
fn the_keys_of_a_lease_are_judged_by_intervals() {
    in_all_layers(|rig, settle| {
        set_up(rig);
        assert!(as_user(rig, "app", grant_lease(LEASE)).is_ok());
        let judge = |rig: &Rig, write| {
            let view = rig.view();
            let access = view.facts().auth.access_of("app").unwrap();
            let asked = Cell::new(0);
            let within = view.is_lease_within(LEASE, |key| {
                asked.set(asked.get() + 1);
                access.reach(key, write)
            });
            (within.unwrap(), asked.get())
        };
        for lease in [LEASE, LeaseId::NONE] {
            for number in 0..100 {
                assert!(as_user(rig, "app", Command::Put(leased(&format!("x{number}"), lease))).is_ok());
                assert!(as_user(rig, "app", Command::Put(leased(&format!("w{number}"), lease))).is_ok());
            }
            settle(rig);
            let (within, asked) = judge(rig, true);
            assert!(within && asked <= 3, "{asked}");
            assert_eq!(judge(rig, false).0, lease == LeaseId::NONE, "what may only be written");
        }
    });
}

#[test]
fn an_entry_from_before_a_change_is_refused_whoever_it_is_from() {
    let mut rig = Rig::new();
    set_up(&mut rig);
    let (user, root) = (caller(&rig, "app"), caller(&rig, "root"));
    assert!(rig.apply_for(user.clone(), Command::Put(put("x", "v"))).outcome.is_ok());
    auth(&mut rig, AuthCommand::AddRole { name: "another".into() });
    let before = rig.view();
    for by in [user, root] {
        for command in [
            Command::Put(put("x", "v")),
            Command::Txn(Txn::default()),
            grant_lease(LEASE),
            Command::Compact { revision: 1 },
            Command::Auth(AuthCommand::Disable),
        ] {
            let outcome = rig.apply_for(by.clone(), command).outcome;
            assert_eq!(outcome, Err(Rejection::AuthRevisionOld));
        }
    }
    assert_eq!((rig.view().revision(), rig.view().facts()), (before.revision(), before.facts()));
    assert!(as_user(&mut rig, "app", Command::Put(put("x", "v"))).is_ok());
}

/// What was proposed before a change that makes it forbidden is forbidden where it comes after it in the log.
#[test]
fn permissions_count_as_of_the_entry() {
    let mut rig = Rig::new();
    set_up(&mut rig);
    auth(&mut rig, AuthCommand::RevokePermission { role: "app".into(), range: interval("x", "y") });
    assert_eq!(as_user(&mut rig, "app", Command::Put(put("x", "v"))), Err(Rejection::PermissionDenied));
    auth(&mut rig, AuthCommand::DeleteRole { name: "app".into() });
    assert_eq!(as_user(&mut rig, "app", Command::Put(put("w", "v"))), Err(Rejection::PermissionDenied));
    auth(&mut rig, AuthCommand::DeleteUser { name: "app".into() });
    assert_eq!(as_user(&mut rig, "app", grant_lease(LEASE)), Err(Rejection::PermissionDenied));
}

/// A deletion that is too much for a generation goes to the store, and one that is refused must not.
#[test]
fn a_deletion_that_would_be_swept_is_refused_all_the_same() {
    in_layers_of(2000, |rig, settle| {
        set_up(rig);
        for number in 0..40 {
            assert!(as_user(rig, "root", Command::Put(put(&format!("key{number}"), "v"))).is_ok());
        }
        settle(rig);
        let swept = rig.sweeps;
        assert_eq!(as_user(rig, "app", delete("k", "l", false)), Err(Rejection::PermissionDenied));
        assert_eq!(rig.sweeps, swept);
        assert!(as_user(rig, "root", delete("k", "l", false)).is_ok());
        assert!(rig.sweeps > swept);
    });
}

#[test]
fn users_and_roles_survive_folds_and_restarts_and_are_a_function_of_the_log() {
    let mut rig = Rig::new();
    set_up(&mut rig);
    auth(&mut rig, AuthCommand::EstablishTokens { secret: TokenSecret([5; 32]) });
    rig.reopen();
    rig.rotate();
    rig.fold();
    rig.reopen();
    let stored = rig.view().facts().auth.clone();
    assert!(stored.enabled && stored.token_secret.is_some() && stored.users.len() == 2);
    // Only in the log.
    auth(&mut rig, AuthCommand::DeleteUser { name: "app".into() });
    rig.reopen();
    assert_eq!(rig.view().facts().auth.users.len(), 1);
    // A fold in between that changes no user.
    rig.rotate();
    rig.fold();
    assert!(as_user(&mut rig, "root", Command::Put(put("a", "v"))).is_ok());
    rig.rotate();
    rig.fold();
    rig.reopen();
    assert_eq!(rig.view().facts().auth.users.len(), 1);
    rig.check_digest();
}

#[test]
fn the_digest_knows_of_users_and_roles() {
    let digest = |password: &str| {
        let mut rig = Rig::new();
        let (name, password) = ("a".into(), PasswordHash(password.into()));
        auth(&mut rig, AuthCommand::AddUser { name, password, no_password: false });
        (rig.machine.applied(), rig.view().digest())
    };
    assert_eq!(digest("one"), digest("one"));
    assert_ne!(digest("one"), digest("two"));
    assert_eq!(digest("one").0, LogIndex(1));
}

#[test]
fn what_a_cluster_has_of_users_commits_it() {
    let mut rig = Rig::of(crate::store::Charter::automatic());
    let refused = rig.apply(Command::Auth(AuthCommand::Enable)).outcome;
    assert_eq!(refused, Err(Rejection::RootUserMissing));
    assert!(!rig.view().facts().charter.committed);
    auth(&mut rig, AuthCommand::AddRole { name: "r".into() });
    assert!(rig.view().facts().charter.committed);
}

/// Few names, so that most commands meet something.
fn random_command() -> impl Strategy<Value = Command> {
    let user = || select(vec!["root", "a"]).prop_map(str::to_owned);
    let role = || select(vec!["root", "r", "s"]).prop_map(str::to_owned);
    let key = || select(vec!["", "\0", "a", "b", "c"]);
    let kind = select(vec![PermissionKind::Read, PermissionKind::Write, PermissionKind::ReadWrite]);
    let hash = any::<u8>().prop_map(|byte| PasswordHash(byte.to_string()));
    let auth = prop_oneof![
        2 => Just(AuthCommand::Enable),
        1 => Just(AuthCommand::Disable),
        3 => (user(), hash, any::<bool>())
            .prop_map(|(name, password, no_password)| AuthCommand::AddUser { name, password, no_password }),
        1 => user().prop_map(|name| AuthCommand::DeleteUser { name }),
        1 => user().prop_map(|name| AuthCommand::ChangePassword { name, password: PasswordHash::default() }),
        4 => (user(), role()).prop_map(|(user, role)| AuthCommand::GrantRole { user, role }),
        1 => (user(), role()).prop_map(|(user, role)| AuthCommand::RevokeRole { user, role }),
        2 => role().prop_map(|name| AuthCommand::AddRole { name }),
        1 => role().prop_map(|name| AuthCommand::DeleteRole { name }),
        4 => (role(), kind, key(), key()).prop_map(|(role, kind, start, end)| {
            AuthCommand::GrantPermission { role, permission: Permission { kind, range: interval(start, end) } }
        }),
        1 => (role(), key(), key())
            .prop_map(|(role, start, end)| AuthCommand::RevokePermission { role, range: interval(start, end) }),
        1 => any::<[u8; 32]>()
            .prop_map(|secret| AuthCommand::EstablishTokens { secret: TokenSecret(secret) }),
    ];
    prop_oneof![
        6 => auth.prop_map(Command::Auth),
        2 => select(vec!["a", "b"]).prop_map(|key| Command::Put(put(key, "v"))),
        1 => key().prop_map(|end| delete("a", end, true)),
    ]
}

proptest! {
    /// Whatever is asked for by whomever: members come to the same, however often they fold and begin anew, and somebody can always disable authentication.
    #[test]
    fn members_that_have_the_same_log_have_the_same_users(
        steps in vec((random_command(), select(vec!["root", "root", "root", "a", ""]), 0..8_u8, 0..6_u8), 1..60),
    ) {
        let (mut one, mut two) = (Rig::new(), Rig::new());
        for (command, user, stale, upkeep) in steps {
            let auth = one.view().facts().auth.clone();
            let revision = AuthRevision(auth.revision.0 - u64::from(stale == 0));
            let by = Caller { user: user.to_owned(), revision };
            let [left, right] = [&mut one, &mut two].map(|rig| match user {
                "" => rig.apply(command.clone()),
                _ => rig.apply_for(by.clone(), command.clone()),
            });
            prop_assert_eq!(left, right);
            match upkeep {
                0 => two.rotate(),
                1 => two.fold(),
                2 => two.reopen(),
                _ => {}
            }
            let (left, right) = (one.view(), two.view());
            prop_assert_eq!(&left.facts().auth, &right.facts().auth);
            prop_assert_eq!(left.digest(), right.digest());
            let auth = &left.facts().auth;
            prop_assert!(!auth.enabled || auth.is_root("root"));
        }
    }
}
