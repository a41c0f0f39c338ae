//! Who votes, where the members need nobody to say so.
//!
//! Owns: how many members vote, who is promoted, who takes the place of a voter that stays away, and who is not waited for any more. Must never: leave fewer voters
//! than there were, take the vote from a member that is there, or let anybody go who has ever come. [`Growth`] is pure; [`Core`] asks it while it leads.
//!
//! ```text
//! nodes        voters
//! 1            1
//! 2            1, and one with all data: two voters would be one more that must not fail
//! 3, 4         3, from one to three in one change
//! 5 and more   3, or 5 or 7 as set; the rest have all data
//! ```
//!
//! Raft's configuration follows what the state says of the members (`reconcile`). Votes that an operator has given count like others, so that there may be
//! more of them than in the table.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::core::Core;
use super::reconcile::{Membership, Target};
use crate::command::{CharterCommand, Command, CommandVersion, Envelope, MemberCommand, codec};
use crate::consensus::Role;
use crate::ids::{LogIndex, MemberId, ProposalId, Term};
use crate::limits::{HEARTBEAT, NEVER_HEARD_MAX, VOTER_ABSENCE_MAX, VOTER_PROBATION, VOTERS};
use crate::store::ConfState;
use crate::time::Instant;

/// How often a leader looks at its members: as often as they have to say something.
const LOOK_INTERVAL: Duration = HEARTBEAT;
/// What stands for a run in the proposals of a leader by itself: nobody waits for their answers. Their number is their place in the log.
const NO_RUN: u64 = 0;

/// By what a leader decides who votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VotePolicy {
    /// So many vote, if there are as many: an odd number. Where it is lowered, nobody's vote is taken for that.
    pub voters: usize,
    /// How long a member has been well before it votes.
    pub probation: Duration,
    /// A voter that was missed for so long is replaced.
    pub absence_max: Duration,
    /// Who was never heard by a leader that has led for so long does not keep others from being replaced.
    pub never_heard_max: Duration,
}

impl Default for VotePolicy {
    fn default() -> Self {
        Self {
            voters: VOTERS,
            probation: VOTER_PROBATION,
            absence_max: VOTER_ABSENCE_MAX,
            never_heard_max: NEVER_HEARD_MAX,
        }
    }
}

/// What a leader has seen of another member since it leads.
#[derive(Clone, Copy, Debug)]
struct Seen {
    heard: Instant,
    /// When it had last caught up, and since when it always had.
    well: Instant,
    well_since: Option<Instant>,
    /// For how long it was missed, as far as that counts.
    missed: Duration,
    /// How long a majority was there and it has never been heard; `None`: it has been.
    unheard: Option<Duration>,
}

impl Seen {
    /// Whoever a leader has not looked for before may be about to say something.
    fn at(now: Instant) -> Self {
        Self {
            heard: now,
            well: now,
            well_since: None,
            missed: Duration::ZERO,
            unheard: Some(Duration::ZERO),
        }
    }

    fn is_silent(&self, now: Instant, silence_max: Duration) -> bool {
        now.since(self.heard) > silence_max
    }
}

/// What is known at one moment.
pub(super) struct Outlook<'a> {
    pub(super) now: Instant,
    pub(super) term: Term,
    pub(super) me: MemberId,
    /// Of the log, `wanted` knows at least as much.
    pub(super) applied: LogIndex,
    pub(super) wanted: &'a Membership,
    /// Raft's configuration, which follows it.
    pub(super) conf: &'a ConfState,
    /// Who was not heard for so long does not answer in time.
    pub(super) silence_max: Duration,
}

impl Outlook<'_> {
    /// Members whose nodes have come. A place that waits for one counts for nothing, nor does a node that was let in and is elsewhere: of a cluster that was to
    /// become a part of this one and has not, for example.
    fn members(&self) -> impl Iterator<Item = &Target> {
        self.wanted.targets.iter().filter(|target| target.bound && (target.came || target.votes))
    }

    /// Members whose nodes have had all the time to come, and have not.
    fn overdue(&self) -> impl Iterator<Item = &Target> {
        self.wanted.targets.iter().filter(|target| target.bound && target.overdue)
    }

    fn voters(&self) -> impl Iterator<Item = MemberId> {
        self.members().filter(|target| target.votes).map(|target| target.member)
    }

    fn learners(&self) -> impl Iterator<Item = MemberId> {
        self.members().filter(|target| !target.votes).map(|target| target.member)
    }
}

/// What a leader makes of what it sees of the members. A new leader begins anew: it does not know what another one has seen.
///
/// # Contract
///
/// [`Growth::observe`] whenever [`Growth::is_due`]; after it, [`Growth::next`], and [`Growth::note_asked`] with the place of what was proposed.
#[derive(Debug)]
pub(super) struct Growth {
    policy: VotePolicy,
    /// The term in which it was looked.
    term: Term,
    looked: Instant,
    members: BTreeMap<MemberId, Seen>,
    /// Where in the log the last proposal is.
    asked: Option<LogIndex>,
}

impl Default for Growth {
    fn default() -> Self {
        Self {
            policy: VotePolicy::default(),
            term: Term(0),
            looked: Instant(0),
            members: BTreeMap::new(),
            asked: None,
        }
    }
}

impl Growth {
    /// Whether it is time to look, for the leader of this term.
    pub(super) fn is_due(&self, now: Instant, term: Term) -> bool {
        term != self.term || now >= self.looked + LOOK_INTERVAL
    }

    /// The leader looks at the others: whom it has heard, and who has all that is in the log but for what is on its way.
    pub(super) fn observe(
        &mut self,
        outlook: &Outlook,
        is_active: impl Fn(MemberId) -> bool,
        has_caught_up: impl Fn(MemberId) -> bool,
    ) {
        let Outlook { now, term, me, silence_max, .. } = *outlook;
        if term != self.term {
            *self = Self { policy: self.policy, term, looked: now, ..Self::default() };
        }
        // While the process itself stood still nobody was missed.
        let passed = now.since(self.looked).min(silence_max);
        self.looked = now;
        let watched = || outlook.members().chain(outlook.overdue());
        self.members.retain(|member, _| watched().any(|target| target.member == *member));
        for target in watched().filter(|target| target.member != me) {
            let seen = self.members.entry(target.member).or_insert(Seen::at(now));
            if is_active(target.member) {
                (seen.heard, seen.missed, seen.unheard) = (now, Duration::ZERO, None);
            }
            if has_caught_up(target.member) {
                seen.well = now;
                seen.well_since.get_or_insert(now);
            } else if now.since(seen.well) > silence_max {
                seen.well_since = None;
            }
        }
        if self.has_majority(outlook) {
            let is_frozen = self.is_frozen(outlook);
            for seen in self.members.values_mut().filter(|seen| seen.is_silent(now, silence_max)) {
                seen.missed += if is_frozen { Duration::ZERO } else { passed };
                seen.unheard = seen.unheard.map(|unheard| unheard + passed);
            }
        }
    }

    /// Whose votes are to change, if it is time for that.
    pub(super) fn next(&self, outlook: &Outlook) -> Option<MemberCommand> {
        let waits = self.asked.is_some_and(|index| index > outlook.applied);
        if waits || !self.has_majority(outlook) || self.is_changing(outlook) {
            return None;
        }
        let spare: Vec<MemberId> =
            outlook.learners().filter(|learner| self.is_ready(outlook, *learner)).collect();
        self.promotion(outlook, &spare).or_else(|| self.replacement(outlook, &spare))
    }

    /// Who was let in, has never come, and is not about to: this leader has not heard of it for as long as takes a voter its vote.
    pub(super) fn forgotten(&self, outlook: &Outlook) -> Option<MemberId> {
        let waits = self.asked.is_some_and(|index| index > outlook.applied);
        let gone = |member: &MemberId| self.is_gone(*member);
        outlook.overdue().map(|target| target.member).find(gone).filter(|_| !waits)
    }

    /// A proposal is in the log: until it is applied there is no other.
    pub(super) fn note_asked(&mut self, index: LogIndex) {
        self.asked = Some(index);
    }

    /// As many as there may be, and always an odd number: one more stands no further loss.
    fn promotion(&self, outlook: &Outlook, spare: &[MemberId]) -> Option<MemberCommand> {
        let voters = outlook.voters().count();
        let wanted = outlook.members().count().min(self.policy.voters);
        let count = odd(wanted.min(voters + spare.len()));
        let promote: Vec<MemberId> = spare.iter().take(count.saturating_sub(voters)).copied().collect();
        (!promote.is_empty()).then_some(MemberCommand::Revote { promote, demote: Vec::new() })
    }

    /// A voter that stays away, the longest first, and who votes instead.
    fn replacement(&self, outlook: &Outlook, spare: &[MemberId]) -> Option<MemberCommand> {
        if self.is_frozen(outlook) {
            return None;
        }
        let gone = outlook.voters().filter(|voter| self.is_gone(*voter));
        let missed = |voter: &MemberId| self.members.get(voter).map(|seen| seen.missed);
        let demote = gone.max_by_key(|voter| (missed(voter), Reverse(*voter)))?;
        let promote = *spare.first()?;
        Some(MemberCommand::Revote { promote: vec![promote], demote: vec![demote] })
    }

    /// Raft's configuration is about to become what is wanted. It does not as long as it waits for a member that stays away: that one is replaced, too.
    fn is_changing(&self, outlook: &Outlook) -> bool {
        let votes = |member: &MemberId| outlook.conf.voters.contains(member);
        let mut waiting = outlook.voters().filter(|member| !votes(member)).peekable();
        if waiting.peek().is_some() {
            !waiting.any(|member| self.is_gone(member))
        } else {
            outlook.learners().any(|member| votes(&member))
        }
    }

    /// It has caught up and has been well for long enough. As long as no user has written, what is at risk is that there is one voter only.
    fn is_ready(&self, outlook: &Outlook, learner: MemberId) -> bool {
        let probation = if outlook.wanted.committed { self.policy.probation } else { Duration::ZERO };
        let since = self.members.get(&learner).and_then(|seen| seen.well_since);
        since.is_some_and(|since| outlook.now.since(since) >= probation)
    }

    /// It stays away.
    fn is_gone(&self, member: MemberId) -> bool {
        let is_gone = |seen: &Seen| {
            seen.missed >= self.policy.absence_max
                || seen.unheard.is_some_and(|unheard| unheard >= self.policy.never_heard_max)
        };
        self.members.get(&member).is_some_and(is_gone)
    }

    fn is_silent(&self, outlook: &Outlook, member: MemberId) -> bool {
        member != outlook.me
            && self.members.get(&member).is_none_or(|seen| seen.is_silent(outlook.now, outlook.silence_max))
    }

    /// A leader that the others have lost learns of it only after a while, and must not take them for lost meanwhile.
    fn has_majority(&self, outlook: &Outlook) -> bool {
        let voters = &outlook.conf.voters;
        let here = voters.iter().filter(|voter| !self.is_silent(outlook, **voter)).count();
        here > voters.len() / 2
    }

    /// Half of the members or more have vanished together: that is no broken box but a switch, a fuse, or a rack, and they are all going to come back.
    /// Whoever was gone before is not among them: one that this leader has missed, or has not heard once though it has led for long. It may have been elected because they
    /// vanished, and waits for them as well. A swap that comes too early costs little: a majority is there, or nobody would lead, and who comes back listens.
    fn is_frozen(&self, outlook: &Outlook) -> bool {
        let members = outlook.members().map(|target| target.member);
        let rest: Vec<MemberId> = members.filter(|member| !self.is_gone(*member)).collect();
        let vanished = rest.iter().filter(|member| self.is_silent(outlook, **member)).count();
        2 * vanished >= rest.len()
    }
}

/// The largest odd number that is not above this one.
fn odd(number: usize) -> usize {
    number.saturating_sub(usize::from(number.is_multiple_of(2)))
}

/// Members that vote as the leader decides.
impl Core {
    /// Decides by this who votes, where members need nobody for that.
    pub fn set_vote_policy(&mut self, policy: VotePolicy) {
        self.growth.policy = policy;
    }

    /// So many are to vote from now on.
    pub fn set_voters(&mut self, voters: usize) {
        self.growth.policy.voters = voters;
    }

    /// Proposes that others vote, once that is called for.
    pub(super) fn grow(&mut self) {
        let Some(wanted) = self.membership.as_ref().filter(|wanted| wanted.automatic) else { return };
        let status = self.consensus.status();
        if status.role != Role::Leader || !self.growth.is_due(self.now, status.term) {
            return;
        }
        let consensus = &self.consensus;
        let outlook = Outlook {
            now: self.now,
            term: status.term,
            me: consensus.member(),
            applied: consensus.applied(),
            wanted,
            conf: &consensus.conf_state(),
            silence_max: consensus.silence_max(),
        };
        self.growth.observe(
            &outlook,
            |member| consensus.is_active(member),
            |member| consensus.has_caught_up(member),
        );
        // Also: its own state is as new as its term, and it is not about to go.
        if !consensus.takes_conf_change() {
            return;
        }
        let forget = |member| Command::Charter(CharterCommand::Forget { member });
        let next = self.growth.next(&outlook).map(Command::Member);
        let Some(command) = next.or_else(|| self.growth.forgotten(&outlook).map(forget)) else { return };
        let index = status.last.next();
        let id = ProposalId { boot: NO_RUN, seq: index.0 };
        let envelope = Envelope { id, caller: None, command };
        // What the cluster uses is not known here: only what was always there is proposed.
        let Some(envelope) = codec::encode_for(&envelope, || CommandVersion::FIRST) else { return };
        // What is refused now is wanted again at the next look.
        if self.consensus.propose(self.now, vec![envelope]).is_ok() {
            self.growth.note_asked(index);
        }
    }
}

#[cfg(test)]
#[path = "growth_test.rs"]
mod tests;
