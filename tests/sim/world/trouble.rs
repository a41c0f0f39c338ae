//! What goes wrong, and when.
//!
//! Owns: the draws of faults. Must never: do to a disk or a network what real ones do not do.

use std::collections::BTreeMap;
use std::time::Duration;

use covey::disk::sim::{Fault, FaultPlan, Survival};
use covey::limits::OVERLAY_IDLE;

use super::network::Cut;
use super::{Event, World};
use crate::disk::{ruin, spoil};
use crate::member::Member;
use crate::plan::draw;

/// What goes wrong.
impl World {
    pub(super) fn schedule_trouble(&mut self) {
        if let Some(gap) = self.plan.trouble.gap
            && !self.calm
        {
            let mean = self.mean(gap);
            let delay = draw(&mut self.prng, mean);
            self.queue.after(delay, Event::Trouble);
        }
    }

    /// The mean time to what goes wrong next, elsewhere `gap`: while the clients rest there is less that could.
    pub(super) fn mean(&self, gap: Duration) -> Duration {
        let resting = self.resting_until > self.queue.now();
        if resting { gap + OVERLAY_IDLE / 2 } else { gap }
    }

    pub(super) fn make_trouble(&mut self) {
        if self.calm {
            return;
        }
        let number = usize::try_from(self.prng.range(0, self.hosts.len() as u64)).expect("few");
        self.report.faults += 1;
        let kind = self.prng.range(0, 10);
        self.note("trouble", &[number as u64, kind]);
        self.hosts[number].survival = self.survival();
        if self.prng.one_in(self.plan.trouble.lull_one_in) {
            let rest = OVERLAY_IDLE + Duration::from_secs(self.prng.range(1, 60));
            self.resting_until = self.queue.now() + rest;
        }
        self.hosts[number].troubles += 1;
        self.schedule_trouble();
        let spoil_one_in = self.plan.trouble.spoil_one_in;
        if spoil_one_in > 0 && self.prng.one_in(spoil_one_in) {
            return self.spoil(number);
        }
        match kind {
            0..2 => self.power_off(number),
            2 => self.kill_if_up(number),
            3..6 => self.cut_soon(number),
            6..8 => self.fail_soon(number),
            8 => {
                // Some outlast any election.
                let mean = Duration::from_secs(if self.prng.one_in(3) { 6 } else { 2 });
                let pause = draw(&mut self.prng, mean);
                self.hosts[number].paused_until = self.queue.now() + pause;
            }
            _ => {
                let (deaf, mute) = [(true, true), (true, true), (true, false), (false, true)]
                    [usize::try_from(self.prng.range(0, 4)).expect("small")];
                if self.cut == Cut::default() {
                    self.cut = Cut::around(self.hosts.len(), number, deaf, mute);
                } else {
                    self.mend();
                }
            }
        }
    }

    /// A member's state has become another one than the log says, in a minority of the members at most. That is found out, and the process ends. How it is
    /// found out is above the line. Or its store cannot be opened any more, which the next start finds out.
    fn spoil(&mut self, number: usize) {
        let others = self.hosts.iter().filter(|host| host.spoiled).count();
        let runs = self.hosts[number].member.as_ref().is_some_and(Member::serves);
        if !runs || self.hosts[number].spoiled || 2 * (others + 1) >= self.hosts.len() {
            return;
        }
        self.kill(number);
        let nonce = self.prng.next_u64();
        let host = &mut self.hosts[number];
        host.disk.heal();
        if nonce.is_multiple_of(2) {
            spoil(&host.disk, &self.cluster, number, nonce);
        } else {
            ruin(&host.disk);
        }
        host.spoiled = true;
        self.report.spoiled += 1;
        self.note("spoiled", &[number as u64]);
    }

    pub(super) fn survival(&mut self) -> Survival {
        [Survival::Nothing, Survival::Everything, Survival::Random, Survival::Random]
            [usize::try_from(self.prng.range(0, 4)).expect("small")]
    }

    pub(super) fn power_off(&mut self, number: usize) {
        if self.hosts[number].member.is_some() {
            self.power_comes_back(number);
        }
    }

    pub(super) fn kill_if_up(&mut self, number: usize) {
        if self.hosts[number].member.is_some() {
            self.kill(number);
        }
    }

    /// The power fails in one of the next operations of the disk.
    pub(super) fn cut_soon(&mut self, number: usize) {
        let disk = self.hosts[number].disk.root();
        let at = disk.operations() + self.prng.range(1, 30);
        disk.plan(FaultPlan { crash_at: Some(at), ..FaultPlan::default() });
        self.hosts[number].survival = self.survival();
    }

    /// One of the next operations of the disk fails: a write, a sync, or a read.
    pub(super) fn fail_soon(&mut self, number: usize) {
        let disk = self.hosts[number].disk.root();
        let after = self.prng.range(1, 20);
        let plan = if self.prng.one_in(4) {
            FaultPlan { fail_read_at: Some(disk.reads() + after), ..FaultPlan::default() }
        } else {
            let fault = if self.prng.one_in(3) { Fault::Enospc } else { Fault::Eio };
            FaultPlan {
                fail_at: BTreeMap::from([(disk.operations() + after, fault)]),
                ..FaultPlan::default()
            }
        };
        disk.plan(plan);
    }
}
