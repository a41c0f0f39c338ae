//! The bytes of [`Meta`]: the row "facts" of the table `meta`.
//!
//! Owns: its encoding. Must never: change the meaning of a byte that was written; a new shape takes a new [`FACTS_VERSION`]. Driven
//! by the store's commits and by opening.
//!
//! ```text
//! row      = version:u8 (6 or 7)  applied  applied_term  digest:u64 LE  conf  revision  compacted  flags:u8 (bit 0 ever compacted)
//!            compaction_finished  bytes_in_use  alarms:list  over_quota:list of u64 LE  members:list  removed:list  forming:u8  charter  auth  [commands:u8]  seal
//!            numbers are varints; charter: see there; what is in brackets stands in version 7 only, which is written where it is not 1 everywhere
//! auth     = where:u8 (0 nobody was ever added, 1 here, 2 in the row beside)  [see there]
//! conf     = voters:list  learners:list  voters_outgoing:list  learners_next:list (of u64 LE)  auto_leave:u8
//! alarm    = member:u64 LE  kind:u8 (1 no space, 2 corrupt)
//! member   = key  votes:u8  id:u64 LE  name:text  peer_urls:list of text  client_urls:list of text  incarnation  boot_nonce:u64 LE  [understands:u8]
//! removed  = id:u64 LE  key
//! key      = there:u8  32 bytes where there is one
//! ```

use std::sync::Arc;

use super::auth::{self, put_auth};
use super::base::MISSING;
use super::charter::{charter, put_charter};
use super::encoding::{Reader, put_bytes, seal, unseal};
use super::error::StoreError;
use super::schema::{AUTH_KEY, FACTS_KEY, META_NAME};
use super::types::{ConfState, Member, Meta};
use crate::auth::Auth;
use crate::command::varint::put_varint;
use crate::command::{Alarm, AlarmKind, CommandVersion, MemberAttributes};
use crate::ids::{Digest, LogIndex, MemberId, PublicKey, Revision, Term};

/// The newest version of the row.
pub const FACTS_VERSION: u8 = 7;
/// The one without versions of commands: builds that know of none read it.
const UNVERSIONED: u8 = 6;

const FLAG_EVER_COMPACTED: u8 = 1;
const ALARM_NO_SPACE: u8 = 1;
const ALARM_CORRUPT: u8 = 2;
const AUTH_NONE: u8 = 0;
const AUTH_HERE: u8 = 1;
const AUTH_BESIDE: u8 = 2;

/// The facts with users and roles, as they are sent and kept elsewhere.
pub fn encode(meta: &Meta) -> Vec<u8> {
    write(meta, AUTH_HERE)
}

/// The row of `meta`, which only says that there are users and roles.
pub(super) fn encode_row(meta: &Meta) -> Vec<u8> {
    write(meta, AUTH_BESIDE)
}

fn write(meta: &Meta, auth: u8) -> Vec<u8> {
    let is_first = |member: &Member| member.attributes.understands == CommandVersion::FIRST;
    let versioned = meta.commands != CommandVersion::FIRST || !meta.members.iter().all(is_first);
    let mut out = vec![if versioned { FACTS_VERSION } else { UNVERSIONED }];
    put_varint(&mut out, meta.applied.0);
    put_varint(&mut out, meta.applied_term.0);
    out.extend_from_slice(&meta.digest.0.to_le_bytes());
    for list in [
        &meta.conf_state.voters,
        &meta.conf_state.learners,
        &meta.conf_state.voters_outgoing,
        &meta.conf_state.learners_next,
    ] {
        put_list(&mut out, list, |out, member| put_member_id(out, *member));
    }
    out.push(u8::from(meta.conf_state.auto_leave));
    put_revision(&mut out, meta.revision);
    put_revision(&mut out, meta.compacted);
    out.push(if meta.ever_compacted { FLAG_EVER_COMPACTED } else { 0 });
    put_revision(&mut out, meta.compaction_finished);
    put_varint(&mut out, meta.bytes_in_use);
    put_list(&mut out, &meta.alarms, |out, alarm| {
        put_member_id(out, alarm.member);
        out.push(match alarm.kind {
            AlarmKind::NoSpace => ALARM_NO_SPACE,
            AlarmKind::Corrupt => ALARM_CORRUPT,
        });
    });
    put_list(&mut out, &meta.over_quota, |out, member| put_member_id(out, *member));
    put_list(&mut out, &meta.members, |out, member| {
        put_key(out, member.key);
        out.push(u8::from(member.votes));
        put_attributes(out, &member.attributes);
        if versioned {
            out.push(member.attributes.understands.0);
        }
    });
    put_list(&mut out, &meta.removed, |out, (member, key)| {
        put_member_id(out, *member);
        put_key(out, *key);
    });
    out.push(u8::from(meta.forming));
    put_charter(&mut out, &meta.charter);
    out.push(if *meta.auth == Auth::default() { AUTH_NONE } else { auth });
    if out.last() == Some(&AUTH_HERE) {
        put_auth(&mut out, &meta.auth);
    }
    if versioned {
        out.push(meta.commands.0);
    }
    seal(FACTS_KEY.as_bytes(), &mut out);
    out
}

/// Reads back what [`encode`] wrote.
pub fn decode(row: &[u8]) -> Result<Meta, StoreError> {
    let (meta, beside) = read(row)?;
    if beside { Err(damaged("users and roles are missing")) } else { Ok(meta) }
}

/// Reads the row back; `auth` is the one of that name, which is read if this one says so. It is never taken for empty where it is lost: nobody would be refused anything.
pub(super) fn decode_row(row: &[u8], auth: Option<&[u8]>) -> Result<Meta, StoreError> {
    let (mut meta, beside) = read(row)?;
    if beside {
        let auth = auth.ok_or_else(|| StoreError::damaged(META_NAME, AUTH_KEY.as_bytes(), MISSING))?;
        meta.auth = Arc::new(auth::decode(auth)?);
    }
    Ok(meta)
}

fn damaged(what: &'static str) -> StoreError {
    StoreError::damaged(META_NAME, FACTS_KEY.as_bytes(), what)
}

/// The facts, and whether users and roles are elsewhere.
fn read(row: &[u8]) -> Result<(Meta, bool), StoreError> {
    let body = unseal(FACTS_KEY.as_bytes(), row).ok_or_else(|| damaged("checksum does not fit"))?;
    let mut reader = Reader::new(body);
    let versioned = match reader.u8() {
        Some(UNVERSIONED) => false,
        Some(FACTS_VERSION) => true,
        Some(found) => {
            let (found, supported) = (u32::from(found), u32::from(FACTS_VERSION));
            return Err(StoreError::UnsupportedVersion { found, supported });
        }
        None => return Err(damaged("empty")),
    };
    parse(reader, versioned).ok_or_else(|| damaged("malformed"))
}

fn parse(mut reader: Reader<'_>, versioned: bool) -> Option<(Meta, bool)> {
    let applied = LogIndex(reader.varint()?);
    let applied_term = Term(reader.varint()?);
    let digest = Digest(u64::from_le_bytes(reader.array()?));
    let conf_state = ConfState {
        voters: reader.list(member_id)?,
        learners: reader.list(member_id)?,
        voters_outgoing: reader.list(member_id)?,
        learners_next: reader.list(member_id)?,
        auto_leave: flag(reader.u8()?)?,
    };
    let mut meta = Meta {
        applied,
        applied_term,
        digest,
        conf_state,
        revision: Revision(reader.count()?),
        compacted: Revision(reader.count()?),
        ever_compacted: flag(reader.u8()?)?,
        compaction_finished: Revision(reader.count()?),
        bytes_in_use: reader.varint()?,
        alarms: reader.list(alarm)?,
        over_quota: reader.list(member_id)?,
        members: reader.list(|reader| member(reader, versioned))?,
        removed: reader.list(removed)?,
        forming: flag(reader.u8()?)?,
        charter: Arc::new(charter(&mut reader)?),
        auth: Arc::default(),
        commands: CommandVersion::FIRST,
    };
    let place = reader.u8()?;
    match place {
        AUTH_NONE | AUTH_BESIDE => {}
        AUTH_HERE => meta.auth = Arc::new(auth::auth(&mut reader)?),
        _ => return None,
    }
    if versioned {
        meta.commands = command_version(&mut reader)?;
    }
    reader.end()?;
    Some((meta, place == AUTH_BESIDE))
}

pub(super) fn put_list<T>(out: &mut Vec<u8>, items: &[T], mut put: impl FnMut(&mut Vec<u8>, &T)) {
    put_varint(out, items.len() as u64);
    for item in items {
        put(out, item);
    }
}

fn put_revision(out: &mut Vec<u8>, revision: Revision) {
    assert!(revision >= Revision(0), "revisions are counted from 0");
    put_varint(out, revision.0.unsigned_abs());
}

fn put_member_id(out: &mut Vec<u8>, member: MemberId) {
    out.extend_from_slice(&member.0.to_le_bytes());
}

pub(super) fn put_key(out: &mut Vec<u8>, key: Option<PublicKey>) {
    out.push(u8::from(key.is_some()));
    out.extend(key.iter().flat_map(|key| key.0));
}

fn put_attributes(out: &mut Vec<u8>, attributes: &MemberAttributes) {
    put_member_id(out, attributes.member);
    put_bytes(out, attributes.name.as_bytes());
    put_list(out, &attributes.peer_urls, |out, url| put_bytes(out, url.as_bytes()));
    put_list(out, &attributes.client_urls, |out, url| put_bytes(out, url.as_bytes()));
    put_varint(out, attributes.incarnation);
    out.extend_from_slice(&attributes.boot_nonce.to_le_bytes());
}

pub(super) fn flag(byte: u8) -> Option<bool> {
    match byte {
        0 => Some(false),
        FLAG_EVER_COMPACTED => Some(true),
        _ => None,
    }
}

fn member_id(reader: &mut Reader<'_>) -> Option<MemberId> {
    Some(MemberId(u64::from_le_bytes(reader.array()?)))
}

pub(super) fn read_key(reader: &mut Reader<'_>, into: &mut Option<PublicKey>) -> Option<()> {
    *into = if flag(reader.u8()?)? { Some(PublicKey(reader.array()?)) } else { None };
    Some(())
}

fn member(reader: &mut Reader<'_>, versioned: bool) -> Option<Member> {
    let mut key = None;
    read_key(reader, &mut key)?;
    let mut member = Member { key, votes: flag(reader.u8()?)?, attributes: attributes(reader)? };
    if versioned {
        member.attributes.understands = command_version(reader)?;
    }
    Some(member)
}

fn command_version(reader: &mut Reader<'_>) -> Option<CommandVersion> {
    Some(CommandVersion(reader.u8()?)).filter(|version| *version >= CommandVersion::FIRST)
}

fn removed(reader: &mut Reader<'_>) -> Option<(MemberId, Option<PublicKey>)> {
    let (id, mut key) = (member_id(reader)?, None);
    read_key(reader, &mut key)?;
    Some((id, key))
}

fn alarm(reader: &mut Reader<'_>) -> Option<Alarm> {
    let member = member_id(reader)?;
    let kind = match reader.u8()? {
        ALARM_NO_SPACE => AlarmKind::NoSpace,
        ALARM_CORRUPT => AlarmKind::Corrupt,
        _ => return None,
    };
    Some(Alarm { member, kind })
}

fn attributes(reader: &mut Reader<'_>) -> Option<MemberAttributes> {
    Some(MemberAttributes {
        member: member_id(reader)?,
        name: reader.text()?,
        peer_urls: reader.list(Reader::text)?,
        client_urls: reader.list(Reader::text)?,
        incarnation: reader.varint()?,
        boot_nonce: u64::from_le_bytes(reader.array()?),
        understands: CommandVersion::FIRST,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Meta {
        let attributes = MemberAttributes {
            member: MemberId(7),
            name: "box".into(),
            peer_urls: vec!["https://a:1".into(), String::new()],
            client_urls: vec!["https://b:2".into()],
            incarnation: 3,
            boot_nonce: u64::MAX,
            understands: CommandVersion(3),
        };
        Meta {
            applied: LogIndex(u64::MAX),
            applied_term: Term(300),
            digest: Digest(0x0123_4567_89ab_cdef),
            conf_state: ConfState {
                voters: vec![MemberId(1), MemberId(u64::MAX)],
                learners: vec![MemberId(2)],
                voters_outgoing: vec![MemberId(3)],
                learners_next: vec![MemberId(4), MemberId(5)],
                auto_leave: true,
            },
            revision: Revision(i64::MAX),
            compacted: Revision(9),
            ever_compacted: true,
            compaction_finished: Revision(8),
            bytes_in_use: 1 << 40,
            alarms: vec![
                Alarm { member: MemberId(1), kind: AlarmKind::NoSpace },
                Alarm { member: MemberId(1), kind: AlarmKind::Corrupt },
            ],
            over_quota: vec![MemberId(1)],
            members: vec![
                Member { key: Some(PublicKey([8; 32])), votes: true, attributes },
                Member {
                    attributes: MemberAttributes { member: MemberId(8), ..Default::default() },
                    ..Default::default()
                },
            ],
            removed: vec![(MemberId(5), None), (MemberId(6), Some(PublicKey([6; 32])))],
            forming: true,
            charter: Arc::new(crate::store::test_charter()),
            auth: Arc::new(crate::store::test_auth()),
            commands: CommandVersion(2),
        }
    }

    #[test]
    fn facts_come_back() {
        for meta in [Meta::default(), full()] {
            assert_eq!(decode(&encode(&meta)).unwrap(), meta);
        }
    }

    /// The members are upgraded one after another: those that are older read what the newer ones send and write.
    #[test]
    fn where_nobody_uses_versions_of_commands_the_row_is_that_of_builds_without_them() {
        let mut meta = Meta { commands: CommandVersion::FIRST, ..full() };
        assert_eq!(encode(&meta)[0], FACTS_VERSION);
        for member in &mut meta.members {
            member.attributes.understands = CommandVersion::FIRST;
        }
        let row = encode(&meta);
        assert_eq!((row[0], decode(&row).unwrap()), (UNVERSIONED, meta.clone()));
        meta.commands = CommandVersion(2);
        let raised = encode(&meta);
        let (members, commands, seal) = (meta.members.len(), 1, 4);
        assert_eq!((raised[0], raised.len()), (FACTS_VERSION, row.len() + members + commands));
        assert_eq!(raised[raised.len() - seal - 1], 2);
    }

    #[test]
    fn users_and_roles_in_a_row_of_their_own_are_found_or_missed() {
        let (row, auth) = (encode_row(&full()), auth::encode(&full().auth));
        assert_eq!(decode_row(&row, Some(&auth)).unwrap(), full());
        assert!(decode_row(&row, None).unwrap_err().is_damage());
        assert!(decode(&row).unwrap_err().is_damage());
        let nobody = Meta { auth: Arc::default(), ..full() };
        assert_eq!(decode_row(&encode_row(&nobody), None).unwrap(), nobody);
    }

    #[test]
    fn a_flipped_bit_or_a_missing_byte_is_damage() {
        let row = encode(&full());
        for bit in 0..row.len() * 8 {
            let mut flipped = row.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).unwrap_err().is_damage());
        }
        for cut in 0..row.len() {
            assert!(decode(&row[..cut]).unwrap_err().is_damage());
        }
    }

    #[test]
    fn sealed_nonsense_is_damage_and_a_newer_row_is_refused_by_name() {
        let row = encode(&full());
        let body = &row[..row.len() - 4];
        let resealed = |mut body: Vec<u8>| {
            seal(FACTS_KEY.as_bytes(), &mut body);
            decode(&body).unwrap_err()
        };
        for cut in 0..body.len() {
            assert!(resealed(body[..cut].to_vec()).is_damage());
        }
        assert!(resealed([body, b"x"].concat()).is_damage(), "bytes after the end");
        let newer = [&[FACTS_VERSION + 1], &body[1..]].concat();
        assert!(matches!(resealed(newer), StoreError::UnsupportedVersion { found: 8, supported: 7 }));
    }
}
