//! What became of a cluster that has given itself up, for its members that were away.
//!
//! Owns: how that is signed, when it is believed, and the file that keeps it until another cluster does. Must never: take a member out of a cluster that
//! users have written to without an operator's order and the word of a majority for it, or on the word of anybody but members of that same cluster. Made and
//! kept by `app`, buried in the charter of the next cluster.
//!
//! ```text
//! tombstones  version:u8 (1)  count:u16  as many tombstones  crc32c:u32 (over all before it)        little endian
//! ```
//!
//! Each member signs when it leaves, for it has applied the end itself; it keeps what it has signed, and what its cluster had buried of earlier ones, beside
//! its identity until the cluster that it joins then has all of that in its charter. So whoever is found later knows of every cluster that it comes from. The next cluster
//! keeps so many words and no more, and cannot know who voted in one that has ended: of a hundred members that leave, the last ones would push out those that decide.
//! So where there are many, who only learns takes along what others have signed and no word of its own. Where there are few, all words have room, and are of use: whoever
//! was away may know one as a voter that has lost its vote since.
//!
//! # Whose words have room
//!
//! The words are about other clusters, and the cluster that keeps them knows neither those nor whether they are true. What it can know is whose word each is, by its
//! signature, and whether that is a member here. As a rule it is: a cluster ends only after the winner has taken its members in, so that whoever has signed in earnest has a place there
//! before it buries its word, and the signers of earlier clusters' words came along with these. It is not where a signer was removed since. So words of others are kept, too, while there
//! is room; one more of those pushes out nothing, and where a member's needs room the oldest of those goes first. Between members who has most gives way, with its oldest. So each has its share, a
//! 64th at the least: whoever has a member's key pushes out what that one has said, and what nobody says who is a member here. A signature that is wrong changes nothing, for in the name of
//! others anybody could have too much to say; what a cluster kept before it looked at signatures counts as theirs, and is the first of it that goes.
//!
//! # An end by itself
//!
//! It takes effect only where users have written nothing, so that a word that is true costs nobody anything. A word that is a lie does where whoever follows it has a
//! write in its log that others were told is done, and that it has not applied, since nobody has told it so yet: its copy may be one of the two that are left. So what it
//! takes to be followed depends on what this member has to lose, by its state and by its own log ([`Tail`]), in which it is sure of what is there and of nothing else.
//!
//! - Its state says that users have written: nothing is enough.
//! - Its log is there from its state to its end, its state is not in doubt, and no write of a user's is there before an end of the cluster: one word is enough. There is
//!   nothing that could be lost. What comes behind an end in the log counts only where the end does, and is refused then.
//! - Else a majority of raft's voters, and while these change of the old ones as well, have to say the same. Of a majority one is honest as long as fewer than that
//!   lie, and it has applied what it says. This member says nothing itself: an end in its own log may be one that is refused, because a write stands before it.
//! - Where its log may also have a change of the configuration, or is not all there, the voters that its state says may not be those by which the write was done: nothing is enough.
//!
//! Of three voters two have ended the cluster. One has left its word and the other one has not, and never will: the third is alone, and as a rule goes by the one word, because it has
//! nothing. Where it has the unconfirmed write of a user's, it waits for the other word as it waits for the other voter without any word, says so, and an operator decides; both
//! of those who were there set it free. Where there is one voter its word is a majority: whoever has its key takes out of service what learners have.
//!
//! # An end that was ordered
//!
//! It takes what users have written out of service, so that one member's word is not enough: its key may have been taken, or its disk be that of a generation that was
//! given up. Whoever was away follows when a majority of the voters that it knows say the same. As a rule those are there to be heard: the entry was committed by a majority of
//! voters, which leave and sign, or those that are left commit it anew. A voter that was given its vote while this member was away is not known to it, and of many members
//! one that has lost it leaves no word; where those of old that are heard are too few, an operator decides. So does one where this member's log may have both a user's write
//! and a change of the configuration: those that it knows may not be those that committed it.

use std::io;

use ring::signature::Ed25519KeyPair;

use super::identity::{Generation, NodeKey};
use super::tail::Tail;
use crate::command::{CharterCommand, CommandVersion, SIGNATURE_BYTES, TOMBSTONE_BYTES, Tombstone};
use crate::disk::{Directory, File};
use crate::ids::{ClusterId, LogIndex, MemberId, PublicKey};
use crate::limits::{TOMBSTONE_SIGNERS_MAX, TOMBSTONES_MAX};
use crate::mvcc::Facts;
use crate::planted::{self, Bug};
use crate::store::{ConfState, Dissolution, Member};

/// Each is one `covey recover` of the same cluster after a majority was lost for good, which nobody has to do so often. A word of a later one is not kept, and told
/// of: to try more would let whoever makes up words keep a slow box busy with signatures.
pub const GENERATIONS_MAX: u64 = 64;
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
    #[error("its signature is wrong, or is about another generation of this cluster")]
    Signature,
    /// An operator has ordered it, and no majority says so.
    #[error(
        "an operator is said to have ordered it, and fewer than a majority of the voters that this member knows have said so yet"
    )]
    Minority,
    /// The log may have what would be lost, and no majority says so.
    #[error(
        "this member's log may have what a user was told is done, and it knows of no majority of those who vote by that log that has said so"
    )]
    Weighty,
}

/// What a member knows of its cluster, by which it judges what others say of that.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Which it is.
    pub cluster: ClusterId,
    /// Its generation.
    pub generation: Generation,
    /// How far this member's state is.
    pub applied: LogIndex,
    /// The state.
    pub facts: &'a Facts,
    /// What its log has beyond that.
    pub tail: Tail,
    /// Whether the state is in doubt: then users may have written although it does not say so.
    pub suspect: bool,
}

/// A member's word that its cluster, in this generation, has ended.
pub fn sign(key: &NodeKey, cluster: ClusterId, generation: Generation, end: Dissolution) -> Tombstone {
    let Dissolution { winner, at, ordered } = end;
    let signer = PublicKey(*key.public());
    let mut tombstone = Tombstone { cluster, winner, at, signer, signature: [0; SIGNATURE_BYTES] };
    // A node's key was read by the same rules, so that there always is a pair.
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8(key.pkcs8()) {
        let ordered = ordered.then_some(generation.0);
        let signature = pair.sign(&tombstone.signed(ordered));
        tombstone.signature.copy_from_slice(signature.as_ref());
    }
    tombstone
}

/// All that a member that leaves takes with it: its own word, of many members only if it has a vote, and what it knew of earlier clusters, of too much what the charter would keep.
pub fn taken_along(own: Tombstone, facts: &Facts, kept: &[Tombstone]) -> Vec<Tombstone> {
    let are_few = facts.members.len() <= TOMBSTONE_SIGNERS_MAX;
    let own = Some(own).filter(|own| are_few || has_vote(facts, own.signer));
    let mut all: Vec<Tombstone> = Vec::new();
    for tombstone in own.iter().chain(facts.charter.buried.iter().rev()).chain(kept.iter().rev()) {
        if !all.contains(tombstone) {
            all.push(*tombstone);
        }
    }
    all.reverse();
    Tombstone::keep_some(&mut all, |signer| facts.members.iter().any(|member| member.key == Some(signer)));
    all
}

/// Of which generation an end was ordered, if it was, as far as the signature of a word shows that: neither the word itself nor the file of it says so.
pub fn ordered_of(word: &Tombstone) -> Option<u64> {
    let tried = if word.is_signed(None) { 0 } else { GENERATIONS_MAX };
    (1..=tried).find(|generation| word.is_signed(Some(*generation)))
}

/// What has the cluster remember a word, in commands that it uses. `ordered`: see [`ordered_of`].
pub fn burial(tombstone: Tombstone, ordered: Option<u64>, uses: CommandVersion) -> CharterCommand {
    if uses < CommandVersion::SIGNED_WORDS {
        CharterCommand::Bury(tombstone)
    } else {
        CharterCommand::BurySigned { tombstone, ordered }
    }
}

/// Whether the member of this key votes, is to, or does so until a change of that has ended.
fn has_vote(facts: &Facts, key: PublicKey) -> bool {
    let ConfState { voters, voters_outgoing, .. } = &facts.conf_state;
    let member = facts.members.iter().find(|member| member.key == Some(key));
    let votes = |member: &Member| voters.iter().chain(voters_outgoing).any(|voter| *voter == member.id());
    member.is_some_and(|member| member.votes || votes(member))
}

/// The end of its cluster that a member may go by, of all that others have told it. An error: why not by what was told last.
pub fn believe(told: &[Tombstone], known: &Known<'_>) -> Result<Dissolution, Doubt> {
    let mut doubt = Doubt::OtherCluster;
    let mut said = Vec::new();
    for tombstone in told {
        match known.word(tombstone) {
            Ok(end) => said.push((end, tombstone.signer)),
            Err(why) => doubt = why,
        }
    }
    let may_weigh = known.tail.has_users() || known.suspect;
    let may_have_others = known.tail.has_changes() && !planted::has(Bug::TrustOldVoters);
    let is_by_others = known.tail.has_users() && may_have_others;
    let agreed = said.iter().map(|(end, _)| *end).find(|end| {
        let has_said = |key| said.contains(&(*end, key));
        match end.ordered {
            true => !is_by_others && known.is_majority(has_said),
            false if !may_weigh || planted::has(Bug::FollowOneWord) => true,
            false => !is_by_others && known.is_majority_of_voters(has_said),
        }
    });
    agreed.ok_or(match said.last() {
        None => doubt,
        Some((end, _)) if end.ordered && !is_by_others => Doubt::Minority,
        Some(_) => Doubt::Weighty,
    })
}

impl Known<'_> {
    /// What a member has said of the end of this cluster; or why it says nothing of that.
    pub fn word(&self, tombstone: &Tombstone) -> Result<Dissolution, Doubt> {
        let Facts { members, charter, .. } = self.facts;
        let Tombstone { cluster, winner, at, signer, .. } = *tombstone;
        if cluster != self.cluster {
            return Err(Doubt::OtherCluster);
        }
        if charter.dissolved.is_none() && at <= self.applied {
            return Err(Doubt::Contradicted);
        }
        if !members.iter().any(|member| member.key == Some(signer)) {
            return Err(Doubt::Stranger);
        }
        if tombstone.is_signed(Some(self.generation.0)) {
            Ok(Dissolution { winner, at, ordered: true })
        } else if !tombstone.is_signed(None) {
            Err(Doubt::Signature)
        } else if charter.committed {
            Err(Doubt::Committed)
        } else {
            Ok(Dissolution { winner, at, ordered: false })
        }
    }

    /// Whether those who have said something are a majority of those whose votes count in raft. A voter that nobody knows any more has said nothing.
    fn is_majority_of_voters(&self, has_said: impl Fn(PublicKey) -> bool) -> bool {
        let ConfState { voters, voters_outgoing, .. } = &self.facts.conf_state;
        let has_said =
            |voter: &&MemberId| self.facts.keys().any(|(member, key)| member == **voter && has_said(key));
        let is_majority = |voters: &[MemberId]| voters.iter().filter(has_said).count() > voters.len() / 2;
        is_majority(voters) && (voters_outgoing.is_empty() || is_majority(voters_outgoing))
    }

    /// Whether those who have said something are a majority of those that are to vote; while these change, of the old voters, too. A place that nobody has
    /// taken has no vote in anything.
    fn is_majority(&self, has_said: impl Fn(PublicKey) -> bool) -> bool {
        let Facts { members, conf_state, .. } = self.facts;
        let is_majority = |votes: &dyn Fn(&Member) -> bool| {
            let voters: Vec<PublicKey> =
                members.iter().filter(|member| votes(member)).filter_map(|member| member.key).collect();
            voters.iter().filter(|key| has_said(**key)).count() > voters.len() / 2
        };
        let outgoing: &[MemberId] = &conf_state.voters_outgoing;
        is_majority(&|member| member.votes)
            && (outgoing.is_empty() || is_majority(&|member| outgoing.contains(&member.id())))
    }
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
    use std::sync::Arc;

    use super::*;
    use crate::command::MemberAttributes;
    use crate::command::codec::encode;
    use crate::command::{CharterCommand, Command, Envelope};
    use crate::disk::sim::{FaultPlan, SimDir, Survival};
    use crate::formation::identity::test_key;
    use crate::ids::{ProposalId, Term};
    use crate::store::Charter;
    use crate::wal::{EntryKind, LogEntry, Position};

    const LOST: ClusterId = ClusterId(7);
    const WINNER: ClusterId = ClusterId(3);
    const END: Dissolution = Dissolution { winner: WINNER, at: LogIndex(40), ordered: false };
    const ORDER: Dissolution = Dissolution { ordered: true, ..END };

    fn tombstone(seed: u8) -> Tombstone {
        sign(&test_key(seed), LOST, Generation(1), END)
    }

    fn ordered(seed: u8) -> Tombstone {
        sign(&test_key(seed), LOST, Generation(1), ORDER)
    }

    fn member(seed: u8, votes: bool) -> Member {
        let attributes = MemberAttributes { member: MemberId(seed.into()), ..MemberAttributes::default() };
        Member { key: Some(PublicKey(*test_key(seed).public())), votes, attributes }
    }

    /// What is known of a cluster of these voters, and of one that only learns.
    fn facts(voters: u8, charter: Charter) -> Facts {
        // A place that nobody has taken yet is meant to vote, and does not.
        let place = Member { key: None, ..member(voters + 2, true) };
        let members = (1..=voters).map(|seed| member(seed, true)).chain([member(voters + 1, false), place]);
        let conf_state = ConfState {
            voters: (1..=voters).map(|seed| MemberId(seed.into())).collect(),
            learners: vec![MemberId(u64::from(voters) + 1)],
            ..ConfState::default()
        };
        Facts { members: members.collect(), conf_state, charter: Arc::new(charter), ..Facts::default() }
    }

    fn committed() -> Charter {
        Charter { committed: true, ..Charter::automatic() }
    }

    /// What comes of this for a member that has applied so much.
    fn judge(told: &[Tombstone], applied: u64, facts: &Facts) -> Result<Dissolution, Doubt> {
        judge_with(told, applied, facts, Tail::of(LogIndex(applied), &[], Position::default(), false))
    }

    /// The same for one whose log has this beyond its state.
    fn judge_with(told: &[Tombstone], applied: u64, facts: &Facts, tail: Tail) -> Result<Dissolution, Doubt> {
        believe(told, &Known { tail, ..known_at(applied, facts) })
    }

    fn known_at(applied: u64, facts: &Facts) -> Known<'_> {
        let (generation, applied) = (Generation(1), LogIndex(applied));
        let tail = Tail::of(applied, &[], Position::default(), false);
        Known { cluster: LOST, generation, applied, facts, tail, suspect: false }
    }

    #[test]
    fn only_the_word_of_a_member_of_the_same_cluster_counts_and_only_where_nobody_has_written() {
        let fresh = facts(2, Charter::automatic());
        let good = tombstone(1);
        let one = |tombstone: Tombstone| judge(&[tombstone], 39, &fresh);
        assert_eq!(one(good), Ok(END));
        assert_eq!(judge(&[good], 39, &facts(2, committed())), Err(Doubt::Committed));
        assert_eq!(one(tombstone(4)), Err(Doubt::Stranger));
        assert_eq!(one(Tombstone { cluster: WINNER, ..good }), Err(Doubt::OtherCluster));
        for forged in [
            Tombstone { winner: ClusterId(4), ..good },
            Tombstone { at: LogIndex(41), ..good },
            Tombstone { signer: tombstone(2).signer, ..good },
            Tombstone { signature: [0; SIGNATURE_BYTES], ..good },
        ] {
            assert_eq!(one(forged), Err(Doubt::Signature), "{forged:?}");
            assert_eq!(judge(&[forged, good], 39, &fresh), Ok(END), "another one's word does not spoil it");
        }
        assert_eq!(judge(&[good], 40, &fresh), Err(Doubt::Contradicted), "it has that entry itself");
        let ended = facts(2, Charter { dissolved: Some(END), ..Charter::automatic() });
        assert_eq!(judge(&[good], 40, &ended), Ok(END));
        assert_eq!(judge(&[], 39, &fresh), Err(Doubt::OtherCluster));
    }

    /// A log after 37 with these entries, of which the state has none.
    fn tail(commands: &[CharterCommand]) -> Tail {
        let entry = |(index, command): (u64, &CharterCommand)| {
            let command = Command::Charter(command.clone());
            let data = encode(&Envelope { id: ProposalId::default(), caller: None, command });
            LogEntry { index: LogIndex(index), term: Term(1), kind: EntryKind::Normal, data }
        };
        of_entries(&(38..).zip(commands).map(entry).collect::<Vec<_>>())
    }

    fn of_entries(entries: &[LogEntry]) -> Tail {
        let last = entries.last().map_or(LogIndex(37), |entry| entry.index);
        Tail::of(LogIndex(37), entries, Position { index: last, term: Term(1) }, false)
    }

    /// One with a change of the configuration as well.
    fn changing(commands: &[CharterCommand]) -> Tail {
        let change =
            LogEntry { index: LogIndex(38), term: Term(1), kind: EntryKind::ConfChangeV2, data: "".into() };
        let envelope = |command| encode(&Envelope { id: ProposalId::default(), caller: None, command });
        let entry = |(index, command): (u64, &CharterCommand)| {
            let data = envelope(Command::Charter(command.clone()));
            LogEntry { index: LogIndex(index), kind: EntryKind::Normal, data, ..change.clone() }
        };
        of_entries(&[vec![change.clone()], (39..).zip(commands).map(entry).collect()].concat())
    }

    /// Two voters are cut off, one of them with a write that was acknowledged on its word; the third one's key is in other hands, or its disk. What that says while
    /// nobody leads took the last copy of the write that was there.
    #[test]
    fn who_may_have_what_a_user_has_written_goes_by_no_single_word() {
        let three = facts(3, Charter::automatic());
        let of = |told: &[Tombstone], tail| judge_with(told, 37, &three, tail);
        let end = CharterCommand::Dissolve { winner: WINNER };
        let (written, other) = (CharterCommand::Seal, CharterCommand::Elapsed { to: 60 });
        assert_eq!(of(&[tombstone(1)], tail(&[])), Ok(END));
        assert_eq!(of(&[tombstone(1)], tail(&[other.clone(), other.clone()])), Ok(END));
        assert_eq!(of(&[tombstone(1)], tail(&[other.clone(), end.clone(), written.clone()])), Ok(END));
        for weighs in [tail(&[written.clone(), other.clone()]), tail(&[written, other, end])] {
            assert_eq!(of(&[tombstone(1)], weighs), Err(Doubt::Weighty));
            assert_eq!(of(&[tombstone(1), tombstone(1)], weighs), Err(Doubt::Weighty), "it says it twice");
            assert_eq!(
                of(&[tombstone(1), tombstone(4)], weighs),
                Err(Doubt::Weighty),
                "one that only learns"
            );
            let elsewhere = sign(&test_key(2), LOST, Generation(1), Dissolution { at: LogIndex(41), ..END });
            assert_eq!(of(&[tombstone(1), elsewhere], weighs), Err(Doubt::Weighty));
            assert_eq!(of(&[tombstone(1), elsewhere, tombstone(2)], weighs), Ok(END));
        }
        let alone = facts(1, Charter::automatic());
        let held = tail(&[CharterCommand::Seal]);
        assert_eq!(judge_with(&[tombstone(1)], 37, &alone, held), Ok(END), "of one voter its word is all");
        assert_eq!(judge_with(&[tombstone(2)], 37, &alone, held), Err(Doubt::Weighty));
    }

    /// A cluster of one grew to three, and what a user wrote then was done by two of those. By the state of the third one the first is still the only voter.
    #[test]
    fn who_may_not_know_who_votes_gives_up_what_a_user_may_have_written_on_no_word() {
        let (alone, three) = (facts(1, Charter::automatic()), facts(3, Charter::automatic()));
        let all = [1, 2, 3].map(tombstone);
        for weighs in [changing(&[CharterCommand::Seal]), Tail::UNKNOWN] {
            assert_eq!(judge_with(&all[..1], 37, &alone, weighs), Err(Doubt::Weighty));
            assert_eq!(judge_with(&all, 37, &three, weighs), Err(Doubt::Weighty));
            let written = facts(1, committed());
            assert_eq!(judge_with(&[ordered(1)], 37, &written, weighs), Err(Doubt::Weighty));
        }
        // A change alone is nothing that could be lost.
        assert_eq!(judge_with(&all[..1], 37, &three, changing(&[])), Ok(END));
        assert_eq!(judge_with(&[1, 2].map(ordered), 37, &three, changing(&[])), Ok(ORDER));
    }

    #[test]
    fn whose_state_is_in_doubt_goes_by_no_single_word() {
        let three = facts(3, Charter::automatic());
        let of = |told: &[Tombstone]| believe(told, &Known { suspect: true, ..known_at(37, &three) });
        assert_eq!(of(&[tombstone(1)]), Err(Doubt::Weighty));
        assert_eq!(of(&[tombstone(1), tombstone(2)]), Ok(END));
        assert_eq!(of(&[ordered(1), ordered(2)]), Ok(ORDER));
    }

    #[test]
    fn while_voters_change_what_was_written_needs_the_word_of_both_majorities() {
        let mut changing = facts(3, Charter::automatic());
        let of = |told: &[u8], facts: &Facts| {
            let told: Vec<_> = told.iter().copied().map(tombstone).collect();
            judge_with(&told, 37, facts, tail(&[CharterCommand::Seal]))
        };
        changing.conf_state.voters_outgoing = vec![MemberId(4)];
        assert_eq!(of(&[1, 2, 3], &changing), Err(Doubt::Weighty));
        assert_eq!(of(&[1, 2, 4], &changing), Ok(END));
        // By raft's votes and not by those that somebody is to have.
        changing.conf_state.voters_outgoing.clear();
        changing.members[0].votes = false;
        assert_eq!(of(&[1, 2], &changing), Ok(END));
        // A voter that nobody knows any more counts, and says nothing.
        changing.conf_state.voters.push(MemberId(77));
        assert_eq!(of(&[1, 2], &changing), Err(Doubt::Weighty));
        assert_eq!(of(&[1, 2, 3], &changing), Ok(END));
        assert_eq!(
            of(&[1], &facts(0, Charter::automatic())),
            Err(Doubt::Weighty),
            "there is no majority of none"
        );
    }

    #[test]
    fn where_users_have_written_a_member_leaves_only_by_an_operators_order() {
        let known = facts(1, committed());
        let one = |tombstone: Tombstone| judge(&[tombstone], 39, &known);
        assert_eq!(one(ordered(1)), Ok(ORDER), "the only voter is the majority");
        assert_eq!(judge(&[ordered(1)], 39, &facts(1, Charter::automatic())), Ok(ORDER));
        assert_eq!(one(tombstone(1)), Err(Doubt::Committed));
        assert_eq!(one(ordered(3)), Err(Doubt::Stranger));
        assert_eq!(one(Tombstone { winner: ClusterId(4), ..ordered(1) }), Err(Doubt::Signature));
        let later = judge(&[ordered(1)], 40, &known);
        assert_eq!(later, Err(Doubt::Contradicted), "it has that entry itself");
    }

    /// A key that somebody has taken from a box would otherwise take every member out of service that hears no leader for a moment.
    #[test]
    fn an_order_is_followed_when_a_majority_of_the_voters_say_the_same() {
        for charter in [Charter::automatic(), committed()] {
            let three = facts(3, charter);
            let of = |told: &[Tombstone]| judge(told, 39, &three);
            assert_eq!(of(&[ordered(1)]), Err(Doubt::Minority));
            assert_eq!(of(&[ordered(1), ordered(1)]), Err(Doubt::Minority), "it says it twice");
            assert_eq!(of(&[ordered(1), ordered(4)]), Err(Doubt::Minority), "one that only learns");
            assert_eq!(of(&[ordered(1), ordered(5)]), Err(Doubt::Minority), "and nobody knows this one");
            for other in
                [Dissolution { winner: ClusterId(4), ..ORDER }, Dissolution { at: LogIndex(41), ..ORDER }]
            {
                let other = sign(&test_key(2), LOST, Generation(1), other);
                assert_eq!(of(&[ordered(1), other]), Err(Doubt::Minority), "they say different things");
                assert_eq!(of(&[ordered(1), other, ordered(3)]), Ok(ORDER));
            }
            assert_eq!(of(&[ordered(3), ordered(2)]), Ok(ORDER));
            let forged = Tombstone { signer: ordered(2).signer, ..ordered(1) };
            assert_eq!(of(&[ordered(1), forged]), Err(Doubt::Minority));
        }
        assert_eq!(judge(&[1, 2, 4].map(ordered), 39, &facts(5, committed())), Ok(ORDER));
        assert_eq!(judge(&[1, 4].map(ordered), 39, &facts(5, committed())), Err(Doubt::Minority));
        assert_eq!(judge(&[1, 2].map(ordered), 39, &facts(4, committed())), Err(Doubt::Minority));
    }

    #[test]
    fn while_voters_change_a_majority_of_the_old_ones_is_asked_for_too() {
        let mut changing = facts(3, committed());
        changing.conf_state.voters_outgoing = vec![MemberId(4)];
        let of = |told: &[u8]| judge(&told.iter().copied().map(ordered).collect::<Vec<_>>(), 39, &changing);
        assert_eq!(of(&[1, 2, 3]), Err(Doubt::Minority));
        assert_eq!(of(&[4]), Err(Doubt::Minority));
        assert_eq!(of(&[1, 2, 4]), Ok(ORDER));
    }

    /// Some members were left behind when an operator went on with another one alone, and end their own generation of the cluster.
    #[test]
    fn an_order_to_another_generation_is_none_to_this_one() {
        let known = facts(1, committed());
        let later = Known { generation: Generation(2), ..known_at(39, &known) };
        assert_eq!(believe(&[ordered(1)], &later), Err(Doubt::Signature));
        let of_later = sign(&test_key(1), LOST, Generation(2), ORDER);
        assert_eq!(believe(&[of_later], &later), Ok(ORDER));
    }

    /// A signature over anything else with the same key is none over this.
    #[test]
    fn what_is_signed_has_a_label_of_its_own() {
        let good = tombstone(1);
        let numbers = [LOST.0, WINNER.0, 40].map(u64::to_le_bytes);
        let pair = Ed25519KeyPair::from_pkcs8(test_key(1).pkcs8()).unwrap();
        let mut bare = good;
        bare.signature.copy_from_slice(pair.sign(numbers.as_flattened()).as_ref());
        assert_eq!(judge(&[bare], 1, &facts(1, Charter::automatic())), Err(Doubt::Signature));
    }

    #[test]
    fn who_leaves_takes_along_what_is_known_of_all_clusters_before() {
        let (own, earlier, kept) = (tombstone(1), tombstone(2), tombstone(3));
        let buried = |buried| facts(2, Charter { buried, ..Charter::automatic() });
        assert_eq!(taken_along(own, &buried(vec![earlier, kept]), &[kept, own]), [earlier, kept, own]);
        let mut many = vec![earlier; 100];
        (0..).zip(&mut many).for_each(|(n, one)| one.cluster = ClusterId(n));
        let all = taken_along(own, &buried(many), &[]);
        let clusters: Vec<u64> = all.iter().map(|tombstone| tombstone.cluster.0).collect();
        assert_eq!(clusters, (37..100).chain([LOST.0]).collect::<Vec<_>>());
    }

    /// A cluster of three that vote and a hundred that learn was given up while a voter was away. All the others buried a word each, the learners last, and of the
    /// 64 that were kept none was of a voter: whoever had been away was told of no majority, and waited for ever.
    #[test]
    fn the_words_of_those_who_only_learn_push_out_none_of_those_who_vote() {
        let mut known = facts(3, committed());
        known.members.extend((5..=105).map(|seed| member(seed, false)));
        let next = |buried: &mut Vec<Tombstone>, seed: u8| {
            buried.extend(taken_along(ordered(seed), &known, &[]));
            buried.drain(..buried.len().saturating_sub(TOMBSTONES_MAX));
        };
        let mut buried = Vec::new();
        [1, 2].into_iter().chain(5..=105).for_each(|seed| next(&mut buried, seed));
        assert_eq!(buried, [ordered(1), ordered(2)]);
        assert_eq!(judge(&buried, 39, &known), Ok(ORDER));
    }

    /// Whoever was away may know one as a voter that is about to be none, and another one that is none yet.
    #[test]
    fn of_many_who_votes_or_is_to_leaves_a_word_and_who_learns_takes_along_those_of_others() {
        let mut changing = facts(3, Charter { buried: vec![tombstone(9)], ..committed() });
        changing.members[2].votes = false;
        changing.members[3].votes = true;
        changing.members.extend((10..30).map(|seed| member(seed, false)));
        changing.conf_state.voters = [1, 2, 4].map(MemberId).into();
        changing.conf_state.voters_outgoing = [1, 2, 3].map(MemberId).into();
        for seed in 1..=4 {
            assert_eq!(taken_along(ordered(seed), &changing, &[]), [tombstone(9), ordered(seed)], "{seed}");
        }
        changing.conf_state.voters_outgoing.clear();
        assert_eq!(taken_along(ordered(3), &changing, &[tombstone(8)]), [tombstone(8), tombstone(9)]);
        assert_eq!(taken_along(ordered(7), &changing, &[]), [tombstone(9)], "nobody knows this one");
    }

    /// Five boxes: while one of three voters was in a cupboard, the other two had their votes given to boxes that were there, each in its turn.
    #[test]
    fn of_few_members_also_one_that_has_lost_its_vote_leaves_a_word_for_who_knows_it_as_a_voter() {
        let away = facts(3, committed());
        let mut now = facts(3, committed());
        now.members.push(member(5, true));
        now.members[1].votes = false;
        now.members[2].votes = false;
        now.conf_state.voters = [1, 4, 5].map(MemberId).into();
        now.conf_state.learners = [2, 3].map(MemberId).into();
        let left = [1, 2, 4, 5].map(|seed| taken_along(ordered(seed), &now, &[])).concat();
        assert_eq!(left, [1, 2, 4, 5].map(ordered));
        assert_eq!(judge(&left, 39, &away), Ok(ORDER));
        now.members.extend((10..30).map(|seed| member(seed, false)));
        now.members.truncate(TOMBSTONE_SIGNERS_MAX);
        assert_eq!(taken_along(ordered(2), &now, &[]), [ordered(2)]);
        now.members.push(member(30, false));
        assert_eq!(taken_along(ordered(2), &now, &[]), []);
    }

    /// Whoever leaves a cluster that somebody has filled with words takes along what others have said in it.
    #[test]
    fn the_words_of_one_push_out_none_of_anothers_on_the_way() {
        let said = |cluster, seed| sign(&test_key(seed), ClusterId(cluster), Generation(1), END);
        let honest = [said(100, 1), said(101, 9), said(102, 2)];
        let buried = honest.into_iter().chain((0..61).map(|cluster| said(cluster, 3))).collect();
        let known = facts(3, Charter { buried, ..committed() });
        let all = taken_along(ordered(2), &known, &[]);
        assert_eq!(all.len(), TOMBSTONES_MAX);
        // The second of them is of nobody who is a member.
        assert!([honest[0], honest[2], ordered(2)].iter().all(|word| all.contains(word)));
        let kept: Vec<Tombstone> = (200..264).map(|cluster| said(cluster, 3)).collect();
        let all = taken_along(ordered(2), &known, &kept);
        assert!([honest[0], honest[2], ordered(2)].iter().all(|word| all.contains(word)));
        assert_eq!((all.len(), all[TOMBSTONES_MAX - 1]), (TOMBSTONES_MAX, ordered(2)), "the latest is last");
    }

    #[test]
    fn a_word_is_buried_with_what_shows_whose_it_is_once_the_cluster_looks_at_that() {
        let of_later = sign(&test_key(1), LOST, Generation(GENERATIONS_MAX), ORDER);
        let forged = Tombstone { at: LogIndex(41), ..ordered(1) };
        for (said, ordered) in
            [(tombstone(1), None), (ordered(1), Some(1)), (of_later, Some(GENERATIONS_MAX)), (forged, None)]
        {
            assert_eq!(ordered_of(&said), ordered);
            assert_eq!(burial(said, ordered, CommandVersion::FIRST), CharterCommand::Bury(said));
            let signed = CharterCommand::BurySigned { tombstone: said, ordered };
            assert_eq!(burial(said, ordered, CommandVersion::SIGNED_WORDS), signed);
        }
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
