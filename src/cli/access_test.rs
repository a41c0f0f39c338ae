//! What is asked for by `auth`, `user` and `role`.

use std::ffi::{OsStr, OsString};

use lexopt::Parser;

use super::{AccessError, Question, question};
use crate::cli::args::{Format, Parsed, command};
use crate::wire::etcdserverpb::AuthUserAddRequest;

fn asked_in(format: Format, name: &str, rest: &[&str]) -> Result<Question, AccessError> {
    let command = command(OsStr::new(name)).unwrap();
    let mut parsed = Parsed::default();
    parsed.rest(command, &mut Parser::from_args(rest.iter().map(OsString::from))).unwrap();
    Ok(question(command, &parsed, format)?.unwrap())
}

fn asked(name: &str, rest: &[&str]) -> Result<Question, AccessError> {
    asked_in(Format::Simple, name, rest)
}

fn user(rest: &[&str]) -> AuthUserAddRequest {
    let Question::UserAdd(request) = asked("user add", rest).unwrap() else { panic!("no user") };
    request
}

#[test]
fn a_users_password_comes_from_where_it_is_said() {
    let told = |rest: &[&str]| {
        let AuthUserAddRequest { name, password, options, .. } = user(rest);
        (name, password, options.unwrap().no_password)
    };
    let of = |name: &str, password: &str, without| (name.to_owned(), password.to_owned(), without);
    assert_eq!(told(&["u:p:q"]), of("u", "p:q", false));
    assert_eq!(told(&["u:v", "--new-user-password", "p"]), of("u:v", "p", false));
    assert_eq!(told(&["u:v", "--no-password"]), of("u:v", "", true));
    for (rest, refusal) in [
        (&[":p"][..], "empty user name is not allowed"),
        (&[], "user add command requires user name as its argument"),
        (&["a", "b"], "user add command requires user name as its argument"),
    ] {
        assert_eq!(asked("user add", rest).unwrap_err().to_string(), refusal);
    }
}

#[test]
fn permissions_are_for_etcdctls_intervals() {
    let granted = |rest: &[&str]| -> Result<(i32, Vec<u8>, Vec<u8>), AccessError> {
        let Question::Grant(request) = asked("role grant-permission", rest)? else { panic!("no grant") };
        assert_eq!(request.name, "r");
        let perm = request.perm.unwrap();
        Ok((perm.perm_type, perm.key.to_vec(), perm.range_end.to_vec()))
    };
    for (rest, kind, key, end) in [
        (&["r", "read", "k"][..], 0, "k", ""),
        (&["r", "WRITE", "k", "m"], 1, "k", "m"),
        (&["r", "readwrite", "k", "--prefix"], 2, "k", "l"),
        (&["r", "read", "k", "--from-key"], 0, "k", "\0"),
        (&["r", "read", "", "--prefix"], 0, "\0", "\0"),
        (&["r", "read", "", "--from-key"], 0, "\0", "\0"),
        (&["r", "read", ""], 0, "\0", ""),
    ] {
        let expected = (kind, key.as_bytes().to_vec(), end.as_bytes().to_vec());
        assert_eq!(granted(rest).unwrap(), expected, "{rest:?}");
    }
    for (rest, refusal) in [
        (
            &["r", "read"][..],
            "role grant command requires role name, permission type, and key [endkey] as its argument",
        ),
        (&["r", "rewrite", "k"], "invalid permission type: rewrite"),
        (&["r", "read", "k", "m", "--prefix"], "unexpected endkey argument with --prefix flag"),
        (&["r", "read", "k", "m", "--from-key"], "unexpected endkey argument with --from-key flag"),
        (
            &["r", "read", "k", "--from-key", "--prefix"],
            "--from-key and --prefix flags are mutually exclusive",
        ),
    ] {
        assert_eq!(granted(rest).unwrap_err().to_string(), refusal);
    }
    let Question::Revoke(request) = asked("role revoke-permission", &["r", "k", "--prefix"]).unwrap() else {
        panic!("not taken back")
    };
    assert_eq!((&request.key[..], &request.range_end[..]), (&b"k"[..], &b"l"[..]));
    assert_eq!(super::revoked(&request), "Permission of range [k, l) is revoked from role r");
}

#[test]
fn what_has_no_fields_is_refused_before_it_is_asked() {
    for (name, rest) in [("user list", &[][..]), ("user get", &["u"]), ("auth status", &[])] {
        let refusal = asked_in(Format::Fields, name, rest).unwrap_err().to_string();
        assert_eq!(refusal, "fields not supported as output format");
        asked_in(Format::Json, name, rest).unwrap();
    }
    asked_in(Format::Fields, "user get", &["u", "--detail"]).unwrap();
}
