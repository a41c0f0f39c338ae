//! Words of other clusters' members, before and after a cluster looks at who has signed them.
//!
//! Owns: the cases, and what whoever has a member's key may try. Must never: share code with what it judges. Driven by the test runner.

use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::*;
use crate::command::CommandVersion;

/// More than ever have room.
const MANY: u64 = 10_000;
const LIAR: u64 = 7;
/// That of builds which had no other rules, after what the first test does until then.
const DIGEST_BEFORE: u64 = 16_306_440_380_838_714_577;

fn pair(seed: u64) -> Ed25519KeyPair {
    let mut bytes = [1; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    Ed25519KeyPair::from_seed_unchecked(&bytes).unwrap()
}

fn key_of(seed: u64) -> PublicKey {
    PublicKey(pair(seed).public_key().as_ref().try_into().unwrap())
}

/// What the holder of a key says of a cluster, under the label that stands in the formats.
fn word(cluster: u64, seed: u64, ordered: Option<u64>) -> Tombstone {
    let (winner, at) = (WINNER, LogIndex(40));
    let numbers = [cluster, winner.0, at.0].map(u64::to_le_bytes);
    let said = match ordered {
        None => [b"covey tombstone 1", numbers.as_flattened()].concat(),
        Some(of) => [b"covey yield 2", numbers.as_flattened(), &of.to_le_bytes()].concat(),
    };
    let mut signature = [0; 64];
    signature.copy_from_slice(pair(seed).sign(&said).as_ref());
    Tombstone { cluster: ClusterId(cluster), winner, at, signer: key_of(seed), signature }
}

fn bury_all<'w>(rig: &mut Rig, words: impl IntoIterator<Item = &'w Tombstone>) {
    for word in words {
        bury(rig, *word, None);
    }
}

fn bury(rig: &mut Rig, tombstone: Tombstone, ordered: Option<u64>) {
    let command = CharterCommand::BurySigned { tombstone, ordered };
    assert_eq!(rig.change(command), Ok(Outcome::Charter));
}

/// Each says something of a cluster of its own.
fn buries_own(rig: &mut Rig, seeds: impl Iterator<Item = u64>) -> Vec<Tombstone> {
    let words: Vec<Tombstone> = seeds.map(|seed| word(100 + seed, seed, None)).collect();
    bury_all(rig, &words);
    words
}

/// A cluster with members by these keys.
fn of_members(seeds: impl Iterator<Item = u64>) -> Rig {
    let mut rig = Rig::automatic();
    for seed in seeds {
        let (key, name, by) = (key_of(seed), String::new(), Admission::Window);
        let run = Incarnation(1);
        rig.change(CharterCommand::Admit { key, name, peer_urls: Vec::new(), by, run, of: None }).unwrap();
    }
    rig
}

/// All of them are of builds that look at words, and the cluster does.
fn raise(rig: &mut Rig) {
    for member in rig.view().facts().members.clone() {
        let understands = CommandVersion::SIGNED_WORDS;
        let attributes = MemberAttributes { understands, ..member.attributes };
        rig.apply(Command::Publish(attributes)).outcome.unwrap();
    }
    rig.apply(Command::Raise(CommandVersion::SIGNED_WORDS)).outcome.unwrap();
}

fn raised(seeds: impl Iterator<Item = u64>) -> Rig {
    let mut rig = of_members(seeds);
    raise(&mut rig);
    rig
}

fn has_all(rig: &Rig, words: &[Tombstone]) -> bool {
    words.iter().all(|word| rig.charter().buried.contains(word))
}

/// All members have to do as those of the first builds did until the cluster uses what these did not have; what is in a log from that time does the same for ever.
#[test]
fn until_all_understand_it_words_are_kept_as_they_always_were() {
    let mut rig = of_members(0..3);
    let first = word(1, 0, None);
    let other = Tombstone { signature: [9; 64], ..first };
    for said in [first, other] {
        rig.change(CharterCommand::Bury(said)).unwrap();
    }
    assert_eq!(rig.charter().buried, [first], "the first word of each counts, whoever has signed it");
    let late: Vec<Tombstone> = (0..64).map(|n| tombstone(n, 9)).collect();
    for said in &late {
        rig.change(CharterCommand::Bury(*said)).unwrap();
    }
    assert_eq!(rig.charter().buried, late, "the oldest went, a member's before those of nobody");
    assert_eq!(rig.view().digest().0, DIGEST_BEFORE, "members of earlier builds come to the same");
    let signed = CharterCommand::BurySigned { tombstone: first, ordered: None };
    assert_eq!(rig.change(signed.clone()), Err(Rejection::NotCapable));
    raise(&mut rig);
    assert_eq!(rig.charter().buried, late);
    assert_eq!(rig.change(CharterCommand::Bury(first)), Err(Rejection::NotCapable));
    rig.change(signed).unwrap();
    assert_eq!(rig.charter().buried, [&late[1..], &[first]].concat());
    rig.rotate();
    rig.fold();
    rig.reopen();
    rig.check_digest();
}

/// In the name of others anybody could push out what they have said, or be there before them.
#[test]
fn a_word_counts_as_that_of_whoever_has_signed_it() {
    let mut rig = raised(0..3);
    let good = word(1, 0, None);
    let forged = [
        Tombstone { signature: [9; 64], ..good },
        Tombstone { signature: word(1, 1, None).signature, ..good },
        Tombstone { cluster: ClusterId(2), ..good },
        Tombstone { winner: ClusterId(9), ..good },
        Tombstone { at: LogIndex(41), ..good },
    ];
    for said in forged {
        bury(&mut rig, said, None);
        bury(&mut rig, said, Some(1));
    }
    bury(&mut rig, good, Some(1));
    let ordered = word(3, 0, Some(2));
    bury(&mut rig, ordered, None);
    bury(&mut rig, ordered, Some(1));
    assert_eq!(rig.charter().buried, []);
    bury(&mut rig, good, None);
    bury(&mut rig, ordered, Some(2));
    bury(&mut rig, good, None);
    assert_eq!(rig.charter().buried, [good, ordered], "each once");
    let again = word(1, 0, Some(2));
    bury(&mut rig, again, Some(2));
    assert_eq!(rig.charter().buried, [good, ordered, again], "one may say more than one thing");
    assert!(!rig.charter().committed);
    rig.check_digest();
}

/// What somebody says who has a member's key, or keys of nobody, or puts others' names under it.
fn lies(n: u64, honest: &[Tombstone]) -> [Tombstone; 3] {
    let named = honest[usize::try_from(n).unwrap() % honest.len()];
    let in_its_name = Tombstone { cluster: ClusterId(1000 + n), ..named };
    [word(1000 + n, LIAR, None), word(1000 + n, 1000 + n, None), in_its_name]
}

#[test]
fn whoever_has_a_members_key_pushes_out_no_newest_word_of_another() {
    for many in [64, MANY] {
        let mut rig = raised(0..=LIAR);
        let old: Vec<Tombstone> = (0..3).map(|n| word(50 + n, 0, None)).collect();
        bury_all(&mut rig, &old);
        let honest = buries_own(&mut rig, 0..LIAR);
        for n in 0..many {
            bury_all(&mut rig, &lies(n, &honest));
        }
        assert!(has_all(&rig, &honest) && has_all(&rig, &old), "after {many}");
        let late = [word(300, 3, None), word(301, 0, None)];
        bury_all(&mut rig, &late);
        assert!(has_all(&rig, &honest) && has_all(&rig, &old) && has_all(&rig, &late), "after {many}");
        assert_eq!(rig.charter().buried.len(), 64);
    }
}

/// As many as words have room, and one of them lies.
#[test]
fn of_as_many_members_as_there_is_room_each_has_its_newest_word() {
    let mut rig = raised(0..64);
    let honest = buries_own(&mut rig, (0..64).filter(|seed| *seed != LIAR));
    for n in 0..200 {
        bury_all(&mut rig, &lies(n, &honest));
    }
    assert!(has_all(&rig, &honest));
    let newer = word(400, 9, None);
    bury(&mut rig, newer, None);
    let is_gone = |word: &Tombstone| !rig.charter().buried.contains(word);
    assert!(has_all(&rig, &[newer]));
    assert_eq!(honest.iter().filter(|word| is_gone(word)).copied().collect::<Vec<_>>(), [word(109, 9, None)]);
}

/// Whose box was taken out since may have spoken the truth.
#[test]
fn words_of_nobody_here_are_kept_while_there_is_room_and_push_out_none() {
    let mut rig = raised(0..3);
    let gone = buries_own(&mut rig, 0..1);
    let id = rig.view().facts().members.iter().find(|member| member.key == Some(key_of(0))).unwrap().id();
    rig.apply(remove(id)).outcome.unwrap();
    let strangers = buries_own(&mut rig, 100..263);
    assert!(has_all(&rig, &gone) && has_all(&rig, &strangers[..63]));
    assert_eq!(rig.charter().buried.len(), 64);
    for n in 0..2 {
        bury(&mut rig, word(500 + n, 1, None), None);
    }
    assert!(!has_all(&rig, &gone) && !has_all(&rig, &strangers[..1]), "the oldest go first");
    assert!(has_all(&rig, &strangers[1..63]));
    for n in 2..64 {
        bury(&mut rig, word(500 + n, 1, None), None);
    }
    assert!(rig.charter().buried.iter().all(|word| word.signer == key_of(1)));
    rig.rotate();
    rig.fold();
    rig.reopen();
    rig.check_digest();
}

#[test]
fn the_members_of_a_cluster_are_waited_for_by_a_signed_word_and_by_no_other() {
    let mut rig = of_members(0..2);
    let (of, by, run) = (Some(ClusterId(1)), Admission::Window, Incarnation(0));
    let absorb = CharterCommand::Admit { key: key(9), name: "9".into(), peer_urls: Vec::new(), by, run, of };
    raise(&mut rig);
    rig.change(absorb).unwrap();
    bury(&mut rig, Tombstone { signature: [9; 64], ..word(1, 0, None) }, None);
    assert_eq!(rig.charter().awaited.len(), 1);
    bury(&mut rig, word(1, 0, None), None);
    assert_eq!(rig.charter().awaited, []);
}
