//! The network: members' messages, each with its own delay, so that they overtake one another, and links that are cut.
//!
//! Owns: what becomes of a message between two members, which links are cut and when. Must never: let a message through that production would turn
//! away, or hold one for longer than a connection lives.

use std::collections::BTreeSet;
use std::time::Duration;

use covey::consensus::Message;
use covey::ids::{MemberId, Run, Term};
use covey::limits::REQUEST_TIMEOUT;
use covey::mvcc::Facts;
use covey::node::{Roster, TransferMessage};
use covey::prng::Prng;
use covey::time::Instant;

use super::{Event, Host, World};
use crate::member::Effects;
use crate::plan::{Cuts, draw};

/// The mean delay of a message between two members.
const WIRE: Duration = Duration::from_millis(2);
/// A message that is late comes after so long at least, as terms and leaders change.
const LATE_MIN: Duration = Duration::from_millis(500);
/// Whatever is on its way for longer is lost. Clients have not given up by then: what they have been told nothing of takes effect no later than
/// without such messages.
const LATE_MAX: Duration = Duration::from_secs(6);
const _: () = assert!(LATE_MAX.as_secs() < REQUEST_TIMEOUT.as_secs());
/// One cut in so many lasts until nothing goes wrong any more.
const LASTING_ONE_IN: u64 = 10;

/// Who has sent a message, in which run and term, and when.
#[derive(Clone, Copy)]
pub(super) struct Sender {
    pub(super) host: usize,
    pub(super) member: MemberId,
    pub(super) run: Run,
    term: Term,
    at: Instant,
}

/// What one member sends to another.
#[derive(Clone)]
pub(super) enum Parcel {
    Raft(Message),
    Transfer(TransferMessage),
}

impl Parcel {
    fn may_repeat(&self) -> bool {
        match self {
            Self::Raft(message) => message.may_repeat(),
            Self::Transfer(_) => true,
        }
    }
}

/// How a network is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Nobody hears the leader, and it hears nobody.
    MuteLeader,
    DeafLeader,
    /// The leader is with a minority.
    Minority,
    /// Two or three parts, as they come.
    Parts,
    /// Two halves, and one host that both hear.
    Bridge,
    /// Each hears its neighbours only, or the one before it.
    Ring,
    /// Any links.
    Links,
    /// Two hosts do not hear each other, or one does not hear the other.
    Pair,
}

/// Of how many shapes a cut may be.
pub(crate) const SHAPES: usize = 8;

impl Shape {
    const ALL: [Self; SHAPES] = [
        Self::MuteLeader,
        Self::DeafLeader,
        Self::Minority,
        Self::Parts,
        Self::Bridge,
        Self::Ring,
        Self::Links,
        Self::Pair,
    ];

    /// A cut of this shape between so many hosts, three at least.
    fn draw(self, hosts: usize, leader: usize, prng: &mut Prng) -> Cut {
        let mut below = |end: usize| usize::try_from(prng.range(0, end as u64)).expect("few");
        // The leader is the last of all.
        let mut order: Vec<usize> = (0..hosts).filter(|host| *host != leader).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, below(at + 1));
        }
        order.push(leader);
        let last = hosts - 1;
        let place = |host: usize| order.iter().position(|other| *other == host).expect("all are there");
        let between = |hears: &dyn Fn(usize, usize) -> bool| {
            Cut::between(hosts, |from, to| hears(place(from), place(to)))
        };
        match self {
            Self::MuteLeader => Cut::around(hosts, leader, false, true),
            Self::DeafLeader => Cut::around(hosts, leader, true, false),
            Self::Minority => {
                let first = last - below(hosts.div_ceil(2) - 1);
                between(&|from, to| (from < first) == (to < first))
            }
            Self::Parts => {
                let parts = 2 + below(2);
                let part: Vec<usize> = (0..hosts).map(|_| below(parts)).collect();
                between(&|from, to| part[from] == part[to])
            }
            Self::Bridge => {
                let bridge = below(hosts);
                let half = |place: usize| (place + hosts - bridge) % hosts <= last / 2;
                between(&|from, to| from == bridge || to == bridge || half(from) == half(to))
            }
            Self::Ring => {
                // Of three each has all others as its neighbours.
                let one_way = hosts == 3 || below(2) == 0;
                between(&|from, to| (from + 1) % hosts == to || !one_way && (to + 1) % hosts == from)
            }
            Self::Links => {
                let whole: Vec<bool> = (0..hosts * hosts).map(|_| below(3) > 0).collect();
                between(&|from, to| whole[from * hosts + to])
            }
            Self::Pair => {
                let (one, other, both) = (below(hosts), below(last), below(2) == 0);
                let other = if other < one { other } else { other + 1 };
                between(&|from, to| (from, to) != (one, other) && (!both || (to, from) != (one, other)))
            }
        }
    }
}

/// Links on which nothing arrives for now, each from one host to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    links: BTreeSet<(usize, usize)>,
    /// What is sent on them arrives once they are whole again, as a connection that lives on sends it once more.
    keeps: bool,
}

impl Cut {
    fn between(hosts: usize, hears: impl Fn(usize, usize) -> bool) -> Self {
        let all = (0..hosts).flat_map(|from| (0..hosts).map(move |to| (from, to)));
        Self { links: all.filter(|(from, to)| from != to && !hears(*from, *to)).collect(), keeps: false }
    }

    /// A host that does not hear the others, or that they do not hear.
    pub(super) fn around(hosts: usize, host: usize, deaf: bool, mute: bool) -> Self {
        Self::between(hosts, |from, to| !(mute && from == host || deaf && to == host))
    }

    fn is_whole(&self) -> bool {
        self.links.is_empty()
    }
}

/// The links.
impl World {
    pub(super) fn schedule_cut(&mut self) {
        if let Some(Cuts { gap, length }) = self.plan.net.cuts
            && !self.calm
        {
            let mean = if self.cut.is_whole() { self.mean(gap) } else { length };
            let delay = draw(&mut self.net_prng, mean);
            self.queue.after(delay, Event::Cut);
        }
    }

    /// The network is cut, or whole again.
    pub(super) fn cut_or_mend(&mut self) {
        if self.calm {
            return;
        }
        if !self.cut.is_whole() {
            self.mend();
        } else if !self.loses() {
            self.cut_somehow();
            if self.net_prng.one_in(LASTING_ONE_IN) {
                return;
            }
        }
        self.schedule_cut();
    }

    fn cut_somehow(&mut self) {
        let hosts = self.hosts.len();
        let number = usize::try_from(self.net_prng.range(0, SHAPES as u64)).expect("few");
        let member = |host: usize| self.hosts[host].member.as_ref();
        let leading = (0..hosts).filter_map(|host| Some((member(host)?.leads_in()?, host)));
        let anybody = usize::try_from(self.net_prng.range(0, hosts as u64)).expect("few");
        let leader = leading.max().map_or(anybody, |(_, host)| host);
        self.cut = Shape::ALL[number].draw(hosts, leader, &mut self.net_prng);
        self.cut.keeps = self.net_prng.one_in(2);
        self.report.cuts[number] += 1;
        let links: Vec<u64> = self.cut.links.iter().map(|(from, to)| (from * hosts + to) as u64).collect();
        self.note("cut", &links);
    }

    /// All links are whole again.
    pub(super) fn mend(&mut self) {
        self.cut = Cut::default();
        for (from, to, parcel) in std::mem::take(&mut self.kept) {
            if self.queue.now().since(from.at) < LATE_MAX {
                let delay = draw(&mut self.net_prng, WIRE);
                self.queue.after(delay, Event::Deliver { from, to, parcel });
            }
        }
    }

    /// Where networks are cut, one is when the trouble ends.
    pub(super) fn cut_before_the_end(&mut self) {
        let Some(Cuts { length, .. }) = self.plan.net.cuts else { return };
        if self.cut.is_whole() {
            self.cut_somehow();
        }
        let until = self.queue.now() + draw(&mut self.net_prng, length);
        while self.queue.now() < until {
            self.step();
        }
    }
}

/// The messages.
impl World {
    pub(super) fn send(&mut self, from: usize, to: MemberId, parcel: Parcel) {
        let host = (0..self.hosts.len()).find(|host| self.cluster.member(*host) == Some(to));
        let Some((host, sender)) = host.zip(self.cluster.member(from)) else {
            assert!(self.plan.admin.is_some(), "a message to nobody");
            return;
        };
        let Some((run, term)) =
            self.hosts[from].member.as_ref().map(|member| (member.identity().run(), member.term()))
        else {
            return;
        };
        let at = self.queue.now();
        let (from, to) = (Sender { host: from, member: sender, run, term, at }, (host, to));
        let troubled = !self.calm && self.plan.trouble.gap.is_some();
        let copies = match self.prng.range(0, 80) {
            0..2 if troubled => 0,
            2 if troubled && parcel.may_repeat() => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let delay = draw(&mut self.prng, WIRE) + self.lateness(troubled);
            self.queue.after(delay, Event::Deliver { from, to, parcel: parcel.clone() });
        }
    }

    /// How much later than others a message comes.
    fn lateness(&mut self, troubled: bool) -> Duration {
        let one_in = self.plan.net.late_one_in;
        if !troubled || one_in == 0 || !self.net_prng.one_in(one_in) {
            return Duration::ZERO;
        }
        LATE_MIN + draw(&mut self.net_prng, LATE_MAX.saturating_sub(LATE_MIN) / 2)
    }

    pub(super) fn deliver(&mut self, from: Sender, to: (usize, MemberId), parcel: Parcel) {
        let parted = self.cut.links.contains(&(from.host, to.0));
        self.note("deliver", &[from.host as u64, to.0 as u64, u64::from(parted)]);
        if parted && self.cut.keeps {
            self.kept.push((from, to, parcel));
            return;
        }
        let (sender, to, receiver) = (from.member, to.0, to.1);
        // Each end lets in whom its own state names, and whom it was told of since.
        if !self.lets_in(to, sender) {
            self.tell_roster(to);
        }
        let sends = self.hosts[from.host].member.is_none() || self.lets_in(from.host, receiver);
        let connected = sends && self.lets_in(to, sender);
        let same =
            self.cluster.member(from.host) == Some(sender) && self.cluster.member(to) == Some(receiver);
        if !parted
            && connected
            && same
            && self.accept_each_other(from, to)
            && let Some(member) = &mut self.hosts[to].member
        {
            let late = self.queue.now().since(from.at) >= LATE_MIN && member.term() > from.term;
            self.report.late += u64::from(late);
            let mut effects = Effects::new();
            match parcel {
                Parcel::Raft(message) => member.deliver(message, &mut effects),
                Parcel::Transfer(message) => member.deliver_transfer(sender, message, &mut effects),
            }
            self.carry_out(to, effects);
        }
    }

    fn lets_in(&self, host: usize, other: MemberId) -> bool {
        let Host { member, roster, .. } = &self.hosts[host];
        member.as_ref().is_some_and(|member| {
            let view = member.view();
            knows(view.facts(), other) || roster.applied > view.applied() && knows(&roster.facts, other)
        })
    }

    /// A host without a leader is told who the members are by one that it knows, and that knows more than it.
    fn tell_roster(&mut self, host: usize) {
        let running = |host: usize| self.hosts[host].member.as_ref();
        let Some(own) = running(host).filter(|member| !member.has_leader()) else { return };
        let others = (0..self.hosts.len()).filter_map(|by| running(by).zip(self.cluster.member(by)));
        let newer = others.map(|(by, id)| (id, Roster::of(&by.view()))).find(|(id, roster)| {
            roster.applied > own.view().applied()
                && knows(own.view().facts(), *id)
                && knows(&roster.facts, own.id())
        });
        if let Some((_, roster)) = newer {
            self.hosts[host].roster = roster;
        }
    }
}

/// Whether a member with these facts has another's key.
fn knows(facts: &Facts, other: MemberId) -> bool {
    facts.keys().any(|(id, _)| id == other)
}

#[test]
fn cuts_are_what_they_are_called() {
    let mut prng = Prng::new(1);
    // Of all links those that were whole.
    let mut any = (0, 0);
    for round in 0..300 {
        let hosts = [3, 5, 6, 7][round % 4];
        let leader = round % hosts;
        for shape in Shape::ALL {
            let cut = shape.draw(hosts, leader, &mut prng);
            let hears = |from: usize, to: usize| from != to && !cut.links.contains(&(from, to));
            let heard_by = |to: usize| (0..hosts).filter(|from| hears(*from, to)).count();
            let both_ways =
                |one: usize| (0..hosts).filter(|other| hears(one, *other) && hears(*other, one)).count();
            let heard: Vec<usize> = (0..hosts).map(heard_by).collect();
            let (all, links) = (hosts - 1, heard.iter().sum::<usize>());
            let fits = match shape {
                Shape::MuteLeader => {
                    (0..hosts).all(|host| heard[host] == if host == leader { all } else { all - 1 })
                }
                Shape::DeafLeader => heard[leader] == 0 && links == all * (all - 1) + all,
                Shape::Minority => 2 * (both_ways(leader) + 1) < hosts,
                Shape::Parts => (0..hosts).all(|host| both_ways(host) == heard[host]),
                Shape::Links => {
                    any = (any.0 + links, any.1 + hosts * all);
                    true
                }
                Shape::Bridge => {
                    let bridges = (0..hosts).filter(|host| both_ways(*host) == all).count();
                    bridges == 1
                        && (0..hosts)
                            .all(|host| 2 * both_ways(host) >= hosts - 2 && both_ways(host) == heard[host])
                }
                Shape::Ring => heard.iter().all(|heard| *heard == 1 || *heard == 2) && heard[0] == heard[all],
                Shape::Pair => links == hosts * all - 1 || links == hosts * all - 2,
            };
            assert!(fits, "{shape:?} of {hosts} with leader {leader}: {heard:?}");
        }
    }
    assert!(any.0 * 2 > any.1 && any.0 * 4 < any.1 * 3, "{any:?}");
}
