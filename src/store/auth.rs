//! The bytes of users, roles and what they may do.
//!
//! Owns: the row "auth" of the table `meta`. Must never: change the meaning of a byte that was written; a new shape takes a new [`AUTH_VERSION`]. Driven
//! by the store's commits, and by `facts` where it is sent or kept elsewhere.
//!
//! The row is apart from the facts because those are written at each fold, and this seldom changes.
//!
//! ```text
//! row        = version:u8 (1)  auth  seal
//! auth       = enabled:u8  revision  secret:there:u8 [32 bytes]  users:list  roles:list        numbers are varints, lists by name
//! user       = name:text  password:text  no_password:u8  since  roles:list of text
//! role       = name:text  permissions:list
//! permission = kind:u8 (0 read, 1 write, 2 both)  start:bytes  range_end:bytes, as on the wire
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::encoding::{Reader, put_bytes, seal, unseal};
use super::error::StoreError;
use super::facts::{flag, put_list};
use super::schema::{AUTH_KEY, META_NAME};
use crate::auth::{Auth, Role, User};
use crate::command::varint::put_varint;
use crate::command::{KeyRange, PasswordHash, Permission, PermissionKind, TokenSecret};
use crate::ids::AuthRevision;

/// The version of the row.
pub const AUTH_VERSION: u8 = 1;

/// The row of `meta`.
pub(super) fn encode(auth: &Auth) -> Vec<u8> {
    let mut row = vec![AUTH_VERSION];
    put_auth(&mut row, auth);
    seal(AUTH_KEY.as_bytes(), &mut row);
    row
}

/// Reads the row back.
pub(super) fn decode(row: &[u8]) -> Result<Auth, StoreError> {
    let damaged = |what| StoreError::damaged(META_NAME, AUTH_KEY.as_bytes(), what);
    let body = unseal(AUTH_KEY.as_bytes(), row).ok_or_else(|| damaged("checksum does not fit"))?;
    let mut reader = Reader::new(body);
    match reader.u8() {
        Some(AUTH_VERSION) => {}
        Some(found) => {
            let (found, supported) = (u32::from(found), u32::from(AUTH_VERSION));
            return Err(StoreError::UnsupportedVersion { found, supported });
        }
        None => return Err(damaged("empty")),
    }
    let auth = auth(&mut reader).filter(|_| reader.is_empty());
    auth.ok_or_else(|| damaged("malformed"))
}

/// Appends its bytes: equal ones for equal users and roles.
pub fn put_auth(out: &mut Vec<u8>, auth: &Auth) {
    let Auth { enabled, revision, token_secret, users, roles } = auth;
    out.push(u8::from(*enabled));
    put_varint(out, revision.0);
    out.push(u8::from(token_secret.is_some()));
    out.extend(token_secret.iter().flat_map(|secret| secret.0));
    put_varint(out, users.len() as u64);
    for (name, user) in users {
        let User { password, no_password, since, roles } = user.as_ref();
        put_bytes(out, name.as_bytes());
        put_bytes(out, password.0.as_bytes());
        out.push(u8::from(*no_password));
        put_varint(out, since.0);
        put_list(out, roles, |out, role| put_bytes(out, role.as_bytes()));
    }
    put_varint(out, roles.len() as u64);
    for (name, role) in roles {
        put_bytes(out, name.as_bytes());
        put_list(out, role.permissions(), |out, Permission { kind, range }| {
            out.push(*kind as u8);
            put_bytes(out, &range.start);
            put_bytes(out, &range.wire_end());
        });
    }
}

/// Reads them back.
pub(super) fn auth(reader: &mut Reader<'_>) -> Option<Auth> {
    Some(Auth {
        enabled: flag(reader.u8()?)?,
        revision: AuthRevision(reader.varint()?),
        token_secret: if flag(reader.u8()?)? { Some(TokenSecret(reader.array()?)) } else { None },
        users: by_name(reader.list(user)?)?,
        roles: by_name(reader.list(role)?)?,
    })
}

/// What is written in the order of names, none of them twice.
fn by_name<T>(list: Vec<(String, Arc<T>)>) -> Option<BTreeMap<String, Arc<T>>> {
    let ascends = list.is_sorted_by(|(a, _), (b, _)| a < b);
    ascends.then(|| list.into_iter().collect())
}

fn user(reader: &mut Reader<'_>) -> Option<(String, Arc<User>)> {
    let (name, password) = (reader.text()?, PasswordHash(reader.text()?));
    let (no_password, since) = (flag(reader.u8()?)?, AuthRevision(reader.varint()?));
    let roles = reader.list(Reader::text)?;
    let ascends = roles.is_sorted_by(|a, b| a < b);
    ascends.then(|| (name, Arc::new(User { password, no_password, since, roles })))
}

fn role(reader: &mut Reader<'_>) -> Option<(String, Arc<Role>)> {
    let (name, permissions) = (reader.text()?, reader.list(permission)?);
    Some((name, Arc::new(Role::of(permissions)?)))
}

fn permission(reader: &mut Reader<'_>) -> Option<Permission> {
    let kind = PermissionKind::from_byte(reader.u8()?)?;
    let mut bytes = || reader.bytes().map(Bytes::copy_from_slice);
    Some(Permission { kind, range: KeyRange::from_wire(bytes()?, bytes()?) })
}

/// Some of everything.
#[cfg(test)]
pub(crate) fn test_auth() -> Auth {
    let user = |password: &str, roles: &[&str]| {
        let (since, roles) = (AuthRevision(300), roles.iter().map(|role| (*role).to_owned()).collect());
        let (password, no_password) = (PasswordHash(password.to_owned()), password.is_empty());
        Arc::new(User { password, no_password, since, roles })
    };
    let permission = |kind, start: &str, end: &str| {
        let [start, end] = [start, end].map(|key| Bytes::copy_from_slice(key.as_bytes()));
        Permission { kind, range: KeyRange::from_wire(start, end) }
    };
    let app = Role::of(vec![
        permission(PermissionKind::Read, "a", "b"),
        permission(PermissionKind::Write, "k", ""),
        permission(PermissionKind::ReadWrite, "x", "\0"),
    ]);
    let app = app.expect("they are sorted");
    Auth {
        enabled: true,
        revision: AuthRevision(301),
        token_secret: Some(TokenSecret([0xab; 32])),
        users: [("app", user("hash of it", &["app", "none"])), ("root", user("", &["root"]))]
            .map(|(name, user)| (name.to_owned(), user))
            .into(),
        roles: [("app", app), ("none", Role::default())]
            .map(|(name, role)| (name.to_owned(), Arc::new(role)))
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Option<Auth> {
        let mut reader = Reader::new(bytes);
        auth(&mut reader).filter(|_| reader.is_empty())
    }

    fn bytes_of(auth: &Auth) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_auth(&mut bytes, auth);
        bytes
    }

    #[test]
    fn users_and_roles_come_back_whole_or_not_at_all() {
        for auth in [Auth::default(), test_auth(), test_auth().without_secrets()] {
            assert_eq!(decode(&encode(&auth)).unwrap(), auth);
            let bytes = bytes_of(&auth);
            for cut in 0..bytes.len() {
                assert_eq!(read(&bytes[..cut]), None, "cut at {cut}");
            }
        }
        let row = encode(&test_auth());
        for bit in 0..row.len() * 8 {
            let mut flipped = row.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).unwrap_err().is_damage());
        }
    }

    /// Rows of the field are made of these.
    #[test]
    fn the_bytes_are_pinned() {
        let expected = [
            &[1, 0xad, 2, 1][..],
            &[0xab; 32],
            &[2, 3],
            b"app",
            &[10],
            b"hash of it",
            &[0, 0xac, 2, 2, 3],
            b"app",
            &[4],
            b"none",
            &[4],
            b"root",
            &[0, 1, 0xac, 2, 1, 4],
            b"root",
            &[2, 3],
            b"app",
            &[3, 0, 1, b'a', 1, b'b', 1, 1, b'k', 0, 2, 1, b'x', 1, 0, 4],
            b"none",
            &[0],
        ];
        assert_eq!(bytes_of(&test_auth()), expected.concat());
    }

    #[test]
    fn what_is_out_of_order_is_none() {
        let sound = bytes_of(&test_auth());
        let swapped = |one: &[u8], other: &[u8]| {
            assert_eq!(one.len(), other.len());
            let at = sound.windows(one.len()).position(|found| found == one).unwrap();
            let mut bytes = sound.clone();
            bytes[at..at + one.len()].copy_from_slice(other);
            read(&bytes)
        };
        assert!(swapped(b"hash", b"hush").is_some());
        for (one, other) in [
            (&b"\x04root\x00"[..], &b"\x04aoot\x00"[..]),
            (b"\x04none\x04", b"\x04aone\x04"),
            (b"\x04none\x00", b"\x04aone\x00"),
            (&[1, 1, b'k', 0], &[1, 1, b'A', 0]),
            (&[1, 1, b'k', 0], &[3, 1, b'k', 0]),
        ] {
            assert_eq!(swapped(one, other), None, "{one:?}");
        }
    }

    #[test]
    fn a_look_at_it_shows_no_secret() {
        let shown = format!("{:?}", test_auth());
        assert!(shown.contains("TokenSecret") && shown.contains("PasswordHash"));
        assert!(!shown.contains("171") && !shown.contains("hash of it"), "{shown}");
    }
}
