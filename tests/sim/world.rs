//! Machines, disks, a network, clients and a clock, all from one seed.
//!
//! Owns: the event loop, which faults happen and when, the end of a run and what must hold then. Must never: let a member see anything
//! that production would not show it. Driven by `main`'s tests, one [`World`] per seed.
//!
//! A run has three parts: clients ask while things go wrong; then nothing goes wrong any more and everything that is asked must
//! be answered in bounded time; at last the power is cut at once everywhere, and what comes back must be all that was shown.

mod clients;
mod clocks;
mod copies;
mod ending;
mod growth;
mod members;
mod network;
mod trouble;
mod watchers;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use covey::command::Range;
use covey::disk::sim::{FaultPlan, Survival};
use covey::ids::{LogIndex, MemberId, ProposalId, Run};
use covey::mvcc::View;
use covey::node::LeaseRequest;
use covey::node::{Roster, TransferContent, TransferMessage};
use covey::prng::Prng;
use covey::store::StageProgress;
use covey::time::Instant;

use crate::disk::{Cluster, Disk, chain, open};
use crate::logs::{LogEvent, Logs};
use crate::member::{Effect, Effects, Member, Standing, Thread};
use crate::oracle::{Oracle, everything};
use crate::plan::{Plan, draw};
use crate::queue::{Queue, Trace};
use crate::votes::Votes;
use crate::workload::{Ask, Workload};
use clocks::Clock;
pub(crate) use clocks::{GOOD, shortest};
use copies::Step;
use network::{Cut, Parcel, SHAPES, Sender};
use watchers::{SUBSCRIBERS, Subscriber};

/// A supervisor starts a process again after about this long.
const RESTART: Duration = Duration::from_millis(800);
/// Other threads run on for about this long when one has failed.
const LAST_BREATH: Duration = Duration::from_micros(300);
/// A machine of a cluster may be away for about this long: the others' logs move on without it.
const OUTAGE: Duration = Duration::from_secs(5);
/// A paused process is looked at again after at most this.
const PAUSE_STEP: Duration = Duration::from_millis(200);

/// What happens.
enum Event {
    Start(usize),
    Turn {
        host: usize,
        run: u64,
        thread: Thread,
        timer: bool,
    },
    /// The process ends after one of its threads has.
    End {
        host: usize,
        run: u64,
    },
    Deliver {
        from: Sender,
        to: (usize, MemberId),
        parcel: Parcel,
    },
    Client(u64),
    /// A client with watchers does something.
    Watch(usize),
    /// A read looks at the view that it took.
    Look(u64),
    GiveUp(u64),
    Trouble,
    /// The network is cut, or whole again.
    Cut,
    /// Some members stand still.
    Standstill,
    /// Somebody looks after the members.
    Administer,
    /// The last host is absent from now on, or no longer.
    Absent(bool),
}

/// A request on its way.
struct Op {
    host: usize,
    run: u64,
    asked: Instant,
    /// What had been shown to clients when it was asked.
    asked_after: LogIndex,
    /// The trouble that the host had seen by then.
    troubles: u64,
    kind: Kind,
}

enum Kind {
    Write,
    Read { range: Option<Range>, view: Option<Arc<View>>, linearizable: bool },
    Hash { revision: i64, view: Option<Arc<View>> },
    Lease(LeaseRequest),
}

/// What became of a request at once.
enum Asked {
    /// Nobody listens.
    Down,
    /// The quota is used up.
    NoRoom,
    Sent(u64),
}

/// A machine.
struct Host {
    disk: Disk,
    member: Option<Member>,
    standing: Option<Standing>,
    /// Who it was told the members are.
    roster: Roster,
    /// The latest run of each other member that has shown itself to this one.
    seen: BTreeMap<MemberId, Run>,
    /// Its disk was put back to what it was before.
    put_back: bool,
    /// Its node knows that it is a copy, and starts no more.
    fenced: bool,
    /// Counts the processes; events for an earlier one are void.
    run: u64,
    starting: bool,
    /// It is off, and does not start before somebody switches it on.
    off: bool,
    /// How the power comes back after the next crash that the disk decides on.
    survival: Survival,
    /// No turns until then.
    paused_until: Instant,
    /// Its state stands still until then.
    applies_until: Instant,
    /// How much it has of the state that it is sent, and since when.
    staged: (StageProgress, Instant),
    /// Since when it is sent states without having installed one.
    staging_since: Option<Instant>,
    /// Its state was spoiled, and no other has taken its place since.
    spoiled: bool,
    /// Counts everything that may keep this host from answering.
    troubles: u64,
    clock: Clock,
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) trace: u64,
    pub(crate) events: u64,
    pub(crate) simulated: Duration,
    pub(crate) acknowledged: u64,
    pub(crate) unknown: u64,
    pub(crate) refused: u64,
    pub(crate) reads: u64,
    pub(crate) starts: u64,
    pub(crate) power_cuts: u64,
    pub(crate) kills: u64,
    pub(crate) faults: u64,
    /// Cuts of the network, by their shapes.
    pub(crate) cuts: [u64; SHAPES],
    /// Messages that came seconds late, in a later term than that in which they were sent.
    pub(crate) late: u64,
    /// Times that members stood still, their clocks with them, or only they.
    pub(crate) slept: u64,
    pub(crate) stopped: u64,
    /// Disks that answered nothing for so long that they were told of, and leaders that handed over for that.
    pub(crate) stuck: u64,
    pub(crate) handed_over: u64,
    pub(crate) stored: u64,
    /// Deletions and transactions that were left to the store, and ends of leases.
    pub(crate) swept: u64,
    pub(crate) swept_leases: u64,
    pub(crate) installed: u64,
    /// States that were spoiled, and those that another one has replaced since.
    pub(crate) spoiled: u64,
    pub(crate) renewed_states: u64,
    /// Times that somebody began to send a member that does not trust its state another one.
    pub(crate) served_suspects: u64,
    /// Leases that were renewed, and that ended because nobody did.
    pub(crate) renewed: u64,
    pub(crate) expired: u64,
    pub(crate) checkpoints: u64,
    /// Members that were added, promoted and removed.
    pub(crate) added: u64,
    pub(crate) promoted: u64,
    pub(crate) removed: u64,
    /// Votes that a cluster has taken from members that stayed away, and times that it took none since too many had vanished together.
    pub(crate) demoted: u64,
    pub(crate) frozen: u64,
    /// Disks that were lost, and copies that were found out.
    pub(crate) lost: u64,
    pub(crate) fenced: u64,
    /// Events that watchers were told, times that they were told how far they are, and that they were too late.
    pub(crate) told: u64,
    pub(crate) progress: u64,
    pub(crate) overtaken: u64,
    /// Operations of each host's disk that changed something: what a crash can be put at.
    pub(crate) disk_operations: Vec<u64>,
    /// The same, when the absent host came back.
    pub(crate) disk_operations_before: Vec<u64>,
}

/// Where a crash is put by whoever enumerates them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CrashPoint {
    pub(crate) host: usize,
    pub(crate) at: u64,
    pub(crate) survival: Survival,
    /// A second crash, as many operations into the start that follows.
    pub(crate) again: Option<u64>,
}

pub(crate) struct World {
    plan: Plan,
    cluster: Cluster,
    queue: Queue<Event>,
    trace: Trace,
    prng: Prng,
    workload: Workload,
    hosts: Vec<Host>,
    oracle: Oracle,
    logs: Logs,
    votes: Votes,
    subscribers: Vec<Subscriber>,
    /// Apart, so that watchers do not change what happens beside them.
    watch_prng: Prng,
    ops: BTreeMap<u64, Op>,
    next_op: u64,
    /// Requests that were answered since nothing goes wrong any more.
    answered: BTreeSet<u64>,
    asked: u64,
    proposals: BTreeMap<ProposalId, u64>,
    reads: BTreeMap<(usize, u64, u64), u64>,
    resting_until: Instant,
    cut: Cut,
    /// What waits for the end of the cut.
    kept: Vec<(Sender, (usize, MemberId), Parcel)>,
    /// Apart, so that cuts and late messages do not change what happens elsewhere.
    net_prng: Prng,
    clock_prng: Prng,
    /// Changes of the members that were asked for, and when, while it is not known what became of them.
    changes: Vec<(u64, Instant)>,
    loss: Option<Step>,
    /// Where a cluster decides who votes: the newest state that was seen, and how many are to vote there.
    voters: (LogIndex, usize),
    /// When a host that is off is switched on again.
    on_again: Option<Instant>,
    calm: bool,
    /// From when on the members stay as they are; what was asked before may have been on its way through one that was removed.
    settled_at: Instant,
    crash_point: Option<CrashPoint>,
    rot: bool,
    report: Report,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut prng = Prng::new(plan.seed ^ 0x5eed);
        let cluster = Cluster::new(plan.hosts, plan.spare, plan.disk);
        let mut clock_prng = Prng::new(plan.seed ^ 0xc10c);
        let mut clock = || plan.clocks.map_or(Clock::new(GOOD), |_| Clock::draw(&mut clock_prng));
        let hosts = (0..plan.hosts + plan.spare).map(|_| Host {
            disk: Disk::new(&mut prng),
            member: None,
            standing: None,
            roster: Roster::default(),
            seen: BTreeMap::new(),
            put_back: false,
            fenced: false,
            run: 0,
            starting: false,
            off: false,
            survival: Survival::Random,
            paused_until: Instant(0),
            applies_until: Instant(0),
            staged: (StageProgress::default(), Instant(0)),
            staging_since: None,
            spoiled: false,
            troubles: 0,
            clock: clock(),
        });
        let hosts: Vec<Host> = hosts.collect();
        let fastest = hosts.iter().map(|host| host.clock.rate()).max().unwrap_or(GOOD);
        Self {
            hosts,
            queue: Queue::new(),
            trace: Trace::new(plan.verbose),
            workload: Workload::new(prng.fork(), plan.load),
            prng,
            oracle: Oracle::new(cluster.first_members(), fastest),
            logs: Logs::default(),
            votes: Votes::default(),
            subscribers: (0..SUBSCRIBERS).map(|_| Subscriber::default()).collect(),
            watch_prng: Prng::new(plan.seed ^ 0x3a7c4),
            ops: BTreeMap::new(),
            next_op: 0,
            answered: BTreeSet::new(),
            asked: 0,
            proposals: BTreeMap::new(),
            reads: BTreeMap::new(),
            resting_until: Instant(0),
            cut: Cut::default(),
            kept: Vec::new(),
            net_prng: Prng::new(plan.seed ^ 0xc07),
            clock_prng,
            changes: Vec::new(),
            loss: None,
            voters: (LogIndex(0), 0),
            on_again: None,
            calm: false,
            settled_at: Instant(0),
            crash_point: None,
            rot: false,
            report: Report::default(),
            cluster,
            plan,
        }
    }

    /// Puts a crash of a host at an operation of its disk, counted from the disk's first one.
    pub(crate) fn crash_at(&mut self, point: CrashPoint) {
        let plan = FaultPlan { crash_at: Some(point.at), ..FaultPlan::default() };
        self.hosts[point.host].disk.root().plan(plan);
        self.hosts[point.host].survival = point.survival;
        self.crash_point = Some(point);
    }

    /// Lets the disk rot while the power is off at the end.
    pub(crate) fn rot(&mut self) {
        self.rot = true;
    }

    /// The whole run. Panics where something does not hold.
    pub(crate) fn run(mut self) -> Report {
        for host in 0..self.plan.hosts {
            self.schedule_start(host, Duration::ZERO);
        }
        self.administer();
        for client in 0..self.plan.load.clients {
            let think = draw(&mut self.prng, self.plan.load.think);
            self.queue.after(think, Event::Client(client));
        }
        for subscriber in 0..SUBSCRIBERS {
            self.queue.after(Duration::ZERO, Event::Watch(subscriber));
        }
        if let Some((from, to)) = self.plan.absence {
            self.queue.after(from, Event::Absent(true));
            self.queue.after(to, Event::Absent(false));
        }
        self.schedule_trouble();
        self.schedule_cut();
        self.schedule_standstill();
        while self.asked < self.plan.load.operations {
            self.step();
        }
        self.cut_before_the_end();
        self.report.disk_operations = self.disk_operations();
        self.calm_down();
        self.switch_on();
        if self.plan.admin.is_some() {
            self.settle_members();
        }
        if self.plan.grows.is_some() {
            self.lose_members();
        }
        self.probe();
        self.outlive_leases();
        self.hear_everything();
        self.cut_power_everywhere();
        if self.rot {
            self.flip_a_bit();
        }
        self.probe();
        if !self.rot {
            self.hear_everything();
        }
        self.finish()
    }

    fn step(&mut self) {
        let event = self.queue.pop().expect("requests wait and nothing is going to happen");
        self.handle(event);
        for host in &mut self.hosts {
            if let Some(member) = &host.member
                && self.plan.look_inside
            {
                let standing = member.check_invariants(host.standing.as_ref());
                member.check_durability();
                self.trace.mix(&standing.numbers());
                if let Some(term) = member.leads_in() {
                    self.logs.see_leader(term, member.id());
                }
                if !member.is_suspect() {
                    self.oracle.see_digest(&member.view());
                }
                host.standing = Some(standing);
            }
        }
        if self.plan.grows.is_some() {
            self.check_votes();
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Start(host) => self.start(host),
            Event::Turn { host, run, thread, timer } => self.turn(host, run, thread, timer),
            Event::End { host, run } if self.hosts[host].run == run => self.kill(host),
            Event::End { .. } => {}
            Event::Deliver { from, to, parcel } => self.deliver(from, to, parcel),
            Event::Client(client) => self.client(client),
            Event::Watch(subscriber) => self.watch(subscriber),
            Event::Look(op) => self.look(op),
            Event::GiveUp(op) => self.give_up(op),
            Event::Trouble => self.make_trouble(),
            Event::Cut => self.cut_or_mend(),
            Event::Standstill => self.stand_still(),
            Event::Administer => self.administer(),
            Event::Absent(absent) => {
                let (hosts, last) = (self.hosts.len(), self.hosts.len() - 1);
                self.cut = if absent { Cut::around(hosts, last, true, true) } else { Cut::default() };
                self.report.disk_operations_before = self.disk_operations();
            }
        }
    }

    fn note(&mut self, what: &str, numbers: &[u64]) {
        self.trace.mix_bytes(what.as_bytes());
        self.trace.note(self.queue.now(), numbers, || format!("{what} {numbers:?}"));
    }

    fn disk_operations(&self) -> Vec<u64> {
        self.hosts.iter().map(|host| host.disk.operations()).collect()
    }

    /// Where every host stands, for whoever looks into a failure.
    fn described(&self) -> String {
        let host = |(number, host): (usize, &Host)| {
            let runs = host.member.as_ref().map(Member::described);
            format!("host {number}, {:?}: {}", self.cluster.member(number), runs.unwrap_or_default())
        };
        self.hosts.iter().enumerate().map(host).collect::<Vec<_>>().join("\n")
    }

    /// Something happens to the log of a host's member.
    fn note_log(&mut self, host: usize, event: LogEvent) {
        if let Some(member) = self.cluster.member(host).filter(|_| self.plan.look_inside) {
            self.votes.note(member, &event);
            self.logs.note(member, event);
        }
    }

    fn host_now(&self, host: usize) -> Instant {
        self.hosts[host].clock.at(self.queue.now())
    }
}

/// Processes: their start, their turns, their end.
impl World {
    fn schedule_start(&mut self, host: usize, delay: Duration) {
        if !self.hosts[host].starting {
            self.hosts[host].starting = true;
            self.queue.after(delay, Event::Start(host));
        }
    }

    fn start(&mut self, number: usize) {
        if !self.hosts[number].starting {
            return;
        }
        if self.hosts[number].off {
            self.hosts[number].starting = false;
            return;
        }
        let (mut timing, quota) = (self.plan.timing, self.plan.quota);
        if self.calm {
            timing.calm_down();
        }
        let (nonce, prng) = (self.prng.next_u64(), self.prng.fork());
        let origin = Duration::from_nanos(self.prng.range(0, 1 << 40));
        if !self.calm && self.report.starts > 0 && self.prng.one_in(self.plan.trouble.cut_start_one_in) {
            self.cut_soon(number);
        }
        let host = &mut self.hosts[number];
        host.starting = false;
        host.run += 1;
        host.standing = host.standing.map(Standing::remembered);
        host.roster = Roster::default();
        host.seen.clear();
        host.clock.begin(self.queue.now(), origin);
        self.report.starts += 1;
        let now = self.host_now(number);
        let mut effects = Effects::new();
        let (run, pace) = (self.hosts[number].run, (self.plan.pace, self.plan.grows));
        let started = open(&self.hosts[number].disk, &self.cluster, number, nonce)
            .and_then(|opened| Member::start(now, opened, quota, timing, pace, prng, &mut effects));
        self.note(
            "start",
            &[number as u64, u64::from(started.is_ok()), self.hosts[number].disk.operations()],
        );
        match started {
            Ok(member) => {
                // A bit that is wrong inside of redb's tree hides rows without a trace: only the scrub notices.
                if self.rot
                    && let Err(error) = member.scrub()
                {
                    return self.thread_failed(number, run, &chain(&error));
                }
                // A state is in its place once the disk has it, even if the process ended before it went on with it.
                if !member.is_suspect() {
                    self.note_renewed(number);
                }
                self.hosts[number].member = Some(member);
                self.carry_out(number, effects);
            }
            Err(why) => self.start_failed(number, &why),
        }
    }

    /// If the host's state was spoiled, another one has taken its place.
    fn note_renewed(&mut self, number: usize) {
        let renewed = std::mem::take(&mut self.hosts[number].spoiled);
        self.report.renewed_states += u64::from(renewed);
    }

    fn start_failed(&mut self, number: usize, why: &str) {
        if !self.hosts[number].disk.has_power() {
            return self.power_comes_back(number);
        }
        if self.hosts[number].put_back && why.contains("it must not vote again") {
            self.report.fenced += 1;
            self.note("stays down", &[number as u64]);
            self.hosts[number].fenced = true;
            return;
        }
        // A fault was armed when it is one of the errors that the disk was told to give.
        let injected = ["os error 5", "os error 28"].iter().any(|error| why.contains(error));
        assert!(injected && !self.calm, "a start was refused: {why}");
        self.note("start refused", &[number as u64]);
        self.hosts[number].disk = self.hosts[number].disk.kill_process();
        self.schedule_start(number, RESTART);
    }

    fn turn(&mut self, number: usize, run: u64, thread: Thread, timer: bool) {
        let now = self.host_now(number);
        let host = &mut self.hosts[number];
        if host.run != run {
            return;
        }
        if self.queue.now() < host.paused_until {
            // In steps: the end of a run ends the pause.
            let delay = host.paused_until.since(self.queue.now()).min(PAUSE_STEP);
            return self.queue.after(delay, Event::Turn { host: number, run, thread, timer });
        }
        let Some(member) = &mut host.member else { return };
        let mut effects = Effects::new();
        let done = member.turn(now, thread, timer, &mut effects);
        let numbers = [number as u64, thread as u64, u64::from(timer), host.disk.operations()];
        self.note("turn", &numbers);
        self.carry_out(number, effects);
        if let Err(why) = done {
            self.thread_failed(number, run, &why);
        }
    }

    fn thread_failed(&mut self, number: usize, run: u64, why: &str) {
        let host = &mut self.hosts[number];
        host.troubles += 1;
        if !host.disk.has_power() {
            return self.power_comes_back(number);
        }
        // redb keeps some failures of the disk to itself until it is asked for something else.
        let injected = why.contains("os error") || why.contains("after an earlier failure");
        assert!(!self.calm && injected, "a thread has failed: {why}");
        self.note("thread failed", &[number as u64]);
        let delay = draw(&mut self.prng, LAST_BREATH);
        self.queue.after(delay, Event::End { host: number, run });
    }

    /// The process dies, the machine does not.
    fn kill(&mut self, number: usize) {
        self.report.kills += 1;
        self.note("kill", &[number as u64]);
        let disk = self.hosts[number].disk.kill_process();
        self.bury(number, disk);
    }

    /// The machine has lost its power just now, or a moment ago in the middle of an operation.
    fn power_comes_back(&mut self, number: usize) {
        self.report.power_cuts += 1;
        let survival = self.hosts[number].survival;
        self.note("power cut", &[number as u64, survival as u64]);
        let disk = self.hosts[number].disk.cut_power(survival);
        self.bury(number, disk);
        if let Some(at) = self.crash_point.take().and_then(|point| point.again) {
            let plan = FaultPlan { crash_at: Some(at), ..FaultPlan::default() };
            self.hosts[number].disk.root().plan(plan);
        }
    }

    /// The process is gone, and with it all that it was asked.
    fn end_process(&mut self, number: usize, disk: Disk) {
        let host = &mut self.hosts[number];
        host.member = None;
        host.staging_since = None;
        host.run += 1;
        host.troubles += 1;
        host.disk = disk;
        let run = host.run;
        let lost = self.ops.extract_if(.., |_, op| op.host == number && op.run < run);
        self.report.unknown += lost.count() as u64;
    }

    fn bury(&mut self, number: usize, disk: Disk) {
        self.end_process(number, disk);
        let long = self.hosts.len() > 1 && !self.calm && self.prng.one_in(4);
        let delay = draw(&mut self.prng, if long { OUTAGE } else { RESTART });
        self.schedule_start(number, delay);
    }

    fn carry_out(&mut self, number: usize, effects: Effects) {
        let run = self.hosts[number].run;
        for effect in effects {
            match effect {
                Effect::Turn(thread, delay) => {
                    self.queue.after(delay, Event::Turn { host: number, run, thread, timer: false });
                }
                Effect::Timer(thread, at) => {
                    let delay = self.hosts[number].clock.until(self.queue.now(), at);
                    self.queue.after(delay, Event::Turn { host: number, run, thread, timer: true });
                }
                Effect::Committed(term, entries) => {
                    self.oracle.commit(self.queue.now(), &entries);
                    if self.plan.look_inside {
                        self.logs.commit(term, &entries);
                    }
                }
                Effect::Log(event) => self.note_log(number, event),
                Effect::Serves(to) => {
                    let mut members = self.hosts.iter().filter_map(|host| host.member.as_ref());
                    let suspect = members.any(|member| member.id() == to && member.is_suspect());
                    self.report.served_suspects += u64::from(suspect);
                }
                Effect::Replied(id, applied) => self.replied(id, &applied),
                Effect::Refused(request, why) => {
                    self.note("refused", &[number as u64, why as u64]);
                    self.refused(number, request);
                }
                Effect::Readable(key) => self.readable(number, key),
                Effect::Send(messages) => {
                    for message in messages {
                        if let Some(member) = self.cluster.member(number).filter(|_| self.plan.look_inside) {
                            self.votes.send(member, &message);
                        }
                        self.send(number, message.to(), Parcel::Raft(message));
                    }
                }
                Effect::Transfer(to, message) => {
                    let message = TransferMessage::decode(message.encode()).expect("what was encoded");
                    if let TransferContent::Status { progress, .. } = message.content
                        && progress != self.hosts[number].staged.0
                    {
                        let now = self.queue.now();
                        self.hosts[number].staged = (progress, now);
                        self.hosts[number].staging_since.get_or_insert(now);
                    }
                    self.send(number, to, Parcel::Transfer(message));
                }
                Effect::Installed => {
                    self.report.installed += 1;
                    self.hosts[number].staging_since = None;
                    self.note_renewed(number);
                    self.note("installed", &[number as u64]);
                }
                // Somebody asks just when a member thinks better of itself: it must not yet answer from what it has forgotten.
                Effect::Standing => {
                    self.ask(number, Ask::Read { range: Range::all(everything()), shortcut: true });
                }
                Effect::DiskStuck(handed_over) => {
                    self.report.stuck += 1;
                    self.report.handed_over += u64::from(handed_over);
                    self.note("disk stuck", &[number as u64, u64::from(handed_over)]);
                }
                Effect::Stored => self.report.stored += 1,
                Effect::Swept { leases: false } => self.report.swept += 1,
                Effect::Swept { leases: true } => self.report.swept_leases += 1,
                Effect::Leased(answers) => self.leased(number, answers),
                Effect::Led(term, view) => self.oracle.led(self.queue.now(), term, &view),
                Effect::Applying(time) => self.hosts[number].applies_until = self.queue.now() + time,
            }
        }
    }
}
