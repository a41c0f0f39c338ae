//! What each change of users and roles does, and each way in which one is refused.

use bytes::Bytes;

use super::*;
use crate::command::{KeyRange, Permission, PermissionKind};

fn hash(text: &str) -> PasswordHash {
    PasswordHash(text.to_owned())
}

fn add_user(name: &str) -> AuthCommand {
    AuthCommand::AddUser { name: name.into(), password: hash("hash"), no_password: false }
}

fn add_role(name: &str) -> AuthCommand {
    AuthCommand::AddRole { name: name.into() }
}

fn grant_role(user: &str, role: &str) -> AuthCommand {
    AuthCommand::GrantRole { user: user.into(), role: role.into() }
}

fn revoke_role(user: &str, role: &str) -> AuthCommand {
    AuthCommand::RevokeRole { user: user.into(), role: role.into() }
}

fn delete_user(name: &str) -> AuthCommand {
    AuthCommand::DeleteUser { name: name.into() }
}

fn delete_role(name: &str) -> AuthCommand {
    AuthCommand::DeleteRole { name: name.into() }
}

fn change_password(name: &str) -> AuthCommand {
    AuthCommand::ChangePassword { name: name.into(), password: hash("another") }
}

fn range(start: &str, end: &str) -> KeyRange {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    KeyRange::from_wire(bytes(start), bytes(end))
}

fn permission(kind: PermissionKind, start: &str, end: &str) -> Permission {
    Permission { kind, range: range(start, end) }
}

fn grant(role: &str, start: &str, end: &str) -> AuthCommand {
    let permission = permission(PermissionKind::Read, start, end);
    AuthCommand::GrantPermission { role: role.into(), permission }
}

fn revoke(role: &str, start: &str, end: &str) -> AuthCommand {
    AuthCommand::RevokePermission { role: role.into(), range: range(start, end) }
}

fn tokens(byte: u8) -> AuthCommand {
    AuthCommand::EstablishTokens { secret: TokenSecret([byte; 32]) }
}

/// After these, of which each must succeed.
fn after(auth: &Auth, commands: &[AuthCommand]) -> Auth {
    commands.iter().fold(auth.clone(), |auth, command| auth.after(command).expect("it is sound"))
}

fn refused(auth: &Auth, command: &AuthCommand) -> Rejection {
    auth.after(command).expect_err("it is not allowed")
}

fn with_root() -> Auth {
    after(&Auth::default(), &[add_user("root"), grant_role("root", "root")])
}

fn enabled() -> Auth {
    after(&with_root(), &[AuthCommand::Enable])
}

#[test]
fn enabling_takes_a_user_root_with_the_role_root() {
    let nobody = Auth::default();
    assert_eq!(refused(&nobody, &AuthCommand::Enable), Rejection::RootUserMissing);
    let without_role = after(&nobody, &[add_user("root"), add_role("root")]);
    assert_eq!(refused(&without_role, &AuthCommand::Enable), Rejection::RootRoleMissing);
    let on = enabled();
    assert!(on.enabled && on.role(ROOT).is_none(), "the role is built in");
    assert_eq!(on.after(&AuthCommand::Enable), Ok(on.clone()));
    let off = after(&on, &[AuthCommand::Disable]);
    assert!(!off.enabled);
    assert_eq!(off.after(&AuthCommand::Disable), Ok(off));
}

#[test]
fn while_authentication_is_on_root_stays_root() {
    let on = after(&with_root(), &[add_role("root"), AuthCommand::Enable]);
    for command in [delete_user("root"), delete_role("root"), revoke_role("root", "root")] {
        assert_eq!(refused(&on, &command), Rejection::InvalidAuthManagement, "{command:?}");
        after(&on, &[AuthCommand::Disable, command]);
    }
    let second = after(&on, &[add_user("b"), grant_role("b", "root"), revoke_role("b", "root")]);
    after(&second, &[change_password("root"), delete_user("b")]);
}

#[test]
fn users_and_roles_are_named_once_and_must_be_there() {
    let auth = after(&Auth::default(), &[add_user("a"), add_role("r"), grant("r", "k", "")]);
    for (command, expected) in [
        (add_user(""), Rejection::UserNameEmpty),
        (add_user("a"), Rejection::UserExists),
        (add_role(""), Rejection::RoleNameEmpty),
        (add_role("r"), Rejection::RoleExists),
        (delete_user("b"), Rejection::UserNotFound),
        (delete_user("root"), Rejection::UserNotFound),
        (change_password("b"), Rejection::UserNotFound),
        (grant_role("b", "nothing"), Rejection::UserNotFound),
        (grant_role("a", "nothing"), Rejection::RoleNotFound),
        (revoke_role("b", "r"), Rejection::UserNotFound),
        (revoke_role("a", "r"), Rejection::RoleNotGranted),
        (revoke_role("a", "nothing"), Rejection::RoleNotGranted),
        (delete_role("s"), Rejection::RoleNotFound),
        (delete_role("root"), Rejection::RoleNotFound),
        (grant("s", "k", ""), Rejection::RoleNotFound),
        (grant("r", "", ""), Rejection::InvalidAuthManagement),
        (grant("r", "", "\0"), Rejection::InvalidAuthManagement),
        (grant("r", "b", "a"), Rejection::InvalidAuthManagement),
        (grant("r", "b", "b"), Rejection::InvalidAuthManagement),
        (grant("s", "b", "a"), Rejection::InvalidAuthManagement),
        (revoke("s", "k", ""), Rejection::RoleNotFound),
        (revoke("r", "k", "l"), Rejection::PermissionNotGranted),
    ] {
        assert_eq!(refused(&auth, &command), expected, "{command:?}");
    }
}

#[test]
fn a_role_is_granted_once_and_goes_from_all_users() {
    let auth = after(&Auth::default(), &[add_user("a"), add_user("b"), add_role("s"), add_role("r")]);
    let auth = after(&auth, &[grant_role("a", "s"), grant_role("a", "r"), grant_role("b", "r")]);
    assert_eq!(auth.user("a").unwrap().roles, ["r", "s"], "sorted");
    assert_eq!(auth.after(&grant_role("a", "r")), Ok(auth.clone()), "no change, and none is counted");
    let auth = after(&auth, &[delete_role("r")]);
    assert_eq!((auth.user("a").unwrap().roles.as_slice(), auth.role("r")), (&["s".to_owned()][..], None));
    assert!(auth.user("b").unwrap().roles.is_empty());
}

#[test]
fn permissions_are_sorted_and_one_for_the_same_interval_is_replaced() {
    use PermissionKind::{Read, Write};
    let auth = after(&Auth::default(), &[add_role("r"), grant("r", "k", "l"), grant("r", "a", "\0")]);
    let auth = after(&auth, &[grant("r", "k", ""), grant("r", "k", "m")]);
    let again = AuthCommand::GrantPermission { role: "r".into(), permission: permission(Write, "k", "l") };
    let auth = after(&auth, &[again]);
    let expected = [
        permission(Read, "a", "\0"),
        permission(Read, "k", ""),
        permission(Write, "k", "l"),
        permission(Read, "k", "m"),
    ];
    assert_eq!(auth.role("r").unwrap().permissions(), expected);
    let auth = after(&auth, &[revoke("r", "k", ""), revoke("r", "a", "\0")]);
    assert_eq!(auth.role("r").unwrap().permissions(), &expected[2..]);
}

#[test]
fn changes_are_counted_but_enabling_is_none() {
    let mut auth = Auth::default();
    assert_eq!(auth.revision, AuthRevision(1));
    for (command, counts) in [
        (add_user("root"), true),
        (grant_role("root", "root"), true),
        (grant_role("root", "root"), false),
        (AuthCommand::Disable, false),
        (AuthCommand::Enable, false),
        (tokens(1), false),
        (add_role("r"), true),
        (grant("r", "k", ""), true),
        (grant("r", "k", ""), true),
        (change_password("root"), true),
        (AuthCommand::Disable, true),
    ] {
        let next = after(&auth, std::slice::from_ref(&command));
        assert_eq!(next.revision.0 - auth.revision.0, u64::from(counts), "{command:?}");
        auth = next;
    }
}

#[test]
fn what_a_password_was_given_at_tells_its_tokens_from_those_before() {
    let auth = after(&Auth::default(), &[add_user("a")]);
    let since = |auth: &Auth| auth.user("a").unwrap().since;
    assert_eq!(since(&auth), AuthRevision(2));
    let unchanged = after(&auth, &[add_user("b"), grant_role("a", "root"), revoke_role("a", "root")]);
    assert_eq!(since(&unchanged), AuthRevision(2));
    let changed = after(&unchanged, &[change_password("a")]);
    assert_eq!((since(&changed), &changed.user("a").unwrap().password), (changed.revision, &hash("another")));
    let another = after(&changed, &[delete_user("a"), add_user("a")]);
    assert_eq!(since(&another), another.revision);
}

#[test]
fn a_user_without_a_password_is_given_none() {
    let add = AuthCommand::AddUser { name: "a".into(), password: hash("hash"), no_password: true };
    let auth = after(&Auth::default(), &[add, change_password("a")]);
    let user = auth.user("a").unwrap();
    assert!(user.no_password && user.password == PasswordHash::default());
    assert_eq!(user.since, auth.revision);
}

#[test]
fn the_first_secret_stays_until_authentication_is_off() {
    let secret = |auth: &Auth| auth.token_secret.map(|secret| secret.0[0]);
    assert_eq!(secret(&after(&with_root(), &[tokens(1)])), None, "nobody needs one");
    let auth = after(&enabled(), &[tokens(1), tokens(2)]);
    assert_eq!((secret(&auth), secret(&auth.without_secrets())), (Some(1), None));
    let auth = after(&auth, &[AuthCommand::Disable, AuthCommand::Enable]);
    assert_eq!(secret(&auth), None, "tokens from before are worth nothing");
}

/// What grants one more than there may be is not proposed, and what is in the log all the same takes effect.
#[test]
fn a_user_has_so_many_roles_and_a_role_so_many_permissions() {
    let name = |number: usize| format!("{number:04}");
    let mut auth = after(&Auth::default(), &[add_user("u"), add_user("v"), add_role("r"), add_role("s")]);
    let roles: Vec<_> = (0..USER_ROLES_MAX).map(name).collect();
    Arc::make_mut(auth.users.get_mut("u").unwrap()).roles = roles;
    let permissions =
        (0..ROLE_PERMISSIONS_MAX).map(|number| permission(PermissionKind::Read, &name(number), ""));
    let full = Role::of(permissions.collect()).unwrap();
    auth.roles.insert("r".into(), Arc::new(full));
    for (command, expected) in [
        (grant_role("u", "r"), Err(Excess::Roles)),
        (grant_role("u", "0000"), Ok(())),
        (grant_role("v", "r"), Ok(())),
        (grant_role("nobody", "r"), Ok(())),
        (revoke_role("u", "0000"), Ok(())),
        (grant("r", "a", ""), Err(Excess::Permissions)),
        (grant("r", "0000", "0001"), Err(Excess::Permissions)),
        (grant("r", "0000", ""), Ok(())),
        (grant("s", "a", ""), Ok(())),
        (grant("nothing", "a", ""), Ok(())),
        (revoke("r", "0000", ""), Ok(())),
    ] {
        assert_eq!(auth.check_bounds(&command), expected, "{command:?}");
    }
    let beyond = after(&auth, &[grant_role("u", "r"), grant("r", "a", "")]);
    assert_eq!(beyond.user("u").unwrap().roles.len(), USER_ROLES_MAX + 1);
    assert_eq!(beyond.role("r").unwrap().permissions().len(), ROLE_PERMISSIONS_MAX + 1);
    assert_eq!(
        after(&beyond, &[revoke_role("u", "0000")]).check_bounds(&grant_role("u", "s")),
        Err(Excess::Roles)
    );
}

#[test]
fn it_does_not_grow_without_end_but_shrinks_at_any_size() {
    let mut auth = Auth::default();
    let long = |n: u32| n.to_string().repeat(AUTH_BYTES_MAX / 8);
    let refused = (0..9).find_map(|n| match auth.after(&add_user(&long(n))) {
        Ok(next) => {
            auth = next;
            None
        }
        Err(error) => Some((n, error)),
    });
    assert_eq!(refused, Some((7, Rejection::AuthTooLarge)));
    auth.roles.insert("r".repeat(AUTH_BYTES_MAX), Arc::default());
    after(&auth, &[delete_user(&long(3))]);
}
