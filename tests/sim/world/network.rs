//! The network: members' messages, each with its own delay, so that they overtake one another.
//!
//! Owns: what becomes of a message between two members. Must never: let one through that production would turn away.

use std::time::Duration;

use covey::consensus::Message;
use covey::ids::{MemberId, Run};
use covey::mvcc::Facts;
use covey::node::{Roster, TransferMessage};

use super::{Event, Host, World};
use crate::member::Effects;
use crate::plan::draw;

/// The mean delay of a message between two members.
const WIRE: Duration = Duration::from_millis(2);

/// Who has sent a message, and in which run.
#[derive(Clone, Copy)]
pub(super) struct Sender {
    pub(super) host: usize,
    pub(super) member: MemberId,
    pub(super) run: Run,
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

/// A host that the others do not hear, or that does not hear them, or both.
#[derive(Clone, Copy)]
pub(super) struct Parted {
    pub(super) host: usize,
    pub(super) deaf: bool,
    pub(super) mute: bool,
}

impl Parted {
    fn keeps(self, from: usize, to: usize) -> bool {
        self.mute && self.host == from || self.deaf && self.host == to
    }
}

impl World {
    pub(super) fn send(&mut self, from: usize, to: MemberId, parcel: Parcel) {
        let host = (0..self.hosts.len()).find(|host| self.cluster.member(*host) == Some(to));
        let Some((host, sender)) = host.zip(self.cluster.member(from)) else {
            assert!(self.plan.admin.is_some(), "a message to nobody");
            return;
        };
        let Some(run) = self.hosts[from].member.as_ref().map(|member| member.identity().run()) else {
            return;
        };
        let (from, to) = (Sender { host: from, member: sender, run }, (host, to));
        let troubled = !self.calm && self.plan.trouble.gap.is_some();
        let copies = match self.prng.range(0, 80) {
            0..2 if troubled => 0,
            2 if troubled && parcel.may_repeat() => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let delay = draw(&mut self.prng, WIRE);
            self.queue.after(delay, Event::Deliver { from, to, parcel: parcel.clone() });
        }
    }

    pub(super) fn deliver(&mut self, from: Sender, to: (usize, MemberId), parcel: Parcel) {
        let parted = self.parted.is_some_and(|parted| parted.keeps(from.host, to.0));
        self.note("deliver", &[from.host as u64, to.0 as u64, u64::from(parted)]);
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
