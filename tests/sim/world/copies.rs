//! One disk of a run that is replaced by an empty one, or put back to what it was before.
//!
//! Owns: which disk and when, what two members make of each other's runs, and what the operator does about a member that is lost. Must never: put a
//! disk back where nobody who is left can know better.
//!
//! A member that was put back has forgotten what it acknowledged and for whom it voted. So that this would matter, one member is cut off before,
//! and misses what the others write; then the one that has it is cut off instead. Who was put back would elect the one that
//! lacks it.

use std::time::Duration;

use covey::command::{Command, MemberAttributes, MemberCommand};
use covey::formation::{Identity, Stale, fence, judge_runs, later_run};
use covey::ids::{MemberId, Run};
use covey::limits::REQUEST_TIMEOUT;
use covey::mvcc::View;
use covey::store::Member as Stored;
use covey::time::Instant;

use super::members::is_settled;
use super::network::{Cut, Sender};
use super::{RESTART, World};
use crate::disk::Disk;
use crate::plan::Loss;
use crate::workload::Ask;

/// A disk is lost where so many vote at least: the others must be able to go on.
const VOTERS_MIN: usize = 3;
/// How long a member is cut off.
const APART: Duration = Duration::from_millis(1500);

/// How far it has come with the disk that is lost.
pub(super) enum Step {
    /// Nobody changes the members until it is known who they are.
    Begun,
    /// A copy was made; until the stores of all others know of a run that is not in it.
    Copied {
        host: usize,
        copy: Disk,
        identity: Box<Identity>,
    },
    /// One of the others is cut off until then.
    Behind {
        host: usize,
        copy: Disk,
        behind: usize,
        until: Instant,
    },
    /// The disk is what it was when it was copied, and the other one is cut off until then.
    Back {
        host: usize,
        until: Instant,
    },
    /// The node is not that member any more.
    Lost(MemberId),
    Over,
}

impl World {
    /// Whether a disk is about to be lost, or its member is still there.
    pub(super) fn loses(&self) -> bool {
        matches!(
            self.loss,
            Some(Step::Begun | Step::Copied { .. } | Step::Behind { .. } | Step::Back { .. } | Step::Lost(_))
        )
    }

    /// The next step, once it can be made.
    pub(super) fn lose(&mut self, view: &View) {
        let now = self.queue.now();
        let Some(step) = self.loss.take() else {
            let late = 4 * self.asked > self.plan.load.operations;
            self.loss = (self.plan.loss.is_some() && late && !self.calm).then_some(Step::Begun);
            return;
        };
        self.loss = Some(match step {
            Step::Begun | Step::Copied { .. } | Step::Behind { .. } if self.calm => Step::Over,
            Step::Begun => self.begin(view),
            Step::Copied { host, copy, identity } if self.others_know_better(view, &identity) => {
                let others = self.hosts_of(view, Some(identity.member));
                let behind = others[self.pick(others.len())];
                self.cut = Cut::around(self.hosts.len(), behind, true, true);
                Step::Behind { host, copy, behind, until: now + APART }
            }
            Step::Behind { host, copy, behind, until } if now >= until => {
                let id = self.cluster.member(host);
                let others = self.hosts_of(view, id);
                let ahead = others.into_iter().find(|other| *other != behind);
                let hosts = self.hosts.len();
                self.cut = ahead.map_or_else(Cut::default, |host| Cut::around(hosts, host, true, true));
                self.put_back(host, copy);
                Step::Back { host, until: now + 2 * APART }
            }
            Step::Back { host, until } => {
                if now >= until {
                    self.mend();
                }
                match self.cluster.member(host) {
                    Some(id) if self.hosts[host].fenced => Step::Lost(id),
                    _ => Step::Back { host, until },
                }
            }
            Step::Lost(id) => {
                if view.facts().members.iter().any(|member| member.id() == id) {
                    self.command(MemberCommand::Remove { id, strict: false });
                    Step::Lost(id)
                } else {
                    Step::Over
                }
            }
            step => step,
        });
    }

    /// The hosts of all voters but one.
    fn hosts_of(&self, view: &View, but: Option<MemberId>) -> Vec<usize> {
        let voters = view.facts().members.iter().filter(|member| member.votes && Some(member.id()) != but);
        let host = |member: &Stored| {
            (0..self.hosts.len()).find(|host| self.cluster.member(*host) == Some(member.id()))
        };
        voters.filter_map(host).collect()
    }

    /// Once it is certain who the members are, and all of them run.
    fn begin(&mut self, view: &View) -> Step {
        let now = self.queue.now();
        self.changes.retain(|(_, asked)| *asked + REQUEST_TIMEOUT > now);
        let hosts = self.hosts_of(view, None);
        let all_run = hosts.iter().all(|host| self.hosts[*host].member.is_some());
        let certain = self.changes.is_empty() && view.applied() == self.oracle.last();
        if !certain || !all_run || !is_settled(view.facts()) || hosts.len() < VOTERS_MIN {
            return Step::Begun;
        }
        let host = hosts[self.pick(hosts.len())];
        match (self.plan.loss, &self.hosts[host].member) {
            (Some(Loss::PutBack), Some(member)) => {
                let identity = Box::new(member.identity().clone());
                let copy = self.hosts[host].disk.copy();
                self.note("copied", &[host as u64]);
                self.power_off(host);
                Step::Copied { host, copy, identity }
            }
            (_, Some(member)) => {
                let id = member.id();
                self.empty(host);
                Step::Lost(id)
            }
            (_, None) => Step::Begun,
        }
    }

    /// Whether whoever is left knows of a run that the copy knows nothing of, and goes on knowing that after a crash.
    fn others_know_better(&self, view: &View, copied: &Identity) -> bool {
        let others = view.facts().members.iter().filter(|member| member.id() != copied.member);
        let mut knows = others.map(|other| {
            let host = (0..self.hosts.len()).find(|host| self.cluster.member(*host) == Some(other.id()));
            let member = host.and_then(|host| self.hosts[host].member.as_ref());
            let stored = member.and_then(|member| member.stored_run(copied.member));
            stored.is_some_and(|run| !copied.knows(run))
        });
        knows.all(|knows| knows)
    }

    /// The machine has a new disk. Its node is nobody: it has the member's place and another key.
    fn empty(&mut self, number: usize) {
        self.report.lost += 1;
        self.note("disk lost", &[number as u64]);
        let disk = Disk::new(&mut self.prng);
        self.cluster.lose(number);
        self.end_process(number, disk);
        let host = &mut self.hosts[number];
        (host.standing, host.starting) = (None, false);
    }

    fn put_back(&mut self, number: usize, copy: Disk) {
        self.report.lost += 1;
        self.note("disk put back", &[number as u64]);
        self.end_process(number, copy);
        let host = &mut self.hosts[number];
        (host.standing, host.put_back) = (None, true);
        // It is found out before it does any harm, or else `votes` and `logs` remember what it did before.
        self.logs.forget(self.cluster.member(number).expect("it was a voter"));
        self.schedule_start(number, RESTART);
    }

    /// A member says in which run it is, as before it serves clients.
    pub(super) fn publish(&mut self, host: usize, place: &Stored) {
        let Some(member) = &self.hosts[host].member else { return };
        let Run { incarnation, boot_nonce } = member.identity().run();
        if place.run() == Some(member.identity().run()) {
            return;
        }
        let attributes =
            MemberAttributes { incarnation: incarnation.0, boot_nonce, ..place.attributes.clone() };
        self.ask(host, Ask::Write(Command::Publish(attributes)));
    }

    /// The latest run of a member that a host has seen, or that its state names.
    fn seen(&self, host: usize, of: MemberId) -> Option<Run> {
        let Self { hosts, .. } = self;
        let view = hosts[host].member.as_ref()?.view();
        let named = view.facts().members.iter().find(|member| member.id() == of).and_then(Stored::run);
        later_run(hosts[host].seen.get(&of).copied(), named)
    }

    /// Two members look at each other's runs, as on a new connection; whether they go on with each other. Of whoever is found to be a copy the process
    /// ends.
    pub(super) fn accept_each_other(&mut self, sender: Sender, to: usize) -> bool {
        let Some(receiver) = &self.hosts[to].member else { return false };
        let same = self.hosts[sender.host].member.as_ref();
        // It may have ended since; then only the receiver looks.
        let same = same.filter(|member| member.identity().run() == sender.run);
        let (id, run) = (receiver.id(), receiver.identity().run());
        let (of_sender, of_receiver) =
            (self.seen(to, sender.member), same.and_then(|_| self.seen(sender.host, id)));
        let here = judge_runs(receiver.identity(), sender.run, of_sender, of_receiver);
        let there = same.map_or(Ok(()), |member| judge_runs(member.identity(), run, of_receiver, of_sender));
        let runs = same.is_some();
        match (here, there) {
            (Ok(()), Ok(())) => {
                self.hosts[to].seen.insert(sender.member, sender.run);
                if runs {
                    self.hosts[sender.host].seen.insert(id, run);
                }
                return true;
            }
            (Err(Stale::Ours(_)), _) | (_, Err(Stale::Theirs(_))) => self.fence(to),
            (Err(Stale::Theirs(_)), _) | (_, Err(Stale::Ours(_))) if runs => self.fence(sender.host),
            _ => {}
        }
        false
    }

    /// A node has found out that it is a copy: it notes so, and stops.
    fn fence(&mut self, number: usize) {
        assert!(self.hosts[number].put_back, "host {number} is no copy:\n{}", self.described());
        self.note("fenced", &[number as u64]);
        let disk = &self.hosts[number].disk;
        // Without the note it starts once more and finds out again.
        let noted = fence(disk.root());
        if !disk.has_power() {
            return self.power_comes_back(number);
        }
        assert!(noted.is_ok() || !self.calm, "{noted:?}");
        self.kill(number);
    }
}
