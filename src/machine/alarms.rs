//! Raising and clearing alarms.
//!
//! Owns: who may clear what: the quota's own alarm goes by itself, an operator's does not. Must never: measure anything (the member that refuses
//! a write does, and says so through the log). Driven by the machine.

use crate::command::{Alarm, AlarmAction, AlarmKind, Rejection};
use crate::limits::ALARMS_MAX;
use crate::mvcc::Facts;

/// Carries out `action`; answers with the alarm, unless there was none to clear.
pub(super) fn set(facts: &mut Facts, action: AlarmAction, alarm: Alarm) -> Result<Vec<Alarm>, Rejection> {
    let raised = facts.alarms.binary_search(&alarm);
    let by_quota = match facts.over_quota.binary_search(&alarm.member) {
        Ok(place) if alarm.kind == AlarmKind::NoSpace => Some(place),
        _ => None,
    };
    let clears = match action {
        AlarmAction::Activate | AlarmAction::QuotaReached => false,
        AlarmAction::Deactivate => true,
        AlarmAction::QuotaRelieved if by_quota.is_some() => true,
        AlarmAction::QuotaRelieved => return Ok(Vec::new()),
    };
    // Whoever raises or clears it, other than the quota, takes it over.
    if let Some(place) = by_quota.filter(|_| action != AlarmAction::QuotaReached) {
        facts.over_quota.remove(place);
    }
    match raised {
        Ok(place) if clears => {
            facts.alarms.remove(place);
        }
        Ok(_) => {}
        Err(_) if clears => return Ok(Vec::new()),
        Err(place) => {
            if facts.alarms.iter().filter(|other| other.kind == alarm.kind).count() >= ALARMS_MAX {
                return Err(Rejection::TooManyAlarms);
            }
            facts.alarms.insert(place, alarm);
            if (action, alarm.kind) == (AlarmAction::QuotaReached, AlarmKind::NoSpace)
                && let Err(place) = facts.over_quota.binary_search(&alarm.member)
            {
                facts.over_quota.insert(place, alarm.member);
            }
        }
    }
    Ok(vec![alarm])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::MemberId;

    const FULL: Alarm = Alarm { member: MemberId(7), kind: AlarmKind::NoSpace };

    fn after(actions: &[AlarmAction]) -> (bool, bool) {
        let mut facts = Facts::default();
        for action in actions {
            set(&mut facts, *action, FULL).expect("there is room");
        }
        (facts.alarms == [FULL], facts.over_quota == [FULL.member])
    }

    #[test]
    fn what_the_quota_raised_goes_by_itself_and_what_an_operator_raised_does_not() {
        use AlarmAction::{Activate, Deactivate, QuotaReached, QuotaRelieved};
        for (actions, expected) in [
            (&[QuotaReached][..], (true, true)),
            (&[QuotaReached, QuotaReached], (true, true)),
            (&[QuotaReached, QuotaRelieved], (false, false)),
            (&[QuotaReached, Deactivate], (false, false)),
            (&[QuotaRelieved], (false, false)),
            (&[Activate], (true, false)),
            (&[Activate, QuotaRelieved], (true, false)),
            (&[Activate, QuotaReached, QuotaRelieved], (true, false)),
            (&[QuotaReached, Activate, QuotaRelieved], (true, false)),
            (&[Activate, Deactivate, QuotaReached, QuotaRelieved], (false, false)),
        ] {
            assert_eq!(after(actions), expected, "{actions:?}");
        }
    }

    #[test]
    fn ids_without_end_do_not_grow_the_state_without_end() {
        let mut facts = Facts::default();
        for kind in [AlarmKind::NoSpace, AlarmKind::Corrupt] {
            for n in 0..ALARMS_MAX as u64 {
                let alarm = Alarm { member: MemberId(n), kind };
                set(&mut facts, AlarmAction::Activate, alarm).expect("there is room");
            }
            let one_more = Alarm { member: MemberId(u64::MAX), kind };
            let refused = set(&mut facts, AlarmAction::Activate, one_more);
            assert_eq!(refused, Err(Rejection::TooManyAlarms));
            let again = Alarm { member: MemberId(0), kind };
            assert_eq!(set(&mut facts, AlarmAction::Activate, again), Ok(vec![again]));
        }
        assert_eq!(facts.alarms.len(), 2 * ALARMS_MAX);
    }
}
