//! Compares the state with that of the other members now and then, and acts on what comes out.
//!
//! Owns: when, and what a difference leads to. Must never: let a state be shown that a majority contradicts. Driven by `serve`.

use std::time::Duration;

use smol::Timer;

use crate::command::{Alarm, AlarmAction, AlarmKind, Command};
use crate::ids::{LogIndex, MemberId};
use crate::node::Verdict;
use crate::runtime::Handle;

/// How long another member may take to lead in the place of one whose state is wrong, before that one goes all the same.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);

/// So many comparisons in a row may come to nothing because a voter is away, which could decide.
const UNDECIDED_MAX: u32 = 3;

/// Compares every `interval`, for ever; never where that is zero.
pub(super) async fn compare(handle: &Handle, interval: Duration) {
    if interval.is_zero() {
        return;
    }
    let (mut compared, mut milestone, mut undecided) = (LogIndex(0), true, 0);
    loop {
        Timer::after(interval).await;
        let Some((at, verdict)) = handle.compare(compared, milestone).await else {
            if !handle.others_vote() {
                // Nobody is left who could be right instead.
                undecided = 0;
                handle.set_in_doubt(false);
            }
            continue;
        };
        undecided = if let Verdict::Undecided { .. } = verdict { undecided + 1 } else { 0 };
        handle.set_in_doubt(undecided > 0);
        // Who was started lately may know the last entry alone, and who is behind an earlier one.
        milestone = !milestone;
        match verdict {
            Verdict::Equal { complete: true } => {
                tracing::debug!(entry = at.0, "all voters have the same state");
                compared = at;
            }
            // Those who are away are asked when they are back, at a later entry.
            Verdict::Equal { complete: false } => {}
            Verdict::Others(others) => {
                tracing::error!(entry = at.0, members = %shown(&others), "members have another state than the majority");
            }
            Verdict::Wrong => {
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
