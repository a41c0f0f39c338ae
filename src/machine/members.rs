//! What commands about members do to the state (API reference, section 4).
//!
//! Owns: who is a member, and the ids. Must never: look at raft's configuration to decide, for that follows the members (`node`'s reconciler).
//! Part of [`Machine`].

use super::Machine;
use crate::command::{CommandVersion, MemberAttributes, MemberCommand, Outcome, Rejection};
use crate::ids::{MemberId, PublicKey};
use crate::limits::REMOVED_MEMBERS_MAX;
use crate::mvcc::Facts;
use crate::store::{ConfState, Member};

impl Machine {
    pub(super) fn execute_member(&mut self, command: &MemberCommand) -> Result<Outcome, Rejection> {
        let facts = self.tip.view().facts();
        let id = match command {
            MemberCommand::Add { peer_urls, votes, learners_max, .. } => {
                check_urls(facts, peer_urls, None)?;
                let learners = facts.members.iter().filter(|member| !member.votes).count() as u64;
                if !votes && learners >= *learners_max {
                    return Err(Rejection::TooManyLearners);
                }
                check_started(facts, command)?;
                let peer_urls = peer_urls.clone();
                self.add(None, *votes, MemberAttributes { peer_urls, ..MemberAttributes::default() })
            }
            MemberCommand::Bind { id, key } => {
                let place = find(facts, *id)?;
                let elsewhere =
                    facts.members.iter().any(|other| other.id() != *id && other.key == Some(*key));
                if place.key.is_some_and(|bound| bound != *key) || elsewhere {
                    return Err(Rejection::PlaceTaken);
                }
                self.edit(*id, |member| member.key = Some(*key))
            }
            MemberCommand::Promote { id, .. } => {
                if find(facts, *id)?.votes {
                    return Err(Rejection::NotLearner);
                }
                check_started(facts, command)?;
                self.edit(*id, |member| member.votes = true)
            }
            MemberCommand::Remove { id, .. } => {
                find(facts, *id)?;
                check_started(facts, command)?;
                self.remove(*id)
            }
            MemberCommand::Update { id, peer_urls } => {
                find(facts, *id)?;
                check_urls(facts, peer_urls, Some(*id))?;
                self.edit(*id, |member| member.attributes.peer_urls.clone_from(peer_urls))
            }
            MemberCommand::Revote { promote, demote } => {
                let first = check_revote(facts, promote, demote)?;
                for id in promote {
                    self.edit(*id, |member| member.votes = true);
                }
                for id in demote {
                    self.edit(*id, |member| member.votes = false);
                }
                first
            }
        };
        Ok(Outcome::Member(id))
    }

    /// What a member says of itself. One that was removed while it said so stays removed. Where it is for others is for the operator to say,
    /// once anybody has; in a cluster that formed by itself members say it themselves, and one that has no address now is where it was.
    pub(super) fn publish(&mut self, attributes: &MemberAttributes) {
        self.tip.digest_mut().attributes(attributes);
        let says_where = self.tip.view().facts().charter.automatic && !attributes.peer_urls.is_empty();
        let members = &mut self.tip.facts_mut().members;
        if let Ok(position) = members.binary_search_by_key(&attributes.member, Member::id) {
            let known = &mut members[position].attributes;
            let peer_urls = std::mem::take(&mut known.peer_urls);
            *known = attributes.clone();
            if !peer_urls.is_empty() && !says_where {
                known.peer_urls = peer_urls;
            }
            self.wait_no_more(attributes.member);
        }
    }

    /// Commands of this version may come. Not where it is in use, or somebody does not understand it who was not there, or came back with an older build,
    /// when that was proposed.
    pub(super) fn raise(&mut self, to: CommandVersion) -> Result<(), Rejection> {
        let facts = self.tip.view().facts();
        if to <= facts.commands || facts.understood_by_all().is_none_or(|understood| to > understood) {
            return Err(Rejection::NotCapable);
        }
        self.tip.facts_mut().commands = to;
        Ok(())
    }

    /// A cluster that was founded for several has formed once all of them vote.
    pub(super) fn follow_configuration(&mut self, conf_state: ConfState) {
        let facts = self.tip.facts_mut();
        let votes = |member: &Member| !member.votes || conf_state.voters.contains(&member.id());
        facts.forming &= !(conf_state.voters_outgoing.is_empty() && facts.members.iter().all(votes));
        facts.conf_state = conf_state;
    }

    /// A member, or a place for one, with an id of its own.
    pub(super) fn add(
        &mut self,
        key: Option<PublicKey>,
        votes: bool,
        attributes: MemberAttributes,
    ) -> MemberId {
        let seed = self.applied().0 ^ self.tip.view().digest().0;
        let id = new_id(seed, self.tip.view().facts());
        let attributes = MemberAttributes { member: id, ..attributes };
        let members = &mut self.tip.facts_mut().members;
        let place = members.partition_point(|member| member.id() < id);
        members.insert(place, Member { key, votes, attributes });
        self.note(id)
    }

    pub(super) fn edit(&mut self, id: MemberId, edit: impl FnOnce(&mut Member)) -> MemberId {
        let members = &mut self.tip.facts_mut().members;
        if let Some(member) = members.iter_mut().find(|member| member.id() == id) {
            edit(member);
        }
        self.note(id)
    }

    fn remove(&mut self, id: MemberId) -> MemberId {
        if let Some(key) = self.take_out(id, true) {
            self.bar(key);
        }
        self.note(id)
    }

    /// As a removal, but that nothing is held against the key.
    pub(super) fn drop_member(&mut self, id: MemberId) {
        self.take_out(id, false);
        self.note(id);
    }

    /// The id is never used again, nor is its key, if that is to be `barred`; which one that is then.
    fn take_out(&mut self, id: MemberId, barred: bool) -> Option<PublicKey> {
        let mut key = None;
        let facts = self.tip.facts_mut();
        for gone in facts.members.extract_if(.., |member| member.id() == id) {
            if facts.removed.len() == REMOVED_MEMBERS_MAX {
                // What bars nobody goes first.
                let oldest = facts.removed.iter().position(|(_, key)| key.is_none()).unwrap_or(0);
                facts.removed.remove(oldest);
            }
            key = gone.key.filter(|_| barred);
            facts.removed.push((id, key));
        }
        facts.alarms.retain(|alarm| alarm.member != id);
        facts.over_quota.retain(|member| *member != id);
        self.wait_no_more(id);
        key
    }

    /// The digest knows of every change of a member.
    fn note(&mut self, id: MemberId) -> MemberId {
        let found = self.tip.view().facts().members.iter().find(|member| member.id() == id).cloned();
        self.tip.digest_mut().member(id, found.as_ref());
        id
    }
}

/// Whether enough of the voters have started for a change that is to be strict about it.
pub fn check_started(facts: &Facts, command: &MemberCommand) -> Result<(), Rejection> {
    match command {
        MemberCommand::Add { votes: true, strict: true, .. }
        | MemberCommand::Promote { strict: true, .. } => check_growth(facts),
        MemberCommand::Remove { id, strict: true } if voters(facts).any(|voter| voter.id() == *id) => {
            check_removal(facts, *id)
        }
        MemberCommand::Add { .. }
        | MemberCommand::Bind { .. }
        | MemberCommand::Promote { .. }
        | MemberCommand::Remove { .. }
        | MemberCommand::Update { .. }
        | MemberCommand::Revote { .. } => Ok(()),
    }
}

fn find(facts: &Facts, id: MemberId) -> Result<&Member, Rejection> {
    facts.members.iter().find(|member| member.id() == id).ok_or(Rejection::MemberNotFound)
}

fn check_urls(facts: &Facts, urls: &[String], own: Option<MemberId>) -> Result<(), Rejection> {
    let mut others = facts.members.iter().filter(|member| Some(member.id()) != own);
    let taken = others.any(|member| member.attributes.peer_urls.iter().any(|url| urls.contains(url)));
    if taken { Err(Rejection::PeerUrlExists) } else { Ok(()) }
}

/// The members have not changed since so that it would leave fewer voters than was meant, or none. Answers the first member that it names.
fn check_revote(facts: &Facts, promote: &[MemberId], demote: &[MemberId]) -> Result<MemberId, Rejection> {
    for id in promote {
        find(facts, *id)?;
    }
    let is_voter = |id: &MemberId| voters(facts).any(|voter| voter.id() == *id);
    if !demote.iter().all(is_voter) {
        return Err(Rejection::MemberNotFound);
    }
    let votes = |member: &Member| member.votes || promote.contains(&member.id());
    if !facts.members.iter().any(|member| votes(member) && !demote.contains(&member.id())) {
        return Err(Rejection::NotEnoughStarted);
    }
    promote.iter().chain(demote).next().copied().ok_or(Rejection::MemberNotFound)
}

fn has_started(member: &Member) -> bool {
    !member.attributes.name.is_empty()
}

fn voters(facts: &Facts) -> impl Iterator<Item = &Member> {
    facts.members.iter().filter(|member| member.votes)
}

/// With one voter more, a majority of the voters must have started. The second one of all may come to a cluster of one, which could not grow
/// otherwise.
fn check_growth(facts: &Facts) -> Result<(), Rejection> {
    let started = voters(facts).filter(|member| has_started(member)).count();
    let grown = voters(facts).count() + 1;
    let majority = grown / 2 + 1;
    if (started == 1 && grown == 2) || started >= majority {
        Ok(())
    } else {
        Err(Rejection::NotEnoughStarted)
    }
}

/// Without the one that goes, a majority of the voters must have started. One that has not may always go.
fn check_removal(facts: &Facts, id: MemberId) -> Result<(), Rejection> {
    let stays = |member: &&Member| member.id() != id;
    let started = voters(facts).filter(stays).filter(|member| has_started(member)).count();
    let left = voters(facts).filter(stays).count();
    if started > left / 2 { Ok(()) } else { Err(Rejection::NotEnoughStarted) }
}

/// A number that follows from the log alone and that no member has or had, as far as it is remembered: never 0.
fn new_id(seed: u64, facts: &Facts) -> MemberId {
    let is_taken = |id: MemberId| {
        id == MemberId(0)
            || facts.members.iter().any(|member| member.id() == id)
            || facts.removed.iter().any(|(removed, _)| *removed == id)
    };
    let mut prng = crate::prng::Prng::new(seed);
    loop {
        let id = MemberId(prng.next_u64());
        if !is_taken(id) {
            return id;
        }
    }
}

#[cfg(test)]
#[path = "members_test.rs"]
mod tests;
