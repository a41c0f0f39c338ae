//! The lessor's rules one by one, and random histories in which no lease may end before the last answer allows it.

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::test_runner::{Config, TestCaseError};
use proptest::{prop_assert, prop_assert_eq, proptest};

use super::*;

const TERM: Term = Term(4);
const GRANTED_AT: LogIndex = LogIndex(9);

fn lease(ttl: i64, remaining: i64) -> Lease {
    Lease { ttl, remaining, granted_at: GRANTED_AT }
}

fn at(seconds: u64) -> Instant {
    Instant(1 << 40) + Duration::from_secs(seconds)
}

fn instance(id: i64) -> LeaseInstance {
    LeaseInstance { id: LeaseId(id), granted_at: GRANTED_AT }
}

/// A lessor that took over at second 0 and was told of these grants right then.
fn lessor(leases: &[(i64, i64)]) -> Lessor {
    let mut lessor = Lessor::default();
    lessor.promote(at(0), TERM, std::iter::empty());
    for (id, ttl) in leases {
        lessor.granted(at(0), LeaseId(*id), &lease(*ttl, 0));
    }
    lessor
}

fn expired(ids: &[i64]) -> LeaseCommand {
    let leases = ids.iter().map(|id| instance(*id)).collect();
    LeaseCommand::Expire { term: TERM, leases }
}

fn checkpoint(sequence: u64, leases: &[(i64, i64)]) -> LeaseCommand {
    let leases = leases.iter().map(|(id, left)| (instance(*id), *left)).collect();
    LeaseCommand::Checkpoint { term: TERM, sequence, leases }
}

#[test]
fn an_end_is_due_at_the_deadline_and_proposed_again_until_it_is_applied() {
    let mut lessor = lessor(&[(1, 10), (2, 5), (3, 10)]);
    assert_eq!(lessor.poll_timeout(), Some(at(5)));
    let before = Instant(at(5).0 - 1);
    assert_eq!(lessor.poll_command(before), None);
    assert_eq!(lessor.poll_command(at(5)), Some(expired(&[2])));
    assert_eq!((lessor.poll_command(at(5)), lessor.poll_timeout()), (None, Some(at(8))));
    assert_eq!(lessor.poll_command(at(8)), Some(expired(&[2])));
    lessor.ended(LeaseId(2));
    assert_eq!(lessor.poll_timeout(), Some(at(10)));
    assert_eq!(lessor.poll_command(at(12)), Some(expired(&[1, 3])));
    let order: Vec<LeaseId> = lessor.by_expiry().expect("it leads").collect();
    assert_eq!(order, [LeaseId(1), LeaseId(3)]);
}

#[test]
fn a_renewal_moves_the_deadline_and_one_that_is_late_hears_of_the_end() {
    let mut lessor = lessor(&[(1, 10)]);
    lessor.renew(at(9), LeaseId(1), 100);
    lessor.renew(at(9), LeaseId(2), 101);
    assert_eq!(lessor.take_answers(), [(100, Renewal::Renewed { ttl: 10 }), (101, Renewal::Gone)]);
    assert_eq!(lessor.remaining(at(12), LeaseId(1)), Some(Duration::from_secs(7)));
    assert_eq!(lessor.poll_command(at(18)), None);
    lessor.renew(at(19), LeaseId(1), 102);
    assert_eq!(lessor.poll_command(at(19)), Some(expired(&[1])));
    lessor.renew(at(20), LeaseId(1), 103);
    assert_eq!(lessor.take_answers(), []);
    assert_eq!(lessor.remaining(at(20), LeaseId(1)), Some(Duration::ZERO));
    lessor.ended(LeaseId(1));
    assert_eq!(lessor.take_answers(), [(102, Renewal::Gone), (103, Renewal::Gone)]);
    assert_eq!(lessor.remaining(at(20), LeaseId(1)), None);
}

/// As while CORRUPT is raised, when no end of a lease is accepted.
#[test]
fn who_waits_for_an_end_that_does_not_come_is_given_up() {
    let mut lessor = lessor(&[(1, 10)]);
    for asker in 0..100 {
        lessor.renew(at(10), LeaseId(1), asker);
    }
    lessor.poll_command(at(10));
    lessor.renew(at(16), LeaseId(1), 100);
    lessor.poll_command(at(16));
    assert_eq!(lessor.take_answers(), []);
    assert_eq!(lessor.poll_command(at(19)), Some(expired(&[1])));
    let given_up = lessor.take_answers();
    assert_eq!(given_up.len(), 100);
    assert!(given_up.iter().all(|(asker, answer)| *asker < 100 && *answer == Renewal::NotLeading));
    assert_eq!(lessor.leading.as_ref().map(|leading| leading.waiting_count), Some(1));
    lessor.ended(LeaseId(1));
    assert_eq!(lessor.take_answers(), [(100, Renewal::Gone)]);
}

#[test]
fn only_a_leader_answers_and_a_new_one_gives_what_was_left() {
    let mut lessor = Lessor::default();
    lessor.renew(at(0), LeaseId(1), 1);
    assert_eq!((lessor.take_answers(), lessor.poll_timeout()), (vec![(1, Renewal::NotLeading)], None));
    assert!(lessor.by_expiry().is_none());
    let leases = [(LeaseId(1), lease(60, 0)), (LeaseId(2), lease(600, 20))];
    lessor.promote(at(0), TERM, leases.iter().map(|(id, lease)| (*id, lease)));
    assert_eq!(lessor.remaining(at(0), LeaseId(1)), Some(Duration::from_secs(60)), "not more than granted");
    let order: Vec<LeaseId> = lessor.by_expiry().expect("it leads").collect();
    assert_eq!(order, [LeaseId(2), LeaseId(1)]);
    assert_eq!(lessor.poll_command(at(20)), None);
    let after_grace = at(20) + ELECTION_TIMEOUT;
    assert_eq!(lessor.poll_timeout(), Some(after_grace));
    assert_eq!(lessor.poll_command(after_grace), Some(expired(&[2])));
    lessor.renew(after_grace, LeaseId(2), 2);
    lessor.demote();
    assert_eq!(lessor.take_answers(), [(2, Renewal::NotLeading)]);
    assert_eq!((lessor.poll_command(at(99)), lessor.poll_timeout()), (None, None));
}

#[test]
fn what_is_left_is_checkpointed_and_a_renewal_has_it_cleared_first() {
    let mut lessor = lessor(&[(1, 301), (2, 1000), (3, 300)]);
    lessor.renew(at(20), LeaseId(2), 1);
    lessor.take_answers();
    // The one that is due in 20 seconds comes along; what is left is rounded up.
    assert_eq!(lessor.poll_command(at(299)), None);
    let late = at(300) + Duration::from_millis(1);
    assert_eq!(lessor.poll_command(late), Some(expired(&[3])));
    assert_eq!(lessor.poll_command(late), Some(checkpoint(1, &[(1, 1), (2, 720)])));
    lessor.ended(LeaseId(3));
    // On its way is as good as applied.
    lessor.renew(late, LeaseId(2), 2);
    assert_eq!(lessor.take_answers(), []);
    assert_eq!(lessor.poll_command(late), Some(checkpoint(2, &[(2, 0)])));
    lessor.checkpointed(late, LeaseId(2), 720, 1);
    lessor.renew(late, LeaseId(2), 3);
    assert_eq!((lessor.take_answers(), lessor.poll_command(late)), (vec![], None));
    let again = late + LEASE_RETRY;
    lessor.ended(LeaseId(1));
    assert_eq!(lessor.poll_timeout(), Some(again));
    assert_eq!(lessor.poll_command(again), Some(checkpoint(3, &[(2, 0)])));
    lessor.checkpointed(again, LeaseId(2), 0, 3);
    let renewed = Renewal::Renewed { ttl: 1000 };
    assert_eq!(lessor.take_answers(), [(2, renewed), (3, renewed)]);
    assert_eq!(lessor.remaining(again, LeaseId(2)), Some(Duration::from_secs(1000)));
    lessor.checkpointed(again, LeaseId(2), 0, 3);
    lessor.renew(again, LeaseId(2), 4);
    assert_eq!(lessor.take_answers(), [(4, renewed)], "nothing is left to be cleared");
}

/// A clearing was proposed twice, a checkpoint after it, and a renewal came before the log had got beyond the second clearing. Taken for
/// what that renewal waits for, it would leave the checkpoint in force after the answer.
#[test]
fn a_late_clearing_is_not_taken_for_a_newer_one() {
    let mut lessor = lessor(&[(1, 1000)]);
    assert_eq!(lessor.poll_command(at(300)), Some(checkpoint(1, &[(1, 700)])));
    lessor.renew(at(300), LeaseId(1), 1);
    assert_eq!(lessor.poll_command(at(300)), Some(checkpoint(2, &[(1, 0)])));
    assert_eq!(lessor.poll_command(at(303)), Some(checkpoint(3, &[(1, 0)])));
    lessor.checkpointed(at(303), LeaseId(1), 700, 1);
    lessor.checkpointed(at(303), LeaseId(1), 0, 2);
    let renewed = Renewal::Renewed { ttl: 1000 };
    assert_eq!(lessor.take_answers(), [(1, renewed)]);
    assert_eq!(lessor.poll_command(at(603)), Some(checkpoint(4, &[(1, 700)])));
    lessor.renew(at(603), LeaseId(1), 2);
    assert_eq!(lessor.poll_command(at(603)), Some(checkpoint(5, &[(1, 0)])));
    for (remaining, sequence) in [(0, 3), (700, 4)] {
        lessor.checkpointed(at(604), LeaseId(1), remaining, sequence);
        assert_eq!(lessor.take_answers(), []);
    }
    lessor.checkpointed(at(604), LeaseId(1), 0, 5);
    assert_eq!(lessor.take_answers(), [(2, renewed)]);
}

#[test]
fn an_outages_worth_of_ends_goes_in_bounded_portions() {
    let count = i64::try_from(2 * LEASES_EXPIRING_MAX).expect("small");
    let all: Vec<(i64, i64)> = (1..=count).map(|id| (id, 5)).collect();
    let mut lessor = lessor(&all);
    let mut proposed = Vec::new();
    while let Some(LeaseCommand::Expire { leases, .. }) = lessor.poll_command(at(7)) {
        assert!(leases.len() <= LEASES_PER_EXPIRY);
        proposed.extend(leases);
    }
    assert_eq!(proposed.len(), LEASES_EXPIRING_MAX);
    assert_eq!(lessor.poll_timeout(), Some(at(7) + LEASE_RETRY), "it sleeps, though more are due");
    for lease in &proposed {
        lessor.ended(lease.id);
    }
    assert_eq!(lessor.poll_timeout(), Some(at(5)));
    assert!(lessor.poll_command(at(7)).is_some());
}

#[test]
fn times_to_live_and_clocks_of_any_size_fit() {
    let mut lessor = Lessor::default();
    let now = Instant(u64::MAX / 2);
    lessor.promote(now, TERM, std::iter::empty());
    lessor.granted(now, LeaseId(1), &lease(crate::limits::LEASE_TTL_MAX, 0));
    assert_eq!(lessor.remaining(now, LeaseId(1)), Some(Duration::from_secs(9_000_000_000)));
    assert_eq!(lessor.poll_timeout(), Some(now + LEASE_CHECKPOINT_INTERVAL));
}

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// So many milliseconds pass.
    Pass(u64),
    /// The lessor sleeps until it has something to do.
    Sleep,
    Grant(i64, i64),
    Revoke(i64),
    Renew(i64),
    /// The oldest proposal is applied, or lost.
    Apply,
    Lose,
    /// Another term, in which this member leads or does not.
    Term(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let id = || 1i64..5;
    let ttl = prop_oneof![2i64..20, 290i64..2000];
    let pass = prop_oneof![3 => 0u64..5_000, 1 => 0u64..400_000];
    prop_oneof![
        6 => pass.prop_map(Step::Pass),
        4 => any::<()>().prop_map(|()| Step::Sleep),
        4 => (id(), ttl).prop_map(|(id, ttl)| Step::Grant(id, ttl)),
        1 => id().prop_map(Step::Revoke),
        6 => id().prop_map(Step::Renew),
        8 => any::<()>().prop_map(|()| Step::Apply),
        1 => any::<()>().prop_map(|()| Step::Lose),
        2 => proptest::bool::weighted(0.7).prop_map(Step::Term),
    ]
}

/// The replicated state, what was proposed, and what clients were told.
struct World {
    lessor: Lessor,
    now: Instant,
    term: Term,
    leases: BTreeMap<LeaseId, Lease>,
    /// Grants so far.
    grants: u64,
    proposed: Vec<LeaseCommand>,
    /// Until when clients may count on a lease.
    promised: BTreeMap<LeaseId, Instant>,
    /// Renewals that wait: of which lease, asked when.
    asked: BTreeMap<u64, (LeaseId, Instant)>,
    next: u64,
}

impl World {
    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Pass(millis) => self.now = self.now + Duration::from_millis(*millis),
            Step::Sleep => self.now = self.now.max(self.lessor.poll_timeout().unwrap_or(self.now)),
            Step::Grant(id, ttl) => self.grant(LeaseId(*id), *ttl),
            Step::Revoke(id) => self.end(LeaseId(*id)),
            Step::Renew(id) => {
                self.next += 1;
                self.asked.insert(self.next, (LeaseId(*id), self.now));
                self.lessor.renew(self.now, LeaseId(*id), self.next);
            }
            Step::Apply if !self.proposed.is_empty() => {
                let command = self.proposed.remove(0);
                self.apply(&command)?;
            }
            Step::Lose if !self.proposed.is_empty() => drop(self.proposed.remove(0)),
            Step::Apply | Step::Lose => {}
            Step::Term(leads) => {
                self.term = self.term.next();
                self.lessor.demote();
                if *leads {
                    self.lessor.promote(
                        self.now,
                        self.term,
                        self.leases.iter().map(|(id, lease)| (*id, lease)),
                    );
                }
            }
        }
        self.settle()
    }

    fn grant(&mut self, id: LeaseId, ttl: i64) {
        if !self.leases.contains_key(&id) {
            self.grants += 1;
            self.promised.insert(id, self.now + seconds(ttl));
            let lease = Lease { ttl, remaining: 0, granted_at: LogIndex(self.grants) };
            self.leases.insert(id, lease);
            self.lessor.granted(self.now, id, &lease);
        }
    }

    fn end(&mut self, id: LeaseId) {
        if self.leases.remove(&id).is_some() {
            self.lessor.ended(id);
        }
    }

    fn is(&self, instance: LeaseInstance) -> bool {
        self.leases.get(&instance.id).is_some_and(|lease| lease.granted_at == instance.granted_at)
    }

    /// As `machine` does it.
    fn apply(&mut self, command: &LeaseCommand) -> Result<(), TestCaseError> {
        match command {
            LeaseCommand::Expire { term, leases } if *term == self.term => {
                for instance in
                    leases.iter().copied().filter(|instance| self.is(*instance)).collect::<Vec<_>>()
                {
                    let promised = self.promised[&instance.id];
                    prop_assert!(self.now >= promised, "{instance:?} ends {:?} early", promised - self.now);
                    self.end(instance.id);
                }
            }
            LeaseCommand::Checkpoint { term, sequence, leases } if *term == self.term => {
                for (instance, remaining) in leases {
                    let found = self.leases.get_mut(&instance.id);
                    if let Some(lease) = found.filter(|lease| lease.granted_at == instance.granted_at) {
                        prop_assert!((0..=lease.ttl).contains(remaining));
                        lease.remaining = *remaining;
                        self.lessor.checkpointed(self.now, instance.id, *remaining, *sequence);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes what the lessor has to say, after which it sleeps.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        while let Some(command) = self.lessor.poll_command(self.now) {
            self.proposed.push(command);
        }
        prop_assert!(self.lessor.poll_timeout().is_none_or(|at| at > self.now), "it would not sleep");
        for (asker, renewal) in self.lessor.take_answers() {
            let (id, asked) = self.asked.remove(&asker).expect("one answer for each");
            let lease = self.leases.get(&id);
            match renewal {
                Renewal::Renewed { ttl } => {
                    prop_assert_eq!(lease.map(|lease| lease.ttl), Some(ttl));
                    prop_assert_eq!(
                        lease.map(|lease| lease.remaining),
                        Some(0),
                        "a crash would end it early"
                    );
                    let promised = self.promised.get_mut(&id).expect("it was granted");
                    *promised = (*promised).max(asked + seconds(ttl));
                }
                Renewal::Gone => prop_assert!(lease.is_none()),
                Renewal::NotLeading => {}
                Renewal::TooMany => prop_assert!(false, "few wait"),
            }
        }
        Ok(())
    }

    /// With a leader and a log that lose nothing everything ends, and everybody has an answer.
    fn finish(&mut self) -> Result<(), TestCaseError> {
        self.step(&Step::Term(true))?;
        for _ in 0..1000 {
            while !self.proposed.is_empty() {
                self.step(&Step::Apply)?;
            }
            self.step(&Step::Sleep)?;
        }
        prop_assert!(self.leases.is_empty(), "{:?} never ends", self.leases);
        prop_assert!(self.asked.is_empty(), "{:?} have no answer", self.asked);
        prop_assert!(self.lessor.poll_timeout().is_none());
        Ok(())
    }
}

proptest! {
    #![proptest_config(Config { cases: 512, failure_persistence: None, ..Config::default() })]

    #[test]
    fn no_lease_ends_before_its_last_answer_allows(origin in 0..u64::MAX / 2, steps in vec(step(), 1..120)) {
        let mut world = World {
            lessor: Lessor::default(),
            now: Instant(origin),
            term: TERM,
            leases: BTreeMap::new(),
            grants: 0,
            proposed: Vec::new(),
            promised: BTreeMap::new(),
            asked: BTreeMap::new(),
            next: 0,
        };
        world.lessor.promote(world.now, TERM, std::iter::empty());
        for step in &steps {
            world.step(step)?;
        }
        world.finish()?;
    }
}
