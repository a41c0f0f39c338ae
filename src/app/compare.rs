//! Compares the state with that of the other members now and then, and acts on what comes out.
//!
//! Owns: when, what a difference leads to, and when it is settled. Must never: let a state be shown that a majority contradicts, or take silence
//! for consent. Driven by `serve`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use smol::Timer;

use crate::command::{Alarm, AlarmAction, AlarmKind, Command};
use crate::ids::{LogIndex, MemberId};
use crate::node::Verdict;
use crate::runtime::Handle;
use crate::store::ConfState;

/// How long another member may take to lead in the place of one whose state is wrong, before that one goes all the same.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);

/// So many comparisons may find a difference and come to nothing because a voter is away, which could decide.
const UNDECIDED_MAX: u32 = 3;

/// What is held against this member's state, while no majority has said who is right.
///
/// Of members A, B and C, A keeps it through all that does not decide, while C is away:
///
/// ```text
/// entry      20       30        40       10       50
/// heard      B ≠ A    nobody    B ≠ A    B = A    C = A
/// undecided  1        1         2        2        0
/// ```
///
/// Who is silent takes nothing back; and states that have come apart were the same before. Who asks for this state instead of its own does take it back: that the
/// core sees for itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Doubt {
    /// Whose states were others.
    contradicted_by: BTreeSet<MemberId>,
    /// The last entry at which one of them was.
    at: LogIndex,
    /// So many comparisons have found that.
    undecided: u32,
}

impl Doubt {
    /// Takes in what a comparison at this entry has come to.
    fn note(&mut self, at: LogIndex, verdict: &Verdict) {
        match verdict {
            Verdict::Undecided { others, .. } | Verdict::Wrong { others } => {
                self.contradicted_by.extend(others);
                self.at = self.at.max(at);
                self.undecided += u32::from(matches!(verdict, Verdict::Undecided { .. }));
            }
            Verdict::Equal { .. } | Verdict::Others(_) if at >= self.at => *self = Self::default(),
            Verdict::Equal { .. } | Verdict::Others(_) | Verdict::TooFew => {}
        }
    }

    /// Whoever has lost its vote, or has left, is nobody any more that could be right instead.
    fn keep_voters(&mut self, conf: &ConfState) {
        self.contradicted_by.retain(|id| conf.voters.contains(id) || conf.voters_outgoing.contains(id));
        if self.contradicted_by.is_empty() {
            *self = Self::default();
        }
    }
}

/// Compares every `interval`, for ever; never where that is zero, and then nothing is in doubt. The doubt outlives a change of the interval.
pub(super) async fn compare(handle: &Handle, interval: Duration, doubt: &RefCell<Doubt>) {
    if interval.is_zero() {
        doubt.take();
        handle.set_contradicted_by(BTreeSet::new());
        return;
    }
    let (mut compared, mut milestone) = (LogIndex(0), true);
    loop {
        Timer::after(interval).await;
        let comparison = handle.compare(compared, milestone).await;
        let (contradicted_by, undecided) = {
            let mut doubt = doubt.borrow_mut();
            if let Some((at, verdict)) = &comparison {
                doubt.note(*at, verdict);
            }
            doubt.keep_voters(&handle.view().facts().conf_state);
            (doubt.contradicted_by.clone(), doubt.undecided)
        };
        handle.set_contradicted_by(contradicted_by);
        let Some((at, verdict)) = comparison else { continue };
        // Who was started lately may know the last entry alone, and who is behind an earlier one.
        milestone = !milestone;
        match verdict {
            Verdict::Equal { complete: true } => {
                tracing::debug!(entry = at.0, "all voters have the same state");
                compared = at;
            }
            // Those who are away are asked when they are back, at a later entry.
            Verdict::Equal { complete: false } | Verdict::TooFew => {}
            Verdict::Others(others) => {
                tracing::error!(entry = at.0, members = %shown(&others), "members have another state than the majority");
            }
            // In doubt already: while another one takes the lead, nobody who has given up its own state is sent this one.
            Verdict::Wrong { .. } => {
                tracing::error!(entry = at.0, "a majority has another state than this member");
                let late = async {
                    Timer::after(HAND_OVER_MAX).await;
                };
                smol::future::or(handle.step_down(), late).await;
                handle.distrust();
                return;
            }
            Verdict::Undecided { others, complete } => {
                tracing::error!(
                    entry = at.0,
                    members = %shown(&others),
                    "members have another state than this one, and there is no majority for either"
                );
                if complete || undecided >= UNDECIDED_MAX {
                    raise_corrupt(handle, others).await;
                }
            }
        }
    }
}

/// Nobody knows who is right, so that nothing more is built on either: as in etcd, writes are refused until an operator has decided.
async fn raise_corrupt(handle: &Handle, others: Vec<MemberId>) {
    let status = handle.status();
    if !status.leads() {
        return;
    }
    for member in others {
        let alarm = Alarm { member, kind: AlarmKind::Corrupt };
        if handle.view().facts().alarms.contains(&alarm) {
            continue;
        }
        let raise = Command::Alarm { action: AlarmAction::Activate, alarm };
        if let Err(error) = handle.propose(raise).await {
            tracing::warn!(%error, "could not raise the CORRUPT alarm; the next comparison tries again");
        }
    }
}

fn shown(members: &[MemberId]) -> String {
    members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MemberId = MemberId(1);
    const B: MemberId = MemberId(2);
    const C: MemberId = MemberId(3);

    fn undecided(others: &[MemberId]) -> Verdict {
        Verdict::Undecided { others: others.to_vec(), complete: false }
    }

    fn is_open(doubt: &Doubt) -> bool {
        !doubt.contradicted_by.is_empty()
    }

    fn voters(voters: &[MemberId]) -> ConfState {
        ConfState { voters: voters.to_vec(), ..ConfState::default() }
    }

    /// A doubt that B has raised twice, last at entry 20.
    fn raised() -> Doubt {
        let mut doubt = Doubt::default();
        doubt.note(LogIndex(10), &undecided(&[B]));
        doubt.note(LogIndex(20), &undecided(&[B]));
        assert!(is_open(&doubt) && doubt.undecided == 2);
        doubt
    }

    #[test]
    fn only_a_majority_settles_a_doubt_and_not_by_what_was_before_it() {
        let some = Verdict::Equal { complete: false };
        let cases = [
            (Verdict::TooFew, 30, 2),
            (some.clone(), 30, 0),
            (some.clone(), 20, 0),
            (some, 19, 2),
            (Verdict::Equal { complete: true }, 30, 0),
            (Verdict::Equal { complete: true }, 19, 2),
            (Verdict::Others(vec![B]), 30, 0),
            (Verdict::Others(vec![B]), 19, 2),
            (Verdict::Wrong { others: vec![B, C] }, 30, 2),
            (undecided(&[B]), 30, 3),
            (undecided(&[B]), 19, 3),
        ];
        for (verdict, at, expected) in cases {
            let mut doubt = raised();
            doubt.note(LogIndex(at), &verdict);
            assert_eq!((doubt.undecided, is_open(&doubt)), (expected, expected > 0), "{verdict:?} at {at}");
        }
    }

    /// A leader that was found to be wrong waits for another one to lead, for two seconds at most, and sent its state meanwhile to whoever had asked for another one.
    #[test]
    fn who_is_wrong_is_in_doubt_before_anything_else() {
        let mut doubt = Doubt::default();
        doubt.note(LogIndex(20), &Verdict::Wrong { others: vec![B, C] });
        assert_eq!(doubt.contradicted_by, BTreeSet::from([B, C]));
        assert_eq!(doubt.undecided, 0, "nothing is left to decide");
        doubt.keep_voters(&voters(&[A, B, C]));
        assert!(is_open(&doubt));
    }

    /// A difference at a milestone must not make room for what is before the last one.
    #[test]
    fn the_last_entry_that_differed_counts() {
        let mut doubt = raised();
        doubt.note(LogIndex(10), &undecided(&[B]));
        doubt.note(LogIndex(15), &Verdict::Equal { complete: false });
        assert!(is_open(&doubt));
    }

    /// Of three members one was silent in every other comparison, and the alarm was never raised.
    #[test]
    fn a_member_that_is_silent_now_and_then_hides_no_damage() {
        let mut doubt = Doubt::default();
        for round in 1..=u64::from(UNDECIDED_MAX) {
            assert!(doubt.undecided < UNDECIDED_MAX);
            doubt.note(LogIndex(10 * round), &undecided(&[B]));
            doubt.note(LogIndex(10 * round + 5), &Verdict::TooFew);
            assert!(is_open(&doubt));
        }
        assert_eq!(doubt.undecided, UNDECIDED_MAX);
    }

    #[test]
    fn who_has_no_vote_any_more_contradicts_nobody() {
        let mut doubt = raised();
        doubt.note(LogIndex(30), &undecided(&[C]));
        doubt.keep_voters(&voters(&[A, C]));
        assert!(is_open(&doubt), "C has its vote");
        doubt.keep_voters(&ConfState { voters_outgoing: vec![C], ..voters(&[A]) });
        assert!(is_open(&doubt), "and has it while it is on its way out");
        doubt.keep_voters(&ConfState { learners: vec![B, C], ..voters(&[A]) });
        assert_eq!(doubt, Doubt::default(), "A votes alone");
    }
}
