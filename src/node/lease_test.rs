//! Leases of a whole member on one thread: from the deadline through the log to the end of the keys.

use std::time::Duration;

use bytes::Bytes;

use super::driver_test::Member;
use super::{LeaseAnswer, LeaseRequest};
use crate::command::{Alarm, AlarmAction, AlarmKind, Command, LeaseChange, LeaseCommand, Put};
use crate::ids::LeaseId;
use crate::limits::{ELECTION_TIMEOUT, LEASE_BYTES, LEASE_CHECKPOINT_INTERVAL, OVERLAY_IDLE};
use crate::time::Instant;

const LEASE: LeaseId = LeaseId(7);

impl Member {
    fn grant(&mut self, id: LeaseId, ttl: i64) {
        self.propose(Command::Lease(LeaseCommand::Grant { id, ttl }));
        self.run();
    }

    fn attach(&mut self, key: &str, lease: LeaseId) {
        let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Some(Bytes::new()));
        self.propose(Command::Put(Put { key, value, lease: LeaseChange::Set(lease), prev_kv: false }));
        self.run();
    }

    /// Sleeps until `at`, as the threads do: nothing wakes the applier but what it has asked for. Answers how often it was woken.
    fn sleep_until(&mut self, at: Instant) -> usize {
        let mut wakes = 0;
        while let Some(due) = self.applier.poll_timeout().filter(|due| *due <= at) {
            self.now = self.now.max(due);
            self.applier.handle_timeout(self.now);
            self.run();
            wakes += 1;
            assert!(wakes < 100, "it does not get to sleep");
        }
        self.now = at;
        wakes
    }

    fn ask(&mut self, number: u64, request: LeaseRequest) -> Vec<(u64, LeaseAnswer)> {
        self.applier.handle_lease_request(self.now, number, request);
        self.run();
        std::mem::take(&mut self.lease_answers)
    }
}

fn whole(ttl: i64) -> LeaseAnswer {
    LeaseAnswer::TimeToLive { granted: ttl, remaining: ttl }
}

#[test]
fn a_lease_ends_at_its_deadline_and_wakes_nobody_before() {
    let mut member = Member::found();
    member.grant(LEASE, 10);
    member.attach("k", LEASE);
    let granted = member.now;
    assert_eq!(member.sleep_until(granted + Duration::from_millis(9_999)), 0);
    assert_eq!(member.value("k").as_deref(), Some(&b""[..]));
    let left = LeaseAnswer::TimeToLive { granted: 10, remaining: 0 };
    assert_eq!(member.ask(1, LeaseRequest::TimeToLive(LEASE)), [(1, left)]);
    assert_eq!(member.ask(2, LeaseRequest::List), [(2, LeaseAnswer::List(vec![LEASE]))]);
    assert_eq!(member.sleep_until(granted + Duration::from_secs(10)), 1);
    assert_eq!(member.value("k"), None);
    assert_eq!(member.ask(3, LeaseRequest::Renew(LEASE)), [(3, LeaseAnswer::Gone)]);
    assert_eq!(member.ask(4, LeaseRequest::TimeToLive(LEASE)), [(4, LeaseAnswer::Gone)]);
    assert_eq!(member.applier.poll_timeout(), Some(member.now + OVERLAY_IDLE), "only the quiet fold is left");
}

#[test]
fn a_restart_gives_a_lease_its_whole_time_anew() {
    let mut member = Member::found();
    member.grant(LEASE, 10);
    member.attach("k", LEASE);
    member.sleep_until(member.now + Duration::from_secs(9));
    let mut member = member.restart();
    // This clock has an origin of its own, and the grant is applied once more, from the log.
    let started = member.now;
    assert_eq!(member.ask(1, LeaseRequest::TimeToLive(LEASE)), [(1, whole(10))]);
    let due = started + Duration::from_secs(10) + ELECTION_TIMEOUT;
    assert_eq!(member.sleep_until(Instant(due.0 - 1)), 0);
    assert!(member.value("k").is_some());
    member.sleep_until(due);
    assert_eq!(member.value("k"), None);
}

/// While the log is applied nobody can renew a lease, for renewals wait for all of it. So no lease's time begins before.
#[test]
fn a_long_replay_takes_no_time_from_a_lease() {
    let mut member = Member::found();
    member.grant(LEASE, 10);
    member.attach("k", LEASE);
    for n in 0..3 {
        member.attach(&format!("other{n}"), LeaseId::NONE);
    }
    let mut member = member.reboot();
    member.hold_syncs = false;
    member.apply_time = Duration::from_secs(20);
    member.run();
    member.apply_time = Duration::ZERO;
    let applied = member.now;
    assert!(applied > Instant(0) + Duration::from_secs(40), "the log takes several batches");
    assert_eq!(member.ask(1, LeaseRequest::TimeToLive(LEASE)), [(1, whole(10))]);
    assert_eq!(member.ask(2, LeaseRequest::Renew(LEASE)), [(2, LeaseAnswer::Renewed { ttl: 10 })]);
    assert_eq!(member.sleep_until(applied + Duration::from_millis(9_999)), 0);
    assert!(member.value("k").is_some());
}

/// A batch that takes seconds to apply: what was granted in it begins at its end, when the client hears of it.
#[test]
fn a_lease_that_is_granted_behind_something_long_has_its_whole_time() {
    let mut member = Member::found();
    member.apply_time = Duration::from_secs(8);
    member.grant(LEASE, 10);
    member.apply_time = Duration::ZERO;
    let answered = member.now;
    assert_eq!(member.ask(1, LeaseRequest::TimeToLive(LEASE)), [(1, whole(10))]);
    assert_eq!(member.sleep_until(answered + Duration::from_millis(9_999)), 0);
    assert_eq!(member.sleep_until(answered + Duration::from_secs(10)), 1);
}

#[test]
fn a_lease_that_was_folded_is_there_after_a_restart() {
    let mut member = Member::found();
    member.grant(LEASE, 600);
    member.attach("k", LEASE);
    member.sleep_until(member.now + OVERLAY_IDLE);
    assert_eq!(member.store.base().unwrap().leases().unwrap().len(), 1);
    // The lease from the store; from the log a checkpoint of its second half.
    let mut member = member.restart();
    let due = member.now + Duration::from_secs(300) + ELECTION_TIMEOUT;
    member.sleep_until(Instant(due.0 - 1));
    assert!(member.value("k").is_some());
    member.sleep_until(due);
    assert_eq!(member.value("k"), None);
}

/// What a checkpoint left over counts after a restart, until a renewal was answered: then it must never be seen again.
#[test]
fn a_checkpoint_outlives_a_restart_and_a_renewal_outlives_it() {
    let mut member = Member::found();
    member.grant(LEASE, 1000);
    member.sleep_until(member.now + LEASE_CHECKPOINT_INTERVAL);
    let mut member = member.restart();
    let left = LeaseAnswer::TimeToLive { granted: 1000, remaining: 701 };
    assert_eq!(member.ask(1, LeaseRequest::TimeToLive(LEASE)), [(1, left)], "and the time of an election");
    member.applier.handle_lease_request(member.now, 2, LeaseRequest::Renew(LEASE));
    while let Some(output) = member.applier.poll_output(member.now).unwrap() {
        assert!(!matches!(output, super::ApplierOutput::LeaseAnswers(_)), "not before it is in the log");
        member.applier_output(output);
    }
    member.run();
    let answers = std::mem::take(&mut member.lease_answers);
    assert_eq!(answers, [(2, LeaseAnswer::Renewed { ttl: 1000 })]);
    let mut member = member.restart();
    assert_eq!(member.ask(3, LeaseRequest::TimeToLive(LEASE)), [(3, whole(1000))]);
}

#[test]
fn a_member_that_does_not_lead_does_not_say_a_word() {
    let mut member = Member::found();
    member.grant(LEASE, 10);
    member.attach("k", LEASE);
    member.applier.handle_leadership(member.now, None);
    let requests = [LeaseRequest::Renew(LEASE), LeaseRequest::TimeToLive(LEASE), LeaseRequest::List];
    for (number, request) in (0..).zip(requests) {
        assert_eq!(member.ask(number, request), [(number, LeaseAnswer::NotLeading)]);
    }
    member.sleep_until(member.now + Duration::from_secs(60));
    assert!(member.value("k").is_some(), "without a leader no lease ends");
}

#[test]
fn the_end_of_leases_makes_room() {
    let mut member = Member::found();
    let alarm = Alarm { member: member.founding.identity.member, kind: AlarmKind::NoSpace };
    for id in 1..=100 {
        member.grant(LeaseId(id), 10);
    }
    member.quota = Some(100 * LEASE_BYTES);
    let mut member = member.restart();
    member.propose(Command::Alarm { action: AlarmAction::QuotaReached, alarm });
    member.run();
    assert_eq!(member.view.as_ref().unwrap().facts().alarms, [alarm]);
    member.sleep_until(member.now + Duration::from_secs(12));
    let view = member.view.as_ref().unwrap();
    assert_eq!((view.leases().len(), view.bytes_in_use(), view.facts().alarms.len()), (0, 0, 0));
}
