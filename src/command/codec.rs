//! The bytes of a log entry: versioned, compact, and read back without copying keys and values.
//!
//! Owns: the encoding of [`Envelope`]. Must never: change the meaning of a byte that has been written; a new shape takes a new
//! version or a new tag. Driven by `node`: encodes before proposing, decodes when applying.
//!
//! ```text
//! entry    = version:u8 (the command's)  boot:u64 LE  seq:varint  [tag:u8 (25)  caller]  tag:u8  body
//! bytes    = length:varint  raw            varint = LEB128, at most 10 bytes
//! i64      = zigzag varint                 list   = count:varint  items
//! ```

mod auth;
mod charter;

use bytes::{Buf, Bytes};

use super::varint::{VarintError, put_varint, take_varint};
use super::{
    Alarm, AlarmAction, AlarmKind, Command, CommandVersion, Compare, CompareResult, CompareTarget,
    DeleteRange, Envelope, KeyRange, LeaseChange, LeaseCommand, LeaseInstance, MemberAttributes,
    MemberCommand, Op, Put, Range, RangeEnd, Sort, SortOrder, SortTarget, Txn,
};
use crate::ids::{LeaseId, LogIndex, MemberId, ProposalId, PublicKey, Term};
use crate::limits::{LEASE_TTL_MAX, TXN_DEPTH_MAX};

/// In the place of a command's tag: who asks for it, and then the command's.
const CALLER: u8 = 25;

/// Bytes that are no log entry of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Written by another version of covey.
    #[error("log entry is of version {found}; this build reads those up to version {understood}")]
    UnsupportedVersion {
        /// The version byte found.
        found: u8,
        /// The newest that is read.
        understood: u8,
    },
    /// The bytes end inside a field.
    #[error("log entry is cut short")]
    Truncated,
    /// Bytes follow the last field.
    #[error("log entry has {0} bytes after its end")]
    TrailingBytes(usize),
    /// A tag that this version does not define.
    #[error("log entry has an undefined {what} {value}")]
    Undefined {
        /// Which field.
        what: &'static str,
        /// What it holds.
        value: u64,
    },
    /// A number of more than 64 bits.
    #[error("log entry has a number of more than 64 bits")]
    NumberTooLarge,
    /// Text that is not UTF-8.
    #[error("log entry has text that is not UTF-8")]
    NotText,
    /// Transactions nested deeper than any request may.
    #[error("log entry nests transactions deeper than {TXN_DEPTH_MAX}")]
    TooDeep,
}

/// The bytes of `envelope` for the log of a cluster that uses commands of this version; nothing where one of its members may not understand them. All that is proposed
/// is made here.
pub fn encode_for(envelope: &Envelope, uses: impl FnOnce() -> CommandVersion) -> Option<Bytes> {
    let version = envelope.command.version();
    // What was always there needs no look, and that is nearly all.
    (version == CommandVersion::FIRST || version <= uses()).then(|| encode(envelope))
}

/// The bytes of `envelope`.
pub fn encode(envelope: &Envelope) -> Bytes {
    let mut out = Writer(Vec::with_capacity(64));
    out.0.push(envelope.command.version().0);
    out.0.extend_from_slice(&envelope.id.boot.to_le_bytes());
    out.varint(envelope.id.seq);
    if let Some(caller) = &envelope.caller {
        out.0.push(CALLER);
        out.caller(caller);
    }
    match &envelope.command {
        Command::Put(put) => {
            out.0.push(1);
            out.put(put);
        }
        Command::DeleteRange(delete) => {
            out.0.push(2);
            out.delete(delete);
        }
        Command::Txn(txn) => {
            out.0.push(3);
            out.txn(txn);
        }
        Command::Compact { revision } => {
            out.0.push(4);
            out.signed(*revision);
        }
        Command::Alarm { action, alarm } => {
            out.0.push(5);
            out.0.push(match action {
                AlarmAction::Activate => 1,
                AlarmAction::Deactivate => 2,
                AlarmAction::QuotaReached => 3,
                AlarmAction::QuotaRelieved => 4,
            });
            out.varint(alarm.member.0);
            out.0.push(match alarm.kind {
                AlarmKind::NoSpace => 1,
                AlarmKind::Corrupt => 2,
            });
        }
        Command::Publish(member) => {
            match member.understands {
                CommandVersion::FIRST => out.0.push(6),
                CommandVersion(newer) => out.0.extend_from_slice(&[27, newer]),
            }
            out.member(member);
        }
        Command::Raise(to) => out.0.extend_from_slice(&[28, to.0]),
        Command::Lease(command) => out.lease(command),
        Command::Member(command) => out.members(command),
        Command::Charter(command) => {
            out.0.push(16);
            out.charter(command);
        }
        Command::Auth(command) => {
            out.0.push(26);
            out.auth(command);
        }
    }
    Bytes::from(out.0)
}

/// Reads what [`encode`] wrote. Keys and values share `bytes`.
pub fn decode(bytes: Bytes) -> Result<Envelope, CodecError> {
    let mut input = Reader(bytes);
    let (version, understood) = (CommandVersion(input.byte()?), CommandVersion::understood());
    if !(CommandVersion::FIRST..=understood).contains(&version) {
        return Err(CodecError::UnsupportedVersion { found: version.0, understood: understood.0 });
    }
    let id = ProposalId { boot: input.fixed_u64()?, seq: input.varint()? };
    let (caller, tag) = match input.byte()? {
        CALLER => (Some(input.caller()?), input.byte()?),
        tag => (None, tag),
    };
    let command = match tag {
        1 => Command::Put(input.put()?),
        2 => Command::DeleteRange(input.delete()?),
        3 => Command::Txn(input.txn(0)?),
        4 => Command::Compact { revision: input.signed()? },
        5 => input.alarm()?,
        6 => Command::Publish(input.member(CommandVersion::FIRST)?),
        27 => {
            let understands = input.newer()?;
            Command::Publish(input.member(understands)?)
        }
        28 => Command::Raise(input.newer()?),
        tag @ 7..=10 => Command::Lease(input.lease(tag)?),
        tag @ (11..=15 | 24) => Command::Member(input.members(tag)?),
        16 => Command::Charter(input.charter()?),
        26 => Command::Auth(input.auth()?),
        tag => return Err(undefined("command", tag)),
    };
    if command.version() != version {
        return Err(undefined("version of a command", version.0));
    }
    match input.0.len() {
        0 => Ok(Envelope { id, caller, command }),
        rest => Err(CodecError::TrailingBytes(rest)),
    }
}

fn undefined(what: &'static str, value: u8) -> CodecError {
    CodecError::Undefined { what, value: u64::from(value) }
}

struct Writer(Vec<u8>);

impl Writer {
    fn varint(&mut self, value: u64) {
        put_varint(&mut self.0, value);
    }

    fn signed(&mut self, value: i64) {
        self.varint(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.0.reserve(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn range(&mut self, range: &KeyRange) {
        self.bytes(&range.start);
        match &range.end {
            RangeEnd::Single => self.0.push(0),
            RangeEnd::Unbounded => self.0.push(1),
            RangeEnd::Before(end) => {
                self.0.push(2);
                self.bytes(end);
            }
        }
    }

    fn put(&mut self, put: &Put) {
        let keep_lease = put.lease == LeaseChange::Keep;
        self.0.push(u8::from(put.prev_kv) | u8::from(put.value.is_none()) << 1 | u8::from(keep_lease) << 2);
        self.bytes(&put.key);
        if let Some(value) = &put.value {
            self.bytes(value);
        }
        if let LeaseChange::Set(lease) = put.lease {
            self.signed(lease.0);
        }
    }

    fn delete(&mut self, delete: &DeleteRange) {
        self.0.push(u8::from(delete.prev_kv));
        self.range(&delete.range);
    }

    fn read(&mut self, read: &Range) {
        self.range(&read.range);
        self.0.push(u8::from(read.keys_only) | u8::from(read.count_only) << 1);
        self.0.push(read.sort.target as u8);
        self.0.push(read.sort.order as u8);
        for number in [
            read.limit,
            read.revision,
            read.min_mod_revision,
            read.max_mod_revision,
            read.min_create_revision,
            read.max_create_revision,
        ] {
            self.signed(number);
        }
    }

    fn compare(&mut self, compare: &Compare) {
        self.range(&compare.range);
        self.0.push(compare.result as u8);
        let (tag, number) = match &compare.target {
            CompareTarget::Version(number) => (0, *number),
            CompareTarget::Create(number) => (1, *number),
            CompareTarget::Mod(number) => (2, *number),
            CompareTarget::Lease(number) => (4, *number),
            CompareTarget::Value(value) => {
                self.0.push(3);
                return self.bytes(value);
            }
            CompareTarget::Unknown => return self.0.push(255),
        };
        self.0.push(tag);
        self.signed(number);
    }

    fn ops(&mut self, ops: &[Op]) {
        self.varint(ops.len() as u64);
        for op in ops {
            match op {
                Op::Range(read) => {
                    self.0.push(1);
                    self.read(read);
                }
                Op::Put(put) => {
                    self.0.push(2);
                    self.put(put);
                }
                Op::DeleteRange(delete) => {
                    self.0.push(3);
                    self.delete(delete);
                }
                Op::Txn(txn) => {
                    self.0.push(4);
                    self.txn(txn);
                }
            }
        }
    }

    fn txn(&mut self, txn: &Txn) {
        self.varint(txn.compare.len() as u64);
        for compare in &txn.compare {
            self.compare(compare);
        }
        self.ops(&txn.success);
        self.ops(&txn.failure);
    }

    fn lease(&mut self, command: &LeaseCommand) {
        match command {
            LeaseCommand::Grant { id, ttl } => {
                self.0.push(7);
                self.signed(id.0);
                self.signed(*ttl);
            }
            LeaseCommand::Revoke { id } => {
                self.0.push(8);
                self.signed(id.0);
            }
            LeaseCommand::Expire { term, leases } => {
                self.0.push(9);
                self.varint(term.0);
                self.varint(leases.len() as u64);
                for lease in leases {
                    self.lease_instance(*lease);
                }
            }
            LeaseCommand::Checkpoint { term, sequence, leases } => {
                self.0.push(10);
                self.varint(term.0);
                self.varint(*sequence);
                self.varint(leases.len() as u64);
                for (lease, remaining) in leases {
                    self.lease_instance(*lease);
                    self.signed(*remaining);
                }
            }
        }
    }

    fn lease_instance(&mut self, lease: LeaseInstance) {
        self.signed(lease.id.0);
        self.varint(lease.granted_at.0);
    }

    fn members(&mut self, command: &MemberCommand) {
        match command {
            MemberCommand::Add { peer_urls, votes, strict, learners_max } => {
                self.0.extend_from_slice(&[11, u8::from(*votes), u8::from(*strict)]);
                self.varint(*learners_max);
                self.texts(peer_urls);
            }
            MemberCommand::Bind { id, key } => {
                self.0.push(12);
                self.varint(id.0);
                self.0.extend_from_slice(&key.0);
            }
            MemberCommand::Promote { id, strict } => {
                self.0.extend_from_slice(&[13, u8::from(*strict)]);
                self.varint(id.0);
            }
            MemberCommand::Remove { id, strict } => {
                self.0.extend_from_slice(&[14, u8::from(*strict)]);
                self.varint(id.0);
            }
            MemberCommand::Update { id, peer_urls } => {
                self.0.push(15);
                self.varint(id.0);
                self.texts(peer_urls);
            }
            MemberCommand::Revote { promote, demote } => {
                self.0.push(24);
                self.ids(promote);
                self.ids(demote);
            }
        }
    }

    fn ids(&mut self, ids: &[MemberId]) {
        self.varint(ids.len() as u64);
        for id in ids {
            self.varint(id.0);
        }
    }

    fn texts(&mut self, texts: &[String]) {
        self.varint(texts.len() as u64);
        for text in texts {
            self.bytes(text.as_bytes());
        }
    }

    fn member(&mut self, member: &MemberAttributes) {
        self.varint(member.member.0);
        self.bytes(member.name.as_bytes());
        self.texts(&member.peer_urls);
        self.texts(&member.client_urls);
        self.varint(member.incarnation);
        self.0.extend_from_slice(&member.boot_nonce.to_le_bytes());
    }
}

struct Reader(Bytes);

impl Reader {
    fn byte(&mut self) -> Result<u8, CodecError> {
        self.0.try_get_u8().map_err(|_| CodecError::Truncated)
    }

    fn fixed_u64(&mut self) -> Result<u64, CodecError> {
        self.0.try_get_u64_le().map_err(|_| CodecError::Truncated)
    }

    fn varint(&mut self) -> Result<u64, CodecError> {
        take_varint(|| self.0.try_get_u8().ok()).map_err(|error| match error {
            VarintError::Truncated => CodecError::Truncated,
            VarintError::TooLarge => CodecError::NumberTooLarge,
        })
    }

    fn signed(&mut self) -> Result<i64, CodecError> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    fn bytes(&mut self) -> Result<Bytes, CodecError> {
        let length = usize::try_from(self.varint()?).map_err(|_| CodecError::Truncated)?;
        if length > self.0.len() {
            return Err(CodecError::Truncated);
        }
        Ok(self.0.split_to(length))
    }

    fn text(&mut self) -> Result<String, CodecError> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| CodecError::NotText)
    }

    /// A list's length; every item takes at least a byte, so a length beyond the rest is a lie and allocates nothing.
    fn count(&mut self) -> Result<usize, CodecError> {
        let count = usize::try_from(self.varint()?).map_err(|_| CodecError::Truncated)?;
        if count > self.0.len() { Err(CodecError::Truncated) } else { Ok(count) }
    }

    fn range(&mut self) -> Result<KeyRange, CodecError> {
        let start = self.bytes()?;
        let end = match self.byte()? {
            0 => RangeEnd::Single,
            1 => RangeEnd::Unbounded,
            2 => RangeEnd::Before(self.bytes()?),
            tag => return Err(undefined("interval end", tag)),
        };
        Ok(KeyRange { start, end })
    }

    fn flags(&mut self, defined: u8) -> Result<u8, CodecError> {
        let flags = self.byte()?;
        if flags & !defined != 0 { Err(undefined("flag", flags)) } else { Ok(flags) }
    }

    fn put(&mut self) -> Result<Put, CodecError> {
        let flags = self.flags(0b111)?;
        let key = self.bytes()?;
        let value = if flags & 0b010 == 0 { Some(self.bytes()?) } else { None };
        let lease =
            if flags & 0b100 == 0 { LeaseChange::Set(LeaseId(self.signed()?)) } else { LeaseChange::Keep };
        Ok(Put { key, value, lease, prev_kv: flags & 0b001 != 0 })
    }

    fn delete(&mut self) -> Result<DeleteRange, CodecError> {
        let flags = self.flags(0b1)?;
        Ok(DeleteRange { range: self.range()?, prev_kv: flags != 0 })
    }

    fn read(&mut self) -> Result<Range, CodecError> {
        let range = self.range()?;
        let flags = self.flags(0b11)?;
        let target = match self.byte()? {
            0 => SortTarget::Key,
            1 => SortTarget::Version,
            2 => SortTarget::Create,
            3 => SortTarget::Mod,
            4 => SortTarget::Value,
            tag => return Err(undefined("sort target", tag)),
        };
        let order = match self.byte()? {
            0 => SortOrder::None,
            1 => SortOrder::Ascend,
            2 => SortOrder::Descend,
            tag => return Err(undefined("sort order", tag)),
        };
        Ok(Range {
            range,
            sort: Sort { target, order },
            keys_only: flags & 0b01 != 0,
            count_only: flags & 0b10 != 0,
            limit: self.signed()?,
            revision: self.signed()?,
            min_mod_revision: self.signed()?,
            max_mod_revision: self.signed()?,
            min_create_revision: self.signed()?,
            max_create_revision: self.signed()?,
        })
    }

    fn compare(&mut self) -> Result<Compare, CodecError> {
        let range = self.range()?;
        let result = match self.byte()? {
            0 => CompareResult::Equal,
            1 => CompareResult::Greater,
            2 => CompareResult::Less,
            3 => CompareResult::NotEqual,
            255 => CompareResult::Unknown,
            tag => return Err(undefined("compare result", tag)),
        };
        let target = match self.byte()? {
            0 => CompareTarget::Version(self.signed()?),
            1 => CompareTarget::Create(self.signed()?),
            2 => CompareTarget::Mod(self.signed()?),
            3 => CompareTarget::Value(self.bytes()?),
            4 => CompareTarget::Lease(self.signed()?),
            255 => CompareTarget::Unknown,
            tag => return Err(undefined("compare target", tag)),
        };
        Ok(Compare { range, result, target })
    }

    fn ops(&mut self, depth: usize) -> Result<Vec<Op>, CodecError> {
        let count = self.count()?;
        let mut ops = Vec::new();
        for _ in 0..count {
            ops.push(match self.byte()? {
                1 => Op::Range(self.read()?),
                2 => Op::Put(self.put()?),
                3 => Op::DeleteRange(self.delete()?),
                4 => Op::Txn(self.txn(depth + 1)?),
                tag => return Err(undefined("operation", tag)),
            });
        }
        Ok(ops)
    }

    fn txn(&mut self, depth: usize) -> Result<Txn, CodecError> {
        if depth > TXN_DEPTH_MAX {
            return Err(CodecError::TooDeep);
        }
        let compares = self.count()?;
        let mut compare = Vec::new();
        for _ in 0..compares {
            compare.push(self.compare()?);
        }
        Ok(Txn { compare, success: self.ops(depth)?, failure: self.ops(depth)? })
    }

    fn alarm(&mut self) -> Result<Command, CodecError> {
        let action = match self.byte()? {
            1 => AlarmAction::Activate,
            2 => AlarmAction::Deactivate,
            3 => AlarmAction::QuotaReached,
            4 => AlarmAction::QuotaRelieved,
            tag => return Err(undefined("alarm action", tag)),
        };
        let member = MemberId(self.varint()?);
        let kind = match self.byte()? {
            1 => AlarmKind::NoSpace,
            2 => AlarmKind::Corrupt,
            tag => return Err(undefined("alarm", tag)),
        };
        Ok(Command::Alarm { action, alarm: Alarm { member, kind } })
    }

    fn lease(&mut self, tag: u8) -> Result<LeaseCommand, CodecError> {
        Ok(match tag {
            7 => {
                let (id, ttl) = (LeaseId(self.signed()?), self.signed()?);
                if id == LeaseId::NONE || !(1..=LEASE_TTL_MAX).contains(&ttl) {
                    return Err(CodecError::Undefined { what: "time to live", value: ttl.cast_unsigned() });
                }
                LeaseCommand::Grant { id, ttl }
            }
            8 => LeaseCommand::Revoke { id: LeaseId(self.signed()?) },
            9 => {
                let (term, count) = (Term(self.varint()?), self.count()?);
                let mut leases = Vec::new();
                for _ in 0..count {
                    leases.push(self.lease_instance()?);
                }
                LeaseCommand::Expire { term, leases }
            }
            10 => {
                let (term, sequence) = (Term(self.varint()?), self.varint()?);
                let count = self.count()?;
                let mut leases = Vec::new();
                for _ in 0..count {
                    let (lease, remaining) = (self.lease_instance()?, self.signed()?);
                    if !(0..=LEASE_TTL_MAX).contains(&remaining) {
                        return Err(CodecError::Undefined {
                            what: "remaining time",
                            value: remaining.cast_unsigned(),
                        });
                    }
                    leases.push((lease, remaining));
                }
                LeaseCommand::Checkpoint { term, sequence, leases }
            }
            tag => return Err(undefined("command", tag)),
        })
    }

    fn lease_instance(&mut self) -> Result<LeaseInstance, CodecError> {
        Ok(LeaseInstance { id: LeaseId(self.signed()?), granted_at: LogIndex(self.varint()?) })
    }

    fn flag(&mut self) -> Result<bool, CodecError> {
        Ok(self.flags(1)? == 1)
    }

    fn members(&mut self, tag: u8) -> Result<MemberCommand, CodecError> {
        Ok(match tag {
            11 => {
                let (votes, strict, learners_max) = (self.flag()?, self.flag()?, self.varint()?);
                MemberCommand::Add { votes, strict, learners_max, peer_urls: self.texts()? }
            }
            12 => MemberCommand::Bind { id: MemberId(self.varint()?), key: self.key()? },
            13 => {
                let strict = self.flag()?;
                MemberCommand::Promote { id: MemberId(self.varint()?), strict }
            }
            14 => {
                let strict = self.flag()?;
                MemberCommand::Remove { id: MemberId(self.varint()?), strict }
            }
            15 => MemberCommand::Update { id: MemberId(self.varint()?), peer_urls: self.texts()? },
            _ => MemberCommand::Revote { promote: self.ids()?, demote: self.ids()? },
        })
    }

    fn key(&mut self) -> Result<PublicKey, CodecError> {
        Ok(PublicKey(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let array = *self.0.first_chunk().ok_or(CodecError::Truncated)?;
        self.0.advance(N);
        Ok(array)
    }

    fn ids(&mut self) -> Result<Vec<MemberId>, CodecError> {
        let count = self.count()?;
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(MemberId(self.varint()?));
        }
        Ok(ids)
    }

    fn texts(&mut self) -> Result<Vec<String>, CodecError> {
        let count = self.count()?;
        let mut texts = Vec::new();
        for _ in 0..count {
            texts.push(self.text()?);
        }
        Ok(texts)
    }

    /// A version beyond the first one.
    fn newer(&mut self) -> Result<CommandVersion, CodecError> {
        match self.byte()? {
            version @ ..2 => Err(undefined("version", version)),
            version => Ok(CommandVersion(version)),
        }
    }

    fn member(&mut self, understands: CommandVersion) -> Result<MemberAttributes, CodecError> {
        Ok(MemberAttributes {
            member: MemberId(self.varint()?),
            name: self.text()?,
            peer_urls: self.texts()?,
            client_urls: self.texts()?,
            incarnation: self.varint()?,
            boot_nonce: self.fixed_u64()?,
            understands,
        })
    }
}

#[cfg(test)]
#[path = "codec_test.rs"]
mod tests;
