//! The identity record on disk: two copies, so that one may be damaged.
//!
//! Owns: the bytes of the record and the order in which copies are written. Must never: take damage for absence: a node that
//! forgot who it is and starts afresh would vote twice. Driven by `app` at start, before the first packet.
//!
//! ```text
//! file     "covey-id"  version:u16  length:u32  payload  crc32c:u32 (over all before it)        little endian
//! payload  stage:u8 (1 founding, 2 established, 3 restoring, 4 fresh, 5 forming, 6 fenced, 7 recovering, 8 leaving)  member:u64  generation:u64
//!          incarnation:u64  boot nonce:u64  root key:32  length:u16  node key (PKCS #8)
//!          promise:u8 (0 none, 1 given)  if given: candidate's public key:32  round:u64
//!          winner:u8 (0 none, 1 known)  if known: cluster:u64
//!          shown:u8 (0 no, 1 yes)
//!          earlier runs, count:u16, each: incarnation:u64  boot nonce:u64
//! ```
//!
//! The copies are made under another name and renamed, so that a copy that exists was complete once. Later changes are
//! written in place, first to one copy, then, after its sync, to the other: a crash tears one at most. The frame is the same in all versions:
//! a whole record of a later version is recognised as such, not taken for damage.
//!
//! Two copies that differ in the promise alone are left by a crash while it was noted, and either may count: the new one was not answered
//! yet, and the old one is no longer needed or still holds. So it is with two that differ in whether the run was shown: nobody was shown it yet.

use std::io;

use super::identity::{ClusterRoot, Generation, Identity, NodeKey, PUBLIC_KEY_BYTES, Promise, Stage};
use crate::disk::{Directory, File};
use crate::ids::{ClusterId, Incarnation, MemberId, PublicKey, Run};

const COPIES: [&str; 2] = ["identity.0", "identity.1"];
/// A copy that is being made. Nothing counts before it has its name.
pub const TEMPORARY: &str = "identity.tmp";
/// All that the record may have left in a directory.
pub const IDENTITY_NAMES: [&str; 3] = [COPIES[0], COPIES[1], TEMPORARY];
const MAGIC: &[u8; 8] = b"covey-id";
const VERSION: u16 = 5;
/// Bytes before the payload.
const FRAME_HEAD_BYTES: usize = MAGIC.len() + 2 + 4;
/// No record is longer; a damaged length asks for no memory.
const PAYLOAD_BYTES_MAX: usize = 4096;
/// Earlier runs that are remembered.
const EARLIER_MAX: usize = 128;
const RUN_BYTES: usize = 16;

/// Why there is no identity to go on with.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Both copies, or the only one, are damaged. Restore one from a backup, or remove the node from the cluster and let it join
    /// afresh with an empty data directory.
    #[error(
        "the identity record is damaged in all its copies (identity.0, identity.1); this node cannot know who it is"
    )]
    Damaged,
    /// A whole copy, but of a later version of covey.
    #[error("the identity record has format version {found}; this build reads version {VERSION}")]
    UnknownVersion {
        /// The version found.
        found: u16,
    },
    /// Two whole copies of different nodes.
    #[error("identity.0 and identity.1 belong to different members: files of two nodes were mixed")]
    Contradiction,
    /// There is a record where a new one was to be made.
    #[error("there is an identity record already")]
    Exists,
    /// There is no record where one is to be changed.
    #[error("there is no identity record")]
    Missing,
    /// The directory failed.
    #[error("cannot {action} the identity record: {cause}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        cause: io::Error,
    },
}

/// The record of a directory; `None` in a fresh one.
pub fn load<D: Directory>(directory: &D) -> Result<Option<Identity>, RecordError> {
    Ok(read_copies(directory)?.newest)
}

/// Makes the record of a node that has none.
pub fn create<D: Directory>(directory: &D, identity: &Identity) -> Result<(), RecordError> {
    if read_copies(directory)?.newest.is_some() {
        return Err(RecordError::Exists);
    }
    for name in COPIES {
        make_copy(directory, name, &encode(identity))?;
    }
    Ok(())
}

/// Begins a run: the next incarnation with a fresh nonce, on disk when this returns. `None` in a fresh directory. A run before it that nobody was shown
/// is not remembered, so that starts which come to nothing, however many, take no room from those that others go by.
pub fn start<D: Directory>(directory: &D, boot_nonce: u64) -> Result<Option<Identity>, RecordError> {
    change(directory, |identity| {
        if identity.shown {
            // One of the oldest may be the last that was published, and one of the newest the last that was shown.
            if identity.earlier.len() >= EARLIER_MAX {
                identity.earlier.remove(EARLIER_MAX / 2);
            }
            identity.earlier.push(identity.run());
        }
        identity.shown = false;
        identity.incarnation = identity.incarnation.next();
        identity.boot_nonce = boot_nonce;
    })
}

/// Notes that the run has got so far that others may be shown it from now on.
pub fn note_shown<D: Directory>(directory: &D) -> Result<(), RecordError> {
    let changed = change(directory, |identity| identity.shown = true)?;
    changed.map(drop).ok_or(RecordError::Missing)
}

/// Notes which cluster a node begins that was in none. A promise stays until there is one: before that, the node may begin as if it were fresh.
pub fn take_up<D: Directory>(directory: &D, begun: &Identity) -> Result<(), RecordError> {
    let changed = change(directory, |identity| {
        (identity.member, identity.root, identity.generation) = (begun.member, begun.root, begun.generation);
        identity.stage = begun.stage;
    })?;
    changed.map(drop).ok_or(RecordError::Missing)
}

/// Notes whom a node that is in no cluster leaves the founding to.
pub fn note_promise<D: Directory>(directory: &D, promise: Option<Promise>) -> Result<(), RecordError> {
    let changed = change(directory, |identity| identity.promise = promise)?;
    changed.map(drop).ok_or(RecordError::Missing)
}

/// Forgets the runs before one that the cluster has noted: nobody goes by an earlier one any more.
pub fn forget_before<D: Directory>(directory: &D, noted: Run) -> Result<(), RecordError> {
    let changed = change(directory, |identity| {
        identity.earlier.retain(|run| run.incarnation >= noted.incarnation);
    })?;
    changed.map(drop).ok_or(RecordError::Missing)
}

/// Notes that the node is about to be the only member of a new generation, if that is not noted yet.
pub fn begin_recovery<D: Directory>(directory: &D) -> Result<(), RecordError> {
    let changed = change(directory, |identity| {
        if identity.stage != Stage::Recovering {
            identity.incarnation = identity.incarnation.next();
            identity.generation = Generation(identity.generation.0.saturating_add(1));
            identity.stage = Stage::Recovering;
        }
    })?;
    changed.map(drop).ok_or(RecordError::Missing)
}

/// Notes that it is. It counts as a start, so that of two copies the one that says so is the newer.
pub fn end_recovery<D: Directory>(directory: &D) -> Result<(), RecordError> {
    let changed = change(directory, |identity| {
        identity.incarnation = identity.incarnation.next();
        identity.stage = Stage::Established;
    })?;
    changed.map(drop).ok_or(RecordError::Missing)
}

/// Notes that the node's cluster has ended for it, and for which other one, if for any.
pub fn leave<D: Directory>(directory: &D, winner: Option<ClusterId>) -> Result<(), RecordError> {
    let changed = change(directory, |identity| {
        identity.stage = Stage::Leaving;
        identity.winner = winner;
    })?;
    changed.map(drop).ok_or(RecordError::Missing)
}

/// Notes that nothing of that cluster is left, and the node is in none. It counts as a start, so that of two copies the one that says so is the newer.
pub fn become_fresh<D: Directory>(directory: &D) -> Result<Identity, RecordError> {
    let changed = change(directory, |identity| {
        identity.incarnation = identity.incarnation.next();
        identity.stage = Stage::Fresh;
    })?;
    changed.ok_or(RecordError::Missing)
}

/// Notes that the directory is an old copy, which must never take part again.
pub fn fence<D: Directory>(directory: &D) -> Result<(), RecordError> {
    let changed = change(directory, |identity| identity.stage = Stage::Fenced)?;
    changed.map(drop).ok_or(RecordError::Missing)
}

/// Notes that store and log are on disk; see [`super::Founding`].
pub fn mark_established<D: Directory>(directory: &D) -> Result<Identity, RecordError> {
    let established = change(directory, |identity| {
        identity.stage = Stage::Established;
        (identity.promise, identity.winner) = (None, None);
    })?;
    established.ok_or(RecordError::Missing)
}

fn change<D: Directory>(
    directory: &D,
    edit: impl FnOnce(&mut Identity),
) -> Result<Option<Identity>, RecordError> {
    let copies = read_copies(directory)?;
    let Some(mut identity) = copies.newest else { return Ok(None) };
    edit(&mut identity);
    let bytes = encode(&identity);
    // The copy that is worth less goes first: if this write is torn, the other is still whole.
    for index in [1 - copies.best, copies.best] {
        let name = COPIES[index];
        if copies.exists[index] {
            overwrite_copy(directory, name, &bytes)?;
        } else {
            make_copy(directory, name, &bytes)?;
        }
    }
    Ok(Some(identity))
}

struct Copies {
    newest: Option<Identity>,
    /// Which copy `newest` is from.
    best: usize,
    exists: [bool; 2],
}

fn read_copies<D: Directory>(directory: &D) -> Result<Copies, RecordError> {
    let names = directory.list().map_err(io_error("find"))?;
    let exists = COPIES.map(|copy| names.iter().any(|name| name == copy));
    let mut found: [Option<Identity>; 2] = [None, None];
    for (index, name) in COPIES.into_iter().enumerate() {
        if exists[index] {
            found[index] = read_copy(directory, name)?;
        }
    }
    let best = match &found {
        [Some(one), Some(two)] if contradict(one, two) => return Err(RecordError::Contradiction),
        [Some(one), Some(two)] => usize::from(age(two) > age(one)),
        [None, None] if exists.contains(&true) => return Err(RecordError::Damaged),
        [None, Some(_)] => 1,
        [Some(_) | None, None] => 0,
    };
    let newest = found[best].take();
    Ok(Copies { newest, best, exists })
}

/// Whether two copies cannot be of one node. A node that has no cluster yet may find one, and another one after that: a crash in between leaves a
/// copy of each.
fn contradict(one: &Identity, two: &Identity) -> bool {
    let settled = |identity: &Identity| !matches!(identity.stage, Stage::Fresh | Stage::Forming);
    let differ = one.member != two.member || one.root != two.root;
    one.key.public() != two.key.public() || (differ && settled(one) && settled(two))
}

/// Which of two copies was written later.
fn age(identity: &Identity) -> (Incarnation, u8) {
    let progress = match identity.stage {
        Stage::Fresh => 0,
        Stage::Forming => 1,
        Stage::Founding | Stage::Restoring => 2,
        Stage::Established => 3,
        Stage::Fenced | Stage::Recovering | Stage::Leaving => 4,
    };
    (identity.incarnation, progress)
}

/// `None` for a copy that is not whole.
fn read_copy<D: Directory>(directory: &D, name: &str) -> Result<Option<Identity>, RecordError> {
    let file = directory.open(name).map_err(io_error("open"))?;
    let length = file.len().map_err(io_error("read"))?;
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(FRAME_HEAD_BYTES + PAYLOAD_BYTES_MAX + 4);
    let mut bytes = vec![0; length];
    file.read_at(0, &mut bytes).map_err(io_error("read"))?;
    let Some((version, payload)) = open_frame(&bytes) else { return Ok(None) };
    if version != VERSION {
        return Err(RecordError::UnknownVersion { found: version });
    }
    Ok(decode_payload(payload))
}

fn make_copy<D: Directory>(directory: &D, name: &str, bytes: &[u8]) -> Result<(), RecordError> {
    let names = directory.list().map_err(io_error("find"))?;
    if names.iter().any(|name| name == TEMPORARY) {
        directory.remove(TEMPORARY).map_err(io_error("replace"))?;
    }
    let file = directory.create(TEMPORARY).map_err(io_error("create"))?;
    file.write_at(0, bytes).map_err(io_error("write"))?;
    file.sync_data().map_err(io_error("sync"))?;
    directory.rename(TEMPORARY, name).map_err(io_error("rename"))?;
    // Without it the name may be gone after a crash, and with both names the identity.
    directory.sync().map_err(io_error("sync"))
}

/// What is longer than the new bytes stays behind them; the frame's length ends the record.
fn overwrite_copy<D: Directory>(directory: &D, name: &str, bytes: &[u8]) -> Result<(), RecordError> {
    let file = directory.open(name).map_err(io_error("open"))?;
    file.write_at(0, bytes).map_err(io_error("write"))?;
    // A crash before this loses the new incarnation in this copy; nothing has been shown to anybody yet.
    file.sync_data().map_err(io_error("sync"))
}

fn io_error(action: &'static str) -> impl FnOnce(io::Error) -> RecordError {
    move |cause| RecordError::Io { action, cause }
}

fn encode(identity: &Identity) -> Vec<u8> {
    let mut payload = Vec::with_capacity(192);
    payload.push(match identity.stage {
        Stage::Founding => 1,
        Stage::Established => 2,
        Stage::Restoring => 3,
        Stage::Fresh => 4,
        Stage::Forming => 5,
        Stage::Fenced => 6,
        Stage::Recovering => 7,
        Stage::Leaving => 8,
    });
    let numbers = [identity.member.0, identity.generation.0, identity.incarnation.0, identity.boot_nonce];
    for number in numbers {
        payload.extend_from_slice(&number.to_le_bytes());
    }
    payload.extend_from_slice(&identity.root.0);
    let key = identity.key.pkcs8();
    let key_length = u16::try_from(key.len()).unwrap_or(u16::MAX);
    assert!(usize::from(key_length) == key.len(), "a key is some eighty bytes");
    payload.extend_from_slice(&key_length.to_le_bytes());
    payload.extend_from_slice(key);
    payload.push(identity.promise.is_some().into());
    if let Some(Promise { candidate, round }) = identity.promise {
        payload.extend_from_slice(&candidate.0);
        payload.extend_from_slice(&round.to_le_bytes());
    }
    payload.push(identity.winner.is_some().into());
    payload.extend(identity.winner.iter().flat_map(|winner| winner.0.to_le_bytes()));
    payload.push(identity.shown.into());
    let count = u16::try_from(identity.earlier.len()).unwrap_or(u16::MAX);
    payload.extend_from_slice(&count.to_le_bytes());
    for run in identity.earlier.iter().take(count.into()) {
        payload.extend_from_slice(&run.incarnation.0.to_le_bytes());
        payload.extend_from_slice(&run.boot_nonce.to_le_bytes());
    }
    seal_frame(VERSION, &payload)
}

fn seal_frame(version: u16, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "the record is small");
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(FRAME_HEAD_BYTES + payload.len() + 4);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// Version and payload of a whole record, whatever follows it.
fn open_frame(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (version, rest) = rest.split_first_chunk::<2>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (payload, rest) = rest.split_at_checked(length)?;
    let crc = u32::from_le_bytes(*rest.first_chunk::<4>()?);
    let covered = bytes.get(..FRAME_HEAD_BYTES + length)?;
    (crc32c::crc32c(covered) == crc).then_some((u16::from_le_bytes(*version), payload))
}

/// `None` for what this version cannot have written.
fn decode_payload(payload: &[u8]) -> Option<Identity> {
    let (&stage, rest) = payload.split_first()?;
    let stage = match stage {
        1 => Stage::Founding,
        2 => Stage::Established,
        3 => Stage::Restoring,
        4 => Stage::Fresh,
        5 => Stage::Forming,
        6 => Stage::Fenced,
        7 => Stage::Recovering,
        8 => Stage::Leaving,
        _ => return None,
    };
    let (numbers, rest) = rest.split_first_chunk::<32>()?;
    let number = |at: usize| {
        let bytes = numbers[at * 8..].first_chunk::<8>();
        bytes.map(|bytes| u64::from_le_bytes(*bytes))
    };
    let (root, rest) = rest.split_first_chunk::<PUBLIC_KEY_BYTES>()?;
    let (key_length, rest) = rest.split_first_chunk::<2>()?;
    let (key, rest) = rest.split_at_checked(u16::from_le_bytes(*key_length).into())?;
    let (promise, rest) = decode_promise(rest)?;
    let (winner, rest) = decode_winner(rest)?;
    let (shown, rest) = rest.split_first()?;
    let shown = [false, true].into_iter().find(|value| u8::from(*value) == *shown)?;
    let earlier = decode_runs(rest)?;
    Some(Identity {
        stage,
        member: MemberId(number(0)?),
        generation: Generation(number(1)?),
        incarnation: Incarnation(number(2)?),
        boot_nonce: number(3)?,
        root: ClusterRoot(*root),
        key: NodeKey::from_pkcs8(key.to_vec()).ok()?,
        shown,
        earlier,
        promise,
        winner,
    })
}

fn decode_promise(bytes: &[u8]) -> Option<(Option<Promise>, &[u8])> {
    match bytes.split_first()? {
        (0, rest) => Some((None, rest)),
        (1, rest) => {
            let (candidate, rest) = rest.split_first_chunk::<PUBLIC_KEY_BYTES>()?;
            let (round, rest) = rest.split_first_chunk::<8>()?;
            let promise = Promise { candidate: PublicKey(*candidate), round: u64::from_le_bytes(*round) };
            Some((Some(promise), rest))
        }
        _ => None,
    }
}

fn decode_winner(bytes: &[u8]) -> Option<(Option<ClusterId>, &[u8])> {
    match bytes.split_first()? {
        (0, rest) => Some((None, rest)),
        (1, rest) => {
            let (cluster, rest) = rest.split_first_chunk::<8>()?;
            Some((Some(ClusterId(u64::from_le_bytes(*cluster))), rest))
        }
        _ => None,
    }
}

fn decode_runs(bytes: &[u8]) -> Option<Vec<Run>> {
    let (count, rest) = bytes.split_first_chunk::<2>()?;
    let (runs, []) = rest.as_chunks::<RUN_BYTES>() else { return None };
    if runs.len() != usize::from(u16::from_le_bytes(*count)) {
        return None;
    }
    let number = |bytes: &[u8]| bytes.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    let run = |bytes: &[u8; RUN_BYTES]| {
        Some(Run { incarnation: Incarnation(number(bytes)?), boot_nonce: number(&bytes[8..])? })
    };
    runs.iter().map(run).collect()
}

#[cfg(test)]
#[path = "record_test.rs"]
mod tests;
