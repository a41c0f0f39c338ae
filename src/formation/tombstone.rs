//! What became of a cluster that has given itself up, for its members that were away.
//!
//! Owns: how that is signed, when it is believed, and the file that keeps it until another cluster does. Must never: take a member out of a cluster that
//! users have written to without an operator's order, or on the word of anybody but a member of that same cluster. Made and kept by `app`, buried in the charter of the next cluster.
//!
//! ```text
//! signed      "covey tombstone 1"  cluster:u64  winner:u64  at:u64                    with the member's key (Ed25519)
//!             "covey yield 1" instead, where an operator has ordered it
//! tombstones  version:u8 (1)  count:u16  as many tombstones  crc32c:u32 (over all before it)        little endian
//! ```
//!
//! Each member signs when it leaves, for it has applied the end itself; it keeps what it has signed, and what its cluster had buried of earlier ones, beside its
//! identity until the cluster that it joins then has all of that in its charter. So whoever is found later knows of every cluster that it comes from.

use std::io;

use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};

use super::identity::NodeKey;
use crate::command::{SIGNATURE_BYTES, TOMBSTONE_BYTES, Tombstone};
use crate::disk::{Directory, File};
use crate::ids::{ClusterId, LogIndex, PublicKey};
use crate::limits::TOMBSTONES_MAX;
use crate::store::{Charter, Dissolution, Member};

/// Nothing else that is signed with a node's key begins like this: TLS has 64 blanks there.
const BY_ITSELF: &[u8] = b"covey tombstone 1";
/// The same where an operator has ordered the end.
const ORDERED: &[u8] = b"covey yield 1";
const NAME: &str = "tombstones";
const TEMPORARY: &str = "tombstones.tmp";
/// All files of it.
pub const TOMBSTONE_NAMES: [&str; 2] = [NAME, TEMPORARY];
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 3;
const FILE_BYTES_MAX: usize = HEAD_BYTES + TOMBSTONES_MAX * TOMBSTONE_BYTES + 4;

/// Why a tombstone changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// It is another cluster's.
    #[error("it is about another cluster")]
    OtherCluster,
    /// Users have written to this cluster, as far as this member knows: then it has not given itself up without an operator's order.
    #[error("users have written to this cluster, so that it cannot have given itself up by itself")]
    Committed,
    /// This member has what the log says there, and it is something else.
    #[error("this member has the entry that it names, and the cluster goes on after that")]
    Contradicted,
    /// The key is of no member that this one knows.
    #[error("who signed it is no member that this one knows")]
    Stranger,
    /// It was not signed with that key.
    #[error("its signature is wrong")]
    Signature,
}

/// A member's word that its cluster has ended.
pub fn sign(key: &NodeKey, cluster: ClusterId, end: Dissolution) -> Tombstone {
    let Dissolution { winner, at, ordered } = end;
    let signer = PublicKey(*key.public());
    let mut tombstone = Tombstone { cluster, winner, at, signer, signature: [0; SIGNATURE_BYTES] };
    // A node's key was read by the same rules, so that there always is a pair.
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8(key.pkcs8()) {
        let signature = pair.sign(&signed(&tombstone, ordered));
        tombstone.signature.copy_from_slice(signature.as_ref());
    }
    tombstone
}

/// All that a member that leaves takes with it: its own word, and what it knew of earlier clusters, of too many the latest.
pub fn taken_along(own: Tombstone, charter: &Charter, kept: &[Tombstone]) -> Vec<Tombstone> {
    let mut all: Vec<Tombstone> = Vec::new();
    for tombstone in [own].iter().chain(charter.buried.iter().rev()).chain(kept) {
        if !all.contains(tombstone) && all.len() < TOMBSTONES_MAX {
            all.push(*tombstone);
        }
    }
    all.reverse();
    all
}

/// Whether a member may leave its cluster on this word. `applied`: how far its state is, which says the rest.
pub fn believe(
    tombstone: &Tombstone,
    cluster: ClusterId,
    applied: LogIndex,
    members: &[Member],
    charter: &Charter,
) -> Result<(), Doubt> {
    if tombstone.cluster != cluster {
        return Err(Doubt::OtherCluster);
    }
    if charter.dissolved.is_none() && tombstone.at <= applied {
        return Err(Doubt::Contradicted);
    }
    if !members.iter().any(|member| member.key == Some(tombstone.signer)) {
        return Err(Doubt::Stranger);
    }
    let key = UnparsedPublicKey::new(&ED25519, tombstone.signer.0);
    let says = |ordered| key.verify(&signed(tombstone, ordered), &tombstone.signature).is_ok();
    if says(true) {
        Ok(())
    } else if !says(false) {
        Err(Doubt::Signature)
    } else if charter.committed {
        Err(Doubt::Committed)
    } else {
        Ok(())
    }
}

fn signed(tombstone: &Tombstone, ordered: bool) -> Vec<u8> {
    let Tombstone { cluster, winner, at, .. } = tombstone;
    let numbers = [cluster.0, winner.0, at.0].map(u64::to_le_bytes);
    [if ordered { ORDERED } else { BY_ITSELF }, numbers.as_flattened()].concat()
}

/// Keeps these instead of what was kept, durably.
pub fn keep_tombstones<D: Directory>(root: &D, tombstones: &[Tombstone]) -> io::Result<()> {
    assert!(tombstones.len() <= TOMBSTONES_MAX, "of too many the latest are kept");
    let count = u16::try_from(tombstones.len()).unwrap_or(u16::MAX);
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend(tombstones.iter().flat_map(Tombstone::to_bytes));
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    remove(root, TEMPORARY)?;
    let file = root.create(TEMPORARY)?;
    file.write_at(0, &bytes)?;
    file.sync_data()?;
    root.rename(TEMPORARY, NAME)?;
    // Without it a crash after the state has gone could leave nobody who knows why.
    root.sync()
}

/// What is kept; nothing where the file is damaged, for other members keep the same. One of a later version is left as it is.
pub fn kept_tombstones<D: Directory>(root: &D) -> io::Result<Vec<Tombstone>> {
    if !root.list()?.iter().any(|name| name == NAME) {
        return Ok(Vec::new());
    }
    let file = root.open(NAME)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(usize::MAX).min(FILE_BYTES_MAX)];
    file.read_at(0, &mut bytes)?;
    match decode(&bytes) {
        Some(Ok(kept)) => Ok(kept),
        Some(Err(found)) => {
            let why = format!("{NAME} has format version {found}; this build reads version {VERSION}");
            Err(io::Error::new(io::ErrorKind::Unsupported, why))
        }
        None => Ok(Vec::new()),
    }
}

/// Keeps nothing any more.
pub fn drop_tombstones<D: Directory>(root: &D) -> io::Result<()> {
    remove(root, NAME)?;
    root.sync()
}

fn remove<D: Directory>(root: &D, name: &str) -> io::Result<()> {
    if root.list()?.iter().any(|found| found == name) { root.remove(name) } else { Ok(()) }
}

/// What is in a whole file, or of which other version it is.
fn decode(bytes: &[u8]) -> Option<Result<Vec<Tombstone>, u8>> {
    let (body, crc) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (&[version, low, high], rest) = body.split_first_chunk::<HEAD_BYTES>()?;
    if version != VERSION {
        return Some(Err(version));
    }
    let (tombstones, []) = rest.as_chunks::<TOMBSTONE_BYTES>() else { return None };
    let whole = tombstones.len() == usize::from(u16::from_le_bytes([low, high]));
    whole.then(|| Ok(tombstones.iter().map(Tombstone::from_bytes).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::MemberAttributes;
    use crate::disk::sim::{FaultPlan, SimDir, Survival};
    use crate::formation::identity::test_key;

    const LOST: ClusterId = ClusterId(7);
    const WINNER: ClusterId = ClusterId(3);
    const END: Dissolution = Dissolution { winner: WINNER, at: LogIndex(40), ordered: false };

    fn tombstone(seed: u8) -> Tombstone {
        sign(&test_key(seed), LOST, END)
    }

    fn member(seed: u8) -> Member {
        let key = Some(PublicKey(*test_key(seed).public()));
        Member { key, votes: true, attributes: MemberAttributes::default() }
    }

    #[test]
    fn only_the_word_of_a_member_of_the_same_cluster_counts_and_only_where_nobody_has_written() {
        let (members, charter) = ([member(1), member(2)], Charter::automatic());
        let good = tombstone(1);
        let judge = |tombstone: &Tombstone, charter: &Charter| {
            believe(tombstone, LOST, LogIndex(39), &members, charter)
        };
        assert_eq!(judge(&good, &charter), Ok(()));
        let committed = Charter { committed: true, ..charter.clone() };
        assert_eq!(judge(&good, &committed), Err(Doubt::Committed));
        assert_eq!(judge(&tombstone(3), &charter), Err(Doubt::Stranger));
        assert_eq!(judge(&Tombstone { cluster: WINNER, ..good }, &charter), Err(Doubt::OtherCluster));
        for forged in [
            Tombstone { winner: ClusterId(4), ..good },
            Tombstone { at: LogIndex(41), ..good },
            Tombstone { signer: tombstone(2).signer, ..good },
            Tombstone { signature: [0; SIGNATURE_BYTES], ..good },
        ] {
            assert_eq!(judge(&forged, &charter), Err(Doubt::Signature), "{forged:?}");
        }
        let later = |charter: &Charter| believe(&good, LOST, LogIndex(40), &members, charter);
        assert_eq!(later(&charter), Err(Doubt::Contradicted), "it has that entry itself");
        assert_eq!(later(&Charter { dissolved: Some(END), ..charter }), Ok(()));
    }

    #[test]
    fn where_users_have_written_a_member_leaves_only_by_an_operators_order() {
        let members = [member(1)];
        let committed = Charter { committed: true, ..Charter::automatic() };
        let by = |seed| sign(&test_key(seed), LOST, Dissolution { ordered: true, ..END });
        let judge = |tombstone: &Tombstone, charter: &Charter| {
            believe(tombstone, LOST, LogIndex(39), &members, charter)
        };
        assert_eq!(judge(&by(1), &committed), Ok(()));
        assert_eq!(judge(&by(1), &Charter::automatic()), Ok(()));
        assert_eq!(judge(&tombstone(1), &committed), Err(Doubt::Committed));
        assert_eq!(judge(&by(2), &committed), Err(Doubt::Stranger));
        let forged = Tombstone { winner: ClusterId(4), ..by(1) };
        assert_eq!(judge(&forged, &committed), Err(Doubt::Signature));
        let later = believe(&by(1), LOST, LogIndex(40), &members, &committed);
        assert_eq!(later, Err(Doubt::Contradicted), "it has that entry itself");
    }

    /// A signature over anything else with the same key is none over this.
    #[test]
    fn what_is_signed_has_a_label_of_its_own() {
        let good = tombstone(1);
        let numbers = [LOST.0, WINNER.0, 40].map(u64::to_le_bytes);
        let pair = Ed25519KeyPair::from_pkcs8(test_key(1).pkcs8()).unwrap();
        let mut bare = good;
        bare.signature.copy_from_slice(pair.sign(numbers.as_flattened()).as_ref());
        let judged = believe(&bare, LOST, LogIndex(1), &[member(1)], &Charter::automatic());
        assert_eq!(judged, Err(Doubt::Signature));
    }

    #[test]
    fn who_leaves_takes_along_what_is_known_of_all_clusters_before() {
        let (own, earlier, kept) = (tombstone(1), tombstone(2), tombstone(3));
        let charter = Charter { buried: vec![earlier, kept], ..Charter::automatic() };
        assert_eq!(taken_along(own, &charter, &[kept, own]), [earlier, kept, own]);
        let mut many = vec![earlier; 100];
        (0..).zip(&mut many).for_each(|(n, one)| one.cluster = ClusterId(n));
        let all = taken_along(own, &Charter { buried: many, ..charter }, &[]);
        let clusters: Vec<u64> = all.iter().map(|tombstone| tombstone.cluster.0).collect();
        assert_eq!(clusters, (37..100).chain([LOST.0]).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_kept_survives_a_crash_at_any_point_or_what_was_kept_before_does() {
        let (before, after) = (vec![tombstone(1)], vec![tombstone(1), tombstone(2)]);
        let prepare = || {
            let root = SimDir::new(1);
            assert_eq!(kept_tombstones(&root).unwrap(), []);
            keep_tombstones(&root, &before).unwrap();
            root
        };
        let root = prepare();
        let first = root.operations();
        keep_tombstones(&root, &after).unwrap();
        let last = root.operations();
        assert_eq!(kept_tombstones(&root.crash(Survival::Nothing)).unwrap(), after);
        for crash_at in first + 1..=last {
            for survival in [Survival::Nothing, Survival::Everything, Survival::Random] {
                let root = prepare();
                root.plan(FaultPlan { crash_at: Some(crash_at), ..FaultPlan::default() });
                assert!(keep_tombstones(&root, &after).is_err());
                let left = root.crash(survival);
                let kept = kept_tombstones(&left).unwrap();
                assert!(kept == before || kept == after, "crash at {crash_at}: {kept:?}");
                keep_tombstones(&left, &after).unwrap();
                drop_tombstones(&left).unwrap();
                assert_eq!(kept_tombstones(&left.crash(Survival::Nothing)).unwrap(), []);
            }
        }
        root.flip_bit(NAME, 9, 1);
        assert_eq!(kept_tombstones(&root).unwrap(), [], "damage is no word");

        let later = SimDir::new(2);
        let mut bytes = vec![VERSION + 1, 7, 7, 7];
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        later.create(NAME).unwrap().write_at(0, &bytes).unwrap();
        let refused = kept_tombstones(&later).unwrap_err().to_string();
        assert_eq!(refused, "tombstones has format version 2; this build reads version 1");
    }
}
