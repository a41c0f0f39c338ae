//! Who belongs to the cluster, as the log says.
//!
//! Owns: the members by the rules of their commands, and that no id is given twice. Must never: believe a member of anything but the id that it has
//! drawn. Driven by `oracle`.

use std::collections::{BTreeMap, BTreeSet};

use covey::command::{MemberCommand, Outcome, Rejection};
use covey::ids::{MemberId, PublicKey};
use covey::mvcc::Facts;

/// A place: for one node, by its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    votes: bool,
    key: Option<PublicKey>,
}

/// What a command has to come to; which id is drawn for a new member is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    Added,
    Changed(MemberId),
    Rejected(Rejection),
}

#[derive(Default)]
pub(crate) struct Places {
    by_url: BTreeMap<String, Place>,
    /// All ids that anybody was shown, and for which place.
    ids: BTreeMap<MemberId, String>,
    /// Those that are gone; their place may have another one.
    gone: BTreeSet<MemberId>,
    pub(crate) added: u64,
    pub(crate) promoted: u64,
    pub(crate) demoted: u64,
    pub(crate) removed: u64,
}

impl Places {
    /// A member shows this id for this place.
    pub(crate) fn see(&mut self, id: MemberId, url: &str) {
        let known = self.ids.entry(id).or_insert_with(|| url.to_owned());
        assert_eq!(known, url, "member id {id} was given twice");
    }

    /// One of the first members.
    pub(crate) fn found(&mut self, id: MemberId, url: &str, key: PublicKey) {
        self.see(id, url);
        self.by_url.insert(url.to_owned(), Place { votes: true, key: Some(key) });
    }

    /// A command takes effect.
    pub(crate) fn apply(&mut self, command: &MemberCommand) -> Expected {
        match self.execute(command) {
            Ok(expected) => expected,
            Err(rejection) => Expected::Rejected(rejection),
        }
    }

    fn execute(&mut self, command: &MemberCommand) -> Result<Expected, Rejection> {
        Ok(match command {
            MemberCommand::Add { peer_urls, votes, learners_max, .. } => {
                let [url] = &peer_urls[..] else { panic!("the world adds nodes of one URL") };
                if self.by_url.contains_key(url) {
                    return Err(Rejection::PeerUrlExists);
                }
                let learners = self.by_url.values().filter(|place| !place.votes).count() as u64;
                if !votes && learners >= *learners_max {
                    return Err(Rejection::TooManyLearners);
                }
                self.by_url.insert(url.clone(), Place { votes: *votes, key: None });
                self.added += 1;
                Expected::Added
            }
            MemberCommand::Bind { id, key } => {
                let place = self.find(*id)?;
                if place.key.is_some_and(|bound| bound != *key) {
                    return Err(Rejection::PlaceTaken);
                }
                place.key = Some(*key);
                Expected::Changed(*id)
            }
            MemberCommand::Promote { id, .. } => {
                let place = self.find(*id)?;
                if place.votes {
                    return Err(Rejection::NotLearner);
                }
                place.votes = true;
                self.promoted += 1;
                Expected::Changed(*id)
            }
            MemberCommand::Remove { id, .. } => {
                self.find(*id)?;
                self.by_url.remove(&self.ids[id]);
                self.gone.insert(*id);
                self.removed += 1;
                Expected::Changed(*id)
            }
            MemberCommand::Update { .. } => panic!("the world moves nobody"),
            MemberCommand::Revote { promote, demote } => self.revote(promote, demote)?,
        })
    }

    /// Votes move as a whole or not at all.
    fn revote(&mut self, promote: &[MemberId], demote: &[MemberId]) -> Result<Expected, Rejection> {
        for id in promote {
            self.find(*id)?;
        }
        for id in demote {
            if !self.find(*id)?.votes {
                return Err(Rejection::MemberNotFound);
            }
        }
        let before = self.by_url.clone();
        for (ids, votes) in [(promote, true), (demote, false)] {
            for id in ids {
                self.find(*id)?.votes = votes;
            }
        }
        if !self.by_url.values().any(|place| place.votes) {
            self.by_url = before;
            return Err(Rejection::NotEnoughStarted);
        }
        self.promoted += promote.len() as u64;
        self.demoted += demote.len() as u64;
        Ok(Expected::Changed(*promote.iter().chain(demote).next().ok_or(Rejection::MemberNotFound)?))
    }

    fn find(&mut self, id: MemberId) -> Result<&mut Place, Rejection> {
        if self.gone.contains(&id) {
            return Err(Rejection::MemberNotFound);
        }
        // Whoever names an id was shown it before.
        self.by_url.get_mut(&self.ids[&id]).ok_or(Rejection::MemberNotFound)
    }

    /// An answer to a command.
    pub(crate) fn check(expected: &Expected, outcome: &Result<Outcome, Rejection>) {
        match (expected, outcome) {
            (Expected::Added, Ok(Outcome::Member(_))) => {}
            (Expected::Changed(id), Ok(Outcome::Member(changed))) => assert_eq!(id, changed),
            (Expected::Rejected(rejection), Err(got)) => assert_eq!(rejection, got),
            _ => panic!("{outcome:?} where {expected:?} follows from the log"),
        }
    }

    /// A member that has applied everything must have exactly these.
    pub(crate) fn check_all(&self, facts: &Facts) {
        let of = |place: &Place| (place.votes, place.key);
        let expected: BTreeMap<&str, _> =
            self.by_url.iter().map(|(url, place)| (&url[..], of(place))).collect();
        let shown = facts.members.iter().map(|member| {
            let [url] = &member.attributes.peer_urls[..] else { panic!("one URL each") };
            (&url[..], (member.votes, member.key))
        });
        assert_eq!(shown.collect::<BTreeMap<_, _>>(), expected, "the members");
    }
}
