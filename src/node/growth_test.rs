//! A leader's decisions by what it has seen, over simulated minutes.

use std::collections::BTreeSet;

use super::*;

const SILENCE_MAX: Duration = Duration::from_secs(2);
/// More than a look, and what is rounded.
const MOMENT: Duration = Duration::from_millis(200);

/// Member 1 leads; what it asks for takes effect at once, unless a test holds it back.
struct Rig {
    growth: Growth,
    now: Instant,
    term: Term,
    wanted: Membership,
    conf: ConfState,
    /// Who does not answer.
    away: BTreeSet<u64>,
    /// Who answers, and lacks too much.
    behind: BTreeSet<u64>,
    applied: LogIndex,
    /// Nothing that is asked for is applied, or raft's configuration does not follow.
    held: bool,
    lags: bool,
    asked: Vec<(Duration, Vec<u64>, Vec<u64>)>,
}

impl Rig {
    /// Of so many members, these vote.
    fn new(members: u64, voters: &[u64]) -> Self {
        let target = |id| Target {
            member: MemberId(id),
            bound: true,
            votes: voters.contains(&id),
            came: true,
            overdue: false,
        };
        let targets = (1..=members).map(target).collect();
        let wanted = Membership { targets, automatic: true, committed: true, ..Membership::default() };
        let mut rig = Self {
            growth: Growth::default(),
            now: Instant(0),
            term: Term(1),
            wanted,
            conf: ConfState::default(),
            away: BTreeSet::new(),
            behind: BTreeSet::new(),
            applied: LogIndex(1),
            held: false,
            lags: false,
            asked: Vec::new(),
        };
        rig.follow();
        rig
    }

    fn follow(&mut self) {
        let bound = || self.wanted.targets.iter().filter(|target| target.bound);
        let of = |votes| bound().filter(|target| target.votes == votes).map(|target| target.member).collect();
        self.conf = ConfState { voters: of(true), learners: of(false), ..ConfState::default() };
    }

    fn leave(&mut self, away: &[u64]) -> &mut Self {
        self.away = away.iter().copied().collect();
        self
    }

    /// What was asked for in this time: after how long, who is to vote, and who no longer.
    fn pass(&mut self, time: Duration) -> Vec<(Duration, Vec<u64>, Vec<u64>)> {
        let (begin, end) = (self.now, self.now + time);
        let before = self.asked.len();
        while self.now < end {
            self.now = (self.now + LOOK_INTERVAL).min(end);
            self.look(begin);
        }
        self.asked.split_off(before)
    }

    fn outlook(&self) -> Outlook<'_> {
        Outlook {
            now: self.now,
            term: self.term,
            me: MemberId(1),
            applied: self.applied,
            wanted: &self.wanted,
            conf: &self.conf,
            silence_max: SILENCE_MAX,
        }
    }

    fn look(&mut self, begin: Instant) {
        let (away, behind) = (&self.away, &self.behind);
        let is_active = |member: MemberId| !away.contains(&member.0);
        let mut growth = std::mem::take(&mut self.growth);
        growth.observe(&self.outlook(), is_active, |member| is_active(member) && !behind.contains(&member.0));
        self.growth = growth;
        let Some(MemberCommand::Revote { promote, demote }) = self.growth.next(&self.outlook()) else {
            return;
        };
        let index = self.applied.next();
        self.growth.note_asked(index);
        if !self.held {
            self.applied = index;
            for target in &mut self.wanted.targets {
                target.votes |= promote.contains(&target.member);
                target.votes &= !demote.contains(&target.member);
            }
            if !self.lags {
                self.follow();
            }
        }
        let numbers = |ids: Vec<MemberId>| ids.into_iter().map(|id| id.0).collect();
        self.asked.push((self.now.since(begin), numbers(promote), numbers(demote)));
    }

    /// Only whose votes changed.
    fn asked_in(&mut self, time: Duration) -> Vec<(Vec<u64>, Vec<u64>)> {
        self.pass(time).into_iter().map(|(_, promote, demote)| (promote, demote)).collect()
    }
}

#[test]
fn so_many_vote_of_so_many() {
    for (members, setting, voters) in [
        (1, 3, 1),
        (2, 3, 1),
        (3, 3, 3),
        (4, 3, 3),
        (5, 3, 3),
        (9, 3, 3),
        (2, 7, 1),
        (3, 7, 3),
        (4, 5, 3),
        (5, 5, 5),
        (6, 7, 5),
        (7, 7, 7),
        (12, 7, 7),
    ] {
        let mut rig = Rig::new(members, &[1]);
        rig.growth.policy.voters = setting;
        let asked = rig.asked_in(VOTER_PROBATION * 3);
        assert_eq!(rig.conf.voters.len(), voters, "{members} members, {setting} are to vote: {asked:?}");
        assert!(asked.len() <= 1 && asked.iter().all(|(_, demote)| demote.is_empty()), "{asked:?}");
        // One after the other they come to the same, by odd numbers.
        let mut rig = Rig::new(members, &[1]);
        rig.growth.policy.voters = setting;
        rig.away = (2..=members).collect();
        for member in 2..=members {
            rig.away.remove(&member);
            rig.pass(VOTER_PROBATION * 2);
            assert_eq!(rig.conf.voters.len() % 2, 1, "{:?}", rig.conf);
        }
        assert_eq!(rig.conf.voters.len(), voters);
    }
}

#[test]
fn who_is_well_votes_after_a_while_and_at_once_before_anything_was_written() {
    let mut rig = Rig::new(3, &[1]);
    let asked = rig.pass(VOTER_PROBATION * 2);
    let [(after, promote, _)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!(promote, &[2, 3], "both at once");
    assert!(*after >= VOTER_PROBATION && *after < VOTER_PROBATION + MOMENT, "{after:?}");

    let mut rig = Rig::new(3, &[1]);
    rig.wanted.committed = false;
    assert_eq!(rig.asked_in(MOMENT), [(vec![2, 3], vec![])]);

    // A short gap is none, a long one begins anew.
    for (gap, delayed) in [(SILENCE_MAX / 2, false), (SILENCE_MAX * 2, true)] {
        let mut rig = Rig::new(3, &[1]);
        for behind in [false, true] {
            rig.pass(VOTER_PROBATION / 4);
            if behind {
                rig.behind.insert(3);
            } else {
                rig.leave(&[3]);
            }
            rig.pass(gap);
            rig.leave(&[]).behind.clear();
        }
        let left = (VOTER_PROBATION / 2).saturating_sub(gap * 2) + MOMENT * 3;
        assert_eq!(rig.pass(left).is_empty(), delayed);
        assert_eq!(rig.pass(VOTER_PROBATION).is_empty(), !delayed);
    }
}

#[test]
fn one_alone_is_not_promoted() {
    let mut rig = Rig::new(3, &[1]);
    rig.leave(&[3]);
    assert!(rig.pass(VOTER_ABSENCE_MAX * 2).is_empty());
    rig.leave(&[]).behind.insert(3);
    assert!(rig.pass(VOTER_ABSENCE_MAX * 2).is_empty());
    rig.behind.clear();
    assert_eq!(rig.asked_in(VOTER_PROBATION + MOMENT), [(vec![2, 3], vec![])]);
}

#[test]
fn a_voter_that_stays_away_is_replaced_and_no_other() {
    let mut rig = Rig::new(4, &[1, 2, 3]);
    rig.pass(VOTER_PROBATION * 2);
    rig.leave(&[3]);
    let asked = rig.pass(VOTER_ABSENCE_MAX * 2);
    let [(after, promote, demote)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((&promote[..], &demote[..]), (&[4][..], &[3][..]));
    let late = VOTER_ABSENCE_MAX + SILENCE_MAX + MOMENT;
    assert!(*after >= VOTER_ABSENCE_MAX && *after <= late, "{after:?}");
    // It has lost its vote, and gets none for coming back, until somebody else is gone.
    rig.leave(&[]);
    assert!(rig.pass(VOTER_ABSENCE_MAX * 2).is_empty());
    rig.leave(&[2]);
    assert_eq!(rig.asked_in(VOTER_ABSENCE_MAX * 2), [(vec![3], vec![2])]);

    // Who comes back in time keeps it.
    let mut rig = Rig::new(4, &[1, 2, 3]);
    for _ in 0..3 {
        rig.leave(&[3]);
        assert!(rig.pass(VOTER_ABSENCE_MAX).is_empty());
        rig.leave(&[]);
        rig.pass(MOMENT);
    }
    // Nobody is there who could vote instead, or it has not been for long enough.
    for (leave, behind) in [(&[3, 4][..], 9), (&[3], 4)] {
        let mut rig = Rig::new(5, &[1, 2, 3, 5]);
        rig.wanted.targets[4].bound = false;
        rig.follow();
        rig.leave(leave).behind.insert(behind);
        assert!(rig.pass(VOTER_ABSENCE_MAX * 3).is_empty());
    }
}

#[test]
fn the_longest_absence_comes_first() {
    let mut rig = Rig::new(9, &[1, 2, 3, 4, 5]);
    rig.growth.policy.voters = 5;
    rig.leave(&[4]);
    rig.pass(VOTER_ABSENCE_MAX / 2);
    rig.leave(&[2, 4]);
    assert_eq!(rig.asked_in(VOTER_ABSENCE_MAX * 2), [(vec![6], vec![4]), (vec![7], vec![2])]);
}

#[test]
fn half_of_the_members_that_vanish_together_are_coming_back() {
    for (members, away, replaced) in [
        (4, &[3][..], true),
        (4, &[3, 4], false),
        (5, &[3, 4], true),
        (5, &[3, 4, 5], false),
        (6, &[3, 4, 5], false),
        (7, &[3, 4, 5], true),
    ] {
        let mut rig = Rig::new(members, &[1, 2, 3]);
        rig.pass(VOTER_PROBATION);
        rig.leave(away);
        let asked = rig.pass(VOTER_ABSENCE_MAX * 3);
        assert_eq!(!asked.is_empty(), replaced, "{away:?} of {members}: {asked:?}");
        // What they were missed for together does not count later.
        rig.leave(&[3]);
        let asked = rig.pass(VOTER_ABSENCE_MAX.saturating_sub(MOMENT));
        assert!(asked.is_empty(), "{away:?} of {members}: {asked:?}");
    }
    // One after the other they break.
    let mut rig = Rig::new(6, &[1, 2, 3]);
    rig.leave(&[2]);
    rig.pass(VOTER_ABSENCE_MAX * 2);
    rig.leave(&[2, 3]);
    rig.pass(VOTER_ABSENCE_MAX * 2);
    rig.leave(&[2, 3, 4]);
    assert_eq!(rig.asked_in(VOTER_ABSENCE_MAX * 2), [(vec![6], vec![4])]);
    assert_eq!(rig.conf.voters, [1, 5, 6].map(MemberId));
}

/// Three of six boxes were retired and never removed. Each leader that knew it is gone; the next one would never replace a voter.
#[test]
fn members_that_were_dead_before_a_leader_began_keep_nobody_from_being_replaced_for_ever() {
    let mut rig = Rig::new(7, &[1, 2, 3]);
    rig.leave(&[5, 6, 7]);
    rig.pass(VOTER_PROBATION);
    rig.leave(&[3, 5, 6, 7]);
    let asked = rig.pass(NEVER_HEARD_MAX + VOTER_ABSENCE_MAX * 2);
    let [(after, promote, demote)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((&promote[..], &demote[..]), (&[4][..], &[3][..]));
    let due = NEVER_HEARD_MAX.saturating_sub(VOTER_PROBATION) + VOTER_ABSENCE_MAX;
    assert!(*after >= due && *after < due + SILENCE_MAX * 3, "{after:?}");

    // Those that it has heard are coming back, and so are those that it hears within the time.
    for heard in [Duration::ZERO, NEVER_HEARD_MAX.saturating_sub(VOTER_PROBATION)] {
        let mut rig = Rig::new(7, &[1, 2, 3]);
        rig.leave(&[5, 6, 7]);
        rig.pass(heard);
        rig.leave(&[]);
        rig.pass(MOMENT);
        rig.leave(&[3, 5, 6, 7]);
        assert!(rig.pass(NEVER_HEARD_MAX * 3).is_empty(), "{heard:?}");
    }
    // They are replaced as well, if they vote, and not sooner than anybody else.
    let mut rig = Rig::new(6, &[1, 2, 3]);
    rig.leave(&[3, 5, 6]);
    let asked = rig.pass(NEVER_HEARD_MAX + MOMENT + SILENCE_MAX * 2);
    let [(after, promote, demote)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((&promote[..], &demote[..]), (&[4][..], &[3][..]));
    assert!(*after >= NEVER_HEARD_MAX, "{after:?}");
    // A leader that hears no majority says nothing of anybody.
    let mut rig = Rig::new(7, &[1, 2, 3]);
    rig.leave(&[2, 3, 5, 6, 7]);
    rig.pass(NEVER_HEARD_MAX * 2);
    rig.leave(&[3, 5, 6, 7]);
    assert!(rig.pass(NEVER_HEARD_MAX.saturating_sub(MOMENT)).is_empty());
}

#[test]
fn a_leader_that_hears_no_majority_takes_nobody_for_lost() {
    let mut rig = Rig::new(8, &[1, 2, 3]);
    rig.leave(&[2, 3]);
    assert!(rig.pass(VOTER_ABSENCE_MAX * 2).is_empty());
    rig.leave(&[3]);
    assert!(rig.pass(VOTER_ABSENCE_MAX.saturating_sub(MOMENT)).is_empty());
    assert_eq!(rig.asked_in(SILENCE_MAX * 2), [(vec![4], vec![3])]);
    // Nobody is promoted by it either.
    let mut rig = Rig::new(8, &[1, 2, 3]);
    rig.growth.policy.voters = 5;
    rig.leave(&[2, 3]);
    assert!(rig.pass(VOTER_PROBATION * 2).is_empty());
}

#[test]
fn nobody_was_missed_while_the_leader_stood_still() {
    let mut rig = Rig::new(4, &[1, 2, 3]);
    rig.leave(&[3]);
    rig.pass(VOTER_ABSENCE_MAX / 2);
    rig.now = rig.now + VOTER_ABSENCE_MAX * 5;
    assert!(rig.pass(VOTER_ABSENCE_MAX / 2).is_empty());
    assert_eq!(rig.asked_in(SILENCE_MAX * 2), [(vec![4], vec![3])]);
}

#[test]
fn another_leader_begins_anew() {
    let mut rig = Rig::new(4, &[1, 2, 3]);
    rig.growth.policy.voters = 5;
    rig.leave(&[3]);
    rig.pass(VOTER_ABSENCE_MAX);
    rig.term = Term(2);
    assert!(rig.growth.is_due(rig.now, rig.term), "at once");
    assert!(rig.pass(VOTER_ABSENCE_MAX).is_empty());
    assert_eq!(rig.growth.policy.voters, 5, "the setting stays");
    assert_eq!(rig.asked_in(SILENCE_MAX * 2), [(vec![4], vec![3])]);
}

#[test]
fn one_change_is_under_way_at_a_time() {
    let mut rig = Rig::new(6, &[1, 2, 3]);
    rig.growth.policy.voters = 5;
    // In the log and not applied.
    rig.held = true;
    assert_eq!(rig.asked_in(VOTER_PROBATION * 3), [(vec![4, 5], vec![])]);
    // Applied without effect, as where somebody was removed meanwhile.
    (rig.held, rig.lags) = (false, true);
    rig.applied = rig.applied.next();
    assert_eq!(rig.asked_in(VOTER_PROBATION), [(vec![4, 5], vec![])]);
    // Applied, and raft's configuration does not follow.
    rig.leave(&[3]);
    assert!(rig.pass(VOTER_ABSENCE_MAX * 2).is_empty());
    rig.lags = false;
    rig.follow();
    assert_eq!(rig.asked_in(MOMENT), [(vec![6], vec![3])]);
    // Nor where somebody votes still.
    rig.conf.voters.push(MemberId(3));
    rig.leave(&[2]);
    assert!(rig.pass(VOTER_ABSENCE_MAX * 2).is_empty());
}

/// The others would never vote: they wait for it.
#[test]
fn who_is_to_vote_and_stays_away_before_it_does_is_replaced() {
    let mut rig = Rig::new(4, &[1]);
    rig.lags = true;
    rig.away.insert(4);
    assert_eq!(rig.asked_in(VOTER_PROBATION + MOMENT), [(vec![2, 3], vec![])]);
    rig.leave(&[3]);
    assert_eq!(rig.asked_in(VOTER_ABSENCE_MAX * 2), [(vec![4], vec![3])]);
}

#[test]
fn votes_that_an_operator_has_given_count_and_stay() {
    for (members, voters, asked) in [
        (5, &[1, 2, 3, 4][..], None),
        (5, &[1, 2, 3, 4, 5], None),
        (2, &[1, 2], None),
        (3, &[1, 2], Some((vec![3], vec![]))),
        (6, &[1, 4], Some((vec![2], vec![]))),
    ] {
        let mut rig = Rig::new(members, voters);
        assert_eq!(rig.asked_in(VOTER_PROBATION * 3), Vec::from_iter(asked), "{voters:?} of {members}");
    }
    // Unless it stays away.
    let mut rig = Rig::new(6, &[1, 2, 3, 5]);
    rig.leave(&[5]);
    assert_eq!(rig.asked_in(VOTER_ABSENCE_MAX * 2), [(vec![4], vec![5])]);
    // A place without a node is none.
    let mut rig = Rig::new(3, &[1, 3]);
    rig.wanted.targets[2].bound = false;
    rig.follow();
    assert!(rig.pass(VOTER_ABSENCE_MAX * 2).is_empty());
}

#[test]
fn who_was_let_in_and_never_came_is_forgotten_once_this_leader_has_missed_it_for_long() {
    let forgotten = |rig: &mut Rig| {
        let outlook = |rig: &Rig| rig.growth.forgotten(&rig.outlook());
        let begin = rig.now;
        while outlook(rig).is_none() && rig.now < begin + VOTER_ABSENCE_MAX * 2 {
            rig.pass(LOOK_INTERVAL);
        }
        outlook(rig).map(|member| (member.0, rig.now.since(begin)))
    };
    let ghost = |away: &[u64]| {
        let mut rig = Rig::new(4, &[1, 2, 3]);
        (rig.wanted.targets[3].came, rig.wanted.targets[3].overdue) = (false, true);
        rig.leave(away);
        rig
    };
    let (member, after) = forgotten(&mut ghost(&[4])).unwrap();
    assert_eq!(member, 4);
    assert!(after >= VOTER_ABSENCE_MAX && after <= VOTER_ABSENCE_MAX + SILENCE_MAX + MOMENT, "{after:?}");
    assert_eq!(forgotten(&mut ghost(&[])), None, "it is there, and on its way to all of the state");
    assert_eq!(forgotten(&mut ghost(&[2, 3, 4])), None, "nobody is there");
    let mut waits = ghost(&[4]);
    waits.wanted.targets[3].overdue = false;
    assert_eq!(forgotten(&mut waits), None, "it has time yet");
    let mut late = ghost(&[4]);
    late.pass(VOTER_ABSENCE_MAX);
    late.leave(&[]);
    late.pass(MOMENT);
    late.leave(&[4]);
    late.pass(VOTER_ABSENCE_MAX.saturating_sub(MOMENT));
    assert_eq!(late.growth.forgotten(&late.outlook()), None, "it was about to come");
    // Whoever leads then has not missed it for long.
    let mut rig = ghost(&[4]);
    rig.pass(VOTER_ABSENCE_MAX * 2);
    rig.term = Term(2);
    rig.pass(LOOK_INTERVAL);
    let (_, after) = forgotten(&mut rig).unwrap();
    assert!(after >= VOTER_ABSENCE_MAX, "{after:?}");
    // One proposal at a time, and what is in the log comes first.
    rig.growth.note_asked(rig.applied.next());
    assert_eq!(rig.growth.forgotten(&rig.outlook()), None);
}
