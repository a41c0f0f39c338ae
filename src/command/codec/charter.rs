//! The bytes of commands about the charter, after their tag.
//!
//! Owns: their encoding. Must never: change the meaning of a byte that has been written. Part of the codec.
//!
//! ```text
//! body     = kind:u8  fields                                     numbers are varints
//! admit    = key:32 bytes  name:bytes  peer_urls:list of bytes  by:u8 (0 window, 1 token, 2 approval, 3 fleet key)  [id:8 bytes]
//!            run  of:there:u8 [u64 LE]
//! forget   = member:u64 LE
//! token    = id:8 bytes  key:32 bytes  seconds
//! replace  = term  exposed  certificate:bytes  key:bytes  bridge:bytes
//! bury     = 120 bytes, see `Tombstone`
//! signed   = 120 bytes  ordered:there:u8 [generation:u64 LE]                    since version 2
//! yield    = winner:u64 LE  witness:32 bytes  asked
//! ```

use super::{CodecError, Reader, Writer, undefined};
use crate::command::{Admission, Authority, CharterCommand, ClientKey, TokenId, TokenKey, Tombstone};
use crate::ids::{ClusterId, Incarnation, LogIndex, MemberId, Term};

const ADMIT: u8 = 1;
const ELAPSED: u8 = 2;
const OPEN_WINDOW: u8 = 3;
const SEAL: u8 = 4;
const APPROVE: u8 = 5;
const CREATE_TOKEN: u8 = 6;
const REVOKE_TOKEN: u8 = 7;
const ESTABLISH: u8 = 8;
const ISSUE_CLIENT: u8 = 9;
const REVOKE_CLIENT: u8 = 10;
const DISSOLVE: u8 = 11;
const BURY: u8 = 12;
const YIELD: u8 = 13;
const REPLACE_AUTHORITY: u8 = 14;
const RENEW_CLIENT: u8 = 15;
const FORGET: u8 = 16;
const BURY_SIGNED: u8 = 17;

const BY_WINDOW: u8 = 0;
const BY_TOKEN: u8 = 1;
const BY_APPROVAL: u8 = 2;
const BY_FLEET_KEY: u8 = 3;

impl Writer {
    pub(super) fn charter(&mut self, command: &CharterCommand) {
        match command {
            CharterCommand::Admit { key, name, peer_urls, by, run, of } => {
                self.0.push(ADMIT);
                self.0.extend_from_slice(&key.0);
                self.bytes(name.as_bytes());
                self.texts(peer_urls);
                self.admission(*by);
                self.varint(run.0);
                self.optional(of.map(|of| of.0));
            }
            CharterCommand::Forget { member } => self.kind(FORGET, &member.0.to_le_bytes()),
            CharterCommand::Elapsed { to } => {
                self.0.push(ELAPSED);
                self.varint(*to);
            }
            CharterCommand::OpenWindow { seconds } => {
                self.0.push(OPEN_WINDOW);
                self.varint(*seconds);
            }
            CharterCommand::Seal => self.0.push(SEAL),
            CharterCommand::Approve { fingerprint } => self.kind(APPROVE, fingerprint),
            CharterCommand::CreateToken { id, key, seconds } => {
                self.0.push(CREATE_TOKEN);
                self.0.extend_from_slice(&id.0);
                self.0.extend_from_slice(&key.0);
                self.varint(*seconds);
            }
            CharterCommand::RevokeToken { id } => self.kind(REVOKE_TOKEN, &id.0),
            CharterCommand::Establish(authority) => {
                self.0.push(ESTABLISH);
                self.authority(authority);
            }
            CharterCommand::IssueClient { key, name } => {
                self.0.push(ISSUE_CLIENT);
                self.0.extend_from_slice(&key.0);
                self.bytes(name.as_bytes());
            }
            CharterCommand::RevokeClient { key } => self.kind(REVOKE_CLIENT, &key.0),
            CharterCommand::ReplaceAuthority { term, exposed, authority, bridge } => {
                self.0.push(REPLACE_AUTHORITY);
                self.varint(term.0);
                self.varint(exposed.0);
                self.authority(authority);
                self.bytes(bridge);
            }
            CharterCommand::RenewClient { key } => self.kind(RENEW_CLIENT, &key.0),
            CharterCommand::Dissolve { winner } => self.kind(DISSOLVE, &winner.0.to_le_bytes()),
            CharterCommand::Bury(tombstone) => self.kind(BURY, &tombstone.to_bytes()),
            CharterCommand::BurySigned { tombstone, ordered } => {
                self.kind(BURY_SIGNED, &tombstone.to_bytes());
                self.optional(*ordered);
            }
            CharterCommand::Yield { winner, witness, asked } => {
                self.0.push(YIELD);
                self.0.extend_from_slice(&winner.0.to_le_bytes());
                self.0.extend_from_slice(&witness.0);
                self.varint(asked.0);
            }
        }
    }

    fn optional(&mut self, number: Option<u64>) {
        self.0.push(u8::from(number.is_some()));
        self.0.extend(number.iter().flat_map(|number| number.to_le_bytes()));
    }

    fn admission(&mut self, by: Admission) {
        match by {
            Admission::Window => self.0.push(BY_WINDOW),
            Admission::Token(id) => {
                self.0.push(BY_TOKEN);
                self.0.extend_from_slice(&id.0);
            }
            Admission::Approval => self.0.push(BY_APPROVAL),
            Admission::FleetKey => self.0.push(BY_FLEET_KEY),
        }
    }

    fn authority(&mut self, authority: &Authority) {
        self.bytes(&authority.certificate);
        self.bytes(&authority.key);
    }

    fn kind(&mut self, kind: u8, fields: &[u8]) {
        self.0.push(kind);
        self.0.extend_from_slice(fields);
    }
}

impl Reader {
    pub(super) fn charter(&mut self) -> Result<CharterCommand, CodecError> {
        Ok(match self.byte()? {
            ADMIT => CharterCommand::Admit {
                key: self.key()?,
                name: self.text()?,
                peer_urls: self.texts()?,
                by: match self.byte()? {
                    BY_WINDOW => Admission::Window,
                    BY_TOKEN => Admission::Token(self.token_id()?),
                    BY_APPROVAL => Admission::Approval,
                    BY_FLEET_KEY => Admission::FleetKey,
                    tag => return Err(undefined("admission", tag)),
                },
                run: Incarnation(self.varint()?),
                of: self.optional()?.map(ClusterId),
            },
            FORGET => CharterCommand::Forget { member: MemberId(self.fixed_u64()?) },
            ELAPSED => CharterCommand::Elapsed { to: self.varint()? },
            OPEN_WINDOW => CharterCommand::OpenWindow { seconds: self.varint()? },
            SEAL => CharterCommand::Seal,
            APPROVE => CharterCommand::Approve { fingerprint: self.array()? },
            CREATE_TOKEN => CharterCommand::CreateToken {
                id: self.token_id()?,
                key: TokenKey(self.array()?),
                seconds: self.varint()?,
            },
            REVOKE_TOKEN => CharterCommand::RevokeToken { id: self.token_id()? },
            ESTABLISH => CharterCommand::Establish(self.authority()?),
            REPLACE_AUTHORITY => CharterCommand::ReplaceAuthority {
                term: Term(self.varint()?),
                exposed: LogIndex(self.varint()?),
                authority: self.authority()?,
                bridge: self.bytes()?,
            },
            RENEW_CLIENT => CharterCommand::RenewClient { key: ClientKey(self.array()?) },
            ISSUE_CLIENT => CharterCommand::IssueClient { key: ClientKey(self.array()?), name: self.text()? },
            REVOKE_CLIENT => CharterCommand::RevokeClient { key: ClientKey(self.array()?) },
            DISSOLVE => CharterCommand::Dissolve { winner: ClusterId(self.fixed_u64()?) },
            BURY => CharterCommand::Bury(Tombstone::from_bytes(&self.array()?)),
            BURY_SIGNED => CharterCommand::BurySigned {
                tombstone: Tombstone::from_bytes(&self.array()?),
                ordered: self.optional()?,
            },
            YIELD => CharterCommand::Yield {
                winner: ClusterId(self.fixed_u64()?),
                witness: self.key()?,
                asked: LogIndex(self.varint()?),
            },
            kind => return Err(undefined("change of the charter", kind)),
        })
    }

    fn optional(&mut self) -> Result<Option<u64>, CodecError> {
        if self.flag()? { self.fixed_u64().map(Some) } else { Ok(None) }
    }

    fn authority(&mut self) -> Result<Authority, CodecError> {
        Ok(Authority { certificate: self.bytes()?, key: self.bytes()? })
    }

    fn token_id(&mut self) -> Result<TokenId, CodecError> {
        Ok(TokenId(self.array()?))
    }
}
