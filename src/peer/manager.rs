//! Which connection with which member is in use.
//!
//! Owns: the members, when each is dialled, the choice between two connections with one. Must never: wait for the network: everything slow
//! is a task that reports back. Driven by its queue, on the transport's thread.

use std::collections::BTreeMap;
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quinn::{Connection, ConnectionError, VarInt};
use smol::Task;
use smol::channel::{Receiver, RecvError};
use smol::future::or;

use super::Peer;
use super::backoff::Backoff;
use super::dial::{self, Attempt};
use super::events::{Event, RefusedBy};
use super::greet::{CLOSED_REPLACED, Failure, Greeted, refuse, why};
use super::hello::{Refusal, RefusalKind, judge_again};
use super::link::Link;
use super::outbox::{LinkId, Outbox};
use super::shared::{Connected, Shared};
use crate::ids::{MemberId, PublicKey, Run};
use crate::prng::Prng;
use crate::telemetry::Muffle;
use crate::time::Instant;

/// Both ends dial. The one with the higher id gives the other this much time first, so that there are rarely two connections.
const COURTESY: Duration = Duration::from_millis(200);
/// Two connections that begin within this time are the two ends' dials crossing each other. Later, the other end has lost the first one.
const CROSSING: Duration = Duration::from_secs(2);
/// A connection that held this long was no failure.
const STABLE: Duration = Duration::from_secs(2);

/// How often it is looked whether members are still heard: QUIC itself takes [`IDLE_TIMEOUT`](super::endpoint) to give one up.
const LOOK: Duration = Duration::from_secs(1);

/// How many of the addresses that a member has said, and of those that were heard, are dialled: as many as one box is believed to have.
const DIALLED_OF_A_KIND_MAX: usize = 16;

/// What the manager is told.
pub(super) enum Input {
    /// The members, and where they are, from now on.
    Peers(BTreeMap<MemberId, Peer>),
    /// A connection whose ends have accepted each other.
    Established(Established),
    /// Someone who dialled did not get in.
    NotWelcome { member: Option<MemberId>, address: SocketAddr, failure: Failure },
    /// An attempt to reach a member has failed.
    DialFailed { member: MemberId, number: u64, address: Option<SocketAddr>, failure: Failure },
    /// A connection has ended.
    LinkDown { member: MemberId, link: LinkId, error: ConnectionError },
    /// A connection that was replaced could not bring everything.
    RetiredWithLoss { link: LinkId },
    /// Something for this member was dropped on its way in.
    Lost(MemberId),
    /// It is time to look whether members are still heard.
    Look,
    /// The end.
    Stop,
}

pub(super) struct Established {
    pub(super) key: PublicKey,
    pub(super) connection: Connection,
    pub(super) greeted: Greeted,
    /// The number of our attempt; `None` when the other end dialled.
    pub(super) attempt: Option<u64>,
}

/// What is known of a member, and what there is with it.
struct Member {
    peer: Peer,
    outbox: Arc<Outbox>,
    link: Option<Link>,
    /// Connections that were replaced and may still bring something.
    retired: Vec<Link>,
    dial: Option<Dial>,
    backoff: Backoff,
    /// Where it was when it was connected last.
    met: Option<SocketAddr>,
}

struct Dial {
    number: u64,
    begun: Arc<AtomicBool>,
    /// There is news of where the member is.
    outdated: bool,
    #[expect(dead_code, reason = "the attempt lasts as long as its task")]
    task: Option<Task<()>>,
}

impl Member {
    /// There is no connection, or nothing comes by it any more, or ours leads to where the member does not live any more.
    fn wants_dial(&self) -> bool {
        let leads_elsewhere = |link: &Link| link.dialled && !self.lives_at(link.address());
        self.peer.has_address()
            && self.link.as_ref().is_none_or(|link| link.is_silent() || leads_elsewhere(link))
    }

    fn lives_at(&self, address: SocketAddr) -> bool {
        self.peer.addresses.contains(&address) || self.peer.heard.contains(&address)
    }

    /// Where it is dialled. Whatever is heard, what it has said itself comes first, and enough of both comes.
    fn places(&self) -> Vec<SocketAddr> {
        // Where a connection leads that works, it need not be dialled, unless it lives there.
        let works = self.link.as_ref().is_some_and(|link| !link.is_silent());
        let met = self.met.filter(|met| !works || self.lives_at(*met));
        let mut places: Vec<SocketAddr> = met.into_iter().collect();
        for kind in [&self.peer.addresses, &self.peer.heard] {
            let most = places.len() + DIALLED_OF_A_KIND_MAX;
            for address in kind {
                if places.len() < most && !places.contains(address) {
                    places.push(*address);
                }
            }
        }
        places
    }

    /// An attempt that has begun is left alone: the other end may have accepted it already.
    fn drop_waiting_dial(&mut self) {
        if self.dial.as_ref().is_some_and(|dial| !dial.begun.load(Ordering::Relaxed)) {
            self.dial = None;
        }
    }
}

/// See the module.
pub(super) struct Manager {
    shared: Arc<Shared>,
    prng: Prng,
    members: BTreeMap<MemberId, Member>,
    last_link: LinkId,
    last_attempt: u64,
    look_at: Instant,
    refusals: Muffle<(Option<MemberId>, IpAddr, RefusedBy, RefusalKind)>,
    unreached: Muffle<MemberId>,
}

impl Manager {
    pub(super) fn new(shared: Arc<Shared>, prng: Prng) -> Self {
        let look_at = shared.clock.now() + LOOK;
        Self {
            shared,
            look_at,
            prng,
            members: BTreeMap::new(),
            last_link: 0,
            last_attempt: 0,
            refusals: Muffle::default(),
            unreached: Muffle::default(),
        }
    }

    /// Until it is told to stop.
    pub(super) async fn run(mut self, inputs: Receiver<Input>) {
        while let Ok(input) = or(self.until_look(), inputs.recv()).await {
            match input {
                Input::Peers(peers) => self.replace_peers(peers),
                Input::Established(new) => self.established(new),
                Input::NotWelcome { member, address, failure } => self.not_welcome(member, address, failure),
                Input::DialFailed { member, number, address, failure } => {
                    self.dial_failed(member, number, address, failure);
                }
                Input::LinkDown { member, link, error } => self.link_down(member, link, &error),
                Input::RetiredWithLoss { link } => self.retired_with_loss(link),
                Input::Lost(member) => self.tell(Event::Unreachable(member)),
                Input::Look => self.look(),
                Input::Stop => return,
            }
        }
    }

    /// Whatever comes meanwhile, the time of the next look stays. Without members there is nothing to look at.
    async fn until_look(&self) -> Result<Input, RecvError> {
        if self.members.is_empty() {
            pending::<()>().await;
        }
        self.shared.host.sleep(self.look_at.since(self.shared.clock.now())).await;
        Ok(Input::Look)
    }

    /// A member that is not heard any more is dialled wherever it may be by now, while the old connection has the rest of its time: that the other end
    /// is stopped or the network is down looks the same from here.
    fn look(&mut self) {
        let now = self.shared.clock.now();
        self.look_at = now + LOOK;
        let mut fell_silent = Vec::new();
        for (id, member) in &mut self.members {
            let Some(link) = &mut member.link else { continue };
            if !link.look() {
                continue;
            }
            let silent = link.is_silent();
            if let Some(connected) = self.shared.connections().get_mut(id) {
                connected.silent = silent;
            }
            if silent {
                if now.since(link.since) >= STABLE {
                    member.backoff.reset();
                }
                tracing::info!(member = %id, address = %link.address(), "a member is silent");
                fell_silent.push(*id);
            } else {
                member.drop_waiting_dial();
            }
        }
        for id in fell_silent {
            self.tell(Event::Unreachable(id));
            self.dial_if_wanted(id, Duration::ZERO);
        }
    }

    fn tell(&self, event: Event) {
        (self.shared.events)(event);
    }

    fn replace_peers(&mut self, mut peers: BTreeMap<MemberId, Peer>) {
        peers.remove(&self.shared.own.member);
        let gone: Vec<MemberId> = self
            .members
            .iter()
            .filter(|(id, member)| peers.get(id).is_none_or(|peer| peer.key != member.peer.key))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.drop_member(id);
        }
        for (id, peer) in peers {
            let is_new = !self.members.contains_key(&id);
            let member = self.members.entry(id).or_insert_with(|| Member {
                peer: Peer { addresses: Vec::new(), heard: Vec::new(), ..peer.clone() },
                outbox: Arc::default(),
                link: None,
                retired: Vec::new(),
                dial: None,
                backoff: Backoff::default(),
                met: None,
            });
            let before = std::mem::replace(&mut member.peer, peer);
            if before.addresses != member.peer.addresses || before.heard != member.peer.heard {
                member.drop_waiting_dial();
                // Given up, it might never get as far as the right address: anybody may have made the news.
                if let Some(dial) = &mut member.dial {
                    dial.outdated = true;
                }
                member.backoff.reset();
                let gives_way = is_new && self.shared.own.member > id;
                self.dial_if_wanted(id, if gives_way { COURTESY } else { Duration::ZERO });
            }
        }
        *self.shared.outboxes_mut() =
            self.members.iter().map(|(id, member)| (*id, Arc::clone(&member.outbox))).collect();
        self.let_members_in();
    }

    /// Strangers leave room for those who come from where members are. What was only heard of them counts for nothing.
    fn let_members_in(&self) {
        let places = |member: &'_ Member| -> Vec<SocketAddr> {
            member.peer.addresses.iter().copied().chain(member.met).collect()
        };
        let places = self.members.values().flat_map(places);
        self.shared.gate().set_members(places.map(|place| place.ip()));
    }

    /// The member was removed, or another node has its place: nothing of it is believed any more.
    fn drop_member(&mut self, id: MemberId) {
        let Some(member) = self.members.remove(&id) else { return };
        self.shared.connections().remove(&id);
        member.outbox.detach();
        let refusal = self.not_a_member(id, &member.peer.key);
        for link in member.link.iter().chain(&member.retired) {
            link.refuse(&refusal);
        }
        tracing::info!(member = %id, "a member is trusted no longer; its connections are closed");
    }

    /// Why a member that is known no longer, or not yet, is refused with this key. Whoever hears that it was removed stops for good, so that it
    /// is said only to whom the state names as removed; all others try again.
    fn not_a_member(&self, id: MemberId, key: &PublicKey) -> Refusal {
        let us = self.shared.own.member;
        if self.shared.pins.removed(key) == Some(id) {
            return Refusal::removed(us, id);
        }
        let sentence = format!("member {us} refuses member {id}: its key is not that of a member now");
        Refusal { kind: RefusalKind::Key, sentence }
    }

    fn established(&mut self, new: Established) {
        let (us, id, run) = (self.shared.own.member, new.greeted.hello.from, new.greeted.hello.run);
        let known = self.shared.pins.known(&new.key).filter(|known| known.member == id);
        let member = self.members.get_mut(&id).filter(|member| member.peer.key == new.key);
        let (Some(known), Some(member)) = (known, member) else {
            refuse(&new.connection, self.not_a_member(id, &new.key));
            return;
        };
        if new.attempt.is_some() && member.dial.as_ref().map(|dial| dial.number) == new.attempt {
            member.dial = None;
        }
        if let Err(refusal) = judge_again(us, run, &known) {
            let address = new.connection.remote_address();
            refuse(&new.connection, refusal.clone());
            self.refused(Some(id), address, RefusedBy::Us, refusal);
            return;
        }
        let now = self.shared.clock.now();
        let in_use = member.link.as_ref().map(|link| Rival::of(link, now));
        if in_use.is_some_and(|in_use| !in_use.gives_way(run, new.attempt.is_some(), us < id)) {
            new.connection.close(VarInt::from_u32(CLOSED_REPLACED), b"the other connection is kept");
            return;
        }
        self.take(id, new);
    }

    /// Puts a connection to use, in the place of another one if there is one.
    fn take(&mut self, id: MemberId, new: Established) {
        let Established { key, connection, greeted, attempt } = new;
        let run = greeted.hello.run;
        let Some(member) = self.members.get_mut(&id) else { return };
        if let Some(mut old) = member.link.take() {
            old.retire(&self.shared);
            member.retired.push(old);
        }
        self.last_link += 1;
        member.outbox.attach(self.last_link);
        let since = self.shared.clock.now();
        let before = self.shared.connections().insert(id, Connected::new(connection.clone(), since));
        if let Some(mut before) = before {
            before.count(&member.outbox.metrics);
        }
        self.shared.pins.saw(&key, run);
        let dialled = attempt.is_some();
        let link = Link::start(&self.shared, &member.outbox, self.last_link, (connection, greeted, dialled));
        let address = link.address();
        member.link = Some(link);
        let has_moved = member.met.replace(address) != Some(address);
        if !member.wants_dial() {
            member.drop_waiting_dial();
        }
        if has_moved {
            self.let_members_in();
        }
        self.unreached.forget(|news| *news == id);
        self.refusals.forget(|news| news.0 == Some(id));
        tracing::info!(member = %id, %address, dialled, incarnation = run.incarnation.0, "connected with a member");
        self.tell(Event::Connected { member: id, address, run });
    }

    fn link_down(&mut self, id: MemberId, link: LinkId, error: &ConnectionError) {
        let now = self.shared.clock.now();
        let Some(member) = self.members.get_mut(&id) else { return };
        member.retired.retain(|retired| retired.id != link);
        let Some(old) = member.link.take_if(|current| current.id == link) else { return };
        member.outbox.detach();
        if let Some(mut lost) = self.shared.connections().remove(&id) {
            lost.count(&member.outbox.metrics);
        }
        member.outbox.metrics.disconnects.add(1);
        if now.since(old.since) >= STABLE {
            member.backoff.reset();
        }
        let pause = member.backoff.next(&mut self.prng);
        // One that waits since it fell silent may wait for longer.
        member.drop_waiting_dial();
        tracing::info!(member = %id, address = %old.address(), %error, "lost the connection with a member");
        if let Failure::Refused { by, refusal } = why(error) {
            self.refused(Some(id), old.address(), by, refusal);
        }
        self.tell(Event::Unreachable(id));
        self.dial_if_wanted(id, pause);
    }

    fn retired_with_loss(&mut self, link: LinkId) {
        let holds = |member: &Member| member.retired.iter().any(|retired| retired.id == link);
        if let Some((id, _)) = self.members.iter().find(|(_, member)| holds(member)) {
            self.tell(Event::Unreachable(*id));
        }
    }

    fn dial_failed(&mut self, id: MemberId, number: u64, address: Option<SocketAddr>, failure: Failure) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let Some(dial) = member.dial.take_if(|dial| dial.number == number) else { return };
        let pause = if dial.outdated { Duration::ZERO } else { member.backoff.next(&mut self.prng) };
        match (failure, address) {
            (Failure::Refused { by, refusal }, Some(address)) => {
                self.refused(Some(id), address, by, refusal);
            }
            (Failure::Replaced, _) => {}
            (failure, address) => {
                if let Some(before) = self.unreached.tell(self.shared.clock.now(), id) {
                    tracing::info!(member = %id, address = address.map(display), error = %failure, before, "cannot reach a member");
                }
            }
        }
        self.dial_if_wanted(id, pause);
    }

    fn dial_if_wanted(&mut self, id: MemberId, pause: Duration) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.dial.is_some() || !member.wants_dial() {
            return;
        }
        self.last_attempt += 1;
        let begun = Arc::new(AtomicBool::new(false));
        let attempt = Attempt {
            member: id,
            key: member.peer.key,
            addresses: member.places(),
            pause,
            begun: Arc::clone(&begun),
            number: self.last_attempt,
        };
        let task = self.shared.host.spawn(dial::run(Arc::clone(&self.shared), attempt));
        member.dial = Some(Dial { number: self.last_attempt, begun, outdated: false, task });
    }

    fn not_welcome(&mut self, member: Option<MemberId>, address: SocketAddr, failure: Failure) {
        match failure {
            Failure::Refused { by, refusal } => self.refused(member, address, by, refusal),
            Failure::Replaced => {}
            Failure::Lost(error) => tracing::debug!(%address, error, "someone who dialled got lost"),
        }
    }

    fn refused(&mut self, member: Option<MemberId>, address: SocketAddr, by: RefusedBy, why: Refusal) {
        let news = (member, address.ip(), by, why.kind);
        let Some(before) = self.refusals.tell(self.shared.clock.now(), news) else { return };
        let from = match by {
            RefusedBy::Us => "refused a member",
            RefusedBy::Them => "refused by a member",
        };
        tracing::warn!(member = member.map(display), %address, before, "{from}: {}", why.sentence);
        self.tell(Event::Refused { member, address, by, why });
    }
}

/// What the choice between two connections with one member depends on.
#[derive(Clone, Copy)]
struct Rival {
    run: Run,
    /// This node dialled it.
    dialled: bool,
    age: Duration,
    is_closed: bool,
}

impl Rival {
    fn of(link: &Link, now: Instant) -> Self {
        Self {
            run: link.run,
            dialled: link.dialled,
            age: now.since(link.since),
            is_closed: link.connection.close_reason().is_some(),
        }
    }

    /// Whether a connection in use gives way to a new one. Both ends see the same facts, in whatever order, and keep the same one.
    fn gives_way(&self, run: Run, dialled: bool, our_id_is_lower: bool) -> bool {
        self.is_closed
            // The other end has started anew, or given the old one up and dialled again.
            || self.run != run
            || self.dialled == dialled
            || self.age > CROSSING
            // Dials that cross each other: the one of the lower id stays.
            || dialled == our_id_is_lower
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Incarnation;

    const RUN: Run = Run { incarnation: Incarnation(3), boot_nonce: 3 };

    fn in_use(dialled: bool) -> Rival {
        Rival { run: RUN, dialled, age: Duration::ZERO, is_closed: false }
    }

    #[test]
    fn of_dials_that_cross_both_ends_keep_that_of_the_lower_id_in_whatever_order_they_come() {
        for our_id_is_lower in [true, false] {
            for first in [true, false] {
                let second = !first;
                let kept = if in_use(first).gives_way(RUN, second, our_id_is_lower) { second } else { first };
                assert_eq!(kept, our_id_is_lower, "dialled by us, where the first was: {first}");
            }
        }
    }

    #[test]
    fn a_connection_that_the_other_end_has_lost_gives_way() {
        let next = Run { incarnation: Incarnation(4), boot_nonce: 4 };
        for our_id_is_lower in [true, false] {
            let wins = our_id_is_lower;
            assert!(!in_use(wins).gives_way(RUN, !wins, our_id_is_lower), "what the following differ from");
            assert!(in_use(wins).gives_way(next, !wins, our_id_is_lower));
            assert!(in_use(wins).gives_way(RUN, wins, our_id_is_lower), "dialled again");
            let old = Rival { age: CROSSING + Duration::from_millis(1), ..in_use(wins) };
            assert!(old.gives_way(RUN, !wins, our_id_is_lower));
            let closed = Rival { is_closed: true, ..in_use(wins) };
            assert!(closed.gives_way(RUN, !wins, our_id_is_lower));
        }
    }

    /// An intruder says that a member has moved, to more places than anybody would try.
    #[test]
    fn what_is_heard_keeps_no_member_from_where_it_has_said_that_it_is_or_was_met() {
        let at = |net: u8, hosts: std::ops::Range<u8>| -> Vec<SocketAddr> {
            hosts.map(|host| ([10, net, 0, host], 2380).into()).collect()
        };
        let peer = Peer { key: PublicKey([1; 32]), addresses: at(2, 0..40), heard: at(1, 0..40), seen: None };
        let mut member = Member {
            peer,
            outbox: Arc::default(),
            link: None,
            retired: Vec::new(),
            dial: None,
            backoff: Backoff::default(),
            met: None,
        };
        assert_eq!(member.places(), [at(2, 0..16), at(1, 0..16)].concat());
        for (met, others) in [(at(3, 0..1), 0..16), (at(2, 39..40), 0..16), (at(2, 0..1), 1..17)] {
            member.met = Some(met[0]);
            assert_eq!(member.places(), [met, at(2, others), at(1, 0..16)].concat());
        }
        member.met = None;
        member.peer.heard = at(2, 0..40);
        assert_eq!(member.places(), at(2, 0..32), "none twice");
    }
}
