//! The payload of a batch: encoding and decoding.
//!
//! Owns: the layout inside a batch. Must never: trust a length that it reads, or know sectors. Driven by `log` (encode) and
//! `recovery` (decode).

use bytes::{Buf, Bytes};

use super::entry::{EntryKind, HardState, LogEntry, Position};
use super::error::Damage;
use super::sector::{COUNTER_MAX, Packer};
use crate::ids::{LogIndex, MemberId, Term};

/// Bytes before everything else: length, chain, entries, flags, index of the first entry.
pub(super) const PREFIX_BYTES: usize = 4 + 4 + 4 + 1 + 8;
const HARD_STATE_BYTES: usize = 3 * 8;
const HEAD_BYTES: usize = 3 * 8;
const ENTRY_BYTES: usize = 8 + 4 + 1;

const HAS_HARD_STATE: u8 = 1;
const HAS_HEAD: u8 = 2;
const RESETS: u8 = 4;

/// Where a batch stands in the log: what makes it readable without the batches before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The first generation that still counts.
    pub(super) floor: u64,
    /// The log up to here stays, the batch's entries follow it.
    pub(super) start: Position,
    /// The log begins anew after `start`, whatever was before.
    pub(super) reset: bool,
}

/// What a batch is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content<'a> {
    pub(super) hard_state: Option<HardState>,
    pub(super) head: Option<Head>,
    pub(super) entries: &'a [LogEntry],
}

/// What was read from a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    /// The chain value of the batch before.
    pub(super) previous: u32,
    pub(super) hard_state: Option<HardState>,
    pub(super) head: Option<Head>,
    pub(super) entries: Vec<LogEntry>,
}

impl Content<'_> {
    pub(super) fn payload_bytes(&self) -> usize {
        PREFIX_BYTES
            + self.hard_state.map_or(0, |_| HARD_STATE_BYTES)
            + self.head.map_or(0, |_| HEAD_BYTES)
            + self.entries.iter().map(|entry| ENTRY_BYTES + entry.data.len()).sum::<usize>()
    }

    /// Packs the payload; sealing is the caller's.
    pub(super) fn pack(&self, previous: u32, packer: &mut Packer) {
        let length = self.payload_bytes();
        packer.start(length);
        packer.put(&u32_of(length).to_le_bytes());
        packer.put(&previous.to_le_bytes());
        packer.put(&u32_of(self.entries.len()).to_le_bytes());
        let mut flags = 0;
        flags |= if self.hard_state.is_some() { HAS_HARD_STATE } else { 0 };
        flags |= if self.head.is_some() { HAS_HEAD } else { 0 };
        flags |= if self.head.is_some_and(|head| head.reset) { RESETS } else { 0 };
        packer.put(&[flags]);
        packer.put(&self.entries.first().map_or(0, |entry| entry.index.0).to_le_bytes());
        if let Some(HardState { term, vote, commit }) = self.hard_state {
            packer.put(&term.0.to_le_bytes());
            packer.put(&vote.map_or(0, |member| member.0).to_le_bytes());
            packer.put(&commit.0.to_le_bytes());
        }
        if let Some(Head { floor, start, .. }) = self.head {
            packer.put(&floor.to_le_bytes());
            packer.put(&start.index.0.to_le_bytes());
            packer.put(&start.term.0.to_le_bytes());
        }
        for entry in self.entries {
            packer.put(&entry.term.0.to_le_bytes());
            packer.put(&u32_of(entry.data.len()).to_le_bytes());
            packer.put(&[entry.kind as u8]);
            packer.put(&entry.data);
        }
    }
}

/// The length of the payload, from its first bytes.
pub(super) fn payload_length(mut first_sector: &[u8]) -> usize {
    first_sector.try_get_u32_le().map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX))
}

/// Reads a payload whose checksums hold.
pub(super) fn decode(payload: Bytes) -> Result<Decoded, Damage> {
    parse(payload).map_err(|_| Damage::Layout)
}

/// The payload ends early or says what nothing of ours writes.
struct Malformed;

impl From<bytes::TryGetError> for Malformed {
    fn from(_: bytes::TryGetError) -> Self {
        Self
    }
}

fn parse(mut payload: Bytes) -> Result<Decoded, Malformed> {
    let whole = payload.len();
    if usize::try_from(payload.try_get_u32_le()?) != Ok(whole) {
        return Err(Malformed);
    }
    let previous = payload.try_get_u32_le()?;
    let count = payload.try_get_u32_le()?;
    let flags = payload.try_get_u8()?;
    let first = index(payload.try_get_u64_le()?)?;
    let resets = flags & RESETS != 0;
    if flags & !(HAS_HARD_STATE | HAS_HEAD | RESETS) != 0 || (resets && flags & HAS_HEAD == 0) {
        return Err(Malformed);
    }
    let mut hard_state = None;
    if flags & HAS_HARD_STATE != 0 {
        let term = Term(payload.try_get_u64_le()?);
        let vote = Some(MemberId(payload.try_get_u64_le()?)).filter(|member| member.0 != 0);
        hard_state = Some(HardState { term, vote, commit: index(payload.try_get_u64_le()?)? });
    }
    let mut head = None;
    if flags & HAS_HEAD != 0 {
        let floor = payload.try_get_u64_le()?;
        let start =
            Position { index: index(payload.try_get_u64_le()?)?, term: Term(payload.try_get_u64_le()?) };
        head = Some(Head { floor, start, reset: resets });
    }
    let possible = payload.len() / ENTRY_BYTES;
    let mut entries =
        Vec::with_capacity(usize::try_from(count).map_or(possible, |count| count.min(possible)));
    for offset in 0..u64::from(count) {
        entries.push(parse_entry(LogIndex(first.0 + offset), &mut payload)?);
    }
    if payload.has_remaining() || (count > 0 && first.0 == 0) {
        return Err(Malformed);
    }
    Ok(Decoded { previous, hard_state, head, entries })
}

fn parse_entry(index: LogIndex, payload: &mut Bytes) -> Result<LogEntry, Malformed> {
    let term = Term(payload.try_get_u64_le()?);
    let length = usize::try_from(payload.try_get_u32_le()?).map_err(|_| Malformed)?;
    let kind = match payload.try_get_u8()? {
        0 => EntryKind::Normal,
        1 => EntryKind::ConfChange,
        2 => EntryKind::ConfChangeV2,
        _ => return Err(Malformed),
    };
    if length > payload.len() {
        return Err(Malformed);
    }
    Ok(LogEntry { index, term, kind, data: payload.split_to(length) })
}

fn index(value: u64) -> Result<LogIndex, Malformed> {
    if value <= COUNTER_MAX { Ok(LogIndex(value)) } else { Err(Malformed) }
}

fn u32_of(length: usize) -> u32 {
    let converted = u32::try_from(length);
    assert!(converted.is_ok(), "limits keep a batch below 4 GiB");
    converted.unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
    use proptest::{collection, option};

    use super::{Content, Head, PREFIX_BYTES, decode, payload_length};
    use crate::ids::{LogIndex, MemberId, Term};
    use crate::wal::sector::{PAYLOAD, Packer, SECTOR};
    use crate::wal::{EntryKind, HardState, LogEntry, Position};

    fn payload(content: &Content<'_>, previous: u32) -> Bytes {
        let mut packer = Packer::default();
        content.pack(previous, &mut packer);
        let mut bytes: Vec<u8> =
            packer.bytes().chunks(SECTOR).flat_map(|sector| &sector[..PAYLOAD]).copied().collect();
        assert_eq!(payload_length(&bytes), content.payload_bytes());
        bytes.truncate(content.payload_bytes());
        bytes.into()
    }

    fn entries() -> impl Strategy<Value = Vec<LogEntry>> {
        let kind =
            prop_oneof![Just(EntryKind::Normal), Just(EntryKind::ConfChange), Just(EntryKind::ConfChangeV2)];
        let entry = (any::<u64>(), kind, collection::vec(any::<u8>(), 0..700));
        (1..1000u64, collection::vec(entry, 0..5)).prop_map(|(first, parts)| {
            let entries = (first..).map(LogIndex).zip(parts);
            entries
                .map(|(index, (term, kind, data))| LogEntry {
                    index,
                    term: Term(term),
                    kind,
                    data: data.into(),
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn what_is_packed_is_decoded(
            entries in entries(),
            hard_state in option::of((any::<u64>(), any::<u64>(), 0..=u64::MAX / 2)),
            head in option::of((any::<u64>(), 0..=u64::MAX / 2, any::<u64>(), any::<bool>())),
            previous in any::<u32>(),
        ) {
            let hard_state = hard_state.map(|(term, vote, commit)| HardState {
                term: Term(term),
                vote: Some(MemberId(vote)).filter(|member| member.0 != 0),
                commit: LogIndex(commit),
            });
            let head = head.map(|(floor, index, term, reset)| Head {
                floor,
                start: Position { index: LogIndex(index), term: Term(term) },
                reset,
            });
            let content = Content { hard_state, head, entries: &entries };
            let bytes = payload(&content, previous);
            let decoded = decode(bytes.clone()).unwrap();
            assert_eq!((decoded.previous, decoded.hard_state, decoded.head), (previous, hard_state, head));
            assert_eq!(decoded.entries, entries);
            for cut in [0, PREFIX_BYTES - 1, bytes.len() - 1] {
                assert!(decode(bytes.slice(..cut)).is_err());
            }
        }

        #[test]
        fn any_bytes_decode_or_are_refused(mut bytes in collection::vec(any::<u8>(), 0..200), honest in any::<bool>()) {
            if honest && bytes.len() > PREFIX_BYTES {
                let length = u32::try_from(bytes.len()).unwrap();
                bytes[..4].copy_from_slice(&length.to_le_bytes());
                bytes[9..12].fill(0);
                bytes[12] &= 7;
                bytes[20] = 0;
            }
            let _ = decode(bytes.into());
        }
    }
}
