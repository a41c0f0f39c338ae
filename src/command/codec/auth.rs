//! The bytes of what entries say of users, after their tag.
//!
//! Owns: their encoding. Must never: change the meaning of a byte that has been written. Part of the codec.
//!
//! ```text
//! caller     = user:bytes  revision                              numbers are varints
//! body       = kind:u8  fields
//! add user   = name:bytes  password:bytes  no_password:u8
//! permission = kind:u8 (0 read, 1 write, 2 both)  interval
//! tokens     = secret:32 bytes
//! ```

use super::{CodecError, Reader, Writer, undefined};
use crate::command::{AuthCommand, Caller, PasswordHash, Permission, PermissionKind, TokenSecret};
use crate::ids::AuthRevision;

const ENABLE: u8 = 1;
const DISABLE: u8 = 2;
const ADD_USER: u8 = 3;
const DELETE_USER: u8 = 4;
const CHANGE_PASSWORD: u8 = 5;
const GRANT_ROLE: u8 = 6;
const REVOKE_ROLE: u8 = 7;
const ADD_ROLE: u8 = 8;
const DELETE_ROLE: u8 = 9;
const GRANT_PERMISSION: u8 = 10;
const REVOKE_PERMISSION: u8 = 11;
const ESTABLISH_TOKENS: u8 = 12;

impl Writer {
    pub(super) fn caller(&mut self, caller: &Caller) {
        self.bytes(caller.user.as_bytes());
        self.varint(caller.revision.0);
    }

    pub(super) fn auth(&mut self, command: &AuthCommand) {
        match command {
            AuthCommand::Enable => self.0.push(ENABLE),
            AuthCommand::Disable => self.0.push(DISABLE),
            AuthCommand::AddUser { name, password, no_password } => {
                self.names(ADD_USER, [name, &password.0]);
                self.0.push(u8::from(*no_password));
            }
            AuthCommand::DeleteUser { name } => self.names(DELETE_USER, [name]),
            AuthCommand::ChangePassword { name, password } => {
                self.names(CHANGE_PASSWORD, [name, &password.0]);
            }
            AuthCommand::GrantRole { user, role } => self.names(GRANT_ROLE, [user, role]),
            AuthCommand::RevokeRole { user, role } => self.names(REVOKE_ROLE, [user, role]),
            AuthCommand::AddRole { name } => self.names(ADD_ROLE, [name]),
            AuthCommand::DeleteRole { name } => self.names(DELETE_ROLE, [name]),
            AuthCommand::GrantPermission { role, permission: Permission { kind, range } } => {
                self.names(GRANT_PERMISSION, [role]);
                self.0.push(*kind as u8);
                self.range(range);
            }
            AuthCommand::RevokePermission { role, range } => {
                self.names(REVOKE_PERMISSION, [role]);
                self.range(range);
            }
            AuthCommand::EstablishTokens { secret } => {
                self.0.push(ESTABLISH_TOKENS);
                self.0.extend_from_slice(&secret.0);
            }
        }
    }

    fn names<const N: usize>(&mut self, kind: u8, names: [&String; N]) {
        self.0.push(kind);
        for name in names {
            self.bytes(name.as_bytes());
        }
    }
}

impl Reader {
    pub(super) fn caller(&mut self) -> Result<Caller, CodecError> {
        Ok(Caller { user: self.text()?, revision: AuthRevision(self.varint()?) })
    }

    pub(super) fn auth(&mut self) -> Result<AuthCommand, CodecError> {
        Ok(match self.byte()? {
            ENABLE => AuthCommand::Enable,
            DISABLE => AuthCommand::Disable,
            ADD_USER => AuthCommand::AddUser {
                name: self.text()?,
                password: PasswordHash(self.text()?),
                no_password: self.flag()?,
            },
            DELETE_USER => AuthCommand::DeleteUser { name: self.text()? },
            CHANGE_PASSWORD => {
                AuthCommand::ChangePassword { name: self.text()?, password: PasswordHash(self.text()?) }
            }
            GRANT_ROLE => AuthCommand::GrantRole { user: self.text()?, role: self.text()? },
            REVOKE_ROLE => AuthCommand::RevokeRole { user: self.text()?, role: self.text()? },
            ADD_ROLE => AuthCommand::AddRole { name: self.text()? },
            DELETE_ROLE => AuthCommand::DeleteRole { name: self.text()? },
            GRANT_PERMISSION => {
                AuthCommand::GrantPermission { role: self.text()?, permission: self.permission()? }
            }
            REVOKE_PERMISSION => AuthCommand::RevokePermission { role: self.text()?, range: self.range()? },
            ESTABLISH_TOKENS => AuthCommand::EstablishTokens { secret: TokenSecret(self.array()?) },
            kind => return Err(undefined("change of users and roles", kind)),
        })
    }

    fn permission(&mut self) -> Result<Permission, CodecError> {
        let byte = self.byte()?;
        let kind = PermissionKind::from_byte(byte).ok_or_else(|| undefined("permission", byte))?;
        Ok(Permission { kind, range: self.range()? })
    }
}
