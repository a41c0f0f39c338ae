//! The end of a run: nothing goes wrong any more, everything is asked once more, and the power is cut for the last time.
//!
//! Owns: what has to hold then, and in which time.

use std::time::Duration;

use covey::command::{Command, LeaseChange, Put};
use covey::disk::sim::Survival;
use covey::disk::{Directory, File};
use covey::formation::LOG_NAME;
use covey::ids::LeaseId;
use covey::limits::ELECTION_TIMEOUT_MAX;

use super::{Asked, Event, RESTART, Report, World};
use crate::member::Effects;
use crate::plan::Plan;
use crate::workload::Ask;

/// What is asked after the last fault is answered within this time: a start, an election, a read-index round that is asked again.
const RECOVERY_MAX: Duration = Duration::from_secs(20);
/// The same where members have learnt to be patient, from cut links, late messages and times at which all stood still; who does not trust its state
/// is the most patient of all.
const PATIENT_RECOVERY_MAX: Duration = Duration::from_secs(60);
/// There, a leader is found in three elections, each of at most two of the longest timeouts.
const PATIENT_ELECTIONS_MAX: Duration = ELECTION_TIMEOUT_MAX.saturating_mul(6);

/// Leases with a time to live of less than so many seconds end within a run.
const SHORT_LEASE: i64 = 10;

/// The end of a run.
impl World {
    /// Nothing goes wrong from now on, and clients wait for what they have asked.
    pub(super) fn calm_down(&mut self) {
        self.calm = true;
        self.mend();
        if self.is_patient() {
            self.settled_at = self.queue.now() + PATIENT_ELECTIONS_MAX + self.plan.timing.longest_stall();
        }
        self.note("calm", &[]);
        for number in 0..self.hosts.len() {
            self.wake_up(number);
            let host = &mut self.hosts[number];
            host.disk.heal();
            host.troubles += 1;
            host.staging_since = None;
            let mut effects = Effects::new();
            if let Some(member) = &mut host.member {
                member.calm_down(&mut effects);
            }
            self.carry_out(number, effects);
            let host = &mut self.hosts[number];
            if host.starting {
                // No outage outlasts the trouble.
                self.queue.after(RESTART, Event::Start(number));
            }
            let host = &mut self.hosts[number];
            if host.member.as_ref().is_some_and(|member| member.failed.is_some()) {
                self.kill(number);
            }
        }
    }

    fn is_patient(&self) -> bool {
        let Plan { net, clocks, timing, .. } = &self.plan;
        net.cuts.is_some() || net.late_one_in > 0 || clocks.is_some() || !timing.longest_stall().is_zero()
    }

    fn recovery_max(&self) -> Duration {
        let most = if self.is_patient() { PATIENT_RECOVERY_MAX } else { RECOVERY_MAX };
        most + self.plan.timing.longest_stall()
    }

    pub(super) fn cut_power_everywhere(&mut self) {
        for number in 0..self.hosts.len() {
            if self.cluster.member(number).is_some() {
                self.hosts[number].survival = Survival::Nothing;
                self.power_comes_back(number);
            }
        }
    }

    /// A write and all questions at every host: answered in bounded time, and with everything that was ever shown.
    pub(super) fn probe(&mut self) {
        for number in 0..self.hosts.len() {
            if self.cluster.member(number).is_none() {
                continue;
            }
            let deadline = self.queue.now() + self.recovery_max();
            let mut waiting: Option<(u64, Ask)> = None;
            let mut left = vec![probe_write(number), Ask::ReadAll];
            while !left.is_empty() || waiting.is_some() {
                if let Some((_, again)) =
                    waiting.take_if(|(op, _)| !self.ops.contains_key(op) && !self.answered.remove(op))
                {
                    left.push(again);
                }
                waiting.take_if(|(op, _)| !self.ops.contains_key(op));
                if waiting.is_none()
                    && let Some(next) = left.pop()
                {
                    match self.ask(number, next.clone()) {
                        Asked::Down => left.push(next),
                        Asked::NoRoom => {}
                        Asked::Sent(op) => waiting = Some((op, next)),
                    }
                }
                self.step();
                assert!(
                    self.queue.now() < deadline,
                    "host {number} does not serve again:\n{}",
                    self.described()
                );
            }
        }
    }

    /// A leader that nothing disturbs ends what nobody renews.
    pub(super) fn outlive_leases(&mut self) {
        let deadline =
            self.queue.now() + self.recovery_max() + Duration::from_secs(SHORT_LEASE.unsigned_abs());
        while self.oracle.has_lease_below(SHORT_LEASE) && !self.oracle.was_corrupt_after(self.oracle.last()) {
            self.step();
            assert!(self.queue.now() < deadline, "leases do not end");
        }
    }

    /// One bit on one of the disks is not what was written, once the power has gone at the end.
    pub(super) fn flip_a_bit(&mut self) {
        let root = self.hosts[0].disk.root();
        let in_log = self.prng.one_in(2);
        let directory =
            if in_log { root.subdirectory(LOG_NAME).expect("a disk with power") } else { root.clone() };
        let mut names = directory.list().expect("a disk with power");
        names.retain(|name| name != LOG_NAME);
        names.sort_unstable();
        let name = &names[usize::try_from(self.prng.range(0, names.len() as u64)).expect("few")];
        let length = directory.open(name).and_then(|file| file.len()).expect("it is listed");
        let (offset, bit) = (self.prng.range(0, length.max(1)), self.prng.range(0, 8));
        directory.flip_bit(name, offset, u8::try_from(bit).expect("below 8"));
        self.note("bit flipped", &[u64::from(in_log), offset, bit]);
    }

    pub(super) fn finish(mut self) -> Report {
        if self.plan.admin.is_some() {
            self.check_members();
        }
        let places = &self.oracle.places;
        (self.report.added, self.report.promoted, self.report.removed) =
            (places.added, places.promoted, places.removed);
        self.report.demoted = places.demoted;
        (self.report.expired, self.report.checkpoints) = self.oracle.lease_counts();
        self.report.trace = self.trace.hash();
        self.report.events = self.trace.events();
        self.report.simulated = Duration::from_nanos(self.queue.now().0);
        self.report
    }
}

fn probe_write(number: usize) -> Ask {
    Ask::Write(Command::Put(Put {
        key: format!("probe {number}").into(),
        value: Some("here".into()),
        lease: LeaseChange::Set(LeaseId::NONE),
        prev_kv: true,
    }))
}
