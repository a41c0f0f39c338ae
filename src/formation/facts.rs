//! The store's facts, kept beside it: what a member goes on from whose store cannot even be opened.
//!
//! Owns: the two files, and which facts a log can be gone on from. Must never: offer facts that the log does not continue. Driven by `data_dir`
//! at a start, and by `node::Checkpointer` after each fold.
//!
//! ```text
//! facts.0 facts.1   version:u8 (1)  length:u32 LE  row, as the store has it (version and checksum are its own)  filled up to whole pages
//! ```
//!
//! The file that is worth less is overwritten in place and synced, so that a crash tears one at most, and the other has the facts of the
//! fold before. They are durable before the log may lose what the fold covers: of the newest that is whole, the log always has the position.
//! Who votes alone keeps none: there is nobody whose state could take the place of its own.
//!
//! # Why it is safe to go on from them
//!
//! The rows are lost, but nobody makes anything of them before another member's have come, just as where they are damaged ([`super::distrust`]). What
//! raft counts on is whole, and the lost store knew nothing of it that is not elsewhere:
//!
//! - What the member has promised and acknowledged (its term, its vote, the entries that it confirmed, what it knew to be committed) is in the log, and
//!   the log is whole, or the start is refused. Nothing of it goes back.
//! - Members and configuration are a function of the log up to the position. Where the log has the position, with its term, it is of the
//!   same history, and everything after it is in the log. So older facts are as sound as those of the last fold: raft begins where it would have begun
//!   after a crash before that fold. Facts whose position the log does not have count for nothing: they are from before an install, or another cluster's.
//! - It leads only if its log is the most complete of those that it needs, and after the position there is no hole in that. What is before it cannot
//!   send: a follower that lacks some of it confirms nothing, so nothing is committed with its help until another member brings it a
//!   state. Changes of the configuration that are committed and not applied keep the member from campaigning at all.
//! - The state that comes is not behind anything that it has confirmed ([`crate::consensus::Consensus::request_state`]).
//!
//! A member that goes on alone (`node::go_on_alone`) has another configuration at a position that its log has, so what is kept is dropped before.

use std::io;
use std::sync::Arc;

use crate::disk::{Directory, File};
use crate::ids::MemberId;
use crate::store::{Meta, decode_facts, encode_facts};
use crate::wal::{Position, Recovered};

pub(super) const NAMES: [&str; 2] = ["facts.0", "facts.1"];
const VERSION: u8 = 1;
/// A length seldom changes that is counted in these, and so the sync of a file seldom writes more than its bytes.
const PAGE: usize = 4096;
/// No facts are longer; a damaged file asks for no more memory.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Keeps the facts of a store, durably. Its member is this one.
pub fn keep_facts<D: Directory>(root: &D, member: MemberId, meta: &Meta) -> io::Result<()> {
    // Users and roles come with the other member's state: nobody is served before.
    let meta = &Meta { auth: Arc::default(), ..meta.clone() };
    let names = root.list()?;
    let exists = NAMES.map(|name| names.iter().any(|found| found == name));
    if !meta.conf_state.others_vote(member) && exists == [false; 2] {
        return Ok(());
    }
    let kept = read(root)?;
    // Whoever wrote them may have been killed before they were durable, and the log may lose their position after this.
    if let Some(index) = kept.iter().position(|kept| kept.as_ref() == Some(meta)) {
        root.open(NAMES[index])?.sync_data()?;
        return root.sync();
    }
    let [one, two] = kept.map(|kept| kept.map(|meta| meta.applied));
    let index = usize::from(two < one);
    // Else whoever made the file may have been killed before its name was durable.
    let was_whole = [one, two][index].is_some();
    let file = if exists[index] { root.open(NAMES[index])? } else { root.create(NAMES[index])? };
    file.write_at(0, &encode(meta))?;
    // A crash before this leaves the other file, whose position the log still has.
    file.sync_data()?;
    if was_whole { Ok(()) } else { root.sync() }
}

/// The newest facts that this log goes on from, if there are other voters by them: their state can take the place of this member's.
pub(super) fn facts_for<D: Directory>(
    root: &D,
    member: MemberId,
    log: &Recovered,
) -> io::Result<Option<Meta>> {
    let continued = |meta: &Meta| {
        let position = Position { index: meta.applied, term: meta.applied_term };
        log.contains(position) && meta.conf_state.names(member)
    };
    let newest = newest(root, continued)?;
    Ok(newest.filter(|meta| meta.conf_state.others_vote(member)))
}

/// Whether others vote by the newest facts; for a moment in which there is no time to look at the log.
pub(super) fn others_voted<D: Directory>(root: &D, member: MemberId) -> io::Result<bool> {
    let newest = newest(root, |meta| meta.conf_state.names(member))?;
    Ok(newest.is_some_and(|meta| meta.conf_state.others_vote(member)))
}

/// Drops what is kept, durably.
pub(super) fn drop_facts<D: Directory>(root: &D) -> io::Result<()> {
    let names = root.list()?;
    for name in NAMES {
        if names.iter().any(|found| found == name) {
            root.remove(name)?;
        }
    }
    root.sync()
}

fn newest<D: Directory>(root: &D, counts: impl Fn(&Meta) -> bool) -> io::Result<Option<Meta>> {
    let counting = read(root)?.into_iter().flatten().filter(counts);
    Ok(counting.max_by_key(|meta| meta.applied))
}

/// What is in the two files; `None` for what is not there or not whole.
fn read<D: Directory>(root: &D) -> io::Result<[Option<Meta>; 2]> {
    let names = root.list()?;
    let mut kept = [None, None];
    for (name, kept) in NAMES.into_iter().zip(&mut kept) {
        if names.iter().any(|found| found == name) {
            let file = root.open(name)?;
            let length = usize::try_from(file.len()?).unwrap_or(usize::MAX).min(FILE_BYTES_MAX);
            let mut bytes = vec![0; length];
            // What cannot be read is damaged as well: nobody needs it before the store is damaged, too.
            *kept = file.read_at(0, &mut bytes).ok().and_then(|()| decode(&bytes));
        }
    }
    Ok(kept)
}

fn encode(meta: &Meta) -> Vec<u8> {
    let row = encode_facts(meta);
    let length = u32::try_from(row.len()).unwrap_or(u32::MAX);
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&row);
    bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Meta> {
    let (&version, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let row = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    decode_facts(row).ok().filter(|_| version == VERSION)
}

#[cfg(test)]
#[path = "facts_test.rs"]
mod tests;
